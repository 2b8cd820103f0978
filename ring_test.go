package scatter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newTestRing returns a ring of the peers a, b, c and so on, with one token each: 100, 200, 300 and so on.
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

// Rule 16: primaries in walk order, fallbacks from further along in the slots of the dead, and no slot for which there
// is nobody.
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

// Rules 16, 17: liveness is asked of each peer at most once, and of none that the answer doesn't depend on.
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

// Rules 16, 17: on a large ring an answer's cost follows the peers that it concerns; what a call asks and allocates
// stands for the cost here.
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

func TestRoleString(t *testing.T) {
	assert.Equal(t, "Primary", Primary.String())
	assert.Equal(t, "Fallback", Fallback.String())
	assert.Equal(t, "Role(9)", Role(9).String())
}
