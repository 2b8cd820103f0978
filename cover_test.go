package scatter

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// topology is a Cover and what it was told, as a reading of rule 32 that looks at one token at a
// time.
type topology struct {
	name    string
	cover   *Cover
	holders func(token uint64) []PeerID
	cuts    []uint64 // each token whose holders may differ from those of the next one
	idle    []PeerID // peers that are named, in walk order if ring
	ring    bool
}

// bytesOf makes topologies of bytes. After the last byte it gives zeros.
type bytesOf []byte

func (b *bytesOf) next() byte {
	if len(*b) == 0 {
		return 0
	}
	first := (*b)[0]
	*b = (*b)[1:]
	return first
}

// peers returns up to three peers, often the same one twice.
func (b *bytesOf) peers() []PeerID {
	var peers []PeerID
	for range b.next() % 4 {
		peers = append(peers, PeerID(rune('a'+b.next()&7)))
	}
	return peers
}

// topology makes one of a kind: a ring, groups, ranges, or a join of them.
func (b *bytesOf) topology(kind byte) topology {
	shifts := []uint64{0, 0, 1, 15, 16, 17, math.MaxUint64, 1 << 63} // the seam may be anywhere
	shift := shifts[b.next()%8]
	switch kind % 4 {
	case 0:
		points := make([]Point, b.next()%24)
		few := b.next()
		for i := range points {
			points[i] = newTestPoint(b.next() & few)
			points[i].Token += shift
		}
		return ringTopology(points, int(b.next()%11)-1)
	case 1:
		groups := make([][]PeerID, b.next()%9)
		for i := range groups {
			groups[i] = b.peers()
		}
		return groupTopology(groups)
	case 2:
		return rangeTopology(b.ranges(shift))
	}
	parts := make([]topology, b.next()%4)
	for i := range parts {
		if kind := b.next() % 8; kind < 6 {
			parts[i] = b.topology(kind % 3)
		} else {
			none := []*Cover{nil, {}}[kind-6]
			parts[i] = topology{cover: none, holders: func(uint64) []PeerID { return nil }}
		}
	}
	return joinTopology(parts)
}

// ranges returns ranges that don't overlap, in any order.
func (b *bytesOf) ranges(shift uint64) []Range {
	firsts := make([]uint64, b.next()%7)
	for i := range firsts {
		firsts[i] = newTestToken(b.next()) + shift
	}
	slices.Sort(firsts)
	firsts = slices.Compact(firsts)
	var ranges []Range
	for i, first := range firsts {
		if what := b.next(); what%4 > 0 {
			r := Range{first, firsts[(i+1)%len(firsts)] - 1, b.peers()}
			if what%8 == 7 {
				r.Last = first // a single token
			}
			at := int(b.next()) % (len(ranges) + 1)
			ranges = slices.Insert(ranges, at, r)
		}
	}
	return ranges
}

func distinct(peers []PeerID) []PeerID {
	var once []PeerID
	for _, peer := range peers {
		if !slices.Contains(once, peer) {
			once = append(once, peer)
		}
	}
	return once
}

func ringTopology(points []Point, replicas int) topology {
	oracle := newRingOracle(points)
	tp := topology{
		name:  fmt.Sprintf("NewCover(%v, %d)", points, replicas),
		cover: NewCover(NewRing(points...), replicas),
		holders: func(token uint64) []PeerID {
			var holders []PeerID
			for i, step := range oracle.walk(token) {
				if i == 0 || i < replicas {
					holders = append(holders, step.Peer)
				}
			}
			return holders
		},
		idle: oracle.primaryPeers(func(PeerID) bool { return true }),
		ring: true,
	}
	for _, p := range points {
		tp.cuts = append(tp.cuts, p.Token)
	}
	return tp
}

var wholeSpace = new(big.Int).Lsh(big.NewInt(1), 64)

func groupTopology(groups [][]PeerID) topology {
	n := big.NewInt(int64(len(groups)))
	tp := topology{
		name:  fmt.Sprintf("NewGroupCover(%v)", groups),
		cover: NewGroupCover(groups...),
		holders: func(token uint64) []PeerID {
			if len(groups) == 0 {
				return nil
			}
			shard := new(big.Int).SetUint64(token) // floor(t n / 2^64), as rule 32 has it
			shard.Div(shard.Mul(shard, n), wholeSpace)
			return distinct(groups[shard.Int64()])
		},
	}
	for i := range groups {
		// A shard ends somewhere near i x 2^64 / n.
		near := new(big.Int).Mul(big.NewInt(int64(i)), wholeSpace)
		at := near.Div(near, n).Uint64()
		tp.cuts = append(tp.cuts, at-2, at-1, at, at+1)
	}
	return tp
}

