package scatter

import (
	"context"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// placement is who holds which tokens, as plainly as it can be said. ends are the last tokens of
// stretches on which the holders are the same.
type placement struct {
	cover   *Cover
	ends    []uint64
	holders func(token uint64) []PeerID
}

func randomPlacement(r *rand.Rand, peers []PeerID, joins int) placement {
	some := func(most int) []PeerID {
		var list []PeerID
		for range r.IntN(most + 1) {
			list = append(list, peers[r.IntN(len(peers))])
		}
		return list
	}
	switch kind := r.IntN(4); {
	case kind == 0 && joins > 0:
		a, b := randomPlacement(r, peers, joins-1), randomPlacement(r, peers, joins-1)
		return placement{
			JoinCovers(a.cover, nil, b.cover), append(a.ends, b.ends...),
			func(token uint64) []PeerID { return append(a.holders(token), b.holders(token)...) },
		}
	case kind == 1:
		groups := make([][]PeerID, r.IntN(6))
		for i := range groups {
			groups[i] = some(3)
		}
		return groupPlacement(groups)
	case kind == 2:
		return rangePlacement(r, some)
	}
	points := make([]Point, r.IntN(10))
	for i := range points {
		points[i] = Point{randomToken(r), peers[r.IntN(len(peers))]}
	}
	return ringPlacement(points, 1+r.IntN(4))
}

func ringPlacement(points []Point, replicas int) placement {
	p := placement{cover: NewCover(NewRing(points...), replicas)}
	points = slices.Clone(points)
	slices.SortFunc(points, func(a, b Point) int {
		if a.Token != b.Token {
			return new(big.Int).SetUint64(a.Token).Cmp(new(big.Int).SetUint64(b.Token))
		}
		return slices.Compare([]byte(a.Peer), []byte(b.Peer))
	})
	for _, point := range points {
		p.ends = append(p.ends, point.Token)
	}
	p.holders = func(token uint64) []PeerID {
		first := 0
		for first < len(points) && points[first].Token < token {
			first++
		}
		var holders []PeerID
		for i := range points {
			peer := points[(first+i)%len(points)].Peer
			if len(holders) < replicas && !slices.Contains(holders, peer) {
				holders = append(holders, peer)
			}
		}
		return holders
	}
	return p
}

func groupPlacement(groups [][]PeerID) placement {
	n := big.NewInt(int64(len(groups)))
	shard := func(token uint64) int {
		product := new(big.Int).Mul(new(big.Int).SetUint64(token), n)
		return int(product.Rsh(product, 64).Int64())
	}
	p := placement{cover: NewGroupCover(groups...), holders: func(token uint64) []PeerID {
		if len(groups) == 0 {
			return nil
		}
		return slices.Clone(groups[shard(token)])
	}}
	for i := 1; i < len(groups); i++ { // the last token of shard i-1 is about 2^64 i / n
		last := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(int64(i)), 64), n).Uint64() + 1
		for shard(last) >= i {
			last--
		}
		p.ends = append(p.ends, last)
	}
	return p
}

