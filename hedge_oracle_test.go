package scatter

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// queryOracle says what a Coordinator should do, by the rules as they read. It keeps little but the
// ledger, works out all else anew each time, and looks for what happens next among all that can.
type queryOracle struct {
	*queryCase
	order  []PeerID // of the Cover
	ready  map[PeerID]bool
	ledger []*oraclePeer
	result *queryResult
	purse  [2]int64 // fallbacks and hedges, in millionths of a probe

	now, end time.Duration // end: when the query's time is up
	graceAt  time.Duration
	over     bool
	enough   bool // the query ends because of that,
	cause    error
}

// oraclePeer is a line of the ledger in the making.
type oraclePeer struct {
	PeerReport
	hits    []Hit[string]
	err     string
	asked   bool
	final   bool
	dropped bool
	slow    bool // a hedge was to be asked in its place
	instead *oraclePeer

	askedAt, unitAt, hedgeAt time.Duration // unitAt: since when it has waited for a unit
	hedgeWait                time.Duration
}

func (p *oraclePeer) waiting() bool { return !p.asked && !p.final && !p.dropped }
func (p *oraclePeer) out() bool     { return p.asked && !p.final }

// hoped reports whether the peer has answered or may.
func (p *oraclePeer) hoped() bool { return !p.dropped && (!p.final || p.Status == Answered) }

func newQueryOracle(qc *queryCase) *queryOracle {
	m := &queryOracle{
		queryCase: qc, ready: map[PeerID]bool{}, result: new(queryResult), end: never, graceAt: never,
		purse: [2]int64{int64(qc.fallback * 1e6), int64(qc.hedge * 1e6)},
	}
	if !qc.strategy {
		for _, peer := range qc.peers {
			m.add(peer, Primary, nil)
		}
	} else {
		m.order = qc.cover().Peers()
		for _, peer := range qc.standbys {
			m.ready[peer] = true
		}
		for _, peer := range m.order {
			if slices.Contains(qc.peers, peer) || slices.Contains(qc.dead, peer) {
				m.add(peer, Primary, nil)
			}
		}
	}
	for _, p := range m.ledger { // rule 31
		if slices.Contains(qc.dead, p.Peer) {
			p.final, p.Status, p.err = true, Dead, "<nil>"
		}
	}
	m.setEnd(qc.until)
	return m
}

// setEnd, rules 28 and 42: the reserve is kept back, but no more than half of the time left.
func (m *queryOracle) setEnd(until time.Duration) {
	if until < never {
		m.end = until - min(m.reserve, (until-m.now)/2)
	}
}

func (m *queryOracle) add(peer PeerID, role Role, instead *oraclePeer) {
	p := &oraclePeer{PeerReport: PeerReport{Peer: peer, Role: role}, instead: instead, unitAt: never, hedgeAt: never}
	m.ledger = append(m.ledger, p)
}

func (m *queryOracle) first(is func(*oraclePeer) bool) *oraclePeer {
	if i := slices.IndexFunc(m.ledger, is); i >= 0 {
		return m.ledger[i]
	}
	return nil
}

func (m *queryOracle) count(is func(*oraclePeer) bool) int {
	n := 0
	for _, p := range m.ledger {
		n += int(count(is(p)))
	}
	return n
}

// anyHolder reports whether some line of a holder of a range is as asked for.
func (m *queryOracle) anyHolder(r Range, is func(*oraclePeer) bool) bool {
	return m.first(func(p *oraclePeer) bool { return slices.Contains(r.Holders, p.Peer) && is(p) }) != nil
}

// covered, rule 24: a holder has answered, and not only in part.
func (m *queryOracle) covered(r Range) bool {
	return m.anyHolder(r, func(p *oraclePeer) bool { return p.final && p.Status == Answered })
}

func rangeShare(r Range) float64 { return float64((r.Last-r.First)>>60+1) / 16 }

func (m *queryOracle) coverage() float64 {
	if m.ranges == nil {
		if len(m.ledger) == 0 {
			return 0
		}
		answered := m.count(func(p *oraclePeer) bool { return p.final && p.Status == Answered })
		return float64(answered) / float64(len(m.ledger))
	}
	share := 0.0
	for _, r := range m.ranges {
		if m.covered(r) {
			share += rangeShare(r)
		}
	}
	return share
}

