package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
)

// newTestNode makes a node with documents of random vectors, and returns the documents too.
func newTestNode(t *testing.T, size int, ivf bool) (*node, []document) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	docs := make([]document, size)
	for i := range docs {
		docs[i] = document{
			Row: int32(i), ID: fmt.Sprintf("p.F%04d", i), Summary: fmt.Sprintf("summary %d", i), Body: fmt.Sprintf("body %d.", i),
			Vector: randomVector(random, 16),
		}
	}
	n, err := newNode()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.load(t.Context(), docs, func() {}); err != nil {
		t.Fatal(err)
	}
	if err := n.index(t.Context(), ivf); err != nil {
		t.Fatal(err)
	}
	return n, docs
}

func randomVector(random *rand.Rand, dimension int) []float32 {
	v := make([]float32, dimension)
	for i := range v {
		v[i] = float32(random.NormFloat64())
	}
	return v
}

// bruteForce is the oracle: it returns the rows nearest to v.
func bruteForce(docs []document, v []float32, k int) []int32 {
	docs = slices.Clone(docs)
	slices.SortStableFunc(docs, func(a, b document) int {
		return cmp.Compare(squaredL2(v, a.Vector), squaredL2(v, b.Vector))
	})
	var rows []int32
	for _, d := range docs[:min(k, len(docs))] {
		rows = append(rows, d.Row)
	}
	return rows
}

func TestFlatIndexIsExact(t *testing.T) {
	n, docs := newTestNode(t, 500, false)
	random := rand.New(rand.NewPCG(3, 4))
	for _, k := range []int{1, 7, 500, 1000} {
		for range 10 {
			v := randomVector(random, 16)
			hits, err := n.nearestRows(t.Context(), v, part[int32]{k: k})
			if err != nil {
				t.Fatal(err)
			}
			var rows []int32
			for _, hit := range hits {
				rows = append(rows, hit.ID)
				if want := squaredL2(v, docs[hit.ID].Vector); !near(float64(hit.Score), want) {
					t.Fatalf("score of row %d = %v, want its distance, %v", hit.ID, hit.Score, want)
				}
			}
			if want := bruteForce(docs, v, k); !slices.Equal(rows, want) {
				t.Fatalf("the nearest %d = %v, want %v", k, rows, want)
			}
		}
	}
}

func near(a, b float64) bool { return a <= b*(1+tolerance) && b <= a*(1+tolerance) }

func TestIVFIndexIsSortedAndTellsTrueDistances(t *testing.T) {
	n, docs := newTestNode(t, 2000, true)
	random := rand.New(rand.NewPCG(3, 4))
	missed := false
	for range 20 {
		v := randomVector(random, 16)
		hits, err := n.nearestRows(t.Context(), v, part[int32]{k: 10})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(hits, func(a, b scatter.Hit[int32]) int { return cmp.Compare(a.Score, b.Score) }) {
			t.Errorf("hits are not sorted: %v", hits)
		}
		var rows []int32
		for _, hit := range hits {
			rows = append(rows, hit.ID)
			if want := squaredL2(v, docs[hit.ID].Vector); !near(float64(hit.Score), want) {
				t.Errorf("score of row %d = %v, want its distance, %v", hit.ID, hit.Score, want)
			}
		}
		missed = missed || !slices.Equal(rows, bruteForce(docs, v, 10))
	}
	if !missed {
		t.Errorf("each of 20 answers is exact, so nothing was approximated")
	}
}

// Parts of a ranking follow each other without a gap, also between rows that are equally far.
func TestPartsOfARanking(t *testing.T) {
	docs := tiedDocuments(100)
	n, err := newNode()
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if err := errors.Join(n.load(t.Context(), docs, func() {}), n.index(t.Context(), false)); err != nil {
		t.Fatal(err)
	}
	v := make([]float32, 3)
	all := bruteForce(docs, v, len(docs))
	for from := range len(docs) + 1 {
		p := part[int32]{k: 7, behind: from > 0}
		if p.behind {
			p.after = scatter.Hit[int32]{ID: all[from-1], Score: float32(squaredL2(v, docs[all[from-1]].Vector))}
		}
		for _, p.skip = range []int{0, 3, 9} {
			hits, err := n.nearestRows(t.Context(), v, p)
			end := min(from+p.k, len(all))
			if want := all[min(from+p.skip, end):end]; err != nil || !slices.Equal(rowsOf(hits), want) {
				t.Errorf("behind %d rows, without %d: %v, %v, want %v", from, p.skip, rowsOf(hits), err, want)
			}
		}
	}
}

