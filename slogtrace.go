package scatter

import (
	"context"
	"log/slog"
)

// SlogTrace returns a Trace that logs to logger, or nil if logger is nil. The handler gets the
// context of the query or probe.
//
// A panic in a probe is an error, with its stack. Warnings are a peer that timed out, failed or
// answered in part, a peer whose hits were not in the query's Order, and a partial answer. The rest
// is at debug level. An event costs nothing but the check of its level if the handler doesn't want
// it.
//
// An event has the attributes "table", and "peer" if it concerns one, and others as needed: "role",
// "status", "hits", "elapsed", "error". It stays short on any cluster: of peers and missing ranges
// it names the first few, and counts the others.
func SlogTrace(logger *slog.Logger) *Trace {
	if logger == nil {
		return nil
	}
	return logTrace(func(ctx context.Context, level slog.Level, msg string) func([]slog.Attr) {
		if !logger.Enabled(ctx, level) {
			return nil
		}
		return func(attrs []slog.Attr) { logger.LogAttrs(ctx, level, msg, attrs...) }
	})
}

// openLog begins an event of a log. It returns a function that writes it, or nil if it isn't
// wanted, so that its attributes need not be made.
type openLog func(ctx context.Context, level slog.Level, msg string) (write func([]slog.Attr))

// logTrace returns a Trace that logs. All loggers get the same events from it.
func logTrace(open openLog) *Trace {
	return &Trace{
		QueryStarted: func(ctx context.Context, i QueryInfo) context.Context {
			if write := open(ctx, slog.LevelDebug, "scatter: query started"); write != nil {
				attrs := []slog.Attr{slog.String("table", i.Request.Table), slog.Int("k", i.Request.K)}
				if !i.Deadline.IsZero() {
					attrs = append(attrs, slog.Time("deadline", i.Deadline))
				}
				write(attrs)
			}
			return ctx
		},
		ProbeStarted: func(ctx context.Context, i ProbeInfo) context.Context {
			if write := open(ctx, slog.LevelDebug, "scatter: probe started"); write != nil {
				attrs := append(peerAttrs(i.Request, i.Peer), slog.String("role", i.Role.String()))
				if !i.Deadline.IsZero() {
					attrs = append(attrs, slog.Time("deadline", i.Deadline))
				}
				write(attrs)
			}
			return ctx
		},
		ProbeDone: func(ctx context.Context, i ProbeDoneInfo) {
			level, msg := probeEvent(&i.PeerReport)
			if write := open(ctx, level, msg); write != nil {
				write(probeAttrs(i))
			}
		},
		QueryDone: func(ctx context.Context, i QueryDoneInfo) {
			level, msg := slog.LevelDebug, "scatter: query done"
			if i.Partial {
				level, msg = slog.LevelWarn, "scatter: answer is partial"
			}
			if write := open(ctx, level, msg); write != nil {
				write(queryAttrs(i))
			}
		},
		LateReply: func(ctx context.Context, i LateReplyInfo) {
			level, msg := slog.LevelDebug, "scatter: late reply dropped"
			if asPanic(i.Err) != nil {
				level, msg = slog.LevelError, "scatter: late probe panicked" // Rule 12
			}
			if write := open(ctx, level, msg); write != nil {
				write(appendError(append(peerAttrs(i.Request, i.Peer), slog.Int("hits", i.Hits)), i.Err))
			}
		},
	}
}

// probeEvent returns how loud the end of a probe is, and what it is called.
func probeEvent(p *PeerReport) (level slog.Level, msg string) {
	switch {
	case asPanic(p.Err) != nil:
		return slog.LevelError, "scatter: probe panicked" // Rule 12
	case p.Status == TimedOut:
		return slog.LevelWarn, "scatter: probe timed out"
	case p.Status == Failed:
		return slog.LevelWarn, "scatter: probe failed"
	case p.Status == Incomplete:
		return slog.LevelWarn, "scatter: probe answered in part"
	case p.Unsorted:
		return slog.LevelWarn, "scatter: hits were not in the query's order: check its Order or Ranking"
	}
	return slog.LevelDebug, "scatter: probe done"
}

func probeAttrs(i ProbeDoneInfo) []slog.Attr {
	attrs := append(peerAttrs(i.Request, i.Peer), slog.String("role", i.Role.String()),
		slog.String("status", i.Status.String()), slog.Int("hits", i.Hits), slog.Duration("elapsed", i.Elapsed))
	if i.Unsorted {
		attrs = append(attrs, slog.Bool("unsorted", true), slog.String("order", i.Request.Query.Order().String()))
	}
	return appendError(attrs, i.Err)
}

func queryAttrs(i QueryDoneInfo) []slog.Attr {
	attrs := []slog.Attr{
		slog.String("table", i.Request.Table), slog.Int("k", i.Request.K), slog.Int("hits", i.Hits),
		slog.Int("duplicates", i.Duplicates), slog.Int("peers", len(i.Peers)), slog.Int("consulted", i.PeersConsulted),
		slog.Bool("partial", i.Partial), slog.Float64("coverage", i.Coverage),
		slog.Duration("elapsed", i.Elapsed), slog.Duration("merge", i.MergeElapsed),
	}
	if i.Partial {
		var without []*PeerReport
		for p := range i.Peers {
			if p := &i.Peers[p]; p.Status != Answered {
				without = append(without, p)
			}
		}
		attrs = append(attrs, slog.String("unanswered", few(len(without), ", ", func(i int) string {
			return string(without[i].Peer) + " " + without[i].Status.String()
		})))
	}
	if len(i.Missing) > 0 {
		attrs = append(attrs, slog.String("missing", few(len(i.Missing), "; ", func(m int) string {
			return i.Missing[m].String()
		})))
	}
	return appendError(attrs, i.Err)
}

func peerAttrs(req *Request, peer PeerID) []slog.Attr {
	return []slog.Attr{slog.String("table", req.Table), slog.String("peer", string(peer))}
}

// appendError appends what there is to say of an error, which may be nil.
func appendError(attrs []slog.Attr, err error) []slog.Attr {
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	if panicked := asPanic(err); panicked != nil {
		attrs = append(attrs, slog.String("stack", string(panicked.Stack)))
	}
	return attrs
}

// asPanic returns err if it is the probe's own panic. An error that wraps one tells of another's.
func asPanic(err error) *PanicError {
	panicked, _ := err.(*PanicError) //nolint:errorlint // see above
	return panicked
}
