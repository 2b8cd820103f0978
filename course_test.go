package scatter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// never is the time of what doesn't happen. All times of a case are since the query began.
const never time.Duration = 1 << 60

// queryCase is a query, and what each peer makes of it.
type queryCase struct {
	ranges   []Range // next to each other, all of the token space; nil: there is no Cover
	strategy bool    // a strategy chooses, so there are standbys
	peers    []PeerID
	standbys []PeerID
	dead     []PeerID

	limit        int // 0: none
	peerDeadline time.Duration
	until        time.Duration // the query's deadline, before the reserve
	reserve      time.Duration
	cancel       time.Duration // when the query is cancelled
	extend       time.Duration // when the query's deadline changes,
	extended     time.Duration // and to what
	full         [][2]time.Duration
	waitAll      bool
	minimum      float64
	enough       float64
	grace        time.Duration

	delay    time.Duration // of hedges; 0: there are none
	weights  map[PeerID]float64
	busy     map[PeerID]bool
	budget   bool // the purses are bounded,
	fallback float64
	hedge    float64 // to so much at first,
	shares   [2]float64

	replies map[PeerID]caseReply
}

// caseReply is how long a peer takes, and what it returns then.
type caseReply struct {
	after time.Duration // never: it doesn't
	hits  []Hit[string]
	err   error
}

// The errors that probes return.
var (
	errOwnTimeout = fmt.Errorf("rpc: %w", context.DeadlineExceeded)
	errPart       = fmt.Errorf("a shard: %w", ErrPartial)
	errWrong      = fmt.Errorf("a bad query: %w", ErrPermanent)
	errPanicked   = &PanicError{Value: ErrPermanent}
)

// draw returns a number from 0 up to n.
type draw func(n int) int

func (d draw) chance(n int) bool { return d(n) == 0 }

// newQueryCase draws a case of a few peers so that most of what can happen does.
func newQueryCase(d draw) *queryCase {
	qc := &queryCase{
		until: never, cancel: never, extend: never, extended: never, peerDeadline: never,
		replies: map[PeerID]caseReply{}, weights: map[PeerID]float64{}, busy: map[PeerID]bool{},
	}
	odd := time.Duration(0) // keeps apart what would fall on the same moment
	upTo := func(ms int) time.Duration {
		odd += odd>>1 + 1
		return time.Duration(d(ms)+1)*time.Millisecond + odd%999_983
	}
	qc.drawPeers(d)
	for _, peer := range slices.Concat(qc.peers, qc.standbys) {
		qc.replies[peer] = drawReply(d, upTo)
	}
	if d.chance(2) {
		qc.limit = 1 + d(4)
	}
	if d.chance(2) {
		qc.until = upTo(3000)
		if d.chance(3) {
			qc.reserve = upTo(3000)
		}
	}
	if qc.until == never || d.chance(2) { // or else it may never end
		qc.peerDeadline = upTo(2000)
	}
	if d.chance(8) {
		qc.cancel = upTo(3000)
	}
	if d.chance(8) {
		qc.extend = upTo(1000)
		qc.extended = qc.extend + upTo(3000)
	}
	for from := time.Duration(0); len(qc.full) < 3 && d.chance(3); {
		from += upTo(300)
		to := from + upTo(1500)
		qc.full = append(qc.full, [2]time.Duration{from, to})
		from = to
	}
	if d.chance(8) {
		qc.full = append([][2]time.Duration{{0, upTo(1)}}, qc.full...)
	}
	switch d(4) {
	case 0:
		qc.waitAll = true
	case 1:
		qc.enough = float64(1+d(8)) / 8
		if !d.chance(3) {
			qc.grace = upTo(800)
		}
	}
	if d.chance(3) {
		qc.minimum = float64(1+d(8)) / 8
		if qc.enough > 0 {
			qc.minimum = min(qc.minimum, qc.enough)
		}
	}
	return qc
}

