package cases

import (
	"context"
	"sync"

	"github.com/scatterknn/scatter"
	"github.com/sourcegraph/conc/pool"
	"golang.org/x/sync/errgroup"
)

// fanout asks all peers, and returns the hits of those that have given any.
type fanout func(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[hit]) [][]hit

// rivalFanouts are in the order of the Impls of Fanout.
var rivalFanouts = []fanout{askBare, askErrgroupEach, askErrgroupShared, askConc, askChannel}

func askBare(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[hit]) [][]hit {
	lists := make([][]hit, len(peers))
	var wg sync.WaitGroup
	for i, peer := range peers {
		wg.Go(func() {
			if hits, err := probe(ctx, peer, request); err == nil {
				lists[i] = hits
			}
		})
	}
	wg.Wait()
	return lists
}

// A peer that fails is to cost its own hits alone, so no error is given to the group.
func askErrgroupEach(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[hit]) [][]hit {
	lists := make([][]hit, len(peers))
	var g errgroup.Group
	for i, peer := range peers {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, peerDeadline)
			defer cancel()
			if hits, err := probe(ctx, peer, request); err == nil {
				lists[i] = hits
			}
			return nil
		})
	}
	_ = g.Wait()
	return lists
}

func askErrgroupShared(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[hit]) [][]hit {
	ctx, cancel := context.WithTimeout(ctx, peerDeadline)
	defer cancel()
	lists := make([][]hit, len(peers))
	var g errgroup.Group
	for i, peer := range peers {
		g.Go(func() error {
			if hits, err := probe(ctx, peer, request); err == nil {
				lists[i] = hits
			}
			return nil
		})
	}
	_ = g.Wait()
	return lists
}

// A pool with results leaves out those of the tasks that fail.
func askConc(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[hit]) [][]hit {
	ctx, cancel := context.WithTimeout(ctx, peerDeadline)
	defer cancel()
	p := pool.NewWithResults[[]hit]().WithContext(ctx)
	for _, peer := range peers {
		p.Go(func(ctx context.Context) ([]hit, error) { return probe(ctx, peer, request) })
	}
	lists, _ := p.Wait()
	return lists
}

func askChannel(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[hit]) [][]hit {
	ctx, cancel := context.WithTimeout(ctx, peerDeadline)
	defer cancel()
	replies := make(chan []hit, len(peers)) // so that nobody blocks who comes late
	for _, peer := range peers {
		go func() {
			hits, err := probe(ctx, peer, request)
			if err != nil {
				hits = nil
			}
			replies <- hits
		}()
	}
	lists := make([][]hit, 0, len(peers))
	for range peers {
		select {
		case hits := <-replies:
			lists = append(lists, hits)
		case <-ctx.Done():
			return lists
		}
	}
	return lists
}
