package scatter

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// lifetime makes the contexts of one query's probes. The standard library's context with a deadline
// and a cause costs as much as all the rest of asking one peer, and not every transport looks at
// it, so it is made when a probe first does. To do without, make it in until. It is safe for
// concurrent use, but for until.
type lifetime struct {
	parent context.Context
	first  probeContext  // there is seldom a second
	recent *probeContext // the one made last

	mu      sync.Mutex
	made    []*probeContext // those with a context of the standard library
	ended   error           // the cause, once the query has ended
	endedAt time.Time       // when that was
}

// until returns a probe's context, with its deadline if that isn't zero. Peers asked at the same
// time share one, and so one timer. Rule 6.
func (l *lifetime) until(deadline time.Time) context.Context {
	if l.recent == nil || !l.recent.deadline.Equal(deadline) {
		made := &l.first
		if l.recent != nil {
			made = new(probeContext)
		}
		made.lifetime, made.deadline = l, deadline
		l.recent = made
	}
	return l.recent
}

// end cancels all contexts, including those made later, as of a time. One whose deadline came first
// says so. Rule 13.
func (l *lifetime) end(cause error, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended, l.endedAt = cause, at
	for _, c := range l.made {
		if c.isExpiredLocked() {
			<-c.real.Done() // its timer fires at any moment
		}
		c.cancel(cause)
	}
	l.made = nil
}

// probeContext is the context of the probes that have one deadline.
type probeContext struct {
	*lifetime
	deadline time.Time // zero: only the parent's

	real   context.Context // guarded by mu; nil: nobody has looked
	cancel func(error)     // of real
}

// look returns the standard library's context. What that says doesn't depend on when it is made.
func (c *probeContext) look() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		return c.real
	}
	parent := c.parent
	if c.ended != nil { // what becomes of the parent no longer matters
		parent = context.WithoutCancel(parent)
	}
	ctx, cancel := context.WithCancelCause(parent)
	c.real, c.cancel = ctx, cancel
	if !c.deadline.IsZero() && (c.ended == nil || c.isExpiredLocked()) {
		expiring, stop := context.WithDeadline(ctx, c.deadline)
		c.real, c.cancel = expiring, func(cause error) {
			cancel(cause)
			stop()
		}
	}
	if c.ended == nil {
		c.made = append(c.made, c)
	} else {
		c.cancel(c.ended)
	}
	return c.real
}

// isExpiredLocked reports whether the deadline came before the end of the query.
func (c *probeContext) isExpiredLocked() bool {
	return !c.deadline.IsZero() && !c.deadline.After(c.endedAt)
}

// Deadline implements context.Context, as Done, Err and Value do. A context derived from this one
// finds the standard library's in it by Value, so it needs no goroutine.
func (c *probeContext) Deadline() (time.Time, bool) {
	until, ok := c.parent.Deadline()
	if c.deadline.IsZero() || ok && until.Before(c.deadline) {
		return until, ok
	}
	return c.deadline, true
}

func (c *probeContext) Done() <-chan struct{} { return c.look().Done() }
func (c *probeContext) Err() error            { return c.look().Err() }
func (c *probeContext) Value(key any) any     { return c.look().Value(key) }

// String keeps fmt from looking into c while others write to it.
func (c *probeContext) String() string { return fmt.Sprint(c.look()) }
