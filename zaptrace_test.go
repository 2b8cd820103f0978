package scatter

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// Each event is logged at its level, with all that should be known.
func TestZapTrace(t *testing.T) {
	levels := map[slog.Level]zapcore.Level{
		slog.LevelDebug: zap.DebugLevel, slog.LevelWarn: zap.WarnLevel, slog.LevelError: zap.ErrorLevel,
	}
	core, logs := observer.New(zap.DebugLevel)
	for _, e := range loggedEvents() {
		e.fire(t.Context(), ZapTrace(zap.New(core)))
		entries := logs.TakeAll()
		require.Len(t, entries, 1)
		require.Equal(t, levels[e.level], entries[0].Level)
		require.Equal(t, e.msg, entries[0].Message)
		if err, ok := e.attrs["error"].(error); ok {
			e.attrs["error"] = err.Error()
		}
		require.Equal(t, e.attrs, entries[0].ContextMap(), e.msg)
		require.Len(t, entries[0].Context, len(e.attrs), "a key is there twice")
	}
}

// What the logger would not write is not made.
func TestZapTraceSilent(t *testing.T) {
	require.Nil(t, ZapTrace(nil))
	core, logs := observer.New(zap.FatalLevel)
	testSilentTrace(t, ZapTrace(zap.New(core)))
	require.Zero(t, logs.Len())
}
