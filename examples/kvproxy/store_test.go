package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/scatterknn/scatter"
)

// newTestStore opens a store, which is closed and looked over when the test ends.
func newTestStore(t testing.TB, dir string) *store {
	t.Helper()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustApply(t testing.TB, s *store, changes ...change) {
	t.Helper()
	if err := s.apply(context.Background(), changes); err != nil {
		t.Fatal(err)
	}
}

// blobOf is a vector as a field of a document has it.
func blobOf(v ...float32) []byte {
	b := []byte{}
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// vectorIn is blobOf's opposite; nil: it isn't a vector of so many finite numbers.
func vectorIn(b []byte, dim int) []float32 {
	if len(b) != 4*dim {
		return nil
	}
	v := make([]float32, dim)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		if x := float64(v[i]); math.IsNaN(x) || math.IsInf(x, 0) {
			return nil
		}
	}
	return v
}

func hashOf(at version, fields ...any) document {
	doc := document{fields: make(map[string]register)}
	for i := 0; i < len(fields); i += 2 {
		value, ok := fields[i+1].([]byte)
		if !ok {
			value = []byte(fields[i+1].(string))
		}
		doc.fields[fields[i].(string)] = register{at: at, value: value}
	}
	return doc
}

func defined(at version, s *schema) change {
	return change{indexKey(s.Name), document{text: register{at: at, value: s.encode()}}}
}

// distance is what a search should find, as precisely as can be; ok is false if there is none.
func distance(m metric, a, b []float32) (d float64, ok bool) {
	var dot, aa, bb, l2 float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		dot, aa, bb, l2 = dot+x*y, aa+x*x, bb+y*y, l2+(x-y)*(x-y)
	}
	switch m {
	case metricL2:
		return l2, true
	case metricIP:
		return 1 - dot, true
	}
	return 1 - dot/math.Sqrt(aa)/math.Sqrt(bb), aa > 0 && bb > 0
}

func byScore(a, b scatter.Hit[string]) int {
	return cmp.Or(cmp.Compare(a.Score, b.Score), strings.Compare(a.ID, b.ID))
}

// oracle is a store that is easy to believe: it searches by looking at everything.
type oracle struct {
	docs  map[string]document
	order []string // keys, by their last change
}

func (o *oracle) apply(changes []change) {
	for _, c := range changes {
		old := o.docs[c.key]
		now := old
		now.fields = maps.Clone(old.fields)
		now.merge(c.doc)
		if bytes.Equal(old.encode(), now.encode()) {
			continue
		}
		o.docs[c.key] = now
		o.order = append(slices.DeleteFunc(o.order, func(key string) bool { return key == c.key }), c.key)
	}
}

func (o *oracle) schemas() (all []*schema) {
	for _, key := range slices.Sorted(maps.Keys(o.docs)) {
		if doc := o.docs[key]; key[0] == schemaKey && doc.kind() == stringKey {
			s, err := decodeSchema(doc.text.value)
			if err != nil {
				panic(err)
			}
			all = append(all, s)
		}
	}
	return all
}

// in lists the keys of the documents in an index.
func (o *oracle) in(s *schema) (keys []string) {
	for key, doc := range o.docs {
		if key[0] == clientKey && s.holds(key[1:]) && doc.kind() == hashKey {
			keys = append(keys, key[1:])
		}
	}
	slices.Sort(keys)
	return keys
}

func (o *oracle) stats() (stats storeStats) {
	for key, doc := range o.docs {
		if key[0] == clientKey && doc.kind() != noKey {
			stats.documents++
		}
	}
	for _, s := range o.schemas() {
		for _, key := range o.in(s) {
			stats.indexed++
			doc := o.docs[string(clientKey)+key]
			for _, at := range s.Attributes {
				if value, ok := doc.field(at.Field); ok && at.Kind == vectorAttr {
					v := vectorIn(value, at.Dim)
					if _, ok := distance(at.Metric, v, v); v == nil || !ok {
						stats.failures++
					}
				}
			}
		}
	}
	return stats
}

func (o *oracle) latest() (latest version) {
	for _, doc := range o.docs {
		latest = max(latest, doc.latest())
	}
	return latest
}

// knn returns all hits, the nearest first.
func (o *oracle) knn(s *schema, at attribute, q []float32) (hits []scatter.Hit[string]) {
	for _, key := range o.in(s) {
		doc := o.docs[string(clientKey)+key]
		value, _ := doc.field(at.Field)
		if v := vectorIn(value, at.Dim); v != nil {
			if d, ok := distance(at.Metric, v, q); ok {
				hits = append(hits, scatter.Hit[string]{ID: key, Score: float32(d)})
			}
		}
	}
	slices.SortFunc(hits, byScore)
	return hits
}

func (o *oracle) texts(s *schema, at attribute, match func([]byte) bool) (hits []scatter.Hit[string]) {
	for _, key := range o.in(s) {
		doc := o.docs[string(clientKey)+key]
		if text, ok := doc.field(at.Field); ok && match(text) {
			hits = append(hits, scatter.Hit[string]{ID: key})
		}
	}
	return hits
}

