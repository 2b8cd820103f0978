package scatter

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The inputs are the same in each run: peers lists of k hits with 12-byte IDs, sorted; of every 100 hits, dups stand in
// another list as well, with the same score, as a replica's would.
func benchLists(peers, k, dups int) [][]Hit[string] {
	r := rand.New(rand.NewPCG(uint64(peers), uint64(k)))
	lists := make([][]Hit[string], peers)
	for i := range lists {
		for range k {
			h := Hit[string]{fmt.Sprintf("doc-%08d", r.IntN(1e8)), r.Float32()}
			if j := r.IntN(peers); r.IntN(100) < dups && j < i {
				h = lists[j][r.IntN(k)]
			}
			lists[i] = append(lists[i], h)
		}
	}
	for _, list := range lists {
		slices.SortFunc(list, func(a, b Hit[string]) int { return compareHits(a, b, ScoreAscending) })
	}
	return lists
}

// Claim: trusted, a merge costs by k and the number of lists, not by the number of hits; checked, the check is most of
// it where there are many hits. Both leave the baselines behind at every size.
func BenchmarkMerge(b *testing.B) {
	impls := []struct {
		name  string
		merge func(lists [][]Hit[string], k int) []Hit[string]
	}{
		{"trusted", func(lists [][]Hit[string], k int) []Hit[string] {
			return AppendMergeSorted(nil, lists, k, ScoreAscending)
		}},
		{"checked", func(lists [][]Hit[string], k int) []Hit[string] { return Merge(lists, k, ScoreAscending) }},
		{"sort", sortOfUnion},
		{"heap", heapMerge},
	}
	for _, peers := range []int{1, 10, 100, 1000} {
		for _, k := range []int{10, 100} {
			for _, dups := range []int{0, 50} {
				lists := benchLists(peers, k, dups)
				for _, impl := range impls {
					b.Run(fmt.Sprintf("peers=%d/k=%d/dups=%d/impl=%s", peers, k, dups, impl.name), func(b *testing.B) {
						b.ReportAllocs()
						for b.Loop() {
							impl.merge(lists, k)
						}
					})
				}
			}
		}
	}
}

// BenchmarkMergeByID is the same under IDAscending.
func BenchmarkMergeByID(b *testing.B) {
	for _, peers := range []int{1, 10, 100, 1000} {
		lists := benchLists(peers, 100, 50)
		for _, list := range lists {
			slices.SortFunc(list, func(a, b Hit[string]) int { return compareHits(a, b, IDAscending) })
		}
		b.Run(fmt.Sprintf("peers=%d/k=100/dups=50/impl=trusted", peers), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				AppendMergeSorted(nil, lists, 100, IDAscending)
			}
		})
	}
}

// nearer is the order of the baselines: that of ScoreAscending, but that it doesn't care for NaN.
func nearer(a, b Hit[string]) int {
	switch {
	case a.Score < b.Score:
		return -1
	case a.Score > b.Score:
		return 1
	}
	return strings.Compare(a.ID, b.ID)
}

// sortOfUnion is a baseline: all hits in one slice, sorted, and those that stand twice left out.
func sortOfUnion(lists [][]Hit[string], k int) []Hit[string] {
	union := slices.Concat(lists...)
	slices.SortFunc(union, nearer)
	out := make([]Hit[string], 0, k)
	seen := make(map[string]bool, k)
	for _, h := range union {
		if len(out) == k {
			break
		}
		if !seen[h.ID] {
			seen[h.ID] = true
			out = append(out, h)
		}
	}
	return out
}

// listHeap is a container/heap of lists by their first hits.
type listHeap [][]Hit[string]

