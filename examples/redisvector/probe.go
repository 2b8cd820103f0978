//go:build unix

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/scatterknn/scatter"
)

// near asks GEOSEARCH for the cities nearest to a place. The score of a hit is its distance in km.
// Scatter takes any type as a query that says how its answers are ordered.
//
// The query for VSIM is a scatter.KNN with ScoreDescending: the score of a hit is a similarity,
// from 1 for the same direction to 0 for the opposite one.
type near place

func (near) Order() scatter.Order { return scatter.ScoreAscending }

// search is the scatter.Probe. After its deadline it lives on until the client's ReadTimeout of 5
// s, but nobody waits for it.
func (c *cluster) search(ctx context.Context, p scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
	switch q := req.Query.(type) {
	case near:
		return geosearch(ctx, c.clients[p], req, q)
	case scatter.KNN:
		return vsim(ctx, c.clients[p], req, q)
	}
	return nil, fmt.Errorf("%w: a query of the type %T", scatter.ErrPermanent, req.Query)
}

func geosearch(
	ctx context.Context, client *redis.Client, req *scatter.Request, from near,
) ([]scatter.Hit[string], error) {
	const wholeEarth = 20_040 // km
	places, err := client.GeoSearchLocation(ctx, req.Table, &redis.GeoSearchLocationQuery{
		GeoSearchQuery: redis.GeoSearchQuery{
			Longitude: from.lon, Latitude: from.lat, Radius: wholeEarth, RadiusUnit: "km", Sort: "ASC", Count: req.K,
		},
		WithDist: true,
	}).Result()
	hits := make([]scatter.Hit[string], len(places))
	for i, place := range places {
		hits[i] = scatter.Hit[string]{ID: place.Name, Score: float32(place.Dist)}
	}
	return hits, err
}

// vsim asks for the vectors that are most similar to one. Redis searches a graph, which may miss
// some, and returns equal similarities in any order. Response.Exact knows nothing of that. A
// greater KNN.EF misses less.
func vsim(
	ctx context.Context, client *redis.Client, req *scatter.Request, q scatter.KNN,
) ([]scatter.Hit[string], error) {
	args := &redis.VSimArgs{Count: int64(req.K), EF: int64(q.EF)}
	found, err := client.VSimWithArgsWithScores(ctx, req.Table, fp32(q.Vector), args).Result()
	hits := make([]scatter.Hit[string], len(found))
	for i, f := range found {
		hits[i] = scatter.Hit[string]{ID: f.Name, Score: float32(f.Score)}
	}
	return hits, err
}

// fp32 returns the binary form of a vector that VADD and VSIM take.
func fp32(vector []float32) *redis.VectorFP32 {
	b, err := binary.Append(nil, binary.LittleEndian, vector)
	if err != nil {
		panic(err) // A []float32 has a fixed size.
	}
	return &redis.VectorFP32{Val: b}
}

// options returns those of a query. Limit makes the query ask the nearest servers first, and the
// others only if they can still matter.
func (c *cluster) options(deadline time.Duration) *scatter.Options {
	opts := &scatter.Options{PeerDeadline: deadline, Cover: c.cover}
	if len(c.boxes) > 0 {
		opts.Bound, opts.Limit = c.bound, copies
	}
	return opts
}

// bound is the scatter.Options.Bound: no city of a peer has a better score than this.
func (c *cluster) bound(p scatter.PeerID, req *scatter.Request) (score float32, ok bool) {
	b, ok := c.boxes[p]
	switch q := req.Query.(type) {
	case near:
		return float32(b.distance(q.lon, q.lat)), ok
	case scatter.KNN:
		at := placeOf(q.Vector)
		return similarity(b.distance(at.lon, at.lat)), ok
	}
	return 0, false
}

// similarity returns an upper bound of the score that VSIM gives to a place so far away.
func similarity(km float64) float32 {
	const slack = 1e-6 // more than what Redis rounds: it computes with float32
	angle := min(km/earthRadius, math.Pi)
	return float32((1+math.Cos(angle))/2 + slack)
}
