package scatter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// These are scatter's own benchmarks, each with what it should grow like, and two baselines to see at once whether a
// change helps. The module benchmarks/ compares with rivals, checks the growth, and writes the report.

// benchLists are the same in each run: peers lists of k hits with 12-byte IDs, sorted; some dups of a hundred hits are
// copies of another list's, with the same score, as a replica's would be.
func benchLists(peers, k, dups int) [][]Hit[string] {
	r := rand.New(rand.NewPCG(uint64(peers), uint64(k)))
	lists := make([][]Hit[string], peers)
	for i := range lists {
		for range k {
			h := Hit[string]{fmt.Sprintf("doc-%08d", r.IntN(1e8)), r.Float32()}
			if i > 0 && r.IntN(100) < dups {
				h = lists[r.IntN(i)][r.IntN(k)]
			}
			lists[i] = append(lists[i], h)
		}
	}
	for _, list := range lists {
		slices.SortFunc(list, func(a, b Hit[string]) int { return compareHits(a, b, ScoreAscending) })
	}
	return lists
}

// Claim: trusted, a merge grows as P + K log P, not as the number of hits; checked, as P K, the number of hits. The
// baseline grows as P K log P K.
func BenchmarkMerge(b *testing.B) {
	impls := []struct {
		name  string
		merge func(lists [][]Hit[string], k int) []Hit[string]
	}{
		{"scatter", func(lists [][]Hit[string], k int) []Hit[string] {
			return AppendMergeSorted(nil, lists, k, ScoreAscending)
		}},
		{"checked", func(lists [][]Hit[string], k int) []Hit[string] { return Merge(lists, k, ScoreAscending) }},
		{"sort", sortOfUnion},
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

// Claim: under IDAscending too, a merge grows as P + K log P.
func BenchmarkMergeByID(b *testing.B) {
	for _, peers := range []int{1, 10, 100, 1000} {
		lists := benchLists(peers, 100, 50)
		for _, list := range lists {
			slices.SortFunc(list, func(a, b Hit[string]) int { return compareHits(a, b, IDAscending) })
		}
		b.Run(fmt.Sprintf("peers=%d/k=100/dups=50/impl=scatter", peers), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				AppendMergeSorted(nil, lists, 100, IDAscending)
			}
		})
	}
}

// nearer is the order of the baseline: that of ScoreAscending, but that it doesn't care for NaN.
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

// A baseline must do the same work, or it is none.
func TestBaselineMergesAlike(t *testing.T) {
	lists := benchLists(20, 30, 50)
	want := Merge(lists, 100, ScoreAscending)
	if got := sortOfUnion(lists, 100); !slices.Equal(got, want) {
		t.Errorf("sortOfUnion = %v, want %v", got, want)
	}
}

func instantProbe(context.Context, PeerID, *Request) ([]Hit[string], error) {
	return []Hit[string]{{"a", 1}}, nil
}

func instantAsyncProbe(_ context.Context, _ PeerID, _ *Request, done func([]Hit[string], error)) {
	done([]Hit[string]{{"a", 1}}, nil)
}

// Claim: linear in the number of peers, as the baseline: bare goroutines, without deadlines, ledger and merge.
func BenchmarkBroadcast(b *testing.B) {
	ctx := context.Background()
	req := &Request{Table: "t", Query: KNN{}, K: 1}
	for _, n := range []int{1, 3, 10, 100, 1000} {
		peers := somePeers(n)
		for _, impl := range []struct {
			name string
			ask  func() (*Response[Hit[string]], error)
		}{
			{"scatter", func() (*Response[Hit[string]], error) { return Broadcast(ctx, req, peers, instantProbe, nil) }},
			{"async", func() (*Response[Hit[string]], error) {
				return BroadcastAsync(ctx, req, peers, instantAsyncProbe, nil)
			}},
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

// Claim: the same time for each event, and no allocation, whatever the handler asks for.
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

// Claim: NewRing grows as n log n in its points, PrimaryPeers as the number of peers, PreferenceList as log n, and a
// whole Walk as n.
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

// Claim: both ways are linear in the number of hits.
func BenchmarkReply(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		reply := &Reply{Hits: benchLists(1, n, 0)[0]}
		payload, err := reply.MarshalBinary()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("hits=%d/op=encode", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := reply.MarshalBinary(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("hits=%d/op=decode", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := new(Reply).UnmarshalBinary(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
