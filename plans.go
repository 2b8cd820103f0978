package scatter

import (
	"math/bits"
	"slices"
	"sync"
)

const (
	planRanges = 2048 // with more ranges than that, plans are made ahead
	planKept   = 4    // plans that are handed out in turn
	planServes = 32   // a new plan is made once those kept have served so many queries
	planAffine = 8    // plans that texts of affinity are spread over
	planDear   = 8    // a peer is dear from so many times the median on
	planSwaps  = 16   // dear peers replaced in one query
	planFlips  = 64   // peers whose share is adapted for one plan, as they come and go
)

// plans are choices made ahead, for a Cover with many ranges. A plan serves many queries. Plans
// with fresh costs are made in the background. Until one is ready, a query repairs the plan that it
// is given: it chooses anew only for the ranges of peers that are no longer good. It then asks a
// few peers more than needed.
//
// The caller holds the lock when it calls next or affinePlan. The functions that they return take
// the lock themselves, for a short time.
type plans struct {
	lock    sync.Locker
	names   []uint64 // hashes of the peers' names
	kept    []*plan
	oldest  int           // of kept
	served  int           // queries since the last of them was made
	affine  []*affinePlan // by hash of the text; nil until first wanted
	running bool          // a plan is being made

	mender  sweep     // scratch of repair
	gains   []float64 // likewise: weights times gains
	planner sweep     // scratch of the making of a plan, which runs without the lock
	weights []float64 // likewise
}

// planPeers is what a query tells plans about the peers. Its functions are called with the lock
// held.
type planPeers struct {
	live      bitset
	changes   uint64                   // how often a peer came to be on probation or ceased to
	probation func(peer int32) bool    // the peer is on probation
	dear      func(peer int32) bool    // the peer costs planDear times the median or more
	weight    func(peer int32) float64 // of a live peer, whether on probation or not

	// weigh sets the weights for a sweep. They are for as many queries as the next plan is expected
	// to serve.
	weigh func(weights []float64, queries int)
}

// plan is a choice that serves many queries.
type plan struct {
	coverage *coverage
	size     int    // peers
	live     bitset // the live peers that it is for
	settled  bitset // peers on probation, or dear, for which there was nobody better
}

// affinePlan is a plan for texts of affinity. It goes back to base when its peers get well.
type affinePlan struct {
	base     *plan
	repaired *plan
	changes  uint64 // of probation, when it was repaired
}

// newPlans makes the first plan, in which all peers are live and cost the same. It takes
// O(ranges x holders). The lock need not be held.
func newPlans(cover *Cover, names []uint64, lock sync.Locker) *plans {
	n := len(cover.peers)
	ps := &plans{
		lock: lock, names: names, gains: make([]float64, n), weights: make([]float64, n),
		affine: make([]*affinePlan, planAffine),
	}
	ps.mender.init(cover)
	ps.planner.init(cover)
	ps.affine[0] = ps.makeAffine(0)
	ps.kept = []*plan{ps.affine[0].base.clone()}
	return ps
}

// make makes a plan of ps.weights.
func (ps *plans) make(live bitset, from int) *plan {
	s := &ps.planner
	s.begin()
	s.fill(ps.weights, from)
	s.prune(ps.weights)
	return &plan{s.choice().coverage, len(s.order), live, newBitset(len(s.peers))}
}

// makeAffine makes the plan number i for texts of affinity. It depends on nothing but the Cover.
func (ps *plans) makeAffine(i int) *affinePlan {
	for peer, name := range ps.names {
		ps.weights[peer] = affinityWeight(uint64(i), name)
	}
	s := &ps.planner
	from, _ := slices.BinarySearch(s.ends, mix(uint64(i)))
	all := newBitset(len(s.peers))
	all.fill(len(s.peers))
	return &affinePlan{base: ps.make(all, from%len(s.ends))}
}

func (p *plan) clone() *plan {
	return &plan{p.coverage.clone(), p.size, slices.Clone(p.live), slices.Clone(p.settled)}
}

// choice returns a choice that the query owns. If trial is not -1, that peer is tried, even if it
// is one peer more than needed.
func (p *plan) choice(trial int32) choice {
	own := &plan{coverage: p.coverage.clone(), size: p.size}
	var trials []int32
	if trial >= 0 {
		trials = []int32{trial}
		if !own.coverage.hoped.has(trial) {
			own.hope(trial)
		}
	}
	return choice{peers: own.coverage.hoped.list(own.size), trials: trials, coverage: own.coverage}
}

