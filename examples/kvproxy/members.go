package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/scatterknn/scatter"
)

// member is a node of the cluster: one that is on the ring, be it up or not.
type member struct {
	name   scatter.PeerID
	addr   string // where it speaks RESP
	http   string
	gossip string
	tokens int // on the ring
	alive  bool
}

const (
	maxTokens   = 4096 // of a member
	maxName     = 128  // bytes
	rejoinEvery = time.Second
	leaveTime   = 2 * time.Second // at most, if the context has more
)

// record is what members tell each other of a member, themselves or another. Name and gossip address are left out of
// what memberlist carries, which has its own.
type record struct {
	Name       scatter.PeerID `json:",omitempty"`
	Addr, HTTP string
	Gossip     string `json:",omitempty"`
	Tokens     int
	Born       int64 // when it was started, in microseconds by its own clock; 0: before this run of who tells
	alive      bool
}

// holds says which of two records of a member that is down holds: the later one. Of two as late it says something, too,
// and everywhere the same.
func (r record) holds(o record) bool {
	if r.Born != o.Born {
		return r.Born > o.Born
	}
	return fmt.Sprint(r) > fmt.Sprint(o)
}

func (r record) check() error {
	switch {
	case len(r.Name) == 0 || len(r.Name) > maxName:
		return fmt.Errorf("a member's name is of 1 to %d bytes, not %d", maxName, len(r.Name))
	case r.Addr == "":
		return errors.New("a member without an address")
	case r.Tokens < 0 || r.Tokens > maxTokens:
		return fmt.Errorf("a member with %d tokens", r.Tokens)
	}
	return nil
}

// members keeps up with who is in the cluster, by gossip (memberlist: the SWIM protocol with Lifeguard's additions),
// which tells of a member that comes, goes or crashes. Each member's gossip carries its record. When two members
// exchange all they know, they exchange the records of those that are down, too: the ring has them, and must be the
// same everywhere.
type members struct {
	self    scatter.PeerID
	meta    []byte
	gossip  *memberlist.Memberlist
	listed  chan struct{} // closed when the owner has first asked for the list
	once    sync.Once     // of that
	changes chan struct{} // has one element while a change has not been told
	invited chan string   // gossip addresses to join
	taken   atomic.Int64  // how often somebody else was said to have this member's name
	owner   atomic.Value  // who that was: a string
	ending  context.Context
	end     context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	records map[scatter.PeerID]record
	seeds   []string // gossip addresses that join was given
	latest  atomic.Pointer[membership]
}

// membership is what is known at one time. It doesn't change.
type membership struct {
	list []member
	live map[scatter.PeerID]bool
}

// startMembers begins to gossip as self on a host:port, whose port may be 0, and tries to reach the members known from
// before. From the first list on, each change is followed by a call of changed, on a goroutine of its own and one at a
// time; several changes may share one. There is none after stop.
func startMembers(self member, gossip string, known []member, changed func()) (*members, error) {
	own := record{Addr: self.addr, HTTP: self.http, Tokens: self.tokens, Born: time.Now().UnixMicro()}
	meta, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	own.Name = self.name
	if err := own.check(); err != nil {
		return nil, err
	}
	if len(meta) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("what is told of member %s is %d bytes, and may be %d: its addresses are too long", self.name,
			len(meta), memberlist.MetaMaxSize)
	}
	bind, err := net.ResolveTCPAddr("tcp", gossip)
	if err != nil {
		return nil, err
	}
	m := &members{
		self: self.name, meta: meta, records: make(map[scatter.PeerID]record),
		listed: make(chan struct{}), changes: make(chan struct{}, 1), invited: make(chan string, 16),
	}
	m.ending, m.end = context.WithCancel(context.Background())
	for _, k := range known {
		if k.name != self.name {
			m.records[k.name] = record{Name: k.name, Addr: k.addr, HTTP: k.http, Gossip: k.gossip, Tokens: k.tokens}
		}
	}
	m.publish()
	if m.gossip, err = memberlist.Create(m.config(bind)); err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", gossip, err)
	}
	m.running.Go(func() { m.tell(changed) })
	m.running.Go(m.rejoin)
	return m, nil
}

