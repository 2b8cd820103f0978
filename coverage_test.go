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

// coverageOracle is a coverage by its definition: it keeps who is hoped for and who has answered,
// and works out the rest for each cell.
type coverageOracle struct {
	c        *Cover
	cells    []cell // in order from token 0
	hoped    []PeerID
	answered []PeerID
}

func hasAny(peers, list []PeerID) bool {
	return slices.ContainsFunc(list, func(peer PeerID) bool { return slices.Contains(peers, peer) })
}

// oracleShare is the share that a number of tokens is of all, rounded once, but to 1 only if it is
// all.
func oracleShare(n *big.Int) float64 {
	share, _ := new(big.Rat).SetFrac(n, wholeSpace).Float64()
	if n.Cmp(wholeSpace) != 0 {
		share = min(share, math.Nextafter(1, 0))
	}
	return share
}

func (o *coverageOracle) share() float64 {
	n := new(big.Int)
	for _, c := range o.cells {
		if hasAny(o.answered, c.holders) {
			n.Add(n, c.width)
		}
	}
	return oracleShare(n)
}

// open and lost return the ranges that are.
func (o *coverageOracle) open() []int32 { return o.uncovered(true) }
func (o *coverageOracle) lost() []int32 { return o.uncovered(false) }

func (o *coverageOracle) uncovered(hoped bool) (ranges []int32) {
	for r := range int32(len(o.c.ends)) {
		if names := o.c.names(r); !hasAny(o.answered, names) && hasAny(o.hoped, names) == hoped {
			ranges = append(ranges, r)
		}
	}
	return ranges
}

// missing returns the stretches, by going round the token space once from a cell that isn't
// missing. If everything is missing, it is one stretch from token start.
func (o *coverageOracle) missing(start uint64) []MissingRange {
	n := len(o.cells)
	begin := slices.IndexFunc(o.cells, func(c cell) bool { return hasAny(o.answered, c.holders) })
	all := begin < 0
	if all {
		begin = slices.IndexFunc(o.cells, func(c cell) bool { return c.first == start })
	}
	var missing []MissingRange
	var sizes []*big.Int
	inside := false // the last cell was missing
	for i := range n {
		c := o.cells[(begin+i)%n]
		if hasAny(o.answered, c.holders) {
			inside = false
			continue
		}
		if !inside {
			missing, sizes = append(missing, MissingRange{First: c.first}), append(sizes, new(big.Int))
		}
		inside = true
		m, size := &missing[len(missing)-1], sizes[len(sizes)-1]
		m.Last, m.Holders = c.last, distinct(append(m.Holders, c.holders...))
		m.Share = oracleShare(size.Add(size, c.width))
	}
	slices.SortFunc(missing, func(a, b MissingRange) int {
		return new(big.Int).SetUint64(a.First).Cmp(new(big.Int).SetUint64(b.First))
	})
	return missing
}

// wantCoverageAsOracle fails t unless a coverage answers as the oracle does, after each of the
// steps, which say who is hoped for, fails or answers.
func wantCoverageAsOracle(t testing.TB, tp topology, steps bytesOf) {
	t.Helper()
	o := &coverageOracle{c: tp.cover, cells: tp.cells(t)}
	first := steps.next()
	for i, peer := range tp.cover.peers {
		if first>>(i%8)&1 == 0 {
			o.hoped = append(o.hoped, peer)
		}
	}
	c := newCoverage(tp.cover, newTestHoped(tp.cover, func(i int32) bool { return first>>(i%8)&1 == 0 }))
	quick := c.clone() // peers quit it, and don't lose
	done := fmt.Sprintf("%s, hoped for %v", tp.name, o.hoped)
	wantCoverageNow(t, done, c, o)
	for len(steps) > 0 && len(tp.cover.peers) > 0 {
		b := steps.next()
		i := int32(b&15) % int32(len(tp.cover.peers))
		peer := tp.cover.peers[i]
		switch b >> 4 % 4 {
		case 0, 1:
			done += fmt.Sprintf(", answer %s", peer)
			c.answer(i)
			quick.answer(i)
			o.answered, o.hoped = append(o.answered, peer), append(o.hoped, peer)
		case 2:
			done += fmt.Sprintf(", lose %s", peer)
			c.lose(i)
			quick.quit(i)
			o.hoped = slices.DeleteFunc(o.hoped, func(other PeerID) bool { return other == peer })
		case 3:
			done += fmt.Sprintf(", hope %s", peer)
			c.hope(i)
			quick.hope(i)
			o.hoped = append(o.hoped, peer)
		}
		if b >= 192 { // What the copy gets, the original doesn't.
			copied := c.clone()
			c, copied = copied, c
			copied.answer(0)
			copied.lose(int32(len(tp.cover.peers) - 1))
		}
		wantCoverageNow(t, done, c, o)
		if got, want := quick.isOpen(), len(o.open()) > 0; got != want {
			t.Fatalf("%s: isOpen() = %v after quit, want %v", done, got, want)
		}
	}
}

