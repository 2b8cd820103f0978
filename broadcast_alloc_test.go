//go:build !race

package scatter

import (
	"context"
	"testing"

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
