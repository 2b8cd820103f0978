package scatter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
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
	"golang.org/x/sync/semaphore"
)

// circle is a ring of peers with one point each, at even distances, so that with r replicas each peer can stand in for
// the r-1 beside it.
func circle(peers ...PeerID) *Ring {
	points := make([]Point, len(peers))
	for i, peer := range peers {
		points[i] = Point{uint64(i) * (math.MaxUint64 / uint64(len(peers))), peer}
	}
	return NewRing(points...)
}

// newTestSearcher returns a Searcher that is closed, and has nothing running any more, when the test ends.
func newTestSearcher(
	t testing.TB, probe Probe[Hit[string]], ring *Ring, opts SearcherOptions,
) *Searcher[Hit[string], string] {
	t.Helper()
	s, err := NewSearcher(probe, ring, &opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close(context.Background())) })
	return s
}

// Rule 11, of a Searcher: a bad argument is an error that names it and its value.
func TestSearcherArguments(t *testing.T) {
	_, err := NewSearcher[Hit[string]](nil, nil, nil)
	require.EqualError(t, err, "scatter: probe is nil")
	for want, opts := range map[string]SearcherOptions{
		"Cover":                            {Options: Options{Cover: quarters()}},
		"Standby is [a]":                   {Options: Options{Standby: []PeerID{"a"}}},
		"Hedging is {Delay:1s":             {Options: Options{Hedging: &Hedging{Delay: time.Second}}},
		"Options.Limit is -1":              {Options: Options{Limit: -1}},
		"Options.Require is 2":             {Options: Options{Require: 2}},
		"Replicas is -1":                   {Replicas: -1},
		"HedgeQuantile is 1":               {HedgeQuantile: 1},
		"HedgeQuantile is NaN":             {HedgeQuantile: math.NaN()},
		"HedgeFloor is -1ns":               {HedgeFloor: -1},
		"HedgeShare is 1.5":                {HedgeShare: 1.5},
		"HedgeShare is NaN":                {HedgeShare: math.NaN()},
		"SearcherOptions.HedgeBurst is -2": {HedgeBurst: -2},
	} {
		s, err := NewSearcher(instantProbe, nil, &opts)
		require.ErrorContains(t, err, want)
		require.Nil(t, s)
	}

	s, err := NewSearcher(instantProbe, circle("a"), nil)
	require.NoError(t, err)
	resp, err := s.Search(t.Context(), nil)
	require.EqualError(t, err, "scatter: Request is nil")
	require.Nil(t, resp)
	require.Equal(t, int64(1), s.Stats().Errors)
}

// An empty ring holds nothing, so nothing of it is known; a later one does.
func TestSearcherEmptyRing(t *testing.T) {
	s := newTestSearcher(t, instantProbe, nil, SearcherOptions{Replicas: 3})
	r, err := s.Search(t.Context(), testRequest)
	require.NoError(t, err)
	require.True(t, r.Partial)
	require.Len(t, r.Missing, 1)
	s.SetRing(circle("a", "b"))
	r, err = s.Search(t.Context(), testRequest)
	require.NoError(t, err)
	require.False(t, r.Partial)
	require.Equal(t, "a", ids(r.Hits))
}

// Rule 29: with three replicas, a dead peer, one that hangs and one that fails leave each answer whole, and keep nobody
// waiting.
func TestSearcherWholeWithoutSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
			switch peer {
			case "peer3":
				<-ctx.Done()
				return nil, ctx.Err()
			case "peer6":
				return nil, errBoom
			}
			time.Sleep(5 * time.Millisecond)
			return hitList{{ID: string(peer)}}, nil
		}
		s := newTestSearcher(t, probe, circle(somePeers(10)...), SearcherOptions{
			Replicas: 3, Live: down("peer0"), HedgeDelay: 20 * time.Millisecond, HedgeShare: -1, Seed: 7,
		})
		hung, failed := 0, 0
		for range 100 {
			r, err := s.Search(t.Context(), testRequest)
			require.NoError(t, err)
			require.Equal(t, 1.0, r.Coverage)
			require.False(t, r.Partial)
			require.Empty(t, r.Missing)
			require.NotContains(t, summary(r), "peer0:")
			hung += strings.Count(summary(r), "peer3:Spare")
			failed += strings.Count(summary(r), "peer6:Failed")
			// At worst a standby for the hung peer is the failing one, which has standbys then.
			require.LessOrEqual(t, r.Elapsed, 30*time.Millisecond)
		}
		require.NotZero(t, hung)
		require.NotZero(t, failed)
		stats := s.Stats()
		require.Equal(t, int64(100), stats.Queries)
		require.Zero(t, stats.Partial)
		require.NotZero(t, stats.Fallbacks)
		require.NotZero(t, stats.Hedges)
		require.Equal(t, math.Inf(1), stats.Budget)
	})
}

// Rule 29: by default, the budget is enough for a peer that fails again and again without being known to be dead.
func TestSearcherWholeByDefault(t *testing.T) {
	probe := func(_ context.Context, peer PeerID, _ *Request) (hitList, error) {
		if peer == "peer1" {
			return nil, errBoom
		}
		return nil, nil
	}
	s := newTestSearcher(t, probe, circle(somePeers(10)...), SearcherOptions{Replicas: 3, Seed: 1})
	for range 2000 {
		r, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		require.False(t, r.Partial, "%v", r.Missing)
	}
	require.NotZero(t, s.Stats().Fallbacks)
}

