package scatter

import (
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"
)

// DefaultPeerDeadline is used if Options.PeerDeadline is zero.
const DefaultPeerDeadline = 5 * time.Second

// Options control a query. The zero value and a nil *Options mean the defaults. They are read when
// the call begins and never written to.
type Options struct {
	// PeerDeadline is the time that each peer has, from the start of its probe. If zero,
	// DefaultPeerDeadline is used. If negative, only the deadline of the query's context counts.
	// Without that a query may take PeerDeadline as often as there are replicas to ask in turn.
	PeerDeadline time.Duration

	// Limit is the maximum number of probes in flight in this query. The other peers are asked as
	// replies come in. If zero, all are asked at once. A probe past its deadline no longer counts,
	// even if it ignores its context and runs on.
	Limit int

	// Semaphore limits the probes in flight of all queries that share it. Each probe holds one unit
	// until it returns, late or not. A peer waits for its unit no longer than PeerDeadline, and is
	// then NotAsked with context.DeadlineExceeded. If nil, there is no such limit.
	Semaphore *semaphore.Weighted

	// Live reports which peers may be asked. A peer that it calls dead is not asked, but has its
	// line in the ledger, and what only dead peers hold is missing. It is called at most once for
	// each peer in each query, on the caller's goroutine. A nil Live means that all peers are live.
	Live Liveness

	// Cover records which peers hold which token ranges. With it, an answer is judged by ranges and
	// not by peers: Coverage is the share of the token space of which a holder has answered, and
	// Missing lists the rest. The query ends as soon as nobody out can add to that. If nil,
	// Coverage is the share of the peers that have answered.
	Cover *Cover

	// WaitAll makes the query wait for all peers that were asked, even if the Coverage is 1
	// already: approximate replicas differ, and their answers are better together. Without a Cover
	// every query waits for all of them.
	WaitAll bool

	// MinCoverage, from 0 to 1, is the Coverage that an answer must have. With less, the error is a
	// [*CoverageError] with the Response. If zero, any will do.
	MinCoverage float64

	// EnoughCoverage, from 0 to 1, is the Coverage from which on the query waits only for another
	// Grace. If Grace is zero, it takes what is in hand and ends. If zero, it waits for all that
	// can add to the answer. It must not be below MinCoverage.
	EnoughCoverage float64
	Grace          time.Duration

	// MergeReserve is the time to keep back from the deadline of the query's context, for the merge
	// and for what the caller does afterwards. At most half of the time left is kept back.
	MergeReserve time.Duration

	// PeerK returns how many hits to ask each peer for at first, of the k that the query returns,
	// if so many peers are asked. What is below 1 counts as 1, and what is above k as k. Once all
	// have answered, a peer whose unseen hits could still be among the k best is asked once more,
	// for as many as could matter, with Request.Skip. So the answer is the same as if each peer had
	// been asked for k, if a peer's longer lists begin with its shorter ones and replicas agree on
	// scores: Response.Exact tells. See [SpreadK]. If nil, each peer is asked for k.
	PeerK func(k, peers int) int

	// Bound returns a score that no hit of a peer ranks before, if it knows one. Peers are asked in
	// the order of their bounds, Limit at a time, those without one first. A peer whose bound ranks
	// behind the K-th best hit that is known when its turn comes is not asked: it is [Outranked]. A
	// NaN is no bound. It is called once for each peer in each query, on the caller's goroutine. It
	// is an error in a query that is ordered by ID.
	Bound func(PeerID, *Request) (score float32, ok bool)

	// Affinity makes a Searcher ask the same replicas for equal texts, as long as they are healthy,
	// so that approximate replicas give the same answer twice. If empty, replicas are chosen by
	// cost. It is an error in a Broadcast.
	Affinity string

	// Trace has functions that are told what happens. If nil, the query is not traced.
	Trace *Trace
}

// check returns an error that names the first option that is out of range, contradicts another, or
// would be ignored.
func (o *Options) check() error {
	switch {
	case o.Limit < 0:
		return fmt.Errorf("scatter: Options.Limit is %d, must not be negative", o.Limit)
	case !(o.MinCoverage >= 0 && o.MinCoverage <= 1): // NaN is neither
		return fmt.Errorf("scatter: Options.MinCoverage is %v, must be from 0 to 1", o.MinCoverage)
	case !(o.EnoughCoverage >= 0 && o.EnoughCoverage <= 1):
		return fmt.Errorf("scatter: Options.EnoughCoverage is %v, must be from 0 to 1", o.EnoughCoverage)
	case o.EnoughCoverage > 0 && o.EnoughCoverage < o.MinCoverage:
		return fmt.Errorf("scatter: Options.EnoughCoverage is %v, must not be below MinCoverage, which is %v",
			o.EnoughCoverage, o.MinCoverage)
	case o.EnoughCoverage > 0 && o.WaitAll:
		return fmt.Errorf("scatter: Options.EnoughCoverage is %v, but WaitAll waits for all", o.EnoughCoverage)
	case o.Grace < 0:
		return fmt.Errorf("scatter: Options.Grace is %v, must not be negative", o.Grace)
	case o.Grace > 0 && o.EnoughCoverage == 0:
		return fmt.Errorf("scatter: Options.Grace is %v, but needs EnoughCoverage, which is 0", o.Grace)
	case o.MergeReserve < 0:
		return fmt.Errorf("scatter: Options.MergeReserve is %v, must not be negative", o.MergeReserve)
	}
	return nil
}
