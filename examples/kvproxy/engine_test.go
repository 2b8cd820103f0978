package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

func stringDocument(text string) document { return document{kind: stringKey, text: []byte(text)} }

// addField returns an edit that sets a field.
func addField(name, value string) func(*document) (bool, error) {
	return func(d *document) (bool, error) {
		if d.kind == noKey {
			*d = document{kind: hashKey, fields: map[string][]byte{}}
		}
		d.fields[name] = []byte(value)
		return true, nil
	}
}

func TestChangesOfOneHashLoseNoField(t *testing.T) {
	ctx, url := testContext(t, time.Minute), testStore(t)
	engines := []*engine{testConnect(t, url, 1), testConnect(t, url, 1)}
	const writers, each = 8, 50
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				if !assert.NoError(t, engines[w%2].change(ctx, "hash", addField(fmt.Sprintf("%d-%d", w, i), "v"))) {
					return
				}
			}
		})
	}
	all.Wait()
	doc, err := engines[0].read(ctx, "hash")
	require.NoError(t, err)
	require.Len(t, doc.fields, writers*each)
	last, errs := engines[1].last(ctx)
	require.Zero(t, errs)
	p := partitionOf("hash")
	require.EqualValues(t, writers*each, last[p])
	require.Equal(t, last[p], max(engines[0].acknowledged()[p], engines[1].acknowledged()[p]))
}

func TestKeysAreAnyBytes(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	keys := []string{"", "-", ".", "*", ">", " ", "\x00", "\xff\xfe", "a.b", "é", strings.Repeat("k", maxKey)}
	for _, key := range keys {
		require.NoError(t, e.set(ctx, key, stringDocument("of "+key)))
	}
	docs, err := e.readAll(ctx, keys)
	require.NoError(t, err)
	for i, key := range keys {
		require.Equal(t, "of "+key, string(docs[i].text))
	}
	require.ElementsMatch(t, keys, scanAll(t, e, 3))
}

// scanAll returns the keys that a scan returns, each once.
func scanAll(t *testing.T, e *engine, count int) []string {
	ctx := testContext(t, time.Minute)
	seen, keys := map[string]bool{}, []string(nil)
	for cursor := uint64(0); ; {
		found, next, err := e.scan(ctx, cursor, count)
		require.NoError(t, err)
		for _, s := range found {
			require.Contains(t, []kind{stringKey, hashKey}, s.kind)
			if !seen[s.key] {
				seen[s.key] = true
				keys = append(keys, s.key)
			}
		}
		if cursor = next; cursor == 0 {
			return keys
		}
	}
}

func TestScanReturnsAllThatExistsThroughout(t *testing.T) {
	t.Run("one store", func(t *testing.T) { testScan(t, testEngine(t)) })
	t.Run("three stores", func(t *testing.T) {
		_, urls := testStores(t)
		testScan(t, testConnect(t, urls, 3))
	})
}

func testScan(t *testing.T, e *engine) {
	ctx := testContext(t, time.Minute)
	var keys []string
	for i := range 200 {
		keys = append(keys, fmt.Sprint("key", i))
		require.NoError(t, e.set(ctx, keys[i], stringDocument("first")))
	}
	writing, stop := context.WithCancel(ctx)
	defer stop()
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for w := range 4 {
		writers.Go(func() {
			for i := w; writing.Err() == nil; i += 4 {
				// A short-lived key and one that moves in its stream.
				_ = e.set(writing, fmt.Sprint("other", i%500), stringDocument("x"))
				_ = e.set(writing, keys[i%len(keys)], stringDocument("again"))
				_ = e.set(writing, fmt.Sprint("other", i%500), document{})
			}
		})
	}
	for range 10 {
		require.Subset(t, scanAll(t, e, 7), keys)
	}
}

func TestScanEndsWhereThereIsNothing(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	require.Empty(t, scanAll(t, e, 10))
	require.NoError(t, e.set(ctx, "key", stringDocument("x")))
	require.NoError(t, e.set(ctx, "key", document{}))
	require.Empty(t, scanAll(t, e, 10))
	found, _, err := e.scan(ctx, math.MaxUint64, 10)
	require.NoError(t, err, "a cursor that nobody was given")
	require.Empty(t, found)
}

func TestFlushDeletesWhatWasWrittenBefore(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	_, err := e.changeMeta(ctx, "index.i", func([]byte) ([]byte, error) { return []byte("schema"), nil })
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, e.set(ctx, fmt.Sprint(i), stringDocument("x")))
	}
	require.NoError(t, e.flush(ctx))
	require.Empty(t, scanAll(t, e, 10))
	doc, err := e.read(ctx, "7")
	require.NoError(t, err)
	require.Zero(t, doc)

	require.NoError(t, e.change(ctx, "7", addField("f", "v")))
	require.Equal(t, []string{"7"}, scanAll(t, e, 10))
	entries, _, err := e.entries(ctx, partitionOf("7"), 0, 10)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.True(t, entries[0].flush)
	_, err = e.changeMeta(ctx, "index.i", func(old []byte) ([]byte, error) {
		require.Equal(t, "schema", string(old))
		return nil, nil
	})
	require.NoError(t, err)
}

