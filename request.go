package scatter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// PeerID names a peer: a node that holds a part of the index. Its text means nothing to scatter.
type PeerID string

// Request is one query, as every peer gets it. All probes share it, so nobody may write to it, or
// to what it points to, once it is passed to [Broadcast] or [Searcher.Search]: a late probe may
// read it long after they have returned.
//
// A Request with a [KNN], [Text] or [Regex] query, or a pointer to one, goes through encoding/json
// and back. The query is a member named after its kind:
//
//	{"table": "docs", "query": {"knn": {"field": "embedding", "vector": [0.5, 1], "ef": 64,
//	    "ranking": "ScoreDescending"}}, "k": 10}
//	{"table": "docs", "query": {"text": {"field": "body", "substring": "needle"}}, "k": 10}
//	{"table": "docs", "query": {"regex": {"field": "body", "pattern": "ne+dle", "maxErrors": 1}},
//	    "k": 10}
//
// Members left out are zero, but there must be one query. A Substring that isn't UTF-8 is the
// member "substringBase64". MarshalJSON refuses other kinds of query, an unknown Order, NaN and
// infinities in a Vector, and other text that isn't UTF-8. UnmarshalJSON refuses members that it
// doesn't know, because a misspelt "ranking" would return the worst hits. The query that it sets is
// a value, never a pointer. If it fails, it leaves the Request unchanged.
type Request struct {
	Table string `json:"table"` // the index or table to search
	Query Query  `json:"query"` // a KNN, Text or Regex, or a type of the caller's own
	K     int    `json:"k"`     // the number of hits to return, and to ask each peer for; at least 1

	// Skip is, in the Request that a probe gets, how many of its K best hits the peer has given to
	// this query before: the probe may leave them out. A probe that ignores Skip loses nothing but
	// time. It is set if Options.PeerK is. Broadcast and Search ignore the Skip of the Request that
	// they get.
	Skip int `json:"skip,omitempty"`

	// After, if not empty, asks for the hits that rank behind a place: see [Response].Next. Hits at
	// or before it are dropped, whatever a peer sends. A probe must therefore ask its index for
	// what follows After, which [AfterHit] decodes, or ask it for more hits than K. A probe that
	// does neither can bring paging to a halt: all that it sends is dropped, so that Response.Exact
	// is 0 and Response.Next is After again.
	After Cursor `json:"after,omitempty"`
}

// Query is what a [Request] asks. Order is the order in which each peer sorts its hits and in which
// they are merged. It must return the same order each time.
type Query interface{ Order() Order }

// KNN asks for the nearest neighbours of a vector.
type KNN struct {
	Field   string    // the indexed vector field
	Vector  []float32 // the query vector
	EF      int       // the search breadth of a graph index; if zero, the index's default
	Ranking Order     // ScoreAscending (the zero value) for distances, ScoreDescending for similarities
}

// Order returns q.Ranking.
func (q KNN) Order() Order { return q.Ranking }

// Text asks for the documents whose field contains a substring, by ascending ID.
type Text struct {
	Field     string
	Substring []byte
}

// Order returns IDAscending.
func (Text) Order() Order { return IDAscending }

// Regex asks for the documents whose field matches a pattern with at most MaxErrors edits, by
// ascending ID.
type Regex struct {
	Field, Pattern string
	MaxErrors      uint16
}

// Order returns IDAscending.
func (Regex) Order() Order { return IDAscending }

// The forms of the queries in JSON.
type (
	knnJSON struct {
		Field   string     `json:"field"`
		Vector  vectorJSON `json:"vector"`
		EF      int        `json:"ef,omitempty"`
		Ranking Order      `json:"ranking"`
	}
	textJSON struct {
		Field           string  `json:"field"`
		Substring       *string `json:"substring,omitempty"` // nil and empty are told apart
		SubstringBase64 []byte  `json:"substringBase64,omitempty"`
	}
	regexJSON struct {
		Field     string `json:"field"`
		Pattern   string `json:"pattern"`
		MaxErrors uint16 `json:"maxErrors,omitempty"`
	}
	vectorJSON []float32
)

// MarshalJSON returns r as JSON: see [Request].
func (r Request) MarshalJSON() ([]byte, error) {
	if err := checkUTF8(r.Table, "Request.Table"); err != nil {
		return nil, err
	}
	kind, query, err := queryForm(r.Query)
	if err != nil {
		return nil, err
	}
	type plain Request // without the methods, and with its Query hidden by the outer one
	return json.Marshal(struct {
		Table string         `json:"table"`
		Query map[string]any `json:"query"`
		plain
	}{r.Table, map[string]any{kind: query}, plain(r)})
}

