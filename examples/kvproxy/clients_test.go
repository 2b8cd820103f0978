package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
)

// library is one of Redis's client libraries. It uses the library's own types where there are some.
type library interface {
	do(ctx context.Context, words ...any) error
	pipeline(ctx context.Context, commands ...[]any) []error
	search(ctx context.Context, index, query string, how asked) (answer, error)
	info(ctx context.Context, index string) (documents int, attributes []string, err error)
	list(ctx context.Context) ([]string, error)
}

// asked is what follows a query.
type asked struct {
	param      string // named v
	noContent  bool
	returned   []returned
	sortBy     string
	descending bool
	limit      [2]int // offset and count; if both are zero, there is none
}

// answer is a reply to FT.SEARCH.
type answer struct {
	total    int
	docs     []answered
	warnings []string
}

type answered struct {
	id     string
	fields map[string]string
}

func (a answer) ids() (list []string) {
	for _, doc := range a.docs {
		list = append(list, doc.id)
	}
	return list
}

type goRedis struct{ *redis.Client }

func (l goRedis) do(ctx context.Context, words ...any) error { return l.Do(ctx, words...).Err() }

func (l goRedis) pipeline(ctx context.Context, commands ...[]any) (errs []error) {
	p := l.Pipeline()
	for _, words := range commands {
		p.Do(ctx, words...)
	}
	replies, _ := p.Exec(ctx) // the first error, which is among the replies too
	for _, r := range replies {
		errs = append(errs, r.Err())
	}
	return errs
}

func (l goRedis) search(ctx context.Context, index, query string, how asked) (a answer, err error) {
	options := &redis.FTSearchOptions{NoContent: how.noContent, LimitOffset: how.limit[0], Limit: how.limit[1],
		DialectVersion: 2}
	if how.param != "" {
		options.Params = map[string]any{"v": how.param}
	}
	for _, r := range how.returned {
		options.Return = append(options.Return, redis.FTSearchReturn{FieldName: r.field, As: r.as})
	}
	if how.sortBy != "" {
		by := redis.FTSearchSortBy{FieldName: how.sortBy, Asc: !how.descending, Desc: how.descending}
		options.SortBy = []redis.FTSearchSortBy{by}
	}
	r, err := l.FTSearchWithArgs(ctx, index, query, options).Result()
	a = answer{total: r.Total, warnings: r.Warnings}
	for _, doc := range r.Docs {
		a.docs = append(a.docs, answered{doc.ID, doc.Fields})
	}
	return a, err
}

func (l goRedis) info(ctx context.Context, index string) (documents int, attributes []string, err error) {
	r, err := l.FTInfo(ctx, index).Result()
	for _, at := range r.Attributes {
		attributes = append(attributes, fmt.Sprint(at.Attribute, " ", at.Type, " ", at.Sortable))
	}
	return r.NumDocs, attributes, err
}

func (l goRedis) list(ctx context.Context) ([]string, error) { return l.FT_List(ctx).Result() }

type ruEidis struct{ rueidis.Client }

func (l ruEidis) command(words []any) rueidis.Completed {
	command := l.B().Arbitrary(words[0].(string))
	for _, word := range words[1:] {
		command = command.Args(fmt.Sprint(word))
	}
	return command.Build()
}

func (l ruEidis) do(ctx context.Context, words ...any) error {
	return l.Do(ctx, l.command(words)).Error()
}

func (l ruEidis) pipeline(ctx context.Context, commands ...[]any) (errs []error) {
	var all rueidis.Commands
	for _, words := range commands {
		all = append(all, l.command(words))
	}
	for _, r := range l.DoMulti(ctx, all...) {
		errs = append(errs, r.Error())
	}
	return errs
}

