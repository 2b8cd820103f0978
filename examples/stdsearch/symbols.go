package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
)

// searchSymbols indexes the standard library's documentation, answers one query and prints how
// well.
func searchSymbols(ctx context.Context, cfg *config, options *scatter.Options, stdout, stderr io.Writer) error {
	start := time.Now()
	symbols, err := corpus.Read(ctx, corpus.GoRoot(ctx, cfg.goroot))
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
	vectors := embedder.symbols(symbols)
	docs := make([]document, len(symbols))
	for i, s := range symbols {
		docs[i] = document{Row: int32(i), ID: s.ID, Summary: s.Summary, Body: s.Doc, Vector: vectors[i]}
	}
	c, err := startCluster(ctx, cfg, docs, options, stderr)
	if err != nil {
		return err
	}
	defer c.close()
	fmt.Fprintf(stdout, "%d symbols, %s, ready in %.1fs\n\n", len(symbols), c.topology.layout, time.Since(start).Seconds())

	searcher, err := newSearcher(c, c.probeSymbols)
	if err != nil {
		return err
	}
	defer searcher.Close(context.WithoutCancel(ctx))
	show := printSymbols
	if query != nil {
		show = printRanked
	}
	hits, err := searchPages(ctx, cfg, c, searcher, req, show, stdout)
	if err != nil || query == nil {
		return err
	}

	distances := make([]float64, len(hits)) // measured again, as an approximate engine's own may be wrong
	for i, hit := range hits {
		row, _ := slices.BinarySearchFunc(symbols, hit.ID, corpus.Symbol.CompareID)
		distances[i] = squaredL2(query, vectors[row])
	}
	k := min(cfg.k, len(symbols))
	fmt.Fprintf(stdout, "recall@%d: %.3f of what an exact search over all symbols in one place finds\n",
		k, recall(distances, kthDistance(query, vectors, k), k))
	return nil
}

// searchPages answers a request, in pages if the command line says so. It prints each page, and the
// ledger of the last one. It returns the hits of all pages.
func searchPages(
	ctx context.Context, cfg *config, c *cluster, searcher *scatter.Searcher[found, string], req *scatter.Request,
	show func(io.Writer, []found), stdout io.Writer,
) ([]found, error) {
	var hits []found
	var after scatter.Cursor
	for page := 1; ; page++ {
		next := *req // A new one for each page: late probes may still read those before.
		next.After = after
		if cfg.page > 0 {
			next.K = min(cfg.page, cfg.k-len(hits))
		}
		res, err := searcher.Search(ctx, &next, nil)
		if err != nil {
			return nil, err
		}
		more := cfg.page > 0 && res.Exact > 0 && len(hits)+res.Exact < cfg.k && res.Next != ""
		certain := res.Hits
		if more {
			certain = certain[:res.Exact] // The others come again on the next page.
		}
		if cfg.page > 0 {
			fmt.Fprintf(stdout, "page %d\n", page)
		}
		show(stdout, certain)
		hits = append(hits, certain...)
		if !more {
			printLedger(stdout, c, res)
			if !answered(res) {
				return nil, errNoAnswer
			}
			return hits, nil
		}
		printVerdict(stdout, c, res)
		fmt.Fprintln(stdout)
		after = res.Next
	}
}
