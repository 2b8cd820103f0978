package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/scatterknn/scatter"
)

// searchSymbols indexes the standard library's documentation, answers one query and says how well.
func searchSymbols(ctx context.Context, cfg *config, options *scatter.Options, stdout, stderr io.Writer) error {
	start := time.Now()
	symbols, err := readCorpus(ctx, goRoot(ctx, cfg.goroot))
	if err != nil {
		return err
	}
	embedder := newEmbedder(symbols)
	req := &scatter.Request{Table: "symbols", K: cfg.k, Query: scatter.Text{Field: "doc", Substring: []byte(cfg.text)}}
	var query []float32
	if cfg.words != "" {
		query = embedder.query(cfg.words)
		req.Query = scatter.KNN{Field: "vector", Vector: query, Ranking: scatter.ScoreAscending}
	}

	docs := make([]document, len(symbols))
	vectors := make([][]float32, len(symbols))
	for i, s := range symbols {
		vectors[i] = embedder.symbol(s)
		docs[i] = document{Row: int32(i), ID: s.ID, Summary: s.Summary, Body: s.Doc, Vector: vectors[i]}
	}
	c, err := startCluster(ctx, cfg, docs, options, stderr)
	if err != nil {
		return err
	}
	defer c.close()
	fmt.Fprintf(stdout, "%d symbols, each on %d of %d nodes, ready in %.1fs\n\n",
		len(symbols), cfg.replicas, cfg.nodes, time.Since(start).Seconds())

	searcher, err := newSearcher(c, c.probeSymbols)
	if err != nil {
		return err
	}
	defer searcher.Close(context.WithoutCancel(ctx))
	res, err := searcher.Search(ctx, req)
	if err != nil {
		return err
	}
	if query == nil {
		printSymbols(stdout, res.Hits)
		printLedger(stdout, c, res)
		return nil
	}
	printRanked(stdout, res.Hits)
	printLedger(stdout, c, res)

	distances := make([]float64, len(res.Hits)) // measured anew: an approximate engine's own need not be true
	for i, hit := range res.Hits {
		row, _ := slices.BinarySearchFunc(symbols, hit.ID, symbol.compareID)
		distances[i] = squaredL2(query, vectors[row])
	}
	k := min(cfg.k, len(symbols))
	fmt.Fprintf(stdout, "recall@%d: %.3f of what an exact search over all symbols in one place finds\n",
		k, recall(distances, kthDistance(query, vectors, k), k))
	return nil
}
