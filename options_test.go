package scatter

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

// Rule 11: an option that is out of range, contradicts another or would be ignored is an error that
// names it and its value, before any probe has run.
func TestOptionsAreChecked(t *testing.T) {
	for _, tt := range []struct {
		opts Options
		want string
	}{
		{Options{Limit: -1}, "scatter: Options.Limit is -1, must not be negative"},
		{Options{MinCoverage: -0.5}, "scatter: Options.MinCoverage is -0.5, must be from 0 to 1"},
		{Options{MinCoverage: 1.5}, "scatter: Options.MinCoverage is 1.5, must be from 0 to 1"},
		{Options{MinCoverage: math.NaN()}, "scatter: Options.MinCoverage is NaN, must be from 0 to 1"},
		{Options{EnoughCoverage: -0.5}, "scatter: Options.EnoughCoverage is -0.5, must be from 0 to 1"},
		{Options{EnoughCoverage: 2}, "scatter: Options.EnoughCoverage is 2, must be from 0 to 1"},
		{Options{EnoughCoverage: math.NaN()}, "scatter: Options.EnoughCoverage is NaN, must be from 0 to 1"},
		{
			Options{EnoughCoverage: 0.7, MinCoverage: 1},
			"scatter: Options.EnoughCoverage is 0.7, must not be below MinCoverage, which is 1",
		},
		{
			Options{EnoughCoverage: 0.5, WaitAll: true},
			"scatter: Options.EnoughCoverage is 0.5, but WaitAll waits for all",
		},
		{Options{EnoughCoverage: 1, Grace: -1}, "scatter: Options.Grace is -1ns, must not be negative"},
		{Options{Grace: time.Second}, "scatter: Options.Grace is 1s, but needs EnoughCoverage, which is 0"},
		{Options{MergeReserve: -time.Second}, "scatter: Options.MergeReserve is -1s, must not be negative"},
		{Options{Affinity: "user 7"}, `scatter: Options.Affinity is "user 7", but only a Searcher chooses replicas`},
	} {
		r, err := Broadcast(t.Context(), testRequest, somePeers(1), nobody(t), &tt.opts)
		require.EqualError(t, err, tt.want)
		require.Nil(t, r)
		r, err = BroadcastAsync(t.Context(), testRequest, somePeers(1), asyncBehave{}.probe, &tt.opts)
		require.EqualError(t, err, tt.want)
		require.Nil(t, r)
	}
}

// Options at the edge of what is allowed are not refused, and not written to.
func TestOptionsAtTheEdge(t *testing.T) {
	for _, opts := range []Options{
		{},
		{PeerDeadline: -1, Limit: math.MaxInt},
		{MinCoverage: 1, EnoughCoverage: 1, Grace: math.MaxInt64},
		{MinCoverage: 0.5, EnoughCoverage: 0.5},
		{MergeReserve: math.MaxInt64, Semaphore: semaphore.NewWeighted(1)},
		{PeerDeadline: math.MaxInt64},
		{Cover: new(Cover)},
		{WaitAll: true, MinCoverage: 1},
	} {
		if opts.Cover != nil {
			opts.MinCoverage = 0
		}
		before := opts
		r, err := Broadcast(t.Context(), testRequest, somePeers(3), instantProbe, &opts)
		require.NoError(t, err)
		require.Equal(t, "a", ids(r.Hits))
		require.Equal(t, before, opts)
	}
}