// Rule 29: AskAll asks all live peers, and so hedges against none; it needs only some of them.
func TestSearcherAskAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": answer(), "b": obey, "c": answer(), "d": answer()}
		s := newTestSearcher(t, b.probe, circle(b.peers()...), SearcherOptions{
			Replicas: 2, AskAll: true, Live: down("d"), HedgeDelay: 1,
		})
		r, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		require.Equal(t, "a:Answered b:Spare c:Answered", summary(r))
		require.False(t, r.Partial)
		require.Zero(t, r.Elapsed)
		require.Zero(t, s.Stats().Hedges)
	})
}

// With one replica nobody can be spared.
func TestSearcherOneReplica(t *testing.T) {
	s := newTestSearcher(t, instantProbe, circle(somePeers(5)...), SearcherOptions{Live: down("peer2")})
	r, err := s.Search(t.Context(), testRequest)
	require.NoError(t, err)
	require.Equal(t, "peer0:Answered peer1:Answered peer3:Answered peer4:Answered", summary(r))
	require.InDelta(t, 0.8, r.Coverage, 1e-9)
	require.Equal(t, Dead, r.Missing[0].Holders[0].Status)
}

// Rule 29: queries plan; few are asked, all come to be asked alike, the same Seed makes the same plans, and each peer's
// liveness is asked for once in a query.
func TestSearcherPlans(t *testing.T) {
	asked := func(seed uint64) map[PeerID]int {
		var looks atomic.Int32
		live := func(PeerID) bool { looks.Add(1); return true }
		s := newTestSearcher(t, instantProbe, circle(somePeers(30)...), SearcherOptions{
			Replicas: 3, Live: live, Seed: seed,
		})
		times := map[PeerID]int{}
		for range 2 * mostPlans {
			r, err := s.Search(t.Context(), testRequest)
			require.NoError(t, err)
			require.Equal(t, 10, r.PeersConsulted)
			require.Equal(t, int32(30), looks.Swap(0))
			for _, p := range r.Peers {
				times[p.Peer]++
			}
		}
		return times
	}
	times := asked(1)
	require.Equal(t, times, asked(1))
	require.NotEqual(t, times, asked(2))
	require.NotEqual(t, asked(0), asked(0), "0 is a random Seed")
	require.Len(t, times, 30)
	for peer, n := range times {
		require.Less(t, n, 2*mostPlans*10/30*13/10, "%v", peer)
	}
}

// A big ring gets few plans, for each costs much.
func TestSearcherPlanCount(t *testing.T) {
	for _, tt := range []struct {
		points, peers, replicas int
		askAll                  bool
		want                    int
	}{
		{10, 10, 3, false, mostPlans},
		{10, 10, 1, false, 1},
		{10, 10, 3, true, 1},
		{0, 0, 3, false, 1},
		{10_000, 100, 3, false, 34},
		{50_000, 100, 3, false, leastPlans},
	} {
		v := &ringView{Cover: NewCover(NewRing(benchRing(tt.points, max(tt.peers, 1))...), tt.replicas)}
		require.Equal(t, tt.want, v.planCount(tt.askAll), "%+v", tt)
	}
}

// Plans follow liveness, from one query to the next, there and back.
func TestSearcherLiveness(t *testing.T) {
	var dead atomic.Value
	dead.Store(PeerID(""))
	live := func(peer PeerID) bool { return peer != dead.Load() }
	s := newTestSearcher(t, instantProbe, circle(somePeers(9)...), SearcherOptions{Replicas: 3, Live: live, Seed: 1})
	for i := range 200 {
		gone := PeerID(fmt.Sprint("peer", i/5%10)) // peer9 isn't there, so all live then
		dead.Store(gone)
		r, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		require.False(t, r.Partial)
		require.NotContains(t, summary(r), gone)
	}
}

// Rule 29: SetRing while a hundred goroutines search. Each query keeps the ring it began with.
func TestSearcherSetRing(t *testing.T) {
	rings := make([]*Ring, 4)
	for i := range rings {
		peers := somePeers(6 + i)
		for j := range peers {
			peers[j] = PeerID(fmt.Sprint("ring", i, peers[j]))
		}
		rings[i] = circle(peers...)
	}
	s := newTestSearcher(t, instantProbe, rings[0], SearcherOptions{Replicas: 3, HedgeQuantile: 0.9})
	var wg sync.WaitGroup
	var searched atomic.Int32
	for range 100 {
		wg.Go(func() {
			for range 10 {
				r, err := s.Search(t.Context(), testRequest)
				if err != nil || r.Partial || len(r.Peers) == 0 {
					t.Errorf("%v %+v", err, r)
					return
				}
				for _, p := range r.Peers {
					if p.Peer[:5] != r.Peers[0].Peer[:5] {
						t.Error("peers of two rings", summary(r))
					}
				}
				searched.Add(1)
			}
		})
	}
	for i := 0; searched.Load() < 1000 && !t.Failed(); i++ {
		s.SetRing(rings[i%len(rings)])
		s.Stats()
	}
	wg.Wait()
	require.Equal(t, int64(1000), s.Stats().Queries)
	require.NoError(t, s.Close(t.Context()))
}

