package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scatterknn/scatter"
)

const (
	maxHits     = 10_000    // the largest number of documents that a search finds
	maxLimit    = 1_000_000 // RediSearch's own
	maxReturned = 1024
	maxRegex    = 512 // bytes
	maxEdits    = 64
)

// searchQuery is what FT.SEARCH or FT.REGEX asks for.
type searchQuery struct {
	schema *schema

	// Table is the index. Query is a KNN, a Text without a field (all documents), or a Regex. Of a
	// KNN that asks for nothing, K is 0. A Text or a Regex asks for one hit more than maxHits,
	// which tells whether there are more.
	request *scatter.Request

	filter     *filter    // nil: none
	scoreAs    string     // of a KNN: the name under which the distance is returned
	returned   []returned // what RETURN names
	returnAll  bool       // there was no RETURN
	noContent  bool
	sortBy     string // the name of an attribute, or scoreAs
	descending bool
	offset     int // LIMIT's
	count      int
	timeout    time.Duration // if zero, the node's default
}

// returned is a value that RETURN asks for, and the name that it gets.
type returned struct{ field, as string }

// row is a document that was found. If it is deleted before it is read, doc doesn't exist.
type row struct {
	id    string
	score float32 // the distance
	doc   document
}

// parseSearch reads the arguments of FT.SEARCH: an index, a query and options. The query is one of
//
//	idx *                                                   all documents
//	idx "@kind:{a|b} -@year:[2000 (2010]"                   those that match, see [filterParser]
//	idx "*=>[KNN 10 @field $blob AS name]"                  the nearest ones; AS is optional
//	idx "(@kind:{a})=>[KNN 10 @field $blob]"                the nearest ones of those that match
//
// A number, a name, a tag or a text can be a parameter ($name). Any other character than a letter,
// a digit or _ needs quotes or a backslash before it. What RediSearch has beyond this is an error.
func parseSearch(args [][]byte, schemaOf func(name string) *schema) (*searchQuery, error) {
	if len(args) < 2 {
		return nil, errWrongArgs("FT.SEARCH")
	}
	q, params, err := newQuery(string(args[0]), schemaOf, &arguments{rest: args[2:], read: 1})
	if err != nil {
		return nil, err
	}
	t := &queryText{text: string(args[1]), params: params}
	if !t.all() {
		p := &filterParser{queryText: t, schema: q.schema}
		f := p.union(0)
		q.filter = &f
	}
	if t.skip("=>") {
		q.knn(t)
	} else {
		q.request.K, q.request.Query = maxHits+1, scatter.Text{}
	}
	if t.more() {
		t.syntaxError()
	}
	if t.err != nil {
		return nil, t.err
	}
	return q.checkSort()
}

// parseRegex reads the arguments of FT.REGEX, a command of Dynomite: an index, a field, a pattern,
// and K=n for the number of edits by which a text may miss the pattern. With edits the pattern must
// be plain text. FT.SEARCH's options can follow. Without RETURN the field that was searched is
// returned.
func parseRegex(args [][]byte, schemaOf func(name string) *schema) (*searchQuery, error) {
	if len(args) < 3 {
		return nil, errWrongArgs("FT.REGEX")
	}
	name, pattern, rest := strings.TrimPrefix(string(args[1]), "@"), string(args[2]), args[3:]
	edits := uint64(0)
	if len(rest) > 0 && len(rest[0]) >= 2 && strings.EqualFold(string(rest[0][:2]), "K=") {
		var err error
		if edits, err = strconv.ParseUint(string(rest[0][2:]), 10, 16); err != nil || edits > maxEdits {
			return nil, replyErrorf("Invalid K= value `%.128s`: not a number from 0 to %d", rest[0][2:], maxEdits)
		}
		rest = rest[1:]
	}
	q, _, err := newQuery(string(args[0]), schemaOf, &arguments{rest: rest, read: len(args) - 1 - len(rest)})
	if err != nil {
		return nil, err
	}
	at := q.schema.attribute(name)
	switch {
	case at == nil:
		return nil, replyErrorf("Unknown field `%.128s`", name)
	case at.Kind != textAttr || at.has("NOINDEX"):
		return nil, replyErrorf("Expected a TEXT field that is indexed: `%.128s`", name)
	case len(pattern) > maxRegex:
		return nil, replyErrorf("Invalid pattern: longer than %d bytes", maxRegex)
	case edits > 0 && regexp.QuoteMeta(pattern) != pattern:
		return nil, replyError("Invalid pattern: with K above 0 it must be plain text, without operators")
	}
	if _, err := syntax.Parse(pattern, syntax.Perl); err != nil { // also if it isn't UTF-8
		return nil, replyError("Invalid pattern: " + err.Error())
	}
	if q.returnAll {
		q.returnAll, q.returned = false, []returned{{field: name, as: name}}
	}
	q.request.K = maxHits + 1
	q.request.Query = scatter.Regex{Field: name, Pattern: pattern, MaxErrors: uint16(edits)}
	return q.checkSort()
}