func (l ruEidis) search(ctx context.Context, index, query string, how asked) (a answer, err error) {
	words := []any{"FT.SEARCH", index, query, "DIALECT", 2}
	if how.param != "" {
		words = append(words, "PARAMS", 2, "v", how.param)
	}
	if how.noContent {
		words = append(words, "NOCONTENT")
	}
	if how.returned != nil {
		words = append(words, "RETURN", 3*len(how.returned))
		for _, r := range how.returned {
			words = append(words, r.field, "AS", r.as)
		}
	}
	if how.sortBy != "" {
		words = append(words, "SORTBY", how.sortBy, map[bool]string{true: "DESC", false: "ASC"}[how.descending])
	}
	if how.limit != [2]int{} {
		words = append(words, "LIMIT", how.limit[0], how.limit[1])
	}
	r := l.Do(ctx, l.command(words))
	total, docs, err := r.AsFtSearch()
	a.total = int(total)
	for _, doc := range docs {
		a.docs = append(a.docs, answered{doc.Key, doc.Doc})
	}
	if m, err := r.ToMap(); err == nil { // of version 3 of the protocol
		warnings := m["warning"]
		a.warnings, _ = warnings.AsStrSlice()
	}
	return a, err
}

func (l ruEidis) info(ctx context.Context, index string) (documents int, attributes []string, err error) {
	reply, err := l.Do(ctx, l.B().FtInfo().Index(index).Build()).AsMap()
	if err != nil {
		return 0, nil, err
	}
	count, list := reply["num_docs"], reply["attributes"]
	n, err := count.AsInt64()
	each, _ := list.ToArray()
	for _, at := range each {
		value, _ := at.ToAny()
		m, ok := value.(map[string]any)
		if flags, _ := value.([]any); !ok { // pairs, and words such as SORTABLE after them
			m = mapped(flags)
			m["flags"] = flags
		}
		attributes = append(attributes, fmt.Sprint(m["attribute"], " ", m["type"], " ",
			slices.Contains(m["flags"].([]any), any("SORTABLE"))))
	}
	return int(n), attributes, err
}

func (l ruEidis) list(ctx context.Context) ([]string, error) {
	return l.Do(ctx, l.B().FtList().Build()).AsStrSlice()
}

func newGoRedis(t *testing.T, addr string, proto int) goRedis {
	client := redis.NewClient(&redis.Options{
		Addr: addr, Protocol: proto, ClientName: "test", MaxRetries: -1, ReadTimeout: time.Minute,
	})
	t.Cleanup(func() { client.Close() })
	return goRedis{client}
}

// Each library, by each version of the protocol, creates, loads and searches an index, and finds
// what a look at all documents finds.
func TestClientLibraries(t *testing.T) {
	addr := joinNode(t, testStore(t), "alone").server.addr()
	for _, proto := range []int{2, 3} {
		t.Run(fmt.Sprint("go-redis, RESP", proto), func(t *testing.T) {
			testLibrary(t, newGoRedis(t, addr, proto), proto, fmt.Sprint("go", proto))
		})
		t.Run(fmt.Sprint("rueidis, RESP", proto), func(t *testing.T) {
			client, err := rueidis.NewClient(rueidis.ClientOption{
				InitAddress: []string{addr}, ClientName: "test", AlwaysRESP2: proto == 2, DisableCache: true, DisableRetry: true,
				ConnWriteTimeout: time.Minute,
			})
			require.NoError(t, err)
			defer client.Close()
			testLibrary(t, ruEidis{client}, proto, fmt.Sprint("ru", proto))
		})
	}
}