// Rule 29: what is known of a peer outlives a change of the ring, unless it leaves.
func TestSearcherSetRingKeepsLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": after(time.Second), "b": after(2 * time.Second)}
		s := newTestSearcher(t, b.probe, circle("a", "b"), SearcherOptions{})
		_, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		medians := func() (m []time.Duration) {
			for _, p := range s.Stats().Peers {
				m = append(m, p.P50.Round(500*time.Millisecond))
			}
			return m
		}
		require.Equal(t, []time.Duration{time.Second, 2 * time.Second}, medians())
		s.SetRing(circle("c", "a"))
		require.Equal(t, []time.Duration{0, time.Second}, medians())
		s.SetRing(circle("a", "b"))
		require.Equal(t, []time.Duration{time.Second, 0}, medians())
		s.SetRing(nil)
		require.Empty(t, medians())
	})
}

// Rule 27: a peer is late at the quantile of its own latencies, once enough of them are known; HedgeDelay is the most.
func TestSearcherHedgesByQuantile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Bool
		probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
			if hang.Load() && peer == "peer0" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			time.Sleep(10 * time.Millisecond)
			return nil, nil
		}
		s := newTestSearcher(t, probe, circle(somePeers(3)...), SearcherOptions{
			Replicas: 3, HedgeDelay: time.Second, HedgeQuantile: 0.95, HedgeShare: -1, Seed: 1,
		})
		// search searches until peer0 alone is planned.
		search := func() *Response[Hit[string]] {
			for {
				r, err := s.Search(t.Context(), testRequest)
				require.NoError(t, err)
				require.False(t, r.Partial)
				if r.Peers[0].Peer == "peer0" {
					return r
				}
			}
		}
		hang.Store(true)
		r := search()
		require.Equal(t, 1010*time.Millisecond, r.Elapsed, "not enough is known yet")
		require.Equal(t, Hedge, r.Peers[1].Role)
		s.SetRing(nil)
		s.SetRing(circle(somePeers(3)...)) // forgets

		hang.Store(false)
		for range learnObserved {
			search()
		}
		hang.Store(true)
		r = search()
		require.InEpsilon(t, 20*time.Millisecond, r.Elapsed, 0.25)
		require.Equal(t, Spare, r.Peers[0].Status)
		require.Equal(t, Hedge, r.Peers[1].Role)

		for range 2 * latencyWindow { // by now it is known to hang
			r = search()
		}
		require.LessOrEqual(t, r.Elapsed, 1010*time.Millisecond)
	})
}

func TestSearcherDelay(t *testing.T) {
	const ms = time.Millisecond
	known, instant := &latency{}, &latency{}
	for range learnObserved {
		known.record(10 * ms)
		instant.record(0)
	}
	for _, tt := range []struct {
		delay, floor time.Duration
		of           *latency
		least, most  time.Duration
	}{
		{0, 0, &latency{}, 0, 0},
		{5 * ms, 20 * ms, &latency{}, 5 * ms, 5 * ms},
		{0, 0, known, 8 * ms, 12 * ms},
		{50 * ms, 0, known, 8 * ms, 12 * ms},
		{5 * ms, 0, known, 5 * ms, 5 * ms},
		{0, 20 * ms, known, 20 * ms, 20 * ms},
		{0, 0, instant, 1, 256},
	} {
		s := newTestSearcher(t, instantProbe, nil, SearcherOptions{
			HedgeQuantile: 0.9, HedgeDelay: tt.delay, HedgeFloor: tt.floor,
		})
		got := s.delay(tt.of, tt.delay)
		require.True(t, tt.least <= got && got <= tt.most, "%+v: %v", tt, got)
	}
}

// Rule 27: when the whole cluster slows down, standbys stay within their share of the probes.
func TestSearcherBudget(t *testing.T) {
	for _, share := range []float64{0, 0.05, -1} {
		synctest.Test(t, func(t *testing.T) {
			var slow atomic.Bool
			probe := func(context.Context, PeerID, *Request) (hitList, error) {
				if slow.Load() {
					time.Sleep(time.Second)
				}
				time.Sleep(time.Millisecond)
				return nil, nil
			}
			s := newTestSearcher(t, probe, circle(somePeers(12)...), SearcherOptions{
				Replicas: 3, HedgeDelay: 10 * time.Millisecond, HedgeShare: share, HedgeBurst: 40, Seed: 1,
			})
			search := func(n int) {
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						r, err := s.Search(t.Context(), testRequest)
						if err != nil || r.Partial {
							t.Error(err, r)
						}
					})
				}
				wg.Wait()
			}
			search(50)
			require.Zero(t, s.Stats().Hedges)
			slow.Store(true)
			for range 10 {
				search(50)
			}
			stats := s.Stats()
			require.Equal(t, int64(550), stats.Queries)
			if share < 0 {
				require.Greater(t, stats.Hedges, int64(500*4), "each query hedged against each of its peers")
				return
			}
			if share == 0 {
				share = DefaultHedgeShare
			}
			ordinary := stats.Probes - stats.Hedges
			require.LessOrEqual(t, float64(stats.Hedges), share*float64(ordinary)+40)
			require.Greater(t, float64(stats.Hedges), share*float64(ordinary)*0.8, "and it was used")
			require.InDelta(t, 0, stats.Budget, 1)
		})
	}
}

