package scatter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Rule 44: the second round begins at once, also if it begins while peers still wait for their turn.
func TestCoordinatorRefillsWhilePeersWait(t *testing.T) {
	cover := NewGroupCover([]PeerID{"a", "b"})
	opts := Options{Cover: cover, Limit: 1, PeerK: func(int, int) int { return 1 }}
	s := newStepped(t, opts, "a", "b")
	s.begin()
	s.reply(1, 0, Hit[string]{"x", 1}) // covers everything, so b is not needed
	require.Equal(t, "aa", s.asked())
	require.Equal(t, 1, s.asks[1].Request.Skip)
	require.Equal(t, at(6), s.asks[1].Deadline)
	s.reply(2, 0, Hit[string]{"y", 2})
	r := s.wantLedger("a Answered 2 1", "b NotAsked 0 0")
	require.Equal(t, "x y", ids(r.Hits))
	require.Equal(t, at(2).Sub(t0), r.Elapsed)
}

// Rule 40: what is done after the wait has ended counts as the merge: peers that are concluded then,
// and their hooks. LearnReserve learns it, and Response.Elapsed has it.
func TestSearchMergeTakesInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done QueryDoneInfo
		trace := &Trace{
			ProbeDone: func(context.Context, ProbeDoneInfo) { time.Sleep(time.Second) },
			QueryDone: func(_ context.Context, i QueryDoneInfo) { done = i },
		}
		probe := behave{"a": obey, "b": obey}.probe
		s, err := NewSearcher(probe, NewGroupCover([]PeerID{"a"}, []PeerID{"b"}), &SearcherOptions{
			Options: Options{Trace: trace}, LearnReserve: true,
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		r, err := s.Search(ctx, testRequest, nil)
		require.NoError(t, err)
		require.Equal(t, "a:TimedOut b:TimedOut", summary(r))
		require.Equal(t, 2*time.Second, done.MergeElapsed)
		require.Equal(t, 6*time.Second, r.Elapsed)
		require.Equal(t, 6*time.Second, done.Elapsed)
		require.Equal(t, 1, s.merges.observed())
		require.InEpsilon(t, 2*time.Second, s.merges.quantile(0.99), 0.25)
		require.NoError(t, s.Close(t.Context()))
	})
}
