package scatter

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A program is a handler as a table: its wishes in each state for each kind of event, and on entry
// to each state.
type program struct {
	enters bool // it has an Enter
	handle [3][4][]wish
	enter  [3][]wish
}

// A wish is one thing that a program asks its machine for.
type wish struct {
	what string
	name string
	d    time.Duration
	arg  int // a kind of event, or the next state
}

// A marked event has a unique number, so that no two look the same in a log.
type marked struct{ kind, number int }

// A tape is the bytes from which a program, and what is done to it, are read. After its end come
// zeros.
type tape []byte

func (tp *tape) next(n int) int {
	if len(*tp) == 0 {
		return 0
	}
	b := (*tp)[0]
	*tp = (*tp)[1:]
	return int(b) % n
}

func (tp *tape) program() *program {
	p := &program{enters: tp.next(4) > 0}
	for s := range p.handle {
		for kind := range p.handle[s] {
			p.handle[s][kind] = tp.wishes()
		}
		p.enter[s] = tp.wishes()
	}
	return p
}

func (tp *tape) wishes() []wish {
	whats := []string{
		"raise", "go", "state", "event", "timeout", "postpone", "cancel", "cancel state", "stop",
	}
	wishes := make([]wish, tp.next(4))
	for i := range wishes {
		wishes[i] = wish{
			what: whats[tp.next(len(whats))],
			name: []string{"p", "q"}[tp.next(2)],
			d:    time.Duration(tp.next(5)-1) * time.Second,
			arg:  tp.next(4),
		}
		if wishes[i].what == "stop" && tp.next(8) > 0 {
			wishes[i].what = "go" // or most programs would end at once
		}
	}
	return wishes
}

// An asker has the methods that a handler may call: it is a Control or a machineOracle.
type asker interface {
	Now() time.Time
	Raise(ev marked)
	Postpone()
	StateTimeout(d time.Duration, ev marked)
	EventTimeout(d time.Duration, ev marked)
	Timeout(name string, d time.Duration, ev marked)
	CancelStateTimeout()
	CancelTimeout(name string)
	Stop(err error)
}

// A player is a handler that performs a program and logs each call.
type player struct {
	*program
	log    []string
	number int // of the last event made
	fuel   int // calls left before it asks for nothing more, so that every program ends
}

func (pl *player) event(kind int) marked {
	pl.number++
	return marked{kind, pl.number}
}

func (pl *player) Handle(c *Control[int, marked], s int, ev marked) int {
	return pl.handled(c, s, ev)
}

func (pl *player) handled(a asker, s int, ev marked) int {
	pl.log = append(pl.log, fmt.Sprint(a.Now().Sub(epoch), " state ", s, " event ", ev))
	return pl.play(a, pl.handle[s][ev.kind], s, true)
}

func (pl *player) entered(a asker, from, to int) {
	pl.log = append(pl.log, fmt.Sprint(a.Now().Sub(epoch), " from ", from, " to ", to))
	pl.play(a, pl.enter[to], to, false)
}

func (pl *player) play(a asker, wishes []wish, s int, handle bool) int {
	if pl.fuel--; pl.fuel < 0 {
		return s
	}
	for _, w := range wishes {
		switch w.what {
		case "raise":
			a.Raise(pl.event(w.arg))
		case "go":
			s = w.arg % len(pl.handle)
		case "state":
			a.StateTimeout(w.d, pl.event(w.arg))
		case "event":
			a.EventTimeout(w.d, pl.event(w.arg))
		case "timeout":
			a.Timeout(w.name, w.d, pl.event(w.arg))
		case "postpone":
			if handle {
				a.Postpone()
			}
		case "cancel":
			a.CancelTimeout(w.name)
		case "cancel state":
			a.CancelStateTimeout()
		case "stop":
			a.Stop([]error{nil, errBoom, errGone}[w.arg%3])
		}
	}
	return s
}

// enteringPlayer is a player with an Enter.
type enteringPlayer struct{ *player }

func (pl enteringPlayer) Enter(c *Control[int, marked], from, to int) { pl.entered(c, from, to) }

// A machineOracle is a slow and obvious gen_statem, written from its manual. It collects what a
// call asks for and does it after the call has returned. It has one list of waiting events, and a
// map of timers that it searches from end to end.
type machineOracle struct {
	*player
	now       time.Time
	state     int
	waiting   []marked // the next one first
	postponed []marked // oldest first
	timers    map[string]timer
	armings   int
	begun     bool
	stopped   bool
	reason    error

	// Collected from one call of Handle and its Enter.
	raised   []marked
	timing   []func()
	postpone bool
}

type timer struct {
	at    time.Time
	zero  bool
	order int
	ev    marked
}

func (o *machineOracle) Now() time.Time      { return o.now }
func (o *machineOracle) Raise(ev marked)     { o.raised = append(o.raised, ev) }
func (o *machineOracle) Postpone()           { o.postpone = true }
func (o *machineOracle) CancelStateTimeout() { o.cancel("state") }

func (o *machineOracle) CancelTimeout(name string)               { o.cancel("named " + name) }
func (o *machineOracle) StateTimeout(d time.Duration, ev marked) { o.start("state", d, ev) }
func (o *machineOracle) EventTimeout(d time.Duration, ev marked) { o.start("event", d, ev) }
func (o *machineOracle) Timeout(name string, d time.Duration, ev marked) {
	o.start("named "+name, d, ev)
}

func (o *machineOracle) cancel(key string) {
	o.timing = append(o.timing, func() { delete(o.timers, key) })
}

