package main

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// words splits a command as redis-cli would, but for quotes: there are none; ␣ stands for a blank in an argument.
func words(command string) [][]byte {
	var args [][]byte
	for _, word := range strings.Fields(command) {
		args = append(args, []byte(strings.ReplaceAll(word, "␣", " ")))
	}
	return args
}

func TestParseCreate(t *testing.T) {
	text := func(name string, flags ...string) attribute {
		return attribute{Field: name, Name: name, Kind: textAttr, Weight: 1, Flags: flags}
	}
	tests := []struct {
		command string
		want    schema
	}{
		{"idx SCHEMA t TEXT", schema{Attributes: []attribute{text("t")}}},
		{"idx schema t text sortable", schema{Attributes: []attribute{text("t", "SORTABLE")}}},
		{"idx ON HASH PREFIX 2 doc: item: SCHEMA t TEXT", schema{
			Prefixes: []string{"doc:", "item:"}, Attributes: []attribute{text("t")}}},
		{"idx on hash language german language_field l score 0.5 score_field s payload_field p nofreqs NOHL " +
			"stopwords 2 a b MAXTEXTFIELDS NOOFFSETS NOFIELDS SCHEMA t TEXT", schema{
			Language: "german", Score: 0.5, Options: []string{"NOFREQS", "NOHL", "MAXTEXTFIELDS", "NOOFFSETS", "NOFIELDS"},
			Attributes: []attribute{text("t")}}},
		{"idx STOPWORDS 0 SCHEMA t TEXT", schema{Attributes: []attribute{text("t")}}},
		{"idx SCHEMA t TEXT WITHSUFFIXTRIE NOSTEM WEIGHT 2.5 PHONETIC dm:en INDEXEMPTY SORTABLE UNF NOINDEX", schema{
			Attributes: []attribute{{Field: "t", Name: "t", Kind: textAttr, Weight: 2.5,
				Flags: []string{"SORTABLE", "UNF", "NOSTEM", "NOINDEX", "WITHSUFFIXTRIE", "INDEXEMPTY"}}}}},
		{"idx SCHEMA a AS b TAG SEPARATOR ; CASESENSITIVE SORTABLE c TAG d NUMERIC SORTABLE SORTABLE weight NUMERIC", schema{
			Attributes: []attribute{
				{Field: "a", Name: "b", Kind: tagAttr, Separator: ";", Flags: []string{"CASESENSITIVE", "SORTABLE", "UNF"}},
				{Field: "c", Name: "c", Kind: tagAttr, Separator: ","},
				{Field: "d", Name: "d", Kind: numericAttr, Flags: []string{"SORTABLE", "UNF"}},
				{Field: "weight", Name: "weight", Kind: numericAttr}}}},
		{"idx SCHEMA v VECTOR FLAT 6 TYPE FLOAT32 DIM 4 DISTANCE_METRIC L2 t TEXT", schema{
			Attributes: []attribute{{Field: "v", Name: "v", Kind: vectorAttr, Algorithm: "FLAT", Dim: 4, Metric: metricL2},
				text("t")}}},
		{"idx SCHEMA v AS w vector flat 10 distance_metric ip dim 32768 type float32 initial_cap 0 block_size 1", schema{
			Attributes: []attribute{
				{Field: "v", Name: "w", Kind: vectorAttr, Algorithm: "FLAT", Dim: 32768, Metric: metricIP}}}},
		{"idx SCHEMA v VECTOR HNSW 6 TYPE FLOAT32 DIM 4 DISTANCE_METRIC COSINE INDEXMISSING", schema{
			Attributes: []attribute{{Field: "v", Name: "v", Kind: vectorAttr, Algorithm: "HNSW", Dim: 4, Metric: metricCosine,
				M: 16, EFConstruction: 200, Flags: []string{"INDEXMISSING"}}}}},
		{"idx SCHEMA v VECTOR HNSW 16 TYPE FLOAT32 DIM 4 DISTANCE_METRIC COSINE M 8 EF_CONSTRUCTION 9 EF_RUNTIME 10 " +
			"EPSILON 0.1 INITIAL_CAP 5", schema{
			Attributes: []attribute{{Field: "v", Name: "v", Kind: vectorAttr, Algorithm: "HNSW", Dim: 4, Metric: metricCosine,
				M: 8, EFConstruction: 9}}}},
	}
	for _, test := range tests {
		want := test.want
		want.Name = "idx"
		if want.Prefixes == nil {
			want.Prefixes = []string{""}
		}
		if want.Score == 0 {
			want.Score = 1
		}
		got, err := parseCreate(words(test.command))
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", test.command, got, err, want)
		}
	}
}

