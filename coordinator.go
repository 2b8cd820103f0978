package scatter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Response is the answer to a query, and what it rests on. It is the caller's, whole.
type Response[H any] struct {
	Hits           []H           // the global top-K in the query's Order, each ID once
	Peers          []PeerReport  // the ledger: a line for each distinct peer in the caller's order, then standbys
	PeersConsulted int           // peers asked, those that timed out or failed included
	PeersTimedOut  int           // peers asked that gave no hits because time ran out
	PeersFailed    int           // peers asked that gave an error, or panicked
	Partial        bool          // Coverage is below 1: some hits are missing, for whichever reason
	Coverage       float64       // of what there is, how much has an answer: see Options.Cover
	Missing        []Gap         // what has none, with Options.Cover
	Elapsed        time.Duration // from the start of the query to the end of the merge
}

// PeerReport says what became of one peer.
type PeerReport struct {
	Peer    PeerID
	Role    Role // why it was asked: Primary as one of the peers, Fallback and Hedge as a standby
	Status  Status
	Err     error         // why hits are missing; nil if Status is Answered, else as the Status says
	Hits    int           // hits it gave to the merge
	Elapsed time.Duration // from its probe's start until it answered, failed or was given up on; 0 if never asked
}

// Status is what became of a peer.
type Status uint8

const (
	// NotAsked is a peer whose turn had not come when the query ended. Err says why that was, as in TimedOut, Abandoned or
	// Spare. Among the Holders of a Gap it is also a standby that was not called upon; its Err is nil.
	NotAsked Status = iota
	// Answered is a peer whose hits are in the merge. Err is nil.
	Answered
	// Incomplete is a peer whose hits are in the merge, and which said that they are not all. Err is what its probe
	// returned: ErrPartial, or an error that wraps it.
	Incomplete
	// TimedOut is a peer that gave no hits by its deadline or the query's, and Err is context.DeadlineExceeded by
	// errors.Is; or one whose probe returned an error that is that, or that has, by errors.As, a method Timeout() bool
	// which returns true, such as a connection's.
	TimedOut
	// Failed is a peer that gave no hits for another reason. Err is what its probe returned, a *PanicError, or ErrGoexit.
	Failed
	// Abandoned is a peer that was being asked when the query was cancelled. Err is the cause, or what its probe returned
	// then.
	Abandoned
	// Spare is a peer that was being asked when the answer was complete enough. Err is ErrEnough.
	Spare
	// Dead is a peer that holds a part of a Gap, but was none of the peers to ask, nor a standby. Err is nil.
	Dead

	asking // no answer yet; never seen in a Response
)

// ErrEnough is the Err of a peer that was not needed, and the cause with which the contexts of such peers' probes are
// cancelled: every range has an answer, or as much as Options.Settle asks for.
var ErrEnough = errors.New("scatter: the answer is complete enough without it")

// CoverageError is returned when a Response covers less than Options.Require, and the query was not cancelled.
type CoverageError[H any] struct {
	Response *Response[H] // what there is
	Require  float64
}

func (e *CoverageError[H]) Error() string {
	s := fmt.Sprintf("scatter: coverage is %.4g, required is %.4g", e.Response.Coverage, e.Require)
	for i, gap := range e.Response.Missing {
		if i == 3 { // enough for a log line; the rest is in Missing
			return fmt.Sprintf("%s; and %d more", s, len(e.Response.Missing)-i)
		}
		s += "; missing " + gap.String()
	}
	return s
}

func (s Status) String() string {
	return name(s, "NotAsked", "Answered", "Incomplete", "TimedOut", "Failed", "Abandoned", "Spare", "Dead")
}

// MarshalText has a Status be written as its String, as by encoding/json.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// State is the state of a [Coordinator]'s machine. A query goes through all four in turn, but for one whose time is up,
// that is cancelled, or that has enough, which goes on to Merging at once.
type State uint8

// The states.
const (
	Init    State = iota // before Begin
	Fanout               // there are peers still to be asked; replies are taken as they come
	Gather               // all have been asked, replies are awaited; a standby to be asked leads back to Fanout
	Merging              // the last state: the hits are merged, and the machine stops
)

func (s State) String() string { return name(s, "Init", "Fanout", "Gather", "Merging") }

