package scatter

import (
	"context"
	"errors"
	"fmt"
	"math"
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

// Rule 11: a bad argument is an error that names it and its value. No option is silently ignored.
func TestNewSearcherArguments(t *testing.T) {
	_, err := NewSearcher[Hit[string]](nil, nil, nil)
	require.EqualError(t, err, "scatter: probe is nil")
	one := func(PeerID) float64 { return 1 }
	for want, opts := range map[string]SearcherOptions{
		"SearcherOptions.Cover is set":             {Options: Options{Cover: quarters()}},
		"Options.Limit is -1":                      {Options: Options{Limit: -1}},
		"Options.MinCoverage is 2":                 {Options: Options{MinCoverage: 2}},
		"HedgeQuantile is 1, must be below":        {HedgeQuantile: 1},
		"HedgeQuantile is NaN":                     {HedgeQuantile: math.NaN()},
		"HedgeFloor is -1ns":                       {HedgeFloor: -1},
		"HedgeFloor is 2s, must not exceed Hedge":  {HedgeFloor: 2 * time.Second, HedgeDelay: time.Second},
		"HedgeDelay, which is 500ms":               {HedgeFloor: 501 * time.Millisecond},
		"which is 100ms":                           {HedgeFloor: time.Second, Options: Options{PeerDeadline: time.Second}},
		"HedgeShare is 1.5":                        {HedgeShare: 1.5},
		"HedgeShare is NaN":                        {HedgeShare: math.NaN()},
		"FallbackShare is 1.5":                     {FallbackShare: 1.5},
		"FallbackShare is NaN":                     {FallbackShare: math.NaN()},
		"HedgeQuantile is 0.5, but a negative":     {HedgeDelay: -1, HedgeQuantile: 0.5},
		"HedgeFloor is 1ns, but a negative HedgeD": {HedgeDelay: -1, HedgeFloor: 1},
		"HedgeShare is 0.5, but a negative":        {HedgeDelay: -1, HedgeShare: 0.5},
		"HedgeFloor is 1ns, but a negative HedgeQ": {HedgeQuantile: -1, HedgeFloor: 1},
	} {
		s, err := NewSearcher(instantProbe, nil, &opts)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "scatter: ")
		require.Nil(t, s)
	}
	for _, opts := range []SearcherOptions{
		{Cost: one}, {HedgeDelay: 1}, {HedgeQuantile: 0.5}, {HedgeFloor: 1}, {HedgeShare: 0.5}, {FallbackShare: 0.5},
		{Options: Options{Affinity: "a"}},
	} {
		opts.AskAll = true
		_, err := NewSearcher(instantProbe, nil, &opts)
		require.ErrorContains(t, err, "AskAll is set, and leaves no use for")
	}
	for _, opts := range []SearcherOptions{
		{HedgeDelay: -1, HedgeQuantile: -1}, {AskAll: true, HedgeDelay: -1, LearnReserve: true}, {HedgeFloor: time.Second, HedgeDelay: time.Second},
		{HedgeShare: -1, FallbackShare: -1}, {HedgeQuantile: math.Inf(-1)},
	} {
		s, err := NewSearcher(instantProbe, nil, &opts)
		require.NoError(t, err, "%+v", opts)
		require.NoError(t, s.Close(t.Context()))
	}
}

