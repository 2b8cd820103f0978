package scatter

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A script describes a handler in words. Its keys are "state event" for Handle and ">state" for
// Enter. Its values are the operations for that call, separated by "; ". See act. A call without a
// value does nothing.
type script map[string]string

var errBoom = errors.New("boom")

// act performs the operations of key and returns the next state.
func (sc script) act(c *Control[string, string], key, state string) string {
	for op := range strings.SplitSeq(sc[key], "; ") {
		switch f := strings.Fields(op); {
		case len(f) == 0:
		case f[0] == "->":
			state = f[1]
		case f[0] == "raise":
			c.Raise(f[1])
		case f[0] == "postpone":
			c.Postpone()
		case f[0] == "state": // state 5s event
			c.StateTimeout(span(f[1]), f[2])
		case f[0] == "event": // event 5s event
			c.EventTimeout(span(f[1]), f[2])
		case f[0] == "timeout": // timeout name 5s event
			c.Timeout(f[1], span(f[2]), f[3])
		case f[0] == "cancel" && len(f) == 1:
			c.CancelStateTimeout()
		case f[0] == "cancel": // cancel name
			c.CancelTimeout(f[1])
		case f[0] == "stop" && len(f) == 1:
			c.Stop(nil)
		case f[0] == "stop": // stop reason
			c.Stop(errors.New(f[1]))
		case f[0] == "panic":
			panic(errBoom)
		case f[0] == "goexit":
			runtime.Goexit()
		default:
			panic("no such thing in a script: " + op)
		}
	}
	return state
}

func span(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}

// scripted is a handler that follows a script and logs each call: "1s idle coin" means that the
// event coin was delivered in the state idle, one second after the start.
type scripted struct {
	script
	start time.Time
	log   []string
}

func (h *scripted) Handle(c *Control[string, string], s, ev string) string {
	h.log = append(h.log, fmt.Sprint(c.Now().Sub(h.start), " ", s, " ", ev))
	return h.act(c, s+" "+ev, s)
}

// entering is scripted with an Enter, logged as "1s idle>busy".
type entering struct{ scripted }

func (h *entering) Enter(c *Control[string, string], from, to string) {
	h.log = append(h.log, fmt.Sprint(c.Now().Sub(h.start), " ", from, ">", to))
	h.act(c, ">"+to, to)
}

// epoch is when every test with literal times begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// newEntering returns a machine in the state idle that follows sc.
func newEntering(sc script) (*Machine[string, string], *entering) {
	h := &entering{scripted{script: sc, start: epoch}}
	return NewMachine(h, "idle"), h
}

// drive does each thing in turn: "1s coin" steps with the event coin at one second, "1s" advances
// to one second, and "next" logs the deadline. Errors are logged as well.
func drive(m *Machine[string, string], log *[]string, things ...string) {
	for _, thing := range things {
		at, ev, step := strings.Cut(thing, " ")
		if thing == "next" {
			line := "next none"
			if deadline, ok := m.Deadline(); ok {
				line = fmt.Sprint("next ", deadline.Sub(epoch))
			}
			*log = append(*log, line)
			continue
		}
		var err error
		if now := epoch.Add(span(at)); step {
			err = m.Step(now, ev)
		} else {
			err = m.Advance(now)
		}
		if err != nil {
			*log = append(*log, fmt.Sprint(at, " error: ", err))
		}
	}
}

