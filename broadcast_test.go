package scatter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

type hitList = []Hit[string]

var testRequest = &Request{Table: "t", Query: KNN{Field: "f", Vector: []float32{1}}, K: 10}

// behave is a probe that does for each peer what the map says.
type behave map[PeerID]func(ctx context.Context) (hitList, error)

func (b behave) probe(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
	return b[peer](ctx)
}

func (b behave) peers() []PeerID {
	var peers []PeerID
	for peer := range b {
		peers = append(peers, peer)
	}
	slices.Sort(peers)
	return peers
}

// answer answers at once.
func answer(hits ...Hit[string]) func(context.Context) (hitList, error) {
	return func(context.Context) (hitList, error) { return hits, nil }
}

// after answers after d, whatever its context says.
func after(d time.Duration, hits ...Hit[string]) func(context.Context) (hitList, error) {
	return func(context.Context) (hitList, error) {
		time.Sleep(d)
		return hits, nil
	}
}

// obey waits for its context to be over.
func obey(ctx context.Context) (hitList, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// somePeers makes n names.
func somePeers(n int) []PeerID {
	peers := make([]PeerID, n)
	for i := range peers {
		peers[i] = PeerID(fmt.Sprint("peer", i))
	}
	return peers
}

// summary is the ledger in short.
func summary(r *Response[Hit[string]]) string {
	var s []string
	for _, p := range r.Peers {
		s = append(s, fmt.Sprint(p.Peer, ":", p.Status))
	}
	return strings.Join(s, " ")
}

func TestBroadcastMergesAllPeers(t *testing.T) {
	b := behave{
		"a": answer(Hit[string]{"x", 1}, Hit[string]{"z", 3}),
		"b": answer(Hit[string]{"y", 2}, Hit[string]{"z", 2.5}),
		"c": answer(),
	}
	r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, nil)
	require.NoError(t, err)
	require.Equal(t, hitList{{"x", 1}, {"y", 2}, {"z", 2.5}}, r.Hits)
	require.False(t, r.Partial)
	require.Equal(t, "a:Answered b:Answered c:Answered", summary(r))
	require.Equal(t, 3, r.PeersConsulted)
}

func TestBroadcastOnePeerGivesItsOwnTopK(t *testing.T) {
	b := behave{"a": answer(Hit[string]{"x", 1}, Hit[string]{"y", 2}, Hit[string]{"z", 3})}
	r, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 2}, b.peers(), b.probe, nil)
	require.NoError(t, err)
	require.Equal(t, "x y", ids(r.Hits))
}

// The answer comes in the query's own order.
func TestBroadcastOrders(t *testing.T) {
	for query, want := range map[Query]string{
		knnPointer(ScoreAscending):  "b c a",
		knnPointer(ScoreDescending): "a c b",
		Regex{}:                     "a b c",
		orderedQuery(IDAscending):   "a b c",
	} {
		b := behave{
			"p": answer(Hit[string]{"a", 3}),
			"q": answer(Hit[string]{"c", 2}, Hit[string]{"b", 1}), // not sorted by any
		}
		r, err := Broadcast(t.Context(), &Request{Query: query, K: 9}, b.peers(), b.probe, nil)
		require.NoError(t, err)
		require.Equal(t, want, ids(r.Hits), "%v", query)
	}
	require.Equal(t, IDAscending, Text{}.Order())
}

func knnPointer(o Order) *KNN { return &KNN{Ranking: o} }

type orderedQuery Order // a query of the caller's own

func (q orderedQuery) Order() Order { return Order(q) }

// A payload travels with its hit, as a value or behind a pointer; no call has a type argument.
func TestBroadcastPayloads(t *testing.T) {
	type titled struct {
		Hit[int]
		title string
	}
	r, err := Broadcast(t.Context(), testRequest, []PeerID{"a"},
		func(context.Context, PeerID, *Request) ([]*titled, error) {
			return []*titled{{Hit[int]{1, 1}, "one"}}, nil
		}, nil)
	require.NoError(t, err)
	require.Equal(t, "one", r.Hits[0].title)

	r, err = Broadcast(t.Context(), testRequest, []PeerID{"a"},
		func(context.Context, PeerID, *Request) ([]*titled, error) { return []*titled{nil}, nil }, nil)
	require.NoError(t, err)
	require.Equal(t, Failed, r.Peers[0].Status, "a nil hit is that peer's fault alone")
}

// Rule 5: all peers at the same time, each once.
func TestBroadcastAsksAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := append(somePeers(50), somePeers(20)...)
		var asked atomic.Int32
		began := time.Now()
		r, err := Broadcast(t.Context(), testRequest, peers, func(context.Context, PeerID, *Request) (hitList, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			return nil, nil
		}, nil)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, time.Second, r.Elapsed)
		require.EqualValues(t, 50, asked.Load())
		require.Len(t, r.Peers, 50)
		require.Equal(t, PeerID("peer49"), r.Peers[49].Peer)
	})
}

