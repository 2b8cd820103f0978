package scatter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var chooseEpoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// coverOf returns the Cover of equal ranges with these holders.
func coverOf(peers int, holders ...[]int32) *Cover {
	names := make([]PeerID, peers)
	for i := range names {
		names[i] = PeerID(fmt.Sprintf("p%04d", i))
	}
	ends, first := make([]uint64, len(holders)), []int32{0}
	var all []int32
	for r, of := range holders {
		ends[r] = math.MaxUint64 / uint64(len(holders)) * uint64(r+1)
		all = append(all, of...)
		first = append(first, int32(len(all)))
	}
	return newTestCover(names, ends, first, all)
}

// groupCover returns the Cover of shards that are held by replicas of their own each.
func groupCover(shards, replicas int) *Cover {
	holders := make([][]int32, shards)
	for shard := range holders {
		for i := range replicas {
			holders[shard] = append(holders[shard], int32(shard*replicas+i))
		}
	}
	return coverOf(shards*replicas, holders...)
}

// oneTokenCover returns the Cover of a ring of evenly spaced points, one for each peer.
func oneTokenCover(peers, replicas int) *Cover {
	holders := make([][]int32, peers)
	for r := range holders {
		for i := range replicas {
			holders[r] = append(holders[r], int32((r+i)%peers))
		}
	}
	return coverOf(peers, holders...)
}

// randomRingCover returns the Cover of a ring of random points.
func randomRingCover(peers, points, replicas int, seed uint64) *Cover {
	r := rand.New(rand.NewPCG(seed, 1))
	list := make([]Point, 0, peers*points)
	for i := range peers * points {
		list = append(list, Point{r.Uint64(), PeerID(fmt.Sprintf("p%05d", i%peers))})
	}
	return NewCover(NewRing(list...), replicas)
}

// rackCover returns the Cover of racks that each hold everything once, with points of their own.
func rackCover(racks, peers, points int, seed uint64) *Cover {
	r := rand.New(rand.NewPCG(seed, 2))
	type owned struct {
		token uint64
		peer  int32
	}
	rings := make([][]owned, racks)
	var ends []uint64
	for rack := range rings {
		for i := range peers * points {
			o := owned{r.Uint64(), int32(rack*peers + i%peers)}
			rings[rack] = append(rings[rack], o)
			ends = append(ends, o.token)
		}
		slices.SortFunc(rings[rack], func(a, b owned) int {
			if a.token < b.token {
				return -1
			}
			return 1
		})
	}
	slices.Sort(ends)
	first, holders := []int32{0}, []int32(nil)
	for _, end := range ends {
		for _, ring := range rings {
			i := slices.IndexFunc(ring, func(o owned) bool { return o.token >= end })
			holders = append(holders, ring[max(i, 0)].peer)
		}
		first = append(first, int32(len(holders)))
	}
	names := make([]PeerID, racks*peers)
	for i := range names {
		names[i] = PeerID(fmt.Sprintf("p%04d", i))
	}
	return newTestCover(names, ends, first, holders)
}

// askAll makes a query of a choice: all its probes answer after 5 ms.
func askAll(l *loads, now time.Time, c choice) {
	for _, peer := range c.peers {
		l.started(peer)
	}
	for _, peer := range c.peers {
		l.ended(now, peer, outcomeAnswered, 5*time.Millisecond, time.Second)
	}
}

// Rules 35, 36: on random topologies what is chosen holds all that live peers hold, and nobody of
// it can be left out. A peer on probation is asked only for what no healthy one holds.
func TestChoiceCoversWhatLivePeersHold(t *testing.T) {
	r := rand.New(rand.NewPCG(35, 36))
	for round := range 3000 {
		peers, ranges := 1+r.IntN(12), 1+r.IntN(40)
		if round%100 == 0 {
			ranges += planRanges // planned ahead
		}
		holders := make([][]int32, ranges)
		for i := range holders {
			for _, peer := range r.Perm(peers)[:r.IntN(min(peers, 4)+1)] {
				holders[i] = append(holders[i], int32(peer))
			}
		}
		l := newLoads(coverOf(peers, holders...), nil, uint64(round))
		live, well := newBitset(peers), newBitset(peers)
		dying, ailing := r.IntN(3), r.IntN(3)
		for peer := range int32(peers) {
			well.add(peer)
			if dying == 0 || r.IntN(4) > 0 {
				live.add(peer)
			}
			if ailing == 0 && r.IntN(4) == 0 {
				well.remove(peer)
				failTimes(l, chooseEpoch, peer, 3)
			}
		}
		var o chooseOptions
		if r.IntN(3) == 0 {
			o.affinity = fmt.Sprint(r.IntN(100))
		}
		for i := range 5 {
			if i == 3 { // a peer comes or goes
				live[0] ^= 1 << r.IntN(peers)
			}
			c := l.choose(chooseEpoch, live, o)
			wantChoice(t, l.cover, c, live, well, ranges < planRanges)
			askAll(l, chooseEpoch, choice{peers: slices.DeleteFunc(c.peers, func(p int32) bool { return !well.has(p) })})
		}
	}
}