func TestPartsOfText(t *testing.T) {
	n, _ := newTestNode(t, 50, false)
	for from := range 12 {
		p := part[string]{k: 3, behind: from > 0}
		if p.behind {
			p.after.ID = fmt.Sprintf("p.F%04d", 4*from) // of those with "body 4" in them, or not
		}
		for _, p.skip = range []int{0, 2, 5} {
			var want []string
			for i := range 50 {
				if id := fmt.Sprintf("p.F%04d", i); id > p.after.ID && len(want) < p.k && (i == 4 || i/10 == 4) {
					want = append(want, id)
				}
			}
			want = want[min(p.skip, len(want)):]
			hits, err := n.symbolsContaining(t.Context(), []byte("y 4"), p)
			var ids []string
			for _, hit := range hits {
				ids = append(ids, hit.ID)
			}
			if err != nil || !slices.Equal(ids, want) {
				t.Errorf("behind %q, without %d: %v, %v, want %v", p.after.ID, p.skip, ids, err, want)
			}
		}
	}
}

// Too few documents to train on, or none at all, must not be an error.
func TestIndexOfFewDocuments(t *testing.T) {
	for size := range 20 {
		for _, ivf := range []bool{false, true} {
			n, _ := newTestNode(t, size, ivf)
			hits, err := n.nearestSymbols(t.Context(), make([]float32, 16), part[string]{k: 100})
			if err != nil || !ivf && len(hits) != size || len(hits) > size || size > 0 && len(hits) == 0 {
				t.Errorf("%d documents, ivf %v: %d hits, %v", size, ivf, len(hits), err)
			}
		}
	}
}

func TestNearestSymbols(t *testing.T) {
	n, docs := newTestNode(t, 50, false)
	hits, err := n.nearestSymbols(t.Context(), docs[7].Vector, part[string]{k: 1})
	want := found{Hit: scatter.Hit[string]{ID: "p.F0007"}, Summary: "summary 7"}
	if err != nil || !slices.Equal(hits, []found{want}) {
		t.Errorf("nearestSymbols = %v, %v, want %v", hits, err, want)
	}
}

func TestSymbolsContaining(t *testing.T) {
	n, _ := newTestNode(t, 50, false)
	for _, tt := range []struct {
		substring string
		k         int
		want      []string
	}{
		{"y 4", 3, []string{"p.F0004", "p.F0040", "p.F0041"}},
		{"y 4", 100, []string{"p.F0004", "p.F0040", "p.F0041", "p.F0042", "p.F0043", "p.F0044", "p.F0045", "p.F0046",
			"p.F0047", "p.F0048", "p.F0049"}},
		{"7.", 10, []string{"p.F0007", "p.F0017", "p.F0027", "p.F0037", "p.F0047"}},
		{"%", 10, nil}, // no pattern
		{"BODY", 10, nil},
	} {
		hits, err := n.symbolsContaining(t.Context(), []byte(tt.substring), part[string]{k: tt.k})
		var ids []string
		for _, hit := range hits {
			ids = append(ids, hit.ID)
		}
		if err != nil || !slices.Equal(ids, tt.want) {
			t.Errorf("the first %d containing %q = %v, %v, want %v", tt.k, tt.substring, ids, err, tt.want)
		}
	}
}

func TestNodeHonoursContext(t *testing.T) {
	n, docs := newTestNode(t, 50, false)
	cause := errors.New("no longer wanted")

	over, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for range 10 { // The select in use may go either way.
		if _, err := n.nearestRows(over, docs[0].Vector, part[int32]{k: 1}); !errors.Is(err, cause) {
			t.Fatalf("a search after its context is over = %v, want the cause", err)
		}
		if err := n.load(over, docs, func() {}); !errors.Is(err, cause) {
			t.Fatalf("a load after its context is over = %v, want the cause", err)
		}
	}

	<-n.free // as if a search were running
	waiting, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Millisecond, func() { cancel(cause) })
	if _, err := n.nearestRows(waiting, docs[0].Vector, part[int32]{k: 1}); !errors.Is(err, cause) {
		t.Errorf("a search that waits for another = %v, want the cause", err)
	}
	n.free <- struct{}{}

	if _, err := n.nearestRows(t.Context(), docs[0].Vector, part[int32]{k: 1}); err != nil {
		t.Errorf("a search after those = %v, want no error", err)
	}
}

func TestNodeReportsBadVector(t *testing.T) {
	n, _ := newTestNode(t, 5, false)
	if _, err := n.nearestRows(t.Context(), []float32{1, 2, 3}, part[int32]{k: 1}); err == nil {
		t.Errorf("a query of another dimension gave no error")
	}
	if err := n.load(t.Context(), []document{{Row: 9, Vector: []float32{1}}}, func() {}); err == nil {
		t.Errorf("a document of another dimension gave no error")
	}
}
