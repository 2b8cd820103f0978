package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// words splits a command at blanks. ␣ stands for a blank in an argument.
func words(command string) [][]byte {
	var args [][]byte
	for _, word := range strings.Fields(command) {
		args = append(args, []byte(strings.ReplaceAll(word, "␣", " ")))
	}
	return args
}

// numbered returns the format n times, each with its number.
func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestParseCreate(t *testing.T) {
	text := func(name string, flags ...string) attribute {
		return attribute{Field: name, Name: name, Kind: textAttr, Flags: flags}
	}
	for command, want := range map[string]schema{
		"idx SCHEMA t TEXT":          {Attributes: []attribute{text("t")}},
		"idx schema t text sortable": {Attributes: []attribute{text("t", "SORTABLE")}},
		"idx ON HASH PREFIX 2 doc: item: nofreqs NOHL SCHEMA t TEXT": {
			Prefixes: []string{"doc:", "item:"}, Attributes: []attribute{text("t")}},
		"idx SCHEMA t TEXT NOSTEM WEIGHT 2.5 SORTABLE UNF NOINDEX": {
			Attributes: []attribute{text("t", "NOSTEM", "SORTABLE", "UNF", "NOINDEX")}},
		"idx SCHEMA a AS b TAG SEPARATOR ; CASESENSITIVE SORTABLE c TAG d NUMERIC SORTABLE weight NUMERIC": {
			Attributes: []attribute{
				{Field: "a", Name: "b", Kind: tagAttr, Separator: ";", CaseSensitive: true, Flags: []string{"SORTABLE"}},
				{Field: "c", Name: "c", Kind: tagAttr, Separator: ","},
				{Field: "d", Name: "d", Kind: numericAttr, Flags: []string{"SORTABLE"}},
				{Field: "weight", Name: "weight", Kind: numericAttr}}},
		"idx SCHEMA v VECTOR FLAT 6 TYPE FLOAT32 DIM 4 DISTANCE_METRIC L2 t TEXT": {
			Attributes: []attribute{{Field: "v", Name: "v", Kind: vectorAttr, Algorithm: "FLAT", Dim: 4, Metric: metricL2},
				text("t")}},
		"idx SCHEMA v AS w vector flat 10 distance_metric ip dim 32768 type float32 initial_cap 0 block_size 1": {
			Attributes: []attribute{
				{Field: "v", Name: "w", Kind: vectorAttr, Algorithm: "FLAT", Dim: 32768, Metric: metricIP}}},
		"idx SCHEMA v VECTOR HNSW 14 TYPE FLOAT32 DIM 4096 DISTANCE_METRIC COSINE M 8 EF_CONSTRUCTION 9 EF_RUNTIME 10 " +
			"EPSILON 0.1 INDEXMISSING": {
			Attributes: []attribute{{Field: "v", Name: "v", Kind: vectorAttr, Algorithm: "HNSW", Dim: 4096,
				Metric: metricCosine, Flags: []string{"INDEXMISSING"}}}},
	} {
		want.Name = "idx"
		if want.Prefixes == nil {
			want.Prefixes = []string{""}
		}
		got, err := parseCreate(words(command))
		require.NoError(t, err, command)
		require.Equal(t, want, *got, command)

		again, err := decodeSchema(got.encode())
		require.NoError(t, err, command)
		require.Equal(t, got, again)
	}
}

