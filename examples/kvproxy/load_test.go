//go:build unix

package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// The figures in the README are of
//
//	go test -run '^TestLoad$' -v -timeout 1h . -load.documents 20000 -load.seconds 15
//
// With -load.addr the same load goes to another server that understands FT.SEARCH.
var (
	loadDocuments = flag.Int("load.documents", 300, "`number` of documents in TestLoad")
	loadSeconds   = flag.Int("load.seconds", 1, "`seconds` that each measurement takes")
	loadAddr      = flag.String("load.addr", "", "`address` of a server to load instead of clusters of the test's own")
)

const (
	loadDim     = 128
	loadK       = 10
	loadClients = 4
	loadWriters = 64 // clients that load the documents
	loadQueries = 50
)

// TestLoad prints how fast searches are. It asserts only that they are right.
func TestLoad(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	random := func() []float32 {
		v := make([]float32, loadDim)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	documents, queries := make([][]float32, *loadDocuments), make([][]float32, loadQueries)
	for i := range documents {
		documents[i] = random()
	}
	var answers [][]string
	for i := range queries {
		queries[i] = random()
		answers = append(answers, nearestOf(documents, queries[i], loadK))
	}
	if *loadAddr != "" {
		load(t, *loadAddr, documents)
		measure(t, *loadAddr, queries, answers)
		return
	}
	for _, fresh := range []string{"log", "session"} {
		c := startTestCluster(t, 5, "-fresh="+fresh)
		address := c.clients["node1"].Options().Addr
		t.Logf("-fresh=%s", fresh)
		load(t, address, documents)
		measure(t, address, queries, answers)
		c.stop()
	}
}

// nearestOf returns the keys of the k documents that are nearest to a query.
func nearestOf(documents [][]float32, query []float32, k int) []string {
	type far struct {
		key      string
		distance float64
	}
	all := make([]far, len(documents))
	for i, v := range documents {
		all[i].key = fmt.Sprint("doc:", i)
		for j := range v {
			d := float64(v[j]) - float64(query[j])
			all[i].distance += d * d
		}
	}
	slices.SortFunc(all, func(a, b far) int {
		switch {
		case a.distance < b.distance:
			return -1
		case a.distance > b.distance:
			return 1
		}
		return 0
	})
	var keys []string
	for _, a := range all[:min(k, len(all))] {
		keys = append(keys, a.key)
	}
	return keys
}

// load stores the documents.
func load(t *testing.T, addr string, documents [][]float32) {
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ReadTimeout: time.Minute, PoolSize: loadWriters})
	defer client.Close()
	require.NoError(t, client.Do(t.Context(), "FT.CREATE", "idx", "PREFIX", 1, "doc:", "SCHEMA", "vec", "VECTOR", "FLAT", 6,
		"TYPE", "FLOAT32", "DIM", loadDim, "DISTANCE_METRIC", "L2").Err())
	began := time.Now()
	group, ctx := errgroup.WithContext(t.Context())
	for worker := range loadWriters {
		group.Go(func() error {
			for i := worker; i < len(documents); i += loadWriters {
				if err := client.HSet(ctx, fmt.Sprint("doc:", i), "vec", string(blob(documents[i]...))).Err(); err != nil {
					return fmt.Errorf("document %d: %w", i, err)
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	t.Logf("%d documents of %d dimensions: %.0f a second", len(documents), loadDim,
		float64(len(documents))/time.Since(began).Seconds())
}

// measure searches for a while with several clients.
func measure(t *testing.T, addr string, queries [][]float32, answers [][]string) {
	client := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, MaxRetries: -1, ReadTimeout: time.Minute})
	defer client.Close()
	took := make([][]time.Duration, loadClients)
	failed := make([]int, loadClients)
	began := time.Now()
	end := began.Add(time.Duration(*loadSeconds) * time.Second)
	group, ctx := errgroup.WithContext(t.Context())
	for worker := range loadClients {
		group.Go(func() error {
			for i := worker; i == worker || time.Now().Before(end); i++ {
				n := i % len(queries)
				start := time.Now()
				keys, err := searchNearest(ctx, client, queries[n], loadK)
				took[worker] = append(took[worker], time.Since(start))
				if err != nil {
					failed[worker]++
				} else if !slices.Equal(keys, answers[n]) {
					return fmt.Errorf("query %d: the answer is %v, want %v", n, keys, answers[n])
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	elapsed := time.Since(began).Seconds()
	all, errors := slices.Concat(took...), 0
	for _, n := range failed {
		errors += n
	}
	slices.Sort(all)
	at := func(share float64) time.Duration {
		return all[int(share*float64(len(all)-1))].Round(10 * time.Microsecond)
	}
	t.Logf("%d clients: %.0f searches/s, p50 %v, p99 %v, max %v; %d partial or failed", loadClients,
		float64(len(all))/elapsed, at(.5), at(.99), at(1), errors)
}

// searchNearest returns the keys of the k documents nearest to a vector.
func searchNearest(ctx context.Context, client *redis.Client, v []float32, k int) ([]string, error) {
	reply, err := client.Do(ctx, "FT.SEARCH", "idx", fmt.Sprintf("*=>[KNN %d @vec $v AS distance]", k),
		"PARAMS", 2, "v", string(blob(v...)), "RETURN", 1, "distance", "SORTBY", "distance", "LIMIT", 0, k, "DIALECT", 2).Slice()
	if err != nil {
		return nil, err
	}
	var keys []string
	for i := 1; i < len(reply); i += 2 {
		keys = append(keys, reply[i].(string))
	}
	return keys, nil
}
