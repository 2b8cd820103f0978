package scatter_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"sync/atomic"

	"github.com/scatterknn/scatter"
)

// Sixteen peers hold the documents by a hash of their IDs, so each is asked for a good share of the
// best hundred, not for a hundred. The answer is the same, and Exact says so.
func ExampleSpreadK() {
	peers := make([]scatter.PeerID, 16)
	for i := range peers {
		peers[i] = scatter.PeerID(fmt.Sprintf("peer-%d", i))
	}
	index := map[scatter.PeerID][]scatter.Hit[string]{}
	for i := range 10_000 {
		id := fmt.Sprintf("doc-%d", i)
		peer := peers[scatter.HashToken(id)%16]
		index[peer] = append(index[peer], scatter.Hit[string]{ID: id, Score: float32(i)})
	}
	var moved atomic.Int64
	probe := func(_ context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
		moved.Add(int64(req.K - req.Skip))
		return index[peer][req.Skip:req.K], nil
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 100}
	opts := &scatter.Options{PeerK: scatter.SpreadK(0.9999)}
	resp, err := scatter.Broadcast(context.Background(), req, peers, probe, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("exact:", resp.Exact, "of", len(resp.Hits))
	fmt.Println("hits moved:", moved.Load(), "instead of", 16*100)
	// Output:
	// exact: 100 of 100
	// hits moved: 304 instead of 1600
}

// Each peer is asked for two hits at first. One of them may have the third best, too, so it is
// asked once more, for that one.
func ExampleOptions_peerK() {
	index := map[scatter.PeerID][]scatter.Hit[string]{
		"red":   {{ID: "apple", Score: 1}, {ID: "cherry", Score: 2}, {ID: "fig", Score: 3}},
		"green": {{ID: "pear", Score: 7}, {ID: "plum", Score: 8}, {ID: "quince", Score: 9}},
	}
	probe := func(_ context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
		fmt.Println("ask", peer, "for hits", req.Skip+1, "to", req.K)
		return index[peer][req.Skip:req.K], nil
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 3}
	opts := &scatter.Options{PeerK: func(k, peers int) int { return 2 }, Limit: 1}
	resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"red", "green"}, probe, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits, "exact:", resp.Exact)
	// Output:
	// ask red for hits 1 to 2
	// ask green for hits 1 to 2
	// ask red for hits 3 to 3
	// [{apple 1} {cherry 2} {fig 3}] exact: 3
}

// Exact says how many of the hits are certain. The peer with the best hit gave it when it was asked
// for one, and broke down when it was asked for more: what it kept back may rank second.
func ExampleResponse_exact() {
	probe := func(_ context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
		switch {
		case peer == "green":
			return []scatter.Hit[string]{{ID: "pear", Score: 2}}, nil
		case req.Skip > 0:
			return nil, errors.New("connection reset")
		}
		return []scatter.Hit[string]{{ID: "apple", Score: 1}}, nil
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 2}
	opts := &scatter.Options{PeerK: func(k, peers int) int { return 1 }}
	resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"red", "green"}, probe, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits, "exact:", resp.Exact, "partial:", resp.Partial)
	// Output:
	// [{apple 1} {pear 2}] exact: 1 partial: false
}

var fruit = map[scatter.PeerID][]scatter.Hit[string]{
	"red":   {{ID: "apple", Score: 1}, {ID: "cherry", Score: 2}, {ID: "fig", Score: 5}},
	"green": {{ID: "pear", Score: 2}, {ID: "plum", Score: 4}},
}

// probePage returns the best hits behind req.After, by score and, where scores are equal, by ID.
func probePage(_ context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
	last := scatter.Hit[string]{Score: -1} // before all
	if req.After != "" {
		if err := scatter.AfterHit(req.After, &last); err != nil {
			return nil, err
		}
	}
	var hits []scatter.Hit[string]
	for _, h := range fruit[peer] {
		if cmp.Or(cmp.Compare(h.Score, last.Score), cmp.Compare(h.ID, last.ID)) > 0 && len(hits) < req.K {
			hits = append(hits, h)
		}
	}
	return hits, nil
}

// Pages of two hits. Each begins after the last certain hit of the one before. A probe asks its
// index for what follows that hit.
func ExampleAfterHit() {
	var after scatter.Cursor
	for page := 1; page == 1 || after != ""; page++ {
		req := &scatter.Request{Query: scatter.KNN{}, K: 2, After: after}
		resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"red", "green"}, probePage, nil)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("page", page, resp.Hits)
		after = resp.Next
	}
	// Output:
	// page 1 [{apple 1} {cherry 2}]
	// page 2 [{pear 2} {plum 4}]
	// page 3 [{fig 5}]
}

// Each peer holds one month, and the newest documents come first. What a peer can have is known, so
// that the search ends with the months that matter.
func ExampleOptions_bound() {
	newest := map[scatter.PeerID]float32{"january": 31, "february": 59, "march": 90}
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		day := newest[peer]
		return []scatter.Hit[string]{{ID: "late in " + string(peer), Score: day}, {ID: "before", Score: day - 1}}, nil
	}
	req := &scatter.Request{Query: scatter.KNN{Ranking: scatter.ScoreDescending}, K: 2}
	opts := &scatter.Options{
		Limit: 1, // one at a time, the best bound first
		Bound: func(peer scatter.PeerID, _ *scatter.Request) (float32, bool) { return newest[peer], true },
	}
	peers := []scatter.PeerID{"january", "february", "march"}
	resp, err := scatter.Broadcast(context.Background(), req, peers, probe, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits, "partial:", resp.Partial)
	for _, p := range resp.Peers {
		fmt.Println(p.Peer, p.Status)
	}
	// Output:
	// [{late in march 90} {before 89}] partial: false
	// january Outranked
	// february Outranked
	// march Answered
}

// Hits come as soon as no peer that is still out can have a better one. Here the far peer never
// answers, and the loop ends before it matters.
func ExampleStream() {
	probe := func(ctx context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "far" {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		return []scatter.Hit[string]{{ID: "apple", Score: 1}, {ID: "cherry", Score: 2}, {ID: "fig", Score: 9}}, nil
	}
	distance := map[scatter.PeerID]float32{"near": 0, "far": 5} // to the nearest document that a peer can have
	req := &scatter.Request{Query: scatter.KNN{}, K: 3}
	opts := &scatter.Options{
		Bound: func(peer scatter.PeerID, _ *scatter.Request) (float32, bool) { return distance[peer], true },
	}
	hits, response := scatter.Stream(context.Background(), req, []scatter.PeerID{"near", "far"}, probe, opts)
	for hit := range hits {
		fmt.Println(hit)
		if hit.ID == "cherry" {
			break
		}
	}
	resp, err := response()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Peers[1].Peer, resp.Peers[1].Status)
	// Output:
	// {apple 1}
	// {cherry 2}
	// far NotNeeded
}
