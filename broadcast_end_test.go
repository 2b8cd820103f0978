package scatter

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Rules 5, 25, 28, 42: what one reply alone decides happens when it comes in, however many others
// are out.
func TestBroadcastActsOnEachReply(t *testing.T) {
	// z holds all of it, and each other peer a third.
	star := NewGroupCover([]PeerID{"a", "z"}, []PeerID{"b", "z"}, []PeerID{"c", "z"})
	for name, tt := range map[string]struct {
		behave behave
		peers  []PeerID
		opts   Options
		want   time.Duration
	}{
		"a place within Limit": {
			behave: behave{"a": after(time.Second), "b": after(3 * time.Second), "c": after(time.Second)},
			opts:   Options{Limit: 2}, want: 3 * time.Second,
		},
		"enough, and grace": {
			behave: behave{"a": after(time.Second), "b": obey, "c": obey},
			opts:   Options{EnoughCoverage: 0.3, Grace: time.Second}, want: 2 * time.Second,
		},
		"enough, and no grace": {
			behave: behave{"a": after(time.Second), "b": obey, "c": obey},
			opts:   Options{EnoughCoverage: 0.3}, want: time.Second + 1, // so that a reply in hand counts
		},
		"the whole": {
			behave: behave{"a": obey, "b": obey, "c": obey, "z": after(time.Second)},
			opts:   Options{Cover: star}, want: time.Second,
		},
		"the whole, with a peer on no Cover": {
			behave: behave{"a": obey, "b": obey, "foreign": after(3 * time.Second), "z": after(time.Second)},
			opts:   Options{Cover: star}, want: time.Second,
		},
		"one answer less than the whole": {
			behave: behave{"a": after(time.Second), "b": after(time.Second), "c": after(2 * time.Second)},
			opts:   Options{Cover: star}, want: 2 * time.Second,
		},
		"the whole, but all are waited for": {
			behave: behave{"a": obey, "b": after(3 * time.Second), "c": obey, "z": after(time.Second)},
			opts:   Options{Cover: star, WaitAll: true, PeerDeadline: 4 * time.Second}, want: 4 * time.Second,
		},
		"all that can be, with b dead": {
			behave: behave{"a": after(time.Second), "b": nil, "c": after(2 * time.Second), "z": fail(errBroke)},
			opts:   Options{Cover: star, Live: allBut("b")}, want: 2 * time.Second,
		},
		"all that can be, with holders that weren't passed": {
			behave: behave{"b": after(time.Second), "z": failAfter(2*time.Second, errBroke)},
			opts:   Options{Cover: star}, want: 2 * time.Second,
		},
		"the last holder fails": {
			behave: behave{"a": obey, "b": failAfter(2*time.Second, errBroke), "z": after(time.Second)},
			opts:   Options{Cover: NewGroupCover([]PeerID{"a", "z"}, []PeerID{"b"})}, want: 2 * time.Second,
		},
		"the last holder answers in part": {
			behave: behave{"a": obey, "b": failAfter(2*time.Second, ErrPartial), "z": after(time.Second)},
			opts:   Options{Cover: NewGroupCover([]PeerID{"a", "z"}, []PeerID{"b"})}, want: 2 * time.Second,
		},
		"nothing is held by whoever is out": {
			behave: behave{"a": after(time.Second), "idle": obey},
			opts:   Options{Cover: JoinCovers(NewGroupCover([]PeerID{"a"}, nil), NewGroupCover([]PeerID{"a", "idle"}, nil))},
			want:   time.Second,
		},
		"a peer on no Cover may have more hits": {
			behave: behave{"a": after(time.Second), "foreign": after(3 * time.Second)},
			opts:   Options{Cover: NewGroupCover([]PeerID{"a"}, nil)}, want: 3 * time.Second,
		},
		"nobody holds anything": {
			behave: behave{"a": after(time.Second), "b": after(2 * time.Second)},
			opts:   Options{Cover: new(Cover)}, want: 2 * time.Second,
		},
		"what waits for its turn adds nothing": {
			behave: behave{"a": obey, "z": after(time.Second)},
			peers:  []PeerID{"z", "a"}, // nobody asks a
			opts:   Options{Cover: star, Limit: 1}, want: time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peers := tt.peers
				if peers == nil {
					peers = tt.behave.peers()
				}
				r, err := Broadcast(t.Context(), testRequest, peers, tt.behave.probe, &tt.opts)
				require.NoError(t, err)
				require.Equal(t, tt.want, r.Elapsed, summary(r))
				time.Sleep(time.Hour)
			})
		})
	}
}