// queryForm returns the name of a query's kind, and what stands for the query in JSON.
func queryForm(query Query) (kind string, form any, err error) {
	switch q := query.(type) {
	case nil:
		return "", nil, errors.New("scatter: Request.Query is nil")
	case KNN:
		return knnForm(q)
	case Text:
		form := textJSON{Field: q.Field}
		if s := string(q.Substring); !utf8.ValidString(s) {
			form.SubstringBase64 = q.Substring
		} else if q.Substring != nil {
			form.Substring = &s
		}
		return "text", form, checkUTF8(q.Field, "Text.Field")
	case Regex:
		if err := checkUTF8(q.Field, "Regex.Field"); err != nil {
			return "", nil, err
		}
		return "regex", regexJSON(q), checkUTF8(q.Pattern, "Regex.Pattern")
	case *KNN:
		if q != nil {
			return queryForm(*q)
		}
	case *Text:
		if q != nil {
			return queryForm(*q)
		}
	case *Regex:
		if q != nil {
			return queryForm(*q)
		}
	default:
		return "", nil, fmt.Errorf("scatter: Request.Query is a %T, must be a KNN, Text or Regex to be JSON", query)
	}
	return "", nil, fmt.Errorf("scatter: Request.Query is a nil %T", query)
}

func knnForm(q KNN) (kind string, form any, err error) {
	if !q.Ranking.valid() {
		return "", nil, fmt.Errorf("scatter: KNN.Ranking is %v, which is unknown", q.Ranking)
	}
	for i, x := range q.Vector {
		if x := float64(x); math.IsNaN(x) || math.IsInf(x, 0) {
			return "", nil, fmt.Errorf("scatter: KNN.Vector[%d] is %v, must be finite to be JSON", i, x)
		}
	}
	return "knn", knnJSON{q.Field, q.Vector, q.EF, q.Ranking}, checkUTF8(q.Field, "KNN.Field")
}

// UnmarshalJSON sets r to what b says, as a whole: see [Request].
func (r *Request) UnmarshalJSON(b []byte) error {
	if string(b) == "null" { // as every UnmarshalJSON does
		return nil
	}
	type plain Request
	var form struct {
		Query map[string]json.RawMessage `json:"query"`
		plain
	}
	if err := unmarshalStrict(b, &form, "Request"); err != nil {
		return err
	}
	if len(form.Query) != 1 {
		return fmt.Errorf("scatter: Request.Query has %d kinds, must have one of knn, text and regex", len(form.Query))
	}
	for kind, query := range form.Query {
		var err error
		if form.plain.Query, err = parseQuery(kind, query); err != nil {
			return err
		}
	}
	*r = Request(form.plain)
	return nil
}

// parseQuery is the inverse of queryForm.
func parseQuery(kind string, b []byte) (Query, error) {
	if string(b) == "null" {
		return nil, fmt.Errorf("scatter: Request.Query.%.60q is null", kind)
	}
	switch kind {
	case "knn":
		var form knnJSON
		if err := unmarshalStrict(b, &form, "Request.Query.knn"); err != nil {
			return nil, err
		}
		return KNN{form.Field, form.Vector, form.EF, form.Ranking}, nil
	case "text":
		var form textJSON
		if err := unmarshalStrict(b, &form, "Request.Query.text"); err != nil {
			return nil, err
		}
		if form.Substring == nil {
			return Text{form.Field, form.SubstringBase64}, nil
		}
		if form.SubstringBase64 != nil {
			return nil, errors.New("scatter: Request.Query.text has both substring and substringBase64")
		}
		return Text{form.Field, []byte(*form.Substring)}, nil
	case "regex":
		var form regexJSON
		err := unmarshalStrict(b, &form, "Request.Query.regex")
		return Regex(form), err
	}
	return nil, fmt.Errorf("scatter: Request.Query has the kind %.60q, must be knn, text or regex", kind)
}

// UnmarshalJSON refuses null in the place of a number, which encoding/json would read as 0. It is
// what JavaScript writes for NaN.
func (v *vectorJSON) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, (*[]float32)(v)); err != nil || *v == nil {
		return err
	}
	if at := bytes.Index(b, []byte("null")); at >= 0 {
		return fmt.Errorf("vector[%d] is null, must be a number", bytes.Count(b[:at], []byte(",")))
	}
	return nil
}

// unmarshalStrict reads b, refusing members that form doesn't have.
func unmarshalStrict(b []byte, form any, name string) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(form); err != nil {
		return fmt.Errorf("scatter: %s: %w", name, err)
	}
	return nil
}

// checkUTF8 returns an error that names the field if a text isn't UTF-8: encoding/json would write
// another text.
func checkUTF8(text, field string, args ...any) error {
	if utf8.ValidString(text) {
		return nil
	}
	return fmt.Errorf("scatter: %s is %.60q, must be UTF-8 to be JSON", fmt.Sprintf(field, args...), text)
}
