package main

import (
	"math"
	"strings"
)

// claim says how an operation's time grows with the size of its input.
type claim struct {
	what  string
	group string
	under string // what the names of the cases begin with
	impl  string
	over  string // the parameter that grows
	law   string
	time  func(n float64) float64 // by the law, in whatever unit
	bound bool                    // the law is an upper bound
}

// An operation grows as claimed if the exponent of its time, over all sizes measured, is not much above that of the
// law. It may be further below it: where inputs are small, what doesn't grow makes up much of the time.
const (
	exponentAbove = 0.25
	exponentBelow = 0.5
)

// growth is what became of a claim. An exponent is what the size must be raised to for the time to grow with it: 1 if
// twice the size takes twice the time.
type growth struct {
	claim
	from, to           float64 // sizes
	fastest, slowest   float64 // times at these, in ns
	expected, measured float64 // exponents
}

func (g growth) holds() bool {
	return g.measured <= g.expected+exponentAbove && (g.bound || g.measured >= g.expected-exponentBelow)
}

// growths compares the claims with the figures. Those of which fewer than three sizes were measured are left out.
func growths(claims []claim, all measurements) []growth {
	var out []growth
	for _, c := range claims {
		m := all.group(c.group)
		var sizes, times, lawful []float64
		for _, mc := range m.Cases {
			if name := mc.Name(); strings.HasPrefix(name, c.under) {
				n := float64(mc.Int(c.over))
				sizes = append(sizes, n)
				times = append(times, m.figure(name, c.impl).ns)
				lawful = append(lawful, c.time(n))
			}
		}
		if len(sizes) < 3 {
			continue
		}
		last := len(sizes) - 1
		out = append(out, growth{c, sizes[0], sizes[last], times[0], times[last],
			exponent(sizes, lawful), exponent(sizes, times)})
	}
	return out
}

// exponent is the slope of the line that fits best through the logarithms of sizes and times.
func exponent(sizes, times []float64) float64 {
	var x, y, xx, xy float64
	for i := range sizes {
		lx, ly := math.Log(sizes[i]), math.Log(times[i])
		x += lx
		y += ly
		xx += lx * lx
		xy += lx * ly
	}
	n := float64(len(sizes))
	return (n*xy - x*y) / (n*xx - x*x)
}

func linear(n float64) float64 { return n }

// claims are those of the library.
func claims() []claim {
	const k, p = 100, 100 // what is fixed where the other grows
	return []claim{
		{what: "Merge of trusted lists, over the peers", group: "MergeOverPeers", impl: "scatter", over: "peers",
			law: "P + K·log P", time: func(n float64) float64 { return n + k*math.Log2(2*n) }},
		{what: "Merge of trusted lists, over K", group: "MergeOverK", impl: "scatter", over: "k",
			law: "P + K·log P", time: func(n float64) float64 { return p + n*math.Log2(2*p) }},
		{what: "Merge with the check, over the peers", group: "MergeOverPeers", impl: "checked", over: "peers",
			law: "P·K", time: linear},
		{what: "Merge with the check, over K", group: "MergeOverK", impl: "checked", over: "k", law: "P·K", time: linear},
		{what: "Broadcast", group: "FanoutOverPeers", impl: "scatter", over: "peers", law: "P", time: linear},
		{what: "BroadcastAsync", group: "FanoutOverPeers", impl: "async", over: "peers", law: "P", time: linear},
		{what: "Searcher.Search", group: "FanoutOverPeers", impl: "search", over: "peers", law: "P", time: linear},
		{what: "Machine, events one after the other", group: "MachineBurst", under: "op=step", impl: "scatter",
			over: "events", law: "events", time: linear},
		{what: "Machine, events raised at once", group: "MachineBurst", under: "op=raise", impl: "scatter",
			over: "events", law: "events", time: linear},
		{what: "Machine, events postponed", group: "MachineBurst", under: "op=postpone", impl: "scatter",
			over: "events", law: "events", time: linear},
		{what: "NewRing", group: "Ring", under: "op=NewRing", impl: "scatter", over: "points",
			law: "n·log n", time: func(n float64) float64 { return n * math.Log2(n) }},
		{what: "Ring.PrimaryPeers", group: "Ring", under: "op=PrimaryPeers", impl: "scatter", over: "points",
			law: "peers, here n / 64", time: linear},
		{what: "Ring.PreferenceList", group: "Ring", under: "op=PreferenceList", impl: "scatter", over: "points",
			law: "log n", time: math.Log2},
		{what: "NewCover", group: "Cover", under: "op=NewCover", impl: "scatter", over: "points", law: "n", time: linear},
		{what: "Cover.Holders", group: "Cover", under: "op=Holders", impl: "scatter", over: "points",
			law: "log n", time: math.Log2},
		{what: "Searcher.SetCover", group: "Cover", under: "op=SetCover", impl: "scatter", over: "points",
			law: "n", time: linear},
		{what: "Searcher.Search on random tokens", group: "Cover", under: "op=Search", impl: "scatter", over: "points",
			law: "n at most", time: linear, bound: true},
		{what: "Reply.MarshalBinary", group: "Codec", under: "op=encode", impl: "scatter", over: "hits",
			law: "hits", time: linear},
		{what: "Reply.UnmarshalBinary", group: "Codec", under: "op=decode", impl: "scatter", over: "hits",
			law: "hits", time: linear},
	}
}
