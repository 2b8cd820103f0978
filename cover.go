package scatter

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
)

// Cover says which peers hold which part of a [Ring] on which everything is stored several times: the range of each
// point, the tokens that belong to it, is held by the first Replicas distinct peers of the walk from it.
//
// A Cover never changes and is safe for concurrent use. It is made once for each ring, and asked for each query.
type Cover struct {
	ring     *Ring
	replicas int              // at most the number of peers
	index    map[PeerID]int32 // into ring.peers
	holders  []int32          // replicas for each slot, in walk order: indices into ring.peers
	first    []int32          // by peer: where its part of held begins, and one more entry for the end
	held     []int32          // the slots that each peer holds a range of; ranges without a token are left out
	fewest   int              // fewer peers than this don't hold everything
}

// NewCover returns the Cover of a ring with a number of replicas. Fewer than 1 count as 1, and more than the ring has
// peers as all of them. It costs O(points x replicas), in time and in memory; 8 bytes for each.
func NewCover(ring *Ring, replicas int) *Cover {
	c := &Cover{ring: ring}
	if ring.Len() == 0 {
		return c
	}
	c.replicas = min(max(replicas, 1), len(ring.peers))
	c.index = make(map[PeerID]int32, len(ring.peers))
	for i, peer := range ring.peers {
		c.index[peer] = int32(i)
	}
	c.findHolders()

	// The slots of each peer, by counting.
	c.first = make([]int32, len(ring.peers)+1)
	for slot := range int32(ring.Len()) {
		if !c.empty(slot) {
			for _, peer := range c.of(slot) {
				c.first[peer+1]++
			}
		}
	}
	for i := range ring.peers {
		c.first[i+1] += c.first[i]
	}
	c.held = make([]int32, c.first[len(ring.peers)])
	next := slices.Clone(c.first)
	for slot := range int32(ring.Len()) {
		if !c.empty(slot) {
			for _, peer := range c.of(slot) {
				c.held[next[peer]] = slot
				next[peer]++
			}
		}
	}
	c.fewest = c.countFewest()
	return c
}

// countFewest returns how many peers it takes to hold as many slots as there are, if each holds some of its own.
func (c *Cover) countFewest() int {
	counts := make([]int, len(c.index))
	for peer := range counts {
		counts[peer] = len(c.slotsOf(int32(peer)))
	}
	slices.Sort(counts)
	open := len(c.held) / c.replicas
	for i, count := range slices.Backward(counts) {
		if open -= count; open <= 0 {
			return len(counts) - i
		}
	}
	return len(counts)
}

// findHolders goes round the ring backwards: the holders of a slot are its owner, and then those of the next slot
// without it. So a peer with many points in a row costs no more than another.
func (c *Cover) findHolders() {
	owners := c.ring.owners
	c.holders = make([]int32, len(owners)*c.replicas)
	last := int32(len(owners) - 1)
	of := c.of(last)[:0]
	for i := int(last); len(of) < c.replicas; i++ {
		if peer := int32(owners[i%len(owners)]); !slices.Contains(of, peer) {
			of = append(of, peer)
		}
	}
	for slot := last - 1; slot >= 0; slot-- {
		of := append(c.of(slot)[:0], int32(owners[slot]))
		for _, peer := range c.of(slot + 1) {
			if len(of) < c.replicas && peer != of[0] {
				of = append(of, peer)
			}
		}
	}
}

// of returns the holders of a slot's range.
func (c *Cover) of(slot int32) []int32 {
	return c.holders[int(slot)*c.replicas:][:c.replicas:c.replicas]
}

// number returns a peer's number, or -1 if it is not on the ring.
func (c *Cover) number(peer PeerID) int32 {
	if i, ok := c.index[peer]; ok {
		return i
	}
	return -1
}

// slotsOf returns the slots whose ranges a peer holds.
func (c *Cover) slotsOf(peer int32) []int32 { return c.held[c.first[peer]:c.first[peer+1]] }

// empty reports whether no token belongs to a slot, because an earlier one has the same token.
func (c *Cover) empty(slot int32) bool {
	return slot > 0 && c.ring.tokens[slot] == c.ring.tokens[slot-1]
}

