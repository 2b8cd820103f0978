package scatter_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/scatterknn/scatter"
)

// Each shard is on two nodes. One node refuses every request: the Searcher asks a replica in its
// place, and soon it asks that one at once.
func ExampleNewSearcher() {
	cover := scatter.NewGroupCover(
		[]scatter.PeerID{"red", "green"}, // shard 0
		[]scatter.PeerID{"green", "blue"},
		[]scatter.PeerID{"blue", "red"},
	)
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "green" {
			return nil, errors.New("connection refused")
		}
		return []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil
	}
	s, err := scatter.NewSearcher(probe, cover, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(context.Background())
	for range 20 {
		if _, err := s.Search(context.Background(), &scatter.Request{Query: scatter.KNN{}, K: 10}, nil); err != nil {
			log.Fatal(err)
		}
	}
	stats := s.Stats()
	fmt.Println("queries:", stats.Queries, "partial:", stats.Partial)
	fmt.Println("asked in the place of green:", stats.Fallbacks)
	// Output:
	// queries: 20 partial: 0
	// asked in the place of green: 1
}

// The client takes a callback, so a query needs no goroutine for each peer.
func ExampleNewSearcherAsync() {
	var client sync.WaitGroup // stands for a client that calls back
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request, done func([]scatter.Hit[string], error)) {
		client.Go(func() { done([]scatter.Hit[string]{{ID: "of " + string(peer)}}, nil) })
	}
	cover := scatter.NewGroupCover([]scatter.PeerID{"red"}, []scatter.PeerID{"green"})
	s, err := scatter.NewSearcherAsync(probe, cover, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(context.Background())
	resp, err := s.Search(context.Background(), &scatter.Request{Query: scatter.KNN{}, K: 10}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits)
	client.Wait()
	// Output:
	// [{of green 0} {of red 0}]
}

// A shard moves from one node to another. The order matters: a node that is on the Cover before it
// has the documents would answer without them, and the answer would look complete.
func ExampleSearcher_SetCover() {
	index := map[scatter.PeerID][]scatter.Hit[string]{"old": {{ID: "apple", Score: 0.1}}}
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		return index[peer], nil
	}
	s, err := scatter.NewSearcher(probe, scatter.NewGroupCover([]scatter.PeerID{"old"}), nil)
	if err != nil {
		log.Fatal(err)
	}
	search := func() {
		resp, err := s.Search(context.Background(), &scatter.Request{Query: scatter.KNN{}, K: 10}, nil)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(resp.Peers[0].Peer, resp.Hits)
	}
	search()
	index["new"] = index["old"] // 1. Load the new node.
	s.SetCover(scatter.NewGroupCover([]scatter.PeerID{"new"}))
	search()             // 2. Let the queries end that began before SetCover. Here none runs.
	delete(index, "old") // 3. Drop the documents.
	// Output:
	// old [{apple 0.1}]
	// new [{apple 0.1}]
}

// Stats tells how each peer does. Here one of them fails.
func ExampleSearcher_Stats() {
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "blue" {
			return nil, errors.New("connection refused")
		}
		return nil, nil
	}
	cover := scatter.NewGroupCover([]scatter.PeerID{"red"}, []scatter.PeerID{"green"}, []scatter.PeerID{"blue"})
	s, err := scatter.NewSearcher(probe, cover, nil)
	if err != nil {
		log.Fatal(err)
	}
	for range 5 {
		if _, err := s.Search(context.Background(), &scatter.Request{Query: scatter.KNN{}, K: 10}, nil); err != nil {
			log.Fatal(err)
		}
	}
	stats := s.Stats()
	fmt.Println("queries:", stats.Queries, "partial:", stats.Partial, "probes:", stats.Probes)
	for _, p := range stats.Peers {
		fmt.Println(p.Peer, p.Probes, "failed:", p.Failures, "on probation:", !p.ProbationSince.IsZero())
	}
	// Output:
	// queries: 5 partial: 5 probes: 15
	// red 5 failed: 0 on probation: false
	// green 5 failed: 0 on probation: false
	// blue 5 failed: 5 on probation: true
}

// Three users ask the same at once, and the peer is asked once.
func ExampleSearcherOptions_coalesce() {
	answer := make(chan struct{})
	probe := func(context.Context, scatter.PeerID, *scatter.Request) ([]scatter.Hit[string], error) {
		<-answer
		return nil, nil
	}
	s, err := scatter.NewSearcher(probe, scatter.NewGroupCover([]scatter.PeerID{"red"}), &scatter.SearcherOptions{
		Coalesce: func(req *scatter.Request) string { return fmt.Sprintf("%s %v %d", req.Table, req.Query, req.K) },
	})
	if err != nil {
		log.Fatal(err)
	}
	var users sync.WaitGroup
	for range 3 {
		users.Go(func() { s.Search(context.Background(), &scatter.Request{Query: scatter.KNN{}, K: 10}, nil) })
	}
	for s.Stats().Coalesced < 2 { // until two have joined the query of the first
		time.Sleep(time.Millisecond)
	}
	close(answer)
	users.Wait()
	fmt.Println("queries:", s.Stats().Queries, "probes:", s.Stats().Probes)
	// Output:
	// queries: 1 probes: 1
}

