package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ncruces/go-sqlite3"
	"github.com/scatterknn/scatter"
)

// unanswerable returns the error of a search that no replica can answer.
func unanswerable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{scatter.ErrPermanent}, args...)...)
}

// table is where an index is in the database. The table entry_N has a row for each document in it,
// with a column aI for each attribute I. Every search but one by key reads all rows.
type table struct {
	n       int64 // never the same for two, even if one of them is gone
	schema  *schema
	columns []int // attributes, the texts last: they can be long, and SQLite reads a row from its beginning
}

func newTable(n int64, body []byte) (*table, error) {
	s, err := decodeSchema(body)
	if err != nil {
		return nil, err
	}
	t := &table{n: n, schema: s}
	for _, texts := range []bool{false, true} {
		for i, at := range s.Attributes {
			if (at.Kind == textAttr) == texts && !at.has("NOINDEX") {
				t.columns = append(t.columns, i)
			}
		}
	}
	return t, nil
}

// create returns the SQL that makes the table.
func (t *table) create() string {
	sql := fmt.Sprintf(`CREATE TABLE entry_%d(id INTEGER PRIMARY KEY, key BLOB UNIQUE, p INTEGER, failures INTEGER`, t.n)
	for _, i := range t.columns {
		sql += fmt.Sprintf(`, a%d`, i)
	}
	return sql + `)`
}

// document returns a document if this node holds its partition. The caller has called wait.
func (x *index) document(ctx context.Context, key string) (doc document, held bool, err error) {
	err = x.read(ctx, func(c *conn) error {
		var body []byte
		err := c.each(func(row *sqlite3.Stmt) bool {
			held, body = row.ColumnBool(0), row.ColumnBlob(1, nil)
			return false
		}, `SELECT ready, (SELECT body FROM doc WHERE key = ?) FROM stream WHERE n = ?`, []byte(key), int64(partitionOf(key)))
		if err == nil {
			doc, err = decodeDocument(body)
		}
		return err
	})
	return doc, held && err == nil, err
}