// Rule 25: peers that were not needed are NotNeeded if they were asked and NotAsked if not, both
// with ErrEnough, which is the cause of their contexts too.
func TestBroadcastNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cause error
		b := behave{
			"a": func(ctx context.Context) (hitList, error) {
				<-ctx.Done()
				cause = context.Cause(ctx)
				return nil, errors.New("rpc cancelled")
			},
			"z": after(time.Second),
		}
		peers := []PeerID{"a", "z", "b"}
		cover := NewGroupCover([]PeerID{"a", "z"}, []PeerID{"b", "z"})
		r, err := Broadcast(t.Context(), testRequest, peers, b.probe, &Options{Cover: cover, Limit: 2})
		require.NoError(t, err)
		require.Equal(t, "a:NotNeeded z:Answered b:NotAsked", summary(r))
		require.Equal(t, ErrEnough, r.Peers[0].Err)
		require.Equal(t, time.Second, r.Peers[0].Elapsed)
		require.Equal(t, ErrEnough, r.Peers[2].Err)
		require.False(t, r.Partial)
		require.Empty(t, r.Missing)
		require.Equal(t, []int{2, 0, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
		synctest.Wait()
		require.Equal(t, ErrEnough, cause)
	})
}

// A query that is cancelled says Abandoned, and not NotNeeded, also if it had enough and was in its
// grace.
func TestBroadcastAbandonedBeforeNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(2*time.Second, func() { cancel(errBroke) })
		b := behave{"a": after(time.Second, Hit[string]{"x", 1}), "b": obey, "c": after(time.Minute)}
		opts := &Options{EnoughCoverage: 0.3, Grace: 2 * time.Second}
		r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, opts)
		require.Equal(t, errBroke, err)
		require.Equal(t, "a:Answered b:Abandoned c:Abandoned", summary(r))
		require.Equal(t, errBroke, r.Peers[2].Err)
		require.Equal(t, "x", ids(r.Hits))
		time.Sleep(time.Hour)
	})
}

// Rule 28: MinCoverage is judged at the end. Of a cancelled query the error is the cause.
func TestBroadcastMinCoverage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": after(time.Second, Hit[string]{"x", 1}), "b": fail(errBroke)}
		r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{MinCoverage: 0.5})
		require.NoError(t, err)
		require.Equal(t, 0.5, r.Coverage)

		r, err = Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{MinCoverage: 0.51})
		require.Equal(t, &CoverageError[Hit[string]]{r, 0.51}, err)
		require.EqualError(t, err, "scatter: coverage is 0.5, Options.MinCoverage is 0.51")
		require.Equal(t, "x", ids(r.Hits))

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = Broadcast(ctx, testRequest, b.peers(), nobody(t), &Options{MinCoverage: 1})
		require.Equal(t, context.Canceled, err)
	})
}

// Rule 28: MergeReserve is kept back from the deadline of the context. Rule 42: but at most half of
// the time left.
func TestBroadcastMergeReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for reserve, want := range map[time.Duration]time.Duration{
			0:                      time.Second,
			100 * time.Millisecond: 900 * time.Millisecond,
			500 * time.Millisecond: 500 * time.Millisecond,
			700 * time.Millisecond: 500 * time.Millisecond,
			time.Hour:              500 * time.Millisecond,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			var left time.Duration
			b := behave{"a": func(ctx context.Context) (hitList, error) {
				deadline, _ := ctx.Deadline()
				left = time.Until(deadline)
				return obey(ctx)
			}}
			r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, &Options{MergeReserve: reserve})
			require.NoError(t, err)
			require.Equal(t, want, r.Elapsed)
			require.Equal(t, want, left)
			require.Equal(t, "a:TimedOut", summary(r))
			cancel()
		}
	})
}

// Rule 10: equal replies give equal answers, in whichever order they come in.
func TestBroadcastOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, delays := range [][]int{{1, 2, 3}, {3, 2, 1}, {2, 3, 1}, {1, 3, 2}} {
			b := behave{}
			for i, peer := range []PeerID{"a", "b", "c"} {
				hits := hitList{{"x", 1}, {string(peer), 1}, {"y", 2}}
				slices.SortFunc(hits, func(a, b Hit[string]) int { return compareHits(a, b, ScoreAscending) })
				b[peer] = after(time.Duration(delays[i]), hits...)
			}
			r, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, nil)
			require.NoError(t, err)
			require.Equal(t, "a b c x y", ids(r.Hits))
		}
	})
}
