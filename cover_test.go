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

// cell is a stretch of the token space that no point divides: a single token, or the lump of those far from any point.
type cell struct {
	first   uint64
	width   *big.Int
	slot    int      // that it belongs to
	holders []PeerID // in walk order
}

// coverOracle says what a Cover should, by rules 23 and 24 as they read: token by token, and with no regard to cost.
type coverOracle struct {
	ring  *Ring
	cells []cell // in ring order, all of the token space
}

var wholeSpace = new(big.Int).Lsh(big.NewInt(1), 64)

// newCoverOracle makes the oracle of a ring whose points are those of newTestPoint, moved up by shift: no more than 16
// tokens away from it.
func newCoverOracle(ring *Ring, replicas int, shift uint64) *coverOracle {
	o := &coverOracle{ring: ring}
	single := big.NewInt(1)
	for i := range uint64(16) {
		o.cells = append(o.cells, cell{first: shift + i, width: single})
	}
	o.cells = append(o.cells, cell{first: shift + 16, width: new(big.Int).Sub(wholeSpace, big.NewInt(32))})
	for i := range uint64(16) {
		o.cells = append(o.cells, cell{first: shift - 16 + i, width: single})
	}
	for i := range o.cells {
		cell := &o.cells[i]
		for slot, peer := range ring.Walk(cell.first) {
			if len(cell.holders) == 0 {
				cell.slot = slot
			}
			if cell.holders = append(cell.holders, peer); len(cell.holders) >= replicas {
				break
			}
		}
	}
	return o
}

// heldBy reports whether one of the peers holds the cell.
func (c cell) heldBy(peers map[PeerID]bool) bool {
	return slices.ContainsFunc(c.holders, func(peer PeerID) bool { return peers[peer] })
}

func (o *coverOracle) whole(answered map[PeerID]bool) bool {
	return !slices.ContainsFunc(o.cells, func(c cell) bool { return !c.heldBy(answered) })
}

// oracleShare is the share that a number of tokens is of all, rounded once, but to 1 only if it is all.
func oracleShare(tokens *big.Int) float64 {
	share, _ := new(big.Rat).SetFrac(tokens, wholeSpace).Float64()
	if tokens.Cmp(wholeSpace) != 0 {
		share = min(share, math.Nextafter(1, 0))
	}
	return share
}

func (o *coverOracle) share(answered map[PeerID]bool) float64 {
	tokens := new(big.Int)
	for _, c := range o.cells {
		if c.heldBy(answered) {
			tokens.Add(tokens, c.width)
		}
	}
	return oracleShare(tokens)
}

// gaps says what the gaps are, by the cells between them.
func (o *coverOracle) gaps(answered map[PeerID]bool) []Gap {
	start := slices.IndexFunc(o.cells, func(c cell) bool { return c.heldBy(answered) })
	if start < 0 { // nothing has an answer: one gap, that ends with a point
		last := uint64(math.MaxUint64)
		if o.ring.Len() > 0 {
			last = o.ring.Point(o.ring.Len() - 1).Token
		}
		start := max(0, slices.IndexFunc(o.cells, func(c cell) bool { return c.first == last+1 })) // -1: no point, no holder
		return []Gap{o.gap(last+1, slices.Concat(o.cells[start:], o.cells[:start]))}
	}
	var gaps []Gap
	var open []cell
	for i := range o.cells {
		c := o.cells[(start+1+i)%len(o.cells)] // the last of them has an answer, so no gap goes on
		if !c.heldBy(answered) {
			open = append(open, c)
		} else if len(open) > 0 {
			gaps = append(gaps, o.gap(open[0].first, open))
			open = nil
		}
	}
	slices.SortFunc(gaps, func(a, b Gap) int { return new(big.Int).SetUint64(a.First).Cmp(new(big.Int).SetUint64(b.First)) })
	return gaps
}

func (o *coverOracle) gap(first uint64, open []cell) Gap {
	width := new(big.Int)
	var holders []PeerReport
	for _, c := range open {
		width.Add(width, c.width)
		for _, peer := range c.holders {
			if report := newTestReport(peer); !slices.Contains(holders, report) {
				holders = append(holders, report)
			}
		}
	}
	last := new(big.Int).Add(new(big.Int).SetUint64(first), width)
	last.Mod(last.Sub(last, big.NewInt(1)), wholeSpace)
	return Gap{First: first, Last: last.Uint64(), Share: oracleShare(width), Holders: holders}
}

