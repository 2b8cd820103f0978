package main

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
)

// testSchema returns an index of all kinds of attributes.
func testSchema(t testing.TB) (*schema, func(string) (*schema, bool)) {
	t.Helper()
	s, err := parseCreate(words("idx SCHEMA v VECTOR HNSW 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC L2 " +
		"flat AS f VECTOR FLAT 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC L2 title TEXT SORTABLE UNF body AS b TEXT SORTABLE " +
		"secret TEXT NOINDEX tag TAG n NUMERIC my-field TEXT " +
		"cos VECTOR FLAT 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC COSINE"))
	if err != nil {
		t.Fatal(err)
	}
	return s, func(name string) (*schema, bool) { return s, name == s.Name }
}

func blob(vector ...float32) string {
	var b []byte
	for _, x := range vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return string(b)
}

func TestParseSearch(t *testing.T) {
	_, schemaOf := testSchema(t)
	knn := func(k int, field string, ef int) func(*searchQuery) {
		return func(q *searchQuery) {
			q.request.K, q.request.Query = k, scatter.KNN{Field: field, Vector: []float32{1, 2}, EF: ef}
			q.scoreAs = "__" + field + "_score"
		}
	}
	text := func(field, substring string) func(*searchQuery) {
		return func(q *searchQuery) {
			q.request.Query = scatter.Text{Field: field, Substring: []byte(substring)}
		}
	}
	as := func(name string) func(*searchQuery) { return func(q *searchQuery) { q.scoreAs = name } }
	tests := []struct {
		query, options string
		want           []func(*searchQuery)
	}{
		{"*", "", nil},
		{" ( ( * ) ) ", "", nil},
		{"*=>[KNN 10 @v $B]", "PARAMS 2 B VECTOR", []func(*searchQuery){knn(10, "v", 0)}},
		{"(*)=>[knn 3 @v $B as d]", "PARAMS 2 B VECTOR DIALECT 2", []func(*searchQuery){knn(3, "v", 0), as("d")}},
		{"*=>[KNN $K @f $B AS $name]", "PARAMS 6 K 10000 B VECTOR name the␣distance",
			[]func(*searchQuery){knn(10000, "f", 0), as("the distance")}},
		{" * => [ KNN 10 @v $B EF_RUNTIME 50 AS d ] ", "PARAMS 2 B VECTOR", []func(*searchQuery){knn(10, "v", 50), as("d")}},
		{"*=>[KNN 10 @v $B]=>{$EF_RUNTIME: $ef; $yield_distance_as: d;}", "PARAMS 4 B VECTOR ef 7",
			[]func(*searchQuery){knn(10, "v", 7), as("d")}},
		{"@title:zip", "", []func(*searchQuery){text("title", "zip")}},
		{"@title: *zip*", "", []func(*searchQuery){text("title", "zip")}},
		{"@title:(zip)", "", []func(*searchQuery){text("title", "zip")}},
		{"(@title:(*zip*))", "", []func(*searchQuery){text("title", "zip")}},
		{`@title:"read a"`, "", []func(*searchQuery){text("title", "read a")}},
		{`@title:("=>[ \" \\ \x *)")`, "", []func(*searchQuery){text("title", `=>[ " \ \x *)`)}},
		{`@title:read\ \-\*a`, "", []func(*searchQuery){text("title", "read -*a")}},
		{"@b:Grüße_7", "", []func(*searchQuery){text("b", "Grüße_7")}},
		{`@my\-field:x`, "", []func(*searchQuery){text("my-field", "x")}},
		{"@title:$p", "PARAMS 2 p any␣(bytes)", []func(*searchQuery){text("title", "any (bytes)")}},
		{"@title:*$p*", "PARAMS 2 p *", []func(*searchQuery){text("title", "*")}},
		{"*", "NOCONTENT VERBATIM NOSTOPWORDS FORMAT STRING WITHCOUNT WITHOUTCOUNT DIALECT 4", []func(*searchQuery){
			func(q *searchQuery) { q.noContent = true }}},
		{"*", "limit 0 0", []func(*searchQuery){func(q *searchQuery) { q.count = 0 }}},
		{"*", "LIMIT 1000000 1000000", []func(*searchQuery){func(q *searchQuery) { q.offset, q.count = 1e6, 1e6 }}},
		{"*", "TIMEOUT 1500", []func(*searchQuery){func(q *searchQuery) { q.timeout = 1500 * time.Millisecond }}},
		{"*", "SORTBY n", []func(*searchQuery){func(q *searchQuery) { q.sortBy = "n" }}},
		{"*", "SORTBY n ASC", []func(*searchQuery){func(q *searchQuery) { q.sortBy = "n" }}},
		{"*", "SORTBY b desc NOCONTENT", []func(*searchQuery){func(q *searchQuery) {
			q.sortBy, q.descending, q.noContent = "b", true, true
		}}},
		{"*=>[KNN 10 @v $B]", "SORTBY __v_score DESC PARAMS 2 B VECTOR", []func(*searchQuery){knn(10, "v", 0),
			func(q *searchQuery) { q.sortBy, q.descending = "__v_score", true }}},
		{"*", "RETURN 0", []func(*searchQuery){func(q *searchQuery) { q.returnAll, q.noContent = false, true }}},
		{"*", "RETURN 7 title b AS body as AS as", []func(*searchQuery){func(q *searchQuery) {
			q.returnAll, q.returned = false, []returned{{"title", "title"}, {"b", "body"}, {"as", "as"}}
		}}},
		{"*", "RETURN 5 title b AS title n", []func(*searchQuery){func(q *searchQuery) {
			q.returnAll, q.returned = false, []returned{{"title", "title"}, {"n", "n"}}
		}}},
	}
	for _, test := range tests {
		s, _ := schemaOf("idx")
		want := &searchQuery{schema: s, returnAll: true, count: 10,
			request: &scatter.Request{Table: "idx", K: maxHits, Query: scatter.Text{}}}
		for _, change := range test.want {
			change(want)
		}
		args := append([][]byte{[]byte("idx"), []byte(test.query)}, words(test.options)...)
		for i := range args {
			if string(args[i]) == "VECTOR" {
				args[i] = []byte(blob(1, 2))
			}
		}
		got, err := parseSearch(args, schemaOf)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s %s:\n got %+v, %v\nwant %+v %+v", test.query, test.options, got, err, want, want.request)
		}
	}
}