func (o *machineOracle) start(key string, d time.Duration, ev marked) {
	o.timing = append(o.timing, func() {
		o.armings++
		o.timers[key] = timer{at: o.now.Add(max(d, 0)), zero: d <= 0, order: o.armings, ev: ev}
	})
}

func (o *machineOracle) Stop(err error) {
	if !o.stopped {
		o.stopped, o.reason = true, err
	}
}

// do steps with ev, or advances if ev is nil.
func (o *machineOracle) do(now time.Time, ev *marked) error {
	if o.stopped && o.reason != nil {
		return errors.Join(ErrStopped, o.reason)
	}
	if o.stopped {
		return ErrStopped
	}
	o.now = now
	if !o.begun {
		o.begun = true
		o.transition(o.state, true)
		o.settle()
	}
	if ev != nil {
		o.waiting = append(o.waiting, *ev)
		o.settle()
	} else {
		for o.fire(func(tm timer) bool { return !tm.at.After(now) }) {
			o.settle()
		}
	}
	if o.stopped {
		o.timers = nil
	}
	return o.reason
}

func (o *machineOracle) settle() {
	zero := func(tm timer) bool { return tm.zero }
	for !o.stopped && (len(o.waiting) > 0 || o.fire(zero)) { // Rule 21: zero timers fire last
		ev := o.waiting[0]
		o.waiting = o.waiting[1:]
		delete(o.timers, "event")
		next := o.handled(o, o.state, ev)
		if o.postpone {
			o.postponed = append(o.postponed, ev)
		}
		o.transition(next, next != o.state)
	}
}

func (o *machineOracle) transition(next int, change bool) {
	from := o.state
	o.state = next
	if o.stopped { // Rule 22
		return
	}
	if change { // Rules 18 and 19
		delete(o.timers, "state")
		if o.enters {
			o.entered(o, from, next)
		}
		o.waiting = slices.Concat(o.postponed, o.waiting) // Rule 20
		o.postponed = nil
	}
	for _, do := range o.timing {
		do()
	}
	o.waiting = slices.Concat(o.raised, o.waiting) // Rule 20
	o.raised, o.timing, o.postpone = nil, nil, false
}

// fire moves the event of the first due timer to the waiting ones. It reports whether there is one.
func (o *machineOracle) fire(due func(timer) bool) bool {
	first := ""
	for key, tm := range o.timers {
		if due(tm) && (first == "" || tm.at.Before(o.timers[first].at) ||
			tm.at.Equal(o.timers[first].at) && tm.order < o.timers[first].order) {
			first = key
		}
	}
	if first == "" || o.stopped {
		return false
	}
	o.waiting = append(o.waiting, o.timers[first].ev)
	delete(o.timers, first)
	return true
}

func (o *machineOracle) deadline() (at time.Time, ok bool) {
	for _, tm := range o.timers {
		if !ok || tm.at.Before(at) {
			at, ok = tm.at, true
		}
	}
	return at, ok
}

// compareWithOracle reads a program, and what is done to it, from tp. It does this to a machine and
// to the oracle, and compares logs, deadlines, states and errors.
func compareWithOracle(t *testing.T, tp tape) {
	p := tp.program()
	played := &player{program: p}
	var h Handler[int, marked] = played
	if p.enters {
		h = enteringPlayer{played}
	}
	m := NewMachine(h, 0)
	o := &machineOracle{player: &player{program: p}, timers: map[string]timer{}}

	now := epoch
	for done := 0; len(tp) > 0; done++ {
		what, dt, kind := tp.next(4), time.Duration(tp.next(4))*time.Second, tp.next(4)
		now = now.Add(dt)
		for _, pl := range []*player{played, o.player} {
			pl.fuel, pl.log = 30, pl.log[:0]
		}
		var got, want error
		doing := fmt.Sprint("step ", done, " at ", now.Sub(epoch))
		if what < 2 {
			got = m.Step(now, played.event(kind))
			ev := o.event(kind)
			want = o.do(now, &ev)
		} else {
			if deadline, ok := m.Deadline(); ok && what == 2 && deadline.After(now) {
				now = deadline
			}
			doing = fmt.Sprint("advance ", done, " at ", now.Sub(epoch))
			got, want = m.Advance(now), o.do(now, nil)
		}
		if !slices.Equal(played.log, o.log) {
			t.Fatalf("%s of %+v:\n got %q\nwant %q", doing, *p, played.log, o.log)
		}
		gotAt, gotOK := m.Deadline()
		wantAt, wantOK := o.deadline()
		if !gotAt.Equal(wantAt) || gotOK != wantOK {
			t.Fatalf("%s of %+v: next deadline %v, %v, want %v, %v", doing, *p, gotAt, gotOK, wantAt, wantOK)
		}
		if m.State() != o.state || m.Stopped() != o.stopped {
			t.Fatalf("%s of %+v: state %v, stopped %v, want %v, %v",
				doing, *p, m.State(), m.Stopped(), o.state, o.stopped)
		}
		for _, err := range []error{ErrStopped, errBoom, errGone, nil} {
			if errors.Is(got, err) != errors.Is(want, err) {
				t.Fatalf("%s of %+v: error %v, want %v", doing, *p, got, want)
			}
		}
	}
}

// Rules 18 to 22, for random programs.
func TestMachineAgainstOracle(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 0))
		tp := make(tape, 60+random.IntN(200))
		for i := range tp {
			tp[i] = byte(random.Uint32())
		}
		compareWithOracle(t, tp)
	}
}

func FuzzMachine(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 2, 0, 1, 1, 3, 2, 0, 3, 2, 5, 0, 0, 0, 1, 1, 0, 2, 2})
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 200)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { compareWithOracle(t, data) })
}
