package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/scatterknn/scatter"
	"golang.org/x/sync/errgroup"
)

// tokensPerNode is how many points each node has on the ring. More make the nodes' shares more even.
const tokensPerNode = 32

// cluster is a number of nodes and the ring that says which of them holds what. In a real one each node would be a
// process of its own, and reach a call over the network.
type cluster struct {
	ring     *scatter.Ring
	replicas int // of each document
	nodes    map[scatter.PeerID]*node
	faults   faults
	options  *scatter.Options
}

// faults is what the user wants to go wrong.
type faults struct {
	down map[scatter.PeerID]bool          // known to be dead, so nobody asks them
	slow map[scatter.PeerID]time.Duration // answer this much later
	fail map[scatter.PeerID]bool          // answer with an error
}

// errInjected is the error of the nodes that are told to fail.
var errInjected = errors.New("told to fail by -fail")

// nodeName is the name of the i-th node, from 1.
func nodeName(i int) scatter.PeerID { return scatter.PeerID(fmt.Sprintf("node%d", i)) }

// startCluster makes the cluster that the command line asks for and loads documents into it, behind a progress bar.
func startCluster(
	ctx context.Context, cfg *config, docs []document, options *scatter.Options, terminal io.Writer,
) (*cluster, error) {
	c, err := newCluster(cfg.nodes, cfg.replicas, cfg.faults, options)
	if err != nil {
		return nil, err
	}
	bar := newProgress(terminal, "indexing", len(docs)*cfg.replicas)
	defer bar.clear()
	if err := c.load(ctx, docs, cfg.ivf, bar.step); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// newCluster makes empty nodes and places them on a ring.
func newCluster(size, replicas int, faults faults, options *scatter.Options) (*cluster, error) {
	c := &cluster{replicas: replicas, nodes: make(map[scatter.PeerID]*node), faults: faults, options: options}
	var points []scatter.Point
	for i := range size {
		name := nodeName(i + 1)
		for j := range tokensPerNode {
			points = append(points, scatter.Point{Token: ringToken(fmt.Sprintf("%s#%d", name, j)), Peer: name})
		}
		n, err := newNode()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), c.close())
		}
		c.nodes[name] = n
	}
	c.ring = scatter.NewRing(points...)
	return c, nil
}

// names lists the nodes, those that are down too.
func (c *cluster) names() []scatter.PeerID {
	names := make([]scatter.PeerID, len(c.nodes))
	for i := range names {
		names[i] = nodeName(i + 1)
	}
	return names
}

// close waits for searches that still run.
func (c *cluster) close() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// ringToken places a key on the ring. SHA-256 spreads keys evenly however alike they are.
func ringToken(key string) uint64 {
	sum := sha256.Sum256([]byte(key))
	return binary.BigEndian.Uint64(sum[:])
}

// load stores each document on as many nodes as it has replicas, and builds every node's index.
func (c *cluster) load(ctx context.Context, docs []document, ivf bool, stored func()) error {
	shares := make(map[scatter.PeerID][]document)
	for _, d := range docs {
		key := cmp.Or(d.ID, fmt.Sprint(d.Row))
		for _, holder := range c.ring.PreferenceList(ringToken(key), c.replicas, nil) {
			shares[holder.Peer] = append(shares[holder.Peer], d)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for name, n := range c.nodes {
		group.Go(func() error {
			if err := n.load(ctx, shares[name], stored); err != nil {
				return fmt.Errorf("%s: loading: %w", name, err)
			}
			if err := n.index(ctx, ivf); err != nil {
				return fmt.Errorf("%s: indexing: %w", name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// live is the cluster's scatter.Liveness. In a real one a health check would know.
func (c *cluster) live(peer scatter.PeerID) bool { return !c.faults.down[peer] }

// hedgeDelay is how long a node may take before others are asked for what it holds.
const hedgeDelay = 20 * time.Millisecond

// newSearcher returns what puts requests to the cluster: it asks as few nodes as hold everything, others in the place of
// those that fail or are late, and merges their answers. A program that answers many queries keeps one.
func newSearcher[H scatter.Ranked[ID], ID cmp.Ordered](
	c *cluster, probe scatter.Probe[H],
) (*scatter.Searcher[H, ID], error) {
	return scatter.NewSearcher(probe, c.ring, &scatter.SearcherOptions{
		Options:    *c.options,
		Replicas:   c.replicas,
		Live:       c.live,
		HedgeDelay: hedgeDelay,
		HedgeShare: -1, // a program for one query has no load to spare its nodes
		Seed:       1,  // the same plan for the same cluster, so that a fault hits the same query again
	})
}

// reach is the way to a node, where what is to go wrong goes wrong.
func (c *cluster) reach(ctx context.Context, peer scatter.PeerID) (*node, error) {
	select {
	case <-time.After(c.faults.slow[peer]):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.faults.fail[peer] {
		return nil, errInjected
	}
	return c.nodes[peer], nil
}

// probeSymbols is the scatter.Probe of a search for symbols: it asks one node, by vector or by substring.
func (c *cluster) probeSymbols(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]found, error) {
	n, err := c.reach(ctx, peer)
	if err != nil {
		return nil, err
	}
	switch query := req.Query.(type) {
	case scatter.KNN:
		return n.nearestSymbols(ctx, query.Vector, req.K)
	case scatter.Text:
		return n.symbolsContaining(ctx, query.Substring, req.K)
	default:
		return nil, fmt.Errorf("%s can't answer a %T", peer, query)
	}
}

// probeRows is the scatter.Probe of a search among bare vectors, whose IDs are their row numbers.
func (c *cluster) probeRows(
	ctx context.Context, peer scatter.PeerID, req *scatter.Request,
) ([]scatter.Hit[int32], error) {
	n, err := c.reach(ctx, peer)
	if err != nil {
		return nil, err
	}
	query, ok := req.Query.(scatter.KNN)
	if !ok {
		return nil, fmt.Errorf("%s can't answer a %T", peer, req.Query)
	}
	return n.nearestRows(ctx, query.Vector, req.K)
}
