package scatter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// hedgeNever is the time of what doesn't happen. All times are since the query began.
const hedgeNever time.Duration = 1 << 60

// A hedgeCase is a query, and what each peer makes of it.
type hedgeCase struct {
	points       []Point
	replicas     int
	peers        []PeerID // may name one twice, as standbys may, and be off the ring
	standbys     []PeerID
	limit        int // 0: none
	peerDeadline time.Duration
	until        time.Duration // the query's deadline
	cancel       time.Duration // when the query is cancelled
	waitAll      bool
	require      float64
	settle       float64
	grace        time.Duration
	delays       map[PeerID]time.Duration // after which each peer is late; 0: never
	budget       bool                     // there is one, of pay and burst
	pay          float64
	burst        int
	replies      map[PeerID]hedgeReply
}

// A hedgeReply is how long a peer takes, and what it returns then. A status of NotAsked is no reply ever.
type hedgeReply struct {
	after  time.Duration
	status Status
}

// A hedgeResult is all that is compared of a query.
type hedgeResult struct {
	Asks      []hedgeAsk // in order
	Ledger    []hedgeLine
	Coverage  float64
	Partial   bool
	Missing   float64           // the shares of all gaps
	Holders   map[PeerID]Status // of the gaps
	Consulted int
	Err       string  // "", "cancel" or "coverage"
	Budget    float64 // what is left of it
}

// String returns the result on several lines.
func (r *hedgeResult) String() string {
	var s strings.Builder
	for _, a := range r.Asks {
		fmt.Fprintf(&s, "    ask %s at %v, deadline %v\n", a.Peer, a.At, a.Deadline)
	}
	for _, l := range r.Ledger {
		fmt.Fprintf(&s, "    %s %v %v after %v\n", l.Peer, l.Role, l.Status, l.Elapsed)
	}
	fmt.Fprintf(&s, "    coverage %v, partial %t, missing %v of %v, consulted %d, error %q, budget %v\n",
		r.Coverage, r.Partial, r.Missing, r.Holders, r.Consulted, r.Err, r.Budget)
	return s.String()
}

type hedgeAsk struct {
	Peer         PeerID
	At, Deadline time.Duration
}

type hedgeLine struct {
	Peer    PeerID
	Role    Role
	Status  Status
	Elapsed time.Duration
}

// hedgeModel says what a Coordinator should do, by rules 24, 25, 27 and 28 as they read: it keeps little but the
// ledger, works out all else anew each time, and looks for what happens next among all that can.
type hedgeModel struct {
	hedgeCase // with its points sorted
	ranges    []hedgeRange
	ledger    []*hedgePeer
	asks      []hedgeAsk
	left      float64 // of the budget
	now       time.Duration
	graceAt   time.Duration // when the grace is over
}

// A hedgeRange is what belongs to one token.
type hedgeRange struct {
	share   float64 // of the token space. All are multiples of 2^-53, so that sums of them are exact.
	holders []PeerID
}

// A hedgePeer is a line of the ledger in the making.
type hedgePeer struct {
	hedgeLine
	asked   bool
	askedAt time.Duration
	hedgeAt time.Duration // when it is late
	late    bool          // it was late or has failed: nobody waits for it alone any more
}

func (p *hedgePeer) waiting() bool { return !p.asked }
func (p *hedgePeer) out() bool     { return p.asked && p.Status == NotAsked }

// hoped reports whether the peer has answered or may soon.
func (p *hedgePeer) hoped() bool { return p.Status == Answered || p.Status == NotAsked && !p.late }

// newHedgeModel works out the ranges, by rule 23: that of a token is held by the first distinct peers of the walk.
func newHedgeModel(hc hedgeCase) *hedgeModel {
	m := &hedgeModel{hedgeCase: hc, left: float64(hc.burst), graceAt: hedgeNever}
	points := slices.Clone(hc.points)
	m.points = points
	slices.SortFunc(points, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Token, b.Token), cmp.Compare(a.Peer, b.Peer))
	})
	for i, point := range points {
		if i > 0 && points[i-1].Token == point.Token {
			continue
		}
		before := points[(i+len(points)-1)%len(points)].Token
		r := hedgeRange{share: float64(point.Token-before) / (1 << 64)}
		if point.Token == before { // there is no other token
			r.share = 1
		}
		for j := range points {
			peer := points[(i+j)%len(points)].Peer
			if len(r.holders) < hc.replicas && !slices.Contains(r.holders, peer) {
				r.holders = append(r.holders, peer)
			}
		}
		m.ranges = append(m.ranges, r)
	}
	for _, peer := range hc.peers {
		if m.find(peer) == nil {
			m.add(peer, Primary)
		}
	}
	return m
}

