package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scatterknn/scatter"
	"go.uber.org/zap"
)

// The first letter of a stored key: a client's key, or the name of an index, whose document is its schema.
const (
	clientKey = 'd'
	schemaKey = 'i'
)

// What nodes ask of each other: see handle.
const (
	opApply  = "apply"
	opRead   = "read"
	opSince  = "since"
	opSearch = "search"
	opCount  = "count"
	opGossip = "gossip"
	opStatus = "status"
)

// What a node keeps for its next run, beside documents.
const (
	metaMembers = "members"
	metaSettled = "settled" // the ring on which it has pulled from all others
	metaPlace   = "place:"  // and a peer's name: how far it has got there
)

// config is what the command line says of a node.
type config struct {
	listen, gossip, http string   // host:port, port 0 for any
	join                 []string // RESP addresses of others
	data                 string
	name                 string // "": as the data directory says
	replicas             int
	tokens               int           // on the ring; 0: a proxy, which holds no documents
	timeout              time.Duration // of a search that has no TIMEOUT
	clients              int           // connections at most
}

// node is one member of the cluster, and a proxy to all of it. A member without tokens is a proxy and nothing else.
type node struct {
	cfg      config
	name     scatter.PeerID
	log      *zap.Logger
	store    *store
	clock    clock
	currency currency
	members  *members
	view     atomic.Pointer[view]
	searcher *scatter.Searcher[scatter.Hit[string], string]
	ledgers  *ledgers
	server   *server
	web      *http.Server
	webAddr  string

	generation atomic.Uint64 // of the view and the searcher's cover; odd while one of them is of the last one

	changing sync.Mutex // held while the view is exchanged
	stopped  bool       // guarded by changing
	ending   context.Context
	end      context.CancelFunc
	running  sync.WaitGroup // of goroutines that end with ending
	stop1    sync.Once
}

// view is the cluster as a node sees it. It doesn't change; a change of membership makes another.
type view struct {
	members     []member
	onRing      map[scatter.PeerID]bool // those with tokens
	ring        *scatter.Ring
	replicas    int
	fingerprint string // of the ring
	remotes     map[scatter.PeerID]*remote
	unfollow    context.CancelFunc
	following   *sync.WaitGroup
}

// startNode brings up a node, and returns when it serves. It is to be stopped.
func startNode(cfg config, log *zap.Logger) (_ *node, err error) {
	n := &node{cfg: cfg, log: log, ledgers: newLedgers()}
	n.ending, n.end = context.WithCancel(context.Background())
	n.view.Store(&view{ring: scatter.NewRing(), replicas: cfg.replicas, unfollow: func() {}, following: &sync.WaitGroup{}})
	defer func() {
		if err != nil {
			n.stop(context.Background())
		}
	}()
	if n.store, err = openStore(cfg.data); err != nil {
		return nil, err
	}
	if n.name = scatter.PeerID(cfg.name); n.name == "" {
		n.name = scatter.PeerID(n.store.name())
	}
	n.clock.node = version(ringToken(string(n.name))) & (1<<versionNodeBits - 1)
	n.clock.saw(n.store.latest(), time.Now())

	metrics := newMetrics()
	n.searcher, err = scatter.NewSearcherAsync(n.ask, nil, &scatter.SearcherOptions{
		Options: scatter.Options{
			PeerDeadline: -1, // the search's own
			Live:         n.live,
			Trace:        scatter.JoinTraces(scatter.ZapTrace(log), metrics.trace()),
		},
		HedgeQuantile: 0.95,
		HedgeFloor:    5 * time.Millisecond,
		HedgeShare:    0.5, // few nodes: one that is down is a large share of each plan
		LearnReserve:  true,
	})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", cfg.listen)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			listener.Close()
		}
	}()
	n.currency.started = time.Now() // after listening: nobody was refused since
	web, err := net.Listen("tcp", cfg.http)
	if err != nil {
		return nil, err
	}
	n.webAddr = web.Addr().String()
	n.web = &http.Server{Handler: newStatus(n, n.ledgers, metrics), ReadHeaderTimeout: 5 * time.Second}
	n.running.Go(func() { n.web.Serve(web) })

	known, err := n.knownMembers()
	if err != nil {
		return nil, err
	}
	self := member{name: n.name, addr: listener.Addr().String(), http: n.webAddr, tokens: cfg.tokens, alive: true}
	if n.members, err = startMembers(self, cfg.gossip, known, n.changed); err != nil {
		return nil, err
	}
	n.changed()
	n.server = startServer(n, listener)
	n.running.Go(n.joinAll)
	return n, nil
}

