package main

import (
	"hash/fnv"
	"math"
	"strings"
	"unicode"

	"github.com/scatterknn/scatter/examples/internal/corpus"
)

const dimensions = 256

// embedder turns texts into vectors of length 1, by their n-grams of three letters. The rarer an
// n-gram is, the more it counts. It takes the place of an embedding model.
type embedder struct {
	docs    int
	holders map[string]int // in how many documents an n-gram is
}

func newEmbedder(symbols []corpus.Symbol) *embedder {
	e := &embedder{docs: len(symbols), holders: make(map[string]int)}
	for _, s := range symbols {
		for gram := range grams(symbolText(s)) {
			e.holders[gram]++
		}
	}
	return e
}

// symbolText returns the text of which a symbol's vector is made.
func symbolText(s corpus.Symbol) string { return s.ID + " " + s.Summary }

func (e *embedder) vector(text string) []float32 {
	sums := make([]float64, dimensions) // of whole numbers, as the order of a map is random
	for gram := range grams(text) {
		h := fnv.New64a()
		h.Write([]byte(gram))
		hash := h.Sum64()
		weight := math.Round(1024 * math.Log(float64(1+e.docs)/float64(1+e.holders[gram])))
		if hash>>63 == 1 { // so that n-grams with the same dimension don't add up
			weight = -weight
		}
		sums[hash%dimensions] += weight
	}
	var square float64
	for _, x := range sums {
		square += x * x
	}
	vector := make([]float32, dimensions)
	for i, x := range sums {
		vector[i] = float32(x / max(math.Sqrt(square), 1))
	}
	return vector
}

// grams returns the n-grams of a text. The beginning and the end of a word count as letters.
func grams(text string) map[string]bool {
	all := make(map[string]bool)
	for _, word := range words(text) {
		marked := "^" + word + "$"
		for i := range len(marked) - 2 {
			all[marked[i:i+3]] = true
		}
	}
	return all
}

func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}