// gauge counts probes that run at the same time.
type gauge struct{ now, most atomic.Int32 }

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

// Rule 5: never more in flight than Limit, and no fewer while there are peers left.
func TestBroadcastLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		began := time.Now()
		r, err := Broadcast(t.Context(), testRequest, somePeers(10), g.probe(time.Second), &Options{Limit: 3})
		require.NoError(t, err)
		require.EqualValues(t, 3, g.most.Load())
		require.Equal(t, 4*time.Second, time.Since(began))
		require.False(t, r.Partial)
	})
}

// Rule 6: with a Limit, each peer's deadline starts when its own probe starts; a probe that ignores its own gives its
// place away at it.
func TestBroadcastLimitAndDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := behave{"a": after(time.Hour), "b": after(900 * time.Millisecond), "c": after(900 * time.Millisecond)}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{Limit: 1, PeerDeadline: time.Second})
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut b:Answered c:Answered", summary(r))
		require.Equal(t, 2800*time.Millisecond, time.Since(began))
		time.Sleep(time.Hour)
	})
}

// Rule 5: Shared bounds the probes of several Broadcasts together, and all its units are back in the end.
func TestBroadcastShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		var wg sync.WaitGroup
		shared := semaphore.NewWeighted(3)
		began := time.Now()
		for range 5 {
			wg.Go(func() {
				r, err := Broadcast(t.Context(), testRequest, somePeers(6), g.probe(time.Second), &Options{Shared: shared})
				require.NoError(t, err)
				require.False(t, r.Partial)
			})
		}
		wg.Wait()
		require.EqualValues(t, 3, g.most.Load())
		require.Equal(t, 10*time.Second, time.Since(began), "30 probes, 3 at a time")
		require.True(t, shared.TryAcquire(3))
	})
}

// A peer's deadline doesn't run while it waits for its unit of Shared; the query's does.
func TestBroadcastWaitsForShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := semaphore.NewWeighted(1)
		require.True(t, shared.TryAcquire(1))
		time.AfterFunc(time.Minute, func() { shared.Release(1) })
		var left time.Duration
		probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return nil, nil
		}
		opts := &Options{Shared: shared, PeerDeadline: time.Second}
		r, err := Broadcast(t.Context(), testRequest, somePeers(1), probe, opts)
		require.NoError(t, err)
		require.False(t, r.Partial)
		require.Equal(t, time.Second, left)
		require.Equal(t, time.Minute, r.Elapsed)

		require.True(t, shared.TryAcquire(1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err = Broadcast(ctx, testRequest, somePeers(2), probe, opts)
		require.NoError(t, err)
		require.Equal(t, "peer0:NotAsked peer1:NotAsked", summary(r))
		require.Equal(t, 0, r.PeersConsulted)
		require.Equal(t, time.Second, r.Elapsed)
		shared.Release(1)
		synctest.Wait()
		require.True(t, shared.TryAcquire(1))
	})
}

// A unit of Shared is held by a probe until it returns, late or not.
func TestBroadcastSharedIsHeldByLateProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := semaphore.NewWeighted(1)
		b := behave{"a": after(time.Hour)}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{Shared: shared})
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut", summary(r))
		require.False(t, shared.TryAcquire(1))
		time.Sleep(time.Hour)
		require.True(t, shared.TryAcquire(1))
	})
}

// A unit that comes when the query is over, or just as it ends, is given back.
func TestBroadcastSharedUnitComesTooLate(t *testing.T) {
	for range 200 { // the two goroutines race for it; that is the point
		synctest.Test(t, func(t *testing.T) {
			shared := semaphore.NewWeighted(1)
			require.True(t, shared.TryAcquire(1))
			time.AfterFunc(time.Second, func() { shared.Release(1) })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			r, err := Broadcast(ctx, testRequest, somePeers(3), after2, &Options{Shared: shared})
			require.NoError(t, err)
			require.True(t, r.Partial)
			time.Sleep(time.Minute)
			require.True(t, shared.TryAcquire(1))
		})
	}
}

func after2(context.Context, PeerID, *Request) (hitList, error) {
	time.Sleep(2 * time.Second)
	return nil, nil
}

// Rule 6: the probe's context carries the deadline, and is over at it.
func TestBroadcastProbeContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, "value")
		began := time.Now()
		r, err := Broadcast(ctx, testRequest, somePeers(2), func(ctx context.Context, p PeerID, req *Request) (hitList, error) {
			deadline, ok := ctx.Deadline()
			if !ok || !deadline.Equal(began.Add(3*time.Second)) || ctx.Value(key{}) != "value" || req != testRequest {
				return nil, errors.New("wrong context or request")
			}
			<-ctx.Done()
			if time.Since(began) != 3*time.Second {
				return nil, errors.New("over at the wrong time")
			}
			return nil, ctx.Err()
		}, &Options{PeerDeadline: 3 * time.Second})
		require.NoError(t, err)
		require.Equal(t, "peer0:TimedOut peer1:TimedOut", summary(r))
		require.Equal(t, 3*time.Second, time.Since(began))
		require.ErrorIs(t, r.Peers[0].Err, context.DeadlineExceeded)
	})
}

