//go:build unix

package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

// For random boxes and points, no place in the box is nearer than the bound, and one is nearly as
// near.
func TestBoxDistance(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	between := func(low, high float64) float64 { return low + random.Float64()*(high-low) }
	for range 2000 {
		b := nowhere().with(between(-180, 180), between(-90, 90)).with(between(-180, 180), between(-90, 90))
		lon, lat := between(-180, 180), between(-90, 90)
		bound, nearest := b.distance(lon, lat), math.Inf(1)
		const steps = 40
		for i := range steps + 1 {
			for j := range steps + 1 {
				x, y := b.west+(b.east-b.west)*float64(i)/steps, b.south+(b.north-b.south)*float64(j)/steps
				nearest = min(nearest, earthRadius*angle(lon, lat, x, y))
			}
		}
		// A cell of the grid has this diagonal at most.
		cell := earthRadius * degree * math.Hypot(b.east-b.west, b.north-b.south) / steps
		if bound > nearest || bound < nearest-cell-1 {
			t.Errorf("%+v from %v, %v: bound %v, nearest of a grid %v", b, lon, lat, bound, nearest)
		}
	}
}

func TestBoxDistanceExamples(t *testing.T) {
	b := nowhere().with(10, -20).with(30, 40)
	quarter := earthRadius * math.Pi / 2
	for _, tt := range []struct{ lon, lat, want float64 }{
		{20, 0, 0},                          // inside
		{10, 40, 0},                         // a corner
		{20, 50, earthRadius * 10 * degree}, // straight north
		{0, 0, earthRadius * 10 * degree},   // west, on the equator
		{120, 0, quarter},                   // a quarter of the way round
		{-150, 0, earthRadius * angle(-150, 0, 10, 40)}, // a corner, over the north
		{20, -90, earthRadius * (90 - 20) * degree},     // the south pole
	} {
		if got := b.distance(tt.lon, tt.lat); math.Abs(got-tt.want) > 2*slack {
			t.Errorf("from %v, %v: %v, want %v", tt.lon, tt.lat, got, tt.want)
		}
	}
	if got := nowhere().distance(0, 0); !math.IsInf(got, 1) {
		t.Errorf("nowhere: %v, want infinity", got)
	}
}
