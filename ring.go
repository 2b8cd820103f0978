package scatter

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"slices"
	"strconv"
)

// Point is one place on a [Ring]: a token and the peer that owns it. A peer has as many points as
// it has virtual nodes.
//
// Tokens are spread over all 64 bits. Shift narrower ones to the left, those of points and those of
// keys alike: a 14-bit slot by 50 bits, a 32-bit token by 32. Else a Cover takes nearly the whole
// token space for the range of the first point. Signed 64-bit tokens may simply be converted: the
// order round the ring is the same.
type Point struct {
	Token uint64
	Peer  PeerID
}

// Ring is a consistent-hashing ring. It says which peers a token belongs to, and in which order.
// Where tokens come from, and how keys are hashed to them, is up to the caller; see [NewHashRing]
// and [HashToken] for one way.
//
// The points are sorted by token, then by peer. A point's index in that order is its slot. A token
// belongs to the first point at or after it, and past the last point to the first.
//
// A Ring never changes and is safe for concurrent use. A change of membership is a new Ring. The
// zero Ring and a nil *Ring are empty.
//
// See DeCandia et al., "Dynamo: Amazon's Highly Available Key-value Store", SOSP 2007: sections 4.2
// (virtual nodes), 4.3 (the preference list) and 4.6 (a live peer stands in for a dead one).
type Ring struct {
	tokens []uint64 // by slot, ascending
	owners []uint32 // by slot: the owner's index in peers
	peers  []PeerID // each once, by first slot: the order of a walk from token 0
}

// NewRing returns the ring of the given points, which it copies. They may be in any order. A point
// given twice counts once. Points of different peers may share a token: the smaller peer comes
// first.
//
// It costs O(n log n) for n points. The Ring keeps 12 bytes for each point.
func NewRing(points ...Point) *Ring {
	sorted := slices.Clone(points)
	slices.SortFunc(sorted, func(a, b Point) int { // Rule 15
		if c := cmp.Compare(a.Token, b.Token); c != 0 {
			return c
		}
		return cmp.Compare(a.Peer, b.Peer)
	})
	sorted = slices.Compact(sorted)

	r := &Ring{tokens: make([]uint64, len(sorted)), owners: make([]uint32, len(sorted))}
	index := make(map[PeerID]uint32)
	for slot, p := range sorted {
		i, ok := index[p.Peer]
		if !ok {
			i = uint32(len(r.peers))
			index[p.Peer] = i
			r.peers = append(r.peers, p.Peer)
		}
		r.tokens[slot], r.owners[slot] = p.Token, i
	}
	return r
}

// NewHashRing returns a ring on which each peer has as many points as tokens says. The token of its
// i-th point, from 0, is the [HashToken] of the peer's name, "#" and i in decimal, such as
// "db-7#0". If tokens is below 1, 1 is used. A peer given twice counts once.
//
// The points of a peer stay where they are when others come and go, so little of the index moves.
// With 256 tokens each, the standard deviation of the shares is 6 % of their mean.
func NewHashRing(peers []PeerID, tokens int) *Ring {
	tokens = max(tokens, 1)
	points := make([]Point, 0, len(peers)*tokens)
	for _, peer := range peers {
		for i := range tokens {
			points = append(points, Point{HashToken(string(peer) + "#" + strconv.Itoa(i)), peer})
		}
	}
	return NewRing(points...) // A peer given twice has the same points twice.
}

// HashToken returns the token of a key: the first 8 bytes of its SHA-256 hash, as a big-endian
// number.
func HashToken(key string) uint64 {
	hash := sha256.Sum256([]byte(key))
	return binary.BigEndian.Uint64(hash[:])
}

// Len returns the number of slots: of distinct points.
func (r *Ring) Len() int {
	if r == nil {
		return 0
	}
	return len(r.tokens)
}

// Point returns the point at a slot. It panics unless 0 <= slot < Len().
func (r *Ring) Point(slot int) Point {
	return Point{r.tokens[slot], r.peers[r.owners[slot]]}
}

// Peers returns all peers, each once, in the order of the [Ring.Walk] from token 0. These are the
// peers to pass to [Broadcast], with the [Liveness] as Options.Live. It costs O(peers). The caller
// owns the slice. It is empty if the ring is.
func (r *Ring) Peers() []PeerID {
	if r == nil {
		return nil
	}
	return slices.Clone(r.peers)
}

