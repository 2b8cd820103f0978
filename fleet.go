package scatter

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// learnObserved is how many latencies must be known for a quantile of them to be believed.
const learnObserved = 32

// fleet is what a Searcher knows of its peers, and what it has done with them.
type fleet struct {
	opts    SearcherOptions
	purses  purses
	answers latency // how long peers take that answer
	merges  latency
	seed    uint64
	turn    atomic.Uint64 // queries

	setting sync.Mutex            // held by setCover
	loads   atomic.Pointer[loads] // of the Cover that is set

	counting sync.Mutex
	counts   Stats // guarded by counting; without the purses and Peers
}

// setCover makes later queries use another Cover. What is known of peers that are on both is kept.
func (f *fleet) setCover(cover *Cover) {
	if cover == nil || len(cover.ends) == 0 {
		cover = NewCover(nil, 1)
	}
	f.setting.Lock()
	defer f.setting.Unlock()
	f.loads.Store(newLoads(cover, f.loads.Load(), f.seed))
}

// optionsOf returns the Options of one search.
func (f *fleet) optionsOf(opts *Options) (*Options, error) {
	switch {
	case opts == nil:
		return &f.opts.Options, nil
	case opts.Cover != nil:
		return nil, errors.New("scatter: Options.Cover is set, must be nil: the Searcher has one")
	case f.opts.AskAll && opts.Affinity != "":
		return nil, fmt.Errorf("scatter: Options.Affinity is %q, but the Searcher asks all peers", opts.Affinity)
	}
	return opts, nil
}

// hedgeDelay returns how long peers may take before standbys are asked too, or zero. Rule 38.
//
// Where each hedge takes several standbys, hedging all that are slower than the quantile would
// empty the purse on peers that are a little late, and leave nothing for those that are very late.
// So the quantile rises as the purse falls below a half.
func (f *fleet) hedgeDelay(peerDeadline time.Duration, now, until time.Time) time.Duration {
	most := f.opts.HedgeDelay
	if most < 0 {
		return 0
	}
	if most == 0 {
		most = cmp.Or(max(peerDeadline, 0), DefaultPeerDeadline)
		if !until.IsZero() {
			most = min(most, until.Sub(now))
		}
		most = max(most/10, 1)
	}
	quantile := cmp.Or(f.opts.HedgeQuantile, defaultHedgeQuantile)
	if quantile < 0 || f.answers.observed() < learnObserved {
		return most
	}
	if full := f.purses.hedge.available() / (purseMost / purseUnit); full < 0.5 {
		quantile = 1 - (1-quantile)*2*full
	}
	return min(max(f.answers.quantileBound(quantile), f.opts.HedgeFloor), most)
}

// mergeReserve returns the time that a query with opts keeps back from its deadline.
func (f *fleet) mergeReserve(opts *Options) time.Duration {
	if !f.opts.LearnReserve || f.merges.observed() < learnObserved {
		return opts.MergeReserve
	}
	return max(opts.MergeReserve, f.merges.quantile(0.99))
}

// stats returns what has been done until now.
func (f *fleet) stats() Stats {
	f.counting.Lock()
	stats := f.counts
	f.counting.Unlock()
	stats.FallbackPurse, stats.HedgePurse = f.purses.fallback.available(), f.purses.hedge.available()
	l := f.loads.Load()
	stats.Peers = make([]PeerStats, len(l.peers))
	for i, peer := range l.cover.peers {
		load, answers := l.stats(int32(i)), &l.peers[i].answers
		stats.Peers[i] = PeerStats{
			Peer: peer, InFlight: load.inFlight, Probes: load.probes, Failures: load.failures, Late: load.late,
			ProbationSince: load.probationSince,
			P50:            answers.quantile(0.5), P95: answers.quantile(0.95), P99: answers.quantile(0.99),
		}
	}
	return stats
}

// count changes the counts.
func (f *fleet) count(change func(*Stats)) {
	f.counting.Lock()
	defer f.counting.Unlock()
	change(&f.counts)
}
