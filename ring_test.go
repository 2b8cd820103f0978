package scatter

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newTestRing returns a ring of the peers a, b, c and so on, with one token each: 100, 200, 300 and
// so on.
func newTestRing(peers int) *Ring {
	points := make([]Point, peers)
	for i := range points {
		points[i] = Point{uint64(100 * (i + 1)), PeerID(rune('a' + i))}
	}
	return NewRing(points...)
}

func down(dead ...PeerID) Liveness {
	return func(peer PeerID) bool { return !slices.Contains(dead, peer) }
}

func walked(r *Ring, token uint64) (slots []int, peers []PeerID) {
	for slot, peer := range r.Walk(token) {
		slots, peers = append(slots, slot), append(peers, peer)
	}
	return slots, peers
}

// Rule 15: points are sorted by token, then by peer; slots count in that order.
func TestNewRingSortsByTokenThenPeer(t *testing.T) {
	points := []Point{{30, "a"}, {math.MaxUint64, "a"}, {20, "b"}, {0, "c"}, {20, "a"}, {20, "c"}}
	r := NewRing(points...)

	sorted := []Point{{0, "c"}, {20, "a"}, {20, "b"}, {20, "c"}, {30, "a"}, {math.MaxUint64, "a"}}
	require.Equal(t, len(sorted), r.Len())
	for slot, want := range sorted {
		assert.Equal(t, want, r.Point(slot), "Point(%d)", slot)
	}
}

func TestNewRingFoldsEqualPoints(t *testing.T) {
	r := NewRing(Point{20, "b"}, Point{10, "a"}, Point{20, "b"}, Point{20, "a"}, Point{10, "a"})
	require.Equal(t, 3, r.Len())
	assert.Equal(t, Point{10, "a"}, r.Point(0))
	assert.Equal(t, Point{20, "a"}, r.Point(1))
	assert.Equal(t, Point{20, "b"}, r.Point(2))
}

func TestNewRingCopiesItsArguments(t *testing.T) {
	points := []Point{{20, "b"}, {10, "a"}}
	r := NewRing(points...)
	assert.Equal(t, []Point{{20, "b"}, {10, "a"}}, points, "NewRing left them in order")
	points[0], points[1] = Point{1, "x"}, Point{2, "y"}
	assert.Equal(t, []PeerID{"a", "b"}, r.PrimaryPeers(nil))
}

func TestRingPointPanicsOutOfRange(t *testing.T) {
	r := newTestRing(2)
	assert.Panics(t, func() { r.Point(-1) })
	assert.Panics(t, func() { r.Point(2) })
	assert.Panics(t, func() { new(Ring).Point(0) })
	assert.Panics(t, func() { (*Ring)(nil).Point(0) })
}

func TestRingWithoutPoints(t *testing.T) {
	for name, r := range map[string]*Ring{"nil": nil, "zero": {}, "made of none": NewRing()} {
		t.Run(name, func(t *testing.T) {
			assert.Zero(t, r.Len())
			slots, _ := walked(r, 7)
			assert.Empty(t, slots)
			assert.Empty(t, r.PreferenceList(7, 3, nil))
			assert.Empty(t, r.PrimaryPeers(nil))
			assert.Empty(t, r.Peers())
			assert.Zero(t, r.Share("a"))
		})
	}
}

// Rule 15: a token belongs to the first point at or after it, and past the last point to the first.
func TestRingTokenBelongsToFirstPointAtOrAfter(t *testing.T) {
	r := NewRing(Point{10, "a"}, Point{20, "b"}, Point{20, "c"}, Point{30, "d"})
	full := NewRing(Point{0, "low"}, Point{5, "mid"}, Point{math.MaxUint64, "high"})
	tests := []struct {
		name  string
		ring  *Ring
		token uint64
		slot  int
		owner PeerID
	}{
		{"before the first point", r, 0, 0, "a"},
		{"at a point", r, 10, 0, "a"},
		{"just after a point", r, 11, 1, "b"},
		{"at two points", r, 20, 1, "b"},
		{"at the last point", r, 30, 3, "d"},
		{"past the last point", r, 31, 0, "a"},
		{"the largest token past the last point", r, math.MaxUint64, 0, "a"},
		{"0 with a point there", full, 0, 0, "low"},
		{"the largest with a point there", full, math.MaxUint64, 2, "high"},
		{"the largest but one", full, math.MaxUint64 - 1, 2, "high"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slots, peers := walked(tt.ring, tt.token)
			require.NotEmpty(t, slots)
			assert.Equal(t, tt.slot, slots[0])
			assert.Equal(t, tt.owner, peers[0])
		})
	}
}

