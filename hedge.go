package scatter

import (
	"slices"
	"sync/atomic"
	"time"
)

// Hedging says when a standby, one of Options.Standby, is asked in place of a peer that doesn't answer. The zero value
// hedges against failures only, without a bound.
type Hedging struct {
	// Delay is how long a peer may take before standbys are asked too for what it alone was asked for. It stays asked, and
	// whoever answers first counts. 0: only a peer that has failed is replaced.
	Delay time.Duration

	// DelayOf gives the Delay of one peer, instead of Delay, when the peer is asked: a quantile of the latencies observed,
	// say. 0 or less: that peer is not hedged against while it is out. It is called on the goroutine that called
	// Broadcast.
	DelayOf func(PeerID) time.Duration

	// Budget bounds how many standbys are asked, over all queries that share it. When it doesn't suffice for all that are
	// needed in the place of a late peer, none is asked, and it is tried again after another Delay; in the place of a
	// failed peer, as many as it lets. nil: as many as it takes.
	Budget *Budget
}

func (h *Hedging) delayOf(peer PeerID) time.Duration {
	switch {
	case h == nil:
		return 0
	case h.DelayOf != nil:
		return h.DelayOf(peer)
	}
	return h.Delay
}

// Budget bounds extra probes to a share of the ordinary ones, over time and over many queries: each ordinary probe of a
// query that has standbys pays in a share of a probe, each extra one takes out a whole. So a few slow peers are hedged
// against, but a slow cluster, where all would be, is not flooded. It is a token bucket that fills by requests and not
// by time, as the retry budgets of Finagle and gRPC do.
//
// A Budget is safe for concurrent use. Make one with [NewBudget].
type Budget struct {
	share, most int64        // in millionths of a probe
	left        atomic.Int64 // likewise
}

const budgetUnit = 1_000_000

// NewBudget returns a Budget of extra probes for a share of the ordinary ones, 0.05 for one in twenty. It holds at most
// burst extra probes, which it has from the start, so that the first queries can hedge too; burst should be several
// times what one query pays in, share times the peers it asks, for what is paid in beyond it is lost. A share or burst
// below 0 counts as 0.
func NewBudget(share float64, burst int) *Budget {
	const most = 1 << 40 // more than can ever be needed, and far from what overflows
	if !(share > 0) {    // NaN too
		share = 0
	}
	b := &Budget{
		share: int64(min(share, most) * budgetUnit),
		most:  min(int64(max(burst, 0)), most) * budgetUnit,
	}
	b.left.Store(b.most)
	return b
}

// Left returns how many extra probes could be sent now.
func (b *Budget) Left() float64 { return float64(b.left.Load()) / budgetUnit }

// pay pays in for one ordinary probe. It does nothing on a nil Budget.
func (b *Budget) pay() {
	if b != nil {
		b.add(b.share)
	}
}

// giveBack undoes take for n extra probes that were not sent after all. It does nothing on a nil Budget.
func (b *Budget) giveBack(n int) {
	if b != nil {
		b.add(int64(n) * budgetUnit)
	}
}

func (b *Budget) add(n int64) {
	for {
		left := b.left.Load()
		if left == b.most || b.left.CompareAndSwap(left, min(left+n, b.most)) {
			return
		}
	}
}

// take takes out extra probes and returns how many: all of want if there are so many, or else, if some is true, those
// there are. A nil Budget has no bound.
func (b *Budget) take(want int, some bool) int {
	if b == nil {
		return want
	}
	for {
		left := b.left.Load()
		n := min(int64(want), left/budgetUnit)
		if n < int64(want) && !some {
			n = 0
		}
		if n == 0 || b.left.CompareAndSwap(left, left-n*budgetUnit) {
			return int(n)
		}
	}
}

// selection is whom a query asks and who stands by, by their numbers in its Cover.
type selection struct {
	numbers []int32 // by peer of the ledger; -1: it is not on the ring
	ready   bitset  // standbys that are not asked yet
	hoped   bitset  // who is asked, and has answered or may soon
	minimal bool    // it takes an answer of each of the first peers, if of nobody else, to make the whole
	whole   bool    // answers of all the first peers make the whole
}

