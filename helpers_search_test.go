package scatter

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stringSearcher is the Searcher of most tests.
type stringSearcher = *Searcher[Hit[string], string]

// newTestSearcher returns a Searcher that is closed, and has nothing running any more, when the
// test ends.
func newTestSearcher(t testing.TB, probe Probe[Hit[string]], cover *Cover, opts SearcherOptions) stringSearcher {
	t.Helper()
	s, err := NewSearcher(probe, cover, &opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close(context.Background())) })
	return s
}

// circleCover is the Cover of a circle: each range is held by the first peers of the walk from it.
func circleCover(replicas int, peers ...PeerID) *Cover { return NewCover(circle(peers...), replicas) }

// takes is a probe of peers that take d, but for some that are bad: they do as the map says.
func takes(d time.Duration, bad behave) Probe[Hit[string]] {
	return func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
		if do := bad[peer]; do != nil {
			return do(ctx)
		}
		time.Sleep(d)
		return hitList{{string(peer), 1}}, nil
	}
}

// switched is takes, but the bad peers can be exchanged.
type switched struct {
	d   time.Duration
	mu  sync.Mutex
	bad behave // guarded by mu
}

func (s *switched) set(bad behave) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = bad
}

func (s *switched) probe(ctx context.Context, peer PeerID, req *Request) (hitList, error) {
	s.mu.Lock()
	bad := s.bad
	s.mu.Unlock()
	return takes(s.d, bad)(ctx, peer, req)
}

// searchTimes does n queries and returns how long each took, sorted. Each must be whole.
func searchTimes(t *testing.T, s stringSearcher, n int) []time.Duration {
	t.Helper()
	times := make([]time.Duration, n)
	for i := range times {
		r, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.False(t, r.Partial, "query %d: %s", i, summary(r))
		times[i] = r.Elapsed
	}
	slices.Sort(times)
	return times
}

// quantileOf returns a quantile of sorted times.
func quantileOf(times []time.Duration, q float64) time.Duration {
	return times[min(int(math.Ceil(q*float64(len(times)))), len(times))-1]
}

// stepper steps one Coordinator of a Searcher by literal times.
type stepper struct {
	t    *testing.T
	c    *Coordinator[Hit[string], string]
	asks []Ask // in order
}

// newStepper returns a query that has not begun.
func newStepper(t *testing.T, s stringSearcher, opts *Options) *stepper {
	t.Helper()
	st := &stepper{t: t}
	c, err := s.Coordinator(testRequest, func(a Ask) bool { st.asks = append(st.asks, a); return true }, opts)
	require.NoError(t, err)
	st.c = c
	return st
}

// names returns who has been asked, and as what unless that is Primary.
func (s *stepper) names() (names []string) {
	for _, a := range s.asks {
		name := string(a.Peer)
		if a.Role != Primary {
			name = fmt.Sprint(a.Role, " ", name)
		}
		names = append(names, name)
	}
	return names
}
