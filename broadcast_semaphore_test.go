package scatter

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

// Rule 5: Semaphore bounds the probes of several Broadcasts together, and all its units are back in
// the end.
func TestBroadcastSemaphore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		var wg sync.WaitGroup
		units := semaphore.NewWeighted(3)
		began := time.Now()
		for range 5 {
			wg.Go(func() {
				opts := &Options{Semaphore: units, PeerDeadline: time.Minute}
				r, err := Broadcast(t.Context(), testRequest, somePeers(6), g.probe(time.Second), opts)
				assert.NoError(t, err)
				assert.False(t, r.Partial)
			})
		}
		wg.Wait()
		require.EqualValues(t, 3, g.most.Load())
		require.Equal(t, 10*time.Second, time.Since(began), "30 probes, 3 at a time")
		require.True(t, units.TryAcquire(3))
	})
}

// Rule 6: a peer's deadline starts with its probe, and not while it waits for its unit.
func TestBroadcastWaitsForAUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		units := semaphore.NewWeighted(1)
		require.True(t, units.TryAcquire(1))
		time.AfterFunc(time.Minute-1, func() { units.Release(1) })
		var left time.Duration
		probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return nil, nil
		}
		opts := &Options{Semaphore: units, PeerDeadline: time.Minute}
		r, err := Broadcast(t.Context(), testRequest, somePeers(1), probe, opts)
		require.NoError(t, err)
		require.False(t, r.Partial)
		require.Equal(t, time.Minute, left)
		require.Equal(t, time.Minute-1, r.Elapsed)
		require.Zero(t, r.Peers[0].Elapsed)
		require.True(t, units.TryAcquire(1))
	})
}

// Rule 42: a peer waits for its unit no longer than PeerDeadline. Then it is NotAsked, with
// context.DeadlineExceeded.
func TestBroadcastGivesUpOnAUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := bubbleGoroutines()
		for _, size := range []int64{0, 1} { // a semaphore without units has none for anybody, ever
			units := semaphore.NewWeighted(size)
			require.True(t, units.TryAcquire(size))
			opts := &Options{Semaphore: units, PeerDeadline: time.Second}
			r, err := Broadcast(t.Context(), testRequest, somePeers(3), nobody(t), opts)
			require.NoError(t, err)
			require.Equal(t, "peer0:NotAsked peer1:NotAsked peer2:NotAsked", summary(r))
			require.Equal(t, time.Second, r.Elapsed)
			require.Equal(t, []int{0, 0, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
			require.True(t, r.Partial)
			for _, line := range r.Peers {
				require.ErrorIs(t, line.Err, context.DeadlineExceeded)
				require.EqualError(t, line.Err, "scatter: no unit of Options.Semaphore within 1s")
				require.Zero(t, line.Elapsed)
			}
			require.Equal(t, before, bubbleGoroutines(), "nobody waits on")
			units.Release(size)
			require.True(t, units.TryAcquire(size))
		}
	})
}

// Rule 42: with a Limit, a peer's wait begins when it would be asked if there were a unit.
func TestBroadcastGivesUpOnAUnitInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		units := semaphore.NewWeighted(1)
		require.True(t, units.TryAcquire(1))
		opts := &Options{Semaphore: units, PeerDeadline: time.Second, Limit: 2}
		r, err := Broadcast(t.Context(), testRequest, somePeers(5), nobody(t), opts)
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, r.Elapsed, "two, two, and one")
		require.Zero(t, r.PeersConsulted)
	})
}

// The query's own deadline ends the wait for a unit earlier, and so does its cancellation. Without
// PeerDeadline nothing else does.
func TestBroadcastUnitAndQueryEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		units := semaphore.NewWeighted(1)
		require.True(t, units.TryAcquire(1))
		for _, deadline := range []time.Duration{time.Hour, -1} {
			opts := &Options{Semaphore: units, PeerDeadline: deadline}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			r, err := Broadcast(ctx, testRequest, somePeers(2), nobody(t), opts)
			cancel()
			require.NoError(t, err)
			require.Equal(t, "peer0:NotAsked peer1:NotAsked", summary(r))
			require.Equal(t, time.Minute, r.Elapsed)
			require.EqualError(t, r.Peers[0].Err, "scatter: the query's time was up")

			ctx, stop := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { stop(errBroke) })
			r, err = Broadcast(ctx, testRequest, somePeers(2), nobody(t), opts)
			require.Equal(t, errBroke, err)
			require.Equal(t, "peer0:NotAsked peer1:NotAsked", summary(r))
			require.Equal(t, errBroke, r.Peers[1].Err)
		}
		units.Release(1)
		synctest.Wait()
		require.True(t, units.TryAcquire(1))
	})
}