func (m *hedgeModel) add(peer PeerID, role Role) {
	m.ledger = append(m.ledger, &hedgePeer{hedgeLine: hedgeLine{Peer: peer, Role: role}, hedgeAt: hedgeNever})
}

func (m *hedgeModel) find(peer PeerID) *hedgePeer {
	for _, p := range m.ledger {
		if p.Peer == peer {
			return p
		}
	}
	return nil
}

func (m *hedgeModel) count(is func(*hedgePeer) bool) int {
	n := 0
	for _, p := range m.ledger {
		if is(p) {
			n++
		}
	}
	return n
}

// answered, rule 24: a range has an answer if one of its holders has answered, and not only in part.
func (m *hedgeModel) answered(r hedgeRange) bool {
	return slices.ContainsFunc(r.holders, func(peer PeerID) bool {
		p := m.find(peer)
		return p != nil && p.Status == Answered
	})
}

func (m *hedgeModel) coverage() float64 {
	share := 0.0
	for _, r := range m.ranges {
		if m.answered(r) {
			share += r.share
		}
	}
	return share
}

// open, rule 27, returns the ranges that a peer holds and nobody else has answered for or may soon.
func (m *hedgeModel) open(peer PeerID) []hedgeRange {
	var open []hedgeRange
	for _, r := range m.ranges {
		if slices.Contains(r.holders, peer) && !slices.ContainsFunc(r.holders, func(other PeerID) bool {
			p := m.find(other)
			return other != peer && p != nil && p.hoped()
		}) {
			open = append(open, r)
		}
	}
	return open
}

// replace, rule 27: what a peer was asked for, and nobody else may soon answer, is asked of standbys, those first that
// hold most of it. The budget lets as many be asked as it has, but in place of a peer that is only late, all or nobody.
// It returns false if the budget was too small.
func (m *hedgeModel) replace(p *hedgePeer, role Role) bool {
	p.late = true
	chosen := m.choose(m.open(p.Peer))
	enough := true
	if m.budget && m.left < float64(len(chosen)) {
		enough = false
		if role == Hedge {
			chosen = nil
		} else {
			chosen = chosen[:int(m.left)]
		}
	}
	m.left -= float64(len(chosen))
	for _, standby := range chosen {
		m.add(standby, role)
	}
	return enough
}

// choose returns standbys that together hold as much of what is open as all can, those first that add most. Of those
// that add as much it is the first on the ring.
func (m *hedgeModel) choose(open []hedgeRange) []PeerID {
	var chosen []PeerID
	for {
		best, most := PeerID(""), 0.0
		for _, point := range m.points {
			standby := point.Peer
			if !slices.Contains(m.standbys, standby) || m.find(standby) != nil {
				continue
			}
			adds := 0.0
			for _, r := range open {
				if slices.Contains(r.holders, standby) {
					adds += r.share
				}
			}
			if adds > most {
				best, most = standby, adds
			}
		}
		if most == 0 {
			return chosen
		}
		chosen = append(chosen, best)
		open = slices.DeleteFunc(open, func(r hedgeRange) bool { return slices.Contains(r.holders, best) })
	}
}

// fill puts into the budget, which holds no more than its burst.
func (m *hedgeModel) fill(n float64) { m.left = min(m.left+n, float64(m.burst)) }

