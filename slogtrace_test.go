package scatter

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

// recorder is a slog.Handler that keeps the last event and its context.
type recorder struct {
	level  slog.Level
	ctx    context.Context
	record *slog.Record
}

func (r *recorder) Enabled(_ context.Context, level slog.Level) bool { return level >= r.level }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler               { return r }
func (r *recorder) WithGroup(string) slog.Handler                    { return r }
func (r *recorder) Handle(ctx context.Context, record slog.Record) error {
	r.ctx, r.record = ctx, &record
	return nil
}

// Each event is logged at its level, with all that should be known, and the handler gets the
// context.
func TestSlogTrace(t *testing.T) {
	for i, e := range loggedEvents() {
		r := &recorder{level: slog.LevelDebug}
		ctx := context.WithValue(t.Context(), traceKey("event"), i)
		e.fire(ctx, SlogTrace(slog.New(r)))
		require.Equal(t, ctx, r.ctx)
		require.Equal(t, e.level, r.record.Level)
		require.Equal(t, e.msg, r.record.Message)
		attrs := map[string]any{}
		r.record.Attrs(func(a slog.Attr) bool {
			require.NotContains(t, attrs, a.Key)
			attrs[a.Key] = a.Value.Any()
			return true
		})
		require.Equal(t, e.attrs, attrs, e.msg)
	}
}

// What the handler doesn't want isn't made. The hooks that start something leave the context as it
// is.
func TestSlogTraceSilent(t *testing.T) {
	require.Nil(t, SlogTrace(nil))
	r := &recorder{level: slog.LevelError + 1}
	testSilentTrace(t, SlogTrace(slog.New(r)))
	require.Nil(t, r.record)
}

func testSilentTrace(t *testing.T, trace *Trace) {
	ctx := t.Context()
	for _, e := range loggedEvents() {
		require.Zero(t, testing.AllocsPerRun(10, func() { e.fire(ctx, trace) }), e.msg)
	}
	require.Equal(t, ctx, started(ctx, trace.QueryStarted, QueryInfo{Request: &Request{}}))
	require.Equal(t, ctx, started(ctx, trace.ProbeStarted, ProbeInfo{Request: &Request{}}))
}