// search answers a search of one index from the documents in this index. req.Query is a
// scatter.KNN, a scatter.Text without a field (all documents), a scatter.Regex or a counting. f, if
// not nil, restricts it. Hits come in req.Query's Order. Those of a KNN are exact. ring is the
// revision of the ring by which this node was asked. If the index has another one, the error is
// errRing: a new ring may take documents from this node at any time.
func (x *index) search(
	ctx context.Context, ring uint64, req *scatter.Request, f *filter,
) (hits []scatter.Hit[string], err error) {
	if req.K < 1 || req.K > maxHits+1 {
		return nil, unanswerable("a search for %d hits, must be 1 to %d", req.K, maxHits+1)
	}
	err = x.read(ctx, func(c *conn) error {
		if now, err := c.ring(); err != nil || now != ring {
			return errors.Join(err, errRing)
		}
		if _, ok := req.Query.(counting); ok && req.Table == "" {
			hits, err = c.count(`SELECT p, count(*), 0 FROM doc GROUP BY p`)
			return err
		}
		t, err := c.table(req.Table)
		if err != nil {
			return err
		}
		w := where{table: t, sql: "1"}
		if f != nil {
			if w.sql, err = w.of(f); err != nil {
				return err
			}
		}
		switch q := req.Query.(type) {
		case scatter.KNN:
			hits, err = c.nearest(t, q, req.K, &w)
		case scatter.Text:
			if q.Field != "" || len(q.Substring) > 0 {
				return unanswerable("a Text with the field %q, must be a filter", q.Field)
			}
			all := func([]byte) bool { return true }
			hits, err = c.matching(`key`, t, req.K, &w, all)
		case scatter.Regex:
			hits, err = c.regex(ctx, t, q, req.K, &w)
		case counting:
			hits, err = c.count(fmt.Sprintf(`SELECT p, count(*), sum(failures) FROM entry_%d GROUP BY p`, t.n))
		default:
			err = unanswerable("a query of an unknown kind: %T", q)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return hits, nil
}

// ring returns the revision of the ring as it is in the transaction under way, or 0 if there is
// none.
func (c *conn) ring() (revision uint64, err error) {
	err = c.each(func(row *sqlite3.Stmt) bool {
		revision = uint64(row.ColumnInt64(0))
		return false
	}, `SELECT revision FROM ring`)
	return revision, err
}

// table returns an index as it is in the transaction under way.
func (c *conn) table(name string) (t *table, err error) {
	var corrupt error
	err = c.each(func(row *sqlite3.Stmt) bool {
		t, corrupt = newTable(row.ColumnInt64(0), row.ColumnRawBlob(1))
		return false
	}, `SELECT n, schema FROM idx WHERE name = ?`, []byte(name))
	if err = errors.Join(err, corrupt); err == nil && t == nil {
		err = unanswerable("no such index: %q", name)
	}
	return t, err
}

// attribute returns the number of an attribute that has to be of a kind.
func (t *table) attribute(name string, kind attributeKind) (int, error) {
	i := slices.IndexFunc(t.schema.Attributes, func(at attribute) bool { return at.Name == name })
	if i < 0 {
		return 0, unanswerable("no field %q in index %q", name, t.schema.Name)
	}
	if at := &t.schema.Attributes[i]; at.Kind != kind || at.has("NOINDEX") {
		return 0, unanswerable("field %q of index %q is %s %v, must be %s and indexed",
			name, t.schema.Name, at.Kind, at.Flags, kind)
	}
	return i, nil
}

func (c *conn) count(sql string) (hits []scatter.Hit[string], err error) {
	err = c.each(func(row *sqlite3.Stmt) bool {
		for i, what := range []string{"documents", "failures"} {
			id := fmt.Sprintf("%d %s", row.ColumnInt(0), what)
			hits = append(hits, scatter.Hit[string]{ID: id, Score: float32(row.ColumnInt64(i + 1))})
		}
		return true
	}, sql)
	slices.SortFunc(hits, func(a, b scatter.Hit[string]) int { return strings.Compare(a.ID, b.ID) })
	return hits, err
}

// nearest returns the k documents whose vectors are nearest.
func (c *conn) nearest(t *table, q scatter.KNN, k int, w *where) (hits []scatter.Hit[string], err error) {
	i, err := t.attribute(q.Field, vectorAttr)
	if err != nil {
		return nil, err
	}
	at := &t.schema.Attributes[i]
	if len(q.Vector) != at.Dim {
		return nil, unanswerable("a query vector of %d dimensions for field %q, must be %d", len(q.Vector), q.Field, at.Dim)
	}
	blob := indexable(at, vectorBytes(q.Vector))
	if blob == nil {
		return nil, unanswerable("the query vector is not finite or, for COSINE, is all zeros")
	}
	c.distance = at.Metric.to(blob)
	err = c.each(func(row *sqlite3.Stmt) bool {
		hits = append(hits, scatter.Hit[string]{ID: string(row.ColumnRawBlob(0)), Score: float32(row.ColumnFloat(1))})
		return true
	}, fmt.Sprintf(`SELECT key, distance(a%[1]d) AS d FROM entry_%[2]d WHERE a%[1]d IS NOT NULL AND %[3]s
		ORDER BY d, key LIMIT ?`, i, t.n, w.sql), append(w.args, int64(k))...)
	return hits, err
}

// regex returns the first k documents, by ID, that have a text which matches.
func (c *conn) regex(ctx context.Context, t *table, q scatter.Regex, k int, w *where) ([]scatter.Hit[string], error) {
	i, err := t.attribute(q.Field, textAttr)
	if err != nil {
		return nil, err
	}
	match, err := matcher(ctx, q.Pattern, int(q.MaxErrors))
	if err != nil {
		return nil, err
	}
	w.sql = fmt.Sprintf(`a%d IS NOT NULL AND %s`, i, w.sql)
	return c.matching(fmt.Sprintf(`a%d`, i), t, k, w, match)
}

// matching returns the first k documents, by ID, that the filter and match, of a column, let pass.
func (c *conn) matching(
	column string, t *table, k int, w *where, match func([]byte) bool,
) (hits []scatter.Hit[string], err error) {
	err = c.each(func(row *sqlite3.Stmt) bool {
		if match(row.ColumnRawBlob(1)) {
			hits = append(hits, scatter.Hit[string]{ID: string(row.ColumnRawBlob(0))})
		}
		return len(hits) < k
	}, fmt.Sprintf(`SELECT key, %s FROM entry_%d WHERE %s ORDER BY key`, column, t.n, w.sql), w.args...)
	return hits, err
}

// where is an SQL expression for a filter, of the columns of a table.
type where struct {
	table *table
	sql   string
	args  []any
}

// of returns the expression for a filter. It is never NULL, so that NOT has what is missing.
func (w *where) of(f *filter) (string, error) {
	switch {
	case len(f.And) > 0:
		return w.join(f.And, " AND ")
	case len(f.Or) > 0:
		return w.join(f.Or, " OR ")
	case f.Not != nil:
		sql, err := w.of(f.Not)
		return "NOT " + sql, err
	case f.Tags != nil:
		i, err := w.table.attribute(f.Attribute, tagAttr)
		if err != nil {
			return "", err
		}
		var any []string
		for _, tag := range f.Tags {
			any = append(any, fmt.Sprintf("instr(a%d, ?)", i))
			w.args = append(w.args, []byte("\x00"+escapeTag(string(tag))+"\x00"))
		}
		return "ifnull(" + strings.Join(any, " OR ") + ", 0)", nil
	case f.Range != nil:
		i, err := w.table.attribute(f.Attribute, numericAttr)
		return w.bounds(fmt.Sprintf("a%d", i), f.Range), err
	}
	i, err := w.table.attribute(f.Attribute, textAttr)
	w.args = append(w.args, f.Text)
	return fmt.Sprintf("ifnull(instr(a%d, ?), 0)", i), err
}

func (w *where) join(filters []filter, operator string) (string, error) {
	var parts []string
	for i := range filters {
		sql, err := w.of(&filters[i])
		if err != nil {
			return "", err
		}
		parts = append(parts, sql)
	}
	return "(" + strings.Join(parts, operator) + ")", nil
}

func (w *where) bounds(column string, r *numberRange) string {
	sql := "(" + column + " IS NOT NULL"
	bound := func(limit *float64, open bool, operator string) {
		if limit == nil {
			return
		}
		if !open {
			operator += "="
		}
		sql += fmt.Sprintf(" AND %s %s ?", column, operator)
		w.args = append(w.args, *limit)
	}
	bound(r.Min, r.MinOpen, ">")
	bound(r.Max, r.MaxOpen, "<")
	return sql + ")"
}