// countOpen returns how many ranges are neither covered nor lost.
func countOpen(c *coverage) int { return len(c.ends) - c.covered.count() - c.lost.count() }

func wantCoverageNow(t testing.TB, done string, c *coverage, o *coverageOracle) {
	t.Helper()
	open, lost := o.open(), o.lost()
	if got := countOpen(c); got != len(open) {
		t.Fatalf("%s: %d open, want %d: %v", done, got, len(open), open)
	}
	for r := range int32(len(c.ends)) {
		if got, want := c.lost.has(r), slices.Contains(lost, r); got != want {
			t.Fatalf("%s: lost.has(%d) = %v, want %v", done, r, got, want)
		}
		if got, want := c.covered.has(r), hasAny(o.answered, c.names(r)); got != want {
			t.Fatalf("%s: covered.has(%d) = %v, want %v", done, r, got, want)
		}
	}
	if got, want := c.share(), o.share(); got != want {
		t.Fatalf("%s: share() = %v, want %v", done, got, want)
	}
	if got, want := c.whole(), len(open)+len(lost) == 0; got != want {
		t.Fatalf("%s: whole() = %v, want %v", done, got, want)
	}
	got := c.missing()
	start := uint64(0)
	if len(got) > 0 {
		start = got[0].First // It is checked below.
	}
	if want := o.missing(start); !equalMissing(got, want) {
		t.Fatalf("%s: missing() = %v, want %v", done, got, want)
	}
	if len(got) == 1 && got[0].Share == 1 && got[0].Last != c.ends[len(c.ends)-1] {
		t.Fatalf("%s: missing() = %v, want the end of the last range, %#x", done, got, c.ends[len(c.ends)-1])
	}
	for i, peer := range c.peers {
		if c.hoped.has(int32(i)) != slices.Contains(o.hoped, peer) {
			t.Fatalf("%s: hoped.has(%s) = %v", done, peer, c.hoped.has(int32(i)))
		}
		if !slices.Contains(o.hoped, peer) {
			continue
		}
		without := coverageOracle{c: o.c, answered: o.answered}
		without.hoped = slices.DeleteFunc(slices.Clone(o.hoped), func(other PeerID) bool { return other == peer })
		var want []int32
		for _, r := range without.lost() {
			if !slices.Contains(lost, r) {
				want = append(want, r)
			}
		}
		if got := c.appendOnlyHope([]int32{7}, int32(i)); got[0] != 7 || !slices.Equal(got[1:], want) {
			t.Fatalf("%s: appendOnlyHope([7], %s) = %v, want %v after it", done, peer, got, want)
		}
	}
}

func equalMissing(a, b []MissingRange) bool {
	return slices.EqualFunc(a, b, func(a, b MissingRange) bool {
		return a.First == b.First && a.Last == b.Last && a.Share == b.Share && slices.Equal(a.Holders, b.Holders) &&
			(a.Holders == nil) == (b.Holders == nil)
	})
}

// Rules 23, 24, 32, 33: on random topologies of each kind, and for any answers and failures, a
// coverage answers as the oracle does.
func TestCoverageAnswersAsOracle(t *testing.T) {
	eachTestTopology(t, 1500, func(t *testing.T, tp topology, rest bytesOf) {
		wantCoverageAsOracle(t, tp, rest[:min(len(rest), 12)])
	})
}

// Rule 24: the sets of ranges take several words, with long runs of either kind.
func TestCoverageOfManyRanges(t *testing.T) {
	r := rand.New(rand.NewPCG(24, 0))
	for _, n := range []int{63, 64, 65, 127, 128, 129, 200, 256} {
		for range 6 {
			groups := make([][]PeerID, n)
			peer, left := PeerID("a"), 0
			for i := range groups {
				if left--; left < 0 {
					peer, left = PeerID(rune('a'+r.IntN(8))), r.IntN(100)
				}
				if groups[i] = []PeerID{peer}; peer == "h" {
					groups[i] = nil // a hole
				}
			}
			steps := make(bytesOf, 5)
			for i := range steps {
				steps[i] = byte(r.Uint32())
			}
			wantCoverageAsOracle(t, groupTopology(groups), steps)
		}
	}
}

