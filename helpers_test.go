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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
