package scatter

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// tagged is a doc with an ID of any type.
type tagged[ID cmp.Ordered] struct {
	Hit[ID]
	list, at int
}

// checkIDs compares Merge and MergeSorted with the oracle, on random lists of hits with these IDs.
// The hits are structs that embed a Hit, pointers to such structs, and Hit itself, because these
// are read in different ways.
func checkIDs[ID cmp.Ordered](t *testing.T, ids ...ID) {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		var (
			values   = make([][]tagged[ID], 1+r.IntN(6))
			pointers = make([][]*tagged[ID], len(values))
			bare     = make([][]Hit[ID], len(values))
			scores   = []float32{1, 2, 3, 0, negative0, -1, nan, inf, -inf}[:1+r.IntN(9)]
			k        = 1 + r.IntN(len(ids)+2)
			order    = allOrders[r.IntN(3)]
			sorted   = r.IntN(2) == 0
		)
		for i := range values {
			for j := range r.IntN(12) {
				h := Hit[ID]{ids[r.IntN(len(ids))], scores[r.IntN(len(scores))]}
				values[i] = append(values[i], tagged[ID]{h, i, j})
			}
			if sorted {
				slowSort(values[i], order)
			}
			for j := range values[i] {
				pointers[i] = append(pointers[i], &values[i][j])
				bare[i] = append(bare[i], values[i][j].Hit)
			}
		}
		want := fmt.Sprint(slowMerge(values, k, order))
		wantBare := fmt.Sprint(slowMerge(bare, k, order))
		require.Equal(t, want, fmt.Sprint(Merge(values, k, order)), "%v %d %v", order, k, values)
		require.Equal(t, want, fmt.Sprint(pointees(Merge(pointers, k, order))), "%v %d %v", order, k, values)
		require.Equal(t, wantBare, fmt.Sprint(Merge(bare, k, order)), "%v %d %v", order, k, bare)

		trusted := MergeSorted(nil, values, k, order)
		trustedPointers := pointees(MergeSorted(nil, pointers, k, order))
		trustedBare := MergeSorted(nil, bare, k, order)
		if sorted {
			require.Equal(t, want, fmt.Sprint(trusted), "%v %d %v", order, k, values)
			require.Equal(t, want, fmt.Sprint(trustedPointers), "%v %d %v", order, k, values)
			require.Equal(t, wantBare, fmt.Sprint(trustedBare), "%v %d %v", order, k, bare)
			continue
		}
		checkEachOnce(t, trusted, values, k)
		checkEachOnce(t, trustedPointers, values, k)
		checkEachOnce(t, trustedBare, bare, k)
	}
}

func pointees[T any](pointers []*T) []T {
	var out []T
	for _, p := range pointers {
		out = append(out, *p)
	}
	return out
}

// checkEachOnce checks what MergeSorted promises for unsorted lists.
func checkEachOnce[H Ranked[ID], ID cmp.Ordered](t *testing.T, got []H, lists [][]H, k int) {
	t.Helper()
	require.Len(t, got, len(slowMerge(lists, k, IDAscending)), "%d %v", k, lists)
	for i, h := range got {
		require.False(t, slices.ContainsFunc(got[:i], func(o H) bool {
			return cmp.Compare(o.hit().ID, h.hit().ID) == 0
		}), "%v twice: %d %v", h, k, lists)
	}
}

type (
	namedString string
	namedInt    int32
	namedFloat  float32
)

