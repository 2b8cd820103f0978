package scatter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"
)

// State is the state of a [Coordinator]. A query goes through them in turn. One that ends early, or
// has nobody to wait for, skips to Merging.
type State uint8

// The states.
const (
	Init    State = iota // before Begin
	Fanout               // there are peers still to be asked; replies are taken as they come
	Gather               // all have been asked, and replies are awaited; a standby leads back to Fanout
	Merging              // the query has ended, and Response has the answer
)

func (s State) String() string { return enumString(s, stateNames) }

var stateNames = []string{"Init", "Fanout", "Gather", "Merging"}

// Ask is a [Coordinator]'s demand that a peer be asked now.
type Ask struct {
	Peer     PeerID
	Role     Role
	Index    int       // for Coordinator.Reply
	Deadline time.Time // when the Coordinator stops waiting for the peer; zero if only when the query ends
	Request  *Request  // what to ask: with Options.PeerK, with a K and a Skip of its own
}

// query is what is known of one query: who was asked, what is covered, when it ends.
type query[H Ranked[ID], ID cmp.Ordered] struct {
	req      *Request
	first    *Request // what peers are asked at first
	want     wanted[ID]
	opts     Options // with defaults
	driver   driver
	strategy strategy        // of a Searcher; else nil
	ctx      context.Context // of the query's hooks
	shared   bool            // its time may be extended, so that no probe's deadline follows from it

	ledger   ledger[H, ID]
	coverage *coverage // nil without a Cover
	hedger   *hedger   // nil without standbys

	begun    time.Time
	until    time.Time  // when the query's time is up; zero: never
	graced   bool       // EnoughCoverage was reached, and Grace runs
	over     bool       // the query ends now,
	enough   bool       // because the answer is complete enough,
	left     bool       // or because the caller has all that it wants,
	cause    error      // or for this reason
	late     *lateError // the one made last, for other peers to share
	response *Response[H]
	err      error // with which the query has ended
}

// driver asks peers for a query.
type driver interface {
	// ask asks a peer and returns the context for its hooks, or returns false if it can't ask yet.
	ask(Ask) (context.Context, bool)
	// now returns the time in the middle of an event, or zero if none passes.
	now() time.Time
	// concluded is called when a peer that was asked is no longer waited for.
	concluded(i int)
}

// strategy is a Searcher's part in a query: it chooses the peers and learns from them.
type strategy interface {
	choose(now, until time.Time) *selection
	asked(peer int32, role Role, again bool)
	concluded(now time.Time, peer int32, report *PeerReport)
	finished(merge time.Duration)
}

// selection is which peers of a Cover a query asks.
type selection struct {
	cover    *Cover
	live     bitset
	peers    []int32 // to be asked at first, ascending
	coverage *coverage
	hedger   *hedger // nil: there are no standbys
}

// init checks the arguments and sets what follows from them.
func (q *query[H, ID]) init(req *Request, opts *Options) error {
	order, err := checkRequest(req)
	if err != nil {
		return err
	}
	if opts != nil {
		if err := opts.check(); err != nil {
			return err
		}
		q.opts = *opts
	}
	q.opts.PeerDeadline = cmp.Or(q.opts.PeerDeadline, DefaultPeerDeadline)
	q.opts.Limit = cmp.Or(q.opts.Limit, math.MaxInt)
	q.req, q.first, q.ctx = req, req, context.Background()
	q.want = wanted[ID]{order: order, k: req.K}
	if q.opts.Bound != nil && order == IDAscending {
		return errors.New("scatter: Options.Bound is set, but the query is ordered by ID")
	}
	if req.Skip != 0 { // Rule 45
		q.ownFirst().Skip = 0
	}
	return q.setAfter()
}

// ownFirst returns the request of the first round, which may be written to until it is sent.
func (q *query[H, ID]) ownFirst() *Request {
	if q.first == q.req {
		own := *q.req
		q.first = &own
	}
	return q.first
}

// setAfter decodes the cursor of the request. Rule 46.
func (q *query[H, ID]) setAfter() error {
	if q.req.After == "" {
		return nil
	}
	hit, order, start, err := decodeCursor[ID](q.req.After)
	switch {
	case err != nil:
		return err
	case order != q.want.order:
		return &CursorError{q.req.After, fmt.Sprintf("is of the order %v, the query of %v", order, q.want.order)}
	case start:
		q.ownFirst().After = ""
	default:
		q.want.after = &hit
	}
	return nil
}

// prepare sets what depends on the peers that are to be asked at first.
func (q *query[H, ID]) prepare() {
	if q.opts.PeerK != nil { // Rule 44
		k := q.opts.PeerK(q.req.K, q.ledger.waiting)
		q.ownFirst().K = min(max(k, 1), q.req.K)
	}
	if q.opts.Bound != nil { // Rule 47
		for i := range q.ledger.peers {
			q.setBound(&q.ledger.peers[i])
		}
		q.ledger.orderByBounds(q.want.order)
	}
}