// width returns the number of tokens in a slot's range, as a 128-bit integer: the only range of a ring has 2^64.
func (c *Cover) width(slot int32) (hi, lo uint64) {
	tokens := c.ring.tokens
	if slot > 0 {
		return 0, tokens[slot] - tokens[slot-1]
	}
	lo = tokens[0] - tokens[len(tokens)-1]
	if lo == 0 {
		hi = 1
	}
	return hi, lo
}

// Gap is a stretch of the token space that an answer lacks.
type Gap struct {
	First, Last uint64       // its tokens, both included; from First on past the largest token if First > Last
	Share       float64      // of the whole token space
	Holders     []PeerReport // who holds a part of it, in walk order part by part, and why none of them answered
}

// String returns the gap on one line, for a log.
func (g Gap) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%#016x-%#016x (%.2f%%)", g.First, g.Last, 100*g.Share)
	separator := ":"
	for _, h := range g.Holders {
		fmt.Fprintf(&s, "%s %s %v", separator, h.Peer, h.Status)
		separator = ","
	}
	return s.String()
}

// coverage is how far one query has got.
type coverage struct {
	*Cover
	answered bitset // by peer

	// No peer before at, and no slot before pos of its slots, lacks an answer.
	at, pos int

	done           bitset // by slot: has an answer; nil unless answers are counted at once
	openHi, openLo uint64 // likewise: how many tokens lack an answer, as a 128-bit integer
}

// bitset is a set of small integers.
type bitset []uint64

func bitsetWords(n int) int            { return (n + 63) / 64 }
func newBitset(n int) bitset           { return make(bitset, bitsetWords(n)) }
func (b bitset) add(i int32)           { b[uint32(i)/64] |= 1 << (uint32(i) % 64) }
func (b bitset) remove(i int32)        { b[uint32(i)/64] &^= 1 << (uint32(i) % 64) }
func (b bitset) has(i int32) bool      { return b[uint32(i)/64]&(1<<(uint32(i)%64)) != 0 }
func (b bitset) any(list []int32) bool { return slices.ContainsFunc(list, b.has) }

// newCoverage returns a coverage in which nobody has answered. If counting, answers are counted at once: else share
// does it.
func newCoverage(c *Cover, counting bool) *coverage {
	query := new(coverage)
	query.begin(c, counting)
	return query
}

// begin makes c a new coverage, in memory that may have served another.
func (c *coverage) begin(cover *Cover, counting bool) {
	*c = coverage{Cover: cover, answered: zeroed(c.answered, bitsetWords(len(cover.index))), openHi: 1}
	if counting {
		c.done = newBitset(cover.ring.Len())
	}
}

func (c *coverage) answer(peer int32) {
	c.answered.add(peer)
	if c.done == nil {
		return
	}
	for _, slot := range c.slotsOf(peer) {
		if !c.done.has(slot) {
			c.done.add(slot)
			hi, lo := c.width(slot)
			var borrow uint64
			c.openLo, borrow = bits.Sub64(c.openLo, lo, 0)
			c.openHi -= hi + borrow
		}
	}
}

// whole reports whether each range has an answer. If that is not counted, what a peer that has answered holds needs no
// look, and what was found to have an answer keeps it: so all calls together look at each peer once, and at the ranges
// of a few late ones.
func (c *coverage) whole() bool {
	if c.done != nil {
		return c.openHi == 0 && c.openLo == 0
	}
	for ; c.at < len(c.index); c.at++ {
		if !c.answered.has(int32(c.at)) {
			for slots := c.slotsOf(int32(c.at)); c.pos < len(slots); c.pos++ {
				if !c.answered.any(c.of(slots[c.pos])) {
					return false
				}
			}
		}
		c.pos = 0
	}
	return len(c.index) > 0
}

// close makes the coverage whole, which the caller knows it is.
func (c *coverage) close() { c.at, c.openHi, c.openLo = len(c.index), 0, 0 }

// share returns how much of the token space has an answer: 1 only if all of it has.
func (c *coverage) share() float64 {
	switch {
	case c.done != nil || len(c.index) == 0:
		return shareBut(c.openHi, c.openLo)
	case c.at == len(c.index): // whole has found nothing open
		return 1
	}
	return shareBut(c.widths(c.open()))
}

