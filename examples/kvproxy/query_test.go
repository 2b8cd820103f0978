package main

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
)

// split splits the input of a fuzz target into arguments.
func split(data []byte) [][]byte { return bytes.Split(data, []byte{0}) }

func testSchema(t testing.TB) (*schema, func(string) *schema) {
	t.Helper()
	s, err := parseCreate(words("idx SCHEMA v VECTOR HNSW 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC L2 " +
		"e AS f VECTOR FLAT 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC L2 title TEXT SORTABLE UNF body AS b TEXT SORTABLE " +
		"secret TEXT NOINDEX tag TAG Case TAG CASESENSITIVE n NUMERIC my-field TEXT " +
		"cos VECTOR FLAT 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC COSINE"))
	require.NoError(t, err)
	return s, func(name string) *schema {
		if name == s.Name {
			return s
		}
		return nil
	}
}

// searchArgs returns the arguments of FT.SEARCH. VECTOR stands for a blob.
func searchArgs(query, options string) [][]byte {
	args := append([][]byte{[]byte("idx"), []byte(query)}, words(options)...)
	for i := range args {
		if string(args[i]) == "VECTOR" {
			args[i] = []byte(string(blob(1, 2)))
		}
	}
	return args
}

func TestParseSearch(t *testing.T) {
	s, schemaOf := testSchema(t)
	type change = func(*searchQuery)
	knn := func(k int, field, as string) change {
		return func(q *searchQuery) {
			q.request.K, q.request.Query = k, scatter.KNN{Field: field, Vector: []float32{1, 2}}
			q.scoreAs = as
		}
	}
	for _, test := range []struct {
		query, options string
		change         change
	}{
		{"*", "", func(*searchQuery) {}},
		{" ( ( * ) ) ", "", func(*searchQuery) {}},
		{"*=>[KNN 10 @v $B]", "PARAMS 2 B VECTOR", knn(10, "v", "__v_score")},
		{"(*)=>[knn 3 @v $B as d]", "PARAMS 2 B VECTOR DIALECT 2", knn(3, "v", "d")},
		{"*=>[KNN 0 @v $B]", "PARAMS 2 B VECTOR", knn(0, "v", "__v_score")},
		{"*=>[KNN $K @f $B AS $name]", "PARAMS 6 K 10000 B VECTOR name the␣distance", knn(10000, "f", "the distance")},
		{" * => [ KNN 10 @v $B EF_RUNTIME 50 AS d ] ", "PARAMS 2 B VECTOR", knn(10, "v", "d")},
		{"*", "NOCONTENT DIALECT 4", func(q *searchQuery) { q.noContent = true }},
		{"*", "limit 0 0", func(q *searchQuery) { q.count = 0 }},
		{"*", "LIMIT 1000000 1000000", func(q *searchQuery) { q.offset, q.count = 1e6, 1e6 }},
		{"*", "TIMEOUT 1500", func(q *searchQuery) { q.timeout = 1500 * time.Millisecond }},
		{"*", "SORTBY n ASC", func(q *searchQuery) { q.sortBy = "n" }},
		{"*", "SORTBY b desc NOCONTENT", func(q *searchQuery) { q.sortBy, q.descending, q.noContent = "b", true, true }},
		{"*", "RETURN 0", func(q *searchQuery) { q.returnAll, q.noContent = false, true }},
		{"*", "RETURN 7 title b AS body as AS as", func(q *searchQuery) {
			q.returnAll, q.returned = false, []returned{{"title", "title"}, {"b", "body"}, {"as", "as"}}
		}},
		{"*", "RETURN 5 title b AS title n", func(q *searchQuery) {
			q.returnAll, q.returned = false, []returned{{"title", "title"}, {"n", "n"}}
		}},
	} {
		want := &searchQuery{schema: s, returnAll: true, count: 10,
			request: &scatter.Request{Table: "idx", K: maxHits + 1, Query: scatter.Text{}}}
		test.change(want)
		got, err := parseSearch(searchArgs(test.query, test.options), schemaOf)
		require.NoError(t, err, test.query)
		require.Equal(t, want, got, test.query)
	}
}