func (q *query[H, ID]) setBound(p *peer[H]) {
	if q.opts.Bound != nil {
		p.bound, p.bounded = q.opts.Bound(p.report.Peer, q.req)
		p.bounded = p.bounded && p.bound == p.bound
	}
}

// checkBroadcast returns an error if there is an option that only a Searcher heeds.
func (q *query[H, ID]) checkBroadcast() error {
	if q.opts.Affinity != "" {
		return fmt.Errorf("scatter: Options.Affinity is %q, but only a Searcher chooses replicas", q.opts.Affinity)
	}
	return nil
}

// setPeers makes the ledger of a query that asks the given peers.
func (q *query[H, ID]) setPeers(peers []PeerID) {
	q.ledger.peers = make([]peer[H], 0, len(peers))
	cover := q.opts.Cover
	var hoped bitset
	if cover != nil {
		hoped = newBitset(len(cover.peers))
	}
	addDistinct(peers, func(id PeerID) {
		number, live := int32(-1), q.opts.Live.of(id)
		if cover != nil {
			number = cover.number(id)
		}
		if live && number >= 0 {
			hoped.add(number)
		}
		q.ledger.add(id, number, Primary, !live) // Rule 31
	})
	if cover != nil {
		q.coverage = newCoverage(cover, hoped)
	}
	q.prepare()
}

// useSelection makes the ledger of a query whose peers a Searcher has chosen. The dead peers of the
// Cover have their lines among them. Rule 31.
func (q *query[H, ID]) useSelection(s *selection) {
	q.coverage, q.hedger = s.coverage, s.hedger
	q.ledger.peers = make([]peer[H], 0, len(s.peers)+2) // with some room for standbys
	chosen := s.peers
	for i, id := range s.cover.peers {
		number := int32(i)
		switch {
		case len(chosen) > 0 && chosen[0] == number:
			q.ledger.add(id, number, Primary, false)
			chosen = chosen[1:]
		case !s.live.has(number):
			q.ledger.add(id, number, Primary, true)
		}
	}
	q.prepare()
}

// dropReply tells the trace of a reply that nobody waits for. A probe that returned an error
// because its context had ended has done what it should: that is no late reply.
func (q *query[H, ID]) dropReply(i int, r *reply[H]) {
	if !r.obeyed && i >= 0 && i < len(q.ledger.peers) && q.ledger.peers[i].ctx != nil {
		p := &q.ledger.peers[i]
		q.tellLate(p.ctx, p.report.Peer, r)
	}
}

func (q *query[H, ID]) tellLate(ctx context.Context, id PeerID, r *reply[H]) {
	if q.opts.Trace != nil {
		tell(ctx, q.opts.Trace.LateReply, LateReplyInfo{q.req, id, len(r.hits), r.err})
	}
}

// probeStarted calls the hook and returns the context for the probe.
func (q *query[H, ID]) probeStarted(ctx context.Context, a Ask) context.Context {
	if q.opts.Trace == nil {
		return ctx
	}
	return started(ctx, q.opts.Trace.ProbeStarted, ProbeInfo{q.req, a.Peer, a.Role, a.Deadline})
}

// deadline returns when a peer asked at a time is given up on: at its own deadline or the query's,
// or never.
func (q *query[H, ID]) deadline(askedAt time.Time) time.Time {
	own := askedAt.Add(q.opts.PeerDeadline)
	switch {
	case q.opts.PeerDeadline < 0 && q.shared:
		return time.Time{}
	case q.opts.PeerDeadline < 0:
		return q.until
	case q.shared || q.until.IsZero() || own.Before(q.until):
		return own
	}
	return q.until
}

// endOf returns when the query's time is up, if its caller's time is up at until: MergeReserve
// earlier, but no more than half of what is left. Rules 28 and 42.
func (q *query[H, ID]) endOf(now, until time.Time) time.Time {
	if until.IsZero() {
		return until
	}
	return until.Add(-min(q.opts.MergeReserve, max(until.Sub(now), 0)/2))
}

// isPastDeadline reports whether a peer that is being asked should have answered by now.
func (q *query[H, ID]) isPastDeadline(now time.Time, i int) bool {
	if i < 0 || i >= len(q.ledger.peers) || q.ledger.peers[i].phase != asking {
		return false
	}
	deadline := q.deadline(q.ledger.peers[i].askedAt)
	return !deadline.IsZero() && !now.Before(deadline)
}

// lateError returns the error of a peer that was asked and gave no hits in time.
func (q *query[H, ID]) lateError(p *peer[H], probeErr error) error {
	var deadline time.Duration
	own := p.askedAt.Add(q.opts.PeerDeadline)
	if q.opts.PeerDeadline > 0 && (q.until.IsZero() || !own.After(q.until)) {
		deadline = q.opts.PeerDeadline
	}
	if probeErr != nil {
		return &lateError{what: "reply", deadline: deadline, probeErr: probeErr}
	}
	return q.sharedLate("reply", deadline)
}

