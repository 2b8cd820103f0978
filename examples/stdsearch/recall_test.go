package main

import (
	"testing"
	"time"
)

func TestRecall(t *testing.T) {
	vectors := [][]float32{{0}, {1}, {2}, {-2}, {5}}
	query := []float32{0}
	tests := []struct {
		name string
		k    int
		hits []float64
		want float64
	}{
		{"all right", 3, []float64{0, 1, 4}, 1},
		{"one missed", 3, []float64{0, 1, 25}, 2. / 3},
		{"one not given", 3, []float64{0, 1}, 2. / 3},
		{"none", 3, nil, 0},
		{"rounded differently", 2, []float64{0, 1.000001}, 1},
		{"all there is", 5, []float64{0, 1, 4, 4, 25}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := recall(tt.hits, kthDistance(query, vectors, tt.k), tt.k); got != tt.want {
				t.Errorf("recall = %v, want %v", got, tt.want)
			}
		})
	}
}

// Of 2 and -2, which are equally far, either is right as the third.
func TestRecallTakesEitherOfATie(t *testing.T) {
	vectors := [][]float32{{0}, {1}, {2}, {-2}, {5}}
	query := []float32{0}
	for _, third := range [][]float32{{2}, {-2}} {
		hits := []float64{0, 1, squaredL2(query, third)}
		if got := recall(hits, kthDistance(query, vectors, 3), 3); got != 1 {
			t.Errorf("recall with %v as the third = %v, want 1", third, got)
		}
	}
}

func TestKthDistanceOfFewVectors(t *testing.T) {
	if got := kthDistance([]float32{0}, [][]float32{{3}, {1}}, 10); got != 9 {
		t.Errorf("kthDistance = %v, want 9, that of the farthest", got)
	}
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	tests := []struct {
		durations []time.Duration
		p         float64
		want      time.Duration
	}{
		{hundred, 50, 50},
		{hundred, 95, 95},
		{hundred, 99, 99},
		{hundred, 100, 100},
		{hundred, 0, 1},
		{[]time.Duration{7}, 50, 7},
		{[]time.Duration{7, 9}, 51, 9},
	}
	for _, tt := range tests {
		if got := percentile(tt.durations, tt.p); got != tt.want {
			t.Errorf("percentile of %d durations, %v = %d, want %d", len(tt.durations), tt.p, got, tt.want)
		}
	}
}
