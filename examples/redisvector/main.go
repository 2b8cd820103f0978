//go:build unix

// Redisvector finds the cities nearest to a point on several Redis servers: by GEOSEARCH or, with
// -vsim, by VSIM on vector sets, which Redis has since version 8.
//
// It shows a Probe for each of the two commands. The type of the query decides which of them is
// sent. GEOSEARCH returns distances, the smallest first, and VSIM similarities, the greatest first.
// A place on the Earth is a vector of three dimensions, so that both must find the same cities.
//
// Servers that can't matter are not asked. Each region of the Earth has servers of its own, and
// from a region's bounding box the program knows how near its cities can be at best.
//
// A peer may ignore that it was cancelled. go-redis by default waits for a reply until its own read
// timeout, whatever the context says. The peer's deadline ends the wait all the same, so a server
// that hangs costs its own hits and no more time than that.
//
//	go run -C examples ./redisvector -lon 2.35 -lat 48.86
//
// starts six servers, two for each of three regions. With -hang 1 the nearest one hangs, which
// costs nothing, because another has the same cities. With -hang 2 both servers of the nearest
// region hang. The answer then comes after the deadline, and lacks their cities.
//
//	go run -C examples ./redisvector -lon 2.35 -lat 48.86 ADDR ADDR ...
//
// asks servers that have a key "cities" already. It knows nothing of where their cities are, and
// asks all.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/demo"
)

const usage = `Usage: redisvector [flags] [ADDR ...]

Redisvector finds the six cities nearest to a point on the Redis servers at the addresses, which must have a
key "cities": a geospatial index or, for -vsim, a vector set. Without addresses it starts six servers, two for
each of three regions, and asks those of the nearest region first. It prints the cities, then a line for each
server. A server that can't have one of the six is Outranked, and was not asked.

Flags:
`

// config is the command line.
type config struct {
	lon, lat float64
	vsim     bool
	deadline time.Duration
	hang     int
	addrs    []string
}

func parse(args []string) (*config, error) {
	var cfg config
	flags := flag.NewFlagSet("redisvector", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.Float64Var(&cfg.lon, "lon", 2.35, "`longitude` of the point, -180 to 180")
	flags.Float64Var(&cfg.lat, "lat", 48.86, "`latitude` of the point, -85 to 85")
	flags.BoolVar(&cfg.vsim, "vsim", false, "ask by VSIM, which needs Redis 8, and not by GEOSEARCH")
	flags.DurationVar(&cfg.deadline, "deadline", 500*time.Millisecond,
		"wait for each server no longer than this `duration`")
	flags.IntVar(&cfg.hang, "hang", 0,
		"let the `n` nearest of its own servers hang: 1 costs nothing, 2 cost their cities")
	flags.Parse(args)
	cfg.addrs = flags.Args()
	own := copies * (len(regions) + 1)
	switch {
	case !(-180 <= cfg.lon && cfg.lon <= 180):
		return nil, fmt.Errorf("-lon is %v, want -180 to 180", cfg.lon)
	case !(-85 <= cfg.lat && cfg.lat <= 85):
		return nil, fmt.Errorf("-lat is %v, want -85 to 85", cfg.lat)
	case cfg.deadline == 0:
		return nil, fmt.Errorf("-deadline is 0, want a duration above 0, or one below 0 for no deadline")
	case cfg.hang < 0 || cfg.hang > own:
		return nil, fmt.Errorf("-hang is %d, want 0 to %d", cfg.hang, own)
	case cfg.hang > 0 && len(cfg.addrs) > 0:
		return nil, fmt.Errorf("-hang is %d, want 0 for servers that redisvector hasn't started", cfg.hang)
	}
	return &cfg, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	cfg, err := parse(args)
	if err != nil {
		return err
	}
	from := place{lon: cfg.lon, lat: cfg.lat}
	var query scatter.Query = near(from)
	if cfg.vsim {
		query = scatter.KNN{Vector: from.vector(), Ranking: scatter.ScoreDescending}
	}
	c := newCluster()
	defer c.stop()
	for _, addr := range cfg.addrs {
		c.connect(&redis.Options{Addr: addr})
	}
	if len(cfg.addrs) == 0 {
		if err := c.start(ctx); err != nil {
			return err
		}
		if err := c.load(ctx, cfg.vsim); err != nil {
			return err
		}
		c.hang(cfg.hang, from)
	}
	req := &scatter.Request{Table: "cities", Query: query, K: 6}
	resp, err := scatter.Broadcast(ctx, req, c.peers, c.search, c.options(cfg.deadline))
	if err != nil {
		return err
	}
	score := "%8.1f km"
	if cfg.vsim {
		score = "%8.6f" // a similarity
	}
	demo.Print(out, resp, score)
	return nil
}

func main() { demo.Main(run) }
