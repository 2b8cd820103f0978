package scatter

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// flightKey says which calls of Search share a query.
type flightKey struct {
	key  string
	opts *Options
}

// flight is a query that callers share. It runs on a goroutine of its own until the latest deadline
// of its callers, or until all of them have left. A caller leaves when its own time is up or when
// it is cancelled.
type flight[H Ranked[ID], ID cmp.Ordered] struct {
	key     flightKey
	query   *broadcast[H, ID]
	until   time.Time     // the latest deadline of its callers; zero: none. Guarded by flights.mu
	callers int           // that have not left. Guarded by flights.mu
	taken   bool          // a caller has taken resp. Guarded by flights.mu
	done    chan struct{} // closed when resp and err are set
	resp    *Response[H]
	err     error
}

// flights are the queries of a Searcher that callers share.
type flights[H Ranked[ID], ID cmp.Ordered] struct {
	mu    sync.Mutex
	byKey map[flightKey]*flight[H, ID] // guarded by mu: those that can be joined
}

// share joins the query of a key that is under way, and calls joined, or begins one, on a goroutine
// that spawn starts. Rule 41.
func (s *flights[H, ID]) share(
	ctx context.Context, key flightKey, begin func() (*broadcast[H, ID], error), joined func(), spawn func(func()),
) (*Response[H], error) {
	until, _ := ctx.Deadline()
	for {
		f := s.join(key, until)
		if f != nil {
			joined()
		} else {
			// Not under mu, because Query.Order is the caller's code.
			query, err := begin()
			if err != nil {
				return nil, err
			}
			var late bool
			if f, late = s.takeOff(ctx, key, query, until, spawn); late {
				joined()
			}
		}
		end := f.query.endOf(time.Now(), until)
		left, cause := f.await(ctx, end)
		switch {
		case left:
			return s.leave(f, cause)
		case !f.ranOutOfTime() || !end.IsZero() && !time.Now().Before(end):
			return s.land(f)
		}
		// The query's time was up just before this caller would have given it more, so it asks
		// anew.
	}
}

// await returns when the query has ended, or when its caller must leave: at end, or when ctx has
// ended, and then for a cause.
func (f *flight[H, ID]) await(ctx context.Context, end time.Time) (left bool, cause error) {
	var alarm <-chan time.Time
	if !end.IsZero() {
		timer := time.NewTimer(time.Until(end))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-f.done:
		return false, nil
	case <-alarm:
		return true, nil
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) { // Rule 9
		return true, nil
	}
	return true, context.Cause(ctx)
}

// join returns the query of a key that is under way, with one caller more, or nil.
func (s *flights[H, ID]) join(key flightKey, until time.Time) *flight[H, ID] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joinLocked(key, until)
}

func (s *flights[H, ID]) joinLocked(key flightKey, until time.Time) *flight[H, ID] {
	f := s.byKey[key]
	if f == nil {
		return nil
	}
	f.callers++
	if !f.until.IsZero() && (until.IsZero() || until.After(f.until)) {
		f.until = until
		f.query.inbox.put(message[H]{do: func(now time.Time) { f.query.step(now, event{kind: extend, at: until}) }})
	}
	return f
}

// takeOff begins a query, or joins one that has begun meanwhile. Neither the first caller's
// cancellation nor its deadline ends the query.
func (s *flights[H, ID]) takeOff(
	ctx context.Context, key flightKey, query *broadcast[H, ID], until time.Time, spawn func(func()),
) (f *flight[H, ID], joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.joinLocked(key, until); f != nil {
		return f, true
	}
	f = &flight[H, ID]{key: key, query: query, until: until, callers: 1, done: make(chan struct{})}
	query.shared = true
	s.byKey[key] = f
	ctx = context.WithoutCancel(ctx)
	spawn(func() {
		returned := false
		defer close(f.done)
		defer func() {
			if failure := caught(returned, recover()); failure != nil { // a hook's
				f.err = failure
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.forgetLocked(f) // before done is closed
		}()
		f.resp, f.err = query.run(ctx, until)
		returned = true
	})
	return f, false
}

// ranOutOfTime reports whether the query, which has ended, ended because its callers' time was up.
func (f *flight[H, ID]) ranOutOfTime() bool {
	q := f.query
	return f.resp != nil && q.over && !q.enough && q.cause == nil
}

// land returns what the query has brought, to a caller that waited for its end. All callers but the
// first get copies.
func (s *flights[H, ID]) land(f *flight[H, ID]) (*Response[H], error) {
	s.mu.Lock()
	first := !f.taken
	f.taken = true
	s.mu.Unlock()
	if first || f.resp == nil {
		return f.resp, f.err
	}
	resp := f.resp.clone()
	var low *CoverageError[H]
	if errors.As(f.err, &low) {
		return resp, &CoverageError[H]{resp, low.MinCoverage}
	}
	return resp, f.err
}

// leave returns what has arrived, to a caller whose time is up or that was cancelled for a cause.
// The last caller ends the query.
func (s *flights[H, ID]) leave(f *flight[H, ID], cause error) (*Response[H], error) {
	var resp *Response[H]
	var err error
	told := make(chan struct{})
	f.query.inbox.put(message[H]{do: func(now time.Time) {
		switch {
		case f.query.machine.Stopped():
		case !s.isLeftByAll(f):
			resp, err = f.query.snapshot(now, cause)
			close(told)
		case cause != nil:
			f.query.step(now, event{kind: cancel, err: cause})
		default:
			f.query.step(now, event{kind: timeUp})
		}
	}})
	select {
	case <-told:
		return resp, err
	case <-f.done:
		return s.land(f)
	}
}

// isLeftByAll counts one caller less, and reports whether there is none. Nobody joins then any
// more.
func (s *flights[H, ID]) isLeftByAll(f *flight[H, ID]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.callers--
	if f.callers > 0 {
		return false
	}
	s.forgetLocked(f)
	return true
}

// forgetLocked makes sure that nobody joins a query any more.
func (s *flights[H, ID]) forgetLocked(f *flight[H, ID]) {
	if s.byKey[f.key] == f {
		delete(s.byKey, f.key)
	}
}

// clone returns a copy of r that shares only what hits point to, and what nobody may write to.
func (r *Response[H]) clone() *Response[H] {
	c := *r
	c.Hits, c.Peers, c.Missing = slices.Clone(r.Hits), slices.Clone(r.Peers), slices.Clone(r.Missing)
	return &c
}
