package main

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
	"github.com/scatterknn/scatter/examples/internal/demotest"
	"github.com/stretchr/testify/require"
)

const (
	forever = -1     // as a PeerDeadline: only the query's context bounds it
	all     = 10_000 // more hits than there are documents
)

var texts = []string{"read a zip archive", "sleep", "atomic counter", "replace substring", "sort descending", "qqq"}

// newTestCluster returns nodes with a few packages of the standard library.
func newTestCluster(t *testing.T, down ...scatter.PeerID) *cluster {
	t.Helper()
	symbols, err := corpus.Read(t.Context(), demotest.SmallGoRoot(t))
	require.NoError(t, err)
	c, err := newCluster(groups, symbols, scatter.Options{
		PeerDeadline: forever,
		Live:         func(p scatter.PeerID) bool { return !slices.Contains(down, p) },
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.close()) })
	return c
}

// spoil makes a new Searcher. Its probes fail if fault returns an error. It doesn't hedge, so that
// the peers that are asked don't depend on the machine's speed.
func (c *cluster) spoil(t *testing.T, fault func(scatter.PeerID, *scatter.Request) error) {
	t.Helper()
	require.NoError(t, c.searcher.Close(t.Context()))
	probe := func(ctx context.Context, p scatter.PeerID, req *scatter.Request) ([]found, error) {
		if err := fault(p, req); err != nil {
			return nil, err
		}
		return c.probe(ctx, p, req)
	}
	var err error
	c.searcher, err = scatter.NewSearcher(probe, c.cover, &scatter.SearcherOptions{Options: c.options, HedgeDelay: -1})
	require.NoError(t, err)
}

// truth is the oracle: the fused list of everything, from one node of each group.
func (c *cluster) truth(t *testing.T, text string) []string {
	t.Helper()
	var lists []list
	for _, query := range []scatter.Query{
		byWords(text), scatter.KNN{Vector: c.embed.vector(text), Ranking: scatter.ScoreDescending},
	} {
		var parts [][]found
		for _, peer := range []scatter.PeerID{"node1", "node3", "node5"} {
			hits, err := c.probe(t.Context(), peer, &scatter.Request{Query: query, K: all})
			require.NoError(t, err)
			parts = append(parts, hits)
		}
		var l list
		for _, h := range scatter.Merge(parts, all, scatter.ScoreDescending) {
			l.ids = append(l.ids, h.ID)
		}
		lists = append(lists, l)
	}
	return idsOf(fuse(lists...))
}

// ranked returns the IDs of an answer in the order of their fused ranks.
func (a *answer) ranked() []string {
	ids := make([]string, len(a.hits))
	for _, h := range a.hits {
		ids[h.rank-1] = h.id
	}
	return ids
}

// checkCertain searches, and checks that no rank is called certain that isn't. It returns the sum
// of all certain ranks.
func (c *cluster) checkCertain(t *testing.T) (sum int) {
	t.Helper()
	for _, text := range texts {
		truth := c.truth(t, text)
		for _, depth := range []int{1, 3, 10, 50, all} {
			a, err := c.search(t.Context(), text, depth, depth)
			require.NoError(t, err)
			require.True(t, slices.Equal(truth[:a.certain], a.ranked()[:a.certain]), "%q, depth %d", text, depth)
			for _, resp := range []*scatter.Response[found]{a.byWords, a.byKNN} {
				for _, p := range resp.Peers {
					require.False(t, p.Unsorted, "%+v, want a node to rank as scatter does", p)
				}
			}
			sum += a.certain
		}
	}
	return sum
}

// A node that is down costs nothing if the other one of its group is up. If both are down, no rank
// is certain.
func TestCertainWithNodesDown(t *testing.T) {
	whole := newTestCluster(t).checkCertain(t)
	require.Greater(t, whole, 50)
	require.Equal(t, whole, newTestCluster(t, "node1", "node4").checkCertain(t))
	require.Zero(t, newTestCluster(t, "node3", "node4").checkCertain(t))
}

// If everything is asked for, every rank is certain.
func TestAllCertain(t *testing.T) {
	c := newTestCluster(t)
	a, err := c.search(t.Context(), "read a zip archive", all, all)
	require.NoError(t, err)
	require.Equal(t, c.truth(t, "read a zip archive"), a.ranked())
	require.Equal(t, len(a.hits), a.certain)
}

// One group fails in one of the two lists. The other list is whole, but tells nothing of the ranks
// in the first.
func TestCertainWithOneListPartial(t *testing.T) {
	broken := errors.New("broken")
	c := newTestCluster(t)
	c.spoil(t, func(p scatter.PeerID, req *scatter.Request) error {
		if _, knn := req.Query.(scatter.KNN); knn && (p == "node5" || p == "node6") {
			return broken
		}
		return nil
	})
	require.Zero(t, c.checkCertain(t))
	a, err := c.search(t.Context(), "zip", 10, 50)
	require.NoError(t, err)
	require.False(t, a.byWords.Partial)
	require.True(t, a.byKNN.Partial)
	require.Len(t, a.hits, 10)
}

// Nodes give few hits at first and fail when asked for more: fewer ranks are exact, and fewer are
// certain, although nothing is partial.
func TestCertainWithFewExact(t *testing.T) {
	c := newTestCluster(t)
	whole := c.checkCertain(t)
	c.options.PeerK = func(k, _ int) int { return (k + 3) / 4 }
	require.Equal(t, whole, c.checkCertain(t), "the nodes that matter were asked once more")

	c.spoil(t, func(_ scatter.PeerID, req *scatter.Request) error {
		if req.Skip > 0 {
			return errors.New("broken")
		}
		return nil
	})
	few := c.checkCertain(t)
	require.Positive(t, few)
	require.Less(t, few, whole)
}