func newTestReport(peer PeerID) PeerReport { return PeerReport{Peer: peer, Status: Dead} }

// coverCase is a ring, its replication factor, and answers in the order in which they come.
type coverCase struct {
	points   []byte // as newTestPoint has them
	shift    uint64 // added to each token, so that the ring's seam lies anywhere
	replicas int
	answers  []byte // a peer in the low four bits, and what is asked of the coverage then in the others
	dead     byte   // for plans, as newTestLiveness has it
	seed     uint64 // likewise
}

func (tc coverCase) ring() *Ring {
	points := make([]Point, min(len(tc.points), 64)) // more are but more duplicates
	for i := range points {
		points[i] = newTestPoint(tc.points[i])
		points[i].Token += tc.shift
	}
	return NewRing(points...)
}

// wantCoverAsOracle fails t unless a Cover answers as the oracle does.
func wantCoverAsOracle(t testing.TB, tc coverCase) {
	t.Helper()
	ring := tc.ring()
	c, o := NewCover(ring, tc.replicas), newCoverOracle(ring, tc.replicas, tc.shift)
	wantHoldersAsOracle(t, tc, c, o)
	wantCoverageAsOracle(t, tc, c, o)
	wantPlanAsOracle(t, tc, c, o)
}

func (c *Cover) names(peers []int32) []PeerID {
	var names []PeerID
	for _, peer := range peers {
		names = append(names, c.ring.peers[peer])
	}
	return names
}

func wantHoldersAsOracle(t testing.TB, tc coverCase, c *Cover, o *coverOracle) {
	t.Helper()
	widths := make(map[int]*big.Int)  // by slot
	slots := make(map[PeerID][]int32) // by holder
	holders := make(map[int][]PeerID) // by slot
	for _, cell := range o.cells {
		if len(cell.holders) == 0 {
			continue // an empty ring
		}
		if widths[cell.slot] == nil {
			widths[cell.slot] = new(big.Int)
			holders[cell.slot] = cell.holders
			for _, peer := range cell.holders {
				slots[peer] = append(slots[peer], int32(cell.slot))
			}
		}
		widths[cell.slot].Add(widths[cell.slot], cell.width)
	}
	for slot := range int32(c.ring.Len()) {
		want, ok := widths[int(slot)]
		if c.empty(slot) == ok {
			t.Fatalf("%+v: empty(%d) = %v, want %v", tc, slot, !ok, ok)
		}
		if !ok {
			want = new(big.Int)
		}
		hi, lo := c.width(slot)
		width := new(big.Int).SetUint64(hi)
		width.Add(width.Lsh(width, 64), new(big.Int).SetUint64(lo))
		if width.Cmp(want) != 0 {
			t.Fatalf("%+v: width(%d) = %d, want %d", tc, slot, width, want)
		}
		if of := c.names(c.of(slot)); ok && !slices.Equal(of, holders[int(slot)]) {
			t.Fatalf("%+v: of(%d) = %v, want %v", tc, slot, of, holders[int(slot)])
		}
	}
	for _, peer := range c.ring.PrimaryPeers(nil) {
		slices.Sort(slots[peer])
		if got := c.slotsOf(c.number(peer)); !slices.Equal(got, slots[peer]) {
			t.Fatalf("%+v: slotsOf(%s) = %v, want %v", tc, peer, got, slots[peer])
		}
	}
	if got := c.number("nobody"); got != -1 {
		t.Fatalf("%+v: number of a peer that is not on the ring = %d, want -1", tc, got)
	}
}

func wantCoverageAsOracle(t testing.TB, tc coverCase, c *Cover, o *coverOracle) {
	t.Helper()
	counted, uncounted := newCoverage(c, true), newCoverage(c, false)
	answered := make(map[PeerID]bool)
	ask := func(what byte) {
		t.Helper()
		if got, want := uncounted.whole(), o.whole(answered); what&1 != 0 && got != want {
			t.Fatalf("%+v: whole() = %v after %v, want %v", tc, got, answered, want)
		}
		if got, want := counted.whole(), o.whole(answered); what&2 != 0 && got != want {
			t.Fatalf("%+v: whole() = %v after %v, want %v", tc, got, answered, want)
		}
		if what&4 != 0 {
			want := o.share(answered)
			if a, b := counted.share(), uncounted.share(); a != want || b != want {
				t.Fatalf("%+v: share() = %v counted, %v uncounted after %v, want %v", tc, a, b, answered, want)
			}
		}
		if what&8 != 0 {
			got := counted.gaps(func(peer int32) PeerReport { return newTestReport(c.ring.peers[peer]) })
			if want := o.gaps(answered); !equalGaps(got, want) {
				t.Fatalf("%+v: gaps() = %v after %v, want %v", tc, got, answered, want)
			}
		}
	}
	for _, b := range tc.answers {
		ask(b >> 4)
		if peers := c.ring.PrimaryPeers(nil); len(peers) > 0 {
			peer := peers[int(b&15)%len(peers)]
			counted.answer(c.number(peer))
			uncounted.answer(c.number(peer))
			answered[peer] = true
		}
	}
	ask(15)
	ask(15) // asking changes nothing
}