// Share returns the share of the token space that a peer owns: the tokens that belong to its
// points, without those that it holds as a replica. The tokens are summed exactly and rounded once.
// The share of a peer that isn't on the ring is 0.
//
// It costs O(points).
func (r *Ring) Share(peer PeerID) float64 {
	if r == nil {
		return 0
	}
	var owned tokens
	for slot, owner := range r.owners {
		if r.peers[owner] == peer {
			// A point that shares its token with an earlier one adds nothing. Rule 15.
			owned = owned.plus(widthUpTo(r.tokens, slot))
		}
	}
	return owned.share()
}

// Walk returns an iterator over the distinct peers, each with its slot, in the order in which they
// hold token: from the point that token belongs to, once round the ring, each peer at the first of
// its points that the walk meets. It ends with the last peer that is new, not with the last point.
// The iterator may be used again and concurrently.
//
// A walk costs O(log n) to start and then O(1) for each point passed.
func (r *Ring) Walk(token uint64) iter.Seq2[int, PeerID] {
	return func(yield func(int, PeerID) bool) {
		if r == nil {
			return
		}
		seen := newBitset(len(r.peers))
		slot, _ := slices.BinarySearch(r.tokens, token) // Rule 15: the first point at or after token
		for unseen := len(r.peers); unseen > 0; slot++ {
			if slot == len(r.tokens) {
				slot = 0
			}
			peer := int32(r.owners[slot])
			if seen.has(peer) {
				continue
			}
			seen.add(peer)
			unseen--
			if !yield(slot, r.peers[peer]) {
				return
			}
		}
	}
}

// Liveness reports whether a peer is thought to be up. A nil Liveness treats every peer as live.
//
// A Ring calls it on the caller's goroutine, at most once for each peer in a call. A Liveness
// shared by concurrent calls must be safe for concurrent use.
type Liveness func(PeerID) bool

func (live Liveness) of(peer PeerID) bool { return live == nil || live(peer) }

// Assignment is one entry of a preference list.
type Assignment struct {
	Peer PeerID
	Slot int // the primary's slot, also if Peer is the Fallback for it; see [Ring.Point]
	Role Role
}

// PreferenceList returns the peers that are to hold token n times. The first n distinct peers of
// the [Ring.Walk] from token are the primaries, each in its slot. The slot of a dead primary goes
// to the next live peer further along the walk that has no slot yet, as its [Fallback]. Dead
// primaries get theirs in walk order. If no live peer is left for a slot, the slot is dropped. So
// the list may be shorter than n, and is empty if nobody is live or n <= 0.
//
// The list is in the order of the primaries. The caller owns it. It costs what the walk costs as
// far as it must go: to the n-th peer if all those are live, and once round the ring at worst.
// Memory is proportional to min(n, peers).
func (r *Ring) PreferenceList(token uint64, n int, live Liveness) []Assignment {
	if n <= 0 || r.Len() == 0 {
		return nil
	}
	n = min(n, len(r.peers))
	list := make([]Assignment, 0, n)
	// A dead primary's place is vacant. Its Slot is ^slot until it has a fallback.
	vacancies, next := 0, 0 // no place before next is vacant
	for slot, peer := range r.Walk(token) {
		alive := live.of(peer)
		switch { // Rule 16
		case len(list) < n && alive:
			list = append(list, Assignment{peer, slot, Primary})
		case len(list) < n:
			list = append(list, Assignment{peer, ^slot, Primary})
			vacancies++
		case alive:
			for list[next].Slot >= 0 {
				next++
			}
			list[next] = Assignment{peer, ^list[next].Slot, Fallback}
			vacancies--
		}
		if len(list) == n && vacancies == 0 {
			return list
		}
	}
	// Nobody is left for the places that are vacant still.
	return slices.DeleteFunc(list, func(a Assignment) bool { return a.Slot < 0 })
}

// PrimaryPeers returns the live peers, each once, in the order of the [Ring.Walk] from token 0. It
// costs O(peers), however many points they have. The caller owns the slice. It is empty if nobody
// is live.
//
// A list filtered beforehand hides what is missing: a [Broadcast] to these peers doesn't know of
// the dead ones, and can call itself complete without what they hold. Pass it [Ring.Peers], and the
// Liveness as Options.Live.
func (r *Ring) PrimaryPeers(live Liveness) []PeerID {
	if r.Len() == 0 {
		return nil
	}
	peers := make([]PeerID, 0, len(r.peers))
	for _, peer := range r.peers { // Rule 17
		if live.of(peer) {
			peers = append(peers, peer)
		}
	}
	return peers
}