func TestParseSearchErrors(t *testing.T) {
	_, schemaOf := testSchema(t)
	const only = " (only *, *=>[KNN ...] and @field:text are supported)"
	syntax := func(offset int, near string) string {
		return fmt.Sprintf("Syntax error at offset %d near %s%s", offset, near, only)
	}
	tests := []struct{ query, options, want string }{
		{"", "", syntax(0, "")},
		{"hello", "", syntax(0, "hello")},
		{"**", "", syntax(1, "*")},
		{"*zip*", "", syntax(1, "zip*")},
		{"(*", "", syntax(2, "")},
		{"(*))", "", syntax(3, ")")},
		{strings.Repeat("(", 1_000_000), "", syntax(1_000_000, "")},
		{"-@title:x", "", syntax(0, "-@title:x")},
		{"@title:x @b:y", "", syntax(9, "@b:y")},
		{"@title:x|y", "", syntax(8, "|y")},
		{"@title|b:x", "", syntax(6, "|b:x")},
		{"@title:(read a)", "", syntax(13, "a)")},
		{"@title:read a", "", syntax(12, "a")},
		{"@title:zip*", "", syntax(10, "*")},
		{"@title:*zip", "", syntax(11, "")},
		{"@title:%zip%", "", syntax(7, "%zip%")},
		{"@title:w'zi?'", "", syntax(8, "'zi?'")},
		{"@title:x=>{$weight: 2}", "", syntax(8, "=>{$weight:")},
		{`@title:"zip`, "", syntax(11, "")},
		{`@title:""`, "", "Use `INDEXEMPTY` in field creation in order to index and query for empty strings"},
		{"@title:$p", "PARAMS 2 q x", "No such parameter `p`"},
		{"@title:$", "", syntax(8, "")},
		{"@title", "", syntax(6, "")},
		{"@", "", syntax(1, "")},
		{"@none:x", "", "Unknown field at offset 0 near none"},
		{"@tag:{x}", "", "Expected a TEXT field at offset 0 near tag"},
		{"@n:[1 5]", "", "Expected a TEXT field at offset 0 near n"},
		{"@v:[VECTOR_RANGE 1 $B]", "PARAMS 2 B VECTOR", "Expected a TEXT field at offset 0 near v"},
		{"@secret:x", "", "Expected a field without NOINDEX at offset 0 near secret"},
		{"@title:x=>[KNN 1 @v $B]", "PARAMS 2 B VECTOR", syntax(8, "=>[KNN")},
		{"*=>", "", syntax(3, "")},
		{"*=>[RANGE 1 @v $B]", "PARAMS 2 B VECTOR", syntax(4, "RANGE")},
		{"*=>[KNN]", "", syntax(7, "]")},
		{"*=>[KNN x @v $B]", "PARAMS 2 B VECTOR", "Invalid numeric value (x) for parameter `K`"},
		{"*=>[KNN 0 @v $B]", "PARAMS 2 B VECTOR", "Invalid numeric value (0) for parameter `K`"},
		{"*=>[KNN -1 @v $B]", "PARAMS 2 B VECTOR", syntax(8, "-1")},
		{"*=>[KNN $K @v $B]", "PARAMS 4 K -1 B VECTOR", "Invalid numeric value (-1) for parameter `K`"},
		{"*=>[KNN 10001 @v $B]", "PARAMS 2 B VECTOR",
			"Error parsing vector similarity query: query KNN K parameter is too large, must not exceed 10000"},
		{"*=>[KNN 1 @none $B]", "PARAMS 2 B VECTOR", "Unknown field at offset 10 near none"},
		{"*=>[KNN 1 @title $B]", "PARAMS 2 B VECTOR", "Expected a VECTOR field at offset 10 near title"},
		{"*=>[KNN 1 @v B]", "PARAMS 2 B VECTOR", syntax(13, "B]")},
		{"*=>[KNN 1 @v $B", "PARAMS 2 B VECTOR", syntax(15, "")},
		{"*=>[KNN 1 @v $C]", "PARAMS 2 B VECTOR", "No such parameter `C`"},
		{"*=>[KNN 1 @v $B]", "PARAMS 2 B 12345678901", "Error parsing vector similarity query: query vector blob size (11) " +
			"does not match index's expected size (8)."},
		{"*=>[KNN 1 @v $B]", "PARAMS 2 B " + blob(1, float32(math.Inf(1))),
			"Error parsing vector similarity query: query vector is not finite"},
		{"*=>[KNN 1 @v $B]", "PARAMS 2 B " + blob(float32(math.NaN()), 1),
			"Error parsing vector similarity query: query vector is not finite"},
		{"*=>[KNN 1 @cos $B]", "PARAMS 2 B " + blob(0, 0),
			"Error parsing vector similarity query: query vector is all zeros, which has no angle"},
		{"*=>[KNN 1 @v $B HYBRID_POLICY BATCHES]", "PARAMS 2 B VECTOR",
			"Error parsing vector similarity parameters: Invalid option `HYBRID_POLICY`"},
		{"*=>[KNN 1 @f $B EF_RUNTIME 5]", "PARAMS 2 B VECTOR",
			"Error parsing vector similarity parameters: Invalid option `EF_RUNTIME`"},
		{"*=>[KNN 1 @v $B AS title]", "PARAMS 2 B VECTOR", "Property `title` already exists in schema"},
		{"*=>[KNN 1 @v $B AS x]=>{$YIELD_DISTANCE_AS: y}", "PARAMS 2 B VECTOR",
			"Distance field was specified twice for vector query: x and y"},
		{"*=>[KNN 1 @v $B]=>{$SHARD_K_RATIO: 1}", "PARAMS 2 B VECTOR", "Invalid attribute SHARD_K_RATIO"},
		{"*=>[KNN 1 @v $B]=>{$EF_RUNTIME: 1 $EF_RUNTIME: 1}", "PARAMS 2 B VECTOR", syntax(34, "$EF_RUNTIME:")},
		{"*=>[KNN 1 @v $B]=>{", "PARAMS 2 B VECTOR", syntax(19, "")},
		{"*=>[KNN 1 @v $B] x", "PARAMS 2 B VECTOR", syntax(17, "x")},
		{"*", "WITHSCORES", "Unknown argument `WITHSCORES` at position 1 for <main>"},
		{"*", "NOCONTENT xyz", "Unknown argument `xyz` at position 2 for <main>"},
		{"*", "PARAMS", "Bad arguments for PARAMS: Expected an argument, but none provided"},
		{"*", "PARAMS x", "Bad arguments for PARAMS: Could not convert argument to expected type"},
		{"*", "PARAMS -2 a b", "Bad arguments for PARAMS: Value is outside acceptable bounds"},
		{"*", "PARAMS 0", "Parameters must be specified in PARAM VALUE pairs"},
		{"*", "PARAMS 3 a b c", "Parameters must be specified in PARAM VALUE pairs"},
		{"*", "PARAMS 4 a b", "Bad arguments for PARAMS: Expected an argument, but none provided"},
		{"*", "PARAMS 4 a b a c", "Duplicate parameter `a`"},
		{"*", "PARAMS 2 a b PARAMS 2 c d", "Multiple PARAMS are not allowed. Parameters can be defined only once"},
		{"*", "LIMIT 1", "LIMIT requires two arguments"},
		{"*", "LIMIT 0 -1", "LIMIT needs two numeric arguments"},
		{"*", "LIMIT 1 0", "The `offset` of the LIMIT must be 0 when `num` is 0"},
		{"*", "LIMIT 0 1000001", "LIMIT exceeds maximum of 1000000"},
		{"*", "LIMIT 1000001 1", "OFFSET exceeds maximum of 1000000"},
		{"*", "SORTBY", "Bad SORTBY arguments"},
		{"*", "SORTBY n SORTBY b", "Multiple SORTBY steps are not allowed"},
		{"*", "SORTBY body", "Property `body` not loaded nor in schema"},
		{"*", "SORTBY __v_score", "Property `__v_score` not loaded nor in schema"},
		{"*", "DIALECT 5", "DIALECT requires a non negative integer >=1 and <= 4"},
		{"*", "TIMEOUT -1", "TIMEOUT requires a non negative integer"},
		{"*", "FORMAT EXPAND", "FORMAT EXPAND is not supported"},
		{"*", "RETURN 2 a", "Bad arguments for RETURN: Expected an argument, but none provided"},
		{"*", "RETURN 2 a AS b", "RETURN path AS name - must be accompanied with NAME"},
		{"*", "RETURN 3 a AS", "RETURN path AS name - must be accompanied with NAME"},
		{"*", "RETURN 1025" + numbered(" f%d", 1025), "RETURN exceeds maximum of 1024"},
	}
	for _, test := range tests {
		args := append([][]byte{[]byte("idx"), []byte(test.query)}, words(test.options)...)
		for i := range args {
			if string(args[i]) == "VECTOR" {
				args[i] = []byte(blob(1, 2))
			}
		}
		if got, err := parseSearch(args, schemaOf); err == nil || err.Error() != test.want {
			t.Errorf("%.50s %.50s:\n got %+v %v\nwant %s", test.query, test.options, got, err, test.want)
		}
	}
	for command, want := range map[string]string{
		"idx":    "ERR wrong number of arguments for 'FT.SEARCH' command",
		"none *": "No such index none",
	} {
		if _, err := parseSearch(words(command), schemaOf); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", command, err, want)
		}
	}
}

