package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/scatterknn/scatter"
)

const (
	maxHits     = 10_000    // that a search finds: a greater K is refused, and texts are found no more of
	maxLimit    = 1_000_000 // RediSearch's own
	maxReturned = 1024
	maxRegex    = 512 // bytes
	maxEdits    = 64
)

// searchQuery is what FT.SEARCH or FT.REGEX asks for. A request for all documents is a [scatter.Text] without a field.
type searchQuery struct {
	schema     *schema
	request    *scatter.Request
	scoreAs    string     // of a KNN: the name under which the distance is returned
	returned   []returned // what RETURN names
	returnAll  bool       // there was no RETURN
	noContent  bool
	sortBy     string // an attribute's name, or scoreAs
	descending bool
	offset     int // LIMIT's
	count      int
	timeout    time.Duration // 0: the default
}

// returned is a value that RETURN asks for: an attribute, the distance or any field, and the name it is to have.
type returned struct{ field, as string }

// row is a document that was found. A document that is gone by now is none.
type row struct {
	id    string
	score float32 // the distance
	doc   document
}

// parseSearch reads what follows FT.SEARCH: an index, a query and options. The query is one of
//
//	idx *                                                             all documents
//	idx *=>[KNN 10 @field $blob AS name]                              the nearest ones; AS is optional
//	idx *=>[KNN 10 @field $blob]=>{$YIELD_DISTANCE_AS: name}          likewise
//	idx @field:text  or @field:*text*  or @field:(text)               those whose field has these bytes in it
//	idx @field:"a text"                                               likewise; the case counts
//
// EF_RUNTIME is read as well. A number, a name or a text may be a parameter ($name), and what isn't a letter, a digit
// or _ is to be quoted or to have a backslash before it. Any other query is an error: RediSearch would answer it, and a
// guess at what it says would be a wrong answer.
func parseSearch(args [][]byte, schemaOf func(name string) (*schema, bool)) (*searchQuery, error) {
	if len(args) < 2 {
		return nil, errWrongArgs("FT.SEARCH")
	}
	q, params, err := newQuery(string(args[0]), schemaOf, &arguments{rest: args[2:], read: 1})
	if err != nil {
		return nil, err
	}
	t := &queryText{text: string(args[1]), params: params}
	q.query(t)
	if t.err != nil {
		return nil, t.err
	}
	return q, q.checkSort()
}

// parseRegex reads what follows FT.REGEX, which is not RediSearch's but Dynomite's: an index, a field, a pattern, and
// K=n for the number of edits (none without it) by which a text may miss the pattern. What FT.SEARCH takes as RETURN,
// LIMIT and so on may follow. Without RETURN the field that was searched is returned, as by Dynomite. But LIMIT is
// 0 10 as everywhere else, where Dynomite returns all; and edits are counted for plain texts only.
func parseRegex(args [][]byte, schemaOf func(name string) (*schema, bool)) (*searchQuery, error) {
	if len(args) < 3 {
		return nil, errWrongArgs("FT.REGEX")
	}
	name, pattern, rest := strings.TrimPrefix(string(args[1]), "@"), string(args[2]), args[3:]
	edits := uint64(0)
	if len(rest) > 0 && len(rest[0]) >= 2 && strings.EqualFold(string(rest[0][:2]), "K=") {
		var err error
		if edits, err = strconv.ParseUint(string(rest[0][2:]), 10, 16); err != nil || edits > maxEdits {
			return nil, replyError(fmt.Sprintf("Invalid K= value `%s`: not a number from 0 to %d", rest[0][2:], maxEdits))
		}
		rest = rest[1:]
	}
	q, _, err := newQuery(string(args[0]), schemaOf, &arguments{rest: rest, read: len(args) - 1 - len(rest)})
	if err != nil {
		return nil, err
	}
	at, ok := q.schema.attribute(name)
	switch {
	case !ok:
		return nil, replyError(fmt.Sprintf("Unknown field `%s`", name))
	case at.Kind != textAttr || at.has("NOINDEX"):
		return nil, replyError(fmt.Sprintf("Expected a TEXT field that is indexed: `%s`", name))
	case len(pattern) > maxRegex:
		return nil, replyError(fmt.Sprintf("Invalid pattern: longer than %d bytes", maxRegex))
	case edits > 0 && regexp.QuoteMeta(pattern) != pattern:
		return nil, replyError("Invalid pattern: with K above 0 it has to be a plain text, without operators")
	}
	if _, err := syntax.Parse(pattern, syntax.Perl); err != nil { // it isn't UTF-8, for one
		return nil, replyError("Invalid pattern: " + err.Error())
	}
	if q.returnAll {
		q.returnAll, q.returned = false, []returned{{field: name, as: name}}
	}
	q.request.K = maxHits
	q.request.Query = scatter.Regex{Field: name, Pattern: pattern, MaxErrors: uint16(edits)}
	return q, q.checkSort()
}

