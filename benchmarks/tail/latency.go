package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// model is how long a peer takes to answer. One reply in a hundred is slow in each.
type model struct {
	name string
	draw func(*rand.Rand) time.Duration
}

const slowShare = 0.01

var models = []model{
	// Dean and Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013, section
	// "Variability Amplified by Scale": a server typically answers in 10 ms, but in one request
	// of a hundred it takes more than a second.
	{"Dean & Barroso", func(r *rand.Rand) time.Duration {
		if r.Float64() < slowShare {
			return uniform(r, time.Second, 2*time.Second)
		}
		return uniform(r, 5*time.Millisecond, 15*time.Millisecond)
	}},
	// The body has the shape of a single leaf in Table 1 of the same article, which answers in 1,
	// 5 and 10 ms at the 50th, 95th and 99th percentile: a lognormal distribution with the median
	// 1 ms and sigma = ln(5)/1.645 = 0.98 has 1, 5 and 9.8 ms. A slow reply takes 10 to 100 times
	// as long.
	{"lognormal", func(r *rand.Rand) time.Duration {
		d := float64(time.Millisecond) * math.Exp(0.98*r.NormFloat64())
		if r.Float64() < slowShare {
			d *= 10 + 90*r.Float64()
		}
		return time.Duration(d)
	}},
}

func uniform(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

// granule is what all delays are multiples of, but for the nanoseconds that tell the peers apart:
// no two things of a query ever happen at the same time, so there is no order of simultaneous
// events for the figures to depend on.
const granule = 2 * time.Microsecond

// fill draws the latency with which each peer answers one query, should it be asked.
func (m model) fill(latencies []time.Duration, r *rand.Rand) {
	for i := range latencies {
		latencies[i] = m.draw(r).Truncate(granule) + time.Duration(i+1)
	}
}

// observed returns a quantile of the latencies that a proxy would have seen before the first
// query here.
func (m model) observed(quantile float64, r *rand.Rand) time.Duration {
	sample := make([]time.Duration, 10_000)
	for i := range sample {
		sample[i] = m.draw(r)
	}
	slices.Sort(sample)
	return percentile(sample, quantile).Truncate(granule)
}