func TestParseFilter(t *testing.T) {
	_, schemaOf := testSchema(t)
	for query, want := range map[string]string{ // with @ for the bytes of tags and texts
		"@title:zip":                             `text(title zip)`,
		"@title: *zip*":                          `text(title zip)`,
		"(@title:(*zip*))":                       `text(title zip)`,
		`@title:"read a"`:                        `text(title read a)`,
		`@title:("=>[ \" \\ \x *)")`:             `text(title =>[ " \ \x *))`,
		`@title:read\ \-\*a`:                     `text(title read -*a)`,
		"@b:Grüße_7":                             `text(b Grüße_7)`,
		`@my\-field:$p`:                          `text(my-field Any-thing)`,
		"@tag:{Red}":                             `tags(tag red)`,
		"@Case:{Red}":                            `tags(Case Red)`,
		`@tag:{ Red | sky Blue|a\-b | $p|"x|y"}`: `tags(tag red|sky blue|a-b|any-thing|x|y)`,
		"@n:[1 5]":                               `range(n [1 5])`,
		"@n:[(1.5 (-2e3]":                        `range(n (1.5 -2000))`,
		"@n:[-inf +inf]":                         `range(n [- -])`,
		"@n:[ ($low $high ]":                     `range(n (3 4])`,
		"@n:[(-INF 5]":                           `range(n (- 5])`,
		"-@tag:{x}":                              `not(tags(tag x))`,
		"--@tag:{x}":                             `not(not(tags(tag x)))`,
		"@tag:{a} @n:[1 2]":                      `and(tags(tag a) range(n [1 2]))`,
		"@tag:{a}|@tag:{b} -@n:[1 2]":            `or(tags(tag a) and(tags(tag b) not(range(n [1 2]))))`,
		"(@tag:{a}|@tag:{b}) -(@n:[1 2] @title:x)": `and(or(tags(tag a) tags(tag b)) ` +
			`not(and(range(n [1 2]) text(title x))))`,
	} {
		for _, arrow := range []string{"", "=>[KNN 3 @v $B]"} {
			q, err := parseSearch(searchArgs(query+arrow, "PARAMS 8 p Any-thing low 3 high 4 B VECTOR"), schemaOf)
			require.NoError(t, err, query)
			require.Equal(t, want, q.filter.String(), query)
			_, knn := q.request.Query.(scatter.KNN)
			require.Equal(t, arrow != "", knn)
		}
	}
}

// String is for tests.
func (f *filter) String() string {
	list := func(fs []filter) string {
		var all []string
		for i := range fs {
			all = append(all, fs[i].String())
		}
		return strings.Join(all, " ")
	}
	end := func(limit *float64) string {
		if limit == nil {
			return "-"
		}
		b, _ := json.Marshal(*limit)
		return string(b)
	}
	switch {
	case f.And != nil:
		return "and(" + list(f.And) + ")"
	case f.Or != nil:
		return "or(" + list(f.Or) + ")"
	case f.Not != nil:
		return "not(" + f.Not.String() + ")"
	case f.Tags != nil:
		return "tags(" + f.Attribute + " " + string(bytes.Join(f.Tags, []byte("|"))) + ")"
	case f.Range != nil:
		left, right := "[", "]"
		if f.Range.MinOpen {
			left = "("
		}
		if f.Range.MaxOpen {
			right = ")"
		}
		return "range(" + f.Attribute + " " + left + end(f.Range.Min) + " " + end(f.Range.Max) + right + ")"
	}
	return "text(" + f.Attribute + " " + string(f.Text) + ")"
}

