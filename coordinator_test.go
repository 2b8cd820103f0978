package scatter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	t0       = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	errBroke = errors.New("broke")
)

// stepped is a Coordinator under test, its machine, and what it has asked for.
type stepped struct {
	*Coordinator[Hit[string], string]
	t     *testing.T
	m     *Machine[State, *Event[Hit[string]]]
	asks  []Ask
	full  bool // ask refuses
	late  []LateReplyInfo
	done  []ProbeDoneInfo
	state []State
}

func newStepped(t *testing.T, k int, opts Options, peers ...PeerID) *stepped {
	t.Helper()
	s := &stepped{t: t}
	opts.Trace = &Trace{
		LateReply:    func(i LateReplyInfo) { s.late = append(s.late, i) },
		ProbeDone:    func(i ProbeDoneInfo) { s.done = append(s.done, i) },
		StateEntered: func(i StateInfo) { s.state = append(s.state, i.State) },
	}
	req := &Request{Table: "t", Query: KNN{}, K: k}
	c, err := NewCoordinator[Hit[string]](req, peers, func(a Ask) bool {
		if !s.full {
			s.asks = append(s.asks, a)
		}
		return !s.full
	}, &opts)
	require.NoError(t, err)
	s.Coordinator, s.m = c, NewMachine(c, Init)
	return s
}

// at is t0 and so many seconds.
func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

func (s *stepped) step(seconds float64, ev *Event[Hit[string]]) {
	s.t.Helper()
	require.NoError(s.t, s.m.Step(at(seconds), ev))
}

func (s *stepped) begin() { s.t.Helper(); s.step(0, &Event[Hit[string]]{Kind: Begin}) }

func (s *stepped) reply(seconds float64, index int, hits ...Hit[string]) {
	s.t.Helper()
	s.step(seconds, &Event[Hit[string]]{Kind: Replied, Index: index, Hits: hits})
}

func (s *stepped) fail(seconds float64, index int, err error) {
	s.t.Helper()
	s.step(seconds, &Event[Hit[string]]{Kind: Replied, Index: index, Err: err})
}

func (s *stepped) advance(seconds float64) {
	s.t.Helper()
	require.NoError(s.t, s.m.Advance(at(seconds)))
}

func (s *stepped) wantState(want State) { s.t.Helper(); require.Equal(s.t, want, s.m.State()) }

