package main

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/blevesearch/bleve/v2"
	"github.com/blevesearch/bleve/v2/analysis/lang/en"
	"github.com/blevesearch/bleve/v2/index/scorch"
	"github.com/blevesearch/bleve/v2/search"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
)

// shards is a Bleve index in parts. Each document is in one of them.
type shards struct {
	peers   []scatter.PeerID
	indexes map[scatter.PeerID]bleve.Index
}

// newShards makes n shards in memory and deals the documents to them by the hash of their IDs.
func newShards(n int, symbols []corpus.Symbol) (*shards, error) {
	s := &shards{indexes: make(map[scatter.PeerID]bleve.Index)}
	mapping := bleve.NewIndexMapping()
	mapping.DefaultAnalyzer = en.AnalyzerName
	batches := make([]*bleve.Batch, n)
	for i := range batches {
		// Without a path, scorch keeps everything in memory.
		index, err := bleve.NewUsing("", mapping, scorch.Name, scorch.Name, nil)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		peer := scatter.PeerID(fmt.Sprint("shard", i+1))
		index.SetName(string(peer))
		s.peers, s.indexes[peer], batches[i] = append(s.peers, peer), index, index.NewBatch()
	}
	for _, symbol := range symbols {
		batch := batches[scatter.HashToken(symbol.ID)%uint64(n)]
		fields := map[string]string{"title": symbol.Summary, "text": symbol.Doc}
		if err := batch.Index(symbol.ID, fields); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	for i, peer := range s.peers {
		if err := s.indexes[peer].Batch(batches[i]); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func (s *shards) close() error {
	var errs []error
	for _, index := range s.indexes {
		errs = append(errs, index.Close())
	}
	return errors.Join(errs...)
}

// newRequest returns Bleve's form of a query. Each shard needs its own, because Bleve writes to it.
func newRequest(words string, size int) *bleve.SearchRequest {
	request := bleve.NewSearchRequestOptions(bleve.NewMatchQuery(words), size, 0, false)
	request.Fields = []string{"title"}
	request.SortByCustom(search.SortOrder{&byScore{search.SortScore{Desc: true}}, &search.SortDocID{}})
	return request
}

// probe is the scatter.Probe: it asks one shard. It gives Request.After to Bleve as a search_after,
// so that a page costs the same however many pages came before.
func (s *shards) probe(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]found, error) {
	request := newRequest(string(req.Query.(match)), req.K)
	if req.After != "" {
		var last scatter.Hit[string]
		if err := scatter.AfterHit(req.After, &last); err != nil {
			return nil, err
		}
		request.SetSearchAfter([]string{sortKey(last.Score), last.ID})
	}
	result, err := s.indexes[peer].SearchInContext(ctx, request)
	if err != nil {
		return nil, err
	}
	hits := make([]found, len(result.Hits))
	for i, hit := range result.Hits {
		title, _ := hit.Fields["title"].(string)
		hits[i] = found{scatter.Hit[string]{ID: hit.ID, Score: float32(hit.Score)}, title}
	}
	return hits, nil
}

// byScore makes a shard rank its documents exactly as scatter does: by the score as a float32, then
// by the ID. Bleve's own score is a float64. Two of them may be equal as float32, and if a shard
// cut its list between the two, by an order other than scatter's, a page could lose one.
type byScore struct{ search.SortScore }

// Value returns the key that Bleve compares.
func (*byScore) Value(hit *search.DocumentMatch) string { return sortKey(float32(hit.Score)) }

// RequiresScoring returns false, because with true Bleve would compare the float64.
func (*byScore) RequiresScoring() bool { return false }

// Copy returns a copy of s.
func (s *byScore) Copy() search.SearchSort {
	c := *s
	return &c
}

// sortKey returns a text for a score. A greater score has a greater text, as Bleve's scores are
// never negative.
func sortKey(score float32) string { return fmt.Sprintf("%08x", math.Float32bits(score)) }

// shard is a bleve.Index by another name, as a struct can't embed one under a name that is also the
// name of one of its methods.
type shard = bleve.Index

// odd is a shard with a fault.
type odd struct {
	shard
	fault func() error
}

// SearchInContext has the fault first. It ignores its context, as a shard may.
func (o odd) SearchInContext(
	ctx context.Context, request *bleve.SearchRequest,
) (*bleve.SearchResult, error) {
	if err := o.fault(); err != nil {
		return nil, err
	}
	return o.shard.SearchInContext(context.WithoutCancel(ctx), request)
}

// spoil gives the i-th shard, from 1, a fault. If i is 0, it does nothing.
func (s *shards) spoil(i int, fault func() error) error {
	if i < 0 || i > len(s.peers) {
		return fmt.Errorf("there is no shard %d, want 1 to %d", i, len(s.peers))
	}
	if i > 0 {
		peer := s.peers[i-1]
		s.indexes[peer] = odd{s.indexes[peer], fault}
	}
	return nil
}