// open, rule 27: what a peer holds and nobody else has answered for or may soon.
func (m *queryOracle) open(peer PeerID) []Range {
	var open []Range
	for _, r := range m.ranges {
		soon := func(p *oraclePeer) bool { return p.Peer != peer && p.hoped() && !p.slow }
		if slices.Contains(r.Holders, peer) && !m.covered(r) && !m.anyHolder(r, soon) {
			open = append(open, r)
		}
	}
	return open
}

// choose, rule 27: standbys that together hold as much of what is open as all can, the most useful
// first.
func (m *queryOracle) choose(open []Range) []PeerID {
	var chosen []PeerID
	for {
		best, most := PeerID(""), 0.0
		for _, standby := range m.order {
			gain := 0.0
			for _, r := range open {
				if m.ready[standby] && slices.Contains(r.Holders, standby) {
					gain++
				}
			}
			if gain *= m.weights[standby]; gain > most {
				best, most = standby, gain
			}
		}
		if most == 0 {
			return chosen
		}
		chosen = append(chosen, best)
		open = slices.DeleteFunc(open, func(r Range) bool { return slices.Contains(r.Holders, best) })
	}
}

// fail, rules 24, 27 and 39: in the place of a peer that gave no complete answer standbys are asked, as
// many as their purse allows.
func (m *queryOracle) fail(p *oraclePeer) {
	if !m.strategy {
		return
	}
	chosen := m.choose(m.open(p.Peer))
	if m.budget {
		chosen = chosen[:min(len(chosen), int(m.purse[0]/1e6))]
	}
	m.call(chosen, Fallback, p)
}

// hedgeAgainst, rules 27 and 39: in the place of a slow peer all are asked that are wanted, or nobody.
func (m *queryOracle) hedgeAgainst(p *oraclePeer) bool {
	chosen := m.choose(m.open(p.Peer))
	if slices.ContainsFunc(chosen, func(peer PeerID) bool { return m.busy[peer] }) ||
		m.budget && m.purse[1] < int64(len(chosen))*1e6 {
		return false
	}
	p.slow = true
	m.call(chosen, Hedge, p)
	return true
}

func (m *queryOracle) call(standbys []PeerID, role Role, instead *oraclePeer) {
	for _, peer := range standbys {
		m.ready[peer] = false
		m.purse[role-Fallback] -= 1e6
		m.add(peer, role, instead)
	}
}

// pay puts into a purse, which holds no more than 100 probes.
func (m *queryOracle) pay(purse Role, millionths float64) {
	m.purse[purse-Fallback] = min(m.purse[purse-Fallback]+int64(millionths), 100e6)
}

// next returns who is to be asked next. Rule 42: a standby that isn't needed any more is dropped.
func (m *queryOracle) next() *oraclePeer {
	for {
		p := m.first((*oraclePeer).waiting)
		if p == nil || p.Role == Primary || len(m.open(p.Peer)) > 0 {
			return p
		}
		p.dropped = true
		m.ready[p.Peer] = true
		m.pay(p.Role, 1e6)
	}
}

// ask asks those who wait, as far as limit, time and units go.
func (m *queryOracle) ask() {
	for m.limit == 0 || m.count((*oraclePeer).out) < m.limit {
		if m.now >= m.end || m.graceAt < never && m.grace == 0 {
			return
		}
		p := m.next()
		if p == nil {
			return
		}
		if m.isFull(m.now) {
			m.awaitUnits()
			return
		}
		p.asked, p.askedAt = true, m.now
		deadline := min(m.end, m.now+m.peerDeadline)
		m.result.Asks = append(m.result.Asks, tellAsk(m.now, p.Peer, p.Role, min(deadline, never)))
		m.result.Response.PeersConsulted++
		if p.Role == Hedge && p.instead.out() { // rule 36
			p.instead.Late = true
		}
		if m.strategy && p.Role == Primary { // rule 39
			m.pay(Fallback, m.shares[0]*1e6)
			m.pay(Hedge, m.shares[1]*1e6)
		}
		if m.delay > 0 {
			p.hedgeAt, p.hedgeWait = m.now+m.delay, m.delay
		}
	}
}

