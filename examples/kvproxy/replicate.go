package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scatterknn/scatter"
)

// How writes, reads and catching up go together
//
// A write is acknowledged when a majority of its key's replicas has it on disk, so one of them may lack it: the one
// that was dead, or hung. A search, though, asks but one replica of each range. So that it never gets an answer that
// lacks an acknowledged write, each node knows whether it is current, and answers only if it is:
//
//   - Each node pulls from each other, several times in freshFor, what has changed there. For freshFor after the start
//     of a pull that brought all, it counts as current with regard to that node.
//   - A write that a replica hasn't confirmed is acknowledged only once that replica can't believe itself current any
//     more: when freshFor has passed since its last pull from those that have the write. So one that has crashed or
//     hangs delays writes for freshFor, once, and then no longer.
//   - A write is on a majority of the replicas. A node that lacks it is none of them, and so learns of it if it pulls
//     from so many that any majority has one of them: with three replicas, from one of the other two.
//   - Where nobody listens, so that the connection is refused, nothing more is acknowledged: who was current with
//     regard to such a node when it ended remains so. Silence is no such thing: who doesn't answer may go on later.
//
// It needs clocks that go at about the same speed, not that show the same time. It is the idea of a lease: see Gray and
// Cheriton, "Leases", SOSP 1989.
const (
	freshFor  = 2 * time.Second
	pullEvery = freshFor / 5
	pullPage  = 1000
)

// errBehind is the answer of a node that may lack what others have.
var errBehind = errors.New("BEHIND this node may lack what others have")

// ringToken places a stored key on the ring. SHA-256 spreads keys evenly however alike they are.
func ringToken(key string) uint64 {
	sum := sha256.Sum256([]byte(key))
	return binary.BigEndian.Uint64(sum[:])
}

// holders are the nodes that are to have a key: those of its preference list, or of a schema, all, proxies too.
func (v *view) holders(key string) []scatter.PeerID {
	if key[0] == schemaKey {
		return v.names()
	}
	return v.holdersOf(ringToken(key))
}

// holdersOf are the nodes that are to have the keys of a token.
func (v *view) holdersOf(token uint64) (peers []scatter.PeerID) {
	for _, a := range v.ring.PreferenceList(token, v.replicas, nil) {
		peers = append(peers, a.Peer)
	}
	return peers
}

// majority is how many of a key's holders must have a write. Those of a schema that are no more than proxies don't
// count.
func (v *view) majority(key string) int {
	if key[0] == schemaKey {
		return len(v.onRing)/2 + 1
	}
	return v.replicas/2 + 1 // of those that there should be, even where the ring has fewer nodes
}

// noQuorumError is the error of a write or a read that too few replicas have answered.
type noQuorumError struct {
	what            string // write or read
	answered, quota int
	reason          error
}

func (e *noQuorumError) Error() string {
	s := fmt.Sprintf("NOQUORUM %s: %d of the %d replicas needed have answered", e.what, e.answered, e.quota)
	if e.answered >= e.quota {
		s = "NOQUORUM write: a replica hasn't answered, and may not know yet that it is behind"
	}
	if e.what == "write" && e.answered > 0 {
		s += ", so the write may or may not last"
	}
	if e.reason != nil {
		s += ": " + e.reason.Error()
	}
	return s
}

func (e *noQuorumError) Unwrap() error { return e.reason }

// write merges a change into what the replicas of a key have, and returns when it is acknowledged. After an error it
// may have been stored or not.
func (n *node) write(ctx context.Context, key string, delta document) error {
	waited, err := n.send(ctx, key, delta, true)
	if err == nil && waited { // those who have it may have ended meanwhile, so that one that lacks it may remain current
		_, err = n.send(ctx, key, delta, false)
	}
	return err
}

