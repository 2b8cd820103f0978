package scatter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// Response is the answer to a query, and what it rests on. It is the caller's, whole.
type Response[H any] struct {
	Hits           []H           // the global top-K in the query's Order, each ID once
	Peers          []PeerReport  // the ledger: one line for each distinct peer, in the caller's order
	PeersConsulted int           // peers asked, those that timed out or failed included
	PeersTimedOut  int           // peers asked that gave no hits because time ran out
	PeersFailed    int           // peers asked that gave an error, or panicked
	Partial        bool          // some peer's hits are missing, for whichever reason
	Elapsed        time.Duration // from the start of the query to the end of the merge
}

// PeerReport says what became of one peer.
type PeerReport struct {
	Peer    PeerID
	Status  Status
	Err     error         // why hits are missing; nil if Status is Answered, else as the Status says
	Hits    int           // hits it gave to the merge
	Elapsed time.Duration // from its probe's start until it answered, failed or was given up on; 0 if never asked
}

// Status is what became of a peer.
type Status uint8

const (
	// NotAsked: the query ended before the peer's turn came. Err is as that of TimedOut or Abandoned, by what ended it.
	NotAsked Status = iota
	// Answered: its hits are in the merge. Err is nil.
	Answered
	// Incomplete: its hits are in the merge, and it said that they are not all. Err is what the probe returned, ErrPartial
	// or an error that wraps it.
	Incomplete
	// TimedOut: it gave no hits by its deadline or the query's. Err has a method Timeout() bool that returns true, as
	// context.DeadlineExceeded has, and is that error by errors.Is unless the probe returned a timeout of its own, such as
	// a connection's.
	TimedOut
	// Failed: Err is what the probe returned, a *PanicError, or ErrGoexit.
	Failed
	// Abandoned: the query was cancelled while it was being asked. Err is the cause, or what the probe returned then.
	Abandoned

	asking // no answer yet; never seen in a Response
)

func (s Status) String() string {
	return name(s, "NotAsked", "Answered", "Incomplete", "TimedOut", "Failed", "Abandoned")
}

// State is the state of a [Coordinator]'s machine. A query goes through all four in turn, but for one whose time is up,
// or that is cancelled, which goes on to Merging at once.
type State uint8

const (
	Init    State = iota // before Begin
	Fanout               // there are peers still to be asked; replies are taken as they come
	Gather               // every peer was asked; the rest of the replies is awaited
	Merging              // the last state: the hits are merged, and the machine stops
)

func (s State) String() string { return name(s, "Init", "Fanout", "Gather", "Merging") }

// Event is what happens to a [Coordinator], whose it is from the Step that delivers it on.
type Event[H any] struct {
	Kind     EventKind
	Deadline time.Time // of Begin: when the query's time is up; zero: never
	Index    int       // of Replied: Ask.Index of the peer
	Hits     []H       // of Replied
	Err      error     // of Replied: the probe's error; of Cancel: the cause

	peer   PeerID // of Replied, if it comes from Broadcast: the peer of Index
	over   error  // of Replied: the error of the probe's context, if it was over when the probe returned an error
	sorted bool   // of Replied: Hits are known to be sorted
}

// EventKind tells events apart.
type EventKind uint8

const (
	Begin   EventKind = iota // the query starts
	Replied                  // a peer that was asked has answered, or failed
	Room                     // a peer can be asked now that couldn't when ask returned false
	Cancel                   // the caller has given up: merge what there is, and stop with Err

	goOn     // the Coordinator's own: see whether the state is done with
	peerLate // the Coordinator's own: the deadline of the peer longest asked
	timeUp   // the Coordinator's own: the query's deadline
)

func (k EventKind) String() string { return name(k, "Begin", "Replied", "Room", "Cancel") }

// Ask is a [Coordinator]'s demand that a peer be asked, now.
type Ask struct {
	Peer     PeerID
	Index    int       // its place in the ledger, for the Event that brings its reply
	Deadline time.Time // when the Coordinator gives up on it; zero: only when the query ends
}