// Each case has a script, what drive does to its machine in the state idle, and the log, both
// separated by ", ". The logs leave out Enter for the initial state: see TestMachineInitialEnter.
func TestMachine(t *testing.T) {
	tests := []struct {
		name   string
		script script
		do     string
		want   string
	}{
		// Rule 18: the state changes if the handler returns another one. The same state is no change.
		{
			name:   "a change of state runs Enter",
			script: script{"idle a": "-> busy", "busy b": "-> idle"},
			do:     "0s a, 1s b, 2s a",
			want:   "0s idle a, 0s idle>busy, 1s busy b, 1s busy>idle, 2s idle a, 2s idle>busy",
		},
		{
			name:   "the same state runs no Enter",
			script: script{"idle a": "-> idle"},
			do:     "0s a, 0s a",
			want:   "0s idle a, 0s idle a",
		},
		{
			name:   "the same state retries nothing",
			script: script{"idle a": "postpone", "idle b": "-> idle", "idle c": "-> busy"},
			do:     "0s a, 1s b, 2s c",
			want:   "0s idle a, 1s idle b, 2s idle c, 2s idle>busy, 2s busy a",
		},
		{
			name:   "the same state cancels no timeout of the state",
			script: script{"idle a": "state 5s t", "idle b": "-> idle"},
			do:     "0s a, 1s b, next, 5s",
			want:   "0s idle a, 1s idle b, next 5s, 5s idle t",
		},

		// Rule 19: a change cancels the old state's timeout. One armed in the same call stays. Then
		// Enter runs.
		{
			name:   "a change cancels the state timeout",
			script: script{"idle a": "state 5s t", "idle b": "-> busy"},
			do:     "0s a, 1s b, next, 9s",
			want:   "0s idle a, 1s idle b, 1s idle>busy, next none",
		},
		{
			name:   "a state timeout asked for with the change belongs to the new state",
			script: script{"idle a": "state 5s t; -> busy"},
			do:     "0s a, next, 5s",
			want:   "0s idle a, 0s idle>busy, next 5s, 5s busy t",
		},
		{
			name:   "a state timeout asked for with the change replaces the old state's",
			script: script{"idle a": "state 5s t", "idle b": "state 5s u; -> busy"},
			do:     "0s a, 1s b, 5s, next, 6s, next",
			want:   "0s idle a, 1s idle b, 1s idle>busy, next 6s, 6s busy u, next none",
		},
		{
			name:   "the next change cancels it again",
			script: script{"idle a": "state 5s t; -> busy", "busy b": "-> idle"},
			do:     "0s a, 1s b, next",
			want:   "0s idle a, 0s idle>busy, 1s busy b, 1s busy>idle, next none",
		},
		{
			name:   "Enter sets a state timeout of its own",
			script: script{"idle a": "-> busy", ">busy": "state 5s t"},
			do:     "0s a, next, 5s",
			want:   "0s idle a, 0s idle>busy, next 5s, 5s busy t",
		},
		{
			name:   "Enter replaces the one that came with the change",
			script: script{"idle a": "state 5s t; -> busy", ">busy": "state 7s u"},
			do:     "0s a, 5s, 7s",
			want:   "0s idle a, 0s idle>busy, 7s busy u",
		},
		{
			name:   "Enter cancels the one that came with the change",
			script: script{"idle a": "state 5s t; -> busy", ">busy": "cancel"},
			do:     "0s a, next",
			want:   "0s idle a, 0s idle>busy, next none",
		},
		{
			name:   "the timeout of a state may change the state",
			script: script{">busy": "state 5s t", "idle a": "-> busy", "busy t": "-> idle"},
			do:     "0s a, 5s, 6s a, next",
			want:   "0s idle a, 0s idle>busy, 5s busy t, 5s busy>idle, 6s idle a, 6s idle>busy, next 11s",
		},
		{
			name:   "a change leaves event timeouts and named ones alone",
			script: script{"idle a": "event 5s e; timeout n 6s n; -> busy"},
			do:     "0s a, 5s, 6s",
			want:   "0s idle a, 0s idle>busy, 5s busy e, 6s busy n",
		},

		// Rule 20: raised events come first, then, after a change, postponed ones, then those from
		// outside.
		{
			name:   "raised events come in the order raised",
			script: script{"idle a": "raise x; raise y"},
			do:     "0s a, 0s b",
			want:   "0s idle a, 0s idle x, 0s idle y, 0s idle b",
		},
		{
			name:   "a later call's raised events come before an earlier one's",
			script: script{"idle a": "raise x; raise y", "idle x": "raise p; raise q"},
			do:     "0s a",
			want:   "0s idle a, 0s idle x, 0s idle p, 0s idle q, 0s idle y",
		},
		{
			name:   "Enter's raised events come after those of the Handle before it",
			script: script{"idle a": "raise x; -> busy", ">busy": "raise y"},
			do:     "0s a",
			want:   "0s idle a, 0s idle>busy, 0s busy x, 0s busy y",
		},
		{
			name:   "raised events come before postponed ones",
			script: script{"idle a": "postpone", "idle b": "raise x; -> busy"},
			do:     "0s a, 0s b",
			want:   "0s idle a, 0s idle b, 0s idle>busy, 0s busy x, 0s busy a",
		},
		{
			name:   "postponed events come oldest first",
			script: script{"idle a": "postpone", "idle b": "postpone", "idle c": "postpone; -> busy"},
			do:     "0s a, 1s b, 2s c",
			want:   "0s idle a, 1s idle b, 2s idle c, 2s idle>busy, 2s busy a, 2s busy b, 2s busy c",
		},
		{
			name: "postponed events come before raised ones that still wait",
			script: script{
				"idle a": "postpone",
				"idle b": "raise x; raise y",
				"idle x": "-> busy",
			},
			do:   "0s a, 0s b",
			want: "0s idle a, 0s idle b, 0s idle x, 0s idle>busy, 0s busy a, 0s busy y",
		},
		{
			name: "a retry that changes the state starts again at the oldest",
			script: script{
				"idle a": "postpone", "idle b": "postpone", "idle c": "-> busy",
				"busy a": "postpone; -> done",
			},
			do: "0s a, 0s b, 0s c",
			want: "0s idle a, 0s idle b, 0s idle c, 0s idle>busy, " +
				"0s busy a, 0s busy>done, 0s done a, 0s done b",
		},
		{
			name: "an event is postponed until a state takes it",
			script: script{
				"idle a": "postpone", "idle b": "-> busy",
				"busy a": "postpone", "busy b": "-> done",
			},
			do:   "0s a, 1s b, 2s b",
			want: "0s idle a, 1s idle b, 1s idle>busy, 1s busy a, 2s busy b, 2s busy>done, 2s done a",
		},
		{
			name:   "postponing twice is postponing once",
			script: script{"idle a": "postpone; postpone", "idle b": "-> busy"},
			do:     "0s a, 0s b",
			want:   "0s idle a, 0s idle b, 0s idle>busy, 0s busy a",
		},
		{
			name:   "a raised event may be postponed",
			script: script{"idle a": "raise x", "idle x": "postpone", "idle b": "-> busy"},
			do:     "0s a, 1s b",
			want:   "0s idle a, 0s idle x, 1s idle b, 1s idle>busy, 1s busy x",
		},
		{
			name:   "a timeout's event may be postponed, and is then no timeout any more",
			script: script{"idle a": "state 5s t", "idle t": "postpone", "idle b": "-> busy"},
			do:     "0s a, 5s, next, 6s b",
			want:   "0s idle a, 5s idle t, next none, 6s idle b, 6s idle>busy, 6s busy t",
		},

		// Rule 21: a cancelled timeout is never delivered. A zero one fires once no event waits.
		{
			name:   "a timeout fires at its deadline and once",
			script: script{"idle a": "timeout n 5s t"},
			do:     "1s a, next, 5.999999999s, 6s, 7s, next",
			want:   "1s idle a, next 6s, 6s idle t, next none",
		},
		{
			name:   "a late Advance fires it late, with the time it was given",
			script: script{"idle a": "timeout n 5s t", "idle t": "timeout n 5s t"},
			do:     "0s a, 60s, next",
			want:   "0s idle a, 1m0s idle t, next 1m5s",
		},
		{
			name: "due timeouts fire by deadline, then in the order armed",
			script: script{
				"idle a": "timeout p 3s p; timeout q 2s q; event 2s e; state 1s s; timeout r 2s r",
			},
			do:   "0s a, 3s",
			want: "0s idle a, 3s idle s, 3s idle q, 3s idle r, 3s idle p",
		},
		{
			name: "what follows from a timeout comes before the next one",
			script: script{
				"idle a": "timeout p 1s p; timeout q 1s q",
				"idle p": "raise x; timeout z 0s z; -> busy",
			},
			do:   "0s a, 1s",
			want: "0s idle a, 1s idle p, 1s idle>busy, 1s busy x, 1s busy z, 1s busy q",
		},
		{
			name: "a due timeout can be cancelled by one that fires before it",
			script: script{
				"idle a": "timeout p 1s p; timeout q 2s q; state 3s s",
				"idle p": "cancel q; -> busy",
			},
			do:   "0s a, 9s, next",
			want: "0s idle a, 9s idle p, 9s idle>busy, next none",
		},
		{
			name:   "Step fires nothing that was armed before it",
			script: script{"idle a": "timeout n 1s t", "idle b": "cancel n"},
			do:     "0s a, 5s c, next, 5s b, 5s",
			want:   "0s idle a, 5s idle c, next 1s, 5s idle b",
		},
		{
			name:   "the state timeout is cancelled by hand",
			script: script{"idle a": "state 5s t", "idle b": "cancel"},
			do:     "0s a, 1s b, next, 5s",
			want:   "0s idle a, 1s idle b, next none",
		},
		{
			name: "a named timeout is cancelled by its own name alone",
			script: script{
				"idle a": "timeout p 5s p; timeout q 5s q",
				"idle b": "cancel q; cancel; cancel r",
			},
			do:   "0s a, 1s b, 5s",
			want: "0s idle a, 1s idle b, 5s idle p",
		},
		{
			name:   "a named timeout outlives events and changes of state",
			script: script{"idle a": "timeout n 5s t", "idle b": "-> busy"},
			do:     "0s a, 1s b, 2s c, 5s",
			want:   "0s idle a, 1s idle b, 1s idle>busy, 2s busy c, 5s busy t",
		},
		{
			name:   "asking again replaces deadline and event",
			script: script{"idle a": "timeout n 5s t", "idle b": "timeout n 5s u"},
			do:     "0s a, 3s b, 5s, next, 8s, next",
			want:   "0s idle a, 3s idle b, next 8s, 8s idle u, next none",
		},
		{
			name:   "a replaced timeout fires after its equals",
			script: script{"idle a": "timeout p 5s p; timeout q 5s q; timeout p 5s p"},
			do:     "0s a, 5s",
			want:   "0s idle a, 5s idle q, 5s idle p",
		},
		{
			name:   "an event timeout fires if nothing comes",
			script: script{"idle a": "event 5s t"},
			do:     "0s a, next, 5s, next",
			want:   "0s idle a, next 5s, 5s idle t, next none",
		},
		{
			name:   "an event from outside cancels the event timeout",
			script: script{"idle a": "event 5s t"},
			do:     "0s a, 1s b, next",
			want:   "0s idle a, 1s idle b, next none",
		},
		{
			name:   "an event from outside cancels the event timeout even after its deadline",
			script: script{"idle a": "event 5s t"},
			do:     "0s a, 6s b, next, 6s",
			want:   "0s idle a, 6s idle b, next none",
		},
		{
			name:   "a raised event cancels it",
			script: script{"idle a": "raise x; event 5s t"},
			do:     "0s a, next",
			want:   "0s idle a, 0s idle x, next none",
		},
		{
			name:   "a retried event cancels it",
			script: script{"idle a": "postpone", "idle b": "event 5s t; -> busy"},
			do:     "0s a, 0s b, next",
			want:   "0s idle a, 0s idle b, 0s idle>busy, 0s busy a, next none",
		},
		{
			name:   "another timeout cancels it",
			script: script{"idle a": "event 5s t; timeout n 5s n", "idle b": "timeout n 4s n; event 4s t"},
			do:     "0s a, 5s, next, 6s b, 10s, next",
			want:   "0s idle a, 5s idle t, 5s idle n, next none, 6s idle b, 10s idle n, next none",
		},
		{
			name:   "a zero timeout fires in the same Step, after what is queued",
			script: script{"idle a": "state 0s s; raise x; raise y", "idle x": "raise z"},
			do:     "0s a, next",
			want:   "0s idle a, 0s idle x, 0s idle z, 0s idle y, 0s idle s, next none",
		},
		{
			name:   "a zero timeout fires after postponed events too",
			script: script{"idle a": "postpone", "idle b": "timeout n 0s n; -> busy"},
			do:     "0s a, 0s b",
			want:   "0s idle a, 0s idle b, 0s idle>busy, 0s busy a, 0s busy n",
		},
		{
			name:   "zero timeouts fire in the order asked for, a negative one being as good as zero",
			script: script{"idle a": "timeout p 0s p; state -5s s; timeout q -9s q; timeout r 1s r"},
			do:     "0s a, next",
			want:   "0s idle a, 0s idle p, 0s idle s, 0s idle q, next 1s",
		},
		{
			name:   "a zero timeout fires before one that was due already",
			script: script{"idle a": "timeout p 1s p; timeout q 1s q", "idle p": "timeout r 0s r"},
			do:     "0s a, 1s",
			want:   "0s idle a, 1s idle p, 1s idle r, 1s idle q",
		},
		{
			name:   "a zero state timeout is cancelled by a change on the way",
			script: script{"idle a": "state 0s s; raise x", "idle x": "-> busy"},
			do:     "0s a, next",
			want:   "0s idle a, 0s idle x, 0s idle>busy, next none",
		},
		{
			name:   "a zero event timeout is cancelled by what is queued",
			script: script{"idle a": "event 0s e; raise x", "idle b": "event 0s e"},
			do:     "0s a, 1s b",
			want:   "0s idle a, 0s idle x, 1s idle b, 1s idle e",
		},
		{
			name:   "a zero timeout asked for again goes to the end of the line",
			script: script{"idle a": "timeout p 0s p; timeout q 0s q; timeout p 0s r"},
			do:     "0s a",
			want:   "0s idle a, 0s idle q, 0s idle r",
		},
		{
			name:   "a zero timeout replaced by a longer one waits",
			script: script{"idle a": "timeout p 0s p; raise x", "idle x": "timeout p 1s p"},
			do:     "0s a, next, 1s",
			want:   "0s idle a, 0s idle x, next 1s, 1s idle p",
		},

		// Rule 22: Stop ends the machine wherever it is called, and nothing is delivered after it.
		{
			name:   "a normal stop is no error",
			script: script{"idle a": "stop"},
			do:     "0s a, 1s b, 2s",
			want:   "0s idle a, 1s error: scatter: machine stopped, 2s error: scatter: machine stopped",
		},
		{
			name:   "a stop for a reason is an error, and so are the calls after it",
			script: script{"idle a": "stop boom"},
			do:     "0s a, 1s b, 2s",
			want: "0s idle a, 0s error: boom, " +
				"1s error: scatter: machine stopped: boom, 2s error: scatter: machine stopped: boom",
		},
		{
			name:   "the first stop counts",
			script: script{"idle a": "stop boom; stop; stop bang"},
			do:     "0s a",
			want:   "0s idle a, 0s error: boom",
		},
		{
			name:   "stop in a raised event drops those behind it",
			script: script{"idle a": "raise x; raise y", "idle x": "raise z; stop boom"},
			do:     "0s a",
			want:   "0s idle a, 0s idle x, 0s error: boom",
		},
		{
			name: "stop in a retried event",
			script: script{
				"idle a": "postpone", "idle b": "postpone", "idle c": "-> busy",
				"busy a": "stop boom",
			},
			do:   "0s a, 0s b, 0s c",
			want: "0s idle a, 0s idle b, 0s idle c, 0s idle>busy, 0s busy a, 0s error: boom",
		},
		{
			name:   "stop in a timeout's event, with others due",
			script: script{"idle a": "timeout p 1s p; timeout q 1s q", "idle p": "stop boom"},
			do:     "0s a, 1s, next",
			want:   "0s idle a, 1s idle p, 1s error: boom, next none",
		},
		{
			name:   "stop in Enter",
			script: script{"idle a": "raise x; -> busy", ">busy": "stop boom"},
			do:     "0s a",
			want:   "0s idle a, 0s idle>busy, 0s error: boom",
		},
		{
			name:   "stop with a change of state runs no Enter, and zero timeouts do not fire",
			script: script{"idle a": "timeout n 0s n; state 5s s; postpone; raise x; stop; -> busy"},
			do:     "0s a, next",
			want:   "0s idle a, next none",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, h := newEntering(tt.script)
			require.NoError(t, m.Advance(epoch))
			h.log = nil
			drive(m, &h.log, strings.Split(tt.do, ", ")...)
			require.Equal(t, strings.Split(tt.want, ", "), h.log)
		})
	}
}

