package scatter

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type traceKey string

// A joined Trace calls the hooks in turn, and each gets the context that the one before it
// returned.
func TestJoinTraces(t *testing.T) {
	var calls []string
	named := func(name string, returnsNil bool) *Trace {
		note := func(ctx context.Context, hook string) {
			seen := ""
			for _, other := range []traceKey{"a", "b", "c"} {
				if ctx.Value(other) != nil {
					seen += string(other)
				}
			}
			calls = append(calls, hook+" "+name+" sees "+seen)
		}
		start := func(ctx context.Context, hook string) context.Context {
			note(ctx, hook)
			if returnsNil {
				return nil
			}
			return context.WithValue(ctx, traceKey(name), true)
		}
		return &Trace{
			QueryStarted: func(ctx context.Context, _ QueryInfo) context.Context { return start(ctx, "query") },
			ProbeStarted: func(ctx context.Context, _ ProbeInfo) context.Context { return start(ctx, "probe") },
			ProbeDone:    func(ctx context.Context, _ ProbeDoneInfo) { note(ctx, "probe done") },
			QueryDone:    func(ctx context.Context, _ QueryDoneInfo) { note(ctx, "query done") },
			LateReply:    func(ctx context.Context, _ LateReplyInfo) { note(ctx, "late") },
		}
	}
	a, b, c := named("a", false), named("b", true), named("c", false)
	joined := JoinTraces(nil, a, &Trace{}, b, nil, c)
	*a = Trace{} // it was read, and not kept

	ctx := started(t.Context(), joined.QueryStarted, QueryInfo{})
	tell(ctx, joined.QueryDone, QueryDoneInfo{})
	ctx = started(t.Context(), joined.ProbeStarted, ProbeInfo{})
	tell(ctx, joined.ProbeDone, ProbeDoneInfo{})
	tell(ctx, joined.LateReply, LateReplyInfo{})
	require.Equal(t, []string{
		"query a sees ", "query b sees a", "query c sees a", "query done a sees ac", "query done b sees ac",
		"query done c sees ac",
		"probe a sees ", "probe b sees a", "probe c sees a", "probe done a sees ac", "probe done b sees ac",
		"probe done c sees ac", "late a sees ac", "late b sees ac", "late c sees ac",
	}, calls)
}

func TestJoinTracesOfFew(t *testing.T) {
	require.Nil(t, JoinTraces())
	require.Nil(t, JoinTraces(nil, nil))
	require.Equal(t, &Trace{}, JoinTraces(&Trace{}, nil, &Trace{}))
	sum := 0
	one := &Trace{QueryDone: func(context.Context, QueryDoneInfo) { sum++ }}
	ten := &Trace{QueryDone: func(context.Context, QueryDoneInfo) { sum += 10 }}
	joined := JoinTraces(one, &Trace{}, ten, ten)
	joined.QueryDone(t.Context(), QueryDoneInfo{})
	require.Equal(t, 21, sum)
	require.Nil(t, joined.LateReply)
	require.Nil(t, joined.QueryStarted)
	require.NotSame(t, one, JoinTraces(one))

	// A hook that is nil, or returns nil, leaves the context in place.
	ctx := context.WithValue(t.Context(), traceKey("x"), 1)
	require.Equal(t, ctx, started(ctx, nil, ProbeInfo{}))
	require.Equal(t, ctx, started(ctx, func(context.Context, ProbeInfo) context.Context { return nil }, ProbeInfo{}))
	tell(ctx, nil, ProbeInfo{})
}

// loggedEvent is an event as every logger must log it.
type loggedEvent struct {
	fire  func(context.Context, *Trace)
	level slog.Level
	msg   string
	attrs map[string]any
}

var errDown = errors.New("down")