// numbered returns the format n times, each with its number.
func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// Whatever the text is, it comes through in quotes, with backslashes and as a parameter.
func TestAnySubstring(t *testing.T) {
	_, schemaOf := testSchema(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		text := make([]byte, 1+random.IntN(20))
		for i := range text {
			text[i] = byte(random.IntN(256))
		}
		quoted := `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(string(text)) + `"`
		var escaped []byte
		for _, c := range text {
			escaped = append(escaped, '\\', c)
		}
		for _, query := range []string{quoted, "(" + quoted + ")", string(escaped), "*" + string(escaped) + "*", "$p"} {
			args := [][]byte{[]byte("idx"), []byte("@title:" + query), []byte("PARAMS"), []byte("2"), []byte("p"), text}
			q, err := parseSearch(args, schemaOf)
			if err != nil || string(q.request.Query.(scatter.Text).Substring) != string(text) {
				t.Fatalf("%q as %q: %v, %v", text, query, q, err)
			}
		}
	}
}

func TestParseRegex(t *testing.T) {
	s, schemaOf := testSchema(t)
	search := func(query scatter.Regex) *scatter.Request { return &scatter.Request{Query: query} }
	for command, want := range map[string]searchQuery{
		"idx title h(e|x)l*o":  {request: search(scatter.Regex{Field: "title", Pattern: "h(e|x)l*o"})},
		"idx @title hello k=2": {request: search(scatter.Regex{Field: "title", Pattern: "hello", MaxErrors: 2})},
		"idx b x K=64 LIMIT 5 6": {request: search(scatter.Regex{Field: "b", Pattern: "x", MaxErrors: 64}),
			offset: 5, count: 6},
		"idx title K=1 NOCONTENT": {request: search(scatter.Regex{Field: "title", Pattern: "K=1"}), noContent: true},
		"idx title x RETURN 1 n SORTBY n": {request: search(scatter.Regex{Field: "title", Pattern: "x"}), sortBy: "n",
			returned: []returned{{"n", "n"}}},
	} {
		want.schema, want.request.K, want.request.Table, want.count = s, maxHits, "idx", cmp.Or(want.count, 10)
		if want.returned == nil {
			field := want.request.Query.(scatter.Regex).Field
			want.returned = []returned{{field, field}}
		}
		if got, err := parseRegex(words(command), schemaOf); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", command, got, err, want)
		}
	}
	for command, want := range map[string]string{
		"idx title":                          "ERR wrong number of arguments for 'FT.REGEX' command",
		"none title x":                       "No such index none",
		"idx none x":                         "Unknown field `none`",
		"idx tag x":                          "Expected a TEXT field that is indexed: `tag`",
		"idx secret x":                       "Expected a TEXT field that is indexed: `secret`",
		"idx title x K=":                     "Invalid K= value ``: not a number from 0 to 64",
		"idx title x K=-1":                   "Invalid K= value `-1`: not a number from 0 to 64",
		"idx title x K=65":                   "Invalid K= value `65`: not a number from 0 to 64",
		"idx title x K=99999999999999999999": "Invalid K= value `99999999999999999999`: not a number from 0 to 64",
		"idx title x y":                      "Unknown argument `y` at position 2 for <main>",
		"idx title x K=1 y":                  "Unknown argument `y` at position 3 for <main>",
		"idx title x SORTBY y":               "Property `y` not loaded nor in schema",
		"idx title (":                        "Invalid pattern: error parsing regexp: missing closing ): `(`",
		"idx title \xff":                     "Invalid pattern: error parsing regexp: invalid UTF-8: `\xff`",
		"idx title h(e|x)l*o K=1": "Invalid pattern: with K above 0 it has to be a plain text, " +
			"without operators",
		"idx title " + strings.Repeat("x", 513): "Invalid pattern: longer than 512 bytes",
	} {
		if _, err := parseRegex(words(command), schemaOf); err == nil || err.Error() != want {
			t.Errorf("%.60s:\n got %v\nwant %s", command, err, want)
		}
	}
}

