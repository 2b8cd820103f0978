package scatter

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// ZapTrace returns a Trace that logs to logger, or nil if logger is nil. The events, their levels
// and their fields are those of [SlogTrace].
func ZapTrace(logger *zap.Logger) *Trace {
	if logger == nil {
		return nil
	}
	return logTrace(func(_ context.Context, level slog.Level, msg string) func([]slog.Attr) {
		entry := logger.Check(zapLevel(level), msg)
		if entry == nil {
			return nil
		}
		return func(attrs []slog.Attr) {
			fields := make([]zap.Field, len(attrs))
			for i, attr := range attrs {
				fields[i] = zapField(attr)
			}
			entry.Write(fields...)
		}
	})
}

func zapLevel(level slog.Level) zapcore.Level {
	switch level {
	case slog.LevelError:
		return zap.ErrorLevel
	case slog.LevelWarn:
		return zap.WarnLevel
	}
	return zap.DebugLevel
}

// zapField leaves it to zap to find the type of what logTrace logs, an error among them.
func zapField(attr slog.Attr) zap.Field { return zap.Any(attr.Key, attr.Value.Any()) }
