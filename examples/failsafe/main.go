// Failsafe asks the same few peers again and again, one of which fails now and then and one always, by a probe that is
// wrapped in policies of failsafe-go: a failed attempt is tried again within the peer's deadline, and a peer that has
// kept failing is left alone for a while by a circuit breaker. scatter itself never asks a peer twice.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/scatterknn/scatter"
)

type (
	hits  = []scatter.Hit[string]
	probe = scatter.Probe[scatter.Hit[string]]
)

// resilient returns ask with retries for all peers, and a circuit breaker for each.
func resilient(ask probe, peers []scatter.PeerID) probe {
	retry := retrypolicy.NewBuilder[hits]().
		WithMaxRetries(2).
		WithBackoff(time.Millisecond, 10*time.Millisecond).
		AbortOnErrors(circuitbreaker.ErrOpen, scatter.ErrPartial). // no use, and no need
		ReturnLastFailure().
		Build()
	guarded := make(map[scatter.PeerID]failsafe.Executor[hits], len(peers))
	for _, peer := range peers {
		breaker := circuitbreaker.NewBuilder[hits]().
			HandleIf(func(_ hits, err error) bool { return err != nil && !errors.Is(err, scatter.ErrPartial) }).
			WithFailureThreshold(5).
			WithDelay(time.Minute).
			Build()
		guarded[peer] = failsafe.With(retry, breaker)
	}
	return func(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
		return guarded[peer].WithContext(ctx).Get(func() (hits, error) { return ask(ctx, peer, req) })
	}
}

// flaky is a probe that has its peers fail: "flaky" twice, then no more; "down" always.
func flaky() (ask probe, asked func() map[scatter.PeerID]int) {
	attempts := make(chan map[scatter.PeerID]int, 1) // holds the one map, when nobody has it
	attempts <- make(map[scatter.PeerID]int)
	ask = func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		counts := <-attempts
		counts[peer]++
		n := counts[peer]
		attempts <- counts
		if peer == "down" || peer == "flaky" && n <= 2 {
			return nil, errors.New("connection refused")
		}
		return hits{{ID: "from " + string(peer), Score: 1}}, nil
	}
	return ask, func() map[scatter.PeerID]int { return <-attempts }
}

func main() {
	peers := []scatter.PeerID{"steady", "flaky", "down"}
	ask, asked := flaky()
	ask = resilient(ask, peers)
	req := &scatter.Request{Query: scatter.KNN{}, K: 3}
	for i := range 3 {
		resp, err := scatter.Broadcast(context.Background(), req, peers, ask, nil)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("query", i+1)
		for _, p := range resp.Peers {
			fmt.Printf("  %-7s %v", p.Peer, p.Status)
			if p.Err != nil {
				fmt.Printf(": %v", p.Err)
			}
			fmt.Println()
		}
	}
	fmt.Println("attempts:", asked())
}
