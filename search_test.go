package scatter

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Rule 38: one of nine peers takes connections and never answers, the others take 5 ms. The learned
// delay doesn't grow by that.
func TestHungPeerTeachesNoPatience(t *testing.T) {
	for _, opts := range []SearcherOptions{{}, {HedgeShare: -1}, {HedgeDelay: time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			const ms = time.Millisecond
			peers := &switched{d: 5 * ms}
			opts.Seed = 1
			s := newTestSearcher(t, peers.probe, circleCover(3, somePeers(9)...), opts)
			times := searchTimes(t, s, 100)
			require.Equal(t, 5*ms, times[99])
			peers.set(behave{"peer4": obey})
			searchTimes(t, s, 10)
			for range 3 {
				times = searchTimes(t, s, 500)
				require.Equal(t, 5*ms, quantileOf(times, 0.9))
				require.LessOrEqual(t, times[499], 12*ms, "an answer, once in a while after the delay")
			}
			delay := s.hedgeDelay(0, time.Now(), time.Time{})
			require.True(t, 5*ms < delay && delay <= 6250*time.Microsecond+1, "%v", delay)
		})
	}
}

// Rule 38: the delay of hedges. Without HedgeDelay it is a tenth of PeerDeadline or of the time
// left; once 32 answers are known it is their quantile, at least HedgeFloor, at most HedgeDelay.
func TestHedgeDelay(t *testing.T) {
	const ms = time.Millisecond
	now := time.Now()
	for _, tt := range []struct {
		known                  int
		took                   time.Duration
		delay, floor           time.Duration
		quantile               float64
		peerDeadline, timeLeft time.Duration
		least, most            time.Duration
	}{
		{0, 0, 0, 0, 0, 0, 0, 500 * ms, 500 * ms},
		{0, 0, 0, 0, 0, time.Second, 0, 100 * ms, 100 * ms},
		{0, 0, 0, 0, 0, -1, 0, 500 * ms, 500 * ms},
		{0, 0, 0, 0, 0, 0, 2 * time.Second, 200 * ms, 200 * ms},
		{0, 0, 0, 0, 0, time.Second, 2 * time.Second, 100 * ms, 100 * ms},
		{0, 0, 0, 0, 0, 0, 1, 1, 1},
		{31, 10 * ms, 0, 0, 0, 0, 0, 500 * ms, 500 * ms},
		{32, 10 * ms, 0, 0, 0, 0, 0, 10*ms + 1, 12500 * time.Microsecond},
		{32, 10 * ms, 0, 0, -1, 0, 0, 500 * ms, 500 * ms},
		{32, 10 * ms, 50 * ms, 0, -1, 0, time.Millisecond, 50 * ms, 50 * ms},
		{32, 10 * ms, 50 * ms, 20 * ms, 0.5, 0, 0, 20 * ms, 20 * ms},
		{32, 10 * ms, 5 * ms, 0, 0, 0, 0, 5 * ms, 5 * ms},
		{32, 10 * ms, 0, 0, 0, 0, 50 * ms, 5 * ms, 5 * ms},
		{32, 10 * ms, -1, 0, 0, 0, 0, 0, 0},
		{32, 0, 0, 0, 0, 0, 0, 1, 256},
	} {
		s := newTestSearcher(t, instantProbe, nil, SearcherOptions{HedgeDelay: tt.delay, HedgeFloor: tt.floor, HedgeQuantile: tt.quantile})
		for range tt.known {
			s.answers.record(tt.took)
		}
		until := time.Time{}
		if tt.timeLeft > 0 {
			until = now.Add(tt.timeLeft)
		}
		got := s.hedgeDelay(tt.peerDeadline, now, until)
		require.True(t, tt.least <= got && got <= tt.most, "%+v: %v", tt, got)
	}
}

