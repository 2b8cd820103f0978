package main

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/scatterknn/scatter"
)

// A rival is a strategy of the second setting that isn't the library's: it asks one replica of each
// shard, asks another one when the first has failed or takes longer than the 95th percentile of its
// latencies, and pays for both from one budget of 5 %. Rivals differ in the replica that they
// choose.
type rival struct {
	choose func(c *client, shard int, among []int) int
}

const (
	rivalQuantile = 0.95
	rivalShare    = 0.05
	rivalSaved    = 100
	rivalDelay    = 50 * time.Millisecond // until a quantile is known
	rivalGivesUp  = scatter.DefaultPeerDeadline
	rivalWeight   = 0.1 // of one more latency in a moving average
	rivalWindow   = 1000
)

// client is one of several coordinators that ask the same peers by a rival, and what it knows of
// them.
type client struct {
	rival  rival
	world  *world
	peers  []scatter.PeerID
	known  []known
	budget float64
	turn   int
	draws  *rand.Rand
}

// known is what a client knows of a peer.
type known struct {
	out              int
	latency, service float64 // moving averages, in nanoseconds
	present          float64 // moving average of what the peer tells
	window           []time.Duration
	next             int
	fresh            int // latencies since late was worked out
	late             time.Duration
}

func newClient(r rival, w *world, peers []scatter.PeerID, draws *rand.Rand) *client {
	c := &client{rival: r, world: w, peers: peers, known: make([]known, len(peers)), budget: rivalSaved, draws: draws}
	for i := range c.known {
		c.known[i].latency, c.known[i].service = float64(serviceMean), float64(serviceMean)
	}
	return c
}

func (k *known) learn(latency time.Duration) {
	k.latency += rivalWeight * (float64(latency) - k.latency)
	if len(k.window) < rivalWindow {
		k.window = append(k.window, latency)
	} else {
		k.window[k.next] = latency
		k.next = (k.next + 1) % rivalWindow
	}
	if k.fresh++; k.fresh >= 100 {
		k.fresh = 0
		sorted := slices.Sorted(slices.Values(k.window))
		k.late = percentile(sorted, rivalQuantile)
	}
}

func (k *known) hedgeDelay() time.Duration {
	if k.late == 0 {
		return rivalDelay
	}
	return k.late
}

// least returns the candidate with the least cost. Ties are broken by chance.
func (c *client) least(among []int, cost func(*known) float64) int {
	start := c.draws.IntN(len(among))
	best := among[start]
	for i := range among {
		if peer := among[(start+i)%len(among)]; cost(&c.known[peer]) < cost(&c.known[best]) {
			best = peer
		}
	}
	return best
}

var (
	// inTurn asks replicas in turn.
	inTurn = rival{func(c *client, shard int, among []int) int { return among[(c.turn+shard)%len(among)] }}

	// leastInFlight asks the replica with the fewest probes of this client in flight.
	leastInFlight = rival{func(c *client, _ int, among []int) int {
		return c.least(among, func(k *known) float64 { return float64(k.out) })
	}}

	// byC3 ranks replicas as C3 does (Suresh et al., NSDI 2015): by the cube of the queue that is
	// estimated from what peers tell. It leaves out the control of rates.
	byC3 = rival{func(c *client, _ int, among []int) int {
		return c.least(among, func(k *known) float64 {
			queue := 1 + float64(k.out*clients) + k.present
			return k.latency - k.service + queue*queue*queue*k.service
		})
	}}
)

// rivalQuery is one query of a client.
type rivalQuery struct {
	*client
	search *search
	began  time.Time
	lines  []line
	open   [shards]bool
	left   int // shards without an answer
	out    int
	done   *scatter.Response[hit]
}

// line is a peer that was asked.
type line struct {
	peer    int
	status  scatter.Status
	out     bool
	askedAt time.Time
	hedgeAt time.Time // zero: never
	wait    time.Duration
}

func (q *rivalQuery) begin(now time.Time) {
	q.began, q.left = now, shards
	q.turn++
	for shard := range shards {
		q.open[shard] = true
		q.budget = min(q.budget+rivalShare, rivalSaved)
		q.ask(now, q.rival.choose(q.client, shard, q.untried(shard)))
	}
}

