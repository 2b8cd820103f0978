package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// testIndex opens an index, which is closed when the test ends.
func testIndex(t testing.TB, path string) *index {
	x, err := openIndex(path, "me", func(*topology) {}, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.close()) })
	return x
}

// searchNow searches by the ring that the index has.
func (x *index) searchNow(ctx context.Context, req *scatter.Request, f *filter) ([]scatter.Hit[string], error) {
	return x.search(ctx, x.topology().revision, req, f)
}

// testLog is a log with all streams in memory. Like a stream it has the last entry of each key
// only.
type testLog struct {
	last    positions
	entries [streams][]entry
}

func (l *testLog) append(stream int, key string, body []byte, flush bool) {
	l.last[stream]++
	kept := slices.DeleteFunc(slices.Clone(l.entries[stream]), func(e entry) bool {
		return flush || e.key == key && !e.flush
	})
	l.entries[stream] = append(kept, entry{stream: stream, seq: l.last[stream], key: key, body: body, flush: flush})
}

func (l *testLog) set(key string, doc document) { l.append(partitionOf(key), key, doc.encode(), false) }

func (l *testLog) define(s *schema) { l.append(meta, "index."+s.Name, s.encode(), false) }

func (l *testLog) ring(nodes ...string) {
	body, err := json.Marshal(map[string]any{"nodes": nodes})
	if err != nil {
		panic(err)
	}
	l.append(meta, "ring", body, false)
}

// follow applies what an index lacks, in batches of random sizes.
func (l *testLog) follow(t testing.TB, x *index, random *rand.Rand) {
	for range 3 { // a change of the ring makes streams begin again
		for _, stream := range random.Perm(streams) {
			at := x.now().at[stream]
			todo := slices.DeleteFunc(slices.Clone(l.entries[stream]), func(e entry) bool { return e.seq <= at })
			for len(todo) > 0 {
				n := 1 + random.IntN(len(todo))
				require.NoError(t, x.apply(t.Context(), todo[:n], [streams]bool{}))
				todo = todo[n:]
			}
		}
	}
	var whole [streams]bool
	for stream := range whole {
		whole[stream] = true
	}
	require.NoError(t, x.apply(t.Context(), nil, whole))
	require.NoError(t, x.wait(t.Context(), l.last))
}

// docs returns all documents of the partitions that a ring gives to this node.
func (l *testLog) docs(ring *topology) map[string]document {
	docs := make(map[string]document)
	for partition := range partitions {
		for _, e := range l.entries[partition] {
			if doc, err := decodeDocument(e.body); err == nil && doc.kind != noKey && ring.held[partition] {
				docs[e.key] = doc
			}
		}
	}
	return docs
}

// blob returns a vector as HSET takes it.
func blob(v ...float32) []byte {
	b, err := binary.Append([]byte{}, binary.LittleEndian, v)
	if err != nil {
		panic(err)
	}
	return b
}

func hash(fields ...string) document {
	doc := document{kind: hashKey, fields: make(map[string][]byte)}
	for i := 0; i < len(fields); i += 2 {
		doc.fields[fields[i]] = []byte(fields[i+1])
	}
	return doc
}

// testSchemas have each kind of attribute, and different keys.
func testSchemas() []*schema {
	vector := func(name string, m metric, dim int) attribute {
		return attribute{Field: "v", Name: name, Kind: vectorAttr, Algorithm: "FLAT", Dim: dim, Metric: m}
	}
	rest := []attribute{
		{Field: "t", Name: "text", Kind: textAttr},
		{Field: "g", Name: "tag", Kind: tagAttr, Separator: ","},
		{Field: "g", Name: "Tag", Kind: tagAttr, Separator: "a", CaseSensitive: true},
		{Field: "n", Name: "number", Kind: numericAttr},
		{Field: "n", Name: "hidden", Kind: numericAttr, Flags: []string{"NOINDEX"}},
	}
	return []*schema{
		{Name: "l2", Prefixes: []string{""}, Attributes: append([]attribute{vector("vec", metricL2, 2)}, rest...)},
		{Name: "cos", Prefixes: []string{"a", "b"}, Attributes: append(slices.Clone(rest), vector("vec", metricCosine, 2))},
		{Name: "ip", Prefixes: []string{"a"}, Attributes: append(slices.Clone(rest), vector("vec", metricIP, 2),
			vector("other", metricL2, 3))},
		{Name: "none", Prefixes: []string{"nothing:"}, Attributes: rest},
	}
}