func rangeTopology(ranges []Range) topology {
	cover, err := NewRangeCover(ranges...)
	if err != nil {
		panic(err)
	}
	tp := topology{
		name:  fmt.Sprintf("NewRangeCover(%v)", ranges),
		cover: cover,
		holders: func(token uint64) []PeerID {
			for _, r := range ranges {
				if r.has(token) {
					return distinct(r.Holders)
				}
			}
			return nil
		},
	}
	for _, r := range ranges {
		tp.cuts = append(tp.cuts, r.First-1, r.Last)
	}
	return tp
}

func (r Range) has(token uint64) bool {
	if r.First <= r.Last {
		return r.First <= token && token <= r.Last
	}
	return r.First <= token || token <= r.Last
}

func joinTopology(parts []topology) topology {
	var covers []*Cover
	tp := topology{name: "JoinCovers("}
	for _, part := range parts {
		covers = append(covers, part.cover)
		tp.name += part.name + ", "
		tp.cuts = append(tp.cuts, part.cuts...)
		tp.idle = append(tp.idle, part.idle...)
	}
	tp.cover = JoinCovers(covers...)
	tp.holders = func(token uint64) []PeerID {
		var holders []PeerID
		for _, part := range parts {
			holders = append(holders, part.holders(token)...)
		}
		return distinct(holders)
	}
	return tp
}

// cell is a stretch of the token space that all the same peers hold, as far as the cuts say.
type cell struct {
	first, last uint64
	width       *big.Int
	holders     []PeerID // in the order of preference
}

// cells returns the cells of all of the token space, in order from token 0, each cut's neighbours
// in cells of their own.
func (tp topology) cells(t testing.TB) []cell {
	lasts := []uint64{math.MaxUint64}
	for _, cut := range tp.cuts {
		lasts = append(lasts, cut-1, cut, cut+1)
	}
	slices.Sort(lasts)
	var cells []cell
	first := uint64(0)
	for _, last := range slices.Compact(lasts) {
		width := new(big.Int).SetUint64(last - first)
		c := cell{first, last, width.Add(width, big.NewInt(1)), tp.holders(first)}
		require.True(t, slices.Equal(c.holders, tp.holders(last)),
			"%s: the oracle lacks a cut in %x-%x", tp.name, first, last)
		cells = append(cells, c)
		first = last + 1
	}
	return cells
}

// wantCoverAsOracle fails t unless a Cover says what it was told.
func wantCoverAsOracle(t testing.TB, tp topology) {
	t.Helper()
	c, cells := tp.cover, tp.cells(t)
	var named []PeerID
	if tp.ring {
		named = tp.idle
	}
	inRanges := newWidths(c)
	for _, cell := range cells {
		for _, token := range []uint64{cell.first, cell.last, cell.first + (cell.last-cell.first)/3} {
			if got := c.Holders(token); !slices.Equal(got, cell.holders) {
				t.Fatalf("%s: Holders(%#x) = %v, want %v", tp.name, token, got, cell.holders)
			}
		}
		r, ok := slices.BinarySearch(c.ends, cell.last)
		r %= max(1, len(c.ends))
		inRanges[r].Add(inRanges[r], cell.width)
		if got := c.names(int32(r)); !slices.Equal(got, cell.holders) {
			t.Fatalf("%s: range %d is held by %v, want %v (ends there: %v)", tp.name, r, got, cell.holders, ok)
		}
		named = append(named, cell.holders...)
	}
	wantPeers(t, tp, distinct(append(named, tp.idle...)))
	for r, want := range inRanges {
		if got := c.width(int32(r)).big(); got.Cmp(want) != 0 {
			t.Fatalf("%s: width(%d) = %d, want %d", tp.name, r, got, want)
		}
		if r > 0 && c.ends[r-1] >= c.ends[r] {
			t.Fatalf("%s: the ends don't ascend: %x", tp.name, c.ends)
		}
	}
}

func newWidths(c *Cover) []*big.Int {
	widths := make([]*big.Int, len(c.ends))
	for r := range widths {
		widths[r] = new(big.Int)
	}
	return widths
}