func testLibrary(t *testing.T, l library, proto int, name string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := newCollection(name + ":")
	create := c.create(name)
	require.NoError(t, l.do(ctx, create...))
	require.ErrorContains(t, l.do(ctx, create...), "Index already exists")
	var load [][]any
	for key, fields := range c.documents {
		words := []any{"HSET", key}
		for field, value := range fields {
			words = append(words, field, value)
		}
		load = append(load, words)
	}
	load = append(load, []any{"SET", c.prefix + "text", "no hash"}, []any{"HGET", c.prefix + "text", "a"})
	errs := l.pipeline(ctx, load...)
	require.ErrorContains(t, errs[len(errs)-1], "WRONGTYPE", "of one command in the pipeline")
	for _, err := range errs[:len(errs)-1] {
		require.NoError(t, err)
	}

	search := func(query string, how asked) answer {
		a, err := l.search(ctx, name, query, how)
		require.NoError(t, err, query)
		require.Empty(t, a.warnings)
		return a
	}
	testNearest(t, c, search)
	testMatching(t, c, search)

	documents, attributes, err := l.info(ctx, name)
	require.NoError(t, err)
	require.Equal(t, len(c.documents), documents)
	require.Equal(t, []string{"title TEXT false", "kind TAG false", "year NUMERIC true", "flat VECTOR false",
		"hnsw VECTOR false", "inner VECTOR false"}, attributes)
	list, err := l.list(ctx)
	require.NoError(t, err)
	require.Contains(t, list, name)

	testErrors(ctx, t, l, name, c)
	require.NoError(t, l.do(ctx, "FT.DROPINDEX", name))
	_, err = l.search(ctx, name, "*", asked{})
	require.ErrorContains(t, err, "No such index "+name)
	require.NoError(t, l.do(ctx, create...), "over documents that exist")
	require.Equal(t, len(c.documents), search("*", asked{}).total)
	require.NoError(t, l.do(ctx, "FT.DROPINDEX", name, "DD"))
	require.NoError(t, l.do(ctx, create...))
	require.Zero(t, search("*", asked{}).total)
	require.NoError(t, l.do(ctx, "GET", c.prefix+"text"), "it wasn't in the index")
}

// testNearest compares KNN, by each metric and with filters, with distances computed here.
func testNearest(t *testing.T, c *collection, search func(string, asked) answer) {
	r := rand.New(rand.NewPCG(3, 4))
	filters := map[string]func(map[string]string) bool{
		"*":                    func(map[string]string) bool { return true },
		"@kind:{A|c}":          func(d map[string]string) bool { return d["kind"] != "b" },
		"(@year:[2000 (2010])": func(d map[string]string) bool { return d["year"] >= "2000" && d["year"] < "2010" },
		"(-@kind:{a} @title:reader)": func(d map[string]string) bool {
			return d["kind"] != "a" && strings.Contains(d["title"], "reader")
		},
		"(@kind:{a}|@year:[-inf 2000])": func(d map[string]string) bool { return d["kind"] == "a" || d["year"] <= "2000" },
	}
	for _, index := range []struct{ attribute, metric string }{{"flat", "L2"}, {"hnsw", "COSINE"}, {"inner", "IP"}} {
		for filter, matches := range filters {
			vector := make([]float32, 8)
			for i := range vector {
				vector[i] = float32(r.IntN(9)-4) + 0.5
			}
			near := c.nearest(index.metric, vector, matches)
			near = near[:min(15, len(near))]
			query := filter + "=>[KNN 15 @" + index.attribute + " $v AS far]"
			a := search(query, asked{param: string(blob(vector...))})
			require.Equal(t, len(near), a.total, query)
			require.Len(t, a.docs, min(10, len(near)), query)
			for i, doc := range a.docs {
				far, err := strconv.ParseFloat(doc.fields["far"], 64)
				require.NoError(t, err)
				require.InDelta(t, near[i].distance, far, 1e-5, query)
				if index.metric != "COSINE" { // whose distances are rounded, so that ties have any order
					require.Equal(t, near[i].id, doc.id, query)
				}
				want := maps.Clone(c.documents[doc.id])
				want["far"] = doc.fields["far"]
				require.Equal(t, want, doc.fields)
			}
			a = search(query, asked{param: string(blob(vector...)), sortBy: "far", descending: true, limit: [2]int{2, 5},
				returned: []returned{{"title", "t"}, {index.attribute, "v"}, {"nope", "nope"}, {"far", "far"}}})
			slices.Reverse(near)
			for i, doc := range a.docs {
				d := c.documents[doc.id]
				require.Equal(t, map[string]string{"t": d["title"], "v": d["vec"], "far": doc.fields["far"]}, doc.fields)
				far, _ := strconv.ParseFloat(doc.fields["far"], 64)
				require.InDelta(t, near[2+i].distance, far, 1e-5, query)
			}
		}
	}
	require.Zero(t, search("*=>[KNN 0 @flat $v]", asked{param: string(blob(make([]float32, 8)...))}).total)
}