// send sends a change to the replicas of a key, and returns when a majority has it, and with patient no other can
// believe itself current without it. waited says that this took some time.
func (n *node) send(ctx context.Context, key string, delta document, patient bool) (waited bool, err error) {
	v := n.view.Load()
	holders, quota := v.holders(key), v.majority(key)
	acks := n.askAll(ctx, v, holders, opApply, []byte(key), delta.encode())
	acked := make(map[scatter.PeerID]bool)
	freshUntil := make(map[scatter.PeerID]time.Time) // when a node knows that it is behind, if it is
	failure := &noQuorumError{what: "write", quota: quota}
	for pending := len(holders); ; {
		wait := time.Duration(-1)
		if failure.answered >= quota {
			now := time.Now()
			wait = 0
			for peer, until := range freshUntil {
				if patient && !acked[peer] && (key[0] == schemaKey || slices.Contains(holders, peer)) {
					wait = max(wait, until.Sub(now))
				}
			}
			if wait == 0 {
				return waited, nil
			}
			waited = true
		} else if pending == 0 {
			return waited, failure
		}
		var over <-chan time.Time
		if wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop() // few: a write has as many as it has replicas
			over = timer.C
		}
		select {
		case a := <-acks:
			pending--
			if a.err != nil {
				failure.reason = fmt.Errorf("%s: %w", a.peer, a.err)
				break
			}
			if v.onRing[a.peer] {
				failure.answered++
			}
			acked[a.peer] = true
			now := time.Now()
			for i := 0; i+1 < len(a.parts); i += 2 { // who has pulled lately, and how long that counts
				peer := scatter.PeerID(a.parts[i])
				left, _ := strconv.ParseInt(string(a.parts[i+1]), 10, 64)
				if until := now.Add(time.Duration(left) * time.Microsecond); until.After(freshUntil[peer]) {
					freshUntil[peer] = until
				}
			}
		case <-over:
		case <-ctx.Done():
			failure.reason = context.Cause(ctx)
			return waited, failure
		}
	}
}

// read returns the documents of keys, with all acknowledged writes. It asks one replica of each, itself if it can; and
// all of them, if that one fails, is behind or hesitates. Of those it needs one that is current, or a majority.
func (n *node) read(ctx context.Context, keys []string) ([]document, error) {
	v := n.view.Load()
	type share struct {
		memberReply       // whether the peer is current, and the documents
		keys        []int // which they are
	}
	docs, counts, known := make([]document, len(keys)), make([]int, len(keys)), make([]bool, len(keys))
	answers := make(chan share, len(keys)*len(v.members))
	pending, unknown := 0, len(keys)
	ask := func(shares map[scatter.PeerID][]int) {
		deadline, _ := ctx.Deadline()
		for peer, which := range shares {
			args := make([][]byte, len(which))
			for i, k := range which {
				args[i] = []byte(keys[k])
			}
			pending++
			n.do(v, peer, deadline, opRead, args, func(parts [][]byte, err error) {
				answers <- share{memberReply{peer, parts, err}, which}
			})
		}
	}
	first, rest := make(map[scatter.PeerID][]int), make(map[scatter.PeerID][]int)
	for i, key := range keys {
		holders := v.holders(key)
		one := slices.Index(holders, n.name)
		if one < 0 {
			one = slices.IndexFunc(holders, n.live)
		}
		for j, peer := range holders {
			if j == one {
				first[peer] = append(first[peer], i)
			} else {
				rest[peer] = append(rest[peer], i)
			}
		}
	}
	var reason error
	failed := func() error {
		i := slices.Index(known, false)
		return &noQuorumError{what: "read", answered: counts[i], quota: v.majority(keys[i]), reason: reason}
	}
	ask(first)
	hesitates := time.NewTimer(20 * time.Millisecond)
	defer hesitates.Stop()
	for unknown > 0 {
		if pending == 0 && rest == nil {
			return nil, failed()
		}
		insist := pending == 0
		select {
		case a := <-answers:
			pending--
			if a.err == nil && len(a.parts) != len(a.keys)+1 {
				a.err = errCorrupt
			}
			if a.err != nil {
				reason = fmt.Errorf("%s: %w", a.peer, a.err)
				insist = true
				break
			}
			current := string(a.parts[0]) == "1"
			insist = insist || !current
			for i, k := range a.keys {
				doc, err := decodeDocument(a.parts[i+1])
				if err != nil {
					return nil, fmt.Errorf("%s: key %q: %w", a.peer, keys[k][1:], err)
				}
				n.clock.saw(doc.latest(), time.Now())
				docs[k].merge(doc)
				if v.onRing[a.peer] && string(a.parts[0]) != unsettled {
					counts[k]++
				}
				if !known[k] && (current || counts[k] >= v.majority(keys[k])) {
					known[k] = true
					unknown--
				}
			}
		case <-hesitates.C:
			insist = true
		case <-ctx.Done():
			reason = context.Cause(ctx)
			return nil, failed()
		}
		if insist && rest != nil && unknown > 0 {
			for peer, which := range rest {
				if which = slices.DeleteFunc(which, func(k int) bool { return known[k] }); len(which) > 0 {
					rest[peer] = which
				} else {
					delete(rest, peer)
				}
			}
			ask(rest)
			rest = nil
		}
	}
	return docs, nil
}