// check compares the whole of a store.
func (o *oracle) check(t *testing.T, s *store) {
	t.Helper()
	ctx := context.Background()
	keys := append(slices.Clone(o.order), "dnowhere", "inowhere")
	docs, err := s.get(ctx, keys)
	if err != nil {
		t.Fatal(err)
	}
	sums, err := s.sums(ctx, keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		want := o.docs[key]
		var sum uint64
		if _, ok := o.docs[key]; ok {
			sum = digest(want.encode())
		}
		if !bytes.Equal(docs[i].encode(), want.encode()) || sums[i] != sum {
			t.Fatalf("%q is %+v with digest %x, want %+v with %x", key, docs[i], sums[i], want, sum)
		}
	}
	var order []string
	for seq, more := int64(0), true; more; {
		var page []stamp
		if page, seq, more, err = s.since(ctx, seq, 7, func(string) bool { return true }); err != nil || len(page) > 7 {
			t.Fatal(page, err)
		}
		for _, st := range page {
			order = append(order, st.key)
		}
	}
	if !slices.Equal(order, o.order) {
		t.Fatalf("changed were %q, want %q", order, o.order)
	}
	var schemas, want []string
	for _, sch := range s.schemas() {
		schemas = append(schemas, string(sch.encode()))
	}
	for _, sch := range o.schemas() {
		want = append(want, string(sch.encode()))
		if got, ok := s.schema(sch.Name); !ok || !bytes.Equal(got.encode(), sch.encode()) {
			t.Fatalf("schema %q: %+v", sch.Name, got)
		}
		var keys []string
		if err := s.each(ctx, sch.Name, func(key string) { keys = append(keys, key) }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(keys, o.in(sch)) {
			t.Fatalf("index %q has %q, want %q", sch.Name, keys, o.in(sch))
		}
	}
	if !slices.Equal(schemas, want) {
		t.Fatalf("schemas %q, want %q", schemas, want)
	}
	if s.stats() != o.stats() {
		t.Fatalf("%+v, want %+v", s.stats(), o.stats())
	}
	if s.latest() != o.latest() {
		t.Fatalf("latest version %d, want %d", s.latest(), o.latest())
	}
	err = s.read(ctx, s.readers, func(c *conn) error {
		return c.each(func(row *sqlite3.Stmt) bool { // looks into vec1's tables, too
			if got := row.ColumnText(0); got != "ok" {
				t.Error("integrity check:", got)
			}
			return true
		}, `PRAGMA integrity_check`)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever is done to a store, it has the documents, lists the changes and finds what it should.
func TestStoreAgainstOracle(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			testStoreAgainstOracle(t, rand.New(rand.NewPCG(seed, 5)), 1200)
		})
	}
}

func testStoreAgainstOracle(t *testing.T, r *rand.Rand, steps int) {
	ctx := context.Background()
	dir := t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.close() }()
	epoch, name := s.epoch(), s.name()
	o := &oracle{docs: make(map[string]document)}
	at := version(1)

	// Vectors of few small numbers: many are equally near, and all sums are exact but for COSINE.
	vector := func(dim int) []float32 {
		v := make([]float32, dim)
		for i := range v {
			v[i] = float32(r.IntN(5) - 2)
		}
		return v
	}
	text := func() []byte {
		b := make([]byte, r.IntN(8))
		for i := range b {
			b[i] = "abcäö\x00\xff"[r.IntN(9)]
		}
		return b
	}
	value := func() []byte {
		switch r.IntN(10) {
		case 0:
			return blobOf(1, float32(math.NaN()))
		case 1:
			return blobOf(float32(math.Inf(1)), 1, 1)
		case 2, 3:
			return text()
		}
		return blobOf(vector(2 + r.IntN(2))...)
	}
	newSchema := func() *schema {
		sch := &schema{Name: []string{"a", "b", "ä"}[r.IntN(3)]}
		for range 1 + r.IntN(2) {
			sch.Prefixes = append(sch.Prefixes, []string{"", "x", "xy", "y"}[r.IntN(4)])
		}
		for i := range 1 + r.IntN(4) {
			a := attribute{Field: []string{"f", "g"}[r.IntN(2)], Name: fmt.Sprint("n", i)}
			switch r.IntN(8) {
			case 0:
				a.Kind = tagAttr
			case 1:
				a.Kind, a.Flags = textAttr, []string{"NOINDEX"}
			case 2, 3:
				a.Kind = textAttr
			default:
				a.Kind, a.Dim = vectorAttr, 2+r.IntN(2)
				a.Metric = []metric{metricL2, metricCosine, metricIP}[r.IntN(3)]
			}
			sch.Attributes = append(sch.Attributes, a)
		}
		return sch
	}
	oneChange := func() change {
		at += version(r.IntN(2))
		v := at
		if r.IntN(5) == 0 { // one that comes late
			v = max(1, at-version(r.IntN(50)))
		}
		if r.IntN(60) == 0 {
			if r.IntN(4) == 0 {
				return change{indexKey([]string{"a", "b", "ä"}[r.IntN(3)]), document{cleared: v}}
			}
			c := defined(v, newSchema())
			c.doc.cleared = v
			return c
		}
		key := userKey([]byte{"xyz"[r.IntN(3)], "xyz"[r.IntN(3)], byte('0' + r.IntN(8))})
		switch r.IntN(12) {
		case 0:
			return change{key, document{cleared: v}}
		case 1:
			return change{key, document{cleared: v, text: register{at: v, value: value()}}}
		}
		doc := document{fields: make(map[string]register)}
		for range 1 + r.IntN(2) {
			doc.fields[[]string{"f", "g", "h"}[r.IntN(3)]] = register{at: v, gone: r.IntN(8) == 0, value: value()}
		}
		return change{key, doc}
	}

	wanted := func(key string) bool { return key[len(key)-1]%2 == 0 }
	follower, followed := make(map[string]uint64), int64(0)

	for range steps {
		switch p := r.IntN(100); {
		case p < 60:
			changes := make([]change, r.IntN(4))
			for i := range changes {
				changes[i] = oneChange()
			}
			if r.IntN(20) == 0 { // one of them is bad: none of them counts
				bad := change{indexKey("a"), document{text: register{at: at + 1000, value: []byte("{")}}}
				if err := s.apply(ctx, append(changes, bad)); err == nil {
					t.Fatal("a bad schema was taken")
				}
				continue
			}
			if err := s.apply(ctx, changes); err != nil {
				t.Fatal(err)
			}
			o.apply(changes)

		case p < 70: // another node that follows
			for more := true; more; {
				page, next, m, err := s.since(ctx, followed, 1+r.IntN(20), wanted)
				if err != nil {
					t.Fatal(err)
				}
				for _, st := range page {
					if !wanted(st.key) {
						t.Fatalf("%q isn't wanted", st.key)
					}
					follower[st.key] = st.sum
				}
				if followed, more = next, m; more && r.IntN(4) == 0 { // something changes meanwhile
					c := oneChange()
					if err := s.apply(ctx, []change{c}); err != nil {
						t.Fatal(err)
					}
					o.apply([]change{c})
				}
			}
			for key, doc := range o.docs {
				if wanted(key) && follower[key] != digest(doc.encode()) {
					t.Fatalf("%q was missed", key)
				}
			}
			if page, _, _, err := s.since(ctx, followed, 1, wanted); len(page) > 0 || err != nil {
				t.Fatal(page, err)
			}

		case p < 97:
			schemas := o.schemas()
			if len(schemas) == 0 {
				continue
			}
			sch := schemas[r.IntN(len(schemas))]
			a := sch.Attributes[r.IntN(len(sch.Attributes))]
			req := &scatter.Request{Table: sch.Name, K: 1 + r.IntN(30)}
			var want []scatter.Hit[string]
			switch {
			case r.IntN(6) == 0:
				req.Query = scatter.Text{}
				for _, key := range o.in(sch) {
					want = append(want, scatter.Hit[string]{ID: key})
				}
			case a.Kind == vectorAttr:
				q := vector(a.Dim)
				req.Query = scatter.KNN{Field: a.Name, Vector: q}
				want = o.knn(sch, a, q)
				if d, ok := distance(a.Metric, q, q); !ok {
					if _, err := s.search(ctx, req); err == nil {
						t.Fatalf("a query without a direction is taken: %v", d)
					}
					continue
				}
			case a.Kind == textAttr && !a.has("NOINDEX"):
				part := text()
				part = part[:min(len(part), 2)]
				if r.IntN(2) == 0 {
					req.Query = scatter.Text{Field: a.Name, Substring: part}
					want = o.texts(sch, a, func(b []byte) bool { return bytes.Contains(b, part) })
				} else {
					re := regexp.MustCompile(`(?:a|ö)+[^b]$`)
					req.Query = scatter.Regex{Field: a.Name, Pattern: re.String()}
					want = o.texts(sch, a, re.Match)
				}
			default:
				continue
			}
			got, err := s.search(ctx, req)
			if err != nil {
				t.Fatalf("%+v of %+v: %v", req, sch, err)
			}
			sameHits(t, fmt.Sprintf("%+v of %+v", req, a), got, want, req.K, a.Metric == metricCosine)

		case p < 99:
			o.check(t, s)
		default:
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			if s, err = openStore(dir); err != nil {
				t.Fatal(err)
			}
			if s.epoch() != epoch || s.name() != name {
				t.Fatalf("the store was %x %s and is %x %s", epoch, name, s.epoch(), s.name())
			}
			o.check(t, s)
		}
	}
	o.check(t, s)
}