// Event is what happens to a [Coordinator], whose it is from the Step that delivers it on.
type Event[H any] struct {
	Kind EventKind

	// Of Replied, if it comes from Broadcast.
	status Status        // what the reply makes of the peer; else NotAsked
	sorted bool          // Hits are known to be sorted
	timed  bool          // the reply came in
	at     time.Duration // at this time after the query began, and not just now
	peer   PeerID        // of Index
	obeyed bool          // Err was returned because the probe's context was over,
	cause  error         // and, if it was cancelled, with this cause

	Deadline time.Time // of Begin: when the query's time is up; zero: never
	Index    int       // of Replied: Ask.Index of the peer
	Hits     []H       // of Replied
	Err      error     // of Replied: the probe's error; of Cancel: the cause
}

// EventKind tells events apart.
type EventKind uint8

// What can happen to a Coordinator.
const (
	Begin   EventKind = iota // the query starts
	Replied                  // a peer that was asked has answered, or failed
	Room                     // a peer can be asked now that couldn't when ask returned false
	Cancel                   // the caller has given up: merge what there is, and stop with Err

	goOn     // the Coordinator's own: see whether the state is done with
	peerLate // the Coordinator's own: the deadline of the peer longest asked
	hedgeDue // the Coordinator's own: a peer has been out for its hedging delay
	graceUp  // the Coordinator's own: Options.Grace is over
	timeUp   // the Coordinator's own: the query's deadline
)

func (k EventKind) String() string { return name(k, "Begin", "Replied", "Room", "Cancel") }

// Ask is a [Coordinator]'s demand that a peer be asked, now.
type Ask struct {
	Peer     PeerID
	Role     Role
	Index    int       // its place in the ledger, for the Event that brings its reply
	Deadline time.Time // when the Coordinator gives up on it; zero: only when the query ends
}

// Coordinator is the course of one query, as the [Handler] of a [Machine] that starts in Init: it decides who is asked
// when, who is waited for and how long, and what the answer is. It reads no clock, starts no goroutine and sends
// nothing; [Broadcast] drives one, and a test or a transport of another kind can drive it by hand: Step the machine
// with Begin, have each [Ask] asked, Step it with each reply, Advance it when its Deadline has come, and when it has
// stopped, take the Response.
//
// Events out of turn do no harm: a second reply of a peer, the reply of a peer never asked or given up on, or of an
// Index that no Ask had, are dropped; whatever comes after Merging gets ErrStopped of the machine. A Coordinator
// serves one query and one machine, and like its machine isn't safe for concurrent use.
type Coordinator[H Ranked[ID], ID cmp.Ordered] struct {
	req          *Request
	order        Order
	peerDeadline time.Duration // negative: none
	limit        int           // probes in flight at once
	driver       driver
	trace        Trace
	traced       bool             // trace may have functions
	clock        func() time.Time // of Broadcast; nil: hooks and the merge take no time

	waitAll bool
	require float64
	settle  float64
	grace   time.Duration

	// The ledger. Standbys that are to be asked are appended to it. While a peer is asked, its Elapsed is when that began,
	// after the query.
	peers    []PeerReport
	lists    [][]H // by peer, so that the answer owes nothing to the order of arrival
	most     int   // peers that there can ever be in it
	asked    int   // peers[:asked] have been asked
	inFlight int   // how many of those are waited for
	answered int   // how many have Answered
	oldest   int   // no peer before this one is waited for

	coverage  *coverage   // nil without a Cover
	selection *selection  // likewise
	standbys  *standbys   // nil without any
	hedges    []hedgePlan // by peer, if there are standbys
	hedgeAt   time.Time   // what the timeout for hedges is armed for; zero: it isn't
	least     int         // before so many have Answered, the answer isn't whole

	blocked  bool  // ask returned false, and there has been no Room since
	over     bool  // the query has ended before its time,
	enough   bool  // because the answer is complete enough,
	cause    error // or by Cancel
	graced   bool  // Grace has begun
	begun    time.Time
	until    time.Time // the query's deadline, or zero
	response *Response[H]

	// Memory that may have served another query.
	own  *ownEvents[H]
	room *coverRoom
}

// ownEvents are those of a Coordinator's own events that each query has, each under way at most once at a time.
type ownEvents[H any] struct{ goOn, peerLate Event[H] }