// stop ends what startNode began, politely for as long as ctx lasts.
func (n *node) stop(ctx context.Context) {
	n.stop1.Do(func() {
		defer context.AfterFunc(ctx, n.end)()
		if n.server != nil {
			n.server.stop()
		}
		if n.members != nil {
			n.members.stop(ctx)
		}
		n.end()
		n.changing.Lock()
		n.stopped = true
		n.changing.Unlock()
		v := n.view.Load()
		v.unfollow()
		v.following.Wait()
		if n.searcher != nil {
			n.searcher.Close(ctx)
		}
		for _, r := range v.remotes {
			r.close()
		}
		if n.web != nil {
			n.web.Close()
		}
		n.running.Wait()
		if n.store != nil {
			if err := n.store.close(); err != nil {
				n.log.Error("closing the store", zap.Error(err))
			}
		}
	})
}

// joinAll asks the addresses given for their gossip addresses, until one of them has told, and joins it.
func (n *node) joinAll() {
	for wait := 100 * time.Millisecond; len(n.cfg.join) > 0; wait = min(2*wait, 2*time.Second) {
		var gossip []string
		for _, addr := range n.cfg.join {
			r := newRemote(addr)
			ctx, cancel := context.WithTimeout(n.ending, time.Second)
			parts, err := r.call(ctx, opGossip)
			cancel()
			r.close()
			if err == nil && len(parts) == 1 {
				gossip = append(gossip, string(parts[0]))
			} else {
				n.log.Debug("join", zap.String("addr", addr), zap.Error(err))
			}
		}
		if len(gossip) > 0 && n.members.join(gossip) == nil {
			return
		}
		select {
		case <-time.After(wait):
		case <-n.ending.Done():
			return
		}
	}
}

// savedMember is a member as a node remembers it for its next run.
type savedMember struct {
	Name   scatter.PeerID
	Addr   string
	HTTP   string
	Gossip string
	Tokens int
}

func (n *node) knownMembers() (known []member, err error) {
	b, err := n.store.meta(n.ending, metaMembers)
	if err != nil || b == nil {
		return nil, err
	}
	var saved []savedMember
	if err := json.Unmarshal(b, &saved); err != nil {
		return nil, err
	}
	for _, m := range saved {
		known = append(known, member{name: m.Name, addr: m.Addr, http: m.HTTP, gossip: m.Gossip, tokens: m.Tokens})
	}
	return known, nil
}

// changed makes a new view after the membership has changed, if that matters to the ring or to addresses.
func (n *node) changed() {
	n.changing.Lock()
	defer n.changing.Unlock()
	if n.stopped {
		return
	}
	old, list := n.view.Load(), n.members.list()
	same := func(a, b member) bool { // but for being alive, which live tells
		a.alive, b.alive = false, false
		return a == b
	}
	if slices.EqualFunc(old.members, list, same) {
		return
	}
	saved := make([]savedMember, len(list))
	for i, m := range list {
		saved[i] = savedMember{m.name, m.addr, m.http, m.gossip, m.tokens}
	}
	b, _ := json.Marshal(saved) // strings and numbers
	n.remember(metaMembers, b)

	old.unfollow()
	old.following.Wait()
	v := &view{
		members: list, ring: ringOf(list), replicas: n.cfg.replicas,
		onRing: make(map[scatter.PeerID]bool), remotes: make(map[scatter.PeerID]*remote), following: &sync.WaitGroup{},
	}
	for _, m := range list {
		if m.tokens > 0 {
			v.onRing[m.name] = true
		}
	}
	sum := sha256.New()
	for slot := range v.ring.Len() {
		fmt.Fprintln(sum, v.ring.Point(slot))
	}
	v.fingerprint = hex.EncodeToString(sum.Sum(nil))
	for _, m := range list {
		if m.name == n.name {
			continue
		}
		i := slices.IndexFunc(old.members, func(o member) bool { return o.name == m.name && o.addr == m.addr })
		if i >= 0 {
			v.remotes[m.name] = old.remotes[m.name]
		} else {
			v.remotes[m.name] = newRemote(m.addr)
		}
	}
	var others []scatter.PeerID
	for _, peer := range v.ring.PrimaryPeers(nil) {
		if peer != n.name {
			others = append(others, peer)
		}
	}
	settled, err := n.store.meta(n.ending, metaSettled)
	if err != nil {
		n.log.Error("reading what was settled", zap.Error(err))
	}
	n.currency.require(v.needsOf(n.name), others, string(settled) == v.fingerprint)
	var ctx context.Context
	ctx, v.unfollow = context.WithCancel(n.ending)
	n.generation.Add(1)
	n.view.Store(v)
	n.searcher.SetCover(scatter.NewCover(v.ring, v.replicas))
	n.generation.Add(1)
	for _, peer := range others {
		v.following.Go(func() { n.follow(ctx, v, peer) })
	}
	for peer, r := range old.remotes {
		if v.remotes[peer] != r {
			r.close() // what is under way fails, and is asked elsewhere
		}
	}
}