// Rule 6: a probe that hears nothing is left behind at the deadline, not a nanosecond earlier, whatever it does first.
// Its late reply is dropped, and told of.
func TestBroadcastLeavesADeafProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan LateReplyInfo, 2)
		opts := &Options{PeerDeadline: time.Second, Trace: &Trace{LateReply: func(i LateReplyInfo) { late <- i }}}
		b := behave{
			"deaf":  after(time.Second+1, Hit[string]{"late", 0}),
			"early": after(time.Second-1, Hit[string]{"early", 1}),
		}
		began := time.Now()
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "deaf:TimedOut early:Answered", summary(r))
		require.Equal(t, "early", ids(r.Hits))
		require.Empty(t, late)
		r.Peers[0].Peer = "overwritten" // the Response is the caller's
		time.Sleep(time.Second)
		require.Equal(t, LateReplyInfo{testRequest, "deaf", 1, nil}, <-late)
		require.Empty(t, late)
	})
}

// Rule 6: without PeerDeadline the default counts; if it is negative, none.
func TestBroadcastDefaultDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": obey}
		began := time.Now()
		for _, opts := range []*Options{nil, {}} {
			_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
			require.NoError(t, err)
		}
		require.Equal(t, 2*DefaultPeerDeadline, time.Since(began))

		b = behave{"a": after(time.Hour, Hit[string]{"x", 1})}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{PeerDeadline: -1})
		require.NoError(t, err)
		require.Equal(t, "x", ids(r.Hits))
	})
}

// Rules 7, 12: each way to fail costs that peer alone, is accounted for, and tells why.
func TestBroadcastFailures(t *testing.T) {
	b := behave{
		"error": func(context.Context) (hitList, error) { return hitList{{"no", 0}}, errBroke },
		"exit":  func(context.Context) (hitList, error) { runtime.Goexit(); return nil, nil },
		"good":  answer(Hit[string]{"x", 1}),
		"nil":   func(context.Context) (hitList, error) { panic(nil) },
		"panic": func(context.Context) (hitList, error) { panic("at the disco") },
		"range": func(context.Context) (hitList, error) { var none hitList; return none[len(none)+1:], nil },
		"wrap":  func(context.Context) (hitList, error) { panic(errBroke) },
	}
	r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, nil)
	require.NoError(t, err)
	require.Equal(t, "x", ids(r.Hits))
	require.True(t, r.Partial)
	require.Equal(t, []int{7, 0, 6}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
	report := map[PeerID]error{}
	for _, p := range r.Peers {
		report[p.Peer] = p.Err
	}
	require.Equal(t, errBroke, report["error"])
	require.Equal(t, ErrGoexit, report["exit"])
	require.NoError(t, report["good"])
	require.ErrorIs(t, report["wrap"], errBroke)
	var nilPanic *runtime.PanicNilError
	require.ErrorAs(t, report["nil"], &nilPanic)
	var runtimeError runtime.Error
	require.ErrorAs(t, report["range"], &runtimeError)
	var panicked *PanicError
	require.ErrorAs(t, report["panic"], &panicked)
	require.Equal(t, "at the disco", panicked.Value)
	require.Contains(t, string(panicked.Stack), "TestBroadcastFailures", "the stack of the panic, not of its recovery")
}

// Rule 7: a peer may say that its hits are not all; they count, and the answer is partial.
func TestBroadcastPartialPeer(t *testing.T) {
	b := behave{"a": func(context.Context) (hitList, error) {
		return hitList{{"y", 2}, {"x", 1}}, fmt.Errorf("its own replica: %w", ErrPartial)
	}}
	r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, nil)
	require.NoError(t, err)
	require.Equal(t, "x y", ids(r.Hits))
	require.Equal(t, "a:Incomplete", summary(r))
	require.True(t, r.Partial)
	require.Equal(t, []int{1, 0, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
	require.EqualError(t, r.Peers[0].Err, "its own replica: scatter: the peer's reply is partial")
}

// Rule 8: no peers is no error, but no whole answer either.
func TestBroadcastNoPeers(t *testing.T) {
	r, err := Broadcast(t.Context(), testRequest, nil, behave{}.probe, nil)
	require.NoError(t, err)
	require.True(t, r.Partial)
	require.Empty(t, r.Hits)
	require.Empty(t, r.Peers)
}

// Rule 9: the context's deadline is a budget, whatever its cause.
func TestBroadcastContextDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errBroke)
		defer cancel()
		b := behave{"deaf": after(time.Minute), "good": answer(Hit[string]{"x", 1}), "obey": obey}
		began := time.Now()
		r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, nil)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "deaf:TimedOut good:Answered obey:TimedOut", summary(r))
		require.Equal(t, 2, r.PeersTimedOut)
		require.True(t, r.Partial)
		require.Equal(t, "x", ids(r.Hits))

		// It is over already now.
		r, err = Broadcast(ctx, testRequest, b.peers(), nobody(t), nil)
		require.NoError(t, err)
		require.Equal(t, "deaf:NotAsked good:NotAsked obey:NotAsked", summary(r))
		require.True(t, r.Partial)
		time.Sleep(time.Minute)
	})
}