func TestParseCreateErrors(t *testing.T) {
	many := &strings.Builder{}
	for i := range maxAttributes + 1 {
		fmt.Fprintf(many, " f%d TEXT", i)
	}
	tests := []struct{ command, want string }{
		{"", "ERR wrong number of arguments for 'FT.CREATE' command"},
		{"idx SCHEMA t", "ERR wrong number of arguments for 'FT.CREATE' command"},
		{"idx t TEXT SCHEMA", "Unknown argument `t`"},
		{"idx ON JSON SCHEMA t TEXT", "Invalid rule type: JSON"},
		{"idx ON HASH PREFIX 1", "Bad arguments for PREFIX: Expected an argument, but none provided"},
		{"idx ON HASH PREFIX 1 a", "No schema found"},
		{"idx PREFIX 0 SCHEMA t TEXT", "Bad arguments for PREFIX: Value is outside acceptable bounds"},
		{"idx PREFIX 99999999999999999999 a SCHEMA t TEXT", "Bad arguments for PREFIX: Value is outside acceptable bounds"},
		{"idx PREFIX two a SCHEMA t TEXT", "Bad arguments for PREFIX: Could not convert argument to expected type"},
		{"idx SCORE 1.5 SCHEMA t TEXT", "Invalid score"},
		{"idx SCORE NaN SCHEMA t TEXT", "Bad arguments for SCORE: Value is outside acceptable bounds"},
		{"idx SCORE 1e999 SCHEMA t TEXT", "Bad arguments for SCORE: Value is outside acceptable bounds"},
		{"idx FILTER @a>1 SCHEMA t TEXT", "Unknown argument `FILTER`"},
		{"idx TEMPORARY 10 SCHEMA t TEXT", "Unknown argument `TEMPORARY`"},
		{"idx SKIPINITIALSCAN SCHEMA t TEXT", "Unknown argument `SKIPINITIALSCAN`"},
		{"idx ON HASH NOHL SCHEMA", "Fields arguments are missing"},
		{"idx SCHEMA t TEXT u", "Field `u` does not have a type"},
		{"idx SCHEMA t AS u", "Field `u` does not have a type"},
		{"idx SCHEMA u TEXT t AS", "Bad arguments for AS: Expected an argument, but none provided"},
		{"idx SCHEMA t GEO", "Invalid field type for field `t`"},
		{"idx SCHEMA t TEXT SORTABLE WEIGHT 2", "Invalid field type for field `WEIGHT`"},
		{"idx SCHEMA t TEXT SORTABLE NOSTEM", "Field `NOSTEM` does not have a type"},
		{"idx SCHEMA t TEXT u AS t TAG", "Duplicate field in schema - t"},
		{"idx SCHEMA t TEXT WEIGHT x", "Bad arguments for weight: Could not convert argument to expected type"},
		{"idx SCHEMA t TAG SEPARATOR ;;", "Tag separator must be a single character. Got `;;`"},
		{"idx SCHEMA t TAG SEPARATOR", "Bad arguments for SEPARATOR: Expected an argument, but none provided"},
		{"idx SCHEMA" + many.String(), "Schema is limited to 1024 fields"},
		{"idx SCHEMA v VECTOR", "Bad arguments for vector similarity algorithm: Expected an argument, but none provided"},
		{"idx SCHEMA v VECTOR SVS-VAMANA 6", "Bad arguments for vector similarity algorithm: Unknown argument"},
		{"idx SCHEMA v VECTOR FLAT", "Bad arguments for vector similarity number of parameters: Expected an argument, " +
			"but none provided"},
		{"idx SCHEMA v VECTOR FLAT -2", "Bad arguments for vector similarity number of parameters: Value is outside " +
			"acceptable bounds"},
		{"idx SCHEMA v VECTOR FLAT 5 TYPE FLOAT32 DIM 4 X", "Bad number of arguments for vector similarity index: got 5 " +
			"but expected even number as algorithm parameters (should be submitted as named arguments)"},
		{"idx SCHEMA v VECTOR FLAT 2147483646 TYPE FLOAT32", "Expected 2147483646 parameters but got 2"},
		{"idx SCHEMA v VECTOR FLAT 2 TYPE FLOAT64", "Bad arguments for vector similarity FLAT index `TYPE`: Unknown " +
			"argument `FLOAT64`, only FLOAT32 is supported"},
		{"idx SCHEMA v VECTOR HNSW 2 DIM 0", "Bad arguments for vector similarity HNSW index `DIM`: Value is outside " +
			"acceptable bounds"},
		{"idx SCHEMA v VECTOR HNSW 2 DIM 32769", "Bad arguments for vector similarity HNSW index `DIM`: Value is " +
			"outside acceptable bounds"},
		{"idx SCHEMA v VECTOR HNSW 2 DISTANCE_METRIC L1", "Bad arguments for vector similarity HNSW index " +
			"`DISTANCE_METRIC`: Unknown argument `L1`"},
		{"idx SCHEMA v VECTOR HNSW 2 M", "Bad arguments for vector similarity HNSW index `M`: Expected an argument, " +
			"but none provided"},
		{"idx SCHEMA v VECTOR FLAT 2 M 16", "Bad arguments for algorithm FLAT: M"},
		{"idx SCHEMA v VECTOR FLAT 4 TYPE FLOAT32 DIM 4", "Missing mandatory parameter: cannot create FLAT index " +
			"without specifying DISTANCE_METRIC argument"},
		{"idx SCHEMA v VECTOR FLAT 0", "Missing mandatory parameter: cannot create FLAT index without specifying TYPE " +
			"argument"},
		{"idx SCHEMA \xff TEXT", `Bad arguments for FT.CREATE: "\xff" is not UTF-8`},
	}
	for _, test := range tests {
		if _, err := parseCreate(words(test.command)); err == nil || err.Error() != test.want {
			t.Errorf("%.100s:\n got %v\nwant %s", test.command, err, test.want)
		}
	}
	if _, err := parseCreate([][]byte{[]byte("idx"), []byte("SCHEMA"), nil, []byte("TEXT")}); err == nil {
		t.Error("a field without a name: no error")
	}
}

