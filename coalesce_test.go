package scatter

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// byTable coalesces the queries of one table.
func byTable(req *Request) string { return req.Table }

// newCoalescing returns a Searcher of some peers, whose queries for the same table are shared, and
// the number of its probes.
func newCoalescing(t *testing.T, opts Options, b behave) (stringSearcher, *atomic.Int32) {
	probes := new(atomic.Int32)
	counted := func(ctx context.Context, peer PeerID, req *Request) (hitList, error) {
		probes.Add(1)
		return b.probe(ctx, peer, req)
	}
	return newTestSearcher(t, counted, circleCover(1, b.peers()...), SearcherOptions{Options: opts, Coalesce: byTable}), probes
}

// call is one call of Search in a test of coalescing.
type call struct {
	begin    time.Duration // after the beginning of the test
	deadline time.Duration // likewise; zero: none
	leave    time.Duration // when it is cancelled, with errBroke; zero: never
	opts     *Options
}

// gotten is what it got.
type gotten struct {
	*Response[Hit[string]]
	err error
	at  time.Duration // when it got it
}

// callAll makes the calls and returns what they got.
func callAll(t *testing.T, s stringSearcher, callers ...call) []gotten {
	t.Helper()
	began, got := time.Now(), make([]gotten, len(callers))
	var wg sync.WaitGroup
	for i, c := range callers {
		wg.Go(func() {
			time.Sleep(c.begin)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if c.deadline > 0 {
				timed, stop := context.WithDeadline(ctx, began.Add(c.deadline))
				defer stop()
				ctx = timed
			}
			if c.leave > 0 {
				defer time.AfterFunc(time.Until(began.Add(c.leave)), func() { cancel(errBroke) }).Stop()
			}
			r, err := s.Search(ctx, testRequest, c.opts)
			got[i] = gotten{r, err, time.Since(began)}
		})
	}
	wg.Wait()
	return got
}

// Rule 41: callers at the same time share one query. Each has a Response of its own.
func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, probes := newCoalescing(t, Options{}, behave{"a": after(time.Second, Hit[string]{"x", 1}, Hit[string]{"y", 2})})
		got := callAll(t, s, make([]call, 5)...)
		require.Equal(t, int32(1), probes.Load())
		for i, r := range got {
			require.NoError(t, r.err)
			require.Equal(t, "x y", ids(r.Hits))
			require.Equal(t, "a:Answered", summary(r.Response))
			r.Hits[0].ID, r.Peers[0].Peer = fmt.Sprint(i), "z" // changes nobody else's
		}
		require.Equal(t, []int64{1, 4}, []int64{s.Stats().Queries, s.Stats().Coalesced})

		_, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.Equal(t, int32(2), probes.Load(), "a query that has ended is not shared")
		require.Empty(t, s.flights.byKey)
	})
}

// Requests with different keys, without one, or with other opts don't share.
func TestCoalesceOnlyTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, probes := newCoalescing(t, Options{}, behave{"a": after(time.Second, Hit[string]{"x", 1})})
		opts := []*Options{nil, {}, {}}
		var wg sync.WaitGroup
		for i, table := range []string{"", "", "t", "u", "u", "u", "v", "v", "v"} {
			wg.Go(func() {
				var o *Options
				if table == "v" {
					o = opts[i%3]
				}
				r, err := s.Search(t.Context(), &Request{Table: table, Query: KNN{}, K: 1}, o)
				assert.NoError(t, err)
				assert.Equal(t, "x", ids(r.Hits))
			})
		}
		wg.Wait()
		require.Equal(t, int32(2+1+1+3), probes.Load())
	})
}