// loggedEvents returns events of every kind. Both loggers are tested with them. Rule 12: a panic is
// logged as an error with its stack. Rule 40: each event is short, whatever the cluster.
func loggedEvents() []loggedEvent {
	req := &Request{Table: "docs", Query: KNN{Field: "f", Ranking: ScoreDescending}, K: 10}
	due := time.Unix(1700000000, 0).UTC()
	panicked := &PanicError{Value: "at the disco", Stack: []byte("main.go:1")}
	probe := func(level slog.Level, msg string, p PeerReport, attrs map[string]any) loggedEvent {
		p.Peer, p.Hits, p.Elapsed = "a", 3, time.Second
		attrs["table"], attrs["peer"], attrs["role"], attrs["hits"] = "docs", "a", p.Role.String(), int64(3)
		attrs["elapsed"], attrs["status"] = time.Second, p.Status.String()
		fire := func(ctx context.Context, t *Trace) { t.ProbeDone(ctx, ProbeDoneInfo{req, p}) }
		return loggedEvent{fire, level, msg, attrs}
	}
	type m = map[string]any
	unsorted := "scatter: hits were not in the query's order: check its Order or Ranking"
	return append([]loggedEvent{
		{func(ctx context.Context, t *Trace) { t.QueryStarted(ctx, QueryInfo{req, due}) }, slog.LevelDebug,
			"scatter: query started", m{"table": "docs", "k": int64(10), "deadline": due}},
		{func(ctx context.Context, t *Trace) { t.QueryStarted(ctx, QueryInfo{Request: req}) }, slog.LevelDebug,
			"scatter: query started", m{"table": "docs", "k": int64(10)}},
		{func(ctx context.Context, t *Trace) { t.ProbeStarted(ctx, ProbeInfo{req, "a", Hedge, due}) }, slog.LevelDebug,
			"scatter: probe started", m{"table": "docs", "peer": "a", "role": "Hedge", "deadline": due}},
		probe(slog.LevelDebug, "scatter: probe done", PeerReport{Status: Answered, Role: Fallback}, m{}),
		probe(slog.LevelDebug, "scatter: probe done", PeerReport{Status: NotNeeded, Err: ErrEnough}, m{"error": ErrEnough}),
		probe(slog.LevelWarn, unsorted, PeerReport{Status: Answered, Unsorted: true},
			m{"unsorted": true, "order": "ScoreDescending"}),
		probe(slog.LevelWarn, "scatter: probe timed out", PeerReport{Status: TimedOut, Err: context.DeadlineExceeded},
			m{"error": context.DeadlineExceeded}),
		probe(slog.LevelWarn, "scatter: probe failed", PeerReport{Status: Failed, Err: errDown}, m{"error": errDown}),
		probe(slog.LevelWarn, "scatter: probe answered in part", PeerReport{Status: Incomplete, Err: errDown, Unsorted: true},
			m{"error": errDown, "unsorted": true, "order": "ScoreDescending"}),
		probe(slog.LevelError, "scatter: probe panicked", PeerReport{Status: Failed, Err: panicked},
			m{"error": error(panicked), "stack": "main.go:1"}),
		{func(ctx context.Context, t *Trace) { t.LateReply(ctx, LateReplyInfo{req, "a", 3, nil}) }, slog.LevelDebug,
			"scatter: late reply dropped", m{"table": "docs", "peer": "a", "hits": int64(3)}},
		{func(ctx context.Context, t *Trace) { t.LateReply(ctx, LateReplyInfo{req, "a", 0, panicked}) }, slog.LevelError,
			"scatter: late probe panicked",
			m{"table": "docs", "peer": "a", "hits": int64(0), "error": error(panicked), "stack": "main.go:1"}},
	}, loggedQueries(req)...)
}

func loggedQueries(req *Request) []loggedEvent {
	whole := QueryDoneInfo{
		Request: req, Peers: make([]PeerReport, 4), PeersConsulted: 3, Hits: 2, Duplicates: 1, Coverage: 1,
		Elapsed: time.Second, MergeElapsed: time.Millisecond,
	}
	attrs := func(partial bool, coverage float64) map[string]any {
		return map[string]any{
			"table": "docs", "k": int64(10), "hits": int64(2), "duplicates": int64(1), "peers": int64(4),
			"consulted": int64(3), "partial": partial, "coverage": coverage, "elapsed": time.Second,
			"merge": time.Millisecond,
		}
	}
	partial := whole
	partial.Partial, partial.Coverage, partial.Err = true, 0.5, errDown
	partial.Peers = []PeerReport{
		{Peer: "a", Status: Dead}, {Peer: "b", Status: Answered}, {Peer: "c", Status: Failed}, {Peer: "d", Status: NotNeeded},
	}
	lacks := attrs(true, 0.5)
	lacks["unanswered"], lacks["error"] = "a Dead, c Failed, d NotNeeded", errDown

	many := partial
	many.Err = nil
	many.Peers = make([]PeerReport, 1000)
	for range 1000 {
		many.Missing = append(many.Missing, MissingRange{First: 1, Last: 2, Holders: make([]PeerID, 1000)})
	}
	crowded := attrs(true, 0.5)
	crowded["peers"] = int64(1000)
	crowded["unanswered"] = " NotAsked,  NotAsked,  NotAsked and 997 more"
	one := "0x0000000000000001-0x0000000000000002 (0.00%) of , ,  and 997 more"
	crowded["missing"] = one + "; " + one + "; " + one + " and 997 more"

	done := func(i QueryDoneInfo) func(context.Context, *Trace) {
		return func(ctx context.Context, t *Trace) { t.QueryDone(ctx, i) }
	}
	return []loggedEvent{
		{done(whole), slog.LevelDebug, "scatter: query done", attrs(false, 1)},
		{done(partial), slog.LevelWarn, "scatter: answer is partial", lacks},
		{done(many), slog.LevelWarn, "scatter: answer is partial", crowded},
	}
}
