//go:build !race

package scatter

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// These tests are not in merge_test.go because the race detector makes sync.Pool drop what is put
// into it.

// Merge allocates its result and nothing else. MergeSorted into a slice with room allocates
// nothing.
func TestMergeAllocations(t *testing.T) {
	lists := make([][]Hit[string], 20)
	for i := range lists {
		for j := range 50 {
			lists[i] = append(lists[i], Hit[string]{fmt.Sprint(i%15, "-", j), float32(j / 2)})
		}
		slowSort(lists[i], ScoreAscending)
	}
	byID := make([][]Hit[string], len(lists))
	for i := range lists {
		byID[i] = slices.Clone(lists[i])
		slowSort(byID[i], IDAscending)
	}
	dst := make([]Hit[string], 0, 100)
	for _, tt := range []struct {
		order Order
		lists [][]Hit[string]
	}{{ScoreAscending, lists}, {IDAscending, byID}} {
		require.Equal(t, 1.0, testing.AllocsPerRun(100, func() { Merge(tt.lists, 100, tt.order) }), tt.order)
		require.Zero(t, testing.AllocsPerRun(100, func() { MergeSorted(dst, tt.lists, 100, tt.order) }), tt.order)
	}
}

// The same holds for hits that embed a Hit, for pointers to these, and for IDs that aren't strings.
func TestMergeAllocationsOfOtherHits(t *testing.T) {
	type titled struct {
		Hit[string]
		Title string
	}
	values, numbers := make([][]titled, 20), make([][]Hit[uint64], 20)
	pointers := make([][]*titled, len(values))
	for i := range values {
		for j := range 50 {
			values[i] = append(values[i], titled{Hit[string]{fmt.Sprintf("%02d-%d", j, i%15), float32(j / 2)}, "title"})
			numbers[i] = append(numbers[i], Hit[uint64]{uint64(j*15 + i%15), float32(j / 2)})
		}
		for j := range values[i] {
			pointers[i] = append(pointers[i], &values[i][j])
		}
	}
	for _, order := range []Order{ScoreAscending, IDAscending} { // they are sorted in both
		checkAllocations(t, values, order)
		checkAllocations(t, pointers, order)
		checkAllocations(t, numbers, order)
	}
}

func checkAllocations[H Ranked[ID], ID cmp.Ordered](t *testing.T, lists [][]H, order Order) {
	t.Helper()
	dst := make([]H, 0, 100)
	require.Equal(t, 1.0, testing.AllocsPerRun(100, func() { Merge(lists, 100, order) }), "%T", lists)
	require.Equal(t, 1.0, testing.AllocsPerRun(100, func() { MergeSorted(nil, lists, 100, order) }), "%T", lists)
	require.Zero(t, testing.AllocsPerRun(100, func() { MergeSorted(dst, lists, 100, order) }), "%T", lists)
}