func equalGaps(a, b []Gap) bool {
	return slices.EqualFunc(a, b, func(a, b Gap) bool {
		return a.First == b.First && a.Last == b.Last && a.Share == b.Share && slices.Equal(a.Holders, b.Holders)
	})
}

func wantPlanAsOracle(t testing.TB, tc coverCase, c *Cover, o *coverOracle) {
	t.Helper()
	live := newTestLiveness(tc.dead)
	alive, asked := make(map[PeerID]bool), make(map[PeerID]int)
	for _, peer := range c.ring.PrimaryPeers(live) {
		alive[peer] = true
	}
	plan := c.Plan(func(peer PeerID) bool { asked[peer]++; return live(peer) }, tc.seed)
	for peer, times := range asked {
		if times > 1 {
			t.Fatalf("%+v: asked %d times whether %s is live", tc, times, peer)
		}
	}
	if again := c.Plan(live, tc.seed); !slices.Equal(plan, again) {
		t.Fatalf("%+v: Plan = %v and %v for the same seed", tc, plan, again)
	}

	planned := make(map[PeerID]bool)
	for _, peer := range plan {
		planned[peer] = true
	}
	inOrder := c.ring.PrimaryPeers(func(peer PeerID) bool { return planned[peer] && alive[peer] })
	if !slices.Equal(plan, inOrder) {
		t.Fatalf("%+v: Plan = %v, want live peers in ring order, each once: %v", tc, plan, inOrder)
	}
	if !o.same(planned, alive) {
		t.Fatalf("%+v: Plan = %v holds less than the live peers %v", tc, plan, alive)
	}
	for _, peer := range plan {
		delete(planned, peer)
		if o.same(planned, alive) {
			t.Fatalf("%+v: Plan = %v, but %s is not needed", tc, plan, peer)
		}
		planned[peer] = true
	}
}

// same reports whether two sets of peers hold the same.
func (o *coverOracle) same(a, b map[PeerID]bool) bool {
	return !slices.ContainsFunc(o.cells, func(c cell) bool { return c.heldBy(a) != c.heldBy(b) })
}

// Rules 23, 24, 26: on random rings a Cover answers as the oracle does, which looks at each token by itself.
func TestCoverAnswersAsOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 26))
	shifts := []uint64{0, 0, 1, 15, 16, 17, math.MaxUint64, 1 << 63}
	for range 4000 {
		tc := coverCase{
			points:   make([]byte, r.IntN(24)),
			shift:    shifts[r.IntN(len(shifts))],
			replicas: r.IntN(11) - 1,
			answers:  make([]byte, r.IntN(12)),
			dead:     byte(r.Uint32() & r.Uint32()),
			seed:     r.Uint64(),
		}
		mask := byte(r.Uint32() | r.Uint32()) // for rings of few peers and few tokens
		for i := range tc.points {
			tc.points[i] = byte(r.Uint32()) & mask
		}
		for i := range tc.answers {
			tc.answers[i] = byte(r.Uint32())
		}
		wantCoverAsOracle(t, tc)
	}
}

