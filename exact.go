package scatter

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"
)

// exact returns how many of the leading hits no unseen hit of a peer that has Answered can precede.
// Rule 43. It costs O(peers + log hits).
func (l *ledger[H, ID]) exact(hits []H, order Order) int {
	var limit Hit[ID]
	limited := false
	for i := range l.peers {
		p := &l.peers[i]
		if p.report.Status != Answered || !p.unseen.more {
			continue
		}
		if p.unseen.vague {
			return 0
		}
		if last := p.unseen.last.hit(); !limited || compareHits(last, limit, order) < 0 {
			limit, limited = last, true
		}
	}
	if !limited {
		return len(hits)
	}
	return countUpTo(hits, limit, order)
}

// nextCursor returns the cursor of a Response that has everything else. Rule 46.
func (l *ledger[H, ID]) nextCursor(r *Response[H], want *wanted[ID], after Cursor) Cursor {
	if r.Coverage == 1 && r.Exact == len(r.Hits) && !l.hasMore(r.Hits, want) {
		return ""
	}
	switch {
	case r.Exact > 0:
		return newCursor(r.Hits[r.Exact-1].hit(), want.order)
	case after != "":
		return after
	}
	return startCursor(want.order)
}

// hasMore reports whether there may be hits beyond the given ones: unseen, or known and cut off.
func (l *ledger[H, ID]) hasMore(hits []H, want *wanted[ID]) bool {
	for i := range l.peers {
		p := &l.peers[i]
		switch {
		case p.report.Status == Outranked, p.unseen.more:
			return true
		case len(hits) < want.k || len(p.hits) == 0:
		case compareHits(p.hits[len(p.hits)-1].hit(), hits[want.k-1].hit(), want.order) > 0:
			return true
		}
	}
	return false
}

// planRefill sets which peers are to be asked a second time, and for how many more hits: those
// whose unseen hits could be among the k best. It returns false if there are none. Rule 44.
//
// A peer whose last hit is at place p of all known distinct hits may have k - p unseen ones among
// the k best, and no more: once it has given them, all of them and the p up to its last make k.
func (l *ledger[H, ID]) planRefill(want *wanted[ID]) bool {
	known, _ := l.known(want.k, want.order)
	l.queue = []int32{}
	for i := range l.peers {
		p := &l.peers[i]
		if p.report.Status != Answered || !p.unseen.more || p.unseen.vague {
			continue
		}
		if place := countUpTo(known, p.unseen.last.hit(), want.order); place < want.k {
			p.refill, p.phase = want.k-place, waiting
			p.unitSince, p.hedgeAt = time.Time{}, time.Time{} // those of the first question
			l.waiting++
			l.queue = append(l.queue, int32(i))
		}
	}
	return l.waiting > 0
}

// refillRequest returns the request for the second question to a peer.
func (p *peer[H]) refillRequest(first *Request) *Request {
	req := *first
	req.K, req.Skip = p.unseen.given+p.refill, p.unseen.given
	return &req
}

// takeRefill adds the reply to a second question. Rules 44 and 45.
func (l *ledger[H, ID]) takeRefill(p *peer[H], r *reply[H], want *wanted[ID]) {
	if r.status != Answered && r.status != Incomplete {
		return
	}
	before := len(p.hits)
	whole := r.given > 0 && compareHits(r.first.hit(), p.unseen.last.hit(), want.order) <= 0
	switch {
	case !whole: // the probe has heeded Skip
		p.hits = slices.Concat(p.hits, r.hits)
	case l.beginsWith(r.hits, p.hits, want):
		p.hits = r.hits
	default: // the peer contradicts itself: both lists count, and nothing is certain
		p.hits = sortedCopy(slices.Concat(p.hits, r.hits), want.order)
		p.unseen.more, p.unseen.vague = true, true
	}
	p.hits = p.hits[:distinctPrefix(p.hits, want.k, want.order)]
	p.report.Refilled = max(len(p.hits)-before, 0)
	p.report.Hits = len(p.hits)
	p.report.Unsorted = p.report.Unsorted || r.unsorted
	if p.unseen.vague || r.status == Incomplete { // what was certain before remains so
		return
	}
	all := *r
	if !whole {
		all.given += p.unseen.given
	}
	if all.given == p.unseen.given {
		all.last = p.unseen.last
	}
	p.unseen = unseenAfter(&all, p.unseen.given+p.refill)
}