// Rule 41: each caller has at its own deadline what has arrived by then, merged. One with a later
// deadline, or without one, isn't cut off by the first caller's.
func TestCoalesceDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		s, probes := newCoalescing(t, Options{}, behave{
			"a": after(50*ms, Hit[string]{"x", 1}), "b": after(400*ms, Hit[string]{"y", 2}), "c": after(2*time.Second, Hit[string]{"z", 3}),
		})
		got := callAll(t, s,
			call{deadline: 300 * ms}, call{begin: 10 * ms, deadline: 100 * ms}, call{begin: 20 * ms, deadline: 500 * ms},
			call{begin: 40 * ms}, call{begin: 30 * ms, deadline: 20 * time.Second}, call{begin: 45 * ms, deadline: 450 * ms})
		require.Equal(t, int32(3), probes.Load())
		for i, want := range []struct {
			at   time.Duration
			hits string
			sum  string
		}{
			{300 * ms, "x", "a:Answered b:TimedOut c:TimedOut"},
			{100 * ms, "x", "a:Answered b:TimedOut c:TimedOut"},
			{500 * ms, "x y", "a:Answered b:Answered c:TimedOut"},
			{2000 * ms, "x y z", "a:Answered b:Answered c:Answered"},
			{2000 * ms, "x y z", "a:Answered b:Answered c:Answered"},
			{450 * ms, "x y", "a:Answered b:Answered c:TimedOut"},
		} {
			r := got[i]
			require.NoError(t, r.err)
			require.Equal(t, want.at, r.at, "%d", i)
			require.Equal(t, want.at, r.Elapsed, "%d", i)
			require.Equal(t, want.hits, ids(r.Hits), "%d", i)
			require.Equal(t, want.sum, summary(r.Response), "%d", i)
			require.Equal(t, len(want.hits) < 5, r.Partial)
			for _, p := range r.Peers {
				if p.Status == TimedOut {
					require.ErrorIs(t, p.Err, context.DeadlineExceeded)
					require.Equal(t, want.at, p.Elapsed)
				}
			}
		}
		require.Equal(t, int64(1), s.Stats().Queries)
		require.Zero(t, s.Stats().Partial)
	})
}

// Rule 41: a caller alone with its query gets what Search gives it without Coalesce, and so do the
// Searcher and the trace: the query's time is up, and nothing is cancelled.
func TestCoalesceAloneAtItsDeadline(t *testing.T) {
	for _, coalesce := range []func(*Request) string{nil, byTable} {
		for _, reserve := range []time.Duration{0, 100 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				var cause atomic.Pointer[error]
				var done QueryDoneInfo
				b := behave{"a": answer(Hit[string]{"x", 1}), "b": func(ctx context.Context) (hitList, error) {
					<-ctx.Done()
					why := context.Cause(ctx)
					cause.Store(&why)
					return nil, ctx.Err()
				}}
				s := newTestSearcher(t, b.probe, circleCover(1, "a", "b"), SearcherOptions{Coalesce: coalesce, Options: Options{
					MergeReserve: reserve, Trace: &Trace{QueryDone: func(_ context.Context, info QueryDoneInfo) { done = info }},
				}})
				for range 3 {
					r := callAll(t, s, call{deadline: time.Second})[0]
					require.NoError(t, r.err)
					require.Equal(t, time.Second-reserve, r.at)
					require.Equal(t, "a:Answered b:TimedOut", summary(r.Response))
					require.NoError(t, done.Err)
					require.Equal(t, TimedOut, done.Peers[1].Status)
				}
				synctest.Wait()
				require.Equal(t, context.DeadlineExceeded, *cause.Load())
				stats := s.Stats()
				require.Equal(t, []int64{3, 3, 0}, []int64{stats.Queries, stats.Partial, stats.Errors})
				require.Equal(t, int64(3), stats.Peers[1].Failures, "Rule 36")
				require.NotZero(t, stats.Peers[1].ProbationSince)
			})
		}
	}
}

// Rule 41: MergeReserve and MinCoverage are judged for each caller at its own time. Each
// CoverageError has its caller's Response.
func TestCoalesceCoverageErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		s, _ := newCoalescing(t, Options{MinCoverage: 0.5, MergeReserve: 10 * ms}, behave{
			"a": after(200*ms, Hit[string]{"x", 1}), "b": after(time.Hour), "c": after(300*ms, Hit[string]{"y", 1}),
		})
		got := callAll(t, s, call{deadline: 100 * ms}, call{begin: ms, deadline: 250 * ms}, call{begin: ms, deadline: time.Second},
			call{begin: ms, deadline: time.Second})
		for i, at := range []time.Duration{90, 240, 990, 990} {
			require.Equal(t, at*ms, got[i].at)
			if i < 2 {
				var low *CoverageError[Hit[string]]
				require.ErrorAs(t, got[i].err, &low)
				require.Same(t, got[i].Response, low.Response)
			} else {
				require.NoError(t, got[i].err)
			}
		}

		s, probes := newCoalescing(t, Options{MinCoverage: 1}, behave{"a": failAfter(time.Second, errBroke)})
		got = callAll(t, s, make([]call, 3)...)
		for _, r := range got {
			var low *CoverageError[Hit[string]]
			require.ErrorAs(t, r.err, &low)
			require.Same(t, r.Response, low.Response)
			require.Equal(t, []PeerID{"a"}, r.Missing[0].Holders)
		}
		require.NotSame(t, got[0].Response, got[1].Response)
		require.Equal(t, int32(1), probes.Load())
		require.Equal(t, int64(1), s.Stats().Errors)
	})
}

