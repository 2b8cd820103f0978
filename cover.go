package scatter

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Cover records which peers hold which token ranges. A range may be held by any number of peers,
// and by none.
//
// Make one with [NewCover], [NewGroupCover], [NewRangeCover] or [JoinCovers]. A Cover never changes
// and is safe for concurrent use. Make it once for each topology and use it for every query. Nobody
// holds any part of the zero Cover.
type Cover struct {
	peers []PeerID         // each once; a peer's number is its index here
	index map[PeerID]int32 // the numbers

	// A range ends with the token ends[r], which it includes, and begins after the end of the range
	// before it. Range 0 follows the last one, past the largest token, so token 0 is always in it.
	// The ends ascend strictly.
	ends    []uint64
	first   []int32 // by range: where its holders begin in holders, and one more for the end
	holders []int32 // peer numbers, in the order of preference

	firstHeld []int32 // by peer: where its ranges begin in held, and one more for the end
	held      []int32 // ranges, ascending for each peer
}

// NewCover returns the Cover of a ring on which the range of each point is held by the first n
// distinct peers of the [Ring.Walk] from it, where n is replicas. Dynamo, Cassandra and Riak place
// replicas so. If replicas is below 1, 1 is used. If it exceeds the number of peers, every peer
// holds everything. Nobody holds any part of an empty or nil ring.
//
// It costs O(points x replicas) time and memory.
func NewCover(ring *Ring, replicas int) *Cover {
	if ring.Len() == 0 {
		return newCoverBuilder(0, 0).cover()
	}
	replicas = min(max(replicas, 1), len(ring.peers))
	b := newCoverBuilder(ring.Len(), ring.Len()*replicas)
	for _, peer := range ring.peers {
		b.number(peer)
	}
	holders := walkHolders(ring, replicas)
	for slot, token := range ring.tokens {
		if slot > 0 && token == ring.tokens[slot-1] {
			continue // A point that shares its token with an earlier one has no range of its own.
		}
		b.hold(holders[slot*replicas:][:replicas]...)
		b.end(token)
	}
	return b.cover()
}

// walkHolders returns the first n distinct peers of the walk from each slot, one slot after the
// other. It goes round the ring backwards: the holders of a slot are its owner, and then those of
// the next slot without it. So a peer with many points in a row costs no more than another.
// Rule 23.
func walkHolders(ring *Ring, n int) []int32 {
	owners := ring.owners
	holders := make([]int32, len(owners)*n)
	of := func(slot int) []int32 { return holders[slot*n:][:n:n] }
	last := len(owners) - 1
	list := of(last)[:0]
	for i := last; len(list) < n; i++ {
		if peer := int32(owners[i%len(owners)]); !slices.Contains(list, peer) {
			list = append(list, peer)
		}
	}
	for slot := last - 1; slot >= 0; slot-- {
		list := append(of(slot)[:0], int32(owners[slot]))
		for _, peer := range of(slot + 1) {
			if len(list) < n && peer != list[0] {
				list = append(list, peer)
			}
		}
	}
	return holders
}

// NewGroupCover returns the Cover of an index of n = len(groups) shards, each an equal share of the
// token space: token t belongs to shard floor(t x n / 2^64). The peers in groups[i] hold shard i,
// in the order of preference. A peer may be in several groups. A peer given twice in one group
// counts once. Nobody holds the shard of an empty group. If there are no groups, nobody holds
// anything.
//
// It copies the groups. It costs time and memory in proportion to their sizes.
func NewGroupCover(groups ...[]PeerID) *Cover {
	b := newCoverBuilder(len(groups), len(groups))
	for i, group := range groups {
		b.holdNamed(group)
		// The largest t with t x n < (i+1) x 2^64. Rule 32.
		last, _ := bits.Div64(uint64(i), math.MaxUint64, uint64(len(groups)))
		b.end(last)
	}
	return b.cover()
}

