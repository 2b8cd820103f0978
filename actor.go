package scatter

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Run drives m by the real clock on the caller's goroutine. It returns when m stops, when ctx ends,
// or when nothing can happen any more. Run owns m until it returns. Then the caller may use m
// again.
//
//   - Enter runs for the initial state at once, if it has not run yet.
//   - Events are delivered in inbox order. When a timeout falls due, Run first delivers the events
//     that inbox holds at that moment, and these can still cancel the timeout. A steady stream of
//     events delays a timeout, or the end of ctx, by one more event on average. It starves neither.
//   - When m stops, Run returns its reason, nil for a normal stop. If m had stopped before, Run
//     returns the error that [Machine.Step] returns.
//   - When ctx ends, Run delivers the events that inbox holds at that moment. It returns
//     context.Cause(ctx), or the reason of m if one of these events stops it. Timeouts stay armed.
//   - A closed inbox is not an event. Once it is empty, Run goes on while a timeout is armed, and
//     then returns nil. A nil inbox is like one that is closed and empty.
//
// A panic in a handler passes through Run to its caller.
func Run[S comparable, E any](ctx context.Context, m *Machine[S, E], inbox <-chan E) error {
	var wake alarm
	var err error
	// Rule 21: the initial Enter needs an Advance. Any other machine must not get one here: it
	// would fire what is due before the events that inbox holds.
	if m.stopped || !m.entered {
		err = m.Advance(time.Now())
	}
	for !m.stopped {
		var due <-chan time.Time
		if deadline, ok := m.Deadline(); ok {
			due = wake.set(deadline)
		} else if inbox == nil {
			return nil
		}
		select {
		case ev, open := <-inbox:
			if open {
				err = m.Step(time.Now(), ev)
			} else {
				inbox = nil
			}
		case <-due:
			wake.rung = true
			now := time.Now()
			if err = stepHeld(m, inbox, now); !m.stopped {
				err = m.Advance(now)
			}
		case <-ctx.Done():
			if err = stepHeld(m, inbox, time.Now()); !m.stopped {
				return context.Cause(ctx)
			}
		}
	}
	return err
}

// stepHeld steps m through the events that inbox holds now. It leaves those that arrive meanwhile,
// or it might never end. All steps get the same now, so that a slow handler does not make more
// timeouts due before the events that arrive meanwhile. If inbox has no buffer, stepHeld takes one
// event of a sender that is ready.
func stepHeld[S comparable, E any](m *Machine[S, E], inbox <-chan E, now time.Time) error {
	for range max(1, len(inbox)) {
		select {
		case ev, open := <-inbox:
			if !open {
				return nil
			}
			if err := m.Step(now, ev); m.stopped {
				return err
			}
		default: // no sender is ready, or someone else reads from inbox too
			return nil
		}
	}
	return nil
}

// alarm is a timer that is created on first use and reset only when its time changes. It need not
// be stopped: since Go 1.23 a timer that nothing refers to is collected.
type alarm struct {
	timer *time.Timer
	at    time.Time // what timer is set for
	rung  bool      // timer has fired since
}

// set returns a channel that receives at the time at. It may be asked for the same time again after
// the alarm has rung: that happens if at has no monotonic reading and the wall clock was set back.
func (a *alarm) set(at time.Time) <-chan time.Time {
	switch {
	case a.timer == nil:
		a.timer = time.NewTimer(time.Until(at))
	case a.rung || !at.Equal(a.at):
		a.timer.Reset(time.Until(at))
	}
	a.at, a.rung = at, false
	return a.timer.C
}

// Actor is a [Machine] that runs on its own goroutine and receives events through a mailbox. Its
// methods are safe for concurrent use. The zero Actor is not usable: call [Start].
type Actor[S comparable, E any] struct {
	machine *Machine[S, E] // owned by the actor's goroutine until done is closed
	mailbox chan E
	done    chan struct{}
	err     error // written before done is closed, read after
}

