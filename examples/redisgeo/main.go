//go:build unix

// Redisgeo finds the cities nearest to a point by GEOSEARCH on several Redis servers.
//
// It shows two things. Servers that can't matter are not asked: each region of the Earth has
// servers of its own, and from a region's bounding box the program knows how near its cities can be
// at best. And peers may ignore that they were cancelled: go-redis by default waits for a reply
// until its own read timeout, whatever the context says. The peer's deadline ends the wait all the
// same, so a server that hangs costs its own hits and no more time than that.
//
//	go run -C examples ./redisgeo -lon 2.35 -lat 48.86
//
// starts six servers, two for each of three regions. With -hang 1 the nearest one hangs, which
// costs nothing, because another has the same cities. With -hang 2 both servers of the nearest
// region hang. The answer then comes after the deadline, and lacks their cities.
//
//	go run -C examples ./redisgeo -lon 2.35 -lat 48.86 ADDR ADDR ...
//
// asks servers that have a key "cities" already. It knows nothing of where their cities are, and
// asks all.
package main

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/demo"
)

//go:embed cities.csv
var cities string // name, longitude, latitude

// regions are where one region ends and the next one begins, in degrees of longitude: the Americas,
// Europe with Africa, and Asia with Australia.
var regions = []float64{-30, 60}

// copies is the number of servers that have the cities of a region.
const copies = 2

// near is Redis's own query. Scatter takes any type as a query that says how its answers are
// ordered.
type near redis.GeoSearchQuery

func (near) Order() scatter.Order { return scatter.ScoreAscending }

// cluster is the servers to ask, and among them those that the program has started.
type cluster struct {
	peers   []scatter.PeerID // their addresses
	clients map[scatter.PeerID]*redis.Client
	own     []*exec.Cmd
	dir     string                 // of their sockets
	boxes   map[scatter.PeerID]box // of the cities that our own servers have
	cover   *scatter.Cover         // which of our own servers have the same cities
}

func newCluster() *cluster {
	return &cluster{clients: make(map[scatter.PeerID]*redis.Client), boxes: make(map[scatter.PeerID]box)}
}

// options returns those of a query. Limit is what makes the query ask the nearest servers first,
// and the others only if they can still matter.
func (c *cluster) options(deadline time.Duration) *scatter.Options {
	opts := &scatter.Options{PeerDeadline: deadline, Cover: c.cover}
	if len(c.boxes) > 0 {
		opts.Bound, opts.Limit = c.bound, copies
	}
	return opts
}

// bound is the scatter.Options.Bound: no city of a peer is nearer than this.
func (c *cluster) bound(p scatter.PeerID, req *scatter.Request) (km float32, ok bool) {
	b, ok := c.boxes[p]
	q := req.Query.(near)
	return float32(b.distance(q.Longitude, q.Latitude)), ok
}

// search is the scatter.Probe. After its deadline it lives on until the client's ReadTimeout of 5
// s, but nobody waits for it.
func (c *cluster) search(ctx context.Context, p scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
	q := redis.GeoSearchLocationQuery{WithDist: true, GeoSearchQuery: redis.GeoSearchQuery(req.Query.(near))}
	q.Sort, q.Count, q.RadiusUnit = "ASC", req.K, "km"
	places, err := c.clients[p].GeoSearchLocation(ctx, req.Table, &q).Result()
	var hits []scatter.Hit[string]
	for _, place := range places {
		hits = append(hits, scatter.Hit[string]{ID: place.Name, Score: float32(place.Dist)})
	}
	return hits, err
}

func (c *cluster) connect(addr string) {
	c.peers = append(c.peers, scatter.PeerID(addr))
	c.clients[scatter.PeerID(addr)] = redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1})
}

