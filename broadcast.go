package scatter

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"sync"
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
	// Broadcast returns without waiting for the peers still out, which the ledger calls [Spare]. nil: Coverage is the
	// share of the peers that have answered.
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

	// Of a Searcher.
	selection *selection      // of the peers and Standby, each of whom is on Cover's ring and stands once
	owner     context.Context // when it is over, so is the query
}

// Broadcast asks all peers, each distinct one once, and returns the req.K best of their hits.
//
// # Who is waited for
//
// The probes run side by side, within Limit and Shared: on as many goroutines as wait at the same time, and one that is
// done with one peer asks the next. Broadcast blocks until every peer has answered, failed, or is past its deadline,
// which runs from the start of its probe. It returns then even if a probe ignores its context; when that one ends at
// last, its reply is dropped. A reply in hand when a deadline is noticed still counts. Of the goroutines that Broadcast
// starts, only those of such probes outlive the call.
//
// # What is returned
//
// A peer that times out, fails or panics costs its own hits, not the query: the Response's ledger tells which did and
// why, and Partial is true exactly when some peer's hits are missing; with Options.Cover, when some range's are. So it
// is if all have failed, and if there were no peers to ask. The same replies give the same hits, in whichever order
// they come.
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
// A nil probe, a nil req or req.Query, one of an unknown Order, a req.K below 1 and an option out of its range are
// errors, with no Response, before any probe has run. The only others are ctx's cause and, with Options.Require, a
// [*CoverageError], and the Response isn't nil then.
//
// Broadcast may be called by many goroutines at once, also with the same arguments.
func Broadcast[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, req *Request, peers []PeerID, probe Probe[H], opts *Options,
) (*Response[H], error) {
	if probe == nil {
		return nil, errors.New("scatter: probe is nil")
	}
	return run(ctx, req, peers, probe, nil, opts)
}

// BroadcastAsync is [Broadcast] with an [AsyncProbe]: no goroutine for each peer, and all else the same, but that a
// unit of Options.Shared is given back when the peer's reply is in, or when the peer is waited for no longer.
func BroadcastAsync[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, req *Request, peers []PeerID, probe AsyncProbe[H], opts *Options,
) (*Response[H], error) {
	if probe == nil {
		return nil, errors.New("scatter: probe is nil")
	}
	return run(ctx, req, peers, nil, probe, opts)
}

// broadcast is what one Broadcast has in hand: it does what its Coordinator decides. It is one piece of memory that is
// used again, because to make a dozen small ones, and to collect them, would take as long as to ask three peers.
type broadcast[H Ranked[ID], ID cmp.Ordered] struct {
	Coordinator[H, ID]
	machine  Machine[State, *Event[H]]
	event    Event[H] // the one that is delivered
	inbox    inbox[H]
	lifetime *lifetime
	owner    context.Context // ends the query too; may be nil

	probe Probe[H]      // either it
	async AsyncProbe[H] // or it

	turn    uint64       // of this memory: how many queries it has served, this one included
	users   atomic.Int32 // goroutines, and callbacks to come, that may touch it
	intact  bool         // no function of a Trace has panicked
	endedAt time.Time    // when the query has ended, if intact

	// Workers run the probes. A worker is a goroutine that draws a peer, asks it, and draws again. While there are peers
	// to draw, one more worker than those that ask stands ready, so that the next peer is asked as soon as there is a
	// processor for it. So as many goroutines are started as probes wait at the same time: none of its own for one that
	// finds its answer in a cache. It takes a half off such probes, and nothing from others.
	worker func()        // work, one closure for all
	queued atomic.Uint32 // peers to be asked, by number, up to this one,
	drawn  atomic.Uint32 // but no more those up to this one
	ready  atomic.Bool   // a worker stands ready
	fresh  bool          // a peer was queued since the caller waited last

	shared *semaphore.Weighted
	unit   bool          // a unit of shared is held for the next probe
	units  []atomic.Bool // by peer: a unit of shared is held by its AsyncProbe, which may never call done
}

func run[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, req *Request, peers []PeerID, probe Probe[H], async AsyncProbe[H], opts *Options,
) (*Response[H], error) {
	b, _ := idle.Get().(*broadcast[H, ID]) // if it is of other types, another takes its place
	if b == nil {
		b = &broadcast[H, ID]{}
		b.worker, b.clock = b.work, b.now
	}
	if err := b.init(req, peers, b, opts); err != nil {
		return nil, err
	}
	b.turn++
	b.users.Store(1)
	b.probe, b.async = probe, async
	b.lifetime = &lifetime{parent: ctx}
	if n := b.most + 1; n <= cap(b.inbox.slots) {
		b.inbox.slots = b.inbox.slots[:n]
	} else { // none is copied: late callbacks may look at their turns
		b.inbox.slots = make([]slot[H], n)
	}
	var reserve time.Duration
	if opts != nil {
		b.shared, b.owner, reserve = opts.Shared, opts.owner, opts.Reserve
	}
	if b.shared != nil && b.async != nil {
		b.units = make([]atomic.Bool, b.most)
	}
	b.machine.init(&b.Coordinator, Init)
	defer b.close()
	err := b.drive(ctx, reserve)
	resp := b.Response()
	b.endedAt = b.begun.Add(resp.Elapsed)
	b.response, b.peers = nil, nil // the caller's alone: a late probe must not keep them alive
	b.intact = true
	return resp, err
}

