package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ncruces/go-sqlite3"
	"github.com/scatterknn/scatter"
)

// index is an index and what it is over. It has a table entry_n of the documents in it, with their texts, and for each
// vector attribute i a table vector_n_i of those vectors that are as they should be, by the document's id. SQLite's
// extension vec1 searches these; but it doesn't know the inner product, so that for this the table is a plain one.
type index struct {
	n                   int64  // never the same for two, even if one of them is gone
	text                []byte // the schema's
	schema              *schema
	fields              []string // those that the entries have the text of, one after the other
	documents, failures int64    // see storeStats
}

const (
	mostVectors    = 32   // of the attributes of an index: vec1 makes several tables for each
	longestPattern = 1000 // bytes; what it takes to look for a pattern may grow faster than its length
)

// newIndex returns an index that has no tables yet, by the text of its schema.
func newIndex(text []byte) (*index, error) {
	s, err := decodeSchema(text)
	if err != nil {
		return nil, err
	}
	ix := &index{text: text, schema: s}
	for _, at := range s.Attributes {
		if at.Kind == textAttr && !at.has("NOINDEX") && !slices.Contains(ix.fields, at.Field) {
			ix.fields = append(ix.fields, at.Field)
		}
	}
	return ix, nil
}

// define makes an index, or another one, or removes it, as the document that is its schema says.
func (b *batch) define(name string, doc *document) error {
	wanted := doc.kind() == stringKey
	i, found := b.state.find(name)
	if found {
		old := &b.state.indexes[i]
		if wanted && bytes.Equal(doc.text.value, old.text) {
			return nil
		}
		if err := b.drop(old); err != nil {
			return err
		}
		b.state.indexes = slices.Delete(b.state.indexes, i, i+1)
	}
	if !wanted {
		return nil
	}
	ix, err := b.create(name, bytes.Clone(doc.text.value))
	if err != nil {
		return err
	}
	b.state.indexes = slices.Insert(b.state.indexes, i, *ix)
	return nil
}

// create makes an index over the documents that there are.
func (b *batch) create(name string, text []byte) (*index, error) {
	ix, err := newIndex(text)
	if err != nil {
		return nil, err
	}
	if ix.schema.Name != name {
		return nil, fmt.Errorf("the schema is that of index %q", ix.schema.Name)
	}
	err = b.db.exec(`INSERT INTO idx(name, schema, documents, failures) VALUES (?, ?, 0, 0)`, []byte(name), text)
	if err != nil {
		return nil, err
	}
	ix.n = b.db.LastInsertRowID()
	sql := fmt.Sprintf(`CREATE TABLE entry_%d(key BLOB PRIMARY KEY`, ix.n)
	for i := range ix.fields {
		sql += fmt.Sprintf(`, text_%d BLOB`, i)
	}
	sql += `) WITHOUT ROWID;`
	vectors := 0
	for i, at := range ix.schema.Attributes {
		if at.Kind != vectorAttr {
			continue
		}
		if vectors++; vectors > mostVectors {
			return nil, fmt.Errorf("more than %d vector fields", mostVectors)
		}
		if at.Metric == metricIP {
			sql += fmt.Sprintf(`CREATE TABLE vector_%d_%d(id INTEGER PRIMARY KEY, vector BLOB);`, ix.n, i)
		} else {
			sql += fmt.Sprintf(`CREATE VIRTUAL TABLE vector_%d_%d USING vec1(vector);
				INSERT INTO vector_%[1]d_%[2]d(cmd, arg) VALUES ('rebuild', '{index: "flat"}');`, ix.n, i)
		}
	}
	if err := b.db.Exec(sql); err != nil {
		return nil, err
	}
	var failed error
	err = b.db.each(func(row *sqlite3.Stmt) bool {
		var doc document
		if doc, failed = decodeDocument(row.ColumnBlob(2, nil)); failed == nil {
			failed = b.reindex(ix, row.ColumnInt64(0), string(row.ColumnRawBlob(1)[1:]), new(document), &doc)
		}
		return failed == nil
	}, `SELECT id, key, body FROM doc WHERE key >= ? AND key < ?`, []byte{clientKey}, []byte{clientKey + 1})
	return ix, errors.Join(err, failed)
}

func (b *batch) drop(ix *index) error {
	sql := fmt.Sprintf(`DELETE FROM idx WHERE n = %d; DROP TABLE entry_%[1]d;`, ix.n)
	for i, at := range ix.schema.Attributes {
		if at.Kind == vectorAttr {
			sql += fmt.Sprintf(`DROP TABLE vector_%d_%d;`, ix.n, i)
		}
	}
	return b.db.Exec(sql)
}

