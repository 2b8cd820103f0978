package scatter

import (
	"cmp"
	"context"
	"time"
)

// fanout is the part of a course that asks peers, in their turn, and gives up on them.
type fanout[H Ranked[ID], ID cmp.Ordered] struct {
	query[H, ID]
	refills bool      // the second round has begun
	hedgeAt time.Time // what the timeout for hedges is set to; zero: it isn't
	blocked bool      // the driver can't ask anybody yet
}

// event is what happens to a query. A reply is in course.reply.
type event struct {
	kind  eventKind
	index int       // of replied: the peer's in the ledger
	at    time.Time // of replied: when the reply came in; of begin and extend: the end of the query's time
	err   error     // of cancel
}

type eventKind uint8

const (
	begin     eventKind = iota
	replied             // a peer has replied
	retry               // the driver may be able to ask again
	cancel              // the caller has given up
	extend              // the query has more time
	goOn                // Fanout was entered: ask the peers that wait
	peerLate            // some peer's deadline has come
	unitLate            // some peer has waited too long to be asked
	hedgeDue            // some peer has taken so long that standbys are to be asked
	graceOver           // Options.Grace is over
	timeUp              // the query's time is up
	stop                // the caller has all the hits that it wants
)

// now returns the time in the middle of an event: hooks may have taken their time since it began.
func (f *fanout[H, ID]) now(ctl *Control[State, event]) time.Time {
	if f.opts.Trace == nil {
		return ctl.Now()
	}
	return f.timeOr(ctl.Now())
}

// timeOr returns the driver's time, or now if it has none.
func (f *fanout[H, ID]) timeOr(now time.Time) time.Time {
	if at := f.driver.now(); !at.IsZero() {
		return at
	}
	return now
}

// askMore asks as many of the waiting peers as may be asked now. It asks nobody once the query's
// time is up, even if a reply that was in hand by then has made room. Rules 5, 10 and 28.
func (f *fanout[H, ID]) askMore(ctl *Control[State, event]) {
	for f.ledger.inFlight < f.opts.Limit {
		now := f.now(ctl)
		if !f.until.IsZero() && !now.Before(f.until) || f.graced && f.opts.Grace == 0 {
			return
		}
		i := f.nextToAsk(ctl, now)
		if i < 0 {
			return
		}
		if !f.blocked {
			p := &f.ledger.peers[i]
			ask := Ask{p.report.Peer, p.report.Role, i, f.deadline(now), f.requestTo(p)}
			if ctx, ok := f.driver.ask(ask); ok {
				f.asked(ctl, i, ctx, now)
				continue
			}
			f.blocked = true
		}
		f.awaitUnits(ctl, now)
		return
	}
}

// nextToAsk returns the index of the peer that waits first, or -1 if none does. It drops standbys
// that are not needed any more, and peers that can't have hits for the answer. Rules 42 and 47.
func (f *fanout[H, ID]) nextToAsk(ctl *Control[State, event], now time.Time) int {
	for f.ledger.waiting > 0 {
		i := f.ledger.head()
		p := &f.ledger.peers[i]
		switch {
		case p.refill > 0:
			return i
		case p.report.Role != Primary && f.hedger.unneeded(p.number, p.report.Role):
			f.ledger.drop(i)
		case f.ledger.isOutranked(p, &f.want):
			f.conclude(i, Outranked, ErrEnough, now)
			f.answered(ctl, p.number)
		default:
			return i
		}
	}
	return -1
}

// requestTo returns what a peer is asked.
func (f *fanout[H, ID]) requestTo(p *peer[H]) *Request {
	if p.refill > 0 {
		return p.refillRequest(f.first)
	}
	return f.first
}

// asked records that a peer is being asked, and arms what may come of that.
func (f *fanout[H, ID]) asked(ctl *Control[State, event], i int, ctx context.Context, now time.Time) {
	if f.ledger.inFlight == 0 && f.opts.PeerDeadline > 0 {
		// Rule 6. expire arms it anew for those asked after this one.
		ctl.Timeout("peer", now.Add(f.opts.PeerDeadline).Sub(ctl.Now()), event{kind: peerLate})
	}
	f.ledger.begin(i, ctx, now)
	p := &f.ledger.peers[i]
	if slow := &f.ledger.peers[p.instead]; p.report.Role == Hedge && slow.phase == asking {
		slow.report.Late = true // Rule 36
	}
	if f.strategy != nil {
		f.strategy.asked(p.number, p.report.Role, p.refill > 0)
	}
	if f.hedger != nil && f.hedger.delay > 0 && p.refill == 0 {
		f.planHedge(ctl, p, now, f.hedger.delay)
	}
}