func rangePlacement(r *rand.Rand, some func(int) []PeerID) placement {
	var cuts []uint64
	for range r.IntN(7) {
		cuts = append(cuts, randomToken(r))
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var ranges []Range
	for i, first := range cuts {
		if r.IntN(4) > 0 {
			ranges = append(ranges, Range{first, cuts[(i+1)%len(cuts)] - 1, some(3)})
		}
	}
	r.Shuffle(len(ranges), func(i, j int) { ranges[i], ranges[j] = ranges[j], ranges[i] })
	cover, err := NewRangeCover(ranges...)
	if err != nil {
		panic(err)
	}
	p := placement{cover: cover, holders: func(token uint64) []PeerID {
		for _, rg := range ranges {
			if token-rg.First <= rg.Last-rg.First {
				return slices.Clone(rg.Holders)
			}
		}
		return nil
	}}
	for _, cut := range cuts {
		p.ends = append(p.ends, cut-1)
	}
	return p
}

// oracleRange is a stretch of the token space that has the same holders and knows its documents.
type oracleRange struct {
	first, last uint64
	width       *big.Int
	holders     []PeerID
	docs        hitList
}

func (o *oracleRange) isHeldBy(has map[PeerID]bool) bool {
	return slices.ContainsFunc(o.holders, func(peer PeerID) bool { return has[peer] })
}

// oracleOutcome is what one peer does: it ends with a status after some time, if it is let.
type oracleOutcome struct {
	after  time.Duration
	status Status
	err    error
}

// oracleCase is a random query: who holds what, and what each peer does.
type oracleCase struct {
	cover    *Cover // nil: the answer is judged by peers
	ranges   []oracleRange
	foreign  map[PeerID]hitList // what peers on no Cover hold
	peers    []PeerID           // as passed
	distinct []PeerID
	outcomes map[PeerID]oracleOutcome
	req      *Request
	opts     Options
	async    bool
	until    time.Duration // the deadline of the query's context; zero: none
	cancel   time.Duration // when it is cancelled; zero: neverDone
}

const oracleDeadline = 1000 * time.Millisecond

func newOracleCase(r *rand.Rand) *oracleCase {
	onCover := somePeers(1 + r.IntN(8))
	p := randomPlacement(r, onCover, 2)
	c := &oracleCase{
		cover: p.cover, foreign: map[PeerID]hitList{}, outcomes: map[PeerID]oracleOutcome{},
		req:   &Request{Query: orderedQuery(allOrders[r.IntN(3)]), K: 1 + r.IntN(8)},
		async: r.IntN(2) == 0,
	}
	ndocs := 0
	doc := func() Hit[string] {
		ndocs++
		return Hit[string]{fmt.Sprint(r.IntN(10), "-", ndocs), float32(r.IntN(5))}
	}
	ends := append(p.ends, math.MaxUint64)
	slices.Sort(ends)
	first := uint64(0)
	for _, last := range slices.Compact(ends) {
		o := oracleRange{first: first, last: last, holders: p.holders(last)}
		o.width = new(big.Int).SetUint64(last - first)
		o.width.Add(o.width, big.NewInt(1))
		for range r.IntN(4) {
			o.docs = append(o.docs, doc())
		}
		c.ranges = append(c.ranges, o)
		first = last + 1
	}
	for _, peer := range append(onCover, "foreign0", "foreign1") {
		switch {
		case r.IntN(5) == 0:
			continue
		case !slices.Contains(c.cover.Peers(), peer):
			c.foreign[peer] = hitList{doc(), doc()}
		}
		c.distinct = append(c.distinct, peer)
	}
	r.Shuffle(len(c.distinct), func(i, j int) { c.distinct[i], c.distinct[j] = c.distinct[j], c.distinct[i] })
	c.peers = append(slices.Clone(c.distinct), c.distinct[:r.IntN(len(c.distinct)+1)]...)
	for i, peer := range c.distinct {
		c.outcomes[peer] = randomOutcome(r, i)
	}
	c.setOptions(r)
	return c
}

func randomOutcome(r *rand.Rand, i int) oracleOutcome {
	// No two peers end at the same time, but at once and at the deadline.
	d := time.Duration(1+r.IntN(999))*time.Millisecond - time.Duration(1+i)
	if r.IntN(4) == 0 {
		d = 0
	}
	switch r.IntN(8) {
	case 0:
		return oracleOutcome{oracleDeadline, TimedOut, nil} // it obeys its context
	case 1:
		return oracleOutcome{oracleDeadline, TimedOut, errBroke} // it answers too late
	case 2:
		return oracleOutcome{d, Failed, errBroke}
	case 3:
		return oracleOutcome{d, Incomplete, ErrPartial}
	case 4:
		return oracleOutcome{0, Dead, nil}
	}
	return oracleOutcome{d, Answered, nil}
}

func (c *oracleCase) setOptions(r *rand.Rand) {
	c.opts = Options{PeerDeadline: oracleDeadline, Limit: max(r.IntN(8)-3, 0), WaitAll: r.IntN(3) == 0}
	c.opts.Live = func(peer PeerID) bool { return c.outcomes[peer].status != Dead }
	if r.IntN(3) > 0 {
		c.opts.Cover = c.cover
	}
	// Half a millisecond, so that nothing else happens then.
	at := time.Duration(r.IntN(2000))*time.Millisecond + 500*time.Microsecond
	switch r.IntN(4) {
	case 0:
		c.until = at
	case 1:
		c.cancel = at
	}
}

// reply returns all that a peer holds, best first, and sometimes in no order or less than K of it.
func (c *oracleCase) reply(peer PeerID) hitList {
	hits := slices.Clone(c.foreign[peer])
	for _, o := range c.ranges {
		if slices.Contains(o.holders, peer) {
			hits = append(hits, o.docs...)
		}
	}
	slowSort(hits, c.req.Query.Order())
	if len(peer)%2 == 0 {
		hits = hits[:min(len(hits), c.req.K)]
	}
	return hits
}

func (c *oracleCase) probe(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
	o := c.outcomes[peer]
	switch {
	case o.status == TimedOut && o.err == nil:
		<-ctx.Done()
		return nil, ctx.Err()
	case o.status == TimedOut:
		time.Sleep(2 * o.after)
		return c.reply(peer), nil
	}
	time.Sleep(o.after)
	if o.status == Failed {
		return nil, o.err
	}
	return c.reply(peer), o.err
}

func (c *oracleCase) run(t *testing.T) (*Response[Hit[string]], error) {
	ctx := t.Context()
	if c.until > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, c.until)
		defer stop()
	}
	if c.cancel > 0 {
		canceled, cancel := context.WithCancelCause(ctx)
		ctx = canceled
		stop := time.AfterFunc(c.cancel, func() { cancel(errBroke) })
		defer stop.Stop()
	}
	if !c.async {
		return Broadcast(ctx, c.req, c.peers, c.probe, &c.opts)
	}
	return BroadcastAsync(ctx, c.req, c.peers,
		func(ctx context.Context, peer PeerID, req *Request, done func([]Hit[string], error)) {
			if o := c.outcomes[peer]; o.after == 0 {
				done(c.probe(ctx, peer, req))
				return
			}
			go func() { done(c.probe(ctx, peer, req)) }()
		}, &c.opts)
}