// Rule 11, of Search and Coordinator. A call with a bad argument is no query.
func TestSearchArguments(t *testing.T) {
	s := newTestSearcher(t, nobody(t), circleCover(1, "a"), SearcherOptions{AskAll: true})
	for want, tt := range map[string]struct {
		req  *Request
		opts *Options
	}{
		"scatter: Request is nil":                                                  {},
		"scatter: Request.Query is nil":                                            {req: &Request{K: 1}},
		"scatter: Options.Limit is -1, must not be negative":                       {testRequest, &Options{Limit: -1}},
		"scatter: Options.Cover is set, must be nil: the Searcher has one":         {testRequest, &Options{Cover: quarters()}},
		`scatter: Options.Affinity is "u", but the Searcher asks all peers`:        {testRequest, &Options{Affinity: "u"}},
		"scatter: Options.Grace is 1ns, but needs EnoughCoverage, which is 0":      {testRequest, &Options{Grace: 1}},
		"scatter: Options.EnoughCoverage is 0.5, but WaitAll waits for all":        {testRequest, &Options{EnoughCoverage: 0.5, WaitAll: true}},
		"scatter: Options.MergeReserve is -1ns, must not be negative":              {testRequest, &Options{MergeReserve: -1}},
		"scatter: Options.EnoughCoverage is 0.5, must not be below MinCoverage, w": {testRequest, &Options{EnoughCoverage: 0.5, MinCoverage: 1}},
	} {
		resp, err := s.Search(t.Context(), tt.req, tt.opts)
		require.ErrorContains(t, err, want)
		require.Nil(t, resp)
		c, err := s.Coordinator(tt.req, func(Ask) bool { return true }, tt.opts)
		require.ErrorContains(t, err, want)
		require.Nil(t, c)
	}
	_, err := s.Coordinator(testRequest, nil, nil)
	require.EqualError(t, err, "scatter: ask is nil")
	_, err = s.Coordinator(testRequest, func(Ask) bool { return true }, &Options{Semaphore: semaphore.NewWeighted(1)})
	require.ErrorContains(t, err, "Options.Semaphore is set")
	require.Zero(t, s.Stats().Queries)
	require.Zero(t, s.Stats().Errors)
}

// The opts of a Search replace the Searcher's own as a whole.
func TestSearchOptionsReplaceTheSearchers(t *testing.T) {
	traced := 0
	own := Options{Live: allBut("b"), MinCoverage: 1, Trace: &Trace{QueryDone: func(context.Context, QueryDoneInfo) { traced++ }}}
	s := newTestSearcher(t, instantProbe, circleCover(1, "a", "b"), SearcherOptions{Options: own})
	r, err := s.Search(t.Context(), testRequest, nil)
	require.ErrorContains(t, err, "scatter: coverage is 0.5")
	require.Equal(t, "a:Answered b:Dead", summary(r))
	require.Equal(t, 1, traced)
	r, err = s.Search(t.Context(), testRequest, &Options{})
	require.NoError(t, err)
	require.Equal(t, "a:Answered b:Answered", summary(r))
	require.Equal(t, 1, traced)
}

// Rule 29: with three replicas, a dead peer, one that hangs and one that fails leave each answer
// whole, and keep nobody waiting.
func TestSearcherWholeWithoutSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := behave{"peer3": obey, "peer6": fail(errBroke)}
		s := newTestSearcher(t, takes(5*time.Millisecond, bad), circleCover(3, somePeers(10)...), SearcherOptions{
			Options: Options{Live: allBut("peer0")}, HedgeDelay: 20 * time.Millisecond, HedgeShare: -1, FallbackShare: -1, Seed: 7,
		})
		hung, failed := 0, 0
		for range 100 {
			r, err := s.Search(t.Context(), testRequest, nil)
			require.NoError(t, err)
			require.Equal(t, 1.0, r.Coverage)
			require.False(t, r.Partial)
			require.Empty(t, r.Missing)
			require.Equal(t, PeerReport{Peer: "peer0", Status: Dead}, lineOf(t, r, "peer0")) // Rule 31
			for _, p := range r.Peers {
				hung += int(count(p.Late))
				failed += int(count(p.Status == Failed))
				require.True(t, p.Peer == "peer3" || !p.Late, "%+v", r.Peers)
			}
			// At worst the standby for the hung peer is the failing one, which has standbys then.
			require.LessOrEqual(t, r.Elapsed, 30*time.Millisecond)
		}
		require.Contains(t, []int{1, 2, 3}, hung, "Rules 35, 36: others come first, or it is on probation")
		require.NotZero(t, failed) // Rule 35: a failure counts as the whole deadline, so others come first
		stats := s.Stats()
		require.Equal(t, int64(100), stats.Queries)
		require.Zero(t, stats.Partial)
		require.NotZero(t, stats.Fallbacks)
		require.NotZero(t, stats.Hedges)
		require.Equal(t, math.Inf(1), stats.HedgePurse)
		require.Equal(t, math.Inf(1), stats.FallbackPurse)
	})
}

