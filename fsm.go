package scatter

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
)

// ErrStopped is returned when an event, or the time, is given to a machine that has ended: by [Machine.Step] and
// [Machine.Advance] after the call in which it stopped, by [Actor.Send], and by a [Call] that it leaves unanswered.
var ErrStopped = errors.New("scatter: machine stopped")

// ErrGoexit is returned when the goroutine that ran a caller's code was ended by runtime.Goexit, as testing.T.FailNow
// does, so that there is neither a result nor a panic to report.
var ErrGoexit = errors.New("scatter: goroutine ended by runtime.Goexit")

// PanicError is returned when a caller's code panicked on a goroutine that scatter started.
type PanicError struct {
	Value any    // what panic was called with
	Stack []byte // of the goroutine, at the panic, as debug.Stack formats it
}

// Error tells the value, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("scatter: panic: %v", e.Value) }

// Unwrap returns Value if it is an error, and nil otherwise.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Handler is the behaviour of a [Machine]. Its receiver is the machine's data.
//
// Handle is given one event in the state s and returns the next state, s itself to stay. What else is to happen it asks
// for through c, which is good until Handle returns and on that goroutine only. It is never called by two goroutines at
// once, and never while a call of it is under way, so it needs no lock for what it alone touches.
//
// A state other than s is a change of state: postponed events come again, the old state's timeout is cancelled, Enter
// runs. The same state is none of that, as "state change" has it in the OTP Design Principles, gen_statem Behaviour.
type Handler[S comparable, E any] interface {
	Handle(c *Control[S, E], s S, ev E) S
}

// Enterer is implemented by a [Handler] that wants a call on each change of state, before any event in the new state.
// It is called for the initial state as well, with from equal to to. Enter may do all that Handle may, except
// postpone: there is no event. See "State Enter Calls" in the OTP Design Principles.
type Enterer[S comparable, E any] interface {
	Enter(c *Control[S, E], from, to S)
}

// Machine is an event-driven state machine with the semantics of Erlang/OTP's gen_statem. It is pure: events and the
// time go in through Step and Advance, the next deadline comes out of Deadline. It has no goroutine and reads no clock,
// so every timed behaviour is tested by literal times. [Run] and [Start] drive it by the real clock.
//
// One event at a time is delivered to the [Handler]. After each call of Handle, and of the Enter that follows it:
//
//   - on a change of state, the postponed events go, oldest first, in front of those that still wait;
//   - then the events raised in the call go, in the order raised, in front of everything;
//   - the foremost event is delivered next. Once none waits, the timeouts asked for with a duration of zero or less
//     fire, in the order asked for.
//
// Step and Advance return once nothing is left to deliver, so a handler that raises an event for each event keeps them
// from ever returning.
//
// A panic in a handler passes through Step or Advance to the caller, and ends the machine.
//
// An event costs no allocation once the machine's queues have grown to what it needs, and a timeout takes time
// proportional to the number of those armed. A Machine is not safe for concurrent use and must not be copied. The zero
// Machine is not usable: make one with [NewMachine].
type Machine[S comparable, E any] struct {
	handler Handler[S, E]
	enterer Enterer[S, E] // nil if handler has no Enter
	control Control[S, E]

	state     S
	queue     []E          // what waits to be delivered, the foremost last
	raised    []E          // in the call under way, in order
	postponed []E          // until a change of state, oldest first
	timeouts  []timeout[E] // the next to fire first; at most one of each kind and name
	now       time.Time    // what the Step or Advance under way was given

	// room is what the queues of most machines need, so that they take no memory of their own.
	room struct {
		queue, raised [1]E
		timeouts      [2]timeout[E]
	}

	entered bool  // Enter has run for the initial state
	running bool  // a Step or Advance is under way
	stopped bool  // for good
	reason  error // what Stop was given

	// Of the call under way.
	entering bool // it is Enter
	postpone bool // its event is to come again
	renewed  bool // it has asked for a state timeout, which survives its change of state
}

// timeout is one that is armed.
type timeout[E any] struct {
	kind timeoutKind
	zero bool   // asked for with a duration of zero or less: fires once no event waits, whatever the time
	name string // of a namedTimeout
	at   time.Time
	ev   E
}

type timeoutKind uint8

const (
	stateTimeout timeoutKind = iota
	eventTimeout
	namedTimeout
)