// driver asks peers for a Coordinator.
type driver interface {
	ask(Ask) bool
	concluded(i int) // is told when a peer that was asked is waited for no longer
}

// askFunc is the driver of a Coordinator that is stepped by hand.
type askFunc func(Ask) bool

func (f askFunc) ask(a Ask) bool { return f(a) }
func (f askFunc) concluded(int)  {}

// NewCoordinator returns the Coordinator of one query. It calls ask, on the goroutine that steps its machine, for each
// peer in turn when the peer is to be asked; ask must not block, nor step the machine. If a peer can't be asked yet,
// ask returns false, and is called for the same peer again after the event Room. Of opts it heeds all but
// Shared and Reserve.
//
// The same arguments are errors as in [Broadcast].
func NewCoordinator[H Ranked[ID], ID cmp.Ordered](
	req *Request, peers []PeerID, ask func(Ask) bool, opts *Options,
) (*Coordinator[H, ID], error) {
	if ask == nil {
		return nil, errors.New("scatter: ask is nil")
	}
	c := &Coordinator[H, ID]{}
	if err := c.init(req, peers, askFunc(ask), opts); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Coordinator[H, ID]) init(req *Request, peers []PeerID, driver driver, opts *Options) error {
	if opts == nil {
		opts = &Options{}
	}
	order, err := checkRequest(req)
	if err != nil {
		return err
	}
	if err := opts.check(); err != nil {
		return err
	}
	c.req = req
	c.order = order
	c.peerDeadline = cmp.Or(opts.PeerDeadline, DefaultPeerDeadline)
	c.limit = cmp.Or(opts.Limit, math.MaxInt)
	c.driver = driver
	c.trace = joinTraces(ZapTrace(opts.Logger), opts.Trace)
	c.traced = opts.Logger != nil || opts.Trace != nil
	c.waitAll = opts.WaitAll
	c.require = opts.Require
	c.settle = opts.Settle
	c.grace = opts.Grace
	if opts.selection != nil {
		c.peers = ledgerOf(peers)
	} else {
		c.peers = distinct(peers)
	}
	c.most = len(c.peers) + len(opts.Standby)
	if c.own == nil {
		c.own = &ownEvents[H]{Event[H]{Kind: goOn}, Event[H]{Kind: peerLate}}
	}
	c.lists = slices.Grow(c.lists, len(c.peers))[:len(c.peers)]
	if opts.Cover != nil {
		c.useCover(opts)
	}
	return nil
}

// ledgerOf returns a ledger of the peers.
func ledgerOf(peers []PeerID) []PeerReport {
	ledger := make([]PeerReport, len(peers))
	for i, peer := range peers {
		ledger[i].Peer = peer
	}
	return ledger
}

// distinct is ledgerOf for peers among which one may stand several times.
func distinct(peers []PeerID) []PeerReport {
	ledger := make([]PeerReport, 0, len(peers))
	if len(peers) <= fewPeers {
		for i, peer := range peers {
			if !slices.Contains(peers[:i], peer) {
				ledger = append(ledger, PeerReport{Peer: peer})
			}
		}
		return ledger
	}
	// A table of places in the ledger, 0 for none, at the names' hashes or after. A map would take four times as long.
	pooled := placesPool.Get().(*[]uint32)
	places := zeroed(*pooled, 1<<bits.Len(uint(2*len(peers))))
	for _, peer := range peers {
		at := maphash.String(hashSeed, string(peer))
		for ; ; at++ {
			place := &places[at%uint64(len(places))]
			if *place == 0 {
				ledger = append(ledger, PeerReport{Peer: peer})
				*place = uint32(len(ledger))
				break
			}
			if ledger[*place-1].Peer == peer {
				break
			}
		}
	}
	*pooled = places
	placesPool.Put(pooled)
	return ledger
}

// fewPeers are so few that it is cheaper to compare each with each than to hash them.
const fewPeers = 12

var placesPool = sync.Pool{New: func() any { return new([]uint32) }}