// wantChoice fails t unless a choice is right. In a plan made ahead, some peers may be redundant.
func wantChoice(t *testing.T, cover *Cover, c choice, live, well bitset, needed bool) {
	t.Helper()
	require.True(t, slices.IsSorted(c.peers))
	require.Empty(t, c.trials)
	chosen := newBitset(len(cover.peers))
	for _, peer := range c.peers {
		require.True(t, live.has(peer), "peer %d is dead", peer)
		require.False(t, chosen.has(peer), "peer %d is chosen twice", peer)
		chosen.add(peer)
	}
	both := func(a, b bitset) bitset {
		c := slices.Clone(a)
		for i := range c {
			c[i] &= b[i]
		}
		return c
	}
	for r := range int32(len(cover.ends)) {
		holders := cover.holdersOf(r)
		require.Equal(t, live.hasAny(holders), chosen.hasAny(holders), "range %d", r)
		require.Equal(t, both(live, well).hasAny(holders), both(chosen, well).hasAny(holders), "healthy, range %d", r)
	}
	require.Equal(t, newCoverage(cover, slices.Clone(chosen)), c.coverage)
	if !needed {
		return
	}
	for _, peer := range c.peers {
		needs := func(r int32) bool {
			for _, other := range cover.holdersOf(r) {
				if other != peer && chosen.has(other) && (well.has(other) || !well.has(peer)) {
					return false
				}
			}
			return true
		}
		require.True(t, slices.ContainsFunc(cover.rangesOf(peer), needs), "peer %d of %v is redundant", peer, c.peers)
	}
}

// askedOf returns how often each peer is asked in n queries.
func askedOf(l *loads, n int, live bitset, o func(int) chooseOptions) (asked []float64, total float64) {
	asked = make([]float64, len(l.peers))
	for i := range n {
		now := chooseEpoch.Add(time.Duration(i) * time.Millisecond)
		c := l.choose(now, live, o(i))
		askAll(l, now, c)
		for _, peer := range c.peers {
			asked[peer]++
			total++
		}
	}
	return asked, total
}

func noOptions(int) chooseOptions { return chooseOptions{} }

// Rule 34: where costs are equal, peers are asked in proportion to the ranges that they hold. Rule
// 35: at most 1.2 times as many peers are asked as by the shortest plan.
func TestLoadIsEvenAndPlansAreShort(t *testing.T) {
	for _, tc := range []struct {
		name      string
		cover     *Cover
		low, high float64
		shortest  int // if 0, the best of many tries
	}{
		{"ring of 6 x 1", oneTokenCover(6, 3), 0.8, 1.25, 2},
		{"ring of 10 x 1", oneTokenCover(10, 3), 0.8, 1.25, 4},
		{"ring of 30 x 1", oneTokenCover(30, 3), 0.8, 1.25, 10},
		{"ring of 31 x 1", oneTokenCover(31, 3), 0.8, 1.25, 11},
		{"ring of 300 x 1", oneTokenCover(300, 3), 0.8, 1.25, 100},
		{"random ring of 30 x 1", randomRingCover(30, 1, 3, 1), 0.8, 1.25, 10},
		{"random ring of 30 x 4", randomRingCover(30, 4, 3, 1), 0.7, 1.4, 0},
		{"random ring of 12 x 32", randomRingCover(12, 32, 3, 1), 0.8, 1.25, 0},
		{"random ring of 12 x 32 again", randomRingCover(12, 32, 3, 2), 0.8, 1.25, 0},
		{"random ring of 30 x 16", randomRingCover(30, 16, 3, 1), 0.8, 1.25, 0},
		{"random ring of 30 x 100, planned ahead", randomRingCover(30, 100, 3, 1), 0.8, 1.25, 0},
		{"groups of 10 x 3", groupCover(10, 3), 0.8, 1.25, 10},
		{"groups of 4 x 2", groupCover(4, 2), 0.8, 1.25, 4},
		{"3 racks of 10 x 1", evenRacks(3, 10), 0.8, 1.25, 10},
		{"2 racks of 4 x 1", evenRacks(2, 4), 0.8, 1.25, 4},
		{"2 racks of 10 x 32", rackCover(2, 10, 32, 1), 0.7, 1.4, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const queries = 3000
			for _, seed := range []uint64{1, 2} {
				l := newLoads(tc.cover, nil, seed)
				asked, total := askedOf(l, queries, nil, noOptions)
				for peer, n := range asked {
					held := float64(len(tc.cover.rangesOf(int32(peer)))) / float64(len(tc.cover.holders))
					assert.Greater(t, n/total, tc.low*held, "peer %d", peer)
					assert.Less(t, n/total, tc.high*held, "peer %d", peer)
				}
				shortest := tc.shortest
				if shortest == 0 {
					shortest = shortestOracle(tc.cover)
				}
				assert.LessOrEqual(t, total/queries, 1.2*float64(shortest), "peers asked; shortest %d", shortest)
			}
		})
	}
}