func TestWhatIsTooLargeIsAnError(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	long := strings.Repeat("k", maxKey+1)
	require.ErrorContains(t, e.set(ctx, long, stringDocument("x")), "the key is 1025 bytes")
	require.ErrorContains(t, e.change(ctx, long, addField("f", "v")), "the key is 1025 bytes")
	require.NoError(t, e.set(ctx, "large", stringDocument(strings.Repeat("x", maxDocument-1))))
	doc, err := e.read(ctx, "large")
	require.NoError(t, err)
	require.Len(t, doc.text, maxDocument-1)
	require.ErrorContains(t, e.set(ctx, "large", stringDocument(strings.Repeat("x", maxDocument))), "4194305 bytes")
}

func TestWritesGoOnAfterStoresHaveDied(t *testing.T) {
	c, urls := testProcesses(t)
	e := testConnect(t, urls, stores)
	ctx := testContext(t, time.Minute)
	require.NoError(t, e.change(ctx, "hash", addField("first", "v")))
	for _, p := range c.stores[:2] {
		require.NoError(t, p.cmd.Process.Kill())
		<-p.done
	}
	short := testContext(t, 300*time.Millisecond)
	err := e.set(short, "key", stringDocument("x"))
	require.ErrorIs(t, err, errNoQuorum)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Regexp(t, "^NOQUORUM ", err.Error())

	require.NoError(t, c.stores[0].start())
	require.NoError(t, e.change(ctx, "hash", addField("second", "v")))
	doc, err := e.read(ctx, "hash")
	require.NoError(t, err)
	require.Len(t, doc.fields, 2)
}

func TestNothingHangsWhileTheOnlyStoreIsDown(t *testing.T) {
	cfg := storeConfig{name: "store", listen: "127.0.0.1:0", data: t.TempDir(), lazy: true}
	s, err := startStore(cfg, zap.NewNop())
	require.NoError(t, err)
	cfg.listen = strings.TrimPrefix(s.url(), "nats://")
	e := testConnect(t, s.url(), 1)
	ctx := testContext(t, time.Minute)
	require.NoError(t, e.set(ctx, "key", stringDocument("x")))
	s.stop()

	short := func() context.Context { return testContext(t, 50*time.Millisecond) }
	_, err = e.read(short(), "key")
	require.ErrorIs(t, err, errNoQuorum)
	_, err = e.readAll(short(), []string{"key", "other"})
	require.ErrorIs(t, err, errNoQuorum)
	require.ErrorIs(t, e.set(short(), "key", stringDocument("y")), errNoQuorum)
	require.ErrorIs(t, e.change(short(), "key", addField("f", "v")), errNoQuorum)
	require.ErrorIs(t, e.flush(short()), errNoQuorum)
	_, _, err = e.scan(short(), 0, 10)
	require.ErrorIs(t, err, errNoQuorum)
	_, _, err = e.entries(short(), 0, 0, 10)
	require.ErrorIs(t, err, errNoQuorum)
	_, errs := e.last(short())
	for _, err := range errs {
		require.ErrorIs(t, err, errNoQuorum)
	}
	_, err = connect(short(), s.url(), "late", 1, zap.NewNop())
	require.ErrorContains(t, err, s.url())

	s, err = startStore(cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(s.stop)
	doc, err := e.read(ctx, "key")
	require.NoError(t, err)
	require.Equal(t, "x", string(doc.text), "a write that failed doesn't come later")
	require.NoError(t, e.set(ctx, "key", stringDocument("z")))
	require.NoError(t, e.change(ctx, "key", func(d *document) (bool, error) {
		require.Equal(t, "z", string(d.text))
		return false, nil
	}))
}

func TestStreamsThatAreNotOursAreAnError(t *testing.T) {
	url := testStore(t)
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	ctx := testContext(t, time.Minute)
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "kv3"})
	require.NoError(t, err)
	_, err = connect(ctx, url, "name", 1, zap.NewNop())
	require.ErrorContains(t, err, "stream kv3: it exists")
	_, err = connect(ctx, testStore(t), "name", 3, zap.NewNop())
	require.ErrorContains(t, err, "replicas > 1 not supported")
}

func TestChangeMeta(t *testing.T) {
	e, ctx := testEngine(t), testContext(t, time.Minute)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, err := e.changeMeta(ctx, "ring", func(old []byte) ([]byte, error) { return append(old, 'x'), nil })
			assert.NoError(t, err)
		})
	}
	all.Wait()
	seq, err := e.changeMeta(ctx, "ring", func(old []byte) ([]byte, error) {
		require.Len(t, old, 50)
		return old, nil
	})
	require.NoError(t, err)
	require.EqualValues(t, 50, seq, "the sequence of the value that stays")
	_, err = e.changeMeta(ctx, "ring", func([]byte) ([]byte, error) { return nil, io.EOF })
	require.ErrorIs(t, err, io.EOF)
	entries, next, err := e.entries(ctx, meta, 0, 10)
	require.NoError(t, err)
	require.EqualValues(t, 51, next)
	require.Equal(t, "ring", entries[0].key)
}