// next returns the plan for a query. turn goes round the plans, and draw says where a new plan
// starts. It also returns a function that makes a new plan, or nil if none is due.
func (ps *plans) next(now planPeers, turn, draw uint64) (p *plan, job func()) {
	p = ps.kept[turn%uint64(len(ps.kept))]
	ps.served++
	due := ps.served >= planServes || len(ps.kept) < planKept || !slices.Equal(p.live, now.live)
	if due && !ps.running {
		job = ps.ahead(now, ps.planner.drawRange(draw))
	}
	ps.repair(p, now)
	return p, job
}

// ahead returns a function that makes a plan of what is known now.
func (ps *plans) ahead(now planPeers, from int) func() {
	ps.running = true
	now.weigh(ps.weights, ps.served)
	ps.served = 0
	live := now.live.clone()
	return func() {
		p := ps.make(live, from)
		ps.lock.Lock()
		defer ps.lock.Unlock()
		ps.running = false
		if len(ps.kept) < planKept {
			ps.kept = append(ps.kept, p)
			return
		}
		ps.kept[ps.oldest] = p
		ps.oldest = (ps.oldest + 1) % planKept
	}
}

// affinePlan returns the plan for a text. If that plan is not made yet, another one serves. It then
// also returns a function that makes the plan, unless one is being made.
func (ps *plans) affinePlan(now planPeers, text uint64) (p *plan, job func()) {
	number := int(text % planAffine)
	a := ps.affine[number]
	if a == nil {
		a = ps.affine[0]
		if !ps.running {
			ps.running = true
			job = func() {
				made := ps.makeAffine(number)
				ps.lock.Lock()
				defer ps.lock.Unlock()
				ps.running, ps.affine[number] = false, made
			}
		}
	}
	if a.repaired == nil || a.changes != now.changes || !slices.Equal(a.repaired.live, now.live) {
		a.repaired, a.changes = a.base.clone(), now.changes
		now.dear = func(int32) bool { return false }
		now.weight = func(peer int32) float64 { return affinityWeight(uint64(number), ps.names[peer]) }
		ps.repair(a.repaired, now)
	}
	return a.repaired, job
}

// repair chooses anew for the ranges of the plan's peers that are dead, on probation or dear, and
// for ranges that had no live holder and have one now.
func (ps *plans) repair(p *plan, now planPeers) {
	open := p.release(p.reopen(now.live), now)
	if len(open) == 0 {
		return
	}
	s := &ps.mender
	s.begin()
	s.covered.fill(len(s.ends))
	for _, r := range open {
		s.covered.remove(r)
	}
	ps.weighGains(open, now)
	s.gainsCounted = true
	for _, r := range open {
		if !s.covered.has(r) {
			s.fillRange(r, ps.gains)
		}
	}
	s.gainsCounted = false
	s.fillDeferred(ps.gains)
	for _, peer := range s.order {
		p.hope(peer)
	}
}

// weighGains sets the gains of the holders of open ranges. The number of a peer's open ranges is
// counted once. Counting it anew for each range takes too long.
func (ps *plans) weighGains(open []int32, now planPeers) {
	s := &ps.mender
	for _, r := range open {
		for _, peer := range s.holdersOf(r) {
			ps.gains[peer] = 0
		}
	}
	for _, r := range open {
		for _, peer := range s.holdersOf(r) {
			switch {
			case !now.live.has(peer):
			case now.probation(peer):
				ps.gains[peer] -= now.weight(peer)
			default:
				ps.gains[peer] += now.weight(peer)
			}
		}
	}
}

// release takes the peers that are dead, on probation or dear out of the plan. It appends to open
// the ranges that no other peer of the plan holds.
func (p *plan) release(open []int32, now planPeers) []int32 {
	c, swaps := p.coverage, 0
	for word, set := range c.hoped {
		for ; set != 0; set &= set - 1 {
			peer := int32(word*64 + bits.TrailingZeros64(set))
			switch {
			case !now.live.has(peer):
			case p.settled.has(peer):
				continue
			case now.probation(peer):
				p.settled.add(peer)
			case swaps < planSwaps && now.dear(peer):
				p.settled.add(peer)
				swaps++
			default:
				continue
			}
			open = c.appendOnlyHope(open, peer)
			c.lose(peer)
			p.size--
		}
	}
	return open
}

// reopen makes p a plan for the live peers, and returns the ranges that were lost and have a live
// holder now.
func (p *plan) reopen(live bitset) (open []int32) {
	if slices.Equal(p.live, live) {
		return nil
	}
	copy(p.live, live)
	for word, set := range p.coverage.lost {
		for ; set != 0; set &= set - 1 {
			if r := int32(word*64 + bits.TrailingZeros64(set)); live.hasAny(p.coverage.holdersOf(r)) {
				open = append(open, r)
			}
		}
	}
	return open
}

// hope adds a peer to the plan.
func (p *plan) hope(peer int32) {
	p.coverage.hope(peer)
	p.size++
}