// Rule 41: a query goes on when a caller is cancelled, the first one too. One that is cancelled has
// what has arrived, with its cause. When all have left the query ends with the last one's cause.
func TestCoalesceCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		var ended atomic.Pointer[error]
		b := behave{"a": after(10*ms, Hit[string]{"x", 1}), "b": func(ctx context.Context) (hitList, error) {
			select {
			case <-time.After(time.Second):
				return hitList{{"y", 2}}, nil
			case <-ctx.Done():
				cause := context.Cause(ctx)
				ended.Store(&cause)
				return nil, ctx.Err()
			}
		}}
		s, probes := newCoalescing(t, Options{}, b)
		got := callAll(t, s, call{leave: 100 * ms}, call{begin: 50 * ms, leave: time.Minute})
		require.Equal(t, errBroke, got[0].err)
		require.Equal(t, "a:Answered b:Abandoned", summary(got[0].Response))
		require.Equal(t, "x", ids(got[0].Hits))
		require.Equal(t, 100*ms, got[0].at)
		require.NoError(t, got[1].err)
		require.Equal(t, "x y", ids(got[1].Hits))
		require.Equal(t, time.Second, got[1].at)
		require.Equal(t, int32(2), probes.Load())
		require.Nil(t, ended.Load())

		got = callAll(t, s, call{leave: 100 * ms}, call{leave: 200 * ms}, call{deadline: 150 * ms})
		for i, r := range got {
			require.Equal(t, "x", ids(r.Hits))
			require.Equal(t, time.Duration(100+100*i)*ms, r.at+time.Duration(i/2*150)*ms)
		}
		require.Equal(t, errBroke, got[1].err)
		require.NoError(t, got[2].err)
		synctest.Wait()
		require.Equal(t, errBroke, *ended.Load())
		require.Equal(t, int32(4), probes.Load())
		require.Empty(t, s.flights.byKey)

		// If the last one leaves at its deadline, the query's time is up, although another had
		// more.
		callAll(t, s, call{leave: 100 * ms, deadline: time.Minute}, call{deadline: 200 * ms})
		synctest.Wait()
		require.Equal(t, context.DeadlineExceeded, *ended.Load())

		// The next caller shares nothing with what was cancelled.
		r, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.False(t, r.Partial)
	})
}

// Rule 41: a caller that joins at the very moment at which another leaves, or the query's time is
// up, gets what it would have had alone.
func TestCoalesceJoinAtTheEnd(t *testing.T) {
	for i := range 200 {
		synctest.Test(t, func(t *testing.T) {
			const ms = time.Millisecond
			slow := &Trace{QueryDone: func(context.Context, QueryDoneInfo) { time.Sleep(time.Duration(i%3) * ms) }}
			s, _ := newCoalescing(t, Options{Trace: slow, PeerDeadline: time.Minute}, behave{
				"a": after(10*ms, Hit[string]{"x", 1}), "b": after(time.Second, Hit[string]{"y", 2}),
			})
			first := []call{{deadline: 100 * ms}, {leave: 100 * ms}}[i%2]
			got := callAll(t, s, first, call{begin: 100 * ms}, call{begin: 101 * ms, deadline: 20 * time.Second},
				call{begin: 100 * ms, deadline: 300 * ms})
			for _, r := range got[1:3] {
				require.NoError(t, r.err)
				require.Equal(t, "x y", ids(r.Hits))
			}
			require.NoError(t, got[3].err)
			require.Equal(t, "x", ids(got[3].Hits))
			require.Equal(t, 300*ms, got[3].at.Truncate(10*ms))
		})
	}
}

