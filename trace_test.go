package scatter

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// Every hook is told, with all it should know, in the order in which things happen.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []any
		trace := &Trace{
			StateEntered: func(i StateInfo) { got = append(got, i) },
			ProbeStarted: func(i ProbeStartInfo) { got = append(got, i) },
			ProbeDone:    func(i ProbeDoneInfo) { got = append(got, i) },
			MergeDone:    func(i MergeInfo) { got = append(got, i) },
		}
		b := behave{
			"a": after(1*time.Second, Hit[string]{"x", 1}),
			"b": after(2*time.Second, Hit[string]{"x", 1}, Hit[string]{"y", 2}),
			"c": func(context.Context) (hitList, error) { time.Sleep(3 * time.Second); return nil, errBroke },
		}
		began := time.Now()
		_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{Trace: trace})
		require.NoError(t, err)
		due := began.Add(DefaultPeerDeadline)
		require.Equal(t, []any{
			StateInfo{testRequest, Init},
			StateInfo{testRequest, Fanout},
			ProbeStartInfo{testRequest, "a", Primary, due},
			ProbeStartInfo{testRequest, "b", Primary, due},
			ProbeStartInfo{testRequest, "c", Primary, due},
			StateInfo{testRequest, Gather},
			ProbeDoneInfo{testRequest, PeerReport{"a", Primary, Answered, nil, 1, 1 * time.Second}},
			ProbeDoneInfo{testRequest, PeerReport{"b", Primary, Answered, nil, 2, 2 * time.Second}},
			ProbeDoneInfo{testRequest, PeerReport{"c", Primary, Failed, errBroke, 0, 3 * time.Second}},
			StateInfo{testRequest, Merging},
			MergeInfo{testRequest, 2, 2, 1, true, 2.0 / 3, nil, 0, 3 * time.Second},
		}, got)
	})
}

// A Logger and a Trace, whole or in part, are both told.
func TestTraceAndLogger(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	var states []State
	trace := &Trace{StateEntered: func(i StateInfo) { states = append(states, i.State) }}
	b := behave{"a": answer()}
	_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{Trace: trace, Logger: zap.New(core)})
	require.NoError(t, err)
	require.Equal(t, []State{Init, Fanout, Gather, Merging}, states)
	require.Equal(t, 4, logs.FilterMessage("scatter: state entered").Len())

	sum := 0
	one, two := &Trace{MergeDone: func(MergeInfo) { sum++ }}, &Trace{MergeDone: func(MergeInfo) { sum += 10 }}
	joined := JoinTraces(nil, one, nil, two, two)
	joined.MergeDone(MergeInfo{})
	require.Equal(t, 21, sum)
	require.Nil(t, joined.LateReply)
	require.Nil(t, JoinTraces(nil, nil))
	require.Nil(t, JoinTraces())
}

// A ledger can be shown as it is.
func TestReportAsJSON(t *testing.T) {
	b, err := json.Marshal(PeerReport{Peer: "a", Role: Hedge, Status: TimedOut, Hits: 2, Elapsed: 3})
	require.NoError(t, err)
	require.JSONEq(t, `{"Peer":"a","Role":"Hedge","Status":"TimedOut","Err":null,"Hits":2,"Elapsed":3}`, string(b))
}

// Each thing is logged at its level with its fields. Rule 12: a panic is logged with its stack.
func TestZapTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		b := behave{
			"late":  func(context.Context) (hitList, error) { time.Sleep(2 * time.Second); panic("late panic") },
			"ok":    answer(Hit[string]{"x", 1}),
			"panic": func(context.Context) (hitList, error) { panic("at the disco") },
			"part":  func(context.Context) (hitList, error) { return nil, ErrPartial },
			"slow":  after(3 * time.Second),
			"wrong": func(context.Context) (hitList, error) { return nil, errBroke },
		}
		_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe,
			&Options{PeerDeadline: time.Second, Logger: zap.New(core)})
		require.NoError(t, err)
		time.Sleep(3 * time.Second)
		synctest.Wait()

		want := func(level zapcore.Level, msg string, fields ...zap.Field) map[string]any {
			t.Helper()
			found := logs.FilterMessage(msg)
			for _, f := range fields {
				found = found.FilterField(f)
			}
			require.Equal(t, 1, found.Len(), "%s %v in %v", msg, fields, logs.All())
			entry := found.All()[0]
			require.Equal(t, level, entry.Level, msg)
			require.Equal(t, "t", entry.ContextMap()["table"], msg)
			return entry.ContextMap()
		}
		want(zap.DebugLevel, "scatter: state entered", zap.Stringer("state", Gather))
		want(zap.DebugLevel, "scatter: probe started", zap.String("peer", "ok"))
		want(zap.DebugLevel, "scatter: probe done", zap.String("peer", "ok"), zap.Int("hits", 1))
		want(zap.DebugLevel, "scatter: merge done", zap.Int("lists", 2), zap.Bool("partial", true))
		want(zap.WarnLevel, "scatter: probe answered in part", zap.String("peer", "part"))
		want(zap.WarnLevel, "scatter: probe failed", zap.String("peer", "wrong"), zap.Error(errBroke))
		want(zap.WarnLevel, "scatter: probe timed out", zap.String("peer", "slow"), zap.Duration("elapsed", time.Second))
		want(zap.DebugLevel, "scatter: late reply dropped", zap.String("peer", "slow"))
		panicked := want(zap.ErrorLevel, "scatter: probe panicked", zap.String("peer", "panic"))
		require.Equal(t, "scatter: panic: at the disco", panicked["error"])
		require.Contains(t, panicked["stack"], "TestZapTrace")
		panicked = want(zap.ErrorLevel, "scatter: late probe panicked", zap.String("peer", "late"))
		require.True(t, strings.HasSuffix(panicked["error"].(string), "late panic"))
	})
}

// Rule 24: what an answer lacks, and why, is readable in a log line.
func TestZapTraceMissing(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	b := behave{"a": answer(), "b": func(context.Context) (hitList, error) { return nil, errBroke }}
	_, err := Broadcast(t.Context(), testRequest, b.peers(), b.probe, &Options{Cover: quarters(), Logger: zap.New(core)})
	require.NoError(t, err)
	merged := logs.FilterMessage("scatter: merge done").All()[0].ContextMap()
	require.Equal(t, 0.5, merged["coverage"])
	require.Equal(t, []any{"0x0000000000000001-0x8000000000000000 (50.00%): b Failed, c Dead, d Dead"}, merged["missing"])
}

// What the logger would not write is not made.
func TestZapTraceSilent(t *testing.T) {
	require.Nil(t, ZapTrace(nil))
	core, logs := observer.New(zap.ErrorLevel)
	trace := ZapTrace(zap.New(core))
	require.Zero(t, testing.AllocsPerRun(100, func() { trace.MergeDone(MergeInfo{Request: testRequest}) }))
	trace.ProbeDone(ProbeDoneInfo{testRequest, PeerReport{Status: Failed, Err: errors.New("x")}})
	require.Zero(t, logs.Len())
}
