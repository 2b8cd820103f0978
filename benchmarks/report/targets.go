package main

import (
	"fmt"
	"math"

	"github.com/scatterknn/scatter/benchmarks/internal/cases"
)

// target is what scatter sets out to reach, in one or several cases of a group.
type target struct {
	title    string
	group    string
	impl     string
	quantity quantity
	against  []string // for ratios: whom impl is compared with; of several, with the fastest
	cases    []string // names
	want     []float64
}

// quantity is what a target is about.
type quantity int

const (
	timesAsFast quantity = iota // as the others: at least so many
	timesAsLong                 // as the others take: at most so many
	timesTheCPU                 // time of the others: at most so many
	nanoseconds                 // at most so many
	allocs                      // at most so many
	addedAllocs                 // beyond those of the other, for each peer: at most so many
)

func (q quantity) bound() string {
	if q == timesAsFast {
		return "at least"
	}
	return "at most"
}

func (q quantity) format(v float64) string {
	if q == nanoseconds {
		return duration(v)
	}
	return number(v)
}

// outcome is what became of a target in one case.
type outcome struct {
	label     string
	want, got float64
	reached   bool
}

// outcomes compares a target with the figures. Cases that were not measured are left out.
func (t target) outcomes(all measurements) []outcome {
	var outcomes []outcome
	m := all.group(t.group)
	for i, name := range t.cases {
		for j, c := range m.Cases {
			if c.Name() == name && m.figure(name, t.impl).measured() {
				o := outcome{label: label(c), want: t.want[min(i, len(t.want)-1)], got: t.measured(m, j)}
				o.reached = o.got <= o.want
				if t.quantity == timesAsFast {
					o.reached = o.got >= o.want
				}
				outcomes = append(outcomes, o)
			}
		}
	}
	return outcomes
}

// measured returns the target's quantity in the i-th case.
func (t target) measured(m measurement, i int) float64 {
	name := m.Cases[i].Name()
	ours := m.figure(name, t.impl)
	fastest := figure{ns: math.Inf(1)}
	for _, rival := range t.against {
		if f := m.figure(name, rival); f.measured() && f.ns < fastest.ns {
			fastest = f
		}
	}
	switch t.quantity {
	case timesAsFast:
		return fastest.ns / ours.ns
	case timesAsLong:
		return ours.ns / fastest.ns
	case timesTheCPU:
		return ours.cpu / fastest.cpu
	case nanoseconds:
		return ours.ns
	case allocs:
		return ours.allocs
	case addedAllocs:
		return (ours.allocs - fastest.allocs) / float64(m.Cases[i].Int("peers"))
	}
	panic(fmt.Sprintf("unknown quantity %d", t.quantity))
}

// targets are those of the library, in the order of the groups.
func targets() []target {
	var all []target
	all = append(all, mergeTargets()...)
	all = append(all, fanoutTargets()...)
	all = append(all, machineTargets()...)
	all = append(all, otherTargets()...)
	return append(all, endToEndTargets()...)
}

func mergeTargets() []target {
	unique, replicated := mergeCases("Merge", 0), mergeCases("Merge", 50)
	both := append(append([]string{}, unique...), replicated...)
	sort, others := []string{"sort"}, []string{"heap", "loser"}
	return []target{
		{"times as fast as the sort", "Merge", "scatter", timesAsFast, sort, unique,
			[]float64{4, 9, 75, 27, 150, 180, 150, 300}},
		{"times as fast as the sort, half of the hits being replicas", "Merge", "scatter", timesAsFast, sort, replicated,
			[]float64{2.7, 5.5, 42, 13, 70, 110, 140, 250}},
		{"with the check, times as fast as the sort", "Merge", "checked", timesAsFast, sort, unique,
			[]float64{5, 9, 35, 20, 45, 45, 45, 148}},
		{"times as fast as the faster of container/heap and go-loser", "Merge", "scatter", timesAsFast, others, unique,
			[]float64{2}},
		{"the same, half of the hits being replicas", "Merge", "scatter", timesAsFast, others, replicated, []float64{2}},
		{"allocations", "Merge", "scatter", allocs, nil, both, []float64{1}},
		{"allocations, into a slice that is large enough", "Merge", "into", allocs, nil, both, []float64{0}},
		{"times as fast as the sort", "MergeU64", "scatter", timesAsFast, sort, mergeCases("MergeU64", 0),
			[]float64{10, 19, 95, 45, 250, 150, 200, 400}},
		{"times as fast as the sort", "MergeByID", "scatter", timesAsFast, sort, mergeCases("MergeByID", 0),
			[]float64{5, 6, 14, 8, 35, 20, 60, 90}},
		{"embedded, times as long as Hit alone", "MergeEmbedded", "embedded", timesAsLong, []string{"scatter"},
			mergeCases("MergeEmbedded", 0), []float64{1.5}},
	}
}