// testMatching compares filters alone with a look at all documents.
func testMatching(t *testing.T, c *collection, search func(string, asked) answer) {
	for query, matches := range map[string]func(d map[string]string) bool{
		"*":             func(map[string]string) bool { return true },
		"@title:zip":    func(d map[string]string) bool { return strings.Contains(d["title"], "zip") },
		"@title:*eade*": func(d map[string]string) bool { return strings.Contains(d["title"], "eade") },
		`@title:"archive, number 1"`: func(d map[string]string) bool {
			return strings.Contains(d["title"], "archive, number 1")
		},
		"@title:Zip":         func(map[string]string) bool { return false },
		"@title:$v":          func(d map[string]string) bool { return strings.Contains(d["title"], "b") },
		"@kind:{$v}":         func(d map[string]string) bool { return d["kind"] == "b" },
		"-@kind:{a|b}":       func(d map[string]string) bool { return d["kind"] != "a" && d["kind"] != "b" },
		"@year:[(1995 +inf]": func(d map[string]string) bool { return d["year"] > "1995" },
		"@kind:{a} | @title:zip @year:[2005 2010]": func(d map[string]string) bool {
			return d["kind"] == "a" || strings.Contains(d["title"], "zip") && d["year"] >= "2005" && d["year"] <= "2010"
		},
	} {
		var want []string
		for key, d := range c.documents {
			if matches(d) {
				want = append(want, key)
			}
		}
		slices.Sort(want)
		a := search(query, asked{param: "b", noContent: true, limit: [2]int{0, 1000}})
		require.Equal(t, len(want), a.total, query)
		require.Equal(t, want, a.ids(), query)

		byYear := func(x, y string) int { return cmp.Compare(c.documents[y]["year"], c.documents[x]["year"]) }
		slices.SortStableFunc(want, byYear)
		want = want[min(3, len(want)):]
		a = search(query, asked{param: "b", sortBy: "year", descending: true, limit: [2]int{3, 7}})
		require.Equal(t, len(want[:min(7, len(want))]), len(a.docs), query)
		for i, doc := range a.docs {
			require.Equal(t, c.documents[want[i]]["year"], doc.fields["year"], query)
		}
	}
}

func testErrors(ctx context.Context, t *testing.T, l library, name string, c *collection) {
	for want, words := range map[string][]any{
		"unknown command 'NOPE', with args beginning with: 'a' ": {"NOPE", "a"},
		"wrong number of arguments for 'get' command":            {"GET"},
		string(errWrongType):                               {"GET", c.prefix + "000"},
		"Unknown index name":                               {"FT.INFO", "nope"},
		"No such index nope":                               {"FT.REGEX", "nope", "title", "a"},
		"Unknown field `nope`":                             {"FT.REGEX", name, "nope", "a"},
		"Unknown field at offset 0 near nope":              {"FT.SEARCH", name, "@nope:{a}"},
		"Syntax error at offset 0 near hello":              {"FT.SEARCH", name, "hello"},
		"VECTOR_RANGE is not supported":                    {"FT.SEARCH", name, "@flat:[VECTOR_RANGE 1 $b]"},
		"Unknown argument `NOPE` at position 1 for <main>": {"FT.SEARCH", name, "*", "NOPE"},
		"No such parameter `b`":                            {"FT.SEARCH", name, "*=>[KNN 1 @flat $b]"},
	} {
		require.ErrorContains(t, l.do(ctx, words...), want)
	}
}

// collection is what a library loads.
type collection struct {
	prefix    string
	vectors   map[string][]float32
	documents map[string]map[string]string
}