// Rule 29: what Stats tell is the sum of what the Responses told.
func TestSearcherStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		var mu sync.Mutex
		probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			mu.Lock()
			fate, d := r.IntN(20), time.Duration(r.IntN(50))*time.Millisecond
			mu.Unlock()
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			switch fate {
			case 0:
				return nil, errBoom
			case 1:
				panic(errBoom)
			case 2:
				return nil, ErrPartial
			case 3:
				time.Sleep(time.Second)
			}
			return nil, nil
		}
		s := newTestSearcher(t, probe, circle(somePeers(20)...), SearcherOptions{
			Options:  Options{PeerDeadline: 100 * time.Millisecond, Limit: 5, Require: 0.9},
			Replicas: 3, HedgeDelay: 30 * time.Millisecond, HedgeShare: 0.5, Seed: 1,
		})
		var want Stats
		for range 300 {
			ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
			resp, err := s.Search(ctx, testRequest)
			cancel()
			want.Queries++
			if err != nil {
				want.Errors++
			}
			if resp.Partial {
				want.Partial++
			}
			for _, p := range resp.Peers {
				switch {
				case p.Status == NotAsked:
					continue
				case p.Role == Fallback:
					want.Fallbacks++
				case p.Role == Hedge && p.Status == Answered:
					want.HedgesWon++
				}
				if p.Role == Hedge {
					want.Hedges++
				}
				want.Probes++
			}
		}
		got := s.Stats()
		require.Len(t, got.Peers, 20)
		for i, p := range got.Peers {
			require.Equal(t, PeerID(fmt.Sprint("peer", i)), p.Peer)
			require.True(t, 0 < p.P50 && p.P50 <= p.P95 && p.P95 <= p.P99 && p.P99 < 130*time.Millisecond, "%+v", p)
		}
		for _, n := range []int64{want.Errors, want.Partial, want.Fallbacks, want.Hedges, want.HedgesWon} {
			require.NotZero(t, n)
		}
		want.Budget, want.Peers = got.Budget, got.Peers
		require.Equal(t, want, got)
	})
}

// What merges take is kept back from the deadline.
func TestSearcherLearnReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": answer(), "b": obey}
		for _, tt := range []struct {
			learn   bool
			reserve time.Duration
			least   time.Duration
			most    time.Duration
		}{
			{false, 0, time.Second, time.Second},
			{true, 0, 875 * time.Millisecond, 925 * time.Millisecond},
			{true, 500 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond},
		} {
			s := newTestSearcher(t, b.probe, circle("a", "b"), SearcherOptions{
				Options: Options{Reserve: tt.reserve}, LearnReserve: tt.learn,
			})
			for range 100 { // as if: in a bubble, merging takes no time
				s.opts.Trace.MergeDone(MergeInfo{Lists: 1, Elapsed: 100 * time.Millisecond})
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			r, err := s.Search(ctx, testRequest)
			cancel()
			require.NoError(t, err)
			require.Equal(t, "a:Answered b:TimedOut", summary(r))
			require.True(t, tt.least <= r.Elapsed && r.Elapsed <= tt.most, "%v", r.Elapsed)
		}
	})
}

// The caller's Trace is told as ever.
func TestSearcherTrace(t *testing.T) {
	var started, merged atomic.Int32
	s := newTestSearcher(t, instantProbe, circle("a", "b"), SearcherOptions{Options: Options{Trace: &Trace{
		ProbeStarted: func(ProbeStartInfo) { started.Add(1) },
		MergeDone:    func(MergeInfo) { merged.Add(1) },
	}}})
	_, err := s.Search(t.Context(), testRequest)
	require.NoError(t, err)
	require.Equal(t, []int32{2, 1}, []int32{started.Load(), merged.Load()})
}

// flights is a Searcher of one peer, whose queries for the same table are shared, and the number of its probes.
func flights(t *testing.T, opts Options, probe Probe[Hit[string]]) (*Searcher[Hit[string], string], *atomic.Int32) {
	var probes atomic.Int32
	counted := func(ctx context.Context, peer PeerID, req *Request) (hitList, error) {
		probes.Add(1)
		return probe(ctx, peer, req)
	}
	return newTestSearcher(t, counted, circle("a"), SearcherOptions{
		Options: opts, Key: func(req *Request) string { return req.Table },
	}), &probes
}

func slowly(context.Context, PeerID, *Request) (hitList, error) {
	time.Sleep(time.Second)
	return hitList{{ID: "x"}, {ID: "y"}}, nil
}