func (s *stepped) wantDeadline(seconds float64) {
	s.t.Helper()
	deadline, ok := s.m.Deadline()
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

// wantLedger compares the ledger of the Response, one "peer status hits seconds" for each line.
func (s *stepped) wantLedger(want ...string) *Response[Hit[string]] {
	s.t.Helper()
	r := s.Response()
	require.NotNil(s.t, r)
	require.True(s.t, s.m.Stopped())
	var got []string
	for _, p := range r.Peers {
		got = append(got, fmt.Sprint(p.Peer, " ", p.Status, " ", p.Hits, " ", p.Elapsed.Seconds()))
		require.Equal(s.t, p.Status == Answered, p.Err == nil, "%v: %v", p.Status, p.Err)
	}
	require.Equal(s.t, want, got)
	return r
}

func TestCoordinatorTakesEachPeersHits(t *testing.T) {
	s := newStepped(t, 3, Options{}, "a", "b")
	require.Nil(t, s.Response())
	s.begin()
	s.wantState(Gather)
	require.Equal(t, "ab", s.asked())
	require.Equal(t, at(5), s.asks[1].Deadline, "DefaultPeerDeadline")
	s.wantDeadline(5)
	s.reply(1, 1, Hit[string]{"x", 2}, Hit[string]{"y", 3})
	s.wantState(Gather)
	require.Nil(t, s.Response())
	s.reply(2, 0, Hit[string]{"z", 1}, Hit[string]{"x", 4})
	s.wantState(Merging)
	r := s.wantLedger("a Answered 2 2", "b Answered 2 1")
	require.Equal(t, []Hit[string]{{"z", 1}, {"x", 2}, {"y", 3}}, r.Hits)
	require.False(t, r.Partial)
	require.Equal(t, 2*time.Second, r.Elapsed)
	require.Equal(t, []State{Init, Fanout, Gather, Merging}, s.state)
}

// Rule 4: a Coordinator stepped by hand notices an unsorted reply too.
func TestCoordinatorSortsAReply(t *testing.T) {
	s := newStepped(t, 1, Options{}, "a")
	s.begin()
	hits := []Hit[string]{{"x", 2}, {"y", 1}}
	s.reply(1, 0, hits...)
	require.Equal(t, "y", ids(s.Response().Hits))
	require.Equal(t, "x y", ids(hits))
}

// Rule 5: a name that stands twice counts once.
func TestCoordinatorFoldsNames(t *testing.T) {
	s := newStepped(t, 1, Options{}, "a", "b", "a", "a")
	s.begin()
	require.Equal(t, "ab", s.asked())
	s.reply(1, 0)
	s.reply(1, 1)
	require.Equal(t, 2, s.wantLedger("a Answered 0 1", "b Answered 0 1").PeersConsulted)
}

// Rule 5: within Limit, the next peer is asked when one is settled, by a reply, a failure or its deadline.
func TestCoordinatorLimit(t *testing.T) {
	s := newStepped(t, 9, Options{Limit: 2, PeerDeadline: 10 * time.Second}, "a", "b", "c", "d", "e")
	s.begin()
	s.wantState(Fanout)
	require.Equal(t, "ab", s.asked())
	s.reply(1, 1, Hit[string]{"x", 1})
	require.Equal(t, "abc", s.asked())
	require.Equal(t, at(11), s.asks[2].Deadline)
	s.wantDeadline(10)
	s.advance(10) // a is late
	require.Equal(t, "abcd", s.asked())
	s.wantDeadline(11)
	s.fail(10.5, 3, errBroke)
	s.wantState(Gather)
	require.Equal(t, "abcde", s.asked())
	s.advance(11) // c is late
	s.wantDeadline(20.5)
	s.advance(20.5)
	r := s.wantLedger("a TimedOut 0 10", "b Answered 1 1", "c TimedOut 0 10", "d Failed 0 0.5", "e TimedOut 0 10")
	require.Equal(t, []int{5, 3, 1}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
}

// Rule 6: a peer's deadline runs from the start of its own probe, and is due at that very moment, not before.
func TestCoordinatorPeerDeadline(t *testing.T) {
	s := newStepped(t, 9, Options{PeerDeadline: time.Second}, "a", "b")
	s.begin()
	s.reply(0.5, 0, Hit[string]{"x", 1})
	s.advance(0.999999999)
	s.wantState(Gather)
	s.advance(1)
	r := s.wantLedger("a Answered 1 0.5", "b TimedOut 0 1")
	require.ErrorIs(t, r.Peers[1].Err, context.DeadlineExceeded)
	require.True(t, r.Partial)
	require.Equal(t, "x", ids(r.Hits))
}

// Rule 6: with a negative PeerDeadline only the query's bounds a peer.
func TestCoordinatorNoPeerDeadline(t *testing.T) {
	s := newStepped(t, 9, Options{PeerDeadline: -1}, "a")
	s.begin()
	require.True(t, s.asks[0].Deadline.IsZero())
	_, armed := s.m.Deadline()
	require.False(t, armed)
	s.reply(1e6, 0)
	s.wantLedger("a Answered 0 1e+06")
}

// Rule 6: a late reply is dropped, in each state in which it can come, and so is a reply given twice, or by a peer that
// wasn't asked.
func TestCoordinatorRepliesOutOfTurn(t *testing.T) {
	x, y := Hit[string]{"x", 1}, Hit[string]{"y", 2}
	s := newStepped(t, 9, Options{Limit: 1, PeerDeadline: time.Second}, "a", "b", "c")
	s.reply(0, 0, y) // before Begin
	s.wantState(Init)
	s.begin()
	s.reply(0.1, 2, y) // c isn't asked yet
	s.reply(0.2, 0, x)
	s.reply(0.3, 0, y)       // a again
	s.advance(1.2)           // b is late
	s.reply(1.3, 1, y)       // in Gather
	s.fail(1.3, 1, errBroke) // and again
	s.step(1.3, &Event[Hit[string]]{Kind: Begin})
	s.step(1.3, &Event[Hit[string]]{Kind: Room})
	s.reply(1.4, 2, x)
	r := s.wantLedger("a Answered 1 0.2", "b TimedOut 0 1", "c Answered 1 0.2")
	require.Equal(t, []Hit[string]{x}, r.Hits)
	require.Len(t, s.late, 5)
	require.Equal(t, LateReplyInfo{s.req, "b", 1, nil}, s.late[3])
	require.ErrorIs(t, s.m.Step(at(2), &Event[Hit[string]]{Kind: Replied}), ErrStopped)
	require.Same(t, r, s.Response())
}

// Rule 7: whichever way a peer's hits go missing, the answer is partial and says why; else it is not.
func TestCoordinatorPartial(t *testing.T) {
	ctxErr := fmt.Errorf("rpc: %w", context.DeadlineExceeded)
	tests := []struct {
		name     string
		reply    *Event[Hit[string]]
		status   Status
		hits     string
		timedOut int
		failed   int
	}{
		{"hits", &Event[Hit[string]]{}, Answered, "ok x", 0, 0},
		{"error", &Event[Hit[string]]{Err: errBroke}, Failed, "ok", 0, 1},
		{"panic", &Event[Hit[string]]{Err: &PanicError{Value: 1}}, Failed, "ok", 0, 1},
		{"panic with a timeout", &Event[Hit[string]]{Err: &PanicError{Value: context.DeadlineExceeded}}, Failed, "ok", 0, 1},
		{"panic with ErrPartial", &Event[Hit[string]]{Err: &PanicError{Value: ErrPartial}}, Failed, "ok", 0, 1},
		{"exit", &Event[Hit[string]]{Err: ErrGoexit}, Failed, "ok", 0, 1},
		{"deadline of its own", &Event[Hit[string]]{Err: ctxErr}, TimedOut, "ok", 1, 0},
		{"timeout in a wrapper that is none", &Event[Hit[string]]{Err: &url.Error{Err: ctxErr}}, TimedOut, "ok", 1, 0},
		{"no timeout, though it could be", &Event[Hit[string]]{Err: &net.OpError{Err: syscall.ECONNREFUSED}}, Failed, "ok", 0, 1},
		{"part, because of a panic elsewhere", &Event[Hit[string]]{Err: fmt.Errorf("%w: %w", ErrPartial, &PanicError{})},
			Incomplete, "ok x", 0, 0},
		{"timeout of a connection", &Event[Hit[string]]{Err: os.ErrDeadlineExceeded}, TimedOut, "ok", 1, 0},
		{"error after its deadline", &Event[Hit[string]]{Err: errBroke, status: TimedOut, obeyed: true}, TimedOut, "ok", 1, 0},
		{"error after the cancel", &Event[Hit[string]]{Err: errBroke, status: Abandoned, obeyed: true}, Abandoned, "ok", 0, 0},
		{"part", &Event[Hit[string]]{Err: fmt.Errorf("2 of 3 shards: %w", ErrPartial)}, Incomplete, "ok x", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStepped(t, 9, Options{}, "good", "tested")
			s.begin()
			s.reply(1, 0, Hit[string]{"ok", 0})
			tt.reply.Kind, tt.reply.Index, tt.reply.Hits = Replied, 1, []Hit[string]{{"x", 1}}
			s.step(2, tt.reply)
			r := s.Response()
			require.Equal(t, tt.status, r.Peers[1].Status)
			require.ErrorIs(t, r.Peers[1].Err, tt.reply.Err)
			if tt.status == TimedOut {
				var timeout interface{ Timeout() bool }
				require.ErrorAs(t, r.Peers[1].Err, &timeout)
			}
			require.Equal(t, tt.status != Answered, r.Partial)
			require.Equal(t, tt.hits, ids(r.Hits))
			require.Equal(t, []int{2, tt.timedOut, tt.failed}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
		})
	}
}

// A timeout says how long was waited, or that the query's own time was up, and what the probe made of it if that is more.
func TestCoordinatorTimeoutErrors(t *testing.T) {
	obeyed := &Event[Hit[string]]{Kind: Replied, Index: 0, status: TimedOut, obeyed: true}
	said := &Event[Hit[string]]{Kind: Replied, Index: 1, Err: errBroke}

	s := newStepped(t, 9, Options{PeerDeadline: time.Second}, "a", "b", "c")
	s.begin()
	s.step(1, obeyed)
	s.step(1, said)
	s.advance(1)
	r := s.wantLedger("a TimedOut 0 1", "b TimedOut 0 1", "c TimedOut 0 1")
	require.EqualError(t, r.Peers[0].Err, "scatter: no reply within 1s")
	require.EqualError(t, r.Peers[1].Err, "scatter: no reply within 1s: broke")
	require.EqualError(t, r.Peers[2].Err, "scatter: no reply within 1s")

	s = newStepped(t, 9, Options{PeerDeadline: 2 * time.Second, Limit: 3}, "a", "b", "c", "d")
	s.step(0, &Event[Hit[string]]{Kind: Begin, Deadline: at(1)})
	s.step(1, obeyed)
	s.step(1, said)
	s.advance(1)
	r = s.wantLedger("a TimedOut 0 1", "b TimedOut 0 1", "c TimedOut 0 1", "d NotAsked 0 0")
	require.EqualError(t, r.Peers[0].Err, "scatter: the query's time was up")
	require.EqualError(t, r.Peers[1].Err, "scatter: the query's time was up: broke")
	require.EqualError(t, r.Peers[2].Err, "scatter: the query's time was up")
	require.EqualError(t, r.Peers[3].Err, "scatter: the query's time was up")
}

// Which deadline it was, and that by hand an error after it is a timeout as well, and one before it isn't.
func TestCoordinatorWhichDeadline(t *testing.T) {
	tests := []struct {
		own   time.Duration
		query float64
		at    float64
		want  string
	}{
		{time.Second, 1, 1, "scatter: no reply within 1s: broke"},
		{time.Second, 0, 1.5, "scatter: no reply within 1s: broke"},
		{time.Second, 0, 0.9, "broke"},
		{-1, 1, 1, "scatter: the query's time was up: broke"},
		{-1, 0, 1e6, "broke"},
	}
	for _, tt := range tests {
		s := newStepped(t, 9, Options{PeerDeadline: tt.own}, "a")
		begin := &Event[Hit[string]]{Kind: Begin}
		if tt.query > 0 {
			begin.Deadline = at(tt.query)
		}
		s.step(0, begin)
		s.fail(tt.at, 0, errBroke)
		require.EqualError(t, s.Response().Peers[0].Err, tt.want)
		require.ErrorIs(t, s.Response().Peers[0].Err, errBroke)
	}
}

// What no Ask had is dropped, and a second Begin changes nothing.
func TestCoordinatorForeignEvents(t *testing.T) {
	s := newStepped(t, 9, Options{Limit: 1}, "a", "b")
	s.begin()
	for _, index := range []int{-1, 2} {
		s.reply(1, index, Hit[string]{"x", 1})
	}
	require.Len(t, s.late, 2)
	again := &Event[Hit[string]]{Kind: Begin, Deadline: at(2)}
	s.step(1, again)
	for kind := range EventKind(20) {
		if kind > Cancel && kind != timeUp && kind != graceUp {
			s.step(1, &Event[Hit[string]]{Kind: kind})
		}
	}
	s.reply(2, 0)
	s.step(3, again)
	s.wantState(Gather)
	s.reply(4, 1, make(hitList, 12)...)
	r := s.wantLedger("a Answered 0 2", "b Answered 12 2")
	require.Equal(t, 4*time.Second, r.Elapsed)
	require.Equal(t, []State{Init, Fanout, Gather, Merging}, s.state)
}

// An overdue peer is settled when that is noticed, and its time is what it had.
func TestCoordinatorLateAdvance(t *testing.T) {
	s := newStepped(t, 9, Options{PeerDeadline: time.Second}, "a")
	s.begin()
	s.advance(1.7)
	s.wantLedger("a TimedOut 0 1.7")
}

// The clock measures the merge.
func TestCoordinatorClock(t *testing.T) {
	s := newStepped(t, 9, Options{}, "a")
	var merged MergeInfo
	s.trace.MergeDone = func(i MergeInfo) { merged = i }
	seconds := 0.0
	s.clock = func() time.Time { seconds += 10; return at(seconds) }
	s.begin()
	s.reply(1, 0)
	require.Equal(t, 10*time.Second, merged.Elapsed)
	require.Equal(t, 30*time.Second, s.Response().Elapsed)
}

// Rule 7: all peers failed is no empty success.
func TestCoordinatorAllFailed(t *testing.T) {
	s := newStepped(t, 9, Options{}, "a", "b")
	s.begin()
	s.fail(1, 0, errBroke)
	s.fail(1, 1, errBroke)
	r := s.wantLedger("a Failed 0 1", "b Failed 0 1")
	require.True(t, r.Partial)
	require.Empty(t, r.Hits)
	require.Equal(t, 2, r.PeersFailed)
	require.ErrorIs(t, r.Peers[0].Err, errBroke)
}

// Rule 8: no peers is over at once: no error, no hits, partial.
func TestCoordinatorNoPeers(t *testing.T) {
	s := newStepped(t, 9, Options{})
	s.begin()
	r := s.wantLedger()
	require.True(t, r.Partial)
	require.Empty(t, r.Hits)
	require.Zero(t, r.PeersConsulted)
	require.Equal(t, []State{Init, Fanout, Gather, Merging}, s.state)
}

// Rule 9: the query's deadline ends it in each state: what has arrived is the answer.
func TestCoordinatorQueryDeadline(t *testing.T) {
	t.Run("Init", func(t *testing.T) {
		s := newStepped(t, 9, Options{}, "a")
		s.step(3, &Event[Hit[string]]{Kind: Begin, Deadline: at(3)})
		require.Empty(t, s.asks)
		r := s.wantLedger("a NotAsked 0 0")
		require.ErrorIs(t, r.Peers[0].Err, context.DeadlineExceeded)
		require.Zero(t, r.PeersTimedOut)
		require.Equal(t, []State{Init, Merging}, s.state)
	})
	t.Run("Fanout", func(t *testing.T) {
		s := newStepped(t, 9, Options{Limit: 1}, "a", "b", "c")
		s.step(0, &Event[Hit[string]]{Kind: Begin, Deadline: at(3)})
		s.reply(1, 0, Hit[string]{"x", 1})
		s.wantDeadline(3)
		s.advance(3)
		r := s.wantLedger("a Answered 1 1", "b TimedOut 0 2", "c NotAsked 0 0")
		require.Equal(t, []int{2, 1}, []int{r.PeersConsulted, r.PeersTimedOut})
		require.Equal(t, "x", ids(r.Hits))
		require.True(t, r.Partial)
		require.Equal(t, 3*time.Second, r.Elapsed)
	})
	t.Run("Gather", func(t *testing.T) {
		s := newStepped(t, 9, Options{PeerDeadline: -1}, "a", "b")
		s.step(0, &Event[Hit[string]]{Kind: Begin, Deadline: at(3)})
		s.reply(1, 1, Hit[string]{"x", 1})
		s.advance(3)
		s.wantLedger("a TimedOut 0 3", "b Answered 1 1")
	})
	t.Run("never after the end", func(t *testing.T) {
		s := newStepped(t, 9, Options{}, "a")
		s.step(0, &Event[Hit[string]]{Kind: Begin, Deadline: at(3)})
		s.reply(1, 0)
		require.ErrorIs(t, s.m.Advance(at(3)), ErrStopped)
		s.wantLedger("a Answered 0 1")
	})
}

// Rule 9: a cancel ends the query in each state, with what has arrived and the cause.
func TestCoordinatorCancel(t *testing.T) {
	cancel := &Event[Hit[string]]{Kind: Cancel, Err: errBroke}
	t.Run("Init", func(t *testing.T) {
		s := newStepped(t, 9, Options{}, "a")
		require.Equal(t, errBroke, s.m.Step(t0, cancel))
		r := s.wantLedger("a NotAsked 0 0")
		require.Equal(t, errBroke, r.Peers[0].Err)
		require.True(t, r.Partial)
		require.Zero(t, r.Elapsed)
	})
	t.Run("Fanout", func(t *testing.T) {
		s := newStepped(t, 9, Options{Limit: 1}, "a", "b", "c")
		s.begin()
		s.reply(1, 0, Hit[string]{"x", 1})
		require.Equal(t, errBroke, s.m.Step(at(2), cancel))
		require.Equal(t, "x", ids(s.wantLedger("a Answered 1 1", "b Abandoned 0 1", "c NotAsked 0 0").Hits))
	})
	t.Run("Gather, without a cause", func(t *testing.T) {
		s := newStepped(t, 9, Options{}, "a")
		s.begin()
		require.Equal(t, context.Canceled, s.m.Step(at(2), &Event[Hit[string]]{Kind: Cancel}))
		require.Equal(t, context.Canceled, s.wantLedger("a Abandoned 0 2").Peers[0].Err)
	})
	t.Run("Merging", func(t *testing.T) {
		s := newStepped(t, 9, Options{}, "a")
		s.begin()
		s.reply(1, 0)
		require.ErrorIs(t, s.m.Step(at(2), cancel), ErrStopped)
		s.wantLedger("a Answered 0 1")
	})
}

// Rule 10: a reply stepped before the deadline is looked at counts, however late it is by the clock; and replies that
// make room then don't have peers asked for nothing.
func TestCoordinatorReplyInHandCounts(t *testing.T) {
	s := newStepped(t, 9, Options{Limit: 1, PeerDeadline: time.Second}, "a", "b")
	s.step(0, &Event[Hit[string]]{Kind: Begin, Deadline: at(2)})
	s.reply(1.5, 0, Hit[string]{"x", 1})
	require.Equal(t, "ab", s.asked())
	s.reply(2.5, 1, Hit[string]{"y", 1})
	s.wantLedger("a Answered 1 1.5", "b Answered 1 1")

	s = newStepped(t, 9, Options{Limit: 1}, "a", "b")
	s.step(0, &Event[Hit[string]]{Kind: Begin, Deadline: at(2)})
	s.reply(2, 0, Hit[string]{"x", 1})
	s.advance(2)
	require.Equal(t, "a", s.asked())
	s.wantLedger("a Answered 1 2", "b NotAsked 0 0")
}

// Rules 2, 10: the same replies give the same hits in whichever order they come.
func TestCoordinatorOwesNothingToArrival(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	peers := somePeers(6)
	for range 2000 {
		lists := make([][]Hit[string], len(peers))
		for i := range lists {
			for range r.IntN(6) {
				lists[i] = append(lists[i], Hit[string]{fmt.Sprint(r.IntN(8)), float32(r.IntN(3))})
			}
		}
		k := 1 + r.IntN(10)
		s := newStepped(t, k, Options{Limit: 1 + r.IntN(len(peers))}, peers...)
		s.begin()
		for !s.m.Stopped() {
			var out []int // asked and not answered
			for _, a := range s.asks {
				if s.peers[a.Index].Status == asking {
					out = append(out, a.Index)
				}
			}
			i := out[r.IntN(len(out))]
			s.reply(1, i, lists[i]...)
		}
		require.Equal(t, slowMerge(lists, k, ScoreAscending), s.Response().Hits)
	}
}

// Rule 14: every peer asked counts as consulted, those that timed out included.
func TestCoordinatorConsulted(t *testing.T) {
	s := newStepped(t, 9, Options{PeerDeadline: time.Second}, "a", "b")
	s.begin()
	s.advance(1)
	r := s.wantLedger("a TimedOut 0 1", "b TimedOut 0 1")
	require.Equal(t, []int{2, 2, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
	require.True(t, r.Partial)
	require.Len(t, s.done, 2)
}

// A peer that can't be asked yet is asked once there is room, and its deadline runs from then.
func TestCoordinatorRoom(t *testing.T) {
	s := newStepped(t, 9, Options{PeerDeadline: time.Second}, "a", "b")
	s.full = true
	s.begin()
	s.wantState(Fanout)
	_, armed := s.m.Deadline()
	require.False(t, armed)
	s.full = false
	s.step(5, &Event[Hit[string]]{Kind: Room})
	require.Equal(t, "ab", s.asked())
	require.Equal(t, at(6), s.asks[0].Deadline)
	s.reply(5.5, 1)
	s.advance(6)
	s.wantLedger("a TimedOut 0 1", "b Answered 0 0.5")
}

// Rule 11: what is wrong with the arguments is said by name and value.
func TestCoordinatorArguments(t *testing.T) {
	good := Request{Query: Text{}, K: 1}
	ask := func(Ask) bool { return true }
	tests := []struct {
		req  *Request
		ask  func(Ask) bool
		opts *Options
		want string
	}{
		{nil, ask, nil, "scatter: Request is nil"},
		{&Request{K: 1}, ask, nil, "scatter: Request.Query is nil"},
		{&Request{Query: Text{}}, ask, nil, "scatter: Request.K is 0, must be at least 1"},
		{&Request{Query: Text{}, K: -3}, ask, nil, "scatter: Request.K is -3, must be at least 1"},
		{&Request{Query: (*KNN)(nil), K: 1}, ask, nil, "scatter: Request.Query is a nil *scatter.KNN"},
		{&Request{Query: KNN{Ranking: 9}, K: 1}, ask, nil,
			"scatter: the Order of Request.Query is unknown: scatter.Order(9)"},
		{&good, ask, &Options{Limit: -2}, "scatter: Options.Limit is -2, must not be negative"},
		{&good, nil, nil, "scatter: ask is nil"},
	}
	for _, tt := range tests {
		c, err := NewCoordinator[Hit[string]](tt.req, nil, tt.ask, tt.opts)
		require.EqualError(t, err, tt.want)
		require.Nil(t, c)
	}
}

func TestNames(t *testing.T) {
	require.Equal(t, "Init Fanout Gather Merging scatter.State(4)", fmt.Sprint(Init, Fanout, Gather, Merging, State(4)))
	require.Equal(t, "NotAsked Answered Incomplete TimedOut Failed Abandoned",
		fmt.Sprint(NotAsked, Answered, Incomplete, TimedOut, Failed, Abandoned))
	require.Equal(t, "Begin Replied Room Cancel", fmt.Sprint(Begin, Replied, Room, Cancel))
	require.Equal(t, "ScoreAscending ScoreDescending IDAscending scatter.Order(3)",
		fmt.Sprint(ScoreAscending, ScoreDescending, IDAscending, Order(3)))
}