// currency is what a node knows of how current it is, and others are with regard to it. It is safe for concurrent use.
type currency struct {
	mu      sync.Mutex
	started time.Time
	served  map[scatter.PeerID]time.Time // when each other node has last pulled from here
	pulled  map[scatter.PeerID]time.Time // when the last pull from each other node that brought all has begun
	needs   []need
	all     []scatter.PeerID        // each of whom must be met once before anything else counts; nil: that was done
	met     map[scatter.PeerID]bool // those of them that have been, or where nobody is
	until   atomic.Int64            // until when the node is current, since started
}

// need is some nodes, so many of which must have been pulled from.
type need struct {
	of    []scatter.PeerID
	count int
}

const forever = time.Duration(1 << 62)

// current reports whether the node has all that was acknowledged before.
func (c *currency) current() bool { return time.Since(c.started) < time.Duration(c.until.Load()) }

// require says what the node needs of whom, from now on. settled is false if the ring is new to it: then it must have
// pulled from all others before it counts as current.
func (c *currency) require(needs []need, others []scatter.PeerID, settled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.needs, c.all = needs, nil
	if !settled && len(others) > 0 {
		c.all, c.pulled, c.met = others, nil, nil
	}
	c.reckonLocked()
}

// brought notes a pull from a peer that has begun at a time, and has brought all; or, with nobody, that the peer wasn't
// there at that time. That prolongs what was brought shortly before, but nothing else, as nobody knows what the peer
// had when it ended. It reports whether by that each of the others was met, for the first time on this ring.
func (c *currency) brought(peer scatter.PeerID, began time.Time, nobody bool) (settled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pulled == nil {
		c.pulled, c.met = make(map[scatter.PeerID]time.Time), make(map[scatter.PeerID]bool)
	}
	c.met[peer] = true
	last := c.pulled[peer]
	if began.After(last) && (!nobody || !last.IsZero() && began.Sub(last) < freshFor) {
		c.pulled[peer] = began
	}
	if c.all != nil && !slices.ContainsFunc(c.all, func(p scatter.PeerID) bool { return !c.met[p] }) {
		c.all, settled = nil, true
	}
	c.reckonLocked()
	return settled
}

func (c *currency) reckonLocked() {
	until := forever
	if c.all != nil {
		until = 0
	}
	for _, need := range c.needs {
		var times []time.Time
		for _, peer := range need.of {
			times = append(times, c.pulled[peer])
		}
		slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
		switch {
		case need.count <= 0:
		case need.count > len(times) || times[need.count-1].IsZero():
			until = 0
		default:
			until = min(until, times[need.count-1].Add(freshFor).Sub(c.started))
		}
	}
	c.until.Store(int64(until))
}

// serves notes that a peer pulls. It must come before what the pull will see is looked up.
func (c *currency) serves(peer scatter.PeerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.served == nil {
		c.served = make(map[scatter.PeerID]time.Time)
	}
	c.served[peer] = time.Now()
}

// settled reports whether the node has met all others on this ring. If not, it may lack what is new to it there.
func (c *currency) settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all == nil
}

// fresh returns for each member, and whoever else pulls, how long it may still count itself as current with regard to
// this node, by pulls that haven't seen what was stored just now. A node that has just started doesn't know, and
// assumes the worst.
func (c *currency) fresh(members []member) (parts [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	peers := make(map[scatter.PeerID]bool)
	for _, m := range members {
		peers[m.name] = true
	}
	for peer := range c.served {
		peers[peer] = true
	}
	for peer := range peers {
		at := c.served[peer]
		if at.Before(c.started) {
			at = c.started
		}
		if left := time.Until(at.Add(freshFor)); left > 0 {
			parts = append(parts, []byte(peer), strconv.AppendInt(nil, left.Microseconds()+1, 10))
		}
	}
	return parts
}

// needsOf lists what a node needs to be current: of the holders of each range that it holds, and of all for the
// schemas.
func (v *view) needsOf(self scatter.PeerID) []need {
	if len(v.onRing) < v.replicas/2+1 { // with so few nothing was acknowledged: there are others, not heard of yet
		return []need{{nil, 1}}
	}
	seen := make(map[string]bool)
	var needs []need
	add := func(holders []scatter.PeerID, majority int) {
		others := slices.DeleteFunc(slices.Clone(holders), func(p scatter.PeerID) bool { return p == self })
		slices.Sort(others)
		count := len(others) - majority + 1 // any majority of them has one of so many
		if key := fmt.Sprint(others, count); !seen[key] {
			seen[key] = true
			needs = append(needs, need{others, count})
		}
	}
	for slot := range v.ring.Len() {
		holders := v.holdersOf(v.ring.Point(slot).Token)
		if slices.Contains(holders, self) {
			add(holders, v.replicas/2+1)
		}
	}
	all := v.ring.PrimaryPeers(nil)
	add(all, len(all)/2+1)
	return needs
}

// follow pulls from one other node until ctx is over.
func (n *node) follow(ctx context.Context, v *view, peer scatter.PeerID) {
	from := n.place(ctx, v, peer)
	saved, savedAt := from, time.Now()
	defer func() {
		if from != saved {
			n.remember(metaPlace+string(peer), from.encode(v))
		}
	}()
	next := time.NewTicker(pullEvery)
	defer next.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		more, err := n.pull(ctx, v, peer, &from)
		if err == nil && more {
			continue
		}
		nobody := false
		if err != nil { // a pull from nobody brings all there is
			began, nobody = v.remotes[peer].refusedAt()
		}
		if (err == nil || nobody) && n.currency.brought(peer, began, nobody) {
			n.remember(metaSettled, []byte(v.fingerprint))
		}
		if from != saved && time.Since(savedAt) > 5*time.Second { // not always: it is a write to the disk
			n.remember(metaPlace+string(peer), from.encode(v))
			saved, savedAt = from, time.Now()
		}
		select {
		case <-next.C:
		case <-ctx.Done():
		}
	}
}

