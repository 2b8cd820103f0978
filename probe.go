package scatter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// PeerID names a peer: a node that holds a part of the index. Its text means nothing to scatter.
type PeerID string

// Request is one query, as every peer is asked it. All probes share it, so nobody may write to it, or to what it points
// to, once it is handed over: a late probe may read it long after [Broadcast] has returned.
type Request struct {
	Table string // the index or table to search
	Query Query  // [KNN], [Text], [Regex], or a type of the caller's own
	K     int    // hits wanted of each peer, and of the merged answer; at least 1
}

// Query is what a [Request] asks. Order is the order in which each peer sorts its hits and in which they are merged; it
// must give the same answer whenever it is called.
type Query interface{ Order() Order }

// KNN asks for the nearest neighbours of a vector.
type KNN struct {
	Field   string    // the indexed vector field
	Vector  []float32 // the query vector
	EF      int       // the search breadth of a graph index; 0: the index's default
	Ranking Order     // ScoreAscending, the zero value, for distances; ScoreDescending for similarities
}

// Order returns q.Ranking.
func (q KNN) Order() Order { return q.Ranking }

// Text asks for the documents whose field contains a substring, by ascending ID.
type Text struct {
	Field     string
	Substring []byte
}

// Order returns IDAscending.
func (Text) Order() Order { return IDAscending }

// Regex asks for the documents whose field matches a pattern with at most MaxErrors edits, by ascending ID.
type Regex struct {
	Field, Pattern string
	MaxErrors      uint16
}

// Order returns IDAscending.
func (Regex) Order() Order { return IDAscending }

// Probe asks one peer, over whatever transport the caller has, and returns the peer's best req.K hits, sorted in
// req.Query's Order. Unsorted hits are noticed and sorted in a copy; more than K are no fault, only waste.
//
// ctx carries the peer's deadline and ends early if the query does. A probe should return soon after; one that doesn't
// loses its hits and holds up nobody, but keeps its goroutine. One that coordinates peers of its own and wants to give
// what it has when time is up must do so a little before ctx's deadline: see Options.Reserve. Several probes run at
// once, each on a goroutine that no other runs on meanwhile; when one has returned, the next may run on the same.
//
// The hits returned are read until Broadcast returns, and the answer shares what they point to; they are never written
// to. With an error, they are dropped, unless the error is [ErrPartial]. A panic, or runtime.Goexit, is an error of
// that peer alone.
type Probe[H any] func(ctx context.Context, peer PeerID, req *Request) ([]H, error)

// AsyncProbe asks one peer without waiting for it, over a transport that has many requests under way on one connection:
// it sends the request and returns, and done is called when the reply is in, on whichever goroutine that is. What
// [Probe] says of ctx, of hits and of errors holds here as well.
//
// Only the first call of done counts; done never blocks, and may be called before the AsyncProbe returns, after ctx is
// over, or never. An AsyncProbe must not block either, nor end its goroutine: it runs on the one that called
// [BroadcastAsync] or [Searcher.Search], and all else waits for it. A panic in it is an error of that peer alone;
// after done was called, it is told to [Trace].LateReply.
type AsyncProbe[H any] func(ctx context.Context, peer PeerID, req *Request, done func([]H, error))

// ErrPartial is returned by a [Probe], alone or wrapped, together with hits that are good but not all the peer should
// have: it ran into its own time limit, say, or asked peers of its own and one was missing ([Reply].TimedOut). The hits
// count, the peer's status is [Incomplete], and the Response is Partial.
var ErrPartial = errors.New("scatter: the peer's reply is partial")

// reply is what came of asking one peer.
type reply[H any] struct {
	hits   []H
	err    error
	status Status
	sorted bool // hits are known to be in order
	obeyed bool // err was returned because the probe's context was over
}

// runProbe asks a peer, and puts into r what came of that, however the probe ends. What it takes to judge a reply is
// done here, side by side with the other probes and where a panic is contained, and not on the goroutine that the
// caller waits on: to check the order of the hits, and to ask the error what it is.
func runProbe[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, probe Probe[H], peer PeerID, req *Request, order Order, r *reply[H],
) {
	returned := false
	defer func() {
		if err := caught(returned, recover()); err != nil {
			*r = reply[H]{err: err, status: Failed}
		}
	}()
	r.hits, r.err = probe(ctx, peer, req)
	r.status = classify(r.err)
	switch {
	case r.status == Answered || r.status == Incomplete:
		if !inOrder(r.hits, order) {
			r.hits = sortedCopy(r.hits, order)
		}
		r.sorted = true
	case ctx.Err() == nil:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		// Whatever the probe says now is a consequence of that, in the words of its transport.
		r.status, r.obeyed = TimedOut, true
		if errors.Is(r.err, context.DeadlineExceeded) {
			r.err = nil // it has nothing to add to what the Coordinator will say
		}
	default:
		r.status, r.obeyed = Abandoned, true
	}
	returned = true
}