// ask asks those who wait, in the order of the ledger, as far as the limit goes.
func (m *hedgeModel) ask() {
	for {
		i := slices.IndexFunc(m.ledger, (*hedgePeer).waiting)
		switch {
		case i < 0 || m.limit > 0 && m.count((*hedgePeer).out) == m.limit:
			return
		case m.graceAt < hedgeNever && m.grace == 0: // rule 28: no more is waited for, so nobody is asked
			return
		}
		p := m.ledger[i]
		if p.Role != Primary && len(m.open(p.Peer)) == 0 { // rule 27: others have answered while it waited, or may soon
			m.ledger = slices.Delete(m.ledger, i, i+1)
			m.fill(1)
			continue
		}
		p.asked, p.askedAt = true, m.now
		m.asks = append(m.asks, hedgeAsk{p.Peer, m.now, min(m.now+m.peerDeadline, m.until)})
		if len(m.standbys) == 0 {
			continue
		}
		if p.Role == Primary { // rule 27: each ordinary probe pays a share of one
			m.fill(m.pay)
		}
		if delay := m.delays[p.Peer]; delay > 0 {
			p.hedgeAt = m.now + delay
		}
	}
}

// repliesAt returns when a peer that is out will reply.
func (m *hedgeModel) repliesAt(p *hedgePeer) time.Duration {
	if m.replies[p.Peer].status == NotAsked {
		return hedgeNever
	}
	return p.askedAt + m.replies[p.Peer].after
}

// run runs the query from begin to end. What happens at the same time happens in the order of the cases here.
func (m *hedgeModel) run() *hedgeResult {
	for {
		m.ask()
		if m.count((*hedgePeer).out) == 0 && m.count((*hedgePeer).waiting) == 0 {
			return m.end(NotAsked, "")
		}
		m.now = min(m.cancel, m.until, m.graceAt)
		for _, p := range m.ledger {
			if p.out() {
				m.now = min(m.now, m.repliesAt(p), p.askedAt+m.peerDeadline, p.hedgeAt)
			}
		}
		replied := m.due(func(p *hedgePeer) time.Duration { return m.repliesAt(p) })
		expired := m.due(func(p *hedgePeer) time.Duration { return p.askedAt + m.peerDeadline })
		late := m.due(func(p *hedgePeer) time.Duration { return p.hedgeAt })
		switch {
		case len(replied) > 0:
			p := replied[0]
			m.conclude(p, m.replies[p.Peer].status)
			if p.Status != Answered { // rule 27: it has failed
				m.replace(p, Fallback)
				break
			}
			if !m.waitAll && m.coverage() == 1 { // rule 25: done
				return m.end(Spare, "")
			}
			if m.settle > 0 && m.graceAt == hedgeNever && m.coverage() >= m.settle { // rule 28
				m.graceAt = m.now + max(m.grace, 1)
			}
		case m.now == m.cancel:
			return m.end(Abandoned, "cancel")
		case len(expired) > 0:
			for _, p := range expired {
				m.conclude(p, TimedOut)
				m.replace(p, Fallback)
			}
		case len(late) > 0: // rule 27: without a budget for it, again after another delay
			for _, p := range late {
				p.hedgeAt = hedgeNever
				if !m.replace(p, Hedge) {
					p.hedgeAt = m.now + m.delays[p.Peer]
				}
			}
		case m.now == m.graceAt: // rule 28
			return m.end(Spare, "")
		default: // the query's time is up
			return m.end(TimedOut, "")
		}
	}
}

// due returns the peers that are out and whose time, when, is now.
func (m *hedgeModel) due(when func(*hedgePeer) time.Duration) []*hedgePeer {
	var due []*hedgePeer
	for _, p := range m.ledger {
		if p.out() && when(p) == m.now {
			due = append(due, p)
		}
	}
	return due
}

func (m *hedgeModel) conclude(p *hedgePeer, status Status) {
	p.Status, p.Elapsed = status, m.now-p.askedAt
}

