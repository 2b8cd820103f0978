package scatter

import (
	"math"
	"sync/atomic"
	"time"
)

// hedger decides which standbys are asked in the place of peers that fail or are late, in one
// query.
type hedger struct {
	*coverage
	ready  bitset              // live peers that are neither chosen nor asked
	late   bitset              // peers that were hedged against: nothing soon is hoped for from them
	weight func(int32) float64 // how much a standby is preferred
	// useful reports whether a standby may be expected to answer sooner than a peer that was waited
	// for so long. If nil, every one is.
	useful func(now time.Time, standby int32, waited time.Duration) bool
	turn   uint64 // moves ties among standbys from query to query
	purses *purses
	delay  time.Duration // how long a peer may take; zero: peers are not hedged against
	open   []int32       // scratch
}

// openWithout returns the ranges of a peer that need an answer and for which no other peer, asked
// or to be asked, is hoped for soon. The slice is good until the next call.
func (h *hedger) openWithout(peer int32) []int32 {
	h.open = h.open[:0]
	for _, r := range h.rangesOf(peer) {
		if !h.covered.has(r) && !h.hopedSoon(peer, r) {
			h.open = append(h.open, r)
		}
	}
	return h.open
}

// hopedSoon reports whether a holder of a range other than peer is hoped for and isn't late.
func (h *hedger) hopedSoon(peer, r int32) bool {
	for _, other := range h.holdersOf(r) {
		if other != peer && h.hoped.has(other) && !h.late.has(other) {
			return true
		}
	}
	return false
}

// failed returns the standbys to ask in the place of a peer that gave no answer: as many as the
// purse of fallbacks allows, the most useful first. Rule 27.
func (h *hedger) failed(peer int32) []int32 {
	chosen := h.standIns(h.openWithout(peer))
	chosen = chosen[:h.purses.fallback.takeSome(len(chosen))]
	h.choose(chosen)
	h.quit(peer)
	return chosen
}

// overdue returns the standbys to ask because a peer takes long. It returns false if the purse of
// hedges doesn't allow all of them, or if one can't be expected to help: the others would cost
// probes and complete nothing. Rules 27 and 39.
func (h *hedger) overdue(now time.Time, peer int32, waited time.Duration) (chosen []int32, ok bool) {
	chosen = h.standIns(h.openWithout(peer))
	if h.useful != nil {
		for _, standby := range chosen {
			if !h.useful(now, standby, waited) {
				return nil, false
			}
		}
	}
	if !h.purses.hedge.takeAll(len(chosen)) {
		return nil, false
	}
	h.late.add(peer)
	h.choose(chosen)
	return chosen, true
}

func (h *hedger) standIns(open []int32) []int32 {
	if len(open) == 0 {
		return nil
	}
	return standIns(h.Cover, open, h.ready, h.weight, h.turn)
}

func (h *hedger) choose(standbys []int32) {
	for _, standby := range standbys {
		h.ready.remove(standby)
		h.hope(standby)
	}
}

// unneeded reports whether a standby that waits to be asked is not needed any more, because others
// have answered what it was chosen for, or may soon. It may be chosen again then.
func (h *hedger) unneeded(standby int32, role Role) bool {
	if len(h.openWithout(standby)) > 0 {
		return false
	}
	h.quit(standby)
	h.ready.add(standby)
	h.purses.of(role).giveBack()
	return true
}

// purses pay for the standbys of all queries of a Searcher. Failures and lateness have one each, so
// that hedges never cost an answer its completeness. Rule 39.
type purses struct{ fallback, hedge *purse }

// of returns the purse that paid for a standby.
func (p *purses) of(role Role) *purse {
	if role == Hedge {
		return p.hedge
	}
	return p.fallback
}

// payIn pays for one ordinary probe into both purses.
func (p *purses) payIn() {
	p.fallback.payIn()
	p.hedge.payIn()
}

// purse bounds extra probes to a share of the ordinary ones: each ordinary probe pays in a share of
// a probe, each extra one takes out a whole. It is a token bucket that fills by requests and not by
// time, like the retry budgets of Finagle and gRPC. A nil purse has no bound. It is safe for
// concurrent use.
type purse struct {
	share int64        // in millionths of a probe
	left  atomic.Int64 // likewise
}

const (
	purseUnit = 1_000_000
	purseMost = 100 * purseUnit // what is saved up at most
)

// newPurse returns a full purse. A negative share gives no bound.
func newPurse(share float64) *purse {
	if share < 0 {
		return nil
	}
	p := &purse{share: int64(min(share, 100) * purseUnit)}
	p.left.Store(purseMost)
	return p
}

// available returns how many extra probes it would pay for now.
func (p *purse) available() float64 {
	if p == nil {
		return math.Inf(1)
	}
	return float64(p.left.Load()) / purseUnit
}

func (p *purse) payIn() {
	if p != nil {
		p.add(p.share)
	}
}

// giveBack undoes the payment for one extra probe that was not sent after all.
func (p *purse) giveBack() {
	if p != nil {
		p.add(purseUnit)
	}
}

func (p *purse) add(n int64) {
	for {
		left := p.left.Load()
		if left == purseMost || p.left.CompareAndSwap(left, min(left+n, purseMost)) {
			return
		}
	}
}

// takeAll pays for n extra probes, or for none.
func (p *purse) takeAll(n int) bool {
	if p == nil {
		return true
	}
	for {
		left := p.left.Load()
		if left < int64(n)*purseUnit {
			return false
		}
		if p.left.CompareAndSwap(left, left-int64(n)*purseUnit) {
			return true
		}
	}
}

// takeSome pays for as many of n extra probes as it can, and returns how many.
func (p *purse) takeSome(n int) int {
	for n > 0 && !p.takeAll(n) {
		n--
	}
	return n
}
