//go:build unix

package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/scatterknn/scatter"
	"golang.org/x/sync/errgroup"
)

// The figures in the README are of
//
//	go test -run '^TestLoad$' -v -timeout 2h ./kvproxy -load.documents 100000 -load.seconds 20
var (
	loadDocuments = flag.Int("load.documents", 500, "`number` of documents in TestLoad")
	loadDim       = flag.Int("load.dim", 128, "`number` of dimensions of their vectors")
	loadSeconds   = flag.Int("load.seconds", 1, "`seconds` that each measurement takes")
	loadClients   = flag.Int("load.clients", 4, "`number` of clients that search at the same time")
)

const (
	loadK       = 10
	loadQueries = 50
	loadWriters = 64              // clients that load documents: what they write goes to the disk together
	loadTimeout = 2 * time.Second // more than the program gives: a busy machine is slow, not wrong
)

// loadTest is documents, queries and their answers. The answers are those of a store with all documents.
type loadTest struct {
	*testing.T
	documents []string // their vectors, as HSET takes them
	queries   [][]float32
	answers   []outcome
	table     strings.Builder
}

func loadIndex() []any {
	return []any{"FT.CREATE", "idx", "PREFIX", 1, "doc:", "SCHEMA", "vec", "VECTOR", "FLAT", 6, "TYPE", "FLOAT32",
		"DIM", *loadDim, "DISTANCE_METRIC", "L2"}
}

// row adds what was measured to the table.
func (l *loadTest) row(what string, took []time.Duration, partial int, elapsed time.Duration) {
	slices.Sort(took)
	at := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	fmt.Fprintf(&l.table, "| %s | %.0f | %.2f | %.2f | %.2f | %d of %d |\n", what, float64(len(took))/elapsed.Seconds(),
		at(.5), at(.99), at(1), partial, len(took))
}

// engine measures a store by itself, with the first n documents, and returns what it answers.
func (l *loadTest) engine(n int) (answers []outcome) {
	l.Helper()
	s, err := openStore(l.TempDir())
	if err != nil {
		l.Fatal(err)
	}
	defer s.close()
	var args [][]byte
	for _, arg := range loadIndex()[1:] {
		args = append(args, fmt.Append(nil, arg))
	}
	index, err := parseCreate(args)
	if err != nil {
		l.Fatal(err)
	}
	changes := []change{{indexKey(index.Name), document{text: register{at: 1, value: index.encode()}}}}
	for i, vector := range l.documents[:n] {
		fields := map[string]register{"vec": {at: 1, value: []byte(vector)}}
		changes = append(changes, change{userKey(fmt.Append(nil, "doc:", i)), document{fields: fields}})
	}
	for some := range slices.Chunk(changes, 1000) {
		if err := s.apply(l.Context(), some); err != nil {
			l.Fatal(err)
		}
	}
	ask := func(query []float32) []scatter.Hit[string] {
		knn := scatter.KNN{Field: "vec", Vector: query}
		hits, err := s.search(l.Context(), &scatter.Request{Table: "idx", Query: knn, K: loadK})
		if err != nil {
			l.Fatal(err)
		}
		return hits
	}
	for _, query := range l.queries {
		hits := ask(query)
		a := outcome{total: len(hits)}
		for _, h := range hits {
			a.hits = append(a.hits, hit{id: h.ID, distance: formatDistance(h.Score)})
		}
		answers = append(answers, a)
	}
	var took []time.Duration
	began := time.Now()
	for i := 0; i == 0 || time.Since(began) < time.Duration(*loadSeconds)*time.Second; i++ {
		start := time.Now()
		ask(l.queries[i%len(l.queries)])
		took = append(took, time.Since(start))
	}
	l.row(fmt.Sprintf("the engine alone, %d documents, one client", n), took, 0, time.Since(began))
	return answers
}

