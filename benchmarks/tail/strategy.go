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
	// hedgeQuantile is that of the latencies observed after which a peer is hedged against. Dean and Barroso hedge after
	// the 95th percentile, for 5 % more requests; but there each has another server that holds the same. On a ring, what a
	// peer holds is spread over its neighbours, and it takes two of them to stand in for one. So 5 % more probes are
	// enough for half as many late peers, which leaves a little for hedges that are late themselves.
	hedgeQuantile = 0.98

	// budgetShare is the most that hedges may add to the ordinary probes.
	budgetShare = 0.05

	// budgetBurst must hold what one query over the largest cluster pays in, or the rest of that is lost.
	budgetBurst = 100

	settleAt    = 0.99
	settleGrace = 10 * time.Millisecond
)

// strategy is a way to ask a cluster.
type strategy struct {
	name    string
	plan    bool // ask those of a plan, not all peers
	options scatter.Options
}

// strategies returns those that are compared, with a budget of their own each.
func strategies(c *cluster) []strategy {
	// Nobody is given up on, so that each tail is seen to its end.
	all := scatter.Options{Cover: c.cover, PeerDeadline: -1}

	waitAll := all
	waitAll.WaitAll = true

	delay := c.model.observed(hedgeQuantile, rand.New(rand.NewPCG(c.seed, math.MaxUint64)))
	hedge := all
	hedge.Standby = c.peers // those that the plan asks are no standbys: the Coordinator sees to that
	hedge.Hedging = &scatter.Hedging{Delay: delay, Budget: scatter.NewBudget(budgetShare, budgetBurst)}

	settle := hedge
	settle.Hedging = &scatter.Hedging{Delay: delay, Budget: scatter.NewBudget(budgetShare, budgetBurst)}
	settle.Settle, settle.Grace = settleAt, settleGrace

	return []strategy{
		{"wait for all", false, waitAll},
		{"done when whole", false, all},
		{"plan", true, all},
		{"plan, hedge", true, hedge},
		{"plan, hedge, settle", true, settle},
	}
}

// peers returns whom the i-th query asks.
func (s *strategy) peers(c *cluster, i int) []scatter.PeerID {
	if s.plan {
		return c.plans[i%len(c.plans)]
	}
	return c.peers
}

// result is how a strategy fared over many queries.
type result struct {
	strategy string
	elapsed  []time.Duration // of all answers, ascending
	whole    []time.Duration // of those that lack nothing, ascending
	probes   float64         // for each query
	coverage float64         // mean
}

// simulate puts the same queries to a cluster by each strategy, and has the oracle check each answer.
func simulate(c *cluster, queries int) ([]result, error) {
	ways := strategies(c)
	results := make([]result, len(ways))
	for i := range queries {
		latencies := c.latencies(i)
		for j := range ways {
			resp, err := c.ask(latencies, ways[j].peers(c, i), &ways[j].options)
			if err == nil {
				err = c.oracle.check(resp)
			}
			if err != nil {
				return nil, fmt.Errorf("%v; %s, query %d: %w", c.setting, ways[j].name, i, err)
			}
			results[j].add(resp)
		}
	}
	for j := range results {
		r := &results[j]
		r.strategy = ways[j].name
		r.probes /= float64(queries)
		r.coverage /= float64(queries)
		slices.Sort(r.elapsed)
		slices.Sort(r.whole)
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

// percentile returns the smallest of the values, which are in ascending order, that a share of them doesn't exceed.
func percentile(ascending []time.Duration, share float64) time.Duration {
	if len(ascending) == 0 {
		return 0
	}
	return ascending[max(int(math.Ceil(share*float64(len(ascending))))-1, 0)]
}
