package scatter

import (
	"cmp"
	"slices"
	"time"
)

// chooseOptions say how the peers of one query are chosen.
type chooseOptions struct {
	affinity string               // if not empty, its hash decides, and costs don't matter
	cost     func(PeerID) float64 // a factor of each peer's cost; if nil, 1
	spawn    func(func())         // runs the making of plans; if nil, the query makes them itself
}

const (
	// evenLeast and evenMost bound what an uneven load can make up for, as a factor of what a peer
	// should have been asked over what it was asked.
	evenLeast, evenMost = 0.8, 1.25

	// busyUnknown is the factor of the weight of a peer of which nothing is known but that a probe
	// is in flight, and ill that of a peer on probation as a standby: other peers come first.
	busyUnknown, ill = 1e-30, 1e-60
)

// choose chooses the peers that a query asks first, among the live ones. If live is nil, all are
// live.
//
// It costs O(ranges x holders). With many ranges, it costs O(peers) and what has to be repaired in
// a plan made before. Rule 26.
func (l *loads) choose(now time.Time, live bitset, o chooseOptions) choice {
	c, plan := l.chooseOrPlan(now, live, l.factors(o.cost), o.affinity)
	switch {
	case plan == nil:
	case o.spawn != nil:
		o.spawn(plan)
	default:
		plan()
	}
	return c
}

// chooseOrPlan chooses. It returns a function that makes a plan for later queries, or nil.
func (l *loads) chooseOrPlan(now time.Time, live bitset, factors []float64, affinity string) (choice, func()) {
	l.shared.Lock()
	defer l.shared.Unlock()
	at := l.shared.at(now)
	if live == nil {
		live = l.all
	}
	l.turn++
	l.age()
	if l.turn >= l.medianDue {
		l.findMedian()
	}
	if l.plans != nil {
		return l.choosePlan(at, live, factors, affinity)
	}
	l.setLive(live, len(l.peers))
	l.weigh(at, l.weights, live, factors, 1)
	s := &l.sweep
	trial := int32(-1)
	if affinity != "" {
		trial = l.sweepAffinity(at, affinity)
	} else {
		s.begin()
		if trial = l.dueTrial(at, live); trial >= 0 {
			l.weights[trial] = -l.weights[trial] // as if it were healthy
			s.take(trial)
		}
		s.fill(l.weights, s.drawRange(mix(l.seed^l.turn)))
		s.prune(l.weights)
	}
	c := s.choice()
	if trial >= 0 && s.chosen.has(trial) {
		c.trials = []int32{trial}
		l.peers[trial].try()
	}
	return c, nil
}

// choosePlan chooses by a plan made before. It returns a function that makes a plan for later
// queries, or nil.
func (l *loads) choosePlan(at time.Duration, live bitset, factors []float64, affinity string) (choice, func()) {
	now := planPeers{
		live:      live,
		changes:   l.shared.changes,
		probation: func(peer int32) bool { return l.peers[peer].probation },
		dear:      func(peer int32) bool { return l.typical(at, l.peers[peer]) >= planDear*l.median },
		weight: func(peer int32) float64 {
			p, cost := l.peers[peer], l.typical(at, l.peers[peer])
			if factors != nil {
				cost *= factors[peer]
			}
			return l.weightOf(peer, p, cost, l.sumAsked/l.sumFair)
		},
		weigh: func(weights []float64, queries int) {
			l.setLive(live, planFlips)
			l.weigh(at, weights, live, factors, float64(queries))
		},
	}
	var p *plan
	var job func()
	trial := l.dueTrial(at, live)
	if affinity != "" {
		p, job = l.plans.affinePlan(now, hashText(affinity))
		if trial >= 0 && !p.coverage.hoped.has(trial) {
			trial = -1
		}
	} else {
		p, job = l.plans.next(now, l.turn, mix(l.seed^l.turn))
	}
	if trial >= 0 {
		l.peers[trial].try()
	}
	return p.choice(trial), job
}

// factors returns the caller's cost factor of each peer, or nil if all are 1. It runs the caller's
// code, so it is called without the lock.
func (l *loads) factors(cost func(PeerID) float64) []float64 {
	if cost == nil {
		return nil
	}
	factors := make([]float64, len(l.cover.peers))
	for i, peer := range l.cover.peers {
		factors[i] = costFactor(cost, peer)
	}
	return factors
}

// costFactor returns a factor of which others can be computed, whatever the caller returns.
func costFactor(cost func(PeerID) float64, peer PeerID) float64 {
	if cost == nil {
		return 1
	}
	factor := cost(peer)
	if !(factor > 0) { // NaN is not
		return 1
	}
	return min(max(factor, 1e-6), 1e6)
}

// weigh sets the weight of each peer: of two with equal gain the one with the greater weight is
// chosen. It is 0 if the peer is dead, and negative if it is on probation. Rules 34, 35.
//
// It also adds to what each peer should have been asked: in proportion to what it holds, and to the
// square of how cheap it is. If the costs didn't count there, the peers that are dear now would be
// asked all the same, to make their counts even. choices is how many choices the weights are for.
func (l *loads) weigh(at time.Duration, weights []float64, live bitset, factors []float64, choices float64) {
	scale := l.sumAsked / l.sumFair
	for i, p := range l.peers {
		if !live.has(int32(i)) {
			weights[i] = 0
			continue
		}
		cost := l.typical(at, p)
		if factors != nil {
			cost *= factors[i]
		}
		cheap := min(max(l.median/cost, 1e-3), 1e3)
		due := choices * l.unit * l.held[i] * cheap * cheap
		l.fair[i] += due
		l.sumFair += due
		weights[i] = l.weightOf(int32(i), p, cost, scale)
		if p.probation {
			weights[i] = -weights[i]
		}
	}
}