// newQuery reads the options of a query, and returns the parameters too.
func newQuery(index string, schemaOf func(string) (*schema, bool), options *arguments) (
	q *searchQuery, params map[string]string, err error,
) {
	q = &searchQuery{request: &scatter.Request{Table: index}, returnAll: true, count: 10}
	params = q.options(options)
	if options.err != nil {
		return nil, nil, options.err
	}
	var ok bool
	if q.schema, ok = schemaOf(index); !ok {
		return nil, nil, replyError("No such index " + index)
	}
	return q, params, nil
}

// checkSort fails if there is nothing to sort by of the name that SORTBY has.
func (q *searchQuery) checkSort() error {
	if _, ok := q.schema.attribute(q.sortBy); !ok && q.sortBy != q.scoreAs && q.sortBy != "" {
		return replyError(fmt.Sprintf("Property `%s` not loaded nor in schema", q.sortBy))
	}
	return nil
}

// options reads what follows the query, and returns the parameters.
func (q *searchQuery) options(a *arguments) (params map[string]string) {
	for a.more() {
		position := a.read
		arg := a.next()
		switch strings.ToUpper(arg) {
		case "NOCONTENT":
			q.noContent = true
		case "RETURN":
			q.returns(a)
		case "SORTBY":
			if q.sortBy != "" {
				a.fail("Multiple SORTBY steps are not allowed")
			}
			if q.sortBy = a.next(); q.sortBy == "" {
				a.fail("Bad SORTBY arguments")
			}
			q.descending = a.skip("DESC")
			_ = q.descending || a.skip("ASC")
		case "LIMIT":
			if len(a.rest) < 2 {
				a.fail("LIMIT requires two arguments")
			}
			q.offset = a.integerOr("LIMIT needs two numeric arguments", 0, maxInteger)
			q.count = a.integerOr("LIMIT needs two numeric arguments", 0, maxInteger)
			switch {
			case q.count == 0 && q.offset != 0:
				a.fail("The `offset` of the LIMIT must be 0 when `num` is 0")
			case q.count > maxLimit:
				a.fail("LIMIT exceeds maximum of %d", maxLimit)
			case q.offset > maxLimit:
				a.fail("OFFSET exceeds maximum of %d", maxLimit)
			}
		case "PARAMS":
			if params != nil {
				a.fail("Multiple PARAMS are not allowed. Parameters can be defined only once")
			}
			params = parameters(a)
		case "TIMEOUT":
			ms := a.integerOr("TIMEOUT requires a non negative integer", 0, maxInteger)
			q.timeout = time.Duration(ms) * time.Millisecond
		case "DIALECT": // the queries above mean the same in all of them
			a.integerOr("DIALECT requires a non negative integer >=1 and <= 4", 1, 4)
		case "FORMAT":
			if format := a.text("FORMAT"); !strings.EqualFold(format, "STRING") {
				a.fail("FORMAT %s is not supported", format)
			}
		case "VERBATIM", "NOSTOPWORDS", "WITHCOUNT", "WITHOUTCOUNT": // it is so anyway
		default:
			a.fail("Unknown argument `%s` at position %d for <main>", arg, position)
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
			if n -= 2; n == 0 || len(a.rest) == 0 {
				a.fail("RETURN path AS name - must be accompanied with NAME")
			}
			r.as = a.next()
		}
		if slices.ContainsFunc(q.returned, func(o returned) bool { return o.as == r.as }) {
			continue // a reply has a name but once
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
			a.fail("Duplicate parameter `%s`", name)
		}
		params[name] = a.text("PARAMS")
	}
	return params
}

// query reads a query string.
func (q *searchQuery) query(t *queryText) {
	open := 0
	for t.skip("(") {
		open++
	}
	all := t.skip("*")
	if !all {
		q.substring(t)
	}
	for ; open > 0; open-- {
		t.expect(")")
	}
	switch {
	case !all:
	case t.skip("=>"):
		q.knn(t)
	default:
		q.request.K, q.request.Query = maxHits, scatter.Text{}
	}
	if t.more() {
		t.syntaxError()
	}
}