// start starts servers on unix sockets, and loads each with the cities of its region.
func (c *cluster) start(ctx context.Context) (err error) {
	if c.dir, err = os.MkdirTemp("", "redisgeo"); err != nil {
		return err
	}
	groups := make([][]scatter.PeerID, len(regions)+1)
	for i := range copies * len(groups) {
		socket := fmt.Sprintf("%s/%d", c.dir, i+1)
		if err := c.startServer(ctx, socket); err != nil {
			return err
		}
		peer := scatter.PeerID(socket)
		groups[i/copies] = append(groups[i/copies], peer)
		c.boxes[peer] = nowhere()
	}
	c.cover = scatter.NewGroupCover(groups...)
	for _, city := range places() {
		for _, peer := range groups[city.region()] {
			c.boxes[peer] = c.boxes[peer].with(city.lon, city.lat)
			err = errors.Join(err, c.clients[peer].GeoAdd(ctx, "cities", &redis.GeoLocation{
				Name: city.name, Longitude: city.lon, Latitude: city.lat,
			}).Err())
		}
	}
	return err
}

// startServer starts a server, waits until it serves, and connects to it.
func (c *cluster) startServer(ctx context.Context, socket string) error {
	cmd := exec.CommandContext(ctx, "redis-server", "--port", "0", "--unixsocket", socket, "--save", "")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: apt-get install redis-server", err)
	}
	c.own = append(c.own, cmd)
	for lines := bufio.NewScanner(stdout); lines.Scan() && !strings.Contains(lines.Text(), "eady to accept"); {
	}
	c.connect(socket)
	return nil
}

// hang stops n of the program's own servers, the nearest first. They then accept connections and
// requests, but don't answer.
func (c *cluster) hang(n int, req *scatter.Request) {
	order := make([]int, len(c.own))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, _ := c.bound(c.peers[i], req)
		b, _ := c.bound(c.peers[j], req)
		return cmp.Compare(a, b)
	})
	for _, i := range order[:min(n, len(order))] {
		c.own[i].Process.Signal(syscall.SIGSTOP)
	}
}

func (c *cluster) stop() {
	for _, client := range c.clients {
		client.Close() // This also ends probes that still wait.
	}
	for _, cmd := range c.own {
		cmd.Process.Kill() // This also ends a process that is stopped.
		cmd.Wait()
	}
	os.RemoveAll(c.dir)
}

// place is a line of cities.csv.
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

// region returns the number of the region that a place is in, from the west.
func (p place) region() int {
	i, _ := slices.BinarySearch(regions, p.lon)
	return i
}

const usage = `Usage: redisgeo [flags] [ADDR ...]

Redisgeo finds the six cities nearest to a point by GEOSEARCH on the Redis servers at the addresses, which
must have a key "cities". Without addresses it starts six servers, two for each of three regions, and asks
those of the nearest region first. It prints the cities, then a line for each server. A server that can't have
one of the six is Outranked, and was not asked.

Flags:
`

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("redisgeo", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	lon := flags.Float64("lon", 2.35, "`longitude` of the point")
	lat := flags.Float64("lat", 48.86, "`latitude` of the point")
	deadline := flags.Duration("deadline", 500*time.Millisecond, "wait for each server no longer than this `duration`")
	hang := flags.Int("hang", 0, "let the `n` nearest of its own servers hang: 1 costs nothing, 2 cost their cities")
	flags.Parse(args)
	c := newCluster()
	defer c.stop()
	for _, addr := range flags.Args() {
		c.connect(addr)
	}
	if flags.NArg() == 0 {
		if err := c.start(ctx); err != nil {
			return err
		}
	}
	req := &scatter.Request{Table: "cities", Query: near{Longitude: *lon, Latitude: *lat, Radius: 20_040}, K: 6}
	c.hang(max(*hang, 0), req)
	resp, err := scatter.Broadcast(ctx, req, c.peers, c.search, c.options(*deadline))
	if err != nil {
		return err
	}
	demo.Print(out, resp, " km")
	return nil
}

func main() { demo.Main(run) }