// of makes s the selection of these peers.
func (s *selection) of(cover *Cover, peers []PeerReport, standby []PeerID) {
	words := bitsetWords(len(cover.index))
	s.numbers, s.ready, s.hoped = s.numbers[:0], zeroed(s.ready, words), zeroed(s.hoped, words)
	s.minimal, s.whole = false, false
	for _, peer := range standby {
		if number := cover.number(peer); number >= 0 { // who holds nothing can't stand in for anybody
			s.ready.add(number)
		}
	}
	for _, peer := range peers {
		number := cover.number(peer.Peer)
		s.numbers = append(s.numbers, number)
		if number >= 0 {
			s.ready.remove(number)
			s.hoped.add(number)
		}
	}
}

// copy makes s a copy of another selection, in memory of its own.
func (s *selection) copy(of *selection) {
	s.numbers = append(s.numbers[:0], of.numbers...)
	s.ready, s.hoped = append(s.ready[:0], of.ready...), append(s.hoped[:0], of.hoped...)
	s.minimal, s.whole = of.minimal, of.whole
}

// coverRoom is memory for what a Coordinator needs with a Cover. It may have served another query.
type coverRoom struct {
	coverage  coverage
	standbys  standbys
	selection selection
	hedges    []hedgePlan
}

// useCover has the Coordinator keep account of what has an answer, and of who can stand in for whom.
func (c *Coordinator[H, ID]) useCover(opts *Options) {
	if c.room == nil {
		c.room = new(coverRoom)
	}
	r := c.room
	r.coverage.begin(opts.Cover, c.settle > 0)
	c.coverage, c.selection = &r.coverage, &r.selection
	if opts.selection != nil {
		r.selection.copy(opts.selection)
	} else {
		r.selection.of(opts.Cover, c.peers, opts.Standby)
	}
	c.least = opts.Cover.fewest
	if r.selection.minimal {
		c.least = len(c.peers)
	}
	if len(opts.Standby) > 0 {
		c.standbys = &r.standbys
		c.standbys.hedging, c.standbys.selection = opts.Hedging, &r.selection
		r.hedges = zeroed(r.hedges, len(c.peers))
		c.hedges = r.hedges
	}
}

// whole reports whether each range has an answer. If all have answered, a selection made beforehand knows.
func (c *Coordinator[H, ID]) whole() bool {
	if c.selection.whole && c.answered == len(c.peers) {
		c.coverage.close()
		return true
	}
	return c.coverage.whole()
}

// planHedge sees to it that the peer just asked is hedged against if it is late.
func (c *Coordinator[H, ID]) planHedge(ctl *Control[State, *Event[H]], i int) {
	if c.standbys == nil {
		return
	}
	if c.peers[i].Role == Primary {
		c.standbys.hedging.budget().pay()
	}
	if delay := c.standbys.hedging.delayOf(c.peers[i].Peer); delay > 0 {
		c.hedges[i] = hedgePlan{delay, c.askedAt(i).Add(delay)}
		c.armHedge(ctl, c.hedges[i].at)
	}
}

// hedgePlan is when a peer is hedged against, and after how long that is. The zero hedgePlan is never, or done.
type hedgePlan struct {
	delay time.Duration
	at    time.Time
}

// armHedge has hedge be called at a time, if it isn't earlier.
func (c *Coordinator[H, ID]) armHedge(ctl *Control[State, *Event[H]], at time.Time) {
	if c.hedgeAt.IsZero() || at.Before(c.hedgeAt) {
		c.hedgeAt = at
		ctl.Timeout("hedge", at.Sub(ctl.Now()), &Event[H]{Kind: hedgeDue})
	}
}

// hedge has standbys asked for what the peers are late with whose delay is over.
func (c *Coordinator[H, ID]) hedge(ctl *Control[State, *Event[H]]) {
	now := ctl.Now()
	c.hedgeAt = time.Time{}
	for i, plan := range c.hedges {
		if plan.at.IsZero() || c.peers[i].Status != asking {
			continue
		}
		if !plan.at.After(now) {
			if c.replace(i, Hedge) { // which may move c.hedges
				c.hedges[i] = hedgePlan{}
				continue
			}
			plan.at = now.Add(plan.delay) // for want of budget
			c.hedges[i] = plan
		}
		c.armHedge(ctl, plan.at)
	}
}

