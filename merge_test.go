package scatter

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// doc is a hit that knows its list and its place there, so that a test sees which of two equal
// copies a result contains.
type doc struct {
	Hit[string]
	list, at int
}

var (
	nan         = float32(math.NaN())
	negativeNaN = math.Float32frombits(math.Float32bits(nan) | 1<<31)
	negative0   = float32(math.Copysign(0, -1))
	inf         = float32(math.Inf(1))
	allOrders   = []Order{ScoreAscending, ScoreDescending, IDAscending}
)

// docs makes lists of docs of hits.
func docs(lists ...[]Hit[string]) [][]doc {
	out := make([][]doc, len(lists))
	for i, list := range lists {
		for j, h := range list {
			out[i] = append(out[i], doc{h, i, j})
		}
	}
	return out
}

// before is Rule 1, written as plainly as possible.
func before[ID cmp.Ordered](a, b Hit[ID], order Order) bool {
	aNaN, bNaN := a.Score != a.Score, b.Score != b.Score
	switch {
	case order == IDAscending:
		return cmp.Less(a.ID, b.ID)
	case aNaN != bNaN:
		return bNaN
	case aNaN || a.Score == b.Score:
		return cmp.Less(a.ID, b.ID)
	case order == ScoreDescending:
		return a.Score > b.Score
	}
	return a.Score < b.Score
}

// slowMerge is the oracle of Merge, by Rules 1 to 3 and nothing else: it picks the best copy of
// each ID, one by one, and sorts these by insertion.
func slowMerge[H Ranked[ID], ID cmp.Ordered](lists [][]H, k int, order Order) []H {
	var picked []H
	for _, list := range lists {
		for _, h := range list {
			known := false
			for i, p := range picked {
				if cmp.Compare(p.hit().ID, h.hit().ID) != 0 {
					continue
				}
				known = true
				copies := order // which copy counts
				if order == IDAscending {
					copies = ScoreAscending
				}
				if before(h.hit(), p.hit(), copies) {
					picked[i] = h
				}
			}
			if !known {
				picked = append(picked, h)
			}
		}
	}
	var sorted []H
	for _, h := range picked {
		at := 0
		for at < len(sorted) && !before(h.hit(), sorted[at].hit(), order) {
			at++
		}
		sorted = slices.Insert(sorted, at, h)
	}
	if k < 0 {
		k = 0
	}
	return sorted[:min(k, len(sorted))]
}

