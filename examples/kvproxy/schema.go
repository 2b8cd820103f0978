package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What is searched is asked for as RediSearch has it. Where versions of it differ, error wording, reply layouts and
// defaults are those of RediSearch 8.2, the one in Redis 8.2.

// The limits of a schema. Each is far above what a schema needs, and keeps a hostile one from costing much.
const (
	maxAttributes = 1024 // RediSearch's own limit
	maxPrefixes   = 1024
	maxDim        = 32768
)

// schema is what FT.CREATE says of an index. It is stored as JSON.
type schema struct {
	Name       string
	Prefixes   []string    // a key with one of these is in the index
	Options    []string    `json:",omitempty"` // flags such as NOOFFSETS, which only FT.INFO has a use for
	Language   string      `json:",omitempty"` // likewise
	Score      float64     // likewise
	Attributes []attribute // in the order of the command
}

// attribute is a part of a document that can be searched or sorted by.
type attribute struct {
	Field string // of the hash
	Name  string // in queries: what AS says, or else the field
	Kind  attributeKind
	Flags []string `json:",omitempty"` // such as SORTABLE, in the order in which FT.INFO lists them

	// Of a VECTOR. The last two would steer how a graph is built; they have no effect here, where a search is exact.
	Algorithm      string `json:",omitempty"` // FLAT or HNSW
	Dim            int    `json:",omitempty"`
	Metric         metric `json:",omitempty"`
	M              int    `json:",omitempty"`
	EFConstruction int    `json:",omitempty"`

	Weight    float64 `json:",omitempty"` // of a TEXT; no effect, for texts aren't ranked here
	Separator string  `json:",omitempty"` // of a TAG
}

type attributeKind string

const (
	vectorAttr  attributeKind = "VECTOR"
	textAttr    attributeKind = "TEXT"
	tagAttr     attributeKind = "TAG"
	numericAttr attributeKind = "NUMERIC" // can be sorted by, not searched
)

type metric string

const (
	metricL2     metric = "L2"     // the square of the Euclidean distance
	metricCosine metric = "COSINE" // 1 - the cosine of the angle
	metricIP     metric = "IP"     // 1 - the inner product
)

var knownMetrics = []metric{metricL2, metricCosine, metricIP}

// flagOrder is the order in which FT.INFO lists the flags of an attribute.
var flagOrder = []string{
	"CASESENSITIVE", "SORTABLE", "UNF", "NOSTEM", "NOINDEX", "WITHSUFFIXTRIE", "INDEXEMPTY", "INDEXMISSING",
}

func (a *attribute) has(flag string) bool { return slices.Contains(a.Flags, flag) }

// holds reports whether a key's document is one for the index. A key that isn't UTF-8 has no place in a reply of FTR1.
func (s *schema) holds(key string) bool {
	starts := func(prefix string) bool { return strings.HasPrefix(key, prefix) }
	return utf8.ValidString(key) && slices.ContainsFunc(s.Prefixes, starts)
}

func (s *schema) attribute(name string) (*attribute, bool) {
	for i := range s.Attributes {
		if s.Attributes[i].Name == name {
			return &s.Attributes[i], true
		}
	}
	return nil, false
}

func (s *schema) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // there is nothing in a schema that JSON can't express, see parseCreate
	}
	return b
}

// decodeSchema is encode's opposite. What another node made of it is not trusted: a search must not fail for it.
func decodeSchema(b []byte) (*schema, error) {
	s := new(schema)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("decode schema: %w", err)
	}
	for _, at := range s.Attributes {
		vector := at.Dim >= 1 && at.Dim <= maxDim && slices.Contains(knownMetrics, at.Metric)
		if at.Name == "" || at.Kind == vectorAttr && !vector {
			return nil, fmt.Errorf("decode schema: attribute %q is invalid", at.Name)
		}
	}
	return s, nil
}

// parseCreate reads what follows FT.CREATE.
func parseCreate(args [][]byte) (*schema, error) {
	if len(args) < 4 {
		return nil, errWrongArgs("FT.CREATE")
	}
	for _, arg := range args {
		if !utf8.Valid(arg) { // neither JSON nor an FTQ1 payload could hold it
			return nil, replyError(fmt.Sprintf("Bad arguments for FT.CREATE: %q is not UTF-8", arg))
		}
	}
	a := &arguments{rest: args}
	s := &schema{Name: a.next(), Prefixes: []string{""}, Score: 1}
	for a.more() && !a.skip("SCHEMA") {
		s.option(a)
		if len(a.rest) == 0 {
			a.fail("No schema found")
		}
	}
	if a.err == nil && len(a.rest) == 0 {
		a.fail("Fields arguments are missing")
	}
	names, vectors := make(map[string]bool), 0
	for a.more() {
		at := a.attribute()
		switch {
		case a.err != nil:
		case names[at.Name]:
			a.fail("Duplicate field in schema - %s", at.Name)
		case len(s.Attributes) == maxAttributes:
			a.fail("Schema is limited to %d fields", maxAttributes)
		case at.Kind == vectorAttr && vectors == mostVectors:
			a.fail("Schema is limited to %d vector fields", mostVectors)
		case at.Kind == vectorAttr:
			vectors++
		}
		names[at.Name] = true
		s.Attributes = append(s.Attributes, at)
	}
	return s, a.err
}

