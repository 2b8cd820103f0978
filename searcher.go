package scatter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// ErrClosed is returned by [Searcher.Search] after [Searcher.Close]; and, with what has arrived, by a query that Close
// has cut short. It is also the cause with which the contexts of that query's probes are cancelled.
var ErrClosed = errors.New("scatter: the Searcher is closed")

const (
	// DefaultHedgeShare is the share of extra probes if SearcherOptions.HedgeShare is 0: one in five, enough for a ring
	// of ten peers with three replicas to give whole answers while one of the peers fails each time it is asked.
	DefaultHedgeShare = 0.2

	// DefaultHedgeBurst is the number of extra probes saved up if SearcherOptions.HedgeBurst is 0.
	DefaultHedgeBurst = 100

	// learnObserved is how many latencies of a peer, or of merges, must be known for a quantile of them to be believed.
	learnObserved = 32

	// Queries take plans in turn: most of them, for an even load, where a plan costs little; least where it costs much,
	// which is on rings with many points, whose plans ask most peers anyway. planCost is what all may cost together, in
	// points, each once for each replica.
	mostPlans, leastPlans, planCost = 128, 8, 1 << 20
)

// SearcherOptions change what a [Searcher] does. The zero value, and a nil *SearcherOptions, mean the defaults. They
// are read by [NewSearcher], and never written.
type SearcherOptions struct {
	// Options are those of each query. Cover, Standby and Hedging are the Searcher's to set, and must be zero.
	Options

	// Replicas is how many peers hold each range of the ring: see [Cover]. 0: 1.
	Replicas int

	// Live tells which peers may be asked. It is called for each peer of the ring once in each query, on the goroutine
	// that searches, and so must be fast and safe for concurrent use. It should soon be false of a peer that keeps
	// failing: each time such a peer is asked in vain, those asked in its place take from the share of extra probes.
	// nil: all peers are live.
	Live Liveness

	// AskAll has each query ask all live peers. Otherwise it asks a [Cover.Plan], and has the other live peers as
	// standbys.
	AskAll bool

	// HedgeDelay is how long a peer may take before standbys are asked too: see [Hedging]. 0: a tenth of what it has,
	// which is PeerDeadline or, if that is less, the time left to the query; with HedgeQuantile, a half. Negative:
	// without HedgeQuantile, standbys stand in only for a peer that has failed.
	HedgeDelay time.Duration

	// HedgeQuantile, from 0 to below 1, shortens HedgeDelay for each peer to this quantile of its latencies, as far as
	// they are told apart (see [PeerStats]): with 0.95, it is late when it takes longer than about 95 % of the time.
	// HedgeDelay holds until 32 latencies of the peer are known, and remains the most it is given; without one, being
	// negative, nobody is hedged against until then, and a peer that gets slower and slower is given more and more time.
	// 0: HedgeDelay alone.
	HedgeQuantile float64

	// HedgeFloor is the least delay that HedgeQuantile may give. 0: any.
	HedgeFloor time.Duration

	// HedgeShare is how many standbys may be asked, for failed peers and for late ones, as a share of the peers asked
	// in the first place, at most 1, over all queries: see [Budget]. 0: DefaultHedgeShare; negative: without bound.
	HedgeShare float64

	// HedgeBurst is how many of these may be saved up. 0: DefaultHedgeBurst.
	HedgeBurst int

	// LearnReserve has Options.Reserve grow to the 99th percentile of the time that merges have taken lately, but not
	// beyond a quarter of the time left to the query.
	LearnReserve bool

	// Key has callers share: requests that are under way at the same time and have the same Key are asked once, as the
	// first of them, and each caller gets a copy of the Response, in which only what hits point to is shared. It must
	// take in all that matters of a request, K included. "" is not shared; a nil Key shares nothing.
	//
	// What is shared has the context values and the deadline of the caller that began it; a caller with an earlier
	// deadline joins nobody. It ends when all its callers have gone: one whose context is cancelled leaves with the
	// cause and no Response, and disturbs nobody else. A panic in Live or in a Trace is an error
	// to all of them, a *PanicError.
	Key func(*Request) string

	// Seed makes plans the same each time. Searchers side by side should have different ones, so that their loads add
	// up evenly. 0: a random one.
	Seed uint64
}