// evenRacks returns the Cover of racks of one evenly spaced point for each peer, a little apart.
func evenRacks(racks, peers int) *Cover {
	holders := make([][]int32, racks*peers)
	for r := range holders {
		for rack := range racks { // the ranges of rack i end i ranges later
			holders[r] = append(holders[r], int32(rack*peers+(r-rack+racks*peers-1)/racks%peers))
		}
	}
	return coverOf(racks*peers, holders...)
}

// shortestOracle returns the length of the shortest of many random plans.
func shortestOracle(cover *Cover) int {
	var s sweep
	s.init(cover)
	r, weights, best := rand.New(rand.NewPCG(1, 1)), make([]float64, len(cover.peers)), len(cover.peers)
	for range 500 {
		for i := range weights {
			weights[i] = 1 + r.Float64()/2
		}
		s.begin()
		s.fill(weights, r.IntN(len(cover.ends)))
		s.prune(weights)
		best = min(best, len(s.order))
	}
	return best
}

// Rule 34: a dead peer's load is taken by all who hold its ranges.
func TestDeadPeersLoadIsShared(t *testing.T) {
	for seed := range uint64(3) {
		cover := randomRingCover(12, 16, 3, seed)
		l := newLoads(cover, nil, seed)
		live := slices.Clone(l.all)
		live.remove(3)
		asked, _ := askedOf(l, 3000, live, noOptions)
		assert.Zero(t, asked[3])
		sum := 0.0
		for _, n := range asked {
			sum += n
		}
		for peer, n := range asked {
			assert.LessOrEqual(t, n, 1.3*sum/11, "peer %d, seed %d", peer, seed)
		}
	}
}

// Equal texts ask the same healthy peers, whatever they cost. Many texts ask all alike. Where a
// peer goes, others keep their place.
func TestAffinity(t *testing.T) {
	text := func(i int) chooseOptions { return chooseOptions{affinity: fmt.Sprint("query ", i)} }
	for name, cover := range map[string]*Cover{
		"groups": groupCover(10, 3), "ring": oneTokenCover(30, 3), "12x32": randomRingCover(12, 32, 3, 1),
	} {
		l := newLoads(cover, nil, 1)
		asked, total := askedOf(l, 3000, nil, text)
		for peer, n := range asked {
			held := float64(len(cover.rangesOf(int32(peer)))) / float64(len(cover.holders))
			assert.InDelta(t, 1, n/total/held, 0.3, "%s, peer %d", name, peer)
		}
		l.ended(chooseEpoch, 5, outcomeFailed, 0, time.Minute) // dear
		other := newLoads(cover, nil, 2)
		live := slices.Clone(l.all)
		live.remove(7)
		for i := range 100 {
			first := l.choose(chooseEpoch, nil, text(i)).peers
			assert.Equal(t, first, l.choose(chooseEpoch, nil, text(i)).peers)
			assert.Equal(t, first, other.choose(chooseEpoch, nil, text(i)).peers)
			without := other.choose(chooseEpoch, live, text(i)).peers
			if !slices.Contains(first, 7) {
				assert.Equal(t, first, without)
			}
			if name == "groups" {
				assert.LessOrEqual(t, moved(first, without), 2)
			}
		}
	}
}

// moved returns how many peers are in one list and not in both.
func moved(a, b []int32) (n int) {
	for _, p := range a {
		if !slices.Contains(b, p) {
			n++
		}
	}
	return n + len(b) - (len(a) - n)
}