// Rules 1 to 4 for IDs of every kind, above all if what is compared first, or hashed, is equal.
func TestMergeIDsOfEveryKind(t *testing.T) {
	words := []string{
		"", "\x00", "\x00\x00", "a", "a\x00", "a\x00\x00\x00\x00\x00\x00\x00", "a\x00\x00\x00\x00\x00\x00\x00\x00", "ab",
		"same prefix", "same prefix 1", "same prefix 2", "same pre", "same pr", "\xff", "\xff\xff\xff\xff\xff\xff\xff\xff",
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\xff\xff\xff\xff\xff\xff\xff",
	}
	var named []namedString
	for _, w := range words {
		named = append(named, namedString(w))
	}
	nan64, minus0 := math.NaN(), math.Copysign(0, -1)
	t.Run("string", func(t *testing.T) { checkIDs(t, words...) })
	t.Run("named string", func(t *testing.T) { checkIDs(t, named...) })
	t.Run("long string", func(t *testing.T) {
		long := strings.Repeat("0123456789", 20)
		checkIDs(t, long[:50], long[:100], long[:50]+"x", long, long+"\x00", long[:99]+"y")
	})
	t.Run("long common prefix", func(t *testing.T) {
		prefix, ids := strings.Repeat("prefix/", 5), []string{}
		for _, w := range words {
			ids = append(ids, prefix+w)
		}
		checkIDs(t, ids...)
		checkIDs(t, append(ids, "prefix", "pre", "prefix/prefix0", "z", "a")...)
	})
	t.Run("int", func(t *testing.T) { checkIDs(t, math.MinInt, -2, -1, 0, 1, 2, 1<<30, math.MaxInt) })
	t.Run("int8", func(t *testing.T) { checkIDs[int8](t, -128, -1, 0, 1, 127) })
	t.Run("int16", func(t *testing.T) { checkIDs[int16](t, -1<<15, -1, 0, 1, 1<<15-1) })
	t.Run("int32", func(t *testing.T) { checkIDs[int32](t, -1<<31, -1, 0, 1, 1<<31-1) })
	t.Run("int64", func(t *testing.T) { checkIDs[int64](t, -1<<63, -1<<32, -1, 0, 1, 1<<32, 1<<63-1) })
	t.Run("uint", func(t *testing.T) { checkIDs[uint](t, 0, 1, 1<<31, math.MaxUint) })
	t.Run("uint8", func(t *testing.T) { checkIDs[uint8](t, 0, 1, 127, 128, 255) })
	t.Run("uint16", func(t *testing.T) { checkIDs[uint16](t, 0, 1, 1<<15, 1<<16-1) })
	t.Run("uint32", func(t *testing.T) { checkIDs[uint32](t, 0, 1, 1<<31, 1<<32-1) })
	t.Run("uint64", func(t *testing.T) { checkIDs[uint64](t, 0, 1, 1<<32, 1<<63, 1<<64-2, 1<<64-1) })
	t.Run("uintptr", func(t *testing.T) { checkIDs[uintptr](t, 0, 1, 1<<31) })
	t.Run("named int", func(t *testing.T) { checkIDs[namedInt](t, -1<<31, -1, 0, 1, 1<<31-1) })
	t.Run("float32", func(t *testing.T) { checkIDs(t, nan, negativeNaN, -inf, -1, negative0, 0, 1, inf) })
	t.Run("float64", func(t *testing.T) { checkIDs(t, nan64, -1, minus0, 0, 1e-300, 1, math.Inf(1), math.Inf(-1)) })
	t.Run("named float", func(t *testing.T) { checkIDs(t, namedFloat(nan), -1, namedFloat(negative0), 0, 1) })
}

// A greater ID never has a smaller key, whatever the keys skip of the bytes that the IDs have in
// common. Different integers have different keys.
func TestMergeIDKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 100_000 {
		a, b := make([]byte, r.IntN(30)), make([]byte, r.IntN(30))
		for i := range a {
			a[i] = "\x00\x01a\xff"[r.IntN(4)]
		}
		for i := range b {
			b[i] = "\x00\x01a\xff"[r.IntN(4)]
		}
		copy(b, a[:r.IntN(len(a)+1)])
		common := commonBytes(string(a), string(b))
		require.Equal(t, a[:common], b[:common])
		require.True(t, common == len(a) || common == len(b) || a[common] != b[common], "%q %q: %d", a, b, common)
		if s, u := string(a), string(b); s < u {
			skip := r.IntN(common + 1)
			require.LessOrEqual(t, idKey(s, skip), idKey(u, skip), "%q %q: %d", s, u, skip)
		}
		if x, y := int64(r.Uint64()), int64(r.Uint64()); x != y {
			require.Equal(t, x < y, idKey(x, 0) < idKey(y, 0))
			require.Equal(t, uint64(x) < uint64(y), idKey(uint64(x), 0) < idKey(uint64(y), 0))
			require.Equal(t, int(x) < int(y), idKey(int(x), 0) < idKey(int(y), 0))
		}
		if x, y := int32(r.Uint32()), int32(r.Uint32()); x != y {
			require.Equal(t, x < y, idKey(x, 0) < idKey(y, 0))
			require.Equal(t, uint32(x) < uint32(y), idKey(uint32(x), 0) < idKey(uint32(y), 0))
		}
	}
}

// Rules 2, 4: the keys skip what the first and the last ID of each list begin with. In an unsorted
// list other IDs may begin otherwise, or be shorter. No ID comes twice all the same, and none is
// lost.
func TestMergeSortedOfUnsortedIDsWithoutThePrefix(t *testing.T) {
	const prefix = "tenant-0042/articles/"
	sorted := []Hit[string]{{prefix + "a", 1}, {prefix + "b", 1}, {prefix + "c", 1}, {prefix + "e", 1}}
	for _, stray := range []string{"", "t", "a", "zebra", prefix, prefix[:8], "tenant-0042/zebras/x"} {
		unsorted := []Hit[string]{{prefix + "a", 2}, {stray, 1}, {prefix + "b", 0}, {stray, 0}, {prefix + "d", 1}}
		lists := [][]Hit[string]{sorted, unsorted, sorted}
		for k := range 9 {
			checkEachOnce(t, MergeSorted(nil, lists, k, IDAscending), lists, k)
			require.Equal(t, slowMerge(lists, k, IDAscending), append([]Hit[string]{}, Merge(lists, k, IDAscending)...))
		}
	}
}