// awaitUnits starts the time that peers may wait for a unit of the semaphore: of those who would be
// asked now if there were units. Rule 42.
func (f *fanout[H, ID]) awaitUnits(ctl *Control[State, event], now time.Time) {
	if f.opts.PeerDeadline < 0 {
		return
	}
	room := f.opts.Limit - f.ledger.inFlight
	for i := range f.ledger.line() {
		if room == 0 {
			break
		}
		room--
		if p := &f.ledger.peers[i]; p.unitSince.IsZero() {
			p.unitSince = now
		}
	}
	due := f.ledger.peers[f.ledger.head()].unitSince.Add(f.opts.PeerDeadline)
	ctl.Timeout("unit", max(due.Sub(ctl.Now()), 1), event{kind: unitLate})
}

// giveUpUnits gives up on the peers that have waited too long for a unit.
func (f *fanout[H, ID]) giveUpUnits(ctl *Control[State, event]) {
	for i := f.nextToAsk(ctl, ctl.Now()); i >= 0; i = f.nextToAsk(ctl, ctl.Now()) {
		p := &f.ledger.peers[i]
		if p.unitSince.IsZero() || ctl.Now().Sub(p.unitSince) < f.opts.PeerDeadline {
			return
		}
		f.conclude(i, NotAsked, f.sharedLate("unit of Options.Semaphore", f.opts.PeerDeadline), ctl.Now())
		if f.coverage != nil && p.number >= 0 && !f.refills {
			f.coverage.quit(p.number)
		}
	}
}

// answered takes into account that a peer has answered for all that it holds.
func (f *fanout[H, ID]) answered(ctl *Control[State, event], number int32) {
	if f.coverage != nil && number >= 0 {
		f.coverage.answer(number)
	}
	if f.opts.EnoughCoverage > 0 && !f.graced && f.share() >= f.opts.EnoughCoverage {
		f.graced = true
		// At least 1, because a timeout of 0 comes before a reply that is in hand.
		ctl.Timeout("grace", max(f.opts.Grace, 1), event{kind: graceOver})
	}
}

// failed asks standbys, if there are any, in the place of a peer that has given no complete answer.
// Rules 24 and 27.
func (f *fanout[H, ID]) failed(i int) {
	number := f.ledger.peers[i].number
	switch {
	case f.coverage == nil || number < 0 || f.refills: // Rule 45
	case f.hedger == nil:
		f.coverage.quit(number)
	default:
		f.addStandbys(i, f.hedger.failed(number), Fallback)
	}
}

// addStandbys has standbys asked in the place of the peer with the index instead.
func (f *fanout[H, ID]) addStandbys(instead int, numbers []int32, role Role) {
	for _, number := range numbers {
		f.ledger.add(f.coverage.peers[number], number, role, false)
		p := &f.ledger.peers[len(f.ledger.peers)-1]
		p.instead = int32(instead)
		f.setBound(p)
	}
}

// expire gives up on the peers whose deadline has come. Rule 6.
func (f *fanout[H, ID]) expire(ctl *Control[State, event]) {
	var next time.Time
	for i := range f.ledger.peers {
		p := &f.ledger.peers[i]
		if p.phase != asking {
			continue
		}
		if due := p.askedAt.Add(f.opts.PeerDeadline); due.After(ctl.Now()) {
			next = earlier(next, due)
			continue
		}
		f.conclude(i, TimedOut, f.lateError(p, nil), ctl.Now())
		f.failed(i) // which may move the records
	}
	if !next.IsZero() {
		ctl.Timeout("peer", next.Sub(ctl.Now()), event{kind: peerLate})
	}
}

// earlier returns the earlier of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// planHedge has hedge look at a peer after a wait.
func (f *fanout[H, ID]) planHedge(ctl *Control[State, event], p *peer[H], now time.Time, wait time.Duration) {
	p.hedgeAt, p.hedgeWait = now.Add(wait), wait
	f.armHedge(ctl, p.hedgeAt)
}

func (f *fanout[H, ID]) armHedge(ctl *Control[State, event], at time.Time) {
	if f.hedgeAt.IsZero() || at.Before(f.hedgeAt) {
		f.hedgeAt = at
		ctl.Timeout("hedge", at.Sub(ctl.Now()), event{kind: hedgeDue})
	}
}

// hedge asks standbys in the place of peers that have taken too long. If that isn't possible now,
// it tries again after twice the wait, and not before a millisecond. Rules 27 and 38.
func (f *fanout[H, ID]) hedge(ctl *Control[State, event]) {
	f.hedgeAt = time.Time{}
	for i := range f.ledger.peers { // standbys that are added meanwhile have their own turn
		p := &f.ledger.peers[i]
		switch {
		case p.phase != asking || p.hedgeAt.IsZero():
		case p.hedgeAt.After(ctl.Now()):
			f.armHedge(ctl, p.hedgeAt)
		default:
			standbys, ok := f.hedger.overdue(ctl.Now(), p.number, ctl.Now().Sub(p.askedAt))
			if !ok {
				f.planHedge(ctl, p, ctl.Now(), max(2*p.hedgeWait, time.Millisecond))
				continue
			}
			p.hedgeAt = time.Time{}
			f.addStandbys(i, standbys, Hedge) // which may move the records
		}
	}
}
