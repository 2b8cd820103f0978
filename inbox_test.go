package scatter

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func newInbox(slots int) *inbox[Hit[string]] {
	return &inbox[Hit[string]]{slots: make([]slot[Hit[string]], slots)}
}

// taken returns the numbers of what is in, in order.
func taken(in *inbox[Hit[string]]) []int {
	var numbers []int
	for in.take(0); in.next(); {
		numbers = append(numbers, in.at)
	}
	return numbers
}

// What is put in comes out in the same order, once, and weighs what all of it weighs together.
func TestInboxOrder(t *testing.T) {
	in := newInbox(5)
	require.Empty(t, taken(in))
	require.True(t, in.put(3, 1))
	require.True(t, in.put(0, 1))
	require.True(t, in.put(4, 1))
	require.True(t, in.holds(3))
	require.False(t, in.holds(4))
	require.Equal(t, []int{3, 0, 4}, taken(in))
	require.False(t, in.holds(1))
	require.True(t, in.put(1, urgent))
	require.True(t, in.put(3, urgent), "a slot may be put in again once it was taken")
	require.True(t, in.holds(urgent))
	in.take(shut)
	require.False(t, in.put(2, 1))
	require.True(t, in.next())
	require.Equal(t, 1, in.at)
	require.True(t, in.next())
	require.Equal(t, 3, in.at)
	require.False(t, in.next())
}

// Whatever many goroutines put in, the owner gets all of it, sleeps until there is as much as it waits for and is never
// left asleep; what comes after the end is refused.
func TestInboxStorm(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		n := 1 + r.IntN(20)
		in := newInbox(n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { in.put(i, 1) })
		}
		var got []int
		for len(got) < n {
			weight := uint64(1 + r.IntN(n-len(got)))
			in.sleep(t.Context(), nil, weight, time.Time{}, false)
			got = append(got, taken(in)...)
		}
		wg.Wait()
		slices.Sort(got)
		for i, number := range got {
			require.Equal(t, i, number)
		}
	}
}

// The owner sleeps until there is enough, until the deadline, or until either context ends.
func TestInboxSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newInbox(3)
		began := time.Now()
		deadline := began.Add(time.Minute)
		time.AfterFunc(time.Second, func() { in.put(0, 1) })
		time.AfterFunc(2*time.Second, func() { in.put(1, 1) })
		in.sleep(t.Context(), nil, 2, deadline, true)
		require.Equal(t, 2*time.Second, time.Since(began))
		time.AfterFunc(time.Second, func() { in.put(2, urgent) })
		in.sleep(t.Context(), nil, 9, deadline, true)
		require.Equal(t, 3*time.Second, time.Since(began), "what is urgent wakes, whatever it waits for")
		taken(in)
		in.sleep(t.Context(), nil, 1, deadline, true)
		require.Equal(t, time.Minute, time.Since(began))
		for _, which := range []int{0, 1} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			contexts := []context.Context{t.Context(), t.Context()}
			contexts[which] = ctx
			began := time.Now()
			in.sleep(contexts[0], contexts[1], 1, time.Time{}, false)
			require.Equal(t, time.Second, time.Since(began))
		}
	})
}

// What is in before the owner falls asleep, and so has woken nobody, keeps it awake.
func TestInboxDoesNotOversleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newInbox(2)
		in.put(1, 1)
		in.put(0, 1)
		began := time.Now()
		in.sleep(t.Context(), nil, 2, began.Add(time.Minute), true)
		require.Equal(t, began, time.Now())
	})
}