// config is for few nodes near each other: a crash is known everywhere after a second or two. Each member probes
// another one all 300 ms. One that has failed that, and that a second one has found to fail it, has 900 ms to object.
func (m *members) config(bind *net.TCPAddr) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = string(m.self)
	c.BindAddr, c.BindPort = "0.0.0.0", bind.Port
	if bind.IP != nil {
		c.BindAddr = bind.IP.String()
	}
	c.TCPTimeout = time.Second
	c.ProbeInterval, c.ProbeTimeout = 300*time.Millisecond, 150*time.Millisecond
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 3, 2
	c.RetransmitMult = 4
	c.GossipInterval = 100 * time.Millisecond
	c.PushPullInterval = 2 * time.Second
	c.DeadNodeReclaimTime = time.Nanosecond // a member that has crashed may come back elsewhere at once
	c.EnableCompression = false
	c.LogOutput = io.Discard
	delegate := (*gossiper)(m)
	c.Delegate, c.Events, c.Alive, c.Conflict = delegate, delegate, delegate, delegate
	return c
}

// gossipAddr returns where others can join this member.
func (m *members) gossipAddr() string { return m.gossip.LocalNode().Address() }

// join joins the members that gossip at these addresses. If none is there but this one, or another has its name, that
// is an error; but join goes on trying in the background, for as long as this member knows no other that is alive, or
// its name is taken.
func (m *members) join(gossipAddrs []string) error {
	own := m.gossipAddr()
	seeds := slices.DeleteFunc(slices.Clone(gossipAddrs), func(addr string) bool { return addr == own })
	if len(seeds) == 0 {
		return errors.New("nobody to join")
	}
	m.mu.Lock()
	m.seeds = seeds
	m.mu.Unlock()
	before := m.taken.Load()
	if _, err := m.gossip.Join(seeds); err != nil {
		return err
	}
	if m.taken.Load() != before {
		return fmt.Errorf("the name %s is taken by the member that gossips at %s", m.self, m.owner.Load())
	}
	return nil
}

// list returns all members ever heard of, this one and those that are down too, by name. The slice is the caller's.
func (m *members) list() []member {
	m.once.Do(func() { close(m.listed) })
	return slices.Clone(m.latest.Load().list)
}

// live says whether a member is alive, as far as is known.
func (m *members) live(peer scatter.PeerID) bool { return m.latest.Load().live[peer] }

// stop says goodbye to the others, for as long as ctx lets it, and stops gossiping. It must not be called by changed.
func (m *members) stop(ctx context.Context) {
	m.end()
	m.running.Wait()
	left := leaveTime
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(deadline))
	}
	if ctx.Err() == nil && left > 0 {
		m.gossip.Leave(left) // an error says that nobody may have heard: they will notice
	}
	m.gossip.Shutdown()
}

// tell tells the owner of changes.
func (m *members) tell(changed func()) {
	select {
	case <-m.listed:
	case <-m.ending.Done():
		return
	}
	for {
		select {
		case <-m.changes:
			changed()
		case <-m.ending.Done():
			return
		}
	}
}

// invitation asks a member to join the one that gossips at an address.
type invitation struct {
	To     scatter.PeerID
	Gossip string
}

// rejoin brings together what memberlist doesn't, or not soon. Members that are down are invited now and then, as they
// may be up again, or this one may have been cut off from them. They join it, and not it them, because only they know
// who they are: at their address there may be somebody else by now, who heeds no invitation to another.
func (m *members) rejoin() {
	own := m.gossipAddr()
	taken := int64(0)
	tick := time.NewTicker(rejoinEvery)
	defer tick.Stop()
	for {
		var down, up []record
		m.mu.Lock()
		join := m.seeds
		for name, r := range m.records {
			switch {
			case name == m.self:
			case r.alive:
				up = append(up, r)
			default:
				down = append(down, r)
			}
		}
		m.mu.Unlock()
		for _, r := range down {
			b, _ := json.Marshal(invitation{r.Name, own}) // strings
			m.gossip.SendToAddress(memberlist.Address{Addr: r.Gossip, Name: string(r.Name)}, b)
		}
		if len(up) > 0 {
			join = nil
		}
		if now := m.taken.Load(); now != taken { // perhaps no longer
			taken = now
			for _, r := range up {
				join = append(join, r.Gossip)
			}
		}
		m.tryJoin(join...)
		for ticked := false; !ticked; {
			select {
			case <-m.ending.Done():
				return
			case addr := <-m.invited:
				m.tryJoin(addr)
			case <-tick.C:
				ticked = true
			}
		}
	}
}

