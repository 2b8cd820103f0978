package scatter

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

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
	require.Equal(t, 1.0, r.Coverage)
	require.Equal(t, "a:Answered b:Answered c:Answered", summary(r))
	require.Equal(t, 3, r.PeersConsulted)
}

func TestBroadcastOnePeerGivesItsOwnTopK(t *testing.T) {
	b := behave{"a": answer(Hit[string]{"x", 1}, Hit[string]{"y", 2}, Hit[string]{"z", 3})}
	r, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 2}, b.peers(), b.probe, nil)
	require.NoError(t, err)
	require.Equal(t, "x y", ids(r.Hits))
}

// The answer is in the query's own order, whatever the type of the query.
func TestBroadcastOrders(t *testing.T) {
	for query, want := range map[Query]string{
		knnPointer(ScoreAscending):  "b c a",
		knnPointer(ScoreDescending): "a c b",
		Regex{}:                     "a b c",
		orderedQuery(IDAscending):   "a b c",
	} {
		b := behave{
			"p": answer(Hit[string]{"a", 3}),
			"q": answer(Hit[string]{"c", 2}, Hit[string]{"b", 1}, Hit[string]{"b", 1.5}), // in no order
		}
		r, err := Broadcast(t.Context(), &Request{Query: query, K: 9}, b.peers(), b.probe, nil)
		require.NoError(t, err)
		require.Equal(t, want, ids(r.Hits), "%v", query)
	}
	require.Equal(t, IDAscending, Text{}.Order())
}

// A payload travels with its hit, as a value or behind a pointer. No call has a type argument.
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

// Rule 5: all peers are asked at the same time, and each once. The ledger is in the caller's order.
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
		for i, line := range r.Peers {
			require.Equal(t, peers[i], line.Peer)
			require.Equal(t, time.Second, line.Elapsed)
		}
	})
}

// Rule 5: never more are in flight than Limit, and no fewer while there are peers left.
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

// Rule 6: with a Limit, each peer's deadline starts when its own probe starts. A probe that ignores
// its deadline gives its place to the next one.
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

// Rules 7, 12: each way to fail costs that peer alone, is counted, and says why.
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
	require.InDelta(t, 1./7, r.Coverage, 1e-15)
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