func TestParseSearchErrors(t *testing.T) {
	_, schemaOf := testSchema(t)
	for _, test := range []struct{ query, options, want string }{ // the beginning of the error
		{"", "", "Syntax error at offset 0 near  (only"},
		{"hello", "", "Syntax error at offset 0 near hello (only"},
		{"**", "", "Syntax error at offset 1 near * "},
		{"*zip*", "", "Syntax error at offset 1 near zip* "},
		{"(*", "", "Syntax error at offset 2 near  "},
		{"(*))", "", "Syntax error at offset 3 near ) "},
		{strings.Repeat("(", 1_000_000), "", "Query is nested more than 64 levels deep"},
		{strings.Repeat("-", 1_000_000), "", "Query is nested more than 64 levels deep"},
		{strings.Repeat("@title:a ", 100_000), "", "Query has more than 1024 clauses and tags"},
		{"@tag:{a" + strings.Repeat("|a", 100_000), "", "Query has more than 1024 clauses and tags"},
		{"@title|b:x", "", "Syntax error at offset 6 near |b:x "},
		{"@title:(read a)", "", "Syntax error at offset 13 near a) "},
		{"@title:read a", "", "Syntax error at offset 12 near a "},
		{"@title:zip*", "", "Syntax error at offset 10 near * "},
		{"@title:*zip", "", "Syntax error at offset 11 near "},
		{"@title:%zip%", "", "Syntax error at offset 7 near %zip% "},
		{"@title:w'zi?'", "", "Syntax error at offset 8 near 'zi?' "},
		{"@title:x=>{$weight: 2}", "", "Syntax error at offset 10 near {$weight: "},
		{"~@title:x", "", "Syntax error at offset 0 near ~@title:x "},
		{"@title:x | ", "", "Syntax error at offset 11 near  "},
		{`@title:"zip`, "", "Syntax error at offset 11 near  "},
		{`@title:""`, "", "Empty text at offset 9"},
		{"@title:$p", "PARAMS 2 q x", "No such parameter `p`"},
		{"@title", "", "Syntax error at offset 6 near  "},
		{"@", "", "Syntax error at offset 1 near  "},
		{"@none:x", "", "Unknown field at offset 0 near none"},
		{"@tag:x", "", "Syntax error at offset 5 near x "},
		{"@tag:{}", "", "Syntax error at offset 6 near } "},
		{"@tag:{a|}", "", "Syntax error at offset 8 near } "},
		{"@tag:{a*}", "", "Syntax error at offset 7 near *} "},
		{"@tag:{a", "", "Syntax error at offset 7 near  "},
		{`@tag:{" "}`, "", "Empty tag of the field `tag`"},
		{"@n:[1 x]", "", "Invalid numeric value (x) at offset 7"},
		{"@n:[1]", "", "Invalid numeric value () at offset 5"},
		{"@n:[nan 1]", "", "Invalid numeric value (nan) at offset 7"},
		{"@n:[inf 1]", "", "Invalid numeric value (inf) at offset 7"},
		{"@n:[1 -inf]", "", "Invalid numeric value (-inf) at offset 10"},
		{"@n:[1 1e999]", "", "Invalid numeric value (1e999) at offset 11"},
		{"@n:[1 2 3]", "", "Syntax error at offset 8 near 3] "},
		{"@n:[1 2", "", "Syntax error at offset 7 near  "},
		{"@v:[VECTOR_RANGE 1 $B]", "PARAMS 2 B VECTOR", "VECTOR_RANGE is not supported"},
		{"@secret:x", "", "Expected a field without NOINDEX at offset 0 near secret"},
		{"*=>", "", "Syntax error at offset 3 near  "},
		{"*=>[RANGE 1 @v $B]", "PARAMS 2 B VECTOR", "Syntax error at offset 4 near RANGE "},
		{"*=>[KNN x @v $B]", "PARAMS 2 B VECTOR", "Invalid numeric value (x) for parameter `K`"},
		{"*=>[KNN -1 @v $B]", "PARAMS 2 B VECTOR", "Syntax error at offset 8 near -1 "},
		{"*=>[KNN $K @v $B]", "PARAMS 4 K -1 B VECTOR", "Invalid numeric value (-1) for parameter `K`"},
		{"*=>[KNN 10001 @v $B]", "PARAMS 2 B VECTOR",
			"Error parsing vector similarity query: query KNN K parameter is too large, must not exceed 10000"},
		{"*=>[KNN 1 @none $B]", "PARAMS 2 B VECTOR", "Unknown field at offset 10 near none"},
		{"*=>[KNN 1 @title $B]", "PARAMS 2 B VECTOR", "Expected a VECTOR field at offset 10 near title"},
		{"*=>[KNN 1 @v B]", "PARAMS 2 B VECTOR", "Syntax error at offset 13 near B] "},
		{"*=>[KNN 1 @v $B", "PARAMS 2 B VECTOR", "Syntax error at offset 15 near  "},
		{"*=>[KNN 1 @v $C]", "PARAMS 2 B VECTOR", "No such parameter `C`"},
		{"*=>[KNN 1 @v $B]", "PARAMS 2 B 12345678901", "Error parsing vector similarity query: query vector blob size " +
			"(11) does not match index's expected size (8)."},
		{"*=>[KNN 1 @v $B]", "PARAMS 2 B " + string(blob(1, float32(math.Inf(1)))),
			"Error parsing vector similarity query: query vector is not finite"},
		{"*=>[KNN 1 @v $B]", "PARAMS 2 B " + string(blob(float32(math.NaN()), 1)),
			"Error parsing vector similarity query: query vector is not finite"},
		{"*=>[KNN 1 @cos $B]", "PARAMS 2 B " + string(blob(0, 0)),
			"Error parsing vector similarity query: query vector is all zeros, which has no angle"},
		{"*=>[KNN 1 @v $B HYBRID_POLICY BATCHES]", "PARAMS 2 B VECTOR",
			"Error parsing vector similarity parameters: Invalid option `HYBRID_POLICY`"},
		{"*=>[KNN 1 @v $B AS title]", "PARAMS 2 B VECTOR", "Property `title` already exists in schema"},
		{"*=>[KNN 1 @v $B]=>{$YIELD_DISTANCE_AS: d}", "PARAMS 2 B VECTOR", "Syntax error at offset 16 near "},
		{"*=>[KNN 1 @v $B] x", "PARAMS 2 B VECTOR", "Syntax error at offset 17 near x "},
		{"*", "WITHSCORES", "Unknown argument `WITHSCORES` at position 1 for <main>"},
		{"*", "NOCONTENT xyz", "Unknown argument `xyz` at position 2 for <main>"},
		{"*", "PARAMS", "Bad arguments for PARAMS: Expected an argument, but none provided"},
		{"*", "PARAMS -2 a b", "Bad arguments for PARAMS: `-2` is not"},
		{"*", "PARAMS 0", "Parameters must be specified in PARAM VALUE pairs"},
		{"*", "PARAMS 3 a b c", "Parameters must be specified in PARAM VALUE pairs"},
		{"*", "PARAMS 4 a b", "Bad arguments for PARAMS: Expected an argument, but none provided"},
		{"*", "PARAMS 4 a b a c", "Duplicate parameter `a`"},
		{"*", "PARAMS 2 a b PARAMS 2 c d", "Multiple PARAMS are not allowed. Parameters can be defined only once"},
		{"*", "LIMIT 1", "Bad arguments for LIMIT: Expected an argument"},
		{"*", "LIMIT 0 -1", "Bad arguments for LIMIT: `-1` is not an integer from 0 to 1000000"},
		{"*", "LIMIT 1 0", "The `offset` of the LIMIT must be 0 when `num` is 0"},
		{"*", "LIMIT 1000001 1", "Bad arguments for LIMIT: `1000001` is not"},
		{"*", "SORTBY", "Bad arguments for SORTBY: Expected an argument"},
		{"*", "SORTBY n SORTBY b", "Multiple SORTBY steps are not allowed"},
		{"*", "SORTBY body", "Property `body` not loaded nor in schema"},
		{"*", "SORTBY __v_score", "Property `__v_score` not loaded nor in schema"},
		{"*", "DIALECT 1", "Bad arguments for DIALECT: `1` is not an integer from 2 to 4"},
		{"*", "TIMEOUT -1", "Bad arguments for TIMEOUT: `-1` is not"},
		{"*", "RETURN 2 a", "Bad arguments for RETURN: Expected an argument, but none provided"},
		{"*", "RETURN 2 a AS b", "RETURN path AS name - must be accompanied with NAME"},
		{"*", "RETURN 3 a AS", "Bad arguments for AS: Expected an argument"},
		{"*", "RETURN 1025" + numbered(" f%d", 1025), "RETURN exceeds maximum of 1024"},
	} {
		_, err := parseSearch(searchArgs(test.query, test.options), schemaOf)
		require.ErrorContains(t, err, test.want, "%.50s %.50s", test.query, test.options)
		require.True(t, strings.HasPrefix(err.Error(), test.want))
	}
	_, err := parseSearch(words("idx"), schemaOf)
	require.EqualError(t, err, "ERR wrong number of arguments for 'FT.SEARCH' command")
	_, err = parseSearch(words("none *"), schemaOf)
	require.EqualError(t, err, "No such index none")
}

