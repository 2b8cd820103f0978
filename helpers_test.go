package scatter

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// randomCases is how many random cases each oracle test tries. Every case has a seed of its own,
// which a failure names.
var randomCases = flag.Int("cases", 500, "random cases of each oracle test")

// hitList is what most probes of the tests return.
type hitList = []Hit[string]

var (
	testRequest = &Request{Table: "t", Query: KNN{Field: "f", Vector: []float32{1}}, K: 10}
	errBroke    = errors.New("broke")
)

// behave is a Probe that does for each peer what the map says.
type behave map[PeerID]func(ctx context.Context) (hitList, error)

func (b behave) probe(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
	return b[peer](ctx)
}

// peers returns the peers in the map, sorted.
func (b behave) peers() []PeerID { return sortedPeers(b) }

func sortedPeers[V any](m map[PeerID]V) []PeerID {
	peers := make([]PeerID, 0, len(m))
	for peer := range m {
		peers = append(peers, peer)
	}
	slices.Sort(peers)
	return peers
}

// answer answers at once.
func answer(hits ...Hit[string]) func(context.Context) (hitList, error) {
	return func(context.Context) (hitList, error) { return hits, nil }
}

// after answers after d and ignores its context.
func after(d time.Duration, hits ...Hit[string]) func(context.Context) (hitList, error) {
	return func(context.Context) (hitList, error) {
		time.Sleep(d)
		return hits, nil
	}
}

// fail fails at once.
func fail(err error) func(context.Context) (hitList, error) { return failAfter(0, err) }

// failAfter fails after d and ignores its context.
func failAfter(d time.Duration, err error) func(context.Context) (hitList, error) {
	return func(context.Context) (hitList, error) {
		time.Sleep(d)
		return nil, err
	}
}

// obey waits until its context ends.
func obey(ctx context.Context) (hitList, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// done is the callback of an AsyncProbe.
type done = func(hitList, error)

// asyncBehave is an AsyncProbe that does for each peer what the map says.
type asyncBehave map[PeerID]func(ctx context.Context, done done)

func (b asyncBehave) probe(ctx context.Context, peer PeerID, _ *Request, done func([]Hit[string], error)) {
	b[peer](ctx, done)
}

func (b asyncBehave) peers() []PeerID { return sortedPeers(b) }

// neverDone never calls done.
func neverDone(context.Context, done) {}

// doneAfter calls done after d.
func doneAfter(d time.Duration, hits ...Hit[string]) func(context.Context, done) {
	return func(_ context.Context, done done) { time.AfterFunc(d, func() { done(hits, nil) }) }
}

func instantProbe(context.Context, PeerID, *Request) ([]Hit[string], error) {
	return []Hit[string]{{"a", 1}}, nil
}

func instantAsyncProbe(_ context.Context, _ PeerID, _ *Request, done func([]Hit[string], error)) {
	done([]Hit[string]{{"a", 1}}, nil)
}

// nobody is a Probe that must not be called.
func nobody(t *testing.T) Probe[Hit[string]] {
	return func(_ context.Context, peer PeerID, _ *Request) (hitList, error) {
		t.Error("asked", peer)
		return nil, nil
	}
}

// allBut is a Liveness by which some peers are dead.
func allBut(dead ...PeerID) Liveness {
	return func(peer PeerID) bool { return !slices.Contains(dead, peer) }
}

// somePeers returns n names.
func somePeers(n int) []PeerID {
	peers := make([]PeerID, n)
	for i := range peers {
		peers[i] = PeerID(fmt.Sprint("peer", i))
	}
	return peers
}

// summary is the ledger in short.
func summary[H any](r *Response[H]) string {
	var s []string
	for _, p := range r.Peers {
		s = append(s, fmt.Sprint(p.Peer, ":", p.Status))
	}
	return strings.Join(s, " ")
}

// lineOf returns the line of a peer in the ledger. There must be exactly one.
func lineOf[H any](t testing.TB, r *Response[H], peer PeerID) PeerReport {
	t.Helper()
	var lines []PeerReport
	for _, p := range r.Peers {
		if p.Peer == peer {
			lines = append(lines, p)
		}
	}
	require.Len(t, lines, 1, "lines of %s", peer)
	return lines[0]
}

// wantSame fails unless two slices have equal elements. An empty one may be nil.
func wantSame[T comparable](t testing.TB, want, got []T) {
	t.Helper()
	require.True(t, slices.Equal(want, got), "want %v, got %v", want, got)
}

// circle is a ring of peers with one point each, at even distances from token 0 on.
func circle(peers ...PeerID) *Ring {
	points := make([]Point, len(peers))
	for i, peer := range peers {
		points[i] = Point{uint64(i) * (math.MaxUint64 / uint64(len(peers))), peer}
	}
	return NewRing(points...)
}

// quarters is a Cover of four ranges, each a quarter of the token space with two holders. The first
// is held by a and b, the second by b and c, the third by c and d, the last by d and a.
func quarters() *Cover {
	return NewCover(NewRing(Point{0, "a"}, Point{1 << 62, "b"}, Point{2 << 62, "c"}, Point{3 << 62, "d"}), 2)
}

// gauge counts the probes that run at the same time.
type gauge struct{ now, most atomic.Int32 }

// probe returns a Probe that takes d.
func (g *gauge) probe(d time.Duration) Probe[Hit[string]] {
	return func(context.Context, PeerID, *Request) (hitList, error) {
		n := g.now.Add(1)
		for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
		}
		time.Sleep(d)
		g.now.Add(-1)
		return nil, nil
	}
}

