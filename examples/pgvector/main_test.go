//go:build unix

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/demotest"
	"github.com/stretchr/testify/require"
)

const (
	forever = -1 // as a PeerDeadline: only the query's context bounds it
	soon    = time.Minute
)

var blue = []float32{51, 102, 153}

// newTestShards starts three servers.
func newTestShards(t *testing.T, e *engine) *shards {
	t.Helper()
	s := newShards(t)
	demotest.Needed(t, s.start(t.Context(), []*engine{e}, 3, io.Discard))
	return s
}

// newShards checks at the end of the test that nothing is left of the servers that it has started.
func newShards(t *testing.T) *shards {
	t.Helper()
	nothingLeft(t)
	s := &shards{scan: 20_000, pools: make(map[scatter.PeerID]*pgxpool.Pool)}
	t.Cleanup(func() {
		processes := s.processes(t)
		s.stop()
		for _, pid := range processes {
			require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "process %d is still there", pid)
		}
	})
	return s
}

// nothingLeft gives the test a directory for temporary files. At the end it checks that there are
// none left, and no more goroutines than before.
func nothingLeft(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	dir, err := os.MkdirTemp("", "") // t.TempDir may be closed to the user nobody.
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, // Eventually has one itself.
			soon, time.Millisecond, "goroutines are left")
		require.NoError(t, os.Remove(dir))
	})
}

// processes returns the IDs of the servers and of their child processes.
func (s *shards) processes(t *testing.T) []int {
	var all []int
	for i, server := range s.servers {
		if server == nil || server.ProcessState != nil { // not started, or stopped
			continue
		}
		all = append(all, server.Process.Pid)
		if s.engine == cube && i < len(s.peers) {
			rows, _ := s.pools[s.peers[i]].Query(context.Background(), "SELECT pid FROM pg_stat_activity")
			children, err := pgx.CollectRows(rows, pgx.RowTo[int])
			require.NoError(t, err)
			require.NotEmpty(t, children)
			all = append(all, children...)
		}
	}
	return all
}

func (s *shards) exec(t *testing.T, peer int, sql string) {
	t.Helper()
	_, err := s.pools[s.peers[peer]].Exec(t.Context(), sql)
	require.NoError(t, err)
}

func (s *shards) nearest(t *testing.T, rgb []float32, like string, k int) *scatter.Response[scatter.Hit[string]] {
	t.Helper()
	resp, err := s.ask(t.Context(), near{KNN: scatter.KNN{Vector: rgb}, Like: like}, k, forever)
	require.NoError(t, err)
	return resp
}

// testNearest tests that the servers together find by their index what a look at all colours
// finds.
func testNearest(t *testing.T, s *shards) {
	for i, pool := range s.pools {
		// Aqua is stored after cyan then, which has the same colour.
		_, err := pool.Exec(t.Context(), "UPDATE colours SET name = name WHERE name = 'aqua'")
		require.NoError(t, err)
		rows, _ := pool.Query(t.Context(), "EXPLAIN "+s.nearestSQL(), blue, "%", 6)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		plan := strings.Join(lines, "\n")
		require.Contains(t, plan, "Index Scan using colours_rgb_idx", i)
		require.NotContains(t, plan, "Sort")
	}
	for _, rgb := range [][]float32{blue, {0, 255, 255}, {0, 0, 0}, {128, 128, 128}} {
		for _, like := range []string{"%", "%green%", "%dark%", "nothing"} {
			for _, k := range []int{1, 2, 3, 6, 50, 1000} {
				resp := s.nearest(t, rgb, like, k)
				require.Equal(t, look(rgb, like, k, 0, 1, 2), resp.Hits, "%d like %s from %v", k, like, rgb)
				require.False(t, resp.Partial, "%d like %s from %v: %v", k, like, rgb, resp.Peers)
			}
		}
	}
}

func TestCubeNearest(t *testing.T) { testNearest(t, newTestShards(t, cube)) }

// A server that is slow is given up at its deadline. Its query ends too, and the connection is
// kept.
func TestCubeSlow(t *testing.T) {
	s := newTestShards(t, cube)
	pool := s.pools[s.peers[0]]
	s.exec(t, 0, slowDown)
	session := func() (pid int) {
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
		return pid
	}
	watcher, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig)
	require.NoError(t, err)
	defer watcher.Close(context.Background())
	asleep := func(pid int) (yes bool) {
		const sql = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = $1"
		require.NoError(t, watcher.QueryRow(t.Context(), sql, pid).Scan(&yes))
		return yes
	}

	// The deadline gets longer until the others have answered by then, and the slow query was seen
	// to run and cancelled within cancelGrace, so that nothing depends on the machine's speed. A
	// cancel request that comes before the query runs has no effect.
	for deadline := 50 * time.Millisecond; deadline < soon; deadline *= 2 {
		before, begun := session(), time.Now()
		type answer struct {
			*scatter.Response[scatter.Hit[string]]
			error
		}
		answered := make(chan answer, 1)
		go func() {
			resp, err := s.ask(t.Context(), near{KNN: scatter.KNN{Vector: blue}, Like: "%"}, 6, deadline)
			answered <- answer{resp, err}
		}()
		seen := false
		for !seen && time.Since(begun) < deadline {
			seen = asleep(before)
		}
		seen = seen && time.Since(begun) < deadline
		resp := <-answered
		require.NoError(t, resp.error)
		require.Equal(t, scatter.TimedOut, resp.Peers[0].Status)
		require.ErrorIs(t, resp.Peers[0].Err, context.DeadlineExceeded)
		require.GreaterOrEqual(t, resp.Peers[0].Elapsed, deadline)
		if !seen || resp.PeersTimedOut > 1 {
			continue
		}
		require.Equal(t, look(blue, "%", 6, 1, 2), resp.Hits, "from the other two")
		require.True(t, resp.Partial)
		after := session()
		require.Eventually(t, func() bool { return !asleep(before) }, soon, time.Millisecond, "It would for an hour.")
		if after == before {
			return
		}
	}
	t.Fatal("the connection wasn't kept")
}

