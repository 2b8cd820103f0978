package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The language is RediSearch's. Where its versions differ, the wording of errors, the layout of
// replies and the defaults are those of RediSearch 8.2.

// The limits of a schema.
const (
	maxIndexes    = 100
	maxAttributes = 1024 // RediSearch's own limit
	maxDim        = 32768
	maxVectors    = 32 // attributes of one index
	maxPrefixes   = 1024
	maxWord       = 512 // bytes of a name or a prefix
)

// schema is what FT.CREATE says of an index. It is stored as JSON in the meta stream.
type schema struct {
	Name       string
	Prefixes   []string // a key with one of these is in the index
	Attributes []attribute
}

// attribute is a part of a document that can be searched or sorted by.
type attribute struct {
	Field string // of the hash
	Name  string // in queries: what AS says, or else the field
	Kind  attributeKind
	Flags []string `json:",omitempty"` // such as SORTABLE

	// Of a VECTOR.
	Algorithm string `json:",omitempty"` // FLAT or HNSW; a search is exact with both
	Dim       int    `json:",omitempty"`
	Metric    metric `json:",omitempty"`

	Separator     string `json:",omitempty"` // of a TAG
	CaseSensitive bool   `json:",omitempty"` // of a TAG
}

type attributeKind string

const (
	vectorAttr  attributeKind = "VECTOR"
	textAttr    attributeKind = "TEXT"
	tagAttr     attributeKind = "TAG"
	numericAttr attributeKind = "NUMERIC"
)

type metric string

const (
	metricL2     metric = "L2"     // the square of the Euclidean distance
	metricCosine metric = "COSINE" // 1 - the cosine of the angle
	metricIP     metric = "IP"     // 1 - the inner product
)

var knownMetrics = []metric{metricL2, metricCosine, metricIP}

// holds reports whether a key's document belongs to the index. A key that isn't UTF-8 never does,
// because a hit's ID must be UTF-8.
func (s *schema) holds(key string) bool {
	starts := func(prefix string) bool { return strings.HasPrefix(key, prefix) }
	return utf8.ValidString(key) && slices.ContainsFunc(s.Prefixes, starts)
}

// attribute returns an attribute by its name in queries, or nil.
func (s *schema) attribute(name string) *attribute {
	for i := range s.Attributes {
		if s.Attributes[i].Name == name {
			return &s.Attributes[i]
		}
	}
	return nil
}

func (a *attribute) has(flag string) bool { return slices.Contains(a.Flags, flag) }

// tags returns the values of a TAG field: separated, trimmed and, unless the case counts, in lower
// case. They are sorted, and each is there once.
func (a *attribute) tags(value []byte) []string {
	var tags []string
	for _, tag := range strings.Split(string(value), a.Separator) {
		if tag = a.tag(tag); tag != "" {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// tag returns a single tag in the form in which tags are compared.
func (a *attribute) tag(tag string) string {
	tag = strings.Trim(tag, " \t\r\n")
	if a.CaseSensitive {
		return tag
	}
	return lower(tag)
}

// lower returns a text in lower case. A text that isn't UTF-8 stays as it is: strings.ToLower would
// make all invalid bytes equal.
func lower(text string) string {
	if !utf8.ValidString(text) {
		return text
	}
	return strings.ToLower(text)
}

func (s *schema) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // parseCreate accepts nothing that JSON can't express
	}
	return b
}

// decodeSchema is the opposite of encode.
func decodeSchema(b []byte) (*schema, error) {
	s := new(schema)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("decode schema: %w", err)
	}
	for _, at := range s.Attributes {
		vector := slices.Contains(knownMetrics, at.Metric) && at.Dim >= 1 && at.Dim <= maxDim
		if at.Name == "" || at.Kind == vectorAttr && !vector || at.Kind == tagAttr && at.Separator == "" {
			return nil, fmt.Errorf("decode schema: attribute %q is invalid", at.Name)
		}
	}
	return s, nil
}

