package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/scatterknn/scatter"
	"golang.org/x/sync/errgroup"
)

// cluster is a number of nodes and a Cover that says which of them hold what. In a real cluster
// each node would be a process of its own, and reach would be a call over the network.
type cluster struct {
	topology topology
	nodes    map[scatter.PeerID]*node
	faults   faults
	options  *scatter.Options
}

// faults is what the user wants to go wrong.
type faults struct {
	down map[scatter.PeerID]bool          // known to be dead, so that nobody asks them
	slow map[scatter.PeerID]time.Duration // how much later they answer
	fail map[scatter.PeerID]bool          // return an error
}

// errInjected is the error of the nodes that should fail.
var errInjected = errors.New("told to fail by -fail")

// startCluster makes the cluster that the command line describes and loads documents into it,
// behind a progress bar.
func startCluster(
	ctx context.Context, cfg *config, docs []document, options *scatter.Options, terminal io.Writer,
) (*cluster, error) {
	c, err := newCluster(cfg.topology(), cfg.faults, options)
	if err != nil {
		return nil, err
	}
	shares := c.shares(docs)
	copies := 0
	for _, share := range shares {
		copies += len(share)
	}
	bar := newProgress(terminal, "indexing", copies)
	defer bar.clear()
	if err := c.load(ctx, shares, cfg.ivf, bar.step); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// newCluster makes empty nodes.
func newCluster(t topology, faults faults, options *scatter.Options) (*cluster, error) {
	c := &cluster{topology: t, nodes: make(map[scatter.PeerID]*node), faults: faults, options: options}
	for _, name := range t.names {
		n, err := newNode()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), c.close())
		}
		c.nodes[name] = n
	}
	return c, nil
}

// close waits for searches that still run.
func (c *cluster) close() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// shares returns the documents that each node is to hold.
func (c *cluster) shares(docs []document) map[scatter.PeerID][]document {
	shares := make(map[scatter.PeerID][]document)
	for _, d := range docs {
		key := cmp.Or(d.ID, fmt.Sprint(d.Row))
		for _, holder := range c.topology.cover.Holders(scatter.HashToken(key)) {
			shares[holder] = append(shares[holder], d)
		}
	}
	return shares
}

// load stores each node's documents and builds its index.
func (c *cluster) load(ctx context.Context, shares map[scatter.PeerID][]document, ivf bool, stored func()) error {
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

// live is the scatter.Liveness. In a real cluster a health check would know.
func (c *cluster) live(peer scatter.PeerID) bool { return !c.faults.down[peer] }

// hedgeDelay is how long a node may take before others are asked for what it holds.
const hedgeDelay = 20 * time.Millisecond

// newSearcher returns a Searcher over the cluster. All nodes are on its Cover, dead ones too, so
// that an answer knows what it lacks. A program that answers many queries keeps one Searcher for
// all of them.
func newSearcher[H scatter.Ranked[ID], ID cmp.Ordered](
	c *cluster, probe scatter.Probe[H],
) (*scatter.Searcher[H, ID], error) {
	options := *c.options
	options.Live = c.live
	return scatter.NewSearcher(probe, c.topology.cover, &scatter.SearcherOptions{
		Options:    options,
		HedgeDelay: hedgeDelay,
		// A program for one query need not save its nodes any load.
		HedgeShare:    -1,
		FallbackShare: -1,
		Seed:          1, // The same nodes each time, so that a fault has the same effect in each run.
	})
}

// reach returns a node, or the fault that the user wants it to have.
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

// probeSymbols is the scatter.Probe of a search for symbols: it asks one node, by vector or by
// substring.
func (c *cluster) probeSymbols(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]found, error) {
	n, err := c.reach(ctx, peer)
	if err != nil {
		return nil, err
	}
	switch query := req.Query.(type) {
	case scatter.KNN:
		return n.nearestSymbols(ctx, query.Vector, wanted[string](req))
	case scatter.Text:
		return n.symbolsContaining(ctx, query.Substring, wanted[string](req))
	default:
		return nil, fmt.Errorf("%w: %s can't answer a %T", scatter.ErrPermanent, peer, query)
	}
}

// probeRows is the scatter.Probe of a search for vectors from a file. Their IDs are their row
// numbers.
func (c *cluster) probeRows(
	ctx context.Context, peer scatter.PeerID, req *scatter.Request,
) ([]scatter.Hit[int32], error) {
	n, err := c.reach(ctx, peer)
	if err != nil {
		return nil, err
	}
	query, ok := req.Query.(scatter.KNN)
	if !ok {
		return nil, fmt.Errorf("%w: %s can't answer a %T", scatter.ErrPermanent, peer, req.Query)
	}
	return n.nearestRows(ctx, query.Vector, wanted[int32](req))
}

// wanted returns the part of a ranking that a request asks for.
func wanted[ID cmp.Ordered](req *scatter.Request) part[ID] {
	p := part[ID]{k: req.K, skip: req.Skip}
	if req.After != "" {
		// The Searcher has checked the cursor. The only error left means that it names no hit,
		// because nothing was certain on the page before: then the part begins at the beginning.
		p.behind = scatter.AfterHit(req.After, &p.after) == nil
	}
	return p
}
