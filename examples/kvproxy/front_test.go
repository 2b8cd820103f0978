package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Where nobody has some of the keys, an answer says so: by RESP3 in a warning, by RESP2 in an error
// unless the node's flags allow it.
func TestPartialAnswers(t *testing.T) {
	url := testStore(t)
	n := joinNode(t, url, "alone")
	two, three := dial(t, n.server.addr()), dial(t, n.server.addr())
	require.Contains(t, three.do("HELLO", 3), "proto")
	two.check(replies{{wire{"FT.CREATE", "idx", "SCHEMA", "title", "TEXT"}, "OK"}})
	const keys = 100
	for i := range keys {
		two.do("HSET", i, "title", "a title")
	}
	require.Len(t, two.do("FT.SEARCH", "idx", "@title:title", "LIMIT", 0, keys), 1+2*keys)
	require.Empty(t, three.do("FT.SEARCH", "idx", "*").(map[string]any)["warning"])
	require.Equal(t, int64(keys), two.do("DBSIZE"))

	nodes := []string{"alone", "ghost1", "ghost2", "ghost3", "ghost4"}
	_, err := n.engine.changeMeta(t.Context(), "ring", func([]byte) ([]byte, error) {
		return json.Marshal(map[string]any{"nodes": nodes})
	})
	require.NoError(t, err)
	for _, command := range []wire{{"FT.SEARCH", "idx", "@title:title"}, {"FT.INFO", "idx"}, {"DBSIZE"}} {
		require.Contains(t, two.do(command...), "-PARTIAL nobody has answered for", command)
	}
	answer := three.do("FT.SEARCH", "idx", "@title:title", "LIMIT", 0, keys).(map[string]any)
	require.Contains(t, fmt.Sprint(answer["warning"]), "nobody has answered for")
	found := answer["total_results"].(int64)
	require.Less(t, found, int64(keys))
	require.Len(t, answer["results"], int(found))
	for _, result := range answer["results"].([]any) {
		require.Equal(t, map[string]any{"title": "a title"}, result.(map[string]any)["extra_attributes"])
	}
	require.Contains(t, two.do("FT.DROPINDEX", "idx", "DD"), "-NOQUORUM not all documents can be found")

	n.cfg.partial = true // no command runs
	require.Len(t, two.do("FT.SEARCH", "idx", "*", "LIMIT", 0, keys), int(1+2*found))
	require.Equal(t, found, two.do("DBSIZE"))
	n.cfg.partial = false
	for _, name := range nodes[1:] {
		require.Equal(t, "OK", two.do("SCATTER.FORGET", name))
	}
	require.Len(t, two.do("FT.SEARCH", "idx", "*", "LIMIT", 0, keys), 1+2*keys)
}

// A schema that another node has made is known at once.
func TestSchemasOfOtherNodes(t *testing.T) {
	url := testStore(t)
	a, b := dial(t, joinNode(t, url, "a").server.addr()), dial(t, joinNode(t, url, "b").server.addr())
	for i := range 10 {
		name := fmt.Sprint("idx", i)
		a.check(replies{{wire{"FT.CREATE", name, "SCHEMA", "n", "NUMERIC"}, "OK"}})
		b.check(replies{
			{wire{"FT.CREATE", name, "SCHEMA", "n", "NUMERIC"}, "-Index already exists"},
			{wire{"FT._LIST"}, wire{name}},
			{wire{"HSET", "doc", "n", i}, map[bool]any{true: int64(1), false: int64(0)}[i == 0]},
			{wire{"FT.DROPINDEX", name}, "OK"},
		})
		a.check(replies{{wire{"FT.SEARCH", name, "*"}, "-No such index " + name}, {wire{"HGET", "doc", "n"}, fmt.Sprint(i)}})
	}
	for i := range maxIndexes {
		a.check(replies{{wire{"FT.CREATE", i, "SCHEMA", "n", "NUMERIC"}, "OK"}})
	}
	b.check(replies{{wire{"FT.CREATE", "more", "SCHEMA", "n", "NUMERIC"}, "-ERR there are 100 indexes already"}})
}

