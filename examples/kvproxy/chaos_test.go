//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestMain has the test binary be a node when a cluster starts it as one.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// quiet logs nothing: in these tests much goes wrong on purpose.
var quiet = zap.New(zapcore.NewCore(
	zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), zapcore.AddSync(io.Discard), zap.FatalLevel,
))

// newTestCluster starts a cluster, whose nodes are processes, and a client of its proxy.
func newTestCluster(t testing.TB, nodes int) (*cluster, *redis.Client) {
	t.Helper()
	before := runtime.NumGoroutine()
	cfg := config{
		listen: "127.0.0.1:0", http: "127.0.0.1:0", gossip: "127.0.0.1:0", data: t.TempDir(), replicas: 3,
		timeout: searchTime, clients: 1000,
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := startCluster(ctx, cfg, nodes, quiet)
	if err != nil {
		t.Fatal(err)
	}
	client := clientOf(c.proxy.server.addr())
	t.Cleanup(func() {
		client.Close()
		c.stop()
		for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines more than before:\n%s", runtime.NumGoroutine()-before, stacks[:runtime.Stack(stacks, true)])
				break
			}
		}
	})
	return c, client
}

func clientOf(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, Protocol: 3, MaxRetries: -1, ContextTimeoutEnabled: true, ReadTimeout: time.Minute,
	})
}

// searchTime is what a search has in these tests, and grace what it may take beyond it on a machine that has much to
// do.
const (
	searchTime = 3 * time.Second
	grace      = 5 * time.Second
)

// found is the reply to a search for all documents.
type found struct {
	ids      map[string]bool
	warnings []any
	err      error
}

func everything(ctx context.Context, client *redis.Client) found {
	reply, err := client.Do(ctx, "FT.SEARCH", "idx", "*", "NOCONTENT", "LIMIT", 0, 10_000).Result()
	if err != nil {
		return found{err: err}
	}
	fields := reply.(map[any]any)
	f := found{ids: make(map[string]bool), warnings: fields["warning"].([]any)}
	for _, doc := range fields["results"].([]any) {
		f.ids[doc.(map[any]any)["id"].(string)] = true
	}
	return f
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.done
	p.hold.Close()
}

// load is writers and searchers that go on while a test does harm to the nodes.
type load struct {
	t        *testing.T
	cluster  *cluster
	proxy    *redis.Client
	mu       sync.Mutex
	acked    map[string]string // what was acknowledged
	writes   atomic.Int64      // acknowledged
	failed   atomic.Int64      // writes that gave an error
	searches atomic.Int64      // whole ones
	partial  atomic.Int64      // those that say so
}

func (l *load) write(ctx context.Context, worker int) {
	for i := 0; ctx.Err() == nil; i++ {
		key, value := fmt.Sprintf("doc:%d-%d", worker, i%300), fmt.Sprint("title ", worker, " ", i) // after a while again
		err := l.proxy.HSet(ctx, key, "title", value).Err()
		switch {
		case err == nil:
			l.mu.Lock()
			l.acked[key] = value
			l.mu.Unlock()
			l.writes.Add(1)
		case ctx.Err() == nil:
			l.failed.Add(1)
			l.mu.Lock()
			delete(l.acked, key) // it has the old value or the new one
			l.mu.Unlock()
		}
	}
}

// search looks for all documents: an answer that doesn't say that it is partial has each that was acknowledged before.
func (l *load) search(ctx context.Context) {
	for ctx.Err() == nil {
		l.mu.Lock()
		want := make([]string, 0, len(l.acked))
		for key := range l.acked {
			want = append(want, key)
		}
		l.mu.Unlock()
		began := time.Now()
		f := everything(ctx, l.proxy)
		if took := time.Since(began); took > searchTime+grace {
			l.t.Errorf("a search took %v", took)
		}
		switch {
		case ctx.Err() != nil:
		case f.err != nil && strings.HasPrefix(f.err.Error(), "NOQUORUM"), len(f.warnings) > 0:
			l.partial.Add(1)
		case f.err != nil:
			l.t.Errorf("a search: %v", f.err)
		default:
			l.searches.Add(1)
			for _, key := range want {
				if !f.ids[key] {
					l.t.Errorf("a search that calls itself whole lacks %s", key)
					return
				}
			}
		}
	}
}