// Rule 29: AskAll asks all live peers, and so hedges against none. It needs only some of them.
func TestSearcherAskAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": answer(), "b": obey, "c": answer(), "d": answer()}
		s := newTestSearcher(t, b.probe, circleCover(2, b.peers()...), SearcherOptions{
			AskAll: true, Options: Options{Live: allBut("d")},
		})
		r, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.Equal(t, "a:Answered b:NotNeeded c:Answered d:Dead", summary(r))
		require.False(t, r.Partial)
		require.Zero(t, r.Elapsed)
		require.Zero(t, s.Stats().Hedges)
	})
}

// Rule 31: what only a dead peer holds is missing. With one replica nobody stands in for it. Below
// MinCoverage that is an error.
func TestSearcherDeadPeersCount(t *testing.T) {
	for _, askAll := range []bool{false, true} {
		s := newTestSearcher(t, instantProbe, circleCover(1, somePeers(5)...), SearcherOptions{
			AskAll: askAll, Options: Options{Live: allBut("peer2"), MinCoverage: 0.9},
		})
		r, err := s.Search(t.Context(), testRequest, nil)
		var low *CoverageError[Hit[string]]
		require.ErrorAs(t, err, &low)
		require.Same(t, r, low.Response)
		require.Equal(t, "peer0:Answered peer1:Answered peer2:Dead peer3:Answered peer4:Answered", summary(r))
		require.Equal(t, PeerReport{Peer: "peer2", Role: Primary, Status: Dead}, r.Peers[2])
		require.Equal(t, 4, r.PeersConsulted)
		require.Zero(t, r.PeersFailed+r.PeersTimedOut)
		require.InDelta(t, 0.8, r.Coverage, 1e-9)
		require.True(t, r.Partial)
		require.Len(t, r.Missing, 1)
		require.Equal(t, []PeerID{"peer2"}, r.Missing[0].Holders)
	}
}

// Rules 24 and 31: if all holders of a range are dead, the answer is Partial in every query, and if
// nobody lives, nobody is asked.
func TestSearcherWholeOnlyIfItCanBe(t *testing.T) {
	for _, askAll := range []bool{false, true} {
		var dead atomic.Pointer[[]PeerID]
		s := newTestSearcher(t, instantProbe, circleCover(2, somePeers(4)...), SearcherOptions{
			AskAll: askAll, Options: Options{Live: func(peer PeerID) bool { return allBut(*dead.Load()...)(peer) }},
		})
		dead.Store(&[]PeerID{"peer0", "peer1"})
		for range 64 {
			r, err := s.Search(t.Context(), testRequest, nil)
			require.NoError(t, err)
			require.InDelta(t, 0.75, r.Coverage, 1e-9)
			require.True(t, r.Partial)
			require.Len(t, r.Missing, 1)
			require.Contains(t, summary(r), "peer0:Dead peer1:Dead peer2:")
		}
		all := somePeers(4)
		dead.Store(&all)
		r, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.Equal(t, "peer0:Dead peer1:Dead peer2:Dead peer3:Dead", summary(r))
		require.Zero(t, r.PeersConsulted)
		require.Zero(t, r.Coverage)
		require.Equal(t, 1.0, r.Missing[0].Share)
	}
}

// Each peer's liveness is asked for once in a query, and choices follow it, there and back.
func TestSearcherAsksLiveOnce(t *testing.T) {
	peers := somePeers(9)
	asked, gone := map[PeerID]int{}, PeerID("")
	s := newTestSearcher(t, instantProbe, circleCover(3, peers...), SearcherOptions{
		Options: Options{Live: func(peer PeerID) bool { asked[peer]++; return peer != gone }}, Seed: 1,
	})
	for i := range 200 {
		gone = PeerID(fmt.Sprint("peer", i/5%10)) // there is no peer9, so all are live then
		r, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.False(t, r.Partial)
		for _, p := range r.Peers {
			require.Equal(t, p.Peer == gone, p.Status == Dead)
		}
		for _, peer := range peers {
			require.Equal(t, i+1, asked[peer], "%s in query %d", peer, i)
		}
	}
}