// awaitUnits, rule 42: those who would be asked if there were units wait for them from now on.
func (m *queryOracle) awaitUnits() {
	room := len(m.ledger)
	if m.limit > 0 {
		room = m.limit - m.count((*oraclePeer).out)
	}
	for _, p := range m.ledger {
		if p.waiting() && room > 0 {
			room--
			p.unitAt = min(p.unitAt, m.now)
		}
	}
}

// conclude makes the line of a peer final.
func (m *queryOracle) conclude(p *oraclePeer, status Status, err string) {
	p.final, p.Status, p.err = true, status, err
	if !p.asked {
		if p.Role != Primary { // rule 39
			m.pay(p.Role, 1e6)
		}
		return
	}
	p.Elapsed = m.now - p.askedAt
	if m.strategy {
		m.result.Learned = append(m.result.Learned, fmt.Sprint(p.Peer, p.Role, status, p.Elapsed, p.Late))
	}
}

// complete, rules 25 and 42: nothing that is out or waits can add to the answer.
func (m *queryOracle) complete() bool {
	all, strangers := true, false
	busy := func(p *oraclePeer) bool { return p.waiting() || p.out() }
	if m.count(busy) == 0 {
		return true
	}
	if m.ranges == nil || m.waitAll {
		return false
	}
	for _, r := range m.ranges {
		if !m.covered(r) {
			all = false
			if m.anyHolder(r, (*oraclePeer).hoped) {
				return false
			}
		}
	}
	for _, p := range m.ledger {
		held := slices.ContainsFunc(m.ranges, func(r Range) bool { return slices.Contains(r.Holders, p.Peer) })
		strangers = strangers || !held && busy(p)
	}
	m.enough = all || !strangers
	return m.enough
}

// run runs the query from begin to end.
func (m *queryOracle) run() *queryResult {
	for {
		if !m.over && !m.complete() {
			m.ask()
		}
		if m.over || m.complete() {
			return m.finish()
		}
		now := m.now
		m.now = min(m.cancel, m.end, m.graceAt, m.opens(now))
		if now < m.extend {
			m.now = min(m.now, m.extend)
		}
		for _, p := range m.ledger {
			switch {
			case p.out():
				m.now = min(m.now, m.repliesAt(p), p.askedAt+m.peerDeadline, p.hedgeAt)
			case p.waiting():
				m.now = min(m.now, p.unitAt+m.peerDeadline)
			}
		}
		if p := m.first(func(p *oraclePeer) bool { return p.out() && m.repliesAt(p) == m.now }); p != nil {
			m.reply(p)
			continue
		}
		switch m.now {
		case m.cancel: // rule 9
			m.over, m.cause = true, errBroke
		case m.opens(now):
		case m.extend:
			m.setEnd(m.extended)
		default:
			m.fire()
		}
	}
}

func (m *queryOracle) repliesAt(p *oraclePeer) time.Duration {
	return min(p.askedAt+m.replies[p.Peer].after, never)
}

// reply takes what a peer returns.
func (m *queryOracle) reply(p *oraclePeer) {
	r := m.replies[p.Peer]
	status, ok := map[error]Status{
		nil: Answered, errBroke: Failed, errPanicked: Failed, errPart: Incomplete, errOwnTimeout: TimedOut, errWrong: Failed,
	}[r.err]
	if !ok {
		panic(r.err)
	}
	if status == Answered || status == Incomplete {
		p.hits, p.Hits = r.hits, len(r.hits)
		p.Unsorted = !slices.IsSortedFunc(r.hits, func(a, b Hit[string]) int {
			return int(count(before(b, a, ScoreAscending)) - count(before(a, b, ScoreAscending)))
		})
	}
	m.conclude(p, status, fmt.Sprint(r.err))
	switch {
	case r.err == errWrong: // rule 37
		m.over, m.cause = true, r.err
	case status != Answered:
		m.fail(p)
	case m.queryCase.enough > 0 && m.graceAt == never && m.coverage() >= m.queryCase.enough: // rule 28
		m.graceAt = m.now + max(m.grace, 1)
	}
}

