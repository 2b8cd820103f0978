package scatter_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/scatterknn/scatter"
)

// A turnstile lets one visitor through for each coin. The visitor has ten seconds to push.
type turnstile struct{}

func (turnstile) Handle(c *scatter.Control[string, string], state, event string) string {
	switch {
	case state == "locked" && event == "coin":
		c.StateTimeout(10*time.Second, "expire")
		return "open"
	case state == "open" && event != "coin":
		return "locked"
	}
	return state
}

// A machine reads no clock, so literal times show how it behaves.
func ExampleMachine() {
	m := scatter.NewMachine(turnstile{}, "locked")
	noon := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)

	m.Step(noon, "coin")
	deadline, _ := m.Deadline()
	fmt.Println(m.State(), "until", deadline.Format(time.TimeOnly))

	m.Advance(deadline.Add(-1))
	fmt.Println(m.State())
	m.Advance(deadline)
	fmt.Println(m.State())

	// A push in time locks it again, and cancels the timeout.
	m.Step(noon, "coin")
	m.Step(noon, "push")
	_, armed := m.Deadline()
	fmt.Println(m.State(), armed)
	// Output:
	// open until 12:00:10
	// open
	// locked
	// locked false
}

// This prints the table of a machine's states and events: the next state for each pair.
func ExampleMachine_table() {
	events := []string{"coin", "push", "expire"}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "state\t"+strings.Join(events, "\t"))
	for _, state := range []string{"locked", "open"} {
		fmt.Fprint(w, state)
		for _, event := range events {
			m := scatter.NewMachine(turnstile{}, state)
			m.Step(time.Time{}, event)
			fmt.Fprint(w, "\t"+m.State())
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	// Output:
	// state   coin  push    expire
	// locked  open  locked  locked
	// open    open  locked  locked
}

// A line is a connection that takes time to come up. Messages wait until it is up.
type line struct{}

func (line) Handle(c *scatter.Control[string, string], state, event string) string {
	switch {
	case event == "up":
		return "connected"
	case state == "connecting":
		c.Postpone()
	default:
		fmt.Println(state, event)
	}
	return state
}

func (line) Enter(_ *scatter.Control[string, string], from, to string) {
	fmt.Println(from, "->", to)
}

func ExampleControl_Postpone() {
	m := scatter.NewMachine(line{}, "connecting")
	for _, event := range []string{"hello", "world", "up", "bye"} {
		m.Step(time.Time{}, event)
	}
	// Output:
	// connecting -> connecting
	// connecting -> connected
	// connected hello
	// connected world
	// connected bye
}

// A summer adds numbers until none has come for a while.
type summer struct{ sum int }

func (s *summer) Handle(c *scatter.Control[string, int], state string, n int) string {
	if n == 0 {
		c.Stop(nil)
	}
	s.sum += n
	c.EventTimeout(10*time.Millisecond, 0)
	return state
}

func ExampleRun() {
	inbox := make(chan int, 3)
	for n := range 3 {
		inbox <- n + 1
	}
	s := &summer{}
	err := scatter.Run(context.Background(), scatter.NewMachine(s, "adding"), inbox)
	fmt.Println(s.sum, err)
	// Output: 6 <nil>
}

// An entry changes an account. It carries the caller that asks for the balance after it, if any.
type entry struct {
	amount int
	asking scatter.From[int]
}

type account struct{ balance int }

func (a *account) Handle(c *scatter.Control[string, entry], state string, e entry) string {
	a.balance += e.amount
	e.asking.Reply(a.balance) // dropped if nobody asks
	return state
}

func ExampleCall() {
	ctx, cancel := context.WithCancel(context.Background())
	a := scatter.Start(ctx, scatter.NewMachine(&account{}, "open"), 10)

	a.Send(ctx, entry{amount: 100})
	a.Send(ctx, entry{amount: -30})
	balance, err := scatter.Call(ctx, a, func(from scatter.From[int]) entry {
		return entry{amount: 5, asking: from}
	})
	fmt.Println(balance, err)

	cancel()
	fmt.Println(a.Wait())
	// Output:
	// 75 <nil>
	// context canceled
}