// substring reads a field and the text to look for in it.
func (q *searchQuery) substring(t *queryText) {
	at := q.field(t, textAttr)
	t.expect(":")
	parenthesis := t.skip("(")
	text := ""
	switch {
	case t.skip(`"`):
		text = t.quoted()
	case t.skip("*"):
		text = t.value()
		t.expect("*")
	default:
		text = t.value()
	}
	if parenthesis {
		t.expect(")")
	}
	if text == "" {
		t.fail("Use `INDEXEMPTY` in field creation in order to index and query for empty strings")
	}
	q.request.K, q.request.Query = maxHits, scatter.Text{Field: at.Name, Substring: []byte(text)}
}

// knn reads what follows the arrow: [KNN k @field $blob ...], and attributes in braces.
func (q *searchQuery) knn(t *queryText) {
	t.expect("[")
	t.expect("KNN")
	k := t.number("K", maxHits)
	at := q.field(t, vectorAttr)
	blob := ""
	if t.expect("$"); t.err == nil {
		blob = t.parameter()
	}
	ef, as := 0, ""
	for t.err == nil && !t.skip("]") {
		switch word := t.word(); strings.ToUpper(word) {
		case "AS":
			as = t.value()
		case "EF_RUNTIME":
			ef = t.number("EF_RUNTIME", maxInteger)
		default:
			t.fail("Error parsing vector similarity parameters: Invalid option `%s`", word)
		}
	}
	if t.skip("=>") {
		t.expect("{")
		for t.err == nil && !t.skip("}") {
			t.expect("$")
			word := t.word()
			t.expect(":")
			switch strings.ToUpper(word) {
			case "YIELD_DISTANCE_AS":
				also := t.value()
				if as != "" {
					t.fail("Distance field was specified twice for vector query: %s and %s", as, also)
				}
				as = also
			case "EF_RUNTIME":
				ef = t.number("EF_RUNTIME", maxInteger)
			default:
				t.fail("Invalid attribute %s", word)
			}
			if !t.skip(";") && !t.starts("}") {
				t.syntaxError()
			}
		}
	}
	if t.err == nil && len(blob) != 4*at.Dim {
		t.fail("Error parsing vector similarity query: query vector blob size (%d) does not match index's expected "+
			"size (%d).", len(blob), 4*at.Dim)
	}
	if t.err == nil && ef != 0 && at.Algorithm != "HNSW" {
		t.fail("Error parsing vector similarity parameters: Invalid option `EF_RUNTIME`")
	}
	if _, ok := q.schema.attribute(as); ok {
		t.fail("Property `%s` already exists in schema", as)
	}
	if t.err != nil {
		return
	}
	vector := make([]float32, at.Dim)
	_, _ = binary.Decode([]byte(blob), binary.LittleEndian, vector) // the length is right
	switch {
	case slices.ContainsFunc(vector, func(x float32) bool { return x-x != 0 }): // infinite, or NaN
		t.fail("Error parsing vector similarity query: query vector is not finite")
	case at.Metric == metricCosine && !slices.ContainsFunc(vector, func(x float32) bool { return x != 0 }):
		t.fail("Error parsing vector similarity query: query vector is all zeros, which has no angle")
	}
	q.scoreAs = cmp.Or(as, "__"+at.Name+"_score")
	q.request.K, q.request.Query = k, scatter.KNN{Field: at.Name, Vector: vector, EF: ef}
}

// field reads the name of an attribute that is of a kind and indexed.
func (q *searchQuery) field(t *queryText, kind attributeKind) *attribute {
	t.expect("@")
	from := t.at - 1
	name := t.word()
	if t.err != nil {
		return new(attribute)
	}
	at, ok := q.schema.attribute(name)
	switch {
	case !ok:
		t.fail("Unknown field at offset %d near %s", from, name)
	case at.Kind != kind:
		t.fail("Expected a %s field at offset %d near %s", kind, from, name)
	case at.has("NOINDEX"):
		t.fail("Expected a field without NOINDEX at offset %d near %s", from, name)
	default:
		return at
	}
	return new(attribute)
}

// queryText is a query string that is read from the front. Once err is set, which the first error does, nothing is read
// any more.
type queryText struct {
	text   string
	at     int // how much has been read
	params map[string]string
	err    error
}

func (t *queryText) fail(format string, args ...any) {
	if t.err == nil {
		t.err = replyError(fmt.Sprintf(format, args...))
	}
}

// syntaxError says that what comes now isn't understood.
func (t *queryText) syntaxError() {
	near, _, _ := strings.Cut(t.text[t.at:], " ")
	t.fail("Syntax error at offset %d near %s (only *, *=>[KNN ...] and @field:text are supported)",
		t.at, near[:min(len(near), 32)])
}