// newQuery reads the options of a query. It returns the parameters as well.
func newQuery(index string, schemaOf func(string) *schema, options *arguments) (
	q *searchQuery, params map[string]string, err error,
) {
	q = &searchQuery{request: &scatter.Request{Table: index}, returnAll: true, count: 10}
	if params = q.options(options); options.err != nil {
		return nil, nil, options.err
	}
	if q.schema = schemaOf(index); q.schema == nil {
		return nil, nil, replyErrorf("No such index %.128s", index)
	}
	return q, params, nil
}

// checkSort fails if SORTBY names nothing that can be sorted by.
func (q *searchQuery) checkSort() (*searchQuery, error) {
	if q.sortBy != "" && q.sortBy != q.scoreAs && q.schema.attribute(q.sortBy) == nil {
		return nil, replyErrorf("Property `%.128s` not loaded nor in schema", q.sortBy)
	}
	return q, nil
}

// options reads what follows the query. It returns the parameters.
func (q *searchQuery) options(a *arguments) (params map[string]string) {
	for a.more() {
		position := a.read
		arg := a.text("option")
		switch strings.ToUpper(arg) {
		case "NOCONTENT":
			q.noContent = true
		case "RETURN":
			q.returns(a)
		case "SORTBY":
			if q.sortBy != "" {
				a.fail("Multiple SORTBY steps are not allowed")
			}
			q.sortBy = a.text("SORTBY")
			if q.descending = a.skip("DESC"); !q.descending {
				a.skip("ASC")
			}
		case "LIMIT":
			q.offset, q.count = a.integer("LIMIT", 0, maxLimit), a.integer("LIMIT", 0, maxLimit)
			if q.count == 0 && q.offset != 0 {
				a.fail("The `offset` of the LIMIT must be 0 when `num` is 0")
			}
		case "PARAMS":
			if params != nil {
				a.fail("Multiple PARAMS are not allowed. Parameters can be defined only once")
			}
			params = parameters(a)
		case "TIMEOUT":
			q.timeout = time.Duration(a.integer("TIMEOUT", 0, maxInteger)) * time.Millisecond
		case "DIALECT": // 1 reads | in another way; 3 and 4 differ from 2 in nothing that is supported
			a.integer("DIALECT", 2, 4)
		default:
			a.fail("Unknown argument `%.128s` at position %d for <main>", arg, position)
		}
	}
	return params
}

// returns reads a count and as many words: fields, and AS with a name.
func (q *searchQuery) returns(a *arguments) {
	q.returnAll, q.returned = false, nil
	n := a.integer("RETURN", 0, maxInteger)
	q.noContent = q.noContent || n == 0
	for ; n > 0 && a.err == nil; n-- {
		field := a.text("RETURN")
		r := returned{field: field, as: field}
		if n > 1 && a.skip("AS") {
			if n -= 2; n == 0 {
				a.fail("RETURN path AS name - must be accompanied with NAME")
			}
			r.as = a.text("AS")
		}
		if slices.ContainsFunc(q.returned, func(o returned) bool { return o.as == r.as }) {
			continue // a reply has each name once
		}
		if q.returned = append(q.returned, r); len(q.returned) > maxReturned {
			a.fail("RETURN exceeds maximum of %d", maxReturned)
		}
	}
}

