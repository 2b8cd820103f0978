//go:build unix

// Redisgeo finds the cities nearest to a point by GEOSEARCH of several Redis servers, as an example of peers that don't
// hear a cancel: go-redis, as it comes, waits for a reply until its read timeout, whatever the context says. So it is
// the peer's deadline that ends the wait; a server that hangs costs its own hits, and no more time than that.
//
//	go run -C examples ./redisgeo -lon 2.35 -lat 48.86 ADDR ADDR ...
//
// asks servers that have a key "cities". Without addresses it starts three, with each city on two of them. Then -hang 1
// stops one, which costs nothing, because the others are known to have all; with -hang 2 the answer comes at the
// deadline, and lacks what only those two have.
package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/scatterknn/scatter"
)

//go:embed cities.csv
var cities string // name, longitude, latitude

// near is Redis's own query as one of scatter's, which has never heard of it.
type near redis.GeoSearchQuery

func (near) Order() scatter.Order { return scatter.ScoreAscending }

// cluster is the servers to ask, and those of them that are our own.
type cluster struct {
	peers   []scatter.PeerID // their addresses
	clients map[scatter.PeerID]*redis.Client
	own     []*exec.Cmd
	dir     string         // of their sockets
	cover   *scatter.Cover // which of them has what
}

// search is the probe. One that was given up lives on until the client's ReadTimeout, 5 s, but nobody waits for it.
func (c *cluster) search(ctx context.Context, p scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
	q := redis.GeoSearchLocationQuery{WithDist: true, GeoSearchQuery: redis.GeoSearchQuery(req.Query.(near))}
	q.Sort, q.Count = "ASC", req.K
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

// start starts n servers on unix sockets, and puts each city on two of them.
func (c *cluster) start(ctx context.Context, n int) (err error) {
	if c.dir, err = os.MkdirTemp("", "redisgeo"); err != nil {
		return err
	}
	points := make([]scatter.Point, n)
	for i := range points {
		socket := fmt.Sprintf("%s/%d", c.dir, i+1)
		cmd := exec.CommandContext(ctx, "redis-server", "--port", "0", "--unixsocket", socket, "--save", "")
		stdout, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("%w: apt-get install redis-server", err)
		}
		c.own = append(c.own, cmd)
		for lines := bufio.NewScanner(stdout); lines.Scan() && !strings.Contains(lines.Text(), "eady to accept"); {
		}
		c.connect(socket)
		points[i] = scatter.Point{Token: math.MaxUint64 / uint64(n) * uint64(i), Peer: scatter.PeerID(socket)}
	}
	ring := scatter.NewRing(points...)
	c.cover = scatter.NewCover(ring, 2)
	for i, line := range strings.Split(strings.TrimSpace(cities), "\n") {
		city := strings.Split(line, ",")
		for _, a := range ring.PreferenceList(uint64(i)*0x9e3779b97f4a7c15, 2, nil) { // any constant that spreads them
			err = errors.Join(err, c.clients[a.Peer].Do(ctx, "GEOADD", "cities", city[1], city[2], city[0]).Err())
		}
	}
	return err
}

func (c *cluster) stop() {
	for _, client := range c.clients {
		client.Close() // ends probes that still wait, too
	}
	for _, cmd := range c.own {
		cmd.Process.Kill() // which a stopped process obeys, too
		cmd.Wait()
	}
	os.RemoveAll(c.dir)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("redisgeo", flag.ExitOnError)
	lon, lat := flags.Float64("lon", 2.35, "longitude"), flags.Float64("lat", 48.86, "latitude")
	deadline := flags.Duration("deadline", 500*time.Millisecond, "for each server by itself")
	hang := flags.Uint("hang", 0, "how many of its own servers to stop before the query")
	flags.Parse(args)
	c := &cluster{clients: make(map[scatter.PeerID]*redis.Client)}
	defer c.stop()
	for _, addr := range flags.Args() {
		c.connect(addr)
	}
	if flags.NArg() == 0 {
		if err := c.start(ctx, 3); err != nil {
			return err
		}
	}
	for _, cmd := range c.own[:min(*hang, uint(len(c.own)))] {
		cmd.Process.Signal(syscall.SIGSTOP)
	}
	req := &scatter.Request{Table: "cities", Query: near{Longitude: *lon, Latitude: *lat, Radius: 20_040}, K: 6}
	resp, err := scatter.Broadcast(ctx, req, c.peers, c.search, &scatter.Options{PeerDeadline: *deadline, Cover: c.cover})
	if err != nil {
		return err
	}
	for i, h := range resp.Hits {
		fmt.Fprintf(out, "%2d  %-16s %8.1f km\n", i+1, h.ID, h.Score)
	}
	fmt.Fprintf(out, "%.0f %% of the whole, after %v\n", 100*resp.Coverage, resp.Elapsed.Round(time.Millisecond))
	for _, p := range resp.Peers {
		fmt.Fprintf(out, "%s  %v, %d hits, error: %v\n", p.Peer, p.Status, p.Hits, p.Err)
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		log.Fatal(err)
	}
}