// end gives up on who is out, as status, and returns what has come of the query.
func (m *hedgeModel) end(status Status, err string) *hedgeResult {
	r := &hedgeResult{Asks: m.asks, Holders: map[PeerID]Status{}}
	for _, p := range m.ledger {
		if p.out() {
			m.conclude(p, status)
		}
		if p.waiting() && p.Role != Primary { // rule 27: it took a probe out of the budget, and wasn't asked
			m.fill(1)
		}
		r.Ledger = append(r.Ledger, p.hedgeLine)
	}
	r.Coverage = m.coverage()
	r.Partial = r.Coverage < 1
	r.Missing = 1 - r.Coverage
	for _, rg := range m.ranges {
		if m.answered(rg) {
			continue
		}
		for _, peer := range rg.holders { // rule 24: what became of them
			if p := m.find(peer); p != nil {
				r.Holders[peer] = p.Status
			} else if slices.Contains(m.standbys, peer) {
				r.Holders[peer] = NotAsked
			} else {
				r.Holders[peer] = Dead
			}
		}
	}
	r.Consulted = len(m.asks)
	r.Err = err
	if err == "" && r.Coverage < m.require { // rule 28
		r.Err = "coverage"
	}
	if m.budget {
		r.Budget = m.left
	}
	return r
}

// runCoordinator does with a Coordinator what the model does by itself: it is the transport and the clock.
func (hc hedgeCase) runCoordinator() (*hedgeResult, error) {
	r := &hedgeResult{Holders: map[PeerID]Status{}}
	type reply struct {
		at    time.Duration
		event *Event[Hit[string]]
	}
	var (
		now     time.Duration
		replies []reply // under way, in the order of the asks
	)
	since := func(t time.Time) time.Duration {
		if t.IsZero() {
			return hedgeNever
		}
		return t.Sub(t0)
	}
	errs := map[Status]error{Failed: errBroke, Incomplete: ErrPartial, TimedOut: context.DeadlineExceeded}
	ask := func(a Ask) bool {
		r.Asks = append(r.Asks, hedgeAsk{a.Peer, now, since(a.Deadline)})
		if will := hc.replies[a.Peer]; will.status != NotAsked {
			ev := &Event[Hit[string]]{Kind: Replied, Index: a.Index, Err: errs[will.status]}
			replies = append(replies, reply{now + will.after, ev})
		}
		return true
	}
	opts := hc.options()
	c, err := NewCoordinator[Hit[string]](testRequest, hc.peers, ask, opts)
	if err != nil {
		return nil, err
	}
	m := NewMachine(c, Init)
	begin := &Event[Hit[string]]{Kind: Begin}
	if hc.until < hedgeNever {
		begin.Deadline = t0.Add(hc.until)
	}
	err = m.Step(t0, begin)
	for steps := 0; !m.Stopped(); steps++ {
		next := -1 // the first of the replies
		for i := range replies {
			if next < 0 || replies[i].at < replies[next].at {
				next = i
			}
		}
		deadline := hedgeNever
		if d, ok := m.Deadline(); ok {
			deadline = since(d)
		}
		switch {
		case steps > 10_000:
			return nil, errors.New("goes on for ever")
		case next >= 0 && replies[next].at <= min(hc.cancel, deadline): // what is in hand comes first
			ev := replies[next].event
			now = replies[next].at
			replies = slices.Delete(replies, next, next+1)
			err = m.Step(t0.Add(now), ev)
			if !m.Stopped() { // a second reply does no harm
				err = m.Step(t0.Add(now), &Event[Hit[string]]{Kind: Replied, Index: ev.Index})
			}
		case hc.cancel <= deadline && hc.cancel < hedgeNever:
			now = hc.cancel
			err = m.Step(t0.Add(now), &Event[Hit[string]]{Kind: Cancel, Err: errBroke})
		case deadline < hedgeNever:
			now = deadline
			err = m.Advance(t0.Add(now))
		default:
			return nil, fmt.Errorf("is stuck in %v", m.State())
		}
	}
	return r, r.tell(c.Response(), err, opts)
}

// tell has the result tell of a query what came of it.
func (r *hedgeResult) tell(resp *Response[Hit[string]], err error, opts *Options) error {
	for _, p := range resp.Peers {
		r.Ledger = append(r.Ledger, hedgeLine{p.Peer, p.Role, p.Status, p.Elapsed})
	}
	r.Coverage, r.Partial, r.Consulted = resp.Coverage, resp.Partial, resp.PeersConsulted
	for _, gap := range resp.Missing {
		r.Missing += gap.Share
		for _, holder := range gap.Holders {
			r.Holders[holder.Peer] = holder.Status
		}
	}
	var lack *CoverageError[Hit[string]]
	switch {
	case errors.As(err, &lack) && lack.Response == resp:
		r.Err = "coverage"
	case errors.Is(err, errBroke):
		r.Err = "cancel"
	case err != nil:
		return err
	}
	if opts.Hedging != nil && opts.Hedging.Budget != nil {
		r.Budget = opts.Hedging.Budget.Left()
	}
	return nil
}

