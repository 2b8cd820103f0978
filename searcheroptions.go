package scatter

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Defaults of SearcherOptions.
const (
	defaultHedgeQuantile = 0.95
	defaultHedgeShare    = 0.05
	defaultFallbackShare = 0.5
)

// SearcherOptions control a [Searcher]. The zero value and a nil *SearcherOptions mean the
// defaults. They are read by [NewSearcher] and never written to.
type SearcherOptions struct {
	// Options are those of each Search that gives none of its own. Cover must be nil.
	Options

	// AskAll makes each query ask all live peers. If false, a query asks few peers that hold
	// everything together, and the others as standbys for those that fail or are slow.
	AskAll bool

	// Cost is a factor of what it costs to ask a peer: 1 for the own zone and 4 for another, say.
	// It must be positive. It is called for each peer in each query, and must be quick and safe for
	// concurrent use. If nil, all peers have 1. It has no say in a query with an Options.Affinity.
	Cost func(PeerID) float64

	// HedgeDelay is the longest that a peer may take before standbys are asked too. If zero, it is
	// a tenth of PeerDeadline or, if that is less, of the query's time. If negative, nobody is
	// asked because a peer is slow.
	HedgeDelay time.Duration

	// HedgeQuantile shortens the delay to this quantile of the time that peers take to answer, over
	// all peers, once 32 answers are known. If zero, 0.95 is used. If negative,
	// only HedgeDelay counts. It must be below 1.
	HedgeQuantile float64

	// HedgeFloor is the shortest delay that HedgeQuantile may give. It must not exceed HedgeDelay.
	HedgeFloor time.Duration

	// HedgeShare and FallbackShare are how many standbys may be asked for peers that are slow, and
	// for peers that have failed, as shares of the peers that are asked at first, over all queries.
	// Each saves up 100 probes at most, and has so many at first. If zero, 0.05 and 0.5
	// are used. If negative, there is no bound.
	HedgeShare, FallbackShare float64

	// LearnReserve raises Options.MergeReserve to the 99th percentile of the time that merges have
	// taken lately.
	LearnReserve bool

	// Coalesce returns a key for a request. Searches that overlap in time share one query if they
	// have the same key and the same opts. The key must take in all that matters of a request, K
	// included. Each caller gets a Response of its own, at its own deadline. The probes and hooks
	// of a shared query have the context values of the caller that began it, and the probes no
	// deadline but the peer's own. A panic in a hook is an error of all callers then. A request
	// with the key "" is not shared. If Coalesce is nil, none is.
	Coalesce func(*Request) string

	// Seed makes the choice of peers reproducible. If zero, it is random, as it should be where
	// several Searchers ask the same peers.
	Seed uint64
}

// check returns an error that names the first option that is out of range, contradicts another, or
// would be ignored.
func (o *SearcherOptions) check() error {
	delay := cmp.Or(o.HedgeDelay, cmp.Or(max(o.PeerDeadline, 0), DefaultPeerDeadline)/10)
	switch {
	case o.Cover != nil:
		return errors.New("scatter: SearcherOptions.Cover is set, must be nil: NewSearcher takes the Cover")
	case !(o.HedgeQuantile < 1): // NaN too
		return fmt.Errorf("scatter: SearcherOptions.HedgeQuantile is %v, must be below 1", o.HedgeQuantile)
	case o.HedgeFloor < 0:
		return fmt.Errorf("scatter: SearcherOptions.HedgeFloor is %v, must not be negative", o.HedgeFloor)
	case o.HedgeDelay < 0 && o.HedgeQuantile > 0:
		return fmt.Errorf("scatter: SearcherOptions.HedgeQuantile is %v, but a negative HedgeDelay means no hedges",
			o.HedgeQuantile)
	case o.HedgeDelay < 0 && o.HedgeFloor > 0:
		return fmt.Errorf("scatter: SearcherOptions.HedgeFloor is %v, but a negative HedgeDelay means no hedges",
			o.HedgeFloor)
	case o.HedgeQuantile < 0 && o.HedgeFloor > 0:
		return fmt.Errorf("scatter: SearcherOptions.HedgeFloor is %v, but a negative HedgeQuantile leaves it no use",
			o.HedgeFloor)
	case o.HedgeFloor > max(delay, 0):
		return fmt.Errorf("scatter: SearcherOptions.HedgeFloor is %v, must not exceed HedgeDelay, which is %v",
			o.HedgeFloor, delay)
	case o.HedgeShare != o.HedgeShare || o.HedgeShare > 1:
		return fmt.Errorf("scatter: SearcherOptions.HedgeShare is %v, must not exceed 1", o.HedgeShare)
	case o.FallbackShare != o.FallbackShare || o.FallbackShare > 1:
		return fmt.Errorf("scatter: SearcherOptions.FallbackShare is %v, must not exceed 1", o.FallbackShare)
	case o.HedgeDelay < 0 && o.HedgeShare > 0:
		return fmt.Errorf("scatter: SearcherOptions.HedgeShare is %v, but a negative HedgeDelay means no hedges",
			o.HedgeShare)
	case o.AskAll && o.choosesPeers():
		return errors.New("scatter: SearcherOptions.AskAll is set, and leaves no use for Affinity, Cost, HedgeDelay, " +
			"HedgeQuantile, HedgeFloor, HedgeShare and FallbackShare")
	}
	return o.Options.check()
}

// choosesPeers reports whether an option is set that is about which peers are asked.
func (o *SearcherOptions) choosesPeers() bool {
	return o.Affinity != "" || o.Cost != nil || o.HedgeDelay > 0 || o.HedgeQuantile > 0 || o.HedgeFloor > 0 ||
		o.HedgeShare > 0 || o.FallbackShare > 0
}
