package scatter

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errGone = errors.New("gone")

// newTimed returns a machine like newEntering, but its log counts from now. Its handler takes one
// second of the bubble's time for the event "slow".
func newTimed(sc script) (*Machine[string, string], *timed) {
	h := &timed{entering{scripted{script: sc, start: time.Now()}}}
	return NewMachine(h, "idle"), h
}

type timed struct{ entering }

func (h *timed) Handle(c *Control[string, string], s, ev string) string {
	if ev == "slow" {
		time.Sleep(time.Second)
	}
	return h.entering.Handle(c, s, ev)
}

// inboxOf returns a buffered inbox that holds events and has room for more.
func inboxOf(events ...string) chan string {
	inbox := make(chan string, len(events)+10)
	for _, ev := range events {
		inbox <- ev
	}
	return inbox
}

func wantLog(t *testing.T, h *timed, want ...string) {
	t.Helper()
	require.Equal(t, want, h.log)
}

// Rule 21: Enter runs for the initial state too. Run does this at once.
func TestRunEntersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{">idle": "stop boom"})
		require.EqualError(t, Run(t.Context(), m, inboxOf("a")), "boom")
		wantLog(t, h, "0s idle>idle")
	})
}

func TestRunDeliversInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{"idle a": "raise x; raise y", "idle c": "stop"})
		// Rule 20: raised events come before the inbox. Rule 22: nothing comes after a stop.
		require.NoError(t, Run(t.Context(), m, inboxOf("a", "b", "c", "d")))
		wantLog(t, h, "0s idle>idle", "0s idle a", "0s idle x", "0s idle y", "0s idle b", "0s idle c")
	})
}

// Rule 19: a state timeout armed with a change belongs to the new state.
func TestRunStateTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{"idle a": "state 5s t; -> busy", "busy t": "stop"})
		require.NoError(t, Run(t.Context(), m, inboxOf("a")))
		wantLog(t, h, "0s idle>idle", "0s idle a", "0s idle>busy", "5s busy t")
	})
}

// Rule 21: an event one nanosecond before the deadline still cancels.
func TestRunCancelsJustInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{
			"idle a": "timeout n 5s n; timeout p 5s p",
			"idle b": "cancel n",
			"idle p": "stop",
		})
		inbox := inboxOf("a")
		time.AfterFunc(5*time.Second-1, func() { inbox <- "b" })
		require.NoError(t, Run(t.Context(), m, inbox))
		wantLog(t, h, "0s idle>idle", "0s idle a", "4.999999999s idle b", "5s idle p")
	})
}

func TestRunFollowsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{
			"idle a": "state 9s t",
			"idle b": "state 3s t", // earlier
			"idle c": "state 8s t", // later
			"idle d": "cancel; timeout n 1s n",
			"idle n": "timeout n 1s o",
			"idle o": "state 0s s; timeout n 2s p",
			"idle p": "stop",
		})
		inbox := make(chan string)
		go func() {
			for _, ev := range []string{"a", "b", "c", "d"} {
				inbox <- ev
				time.Sleep(2 * time.Second)
			}
		}()
		require.NoError(t, Run(t.Context(), m, inbox))
		wantLog(t, h, "0s idle>idle", "0s idle a", "2s idle b", "4s idle c", "6s idle d",
			"7s idle n", "8s idle o", "8s idle s", "10s idle p")
	})
}

// Events that the inbox holds when a timeout falls due are delivered first.
func TestRunDeliversHeldEventsBeforeATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{
			"idle a": "timeout n 1s n; timeout p 1s p",
			"idle c": "cancel n",
			"idle p": "stop",
		})
		require.NoError(t, Run(t.Context(), m, inboxOf("a", "slow", "b", "c")))
		wantLog(t, h, "0s idle>idle", "0s idle a", "0s idle slow", "1s idle b", "1s idle c", "1s idle p")
	})
}

// The same holds for a timeout that is due when Run begins.
func TestRunDeliversBeforeWhatIsDueAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{"idle a": "timeout n 1s n", "idle b": "cancel n; stop"})
		require.NoError(t, m.Step(time.Now(), "a"))
		time.Sleep(2 * time.Second)
		require.NoError(t, Run(t.Context(), m, inboxOf("b")))
		wantLog(t, h, "0s idle>idle", "0s idle a", "2s idle b")
	})
}

func TestRunStopsInAHeldEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{"idle a": "timeout n 1s n", "idle b": "stop boom"})
		require.EqualError(t, Run(t.Context(), m, inboxOf("a", "slow", "b", "c")), "boom")
		wantLog(t, h, "0s idle>idle", "0s idle a", "0s idle slow", "1s idle b")
	})
}

// A flood is a handler that puts the next event into its own inbox every millisecond, so that the
// inbox is never empty. It stops at the event 0.
type flood struct {
	inbox chan int
	seen  int
}

func (h *flood) Handle(c *Control[bool, int], s bool, ev int) bool {
	switch ev {
	case 0:
		c.Stop(nil)
	case 1:
		c.Timeout("n", time.Second, 0)
	}
	time.Sleep(time.Millisecond)
	h.seen++
	h.inbox <- h.seen + 1
	return s
}

func TestRunFloodStarvesNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &flood{inbox: make(chan int, 9)}
		h.inbox <- 1
		require.NoError(t, Run(t.Context(), NewMachine(h, false), h.inbox))
		// The timeout is due after 1,000 events. Each later event then wins with a chance of one half.
		require.Less(t, h.seen, 1100)
	})
}

func TestRunFloodStarvesNoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errGone)
		defer cancel()
		h := &flood{inbox: make(chan int, 9)}
		h.inbox <- 2
		require.Equal(t, errGone, Run(ctx, NewMachine(h, false), h.inbox))
		require.Less(t, h.seen, 1100)
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{">idle": "state 9s t", "idle t": "stop boom"})
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errGone)
		defer cancel()
		inbox := inboxOf("a")
		require.Equal(t, errGone, Run(ctx, m, inbox))
		wantLog(t, h, "0s idle>idle", "0s idle a")
		require.Equal(t, 5*time.Second, time.Since(h.start))

		// The machine has not stopped and its timeout is still armed, so Run can continue it.
		require.False(t, m.Stopped())
		require.EqualError(t, Run(t.Context(), m, inbox), "boom")
		wantLog(t, h, "0s idle>idle", "0s idle a", "9s idle t")
	})
}

// Events that the inbox holds when ctx ends are delivered.
func TestRunDeliversHeldEventsAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errGone)
		require.Equal(t, errGone, Run(ctx, m, inboxOf("a", "b", "c")))
		wantLog(t, h, "0s idle>idle", "0s idle a", "0s idle b", "0s idle c")

		m, _ = newTimed(script{"idle b": "stop boom"})
		require.EqualError(t, Run(ctx, m, inboxOf("a", "b", "c")), "boom")
		m, _ = newTimed(script{"idle b": "stop"})
		require.NoError(t, Run(ctx, m, inboxOf("a", "b", "c")))
	})
}

func TestRunClosedInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{"idle a": "timeout n 5s n; state 7s s"})
		inbox := inboxOf("a", "b")
		close(inbox)
		require.NoError(t, Run(t.Context(), m, inbox))
		wantLog(t, h, "0s idle>idle", "0s idle a", "0s idle b", "5s idle n", "7s idle s")
		require.False(t, m.Stopped())

		// A nil inbox is like one that is closed and empty.
		require.NoError(t, Run(t.Context(), m, nil))
	})
}

func TestRunStoppedMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newTimed(script{">idle": "stop boom"})
		require.EqualError(t, Run(t.Context(), m, nil), "boom")
		err := Run(t.Context(), m, nil)
		require.ErrorIs(t, err, ErrStopped)
		require.EqualError(t, err, "scatter: machine stopped: boom")
	})
}

func TestStepHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(nil)
		require.NoError(t, stepHeld(m, nil, time.Now()))
		require.NoError(t, stepHeld(m, make(chan string), time.Now()))

		closed := inboxOf("a", "b")
		close(closed)
		require.NoError(t, stepHeld(m, closed, time.Now()))
		require.NoError(t, stepHeld(m, closed, time.Now()))

		ready := make(chan string)
		go func() { ready <- "c" }()
		synctest.Wait()
		require.NoError(t, stepHeld(m, ready, time.Now()))
		wantLog(t, h, "0s idle>idle", "0s idle a", "0s idle b", "0s idle c")
	})
}

func TestAlarmRingsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a alarm
		at := time.Now().Add(time.Second)
		require.Equal(t, at, <-a.set(at))
		a.rung = true
		require.Equal(t, at, <-a.set(at))
	})
}

// An echo answers each event with its ask, and does what that says.
type echo struct{}

type echoed struct {
	from From[string]
	ask  string
}

