package scatter

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

func TestCoordinatorTakesEachPeersHits(t *testing.T) {
	s := newStepped(t, Options{}, "a", "b")
	s.wantState(Init)
	require.Nil(t, s.Response())
	s.begin()
	s.wantState(Gather)
	require.Equal(t, []Ask{{"a", Primary, 0, at(5), testRequest}, {"b", Primary, 1, at(5), testRequest}}, s.asks, "DefaultPeerDeadline")
	s.wantDeadline(5)
	s.reply(1, 1, Hit[string]{"x", 2}, Hit[string]{"y", 3})
	s.wantState(Gather)
	require.Nil(t, s.Response())
	s.reply(2, 0, Hit[string]{"z", 1}, Hit[string]{"x", 4})
	r := s.wantLedger("a Answered 2 2", "b Answered 2 1")
	require.Equal(t, []Hit[string]{{"z", 1}, {"x", 2}, {"y", 3}}, r.Hits)
	require.False(t, r.Partial)
	require.Equal(t, 2*time.Second, r.Elapsed)
	require.NoError(t, s.Err())
	_, armed := s.Deadline()
	require.False(t, armed)
}

// A query goes through its states in turn. A standby leads back to Fanout.
func TestCoordinatorStates(t *testing.T) {
	chosen := &fixed{cover: quarters(), peers: []PeerID{"a", "c"}, standbys: []PeerID{"b", "d"}}
	s := newSelected(t, Options{Limit: 1}, chosen)
	s.wantState(Init)
	s.advance(-1)
	s.wantState(Init)
	s.begin()
	s.wantState(Fanout) // c waits
	s.reply(1, 0)
	s.wantState(Gather)
	s.fail(2, 1, errBroke)
	require.Equal(t, "acb", s.asked())
	s.wantState(Fanout) // d waits
	s.reply(3, 2)
	s.wantState(Gather)
	s.reply(4, 3)
	s.wantState(Merging)
}

// Rule 4: an unsorted reply is sorted, and its line says so. The caller's hits are not written to.
func TestCoordinatorSortsAReply(t *testing.T) {
	s := newStepped(t, Options{}, "a", "b")
	s.begin()
	hits := []Hit[string]{{"x", 2}, {"y", 1}}
	s.reply(1, 0, hits...)
	s.reply(1, 1, Hit[string]{"z", 3})
	r := s.Response()
	require.Equal(t, "y x z", ids(r.Hits))
	require.Equal(t, "x y", ids(hits))
	require.Equal(t, []bool{true, false}, []bool{r.Peers[0].Unsorted, r.Peers[1].Unsorted})
}

// Rule 5: a peer that is named twice counts once.
func TestCoordinatorFoldsNames(t *testing.T) {
	s := newStepped(t, Options{}, "a", "b", "a", "a")
	s.begin()
	require.Equal(t, "ab", s.asked())
	s.reply(1, 0)
	s.reply(1, 1)
	require.Equal(t, 2, s.wantLedger("a Answered 0 1", "b Answered 0 1").PeersConsulted)
}

