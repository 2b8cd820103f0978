package main

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/ext/fts5"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
)

// found is a hit with the first sentence of its documentation.
type found struct {
	scatter.Hit[string]
	Summary string
}

// document is what a node holds of a symbol, but for its text.
type document struct {
	id, summary string
	vector      []float32 // of length 1
	rough       []int8    // the same with 8 bits for each dimension, which is what a search reads
	length      float32   // of rough
}

// newDocument quantizes a vector.
func newDocument(s corpus.Symbol, vector []float32) *document {
	d := &document{id: s.ID, summary: s.Summary, vector: vector, rough: make([]int8, len(vector))}
	var greatest float32
	for _, x := range vector {
		greatest = max(greatest, x, -x)
	}
	var square float64
	for i, x := range vector {
		d.rough[i] = int8(math.Round(float64(x / cmp.Or(greatest, 1) * math.MaxInt8)))
		square += float64(d.rough[i]) * float64(d.rough[i])
	}
	d.length = max(float32(math.Sqrt(square)), 1)
	return d
}

// node is a peer: an index of its documents by words, in SQLite, and by vectors.
type node struct {
	mu   sync.Mutex // held while conn is used
	conn *sqlite3.Conn
	docs map[string]*document
}

func newNode() (*node, error) {
	conn, err := sqlite3.Open(":memory:")
	if err != nil {
		return nil, err
	}
	if err = fts5.Register(conn); err == nil {
		err = conn.Exec(`CREATE VIRTUAL TABLE docs USING fts5(id, text, tokenize = porter)`)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &node{conn: conn, docs: make(map[string]*document)}, nil
}

func (n *node) add(d *document, text string) error {
	n.docs[d.id] = d
	stmt, _, err := n.conn.Prepare(`INSERT INTO docs(id, text) VALUES (?, ?)`)
	if err != nil {
		return err
	}
	defer stmt.Close()
	if err := cmp.Or(stmt.BindText(1, d.id), stmt.BindText(2, text)); err != nil {
		return err
	}
	return stmt.Exec()
}

// byWords returns the k documents with the best BM25 score, by the statistics of this node alone.
// The score is rounded so that two scores are equal as float32 only if they are equal here: a node
// must rank as scatter does.
func (n *node) byWords(ctx context.Context, match string, k int) ([]found, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conn.SetInterrupt(ctx)
	defer n.conn.SetInterrupt(context.Background())
	stmt, _, err := n.conn.Prepare(
		`SELECT id, round(-bm25(docs), 3) AS score FROM docs WHERE docs MATCH ? ORDER BY score DESC, id LIMIT ?`)
	if err != nil {
		return nil, err
	}
	defer stmt.Close()
	if err := cmp.Or(stmt.BindText(1, match), stmt.BindInt(2, k)); err != nil {
		return nil, err
	}
	var hits []found
	for stmt.Step() {
		hits = append(hits, n.docs[stmt.ColumnText(0)].hit(float32(stmt.ColumnFloat(1))))
	}
	return hits, stmt.Err()
}

// byVector returns the k documents with the best cosine, by the rough vectors.
func (n *node) byVector(vector []float32, k int) []found {
	var hits []found
	for _, d := range n.docs {
		var dot float32
		for i, x := range d.rough {
			dot += float32(x) * vector[i]
		}
		hits = append(hits, d.hit(dot/d.length))
	}
	sortHits(hits)
	return hits[:min(k, len(hits))]
}

// scores returns the documents with these IDs that the node holds, by the cosine of their full
// vectors.
func (n *node) scores(vector []float32, ids []string) []found {
	var hits []found
	for _, id := range ids {
		if d := n.docs[id]; d != nil {
			var dot float32
			for i, x := range d.vector {
				dot += x * vector[i]
			}
			hits = append(hits, d.hit(dot))
		}
	}
	sortHits(hits)
	return hits
}

func (d *document) hit(score float32) found {
	return found{scatter.Hit[string]{ID: d.id, Score: score}, d.summary}
}

func sortHits(hits []found) {
	slices.SortFunc(hits, func(a, b found) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ID, b.ID))
	})
}
