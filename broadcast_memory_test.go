package scatter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Rules 6, 12, 30: queries use memory again, but nothing of one is ever seen in another: no late reply, no second
// callback, no context that a probe has kept.
func TestBroadcastsHaveNothingInCommon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		type kept struct {
			ctx   context.Context
			cause error
		}
		var contexts []kept
		for query := range 600 {
			hitOf := func(peer PeerID) hitList { return hitList{{fmt.Sprint(query, "/", peer), r.Float32()}} }
			peers := somePeers(1 + r.IntN(30))
			late := map[PeerID]bool{}
			want := []string{}
			hits := map[PeerID]hitList{}
			for _, peer := range peers {
				hits[peer] = hitOf(peer)
				if late[peer] = r.IntN(8) == 0; !late[peer] {
					want = append(want, hits[peer][0].ID)
				}
			}
			first := make(chan context.Context, len(peers))
			probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
				if peer == peers[0] {
					first <- ctx
				}
				if late[peer] {
					time.Sleep(3*time.Second + time.Duration(len(peer)))
				}
				return hits[peer], nil
			}
			async := func(ctx context.Context, peer PeerID, req *Request, done func([]Hit[string], error)) {
				again := func() { done(hitList{{"again", 0}}, nil) }
				if late[peer] {
					time.AfterFunc(3*time.Second, func() { done(probe(ctx, peer, req)); again() })
					return
				}
				done(probe(ctx, peer, req))
				time.AfterFunc(time.Second/2, again)
				time.AfterFunc(5*time.Second, again)
			}
			req := &Request{Table: "t", Query: KNN{}, K: 100}
			opts := &Options{PeerDeadline: time.Second, Limit: r.IntN(2) * 40}
			var resp *Response[Hit[string]]
			var err error
			if query%2 == 0 {
				resp, err = Broadcast(t.Context(), req, peers, probe, opts)
			} else {
				resp, err = BroadcastAsync(t.Context(), req, peers, async, opts)
			}
			require.NoError(t, err)
			got := []string{}
			for _, h := range resp.Hits {
				got = append(got, h.ID)
			}
			slices.Sort(got)
			slices.Sort(want)
			require.Equal(t, want, got, "query %d", query)
			for i, line := range resp.Peers {
				require.Equal(t, peers[i], line.Peer)
				require.Equal(t, late[line.Peer], line.Status == TimedOut, "query %d: %+v", query, line)
			}
			if len(first) > 0 {
				contexts = append(contexts, kept{<-first, context.DeadlineExceeded})
			}
			for _, k := range contexts {
				require.Error(t, k.ctx.Err())
				require.Equal(t, k.cause, context.Cause(k.ctx))
			}
		}
		time.Sleep(time.Minute)
	})
}

// Rules 5, 13: probes that wait all wait at the same time, however they follow each other on a goroutine; and those that
// end it leave the others theirs.
func TestBroadcastWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := somePeers(200)
		probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
			switch i := slices.Index(peers, peer); i % 4 {
			case 0:
				time.Sleep(time.Second)
			case 1:
				runtime.Goexit()
			case 2:
				panic("at the disco")
			}
			return hitList{{string(peer), 0}}, nil
		}
		began := time.Now()
		r, err := Broadcast(t.Context(), &Request{Table: "t", Query: KNN{}, K: 200}, peers, probe, nil)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, 100, len(r.Hits))
		require.Equal(t, 100, r.PeersFailed)
		for i, line := range r.Peers {
			switch i % 4 {
			case 0:
				require.Equal(t, time.Second, line.Elapsed, "it is asked with the others")
			case 1:
				require.Equal(t, ErrGoexit, line.Err)
			case 3:
				require.Zero(t, line.Elapsed, "it is in long before the query ends")
			}
		}
	})
}