var testValues = map[string][]string{
	"v": {
		string(blob(1, 2)), string(blob(-1, 2)), string(blob(0, 0)), string(blob(3, 3)), string(blob(1, 2)),
		string(blob(2, 4)), string(blob(0.5, -7)), string(blob(1, 1, 1)), string(blob(float32(math.NaN()), 1)),
		string(blob(float32(math.Inf(1)), 1)), string(blob(math.MaxFloat32, math.MaxFloat32)), "short", "",
	},
	"t": {"a text", "another Text", "\xff\x00a", "", "täxt", "aaaaa"},
	"g": {"x,y", "X, z ", "", "a", "xay", "\x00,\x01", "\x01\x02,\xff", " , "},
	"n": {"1", "2.5", " 3 ", "-1e300", "inf", "nan", "one", "", "2"},
	"o": {"other"},
}

func randomDocument(random *rand.Rand) document {
	switch random.IntN(10) {
	case 0:
		return document{}
	case 1:
		return document{kind: stringKey, text: []byte("text")}
	}
	doc := hash()
	for _, field := range slices.Sorted(maps.Keys(testValues)) {
		values := testValues[field]
		if random.IntN(4) > 0 {
			doc.fields[field] = []byte(values[random.IntN(len(values))])
		}
	}
	return doc
}

func randomKey(random *rand.Rand) string {
	return []string{"a", "b", "c", "\xff", "ä", ""}[random.IntN(6)] + string(rune('a'+random.IntN(20)))
}

// change makes a random change to the log.
func (l *testLog) change(random *rand.Rand) {
	switch random.IntN(60) {
	case 0:
		l.append(random.IntN(partitions), "", nil, true)
	case 1:
		all := testSchemas()
		l.define(all[random.IntN(len(all))])
	case 2:
		l.append(meta, "index."+testSchemas()[random.IntN(4)].Name, nil, false)
	case 3:
		nodes := []string{"me", "b", "c", "d", "e", "f"}
		l.ring(nodes[:1+random.IntN(len(nodes))]...)
	default:
		l.set(randomKey(random), randomDocument(random))
	}
}

// TestIndexAgainstOracle changes a log at random, and compares all searches of an index that
// follows it, of one that is opened again at times, and of one that is new at the end, with what a
// look at all documents finds.
func TestIndexAgainstOracle(t *testing.T) {
	for seed := range uint64(6) {
		random := rand.New(rand.NewPCG(seed, 1))
		log, dir := new(testLog), t.TempDir()
		log.ring("me", "b", "c", "d")
		for _, s := range testSchemas()[:1+random.IntN(3)] {
			log.define(s)
		}
		x := testIndex(t, filepath.Join(dir, "index"))
		reopened := filepath.Join(dir, "reopened")
		for range 8 {
			for range random.IntN(100) {
				log.change(random)
			}
			log.follow(t, x, random)
			again, err := openIndex(reopened, "me", func(*topology) {}, zap.NewNop())
			require.NoError(t, err)
			log.follow(t, again, random)
			compareAll(t, log, x, random)
			compareAll(t, log, again, random)
			require.NoError(t, again.close())
		}
		fresh := testIndex(t, filepath.Join(dir, "fresh"))
		log.follow(t, fresh, random)
		compareAll(t, log, fresh, random)
	}
}

// compareAll compares an index with an oracle.
func compareAll(t testing.TB, log *testLog, x *index, random *rand.Rand) {
	o := &oracle{docs: log.docs(x.topology())}
	for _, e := range log.entries[meta] {
		if s, err := decodeSchema(e.body); err == nil && strings.HasPrefix(e.key, "index.") {
			o.schemas = append(o.schemas, s)
		}
	}
	slices.SortFunc(o.schemas, func(a, b *schema) int { return strings.Compare(a.Name, b.Name) })
	require.Equal(t, len(o.schemas), len(x.schemas()))
	for i, s := range x.schemas() {
		require.Equal(t, o.schemas[i].encode(), s.encode())
		require.Equal(t, s, x.schema(s.Name))
	}
	o.compareCounts(t, x)
	for _, s := range o.schemas {
		for range 12 {
			o.compareSearch(t, x, s, random)
		}
	}
	for range 10 {
		key := randomKey(random)
		doc, held, err := x.document(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, x.topology().held[partitionOf(key)], held)
		require.Equal(t, string(o.docs[key].encode()), string(doc.encode()), "%q", key)
	}
}

