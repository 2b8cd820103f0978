package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func names(n int) (nodes []string) {
	for i := range n {
		nodes = append(nodes, fmt.Sprint("n", i+1))
	}
	return nodes
}

func TestTopologyHasDistinctHolders(t *testing.T) {
	for n := range 12 {
		top := newTopology("n1", 7, names(n))
		require.EqualValues(t, 7, top.revision)
		require.Len(t, top.nodes, n)
		held := map[string]int{}
		for p, holders := range top.holders {
			require.Len(t, holders, min(n, copies))
			require.Len(t, slices.Compact(slices.Sorted(slices.Values(holders))), len(holders))
			require.Equal(t, slices.Contains(holders, "n1"), top.held[p])
			for _, token := range []uint64{uint64(p) << 60, uint64(p)<<60 | (1<<60 - 1)} {
				var covered []string
				for _, peer := range top.cover.Holders(token) {
					covered = append(covered, string(peer))
				}
				require.Equal(t, len(holders), len(covered))
				require.ElementsMatch(t, holders, covered)
			}
			for _, node := range holders {
				held[node]++
			}
		}
		for node, count := range held {
			fair := float64(partitions*min(n, copies)) / float64(n)
			require.InDelta(t, fair, count, 0.7*fair+1, "%s of %d", node, n)
		}
	}
}

func TestTopologyMovesFewPartitions(t *testing.T) {
	for n := 3; n < 12; n++ {
		before, after := newTopology("", 1, names(n)), newTopology("", 2, names(n+1))
		moved := 0
		for p := range partitions {
			for _, node := range after.holders[p] {
				if !slices.Contains(before.holders[p], node) {
					moved++
					require.Equal(t, fmt.Sprint("n", n+1), node, "only to the node that came")
				}
			}
		}
		require.LessOrEqual(t, moved, 2*copies*partitions/(n+1))
	}
}

func TestTopologyIgnoresOrderAndRepetition(t *testing.T) {
	a, b := newTopology("n2", 1, []string{"n1", "n2", "n3", "n4"}), newTopology("n2", 1, []string{"n4", "n2", "n3", "n2", "n1"})
	require.Equal(t, a.holders, b.holders)
	require.Equal(t, a.nodes, b.nodes)
}