// beginsWith reports whether a sorted list begins with another.
func (l *ledger[H, ID]) beginsWith(list, other []H, want *wanted[ID]) bool {
	if len(list) < len(other) {
		return false
	}
	for i := range other {
		if compareHits(list[i].hit(), other[i].hit(), want.order) != 0 {
			return false
		}
	}
	return true
}

// orderByBounds sorts the peers that wait by their bounds, those without one first. Rule 47.
func (l *ledger[H, ID]) orderByBounds(order Order) {
	queue := make([]int32, 0, len(l.peers))
	for i := range l.line() {
		queue = append(queue, int32(i))
	}
	slices.SortStableFunc(queue, func(a, b int32) int {
		x, y := &l.peers[a], &l.peers[b]
		switch {
		case x.bounded && y.bounded:
			return cmp.Compare(scoreKey(x.bound, order), scoreKey(y.bound, order))
		case x.bounded:
			return 1
		case y.bounded:
			return -1
		}
		return 0
	})
	l.queue = queue
}

// isOutranked reports whether no hit of a peer can be among the k best, given all that are known.
// An equal score may be, by its ID.
func (l *ledger[H, ID]) isOutranked(p *peer[H], want *wanted[ID]) bool {
	if !p.bounded {
		return false
	}
	if !l.kthKnown {
		l.kthKnown, l.kth = true, math.MaxUint32
		if known, _ := l.known(want.k, want.order); len(known) == want.k {
			l.kth = scoreKey(known[want.k-1].hit().Score, want.order)
		}
	}
	return scoreKey(p.bound, want.order) > l.kth
}

// countBefore returns how many of the sorted hits rank before every hit with a score.
func countBefore[H Ranked[ID], ID cmp.Ordered](hits []H, score float32, order Order) int {
	return sort.Search(len(hits), func(i int) bool {
		return scoreKey(hits[i].hit().Score, order) >= scoreKey(score, order)
	})
}

// exceedsBound reports whether a peer's best hit ranks before its bound.
func exceedsBound[H Ranked[ID], ID cmp.Ordered](p *peer[H], hits []H, order Order) bool {
	return p.bounded && len(hits) > 0 &&
		scoreKey(hits[0].hit().Score, order) < scoreKey(p.bound, order)
}

// SpreadK returns an Options.PeerK for documents that are placed at random, by a hash of their IDs
// say: with probability p none of the k best is left out at first. 0.9999 is a good p. It is the
// formula that Vespa uses for its top-k-probability: with n peers, k/n + t sqrt(k/n (1 - 1/n)), t
// being the quantile 1 - (1-p)/n of Student's distribution with 30 degrees of freedom.
//
// With a p of 1 or more, each peer is asked for k. A p of 0 or less counts as 0, a NaN as 1.
func SpreadK(p float64) func(k, peers int) int {
	return func(k, peers int) int {
		if peers <= 1 || !(p < 1) {
			return k
		}
		n := float64(peers)
		share := float64(k) / n
		t := studentQuantile(1 - (1-max(p, 0))/n)
		return min(k, max(1, int(math.Ceil(share+t*math.Sqrt(share*(1-1/n))))))
	}
}

// studentQuantile returns the q-quantile of Student's distribution with 30 degrees of freedom, by
// its expansion in powers of 1/30 from the normal one (Abramowitz and Stegun, 26.7.5).
func studentQuantile(q float64) float64 {
	const v = 30
	z := math.Sqrt2 * math.Erfinv(2*q-1)
	z2 := z * z
	g1 := z * (z2 + 1) / 4
	g2 := z * ((5*z2+16)*z2 + 3) / 96
	g3 := z * (((3*z2+19)*z2+17)*z2 - 15) / 384
	g4 := z * ((((79*z2+776)*z2+1482)*z2-1920)*z2 - 945) / 92160
	return z + g1/v + g2/(v*v) + g3/(v*v*v) + g4/(v*v*v*v)
}