// sameHits compares hits with the first k of those that there should be. Where scores can't be exact, two that differ
// by no more than that may have changed places.
func sameHits(t *testing.T, what string, got, want []scatter.Hit[string], k int, about bool) {
	t.Helper()
	all := want
	want = want[:min(k, len(want))]
	if !about {
		if !slices.Equal(got, want) {
			t.Fatalf("%s:\n got %v\nwant %v", what, got, want)
		}
		return
	}
	const off = 1e-6
	scores := make(map[string]float32)
	for _, h := range all {
		scores[h.ID] = h.Score
	}
	bad := len(got) != len(want) || !slices.IsSortedFunc(got, byScore)
	for i, h := range got {
		score, ok := scores[h.ID]
		delete(scores, h.ID)
		bad = bad || !ok || math.Abs(float64(h.Score-score)) > off || math.Abs(float64(h.Score-want[i].Score)) > off
	}
	if bad {
		t.Fatalf("%s:\n got %v\nwant about %v", what, got, want)
	}
}

// Of many documents that are equally near the first ones by ID are found, whatever numbers their vectors are of.
func TestNearestAmongEquals(t *testing.T) {
	s := newTestStore(t, t.TempDir())
	sch := &schema{Name: "i", Prefixes: []string{""}}
	docs := make([]document, 500)
	numbers := []float32{1, 3, 1e-44, 1e-20, 1e20, 3e38, -3e38}
	for n, x := range numbers {
		field := fmt.Sprint("v", n)
		for _, m := range []metric{metricL2, metricCosine, metricIP} {
			sch.Attributes = append(sch.Attributes, attribute{
				Field: field, Name: fmt.Sprint(m, n), Kind: vectorAttr, Dim: 2, Metric: m,
			})
		}
		for i := range docs {
			v := blobOf(x, x)
			if i%7 == 0 {
				v = blobOf(-x, x)
			}
			docs[i].merge(hashOf(2, field, v))
		}
	}
	changes := []change{defined(1, sch)}
	for i, doc := range docs {
		changes = append(changes, change{fmt.Sprintf("d%03d", i*77%500), doc})
	}
	mustApply(t, s, changes...)
	o := &oracle{docs: make(map[string]document)}
	o.apply(changes)
	for n, at := range sch.Attributes {
		x := numbers[n/3]
		for _, q := range [][]float32{{x, x}, {x, -x}, {1, 0}, {3e38, -1e38}} {
			want := o.knn(sch, at, q)
			for _, k := range []int{1, 72, 428, 500, maxHits} {
				knn := scatter.KNN{Field: at.Name, Vector: q}
				hits, err := s.search(t.Context(), &scatter.Request{Table: "i", K: k, Query: knn})
				if err != nil || len(hits) != min(k, len(docs)) || !slices.IsSortedFunc(hits, byScore) {
					t.Fatal(hits, err)
				}
				if at.Metric == metricL2 && want[len(want)-1].Score > 1e38 {
					continue // at float32's limit it may be rounded earlier
				}
				sameHits(t, fmt.Sprintf("%s %v %v", at.Name, x, q), hits, want, k, at.Metric == metricCosine)
			}
		}
	}
}