// Rule 21: Enter runs for the initial state too.
func TestMachineInitialEnter(t *testing.T) {
	tests := []struct {
		name   string
		script script
		do     string
		want   string
	}{
		{
			name: "in the first Step, before the event",
			do:   "1s a, 2s b",
			want: "1s idle>idle, 1s idle a, 2s idle b",
		},
		{
			name: "in the first Advance, and only there",
			do:   "next, 1s, 2s, 3s a",
			want: "next none, 1s idle>idle, 3s idle a",
		},
		{
			name:   "with all that follows from it before the event",
			script: script{">idle": "raise x; timeout n 0s n; event 0s e", "idle x": "-> busy"},
			do:     "0s a",
			want:   "0s idle>idle, 0s idle x, 0s idle>busy, 0s busy n, 0s busy a",
		},
		{
			name:   "with timeouts, which the first Advance fires only at their time",
			script: script{">idle": "state 5s s; timeout n 5s n"},
			do:     "1s, next, 6s",
			want:   "1s idle>idle, next 6s, 6s idle s, 6s idle n",
		},
		{
			// Rule 22: Stop works here too.
			name:   "stop there drops the event of the first Step",
			script: script{">idle": "raise x; stop boom"},
			do:     "0s a, 0s b",
			want:   "0s idle>idle, 0s error: boom, 0s error: scatter: machine stopped: boom",
		},
		{
			name:   "stop there ends the first Advance",
			script: script{">idle": "timeout n 0s n; stop"},
			do:     "0s, 0s",
			want:   "0s idle>idle, 0s error: scatter: machine stopped",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, h := newEntering(tt.script)
			drive(m, &h.log, strings.Split(tt.do, ", ")...)
			require.Equal(t, strings.Split(tt.want, ", "), h.log)
		})
	}
}