// Rule 42: nobody waits for a unit whose peer can add nothing to the answer, or once nobody else
// can.
func TestBroadcastUnitNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := bubbleGoroutines()
		units := semaphore.NewWeighted(2)
		cover := NewGroupCover([]PeerID{"a", "z"}, []PeerID{"b", "z"})
		b := behave{"z": after(time.Second), "hung": after(time.Hour)}
		opts := &Options{Cover: cover, Semaphore: units, PeerDeadline: time.Minute}
		r, err := Broadcast(t.Context(), testRequest, []PeerID{"hung", "z", "a", "b"}, b.probe, opts)
		require.NoError(t, err)
		require.Equal(t, time.Second, r.Elapsed)
		require.Equal(t, "hung:NotNeeded z:Answered a:NotAsked b:NotAsked", summary(r))
		require.Equal(t, ErrEnough, r.Peers[2].Err)
		require.Equal(t, before+1, bubbleGoroutines(), "the hung probe alone")
		require.True(t, units.TryAcquire(1))
		time.Sleep(time.Hour)
		require.True(t, units.TryAcquire(1))
	})
}

// A probe holds its unit until it returns, late or not.
func TestBroadcastUnitIsHeldByLateProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		units := semaphore.NewWeighted(1)
		b := behave{"a": after(time.Hour)}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{Semaphore: units})
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut", summary(r))
		require.False(t, units.TryAcquire(1))
		time.Sleep(time.Hour)
		require.True(t, units.TryAcquire(1))
	})
}

// A unit that comes when the query is over, or just as it ends, is given back.
func TestBroadcastUnitComesTooLate(t *testing.T) {
	for _, limit := range []int{0, 1} {
		for range 100 { // two goroutines race for it; that is the point
			synctest.Test(t, func(t *testing.T) {
				units := semaphore.NewWeighted(1)
				require.True(t, units.TryAcquire(1))
				time.AfterFunc(time.Second, func() { units.Release(1) })
				opts := &Options{Semaphore: units, Limit: limit}
				ctx := t.Context()
				if limit == 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Second)
					defer cancel()
				} else {
					opts.PeerDeadline = time.Second
				}
				var g gauge
				r, err := Broadcast(ctx, testRequest, somePeers(3), g.probe(2*time.Second), opts)
				require.NoError(t, err)
				require.True(t, r.Partial)
				time.Sleep(time.Minute)
				require.True(t, units.TryAcquire(1))
			})
		}
	}
}

// Rule 42: the wait for a unit outlasts another peer's deadline, if there is time left.
func TestBroadcastUnitWaitOutlastsADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": after(1900 * time.Millisecond), "b": answer(), "c": answer()}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe,
			&Options{Semaphore: semaphore.NewWeighted(1), PeerDeadline: time.Second})
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut b:NotAsked c:NotAsked", summary(r))
		require.InDelta(t, time.Second, r.Elapsed, 1)
		time.Sleep(time.Minute)

		b = behave{"a": after(900 * time.Millisecond), "b": answer(), "c": answer()}
		r, err = Broadcast(t.Context(), testRequest, b.peers(), b.probe,
			&Options{Semaphore: semaphore.NewWeighted(1), PeerDeadline: time.Second})
		require.NoError(t, err)
		require.Equal(t, "a:Answered b:Answered c:Answered", summary(r))
	})
}

// A unit is not lost to a hook that panics, nor is the goroutine that waits for one.
func TestBroadcastHookPanicsWithUnits(t *testing.T) {
	for name, trace := range map[string]*Trace{
		"ProbeStarted": {ProbeStarted: func(context.Context, ProbeInfo) context.Context { panic("hook") }},
		"QueryStarted": {QueryStarted: func(context.Context, QueryInfo) context.Context { panic("hook") }},
		"ProbeDone":    {ProbeDone: func(context.Context, ProbeDoneInfo) { panic("hook") }},
		"QueryDone":    {QueryDone: func(context.Context, QueryDoneInfo) { panic("hook") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				units := semaphore.NewWeighted(1)
				b := behave{"peer0": answer(), "peer1": answer()}
				require.PanicsWithValue(t, "hook", func() {
					_, _ = Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{Semaphore: units, Trace: trace})
				})
				synctest.Wait()
				require.True(t, units.TryAcquire(1))
			})
		})
	}
}

// Nor is a unit lost to a LateReply that panics when the query has ended: not one that came before
// that reply or after it, for the peer whose turn was next.
func TestBroadcastLateReplyPanicsWithUnits(t *testing.T) {
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
				units := semaphore.NewWeighted(2)
				time.AfterFunc(500*ms, func() {
					if assert.NoError(t, units.Acquire(t.Context(), tt.others)) {
						time.Sleep(time.Until(began.Add(tt.passed)))
						units.Release(tt.others)
					}
				})
				trace := &Trace{
					QueryDone: func(context.Context, QueryDoneInfo) { time.Sleep(time.Second) }, // from 2 s on
					LateReply: func(_ context.Context, i LateReplyInfo) {
						told++
						panic(i.Peer)
					},
				}
				opts := &Options{Limit: 2, Semaphore: units, EnoughCoverage: 0.3, Grace: time.Second, Trace: trace}
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
				require.True(t, units.TryAcquire(2))
			})
		})
	}
}