// Rule 36: three hangs put a peer on probation, through the ledger. It is tried after 1 s, 2 s, 4
// s, and its first answer in time ends that.
func TestSearcherProbation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		peers := &switched{d: ms}
		s := newTestSearcher(t, peers.probe, circleCover(3, "a", "b", "c"), SearcherOptions{
			Options: Options{PeerDeadline: 100 * ms}, HedgeDelay: 10 * ms, HedgeQuantile: -1, HedgeShare: -1, Seed: 1,
		})
		began := time.Now()
		var asked []time.Duration // when the bad peer was
		run := func(until time.Duration) {
			for time.Since(began) < until {
				at := time.Since(began)
				r, err := s.Search(t.Context(), testRequest, nil)
				require.NoError(t, err)
				require.False(t, r.Partial)
				for _, p := range r.Peers {
					if p.Peer == "a" && p.Role == Primary && p.Status != Dead {
						asked = append(asked, at)
					}
				}
			}
		}
		run(time.Second)
		require.NotEmpty(t, asked)
		require.Zero(t, s.Stats().Peers[0].ProbationSince)
		for name, bad := range map[string]func(context.Context) (hitList, error){"hangs": obey, "fails": fail(errBroke)} {
			peers.set(behave{"a": bad})
			began, asked = time.Now(), nil
			run(20 * time.Second)
			require.GreaterOrEqual(t, len(asked), 6, name)
			require.LessOrEqual(t, len(asked), 3+5, "%s: three times, then trials after 1, 2, 4 and 8 seconds", name)
			a := s.Stats().Peers[0]
			require.Equal(t, PeerID("a"), a.Peer)
			require.True(t, a.ProbationSince.Equal(began.Add(asked[2])) || a.ProbationSince.After(began.Add(asked[2])), name)
			require.Less(t, a.ProbationSince.Sub(began), asked[3], name)
			require.GreaterOrEqual(t, asked[3]-asked[2], time.Second-20*ms)
			for i := 4; i < len(asked); i++ {
				require.GreaterOrEqual(t, asked[i]-asked[i-1], time.Duration(1<<(i-3))*time.Second-20*ms, "%s: trial %d", name, i-3)
			}
			if name == "hangs" {
				require.GreaterOrEqual(t, a.Late, int64(3))
			} else {
				require.GreaterOrEqual(t, a.Failures, int64(3))
			}
			peers.set(nil)
			began = time.Now()
			run(time.Minute)
			require.Zero(t, s.Stats().Peers[0].ProbationSince, "%s: and its answer ended that", name)
		}
	})
}

// Rule 36: a query whose own time is up early says nothing of its peers; a peer's own time-out
// does, and so does its transport's.
func TestOutcomeOfTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timeout := func(ctx context.Context) (hitList, error) {
			time.Sleep(time.Millisecond)
			return nil, fmt.Errorf("dial: %w", context.DeadlineExceeded)
		}
		for _, tt := range []struct {
			peer     func(context.Context) (hitList, error)
			opts     SearcherOptions
			time     time.Duration
			failures int64
		}{
			{obey, SearcherOptions{HedgeDelay: -1}, time.Second, 0},
			{obey, SearcherOptions{HedgeDelay: time.Minute}, time.Second, 0},
			{obey, SearcherOptions{HedgeDelay: -1, Options: Options{PeerDeadline: time.Second}}, time.Minute, 1},
			{obey, SearcherOptions{HedgeDelay: 500 * time.Millisecond}, time.Second, 1},
			{timeout, SearcherOptions{HedgeDelay: -1}, time.Second, 1},
		} {
			s := newTestSearcher(t, behave{"a": tt.peer}.probe, circleCover(1, "a"), tt.opts)
			ctx, cancel := context.WithTimeout(t.Context(), tt.time)
			r, err := s.Search(ctx, testRequest, nil)
			cancel()
			require.NoError(t, err)
			require.Equal(t, "a:TimedOut", summary(r))
			require.Equal(t, tt.failures, s.Stats().Peers[0].Failures, "%+v", tt.opts)
		}
	})
}

// Rule 37: of 300 wrong queries among right ones, each costs one probe for each peer asked at
// first, and no right one becomes partial, although a peer is down.
func TestWrongQueriesCostOthersNothing(t *testing.T) { synctest.Test(t, testWrongQueries) }

func testWrongQueries(t *testing.T) {
	wrong := fmt.Errorf("unknown field: %w", ErrPermanent)
	probe := func(_ context.Context, peer PeerID, req *Request) (hitList, error) {
		switch {
		case req.Table == "wrong":
			return nil, wrong
		case peer == "peer4":
			return nil, errBroke
		}
		return nil, nil
	}
	s := newTestSearcher(t, probe, circleCover(3, somePeers(9)...), SearcherOptions{Seed: 1, HedgeDelay: -1})
	for range 300 {
		r, err := s.Search(t.Context(), &Request{Table: "wrong", Query: KNN{}, K: 1}, nil)
		require.ErrorIs(t, err, ErrPermanent)
		require.LessOrEqual(t, r.PeersConsulted, 4)
		for _, p := range r.Peers {
			require.Equal(t, Primary, p.Role)
			require.ErrorIs(t, p.Err, ErrPermanent)
		}
		r, err = s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.False(t, r.Partial)
	}
	stats := s.Stats()
	require.Zero(t, stats.Partial-300, "only the wrong ones")
	require.Equal(t, int64(300), stats.Errors)
	for _, p := range stats.Peers {
		if p.Peer != "peer4" {
			require.Zero(t, p.Failures)
			require.Zero(t, p.ProbationSince)
		}
	}
	require.NotZero(t, stats.Fallbacks)
	require.LessOrEqual(t, stats.Fallbacks, 2*stats.Peers[4].Failures, "none of them for a wrong query")
}