// bubbleGoroutines counts the goroutines of the synctest bubble, once all of them wait.
func bubbleGoroutines() int {
	synctest.Wait()
	return bubbleGoroutinesNow()
}

func bubbleGoroutinesNow() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	own, _, _ := strings.Cut(string(stacks), "]:") // the caller's comes first
	bubble := own[strings.Index(own, "synctest bubble"):]
	return strings.Count(string(stacks), bubble+"]:")
}

// hostileError is an error whose methods panic if the pointer is nil.
type hostileError struct{ timeout bool }

func (e *hostileError) Error() string { return "hostile" }
func (e *hostileError) Timeout() bool { return e.timeout }

func knnPointer(o Order) *KNN { return &KNN{Ranking: o} }

// orderedQuery is a query of the caller's own.
type orderedQuery Order

func (q orderedQuery) Order() Order { return Order(q) }

var (
	t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// at is t0 and so many seconds.
func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

// stepped is a Coordinator under test, and what it has asked for.
type stepped struct {
	*Coordinator[Hit[string], string]
	t      *testing.T
	asks   []Ask
	full   bool // ask refuses
	traced []string
}

// newStepped returns a Coordinator that asks the given peers.
func newStepped(t *testing.T, opts Options, peers ...PeerID) *stepped {
	t.Helper()
	s := &stepped{t: t}
	opts.Trace = s.trace()
	c, err := NewCoordinator[Hit[string]](testRequest, peers, s.ask, &opts)
	require.NoError(t, err)
	s.Coordinator = c
	return s
}

// newSelected returns a Coordinator that asks what a test's strategy chooses.
func newSelected(t *testing.T, opts Options, chosen *fixed) *stepped {
	t.Helper()
	s := &stepped{t: t, Coordinator: new(Coordinator[Hit[string], string])}
	opts.Trace = s.trace()
	require.NoError(t, s.init(testRequest, s.ask, &opts))
	s.course.strategy = chosen
	return s
}

func (s *stepped) ask(a Ask) bool {
	if !s.full {
		s.asks = append(s.asks, a)
	}
	return !s.full
}

// hookKey is the key of a context value that names the hooks that a context has come through.
type hookKey struct{}

// trace returns a Trace whose hooks write down that they were called, with the names of the hooks that
// their context has come through.
func (s *stepped) trace() *Trace {
	note := func(ctx context.Context, hook string) context.Context {
		path, _ := ctx.Value(hookKey{}).(string)
		s.traced = append(s.traced, path+hook)
		return context.WithValue(ctx, hookKey{}, path+hook+">")
	}
	return &Trace{
		QueryStarted: func(ctx context.Context, _ QueryInfo) context.Context { return note(ctx, "query") },
		ProbeStarted: func(ctx context.Context, i ProbeInfo) context.Context { return note(ctx, string(i.Peer)) },
		ProbeDone:    func(ctx context.Context, i ProbeDoneInfo) { note(ctx, fmt.Sprint("done ", i.Peer, " ", i.Status)) },
		QueryDone:    func(ctx context.Context, i QueryDoneInfo) { note(ctx, fmt.Sprint("end ", i.PeersConsulted)) },
		LateReply: func(ctx context.Context, i LateReplyInfo) {
			note(ctx, fmt.Sprint("late ", i.Peer, " ", i.Hits, " ", i.Err))
		},
	}
}

func (s *stepped) begin() { s.Begin(t0, time.Time{}) }

func (s *stepped) beginUntil(seconds float64) { s.Begin(t0, at(seconds)) }

func (s *stepped) reply(seconds float64, index int, hits ...Hit[string]) {
	s.Reply(at(seconds), index, hits, nil)
}

func (s *stepped) fail(seconds float64, index int, err error) { s.Reply(at(seconds), index, nil, err) }

func (s *stepped) advance(seconds float64) { s.Advance(at(seconds)) }

func (s *stepped) wantState(want State) { s.t.Helper(); require.Equal(s.t, want, s.State()) }

func (s *stepped) wantDeadline(seconds float64) {
	s.t.Helper()
	deadline, ok := s.Deadline()
	require.True(s.t, ok)
	require.Equal(s.t, at(seconds), deadline)
}

// asked returns the peers asked, in order.
func (s *stepped) asked() string {
	out := ""
	for _, a := range s.asks {
		out += string(a.Peer)
	}
	return out
}

// wantLedger compares the ledger of the Response, one "peer status hits seconds" for each line, with
// the role before the status unless it is Primary, and with "late" at the end if the line says so.
func (s *stepped) wantLedger(want ...string) *Response[Hit[string]] {
	s.t.Helper()
	r := s.Response()
	require.NotNil(s.t, r, "the query has not ended")
	require.Equal(s.t, Merging, s.State())
	var got []string
	for _, p := range r.Peers {
		line := fmt.Sprint(p.Peer, " ")
		if p.Role != Primary {
			line += fmt.Sprint(p.Role, " ")
		}
		line += fmt.Sprint(p.Status, " ", p.Hits, " ", p.Elapsed.Seconds())
		if p.Late {
			line += " late"
		}
		got = append(got, line)
		require.Equal(s.t, p.Status == Answered || p.Status == Dead, p.Err == nil, "%v: %v", p.Status, p.Err)
	}
	require.Equal(s.t, want, got)
	return r
}

// fixed is a strategy that chooses what a test tells it to.
type fixed struct {
	cover    *Cover
	peers    []PeerID // asked at first
	standbys []PeerID // those of the others that are ready
	dead     []PeerID
	delay    time.Duration // of hedges
	purses   *purses       // nil: no bound
	weights  map[PeerID]float64
	busy     map[PeerID]bool // has no room for a hedge
	alone    bool            // there is no hedger

	chosen   int
	probes   map[PeerID]int // asked and not concluded
	reports  []PeerReport   // concluded
	finishes int
}

func (f *fixed) set(peers []PeerID) bitset {
	set := newBitset(len(f.cover.peers))
	for _, peer := range peers {
		set.add(f.cover.number(peer))
	}
	return set
}

func (f *fixed) choose(_, _ time.Time) *selection {
	f.chosen++
	f.probes = map[PeerID]int{}
	n := len(f.cover.peers)
	first, dead := f.set(f.peers), f.set(f.dead)
	s := &selection{cover: f.cover, live: newBitset(n), coverage: newCoverage(f.cover, first.clone())}
	for i := range int32(n) {
		if !dead.has(i) {
			s.live.add(i)
		}
		if first.has(i) {
			s.peers = append(s.peers, i)
		}
	}
	if f.alone {
		return s
	}
	if f.purses == nil {
		f.purses = &purses{}
	}
	s.hedger = &hedger{
		coverage: s.coverage, ready: f.set(f.standbys), late: newBitset(n), delay: f.delay, purses: f.purses,
		weight: func(i int32) float64 {
			if w := f.weights[f.cover.peers[i]]; w != 0 {
				return w
			}
			return 1
		},
		useful: func(_ time.Time, i int32, _ time.Duration) bool { return !f.busy[f.cover.peers[i]] },
	}
	return s
}

func (f *fixed) asked(i int32, role Role, _ bool) {
	f.probes[f.cover.peers[i]]++
	if role == Primary && !f.alone {
		f.purses.payIn()
	}
}

func (f *fixed) concluded(_ time.Time, i int32, report *PeerReport) {
	f.probes[f.cover.peers[i]]--
	f.reports = append(f.reports, *report)
}

func (f *fixed) finished(time.Duration) { f.finishes++ }

// out returns how many peers were asked and not concluded. Each must be concluded once.
func (f *fixed) out() int {
	n := 0
	for _, probes := range f.probes {
		if probes < 0 {
			return -1
		}
		n += probes
	}
	return n
}

// newPurses returns purses with so many probes left.
func newPurses(fallbackShare, hedgeShare, fallback, hedge float64) *purses {
	p := &purses{newPurse(fallbackShare), newPurse(hedgeShare)}
	p.fallback.left.Store(int64(fallback * purseUnit))
	p.hedge.left.Store(int64(hedge * purseUnit))
	return p
}

// stringSearcher is the Searcher of most tests.
type stringSearcher = *Searcher[Hit[string], string]

// newTestSearcher returns a Searcher that is closed, and has nothing running any more, when the
// test ends.
func newTestSearcher(t testing.TB, probe Probe[Hit[string]], cover *Cover, opts SearcherOptions) stringSearcher {
	t.Helper()
	s, err := NewSearcher(probe, cover, &opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close(context.Background())) })
	return s
}