// Random vectors of many dimensions: the nearest are those that they should be.
func TestNearest(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	s := newTestStore(t, t.TempDir())
	sch := &schema{Name: "i", Prefixes: []string{""}}
	const dim = 33
	for _, m := range []metric{metricL2, metricCosine, metricIP} {
		at := attribute{Field: "v", Name: string(m), Kind: vectorAttr, Dim: dim, Metric: m}
		sch.Attributes = append(sch.Attributes, at)
	}
	mustApply(t, s, defined(1, sch))
	vector := func() []float32 {
		v := make([]float32, dim)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	o := &oracle{docs: make(map[string]document)}
	for range 5 {
		var changes []change
		for range 500 { // some of them change vectors that there are
			doc := hashOf(2+version(r.IntN(9)), "v", blobOf(vector()...))
			changes = append(changes, change{fmt.Sprint("d", r.IntN(1500)), doc})
		}
		mustApply(t, s, changes...)
		o.apply(changes)
		for range 20 {
			q := vector()
			for _, at := range sch.Attributes {
				knn := scatter.KNN{Field: at.Name, Vector: q}
				hits, err := s.search(t.Context(), &scatter.Request{Table: "i", K: 20, Query: knn})
				if err != nil {
					t.Fatal(err)
				}
				want := o.knn(sch, at, q)
				for i, h := range hits {
					off := math.Abs(float64(h.Score - want[i].Score))
					if h.ID != want[i].ID || off > 1e-6*max(1, math.Abs(float64(h.Score))) {
						t.Fatalf("%s: hit %d is %v, want %v", at.Name, i, h, want[i])
					}
				}
			}
		}
	}
}

func TestSearchErrors(t *testing.T) {
	s := newTestStore(t, t.TempDir())
	mustApply(t, s, defined(1, &schema{Name: "i", Prefixes: []string{""}, Attributes: []attribute{
		{Field: "v", Name: "v", Kind: vectorAttr, Dim: 2, Metric: metricL2},
		{Field: "c", Name: "c", Kind: vectorAttr, Dim: 2, Metric: metricCosine},
		{Field: "t", Name: "t", Kind: textAttr}, {Field: "g", Name: "g", Kind: tagAttr},
		{Field: "t", Name: "silent", Kind: textAttr, Flags: []string{"NOINDEX"}},
	}}))
	two, nan := []float32{1, 2}, []float32{1, float32(math.NaN())}
	const directionless = "a query vector that isn't finite or, for COSINE, is all zeros"
	for _, test := range []struct {
		table string
		k     int
		query scatter.Query
		want  string
	}{
		{"j", 1, scatter.Text{}, `no such index: "j"`},
		{"", 1, scatter.Text{}, `no such index: ""`},
		{"i", 0, scatter.Text{}, "a search for 0 hits; it must be from 1 to 10000"},
		{"i", 10_001, scatter.KNN{Field: "v", Vector: two}, "a search for 10001 hits; it must be from 1 to 10000"},
		{"i", 1, scatter.KNN{Field: "w", Vector: two}, `no field "w" in index "i"`},
		{"i", 1, scatter.KNN{Field: "t", Vector: two}, `field "t" of index "i" is TEXT, not VECTOR`},
		{"i", 1, scatter.KNN{Field: "v", Vector: two[:1]}, `a query vector of 1 dimensions for field "v", which has 2`},
		{"i", 1, scatter.KNN{Field: "v"}, `a query vector of 0 dimensions for field "v", which has 2`},
		{"i", 1, scatter.KNN{Field: "v", Vector: nan}, directionless},
		{"i", 1, scatter.KNN{Field: "c", Vector: []float32{0, 0}}, directionless},
		{"i", 1, scatter.Text{Field: "v", Substring: []byte("x")}, `field "v" of index "i" is VECTOR, not TEXT`},
		{"i", 1, scatter.Text{Field: "g", Substring: []byte("x")}, `field "g" of index "i" is TAG, not TEXT`},
		{"i", 1, scatter.Text{Substring: []byte("x")}, `no field "" in index "i"`},
		{"i", 1, scatter.Text{Field: "silent", Substring: []byte("x")}, `field "silent" of index "i" is NOINDEX`},
		{"i", 1, scatter.Regex{Field: "t", Pattern: "("}, "pattern: error parsing regexp: missing closing ): `(`"},
		{"i", 1, scatter.Regex{Field: "t", Pattern: "a.b", MaxErrors: 1},
			`with errors only a plain text can be looked for, not a pattern with operators: "a.b"`},
		{"i", 1, scatter.Regex{Field: "t", Pattern: strings.Repeat("a", 1001)},
			"a pattern of 1001 bytes, more than 1000"},
		{"i", 1, scatter.Regex{Field: "u", Pattern: "a"}, `no field "u" in index "i"`},
		{"i", 1, nil, "a query of a kind that isn't known: <nil>"},
	} {
		hits, err := s.search(t.Context(), &scatter.Request{Table: test.table, K: test.k, Query: test.query})
		if err == nil || err.Error() != test.want {
			t.Errorf("%+v in %q: %v, %v, want %s", test.query, test.table, hits, err, test.want)
		}
	}
	if err := s.each(t.Context(), "j", nil); err == nil || err.Error() != `no such index: "j"` {
		t.Error(err)
	}
}

func TestApplyErrors(t *testing.T) {
	s := newTestStore(t, t.TempDir())
	doc := hashOf(1, "f", "v")
	str := func(value string) document { return document{text: register{at: 1, value: []byte(value)}} }
	at := attribute{Field: "v", Name: "v", Kind: vectorAttr, Metric: metricL2}
	many := slices.Repeat([]attribute{{Field: "v", Name: "v", Kind: vectorAttr, Dim: 1, Metric: metricL2}}, 33)
	for _, test := range []struct {
		change change
		want   string
	}{
		{change{"", doc}, `write "": no such kind of key`},
		{change{"x", doc}, `write "x": no such kind of key`},
		{change{"d" + strings.Repeat("k", maxKey), doc}, "the key has 4097 bytes, more than 4096"},
		{change{"dk", hashOf(1, "f", make([]byte, maxDocument))}, "bytes, more than 62914560"},
		{change{"ia", str("?")}, `write "ia": decode schema: invalid character`},
		{change{"ia", document{text: register{at: 1}}}, `write "ia": decode schema: unexpected end`},
		{change{"ia", defined(1, &schema{Name: "b"}).doc}, `write "ia": the schema is that of index "b"`},
		{defined(1, &schema{Name: "a", Attributes: []attribute{at}}), `attribute "v" is invalid`},
		{defined(1, &schema{Name: "a", Attributes: many}), "more than 32 vector fields"},
	} {
		err := s.apply(t.Context(), []change{{"dgood", doc}, test.change})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.20q: %v, want %s", test.change.key, err, test.want)
		}
	}
	(&oracle{}).check(t, s) // nothing is there
}