// Rule 39: hedges spend nothing of what fallbacks have. All peers are slower than the delay, so the
// purse of hedges is empty; then one of nine refuses, and each answer is whole.
func TestHedgesLeaveFallbacksAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		peers := &switched{d: 4 * ms}
		s := newTestSearcher(t, peers.probe, circleCover(3, somePeers(9)...), SearcherOptions{
			HedgeDelay: ms, HedgeQuantile: -1, Seed: 1,
		})
		searchTimes(t, s, 1000)
		stats := s.Stats()
		require.Less(t, stats.HedgePurse, 3.0)
		require.Equal(t, 100.0, stats.FallbackPurse)
		require.LessOrEqual(t, float64(stats.Hedges), 100+defaultHedgeShare*float64(stats.Probes))
		peers.set(behave{"peer4": fail(errBroke)})
		searchTimes(t, s, 1000)
		require.NotZero(t, s.Stats().Fallbacks)
		require.Greater(t, s.Stats().FallbackPurse, 90.0)
	})
}

// Rule 27: when the whole cluster slows down, hedges stay within their share of the probes.
func TestSearcherHedgeShare(t *testing.T) {
	for _, share := range []float64{0, 0.1, -1} {
		synctest.Test(t, func(t *testing.T) {
			const ms = time.Millisecond
			peers := &switched{d: ms}
			s := newTestSearcher(t, peers.probe, circleCover(3, somePeers(12)...), SearcherOptions{
				HedgeDelay: 10 * ms, HedgeQuantile: -1, HedgeShare: share, Seed: 1,
			})
			searchTimes(t, s, 50)
			require.Zero(t, s.Stats().Hedges)
			peers.set(allDo(12, after(300*ms)))
			searchTimes(t, s, 300)
			stats := s.Stats()
			if share < 0 {
				require.Greater(t, stats.Hedges, int64(300*4), "each query hedged against each of its peers")
				return
			}
			if share == 0 {
				share = defaultHedgeShare
			}
			ordinary := float64(stats.Probes - stats.Hedges)
			require.LessOrEqual(t, float64(stats.Hedges), share*ordinary+100)
			require.Greater(t, float64(stats.Hedges), share*ordinary, "and they were used")
		})
	}
}

// allDo has some peers do the same.
func allDo(n int, do func(context.Context) (hitList, error)) behave {
	b := behave{}
	for _, peer := range somePeers(n) {
		b[peer] = do
	}
	return b
}

// Rules 36 and 39: one peer of n, or some of twelve of which each range has a live replica, hang or
// refuse. After the first 200 queries no answer is partial, p99 is at most twice a healthy
// cluster's, and there are under 5 % extra probes. -cases 100000 tries 6,000 queries.
func TestSmallCluster(t *testing.T) {
	queries := min(max(*randomCases, 1000), 6000)
	type setting struct {
		n   int
		bad []PeerID
	}
	settings := []setting{{12, []PeerID{"peer1", "peer4"}}, {12, []PeerID{"peer1", "peer2"}}, {12, []PeerID{"peer1", "peer5", "peer9"}}}
	for n := 4; n <= 12; n++ {
		settings = append(settings, setting{n, []PeerID{"peer1"}})
	}
	for _, tt := range settings {
		for name, bad := range map[string]func(context.Context) (hitList, error){"hangs": obey, "refuses": fail(errBroke)} {
			for seed := range uint64(2) {
				synctest.Test(t, func(t *testing.T) {
					const ms = time.Millisecond
					b := behave{}
					for _, peer := range tt.bad {
						b[peer] = bad
					}
					s := newTestSearcher(t, takes(ms, b), circleCover(3, somePeers(tt.n)...), SearcherOptions{
						Options: Options{PeerDeadline: 100 * ms}, HedgeDelay: 10 * ms, Seed: seed + 1,
					})
					for range 200 {
						_, err := s.Search(t.Context(), testRequest, nil)
						require.NoError(t, err)
					}
					before := s.Stats()
					times := searchTimes(t, s, queries)
					after := s.Stats()
					what := fmt.Sprintf("%d peers, %v: %s", tt.n, tt.bad, name)
					require.LessOrEqual(t, quantileOf(times, 0.99), 2*ms, what)
					extra := after.Fallbacks + after.Hedges - before.Fallbacks - before.Hedges
					ordinary := after.Probes - before.Probes - extra
					require.Less(t, float64(extra), 0.05*float64(ordinary), what)
				})
			}
		}
	}
}