func wantPeers(t testing.TB, tp topology, want []PeerID) {
	t.Helper()
	c := tp.cover
	if got := c.Peers(); !slices.Equal(got, want) {
		t.Fatalf("%s: Peers() = %v, want %v", tp.name, got, want)
	}
	for i, peer := range want {
		if got := c.number(peer); got != int32(i) {
			t.Fatalf("%s: number(%s) = %d, want %d", tp.name, peer, got, i)
		}
		var ranges []int32
		for r := range int32(len(c.ends)) {
			if slices.Contains(c.holdersOf(r), int32(i)) {
				ranges = append(ranges, r)
			}
		}
		if got := c.rangesOf(int32(i)); !slices.Equal(got, ranges) {
			t.Fatalf("%s: rangesOf(%s) = %v, want %v", tp.name, peer, got, ranges)
		}
	}
	if got := c.number("nobody"); got != -1 {
		t.Fatalf("%s: number of a peer that isn't named = %d, want -1", tp.name, got)
	}
}

func (t tokens) big() *big.Int {
	n := new(big.Int).SetUint64(t.hi)
	return n.Add(n.Lsh(n, 64), new(big.Int).SetUint64(t.lo))
}

// names returns the names of a range's holders.
func (c *Cover) names(r int32) []PeerID {
	var names []PeerID
	for _, peer := range c.holdersOf(r) {
		names = append(names, c.peers[peer])
	}
	return names
}

// eachTestTopology calls f with many random topologies of each kind, and the bytes left over.
func eachTestTopology(t *testing.T, rounds int, f func(t *testing.T, tp topology, rest bytesOf)) {
	for kind, name := range []string{"NewCover", "NewGroupCover", "NewRangeCover", "JoinCovers"} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(23, uint64(kind)))
			for range rounds {
				data := make(bytesOf, r.IntN(160))
				for i := range data {
					data[i] = byte(r.Uint32())
				}
				tp := data.topology(byte(kind))
				f(t, tp, data)
			}
		})
	}
}

// Rules 23, 32: on random topologies of each kind a Cover says what it was told, token by token.
func TestCoverAnswersAsOracle(t *testing.T) {
	eachTestTopology(t, 3000, func(t *testing.T, tp topology, _ bytesOf) { wantCoverAsOracle(t, tp) })
}

// Rules 23, 24, 32: as the two tests above and in coverage_test.go, on topologies made of the data.
func FuzzCover(f *testing.F) {
	// Three points on one token.
	f.Add(byte(0), []byte{0, 3, 255, 0, 1, 2, 4, 9, 17, 33})
	// A hole in the middle.
	f.Add(byte(1), []byte{0, 3, 1, 0, 0, 2, 1, 1, 9, 17, 33})
	// Both ends.
	f.Add(byte(2), []byte{0, 2, 0, 31, 1, 1, 0, 0, 1, 1, 1, 0, 9, 17, 33})
	// Everything, from 5 to 4.
	f.Add(byte(2), []byte{0, 1, 5, 1, 1, 0, 0, 9, 17, 33})
	// Two tables.
	f.Add(byte(3), []byte{0, 2, 2, 0, 1, 5, 1, 1, 0, 0, 2, 1, 2, 0, 9, 1, 1, 1, 0, 2, 17})
	// Nil, zero, and a ring.
	f.Add(byte(3), []byte{0, 3, 6, 7, 0, 0, 1, 255, 8, 1, 9, 17})
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		rest := bytesOf(data[:min(len(data), 256)])
		tp := rest.topology(kind)
		wantCoverAsOracle(t, tp)
		wantCoverageAsOracle(t, tp, rest[:min(len(rest), 64)])
	})
}

// Rule 32: which ranges overlap, and that the error names both. Any ranges at all: those that don't
// overlap must be taken.
func TestNewRangeCoverOverlaps(t *testing.T) {
	r := rand.New(rand.NewPCG(32, 0))
	refused := 0
	for range 5000 {
		ranges := make([]Range, r.IntN(5))
		few := byte(r.Uint32())
		for i := range ranges {
			ranges[i] = Range{newTestToken(byte(r.Uint32()) & few), newTestToken(byte(r.Uint32()) & few), []PeerID{"a"}}
		}
		overlap := false // in a token
		for i := range ranges {
			for j := range i {
				for b := range byte(32) {
					overlap = overlap || ranges[i].has(newTestToken(b)) && ranges[j].has(newTestToken(b))
				}
				overlap = overlap || ranges[i].has(1<<63) && ranges[j].has(1<<63)
			}
		}
		_, err := NewRangeCover(ranges...)
		require.Equal(t, overlap, err != nil, "%v: %v", ranges, err)
		if err == nil {
			wantCoverAsOracle(t, rangeTopology(ranges))
			continue
		}
		refused++
		var i, j int
		var first, last [2]uint64
		_, scanned := fmt.Sscanf(err.Error(), "scatter: ranges[%d] (0x%x-0x%x) and ranges[%d] (0x%x-0x%x) overlap",
			&i, &first[0], &last[0], &j, &first[1], &last[1])
		require.NoError(t, scanned, err)
		require.Less(t, i, j)
		a, b := ranges[i], ranges[j]
		require.True(t, a.has(b.First) || b.has(a.First), "%v: %v", ranges, err)
		require.Equal(t, [4]uint64{a.First, a.Last, b.First, b.Last}, [4]uint64{first[0], last[0], first[1], last[1]})
	}
	assert.Greater(t, refused, 1000)
	assert.Less(t, refused, 4000)
}

