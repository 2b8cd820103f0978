//go:build unix

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	"github.com/stretchr/testify/require"
)

const forever = -1 // as a PeerDeadline: only the query's context bounds it

var paris = place{lon: 2.35, lat: 48.86}

// The two kinds of query.
func byDistance(from place) scatter.Query { return near(from) }

func byVector(from place) scatter.Query {
	return scatter.KNN{Vector: from.vector(), Ranking: scatter.ScoreDescending}
}

// emptyCluster returns a cluster without servers, and checks at the end of the test that nothing is
// left of it.
func emptyCluster(t *testing.T) *cluster {
	t.Helper()
	before := runtime.NumGoroutine()
	c := newCluster()
	t.Cleanup(func() {
		c.stop()
		require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, time.Minute, time.Millisecond)
		if c.dir != "" {
			require.NoDirExists(t, c.dir)
		}
	})
	return c
}

// newTestCluster starts servers that answer GEOSEARCH.
func newTestCluster(t *testing.T) *cluster {
	t.Helper()
	c := emptyCluster(t)
	demotest.Needed(t, c.start(t.Context()))
	require.NoError(t, c.load(t.Context(), false))
	return c
}

// newVectorCluster connects to fakes that answer VSIM.
func newVectorCluster(t *testing.T, protocol int) (*cluster, []*fake) {
	t.Helper()
	c := emptyCluster(t)
	fakes := startFakes(t, c, protocol)
	require.NoError(t, c.load(t.Context(), true))
	return c, fakes
}

// freeze stops servers. They accept connections and requests, but don't answer until the test ends.
func (c *cluster) freeze(t *testing.T, servers ...int) {
	t.Helper()
	for _, i := range servers {
		require.NoError(t, c.own[i].Process.Signal(syscall.SIGSTOP))
	}
}

// ask asks for the k cities nearest to a place.
func (c *cluster) ask(
	t *testing.T, query scatter.Query, k int, opts *scatter.Options,
) *scatter.Response[scatter.Hit[string]] {
	t.Helper()
	req := &scatter.Request{Table: "cities", Query: query, K: k}
	resp, err := scatter.Broadcast(t.Context(), req, c.peers, c.search, opts)
	require.NoError(t, err)
	return resp
}

// askUntil asks with longer and longer deadlines until all peers but the hung ones have answered,
// so that it doesn't depend on the machine's speed. Each time it checks that the hung ones had all
// of their time and gave no hits.
func (c *cluster) askUntil(t *testing.T, opts scatter.Options, hung ...int) *scatter.Response[scatter.Hit[string]] {
	t.Helper()
	for opts.PeerDeadline = 50 * time.Millisecond; ; opts.PeerDeadline *= 2 {
		resp := c.ask(t, near(paris), 6, &opts)
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

var points = []place{
	paris, {lon: 151, lat: -33}, {lon: -179.9, lat: 5}, {lon: 0, lat: 84}, {lon: -30, lat: 0}, {lon: 60, lat: 30},
}

// checkNearest checks that the servers together find what a look at all cities finds, with bounds
// and without.
func checkNearest(t *testing.T, c *cluster, query func(place) scatter.Query) {
	for _, from := range points {
		for _, k := range []int{1, 6, 1000} {
			want := nearest(from, anywhere, k)
			unbounded := &scatter.Options{PeerDeadline: forever, Cover: c.cover, WaitAll: true}
			for name, opts := range map[string]*scatter.Options{"bounded": c.options(forever), "all": unbounded} {
				resp := c.ask(t, query(from), k, opts)
				require.Equal(t, want, ids(resp.Hits), "%s, from %v", name, from)
				require.False(t, resp.Partial)
				require.Equal(t, len(want), resp.Exact)
				for _, p := range resp.Peers {
					if !errors.Is(p.Err, scatter.ErrEnough) {
						require.NoError(t, p.Err) // ErrBound, for one
					}
				}
			}
		}
	}
}

func TestGeosearch(t *testing.T) { checkNearest(t, newTestCluster(t), byDistance) }

// With a Redis before version 8 this is the one test that may be skipped, SCATTER_NO_SKIP or not.
func TestVsim(t *testing.T) {
	c := emptyCluster(t)
	demotest.Needed(t, c.start(t.Context()))
	err := c.load(t.Context(), true)
	if errors.Is(err, errNoVectorSets) {
		t.Skip("VSIM is tested with a fake only: ", err)
	}
	require.NoError(t, err)
	checkNearest(t, c, byVector)
}

func TestVsimOfFake(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprint("RESP", protocol), func(t *testing.T) {
			c, fakes := newVectorCluster(t, protocol)
			checkNearest(t, c, byVector)
			require.Positive(t, fakes[0].vsims)

			req := &scatter.Request{Table: "no such key", Query: byVector(paris), K: 6}
			resp, err := scatter.Broadcast(t.Context(), req, c.peers, c.search, &scatter.Options{PeerDeadline: forever})
			require.NoError(t, err)
			require.Empty(t, resp.Hits)
			require.False(t, resp.Partial)
		})
	}
}

