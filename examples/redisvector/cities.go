//go:build unix

package main

import (
	_ "embed"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
)

//go:embed cities.csv
var cities string // name, longitude, latitude

// place is a line of cities.csv. Longitude and latitude are in degrees.
type place struct {
	name     string
	lon, lat float64
}

func places() []place {
	var all []place
	for line := range strings.Lines(cities) {
		f := strings.Split(strings.TrimSpace(line), ",")
		lon, errLon := strconv.ParseFloat(f[1], 64)
		lat, errLat := strconv.ParseFloat(f[2], 64)
		if err := errors.Join(errLon, errLat); err != nil {
			panic(err) // The file is part of the program.
		}
		all = append(all, place{f[0], lon, lat})
	}
	return all
}

// regions are where one region ends and the next one begins, in degrees of longitude: the Americas,
// Europe with Africa, and Asia with Australia.
var regions = []float64{-30, 60}

// region returns the number of the region that a place is in, from the west.
func (p place) region() int {
	i, _ := slices.BinarySearch(regions, p.lon)
	return i
}

// vector returns the place as a point on a ball with the radius 1. Two places are the nearer the
// greater the cosine of the angle between their vectors is, and by that VSIM ranks.
func (p place) vector() []float32 {
	sinLon, cosLon := math.Sincos(p.lon * degree)
	sinLat, cosLat := math.Sincos(p.lat * degree)
	return []float32{float32(cosLat * cosLon), float32(cosLat * sinLon), float32(sinLat)}
}

// placeOf returns the place of a vector.
func placeOf(v []float32) place {
	x, y, z := float64(v[0]), float64(v[1]), float64(v[2])
	return place{lon: math.Atan2(y, x) / degree, lat: math.Atan2(z, math.Hypot(x, y)) / degree}
}