// remember keeps something for the next run.
func (n *node) remember(name string, value []byte) {
	if err := n.store.setMeta(context.Background(), name, value); err != nil {
		n.log.Error("remember", zap.String("name", name), zap.Error(err))
	}
}

// live is the cluster's scatter.Liveness: what gossip says, but for a node whose machine says that it isn't there.
func (n *node) live(peer scatter.PeerID) bool {
	if peer == n.name {
		return true
	}
	r := n.view.Load().remotes[peer]
	return r != nil && !r.refused() && n.members.live(peer)
}

// doer is a way to ask a node: a remote one, or this.
type doer interface {
	do(deadline time.Time, op string, args [][]byte, done func(parts [][]byte, err error))
}

// do asks a member of a view something, and returns at once: see remote.do. Who has another ring refuses, but for what
// is to be known before the rings are the same: which node holds what is another question there.
func (n *node) do(v *view, peer scatter.PeerID, deadline time.Time, op string, args [][]byte,
	done func(parts [][]byte, err error),
) {
	if addressed(op) {
		args = append([][]byte{v.address(peer)}, args...)
	}
	n.peer(v, peer).do(deadline, op, args, done)
}

// addressed reports whether what is asked begins with an address.
func addressed(op string) bool { return op != opGossip && op != opStatus }

// memberReply is what a member says.
type memberReply struct {
	peer  scatter.PeerID
	parts [][]byte
	err   error
}

// askAll asks members the same at the same time. Each of them answers once.
func (n *node) askAll(
	ctx context.Context, v *view, peers []scatter.PeerID, op string, args ...[]byte,
) <-chan memberReply {
	answers := make(chan memberReply, len(peers))
	deadline, _ := ctx.Deadline()
	for _, peer := range peers {
		n.do(v, peer, deadline, op, args, func(parts [][]byte, err error) { answers <- memberReply{peer, parts, err} })
	}
	return answers
}

// names returns all members.
func (v *view) names() []scatter.PeerID {
	names := make([]scatter.PeerID, len(v.members))
	for i, m := range v.members {
		names[i] = m.name
	}
	return names
}

// address says on which ring whom is meant: addresses of nodes that are gone may be another's.
func (v *view) address(peer scatter.PeerID) []byte { return []byte(v.fingerprint + "/" + string(peer)) }

// peer returns the way to a member.
func (n *node) peer(v *view, peer scatter.PeerID) doer {
	if peer == n.name {
		return (*local)(n)
	}
	if r := v.remotes[peer]; r != nil {
		return r
	}
	return unknownPeer(peer)
}

// local is this node, asked as if it were another.
type local node

func (l *local) do(deadline time.Time, op string, args [][]byte, done func([][]byte, error)) {
	go func() {
		ctx := context.Background()
		if !deadline.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
		done((*node)(l).handle(ctx, op, args))
	}()
}

// unknownPeer is one that the view doesn't have.
type unknownPeer scatter.PeerID

func (u unknownPeer) do(_ time.Time, _ string, _ [][]byte, done func([][]byte, error)) {
	done(nil, fmt.Errorf("no member %q", string(u)))
}

