package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
)

// byWords asks for documents with any of the words.
type byWords string

// Order returns ScoreDescending, as for all queries here.
func (byWords) Order() scatter.Order { return scatter.ScoreDescending }

// scores asks for the scores of documents that are known, by their full vectors.
type scores struct {
	vector []float32
	ids    []string
}

func (scores) Order() scatter.Order { return scatter.ScoreDescending }

// cluster is a number of nodes in this process. In a real cluster each would be a process of its
// own.
type cluster struct {
	nodes    map[scatter.PeerID]*node
	cover    *scatter.Cover
	embed    *embedder
	options  scatter.Options
	searcher *scatter.Searcher[found, string]
}

// newCluster makes n groups of two nodes. Each document is on both nodes of a group.
func newCluster(n int, symbols []corpus.Symbol, options scatter.Options) (*cluster, error) {
	c := &cluster{nodes: make(map[scatter.PeerID]*node), embed: newEmbedder(symbols), options: options}
	groups := make([][]scatter.PeerID, n)
	for i := range 2 * n {
		node, err := newNode()
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		peer := scatter.PeerID(fmt.Sprint("node", i+1))
		c.nodes[peer], groups[i/2] = node, append(groups[i/2], peer)
	}
	c.cover = scatter.NewGroupCover(groups...)
	for _, s := range symbols {
		d := newDocument(s, c.embed.vector(symbolText(s)))
		for _, peer := range c.cover.Holders(scatter.HashToken(s.ID)) {
			if err := c.nodes[peer].add(d, s.Doc); err != nil {
				return nil, errors.Join(err, c.close())
			}
		}
	}
	var err error
	if c.searcher, err = scatter.NewSearcher(c.probe, c.cover, &scatter.SearcherOptions{Options: options}); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cluster) close() error {
	var errs []error
	if c.searcher != nil {
		errs = append(errs, c.searcher.Close(context.Background()))
	}
	for _, n := range c.nodes {
		errs = append(errs, n.conn.Close())
	}
	return errors.Join(errs...)
}

// probe is the scatter.Probe of all three searches.
func (c *cluster) probe(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]found, error) {
	n := c.nodes[peer]
	switch q := req.Query.(type) {
	case byWords:
		match := `"` + strings.Join(words(string(q)), `" OR "`) + `"` // the syntax of FTS5
		return n.byWords(ctx, match, req.K)
	case scatter.KNN:
		return n.byVector(q.Vector, req.K), nil
	case scores:
		return n.scores(q.vector, q.ids), nil
	}
	return nil, fmt.Errorf("%w: a query of the type %T", scatter.ErrPermanent, req.Query)
}