// runBroadcast does with a Broadcast, or a BroadcastAsync, what the model does by itself. Nobody heeds a context: what
// comes in at one moment might come in either order.
func (hc hedgeCase) runBroadcast(async bool) (*hedgeResult, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if hc.until < hedgeNever {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, hc.until)
		defer stop()
	}
	if hc.cancel < hedgeNever {
		defer time.AfterFunc(hc.cancel, func() { cancel(errBroke) }).Stop()
	}
	began := time.Now()
	asks := make(chan hedgeAsk, len(hc.replies)) // each peer is asked once
	asked := func(ctx context.Context, peer PeerID) hedgeReply {
		ask := hedgeAsk{peer, time.Since(began), hedgeNever}
		if deadline, ok := ctx.Deadline(); ok {
			ask.Deadline = deadline.Sub(began)
		}
		asks <- ask
		return hc.replies[peer]
	}
	errs := map[Status]error{Failed: errBroke, Incomplete: ErrPartial, TimedOut: context.DeadlineExceeded}
	probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
		will := asked(ctx, peer)
		if will.status == NotAsked {
			will.after = time.Hour // no query takes so long
		}
		time.Sleep(will.after)
		return nil, errs[will.status]
	}
	asyncProbe := func(ctx context.Context, peer PeerID, _ *Request, done func([]Hit[string], error)) {
		if will := asked(ctx, peer); will.status != NotAsked {
			time.AfterFunc(will.after, func() { done(nil, errs[will.status]) })
		}
	}
	var resp *Response[Hit[string]]
	var err error
	opts := hc.options()
	if async {
		resp, err = BroadcastAsync(ctx, testRequest, hc.peers, asyncProbe, opts)
	} else {
		resp, err = Broadcast(ctx, testRequest, hc.peers, probe, opts)
	}
	r := &hedgeResult{Holders: map[PeerID]Status{}}
	time.Sleep(time.Hour)
	synctest.Wait() // no probe is left
	place := map[PeerID]int{}
	for i, line := range resp.Peers {
		place[line.Peer] = i
	}
	for len(asks) > 0 {
		r.Asks = append(r.Asks, <-asks)
	}
	slices.SortFunc(r.Asks, func(a, b hedgeAsk) int { // the probes of one moment began in any order
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(place[a.Peer], place[b.Peer]))
	})
	return r, r.tell(resp, err, opts)
}

func (hc hedgeCase) options() *Options {
	opts := &Options{
		Cover: NewCover(NewRing(hc.points...), hc.replicas), Standby: hc.standbys,
		Limit: hc.limit, WaitAll: hc.waitAll, Require: hc.require, Settle: hc.settle, Grace: hc.grace,
		PeerDeadline: hc.peerDeadline,
		Hedging:      &Hedging{DelayOf: func(peer PeerID) time.Duration { return hc.delays[peer] }},
	}
	if hc.peerDeadline == hedgeNever {
		opts.PeerDeadline = -1
	}
	switch {
	case hc.budget:
		opts.Hedging.Budget = NewBudget(hc.pay, hc.burst)
	case len(hc.delays) == 0:
		opts.Hedging = nil // is as good
	}
	return opts
}

