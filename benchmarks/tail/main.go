// Command tail simulates queries to clusters in which each reply may be slow, by several strategies, and prints how
// long the queries take, how many probes they cost and what their answers cover. It also draws a chart.
//
// Each query is a real [scatter.Coordinator], driven by an event queue in simulated time: nothing sleeps, nothing is
// concurrent within a query, and the same seed gives the same figures.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"
)

func main() {
	log.SetFlags(0)
	seed := flag.Uint64("seed", 1, "seed of the rings, the plans and the latencies")
	queries := flag.Int("queries", 10_000, "queries to each cluster; those of 1000 peers get a fifth")
	svg := flag.String("svg", "../docs/tail.svg", "`file` to draw the chart in; none if empty")
	flag.Parse()
	if err := run(os.Stdout, *seed, *queries, *svg); err != nil {
		log.Fatal(err)
	}
}

// settings are those of the table: each model with clusters of each size.
func settings() []setting {
	var all []setting
	for _, m := range models {
		for _, peers := range []int{10, 100, 1000} {
			for replicas := 1; replicas <= 3; replicas++ {
				all = append(all, setting{m, peers, replicas, 1})
			}
		}
		all = append(all, setting{m, 100, 3, 16})
	}
	return all
}

// charted reports whether a setting is in the chart.
func charted(s setting) bool { return s.peers == 100 && s.replicas == 3 && s.tokens == 1 }

func run(w io.Writer, seed uint64, queries int, svg string) error {
	if queries < 1 {
		return fmt.Errorf("-queries is %d, must be at least 1", queries)
	}
	all := settings()
	results, errs := make([][]result, len(all)), make([]error, len(all))
	count := func(s setting) int {
		if s.peers == 1000 {
			return max(queries/5, 1)
		}
		return queries
	}
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { results[i], errs[i] = simulate(newCluster(s, seed), count(s)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var panels []panel
	for i, s := range all {
		printTable(w, s, count(s), results[i])
		if charted(s) {
			panels = append(panels, panel{s.model.name, results[i]})
		}
	}
	if svg == "" {
		return nil
	}
	return os.WriteFile(svg, []byte(draw(panels)), 0o666)
}

func printTable(w io.Writer, s setting, queries int, results []result) {
	fmt.Fprintf(w, "%v; %d queries\n", s, queries)
	fmt.Fprintf(w, "%-20s %9s %9s %9s %14s %9s %9s %8s\n",
		"times in ms", "p50", "p99", "p99.9", "p99.9 if whole", "probes", "coverage", "whole")
	for _, r := range results {
		whole := "-"
		if len(r.whole) > 0 {
			whole = fmt.Sprintf("%.1f", ms(percentile(r.whole, 0.999)))
		}
		fmt.Fprintf(w, "%-20s %9.1f %9.1f %9.1f %14s %9.2f %9.5f %6.2f %%\n", r.strategy,
			ms(percentile(r.elapsed, 0.5)), ms(percentile(r.elapsed, 0.99)), ms(percentile(r.elapsed, 0.999)), whole,
			r.probes, r.coverage, 100*float64(len(r.whole))/float64(len(r.elapsed)))
	}
	fmt.Fprintln(w)
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