// nobody is a probe that must not be called.
func nobody(t *testing.T) Probe[Hit[string]] {
	return func(_ context.Context, peer PeerID, _ *Request) (hitList, error) {
		t.Error("asked", peer)
		return nil, nil
	}
}

// Rule 9: cancellation is an error, its cause, with what has arrived; and probes that obey are let go at once.
func TestBroadcastContextCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errBroke) })
		b := behave{
			"deaf": after(time.Minute), "good": answer(Hit[string]{"x", 1}), "obey": obey,
			"rpc": func(ctx context.Context) (hitList, error) { <-ctx.Done(); return nil, errors.New("rpc cancelled") },
		}
		began := time.Now()
		r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, nil)
		require.Equal(t, errBroke, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "deaf:Abandoned good:Answered obey:Abandoned rpc:Abandoned", summary(r))
		require.Equal(t, []int{4, 0, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
		require.True(t, r.Partial)
		require.Equal(t, "x", ids(r.Hits))

		// It is over already now.
		r, err = Broadcast(ctx, testRequest, b.peers(), nobody(t), nil)
		require.Equal(t, errBroke, err)
		require.Equal(t, 0, r.PeersConsulted)
		time.Sleep(time.Minute)
	})
}

// Rule 9: a query that has its answer is not spoilt by a cancel that comes with the last reply.
func TestBroadcastCancelWithTheLastReply(t *testing.T) {
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		b := behave{"a": func(context.Context) (hitList, error) { return hitList{{"x", 1}}, nil }}
		opts := &Options{Trace: &Trace{ProbeDone: func(ProbeDoneInfo) { cancel() }}}
		r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, opts)
		require.NoError(t, err)
		require.False(t, r.Partial)
	}
}

// Rule 10: a reply that is in the inbox when the deadline is noticed counts. A hook that dawdles makes it so.
func TestBroadcastReplyInHandCounts(t *testing.T) {
	for _, end := range []string{"peer", "query"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, opts := t.Context(), &Options{PeerDeadline: 3 * time.Second}
			if end == "query" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				opts.PeerDeadline = -1
			}
			opts.Trace = &Trace{ProbeDone: func(i ProbeDoneInfo) {
				if i.Peer == "a" {
					time.Sleep(5 * time.Second)
				}
			}}
			b := behave{
				"a": after(1*time.Second, Hit[string]{"x", 1}),
				"b": after(2*time.Second, Hit[string]{"y", 2}),
				"c": after(3*time.Second-1, Hit[string]{"z", 3}),
				"d": after(time.Minute),
			}
			r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, opts)
			require.NoError(t, err)
			require.Equal(t, "a:Answered b:Answered c:Answered d:TimedOut", summary(r))
			require.Equal(t, "x y z", ids(r.Hits))
			time.Sleep(time.Minute)
		})
	}
}

// Rule 11: bad arguments are refused before any probe runs.
func TestBroadcastArguments(t *testing.T) {
	peers := somePeers(1)
	_, err := Broadcast[Hit[string]](t.Context(), testRequest, peers, nil, nil)
	require.EqualError(t, err, "scatter: probe is nil")
	for _, tt := range []struct {
		req  *Request
		opts *Options
		want string
	}{
		{nil, nil, "scatter: Request is nil"},
		{&Request{K: 1}, nil, "scatter: Request.Query is nil"},
		{&Request{Query: KNN{}, K: 0}, nil, "scatter: Request.K is 0, must be at least 1"},
		{testRequest, &Options{Limit: -1}, "scatter: Options.Limit is -1, must not be negative"},
	} {
		r, err := Broadcast(t.Context(), tt.req, peers, nobody(t), tt.opts)
		require.EqualError(t, err, tt.want)
		require.Nil(t, r)
	}
}

// Rule 13: what is left when Broadcast returns is the probes that ignore their contexts, and nothing once those end.
func TestBroadcastLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := bubbleGoroutines()
		b := behave{"deaf1": after(time.Hour), "deaf2": after(time.Hour), "good": answer(), "obey": obey}
		for _, opts := range []*Options{nil, {Limit: 2}, {Shared: semaphore.NewWeighted(3)}} {
			_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
			require.NoError(t, err)
			require.Equal(t, before+2, bubbleGoroutines())
			time.Sleep(time.Hour)
			require.Equal(t, before, bubbleGoroutines())
		}
	})
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

