package scatter

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"
)

// DefaultPeerDeadline is the time a peer has to answer if Options.PeerDeadline is 0.
const DefaultPeerDeadline = 5 * time.Second

// Options change what [Broadcast] does. The zero value, and a nil *Options, mean the defaults. They are read when the
// call begins, and never written.
type Options struct {
	// PeerDeadline is the time each peer has by itself, from the start of its probe. 0: DefaultPeerDeadline; negative:
	// as long as the query's context gives.
	PeerDeadline time.Duration

	// Limit is how many probes of this Broadcast may be in flight at once; the other peers are asked as replies come
	// in. 0: all. A probe past its deadline counts no more, even if it ignores its context and runs on: else a few
	// such probes would keep the other peers from ever being asked.
	Limit int

	// Shared is a cap on probes in flight that several Broadcasts have in common: each probe holds one unit of it until
	// the probe returns, late or not, so that what runs is truly bounded. A peer's deadline doesn't run while it waits
	// for its unit; only the query's context bounds that. nil: no such cap.
	Shared *semaphore.Weighted

	// Cover says which peers hold which ranges of the token space. With it, an answer is judged by ranges and not by
	// peers: Response.Coverage is the share of the token space of which a holder has answered, the rest is in
	// Response.Missing, be its holders late, failed, or dead and so not among the peers; and when all of it is covered,
	// Broadcast returns without waiting for the peers still out, which the ledger calls [Spare]. nil: Coverage is the share
	// of the peers that have answered.
	Cover *Cover

	// WaitAll has Broadcast wait for all peers although the Coverage is whole: where the replicas' indexes are
	// approximate, and so differ, their answers are better together.
	WaitAll bool

	// Standby are live peers that are not asked at first. One that holds what no other peer can answer in time, because
	// those have failed or are late, is asked then: see Hedging. It needs a Cover. Names that are among the peers, or not
	// on its ring, are left out.
	Standby []PeerID

	// Hedging says when standbys are asked. nil: when a peer has failed.
	Hedging *Hedging

	// Require is the Coverage that an answer must have, from 0 to 1: with less, Broadcast returns a [*CoverageError] with
	// the Response. 0: none.
	Require float64

	// Settle is a Coverage, from 0 to 1, from which on Broadcast waits for more only as long as Grace, or with a Grace of
	// 0 takes only what is in hand. The peers still out then are Spare, those not asked yet NotAsked. 0: it waits until
	// their deadlines.
	Settle float64
	Grace  time.Duration

	// Reserve is the time kept back from the deadline of the query's context, for the merge and for what the caller does
	// after it. 0: none.
	Reserve time.Duration

	Logger *zap.Logger // see [ZapTrace]; nil: silent
	Trace  *Trace      // nil: untraced
}

// Broadcast asks all peers, each distinct one once, and returns the req.K best of their hits.
//
// # Who is waited for
//
// The probes run side by side, each on a goroutine of its own, within Limit and Shared. Broadcast blocks until every
// peer has answered, failed, or is past its deadline, which runs from the start of its probe. It returns then even if a
// probe ignores its context; when that one ends at last, its reply is dropped. A reply in hand when a deadline is
// noticed still counts. Of the goroutines that Broadcast starts, only those of such probes outlive the call.
//
// # What is returned
//
// A peer that times out, fails or panics costs its own hits, not the query: the Response's ledger tells which did and
// why, and Partial is true exactly when some peer's hits are missing; with Options.Cover, when some range's are. So it is
// if all have failed, and if there were no peers to ask. The same replies give the same hits, in whichever order they come.
//
// # Contexts
//
// ctx's deadline is a time budget: when it has passed, what has arrived is merged and returned with a nil error, and
// the peers still out count as timed out. If ctx is cancelled, what has arrived is returned together with
// context.Cause(ctx), and the peers still out count as abandoned. If the last reply and the end of ctx come together,
// the reply counts. Each probe's context descends from ctx, carries the peer's deadline, and is cancelled when
// Broadcast returns.
//
// # Errors
//
// A nil probe, a nil req or req.Query, one of an unknown Order, a req.K below 1 and an option out of its range are errors,
// with no Response, before any probe has run. The only others are ctx's cause and, with Options.Require, a
// [*CoverageError], and the Response isn't nil then.
//
// Broadcast may be called by many goroutines at once, also with the same arguments.
func Broadcast[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, req *Request, peers []PeerID, probe Probe[H], opts *Options,
) (*Response[H], error) {
	if probe == nil {
		return nil, errors.New("scatter: probe is nil")
	}
	return newBroadcast[H](ctx, req, peers, opts, func(b *broadcast[H, ID], ctx context.Context, reply *Event[H]) {
		b.starting()
		go b.runProbe(ctx, probe, reply)
	})
}