// oracle searches by looking at everything.
type oracle struct {
	docs    map[string]document
	schemas []*schema
}

// in returns the keys of the documents in an index, sorted.
func (o *oracle) in(s *schema) (keys []string) {
	for _, key := range slices.Sorted(maps.Keys(o.docs)) {
		if s.holds(key) && o.docs[key].kind == hashKey {
			keys = append(keys, key)
		}
	}
	return keys
}

func (o *oracle) compareCounts(t testing.TB, x *index) {
	want := make(map[string]map[string]float32)
	add := func(table string, partition int, what string, n float32) {
		if want[table] == nil {
			want[table] = make(map[string]float32)
		}
		want[table][fmt.Sprint(partition, " ", what)] += n
	}
	for key := range o.docs {
		add("", partitionOf(key), "documents", 1)
		add("", partitionOf(key), "failures", 0)
	}
	for _, s := range o.schemas {
		for _, key := range o.in(s) {
			add(s.Name, partitionOf(key), "documents", 1)
			for i := range s.Attributes {
				bad := float32(0)
				if s.Attributes[i].isBad(o.docs[key]) {
					bad = 1
				}
				add(s.Name, partitionOf(key), "failures", bad)
			}
		}
	}
	for _, table := range append(x.schemas(), &schema{}) {
		hits, err := x.searchNow(context.Background(), &scatter.Request{Table: table.Name, Query: counting{}, K: 32}, nil)
		require.NoError(t, err)
		got := make(map[string]float32)
		for _, h := range hits {
			got[h.ID] = h.Score
		}
		require.Len(t, got, len(want[table.Name]))
		for id, n := range want[table.Name] {
			require.Equal(t, n, got[id], "%s: %s", table.Name, id)
		}
		require.True(t, slices.IsSortedFunc(hits, func(a, b scatter.Hit[string]) int { return strings.Compare(a.ID, b.ID) }))
	}
}

// number returns a NUMERIC's value.
func number(value []byte) (n float64, ok bool) {
	_, err := fmt.Sscanf(string(bytes.TrimSpace(value)), "%g", &n)
	return n, err == nil && !math.IsNaN(n)
}

// vectorIn returns a document's vector, or nil.
func (a *attribute) vectorIn(doc document) []float32 {
	b := doc.fields[a.Field]
	if len(b) != 4*a.Dim {
		return nil
	}
	v, zero := make([]float32, a.Dim), true
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		zero = zero && v[i] == 0
		if v[i]-v[i] != 0 {
			return nil
		}
	}
	if zero && a.Metric == metricCosine {
		return nil
	}
	return v
}

// isBad reports whether a document has a value that can't be indexed.
func (a *attribute) isBad(doc document) bool {
	value, ok := doc.fields[a.Field]
	if !ok || a.has("NOINDEX") {
		return false
	}
	switch a.Kind {
	case vectorAttr:
		return a.vectorIn(doc) == nil
	case numericAttr:
		_, ok := number(value)
		return !ok
	}
	return false
}

// TestIndexSchemaBeforeAndAfter builds the same index from documents that came before and after its
// schema.
func TestIndexSchemaBeforeAndAfter(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	early, late := new(testLog), new(testLog)
	for _, l := range []*testLog{early, late} {
		l.ring("me")
	}
	for _, s := range testSchemas() {
		early.define(s)
	}
	x, y := testIndex(t, filepath.Join(t.TempDir(), "x")), testIndex(t, filepath.Join(t.TempDir(), "y"))
	early.follow(t, x, random)
	for range 300 {
		key, doc := randomKey(random), randomDocument(random)
		early.set(key, doc)
		late.set(key, doc)
	}
	early.follow(t, x, random)
	late.follow(t, y, random)
	for _, s := range testSchemas() {
		late.define(s)
	}
	late.follow(t, y, random)
	compareAll(t, early, x, random)
	compareAll(t, late, y, random)
	dump := func(x *index) (rows []string) {
		for _, st := range x.now().tables {
			require.NoError(t, x.read(t.Context(), func(c *conn) error {
				return c.each(func(row *sqlite3.Stmt) bool {
					rows = append(rows, fmt.Sprintf("%s %q %d", st.schema.Name, row.ColumnText(0), row.ColumnInt(1)))
					return true
				}, fmt.Sprintf(`SELECT hex(key), failures FROM entry_%d ORDER BY key`, st.n))
			}))
		}
		return rows
	}
	require.NotEmpty(t, dump(x))
	require.Equal(t, dump(x), dump(y))
}

