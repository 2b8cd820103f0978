package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scatterknn/scatter"
)

func TestCurrencyLastsSoLongAsPulls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := currency{started: time.Now()}
		check := func(want bool) {
			t.Helper()
			if c.current() != want {
				t.Errorf("after %v current is %t", time.Since(c.started), !want)
			}
		}
		// Of three replicas one of the other two must have been pulled from; and of five nodes two others, for the schemas.
		c.require([]need{
			{[]scatter.PeerID{"a", "b"}, 1}, {[]scatter.PeerID{"b", "c"}, 1}, {[]scatter.PeerID{"a", "b", "c", "d"}, 2},
		}, []scatter.PeerID{"a", "b", "c", "d"}, true)
		check(false)
		c.brought("b", time.Now(), false)
		check(false)
		c.brought("d", time.Now(), false)
		check(true)
		time.Sleep(freshFor - 1)
		check(true)
		time.Sleep(time.Nanosecond)
		check(false)
		began := time.Now()
		time.Sleep(freshFor / 2)
		c.brought("a", began, false)
		c.brought("c", began, false)
		check(true)
		time.Sleep(freshFor / 2)
		check(false)
	})
}

func TestCurrencyOnNewRing(t *testing.T) {
	c := currency{started: time.Now()}
	c.require([]need{{[]scatter.PeerID{"a", "b"}, 1}}, []scatter.PeerID{"a", "b", "c"}, false)
	for i, peer := range []scatter.PeerID{"a", "a", "b", "c"} {
		if c.current() {
			t.Errorf("current after %d pulls", i)
		}
		if settled := c.brought(peer, time.Now(), peer == "b"); settled != (peer == "c") {
			t.Errorf("after %s settled is %t", peer, settled)
		}
	}
	if !c.current() {
		t.Error("not current after all")
	}
}

func TestCurrencyOfOne(t *testing.T) {
	c := currency{started: time.Now()}
	v := &view{ring: scatter.NewRing(scatter.Point{Token: 1, Peer: "a"}), onRing: map[scatter.PeerID]bool{"a": true}}
	for replicas, want := range []bool{1: true, 2: false, 3: false} { // there must be more whom it doesn't know
		v.replicas = replicas
		c.require(v.needsOf("a"), nil, false)
		if replicas > 0 && c.current() != want {
			t.Errorf("alone, of %d replicas: current is %t", replicas, !want)
		}
	}
}

func TestFreshAssumesTheWorstAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := currency{started: time.Now()}
		left := func(peer scatter.PeerID) time.Duration {
			parts := c.fresh([]member{{name: peer}})
			for i := 0; i < len(parts); i += 2 {
				if string(parts[i]) == string(peer) {
					us, _ := strconv.Atoi(string(parts[i+1]))
					return time.Duration(us-1) * time.Microsecond
				}
			}
			return 0
		}
		if got := left("a"); got != freshFor {
			t.Errorf("%v at the start, want %v", got, freshFor)
		}
		time.Sleep(freshFor / 2)
		c.serves("b")
		if a, b := left("a"), left("b"); a != freshFor/2 || b != freshFor {
			t.Errorf("%v and %v, want %v and %v", a, b, freshFor/2, freshFor)
		}
		time.Sleep(freshFor / 2)
		if a, b := left("a"), left("b"); a != 0 || b != freshFor/2 {
			t.Errorf("%v and %v, want 0 and %v", a, b, freshFor/2)
		}
	})
}

// Any majority of a key's holders that a node is none of has one whom the node has pulled from, if it is current.
func TestNeedsMeetEachMajority(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		nodes, replicas := 1+r.IntN(7), 1+r.IntN(5)
		var points []scatter.Point
		for i := range nodes {
			for range 1 + r.IntN(4) {
				points = append(points, scatter.Point{Token: r.Uint64(), Peer: scatter.PeerID(fmt.Sprint("n", i))})
			}
		}
		v := &view{ring: scatter.NewRing(points...), replicas: replicas, onRing: make(map[scatter.PeerID]bool)}
		for _, peer := range v.ring.PrimaryPeers(nil) {
			v.onRing[peer] = true
			v.members = append(v.members, member{name: peer})
		}
		self := points[0].Peer
		c := currency{started: time.Now()}
		c.require(v.needsOf(self), nil, true)
		pulled := make(map[scatter.PeerID]bool)
		for i := range nodes {
			if peer := scatter.PeerID(fmt.Sprint("n", i)); peer != self && r.IntN(2) == 0 {
				pulled[peer] = true
				c.brought(peer, time.Now(), false)
			}
		}
		want := true
		for range 200 {
			key := string([]byte{clientKey, byte(r.IntN(256)), byte(r.IntN(256))})
			if r.IntN(10) == 0 {
				key = string(schemaKey)
			}
			holders, quota := v.holders(key), v.majority(key)
			if !slices.Contains(holders, self) {
				continue
			}
			var unseen int // holders that could have acknowledged a write of which the node hasn't heard
			for _, peer := range holders {
				if peer != self && !pulled[peer] {
					unseen++
				}
			}
			want = want && unseen < quota
		}
		if got := c.current(); got && !want {
			t.Errorf("%d nodes, %d replicas, pulled from %v: current, but a majority is unseen", nodes, replicas, pulled)
		}
	}
}

// Who was current when another ended remains so. Who wasn't, or has been started since, doesn't become so by that.
func TestNobodyThereProlongs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := currency{started: time.Now()}
		c.require([]need{{[]scatter.PeerID{"a"}, 1}}, []scatter.PeerID{"a"}, true)
		c.brought("a", time.Now(), true)
		if c.current() {
			t.Error("current by a node that was never there")
		}
		c.brought("a", time.Now(), false)
		for range 10 {
			time.Sleep(freshFor - 1)
			c.brought("a", time.Now(), true)
			if !c.current() {
				t.Fatalf("not current %v after the last pull", time.Since(c.started))
			}
		}
		time.Sleep(freshFor)
		c.brought("a", time.Now(), true)
		if c.current() {
			t.Error("current after it was not")
		}
	})
}
