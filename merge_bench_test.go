package scatter

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// benchLists returns the same lists in each run: k sorted hits with 12-byte IDs for each peer. About dups of
// a hundred hits are copies of hits of an earlier list, with the same score, as from a replica.
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

// Claim: for P peers, MergeSorted takes time in P + K log P, whatever the number of hits, and Merge in P K,
// which is the number of hits. The baseline takes P K log P K.
func BenchmarkMerge(b *testing.B) {
	impls := []struct {
		name  string
		merge func(lists [][]Hit[string], k int) []Hit[string]
	}{
		{"scatter", func(lists [][]Hit[string], k int) []Hit[string] {
			return MergeSorted(nil, lists, k, ScoreAscending)
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

// Claim: MergeSorted takes time in P + K log P under IDAscending too. A long prefix that all IDs share, such
// as a path, costs little.
func BenchmarkMergeByID(b *testing.B) {
	for _, peers := range []int{1, 10, 100, 1000} {
		for _, prefix := range []string{"", "tenant-0042/articles/en/2024/"} {
			lists := benchLists(peers, 100, 50)
			for _, list := range lists {
				for i := range list {
					list[i].ID = prefix + list[i].ID
				}
				slices.SortFunc(list, func(a, b Hit[string]) int { return compareHits(a, b, IDAscending) })
			}
			name := fmt.Sprintf("peers=%d/k=100/dups=50/prefix=%d/impl=scatter", peers, len(prefix))
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					MergeSorted(nil, lists, 100, IDAscending)
				}
			})
		}
	}
}

// nearer is the order of the baseline: ScoreAscending without NaN.
func nearer(a, b Hit[string]) int {
	switch {
	case a.Score < b.Score:
		return -1
	case a.Score > b.Score:
		return 1
	}
	return strings.Compare(a.ID, b.ID)
}

// sortOfUnion is a baseline: it sorts all hits in one slice and drops the duplicates.
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

// A baseline must do the same work.
func TestBaselineMergesAlike(t *testing.T) {
	lists := benchLists(20, 30, 50)
	want := Merge(lists, 100, ScoreAscending)
	if got := sortOfUnion(lists, 100); !slices.Equal(got, want) {
		t.Errorf("sortOfUnion = %v, want %v", got, want)
	}
}