// A server that is down fails at once.
func TestCubeDown(t *testing.T) { testDown(t, newTestShards(t, cube)) }

func testDown(t *testing.T, s *shards) {
	s.servers[0].Process.Signal(stopSignal)
	s.servers[0].Wait()
	for range 2 { // on the old connection, then on none
		resp := s.nearest(t, blue, "%", 6)
		require.Equal(t, scatter.Failed, resp.Peers[0].Status)
		require.Error(t, resp.Peers[0].Err)
		require.Equal(t, look(blue, "%", 6, 1, 2), resp.Hits, "from the other two")
		require.True(t, resp.Partial)
	}
}

// If start fails, what it has started is stopped: while the servers start, or because they can't
// serve.
func TestStartFails(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := newShards(t).start(ctx, []*engine{cube}, 3, io.Discard)
		if err == nil || ctx.Err() == nil {
			t.Fatal("no error")
		}
		if !strings.Contains(err.Error(), context.Canceled.Error()) {
			demotest.Needed(t, err)
		}
	})
	t.Run("no socket", func(t *testing.T) {
		s := newShards(t)
		long := filepath.Join(os.Getenv("TMPDIR"), strings.Repeat("x", 100)) // too long for a socket
		require.NoError(t, os.Mkdir(long, 0o755))
		t.Setenv("TMPDIR", long)
		err := s.start(t.Context(), []*engine{cube}, 3, io.Discard)
		s.stop()
		require.NoError(t, os.Remove(long))
		if err == nil || !strings.Contains(err.Error(), "too long") {
			demotest.Needed(t, err)
			t.Fatal("no error")
		}
	})
}

// The program asks servers by their addresses, or starts its own.
func TestCubeRun(t *testing.T) {
	s := newTestShards(t, cube)
	var addresses []string
	for i := range s.servers {
		addresses = append(addresses, fmt.Sprintf("host=%s user=postgres dbname=postgres", s.socketDir(i)))
	}
	args := append([]string{"-engine", "cube", "-deadline", "-1s", "-r", "250"}, addresses...)
	var out strings.Builder
	require.NoError(t, run(t.Context(), args, &out))
	require.Contains(t, out.String(), printed([]float32{250, 102, 153}, "%"))
	require.Contains(t, out.String(), "/3:5432/postgres  Answered, 6 hits, ")

	require.ErrorContains(t, run(t.Context(), append(args, addresses[0]), &out), "/1:5432/postgres is given twice")
	require.ErrorContains(t, run(t.Context(), []string{"-slow", "1", addresses[0]}, &out), "-slow")
	require.ErrorContains(t, run(t.Context(), []string{"-engine", "x"}, &out), `-engine "x"`)
	require.ErrorContains(t, run(t.Context(), []string{"postgres://host:port"}, &out), "port")
}

// Ctrl-C ends it, wherever it is.
func TestCubeRunCancelled(t *testing.T) {
	nothingLeft(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(3*time.Second, cancel).Stop()
	args := []string{"-engine", "cube", "-deadline", "-1s", "-slow", "3"} // It would take an hour.
	err := run(ctx, args, io.Discard)
	require.Error(t, err)
	if ctx.Err() == nil {
		demotest.Needed(t, err)
	}
	require.ErrorIs(t, err, context.Canceled)
}

// printed is how the program prints the six nearest colours.
func printed(rgb []float32, like string) string {
	var out strings.Builder
	for i, h := range look(rgb, like, 6, 0, 1, 2) {
		fmt.Fprintf(&out, "%2d  %-16s %8.1f\n", i+1, h.ID, h.Score)
	}
	return out.String() + "coverage 100 %, exact up to rank "
}

// look is the oracle: the k nearest of the colours that these servers have.
func look(rgb []float32, like string, k int, servers ...int) []scatter.Hit[string] {
	var hits []scatter.Hit[string]
	for i, line := range strings.Split(strings.TrimSpace(colours), "\n") {
		var name string
		var r, g, b float64
		if _, err := fmt.Sscanf(line, "%s %g,%g,%g", &name, &r, &g, &b); err != nil {
			panic(err)
		}
		if slices.Contains(servers, (i+1)%3) && strings.Contains(name, strings.Trim(like, "%")) {
			r, g, b = r-float64(rgb[0]), g-float64(rgb[1]), b-float64(rgb[2])
			hits = append(hits, scatter.Hit[string]{ID: name, Score: float32(math.Sqrt(r*r + g*g + b*b))})
		}
	}
	slices.SortFunc(hits, func(a, b scatter.Hit[string]) int {
		return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(a.ID, b.ID))
	})
	return hits[:min(k, len(hits))]
}
