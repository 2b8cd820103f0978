package scatter

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// at is t0 and so many seconds.
func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

// stepped is a Coordinator under test, and what it has asked for.
type stepped struct {
	*Coordinator[Hit[string], string]
	t      *testing.T
	asks   []Ask
	full   bool // ask refuses
	traced []string
}

// newStepped returns a Coordinator that asks the given peers.
func newStepped(t *testing.T, opts Options, peers ...PeerID) *stepped {
	t.Helper()
	s := &stepped{t: t}
	opts.Trace = s.trace()
	c, err := NewCoordinator[Hit[string]](testRequest, peers, s.ask, &opts)
	require.NoError(t, err)
	s.Coordinator = c
	return s
}

// newSelected returns a Coordinator that asks what a test's strategy chooses.
func newSelected(t *testing.T, opts Options, chosen *fixed) *stepped {
	t.Helper()
	s := &stepped{t: t, Coordinator: new(Coordinator[Hit[string], string])}
	opts.Trace = s.trace()
	require.NoError(t, s.init(testRequest, s.ask, &opts))
	s.course.strategy = chosen
	return s
}

func (s *stepped) ask(a Ask) bool {
	if !s.full {
		s.asks = append(s.asks, a)
	}
	return !s.full
}

// hookKey is the key of a context value that names the hooks that a context has come through.
type hookKey struct{}

// trace returns a Trace whose hooks write down that they were called, with the names of the hooks that
// their context has come through.
func (s *stepped) trace() *Trace {
	note := func(ctx context.Context, hook string) context.Context {
		path, _ := ctx.Value(hookKey{}).(string)
		s.traced = append(s.traced, path+hook)
		return context.WithValue(ctx, hookKey{}, path+hook+">")
	}
	return &Trace{
		QueryStarted: func(ctx context.Context, _ QueryInfo) context.Context { return note(ctx, "query") },
		ProbeStarted: func(ctx context.Context, i ProbeInfo) context.Context { return note(ctx, string(i.Peer)) },
		ProbeDone:    func(ctx context.Context, i ProbeDoneInfo) { note(ctx, fmt.Sprint("done ", i.Peer, " ", i.Status)) },
		QueryDone:    func(ctx context.Context, i QueryDoneInfo) { note(ctx, fmt.Sprint("end ", i.PeersConsulted)) },
		LateReply: func(ctx context.Context, i LateReplyInfo) {
			note(ctx, fmt.Sprint("late ", i.Peer, " ", i.Hits, " ", i.Err))
		},
	}
}

func (s *stepped) begin() { s.Begin(t0, time.Time{}) }

func (s *stepped) beginUntil(seconds float64) { s.Begin(t0, at(seconds)) }

func (s *stepped) reply(seconds float64, index int, hits ...Hit[string]) {
	s.Reply(at(seconds), index, hits, nil)
}

func (s *stepped) fail(seconds float64, index int, err error) { s.Reply(at(seconds), index, nil, err) }

func (s *stepped) advance(seconds float64) { s.Advance(at(seconds)) }

func (s *stepped) wantState(want State) { s.t.Helper(); require.Equal(s.t, want, s.State()) }

func (s *stepped) wantDeadline(seconds float64) {
	s.t.Helper()
	deadline, ok := s.Deadline()
	require.True(s.t, ok)
	require.Equal(s.t, at(seconds), deadline)
}

// asked returns the peers asked, in order.
func (s *stepped) asked() string {
	out := ""
	for _, a := range s.asks {
		out += string(a.Peer)
	}
	return out
}

// wantLedger compares the ledger of the Response, one "peer status hits seconds" for each line, with
// the role before the status unless it is Primary, and with "late" at the end if the line says so.
func (s *stepped) wantLedger(want ...string) *Response[Hit[string]] {
	s.t.Helper()
	r := s.Response()
	require.NotNil(s.t, r, "the query has not ended")
	require.Equal(s.t, Merging, s.State())
	var got []string
	for _, p := range r.Peers {
		line := fmt.Sprint(p.Peer, " ")
		if p.Role != Primary {
			line += fmt.Sprint(p.Role, " ")
		}
		line += fmt.Sprint(p.Status, " ", p.Hits, " ", p.Elapsed.Seconds())
		if p.Late {
			line += " late"
		}
		got = append(got, line)
		require.Equal(s.t, p.Status == Answered || p.Status == Dead, p.Err == nil, "%v: %v", p.Status, p.Err)
	}
	require.Equal(s.t, want, got)
	return r
}

// fixed is a strategy that chooses what a test tells it to.
type fixed struct {
	cover    *Cover
	peers    []PeerID // asked at first
	standbys []PeerID // those of the others that are ready
	dead     []PeerID
	delay    time.Duration // of hedges
	purses   *purses       // nil: no bound
	weights  map[PeerID]float64
	busy     map[PeerID]bool // has no room for a hedge
	alone    bool            // there is no hedger

	chosen   int
	probes   map[PeerID]int // asked and not concluded
	reports  []PeerReport   // concluded
	finishes int
}

func (f *fixed) set(peers []PeerID) bitset {
	set := newBitset(len(f.cover.peers))
	for _, peer := range peers {
		set.add(f.cover.number(peer))
	}
	return set
}

func (f *fixed) choose(_, _ time.Time) *selection {
	f.chosen++
	f.probes = map[PeerID]int{}
	n := len(f.cover.peers)
	first, dead := f.set(f.peers), f.set(f.dead)
	s := &selection{cover: f.cover, live: newBitset(n), coverage: newCoverage(f.cover, first.clone())}
	for i := range int32(n) {
		if !dead.has(i) {
			s.live.add(i)
		}
		if first.has(i) {
			s.peers = append(s.peers, i)
		}
	}
	if f.alone {
		return s
	}
	if f.purses == nil {
		f.purses = &purses{}
	}
	s.hedger = &hedger{
		coverage: s.coverage, ready: f.set(f.standbys), late: newBitset(n), delay: f.delay, purses: f.purses,
		weight: func(i int32) float64 {
			if w := f.weights[f.cover.peers[i]]; w != 0 {
				return w
			}
			return 1
		},
		useful: func(_ time.Time, i int32, _ time.Duration) bool { return !f.busy[f.cover.peers[i]] },
	}
	return s
}

func (f *fixed) asked(i int32, role Role, _ bool) {
	f.probes[f.cover.peers[i]]++
	if role == Primary && !f.alone {
		f.purses.payIn()
	}
}

func (f *fixed) concluded(_ time.Time, i int32, report *PeerReport) {
	f.probes[f.cover.peers[i]]--
	f.reports = append(f.reports, *report)
}

func (f *fixed) finished(time.Duration) { f.finishes++ }

// out returns how many peers were asked and not concluded. Each must be concluded once.
func (f *fixed) out() int {
	n := 0
	for _, probes := range f.probes {
		if probes < 0 {
			return -1
		}
		n += probes
	}
	return n
}

// newPurses returns purses with so many probes left.
func newPurses(fallbackShare, hedgeShare, fallback, hedge float64) *purses {
	p := &purses{newPurse(fallbackShare), newPurse(hedgeShare)}
	p.fallback.left.Store(int64(fallback * purseUnit))
	p.hedge.left.Store(int64(hedge * purseUnit))
	return p
}
