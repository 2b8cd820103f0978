package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fence is what an answer has to know: what was acknowledged before the fence was taken.
type fence struct {
	at       positions
	warnings []string // about streams of which nobody has said how far they are
}

// fence takes a fence, in a fourth of the time that ctx has. It waits until this node has applied
// the meta stream so far, so that n.index.schema is not stale.
func (n *node) fence(ctx context.Context) fence {
	f := fence{at: n.engine.acknowledged()}
	if n.cfg.session {
		return f
	}
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/4)
	defer cancel()
	last, errs := n.fences.last(ctx)
	var late []string
	for s, err := range errs {
		switch {
		case err == nil:
			f.at[s] = max(f.at[s], last[s])
		case s == meta:
			f.warnings = append(f.warnings, "the log's meta stream has no leader that says how far it is: "+
				"a change of the ring or of an index in the last moments may be missing")
		default:
			late = append(late, strconv.Itoa(s))
		}
	}
	if len(late) > 0 {
		what, has := "partition", "has no leader that says how far it is"
		if len(late) > 1 {
			what, has = "partitions", "have no leader that says how far they are"
		}
		f.warnings = append(f.warnings, fmt.Sprintf("%s %s %s: writes of the last moments may be missing",
			what, strings.Join(late, ", "), has))
	}
	if err := n.index.wait(ctx, positions{meta: f.at[meta]}); err != nil {
		f.warnings = append(f.warnings, fmt.Sprintf("%s may know old indexes: %v", n.cfg.name, err))
	}
	return f
}

// fences asks the leaders for all searches that wait for it at the same time. A search needs a call
// that begins after the search has begun, so those that come during a call share the next one.
type fences struct {
	ask     func(context.Context) (positions, [streams]error)
	timeout time.Duration // of a call
	busy    chan struct{} // of 1: is full while a call runs

	mu   sync.Mutex
	next *fenceCall // guarded by mu; it waits for busy
}

type fenceCall struct {
	done chan struct{} // closed when last and errs are set
	last positions
	errs [streams]error
}

// last is engine.last.
func (f *fences) last(ctx context.Context) (last positions, errs [streams]error) {
	f.mu.Lock()
	call := f.next
	if call == nil {
		call = &fenceCall{done: make(chan struct{})}
		f.next = call
		go f.run(call)
	}
	f.mu.Unlock()
	select {
	case <-call.done:
		return call.last, call.errs
	case <-ctx.Done():
		for s := range errs {
			errs[s] = ctx.Err()
		}
		return last, errs
	}
}

func (f *fences) run(call *fenceCall) {
	f.busy <- struct{}{}
	f.mu.Lock()
	f.next = nil
	f.mu.Unlock()
	// A leader that doesn't answer doesn't keep the next call waiting for as long.
	release := time.AfterFunc(f.timeout/4, func() { <-f.busy })
	ctx, cancel := context.WithTimeout(context.Background(), f.timeout)
	call.last, call.errs = f.ask(ctx)
	cancel()
	if release.Stop() {
		<-f.busy
	}
	close(call.done)
}

// settle waits until this node has applied the meta stream as far as its leader had it when settle
// was called, so that n.index.schema is not stale.
func (n *node) settle(ctx context.Context) error {
	ctx, cancel := n.limit(ctx)
	defer cancel()
	last, errs := n.fences.last(ctx)
	if errs[meta] != nil {
		return fmt.Errorf("the log's meta stream has no leader that says how far it is: %w", errs[meta])
	}
	return n.index.wait(ctx, positions{meta: last[meta]})
}