// hash makes a document.
func hash(fields ...string) document {
	d := document{fields: make(map[string]register)}
	for i := 0; i < len(fields); i += 2 {
		d.fields[fields[i]] = register{at: 1, value: []byte(fields[i+1])}
	}
	return d
}

func ids(rows []row) string {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(r.id)
	}
	return b.String()
}

func TestArrange(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	rows := []row{
		{id: "a", score: 3, doc: hash("n", "10", "title", "b", "body", "B")},
		{id: "b", score: nan, doc: hash("n", "9", "title", "B", "body", "b")},
		{id: "c", score: 1, doc: hash("n", "none", "title", "", "body", "a")},
		{id: "d", score: -inf, doc: hash("title", "b", "body", "C")},
		{id: "e", score: 1, doc: hash("n", "-Inf", "other", "x")},
		{id: "f", score: inf, doc: hash("n", "1e1", "title", "a", "body", "c")},
		{id: "g", score: 0},
	}
	_, schemaOf := testSchema(t)
	for options, want := range map[string]string{
		"":                              "abcdefg",
		"LIMIT 2 3":                     "cde",
		"LIMIT 5 10":                    "fg",
		"LIMIT 7 10":                    "",
		"LIMIT 1000000 1000000":         "",
		"LIMIT 0 0":                     "",
		"SORTBY d":                      "dgceafb",
		"SORTBY d DESC":                 "facegdb",
		"SORTBY d LIMIT 1 2":            "gc",
		"SORTBY n":                      "ebafcdg",
		"SORTBY n DESC":                 "afbecdg",
		"SORTBY title":                  "cbfadeg",
		"SORTBY b":                      "cabdfeg",
		"SORTBY b DESC":                 "dfabceg",
		"SORTBY title DESC LIMIT 0 100": "adfbceg",
	} {
		args := append([][]byte{[]byte("idx"), []byte("*=>[KNN 10 @v $B AS d]"), []byte("PARAMS"), []byte("2"), []byte("B"),
			[]byte(blob(1, 2))}, words(options)...)
		q, err := parseSearch(args, schemaOf)
		if err != nil {
			t.Fatal(err)
		}
		if got := ids(q.arrange(slices.Clone(rows))); got != want {
			t.Errorf("%s: got %s, want %s", options, got, want)
		}
		byField := strings.HasPrefix(options, "SORTBY") && !strings.HasPrefix(options, "SORTBY d")
		if q.needsDocuments() != byField {
			t.Errorf("%s: needsDocuments is %v", options, !byField)
		}
	}
	if got := (&searchQuery{count: 10}).arrange(nil); len(got) != 0 {
		t.Errorf("of no rows: %v", got)
	}
}

