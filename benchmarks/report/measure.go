package main

import (
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"time"

	"github.com/scatterknn/scatter/benchmarks/internal/cases"
)

// effort is how much time measuring may take.
type effort struct {
	rounds  int
	slice   time.Duration // for each function in each round
	largest int           // of cases.Case.Size; larger cases are left out. 0: none is
}

var (
	thorough = effort{rounds: 21, slice: 6 * time.Millisecond}
	quick    = effort{rounds: 1, slice: 10 * time.Microsecond, largest: 4000}
)

// figure is what was measured of one function, for each unit that it does. The zero value is one not measured.
type figure struct {
	ns     float64 // median of the rounds
	allocs float64

	cpu, p99 float64 // in ns, of whole queries; else 0
}

// measurement is what was measured of a Group: figures by case and implementation. Cases not measured are left out.
type measurement struct {
	cases.Group
	figures [][]figure
}

// measureAll measures what only matches, of all groups, and tells of each that it begins. Groups of which nothing
// matches are left out.
func measureAll(groups []cases.Group, only *regexp.Regexp, e effort, tell func(string)) measurements {
	var all measurements
	for _, g := range groups {
		m := measurement{Group: g}
		m.Cases = nil
		for _, c := range g.Cases {
			if !only.MatchString(g.Name+"/"+c.Name()) || e.largest > 0 && c.Size() > e.largest {
				continue
			}
			if len(m.Cases) == 0 {
				tell(g.Name)
			}
			m.Cases = append(m.Cases, c)
			m.figures = append(m.figures, e.measure(c))
		}
		if len(m.Cases) > 0 {
			all = append(all, m)
		}
	}
	return all
}

// measure measures all functions of a case in turns, so that what slows down the machine for a while slows down all of
// them, and takes the median of each.
func (e effort) measure(c cases.Case) []figure {
	runs := c.Setup()
	times := make([]int, len(runs)) // that each is run in a round
	samples := make([][]float64, len(runs))
	for i, run := range runs {
		if run != nil {
			times[i] = calibrate(run, e.slice)
		}
	}
	for round := range e.rounds {
		for turn := range runs {
			i := (turn + round) % len(runs)
			if runs[i] != nil {
				settle(runs[i], times[i])
				elapsed := repeat(runs[i], times[i])
				samples[i] = append(samples[i], float64(elapsed.Nanoseconds())/float64(times[i]*c.PerRun()))
			}
		}
	}
	figures := make([]figure, len(runs))
	for i, run := range runs {
		if run != nil {
			settle(run, times[i])
			figures[i] = figure{ns: median(samples[i]), allocs: float64(allocations(run, times[i])) / float64(c.PerRun())}
		}
	}
	return figures
}

// settle collects the garbage of others, so that nobody pays for it but them, and then has a function that is run many
// times fetch what it keeps in caches and pools.
func settle(run func(), times int) {
	runtime.GC()
	if times > 1 {
		run()
	}
}

// calibrate returns how often a function must be run to take about as long as a slice; at least once.
func calibrate(run func(), slice time.Duration) int {
	run()
	for n := 1; ; n *= 2 {
		elapsed := repeat(run, n)
		if elapsed >= slice/4 {
			return max(int(float64(n)*float64(slice)/float64(elapsed)), 1)
		}
	}
}

func repeat(run func(), times int) time.Duration {
	start := time.Now()
	for range times {
		run()
	}
	return time.Since(start)
}

// allocations returns how many one run makes, rounded down: a run seldom shares in what the runtime allocates for
// itself, or in a pool that was emptied. Runs are on as many processors as usual, unlike those of testing.AllocsPerRun.
func allocations(run func(), times int) uint64 {
	n := uint64(min(max(times, 3), 100))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		run()
	}
	runtime.ReadMemStats(&after)
	return (after.Mallocs - before.Mallocs) / n
}

// median returns the middle value, or of an even number of them the mean of the two in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func (f figure) measured() bool { return f.ns > 0 }

// beats reports whether f is faster than g, by more than what two runs differ.
func (f figure) beats(g figure) bool { return f.measured() && g.measured() && 1.05*f.ns < g.ns }

// measurements is all that was measured.
type measurements []measurement

// group returns what was measured of a group; the zero value if nothing was.
func (all measurements) group(name string) measurement {
	for _, m := range all {
		if m.Name == name {
			return m
		}
	}
	return measurement{}
}

// figure returns that of an implementation in a case; the zero value if it was not measured.
func (m measurement) figure(caseName, impl string) figure {
	for i, c := range m.Cases {
		if c.Name() == caseName {
			return m.figures[i][m.Impl(impl)]
		}
	}
	return figure{}
}

// label is a short name of a case: the size of a merge, else the parameters that tell it from others.
func label(c cases.Case) string {
	s := ""
	for _, p := range c.Params {
		switch {
		case p.Name == "peers" && len(c.Params) > 2:
			s += fmt.Sprintf("%v", p.Value)
		case p.Name == "k":
			s += fmt.Sprintf(" × %v", p.Value)
		case p.Name == "dups" && p.Value == 0:
		case p.Name == "dups":
			s += fmt.Sprintf(", %v %% replicas", p.Value)
		case s == "":
			s = fmt.Sprintf("%v", p.Value)
		default:
			s += fmt.Sprintf(", %v", p.Value)
		}
	}
	return s
}
