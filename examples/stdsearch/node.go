package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/ext/vec1"
	"github.com/scatterknn/scatter"
)

// document is what a node stores. A vector from a file has no ID, summary and body.
type document struct {
	Row     int32 // its number in the whole corpus, the same on every node
	ID      string
	Summary string
	Body    string
	Vector  []float32
}

// found is a hit on a symbol. It embeds a scatter.Hit, and so carries the symbol's first sentence
// through the merge.
type found struct {
	scatter.Hit[string]
	Summary string
}

// node is one member of the cluster: a SQLite database in memory, with the extension vec1 as its
// vector index. It holds its own share of the documents and knows nothing of the other nodes.
type node struct {
	conn *sqlite3.Conn
	free chan struct{} // holds a token; only the goroutine that has taken it may use conn
	size int           // documents held
}

// In the schema, near is the vector index, and doc has what belongs to each vector. A document has
// the same rowid in both.
const schema = `
	CREATE VIRTUAL TABLE near USING vec1(vector);
	CREATE TABLE doc(row INTEGER PRIMARY KEY, id TEXT, summary TEXT, body TEXT);`

func newNode() (*node, error) {
	conn, err := sqlite3.Open(":memory:")
	if err != nil {
		return nil, err
	}
	if err = vec1.Register(conn); err == nil {
		err = conn.Exec(schema)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	n := &node{conn: conn, free: make(chan struct{}, 1)}
	n.free <- struct{}{}
	return n, nil
}

// close waits for a search that still runs. The node can't be used afterwards.
func (n *node) close() error {
	<-n.free
	return n.conn.Close()
}

// load stores documents, and calls stored after each.
func (n *node) load(ctx context.Context, docs []document, stored func()) error {
	return n.use(ctx, func(conn *sqlite3.Conn) (err error) {
		tx := conn.Begin()
		defer tx.End(&err)
		near, _, err := conn.Prepare(`INSERT INTO near(rowid, vector) VALUES (?, ?)`)
		if err != nil {
			return err
		}
		defer near.Close()
		text, _, err := conn.Prepare(`INSERT INTO doc(row, id, summary, body) VALUES (?, ?, ?, ?)`)
		if err != nil {
			return err
		}
		defer text.Close()
		for _, d := range docs {
			if err := execute(near, d.Row, d.Vector); err != nil {
				return err
			}
			if d.ID != "" {
				if err := execute(text, d.Row, d.ID, d.Summary, d.Body); err != nil {
					return err
				}
			}
			stored()
		}
		n.size += len(docs)
		return nil
	})
}

// index builds the vector index: a flat one, which is exact because it looks at every vector, or an
// inverted file (IVF), which looks only at the few buckets nearest to the query and misses what is
// in others.
func (n *node) index(ctx context.Context, ivf bool) error {
	return n.use(ctx, func(conn *sqlite3.Conn) error {
		buckets := int(math.Sqrt(float64(n.size)))
		if !ivf || buckets < 4 { // too few to train
			return conn.Exec(`INSERT INTO near(cmd, arg) VALUES ('rebuild', '{index: "flat"}')`)
		}
		stride := max(1, n.size/(16*buckets)) // About 16 vectors for each bucket are enough for training.
		return conn.Exec(fmt.Sprintf(`
			INSERT INTO near(cmd, arg)
			SELECT 'rebuild', vec1_train(vector, '{nbucket: %d}') FROM near WHERE rowid %% %d = 0`, buckets, stride))
	})
}

// part is the part of a ranking that a node is asked for: the first k hits, or the first k behind a
// place, without the first skip of them.
type part[ID cmp.Ordered] struct {
	k, skip int
	behind  bool // whether the part is behind after
	after   scatter.Hit[ID]
}

// nearestRows returns the rows nearest to v, by squared Euclidean distance.
func (n *node) nearestRows(ctx context.Context, v []float32, p part[int32]) ([]scatter.Hit[int32], error) {
	return nearest(p, func(hit scatter.Hit[int32]) scatter.Hit[int32] { return hit },
		func(k int) (hits []scatter.Hit[int32], err error) {
			err = n.query(ctx, func(row *sqlite3.Stmt) {
				hits = append(hits, scatter.Hit[int32]{ID: int32(row.ColumnInt(0)), Score: float32(row.ColumnFloat(1))})
			}, `SELECT rowid, distance FROM near(?, ?)`, v, searchOptions(k))
			return hits, err
		})
}

// nearestSymbols returns the symbols nearest to v, by squared Euclidean distance.
func (n *node) nearestSymbols(ctx context.Context, v []float32, p part[string]) ([]found, error) {
	return nearest(p, func(hit found) scatter.Hit[string] { return hit.Hit }, func(k int) ([]found, error) {
		// CROSS JOIN keeps SQLite from reading all of doc first.
		return n.symbols(ctx, `SELECT id, summary, distance FROM near(?, ?) CROSS JOIN doc ON doc.row = near.rowid`,
			v, searchOptions(k))
	})
}

func searchOptions(k int) string { return fmt.Sprintf(`{k: %d}`, k) }

// nearest returns a part of the ranking of which fetch returns the first k hits. The index knows
// neither places in a ranking nor an order among hits that are equally far. So nearest fetches as
// many hits as it takes to see that no other hit is as near as the last one of the part.
func nearest[H any, ID cmp.Ordered](
	p part[ID], ranked func(H) scatter.Hit[ID], fetch func(k int) ([]H, error),
) ([]H, error) {
	compare := func(a, b scatter.Hit[ID]) int { return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(a.ID, b.ID)) }
	for k := p.k + 1; ; k *= 2 {
		hits, err := fetch(k)
		if err != nil {
			return nil, err
		}
		all := len(hits) < k
		slices.SortFunc(hits, func(a, b H) int { return compare(ranked(a), ranked(b)) })
		if p.behind {
			hits = slices.DeleteFunc(hits, func(h H) bool { return compare(ranked(h), p.after) <= 0 })
		}
		if all || len(hits) > p.k && ranked(hits[p.k-1]).Score < ranked(hits[len(hits)-1]).Score {
			hits = hits[:min(p.k, len(hits))]
			return hits[min(p.skip, len(hits)):], nil
		}
	}
}

