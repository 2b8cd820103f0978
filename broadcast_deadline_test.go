package scatter

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

// Rule 6: the probe's context carries the deadline and the caller's values, and ends at the
// deadline.
func TestBroadcastProbeContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, "value")
		began := time.Now()
		probe := func(ctx context.Context, _ PeerID, req *Request) (hitList, error) {
			deadline, ok := ctx.Deadline()
			if !ok || !deadline.Equal(began.Add(3*time.Second)) || ctx.Value(key{}) != "value" || req != testRequest {
				return nil, errors.New("wrong context or request")
			}
			<-ctx.Done()
			if time.Since(began) != 3*time.Second {
				return nil, errors.New("over at the wrong time")
			}
			return nil, ctx.Err()
		}
		r, err := Broadcast(ctx, testRequest, somePeers(2), probe, &Options{PeerDeadline: 3 * time.Second})
		require.NoError(t, err)
		require.Equal(t, "peer0:TimedOut peer1:TimedOut", summary(r))
		require.Equal(t, 3*time.Second, time.Since(began))
		require.ErrorIs(t, r.Peers[0].Err, context.DeadlineExceeded)
		require.EqualError(t, r.Peers[0].Err, "scatter: no reply within 3s")
	})
}

// Rule 6: a probe that ignores its context is left behind at the deadline, not a nanosecond
// earlier. Its late reply is dropped, and the trace is told.
func TestBroadcastLeavesADeafProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan LateReplyInfo, 2)
		trace := &Trace{LateReply: func(_ context.Context, i LateReplyInfo) { late <- i }}
		b := behave{
			"deaf":  after(time.Second+1, Hit[string]{"late", 0}),
			"early": after(time.Second-1, Hit[string]{"early", 1}),
		}
		began := time.Now()
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{PeerDeadline: time.Second, Trace: trace})
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "deaf:TimedOut early:Answered", summary(r))
		require.Equal(t, "early", ids(r.Hits))
		require.Empty(t, late)
		r.Peers[0].Peer = "overwritten" // the Response is the caller's
		time.Sleep(time.Second)
		require.Equal(t, LateReplyInfo{testRequest, "deaf", 1, nil}, <-late)
		require.Empty(t, late)
	})
}

// Rule 6: without PeerDeadline the default counts. If it is negative, there is none.
func TestBroadcastDefaultDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": obey}
		began := time.Now()
		for _, opts := range []*Options{nil, {}} {
			_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
			require.NoError(t, err)
		}
		require.Equal(t, 2*DefaultPeerDeadline, time.Since(began))

		b = behave{"a": after(time.Hour, Hit[string]{"x", 1})}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{PeerDeadline: -1})
		require.NoError(t, err)
		require.Equal(t, "x", ids(r.Hits))
	})
}

// Rule 9: the context's deadline is a time budget, whatever its cause.
func TestBroadcastContextDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errBroke)
		defer cancel()
		b := behave{"deaf": after(time.Minute), "good": answer(Hit[string]{"x", 1}), "obey": obey}
		began := time.Now()
		r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, nil)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "deaf:TimedOut good:Answered obey:TimedOut", summary(r))
		require.Equal(t, 2, r.PeersTimedOut)
		require.True(t, r.Partial)
		require.Equal(t, "x", ids(r.Hits))
		require.EqualError(t, r.Peers[0].Err, "scatter: the query's time was up")

		// It has passed by now.
		r, err = Broadcast(ctx, testRequest, b.peers(), nobody(t), nil)
		require.NoError(t, err)
		require.Equal(t, "deaf:NotAsked good:NotAsked obey:NotAsked", summary(r))
		require.ErrorIs(t, r.Peers[0].Err, context.DeadlineExceeded)
		require.True(t, r.Partial)
		require.Zero(t, r.Elapsed)
		time.Sleep(time.Minute)
	})
}

