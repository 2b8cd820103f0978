package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// joinNode starts a node in this process and stops it at the end of the test.
func joinNode(t testing.TB, url, name string, edits ...func(*config)) *node {
	cfg := config{
		name: name, nats: url, replicas: 1, listen: "127.0.0.1:0", http: "127.0.0.1:0", data: t.TempDir(),
		timeout: 10 * time.Second, clients: 100,
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	n, err := startNode(testContext(t, time.Minute), cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		n.stop(ctx)
	})
	return n
}

func joinNodes(t testing.TB, count int) (nodes []*node) {
	url := testStore(t)
	for _, name := range names(count) {
		nodes = append(nodes, joinNode(t, url, name))
	}
	for _, n := range nodes {
		require.NoError(t, n.settle(t.Context()))
	}
	return nodes
}

const dims = 8

func key(i int) string { return fmt.Sprint("doc:", i) }

func vector(i int) (v []float32) {
	random := rand.New(rand.NewPCG(uint64(i), 1))
	for range dims {
		v = append(v, random.Float32())
	}
	return v
}

func put(t testing.TB, n *node, i int) {
	doc := document{kind: hashKey, fields: map[string][]byte{"v": blob(vector(i)...), "i": []byte(fmt.Sprint(i))}}
	require.NoError(t, n.engine.set(testContext(t, 30*time.Second), key(i), doc))
}

// putVectors creates the index "idx" and count documents.
func putVectors(t testing.TB, n *node, count int) {
	b, err := json.Marshal(schema{Name: "idx", Prefixes: []string{"doc:"}, Attributes: []attribute{{
		Field: "v", Name: "v", Kind: vectorAttr, Algorithm: "FLAT", Dim: dims, Metric: metricL2,
	}}})
	require.NoError(t, err)
	_, err = n.engine.changeMeta(t.Context(), "index.idx", func([]byte) ([]byte, error) { return b, nil })
	require.NoError(t, err)
	for i := range count {
		put(t, n, i)
	}
}

func nearest(i, k int) *scatter.Request {
	return &scatter.Request{Table: "idx", K: k, Query: scatter.KNN{Field: "v", Vector: vector(i)}}
}

// bruteForce returns the keys nearest to vector(i) of documents 0 to count-1.
func bruteForce(i, k, count int) (keys []string) {
	distance := func(j int) (d float64) {
		for x, v := range vector(i) {
			d += math.Pow(float64(v)-float64(vector(j)[x]), 2)
		}
		return d
	}
	all := make([]int, count)
	for j := range all {
		all[j] = j
	}
	slices.SortFunc(all, func(a, b int) int { return cmp.Compare(distance(a), distance(b)) })
	for _, j := range all[:min(k, count)] {
		keys = append(keys, key(j))
	}
	return keys
}

func ids(out *found) (keys []string) {
	for _, h := range out.response.Hits {
		keys = append(keys, h.ID)
	}
	return keys
}

// requireWhole searches by each node and requires the answer of brute force.
func requireWhole(t testing.TB, nodes []*node, i, count int) {
	for _, n := range nodes {
		out, err := n.search(t.Context(), nearest(i, 10), nil)
		require.NoError(t, err)
		require.Empty(t, out.warnings)
		require.Equal(t, bruteForce(i, 10, count), ids(out))
	}
}

func TestSearchEqualsBruteForce(t *testing.T) {
	nodes := joinNodes(t, 5)
	putVectors(t, nodes[0], 100)
	for i := range 10 {
		requireWhole(t, nodes, i, 100)
	}
	out, err := nodes[1].search(t.Context(), &scatter.Request{Table: "idx", Query: scatter.Text{}, K: maxHits}, nil)
	require.NoError(t, err)
	require.Len(t, out.response.Hits, 100)

	documents, failures, warnings, err := nodes[2].count(t.Context(), "idx")
	require.NoError(t, err)
	require.EqualValues(t, 100, documents)
	require.Zero(t, failures)
	require.Empty(t, warnings)
	require.NoError(t, nodes[0].engine.set(t.Context(), "other", document{kind: stringKey, text: []byte("x")}))
	documents, _, _, err = nodes[2].count(t.Context(), "")
	require.NoError(t, err)
	require.EqualValues(t, 101, documents)
}

// A write that one node has acknowledged is found at once by every other node.
func TestSearchSeesWritesOfOthers(t *testing.T) {
	nodes := joinNodes(t, 3)
	putVectors(t, nodes[0], 0)
	for i := range 60 {
		put(t, nodes[i%3], i)
		out, err := nodes[(i+1)%3].search(t.Context(), nearest(i, 1), nil)
		require.NoError(t, err)
		require.Equal(t, []string{key(i)}, ids(out))
	}
}