// Rule 9: a query whose context has ended before it begins asks nobody.
func TestSearcherContextIsOver(t *testing.T) {
	for _, coalesce := range []func(*Request) string{nil, func(*Request) string { return "k" }} {
		s := newTestSearcher(t, nobody(t), circleCover(1, "a"), SearcherOptions{Coalesce: coalesce})
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errBoom)
		r, err := s.Search(ctx, testRequest, nil)
		require.Equal(t, errBoom, err)
		require.True(t, r.Partial)
		require.Zero(t, r.Coverage)
		past, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer stop()
		r, err = s.Search(past, testRequest, nil)
		require.NoError(t, err)
		require.True(t, r.Partial)
	}
}

// Rules 26 and 34: few peers are asked, all are asked alike over many queries, and a Seed makes the
// choices reproducible.
func TestSearcherSeed(t *testing.T) {
	chosen := func(seed uint64) (ledgers []string, times map[PeerID]int) {
		synctest.Test(t, func(t *testing.T) { // where time is reproducible too
			s := newTestSearcher(t, instantProbe, circleCover(3, somePeers(30)...), SearcherOptions{Seed: seed})
			times = map[PeerID]int{}
			for range 300 {
				r, err := s.Search(t.Context(), testRequest, nil)
				require.NoError(t, err)
				require.LessOrEqual(t, r.PeersConsulted, 12, "Rule 35: at most 1.2 times the shortest plan")
				for _, p := range r.Peers {
					times[p.Peer]++
				}
				ledgers = append(ledgers, summary(r))
			}
		})
		return ledgers, times
	}
	ledgers, times := chosen(1)
	again, _ := chosen(1)
	require.Equal(t, ledgers, again)
	other, _ := chosen(2)
	require.NotEqual(t, ledgers, other)
	a, _ := chosen(0)
	b, _ := chosen(0)
	require.NotEqual(t, a, b, "0 is a random Seed")
	require.Len(t, times, 30)
	for peer, n := range times {
		require.InDelta(t, 100, n, 30, "%v", peer)
	}
}

// Rule 29: Close cancels what runs, by its cause, and waits for it. Later queries return ErrClosed.
func TestSearcherClose(t *testing.T) {
	for _, coalesce := range []func(*Request) string{nil, func(*Request) string { return "k" }} {
		synctest.Test(t, func(t *testing.T) {
			before := bubbleGoroutines()
			var cause atomic.Value
			var returned atomic.Bool
			b := behave{"a": answer(Hit[string]{ID: "x"}), "b": func(ctx context.Context) (hitList, error) {
				<-ctx.Done()
				cause.Store(context.Cause(ctx))
				time.Sleep(time.Second) // it takes its time
				returned.Store(true)
				return nil, ctx.Err()
			}}
			s := newTestSearcher(t, b.probe, circleCover(1, "a", "b"), SearcherOptions{
				Options: Options{PeerDeadline: time.Hour}, Coalesce: coalesce,
			})
			var wg sync.WaitGroup
			began := time.Now()
			for range 2 {
				wg.Go(func() {
					r, err := s.Search(t.Context(), testRequest, nil)
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
			require.Equal(t, before, bubbleGoroutines(), "nothing runs after Close")

			r, err := s.Search(t.Context(), testRequest, nil)
			require.Equal(t, ErrClosed, err)
			require.Nil(t, r)
			s.SetCover(circleCover(1, "b"))
			require.NoError(t, s.Close(t.Context()))
			require.NotZero(t, s.Stats().Queries)
			require.Zero(t, s.Stats().Peers[0].InFlight)
		})
	}
}

// Rule 29: Close waits for a probe that outlives its query, but not longer than its context allows.
// It can wait again.
func TestSearcherCloseLateProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSearcher(t, behave{"a": after(time.Minute)}.probe, circleCover(1, "a"), SearcherOptions{
			Options: Options{PeerDeadline: time.Second},
		})
		r, err := s.Search(t.Context(), testRequest, nil)
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

// Rule 29: Close has waited for all that a late probe does: its reply is dropped, its unit of the
// Semaphore is given back.
func TestSearcherCloseWaitsForTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		units := semaphore.NewWeighted(1)
		var late atomic.Bool
		s := newTestSearcher(t, behave{"a": after(time.Hour)}.probe, circleCover(1, "a"), SearcherOptions{Options: Options{
			Semaphore: units,
			Trace:     &Trace{LateReply: func(context.Context, LateReplyInfo) { time.Sleep(time.Second); late.Store(true) }},
		}})
		r, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut", summary(r))
		require.NoError(t, s.Close(t.Context()))
		require.True(t, late.Load())
		require.True(t, units.TryAcquire(1))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for range 100 {
			require.NoError(t, s.Close(ended), "nothing is left to wait for")
		}
	})
}