// BroadcastAsync is [Broadcast] with an [AsyncProbe]: no goroutine for each peer, and all else the same, but that a unit of
// Options.Shared is given back when the peer's reply is in, or when the peer is waited for no longer.
func BroadcastAsync[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, req *Request, peers []PeerID, probe AsyncProbe[H], opts *Options,
) (*Response[H], error) {
	if probe == nil {
		return nil, errors.New("scatter: probe is nil")
	}
	return newBroadcast[H](ctx, req, peers, opts, func(b *broadcast[H, ID], ctx context.Context, reply *Event[H]) {
		if b.shared != nil && b.units == nil {
			b.units = make([]atomic.Bool, len(b.replies))
			b.concluded = b.release
		}
		b.startAsync(ctx, probe, reply)
	})
}

// newBroadcast runs a Broadcast, of which start starts the probes.
func newBroadcast[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, req *Request, peers []PeerID, opts *Options,
	start func(b *broadcast[H, ID], ctx context.Context, reply *Event[H]),
) (*Response[H], error) {
	b := &broadcast[H, ID]{start: start}
	c, err := NewCoordinator[H](req, peers, b.ask, opts)
	if err != nil {
		return nil, err
	}
	c.clock = time.Now
	b.Coordinator = c
	b.inbox = make(chan *Event[H], cap(c.peers))
	b.replies = make([]Event[H], cap(c.peers))
	if opts != nil {
		b.shared, b.reserve = opts.Shared, opts.Reserve
	}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	return b.run()
}

// broadcast is what one Broadcast has in hand: it does what its Coordinator decides.
type broadcast[H Ranked[ID], ID cmp.Ordered] struct {
	*Coordinator[H, ID]
	ctx     context.Context // over when Broadcast returns
	cancel  context.CancelCauseFunc
	start   func(b *broadcast[H, ID], ctx context.Context, reply *Event[H])
	shared  *semaphore.Weighted
	reserve time.Duration

	// inbox has room for all that can ever be in it, so nobody who sends to it blocks: a reply of each peer, or a Room
	// for one that has not been asked.
	inbox   chan *Event[H]
	replies []Event[H]  // by peer, each its probe's until it is in the inbox
	done    atomic.Bool // nobody reads the inbox any more but drain
	unit    atomic.Bool // a unit of shared is held for the next probe

	// units are those of shared that async probes hold, by peer: nobody knows whether done will ever be called. Other
	// probes hold theirs by themselves, and units is nil.
	units []atomic.Bool

	derived  context.Context // the context that was derived last,
	deadline time.Time       // and its deadline
	cancels  []context.CancelFunc
}

func (b *broadcast[H, ID]) run() (*Response[H], error) {
	defer b.close()
	m := NewMachine(b.Coordinator, Init)
	var err error
	if b.ctx.Err() == nil {
		until, ok := b.ctx.Deadline()
		if ok {
			until = until.Add(-b.reserve)
		}
		if err = m.Step(time.Now(), &Event[H]{Kind: Begin, Deadline: until}); !m.Stopped() {
			err = Run(b.ctx, m, b.inbox)
		}
	}
	if !m.Stopped() { // so ctx is over
		end := &Event[H]{Kind: Cancel, Err: context.Cause(b.ctx)}
		if errors.Is(b.ctx.Err(), context.DeadlineExceeded) {
			end = &b.timeUp
		}
		err = m.Step(time.Now(), end)
	}
	resp := b.Response()
	b.response, b.peers = nil, nil // the caller's alone: a late probe must not keep them alive
	return resp, err
}

// ask starts the probe of one peer, unless ctx is over or there is no unit of shared for it yet.
func (b *broadcast[H, ID]) ask(ask Ask) bool {
	if b.ctx.Err() != nil || !b.acquire() {
		return false
	}
	b.unit.Store(false) // it is the probe's now
	reply := &b.replies[ask.Index]
	reply.Kind, reply.Index, reply.peer = Replied, ask.Index, ask.Peer
	b.start(b, b.derive(ask.Deadline), reply)
	return true
}

