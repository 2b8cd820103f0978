package scatter

import "math/bits"

// choice is the peers that a query asks first. The query owns it.
type choice struct {
	peers    []int32   // ascending; together they hold all that live peers hold
	trials   []int32   // those of them that are on probation and are tried
	coverage *coverage // peers are hoped for
}

// sweep chooses peers range by range. It knows a Cover and a weight of each peer, and nothing else.
// The weight is 0 if the peer is dead, and negative if it is on probation. Of two peers with equal
// gain, the one with the greater weight is chosen. The memory of a sweep serves one choice after
// another.
type sweep struct {
	*Cover
	chosen   bitset  // peers
	order    []int32 // chosen, in the order in which they were
	covered  bitset  // ranges of the chosen
	overlap  bool    // some range is held by two of the chosen
	deferred []int32 // ranges of which all live holders are on probation
	lost     []int32 // ranges without a live holder

	gainsCounted bool // the weights are multiplied by gains already
}

func (s *sweep) init(cover *Cover) {
	s.Cover, s.chosen, s.covered = cover, newBitset(len(cover.peers)), newBitset(len(cover.ends))
}

// begin forgets the choice before.
func (s *sweep) begin() {
	clear(s.chosen)
	clear(s.covered)
	s.order, s.deferred, s.lost, s.overlap = s.order[:0], s.deferred[:0], s.lost[:0], false
}

// drawRange makes a range of a draw.
func (s *sweep) drawRange(draw uint64) int {
	high, _ := bits.Mul64(draw, uint64(len(s.ends)))
	return int(high)
}

// take chooses a peer.
func (s *sweep) take(peer int32) {
	s.chosen.add(peer)
	s.order = append(s.order, peer)
	for _, r := range s.rangesOf(peer) {
		s.overlap = s.overlap || s.covered.has(r)
		s.covered.add(r)
	}
}

// fill chooses a holder for each range that the chosen don't hold, from a range on once round. A
// range is held by a peer on probation only if it has no other live holder. Rules 35, 36.
func (s *sweep) fill(weights []float64, from int) {
	for r := from; r < len(s.ends); r++ {
		if !s.covered.has(int32(r)) {
			s.fillRange(int32(r), weights)
		}
	}
	for r := range from {
		if !s.covered.has(int32(r)) {
			s.fillRange(int32(r), weights)
		}
	}
	s.fillDeferred(weights)
}

// fillRange chooses the holder of a range with the best product of gain and weight.
func (s *sweep) fillRange(r int32, weights []float64) {
	best, most, live := int32(-1), 0.0, false
	for _, peer := range s.holdersOf(r) {
		w := weights[peer]
		live = live || w != 0
		if w > 0 {
			if !s.gainsCounted {
				w *= s.gain(peer)
			}
			if w > most {
				best, most = peer, w
			}
		}
	}
	switch {
	case best >= 0:
		s.take(best)
	case live:
		s.deferred = append(s.deferred, r)
	default:
		s.lost = append(s.lost, r)
	}
}

// gain returns the number of ranges that a peer would add.
func (s *sweep) gain(peer int32) float64 {
	n := 0
	for _, r := range s.rangesOf(peer) {
		if !s.covered.has(r) {
			n++
		}
	}
	return float64(n)
}

// fillDeferred chooses among peers on probation.
func (s *sweep) fillDeferred(weights []float64) {
	for _, r := range s.deferred {
		if s.covered.has(r) {
			continue
		}
		best, most := int32(-1), 0.0
		for _, peer := range s.holdersOf(r) {
			if w := -weights[peer] * s.gain(peer); w > most {
				best, most = peer, w
			}
		}
		s.take(best)
	}
}

// prune leaves out each peer that the others make redundant. A peer on probation makes no other
// peer redundant.
func (s *sweep) prune(weights []float64) {
	if !s.overlap {
		return
	}
	kept := s.order[:0]
	for _, peer := range s.order {
		if s.needed(peer, weights) {
			kept = append(kept, peer)
		} else {
			s.chosen.remove(peer)
		}
	}
	s.order = kept
}

// needed reports whether a peer holds a range that no other of the chosen does.
func (s *sweep) needed(peer int32, weights []float64) bool {
	for _, r := range s.rangesOf(peer) {
		if !s.another(peer, r, weights) {
			return true
		}
	}
	return false
}

func (s *sweep) another(peer, r int32, weights []float64) bool {
	for _, other := range s.holdersOf(r) {
		if other != peer && s.chosen.has(other) && (weights[other] > 0 || weights[peer] < 0) {
			return true
		}
	}
	return false
}

// choice returns what was chosen.
func (s *sweep) choice() choice {
	words := bitsetWords(len(s.ends))
	sets := make(bitset, 2*words+len(s.chosen)) // one allocation for all three
	c := &coverage{
		Cover: s.Cover, uncovered: allTokens,
		covered: sets[:words:words], lost: sets[words : 2*words : 2*words], hoped: sets[2*words:],
	}
	copy(c.hoped, s.chosen)
	for _, r := range s.lost {
		c.lost.add(r)
	}
	return choice{peers: s.chosen.list(len(s.order)), coverage: c}
}

// list returns the members of the set, of which there are n, ascending.
func (b bitset) list(n int) []int32 {
	list := make([]int32, 0, n)
	for word, set := range b {
		for ; set != 0; set &= set - 1 {
			list = append(list, int32(word*64+bits.TrailingZeros64(set)))
		}
	}
	return list
}
