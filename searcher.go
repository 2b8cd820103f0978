package scatter

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
)

// ErrClosed is returned by [Searcher.Search] after [Searcher.Close]. A query that Close has cut
// short returns it together with what has arrived, and it is the cause with which the contexts of
// that query's probes are cancelled.
var ErrClosed = errors.New("scatter: the Searcher is closed")

// Searcher answers queries for as long as a program runs, over peers of which several hold the
// same. For each query it chooses few peers that hold everything together: cheap, idle and healthy
// ones. It asks others in the place of those that fail or are slow, and learns from each query.
//
// A Searcher is safe for concurrent use. Make one with [NewSearcher] or [NewSearcherAsync], and
// Close it when done.
type Searcher[H Ranked[ID], ID cmp.Ordered] struct {
	probe Probe[H]      // nil: async is not
	async AsyncProbe[H] // nil: probe is not
	fleet
	spawn func(func()) // runs what is done in the background

	lifetime context.Context // ends when Close is called
	end      context.CancelCauseFunc
	idle     chan struct{} // closed when Close was called and nothing runs any more

	// running counts queries, flights and probes. It leaves 0 only by a query that has seen closed
	// to be false under mu.
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool // guarded by mu
	flights flights[H, ID]
}

// NewSearcher returns a Searcher that asks the peers of cover by probe. If cover is nil, nobody
// holds anything until SetCover: answers are empty and Partial.
//
// A nil probe, an option that is out of range, and one that contradicts another are errors.
func NewSearcher[H Ranked[ID], ID cmp.Ordered](
	probe Probe[H], cover *Cover, opts *SearcherOptions,
) (*Searcher[H, ID], error) {
	return newSearcher[H, ID](probe, nil, cover, opts)
}

// NewSearcherAsync is [NewSearcher] with an [AsyncProbe]: each query is as by [BroadcastAsync].
// [Searcher.Close] doesn't wait for callbacks, which may never come; later ones do no harm.
func NewSearcherAsync[H Ranked[ID], ID cmp.Ordered](
	probe AsyncProbe[H], cover *Cover, opts *SearcherOptions,
) (*Searcher[H, ID], error) {
	return newSearcher[H, ID](nil, probe, cover, opts)
}