// unneeded takes a standby that is next to be asked out of the ledger again if what it was to be asked for has been
// answered, or may be by others, while it waited for its turn. It returns whether it did.
func (c *Coordinator[H, ID]) unneeded(i int) bool {
	if c.peers[i].Role == Primary {
		return false
	}
	number := c.selection.numbers[i]
	c.standbys.hoped.remove(number)
	for _, slot := range c.coverage.slotsOf(number) {
		if of := c.coverage.of(slot); !c.coverage.answered.any(of) && !c.standbys.hoped.any(of) {
			c.standbys.hoped.add(number)
			return false
		}
	}
	c.standbys.ready.add(number)
	c.standbys.hedging.budget().giveBack(1)
	c.peers = slices.Delete(c.peers, i, i+1)
	c.lists = slices.Delete(c.lists, i, i+1)
	c.selection.numbers = slices.Delete(c.selection.numbers, i, i+1)
	c.hedges = slices.Delete(c.hedges, i, i+1)
	return true
}

// replace has standbys asked, as role, for what peer i was asked for alone. It returns false if the budget was too
// small.
func (c *Coordinator[H, ID]) replace(i int, role Role) bool {
	if c.standbys == nil || c.selection.numbers[i] < 0 {
		return true
	}
	numbers, ok := c.standbys.replacements(c.coverage, c.selection.numbers[i], role == Fallback)
	for _, number := range numbers {
		c.peers = append(c.peers, PeerReport{Peer: c.coverage.ring.peers[number], Role: role})
		c.lists = append(c.lists, nil)
		c.hedges = append(c.hedges, hedgePlan{})
		c.selection.numbers = append(c.selection.numbers, number)
	}
	if len(numbers) > 0 {
		c.least = c.coverage.fewest
	}
	return ok
}

// report returns what became of a peer of the Cover.
func (c *Coordinator[H, ID]) report(number int32) PeerReport {
	if i := slices.Index(c.selection.numbers, number); i >= 0 {
		return c.peers[i]
	}
	report := PeerReport{Peer: c.coverage.ring.peers[number], Status: Dead}
	if c.standbys != nil && c.standbys.ready.has(number) {
		report.Status = NotAsked
	}
	return report
}

// standbys is what a Coordinator knows of who can be asked in another's place.
type standbys struct {
	*selection
	hedging *Hedging
	gain    []float64 // scratch, by the peer's number: tokens; all together they are one too many for a uint64
	open    []int32   // scratch: slots
}

// replacements returns who is to be asked now that nothing is hoped for of a peer: standbys that hold what it was asked
// for and nobody else may soon answer, those first that hold most of that. If the budget lets only some of them be
// asked, those are the first, or nobody unless some is true; ok is false then.
func (s *standbys) replacements(c *coverage, peer int32, some bool) (chosen []int32, ok bool) {
	s.hoped.remove(peer)
	s.open = s.open[:0]
	for _, slot := range c.slotsOf(peer) {
		if of := c.of(slot); !s.hoped.any(of) && !c.answered.any(of) {
			s.open = append(s.open, slot)
		}
	}
	for len(s.open) > 0 {
		best := s.best(c)
		if best < 0 {
			break
		}
		chosen = append(chosen, best)
		s.ready.remove(best)
		s.hoped.add(best)
		rest := s.open[:0]
		for _, slot := range s.open {
			if !s.hoped.any(c.of(slot)) {
				rest = append(rest, slot)
			}
		}
		s.open = rest
	}
	n := s.hedging.budget().take(len(chosen), some)
	for _, best := range chosen[n:] {
		s.ready.add(best)
		s.hoped.remove(best)
	}
	return chosen[:n], n == len(chosen)
}

// best returns the standby that holds most of s.open, by tokens, or -1 if none holds any. Of equals it is the first.
func (s *standbys) best(c *coverage) int32 {
	if len(s.gain) < len(c.index) {
		s.gain = make([]float64, len(c.index)) // all 0, as it is left below
	}
	best := int32(-1)
	for _, slot := range s.open {
		hi, lo := c.width(slot)
		for _, peer := range c.of(slot) {
			if s.ready.has(peer) {
				s.gain[peer] += float64(hi)*(1<<64) + float64(lo)
			}
		}
	}
	for _, slot := range s.open {
		for _, peer := range c.of(slot) {
			if gain := s.gain[peer]; gain > 0 && (best < 0 || gain > s.gain[best] || gain == s.gain[best] && peer < best) {
				best = peer
			}
		}
	}
	for _, slot := range s.open {
		for _, peer := range c.of(slot) {
			s.gain[peer] = 0
		}
	}
	return best
}

func (h *Hedging) budget() *Budget {
	if h == nil {
		return nil
	}
	return h.Budget
}
