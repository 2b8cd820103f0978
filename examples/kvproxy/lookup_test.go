package main

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
)

// compareSearch compares one random search.
func (o *oracle) compareSearch(t testing.TB, x *index, s *schema, random *rand.Rand) {
	var f *filter
	if random.IntN(3) > 0 {
		f = randomFilter(random, 3)
	}
	req := &scatter.Request{Table: s.Name, K: 1 + random.IntN(12)}
	var want []scatter.Hit[string]
	switch kind := random.IntN(4); {
	case kind < 2 && s.Name != "none":
		q := scatter.KNN{Field: "vec", Vector: []float32{float32(random.IntN(5)), float32(1 + random.IntN(3))}}
		req.Query, want = q, o.knn(s, q, f)
	case kind < 3:
		req.Query, want = scatter.Text{}, o.matching(s, f, func(document) bool { return true })
	default:
		q := scatter.Regex{Field: "text", Pattern: []string{"a", "^a.*t$", "T[e-]xt", "^$", "tezt", "zzz"}[random.IntN(6)]}
		re := regexp.MustCompile(q.Pattern)
		match := func(doc document) bool {
			text, ok := doc.fields["t"]
			return ok && re.Match(text)
		}
		if regexp.QuoteMeta(q.Pattern) == q.Pattern && random.IntN(2) == 0 {
			q.MaxErrors = uint16(1 + random.IntN(3))
			match = func(doc document) bool {
				text, ok := doc.fields["t"]
				return ok && fewestEdits(string(text), q.Pattern) <= int(q.MaxErrors)
			}
		}
		req.Query, want = q, o.matching(s, f, match)
	}
	want = want[:min(req.K, len(want))]
	got, err := x.searchNow(context.Background(), req, f)
	require.NoError(t, err)
	require.Len(t, got, len(want), "%+v %+v\n%q\n%q", req, f, got, want)
	for i := range got {
		require.Equal(t, want[i].ID, got[i].ID, "%+v\n%q\n%q", req, got, want)
		if d := math.Abs(float64(got[i].Score - want[i].Score)); got[i].Score != want[i].Score && !(d <= 1e-6*(1+math.Abs(float64(want[i].Score)))) {
			t.Fatalf("%+v: %q has the score %v, want %v", req, got[i].ID, got[i].Score, want[i].Score)
		}
	}
}

func (o *oracle) knn(s *schema, q scatter.KNN, f *filter) (hits []scatter.Hit[string]) {
	at := s.attribute(q.Field)
	for _, key := range o.in(s) {
		doc := o.docs[key]
		v := at.vectorIn(doc)
		if v == nil || !s.passes(f, doc) {
			continue
		}
		var dot, l2, aa, bb float64
		for i := range v {
			a, b := float64(v[i]), float64(q.Vector[i])
			dot, aa, bb, l2 = dot+a*b, aa+a*a, bb+b*b, l2+(a-b)*(a-b)
		}
		score := map[metric]float64{metricL2: l2, metricIP: 1 - dot, metricCosine: 1 - dot/math.Sqrt(aa)/math.Sqrt(bb)}
		hits = append(hits, scatter.Hit[string]{ID: key, Score: float32(score[at.Metric])})
	}
	slices.SortFunc(hits, func(a, b scatter.Hit[string]) int {
		if a.Score == b.Score || math.Abs(float64(a.Score-b.Score)) < 1e-6 {
			return strings.Compare(a.ID, b.ID)
		}
		return cmp.Compare(a.Score, b.Score)
	})
	return hits
}

func (o *oracle) matching(s *schema, f *filter, match func(document) bool) (hits []scatter.Hit[string]) {
	for _, key := range o.in(s) {
		if doc := o.docs[key]; match(doc) && s.passes(f, doc) {
			hits = append(hits, scatter.Hit[string]{ID: key})
		}
	}
	return hits
}

// passes reports whether a filter lets a document pass.
func (s *schema) passes(f *filter, doc document) bool {
	passes := func(f filter) bool { return s.passes(&f, doc) }
	switch {
	case f == nil:
		return true
	case len(f.And) > 0:
		return !slices.ContainsFunc(f.And, func(f filter) bool { return !passes(f) })
	case len(f.Or) > 0:
		return slices.ContainsFunc(f.Or, passes)
	case f.Not != nil:
		return !passes(*f.Not)
	}
	at := s.attribute(f.Attribute)
	value, ok := doc.fields[at.Field]
	switch {
	case !ok:
		return false
	case f.Tags != nil:
		tags := at.tags(value)
		return slices.ContainsFunc(f.Tags, func(tag []byte) bool { return slices.Contains(tags, string(tag)) })
	case f.Range != nil:
		n, ok := number(value)
		low, high := math.Inf(-1), math.Inf(1)
		if f.Range.Min != nil {
			low = *f.Range.Min
		}
		if f.Range.Max != nil {
			high = *f.Range.Max
		}
		open := f.Range.MinOpen && f.Range.Min != nil && n == low || f.Range.MaxOpen && f.Range.Max != nil && n == high
		return ok && n >= low && n <= high && !open
	}
	return bytes.Contains(value, f.Text)
}

