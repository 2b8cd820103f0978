package scatter

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ringOracle says what a Ring should, by rules 15 to 17 as they read and with no regard to cost.
type ringOracle []Point

func newRingOracle(points []Point) ringOracle {
	var o ringOracle
	for _, p := range points {
		if !slices.Contains(o, p) {
			o = append(o, p)
		}
	}
	slices.SortFunc(o, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Token, b.Token), cmp.Compare(a.Peer, b.Peer))
	})
	return o
}

func (o ringOracle) walk(token uint64) []Assignment {
	var atOrAfter, before []Assignment
	for slot, p := range o {
		if p.Token >= token {
			atOrAfter = append(atOrAfter, Assignment{Peer: p.Peer, Slot: slot})
		} else {
			before = append(before, Assignment{Peer: p.Peer, Slot: slot})
		}
	}
	var steps []Assignment
	for _, step := range append(atOrAfter, before...) {
		if !slices.ContainsFunc(steps, func(s Assignment) bool { return s.Peer == step.Peer }) {
			steps = append(steps, step)
		}
	}
	return steps
}

func (o ringOracle) preferenceList(token uint64, n int, live Liveness) []Assignment {
	steps := o.walk(token)
	n = max(0, min(n, len(steps)))
	spares := slices.DeleteFunc(slices.Clone(steps[n:]), func(s Assignment) bool { return !live(s.Peer) })
	var list []Assignment
	for _, primary := range steps[:n] {
		if live(primary.Peer) {
			list = append(list, primary)
		} else if len(spares) > 0 {
			list = append(list, Assignment{spares[0].Peer, primary.Slot, Fallback})
			spares = spares[1:]
		}
	}
	return list
}

func (o ringOracle) primaryPeers(live Liveness) []PeerID {
	var peers []PeerID
	for _, step := range o.walk(0) {
		if live(step.Peer) {
			peers = append(peers, step.Peer)
		}
	}
	return peers
}

// wantAsOracle fails t unless a Ring of the points answers as the oracle does.
func wantAsOracle(t testing.TB, points []Point, token uint64, n int, live Liveness) {
	t.Helper()
	given := slices.Clone(points)
	ring, oracle := NewRing(points...), newRingOracle(points)
	require.Equal(t, given, points, "NewRing wrote to its arguments")

	require.Equal(t, len(oracle), ring.Len())
	for slot, p := range oracle {
		require.Equal(t, p, ring.Point(slot))
	}

	var steps []Assignment
	for slot, peer := range ring.Walk(token) {
		steps = append(steps, Assignment{Peer: peer, Slot: slot})
	}
	require.Equal(t, oracle.walk(token), steps, "Walk(%d) of %v", token, points)

	asked := make(map[PeerID]int)
	list := ring.PreferenceList(token, n, func(peer PeerID) bool {
		asked[peer]++
		return live(peer)
	})
	for peer, times := range asked {
		require.Equal(t, 1, times, "times asked whether %s is live", peer)
	}
	want := oracle.preferenceList(token, n, live)
	require.Equal(t, len(want), len(list), "PreferenceList(%d, %d) of %v: %v, want %v", token, n, points, list, want)
	if len(want) > 0 {
		require.Equal(t, want, list, "PreferenceList(%d, %d) of %v", token, n, points)
	}

	peers := ring.PrimaryPeers(live)
	require.True(t, slices.Equal(oracle.primaryPeers(live), peers), "PrimaryPeers of %v: %v", points, peers)
}

// newTestPoint makes one of 32 tokens and 8 peers of b, so that points collide often: half the tokens from 0 up, half
// to MaxUint64.
func newTestPoint(b byte) Point { return Point{newTestToken(b >> 3), PeerID(rune('a' + b&7))} }

func newTestToken(b byte) uint64 {
	b %= 32
	if b < 16 {
		return uint64(b)
	}
	return math.MaxUint64 - uint64(31-b)
}

// newTestLiveness holds those of newTestPoint's peers to be dead whose bit in dead is set.
func newTestLiveness(dead byte) Liveness {
	return func(peer PeerID) bool { return dead>>(peer[0]-'a')&1 == 0 }
}

// Rules 15, 16, 17: on random rings a Ring answers as the oracle does.
func TestRingAnswersAsOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 17))
	for range 5000 {
		mask := byte(rng.Uint32()) // for rings of few peers and few tokens, which random bytes alone seldom give
		points := make([]Point, rng.IntN(40))
		for i := range points {
			points[i] = newTestPoint(byte(rng.Uint32()) & mask)
		}
		wantAsOracle(t, points, newTestToken(byte(rng.Uint32())), rng.IntN(11)-1, newTestLiveness(byte(rng.Uint32())))
	}
}

func FuzzPreferenceList(f *testing.F) {
	f.Add([]byte(nil), byte(0), 3, byte(0))
	f.Add([]byte{0, 9, 18, 27, 36}, byte(0), 3, byte(0b00010))
	f.Add([]byte{0, 9, 18, 27, 36}, byte(4), 3, byte(0b11100))
	f.Add([]byte{0, 1, 2, 0, 1, 2}, byte(0), 2, byte(0b00001))
	f.Add([]byte{0, 248, 249, 255}, byte(31), 1, byte(0xff))
	f.Add([]byte{8, 16, 9}, byte(1), math.MaxInt, byte(1))
	f.Add([]byte{8, 16, 9}, byte(1), math.MinInt, byte(1))
	f.Fuzz(func(t *testing.T, data []byte, at byte, n int, dead byte) {
		points := make([]Point, min(len(data), 256)) // the oracle is cubic, and more points are but more duplicates
		for i := range points {
			points[i] = newTestPoint(data[i])
		}
		wantAsOracle(t, points, newTestToken(at), n, newTestLiveness(dead))
	})
}

// The oracle itself, on a ring that can be checked by eye.
func TestRingOracle(t *testing.T) {
	oracle := newRingOracle([]Point{{30, "c"}, {10, "a"}, {20, "b"}, {20, "a"}, {10, "a"}, {40, "d"}})
	assert.Equal(t, ringOracle{{10, "a"}, {20, "a"}, {20, "b"}, {30, "c"}, {40, "d"}}, oracle)

	assert.Equal(t, []Assignment{{Peer: "a", Slot: 1}, {Peer: "b", Slot: 2}, {Peer: "c", Slot: 3}, {Peer: "d", Slot: 4}},
		oracle.walk(20))
	assert.Equal(t, []Assignment{{Peer: "c", Slot: 3}, {Peer: "d", Slot: 4}, {Peer: "a", Slot: 0}, {Peer: "b", Slot: 2}},
		oracle.walk(21))

	notA := func(peer PeerID) bool { return peer != "a" }
	assert.Equal(t, []Assignment{{"c", 1, Fallback}, {"b", 2, Primary}}, oracle.preferenceList(20, 2, notA))
	assert.Equal(t, []PeerID{"b", "c", "d"}, oracle.primaryPeers(notA))
}
