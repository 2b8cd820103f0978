package loopback

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/grafana/dskit/ring"
	"github.com/scatterknn/scatter"
	"golang.org/x/sync/errgroup"
)

// peerDeadline is the time that each peer has, in all contenders.
const peerDeadline = scatter.DefaultPeerDeadline

// Contender asks all peers and returns the best k of all hits.
type Contender func(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[Hit]) ([]Hit, error)

// ByBroadcast is the library.
func ByBroadcast(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[Hit]) ([]Hit, error) {
	resp, err := scatter.Broadcast(ctx, Request, peers, probe, nil)
	if err == nil && resp.Partial {
		err = fmt.Errorf("partial: %v", resp.Peers)
	}
	if err != nil {
		return nil, err
	}
	return resp.Hits, nil
}

// ByHand is what one would write without a library for it: errgroup, a timeout for each peer, and
// a sort of all hits. A peer that fails costs its own hits.
func ByHand(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[Hit]) ([]Hit, error) {
	lists := make([][]Hit, len(peers))
	var g errgroup.Group
	for i, peer := range peers {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, peerDeadline)
			defer cancel()
			if hits, err := probe(ctx, peer, Request); err == nil {
				lists[i] = hits
			}
			return nil
		})
	}
	_ = g.Wait() // nobody returns an error
	return best(lists), ctx.Err()
}

// ByQuorum is dskit's DoUntilQuorum, with a quorum of all, one timeout, and a sort of all hits.
func ByQuorum(ctx context.Context, peers []scatter.PeerID, probe scatter.Probe[Hit]) ([]Hit, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, peerDeadline, context.DeadlineExceeded)
	defer cancel()
	set := ring.ReplicationSet{Instances: make([]ring.InstanceDesc, len(peers))}
	for i, peer := range peers {
		set.Instances[i].Addr = string(peer)
	}
	ask := func(ctx context.Context, peer *ring.InstanceDesc) ([]Hit, error) {
		return probe(ctx, scatter.PeerID(peer.Addr), Request)
	}
	lists, err := ring.DoUntilQuorum(ctx, set, ring.DoUntilQuorumConfig{}, ask, func([]Hit) {})
	return best(lists), err
}

// best returns the k best hits of unsorted lists.
func best(lists [][]Hit) []Hit {
	all := slices.Concat(lists...)
	slices.SortFunc(all, compare)
	return all[:min(k, len(all))]
}

func compare(a, b Hit) int {
	return cmp.Or(cmp.Compare(a.Score, b.Score), strings.Compare(a.ID, b.ID))
}

// Instantly is a probe without a transport: it returns one peer's hits at once.
func Instantly() scatter.Probe[Hit] {
	hits := make(map[scatter.PeerID][]Hit)
	for i, peer := range PeerNames(1000) {
		hits[peer] = hitsOf(i)
	}
	return func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]Hit, error) {
		return hits[peer], nil
	}
}