// oracleLine is what the oracle says of a peer.
type oracleLine struct {
	start, end time.Duration // negative: not asked
	status     Status
}

// simulate says when the query ends, and what becomes of each peer by then.
func (c *oracleCase) simulate() (end time.Duration, lines map[PeerID]oracleLine, complete bool) {
	lines = map[PeerID]oracleLine{}
	answered, hoped := map[PeerID]bool{}, map[PeerID]bool{}
	var waiting []PeerID
	for _, peer := range c.distinct {
		if c.outcomes[peer].status == Dead {
			lines[peer] = oracleLine{-1, -1, Dead}
			continue
		}
		hoped[peer] = true
		waiting = append(waiting, peer)
	}
	limit := max(c.until, c.cancel)
	var out []PeerID
	for now := time.Duration(0); ; {
		if c.nothingCanCome(answered, hoped, len(out)+len(waiting)) {
			return now, lines, true
		}
		for len(waiting) > 0 && (c.opts.Limit == 0 || len(out) < c.opts.Limit) {
			peer := waiting[0]
			lines[peer] = oracleLine{now, now + c.outcomes[peer].after, c.outcomes[peer].status}
			out, waiting = append(out, peer), waiting[1:]
		}
		next := slices.MinFunc(out, func(a, b PeerID) int { return int(lines[a].end - lines[b].end) })
		if limit > 0 && lines[next].end > limit {
			return limit, lines, false
		}
		now = lines[next].end
		for _, peer := range slices.Clone(out) {
			if lines[peer].end == now {
				out = slices.DeleteFunc(out, func(p PeerID) bool { return p == peer })
				answered[peer] = lines[peer].status == Answered
				hoped[peer] = answered[peer]
			}
		}
	}
}

// nothingCanCome is rule 42.
func (c *oracleCase) nothingCanCome(answered, hoped map[PeerID]bool, left int) bool {
	if left == 0 {
		return true
	}
	if c.opts.Cover == nil || c.opts.WaitAll {
		return false
	}
	whole, foreign := true, false
	for peer := range c.foreign {
		foreign = foreign || hoped[peer] && !answered[peer]
	}
	for _, o := range c.ranges {
		if !o.isHeldBy(answered) {
			whole = false
			if o.isHeldBy(hoped) {
				return false
			}
		}
	}
	return whole || !foreign
}

// check compares a Response with the oracle.
func (c *oracleCase) check(t *testing.T, r *Response[Hit[string]], err error) {
	end, lines, complete := c.simulate()
	require.Equal(t, end, r.Elapsed, "%s", summary(r))
	require.Len(t, r.Peers, len(c.distinct))
	if !complete && c.cancel > 0 {
		require.Equal(t, errBroke, err)
	} else {
		require.NoError(t, err)
	}
	answered := map[PeerID]bool{}
	var replies []hitList
	for i, line := range r.Peers {
		require.Equal(t, c.distinct[i], line.Peer)
		require.Contains(t, c.allowed(line.Peer, lines, end, complete), line.Status, "%s: %s", line.Peer, summary(r))
		answered[line.Peer] = line.Status == Answered
		if line.Status == Answered || line.Status == Incomplete {
			replies = append(replies, c.reply(line.Peer))
		}
	}
	wantSame(t, slowMerge(replies, c.req.K, c.req.Query.Order()), r.Hits)
	c.checkCoverage(t, r, answered)
}