// symbolsContaining returns symbols whose doc comment contains a substring, by ID.
func (n *node) symbolsContaining(ctx context.Context, substring []byte, p part[string]) ([]found, error) {
	return n.symbols(ctx, `
		SELECT id, summary, 0 FROM doc WHERE instr(body, ?) AND id > ? ORDER BY id LIMIT ? OFFSET ?`,
		string(substring), p.after.ID, max(p.k-p.skip, 0), p.skip)
}

func (n *node) symbols(ctx context.Context, query string, args ...any) ([]found, error) {
	var hits []found
	err := n.query(ctx, func(row *sqlite3.Stmt) {
		hits = append(hits, found{
			Hit:     scatter.Hit[string]{ID: row.ColumnText(0), Score: float32(row.ColumnFloat(2))},
			Summary: row.ColumnText(1),
		})
	}, query, args...)
	return hits, err
}

// query runs a SELECT and calls each on its rows.
func (n *node) query(ctx context.Context, each func(row *sqlite3.Stmt), query string, args ...any) error {
	return n.use(ctx, func(conn *sqlite3.Conn) error {
		stmt, _, err := conn.Prepare(query)
		if err != nil {
			return err
		}
		defer stmt.Close()
		if err := bind(stmt, args...); err != nil {
			return err
		}
		for stmt.Step() {
			each(stmt)
		}
		return stmt.Err()
	})
}

// use waits for the connection and calls do with it. When ctx ends, use stops waiting, or
// interrupts do, and returns ctx's cause.
func (n *node) use(ctx context.Context, do func(*sqlite3.Conn) error) error {
	select {
	case <-n.free:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { n.free <- struct{}{} }()

	n.conn.SetInterrupt(ctx)
	defer n.conn.SetInterrupt(context.Background())
	err := do(n.conn)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx) // SQLite's error says only that it was interrupted.
	}
	return err
}

func execute(stmt *sqlite3.Stmt, args ...any) error {
	if err := bind(stmt, args...); err != nil {
		return err
	}
	return stmt.Exec()
}

func bind(stmt *sqlite3.Stmt, args ...any) error {
	for i, arg := range args {
		var err error
		switch arg := arg.(type) {
		case int:
			err = stmt.BindInt(i+1, arg)
		case int32:
			err = stmt.BindInt(i+1, int(arg))
		case string:
			err = stmt.BindText(i+1, arg)
		case []float32:
			err = stmt.BindBlob(i+1, blob(arg))
		default:
			err = fmt.Errorf("can't bind a %T", arg)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// blob returns a vector in vec1's format: 32-bit floats, little-endian.
func blob(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}