func TestDocumentsOfAPage(t *testing.T) {
	nodes := joinNodes(t, 5)
	putVectors(t, nodes[0], 30)
	for _, n := range nodes {
		out, err := n.search(t.Context(), &scatter.Request{Table: "idx", Query: scatter.Text{}, K: 30}, nil)
		require.NoError(t, err)
		keys := append(ids(out), "doc:deleted")
		docs, err := n.documents(t.Context(), keys, out)
		require.NoError(t, err)
		for i, doc := range docs[:30] {
			require.Equal(t, keys[i], "doc:"+string(doc.fields["i"]))
		}
		require.Equal(t, document{}, docs[30])
		replicas, err := n.engine.readReplicas(t.Context(), keys, time.Second)
		require.NoError(t, err)
		require.Equal(t, docs, replicas)
	}
}

// When most stores are dead, nothing can be written, but searches and their documents go on.
func TestSearchWithoutQuorum(t *testing.T) {
	stores, urls := testStores(t)
	var nodes []*node
	for _, name := range names(4) {
		nodes = append(nodes, joinNode(t, urls, name, func(cfg *config) { cfg.replicas = 3 }))
	}
	putVectors(t, nodes[0], 30)
	requireWhole(t, nodes, 0, 30)
	for _, s := range stores[:2] {
		s.stop()
	}
	warned := func(text string) {
		require.Eventually(t, func() bool {
			out, err := nodes[0].search(t.Context(), nearest(0, 10), nil)
			return err == nil && !out.response.Partial && strings.Contains(fmt.Sprint(out.warnings), text)
		}, 2*time.Minute, 10*time.Millisecond)
	}
	warned("partitions ")
	out, err := nodes[0].search(t.Context(), &scatter.Request{Table: "idx", Query: scatter.Text{}, K: 30}, nil)
	require.NoError(t, err)
	require.Len(t, out.response.Hits, 30)
	docs, err := nodes[0].documents(t.Context(), ids(out), out)
	require.NoError(t, err)
	for i, doc := range docs {
		require.Equal(t, ids(out)[i], "doc:"+string(doc.fields["i"]))
	}
	if testing.Short() {
		return
	}
	// The last store is a leader for some seconds more. Then it answers as one that has none.
	warned("partitions 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 have no leader")
	_, err = nodes[0].documents(t.Context(), ids(out), out)
	require.NoError(t, err)
	require.Contains(t, out.warnings[len(out.warnings)-1], "the documents may be older than the hits")
}

func TestPermanentErrorEndsTheSearch(t *testing.T) {
	nodes := joinNodes(t, 3)
	putVectors(t, nodes[0], 3)
	for _, req := range []*scatter.Request{
		{Table: "missing", Query: scatter.Text{}, K: 1},
		{Table: "idx", Query: scatter.KNN{Field: "missing", Vector: vector(0)}, K: 1},
	} {
		before := nodes[0].searcher.Stats()
		_, err := nodes[0].search(t.Context(), req, nil)
		require.ErrorContains(t, err, "missing")
		require.NotContains(t, err.Error(), "scatter")
		require.Equal(t, before.Fallbacks, nodes[0].searcher.Stats().Fallbacks)
	}
}

// silence makes a node unreachable for searches: dead, or hung.
func silence(t *testing.T, n *node, hung bool) {
	require.NoError(t, n.serving.Unsubscribe())
	if hung {
		_, err := n.engine.nc.Subscribe(searchSubject(n.cfg.name), func(*nats.Msg) {})
		require.NoError(t, err)
	}
	require.NoError(t, n.engine.nc.Flush())
}

func TestDeadNodeFailsNoSearch(t *testing.T) { testSilentNode(t, false) }
func TestHungNodeFailsNoSearch(t *testing.T) { testSilentNode(t, true) }

func testSilentNode(t *testing.T, hung bool) {
	nodes := joinNodes(t, 5)
	putVectors(t, nodes[0], 50)
	requireWhole(t, nodes, 0, 50)
	silence(t, nodes[4], hung)
	for i := range 20 {
		requireWhole(t, nodes[:4], i, 50)
	}
}

func TestNoHoldersAnswer(t *testing.T) {
	nodes := joinNodes(t, 5)
	putVectors(t, nodes[0], 50)
	requireWhole(t, nodes, 0, 50)
	for _, n := range nodes[2:] {
		silence(t, n, false)
	}
	var missing int
	for _, holders := range nodes[0].currentRing().holders {
		if !slices.Contains(holders, "n1") && !slices.Contains(holders, "n2") {
			missing++
		}
	}
	require.NotZero(t, missing)
	out, err := nodes[0].search(t.Context(), nearest(0, 10), nil)
	require.NoError(t, err)
	require.InDelta(t, 1-float64(missing)/partitions, out.response.Coverage, 1e-9)
	require.Len(t, out.warnings, 1)
	require.Contains(t, out.warnings[0], "n3: not running")
}

