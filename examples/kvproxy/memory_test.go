//go:build unix

package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

var searches = flag.Int("searches", 3000, "`number` of searches over which memory must be flat")

// usage is what a process takes up. What isn't known is 0: files and resident are so but on Linux.
type usage struct {
	name              string // of the process
	goroutines, files int
	live              int  // bytes of the Go heap that are reachable
	exact             bool // live is so, no garbage in it
	resident          int  // bytes of the process that are in memory
}

// within reports whether a process takes up no more than before, or little more. What a search leaves behind adds up
// over 3,000 of them, of which each process is the proxy in 500, and a node is asked in some 2,000: a goroutine of one
// search in 150 is too much, and so is half a kilobyte of each that it is the proxy in. What is none of their doing
// doesn't add up, and mostly passes, so that the least of several looks counts:
//
//   - goroutines, files: gossip and metrics take some for a moment.
//   - live: all that is kept on purpose is of fixed size, and there after the warm-up: ledgers, latencies of peers. But
//     what is made while garbage is collected counts as reachable.
//   - resident: the heap with its garbage, of which there may be as much again, and what Go and SQLite haven't given
//     back. It is there for what isn't on the Go heap, and says less: it goes up and down by some megabytes.
//     Of this process it says nothing: it depends on which tests have run in it before, and on what they have left,
//     by the race detector a gigabyte. Its heap is known exactly instead.
func (u usage) within(before usage) bool {
	live := 256 << 10
	if u.exact {
		live = 128 << 10
	}
	return u.goroutines <= before.goroutines+2 && u.files <= before.files+2 && u.live <= before.live+live &&
		(u.exact || u.resident <= before.resident+24<<20)
}

// least takes each figure from where it is less.
func (u usage) least(o usage) usage {
	u.goroutines, u.files = min(u.goroutines, o.goroutines), min(u.files, o.files)
	u.live, u.resident = min(u.live, o.live), min(u.resident, o.resident)
	return u
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d KB live, %d KB resident", u.goroutines, u.files, u.live>>10,
		u.resident>>10)
}

// ask Linux what it knows of a process.
func (u *usage) ask(t *testing.T, pid int) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.files = len(files)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nVmRSS:")
	if _, err := fmt.Sscan(rest, &u.resident); err != nil {
		t.Fatalf("VmRSS in /proc/%d/status: %v", pid, err)
	}
	u.resident <<= 10 // it is in KB
}

// ownUsage is this process's, in which the proxy is.
func ownUsage(t *testing.T) (u usage) {
	t.Helper()
	runtime.GC() // twice, for a sync.Pool keeps what it has over one
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	u = usage{
		name: "this process, the proxy in it", goroutines: runtime.NumGoroutine(), live: int(stats.HeapAlloc),
		exact: true,
	}
	u.ask(t, os.Getpid())
	return u
}

// nodeGOGC is the nodes' GOGC in these tests: their garbage is collected when the heap is larger by so many percent
// than what was reachable the last time. What that was follows from the size at which it is to be collected.
const nodeGOGC = 25

// nodeUsage is a node's, as its metrics tell.
func nodeUsage(t *testing.T, c *cluster, p *process) (u usage) {
	t.Helper()
	metrics := metricsOf(t, c, p)
	u = usage{
		name: p.name, goroutines: metrics["go_goroutines"],
		live: metrics["go_memstats_next_gc_bytes"] * 100 / (100 + nodeGOGC),
	}
	u.ask(t, p.cmd.Process.Pid)
	return u
}

// metricsOf reads the metrics without labels of a node, over a connection that isn't kept.
func metricsOf(t *testing.T, c *cluster, p *process) map[string]int {
	t.Helper()
	members := c.proxy.view.Load().members
	at := slices.IndexFunc(members, func(m member) bool { return string(m.name) == p.name })
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+members[at].http+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	values := make(map[string]int)
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = int(f)
		}
	}
	return values
}