// idle holds broadcasts that nobody uses any more.
var idle sync.Pool

// leave is called by each user when it will touch b no more. The last one empties it and gives it back. While a probe
// ignores its context, that is put off; if it never ends, the garbage collector knows better when it is safe.
func (b *broadcast[H, ID]) leave() {
	if b.users.Add(-1) > 0 {
		return
	}
	worker, turn, slots := b.worker, b.turn, b.inbox.slots[:0]
	clock, own, lists, room := b.clock, b.own, b.lists[:0], b.room
	if room != nil {
		room.coverage.Cover, room.standbys.hedging = nil, nil // they may be big, and obsolete
	}
	*b = broadcast[H, ID]{}
	b.worker, b.turn, b.inbox.slots = worker, turn, slots
	b.clock, b.own, b.lists, b.room = clock, own, lists, room
	idle.Put(b)
}

// drive steps the machine until it stops. As in [Run], what is in hand when a timeout falls due or when ctx ends comes
// first.
func (b *broadcast[H, ID]) drive(ctx context.Context, reserve time.Duration) (err error) {
	m := &b.machine
	if ctx.Err() == nil {
		b.event.Kind = Begin
		if until, ok := ctx.Deadline(); ok {
			b.event.Deadline = until.Add(-reserve)
		}
		err = m.Step(time.Now(), &b.event)
	}
	for !m.Stopped() {
		b.wait(ctx)
		over, now := b.over(ctx), b.now() // asked first, or more and more might come before them
		b.inbox.take(0)
		for !m.Stopped() && b.inbox.next() {
			err = m.Step(now, b.delivered())
		}
		if b.unit && b.asked == len(b.peers) { // the standby that was to have it is needed no more
			b.unit = false
			b.shared.Release(1)
		}
		deadline, bounded := m.Deadline()
		switch {
		case m.Stopped():
		case over != nil:
			b.event = *over
			err = m.Step(now, &b.event)
		case bounded && !now.Before(deadline):
			err = m.Advance(now)
		}
	}
	return err
}

// over returns the event that ends the query if its time is up, or if it is cancelled.
func (b *broadcast[H, ID]) over(ctx context.Context) *Event[H] {
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded):
		return &Event[H]{Kind: timeUp}
	case err != nil:
		return &Event[H]{Kind: Cancel, Err: context.Cause(ctx)}
	case b.owner != nil && b.owner.Err() != nil:
		return &Event[H]{Kind: Cancel, Err: context.Cause(b.owner)}
	}
	return nil
}

// now returns the time. Once the query has begun, that takes half as long as time.Now.
func (b *broadcast[H, ID]) now() time.Time {
	if b.begun.IsZero() {
		return time.Now()
	}
	return b.begun.Add(time.Since(b.begun))
}

// wait returns when there is something to do: replies, as many as it takes to decide anything, the machine's deadline,
// or the end of ctx.
func (b *broadcast[H, ID]) wait(ctx context.Context) {
	awaited := b.awaited()
	if b.inbox.holds(awaited) {
		return
	}
	if b.fresh {
		// After this, probes are done that needn't wait for anything. To sleep and be woken takes longer than they do.
		b.fresh = false
		runtime.Gosched()
		if b.inbox.holds(awaited) {
			return
		}
	}
	deadline, bounded := b.machine.Deadline()
	b.inbox.sleep(ctx, b.owner, awaited, deadline, bounded)
}

// ask starts the probe of one peer, unless ctx is over or there is no unit of shared for it yet.
func (b *broadcast[H, ID]) ask(ask Ask) bool {
	if b.lifetime.parent.Err() != nil || !b.acquire() {
		return false
	}
	b.unit = false // it is the probe's now
	s := &b.inbox.slots[ask.Index]
	s.peer, s.ctx = ask.Peer, b.lifetime.contextUntil(ask.Deadline)
	if b.async != nil {
		b.startAsync(ask.Index)
		return true
	}
	b.fresh = true
	b.queued.Add(1)
	b.readyWorker()
	return true
}

// readyWorker sees to it that a worker stands ready.
func (b *broadcast[H, ID]) readyWorker() {
	if b.ready.CompareAndSwap(false, true) {
		b.users.Add(1)
		b.starting()
		go b.worker()
	}
}

// work is all that a worker does. The deferred calls, here and in runProbe, are made even if a probe ends the
// goroutine.
func (b *broadcast[H, ID]) work() {
	defer b.leave()
	defer b.ended()
	b.ready.Store(false)
	for {
		drawn, queued := b.drawn.Load(), b.queued.Load()
		if drawn == queued {
			return
		}
		if b.drawn.CompareAndSwap(drawn, drawn+1) {
			if drawn+1 < queued { // else whoever queues the next one sees to it
				b.readyWorker()
			}
			b.runProbe(int(drawn))
		}
	}
}