// Coordinator is the course of one query, as the [Handler] of a [Machine] that starts in Init: it decides who is asked
// when, who is waited for and how long, and what the answer is. It reads no clock, starts no goroutine and sends
// nothing; [Broadcast] drives one, and a test or a transport of another kind can drive it by hand: Step the machine
// with Begin, have each [Ask] asked, Step it with each reply, Advance it when its Deadline has come, and when it has
// stopped, take the Response.
//
// Events out of turn do no harm: a second reply of a peer, the reply of a peer never asked or given up on, are dropped;
// whatever comes after Merging gets ErrStopped of the machine. A Coordinator serves one query and one machine, and like
// its machine isn't safe for concurrent use.
type Coordinator[H Ranked[ID], ID cmp.Ordered] struct {
	req          *Request
	order        Order
	peerDeadline time.Duration // negative: none
	limit        int           // probes in flight at once
	ask          func(Ask) bool
	trace        Trace
	clock        func() time.Time // measures the merge; nil: it takes no time

	peers    []PeerReport
	lists    [][]H       // by peer, so that the answer owes nothing to the order of arrival
	askedAt  []time.Time // by peer
	asked    int         // peers[:asked] have been asked
	inFlight int         // how many of those are waited for
	oldest   int         // no peer before this one is waited for
	blocked  bool        // ask returned false, and there has been no Room since
	over     bool        // the query has ended before its time
	cause    error       // of the end by Cancel
	begun    time.Time
	until    time.Time // the query's deadline, or zero
	response *Response[H]

	goOn, peerLate, timeUp Event[H] // its own events, each of which may be under way once at a time
}

// NewCoordinator returns the Coordinator of one query. It calls ask, on the goroutine that steps its machine, for each
// peer in turn when the peer is to be asked; ask must not block, nor step the machine. If a peer can't be asked yet,
// ask returns false, and is called for the same peer again after the event Room. Of opts it heeds PeerDeadline, Limit,
// Logger and Trace.
//
// The same arguments are errors as in [Broadcast].
func NewCoordinator[H Ranked[ID], ID cmp.Ordered](
	req *Request, peers []PeerID, ask func(Ask) bool, opts *Options,
) (*Coordinator[H, ID], error) {
	if opts == nil {
		opts = &Options{}
	}
	switch {
	case req == nil:
		return nil, errors.New("scatter: Request is nil")
	case req.Query == nil:
		return nil, errors.New("scatter: Request.Query is nil")
	case req.K < 1:
		return nil, fmt.Errorf("scatter: Request.K is %d, must be at least 1", req.K)
	case opts.Limit < 0:
		return nil, fmt.Errorf("scatter: Options.Limit is %d, must not be negative", opts.Limit)
	case ask == nil:
		return nil, errors.New("scatter: ask is nil")
	}
	order := req.Query.Order()
	if !order.valid() {
		return nil, fmt.Errorf("scatter: the Order of Request.Query is unknown: %v", order)
	}
	c := &Coordinator[H, ID]{
		req:          req,
		order:        order,
		peerDeadline: cmp.Or(opts.PeerDeadline, DefaultPeerDeadline),
		limit:        cmp.Or(opts.Limit, len(peers)),
		ask:          ask,
		trace:        joinTraces(ZapTrace(opts.Logger), opts.Trace),
		peers:        make([]PeerReport, 0, len(peers)),
		goOn:         Event[H]{Kind: goOn},
		peerLate:     Event[H]{Kind: peerLate},
		timeUp:       Event[H]{Kind: timeUp},
	}
	seen := make(map[PeerID]struct{}, len(peers))
	for _, peer := range peers {
		if _, twice := seen[peer]; !twice {
			seen[peer] = struct{}{}
			c.peers = append(c.peers, PeerReport{Peer: peer})
		}
	}
	c.lists = make([][]H, len(c.peers))
	c.askedAt = make([]time.Time, len(c.peers))
	return c, nil
}

// Response returns the answer, or nil before the machine has stopped.
func (c *Coordinator[H, ID]) Response() *Response[H] { return c.response }

