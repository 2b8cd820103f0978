package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/redcon"
)

// A reply is nil, an error, a status, a string or []byte (a bulk string), an int or int64, a
// float64, a []any, pairs or a set.
type (
	status string // a text of one line
	pairs  []any  // a map: keys, each followed by its value
	set    []any
)

const replyOK status = "OK"

// appendReply writes a reply in version 2 or 3 of the protocol. Version 2 has no maps, sets or
// doubles.
func appendReply(b []byte, proto int, reply any) []byte {
	aggregate := func(mark byte, n int, elements []any) []byte {
		if proto == 3 {
			b = append(strconv.AppendInt(append(b, mark), int64(n), 10), "\r\n"...)
		} else {
			b = redcon.AppendArray(b, len(elements))
		}
		for _, element := range elements {
			b = appendReply(b, proto, element)
		}
		return b
	}
	switch v := reply.(type) {
	case nil:
		if proto == 3 {
			return append(b, "_\r\n"...)
		}
		return append(b, "$-1\r\n"...)
	case error:
		return redcon.AppendError(b, errorText(v))
	case status:
		return redcon.AppendString(b, string(v))
	case string:
		return redcon.AppendBulkString(b, v)
	case []byte:
		return redcon.AppendBulk(b, v)
	case int:
		return redcon.AppendInt(b, int64(v))
	case int64:
		return redcon.AppendInt(b, v)
	case float64:
		if s := strconv.FormatFloat(v, 'g', 17, 64); proto == 3 {
			return append(append(append(b, ','), s...), "\r\n"...)
		} else {
			return redcon.AppendBulkString(b, s)
		}
	case []any:
		return aggregate('*', len(v), v)
	case pairs:
		return aggregate('%', len(v)/2, v)
	case set:
		return aggregate('~', len(v), v)
	}
	panic(fmt.Sprintf("a reply of the type %T", reply))
}

// replyError is an error whose text is sent to the client as it is.
type replyError string

func (e replyError) Error() string { return string(e) }

func replyErrorf(format string, args ...any) replyError {
	return replyError(fmt.Sprintf(format, args...))
}

const (
	errWrongType    replyError = "WRONGTYPE Operation against a key holding the wrong kind of value"
	errNotInteger   replyError = "ERR value is not an integer or out of range"
	errSyntax       replyError = "ERR syntax error"
	errIndexExists  replyError = "Index already exists"
	errUnknownIndex replyError = "Unknown index name"
)

// errorText returns what a client gets to read. An error without a code, a first word in capitals,
// gets the code ERR.
func errorText(err error) string {
	var verbatim replyError
	code, _, _ := strings.Cut(err.Error(), " ")
	if errors.As(err, &verbatim) || code != "" && strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		return err.Error()
	}
	return "ERR " + err.Error()
}

// errWrongArgs takes the command's name as Redis prints it: in lower case, or in upper case for
// RediSearch's commands.
func errWrongArgs(command string) replyError {
	return replyErrorf("ERR wrong number of arguments for '%s' command", command)
}

// errUnknownCommand quotes up to 128 bytes of the command's name and of its arguments, as Redis
// does.
func errUnknownCommand(name []byte, args [][]byte) replyError {
	var quoted strings.Builder
	for _, arg := range args {
		if quoted.Len() >= 128 {
			break
		}
		fmt.Fprintf(&quoted, "'%s' ", arg[:min(len(arg), 128-quoted.Len())])
	}
	return replyErrorf("ERR unknown command '%.128s', with args beginning with: %s", name, quoted.String())
}

// formatDistance writes a number as RediSearch does: an integer with all its digits, others with
// 12.
func formatDistance(score float32) string {
	f := float64(score)
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return strings.ToLower(strings.TrimPrefix(fmt.Sprint(f), "+"))
	case f == math.Trunc(f) && math.Abs(f) < 1<<63:
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', 12, 64)
}

// reply returns the reply to FT.SEARCH: how many documents there are, and a page of them. Only
// version 3 of the protocol has a place for warnings.
func (q *searchQuery) reply(proto int, total int64, page []row, warnings []string) any {
	list, results, warned := []any{total}, []any{}, []any{}
	for i := range page {
		id := page[i].id
		result := pairs{"id", id}
		if list = append(list, id); !q.noContent {
			fields := q.fields(&page[i])
			list = append(list, fields)
			result = append(result, "extra_attributes", fields)
		}
		results = append(results, append(result, "values", []any{}))
	}
	for _, warning := range warnings {
		warned = append(warned, warning)
	}
	if proto != 3 {
		return list
	}
	return pairs{"attributes", []any{}, "format", status("STRING"), "results", results, "total_results", total,
		"warning", warned}
}

// fields returns what a query returns of a document, or nil if it is no hash any more.
func (q *searchQuery) fields(r *row) any {
	if r.doc.kind != hashKey && q.readsDocuments() {
		return nil
	}
	wanted, list := q.returned, pairs{}
	if q.returnAll && q.scoreAs != "" {
		wanted = []returned{{q.scoreAs, q.scoreAs}}
	}
	for _, w := range wanted {
		field := w.field
		if at := q.schema.attribute(field); at != nil {
			field = at.Field
		}
		if w.field == q.scoreAs && q.scoreAs != "" {
			list = append(list, w.as, formatDistance(r.score))
		} else if value, ok := r.doc.fields[field]; ok {
			list = append(list, w.as, value)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(r.doc.fields)) {
		if q.returnAll && field != q.scoreAs {
			list = append(list, field, r.doc.fields[field])
		}
	}
	return list
}

// info returns the reply to FT.INFO, as far as RediSearch's properties have a meaning here.
// failures is the number of values that their attributes don't take.
func (s *schema) info(proto int, documents, failures int64) any {
	var prefixes, attributes []any
	for _, prefix := range s.Prefixes {
		prefixes = append(prefixes, prefix)
	}
	for i := range s.Attributes {
		attributes = append(attributes, s.Attributes[i].info(proto))
	}
	last := "N/A"
	if failures > 0 {
		last = "The value is not what the attribute takes"
	}
	return pairs{
		"index_name", s.Name,
		"index_options", []any{},
		"index_definition", pairs{"key_type", "HASH", "prefixes", prefixes, "default_score", 1.0},
		"attributes", attributes,
		"num_docs", documents,
		"hash_indexing_failures", failures,
		"indexing", 0,
		"percent_indexed", 1.0,
		"Index Errors", pairs{"indexing failures", failures, "last indexing error", last,
			"last indexing error key", "N/A"},
	}
}

// info returns what FT.INFO says of an attribute. In version 2 of the protocol the flags are words
// after the pairs.
func (a *attribute) info(proto int) any {
	list := pairs{"identifier", a.Field, "attribute", a.Name, "type", string(a.Kind)}
	switch a.Kind {
	case textAttr:
		list = append(list, "WEIGHT", 1.0)
	case tagAttr:
		list = append(list, "SEPARATOR", a.Separator)
	case vectorAttr:
		list = append(list, "algorithm", a.Algorithm, "data_type", "FLOAT32", "dim", a.Dim, "distance_metric",
			string(a.Metric))
	}
	flags := []any{}
	if a.CaseSensitive {
		flags = append(flags, "CASESENSITIVE")
	}
	for _, flag := range a.Flags {
		flags = append(flags, flag)
	}
	if proto == 3 {
		return append(list, "flags", flags)
	}
	return append([]any(list), flags...)
}