// checkRequest returns the Order of a request that is good.
func checkRequest(req *Request) (Order, error) {
	switch {
	case req == nil:
		return 0, errors.New("scatter: Request is nil")
	case req.Query == nil:
		return 0, errors.New("scatter: Request.Query is nil")
	case isNilPointer(req.Query):
		return 0, fmt.Errorf("scatter: Request.Query is a nil %T", req.Query)
	case req.K < 1:
		return 0, fmt.Errorf("scatter: Request.K is %d, must be at least 1", req.K)
	}
	order := req.Query.Order()
	if !order.valid() {
		return 0, fmt.Errorf("scatter: the Order of Request.Query is unknown: %v", order)
	}
	return order, nil
}

func (o *Options) check() error {
	switch {
	case o.Limit < 0:
		return fmt.Errorf("scatter: Options.Limit is %d, must not be negative", o.Limit)
	case o.Cover == nil && len(o.Standby) > 0:
		return errors.New("scatter: Options.Standby needs Options.Cover, which is nil")
	case !(o.Require >= 0 && o.Require <= 1): // NaN is neither
		return fmt.Errorf("scatter: Options.Require is %v, must be from 0 to 1", o.Require)
	case !(o.Settle >= 0 && o.Settle <= 1):
		return fmt.Errorf("scatter: Options.Settle is %v, must be from 0 to 1", o.Settle)
	case o.Grace < 0:
		return fmt.Errorf("scatter: Options.Grace is %v, must not be negative", o.Grace)
	case o.Reserve < 0:
		return fmt.Errorf("scatter: Options.Reserve is %v, must not be negative", o.Reserve)
	}
	return nil
}

func isNilPointer(q Query) bool {
	v := reflect.ValueOf(q)
	return v.Kind() == reflect.Pointer && v.IsNil()
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
	case hedgeDue:
		c.hedge(ctl)
	case graceUp:
		c.over, c.enough = true, true
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
	case s == Gather && c.asked < len(c.peers):
		return Fanout
	case s == Gather && c.inFlight == 0:
		return Merging
	}
	return s
}

// Enter implements [Enterer].
func (c *Coordinator[H, ID]) Enter(ctl *Control[State, *Event[H]], _, to State) {
	told(c.trace.StateEntered, StateInfo{c.req, to})
	switch to {
	case Fanout, Gather:
		if to == Fanout || c.inFlight == 0 { // else there is somebody to wait for
			ctl.Raise(&c.own.goOn)
		}
	case Merging:
		c.merge(ctl.Now())
		ctl.Stop(c.failure())
	}
}

// failure is the error with which the query ends, or nil.
func (c *Coordinator[H, ID]) failure() error {
	if c.cause == nil && c.response.Coverage < c.require {
		return &CoverageError[H]{c.response, c.require}
	}
	return c.cause
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
	ctl.Timeout("query", left, &Event[H]{Kind: timeUp})
	return Fanout
}

// askMore asks as many peers as may be asked now. Once the query's time is up it asks nobody, even if a reply that was
// in hand by then has made room.
func (c *Coordinator[H, ID]) askMore(ctl *Control[State, *Event[H]]) {
	now := ctl.Now()
	if c.clock != nil && c.traced {
		now = c.clock() // hooks may have taken their time since the Step began
	}
	first, deadline := c.asked, c.deadline(now)
	defer func() { // when all probes run: a hook's time is not to be the next peer's
		if c.trace.ProbeStarted != nil {
			for _, peer := range c.peers[first:c.asked] {
				c.trace.ProbeStarted(ProbeStartInfo{c.req, peer.Peer, peer.Role, deadline})
			}
		}
	}()
	if !c.until.IsZero() && !now.Before(c.until) || c.graced && c.grace == 0 {
		return
	}
	after := now.Sub(c.begun)
	for c.asked < len(c.peers) && c.inFlight < c.limit && !c.blocked {
		i := c.asked
		peer := &c.peers[i]
		if c.unneeded(i) {
			continue
		}
		if !c.driver.ask(Ask{peer.Peer, peer.Role, i, deadline}) {
			c.blocked = true
			return
		}
		if c.inFlight == 0 && c.peerDeadline > 0 {
			ctl.Timeout("peer", c.peerDeadline, &c.own.peerLate)
		}
		peer.Status, peer.Elapsed = asking, after
		c.asked++
		c.inFlight++
		c.planHedge(ctl, i)
	}
}

