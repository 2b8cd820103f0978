package main

import (
	"math"
	"slices"
	"time"
)

// squaredL2 returns the squared Euclidean distance, which vec1 uses. Between vectors of length 1 it
// is 2 - 2*cosine.
func squaredL2(a, b []float32) float64 {
	var sum float64
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return sum
}

// kthDistance returns the distance of the k-th nearest of all vectors, or of the farthest if there
// are fewer than k. It looks at every vector.
func kthDistance(query []float32, vectors [][]float32, k int) float64 {
	distances := make([]float64, len(vectors))
	for i, v := range vectors {
		distances[i] = squaredL2(query, v)
	}
	slices.Sort(distances)
	return distances[min(k, len(distances))-1]
}

// tolerance is the relative difference between the engine's single-precision sums and ours. It may
// exchange two hits that are almost equally far.
const tolerance = 1e-5

// recall returns the share of the true k nearest neighbours that an answer has, given the distances
// of its hits and that of the true k-th neighbour. It judges hits by distance and not by ID,
// because of several documents that are equally far, each is right.
func recall(hits []float64, kth float64, k int) float64 {
	right := 0
	for _, distance := range hits {
		if distance <= kth*(1+tolerance) {
			right++
		}
	}
	return float64(right) / float64(k)
}

// percentile returns the smallest of the durations that at least p percent of them don't exceed. It
// sorts them.
func percentile(durations []time.Duration, p float64) time.Duration {
	slices.Sort(durations)
	rank := int(math.Ceil(p / 100 * float64(len(durations))))
	return durations[max(rank, 1)-1]
}
