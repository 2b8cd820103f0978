//go:build unix

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Nodes run on a NATS cluster that somebody else has deployed: three processes of nats-server.
func TestDeployedServers(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts three servers")
	}
	program := filepath.Join(t.TempDir(), "nats-server")
	build, err := exec.Command("go", "build", "-o", program, "github.com/nats-io/nats-server/v2").CombinedOutput()
	require.NoError(t, err, string(build))

	ports, err := freePorts(2 * stores)
	require.NoError(t, err)
	var urls, routes []string
	for i := range stores {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[stores+i]))
	}
	servers := make([]*exec.Cmd, stores)
	start := func(i int) {
		t.Helper()
		servers[i] = exec.Command(program, "-a", "127.0.0.1", "-p", fmt.Sprint(ports[i]), "-n", fmt.Sprint("server", i),
			"-js", "-sd", filepath.Join(t.TempDir(), fmt.Sprint("server", i)), "--cluster_name", "deployed",
			"--cluster", routes[i], "--routes", strings.Join(routes, ","), "-l", filepath.Join(t.TempDir(), "log"))
		require.NoError(t, servers[i].Start())
	}
	for i := range servers {
		start(i)
		defer func() {
			_ = servers[i].Process.Kill()
			_ = servers[i].Wait()
		}()
	}

	x := &chaos{testCluster: newTestCluster(t), acked: make(map[string][]float32)}
	c := x.cluster
	for i := range 3 {
		name := fmt.Sprint("node", i+1)
		c.nodes = append(c.nodes, &process{name: name, args: []string{
			"node", "-name", name, "-nats", strings.Join(urls, ","), "-listen", "127.0.0.1:0", "-http", "127.0.0.1:0",
			"-data", filepath.Join(x.data, name), "-timeout=5s", "-log=fatal",
		}})
	}
	var starting sync.WaitGroup
	for _, p := range c.nodes {
		starting.Go(func() { x.again(p) })
	}
	starting.Wait()
	x.begin()
	stopWork := x.startWork(1)
	defer stopWork()
	x.recovers("all are up")
	require.NoError(t, servers[0].Process.Signal(syscall.SIGKILL))
	_ = servers[0].Wait() // it was killed: that is its error
	time.Sleep(100 * time.Millisecond)
	x.recovers("a server is dead")
	start(0)
	x.recovers("it is back, with an empty disk")
	stopWork()
	x.checkAll()
}