// reindex has an index follow a document that has changed.
func (b *batch) reindex(ix *index, id int64, key string, old, now *document) error {
	if !ix.schema.holds(key) {
		return nil
	}
	was, is := old.kind() == hashKey, now.kind() == hashKey
	values := func(field string) (before, after []byte, same bool) {
		before, after = fieldOf(old, was, field), fieldOf(now, is, field)
		return before, after, bytes.Equal(before, after) && (before == nil) == (after == nil)
	}
	for i := range ix.schema.Attributes {
		at := &ix.schema.Attributes[i]
		if at.Kind != vectorAttr {
			continue
		}
		before, after, same := values(at.Field)
		if same {
			continue
		}
		if vector := indexable(at, before); vector != nil {
			remove := fmt.Sprintf(`DELETE FROM vector_%d_%d WHERE rowid = ?`, ix.n, i)
			if err := b.db.exec(remove, id); err != nil {
				return err
			}
		} else if before != nil {
			ix.failures--
		}
		if vector := indexable(at, after); vector != nil {
			insert := fmt.Sprintf(`INSERT INTO vector_%d_%d(rowid, vector) VALUES (?, ?)`, ix.n, i)
			if err := b.db.exec(insert, id, vector); err != nil {
				return err
			}
		} else if after != nil {
			ix.failures++
		}
	}
	entry, changed := []any{[]byte(key)}, was != is
	for _, field := range ix.fields {
		_, after, same := values(field)
		entry, changed = append(entry, after), changed || !same
	}
	switch {
	case !changed:
		return nil
	case !is:
		ix.documents--
		return b.db.exec(fmt.Sprintf(`DELETE FROM entry_%d WHERE key = ?`, ix.n), []byte(key))
	case !was:
		ix.documents++
	}
	sql := fmt.Sprintf(`REPLACE INTO entry_%d VALUES (?%s)`, ix.n, strings.Repeat(", ?", len(ix.fields)))
	return b.db.exec(sql, entry...)
}

// fieldOf returns the value of a field, or nil if there is none. Where there are many it is faster than document.field,
// which looks at all of them to see whether the document is a hash.
func fieldOf(d *document, isHash bool, name string) []byte {
	switch r, ok := d.fields[name]; {
	case !isHash || !ok || r.gone:
		return nil
	case r.value == nil:
		return []byte{}
	default:
		return r.value
	}
}

// indexable returns a field's value as the vector that goes into the index, or nil if it is none. It must have the
// right length, and only finite numbers. For COSINE it is scaled to the length 1, which a vector of zeros can't be.
// Then half the square of the distance is 1 - the cosine of the angle, and more precise for small angles than computed
// like that.
func indexable(at *attribute, value []byte) []byte {
	if len(value) != 4*at.Dim {
		return nil
	}
	square := 0.0
	for i := 0; i < len(value); i += 4 {
		square += component(value, i) * component(value, i)
	}
	if math.IsNaN(square) || math.IsInf(square, 0) { // float32's are too small for that, if they are finite
		return nil
	}
	if at.Metric != metricCosine {
		return value
	}
	if square == 0 {
		return nil
	}
	length, unit := math.Sqrt(square), make([]byte, 0, len(value))
	for i := 0; i < len(value); i += 4 {
		unit = binary.LittleEndian.AppendUint32(unit, math.Float32bits(float32(component(value, i)/length)))
	}
	return unit
}

// component is the one that begins at byte i.
func component(vector []byte, i int) float64 {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(vector[i:])))
}

// innerProduct is an SQL function of two vectors.
func innerProduct(ctx sqlite3.Context, args ...sqlite3.Value) {
	x, y := args[0].RawBlob(), args[1].RawBlob()
	sum := 0.0
	for len(x) >= 4 && len(y) >= 4 {
		sum += component(x, 0) * component(y, 0)
		x, y = x[4:], y[4:]
	}
	ctx.ResultFloat(sum)
}

// each calls do for each document in an index, by the client's key. The keys come sorted.
func (s *store) each(ctx context.Context, name string, do func(key string)) error {
	return s.read(ctx, s.searchers, func(c *conn) error {
		ix, err := c.index(name)
		if err != nil {
			return err
		}
		return c.each(func(row *sqlite3.Stmt) bool {
			do(string(row.ColumnRawBlob(0)))
			return true
		}, fmt.Sprintf(`SELECT key FROM entry_%d ORDER BY key`, ix.n))
	})
}