// Range is a stretch of the token space and the peers that hold it, for [NewRangeCover].
type Range struct {
	// First and Last are the first and the last token. Both are included. If First > Last, the
	// range goes on past the largest token to Last. If First == Last+1, the range is the whole
	// token space; it is also if First is 0 and Last is math.MaxUint64.
	First, Last uint64
	// Holders are the peers that hold the range, in the order of preference. A peer given twice
	// counts once. If empty, nobody holds the range.
	Holders []PeerID
}

// NewRangeCover returns the Cover of an explicit table, such as the slots of Redis Cluster. The
// ranges may be in any order. Nobody holds the tokens that no range names. If two ranges overlap,
// an error names both.
//
// It copies the ranges. It costs O(n log n) for n ranges, and time and memory in proportion to
// their holders.
func NewRangeCover(ranges ...Range) (*Cover, error) {
	order := make([]int, len(ranges)) // indices into ranges, by First
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(ranges[i].First, ranges[j].First) })
	if err := checkOverlap(ranges, order); err != nil {
		return nil, err
	}
	b := newCoverBuilder(len(ranges), len(ranges))
	next := uint64(0) // the first token that has no range yet
	wraps := false
	if len(order) > 0 {
		// Only the range that begins last can go on past the largest token. It is range 0 then.
		if r := ranges[order[len(order)-1]]; r.First > r.Last {
			b.holdNamed(r.Holders)
			b.end(r.Last)
			next, wraps = r.Last+1, true
		}
	}
	for _, i := range order {
		r := ranges[i]
		if r.First > next {
			b.end(r.First - 1) // Rule 32: a range that nobody holds
		}
		if r.First <= r.Last {
			b.holdNamed(r.Holders)
			b.end(r.Last)
			next = r.Last + 1
		}
	}
	if !wraps && next > 0 {
		b.end(math.MaxUint64) // likewise
	}
	return b.cover(), nil
}

// checkOverlap returns an error if two ranges overlap. order has the ranges by their first tokens.
func checkOverlap(ranges []Range, order []int) error {
	for at, i := range order {
		// A range that overlaps any other overlaps the one that begins next, round the token space.
		j := order[(at+1)%len(order)]
		if i == j || ranges[j].First-ranges[i].First > ranges[i].Last-ranges[i].First {
			continue
		}
		i, j = min(i, j), max(i, j)
		a, b := ranges[i], ranges[j]
		return fmt.Errorf("scatter: ranges[%d] (%#016x-%#016x) and ranges[%d] (%#016x-%#016x) overlap",
			i, a.First, a.Last, j, b.First, b.Last)
	}
	return nil
}

// JoinCovers returns the Cover on which a token is held by all peers that hold it on any of the
// covers: those of the first cover first. Use it if each rack or zone holds everything by a ring of
// its own. Covers that are nil are left out.
//
// It costs O(r x (c + log r)) time for c covers with r ranges in all, and memory in proportion to
// the holders of the joined ranges. There are no more of these than r.
func JoinCovers(covers ...*Cover) *Cover {
	type part struct {
		*Cover
		at      int     // no range before it has tokens left
		numbers []int32 // by number in Cover: the number in the join, plus 1, once it is known
	}
	var parts []part
	var ends []uint64
	for _, c := range covers {
		if c != nil && len(c.holders) > 0 {
			parts = append(parts, part{Cover: c, numbers: make([]int32, len(c.peers))})
			ends = append(ends, c.ends...)
		}
	}
	slices.Sort(ends)
	ends = slices.Compact(ends)
	b := newCoverBuilder(len(ends), len(ends)*len(parts))
	for _, end := range ends {
		for i := range parts {
			p := &parts[i]
			for p.at < len(p.ends) && p.ends[p.at] < end {
				p.at++
			}
			for _, peer := range p.holdersOf(int32(p.at % len(p.ends))) {
				if p.numbers[peer] == 0 {
					p.numbers[peer] = b.number(p.peers[peer]) + 1
				}
				b.hold(p.numbers[peer] - 1)
			}
		}
		b.end(end)
	}
	for _, p := range parts {
		for _, peer := range p.peers {
			b.number(peer) // the peers that hold nothing, too
		}
	}
	return b.cover()
}