func (h listHeap) Len() int           { return len(h) }
func (h listHeap) Less(i, j int) bool { return nearer(h[i][0], h[j][0]) < 0 }
func (h listHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *listHeap) Push(x any)        { *h = append(*h, x.([]Hit[string])) }
func (h *listHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// heapMerge is a baseline: a k-way merge by container/heap, and a map of what was put out.
func heapMerge(lists [][]Hit[string], k int) []Hit[string] {
	h := make(listHeap, 0, len(lists))
	for _, list := range lists {
		if len(list) > 0 {
			h = append(h, list)
		}
	}
	heap.Init(&h)
	out := make([]Hit[string], 0, k)
	seen := make(map[string]bool, k)
	for len(out) < k && len(h) > 0 {
		if first := h[0][0]; !seen[first.ID] {
			seen[first.ID] = true
			out = append(out, first)
		}
		if h[0] = h[0][1:]; len(h[0]) == 0 {
			heap.Pop(&h)
		} else {
			heap.Fix(&h, 0)
		}
	}
	return out
}

// The baselines must do the same work, or they are none.
func TestBaselinesMergeAlike(t *testing.T) {
	lists := benchLists(20, 30, 50)
	want := Merge(lists, 100, ScoreAscending)
	if got := sortOfUnion(lists, 100); !slices.Equal(got, want) {
		t.Errorf("sortOfUnion = %v, want %v", got, want)
	}
	if got := heapMerge(lists, 100); !slices.Equal(got, want) {
		t.Errorf("heapMerge = %v, want %v", got, want)
	}
}

func instantProbe(context.Context, PeerID, *Request) ([]Hit[string], error) {
	return []Hit[string]{{"a", 1}}, nil
}

func instantAsyncProbe(_ context.Context, _ PeerID, _ *Request, done func([]Hit[string], error)) {
	done([]Hit[string]{{"a", 1}}, nil)
}

// Claim: what deadlines, the ledger and the merge add to bare goroutines, which have none, stays a small factor, the
// same at every number of peers.
func BenchmarkBroadcast(b *testing.B) {
	ctx := context.Background()
	req := &Request{Table: "t", Query: KNN{}, K: 1}
	for _, n := range []int{1, 3, 10, 100, 1000} {
		peers := somePeers(n)
		b.Run(fmt.Sprintf("peers=%d/impl=scatter", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if resp, err := Broadcast(ctx, req, peers, instantProbe, nil); err != nil || resp.Partial {
					b.Fatal(resp, err)
				}
			}
		})
		b.Run(fmt.Sprintf("peers=%d/impl=async", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if resp, err := BroadcastAsync(ctx, req, peers, instantAsyncProbe, nil); err != nil || resp.Partial {
					b.Fatal(resp, err)
				}
			}
		})
		b.Run(fmt.Sprintf("peers=%d/impl=bare", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				lists := make([][]Hit[string], n)
				var wg sync.WaitGroup
				for i, peer := range peers {
					wg.Go(func() { lists[i], _ = instantProbe(ctx, peer, req) })
				}
				wg.Wait()
			}
		})
	}
}

// turnstile is a small machine for measuring.
type turnstile struct{ coins int }

func (h *turnstile) Handle(c *Control[bool, string], unlocked bool, ev string) bool {
	switch {
	case ev == "coin":
		h.coins++
		return true
	case ev == "push" && unlocked:
		return false
	case ev == "wait" && !unlocked:
		c.Postpone()
	case ev == "twice":
		c.Raise("coin")
	}
	return unlocked
}

// Claim: some 20 ns for an event and no allocation, whatever the handler asks for.
func BenchmarkMachine(b *testing.B) {
	now := time.Now()
	for _, bb := range []struct {
		name   string
		events []string
	}{
		{"same", []string{"push", "push"}},
		{"change", []string{"coin", "push"}},
		{"raise", []string{"twice", "push"}},
		{"postpone", []string{"wait", "coin", "push"}},
	} {
		b.Run("event="+bb.name, func(b *testing.B) {
			m := NewMachine(&turnstile{}, false)
			b.ReportAllocs()
			for b.Loop() {
				for _, ev := range bb.events {
					if err := m.Step(now, ev); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bb.events)), "ns/event")
		})
	}
}

func benchRing(points, peers int) []Point {
	r := rand.New(rand.NewPCG(uint64(points), uint64(peers)))
	names := somePeers(peers)
	out := make([]Point, points)
	for i := range out {
		out[i] = Point{r.Uint64(), names[i%peers]}
	}
	return out
}

// Claim: NewRing costs by n log n, PrimaryPeers by the number of peers, and PreferenceList by n and hardly by the ring.
func BenchmarkRing(b *testing.B) {
	for _, size := range []struct{ points, peers int }{{100, 10}, {2000, 100}, {128_000, 2000}} {
		points := benchRing(size.points, size.peers)
		ring := NewRing(points...)
		sub := func(op string, f func()) {
			b.Run(fmt.Sprintf("points=%d/peers=%d/op=%s", size.points, size.peers, op), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					f()
				}
			})
		}
		token := uint64(0)
		sub("NewRing", func() { NewRing(points...) })
		sub("PrimaryPeers", func() { ring.PrimaryPeers(nil) })
		sub("PreferenceList", func() { token += 1 << 54; ring.PreferenceList(token, 3, nil) })
		sub("Walk", func() {
			for range ring.Walk(token) {
			}
		})
	}
}
