package scatter

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

// loadWindow is the number of choices that the counters of probes remember.
const loadWindow = 256

// loads is what a Searcher knows of the peers of one Cover, and how it chooses among them. It is
// safe for concurrent use. All times are the caller's, and all draws come from the seed.
type loads struct {
	cover  *Cover
	shared *sharedLoads
	peers  []*load   // by number, like all that follows; a peer on two covers has one load
	names  []uint64  // hashes of the peers' names
	held   []float64 // by peer: of each range that it holds, its share among the live holders
	asked  []float64 // decaying counter of probes, in units
	fair   []float64 // the same, had they been shared by what peers hold and cost

	unit     float64 // of asked; it grows, so that older probes count for less
	sumAsked float64 // of all asked
	sumFair  float64 // of all fair

	seed, turn   uint64
	median       float64 // of the known averages, in nanoseconds; 1 if there are none
	medianDue    uint64  // the turn at which the median is taken anew
	all          bitset  // every peer
	live         bitset  // the live peers that held is for
	holdersAlive []int32 // by range: live holders

	medians []float64 // scratch
	sweep   sweep     // scratch, if there are no plans
	weights []float64 // likewise
	plans   *plans    // nil unless the Cover has many ranges
}

// sharedLoads is what loads of successive Covers share.
type sharedLoads struct {
	sync.Mutex
	epoch       time.Time // the first time given; all times are kept as durations since then
	onProbation int       // peers, whether still on the Cover or not
	changes     uint64    // how often a peer came to be on probation or ceased to
}

// newLoads returns the loads of a Cover. It keeps what old, which may be nil, knows of the peers
// that are on both covers.
//
// It takes O(ranges x holders), in which it makes a first plan if there are many ranges. Queries of
// old don't wait for that: the lock is held only to read the latencies of a few peers.
func newLoads(cover *Cover, old *loads, seed uint64) *loads {
	n := len(cover.peers)
	l := &loads{
		cover: cover, shared: new(sharedLoads), seed: seed, median: 1, unit: 1,
		peers: make([]*load, n), names: make([]uint64, n), held: make([]float64, n),
		asked: make([]float64, n), fair: make([]float64, n),
		all: newBitset(n), holdersAlive: make([]int32, len(cover.ends)),
	}
	fresh := make([]load, n)
	for i, peer := range cover.peers {
		l.peers[i], l.names[i] = &fresh[i], hashText(string(peer))
	}
	if old != nil {
		l.shared = old.shared
		l.keep(old)
	}
	l.all.fill(n)
	l.live = l.all.clone()
	l.share()
	if len(cover.ends) > planRanges {
		l.plans = newPlans(cover, l.names, l.shared)
	} else {
		l.sweep.init(cover)
		l.weights = make([]float64, n)
	}
	l.shared.Lock()
	defer l.shared.Unlock()
	l.findMedian()
	return l
}

// keep takes over the records of the peers that old has too. The records are guarded by the shared
// lock. The list of them never changes.
func (l *loads) keep(old *loads) {
	for i, peer := range l.cover.peers {
		if j := old.cover.number(peer); j >= 0 {
			l.peers[i] = old.peers[j]
		}
	}
}

// share sets what each peer holds when all are live, and starts the counters of probes.
func (l *loads) share() {
	n, ranges := len(l.cover.peers), len(l.cover.ends)
	for r := range int32(ranges) {
		holders := l.cover.holdersOf(r)
		l.holdersAlive[r] = int32(len(holders))
		for _, peer := range holders {
			l.held[peer] += 1 / float64(len(holders))
		}
	}
	for i, held := range l.held {
		// All peers begin as if they had been asked alike, but for a little that breaks ties. The
		// sum of held is the number of ranges.
		l.fair[i] = max(held/float64(ranges)*float64(n), 1e-6) * loadWindow / 3
		l.asked[i] = l.fair[i] * (1 + 0.01*fraction(mix(l.seed^l.names[i])))
		l.sumFair += l.fair[i]
		l.sumAsked += l.asked[i]
	}
}

// at returns a time as a duration since the epoch.
func (s *sharedLoads) at(now time.Time) time.Duration {
	if s.epoch.IsZero() {
		s.epoch = now
	}
	return now.Sub(s.epoch)
}