// Rule 35: of replicas the cheap one is asked: that which answers sooner, has less in flight, or
// is in the caller's zone.
func TestTheCheaperReplicaIsAsked(t *testing.T) {
	zone := func(peer PeerID) float64 {
		if peer == "p0002" {
			return 1
		}
		return 10
	}
	for want, prepare := range map[int32]func(*loads) chooseOptions{
		0: func(l *loads) chooseOptions {
			l.peers[1].average, l.peers[2].average = 20e6, 20e6
			return chooseOptions{}
		},
		1: func(l *loads) chooseOptions {
			for _, peer := range []int32{0, 0, 2, 2} {
				l.started(peer)
			}
			return chooseOptions{}
		},
		2: func(*loads) chooseOptions { return chooseOptions{cost: zone} },
	} {
		l := newLoads(groupCover(1, 3), nil, 1)
		askAll(l, chooseEpoch, choice{peers: []int32{0, 1, 2}})
		o := prepare(l)
		assert.Equal(t, []int32{want}, l.choose(chooseEpoch, nil, o).peers)
		weight := func(peer int32) float64 { return l.weight(chooseEpoch, peer, o) }
		assert.Equal(t, []int32{want}, standIns(l.cover, []int32{0}, l.all, weight, 0))
	}
	l := newLoads(groupCover(4, 3), nil, 1)
	asked, total := askedOf(l, 3000, nil, func(int) chooseOptions { return chooseOptions{cost: zone} })
	assert.Greater(t, asked[2], 0.9*total/4, "even loads don't matter more than the zone")
}

// Rules 35, 39: stand-ins are few, and ties go round.
func TestStandIns(t *testing.T) {
	equal := func(int32) float64 { return 1 }
	cover := coverOf(5, []int32{0, 1}, []int32{0, 2}, []int32{0, 1, 3}, []int32{0}, nil)
	ready := bitset{0b11110}
	open := []int32{0, 1, 2, 3, 4}
	assert.Equal(t, []int32{1, 2}, standIns(cover, open, ready, equal, 0))
	assert.Equal(t, []int32{0, 1, 2, 3, 4}, open)
	assert.Equal(t, []int32{0}, standIns(cover, open, bitset{0b11111}, equal, 0))
	dear := func(peer int32) float64 { return map[int32]float64{1: 0.1, 2: 1, 3: 1}[peer] }
	assert.Equal(t, []int32{2, 3, 1}, standIns(cover, open, ready, dear, 0))
	assert.Empty(t, standIns(cover, nil, ready, equal, 0))

	group := groupCover(1, 4)
	asked := map[int32]int{}
	for turn := range uint64(300) {
		list := standIns(group, []int32{0}, bitset{0b1101}, equal, turn)
		require.Len(t, list, 1)
		asked[list[0]]++
	}
	assert.Equal(t, map[int32]int{0: 100, 2: 100, 3: 100}, asked)
}

// Rule 34: loads are even where costs are equal but for noise: probes of some 10 us, and a pause of
// 10 ms once in a thousand.
func TestLoadIsEvenWithPauses(t *testing.T) {
	for name, cover := range map[string]*Cover{
		"groups": groupCover(10, 3), "ring": oneTokenCover(30, 3), "12x32": randomRingCover(12, 32, 3, 1),
	} {
		l, r := newLoads(cover, nil, 1), rand.New(rand.NewPCG(34, 1))
		asked, total := make([]float64, len(l.peers)), 0.0
		for i := range 5000 {
			now := chooseEpoch.Add(time.Duration(i) * 30 * time.Microsecond)
			for _, peer := range l.choose(now, nil, chooseOptions{}).peers {
				latency := time.Duration(10e3 * math.Exp(r.NormFloat64()))
				if r.IntN(1000) == 0 {
					latency = 10 * time.Millisecond
				}
				l.started(peer)
				l.ended(now, peer, outcomeAnswered, latency, time.Second)
				asked[peer]++
				total++
			}
		}
		for peer, n := range asked {
			held := float64(len(cover.rangesOf(int32(peer)))) / float64(len(cover.holders))
			assert.InDelta(t, 1, n/total/held, 0.2, "%s, peer %d", name, peer)
		}
	}
}

// newTestCover returns a Cover of ranges by their ends and the numbers of their holders.
func newTestCover(names []PeerID, ends []uint64, first, holders []int32) *Cover {
	b := newCoverBuilder(len(ends), len(holders))
	for _, name := range names {
		b.number(name)
	}
	for r, end := range ends {
		b.hold(holders[first[r]:first[r+1]]...)
		b.end(end)
	}
	return b.cover()
}