// Rule 27: a failure wakes the query at once, however many replies it waits for.
func TestBroadcastActsOnAFailureAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := somePeers(6)
		var points []Point
		for i, peer := range peers {
			points = append(points, Point{uint64(i) << 60, peer})
		}
		probe := func(_ context.Context, peer PeerID, _ *Request) (hitList, error) {
			if peer == peers[1] {
				return nil, errBroke
			}
			time.Sleep(time.Second)
			return hitList{{string(peer), 0}}, nil
		}
		for _, waitAll := range []bool{false, true} {
			opts := &Options{
				Cover: NewCover(NewRing(points...), 2), Standby: []PeerID{peers[0], peers[2]}, WaitAll: waitAll,
			}
			asked := []PeerID{peers[1], peers[3], peers[4], peers[5]}
			r, err := Broadcast(t.Context(), &Request{Table: "t", Query: KNN{}, K: 9}, asked, probe, opts)
			require.NoError(t, err)
			require.Equal(t, 1.0, r.Coverage)
			require.Equal(t, time.Second, r.Elapsed, "waiting for all: %v", waitAll)
		}
	})
}

// Rules 5, 25, 27, 28: what one reply alone decides happens when it is in, however many others are out.
func TestBroadcastActsOnEachReply(t *testing.T) {
	// z holds all of it, and each other peer a third.
	star := NewCover(NewRing(Point{1 << 60, "a"}, Point{2 << 60, "z"}, Point{3 << 60, "b"}, Point{4 << 60, "z"},
		Point{5 << 60, "c"}, Point{6 << 60, "z"}), 2)
	planned := &selection{}
	planned.of(star, ledgerOf([]PeerID{"a", "b", "c"}), []PeerID{"z"})
	planned.minimal, planned.whole = true, true
	fails := func(err error) behave {
		return behave{
			"a": after(time.Second), "b": func(context.Context) (hitList, error) { return nil, err },
			"c": after(time.Second), "d": after(time.Second),
		}
	}
	inPlace := Options{Cover: quarters(), Standby: []PeerID{"a", "c"}, WaitAll: true}
	for name, tt := range map[string]struct {
		peers  []PeerID
		behave behave
		opts   Options
		want   time.Duration
	}{
		"a place within Limit": {
			[]PeerID{"a", "b", "c"},
			behave{"a": after(time.Second), "b": after(3 * time.Second), "c": after(time.Second)},
			Options{Limit: 2}, 3 * time.Second,
		},
		"enough to settle": {
			[]PeerID{"a", "b", "c"},
			behave{"a": after(time.Second), "b": obey, "c": obey},
			Options{Settle: 0.3, Grace: time.Second}, 2 * time.Second,
		},
		"the whole": {
			[]PeerID{"a", "z", "b", "c"},
			behave{"a": obey, "b": obey, "c": obey, "z": after(time.Second)},
			Options{Cover: star}, time.Second,
		},
		"an answer in part":          {[]PeerID{"b", "d"}, fails(ErrPartial), inPlace, time.Second},
		"a timeout of the transport": {[]PeerID{"b", "d"}, fails(context.DeadlineExceeded), inPlace, time.Second},
		"a hedge that holds more than one of the plan": {
			[]PeerID{"a", "b", "c"},
			behave{"a": obey, "b": obey, "c": obey, "z": after(time.Second)},
			Options{Cover: star, Standby: []PeerID{"z"}, Hedging: &Hedging{Delay: time.Second}, selection: planned},
			2 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := Broadcast(t.Context(), testRequest, tt.peers, tt.behave.probe, &tt.opts)
				require.NoError(t, err)
				require.Equal(t, tt.want, r.Elapsed, summary(r))
			})
		})
	}
}

// Rule 27: when a peer of one query was to be hedged against is nothing to the next.
func TestBroadcastHedgePlansAreItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := []PeerID{"off the ring", "c"}
		opts := Options{Cover: quarters(), Standby: []PeerID{"b", "d"}}
		for range 50 {
			opts.Hedging = &Hedging{Delay: time.Minute}
			_, err := Broadcast(t.Context(), testRequest, peers, instantProbe, &opts)
			require.NoError(t, err)
			time.Sleep(time.Hour) // now c's plan would be due

			opts.Hedging = &Hedging{DelayOf: func(peer PeerID) time.Duration {
				if peer == "c" {
					return 0
				}
				return time.Second // when it is looked at who is late
			}}
			b := behave{"b": answer(), "c": obey, "d": answer(), "off the ring": after(2 * time.Second)}
			r, err := Broadcast(t.Context(), testRequest, peers, b.probe, &opts)
			require.NoError(t, err)
			for _, line := range r.Peers {
				require.NotEqual(t, Hedge, line.Role, "%s is asked for c, which has no delay", line.Peer)
			}
		}
	})
}
