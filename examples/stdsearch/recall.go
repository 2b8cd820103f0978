package main

import (
	"math"
	"slices"
	"time"
)

// squaredL2 is the squared Euclidean distance, the one that vec1 measures by. Between vectors of length 1 it is
// 2 - 2*cosine.
func squaredL2(a, b []float32) float64 {
	var sum float64
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return sum
}

// kthDistance is the distance of the k-th nearest of all vectors, found by looking at every one of them. With fewer than
// k vectors it is that of the farthest.
func kthDistance(query []float32, vectors [][]float32, k int) float64 {
	distances := make([]float64, len(vectors))
	for i, v := range vectors {
		distances[i] = squaredL2(query, v)
	}
	slices.Sort(distances)
	return distances[min(k, len(distances))-1]
}

// tolerance is by how much, relatively, the engine's single-precision sums may differ from ours and so exchange two
// hits that are all but equally far.
const tolerance = 1e-5

// recall is the share of the true k nearest neighbours that an answer has, given the distances of its hits and that of
// the true k-th neighbour. Hits are judged by distance, not by ID: of several documents that are equally far, any is as
// right as another.
func recall(hits []float64, kth float64, k int) float64 {
	right := 0
	for _, distance := range hits {
		if distance <= kth*(1+tolerance) {
			right++
		}
	}
	return float64(right) / float64(k)
}

// percentile is the smallest of the durations that at least p percent of them don't exceed. It sorts them.
func percentile(durations []time.Duration, p float64) time.Duration {
	slices.Sort(durations)
	rank := int(math.Ceil(p / 100 * float64(len(durations))))
	return durations[max(rank, 1)-1]
}