// A page is what the pages of one row each are, and what a plain sort of all rows has there.
func TestArrangeRandom(t *testing.T) {
	s, _ := testSchema(t)
	random := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		rows := make([]row, random.IntN(30))
		for i := range rows {
			rows[i] = row{id: strconv.Itoa(i) + " ", doc: hash("n", strconv.Itoa(random.IntN(5)))}
			if random.IntN(4) == 0 {
				rows[i].doc = hash("m", "1")
			}
		}
		q := &searchQuery{schema: s, sortBy: "n", descending: random.IntN(2) == 0, offset: random.IntN(35),
			count: random.IntN(35)}
		want := slices.Clone(rows)
		slices.SortStableFunc(want, func(a, b row) int {
			x, okX := a.doc.field("n")
			y, okY := b.doc.field("n")
			switch {
			case okX && okY && q.descending:
				return cmp.Compare(string(y), string(x))
			case okX && okY:
				return cmp.Compare(string(x), string(y))
			case okX:
				return -1
			case okY:
				return 1
			}
			return 0
		})
		want = want[min(q.offset, len(want)):]
		want = want[:min(q.count, len(want))]
		if got := q.arrange(rows); ids(got) != ids(want) {
			t.Fatalf("%+v: got %s, want %s", q, ids(got), ids(want))
		}
	}
}

