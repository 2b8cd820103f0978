package scatter

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// Coordinator is the course of one query: it decides which peer is asked when, how long each is
// waited for, and what the answer is. It reads no clock, starts no goroutine and sends nothing:
// events and the time go in, Asks and the next deadline come out. [Broadcast] drives the same
// machine by the real clock; a test, a simulation or another kind of transport can drive a
// Coordinator by hand:
//
//   - Begin it, and do each [Ask] that it makes.
//   - Tell it each Reply.
//   - Advance it when its Deadline has come.
//   - Once its State is Merging, take its Response and Err.
//
// A Coordinator serves one query. It is not safe for concurrent use. Make one with [NewCoordinator]
// or [Searcher.Coordinator].
type Coordinator[H Ranked[ID], ID cmp.Ordered] struct{ course course[H, ID] }

// NewCoordinator returns the Coordinator of one query. It calls ask for each peer, in turn, when
// the peer is to be asked. ask must not block, nor call the Coordinator. If it returns false, the
// peer can't be asked yet; call Retry when it can.
//
// The arguments are checked as by [Broadcast]. Options.Semaphore is an error, because ask takes its
// place.
func NewCoordinator[H Ranked[ID], ID cmp.Ordered](
	req *Request, peers []PeerID, ask func(Ask) bool, opts *Options,
) (*Coordinator[H, ID], error) {
	c := new(Coordinator[H, ID])
	if err := c.init(req, ask, opts); err != nil {
		return nil, err
	}
	if err := c.course.checkBroadcast(); err != nil {
		return nil, err
	}
	c.course.setPeers(peers)
	return c, nil
}

func (c *Coordinator[H, ID]) init(req *Request, ask func(Ask) bool, opts *Options) error {
	if err := c.course.init(req, opts); err != nil {
		return err
	}
	switch {
	case ask == nil:
		return errors.New("scatter: ask is nil")
	case c.course.opts.Semaphore != nil:
		return errors.New("scatter: Options.Semaphore is set, but ask decides which peer can be asked")
	}
	c.course.driver = &handDriver[H, ID]{&c.course, ask}
	return nil
}

// handDriver is the driver of a Coordinator.
type handDriver[H Ranked[ID], ID cmp.Ordered] struct {
	course *course[H, ID]
	do     func(Ask) bool
}

func (d *handDriver[H, ID]) ask(a Ask) (context.Context, bool) {
	if !d.do(a) {
		return nil, false
	}
	return d.course.probeStarted(d.course.ctx, a), true
}

func (d *handDriver[H, ID]) concluded(int) {}

func (d *handDriver[H, ID]) now() time.Time { return time.Time{} }

// Begin starts the query at now. Its time is up at until, or never if that is zero. A second Begin
// does nothing.
func (c *Coordinator[H, ID]) Begin(now, until time.Time) {
	c.course.step(now, event{kind: begin, at: until})
}

// Reply tells what the probe of Ask.Index i returned. The Coordinator owns hits from then on, but
// doesn't write to them. A reply that nobody waits for is dropped: a second one, a late one, or one
// of an Index that was never asked.
func (c *Coordinator[H, ID]) Reply(now time.Time, i int, hits []H, err error) {
	var r reply[H]
	judge(hits, err, &c.course.want, &r)
	if (r.status == Failed || r.status == TimedOut) && !isPermanent(err) && c.course.isPastDeadline(now, i) {
		r.timeOut()
	}
	c.course.deliver(now, now, i, &r)
}

// Retry tells that a peer may be asked now that couldn't be when ask returned false.
func (c *Coordinator[H, ID]) Retry(now time.Time) { c.course.step(now, event{kind: retry}) }

// Cancel ends the query with what has arrived and with err, or with context.Canceled if err is nil.
func (c *Coordinator[H, ID]) Cancel(now time.Time, err error) {
	if err == nil {
		err = context.Canceled
	}
	c.course.step(now, event{kind: cancel, err: err})
}

// Advance does what is due by now. It does nothing if nothing is.
func (c *Coordinator[H, ID]) Advance(now time.Time) { c.course.advance(now) }

// Deadline returns the time at which Advance is to be called next, and whether there is one. There
// may be nothing left to do then.
func (c *Coordinator[H, ID]) Deadline() (time.Time, bool) { return c.course.machine.Deadline() }

// State returns how far the query has got.
func (c *Coordinator[H, ID]) State() State { return c.course.machine.State() }

// Response returns the answer, or nil before the query has ended. The caller owns it.
func (c *Coordinator[H, ID]) Response() *Response[H] { return c.course.response }

// Err returns the error with which the query has ended, as [Broadcast] would return it, or nil.
func (c *Coordinator[H, ID]) Err() error { return c.course.err }