// Searcher answers queries over a [Ring] for as long as a program runs. It plans whom to ask, hedges against those that
// fail or are late, and learns from each query how long peers take.
//
// A Searcher is safe for concurrent use. Make one with [NewSearcher] or [NewSearcherAsync], and when done
// with it, Close it.
type Searcher[H Ranked[ID], ID cmp.Ordered] struct {
	probe  Probe[H]      // nil: async is not
	async  AsyncProbe[H] // nil: probe is not
	opts   SearcherOptions
	budget *Budget
	merges latency
	seed   uint64
	turn   atomic.Uint64

	setting sync.Mutex // held by SetRing
	view    atomic.Pointer[ringView]

	lifetime context.Context // over when Close is called
	end      context.CancelCauseFunc
	idle     chan struct{} // closed when Close was called and nothing runs any more

	// running counts queries, shared fan-outs and probes. It leaves 0 only by a query that has seen closed to be false
	// under mu.
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows, and that group has the keys that flights has
	closed  bool
	counts  Stats // without Budget and Peers
	flights map[string]*flight
	group   singleflight.Group
}

// NewSearcher returns a Searcher that asks the peers of ring by probe. A nil ring is empty: until SetRing gives one
// that isn't, all queries have an empty answer, Partial. It costs what [Searcher.SetRing] costs.
//
// A nil probe, and an option out of its range, are errors.
func NewSearcher[H Ranked[ID], ID cmp.Ordered](
	probe Probe[H], ring *Ring, opts *SearcherOptions,
) (*Searcher[H, ID], error) {
	return newSearcher[H, ID](probe, nil, ring, opts)
}

// NewSearcherAsync is [NewSearcher] with an [AsyncProbe]: each query is as by [BroadcastAsync]. [Searcher.Close] doesn't
// wait for callbacks, which may never come; one that comes afterwards is as harmless as any late one.
func NewSearcherAsync[H Ranked[ID], ID cmp.Ordered](
	probe AsyncProbe[H], ring *Ring, opts *SearcherOptions,
) (*Searcher[H, ID], error) {
	return newSearcher[H, ID](nil, probe, ring, opts)
}

