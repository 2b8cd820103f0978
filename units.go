package scatter

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// units takes units of Options.Semaphore for the probes of one query. Its methods are called on the
// query's goroutine alone.
type units struct {
	semaphore *semaphore.Weighted // nil: none are needed
	ready     *unit               // taken for the next probe
	waiting   bool                // a goroutine waits for a unit, or its message is on its way
	stop      context.CancelFunc  // ends its wait

	// got is the unit that a goroutine has waited for. It isn't in the message, because a hook that
	// panics can keep that from being delivered.
	got atomic.Pointer[unit]
}

// unit is one unit of a semaphore, which a probe holds.
type unit struct {
	semaphore *semaphore.Weighted
	returned  atomic.Bool
}

// release gives the unit back. A second call does nothing, nor does one on a nil unit.
func (u *unit) release() {
	if u != nil && u.returned.CompareAndSwap(false, true) {
		u.semaphore.Release(1)
	}
}

// take returns a unit, which is nil if none are needed. If there is none now, it returns false, and
// has a goroutine started that waits for one as long as ctx lasts, and then posts what is to be
// called on the caller's goroutine. post returns false if that won't happen any more.
func (u *units) take(ctx context.Context, spawn func(func()), post func(func()) bool) (*unit, bool) {
	switch {
	case u.semaphore == nil:
		return nil, true
	case u.ready != nil:
		got := u.ready
		u.ready = nil
		return got, true
	case u.semaphore.TryAcquire(1):
		return &unit{semaphore: u.semaphore}, true
	case u.waiting:
		return nil, false
	}
	u.waiting = true
	ctx, u.stop = context.WithCancel(ctx)
	spawn(func() {
		if u.semaphore.Acquire(ctx, 1) != nil {
			return
		}
		u.got.Store(&unit{semaphore: u.semaphore})
		if !post(func() { u.ready, u.waiting = u.got.Swap(nil), false }) {
			u.got.Swap(nil).release()
		}
	})
	return nil, false
}

// discard gives back the unit that was taken for the next probe, if there is one.
func (u *units) discard() {
	u.ready.release()
	u.ready = nil
}

// close ends the wait for a unit (rule 42). It is called when no probe will be asked any more, and
// post returns false.
func (u *units) close() {
	if u.stop != nil {
		u.stop()
	}
	u.got.Swap(nil).release()
	u.discard()
}