// A peer of another zone costs a hundred times as much, so it is asked only if the peers of the own
// zone are down or very slow.
func ExampleSearcherOptions_cost() {
	zones := map[scatter.PeerID]string{"red": "east", "green": "west", "blue": "west", "pink": "east"}
	cover := scatter.NewGroupCover([]scatter.PeerID{"red", "green"}, []scatter.PeerID{"blue", "pink"})
	var mu sync.Mutex
	asked := map[string]int{}
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		time.Sleep(time.Millisecond) // the search
		mu.Lock()
		defer mu.Unlock()
		asked[zones[peer]]++
		return nil, nil
	}
	costs := map[string]float64{"east": 1, "west": 100}
	s, err := scatter.NewSearcher(probe, cover, &scatter.SearcherOptions{
		Cost: func(peer scatter.PeerID) float64 { return costs[zones[peer]] },
	})
	if err != nil {
		log.Fatal(err)
	}
	for range 10 {
		if _, err := s.Search(context.Background(), &scatter.Request{Query: scatter.KNN{}, K: 10}, nil); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(asked)
	// Output:
	// map[east:20]
}

// Approximate replicas differ a little. Searches with the same Affinity ask the same ones, so that
// a user who asks again sees the same answer.
func ExampleOptions_affinity() {
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		return []scatter.Hit[string]{{ID: "as seen by " + string(peer)}}, nil
	}
	cover := scatter.NewGroupCover([]scatter.PeerID{"red", "green", "blue"})
	s, err := scatter.NewSearcher(probe, cover, nil)
	if err != nil {
		log.Fatal(err)
	}
	answers := map[string]int{}
	for range 10 {
		req := &scatter.Request{Query: scatter.KNN{}, K: 10}
		resp, err := s.Search(context.Background(), req, &scatter.Options{Affinity: "session-7"})
		if err != nil {
			log.Fatal(err)
		}
		answers[resp.Hits[0].ID]++
	}
	fmt.Println("different answers:", len(answers))
	// Output:
	// different answers: 1
}

// No replica can answer a bad query. With ErrPermanent none is asked in vain.
func ExampleErrPermanent() {
	probe := func(_ context.Context, _ scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
		if req.Query.(scatter.KNN).Field != "embedding" {
			return nil, fmt.Errorf("%w: no such field", scatter.ErrPermanent)
		}
		return nil, nil
	}
	s, err := scatter.NewSearcher(probe, scatter.NewGroupCover([]scatter.PeerID{"red", "green", "blue"}), nil)
	if err != nil {
		log.Fatal(err)
	}
	req := &scatter.Request{Query: scatter.KNN{Field: "embeding"}, K: 10}
	_, err = s.Search(context.Background(), req, nil)
	fmt.Println(err)
	fmt.Println("permanent:", errors.Is(err, scatter.ErrPermanent), "probes:", s.Stats().Probes)
	// Output:
	// scatter: permanent error: no such field
	// permanent: true probes: 1
}

// A search of a Searcher, stepped by literal times. A standby is asked when the peer that was asked
// first takes longer than HedgeDelay. Which of the two replicas is first is up to the Searcher.
func ExampleSearcher_Coordinator() {
	unused := func(context.Context, scatter.PeerID, *scatter.Request) ([]scatter.Hit[string], error) {
		return nil, nil
	}
	cover := scatter.NewGroupCover([]scatter.PeerID{"red", "green"})
	s, err := scatter.NewSearcher(unused, cover, &scatter.SearcherOptions{HedgeDelay: 30 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}
	var asked []scatter.Ask
	ask := func(a scatter.Ask) bool {
		asked = append(asked, a)
		return true
	}
	c, err := s.Coordinator(&scatter.Request{Query: scatter.KNN{}, K: 10}, ask, nil)
	if err != nil {
		log.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	c.Begin(start, time.Time{})
	late, _ := c.Deadline()
	c.Advance(late)
	c.Reply(late.Add(5*time.Millisecond), asked[1].Index, []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil)
	for _, p := range c.Response().Peers {
		fmt.Println(p.Role, p.Status, "after", p.Elapsed)
	}
	// Output:
	// Primary NotNeeded after 35ms
	// Hedge Answered after 5ms
}

// Close cancels the queries that run, and waits until all probes have returned.
func ExampleSearcher_Close() {
	asked := make(chan struct{})
	probe := func(ctx context.Context, _ scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		close(asked)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	s, err := scatter.NewSearcher(probe, scatter.NewGroupCover([]scatter.PeerID{"red"}), nil)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		<-asked
		s.Close(context.Background())
	}()
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	resp, err := s.Search(context.Background(), req, nil)
	fmt.Println(resp.Peers[0].Status, err)
	_, err = s.Search(context.Background(), req, nil)
	fmt.Println(errors.Is(err, scatter.ErrClosed))
	// Output:
	// Abandoned scatter: the Searcher is closed
	// true
}
