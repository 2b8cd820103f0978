package main

import (
	"math"
	"slices"
	"testing"

	"github.com/scatterknn/scatter/examples/internal/corpus"
	"github.com/scatterknn/scatter/examples/internal/demotest"
)

func TestWords(t *testing.T) {
	tests := []struct {
		text string
		want []string
	}{
		{"Read a ZIP archive.", []string{"read", "zip", "archive"}},
		{"NewJSONReader", []string{"new", "json", "reader"}},
		{"net/http.(*Client).Do", []string{"net", "http", "client"}}, // "do" is a stop word
		{"sha256, utf8", []string{"sha256", "utf8"}},
		{"Größe ÄnderungX", []string{"größe", "änderung", "x"}},
		{"the of -- !", nil},
		{"", nil},
	}
	for _, tt := range tests {
		if got := words(tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("words(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestStemJoinsForms(t *testing.T) {
	for _, forms := range [][]string{
		{"read", "reads", "reader", "reading"},
		{"parse", "parses", "parsed", "parsing"},
		{"duration", "durations"},
	} {
		for _, form := range forms {
			if stem(stem(form)) != stem(stem(forms[0])) {
				t.Errorf("stem(%q) = %q, want as stem(%q) = %q", form, stem(form), forms[0], stem(forms[0]))
			}
		}
	}
	for _, short := range []string{"go", "is", "ed", "ring"} {
		if stem(short) != short {
			t.Errorf("stem(%q) = %q, want it whole", short, stem(short))
		}
	}
}

func TestVectorsHaveLengthOne(t *testing.T) {
	symbols, e := smallCorpus(t)
	for _, s := range symbols {
		v := e.symbol(s)
		if length := squaredL2(v, make([]float32, dimensions)); math.Abs(length-1) > 1e-5 {
			t.Fatalf("%s: length of the vector = %v, want 1", s.ID, length)
		}
	}
	if length := squaredL2(e.query("unheardof word"), make([]float32, dimensions)); math.Abs(length-1) > 1e-5 {
		t.Errorf("unknown words: length of the vector = %v, want 1", length)
	}
}

func TestVectorsAreReproducible(t *testing.T) {
	symbols, e := smallCorpus(t)
	other := newEmbedder(symbols)
	for _, s := range symbols {
		if !slices.Equal(e.symbol(s), other.symbol(s)) {
			t.Fatalf("%s: two vectors of the same symbol differ", s.ID)
		}
	}
}

func TestObviousQueriesFindObviousSymbols(t *testing.T) {
	symbols, e := smallCorpus(t)
	var vectors [][]float32
	for _, s := range symbols {
		vectors = append(vectors, e.symbol(s))
	}
	for query, want := range map[string]string{
		"read a zip archive":        "archive/zip.OpenReader",
		"parse a duration":          "time.ParseDuration",
		"sort a slice":              "sort.Slice",
		"atomic compare and swap":   "sync/atomic.CompareAndSwapInt64",
		"split string by separator": "strings.Split",
		"uppercase":                 "strings.ToUpper", // only their n-grams are alike
	} {
		v := e.query(query)
		wanted := slices.IndexFunc(symbols, func(s corpus.Symbol) bool { return s.ID == want })
		nearer := 0
		for _, vector := range vectors {
			if squaredL2(v, vector) < squaredL2(v, vectors[wanted]) {
				nearer++
			}
		}
		if nearer >= 10 {
			t.Errorf("%q: %d symbols are nearer than %s, want it among the first 10", query, nearer, want)
		}
	}
}

func smallCorpus(t *testing.T) ([]corpus.Symbol, *embedder) {
	t.Helper()
	symbols, err := corpus.Read(t.Context(), demotest.SmallGoRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	return symbols, newEmbedder(symbols)
}
