package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/scatterknn/scatter"
	"github.com/tidwall/redcon"
)

// readReply takes a reply off the front of b: a string, int64, float64, error, []any, map[string]any, set or nil.
func readReply(t testing.TB, b []byte) (reply any, rest []byte) {
	t.Helper()
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok || len(line) == 0 {
		t.Fatalf("no reply: %q", b)
	}
	number := func() int {
		n, err := strconv.Atoi(string(line[1:]))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return n
	}
	elements := func(n int) []any {
		list := []any{}
		for range n {
			var element any
			element, rest = readReply(t, rest)
			list = append(list, element)
		}
		return list
	}
	switch line[0] {
	case '+':
		return string(line[1:]), rest
	case '-':
		return errors.New(string(line[1:])), rest
	case ':':
		return int64(number()), rest
	case ',':
		f, err := strconv.ParseFloat(string(line[1:]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return f, rest
	case '_':
		return nil, rest
	case '$':
		n := number()
		if n < 0 {
			return nil, rest
		}
		if len(rest) < n+2 || string(rest[n:n+2]) != "\r\n" {
			t.Fatalf("%q ends early: %q", line, rest)
		}
		return string(rest[:n]), rest[n+2:]
	case '*':
		if n := number(); n >= 0 {
			return elements(n), rest
		}
		return nil, rest
	case '~':
		return set(elements(number())), rest
	case '%':
		m := make(map[string]any)
		list := elements(2 * number())
		for i := 0; i < len(list); i += 2 {
			if _, ok := m[list[i].(string)]; ok {
				t.Fatalf("%v is in a map twice", list[i])
			}
			m[list[i].(string)] = list[i+1]
		}
		return m, rest
	}
	t.Fatalf("unknown reply: %q", line)
	return nil, nil
}

type set []any

// skipReplies returns what comes after n replies.
func skipReplies(t testing.TB, b []byte, n int) []byte {
	t.Helper()
	for range n {
		_, b = readReply(t, b)
	}
	return b
}

func TestWriter(t *testing.T) {
	tests := []struct {
		write        func(w *writer)
		two, threeIs string
	}{
		{func(w *writer) { w.simple("OK") }, "+OK\r\n", ""},
		{func(w *writer) { w.bulk([]byte("a\r\nb")) }, "$4\r\na\r\nb\r\n", ""},
		{func(w *writer) { w.bulk(nil) }, "$0\r\n\r\n", ""},
		{func(w *writer) { w.bulkString("é") }, "$2\r\né\r\n", ""},
		{func(w *writer) { w.integer(math.MinInt64) }, ":-9223372036854775808\r\n", ""},
		{func(w *writer) { w.double(1.5) }, "$3\r\n1.5\r\n", ",1.5\r\n"},
		{func(w *writer) { w.double(math.Inf(-1)) }, "$4\r\n-inf\r\n", ",-inf\r\n"},
		{func(w *writer) { w.double(math.NaN()) }, "$3\r\nnan\r\n", ",nan\r\n"},
		{func(w *writer) { w.null() }, "$-1\r\n", "_\r\n"},
		{func(w *writer) { w.nullArray() }, "*-1\r\n", "_\r\n"},
		{func(w *writer) { w.array(3) }, "*3\r\n", ""},
		{func(w *writer) { w.mapOf(3) }, "*6\r\n", "%3\r\n"},
		{func(w *writer) { w.set(3) }, "*3\r\n", "~3\r\n"},
		{func(w *writer) { w.name("a b") }, "+a b\r\n", ""},
		{func(w *writer) { w.name("a\nb") }, "$3\r\na\nb\r\n", ""},
		{func(w *writer) { w.err(errWrongType) }, "-" + string(errWrongType) + "\r\n", ""},
		{func(w *writer) { w.err(errors.New("ERR a\r\n+OK\r\n")) }, "-ERR a  +OK  \r\n", ""},
	}
	for _, test := range tests {
		for proto, want := range map[int]string{2: test.two, 3: test.threeIs} {
			if want == "" {
				want = test.two
			}
			w := &writer{proto: proto}
			if test.write(w); string(w.bytes()) != want {
				t.Errorf("RESP%d: %q, want %q", proto, w.bytes(), want)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	if got, want := errWrongArgs("get").Error(), "ERR wrong number of arguments for 'get' command"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := errUnknownCommand([]byte("FOO"), words("a b")).Error(),
		"ERR unknown command 'FOO', with args beginning with: 'a' 'b' "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	long := bytes.Repeat([]byte("x"), 1<<20)
	if got := errUnknownCommand(long, [][]byte{long[:100], long, long}).Error(); len(got) > 400 {
		t.Errorf("an error of %d bytes", len(got))
	}
	for arg, want := range map[string]int64{"1": 1, "9223372036854775807": math.MaxInt64, "0": 0, "-1": 0, "+1": 0,
		"": 0, "x": 0, "1.5": 0, " 1": 0, "9223372036854775808": 0} {
		got, err := positive([]byte(arg))
		if got != want || (err == nil) != (want > 0) || err != nil && err != errNotInteger {
			t.Errorf("positive(%q) = %d, %v", arg, got, err)
		}
	}
}

// The first ones are of RediSearch's own tests, the others what C's printf makes of them.
func TestFormatDistance(t *testing.T) {
	for want, score := range map[string]float64{
		"3.09485009821e+26": 0x1p88, "2.02824096037e+31": 0x1p104, "1.32922799578e+36": 0x1p120,
		"0": 0, "1": 1, "-2": -2, "16777216": 1 << 24, "4611686018427387904": 1 << 62, "9.22337203685e+18": 1 << 63,
		"0.5": 0.5, "0.10000000149": 0.1, "9.99999974738e-06": 1e-5, "9.99999974738e-05": 1e-4, "123456.789062": 123456.789,
		"nan": math.NaN(), "inf": math.Inf(1), "-inf": math.Inf(-1),
	} {
		if got := formatDistance(float32(score)); got != want {
			t.Errorf("%v: %s, want %s", score, got, want)
		}
	}
	if got := formatDistance(float32(math.Copysign(0, -1))); got != "0" {
		t.Errorf("-0: %s", got)
	}
}

// searchReply is the answer that the tests below write and read.
func searchReply(t testing.TB, options string) (*searchQuery, []row) {
	t.Helper()
	_, schemaOf := testSchema(t)
	args := append([][]byte{[]byte("idx"), []byte("*=>[KNN 10 @v $B AS dist]"), []byte("PARAMS"), []byte("2"), []byte("B"),
		[]byte(blob(1, 2))}, words(options)...)
	q, err := parseSearch(args, schemaOf)
	if err != nil {
		t.Fatal(err)
	}
	gone := hash("title", "removed", "body", "kept")
	gone.fields["title"] = register{at: 2, gone: true}
	return q, []row{
		{id: "doc:1", score: 0.25, doc: hash("title", "any\r\nbytes \xff", "body", "", "dist", "a field of that name")},
		{id: "doc:2", score: 1, doc: gone},
		{id: "3", score: 2},
	}
}

func TestSearchReply(t *testing.T) {
	any1 := map[string]any{"dist": "0.25", "title": "any\r\nbytes \xff", "body": ""}
	tests := []struct {
		options string
		fields  []any // of each document
	}{
		{"", []any{any1, map[string]any{"dist": "1", "body": "kept"}, nil}},
		{"NOCONTENT", nil},
		{"RETURN 0", nil},
		{"RETURN 3 title b dist", []any{any1WithB(any1), map[string]any{"dist": "1", "b": "kept"}, nil}},
		{"RETURN 6 dist AS d body AS text", []any{map[string]any{"d": "0.25", "text": ""},
			map[string]any{"d": "1", "text": "kept"}, nil}},
		{"RETURN 1 none", []any{map[string]any{}, map[string]any{}, nil}},
	}
	for _, test := range tests {
		q, page := searchReply(t, test.options)
		two, three := []any{int64(7)}, []any{}
		for i, r := range page {
			document := map[string]any{"id": r.id, "values": []any{}}
			two = append(two, r.id)
			if test.fields != nil {
				document["extra_attributes"] = test.fields[i]
				two = append(two, test.fields[i])
			}
			three = append(three, document)
		}

		w := &writer{proto: 2}
		w.search(q, 7, page, []string{"not for RESP2"})
		got, rest := readReply(t, w.bytes())
		if list, ok := got.([]any); ok && test.fields != nil {
			for i := 2; i < len(list); i += 2 {
				list[i] = pairs(list[i])
			}
		}
		if !reflect.DeepEqual(got, any(two)) || len(rest) > 0 {
			t.Errorf("%s, RESP2:\n got %q %q\nwant %q", test.options, got, rest, two)
		}

		w = &writer{proto: 3}
		w.search(q, 7, page, []string{"some is missing", "a\nb"})
		got, rest = readReply(t, w.bytes())
		want := map[string]any{"attributes": []any{}, "format": "STRING", "results": three, "total_results": int64(7),
			"warning": []any{"some is missing", "a b"}}
		if !reflect.DeepEqual(got, any(want)) || len(rest) > 0 {
			t.Errorf("%s, RESP3:\n got %q %q\nwant %q", test.options, got, rest, want)
		}
	}

	// A string has no fields. And of a text query there is no distance.
	_, schemaOf := testSchema(t)
	q, err := parseSearch(words("idx * RETURN 1 __v_score"), schemaOf)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{proto: 2}
	w.search(q, 2, []row{{id: "a", doc: document{text: register{at: 1}}}, {id: "b", doc: hash("n", "1")}}, nil)
	if got, want := string(w.bytes()), "*5\r\n:2\r\n$1\r\na\r\n$-1\r\n$1\r\nb\r\n*0\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if _, ok := q.request.Query.(scatter.Text); !ok {
		t.Errorf("%T", q.request.Query)
	}
}

// any1WithB is the first document with its body under the attribute's name.
func any1WithB(m map[string]any) map[string]any {
	m = maps.Clone(m)
	m["b"] = m["body"]
	delete(m, "body")
	return m
}

// pairs makes a map of names and values that take turns.
func pairs(reply any) any {
	list, ok := reply.([]any)
	if !ok {
		return reply
	}
	m := make(map[string]any)
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i].(string)] = list[i+1]
	}
	return m
}

// serve answers each FT command with the reply that is written for it, and returns the address.
func serve(t *testing.T, replies map[string]func(w *writer)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = redcon.Serve(ln, func(conn redcon.Conn, cmd redcon.Command) {
			w := &writer{proto: 2}
			if proto, ok := conn.Context().(int); ok {
				w.proto = proto
			}
			name := strings.ToUpper(string(cmd.Args[0]))
			switch reply, ok := replies[name]; {
			case name == "HELLO":
				w.proto, _ = strconv.Atoi(string(cmd.Args[1]))
				conn.SetContext(w.proto)
				w.mapOf(2)
				w.pair("version", "7.4.0")
				w.number("proto", int64(w.proto))
			case ok:
				reply(w)
			default:
				w.simple("OK")
			}
			conn.WriteRaw(w.bytes())
		}, nil, nil)
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// What is written is what the clients read, through their own types.
func TestClients(t *testing.T) {
	s, err := parseCreate(words("idx PREFIX 2 doc: item: LANGUAGE english SCORE 0.5 NOHL SCHEMA " +
		"v VECTOR HNSW 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC COSINE " +
		"flat AS f VECTOR FLAT 6 TYPE FLOAT32 DIM 3 DISTANCE_METRIC L2 " +
		"title TEXT WEIGHT 2 NOSTEM SORTABLE UNF tag TAG SEPARATOR ; WITHSUFFIXTRIE NOINDEX n NUMERIC SORTABLE"))
	if err != nil {
		t.Fatal(err)
	}
	q, page := searchReply(t, "")
	ids, _ := searchReply(t, "NOCONTENT")
	var searched *searchQuery
	addr := serve(t, map[string]func(w *writer){
		"FT.SEARCH":    func(w *writer) { w.search(searched, 7, page, []string{"some is missing"}) },
		"FT.INFO":      func(w *writer) { w.info(s, indexInfo{documents: 5, failures: 3}) },
		"FT._LIST":     func(w *writer) { w.list([]*schema{s, {Name: "other"}}) },
		"FT.CREATE":    func(w *writer) { w.err(errIndexExists) },
		"FT.DROPINDEX": func(w *writer) { w.simple("OK") },
	})
	ctx := context.Background()
	for _, proto := range []int{2, 3} {
		t.Run(fmt.Sprintf("go-redis, RESP%d", proto), func(t *testing.T) {
			client := redis.NewClient(&redis.Options{Addr: addr, Protocol: proto, MaxRetries: -1, DisableIdentity: true})
			defer client.Close()

			searched = q
			got, err := client.FTSearchWithArgs(ctx, "idx", "q", &redis.FTSearchOptions{}).Result()
			if err != nil || got.Total != 7 || len(got.Docs) != 3 {
				t.Fatalf("%+v, %v", got, err)
			}
			first := map[string]string{"dist": "0.25", "title": "any\r\nbytes \xff", "body": ""}
			if got.Docs[0].ID != "doc:1" || !maps.Equal(got.Docs[0].Fields, first) {
				t.Errorf("%+v", got.Docs[0])
			}
			if got.Docs[1].ID != "doc:2" || !maps.Equal(got.Docs[1].Fields, map[string]string{"dist": "1", "body": "kept"}) {
				t.Errorf("%+v", got.Docs[1])
			}
			if got.Docs[2].ID != "3" || len(got.Docs[2].Fields) > 0 || proto == 2 && !errors.Is(got.Docs[2].Error, redis.Nil) {
				t.Errorf("%+v", got.Docs[2])
			}
			if want := []string{"some is missing"}; proto == 3 && !slices.Equal(got.Warnings, want) {
				t.Errorf("warnings %q", got.Warnings)
			}

			searched = ids
			got, err = client.FTSearchWithArgs(ctx, "idx", "q", &redis.FTSearchOptions{NoContent: true}).Result()
			if err != nil || got.Total != 7 || len(got.Docs) != 3 || got.Docs[2].ID != "3" {
				t.Errorf("NOCONTENT: %+v, %v", got, err)
			}

			info, err := client.FTInfo(ctx, "idx").Result()
			if err != nil {
				t.Fatal(err)
			}
			definition := info.IndexDefinition
			if definition.KeyType != "HASH" || !slices.Equal(definition.Prefixes, []string{"doc:", "item:"}) ||
				proto == 3 && definition.DefaultScore != 0.5 { // in RESP2 go-redis looks for it by place, and a language is there
				t.Errorf("%+v", definition)
			}
			if info.IndexName != "idx" || info.NumDocs != 5 || info.HashIndexingFailures != 3 || info.PercentIndexed != 1 ||
				info.IndexErrors.IndexingFailures != 3 || !slices.Equal(info.IndexOptions, []string{"NOHL"}) {
				t.Errorf("%+v", info)
			}
			want := []redis.FTAttribute{
				{Identifier: "v", Attribute: "v", Type: "VECTOR", Algorithm: "HNSW", DataType: "FLOAT32", Dim: 2,
					DistanceMetric: "COSINE", M: 16, EFConstruction: 200},
				{Identifier: "flat", Attribute: "f", Type: "VECTOR", Algorithm: "FLAT", DataType: "FLOAT32", Dim: 3,
					DistanceMetric: "L2"},
				{Identifier: "title", Attribute: "title", Type: "TEXT", Weight: 2, Sortable: true, UNF: true, NoStem: true},
				{Identifier: "tag", Attribute: "tag", Type: "TAG", WithSuffixtrie: true, NoIndex: true},
				{Identifier: "n", Attribute: "n", Type: "NUMERIC", Sortable: true, UNF: true},
			}
			if !slices.Equal(info.Attributes, want) {
				t.Errorf("attributes:\n got %+v\nwant %+v", info.Attributes, want)
			}
			if list, err := client.FT_List(ctx).Result(); err != nil || !slices.Equal(list, []string{"idx", "other"}) {
				t.Errorf("%q, %v", list, err)
			}
			field := &redis.FieldSchema{FieldName: "t", FieldType: redis.SearchFieldTypeText}
			err = client.FTCreate(ctx, "idx", nil, field).Err()
			if err == nil || err.Error() != "Index already exists" {
				t.Error(err)
			}
			if ok, err := client.FTDropIndex(ctx, "idx").Result(); ok != "OK" || err != nil {
				t.Error(ok, err)
			}
		})
		t.Run(fmt.Sprintf("rueidis, RESP%d", proto), func(t *testing.T) {
			client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, AlwaysRESP2: proto == 2,
				DisableCache: true, DisableRetry: true, ForceSingleClient: true})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()

			searched = q
			total, docs, err := client.Do(ctx, client.B().FtSearch().Index("idx").Query("q").Build()).AsFtSearch()
			want := []rueidis.FtSearchDoc{
				{Key: "doc:1", Doc: map[string]string{"dist": "0.25", "title": "any\r\nbytes \xff", "body": ""}},
				{Key: "doc:2", Doc: map[string]string{"dist": "1", "body": "kept"}},
				{Key: "3"},
			}
			if err != nil || total != 7 || !reflect.DeepEqual(docs, want) {
				t.Errorf("%d %+v, %v", total, docs, err)
			}

			info, err := client.Do(ctx, client.B().FtInfo().Index("idx").Build()).AsMap()
			if err != nil || len(info) != 9 {
				t.Fatalf("%v, %v", info, err)
			}
			documents := info["num_docs"]
			if n, err := documents.AsInt64(); n != 5 || err != nil {
				t.Errorf("num_docs %d, %v", n, err)
			}
			list, err := client.Do(ctx, client.B().FtList().Build()).AsStrSlice()
			if err != nil || !slices.Equal(list, []string{"idx", "other"}) {
				t.Errorf("%q, %v", list, err)
			}
		})
	}
}
