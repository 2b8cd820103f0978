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

// tagged is doc with an ID of any type.
type tagged[ID cmp.Ordered] struct {
	Hit[ID]
	list, at int
}

// checkIDs compares Merge and AppendMergeSorted with the reference, on random lists of hits with these IDs: as hits
// that embed a Hit, as pointers to such ones, and as Hit itself, which are read in ways of their own.
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

		trusted := AppendMergeSorted(nil, values, k, order)
		trustedPointers := pointees(AppendMergeSorted(nil, pointers, k, order))
		trustedBare := AppendMergeSorted(nil, bare, k, order)
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

// checkEachOnce checks what AppendMergeSorted promises of lists that aren't sorted.
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

// Rules 1 to 4 for IDs of every kind, above all where two IDs agree in what is compared first, or hashed.
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

// idKey never says that a greater ID is smaller, and integer tells integers apart.
func TestMergeIDKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 100_000 {
		a, b := make([]byte, r.IntN(11)), make([]byte, r.IntN(11))
		for i := range a {
			a[i] = "\x00\x01a\xff"[r.IntN(4)]
		}
		for i := range b {
			b[i] = "\x00\x01a\xff"[r.IntN(4)]
		}
		copy(b, a[:r.IntN(len(a)+1)])
		if s, u := string(a), string(b); s < u {
			require.LessOrEqual(t, idKey(s), idKey(u), "%q %q", s, u)
		}
		if x, y := int64(r.Uint64()), int64(r.Uint64()); x != y {
			require.Equal(t, x < y, idKey(x) < idKey(y))
			require.Equal(t, uint64(x) < uint64(y), idKey(uint64(x)) < idKey(uint64(y)))
			require.Equal(t, int(x) < int(y), idKey(int(x)) < idKey(int(y)))
		}
		if x, y := int32(r.Uint32()), int32(r.Uint32()); x != y {
			require.Equal(t, x < y, idKey(x) < idKey(y))
			require.Equal(t, uint32(x) < uint32(y), idKey(uint32(x)) < idKey(uint32(y)))
		}
	}
}

// Rule 4: under IDAscending, a list that turns out not to be sorted only after much was put out costs no hit all the
// same, and none of those put out before comes again.
func TestAppendMergeSortedStartsOver(t *testing.T) {
	ascending := []Hit[string]{{"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}, {"e", 1}}
	disordered := []Hit[string]{{"b", 2}, {"d", 2}, {"a", 0}, {"f", 2}, {"b", 0}}
	dst := []Hit[string]{{"z", 0}, {"a", 0}}
	got := AppendMergeSorted(dst, [][]Hit[string]{ascending, disordered}, 9, IDAscending)
	require.Equal(t, dst, got[:2], "what stood in dst is left alone")
	require.Equal(t, "a b c d e f", ids(Merge([][]Hit[string]{got[2:]}, 9, IDAscending)))
	require.Len(t, got, 2+6)
}

// Merges that run at the same time share nothing but what is locked.
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