// Any text can be written in quotes, with backslashes, and as a parameter.
func TestAnyText(t *testing.T) {
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
			require.NoError(t, err, "%q", query)
			require.Equal(t, text, q.filter.Text)
		}
	}
}

func TestParseRegex(t *testing.T) {
	s, schemaOf := testSchema(t)
	for command, want := range map[string]searchQuery{
		"idx title h(e|x)l*o": {request: &scatter.Request{Query: scatter.Regex{Field: "title", Pattern: "h(e|x)l*o"}}},
		"idx @title hello k=2": {
			request: &scatter.Request{Query: scatter.Regex{Field: "title", Pattern: "hello", MaxErrors: 2}}},
		"idx b x K=64 LIMIT 5 6": {
			request: &scatter.Request{Query: scatter.Regex{Field: "b", Pattern: "x", MaxErrors: 64}}, offset: 5, count: 6},
		"idx title x RETURN 1 n SORTBY n": {request: &scatter.Request{Query: scatter.Regex{Field: "title", Pattern: "x"}},
			sortBy: "n", returned: []returned{{"n", "n"}}},
	} {
		want.schema, want.request.K, want.request.Table = s, maxHits+1, "idx"
		if want.count == 0 {
			want.count = 10
		}
		if want.returned == nil {
			field := want.request.Query.(scatter.Regex).Field
			want.returned = []returned{{field, field}}
		}
		got, err := parseRegex(words(command), schemaOf)
		require.NoError(t, err, command)
		require.Equal(t, want, *got, command)
	}
	for command, want := range map[string]string{
		"idx title":                             "ERR wrong number of arguments for 'FT.REGEX' command",
		"none title x":                          "No such index none",
		"idx none x":                            "Unknown field `none`",
		"idx tag x":                             "Expected a TEXT field that is indexed: `tag`",
		"idx secret x":                          "Expected a TEXT field that is indexed: `secret`",
		"idx title x K=":                        "Invalid K= value ``: not a number from 0 to 64",
		"idx title x K=65":                      "Invalid K= value `65`: not a number from 0 to 64",
		"idx title x y":                         "Unknown argument `y` at position 2 for <main>",
		"idx title x K=1 y":                     "Unknown argument `y` at position 3 for <main>",
		"idx title (":                           "Invalid pattern: error parsing regexp: missing closing ): `(`",
		"idx title \xff":                        "Invalid pattern: error parsing regexp: invalid UTF-8: `\xff`",
		"idx title h(e|x)lo K=1":                "Invalid pattern: with K above 0 it must be plain text, without operators",
		"idx title " + strings.Repeat("x", 513): "Invalid pattern: longer than 512 bytes",
	} {
		_, err := parseRegex(words(command), schemaOf)
		require.EqualError(t, err, want, "%.60s", command)
	}
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
		"": "abcdefg", "LIMIT 2 3": "cde", "LIMIT 5 10": "fg", "LIMIT 7 10": "", "LIMIT 1000000 1000000": "", "LIMIT 0 0": "",
		"SORTBY d": "dgceafb", "SORTBY d DESC": "facegdb", "SORTBY d LIMIT 1 2": "gc", "SORTBY n": "ebafcdg",
		"SORTBY n DESC": "afbecdg", "SORTBY title": "cbfadeg", "SORTBY b": "cabdfeg", "SORTBY b DESC": "dfabceg",
		"SORTBY title DESC LIMIT 0 100": "adfbceg",
	} {
		q, err := parseSearch(searchArgs("*=>[KNN 10 @v $B AS d]", "PARAMS 2 B VECTOR "+options), schemaOf)
		require.NoError(t, err)
		got := ""
		for _, r := range q.arrange(slices.Clone(rows)) {
			got += r.id
		}
		require.Equal(t, want, got, options)
		byField := strings.HasPrefix(options, "SORTBY") && !strings.HasPrefix(options, "SORTBY d")
		require.Equal(t, byField, q.needsDocuments(), options)
	}
	require.Empty(t, (&searchQuery{count: 10}).arrange(nil))
}

