//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

const chaosDim = 32

// chaos writes documents and searches for each one as soon as it is acknowledged, through another
// node, by the document's own vector.
type chaos struct {
	*testCluster
	use   []string             // guarded by mu; the nodes that the workers talk to
	acked map[string][]float32 // guarded by mu; what was acknowledged

	writes, failed  atomic.Int64 // acknowledged, and not
	whole, doubtful atomic.Int64 // searches, and those that vouched for less than everything
	lastFailure     atomic.Value
	outage          atomic.Bool // nobody may be there to say why a search fails
}

// newChaos starts a cluster with so many nodes. The test is skipped if it has to be short.
func newChaos(t *testing.T, nodes int) *chaos {
	if testing.Short() {
		t.Skip("takes up to a minute")
	}
	x := &chaos{testCluster: startTestCluster(t, nodes), acked: make(map[string][]float32)}
	x.begin()
	return x
}

// begin makes the index. From then on the workers may use all nodes.
func (x *chaos) begin() {
	x.avoid()
	require.NoError(x.t, x.clients[x.use[0]].Do(x.t.Context(), "FT.CREATE", "idx", "PREFIX", 1, "doc:", "SCHEMA", "vec",
		"VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DIM", chaosDim, "DISTANCE_METRIC", "L2").Err())
}

// two returns two different nodes that the workers may talk to.
func (x *chaos) two(r *rand.Rand) (*redis.Client, *redis.Client) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := r.IntN(len(x.use))
	j := (i + 1 + r.IntN(len(x.use)-1)) % len(x.use)
	return x.clients[x.use[i]], x.clients[x.use[j]]
}

// avoid makes the workers talk to all nodes but some.
func (x *chaos) avoid(names ...string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.use = nil
	for _, p := range x.nodes {
		if !slices.Contains(names, p.name) {
			x.use = append(x.use, p.name)
		}
	}
}

func (x *chaos) work(ctx context.Context, worker uint64) {
	r := rand.New(rand.NewPCG(worker, 9))
	for i := 0; ctx.Err() == nil; i++ {
		v := make([]float32, chaosDim)
		for j := range v {
			v[j] = float32(r.NormFloat64())
		}
		key := fmt.Sprintf("doc:%d:%d", worker, i)
		writer, reader := x.two(r)
		if err := writer.HSet(ctx, key, "vec", string(blob(v...))).Err(); err != nil {
			x.failed.Add(1)
			x.lastFailure.Store("write: " + err.Error())
			continue
		}
		x.writes.Add(1)
		x.mu.Lock()
		x.acked[key] = v
		x.mu.Unlock()
		outage := x.outage.Load() // a dial that begins in it may end after it
		keys, err := searchNearest(ctx, reader, v, 3)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			x.doubtful.Add(1)
			x.lastFailure.Store("search: " + err.Error())
			said := strings.HasPrefix(err.Error(), "PARTIAL") || strings.HasPrefix(err.Error(), "NOQUORUM")
			if !said && !outage && !x.outage.Load() {
				x.t.Errorf("a search: %v", err)
			}
		case len(keys) == 0 || keys[0] != key:
			x.t.Errorf("%s was acknowledged, and a search through another node finds %v", key, keys)
		default:
			x.whole.Add(1)
		}
	}
}

// startWork starts workers. It returns a function that stops them and can be called twice.
func (x *chaos) startWork(count int) (stop func()) {
	ctx, cancel := context.WithCancel(x.t.Context())
	var workers sync.WaitGroup
	for i := range count {
		workers.Go(func() { x.work(ctx, uint64(i)) })
	}
	return sync.OnceFunc(func() { cancel(); workers.Wait() })
}

// pass waits until there are 50 more acknowledged writes, each found, and returns how many writes
// failed meanwhile and how many searches were doubtful.
func (x *chaos) pass(what string) (failed, doubtful int64) {
	x.t.Helper()
	began := time.Now()
	failed, doubtful = x.failed.Load(), x.doubtful.Load()
	whole := x.whole.Load()
	for want := whole + 50; x.whole.Load() < want; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 90*time.Second {
			x.t.Fatalf("%s: only %d whole searches in %v; last: %v", what, x.whole.Load()-whole, time.Since(began),
				x.lastFailure.Load())
		}
	}
	failed, doubtful = x.failed.Load()-failed, x.doubtful.Load()-doubtful
	x.t.Logf("%s: 50 documents written and found in %v; %d writes failed, %d searches doubtful; last: %v", what,
		time.Since(began).Round(time.Millisecond), failed, doubtful, x.lastFailure.Load())
	return failed, doubtful
}

// undisturbed fails the test unless nobody notices what has happened.
func (x *chaos) undisturbed(what string) {
	x.t.Helper()
	failed, doubtful := x.pass(what)
	require.Zero(x.t, failed, "%s: writes failed: %v", what, x.lastFailure.Load())
	require.Zero(x.t, doubtful, "%s: searches failed: %v", what, x.lastFailure.Load())
}

// recovers waits until nobody notices anything any more.
func (x *chaos) recovers(what string) {
	x.t.Helper()
	for began := time.Now(); ; {
		if failed, doubtful := x.pass(what); failed+doubtful == 0 {
			return
		}
		require.Less(x.t, time.Since(began), 2*time.Minute, what)
	}
}