func TestNewRangeCoverErrorText(t *testing.T) {
	_, err := NewRangeCover(Range{First: 10, Last: 19}, Range{First: 30, Last: 39}, Range{First: 19, Last: 29})
	assert.EqualError(t, err, "scatter: ranges[0] (0x000000000000000a-0x0000000000000013) "+
		"and ranges[2] (0x0000000000000013-0x000000000000001d) overlap")
}

// Rule 32: both tokens are included; First > Last goes on past the largest token; First == Last+1
// is everything.
func TestNewRangeCoverEnds(t *testing.T) {
	largest := uint64(math.MaxUint64)
	tests := []struct {
		name        string
		first, last uint64
		in, out     []uint64
		share       tokens
	}{
		{"a token", 5, 5, []uint64{5}, []uint64{0, 4, 6, largest}, tokens{0, 1}},
		{"two", 5, 6, []uint64{5, 6}, []uint64{4, 7}, tokens{0, 2}},
		{"token 0", 0, 0, []uint64{0}, []uint64{1, largest}, tokens{0, 1}},
		{"the largest", largest, largest, []uint64{largest}, []uint64{0, largest - 1}, tokens{0, 1}},
		{"past the largest", largest, 0, []uint64{largest, 0}, []uint64{1, largest - 1}, tokens{0, 2}},
		{"all but one", 6, 4, []uint64{6, largest, 0, 4}, []uint64{5}, tokens{0, largest}},
		{"all but 0", 1, largest, []uint64{1, largest}, []uint64{0}, tokens{0, largest}},
		{"all but the largest", 0, largest - 1, []uint64{0, largest - 1}, []uint64{largest}, tokens{0, largest}},
		{"everything from 0", 0, largest, []uint64{0, 5, largest}, nil, allTokens},
		{"everything from 5", 5, 4, []uint64{0, 4, 5, 6, largest}, nil, allTokens},
		{"everything from the largest", largest, largest - 1, []uint64{0, largest - 1, largest}, nil, allTokens},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := NewRangeCover(Range{tt.first, tt.last, []PeerID{"a", "b", "a"}})
			require.NoError(t, err)
			assert.Equal(t, []PeerID{"a", "b"}, c.Peers())
			for _, token := range tt.in {
				assert.Equal(t, []PeerID{"a", "b"}, c.Holders(token), "%#x", token)
			}
			for _, token := range tt.out {
				assert.Empty(t, c.Holders(token), "%#x", token)
			}
			held := tokens{}
			for _, r := range c.rangesOf(0) {
				held = held.plus(c.width(r))
			}
			assert.Equal(t, tt.share, held)
		})
	}
}

// Rule 32: token t belongs to shard floor(t n / 2^64), exactly, also where n is no power of two.
func TestNewGroupCoverShards(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 6, 7, 10, 100, 1000, 16384, 16385} {
		groups := make([][]PeerID, n)
		for i := range groups {
			groups[i] = []PeerID{PeerID(fmt.Sprint(i))}
		}
		tp := groupTopology(groups)
		r := rand.New(rand.NewPCG(32, uint64(n)))
		for range 200 {
			token := r.Uint64()
			if r.IntN(2) == 0 {
				token = tp.cuts[r.IntN(len(tp.cuts))]
			}
			require.Equal(t, tp.holders(token), tp.cover.Holders(token), "token %#x of %d shards", token, n)
		}
		smallest, largest, sum := allTokens, tokens{}, tokens{}
		for s := range int32(n) {
			width := tp.cover.width(s)
			sum = sum.plus(width)
			if width.big().Cmp(smallest.big()) < 0 {
				smallest = width
			}
			if width.big().Cmp(largest.big()) > 0 {
				largest = width
			}
		}
		assert.Equal(t, allTokens, sum)
		assert.LessOrEqual(t, largest.minus(smallest).lo, uint64(1), "%d shards are equal but for a token", n)
	}
}

