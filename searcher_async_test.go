package scatter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Rules 29 and 30: a Searcher with an AsyncProbe chooses, hedges and falls back as with a Probe.
// Close doesn't wait for callbacks, and starts no goroutine for a peer.
func TestSearcherAsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := somePeers(6)
		b := asyncBehave{}
		for _, peer := range peers {
			b[peer] = doneAfter(time.Millisecond, Hit[string]{string(peer), 1})
		}
		var kept []done
		b[peers[0]] = func(_ context.Context, done done) { done(nil, errBroke) }
		b[peers[4]] = func(_ context.Context, done done) { kept = append(kept, done) }
		before := bubbleGoroutines()
		s, err := NewSearcherAsync(b.probe, circleCover(3, peers...), &SearcherOptions{HedgeDelay: time.Second, Seed: 1})
		require.NoError(t, err)
		for range 50 {
			r, err := s.Search(t.Context(), testRequest, nil)
			require.NoError(t, err)
			require.False(t, r.Partial, summary(r))
			require.LessOrEqual(t, r.Elapsed, time.Second+2*time.Millisecond)
		}
		require.Equal(t, before, bubbleGoroutines())
		stats := s.Stats()
		require.Positive(t, stats.Fallbacks)
		require.Positive(t, stats.Hedges)
		require.NotEmpty(t, kept)
		require.NoError(t, s.Close(t.Context()))
		for _, done := range kept {
			done(hitList{{"late", 0}}, nil)
		}
		_, err = s.Search(t.Context(), testRequest, nil)
		require.ErrorIs(t, err, ErrClosed)
		require.Equal(t, before, bubbleGoroutines())
	})
}

func TestNewSearcherAsyncArguments(t *testing.T) {
	_, err := NewSearcherAsync[Hit[string]](nil, circleCover(1, "a"), nil)
	require.EqualError(t, err, "scatter: probe is nil")
	_, err = NewSearcherAsync(instantAsyncProbe, circleCover(1, "a"), &SearcherOptions{HedgeShare: 2})
	require.ErrorContains(t, err, "SearcherOptions.HedgeShare is 2")
}