// passes waits until so many more writes are acknowledged, and searches whole.
func (l *load) passes(writes, searches int64) {
	l.t.Helper()
	w, s := l.writes.Load()+writes, l.searches.Load()+searches
	began := time.Now()
	failed, partial := l.failed.Load(), l.partial.Load()
	for l.writes.Load() < w || l.searches.Load() < s {
		if time.Since(began) > time.Minute {
			l.t.Fatalf("only %d of %d writes and %d of %d whole searches in a minute", l.writes.Load()-w+writes, writes,
				l.searches.Load()-s+searches, searches)
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Logf("%d writes and %d failed, %d searches and %d partial, in %v", l.writes.Load()-w+writes,
		l.failed.Load()-failed, l.searches.Load()-s+searches, l.partial.Load()-partial, time.Since(began))
}

// No acknowledged write is lost, and no search is silently wrong, whichever nodes are killed, started again or stopped.
func TestChaos(t *testing.T) {
	c, proxy := newTestCluster(t, 5)
	if err := proxy.Do(t.Context(), "FT.CREATE", "idx", "PREFIX", 1, "doc:", "SCHEMA", "title", "TEXT").Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := &load{t: t, cluster: c, proxy: proxy, acked: make(map[string]string)}
	var workers sync.WaitGroup
	for i := range 4 {
		workers.Go(func() { l.write(ctx, i) })
	}
	for range 2 {
		workers.Go(func() { l.search(ctx) })
	}
	again := func(p *process) {
		t.Helper()
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	whole := func(nodes int) { // so many are up and current
		t.Helper()
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			v := c.proxy.view.Load()
			current := 0
			for _, s := range c.proxy.statuses(t.Context(), v) {
				if s.current && s.ring == v.fingerprint {
					current++
				}
			}
			if current == nodes+1 { // and the proxy
				return
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("%d of %d nodes are current after a minute", current-1, nodes)
			}
		}
	}
	rest := func(what string) {
		t.Helper()
		t.Log(what)
		l.passes(200, 20)
	}
	nodes := c.nodes
	rest("all are up")
	nodes[0].kill(t)
	rest("one is killed")
	again(nodes[0])
	rest("it is up again")
	whole(5)
	nodes[1].signal(t, syscall.SIGSTOP)
	rest("one is stopped")
	nodes[1].signal(t, syscall.SIGCONT)
	rest("it goes on")
	whole(5)
	nodes[2].kill(t)
	nodes[3].kill(t)
	l.passes(0, 20)
	t.Log("two were killed: searches are whole still")
	again(nodes[2])
	again(nodes[3])
	whole(5)
	rest("they are up again")
	for _, p := range nodes[:3] {
		p.kill(t)
	}
	for partial := l.partial.Load(); l.partial.Load() < partial+5; { // on 80 ranges each three nodes hold one
		time.Sleep(10 * time.Millisecond)
	}
	t.Log("three were killed: searches say that they are partial")
	for _, p := range nodes[:3] {
		again(p)
	}
	whole(5)
	rest("they are up again")
	cancel()
	workers.Wait()
	whole(5)

	// Each node has it all, one way or the other.
	for _, m := range c.proxy.view.Load().members {
		client := clientOf(m.addr)
		defer client.Close()
		for key, want := range l.acked {
			if got, err := client.HGet(t.Context(), key, "title").Result(); err != nil || got != want {
				t.Fatalf("%s: %s is %q, %v, want %q", m.name, key, got, err, want)
			}
		}
		f := everything(t.Context(), client)
		if f.err != nil || len(f.warnings) > 0 {
			t.Fatalf("%s: %v, %v", m.name, f.err, f.warnings)
		}
		for key := range l.acked {
			if !f.ids[key] {
				t.Fatalf("%s: a search lacks %s", m.name, key)
			}
		}
	}
	t.Logf("%d writes, %d failed; %d searches, %d partial", l.writes.Load(), l.failed.Load(), l.searches.Load(),
		l.partial.Load())
}

// A node that is started where those are down who have what it lacks knows that it lacks something.
func TestStartedAgainAlone(t *testing.T) {
	c, proxy := newTestCluster(t, 3)
	if err := proxy.Do(t.Context(), "FT.CREATE", "idx", "PREFIX", 1, "doc:", "SCHEMA", "title", "TEXT").Err(); err != nil {
		t.Fatal(err)
	}
	a, b, late := c.nodes[0], c.nodes[1], c.nodes[2]
	late.kill(t)
	const documents = 50
	for i := range documents {
		if err := proxy.HSet(t.Context(), fmt.Sprint("doc:", i), "title", "a title").Err(); err != nil {
			t.Fatal(err)
		}
	}
	a.kill(t)
	b.kill(t)
	if err := late.start(); err != nil {
		t.Fatal(err)
	}
	look := func() found { // with all of it, or an error, or a warning
		f := everything(t.Context(), proxy)
		if f.err == nil && len(f.warnings) == 0 && len(f.ids) != documents {
			t.Fatalf("a search that calls itself whole has %d of %d documents", len(f.ids), documents)
		}
		if title, err := proxy.HGet(t.Context(), "doc:7", "title").Result(); title != "a title" &&
			(err == nil || !strings.HasPrefix(err.Error(), "NOQUORUM")) {
			t.Fatalf("a document that was acknowledged is %q, %v", title, err)
		}
		return f
	}
	up := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, ok := c.proxy.statuses(ctx, c.proxy.view.Load())["node3"]
		return ok
	}
	for began, looks := time.Now(), 0; looks < 20; { // since it is up
		if up() {
			looks++
		}
		look()
		if time.Since(began) > time.Minute {
			t.Fatal("it isn't up after a minute")
		}
	}
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; {
		if f := look(); f.err == nil && len(f.warnings) == 0 {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("no whole search after a minute")
		}
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
}
