package main

import (
	"container/heap"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/scatterknn/scatter"
)

// hit is what the peers would find, if they found anything: only time and coverage matter here.
type hit = scatter.Hit[uint32]

var request = &scatter.Request{Query: scatter.Text{}, K: 1}

// epoch is when each query begins. Any time will do.
var epoch = time.Date(2013, time.February, 1, 0, 0, 0, 0, time.UTC)

// setting is what a cluster is made of.
type setting struct {
	model                   model
	peers, replicas, tokens int // tokens is for each peer
}

func (s setting) String() string {
	return fmt.Sprintf("%s: %d peers, replicas %d, tokens for each peer %d", s.model.name, s.peers, s.replicas, s.tokens)
}

// cluster is peers on a ring, with what strategies need to know of them.
type cluster struct {
	setting
	peers  []scatter.PeerID
	index  map[scatter.PeerID]int // into peers
	ring   *scatter.Ring
	cover  *scatter.Cover
	plans  [][]scatter.PeerID // used in turn, to spread the load
	oracle *oracle
	seed   uint64
}

const plansMade = 16

func newCluster(s setting, seed uint64) *cluster {
	c := &cluster{setting: s, index: make(map[scatter.PeerID]int), seed: seed}
	r := rand.New(rand.NewPCG(seed, 0))
	var points []scatter.Point
	for i := range s.peers {
		peer := scatter.PeerID(fmt.Sprintf("peer%03d", i))
		c.peers = append(c.peers, peer)
		c.index[peer] = i
		// One token for each peer is what an operator sets, evenly spaced; many are drawn.
		token := uint64(i) * (math.MaxUint64 / uint64(s.peers))
		for range s.tokens {
			if s.tokens > 1 {
				token = r.Uint64()
			}
			points = append(points, scatter.Point{Token: token, Peer: peer})
		}
	}
	c.ring = scatter.NewRing(points...)
	c.cover = scatter.NewCover(c.ring, s.replicas)
	for i := range plansMade {
		c.plans = append(c.plans, c.cover.Plan(nil, seed+uint64(i)))
	}
	c.oracle = newOracle(c.ring, s.replicas)
	return c
}

// latencies draws those of the i-th query. They are the same for all strategies, and however many replicas there are.
func (c *cluster) latencies(i int) []time.Duration {
	latencies := make([]time.Duration, len(c.peers))
	c.model.fill(latencies, rand.New(rand.NewPCG(c.seed, uint64(i)+1)))
	return latencies
}

// ask runs one query in simulated time: it steps the query's Coordinator with each reply when that is due, and has it
// look to its timeouts when those are.
func (c *cluster) ask(
	latencies []time.Duration, peers []scatter.PeerID, opts *scatter.Options,
) (*scatter.Response[hit], error) {
	now := epoch
	var pending replies
	coordinator, err := scatter.NewCoordinator[hit](request, peers, func(ask scatter.Ask) bool {
		heap.Push(&pending, reply{now.Add(latencies[c.index[ask.Peer]]), ask.Index})
		return true
	}, opts)
	if err != nil {
		return nil, err
	}
	m := scatter.NewMachine(coordinator, scatter.Init)
	err = m.Step(now, &scatter.Event[hit]{Kind: scatter.Begin})
	for !m.Stopped() && err == nil {
		deadline, armed := m.Deadline()
		switch {
		case len(pending) > 0 && (!armed || !pending[0].at.After(deadline)): // in hand by the deadline, so it counts
			r := heap.Pop(&pending).(reply)
			now = r.at
			err = m.Step(now, &scatter.Event[hit]{Kind: scatter.Replied, Index: r.index})
		case armed:
			now = deadline
			err = m.Advance(now)
		default:
			err = errors.New("the query waits for nothing and doesn't end")
		}
	}
	return coordinator.Response(), err
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