// sharedLate returns a lateError. Peers that are late in the same way share one. Rule 40.
func (q *query[H, ID]) sharedLate(what string, deadline time.Duration) error {
	if q.late == nil || q.late.what != what || q.late.deadline != deadline {
		q.late = &lateError{what: what, deadline: deadline}
	}
	return q.late
}

// conclude makes the line of a peer final.
func (q *query[H, ID]) conclude(i int, status Status, err error, at time.Time) {
	p := &q.ledger.peers[i]
	if p.refill > 0 {
		q.concludeRefill(i, status, err, at)
		return
	}
	wasAsked := p.phase == asking
	q.ledger.conclude(i, status, err, at)
	if !wasAsked {
		if p.report.Role != Primary {
			q.hedger.purses.of(p.report.Role).giveBack()
		}
		return
	}
	q.probeDone(i, &p.report, at)
}

// probeDone tells all that want to know what came of a probe.
func (q *query[H, ID]) probeDone(i int, report *PeerReport, at time.Time) {
	p := &q.ledger.peers[i]
	q.driver.concluded(i)
	if q.strategy != nil {
		q.strategy.concluded(at, p.number, report)
	}
	if trace := q.opts.Trace; trace != nil {
		tell(p.ctx, trace.ProbeDone, ProbeDoneInfo{q.req, *report})
	}
}

// concludeRefill records that a peer has replied, or not, to its second question. Its line remains
// that of the first one. Rule 45.
func (q *query[H, ID]) concludeRefill(i int, status Status, err error, at time.Time) {
	p := &q.ledger.peers[i]
	wasAsked := p.phase == asking
	q.ledger.end(p)
	if !wasAsked {
		return
	}
	report := p.report
	report.Status, report.Err, report.Elapsed = status, err, max(at.Sub(p.askedAt), 0)
	q.probeDone(i, &report, at)
}

// share returns how much has an answer.
func (q *query[H, ID]) share() float64 {
	switch {
	case q.coverage != nil:
		return q.coverage.share()
	case len(q.ledger.peers) == 0: // Rule 8
		return 0
	}
	return float64(q.ledger.answered) / float64(len(q.ledger.peers))
}

// verdict says what becomes of a peer if the query ends now.
func (q *query[H, ID]) verdict(p *peer[H]) (Status, error) {
	var err error
	status := TimedOut
	switch {
	case q.cause != nil:
		status, err = Abandoned, q.cause
	case q.left, q.enough && p.refill == 0:
		status, err = NotNeeded, ErrEnough
	case p.phase != asking:
		err = q.sharedLate("reply", 0)
	default:
		err = q.lateError(p, nil)
	}
	if p.phase != asking {
		status = NotAsked
	}
	return status, err
}

// respond makes the Response of a query that ends now, and in which a peer without an outcome gets
// that of verdict.
func (q *query[H, ID]) respond(
	now time.Time, verdict func(*peer[H]) (Status, error),
) (r *Response[H], duplicates int) {
	r, duplicates = q.ledger.response(q.req.K, q.want.order, now, verdict)
	r.Coverage = q.share()
	r.Partial = r.Coverage < 1 // Rule 7
	if q.coverage != nil && r.Partial {
		r.Missing = q.coverage.missing()
	}
	r.Exact = q.ledger.exact(r.Hits, q.want.order)
	r.Next = q.ledger.nextCursor(r, &q.want, q.req.After)
	r.Elapsed = now.Sub(q.begun)
	return r, duplicates
}

// failure returns the error of a query that ends with a Response, and for a cause unless that is
// nil. Rules 9, 28 and 37.
func (q *query[H, ID]) failure(r *Response[H], cause error) error {
	if cause == nil && r.Coverage < q.opts.MinCoverage {
		return &CoverageError[H]{r, q.opts.MinCoverage}
	}
	return cause
}

// snapshot returns what a caller gets whose time is up now, or who leaves for a cause, while the
// query goes on for others. Rule 41.
func (q *query[H, ID]) snapshot(now time.Time, cause error) (*Response[H], error) {
	r, _ := q.respond(now, func(p *peer[H]) (Status, error) {
		status, err := TimedOut, q.sharedLate("reply", 0)
		if cause != nil {
			status, err = Abandoned, cause
		}
		if p.phase != asking {
			status = NotAsked
		}
		return status, err
	})
	return r, q.failure(r, cause)
}

// isPermanent reports whether a probe's error ends the query. A panic is an error of its peer
// alone, whatever its value. Rules 12 and 37.
func isPermanent(err error) bool {
	//nolint:errorlint // an error that wraps a panic is not a panic
	_, panicked := err.(*PanicError)
	return !panicked && errors.Is(err, ErrPermanent)
}

// checkRequest returns the Order of a good request, or an error that says what is wrong. Rule 11.
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

func isNilPointer(q Query) bool {
	v := reflect.ValueOf(q)
	return v.Kind() == reflect.Pointer && v.IsNil()
}