// Rule 35: Cost is a factor by which a caller prefers its own zone, as long as that is healthy.
func TestCostByZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		zones := [][]PeerID{{"a0", "a1", "a2", "a3"}, {"b0", "b1", "b2"}, {"c0", "c1"}}
		var racks []*Cover
		for _, zone := range zones {
			racks = append(racks, circleCover(1, zone...))
		}
		peers := &switched{d: ms}
		s := newTestSearcher(t, peers.probe, JoinCovers(racks...), SearcherOptions{
			Options: Options{PeerDeadline: 50 * ms}, Seed: 1, HedgeDelay: 5 * ms,
			Cost: func(peer PeerID) float64 { return map[byte]float64{'a': 1000, 'b': 1, 'c': 1000}[peer[0]] },
		})
		outside := func(n int) (share float64) {
			out, all := 0, 0
			for range n {
				r, err := s.Search(t.Context(), testRequest, nil)
				require.NoError(t, err)
				require.False(t, r.Partial)
				for _, p := range r.Peers {
					all++
					out += int(count(p.Peer[0] != 'b'))
				}
			}
			return float64(out) / float64(all)
		}
		outside(50)
		require.Less(t, outside(500), 0.02)
		peers.set(behave{"b1": fail(errBroke)})
		outside(10)
		share := outside(500)
		require.True(t, 0.2 < share && share < 0.7, "the others of the zone are asked still: %v", share)
		peers.set(nil)
		time.Sleep(time.Minute)
		outside(50)
		require.Less(t, outside(500), 0.02)
	})
}

// Affinity: equal texts ask the same peers while these are healthy, and different ones share the
// load. When a peer is dead, only what it held is asked of others.
func TestSearcherAffinity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := &switched{d: time.Millisecond}
		s := newTestSearcher(t, peers.probe, circleCover(3, somePeers(12)...), SearcherOptions{Seed: 1})
		other := newTestSearcher(t, peers.probe, circleCover(3, somePeers(12)...), SearcherOptions{})
		chosen := func(s stringSearcher, text string, live Liveness) (asked []PeerID) {
			r, err := s.Search(t.Context(), testRequest, &Options{Affinity: text, Live: live})
			require.NoError(t, err)
			require.False(t, r.Partial)
			for _, p := range r.Peers {
				if p.Status != Dead {
					asked = append(asked, p.Peer)
				}
			}
			return asked
		}
		load := map[PeerID]int{}
		for i := range 300 {
			text := fmt.Sprint("user ", i)
			first := chosen(s, text, nil)
			_, err := s.Search(t.Context(), testRequest, nil)
			require.NoError(t, err)
			require.Equal(t, first, chosen(s, text, nil))
			require.Equal(t, first, chosen(other, text, nil), "whatever the Seed")
			for _, peer := range first {
				load[peer]++
			}
			kept := 0
			for _, peer := range chosen(s, text, allBut(first[0])) {
				kept += int(count(slices.Contains(first, peer)))
			}
			require.GreaterOrEqual(t, kept, len(first)-3)
			require.Equal(t, first, chosen(s, text, nil))
		}
		require.Len(t, load, 12)
		for peer, n := range load {
			require.InDelta(t, 300*4.5/12, n, 60, "%v", peer)
		}
	})
}

// Rules 28 and 40: LearnReserve keeps back what the ends of queries have taken lately: the merge,
// and what the ledger and the Response take. It is never more than half of the time left.
func TestLearnReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		search := func(s stringSearcher) *Response[Hit[string]] {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			r, err := s.Search(ctx, testRequest, nil)
			require.NoError(t, err)
			return r
		}
		for _, tt := range []struct {
			learn       bool
			reserve     time.Duration
			took        time.Duration
			least, most time.Duration
		}{
			{false, 0, 100 * ms, time.Second, time.Second},
			{true, 0, 100 * ms, 875 * ms, 925 * ms},
			{true, 500 * ms, 100 * ms, 500 * ms, 500 * ms},
			{true, 0, time.Hour, 500 * ms, 500 * ms},
		} {
			b := behave{"a": answer(), "b": obey}
			s := newTestSearcher(t, b.probe, circleCover(1, "a", "b"), SearcherOptions{
				Options: Options{MergeReserve: tt.reserve}, LearnReserve: tt.learn,
			})
			for range 2 * learnObserved { // as if: in a bubble a merge takes no time
				s.merges.record(tt.took)
			}
			r := search(s)
			require.Equal(t, "a:Answered b:TimedOut", summary(r))
			require.True(t, tt.least <= r.Elapsed && r.Elapsed <= tt.most, "%+v: %v", tt, r.Elapsed)
		}
		s := newTestSearcher(t, behave{"a": after(400 * ms)}.probe, circleCover(1, "a"), SearcherOptions{LearnReserve: true})
		for range 3 * learnObserved {
			s.merges.record(time.Hour)
			require.False(t, search(s).Partial, "one long merge costs nobody his answer")
		}
	})
}