// Two replicas both return their cities, and each city counts once.
func TestVsimReplicas(t *testing.T) {
	c, _ := newVectorCluster(t, 3)
	duplicates := 0
	trace := &scatter.Trace{QueryDone: func(_ context.Context, done scatter.QueryDoneInfo) {
		duplicates = done.Duplicates
	}}
	opts := &scatter.Options{Cover: c.cover, WaitAll: true, PeerDeadline: forever, Trace: trace}
	resp := c.ask(t, byVector(paris), 6, opts)
	require.Equal(t, nearest(paris, anywhere, 6), ids(resp.Hits))
	require.GreaterOrEqual(t, duplicates, 5)
	require.InDelta(t, 1, resp.Hits[0].Score, 1e-6)
}

// The servers of far regions are not asked for the six cities nearest to Paris.
func TestVsimOutranked(t *testing.T) {
	c, fakes := newVectorCluster(t, 3)
	resp := c.ask(t, byVector(paris), 6, c.options(forever))
	for i, p := range resp.Peers {
		outranked := i/copies != 1
		require.Equal(t, outranked, p.Status == scatter.Outranked, "server %d: %v", i+1, p.Status)
		if outranked {
			require.Zero(t, fakes[i].vsims)
		}
	}
}

// One server that hangs costs nothing, as its replica answers. Two cost their cities, and the
// answer says so.
func TestVsimHang(t *testing.T) {
	c, fakes := newVectorCluster(t, 3)
	hung := make(chan struct{})
	defer close(hung)
	fakes[2].hung = hung
	resp := c.ask(t, byVector(paris), 6, c.options(forever))
	require.Equal(t, nearest(paris, anywhere, 6), ids(resp.Hits))
	require.False(t, resp.Partial)

	fakes[3].hung = hung
	opts := &scatter.Options{Cover: c.cover, PeerDeadline: 50 * time.Millisecond}
	for { // longer and longer, so that the others have the time that they need
		resp = c.ask(t, byVector(paris), 6, opts)
		require.True(t, resp.Partial)
		if len(resp.Missing) == 1 {
			break
		}
		opts.PeerDeadline *= 2
	}
	require.Equal(t, nearest(paris, func(p place) bool { return p.region() != 1 }, 6), ids(resp.Hits))
	require.Equal(t, c.peers[2:4], resp.Missing[0].Holders)
}

// A server that is older than Redis 8, or whose key is no vector set, fails.
func TestVsimUnknown(t *testing.T) {
	c := newTestCluster(t)
	resp := c.ask(t, byVector(paris), 6, &scatter.Options{PeerDeadline: forever})
	require.Empty(t, resp.Hits)
	require.Zero(t, resp.Coverage)
	for _, p := range resp.Peers {
		require.Equal(t, scatter.Failed, p.Status)
	}
}

func TestUnknownQuery(t *testing.T) {
	c := emptyCluster(t)
	req := &scatter.Request{Query: scatter.Text{}, K: 1}
	_, err := scatter.Broadcast(t.Context(), req, []scatter.PeerID{"a"}, c.search, nil)
	require.ErrorIs(t, err, scatter.ErrPermanent)
	require.ErrorContains(t, err, "scatter.Text")
}

// Paris has six cities nearby. The servers of the other two regions are Outranked: no GEOSEARCH
// reaches them.
func TestOutranked(t *testing.T) {
	c := newTestCluster(t)
	resp := c.ask(t, near(paris), 6, c.options(forever))
	require.Equal(t, nearest(paris, anywhere, 6), ids(resp.Hits))
	require.False(t, resp.Partial)
	require.Equal(t, 6, resp.Exact)
	for i, p := range resp.Peers {
		stats, err := c.clients[p.Peer].Info(t.Context(), "commandstats").Result()
		require.NoError(t, err)
		outranked := i/copies != 1
		require.Equal(t, outranked, p.Status == scatter.Outranked, "server %d: %v", i+1, p.Status)
		if outranked {
			require.NotContains(t, stats, "cmdstat_geosearch:")
		}
	}
}

// A server that hangs is given up at its deadline, although its probe goes on. When the server goes
// on too, the probe gets its reply, which is dropped.
func TestHang(t *testing.T) {
	c := newTestCluster(t)
	hung := c.peers[0]
	require.NoError(t, c.clients[hung].Close())
	c.clients[hung] = redis.NewClient(&redis.Options{Addr: string(hung), MaxRetries: -1, ReadTimeout: -1}) // none
	require.NoError(t, c.clients[hung].Ping(t.Context()).Err())
	c.freeze(t, 0)
	late := make(chan scatter.LateReplyInfo, 100)
	trace := &scatter.Trace{LateReply: func(_ context.Context, r scatter.LateReplyInfo) {
		if r.Peer == hung {
			late <- r
		}
	}}
	resp := c.askUntil(t, scatter.Options{Trace: trace}, 0)
	require.Equal(t, nearest(paris, anywhere, 6), ids(resp.Hits), "want those of the others")
	require.True(t, resp.Partial)
	require.Equal(t, 1, resp.PeersTimedOut)
	require.Empty(t, late, "from a server that hangs")
	require.NoError(t, c.own[0].Process.Signal(syscall.SIGCONT))
	r := <-late
	require.NoError(t, r.Err)
	require.Equal(t, 6, r.Hits)
}