func newCollection(prefix string) *collection {
	c := &collection{prefix: prefix, vectors: make(map[string][]float32), documents: make(map[string]map[string]string)}
	r := rand.New(rand.NewPCG(1, 2))
	nouns := []string{"zip archive", "tar archive", "reader", "buffered reader", "writer"}
	for i := range 100 {
		key := fmt.Sprintf("%s%03d", prefix, i)
		vector := make([]float32, 8)
		for j := range vector {
			vector[j] = float32(r.IntN(9) - 4) // sums of products are exact, and some documents are equally near
		}
		vector[0] += 0.5 // none is all zeros
		c.vectors[key] = vector
		c.documents[key] = map[string]string{
			"title": fmt.Sprint("a ", nouns[r.IntN(len(nouns))], ", number ", i), "kind": string(rune('a' + i%3)),
			"year": strconv.Itoa(1990 + r.IntN(30)), "vec": string(blob(vector...)),
		}
	}
	return c
}

func (c *collection) create(index string) []any {
	return []any{"FT.CREATE", index, "ON", "HASH", "PREFIX", 1, c.prefix, "SCHEMA", "title", "TEXT", "WEIGHT", 2, "kind",
		"TAG", "SEPARATOR", ";", "year", "NUMERIC", "SORTABLE", "vec", "AS", "flat", "VECTOR", "FLAT", 6, "TYPE", "FLOAT32",
		"DIM", 8, "DISTANCE_METRIC", "L2", "vec", "AS", "hnsw", "VECTOR", "HNSW", 8, "TYPE", "FLOAT32", "DIM", 8,
		"DISTANCE_METRIC", "COSINE", "M", 12, "vec", "AS", "inner", "VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DIM", 8,
		"DISTANCE_METRIC", "IP"}
}

// nearDoc is a document and how far away it is.
type nearDoc struct {
	id       string
	distance float64
}

// nearest returns the documents that match, the nearest first.
func (c *collection) nearest(by string, query []float32, matches func(map[string]string) bool) (list []nearDoc) {
	for key, vector := range c.vectors {
		var dot, xx, yy, squares float64
		for i := range query {
			x, y := float64(query[i]), float64(vector[i])
			dot, xx, yy, squares = dot+x*y, xx+x*x, yy+y*y, squares+(x-y)*(x-y)
		}
		if matches(c.documents[key]) {
			distance := map[string]float64{"L2": squares, "IP": 1 - dot, "COSINE": 1 - dot/math.Sqrt(xx*yy)}[by]
			list = append(list, nearDoc{key, distance})
		}
	}
	slices.SortFunc(list, func(a, b nearDoc) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.id, b.id))
	})
	return list
}

