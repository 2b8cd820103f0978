package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/scatterknn/scatter"
)

// watched is a member under test.
type watched struct {
	*members
	changed chan struct{} // has an element after a change
	stopped bool
}

func startWatched(t *testing.T, name string, known ...member) *watched {
	return startWatchedOn(t, name, "127.0.0.1:0", known...)
}

func startWatchedOn(t *testing.T, name, gossip string, known ...member) *watched {
	t.Helper()
	w := &watched{changed: make(chan struct{}, 1)}
	self := member{name: scatter.PeerID(name), addr: name + ":6379", http: name + ":80", tokens: 8}
	m, err := startMembers(self, gossip, known, func() {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	w.members = m
	t.Cleanup(func() {
		if !w.stopped {
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // there is nobody to say goodbye to
			m.stop(ctx)
		}
	})
	return w
}

// crash ends a member without a word to the others.
func (w *watched) crash() {
	w.stopped = true
	w.end()
	w.gossip.Shutdown()
	w.running.Wait()
}

// until waits for changes until the list is as it should be, and returns it.
func (w *watched) until(t *testing.T, what string, is func(list []member) bool) []member {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		list := w.list()
		if is(list) {
			return list
		}
		select {
		case <-w.changed:
		case <-timeout:
			t.Fatalf("%s, as seen by %s: %v", what, w.self, list)
		}
	}
}

// up is what a list shows that are alive of the names, and all others not.
func up(names ...string) func([]member) bool {
	return func(list []member) bool {
		var alive []string
		for _, m := range list {
			if m.alive {
				alive = append(alive, string(m.name))
			}
		}
		return slices.Equal(alive, names)
	}
}

func TestMembers(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	var all []*watched
	for i, name := range names {
		w := startWatched(t, name)
		if i > 0 {
			if err := w.join([]string{w.gossipAddr(), all[rand.IntN(i)].gossipAddr()}); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, w)
	}
	for _, w := range all {
		for i, m := range w.until(t, "the list", up(names...)) {
			name := names[i]
			want := member{scatter.PeerID(name), name + ":6379", name + ":80", all[i].gossipAddr(), 8, true}
			if m != want {
				t.Errorf("%s knows %+v, want %+v", w.self, m, want)
			}
		}
		sameRing(t, w, all[0])
	}

	start := time.Now()
	all[4].crash()
	for _, w := range all[:4] {
		if list := w.until(t, "a crash", up(names[:4]...)); w.live("e") || len(list) != 5 {
			t.Errorf("%s after a crash: %v", w.self, list)
		}
		sameRing(t, w, all[4])
	}
	t.Logf("a crash of one in five is known to all after %v", time.Since(start))

	all[4] = startWatched(t, "e", all[0].list()...) // elsewhere, and joins by what it knows from before
	for _, w := range all {
		w.until(t, "a return", func(list []member) bool {
			return up(names...)(list) && list[4].gossip == all[4].gossipAddr()
		})
	}

	all[3].stop(t.Context())
	all[3].stopped = true
	rest := append(all[:3:3], all[4])
	for _, w := range rest {
		if list := w.until(t, "a leave", up("a", "b", "c", "e")); w.live("d") || len(list) != 5 {
			t.Errorf("%s after a leave: %v", w.self, list)
		}
	}
	all[2].crash()
	fresh := startWatched(t, "f") // has never heard of d and c, but shall
	if err := fresh.join([]string{all[0].gossipAddr()}); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*watched{all[0], all[1], all[4], fresh} {
		w.until(t, "one more", func(list []member) bool { return up("a", "b", "e", "f")(list) && len(list) == 6 })
		sameRing(t, w, fresh)
	}
}

func sameRing(t *testing.T, a, b *watched) {
	t.Helper()
	if x, y := pointsOf(ringOf(a.list())), pointsOf(ringOf(b.list())); !slices.Equal(x, y) {
		t.Errorf("%s and %s have different rings, of %d and %d points", a.self, b.self, len(x), len(y))
	}
}

func pointsOf(ring *scatter.Ring) (points []scatter.Point) {
	for slot := range ring.Len() {
		points = append(points, ring.Point(slot))
	}
	return points
}

// The other of two is noticed to be gone although nobody can agree on it.
func TestMembersTwo(t *testing.T) {
	a, b := startWatched(t, "a"), startWatched(t, "b")
	if err := b.join([]string{a.gossipAddr()}); err != nil {
		t.Fatal(err)
	}
	a.until(t, "two", up("a", "b"))
	start := time.Now()
	b.crash()
	a.until(t, "a crash", up("a"))
	t.Logf("a crash of one in two is known after %v", time.Since(start))
}

// A member that is started again where it was, before anybody has noticed, is the same member, with its new addresses.
func TestMembersRestart(t *testing.T) {
	a, b := startWatched(t, "a"), startWatched(t, "b")
	if err := b.join([]string{a.gossipAddr()}); err != nil {
		t.Fatal(err)
	}
	a.until(t, "two", up("a", "b"))
	b.crash()
	self := member{name: "b", addr: "b:2", tokens: 16}
	again, err := startMembers(self, b.gossipAddr(), b.list(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer again.stop(t.Context())
	a.until(t, "a restart", func(list []member) bool {
		return up("a", "b")(list) && list[1].addr == "b:2" && list[1].tokens == 16
	})
}

// Of two with the same name the first is a member. The other is told, and becomes one when the first is gone.
func TestMembersWithOneName(t *testing.T) {
	a, b := startWatched(t, "a"), startWatched(t, "b")
	if err := b.join([]string{a.gossipAddr()}); err != nil {
		t.Fatal(err)
	}
	a.until(t, "two", up("a", "b"))
	other := startWatched(t, "a")
	want := fmt.Sprintf("the name a is taken by the member that gossips at %s", a.gossipAddr())
	for range 3 {
		if err := other.join([]string{b.gossipAddr()}); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, w := range []*watched{a, b} {
		if list := w.until(t, "the first", up("a", "b")); list[0].gossip != a.gossipAddr() {
			t.Errorf("%s: %v", w.self, list)
		}
	}
	a.crash()
	b.until(t, "the other", func(list []member) bool {
		return up("a", "b")(list) && list[0].gossip == other.gossipAddr()
	})
}

// Members that are down are looked for where they were, by name: those that aren't at their address aren't joined.
func TestMembersRejoin(t *testing.T) {
	b, c := startWatched(t, "b"), startWatched(t, "c")
	a := startWatched(t, "a",
		member{name: "b", addr: "b:1", gossip: b.gossipAddr(), tokens: 1},
		member{name: "x", addr: "x:1", gossip: c.gossipAddr(), tokens: 1},
		member{name: "y", addr: "y:1", gossip: "nowhere", tokens: 1},
		member{name: "a", addr: "a:1", gossip: c.gossipAddr(), tokens: 1})
	for range 3 {
		b.until(t, "the known", up("a", "b"))
		list := a.until(t, "the known", up("a", "b"))
		if len(list) != 4 || list[0].addr != "a:6379" || list[1].addr != "b:6379" || a.live("x") {
			t.Errorf("%v", list)
		}
		if list := c.list(); len(list) != 1 {
			t.Errorf("c was joined: %v", list)
		}
		address := b.gossipAddr() // once more
		b.crash()
		a.until(t, "a crash", up("a"))
		b = startWatchedOn(t, "b", address)
	}
}

// A member that can't join goes on trying.
func TestMembersJoinLater(t *testing.T) {
	b := startWatched(t, "b")
	address := b.gossipAddr()
	b.crash()
	a := startWatched(t, "a")
	if err := a.join([]string{address}); err == nil {
		t.Error("joined nobody")
	}
	if err := a.join([]string{a.gossipAddr()}); err == nil {
		t.Error("joined itself")
	}
	if err := a.join(nil); err == nil {
		t.Error("joined nothing")
	}
	if err := a.join([]string{address}); err == nil {
		t.Error("joined nobody")
	}
	startWatchedOn(t, "b", address)
	a.until(t, "who was late", up("a", "b"))
}

func TestMembersErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	long := strings.Repeat("x", memberlist.MetaMaxSize)
	for _, tt := range []struct {
		self   member
		gossip string
		want   string
	}{
		{member{name: "a", addr: long}, "127.0.0.1:0", "what is told of member a is 568 bytes, and may be 512"},
		{member{name: "a"}, "127.0.0.1:0", "a member without an address"},
		{member{addr: "a"}, "127.0.0.1:0", "a member's name is of 1 to 128 bytes, not 0"},
		{member{name: scatter.PeerID(long), addr: "a"}, "127.0.0.1:0", "a member's name is of 1 to 128 bytes, not 512"},
		{member{name: "a", addr: "a", tokens: -1}, "127.0.0.1:0", "a member with -1 tokens"},
		{member{name: "a", addr: "a", tokens: maxTokens + 1}, "127.0.0.1:0", "a member with 4097 tokens"},
		{member{name: "a", addr: "a"}, "127.0.0.1", "address 127.0.0.1: missing port in address"},
		{member{name: "a", addr: "a"}, taken.Addr().String(), "gossip on " + taken.Addr().String() + ": "},
	} {
		m, err := startMembers(tt.self, tt.gossip, nil, func() {})
		if err == nil {
			m.stop(t.Context())
		}
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

// changed is called by one at a time, after the first list and before the end of stop.
func TestMembersChanged(t *testing.T) {
	for range 10 {
		b := startWatched(t, "b")
		var listed, stopped, inside atomic.Bool
		called := make(chan struct{}, 100)
		m, err := startMembers(member{name: "a", addr: "a"}, "127.0.0.1:0", nil, func() {
			if !listed.Load() || stopped.Load() || inside.Swap(true) {
				t.Error("changed before the first list, after stop, or twice at the same time")
			}
			inside.Store(false)
			called <- struct{}{}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.join([]string{b.gossipAddr()}); err != nil {
			t.Fatal(err)
		}
		listed.Store(true)
		m.list()
		<-called
		c := startWatched(t, "c")
		c.join([]string{b.gossipAddr()})
		if rand.IntN(2) == 0 {
			<-called
		}
		m.stop(t.Context())
		stopped.Store(true)
		b.stop(t.Context())
		b.stopped = true
		if m.live("a") || len(m.list()) == 0 {
			t.Errorf("after stop: %v", m.list())
		}
		c.crash()
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) { // memberlist doesn't wait for all of its goroutines
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if !bytes.Contains(stacks, []byte("created by github.com/hashicorp/memberlist")) {
			break
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("these go on:\n%s", stacks)
		}
	}
}

// Records of members that are down come to the same everywhere, in whichever order they are heard of.
func TestMembersMerge(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		var records []record
		for range 1 + random.IntN(8) {
			records = append(records, record{
				Name: scatter.PeerID(rune('a' + random.IntN(3))), Addr: string(rune('a' + random.IntN(3))),
				Tokens: random.IntN(3) - 1, Born: int64(random.IntN(3)),
			})
		}
		var want []member
		for range 10 {
			g := newGossiper("a")
			for _, i := range random.Perm(len(records)) {
				b, _ := json.Marshal(records[i : i+1])
				g.MergeRemoteState(b, false)
				if random.IntN(2) == 0 {
					g.MergeRemoteState(g.LocalState(false), false)
				}
			}
			got := (*members)(g).list()
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%v: %v, and in another order %v", records, got, want)
			}
		}
	}
}

// newGossiper is one that doesn't gossip, and knows itself and c, both alive.
func newGossiper(self scatter.PeerID) *gossiper {
	m := &members{
		self: self, listed: make(chan struct{}), changes: make(chan struct{}, 1),
		records: make(map[scatter.PeerID]record),
	}
	m.publish()
	g := (*gossiper)(m)
	for _, name := range []string{string(self), "c"} {
		g.NotifyJoin(&memberlist.Node{Name: name, Addr: net.IPv4(127, 0, 0, 1), Meta: []byte(`{"Addr":"x","Tokens":7}`)})
	}
	return g
}

// FuzzMembers is told anything by others.
func FuzzMembers(f *testing.F) {
	f.Add([]byte(`[{"Name":"b","Addr":"b:1","Tokens":3,"Born":5},{"Name":"a","Addr":"b:1"},{"Name":"c","Addr":"c:1"}]`),
		"d", []byte(`{"Addr":"b:1","HTTP":"b:2","Tokens":4}`))
	f.Add([]byte(`{"To":"a","Gossip":"127.0.0.1:1"}`), "", []byte(nil))
	f.Add([]byte(`[{"Name":"b","Tokens":-3},{"Addr":"b"},{},null]`), "", []byte(`{"Tokens":1e99}`))
	f.Fuzz(func(t *testing.T, state []byte, name string, meta []byte) {
		g := newGossiper("a")
		g.MergeRemoteState(state, true)
		g.NotifyMsg(state)
		if name != "a" && name != "c" {
			n := &memberlist.Node{Name: name, Meta: meta}
			if g.NotifyAlive(n) == nil {
				g.NotifyJoin(n)
				g.NotifyUpdate(n)
				if !(*members)(g).live(scatter.PeerID(name)) {
					t.Errorf("%q isn't alive", name)
				}
			}
			g.NotifyLeave(n)
		}
		g.MergeRemoteState(g.LocalState(false), false)
		list := (*members)(g).list()
		byName := func(a, b member) int { return strings.Compare(string(a.name), string(b.name)) }
		if !up("a", "c")(list) || !slices.IsSortedFunc(list, byName) {
			t.Errorf("%v", list)
		}
		for _, m := range list {
			if m.tokens < 0 || m.tokens > maxTokens || m.addr == "" || m.name == "" || m.alive && m.tokens != 7 {
				t.Errorf("%+v", m)
			}
		}
		ringOf(list)
	})
}

func TestRingOf(t *testing.T) {
	list := []member{
		{name: "a", tokens: 64}, {name: "b", tokens: 64}, {name: "proxy"}, {name: "c", tokens: 128, alive: true},
	}
	var want []scatter.Point
	for _, m := range list {
		for i := range m.tokens {
			sum := sha256.Sum256(fmt.Appendf(nil, "%s#%d", m.name, i))
			want = append(want, scatter.Point{Token: binary.BigEndian.Uint64(sum[:8]), Peer: m.name})
		}
	}
	points := pointsOf(scatter.NewRing(want...))
	for range 10 {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		if got := pointsOf(ringOf(list)); !slices.Equal(got, points) || len(got) != 256 {
			t.Fatalf("%d points, want %d", len(got), len(points))
		}
	}
	if n := ringOf(nil).Len(); n != 0 {
		t.Errorf("%d points of nobody", n)
	}
}
