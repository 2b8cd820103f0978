package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tidwall/redcon"
)

// replyError is an error that a client is told as it stands.
type replyError string

func (e replyError) Error() string { return string(e) }

const (
	errWrongType    replyError = "WRONGTYPE Operation against a key holding the wrong kind of value"
	errNotInteger   replyError = "ERR value is not an integer or out of range"
	errSyntax       replyError = "ERR syntax error"
	errIndexExists  replyError = "Index already exists"
	errUnknownIndex replyError = "Unknown index name" // what FT.INFO says
)

// errWrongArgs takes the command as Redis has it in its table: in lower case, and in upper case those of RediSearch.
func errWrongArgs(command string) replyError {
	return replyError(fmt.Sprintf("ERR wrong number of arguments for '%s' command", command))
}

// errUnknownCommand quotes as much of the command as Redis does: up to 128 bytes each of the name and of the arguments.
func errUnknownCommand(name []byte, args [][]byte) replyError {
	var quoted strings.Builder
	for _, arg := range args {
		if quoted.Len() >= 128 {
			break
		}
		fmt.Fprintf(&quoted, "'%s' ", arg[:min(len(arg), 128-quoted.Len())])
	}
	return replyError(fmt.Sprintf("ERR unknown command '%s', with args beginning with: %s",
		name[:min(len(name), 128)], quoted.String()))
}

// positive reads an argument that has to be a number above 0.
func positive(arg []byte) (int64, error) {
	n, err := strconv.ParseInt(string(arg), 10, 64)
	if err != nil || n < 1 || arg[0] == '+' {
		return 0, errNotInteger
	}
	return n, nil
}

// writer puts a reply together. A client that hasn't said HELLO 3 understands version 2 of the protocol, which has
// neither maps nor doubles nor a null of its own.
type writer struct {
	proto int // 2 or 3
	buf   []byte
}

func (w *writer) bytes() []byte       { return w.buf }
func (w *writer) simple(s string)     { w.buf = redcon.AppendString(w.buf, s) } // of one line
func (w *writer) bulk(b []byte)       { w.buf = redcon.AppendBulk(w.buf, b) }
func (w *writer) bulkString(s string) { w.buf = redcon.AppendBulkString(w.buf, s) }
func (w *writer) integer(n int64)     { w.buf = redcon.AppendInt(w.buf, n) }
func (w *writer) array(n int)         { w.buf = redcon.AppendArray(w.buf, n) }

// err is a reply that says what went wrong. Line breaks in it become spaces.
func (w *writer) err(err error) { w.buf = redcon.AppendError(w.buf, err.Error()) }

func (w *writer) double(f float64) {
	switch s := formatDouble(f, 17); w.proto {
	case 3:
		w.buf = append(append(append(w.buf, ','), s...), "\r\n"...)
	default:
		w.bulkString(s)
	}
}

func (w *writer) null() {
	if w.proto == 3 {
		w.buf = append(w.buf, "_\r\n"...)
	} else {
		w.buf = append(w.buf, "$-1\r\n"...)
	}
}

func (w *writer) nullArray() {
	if w.proto == 3 {
		w.null()
	} else {
		w.buf = append(w.buf, "*-1\r\n"...)
	}
}

// mapOf begins a map: n times a key and a value follow.
func (w *writer) mapOf(n int) { w.aggregate('%', n, 2*n) }

// set begins a set of n elements.
func (w *writer) set(n int) { w.aggregate('~', n, n) }

func (w *writer) aggregate(mark byte, n, elements int) {
	if w.proto == 3 {
		w.buf = append(strconv.AppendInt(append(w.buf, mark), int64(n), 10), "\r\n"...)
	} else {
		w.array(elements)
	}
}

// formatDouble writes a number as C's %.*g does.
func formatDouble(f float64, digits int) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+"))
	}
	return strconv.FormatFloat(f, 'g', digits, 64)
}

// search writes what FT.SEARCH replies: how many documents there are, and a page of them. Only version 3 of the
// protocol has a place for warnings, such as that a part of the answer is missing.
func (w *writer) search(q *searchQuery, total int, page []row, warnings []string) {
	if w.proto != 3 {
		n := 2
		if q.noContent {
			n = 1
		}
		w.array(1 + n*len(page))
		w.integer(int64(total))
		for i := range page {
			w.bulkString(page[i].id)
			w.fields(q, &page[i])
		}
		return
	}
	w.mapOf(5)
	w.simple("attributes")
	w.array(0)
	w.simple("format")
	w.simple("STRING")
	w.simple("results")
	w.array(len(page))
	for i := range page {
		n := 3
		if q.noContent {
			n = 2
		}
		w.mapOf(n)
		w.simple("id")
		w.bulkString(page[i].id)
		if !q.noContent {
			w.simple("extra_attributes")
		}
		w.fields(q, &page[i])
		w.simple("values")
		w.array(0)
	}
	w.simple("total_results")
	w.integer(int64(total))
	w.simple("warning")
	w.array(len(warnings))
	for _, warning := range warnings {
		w.simple(warning)
	}
}

