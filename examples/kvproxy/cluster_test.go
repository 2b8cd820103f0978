package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// TestMain runs the program instead of the tests in a child of a cluster.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	redis.SetLogger(quiet{}) // servers die on purpose
	os.Exit(m.Run())
}

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func TestWrongFlagsAreErrors(t *testing.T) {
	for line, want := range map[string]string{
		"nodes":                          `argument "nodes" is unknown`,
		"-cluster -1":                    "-cluster is -1",
		"-timeout 0":                     "-timeout is 0s",
		"-maxclients 0":                  "-maxclients is 0",
		"-fresh never":                   `-fresh is "never", must be log or session`,
		"-partial maybe":                 `-partial is "maybe", must be error or return`,
		"-multi yes":                     `-multi is "yes", must be refuse or pipeline`,
		"node -nats nats://x -data d":    `-name is ""`,
		"node -name a.b -nats n -data d": `-name is "a.b"`,
		"node -name a -data d":           "-nats is missing",
		"node -name a -nats n":           "-data is missing",
		"node -name a -nats n -data d -replicas 0": "-replicas is 0",
		"store -data d":                     "-name is missing",
		"store -name a":                     "-data is missing",
		"store -name a -data d -routes x":   "-routes needs -cluster",
		"store -name a -data d -listen x":   "address x",
		"store -name a -data d -listen x:y": "port must be a number",
	} {
		require.ErrorContains(t, run(t.Context(), strings.Fields(line), strings.NewReader(""), io.Discard), want, line)
	}
}

// testProcesses starts the stores of a cluster as processes, but no nodes.
func testProcesses(t *testing.T) (c *cluster, urls string) {
	c, err := newCluster(config{}, 0, t.TempDir(), true, nil)
	require.NoError(t, err)
	t.Cleanup(c.stop)
	lines, err := c.start(testContext(t, time.Minute))
	require.NoError(t, err)
	for i, line := range lines {
		lines[i] = servedAddress(line)
	}
	return c, strings.Join(lines, ",")
}

func TestStoresStopBySignalOrWithTheirParent(t *testing.T) {
	c, _ := testProcesses(t)
	require.NoError(t, c.stores[0].cmd.Process.Signal(syscall.SIGTERM)) // this ends one as well
	for _, p := range c.stores[1:] {
		require.NoError(t, p.hold.Close()) // as the system does when the parent dies
	}
	for _, p := range c.stores {
		<-p.done
		require.NoError(t, p.err)
	}
}

func TestProcessThatCannotStartIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	c, err := newCluster(config{}, 0, file, true, nil)
	require.NoError(t, err)
	t.Cleanup(c.stop)
	_, err = c.start(testContext(t, time.Minute))
	require.ErrorContains(t, err, "has ended")
	_, err = startStore(storeConfig{name: "store", listen: "127.0.0.1:0", data: file}, zap.NewNop())
	require.ErrorContains(t, err, "storage directory is not a directory")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, err = startStore(storeConfig{name: "store", listen: l.Addr().String(), data: t.TempDir()}, zap.NewNop())
	require.ErrorContains(t, err, "address already in use")
}

func TestClusterOfProcesses(t *testing.T) {
	cfg := config{listen: "127.0.0.1:0", http: "127.0.0.1:0"}
	c, err := newCluster(cfg, 3, t.TempDir(), true, []string{"-timeout=5s", "-log=error"})
	require.NoError(t, err)
	t.Cleanup(c.stop)
	ctx := testContext(t, time.Minute)
	began := time.Now()
	lines, err := c.start(ctx)
	require.NoError(t, err)
	t.Log("all serve after", time.Since(began))
	clients := make([]*redis.Client, len(c.nodes))
	for i := range clients {
		address := servedAddress(lines[i])
		clients[i] = redis.NewClient(&redis.Options{Addr: address})
		t.Cleanup(func() { _ = clients[i].Close() })
	}
	require.NoError(t, clients[0].Do(ctx, "FT.CREATE", "i", "SCHEMA", "f", "TEXT").Err())
	require.NoError(t, clients[0].HSet(ctx, "hash", "f", "value").Err())

	require.NoError(t, c.nodes[1].cmd.Process.Kill())
	<-c.nodes[1].done
	for _, i := range []int{0, 2} {
		found, err := clients[i].FTSearch(ctx, "i", "*").Result()
		require.NoError(t, err)
		require.Equal(t, 1, found.Total)
		require.Equal(t, "hash", found.Docs[0].ID)
	}
	require.NoError(t, c.nodes[1].start())
	select {
	case line := <-c.nodes[1].ready:
		require.Contains(t, line, "node2 serves 127.0.0.1:")
	case <-ctx.Done():
		t.Fatal("node2 doesn't serve")
	}
	c.stop()
	for _, p := range slices.Concat(c.nodes, c.stores) {
		require.NoError(t, p.err, p.name)
	}
}

func TestOneProcess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, strings.Fields("-listen 127.0.0.1:0 -log error"), nil, w) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err)
	address := servedAddress(line)
	client := redis.NewClient(&redis.Options{Addr: address})
	defer client.Close()
	require.NoError(t, client.Set(ctx, "key", "value", 0).Err())
	require.Equal(t, "value", client.Get(ctx, "key").Val())
	cancel()
	require.NoError(t, <-ended)
}
