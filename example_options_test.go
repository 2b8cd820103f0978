package scatter_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/scatterknn/scatter"
)

// All queries of a program share one Semaphore, so that there are never more than two probes in
// flight, however many queries there are.
func ExampleOptions_semaphore() {
	var inFlight, probes, tooMany atomic.Int64
	probe := func(context.Context, scatter.PeerID, *scatter.Request) ([]scatter.Hit[string], error) {
		probes.Add(1)
		if inFlight.Add(1) > 2 {
			tooMany.Add(1)
		}
		defer inFlight.Add(-1)
		return nil, nil
	}
	opts := &scatter.Options{Semaphore: semaphore.NewWeighted(2)}
	peers := []scatter.PeerID{"red", "green", "blue"}
	var queries sync.WaitGroup
	for range 4 {
		queries.Go(func() {
			req := &scatter.Request{Query: scatter.KNN{}, K: 10}
			if _, err := scatter.Broadcast(context.Background(), req, peers, probe, opts); err != nil {
				log.Fatal(err)
			}
		})
	}
	queries.Wait()
	fmt.Println(probes.Load(), "probes; more than 2 in flight:", tooMany.Load())
	// Output:
	// 12 probes; more than 2 in flight: 0
}

// Where half an answer is worse than none, MinCoverage makes it an error. The error has the
// Response, which says what is missing.
func ExampleCoverageError() {
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "green" {
			return nil, errors.New("connection refused")
		}
		return []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil
	}
	cover := scatter.NewGroupCover([]scatter.PeerID{"red"}, []scatter.PeerID{"green"})
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	opts := &scatter.Options{Cover: cover, MinCoverage: 0.9}
	_, err := scatter.Broadcast(context.Background(), req, cover.Peers(), probe, opts)
	var low *scatter.CoverageError[scatter.Hit[string]]
	if errors.As(err, &low) {
		fmt.Println(low.Response.Hits, "coverage:", low.Response.Coverage)
		fmt.Println("missing:", low.Response.Missing)
	}
	// Output:
	// [{apple 0.1}] coverage: 0.5
	// missing: [0x8000000000000000-0xffffffffffffffff (50.00%) of green]
}

// Once three quarters of the peers have answered, the query waits for the others for another 10 ms.
func ExampleOptions_enoughCoverage() {
	probe := func(ctx context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "snail" {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		return []scatter.Hit[string]{{ID: "of " + string(peer)}}, nil
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	opts := &scatter.Options{EnoughCoverage: 0.75, Grace: 10 * time.Millisecond}
	peers := []scatter.PeerID{"red", "green", "blue", "snail"}
	resp, err := scatter.Broadcast(context.Background(), req, peers, probe, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(resp.Hits), "hits, coverage:", resp.Coverage)
	fmt.Println(resp.Peers[3].Peer, resp.Peers[3].Status, resp.Peers[3].Err)
	// Output:
	// 3 hits, coverage: 0.75
	// snail NotNeeded scatter: the answer is complete enough without it
}

// With a Limit of 1 peers are asked one after another, in the order given.
func ExampleOptions_limit() {
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		fmt.Println("ask", peer)
		return nil, nil
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	peers := []scatter.PeerID{"red", "green", "blue"}
	resp, err := scatter.Broadcast(context.Background(), req, peers, probe, &scatter.Options{Limit: 1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("asked:", resp.PeersConsulted)
	// Output:
	// ask red
	// ask green
	// ask blue
	// asked: 3
}

// Both replicas hold everything, but their indexes are approximate. With WaitAll the answer has
// what either of them has found, and not only what the first to answer has.
func ExampleOptions_waitAll() {
	index := map[scatter.PeerID][]scatter.Hit[string]{
		"red":   {{ID: "apple", Score: 0.1}, {ID: "fig", Score: 0.3}},
		"green": {{ID: "apple", Score: 0.1}, {ID: "pear", Score: 0.2}},
	}
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		return index[peer], nil
	}
	cover := scatter.NewGroupCover([]scatter.PeerID{"red", "green"})
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	opts := &scatter.Options{Cover: cover, WaitAll: true}
	resp, err := scatter.Broadcast(context.Background(), req, cover.Peers(), probe, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits)
	// Output:
	// [{apple 0.1} {pear 0.2} {fig 0.3}]
}

// The caller needs 200 ms of its second for what it does with the answer. Peers have the rest.
func ExampleOptions_mergeReserve() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	deadline, _ := ctx.Deadline()
	probe := func(ctx context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		own, _ := ctx.Deadline()
		fmt.Println(peer, "has until", deadline.Sub(own), "before the caller's deadline")
		return nil, nil
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	opts := &scatter.Options{MergeReserve: 200 * time.Millisecond}
	if _, err := scatter.Broadcast(ctx, req, []scatter.PeerID{"red"}, probe, opts); err != nil {
		log.Fatal(err)
	}
	// Output:
	// red has until 200ms before the caller's deadline
}

// Live says that two peers are dead. The replica of one answers in its place; the other had none.
func ExampleOptions_live() {
	cover := scatter.NewGroupCover(
		[]scatter.PeerID{"red", "pink"}, []scatter.PeerID{"green", "lime"}, []scatter.PeerID{"blue"},
		[]scatter.PeerID{"black", "grey"},
	)
	dead := []scatter.PeerID{"green", "blue"}
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		return nil, nil
	}
	opts := &scatter.Options{
		Cover: cover,
		Live:  func(peer scatter.PeerID) bool { return !slices.Contains(dead, peer) },
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	resp, err := scatter.Broadcast(context.Background(), req, cover.Peers(), probe, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("coverage:", resp.Coverage)
	fmt.Println("missing:", resp.Missing)
	// Output:
	// coverage: 0.75
	// missing: [0x8000000000000000-0xbfffffffffffffff (25.00%) of blue]
}

// A circuit breaker counts failures of a peer. A probe whose context ended with ErrEnough has not
// failed: another replica was faster.
func ExampleErrEnough() {
	counted := make(chan bool, 1)
	probe := func(ctx context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "hare" {
			return []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil
		}
		<-ctx.Done()
		counted <- !errors.Is(context.Cause(ctx), scatter.ErrEnough)
		return nil, ctx.Err()
	}
	cover := scatter.NewGroupCover([]scatter.PeerID{"snail", "hare"})
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	resp, err := scatter.Broadcast(context.Background(), req, cover.Peers(), probe, &scatter.Options{Cover: cover})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits, "the breaker counts a failure:", <-counted)
	// Output:
	// [{apple 0.1}] the breaker counts a failure: false
}
