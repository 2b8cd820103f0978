//go:build unix

package main

import (
	"cmp"
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/scatterknn/scatter"
)

const forever = -1 // as a PeerDeadline: only the query's context bounds it

// newTestCluster starts three servers, and sees to it that nothing is left of them but what was there before.
func newTestCluster(t *testing.T) *cluster {
	t.Helper()
	before := runtime.NumGoroutine()
	c := &cluster{clients: make(map[scatter.PeerID]*redis.Client)}
	t.Cleanup(func() {
		c.stop()
		for runtime.NumGoroutine() > before {
			runtime.Gosched()
		}
		if _, err := os.Stat(c.dir); err == nil {
			t.Errorf("%s is still there", c.dir)
		}
	})
	needed(t, c.start(t.Context(), 3))
	return c
}

// needed skips the test where the server isn't installed; not in CI, which sets SCATTER_NO_SKIP.
func needed(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("SCATTER_NO_SKIP") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func paris(k int) *scatter.Request {
	return &scatter.Request{Table: "cities", Query: near{Longitude: 2.35, Latitude: 48.86, Radius: 20_040}, K: k}
}

// hang stops servers, which then accept connections and requests, but don't answer until the test ends.
func (c *cluster) hang(t *testing.T, servers ...int) {
	for _, i := range servers {
		if err := c.own[i].Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
}

// askUntil broadcasts with longer and longer deadlines until the peers not in hung have answered, however slow the
// machine is, and checks what must be so each time: that the others got all of their time, and no hit was theirs.
func (c *cluster) askUntil(t *testing.T, opts scatter.Options, hung ...int) *scatter.Response[scatter.Hit[string]] {
	t.Helper()
	for opts.PeerDeadline = 50 * time.Millisecond; ; opts.PeerDeadline *= 2 {
		resp, err := scatter.Broadcast(t.Context(), paris(6), c.peers, c.search, &opts)
		if err != nil {
			t.Fatal(err)
		}
		answered := 0
		for i, p := range resp.Peers {
			switch {
			case !slices.Contains(hung, i):
				if p.Status == scatter.Answered {
					answered++
				}
			case p.Status != scatter.TimedOut, !errors.Is(p.Err, context.DeadlineExceeded), p.Hits != 0,
				p.Elapsed < opts.PeerDeadline:
				t.Fatalf("%+v, want TimedOut after %v", p, opts.PeerDeadline)
			}
		}
		if answered == len(c.peers)-len(hung) {
			return resp
		}
	}
}

// The servers together find what a look at all cities finds.
func TestNearest(t *testing.T) {
	c := newTestCluster(t)
	for _, from := range []near{
		{Longitude: 2.35, Latitude: 48.86}, {Longitude: 151, Latitude: -33}, {Longitude: -179.9, Latitude: 5},
		{Longitude: 0, Latitude: 84},
	} {
		from.Radius = 20_040
		want := nearest(from, func(int) bool { return true })
		req := &scatter.Request{Table: "cities", Query: from, K: len(want)}
		resp, err := scatter.Broadcast(t.Context(), req, c.peers, c.search, &scatter.Options{PeerDeadline: forever})
		if err != nil {
			t.Fatal(err)
		}
		if got := ids(resp.Hits); !slices.Equal(got, want) || resp.Partial {
			t.Errorf("from %v: %v, partial %v; want %v", from, got, resp.Partial, want)
		}
	}
}

// A server that hangs is given up at its deadline, although its probe goes on: that gets its reply when the server goes
// on, too, and the reply is dropped.
func TestHang(t *testing.T) {
	c := newTestCluster(t)
	hung := c.peers[0]
	c.clients[hung].Close()
	c.clients[hung] = redis.NewClient(&redis.Options{Addr: string(hung), MaxRetries: -1, ReadTimeout: -1}) // none
	if err := c.clients[hung].Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	c.hang(t, 0)
	late := make(chan scatter.LateReplyInfo, 100)
	trace := &scatter.Trace{LateReply: func(r scatter.LateReplyInfo) {
		if r.Peer == hung {
			late <- r
		}
	}}
	resp := c.askUntil(t, scatter.Options{Trace: trace}, 0)
	want := nearest(near{Longitude: 2.35, Latitude: 48.86}, func(int) bool { return true })[:6]
	if got := ids(resp.Hits); !slices.Equal(got, want) {
		t.Errorf("%v, want %v from the other two", got, want)
	}
	if !resp.Partial || resp.PeersTimedOut != 1 {
		t.Errorf("partial %v, %d timed out; want true, 1", resp.Partial, resp.PeersTimedOut)
	}
	select {
	case r := <-late:
		t.Fatalf("%+v from a server that hangs", r)
	default:
	}
	if err := c.own[0].Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if r := <-late; r.Err != nil || r.Hits != 6 {
		t.Errorf("late reply %+v, want 6 hits", r)
	}
}

// With a Cover the copies count: one server that hangs isn't waited for, however long its deadline is. Two cost the
// cities that only they have.
func TestHangCovered(t *testing.T) {
	c := newTestCluster(t)
	c.hang(t, 0)
	opts := scatter.Options{PeerDeadline: forever, Cover: c.cover}
	resp, err := scatter.Broadcast(t.Context(), paris(6), c.peers, c.search, &opts)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Partial || resp.Peers[0].Status != scatter.Spare {
		t.Errorf("partial %v, %v; want false, Spare", resp.Partial, resp.Peers[0].Status)
	}

	c.hang(t, 1)
	resp = c.askUntil(t, opts, 0, 1)
	third := c.clients[c.peers[2]].ZRange(t.Context(), "cities", 0, -1).Val()
	want := nearest(near{Longitude: 2.35, Latitude: 48.86}, func(i int) bool { return slices.Contains(third, city(i)) })
	if got := ids(resp.Hits); !slices.Equal(got, want[:6]) || !resp.Partial || len(resp.Missing) != 1 {
		t.Errorf("%v, partial %v, missing %v; want %v", got, resp.Partial, resp.Missing, want[:6])
	}
}

// A server that isn't there fails, and fails fast.
func TestDown(t *testing.T) {
	c := newTestCluster(t)
	c.connect(c.dir + "/nobody")
	resp, err := scatter.Broadcast(t.Context(), paris(6), c.peers, c.search, &scatter.Options{PeerDeadline: forever})
	if err != nil {
		t.Fatal(err)
	}
	if p := resp.Peers[3]; p.Status != scatter.Failed || !errors.Is(p.Err, syscall.ENOENT) || len(resp.Hits) != 6 {
		t.Errorf("%+v and %d hits, want Failed and 6", p, len(resp.Hits))
	}
}

func TestRun(t *testing.T) {
	var out strings.Builder
	needed(t, run(t.Context(), []string{"-deadline", "-1s", "-hang", "1"}, &out))
	for _, want := range []string{
		" 1  Paris                 0.0 km\n", " 6  Rotterdam ", "100 % of the whole", "/1  Spare, ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}

	c := newTestCluster(t)
	out.Reset()
	args := []string{"-deadline", "-1s", "-lon", "139", "-lat", "35", string(c.peers[0]), string(c.peers[1])}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatal(err)
	}
	if want := " 1  Tokyo "; !strings.HasPrefix(out.String(), want) {
		t.Errorf("no %q at the start of\n%s", want, out.String())
	}
}

// Ctrl-C ends it, wherever it is, and nothing is left.
func TestRunCancelled(t *testing.T) {
	before := runtime.NumGoroutine()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(time.Second, cancel).Stop()
	err := run(ctx, []string{"-deadline", "-1s", "-hang", "3"}, new(strings.Builder)) // 5 s by itself, and then no error
	if !errors.Is(err, context.Canceled) {
		needed(t, err)
		t.Error("no error")
	}
	for runtime.NumGoroutine() > before {
		runtime.Gosched()
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v left", left)
	}
}

// nearest is a slow, obvious reference: the names of the cities that are among those wanted, by distance.
func nearest(from near, wanted func(i int) bool) []string {
	var hits []scatter.Hit[string]
	for i, line := range strings.Split(strings.TrimSpace(cities), "\n") {
		f := strings.Split(line, ",")
		lon, _ := strconv.ParseFloat(f[1], 64)
		lat, _ := strconv.ParseFloat(f[2], 64)
		if wanted(i) {
			hits = append(hits, scatter.Hit[string]{ID: f[0], Score: float32(angle(from.Longitude, from.Latitude, lon, lat))})
		}
	}
	slices.SortFunc(hits, func(a, b scatter.Hit[string]) int { return cmp.Compare(a.Score, b.Score) })
	return ids(hits)
}

// angle is the one between two points, seen from the centre of the Earth.
func angle(lon1, lat1, lon2, lat2 float64) float64 {
	const degree = math.Pi / 180
	sin1, cos1 := math.Sincos(lat1 * degree)
	sin2, cos2 := math.Sincos(lat2 * degree)
	return math.Acos(sin1*sin2 + cos1*cos2*math.Cos((lon1-lon2)*degree))
}

func city(i int) string {
	return strings.Split(strings.Split(cities, "\n")[i], ",")[0]
}

func ids(hits []scatter.Hit[string]) []string {
	var names []string
	for _, h := range hits {
		names = append(names, h.ID)
	}
	return names
}