func (echo) Handle(c *Control[string, echoed], s string, ev echoed) string {
	switch ev.ask {
	case "later": // in the next state
		if s == "idle" {
			c.Postpone()
			return s
		}
	case "elsewhere":
		go ev.from.Reply(ev.ask)
		return s
	case "never":
		return s
	case "slow":
		time.Sleep(time.Second)
	case "twice":
		if !ev.from.Reply("twice") || ev.from.Reply("again") {
			panic("the first answer counts")
		}
		return s
	case "answer and stop":
		ev.from.Reply(ev.ask)
		c.Stop(nil)
		return s
	case "stop":
		c.Stop(errBoom)
		return s
	case "go":
		return "busy"
	case "panic":
		panic(errBoom)
	case "goexit":
		runtime.Goexit()
	}
	ev.from.Reply(ev.ask)
	return s
}

// startEcho starts an echo that ends no later than the test.
func startEcho(t *testing.T, mailbox int) *Actor[string, echoed] {
	ctx, cancel := context.WithCancel(t.Context())
	a := Start(ctx, NewMachine(echo{}, "idle"), mailbox)
	t.Cleanup(func() {
		cancel()
		<-a.Done()
	})
	return a
}

// ask calls the echo. It needs no explicit type argument.
func ask(ctx context.Context, a *Actor[string, echoed], what string) (string, error) {
	return Call(ctx, a, func(from From[string]) echoed { return echoed{from, what} })
}

func TestActorHandlesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newTimed(script{">idle": "state 5s t", "idle t": "-> done", "done c": "stop"})
		a := Start(t.Context(), m, 0)
		require.NoError(t, a.Send(t.Context(), "a"))
		require.NoError(t, a.Send(t.Context(), "b"))
		time.Sleep(6 * time.Second)
		require.NoError(t, a.Send(t.Context(), "c"))
		<-a.Done()
		require.NoError(t, a.Wait())
		require.NoError(t, a.Wait())
		wantLog(t, h, "0s idle>idle", "0s idle a", "0s idle b", "5s idle t", "5s idle>done", "6s done c")
		require.Equal(t, "done", m.State())
	})
}

// Rule 22: Send returns ErrStopped after a stop, even if the mailbox has room or ctx has ended.
func TestActorSendAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startEcho(t, 100)
		require.NoError(t, a.Send(t.Context(), echoed{ask: "stop"}))
		require.Equal(t, errBoom, a.Wait())
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for range 50 {
			require.Equal(t, ErrStopped, a.Send(t.Context(), echoed{}))
			require.Equal(t, ErrStopped, a.Send(ended, echoed{}))
			_, err := ask(t.Context(), a, "a")
			require.Equal(t, ErrStopped, err)
		}
	})
}

func TestActorSendWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startEcho(t, 1)
		start := time.Now()
		require.NoError(t, a.Send(t.Context(), echoed{ask: "slow"}))
		synctest.Wait()
		require.NoError(t, a.Send(t.Context(), echoed{ask: "slow"}))
		require.Zero(t, time.Since(start))

		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second-1, errGone)
		defer cancel()
		require.Equal(t, errGone, a.Send(ctx, echoed{}))
		require.Equal(t, time.Second-1, time.Since(start))

		require.NoError(t, a.Send(t.Context(), echoed{ask: "stop"}))
		require.Equal(t, time.Second, time.Since(start))
		// Rule 22: the machine stops at two seconds, while these two Sends wait.
		errs := make(chan error)
		for range 2 {
			go func() { errs <- a.Send(t.Context(), echoed{ask: "never"}) }()
		}
		queued, dropped := <-errs, <-errs
		if queued != nil {
			queued, dropped = dropped, queued
		}
		require.NoError(t, queued) // it got the place of "stop", and is dropped with the mailbox
		require.Equal(t, ErrStopped, dropped)
		require.Equal(t, errBoom, a.Wait())
		require.Equal(t, 2*time.Second, time.Since(start))
	})
}

func TestActorEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		a := Start(ctx, NewMachine(echo{}, "idle"), 1)
		cancel(errGone)
		require.Equal(t, errGone, a.Wait())
		require.Equal(t, ErrStopped, a.Send(t.Context(), echoed{}))
	})
}

// Rule 22: a panic ends an Actor with an error that holds it.
func TestActorPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startEcho(t, 1)
		_, err := ask(t.Context(), a, "panic")
		require.Equal(t, ErrStopped, err)

		err = a.Wait()
		var p *PanicError
		require.ErrorAs(t, err, &p)
		require.Equal(t, errBoom, p.Value)
		require.ErrorIs(t, err, errBoom)
		require.EqualError(t, err, "scatter: panic: boom")
		require.Contains(t, string(p.Stack), "echo.Handle")
	})
}

func TestActorGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startEcho(t, 1)
		_, err := ask(t.Context(), a, "goexit")
		require.Equal(t, ErrStopped, err)
		require.Equal(t, ErrGoexit, a.Wait())
	})
}

func TestStartNegativeMailboxPanics(t *testing.T) {
	require.PanicsWithValue(t, "scatter: Start: mailbox is -1, must not be negative", func() {
		startEcho(t, -1)
	})
}

func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startEcho(t, 1)
		for _, what := range []string{"at once", "slow", "twice", "elsewhere"} {
			got, err := ask(t.Context(), a, what)
			require.NoError(t, err)
			require.Equal(t, what, got)
		}

		start := time.Now()
		time.AfterFunc(5*time.Second, func() { a.Send(t.Context(), echoed{ask: "go"}) })
		got, err := ask(t.Context(), a, "later")
		require.NoError(t, err)
		require.Equal(t, "later", got)
		require.Equal(t, 5*time.Second, time.Since(start))
	})
}

// Rule 22: a waiting Call returns ErrStopped when the machine stops.
func TestCallWhileTheMachineStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startEcho(t, 1)
		time.AfterFunc(5*time.Second, func() { a.Send(t.Context(), echoed{ask: "stop"}) })
		start := time.Now()
		_, err := ask(t.Context(), a, "never")
		require.Equal(t, ErrStopped, err)
		require.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestCallContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startEcho(t, 0)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errGone)
		defer cancel()
		start := time.Now()
		_, err := ask(ctx, a, "never")
		require.Equal(t, errGone, err)
		require.Equal(t, 5*time.Second, time.Since(start))

		// The same holds while the event waits to be sent.
		require.NoError(t, a.Send(t.Context(), echoed{ask: "slow"}))
		_, err = ask(ctx, a, "never")
		require.Equal(t, errGone, err)
	})
}

// An answer takes precedence over the end of the machine and the end of ctx.
func TestCallAnswerWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			got, err := ask(t.Context(), startEcho(t, 1), "answer and stop")
			require.NoError(t, err)
			require.Equal(t, "answer and stop", got)
		}

		a := startEcho(t, 1)
		for range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			got, err := Call(ctx, a, func(from From[string]) echoed {
				from.Reply("before it is sent")
				cancel()
				return echoed{ask: "never"}
			})
			require.NoError(t, err)
			require.Equal(t, "before it is sent", got)
		}
	})
}

// selfSender sends to its own actor, which the documentation forbids. It stops with the error.
type selfSender struct{ actor *Actor[string, until] }

// until is an event: the context that bounds what its handler does.
type until struct{ ctx context.Context }

func (h *selfSender) Handle(c *Control[string, until], s string, ev until) string {
	if s == "send" {
		c.Stop(h.actor.Send(ev.ctx, ev))
	} else {
		_, err := Call(ev.ctx, h.actor, func(From[int]) until { return ev })
		c.Stop(err)
	}
	return s
}

// A handler that sends to its own actor, or calls it, waits until ctx ends, as the documentation
// says.
func TestActorWaitsForItself(t *testing.T) {
	for _, how := range []string{"send", "call"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errGone)
			defer cancel()
			start := time.Now()
			h := &selfSender{}
			h.actor = Start(t.Context(), NewMachine(h, how), 0)
			require.NoError(t, h.actor.Send(t.Context(), until{ctx}))
			require.Equal(t, errGone, h.actor.Wait())
			require.Equal(t, 5*time.Second, time.Since(start))
		})
	}
}

func TestFromReply(t *testing.T) {
	require.False(t, From[int]{}.Reply(1), "nobody")

	from := From[int]{&caller[int]{answer: make(chan int, 1)}}
	var wg sync.WaitGroup
	var taken atomic.Int32
	for i := range 10 {
		wg.Go(func() {
			if from.Reply(i) {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, taken.Load())
	<-from.c.answer
	require.False(t, from.Reply(11), "after the answer was taken")
}

func TestActorManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startEcho(t, 3)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				for j := range 20 {
					what := fmt.Sprint(i, j)
					if got, err := ask(t.Context(), a, what); err != nil || got != what {
						t.Errorf("asked %q, got %q, %v", what, got, err)
					}
				}
			})
		}
		wg.Wait()
	})
}