// Handle implements [Handler].
func (c *Coordinator[H, ID]) Handle(ctl *Control[State, *Event[H]], s State, ev *Event[H]) State {
	switch ev.Kind {
	case Begin:
		if s == Init {
			return c.begin(ctl, ev.Deadline)
		}
	case Replied:
		c.replied(ctl, ev)
	case Room:
		c.blocked = false
	case Cancel:
		c.over, c.cause = true, ev.Err
		if c.cause == nil {
			c.cause = context.Canceled
		}
	case peerLate:
		c.expire(ctl)
	case timeUp:
		c.over = true
	}
	switch {
	case c.over:
		return Merging
	case s == Fanout:
		c.askMore(ctl)
		if c.asked == len(c.peers) {
			return Gather
		}
	case s == Gather && c.inFlight == 0:
		return Merging
	}
	return s
}

// Enter implements [Enterer].
func (c *Coordinator[H, ID]) Enter(ctl *Control[State, *Event[H]], _, to State) {
	told(c.trace.StateEntered, StateInfo{c.req, to})
	switch to {
	case Fanout, Gather: // there may be nobody to ask, or to wait for
		ctl.Raise(&c.goOn)
	case Merging:
		c.merge(ctl.Now())
		ctl.Stop(c.cause)
	}
}

func (c *Coordinator[H, ID]) begin(ctl *Control[State, *Event[H]], until time.Time) State {
	c.begun, c.until = ctl.Now(), until
	if until.IsZero() {
		return Fanout
	}
	left := until.Sub(c.begun)
	if left <= 0 {
		return Merging
	}
	ctl.Timeout("query", left, &c.timeUp)
	return Fanout
}

// askMore asks as many peers as may be asked now. Once the query's time is up it asks nobody, even if a reply that was
// in hand by then has made room.
func (c *Coordinator[H, ID]) askMore(ctl *Control[State, *Event[H]]) {
	now := ctl.Now()
	if !c.until.IsZero() && !now.Before(c.until) {
		return
	}
	for c.asked < len(c.peers) && c.inFlight < c.limit && !c.blocked {
		i := c.asked
		ask := Ask{Peer: c.peers[i].Peer, Index: i}
		if c.peerDeadline > 0 {
			ask.Deadline = now.Add(c.peerDeadline)
		}
		if !c.ask(ask) {
			c.blocked = true
			return
		}
		if c.inFlight == 0 && c.peerDeadline > 0 {
			ctl.Timeout("peer", c.peerDeadline, &c.peerLate)
			c.oldest = i
		}
		c.peers[i].Status = asking
		c.askedAt[i] = now
		c.asked++
		c.inFlight++
	}
}

// expire gives up on the peers whose deadline has come. All peers have the same time, so they come to their deadlines
// in the order in which they were asked, and one timeout serves all: that of the oldest.
func (c *Coordinator[H, ID]) expire(ctl *Control[State, *Event[H]]) {
	for ; c.oldest < c.asked; c.oldest++ {
		if c.peers[c.oldest].Status != asking {
			continue
		}
		left := c.askedAt[c.oldest].Add(c.peerDeadline).Sub(ctl.Now())
		if left > 0 {
			ctl.Timeout("peer", left, &c.peerLate)
			return
		}
		c.settle(ctl.Now(), c.oldest, TimedOut, c.late(c.oldest, nil))
	}
}

func (c *Coordinator[H, ID]) replied(ctl *Control[State, *Event[H]], ev *Event[H]) {
	if c.peers[ev.Index].Status != asking {
		c.drop(c.peers[ev.Index].Peer, ev)
		return
	}
	status, err := c.outcome(ev.Index, ev.Err, ev.over)
	if replied(err) {
		if !ev.sorted && !inOrder(ev.Hits, c.order) {
			ev.Hits = sortedCopy(ev.Hits, c.order)
		}
		c.lists[ev.Index] = ev.Hits
		c.peers[ev.Index].Hits = len(ev.Hits)
	}
	c.settle(ctl.Now(), ev.Index, status, err)
}