// checkQuery fails unless a query that was parsed keeps the limits and can travel.
func checkQuery(t *testing.T, q *searchQuery) {
	t.Helper()
	payload, err := q.request.MarshalBinary()
	if err != nil {
		t.Fatalf("%+v: %v", q.request, err)
	}
	var again scatter.Request
	if err := again.UnmarshalBinary(payload); err != nil || again.Table != q.request.Table || again.K != q.request.K {
		t.Fatalf("%+v: %+v, %v", q.request, again, err)
	}
	if k := q.request.K; k < 1 || k > maxHits || q.offset < 0 || q.offset > maxLimit || q.count < 0 ||
		q.count > maxLimit || len(q.returned) > maxReturned || q.timeout < 0 {
		t.Fatalf("%+v", q)
	}
	if knn, ok := q.request.Query.(scatter.KNN); ok != (q.scoreAs != "") || ok && len(knn.Vector) != 2 {
		t.Fatalf("%+v", q)
	}
	rows := []row{{id: "a", score: 1, doc: hash("n", "1", "title", "x")}, {id: "b", score: 2}, {id: "c"}}
	page := q.arrange(rows)
	for _, proto := range []int{2, 3} {
		w := &writer{proto: proto}
		w.search(q, 3, page, []string{"warning"})
		if rest := skipReplies(t, w.bytes(), 1); len(rest) > 0 {
			t.Fatalf("bytes after the reply: %q", rest)
		}
	}
}

