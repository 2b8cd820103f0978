package scatter_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/scatterknn/scatter"
)

// Three nodes hold a part of the index each. One of them is known to be dead, so the answer lacks
// its documents and says so. A real probe sends the request over the network.
func Example() {
	nodes := []scatter.PeerID{"node-1", "node-2", "node-3"}
	index := map[scatter.PeerID][]scatter.Hit[string]{
		"node-1": {{ID: "apple", Score: 0.1}, {ID: "cherry", Score: 0.4}},
		"node-2": {{ID: "pear", Score: 0.2}, {ID: "plum", Score: 0.3}},
	}
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		return index[peer], nil
	}
	isLive := func(peer scatter.PeerID) bool { return peer != "node-3" }

	ring := scatter.NewHashRing(nodes, 64)
	req := &scatter.Request{Table: "fruit", Query: scatter.KNN{Field: "taste", Vector: []float32{1, 0}}, K: 3}
	resp, err := scatter.Broadcast(context.Background(), req, ring.Peers(), probe, &scatter.Options{Live: isLive})
	if err != nil {
		log.Fatal(err) // a bad argument, or the context was cancelled
	}
	fmt.Println(resp.Hits, "partial:", resp.Partial)
	for _, p := range resp.Peers {
		fmt.Println(p.Peer, p.Status, p.Hits)
	}
	// Output:
	// [{apple 0.1} {pear 0.2} {plum 0.3}] partial: true
	// node-1 Answered 2
	// node-2 Answered 2
	// node-3 Dead 0
}

// A peer that is too slow costs its own hits, not the query.
func ExampleBroadcast_deadline() {
	probe := func(ctx context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "snail" {
			<-ctx.Done() // as a client does that waits for a reply
			return nil, ctx.Err()
		}
		return []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	opts := &scatter.Options{PeerDeadline: 200 * time.Millisecond}
	resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"hare", "snail"}, probe, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits, "partial:", resp.Partial)
	for _, p := range resp.Peers {
		fmt.Println(p.Peer, p.Status, p.Err)
	}
	// Output:
	// [{apple 0.1}] partial: true
	// hare Answered <nil>
	// snail TimedOut scatter: no reply within 200ms
}

// Each document is on two peers. One peer fails, and the answer is complete all the same.
func ExampleBroadcast_cover() {
	ring := scatter.NewHashRing([]scatter.PeerID{"red", "green", "blue"}, 64)
	cover := scatter.NewCover(ring, 2)
	index := map[scatter.PeerID][]scatter.Hit[string]{}
	for i, id := range []string{"apple", "cherry", "fig", "pear"} {
		for _, peer := range cover.Holders(scatter.HashToken(id)) {
			index[peer] = append(index[peer], scatter.Hit[string]{ID: id, Score: float32(i)})
		}
	}
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "green" {
			return nil, errors.New("connection refused")
		}
		return index[peer], nil
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	resp, err := scatter.Broadcast(context.Background(), req, cover.Peers(), probe, &scatter.Options{Cover: cover})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits, "coverage:", resp.Coverage)
	// Output:
	// [{apple 0} {cherry 1} {fig 2} {pear 3}] coverage: 1
}

// The peers share one connection. A probe sends its request and returns; one goroutine reads the
// replies, and calls done for each.
func ExampleBroadcastAsync() {
	index := map[scatter.PeerID][]scatter.Hit[string]{
		"red":   {{ID: "apple", Score: 0.1}},
		"green": {{ID: "pear", Score: 0.2}},
	}
	replies := make(chan func(), 16)
	defer close(replies)
	go func() {
		for reply := range replies {
			reply()
		}
	}()
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request, done func([]scatter.Hit[string], error)) {
		replies <- func() { done(index[peer], nil) }
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	resp, err := scatter.BroadcastAsync(context.Background(), req, []scatter.PeerID{"red", "green"}, probe, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits)
	// Output:
	// [{apple 0.1} {pear 0.2}]
}