func TestParseDrop(t *testing.T) {
	for command, want := range map[string]string{
		"idx":       "idx false <nil>",
		"idx dd":    "idx true <nil>",
		"":          " false ERR wrong number of arguments for 'FT.DROPINDEX' command",
		"idx DD DD": " false ERR wrong number of arguments for 'FT.DROPINDEX' command",
		"idx XX":    " false Unknown argument",
	} {
		index, documents, err := parseDrop(words(command))
		if got := fmt.Sprint(index, " ", documents, " ", err); got != want {
			t.Errorf("%s: got %s, want %s", command, got, want)
		}
	}
}

func TestSchema(t *testing.T) {
	s, err := parseCreate(words("idx PREFIX 2 doc: item: SCHEMA title AS t TEXT"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"doc:1": true, "item:": true, "item": false, "": false, "xdoc:1": false} {
		if s.holds(key) != want {
			t.Errorf("holds(%q) = %v", key, !want)
		}
	}
	if at, ok := s.attribute("t"); !ok || at.Field != "title" {
		t.Errorf("attribute t: %v, %v", at, ok)
	}
	if _, ok := s.attribute("title"); ok {
		t.Error("an attribute is found by its field")
	}
	if all, err := parseCreate(words("idx SCHEMA t TEXT")); err != nil || !all.holds("anything") || !all.holds("") {
		t.Errorf("without PREFIX: %v", err)
	}
	for _, bad := range []string{
		"", "{", `{"Attributes":[{}]}`, `{"Attributes":[{"Name":"v","Kind":"VECTOR","Dim":-1,"Metric":"L2"}]}`,
		`{"Attributes":[{"Name":"v","Kind":"VECTOR","Dim":2,"Metric":"L1"}]}`,
	} {
		if s, err := decodeSchema([]byte(bad)); err == nil {
			t.Errorf("decoded %s as %+v", bad, s)
		}
	}
}

// allocated returns how many bytes do allocates.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestClaimedCountsCostNothing(t *testing.T) {
	s, schemaOf := testSchema(t)
	for _, command := range []string{
		"idx PREFIX 1024 a", "idx STOPWORDS 2147483647 a b", "idx SCHEMA v VECTOR HNSW 2147483646 TYPE FLOAT32",
	} {
		if n := allocated(func() { _, _ = parseCreate(words(command)) }); n > 1<<20 {
			t.Errorf("%s: %d bytes", command, n)
		}
	}
	for _, command := range []string{
		s.Name + " * PARAMS 2147483646 a b", s.Name + " * RETURN 2147483647 a", s.Name + " * LIMIT 1000000 1000000",
		s.Name + " *=>[KNN␣10000␣@v␣$b]",
	} {
		if n := allocated(func() { _, _ = parseSearch(words(command), schemaOf) }); n > 1<<20 {
			t.Errorf("%s: %d bytes", command, n)
		}
	}
}

