package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/scatterknn/scatter"
	"golang.org/x/sync/errgroup"
)

// errNoAnswer is returned if no node has answered either of the two searches.
var errNoAnswer = errors.New("no node has answered")

// answer is the result of a hybrid search.
type answer struct {
	hits    []hit // by the scores of their full vectors, best first
	certain int   // how many fused ranks are certain
	byWords *scatter.Response[found]
	byKNN   *scatter.Response[found]
	scores  *scatter.Response[found] // nil if there are no hits
}

// hit is a document of the answer.
type hit struct {
	fused
	rank    int     // in the fused list, from 1
	cosine  float32 // the score of its full vector, or NaN if no node has returned it
	summary string
}

// search asks for the best documents by words and by vectors, depth of each. It fuses the two
// lists and returns the k best, ranked again by their full vectors.
func (c *cluster) search(ctx context.Context, text string, k, depth int) (*answer, error) {
	// With an Affinity all searches ask the same replicas, as long as these are healthy. If one
	// replica lags behind another, a document is then not in one list and missing from the other.
	opts := c.options
	opts.Affinity = text
	vector := c.embed.vector(text)
	queries := []scatter.Query{byWords(text), scatter.KNN{Vector: vector, Ranking: scatter.ScoreDescending}}
	responses := make([]*scatter.Response[found], len(queries))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, q := range queries {
		group.Go(func() (err error) {
			responses[i], err = c.searcher.Search(groupCtx, &scatter.Request{Query: q, K: depth}, &opts)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	a := &answer{byWords: responses[0], byKNN: responses[1]}
	if a.byWords.Coverage == 0 && a.byKNN.Coverage == 0 {
		return nil, errNoAnswer
	}
	lists := []list{listOf(a.byWords), listOf(a.byKNN)}
	all := fuse(lists...)
	a.certain = min(certain(all, lists...), k)
	return a, c.rank(ctx, a, vector, all[:min(k, len(all))], &opts)
}

// rank asks for the scores of the best documents by their full vectors, and puts them into the
// answer. Documents without a score come last.
func (c *cluster) rank(ctx context.Context, a *answer, vector []float32, best []fused, opts *scatter.Options) error {
	var ids []string
	for i, f := range best {
		a.hits = append(a.hits, hit{fused: f, rank: i + 1, cosine: float32(math.NaN())})
		ids = append(ids, f.id)
	}
	if len(ids) == 0 {
		return nil
	}
	req := &scatter.Request{Query: scores{vector, ids}, K: len(ids)}
	var err error
	if a.scores, err = c.searcher.Search(ctx, req, opts); err != nil {
		return err
	}
	for _, f := range a.scores.Hits {
		h := &a.hits[slices.Index(ids, f.ID)]
		h.cosine, h.summary = f.Score, f.Summary
	}
	slices.SortStableFunc(a.hits, func(a, b hit) int { return cmp.Compare(b.cosine, a.cosine) })
	return nil
}

func (a *answer) print(out io.Writer) {
	fmt.Fprintln(out, "fused words vectors  score")
	for _, h := range a.hits {
		score := "-"
		if !math.IsNaN(float64(h.cosine)) {
			score = fmt.Sprintf("%.4f", h.cosine)
		}
		fmt.Fprintf(out, "%5d %5s %7s %6s  %-36s %.60s\n", h.rank, rankText(h.ranks[0]), rankText(h.ranks[1]),
			score, h.id, h.summary)
	}
	fmt.Fprintf(out, "fused ranks certain up to %d\n", a.certain)
	for _, l := range []struct {
		name string
		resp *scatter.Response[found]
	}{{"words", a.byWords}, {"vectors", a.byKNN}, {"scores", a.scores}} {
		if l.resp == nil {
			continue
		}
		fmt.Fprintf(out, "%s: coverage %.0f %%, exact up to rank %d\n", l.name, 100*l.resp.Coverage, l.resp.Exact)
		for _, p := range l.resp.Peers {
			fmt.Fprintf(out, "  %s %v", p.Peer, p.Status)
		}
		fmt.Fprintln(out)
	}
}

func rankText(rank int) string {
	if rank == 0 {
		return "-"
	}
	return fmt.Sprint(rank)
}
