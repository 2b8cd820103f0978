package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"
	"go.uber.org/zap"
)

func (b *batch) apply(e *entry) (err error) {
	switch name, isIndex := strings.CutPrefix(e.key, "index."); {
	case e.seq <= b.at[e.stream] || !b.follows(e.stream):
		return nil
	case e.stream == meta && e.key == "ring":
		err = b.applyRing(e)
	case e.stream == meta && isIndex:
		err = b.applySchema(name, e)
	case e.stream == meta:
		b.log.Warn("an unknown name in the meta stream", zap.String("name", e.key))
	case e.flush:
		err = b.clear(e.stream)
	default:
		err = b.applyDocument(e)
	}
	b.at[e.stream] = e.seq
	return err
}

// applyRing takes over a ring. The partitions that this node no longer holds are deleted.
func (b *batch) applyRing(e *entry) error {
	nodes, err := decodeRing(e.body)
	if err != nil || len(nodes) == 0 {
		b.log.Error("the ring in the meta stream is malformed", zap.ByteString("ring", e.body))
		return nil
	}
	b.ring = newTopology(b.self, e.seq, nodes)
	for partition, held := range b.ring.held {
		if !held {
			if err := b.forget(partition); err != nil {
				return err
			}
		}
	}
	if err := b.db.exec(`DELETE FROM ring`); err != nil {
		return err
	}
	return b.db.exec(`INSERT INTO ring VALUES (?, ?)`, int64(e.seq), e.body)
}

// forget deletes what is known from a stream, so that it can be followed from its beginning.
func (b *batch) forget(stream int) error {
	b.at[stream], b.whole[stream], b.ready[stream] = 0, 0, false
	if stream != meta {
		return b.clear(stream)
	}
	for _, t := range b.tables {
		if err := b.drop(t); err != nil {
			return err
		}
	}
	b.tables = nil
	return nil
}

// clear deletes the documents of a partition.
func (b *batch) clear(partition int) error {
	for _, t := range b.tables {
		if err := b.db.exec(fmt.Sprintf(`DELETE FROM entry_%d WHERE p = ?`, t.n), int64(partition)); err != nil {
			return err
		}
	}
	return b.db.exec(`DELETE FROM doc WHERE p = ?`, int64(partition))
}

// applySchema makes an index over the documents that there are, replaces it, or removes it.
func (b *batch) applySchema(name string, e *entry) error {
	i, found := b.find(name)
	if found {
		if err := b.drop(b.tables[i]); err != nil {
			return err
		}
		b.tables = slices.Delete(b.tables, i, i+1)
	}
	if len(e.body) == 0 {
		return nil
	}
	t, err := newTable(0, e.body)
	if err != nil || t.schema.Name != name {
		b.log.Error("the schema in the meta stream is malformed", zap.String("index", name), zap.Error(err))
		return nil
	}
	if err := b.db.exec(`INSERT INTO idx(name, schema) VALUES (?, ?)`, []byte(name), e.body); err != nil {
		return err
	}
	t.n = b.db.LastInsertRowID()
	if err := b.db.Exec(t.create()); err != nil {
		return err
	}
	b.tables = slices.Insert(b.tables, i, t)
	var failed error
	err = b.db.each(func(row *sqlite3.Stmt) bool {
		d := indexed{id: row.ColumnInt64(0), key: string(row.ColumnRawBlob(1)), p: row.ColumnInt64(2)}
		var doc document
		if doc, failed = decodeDocument(row.ColumnBlob(3, nil)); failed == nil {
			failed = b.reindex(t, &d, doc.fields)
		}
		return failed == nil
	}, `SELECT id, key, p, body FROM doc`)
	if err == nil {
		err = failed
	}
	return err
}

func (b *batch) drop(t *table) error {
	return b.db.Exec(fmt.Sprintf(`DELETE FROM idx WHERE n = %d; DROP TABLE entry_%[1]d`, t.n))
}

// indexed is a document's row.
type indexed struct {
	id, p int64
	key   string
}