func FuzzCover(f *testing.F) {
	f.Add([]byte(nil), uint64(0), 3, []byte{0xf0}, byte(0), uint64(0))                           // an empty ring
	f.Add([]byte{0}, uint64(0), 1, []byte{0xf0}, byte(0), uint64(0))                             // one range, from 1 to 0
	f.Add([]byte{255}, uint64(0), 0, []byte{0xf0}, byte(0x80), uint64(1))                        // one range, from 0 to the end
	f.Add([]byte{0, 1, 2}, uint64(7), 2, []byte{0xf2, 0xf1, 0xf0}, byte(1), uint64(2))           // three points on one token
	f.Add([]byte{0, 9, 18, 27, 36}, uint64(0), 3, []byte{0xf1, 0xf4}, byte(2), uint64(3))        // adjacent tokens
	f.Add([]byte{0, 1, 250, 251}, uint64(0), 1, []byte{0xf1, 0xf2, 0xf2}, byte(0), uint64(4))    // both ends
	f.Add([]byte{0, 9, 0, 9, 255}, uint64(1)<<63, math.MaxInt, []byte{0xf1}, byte(3), uint64(5)) // duplicates
	f.Add([]byte{0, 9, 18}, uint64(0), math.MinInt, []byte{0xf1}, byte(0xff), uint64(6))         // nobody is live
	f.Fuzz(func(t *testing.T, points []byte, shift uint64, replicas int, answers []byte, dead byte, seed uint64) {
		wantCoverAsOracle(t, coverCase{points, shift, replicas, answers[:min(len(answers), 64)], dead, seed})
	})
}

// The oracle itself, on a ring that can be checked by eye.
func TestCoverOracle(t *testing.T) {
	ring := NewRing(Point{2, "a"}, Point{4, "b"}, Point{4, "c"}, Point{math.MaxUint64, "d"})
	o := newCoverOracle(ring, 2, 0)
	assert.Equal(t, []PeerID{"a", "b"}, o.cells[0].holders)
	assert.Equal(t, []PeerID{"b", "c"}, o.cells[3].holders)
	assert.Equal(t, []PeerID{"d", "a"}, o.cells[5].holders)
	assert.Equal(t, 3, o.cells[16].slot)
	assert.Equal(t, []PeerID{"d", "a"}, o.cells[32].holders)

	answered := map[PeerID]bool{"c": true}
	assert.False(t, o.whole(answered))
	assert.Equal(t, 2.0/(1<<64), o.share(answered))
	assert.Equal(t, []Gap{{5, 2, math.Nextafter(1, 0), []PeerReport{newTestReport("d"), newTestReport("a"), newTestReport("b")}}},
		o.gaps(answered))
	answered["d"] = true
	assert.Equal(t, []Gap{{0, 2, 3.0 / (1 << 64), []PeerReport{newTestReport("a"), newTestReport("b")}}}, o.gaps(answered))
	answered["a"] = true
	assert.True(t, o.whole(answered))
	assert.Empty(t, o.gaps(answered))
}

// Rule 23: a share is 1 only if it is all, 0 only if it is nothing, and is not rounded in between.
func TestShareIsExact(t *testing.T) {
	assert.Equal(t, 1.0, shareBut(0, 0))
	assert.Equal(t, math.Nextafter(1, 0), shareBut(0, 1))
	assert.Equal(t, 0.5, shareBut(0, 1<<63))
	assert.Equal(t, 1.0/(1<<64), shareBut(0, math.MaxUint64))
	assert.Equal(t, 0.0, shareBut(1, 0))
	assert.Equal(t, 0.0, shareOf(0, 0))
	assert.Equal(t, math.Nextafter(1, 0), shareOf(0, math.MaxUint64))
	assert.Equal(t, 1.0, shareOf(1, 0))
}

// Rule 24: a gap is readable in a log line.
func TestGapString(t *testing.T) {
	gap := Gap{First: 1, Last: 1 << 63, Share: 0.5, Holders: []PeerReport{{Peer: "b", Status: TimedOut}, {Peer: "c", Status: Dead}}}
	assert.Equal(t, "0x0000000000000001-0x8000000000000000 (50.00%): b TimedOut, c Dead", gap.String())
	empty := newCoverage(NewCover(nil, 3), false)
	require.Len(t, empty.gaps(nil), 1)
	assert.Equal(t, "0x0000000000000000-0xffffffffffffffff (100.00%)", empty.gaps(nil)[0].String())
}

// newTestVnodes makes a ring of points with random tokens, that fall to the peers in turn.
func newTestVnodes(points, peers int, seed uint64) *Ring {
	r := rand.New(rand.NewPCG(seed, 0))
	list := make([]Point, points)
	for i := range list {
		list[i] = Point{r.Uint64(), PeerID(fmt.Sprintf("peer-%04d", i%peers))}
	}
	return NewRing(list...)
}