// Rule 15: the walk visits each distinct peer once, at its first slot.
func TestRingWalkVisitsEachPeerOnceAtItsFirstSlot(t *testing.T) {
	r := NewRing(Point{10, "a"}, Point{20, "a"}, Point{30, "b"}, Point{40, "a"}, Point{50, "c"}, Point{60, "b"})

	slots, peers := walked(r, 0)
	assert.Equal(t, []PeerID{"a", "b", "c"}, peers)
	assert.Equal(t, []int{0, 2, 4}, slots)

	slots, peers = walked(r, 35)
	assert.Equal(t, []PeerID{"a", "c", "b"}, peers)
	assert.Equal(t, []int{3, 4, 5}, slots)

	slots, peers = walked(r, 55)
	assert.Equal(t, []PeerID{"b", "a", "c"}, peers)
	assert.Equal(t, []int{5, 0, 4}, slots)
}

func TestRingWalkMayBeLeftAndUsedAgain(t *testing.T) {
	walk := newTestRing(3).Walk(150)
	for range 2 {
		for slot, peer := range walk {
			assert.Equal(t, 1, slot)
			assert.Equal(t, PeerID("b"), peer)
			break
		}
	}
	var peers []PeerID
	for _, peer := range walk {
		peers = append(peers, peer)
	}
	assert.Equal(t, []PeerID{"b", "c", "a"}, peers)
}

// Rule 16: primaries in walk order, fallbacks from further along in the slots of the dead, and no
// slot for which there is nobody.
func TestRingPreferenceList(t *testing.T) {
	vnodes := NewRing(Point{100, "a"}, Point{200, "b"}, Point{300, "a"}, Point{400, "c"}, Point{500, "d"})
	tests := []struct {
		name  string
		ring  *Ring
		token uint64
		n     int
		live  Liveness
		want  []Assignment
	}{
		{"all live", newTestRing(5), 50, 3, down(), []Assignment{{"a", 0, Primary}, {"b", 1, Primary}, {"c", 2, Primary}}},
		{"nil Liveness", newTestRing(5), 50, 2, nil, []Assignment{{"a", 0, Primary}, {"b", 1, Primary}}},
		{"round the end", newTestRing(4), 301, 3, nil, []Assignment{{"d", 3, Primary}, {"a", 0, Primary}, {"b", 1, Primary}}},
		{
			"a fallback keeps the slot it stands in for", newTestRing(5), 50, 3, down("b"),
			[]Assignment{{"a", 0, Primary}, {"d", 1, Fallback}, {"c", 2, Primary}},
		},
		{
			"the owner itself dead", newTestRing(4), 50, 3, down("a"),
			[]Assignment{{"d", 0, Fallback}, {"b", 1, Primary}, {"c", 2, Primary}},
		},
		{
			"dead primaries are served in walk order", newTestRing(6), 50, 3, down("a", "c"),
			[]Assignment{{"d", 0, Fallback}, {"b", 1, Primary}, {"e", 2, Fallback}},
		},
		{
			"all primaries dead", newTestRing(6), 50, 3, down("a", "b", "c"),
			[]Assignment{{"d", 0, Fallback}, {"e", 1, Fallback}, {"f", 2, Fallback}},
		},
		{
			"a dead fallback is passed over", newTestRing(5), 50, 3, down("b", "d"),
			[]Assignment{{"a", 0, Primary}, {"e", 1, Fallback}, {"c", 2, Primary}},
		},
		{
			"a fallback from before the owner", newTestRing(5), 350, 2, down("e"),
			[]Assignment{{"d", 3, Primary}, {"a", 4, Fallback}},
		},
		{"no live peer left", newTestRing(3), 50, 3, down("a", "b"), []Assignment{{"c", 2, Primary}}},
		{
			"live peers for some of the dead only", newTestRing(5), 50, 4, down("a", "c", "d"),
			[]Assignment{{"e", 0, Fallback}, {"b", 1, Primary}},
		},
		{"more asked for than there are", newTestRing(2), 50, 5, nil, []Assignment{{"a", 0, Primary}, {"b", 1, Primary}}},
		{
			"a second point of a primary is no fallback", vnodes, 50, 3, down("b"),
			[]Assignment{{"a", 0, Primary}, {"d", 1, Fallback}, {"c", 3, Primary}},
		},
		{
			"a second point of a primary gives it no second slot", vnodes, 250, 4, nil,
			[]Assignment{{"a", 2, Primary}, {"c", 3, Primary}, {"d", 4, Primary}, {"b", 1, Primary}},
		},
		{"nobody live", newTestRing(3), 50, 3, down("a", "b", "c"), []Assignment{}},
		{"huge n", newTestRing(3), 50, math.MaxInt, down("a"), []Assignment{{"b", 1, Primary}, {"c", 2, Primary}}},
		{"n of 0", newTestRing(3), 50, 0, nil, nil},
		{"negative n", newTestRing(3), 50, math.MinInt, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, tt.ring.PreferenceList(tt.token, tt.n, tt.live))
		})
	}
}