// started records that a probe of a peer starts.
func (l *loads) started(peer int32) {
	l.shared.Lock()
	defer l.shared.Unlock()
	l.peers[peer].start()
	l.asked[peer] += l.unit
	l.sumAsked += l.unit
}

// ended records the end of a probe that took elapsed. A failure counts as a latency of penalty.
func (l *loads) ended(now time.Time, peer int32, how outcome, elapsed, penalty time.Duration) {
	l.shared.Lock()
	defer l.shared.Unlock()
	p := l.peers[peer]
	known, probation := p.average > 0, p.probation
	p.end(l.shared.at(now), how, elapsed, penalty, l.median)
	if !known && p.average > 0 {
		l.medianDue = 0
	}
	switch {
	case p.probation == probation:
		return
	case p.probation:
		l.shared.onProbation++
	default:
		l.shared.onProbation--
	}
	l.shared.changes++
}

// dropTrial records that a trial that was chosen has not started after all.
func (l *loads) dropTrial(peer int32) {
	l.shared.Lock()
	defer l.shared.Unlock()
	if p := l.peers[peer]; !p.tried {
		p.trial = false
	}
}

// typical returns the expected latency of a peer. Rule 35.
func (l *loads) typical(at time.Duration, p *load) float64 { return p.typical(at, l.median) }

// findMedian takes the median of the known averages, of a sample if they are many.
func (l *loads) findMedian() {
	const sample = 64
	step := max(1, len(l.peers)/sample)
	l.medians = l.medians[:0]
	for i := int(l.turn) % step; i < len(l.peers); i += step {
		if average := l.peers[i].average; average > 0 {
			l.medians = append(l.medians, average)
		}
	}
	if len(l.medians) > 0 {
		slices.Sort(l.medians)
		l.median = l.medians[len(l.medians)/2]
	}
	l.medianDue = l.turn + 16
}

// stats returns a peer's counters.
func (l *loads) stats(peer int32) loadStats {
	l.shared.Lock()
	defer l.shared.Unlock()
	p := l.peers[peer]
	stats := p.stats
	stats.inFlight = int(p.inFlight)
	if p.probation {
		stats.probationSince = l.shared.epoch.Add(p.since)
	}
	return stats
}

// mayHedge reports whether a hedge to a peer is of use: the peer is idle, or is expected to answer
// within the time that the query has waited for the late peer already. So hedges give way as the
// load grows. Rule 39.
func (l *loads) mayHedge(now time.Time, peer int32, waited time.Duration) bool {
	l.shared.Lock()
	defer l.shared.Unlock()
	p := l.peers[peer]
	return p.inFlight == 0 || l.typical(l.shared.at(now), p)*float64(1+p.inFlight) <= float64(waited+loadFloor)
}

// setLive brings held up to date with the live peers. It does so for at most as many changed peers
// as most says.
func (l *loads) setLive(live bitset, most int) {
	for word, was := range l.live {
		for changed := was ^ live[word]; changed != 0 && most > 0; changed &= changed - 1 {
			l.flip(int32(word*64 + bits.TrailingZeros64(changed)))
			most--
		}
	}
}

// flip records that a dead peer is live, or that a live one is dead. The queries of a range are
// shared evenly by its live holders. Rule 34.
func (l *loads) flip(peer int32) {
	change := int32(1)
	if l.live.has(peer) {
		change = -1
		l.live.remove(peer)
	} else {
		l.live.add(peer)
	}
	l.held[peer] = 0
	for _, r := range l.cover.rangesOf(peer) {
		was := l.holdersAlive[r]
		now := was + change
		l.holdersAlive[r] = now
		if change > 0 {
			l.held[peer] += 1 / float64(now)
		}
		if was == 0 || now == 0 {
			continue // nobody else is live
		}
		for _, holder := range l.cover.holdersOf(r) {
			if holder != peer && l.live.has(holder) {
				l.held[holder] += 1/float64(now) - 1/float64(was)
			}
		}
	}
}

// age makes what was asked before count for less.
func (l *loads) age() {
	l.unit *= 1 + 1./loadWindow
	if l.unit < 1e9 {
		return
	}
	l.sumAsked, l.sumFair = 0, 0
	for i := range l.asked {
		l.asked[i] /= l.unit
		l.sumAsked += l.asked[i]
		l.fair[i] /= l.unit
		l.sumFair += l.fair[i]
	}
	l.unit = 1
}