// search searches n times in all, by all of the clients at the same time, in all ways that there are, some in vain.
func (l *leakTest) search(n int) {
	l.Helper()
	group, ctx := errgroup.WithContext(l.Context())
	for worker, client := range l.clients {
		r := rand.New(rand.NewPCG(uint64(n), uint64(worker)))
		group.Go(func() error {
			for i := range n / len(l.clients) {
				var err error
				switch i % 10 {
				case 0: // in a millisecond, so that most answers are partial or errors
					err = client.Do(ctx, "FT.SEARCH", "idx", "*=>[KNN 5 @L2 $v]", "TIMEOUT", 1, "PARAMS", 2, "v",
						vectorBlob(randomVector(r))).Err()
				case 1:
					if client.Do(ctx, "FT.SEARCH", "idx", "*=>[KNN 5 @L2 $v]", "PARAMS", 2, "v", "short").Err() == nil {
						err = errors.New("a query vector of 5 bytes is no error")
					}
				case 2:
					_, err = substring("ll").ask(ctx, client)
				case 3:
					_, err = regex("b.ll", 0, nil).ask(ctx, client)
				default:
					_, err = knn(metricL2, 1+r.IntN(20), randomVector(r)).ask(ctx, client)
				}
				if err != nil && !noQuorum(err) {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		l.Fatal(err)
	}
}

// leakTest is a cluster with some documents, and a client of each node and of the proxy.
type leakTest struct {
	*testing.T
	cluster *cluster
	clients []*redis.Client
	docs    corpus
}

func newLeakTest(t *testing.T) *leakTest {
	t.Helper()
	t.Setenv("GOGC", strconv.Itoa(nodeGOGC))
	c, _ := newTestCluster(t, 5)
	l := &leakTest{t, c, clientsOf(t, c), make(corpus)}
	runAll(t, [][]any{corpusIndex()}, l.clients...)
	runAll(t, l.docs.fill(rand.New(rand.NewPCG(3, 4)), 100), l.clients...)
	return l
}

// look says what some nodes take up, and last this process, after a few searches that have garbage collected. Of
// several looks, whose result so far is least, the least figures count.
func (l *leakTest) look(nodes []*process, least []usage) []usage {
	l.Helper()
	l.search(60)
	var list []usage
	for _, p := range nodes {
		list = append(list, nodeUsage(l.T, l.cluster, p))
	}
	list = append(list, ownUsage(l.T))
	for i := range least {
		list[i] = list[i].least(least[i])
	}
	return list
}

// before looks before what a test does. The first look is in vain: it opens what the metrics need to ask other nodes.
func (l *leakTest) before(nodes []*process) (least []usage) {
	l.Helper()
	l.look(nodes, nil)
	for range 5 {
		least = l.look(nodes, least)
	}
	return least
}

// flat fails the test unless the processes take up what they did before.
func (l *leakTest) flat(nodes []*process, before []usage) {
	l.Helper()
	var least []usage
	grown := true
	for began := time.Now(); grown && time.Since(began) < 20*time.Second; {
		least, grown = l.look(nodes, least), false
		for i, after := range least {
			grown = grown || !after.within(before[i])
		}
	}
	for i, after := range least {
		if line := fmt.Sprintf("%s: before %v, after %v", after.name, before[i], after); after.within(before[i]) {
			l.Log(line)
		} else {
			l.Error(line)
		}
	}
}

// Searches leave nothing behind, in no process.
func TestSearchesLeakNothing(t *testing.T) {
	l := newLeakTest(t)
	nodes := l.cluster.nodes
	l.search(1000)
	before, began := l.before(nodes), time.Now()
	l.search(*searches)
	t.Logf("%d searches in %v", *searches, time.Since(began))
	l.flat(nodes, before)
}

// waitReady waits until all nodes of a cluster are up and current.
func waitReady(t *testing.T, c *cluster) {
	t.Helper()
	for began := time.Now(); !c.ready(t.Context()); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the cluster is not whole after a minute")
		}
	}
}

// Nor does it leave anything behind in the others that nodes are killed and started again.
func TestRestartsLeakNothing(t *testing.T) {
	l := newLeakTest(t)
	again, others := l.cluster.nodes[:2], l.cluster.nodes[2:]
	l.clients = l.clients[2:] // of those that stay
	rounds := func(n int) {
		t.Helper()
		for range n {
			for _, p := range again {
				p.kill(t)
			}
			l.search(200)
			for _, p := range again {
				if err := p.start(); err != nil {
					t.Fatal(err)
				}
			}
			waitReady(t, l.cluster)
			l.search(200)
		}
	}
	rounds(1)
	before, began := l.before(others), time.Now()
	rounds(3)
	t.Logf("3 times two nodes were killed, in %v", time.Since(began))
	l.flat(others, before)
}
