package cases

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	"github.com/bboreham/go-loser"
	"github.com/scatterknn/scatter"
)

// sortUnion puts all hits into one slice, sorts it, and takes the first k whose IDs a set has not seen yet.
func sortUnion[ID cmp.Ordered](
	lists [][]scatter.Hit[ID], k int, compare func(a, b scatter.Hit[ID]) int,
) []scatter.Hit[ID] {
	union := slices.Concat(lists...)
	slices.SortFunc(union, compare)
	seen := make(map[ID]struct{}, k)
	out := make([]scatter.Hit[ID], 0, k)
	for _, h := range union {
		if len(out) == k {
			break
		}
		if _, ok := seen[h.ID]; !ok {
			seen[h.ID] = struct{}{}
			out = append(out, h)
		}
	}
	return out
}

// heapMerge merges by container/heap, with a set of what it has put out.
func heapMerge(lists [][]hit, k int) []hit {
	h := make(listHeap, 0, len(lists))
	for _, list := range lists {
		if len(list) > 0 {
			h = append(h, list)
		}
	}
	heap.Init(&h)
	seen := make(map[string]struct{}, k)
	out := make([]hit, 0, k)
	for len(out) < k && len(h) > 0 {
		first := h[0][0]
		if _, ok := seen[first.ID]; !ok {
			seen[first.ID] = struct{}{}
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

// listHeap is a [heap.Interface] of lists that are not empty; the one with the best first hit comes first.
type listHeap [][]hit

func (h listHeap) Len() int           { return len(h) }
func (h listHeap) Less(i, j int) bool { return byScore(h[i][0], h[j][0]) < 0 }
func (h listHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *listHeap) Push(x any)        { *h = append(*h, x.([]hit)) }
func (h *listHeap) Pop() any {
	last := len(*h) - 1
	list := (*h)[last]
	*h = (*h)[:last]
	return list
}

// loserMerge merges by the loser tree of go-loser, with a set of what it has put out. The tree compares the scores
// alone, as is fastest, so hits of one score are collected and sorted by ID before they are put out.
func loserMerge(lists [][]hit, k int) []hit {
	cursors := make([]cursor, len(lists))
	sequences := make([]*cursor, len(lists))
	for i, list := range lists {
		cursors[i] = cursor{list, -1}
		sequences[i] = &cursors[i]
	}
	tree := loser.New(sequences, float32(math.Inf(1)))
	seen := make(map[string]struct{}, k)
	out := make([]hit, 0, k)
	var tied []hit
	put := func() {
		if len(tied) > 1 {
			slices.SortFunc(tied, byScore)
		}
		for _, h := range tied {
			if _, ok := seen[h.ID]; !ok && len(out) < k {
				seen[h.ID] = struct{}{}
				out = append(out, h)
			}
		}
		tied = tied[:0]
	}
	for len(out) < k && tree.Next() {
		winner := tree.Winner()
		h := winner.list[winner.at]
		if len(tied) > 0 && tied[0].Score != h.Score {
			put()
		}
		tied = append(tied, h)
	}
	put()
	return out
}

// cursor is a place in a list, as a [loser.Sequence].
type cursor struct {
	list []hit
	at   int
}

func (c *cursor) At() float32 { return c.list[c.at].Score }
func (c *cursor) Next() bool {
	c.at++
	return c.at < len(c.list)
}