// Rule 12: however a probe ends, Close doesn't wait for it any more.
func TestSearcherCloseAfterBadProbes(t *testing.T) {
	b := behave{"a": func(context.Context) (hitList, error) { panic(errBoom) }, "b": answer()}
	s := newTestSearcher(t, b.probe, circleCover(1, "a", "b"), SearcherOptions{})
	r, err := s.Search(t.Context(), testRequest, nil)
	require.NoError(t, err)
	require.ErrorIs(t, r.Peers[0].Err, errBoom)
	require.NoError(t, s.Close(t.Context()))
}

// Close comes between queries that begin, run and end, and lets none through after it.
func TestSearcherCloseWhileSearching(t *testing.T) {
	for i := range 20 {
		var running, searched atomic.Int32
		s := newTestSearcher(t, func(context.Context, PeerID, *Request) (hitList, error) {
			defer running.Add(-1)
			running.Add(1)
			return nil, nil
		}, circleCover(2, "a", "b", "c"), SearcherOptions{})
		var wg sync.WaitGroup
		enough := make(chan struct{})
		for range 10 {
			wg.Go(func() {
				for {
					if _, err := s.Search(t.Context(), testRequest, nil); errors.Is(err, ErrClosed) {
						return
					}
					if searched.Add(1) == int32(10*i) {
						close(enough)
					}
				}
			})
		}
		if i > 0 {
			<-enough
		}
		if err := s.Close(t.Context()); err != nil || running.Load() != 0 {
			t.Errorf("%v, %d probes run on", err, running.Load())
		}
		wg.Wait()
	}
}

// A panic in any hook, or in Live or Cost, at any time: it passes to the caller, units come back,
// Close returns, and the next query is sound.
func TestSearcherHookPanics(t *testing.T) {
	for at := range 40 {
		synctest.Test(t, func(t *testing.T) {
			before, units, calls := bubbleGoroutines(), semaphore.NewWeighted(2), 0
			boom := func() {
				if calls++; calls == at {
					panic("hook")
				}
			}
			trace := &Trace{
				QueryStarted: func(context.Context, QueryInfo) context.Context { boom(); return nil },
				ProbeStarted: func(context.Context, ProbeInfo) context.Context { boom(); return nil },
				ProbeDone:    func(context.Context, ProbeDoneInfo) { boom() },
				QueryDone:    func(context.Context, QueryDoneInfo) { boom() },
			}
			bad := behave{"peer1": fail(errBroke), "peer4": after(50 * time.Millisecond)}
			s := newTestSearcher(t, takes(time.Millisecond, bad), circleCover(2, somePeers(9)...), SearcherOptions{
				Options: Options{
					Trace: trace, Semaphore: units, PeerDeadline: 20 * time.Millisecond,
					Live: func(PeerID) bool { boom(); return true },
				},
				Cost: func(PeerID) float64 { boom(); return 1 }, HedgeDelay: 5 * time.Millisecond, Seed: uint64(1 + at%3),
			})
			func() {
				defer func() { assert.Equal(t, at > 0 && calls >= at, recover() != nil) }()
				_, _ = s.Search(t.Context(), testRequest, nil)
			}()
			time.Sleep(time.Second)
			require.True(t, units.TryAcquire(2), "panic %d: units are lost", at)
			units.Release(2)
			calls = 1000
			r, err := s.Search(t.Context(), testRequest, nil)
			require.NoError(t, err)
			require.Equal(t, 1.0, r.Coverage)
			require.NoError(t, s.Close(t.Context()))
			require.Equal(t, before, bubbleGoroutines(), "nothing runs after Close")
		})
	}
}