// A hook that panics passes through to the caller, and the probes are let go all the same.
func TestBroadcastHookPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": answer(), "b": obey}
		opts := &Options{PeerDeadline: -1, Trace: &Trace{ProbeDone: func(ProbeDoneInfo) { panic("hook") }}}
		require.PanicsWithValue(t, "hook", func() {
			_, _ = Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
		})
		synctest.Wait() // the bubble fails if b is left
	})
}

// Rules 5 to 14, all at once: many Broadcasts side by side, whose probes answer, fail, panic, exit, obey, hang and
// answer late at random. Each Response must be just what its probes' behaviour makes it, and in the end nothing is
// left, of goroutines or of units.
func TestBroadcastStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, rounds, deadline = 20, 25, time.Second
		shared := semaphore.NewWeighted(40)
		var lateTold, lateMade atomic.Int32
		trace := &Trace{LateReply: func(LateReplyInfo) { lateTold.Add(1) }}
		var wg sync.WaitGroup
		for caller := range callers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(7, uint64(caller)))
				for range rounds {
					storm(t, r, shared, deadline, trace, &lateMade)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, lateMade.Load(), lateTold.Load(), "late replies")
		require.NotZero(t, lateTold.Load())
		require.True(t, shared.TryAcquire(40), "a unit was lost")
	})
}

func storm(t *testing.T, r *rand.Rand, shared *semaphore.Weighted, deadline time.Duration, trace *Trace, late *atomic.Int32) {
	b, lists := behave{}, map[PeerID]hitList{}
	want := map[PeerID]Status{}
	for i := range r.IntN(12) {
		peer := PeerID(fmt.Sprint(i))
		hits := hitList{{fmt.Sprint(r.IntN(9)), float32(r.IntN(3))}, {fmt.Sprint(r.IntN(9)), float32(r.IntN(3))}}
		d := time.Duration(r.Int64N(int64(deadline-1))) + 1
		switch r.IntN(7) {
		case 0:
			b[peer], want[peer] = answer(hits...), Answered
		case 1:
			b[peer], want[peer] = after(d, hits...), Answered
		case 2:
			b[peer] = func(context.Context) (hitList, error) { time.Sleep(d); return nil, errBroke }
			want[peer] = Failed
		case 3:
			b[peer] = func(context.Context) (hitList, error) { time.Sleep(d); panic(peer) }
			want[peer] = Failed
		case 4:
			b[peer] = func(context.Context) (hitList, error) { time.Sleep(d); runtime.Goexit(); return nil, nil }
			want[peer] = Failed
		case 5:
			b[peer], want[peer] = obey, TimedOut
		case 6:
			late.Add(1)
			b[peer], want[peer] = after(deadline+d, hits...), TimedOut
		}
		if want[peer] == Answered {
			lists[peer] = hits
		}
	}
	opts := &Options{PeerDeadline: deadline, Trace: trace}
	switch r.IntN(3) {
	case 1:
		opts.Limit = 1 + r.IntN(4)
	case 2:
		opts.Shared = shared
	}
	resp, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
	if !assertNoError(t, err) {
		return
	}
	var replies []hitList
	partial := len(b) == 0
	for _, p := range resp.Peers {
		if p.Status != want[p.Peer] {
			t.Errorf("peer %s is %v, want %v", p.Peer, p.Status, want[p.Peer])
		}
		partial = partial || want[p.Peer] != Answered
		replies = append(replies, lists[p.Peer])
	}
	if len(resp.Peers) != len(b) || resp.PeersConsulted != len(b) || resp.Partial != partial {
		t.Errorf("%d peers, %d consulted, partial %v; want %d, partial %v",
			len(resp.Peers), resp.PeersConsulted, resp.Partial, len(b), partial)
	}
	if want := slowMerge(replies, testRequest.K, ScoreAscending); !slices.Equal(want, resp.Hits) {
		t.Errorf("hits = %v, want %v", resp.Hits, want)
	}
}