// Calls of apply that come at the same time share transactions, but not their errors.
func TestApplyAtTheSameTime(t *testing.T) {
	s := newTestStore(t, t.TempDir())
	at := attribute{Field: "v", Name: "v", Kind: vectorAttr, Dim: 2, Metric: metricL2}
	mustApply(t, s, defined(1, &schema{Name: "i", Prefixes: []string{""}, Attributes: []attribute{at}}))
	o := &oracle{docs: make(map[string]document)}
	o.apply([]change{defined(1, &schema{Name: "i", Prefixes: []string{""}, Attributes: []attribute{at}})})

	hold, held := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.write(context.Background(), func(*batch) error {
			if !first.Swap(true) {
				close(held)
				<-hold
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-held // now calls queue up
	impatient, giveUp := context.WithCancelCause(context.Background())
	why := errors.New("no patience")
	var mu sync.Mutex
	queued := make(chan error, 300)
	for i := range 300 {
		key := fmt.Sprintf("d%03d", i%200) // two for some
		good := change{key, hashOf(version(1+i/200), "v", blobOf(float32(i), 0))}
		wg.Go(func() {
			var err error
			switch i % 5 {
			case 0:
				err = s.apply(context.Background(), []change{good, {"x", good.doc}})
				if err == nil {
					t.Error("a bad key was taken")
				}
			case 1:
				err = s.apply(impatient, []change{good})
				if err != why {
					t.Error(err)
				}
			default:
				if err := s.apply(context.Background(), []change{good}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				o.apply([]change{good})
				mu.Unlock()
				err = nil
			}
			queued <- err
		})
	}
	giveUp(why)
	for range 60 { // those that have given up don't wait for the writer
		if err := <-queued; err != why {
			t.Fatal(err)
		}
	}
	close(hold)
	wg.Wait()
	page, _, _, err := s.since(t.Context(), 0, 1000, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	o.order = nil // any
	for _, st := range page {
		o.order = append(o.order, st.key)
	}
	if len(o.order) != len(o.docs) {
		t.Errorf("%d documents, want %d", len(o.order), len(o.docs))
	}
	o.check(t, s)
}

// Readers see the last whole transaction while the writer is at the next one.
func TestReadersDontWaitForTheWriter(t *testing.T) {
	s := newTestStore(t, t.TempDir())
	at := attribute{Field: "t", Name: "t", Kind: textAttr}
	sch := &schema{Name: "i", Prefixes: []string{""}, Attributes: []attribute{at}}
	mustApply(t, s, defined(1, sch), change{"dk", hashOf(1, "t", "old")})
	o := &oracle{docs: make(map[string]document)}
	o.apply([]change{defined(1, sch), {"dk", hashOf(1, "t", "old")}})
	hold, held := make(chan struct{}), make(chan struct{})
	changes := []change{{"dk", hashOf(2, "t", "new")}, {"dl", hashOf(2, "t", "new")}, {"ij", document{cleared: 5}}}
	done := make(chan error)
	go func() {
		done <- s.write(context.Background(), func(b *batch) error {
			for _, c := range changes {
				if err := b.change(c.key, &c.doc); err != nil {
					return err
				}
			}
			close(held)
			<-hold
			return nil
		})
	}()
	<-held
	search := func() string {
		regex := scatter.Regex{Field: "t", Pattern: "new|old"}
		hits, err := s.search(t.Context(), &scatter.Request{Table: "i", K: 9, Query: regex})
		return fmt.Sprint(hits, err)
	}
	docs, err := s.get(t.Context(), []string{"dk", "dl"})
	if err != nil || string(docs[0].fields["t"].value) != "old" || docs[1].kind() != noKey || s.stats() != o.stats() {
		t.Error(docs, err, s.stats())
	}
	if got := search(); got != "[{k 0}] <nil>" {
		t.Error(got)
	}
	close(hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := search(); got != "[{k 0} {l 0}] <nil>" {
		t.Error(got)
	}
	o.apply(changes)
	o.check(t, s)

	// What one call reads is from one transaction, whatever is written meanwhile.
	err = s.read(t.Context(), s.readers, func(c *conn) error {
		for range 3 {
			_, body, err := c.stored("dk")
			if doc := o.docs["dk"]; err != nil || !bytes.Equal(body, doc.encode()) {
				t.Errorf("%x, %v", body, err)
			}
			mustApply(t, s, change{"dk", hashOf(3, "t", "newer")})
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// untilAsked is a context that is over once it was asked for its error so often.
type untilAsked struct {
	context.Context
	times atomic.Int64
}

func (c *untilAsked) Err() error {
	if c.times.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

func TestStoreHonoursContexts(t *testing.T) {
	s := newTestStore(t, t.TempDir())
	long := strings.Repeat("a", 1<<20) + "b"
	mustApply(t, s, defined(1, &schema{Name: "i", Prefixes: []string{""}, Attributes: []attribute{
		{Field: "t", Name: "t", Kind: textAttr}, {Field: "v", Name: "v", Kind: vectorAttr, Dim: 1, Metric: metricIP},
	}}), change{"dlong", hashOf(1, "t", long, "v", blobOf(1))})
	why := errors.New("enough")
	over, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	find := func(q scatter.Query) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.search(ctx, &scatter.Request{Table: "i", K: 1, Query: q})
			return err
		}
	}
	for name, do := range map[string]func(ctx context.Context) error{
		"apply":   func(ctx context.Context) error { return s.apply(ctx, []change{{"dk", hashOf(1, "f", "v")}}) },
		"setMeta": func(ctx context.Context) error { return s.setMeta(ctx, "m", nil) },
		"meta":    func(ctx context.Context) error { _, err := s.meta(ctx, "m"); return err },
		"get":     func(ctx context.Context) error { _, err := s.get(ctx, []string{"dk"}); return err },
		"sums":    func(ctx context.Context) error { _, err := s.sums(ctx, []string{"dk"}); return err },
		"since": func(ctx context.Context) error {
			_, _, _, err := s.since(ctx, 0, 1, func(string) bool { return true })
			return err
		},
		"each":  func(ctx context.Context) error { return s.each(ctx, "i", func(string) {}) },
		"KNN":   find(scatter.KNN{Field: "v", Vector: []float32{1}}),
		"Text":  find(scatter.Text{Field: "t", Substring: []byte("x")}),
		"Regex": find(scatter.Regex{Field: "t", Pattern: "x"}),
		"about": find(scatter.Regex{Field: "t", Pattern: "xyz", MaxErrors: 1}),
	} {
		if err := do(over); err != why {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Within one long text, too.
	for _, q := range []scatter.Regex{{Field: "t", Pattern: "a*c"}, {Field: "t", Pattern: "xyz", MaxErrors: 1}} {
		ctx := &untilAsked{Context: context.Background()}
		ctx.times.Store(20)
		if err := find(q)(ctx); err != context.Canceled || ctx.times.Load() < -100 {
			t.Errorf("%q: %v; asked %d times more after it was over", q.Pattern, err, -ctx.times.Load())
		}
	}
}

func TestStoreClosed(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(filepath.Join(dir, "made", "if need be"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(filepath.Join(dir, "made", "if need be")); err == nil ||
		!strings.Contains(err.Error(), "another process has it") {
		t.Fatal("opened twice:", err)
	}
	var wg sync.WaitGroup
	started := make(chan struct{}, 100)
	for i := range 100 {
		wg.Go(func() {
			for j := 0; ; j++ {
				var err error
				switch i % 4 {
				case 0:
					err = s.apply(context.Background(), []change{{fmt.Sprint("d", i), hashOf(version(j+1), "f", "v")}})
				case 1:
					_, err = s.get(context.Background(), []string{"d1", "d2"})
				case 2:
					req := &scatter.Request{Table: "none", K: 1, Query: scatter.Text{}}
					_, err = s.search(context.Background(), req)
					if err != nil && err != errClosed && err.Error() == `no such index: "none"` {
						err = nil
					}
				default:
					err = s.setMeta(context.Background(), "m", nil)
				}
				if j == 0 {
					started <- struct{}{}
				}
				if err != nil {
					if err != errClosed {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	for range 100 {
		<-started
	}
	for range 2 {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	for round := range 5 { // with calls that wait for the writer
		s, err := openStore(filepath.Join(dir, fmt.Sprint(round)))
		if err != nil {
			t.Fatal(err)
		}
		hold, held := make(chan struct{}), make(chan struct{})
		wg.Go(func() {
			s.write(context.Background(), func(*batch) error { close(held); <-hold; return nil })
		})
		<-held
		for i := range 10 {
			wg.Go(func() {
				err := s.apply(context.Background(), []change{{fmt.Sprint("d", i), hashOf(1, "f", "v")}})
				if err != nil && err != errClosed {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if err := s.close(); err != nil {
				t.Error(err)
			}
		})
		<-s.ending
		close(hold)
		wg.Wait()
	}
	if _, err := os.Stat(filepath.Join(dir, "made", "if need be", "store.db-wal")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the log is left behind:", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(file); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Error(err)
	}
	garbage := bytes.Repeat([]byte("no database"), 1000)
	if err := os.WriteFile(filepath.Join(dir, "store.db"), garbage, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir); err == nil || !strings.Contains(err.Error(), "not a database") {
		t.Error(err)
	}
}

// What isn't a document is kept, too.
func TestStoreReopened(t *testing.T) {
	dir := t.TempDir()
	s := newTestStore(t, dir)
	if len(s.name()) != 16 || s.epoch() == 0 || s.latest() != 0 {
		t.Errorf("%q, %x, %d", s.name(), s.epoch(), s.latest())
	}
	for _, name := range []string{"a", "", "a\x00b", "é"} {
		if value, err := s.meta(t.Context(), name); err != nil || value != nil {
			t.Errorf("%q is %q, %v", name, value, err)
		}
		for _, want := range []string{"1", "two", "\x00"} {
			if err := s.setMeta(t.Context(), name, []byte(want)); err != nil {
				t.Fatal(err)
			}
			if value, err := s.meta(t.Context(), name); err != nil || string(value) != want {
				t.Errorf("%q is %q, %v, want %q", name, value, err, want)
			}
		}
	}
	mustApply(t, s, change{"da", hashOf(math.MaxUint64, "f", "v")}, change{"db", hashOf(1, "f", "v")})
	epoch, name := s.epoch(), s.name()
	if err := s.close(); err != nil {
		t.Error(err)
	}
	s = newTestStore(t, dir)
	if s.epoch() != epoch || s.name() != name || s.latest() != math.MaxUint64 {
		t.Errorf("%q, %x, %x", s.name(), s.epoch(), s.latest())
	}
	if value, err := s.meta(t.Context(), "a\x00b"); err != nil || string(value) != "\x00" {
		t.Errorf("%q, %v", value, err)
	}
	if other := newTestStore(t, t.TempDir()); other.epoch() == epoch || other.name() == name {
		t.Error("two stores are the same")
	}
}

// The log doesn't grow without end, even if there is always a search that reads from it.
func TestLogStartsOver(t *testing.T) {
	dir := t.TempDir()
	s := newTestStore(t, dir)
	at := attribute{Field: "t", Name: "t", Kind: textAttr}
	mustApply(t, s, defined(1, &schema{Name: "i", Prefixes: []string{""}, Attributes: []attribute{at}}),
		change{"dk", hashOf(1, "t", "x")})
	done, began := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for i := range 2 { // each ends when the other has begun
		wg.Go(func() {
			for n := i; ; n++ {
				err := s.each(t.Context(), "i", func(string) {
					if n > 0 {
						select {
						case began <- struct{}{}:
						case <-done:
						}
					}
					select {
					case <-began:
					case <-done:
					}
				})
				if err != nil {
					t.Error(err)
				}
				select {
				case <-time.After(time.Millisecond):
				case <-done:
					return
				}
			}
		})
	}
	const page, large = 8192, 1 << 20
	for n := range version(3 * endlessLog / 2 * page / large) {
		mustApply(t, s, change{"dl", hashOf(n+1, "f", strings.Repeat(string(rune('a'+n%26)), large))})
	}
	close(done)
	wg.Wait()
	if info, err := os.Stat(filepath.Join(dir, "store.db-wal")); err != nil || info.Size() > 5*endlessLog/4*page {
		t.Errorf("%v, %v", info, err)
	}
}

// storeChild is a variable that says in which directory a process of TestStoreKilled is to write.
const storeChild = "KVPROXY_TEST_STORE"

// What apply has acknowledged is there after kill -9, and the indexes are as they should be.
func TestStoreKilled(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(7, 7))
	acknowledged := make(map[string]int)
	for round := range 4 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStoreChild$")
		child.Env = append(os.Environ(), storeChild+"="+dir, fmt.Sprint("ROUND=", round))
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		kill := 100 + r.IntN(400)
		for n := 0; lines.Scan(); n++ { // also what it has said just before its end
			key, count, _ := strings.Cut(lines.Text(), " ")
			if acknowledged[key], err = strconv.Atoi(count); err != nil {
				t.Fatal(lines.Text())
			}
			if n == kill {
				child.Process.Kill()
			}
		}
		if err := child.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Fatal(err)
		}
		s, err := openStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		o := &oracle{docs: make(map[string]document)}
		page, _, more, err := s.since(t.Context(), 0, 1e6, func(string) bool { return true })
		if err != nil || more {
			t.Fatal(err, more)
		}
		for _, st := range page {
			docs, err := s.get(t.Context(), []string{st.key})
			if err != nil {
				t.Fatal(err)
			}
			o.docs[st.key] = docs[0]
			o.order = append(o.order, st.key)
		}
		for key, count := range acknowledged {
			doc := o.docs[key]
			got, _ := doc.field("count")
			if n, _ := strconv.Atoi(string(got)); n < count {
				t.Errorf("%s is at %q, but %d was acknowledged", key, got, count)
			}
		}
		o.check(t, s)
		for _, sch := range o.schemas() {
			for _, at := range sch.Attributes {
				req := &scatter.Request{Table: sch.Name, K: maxHits}
				var want []scatter.Hit[string]
				if at.Kind == textAttr {
					req.Query = scatter.Text{Field: at.Name, Substring: []byte("7")}
					want = o.texts(sch, at, func(text []byte) bool { return bytes.Contains(text, []byte("7")) })
				} else {
					req.Query = scatter.KNN{Field: at.Name, Vector: []float32{1, 2, 3}}
					want = o.knn(sch, at, []float32{1, 2, 3})
				}
				hits, err := s.search(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				sameHits(t, fmt.Sprintf("%+v", req), hits, want, maxHits, at.Metric == metricCosine)
			}
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) < 100 {
		t.Error("little was written:", len(acknowledged))
	}
}

// TestStoreChild is what the processes of TestStoreKilled run.
func TestStoreChild(t *testing.T) {
	dir := os.Getenv(storeChild)
	if dir == "" {
		return
	}
	round, _ := strconv.Atoi(os.Getenv("ROUND"))
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	sch := &schema{Name: "i", Prefixes: []string{"k"}, Attributes: []attribute{
		{Field: "count", Name: "count", Kind: textAttr},
		{Field: "v", Name: "l2", Kind: vectorAttr, Dim: 3, Metric: metricL2},
		{Field: "v", Name: "cos", Kind: vectorAttr, Dim: 3, Metric: metricCosine},
		{Field: "v", Name: "ip", Kind: vectorAttr, Dim: 3, Metric: metricIP},
	}}
	mustApply(t, s, defined(version(1+round), sch))
	var out sync.Mutex
	for worker := range 8 {
		go func() {
			r := rand.New(rand.NewPCG(uint64(round), uint64(worker)))
			for n := round * 1e6; ; n++ {
				var changes []change
				for range 1 + r.IntN(3) {
					v := blobOf(float32(r.IntN(9)), float32(r.IntN(9)-4), float32(r.IntN(9)))
					doc := hashOf(version(n+1), "count", strconv.Itoa(n), "v", v)
					if r.IntN(9) == 0 {
						doc.fields["v"] = register{at: version(n + 1), gone: true}
					}
					changes = append(changes, change{fmt.Sprintf("dk%d:%d", worker, r.IntN(50)), doc})
				}
				if worker == 0 && n%20 == 0 { // another schema now and then
					sch := *sch
					sch.Attributes = sch.Attributes[n/20%3:]
					sch.Name = "other"
					changes = append(changes, defined(version(n+1), &sch))
				}
				if err := s.apply(context.Background(), changes); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				out.Lock()
				for _, c := range changes {
					if c.key[0] == clientKey {
						fmt.Fprintln(os.Stdout, c.key, n)
					}
				}
				out.Unlock()
			}
		}()
	}
	select {} // until it is killed
}

// slowlyAbout computes how few edits make some part of a text the pattern, by trying.
func slowlyAbout(text, pattern []rune) int {
	best := len(pattern)
	for i := range text {
		row := make([]int, len(pattern)+1)
		for j := range row {
			row[j] = j
		}
		for _, r := range text[i:] {
			next := []int{row[0] + 1}
			for j, p := range pattern {
				change := 1
				if p == r {
					change = 0
				}
				next = append(next, min(row[j]+change, row[j+1]+1, next[j]+1))
			}
			row = next
			best = min(best, row[len(pattern)])
		}
	}
	return best
}

func TestContainsAbout(t *testing.T) {
	for _, test := range []struct {
		text, pattern string
		edits         int
	}{
		{"", "", 0}, {"abc", "", 0}, {"", "abc", 3},
		{"xxabcxx", "abc", 0}, {"xxabxx", "abc", 1}, {"xxaxbcxx", "abc", 1},
		{"kitten", "sitting", 3}, {"größer", "grosser", 3}, {"größer", "groß", 1}, {"\xff", "\uFFFD", 0},
		{"a surgery by a surgeon", "survey", 2},
	} {
		for most := range 9 {
			got := containsAbout(t.Context(), []byte(test.text), []rune(test.pattern), most)
			if got != (test.edits <= most) {
				t.Errorf("%q in %q with %d edits: %v", test.pattern, test.text, most, got)
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	word := func(n int) []rune {
		w := make([]rune, r.IntN(n))
		for i := range w {
			w[i] = []rune("abé")[r.IntN(3)]
		}
		return w
	}
	for range 20_000 {
		text, pattern, most := word(15), word(8), r.IntN(5)
		want := slowlyAbout(text, pattern) <= most
		if got := containsAbout(t.Context(), []byte(string(text)), pattern, most); got != want {
			t.Fatalf("%q in %q with %d edits: %v", string(pattern), string(text), most, got)
		}
	}
}

// vectorOf128 is one of 128 dimensions.
func vectorOf128(r *rand.Rand) []float32 {
	v := make([]float32, 128)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// What a node has of 100,000 documents in a cluster of 5, by each kind of search.
func BenchmarkStoreSearch(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	s := newTestStore(b, b.TempDir())
	sch := &schema{Name: "i", Prefixes: []string{""}, Attributes: []attribute{{Field: "t", Name: "t", Kind: textAttr}}}
	queries := map[string]scatter.Query{
		"Text":  scatter.Text{Field: "t", Substring: []byte("59999")},
		"Regex": scatter.Regex{Field: "t", Pattern: "5999[0-9] of"},
		"about": scatter.Regex{Field: "t", Pattern: "number 59999", MaxErrors: 2},
	}
	for _, m := range []metric{metricL2, metricCosine, metricIP} {
		name := string(m)
		at := attribute{Field: "v", Name: name, Kind: vectorAttr, Dim: 128, Metric: m}
		sch.Attributes = append(sch.Attributes, at)
		queries[name] = scatter.KNN{Field: name, Vector: vectorOf128(r)}
	}
	for part := range 100 {
		var changes []change
		for n := part * 600; n < (part+1)*600; n++ {
			text := fmt.Sprintf("document number %d of a corpus of texts that are as long as a title often is", n)
			changes = append(changes, change{fmt.Sprint("d", n), hashOf(1, "v", blobOf(vectorOf128(r)...), "t", text)})
		}
		mustApply(b, s, changes...)
	}
	mustApply(b, s, defined(1, sch))
	for _, name := range slices.Sorted(maps.Keys(queries)) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				hits, err := s.search(b.Context(), &scatter.Request{Table: "i", K: 10, Query: queries[name]})
				if err != nil || len(hits) == 0 {
					b.Fatal(hits, err)
				}
			}
		})
	}
}

// New documents with a vector, each by a call of its own.
func BenchmarkStoreApply(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			s := newTestStore(b, b.TempDir())
			at := attribute{Field: "v", Name: "v", Kind: vectorAttr, Dim: 128, Metric: metricL2}
			mustApply(b, s, defined(1, &schema{Name: "i", Prefixes: []string{""}, Attributes: []attribute{at}}))
			var last atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for caller := range uint64(callers) {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(1, caller))
					vector := vectorOf128(r)
					for n := last.Add(1); n <= int64(b.N); n = last.Add(1) {
						vector[r.IntN(128)]++
						mustApply(b, s, change{fmt.Sprintf("d%x", r.Uint64()), hashOf(1, "v", blobOf(vector...))})
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "docs/s")
		})
	}
}
