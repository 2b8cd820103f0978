package scatter

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// latency estimates how long something takes. It is a histogram of what was observed. Its buckets
// grow with the latency, four to each doubling, so a quantile is off by less than a quarter. All
// counts are halved whenever there are latencyWindow observations, so old ones count for little.
//
// Its size is fixed, 516 bytes. The zero value has observed nothing. It is safe for concurrent use,
// without a lock. A quantile that is asked for while others record may miss what they are about to
// add.
type latency struct {
	buckets [4 * (latencyDoublings + 1)]atomic.Uint32
	weight  atomic.Uint32 // of all buckets, give or take what halving rounds off
}

const (
	latencyFirst     = 10 // the first four buckets share 2^10 ns, a microsecond, below the first doubling
	latencyDoublings = 31 // the last bucket begins after half an hour and has no end
	latencyWindow    = 1024

	// latencyUnit is what one observation adds to its bucket. It is more than 1, so that a rare
	// observation survives some halvings.
	latencyUnit = 256
)

// bucketOf returns the bucket of a latency.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<latencyFirst {
		return int(v >> (latencyFirst - 2))
	}
	log := bits.Len64(v) - 1
	return min(4*(log-latencyFirst+1)+int(v>>(log-2)&3), len(latency{}.buckets)-1)
}

// bucketStart returns the least latency of a bucket.
func bucketStart(bucket int) time.Duration {
	if bucket < 4 {
		return time.Duration(bucket) << (latencyFirst - 2)
	}
	return time.Duration(4+bucket%4) << (bucket/4 + latencyFirst - 3)
}

// record adds one observation. A wait that was cut short is none. Rule 38.
func (l *latency) record(d time.Duration) {
	l.buckets[bucketOf(d)].Add(latencyUnit)
	weight := l.weight.Add(latencyUnit)
	if weight >= latencyWindow*latencyUnit && l.weight.CompareAndSwap(weight, weight/2) {
		l.halve()
	}
}

// halve halves all counts, so that what was observed before counts for less.
func (l *latency) halve() {
	for i := range l.buckets {
		for {
			old := l.buckets[i].Load()
			if l.buckets[i].CompareAndSwap(old, old/2) {
				break
			}
		}
	}
}

// observed returns how many observations the estimate rests on, below latencyWindow.
func (l *latency) observed() int { return int(l.weight.Load() / latencyUnit) }

// quantile returns the latency that a share q of the observations doesn't exceed, or 0 if there are
// none.
func (l *latency) quantile(q float64) time.Duration {
	bucket, fraction := l.find(q)
	start, end := bucketStart(bucket), bucketStart(bucket+1)
	return start + time.Duration(float64(end-start)*fraction)
}

// quantileBound returns a latency that at least a share q of the observations doesn't exceed, or 0
// if there are none. It is the end of a bucket: where observations are nearly equal, the quantile
// itself may lie below all of them.
func (l *latency) quantileBound(q float64) time.Duration {
	if bucket, fraction := l.find(q); fraction > 0 {
		return bucketStart(bucket + 1)
	}
	return 0
}

// find returns the bucket that a quantile is in, and which fraction of the bucket's observations
// are up to it: above 0, or 0 if nothing was observed.
func (l *latency) find(q float64) (bucket int, fraction float64) {
	var counts [len(l.buckets)]uint32
	left := uint32(0) // the observations that aren't known to be above the quantile
	for i := range l.buckets {
		counts[i] = l.buckets[i].Load()
		left += counts[i]
	}
	rank := uint32(math.Ceil(q * float64(left)))
	for i := len(counts) - 1; i >= 0; i-- { // from the end, because the quantiles asked for are high ones
		below := left - counts[i]
		if below < rank {
			return i, float64(rank-below) / float64(counts[i])
		}
		left = below
	}
	return 0, 0
}