// drawPeers draws who holds what, who is asked and who stands by.
func (qc *queryCase) drawPeers(d draw) {
	names := []PeerID{"a", "b", "c", "d", "e", "f", "g", "h"}[:1+d(8)]
	if d.chance(6) { // without a Cover
		qc.peers = names
	} else {
		for from := 0; from < 16; {
			to := from + 1 + d(16-from)
			r := Range{First: uint64(from) << 60, Last: uint64(to)<<60 - 1}
			for range (1 + d(6)) % 6 {
				if peer := names[d(len(names))]; !slices.Contains(r.Holders, peer) {
					r.Holders = append(r.Holders, peer)
				}
			}
			qc.ranges = append(qc.ranges, r)
			from = to
		}
	}
	qc.strategy = qc.ranges != nil && !d.chance(4)
	if !qc.strategy {
		qc.peers = names // some of which may be on no range
		for _, peer := range names {
			if d.chance(6) {
				qc.dead = append(qc.dead, peer)
			}
		}
		return
	}
	for _, peer := range qc.cover().Peers() {
		switch d(9) {
		case 0, 1, 2, 3:
			qc.peers = append(qc.peers, peer)
		case 4, 5, 6, 7:
			qc.standbys = append(qc.standbys, peer)
		default:
			qc.dead = append(qc.dead, peer)
		}
		qc.weights[peer] = 1 + float64(d(1000))/1000 + float64(len(qc.weights))/1e6
		qc.busy[peer] = d.chance(8)
	}
	if d.chance(2) {
		qc.delay = time.Duration(1+d(400))*time.Millisecond + 7
		if d.chance(4) {
			qc.delay = time.Duration(1 + d(1000))
		}
	}
	if d.chance(2) {
		qc.budget, qc.fallback, qc.hedge = true, float64(d(8))/2, float64(d(8))/2
		qc.shares = [2]float64{[]float64{0.5, 0.25}[d(2)], []float64{0.05, 1}[d(2)]}
	}
}

func drawReply(d draw, upTo func(ms int) time.Duration) caseReply {
	r := caseReply{after: upTo(600)}
	score := 0
	for id := d(6); len(r.hits) < d(testRequest.K+1); id += 1 + d(3) {
		r.hits = append(r.hits, Hit[string]{fmt.Sprint("id", id), float32(score)})
		score += d(3)
	}
	if d.chance(5) {
		slices.Reverse(r.hits)
	}
	switch d(16) {
	case 0, 1:
		r.err = errBroke
	case 2:
		r.err = errPart
	case 3:
		r.err = errOwnTimeout
	case 4:
		r.err = errPanicked
	case 5:
		r.after = never
	case 6:
		r.after = upTo(3000)
	case 7:
		if d.chance(3) {
			r.err = errWrong
		}
	}
	return r
}

func (qc *queryCase) cover() *Cover {
	c, err := NewRangeCover(qc.ranges...)
	if err != nil {
		panic(err)
	}
	return c
}

// queryResult is all that is compared of a query.
type queryResult struct {
	Asks     []string // in order
	Learned  []string // what the strategy is told, sorted
	Response Response[Hit[string]]
	Errs     []string // of Response.Peers, which have none here
	Err      string
	Purses   [2]float64
}

// String returns the result on several lines.
func (r *queryResult) String() string {
	var s strings.Builder
	for _, a := range r.Asks {
		fmt.Fprintln(&s, "   ", a)
	}
	for i, p := range r.Response.Peers {
		fmt.Fprintf(&s, "    %+v %s\n", p, r.Errs[i])
	}
	resp := r.Response
	for _, m := range sortedMissing(resp.Missing) {
		fmt.Fprintf(&s, "    missing %x to %x, %v, of %v\n", m.First, m.Last, m.Share, m.Holders)
	}
	resp.Peers, resp.Missing = nil, nil
	fmt.Fprintf(&s, "    %+v\n    error %q, purses %v, learned %v\n", resp, r.Err, r.Purses, r.Learned)
	return s.String()
}

