package scatter

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrStopped is returned when an event or the time is given to a [Machine] that has stopped.
var ErrStopped = errors.New("scatter: machine stopped")

// Handler is the behaviour of a [Machine]. Its receiver is the machine's data.
//
// Handle receives one event in the state s and returns the next state, or s to stay. It asks for
// everything else through c, which is valid until Handle returns, and on that goroutine only. The
// machine never calls a Handler concurrently or recursively, so data that only the Handler uses
// needs no lock.
//
// If the returned state is not s, the state changes: the old state's timeout is cancelled, Enter
// runs, and postponed events are delivered again. If it is s, none of this happens. See "state
// change" in the OTP Design Principles, gen_statem Behaviour.
type Handler[S comparable, E any] interface {
	Handle(c *Control[S, E], s S, ev E) S
}

// Enterer is implemented by a [Handler] that wants a call at each state change, before the new
// state receives any event. Enter is also called for the initial state; from and to are then equal.
// Enter may do all that Handle may, except postpone: it has no event. See "State Enter Calls" in
// the OTP Design Principles.
type Enterer[S comparable, E any] interface {
	Enter(c *Control[S, E], from, to S)
}

// Machine is an event-driven state machine with the semantics of gen_statem in Erlang/OTP. It is
// pure: events and the time are arguments of Step and Advance, and Deadline returns the time of the
// next timeout. It has no goroutine and reads no clock, so timeouts can be tested with literal
// times. A driver gives it the real time.
//
// The machine delivers one event at a time to its [Handler]. After each call of Handle, and of the
// Enter that may follow:
//
//   - If the state changed, postponed events move in front of the waiting ones, oldest first.
//   - Events raised in the call move in front of all others, in the order raised.
//   - The first event is delivered next. If none waits, the timeouts with a duration of zero or
//     less fire, in the order they were asked for.
//
// Step and Advance return when nothing is left to deliver. If a handler raises an event for each
// event, they never return.
//
// A panic in a handler stops the machine and passes through Step or Advance to their caller.
//
// An event costs no allocation once the machine's queues have grown to the size it needs. Arming,
// cancelling and firing a timeout take time proportional to the number of armed ones. A Machine is
// not safe for concurrent use and must not be copied. The zero Machine is not usable: call
// [NewMachine].
type Machine[S comparable, E any] struct {
	handler Handler[S, E]
	enterer Enterer[S, E] // nil if handler has no Enter
	control Control[S, E]

	state     S
	queue     []E          // waiting events, the next one last
	raised    []E          // raised in the current call, in order
	postponed []E          // waiting for a state change, oldest first
	timeouts  []timeout[E] // armed, the next to fire first; at most one for each kind and name
	now       time.Time    // the argument of the current Step or Advance

	// small is the first memory of the queues. Most machines need no more.
	small struct {
		queue, raised [1]E
		timeouts      [2]timeout[E]
	}

	entered bool  // Enter has run for the initial state
	running bool  // in Step or Advance
	stopped bool  // for good
	reason  error // the argument of Stop

	// About the current call of the handler.
	entering bool // it is Enter
	postpone bool // it asked to postpone its event
	renewed  bool // it armed a state timeout
}