// ask is the scatter.AsyncProbe of a search.
func (n *node) ask(
	ctx context.Context, peer scatter.PeerID, req *scatter.Request, done func([]scatter.Hit[string], error),
) {
	payload, err := req.MarshalBinary()
	if err != nil {
		done(nil, err)
		return
	}
	deadline, _ := ctx.Deadline()
	n.do(n.view.Load(), peer, deadline, opSearch, [][]byte{payload}, func(parts [][]byte, err error) {
		var reply scatter.Reply
		switch {
		case err != nil:
		case len(parts) != 1:
			err = errCorrupt
		default:
			if err = reply.UnmarshalBinary(parts[0]); err == nil && reply.TimedOut {
				err = scatter.ErrPartial
			}
		}
		done(reply.Hits, err)
	})
}

// errRing is the answer of a node that knows of other members.
var errRing = errors.New("RING the nodes don't have the same ring yet")

// handle is what a node does for others, and for itself, as long as they have the same ring.
func (n *node) handle(ctx context.Context, op string, args [][]byte) ([][]byte, error) {
	v := n.view.Load()
	if !addressed(op) {
		return n.serve(ctx, v, op, args)
	}
	if len(args) == 0 || string(args[0]) != string(v.address(n.name)) {
		return nil, errRing
	}
	parts, err := n.serve(ctx, v, op, args[1:])
	if n.view.Load().fingerprint != v.fingerprint { // it may be current on another ring; who pulls there missed a write
		return nil, errRing
	}
	return parts, err
}

func (n *node) serve(ctx context.Context, v *view, op string, args [][]byte) ([][]byte, error) {
	switch op {
	case opApply: // a key and a change to its document: who has pulled lately, and how long that counts
		if len(args) != 2 || !storable(args[0]) {
			return nil, errCorrupt
		}
		doc, err := decodeDocument(args[1])
		if err != nil {
			return nil, err
		}
		n.clock.saw(doc.latest(), time.Now())
		if err := n.store.apply(ctx, []change{{string(args[0]), doc}}); err != nil {
			return nil, err
		}
		return n.currency.fresh(v.members), nil

	case opRead: // keys: whether this node is current, and the documents
		current := truth(n.currency.current()) // before reading: what is read is at least as new
		if !n.currency.settled() {
			current = []byte(unsettled)
		}
		keys := make([]string, len(args))
		for i, arg := range args {
			if !storable(arg) {
				return nil, errCorrupt
			}
			keys[i] = string(arg)
		}
		docs, err := n.store.get(ctx, keys)
		if err != nil {
			return nil, err
		}
		parts := [][]byte{current}
		for i := range docs {
			parts = append(parts, docs[i].encode())
		}
		return parts, nil

	case opSince: // who, how far it has got: how far this page goes, whether there is more, and keys and digests
		return n.since(ctx, v, args)

	case opSearch: // a request: a reply
		var req scatter.Request
		if len(args) != 1 {
			return nil, errCorrupt
		}
		if err := req.UnmarshalBinary(args[0]); err != nil {
			return nil, err
		}
		if !n.currency.current() { // before searching: what is searched is at least as new
			return nil, errBehind
		}
		hits, err := n.store.search(ctx, &req)
		if err != nil {
			return nil, err
		}
		payload, err := (&scatter.Reply{Hits: hits}).MarshalBinary()
		return [][]byte{payload}, err

	case opCount: // an index: how many documents it has of which this is the first node that lives, and has here; failures
		if len(args) != 1 {
			return nil, errCorrupt
		}
		if !n.currency.current() {
			return nil, errBehind
		}
		count, held := 0, 0
		err := n.store.each(ctx, string(args[0]), func(key string) {
			held++
			holders := v.holders(string(clientKey) + key)
			if i := slices.IndexFunc(holders, n.live); i >= 0 && holders[i] == n.name {
				count++
			}
		})
		failures := n.store.failures(string(args[0]))
		return [][]byte{fmt.Append(nil, count), fmt.Append(nil, held), fmt.Append(nil, failures)}, err

	case opStatus: // nothing: whether this node is current, on which ring, and how many documents it has
		return [][]byte{
			truth(n.currency.current()), []byte(v.fingerprint),
			strconv.AppendInt(nil, n.store.stats().documents, 10),
		}, nil

	case opGossip: // nothing: where to join
		return [][]byte{[]byte(n.members.gossipAddr())}, nil
	}
	return nil, fmt.Errorf("unknown operation %q", op)
}

