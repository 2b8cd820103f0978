package main

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/scatterknn/scatter"
)

// hit is what the peers would find, if they found anything: only time and coverage matter here.
type hit = scatter.Hit[uint32]

// searcher is what is simulated.
type searcher = scatter.Searcher[hit, uint32]

var request = &scatter.Request{Query: scatter.Text{}, K: 1}

// epoch is when each simulation begins. Any time will do.
var epoch = time.Date(2013, time.February, 1, 0, 0, 0, 0, time.UTC)

// unasked is the probe of Searchers whose queries are stepped by hand.
func unasked(context.Context, scatter.PeerID, *scatter.Request) ([]hit, error) {
	return nil, errors.New("nobody calls this")
}

// setting is what a cluster is made of.
type setting struct {
	model                   model
	peers, replicas, tokens int // tokens is for each peer
}

func (s setting) String() string {
	return fmt.Sprintf("%s: %d peers, replicas %d, tokens for each peer %d", s.model.name, s.peers, s.replicas, s.tokens)
}

// cluster is peers on a ring.
type cluster struct {
	setting
	index  map[scatter.PeerID]int
	cover  *scatter.Cover
	oracle *oracle
	seed   uint64
}

func newCluster(s setting, seed uint64) *cluster {
	c := &cluster{setting: s, index: make(map[scatter.PeerID]int), seed: seed}
	r := rand.New(rand.NewPCG(seed, 0))
	var points []scatter.Point
	for i, peer := range somePeers(s.peers) {
		c.index[peer] = i
		// An operator sets one token for each peer, evenly spaced. Many are drawn.
		token := uint64(i) * (math.MaxUint64 / uint64(s.peers))
		for range s.tokens {
			if s.tokens > 1 {
				token = r.Uint64()
			}
			points = append(points, scatter.Point{Token: token, Peer: peer})
		}
	}
	ring := scatter.NewRing(points...)
	c.cover = scatter.NewCover(ring, s.replicas)
	c.oracle = newRingOracle(ring, s.replicas)
	return c
}

func somePeers(n int) []scatter.PeerID {
	peers := make([]scatter.PeerID, n)
	for i := range peers {
		peers[i] = scatter.PeerID(fmt.Sprintf("peer%03d", i))
	}
	return peers
}

// latencies draws the latencies of the i-th query. They are the same for all strategies, and
// however many replicas there are.
func (c *cluster) latencies(i int) []time.Duration {
	latencies := make([]time.Duration, c.setting.peers)
	c.model.fill(latencies, rand.New(rand.NewPCG(c.seed, uint64(i)+1)))
	return latencies
}

// ask runs one query of a Searcher in simulated time, from now on, and returns when it has ended.
// It steps the query's Coordinator with each reply when that is due, and advances it to its
// deadlines.
func (c *cluster) ask(s *searcher, now time.Time, latencies []time.Duration) (*scatter.Response[hit], time.Time, error) {
	var pending replies
	q, err := s.Coordinator(request, func(ask scatter.Ask) bool {
		heap.Push(&pending, reply{now.Add(latencies[c.index[ask.Peer]]), ask.Index})
		return true
	}, nil)
	if err != nil {
		return nil, now, err
	}
	q.Begin(now, time.Time{})
	for q.State() != scatter.Merging {
		deadline, armed := q.Deadline()
		switch {
		case len(pending) > 0 && (!armed || !pending[0].at.After(deadline)): // in hand by the deadline, so it counts
			r := heap.Pop(&pending).(reply)
			now = r.at
			q.Reply(now, r.index, nil, nil)
		case armed:
			now = deadline
			q.Advance(now)
		default:
			return nil, now, errors.New("the query waits for nothing and doesn't end")
		}
	}
	return q.Response(), now, q.Err()
}

// reply is one on its way.
type reply struct {
	at    time.Time
	index int // in the ledger
}

// replies are those on their way, as a [heap.Interface]: the next comes first.
type replies []reply

func (r replies) Len() int           { return len(r) }
func (r replies) Less(i, j int) bool { return r[i].at.Before(r[j].at) }
func (r replies) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *replies) Push(x any)        { *r = append(*r, x.(reply)) }
func (r *replies) Pop() any {
	last := len(*r) - 1
	x := (*r)[last]
	*r = (*r)[:last]
	return x
}
