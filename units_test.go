package scatter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

// testUnits are units whose posts are kept in a list, until the test delivers them.
type testUnits struct {
	units
	posts  []func()
	spawns int
	closed bool
}

func (u *testUnits) try(ctx context.Context) (*unit, bool) {
	spawn := func(f func()) {
		u.spawns++
		go f()
	}
	return u.take(ctx, spawn, func(f func()) bool {
		if !u.closed {
			u.posts = append(u.posts, f)
		}
		return !u.closed
	})
}

// Without a semaphore no unit is needed, and a nil unit can be released.
func TestUnitsWithoutSemaphore(t *testing.T) {
	u := new(testUnits)
	got, ok := u.try(t.Context())
	require.True(t, ok)
	require.Nil(t, got)
	got.release()
	u.discard()
	u.close()
}

// A unit goes back once, however often it is released.
func TestUnitReleasesOnce(t *testing.T) {
	s := semaphore.NewWeighted(2)
	require.True(t, s.TryAcquire(2))
	u := &unit{semaphore: s}
	u.release()
	u.release()
	require.True(t, s.TryAcquire(1))
	require.False(t, s.TryAcquire(1))
}

// Where there is no unit, one goroutine waits for one, however often it is asked. The unit is ready
// once its message is delivered.
func TestUnitsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := semaphore.NewWeighted(1)
		u := &testUnits{units: units{semaphore: s}}
		first, ok := u.try(t.Context())
		require.True(t, ok)
		for range 3 {
			_, ok = u.try(t.Context())
			require.False(t, ok)
		}
		require.Equal(t, 1, u.spawns)
		first.release()
		synctest.Wait()
		require.Len(t, u.posts, 1)
		_, ok = u.try(t.Context())
		require.False(t, ok, "not yet")
		u.posts[0]()
		second, ok := u.try(t.Context())
		require.True(t, ok)
		require.NotNil(t, second)

		_, ok = u.try(t.Context())
		require.False(t, ok)
		require.Equal(t, 2, u.spawns, "it waits again")
		u.close()
		synctest.Wait() // the bubble fails if the goroutine is left
		second.release()
		require.True(t, s.TryAcquire(1))
	})
}

// A unit that nobody needs goes back: one that is ready, one that comes after the end, and one
// whose wait ends with its context.
func TestUnitsThatNobodyNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := semaphore.NewWeighted(1)
		u := &testUnits{units: units{semaphore: s}}
		got, _ := u.try(t.Context())
		_, ok := u.try(t.Context())
		require.False(t, ok)
		got.release()
		synctest.Wait()
		u.posts[0]()
		require.False(t, s.TryAcquire(1))
		u.discard()
		require.True(t, s.TryAcquire(1))

		_, ok = u.try(t.Context())
		require.False(t, ok)
		u.closed = true
		s.Release(1)
		synctest.Wait()
		require.True(t, s.TryAcquire(1), "a late unit is given back")

		u = &testUnits{units: units{semaphore: s}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, ok = u.try(ctx)
		require.False(t, ok)
		time.Sleep(2 * time.Second)
		s.Release(1)
		synctest.Wait()
		require.Empty(t, u.posts)
		require.True(t, s.TryAcquire(1))
	})
}
