package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// testStore starts a store that is alone, and stops it at the end of the test.
func testStore(t testing.TB) (url string) {
	s, err := startStore(storeConfig{name: "store", listen: "127.0.0.1:0", data: t.TempDir(), lazy: true}, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(s.stop)
	return s.url()
}

// testEngine returns an engine on a store of its own. The streams exist.
func testEngine(t testing.TB) *engine { return testConnect(t, testStore(t), 1) }

func testConnect(t testing.TB, urls string, replicas int) *engine {
	e, err := connect(testContext(t, time.Minute), urls, t.Name(), replicas, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(e.close)
	return e
}

// testContext ends after a time, at the latest with the test.
func testContext(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// testStores starts a cluster of three stores, and stops them at the end of the test.
func testStores(t testing.TB) (stores []*store, urls string) {
	ports, err := freePorts(3)
	require.NoError(t, err)
	var started errgroup.Group
	stores, all := make([]*store, 3), make([]string, 3)
	routes := make([]string, 3)
	for i, port := range ports {
		routes[i] = fmt.Sprintf("nats://127.0.0.1:%d", port)
	}
	for i, port := range ports {
		dir := t.TempDir()
		started.Go(func() (err error) {
			stores[i], err = startStore(storeConfig{
				name: fmt.Sprintf("store%d", i+1), listen: "127.0.0.1:0", data: dir, lazy: true,
				cluster: fmt.Sprintf("127.0.0.1:%d", port), routes: routes,
			}, zap.NewNop())
			if err == nil {
				t.Cleanup(stores[i].stop)
				all[i] = stores[i].url()
			}
			return err
		})
	}
	require.NoError(t, started.Wait())
	return stores, strings.Join(all, ",")
}
