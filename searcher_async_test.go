package scatter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Rules 29 and 30: a Searcher with an AsyncProbe plans, hedges and falls back as with a Probe, and Close doesn't wait for
// callbacks.
func TestSearcherAsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := somePeers(6)
		replies := make(map[PeerID]func(context.Context, done))
		for _, peer := range peers {
			replies[peer] = doneAfter(time.Millisecond, Hit[string]{string(peer), 1})
		}
		var kept []done
		replies[peers[0]] = func(_ context.Context, done done) { done(nil, errBroke) }
		replies[peers[4]] = func(_ context.Context, done done) { kept = append(kept, done) }
		s, err := NewSearcherAsync(asyncBehave(replies).probe, circle(peers...), &SearcherOptions{
			Replicas: 3, HedgeDelay: time.Second, HedgeShare: -1, Seed: 1,
		})
		require.NoError(t, err)
		for range 50 {
			r, err := s.Search(t.Context(), testRequest)
			require.NoError(t, err)
			require.False(t, r.Partial, summary(r))
			require.LessOrEqual(t, r.Elapsed, time.Second+2*time.Millisecond)
		}
		stats := s.Stats()
		require.Positive(t, stats.Fallbacks)
		require.Positive(t, stats.Hedges)
		require.NotEmpty(t, kept)
		require.NoError(t, s.Close(t.Context()))
		for _, done := range kept {
			done(hitList{{"late", 0}}, nil)
		}
		_, err = s.Search(t.Context(), testRequest)
		require.ErrorIs(t, err, ErrClosed)
	})
}

func TestNewSearcherAsyncArguments(t *testing.T) {
	_, err := NewSearcherAsync[Hit[string]](nil, circle("a"), nil)
	require.EqualError(t, err, "scatter: probe is nil")
	_, err = NewSearcherAsync(asyncBehave{}.probe, circle("a"), &SearcherOptions{Replicas: -1})
	require.ErrorContains(t, err, "SearcherOptions.Replicas is -1")
}
