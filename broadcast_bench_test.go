package scatter

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// BenchmarkBroadcast asks peers that answer at once. The time is linear in their number, as is that
// of the baseline: bare goroutines, without deadlines, ledger and merge.
func BenchmarkBroadcast(b *testing.B) {
	ctx := context.Background()
	req := &Request{Table: "t", Query: KNN{}, K: 1}
	hits := hitList{{"a", 1}}
	probe := func(context.Context, PeerID, *Request) (hitList, error) { return hits, nil }
	async := func(_ context.Context, _ PeerID, _ *Request, done func([]Hit[string], error)) { done(hits, nil) }
	for _, n := range []int{1, 3, 10, 100, 1000} {
		peers := somePeers(n)
		for _, impl := range []struct {
			name string
			ask  func() (*Response[Hit[string]], error)
		}{
			{"scatter", func() (*Response[Hit[string]], error) { return Broadcast(ctx, req, peers, probe, nil) }},
			{"async", func() (*Response[Hit[string]], error) { return BroadcastAsync(ctx, req, peers, async, nil) }},
		} {
			b.Run(fmt.Sprintf("peers=%d/impl=%s", n, impl.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if resp, err := impl.ask(); err != nil || resp.Partial {
						b.Fatal(resp, err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("peers=%d/impl=bare", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				lists := make([][]Hit[string], n)
				var wg sync.WaitGroup
				for i, peer := range peers {
					wg.Go(func() { lists[i], _ = probe(ctx, peer, req) })
				}
				wg.Wait()
			}
		})
	}
}