// expire gives up on the peers whose deadline has come. All peers have the same time, so they come to their deadlines
// in the order in which they were asked, and one timeout serves all: that of the oldest.
func (c *Coordinator[H, ID]) expire(ctl *Control[State, *Event[H]]) {
	for ; c.oldest < c.asked; c.oldest++ {
		if c.peers[c.oldest].Status != asking {
			continue
		}
		left := c.askedAt(c.oldest).Add(c.peerDeadline).Sub(ctl.Now())
		if left > 0 {
			ctl.Timeout("peer", left, &c.own.peerLate)
			return
		}
		c.conclude(ctl.Now().Sub(c.begun), c.oldest, TimedOut, c.late(c.oldest, nil))
		c.replace(c.oldest, Fallback)
	}
}

func (c *Coordinator[H, ID]) replied(ctl *Control[State, *Event[H]], ev *Event[H]) {
	if ev.Index < 0 || ev.Index >= len(c.peers) || c.peers[ev.Index].Status != asking {
		c.drop(ev)
		return
	}
	status, err := c.outcome(ctl.Now(), ev)
	switch status {
	case Answered, Incomplete:
		if !ev.sorted && !inOrder(ev.Hits, c.order) {
			ev.Hits = sortedCopy(ev.Hits, c.order)
		}
		c.lists[ev.Index] = ev.Hits
		c.peers[ev.Index].Hits = len(ev.Hits)
	case Abandoned:
		// The query has been cancelled, and this is the first to tell. It ends when Cancel comes, or when nobody is out any
		// more, with the same error.
		if c.cause == nil {
			c.cause = ev.cause
		}
	}
	ev.Hits = nil // a late probe must not keep other peers' hits alive
	at := ev.at
	if !ev.timed {
		at = ctl.Now().Sub(c.begun)
	}
	c.conclude(at, ev.Index, status, err)
	switch status {
	case Answered:
	case Abandoned:
		return
	default:
		c.replace(ev.Index, Fallback)
		return
	}
	c.answered++
	if c.coverage != nil && c.selection.numbers[ev.Index] >= 0 {
		c.coverage.answer(c.selection.numbers[ev.Index])
		if !c.waitAll && c.answered >= c.least && c.whole() {
			c.over, c.enough = true, true
			return
		}
	}
	if c.settle > 0 && !c.graced && c.share() >= c.settle {
		c.graced = true
		// At least 1, because a timeout of 0 comes before a reply in hand.
		ctl.Timeout("grace", max(c.grace, 1), &Event[H]{Kind: graceUp})
	}
}

// awaited returns how many replies may come in before one can decide anything: all, if none alone does. Apart from that
// each failure counts, if there are standbys.
func (c *Coordinator[H, ID]) awaited() uint64 {
	n := c.inFlight
	switch {
	case c.asked < len(c.peers), c.settle > 0, c.trace.ProbeDone != nil:
		n = 1
	case c.coverage != nil && !c.waitAll:
		n = min(n, c.least-c.answered)
	}
	return uint64(max(n, 1))
}

// share is how much has an answer.
func (c *Coordinator[H, ID]) share() float64 {
	switch {
	case c.coverage != nil:
		return c.coverage.share()
	case len(c.peers) == 0:
		return 0
	}
	return float64(c.answered) / float64(len(c.peers))
}

// drop tells of a reply that nobody waits for. A probe that returned an error because its context was over has done as
// it should: that is no late reply.
func (c *Coordinator[H, ID]) drop(ev *Event[H]) {
	if !ev.obeyed {
		peer := ev.peer
		if peer == "" && ev.Index >= 0 && ev.Index < len(c.peers) {
			peer = c.peers[ev.Index].Peer
		}
		told(c.trace.LateReply, LateReplyInfo{c.req, peer, len(ev.Hits), ev.Err})
	}
	ev.Hits = nil
}

// conclude makes the line of a peer that is waited for final, at a time after the query began.
func (c *Coordinator[H, ID]) conclude(at time.Duration, i int, status Status, err error) {
	peer := &c.peers[i]
	peer.Status, peer.Err = status, err
	peer.Elapsed = max(at-peer.Elapsed, 0) // the Step may have begun before it was asked
	c.inFlight--
	c.driver.concluded(i)
	if c.trace.ProbeDone != nil {
		c.trace.ProbeDone(ProbeDoneInfo{c.req, *peer})
	}
}