// position is how far a node has got in what has changed at another.
type position struct {
	epoch uint64 // of the other's store
	seq   int64
}

func (p position) encode(v *view) []byte {
	b := binary.AppendUvarint(nil, p.epoch)
	return append(binary.AppendUvarint(b, uint64(p.seq)), v.fingerprint...)
}

// place returns where the last run of this node was, if the ring is still the same: on another the node may hold what
// it didn't want then.
func (n *node) place(ctx context.Context, v *view, peer scatter.PeerID) position {
	b, err := n.store.meta(ctx, metaPlace+string(peer))
	r := reader{rest: b}
	p := position{epoch: r.number(), seq: int64(r.number())}
	if err != nil || r.bad || string(r.rest) != v.fingerprint {
		return position{}
	}
	return p
}

// pull takes over one page of what has changed at another node.
func (n *node) pull(ctx context.Context, v *view, peer scatter.PeerID, from *position) (more bool, err error) {
	soon, cancel := context.WithTimeout(ctx, freshFor)
	defer cancel()
	remote := v.remotes[peer]
	parts, err := remote.call(soon, opSince, v.address(peer), []byte(n.name),
		strconv.AppendUint(nil, from.epoch, 10), strconv.AppendInt(nil, from.seq, 10))
	if err != nil {
		return false, err
	}
	if len(parts) < 3 || len(parts)%2 == 0 {
		return false, errCorrupt
	}
	epoch, err1 := strconv.ParseUint(string(parts[0]), 10, 64)
	seq, err2 := strconv.ParseInt(string(parts[1]), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return false, err
	}
	more = string(parts[2]) == "1"
	var keys []string
	var theirs []uint64
	for entry := range slices.Chunk(parts[3:], 2) {
		sum, err := strconv.ParseUint(string(entry[1]), 10, 64)
		if err != nil {
			return false, err
		}
		keys, theirs = append(keys, string(entry[0])), append(theirs, sum)
	}
	mine, err := n.store.sums(ctx, keys)
	if err != nil {
		return false, err
	}
	var wanted [][]byte
	for i, key := range keys {
		if theirs[i] != mine[i] {
			wanted = append(wanted, []byte(key))
		}
	}
	for part := range slices.Chunk(wanted, 100) {
		if err := n.fetch(ctx, v, peer, part); err != nil {
			return false, err
		}
	}
	from.epoch, from.seq = epoch, seq
	return more, nil
}

// fetch takes over some documents of another node; those that don't fit into one reply, by halves.
func (n *node) fetch(ctx context.Context, v *view, peer scatter.PeerID, keys [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // there may be much of them
	defer cancel()
	docs, err := v.remotes[peer].call(ctx, opRead, append([][]byte{v.address(peer)}, keys...)...)
	var refused *peerError
	if errors.As(err, &refused) && len(keys) > 1 {
		half := len(keys) / 2
		return errors.Join(n.fetch(ctx, v, peer, keys[:half]), n.fetch(ctx, v, peer, keys[half:]))
	}
	if err != nil {
		return err
	}
	if len(docs) != len(keys)+1 {
		return errCorrupt
	}
	changes := make([]change, len(keys))
	for i, key := range keys {
		changes[i].key = string(key)
		if changes[i].doc, err = decodeDocument(docs[i+1]); err != nil {
			return err
		}
	}
	return n.store.apply(ctx, changes)
}
