//go:build unix

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
)

const forever = -1 // as a PeerDeadline: only the query's context bounds it

var blue = []float32{51, 102, 153}

// newTestShards starts three servers.
func newTestShards(t *testing.T) *shards {
	t.Helper()
	s := newShards(t)
	demotest.Needed(t, s.start(t.Context(), 3))
	return s
}

// newShards checks at the end of the test that nothing is left of the servers that it has started.
func newShards(t *testing.T) *shards {
	t.Helper()
	nothingLeft(t)
	s := &shards{pools: make(map[scatter.PeerID]*pgxpool.Pool)}
	t.Cleanup(func() {
		processes := s.processes(t)
		s.stop()
		for _, pid := range processes {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("process %d is still there", pid)
			}
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
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		for runtime.NumGoroutine() > before {
			runtime.Gosched()
		}
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
}

// processes returns the IDs of the servers and of their child processes.
func (s *shards) processes(t *testing.T) []int {
	var all []int
	for i, server := range s.servers {
		all = append(all, server.Process.Pid)
		if i == len(s.peers) || server.ProcessState != nil { // it has failed, or been stopped
			continue
		}
		rows, _ := s.pools[s.peers[i]].Query(context.Background(), "SELECT pid FROM pg_stat_activity")
		some, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil || len(some) == 0 {
			t.Errorf("processes %v, %v", some, err)
		}
		all = append(all, some...)
	}
	return all
}

func (s *shards) ask(
	ctx context.Context, rgb []float32, k int, deadline time.Duration,
) (*scatter.Response[scatter.Hit[string]], error) {
	req := &scatter.Request{Query: scatter.KNN{Vector: rgb}, K: k}
	return scatter.Broadcast(ctx, req, s.peers, s.search, &scatter.Options{PeerDeadline: deadline})
}

// The servers together find what a look at all colours finds, whether they use their index or not.
func TestNearest(t *testing.T) {
	s := newTestShards(t)
	for _, off := range []string{"seqscan", "indexscan"} {
		for _, pool := range s.pools {
			sql := "ALTER ROLE postgres RESET ALL; ALTER ROLE postgres SET enable_" + off + " = off;" +
				"UPDATE colours SET name = name WHERE name = 'aqua'" // now stored after cyan, which has the same colour
			if _, err := pool.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
			pool.Reset() // The settings are for new connections.
			rows, _ := pool.Query(t.Context(), "EXPLAIN "+nearest, blue, 6)
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			plan := strings.Join(lines, "\n")
			index := strings.Contains(plan, "Index Scan using colours_rgb_idx") && !strings.Contains(plan, "Sort")
			if index != (off == "seqscan") {
				t.Fatalf("by the index: %v, without %s:\n%s", index, off, plan)
			}
		}
		for _, rgb := range [][]float32{blue, {0, 255, 255}, {0, 0, 0}, {128, 128, 128}} {
			for _, k := range []int{1, 2, 3, 6, 50, 1000} {
				resp, err := s.ask(t.Context(), rgb, k, forever)
				if err != nil {
					t.Fatal(err)
				}
				if want := look(rgb, k, 0, 1, 2); !slices.Equal(resp.Hits, want) || resp.Partial {
					t.Errorf("%d from %v: %v, partial %v; want %v", k, rgb, resp.Hits, resp.Partial, want)
				}
			}
		}
	}
}

// A server that is slow is given up at its deadline, and its query ends too.
func TestSlow(t *testing.T) {
	s := newTestShards(t)
	if _, err := s.pools[s.peers[0]].Exec(t.Context(), slowDown); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), s.pools[s.peers[0]].Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	// asleep reports whether the slow query of a connection made since then is under way.
	asleep := func(since time.Time) (yes bool) {
		t.Helper()
		const sql = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_start > $1"
		if err := conn.QueryRow(t.Context(), sql, since).Scan(&yes); err != nil {
			t.Fatal(err)
		}
		return yes
	}

	// The deadline gets longer until the others have answered by then and the slow query was seen
	// to run, so that nothing depends on the machine's speed. A cancel that comes before the query
	// runs may have no effect.
	for deadline := 50 * time.Millisecond; ; deadline *= 2 {
		var since time.Time
		if err := conn.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&since); err != nil {
			t.Fatal(err)
		}
		type answer struct {
			*scatter.Response[scatter.Hit[string]]
			error
		}
		answered, begun := make(chan answer, 1), time.Now()
		go func() {
			resp, err := s.ask(t.Context(), blue, 6, deadline)
			answered <- answer{resp, err}
		}()
		seen := false
		for !seen && time.Since(begun) < deadline {
			seen = asleep(since)
		}
		seen = seen && time.Since(begun) < deadline
		resp := <-answered
		if resp.error != nil {
			t.Fatal(resp.error)
		}
		if p := resp.Peers[0]; p.Status != scatter.TimedOut || !errors.Is(p.Err, context.DeadlineExceeded) ||
			p.Elapsed < deadline || p.Hits != 0 {
			t.Fatalf("%+v, want TimedOut after %v", p, deadline)
		}
		if !seen || resp.PeersTimedOut > 1 {
			continue
		}
		if want := look(blue, 6, 1, 2); !slices.Equal(resp.Hits, want) || !resp.Partial {
			t.Errorf("%v, partial %v; want %v from the other two", resp.Hits, resp.Partial, want)
		}
		for answered := time.Now(); asleep(since); { // It would for an hour.
			if time.Since(answered) > time.Minute {
				t.Fatal("the query goes on")
			}
		}
		return
	}
}