// Rule 7: a peer may say that its hits are not all. They count, and the answer is partial.
func TestBroadcastPartialPeer(t *testing.T) {
	b := behave{"a": func(context.Context) (hitList, error) {
		return hitList{{"y", 2}, {"x", 1}}, fmt.Errorf("its own replica: %w", ErrPartial)
	}}
	r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, nil)
	require.NoError(t, err)
	require.Equal(t, "x y", ids(r.Hits))
	require.Equal(t, "a:Incomplete", summary(r))
	require.True(t, r.Partial)
	require.Zero(t, r.Coverage)
	require.Equal(t, []int{1, 0, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
	require.EqualError(t, r.Peers[0].Err, "its own replica: scatter: the peer's reply is partial")
}

// Rule 7: partial answers pass through a tree of coordinators, whatever a lower one lacks.
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

// Rule 8: no peers is no error, but no whole answer either.
func TestBroadcastNoPeers(t *testing.T) {
	for _, opts := range []*Options{nil, {Cover: quarters()}, {Cover: new(Cover)}, {Limit: 1, EnoughCoverage: 1}} {
		r, err := Broadcast(t.Context(), testRequest, nil, nobody(t), opts)
		require.NoError(t, err)
		require.True(t, r.Partial)
		require.Zero(t, r.Coverage)
		require.Empty(t, r.Hits)
		require.Empty(t, r.Peers)
	}
}

// Rule 11: bad arguments are refused before any probe runs.
func TestBroadcastArguments(t *testing.T) {
	peers := somePeers(1)
	_, err := Broadcast[Hit[string]](t.Context(), testRequest, peers, nil, nil)
	require.EqualError(t, err, "scatter: probe is nil")
	var nilQuery *KNN
	for _, tt := range []struct {
		req  *Request
		want string
	}{
		{nil, "scatter: Request is nil"},
		{&Request{K: 1}, "scatter: Request.Query is nil"},
		{&Request{Query: nilQuery, K: 1}, "scatter: Request.Query is a nil *scatter.KNN"},
		{&Request{Query: KNN{}, K: 0}, "scatter: Request.K is 0, must be at least 1"},
		{&Request{Query: KNN{}, K: -3}, "scatter: Request.K is -3, must be at least 1"},
		{&Request{Query: orderedQuery(9), K: 1}, "scatter: the Order of Request.Query is unknown: scatter.Order(9)"},
	} {
		r, err := Broadcast(t.Context(), tt.req, peers, nobody(t), nil)
		require.EqualError(t, err, tt.want)
		require.Nil(t, r)
	}
}

// Rule 31: the first program that a newcomer runs. One of three unreplicated peers is dead, and it
// has the best hit. The answer says that something is missing, by peers and by ranges, and
// MinCoverage makes that an error.
func TestBroadcastDeadPeersCount(t *testing.T) {
	b := behave{"a": answer(Hit[string]{"1", 1}), "b": answer(Hit[string]{"2", 2})} // nobody asks c
	ring := NewRing(Point{1, "a"}, Point{2, "b"}, Point{3, "c"})
	cover := NewCover(ring, 1)
	for _, tt := range []struct {
		opts     Options
		coverage float64
		low      bool
	}{
		{Options{}, 2. / 3, false},
		{Options{MinCoverage: 0.5}, 2. / 3, false},
		{Options{MinCoverage: 1}, 2. / 3, true},
		{Options{Cover: cover}, 1 - 1./(1<<53), false}, // c holds one token
		{Options{Cover: cover, MinCoverage: 1}, 1 - 1./(1<<53), true},
	} {
		tt.opts.Live = allBut("c")
		r, err := Broadcast(t.Context(), testRequest, ring.Peers(), b.probe, &tt.opts)
		var low *CoverageError[Hit[string]]
		require.Equal(t, tt.low, errors.As(err, &low), "%v", err)
		if tt.low {
			require.Same(t, r, low.Response)
		}
		require.Equal(t, "1 2", ids(r.Hits))
		require.True(t, r.Partial)
		require.Equal(t, tt.coverage, r.Coverage)
		require.Equal(t, "a:Answered b:Answered c:Dead", summary(r))
		require.Equal(t, PeerReport{Peer: "c", Role: Primary, Status: Dead}, r.Peers[2])
		require.Equal(t, []int{2, 0, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
		if tt.opts.Cover != nil {
			require.Equal(t, []MissingRange{{First: 3, Last: 3, Share: 0x1p-64, Holders: []PeerID{"c"}}}, r.Missing)
		}
	}
}

// Rule 31: a dead peer has its line in its place, without a probe and without a place within Limit.
// A query of dead peers alone is empty and Partial. Live is called once for each peer.
func TestBroadcastDeadPeersInPlace(t *testing.T) {
	calls := map[PeerID]int{}
	opts := Options{Limit: 1, Live: func(peer PeerID) bool {
		calls[peer]++
		return peer != "b" && peer != "d"
	}}
	peers := []PeerID{"d", "a", "b", "a", "c", "b"}
	r, err := Broadcast(t.Context(), testRequest, peers, instantProbe, &opts)
	require.NoError(t, err)
	require.Equal(t, "d:Dead a:Answered b:Dead c:Answered", summary(r))
	require.Equal(t, 2, r.PeersConsulted)
	require.Equal(t, 0.5, r.Coverage)
	require.Equal(t, map[PeerID]int{"a": 1, "b": 1, "c": 1, "d": 1}, calls)

	opts = Options{Live: func(PeerID) bool { return false }, Cover: quarters()}
	r, err = Broadcast(t.Context(), testRequest, []PeerID{"a", "b", "c", "d"}, nobody(t), &opts)
	require.NoError(t, err)
	require.Equal(t, "a:Dead b:Dead c:Dead d:Dead", summary(r))
	require.Zero(t, r.PeersConsulted)
	require.Zero(t, r.Coverage)
	require.Len(t, r.Missing, 1)
	require.Equal(t, 1.0, r.Missing[0].Share)
}

// Rule 37: a permanent error ends the query. The peers still out are abandoned for it, those that
// waited are not asked, and what had arrived is returned with it.
func TestBroadcastPermanentError(t *testing.T) {
	permanent := fmt.Errorf("bad query: %w", ErrPermanent)
	for name, opts := range map[string]Options{
		"":             {},
		"MinCoverage":  {MinCoverage: 1}, // the permanent error counts more
		"Limit":        {Limit: 4},
		"Cover":        {Cover: quarters(), WaitAll: true},
		"with Enough":  {EnoughCoverage: 1},
		"no deadlines": {PeerDeadline: -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cause error
				b := behave{
					"a": answer(Hit[string]{"x", 1}),
					"b": failAfter(time.Second, permanent),
					"c": func(ctx context.Context) (hitList, error) {
						<-ctx.Done()
						cause = context.Cause(ctx)
						return nil, cause
					},
					"d": after(2*time.Second, Hit[string]{"y", 2}),
					"e": after(2*time.Second, Hit[string]{"z", 2}),
				}
				want := "a:Answered b:Failed c:Abandoned d:Abandoned e:Abandoned"
				r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &opts)
				require.Equal(t, permanent, err)
				require.Equal(t, want, summary(r))
				require.Equal(t, time.Second, r.Elapsed)
				require.Equal(t, "x", ids(r.Hits))
				require.True(t, r.Partial)
				require.Equal(t, 1, r.PeersFailed)
				require.Equal(t, permanent, r.Peers[1].Err)
				require.Equal(t, permanent, r.Peers[3].Err)
				time.Sleep(time.Hour)
				synctest.Wait()
				require.Equal(t, permanent, cause)

				opts.Limit = 2
				r, err = Broadcast(t.Context(), testRequest, b.peers(), b.probe, &opts)
				require.Equal(t, permanent, err)
				require.Equal(t, "a:Answered b:Failed c:Abandoned d:NotAsked e:NotAsked", summary(r))
				require.Equal(t, permanent, r.Peers[4].Err)
				time.Sleep(time.Hour)
			})
		})
	}
}