// Peers returns every peer that the Cover names, each once, in the order in which they first appear
// along the token space from token 0. Peers that hold nothing come last, but on the Cover of a ring
// the order is that of the [Ring.Walk] from token 0. The caller owns the slice. It is empty if
// there are no peers.
func (c *Cover) Peers() []PeerID { return slices.Clone(c.peers) }

// Holders returns the peers that hold a token, in the order of preference. The caller owns the
// slice. It is empty if nobody holds the token. It costs O(log n) for n ranges.
func (c *Cover) Holders(token uint64) []PeerID {
	if len(c.holders) == 0 {
		return nil
	}
	r, _ := slices.BinarySearch(c.ends, token)
	var holders []PeerID
	for _, peer := range c.holdersOf(int32(r % len(c.ends))) {
		holders = append(holders, c.peers[peer])
	}
	return holders
}

// holdersOf returns the numbers of the peers that hold a range.
func (c *Cover) holdersOf(r int32) []int32 { return c.holders[c.first[r]:c.first[r+1]] }

// rangesOf returns the ranges that a peer holds, ascending.
func (c *Cover) rangesOf(peer int32) []int32 { return c.held[c.firstHeld[peer]:c.firstHeld[peer+1]] }

// number returns a peer's number, or -1 if it is not on the Cover.
func (c *Cover) number(peer PeerID) int32 {
	if i, ok := c.index[peer]; ok {
		return i
	}
	return -1
}

// width returns the number of tokens in a range. The only range of a Cover has 2^64.
func (c *Cover) width(r int32) tokens { return widthUpTo(c.ends, int(r)) }

// coverBuilder makes a Cover range by range, in the order of their ends: first the holders of a
// range, then its end.
type coverBuilder struct {
	c    *Cover
	seen []int32 // by peer: the number of ranges when it was last made a holder, counting the new one
}

// newCoverBuilder returns a builder with room for so many ranges and holders. There may be more.
func newCoverBuilder(ranges, holders int) *coverBuilder {
	return &coverBuilder{c: &Cover{
		index:   make(map[PeerID]int32),
		ends:    make([]uint64, 0, ranges),
		first:   append(make([]int32, 0, ranges+1), 0),
		holders: make([]int32, 0, holders),
	}}
}

// number returns a peer's number. A new peer gets the next one.
func (b *coverBuilder) number(peer PeerID) int32 {
	i, ok := b.c.index[peer]
	if !ok {
		i = int32(len(b.c.peers))
		b.c.index[peer] = i
		b.c.peers = append(b.c.peers, peer)
		b.seen = append(b.seen, 0)
	}
	return i
}

// hold adds holders to the next range, each once.
func (b *coverBuilder) hold(peers ...int32) {
	for _, peer := range peers {
		if now := int32(len(b.c.first)); b.seen[peer] != now {
			b.seen[peer] = now
			b.c.holders = append(b.c.holders, peer)
		}
	}
}

// holdNamed is hold for peers that may be new.
func (b *coverBuilder) holdNamed(peers []PeerID) {
	for _, peer := range peers {
		b.hold(b.number(peer))
	}
}

// end ends the next range with the token last.
func (b *coverBuilder) end(last uint64) {
	b.c.ends = append(b.c.ends, last)
	b.c.first = append(b.c.first, int32(len(b.c.holders)))
}

// cover returns the Cover. The builder must not be used again.
func (b *coverBuilder) cover() *Cover {
	c := b.c
	if len(c.ends) == 0 {
		b.end(math.MaxUint64) // Nobody holds the whole token space.
	}
	c.firstHeld = make([]int32, len(c.peers)+1)
	for _, peer := range c.holders {
		c.firstHeld[peer+1]++
	}
	for i := range c.peers {
		c.firstHeld[i+1] += c.firstHeld[i]
	}
	c.held = make([]int32, len(c.holders))
	next := slices.Clone(c.firstHeld)
	for r := range int32(len(c.ends)) {
		for _, peer := range c.holdersOf(r) {
			c.held[next[peer]] = r
			next[peer]++
		}
	}
	return c
}