// unsettled is what a node says in the place of a truth that needn't have heard yet of what it holds on a new ring.
const unsettled = "2"

// truth is whether something is so, as other nodes are told it.
func truth(b bool) []byte {
	if b {
		return []byte("1")
	}
	return []byte("0")
}

// storable reports whether a key is one that may be stored.
func storable(key []byte) bool { return len(key) > 0 && (key[0] == clientKey || key[0] == schemaKey) }

func (n *node) since(ctx context.Context, v *view, args [][]byte) ([][]byte, error) {
	if len(args) != 3 {
		return nil, errCorrupt
	}
	who := scatter.PeerID(args[0])
	epoch, err1 := strconv.ParseUint(string(args[1]), 10, 64)
	seq, err2 := strconv.ParseInt(string(args[2]), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if epoch != n.store.epoch() { // it knows another store, or none
		seq = 0
	}
	n.currency.serves(who) // before looking: what is stored from now on is later than the pull
	page, next, more, err := n.store.since(ctx, seq, pullPage, func(key string) bool {
		return key[0] == schemaKey || slices.Contains(v.holders(key), who)
	})
	if err != nil {
		return nil, err
	}
	parts := [][]byte{
		strconv.AppendUint(nil, n.store.epoch(), 10), strconv.AppendInt(nil, next, 10), truth(more),
	}
	for _, s := range page {
		parts = append(parts, []byte(s.key), strconv.AppendUint(nil, s.sum, 10))
	}
	return parts, nil
}

// count returns how many documents an index has in all, and about how many failures to index: those of the nodes that
// live, by the share of all copies that they hold. It is an error if some documents may be on no node that answers.
func (n *node) count(ctx context.Context, index string) (info indexInfo, err error) {
	v := n.view.Load()
	for slot := range v.ring.Len() {
		if !slices.ContainsFunc(v.holdersOf(v.ring.Point(slot).Token), n.live) {
			return info, fmt.Errorf("NOQUORUM all nodes that hold %v are down", v.ring.Point(slot))
		}
	}
	peers := v.ring.PrimaryPeers(n.live)
	answers := n.askAll(ctx, v, peers, opCount, []byte(index))
	var held, failures int64
	for range peers {
		select {
		case a := <-answers:
			if a.err == nil && len(a.parts) != 3 {
				a.err = errCorrupt
			}
			if a.err != nil {
				return info, fmt.Errorf("NOQUORUM not all nodes have counted their documents: %s: %w", a.peer, a.err)
			}
			var numbers [3]int64
			for i, part := range a.parts {
				if numbers[i], err = strconv.ParseInt(string(part), 10, 64); err != nil {
					return info, err
				}
			}
			info.documents += numbers[0]
			held += numbers[1]
			failures += numbers[2]
		case <-ctx.Done():
			return info, fmt.Errorf("NOQUORUM not all nodes have counted their documents: %w", context.Cause(ctx))
		}
	}
	if held > 0 {
		info.failures = (failures*info.documents + held/2) / held
	}
	return info, nil
}

// What the status page asks: see statusSource.

func (n *node) self() scatter.PeerID         { return n.name }
func (n *node) ring() *scatter.Ring          { return n.view.Load().ring }
func (n *node) replicas() int                { return n.cfg.replicas }
func (n *node) searcherStats() scatter.Stats { return n.searcher.Stats() }
func (n *node) peers() []peerStatus {
	ctx, cancel := context.WithTimeout(n.ending, 300*time.Millisecond)
	defer cancel()
	v := n.view.Load()
	states := n.statuses(ctx, v)
	var list []peerStatus
	for _, m := range v.members {
		p := peerStatus{name: m.name, addr: m.addr, http: m.http, documents: -1}
		p.alive = m.name == n.name || n.members.live(m.name)
		if r := v.remotes[m.name]; r != nil {
			p.refused = r.refused()
		}
		s, ok := states[m.name]
		if ok {
			p.fresh, p.documents = s.current, s.documents
		}
		p.silent = !ok && p.alive
		list = append(list, p)
	}
	return list
}
func (n *node) storeCounts() (int64, int64) { s := n.store.stats(); return s.documents, s.indexed }

// userKey is the stored key of a client's.
func userKey(key []byte) string { return string(clientKey) + string(key) }

// indexKey is the stored key of an index's schema.
func indexKey(name string) string { return string(schemaKey) + name }