// drop tells of a reply that nobody waits for. A probe that returned an error because its context was over has done as
// it should: that is no late reply.
func (c *Coordinator[H, ID]) drop(peer PeerID, ev *Event[H]) {
	if ev.over == nil {
		told(c.trace.LateReply, LateReplyInfo{c.req, peer, len(ev.Hits), ev.Err})
	}
}

// settle makes the line of a peer that is waited for final.
func (c *Coordinator[H, ID]) settle(now time.Time, i int, status Status, err error) {
	peer := &c.peers[i]
	peer.Status, peer.Err, peer.Elapsed = status, err, now.Sub(c.askedAt[i])
	c.inFlight--
	told(c.trace.ProbeDone, ProbeDoneInfo{c.req, *peer})
}

// replied reports whether a reply with this error has hits that count.
func replied(err error) bool { return err == nil || errors.Is(err, ErrPartial) && asPanic(err) == nil }

// outcome tells what a probe's error makes of its peer. over is the error of the probe's context, if that was over when
// the probe returned: whatever the probe says then is a consequence of it, in the words of its transport.
func (c *Coordinator[H, ID]) outcome(i int, err, over error) (Status, error) {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return Answered, nil
	case asPanic(err) != nil: // whatever it panicked with
		return Failed, err
	case errors.Is(err, ErrPartial):
		return Incomplete, err
	case errors.Is(over, context.DeadlineExceeded):
		return TimedOut, c.late(i, err)
	case over != nil:
		return Abandoned, err
	case errors.As(err, &timeout) && timeout.Timeout():
		return TimedOut, err
	default:
		return Failed, err
	}
}

// late is the error of a peer that gave no hits by the deadline, and err what its probe said instead, or nil. A probe
// that only says that the deadline is exceeded has nothing to add, so that its report is the same whether its word or
// the deadline is noticed first.
func (c *Coordinator[H, ID]) late(i int, err error) error {
	e := &lateError{}
	if c.peerDeadline > 0 && (c.until.IsZero() || !c.askedAt[i].Add(c.peerDeadline).After(c.until)) {
		e.deadline = c.peerDeadline
	}
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return e
	}
	return fmt.Errorf("%w: %w", e, err)
}

// lateError is the error of a peer that has not answered in time.
type lateError struct{ deadline time.Duration } // the peer's own; 0 if it was the query's that had come

func (e *lateError) Error() string {
	if e.deadline == 0 {
		return "scatter: the query's time was up"
	}
	return fmt.Sprintf("scatter: no reply within %v", e.deadline)
}

func (e *lateError) Timeout() bool { return true }
func (e *lateError) Unwrap() error { return context.DeadlineExceeded }

// merge ends the query: it gives up on the peers still out, and makes the Response.
func (c *Coordinator[H, ID]) merge(now time.Time) {
	r := &Response[H]{Peers: c.peers, PeersConsulted: c.asked, Partial: len(c.peers) == 0}
	replies := 0
	for i := range c.peers {
		peer := &c.peers[i]
		switch peer.Status {
		case asking:
			if c.cause != nil {
				c.settle(now, i, Abandoned, c.cause)
			} else {
				c.settle(now, i, TimedOut, c.late(i, nil))
			}
		case NotAsked:
			peer.Err = c.cause
			if c.cause == nil {
				peer.Err = &lateError{}
			}
		}
		switch peer.Status {
		case Answered, Incomplete:
			replies++
		case TimedOut:
			r.PeersTimedOut++
		case Failed:
			r.PeersFailed++
		}
		r.Partial = r.Partial || peer.Status != Answered
	}
	began, ended := now, now
	if c.clock != nil {
		began = c.clock()
	}
	var duplicates int
	r.Hits, duplicates = mergeSorted(nil, c.lists, c.req.K, c.order)
	if c.clock != nil {
		ended = c.clock()
	}
	if !c.begun.IsZero() {
		r.Elapsed = ended.Sub(c.begun)
	}
	c.response = r
	told(c.trace.MergeDone, MergeInfo{c.req, replies, len(r.Hits), duplicates, r.Partial, ended.Sub(began)})
}