// parseDrop reads what follows FT.DROPINDEX: an index, and whether its documents are to go with it.
func parseDrop(args [][]byte) (index string, documents bool, err error) {
	switch {
	case len(args) == 0 || len(args) > 2:
		return "", false, errWrongArgs("FT.DROPINDEX")
	case len(args) == 2 && !strings.EqualFold(string(args[1]), "DD"):
		return "", false, replyError("Unknown argument")
	}
	return string(args[0]), len(args) == 2, nil
}

// option reads one of the options that stand before the schema.
func (s *schema) option(a *arguments) {
	arg := a.next()
	switch option := strings.ToUpper(arg); option {
	case "ON":
		if on := a.text(option); !strings.EqualFold(on, "HASH") {
			a.fail("Invalid rule type: %s", on)
		}
	case "PREFIX":
		n := a.integer(option, 1, maxPrefixes)
		s.Prefixes = nil
		for range n {
			s.Prefixes = append(s.Prefixes, a.text(option))
		}
	case "LANGUAGE":
		s.Language = a.text(option)
	case "SCORE":
		if s.Score = a.float(option); s.Score < 0 || s.Score > 1 {
			a.fail("Invalid score")
		}
	case "LANGUAGE_FIELD", "SCORE_FIELD", "PAYLOAD_FIELD":
		a.text(option)
	case "STOPWORDS":
		for range a.integer(option, 0, len(a.rest)) {
			a.text(option)
		}
	case "NOOFFSETS", "NOHL", "NOFIELDS", "NOFREQS", "MAXTEXTFIELDS":
		s.Options = append(s.Options, option)
	default:
		a.fail("Unknown argument `%s`", arg)
	}
}

// attribute reads one attribute. First come the options of its kind, then those of all kinds but VECTOR.
func (a *arguments) attribute() attribute {
	at := attribute{Field: a.next()}
	if at.Name = at.Field; a.skip("AS") {
		at.Name = a.text("AS")
	}
	switch {
	case at.Name == "":
		a.fail("Field name is empty")
	case len(a.rest) == 0:
		a.fail("Field `%s` does not have a type", at.Name)
	}
	at.Kind = attributeKind(a.keyword())
	flags := func(names ...string) bool {
		for _, name := range names {
			if a.skip(name) {
				at.Flags = append(at.Flags, name)
				return true
			}
		}
		return false
	}
	switch at.Kind {
	case vectorAttr:
		a.vector(&at)
		flags("INDEXMISSING")
		return at
	case textAttr:
		at.Weight = 1
		for reading := true; reading && a.more(); {
			switch {
			case a.skip("WEIGHT"):
				at.Weight = a.float("weight")
			case a.skip("PHONETIC"):
				a.text("PHONETIC")
			default:
				reading = flags("NOSTEM", "WITHSUFFIXTRIE", "INDEXEMPTY", "INDEXMISSING")
			}
		}
	case tagAttr:
		at.Separator = ","
		for reading := true; reading && a.more(); {
			if !a.skip("SEPARATOR") {
				reading = flags("CASESENSITIVE", "WITHSUFFIXTRIE", "INDEXEMPTY", "INDEXMISSING")
			} else if at.Separator = a.text("SEPARATOR"); len(at.Separator) != 1 {
				a.fail("Tag separator must be a single character. Got `%s`", at.Separator)
			}
		}
	case numericAttr:
		flags("INDEXMISSING")
	default:
		a.fail("Invalid field type for field `%s`", at.Name)
	}
	for a.more() {
		if !flags("SORTABLE", "NOINDEX") {
			break
		}
		// What UNF says, that values are compared as they are, goes without saying for numbers and if the case counts.
		if at.has("SORTABLE") && !flags("UNF") && (at.Kind == numericAttr || at.has("CASESENSITIVE")) {
			at.Flags = append(at.Flags, "UNF")
		}
	}
	slices.SortFunc(at.Flags, func(x, y string) int { return slices.Index(flagOrder, x) - slices.Index(flagOrder, y) })
	at.Flags = slices.Compact(at.Flags)
	return at
}