// start starts a cluster and loads it with the documents.
func (l *loadTest) start(nodes, replicas int) *cluster {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
	defer cancel()
	c, err := startCluster(ctx, config{
		listen: "127.0.0.1:0", http: "127.0.0.1:0", gossip: "127.0.0.1:0", data: l.TempDir(), replicas: replicas,
		timeout: loadTimeout, clients: 1000,
	}, nodes, quiet)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(c.stop)
	client := redis.NewClient(&redis.Options{
		Addr: c.proxy.server.addr(), MaxRetries: -1, ContextTimeoutEnabled: true, ReadTimeout: time.Minute,
		PoolSize: loadWriters,
	})
	defer client.Close()
	if err := client.Do(l.Context(), loadIndex()...).Err(); err != nil {
		l.Fatal(err)
	}
	group, ctx := errgroup.WithContext(l.Context())
	began := time.Now()
	for worker := range loadWriters {
		group.Go(func() error {
			for i := worker; i < len(l.documents); i += loadWriters {
				if err := insist(ctx, client, "HSET", fmt.Sprint("doc:", i), "vec", l.documents[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		l.Fatal(err)
	}
	l.Logf("%d nodes have %d documents, each %d times: %.0f documents/s", nodes, len(l.documents), replicas,
		float64(len(l.documents))/time.Since(began).Seconds())
	return c
}

// measure has clients search for a while. An answer that isn't what the engine's was must say that it is partial.
func (l *loadTest) measure(what, addr string) {
	l.Helper()
	client := clientOf(addr)
	defer client.Close()
	type seen struct {
		took    []time.Duration
		partial int
	}
	all := make([]seen, *loadClients)
	group, ctx := errgroup.WithContext(l.Context())
	began := time.Now()
	for worker := range all {
		s := &all[worker]
		group.Go(func() error {
			for i := worker; len(s.took) == 0 || time.Since(began) < time.Duration(*loadSeconds)*time.Second; i++ {
				n := i % len(l.queries)
				start := time.Now()
				query := fmt.Sprintf("*=>[KNN %d @vec $v AS distance]", loadK)
				result, err := client.FTSearchWithArgs(ctx, "idx", query, &redis.FTSearchOptions{
					Params: map[string]any{"v": vectorBlob(l.queries[n])}, DialectVersion: 2,
					Return: []redis.FTSearchReturn{{FieldName: "distance"}},
				}).Result()
				s.took = append(s.took, time.Since(start))
				switch {
				case noQuorum(err), len(result.Warnings) > 0:
					s.partial++
				case err != nil:
					return err
				default:
					if got := outcomeOf(result); !got.equal(l.answers[n]) {
						return fmt.Errorf("query %d: the answer\n%v\nbut the engine's\n%v", n, got, l.answers[n])
					}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		l.Fatalf("%s: %v", what, err)
	}
	elapsed := time.Since(began)
	var sum seen
	for _, s := range all {
		sum.took = append(sum.took, s.took...)
		sum.partial += s.partial
	}
	l.row(what, sum.took, sum.partial, elapsed)
}

// TestLoad prints a table of how fast searches are. What it asserts is only that they are right.
func TestLoad(t *testing.T) {
	l := &loadTest{T: t}
	r := rand.New(rand.NewPCG(5, 6))
	random := func() []float32 {
		v := make([]float32, *loadDim)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	for range *loadDocuments {
		l.documents = append(l.documents, vectorBlob(random()))
	}
	for range loadQueries {
		l.queries = append(l.queries, random())
	}
	l.answers = l.engine(*loadDocuments)
	l.engine(*loadDocuments * 3 / 5) // what a node of five has, of three replicas

	c := l.start(5, 3)
	proxy := c.proxy.server.addr()
	l.measure("5 nodes, all up", proxy)
	c.nodes[0].signal(t, syscall.SIGSTOP)
	l.measure("5 nodes, one hangs since the beginning of this", proxy)
	c.nodes[0].signal(t, syscall.SIGCONT)
	waitReady(t, c)
	c.nodes[1].kill(t)
	l.measure("5 nodes, one is killed at the beginning of this", proxy)
	c.stop()

	c = l.start(1, 1)
	members := c.proxy.view.Load().members
	node := slices.IndexFunc(members, func(m member) bool { return m.name != c.proxy.name })
	l.measure("one node", members[node].addr)
	c.stop()
	t.Logf("%d documents of %d dimensions, K %d, %d clients\n\n| | searches/s | p50 ms | p99 ms | max ms | partial |\n"+
		"|---|---:|---:|---:|---:|---:|\n%s", *loadDocuments, *loadDim, loadK, *loadClients, &l.table)
}