// With a Cover the copies count: one server that hangs isn't waited for, however long its deadline
// is. If two hang, the cities that only they have are missing.
func TestHangCovered(t *testing.T) {
	c := newTestCluster(t)
	c.freeze(t, 2)
	resp := c.ask(t, near(paris), 6, c.options(forever))
	require.False(t, resp.Partial)
	require.Equal(t, scatter.NotNeeded, resp.Peers[2].Status)

	c.freeze(t, 3)
	resp = c.askUntil(t, scatter.Options{Cover: c.cover}, 2, 3)
	require.Equal(t, nearest(paris, func(p place) bool { return p.region() != 1 }, 6), ids(resp.Hits))
	require.True(t, resp.Partial)
	require.Len(t, resp.Missing, 1)
}

// A server that isn't there fails, and fails fast.
func TestDown(t *testing.T) {
	c := newTestCluster(t)
	c.connect(&redis.Options{Addr: c.dir + "/nobody"})
	resp := c.ask(t, near(paris), 6, &scatter.Options{PeerDeadline: forever})
	p := resp.Peers[len(c.own)]
	require.Equal(t, scatter.Failed, p.Status)
	require.ErrorIs(t, p.Err, syscall.ENOENT)
	require.Len(t, resp.Hits, 6)
}

func TestRun(t *testing.T) {
	var out strings.Builder
	demotest.Needed(t, run(t.Context(), []string{"-deadline", "-1s", "-hang", "1"}, &out))
	for _, want := range []string{
		" 1  Paris                 0.0 km\n", " 6  Rotterdam ", "coverage 100 %, exact up to rank 6, ",
		"/1  Outranked, ", "/3  NotNeeded, ", "/4  Answered, 6 hits", "/5  Outranked, ",
	} {
		require.Contains(t, out.String(), want)
	}

	c := newTestCluster(t)
	out.Reset()
	args := []string{"-deadline", "-1s", "-lon", "139", "-lat", "35", string(c.peers[0]), string(c.peers[5])}
	require.NoError(t, run(t.Context(), args, &out))
	require.True(t, strings.HasPrefix(out.String(), " 1  Tokyo "), out.String())
}

func TestRunVsim(t *testing.T) {
	c, _ := newVectorCluster(t, 3)
	var out strings.Builder
	args := []string{"-vsim", "-deadline", "-1s"}
	for _, p := range c.peers {
		args = append(args, string(p))
	}
	require.NoError(t, run(t.Context(), args, &out))
	require.Contains(t, out.String(), " 2  Lille            0.999745\n")
	require.Contains(t, out.String(), "coverage 100 %, exact up to rank 6, ")

	out.Reset()
	if err := run(t.Context(), []string{"-vsim"}, &out); err != nil && !errors.Is(err, errNoVectorSets) {
		demotest.Needed(t, err)
	} else if err != nil {
		require.Regexp(t, `^redis-server [1-7]\.\d+\.\d+ has no vector sets: Redis 8 has$`, err.Error())
	}
}

func TestRunErrors(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-lon 181", "-lon is 181, want -180 to 180"},
		{"-lon NaN", "-lon is NaN, want -180 to 180"},
		{"-lat -86", "-lat is -86, want -85 to 85"},
		{"-deadline 0", "-deadline is 0, "},
		{"-hang -1", "-hang is -1, want 0 to 6"},
		{"-hang 7", "-hang is 7, want 0 to 6"},
		{"-hang 1 127.0.0.1:1", "-hang is 1, want 0 for servers that "},
	} {
		require.ErrorContains(t, run(t.Context(), strings.Fields(tt.args), new(strings.Builder)), tt.want)
	}
}

// Ctrl-C ends it, wherever it is, and nothing is left.
func TestRunCancelled(t *testing.T) {
	before := runtime.NumGoroutine()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(time.Second, cancel).Stop()
	// It would take 5 s, and be no error.
	err := run(ctx, []string{"-deadline", "-1s", "-hang", "6"}, new(strings.Builder))
	if !errors.Is(err, context.Canceled) {
		demotest.Needed(t, err)
		t.Error("no error")
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, time.Minute, time.Millisecond)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func anywhere(place) bool { return true }

// nearest is the oracle: the names of the k nearest cities that are wanted, by a look at all.
func nearest(from place, wanted func(place) bool, k int) []string {
	var all []place
	for _, p := range places() {
		if wanted(p) {
			all = append(all, p)
		}
	}
	far := func(p place) float64 { return angle(from.lon, from.lat, p.lon, p.lat) }
	slices.SortFunc(all, func(a, b place) int { return cmp.Compare(far(a), far(b)) })
	var names []string
	for _, p := range all[:min(k, len(all))] {
		names = append(names, p.name)
	}
	return names
}

// angle returns the angle between two points on the Earth, seen from its centre.
func angle(lon1, lat1, lon2, lat2 float64) float64 {
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