func newSearcher[H Ranked[ID], ID cmp.Ordered](
	probe Probe[H], async AsyncProbe[H], ring *Ring, opts *SearcherOptions,
) (*Searcher[H, ID], error) {
	if opts == nil {
		opts = &SearcherOptions{}
	}
	if probe == nil && async == nil {
		return nil, errors.New("scatter: probe is nil")
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	if err := opts.Options.check(); err != nil {
		return nil, err
	}
	s := &Searcher[H, ID]{
		probe:   probe,
		async:   async,
		opts:    *opts,
		seed:    rand.NewPCG(opts.Seed, opts.Seed).Uint64(), // seeds side by side must not give plans in common
		idle:    make(chan struct{}),
		flights: make(map[string]*flight),
	}
	if opts.Seed == 0 {
		s.seed = rand.Uint64()
	}
	if opts.HedgeShare >= 0 {
		s.budget = NewBudget(cmp.Or(opts.HedgeShare, DefaultHedgeShare), cmp.Or(opts.HedgeBurst, DefaultHedgeBurst))
	}
	s.lifetime, s.end = context.WithCancelCause(context.Background())

	// A goroutine of a query is counted before it starts, while the query is, and so before Close can see that nothing
	// runs.
	trace := joinTraces(opts.Trace, &Trace{
		starting: func() { s.running.Add(1) },
		ended:    func() { s.running.Done() },
		MergeDone: func(i MergeInfo) {
			if i.Lists > 0 { // else there was nothing to merge
				s.merges.record(i.Elapsed)
			}
		},
	})
	s.opts.Trace = &trace
	s.SetRing(ring)
	return s, nil
}

func (o *SearcherOptions) check() error {
	switch {
	case o.Cover != nil:
		return errors.New("scatter: SearcherOptions.Cover is given, must be nil: it comes from the ring")
	case o.Standby != nil:
		return fmt.Errorf("scatter: SearcherOptions.Standby is %v, must be nil: it comes from the ring", o.Standby)
	case o.Hedging != nil:
		return fmt.Errorf("scatter: SearcherOptions.Hedging is %+v, must be nil: see HedgeDelay", *o.Hedging)
	case o.Replicas < 0:
		return fmt.Errorf("scatter: SearcherOptions.Replicas is %d, must not be negative", o.Replicas)
	case !(o.HedgeQuantile >= 0 && o.HedgeQuantile < 1): // NaN is neither
		return fmt.Errorf("scatter: SearcherOptions.HedgeQuantile is %v, must be from 0 to below 1", o.HedgeQuantile)
	case o.HedgeFloor < 0:
		return fmt.Errorf("scatter: SearcherOptions.HedgeFloor is %v, must not be negative", o.HedgeFloor)
	case !(o.HedgeShare <= 1):
		return fmt.Errorf("scatter: SearcherOptions.HedgeShare is %v, must not be above 1", o.HedgeShare)
	case o.HedgeBurst < 0:
		return fmt.Errorf("scatter: SearcherOptions.HedgeBurst is %d, must not be negative", o.HedgeBurst)
	}
	return nil
}

// Search asks the peers that hold the ring of this moment, and returns the req.K best of their hits. It is [Broadcast]
// with a [Cover]: what is said there of who is waited for, of contexts and of errors holds here, but for a query that
// is shared, see SearcherOptions.Key. Besides, [ErrClosed] is an error, without a Response if Close was called before.
func (s *Searcher[H, ID]) Search(ctx context.Context, req *Request) (*Response[H], error) {
	if !s.enter() {
		return nil, ErrClosed
	}
	defer s.running.Done()
	key := ""
	if s.opts.Key != nil && ctx.Err() == nil {
		if _, err := checkRequest(req); err != nil {
			return nil, err
		}
		key = s.opts.Key(req)
	}
	if key != "" {
		return s.share(ctx, key, req)
	}
	return s.search(ctx, req)
}

// SetRing has later queries use another ring; those that run keep theirs. What is known of the latencies of peers that
// are on both rings is kept, that of the others forgotten. A nil ring is empty. It costs what [NewCover] costs, on the
// caller's goroutine. It makes no query wait, but the next queries make plans, at what [Cover.Plan] costs, and so do
// the first after the set of live peers has changed to one that it wasn't lately.
func (s *Searcher[H, ID]) SetRing(ring *Ring) {
	if ring == nil {
		ring = NewRing()
	}
	s.setting.Lock()
	defer s.setting.Unlock()
	view := &ringView{Cover: NewCover(ring, s.opts.Replicas), latencies: make([]*latency, len(ring.peers))}
	old := s.view.Load()
	for i, peer := range ring.peers {
		view.latencies[i] = &latency{}
		if old == nil {
			continue
		}
		if number := old.number(peer); number >= 0 {
			view.latencies[i] = old.latencies[number]
		}
	}
	s.view.Store(view)
}

// Stats is what a [Searcher] has done, and knows.
type Stats struct {
	Queries   int64 // queries that have ended, a shared one once
	Shared    int64 // further calls of Search that have joined one: see SearcherOptions.Key
	Partial   int64 // queries with a Partial answer
	Errors    int64 // queries that returned an error
	Probes    int64 // peers asked, standbys included
	Fallbacks int64 // standbys asked for a peer that had failed
	Hedges    int64 // standbys asked for a peer that was late
	HedgesWon int64 // Hedges that have answered in time

	Budget float64     // how many standbys could be asked now; infinite without a bound
	Peers  []PeerStats // of the ring, in the order of the walk from token 0
}

// PeerStats is what a [Searcher] knows of one peer: quantiles of the time it takes to answer, each off by less than a
// quarter, of some 1000 probes or fewer, the latest. They are 0 if nothing is known. A peer that was given up on, being
// Spare, say, counts with the time it was given, if that was more than P50.
type PeerStats struct {
	Peer          PeerID
	P50, P95, P99 time.Duration
}

// Stats returns what the Searcher has done up to now. The counts are of one moment; what they tell of a query is
// counted together, when it ends. It costs about a microsecond for each peer; the Stats are the caller's.
func (s *Searcher[H, ID]) Stats() Stats {
	s.mu.Lock()
	stats := s.counts
	s.mu.Unlock()
	stats.Budget = math.Inf(1)
	if s.budget != nil {
		stats.Budget = s.budget.Left()
	}
	view := s.view.Load()
	stats.Peers = make([]PeerStats, len(view.latencies))
	for i, l := range view.latencies {
		stats.Peers[i] = PeerStats{view.ring.peers[i], l.quantile(0.5), l.quantile(0.95), l.quantile(0.99)}
	}
	return stats
}

// Close cancels all queries with the cause [ErrClosed], has later ones return it at once, and waits until every query
// and every probe has returned, late probes included. A probe that ignores its context makes it wait: when ctx is over,
// Close returns context.Cause(ctx). It may be called again, to wait again.
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

// enter counts a query as running, unless the Searcher is closed.
func (s *Searcher[H, ID]) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running.Add(1)
	}
	return !s.closed
}