// runProbe is all that a probe's goroutine does. The deferred call is made even if the probe ends the goroutine.
func (b *broadcast[H, ID]) runProbe(ctx context.Context, probe Probe[H], reply *Event[H]) {
	defer b.ended()
	defer b.probed(reply)
	runProbe(ctx, probe, b.req, b.order, reply)
}

// startAsync starts an AsyncProbe. Its reply is whatever comes first: a call of done, or a panic.
func (b *broadcast[H, ID]) startAsync(ctx context.Context, probe AsyncProbe[H], reply *Event[H]) {
	if b.units != nil {
		b.units[reply.Index].Store(true)
	}
	var first atomic.Bool
	settle := func(ask Probe[H]) {
		if first.CompareAndSwap(false, true) {
			runProbe(ctx, ask, b.req, b.order, reply)
			b.probed(reply)
		}
	}
	returned := false
	defer func() {
		if err := caught(returned, recover()); err != nil {
			if first.Load() { // done was called before
				told(b.trace.LateReply, LateReplyInfo{b.req, reply.peer, 0, err})
			}
			settle(func(context.Context, PeerID, *Request) ([]H, error) { return nil, err })
		}
	}()
	probe(ctx, reply.peer, b.req, func(hits []H, err error) {
		settle(func(context.Context, PeerID, *Request) ([]H, error) { return hits, err })
	})
	returned = true
}

// starting and ended are called before a goroutine is started, and as the last thing that it does.
func (b *broadcast[H, ID]) starting() {
	if b.trace.starting != nil {
		b.trace.starting()
	}
}

func (b *broadcast[H, ID]) ended() {
	if b.trace.ended != nil {
		b.trace.ended()
	}
}

// derive returns a probe's context, with its deadline if that isn't zero. Peers asked at the same time share one, and with
// it one timer.
func (b *broadcast[H, ID]) derive(deadline time.Time) context.Context {
	if deadline.IsZero() {
		return b.ctx
	}
	if b.derived == nil || !b.deadline.Equal(deadline) {
		var cancel context.CancelFunc
		b.derived, cancel = context.WithDeadline(b.ctx, deadline)
		b.deadline = deadline
		b.cancels = append(b.cancels, cancel)
	}
	return b.derived
}

// acquire sees to it that a unit of shared is held for the next probe. If there is none now, it has a goroutine wait for
// one and then send Room.
func (b *broadcast[H, ID]) acquire() bool {
	if b.shared == nil || b.unit.Load() {
		return true
	}
	if b.shared.TryAcquire(1) {
		b.unit.Store(true)
		return true
	}
	b.starting()
	go func() {
		defer b.ended()
		if b.shared.Acquire(b.ctx, 1) == nil {
			b.unit.Store(true)
			b.send(&Event[H]{Kind: Room})
		}
	}()
	return false
}

func (b *broadcast[H, ID]) probed(reply *Event[H]) {
	b.release(reply.Index)
	b.send(reply)
}

// release gives back the unit of shared that a peer's probe holds.
func (b *broadcast[H, ID]) release(i int) {
	if b.shared != nil && (b.units == nil || b.units[i].Swap(false)) {
		b.shared.Release(1)
	}
}

// send sends to the inbox, and sees to it that what is sent after close is dropped as a late reply should be: whichever
// comes last, the event here or done there, finds the other.
func (b *broadcast[H, ID]) send(ev *Event[H]) {
	b.inbox <- ev
	if b.done.Load() {
		b.drain()
	}
}

func (b *broadcast[H, ID]) close() {
	// First, so that the contexts derived from it have its cause. Probes that are left are not needed, or past a deadline.
	if b.enough {
		b.cancel(ErrEnough)
	} else {
		b.cancel(context.DeadlineExceeded)
	}
	for _, cancel := range b.cancels {
		cancel()
	}
	b.done.Store(true)
	b.drain()
}

// drain drops what nobody waits for any more.
func (b *broadcast[H, ID]) drain() {
	if b.unit.Swap(false) {
		b.shared.Release(1)
	}
	for {
		select {
		case ev := <-b.inbox:
			if ev.Kind == Replied {
				b.drop(ev)
			}
		default:
			return
		}
	}
}
