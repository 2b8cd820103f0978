package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/scatterknn/scatter"
)

// The flaky peer answers the first query at the third attempt. The peer that is down is asked three
// times, and twice more until its breaker opens.
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

// newSearcher returns a Searcher that asks all of six peers, each range held by three, and a
// function that returns how often a breaker has refused a probe.
func newSearcher(t *testing.T, ask probe) (*scatter.Searcher[scatter.Hit[string], string], func() int64) {
	t.Helper()
	var points []scatter.Point
	var peers []scatter.PeerID
	for i := range uint64(6) {
		peers = append(peers, scatter.PeerID(fmt.Sprint("n", i)))
		points = append(points, scatter.Point{Token: i << 61, Peer: peers[i]})
	}
	ask = resilient(ask, peers)
	var refused atomic.Int64
	counting := func(ctx context.Context, peer scatter.PeerID, req *scatter.Request) (hits, error) {
		found, err := ask(ctx, peer, req)
		if errors.Is(err, circuitbreaker.ErrOpen) {
			refused.Add(1)
		}
		return found, err
	}
	cover := scatter.NewCover(scatter.NewRing(points...), 3)
	s, err := scatter.NewSearcher(counting, cover, &scatter.SearcherOptions{AskAll: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, refused.Load
}

// Two healthy peers are further away than the others, so that each answer is complete without them.
// Their probes are cancelled, however the transport says so, and no breaker opens.
func TestNotNeededIsNoFailure(t *testing.T) {
	far := map[scatter.PeerID]bool{"n2": true, "n5": true}
	reset := errors.New("connection reset")
	for name, cancelled := range map[string]func(context.Context) error{
		"the context's error":  context.Context.Err,
		"the context's cause":  context.Cause,
		"an error of its own":  func(context.Context) error { return reset },
		"one wrapping its own": func(ctx context.Context) error { return fmt.Errorf("read: %w", ctx.Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, refused := newSearcher(t, func(ctx context.Context, p scatter.PeerID, _ *scatter.Request) (hits, error) {
					latency := time.Millisecond
					if far[p] {
						latency = 3 * time.Millisecond
					}
					select {
					case <-time.After(latency):
						return hits{{ID: string(p)}}, nil
					case <-ctx.Done():
						return nil, cancelled(ctx)
					}
				})
				notNeeded := 0
				for range 50 {
					resp, err := s.Search(t.Context(), &scatter.Request{Query: scatter.KNN{}, K: 3}, nil)
					if err != nil || resp.Partial {
						t.Fatal(resp, err)
					}
					for _, p := range resp.Peers {
						if far[p.Peer] && p.Status == scatter.NotNeeded {
							notNeeded++
						}
					}
					synctest.Wait() // for the probes that were cancelled
				}
				if notNeeded != 100 || refused() != 0 {
					t.Errorf("%d probes of those two not needed, %d refused; want 100 and 0", notNeeded, refused())
				}
			})
		})
	}
}

// Wrong queries don't open the breakers either, and each peer is asked once.
func TestPermanentIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong := fmt.Errorf("no such field: %w", scatter.ErrPermanent)
		s, refused := newSearcher(t, func(_ context.Context, p scatter.PeerID, req *scatter.Request) (hits, error) {
			if req.Table == "wrong" {
				return nil, wrong
			}
			return hits{{ID: string(p)}}, nil
		})
		for range 10 {
			req := &scatter.Request{Table: "wrong", Query: scatter.KNN{}, K: 3}
			if _, err := s.Search(t.Context(), req, nil); !errors.Is(err, wrong) {
				t.Fatalf("%v, want %v", err, wrong)
			}
			synctest.Wait()
		}
		resp, err := s.Search(t.Context(), &scatter.Request{Query: scatter.KNN{}, K: 3}, nil)
		if err != nil || resp.Partial || refused() != 0 {
			t.Errorf("%v, %v, %d probes refused; want a whole answer", resp, err, refused())
		}
	})
}

// A peer that doesn't answer by its deadline has failed, and its breaker opens.
func TestTooSlowIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask := resilient(func(ctx context.Context, _ scatter.PeerID, _ *scatter.Request) (hits, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, []scatter.PeerID{"a"})
		req := &scatter.Request{Query: scatter.KNN{}, K: 3}
		for i := range 6 {
			resp, err := scatter.Broadcast(t.Context(), req, []scatter.PeerID{"a"}, ask, nil)
			synctest.Wait()
			want := scatter.TimedOut
			if i == 5 {
				want = scatter.Failed // by the breaker
			}
			if err != nil || resp.Peers[0].Status != want {
				t.Fatalf("query %d: %v, %v, want %v", i+1, resp.Peers[0], err, want)
			}
		}
	})
}