func TestMachineWithoutEnter(t *testing.T) {
	h := &scripted{script: script{"idle a": "raise x; -> busy", "busy x": "-> idle"}, start: epoch}
	m := NewMachine(h, "idle")
	drive(m, &h.log, "0s", "1s a", "2s b")
	require.Equal(t, []string{"1s idle a", "1s busy x", "2s idle b"}, h.log)
}

func TestMachineState(t *testing.T) {
	m, _ := newEntering(script{"idle a": "-> busy", "busy b": "stop; -> done"})
	require.Equal(t, "idle", m.State())
	require.NoError(t, m.Step(epoch, "a"))
	require.Equal(t, "busy", m.State())
	require.False(t, m.Stopped())

	// Rule 22: the state that comes with Stop is taken.
	require.NoError(t, m.Step(epoch, "b"))
	require.Equal(t, "done", m.State())
	require.True(t, m.Stopped())
}

// Rule 22: later Steps return ErrStopped. The reason is not lost.
func TestMachineErrStopped(t *testing.T) {
	m, _ := newEntering(script{"idle a": "stop"})
	require.NoError(t, m.Step(epoch, "a"))
	require.Equal(t, ErrStopped, m.Step(epoch, "b"))
	require.Equal(t, ErrStopped, m.Advance(epoch))

	m = NewMachine(stopper{errBoom}, "idle")
	require.Equal(t, errBoom, m.Step(epoch, "a"))
	for _, err := range []error{m.Step(epoch, "b"), m.Advance(epoch)} {
		require.ErrorIs(t, err, ErrStopped)
		require.ErrorIs(t, err, errBoom)
	}
}