// An index that is behind the fence doesn't answer. A replica stands in for it.
func TestIndexBehindTheFence(t *testing.T) {
	nodes := joinNodes(t, 5)
	putVectors(t, nodes[0], 50)
	requireWhole(t, nodes, 0, 50)
	release := holdBack(t, nodes[4])
	for i := 50; i < 80; i++ {
		put(t, nodes[0], i)
	}
	for i := 50; i < 60; i++ {
		requireWhole(t, nodes[:4], i, 80)
	}

	releases := []func(){release}
	for _, n := range nodes[:4] {
		releases = append(releases, holdBack(t, n))
	}
	put(t, nodes[0], 80)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	out, err := nodes[0].search(ctx, nearest(80, 10), nil)
	require.NoError(t, err)
	require.True(t, out.response.Partial, "the partition of the last document has no answer")
	require.NotContains(t, ids(out), key(80))
	require.Contains(t, out.warnings[0], "of the keys")

	// What waits is answered as soon as the index has applied the fence.
	got := make(chan *found, 1)
	go func() {
		out, _ := nodes[0].search(t.Context(), nearest(80, 10), nil)
		got <- out
	}()
	for _, release := range releases {
		release()
	}
	out = <-got
	require.NotNil(t, out)
	require.Empty(t, out.warnings)
	require.Equal(t, bruteForce(80, 10, 81), ids(out))
}

// While nodes come and go, every answer is whole.
func TestRingChangesUnderSearches(t *testing.T) {
	nodes := joinNodes(t, 4)
	putVectors(t, nodes[0], 60)
	requireWhole(t, nodes, 0, 60)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i = (i + 1) % 60 {
				out, err := n.search(t.Context(), nearest(i, 10), nil)
				if err != nil || len(out.warnings) > 0 || !slices.Equal(ids(out), bruteForce(i, 10, 60)) {
					t.Errorf("%s: search %d: %v, %+v", n.cfg.name, i, err, out)
					return
				}
			}
		})
	}
	for range 3 {
		joinNode(t, nodes[0].cfg.nats, "n5")
		_, err := nodes[0].engine.changeMeta(t.Context(), "ring", func([]byte) ([]byte, error) {
			return []byte(`{"nodes":["n1","n2","n3","n4"]}`), nil
		})
		require.NoError(t, err)
	}
	stop()
	all.Wait()
	for _, n := range nodes {
		require.NoError(t, n.settle(t.Context()))
		require.Equal(t, names(4), n.currentRing().nodes)
	}
}

// A node that doesn't know the newest ring is refused by the others. It learns the ring and asks
// again.
func TestSearchByAnOldRing(t *testing.T) {
	url := testStore(t)
	var nodes []*node
	for _, name := range names(5) {
		nodes = append(nodes, joinNode(t, url, name, func(cfg *config) { cfg.session = true }))
	}
	putVectors(t, nodes[0], 50)
	for _, n := range nodes {
		require.NoError(t, n.catchUp(testContext(t, 30*time.Second)))
	}
	requireWhole(t, nodes, 0, 50)
	release := holdBack(t, nodes[0])
	nodes = append(nodes, joinNode(t, url, "n6"))
	for _, n := range nodes[1:] {
		require.NoError(t, n.settle(t.Context()))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	out, err := nodes[0].search(ctx, nearest(0, 10), nil)
	require.NoError(t, err)
	require.True(t, out.response.Partial)
	require.Contains(t, out.warnings[0], "another ring")

	got := make(chan *found, 1)
	go func() {
		out, _ := nodes[0].search(t.Context(), nearest(0, 10), nil)
		got <- out
	}()
	release()
	out = <-got
	require.NotNil(t, out)
	require.Empty(t, out.warnings)
	require.Equal(t, bruteForce(0, 10, 50), ids(out))
}

// A peer's malformed request is answered by an error, and is nothing else.
func TestMalformedRequestOfAPeer(t *testing.T) {
	n := joinNode(t, testStore(t), "n1")
	good, err := encodeQuestion(&scatter.Request{K: 1, Query: &question{Query: scatter.Text{}}}, time.Second)
	require.NoError(t, err)
	for name, m := range map[string]*nats.Msg{
		"empty":     {},
		"no header": {Data: good.Data},
		"bad JSON":  {Header: nats.Header{headerQuestion: {`{"Fence":7}`}}, Data: good.Data},
		"no FTQ1":   {Header: good.Header, Data: []byte("FTQ2")},
		"K is 0":    {Header: good.Header, Data: append(slices.Clone(good.Data[:4]), make([]byte, len(good.Data)-4)...)},
	} {
		t.Run(name, func(t *testing.T) {
			m.Subject = searchSubject("n1")
			reply, err := n.engine.nc.RequestMsgWithContext(testContext(t, 30*time.Second), m)
			require.NoError(t, err)
			require.NotEmpty(t, reply.Header.Get(headerError))
			require.Empty(t, reply.Data)
		})
	}
	putVectors(t, n, 3)
	requireWhole(t, []*node{n}, 0, 3)
}

func TestStopAndStartAgain(t *testing.T) {
	url, dir := testStore(t), t.TempDir()
	start := func() *node { return joinNode(t, url, "n1", func(cfg *config) { cfg.data = dir }) }
	n := start()
	putVectors(t, n, 10)
	requireWhole(t, []*node{n}, 0, 10)
	n.stop(testContext(t, 30*time.Second))
	_, err := n.search(t.Context(), nearest(0, 1), nil)
	require.Error(t, err)
	n = start()
	requireWhole(t, []*node{n}, 0, 10)
	require.Equal(t, []string{"n1"}, n.currentRing().nodes)
}