// Hooks, Live, Cost, Coalesce and probes may call the Searcher back.
func TestSearcherCallBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stringSearcher
		var depth atomic.Int32
		back := func() {
			defer depth.Add(-1)
			if depth.Add(1) > 2 {
				return
			}
			s.Stats()
			s.SetCover(circleCover(2, somePeers(9)...))
			_, _ = s.Search(context.Background(), testRequest, nil)
		}
		var keys atomic.Int32
		probe := func(_ context.Context, peer PeerID, _ *Request) (hitList, error) {
			if peer == "peer3" {
				time.Sleep(time.Second)
			}
			back()
			return nil, nil
		}
		s = newTestSearcher(t, probe, circleCover(2, somePeers(9)...), SearcherOptions{
			Coalesce: func(*Request) string { s.Stats(); return fmt.Sprint("k", keys.Add(1)) },
			Cost:     func(PeerID) float64 { s.Stats(); return 1 },
			Options: Options{PeerDeadline: 100 * time.Millisecond, Live: func(PeerID) bool { s.Stats(); return true }, Trace: &Trace{
				QueryStarted: func(context.Context, QueryInfo) context.Context { back(); return nil },
				ProbeStarted: func(context.Context, ProbeInfo) context.Context { back(); return nil },
				ProbeDone:    func(context.Context, ProbeDoneInfo) { back() },
				QueryDone:    func(context.Context, QueryDoneInfo) { back() },
				LateReply:    func(context.Context, LateReplyInfo) { back() },
			}},
		})
		_, err := s.Search(context.Background(), testRequest, nil)
		require.NoError(t, err)
	})
}

// The caller's Trace is told of a Searcher's query as of a Broadcast.
func TestSearcherTrace(t *testing.T) {
	type key struct{}
	var values []any
	note := func(ctx context.Context) { values = append(values, ctx.Value(key{})) }
	s := newTestSearcher(t, instantProbe, circleCover(1, "a"), SearcherOptions{Options: Options{Trace: &Trace{
		QueryStarted: func(ctx context.Context, _ QueryInfo) context.Context {
			note(ctx)
			return context.WithValue(ctx, key{}, 2)
		},
		ProbeStarted: func(ctx context.Context, _ ProbeInfo) context.Context {
			note(ctx)
			return context.WithValue(ctx, key{}, 3)
		},
		ProbeDone: func(ctx context.Context, _ ProbeDoneInfo) { note(ctx) },
		QueryDone: func(ctx context.Context, _ QueryDoneInfo) { note(ctx) },
	}}})
	_, err := s.Search(context.WithValue(t.Context(), key{}, 1), testRequest, nil)
	require.NoError(t, err)
	require.Equal(t, []any{1, 2, 3, 2}, values)
}

// Many queries at once, with every kind of peer: each answer is whole or says what is missing.
func TestSearcherStress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		r := rand.New(rand.NewPCG(1, 2))
		draw := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return r.IntN(n)
		}
		probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
			select {
			case <-time.After(time.Duration(draw(20)) * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			switch draw(20) {
			case 0:
				return nil, errBroke
			case 1:
				panic(errBoom)
			case 2:
				return obey(ctx)
			}
			return hitList{{string(peer), 1}}, nil
		}
		s := newTestSearcher(t, probe, circleCover(3, somePeers(9)...), SearcherOptions{
			Options: Options{PeerDeadline: 50 * time.Millisecond, Limit: 3, Semaphore: semaphore.NewWeighted(30)},
		})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(draw(100))*time.Millisecond)
					resp, err := s.Search(ctx, testRequest, nil)
					cancel()
					assert.NoError(t, err)
					assert.Equal(t, resp.Partial, resp.Coverage < 1)
					assert.Equal(t, resp.Partial, len(resp.Missing) > 0)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		for _, p := range s.Stats().Peers {
			require.Zero(t, p.InFlight)
			require.NotZero(t, p.Probes)
			require.NotZero(t, p.Failures)
		}
	})
}