// assertNoError is for goroutines, in which require must not be used.
func assertNoError(t *testing.T, err error) bool {
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

// Rule 9: a cancelled query is an error even if each probe has told of it before the query's own end is noticed.
func TestBroadcastCancelIsNeverLost(t *testing.T) {
	for range 500 { // it was lost in a quarter of the cases
		ctx, cancel := context.WithCancelCause(t.Context())
		probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
			if peer == "peer0" {
				cancel(errBroke)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		r, err := Broadcast(ctx, testRequest, somePeers(3), probe, nil)
		require.Equal(t, errBroke, err)
		require.Equal(t, Abandoned, r.Peers[0].Status)
	}
}

// Rule 9: nor does cancelling ask anybody whose turn comes then; and it is told even where there was nobody to ask.
func TestBroadcastCancelAsksNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	opts := &Options{Limit: 1, Trace: &Trace{ProbeDone: func(ProbeDoneInfo) { cancel() }}}
	r, err := Broadcast(ctx, testRequest, somePeers(2), behave{"peer0": answer()}.probe, opts)
	require.Equal(t, context.Canceled, err)
	require.Equal(t, "peer0:Answered peer1:NotAsked", summary(r))

	r, err = Broadcast(ctx, testRequest, nil, nobody(t), nil)
	require.Equal(t, context.Canceled, err)
	require.True(t, r.Partial)
}

// Rule 6: a peer's deadline starts with its probe, however long a hook has taken before.
func TestBroadcastHooksTakeNoPeersTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dawdle := func() { time.Sleep(time.Second) }
		opts := &Options{PeerDeadline: 2 * time.Second, Limit: 2, Trace: &Trace{
			StateEntered: func(StateInfo) { dawdle() },
			ProbeStarted: func(ProbeStartInfo) { dawdle() },
			ProbeDone:    func(ProbeDoneInfo) { dawdle() },
		}}
		left := make(chan time.Duration, 4)
		probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			return nil, nil
		}
		r, err := Broadcast(t.Context(), testRequest, somePeers(4), probe, opts)
		require.NoError(t, err)
		require.False(t, r.Partial)
		for range 4 {
			require.Equal(t, 2*time.Second, <-left)
		}
	})
}

// Rule 10: a reply in hand counts too when the deadline has passed before Broadcast has begun to wait.
func TestBroadcastReplyInHandAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := &Options{PeerDeadline: 3 * time.Second, Trace: &Trace{StateEntered: func(i StateInfo) {
			if i.State == Gather {
				time.Sleep(5 * time.Second)
			}
		}}}
		b := behave{"a": after(time.Second)}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
		require.NoError(t, err)
		require.Equal(t, "a:Answered", summary(r))
	})
}

// Rule 12: an error whose methods panic is its peer's fault alone.
func TestBroadcastHostileError(t *testing.T) {
	b := behave{
		"a": answer(Hit[string]{"x", 1}),
		"b": func(context.Context) (hitList, error) { var err *hostileError; return nil, err },
	}
	r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, nil)
	require.NoError(t, err)
	require.Equal(t, "a:Answered b:Failed", summary(r))
}

type hostileError struct{ timeout bool }

func (e *hostileError) Error() string { return "hostile" }
func (e *hostileError) Timeout() bool { return e.timeout }

// Rule 7: partial answers pass through a tree of coordinators, whatever it was that a lower one lacks.
func TestBroadcastTree(t *testing.T) {
	lower := behave{"x": func(context.Context) (hitList, error) { panic("x") }, "y": answer(Hit[string]{"y", 1})}
	probe := func(ctx context.Context, _ PeerID, req *Request) (hitList, error) {
		r, err := Broadcast(ctx, req, lower.peers(), lower.probe, nil)
		if err == nil && r.Partial {
			err = fmt.Errorf("%w: %w", ErrPartial, r.Peers[0].Err)
		}
		return r.Hits, err
	}
	r, err := Broadcast(t.Context(), testRequest, []PeerID{"a"}, probe, nil)
	require.NoError(t, err)
	require.Equal(t, "a:Incomplete", summary(r))
	require.Equal(t, "y", ids(r.Hits))
}

// Rule 6: a late reply is told of, an obedient error isn't, and neither is anything but a reply.
func TestBroadcastLateReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan PeerID, 9)
		b := behave{
			"empty": after(2 * time.Second),
			"error": func(context.Context) (hitList, error) { time.Sleep(2 * time.Second); return nil, errBroke },
			"obey":  obey,
			"part": func(context.Context) (hitList, error) {
				time.Sleep(2 * time.Second)
				return hitList{{"x", 1}}, ErrPartial
			},
		}
		opts := &Options{
			PeerDeadline: time.Second, Shared: semaphore.NewWeighted(4),
			Trace: &Trace{LateReply: func(i LateReplyInfo) { late <- i.Peer }},
		}
		_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		synctest.Wait()
		close(late)
		var told []PeerID
		for peer := range late {
			told = append(told, peer)
		}
		slices.Sort(told)
		require.Equal(t, []PeerID{"empty", "part"}, told)
	})
}

// Rule 6: a probe that is left behind keeps none of the answer alive.
func TestBroadcastLateProbeHoldsNoHits(t *testing.T) {
	type big struct {
		Hit[int]
		blob *[1 << 20]byte
	}
	freed := make(chan bool, 1)
	stop := make(chan struct{})
	defer close(stop)
	probe := func(_ context.Context, peer PeerID, _ *Request) ([]big, error) {
		if peer == "hung" {
			<-stop
			return nil, nil
		}
		blob := new([1 << 20]byte)
		runtime.AddCleanup(blob, func(int) { freed <- true }, 0)
		return []big{{Hit[int]{1, 1}, blob}}, nil
	}
	r, err := Broadcast(t.Context(), testRequest, []PeerID{"a", "hung"}, probe, &Options{Settle: 0.5})
	require.NoError(t, err)
	require.Len(t, r.Hits, 1)
	r = nil
	for range 100 {
		runtime.GC()
		select {
		case <-freed:
			return
		case <-time.After(time.Millisecond):
		}
	}
	t.Error("the hits are still referred to")
}