// fire does what is due by the clock.
func (m *queryOracle) fire() {
	for _, p := range slices.Clone(m.ledger) {
		if p.out() && p.askedAt+m.peerDeadline == m.now { // rule 6
			m.conclude(p, TimedOut, fmt.Sprint("scatter: no reply within ", m.peerDeadline))
			m.fail(p)
		}
	}
	tooLong := func(p *oraclePeer) bool { return p.waiting() && p.unitAt+m.peerDeadline <= m.now }
	for m.first(tooLong) != nil { // rule 42
		if p := m.next(); p != nil && tooLong(p) {
			m.conclude(p, NotAsked, fmt.Sprint("scatter: no unit of Options.Semaphore within ", m.peerDeadline))
		}
	}
	for _, p := range slices.Clone(m.ledger) {
		if p.out() && p.hedgeAt == m.now { // rule 38
			p.hedgeAt = never
			if !m.hedgeAgainst(p) {
				p.hedgeWait = max(2*p.hedgeWait, time.Millisecond)
				p.hedgeAt = m.now + p.hedgeWait
			}
		}
	}
	if m.now == m.graceAt { // rule 28
		m.over, m.enough = true, true
	}
	m.over = m.over || m.now == m.end
}

// finish gives up on who is out, and returns what has come of the query.
func (m *queryOracle) finish() *queryResult {
	status, err := TimedOut, "scatter: the query's time was up"
	if m.enough {
		status, err = NotNeeded, ErrEnough.Error()
	}
	if m.cause != nil {
		status, err = Abandoned, m.cause.Error()
	}
	resp := &m.result.Response
	var lists [][]Hit[string]
	for _, p := range m.ledger {
		switch {
		case p.out():
			m.conclude(p, status, err)
		case p.waiting():
			m.conclude(p, NotAsked, err)
		case p.dropped:
			continue
		}
		resp.Peers = append(resp.Peers, p.PeerReport)
		m.result.Errs = append(m.result.Errs, p.err)
		lists = append(lists, p.hits)
		resp.PeersTimedOut += int(count(p.Status == TimedOut))
		resp.PeersFailed += int(count(p.Status == Failed))
	}
	resp.Hits = slowMerge(lists, testRequest.K, ScoreAscending)
	resp.Coverage, resp.Elapsed = m.coverage(), m.now
	resp.Partial = resp.Coverage < 1
	resp.Missing = m.missing()
	m.result.Err = fmt.Sprint(m.cause)
	if m.cause == nil && resp.Coverage < m.minimum {
		m.result.Err = "coverage"
	}
	slices.Sort(m.result.Learned)
	if m.budget {
		m.result.Purses = [2]float64{float64(m.purse[0]) / 1e6, float64(m.purse[1]) / 1e6}
	}
	return m.result
}

// missing, rule 24: adjacent ranges are one stretch, also past the largest token.
func (m *queryOracle) missing() []MissingRange {
	var missing []MissingRange
	for _, r := range m.ranges {
		last := len(missing) - 1
		switch {
		case m.covered(r):
		case last >= 0 && missing[last].Last+1 == r.First:
			missing[last].join(r)
		default:
			missing = append(missing, MissingRange{First: r.First, Last: r.Last, Share: rangeShare(r), Holders: slices.Clone(r.Holders)})
		}
	}
	if last := len(missing) - 1; last > 0 && missing[0].First == 0 && missing[last].Last == math.MaxUint64 {
		missing[last].join(Range{Last: missing[0].Last, Holders: missing[0].Holders})
		missing[last].Share += missing[0].Share - rangeShare(Range{Last: missing[0].Last})
		missing = missing[1:]
	}
	return missing
}

func (r *MissingRange) join(next Range) {
	r.Last = next.Last
	r.Share += rangeShare(next)
	for _, peer := range next.Holders {
		if !slices.Contains(r.Holders, peer) {
			r.Holders = append(r.Holders, peer)
		}
	}
}
