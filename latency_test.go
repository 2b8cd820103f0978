package scatter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The buckets follow each other without a hole, and none is wider than a quarter of its latencies.
func TestLatencyBuckets(t *testing.T) {
	last := len(latency{}.buckets) - 1
	for i := range last {
		low, high := bucketStart(i), bucketStart(i+1)
		require.Equal(t, i, bucketOf(low), "%v", low)
		require.Equal(t, i, bucketOf(high-1), "%v", high-1)
		if i >= 4 {
			require.LessOrEqual(t, high-low, low/4)
		}
	}
	require.Equal(t, time.Microsecond, bucketStart(4).Truncate(time.Microsecond))
	require.Greater(t, bucketStart(last), 30*time.Minute)
	for d, want := range map[time.Duration]int{-1: 0, math.MinInt64: 0, 0: 0, 255: 0, 256: 1, math.MaxInt64: last} {
		require.Equal(t, want, bucketOf(d), "%v", d)
	}
}

// A quantile is in the bucket that the exact one is in.
func TestLatencyQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	shapes := map[string]func() time.Duration{
		"lognormal": func() time.Duration { return time.Duration(math.Exp(r.NormFloat64()) * 5e6) },
		"uniform":   func() time.Duration { return time.Duration(r.IntN(int(time.Second))) },
		"constant":  func() time.Duration { return 3 * time.Millisecond },
		"instant":   func() time.Duration { return time.Duration(r.IntN(3)) },
		"two modes": func() time.Duration {
			if r.IntN(100) < 5 {
				return time.Second
			}
			return time.Millisecond
		},
	}
	for name, shape := range shapes {
		for range 200 {
			n := 1 + r.IntN(latencyWindow-1)
			var l latency
			exact := make([]time.Duration, n)
			for i := range exact {
				exact[i] = shape()
				l.record(exact[i])
			}
			slices.Sort(exact)
			require.Equal(t, n, l.observed())
			for _, q := range []float64{0.001, 0.5, 0.9, 0.95, 0.99, 0.999} {
				want := exact[int(math.Ceil(q*float64(n)))-1]
				low, high := bucketStart(bucketOf(want)), bucketStart(bucketOf(want)+1)
				got := l.quantile(q)
				require.True(t, low <= got && got <= high, "%s: %d of them, %v: %v, want %v", name, n, q, got, want)
			}
		}
	}
}

func TestLatencyNothingObserved(t *testing.T) {
	var l latency
	require.Zero(t, l.quantileBound(0.5))
	require.Zero(t, l.quantile(0.5))
	require.Zero(t, l.observed())
}

// Over many halvings the estimate follows a peer that has changed, and still knows what is rare.
func TestLatencyForgets(t *testing.T) {
	var l latency
	for range 5000 {
		l.record(time.Second)
	}
	for range 5 * latencyWindow {
		l.record(time.Millisecond)
	}
	require.InEpsilon(t, time.Millisecond, l.quantile(0.99), 0.25)
	for i := range 20 * latencyWindow {
		d := time.Millisecond
		if i%50 == 0 {
			d = time.Minute
		}
		l.record(d)
	}
	require.InEpsilon(t, time.Millisecond, l.quantile(0.95), 0.25)
	require.InEpsilon(t, time.Minute, l.quantile(0.99), 0.25)
	require.GreaterOrEqual(t, l.observed(), latencyWindow/2-len(l.buckets))
	require.Less(t, l.observed(), latencyWindow)
}

func TestLatencyConcurrently(t *testing.T) {
	var l latency
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5000 {
				l.record(time.Duration(1+i%2) * time.Millisecond)
				if i%100 == g {
					l.quantile(0.5)
				}
			}
		})
	}
	wg.Wait()
	total := uint32(0)
	for i := range l.buckets {
		total += l.buckets[i].Load()
	}
	require.NotZero(t, total)
	require.Less(t, total, uint32(2*latencyWindow*latencyUnit), "no count went below zero")
	require.InEpsilon(t, 2*time.Millisecond, l.quantile(0.9), 0.25)
}

func TestLatencyAllocations(t *testing.T) {
	var l latency
	d := time.Duration(0)
	require.Zero(t, testing.AllocsPerRun(3*latencyWindow, func() {
		d += 10 * time.Microsecond
		l.record(d)
	}))
	require.Zero(t, testing.AllocsPerRun(100, func() { l.quantile(0.95) }))
}

// Rule 38: a bound exceeds latencies that are nearly equal, so that not each of them is late. It
// exceeds them by no more than a quarter.
func TestLatencyBoundOfEqualLatencies(t *testing.T) {
	for d := 100 * time.Microsecond; d < time.Second; d += d / 7 {
		var l latency
		for range 1000 {
			l.record(d)
		}
		require.Greater(t, l.quantileBound(0.5), d)
		require.LessOrEqual(t, l.quantileBound(0.5), d+d/4+1)
	}
}

// Claim: to record costs some nanoseconds, halvings included; a quantile, a look at each bucket.
func BenchmarkLatency(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	times := make([]time.Duration, 1024)
	for i := range times {
		times[i] = time.Duration(math.Exp(r.NormFloat64()) * 5e6)
	}
	var l latency
	b.Run("op=record", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			l.record(times[i%len(times)])
		}
	})
	b.Run("op=record/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				l.record(times[i%len(times)])
			}
		})
	})
	for _, q := range []float64{0.5, 0.99} {
		b.Run(fmt.Sprintf("op=quantile/q=%v", q), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.quantile(q)
			}
		})
	}
}
