//go:build unix

package main

import (
	"cmp"
	"context"
	"errors"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/demotest"
)

const forever = -1 // as a PeerDeadline: only the query's context bounds it

// newTestCluster starts the servers, and checks at the end of the test that nothing is left of
// them.
func newTestCluster(t *testing.T) *cluster {
	t.Helper()
	before := runtime.NumGoroutine()
	c := newCluster()
	t.Cleanup(func() {
		c.stop()
		for runtime.NumGoroutine() > before {
			runtime.Gosched()
		}
		if _, err := os.Stat(c.dir); err == nil {
			t.Errorf("%s is still there", c.dir)
		}
	})
	demotest.Needed(t, c.start(t.Context()))
	return c
}

func paris(k int) *scatter.Request {
	return &scatter.Request{Table: "cities", Query: near{Longitude: 2.35, Latitude: 48.86, Radius: 20_040}, K: k}
}

// freeze stops servers. They accept connections and requests, but don't answer until the test ends.
func (c *cluster) freeze(t *testing.T, servers ...int) {
	t.Helper()
	for _, i := range servers {
		if err := c.own[i].Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
}

// askUntil broadcasts with longer and longer deadlines until all peers but the hung ones have
// answered, so that it doesn't depend on the machine's speed. Each time it checks that the hung
// ones had all of their time and gave no hits.
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

var points = []near{
	{Longitude: 2.35, Latitude: 48.86}, {Longitude: 151, Latitude: -33}, {Longitude: -179.9, Latitude: 5},
	{Longitude: 0, Latitude: 84}, {Longitude: -30, Latitude: 0}, {Longitude: 60, Latitude: 30},
}

// The servers together find what a look at all cities finds, with bounds and without.
func TestNearest(t *testing.T) {
	c := newTestCluster(t)
	for _, from := range points {
		from.Radius = 20_040
		for _, k := range []int{1, 6, 1000} {
			want := nearest(from, func(place) bool { return true })
			want = want[:min(k, len(want))]
			bounded := c.options(forever)
			for _, opts := range []*scatter.Options{{PeerDeadline: forever}, bounded} {
				req := &scatter.Request{Table: "cities", Query: from, K: k}
				resp, err := scatter.Broadcast(t.Context(), req, c.peers, c.search, opts)
				if err != nil {
					t.Fatal(err)
				}
				if got := ids(resp.Hits); !slices.Equal(got, want) || resp.Partial || resp.Exact != len(want) {
					t.Errorf("from %v, bounded %v: %v, partial %v, exact %d; want %v",
						from, opts == bounded, got, resp.Partial, resp.Exact, want)
				}
				for _, p := range resp.Peers {
					if p.Err != nil && !errors.Is(p.Err, scatter.ErrEnough) {
						t.Errorf("from %v: %+v", from, p) // ErrBound, for one
					}
				}
			}
		}
	}
}

// Paris has six cities nearby. The servers of the other two regions are Outranked: no GEOSEARCH
// reaches them.
func TestOutranked(t *testing.T) {
	c := newTestCluster(t)
	resp, err := scatter.Broadcast(t.Context(), paris(6), c.peers, c.search, c.options(forever))
	if err != nil {
		t.Fatal(err)
	}
	want := nearest(near{Longitude: 2.35, Latitude: 48.86}, func(place) bool { return true })[:6]
	if got := ids(resp.Hits); !slices.Equal(got, want) || resp.Partial || resp.Exact != 6 {
		t.Errorf("%v, partial %v, exact %d; want %v", got, resp.Partial, resp.Exact, want)
	}
	for i, p := range resp.Peers {
		stats, err := c.clients[p.Peer].Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		asked := strings.Contains(stats, "cmdstat_geosearch:")
		if outranked := i/copies != 1; outranked != (p.Status == scatter.Outranked) || outranked && asked {
			t.Errorf("server %d: %v, asked %v; want Outranked and not asked: %v", i+1, p.Status, asked, outranked)
		}
	}
}

// A server that hangs is given up at its deadline, although its probe goes on. When the server goes
// on too, the probe gets its reply, which is dropped.
func TestHang(t *testing.T) {
	c := newTestCluster(t)
	hung := c.peers[0]
	c.clients[hung].Close()
	c.clients[hung] = redis.NewClient(&redis.Options{Addr: string(hung), MaxRetries: -1, ReadTimeout: -1}) // none
	if err := c.clients[hung].Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	c.freeze(t, 0)
	late := make(chan scatter.LateReplyInfo, 100)
	trace := &scatter.Trace{LateReply: func(_ context.Context, r scatter.LateReplyInfo) {
		if r.Peer == hung {
			late <- r
		}
	}}
	resp := c.askUntil(t, scatter.Options{Trace: trace}, 0)
	want := nearest(near{Longitude: 2.35, Latitude: 48.86}, func(place) bool { return true })[:6]
	if got := ids(resp.Hits); !slices.Equal(got, want) {
		t.Errorf("%v, want %v from the others", got, want)
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

// With a Cover the copies count: one server that hangs isn't waited for, however long its deadline
// is. If two hang, the cities that only they have are missing.
func TestHangCovered(t *testing.T) {
	c := newTestCluster(t)
	c.freeze(t, 2)
	resp, err := scatter.Broadcast(t.Context(), paris(6), c.peers, c.search, c.options(forever))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Partial || resp.Peers[2].Status != scatter.NotNeeded {
		t.Errorf("partial %v, %v; want false, NotNeeded", resp.Partial, resp.Peers[2].Status)
	}

	c.freeze(t, 3)
	resp = c.askUntil(t, scatter.Options{Cover: c.cover}, 2, 3)
	want := nearest(near{Longitude: 2.35, Latitude: 48.86}, func(p place) bool { return p.region() != 1 })[:6]
	if got := ids(resp.Hits); !slices.Equal(got, want) || !resp.Partial || len(resp.Missing) != 1 {
		t.Errorf("%v, partial %v, missing %v; want %v", got, resp.Partial, resp.Missing, want)
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
	p := resp.Peers[len(c.own)]
	if p.Status != scatter.Failed || !errors.Is(p.Err, syscall.ENOENT) || len(resp.Hits) != 6 {
		t.Errorf("%+v and %d hits, want Failed and 6", p, len(resp.Hits))
	}
}

func TestRun(t *testing.T) {
	var out strings.Builder
	demotest.Needed(t, run(t.Context(), []string{"-deadline", "-1s", "-hang", "1"}, &out))
	for _, want := range []string{
		" 1  Paris                 0.0 km\n", " 6  Rotterdam ", "coverage 100 %, exact up to rank 6, ",
		"/1  Outranked, ", "/3  NotNeeded, ", "/4  Answered, 6 hits", "/5  Outranked, ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}

	c := newTestCluster(t)
	out.Reset()
	args := []string{"-deadline", "-1s", "-lon", "139", "-lat", "35", string(c.peers[0]), string(c.peers[5])}
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
	err := run(ctx, []string{"-deadline", "-1s", "-hang", "6"}, new(strings.Builder)) // It would take 5 s, and be no error.
	if !errors.Is(err, context.Canceled) {
		demotest.Needed(t, err)
		t.Error("no error")
	}
	for runtime.NumGoroutine() > before {
		runtime.Gosched()
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v left", left)
	}
}

// nearest is the oracle: the names of the cities that are wanted, by distance, found by a look at
// all.
func nearest(from near, wanted func(place) bool) []string {
	var hits []scatter.Hit[string]
	for _, p := range places() {
		if wanted(p) {
			km := float32(earthRadius * angle(from.Longitude, from.Latitude, p.lon, p.lat))
			hits = append(hits, scatter.Hit[string]{ID: p.name, Score: km})
		}
	}
	slices.SortFunc(hits, func(a, b scatter.Hit[string]) int { return cmp.Compare(a.Score, b.Score) })
	return ids(hits)
}

// angle returns the angle between two points on the Earth, seen from its centre.
func angle(lon1, lat1, lon2, lat2 float64) float64 {
	const degree = math.Pi / 180
	sin1, cos1 := math.Sincos(lat1 * degree)
	sin2, cos2 := math.Sincos(lat2 * degree)
	return math.Acos(sin1*sin2 + cos1*cos2*math.Cos((lon1-lon2)*degree))
}

func ids(hits []scatter.Hit[string]) []string {
	var names []string
	for _, h := range hits {
		names = append(names, h.ID)
	}
	return names
}