// stopper stops for a reason at its first event.
type stopper struct{ reason error }

func (h stopper) Handle(c *Control[string, string], s, _ string) string {
	c.Stop(h.reason)
	return s
}

// Rule 22: a panic in a handler stops the machine and passes through to the caller.
func TestMachinePanic(t *testing.T) {
	tests := []struct {
		name   string
		script script
	}{
		{"in Handle", script{"idle a": "panic"}},
		{"in a raised event", script{"idle a": "raise x; raise y; timeout n 5s n", "idle x": "panic"}},
		{"in Enter", script{"idle a": "-> busy", ">busy": "panic"}},
		{"in Enter for the initial state", script{">idle": "panic"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, h := newEntering(tt.script)
			require.PanicsWithValue(t, errBoom, func() { m.Step(epoch, "a") })
			require.True(t, m.Stopped())
			seen := len(h.log)
			require.Equal(t, ErrStopped, m.Step(epoch, "b"))
			require.Equal(t, ErrStopped, m.Advance(epoch.Add(time.Hour)))
			require.Len(t, h.log, seen)
			_, armed := m.Deadline()
			require.False(t, armed)
		})
	}
}

// misuse is a handler that calls wrong, which uses the machine or its Control in a forbidden way.
type misuse struct {
	m     *Machine[string, string]
	c     *Control[string, string]
	wrong func(h *misuse)
}

