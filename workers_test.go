package scatter

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testHost counts the goroutines that its workers start, and runs tasks that are functions.
type testHost struct {
	workers workers[func()]
	started atomic.Int32
	running sync.WaitGroup
}

func (h *testHost) startWorker() {
	h.started.Add(1)
	h.running.Go(h.workers.work)
}

func (h *testHost) runTask(task func()) { task() }

// Tasks that wait all wait at the same time. Tasks that don't, share goroutines, and so do tasks
// that are added before any worker runs.
func TestWorkersStartAsManyAsAreNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(testHost)
		h.workers.init(h, 3)
		began := time.Now()
		for range 100 { // more than there was room for
			h.workers.add(func() { time.Sleep(time.Second) })
		}
		h.running.Wait()
		require.Equal(t, time.Second, time.Since(began))
		require.GreaterOrEqual(t, h.started.Load(), int32(100))
		require.LessOrEqual(t, h.started.Load(), int32(101))

		h.started.Store(0)
		ran := 0
		for range 100 {
			h.workers.add(func() { ran++ })
			synctest.Wait()
		}
		require.Equal(t, 100, ran, "each is over before the next is added")
		require.EqualValues(t, 100, h.started.Load(), "no worker stays without tasks")
	})
}

// Tasks that are added from many goroutines all run, each once.
func TestWorkersStorm(t *testing.T) {
	for range 200 {
		h := new(testHost)
		h.workers.init(h, 0)
		var ran [20]atomic.Int32
		var adding sync.WaitGroup
		for i := range ran {
			adding.Go(func() { h.workers.add(func() { ran[i].Add(1) }) })
		}
		adding.Wait()
		h.running.Wait()
		for i := range ran {
			require.EqualValues(t, 1, ran[i].Load())
		}
	}
}

// A task that ends its goroutine leaves the others theirs.
func TestWorkersGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(testHost)
		h.workers.init(h, 4)
		var ran atomic.Int32
		for i := range 50 {
			h.workers.add(func() {
				ran.Add(1)
				if i%2 == 0 {
					runtime.Goexit()
				}
			})
			if i%7 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		require.EqualValues(t, 50, ran.Load())
	})
}

// Rules 5, 13: probes that wait all wait at the same time, however they follow each other on a
// goroutine. Probes that end it leave the others theirs.
func TestBroadcastWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := somePeers(200)
		probe := func(_ context.Context, peer PeerID, _ *Request) (hitList, error) {
			switch i := slices.Index(peers, peer); i % 4 {
			case 0:
				time.Sleep(time.Second)
			case 1:
				runtime.Goexit()
			case 2:
				panic("at the disco")
			}
			return hitList{{string(peer), 0}}, nil
		}
		began := time.Now()
		r, err := Broadcast(t.Context(), &Request{Table: "t", Query: KNN{}, K: 200}, peers, probe, nil)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Len(t, r.Hits, 100)
		require.Equal(t, 100, r.PeersFailed)
		for i, line := range r.Peers {
			switch i % 4 {
			case 0:
				assert.Equal(t, time.Second, line.Elapsed, "it is asked with the others")
			case 1:
				assert.Equal(t, ErrGoexit, line.Err)
			case 3:
				assert.Zero(t, line.Elapsed, "it is in long before the query ends")
			}
		}
	})
}