// before reports whether t fires before u although it was armed after it.
func (t *timeout[E]) before(u *timeout[E]) bool {
	if t.zero || u.zero {
		return !u.zero
	}
	return t.at.Before(u.at)
}

// NewMachine returns a machine that is in the state initial and has done nothing yet: if h is an [Enterer], its Enter
// runs for the initial state in the first Step or Advance.
func NewMachine[S comparable, E any](h Handler[S, E], initial S) *Machine[S, E] {
	m := new(Machine[S, E])
	m.init(h, initial)
	return m
}

// init makes a zero m a machine.
func (m *Machine[S, E]) init(h Handler[S, E], initial S) {
	m.handler, m.state = h, initial
	m.enterer, _ = h.(Enterer[S, E])
	m.control.m = m
	m.queue, m.raised, m.timeouts = m.room.queue[:0], m.room.raised[:0], m.room.timeouts[:0]
}

// Step delivers ev, and then all that follows from it: raised events, postponed ones that come again, timeouts of zero.
// The first Step runs Enter for the initial state, and all that follows from that, before it delivers ev.
//
// Step does not fire the timeouts that were armed before it and are due by now: that is Advance's work. So a driver may
// deliver what it has in hand before the deadline counts. The time should not go back from call to call.
//
// If the machine stops meanwhile, Step returns what [Control.Stop] was given, nil for a normal stop. If the machine had
// stopped before, ev is dropped, and the error is ErrStopped, or wraps both ErrStopped and the reason if there was one.
// Otherwise it is nil. Step panics if a handler calls it for its own machine.
func (m *Machine[S, E]) Step(now time.Time, ev E) error {
	if m.running || m.stopped {
		return m.refuse("Step")
	}
	m.running, m.now = true, now
	defer m.end()
	if !m.entered {
		m.enterInitial()
	}
	if !m.stopped {
		m.deliver(ev)
	}
	if len(m.queue)+len(m.timeouts) > 0 { // seldom, and a call that does nothing is a tenth of a Step
		m.settle(false)
	}
	m.running = false
	return m.reason
}

// Advance fires the timeouts that are due by now, the earliest deadline first and the one armed first among equals,
// each with all that follows from it before the next is looked at. A timeout armed meanwhile counts from now. The
// first Advance starts with Enter for the initial state. It is no error if nothing is due. Errors and panics are as
// Step's.
func (m *Machine[S, E]) Advance(now time.Time) error {
	if m.running || m.stopped {
		return m.refuse("Advance")
	}
	m.running, m.now = true, now
	defer m.end()
	if !m.entered {
		m.enterInitial()
	}
	m.settle(true)
	m.running = false
	return m.reason
}

// Deadline returns the time at which the first of the armed timeouts is due, when Advance next has work, and whether
// there is one. It costs the same however many are armed.
func (m *Machine[S, E]) Deadline() (time.Time, bool) {
	if len(m.timeouts) == 0 {
		return time.Time{}, false
	}
	return m.timeouts[0].at, true
}

// State returns the machine's state. After a stop it is the state that the last call of Handle returned.
func (m *Machine[S, E]) State() S { return m.state }

// Stopped reports whether the machine has ended, by [Control.Stop] or a handler's panic, so that Step and Advance can
// do no more. A driver asks it because a normal stop is no error.
func (m *Machine[S, E]) Stopped() bool { return m.stopped }

// refuse is what a Step or Advance does that can't be done.
func (m *Machine[S, E]) refuse(method string) error {
	switch {
	case m.running:
		panic("scatter: Machine." + method + ": called from its own handler; use Control.Raise")
	case m.reason != nil:
		return fmt.Errorf("%w: %w", ErrStopped, m.reason)
	}
	return ErrStopped
}

// end is deferred by Step and Advance. If one is still running, a handler has panicked or left by Goexit.
func (m *Machine[S, E]) end() {
	if m.running {
		m.running, m.stopped = false, true
	}
	if m.stopped {
		m.queue, m.raised, m.postponed, m.timeouts = nil, nil, nil, nil
	}
}

// enterInitial runs Enter for the initial state, and all that follows from it.
func (m *Machine[S, E]) enterInitial() {
	m.entered = true
	if m.enterer != nil {
		m.enter(m.state)
	}
	m.putFront(&m.raised)
	m.settle(false)
}

