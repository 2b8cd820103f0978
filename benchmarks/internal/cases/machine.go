package cases

import (
	"context"
	"slices"
	"time"

	"github.com/looplab/fsm"
	"github.com/qmuntal/stateless"
	"github.com/scatterknn/scatter"
)

// A turnstile is unlocked by a coin, which it counts, and locked by a push. It is the same in each of these machines.
type (
	event uint8
	gate  uint8
)

const (
	locked gate = iota
	unlocked
)

const (
	coin event = iota
	push
	later  // to be postponed until the turnstile is unlocked, and then dropped
	raiser // raises a coin
	burst  // raises many
)

// The names are for looplab/fsm, which knows only strings.
var (
	eventNames = []string{coin: "coin", push: "push"}
	gateNames  = []string{locked: "locked", unlocked: "unlocked"}
)

// rounds is how often a run repeats its events, so that the call of the run itself costs nothing.
const rounds = 100

// Machine gives events to a turnstile.
func Machine() Group {
	g := Group{
		Name:  "Machine",
		Title: "State machine, for one event",
		About: "A turnstile that is unlocked by a coin, which it counts, and locked by a push. **change** is a coin and" +
			" a push, each a change of state; **same** a push while it is locked, which changes nothing; **raise** an event" +
			" that raises a coin, and a push; **postpone** an event that is postponed until it is unlocked, a coin and a" +
			" push. Each event counts once, though a postponed one is delivered twice. Times are for one event.",
		Impls: []Impl{
			{Name: "scatter", Label: "Machine", Ours: true},
			{Name: "looplab", Label: "looplab/fsm", Lacks: "has no raised or postponed events, no timeouts"},
			{Name: "stateless", Label: "qmuntal/stateless", Lacks: "has no postponed events, no timeouts"},
			{Name: "switch", Label: "switch", Lacks: "a function, no machine"},
		},
	}
	for _, c := range []struct {
		name   string
		events []event // as they come in
		count  int     // with raised ones
		all    bool    // all machines can do it
	}{
		{"change", []event{coin, push}, 2, true},
		{"same", []event{push, push}, 2, true},
		{"raise", []event{raiser, push}, 3, false},
		{"postpone", []event{later, coin, push}, 3, false},
	} {
		g.Cases = append(g.Cases, Case{
			Params: []Param{{"event", c.name}},
			Unit:   "event", Units: rounds * c.count,
			Setup: func() []func() {
				runs := make([]func(), len(g.Impls))
				for i, m := range turnstiles() {
					if i == 0 || c.all {
						runs[i] = func() {
							for range rounds {
								for _, ev := range c.events {
									m.fire(ev)
								}
							}
						}
					}
				}
				return runs
			},
		})
	}
	return g
}

// MachineBurst shows how a machine's queues grow.
func MachineBurst() Group {
	g := Group{
		Name: "MachineBurst", Growth: true,
		Title: "State machine, over the number of events that wait",
		About: "So many events one after the other (**step**), raised in one call of the handler (**raise**), or" +
			" postponed until a change of state (**postpone**). Times are for all of them.",
		Impls: []Impl{{Name: "scatter", Label: "Machine", Ours: true}},
	}
	for _, op := range []string{"step", "raise", "postpone"} {
		for _, n := range doubling(128, 16384) {
			g.Cases = append(g.Cases, Case{
				Params: []Param{{"op", op}, {"events", n}},
				Setup:  func() []func() { return []func(){burstOf(op, n)} },
			})
		}
	}
	return g
}

func burstOf(op string, n int) func() {
	m := newTurnstile()
	m.handler.burst = n
	repeat := func(ev event) {
		for range n {
			m.fire(ev)
		}
	}
	switch op {
	case "step":
		return func() { repeat(push) }
	case "raise":
		return func() { m.fire(burst); m.fire(push) }
	default:
		return func() { repeat(later); m.fire(coin); m.fire(push) }
	}
}

// turnstile is a machine as all those that are compared are used here.
type turnstile interface {
	fire(ev event)
	state() gate
	coins() int
}

// turnstiles returns one of each, in the order of the Impls of Machine.
func turnstiles() []turnstile {
	return []turnstile{newTurnstile(), newLooplab(), newStateless(), &switchTurnstile{}}
}

type scatterTurnstile struct {
	machine *scatter.Machine[gate, event]
	handler *turnstileHandler
	now     time.Time
}

type turnstileHandler struct {
	counted int
	burst   int // coins that a burst raises
}

func newTurnstile() *scatterTurnstile {
	h := &turnstileHandler{}
	return &scatterTurnstile{scatter.NewMachine(h, locked), h, time.Now()}
}

func (h *turnstileHandler) Handle(c *scatter.Control[gate, event], s gate, ev event) gate {
	switch ev {
	case coin:
		h.counted++
		return unlocked
	case push:
		return locked
	case later:
		if s == locked {
			c.Postpone()
		}
	case raiser:
		c.Raise(coin)
	case burst:
		for range h.burst {
			c.Raise(coin)
		}
	}
	return s
}

func (t *scatterTurnstile) fire(ev event) { must(t.machine.Step(t.now, ev)) }
func (t *scatterTurnstile) state() gate   { return t.machine.State() }
func (t *scatterTurnstile) coins() int    { return t.handler.counted }

type looplabTurnstile struct {
	machine *fsm.FSM
	counted int
}

func newLooplab() *looplabTurnstile {
	t := &looplabTurnstile{}
	t.machine = fsm.NewFSM(gateNames[locked],
		fsm.Events{
			{Name: eventNames[coin], Src: gateNames, Dst: gateNames[unlocked]},
			{Name: eventNames[push], Src: gateNames, Dst: gateNames[locked]},
		},
		fsm.Callbacks{"before_coin": func(context.Context, *fsm.Event) { t.counted++ }},
	)
	return t
}

func (t *looplabTurnstile) fire(ev event) {
	err := t.machine.Event(context.Background(), eventNames[ev])
	// That error is its word for an event that changes nothing.
	//nolint:errorlint // nothing wraps it, and errors.As would cost looplab/fsm more than its own work
	if _, stays := err.(fsm.NoTransitionError); !stays {
		must(err)
	}
}

func (t *looplabTurnstile) state() gate { return gate(slices.Index(gateNames, t.machine.Current())) }
func (t *looplabTurnstile) coins() int  { return t.counted }

type statelessTurnstile struct {
	machine *stateless.StateMachine
	counted int
}

func newStateless() *statelessTurnstile {
	t := &statelessTurnstile{machine: stateless.NewStateMachine(locked)}
	count := func(context.Context, ...any) error {
		t.counted++
		return nil
	}
	t.machine.Configure(locked).Permit(coin, unlocked).Ignore(push)
	t.machine.Configure(unlocked).OnEntryFrom(coin, count).Permit(push, locked).PermitReentry(coin)
	return t
}

func (t *statelessTurnstile) fire(ev event) { must(t.machine.Fire(ev)) }
func (t *statelessTurnstile) state() gate   { return t.machine.MustState().(gate) }
func (t *statelessTurnstile) coins() int    { return t.counted }

// switchTurnstile is the least that can be done.
type switchTurnstile struct {
	gate    gate
	counted int
}

func (t *switchTurnstile) fire(ev event) {
	switch ev {
	case coin:
		t.counted++
		t.gate = unlocked
	case push:
		t.gate = locked
	}
}

func (t *switchTurnstile) state() gate { return t.gate }
func (t *switchTurnstile) coins() int  { return t.counted }
