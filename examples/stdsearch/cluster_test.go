package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/scatterknn/scatter"
)

// newTestCluster loads documents into a cluster on which each is held by copies nodes at least.
func newTestCluster(t *testing.T, docs []document, top topology, copies int, faults faults) *cluster {
	t.Helper()
	c, err := newCluster(top, faults, &scatter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	var stored atomic.Int64
	if err := c.load(t.Context(), c.shares(docs), false, func() { stored.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if got, want := int(stored.Load()), len(docs)*copies; got < want {
		t.Errorf("stored %d copies, want %d at least", got, want)
	}
	return c
}

func randomDocuments(size int) []document {
	random := rand.New(rand.NewPCG(5, 6))
	docs := make([]document, size)
	for i := range docs {
		docs[i] = document{Row: int32(i), Vector: randomVector(random, 8)}
	}
	return docs
}

// topologies are all kinds, each with as many copies of a document.
func topologies() map[string]struct {
	topology
	copies int
} {
	return map[string]struct {
		topology
		copies int
	}{
		"one node":             {ringTopology(1, 1), 1},
		"a ring of 3":          {ringTopology(3, 2), 2},
		"a ring with all on 5": {ringTopology(5, 5), 5},
		"2 racks of 3":         {rackTopology(6, 2), 2},
		"3 uneven racks":       {rackTopology(7, 3), 3},
		"3 racks of 1":         {rackTopology(3, 3), 3},
		"2 groups of 3":        {groupTopology(6, 3), 3},
		"5 nodes in 2 groups":  {groupTopology(5, 2), 2},
		"1 group":              {groupTopology(3, 2), 2},
	}
}

func TestEachDocumentIsOnAsManyNodesAsReplicas(t *testing.T) {
	docs := randomDocuments(300)
	for name, tt := range topologies() {
		c := newTestCluster(t, docs, tt.topology, tt.copies, faults{})
		holders := make(map[int32]int)
		for peer, n := range c.nodes {
			hits, err := n.nearestRows(t.Context(), docs[0].Vector, part[int32]{k: len(docs)})
			if err != nil {
				t.Fatal(err)
			}
			if len(hits) != n.size || len(hits) == 0 {
				t.Errorf("%s: %s finds %d of its %d documents", name, peer, len(hits), n.size)
			}
			for _, hit := range hits {
				holders[hit.ID]++
			}
		}
		for _, d := range docs {
			want := len(c.topology.cover.Holders(scatter.HashToken(fmt.Sprint(d.Row))))
			if got := holders[d.Row]; got != want || got < tt.copies {
				t.Errorf("%s: row %d is on %d nodes, want %d, at least %d", name, d.Row, got, want, tt.copies)
			}
		}
	}
}

// Any one node may be missing: if each document is on two, the answer is still that of an exact
// search.
func TestReplicasStandInForANode(t *testing.T) {
	docs := randomDocuments(300)
	req := &scatter.Request{
		Table: "vectors", Query: scatter.KNN{Field: "vector", Vector: make([]float32, 8), Ranking: scatter.ScoreAscending}, K: 20,
	}
	want := bruteForce(docs, make([]float32, 8), 20)
	for name, tt := range topologies() {
		if tt.copies < 2 {
			continue
		}
		c := newTestCluster(t, docs, tt.topology, tt.copies, faults{})
		for i := range len(tt.names) + 1 { // With 0, all are there.
			c.faults.down = map[scatter.PeerID]bool{nodeName(i): true}
			res := search(t, c, req)
			if res.Coverage != 1 || res.Exact != len(want) {
				t.Errorf("%s without node%d: coverage %v, exact %d; missing %v", name, i, res.Coverage, res.Exact, res.Missing)
			}
			if rows := rowsOf(res.Hits); !slices.Equal(rows, want) {
				t.Errorf("%s without node%d: the nearest = %v, want %v", name, i, rows, want)
			}
		}
	}
}

// search asks a cluster once.
func search(t *testing.T, c *cluster, req *scatter.Request) *scatter.Response[scatter.Hit[int32]] {
	t.Helper()
	searcher, err := newSearcher(c, c.probeRows)
	if err != nil {
		t.Fatal(err)
	}
	res, err := searcher.Search(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := searcher.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return res
}

func rowsOf(hits []scatter.Hit[int32]) []int32 {
	var rows []int32
	for _, hit := range hits {
		rows = append(rows, hit.ID)
	}
	return rows
}

// Pages of any size are one long answer, with PeerK and without, even if many documents are equally
// far.
func TestPages(t *testing.T) {
	docs := tiedDocuments(200)
	req := scatter.Request{
		Table: "vectors", Query: scatter.KNN{Field: "vector", Vector: make([]float32, 3), Ranking: scatter.ScoreAscending},
	}
	want := bruteForce(docs, make([]float32, 3), len(docs)) // in the order of the rows where equally far
	for name, tt := range topologies() {
		c := newTestCluster(t, docs, tt.topology, tt.copies, faults{})
		for _, peerK := range []func(int, int) int{nil, scatter.SpreadK(0.5)} {
			c.options = &scatter.Options{PeerK: peerK}
			for _, size := range []int{7, 50, 200} {
				var rows []int32
				for page := req; ; {
					page.K = size
					res := search(t, c, &page)
					rows = append(rows, rowsOf(res.Hits[:res.Exact])...)
					if res.Next == "" {
						break
					}
					if res.Exact == 0 && len(rows) < len(want) {
						t.Fatalf("%s: nothing is certain on the page after %d rows", name, len(rows))
					}
					page.After = res.Next
				}
				if !slices.Equal(rows, want) {
					t.Errorf("%s, PeerK %v: pages of %d give %v, want %v", name, peerK != nil, size, rows, want)
				}
			}
		}
	}
}

// tiedDocuments returns documents with few distinct vectors.
func tiedDocuments(size int) []document {
	random := rand.New(rand.NewPCG(5, 6))
	docs := make([]document, size)
	for i := range docs {
		docs[i] = document{Row: int32(i), Vector: make([]float32, 3)}
		for j := range docs[i].Vector {
			docs[i].Vector[j] = float32(random.IntN(2))
		}
	}
	return docs
}

func TestProbeRejectsWhatItCannotAnswer(t *testing.T) {
	c := newTestCluster(t, randomDocuments(3), ringTopology(1, 1), 1, faults{})
	req := &scatter.Request{Query: scatter.Regex{Pattern: "x"}, K: 1}
	_, errSymbols := c.probeSymbols(t.Context(), "node1", req)
	_, errRows := c.probeRows(t.Context(), "node1", req)
	for _, err := range []error{errSymbols, errRows} {
		if !errors.Is(err, scatter.ErrPermanent) || !strings.Contains(err.Error(), "scatter.Regex") {
			t.Errorf("probe of a Regex = %v, want a permanent error that names it", err)
		}
	}
}

func TestLoadStopsWithItsContext(t *testing.T) {
	c, err := newCluster(ringTopology(2, 1), faults{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.load(ctx, c.shares(randomDocuments(100)), false, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("load, cancelled after the first document = %v, want %v", err, context.Canceled)
	}
}

func TestTopologiesShareEvenly(t *testing.T) {
	for name, top := range map[string]topology{
		"ring": ringTopology(6, 1), "racks": rackTopology(6, 1), "groups": groupTopology(6, 1),
	} {
		shares := make(map[scatter.PeerID]int)
		for i := range 12_000 {
			shares[top.cover.Holders(scatter.HashToken(fmt.Sprint(i)))[0]]++
		}
		for _, peer := range top.names {
			if shares[peer] < 1000 || shares[peer] > 3500 {
				t.Errorf("%s: %s holds %d of 12000 keys, want about 2000", name, peer, shares[peer])
			}
		}
	}
}