// Rule 29: identical requests at the same time are one fan-out, of whose Response each caller has a copy.
func TestSearcherShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, probes := flights(t, Options{}, slowly)
		var responses [5]*Response[Hit[string]]
		var wg sync.WaitGroup
		for i := range responses {
			wg.Go(func() {
				var err error
				responses[i], err = s.Search(t.Context(), testRequest)
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		require.Equal(t, int32(1), probes.Load())
		for i, r := range responses {
			require.Equal(t, "x y", ids(r.Hits))
			require.Equal(t, "a:Answered", summary(r))
			r.Hits[0].ID, r.Peers[0].Peer = fmt.Sprint(i), "z" // is nobody else's
		}
		require.Equal(t, []int64{1, 4}, []int64{s.Stats().Queries, s.Stats().Shared})

		_, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		require.Equal(t, int32(2), probes.Load(), "what has ended is not shared any more")
		require.Empty(t, s.flights)
	})
}

// Rule 29: requests without a Key, or with different ones, are not shared.
func TestSearcherSharesOnlyTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, probes := flights(t, Options{}, slowly)
		var wg sync.WaitGroup
		for _, table := range []string{"", "", "t", "u", "u"} {
			wg.Go(func() {
				r, err := s.Search(t.Context(), &Request{Table: table, Query: KNN{}, K: 1})
				assert.NoError(t, err)
				assert.Equal(t, "x", ids(r.Hits))
			})
		}
		wg.Wait()
		require.Equal(t, int32(4), probes.Load())
	})
}

// Rule 29: what is shared goes on when a caller leaves, the first one too, and ends when all have left.
func TestSearcherSharedAndLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Value
		s, probes := flights(t, Options{}, func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			select {
			case <-time.After(time.Second):
				return hitList{{ID: "x"}}, nil
			case <-ctx.Done():
				ended.Store(context.Cause(ctx))
				return nil, ctx.Err()
			}
		})
		search := func(leave time.Duration, cause error) (*Response[Hit[string]], error) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(leave, func() { cancel(cause) })
			return s.Search(ctx, testRequest)
		}
		var wg sync.WaitGroup
		began := time.Now()
		wg.Go(func() {
			r, err := search(100*time.Millisecond, errBoom)
			assert.ErrorIs(t, err, errBoom)
			assert.Nil(t, r)
			assert.Equal(t, 100*time.Millisecond, time.Since(began))
		})
		wg.Go(func() {
			time.Sleep(50 * time.Millisecond)
			r, err := search(time.Minute, errBoom)
			assert.NoError(t, err)
			assert.Equal(t, "x", ids(r.Hits))
			assert.Equal(t, time.Second, time.Since(began))
		})
		wg.Wait()
		require.Equal(t, int32(1), probes.Load())
		require.Nil(t, ended.Load())

		for _, leave := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond} {
			wg.Go(func() {
				_, err := search(leave, errBoom)
				assert.ErrorIs(t, err, errBoom)
			})
		}
		time.Sleep(200*time.Millisecond - 1)
		require.Nil(t, ended.Load())
		wg.Wait()
		synctest.Wait()
		require.Equal(t, errBoom, ended.Load())
		require.Equal(t, int32(2), probes.Load())

		// Whoever comes next shares nothing with what was cancelled.
		r, err := search(time.Minute, errBoom)
		require.NoError(t, err)
		require.False(t, r.Partial)
	})
}

// Rule 9, of what is shared: each caller has what has arrived by its own deadline.
func TestSearcherSharedDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		merging := &Trace{MergeDone: func(MergeInfo) { time.Sleep(time.Millisecond) }} // callers wait for it
		s, probes := flights(t, Options{Trace: merging}, behave{"a": obey}.probe)
		var wg sync.WaitGroup
		began := time.Now()
		for i, d := range []time.Duration{1000, 1500, 300, 2000} { // the third doesn't join, the others do
			wg.Go(func() {
				time.Sleep(time.Duration(i))
				ctx, cancel := context.WithDeadline(t.Context(), began.Add(d*time.Millisecond))
				defer cancel()
				r, err := s.Search(ctx, testRequest)
				assert.NoError(t, err)
				assert.Equal(t, "a:TimedOut", summary(r))
				assert.Equal(t, (min(d, 1000)+1)*time.Millisecond, time.Since(began))
			})
		}
		wg.Wait()
		require.Equal(t, int32(2), probes.Load())
		require.Equal(t, int64(2), s.Stats().Shared)

		// One that is over already asks nobody.
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errBoom)
		r, err := s.Search(ctx, testRequest)
		require.ErrorIs(t, err, errBoom)
		require.Equal(t, "a:NotAsked", summary(r))
	})
}

// A shared error carries a Response of each caller's own.
func TestSearcherSharedCoverageError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, probes := flights(t, Options{Require: 1}, func(context.Context, PeerID, *Request) (hitList, error) {
			time.Sleep(time.Second)
			return nil, errBoom
		})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				r, err := s.Search(t.Context(), testRequest)
				var low *CoverageError[Hit[string]]
				if !assert.ErrorAs(t, err, &low) {
					return
				}
				assert.Same(t, r, low.Response)
				assert.Equal(t, "a", string(r.Missing[0].Holders[0].Peer))
				r.Missing[0].Holders[0].Peer = "z"
			})
		}
		wg.Wait()
		require.Equal(t, int32(1), probes.Load())
		require.Equal(t, int64(1), s.Stats().Errors)
	})
}