func (h *misuse) Handle(c *Control[string, string], _, ev string) string {
	h.c = c
	if ev == "wrong" {
		h.wrong(h)
	}
	return ev
}

func (h *misuse) Enter(_ *Control[string, string], _, to string) {
	if to == "enter" {
		h.wrong(h)
	}
}

func TestMachineMisusePanics(t *testing.T) {
	postpone := func(h *misuse) { h.c.Postpone() }
	tests := []struct {
		event string
		wrong func(h *misuse)
		want  string
	}{
		{"wrong", func(h *misuse) { h.m.Step(epoch, "x") },
			"scatter: Machine.Step: called from its own handler; use Control.Raise"},
		{"enter", func(h *misuse) { h.m.Advance(epoch) },
			"scatter: Machine.Advance: called from its own handler; use Control.Raise"},
		{"enter", postpone,
			"scatter: Control.Postpone: called from Enter, where there is no event to postpone"},
	}
	for _, tt := range tests {
		h := &misuse{wrong: tt.wrong}
		h.m = NewMachine(h, "idle")
		require.PanicsWithValue(t, tt.want, func() { h.m.Step(epoch, tt.event) })
	}
}

func TestControlPanicsOutsideOfCalls(t *testing.T) {
	h := &misuse{}
	m := NewMachine(h, "idle")
	require.NoError(t, m.Step(epoch, "a"))
	c := h.c
	for name, use := range map[string]func(){
		"Raise":              func() { c.Raise("x") },
		"Postpone":           func() { c.Postpone() },
		"StateTimeout":       func() { c.StateTimeout(0, "x") },
		"EventTimeout":       func() { c.EventTimeout(0, "x") },
		"Timeout":            func() { c.Timeout("n", 0, "x") },
		"CancelStateTimeout": func() { c.CancelStateTimeout() },
		"CancelTimeout":      func() { c.CancelTimeout("n") },
		"Stop":               func() { c.Stop(nil) },
	} {
		require.PanicsWithValue(t, "scatter: Control."+name+": called outside Handle and Enter", use)
	}
	require.Equal(t, epoch, c.Now())
}