// parameters reads a count and as many names and values.
func parameters(a *arguments) map[string]string {
	n := a.integer("PARAMS", 0, maxInteger)
	if n == 0 || n%2 != 0 {
		a.fail("Parameters must be specified in PARAM VALUE pairs")
	}
	params := make(map[string]string)
	for ; n > 0 && a.err == nil; n -= 2 {
		name := a.text("PARAMS")
		if _, ok := params[name]; ok {
			a.fail("Duplicate parameter `%.128s`", name)
		}
		params[name] = a.text("PARAMS")
	}
	return params
}

// knn reads what follows the arrow: [KNN k @field $blob ...].
func (q *searchQuery) knn(t *queryText) {
	t.expect("[")
	t.expect("KNN")
	k := t.number("K", maxHits)
	at := t.attribute(q.schema, vectorAttr)
	t.expect("$")
	blob := t.parameter()
	as := ""
	for t.err == nil && !t.skip("]") {
		switch word := t.word(); strings.ToUpper(word) {
		case "AS":
			as = t.value()
		case "EF_RUNTIME":
			t.number(word, maxInteger) // no effect on an exact search
		default:
			t.fail("Error parsing vector similarity parameters: Invalid option `%.128s`", word)
		}
	}
	if q.schema.attribute(as) != nil {
		t.fail("Property `%.128s` already exists in schema", as)
	}
	q.scoreAs = cmp.Or(as, "__"+at.Name+"_score")
	q.request.K, q.request.Query = k, scatter.KNN{Field: at.Name, Vector: t.vector(at, blob)}
}

// vector reads a blob of the little-endian FLOAT32s that an attribute has.
func (t *queryText) vector(at *attribute, blob string) []float32 {
	if t.err == nil && len(blob) != 4*at.Dim {
		t.fail("Error parsing vector similarity query: query vector blob size (%d) does not match index's expected "+
			"size (%d).", len(blob), 4*at.Dim)
	}
	if t.err != nil {
		return nil
	}
	vector := make([]float32, at.Dim)
	_, _ = binary.Decode([]byte(blob), binary.LittleEndian, vector) // the length is right
	infinite := func(x float32) bool { return x-x != 0 }            // or NaN
	notZero := func(x float32) bool { return x != 0 }
	switch {
	case slices.ContainsFunc(vector, infinite):
		t.fail("Error parsing vector similarity query: query vector is not finite")
	case at.Metric == metricCosine && !slices.ContainsFunc(vector, notZero):
		t.fail("Error parsing vector similarity query: query vector is all zeros, which has no angle")
	}
	return vector
}

// needsDocuments reports whether the rows are sorted by what is in the documents.
func (q *searchQuery) needsDocuments() bool { return q.sortBy != "" && q.sortBy != q.scoreAs }

// readsDocuments reports whether something of the documents themselves is returned.
func (q *searchQuery) readsDocuments() bool {
	isField := func(r returned) bool { return q.scoreAs == "" || r.field != q.scoreAs }
	return !q.noContent && (q.returnAll || slices.ContainsFunc(q.returned, isField))
}

// arrange sorts the rows in place by SORTBY, and returns the page that LIMIT asks for. The sort is
// stable. Rows that have nothing to sort by come last in both directions.
func (q *searchQuery) arrange(rows []row) []row {
	if q.sortBy != "" {
		at := q.schema.attribute(q.sortBy) // nil: by distance
		slices.SortStableFunc(rows, func(x, y row) int {
			a, b := x.sortKey(at), y.sortKey(at)
			switch {
			case a.missing && b.missing:
				return 0
			case a.missing:
				return 1
			case b.missing:
				return -1
			case q.descending:
				a, b = b, a
			}
			return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.text, b.text))
		})
	}
	rows = rows[min(q.offset, len(rows)):]
	return rows[:min(q.count, len(rows))]
}

// sortKey is what a row is sorted by: a number or a text.
type sortKey struct {
	missing bool
	number  float64
	text    string
}

func (r *row) sortKey(at *attribute) sortKey {
	if at == nil {
		return sortKey{number: float64(r.score), missing: math.IsNaN(float64(r.score))}
	}
	value, ok := r.doc.fields[at.Field]
	switch {
	case !ok:
		return sortKey{missing: true}
	case at.Kind == numericAttr:
		n, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
		return sortKey{number: n, missing: err != nil || math.IsNaN(n)}
	case at.has("SORTABLE") && !at.has("UNF") && !at.CaseSensitive:
		return sortKey{text: lower(string(value))}
	}
	return sortKey{text: string(value)}
}
