package scatter

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
)

// Point is one place on a [Ring]: the peer that owns a token. A peer has as many points as it has virtual nodes.
type Point struct {
	Token uint64
	Peer  PeerID
}

// Ring is a consistent-hashing ring: it says which peers a token belongs to, in which order. Where tokens come from,
// and how keys are hashed to them, is the caller's affair.
//
// The points stand sorted by token, then by peer; a point's index in that order is its slot. A token belongs to the
// first point at or after it, and past the last point to the first.
//
// A Ring never changes and is safe for concurrent use. A change of membership is a new Ring. The zero Ring and a nil
// *Ring are empty.
//
// See DeCandia et al., "Dynamo: Amazon's Highly Available Key-value Store", SOSP 2007: sections 4.2 (virtual nodes),
// 4.3 (the preference list) and 4.6 (a live peer stands in for a dead one).
type Ring struct {
	tokens []uint64 // by slot, ascending
	owners []uint32 // by slot: the owner's index in peers
	peers  []PeerID // each once, by first slot: the order of a walk from token 0
}

// NewRing returns the ring of the given points, which it copies. They may come in any order; a point given twice counts
// once. Points of different peers may share a token: the smaller peer comes first.
//
// It costs O(n log n) for n points, once; the Ring keeps 12 bytes for each point.
func NewRing(points ...Point) *Ring {
	sorted := slices.Clone(points)
	slices.SortFunc(sorted, func(a, b Point) int {
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

// Walk returns an iterator over the distinct peers, each with its slot, in the order in which they hold token: from the
// point that token belongs to, once round the ring, each peer at the first of its points that the walk meets. It ends
// with the last peer that is new, not with the last point. The iterator may be used again and concurrently.
//
// A walk costs O(log n) to start and then O(1) for each point passed.
func (r *Ring) Walk(token uint64) iter.Seq2[int, PeerID] {
	return func(yield func(int, PeerID) bool) {
		if r == nil {
			return
		}
		seen := make([]uint64, (len(r.peers)+63)/64) // a bit for each peer
		slot, _ := slices.BinarySearch(r.tokens, token)
		for unseen := len(r.peers); unseen > 0; slot++ {
			if slot == len(r.tokens) {
				slot = 0
			}
			peer := r.owners[slot]
			word, bit := &seen[peer/64], uint64(1)<<(peer%64)
			if *word&bit != 0 {
				continue
			}
			*word |= bit
			unseen--
			if !yield(slot, r.peers[peer]) {
				return
			}
		}
	}
}

// Liveness reports whether a peer is thought to be up. A nil Liveness holds every peer to be live.
//
// A Ring asks on the caller's goroutine, at most once for each peer in a call. A Liveness shared by concurrent calls
// must be safe for concurrent use.
type Liveness func(PeerID) bool

func (live Liveness) of(peer PeerID) bool { return live == nil || live(peer) }

// Role is why a peer stands in a preference list, or was asked in a query. The zero value is Primary.
type Role uint8

// The roles.
const (
	Primary  Role = iota // one of the token's first n owners; of a query, one of the peers it was to ask
	Fallback             // it stands in for a primary that is dead; of a query, for one that has failed
	Hedge                // of a query alone: it was asked because a peer was late

	vacant // a dead primary's slot, while PreferenceList looks for a fallback
)

func (r Role) String() string {
	switch r {
	case Primary:
		return "Primary"
	case Fallback:
		return "Fallback"
	case Hedge:
		return "Hedge"
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// MarshalText has a Role be written as its String, as by encoding/json.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Assignment is one entry of a preference list.
type Assignment struct {
	Peer PeerID
	Slot int // the primary's slot, also where Peer is the Fallback for it; see [Ring.Point]
	Role Role
}

// PreferenceList returns the peers that are to hold token n times. The first n distinct peers of the [Ring.Walk] from
// token are the primaries, each in its slot. The slot of a dead one goes to the next live peer further along the walk
// that has none yet, as its [Fallback]; dead primaries are served in walk order. A slot for which no live peer is left
// is dropped, so the list may be shorter than n, and is empty if nobody is live or n <= 0.
//
// The list is in the order of the primaries, and belongs to the caller. It costs what the walk costs as far as it must
// go: to the n-th peer if all those are live, and once round the ring at worst. Space follows min(n, peers).
func (r *Ring) PreferenceList(token uint64, n int, live Liveness) []Assignment {
	if n <= 0 || r.Len() == 0 {
		return nil
	}
	n = min(n, len(r.peers))
	list := make([]Assignment, 0, n)
	vacancies, next := 0, 0 // no slot before list[next] is vacant
	for slot, peer := range r.Walk(token) {
		alive := live.of(peer)
		switch {
		case len(list) < n && alive:
			list = append(list, Assignment{peer, slot, Primary})
		case len(list) < n:
			list = append(list, Assignment{peer, slot, vacant})
			vacancies++
		case alive:
			for list[next].Role != vacant {
				next++
			}
			list[next].Peer, list[next].Role = peer, Fallback
			vacancies--
		}
		if len(list) == n && vacancies == 0 {
			return list
		}
	}
	return slices.DeleteFunc(list, func(a Assignment) bool { return a.Role == vacant })
}

// PrimaryPeers returns the live peers, each once, in the order of the [Ring.Walk] from token 0: all whom a query over
// the whole index must ask. It costs O(peers), however many points they have. The slice belongs to the caller; it is
// empty if nobody is live.
func (r *Ring) PrimaryPeers(live Liveness) []PeerID {
	if r.Len() == 0 {
		return nil
	}
	peers := make([]PeerID, 0, len(r.peers))
	for _, peer := range r.peers {
		if live.of(peer) {
			peers = append(peers, peer)
		}
	}
	return peers
}