// open returns the slots whose ranges have no answer, in order.
func (c *coverage) open() []int32 {
	var open []int32
	for peer := range int32(len(c.index)) {
		if c.answered.has(peer) {
			continue
		}
		for _, slot := range c.slotsOf(peer) {
			if of := c.of(slot); of[0] == peer && !c.answered.any(of) { // once, and not for each holder
				open = append(open, slot)
			}
		}
	}
	slices.Sort(open)
	return open
}

// widths returns the number of tokens in the ranges of all the slots, as a 128-bit integer.
func (c *Cover) widths(slots []int32) (hi, lo uint64) {
	for _, slot := range slots {
		h, l := c.width(slot)
		var carry uint64
		lo, carry = bits.Add64(lo, l, 0)
		hi += h + carry
	}
	return hi, lo
}

// shareOf returns the share that a number of tokens is of all 2^64: 1 only if it is all of them, however few the
// others.
func shareOf(hi, lo uint64) float64 {
	if hi > 0 {
		return 1
	}
	return min(float64(lo)/(1<<64), math.Nextafter(1, 0))
}

// shareBut is shareOf all the other tokens. It subtracts before it rounds.
func shareBut(hi, lo uint64) float64 {
	lo, borrow := bits.Sub64(0, lo, 0)
	return shareOf(1-hi-borrow, lo)
}

// gaps returns the stretches without an answer, adjacent ranges joined, in the order of their first tokens; report
// tells what became of a peer.
func (c *coverage) gaps(report func(peer int32) PeerReport) []Gap {
	if len(c.index) == 0 {
		return []Gap{{First: 0, Last: math.MaxUint64, Share: 1}}
	}
	open := c.open()
	if len(open) == 0 {
		return nil
	}
	// Begin where a gap begins, which is not at the first slot if the last is open too.
	start := 0
	for start < len(open) && c.follows(open[start], open[(start+len(open)-1)%len(open)]) {
		start++
	}
	open = append(open[start:len(open):len(open)], open[:start]...)

	var gaps []Gap
	for len(open) > 0 {
		n := 1
		for n < len(open) && c.follows(open[n], open[n-1]) {
			n++
		}
		gaps = append(gaps, c.gap(open[:n], report))
		open = open[n:]
	}
	slices.SortFunc(gaps, func(a, b Gap) int { return cmp.Compare(a.First, b.First) })
	return gaps
}

// follows reports whether the range of a slot goes on where that of another ends.
func (c *Cover) follows(slot, other int32) bool {
	last := other
	for {
		if last = (last + 1) % int32(c.ring.Len()); !c.empty(last) {
			return last == slot
		}
	}
}

// gap is the Gap of slots whose ranges follow each other.
func (c *Cover) gap(open []int32, report func(peer int32) PeerReport) Gap {
	var holders []PeerReport
	seen := newBitset(len(c.index))
	for _, slot := range open {
		for _, peer := range c.of(slot) {
			if !seen.has(peer) {
				seen.add(peer)
				holders = append(holders, report(peer))
			}
		}
	}
	hi, lo := c.widths(open)
	last := c.ring.tokens[open[len(open)-1]]
	return Gap{First: last - lo + 1, Last: last, Share: shareOf(hi, lo), Holders: holders}
}

// Plan returns live peers that hold all that live peers hold, each of them needed, in the order of the walk from token
// 0. They are few. No plan is shorter where each peer has one token of its own and is live; elsewhere it is the best
// of several tries, and seldom a tenth longer than the best of many. The same seed gives the same plan, and different
// seeds spread the load: evenly where the peers are alike, else more of it on those that hold more. A nil live holds
// every peer to be live.
//
// A plan costs some O(points x replicas), and is best made once and used for many queries where there are thousands of
// points.
func (c *Cover) Plan(live Liveness, seed uint64) []PeerID {
	if c.ring.Len() == 0 {
		return nil
	}
	p := planner{Cover: c, r: rand.New(rand.NewPCG(seed, uint64(len(c.holders))))}
	p.alive = make([]bool, len(c.ring.peers))
	for i, peer := range c.ring.peers {
		p.alive[i] = live.of(peer)
	}
	best, least := p.sweep(), p.least()
	for try := 0; try < min(planTries, smallPlan/(len(best)+1)+1) && len(best) > least; try++ {
		for _, other := range [][]int32{p.greedy(), p.sweep()} {
			if len(other) < len(best) {
				best = other
			}
		}
	}
	slices.Sort(best)
	plan := make([]PeerID, len(best))
	for i, peer := range best {
		plan[i] = c.ring.peers[peer]
	}
	return plan
}