// mergeCases names the cases of a group that have such a share of duplicates.
func mergeCases(group string, dups int) []string {
	var names []string
	for _, g := range cases.All() {
		for _, c := range g.Cases {
			if g.Name == group && c.Int("dups") == dups {
				names = append(names, c.Name())
			}
		}
	}
	return names
}

func fanoutTargets() []target {
	peers := []string{"peers=1", "peers=3", "peers=10", "peers=100"}
	hand := []string{"hand"}
	return []target{
		{"times as long as by hand", "FanoutByHand", "scatter", timesAsLong, hand, peers, []float64{2, 1, 0.5, 0.5}},
		{"allocations, the hits and the ledger among them", "FanoutByHand", "scatter", allocs, nil, peers, []float64{12}},
		{"times as long as Broadcast", "Search", "search", timesAsLong, []string{"scatter"},
			[]string{"peers=10", "peers=100"}, []float64{1.3}},
		{"allocations more than Broadcast's, for each peer of many", "Search", "search", addedAllocs, []string{"scatter"},
			[]string{"peers=1000"}, []float64{0.1}},
	}
}

// endToEndTargets are about whole queries over real transports.
func endToEndTargets() []target {
	var all []string
	for _, c := range endToEnd().Cases {
		all = append(all, c.Name())
	}
	hand := []string{"hand"}
	return []target{
		{"times as long as by hand", "EndToEnd", "scatter", timesAsLong, hand, all, []float64{1.1}},
		{"times the CPU time of by hand", "EndToEnd", "scatter", timesTheCPU, hand, all, []float64{1.2}},
	}
}

func machineTargets() []target {
	events := []string{"event=change", "event=same", "event=raise", "event=postpone"}
	turnstile := events[:1]
	return []target{
		{"time of an event", "Machine", "scatter", nanoseconds, nil, events, []float64{20}},
		{"allocations", "Machine", "scatter", allocs, nil, events, []float64{0}},
		{"times as fast as looplab/fsm", "Machine", "scatter", timesAsFast, []string{"looplab"}, turnstile, []float64{60}},
		{"times as fast as qmuntal/stateless", "Machine", "scatter", timesAsFast, []string{"stateless"}, turnstile,
			[]float64{30}},
	}
}

func otherTargets() []target {
	largest := []string{"op=PrimaryPeers/points=128000"}
	var lists []string
	for _, c := range cases.Ring().Cases {
		if c.Params[0].Value == "PreferenceList" {
			lists = append(lists, c.Name())
		}
	}
	encode, decode := []string{"op=encode/hits=100"}, []string{"op=decode/hits=100"}
	codecs := []string{"op=encode/hits=100", "op=decode/hits=100"}
	return []target{
		{"time of PrimaryPeers, 2,000 peers", "Ring", "scatter", nanoseconds, nil, largest, []float64{5e6}},
		{"time of PreferenceList, 3 peers", "Ring", "scatter", nanoseconds, nil, lists, []float64{2e3}},
		{"allocations, to encode 100 hits", "Codec", "scatter", allocs, nil, encode, []float64{2}},
		{"allocations, to decode 100 hits", "Codec", "scatter", allocs, nil, decode, []float64{3}},
		{"times as fast as encoding/json", "Codec", "scatter", timesAsFast, []string{"json"}, codecs, []float64{1}},
		{"times as fast as encoding/gob", "Codec", "scatter", timesAsFast, []string{"gob", "gobstream"}, codecs,
			[]float64{1}},
	}
}