// circleCover is the Cover of a circle: each range is held by the first peers of the walk from it.
func circleCover(replicas int, peers ...PeerID) *Cover { return NewCover(circle(peers...), replicas) }

// takes is a probe of peers that take d, but for some that are bad: they do as the map says.
func takes(d time.Duration, bad behave) Probe[Hit[string]] {
	return func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
		if do := bad[peer]; do != nil {
			return do(ctx)
		}
		time.Sleep(d)
		return hitList{{string(peer), 1}}, nil
	}
}

// switched is takes, but the bad peers can be exchanged.
type switched struct {
	d   time.Duration
	mu  sync.Mutex
	bad behave // guarded by mu
}

func (s *switched) set(bad behave) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = bad
}

func (s *switched) probe(ctx context.Context, peer PeerID, req *Request) (hitList, error) {
	s.mu.Lock()
	bad := s.bad
	s.mu.Unlock()
	return takes(s.d, bad)(ctx, peer, req)
}

// searchTimes does n queries and returns how long each took, sorted. Each must be whole.
func searchTimes(t *testing.T, s stringSearcher, n int) []time.Duration {
	t.Helper()
	times := make([]time.Duration, n)
	for i := range times {
		r, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.False(t, r.Partial, "query %d: %s", i, summary(r))
		times[i] = r.Elapsed
	}
	slices.Sort(times)
	return times
}

// quantileOf returns a quantile of sorted times.
func quantileOf(times []time.Duration, q float64) time.Duration {
	return times[min(int(math.Ceil(q*float64(len(times)))), len(times))-1]
}

// stepper steps one Coordinator of a Searcher by literal times.
type stepper struct {
	t    *testing.T
	c    *Coordinator[Hit[string], string]
	asks []Ask // in order
}

// newStepper returns a query that has not begun.
func newStepper(t *testing.T, s stringSearcher, opts *Options) *stepper {
	t.Helper()
	st := &stepper{t: t}
	c, err := s.Coordinator(testRequest, func(a Ask) bool { st.asks = append(st.asks, a); return true }, opts)
	require.NoError(t, err)
	st.c = c
	return st
}

// names returns who has been asked, and as what unless that is Primary.
func (s *stepper) names() (names []string) {
	for _, a := range s.asks {
		name := string(a.Peer)
		if a.Role != Primary {
			name = fmt.Sprint(a.Role, " ", name)
		}
		names = append(names, name)
	}
	return names
}