// fields writes what is wanted of a document, nothing with NOCONTENT, and null if it is no hash any more.
func (w *writer) fields(q *searchQuery, r *row) {
	if q.noContent {
		return
	}
	if r.doc.kind() != hashKey {
		w.null()
		return
	}
	var names []string
	var values [][]byte
	add := func(name, field string) {
		if value, ok := r.doc.fields[field]; ok && !value.gone {
			names, values = append(names, name), append(values, value.value)
		}
	}
	distance := func(name string) {
		names, values = append(names, name), append(values, []byte(formatDistance(r.score)))
	}
	if q.returnAll && q.scoreAs != "" {
		distance(q.scoreAs)
	}
	if q.returnAll {
		for _, field := range r.doc.names() {
			if field != q.scoreAs {
				add(field, field)
			}
		}
	}
	for _, wanted := range q.returned {
		if wanted.field == q.scoreAs && q.scoreAs != "" {
			distance(wanted.as)
		} else if at, ok := q.schema.attribute(wanted.field); ok {
			add(wanted.as, at.Field)
		} else {
			add(wanted.as, wanted.field)
		}
	}
	w.mapOf(len(names))
	for i, name := range names {
		w.bulkString(name)
		w.bulk(values[i])
	}
}

// formatDistance writes a number as RediSearch does: a whole one with all its digits, another with 12.
func formatDistance(score float32) string {
	if f := float64(score); f == math.Trunc(f) && math.Abs(f) < 1<<63 {
		return strconv.FormatInt(int64(f), 10)
	}
	return formatDouble(float64(score), 12)
}

// indexInfo is what FT.INFO says beside the schema.
type indexInfo struct {
	documents int64 // in the index
	failures  int64 // about how many values aren't what their attributes take
}

// info writes what FT.INFO replies: of the properties that RediSearch has those that have a meaning here.
func (w *writer) info(s *schema, i indexInfo) {
	w.mapOf(9)
	w.pair("index_name", s.Name)
	w.simple("index_options")
	w.array(len(s.Options))
	for _, option := range s.Options {
		w.simple(option)
	}

	w.simple("index_definition")
	if s.Language == "" {
		w.mapOf(4)
	} else {
		w.mapOf(5)
	}
	w.pair("key_type", "HASH")
	w.simple("prefixes")
	w.array(len(s.Prefixes))
	for _, prefix := range s.Prefixes {
		w.name(prefix)
	}
	if s.Language != "" {
		w.pair("default_language", s.Language)
	}
	w.simple("default_score")
	w.double(s.Score)
	w.pair("indexes_all", "false")

	w.simple("attributes")
	w.array(len(s.Attributes))
	for i := range s.Attributes {
		w.attribute(&s.Attributes[i])
	}

	w.number("num_docs", i.documents)
	w.number("hash_indexing_failures", i.failures)
	w.number("indexing", 0) // it is indexed when it is written
	w.simple("percent_indexed")
	w.double(1)
	w.errors(i.failures)
}

// attribute writes what FT.INFO says of an attribute. In version 2 of the protocol flags are words among the pairs.
func (w *writer) attribute(at *attribute) {
	pairs := writer{proto: w.proto}
	n := 3
	pairs.pair("identifier", at.Field)
	pairs.pair("attribute", at.Name)
	pairs.pair("type", string(at.Kind))
	switch at.Kind {
	case textAttr:
		n++
		pairs.simple("WEIGHT")
		pairs.double(at.Weight)
	case tagAttr:
		n++
		pairs.pair("SEPARATOR", at.Separator)
	case vectorAttr:
		n += 4
		pairs.pair("algorithm", at.Algorithm)
		pairs.pair("data_type", "FLOAT32")
		pairs.number("dim", int64(at.Dim))
		pairs.pair("distance_metric", string(at.Metric))
		if at.Algorithm == "HNSW" {
			n += 2
			pairs.number("M", int64(at.M))
			pairs.number("ef_construction", int64(at.EFConstruction))
		}
	}
	if w.proto == 3 {
		n++
		pairs.simple("flags")
		pairs.array(len(at.Flags))
	}
	for _, flag := range at.Flags {
		pairs.simple(flag)
	}
	if w.proto == 3 {
		w.mapOf(n)
	} else {
		w.array(2*n + len(at.Flags))
	}
	w.buf = append(w.buf, pairs.buf...)
}

// errors writes how many values couldn't be indexed. Which ones they were isn't kept.
func (w *writer) errors(n int64) {
	last := "N/A"
	if n > 0 {
		last = "The value is not what the attribute takes"
	}
	w.simple("Index Errors")
	w.mapOf(4)
	w.number("indexing failures", n)
	w.pair("last indexing error", last)
	w.pair("last indexing error key", "N/A")
	w.pair("background indexing status", "OK")
}

// list writes what FT._LIST replies.
func (w *writer) list(schemas []*schema) {
	w.set(len(schemas))
	for _, s := range schemas {
		w.name(s.Name)
	}
}

func (w *writer) pair(key, value string) {
	w.simple(key)
	w.name(value)
}

func (w *writer) number(key string, n int64) {
	w.simple(key)
	w.integer(n)
}

// name is simple for what a client has chosen, which may have line breaks.
func (w *writer) name(s string) {
	if strings.ContainsAny(s, "\r\n") {
		w.bulkString(s)
	} else {
		w.simple(s)
	}
}
