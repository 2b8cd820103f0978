package scatter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

// Rules 5 to 14, all at once: many Broadcasts side by side, whose probes answer, fail, panic, exit,
// obey, hang and answer late at random. Each Response is just what its probes make it, and in the
// end no goroutine and no unit is left.
func TestBroadcastStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, rounds, deadline = 20, 25, time.Second
		before := bubbleGoroutines()
		units := semaphore.NewWeighted(40)
		var told, made atomic.Int32 // late replies
		trace := &Trace{LateReply: func(context.Context, LateReplyInfo) { told.Add(1) }}
		var wg sync.WaitGroup
		for caller := range callers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(7, uint64(caller)))
				for range rounds {
					opts := &Options{PeerDeadline: deadline, Trace: trace}
					switch r.IntN(3) {
					case 1:
						opts.Limit = 1 + r.IntN(4)
					case 2:
						opts.Semaphore = units
					}
					storm(t, r, opts, &made)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Hour)
		require.Equal(t, before, bubbleGoroutines())
		require.Equal(t, made.Load(), told.Load())
		require.NotZero(t, told.Load())
		require.True(t, units.TryAcquire(40), "a unit was lost")
	})
}

func storm(t *testing.T, r *rand.Rand, opts *Options, late *atomic.Int32) {
	b, lists, want := behave{}, map[PeerID]hitList{}, map[PeerID]Status{}
	for _, peer := range somePeers(r.IntN(12)) {
		hits := hitList{{fmt.Sprint(r.IntN(9)), float32(r.IntN(3))}, {fmt.Sprint(r.IntN(9)), float32(r.IntN(3))}}
		d := time.Duration(r.Int64N(int64(opts.PeerDeadline-1))) + 1
		want[peer] = Failed
		switch r.IntN(7) {
		case 0:
			b[peer], want[peer] = answer(hits...), Answered
		case 1:
			b[peer], want[peer] = after(d, hits...), Answered
		case 2:
			b[peer] = failAfter(d, errBroke)
		case 3:
			b[peer] = func(context.Context) (hitList, error) { time.Sleep(d); panic(peer) }
		case 4:
			b[peer] = func(context.Context) (hitList, error) { time.Sleep(d); runtime.Goexit(); return nil, nil }
		case 5:
			b[peer], want[peer] = obey, TimedOut
		case 6:
			b[peer] = func(ctx context.Context) (hitList, error) {
				late.Add(1)
				return after(opts.PeerDeadline+d, hits...)(ctx)
			}
			want[peer] = TimedOut
		}
		lists[peer] = hits
	}
	resp, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
	if !assert.NoError(t, err) {
		return
	}
	var replies []hitList
	consulted := 0
	for _, line := range resp.Peers {
		if line.Status == NotAsked && opts.Semaphore != nil { // it waited too long for its unit
			assert.ErrorIs(t, line.Err, context.DeadlineExceeded)
			continue
		}
		consulted++
		assert.Equal(t, want[line.Peer], line.Status, "peer %s", line.Peer)
		if line.Status == Answered {
			replies = append(replies, lists[line.Peer])
		}
	}
	assert.Len(t, resp.Peers, len(b))
	assert.Equal(t, consulted, resp.PeersConsulted)
	assert.Equal(t, len(b) == 0 || len(replies) < len(b), resp.Partial)
	wanted := slowMerge(replies, testRequest.K, ScoreAscending)
	assert.ElementsMatch(t, wanted, resp.Hits)
	assert.Equal(t, ids(wanted), ids(resp.Hits))
}

// Rules 6, 12, 30: nothing of one query is ever seen in another: no late reply, no second callback,
// and no context that a probe has kept.
func TestBroadcastsHaveNothingInCommon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		var contexts []context.Context
		for query := range 200 {
			peers := somePeers(1 + r.IntN(20))
			isLate, hits, want := map[PeerID]bool{}, map[PeerID]hitList{}, hitList(nil)
			for _, peer := range peers {
				hits[peer] = hitList{{fmt.Sprint(query, "/", peer), r.Float32()}}
				if isLate[peer] = r.IntN(8) == 0; !isLate[peer] {
					want = append(want, hits[peer]...)
				}
			}
			async := func(ctx context.Context, peer PeerID, _ *Request, done func([]Hit[string], error)) {
				if peer == peers[0] {
					contexts = append(contexts, ctx)
				}
				reply := func() { done(hits[peer], nil) }
				again := func() { done(hitList{{"again", 0}}, nil) }
				if isLate[peer] {
					time.AfterFunc(3*time.Second, func() { reply(); again() })
					return
				}
				reply()
				time.AfterFunc(time.Second/2, again)
				time.AfterFunc(5*time.Second, again)
			}
			req := &Request{Table: "t", Query: KNN{}, K: 100}
			opts := &Options{PeerDeadline: time.Second, Limit: r.IntN(2) * 40}
			resp, err := BroadcastAsync(t.Context(), req, peers, async, opts)
			require.NoError(t, err)
			wantSame(t, slowMerge([]hitList{want}, 100, ScoreAscending), resp.Hits)
			for i, line := range resp.Peers {
				require.Equal(t, peers[i], line.Peer)
				require.Equal(t, isLate[line.Peer], line.Status == TimedOut, "query %d: %+v", query, line)
			}
			for _, ctx := range contexts {
				require.Error(t, ctx.Err())
				require.Equal(t, context.DeadlineExceeded, context.Cause(ctx))
			}
		}
		time.Sleep(time.Minute)
	})
}