func randomFilter(random *rand.Rand, depth int) *filter {
	f := new(filter)
	kind := random.IntN(6)
	if depth == 0 {
		kind = 3 + random.IntN(3)
	}
	switch kind {
	case 0, 1:
		var parts []filter
		for range 1 + random.IntN(3) {
			parts = append(parts, *randomFilter(random, depth-1))
		}
		if kind == 0 {
			f.And = parts
		} else {
			f.Or = parts
		}
	case 2:
		f.Not = randomFilter(random, depth-1)
	case 3:
		f.Attribute, f.Text = "text", []byte([]string{"a", "Text", "\xff", "\x00", "ä"}[random.IntN(5)])
	case 4:
		f.Attribute = []string{"tag", "Tag"}[random.IntN(2)]
		for range 1 + random.IntN(3) {
			f.Tags = append(f.Tags, []byte([]string{"x", "y", "z", "a", "\x00", "\x01", "\x02", "\xff", ",", "X, z"}[random.IntN(10)]))
		}
	default:
		f.Attribute, f.Range = "number", &numberRange{MinOpen: random.IntN(2) == 0, MaxOpen: random.IntN(2) == 0}
		bound := func() *float64 {
			if random.IntN(4) == 0 {
				return nil
			}
			return &[]float64{1, 2, 2.5, 3, -1e300, 0}[random.IntN(6)]
		}
		f.Range.Min, f.Range.Max = bound(), bound()
	}
	return f
}

// fewestEdits returns how many edits make some part of a text the pattern.
func fewestEdits(text, pattern string) int {
	p := []rune(pattern)
	best := len(p)
	row := make([]int, len(p)+1)
	for i := range row {
		row[i] = i
	}
	for _, c := range text {
		next := make([]int, len(p)+1)
		for i := 1; i <= len(p); i++ {
			next[i] = min(row[i], next[i-1]) + 1
			if same := row[i-1]; p[i-1] == c {
				next[i] = min(next[i], same)
			} else {
				next[i] = min(next[i], same+1)
			}
		}
		row, best = next, min(best, next[len(p)])
	}
	return best
}

// TestContainsAbout compares the search for a text with errors with a plain computation.
func TestContainsAbout(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	word := func(n int) string {
		var b []rune
		for range random.IntN(n) {
			b = append(b, []rune("abä")[random.IntN(3)])
		}
		return string(b)
	}
	for range 20_000 {
		text, pattern := word(20), word(8)
		for most := 1; most < 5; most++ {
			want := fewestEdits(text, pattern) <= most
			require.Equal(t, want, containsAbout(t.Context(), []byte(text), []rune(pattern), most), "%q %q %d", text, pattern, most)
		}
	}
}

// TestLookupTies has many documents at the same distance: those with the smallest keys are hits.
func TestLookupTies(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	log := new(testLog)
	log.ring("me")
	for _, s := range testSchemas() {
		log.define(s)
	}
	for range 3000 {
		log.set("a"+string(rune('a'+random.IntN(20_000))), hash("v", string(blob(1, float32(1+random.IntN(2)))), "n", "1"))
	}
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	log.follow(t, x, random)
	o := &oracle{docs: log.docs(x.topology())}
	for _, s := range testSchemas()[:3] {
		for _, k := range []int{1, 10, 1000, maxHits + 1} {
			for _, f := range []*filter{nil, {Attribute: "number", Range: new(numberRange)}, {Attribute: "text", Text: []byte("x")}} {
				q := scatter.KNN{Field: "vec", Vector: []float32{1, 1}}
				want := o.knn(s, q, f)
				got, err := x.searchNow(t.Context(), &scatter.Request{Table: s.Name, Query: q, K: k}, f)
				require.NoError(t, err)
				require.Len(t, got, min(k, len(want)))
				for i := range got {
					require.Equal(t, want[i].ID, got[i].ID)
				}
			}
		}
	}
}

type unknownQuery struct{ counting }

