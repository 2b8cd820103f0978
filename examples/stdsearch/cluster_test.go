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

func newTestCluster(t *testing.T, docs []document, size, replicas int, faults faults) *cluster {
	t.Helper()
	c, err := newCluster(size, replicas, faults, &scatter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	var stored atomic.Int64
	if err := c.load(t.Context(), docs, false, func() { stored.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if got, want := int(stored.Load()), len(docs)*replicas; got != want {
		t.Errorf("stored %d copies, want %d", got, want)
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

func TestEachDocumentIsOnAsManyNodesAsReplicas(t *testing.T) {
	docs := randomDocuments(300)
	for _, tt := range []struct{ size, replicas int }{{1, 1}, {3, 2}, {5, 5}} {
		c := newTestCluster(t, docs, tt.size, tt.replicas, faults{})
		holders := make(map[int32]int)
		for name, n := range c.nodes {
			hits, err := n.nearestRows(t.Context(), docs[0].Vector, len(docs))
			if err != nil {
				t.Fatal(err)
			}
			if len(hits) != n.size || len(hits) == 0 {
				t.Errorf("%d nodes: %s finds %d of its %d documents", tt.size, name, len(hits), n.size)
			}
			for _, hit := range hits {
				holders[hit.ID]++
			}
		}
		for _, d := range docs {
			if holders[d.Row] != tt.replicas {
				t.Errorf("%d nodes: row %d is on %d of them, want %d", tt.size, d.Row, holders[d.Row], tt.replicas)
			}
		}
	}
}

// Any one node of five may be missing: with two replicas the answer is still that of an exact search.
func TestReplicasStandInForANode(t *testing.T) {
	docs := randomDocuments(300)
	req := &scatter.Request{
		Table: "vectors", Query: scatter.KNN{Field: "vector", Vector: make([]float32, 8), Ranking: scatter.ScoreAscending}, K: 20,
	}
	want := bruteForce(docs, make([]float32, 8), 20)
	for i := range 6 { // 0: all are there
		c := newTestCluster(t, docs, 5, 2, faults{down: map[scatter.PeerID]bool{nodeName(i): true}})
		searcher, err := newSearcher(c, c.probeRows)
		if err != nil {
			t.Fatal(err)
		}
		res, err := searcher.Search(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if err := searcher.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if res.Coverage != 1 {
			t.Errorf("without node%d: coverage %v, want 1; missing %v", i, res.Coverage, res.Missing)
		}
		var rows []int32
		for _, hit := range res.Hits {
			rows = append(rows, hit.ID)
		}
		if !slices.Equal(rows, want) {
			t.Errorf("without node%d: the nearest = %v, want %v", i, rows, want)
		}
	}
}

func TestProbeRejectsWhatItCannotAnswer(t *testing.T) {
	c := newTestCluster(t, randomDocuments(3), 1, 1, faults{})
	req := &scatter.Request{Query: scatter.Regex{Pattern: "x"}, K: 1}
	_, errSymbols := c.probeSymbols(t.Context(), "node1", req)
	_, errRows := c.probeRows(t.Context(), "node1", req)
	for _, err := range []error{errSymbols, errRows} {
		if err == nil || !strings.Contains(err.Error(), "scatter.Regex") {
			t.Errorf("probe of a Regex = %v, want an error that names it", err)
		}
	}
}

func TestLoadStopsWithItsContext(t *testing.T) {
	c, err := newCluster(2, 1, faults{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.load(ctx, randomDocuments(100), false, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("load, cancelled after the first document = %v, want %v", err, context.Canceled)
	}
}

func TestRingSharesEvenly(t *testing.T) {
	c, err := newCluster(5, 1, faults{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	shares := make(map[scatter.PeerID]int)
	for i := range 10_000 {
		shares[c.ring.PreferenceList(ringToken(fmt.Sprint(i)), 1, nil)[0].Peer]++
	}
	for _, name := range c.names() {
		if shares[name] < 1000 || shares[name] > 3500 {
			t.Errorf("%s is first for %d of 10000 keys, want about 2000", name, shares[name])
		}
	}
}