// more skips blanks and reports whether something comes after them.
func (t *queryText) more() bool {
	for t.at < len(t.text) && strings.IndexByte(" \t\r\n", t.text[t.at]) >= 0 {
		t.at++
	}
	return t.err == nil && t.at < len(t.text)
}

// starts reports whether this comes next, in upper or lower case.
func (t *queryText) starts(token string) bool {
	return t.more() && len(t.text)-t.at >= len(token) && strings.EqualFold(t.text[t.at:t.at+len(token)], token)
}

// skip reads this if it comes next.
func (t *queryText) skip(token string) bool {
	if !t.starts(token) {
		return false
	}
	t.at += len(token)
	return true
}

// expect reads this, which has to come next.
func (t *queryText) expect(token string) {
	if !t.skip(token) {
		t.syntaxError()
	}
}

// word reads letters, digits, underscores, bytes that aren't ASCII, and whatever has a backslash before it.
func (t *queryText) word() string {
	var word []byte
	for t.more(); t.err == nil && t.at < len(t.text); t.at++ {
		c := t.text[t.at]
		if c == '\\' && t.at+1 < len(t.text) {
			t.at++
			c = t.text[t.at]
		} else if r := rune(c); c < utf8.RuneSelf && c != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			break
		}
		word = append(word, c)
	}
	if len(word) == 0 {
		t.syntaxError()
	}
	return string(word)
}

// quoted reads up to the closing quote. A backslash takes its meaning from a quote or a backslash.
func (t *queryText) quoted() string {
	var text []byte
	for t.err == nil && t.at < len(t.text) {
		c := t.text[t.at]
		t.at++
		switch {
		case c == '"':
			return string(text)
		case c == '\\' && t.at < len(t.text) && strings.IndexByte(`"\`, t.text[t.at]) >= 0:
			c = t.text[t.at]
			t.at++
		}
		text = append(text, c)
	}
	t.syntaxError()
	return ""
}

// value reads a word or a parameter.
func (t *queryText) value() string {
	if t.skip("$") {
		return t.parameter()
	}
	return t.word()
}

// parameter reads the name of a parameter and returns its value.
func (t *queryText) parameter() string {
	name := t.word()
	value, ok := t.params[name]
	if !ok {
		t.fail("No such parameter `%s`", name)
	}
	return value
}

// number reads a value that has to be a number from 1 to high.
func (t *queryText) number(name string, high int) int {
	value := t.value()
	if t.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(value, 10, 63)
	switch {
	case err != nil || n == 0:
		t.fail("Invalid numeric value (%s) for parameter `%s`", value, name)
	case n > uint64(high):
		t.fail("Error parsing vector similarity query: query KNN %s parameter is too large, must not exceed %d", name, high)
	}
	return int(n)
}

// needsDocuments reports whether the documents have to be known before the rows are arranged.
func (q *searchQuery) needsDocuments() bool { return q.sortBy != "" && q.sortBy != q.scoreAs }

// arrange sorts the rows, in place, as SORTBY says, and returns the page that LIMIT says. Rows that have nothing to
// sort by come last either way; those that are equal stay as they are.
func (q *searchQuery) arrange(rows []row) []row {
	if q.sortBy != "" {
		at, _ := q.schema.attribute(q.sortBy) // nil: by distance
		type keyed struct {
			sortKey
			row row
		}
		sorted := make([]keyed, len(rows))
		for i, r := range rows {
			sorted[i] = keyed{r.sortKey(at), r}
		}
		slices.SortStableFunc(sorted, func(a, b keyed) int {
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
			return cmp.Or(cmp.Compare(a.number, b.number), bytes.Compare(a.text, b.text))
		})
		for i := range sorted {
			rows[i] = sorted[i].row
		}
	}
	rows = rows[min(q.offset, len(rows)):]
	return rows[:min(q.count, len(rows))]
}

// sortKey is what a row is sorted by: a number or a text.
type sortKey struct {
	missing bool
	number  float64
	text    []byte
}

func (r *row) sortKey(at *attribute) sortKey {
	if at == nil {
		return sortKey{number: float64(r.score), missing: math.IsNaN(float64(r.score))}
	}
	value, ok := r.doc.field(at.Field)
	switch {
	case !ok:
		return sortKey{missing: true}
	case at.Kind == numericAttr:
		n, err := strconv.ParseFloat(string(value), 64)
		return sortKey{number: n, missing: err != nil || math.IsNaN(n)}
	case at.has("SORTABLE") && !at.has("UNF"):
		return sortKey{text: bytes.ToLower(value)}
	}
	return sortKey{text: value}
}
