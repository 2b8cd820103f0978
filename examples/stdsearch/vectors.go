package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/scatterknn/scatter"
)

// vectorSet is the vectors to search, the queries, and the true answers.
type vectorSet struct {
	base, queries [][]float32
	truth         [][]int32 // for each query, the rows of base nearest to it, nearest first
}

// readVectorSet reads the three files and checks that they belong together, for answers of k
// neighbours.
func readVectorSet(cfg *config) (*vectorSet, error) {
	var s vectorSet
	var err error
	if s.base, err = readVectors(cfg.base); err != nil {
		return nil, err
	}
	if s.queries, err = readVectors(cfg.query); err != nil {
		return nil, err
	}
	if s.truth, err = readNeighbours(cfg.truth); err != nil {
		return nil, err
	}
	if want, got := len(s.base[0]), len(s.queries[0]); got != want {
		return nil, fmt.Errorf("%s: want the dimension of %s, %d, got %d", cfg.query, cfg.base, want, got)
	}
	if want, got := len(s.queries), len(s.truth); got < want {
		return nil, fmt.Errorf("%s: want a row for each of the %d queries in %s, got %d rows", cfg.truth, want, cfg.query, got)
	}
	if got := len(s.truth[0]); got < cfg.k {
		return nil, fmt.Errorf("%s: want at least %d neighbours in a row, for -k %d, got %d", cfg.truth, cfg.k, cfg.k, got)
	}
	for i, row := range s.truth {
		for j, id := range row {
			if id < 0 || int(id) >= len(s.base) {
				offset := 4 * (i*(1+len(row)) + 1 + j)
				return nil, fmt.Errorf("%s: row %d, byte %d: want a row of %s, 0 to %d, got %d",
					cfg.truth, i, offset, cfg.base, len(s.base)-1, id)
			}
		}
	}
	return &s, nil
}

// searchVectors indexes vectors from a file, searches for each query, and prints recall and
// latencies.
func searchVectors(ctx context.Context, cfg *config, options *scatter.Options, stdout, stderr io.Writer) error {
	start := time.Now()
	set, err := readVectorSet(cfg)
	if err != nil {
		return err
	}
	docs := make([]document, len(set.base))
	for i, v := range set.base {
		docs[i] = document{Row: int32(i), Vector: v}
	}
	c, err := startCluster(ctx, cfg, docs, options, stderr)
	if err != nil {
		return err
	}
	defer c.close()
	fmt.Fprintf(stdout, "%d vectors of %d dimensions, %s, ready in %.1fs\n",
		len(set.base), len(set.base[0]), c.topology.layout, time.Since(start).Seconds())

	searcher, err := newSearcher(c, c.probeRows)
	if err != nil {
		return err
	}
	defer searcher.Close(context.WithoutCancel(ctx))
	var last *scatter.Response[scatter.Hit[int32]]
	var sum float64
	var partial, unanswered int
	latencies := make([]time.Duration, len(set.queries))
	for i, query := range set.queries {
		req := &scatter.Request{
			Table: "vectors",
			Query: scatter.KNN{Field: "vector", Vector: query, Ranking: scatter.ScoreAscending},
			K:     cfg.k,
		}
		if last, err = searcher.Search(ctx, req, nil); err != nil {
			return err
		}
		latencies[i] = last.Elapsed
		if last.Partial {
			partial++
		}
		if !answered(last) {
			unanswered++
		}
		distances := make([]float64, len(last.Hits))
		for j, hit := range last.Hits {
			distances[j] = squaredL2(query, set.base[hit.ID])
		}
		sum += recall(distances, squaredL2(query, set.base[set.truth[i][cfg.k-1]]), cfg.k)
	}

	fmt.Fprintf(stdout, "\nthe last of %d queries:\n\n", len(set.queries))
	printLedger(stdout, c, last)
	fmt.Fprintf(stdout, "partial answers: %d of %d\n", partial, len(set.queries))
	fmt.Fprintf(stdout, "latency: p50 %s, p95 %s, p99 %s\n", milliseconds(percentile(latencies, 50)),
		milliseconds(percentile(latencies, 95)), milliseconds(percentile(latencies, 99)))
	fmt.Fprintf(stdout, "recall@%d: %.4f of the true neighbours\n", cfg.k, sum/float64(len(set.queries)))
	if unanswered == len(set.queries) {
		return errNoAnswer
	}
	return nil
}