// untried returns the peers of a shard that were not asked.
func (q *rivalQuery) untried(shard int) []int {
	var peers []int
	for peer := shard * copies; peer < (shard+1)*copies; peer++ {
		if !slices.ContainsFunc(q.lines, func(l line) bool { return l.peer == peer }) {
			peers = append(peers, peer)
		}
	}
	return peers
}

func (q *rivalQuery) ask(now time.Time, peer int) {
	k := &q.known[peer]
	k.out++
	q.out++
	wait := k.hedgeDelay()
	q.lines = append(q.lines, line{peer: peer, out: true, askedAt: now, hedgeAt: now.Add(wait), wait: wait})
	q.world.ask(q.search, peer, len(q.lines)-1, now.Add(rivalGivesUp))
}

// askAnother asks another peer of a shard, if there is one and the budget allows it.
func (q *rivalQuery) askAnother(now time.Time, shard int) bool {
	among := q.untried(shard)
	if len(among) > 0 && q.budget >= 1 {
		q.budget--
		q.ask(now, q.rival.choose(q.client, shard, among))
		return true
	}
	return false
}

func (q *rivalQuery) reply(now time.Time, index int, told feedback, err error) {
	l := &q.lines[index]
	if !l.out {
		return
	}
	k, shard := &q.known[l.peer], l.peer/copies
	k.present += rivalWeight * (float64(told.present) - k.present)
	k.service += rivalWeight * (float64(told.service) - k.service)
	if err != nil {
		q.conclude(l, scatter.Failed)
		q.askAnother(now, shard)
	} else {
		k.learn(now.Sub(l.askedAt))
		q.conclude(l, scatter.Answered)
		if q.open[shard] {
			q.open[shard] = false
			q.left--
		}
	}
	q.finish(now)
}

func (q *rivalQuery) conclude(l *line, status scatter.Status) {
	l.status, l.out = status, false
	q.known[l.peer].out--
	q.out--
}

func (q *rivalQuery) advance(now time.Time) {
	for i := range q.lines { // those that are added meanwhile have their own turn
		l, shard := &q.lines[i], q.lines[i].peer/copies
		switch {
		case !l.out:
		case !now.Before(l.askedAt.Add(rivalGivesUp)):
			q.known[l.peer].learn(rivalGivesUp)
			q.conclude(l, scatter.TimedOut)
			q.askAnother(now, shard)
		case !l.hedgeAt.IsZero() && !now.Before(l.hedgeAt):
			if !q.open[shard] || len(q.untried(shard)) == 0 {
				l.hedgeAt = time.Time{}
			} else if wait := l.wait; q.askAnother(now, shard) {
				q.lines[i].hedgeAt = time.Time{}
			} else {
				l.hedgeAt = now.Add(max(wait, time.Millisecond))
			}
		}
	}
	q.finish(now)
}

func (q *rivalQuery) deadline() (time.Time, bool) {
	var first time.Time
	for _, l := range q.lines {
		if !l.out {
			continue
		}
		for _, t := range []time.Time{l.hedgeAt, l.askedAt.Add(rivalGivesUp)} {
			if !t.IsZero() && (first.IsZero() || t.Before(first)) {
				first = t
			}
		}
	}
	return first, !first.IsZero()
}

// finish ends the query if all shards have an answer, or nobody is out.
func (q *rivalQuery) finish(now time.Time) {
	if q.done != nil || q.left > 0 && q.out > 0 {
		return
	}
	q.done = &scatter.Response[hit]{
		Elapsed: now.Sub(q.began), Partial: q.left > 0, Coverage: float64(shards-q.left) / shards,
		PeersConsulted: len(q.lines),
	}
	for i := range q.lines {
		l := &q.lines[i]
		if l.out {
			q.conclude(l, scatter.NotNeeded)
			if k, waited := &q.known[l.peer], now.Sub(l.askedAt); float64(waited) > k.latency {
				k.learn(waited) // it would have taken longer still
			}
		}
		q.done.Peers = append(q.done.Peers, scatter.PeerReport{Peer: q.peers[l.peer], Status: l.status})
	}
}

func (q *rivalQuery) response() *scatter.Response[hit] { return q.done }