// Commands that ask for too much get an error. A node goes on as if nothing had been.
func TestHostileCommands(t *testing.T) {
	n := joinNode(t, testStore(t), "alone", func(c *config) { c.timeout = 30 * time.Second })
	c := dial(t, n.server.addr())
	col := newCollection("doc:")
	zeros := string(blob(make([]float32, 8)...))
	c.check(replies{
		{col.create("idx"), "OK"}, {wire{"HSET", "doc:1", "title", "a title", "vec", zeros}, int64(2)},
	})
	knn := func(query string, more ...any) wire {
		return append(wire{"FT.SEARCH", "idx", query, "PARAMS", 2, "v", zeros}, more...)
	}
	attributes := func(n int) wire {
		words := wire{"FT.CREATE", "other", "SCHEMA"}
		for i := range n {
			words = append(words, i, "TAG")
		}
		return words
	}
	const most = "1000000000000000000"
	for _, words := range []wire{
		knn("*=>[KNN " + most + " @flat $v]"), knn("*=>[KNN 10001 @flat $v]"), knn("*=>[KNN -1 @flat $v]"),
		knn("*=>[KNN 1e3 @flat $v]"), knn("*=>[KNN $v @flat $v]"), knn("*=>[KNN 1 @hnsw $v EF_RUNTIME " + most + "]"),
		knn("*=>[KNN 1 @hnsw $v]"), // zeros have no cosine
		knn("*", "LIMIT", -1, 10), knn("*", "LIMIT", 0, -1), knn("*", "LIMIT", 0, most), knn("*", "RETURN", most),
		knn("*", "RETURN", -1, "a"), knn("*", "TIMEOUT", -1), knn("*", "TIMEOUT", most), knn("*", "DIALECT", 99),
		knn("*", "PARAMS", 2, "w", "x"), {"FT.SEARCH", "idx", "*", "PARAMS", most, "a", "b"},
		{"FT.SEARCH", "idx", "*=>[KNN 1 @flat $v]", "PARAMS", 2, "v", strings.Repeat("a", 16<<20)},
		{"FT.SEARCH", "idx", "*=>[KNN 1 @flat $v]", "PARAMS", 2, "v", strings.Repeat("\xff", 32)}, // no numbers
		knn(strings.Repeat("(", 1<<20)), knn(strings.Repeat("(", 1<<20) + "*" + strings.Repeat(")", 1<<19)),
		knn(strings.Repeat("@title:a ", 1<<17)), knn(strings.Repeat("*=>", 1<<18)), knn(strings.Repeat(`\`, 1<<20)),
		knn(`@title:"` + strings.Repeat(`\"`, 1<<19)), knn("@kind:{" + strings.Repeat("a|", 1<<19)), knn("\x00\xff"),
		knn(""), knn("@"), knn("*=>"), knn("@year:[1 " + most + most), knn("@year:[$v 1]"), knn("*=>[KNN"),
		{"FT.REGEX", "idx", "title", "("}, {"FT.REGEX", "idx", "title", strings.Repeat("(", 1<<20)},
		{"FT.REGEX", "idx", "title", strings.Repeat("(a*", 1000) + strings.Repeat(")*", 1000)},
		{"FT.REGEX", "idx", "title", "((a{100}){100}){100}"}, {"FT.REGEX", "idx", "title", "\xff"},
		{"FT.REGEX", "idx", "title", "a", "K=" + most}, {"FT.REGEX", "idx", "title", strings.Repeat("a", 1<<20), "K=3"},
		{"FT.CREATE", "other", "SCHEMA", "v", "VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DISTANCE_METRIC", "L2", "DIM", most},
		{"FT.CREATE", "other", "SCHEMA", "v", "VECTOR", "FLAT", most, "TYPE", "FLOAT32"},
		{"FT.CREATE", "other", "PREFIX", most, "a", "SCHEMA", "a", "TEXT"}, {"FT.CREATE", "other", "PREFIX", -1},
		{"FT.CREATE", "other", "SCHEMA", "a\xff", "TEXT"}, attributes(1025), attributes(100_000),
		{"FT.CREATE", strings.Repeat("x", 1<<20), "SCHEMA", "a", "TEXT"},
		{"FT.CREATE", "other", "PREFIX", 1, strings.Repeat("x", 9<<20), "SCHEMA", "a", "TEXT"},
		{"FT.DROPINDEX", "\xff"}, {"FT.DROPINDEX", "idx", "NOPE"}, {"FT.INFO", strings.Repeat("x", 1<<20)},
		{"HELLO", most}, {"HELLO", 3, "AUTH"}, {"SELECT", -1}, {"SELECT", most + most}, {"SCAN", most + most},
		{"SCATTER.LEDGER", -1}, {"SCATTER.LEDGER", most + most}, {"SCATTER.FORGET", strings.Repeat("x", 1<<20)},
		{"COMMAND", strings.Repeat("a", 1<<20)}, {strings.Repeat("a", 1<<20), "b"}, {"nope", strings.Repeat("\r\n", 1<<10)},
		{"\r\n+OK\r\n"}, {""}, {"SET", strings.Repeat("k", 1<<20), 1}, {"SET", "big", strings.Repeat("v", 5<<20)},
		{"HSET", "doc:1", strings.Repeat("f", 5<<20), 1}, {"MSET", "big", strings.Repeat("v", 5<<20)},
	} {
		began := time.Now()
		reply, _ := c.do(words...).(string)
		require.True(t, strings.HasPrefix(reply, "-") && !strings.Contains(reply, "NOQUORUM") &&
			!strings.Contains(reply, "internal"), "%.200v: %.200q", words, reply)
		require.Less(t, len(reply), 1024, "%.200v", words)
		require.Less(t, time.Since(began), 20*time.Second, "%.200v", words)
	}
	list := mapped(c.do("FT.INFO", "idx").([]any))
	require.Equal(t, int64(1), list["num_docs"])
	require.Len(t, c.do(knn("*=>[KNN 1 @flat $v]")...), 3)
	require.Equal(t, "OK", c.do("SET", "big", strings.Repeat("\x00\xff", 1<<20)))
}

// A node whose index is behind has replicas answer its searches, within their time. It says that
// the schemas that it knows may be old.
func TestSearchWithAnIndexThatIsBehind(t *testing.T) {
	url := testStore(t)
	a := joinNode(t, url, "a", func(c *config) { c.timeout = 4 * time.Second })
	b := dial(t, joinNode(t, url, "b").server.addr())
	b.check(replies{
		{wire{"FT.CREATE", "old", "SCHEMA", "n", "NUMERIC"}, "OK"}, {wire{"HSET", "doc", "n", 1}, int64(1)},
	})
	two, three := dial(t, a.server.addr()), dial(t, a.server.addr())
	three.do("HELLO", 3)
	require.Equal(t, wire{"old"}, two.do("FT._LIST"))

	release := holdBack(t, a)
	b.check(replies{{wire{"FT.CREATE", "new", "SCHEMA", "n", "NUMERIC"}, "OK"}})
	answer := three.do("FT.SEARCH", "old", "@n:[1 1]").(map[string]any)
	require.Equal(t, int64(1), answer["total_results"])
	require.Contains(t, fmt.Sprint(answer["warning"]), "may know old indexes")
	require.Contains(t, two.do("FT.SEARCH", "old", "*"), "-PARTIAL a may know old indexes")
	require.Contains(t, two.do("FT.SEARCH", "new", "*"), "-No such index new ")
	release()
	require.Equal(t, wire{int64(1), "doc"}, two.do("FT.SEARCH", "new", "*", "NOCONTENT"))
}