// runCoordinator does with a Coordinator what the oracle does by itself: it is the transport and the
// clock.
func (qc *queryCase) runCoordinator() (*queryResult, error) {
	type sent struct {
		at    time.Duration
		index int
		reply caseReply
	}
	var (
		now     time.Duration
		replies []sent // under way
		got     = new(queryResult)
		refused bool
	)
	ask := func(a Ask) bool {
		if refused = qc.isFull(now); refused {
			return false
		}
		got.Asks = append(got.Asks, tellAsk(now, a.Peer, a.Role, since(a.Deadline)))
		if r := qc.replies[a.Peer]; r.after != never {
			replies = append(replies, sent{now + r.after, a.Index, r})
		}
		return true
	}
	c, chosen, err := qc.newCoordinator(ask)
	if err != nil {
		return nil, err
	}
	c.Begin(t0, when(qc.until))
	for steps := 0; c.State() != Merging; steps++ {
		deadline := never
		if d, ok := c.Deadline(); ok {
			deadline = since(d)
		}
		first := -1
		for i := range replies {
			if first < 0 || replies[i].at < replies[first].at {
				first = i
			}
		}
		replied := never
		if first >= 0 {
			replied = replies[first].at
		}
		open := qc.opens(now)
		next := min(deadline, replied, qc.cancel, open)
		if now < qc.extend {
			next = min(next, qc.extend)
		}
		before := now
		now = next
		switch {
		case steps > 10_000:
			return nil, errors.New("goes on for ever")
		case next == never:
			return nil, fmt.Errorf("is stuck in %v", c.State())
		case next == replied: // what is in hand comes first
			r := replies[first]
			replies = slices.Delete(replies, first, first+1)
			c.Reply(when(now), r.index, r.reply.hits, r.reply.err)
			c.Reply(when(now), r.index, []Hit[string]{{"again", 0}}, nil) // does no harm
		case next == qc.cancel:
			c.Cancel(when(now), errBroke)
		case next == open:
			c.Retry(when(now))
		case next == qc.extend && before < qc.extend:
			c.course.step(when(now), event{kind: extend, at: when(qc.extended)})
		default:
			c.Advance(when(now))
		}
	}
	return got, got.tell(qc, c, chosen)
}

func (qc *queryCase) newCoordinator(ask func(Ask) bool) (*Coordinator[Hit[string], string], *fixed, error) {
	opts := &Options{
		PeerDeadline: qc.peerDeadline, Limit: qc.limit, MinCoverage: qc.minimum, EnoughCoverage: qc.enough, Grace: qc.grace,
		WaitAll: qc.waitAll, MergeReserve: qc.reserve,
	}
	if qc.peerDeadline == never {
		opts.PeerDeadline = -1
	}
	if !qc.strategy {
		opts.Live = func(peer PeerID) bool { return !slices.Contains(qc.dead, peer) }
		if qc.ranges != nil {
			opts.Cover = qc.cover()
		}
		c, err := NewCoordinator[Hit[string]](testRequest, qc.peers, ask, opts)
		return c, nil, err
	}
	chosen := &fixed{
		cover: qc.cover(), peers: qc.peers, standbys: qc.standbys, dead: qc.dead, delay: qc.delay, weights: qc.weights,
		busy: qc.busy,
	}
	if qc.budget {
		chosen.purses = newPurses(qc.shares[0], qc.shares[1], qc.fallback, qc.hedge)
	}
	c := new(Coordinator[Hit[string], string])
	err := c.init(testRequest, ask, opts)
	c.course.strategy = chosen
	return c, chosen, err
}

// tell has the result tell what came of a query.
func (r *queryResult) tell(qc *queryCase, c *Coordinator[Hit[string], string], chosen *fixed) error {
	r.Response = *c.Response()
	r.Response.Exact, r.Response.Next = 0, "" // they have an oracle of their own
	for i := range r.Response.Peers {
		p := &r.Response.Peers[i]
		r.Errs = append(r.Errs, fmt.Sprint(p.Err))
		if known := qc.replies[p.Peer].err; p.Status == Failed && p.Err != known {
			return fmt.Errorf("says that %s returned %v, not %v", p.Peer, p.Err, known)
		}
		p.Err = nil
	}
	err := c.Err()
	var short *CoverageError[Hit[string]]
	if errors.As(err, &short) && short.Response == c.Response() && short.MinCoverage == qc.minimum {
		r.Err = "coverage"
	} else {
		r.Err = fmt.Sprint(err)
	}
	if chosen == nil {
		return nil
	}
	for _, report := range chosen.reports {
		r.Learned = append(r.Learned, fmt.Sprint(report.Peer, report.Role, report.Status, report.Elapsed, report.Late))
	}
	slices.Sort(r.Learned)
	if qc.budget {
		r.Purses = [2]float64{chosen.purses.fallback.available(), chosen.purses.hedge.available()}
	}
	if chosen.chosen != 1 || chosen.finishes != 1 || chosen.out() != 0 {
		return fmt.Errorf("chose %d times, finished %d times, %d probes out", chosen.chosen, chosen.finishes, chosen.out())
	}
	return nil
}