func TestRingPreferenceListHugeNTakesNoSpace(t *testing.T) {
	list := newTestRing(3).PreferenceList(50, math.MaxInt, nil)
	assert.Len(t, list, 3)
	assert.Equal(t, 3, cap(list))
}

func TestRingPreferenceListIsTheCallers(t *testing.T) {
	r := newTestRing(3)
	list := r.PreferenceList(0, 2, nil)
	list[0].Peer = "x"
	assert.Equal(t, []Assignment{{"a", 0, Primary}, {"b", 1, Primary}}, r.PreferenceList(0, 2, nil))
}

// Rule 17: the live peers, each once, in walk order from token 0.
func TestRingPrimaryPeers(t *testing.T) {
	r := NewRing(Point{50, "b"}, Point{10, "c"}, Point{20, "a"}, Point{30, "c"}, Point{40, "d"})
	assert.Equal(t, []PeerID{"c", "a", "d", "b"}, r.PrimaryPeers(nil))
	assert.Equal(t, []PeerID{"c", "a", "b"}, r.PrimaryPeers(down("d")))
	assert.Empty(t, r.PrimaryPeers(down("a", "b", "c", "d")))

	peers := r.PrimaryPeers(nil)
	peers[0] = "x"
	assert.Equal(t, []PeerID{"c", "a", "d", "b"}, r.PrimaryPeers(nil), "the slice is the caller's")
}

// All peers, dead or not: what a Broadcast is to be given.
func TestRingPeers(t *testing.T) {
	r := NewRing(Point{50, "b"}, Point{10, "c"}, Point{20, "a"}, Point{30, "c"}, Point{40, "d"})
	peers := r.Peers()
	assert.Equal(t, []PeerID{"c", "a", "d", "b"}, peers)
	peers[0] = "x"
	assert.Equal(t, []PeerID{"c", "a", "d", "b"}, r.Peers(), "the slice is the caller's")
}

