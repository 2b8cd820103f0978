//go:build unix

package main

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// testCluster is a cluster of processes, and a client of each node.
type testCluster struct {
	*cluster
	t    *testing.T
	data string

	mu      sync.Mutex
	clients map[string]*redis.Client // guarded by mu; by the name of the node
}

func newTestCluster(t *testing.T) *testCluster {
	x := &testCluster{
		cluster: &cluster{}, t: t, data: t.TempDir(), clients: make(map[string]*redis.Client),
	}
	t.Cleanup(func() { x.stop() })
	return x
}

// startTestCluster starts three stores and some nodes, with these flags.
func startTestCluster(t *testing.T, nodes int, flags ...string) *testCluster {
	t.Helper()
	x := newTestCluster(t)
	cfg := config{listen: "127.0.0.1:0", http: "127.0.0.1:0"}
	var err error
	// A search of a busy machine has more time than the program gives it by default.
	flags = append([]string{"-timeout=5s", "-log=fatal"}, flags...)
	x.cluster, err = newCluster(cfg, nodes, x.data, true, flags)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	lines, err := x.start(ctx)
	require.NoError(t, err)
	t.Logf("%d nodes serve after %v", nodes, time.Since(began).Round(time.Millisecond))
	for i, p := range x.nodes {
		x.connect(p, lines[i])
	}
	return x
}

func (x *testCluster) connect(p *process, line string) {
	client := redis.NewClient(&redis.Options{
		Addr: servedAddress(line), Protocol: 2, MaxRetries: -1, ReadTimeout: time.Minute, PoolSize: 100,
	})
	x.t.Cleanup(func() { client.Close() })
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clients[p.name] = client
}

// again starts a process that was killed. It returns when a node serves.
func (x *testCluster) again(p *process) {
	x.t.Helper()
	require.NoError(x.t, p.start(), p.name)
	select {
	case line := <-p.ready:
		if p.args[0] == "node" {
			x.connect(p, line)
		}
	case <-p.done:
		x.t.Fatalf("%s has ended: %v", p.name, p.err)
	case <-time.After(time.Minute):
		x.t.Fatalf("%s doesn't serve after a minute", p.name)
	}
}

// add starts one more node.
func (x *testCluster) add(name string) *process {
	x.t.Helper()
	like := x.nodes[0]
	p := &process{name: name, args: append([]string(nil), like.args...)}
	for i, arg := range p.args {
		p.args[i] = strings.ReplaceAll(arg, like.name, name)
	}
	x.nodes = append(x.nodes, p)
	x.again(p)
	return p
}

func (x *testCluster) signal(p *process, s syscall.Signal) {
	x.t.Helper()
	require.NoError(x.t, p.cmd.Process.Signal(s), p.name)
}

// kill kills a process with SIGKILL and waits until it is gone.
func (x *testCluster) kill(p *process) {
	x.t.Helper()
	x.signal(p, syscall.SIGKILL)
	<-p.done
	p.hold.Close()
}
