package scatter

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// latency is an estimate of how long one peer takes: a histogram of what was observed, with buckets that grow with the
// latency, four to each doubling, so that a quantile is off by less than a quarter; and what is old counts for little,
// because all counts are halved whenever they come to latencyWindow observations.
//
// Its size is fixed, 516 bytes. The zero value has observed nothing. It is safe for concurrent use, without a lock; a
// quantile asked for while others record may miss what they are about to add.
type latency struct {
	buckets [4 * (latencyDoublings + 1)]atomic.Uint32
	weight  atomic.Uint32 // of all buckets, give or take what halving rounds off
}

const (
	latencyFirst     = 10 // the first four buckets share the 2^10 ns, a microsecond, below the first doubling
	latencyDoublings = 31 // the last bucket begins at half an hour and has no end
	latencyWindow    = 1024

	// latencyUnit is what one observation adds to its bucket: more than 1, so that a rare one survives some halvings.
	latencyUnit = 256
)

// latencyBucket returns the bucket of a latency.
func latencyBucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<latencyFirst {
		return int(v >> (latencyFirst - 2))
	}
	log := bits.Len64(v) - 1
	return min(4*(log-latencyFirst+1)+int(v>>(log-2)&3), len(latency{}.buckets)-1)
}

// latencyBound returns the least latency of a bucket.
func latencyBound(bucket int) time.Duration {
	if bucket < 4 {
		return time.Duration(bucket) << (latencyFirst - 2)
	}
	return time.Duration(4+bucket%4) << (bucket/4 + latencyFirst - 3)
}

// record adds one observation.
func (l *latency) record(d time.Duration) {
	l.buckets[latencyBucket(d)].Add(latencyUnit)
	weight := l.weight.Add(latencyUnit)
	if weight >= latencyWindow*latencyUnit && l.weight.CompareAndSwap(weight, weight/2) {
		l.halve()
	}
}

// recordAtLeast adds an observation that was cut short: the peer would have taken d or more. To leave all such out
// would make slow peers look fast, and so would counting those cut short early, which say nothing: of no use are those
// that are below the median.
func (l *latency) recordAtLeast(d time.Duration) {
	if d >= l.quantile(0.5) {
		l.record(d)
	}
}

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

// observed returns how many observations the estimate rests on, at most latencyWindow.
func (l *latency) observed() int { return int(l.weight.Load() / latencyUnit) }

// quantile returns the latency that a share q of the observations doesn't exceed, or 0 if there are none.
func (l *latency) quantile(q float64) time.Duration {
	bucket, along := l.find(q)
	low, high := latencyBound(bucket), latencyBound(bucket+1)
	return low + time.Duration(float64(high-low)*along)
}

// quantileBound returns a latency that at least a share q of the observations doesn't exceed, or 0 if there are none:
// the quantile itself may lie below all of them, where they are nearly equal.
func (l *latency) quantileBound(q float64) time.Duration {
	if bucket, along := l.find(q); along > 0 {
		return latencyBound(bucket + 1)
	}
	return 0
}

// find returns the bucket that a quantile is in, and how far along it is there, above 0 and up to 1; or twice 0 if
// nothing was observed.
func (l *latency) find(q float64) (bucket int, along float64) {
	var counts [len(l.buckets)]uint32
	left := uint32(0) // not known to be above the quantile
	for i := range l.buckets {
		counts[i] = l.buckets[i].Load()
		left += counts[i]
	}
	rank := uint32(math.Ceil(q * float64(left)))
	for i := len(counts) - 1; i >= 0; i-- { // the quantiles asked for are high ones
		below := left - counts[i]
		if below < rank {
			return i, float64(rank-below) / float64(counts[i])
		}
		left = below
	}
	return 0, 0
}