// timeout is an armed timeout.
type timeout[E any] struct {
	kind timeoutKind
	zero bool   // its duration was zero or less: it fires once no event waits, whatever the time
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

// before reports whether t fires before u although t was armed later.
func (t *timeout[E]) before(u *timeout[E]) bool {
	if t.zero || u.zero {
		return !u.zero
	}
	return t.at.Before(u.at)
}

// NewMachine returns a machine in the state initial. It calls nothing yet: if h is an [Enterer],
// its Enter runs for the initial state in the first Step or Advance.
func NewMachine[S comparable, E any](h Handler[S, E], initial S) *Machine[S, E] {
	m := new(Machine[S, E])
	m.init(h, initial)
	return m
}

// init makes a zero Machine usable. It allocates nothing, so a struct can hold a Machine by value.
func (m *Machine[S, E]) init(h Handler[S, E], initial S) {
	m.handler, m.state = h, initial
	m.enterer, _ = h.(Enterer[S, E])
	m.control.m = m
	m.queue, m.raised, m.timeouts = m.small.queue[:0], m.small.raised[:0], m.small.timeouts[:0]
}

// Step delivers ev and everything that follows from it: raised events, postponed events that come
// again, and zero timeouts. The first Step runs Enter for the initial state, and everything that
// follows from that, before it delivers ev.
//
// Step does not fire timeouts that were armed before it, even if they are due: Advance does. So a
// driver can deliver the events it already has before a timeout counts. The time should not go back
// from one call to the next.
//
// If the machine stops in this Step, Step returns the argument of [Control.Stop], nil for a normal
// stop. If the machine had stopped before, Step drops ev and returns ErrStopped, or an error that
// wraps both ErrStopped and the reason if there was one. Otherwise Step returns nil. Step panics if
// a handler calls it on its own machine.
func (m *Machine[S, E]) Step(now time.Time, ev E) error {
	if m.running {
		panic("scatter: Machine.Step: called from its own handler; use Control.Raise")
	}
	if m.stopped {
		return m.stoppedError()
	}
	m.running, m.now = true, now
	defer m.end()
	if !m.entered {
		m.enterInitial()
	}
	if !m.stopped {
		m.deliver(ev)
	}
	// Usually nothing waits. A call of settle for nothing makes a Step a quarter slower (2.4 ns).
	if len(m.queue)+len(m.timeouts) > 0 {
		m.settle(false)
	}
	m.running = false
	return m.reason
}

// Advance fires the timeouts that are due at now: the earliest deadline first, and among equal
// deadlines the one armed first. Everything that follows from a timeout is delivered before the
// next one fires, and may cancel it. A timeout armed meanwhile counts from now. The first Advance
// begins with Enter for the initial state. It is not an error if nothing is due. The errors and
// panics of Advance are those of Step.
func (m *Machine[S, E]) Advance(now time.Time) error {
	if m.running {
		panic("scatter: Machine.Advance: called from its own handler; use Control.Raise")
	}
	if m.stopped {
		return m.stoppedError()
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

// Deadline returns the time at which the first armed timeout is due, and whether there is one.
// Advance has nothing to fire before that time. Deadline takes constant time.
func (m *Machine[S, E]) Deadline() (time.Time, bool) {
	if len(m.timeouts) == 0 {
		return time.Time{}, false
	}
	return m.timeouts[0].at, true
}

// State returns the machine's state. After a stop it is the state that the last call of Handle
// returned.
func (m *Machine[S, E]) State() S { return m.state }

// Stopped reports whether the machine has ended, by [Control.Stop] or by a panic in a handler. A
// driver needs it because a normal stop is not an error.
func (m *Machine[S, E]) Stopped() bool { return m.stopped }

// stoppedError is what Step and Advance of a stopped machine return.
func (m *Machine[S, E]) stoppedError() error {
	if m.reason == nil {
		return ErrStopped // Rule 22
	}
	return fmt.Errorf("%w: %w", ErrStopped, m.reason)
}

// end is deferred by Step and Advance. If m still runs, a handler has panicked or called Goexit.
func (m *Machine[S, E]) end() {
	if m.running {
		m.running, m.stopped = false, true
	}
	if m.stopped {
		m.queue, m.raised, m.postponed, m.timeouts = nil, nil, nil, nil
	}
}

// enterInitial runs Enter for the initial state and delivers everything that follows from it.
func (m *Machine[S, E]) enterInitial() {
	m.entered = true
	if m.enterer != nil {
		m.enter(m.state) // Rule 21
	}
	m.putFront(&m.raised)
	m.settle(false)
}

// settle delivers events until none waits and no timeout is ready: see next.
func (m *Machine[S, E]) settle(due bool) {
	for !m.stopped { // Rule 22: nothing is delivered after a stop
		ev, ok := m.next(due)
		if !ok {
			return
		}
		m.deliver(ev)
	}
}

// next removes and returns the event to deliver next: one that waits, else that of a zero timeout
// or, if due is true, of a timeout that is due. It clears the slots it frees: they must not keep
// alive what an event refers to.
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
	// Rule 21: a zero timeout fires only here, where no event waits.
	first := &m.timeouts[0]
	if !first.zero && (!due || first.at.After(m.now)) {
		return ev, false
	}
	ev = first.ev
	m.timeouts = slices.Delete(m.timeouts, 0, 1)
	return ev, true
}

// deliver calls Handle with ev, and Enter if the state changes, and queues what they asked for.
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
	if m.state != from && !m.stopped { // Rule 18: the same state is no change
		if !m.renewed && len(m.timeouts) > 0 {
			m.disarm(stateTimeout, "") // Rule 19: the old state's, unless this call armed it
		}
		if m.enterer != nil {
			m.enter(from) // Rule 19: after the old timeout is cancelled, so that Enter can arm one
		}
		if len(m.postponed) > 0 {
			m.putFront(&m.postponed) // Rule 20: in front of what waits
		}
	}
	if len(m.raised) > 0 {
		m.putFront(&m.raised) // Rule 20: last, so that they come before all others
	}
}

func (m *Machine[S, E]) enter(from S) {
	m.entering = true
	m.enterer.Enter(&m.control, from, m.state)
	m.entering = false
}

// putFront moves events in front of all that wait, and keeps their order.
func (m *Machine[S, E]) putFront(events *[]E) {
	for _, ev := range slices.Backward(*events) {
		m.queue = append(m.queue, ev)
	}
	clear(*events)
	*events = (*events)[:0]
}

// arm arms a timeout in place of the one with the same kind and name.
func (m *Machine[S, E]) arm(kind timeoutKind, name string, d time.Duration, ev E) {
	m.disarm(kind, name)
	t := timeout[E]{kind: kind, name: name, zero: d <= 0, at: m.now.Add(d), ev: ev}
	i := len(m.timeouts)
	for i > 0 && t.before(&m.timeouts[i-1]) {
		i--
	}
	m.timeouts = slices.Insert(m.timeouts, i, t)
}

// disarm removes a timeout. Its event exists nowhere else until it fires, so it cannot be delivered
// late (Rule 21).
func (m *Machine[S, E]) disarm(kind timeoutKind, name string) {
	for i := range m.timeouts {
		if t := &m.timeouts[i]; t.kind == kind && t.name == name {
			m.timeouts = slices.Delete(m.timeouts, i, i+1)
			return
		}
	}
}

// Control lets a [Handler] ask its [Machine] for more than the next state. It is an argument of
// Handle and Enter and is valid until they return. After that, every method except Now panics.
//
// There are three kinds of timeout, which differ in what cancels them: see "Time-Outs" in the OTP
// Design Principles. A machine has at most one state timeout, one event timeout, and one named
// timeout for each name. Arming one again replaces it: its event, its deadline and its place in the
// order. When a timeout fires, its event is delivered like any other and may be postponed. A
// timeout that was cancelled or replaced is never delivered. A duration counts from Now. If it is
// zero or less, the timeout fires in the same Step or Advance, once no event waits.
type Control[S comparable, E any] struct{ m *Machine[S, E] }

// Now returns the time that the current Step or Advance was given.
func (c *Control[S, E]) Now() time.Time { return c.m.now }

// Raise inserts ev in front of all waiting events. Events raised in the same call, its Enter
// included, keep their order. They come before events that an earlier call raised. See "Inserted
// Events" in the OTP Design Principles.
func (c *Control[S, E]) Raise(ev E) {
	m := c.machine("Raise")
	m.raised = append(m.raised, ev)
}

// Postpone sets the current event aside. It is delivered again after the next state change, which
// may be the one of this same call, and can then be postponed again. A second Postpone in one call
// has no effect. Postpone panics in Enter. See "Postponing Events" in the OTP Design
// Principles.
func (c *Control[S, E]) Postpone() {
	m := c.machine("Postpone")
	if m.entering {
		panic("scatter: Control.Postpone: called from Enter, where there is no event to postpone")
	}
	m.postpone = true
}

// StateTimeout arms the state timeout: ev is delivered after d unless the state changes first. If
// the same call of Handle changes the state, the timeout belongs to the new state.
func (c *Control[S, E]) StateTimeout(d time.Duration, ev E) {
	m := c.machine("StateTimeout")
	m.renewed = true
	m.arm(stateTimeout, "", d, ev)
}

// EventTimeout arms the event timeout: ev is delivered after d unless any other event is delivered
// first. That can be a new, raised or postponed event, or the event of another timeout.
func (c *Control[S, E]) EventTimeout(d time.Duration, ev E) {
	c.machine("EventTimeout").arm(eventTimeout, "", d, ev)
}

// Timeout arms the timeout with this name, which may be empty: ev is delivered after d unless
// [Control.CancelTimeout] is called with the name first. Neither events nor state changes cancel
// it. OTP calls it a generic time-out.
func (c *Control[S, E]) Timeout(name string, d time.Duration, ev E) {
	c.machine("Timeout").arm(namedTimeout, name, d, ev)
}

// CancelStateTimeout cancels the state timeout, if it is armed.
func (c *Control[S, E]) CancelStateTimeout() {
	c.machine("CancelStateTimeout").disarm(stateTimeout, "")
}

// CancelTimeout cancels the timeout with this name, if it is armed.
func (c *Control[S, E]) CancelTimeout(name string) {
	c.machine("CancelTimeout").disarm(namedTimeout, name)
}

// Stop ends the machine when the current call of Handle or Enter returns. A nil err is a normal
// stop. The state that Handle returns is taken, but Enter does not run for it. Waiting events,
// postponed events and timeouts are dropped. The current Step or Advance returns err. Only the
// first Stop counts.
func (c *Control[S, E]) Stop(err error) {
	if m := c.machine("Stop"); !m.stopped {
		m.stopped, m.reason = true, err
	}
}

// machine returns the machine for a call of method, and panics if no handler runs.
func (c *Control[S, E]) machine(method string) *Machine[S, E] {
	if !c.m.running {
		panic("scatter: Control." + method + ": called outside Handle and Enter")
	}
	return c.m
}