// Rules 15, 23: a peer owns the tokens that belong to its points, counted exactly.
func TestRingShare(t *testing.T) {
	all, most := 1.0, math.Nextafter(1, 0)
	tests := []struct {
		name   string
		points []Point
		want   map[PeerID]float64
	}{
		{"one peer", []Point{{7, "a"}, {9, "a"}, {1 << 63, "a"}}, map[PeerID]float64{"a": all, "b": 0}},
		{"one point", []Point{{0, "a"}}, map[PeerID]float64{"a": all}},
		{"one token", []Point{{7, "a"}, {7, "b"}}, map[PeerID]float64{"a": all, "b": 0}},
		{"halves", []Point{{0, "a"}, {1 << 63, "b"}}, map[PeerID]float64{"a": 0.5, "b": 0.5}},
		{"all but one", []Point{{7, "a"}, {8, "b"}}, map[PeerID]float64{"a": most, "b": 1.0 / (1 << 64)}},
		{"slots of 2 bits", []Point{{0, "a"}, {1 << 62, "b"}, {2 << 62, "a"}, {3 << 62, "c"}},
			map[PeerID]float64{"a": 0.5, "b": 0.25, "c": 0.25}},
		{"a shared token", []Point{{0, "a"}, {0, "b"}, {1 << 63, "a"}, {1 << 63, "b"}}, map[PeerID]float64{"a": all, "b": 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for peer, want := range tt.want {
				assert.Equal(t, want, NewRing(tt.points...).Share(peer), "share of %s", peer)
			}
		})
	}
}

// The tokens of NewHashRing are those that its comment defines.
func TestHashToken(t *testing.T) {
	assert.Equal(t, uint64(0xe3b0c44298fc1c14), HashToken(""), "SHA-256 begins e3b0c442 98fc1c14")
	assert.Equal(t, uint64(0xba7816bf8f01cfea), HashToken("abc"), "SHA-256 begins ba7816bf 8f01cfea")
}

func TestNewHashRing(t *testing.T) {
	r := NewHashRing([]PeerID{"db-7", "db-8", "db-7"}, 2)
	want := NewRing(
		Point{HashToken("db-7#0"), "db-7"}, Point{HashToken("db-7#1"), "db-7"},
		Point{HashToken("db-8#0"), "db-8"}, Point{HashToken("db-8#1"), "db-8"},
	)
	assert.Equal(t, want, r)
	for _, tokens := range []int{1, 0, -1, math.MinInt} {
		assert.Equal(t, 2, NewHashRing([]PeerID{"db-7", "db-8", "db-8"}, tokens).Len(), "%d tokens", tokens)
	}
	assert.Zero(t, NewHashRing(nil, 3).Len())
}

// The shares are as even as the comment of NewHashRing says, and little moves when a peer is added.
func TestNewHashRingIsEven(t *testing.T) {
	var peers []PeerID
	for i := range 101 {
		peers = append(peers, PeerID(fmt.Sprintf("db-%d", i)))
	}
	squares := 0.0
	ring := NewHashRing(peers[:100], 256)
	for _, peer := range peers[:100] {
		squares += (100*ring.Share(peer) - 1) * (100*ring.Share(peer) - 1) / 100
	}
	assert.InDelta(t, 0.06, math.Sqrt(squares), 0.01)

	before, after := NewHashRing(peers[:10], 256), NewHashRing(peers[:11], 256)
	moved := 0
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		token := rng.Uint64()
		_, a := walked(before, token)
		_, b := walked(after, token)
		if a[0] != b[0] {
			moved++
			assert.Equal(t, peers[10], b[0], "what moves goes to the new peer")
		}
	}
	assert.InDelta(t, 1000/11, moved, 40)
}

// Rules 16, 17: liveness is asked of each peer at most once, and of none that the answer doesn't
// depend on.
func TestRingAsksLivenessAtMostOnce(t *testing.T) {
	var asked []PeerID
	live := func(peer PeerID) bool {
		asked = append(asked, peer)
		return peer != "b"
	}
	r := newTestRing(6)

	r.PreferenceList(50, 1, live)
	assert.Equal(t, []PeerID{"a"}, asked)

	asked = nil
	r.PreferenceList(50, 3, live)
	assert.Equal(t, []PeerID{"a", "b", "c", "d"}, asked)

	asked = nil
	r.PrimaryPeers(live)
	assert.Equal(t, []PeerID{"a", "b", "c", "d", "e", "f"}, asked)
}