// A planner tries again some smallPlan/n times for a plan of n peers, and at most planTries times: the lengths of long
// plans differ by less, and short ones cost less.
const smallPlan, planTries = 400, 16

// planner makes plans.
type planner struct {
	*Cover
	r     *rand.Rand
	alive []bool // by peer
}

// cover is a plan in the making.
type cover struct {
	*planner
	times []int32 // by slot: how many of the chosen hold it
	gain  []int32 // by peer, if alive: how many slots it would add
	plan  []int32
}

// least returns a number of peers that no plan can do without: each adds at most as much as the one that holds most.
func (p *planner) least() int {
	slots, most := 0, 1
	for slot := range int32(p.ring.Len()) {
		if !p.empty(slot) && slices.ContainsFunc(p.of(slot), func(peer int32) bool { return p.alive[peer] }) {
			slots++
		}
	}
	for peer := range int32(len(p.alive)) {
		if p.alive[peer] {
			most = max(most, len(p.slotsOf(peer)))
		}
	}
	return (slots + most - 1) / most
}

func (p *planner) start() *cover {
	c := &cover{planner: p, times: make([]int32, p.ring.Len()), gain: make([]int32, len(p.alive))}
	for peer := range int32(len(c.gain)) {
		c.gain[peer] = int32(len(p.slotsOf(peer)))
	}
	return c
}

func (c *cover) choose(peer int32) {
	c.plan = append(c.plan, peer)
	for _, slot := range c.slotsOf(peer) {
		if c.times[slot]++; c.times[slot] == 1 {
			for _, other := range c.of(slot) {
				c.gain[other]--
			}
		}
	}
}

// prune leaves out, in random order, who adds nothing to the others.
func (c *cover) prune() []int32 {
	c.r.Shuffle(len(c.plan), func(i, j int) { c.plan[i], c.plan[j] = c.plan[j], c.plan[i] })
	return slices.DeleteFunc(c.plan, func(peer int32) bool {
		for _, slot := range c.slotsOf(peer) {
			if c.times[slot] == 1 {
				return false
			}
		}
		for _, slot := range c.slotsOf(peer) {
			c.times[slot]--
		}
		return true
	})
}

// sweep goes round the ring once from a random slot, and where it meets a range without a holder chosen, chooses the
// one that adds most. Where each peer has one token of its own and is live, no plan is shorter.
func (p *planner) sweep() []int32 {
	c := p.start()
	from := p.r.IntN(p.ring.Len())
	for i := range p.ring.Len() {
		slot := int32((from + i) % p.ring.Len())
		if c.times[slot] > 0 || c.empty(slot) {
			continue
		}
		best := int32(-1)
		for _, peer := range c.of(slot) {
			if c.alive[peer] && (best < 0 || c.gain[peer] > c.gain[best]) {
				best = peer
			}
		}
		if best >= 0 {
			c.choose(best)
		}
	}
	return c.prune()
}

// greedy chooses who adds most, again and again.
func (p *planner) greedy() []int32 {
	c := p.start()
	adding := make([][]int32, slices.Max(c.gain)+1) // by gain: the peers that would add so much when they were put here
	for _, peer := range p.r.Perm(len(c.gain)) {
		if c.alive[peer] {
			adding[c.gain[peer]] = append(adding[c.gain[peer]], int32(peer))
		}
	}
	for gain := int32(len(adding) - 1); gain > 0; gain-- {
		for _, peer := range adding[gain] {
			if now := c.gain[peer]; now == gain {
				c.choose(peer)
			} else {
				adding[now] = append(adding[now], peer)
			}
		}
	}
	return c.prune()
}