// settle delivers what waits until nothing does: events first, then timeouts of zero and, if due is true, those that
// are due by now.
func (m *Machine[S, E]) settle(due bool) {
	for !m.stopped {
		ev, ok := m.next(due)
		if !ok {
			return
		}
		m.deliver(ev)
	}
}

// next takes out what is to be delivered next. Slots given up are cleared, for what the event refers to must not live
// on.
func (m *Machine[S, E]) next(due bool) (ev E, ok bool) {
	if last := len(m.queue) - 1; last >= 0 {
		var none E
		ev, m.queue[last] = m.queue[last], none
		m.queue = m.queue[:last]
		return ev, true
	}
	if len(m.timeouts) == 0 {
		return ev, false
	}
	first := &m.timeouts[0]
	if !first.zero && (!due || first.at.After(m.now)) {
		return ev, false
	}
	ev = first.ev
	m.timeouts = slices.Delete(m.timeouts, 0, 1)
	return ev, true
}

func (m *Machine[S, E]) deliver(ev E) {
	if len(m.timeouts) > 0 {
		m.disarm(eventTimeout, "")
	}
	m.postpone, m.renewed = false, false
	from := m.state
	m.state = m.handler.Handle(&m.control, from, ev)
	if m.postpone {
		m.postponed = append(m.postponed, ev)
	}
	if m.state != from && !m.stopped {
		if !m.renewed && len(m.timeouts) > 0 {
			m.disarm(stateTimeout, "")
		}
		if m.enterer != nil {
			m.enter(from)
		}
		if len(m.postponed) > 0 {
			m.putFront(&m.postponed)
		}
	}
	if len(m.raised) > 0 {
		m.putFront(&m.raised)
	}
}

func (m *Machine[S, E]) enter(from S) {
	m.entering = true
	m.enterer.Enter(&m.control, from, m.state)
	m.entering = false
}

// putFront moves events, in their order, in front of all that waits.
func (m *Machine[S, E]) putFront(events *[]E) {
	for _, ev := range slices.Backward(*events) {
		m.queue = append(m.queue, ev)
	}
	clear(*events)
	*events = (*events)[:0]
}

func (m *Machine[S, E]) arm(kind timeoutKind, name string, d time.Duration, ev E) {
	m.disarm(kind, name)
	t := timeout[E]{kind: kind, name: name, zero: d <= 0, at: m.now.Add(d), ev: ev}
	i := len(m.timeouts)
	for i > 0 && t.before(&m.timeouts[i-1]) {
		i--
	}
	m.timeouts = slices.Insert(m.timeouts, i, t)
}

func (m *Machine[S, E]) disarm(kind timeoutKind, name string) {
	for i := range m.timeouts {
		if t := &m.timeouts[i]; t.kind == kind && t.name == name {
			m.timeouts = slices.Delete(m.timeouts, i, i+1)
			return
		}
	}
}

// Control is how a [Handler] asks its [Machine] for more than the next state. It is only to be had as the argument of
// Handle and Enter, and is good until they return: outside of them each of its methods but Now panics.
//
// There are three kinds of timeout, which differ in what cancels them: see "Time-Outs" in the OTP Design Principles.
// Of the state timeout and the event timeout a machine has at most one each, of named timeouts one for each name.
// Asking for one that is armed replaces it, event, deadline and place in line. When a timeout fires, its event is
// delivered as any other is, and may be postponed; one that was cancelled or replaced never is. A duration is counted
// from Now; one of zero or less fires in the same Step or Advance, as soon as no event waits.
type Control[S comparable, E any] struct{ m *Machine[S, E] }

// Now returns the time that the Step or Advance under way was given.
func (c *Control[S, E]) Now() time.Time { return c.m.now }

// Raise inserts an event of the machine's own, to be delivered before all that waits: those raised in the same call,
// Enter included, in the order raised, then those that an earlier call has raised. See "Inserted Events" in the OTP
// Design Principles.
func (c *Control[S, E]) Raise(ev E) {
	m := c.machine("Raise")
	m.raised = append(m.raised, ev)
}

// Postpone puts the event under way aside, to be delivered again after the next change of state, that of this very
// call included. A handler may postpone it again then, and so on until one takes it. Asking twice is as asking once.
// Postpone panics in Enter. See "Postponing Events" in the OTP Design Principles.
func (c *Control[S, E]) Postpone() {
	m := c.machine("Postpone")
	if m.entering {
		panic("scatter: Control.Postpone: called from Enter, where there is no event to postpone")
	}
	m.postpone = true
}

