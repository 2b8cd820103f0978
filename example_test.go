package scatter_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scatterknn/scatter"
)

// Three peers hold a part of the index each; one of them is broken. In a program, the probe would call the peer's
// address.
func Example() {
	index := map[scatter.PeerID][]scatter.Hit[string]{
		"red":   {{ID: "apple", Score: 0.1}, {ID: "cherry", Score: 0.4}},
		"green": {{ID: "pear", Score: 0.2}, {ID: "apple", Score: 0.3}},
	}
	probe := func(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
		hits, ok := index[peer]
		if !ok {
			return nil, errors.New("connection refused")
		}
		return hits, nil
	}
	req := &scatter.Request{Table: "fruit", Query: scatter.KNN{Field: "taste", Vector: []float32{1, 0}}, K: 3}
	resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"red", "green", "blue"}, probe, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, hit := range resp.Hits {
		fmt.Println(hit.ID, hit.Score)
	}
	fmt.Println("partial:", resp.Partial)
	for _, peer := range resp.Peers {
		fmt.Println(peer.Peer, peer.Status, peer.Err)
	}
	// Output:
	// apple 0.1
	// pear 0.2
	// cherry 0.4
	// partial: true
	// red Answered <nil>
	// green Answered <nil>
	// blue Failed connection refused
}

// A hit carries what the caller wants to see of the document by embedding a Hit.
func ExampleBroadcast_payload() {
	type article struct {
		scatter.Hit[int]
		Title string
	}
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]article, error) {
		if peer == "red" {
			return []article{{scatter.Hit[int]{ID: 7, Score: 0.9}, "On Rings"}}, nil
		}
		return []article{{scatter.Hit[int]{ID: 4, Score: 0.7}, "On Heaps"}}, nil
	}
	req := &scatter.Request{Query: scatter.KNN{Ranking: scatter.ScoreDescending}, K: 10}
	resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"red", "green"}, probe, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, hit := range resp.Hits {
		fmt.Println(hit.ID, hit.Title)
	}
	// Output:
	// 7 On Rings
	// 4 On Heaps
}

// A slow peer costs its own hits, not the query: here, because it has 300 ms and waits until they are over.
func ExampleBroadcast_slowPeer() {
	probe := func(ctx context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "snail" {
			<-ctx.Done() // what a client does that waits for a reply
			return nil, ctx.Err()
		}
		return []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil
	}
	req := &scatter.Request{Query: scatter.Text{Field: "name", Substring: []byte("pp")}, K: 10}
	opts := &scatter.Options{PeerDeadline: 300 * time.Millisecond}
	resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"hare", "snail"}, probe, opts)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(resp.Hits)
	fmt.Println("partial:", resp.Partial, "timed out:", resp.PeersTimedOut, "of", resp.PeersConsulted)
	fmt.Println(resp.Peers[1].Peer, resp.Peers[1].Status, errors.Is(resp.Peers[1].Err, context.DeadlineExceeded))
	// Output:
	// [{apple 0.1}]
	// partial: true timed out: 1 of 2
	// snail TimedOut true
}

// The three orders, of the same lists. The pear stands in both and counts once.
func ExampleMerge() {
	type hit = scatter.Hit[string]
	near := [][]hit{{{ID: "pear", Score: 1}, {ID: "plum", Score: 3}}, {{ID: "apple", Score: 2}, {ID: "pear", Score: 4}}}
	fmt.Println(scatter.Merge(near, 2, scatter.ScoreAscending))

	similar := [][]hit{{{ID: "plum", Score: 3}, {ID: "pear", Score: 1}}, {{ID: "pear", Score: 4}, {ID: "apple", Score: 2}}}
	fmt.Println(scatter.Merge(similar, 2, scatter.ScoreDescending))

	named := [][]hit{{{ID: "pear", Score: 1}, {ID: "plum", Score: 3}}, {{ID: "apple", Score: 2}, {ID: "pear", Score: 4}}}
	fmt.Println(scatter.Merge(named, 9, scatter.IDAscending))
	// Output:
	// [{pear 1} {apple 2}]
	// [{pear 4} {plum 3}]
	// [{apple 2} {pear 1} {plum 3}]
}

// Merging into the same slice again and again allocates nothing.
func ExampleAppendMerge() {
	buffer := make([]scatter.Hit[int], 0, 10)
	for range 2 {
		buffer = scatter.AppendMerge(buffer[:0], [][]scatter.Hit[int]{{{ID: 1, Score: 0.5}}, {{ID: 2, Score: 0.25}}}, 10,
			scatter.ScoreAscending)
		fmt.Println(buffer)
	}
	// Output:
	// [{2 0.25} {1 0.5}]
	// [{2 0.25} {1 0.5}]
}

// A query stepped by hand, by literal times: no goroutine, no clock, no waiting. Two peers are asked; one answers after
// a second, the other not by its deadline.
func ExampleCoordinator() {
	type hit = scatter.Hit[string]
	ask := func(a scatter.Ask) bool {
		fmt.Println("ask", a.Peer)
		return true
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 5}
	opts := &scatter.Options{PeerDeadline: 3 * time.Second}
	c, err := scatter.NewCoordinator[hit](req, []scatter.PeerID{"red", "green"}, ask, opts)
	if err != nil {
		fmt.Println(err)
		return
	}
	m := scatter.NewMachine(c, scatter.Init)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	second := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }

	fmt.Println(m.Step(second(0), &scatter.Event[hit]{Kind: scatter.Begin}), m.State())
	reply := &scatter.Event[hit]{Kind: scatter.Replied, Index: 0, Hits: []hit{{ID: "apple", Score: 0.1}}}
	fmt.Println(m.Step(second(1), reply), m.State())
	due, _ := m.Deadline()
	fmt.Println("next deadline after", due.Sub(start))
	fmt.Println(m.Advance(due), m.State())

	resp := c.Response()
	fmt.Println(resp.Hits, resp.Partial, resp.Elapsed)
	fmt.Println(resp.Peers[1].Peer, resp.Peers[1].Status, resp.Peers[1].Err)
	// Output:
	// ask red
	// ask green
	// <nil> Gather
	// <nil> Gather
	// next deadline after 3s
	// <nil> Merging
	// [{apple 0.1}] true 3s
	// green TimedOut scatter: no reply within 3s
}