// TestIndexCorrupt opens an index whose file has been overwritten, in its beginning or in the
// middle, or that another version of the program made.
func TestIndexCorrupt(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	log := new(testLog)
	log.ring("me")
	log.define(testSchemas()[0])
	for range 500 {
		log.set(randomKey(random), randomDocument(random))
	}
	damage := map[string]func(path string, b []byte){
		"header": func(path string, b []byte) { copy(b, "this is no database") },
		"middle": func(path string, b []byte) {
			for i := 8192; i < len(b); i++ {
				b[i] = byte(i)
			}
		},
		"cut": func(path string, b []byte) { require.NoError(t, os.Truncate(path, int64(len(b)/2))) },
		"layout": func(path string, b []byte) {
			c, err := openConn(path)
			require.NoError(t, err)
			require.NoError(t, c.Exec(`PRAGMA user_version = 77`))
			require.NoError(t, c.close())
		},
	}
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "index")
			x, err := openIndex(path, "me", func(*topology) {}, zap.NewNop())
			require.NoError(t, err)
			log.follow(t, x, random)
			require.NoError(t, x.close())
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			before := bytes.Clone(b)
			if do(path, b); !bytes.Equal(b, before) {
				require.NoError(t, os.WriteFile(path, b, 0o600))
			}
			core, logs := observer.New(zap.WarnLevel)
			x, err = openIndex(path, "me", func(*topology) {}, zap.New(core))
			require.NoError(t, err)
			defer func() { require.NoError(t, x.close()) }()
			require.Equal(t, 1, logs.Len())
			require.Zero(t, x.now().at)
			log.follow(t, x, random)
			compareAll(t, log, x, random)
		})
	}
}

// TestIndexOlderCopy puts an older copy of an index back. It catches up.
func TestIndexOlderCopy(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	log, path := new(testLog), filepath.Join(t.TempDir(), "index")
	log.ring("me", "b", "c", "d")
	log.define(testSchemas()[1])
	var older []byte
	for i := range 3 {
		if i == 2 {
			require.NoError(t, os.WriteFile(path, older, 0o600))
		}
		x, err := openIndex(path, "me", func(*topology) {}, zap.NewNop())
		require.NoError(t, err)
		for range 200 {
			log.change(random)
		}
		log.follow(t, x, random)
		compareAll(t, log, x, random)
		require.NoError(t, x.close())
		if i == 0 {
			older, err = os.ReadFile(path)
			require.NoError(t, err)
		}
	}
}

// TestIndexOtherLog asks an index to follow streams that are not the ones it has been following.
func TestIndexOtherLog(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	log := new(testLog)
	log.ring("me")
	log.define(testSchemas()[0])
	for range 200 {
		log.set(randomKey(random), randomDocument(random))
	}
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	identify := func(created time.Time, last positions) {
		for stream := range streams {
			require.NoError(t, x.identify(t.Context(), stream, created, last[stream]))
		}
	}
	now := time.Now()
	identify(now, log.last)
	log.follow(t, x, random)
	at := x.now().at
	identify(now, log.last)
	require.Equal(t, at, x.now().at)

	identify(now, positions{})
	require.Zero(t, x.now().at)
	require.Empty(t, x.schemas())
	log.follow(t, x, random)
	compareAll(t, log, x, random)

	identify(now.Add(time.Second), log.last)
	require.Zero(t, x.now().at)
	log.follow(t, x, random)
	compareAll(t, log, x, random)
}