// Rule 4: under IDAscending, a list may turn out to be unsorted after hits have been returned. No
// hit is lost then, and none is returned twice.
func TestMergeSortedStartsOver(t *testing.T) {
	ascending := []Hit[string]{{"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}, {"e", 1}}
	disordered := []Hit[string]{{"b", 2}, {"d", 2}, {"a", 0}, {"f", 2}, {"b", 0}}
	dst := []Hit[string]{{"z", 0}, {"a", 0}}
	got := MergeSorted(dst, [][]Hit[string]{ascending, disordered}, 9, IDAscending)
	require.Equal(t, dst, got[:2], "dst was changed")
	require.Equal(t, "a b c d e f", ids(Merge([][]Hit[string]{got[2:]}, 9, IDAscending)))
	require.Len(t, got, 2+6)
}

// Merges may run at the same time.
func TestMergeConcurrently(t *testing.T) {
	lists := [][]Hit[string]{{{"a", 1}, {"c", 3}}, {{"b", 2}, {"c", 3}}, {{"b", 1}}}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			order := allOrders[i%3]
			for range 200 {
				if got, want := ids(Merge(lists, 9, order)), ids(slowMerge(lists, 9, order)); got != want {
					t.Errorf("%v: %s, want %s", order, got, want)
				}
			}
		})
	}
	wg.Wait()
}

// Duplicates are counted however they are found: next to each other, further down, and by ID.
func TestMergeCountsDuplicates(t *testing.T) {
	tests := []struct {
		order Order
		lists [][]Hit[string]
		want  int
	}{
		{ScoreAscending, [][]Hit[string]{{{"a", 1}}, {{"a", 1}}, {{"a", 1}}}, 2},
		{ScoreAscending, [][]Hit[string]{{{"a", 1}}, {{"a", 2}}, {{"b", 3}}}, 1},
		{ScoreAscending, [][]Hit[string]{{{"a", 1}, {"b", 1}}, {{"a", 1}, {"b", 1}}, {{"a", 1}}}, 3},
		{ScoreAscending, [][]Hit[string]{{{"a", 1}, {"a", 1}, {"b", 1}}}, 1},
		{ScoreAscending, [][]Hit[string]{{{"a", 1}, {"a", 1}, {"b", 1}}, {{"a", 1}, {"a", 1}}}, 3},
		{IDAscending, [][]Hit[string]{{{"a", 1}, {"b", 1}}, {{"a", 2}}}, 1},
	}
	for _, tt := range tests {
		_, got := mergeSorted(nil, tt.lists, 9, tt.order)
		require.Equal(t, tt.want, got, "%v", tt.lists)
	}
}

// Rule 2: an ID may be of any ordered type. A floating-point NaN equals itself, as in cmp.Compare.
func TestMergeKindsOfID(t *testing.T) {
	nan64 := math.NaN()
	for _, order := range allOrders {
		floats := Merge([][]Hit[float64]{{{nan64, 1}, {2, 1}}, {{nan64, 1}, {0, 1}, {1, 1}}}, 9, order)
		require.Equal(t, "[{NaN 1} {0 1} {1 1} {2 1}]", fmt.Sprint(floats))
		floats = Merge([][]Hit[float64]{{{nan64, 1}}, {{nan64, 2}}, {{math.Copysign(0, -1), 3}, {0, 4}}}, 9, order)
		require.Len(t, floats, 2)
		bytes := Merge([][]Hit[uint8]{{{3, 1}, {9, 1}}, {{1, 1}, {3, 1}}}, 9, order)
		require.Equal(t, []Hit[uint8]{{1, 1}, {3, 1}, {9, 1}}, bytes)
	}
}

// A long run of equal scores comes out by ID.
func TestMergeLongTies(t *testing.T) {
	const perList = 1000
	lists := make([][]Hit[int], 50)
	for i := range lists {
		for j := range perList {
			lists[i] = append(lists[i], Hit[int]{j*len(lists) + i, 1})
		}
	}
	for _, order := range allOrders {
		for i, h := range MergeSorted(nil, lists, 500, order) {
			require.Equal(t, i, h.ID)
		}
	}
}

// Rule 4: MergeSorted of unsorted lists returns as many hits as the oracle, and no ID twice.
func TestMergeSortedOfUnsortedLists(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		lists, k, order := randomLists(r), r.IntN(40)-1, allOrders[r.IntN(3)]
		checkTrusted(t, MergeSorted(nil, lists, k, order), lists, k, order)
	}
}