func TestParseCreateErrors(t *testing.T) {
	for command, want := range map[string]string{
		"":                           "ERR wrong number of arguments for 'FT.CREATE' command",
		"idx SCHEMA t":               "ERR wrong number of arguments for 'FT.CREATE' command",
		"idx t TEXT SCHEMA":          "Unknown argument `T`",
		"idx ON JSON SCHEMA t TEXT":  "Invalid rule type: JSON",
		"idx ON HASH PREFIX 1":       "Bad arguments for PREFIX: Expected an argument, but none provided",
		"idx ON HASH PREFIX 1 a":     "No schema found",
		"idx PREFIX 0 SCHEMA t TEXT": "Bad arguments for PREFIX: `0` is not an integer from 1 to 1024",
		"idx PREFIX 99999999999999999999 a SCHEMA t TEXT": "Bad arguments for PREFIX: `99999999999999999999` " +
			"is not an integer from 1 to 1024",
		"idx FILTER @a>1 SCHEMA t TEXT":                       "Unknown argument `FILTER`",
		"idx SKIPINITIALSCAN SCHEMA t TEXT":                   "Unknown argument `SKIPINITIALSCAN`",
		"idx STOPWORDS 0 SCHEMA t TEXT":                       "Unknown argument `STOPWORDS`",
		"idx ON HASH NOHL SCHEMA":                             "Fields arguments are missing",
		"idx SCHEMA t TEXT u":                                 "Field `u` does not have a type",
		"idx SCHEMA t AS u":                                   "Field `u` does not have a type",
		"idx SCHEMA u TEXT t AS":                              "Bad arguments for AS: Expected an argument, but none provided",
		"idx SCHEMA t GEO":                                    "Invalid field type for field `t`",
		"idx SCHEMA t TEXT PHONETIC dm:en":                    "Invalid field type for field `PHONETIC`",
		"idx SCHEMA t TEXT u AS t TAG":                        "Duplicate field in schema - t",
		"idx SCHEMA t TEXT WEIGHT x":                          "Bad arguments for WEIGHT: `x` is not a number from 0 on",
		"idx SCHEMA t TEXT WEIGHT NaN":                        "Bad arguments for WEIGHT: `NaN` is not a number from 0 on",
		"idx SCHEMA t TAG SEPARATOR ;;":                       "Tag separator must be a single character. Got `;;`",
		"idx SCHEMA" + numbered(" f%d TEXT", maxAttributes+1): "Schema is limited to 1024 fields",
		"idx SCHEMA" + numbered(" f%d VECTOR FLAT 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC L2", maxVectors+1): "Schema is " +
			"limited to 32 vector fields",
		"idx SCHEMA v VECTOR": "Bad arguments for keyword: Expected an argument, but none provided",
		"idx SCHEMA v VECTOR SVS-VAMANA 6": "Bad arguments for vector similarity algorithm: Unknown argument " +
			"`SVS-VAMANA`",
		"idx SCHEMA v VECTOR FLAT -2": "Bad arguments for vector similarity number of parameters: `-2` is not an " +
			"integer from 0 to 2147483647",
		"idx SCHEMA v VECTOR FLAT 5 TYPE FLOAT32 DIM 4 X": "Bad number of arguments for vector similarity index: got 5 " +
			"but expected even number",
		"idx SCHEMA v VECTOR FLAT 2147483646 TYPE FLOAT32": "Bad arguments for keyword: Expected an argument, " +
			"but none provided",
		"idx SCHEMA v VECTOR FLAT 2 TYPE FLOAT64": "Bad arguments for vector similarity TYPE: `FLOAT64`, only FLOAT32 " +
			"is supported",
		"idx SCHEMA v VECTOR HNSW 2 DISTANCE_METRIC L1": "Bad arguments for vector similarity DISTANCE_METRIC: Unknown " +
			"argument `L1`",
		"idx SCHEMA v VECTOR FLAT 2 EDGES 16": "Bad arguments for algorithm FLAT: EDGES",
		"idx SCHEMA v VECTOR FLAT 4 TYPE FLOAT32 DIM 4": "Missing mandatory parameter: cannot create FLAT index " +
			"without TYPE, DIM and DISTANCE_METRIC",
		"idx SCHEMA v VECTOR FLAT 6 DISTANCE_METRIC IP TYPE FLOAT32 DIM 32769": "Bad arguments for vector similarity " +
			"DIM: 32769 is not from 1 to 32768",
		"idx SCHEMA \xff TEXT": `Bad arguments for FT.CREATE: "\xff" is not UTF-8 or longer than 512 bytes`,
	} {
		_, err := parseCreate(words(command))
		require.EqualError(t, err, want, "%.100s", command)
	}
	for _, args := range [][][]byte{
		{[]byte("idx"), []byte("SCHEMA"), nil, []byte("TEXT")},
		{nil, []byte("SCHEMA"), []byte("t"), []byte("TEXT")},
	} {
		_, err := parseCreate(args)
		require.Error(t, err, "an empty name")
	}
}

func TestSchema(t *testing.T) {
	s, err := parseCreate(words("idx PREFIX 2 doc: item: SCHEMA title AS t TEXT a TAG b TAG SEPARATOR ; CASESENSITIVE"))
	require.NoError(t, err)
	for key, want := range map[string]bool{
		"doc:1": true, "item:": true, "item": false, "": false, "xdoc:1": false, "doc:\xff": false,
	} {
		require.Equal(t, want, s.holds(key), key)
	}
	require.Equal(t, "title", s.attribute("t").Field)
	require.Nil(t, s.attribute("title"), "an attribute is found by its name")

	require.Equal(t, []string{"red", "sky blue"}, s.attribute("a").tags([]byte(" Red,,sky BLUE , red\n")))
	require.Equal(t, []string{"Red,red"}, s.attribute("b").tags([]byte("Red,red; ;")))
	require.Empty(t, s.attribute("a").tags([]byte(" , ")))
	require.Equal(t, []string{"\xfe", "\xff"}, s.attribute("a").tags([]byte("\xff,\xfe")), "invalid bytes differ")
	for _, bad := range []string{
		"", "{", `{"Attributes":[{"Name":""}]}`, `{"Attributes":[{"Name":"v","Kind":"VECTOR"}]}`,
		`{"Attributes":[{"Name":"v","Kind":"VECTOR","Dim":-1,"Metric":"L2"}]}`,
		`{"Attributes":[{"Name":"t","Kind":"TAG"}]}`,
	} {
		_, err := decodeSchema([]byte(bad))
		require.Error(t, err, bad)
	}
}

func FuzzParseCreate(f *testing.F) {
	for _, seed := range []string{
		"idx SCHEMA t TEXT", "idx ON HASH PREFIX 2 a b NOHL SCHEMA t AS u TAG SEPARATOR ; SORTABLE UNF n NUMERIC",
		"i SCHEMA v VECTOR HNSW 8 TYPE FLOAT32 DIM 2 DISTANCE_METRIC COSINE M 5 w VECTOR FLAT 6 TYPE FLOAT32 DIM 1 " +
			"DISTANCE_METRIC IP",
	} {
		f.Add([]byte(strings.Join(strings.Fields(seed), "\x00")))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseCreate(split(data))
		if err != nil {
			return
		}
		again, err := decodeSchema(s.encode())
		require.NoError(t, err)
		require.Equal(t, s, again)
		require.NotEmpty(t, s.Prefixes)
		require.NotEmpty(t, s.Attributes)
		for _, proto := range []int{2, 3} {
			readAll(t, appendReply(nil, proto, s.info(proto, 1, 2)))
		}
	})
}
