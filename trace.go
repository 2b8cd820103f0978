package scatter

import (
	"context"
	"time"
)

// Trace is a set of hooks that are called as a query goes on, for logs, metrics and spans. Any of
// them may be nil.
//
// A hook gets the context of what it is told about. QueryStarted and ProbeStarted return the
// context for what comes after, so that spans nest: it must descend from the one given, and nil
// leaves that in place. The caller's context goes into QueryStarted; what that returns goes into
// QueryDone and, with the peer's deadline, into ProbeStarted; what that returns goes into the
// probe, ProbeDone and LateReply. A [Coordinator] that is stepped by hand starts with
// context.Background().
//
// Hooks are called without a lock held, one at a time, on the goroutine that called [Broadcast]
// (or, if callers share a query, on a goroutine of the query's own). The query waits for them while
// its deadlines run, so they must be quick. A panic in a hook passes to Broadcast's caller.
// LateReply alone may also be called on other goroutines, concurrently with the others and after
// Broadcast has returned; a panic there ends the program. A hook must not write to what an Info
// points to.
//
// One Trace may serve many queries at once.
type Trace struct {
	QueryStarted func(context.Context, QueryInfo) context.Context // a query begins
	ProbeStarted func(context.Context, ProbeInfo) context.Context // a peer is about to be asked
	ProbeDone    func(context.Context, ProbeDoneInfo)             // the outcome of a probe is known
	QueryDone    func(context.Context, QueryDoneInfo)             // the answer is ready
	LateReply    func(context.Context, LateReplyInfo)             // a reply came too late and was dropped
}

// QueryInfo is passed to [Trace].QueryStarted.
type QueryInfo struct {
	Request  *Request
	Deadline time.Time // when the query's time is up; zero if never
}

// ProbeInfo is passed to [Trace].ProbeStarted.
type ProbeInfo struct {
	Request  *Request
	Peer     PeerID
	Role     Role
	Deadline time.Time // the peer's; zero if it has none
}

// ProbeDoneInfo is passed to [Trace].ProbeDone. The PeerReport is the peer's line of the ledger,
// final but for Late. As JSON a ProbeDoneInfo is its PeerReport alone.
type ProbeDoneInfo struct {
	Request *Request
	PeerReport
}

// QueryDoneInfo is passed to [Trace].QueryDone. Fields without a comment are as in the [Response].
type QueryDoneInfo struct {
	Request        *Request
	Peers          []PeerReport
	PeersConsulted int
	Hits           int // the number of hits in the answer
	Duplicates     int // the number of hits that were passed over because their ID was in the answer already
	Partial        bool
	Coverage       float64
	Missing        []MissingRange
	Elapsed        time.Duration
	MergeElapsed   time.Duration // the part of Elapsed from the end of the wait until the Response was made
	Err            error         // what the query returns
}

// LateReplyInfo is passed to [Trace].LateReply.
type LateReplyInfo struct {
	Request *Request
	Peer    PeerID
	Hits    int   // how many were dropped
	Err     error // what the probe returned, or its panic
}

// JoinTraces returns a Trace that calls the hooks of each given one in turn: one for metrics and
// one for spans, say. Each hook gets the context that the one before it returned. It leaves out nil
// Traces, and returns nil if none is left. The Traces are read now, and not kept.
func JoinTraces(traces ...*Trace) *Trace {
	var joined *Trace
	for _, t := range traces {
		switch {
		case t == nil:
		case joined == nil:
			copied := *t
			joined = &copied
		default:
			joined = &Trace{
				QueryStarted: chain(joined.QueryStarted, t.QueryStarted),
				ProbeStarted: chain(joined.ProbeStarted, t.ProbeStarted),
				ProbeDone:    both(joined.ProbeDone, t.ProbeDone),
				QueryDone:    both(joined.QueryDone, t.QueryDone),
				LateReply:    both(joined.LateReply, t.LateReply),
			}
		}
	}
	return joined
}

func chain[I any](a, b func(context.Context, I) context.Context) func(context.Context, I) context.Context {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	return func(ctx context.Context, info I) context.Context { return started(started(ctx, a, info), b, info) }
}

func both[I any](a, b func(context.Context, I)) func(context.Context, I) {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	return func(ctx context.Context, info I) {
		a(ctx, info)
		b(ctx, info)
	}
}

// started calls a hook that returns a context, which may be nil, and returns the context for what
// comes after.
func started[I any](ctx context.Context, hook func(context.Context, I) context.Context, info I) context.Context {
	if hook != nil {
		if next := hook(ctx, info); next != nil {
			return next
		}
	}
	return ctx
}

// tell calls a hook, which may be nil.
func tell[I any](ctx context.Context, hook func(context.Context, I), info I) {
	if hook != nil {
		hook(ctx, info)
	}
}