// search answers a KNN, a Text or a Regex from the documents in this store. Hits of a KNN are exact, whatever algorithm
// the schema names.
func (s *store) search(ctx context.Context, req *scatter.Request) (hits []scatter.Hit[string], err error) {
	if req.K < 1 || req.K > maxHits {
		return nil, fmt.Errorf("a search for %d hits; it must be from 1 to %d", req.K, maxHits)
	}
	err = s.read(ctx, s.searchers, func(c *conn) error {
		ix, err := c.index(req.Table)
		if err != nil {
			return err
		}
		switch q := req.Query.(type) {
		case scatter.KNN:
			hits, err = c.nearest(ix, q, req.K)
		case scatter.Text:
			if q.Field == "" && len(q.Substring) == 0 { // all documents
				hits, err = c.matching(fmt.Sprintf(`SELECT key, NULL FROM entry_%d ORDER BY key`, ix.n), req.K,
					func([]byte) bool { return true })
			} else {
				match := func(text []byte) bool { return bytes.Contains(text, q.Substring) }
				hits, err = c.texts(ix, q.Field, req.K, match)
			}
		case scatter.Regex:
			var match func([]byte) bool
			if match, err = matcher(ctx, q.Pattern, int(q.MaxErrors)); err == nil {
				hits, err = c.texts(ix, q.Field, req.K, match)
			}
		default:
			err = fmt.Errorf("a query of a kind that isn't known: %T", q)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return hits, nil
}

// index returns the index of a name as it is in the transaction that is read from.
func (c *conn) index(name string) (ix *index, err error) {
	var corrupt error
	err = c.each(func(row *sqlite3.Stmt) bool {
		if ix, corrupt = newIndex(row.ColumnBlob(2, nil)); corrupt == nil {
			ix.n, ix.documents = row.ColumnInt64(0), row.ColumnInt64(1)
		}
		return false
	}, `SELECT n, documents, schema FROM idx WHERE name = ?`, []byte(name))
	if err = errors.Join(err, corrupt); err == nil && ix == nil {
		err = fmt.Errorf("no such index: %q", name)
	}
	return ix, err
}

// attribute returns the place of an attribute, which has to be of a kind.
func (ix *index) attribute(name string, kind attributeKind) (int, error) {
	for i, at := range ix.schema.Attributes {
		switch {
		case at.Name != name:
		case at.Kind != kind:
			return 0, fmt.Errorf("field %q of index %q is %s, not %s", name, ix.schema.Name, at.Kind, kind)
		case at.has("NOINDEX"):
			return 0, fmt.Errorf("field %q of index %q is NOINDEX", name, ix.schema.Name)
		default:
			return i, nil
		}
	}
	return 0, fmt.Errorf("no field %q in index %q", name, ix.schema.Name)
}

// nearest returns the k documents whose vectors are nearest.
func (c *conn) nearest(ix *index, q scatter.KNN, k int) ([]scatter.Hit[string], error) {
	i, err := ix.attribute(q.Field, vectorAttr)
	if err != nil {
		return nil, err
	}
	at := &ix.schema.Attributes[i]
	if len(q.Vector) != at.Dim {
		return nil, fmt.Errorf("a query vector of %d dimensions for field %q, which has %d",
			len(q.Vector), q.Field, at.Dim)
	}
	var blob []byte
	for _, x := range q.Vector {
		blob = binary.LittleEndian.AppendUint32(blob, math.Float32bits(x))
	}
	if blob = indexable(at, blob); blob == nil {
		return nil, errors.New("a query vector that isn't finite or, for COSINE, is all zeros")
	}
	table := fmt.Sprintf("vector_%d_%d", ix.n, i)
	sql := `SELECT key, distance FROM ` + table + `(?, ?) AS near CROSS JOIN doc ON doc.id = near.rowid`
	switch at.Metric {
	case metricCosine:
		sql = strings.Replace(sql, "distance", "distance / 2", 1)
	case metricIP:
		sql = `SELECT key, distance FROM (SELECT id AS near, 1 - inner_product(?, vector) AS distance FROM ` + table +
			` ORDER BY distance LIMIT ?) CROSS JOIN doc ON doc.id = near`
	}
	// Of documents that are equally near, the first ones by ID count, and SQLite takes any. So more are asked for,
	// until the last one is farther away than the last one wanted.
	for some := k + 16; ; some *= 8 {
		some = min(some, int(ix.documents)+1) // one more than there can be
		var hits []scatter.Hit[string]
		err := c.each(func(row *sqlite3.Stmt) bool {
			key := row.ColumnRawBlob(0)
			hits = append(hits, scatter.Hit[string]{ID: string(key[1:]), Score: float32(row.ColumnFloat(1))})
			return true
		}, sql, blob, int64(some))
		if err != nil {
			return nil, err
		}
		slices.SortFunc(hits, func(a, b scatter.Hit[string]) int {
			return cmp.Or(cmp.Compare(a.Score, b.Score), strings.Compare(a.ID, b.ID))
		})
		if len(hits) < some || hits[k-1].Score < hits[some-1].Score {
			return hits[:min(k, len(hits))], nil
		}
	}
}

// texts returns the first k documents, by ID, that have a field which matches.
func (c *conn) texts(ix *index, name string, k int, match func([]byte) bool) ([]scatter.Hit[string], error) {
	i, err := ix.attribute(name, textAttr)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("text_%d", slices.Index(ix.fields, ix.schema.Attributes[i].Field))
	sql := fmt.Sprintf(`SELECT key, %s FROM entry_%d WHERE %[1]s IS NOT NULL ORDER BY key`, text, ix.n)
	return c.matching(sql, k, match)
}

// matching returns the first k keys whose text matches.
func (c *conn) matching(sql string, k int, match func([]byte) bool) (hits []scatter.Hit[string], err error) {
	err = c.each(func(row *sqlite3.Stmt) bool {
		if match(row.ColumnRawBlob(1)) {
			hits = append(hits, scatter.Hit[string]{ID: string(row.ColumnRawBlob(0))})
		}
		return len(hits) < k
	}, sql)
	return hits, err
}

// matcher returns a function that reports whether a regular expression matches somewhere in a text, or, if most is
// more than 0, whether some part of the text becomes the pattern by at most so many edits: characters changed, left out
// or put in. It may be wrong once ctx is over.
func matcher(ctx context.Context, pattern string, most int) (func(text []byte) bool, error) {
	if len(pattern) > longestPattern {
		return nil, fmt.Errorf("a pattern of %d bytes, more than %d", len(pattern), longestPattern)
	}
	if most > 0 {
		if regexp.QuoteMeta(pattern) != pattern {
			return nil, fmt.Errorf("with errors only a plain text can be looked for, not a pattern with operators: %q",
				pattern)
		}
		runes := []rune(pattern)
		return func(text []byte) bool { return containsAbout(ctx, text, runes, most) }, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("pattern: %w", err)
	}
	return func(text []byte) bool {
		if len(text) < 1024 {
			return re.Match(text)
		}
		return re.MatchReader(&untilDone{ctx: ctx, text: text}) // slower, but can be stopped
	}, nil
}

// untilDone reads the characters of a text until ctx is over.
type untilDone struct {
	ctx  context.Context
	text []byte
	read int
}

func (u *untilDone) ReadRune() (rune, int, error) {
	if len(u.text) == 0 || u.read%64 == 0 && u.ctx.Err() != nil {
		return 0, 0, io.EOF
	}
	u.read++
	r, size := utf8.DecodeRune(u.text)
	u.text = u.text[size:]
	return r, size, nil
}

// containsAbout reports whether some part of a text becomes the pattern by at most so many edits. See Sellers, "The
// Theory and Computation of Evolutionary Distances", J. Algorithms 1980. edits[i] is how many it takes at least from a
// part that ends here to the first i characters of the pattern. Where that is more than most, it doesn't matter by how
// much, and nothing can come of it, so that only what lies before needs computing: see Ukkonen, "Finding approximate
// patterns in strings", J. Algorithms 1985.
func containsAbout(ctx context.Context, text []byte, pattern []rune, most int) bool {
	edits := make([]int, len(pattern)+1)
	for i := range edits {
		edits[i] = min(i, most+1)
	}
	last := min(most, len(pattern)) // edits[last+1:] is more than most
	for n := 0; last < len(pattern); n++ {
		if len(text) == 0 || n%64 == 0 && ctx.Err() != nil {
			return false
		}
		r, size := utf8.DecodeRune(text)
		text = text[size:]
		diagonal := 0 // edits[i-1] one character before
		for i := 1; i <= min(last+1, len(pattern)); i++ {
			fewest := min(edits[i], edits[i-1], diagonal) + 1
			if pattern[i-1] == r {
				fewest = diagonal
			}
			diagonal, edits[i] = edits[i], min(fewest, most+1)
		}
		last = min(last+1, len(pattern))
		for edits[last] > most {
			last--
		}
	}
	return true
}