// No acknowledged write is lost, and each one is found at once through another node, or the answer
// says that it can't vouch for all of it, whatever is killed or stopped. If a node dies or hangs,
// nobody who talks to the others notices.
func TestChaos(t *testing.T) {
	x := newChaos(t, 5)
	c := x.cluster
	stopWork := x.startWork(4)
	defer stopWork()

	x.recovers("all are up")

	x.avoid("node1")
	time.Sleep(time.Second) // what is under way through node1 comes to its end
	x.pass("before")
	x.kill(c.nodes[0])
	x.undisturbed("a node is dead")
	x.again(c.nodes[0])
	x.undisturbed("it starts")

	x.avoid("node2")
	time.Sleep(time.Second)
	x.pass("before")
	x.signal(c.nodes[1], syscall.SIGSTOP)
	x.undisturbed("a node hangs")
	x.signal(c.nodes[1], syscall.SIGCONT)
	x.undisturbed("it goes on")
	x.avoid()

	x.kill(c.stores[0])
	x.recovers("a store is dead")
	x.again(c.stores[0])
	x.recovers("it is back")
	x.signal(c.stores[1], syscall.SIGSTOP)
	x.recovers("a store hangs")
	x.signal(c.stores[1], syscall.SIGCONT)
	x.recovers("it goes on")

	x.outage.Store(true)
	all := slices.Concat(c.stores, c.nodes)
	for _, p := range all {
		x.kill(p)
	}
	time.Sleep(100 * time.Millisecond)
	var starting sync.WaitGroup
	for _, p := range c.stores {
		starting.Go(func() { x.again(p) })
	}
	starting.Wait()
	for _, p := range c.nodes {
		x.again(p)
	}
	x.outage.Store(false)
	x.recovers("all were killed and started")
	stopWork()
	x.checkAll()
}

// checkAll reads back and finds everything that was acknowledged.
func (x *chaos) checkAll() {
	x.t.Helper()
	names := x.use
	i := 0
	for key, v := range x.acked {
		i++
		client := x.clients[names[i%len(names)]]
		got, err := client.HGet(x.t.Context(), key, "vec").Result()
		require.NoError(x.t, err, key)
		require.Equal(x.t, string(blob(v...)), got, key)
		keys, err := searchNearest(x.t.Context(), client, v, 1)
		require.NoError(x.t, err, key)
		require.Equal(x.t, []string{key}, keys)
	}
	x.t.Logf("%d acknowledged documents read back and found", len(x.acked))
}

// A node that joins and one that goes for good move no data between nodes, and nobody notices.
func TestRingChangesUnderLoad(t *testing.T) {
	x := newChaos(t, 4)
	c := x.cluster
	stopWork := x.startWork(4)
	defer stopWork()
	x.recovers("all are up")

	x.add("node5")
	x.undisturbed("a node joins")
	x.avoid("node1")
	time.Sleep(time.Second)
	x.undisturbed("it takes part")
	x.kill(c.nodes[0])
	x.undisturbed("a node is dead")
	require.NoError(t, x.clients["node2"].Do(t.Context(), "SCATTER.FORGET", "node1").Err())
	x.undisturbed("it is gone for good")
	x.avoid("node1", "node3")
	time.Sleep(time.Second)
	x.kill(c.nodes[2])
	x.recovers("another one is dead")
	stopWork()
	x.checkAll()
}

// An index that is corrupt, or an older copy of it, or none at all, is brought up to date from the
// log before it answers.
func TestIndexFilesAreDisposable(t *testing.T) {
	x := newChaos(t, 3) // each node has all documents
	c := x.cluster
	write := func(workers int) { // the last one writes new documents
		stop := x.startWork(workers)
		x.pass("write")
		stop()
	}
	write(1)
	node := c.nodes[2]
	dir := filepath.Join(x.data, node.name)
	old := t.TempDir()
	x.kill(node)
	require.NoError(t, os.CopyFS(old, os.DirFS(dir)))
	x.again(node)
	write(2)
	for what, harm := range map[string]func(){
		"an older copy": func() {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.CopyFS(dir, os.DirFS(old)))
		},
		"nothing": func() { require.NoError(t, os.RemoveAll(dir)) },
		"garbage": func() {
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			for _, e := range entries {
				path := dir + "/" + e.Name()
				size := 1 << 14
				if info, err := e.Info(); err == nil {
					size = int(info.Size())
				}
				garbage := make([]byte, size)
				r := rand.New(rand.NewPCG(1, 2))
				for i := range garbage {
					garbage[i] = byte(r.Uint32())
				}
				require.NoError(t, os.WriteFile(path, garbage, 0o644))
			}
		},
	} {
		x.kill(node)
		harm()
		x.again(node)
		for _, p := range c.nodes[:2] { // the others can't stand in for it
			x.kill(p)
		}
		x.use = []string{node.name}
		x.checkAll()
		t.Logf("%s: all is found", what)
		for _, p := range c.nodes[:2] {
			x.again(p)
		}
	}
}
