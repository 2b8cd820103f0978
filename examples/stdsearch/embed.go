package main

import (
	"hash/fnv"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"unicode"

	"github.com/scatterknn/scatter/examples/internal/corpus"
	"golang.org/x/sync/errgroup"
)

const (
	dimensions = 512  // of a vector; features share them, so fewer would mean more noise
	slots      = 4    // dimensions for each feature, so that no two features have all in common
	gramLength = 3    // characters in an n-gram
	gramWeight = 0.5  // of an n-gram, if the word that it is part of weighs 1
	bodyWeight = 0.05 // of a word that occurs only after the first sentence of a comment
)

// embedder turns text into vectors: TF-IDF over words and character n-grams, hashed into a fixed
// number of dimensions and normalized to length 1. It takes the place of an embedding model, which
// would know that "uppercase" is close to "ToUpper". The search doesn't depend on where its vectors
// come from.
//
// It never changes and is safe for concurrent use.
type embedder struct {
	idf     map[uint64]float32 // how rare a feature is in the corpus
	unknown float32            // the idf of a feature that isn't in the corpus
}

// features is the weight of each feature of a text, by the feature's hash.
type features map[uint64]float32

func newEmbedder(symbols []corpus.Symbol) *embedder {
	holders := make(map[uint64]int) // the number of symbols that have a feature
	for _, s := range symbols {
		for feature := range symbolFeatures(s) {
			holders[feature]++
		}
	}
	rarity := func(n int) float32 { return float32(math.Log(float64(1+len(symbols)) / float64(1+n))) }
	e := &embedder{idf: make(map[uint64]float32, len(holders)), unknown: rarity(0)}
	for feature, n := range holders {
		e.idf[feature] = rarity(n)
	}
	return e
}

// symbol returns the vector of a document.
func (e *embedder) symbol(s corpus.Symbol) []float32 { return e.vector(symbolFeatures(s)) }

// symbols returns the vectors of documents.
func (e *embedder) symbols(symbols []corpus.Symbol) [][]float32 {
	vectors := make([][]float32, len(symbols))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range symbols {
		group.Go(func() error {
			vectors[i] = e.symbol(s)
			return nil
		})
	}
	group.Wait()
	return vectors
}

// query returns the vector of a user's words.
func (e *embedder) query(text string) []float32 {
	f := make(features)
	f.add(text, 1)
	return e.vector(f)
}

func symbolFeatures(s corpus.Symbol) features {
	pkg, name := splitID(s.ID)
	f := make(features)
	f.add(pkg, 1)
	f.add(name, 1)
	f.add(s.Summary, 1)
	f.add(s.Doc, bodyWeight)
	return f
}

// splitID cuts a symbol's ID after the import path, whose last element has no dot.
func splitID(id string) (pkg, name string) {
	slash := strings.LastIndexByte(id, '/') + 1
	last, name, _ := strings.Cut(id[slash:], ".")
	return id[:slash] + last, name
}

// add adds the words of a text and their n-grams. A word counts once for each text.
func (f features) add(text string, weight float32) {
	seen := make(map[string]bool)
	for _, word := range words(text) {
		if seen[word] {
			continue
		}
		seen[word] = true
		f[hash(stem(word))] += weight
		if len(word) < gramLength {
			continue
		}
		marked := "^" + word + "$" // so that the beginning of a word differs from its middle
		for i := range len(marked) - gramLength + 1 {
			f[hash("gram "+marked[i:i+gramLength])] += weight * gramWeight
		}
	}
}

func hash(feature string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(feature))
	return h.Sum64()
}

// vector hashes weighted features into a vector of length 1. Half of a feature's slots are
// negative, on average, so that collisions cancel out instead of adding up.
func (e *embedder) vector(f features) []float32 {
	v := make([]float32, dimensions)
	for _, feature := range slices.Sorted(maps.Keys(f)) { // Rounding depends on the order.
		idf, ok := e.idf[feature]
		if !ok {
			idf = e.unknown
		}
		w := f[feature] * idf
		for range slots {
			feature = scramble(feature)
			if feature>>63 == 0 {
				v[feature%dimensions] += w
			} else {
				v[feature%dimensions] -= w
			}
		}
	}

	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	if square > 0 {
		length := float32(math.Sqrt(square))
		for i := range v {
			v[i] /= length
		}
	}
	return v
}

// scramble is the finalizer of SplitMix64.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// words returns the words of a text in lower case. It splits identifiers and leaves out stop words.
func words(text string) []string {
	var found []string
	separates := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	for run := range strings.FieldsFuncSeq(text, separates) {
		for _, part := range splitCamelCase(run) {
			if word := strings.ToLower(part); !stopWords[word] {
				found = append(found, word)
			}
		}
	}
	return found
}

// splitCamelCase cuts before each capital that begins a word: "NewJSONReader" is "New", "JSON" and
// "Reader".
func splitCamelCase(identifier string) []string {
	var parts []string
	runes := []rune(identifier)
	start := 0
	for i := 1; i < len(runes); i++ {
		endsLower := !unicode.IsUpper(runes[i-1])
		beginsWord := i+1 < len(runes) && unicode.IsLower(runes[i+1])
		if unicode.IsUpper(runes[i]) && (endsLower || beginsWord) {
			parts = append(parts, string(runes[start:i]))
			start = i
		}
	}
	return append(parts, string(runes[start:]))
}

// stem cuts off one ending, so that "reads", "reading" and "reader" all become "read". It is crude,
// but the same for documents and queries.
func stem(word string) string {
	for _, ending := range []string{"ing", "ies", "es", "ed", "er", "or", "s", "e", "ion", "y"} {
		if rest, ok := strings.CutSuffix(word, ending); ok && len(rest) >= 3 {
			return rest
		}
	}
	return word
}

var stopWords = wordSet(`a an and are as at be been but by can do does for from given has have how i if in into is it its
	may must no not of on or return returns so such than that the their then there these they this to was what when where
	which will with you`)

func wordSet(list string) map[string]bool {
	set := make(map[string]bool)
	for word := range strings.FieldsSeq(list) {
		set[word] = true
	}
	return set
}
