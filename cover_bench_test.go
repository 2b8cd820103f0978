package scatter

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// newTestVnodes returns a ring of points with random tokens that go to the peers in turn.
func newTestVnodes(points, peers int, seed uint64) *Ring {
	r := rand.New(rand.NewPCG(seed, 0))
	list := make([]Point, points)
	for i := range list {
		list[i] = Point{r.Uint64(), PeerID(fmt.Sprintf("peer-%04d", i%peers))}
	}
	return NewRing(list...)
}

// newTestHoped returns the set of a Cover's peers that the function names.
func newTestHoped(c *Cover, hoped func(peer int32) bool) bitset {
	set := newBitset(len(c.peers))
	for peer := range int32(len(c.peers)) {
		if hoped(peer) {
			set.add(peer)
		}
	}
	return set
}

func everyPeer(int32) bool { return true }

// Claims: a Cover is cheap enough to be made on the query path of a small cluster, and off it of a
// large one; a join costs little more than its covers.
func BenchmarkCover(b *testing.B) {
	for _, size := range []struct{ points, peers int }{{100, 100}, {6400, 100}, {64000, 1000}, {256000, 1000}} {
		rackA, rackB := newTestVnodes(size.points, size.peers, 29), newTestVnodes(size.points, size.peers, 30)
		a, c := NewCover(rackA, 1), NewCover(rackB, 1)
		ranges := make([]Range, len(a.ends))
		for r := range a.ends {
			last := a.ends[(r+len(a.ends)-1)%len(a.ends)]
			ranges[r] = Range{last + 1, a.ends[r], a.Holders(a.ends[r])}
		}
		token := uint64(0)
		for _, op := range []struct {
			name string
			run  func()
		}{
			{"NewCover/replicas=3", func() { NewCover(rackA, 3) }},
			{"NewRangeCover", func() { NewRangeCover(ranges...) }},
			{"JoinCovers/covers=2", func() { JoinCovers(a, c) }},
			{"Holders", func() { token += 1 << 50; a.Holders(token) }},
		} {
			b.Run(fmt.Sprintf("points=%d/peers=%d/op=%s", size.points, size.peers, op.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					op.run()
				}
			})
		}
	}
}

// Rule 40. Claims: to begin, to take all answers, and to tell what is missing where half of the
// peers gave no answer costs a few milliseconds each at most, and few allocations.
func BenchmarkCoverage(b *testing.B) {
	for _, size := range []struct{ points, peers int }{{100, 100}, {6400, 100}, {256000, 1000}} {
		cover := NewCover(newTestVnodes(size.points, size.peers, 29), 3)
		half, full := newTestHoped(cover, everyPeer), newTestHoped(cover, everyPeer)
		answers := func(c *coverage, share int) *coverage {
			for _, peer := range rand.New(rand.NewPCG(31, 0)).Perm(size.peers)[:size.peers/share] {
				c.answer(int32(peer))
			}
			return c
		}
		unanswered := answers(newCoverage(cover, half), 2)
		blank := newCoverage(cover, full)
		third := newTestHoped(cover, func(peer int32) bool { return peer%3 == 0 })
		for _, op := range []struct {
			name string
			run  func()
		}{
			{"new/hoped=all", func() { newCoverage(cover, full) }},
			{"new/hoped=third", func() { newCoverage(cover, third) }},
			{"clone", func() { blank.clone() }},
			{"clone+answers", func() { answers(blank.clone(), 1) }},
			{"missing/unanswered=half", func() { unanswered.missing() }},
			{"missing/unanswered=all", func() { blank.missing() }},
			{"share", func() { unanswered.share() }},
		} {
			b.Run(fmt.Sprintf("points=%d/peers=%d/op=%s", size.points, size.peers, op.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					op.run()
				}
			})
		}
	}
}

// Claims: a walk costs as much as it must pass, whatever the ring's size; what is made once costs
// O(n log n).
func BenchmarkRing(b *testing.B) {
	for _, size := range []struct{ points, peers int }{{100, 100}, {6400, 100}, {256000, 1000}} {
		ring := newTestVnodes(size.points, size.peers, 29)
		points := make([]Point, ring.Len())
		for slot := range points {
			points[slot] = ring.Point(slot)
		}
		dead := func(peer PeerID) bool { return peer != ring.peers[1] }
		token := uint64(0)
		for _, op := range []struct {
			name string
			run  func()
		}{
			{"NewRing", func() { NewRing(points...) }},
			{"NewHashRing", func() { NewHashRing(ring.peers, size.points/size.peers) }},
			{"PreferenceList/n=3", func() { token += 1 << 50; ring.PreferenceList(token, 3, dead) }},
			{"Peers", func() { ring.Peers() }},
			{"PrimaryPeers", func() { ring.PrimaryPeers(dead) }},
			{"Share", func() { ring.Share(ring.peers[0]) }},
		} {
			b.Run(fmt.Sprintf("points=%d/peers=%d/op=%s", size.points, size.peers, op.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					op.run()
				}
			})
		}
	}
}