// A unit of Shared is not lost to a hook that panics, nor is the goroutine that waits for one.
func TestBroadcastHookPanicsWithShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, trace := range []*Trace{
			{ProbeStarted: func(ProbeStartInfo) { panic("hook") }},
			{StateEntered: func(i StateInfo) {
				if i.State == Fanout {
					panic("hook")
				}
			}},
			{ProbeDone: func(ProbeDoneInfo) { panic("hook") }},
		} {
			shared := semaphore.NewWeighted(1)
			require.PanicsWithValue(t, "hook", func() {
				_, _ = Broadcast(t.Context(), testRequest, somePeers(2), behave{"peer0": answer()}.probe,
					&Options{Shared: shared, Trace: trace})
			})
			synctest.Wait()
			require.True(t, shared.TryAcquire(1))
		}
	})
}

// Nor is a unit lost to LateReply, which is told of what is left when all else is over: not one that came before that
// reply or after it, for a peer whose turn was next.
func TestBroadcastLateReplyPanicsWithShared(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		async        bool
		others       int64         // units that another query waits for, so that they don't come to c at once
		late, passed time.Duration // when b replies, and when the other query gives back what it has
	}{
		"the unit came first":         {false, 1, 2500 * ms, 2200 * ms},
		"the reply came first":        {false, 2, 2300 * ms, 2500 * ms},
		"the unit came first, async":  {true, 1, 2500 * ms, 2200 * ms},
		"the reply came first, async": {true, 2, 2300 * ms, 2500 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, told := time.Now(), 0
				shared := semaphore.NewWeighted(2)
				time.AfterFunc(500*ms, func() {
					if assertNoError(t, shared.Acquire(t.Context(), tt.others)) {
						time.Sleep(time.Until(began.Add(tt.passed)))
						shared.Release(tt.others)
					}
				})
				opts := &Options{Limit: 2, Shared: shared, Settle: 0.3, Grace: time.Second, Trace: &Trace{
					StateEntered: func(i StateInfo) {
						if i.State == Merging { // at 2 s
							time.Sleep(time.Second)
						}
					},
					LateReply: func(i LateReplyInfo) {
						told++
						panic(i.Peer)
					},
				}}
				// Nobody asks c.
				b := behave{"a": after(time.Second), "b": after(tt.late), "c": nil}
				async := asyncBehave{"a": doneAfter(time.Second), "b": doneAfter(tt.late), "c": nil}
				require.PanicsWithValue(t, PeerID("b"), func() {
					if tt.async {
						_, _ = BroadcastAsync(t.Context(), testRequest, b.peers(), async.probe, opts)
					} else {
						_, _ = Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
					}
				})
				require.Equal(t, 3*time.Second, time.Since(began))
				synctest.Wait()
				require.Equal(t, 1, told)
				require.True(t, shared.TryAcquire(2))
			})
		})
	}
}

// A unit of Shared that comes when nobody is to be asked any more is not kept until the end: other queries want it.
func TestBroadcastSharedUnitForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := semaphore.NewWeighted(3)
		require.True(t, shared.TryAcquire(1)) // by another query
		began := time.Now()
		time.AfterFunc(3*time.Second, func() { shared.Release(1) })
		// At 1 s b is late, and standbys are to be asked for it, which takes a unit more; at 2 s it answers; at 3 s the
		// unit comes.
		b := behave{"b": after(2 * time.Second), "d": after(time.Minute)}
		time.AfterFunc(4*time.Second, func() {
			if shared.TryAcquire(2) { // d has the third
				shared.Release(2)
			} else {
				t.Error("the unit is kept")
			}
		})
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{
			Cover: quarters(), Standby: []PeerID{"a", "c"}, Shared: shared, PeerDeadline: time.Hour,
			Hedging: &Hedging{DelayOf: func(peer PeerID) time.Duration {
				if peer == "b" {
					return time.Second
				}
				return 0
			}},
		})
		require.NoError(t, err)
		require.Equal(t, "b:Answered d:Answered", summary(r), "no standby is asked")
		require.Equal(t, time.Minute, time.Since(began))
		require.True(t, shared.TryAcquire(3))
	})
}

// Rule 6: the wait for a unit of Shared outlasts another peer's deadline.
func TestBroadcastSharedWaitOutlastsADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": after(2 * time.Second), "b": answer()}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe,
			&Options{Shared: semaphore.NewWeighted(1), PeerDeadline: time.Second})
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut b:Answered", summary(r))
		require.Equal(t, 2*time.Second, r.Elapsed)
	})
}