// Both lists and the scores come from the same replicas.
func TestSameReplicas(t *testing.T) {
	c := newTestCluster(t)
	c.spoil(t, func(scatter.PeerID, *scatter.Request) error { return nil })
	used := make(map[string]bool)
	for _, text := range texts {
		a, err := c.search(t.Context(), text, 5, 20)
		require.NoError(t, err)
		answered := func(resp *scatter.Response[found]) string {
			var names []string
			for _, p := range resp.Peers {
				if p.Status == scatter.Answered && p.Role == scatter.Primary {
					names = append(names, string(p.Peer))
				}
			}
			return strings.Join(names, " ")
		}
		require.Len(t, a.byWords.Peers, groups)
		require.Equal(t, answered(a.byWords), answered(a.byKNN))
		require.Equal(t, answered(a.byWords), answered(a.scores))
		used[answered(a.byWords)] = true
	}
	require.Greater(t, len(used), 1, "the same replicas for each text")
}

// The best of the fused list are ranked by their full vectors.
func TestRank(t *testing.T) {
	c := newTestCluster(t)
	a, err := c.search(t.Context(), "read a zip archive", 10, 50)
	require.NoError(t, err)
	require.Len(t, a.hits, 10)
	vector := c.embed.vector("read a zip archive")
	for i, h := range a.hits {
		var want float64
		for j, x := range c.nodes[c.cover.Holders(scatter.HashToken(h.id))[0]].docs[h.id].vector {
			want += float64(x) * float64(vector[j])
		}
		require.InDelta(t, want, h.cosine, 1e-5)
		require.NotEmpty(t, h.summary)
		if i > 0 {
			require.GreaterOrEqual(t, a.hits[i-1].cosine, h.cosine)
		}
	}
}

// If the nodes of a group fail after the two searches, their documents have no score and come last.
func TestRankWithoutScores(t *testing.T) {
	c := newTestCluster(t)
	lost := []scatter.PeerID{"node1", "node2"}
	c.spoil(t, func(p scatter.PeerID, req *scatter.Request) error {
		if _, ok := req.Query.(scores); ok && slices.Contains(lost, p) {
			return errors.New("broken")
		}
		return nil
	})
	a, err := c.search(t.Context(), "read a zip archive", 10, 50)
	require.NoError(t, err)
	require.True(t, a.scores.Partial)
	require.Len(t, a.hits, 10)
	unscored := 0
	for _, h := range a.hits {
		isLost := slices.Contains(lost, c.cover.Holders(scatter.HashToken(h.id))[0])
		require.Equal(t, isLost, math.IsNaN(float64(h.cosine)))
		if isLost {
			unscored++
		} else {
			require.Zero(t, unscored, "a document with a score after one without")
		}
	}
	require.Positive(t, unscored)
}

func TestSearchErrors(t *testing.T) {
	c := newTestCluster(t, "node1", "node2", "node3", "node4", "node5", "node6")
	_, err := c.search(t.Context(), "zip", 1, 1)
	require.ErrorIs(t, err, errNoAnswer)

	c = newTestCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.search(ctx, "zip", 1, 1)
	require.ErrorIs(t, err, context.Canceled)

	_, err = c.searcher.Search(t.Context(), &scatter.Request{Query: scatter.Text{}, K: 1}, nil)
	require.ErrorIs(t, err, scatter.ErrPermanent)

	// Nothing in a query is read as the syntax of FTS5.
	_, err = c.search(t.Context(), `zip" OR ( NEAR * : "`, 1, 1)
	require.NoError(t, err)
}

func TestRun(t *testing.T) {
	root := demotest.SmallGoRoot(t)
	search := func(args ...string) string {
		var out strings.Builder
		require.NoError(t, run(t.Context(), append([]string{"-goroot", root, "-deadline", "1m"}, args...), &out))
		return out.String()
	}
	out := search("-k", "3", "read", "a", "zip", "archive")
	require.Contains(t, out, "  archive/zip.")
	require.Contains(t, out, "\nfused ranks certain up to 3\nwords: coverage 100 %, exact up to rank 50\n")
	require.Contains(t, out, "\nvectors: coverage 100 %, exact up to rank 50\n")
	require.Contains(t, out, "\nscores: coverage 100 %, exact up to rank 3\n")

	out = search("-k", "3", "-down", "node1,node2", "read a zip archive")
	require.Contains(t, out, "\nfused ranks certain up to 0\nwords: coverage 67 %, ")
	require.Contains(t, out, "  node1 Dead  node2 Dead  ")

	for _, tt := range []struct{ args, want string }{
		{"", `QUERY is "", want words`},
		{"?! ...", `QUERY is "?! ...", want words`},
		{"-k 0 zip", "-k is 0, want 1 or more"},
		{"-depth 9 zip", "-depth is 9, want 10 or more"},
		{"-deadline 0 zip", "-deadline is 0s, want more than 0"},
		{"-down node7 zip", `-down has "node7", want node1 to node6`},
		{"-down node1,node2,node3,node4,node5,node6 zip", "no node has answered"},
	} {
		args := append([]string{"-goroot", root}, strings.Fields(tt.args)...)
		require.ErrorContains(t, run(t.Context(), args, new(strings.Builder)), tt.want)
	}
}