// Rule 9: cancellation is an error, its cause, with what has arrived. Probes that obey end at once.
func TestBroadcastContextCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errBroke) })
		b := behave{
			"deaf": after(time.Minute), "good": answer(Hit[string]{"x", 1}), "obey": obey,
			"rpc": func(ctx context.Context) (hitList, error) { <-ctx.Done(); return nil, errors.New("rpc cancelled") },
		}
		began := time.Now()
		r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, nil)
		require.Equal(t, errBroke, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "deaf:Abandoned good:Answered obey:Abandoned rpc:Abandoned", summary(r))
		require.Equal(t, []int{4, 0, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
		require.True(t, r.Partial)
		require.Equal(t, "x", ids(r.Hits))

		// It has ended by now.
		r, err = Broadcast(ctx, testRequest, b.peers(), nobody(t), nil)
		require.Equal(t, errBroke, err)
		require.Equal(t, 0, r.PeersConsulted)
		time.Sleep(time.Minute)
	})
}

// Rule 9: a cancellation that comes with the last reply doesn't spoil the answer.
func TestBroadcastCancelWithTheLastReply(t *testing.T) {
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		b := behave{"a": answer(Hit[string]{"x", 1})}
		opts := &Options{Trace: &Trace{ProbeDone: func(context.Context, ProbeDoneInfo) { cancel() }}}
		r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, opts)
		require.NoError(t, err)
		require.False(t, r.Partial)
	}
}

// Rule 9: a cancelled query is an error even if each probe has told of it before the query notices.
func TestBroadcastCancelIsNeverLost(t *testing.T) {
	for range 500 { // it was once lost in a quarter of the cases
		ctx, cancel := context.WithCancelCause(t.Context())
		probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
			if peer == "peer0" {
				cancel(errBroke)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		r, err := Broadcast(ctx, testRequest, somePeers(3), probe, nil)
		require.Equal(t, errBroke, err)
		require.Equal(t, Abandoned, r.Peers[0].Status)
	}
}

// Rule 9: a cancelled query asks nobody whose turn comes then, and says so even if there was nobody
// to ask.
func TestBroadcastCancelAsksNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	opts := &Options{Limit: 1, Trace: &Trace{ProbeDone: func(context.Context, ProbeDoneInfo) { cancel() }}}
	r, err := Broadcast(ctx, testRequest, somePeers(2), behave{"peer0": answer()}.probe, opts)
	require.Equal(t, context.Canceled, err)
	require.Equal(t, "peer0:Answered peer1:NotAsked", summary(r))

	r, err = Broadcast(ctx, testRequest, nil, nobody(t), nil)
	require.Equal(t, context.Canceled, err)
	require.True(t, r.Partial)
}

// Rule 10: a reply that is in the inbox when the deadline is noticed counts. A slow hook delays the
// notice.
func TestBroadcastReplyInHandCounts(t *testing.T) {
	for _, end := range []string{"peer", "query", "grace"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, opts := t.Context(), &Options{PeerDeadline: 3 * time.Second}
			switch end {
			case "query":
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				opts.PeerDeadline = -1
			case "grace":
				opts.EnoughCoverage, opts.Grace = 0.1, 3*time.Second
			}
			opts.Trace = &Trace{ProbeDone: func(_ context.Context, i ProbeDoneInfo) {
				if i.Peer == "a" {
					time.Sleep(5 * time.Second)
				}
			}}
			b := behave{
				"a": after(1*time.Second, Hit[string]{"x", 1}),
				"b": after(2*time.Second, Hit[string]{"y", 2}),
				"c": after(3*time.Second-1, Hit[string]{"z", 3}),
				"d": after(time.Minute),
			}
			r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, opts)
			require.NoError(t, err)
			require.Equal(t, "a:Answered b:Answered c:Answered d:TimedOut", summary(r), end)
			require.Equal(t, "x y z", ids(r.Hits))
			require.Equal(t, 2*time.Second, r.Peers[1].Elapsed, "when it came, and not when it was taken")
			time.Sleep(time.Minute)
		})
	}
}

// Rule 10: a reply in hand counts also if the deadline passes before Broadcast begins to wait.
func TestBroadcastReplyInHandAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := &Options{PeerDeadline: 3 * time.Second, Trace: &Trace{
			ProbeStarted: func(_ context.Context, i ProbeInfo) context.Context {
				if i.Peer == "b" {
					time.Sleep(5 * time.Second)
				}
				return nil
			},
		}}
		b := behave{"a": after(time.Second), "b": obey}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
		require.NoError(t, err)
		require.Equal(t, "a:Answered b:TimedOut", summary(r))
	})
}