// A server that is down fails at once.
func TestDown(t *testing.T) {
	s := newTestShards(t)
	s.servers[0].Process.Signal(syscall.SIGQUIT)
	s.servers[0].Wait()
	for i := range 2 { // on the old connection, then on none
		resp, err := s.ask(t.Context(), blue, 6, forever)
		if err != nil {
			t.Fatal(err)
		}
		p := resp.Peers[0]
		if p.Status != scatter.Failed || p.Err == nil || i == 1 && !errors.Is(p.Err, syscall.ENOENT) {
			t.Errorf("%+v, want Failed", p)
		}
		if want := look(blue, 6, 1, 2); !slices.Equal(resp.Hits, want) || !resp.Partial {
			t.Errorf("%v, partial %v; want %v from the other two", resp.Hits, resp.Partial, want)
		}
	}
}

// If start fails, what it has started is stopped: after the first server, or before it can serve.
func TestStartFails(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := newShards(t)
		err := s.start(ctx, 3)
		if !errors.Is(err, context.Canceled) {
			demotest.Needed(t, err)
			t.Error("no error")
		}
		if len(s.servers) != 1 {
			t.Errorf("%d servers, want 1", len(s.servers))
		}
	})
	t.Run("no socket", func(t *testing.T) {
		s := newShards(t)
		long := filepath.Join(os.Getenv("TMPDIR"), strings.Repeat("x", 100)) // too long for a socket
		if err := os.Mkdir(long, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", long)
		err := s.start(t.Context(), 3)
		s.stop()
		if err := os.Remove(long); err != nil {
			t.Error(err)
		}
		if err == nil || !strings.Contains(err.Error(), "too long") {
			demotest.Needed(t, err)
			t.Error("no error")
		}
	})
}

func TestRun(t *testing.T) {
	nothingLeft(t)
	var out strings.Builder
	demotest.Needed(t, run(t.Context(), []string{"-deadline", "-1s", "-r", "250"}, &out))
	var want strings.Builder
	for i, h := range look([]float32{250, 102, 153}, 6, 0, 1, 2) {
		fmt.Fprintf(&want, "%2d  %-16s %8.1f\n", i+1, h.ID, h.Score)
	}
	want.WriteString("coverage 100 %, exact up to rank 6, after ")
	if !strings.HasPrefix(out.String(), want.String()) || !strings.Contains(out.String(), "/3  Answered, 6 hits, ") {
		t.Errorf("not %s in\n%s", want.String(), out.String())
	}

	// The deadline gets longer until the others have answered by then.
	for deadline := time.Second; !strings.HasSuffix(out.String(), "error: <nil>\n") ||
		!strings.Contains(out.String(), "coverage 67 %, "); deadline *= 2 {
		out.Reset()
		if err := run(t.Context(), []string{"-deadline", deadline.String(), "-slow", "1"}, &out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "/1  TimedOut, 0 hits, ") {
			t.Fatalf("not TimedOut in\n%s", out.String())
		}
	}
}

// Ctrl-C ends it, wherever it is.
func TestRunCancelled(t *testing.T) {
	nothingLeft(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(3*time.Second, cancel).Stop()
	err := run(ctx, []string{"-deadline", "-1s", "-slow", "3"}, new(strings.Builder)) // It would take an hour.
	if !errors.Is(err, context.Canceled) {
		demotest.Needed(t, err)
		t.Error("no error")
	}
}

// look is the oracle: the k nearest of the colours that these servers have.
func look(rgb []float32, k int, servers ...int) []scatter.Hit[string] {
	var hits []scatter.Hit[string]
	for i, line := range strings.Split(strings.TrimSpace(colours), "\n") {
		var name string
		var r, g, b float64
		if _, err := fmt.Sscanf(line, "%s %g,%g,%g", &name, &r, &g, &b); err != nil {
			panic(err)
		}
		if slices.Contains(servers, (i+1)%3) {
			r, g, b = r-float64(rgb[0]), g-float64(rgb[1]), b-float64(rgb[2])
			hits = append(hits, scatter.Hit[string]{ID: name, Score: float32(math.Sqrt(r*r + g*g + b*b))})
		}
	}
	slices.SortFunc(hits, func(a, b scatter.Hit[string]) int {
		return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(a.ID, b.ID))
	})
	return hits[:min(k, len(hits))]
}