// slowSort sorts a list by the order of the oracle. It is stable.
func slowSort[H Ranked[ID], ID cmp.Ordered](list []H, order Order) {
	for i := range list {
		for j := i; j > 0 && before(list[j].hit(), list[j-1].hit(), order); j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

// Rule 1: the total order of each Order, with NaN last whatever its sign, and -0 equal to +0.
func TestMergeOrders(t *testing.T) {
	lists := docs(
		[]Hit[string]{{"e", nan}, {"a", 2}, {"z", negative0}, {"i", -inf}},
		[]Hit[string]{{"b", 1}, {"c", 1}, {"d", negativeNaN}, {"j", inf}},
		[]Hit[string]{{"y", 0}, {"f", -1}},
	)
	tests := []struct {
		order Order
		want  string
	}{
		{ScoreAscending, "i f y z b c a j d e"},
		{ScoreDescending, "j a b c y z f i d e"},
		{IDAscending, "a b c d e f i j y z"},
	}
	for _, tt := range tests {
		t.Run(tt.order.String(), func(t *testing.T) {
			require.Equal(t, tt.want, ids(Merge(lists, 100, tt.order)))
		})
	}
}

func ids[H Ranked[string]](hits []H) string {
	s := ""
	for i, h := range hits {
		if i > 0 {
			s += " "
		}
		s += h.hit().ID
	}
	return s
}

// Rule 2: the best-ranked copy of each ID; under IDAscending the one with the smallest score; of
// equal copies that of the first list.
func TestMergePicksTheBestCopy(t *testing.T) {
	lists := docs(
		[]Hit[string]{{"a", 3}, {"b", 5}},
		[]Hit[string]{{"a", 1}, {"b", 5}},
		[]Hit[string]{{"a", 2}, {"b", nan}},
	)
	tests := []struct {
		order Order
		want  []doc
	}{
		{ScoreAscending, []doc{{Hit[string]{"a", 1}, 1, 0}, {Hit[string]{"b", 5}, 0, 1}}},
		{ScoreDescending, []doc{{Hit[string]{"b", 5}, 0, 1}, {Hit[string]{"a", 3}, 0, 0}}},
		{IDAscending, []doc{{Hit[string]{"a", 1}, 1, 0}, {Hit[string]{"b", 5}, 0, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.order.String(), func(t *testing.T) {
			require.Equal(t, tt.want, Merge(lists, 10, tt.order))
		})
	}
}

// Rule 2: -0 and +0 are equal copies, and so are two NaNs, so the copy of the first list counts.
func TestMergeEqualCopiesOfUnequalBits(t *testing.T) {
	for _, order := range allOrders {
		got := Merge(docs([]Hit[string]{{"a", 0}}, []Hit[string]{{"a", negative0}}), 2, order)
		require.Len(t, got, 1)
		require.Equal(t, 0, got[0].list, order)
		got = Merge(docs([]Hit[string]{{"a", nan}}, []Hit[string]{{"a", negativeNaN}}), 2, order)
		require.Len(t, got, 1)
		require.Equal(t, 0, got[0].list, order)
	}
}

// Rule 2: IDs that are in dst already don't count as duplicates.
func TestMergeSortedDeduplicatesBehindDst(t *testing.T) {
	dst := []Hit[string]{{"a", 0}, {"b", 0}, {"c", 0}}
	got := MergeSorted(dst, [][]Hit[string]{{{"a", 1}}, {{"a", 2}, {"b", 3}}}, 9, ScoreAscending)
	require.Equal(t, "a b c a b", ids(got))
}

// Rule 2: duplicates take no place in the result.
func TestMergeFillsUpBehindDuplicates(t *testing.T) {
	same := []Hit[string]{{"a", 1}, {"b", 2}, {"c", 3}}
	require.Equal(t, "a b c d", ids(Merge([][]Hit[string]{same, same, same, {{"d", 4}}}, 4, ScoreAscending)))
}

// Rule 3: k < 1 gives no hits. A huge k takes memory only for the hits there are.
func TestMergeK(t *testing.T) {
	lists := [][]Hit[string]{{{"a", 1}, {"c", 3}}, {{"b", 2}}}
	for _, order := range allOrders {
		for _, k := range []int{0, -1, math.MinInt} {
			require.Nil(t, Merge(lists, k, order))
		}
		require.Len(t, Merge(lists, 2, order), 2)
		got := Merge(lists, math.MaxInt, order)
		require.Len(t, got, 3)
		require.LessOrEqual(t, cap(got), 4, "space follows the number of hits")
		require.Nil(t, Merge[Hit[string]](nil, math.MaxInt, order))
		require.Nil(t, Merge([][]Hit[string]{nil, {}}, math.MaxInt, order))
	}
}

// Rule 4: an unsorted list is merged as if it were sorted, and not written to.
func TestMergeUnsortedLists(t *testing.T) {
	lists := docs(
		[]Hit[string]{{"b", 2}, {"a", 1}, {"c", nan}, {"a", 1}},
		[]Hit[string]{{"a", 1}, {"d", 4}},
		[]Hit[string]{{"e", 0}, {"c", -1}, {"b", 7}},
	)
	was := make([][]doc, len(lists))
	for i := range lists {
		was[i] = slices.Clone(lists[i])
	}
	for _, order := range allOrders {
		got, want := Merge(lists, 9, order), slowMerge(lists, 9, order)
		require.Equal(t, fmt.Sprint(want), fmt.Sprint(got), order)
	}
	require.Equal(t, fmt.Sprint(was), fmt.Sprint(lists), "a list was written to")
}

func TestMergeUnknownOrder(t *testing.T) {
	require.PanicsWithValue(t, "scatter: Merge: unknown scatter.Order(7)", func() {
		Merge([][]Hit[string]{{{"a", 1}}}, 1, Order(7))
	})
	require.PanicsWithValue(t, "scatter: Merge: unknown scatter.Order(7)", func() {
		Merge[Hit[string]](nil, 0, Order(7))
	})
}

// A hit may be a struct that embeds a Hit, or a pointer to one. No call needs a type argument.
func TestMergePayloads(t *testing.T) {
	type titled struct {
		Hit[uint64]
		Title string
	}
	values := Merge([][]titled{{{Hit[uint64]{7, 1}, "seven"}}, {{Hit[uint64]{8, 0}, "eight"}}}, 1, ScoreAscending)
	require.Equal(t, []titled{{Hit[uint64]{8, 0}, "eight"}}, values)

	seven, eight := &titled{Hit[uint64]{7, 1}, "seven"}, &titled{Hit[uint64]{8, 0}, "eight"}
	pointers := MergeSorted([]*titled{seven}, [][]*titled{{seven}, {eight}}, 9, ScoreAscending)
	require.Equal(t, []*titled{seven, eight, seven}, pointers, "dst was changed")
	require.Same(t, eight, pointers[1])

	require.Panics(t, func() { Merge([][]*titled{{nil}}, 1, ScoreAscending) })
}

// randomLists returns lists with few distinct scores and IDs, so that ties and copies are frequent.
func randomLists(r *rand.Rand) [][]doc {
	scores := []float32{0, negative0, 1, 1, 2, -1, nan, negativeNaN, inf, -inf, 0.5, 1e-45}
	distinct := 1 + r.IntN(len(scores))
	names := 1 + r.IntN(30)
	prefix := prefixes[r.IntN(len(prefixes))]
	lists := make([][]doc, r.IntN(9))
	for i := range lists {
		for j := range r.IntN(20) {
			hit := Hit[string]{fmt.Sprint(prefix, r.IntN(names)), scores[r.IntN(distinct)]}
			lists[i] = append(lists[i], doc{hit, i, j})
		}
	}
	return lists
}

// Rules 1, 2, 3, 4: Merge agrees with the oracle on random lists, sorted or not, and MergeSorted
// on sorted lists.
func TestMergeAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		lists, k, order := randomLists(r), r.IntN(40)-1, allOrders[r.IntN(3)]
		want := fmt.Sprint(slowMerge(lists, k, order))
		require.Equal(t, want, fmt.Sprint(Merge(lists, k, order)), "%v %d %v", order, k, lists)

		for _, list := range lists {
			slowSort(list, order)
		}
		want = fmt.Sprint(slowMerge(lists, k, order))
		require.Equal(t, want, fmt.Sprint(MergeSorted(nil, lists, k, order)), "%v %d %v", order, k, lists)
	}
}

// prefixes are three kinds of what the IDs of a test begin with: nothing, less than the 8 bytes
// that the tree of IDs compares first, and much more.
var prefixes = []string{"", "ab", "tenant-0042/articles/en/2024/"}

// distinctIDs returns how many distinct IDs a list contains.
func distinctIDs(list []doc) int {
	seen := map[string]bool{}
	for _, d := range list {
		seen[d.ID] = true
	}
	return len(seen)
}

// checkDistinctPrefix checks that a merge of sorted lists to the k best has the same result if
// each list is cut to its distinctPrefix, and that this is no longer than necessary.
func checkDistinctPrefix(t *testing.T, lists [][]doc, k int, order Order) {
	t.Helper()
	cut := make([][]doc, len(lists))
	for i, list := range lists {
		n := distinctPrefix(list, k, order)
		cut[i] = list[:n]
		if len(list) <= k {
			require.Equal(t, len(list), n)
			continue
		}
		require.Equal(t, max(0, min(k, distinctIDs(list))), distinctIDs(cut[i]), "%v %d %v", order, k, list)
		if order != IDAscending && 0 < n && n < len(list) {
			require.Less(t, distinctIDs(list[:n-1]), k, "%v %d %v", order, k, list)
		}
	}
	want := fmt.Sprint(MergeSorted(nil, lists, k, order))
	require.Equal(t, want, fmt.Sprint(MergeSorted(nil, cut, k, order)), "%v %d %v", order, k, lists)
}

// Rules 2, 40: lists cut to their best k distinct hits have the same merge.
func TestDistinctPrefixAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 5_000 {
		lists, k, order := randomLists(r), r.IntN(20)-1, allOrders[r.IntN(3)]
		for _, list := range lists {
			slowSort(list, order)
		}
		checkDistinctPrefix(t, lists, k, order)
	}
}

func TestDistinctPrefix(t *testing.T) {
	byScore := []Hit[string]{{"a", 1}, {"b", 2}, {"a", 3}, {"c", 4}, {"c", 4}, {"d", 5}}
	byID := []Hit[string]{{"a", 3}, {"a", 1}, {"b", 2}, {"c", 5}, {"c", 4}, {"c", 4}}
	for k, want := range []int{0, 1, 2, 4, 6, 6, 6, 6} {
		require.Equal(t, want, distinctPrefix(byScore, k, ScoreAscending), "k = %d", k)
	}
	for k, want := range []int{0, 2, 3, 6, 6, 6, 6, 6} {
		require.Equal(t, want, distinctPrefix(byID, k, IDAscending), "k = %d", k)
	}
	type titled struct{ Hit[string] }
	for _, order := range allOrders {
		require.Equal(t, 2, distinctPrefix([]*titled{nil, nil}, 2, order), "a short list is not read")
		require.Zero(t, distinctPrefix([]*titled{nil, nil}, 0, order))
	}
}

func checkTrusted(t *testing.T, got []doc, lists [][]doc, k int, order Order) {
	t.Helper()
	require.Len(t, got, len(slowMerge(lists, k, order)), "%v %d %v", order, k, lists)
	seen := map[string]bool{}
	for _, d := range got {
		require.False(t, seen[d.ID], "%s twice: %v %d %v", d.ID, order, k, lists)
		seen[d.ID] = true
		require.Equal(t, fmt.Sprint(lists[d.list][slices.IndexFunc(lists[d.list], func(o doc) bool { return o.at == d.at })]),
			fmt.Sprint(d), "a hit that no list has")
	}
}

// FuzzMerge reads the bytes as lists with few distinct scores and IDs: one byte for each hit, and
// 0xff at the end of a list. o chooses the order and what all IDs begin with; 0xfe is an ID that
// begins otherwise.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{}, 1, uint8(0))
	f.Add([]byte{0xff, 0xff}, 3, uint8(1))
	f.Add([]byte{0x10, 0x21, 0x32, 0xff, 0x10, 0x21, 0xff, 0x07}, 2, uint8(0))
	f.Add([]byte{0x66, 0x16, 0xff, 0x76, 0x06, 0xff, 0x00, 0x80}, 0, uint8(1))
	f.Add([]byte{0x01, 0x02, 0x03, 0xff, 0x01, 0x02, 0x03}, math.MaxInt, uint8(2))
	f.Add([]byte{0x10, 0x20, 0x30, 0xff, 0x10, 0x21, 0x40, 0xff, 0x21, 0xfe, 0x31}, 9, uint8(8))
	f.Add([]byte{0x10, 0x20, 0x30, 0xff, 0x10, 0x20, 0x40, 0xff, 0x20, 0xfe, 0x30}, 9, uint8(6))
	scores := []float32{0, negative0, 1, 2, -1, nan, negativeNaN, inf}
	f.Fuzz(func(t *testing.T, data []byte, k int, o uint8) {
		if len(data) > 300 {
			return // the oracle is slow
		}
		order, prefix := allOrders[int(o)%len(allOrders)], prefixes[int(o)/len(allOrders)%len(prefixes)]
		var lists [][]doc
		var list []doc
		for _, b := range data {
			if b == 0xff {
				lists, list = append(lists, list), nil
				continue
			}
			id := fmt.Sprint(prefix, b>>4)
			if b == 0xfe {
				id = "tenant"
			}
			list = append(list, doc{Hit[string]{id, scores[b&7]}, len(lists), len(list)})
		}
		lists = append(lists, list)
		require.Equal(t, fmt.Sprint(slowMerge(lists, k, order)), fmt.Sprint(Merge(lists, k, order)))
		checkTrusted(t, MergeSorted(nil, lists, k, order), lists, k, order)

		for _, list := range lists {
			slowSort(list, order)
		}
		require.Equal(t, fmt.Sprint(slowMerge(lists, k, order)), fmt.Sprint(MergeSorted(nil, lists, k, order)))
		checkDistinctPrefix(t, lists, k, order)
	})
}