// Rules 16, 17: on a large ring an answer's cost follows the peers that it concerns; what a call
// asks and allocates stands for the cost here.
func TestRingOfManyPoints(t *testing.T) {
	const peers, vnodes = 2000, 64
	rng := rand.New(rand.NewPCG(16, 17))
	points := make([]Point, peers*vnodes)
	for i := range points {
		points[i] = Point{rng.Uint64(), PeerID(fmt.Sprintf("node%04d", i%peers))}
	}
	r := NewRing(points...)
	require.Equal(t, peers*vnodes, r.Len())

	asked := 0
	alive, dead := func(PeerID) bool { asked++; return true }, func(PeerID) bool { asked++; return false }

	assert.Len(t, r.PreferenceList(1<<63, 3, alive), 3)
	assert.Equal(t, 3, asked, "peers asked whether they live")

	asked = 0
	assert.Empty(t, r.PreferenceList(1<<63, math.MaxInt, dead))
	assert.Equal(t, peers, asked, "peers asked whether they live")

	_, visited := walked(r, 0)
	assert.Len(t, visited, peers)
	assert.Equal(t, visited, r.PrimaryPeers(alive))

	assert.LessOrEqual(t, testing.AllocsPerRun(10, func() { r.PreferenceList(1<<63, 3, alive) }), 2.0)
	assert.LessOrEqual(t, testing.AllocsPerRun(10, func() { r.PreferenceList(1<<63, math.MaxInt, dead) }), 2.0)
	assert.LessOrEqual(t, testing.AllocsPerRun(10, func() { r.PrimaryPeers(alive) }), 1.0)
	assert.LessOrEqual(t, testing.AllocsPerRun(10, func() {
		for range r.Walk(1 << 63) {
			continue
		}
	}), 1.0)
}

func TestRingIsSafeForConcurrentUse(t *testing.T) {
	r := newTestRing(8)
	walk := r.Walk(350)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				n := 0
				for range walk {
					n++
				}
				assert.Equal(t, 8, n)
				assert.Len(t, r.PreferenceList(350, 3, down("d")), 3)
				assert.Len(t, r.PrimaryPeers(down("d")), 7)
			}
		})
	}
	wg.Wait()
}

// ringOracle says what a Ring should, by rules 15 to 17 as they read and with no regard for cost.
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

// share adds up the tokens between each point and the one before it, of which the first on its
// token has all: the walk from there begins at it.
func (o ringOracle) share(peer PeerID) float64 {
	owned := new(big.Int)
	for slot, p := range o {
		if p.Peer != peer || o.walk(p.Token)[0].Slot != slot {
			continue
		}
		before := o[(slot+len(o)-1)%len(o)]
		width := new(big.Int).Sub(new(big.Int).SetUint64(p.Token), new(big.Int).SetUint64(before.Token))
		if width.Sign() <= 0 {
			width.Add(width, wholeSpace)
		}
		owned.Add(owned, width)
	}
	return oracleShare(owned)
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

	everybody := oracle.primaryPeers(func(PeerID) bool { return true })
	require.True(t, slices.Equal(everybody, ring.Peers()), "Peers of %v: %v", points, ring.Peers())
	for _, peer := range everybody {
		require.Equal(t, oracle.share(peer), ring.Share(peer), "Share(%s) of %v", peer, points)
	}
	require.Zero(t, ring.Share("nobody"))

	peers := ring.PrimaryPeers(live)
	require.True(t, slices.Equal(oracle.primaryPeers(live), peers), "PrimaryPeers of %v: %v", points, peers)
}

// newTestPoint makes one of 32 tokens and 8 peers of b, so that points collide often: half the
// tokens from 0 up, half to MaxUint64.
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
		// Random bytes alone seldom give few peers and few tokens.
		mask := byte(rng.Uint32())
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
		points := make([]Point, min(len(data), 256)) // more are mere duplicates, and the oracle is slow
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