// allowed returns what may become of a peer. If things happen at the very end, either may come
// first.
func (c *oracleCase) allowed(peer PeerID, lines map[PeerID]oracleLine, end time.Duration, complete bool) []Status {
	out := TimedOut
	switch {
	case complete:
		out = NotNeeded
	case c.cancel > 0:
		out = Abandoned
	}
	line, asked := lines[peer]
	switch {
	case !asked:
		if end == 0 || complete { // several answers at the end may have made room one by one
			return []Status{NotAsked, out}
		}
		return []Status{NotAsked}
	case line.status == Dead || line.end < end:
		return []Status{line.status}
	case line.end == end && line.start == end:
		return []Status{line.status, out, NotAsked}
	case line.end == end:
		return []Status{line.status, out}
	}
	if !complete && c.opts.Cover != nil && !c.opts.WaitAll && len(lines) > 1 {
		// Another peer may end at this very moment, by itself or as its context ends, and leave nothing to
		// wait for.
		return []Status{out, NotNeeded}
	}
	return []Status{out}
}

// checkCoverage is rule 33: the Coverage is exactly the share whose holder has answered, Missing is
// the rest, and the hits are the best of all that the answering peers hold.
func (c *oracleCase) checkCoverage(t *testing.T, r *Response[Hit[string]], answered map[PeerID]bool) {
	order, incomplete := c.req.Query.Order(), 0
	var known hitList
	for _, line := range r.Peers {
		if line.Status == Incomplete {
			incomplete++
		} else if answered[line.Peer] {
			known = append(known, c.foreign[line.Peer]...)
		}
	}
	missing := new(big.Int)
	var open []oracleRange
	for _, o := range c.ranges {
		if o.isHeldBy(answered) {
			known = append(known, o.docs...)
			continue
		}
		missing.Add(missing, o.width)
		if last := len(open) - 1; last >= 0 && open[last].last+1 == o.first {
			joined := &open[last]
			joined.last, joined.width = o.last, new(big.Int).Add(joined.width, o.width)
			joined.holders = append(slices.Clone(joined.holders), o.holders...)
		} else {
			open = append(open, o)
		}
	}
	if incomplete == 0 {
		wantSame(t, slowMerge([]hitList{known}, c.req.K, order), r.Hits)
	}
	if c.opts.Cover == nil {
		n := 0
		for _, yes := range answered {
			n += int(count(yes))
		}
		require.Equal(t, float64(n)/max(float64(len(c.distinct)), 1), r.Coverage)
		require.Equal(t, n < len(c.distinct) || n == 0, r.Partial)
		require.Empty(t, r.Missing)
		return
	}
	all := new(big.Int).Lsh(big.NewInt(1), 64)
	require.Equal(t, shareOf(all.Sub(all, missing)), r.Coverage)
	require.Equal(t, missing.Sign() > 0, r.Partial)
	c.checkMissing(t, open, r.Missing)
}

// shareOf returns a number of tokens as a share: 1 only if it is all of them. Rule 23.
func shareOf(tokens *big.Int) float64 {
	share, _ := new(big.Rat).SetFrac(tokens, new(big.Int).Lsh(big.NewInt(1), 64)).Float64()
	if tokens.BitLen() <= 64 {
		share = min(share, math.Nextafter(1, 0))
	}
	return share
}

func (c *oracleCase) checkMissing(t *testing.T, open []oracleRange, missing []MissingRange) {
	// What ends with the largest token and what begins with token 0 is one stretch.
	if n := len(open); n > 1 && open[0].first == 0 && open[n-1].last == math.MaxUint64 {
		open[n-1].last = open[0].last
		open[n-1].width = new(big.Int).Add(open[0].width, open[n-1].width)
		open[n-1].holders = append(slices.Clone(open[n-1].holders), open[0].holders...)
		open = open[1:]
	}
	require.Len(t, missing, len(open))
	for i, o := range open {
		m := missing[i]
		require.Equal(t, shareOf(o.width), m.Share)
		if m.Share == 1 {
			require.Equal(t, m.First, m.Last+1, "all of it may begin anywhere")
		} else {
			require.Equal(t, []uint64{o.first, o.last}, []uint64{m.First, m.Last})
		}
		want, got := slices.Clone(o.holders), slices.Clone(m.Holders)
		slices.Sort(want)
		slices.Sort(got)
		wantSame(t, slices.Compact(want), got)
	}
}

// Rules 5 to 10, 23, 24, 25, 31, 33, 42: random Covers of all kinds, and peers that answer, answer
// in part, fail, hang, reply too late, or are dead.
func TestBroadcastAsOracle(t *testing.T) {
	for seed := range uint64(*randomCases) {
		ok := t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newOracleCase(rand.New(rand.NewPCG(33, seed)))
				r, err := c.run(t)
				time.Sleep(time.Hour) // for the late ones
				require.NotNil(t, r)
				c.check(t, r, err)
			})
		})
		if !ok {
			t.Fatalf("seed %d", seed)
		}
	}
}
