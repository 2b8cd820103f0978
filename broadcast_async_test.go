package scatter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

type done = func(hitList, error)

// asyncBehave is an AsyncProbe that does for each peer what the map says.
type asyncBehave map[PeerID]func(ctx context.Context, done done)

func (b asyncBehave) probe(ctx context.Context, peer PeerID, _ *Request, done func([]Hit[string], error)) {
	b[peer](ctx, done)
}

func never(context.Context, done) {}

func doneAfter(d time.Duration, hits ...Hit[string]) func(context.Context, done) {
	return func(_ context.Context, done done) { time.AfterFunc(d, func() { done(hits, nil) }) }
}

// Rule 30: an async probe's replies are as good as another's, whether done is called at once or later; and rules 5 to 14
// hold for those that are called twice, late, never, or not at all because of a panic.
func TestBroadcastAsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan LateReplyInfo, 9)
		b := asyncBehave{
			"at once": func(_ context.Context, done done) { done(hitList{{"w", 2}, {"v", 1}}, nil) },
			"error":   func(_ context.Context, done done) { done(hitList{{"no", 0}}, errBroke) },
			"late":    doneAfter(2*time.Second, Hit[string]{"late", 0}),
			"later":   doneAfter(500*time.Millisecond, Hit[string]{"x", 3}),
			"never":   never,
			"obey": func(ctx context.Context, done done) {
				context.AfterFunc(ctx, func() { done(nil, ctx.Err()) })
			},
			"panic": func(context.Context, done) { panic("at the disco") },
			"part":  func(_ context.Context, done done) { done(hitList{{"y", 4}}, ErrPartial) },
			"then panic": func(_ context.Context, done done) {
				done(hitList{{"z", 5}}, nil)
				panic("too late to matter")
			},
			"twice": func(_ context.Context, done done) {
				done(hitList{{"zz", 6}}, nil)
				done(hitList{{"no", 0}}, errBroke)
				time.AfterFunc(time.Millisecond, func() { done(hitList{{"no", 0}}, nil) })
			},
		}
		peers := []PeerID{"at once", "error", "late", "later", "never", "obey", "panic", "part", "then panic", "twice"}
		opts := &Options{PeerDeadline: time.Second, Trace: &Trace{LateReply: func(i LateReplyInfo) { late <- i }}}
		began := time.Now()
		r, err := BroadcastAsync(t.Context(), testRequest, peers, b.probe, opts)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "at once:Answered error:Failed late:TimedOut later:Answered never:TimedOut obey:TimedOut "+
			"panic:Failed part:Incomplete then panic:Answered twice:Answered", summary(r))
		require.Equal(t, "v w x y z zz", ids(r.Hits))
		var panicked *PanicError
		require.ErrorAs(t, r.Peers[6].Err, &panicked)
		require.Equal(t, []int{10, 3, 2}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
		time.Sleep(time.Hour)
		synctest.Wait()
		afterDone := <-late
		require.Equal(t, PeerID("then panic"), afterDone.Peer)
		require.ErrorAs(t, afterDone.Err, &panicked)
		require.Equal(t, LateReplyInfo{testRequest, "late", 1, nil}, <-late)
		require.Empty(t, late)
	})
}

// Rule 30: no goroutine for a peer.
func TestBroadcastAsyncStartsNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := bubbleGoroutines()
		inside := make(chan int, 1)
		probe := func(_ context.Context, peer PeerID, _ *Request, done func([]Hit[string], error)) {
			if peer == "peer99" {
				time.AfterFunc(time.Second, func() { done(nil, nil) })
				time.AfterFunc(time.Millisecond, func() { inside <- bubbleGoroutinesNow() })
				return
			}
			time.AfterFunc(time.Second, func() { done(nil, nil) })
		}
		r, err := BroadcastAsync(t.Context(), testRequest, somePeers(100), probe, nil)
		require.NoError(t, err)
		require.False(t, r.Partial)
		require.LessOrEqual(t, <-inside, before+1, "but for the one that counts")
	})
}

// Rules 11, 30: the arguments are checked as Broadcast's are.
func TestBroadcastAsyncArguments(t *testing.T) {
	_, err := BroadcastAsync[Hit[string]](t.Context(), testRequest, somePeers(1), nil, nil)
	require.EqualError(t, err, "scatter: probe is nil")
	_, err = BroadcastAsync(t.Context(), &Request{Query: KNN{}}, somePeers(1), asyncBehave{}.probe, nil)
	require.EqualError(t, err, "scatter: Request.K is 0, must be at least 1")
}

// Rule 30: a cancel ends it, and the peers out count as abandoned.
func TestBroadcastAsyncCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errBroke) })
		b := asyncBehave{"peer0": never, "peer1": doneAfter(time.Millisecond, Hit[string]{"x", 1})}
		r, err := BroadcastAsync(ctx, testRequest, somePeers(2), b.probe, nil)
		require.Equal(t, errBroke, err)
		require.Equal(t, "peer0:Abandoned peer1:Answered", summary(r))
	})
}