// Rule 26: with one token for each of 100 peers and 3 replicas a plan asks 34, over many seeds each peer about as often.
func TestPlanOneTokenEach(t *testing.T) {
	even := make([]Point, 100)
	for i := range even {
		even[i] = Point{uint64(i) * (math.MaxUint64 / 100), PeerID(fmt.Sprintf("peer-%04d", i))}
	}
	for name, ring := range map[string]*Ring{"random": newTestVnodes(100, 100, 26), "even": NewRing(even...)} {
		t.Run(name, func(t *testing.T) {
			c := NewCover(ring, 3)
			const seeds = 2000
			asked := make(map[PeerID]int)
			for seed := range uint64(seeds) {
				plan := c.Plan(nil, seed)
				require.Equal(t, 34, len(plan), "seed %d", seed)
				for _, peer := range plan {
					asked[peer]++
				}
			}
			for peer, times := range asked {
				assert.LessOrEqual(t, float64(times), 1.3*34*seeds/100, "times %s is asked", peer)
			}
		})
	}
}

// Rule 26: with many tokens for each peer, and with peers that are dead, a plan is within a tenth of the best of many tries.
func TestPlanNearBestOfManyTries(t *testing.T) {
	tests := []struct{ points, peers, replicas, dead int }{
		{80, 10, 2, 0}, {80, 10, 3, 0}, {80, 10, 3, 2}, {320, 20, 2, 3}, {320, 20, 3, 0}, {320, 20, 3, 3},
		{100, 100, 2, 10}, {100, 100, 3, 10}, {400, 100, 3, 0}, {800, 100, 2, 0}, {800, 100, 3, 0}, {800, 100, 3, 10},
		{400, 200, 3, 0}, {3200, 100, 2, 10}, {3200, 100, 3, 0},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("points=%d/peers=%d/replicas=%d/dead=%d", tt.points, tt.peers, tt.replicas, tt.dead), func(t *testing.T) {
			c := NewCover(newTestVnodes(tt.points, tt.peers, 27), tt.replicas)
			p := planner{Cover: c, r: rand.New(rand.NewPCG(26, 27)), alive: make([]bool, tt.peers)}
			for i := range p.alive {
				p.alive[i] = i >= tt.dead
			}
			live := func(peer PeerID) bool { return p.alive[c.number(peer)] }

			best := math.MaxInt
			for range 300 {
				best = min(best, len(p.sweep()), len(p.greedy()), len(p.leaveOut()))
			}
			for seed := range uint64(30) {
				plan := c.Plan(live, seed)
				assert.LessOrEqual(t, 10*len(plan), 11*best, "a plan asks %d, the best of many tries %d", len(plan), best)
			}
		})
	}
}

// leaveOut takes all that are live, and leaves them out in random order as long as nothing is missed.
func (p *planner) leaveOut() []int32 {
	c := p.start()
	for peer := range p.alive {
		if p.alive[peer] {
			c.choose(int32(peer))
		}
	}
	return c.prune()
}

// Issue 3: a query's accounting allocates two or three things, however large the ring.
func TestCoverageAllocs(t *testing.T) {
	for _, counting := range []bool{false, true} {
		c := NewCover(newTestVnodes(6400, 100, 28), 3)
		order := rand.New(rand.NewPCG(28, 0)).Perm(100)
		allocs := testing.AllocsPerRun(10, func() { account(c, order, counting) })
		assert.LessOrEqual(t, allocs, 3.0, "counting: %v", counting)
	}
}

// account keeps account of a query that the peers answer in the given order, and returns whether it is whole.
func account(c *Cover, order []int, counting bool) bool {
	query := newCoverage(c, counting)
	whole := false
	for _, peer := range order {
		query.answer(int32(peer))
		whole = query.whole()
	}
	return whole
}

// Claims: a Cover is made once for each ring, and a plan where there are thousands of points; what a query costs follows
// its peers, and the ranges of the last few of them, unless answers are counted at once, which takes them all.
func BenchmarkCover(b *testing.B) {
	for _, size := range []struct{ points, peers int }{{100, 100}, {6400, 100}, {128000, 2000}} {
		ring := newTestVnodes(size.points, size.peers, 29)
		c := NewCover(ring, 3)
		order := rand.New(rand.NewPCG(29, 0)).Perm(size.peers)
		seed := uint64(0)
		for _, op := range []struct {
			name string
			run  func()
		}{
			{"new", func() { NewCover(ring, 3) }},
			{"plan", func() { seed++; c.Plan(nil, seed) }},
			{"account", func() { account(c, order, false) }},
			{"count", func() { account(c, order, true) }},
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
