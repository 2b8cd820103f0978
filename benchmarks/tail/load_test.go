package main

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
)

// A server serves in the order in which probes come, by as many workers as it has, and passes over
// those that were cancelled while they waited.
func TestServersQueue(t *testing.T) {
	w, stop := newWorld(testSeed, false)
	stop()
	fixed := &fixedQuery{}
	s := &search{query: fixed, whenEnd: func(*scatter.Response[hit]) {}}
	for i := range 5 {
		w.ask(s, 0, i, time.Time{})
	}
	w.ask(s, 0, 5, epoch.Add(time.Nanosecond)) // given up on while it waits
	w.cancel(s.probes[3])
	if sv := &w.servers[0]; sv.busy != workers || sv.present != 5 {
		t.Errorf("%d workers are busy and %d probes present, want %d and 5", sv.busy, sv.present, workers)
	}
	w.run()
	slices.Sort(fixed.replied)
	if want := []int{0, 1, 2, 4}; !slices.Equal(fixed.replied, want) {
		t.Errorf("the probes %v are answered, want %v", fixed.replied, want)
	}
	if sv := &w.servers[0]; sv.busy != 0 || sv.present != 0 {
		t.Errorf("in the end %d workers are busy and %d probes present", sv.busy, sv.present)
	}
}

func TestBadServers(t *testing.T) {
	w, stop := newWorld(testSeed, true)
	stop()
	fixed := &fixedQuery{}
	s := &search{query: fixed, whenEnd: func(*scatter.Response[hit]) {}}
	for i := range w.servers {
		w.ask(s, i, i, time.Time{})
	}
	w.run()
	if got, want := len(fixed.replied), len(w.servers)-1; got != want || len(fixed.failed) != 1 {
		t.Errorf("%d servers reply, %d of them with an error, want %d and 1", got, len(fixed.failed), want)
	}
}

// fixedQuery records what it is told and never ends.
type fixedQuery struct{ replied, failed []int }

func (q *fixedQuery) begin(time.Time)                  {}
func (q *fixedQuery) advance(time.Time)                {}
func (q *fixedQuery) deadline() (time.Time, bool)      { return time.Time{}, false }
func (q *fixedQuery) response() *scatter.Response[hit] { return nil }
func (q *fixedQuery) reply(_ time.Time, i int, _ feedback, err error) {
	q.replied = append(q.replied, i)
	if err != nil {
		q.failed = append(q.failed, i)
	}
}

// The times drawn have the mean that they should, and so the load is what is said.
func TestCapacity(t *testing.T) {
	w, stop := newWorld(testSeed, false)
	stop()
	sum := time.Duration(0)
	const draws = 100_000
	for range draws {
		sum += w.draw(&w.servers[0])
	}
	if mean := sum / draws; mean < 49*serviceMean/50 || mean > 51*serviceMean/50 {
		t.Errorf("the mean of the times is %v, want about %v", mean, serviceMean)
	}
	// 27 peers with 2 workers, 5 ms and 15 % more for slow spells, and 3 peers with half as much
	// again.
	if got := w.capacity(); got < 10086*0.99 || got > 10086*1.01 {
		t.Errorf("the capacity is %.0f probes a second, want about 10086", got)
	}
}

// All strategies get all queries answered, the oracle agrees with each answer, and the product does
// better than asking in turn.
func TestLoads(t *testing.T) {
	for _, bad := range []bool{false, true} {
		results, err := simulateLoads(0.5, bad, 2000, []uint64{testSeed, testSeed + 1})
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		printLoads(&text, 0.5, bad, results)
		for _, r := range results {
			if got, want := len(r.elapsed), 2*1800; got != want {
				t.Errorf("%s: %d answers, want %d", r.strategy, got, want)
			}
			if !strings.Contains(text.String(), "| "+r.strategy+" | ") {
				t.Errorf("%s has no row", r.strategy)
			}
		}
		turn, ours := named(results, "in turn, hedged"), named(results, "scatter")
		if got, want := percentile(ours.elapsed, 0.99), percentile(turn.elapsed, 0.99); got > want {
			t.Errorf("bad peers %v: p99 is %v, want less than %v, that of asking in turn", bad, got, want)
		}
		if ours.partial() > 0 || ours.probes > 1.06*shards {
			t.Errorf("bad peers %v: %v of the answers are partial and a query takes %v probes, want 0 and at most %v",
				bad, ours.partial(), ours.probes, 1.06*shards)
		}
	}
}

func TestSameSeedSameLoads(t *testing.T) {
	for _, way := range loadWays() {
		c := loadCase{0.5, true, 300, testSeed}
		first, err1 := simulateLoad(way, c)
		second, err2 := simulateLoad(way, c)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if !reflect.DeepEqual(first, second) {
			t.Errorf("%s: the same seed gives other figures", way.name)
		}
	}
}

func TestRivalsChoose(t *testing.T) {
	w, stop := newWorld(testSeed, false)
	stop()
	c := newClient(inTurn, w, somePeers(shards*copies), rand.New(rand.NewPCG(testSeed, 0)))
	among := []int{0, 1, 2}
	c.known[0].out, c.known[1].out = 1, 2
	for range 10 {
		if got := leastInFlight.choose(c, 0, among); got != 2 {
			t.Errorf("peer %d is chosen, want 2: nothing is in flight to it", got)
		}
	}
	c.known[0].out, c.known[1].out = 0, 0
	c.known[1].present, c.known[2].present = 2, 3
	for range 10 {
		if got := byC3.choose(c, 0, among); got != 0 {
			t.Errorf("peer %d is chosen, want 0: nothing waits there", got)
		}
	}
	if first, second := inTurn.choose(c, 0, among), inTurn.choose(c, 1, among); first == second {
		t.Errorf("peer %d of two shards is chosen, want others in turn", first)
	}
}