// busybody uses every method of Control for each event 0, and takes the events that follow from it.
type busybody struct{}

func (busybody) Handle(c *Control[bool, int], s bool, ev int) bool {
	switch {
	case ev != 0:
	case !s:
		c.Raise(1)
		c.Raise(2)
		c.Timeout("far", time.Hour, 3)
		c.EventTimeout(time.Minute, 4)
		c.Timeout("zero", 0, 5)
		c.Postpone()
	default:
		c.StateTimeout(time.Minute, 6)
	}
	return ev == 1 || s && ev != 5
}

func (busybody) Enter(c *Control[bool, int], _, _ bool) { c.StateTimeout(time.Second, 7) }

func TestMachineAllocatesNothingPerEvent(t *testing.T) {
	m := NewMachine(busybody{}, false)
	now := epoch
	got := testing.AllocsPerRun(100, func() {
		now = now.Add(time.Millisecond)
		if m.Step(now, 0) != nil || m.Advance(now.Add(time.Hour)) != nil {
			t.Fatal("stopped")
		}
	})
	if got != 0 {
		t.Errorf("a Step and an Advance that use everything allocate %v times, want 0", got)
	}
}

// A struct can hold a Machine by value, and use it again, without an allocation.
func TestMachineByValue(t *testing.T) {
	var holder struct {
		turnstile turnstile
		machine   Machine[bool, string]
	}
	got := testing.AllocsPerRun(100, func() {
		holder.machine = Machine[bool, string]{}
		holder.machine.init(&holder.turnstile, false)
		if holder.machine.Step(epoch, "twice") != nil || !holder.machine.State() {
			t.Fatal("the raised coin was not delivered")
		}
	})
	require.Zero(t, got)
}

// hoarder postpones events while its state is false.
type hoarder struct{}

func (hoarder) Handle(c *Control[bool, *[64]byte], s bool, ev *[64]byte) bool {
	switch {
	case ev == nil:
		return !s
	case !s:
		c.Postpone()
	case ev[0] == 0:
		ev[0] = 1
		c.Raise(ev)
		c.Timeout("n", time.Second, ev)
	}
	return s
}

// A machine does not keep alive what a handled event refers to.
func TestMachineKeepsNoReferences(t *testing.T) {
	m := NewMachine(hoarder{}, false)
	for range 5 {
		require.NoError(t, m.Step(epoch, new([64]byte)))
	}
	require.NoError(t, m.Step(epoch, nil))
	require.NoError(t, m.Advance(epoch.Add(time.Second)))
	_, armed := m.Deadline()
	require.False(t, armed)

	for _, events := range [][]*[64]byte{m.queue, m.raised, m.postponed} {
		for i, ev := range events[:cap(events)] {
			require.Nil(t, ev, "slot %d of %d", i, cap(events))
		}
	}
	for i, tm := range m.timeouts[:cap(m.timeouts)] {
		if tm.ev != nil {
			t.Errorf("timeouts[%d] still holds an event", i)
		}
	}
}
