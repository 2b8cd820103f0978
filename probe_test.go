package scatter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// run runs a probe to its end, on a goroutine of its own, because it may end that.
func run(ctx, own context.Context, f func(context.Context) (hitList, error)) *reply[Hit[string]] {
	r := new(reply[Hit[string]])
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runProbe(ctx, own, behave{"a": f}.probe, "a", testRequest, &wanted[string]{k: testRequest.K}, r)
	}()
	<-ended
	return r
}

// Rules 7, 12: what each way to end makes of a peer.
func TestRunProbeOutcomes(t *testing.T) {
	for name, tt := range map[string]struct {
		probe  func(context.Context) (hitList, error)
		status Status
		hits   string
	}{
		"hits":                {answer(Hit[string]{"x", 1}), Answered, "x"},
		"no hits":             {answer(), Answered, ""},
		"error":               {fail(errBroke), Failed, ""},
		"partial":             {fail(ErrPartial), Incomplete, ""},
		"partial, wrapped":    {fail(fmt.Errorf("x: %w", ErrPartial)), Incomplete, ""},
		"deadline":            {fail(context.DeadlineExceeded), TimedOut, ""},
		"deadline, wrapped":   {fail(fmt.Errorf("x: %w", context.DeadlineExceeded)), TimedOut, ""},
		"net timeout":         {fail(os.ErrDeadlineExceeded), TimedOut, ""},
		"Timeout() is false":  {fail(&hostileError{}), Failed, ""},
		"cancelled":           {fail(context.Canceled), Failed, ""},
		"permanent":           {fail(ErrPermanent), Failed, ""},
		"permanent, partial":  {fail(errors.Join(ErrPartial, ErrPermanent)), Failed, ""},
		"permanent, deadline": {fail(errors.Join(context.DeadlineExceeded, ErrPermanent)), Failed, ""},
		"panic":               {func(context.Context) (hitList, error) { panic("x") }, Failed, ""},
		"panic of a partial":  {func(context.Context) (hitList, error) { panic(ErrPartial) }, Failed, ""},
		"a PanicError":        {fail(&PanicError{Value: ErrPartial}), Failed, ""},
		"exit":                {func(context.Context) (hitList, error) { runtime.Goexit(); return nil, nil }, Failed, ""},
		"hits and an error": {
			func(context.Context) (hitList, error) { return hitList{{"x", 1}}, errBroke }, Failed, "",
		},
		"hits and partial": {
			func(context.Context) (hitList, error) { return hitList{{"x", 1}}, ErrPartial }, Incomplete, "x",
		},
	} {
		r := run(t.Context(), t.Context(), tt.probe)
		require.Equal(t, tt.status, r.status, name)
		require.Equal(t, tt.hits, ids(r.hits), name)
		require.Equal(t, tt.status == Answered, r.err == nil, name)
		require.False(t, r.obeyed, name)
	}
}

// An error that a probe returns after its context has ended is a consequence of that, in whatever
// words. Hits are hits all the same, and a permanent error is permanent.
func TestRunProbeAfterTheEnd(t *testing.T) {
	expired, cancel := context.WithTimeoutCause(t.Context(), 0, errBroke)
	defer cancel()
	cancelled, end := context.WithCancelCause(t.Context())
	end(errBroke)
	words := errors.New("rpc error")

	r := run(expired, expired, fail(words))
	require.Equal(t, reply[Hit[string]]{status: TimedOut, err: words, obeyed: true}, *r)
	r = run(expired, expired, fail(context.DeadlineExceeded))
	require.Equal(t, reply[Hit[string]]{status: TimedOut, obeyed: true}, *r, "it has nothing to add")
	r = run(cancelled, cancelled, fail(words))
	require.Equal(t, reply[Hit[string]]{status: Abandoned, err: words, obeyed: true, cause: errBroke}, *r)
	r = run(cancelled, t.Context(), fail(words))
	require.Equal(t, Failed, r.status, "a hook's context has ended, and not the query's")

	for _, ctx := range []context.Context{expired, cancelled} {
		require.Equal(t, Answered, run(ctx, ctx, answer(Hit[string]{"x", 1})).status)
		require.Equal(t, Incomplete, run(ctx, ctx, fail(ErrPartial)).status)
		r := run(ctx, ctx, fail(ErrPermanent))
		require.Equal(t, Failed, r.status)
		require.False(t, r.obeyed)
		require.Equal(t, Failed, run(ctx, ctx, func(context.Context) (hitList, error) { panic("x") }).status)
	}
}

// Rule 4: a reply is sorted where the probe runs, and only if it must be. The probe's slice is not
// written to.
func TestRunProbeSorts(t *testing.T) {
	hits := hitList{{"x", 2}, {"y", 1}}
	r := run(t.Context(), t.Context(), answer(hits...))
	require.True(t, r.unsorted)
	require.Equal(t, "y x", ids(r.hits))
	require.Equal(t, "x y", ids(hits))

	r = run(t.Context(), t.Context(), answer(r.hits...))
	require.False(t, r.unsorted)
	require.Equal(t, "y x", ids(r.hits))
	require.False(t, run(t.Context(), t.Context(), answer()).unsorted)
}

// The error of a peer that was late is a time-out to errors.Is and to those who ask as package net
// does, and says which time was up.
func TestLateError(t *testing.T) {
	own := &lateError{what: "reply", deadline: time.Second, probeErr: errBroke}
	require.EqualError(t, own, "scatter: no reply within 1s: broke")
	require.ErrorIs(t, own, context.DeadlineExceeded)
	require.ErrorIs(t, own, errBroke)
	require.True(t, own.Timeout())
	query := &lateError{}
	require.EqualError(t, query, "scatter: the query's time was up")
	require.ErrorIs(t, query, context.DeadlineExceeded)
	require.NotErrorIs(t, query, errBroke)
}

// The Err of a TimedOut peer names the deadline that came first, and what the probe said about it.
func TestBroadcastTimeoutErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		says := func(ctx context.Context) (hitList, error) { <-ctx.Done(); return nil, errBroke }
		for _, tt := range []struct {
			peer, query time.Duration
			want        string
		}{
			{time.Second, 0, "scatter: no reply within 1s"},
			{time.Second, time.Minute, "scatter: no reply within 1s"},
			{time.Second, time.Second, "scatter: no reply within 1s"},
			{time.Minute, time.Second, "scatter: the query's time was up"},
			{-1, time.Second, "scatter: the query's time was up"},
		} {
			ctx := t.Context()
			if tt.query > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.query)
				defer cancel()
			}
			b := behave{"deaf": after(time.Hour), "own": fail(os.ErrDeadlineExceeded), "says": says}
			r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, &Options{PeerDeadline: tt.peer})
			require.NoError(t, err)
			require.Equal(t, 3, r.PeersTimedOut)
			require.EqualError(t, r.Peers[0].Err, tt.want)
			require.Equal(t, os.ErrDeadlineExceeded, r.Peers[1].Err)
			require.Contains(t, []string{tt.want, tt.want + ": broke"}, r.Peers[2].Err.Error(), "either may be seen first")
			time.Sleep(time.Hour)
		}
	})
}