// parseCreate reads the arguments of FT.CREATE.
func parseCreate(args [][]byte) (*schema, error) {
	if len(args) < 4 {
		return nil, errWrongArgs("FT.CREATE")
	}
	for _, arg := range args {
		if !utf8.Valid(arg) || len(arg) > maxWord { // JSON, FTQ1 and NATS subjects couldn't hold it
			return nil, replyErrorf("Bad arguments for FT.CREATE: %.128q is not UTF-8 or longer than %d bytes",
				arg, maxWord)
		}
	}
	a := &arguments{rest: args}
	s := &schema{Name: a.text("FT.CREATE"), Prefixes: []string{""}}
	if s.Name == "" {
		a.fail("Index name is empty")
	}
	for a.more() && !a.skip("SCHEMA") {
		s.option(a)
		if len(a.rest) == 0 {
			a.fail("No schema found")
		}
	}
	if len(a.rest) == 0 {
		a.fail("Fields arguments are missing")
	}
	vectors := 0
	for a.more() {
		at := a.attribute()
		if at.Kind == vectorAttr {
			vectors++
		}
		switch {
		case s.attribute(at.Name) != nil:
			a.fail("Duplicate field in schema - %.128s", at.Name)
		case len(s.Attributes) == maxAttributes:
			a.fail("Schema is limited to %d fields", maxAttributes)
		case vectors > maxVectors:
			a.fail("Schema is limited to %d vector fields", maxVectors)
		}
		s.Attributes = append(s.Attributes, at)
	}
	return s, a.err
}

// option reads one of the options that stand before the schema.
func (s *schema) option(a *arguments) {
	switch option := a.keyword(); option {
	case "ON":
		if on := a.keyword(); on != "HASH" {
			a.fail("Invalid rule type: %.128s", on)
		}
	case "PREFIX":
		s.Prefixes = nil
		for range a.integer(option, 1, maxPrefixes) {
			s.Prefixes = append(s.Prefixes, a.text(option))
		}
	case "NOOFFSETS", "NOHL", "NOFIELDS", "NOFREQS":
		// They say how RediSearch stores texts. They don't change what a search finds.
	default:
		a.fail("Unknown argument `%.128s`", option)
	}
}

// attributeOptions are what can follow the type of an attribute.
var attributeOptions = map[attributeKind][]string{
	textAttr: {"WEIGHT", "NOSTEM", "WITHSUFFIXTRIE", "INDEXEMPTY", "INDEXMISSING", "SORTABLE", "UNF", "NOINDEX"},
	tagAttr: {"SEPARATOR", "CASESENSITIVE", "WITHSUFFIXTRIE", "INDEXEMPTY", "INDEXMISSING", "SORTABLE", "UNF",
		"NOINDEX"},
	numericAttr: {"INDEXMISSING", "SORTABLE", "UNF", "NOINDEX"},
	vectorAttr:  {"INDEXMISSING"},
}

// attribute reads one attribute.
func (a *arguments) attribute() attribute {
	at := attribute{Field: a.text("field")}
	if at.Name = at.Field; a.skip("AS") {
		at.Name = a.text("AS")
	}
	switch {
	case at.Name == "":
		a.fail("Field name is empty")
	case len(a.rest) == 0:
		a.fail("Field `%.128s` does not have a type", at.Name)
	}
	at.Kind = attributeKind(a.keyword())
	options, known := attributeOptions[at.Kind]
	if !known {
		a.fail("Invalid field type for field `%.128s`", at.Name)
	}
	switch at.Kind {
	case vectorAttr:
		a.vector(&at)
	case tagAttr:
		at.Separator = ","
	}
	for a.more() && slices.Contains(options, strings.ToUpper(string(a.rest[0]))) {
		switch option := a.keyword(); option {
		case "WEIGHT":
			a.number(option) // texts aren't ranked here
		case "SEPARATOR":
			if at.Separator = a.text(option); len(at.Separator) != 1 {
				a.fail("Tag separator must be a single character. Got `%.128s`", at.Separator)
			}
		case "CASESENSITIVE":
			at.CaseSensitive = true
		default:
			at.Flags = append(at.Flags, option)
		}
	}
	return at
}