// split makes arguments of a fuzzer's bytes.
func split(data []byte) [][]byte {
	var args [][]byte
	for arg := range strings.SplitSeq(string(data), "\x00") {
		args = append(args, []byte(arg))
	}
	return args
}

func FuzzParseCreate(f *testing.F) {
	for _, command := range []string{
		"idx SCHEMA t TEXT", "idx ON HASH PREFIX 2 a b LANGUAGE x SCORE 0.5 STOPWORDS 1 a NOHL SCHEMA a AS b TAG SEPARATOR ;",
		"idx SCHEMA v VECTOR FLAT 6 TYPE FLOAT32 DIM 4 DISTANCE_METRIC L2 n NUMERIC SORTABLE",
		"idx SCHEMA v VECTOR HNSW 16 TYPE FLOAT32 DIM 4 DISTANCE_METRIC IP M 8 EF_CONSTRUCTION 9 EF_RUNTIME 9 EPSILON 1 " +
			"INITIAL_CAP 5 t TEXT WEIGHT 2 NOSTEM PHONETIC dm:en",
	} {
		f.Add([]byte(strings.Join(strings.Fields(command), "\x00")))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseCreate(split(data))
		if err != nil {
			return
		}
		if again, err := decodeSchema(s.encode()); err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("decoded %+v, %v\n  from %+v", again, err, s)
		}
		names := make(map[string]bool)
		for _, at := range s.Attributes {
			if names[at.Name] || at.Name == "" {
				t.Fatalf("attribute %q", at.Name)
			}
			names[at.Name] = true
			if at.Kind == vectorAttr && (at.Dim < 1 || at.Dim > maxDim || at.Metric == "" || at.Algorithm == "") {
				t.Fatalf("%+v", at)
			}
		}
		if len(s.Prefixes) == 0 || len(s.Prefixes) > maxPrefixes || len(names) == 0 || len(names) > maxAttributes {
			t.Fatalf("%d prefixes, %d attributes", len(s.Prefixes), len(names))
		}
		for _, proto := range []int{2, 3} {
			w := &writer{proto: proto}
			w.info(s, indexInfo{})
			w.list([]*schema{s})
			if rest := skipReplies(t, w.bytes(), 2); len(rest) > 0 {
				t.Fatalf("bytes after the replies: %q", rest)
			}
		}
	})
}