// All kinds of replies, and what a node says of itself.
func TestSession(t *testing.T) {
	n := joinNode(t, testStore(t), "alone")
	c := dial(t, n.server.addr())
	create := strings.Fields("FT.CREATE books PREFIX 1 book: SCHEMA title TEXT at VECTOR FLAT 6 TYPE FLOAT32 DIM 2 " +
		"DISTANCE_METRIC L2")
	var createWords wire
	for _, word := range create {
		createWords = append(createWords, word)
	}
	c.check(replies{
		{wire{"SET", "greeting", "hello, world"}, "OK"}, {wire{"GET", "greeting"}, "hello, world"},
		{createWords, "OK"},
		{wire{"HSET", "book:1", "title", "Moby-Dick; or, The Whale", "at", "\x00\x00\x80?\x00\x00\x00\x00"}, int64(2)},
		{wire{"HSET", "book:2", "title", "The Time Machine", "at", "\x00\x00\x80?\x00\x00\x80?"}, int64(2)},
		{wire{"HSET", "book:3", "title", "The War of the Worlds", "at", "\x00\x00\x00\x00\x00\x00\x00@"}, int64(2)},
		{wire{"GET", "book:2"}, "-" + string(errWrongType)},
		{wire{"FT.SEARCH", "books", "*=>[KNN 2 @at $v AS far]", "PARAMS", 2, "v", "\x00\x00\x80?\x00\x00\x80?", "RETURN", 2,
			"title", "far"}, wire{int64(2), "book:2", wire{"title", "The Time Machine", "far", "0"},
			"book:1", wire{"title", "Moby-Dick; or, The Whale", "far", "1"}}},
		{wire{"FT.SEARCH", "books", "@title:Whale", "NOCONTENT"}, wire{int64(1), "book:1"}},
		{wire{"FT.REGEX", "books", "title", "Wurlds", "K=1"},
			wire{int64(1), "book:3", wire{"title", "The War of the Worlds"}}},
		{wire{"FT._LIST"}, wire{"books"}},
		{wire{"DBSIZE"}, int64(4)},
	})
	info := c.do("INFO").(string)
	for _, line := range []string{"redis_version:", "redis_mode:standalone", "arch_bits:64", "cluster_enabled:0",
		"# Scatter\r\nnode:alone\r\nnodes:alone\r\n", "indexes:1\r\n"} {
		require.Contains(t, info, line)
	}
	ledgers := c.do("SCATTER.LEDGER", 2).([]any)
	require.Len(t, ledgers, 2)
	require.Contains(t, ledgers[0], `"response"`)
	c.check(replies{
		{wire{"SCATTER.LEDGER", 0}, "-ERR value is not an integer or out of range"},
		{wire{"SCATTER.FORGET", "alone"}, `-ERR "alone" is this node: ask another one`},
		{wire{"SCATTER.FORGET", "nobody"}, `-ERR the ring has no node "nobody"`},
		{wire{"FLUSHALL"}, "OK"}, {wire{"DBSIZE"}, int64(0)}, {wire{"FT._LIST"}, wire{"books"}},
		{wire{"FT.SEARCH", "books", "*"}, wire{int64(0)}},
	})

	failing := wire{"FT.INFO", "books"}
	c.do("HSET", "book:4", "title", "no vector", "at", "short")
	require.Equal(t, int64(1), mapped(c.do(failing...).([]any))["num_docs"])
	require.Equal(t, int64(1), mapped(c.do(failing...).([]any))["hash_indexing_failures"])
}

func TestTransactionsOfGoRedis(t *testing.T) {
	ctx := testContext(t, time.Minute)
	set := func(p redis.Pipeliner) error {
		p.Set(ctx, "a", 1, 0)
		p.Incr(ctx, "a")
		return nil
	}
	_, err := newGoRedis(t, testFront(t, config{}).addr(), 3).TxPipelined(ctx, set)
	require.ErrorContains(t, err, "MULTI is not supported")
	client := newGoRedis(t, testFront(t, config{pipeline: true}).addr(), 3)
	_, err = client.TxPipelined(ctx, set)
	require.ErrorContains(t, err, "EXECABORT")
	_, err = client.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, "a", 2, 0).Err() })
	require.NoError(t, err)
	require.Equal(t, "2", client.Get(ctx, "a").Val())
}

// Where there are more documents than a search finds, no wrong answer is given.
func TestMoreThanMaxHits(t *testing.T) {
	s, schemaOf := testSchema(t)
	c := &call{ctx: t.Context()}
	f := &found{response: &scatter.Response[scatter.Hit[string]]{Hits: make([]scatter.Hit[string], maxHits+1)}}
	for query, want := range map[string]string{
		"@n:[1␣2] SORTBY n":     "more than 10000 documents match: SORTBY n needs all of them",
		"@n:[1␣2] LIMIT 9995 6": "more than 10000 documents match: LIMIT reaches the first 10000 only",
		"@n:[1␣2] LIMIT 0 0":    "more than 10000 documents match: they can't be counted",
		"@n:[1␣2] LIMIT 9995 5": "",
	} {
		q, err := parseSearch(append([][]byte{[]byte(s.Name)}, words(query)...), schemaOf)
		require.NoError(t, err)
		total, warnings, err := c.total(t.Context(), q, f)
		if want != "" {
			require.EqualError(t, err, want, query)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, int64(maxHits), total)
		require.Equal(t, []string{"more than 10000 documents match, total_results is too small"}, warnings)
	}
}
