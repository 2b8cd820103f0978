package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Searches that come during a call share the next one, because the one that runs may have asked a
// leader before they began.
func TestFencesShareTheNextCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		f := fences{timeout: time.Minute, busy: make(chan struct{}, 1)}
		f.ask = func(context.Context) (last positions, errs [streams]error) {
			calls++
			last[0] = uint64(calls)
			time.Sleep(time.Second)
			return last, errs
		}
		var mu sync.Mutex
		got := map[uint64]int{}
		var all sync.WaitGroup
		search := func() {
			all.Go(func() {
				last, errs := f.last(t.Context())
				require.Equal(t, [streams]error{}, errs)
				mu.Lock()
				got[last[0]]++
				mu.Unlock()
			})
		}
		search()
		synctest.Wait()
		for range 10 {
			search()
		}
		synctest.Wait()
		time.Sleep(1100 * time.Millisecond) // the second call runs
		search()
		all.Wait()
		require.Equal(t, map[uint64]int{1: 1, 2: 10, 3: 1}, got)
	})
}

func TestFenceThatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fences{timeout: time.Second, busy: make(chan struct{}, 1)}
		f.ask = func(ctx context.Context) (last positions, errs [streams]error) {
			last[1] = 7
			<-ctx.Done()
			errs[2] = ctx.Err()
			return last, errs
		}
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		last, errs := f.last(short)
		require.Equal(t, positions{}, last)
		require.ErrorIs(t, errs[0], context.DeadlineExceeded)

		// The call that is late doesn't keep this one waiting until it ends.
		began := time.Now()
		last, errs = f.last(t.Context())
		require.Equal(t, 1150*time.Millisecond, time.Since(began))
		require.EqualValues(t, 7, last[1])
		require.NoError(t, errs[1])
		require.Error(t, errs[2])
	})
}

func TestFenceNamesPartitionsWithoutLeader(t *testing.T) {
	n := joinNode(t, testStore(t), "n1")
	none := errors.New("no leader")
	var missing []int
	n.fences.ask = func(ctx context.Context) (positions, [streams]error) {
		last, errs := n.engine.last(ctx)
		for _, s := range missing {
			last[s], errs[s] = 0, none
		}
		return last, errs
	}
	putVectors(t, n, 20)
	for _, test := range []struct {
		missing []int
		warning string
	}{
		{[]int{3}, "partition 3 has no leader that says how far it is: writes of the last moments may be missing"},
		{[]int{3, 5, 15}, "partitions 3, 5, 15 have no leader that says how far they are: " +
			"writes of the last moments may be missing"},
		{[]int{meta}, "the log's meta stream has no leader that says how far it is: " +
			"a change of the ring or of an index in the last moments may be missing"},
	} {
		missing = test.missing
		out, err := n.search(t.Context(), nearest(0, 5), nil)
		require.NoError(t, err)
		require.Equal(t, []string{test.warning}, out.warnings)
		require.False(t, out.response.Partial)
		require.Len(t, out.response.Hits, 5)
		require.EqualValues(t, n.engine.acknowledged()[3], out.fence[3], "what this node has written itself counts")
	}
	require.ErrorIs(t, n.settle(t.Context()), none)
}

func TestSessionAsksNoLeader(t *testing.T) {
	n := joinNode(t, testStore(t), "n1", func(cfg *config) { cfg.session = true })
	n.fences.ask = func(context.Context) (positions, [streams]error) { panic("asked") }
	putVectors(t, n, 20)
	out, err := n.search(t.Context(), nearest(7, 1), nil)
	require.NoError(t, err)
	require.Empty(t, out.warnings)
	require.Equal(t, key(7), out.response.Hits[0].ID)
}