// StateTimeout arms the state timeout: ev is delivered after d unless the state changes before. If the call that asks
// for it changes the state, the timeout belongs to the new one.
func (c *Control[S, E]) StateTimeout(d time.Duration, ev E) {
	m := c.machine("StateTimeout")
	m.renewed = true
	m.arm(stateTimeout, "", d, ev)
}

// EventTimeout arms the event timeout: ev is delivered after d unless any event is before, be it a new one, a raised
// one, one that was postponed, or another timeout's.
func (c *Control[S, E]) EventTimeout(d time.Duration, ev E) {
	c.machine("EventTimeout").arm(eventTimeout, "", d, ev)
}

// Timeout arms the timeout with that name, which may be empty: ev is delivered after d unless [Control.CancelTimeout]
// is called with the name before. Neither events nor changes of state cancel it. OTP calls it a generic time-out.
func (c *Control[S, E]) Timeout(name string, d time.Duration, ev E) {
	c.machine("Timeout").arm(namedTimeout, name, d, ev)
}

// CancelStateTimeout cancels the state timeout, if it is armed.
func (c *Control[S, E]) CancelStateTimeout() {
	c.machine("CancelStateTimeout").disarm(stateTimeout, "")
}

// CancelTimeout cancels the timeout with that name, if it is armed.
func (c *Control[S, E]) CancelTimeout(name string) {
	c.machine("CancelTimeout").disarm(namedTimeout, name)
}

// Stop ends the machine once the call returns; a nil err is a normal end. The state that the call returns is taken, but
// Enter does not run for it. Nothing more is delivered: events that wait, postponed ones and timeouts are dropped. The
// Step or Advance under way returns err. The first Stop counts, later ones change nothing.
func (c *Control[S, E]) Stop(err error) {
	if m := c.machine("Stop"); !m.stopped {
		m.stopped, m.reason = true, err
	}
}

func (c *Control[S, E]) machine(method string) *Machine[S, E] {
	if !c.m.running {
		panic("scatter: Control." + method + ": called outside of Handle and Enter")
	}
	return c.m
}

// Run drives m by the real clock, on the caller's goroutine, until it stops, ctx ends, or nothing can happen any
// more. m is Run's alone meanwhile; afterwards the caller may go on with it.
//
//   - Enter runs for the initial state at once, if it has not run yet.
//   - Events are delivered in the order in which inbox gives them. When a timeout falls due, the events that inbox
//     holds at that moment are delivered first, and can still cancel it. A steady stream of events delays a timeout,
//     or the end of ctx, by one event more on average; it starves neither.
//   - When the machine stops, Run returns its reason, nil for a normal stop. If it had stopped before, the error is
//     that of [Machine.Step].
//   - When ctx ends, Run delivers the events that inbox holds at that moment and returns context.Cause(ctx), or the
//     machine's reason if one of them stops it. Timeouts stay armed.
//   - A closed inbox is not an event. Once it is empty, and at once if it is nil, Run goes on for as long as a
//     timeout is armed, and then returns nil.
//
// A panic in a handler passes through Run to its caller.
func Run[S comparable, E any](ctx context.Context, m *Machine[S, E], inbox <-chan E) error {
	var wake alarm
	var err error
	if m.stopped || !m.entered { // else what is due comes after what inbox holds, as always
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

// stepHeld steps m through the events that inbox holds now, not through those that come meanwhile, or it would never
// end, and all at this time, so that handlers that take long make no further timeout due before what comes meanwhile.
// Where there is no buffer, one that a sender stands ready with counts.
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
		default: // nobody stands ready, or somebody else reads from it too
			return nil
		}
	}
	return nil
}

// alarm is a timer that is made when it is first needed, and set anew only for another time. It need not be stopped:
// since Go 1.23 a timer that nothing refers to is collected.
type alarm struct {
	timer *time.Timer
	at    time.Time // what timer is set for
	rung  bool      // it has gone off since
}

// set returns a channel that tells when it is at. It is asked for the same time again after the alarm has rung if at
// has no monotonic reading and the wall clock was set back meanwhile.
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

