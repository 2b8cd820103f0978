package scatter

import (
	"slices"
	"sync"
	"time"
)

// inbox is where the goroutines of a Broadcast leave messages for the one that called it.
type inbox[H any] struct {
	mu     sync.Mutex
	queue  []message[H]  // guarded by mu
	closed bool          // guarded by mu
	asleep bool          // guarded by mu: the owner is to be woken by the next message
	wake   chan struct{} // the owner sleeps on it; has room for one; nil until it first does

	taken []message[H] // the owner's: what was taken last
	timer *time.Timer  // wakes the owner too; made when it is first needed
}

// message is a reply, or something that the owner is to do.
type message[H any] struct {
	index int
	reply reply[H]
	at    time.Time           // when the reply came in
	unit  *unit               // what the probe held, if anything
	do    func(now time.Time) // if not nil, the message is to call it
}

// grow makes room for n messages.
func (in *inbox[H]) grow(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.queue = slices.Grow(in.queue, n)
}

// put leaves a message, or returns false if the inbox is closed.
func (in *inbox[H]) put(m message[H]) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return false
	}
	in.queue = append(in.queue, m)
	if in.asleep {
		in.asleep = false
		ring(in.wake)
	}
	return true
}

// ring wakes who sleeps on a channel with room for one, or keeps it from falling asleep.
func ring(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// take returns the messages in the order in which they came. They are good until the next call.
func (in *inbox[H]) take() []message[H] {
	in.mu.Lock()
	defer in.mu.Unlock()
	clear(in.taken)
	in.taken, in.queue = in.queue, in.taken[:0]
	return in.taken
}

// close makes put return false from now on, and returns the messages that are left.
func (in *inbox[H]) close() []message[H] {
	if in.timer != nil {
		in.timer.Stop()
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	return in.queue
}

// forget lets go of all messages. It is called when they have been received after close.
func (in *inbox[H]) forget() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.queue, in.taken = nil, nil
}

// sleep returns when there is a message, at the deadline, when one of the channels is closed, or
// for no reason.
func (in *inbox[H]) sleep(ctx, owner <-chan struct{}, deadline time.Time, bounded bool) {
	if !in.fallAsleep() {
		return
	}
	switch {
	case !bounded:
	case in.timer == nil:
		wake := in.wake
		in.timer = time.AfterFunc(time.Until(deadline), func() { ring(wake) })
	default:
		in.timer.Reset(time.Until(deadline))
	}
	select {
	case <-in.wake:
	case <-ctx:
	case <-owner:
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.asleep = false
}

// fallAsleep makes the next message wake the owner, or returns false if there is one already.
func (in *inbox[H]) fallAsleep() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.wake == nil {
		in.wake = make(chan struct{}, 1)
	}
	in.asleep = len(in.queue) == 0
	return in.asleep
}