// The probes and hooks of a shared query have the context values of the caller that began it, and
// none of its deadline.
func TestCoalesceContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var mu sync.Mutex
		var values []any
		note := func(ctx context.Context) {
			mu.Lock()
			defer mu.Unlock()
			values = append(values, ctx.Value(key{}))
		}
		began := time.Now()
		probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			note(ctx)
			deadline, ok := ctx.Deadline()
			assert.True(t, ok)
			assert.Equal(t, began.Add(2*time.Second), deadline, "its own")
			time.Sleep(time.Second)
			return nil, ctx.Err()
		}
		s := newTestSearcher(t, probe, circleCover(1, "a"), SearcherOptions{Coalesce: byTable, Options: Options{
			PeerDeadline: 2 * time.Second, Trace: &Trace{
				QueryStarted: func(ctx context.Context, _ QueryInfo) context.Context { note(ctx); return nil },
				ProbeStarted: func(ctx context.Context, info ProbeInfo) context.Context {
					assert.Equal(t, began.Add(2*time.Second), info.Deadline)
					note(ctx)
					return nil
				},
				ProbeDone: func(ctx context.Context, _ ProbeDoneInfo) { note(ctx) },
				QueryDone: func(ctx context.Context, _ QueryDoneInfo) { note(ctx) },
			},
		}})
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				time.Sleep(time.Duration(i))
				ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, i), time.Duration(500*(i+1))*time.Millisecond)
				defer cancel()
				_, err := s.Search(ctx, testRequest, nil)
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		require.Equal(t, []any{0, 0, 0, 0, 0}, values)
	})
}

// A shared query in which a hook panics, or ends the goroutine, is an error to its callers, and
// Close doesn't hang.
func TestCoalesceHookFails(t *testing.T) {
	for name, fail := range map[string]func(){"panic": func() { panic(errBoom) }, "exit": runtime.Goexit} {
		for at := range 4 {
			synctest.Test(t, func(t *testing.T) {
				hook := func(i int) {
					if i == at {
						fail()
					}
				}
				s, _ := newCoalescing(t, Options{Trace: &Trace{
					QueryStarted: func(context.Context, QueryInfo) context.Context { hook(0); return nil },
					ProbeStarted: func(context.Context, ProbeInfo) context.Context { hook(1); return nil },
					ProbeDone:    func(context.Context, ProbeDoneInfo) { hook(2) },
					QueryDone:    func(context.Context, QueryDoneInfo) { hook(3) },
				}}, behave{"a": after(time.Second), "b": answer()})
				for _, r := range callAll(t, s, make([]call, 3)...) {
					if name == "panic" {
						require.ErrorIs(t, r.err, errBoom)
					} else {
						require.Equal(t, ErrGoexit, r.err)
					}
					require.Nil(t, r.Response)
				}
				require.Empty(t, s.flights.byKey)
				require.NoError(t, s.Close(t.Context()))
			})
		}
	}
}

// panickyOrder is a Query whose Order panics the second time.
type panickyOrder struct{ calls *int }

func (q panickyOrder) Order() Order {
	if *q.calls++; *q.calls == 2 {
		panic(errBoom)
	}
	return ScoreAscending
}

// The caller's own code runs without a lock held: a panic of it leaves the Searcher sound. A
// request is checked before Coalesce is called.
func TestCoalesceCallersCode(t *testing.T) {
	s, _ := newCoalescing(t, Options{}, behave{"a": answer()})
	require.PanicsWithValue(t, errBoom, func() {
		_, _ = s.Search(t.Context(), &Request{Table: "t", Query: panickyOrder{new(int)}, K: 1}, nil)
	})
	_, err := s.Search(t.Context(), testRequest, nil)
	require.NoError(t, err)

	s = newTestSearcher(t, instantProbe, circleCover(1, "a"), SearcherOptions{
		Coalesce: func(r *Request) string { return r.Query.(KNN).Field },
	})
	_, err = s.Search(t.Context(), &Request{K: 1}, nil)
	require.EqualError(t, err, "scatter: Request.Query is nil")
	_, err = s.Search(t.Context(), nil, nil)
	require.EqualError(t, err, "scatter: Request is nil")
	_, err = s.Search(t.Context(), &Request{Query: KNN{Field: "f"}, K: 1}, &Options{Limit: -1})
	require.ErrorContains(t, err, "Options.Limit is -1")
}