// Many callers, few keys, short lives: whatever meets whatever, an answer is an answer.
func TestSearcherSharesUnderStress(t *testing.T) {
	s, _ := flights(t, Options{}, func(ctx context.Context, _ PeerID, req *Request) (hitList, error) {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		return hitList{{ID: req.Table}}, ctx.Err()
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				leave := time.AfterFunc(time.Duration(rand.IntN(600))*time.Microsecond, cancel)
				table := fmt.Sprint(rand.IntN(3))
				r, err := s.Search(ctx, &Request{Table: table, Query: KNN{}, K: 1})
				if err == nil && (r.Partial || ids(r.Hits) != table) || err != nil && ctx.Err() == nil {
					t.Error(err, r)
				}
				leave.Stop()
				cancel()
			}
		})
	}
	wg.Wait()
	require.NoError(t, s.Close(t.Context()))
	require.Empty(t, s.flights)
}

// Rule 29: Close cancels what runs, by its cause, and waits for it; later queries have ErrClosed.
func TestSearcherClose(t *testing.T) {
	for _, key := range []func(*Request) string{nil, func(*Request) string { return "k" }} {
		synctest.Test(t, func(t *testing.T) {
			var cause atomic.Value
			var returned atomic.Bool
			probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
				if peer == "a" {
					return hitList{{ID: "x"}}, nil
				}
				<-ctx.Done()
				cause.Store(context.Cause(ctx))
				time.Sleep(time.Second) // it takes its time
				returned.Store(true)
				return nil, ctx.Err()
			}
			s := newTestSearcher(t, probe, circle("a", "b"), SearcherOptions{
				Options: Options{PeerDeadline: time.Hour}, Key: key,
			})
			var wg sync.WaitGroup
			began := time.Now()
			for range 2 {
				wg.Go(func() {
					r, err := s.Search(t.Context(), testRequest)
					assert.Equal(t, ErrClosed, err)
					assert.Equal(t, "x", ids(r.Hits), "what has arrived")
					assert.Equal(t, "a:Answered b:Abandoned", summary(r))
					assert.Equal(t, time.Minute, time.Since(began))
				})
			}
			time.Sleep(time.Minute)
			require.NoError(t, s.Close(t.Context()))
			require.True(t, returned.Load(), "late probes have returned too")
			require.Equal(t, ErrClosed, cause.Load())
			require.Equal(t, time.Minute+time.Second, time.Since(began))
			wg.Wait()

			r, err := s.Search(t.Context(), testRequest)
			require.Equal(t, ErrClosed, err)
			require.Nil(t, r)
			s.SetRing(circle("b"))
			require.NoError(t, s.Close(t.Context()))
			require.NotZero(t, s.Stats().Queries)
		})
	}
}

// Rule 29: Close waits for a probe that outlives its query, but not longer than its context allows; it can wait again.
func TestSearcherCloseLateProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSearcher(t, behave{"a": after(time.Minute)}.probe, circle("a"), SearcherOptions{
			Options: Options{PeerDeadline: time.Second},
		})
		r, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut", summary(r))

		began := time.Now()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errBoom)
		defer cancel()
		require.Equal(t, errBoom, s.Close(ctx))
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, s.Close(t.Context()))
		require.Equal(t, 59*time.Second, time.Since(began))
	})
}

// Rule 12, of a Searcher: however a probe ends, Close doesn't wait for it any more.
func TestSearcherCloseAfterBadProbes(t *testing.T) {
	b := behave{"a": func(context.Context) (hitList, error) { panic(errBoom) }, "b": answer()}
	s := newTestSearcher(t, b.probe, circle("a", "b"), SearcherOptions{})
	r, err := s.Search(t.Context(), testRequest)
	require.NoError(t, err)
	require.ErrorIs(t, r.Peers[0].Err, errBoom)
	require.NoError(t, s.Close(t.Context()))
}

// Close comes between queries that begin, run and end, and lets none through after it.
func TestSearcherCloseWhileSearching(t *testing.T) {
	for range 20 {
		var running atomic.Int32
		s := newTestSearcher(t, func(context.Context, PeerID, *Request) (hitList, error) {
			defer running.Add(-1)
			running.Add(1)
			time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond)
			return nil, nil
		}, circle("a", "b", "c"), SearcherOptions{Replicas: 2})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for {
					if _, err := s.Search(t.Context(), testRequest); errors.Is(err, ErrClosed) {
						return
					}
				}
			})
		}
		time.Sleep(time.Millisecond)
		if err := s.Close(t.Context()); err != nil || running.Load() != 0 {
			t.Errorf("%v, %d probes run on", err, running.Load())
		}
		wg.Wait()
	}
}