// Rule 6: a peer's deadline starts with its probe, however long hooks have taken before.
func TestBroadcastHooksTakeNoPeersTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := func(ctx context.Context) context.Context { time.Sleep(time.Second); return ctx }
		opts := &Options{PeerDeadline: 2 * time.Second, Limit: 2, Trace: &Trace{
			QueryStarted: func(ctx context.Context, _ QueryInfo) context.Context { return second(ctx) },
			ProbeDone:    func(ctx context.Context, _ ProbeDoneInfo) { second(ctx) },
		}}
		left := make(chan time.Duration, 4)
		probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			return nil, nil
		}
		r, err := Broadcast(t.Context(), testRequest, somePeers(4), probe, opts)
		require.NoError(t, err)
		require.False(t, r.Partial)
		for range 4 {
			require.Equal(t, 2*time.Second, <-left)
		}
	})
}

// Rule 6: the trace is told of a late reply, but not of an error that the probe returned because
// its context had ended.
func TestBroadcastLateReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan PeerID, 9)
		b := behave{
			"empty": after(2 * time.Second),
			"error": failAfter(2*time.Second, errBroke),
			"obey":  obey,
			"part": func(context.Context) (hitList, error) {
				time.Sleep(2 * time.Second)
				return hitList{{"x", 1}}, ErrPartial
			},
		}
		opts := &Options{
			PeerDeadline: time.Second, Semaphore: semaphore.NewWeighted(4),
			Trace: &Trace{LateReply: func(_ context.Context, i LateReplyInfo) { late <- i.Peer }},
		}
		_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, opts)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		synctest.Wait()
		close(late)
		var told []PeerID
		for peer := range late {
			told = append(told, peer)
		}
		slices.Sort(told)
		require.Equal(t, []PeerID{"empty", "part"}, told)
	})
}

// The context of a peer that TimedOut says so, also if the query ends at that moment; that of a
// peer that wasn't needed says ErrEnough.
func TestBroadcastCauseAtTheEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		opts   Options
		until  time.Duration
		status Status
		cause  error
	}{
		"its own deadline":       {Options{PeerDeadline: time.Second}, 0, TimedOut, context.DeadlineExceeded},
		"the query's deadline":   {Options{}, time.Second, TimedOut, context.DeadlineExceeded},
		"the query's alone":      {Options{PeerDeadline: -1}, time.Second, TimedOut, context.DeadlineExceeded},
		"with a reserve":         {Options{MergeReserve: time.Second}, 2 * time.Second, TimedOut, context.DeadlineExceeded},
		"enough":                 {Options{EnoughCoverage: 0.3, Grace: time.Second}, 0, NotNeeded, ErrEnough},
		"its own, before enough": {Options{EnoughCoverage: 0.3, Grace: time.Second, PeerDeadline: time.Second}, 0, 0, nil},
	} {
		for range 5 {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tt.until > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.until)
					defer cancel()
				}
				causes := map[bool]chan error{false: make(chan error, 1), true: make(chan error, 1)}
				probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
					switch peer {
					case "instant":
						return nil, nil
					case "obeys":
						<-ctx.Done()
						causes[true] <- context.Cause(ctx)
					default:
						time.Sleep(time.Minute)
						causes[false] <- context.Cause(ctx)
					}
					return nil, ctx.Err()
				}
				r, err := Broadcast(ctx, testRequest, []PeerID{"instant", "obeys", "deaf"}, probe, &tt.opts)
				require.NoError(t, err)
				require.Equal(t, time.Second, r.Elapsed)
				for i, cause := range map[int]error{1: <-causes[true], 2: <-causes[false]} {
					if tt.cause == nil { // two deadlines at once: either may come first
						assert.Contains(t, []error{ErrEnough, context.DeadlineExceeded}, cause)
						continue
					}
					assert.Equal(t, tt.status, r.Peers[i].Status, name)
					assert.Equal(t, tt.cause, cause, name)
				}
			})
		}
	}
}