// Actor is a [Machine] that runs on a goroutine of its own and is sent events through a mailbox. Its methods are safe
// for concurrent use. The zero Actor is not usable: make one with [Start].
type Actor[S comparable, E any] struct {
	machine *Machine[S, E] // its goroutine's until done is closed
	mailbox chan E
	done    chan struct{}
	err     error // written before done is closed, read after
}

// Start runs m on a new goroutine, which ends when m stops, ctx ends or a handler panics: whoever calls Start sees to
// one of these, and may [Actor.Wait] for it. m is the actor's alone until then.
//
// At most mailbox events wait to be handled; with 0, a Send waits until the machine takes its event. Start panics if
// mailbox is negative.
func Start[S comparable, E any](ctx context.Context, m *Machine[S, E], mailbox int) *Actor[S, E] {
	if mailbox < 0 {
		panic(fmt.Sprintf("scatter: Start: negative mailbox: %d", mailbox))
	}
	a := &Actor[S, E]{machine: m, mailbox: make(chan E, mailbox), done: make(chan struct{})}
	go func() {
		returned := false
		defer close(a.done)
		defer func() {
			if err := caught(returned, recover()); err != nil {
				a.err = err
			}
		}()
		a.err = Run(ctx, a.machine, a.mailbox)
		returned = true
	}()
	return a
}

// Send puts ev into the mailbox and waits while it is full. Nil means that ev is queued, not that it was handled: a
// machine that ends drops what its mailbox still holds. Send returns ErrStopped if the actor has ended or does so
// meanwhile, and context.Cause(ctx) if ctx ends; if ctx has ended and there is room, either may win.
//
// A handler must not Send to its own actor, which would wait for itself when the mailbox is full: it has
// [Control.Raise].
func (a *Actor[S, E]) Send(ctx context.Context, ev E) error {
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

// Wait blocks until the actor has ended and tells why: the reason that [Control.Stop] was given, nil for a normal
// stop; context.Cause of the ctx that Start was given; a *[PanicError] if a handler panicked; [ErrGoexit] if a
// handler ended the goroutine. It may be called any number of times. After it, the machine is the caller's again.
func (a *Actor[S, E]) Wait() error {
	<-a.done
	return a.err
}

// Done returns a channel that is closed when the actor has ended.
func (a *Actor[S, E]) Done() <-chan struct{} { return a.done }

// From is a caller who waits for an answer of type R, as OTP's from() is. It travels in an event from [Call] to a
// handler, which answers at once or keeps it and answers later, from any goroutine. It may be copied; the copies
// share one answer. The zero From is nobody: answers to it are dropped.
type From[R any] struct{ c *caller[R] }

type caller[R any] struct {
	answered atomic.Bool
	answer   chan R // has room for the one answer
}

// Reply answers the caller and reports whether r is the answer: only the first one is, later ones are dropped. True
// does not mean that the caller still waits. Reply never blocks and is safe for concurrent use.
func (f From[R]) Reply(r R) bool {
	if f.c == nil || !f.c.answered.CompareAndSwap(false, true) {
		return false
	}
	f.c.answer <- r
	return true
}

// Call sends a the event that event makes of a [From], and waits for the answer to that. It returns ErrStopped if the
// actor ends first, and context.Cause(ctx) if ctx ends first; an answer given by then wins over both. An error does not
// mean that the event was not handled.
//
// A handler must not Call its own actor, which would wait for itself until ctx ends.
func Call[R any, S comparable, E any](ctx context.Context, a *Actor[S, E], event func(From[R]) E) (R, error) {
	c := &caller[R]{answer: make(chan R, 1)}
	err := a.Send(ctx, event(From[R]{c}))
	if err == nil {
		select {
		case r := <-c.answer:
			return r, nil
		case <-a.done:
			err = ErrStopped
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

// caught tells how a caller's code ended, as an error: nil if it returned, a *PanicError if it panicked with r, and
// ErrGoexit if it did neither. It is for the function that is deferred around that code:
//
//	returned := false
//	defer func() {
//		if failure := caught(returned, recover()); failure != nil {
//			err = failure
//		}
//	}()
//	err = code()
//	returned = true
func caught(returned bool, r any) error {
	switch {
	case returned:
		return nil
	case r != nil:
		return &PanicError{Value: r, Stack: debug.Stack()}
	}
	return ErrGoexit
}