// tryJoin joins whom it can. If it fails, there is a next time.
func (m *members) tryJoin(gossipAddrs ...string) {
	for _, addr := range gossipAddrs {
		if m.ending.Err() == nil {
			m.gossip.Join([]string{addr})
		}
	}
}

// publish makes what is known known to others. The caller has the lock.
func (m *members) publish() {
	next := &membership{live: make(map[scatter.PeerID]bool)}
	for _, r := range m.records {
		next.list = append(next.list, member{r.Name, r.Addr, r.HTTP, r.Gossip, r.Tokens, r.alive})
		next.live[r.Name] = r.alive
	}
	slices.SortFunc(next.list, func(a, b member) int { return cmp.Compare(a.name, b.name) })
	if last := m.latest.Load(); last != nil && slices.Equal(last.list, next.list) {
		return
	}
	m.latest.Store(next)
	select {
	case m.changes <- struct{}{}:
	default:
	}
}

// gossiper is what memberlist sees of members: it is asked for this member's record, and told of the others'.
type gossiper members

func (g *gossiper) NodeMeta(int) []byte { return g.meta }

// NotifyAlive turns away what isn't a member of such a cluster.
func (g *gossiper) NotifyAlive(n *memberlist.Node) error {
	_, err := recordOf(n, true)
	return err
}

func (g *gossiper) NotifyJoin(n *memberlist.Node)   { g.heard(n, true) }
func (g *gossiper) NotifyUpdate(n *memberlist.Node) { g.heard(n, true) }
func (g *gossiper) NotifyLeave(n *memberlist.Node)  { g.heard(n, false) }

func (g *gossiper) heard(n *memberlist.Node, alive bool) {
	if r, err := recordOf(n, alive); err == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.records[r.Name] = r
		(*members)(g).publish()
	}
}

func recordOf(n *memberlist.Node, alive bool) (r record, err error) {
	if err := json.Unmarshal(n.Meta, &r); err != nil {
		return r, err
	}
	r.Name, r.Gossip, r.alive = scatter.PeerID(n.Name), n.Address(), alive
	return r, r.check()
}

// NotifyConflict is called when a member of a known name turns up at another address while it is thought alive at the
// old one. If it is about this member, others hold its name for somebody else's: another's, or its own of a run before
// whose end they haven't noticed.
func (g *gossiper) NotifyConflict(known, other *memberlist.Node) {
	if known.Name == string(g.self) {
		g.owner.Store(other.Address())
		g.taken.Add(1)
	}
}

// LocalState returns all records.
func (g *gossiper) LocalState(bool) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, _ := json.Marshal(slices.Collect(maps.Values(g.records))) // strings and numbers
	return b
}

// MergeRemoteState takes over what another knows of members that are down.
func (g *gossiper) MergeRemoteState(b []byte, _ bool) {
	var records []record
	if json.Unmarshal(b, &records) != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range records {
		old, known := g.records[r.Name]
		if r.check() == nil && r.Name != g.self && !old.alive && (!known || r.holds(old)) {
			g.records[r.Name] = r
		}
	}
	(*members)(g).publish()
}

// NotifyMsg takes an invitation.
func (g *gossiper) NotifyMsg(b []byte) {
	var i invitation
	if json.Unmarshal(b, &i) != nil || i.To != g.self {
		return
	}
	select {
	case g.invited <- i.Gossip:
	default: // there are enough
	}
}

func (g *gossiper) GetBroadcasts(int, int) [][]byte { return nil }

// ringOf returns the ring of all members. Each has as many points on it as it has tokens, which follow from its name.
func ringOf(list []member) *scatter.Ring {
	var points []scatter.Point
	for _, m := range list {
		for i := range m.tokens {
			token := ringToken(string(m.name) + "#" + strconv.Itoa(i))
			points = append(points, scatter.Point{Token: token, Peer: m.name})
		}
	}
	return scatter.NewRing(points...)
}