func tellAsk(now time.Duration, peer PeerID, role Role, deadline time.Duration) string {
	return fmt.Sprint("ask ", peer, " ", role, " at ", now, ", deadline ", deadline)
}

func since(t time.Time) time.Duration {
	if t.IsZero() {
		return never
	}
	return t.Sub(t0)
}

func when(d time.Duration) time.Time {
	if d == never {
		return time.Time{}
	}
	return t0.Add(d)
}

// isFull reports whether nobody can be asked now.
func (qc *queryCase) isFull(now time.Duration) bool {
	return slices.ContainsFunc(qc.full, func(f [2]time.Duration) bool { return f[0] <= now && now < f[1] })
}

// opens returns when peers can be asked again next.
func (qc *queryCase) opens(now time.Duration) time.Duration {
	for _, f := range qc.full {
		if f[1] > now {
			return f[1]
		}
	}
	return never
}

// Rules 5 to 10, 24, 25, 27, 28, 31, 36 to 39 and 42: whatever peers do, a Coordinator asks whom the
// oracle asks, when it does, and gives the same answer.
func TestCoordinatorAgainstOracle(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(16_000) {
		r := rand.New(rand.NewPCG(seed, 27))
		qc := newQueryCase(r.IntN)
		want := newQueryOracle(qc).run()
		got, err := qc.runCoordinator()
		require.NoError(t, err, "seed %d, of %+v", seed, qc)
		if d := compareResults(want, got); d != "" {
			t.Fatalf("seed %d, of %+v: %s", seed, qc, d)
		}
		for _, p := range want.Response.Peers {
			seen[fmt.Sprint(p.Role, " ", p.Status)]++
			seen["late"] += int(count(p.Late))
		}
		seen["whole"] += int(count(!want.Response.Partial))
		seen[want.Err]++
	}
	for _, role := range []Role{Primary, Fallback, Hedge} {
		for status := NotAsked; status < Dead; status++ {
			require.Greater(t, seen[fmt.Sprint(role, " ", status)], 10, "%v %v is hardly tested: %v", role, status, seen)
		}
	}
	for _, what := range []string{"late", "whole", "coverage", "broke", errWrong.Error(), "Primary Dead"} {
		require.Greater(t, seen[what], 100, "%s is hardly tested: %v", what, seen)
	}
}

// A Coordinator agrees with the oracle on the cases that the fuzzer finds.
func FuzzCoordinator(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("scatter"))
	for seed := range uint64(8) {
		data := make([]byte, 200)
		r := rand.New(rand.NewPCG(seed, 1))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := func(n int) int {
			i := 0
			for most := n; most > 1; most >>= 8 { // as many bytes as n needs; none left: 0
				i <<= 8
				if len(data) > 0 {
					i += int(data[0])
					data = data[1:]
				}
			}
			return i % n
		}
		qc := newQueryCase(d)
		want := newQueryOracle(qc).run()
		got, err := qc.runCoordinator()
		require.NoError(t, err, "%+v", qc)
		if diff := compareResults(want, got); diff != "" {
			t.Fatalf("%+v: %s", qc, diff)
		}
	})
}

func compareResults(want, got *queryResult) string {
	if w, g := want.String(), got.String(); w != g {
		return fmt.Sprintf("\n  want\n%s  got\n%s", w, g)
	}
	return ""
}

// sortedMissing returns stretches with their holders by name.
func sortedMissing(missing []MissingRange) []MissingRange {
	for i := range missing {
		missing[i].Holders = slices.Sorted(slices.Values(missing[i].Holders))
	}
	slices.SortFunc(missing, func(a, b MissingRange) int { return cmp.Compare(a.First, b.First) })
	return missing
}