// newHedgeCase returns a case of a few peers, drawn at random so that most of what can happen does. Times are in
// nanoseconds out of seconds, so hardly anything happens at the same time as something else by chance.
func newHedgeCase(r *rand.Rand) hedgeCase {
	hc := hedgeCase{
		replicas: 1 + r.IntN(4), peerDeadline: hedgeNever, until: hedgeNever, cancel: hedgeNever,
		waitAll: r.IntN(3) == 0, delays: map[PeerID]time.Duration{}, replies: map[PeerID]hedgeReply{},
	}
	upTo := func(d time.Duration) time.Duration { return 1 + time.Duration(r.Int64N(int64(d))) }
	name := func(i int) PeerID { return PeerID(rune('a' + i)) }

	onRing := 1 + r.IntN(10)
	for range r.IntN(17) {
		token := r.Uint64() >> 11 << 11
		if r.IntN(4) == 0 { // another may have it too
			token = uint64(r.IntN(4)) << 62
		}
		hc.points = append(hc.points, Point{token, name(r.IntN(onRing))})
	}
	newDelay := func() time.Duration { // if far shorter, a hedge without a budget would be tried again very often
		return 10*time.Millisecond + upTo([]time.Duration{time.Second, time.Second / 4}[r.IntN(2)])
	}
	common := r.IntN(3) == 0
	delay := newDelay()
	for i := range onRing + 2 {
		peer := name(i)
		kinds := []Status{Answered, Answered, Answered, Failed, Incomplete, TimedOut, NotAsked}
		hc.replies[peer] = hedgeReply{upTo(2 * time.Second), kinds[r.IntN(len(kinds))]}
		if !common {
			delay = newDelay()
		}
		if common || r.IntN(2) == 0 {
			hc.delays[peer] = delay
		}
		switch r.IntN(10) {
		case 0, 1, 2, 3:
			hc.peers = append(hc.peers, peer)
		case 4, 5, 6, 7:
			hc.standbys = append(hc.standbys, peer)
		case 8: // both, and twice
			hc.peers = append(hc.peers, peer, peer)
			hc.standbys = append(hc.standbys, peer, peer)
		}
	}
	r.Shuffle(len(hc.peers), func(i, j int) { hc.peers[i], hc.peers[j] = hc.peers[j], hc.peers[i] })
	r.Shuffle(len(hc.standbys), func(i, j int) { hc.standbys[i], hc.standbys[j] = hc.standbys[j], hc.standbys[i] })

	if r.IntN(2) == 0 {
		hc.limit = 1 + r.IntN(4)
	}
	if r.IntN(2) == 0 {
		hc.until = upTo(4 * time.Second)
	}
	if hc.until == hedgeNever || r.IntN(4) > 0 { // or else it may never end
		hc.peerDeadline = upTo(2 * time.Second)
	}
	if r.IntN(6) == 0 {
		hc.cancel = upTo(4 * time.Second)
	}
	if r.IntN(3) == 0 {
		hc.settle = r.Float64()
		if r.IntN(3) > 0 {
			hc.grace = upTo(time.Second)
		}
	}
	if r.IntN(3) == 0 {
		hc.require = r.Float64()
	}
	if r.IntN(2) == 0 {
		hc.budget, hc.pay, hc.burst = true, []float64{0.25, 1}[r.IntN(2)], r.IntN(4)
	}
	return hc
}

// Rules 24, 25, 27, 28: in whichever way peers answer, fail, are late or never reply, a Coordinator asks whom the model
// asks, when it does, and says of each peer, of what is missing and of the budget the same.
func TestCoordinatorAgainstModel(t *testing.T) {
	for seed := range uint64(16_000) {
		hc := newHedgeCase(rand.New(rand.NewPCG(seed, 27)))
		want := newHedgeModel(hc).run()
		got, err := hc.runCoordinator()
		if err != nil {
			t.Fatalf("seed %d, of %+v: the Coordinator %v", seed, hc, err)
		}
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d, of %+v:\n  want\n%v  got\n%v", seed, hc, want, got)
		}
	}
}

// Rules 24, 25, 27, 28: so does a Broadcast, which lets replies wait until there are enough to decide something.
func TestBroadcastAgainstModel(t *testing.T) {
	for seed := range uint64(4_000) {
		synctest.Test(t, func(t *testing.T) {
			hc := newHedgeCase(rand.New(rand.NewPCG(seed, 28)))
			want := newHedgeModel(hc).run()
			got, err := hc.runBroadcast(seed%2 == 1)
			if err != nil {
				t.Fatalf("seed %d, of %+v: %v", seed, hc, err)
			}
			if !reflect.DeepEqual(want, got) {
				t.Fatalf("seed %d, of %+v:\n  want\n%v  got\n%v", seed, hc, want, got)
			}
		})
	}
}
