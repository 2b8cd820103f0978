package scatter

import (
	"math"
	"math/bits"
	"slices"
)

// coverage is how far one query has got: which ranges have an answer, and which may still get one.
//
// A peer is hoped for from the moment it is chosen until it fails. A range is covered once a holder
// has answered. It is open if it isn't covered and a holder is hoped for. It is lost if neither.
type coverage struct {
	*Cover
	hoped     bitset // peers that are to be asked, are asked, or have answered
	covered   bitset // ranges
	lost      bitset // ranges
	uncovered tokens // how many tokens are in ranges that aren't covered
	next      int32  // no range before this one is open
}

// newCoverage returns a coverage in which nobody has answered. It takes over hoped. A range that
// nobody holds is lost from the start. Rule 32.
func newCoverage(cover *Cover, hoped bitset) *coverage {
	if len(cover.ends) == 0 { // the zero Cover
		cover = NewCover(nil, 1)
	}
	n := len(cover.ends)
	c := &coverage{Cover: cover, hoped: hoped, covered: newBitset(n), lost: newBitset(n), uncovered: allTokens}
	// This costs what the hoped for peers hold. To look at the holders of each range takes seven
	// times as long for a third of 1000 peers with 256 points.
	c.lost.fill(n)
	for peer := range int32(len(cover.peers)) {
		if hoped.has(peer) {
			for _, r := range cover.rangesOf(peer) {
				c.lost.remove(r)
			}
		}
	}
	return c
}

// clone returns a copy that shares nothing that changes.
func (c *coverage) clone() *coverage {
	d := *c
	d.hoped, d.covered, d.lost = slices.Clone(c.hoped), slices.Clone(c.covered), slices.Clone(c.lost)
	return &d
}

// answer records that a peer has answered for all that it holds.
func (c *coverage) answer(peer int32) {
	c.hoped.add(peer)
	for _, r := range c.rangesOf(peer) {
		if c.covered.has(r) {
			continue
		}
		c.covered.add(r)
		c.lost.remove(r)
		c.uncovered = c.uncovered.minus(c.width(r))
	}
}

// lose records that nothing is hoped for from a peer any more.
func (c *coverage) lose(peer int32) {
	c.hoped.remove(peer)
	for _, r := range c.rangesOf(peer) {
		if !c.covered.has(r) && !c.hoped.hasAny(c.holdersOf(r)) {
			c.lost.add(r)
		}
	}
}

// quit is lose without a look at the peer's ranges. From then on lost lacks some: use isOpen. For
// 500 peers with 256 points, lose takes 8 ms. Rule 40.
func (c *coverage) quit(peer int32) { c.hoped.remove(peer) }

// isOpen reports whether any range is open. It stops at the first one, and begins there the next
// time: however often it is called, each range is passed over once, unless a peer is hoped for
// anew.
func (c *coverage) isOpen() bool {
	for n := int32(len(c.ends)); c.next < n; c.next++ {
		if !c.covered.has(c.next) && c.hoped.hasAny(c.holdersOf(c.next)) {
			return true
		}
	}
	return false
}

// hope records that a peer is to be asked.
func (c *coverage) hope(peer int32) {
	c.hoped.add(peer)
	for _, r := range c.rangesOf(peer) {
		if r < c.next && !c.covered.has(r) {
			c.next = r
		}
		c.lost.remove(r)
	}
}

// appendOnlyHope appends the ranges that would be lost without a peer that is hoped for.
func (c *coverage) appendOnlyHope(list []int32, peer int32) []int32 {
	for _, r := range c.rangesOf(peer) {
		if !c.covered.has(r) && !c.hopedBut(peer, r) {
			list = append(list, r)
		}
	}
	return list
}

// hopedBut reports whether a holder of a range other than a peer is hoped for.
func (c *coverage) hopedBut(peer, r int32) bool {
	for _, other := range c.holdersOf(r) {
		if other != peer && c.hoped.has(other) {
			return true
		}
	}
	return false
}

// whole reports whether every range is covered.
func (c *coverage) whole() bool { return c.uncovered.isZero() }

// share returns the share of the token space that is covered: 1 only if all of it is. Rule 33: it
// is exact. It subtracts before it rounds. Rule 23.
func (c *coverage) share() float64 { return allTokens.minus(c.uncovered).share() }

// missing returns the stretches that aren't covered, in the order of their first tokens. Adjacent
// ranges are one stretch, also past the largest token. The holders are in the order of the ranges,
// each once; they are nil if nobody holds any part. Rules 24 and 32.
//
// It costs what there is to tell: the ranges that aren't covered and their holders, and four
// allocations. Rule 40.
func (c *coverage) missing() []MissingRange {
	if c.whole() {
		return nil
	}
	stretches := c.stretches()
	missing := make([]MissingRange, len(stretches))
	names := make([]PeerID, 0, c.mostHolders(stretches)) // of all stretches
	listed := make([]int32, len(c.peers))                // by peer: the number of its last stretch, from 1
	n := int32(len(c.ends))
	for i, s := range stretches {
		from := len(names)
		for at := s.from; at <= s.to; at++ {
			for _, peer := range c.holdersOf(at % n) {
				if listed[peer] != int32(i)+1 {
					listed[peer] = int32(i) + 1
					names = append(names, c.peers[peer])
				}
			}
		}
		before, last := c.ends[(s.from+n-1)%n], c.ends[s.to%n]
		size := tokens{0, last - before}
		if size.isZero() { // All the way round.
			size = allTokens
		}
		missing[i] = MissingRange{First: before + 1, Last: last, Share: size.share()}
		if len(names) > from {
			missing[i].Holders = names[from:len(names):len(names)]
		}
	}
	return missing
}

// stretch is a run of ranges that follow each other. If to isn't below the number of ranges, the
// run goes on at range 0.
type stretch struct{ from, to int32 }

// stretches returns the stretches that aren't covered, in the order of their first tokens. There
// must be one.
func (c *coverage) stretches() []stretch {
	n, covered := len(c.ends), c.covered.count()
	list := make([]stretch, 0, min(n-covered, covered+1)) // All but one begin after a covered range.
	for i, word := range c.covered {
		for rest := ^word; rest != 0; rest &= rest - 1 {
			r := int32(64*i + bits.TrailingZeros64(rest))
			if int(r) >= n {
				break
			}
			if last := len(list) - 1; last >= 0 && list[last].to == r-1 {
				list[last].to = r
			} else {
				list = append(list, stretch{r, r})
			}
		}
	}
	// The list is in the order of the ranges. Range 0 begins after the end of the last one. That is
	// before token 0, unless it is the largest token.
	first, last := list[0], &list[len(list)-1]
	switch {
	case first.from > 0 || len(list) == 1:
		return list
	case int(last.to) == n-1: // It goes on at range 0.
		last.to = int32(n) + first.to
		return list[1:]
	case c.ends[n-1] < math.MaxUint64:
		return append(list[1:], first)
	}
	return list
}

// mostHolders returns an upper bound on how many holders the stretches have, counted for each.
func (c *Cover) mostHolders(stretches []stretch) int {
	n, most := int32(len(c.ends)), 0
	for _, s := range stretches {
		holders := c.first[min(s.to, n-1)+1] - c.first[s.from]
		if s.to >= n {
			holders += c.first[s.to-n+1]
		}
		most += min(int(holders), len(c.peers))
	}
	return most
}
