//go:build !race

package scatter

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Here and not in merge_test.go, because the race detector makes sync.Pool forget.

// Merge allocates its result and nothing else; AppendMerge into a slice with room allocates nothing.
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
		require.Zero(t, testing.AllocsPerRun(100, func() { AppendMerge(dst, tt.lists, 100, tt.order) }), tt.order)
		require.Zero(t, testing.AllocsPerRun(100, func() { AppendMergeSorted(dst, tt.lists, 100, tt.order) }), tt.order)
	}
}