// TestIndexRing changes the ring so that partitions leave this node and come back.
func TestIndexRing(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	log := new(testLog)
	log.define(testSchemas()[0])
	var rings []*topology
	x, err := openIndex(filepath.Join(t.TempDir(), "index"), "me", func(r *topology) { rings = append(rings, r) }, zap.NewNop())
	require.NoError(t, err)
	defer func() { require.NoError(t, x.close()) }()
	require.NotNil(t, x.topology())
	for i, nodes := range [][]string{{"me"}, {"me", "b", "c", "d", "e", "f"}, {"b", "c", "d"}, {"me", "b", "c"}} {
		for range 100 {
			log.set(randomKey(random), randomDocument(random))
		}
		log.ring(nodes...)
		log.follow(t, x, random)
		require.Len(t, rings, i+1)
		require.ElementsMatch(t, nodes, rings[i].nodes)
		require.Equal(t, log.last[meta], rings[i].revision)
		require.Same(t, rings[i], x.topology())
		compareAll(t, log, x, random)
	}
	log.append(meta, "ring", []byte("no JSON"), false)
	log.append(meta, "index.l2", []byte("no JSON"), false)
	log.append(meta, "something", []byte("else"), false)
	log.follow(t, x, random)
	require.Len(t, rings, 4)
	require.Empty(t, x.schemas())
}

// TestIndexFull applies to a full disk, and again when there is room.
func TestIndexFull(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	log := new(testLog)
	log.ring("me")
	log.define(testSchemas()[0])
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	log.follow(t, x, random)
	var pages int64
	page := func(row *sqlite3.Stmt) bool { pages = row.ColumnInt64(0); return false }
	require.NoError(t, x.db.each(page, `PRAGMA page_count`))
	require.NoError(t, x.db.Exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, pages+4)))
	for i := range 300 {
		log.set(fmt.Sprint("key", i), hash("t", strings.Repeat("x", 2000), "v", string(blob(1, float32(i)))))
	}
	var all []entry
	for stream := range partitions {
		all = append(all, log.entries[stream]...)
	}
	before := x.now().at
	require.ErrorIs(t, x.apply(t.Context(), all, [streams]bool{}), sqlite3.FULL)
	require.Equal(t, before, x.now().at)
	_, err := x.searchNow(t.Context(), &scatter.Request{Table: "l2", Query: scatter.Text{}, K: 10}, nil)
	require.NoError(t, err)

	done := make(chan error)
	go func() { done <- x.applyPatiently(t.Context(), all, [streams]bool{}) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, x.wait(ctx, log.last), context.DeadlineExceeded)
	x.write.Lock()
	err = x.db.Exec(`PRAGMA max_page_count = 1000000`)
	x.write.Unlock()
	require.NoError(t, err)
	require.NoError(t, <-done)
	log.follow(t, x, random)
	compareAll(t, log, x, random)
}

// TestIndexWait waits for what has been applied, and for what has not.
func TestIndexWait(t *testing.T) {
	log := new(testLog)
	log.ring("me", "b", "c", "d", "e")
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	// Even a fence of nothing needs a stream that has been read to its end.
	require.ErrorContains(t, x.wait(ctx, positions{}), "the index has stream kvmeta up to 0 and not yet up to 0")
	require.NotEmpty(t, x.kick[meta])

	log.follow(t, x, rand.New(rand.NewPCG(1, 1)))
	require.NoError(t, x.wait(ctx, log.last))
	held := slices.Index(x.topology().held[:], true)
	other := slices.Index(x.topology().held[:], false)
	var far, third positions
	far[other], third[held] = 100, 3
	require.NoError(t, x.wait(t.Context(), far))
	waited := make(chan error)
	go func() { waited <- x.wait(t.Context(), third) }()
	apply := func(seq uint64, whole bool) {
		e := entry{stream: held, seq: seq, key: "key", body: hash("a", "b").encode()}
		var ends [streams]bool
		ends[held] = whole
		require.NoError(t, x.apply(t.Context(), []entry{e}, ends))
	}
	apply(2, true)
	apply(4, false) // what was there at 3 may come only after 4
	require.EqualValues(t, 2, x.applied()[held])
	select {
	case err := <-waited:
		t.Fatal("wait has returned early: ", err)
	default:
	}
	apply(5, true)
	require.NoError(t, <-waited)
	require.EqualValues(t, 5, x.applied()[held])
}

// TestIndexLocked opens an index twice.
func TestIndexLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "index")
	testIndex(t, path)
	_, err := openIndex(path, "me", nil, zap.NewNop())
	require.ErrorContains(t, err, "another process uses it")
}