// search is a query that is not shared, or what is shared of those that are.
func (s *Searcher[H, ID]) search(ctx context.Context, req *Request) (resp *Response[H], err error) {
	view := s.view.Load()
	plan := s.plan(view)
	defer func() { s.learn(view, plan, resp, err) }() // after a panic of a hook, too
	opts := s.opts.Options
	opts.owner, opts.selection = s.lifetime, &plan.selection
	opts.Cover, opts.Standby, opts.Hedging = view.Cover, plan.standby, s.hedging(ctx, view)
	if s.opts.LearnReserve && s.merges.observed() >= learnObserved {
		opts.Reserve = max(opts.Reserve, min(s.merges.quantile(0.99), left(ctx)/4))
	}
	if s.async != nil {
		return BroadcastAsync(ctx, req, plan.peers, s.async, &opts)
	}
	return Broadcast(ctx, req, plan.peers, s.probe, &opts)
}

// left is the time left to a context; a year if it has no deadline.
func left(ctx context.Context) time.Duration {
	if until, ok := ctx.Deadline(); ok {
		return max(time.Until(until), 0)
	}
	return 365 * 24 * time.Hour
}

// hedging is that of a query by its options, its time, and what is known of the peers.
func (s *Searcher[H, ID]) hedging(ctx context.Context, view *ringView) *Hedging {
	h := &Hedging{Delay: max(s.opts.HedgeDelay, 0), Budget: s.budget}
	if s.opts.HedgeDelay == 0 {
		peers := cmp.Or(max(s.opts.PeerDeadline, 0), DefaultPeerDeadline)
		share := time.Duration(10)
		if s.opts.HedgeQuantile > 0 {
			share = 2
		}
		h.Delay = max(min(peers, left(ctx))/share, 1) // 0 would be never
	}
	if s.opts.HedgeQuantile > 0 {
		most := h.Delay
		h.DelayOf = func(peer PeerID) time.Duration { return s.delay(view.latencyOf(peer), most) }
	}
	return h
}