// checkQuery fails unless a query that was parsed keeps the limits and can travel to a peer.
func checkQuery(t *testing.T, q *searchQuery) {
	t.Helper()
	k := q.request.K
	require.True(t, k >= 0 && k <= maxHits+1 && q.offset >= 0 && q.offset <= maxLimit && q.count >= 0 &&
		q.count <= maxLimit && len(q.returned) <= maxReturned && q.timeout >= 0, "%+v", q)
	knn, ok := q.request.Query.(scatter.KNN)
	require.Equal(t, ok, q.scoreAs != "")
	require.True(t, !ok || len(knn.Vector) == 2)
	if k > 0 {
		payload, err := q.request.MarshalBinary()
		require.NoError(t, err)
		var again scatter.Request
		require.NoError(t, again.UnmarshalBinary(payload))
		require.Equal(t, k, again.K)
	}
	if q.filter != nil {
		b, err := json.Marshal(q.filter)
		require.NoError(t, err)
		var again filter
		require.NoError(t, json.Unmarshal(b, &again))
		require.Equal(t, q.filter.String(), again.String())
	}
	page := q.arrange([]row{{id: "a", score: 1, doc: hash("n", "1", "title", "x")}, {id: "b", score: 2}, {id: "c"}})
	for _, proto := range []int{2, 3} {
		readAll(t, appendReply(nil, proto, q.reply(proto, 3, page, []string{"warning"})))
	}
}

func FuzzParseSearch(f *testing.F) {
	_, schemaOf := testSchema(f)
	for _, seed := range []string{
		"idx * LIMIT 0 5 SORTBY n DESC NOCONTENT TIMEOUT 5", `idx (@title:("a\"b")) DIALECT 2`,
		"idx *=>[KNN␣$K␣@v␣$B␣EF_RUNTIME␣5␣AS␣d] PARAMS 4 K 5 B 12345678 RETURN 4 d n AS m",
		`idx (@tag:{a|"b"|$p}␣-@n:[(1␣inf]|@my\-field:*$p*)=>[KNN␣5␣@f␣$B] PARAMS 4 p * B 12345678 SORTBY __f_score`,
	} {
		f.Add(bytes.Join(words(seed), []byte{0}))
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
		f.Add(bytes.Join(words(seed), []byte{0}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if q, err := parseRegex(split(data), schemaOf); err == nil {
			checkQuery(t, q)
		}
	})
}
