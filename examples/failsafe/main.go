// Failsafe wraps a probe in policies of failsafe-go. A retry policy repeats a failed attempt within
// the peer's deadline, and a circuit breaker for each peer stops asking one that keeps failing.
// Scatter itself never asks a peer twice in one query because it has failed: it asks a replica.
//
// Not every error is the peer's fault. A Searcher cancels the probes that it no longer needs, and a
// breaker that counts those as failures soon takes healthy peers out: see blameless.
//
//	go run -C examples ./failsafe
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

// resilient returns ask with retries and with a circuit breaker for each of the peers.
func resilient(ask probe, peers []scatter.PeerID) probe {
	retry := retrypolicy.NewBuilder[hits]().
		WithMaxRetries(2).
		WithBackoff(time.Millisecond, 10*time.Millisecond).
		AbortIf(func(_ hits, err error) bool { return blameless(err) || errors.Is(err, circuitbreaker.ErrOpen) }).
		ReturnLastFailure().
		Build()
	guarded := make(map[scatter.PeerID]failsafe.Executor[hits], len(peers))
	for _, peer := range peers {
		breaker := circuitbreaker.NewBuilder[hits]().
			HandleIf(func(_ hits, err error) bool { return err != nil && !blameless(err) }).
			WithFailureThreshold(5).
			WithDelay(time.Minute).
			Build()
		guarded[peer] = failsafe.With(retry, breaker)
	}
	return func(ctx context.Context, peer scatter.PeerID, req *scatter.Request) (hits, error) {
		return guarded[peer].WithContext(ctx).Get(func() (hits, error) {
			found, err := ask(ctx, peer, req)
			if err != nil && ctx.Err() == context.Canceled {
				// A transport returns context.Canceled or an error of its own. The cause says who
				// cancelled and why. A deadline is not a cancellation: a peer that is too slow has
				// failed.
				err = context.Cause(ctx)
			}
			return found, err
		})
	}
}

// blameless reports whether an error says nothing against the peer. The breaker counts it as a
// success, as it knows nothing between success and failure. So a peer that hangs, and is never
// needed because a replica answers, looks healthy to the breaker. A Searcher notices it: see
// PeerReport.Late and PeerStats.ProbationSince.
func blameless(err error) bool {
	return errors.Is(err, scatter.ErrEnough) || // the answer was complete without the peer
		errors.Is(err, scatter.ErrClosed) || // the Searcher was closed
		errors.Is(err, context.Canceled) || // the caller has gone away
		errors.Is(err, scatter.ErrPermanent) || // the query is wrong, and every replica would say so
		errors.Is(err, scatter.ErrPartial) // there are hits, if not all
}

// flaky returns a probe of peers that fail: "flaky" twice and then no more, "down" always.
func flaky() (ask probe, asked func() map[scatter.PeerID]int) {
	attempts := make(chan map[scatter.PeerID]int, 1) // holds the map while nobody uses it
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