// vector reads what follows the word VECTOR: the algorithm, a count, and as many names and values.
func (a *arguments) vector(at *attribute) {
	at.Algorithm = strings.ToUpper(a.text("vector similarity algorithm"))
	hnsw := at.Algorithm == "HNSW"
	if !hnsw && at.Algorithm != "FLAT" {
		a.fail("Bad arguments for vector similarity algorithm: Unknown argument")
	}
	if hnsw {
		at.M, at.EFConstruction = 16, 200
	}
	n := a.integer("vector similarity number of parameters", 0, maxInteger)
	if n%2 != 0 {
		a.fail("Bad number of arguments for vector similarity index: got %d but expected even number as algorithm "+
			"parameters (should be submitted as named arguments)", n)
	}
	seen := make(map[string]bool)
	for i := 0; i < n && a.err == nil; i += 2 {
		if len(a.rest) == 0 {
			a.fail("Expected %d parameters but got %d", n, i)
			break
		}
		name := a.keyword()
		seen[name] = true
		what := fmt.Sprintf("vector similarity %s index `%s`", at.Algorithm, name)
		switch {
		case name == "TYPE":
			if t := a.text(what); !strings.EqualFold(t, "FLOAT32") {
				a.fail("Bad arguments for %s: Unknown argument `%s`, only FLOAT32 is supported", what, t)
			}
		case name == "DIM":
			at.Dim = a.integer(what, 1, maxDim)
		case name == "DISTANCE_METRIC":
			at.Metric = metric(strings.ToUpper(a.text(what)))
			if !slices.Contains(knownMetrics, at.Metric) {
				a.fail("Bad arguments for %s: Unknown argument `%s`", what, at.Metric)
			}
		case name == "M" && hnsw:
			at.M = a.integer(what, 1, maxInteger)
		case name == "EF_CONSTRUCTION" && hnsw:
			at.EFConstruction = a.integer(what, 1, maxInteger)
		case name == "INITIAL_CAP":
			a.integer(what, 0, maxInteger)
		case name == "BLOCK_SIZE", name == "EF_RUNTIME" && hnsw:
			a.integer(what, 1, maxInteger)
		case name == "EPSILON" && hnsw:
			a.float(what)
		default:
			a.fail("Bad arguments for algorithm %s: %s", at.Algorithm, name)
		}
	}
	for _, name := range []string{"TYPE", "DIM", "DISTANCE_METRIC"} {
		if !seen[name] {
			a.fail("Missing mandatory parameter: cannot create %s index without specifying %s argument", at.Algorithm, name)
		}
	}
}

// arguments are what is left to read of a command's. Once err is set, which the first error does, all that is read is
// empty or 0.
type arguments struct {
	rest [][]byte
	read int // how many have been read
	err  error
}

// maxInteger is the greatest number that is taken where nothing else limits one.
const maxInteger = 1<<31 - 1

func (a *arguments) fail(format string, args ...any) {
	if a.err == nil {
		a.err = replyError(fmt.Sprintf(format, args...))
	}
}

// more reports whether there is something to read. It is false after an error.
func (a *arguments) more() bool { return a.err == nil && len(a.rest) > 0 }

// next returns the next argument, or nothing if there is none.
func (a *arguments) next() string {
	if !a.more() {
		return ""
	}
	arg := a.rest[0]
	a.rest = a.rest[1:]
	a.read++
	return string(arg)
}

// keyword returns the next argument in upper case.
func (a *arguments) keyword() string { return strings.ToUpper(a.next()) }

// skip reads the next argument if it is this keyword.
func (a *arguments) skip(keyword string) bool {
	if !a.more() || !strings.EqualFold(string(a.rest[0]), keyword) {
		return false
	}
	a.next()
	return true
}

// text returns the next argument; that there is none is an error. what is what it is for.
func (a *arguments) text(what string) string {
	if len(a.rest) == 0 {
		a.fail("Bad arguments for %s: Expected an argument, but none provided", what)
	}
	return a.next()
}

// integer is text for a number from low to high.
func (a *arguments) integer(what string, low, high int) int {
	arg := a.text(what)
	if a.err != nil {
		return 0
	}
	n, err := strconv.Atoi(arg)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		a.fail("Bad arguments for %s: Could not convert argument to expected type", what)
	case err != nil || n < low || n > high:
		a.fail("Bad arguments for %s: Value is outside acceptable bounds", what)
	default:
		return n
	}
	return 0
}

// integerOr is integer with an error message of the caller's own.
func (a *arguments) integerOr(message string, low, high int) int {
	if a.err != nil {
		return 0
	}
	n := a.integer("", low, high)
	if a.err != nil {
		a.err = replyError(message)
	}
	return n
}

// float is text for a number that is neither negative nor infinite.
func (a *arguments) float(what string) float64 {
	arg := a.text(what)
	if a.err != nil {
		return 0
	}
	f, err := strconv.ParseFloat(arg, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		a.fail("Bad arguments for %s: Could not convert argument to expected type", what)
	case !(f >= 0 && f <= math.MaxFloat64):
		a.fail("Bad arguments for %s: Value is outside acceptable bounds", what)
	default:
		return f
	}
	return 0
}