func (b *broadcast[H, ID]) runProbe(i int) {
	defer b.probed(i)
	s := &b.inbox.slots[i]
	runProbe(s.ctx, b.probe, s.peer, b.req, b.order, &s.reply)
}

// startAsync starts an AsyncProbe. Its reply is whatever comes first: a call of done, or a panic.
func (b *broadcast[H, ID]) startAsync(i int) {
	if b.units != nil {
		b.units[i].Store(true)
	}
	b.users.Add(1)
	s, turn := &b.inbox.slots[i], b.turn
	s.number = i
	s.turn.Store(turn)
	returned := false
	defer func() {
		err := caught(returned, recover())
		if err != nil && !b.done(s, turn, nil, err) {
			told(b.trace.LateReply, LateReplyInfo{b.req, b.peers[i].Peer, 0, err})
		}
	}()
	b.async(s.ctx, s.peer, b.req, func(hits []H, err error) { b.done(s, turn, hits, err) })
	returned = true
}

// done takes the reply of an AsyncProbe, and returns false if there was one before: it may be that all of b but the
// slot's turn serves another query by now.
func (b *broadcast[H, ID]) done(s *slot[H], turn uint64, hits []H, err error) bool {
	if !s.turn.CompareAndSwap(turn, 0) {
		return false
	}
	defer b.leave()
	said := func(context.Context, PeerID, *Request) ([]H, error) { return hits, err }
	runProbe(s.ctx, said, s.peer, b.req, b.order, &s.reply)
	b.probed(s.number)
	return true
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

// acquire sees to it that a unit of shared is held for the next probe. If there is none now, it has a goroutine wait
// for one and then send Room.
func (b *broadcast[H, ID]) acquire() bool {
	if b.shared == nil || b.unit {
		return true
	}
	if b.unit = b.shared.TryAcquire(1); b.unit {
		return true
	}
	b.users.Add(1)
	b.starting()
	go func() {
		defer b.leave()
		defer b.ended()
		if b.shared.Acquire(&probeContext{lifetime: b.lifetime}, 1) == nil && !b.inbox.put(b.roomSlot(), 1) {
			b.shared.Release(1)
		}
	}()
	return false
}

// roomSlot is the slot, after those of the peers, that stands for the event Room.
func (b *broadcast[H, ID]) roomSlot() int { return len(b.inbox.slots) - 1 }

// probed puts a reply into the inbox, or drops it if it is late.
func (b *broadcast[H, ID]) probed(i int) {
	b.release(i)
	s := &b.inbox.slots[i]
	s.at = time.Since(b.begun)
	weight := uint64(1)
	if s.status != Answered && b.standbys != nil {
		weight = urgent
	}
	if !b.inbox.put(i, weight) {
		var late Event[H]
		s.move(i, &late)
		b.drop(&late)
	}
}

// release gives back the unit of shared that a peer's probe holds.
func (b *broadcast[H, ID]) release(i int) {
	if b.shared != nil && (b.units == nil || b.units[i].Swap(false)) {
		b.shared.Release(1)
	}
}

// concluded is told when a peer is waited for no longer.
func (b *broadcast[H, ID]) concluded(i int) {
	if b.units != nil {
		b.release(i)
	}
}

// delivered returns the event that the inbox has given.
func (b *broadcast[H, ID]) delivered() *Event[H] {
	if b.inbox.at == b.roomSlot() {
		b.unit = true
		b.event = Event[H]{Kind: Room}
	} else {
		b.inbox.slots[b.inbox.at].move(b.inbox.at, &b.event)
	}
	return &b.event
}

func (b *broadcast[H, ID]) close() {
	switch { // first, so that the probes that are left may end now
	case b.enough:
		b.lifetime.end(ErrEnough, b.endedAt)
	case b.cause != nil:
		b.lifetime.end(b.cause, b.endedAt)
	default:
		b.lifetime.end(context.DeadlineExceeded, b.endedAt)
	}
	defer b.letGo() // deferred, because a hook that is told of late replies may panic
	b.inbox.take(shut)
	b.dropRest()
}

// letGo gives back what the query holds, however it has ended.
func (b *broadcast[H, ID]) letGo() {
	for b.inbox.next() { // only if a hook has panicked
		b.delivered()
	}
	for i := range b.units { // likewise: else each peer has been concluded
		b.release(i)
	}
	if b.inbox.timer != nil {
		b.inbox.timer.Stop()
	}
	if b.unit {
		b.shared.Release(1)
	}
	if b.intact {
		b.leave()
	}
}

// dropRest drops what was taken and not delivered.
func (b *broadcast[H, ID]) dropRest() {
	for b.inbox.next() {
		if ev := b.delivered(); ev.Kind == Replied {
			b.drop(ev)
		}
	}
}