// Rule 41, by random callers: each has what has arrived by its own end, and its own error, as if it
// were alone. One of them stays, so all share one query.
func TestCoalesceRandom(t *testing.T) {
	for seed := range uint64(*randomCases) {
		synctest.Test(t, func(t *testing.T) {
			const ms = time.Millisecond
			r := rand.New(rand.NewPCG(seed, 1))
			took, ended, b := map[PeerID]time.Duration{}, time.Duration(0), behave{}
			for i, peer := range somePeers(1 + r.IntN(4)) {
				// Odd times. Callers come and go at even ones, so that nothing is at the same
				// moment.
				took[peer] = time.Duration(11+2*r.IntN(100)) * ms
				b[peer] = after(took[peer], Hit[string]{string(peer), float32(i)})
				ended = max(ended, took[peer])
			}
			s, probes := newCoalescing(t, Options{}, b)
			calls := make([]call, 1+r.IntN(6))
			stays := r.IntN(len(calls))
			for i := range calls {
				c := &calls[i]
				c.begin = time.Duration(2*r.IntN(5)) * ms
				if i != stays && r.IntN(2) == 0 {
					c.deadline = c.begin + time.Duration(12+20*r.IntN(10))*ms
				}
				if i != stays && r.IntN(3) == 0 {
					c.leave = c.begin + time.Duration(14+20*r.IntN(10))*ms
				}
			}
			first := slices.MinFunc(calls, func(a, b call) int { return cmp.Compare(a.begin, b.begin) }).begin
			for i, got := range callAll(t, s, calls...) {
				c, end := calls[i], first+ended
				var want error
				if c.deadline > 0 && c.deadline < end {
					end = c.deadline
				}
				if c.leave > 0 && c.leave < end {
					end, want = c.leave, errBroke
				}
				var hits hitList
				for j, peer := range b.peers() {
					if first+took[peer] <= end {
						hits = append(hits, Hit[string]{string(peer), float32(j)})
					}
				}
				require.Equal(t, want, got.err, "seed %d, caller %d: %+v", seed, i, calls)
				require.Equal(t, hits, got.Hits, "seed %d, caller %d: %+v", seed, i, calls)
				require.Equal(t, end, got.at, "seed %d, caller %d: %+v", seed, i, calls)
			}
			require.Equal(t, len(took), int(probes.Load()))
		})
	}
}

// Many callers, few keys, short lives: each answer is the caller's own.
func TestCoalesceStress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		r := rand.New(rand.NewPCG(1, 2))
		micros := func(n int) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(r.IntN(n)) * time.Microsecond
		}
		s := newTestSearcher(t, func(ctx context.Context, _ PeerID, req *Request) (hitList, error) {
			time.Sleep(micros(300))
			return hitList{{ID: req.Table}}, ctx.Err()
		}, circleCover(1, "a"), SearcherOptions{Coalesce: byTable})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 50 {
					ctx, cancel := context.WithCancel(t.Context())
					leave := time.AfterFunc(micros(600), cancel)
					table := fmt.Sprint(micros(3))
					r, err := s.Search(ctx, &Request{Table: table, Query: KNN{}, K: 1}, nil)
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
		require.Empty(t, s.flights.byKey)
	})
}

// LearnReserve changes what is kept back while callers join: each goes by its query's.
func TestCoalesceLearnReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": obey}
		s := newTestSearcher(t, b.probe, circleCover(1, "a"), SearcherOptions{Coalesce: byTable, LearnReserve: true})
		for range learnObserved {
			s.merges.record(100 * time.Millisecond)
		}
		got := callAll(t, s, call{deadline: time.Second}, call{deadline: time.Second}, call{begin: 1, deadline: 2 * time.Second})
		for i, r := range got {
			deadline := time.Duration(1+i/2) * time.Second
			require.LessOrEqual(t, r.at, deadline-90*time.Millisecond)
			require.GreaterOrEqual(t, r.at, deadline-150*time.Millisecond)
		}
	})
}