// outcome tells what a reply makes of its peer.
func (c *Coordinator[H, ID]) outcome(now time.Time, ev *Event[H]) (Status, error) {
	status := ev.status
	if status == NotAsked { // stepped by hand
		status = classify(ev.Err)
		deadline := c.deadline(c.askedAt(ev.Index))
		if status == Failed && !deadline.IsZero() && !now.Before(deadline) {
			return TimedOut, c.late(ev.Index, ev.Err)
		}
	}
	if status == TimedOut && ev.obeyed {
		return status, c.late(ev.Index, ev.Err)
	}
	return status, ev.Err
}

// askedAt is when a peer was asked that is waited for.
func (c *Coordinator[H, ID]) askedAt(i int) time.Time { return c.begun.Add(c.peers[i].Elapsed) }

// deadline is when a peer is given up on that was asked at a time: at its own deadline or the query's, or never.
func (c *Coordinator[H, ID]) deadline(askedAt time.Time) time.Time {
	if own := askedAt.Add(c.peerDeadline); c.peerDeadline > 0 && (c.until.IsZero() || own.Before(c.until)) {
		return own
	}
	return c.until
}

// late is the error of a peer that gave no hits by the deadline, and said what its probe said instead, or nil.
func (c *Coordinator[H, ID]) late(i int, said error) error {
	e := &lateError{said: said}
	if c.peerDeadline > 0 && !c.askedAt(i).Add(c.peerDeadline).After(c.deadline(c.askedAt(i))) {
		e.deadline = c.peerDeadline
	}
	return e
}

// lateError is the error of a peer that has not answered in time.
type lateError struct {
	deadline time.Duration // the peer's own; 0 if it was the query's that had come
	said     error         // what the probe said instead; may be nil
}

func (e *lateError) Error() string {
	s := "scatter: the query's time was up"
	if e.deadline != 0 {
		s = fmt.Sprintf("scatter: no reply within %v", e.deadline)
	}
	if e.said != nil {
		s += ": " + e.said.Error()
	}
	return s
}

func (e *lateError) Timeout() bool { return true }

func (e *lateError) Unwrap() []error {
	if e.said == nil {
		return []error{context.DeadlineExceeded}
	}
	return []error{context.DeadlineExceeded, e.said}
}

// merge ends the query: it gives up on the peers still out, and makes the Response.
func (c *Coordinator[H, ID]) merge(now time.Time) {
	for i := range c.peers {
		peer := &c.peers[i]
		if peer.Status != asking && peer.Status != NotAsked {
			continue
		}
		status, err := TimedOut, error(nil)
		switch {
		case c.cause != nil:
			status, err = Abandoned, c.cause
		case c.enough:
			status, err = Spare, ErrEnough
		case peer.Status == asking:
			err = c.late(i, nil)
		default:
			err = &lateError{}
		}
		if peer.Status == asking {
			c.conclude(now.Sub(c.begun), i, status, err)
			continue
		}
		peer.Err = err
		if peer.Role != Primary {
			c.standbys.hedging.budget().giveBack(1)
		}
	}
	r := &Response[H]{Peers: c.peers, PeersConsulted: c.asked, Coverage: c.share()}
	r.Partial = r.Coverage < 1
	if c.coverage != nil && r.Partial {
		r.Missing = c.coverage.gaps(c.report)
	}
	replies := 0
	for _, peer := range c.peers {
		switch peer.Status {
		case Answered, Incomplete:
			replies++
		case TimedOut:
			r.PeersTimedOut++
		case Failed:
			r.PeersFailed++
		}
	}
	began, ended := now, now
	if c.clock != nil && c.traced {
		began = c.clock()
	}
	var duplicates int
	r.Hits, duplicates = mergeSorted(nil, c.lists, c.req.K, c.order)
	clear(c.lists)
	if c.clock != nil {
		ended = c.clock()
	}
	if !c.begun.IsZero() {
		r.Elapsed = ended.Sub(c.begun)
	}
	c.response = r
	told(c.trace.MergeDone, MergeInfo{
		Request: c.req, Lists: replies, Hits: len(r.Hits), Duplicates: duplicates,
		Partial: r.Partial, Coverage: r.Coverage, Missing: r.Missing, Elapsed: ended.Sub(began),
		QueryElapsed: r.Elapsed,
	})
}
