package scatter

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// inbox is where replies come in, while one goroutine, its owner, takes them out. Nobody who puts one in ever waits for
// another: what is in it is a list that grows at its head by compare-and-swap (a Treiber stack), and the owner takes
// all of it at once. Each has a weight, and the owner is woken when as much is in it as it waits for: to wake it for
// each reply would double what a fast reply costs.
type inbox[H any] struct {
	slots   []slot[H]     // by peer, each its probe's until it is put in
	head    atomic.Uint64 // the weight of all that is in, and in the low half 1 + the number of the slot put in last
	awaited atomic.Uint64 // the weight at which to wake the owner; 0: it doesn't sleep
	wake    chan struct{} // made before it sleeps for the first time
	timer   *time.Timer   // wakes it too; made when it first needs one

	at, rest int // of what was taken: the number of the slot given last, and 1 + that of the next; 0: none
}

// slot is a peer's place in an inbox.
type slot[H any] struct {
	reply[H]
	peer   PeerID
	ctx    context.Context
	at     time.Duration // when the reply came in, after the query began
	next   uint32        // 1 + the number of the slot put in before, or once taken, after; 0: none
	turn   atomic.Uint64 // of the broadcast, when an AsyncProbe is to reply; 0: none is
	number int           // of the slot, if so
}

const (
	urgent = math.MaxUint32 / 2 // a weight that always wakes
	shut   = math.MaxUint64     // head once nothing may be put in any more
)

// put puts a slot in, or returns false if the inbox is shut.
func (in *inbox[H]) put(number int, weight uint64) bool {
	for {
		head := in.head.Load()
		if head == shut {
			return false
		}
		in.slots[number].next = uint32(head)
		all := min(head>>32+weight, urgent)
		if in.head.CompareAndSwap(head, all<<32|uint64(number+1)) {
			if awaited := in.awaited.Load(); awaited != 0 && all >= awaited {
				ring(in.wake)
			}
			return true
		}
	}
}

// holds reports whether so much is in.
func (in *inbox[H]) holds(weight uint64) bool { return in.head.Load()>>32 >= weight }

// take takes out all that is in, for next, and leaves head: 0 or shut.
func (in *inbox[H]) take(head uint64) {
	for last := uint32(in.head.Swap(head)); last != 0; {
		s := &in.slots[last-1]
		last, s.next, in.rest = s.next, uint32(in.rest), int(last)
	}
}

// next goes on to the slot that was put in first of those taken, if there is one.
func (in *inbox[H]) next() bool {
	if in.rest == 0 {
		return false
	}
	in.at = in.rest - 1
	in.rest = int(in.slots[in.at].next)
	return true
}

// sleep returns when so much is in, at the deadline, at the end of ctx or of owner, or for no reason.
func (in *inbox[H]) sleep(ctx, owner context.Context, weight uint64, deadline time.Time, bounded bool) {
	var closed <-chan struct{}
	if owner != nil {
		closed = owner.Done()
	}
	if in.wake == nil {
		in.wake = make(chan struct{}, 1)
	}
	switch {
	case !bounded:
	case in.timer == nil:
		wake := in.wake // the timer may ring late, when the inbox serves another query
		in.timer = time.AfterFunc(time.Until(deadline), func() { ring(wake) })
	default:
		in.timer.Reset(time.Until(deadline))
	}
	in.awaited.Store(weight)
	if !in.holds(weight) { // or it was put in before awaited told to wake for it
		select {
		case <-in.wake:
		case <-ctx.Done():
		case <-closed:
		}
	}
	in.awaited.Store(0)
}

// ring wakes who waits for it, or keeps it from falling asleep.
func ring(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// move moves what a slot holds to an event: a probe that is late must not keep other peers' hits alive.
func (s *slot[H]) move(number int, ev *Event[H]) {
	*ev = Event[H]{
		Kind: Replied, Index: number, Hits: s.hits, Err: s.err,
		peer: s.peer, timed: true, at: s.at, status: s.status, sorted: s.sorted, obeyed: s.obeyed,
	}
	if s.status == Abandoned {
		ev.cause = context.Cause(s.ctx)
	}
	s.reply, s.peer, s.ctx = reply[H]{}, "", nil
}