// Start runs m on a new goroutine, as [Run] does. The goroutine ends when m stops, when ctx ends or
// when a handler panics. The caller must make sure that one of these happens, and can wait for it
// with [Actor.Wait]. The actor owns m until then.
//
// The mailbox holds at most mailbox events. If mailbox is zero, a Send waits until the machine
// takes its event. Start panics if mailbox is negative.
func Start[S comparable, E any](ctx context.Context, m *Machine[S, E], mailbox int) *Actor[S, E] {
	if mailbox < 0 {
		panic(fmt.Sprintf("scatter: Start: mailbox is %d, must not be negative", mailbox))
	}
	a := &Actor[S, E]{machine: m, mailbox: make(chan E, mailbox), done: make(chan struct{})}
	go func() {
		returned := false
		defer close(a.done)
		defer func() {
			// Rule 22: a handler's panic ends the actor with an error that holds it.
			if err := caught(returned, recover()); err != nil {
				a.err = err
			}
		}()
		a.err = Run(ctx, a.machine, a.mailbox)
		returned = true
	}()
	return a
}

// Send puts ev into the mailbox. It waits while the mailbox is full. A nil error means that ev is
// queued, not that it was handled: a machine that ends drops what its mailbox still holds. Send
// returns [ErrStopped] if the actor has ended or ends while Send waits, and context.Cause(ctx) if
// ctx ends. If ctx has ended and the mailbox has room, Send does either.
//
// A handler must not call Send on its own actor: if the mailbox is full, Send waits for that same
// handler and blocks until ctx ends. A handler uses [Control.Raise] instead.
func (a *Actor[S, E]) Send(ctx context.Context, ev E) error {
	// Rule 22: select picks at random, so an actor that has ended is looked at first.
	select {
	case <-a.done:
		return ErrStopped
	default:
	}
	select {
	case a.mailbox <- ev:
		return nil
	case <-a.done:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Wait blocks until the actor has ended and returns why:
//
//   - the reason that [Control.Stop] was given, nil for a normal stop;
//   - the error of [Machine.Step] if the machine had stopped before Start;
//   - context.Cause of the ctx that Start was given, if that ended;
//   - a *[PanicError] if a handler panicked;
//   - [ErrGoexit] if a handler ended the goroutine.
//
// Wait may be called any number of times. After it returns, the caller owns the machine again.
func (a *Actor[S, E]) Wait() error {
	<-a.done
	return a.err
}

// Done returns a channel that is closed when the actor has ended.
func (a *Actor[S, E]) Done() <-chan struct{} { return a.done }

// From is a caller that waits for an answer of type R, like from() in Erlang/OTP. It travels in an
// event from [Call] to a handler. The handler answers at once, or keeps the From and answers later
// from any goroutine. A From may be copied; all copies share one answer. The zero From has no
// caller, and answers to it are dropped.
type From[R any] struct{ c *caller[R] }

type caller[R any] struct {
	answered atomic.Bool
	answer   chan R // has room for the one answer
}

// Reply answers the caller and reports whether r is the answer. Only the first Reply is; later ones
// are dropped. True does not mean that the caller still waits. Reply never blocks and is safe for
// concurrent use.
func (f From[R]) Reply(r R) bool {
	if f.c == nil || !f.c.answered.CompareAndSwap(false, true) {
		return false
	}
	f.c.answer <- r
	return true
}

// Call makes a [From], sends a the event that event returns for it, and waits for the answer. It
// returns [ErrStopped] if the actor ends first, and context.Cause(ctx) if ctx ends first. An answer
// that was given by then takes precedence over both. An error does not mean that the event was not
// handled.
//
// A handler must not Call its own actor: the Call waits for that same handler and blocks until ctx
// ends.
func Call[R any, S comparable, E any](
	ctx context.Context, a *Actor[S, E], event func(From[R]) E,
) (R, error) {
	c := &caller[R]{answer: make(chan R, 1)}
	err := a.Send(ctx, event(From[R]{c}))
	if err == nil {
		select {
		case r := <-c.answer:
			return r, nil
		case <-a.done:
			err = ErrStopped // Rule 22
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	select {
	case r := <-c.answer:
		return r, nil
	default:
		var none R
		return none, err
	}
}
