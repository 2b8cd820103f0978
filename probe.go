package scatter

import (
	"cmp"
	"context"
	"errors"
	"sort"
	"time"
)

// Probe asks one peer, over any transport, and returns the peer's best req.K hits, sorted in
// req.Query's Order. Hits that are not sorted are copied and sorted, and the ledger says so
// (PeerReport.Unsorted). More hits than req.K are cut.
//
// ctx carries the peer's deadline and ends early if the query does. A probe should return soon
// after that. If it doesn't, its hits are dropped, and it delays nobody, but it keeps its
// goroutine. The cause of a cancelled ctx, by [context.Cause], says why: [ErrEnough] means that
// nothing is wrong with the peer. A probe that coordinates peers of its own, and wants to return
// what it has when time is up, must do so a little before ctx's deadline: see Options.MergeReserve.
//
// Probes run concurrently. Their goroutines are reused: after a probe has returned, the next one
// may run on the same goroutine.
//
// Broadcast reads the returned hits until it returns, and never writes to them. The Response shares
// what they point to.
//
// errors.Is tells what an error means. [ErrPermanent] ends the query. [ErrPartial] makes the peer
// [Incomplete], and the hits count. With any other error they are dropped. An error that is
// [context.DeadlineExceeded], or has a Timeout method that returns true, makes the peer [TimedOut].
// All others make it [Failed] or, once ctx has ended, TimedOut or [Abandoned]. A panic and
// runtime.Goexit make it Failed, and concern that peer alone.
//
// The package knows no transport's status codes. A probe must wrap such an error in one of these:
// fmt.Errorf("%w: %w", context.DeadlineExceeded, err) for DEADLINE_EXCEEDED of gRPC, say.
type Probe[H any] func(ctx context.Context, peer PeerID, req *Request) ([]H, error)

// AsyncProbe asks one peer without waiting for it, over a transport that has many requests under
// way on one connection. It sends the request and returns; done is called when the reply is in, on
// any goroutine. What [Probe] says of ctx, hits and errors holds here as well.
//
// Only the first call of done counts. done never blocks, and may be called before the AsyncProbe
// returns, after ctx has ended, or never. An AsyncProbe must not block, nor end its goroutine: it
// runs on the one that called [BroadcastAsync] or [Searcher.Search], and everything else waits for
// it. A panic in it is an error of that peer alone; if done was called before, it goes to
// [Trace].LateReply.
type AsyncProbe[H any] func(ctx context.Context, peer PeerID, req *Request, done func([]H, error))

// reply is the outcome of one probe.
type reply[H any] struct {
	hits     []H // sorted, and no more than are needed
	err      error
	status   Status
	unsorted bool  // the probe's hits were not sorted
	obeyed   bool  // err was returned because the probe's context had ended,
	cause    error // and, if it was cancelled, this is the cause

	given       int // how many hits the probe returned,
	first, last H   // and the first and the last of them, if there are any
}

// wanted is what a query wants of a reply.
type wanted[ID cmp.Ordered] struct {
	order Order
	k     int
	after *Hit[ID] // only what ranks behind it; nil: everything
}

// runProbe calls a probe and puts the outcome into r, also if it panics or ends its goroutine. It
// sorts and judges the reply here, concurrently with other probes and where a panic is contained,
// and not on the goroutine that the caller waits on. own is the context that the query gave the
// probe; ctx may be a hook's, derived from it.
func runProbe[H Ranked[ID], ID cmp.Ordered](
	ctx, own context.Context, probe Probe[H], peer PeerID, req *Request, want *wanted[ID], r *reply[H],
) {
	returned := false
	defer func() {
		if err := caught(returned, recover()); err != nil { // Rule 12
			*r = reply[H]{err: err, status: Failed}
		}
	}()
	hits, err := probe(ctx, peer, req)
	judge(hits, err, want, r)
	if r.status != Answered && r.status != Incomplete && !errors.Is(err, ErrPermanent) {
		r.judgeLate(own)
	}
	returned = true
}

// judge sets r, which is zero, to what a probe's hits and error make of its peer. It sorts the hits
// if they need it, and leaves out what the answer can't need. Rules 4, 40 and 46.
func judge[H Ranked[ID], ID cmp.Ordered](hits []H, err error, want *wanted[ID], r *reply[H]) {
	r.err, r.status, r.given = err, classify(err), len(hits)
	if r.status != Answered && r.status != Incomplete {
		return
	}
	if r.unsorted = !inOrder(hits, want.order); r.unsorted {
		hits = sortedCopy(hits, want.order)
	}
	if len(hits) > 0 {
		r.first, r.last = hits[0], hits[len(hits)-1]
	}
	if want.after != nil {
		hits = hits[countUpTo(hits, *want.after, want.order):]
	}
	r.hits = hits[:distinctPrefix(hits, want.k, want.order)]
}

// countUpTo returns how many of the sorted hits rank at or before a place.
func countUpTo[H Ranked[ID], ID cmp.Ordered](hits []H, place Hit[ID], order Order) int {
	return sort.Search(len(hits), func(i int) bool { return compareHits(hits[i].hit(), place, order) > 0 })
}

// judgeLate judges an error that was returned after the probe's context had ended: whatever the
// probe says then is a consequence of that, in the words of its transport.
func (r *reply[H]) judgeLate(ctx context.Context) {
	switch err := ctx.Err(); {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded):
		r.timeOut()
	default:
		r.status, r.obeyed, r.cause = Abandoned, true, context.Cause(ctx)
	}
}

// timeOut makes r the reply of a probe that returned an error after the peer's deadline.
func (r *reply[H]) timeOut() {
	r.status, r.obeyed = TimedOut, true
	if errors.Is(r.err, context.DeadlineExceeded) {
		r.err = nil // it has nothing to add to a lateError
	}
}

// classify says what a probe's error makes of its peer, from the error alone.
func classify(err error) Status {
	if err == nil {
		return Answered
	}
	//nolint:errorlint // a panic with any value, but not an error that wraps one
	if _, panicked := err.(*PanicError); panicked {
		return Failed
	}
	switch {
	case errors.Is(err, ErrPermanent):
		return Failed
	case errors.Is(err, ErrPartial):
		return Incomplete
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return TimedOut
	}
	return Failed
}

// isTimeout reports whether an error is a time-out in the sense of package net. It is a function of
// its own because the variable is allocated.
func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// lateError is the Err of a peer that gave no hits in time.
type lateError struct {
	what     string        // what did not happen in time
	deadline time.Duration // the peer's own; zero if the query's time was up
	probeErr error         // what the probe returned instead; may be nil
}

func (e *lateError) Error() string {
	s := "scatter: the query's time was up"
	if e.deadline != 0 {
		s = "scatter: no " + e.what + " within " + e.deadline.String()
	}
	if e.probeErr != nil {
		s += ": " + e.probeErr.Error()
	}
	return s
}

// Timeout makes a lateError a time-out to those who ask as package net does.
func (e *lateError) Timeout() bool { return true }

func (e *lateError) Unwrap() []error {
	if e.probeErr == nil {
		return []error{context.DeadlineExceeded}
	}
	return []error{context.DeadlineExceeded, e.probeErr}
}