// Rule 30: within Limit and Shared, as other probes; a unit of Shared comes back though done is never called.
func TestBroadcastAsyncShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := semaphore.NewWeighted(2)
		for range 3 {
			b := asyncBehave{"peer0": never, "peer1": doneAfter(time.Minute), "peer2": doneAfter(time.Millisecond)}
			r, err := BroadcastAsync(t.Context(), testRequest, somePeers(3), b.probe, &Options{Shared: shared, Limit: 2, PeerDeadline: time.Hour})
			require.NoError(t, err)
			require.Equal(t, "peer0:TimedOut peer1:Answered peer2:Answered", summary(r))
			require.True(t, shared.TryAcquire(2))
			shared.Release(2)
		}
	})
}

// Rule 30: a peer that never calls back gives its unit to the next when it is given up on.
func TestBroadcastAsyncSharedGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := semaphore.NewWeighted(1)
		b := asyncBehave{"peer0": never, "peer1": doneAfter(time.Millisecond)}
		r, err := BroadcastAsync(t.Context(), testRequest, somePeers(2), b.probe, &Options{Shared: shared, PeerDeadline: time.Second})
		require.NoError(t, err)
		require.Equal(t, "peer0:TimedOut peer1:Answered", summary(r))
		require.Equal(t, 1001*time.Millisecond, r.Elapsed)
		require.True(t, shared.TryAcquire(1))
	})
}

// Rule 30: callbacks from many goroutines, twice, late or never, under the race detector; what comes out is what was
// answered in time.
func TestBroadcastAsyncStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := semaphore.NewWeighted(30)
		var wg sync.WaitGroup
		var told, made atomic.Int32
		trace := &Trace{LateReply: func(LateReplyInfo) { told.Add(1) }}
		for caller := range 20 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(11, uint64(caller)))
				for range 20 {
					b, want := asyncBehave{}, 0
					for i := range 1 + r.IntN(10) {
						hit := Hit[string]{fmt.Sprint(i), 1}
						d := time.Duration(1 + r.Int64N(int64(time.Second)-1))
						peer := PeerID(fmt.Sprint(i))
						switch r.IntN(5) {
						case 0:
							b[peer] = func(_ context.Context, done done) { done(hitList{hit}, nil) }
							want++
						case 1:
							b[peer] = func(_ context.Context, done done) {
								time.AfterFunc(d, func() { done(hitList{hit}, nil) })
								time.AfterFunc(d, func() { done(hitList{hit}, nil) })
								time.AfterFunc(d+time.Minute, func() { done(nil, errBroke) })
							}
							want++
						case 2:
							b[peer] = never
						case 3:
							made.Add(1)
							b[peer] = doneAfter(time.Second+d, hit)
						case 4:
							b[peer] = func(context.Context, done) { panic("no") }
						}
					}
					opts := &Options{PeerDeadline: time.Second, Trace: trace}
					if r.IntN(2) == 0 {
						opts.Shared = shared
					}
					var peers []PeerID
					for i := range len(b) {
						peers = append(peers, PeerID(fmt.Sprint(i)))
					}
					resp, err := BroadcastAsync(t.Context(), testRequest, peers, b.probe, opts)
					if err != nil || len(resp.Hits) != want || resp.Partial != (want < len(b)) {
						t.Errorf("%v, %v: %d hits, want %d of %d", err, summary(resp), len(resp.Hits), want, len(b))
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, made.Load(), told.Load())
		require.True(t, shared.TryAcquire(30))
	})
}

// Rule 30: an error whose methods panic, or a nil hit, harms its peer alone, on the transport's goroutine too.
func TestBroadcastAsyncHostileReplies(t *testing.T) {
	probe := func(_ context.Context, peer PeerID, _ *Request, done func([]*Hit[string], error)) {
		switch peer {
		case "peer0":
			var err *hostileError
			done(nil, err)
		case "peer1":
			done([]*Hit[string]{nil}, nil)
		case "peer2":
			done([]*Hit[string]{{"x", 1}}, nil)
		case "peer3":
			done(nil, errors.New("plain"))
		}
	}
	r, err := BroadcastAsync(t.Context(), testRequest, somePeers(4), probe, nil)
	require.NoError(t, err)
	require.Len(t, r.Hits, 1)
	require.Equal(t, 3, r.PeersFailed)
}

// A unit of Shared is not lost to a hook that panics while an AsyncProbe holds it, nor given back twice if that calls
// back after all.
func TestBroadcastAsyncHookPanicsWithShared(t *testing.T) {
	for name, trace := range map[string]*Trace{
		"StateEntered": {StateEntered: func(i StateInfo) {
			if i.State == Gather {
				panic("hook")
			}
		}},
		"ProbeStarted": {ProbeStarted: func(ProbeStartInfo) { panic("hook") }},
		"ProbeDone":    {ProbeDone: func(ProbeDoneInfo) { panic("hook") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared := semaphore.NewWeighted(3)
				b := asyncBehave{"peer0": doneAfter(time.Second), "peer1": never, "peer2": doneAfter(time.Minute)}
				require.PanicsWithValue(t, "hook", func() {
					_, _ = BroadcastAsync(t.Context(), testRequest, somePeers(3), b.probe,
						&Options{Shared: shared, PeerDeadline: time.Hour, Trace: trace})
				})
				require.True(t, shared.TryAcquire(3), "whether they call back or not")
				shared.Release(3)
				time.Sleep(time.Hour)
				require.True(t, shared.TryAcquire(3))
			})
		})
	}
}
