package main

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/scatterknn/scatter"
)

// The flaky peer answers the first query, on the third attempt; the peer that is down is tried three times, then twice
// more until its breaker opens, and then no more.
func Example() {
	main()
	// Output:
	// query 1
	//   steady  Answered
	//   flaky   Answered
	//   down    Failed: connection refused
	// query 2
	//   steady  Answered
	//   flaky   Answered
	//   down    Failed: circuit breaker open
	// query 3
	//   steady  Answered
	//   flaky   Answered
	//   down    Failed: circuit breaker open
	// attempts: map[down:5 flaky:5 steady:3]
}

// A partial answer passes through the policies with its hits, and is asked for once.
func TestPartialPasses(t *testing.T) {
	asked := 0
	want := []scatter.Hit[string]{{ID: "x", Score: 1}}
	ask := resilient(func(context.Context, scatter.PeerID, *scatter.Request) ([]scatter.Hit[string], error) {
		asked++
		return want, fmt.Errorf("a shard is missing: %w", scatter.ErrPartial)
	}, []scatter.PeerID{"a"})
	req := &scatter.Request{Query: scatter.KNN{}, K: 3}
	resp, err := scatter.Broadcast(t.Context(), req, []scatter.PeerID{"a"}, ask, nil)
	if err != nil {
		t.Fatal(err)
	}
	if asked != 1 || resp.Peers[0].Status != scatter.Incomplete || !slices.Equal(resp.Hits, want) {
		t.Errorf("asked %d times, %v, hits %v; want once, Incomplete, %v", asked, resp.Peers[0].Status, resp.Hits, want)
	}
}