// vector reads what follows the word VECTOR: the algorithm, a count, and as many names and values.
func (a *arguments) vector(at *attribute) {
	if at.Algorithm = a.keyword(); at.Algorithm != "FLAT" && at.Algorithm != "HNSW" {
		a.fail("Bad arguments for vector similarity algorithm: Unknown argument `%.128s`", at.Algorithm)
	}
	n := a.integer("vector similarity number of parameters", 0, maxInteger)
	if n%2 != 0 {
		a.fail("Bad number of arguments for vector similarity index: got %d but expected even number", n)
	}
	typed := false
	for ; n > 0 && a.err == nil; n -= 2 {
		switch name := a.keyword(); name {
		case "TYPE":
			if t := a.keyword(); t != "FLOAT32" {
				a.fail("Bad arguments for vector similarity TYPE: `%.128s`, only FLOAT32 is supported", t)
			}
			typed = true
		case "DIM":
			at.Dim = a.integer("vector similarity DIM", 1, maxInteger)
		case "DISTANCE_METRIC":
			at.Metric = metric(a.keyword())
			if !slices.Contains(knownMetrics, at.Metric) {
				a.fail("Bad arguments for vector similarity DISTANCE_METRIC: Unknown argument `%.128s`", at.Metric)
			}
		case "INITIAL_CAP", "BLOCK_SIZE", "M", "EF_CONSTRUCTION", "EF_RUNTIME", "EPSILON":
			a.number(name) // no effect on an exact search
		default:
			a.fail("Bad arguments for algorithm %s: %.128s", at.Algorithm, name)
		}
	}
	if !typed || at.Dim == 0 || at.Metric == "" {
		a.fail("Missing mandatory parameter: cannot create %s index without TYPE, DIM and DISTANCE_METRIC", at.Algorithm)
	}
	if at.Dim > maxDim {
		a.fail("Bad arguments for vector similarity DIM: %d is not from 1 to %d", at.Dim, maxDim)
	}
}

// arguments are those that remain to be read. After the first error, err is set, and everything
// that is read is empty or 0.
type arguments struct {
	rest [][]byte
	read int // how many have been read
	err  error
}

// maxInteger is the largest number where nothing else limits it.
const maxInteger = 1<<31 - 1

func (a *arguments) fail(format string, args ...any) {
	if a.err == nil {
		a.err = replyErrorf(format, args...)
	}
}

// more reports whether there is something to read. It is false after an error.
func (a *arguments) more() bool { return a.err == nil && len(a.rest) > 0 }

// text returns the next argument. An error says what it is for.
func (a *arguments) text(what string) string {
	if !a.more() {
		a.fail("Bad arguments for %s: Expected an argument, but none provided", what)
		return ""
	}
	arg := string(a.rest[0])
	a.rest = a.rest[1:]
	a.read++
	return arg
}

// keyword returns the next argument in upper case.
func (a *arguments) keyword() string { return strings.ToUpper(a.text("keyword")) }

// skip reads the next argument if it is this keyword.
func (a *arguments) skip(keyword string) bool {
	if !a.more() || !strings.EqualFold(string(a.rest[0]), keyword) {
		return false
	}
	a.keyword()
	return true
}

// integer returns the next argument, which must be an integer from low to high.
func (a *arguments) integer(what string, low, high int) int {
	arg := a.text(what)
	if a.err != nil {
		return 0
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < low || n > high {
		a.fail("Bad arguments for %s: `%.128s` is not an integer from %d to %d", what, arg, low, high)
		return 0
	}
	return n
}

// number reads the next argument, which must be a number that isn't negative.
func (a *arguments) number(what string) {
	arg := a.text(what)
	if f, err := strconv.ParseFloat(arg, 64); err != nil || !(f >= 0) {
		a.fail("Bad arguments for %s: `%.128s` is not a number from 0 on", what, arg)
	}
}
