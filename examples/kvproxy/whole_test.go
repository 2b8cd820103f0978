package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
)

// Five nodes give the same answers as one index with everything, by each metric, with filters and
// without.
func TestFiveNodesEqualOneIndex(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	nodes, log := joinNodes(t, 5), new(testLog)
	log.ring("me")
	for _, s := range testSchemas() {
		log.define(s)
		_, err := nodes[0].engine.changeMeta(t.Context(), "index."+s.Name, func([]byte) ([]byte, error) {
			return s.encode(), nil
		})
		require.NoError(t, err)
	}
	for i := range 500 {
		key := []string{"a", "b", "c"}[random.IntN(3)] + fmt.Sprint(random.IntN(300))
		doc := randomDocument(random)
		if doc.kind == hashKey && random.IntN(3) > 0 {
			doc.fields["v"] = blob(float32(random.NormFloat64()), float32(random.NormFloat64()))
		}
		log.set(key, doc)
		require.NoError(t, nodes[i%5].engine.set(t.Context(), key, doc))
	}
	one := testIndex(t, filepath.Join(t.TempDir(), "index"))
	log.follow(t, one, random)
	for _, s := range testSchemas()[:3] {
		for i := range 200 {
			var f *filter
			if i%2 == 1 {
				f = randomFilter(random, 3)
			}
			vector := []float32{float32(random.NormFloat64()), float32(1 + random.IntN(3))}
			req := &scatter.Request{Table: s.Name, Query: scatter.KNN{Field: "vec", Vector: vector}, K: 1 + random.IntN(20)}
			want, err := one.searchNow(t.Context(), req, f)
			require.NoError(t, err)
			got, err := nodes[i%5].search(t.Context(), req, f)
			require.NoError(t, err)
			require.Empty(t, got.warnings)
			require.Len(t, got.response.Hits, len(want))
			for j := range want {
				require.Equal(t, want[j], got.response.Hits[j], "%s: %+v, %+v", s.Name, req, f)
			}
		}
	}
}

// Searches and writes leave no goroutines, files or memory behind.
func TestNothingLeaks(t *testing.T) {
	nodes := joinNodes(t, 3)
	putVectors(t, nodes[0], 50)
	work := func(rounds int) {
		for i := range rounds {
			n := nodes[i%3]
			put(t, n, i%50)
			out, err := n.search(t.Context(), nearest(i%50, 10), nil)
			require.NoError(t, err)
			_, err = n.documents(t.Context(), ids(out), out)
			require.NoError(t, err)
		}
	}
	// The least of some looks counts: what is under way in the background comes and goes.
	look := func() (goroutines, files int, heap uint64) {
		goroutines, files, heap = 1<<30, 1<<30, 1<<62
		for range 20 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			open, _ := os.ReadDir("/proc/self/fd") // elsewhere there are none to count
			goroutines, files, heap = min(goroutines, runtime.NumGoroutine()), min(files, len(open)), min(heap, m.HeapAlloc)
			time.Sleep(10 * time.Millisecond)
		}
		return goroutines, files, heap
	}
	work(300)
	goroutines, files, heap := look()
	work(900)
	g, f, h := look()
	t.Logf("goroutines %d and %d, files %d and %d, heap %d and %d kB", goroutines, g, files, f, heap>>10, h>>10)
	require.LessOrEqual(t, g, goroutines+5)
	require.LessOrEqual(t, f, files+3)
	require.Less(t, h, heap+8<<20)
}
