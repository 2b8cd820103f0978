//go:build !race

package scatter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Here and not in broadcast_test.go, because the race detector makes sync.Pool forget.

// A Broadcast allocates no more for many peers than for few, beyond the hits, the ledger and what probes do; nor does a
// Search, with coverage, done when whole, and hedges armed.
func TestBroadcastAllocations(t *testing.T) {
	const most = 8 + 2 // with the hits and the ledger
	hits := hitList{{"a", 1}}
	probe := func(context.Context, PeerID, *Request) (hitList, error) { return hits, nil }
	async := func(_ context.Context, _ PeerID, _ *Request, done func([]Hit[string], error)) { done(hits, nil) }
	req := &Request{Table: "t", Query: KNN{}, K: 1}
	for _, n := range []int{1, 3, 10, 100, 1000} {
		peers := somePeers(n)
		points := make([]Point, n)
		for i, peer := range peers {
			points[i] = Point{uint64(i) << 48, peer}
		}
		s, err := NewSearcher(probe, NewRing(points...), &SearcherOptions{Replicas: 3})
		require.NoError(t, err)
		for _, tt := range []struct {
			name string
			run  func() (*Response[Hit[string]], error)
			most int
		}{
			{"Broadcast", func() (*Response[Hit[string]], error) {
				return Broadcast(t.Context(), req, peers, probe, nil)
			}, most},
			{"BroadcastAsync, one for each done", func() (*Response[Hit[string]], error) {
				return BroadcastAsync(t.Context(), req, peers, async, nil)
			}, most + n},
			{"Search", func() (*Response[Hit[string]], error) { return s.Search(t.Context(), req) }, most + 4},
		} {
			run := func() {
				r, err := tt.run()
				require.NoError(t, err)
				require.False(t, r.Partial)
			}
			for range 2 * mostPlans { // the plans are made once
				run()
			}
			allocs := testing.AllocsPerRun(200, run)
			require.LessOrEqual(t, allocs, float64(tt.most), "%s of %d peers", tt.name, n)
		}
		require.NoError(t, s.Close(t.Context()))
	}
}

// Rules 24, 25: what a Search's plan told of its peers is not believed of a Broadcast that has the Search's memory: not
// that their answers are the whole, nor that it takes all of them.
func TestBroadcastAfterSearch(t *testing.T) {
	nine, two := circle(somePeers(9)...), circle("a", "b")
	b := behave{"a": after(time.Second), "b": obey}
	for _, peer := range somePeers(3) {
		b[peer] = after(time.Second)
	}
	for name, tt := range map[string]struct {
		peers    []PeerID
		cover    *Cover
		coverage float64
	}{
		"not whole":   {somePeers(3), NewCover(nine, 3), 5. / 9},
		"not minimal": {[]PeerID{"a", "b"}, NewCover(two, 2), 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTestSearcher(t, instantProbe, nine, SearcherOptions{Replicas: 3})
				for range 20 { // each time most likely, but not surely, in the same memory
					r, err := s.Search(t.Context(), testRequest)
					require.NoError(t, err)
					require.False(t, r.Partial)
					r, err = Broadcast(t.Context(), testRequest, tt.peers, b.probe, &Options{Cover: tt.cover})
					require.NoError(t, err)
					require.InDelta(t, tt.coverage, r.Coverage, 1e-9)
					require.Equal(t, time.Second, r.Elapsed)
				}
			})
		})
	}
}

// Rule 2: the hits of a query that a hook has ended by a panic are in no other's answer.
func TestBroadcastHookPanicLeavesNothing(t *testing.T) {
	stale := behave{"a": answer(Hit[string]{"stale", 1}), "b": answer(Hit[string]{"stale", 2})}
	fails := func(context.Context, PeerID, *Request) (hitList, error) { return nil, errBroke }
	for range 100 {
		told := 0
		opts := &Options{Trace: &Trace{ProbeDone: func(ProbeDoneInfo) {
			if told++; told == 2 { // both have answered, and nothing is merged
				panic("hook")
			}
		}}}
		require.PanicsWithValue(t, "hook", func() {
			_, _ = Broadcast(t.Context(), testRequest, stale.peers(), stale.probe, opts)
		})
		r, err := Broadcast(t.Context(), testRequest, stale.peers(), fails, nil)
		require.NoError(t, err)
		require.Empty(t, r.Hits)
	}
}
