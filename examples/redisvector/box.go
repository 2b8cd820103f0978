//go:build unix

package main

import "math"

// box is a range of longitudes and of latitudes, in degrees. It doesn't cross the 180th meridian.
type box struct{ west, south, east, north float64 }

// nowhere is the box of no place.
func nowhere() box {
	return box{west: math.Inf(1), south: math.Inf(1), east: math.Inf(-1), north: math.Inf(-1)}
}

// with returns the smallest box that also has a place in it.
func (b box) with(lon, lat float64) box {
	return box{min(b.west, lon), min(b.south, lat), max(b.east, lon), max(b.north, lat)}
}

const (
	degree = math.Pi / 180
	// earthRadius is the one that Redis measures by, in km.
	earthRadius = 6372.797560856
	// slack is more than what Redis rounds: it stores places to within a metre. It is in km.
	slack = 0.01
)

// distance returns a lower bound of the distance from a point to the places in the box, in km.
func (b box) distance(lon, lat float64) float64 {
	if b.west > b.east {
		return math.Inf(1)
	}
	var angle float64
	if b.west <= lon && lon <= b.east {
		angle = max(b.south-lat, lat-b.north, 0) * degree // straight north or south
	} else {
		// On any parallel the places near the box's two sides are the nearest.
		angle = min(b.angleToSide(b.west-lon, lat), b.angleToSide(b.east-lon, lat))
	}
	return max(earthRadius*angle-slack, 0)
}

// angleToSide returns the angle between a point and the nearest point of the box's side that is so
// many degrees of longitude away.
func (b box) angleToSide(away, lat float64) float64 {
	// The cosine of the angle is a sinusoid of the latitude on that side, x cos + y sin. Its
	// largest value is at an end of the side, or at the crest if the side has it.
	y, x := math.Sincos(lat * degree)
	x *= math.Cos(away * degree)
	crest := math.Atan2(y, x) / degree
	cos := -1.0
	for _, at := range [...]float64{b.south, b.north, min(max(crest, b.south), b.north)} {
		sin, c := math.Sincos(at * degree)
		cos = max(cos, x*c+y*sin)
	}
	return math.Acos(min(cos, 1))
}