// Rule 5: within Limit, the next peer is asked when one replies, fails or is past its deadline.
func TestCoordinatorLimit(t *testing.T) {
	s := newStepped(t, Options{Limit: 2, PeerDeadline: 10 * time.Second}, "a", "b", "c", "d", "e")
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

// Rule 6: a peer's deadline runs from the start of its own probe. It is due at that moment, not
// before.
func TestCoordinatorPeerDeadline(t *testing.T) {
	s := newStepped(t, Options{PeerDeadline: time.Second}, "a", "b")
	s.begin()
	s.reply(0.5, 0, Hit[string]{"x", 1})
	s.advance(0.999999999)
	s.wantState(Gather)
	s.advance(1)
	r := s.wantLedger("a Answered 1 0.5", "b TimedOut 0 1")
	require.ErrorIs(t, r.Peers[1].Err, context.DeadlineExceeded)
	require.True(t, r.Partial)
	require.Equal(t, 0.5, r.Coverage)
	require.Equal(t, "x", ids(r.Hits))

	// An Advance that comes late finds the peer late by as much.
	s = newStepped(t, Options{PeerDeadline: time.Second}, "a")
	s.begin()
	s.advance(1.7)
	s.wantLedger("a TimedOut 0 1.7")
}

// Rule 6: with a negative PeerDeadline only the query's bounds a peer.
func TestCoordinatorNoPeerDeadline(t *testing.T) {
	s := newStepped(t, Options{PeerDeadline: -1}, "a")
	s.begin()
	require.True(t, s.asks[0].Deadline.IsZero())
	_, armed := s.Deadline()
	require.False(t, armed)
	s.reply(1e6, 0)
	s.wantLedger("a Answered 0 1e+06")

	s = newStepped(t, Options{PeerDeadline: -1}, "a")
	s.beginUntil(3)
	require.Equal(t, at(3), s.asks[0].Deadline)
	s.full = true
	s.Retry(at(1))
	s.wantDeadline(3)
}

// Rule 6: a reply that nobody waits for is dropped, in each state, and LateReply is told if the
// peer was asked.
func TestCoordinatorRepliesOutOfTurn(t *testing.T) {
	x, y := Hit[string]{"x", 1}, Hit[string]{"y", 2}
	s := newStepped(t, Options{Limit: 1, PeerDeadline: time.Second}, "a", "b", "c")
	s.reply(0, 0, y) // before Begin
	s.wantState(Init)
	s.begin()
	s.reply(0.1, 2, y)  // c isn't asked yet
	s.reply(0.1, -1, y) // nobody has this Index,
	s.reply(0.1, 3, y)  // nor this
	s.reply(0.2, 0, x)
	s.reply(0.3, 0, y, x)    // a again
	s.advance(1.2)           // b is late
	s.reply(1.3, 1, y)       // in Gather,
	s.fail(1.3, 1, errBroke) // and again
	s.reply(1.4, 2, x)
	r := s.wantLedger("a Answered 1 0.2", "b TimedOut 0 1", "c Answered 1 0.2")
	require.Equal(t, []Hit[string]{x}, r.Hits)
	s.reply(9, 2, y) // in Merging
	s.Begin(at(9), at(10))
	s.Retry(at(9))
	s.Cancel(at(9), errBroke)
	s.advance(9)
	require.Same(t, r, s.Response())
	require.NoError(t, s.Err())
	require.Equal(t, []string{
		"query", "query>a", "query>a>done a Answered", "query>b", "query>a>late a 2 <nil>",
		"query>b>done b TimedOut", "query>c", "query>b>late b 1 <nil>", "query>b>late b 0 broke",
		"query>c>done c Answered", "query>end 3", "query>c>late c 1 <nil>",
	}, s.traced)
}

// A second Begin does nothing, whatever its deadline.
func TestCoordinatorBeginsOnce(t *testing.T) {
	s := newStepped(t, Options{Limit: 1}, "a", "b")
	s.begin()
	s.Begin(at(1), at(2))
	require.Equal(t, "a", s.asked())
	s.reply(2, 0)
	s.Begin(at(3), at(3))
	s.wantState(Gather)
	s.reply(4, 1)
	require.Equal(t, 4*time.Second, s.wantLedger("a Answered 0 2", "b Answered 0 2").Elapsed)
	require.Equal(t, "query", s.traced[0])
	require.NotContains(t, s.traced[1:], "query")
}

// Hooks are called in pairs, and each gets the context that the one before it returned.
func TestCoordinatorHooks(t *testing.T) {
	s := newStepped(t, Options{}, "a", "b")
	s.begin()
	s.reply(1, 1)
	s.fail(2, 0, errBroke)
	s.fail(3, 0, errBroke)
	require.Equal(t, []string{
		"query", "query>a", "query>b", "query>b>done b Answered", "query>a>done a Failed", "query>end 2",
		"query>a>late a 0 broke",
	}, s.traced)

	s = newStepped(t, Options{}, "a")
	s.Cancel(at(1), nil) // before Begin
	require.Equal(t, []string{"query", "query>end 0"}, s.traced)
}

// Hooks that return nil, and those that are nil, leave the context as it is.
func TestCoordinatorHooksWithoutContext(t *testing.T) {
	var got []context.Context
	trace := &Trace{
		QueryStarted: func(ctx context.Context, i QueryInfo) context.Context {
			require.Equal(t, QueryInfo{testRequest, at(7)}, i)
			got = append(got, ctx)
			return nil
		},
		ProbeDone: func(ctx context.Context, i ProbeDoneInfo) {
			require.Same(t, testRequest, i.Request)
			got = append(got, ctx)
		},
	}
	c, err := NewCoordinator[Hit[string]](testRequest, []PeerID{"a"}, func(Ask) bool { return true }, &Options{Trace: trace})
	require.NoError(t, err)
	c.Begin(t0, at(7))
	c.Reply(at(1), 0, nil, nil)
	require.Equal(t, []context.Context{context.Background(), context.Background()}, got)
}

// Rule 7: whichever way a peer's hits go missing, the answer is Partial and says why.
func TestCoordinatorPartial(t *testing.T) {
	tests := []struct {
		name     string
		err      error
		status   Status
		hits     string
		timedOut int
		failed   int
	}{
		{"hits", nil, Answered, "ok x", 0, 0},
		{"error", errBroke, Failed, "ok", 0, 1},
		{"panic", &PanicError{Value: 1}, Failed, "ok", 0, 1},
		{"panic with a timeout", &PanicError{Value: context.DeadlineExceeded}, Failed, "ok", 0, 1},
		{"panic with ErrPartial", &PanicError{Value: ErrPartial}, Failed, "ok", 0, 1},
		{"panic with ErrPermanent", &PanicError{Value: ErrPermanent}, Failed, "ok", 0, 1},
		{"exit", ErrGoexit, Failed, "ok", 0, 1},
		{"deadline of its own", errOwnTimeout, TimedOut, "ok", 1, 0},
		{"timeout in a wrapper that is none", &url.Error{Err: errOwnTimeout}, TimedOut, "ok", 1, 0},
		{"no timeout, though it could be", &net.OpError{Err: syscall.ECONNREFUSED}, Failed, "ok", 0, 1},
		{"part, because of a panic elsewhere", fmt.Errorf("%w: %w", ErrPartial, &PanicError{}), Incomplete, "ok x", 0, 0},
		{"timeout of a connection", os.ErrDeadlineExceeded, TimedOut, "ok", 1, 0},
		{"part", errPart, Incomplete, "ok x", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStepped(t, Options{}, "good", "tested")
			s.begin()
			s.Reply(at(2), 1, []Hit[string]{{"x", 1}}, tt.err)
			s.reply(3, 0, Hit[string]{"ok", 0})
			r := s.Response()
			require.Equal(t, tt.status, r.Peers[1].Status)
			require.Equal(t, tt.err, r.Peers[1].Err)
			require.Equal(t, tt.status != Answered, r.Partial)
			require.Equal(t, tt.hits, ids(r.Hits))
			require.Equal(t, []int{2, tt.timedOut, tt.failed}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
			require.NoError(t, s.Err())
		})
	}
}

// A timeout says which deadline it was, and what the probe returned if that is more. An error after
// the deadline is a timeout too, and one before it isn't.
func TestCoordinatorTimeoutErrors(t *testing.T) {
	tests := []struct {
		own   time.Duration
		until float64
		at    float64
		err   error
		want  string
	}{
		{time.Second, 1, 1, errBroke, "scatter: no reply within 1s: broke"},
		{time.Second, 0, 1.5, errBroke, "scatter: no reply within 1s: broke"},
		{time.Second, 0, 1.5, errOwnTimeout, "scatter: no reply within 1s"},
		{time.Second, 0, 0.9, errOwnTimeout, "rpc: context deadline exceeded"},
		{time.Second, 0, 0.9, errBroke, "broke"},
		{2 * time.Second, 1, 1, errBroke, "scatter: the query's time was up: broke"},
		{-1, 1, 1, errBroke, "scatter: the query's time was up: broke"},
		{-1, 0, 1e6, errBroke, "broke"},
	}
	for _, tt := range tests {
		s := newStepped(t, Options{PeerDeadline: tt.own}, "a")
		until := time.Time{}
		if tt.until > 0 {
			until = at(tt.until)
		}
		s.Begin(t0, until)
		s.fail(tt.at, 0, tt.err)
		require.EqualError(t, s.Response().Peers[0].Err, tt.want)
		if tt.want != "scatter: no reply within 1s" {
			require.ErrorIs(t, s.Response().Peers[0].Err, tt.err)
		}
	}
	s := newStepped(t, Options{PeerDeadline: 2 * time.Second, Limit: 1}, "a", "b")
	s.beginUntil(1)
	s.advance(1)
	r := s.wantLedger("a TimedOut 0 1", "b NotAsked 0 0")
	for _, p := range r.Peers {
		require.EqualError(t, p.Err, "scatter: the query's time was up")
		require.ErrorIs(t, p.Err, context.DeadlineExceeded)
	}
}

// Rule 7: an answer without any peer is no empty success. Rule 8: nor is one for which there was
// none to ask.
func TestCoordinatorNobodyAnswers(t *testing.T) {
	s := newStepped(t, Options{}, "a", "b")
	s.begin()
	s.fail(1, 0, errBroke)
	s.fail(1, 1, errBroke)
	r := s.wantLedger("a Failed 0 1", "b Failed 0 1")
	require.True(t, r.Partial)
	require.Empty(t, r.Hits)
	require.Equal(t, 2, r.PeersFailed)

	for _, opts := range []Options{{}, {Cover: quarters()}, {Cover: quarters(), WaitAll: true}} {
		s = newStepped(t, opts)
		s.begin()
		r = s.wantLedger()
		require.True(t, r.Partial)
		require.Zero(t, r.Coverage)
		require.Empty(t, r.Hits)
		require.Zero(t, r.PeersConsulted)
		require.NoError(t, s.Err())
	}
}

// Rule 9: the query's deadline ends it in each state, and what has arrived is the answer.
func TestCoordinatorQueryDeadline(t *testing.T) {
	s := newStepped(t, Options{}, "a")
	s.Begin(at(3), at(3))
	require.Empty(t, s.asks)
	r := s.wantLedger("a NotAsked 0 0")
	require.ErrorIs(t, r.Peers[0].Err, context.DeadlineExceeded)
	require.Zero(t, r.PeersTimedOut)
	require.Equal(t, []string{"query", "query>end 0"}, s.traced)

	s = newStepped(t, Options{Limit: 1}, "a", "b", "c")
	s.beginUntil(3)
	s.reply(1, 0, Hit[string]{"x", 1})
	s.wantDeadline(3)
	s.wantState(Fanout)
	s.advance(3)
	r = s.wantLedger("a Answered 1 1", "b TimedOut 0 2", "c NotAsked 0 0")
	require.Equal(t, []int{2, 1}, []int{r.PeersConsulted, r.PeersTimedOut})
	require.Equal(t, "x", ids(r.Hits))
	require.True(t, r.Partial)
	require.Equal(t, 3*time.Second, r.Elapsed)
	require.NoError(t, s.Err())

	s = newStepped(t, Options{PeerDeadline: -1}, "a", "b")
	s.beginUntil(3)
	s.reply(1, 1, Hit[string]{"x", 1})
	s.wantState(Gather)
	s.advance(3)
	s.wantLedger("a TimedOut 0 3", "b Answered 1 1")
}

// Rule 9: a cancel ends the query in each state, with what has arrived and the cause.
func TestCoordinatorCancel(t *testing.T) {
	s := newStepped(t, Options{Cover: quarters()}, "a")
	s.Cancel(t0, errBroke) // in Init
	r := s.wantLedger("a NotAsked 0 0")
	require.Equal(t, errBroke, s.Err())
	require.Equal(t, errBroke, r.Peers[0].Err)
	require.True(t, r.Partial)
	require.Zero(t, r.Elapsed)
	require.Len(t, r.Missing, 1)

	s = newStepped(t, Options{Limit: 1}, "a", "b", "c")
	s.begin()
	s.reply(1, 0, Hit[string]{"x", 1})
	s.Cancel(at(2), errBroke) // in Fanout
	require.Equal(t, "x", ids(s.wantLedger("a Answered 1 1", "b Abandoned 0 1", "c NotAsked 0 0").Hits))
	require.Equal(t, errBroke, s.Err())

	s = newStepped(t, Options{MinCoverage: 1}, "a")
	s.begin()
	s.Cancel(at(2), nil) // in Gather
	require.Equal(t, context.Canceled, s.wantLedger("a Abandoned 0 2").Peers[0].Err)
	require.Equal(t, context.Canceled, s.Err(), "which comes before a CoverageError")

	chosen := &fixed{cover: quarters(), peers: []PeerID{"a", "c"}, standbys: []PeerID{"b", "d"}}
	s = newSelected(t, Options{}, chosen)
	s.Cancel(at(1), errBroke)
	r = s.wantLedger("a NotAsked 0 0", "c NotAsked 0 0")
	require.Zero(t, r.Elapsed)
	require.Equal(t, 1.0, r.Missing[0].Share)
	require.Equal(t, []int{1, 1}, []int{chosen.chosen, chosen.finishes})
}

// Rule 10: a reply that is told before the deadline is looked at counts, however late it is by the
// clock. It has nobody asked when the time is up.
func TestCoordinatorReplyInHandCounts(t *testing.T) {
	s := newStepped(t, Options{Limit: 1, PeerDeadline: time.Second}, "a", "b")
	s.beginUntil(2)
	s.reply(1.5, 0, Hit[string]{"x", 1})
	require.Equal(t, "ab", s.asked())
	require.Equal(t, at(2), s.asks[1].Deadline)
	s.reply(2.5, 1, Hit[string]{"y", 1})
	s.wantLedger("a Answered 1 1.5", "b Answered 1 1")

	s = newStepped(t, Options{Limit: 1}, "a", "b")
	s.beginUntil(2)
	s.reply(2, 0, Hit[string]{"x", 1})
	s.advance(2)
	require.Equal(t, "a", s.asked())
	s.wantLedger("a Answered 1 2", "b NotAsked 0 0")
}

// Rule 11: an error names what is wrong and its value.
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
		{&good, ask, &Options{Semaphore: semaphore.NewWeighted(1)},
			"scatter: Options.Semaphore is set, but ask decides which peer can be asked"},
		{&good, ask, &Options{Affinity: "x"}, `scatter: Options.Affinity is "x", but only a Searcher chooses replicas`},
	}
	for _, tt := range tests {
		c, err := NewCoordinator[Hit[string]](tt.req, nil, tt.ask, tt.opts)
		require.EqualError(t, err, tt.want)
		require.Nil(t, c)
	}
}

func TestStateNames(t *testing.T) {
	require.Equal(t, "Init Fanout Gather Merging scatter.State(4)", fmt.Sprint(Init, Fanout, Gather, Merging, State(4)))
}