// Rule 24: what is missing, on a ring that can be checked by eye.
func TestMissing(t *testing.T) {
	ring := NewRing(Point{2, "a"}, Point{4, "b"}, Point{4, "c"}, Point{math.MaxUint64, "d"})
	c := NewCover(ring, 2)
	assert.Equal(t, []uint64{2, 4, math.MaxUint64}, c.ends)
	assert.Equal(t, []PeerID{"a", "b"}, c.Holders(0))
	assert.Equal(t, []PeerID{"b", "c"}, c.Holders(3))
	assert.Equal(t, []PeerID{"d", "a"}, c.Holders(5))

	query := newCoverage(c, newTestHoped(c, everyPeer))
	assert.Equal(t, []MissingRange{{0, math.MaxUint64, 1, []PeerID{"a", "b", "c", "d"}}}, query.missing())
	query.answer(c.number("c"))
	assert.False(t, query.whole())
	assert.Equal(t, 2.0/(1<<64), query.share())
	assert.Equal(t, []MissingRange{{5, 2, math.Nextafter(1, 0), []PeerID{"d", "a", "b"}}}, query.missing())
	query.answer(c.number("d"))
	assert.Equal(t, []MissingRange{{0, 2, 3.0 / (1 << 64), []PeerID{"a", "b"}}}, query.missing())
	query.answer(c.number("a"))
	assert.True(t, query.whole())
	assert.Equal(t, 1.0, query.share())
	assert.Nil(t, query.missing())
}

// Rules 24, 32: a hole is missing from the start and stays so, whoever answers.
func TestMissingHole(t *testing.T) {
	c := NewGroupCover([]PeerID{"a"}, nil, []PeerID{"b"}, nil)
	query := newCoverage(c, newTestHoped(c, everyPeer))
	assert.Equal(t, 2, countOpen(query))
	query.answer(0)
	query.answer(1)
	assert.Zero(t, countOpen(query))
	assert.Equal(t, 0.5, query.share())
	assert.Equal(t, []MissingRange{{1 << 62, 1<<63 - 1, 0.25, nil}, {3 << 62, math.MaxUint64, 0.25, nil}}, query.missing())
}

// Rule 24: who is missing a stretch doesn't see the names of the next.
func TestMissingHoldersDontRunOn(t *testing.T) {
	c := NewGroupCover([]PeerID{"a"}, []PeerID{"b"}, []PeerID{"c"}, []PeerID{"b"})
	query := newCoverage(c, newTestHoped(c, everyPeer))
	query.answer(c.number("b"))
	missing := query.missing()
	require.Len(t, missing, 2)
	_ = append(missing[0].Holders, "x")
	assert.Equal(t, []PeerID{"c"}, missing[1].Holders)
}

// Rule 23: a share is 1 only if it is all, 0 only if it is nothing, and is not rounded in between.
func TestShareIsExact(t *testing.T) {
	but := func(n tokens) float64 { return (&coverage{uncovered: n}).share() }
	assert.Equal(t, 1.0, but(tokens{}))
	assert.Equal(t, math.Nextafter(1, 0), but(tokens{0, 1}))
	assert.Equal(t, 0.5, but(tokens{0, 1 << 63}))
	assert.Equal(t, 1.0/(1<<64), but(tokens{0, math.MaxUint64}))
	assert.Equal(t, 0.0, but(allTokens))
	assert.Equal(t, 0.0, tokens{}.share())
	assert.Equal(t, math.Nextafter(1, 0), tokens{0, math.MaxUint64}.share())
	assert.Equal(t, 1.0, allTokens.share())
}

// Rule 40: what a query's coverage allocates doesn't follow the ranges, the answers or what is
// missing.
func TestCoverageAllocs(t *testing.T) {
	c := NewCover(newTestVnodes(6400, 100, 28), 3)
	hoped := newTestHoped(c, everyPeer)
	order := rand.New(rand.NewPCG(28, 0)).Perm(100)
	assert.LessOrEqual(t, testing.AllocsPerRun(10, func() {
		query := newCoverage(c, hoped)
		for _, peer := range order {
			query.lose(int32(peer))
			query.hope(int32(peer))
			query.answer(int32(peer))
		}
	}), 3.0)
	query := newCoverage(c, hoped)
	for _, peer := range order[:50] {
		query.answer(int32(peer))
	}
	require.Greater(t, len(query.missing()), 300)
	assert.LessOrEqual(t, testing.AllocsPerRun(10, func() { query.missing() }), 4.0)
}