// Rule 37: a permanent error is permanent even if it also says ErrPartial, or comes with hits; but
// not if it comes after the deadline.
func TestBroadcastPermanentErrorInOtherWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := fmt.Errorf("%w: %w", ErrPartial, ErrPermanent)
		b := behave{"a": func(context.Context) (hitList, error) { return hitList{{"x", 1}}, both }, "b": obey}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, nil)
		require.Equal(t, both, err)
		require.Equal(t, "a:Failed b:Abandoned", summary(r))
		require.Empty(t, r.Hits)

		b = behave{"a": failAfter(2*time.Second, ErrPermanent), "b": after(3 * time.Second)}
		r, err = Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{PeerDeadline: time.Second})
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut b:TimedOut", summary(r))
		time.Sleep(time.Hour)
	})
}

// Rule 40: a reply is cut to its K best distinct hits when it comes in. What the ledger counts are
// the hits that were merged.
func TestBroadcastCutsReplies(t *testing.T) {
	long := make(hitList, 1000)
	for i := range long {
		long[i] = Hit[string]{fmt.Sprintf("%03d", i/2), float32(i / 2)}
	}
	b := behave{"a": answer(long...), "b": answer(Hit[string]{"x", 0.5})}
	r, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 3}, b.peers(), b.probe, nil)
	require.NoError(t, err)
	require.Equal(t, "000 x 001", ids(r.Hits))
	require.LessOrEqual(t, r.Peers[0].Hits, 6)
	require.GreaterOrEqual(t, r.Peers[0].Hits, 5)
	require.Equal(t, 1, r.Peers[1].Hits)
}

// Rule 4: hits in no order are sorted, and the ledger says so. The probe's slice is not written to.
func TestBroadcastUnsorted(t *testing.T) {
	similar := hitList{{"a", 0.9}, {"b", 0.8}, {"c", 0.7}} // the best first, but the query says otherwise
	b := behave{"a": answer(similar...), "b": answer(Hit[string]{"d", 0.1}, Hit[string]{"e", 0.2}), "c": answer()}
	r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, nil)
	require.NoError(t, err)
	require.Equal(t, "d e c b a", ids(r.Hits))
	require.Equal(t, hitList{{"a", 0.9}, {"b", 0.8}, {"c", 0.7}}, similar)
	require.True(t, r.Peers[0].Unsorted)
	require.False(t, r.Peers[1].Unsorted)
	require.False(t, r.Peers[2].Unsorted)
}

// Rule 13: when Broadcast returns, only probes that ignore their contexts are left, and nothing
// once those end.
func TestBroadcastLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := bubbleGoroutines()
		b := behave{"deaf1": after(time.Hour), "deaf2": after(time.Hour), "good": answer(), "obey": obey}
		for _, opts := range []*Options{nil, {Limit: 2}, {EnoughCoverage: 0.1}} {
			_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
			require.NoError(t, err)
			if opts == nil {
				require.Equal(t, before+2, bubbleGoroutines())
			}
			time.Sleep(time.Hour)
			require.Equal(t, before, bubbleGoroutines())
		}
	})
}

// A panic of a hook passes to the caller, and the probes are cancelled all the same.
func TestBroadcastHookPanics(t *testing.T) {
	type hook = func(context.Context, ProbeDoneInfo)
	for name, trace := range map[string]*Trace{
		"QueryStarted": {QueryStarted: func(context.Context, QueryInfo) context.Context { panic("hook") }},
		"ProbeStarted": {ProbeStarted: func(context.Context, ProbeInfo) context.Context { panic("hook") }},
		"ProbeDone":    {ProbeDone: hook(func(context.Context, ProbeDoneInfo) { panic("hook") })},
		"QueryDone":    {QueryDone: func(context.Context, QueryDoneInfo) { panic("hook") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := behave{"a": answer(), "b": obey}
				opts := &Options{PeerDeadline: time.Minute, Trace: trace}
				require.PanicsWithValue(t, "hook", func() {
					_, _ = Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
				})
				synctest.Wait() // the bubble fails if b is left
			})
		})
	}
}

// Rule 6: a probe that runs on after the query keeps none of the answer alive.
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
	opts := &Options{EnoughCoverage: 0.5, MinCoverage: 0.5, PeerDeadline: time.Minute}
	r, err := Broadcast(t.Context(), testRequest, []PeerID{"a", "hung"}, probe, opts)
	require.NoError(t, err)
	require.Len(t, r.Hits, 1)
	r = nil
	for range 1000 {
		runtime.GC()
		select {
		case <-freed:
			return
		default:
			runtime.Gosched()
		}
	}
	t.Error("the hits are still referred to")
}
