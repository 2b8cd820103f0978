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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

// Rule 30: an async probe's replies count as any other's, whether done is called at once or later.
// Rules 5 to 14 hold also if done is called twice, late, never, or not at all because of a panic.
func TestBroadcastAsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan LateReplyInfo, 9)
		b := asyncBehave{
			"at once": func(_ context.Context, done done) { done(hitList{{"w", 2}, {"v", 1}}, nil) },
			"error":   func(_ context.Context, done done) { done(hitList{{"no", 0}}, errBroke) },
			"late":    doneAfter(2*time.Second, Hit[string]{"late", 0}),
			"later":   doneAfter(500*time.Millisecond, Hit[string]{"x", 3}),
			"never":   neverDone,
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
		opts := &Options{PeerDeadline: time.Second, Trace: &Trace{LateReply: func(_ context.Context, i LateReplyInfo) { late <- i }}}
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

// Rules 11, 30: the arguments are checked as those of Broadcast.
func TestBroadcastAsyncArguments(t *testing.T) {
	_, err := BroadcastAsync[Hit[string]](t.Context(), testRequest, somePeers(1), nil, nil)
	require.EqualError(t, err, "scatter: probe is nil")
	_, err = BroadcastAsync(t.Context(), &Request{Query: KNN{}}, somePeers(1), asyncBehave{}.probe, nil)
	require.EqualError(t, err, "scatter: Request.K is 0, must be at least 1")
}

// Rule 30: a cancellation ends the query, and the peers still out are abandoned.
func TestBroadcastAsyncCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errBroke) })
		b := asyncBehave{"peer0": neverDone, "peer1": doneAfter(time.Millisecond, Hit[string]{"x", 1})}
		r, err := BroadcastAsync(ctx, testRequest, somePeers(2), b.probe, nil)
		require.Equal(t, errBroke, err)
		require.Equal(t, "peer0:Abandoned peer1:Answered", summary(r))
	})
}

// Rule 30: Limit and Semaphore hold as for other probes. A unit comes back even if done is neverDone
// called.
func TestBroadcastAsyncSemaphore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		units := semaphore.NewWeighted(2)
		for range 3 {
			b := asyncBehave{"peer0": neverDone, "peer1": doneAfter(time.Minute), "peer2": doneAfter(time.Millisecond)}
			r, err := BroadcastAsync(t.Context(), testRequest, somePeers(3), b.probe,
				&Options{Semaphore: units, Limit: 2, PeerDeadline: time.Hour})
			require.NoError(t, err)
			require.Equal(t, "peer0:TimedOut peer1:Answered peer2:Answered", summary(r))
			require.True(t, units.TryAcquire(2))
			units.Release(2)
		}
	})
}

// Rule 30: the unit of a peer that never calls back goes to the next one at the peer's deadline.
func TestBroadcastAsyncSemaphoreGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		units := semaphore.NewWeighted(1)
		b := asyncBehave{"peer0": doneAfter(time.Second / 2), "peer1": neverDone, "peer2": doneAfter(time.Second / 4)}
		r, err := BroadcastAsync(t.Context(), testRequest, somePeers(3), b.probe,
			&Options{Semaphore: units, PeerDeadline: time.Second, Limit: 1})
		require.NoError(t, err)
		require.Equal(t, "peer0:Answered peer1:TimedOut peer2:Answered", summary(r))
		require.Equal(t, 1750*time.Millisecond, r.Elapsed)
		require.True(t, units.TryAcquire(1))
	})
}

// Rule 30: callbacks come from many goroutines, twice, late or never. The answer is what came in
// time, and no late reply or unit is lost.
func TestBroadcastAsyncStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		units := semaphore.NewWeighted(30)
		var wg sync.WaitGroup
		var told, made atomic.Int32 // late replies
		trace := &Trace{LateReply: func(context.Context, LateReplyInfo) { told.Add(1) }}
		for caller := range 20 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(11, uint64(caller)))
				for range 20 {
					opts := &Options{PeerDeadline: time.Second, Trace: trace}
					if r.IntN(2) == 0 {
						opts.Semaphore = units
					}
					asyncStorm(t, r, opts, &made)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.NotZero(t, made.Load())
		require.Equal(t, made.Load(), told.Load())
		require.True(t, units.TryAcquire(30))
	})
}

func asyncStorm(t *testing.T, r *rand.Rand, opts *Options, late *atomic.Int32) {
	b, want := asyncBehave{}, map[PeerID]Status{}
	for i, peer := range somePeers(1 + r.IntN(10)) {
		hit := Hit[string]{fmt.Sprint(i), 1}
		d := time.Duration(1 + r.Int64N(int64(time.Second)-1))
		switch r.IntN(5) {
		case 0:
			b[peer] = func(_ context.Context, done done) { done(hitList{hit}, nil) }
			want[peer] = Answered
		case 1:
			b[peer] = func(_ context.Context, done done) {
				time.AfterFunc(d, func() { done(hitList{hit}, nil) })
				time.AfterFunc(d, func() { done(hitList{hit}, nil) })
				time.AfterFunc(d+time.Minute, func() { done(nil, errBroke) })
			}
			want[peer] = Answered
		case 2:
			b[peer], want[peer] = neverDone, TimedOut
		case 3:
			b[peer] = func(ctx context.Context, done done) {
				late.Add(1)
				doneAfter(time.Second+d, hit)(ctx, done)
			}
			want[peer] = TimedOut
		case 4:
			b[peer], want[peer] = func(context.Context, done) { panic("no") }, Failed
		}
	}
	resp, err := BroadcastAsync(t.Context(), testRequest, b.peers(), b.probe, opts)
	if !assert.NoError(t, err) {
		return
	}
	answered := 0
	for _, line := range resp.Peers {
		if line.Status == NotAsked && opts.Semaphore != nil { // it waited too long for its unit
			assert.ErrorIs(t, line.Err, context.DeadlineExceeded)
			continue
		}
		assert.Equal(t, want[line.Peer], line.Status)
		if line.Status == Answered {
			answered++
		}
	}
	assert.Len(t, resp.Hits, answered)
	assert.Equal(t, answered < len(b), resp.Partial)
}

// Rule 30: an error whose methods panic, or a nil hit, harms its peer alone, and not the
// transport's goroutine either.
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

// A unit is not lost to a hook that panics while an AsyncProbe holds it, nor given back twice if
// the probe calls back after all.
func TestBroadcastAsyncHookPanicsWithUnits(t *testing.T) {
	for name, trace := range map[string]*Trace{
		"ProbeStarted": {ProbeStarted: func(context.Context, ProbeInfo) context.Context { panic("hook") }},
		"ProbeDone":    {ProbeDone: func(context.Context, ProbeDoneInfo) { panic("hook") }},
		"QueryDone":    {QueryDone: func(context.Context, QueryDoneInfo) { panic("hook") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				units := semaphore.NewWeighted(3)
				b := asyncBehave{"peer0": doneAfter(time.Second), "peer1": neverDone, "peer2": doneAfter(time.Minute)}
				require.PanicsWithValue(t, "hook", func() {
					_, _ = BroadcastAsync(t.Context(), testRequest, somePeers(3), b.probe,
						&Options{Semaphore: units, PeerDeadline: time.Hour, Trace: trace})
				})
				require.True(t, units.TryAcquire(3), "whether they call back or not")
				units.Release(3)
				time.Sleep(time.Hour)
				require.True(t, units.TryAcquire(3))
			})
		})
	}
}
