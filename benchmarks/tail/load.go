package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/scatterknn/scatter"
)

const (
	clients = 3   // coordinators that know nothing of each other
	warmUp  = 500 // queries at first that don't count
)

var loadsSimulated = []float64{0.3, 0.5, 0.7}

// loadWay is a strategy of the second setting.
type loadWay struct {
	name  string
	opts  *scatter.SearcherOptions // of the library's own
	rival rival                    // if opts is nil
}

func loadWays() []loadWay {
	return []loadWay{
		{"wait for all", &scatter.SearcherOptions{AskAll: true, Options: scatter.Options{WaitAll: true}}, rival{}},
		{"in turn, hedged", nil, inTurn},
		{"least in flight", nil, leastInFlight},
		{"C3, hedged", nil, byC3},
		{"no hedges", &scatter.SearcherOptions{HedgeDelay: never, HedgeQuantile: -1}, rival{}},
		{"scatter", &scatter.SearcherOptions{}, rival{}},
	}
}

// loadCase is one cell of the second setting.
type loadCase struct {
	load    float64 // share of what the peers can carry, if each query asks one peer of each shard
	bad     bool    // one peer hangs and one refuses
	queries int
	seed    uint64
}

// stepped is a query of a Searcher.
type stepped struct {
	*scatter.Coordinator[hit, uint32]
}

func (s stepped) begin(now time.Time)         { s.Begin(now, time.Time{}) }
func (s stepped) advance(now time.Time)       { s.Advance(now) }
func (s stepped) deadline() (time.Time, bool) { return s.Deadline() }
func (s stepped) reply(now time.Time, index int, _ feedback, err error) {
	s.Reply(now, index, nil, err)
}
func (s stepped) response() *scatter.Response[hit] { return s.Response() }

// maker makes the queries of one client.
type maker func(*search) (query, error)

// makers returns a maker for each client.
func (way loadWay) makers(c loadCase, w *world, groups [][]scatter.PeerID) ([]maker, error) {
	var all []maker
	peers := slices.Concat(groups...)
	index := make(map[scatter.PeerID]int)
	for i, peer := range peers {
		index[peer] = i
	}
	for i := range clients {
		if way.opts == nil {
			r := newClient(way.rival, w, peers, rand.New(rand.NewPCG(c.seed, uint64(i)+10)))
			all = append(all, func(s *search) (query, error) { return &rivalQuery{client: r, search: s}, nil })
			continue
		}
		opts := *way.opts
		if !opts.AskAll { // which draws nothing
			opts.Seed = c.seed*clients + uint64(i) + 1
		}
		searcher, err := scatter.NewSearcher(unasked, scatter.NewGroupCover(groups...), &opts)
		if err != nil {
			return nil, err
		}
		all = append(all, func(s *search) (query, error) {
			q, err := searcher.Coordinator(request, func(a scatter.Ask) bool {
				w.ask(s, index[a.Peer], a.Index, a.Deadline)
				return true
			}, nil)
			return stepped{q}, err
		})
	}
	return all, nil
}

// simulateLoad puts queries to peers with queues. They come at times that depend on the seed alone.
func simulateLoad(way loadWay, c loadCase) (result, error) {
	groups := slices.Collect(slices.Chunk(somePeers(shards*copies), copies))
	check := newGroupOracle(groups)
	w, stop := newWorld(c.seed, c.bad)
	makers, err := way.makers(c, w, groups)
	if err != nil {
		return result{}, err
	}
	r := result{strategy: way.name}
	arrivals := rand.New(rand.NewPCG(c.seed, 2))
	every := float64(time.Second) * shards / (w.capacity() * c.load)
	var errs []error
	sent := 0
	var arrive func()
	arrive = func() {
		number := sent
		if sent++; number == c.queries {
			stop()
			return
		}
		s := &search{}
		s.whenEnd = func(resp *scatter.Response[hit]) {
			if err := check.check(resp); err != nil {
				errs = append(errs, fmt.Errorf("%s, query %d: %w", way.name, number, err))
			}
			if number >= min(warmUp, c.queries/10) {
				r.add(resp)
			}
		}
		var err error
		if s.query, err = makers[arrivals.IntN(clients)](s); err != nil {
			errs = append(errs, err)
		} else {
			w.begin(s)
		}
		w.after(time.Duration(arrivals.ExpFloat64()*every), arrive)
	}
	w.after(0, arrive)
	w.run()
	r.close()
	return r, errors.Join(errs...)
}

// loadResult is how a strategy fared in one setting, by seed.
type loadResult struct {
	result          // of all seeds together
	bySeed []result // in the order of the seeds
	seeds  []uint64
}

// worst returns the seed with the greatest p99, and that.
func (r *loadResult) worst() (seed uint64, p99 time.Duration) {
	for i, one := range r.bySeed {
		if p := percentile(one.elapsed, 0.99); p > p99 {
			seed, p99 = r.seeds[i], p
		}
	}
	return seed, p99
}

// simulateLoads runs all strategies at one load, with several seeds.
func simulateLoads(load float64, bad bool, queries int, seeds []uint64) ([]loadResult, error) {
	ways := loadWays()
	results, errs := make([]loadResult, len(ways)), make([]error, len(ways)*len(seeds))
	var wg sync.WaitGroup
	for i := range ways {
		results[i].seeds, results[i].bySeed = seeds, make([]result, len(seeds))
		for j, seed := range seeds {
			wg.Go(func() {
				results[i].bySeed[j], errs[i*len(seeds)+j] = simulateLoad(ways[i], loadCase{load, bad, queries, seed})
			})
		}
	}
	wg.Wait()
	for i := range results {
		results[i].result = joined(results[i].bySeed)
	}
	return results, errors.Join(errs...)
}

// joined makes one result of several of a strategy.
func joined(results []result) result {
	all := result{strategy: results[0].strategy}
	for _, r := range results {
		all.elapsed = append(all.elapsed, r.elapsed...)
		all.whole = append(all.whole, r.whole...)
		all.probes += r.probes * float64(len(r.elapsed))
		all.coverage += r.coverage * float64(len(r.elapsed))
	}
	all.close()
	return all
}
