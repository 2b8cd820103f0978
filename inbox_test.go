package scatter

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func newTestInbox() *inbox[Hit[string]] { return new(inbox[Hit[string]]) }

// isEmpty reports whether the owner would sleep.
func isEmpty(in *inbox[Hit[string]]) bool { return in.fallAsleep() }

func messageOf(i int) message[Hit[string]] { return message[Hit[string]]{index: i} }

// taken returns the indices of the messages in the inbox.
func taken(messages []message[Hit[string]]) []int {
	var indices []int
	for _, m := range messages {
		indices = append(indices, m.index)
	}
	return indices
}

// What is put in comes out once and in the same order. What comes after the end is refused.
func TestInboxOrder(t *testing.T) {
	in := newTestInbox()
	require.True(t, isEmpty(in))
	require.Empty(t, in.take())
	for _, i := range []int{3, 0, 4} {
		require.True(t, in.put(messageOf(i)))
	}
	require.False(t, isEmpty(in))
	first := in.take()
	require.Equal(t, []int{3, 0, 4}, taken(first))
	require.True(t, isEmpty(in))
	require.True(t, in.put(messageOf(1)))
	require.Equal(t, []int{3, 0, 4}, taken(first), "good until the next take")
	require.Equal(t, []int{1}, taken(in.take()))
	require.Empty(t, in.take())
	require.True(t, in.put(messageOf(2)))
	require.Equal(t, []int{2}, taken(in.close()))
	require.False(t, in.put(messageOf(5)))
}

// The inbox keeps nothing alive of what was taken before the last time, and nothing once it
// forgets.
func TestInboxForgets(t *testing.T) {
	in := newTestInbox()
	in.grow(8)
	m := messageOf(1)
	m.reply.hits = hitList{{"x", 1}}
	in.put(m)
	first := in.take()
	in.take()
	require.Nil(t, first[0].reply.hits)
	in.put(m)
	in.take()
	in.put(m)
	in.close()
	in.forget()
	require.Nil(t, in.queue)
	require.Nil(t, in.taken)
}

// Many goroutines put messages in. The owner gets all of them and is never left asleep.
func TestInboxStorm(t *testing.T) {
	for round := range 500 {
		n := 1 + round%20
		in := newTestInbox()
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { in.put(messageOf(i)) })
		}
		var got []int
		for len(got) < n {
			in.sleep(nil, nil, time.Time{}, false)
			got = append(got, taken(in.take())...)
		}
		wg.Wait()
		slices.Sort(got)
		for i, index := range got {
			require.Equal(t, i, index)
		}
	}
}

// The owner sleeps until a message, the deadline, or the end of either context, and no longer if a
// message is there already.
func TestInboxSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newTestInbox()
		began := time.Now()
		slept := func(ctx, owner <-chan struct{}, deadline time.Duration) time.Duration {
			at := time.Now()
			in.sleep(ctx, owner, at.Add(deadline), deadline > 0)
			return time.Since(at)
		}
		time.AfterFunc(time.Second, func() { in.put(messageOf(0)) })
		require.Equal(t, time.Second, slept(nil, nil, time.Minute))
		in.take()
		require.Equal(t, time.Minute, slept(nil, nil, time.Minute))
		require.Equal(t, time.Hour, slept(nil, nil, time.Hour), "the deadline before has no second effect")

		in.put(messageOf(1))
		require.Zero(t, slept(nil, nil, 0))
		in.take()

		for _, which := range []int{0, 1} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			var ends [2]<-chan struct{}
			ends[which] = ctx.Done()
			require.Equal(t, time.Second, slept(ends[0], ends[1], 0))
		}
		in.close()
		require.Equal(t, time.Hour+time.Minute+3*time.Second, time.Since(began))
	})
}

// A message wakes an owner that sleeps, and the next one has nobody to wake.
func TestInboxWakesOnce(t *testing.T) {
	in := newTestInbox()
	in.put(messageOf(0))
	require.Empty(t, in.wake, "nobody sleeps")
	in.take()
	require.True(t, in.fallAsleep())
	in.put(messageOf(1))
	require.Len(t, in.wake, 1)
	<-in.wake
	in.put(messageOf(2))
	require.Empty(t, in.wake)
}