// Rule 13: every probe's context is over when Broadcast has returned, with or without a deadline; probes that start
// together share one.
func TestBroadcastContextsEnd(t *testing.T) {
	for _, opts := range []*Options{nil, {Limit: 1}, {PeerDeadline: -1}} {
		contexts := make(chan context.Context, 3)
		probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			contexts <- ctx
			return nil, ctx.Err()
		}
		_, err := Broadcast(t.Context(), testRequest, somePeers(3), probe, opts)
		require.NoError(t, err)
		first := <-contexts
		for _, ctx := range []context.Context{first, <-contexts, <-contexts} {
			require.Error(t, ctx.Err())
			require.Equal(t, context.DeadlineExceeded, context.Cause(ctx))
			if opts == nil {
				require.Same(t, first, ctx)
			}
		}
	}
}

// A probe may print its context, as any other, while the query goes on: the race detector looks on.
func TestBroadcastContextPrints(t *testing.T) {
	probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
		for range 50 {
			if s := fmt.Sprint(ctx); !strings.Contains(s, "WithDeadline") {
				return nil, errors.New(s)
			}
		}
		return nil, ctx.Err()
	}
	r, err := Broadcast(t.Context(), testRequest, somePeers(8), probe, nil)
	require.NoError(t, err)
	require.False(t, r.Partial, "%v", r.Peers[0].Err)
}

// Rule 6: a probe that has kept its context, and looks at it for the first time long after the query, is told what one
// is told that has looked all along: not what has become of the caller's context since, nor that the query's end was
// first if a deadline was.
func TestBroadcastContextLookedAtLate(t *testing.T) {
	type key struct{}
	for name, tt := range map[string]struct {
		until time.Duration // the caller's deadline, and
		leave time.Duration // when it cancels; 0: after the query
		opts  Options
		err   error // of a's context
		cause error
		tied  bool // its deadline and the query's end come together, and either may be seen first
	}{
		"spare": {
			opts: Options{Cover: NewCover(circle("a", "z"), 2)},
			err:  context.Canceled, cause: ErrEnough,
		},
		"settled": {
			opts: Options{Settle: 0.1, Grace: time.Second},
			err:  context.Canceled, cause: ErrEnough,
		},
		"its deadline, and the query's end": {
			opts: Options{PeerDeadline: time.Second}, tied: true,
			err: context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
		"its deadline, long before the end": {
			opts: Options{PeerDeadline: time.Second, Limit: 1},
			err:  context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
		"the caller's deadline": {
			until: time.Second, tied: true,
			err: context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
		"the caller's deadline, which is told early": {
			until: time.Second, opts: Options{Reserve: time.Second / 2, PeerDeadline: -1}, tied: true,
			err: context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
		"cancelled": {
			leave: time.Second,
			err:   context.Canceled, cause: errBroke,
		},
		"cancelled after its deadline": {
			leave: 1500 * time.Millisecond, opts: Options{PeerDeadline: time.Second, Limit: 1},
			err: context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
	} {
		for _, early := range []bool{false, true} {
			if early && tt.tied {
				continue
			}
			t.Run(fmt.Sprintf("%s, early=%v", name, early), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
					query := ctx
					if tt.until > 0 {
						var stop context.CancelFunc
						query, stop = context.WithTimeout(ctx, tt.until)
						defer stop()
					}
					if tt.leave > 0 {
						time.AfterFunc(tt.leave, func() { cancel(errBroke) })
					}
					var kept context.Context
					b := asyncBehave{
						"a": func(ctx context.Context, _ done) {
							kept = ctx
							if early {
								assertNoError(t, ctx.Err())
							}
						},
						"b": never,
						"z": func(_ context.Context, done done) { done(nil, nil) },
					}
					_, err := BroadcastAsync(query, testRequest, []PeerID{"z", "a", "b"}, b.probe, &tt.opts)
					if tt.leave > 0 {
						require.Equal(t, errBroke, err)
					} else {
						require.NoError(t, err)
					}
					cancel(errors.New("later"))
					time.Sleep(time.Hour)
					require.Equal(t, tt.err, kept.Err())
					require.Equal(t, tt.cause, context.Cause(kept))
					require.Equal(t, "value", kept.Value(key{}))
					<-kept.Done()
				})
			})
		}
	}
}

// Rule 4: the probe's goroutine sorts a reply, and what comes sorted is trusted.
func TestRunProbeSorts(t *testing.T) {
	var r reply[Hit[string]]
	b := behave{"a": answer(Hit[string]{"x", 2}, Hit[string]{"y", 1})}
	runProbe(t.Context(), b.probe, "a", testRequest, ScoreAscending, &r)
	require.True(t, r.sorted)
	require.Equal(t, "y x", ids(r.hits))

	s := newStepped(t, 1, Options{}, "a")
	s.begin()
	unsorted := hitList{{"x", 2}, {"y", 1}}
	s.step(1, &Event[Hit[string]]{Kind: Replied, Hits: unsorted, status: Answered, sorted: true})
	require.Equal(t, "x", ids(s.Response().Hits), "nobody looks again")
}
