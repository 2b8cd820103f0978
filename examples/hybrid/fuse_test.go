package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func idsOf(all []fused) []string {
	var ids []string
	for _, f := range all {
		ids = append(ids, f.id)
	}
	return ids
}

func TestFuse(t *testing.T) {
	all := fuse(list{ids: []string{"a", "b", "c"}}, list{ids: []string{"c", "b", "d"}})
	require.Equal(t, []string{"c", "b", "a", "d"}, idsOf(all))
	require.Equal(t, []int{3, 1}, all[0].ranks)
	require.Equal(t, 1.0/63+1.0/61, all[0].score)
	require.Equal(t, []int{0, 3}, all[3].ranks)
	require.Equal(t, 1.0/63, all[3].score)

	require.Equal(t, []string{"x", "y"}, idsOf(fuse(list{ids: []string{"y"}}, list{ids: []string{"x"}})), "a tie")
	require.Empty(t, fuse(list{}, list{}))
}

func TestCertain(t *testing.T) {
	ten := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	for _, tt := range []struct {
		name  string
		lists []list
		want  int
	}{
		{"nothing is known", []list{{}, {}}, 0},
		{"there is nothing", []list{{whole: true}, {whole: true}}, 0},
		{"both lists are whole", []list{{ten, 10, true}, {ten[:3], 3, true}}, 10},
		// j has 2/70, and a document that is unseen 2/71 at most.
		{"equal lists", []list{{ten, 10, false}, {ten, 10, false}}, 10},
		// j has 2/70, but e, after the exact ranks, might have any.
		{"half of the ranks are exact", []list{{ten, 4, false}, {ten, 4, false}}, 4},
		{"no rank of one list is exact", []list{{ten, 10, false}, {ten, 0, false}}, 0},
		// What is in the first list only may have 1/61 + 1/62, and a, if it is all that is known,
		// 2/61.
		{"the second list ends early", []list{{ten, 10, false}, {ten[:1], 1, false}}, 1},
		{"the second list is short, and whole", []list{{ten, 10, false}, {ten[:1], 1, true}}, 10},
		// a has 1/61 + 0 at least, and an unseen one 1/62 + 1/61 at most.
		{"lists have nothing in common", []list{{ten[:1], 1, false}, {ten[1:2], 1, false}}, 0},
		{"one list", []list{{ten, 7, false}}, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, certain(fuse(tt.lists...), tt.lists...))
		})
	}
}

// For random rankings of which parts are hidden, the ranks that are called certain are those of the
// whole rankings.
func TestCertainOracle(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const worlds = 10_000
	sum, most := 0, 0
	for range worlds {
		docs := make([]string, 1+random.IntN(60))
		for i := range docs {
			docs[i] = fmt.Sprintf("doc%02d", i)
		}
		down := random.IntN(8) // peer of the documents that are missing if a list is partial
		whole, known := make([]list, 1+random.IntN(3)), []list(nil)
		blend := random.Float64() // how much the rankings differ
		for i := range whole {
			whole[i] = randomRanking(random, docs, blend)
			known = append(known, hidden(random, whole[i], down))
		}
		truth, all := idsOf(fuse(whole...)), fuse(known...)
		n := certain(all, known...)
		require.LessOrEqual(t, n, len(truth))
		require.True(t, slices.Equal(truth[:n], idsOf(all)[:n]), "%d ranks, known %+v of %+v", n, known, whole)
		sum, most = sum+n, max(most, n)
	}
	require.Greater(t, sum, worlds, "too few are certain for a test of them")
	require.Greater(t, most, 40)
}

// randomRanking returns some of the documents, in an order that differs the more from that of their
// names the greater blend is.
func randomRanking(random *rand.Rand, docs []string, blend float64) list {
	place := make(map[string]float64)
	var ids []string
	for i, id := range docs {
		if random.Float64() < 0.9 {
			place[id] = float64(i) + blend*float64(len(docs))*random.Float64()
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		if place[a] < place[b] {
			return -1
		}
		return 1
	})
	return list{ids: ids, exact: len(ids), whole: true}
}

// hidden returns what a Response would tell of a ranking: all of it, a beginning, a beginning with
// gaps after the exact ranks, or what is left without the documents of a peer.
func hidden(random *rand.Rand, l list, down int) list {
	exact := random.IntN(len(l.ids) + 1)
	switch random.IntN(8) {
	case 0, 1:
		return l
	case 2, 3, 4:
		return list{ids: l.ids[:exact], exact: exact}
	case 5, 6:
		ids := slices.Clone(l.ids[:exact])
		for _, id := range l.ids[exact:] {
			if random.IntN(2) == 0 {
				ids = append(ids, id)
			}
		}
		return list{ids: ids, exact: exact}
	}
	ids := slices.DeleteFunc(slices.Clone(l.ids), func(id string) bool { return int(id[4])%8 == down })
	return list{ids: ids} // partial
}