// Claim: a Searcher adds little to the Broadcast of its plan, and with three replicas asks a third of the peers.
func BenchmarkSearcher(b *testing.B) {
	ctx := context.Background()
	for _, n := range []int{10, 100} {
		ring := circle(somePeers(n)...)
		cover := NewCover(ring, 3)
		run := func(impl string, search func() (*Response[Hit[string]], error)) {
			b.Run(fmt.Sprintf("peers=%d/impl=%s", n, impl), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if r, err := search(); err != nil || r.Partial {
						b.Fatal(r, err)
					}
				}
			})
		}
		for impl, opts := range map[string]SearcherOptions{
			"searcher":        {Replicas: 3, Seed: 1},
			"searcher/hedges": {Replicas: 3, Seed: 1, HedgeQuantile: 0.95, HedgeFloor: time.Second},
			"searcher/all":    {Replicas: 3, AskAll: true},
		} {
			s := newTestSearcher(b, instantProbe, ring, opts)
			run(impl, func() (*Response[Hit[string]], error) { return s.Search(ctx, testRequest) })
		}
		plan := cover.Plan(nil, 1)
		standby := ring.PrimaryPeers(func(peer PeerID) bool { return !slices.Contains(plan, peer) })
		run("broadcast", func() (*Response[Hit[string]], error) {
			return Broadcast(ctx, testRequest, plan, instantProbe, &Options{Cover: cover})
		})
		run("broadcast/standby", func() (*Response[Hit[string]], error) {
			return Broadcast(ctx, testRequest, plan, instantProbe, &Options{Cover: cover, Standby: standby})
		})
		run("broadcast/all", func() (*Response[Hit[string]], error) {
			return Broadcast(ctx, testRequest, ring.peers, instantProbe, &Options{Cover: cover})
		})
	}
}

// Rule 27: hedging needs no option: a peer is late after a tenth of what it has, of the query's time if that is less.
func TestSearcherHedgesByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": obey, "b": answer(Hit[string]{"x", 1})}
		for _, tt := range []struct {
			opts SearcherOptions
			ctx  time.Duration
			want time.Duration
		}{
			{SearcherOptions{}, time.Hour, DefaultPeerDeadline / 10},
			{SearcherOptions{Options: Options{PeerDeadline: time.Second}}, time.Hour, 100 * time.Millisecond},
			{SearcherOptions{Options: Options{PeerDeadline: -1}}, time.Hour, DefaultPeerDeadline / 10},
			{SearcherOptions{}, time.Second, 100 * time.Millisecond},
			{SearcherOptions{HedgeQuantile: 0.9}, time.Second, 500 * time.Millisecond},
		} {
			tt.opts.Replicas, tt.opts.Seed = 2, 1
			s := newTestSearcher(t, b.probe, circle("a", "b"), tt.opts)
			for hedged := false; !hedged; { // until a alone is planned
				ctx, cancel := context.WithTimeout(t.Context(), tt.ctx)
				r, err := s.Search(ctx, testRequest)
				cancel()
				require.NoError(t, err)
				require.False(t, r.Partial)
				if hedged = r.Peers[0].Peer == "a"; hedged {
					require.Equal(t, tt.want, r.Elapsed)
				}
			}
		}
		s := newTestSearcher(t, b.probe, circle("a", "b"), SearcherOptions{Replicas: 2, HedgeDelay: -1})
		require.Zero(t, s.hedging(t.Context(), s.view.Load()).Delay)
	})
}

// Rule 27: latencies that are nearly equal don't make each of them late.
func TestSearcherQuantileOfEqualLatencies(t *testing.T) {
	for d := 100 * time.Microsecond; d < time.Second; d += d / 7 {
		var l latency
		for range 1000 {
			l.record(d)
		}
		require.Greater(t, l.quantileBound(0.5), d)
		require.LessOrEqual(t, l.quantileBound(0.5), d+d/4+1)
	}
	require.Zero(t, new(latency).quantileBound(0.5))
}

// Rule 28: what is kept back is at most a quarter of what is left, however long a merge has taken once.
func TestSearcherLearnsNoMadReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": after(500*time.Millisecond, Hit[string]{"x", 1})}
		s := newTestSearcher(t, b.probe, circle("a"), SearcherOptions{LearnReserve: true})
		for range 2 * learnObserved {
			s.merges.record(time.Hour)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			r, err := s.Search(ctx, testRequest)
			cancel()
			require.NoError(t, err)
			require.Equal(t, "x", ids(r.Hits))
		}
	})
}

// A budget that is larger than can be counted is bounded, and bounds nothing.
func TestSearcherHugeBurst(t *testing.T) {
	b := behave{"a": func(context.Context) (hitList, error) { return nil, errBroke }, "b": answer()}
	s := newTestSearcher(t, b.probe, circle("a", "b"), SearcherOptions{Replicas: 2, HedgeBurst: math.MaxInt, HedgeShare: 1})
	for range 10 {
		r, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		require.False(t, r.Partial)
	}
	require.Greater(t, s.Stats().Budget, 1e9)
}

// A shared query that a hook panics in, or ends the goroutine of, is an error to its callers, and Close doesn't hang.
func TestSearcherSharedHookFails(t *testing.T) {
	fail := map[string]func(){"panic": func() { panic(errBoom) }, "exit": runtime.Goexit}
	for name, fail := range fail {
		synctest.Test(t, func(t *testing.T) {
			s := newTestSearcher(t, instantProbe, circle("a"), SearcherOptions{
				Key:     func(*Request) string { return "k" },
				Options: Options{Trace: &Trace{MergeDone: func(MergeInfo) { fail() }}},
			})
			_, err := s.Search(t.Context(), testRequest)
			if name == "panic" {
				require.ErrorIs(t, err, errBoom)
			} else {
				require.Equal(t, ErrGoexit, err)
			}
			require.EqualValues(t, 1, s.Stats().Queries)
			require.NoError(t, s.Close(t.Context()))
		})
	}
}

