//go:build !race

package scatter

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// The race detector makes sync.Pool forget, so these tests run without it.

// Broadcast makes no more allocations for many peers with K hits each than for few. For an
// AsyncProbe each peer has a callback of its own. The Response, its hits and the ledger are among them.
func TestBroadcastAllocations(t *testing.T) {
	const most, eachAsync = 12, 3
	hits := hitList{{"a", 1}, {"b", 2}, {"c", 3}, {"d", 4}, {"e", 5}, {"f", 6}, {"g", 7}, {"h", 8}, {"i", 9}, {"j", 10}}
	probe := func(context.Context, PeerID, *Request) (hitList, error) { return hits, nil }
	async := func(_ context.Context, _ PeerID, _ *Request, done func([]Hit[string], error)) { done(hits, nil) }
	req := &Request{Table: "t", Query: KNN{}, K: len(hits)}
	for _, n := range []int{1, 3, 10, 100} {
		peers := somePeers(n)
		allocs := testing.AllocsPerRun(200, func() {
			if r, err := Broadcast(t.Context(), req, peers, probe, nil); err != nil || r.Partial {
				t.Error(err, summary(r))
			}
		})
		require.LessOrEqual(t, allocs, float64(most), "Broadcast to %d peers", n)
		allocs = testing.AllocsPerRun(200, func() {
			if r, err := BroadcastAsync(t.Context(), req, peers, async, nil); err != nil || r.Partial {
				t.Error(err, summary(r))
			}
		})
		require.LessOrEqual(t, allocs, float64(most+eachAsync*n), "BroadcastAsync to %d peers", n)
	}
}