func FuzzParseSearch(f *testing.F) {
	_, schemaOf := testSchema(f)
	for _, seed := range [][]string{
		{"idx", "*"}, {"idx", "@title:zip", "LIMIT", "0", "5", "SORTBY", "n", "DESC", "NOCONTENT", "TIMEOUT", "5"},
		{"idx", "*=>[KNN $K @v $B EF_RUNTIME 5 AS d]", "PARAMS", "4", "K", "5", "B", "12345678", "RETURN", "4", "d", "n",
			"AS", "m"},
		{"idx", "(*)=>[KNN 5 @v $B]=>{$YIELD_DISTANCE_AS: d; $EF_RUNTIME: 5}", "PARAMS", "2", "B", "12345678",
			"SORTBY", "d"},
		{"idx", `(@title:("a \" b"))`, "DIALECT", "2", "FORMAT", "STRING"},
		{"idx", `@my\-field:*$p*`, "PARAMS", "2", "p", "*"},
	} {
		f.Add([]byte(strings.Join(seed, "\x00")))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if q, err := parseSearch(split(data), schemaOf); err == nil {
			checkQuery(t, q)
		}
	})
}

func FuzzParseRegex(f *testing.F) {
	_, schemaOf := testSchema(f)
	for _, seed := range []string{
		"idx title x", "idx @title hello K=2 RETURN 1 n", "idx b [[:alpha:]]{3}\\pL K=64 LIMIT 0 3 NOCONTENT",
	} {
		f.Add([]byte(strings.Join(strings.Fields(seed), "\x00")))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if q, err := parseRegex(split(data), schemaOf); err == nil {
			checkQuery(t, q)
		}
	})
}
