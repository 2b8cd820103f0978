package scatter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Peers asked at the same time share a context, and so a timer. Each other deadline has its own.
func TestLifetimeShares(t *testing.T) {
	now := time.Now()
	l := &lifetime{parent: t.Context()}
	first := l.until(now)
	require.Same(t, first, l.until(now))
	second := l.until(now.Add(1))
	require.NotSame(t, first, second)
	require.Same(t, second, l.until(now.Add(1)))
	at, ok := second.Deadline()
	require.True(t, ok)
	require.Equal(t, now.Add(1), at)
	_, ok = l.until(time.Time{}).Deadline()
	require.False(t, ok)

	ctx, cancel := context.WithDeadline(t.Context(), now.Add(time.Minute))
	defer cancel()
	l = &lifetime{parent: ctx}
	for _, deadline := range []time.Time{{}, now.Add(time.Hour)} {
		at, ok = l.until(deadline).Deadline()
		require.True(t, ok)
		require.Equal(t, now.Add(time.Minute), at, "the parent's comes first")
	}
}

// Nothing is made until a probe looks: a context that nobody looks at has no timer and no
// goroutine.
func TestLifetimeMakesNothingUnasked(t *testing.T) {
	l := &lifetime{parent: t.Context()}
	ctx := l.until(time.Now().Add(time.Hour))
	_, _ = ctx.Deadline()
	require.Nil(t, l.first.real)
	require.NoError(t, ctx.Err())
	require.NotNil(t, l.first.real)
	l.end(errBroke, time.Now())
	require.Equal(t, context.Canceled, ctx.Err())
	require.Equal(t, errBroke, context.Cause(ctx))
	require.Equal(t, errBroke, context.Cause(l.until(time.Now().Add(time.Minute))), "one that is made later, too")
}

// A context derived from a probe's ends with it, and costs no goroutine.
func TestLifetimeDerived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := bubbleGoroutines()
		l := &lifetime{parent: t.Context()}
		ctx, cancel := context.WithCancel(l.until(time.Now().Add(time.Hour)))
		defer cancel()
		require.Equal(t, before, bubbleGoroutines())
		l.end(errBroke, time.Now())
		require.Equal(t, errBroke, context.Cause(ctx))
	})
}

// Rule 13: every probe's context has ended when Broadcast returns, with or without a deadline.
func TestBroadcastContextsEnd(t *testing.T) {
	for _, opts := range []*Options{nil, {Limit: 1}, {PeerDeadline: -1}} {
		contexts := make(chan context.Context, 3)
		probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			contexts <- ctx
			return nil, ctx.Err()
		}
		_, err := Broadcast(t.Context(), testRequest, somePeers(3), probe, opts)
		require.NoError(t, err)
		for range 3 {
			ctx := <-contexts
			require.Error(t, ctx.Err())
			require.Equal(t, context.DeadlineExceeded, context.Cause(ctx))
		}
	}
}

// A probe may print its context, as any other, while the query goes on. The race detector looks on.
func TestBroadcastContextPrints(t *testing.T) {
	probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
		for range 50 {
			if s := fmt.Sprint(ctx); !strings.Contains(s, "WithDeadline") {
				return nil, errors.New(s)
			}
		}
		return nil, ctx.Err()
	}
	r, err := Broadcast(t.Context(), testRequest, somePeers(8), probe, nil)
	require.NoError(t, err)
	require.False(t, r.Partial, "%v", r.Peers[0].Err)
}

// Rule 6: a probe that keeps its context, and looks at it for the first time long after the query,
// sees what it would have seen if it had looked all along: not what has become of the caller's
// context since, nor that the query's end was first if a deadline was.
func TestBroadcastContextLookedAtLate(t *testing.T) {
	for name, tt := range map[string]struct {
		until time.Duration // the caller's deadline, and
		leave time.Duration // when it cancels; 0: after the query
		opts  Options
		err   error // of a's context
		cause error
	}{
		"not needed": {
			opts: Options{Cover: NewGroupCover([]PeerID{"a", "z"})},
			err:  context.Canceled, cause: ErrEnough,
		},
		"enough": {
			opts: Options{EnoughCoverage: 0.1, Grace: time.Second},
			err:  context.Canceled, cause: ErrEnough,
		},
		"its deadline, and the query's end": {
			opts: Options{PeerDeadline: time.Second},
			err:  context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
		"its deadline, long before the end": {
			opts: Options{PeerDeadline: time.Second, Limit: 1},
			err:  context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
		"the caller's deadline": {
			until: time.Second,
			err:   context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
		"the caller's deadline, with a reserve": {
			until: time.Second, opts: Options{MergeReserve: time.Second / 2, PeerDeadline: -1},
			err: context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
		"cancelled": {
			leave: time.Second,
			err:   context.Canceled, cause: errBroke,
		},
		"cancelled after its deadline": {
			leave: 1500 * time.Millisecond, opts: Options{PeerDeadline: time.Second, Limit: 1},
			err: context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
	} {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, early=%v", name, early), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					type key struct{}
					ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
					query := ctx
					if tt.until > 0 {
						var stop context.CancelFunc
						query, stop = context.WithTimeout(ctx, tt.until)
						defer stop()
					}
					if tt.leave > 0 {
						time.AfterFunc(tt.leave, func() { cancel(errBroke) })
					}
					var kept context.Context
					b := asyncBehave{
						"a": func(ctx context.Context, _ done) {
							kept = ctx
							if early {
								assert.NoError(t, ctx.Err())
							}
						},
						"b": neverDone,
						"z": doneAfter(0),
					}
					_, err := BroadcastAsync(query, testRequest, []PeerID{"a", "z", "b"}, b.probe, &tt.opts)
					if tt.leave > 0 {
						require.Equal(t, errBroke, err)
					} else {
						require.NoError(t, err)
					}
					if early {
						require.Error(t, kept.Err(), "at once")
					}
					cancel(errors.New("later"))
					time.Sleep(time.Hour)
					require.Equal(t, tt.err, kept.Err())
					require.Equal(t, tt.cause, context.Cause(kept))
					require.Equal(t, "value", kept.Value(key{}))
					<-kept.Done()
				})
			})
		}
	}
}
