package scatter

import (
	"cmp"
	"time"
)

// course is the course of one query: the [Handler] of a [Machine], which it owns.
type course[H Ranked[ID], ID cmp.Ordered] struct {
	fanout[H, ID]
	machine Machine[State, event]
	reply   *reply[H] // of the event under way
}

// init checks the arguments and makes a zero c ready for begin, but for its driver and its peers.
func (c *course[H, ID]) init(req *Request, opts *Options) error {
	c.machine.init(c, Init)
	return c.query.init(req, opts)
}

// step tells the machine of an event, unless the query has ended.
func (c *course[H, ID]) step(now time.Time, ev event) {
	if !c.machine.Stopped() {
		c.err = c.machine.Step(now, ev)
	}
}

func (c *course[H, ID]) advance(now time.Time) {
	if !c.machine.Stopped() {
		c.err = c.machine.Advance(now)
	}
}

// deliver takes a reply that came in at a time.
func (c *course[H, ID]) deliver(now, at time.Time, i int, r *reply[H]) {
	if c.machine.Stopped() {
		c.dropReply(i, r)
		return
	}
	c.reply = r
	c.step(now, event{kind: replied, index: i, at: at})
	c.reply = nil
}

// Handle implements [Handler].
func (c *course[H, ID]) Handle(ctl *Control[State, event], s State, ev event) State {
	switch ev.kind {
	case begin:
		if s == Init {
			s = c.begin(ctl, ev.at)
		}
	case replied:
		c.replied(ctl, ev)
	case retry:
		c.blocked = false
		ctl.CancelTimeout("unit") // askMore arms it again if there are too few units
	case cancel:
		c.over, c.cause = true, ev.err
	case extend:
		c.setUntil(ctl, ev.at)
	case peerLate:
		c.expire(ctl)
	case unitLate:
		c.giveUpUnits(ctl)
	case hedgeDue:
		c.hedge(ctl)
	case graceOver:
		c.over, c.enough = true, true
	case stop:
		c.over, c.enough, c.left = true, true, true
	case timeUp:
		c.over = true
	}
	return c.proceed(ctl, s)
}

// proceed asks the peers that can be asked, and returns the state that follows.
func (c *course[H, ID]) proceed(ctl *Control[State, event], s State) State {
	if s == Init && !c.over {
		return Init
	}
	if s == Fanout && !c.over && !c.isComplete() { // nobody is asked in vain
		c.askMore(ctl)
	}
	if !c.over && c.isComplete() {
		if !c.beginRefills(ctl) {
			return Merging
		}
		if s == Fanout { // Enter isn't called, because the state doesn't change
			c.askMore(ctl)
		}
	}
	switch {
	case c.over:
		return Merging
	case c.ledger.waiting > 0:
		return Fanout
	}
	return Gather
}

// isComplete reports whether nothing that is out, or waits to be asked, can add to the answer.
// Rules 25 and 42.
func (c *course[H, ID]) isComplete() bool {
	switch {
	case c.ledger.inFlight+c.ledger.waiting == 0:
		return true
	case c.coverage == nil || c.opts.WaitAll || c.coverage.isOpen() || c.refills:
		return false
	}
	// A peer that is not on the Cover may have hits of the ranges that are lost.
	c.enough = c.coverage.whole() || c.ledger.foreign == 0
	return c.enough
}

// beginRefills begins the second round, if one is needed. What is still out then isn't. Rule 44.
func (c *course[H, ID]) beginRefills(ctl *Control[State, event]) bool {
	if c.opts.PeerK == nil || c.refills || c.cause != nil || c.graced {
		return false
	}
	c.concludeRest(ctl.Now())
	c.refills = c.ledger.planRefill(&c.want)
	return c.refills
}

// concludeRest gives up on the peers that wait or are out.
func (c *course[H, ID]) concludeRest(now time.Time) {
	for i := range c.ledger.peers {
		if p := &c.ledger.peers[i]; p.phase == waiting || p.phase == asking {
			status, err := c.verdict(p)
			c.conclude(i, status, err, now)
		}
	}
}