// weightOf returns (fair / asked)^4 / cost. scale is the sum of all asked over that of all fair.
// Rule 35.
func (l *loads) weightOf(peer int32, p *load, cost, scale float64) float64 {
	even := min(max(l.fair[peer]*scale/l.asked[peer], evenLeast), evenMost)
	even *= even
	w := even * even / (cost * float64(1+max(p.inFlight, 0)))
	if p.average == 0 && p.inFlight > 0 {
		w *= busyUnknown
	}
	return w
}

// weight returns how much a peer is to be preferred as a standby. It is above 0.
func (l *loads) weight(now time.Time, peer int32, o chooseOptions) float64 {
	factor := costFactor(o.cost, l.cover.peers[peer])
	l.shared.Lock()
	defer l.shared.Unlock()
	p, w := l.peers[peer], 0.0
	if o.affinity != "" {
		w = affinityWeight(hashText(o.affinity), l.names[peer])
	} else {
		w = l.weightOf(peer, p, l.typical(l.shared.at(now), p)*factor, l.sumAsked/l.sumFair)
	}
	if p.probation {
		w *= ill
	}
	return max(w, 1e-200)
}

// dueTrial returns a live peer on probation whose trial is due, or -1. Of several it is the one
// that is due for longest. A query tries one. Rule 36.
func (l *loads) dueTrial(at time.Duration, live bitset) int32 {
	due := int32(-1)
	if l.shared.onProbation == 0 {
		return due
	}
	for i, p := range l.peers {
		if p.probation && live.has(int32(i)) && p.trialDue(at) &&
			(due < 0 || p.failed+p.delay < l.peers[due].failed+l.peers[due].delay) {
			due = int32(i)
		}
	}
	return due
}

// sweepAffinity chooses by a text: the peers that all healthy ones would give, and others only in
// the place of those that are dead or on probation. It takes over l.weights. It returns a peer
// that is to be tried, or -1.
func (l *loads) sweepAffinity(at time.Duration, affinity string) (trial int32) {
	s, h := &l.sweep, hashText(affinity)
	weights := make([]float64, len(l.peers))
	for i, name := range l.names {
		weights[i] = affinityWeight(h, name)
	}
	from, _ := slices.BinarySearch(l.cover.ends, mix(h))
	s.begin()
	s.fill(weights, from%len(l.cover.ends))
	s.prune(weights)

	trial = -1
	lacks := false
	for i := range weights {
		switch healthy := l.weights[i] > 0; {
		case healthy:
		case l.weights[i] < 0 && s.chosen.has(int32(i)) && trial < 0 && l.peers[i].trialDue(at):
			trial = int32(i)
		case l.weights[i] < 0:
			weights[i] = -weights[i]
			lacks = lacks || s.chosen.has(int32(i))
		default:
			weights[i] = 0
			lacks = lacks || s.chosen.has(int32(i))
		}
	}
	if lacks {
		kept := slices.Clone(s.order)
		s.begin()
		for _, peer := range kept {
			if weights[peer] > 0 {
				s.take(peer)
			}
		}
		s.fill(weights, from%len(l.cover.ends))
		s.prune(weights)
	}
	return trial
}

// standIns returns the ready peers to be asked for open ranges, the most useful first: the one with
// the best product of weight and open ranges, and then the same for what is left. Ties go round by
// turn. Ranges that no ready peer holds are left open. Rules 35, 39.
func standIns(c *Cover, open []int32, ready bitset, weight func(int32) float64, turn uint64) []int32 {
	type candidate struct {
		peer   int32
		gain   int
		weight float64
	}
	var holders []int32
	for _, r := range open {
		for _, peer := range c.holdersOf(r) {
			if ready.has(peer) {
				holders = append(holders, peer)
			}
		}
	}
	slices.Sort(holders)
	var list []candidate // by peer
	for i, peer := range holders {
		if i == 0 || peer != holders[i-1] {
			list = append(list, candidate{peer: peer, weight: weight(peer)})
		}
		list[len(list)-1].gain++
	}
	at := func(peer int32) *candidate {
		i, _ := slices.BinarySearchFunc(list, peer, func(c candidate, peer int32) int { return cmp.Compare(c.peer, peer) })
		return &list[i]
	}
	var chosen []int32
	open = slices.Clone(open)
	for len(list) > 0 {
		best, most := int32(-1), 0.0
		for i := range list {
			if c := &list[(uint64(i)+turn)%uint64(len(list))]; float64(c.gain)*c.weight > most {
				best, most = c.peer, float64(c.gain)*c.weight
			}
		}
		if best < 0 {
			break
		}
		chosen = append(chosen, best)
		open = slices.DeleteFunc(open, func(r int32) bool {
			holders := c.holdersOf(r)
			if !slices.Contains(holders, best) {
				return false
			}
			for _, peer := range holders {
				if ready.has(peer) {
					at(peer).gain--
				}
			}
			return true
		})
	}
	return chosen
}
