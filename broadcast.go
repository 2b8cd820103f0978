package scatter

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Broadcast asks all peers, each distinct one once, and returns the req.K best of their hits.
//
// # Whom it waits for
//
// The probes run concurrently, within Options.Limit and Options.Semaphore. Broadcast blocks until
// every peer has answered, failed, or is past its deadline, which runs from the start of its probe.
// With Options.Cover it returns as soon as no peer still out can add to the answer. It returns even
// if a probe ignores its context; the late reply is dropped. A reply in hand when a deadline is
// noticed still counts. Of the goroutines that Broadcast starts, only those of such probes outlive
// the call.
//
// # What it returns
//
// A peer that times out, fails or panics costs its own hits, not the query: the Response's ledger
// says which did and why. Partial is true exactly when some peer's hits are missing or, with
// Options.Cover, some range's. That includes the hits of peers that Options.Live calls dead, so
// pass all peers. It is true too if all peers have failed, and if there were none to ask. The same
// replies give the same hits, in whichever order they come.
//
// # Contexts
//
// ctx's deadline is a time budget: when it has passed, what has arrived is merged and returned with
// a nil error, and the peers still out have timed out. If ctx is cancelled, what has arrived is
// returned together with context.Cause(ctx), and the peers still out are abandoned. If the last
// reply and the end of ctx come together, the reply counts. Each probe's context descends from ctx,
// carries the peer's deadline, and is cancelled when Broadcast returns.
//
// # Errors
//
// A nil probe, request or query, an unknown Order, a K below 1 and an option that is out of range
// or contradicts another are errors, without a Response, before any probe has run. Otherwise the
// Response is not nil, and the error is ctx's cause, a probe's error that wraps [ErrPermanent], a
// [*CoverageError] if there is less than Options.MinCoverage, or nil.
//
// Broadcast may be called concurrently, also with the same arguments.
func Broadcast[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, req *Request, peers []PeerID, probe Probe[H], opts *Options,
) (*Response[H], error) {
	b := &broadcast[H, ID]{probe: probe}
	return b.start(ctx, req, peers, opts)
}

// BroadcastAsync is [Broadcast] with an [AsyncProbe]. It starts no goroutine for a peer. A unit of
// Options.Semaphore is given back when the peer's reply is in, or when the peer is no longer waited
// for.
func BroadcastAsync[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, req *Request, peers []PeerID, probe AsyncProbe[H], opts *Options,
) (*Response[H], error) {
	b := &broadcast[H, ID]{async: probe}
	return b.start(ctx, req, peers, opts)
}

// broadcast drives the course of one query by the real clock: it launches the probes that the
// course asks for, and delivers their replies.
type broadcast[H Ranked[ID], ID cmp.Ordered] struct {
	course[H, ID]
	probe Probe[H]      // nil: async is not
	async AsyncProbe[H] // nil: probe is not

	owner context.Context // ends the query too; may be nil
	count *sync.WaitGroup // counts the goroutines; may be nil

	inbox    inbox[H]
	lifetime lifetime
	workers  workers[*launch]
	launches []launch // what workers run
	work     func()   // what a worker's goroutine does
	units    units
	held     map[int]*unit // by index: the unit of an AsyncProbe, which may never call done
	progress func()        // is called when something has happened; may be nil
	launched bool          // a probe was launched since the caller slept last
}

// launch is a probe to be run.
type launch struct {
	index    int
	peer     PeerID
	req      *Request
	ctx, own context.Context // for the probe, and the one that the query made
	unit     *unit
}

// start runs a query over given peers.
func (b *broadcast[H, ID]) start(
	ctx context.Context, req *Request, peers []PeerID, opts *Options,
) (*Response[H], error) {
	if b.probe == nil && b.async == nil {
		return nil, errors.New("scatter: probe is nil")
	}
	if err := b.init(req, opts); err != nil {
		return nil, err
	}
	if err := b.checkBroadcast(); err != nil {
		return nil, err
	}
	b.setPeers(peers)
	until, _ := ctx.Deadline()
	return b.run(ctx, until)
}