// Enter implements [Enterer].
func (c *course[H, ID]) Enter(ctl *Control[State, event], _, to State) {
	switch to {
	case Fanout:
		ctl.Raise(event{kind: goOn})
	case Merging:
		c.finish(ctl.Now())
		ctl.Stop(c.err)
	}
}

func (c *course[H, ID]) begin(ctl *Control[State, event], until time.Time) State {
	c.start(ctl.Now(), until)
	c.setUntil(ctl, until)
	return Fanout
}

// start makes the ledger complete and tells the trace of the query.
func (c *course[H, ID]) start(now, until time.Time) {
	c.begun = now
	if trace := c.opts.Trace; trace != nil {
		c.ctx = started(c.ctx, trace.QueryStarted, QueryInfo{c.req, until})
	}
	if c.strategy != nil {
		c.useSelection(c.strategy.choose(now, until))
	}
}

// setUntil sets when the caller's time is up.
func (c *course[H, ID]) setUntil(ctl *Control[State, event], until time.Time) {
	c.until = c.endOf(ctl.Now(), until)
	left := c.until.Sub(ctl.Now())
	switch {
	case until.IsZero():
		ctl.CancelTimeout("query")
	case left <= 0:
		c.over = true
	default:
		ctl.Timeout("query", left, event{kind: timeUp})
	}
}

// replied takes the reply of a peer, if it is waited for. Rules 6 and 10.
func (c *course[H, ID]) replied(ctl *Control[State, event], ev event) {
	i, r := ev.index, c.reply
	if i < 0 || i >= len(c.ledger.peers) || c.ledger.peers[i].phase != asking {
		c.dropReply(i, r)
		return
	}
	p := &c.ledger.peers[i]
	c.ledger.kthKnown = false
	err := r.err
	if r.status == TimedOut && r.obeyed {
		err = c.lateError(p, err)
	}
	again := p.refill > 0
	if again {
		c.ledger.takeRefill(p, r, &c.want)
	} else {
		p.hits, p.report.Hits, p.report.Unsorted = r.hits, len(r.hits), r.unsorted
		p.unseen = unseenAfter(r, c.first.K)
		if r.status == Answered && exceedsBound(p, r.hits, c.want.order) {
			err = ErrBound
		}
	}
	c.conclude(i, r.status, err, ev.at)
	switch {
	case r.status == Abandoned:
		// The query was cancelled, and this is the first to tell. It ends when cancel comes, or
		// when nobody is out any more, with the same error.
		if c.cause == nil {
			c.cause = r.cause
		}
	case again: // Rule 45: it costs Exact alone.
	case r.status == Answered:
		c.answered(ctl, p.number)
	case isPermanent(r.err): // Rule 37
		c.over, c.cause = true, r.err
	default:
		c.failed(i)
	}
}

// finish ends the query: it gives up on the peers still out, and makes the Response. The wait ended
// at now. Everything after that counts as the merge, so that LearnReserve keeps time for all of it.
// Rule 40.
func (c *course[H, ID]) finish(now time.Time) {
	if c.begun.IsZero() { // It ends before it has begun. Hooks are called in pairs all the same.
		c.start(now, time.Time{})
	}
	c.concludeRest(now)
	var duplicates int
	c.response, duplicates = c.respond(now, c.verdict)
	c.ledger.release()
	ended := c.timeOr(now)
	r := c.response
	r.Elapsed = ended.Sub(c.begun) // Rule 40
	c.err = c.failure(r, c.cause)
	if c.strategy != nil {
		c.strategy.finished(ended.Sub(now))
	}
	if trace := c.opts.Trace; trace != nil {
		tell(c.ctx, trace.QueryDone, QueryDoneInfo{
			Request: c.req, Peers: r.Peers, PeersConsulted: r.PeersConsulted, Hits: len(r.Hits), Duplicates: duplicates,
			Partial: r.Partial, Coverage: r.Coverage, Missing: r.Missing,
			Elapsed: r.Elapsed, MergeElapsed: ended.Sub(now), Err: c.err,
		})
	}
}