func (b *batch) applyDocument(e *entry) error {
	now, err := decodeDocument(e.body)
	if err != nil {
		b.log.Error("a document is malformed", zap.String("key", e.key), zap.Error(err))
		now = document{}
	}
	d, key := indexed{p: int64(e.stream), key: e.key}, []byte(e.key)
	err = b.db.each(func(row *sqlite3.Stmt) bool {
		d.id = row.ColumnInt64(0)
		return false
	}, `SELECT id FROM doc WHERE key = ?`, key)
	if err != nil {
		return err
	}
	switch {
	case now.kind == noKey && d.id == 0:
		return nil
	case now.kind == noKey:
		err = b.db.exec(`DELETE FROM doc WHERE id = ?`, d.id)
	case d.id == 0:
		err = b.db.exec(`INSERT INTO doc(key, p, body) VALUES (?, ?, ?)`, key, d.p, e.body)
		d.id = b.db.LastInsertRowID()
	default:
		err = b.db.exec(`UPDATE doc SET body = ? WHERE id = ?`, e.body, d.id)
	}
	for _, t := range b.tables {
		if err == nil {
			err = b.reindex(t, &d, now.fields)
		}
	}
	return err
}

// reindex updates an index by the fields that a document has. It has none if it isn't a hash.
func (b *batch) reindex(t *table, d *indexed, fields map[string][]byte) error {
	if !t.schema.holds(d.key) {
		return nil
	}
	if fields == nil {
		return b.db.exec(fmt.Sprintf(`DELETE FROM entry_%d WHERE id = ?`, t.n), d.id)
	}
	failures, row := int64(0), []any{d.id, []byte(d.key), d.p, nil}
	for _, i := range t.columns {
		at := &t.schema.Attributes[i]
		value, exists := fields[at.Field]
		var column any
		if exists {
			if column = columnValue(at, value); column == nil {
				failures++
			}
		}
		row = append(row, column)
	}
	row[3] = failures
	return b.db.exec(fmt.Sprintf(`REPLACE INTO entry_%d VALUES (?%s)`, t.n, strings.Repeat(", ?", len(row)-1)), row...)
}

// columnValue returns what an index has of a field in the column of an attribute, or nil if it
// can't be indexed.
func columnValue(at *attribute, value []byte) any {
	switch at.Kind {
	case vectorAttr:
		if vector := indexable(at, value); vector != nil {
			return vector
		}
		return nil
	case numericAttr:
		number, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
		if err != nil || math.IsNaN(number) {
			return nil
		}
		return number
	case tagAttr:
		list := []byte{0}
		for _, tag := range at.tags(value) {
			list = append(append(list, escapeTag(tag)...), 0)
		}
		return list
	}
	return append([]byte{}, value...) // not nil
}

// escapeTag returns a tag without zeros, which separate tags.
func escapeTag(tag string) string { return tagEscaper.Replace(tag) }

var tagEscaper = strings.NewReplacer("\x00", "\x01\x02", "\x01", "\x01\x01")

// indexable returns a field's value as the vector that goes into the index, or nil. It must have
// the right length, and only finite numbers. For COSINE it is scaled to the length 1, which isn't
// possible with a vector of zeros. Then half the square of the distance is 1 - the cosine of the
// angle, and more precise for small angles than if it is computed like that.
func indexable(at *attribute, value []byte) []byte {
	if len(value) != 4*at.Dim {
		return nil
	}
	square := 0.0
	for i := 0; i < len(value); i += 4 {
		square += component(value, i) * component(value, i)
	}
	switch {
	case math.IsNaN(square) || math.IsInf(square, 0): // finite float32s are too small for that
		return nil
	case at.Metric != metricCosine:
		return value
	case square == 0:
		return nil
	}
	length, unit := math.Sqrt(square), make([]byte, 0, len(value))
	for i := 0; i < len(value); i += 4 {
		unit = binary.LittleEndian.AppendUint32(unit, math.Float32bits(float32(component(value, i)/length)))
	}
	return unit
}

// vectorBytes returns a vector as HSET takes it.
func vectorBytes(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// component returns the one that begins at byte i.
func component(vector []byte, i int) float64 {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(vector[i:])))
}

// to returns the function that computes the distance to a vector. Both are as indexable returns
// them.
func (m metric) to(query []byte) func([]byte) float32 {
	q := make([]float64, len(query)/4)
	for i := range q {
		q[i] = component(query, 4*i)
	}
	if m == metricIP {
		return func(v []byte) float32 {
			sum := 0.0
			for i, x := range q {
				sum += x * component(v, 4*i)
			}
			return float32(1 - sum)
		}
	}
	scale := 1.0
	if m == metricCosine {
		scale = 0.5 // see indexable
	}
	return func(v []byte) float32 {
		sum := 0.0
		for i, x := range q {
			difference := x - component(v, 4*i)
			sum += difference * difference
		}
		return float32(scale * sum)
	}
}
