package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"time"

	"github.com/scatterknn/scatter"
	"go.opentelemetry.io/otel/trace"
)

type hit = scatter.Hit[string]

// search finds the best hits that a peer has.
type search func(context.Context, *scatter.Request) ([]hit, error)

// part is a part of the index: how sweet and how sour each fruit is.
type part map[string][2]float32

var nodes = []scatter.PeerID{"node1", "node2", "node3"}

// shards has one for each node. The node before it has a copy.
var shards = []part{
	{"apple": {6, 4}, "banana": {9, 1}, "cherry": {7, 5}, "date": {10, 0}},
	{"fig": {9, 1}, "grape": {8, 3}, "grapefruit": {4, 8}, "kiwi": {6, 6}},
	{"lemon": {1, 10}, "lime": {1, 9}, "mango": {9, 2}, "orange": {7, 6}},
}

// search looks at every fruit.
func (p part) search(ctx context.Context, req *scatter.Request) ([]hit, error) {
	q, ok := req.Query.(scatter.KNN)
	if !ok || q.Field != "taste" || len(q.Vector) != 2 || q.Ranking != scatter.ScoreAscending || req.After != "" {
		return nil, fmt.Errorf("%w: want the first page of the nearest in 2 dimensions of taste", scatter.ErrPermanent)
	}
	var hits []hit
	for name, taste := range p {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		away := math.Hypot(float64(taste[0]-q.Vector[0]), float64(taste[1]-q.Vector[1]))
		hits = append(hits, hit{ID: name, Score: float32(away)})
	}
	return scatter.Merge([][]hit{hits}, req.K, scatter.ScoreAscending), nil
}

// start serves the nodes until stop is called. The busy one has no slots.
func start(tracer trace.Tracer, busy scatter.PeerID) (urls map[scatter.PeerID]string, stop func() error, err error) {
	urls = make(map[scatter.PeerID]string)
	var servers []*http.Server
	stop = func() (err error) {
		for _, server := range servers {
			err = errors.Join(err, server.Shutdown(context.Background()))
		}
		return err
	}
	for i, node := range nodes {
		own := maps.Clone(shards[i])
		maps.Copy(own, shards[(i+1)%len(shards)])
		slots := int64(100)
		if node == busy {
			slots = 0
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, errors.Join(err, stop())
		}
		server := &http.Server{
			Handler:           spanned(tracer, node, handler(own.search, slots)),
			ReadHeaderTimeout: 10 * time.Second,
		}
		servers, urls[node] = append(servers, server), "http://"+listener.Addr().String()
		go server.Serve(listener)
	}
	return urls, stop, nil
}