// Rule 32: the original's racks, each of which holds everything once, with tokens of their own.
func TestJoinCoversOfRacks(t *testing.T) {
	rackA := NewCover(NewRing(Point{100, "a1"}, Point{200, "a2"}), 1)
	rackB := NewCover(NewRing(Point{150, "b1"}, Point{200, "b2"}, Point{300, "b3"}), 1)
	c := JoinCovers(rackA, nil, rackB, new(Cover))
	assert.Equal(t, []uint64{100, 150, 200, 300}, c.ends, "no more than the points of both")
	assert.Equal(t, []PeerID{"a1", "b1", "a2", "b2", "b3"}, c.Peers())
	for token, want := range map[uint64][]PeerID{
		0: {"a1", "b1"}, 100: {"a1", "b1"}, 101: {"a2", "b1"}, 150: {"a2", "b1"}, 151: {"a2", "b2"}, 200: {"a2", "b2"},
		201: {"a1", "b3"}, 300: {"a1", "b3"}, 301: {"a1", "b1"}, math.MaxUint64: {"a1", "b1"},
	} {
		assert.Equal(t, want, c.Holders(token), "token %d", token)
	}
	assert.Equal(t, []PeerID{"b1", "a1"}, JoinCovers(rackB, rackA).Holders(0), "the first cover's holders come first")
	assert.Equal(t, c.ends, JoinCovers(c, rackA, c).ends)
}

// Rule 32: a peer that holds nothing is named all the same.
func TestPeersThatHoldNothing(t *testing.T) {
	shadowed := NewCover(NewRing(Point{5, "a"}, Point{5, "b"}, Point{9, "c"}), 1)
	assert.Equal(t, []PeerID{"a", "b", "c"}, shadowed.Peers(), "walk order")
	assert.Empty(t, shadowed.rangesOf(1))
	joined := JoinCovers(shadowed, NewGroupCover([]PeerID{"d"}))
	assert.Equal(t, []PeerID{"a", "d", "c", "b"}, joined.Peers())
	assert.Equal(t, []PeerID{"c", "d"}, joined.Holders(6))
}

// Rule 32: what nobody holds.
func TestCoversWithoutHolders(t *testing.T) {
	none, err := NewRangeCover()
	require.NoError(t, err)
	hole, err := NewRangeCover(Range{First: 5, Last: 9})
	require.NoError(t, err)
	for name, c := range map[string]*Cover{
		"zero": {}, "nil ring": NewCover(nil, 3), "empty ring": NewCover(NewRing(), 3), "no groups": NewGroupCover(),
		"empty groups": NewGroupCover(nil, nil), "no ranges": none, "a range without holders": hole,
		"no covers": JoinCovers(), "nil covers": JoinCovers(nil, nil), "zero covers": JoinCovers(new(Cover), hole),
	} {
		t.Run(name, func(t *testing.T) {
			assert.Empty(t, c.Peers())
			for _, token := range []uint64{0, 7, math.MaxUint64} {
				assert.Empty(t, c.Holders(token))
			}
			assert.Equal(t, int32(-1), c.number("a"))
			query := newCoverage(c, nil)
			assert.Zero(t, countOpen(query))
			assert.False(t, query.whole())
			assert.Zero(t, query.share())
			missing := query.missing()
			require.Len(t, missing, 1)
			assert.Equal(t, missing[0].First, missing[0].Last+1, "everything")
			assert.Equal(t, 1.0, missing[0].Share)
			assert.Nil(t, missing[0].Holders)
		})
	}
}

// The caller owns what Peers and Holders return, and keeps what it passes.
func TestCoverSharesNoSlices(t *testing.T) {
	ring := newTestRing(3)
	group := []PeerID{"a", "b"}
	c := JoinCovers(NewCover(ring, 2), NewGroupCover(group))
	peers, holders := c.Peers(), c.Holders(0)
	slices.Reverse(group)
	for _, list := range [][]PeerID{c.Peers(), c.Holders(0), NewCover(ring, 1).Peers()} {
		list[0] = "x"
	}
	assert.Equal(t, peers, c.Peers())
	assert.Equal(t, holders, c.Holders(0))
	assert.Equal(t, []PeerID{"a", "b", "c"}, ring.Peers())
}

// A join has no more ranges than its covers have points, and few allocations.
func TestJoinCoversOfLargeRacks(t *testing.T) {
	a, b := NewCover(newTestVnodes(6400, 100, 1), 1), NewCover(newTestVnodes(64000, 1000, 2), 1)
	c := JoinCovers(a, b)
	assert.LessOrEqual(t, len(c.ends), len(a.ends)+len(b.ends))
	assert.LessOrEqual(t, len(c.holders), 2*len(c.ends), "some hold a range in both")
	assert.Less(t, testing.AllocsPerRun(1, func() { JoinCovers(a, b) }), 64.0)
}