// classify tells what a probe's error makes of its peer, from the error alone.
func classify(err error) Status {
	if err == nil {
		return Answered
	}
	//nolint:errorlint // a panic with whatever value, but not one that err only tells of
	if _, panicked := err.(*PanicError); panicked {
		return Failed
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, ErrPartial):
		return Incomplete
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return TimedOut
	}
	return Failed
}

// lifetime is how long the probes of one query are wanted. What tells a probe of it, a context of the standard library,
// is made when a probe first looks at its own: it costs as much as all the rest of asking one peer, and not every
// transport looks. It is safe for concurrent use.
type lifetime struct {
	parent context.Context // the caller's
	first  probeContext    // the first that was made: there is seldom a second
	recent *probeContext   // the one made last

	mu      sync.Mutex
	ctx     context.Context // nil: nobody has looked
	cancels []context.CancelCauseFunc
	ended   error     // the cause, once it is over
	endedAt time.Time // when that was
}

// contextUntil returns a probe's context, with its deadline if that isn't zero. Peers asked at the same time share one,
// and with it one timer. It is for one goroutine alone.
func (l *lifetime) contextUntil(deadline time.Time) context.Context {
	if l.recent == nil || !l.recent.until.Equal(deadline) {
		made := &l.first
		if l.recent != nil {
			made = new(probeContext)
		}
		made.lifetime, made.until = l, deadline
		l.recent = made
	}
	return l.recent
}

// end has all contexts be over since a time, those made from now on too.
func (l *lifetime) end(cause error, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended, l.endedAt = cause, at
	for _, cancel := range l.cancels {
		cancel(cause)
	}
	l.cancels = nil
}

// probeContext is the context of the probes that have one deadline.
type probeContext struct {
	*lifetime
	until time.Time       // zero: none but the parent's
	real  context.Context // guarded by mu; nil: nobody has looked
}

// look returns the context that all but the deadline is asked of. What it tells doesn't depend on when it is made.
func (c *probeContext) look() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.real = c.makeLocked()
	}
	return c.real
}

func (c *probeContext) makeLocked() context.Context {
	parent := c.parent
	if c.ended != nil { // what becomes of the parent is of no matter
		parent = context.WithoutCancel(parent)
	}
	if c.ended != nil && !c.until.IsZero() && !c.until.After(c.endedAt) { // the deadline came first
		ctx, cancel := context.WithDeadline(parent, c.until)
		cancel()
		return ctx
	}
	if c.ctx == nil {
		c.ctx = c.cancelled(context.WithCancelCause(parent))
	}
	if c.until.IsZero() {
		return c.ctx
	}
	ctx, cancel := context.WithDeadline(c.ctx, c.until)
	return c.cancelled(ctx, func(error) { cancel() })
}

// cancelled sees to it that a context is cancelled in the end.
func (l *lifetime) cancelled(ctx context.Context, cancel context.CancelCauseFunc) context.Context {
	if l.ended != nil {
		cancel(l.ended)
	} else {
		l.cancels = append(l.cancels, cancel)
	}
	return ctx
}

// Deadline, Done, Err and Value make it a context.Context. A context derived from it finds the standard library's in it
// by Value, so that it takes no goroutine.
func (c *probeContext) Deadline() (time.Time, bool) {
	until, ok := c.parent.Deadline()
	if c.until.IsZero() || ok && until.Before(c.until) {
		return until, ok
	}
	return c.until, true
}

func (c *probeContext) Done() <-chan struct{} { return c.look().Done() }
func (c *probeContext) Err() error            { return c.look().Err() }
func (c *probeContext) Value(key any) any     { return c.look().Value(key) }

// String is for those who print a context: fmt would look into c while others write to it.
func (c *probeContext) String() string { return fmt.Sprint(c.look()) }
