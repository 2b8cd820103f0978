package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
)

// testRun lets an index follow a log until the function that it returns is called.
func testRun(t testing.TB, x *index, e *engine) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.run(ctx, e) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

func testMeta(t testing.TB, e *engine, name string, value []byte) {
	_, err := e.changeMeta(testContext(t, time.Minute), name, func([]byte) ([]byte, error) { return value, nil })
	require.NoError(t, err)
}

// testCaughtUp waits until an index has what the log has now, and returns all keys of index "l2".
func testCaughtUp(t testing.TB, x *index, e *engine) (keys []string) {
	ctx := testContext(t, time.Minute)
	last, errs := e.last(ctx)
	require.Empty(t, errs[meta])
	require.NoError(t, x.wait(ctx, positions{meta: last[meta]})) // it says what is held
	require.NoError(t, x.wait(ctx, last))
	hits, err := x.searchNow(ctx, &scatter.Request{Table: "l2", Query: scatter.Text{}, K: maxHits}, nil)
	require.NoError(t, err)
	for _, h := range hits {
		keys = append(keys, h.ID)
	}
	return keys
}

// TestFollow writes more than a batch before an index follows, and then more while it does.
func TestFollow(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	testMeta(t, e, "ring", []byte(`{"nodes":["me"]}`))
	testMeta(t, e, "index.l2", testSchemas()[0].encode())
	// All in one partition, so that it takes some batches.
	var keys []string
	for i := 0; len(keys) < 2*batchSize+10; i++ {
		if key := fmt.Sprint("key", i); partitionOf(key) == 5 {
			keys = append(keys, key)
			require.NoError(t, e.nc.Publish(subjectOf(5, key), hash("t", "x").encode()))
		}
	}
	require.Eventually(t, func() bool {
		last, err := e.lastOf(ctx, 5)
		return err == nil && last == uint64(len(keys))
	}, time.Minute, 10*time.Millisecond)
	path := filepath.Join(t.TempDir(), "index")
	x := testIndex(t, path)
	stop := testRun(t, x, e)
	require.ElementsMatch(t, keys, testCaughtUp(t, x, e))

	// Each write is seen by the next search.
	for i := range 50 {
		key := fmt.Sprint("new", i)
		require.NoError(t, e.set(ctx, key, hash("t", "y")))
		require.NoError(t, x.wait(ctx, e.acknowledged()))
		doc, held, err := x.document(ctx, key)
		require.NoError(t, err)
		require.True(t, held)
		require.Equal(t, hash("t", "y"), doc)
	}
	require.NoError(t, e.flush(ctx))
	require.Empty(t, testCaughtUp(t, x, e))
	stop()

	// What is written meanwhile is read later.
	require.NoError(t, e.set(ctx, "later", hash("t", "y")))
	stop = testRun(t, x, e)
	require.Equal(t, []string{"later"}, testCaughtUp(t, x, e))
	stop()
}

// TestFollowRing takes a partition from a node and gives it back, while documents are written.
func TestFollowRing(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	rings := []string{`{"nodes":["me"]}`, `{"nodes":["me","b","c","d","e","f"]}`, `{"nodes":["b","c","d"]}`, `{"nodes":["me","b"]}`}
	testMeta(t, e, "index.l2", testSchemas()[0].encode())
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	stop := testRun(t, x, e)
	defer stop()
	var keys []string
	for i := range 24 {
		testMeta(t, e, "ring", []byte(rings[i%4]))
		for j := range 5 {
			key := fmt.Sprint("key ", i, " ", j)
			keys = append(keys, key)
			require.NoError(t, e.set(ctx, key, hash("t", "x")))
		}
		if i%3 == 0 {
			continue // the ring changes again soon
		}
		got := testCaughtUp(t, x, e)
		var want []string
		for _, key := range keys {
			if x.topology().held[partitionOf(key)] {
				want = append(want, key)
			}
		}
		require.ElementsMatch(t, want, got)
	}
}

// TestFollowCorrupt lets a search find that the index is corrupt. It is built anew.
func TestFollowCorrupt(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	testMeta(t, e, "ring", []byte(`{"nodes":["me"]}`))
	testMeta(t, e, "index.l2", testSchemas()[0].encode())
	require.NoError(t, e.set(ctx, "key", hash("t", "x")))
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	stop := testRun(t, x, e)
	defer stop()
	require.Equal(t, []string{"key"}, testCaughtUp(t, x, e))
	require.ErrorIs(t, x.read(ctx, func(*conn) error { return errCorrupt }), errCorrupt)
	require.NoError(t, e.set(ctx, "another", hash("t", "x")))
	require.Eventually(t, func() bool { return len(x.broken) == 0 }, time.Minute, time.Millisecond)
	require.Equal(t, []string{"another", "key"}, testCaughtUp(t, x, e))
}

// TestFollowLost loses messages that the leader republishes. Batches have them.
func TestFollowLost(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	testMeta(t, e, "ring", []byte(`{"nodes":["me"]}`))
	testMeta(t, e, "index.l2", testSchemas()[0].encode())
	x := testIndex(t, filepath.Join(t.TempDir(), "index"))
	stop := testRun(t, x, e)
	defer stop()
	testCaughtUp(t, x, e)
	// A message that nobody stored, far ahead: the follower looks for what is before it, and goes
	// on.
	fake := nats.NewMsg("log.3.k.YQ")
	fake.Header.Set("Nats-Subject", "kv.3.k.YQ")
	fake.Header.Set("Nats-Sequence", "5")
	require.NoError(t, e.nc.PublishMsg(fake))
	var keys []string
	for i := 0; len(keys) < 10; i++ {
		if key := fmt.Sprint("key", i); partitionOf(key) == 3 {
			keys = append(keys, key)
			require.NoError(t, e.set(ctx, key, hash("t", "x")))
		}
	}
	require.ElementsMatch(t, keys, testCaughtUp(t, x, e))
}

// TestFollowWhole writes keys again and again while an index that is behind reads batches. What the
// index says that it has, it has.
func TestFollowWhole(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	testMeta(t, e, "ring", []byte(`{"nodes":["me"]}`))
	var keys []string
	for i := 0; len(keys) < batchSize+100; i++ {
		if key := fmt.Sprint("key", i); partitionOf(key) == 7 {
			keys = append(keys, key)
			require.NoError(t, e.nc.Publish(subjectOf(7, key), hash("n", "0").encode()))
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 5 {
		x := testIndex(t, filepath.Join(t.TempDir(), fmt.Sprint(round)))
		stop := testRun(t, x, e)
		written := make(map[string]string)
		for i := range 200 {
			key := keys[random.IntN(len(keys))]
			written[key] = fmt.Sprint(round, i)
			require.NoError(t, e.set(ctx, key, hash("n", written[key])))
			if i%20 > 0 {
				continue
			}
			require.NoError(t, x.wait(ctx, e.acknowledged()))
			for key, n := range written {
				doc, _, err := x.document(ctx, key)
				require.NoError(t, err)
				require.Equal(t, hash("n", n), doc)
			}
		}
		stop()
	}
}
