package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/ext/vec1"
	"github.com/scatterknn/scatter"
)

// document is what a node stores. Vectors read from a file have no ID, summary and body.
type document struct {
	Row     int32 // its number in the whole corpus, the same on every node
	ID      string
	Summary string
	Body    string
	Vector  []float32
}

// found is a hit on a symbol: by embedding a scatter.Hit it carries its first sentence along, through the merge.
type found struct {
	scatter.Hit[string]
	Summary string
}

// node is one member of the cluster: a SQLite database in memory, with the vec1 extension as its vector index. It holds
// its own share of the documents and knows nothing of the others.
type node struct {
	conn *sqlite3.Conn
	free chan struct{} // holds one token; whoever has taken it may use conn, which only one goroutine at a time may
	size int           // documents held
}

// schema: near is the vector index, doc what goes with each vector. A document has the same rowid in both.
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

// close waits for a search that still runs; the node can't be used afterwards.
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

// index builds the vector index over what is loaded: a flat one, which is exact because it looks at every vector, or an
// inverted file (IVF), which looks only at the few buckets nearest to the query and misses what lies in others.
func (n *node) index(ctx context.Context, ivf bool) error {
	return n.use(ctx, func(conn *sqlite3.Conn) error {
		buckets := int(math.Sqrt(float64(n.size)))
		if !ivf || buckets < 4 { // fewer are too few to train
			return conn.Exec(`INSERT INTO near(cmd, arg) VALUES ('rebuild', '{index: "flat"}')`)
		}
		stride := max(1, n.size/(16*buckets)) // some 16 vectors for each bucket are enough to train on
		return conn.Exec(fmt.Sprintf(`
			INSERT INTO near(cmd, arg)
			SELECT 'rebuild', vec1_train(vector, '{nbucket: %d}') FROM near WHERE rowid %% %d = 0`, buckets, stride))
	})
}

// nearestRows returns the k rows nearest to v, by squared Euclidean distance. SQLite's distances are of double precision;
// where two become equal as a Score, the hits may be out of order by ID, which the merge notices and puts right.
func (n *node) nearestRows(ctx context.Context, v []float32, k int) ([]scatter.Hit[int32], error) {
	var hits []scatter.Hit[int32]
	err := n.query(ctx, func(row *sqlite3.Stmt) {
		hits = append(hits, scatter.Hit[int32]{ID: int32(row.ColumnInt(0)), Score: float32(row.ColumnFloat(1))})
	}, `SELECT rowid, distance FROM near(?, ?) ORDER BY distance, rowid`, v, searchOptions(k))
	return hits, err
}

// nearestSymbols returns the k symbols nearest to v, by squared Euclidean distance.
func (n *node) nearestSymbols(ctx context.Context, v []float32, k int) ([]found, error) {
	// CROSS JOIN keeps SQLite from going through all of doc first.
	return n.symbols(ctx, `
		SELECT id, summary, distance FROM near(?, ?) CROSS JOIN doc ON doc.row = near.rowid
		ORDER BY distance, id`, v, searchOptions(k))
}

// symbolsContaining returns the first k symbols, by ID, whose doc comment contains a substring.
func (n *node) symbolsContaining(ctx context.Context, substring []byte, k int) ([]found, error) {
	return n.symbols(ctx, `SELECT id, summary, 0 FROM doc WHERE instr(body, ?) ORDER BY id LIMIT ?`, string(substring), k)
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

func searchOptions(k int) string { return fmt.Sprintf(`{k: %d}`, k) }

// query runs one SELECT and calls each on its rows.
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

// use waits for the connection and does something with it. When ctx is over, it stops waiting or doing, and returns
// ctx's cause.
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
		return context.Cause(ctx) // SQLite's error knows only that it was interrupted
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

// blob is a vector in vec1's format: 32-bit floats, little-endian.
func blob(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}