// A query that is stepped by literal times needs no clock and no goroutine. One peer answers after
// a second, the other doesn't answer by its deadline.
func ExampleCoordinator() {
	ask := func(a scatter.Ask) bool {
		fmt.Println("ask", a.Peer)
		return true
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 5}
	opts := &scatter.Options{PeerDeadline: 3 * time.Second}
	c, err := scatter.NewCoordinator[scatter.Hit[string]](req, []scatter.PeerID{"red", "green"}, ask, opts)
	if err != nil {
		log.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	c.Begin(start, time.Time{})
	fmt.Println(c.State())
	c.Reply(start.Add(time.Second), 0, []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil)
	deadline, _ := c.Deadline()
	c.Advance(deadline)
	fmt.Println(c.State(), "after", deadline.Sub(start))

	resp := c.Response()
	fmt.Println(resp.Hits, "partial:", resp.Partial)
	fmt.Println(resp.Peers[1].Peer, resp.Peers[1].Status, resp.Peers[1].Err)
	// Output:
	// ask red
	// ask green
	// Gather
	// Merging after 3s
	// [{apple 0.1}] partial: true
	// green TimedOut scatter: no reply within 3s
}

// The three orders. An ID that is in both lists is returned once, with its better rank.
func ExampleMerge() {
	type hit = scatter.Hit[string]

	near := [][]hit{{{ID: "pear", Score: 1}, {ID: "fig", Score: 3}}, {{ID: "apple", Score: 2}, {ID: "pear", Score: 4}}}
	fmt.Println(scatter.Merge(near, 2, scatter.ScoreAscending))

	alike := [][]hit{{{ID: "fig", Score: 3}, {ID: "pear", Score: 1}}, {{ID: "pear", Score: 4}, {ID: "apple", Score: 2}}}
	fmt.Println(scatter.Merge(alike, 2, scatter.ScoreDescending))

	named := [][]hit{{{ID: "fig", Score: 3}, {ID: "pear", Score: 4}}, {{ID: "apple", Score: 2}, {ID: "pear", Score: 1}}}
	fmt.Println(scatter.Merge(named, 9, scatter.IDAscending))
	// Output:
	// [{pear 1} {apple 2}]
	// [{pear 4} {fig 3}]
	// [{apple 2} {fig 3} {pear 1}]
}

// MergeSorted into the same buffer again and again allocates nothing. The lists must be sorted.
func ExampleMergeSorted() {
	queries := [][][]scatter.Hit[int]{
		{{{ID: 7, Score: 0.1}, {ID: 3, Score: 0.4}}, {{ID: 5, Score: 0.2}}},
		{{{ID: 4, Score: 0.3}}, {{ID: 9, Score: 0.2}, {ID: 1, Score: 0.9}}},
	}
	buffer := make([]scatter.Hit[int], 0, 2)
	for _, lists := range queries {
		buffer = scatter.MergeSorted(buffer[:0], lists, 2, scatter.ScoreAscending)
		fmt.Println(buffer)
	}
	// Output:
	// [{7 0.1} {5 0.2}]
	// [{9 0.2} {4 0.3}]
}

// A struct that embeds a Hit carries what the caller wants to show of a document.
func ExampleHit() {
	type article struct {
		scatter.Hit[int]
		Title string
	}
	index := map[scatter.PeerID][]article{
		"red":   {{scatter.Hit[int]{ID: 7, Score: 0.9}, "On Rings"}},
		"green": {{scatter.Hit[int]{ID: 4, Score: 0.7}, "On Heaps"}},
	}
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]article, error) {
		return index[peer], nil
	}
	req := &scatter.Request{Query: scatter.KNN{Ranking: scatter.ScoreDescending}, K: 10}
	resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"red", "green"}, probe, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, hit := range resp.Hits {
		fmt.Println(hit.ID, hit.Score, hit.Title)
	}
	// Output:
	// 7 0.9 On Rings
	// 4 0.7 On Heaps
}

// A peer that has run out of its own time returns what it has, with ErrPartial.
func ExampleErrPartial() {
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "green" {
			return []scatter.Hit[string]{{ID: "pear", Score: 0.2}}, fmt.Errorf("one segment: %w", scatter.ErrPartial)
		}
		return []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"red", "green"}, probe, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits, "partial:", resp.Partial)
	fmt.Println(resp.Peers[1].Status, resp.Peers[1].Err)
	// Output:
	// [{apple 0.1} {pear 0.2}] partial: true
	// Incomplete one segment: scatter: the peer's reply is partial
}
