package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/scatterknn/scatter"
)

// What the strategies are set to.
const (
	// hedgeQuantile is the quantile of the latencies that a fitting HedgeDelay is.
	hedgeQuantile = 0.98

	never = time.Hour // a HedgeDelay that is longer than any query takes

	enoughAt    = 0.99
	enoughGrace = 10 * time.Millisecond
)

// strategy is a way to ask a cluster: a Searcher of its own.
type strategy struct {
	name     string
	searcher *searcher
	now      time.Time // when its next query begins
}

// strategies returns the strategies that are compared. Probe is what Search would use.
func strategies(c *cluster, probe scatter.Probe[hit]) ([]strategy, error) {
	delay := c.model.observed(hedgeQuantile, rand.New(rand.NewPCG(c.seed, math.MaxUint64)))
	var ways []strategy
	for _, way := range []struct {
		name string
		opts scatter.SearcherOptions
	}{
		{"wait for all", scatter.SearcherOptions{AskAll: true, Options: scatter.Options{WaitAll: true}}},
		{"done when whole", scatter.SearcherOptions{AskAll: true}},
		{"no hedges", scatter.SearcherOptions{HedgeDelay: never, HedgeQuantile: -1}},
		{"by default", scatter.SearcherOptions{}},
		{"HedgeDelay", scatter.SearcherOptions{HedgeDelay: delay, HedgeQuantile: -1}},
		{"99 % is enough", scatter.SearcherOptions{
			HedgeDelay: delay, HedgeQuantile: -1,
			Options: scatter.Options{EnoughCoverage: enoughAt, Grace: enoughGrace},
		}},
	} {
		way.opts.PeerDeadline = -1 // nobody is given up on, so that each tail is seen to its end
		if !way.opts.AskAll {      // which draws nothing
			way.opts.Seed = c.seed + 1
		}
		s, err := scatter.NewSearcher(probe, c.cover, &way.opts)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.name, err)
		}
		ways = append(ways, strategy{way.name, s, epoch})
	}
	return ways, nil
}

// result is how a strategy fared over many queries.
type result struct {
	strategy string
	elapsed  []time.Duration // of all answers, ascending
	whole    []time.Duration // of the answers that lack nothing, ascending
	probes   float64         // for each query
	coverage float64         // mean
}

// simulate puts the same queries to a cluster by each strategy, one after the other, and has the
// oracle check each answer.
func simulate(c *cluster, queries int) ([]result, error) {
	ways, err := strategies(c, unasked)
	if err != nil {
		return nil, err
	}
	results := make([]result, len(ways))
	for i := range queries {
		latencies := c.latencies(i)
		for j := range ways {
			resp, now, err := c.ask(ways[j].searcher, ways[j].now, latencies)
			if err == nil {
				err = c.oracle.check(resp)
			}
			if err != nil {
				return nil, fmt.Errorf("%v; %s, query %d: %w", c.setting, ways[j].name, i, err)
			}
			ways[j].now = now
			results[j].add(resp)
		}
	}
	for j := range results {
		results[j].strategy = ways[j].name
		results[j].close()
	}
	return results, nil
}

func (r *result) add(resp *scatter.Response[hit]) {
	r.elapsed = append(r.elapsed, resp.Elapsed)
	if !resp.Partial {
		r.whole = append(r.whole, resp.Elapsed)
	}
	r.probes += float64(resp.PeersConsulted)
	r.coverage += resp.Coverage
}

// close makes means of sums, and sorts.
func (r *result) close() {
	r.probes /= float64(len(r.elapsed))
	r.coverage /= float64(len(r.elapsed))
	slices.Sort(r.elapsed)
	slices.Sort(r.whole)
}

// partial returns the share of the answers that lack something.
func (r *result) partial() float64 { return 1 - float64(len(r.whole))/float64(len(r.elapsed)) }

// percentile returns the smallest of the values, which are in ascending order, that a share of them
// doesn't exceed.
func percentile(ascending []time.Duration, share float64) time.Duration {
	if len(ascending) == 0 {
		return 0
	}
	return ascending[max(int(math.Ceil(share*float64(len(ascending))))-1, 0)]
}