// learn counts what a query was, and records how long peers took.
func (s *Searcher[H, ID]) learn(view *ringView, plan *plan, resp *Response[H], err error) {
	if resp == nil { // a bad request
		resp = &Response[H]{}
	}
	var fallbacks, hedges, won int64
	for i := range resp.Peers {
		p := &resp.Peers[i]
		switch p.Status {
		case NotAsked:
			continue
		case Answered, Incomplete:
			view.latencies[plan.numberOf(view, i, p.Peer)].record(p.Elapsed)
		case TimedOut, Abandoned, Spare:
			view.latencies[plan.numberOf(view, i, p.Peer)].recordAtLeast(p.Elapsed)
		}
		switch p.Role {
		case Fallback:
			fallbacks++
		case Hedge:
			hedges++
			won += count(p.Status == Answered)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.counts
	c.Queries++
	c.Partial += count(resp.Partial)
	c.Errors += count(err != nil)
	c.Probes += int64(resp.PeersConsulted)
	c.Fallbacks += fallbacks
	c.Hedges += hedges
	c.HedgesWon += won
}

func count(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// delay is how long the peer of a latency may take, by HedgeQuantile and at most the time given, if that isn't 0.
func (s *Searcher[H, ID]) delay(l *latency, most time.Duration) time.Duration {
	if l.observed() < learnObserved {
		return most
	}
	usual := max(l.quantileBound(s.opts.HedgeQuantile), s.opts.HedgeFloor)
	if most > 0 {
		return min(usual, most)
	}
	return usual
}

// ringView is a ring and all that goes with it.
type ringView struct {
	*Cover
	latencies []*latency               // by the peer's number
	plans     atomic.Pointer[[]*plans] // for the sets of live peers of late, the last one used for a query first
}

// keptPlans is for how many sets of live peers plans are kept, so that a peer that comes and goes doesn't have them
// made again and again.
const keptPlans = 4

func (v *ringView) latencyOf(peer PeerID) *latency { return v.latencies[v.number(peer)] }

// plans are whom to ask for as long as the same peers are live.
type plans struct {
	live  bitset
	plans []plan
}

type plan struct {
	once           sync.Once
	peers, standby []PeerID
	selection      selection
}

// numberOf returns the number of the peer at a place in a ledger: first come those of the plan.
func (p *plan) numberOf(view *ringView, place int, peer PeerID) int32 {
	if place < len(p.selection.numbers) {
		return p.selection.numbers[place]
	}
	return view.number(peer)
}

// plan returns whom a query is to ask.
func (s *Searcher[H, ID]) plan(v *ringView) *plan {
	all := s.plansFor(v)
	turn := s.turn.Add(1) % uint64(len(all.plans))
	p := &all.plans[turn]
	p.once.Do(func() { // in its first turn; queries that want it too wait for it
		p.peers = v.peers(all.live.has)
		minimal := len(all.plans) > 1
		if minimal {
			p.peers = v.Plan(func(peer PeerID) bool { return all.live.has(v.number(peer)) }, s.seed+turn)
			planned := newBitset(len(v.ring.peers))
			for _, peer := range p.peers {
				planned.add(v.number(peer))
			}
			p.standby = v.peers(func(i int32) bool { return all.live.has(i) && !planned.has(i) })
		}
		p.selection.of(v.Cover, ledgerOf(p.peers), p.standby)
		p.selection.minimal = minimal
		all := newCoverage(v.Cover, false)
		all.answered = p.selection.hoped
		p.selection.whole = len(p.peers) > 0 && all.whole()
	})
	return p
}

// plansFor returns the plans for the peers that are live now, made one by one when their turns come.
func (s *Searcher[H, ID]) plansFor(v *ringView) *plans {
	var kept []*plans
	if p := v.plans.Load(); p != nil {
		kept = *p
	}
	var live bitset
	if len(kept) > 0 {
		var same bool
		if live, same = s.liveNow(v, kept[0].live); same {
			return kept[0]
		}
	} else {
		live, _ = s.liveNow(v, newBitset(len(v.ring.peers)))
	}
	at := slices.IndexFunc(kept, func(p *plans) bool { return slices.Equal(p.live, live) })
	var all *plans
	if at >= 0 {
		all = kept[at]
	} else {
		all = &plans{live, make([]plan, v.planCount(s.opts.AskAll))}
	}
	first := []*plans{all}
	for i, p := range kept {
		if i != at && len(first) < keptPlans {
			first = append(first, p)
		}
	}
	v.plans.Store(&first) // if another query does so too, one of them makes plans in vain
	return all
}

// liveNow returns the peers that are live, and whether they are the same as last.
func (s *Searcher[H, ID]) liveNow(v *ringView, last bitset) (live bitset, same bool) {
	live, same = last, true
	for i, peer := range v.ring.peers {
		is := s.opts.Live.of(peer)
		if is == live.has(int32(i)) {
			continue
		}
		if same {
			live, same = slices.Clone(last), false
		}
		if is {
			live.add(int32(i))
		} else {
			live.remove(int32(i))
		}
	}
	return live, same
}

// planCount returns how many plans are worth making. Where all are asked, or all are needed, there is but one.
func (v *ringView) planCount(askAll bool) int {
	if askAll || v.replicas < 2 {
		return 1
	}
	return min(max(planCost/len(v.holders), leastPlans), mostPlans)
}

// peers returns the peers whose numbers are in, in walk order.
func (v *ringView) peers(in func(int32) bool) []PeerID {
	var peers []PeerID
	for i, peer := range v.ring.peers {
		if in(int32(i)) {
			peers = append(peers, peer)
		}
	}
	return peers
}

// flight is a query that callers share.
type flight struct {
	ctx     context.Context // has the values of the caller that began it
	cancel  context.CancelCauseFunc
	until   time.Time // its deadline, or zero
	waiting int       // callers; guarded by Searcher.mu
}

// share joins the query of this key that is under way, or begins one.
func (s *Searcher[H, ID]) share(ctx context.Context, key string, req *Request) (*Response[H], error) {
	until, bounded := ctx.Deadline()
	s.mu.Lock()
	f := s.flights[key]
	switch {
	case f == nil:
		f = &flight{until: until}
		f.ctx, f.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		s.flights[key] = f
		s.running.Add(1)
	case bounded && (f.until.IsZero() || until.Before(f.until)):
		s.mu.Unlock()
		return s.search(ctx, req)
	default:
		s.counts.Shared++
	}
	f.waiting++
	result := s.group.DoChan(key, func() (any, error) { return s.fly(f, key, req) })
	s.mu.Unlock()
	defer s.leave(ctx, key, f)

	select {
	case r := <-result:
		return copied[H](r)
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) { // then the flight's deadline has come too
		return copied[H](<-result)
	}
	select {
	case r := <-result:
		return copied[H](r)
	default:
		return nil, context.Cause(ctx)
	}
}

// fly is a flight from its beginning to its end, on the goroutine that singleflight starts for it. Before it gives its
// result it sees to it that nobody joins any more.
func (s *Searcher[H, ID]) fly(f *flight, key string, req *Request) (*Response[H], error) {
	defer s.running.Done()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forgetLocked(key, f)
	}()
	ctx := f.ctx
	if !f.until.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, f.until)
		defer stop()
	}
	// On a goroutine of its own, because singleflight would never answer its callers if a hook ended this one.
	done := make(chan func() (*Response[H], error), 1)
	go func() {
		var resp *Response[H]
		var err error
		returned := false
		defer func() {
			if failed := caught(returned, recover()); failed != nil {
				err = failed
			}
			done <- func() (*Response[H], error) { return resp, err }
		}()
		resp, err = s.search(ctx, req)
		returned = true
	}()
	return (<-done)()
}

// leave counts one caller less, and cancels the flight after the last.
func (s *Searcher[H, ID]) leave(ctx context.Context, key string, f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel(context.Cause(ctx))
		s.forgetLocked(key, f)
	}
}

func (s *Searcher[H, ID]) forgetLocked(key string, f *flight) {
	if s.flights[key] == f {
		delete(s.flights, key)
		s.group.Forget(key)
	}
}

// copied returns what a flight has brought, for one of its callers to keep.
func copied[H any](r singleflight.Result) (*Response[H], error) {
	resp := r.Val.(*Response[H])
	if !r.Shared || resp == nil {
		return resp, r.Err
	}
	own := *resp
	own.Hits, own.Peers, own.Missing = slices.Clone(resp.Hits), slices.Clone(resp.Peers), slices.Clone(resp.Missing)
	for i := range own.Missing {
		own.Missing[i].Holders = slices.Clone(own.Missing[i].Holders)
	}
	var low *CoverageError[H]
	if errors.As(r.Err, &low) {
		return &own, &CoverageError[H]{&own, low.Require}
	}
	return &own, r.Err
}
