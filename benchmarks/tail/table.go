package main

import (
	"fmt"
	"io"
	"time"
)

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// quantiles are p50, p99 and p99.9 of a result, as cells of a table.
func (r *result) quantiles() string {
	return fmt.Sprintf("%.1f | %.1f | %.1f",
		ms(percentile(r.elapsed, 0.5)), ms(percentile(r.elapsed, 0.99)), ms(percentile(r.elapsed, 0.999)))
}

// printTable prints the results in one cluster of the first setting, in Markdown.
func printTable(w io.Writer, s setting, queries int, results []result) {
	fmt.Fprintf(w, "%v; %d queries\n\n", s, queries)
	fmt.Fprintln(w, "| times in ms | p50 | p99 | p99.9 | p99.9 if whole | probes | coverage | whole |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	for _, r := range results {
		whole := "-"
		if len(r.whole) > 0 {
			whole = fmt.Sprintf("%.1f", ms(percentile(r.whole, 0.999)))
		}
		fmt.Fprintf(w, "| %s | %s | %s | %.2f | %.5f | %.2f %% |\n", r.strategy, r.quantiles(), whole,
			r.probes, r.coverage, 100*(1-r.partial()))
	}
	fmt.Fprintln(w)
}

// loadTargets are by load what p99 may be at most, as a share of that of asking in turn.
var loadTargets = map[float64]float64{0.3: 1. / 4, 0.5: 1. / 5, 0.7: 1. / 3}

// printLoads prints the results of the second setting at one load, in Markdown.
func printLoads(w io.Writer, load float64, bad bool, results []loadResult) {
	fmt.Fprintf(w, "Load %.0f %%", 100*load)
	if bad {
		fmt.Fprint(w, ", one peer hangs and one refuses")
	}
	fmt.Fprint(w, "\n\n| times in ms | p50 | p99 | p99.9 | worst seed's p99 | probes | partial |\n|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		seed, p99 := r.worst()
		fmt.Fprintf(w, "| %s | %s | %.1f (seed %d) | %.2f | %.3f %% |\n", r.strategy, r.quantiles(), ms(p99), seed,
			r.probes, 100*r.partial())
	}
	turn, ours := named(results, "in turn, hedged"), named(results, "scatter")
	p99 := func(r *result) float64 { return float64(percentile(r.elapsed, 0.99)) }
	worst, seed := 0.0, uint64(0)
	for i := range ours.bySeed {
		if share := p99(&ours.bySeed[i]) / p99(&turn.bySeed[i]); share > worst {
			worst, seed = share, ours.seeds[i]
		}
	}
	fmt.Fprintf(w, "\nscatter's p99 is %.2f of that of asking in turn, and %.2f with the worst seed, %d; it sends %+.1f %% probes.",
		p99(&ours.result)/p99(&turn.result), worst, seed, 100*(ours.probes/turn.probes-1))
	if want := loadTargets[load]; !bad && want > 0 {
		fmt.Fprintf(w, " The target is %.2f.", want)
	}
	fmt.Fprint(w, "\n\n")
}

func named(results []loadResult, strategy string) *loadResult {
	for i := range results {
		if results[i].strategy == strategy {
			return &results[i]
		}
	}
	panic("no strategy " + strategy)
}