// A request is looked at before its Key is asked for.
func TestSearcherChecksBeforeKey(t *testing.T) {
	s := newTestSearcher(t, instantProbe, circle("a"), SearcherOptions{
		Key: func(r *Request) string { return r.Query.(KNN).Field },
	})
	_, err := s.Search(t.Context(), &Request{K: 1})
	require.EqualError(t, err, "scatter: Request.Query is nil")
	_, err = s.Search(t.Context(), nil)
	require.EqualError(t, err, "scatter: Request is nil")
}

// Rule 29: Close has waited for all that a late probe does, its reply being dropped and its unit of Shared given back too.
func TestSearcherCloseWaitsForTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := semaphore.NewWeighted(1)
		var late atomic.Bool
		s := newTestSearcher(t, behave{"a": after(time.Hour)}.probe, circle("a"), SearcherOptions{Options: Options{
			Shared: shared, Trace: &Trace{LateReply: func(LateReplyInfo) { time.Sleep(time.Second); late.Store(true) }},
		}})
		r, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut", summary(r))
		require.NoError(t, s.Close(t.Context()))
		require.True(t, late.Load())
		require.True(t, shared.TryAcquire(1))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for range 100 {
			require.NoError(t, s.Close(ended), "nothing is left to wait for")
		}
	})
}

// Plans are kept for a peer that comes and goes.
func TestSearcherKeepsPlans(t *testing.T) {
	var down atomic.Pointer[PeerID]
	s := newTestSearcher(t, instantProbe, circle(somePeers(9)...), SearcherOptions{
		Replicas: 3, Live: func(p PeerID) bool { d := down.Load(); return d == nil || p != *d },
	})
	view := s.view.Load()
	for range 3 {
		for _, peer := range somePeers(keptPlans - 1) {
			down.Store(nil)
			s.plan(view)
			down.Store(&peer)
			s.plan(view)
		}
	}
	kept := *view.plans.Load()
	require.Len(t, kept, keptPlans)
	for range 20 {
		for _, peer := range somePeers(keptPlans - 1) {
			down.Store(&peer)
			s.plan(view)
		}
	}
	require.ElementsMatch(t, kept, *view.plans.Load(), "none was made anew")
	for _, peer := range somePeers(9) {
		down.Store(&peer)
		s.plan(view)
	}
	require.Len(t, *view.plans.Load(), keptPlans)
}

// Rule 29: each peer's liveness is asked for once in a query, also when it has changed since the last one.
func TestSearcherAsksLiveOnce(t *testing.T) {
	peers := somePeers(5)
	asked, gone := map[PeerID]int{}, PeerID("")
	s := newTestSearcher(t, instantProbe, circle(peers...), SearcherOptions{
		Replicas: 3, Live: func(peer PeerID) bool { asked[peer]++; return peer != gone },
	})
	for i, peer := range []PeerID{"", "peer4", "", "peer0", "peer2", "peer2", "peer4"} {
		gone = peer
		r, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		require.False(t, r.Partial)
		require.Len(t, asked, len(peers))
		for _, peer := range peers {
			require.Equal(t, i+1, asked[peer], "%s in query %d", peer, i)
		}
	}
}

// Rule 24: that all of a plan have answered is not the whole if nobody lives who holds the rest.
func TestSearcherWholeOnlyIfItCanBe(t *testing.T) {
	for _, askAll := range []bool{false, true} {
		s := newTestSearcher(t, instantProbe, circle(somePeers(4)...), SearcherOptions{
			Replicas: 2, AskAll: askAll, Live: down("peer0", "peer1"),
		})
		for range 2 * mostPlans { // each plan, and each again
			r, err := s.Search(t.Context(), testRequest)
			require.NoError(t, err)
			require.InDelta(t, 0.75, r.Coverage, 1e-9)
			require.True(t, r.Partial)
			require.Len(t, r.Missing, 1)
		}
	}
}

// A query never writes to the plan that it has of its Searcher, nor does another in the memory of that query.
func TestSearcherPlansAreNotWritten(t *testing.T) {
	peers := somePeers(5)
	probe := func(_ context.Context, peer PeerID, _ *Request) (hitList, error) {
		if peer == peers[0] {
			return nil, errBroke // so that others are asked in its place
		}
		return nil, nil
	}
	ring := circle(peers...)
	cover := NewCover(ring, 3)
	s := newTestSearcher(t, probe, ring, SearcherOptions{Replicas: 2, HedgeShare: -1})
	slices.Reverse(peers[1:])
	for range mostPlans {
		plan := s.plan(s.view.Load())
		before := plan.selection
		before.numbers, before.ready, before.hoped =
			slices.Clone(before.numbers), slices.Clone(before.ready), slices.Clone(before.hoped)
		all := plan.selection.numbers[:cap(plan.selection.numbers)] // what might be appended, too
		was := slices.Clone(all)
		s.turn.Add(mostPlans - 1) // so that the Search has this plan
		_, err := s.Search(t.Context(), testRequest)
		require.NoError(t, err)
		_, err = Broadcast(t.Context(), testRequest, peers, probe, &Options{Cover: cover})
		require.NoError(t, err)
		require.Equal(t, before, plan.selection)
		require.Equal(t, was, all)
	}
}
