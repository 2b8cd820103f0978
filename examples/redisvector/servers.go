//go:build unix

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
	"github.com/scatterknn/scatter"
)

// copies is the number of servers that have the cities of a region.
const copies = 2

// errNoVectorSets is the error of load if the servers don't know VADD.
var errNoVectorSets = errors.New("has no vector sets: Redis 8 has")

// cluster is the servers to ask, and among them the ones that the program has started.
type cluster struct {
	peers   []scatter.PeerID // their addresses
	clients map[scatter.PeerID]*redis.Client
	own     []*exec.Cmd
	dir     string                 // of their sockets
	boxes   map[scatter.PeerID]box // of the cities that load has given them
	cover   *scatter.Cover         // which of them have the same cities
}

func newCluster() *cluster {
	return &cluster{clients: make(map[scatter.PeerID]*redis.Client), boxes: make(map[scatter.PeerID]box)}
}

// connect adds a server. The client doesn't retry, as scatter asks a replica instead.
func (c *cluster) connect(opts *redis.Options) {
	opts.MaxRetries, opts.DialerRetries = -1, 1
	peer := scatter.PeerID(opts.Addr)
	c.peers = append(c.peers, peer)
	c.clients[peer] = redis.NewClient(opts)
}

// start starts servers on unix sockets: copies for each region.
func (c *cluster) start(ctx context.Context) (err error) {
	if c.dir, err = os.MkdirTemp("", "redisvector"); err != nil {
		return err
	}
	for i := range copies * (len(regions) + 1) {
		if err := c.startServer(ctx, fmt.Sprintf("%s/%d", c.dir, i+1)); err != nil {
			return err
		}
	}
	return nil
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
	c.connect(&redis.Options{Addr: socket})
	return nil
}

// load gives the peers the cities of their regions, as vectors or as places. The first peers are
// those of the first region.
func (c *cluster) load(ctx context.Context, vectors bool) error {
	add := addPlace
	if vectors {
		add = addVector
	}
	groups := slices.Collect(slices.Chunk(c.peers, copies))
	c.cover = scatter.NewGroupCover(groups...)
	for _, peer := range c.peers {
		c.boxes[peer] = nowhere()
	}
	for _, city := range places() {
		for _, peer := range groups[city.region()] {
			c.boxes[peer] = c.boxes[peer].with(city.lon, city.lat)
			if err := add(ctx, c.clients[peer], city); err != nil {
				return err
			}
		}
	}
	return nil
}

func addPlace(ctx context.Context, client *redis.Client, p place) error {
	return client.GeoAdd(ctx, "cities", &redis.GeoLocation{Name: p.name, Longitude: p.lon, Latitude: p.lat}).Err()
}

// addVector adds a vector that isn't quantized. With Redis's default of 8 bits for each dimension,
// cities would be hundreds of km from where they are, and the boxes would be wrong bounds.
func addVector(ctx context.Context, client *redis.Client, p place) error {
	err := client.VAddWithArgs(ctx, "cities", p.name, fp32(p.vector()), &redis.VAddArgs{NoQuant: true}).Err()
	if err == nil || !strings.HasPrefix(err.Error(), "ERR unknown command") {
		return err
	}
	info, err := client.InfoMap(ctx, "server").Result()
	if err != nil {
		return err
	}
	return fmt.Errorf("redis-server %s %w", info["Server"]["redis_version"], errNoVectorSets)
}

// hang stops n of the program's own servers, the nearest to a place first. They then accept
// connections and requests, but don't answer.
func (c *cluster) hang(n int, from place) {
	order := make([]int, len(c.own))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := c.boxes[c.peers[i]], c.boxes[c.peers[j]]
		return cmp.Compare(a.distance(from.lon, from.lat), b.distance(from.lon, from.lat))
	})
	for _, i := range order[:n] {
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