// TestLookupErrors asks for what there isn't.
func TestLookupErrors(t *testing.T) {
	log := new(testLog)
	log.ring("me")
	log.define(testSchemas()[0])
	log.define(testSchemas()[1])
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	log.follow(t, x, rand.New(rand.NewPCG(1, 2)))
	one := []float32{1, 1}
	for _, c := range []struct {
		table string
		query scatter.Query
		k     int
		f     *filter
		err   string
	}{
		{"l2", scatter.Text{}, 0, nil, "a search for 0 hits, must be 1 to 10001"},
		{"l2", scatter.Text{}, maxHits + 2, nil, "a search for 10002 hits, must be 1 to 10001"},
		{"no", scatter.Text{}, 1, nil, `no such index: "no"`},
		{"l2", scatter.Text{Field: "text"}, 1, nil, `a Text with the field "text", must be a filter`},
		{"l2", unknownQuery{}, 1, nil, "a query of an unknown kind: main.unknownQuery"},
		{"l2", scatter.KNN{Field: "no", Vector: one}, 1, nil, `no field "no" in index "l2"`},
		{"l2", scatter.KNN{Field: "text", Vector: one}, 1, nil, `field "text" of index "l2" is TEXT [], must be VECTOR and indexed`},
		{"l2", scatter.KNN{Field: "vec", Vector: one[:1]}, 1, nil, `a query vector of 1 dimensions for field "vec", must be 2`},
		{"l2", scatter.KNN{Field: "vec", Vector: []float32{1, float32(math.NaN())}}, 1, nil, "the query vector is not finite"},
		{"cos", scatter.KNN{Field: "vec", Vector: []float32{0, 0}}, 1, nil, "all zeros"},
		{"l2", scatter.Regex{Field: "text", Pattern: "("}, 1, nil, "pattern: error parsing regexp"},
		{"l2", scatter.Regex{Field: "text", Pattern: "a*", MaxErrors: 1}, 1, nil, `the pattern "a*" has operators`},
		{"l2", scatter.Regex{Field: "text", Pattern: strings.Repeat("a", 1001)}, 1, nil, "a pattern of 1001 bytes, must be at most 1000"},
		{"l2", scatter.Regex{Field: "tag", Pattern: "a"}, 1, nil, "is TAG"},
		{"l2", scatter.Text{}, 1, &filter{Attribute: "hidden", Range: new(numberRange)}, "is NUMERIC [NOINDEX]"},
		{"l2", scatter.Text{}, 1, &filter{Not: &filter{Attribute: "text", Tags: [][]byte{{}}}}, "is TEXT"},
		{"l2", scatter.Text{}, 1, &filter{Or: []filter{{Attribute: "tag", Text: []byte("a")}}}, "is TAG"},
	} {
		_, err := x.searchNow(t.Context(), &scatter.Request{Table: c.table, Query: c.query, K: c.k}, c.f)
		require.ErrorContains(t, err, c.err)
		require.ErrorIs(t, err, scatter.ErrPermanent)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := x.searchNow(ended, &scatter.Request{Table: "l2", Query: scatter.Text{}, K: 1}, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, x.wait(ended, positions{meta: 100}), context.Canceled)
}

// TestLookupWhileWriting searches while another goroutine applies. A search finds at least what
// wait has promised.
func TestLookupWhileWriting(t *testing.T) {
	log := new(testLog)
	log.ring("me")
	log.define(testSchemas()[0])
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	log.follow(t, x, rand.New(rand.NewPCG(1, 2)))
	const writes = 200
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for seq := uint64(1); seq <= writes; seq += 7 {
				var fence positions
				fence[3] = seq
				if err := x.wait(t.Context(), fence); err != nil {
					t.Error(err)
				}
				q := scatter.KNN{Field: "vec", Vector: []float32{0, 0}}
				hits, err := x.searchNow(t.Context(), &scatter.Request{Table: "l2", Query: q, K: writes}, nil)
				if err != nil || len(hits) < int(seq) {
					t.Errorf("%d hits, want at least %d: %v", len(hits), seq, err)
				}
			}
		})
	}
	for seq := uint64(1); seq <= writes; seq++ {
		body := hash("v", string(blob(1, float32(seq)))).encode()
		var whole [streams]bool
		whole[3] = true
		e := entry{stream: 3, seq: seq, key: string(rune('a' + seq)), body: body}
		require.NoError(t, x.apply(t.Context(), []entry{e}, whole))
	}
	all.Wait()
}

// TestLookupInterrupted ends the context of a search that takes long.
func TestLookupInterrupted(t *testing.T) {
	log := new(testLog)
	log.ring("me")
	log.define(testSchemas()[0])
	for i := range 50 {
		log.set("key"+string(rune('a'+i)), hash("t", strings.Repeat("a", 1_000_000)))
	}
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	log.follow(t, x, rand.New(rand.NewPCG(1, 2)))
	for _, q := range []scatter.Regex{
		{Field: "text", Pattern: "(a?){200}b"},
		{Field: "text", Pattern: strings.Repeat("ab", 500), MaxErrors: 64},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		begun := time.Now()
		_, err := x.searchNow(ctx, &scatter.Request{Table: "l2", Query: q, K: 10}, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(begun), 20*time.Second)
		cancel()
	}
}