// init checks the arguments and makes a zero b ready for run, but for its peers.
func (b *broadcast[H, ID]) init(req *Request, opts *Options) error {
	if err := b.course.init(req, opts); err != nil {
		return err
	}
	b.driver, b.work = b, b.runWorker
	b.units.semaphore = b.opts.Semaphore
	return nil
}

// run runs the query to its end, which comes at until at the latest.
func (b *broadcast[H, ID]) run(ctx context.Context, until time.Time) (*Response[H], error) {
	b.ctx = ctx
	defer b.close() // after a panic of a hook too
	b.drive(ctx, until)
	return b.response, b.err // which close forgets
}

// drive steps the course until the query has ended. As in [Run], what is in hand when a timeout
// falls due, or when ctx ends, comes first. Rule 10.
func (b *broadcast[H, ID]) drive(ctx context.Context, until time.Time) {
	if ended := b.ending(ctx); ended.kind != goOn { // then it asks nobody, but still has a beginning and an end
		b.over, b.cause = true, ended.err
	}
	b.step(time.Now(), event{kind: begin, at: until})
	for !b.machine.Stopped() {
		b.wait(ctx)
		ended, now := b.ending(ctx), b.now() // asked first, or more and more might come before it
		b.receive(now, b.inbox.take())
		if b.ledger.waiting == 0 {
			b.units.discard()
		}
		deadline, bounded := b.machine.Deadline()
		switch {
		case ended.kind != goOn:
			b.step(now, ended)
		case bounded && !now.Before(deadline):
			b.advance(now)
		}
		if b.progress != nil {
			b.progress() // after advance: that a peer is late makes hits certain
		}
	}
}

// ending returns the event that ends the query, if ctx or the owner has ended, or else goOn.
func (b *broadcast[H, ID]) ending(ctx context.Context) event {
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded): // Rule 9
		return event{kind: timeUp}
	case err != nil:
		return event{kind: cancel, err: context.Cause(ctx)}
	case b.owner != nil && b.owner.Err() != nil:
		return event{kind: cancel, err: context.Cause(b.owner)}
	}
	return event{kind: goOn}
}

// now returns the time. Once the query has begun, that takes half as long as time.Now.
func (b *broadcast[H, ID]) now() time.Time {
	if b.begun.IsZero() {
		return time.Now()
	}
	return b.begun.Add(time.Since(b.begun))
}

// wait returns when there may be something to do.
func (b *broadcast[H, ID]) wait(ctx context.Context) {
	if b.launched {
		// Probes that don't have to wait are done after this. To sleep and be woken takes longer
		// than they do.
		b.launched = false
		runtime.Gosched()
	}
	var closed <-chan struct{}
	if b.owner != nil {
		closed = b.owner.Done()
	}
	deadline, bounded := b.machine.Deadline()
	b.inbox.sleep(ctx.Done(), closed, deadline, bounded)
}

// receive does what messages say.
func (b *broadcast[H, ID]) receive(now time.Time, messages []message[H]) {
	for i := range messages {
		if m := &messages[i]; m.do != nil {
			m.do(now)
		} else {
			m.unit.release() // so that the next probe can have it at once
			b.deliver(now, m.at, m.index, &m.reply)
		}
	}
}

// ask launches the probe of one peer, unless the query has ended or there is no unit for it yet.
// Rule 5.
func (b *broadcast[H, ID]) ask(a Ask) (context.Context, bool) {
	if b.ctx.Err() != nil {
		return nil, false
	}
	unit, ok := b.takeUnit()
	if !ok {
		return nil, false
	}
	if b.lifetime.parent == nil { // the first one
		b.lifetime.parent = b.ctx
		b.inbox.grow(len(b.ledger.peers))
		if b.async == nil {
			b.workers.init(b, len(b.ledger.peers))
			b.launches = make([]launch, 0, len(b.ledger.peers))
		}
	}
	own := b.lifetime.until(a.Deadline)
	l := launch{index: a.Index, peer: a.Peer, req: a.Request, own: own, unit: unit}
	b.units.ready = unit // so that it isn't lost if the hook panics
	l.ctx = b.probeStarted(own, a)
	b.units.ready = nil
	if b.async != nil {
		b.launchAsync(l)
		return l.ctx, true
	}
	b.launched = true
	b.launches = append(b.launches, l)
	b.workers.add(&b.launches[len(b.launches)-1])
	return l.ctx, true
}