func newSearcher[H Ranked[ID], ID cmp.Ordered](
	probe Probe[H], async AsyncProbe[H], cover *Cover, opts *SearcherOptions,
) (*Searcher[H, ID], error) {
	if probe == nil && async == nil {
		return nil, errors.New("scatter: probe is nil")
	}
	if opts == nil {
		opts = &SearcherOptions{}
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Searcher[H, ID]{probe: probe, async: async, idle: make(chan struct{})}
	s.opts, s.seed = *opts, cmp.Or(opts.Seed, rand.Uint64())
	s.purses = purses{
		fallback: newPurse(cmp.Or(opts.FallbackShare, defaultFallbackShare)),
		hedge:    newPurse(cmp.Or(opts.HedgeShare, defaultHedgeShare)),
	}
	s.flights.byKey = make(map[flightKey]*flight[H, ID])
	s.spawn = s.running.Go
	s.lifetime, s.end = context.WithCancelCause(context.Background())
	s.SetCover(cover)
	return s, nil
}

// SetCover makes later queries use another Cover. The queries that run keep theirs. What is known
// of peers that are on both Covers is kept. A nil cover is one on which nobody holds anything. It
// makes no query wait.
//
// When data moves from one peer to another, load the new holder first, then call SetCover, and let
// the old holder delete the data only when the queries that began before have ended. A new holder
// that is on the Cover before it has the data answers for a range without its documents, and the
// answer looks whole. So does the answer of an old holder that has deleted them too early.
//
// It costs O(ranges x holders), on the caller's goroutine.
func (s *Searcher[H, ID]) SetCover(cover *Cover) { s.setCover(cover) }

// Search asks peers that together hold everything that live peers hold, and returns the req.K best
// of their hits. opts, if not nil, replaces the Searcher's own Options as a whole. Its Cover must
// be nil.
//
// It is [Broadcast] with a [Cover]: what is said there of who is waited for, of contexts and of
// errors holds here too. [ErrClosed] is also an error, without a Response if Close was called
// before.
func (s *Searcher[H, ID]) Search(ctx context.Context, req *Request, opts *Options) (*Response[H], error) {
	if !s.enter() {
		return nil, ErrClosed
	}
	defer s.running.Done()
	if s.opts.Coalesce != nil && ctx.Err() == nil {
		if _, err := checkRequest(req); err != nil {
			return nil, err
		}
		if key := s.opts.Coalesce(req); key != "" {
			joined := func() { s.count(func(c *Stats) { c.Coalesced++ }) }
			begin := func() (*broadcast[H, ID], error) { return s.newSearch(req, opts) }
			return s.flights.share(ctx, flightKey{key, opts}, begin, joined, s.running.Go)
		}
	}
	q, err := s.newSearch(req, opts) // Rule 29: with the Cover of this moment
	if err != nil {
		return nil, err
	}
	until, _ := ctx.Deadline()
	return q.run(ctx, until)
}

// Coordinator returns the [Coordinator] of one search: it chooses peers, asks standbys and learns
// as Search does, but by the times that it is given. What ask is for, [NewCoordinator] says. It
// ignores SearcherOptions.Coalesce, and is not ended by Close.
func (s *Searcher[H, ID]) Coordinator(
	req *Request, ask func(Ask) bool, opts *Options,
) (*Coordinator[H, ID], error) {
	opts, err := s.optionsOf(opts)
	if err != nil {
		return nil, err
	}
	c := new(Coordinator[H, ID])
	if err := c.init(req, ask, opts); err != nil {
		return nil, err
	}
	c.course.opts.MergeReserve = s.mergeReserve(opts)
	// It starts no goroutine: without spawn, a query that is due to plan does so itself.
	c.course.strategy = &search[H, ID]{fleet: &s.fleet, loads: s.loads.Load(), course: &c.course}
	return c, nil
}

// newSearch returns a query that is ready to run.
func (s *Searcher[H, ID]) newSearch(req *Request, opts *Options) (*broadcast[H, ID], error) {
	opts, err := s.optionsOf(opts)
	if err != nil {
		return nil, err
	}
	q := &struct {
		broadcast[H, ID]
		search search[H, ID]
	}{}
	b := &q.broadcast
	b.probe, b.async = s.probe, s.async
	if err := b.init(req, opts); err != nil {
		return nil, err
	}
	b.opts.MergeReserve = s.mergeReserve(opts)
	b.owner, b.count = s.lifetime, &s.running
	q.search = search[H, ID]{fleet: &s.fleet, loads: s.loads.Load(), course: &b.course, spawn: s.spawn}
	b.strategy = &q.search
	return b, nil
}

// Stats returns what the Searcher has done until now. The counts are of one moment. What they say
// of a query is counted when it ends. It costs about a microsecond for each peer. The caller owns
// the Stats.
func (s *Searcher[H, ID]) Stats() Stats { return s.stats() }

// enter counts a query as running, unless the Searcher is closed.
func (s *Searcher[H, ID]) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running.Add(1)
	}
	return !s.closed
}

// Close cancels all queries with the cause [ErrClosed], makes later ones return it at once, and
// waits until every query and every probe has returned, late probes included. A probe that ignores
// its context makes it wait: when ctx ends, Close returns context.Cause(ctx). It may be called
// again, to wait again.
func (s *Searcher[H, ID]) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		go func() {
			s.running.Wait()
			close(s.idle)
		}()
	}
	s.mu.Unlock()
	s.end(ErrClosed)
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-s.idle: // which counts more
		return nil
	default:
		return context.Cause(ctx)
	}
}