// Rules 38 and 42: 50 queries that wait for hung peers without budget wake up a few times, not all
// the time.
func TestWaitingQueriesAreIdle(t *testing.T) {
	s := newTestSearcher(t, instantProbe, circleCover(3, somePeers(12)...), SearcherOptions{Seed: 1, HedgeDelay: time.Nanosecond, HedgeQuantile: -1})
	for range 50 {
		for s.purses.hedge.takeAll(1) { // all is spent
		}
		st := newStepper(t, s, nil)
		until := epoch.Add(time.Second)
		st.c.Begin(epoch, until)
		steps := 0
		for st.c.State() != Merging {
			at, ok := st.c.Deadline()
			require.True(t, ok)
			st.c.Advance(at)
			steps++
		}
		require.LessOrEqual(t, steps, 4*15, "for each peer asked, one for each doubling from a millisecond to a second")
		require.NotContains(t, fmt.Sprint(st.names()), "Hedge")
	}
}

// Rule 35: a Coordinator of a Searcher learns as Search does, by the times that it is given, and is
// reproducible.
func TestSearcherCoordinatorSteps(t *testing.T) {
	const ms = time.Millisecond
	run := func() (asked []string) {
		s := newTestSearcher(t, nobody(t), circleCover(3, somePeers(6)...), SearcherOptions{Seed: 3, HedgeDelay: 10 * ms})
		for i := range 100 {
			st := newStepper(t, s, nil)
			now := epoch.Add(time.Duration(i) * time.Second)
			st.c.Begin(now, time.Time{})
			for j := 0; j < len(st.asks); j++ {
				if st.asks[j].Peer == "peer2" {
					st.c.Reply(now, st.asks[j].Index, nil, errBroke)
				} else {
					st.c.Reply(now.Add(ms), st.asks[j].Index, hitList{{string(st.asks[j].Peer), 1}}, nil)
				}
			}
			require.Equal(t, Merging, st.c.State())
			require.NoError(t, st.c.Err())
			require.False(t, st.c.Response().Partial)
			asked = append(asked, fmt.Sprint(st.names()))
		}
		stats := s.Stats()
		require.Equal(t, int64(100), stats.Queries)
		require.NotZero(t, stats.Fallbacks)
		for _, p := range stats.Peers {
			require.Zero(t, p.InFlight)
			if p.Peer != "peer2" {
				require.InEpsilon(t, ms, p.P50, 0.25)
			}
		}
		return asked
	}
	asked := run()
	require.Equal(t, asked, run())
	require.Contains(t, fmt.Sprint(asked), "Fallback")
}

// Choosing and learning allocate nothing for each reply: a query with ten times as many peers makes
// no more allocations, but for larger ones.
func TestSearcherAllocations(t *testing.T) {
	allocations := func(n int) float64 {
		async := func(_ context.Context, _ PeerID, _ *Request, done func([]Hit[string], error)) { done(nil, nil) }
		s, err := NewSearcherAsync(async, circleCover(3, somePeers(n)...), &SearcherOptions{Seed: 1})
		require.NoError(t, err)
		defer func() { assert.NoError(t, s.Close(context.Background())) }()
		var consulted int
		all := testing.AllocsPerRun(100, func() {
			r, err := s.Search(context.Background(), testRequest, nil)
			if err != nil || r.Partial {
				t.Error(r, err)
			}
			consulted = r.PeersConsulted
		})
		cover, peers := circleCover(3, somePeers(n)...), somePeers(n)[:consulted]
		plain := testing.AllocsPerRun(100, func() {
			_, _ = BroadcastAsync(context.Background(), testRequest, peers, async, &Options{Cover: cover})
		})
		t.Logf("%d peers: %v allocations, a Broadcast to as many %v", n, all, plain)
		return all - plain
	}
	require.LessOrEqual(t, allocations(300), allocations(30)+3)
}