// takeUnit takes a unit of the semaphore. If there is none yet, the query will be told to try
// again.
func (b *broadcast[H, ID]) takeUnit() (*unit, bool) {
	if b.units.semaphore == nil {
		return nil, true
	}
	return b.units.take(b.ctx, b.spawn, func(ready func()) bool {
		return b.inbox.put(message[H]{do: func(now time.Time) {
			ready()
			b.step(now, event{kind: retry})
		}})
	})
}

// spawn starts a goroutine.
func (b *broadcast[H, ID]) spawn(f func()) {
	if b.count == nil {
		go f()
		return
	}
	b.count.Go(f)
}

// startWorker starts a goroutine that runs probes.
func (b *broadcast[H, ID]) startWorker() {
	if b.count != nil {
		b.count.Add(1)
	}
	go b.work()
}

func (b *broadcast[H, ID]) runWorker() {
	if b.count != nil {
		defer b.count.Done()
	}
	b.workers.work()
}

// runTask runs a probe.
func (b *broadcast[H, ID]) runTask(l *launch) {
	var r reply[H]
	defer b.putReply(l, &r) // also if the probe ends the goroutine: rule 12
	runProbe(l.ctx, l.own, b.probe, l.peer, l.req, &b.want, &r)
}

// putReply puts a reply into the inbox, or drops it if it is late. Rule 6.
func (b *broadcast[H, ID]) putReply(l *launch, r *reply[H]) {
	// The unit goes back after the reply is in: the peer that waits for it may not be needed any
	// more.
	inTime := b.inbox.put(message[H]{index: l.index, reply: *r, at: b.now(), unit: l.unit})
	l.unit.release()
	if !inTime && !r.obeyed {
		b.tellLate(l.ctx, l.peer, r)
	}
}

// launchAsync calls an AsyncProbe. Its reply is whatever comes first: a call of done, or a panic.
// Rule 30.
func (b *broadcast[H, ID]) launchAsync(l launch) {
	if l.unit != nil {
		if b.held == nil {
			b.held = make(map[int]*unit)
		}
		b.held[l.index] = l.unit
	}
	var replied atomic.Bool
	done := func(hits []H, err error) {
		if replied.CompareAndSwap(false, true) {
			var r reply[H]
			defer b.putReply(&l, &r)
			said := func(context.Context, PeerID, *Request) ([]H, error) { return hits, err }
			runProbe(l.ctx, l.own, said, l.peer, l.req, &b.want, &r)
		}
	}
	returned := false
	defer func() {
		failure := caught(returned, recover())
		switch {
		case failure == nil:
		case replied.CompareAndSwap(false, true):
			b.putReply(&l, &reply[H]{err: failure, status: Failed})
		default:
			b.tellLate(l.ctx, l.peer, &reply[H]{err: failure})
		}
	}()
	b.async(l.ctx, l.peer, l.req, done)
	returned = true
}

// concluded is called when a peer is no longer waited for.
func (b *broadcast[H, ID]) concluded(i int) {
	if b.held != nil {
		b.held[i].release()
	}
}

// close lets go of what the query holds, however it has ended. The probes that are still out may
// end now. Rules 13 and 25.
func (b *broadcast[H, ID]) close() {
	cause := context.DeadlineExceeded
	switch {
	case b.enough:
		cause = ErrEnough
	case b.cause != nil:
		cause = b.cause
	}
	defer b.forget() // deferred, because a hook that is told of late replies may panic
	defer b.units.close()
	b.lifetime.end(cause, b.now())
	for _, u := range b.held {
		u.release()
	}
	b.receive(b.now(), b.inbox.close())
}

// forget lets go of the answer. A late probe keeps b alive, and must not keep the hits. Rule 6.
func (b *broadcast[H, ID]) forget() {
	b.inbox.forget()
	b.ledger.release()
	b.reply, b.response = nil, nil
	b.err, b.machine.reason = nil, nil // which may have the Response
}
