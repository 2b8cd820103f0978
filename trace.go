package scatter

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Trace is a set of functions that are told what happens to a query, for logs, metrics and spans. Any of them may be
// nil, and a nil *Trace traces nothing.
//
// They are called without a lock held, on the goroutine that called [Broadcast], one at a time, and the query waits for
// them while its deadlines run: they must be quick. A panic in one passes to Broadcast's caller. LateReply alone may be
// called on other goroutines too, at the same time as the others and after Broadcast has returned; a panic in it there
// ends the program. One Trace may serve many queries at once; Request tells them apart, unless queries share one. The
// functions must not write to what an Info points to.
type Trace struct {
	StateEntered func(StateInfo)      // the query has entered a state, Init included
	ProbeStarted func(ProbeStartInfo) // a peer has been asked just now
	ProbeDone    func(ProbeDoneInfo)  // a peer that was asked has answered, failed, or was given up on
	MergeDone    func(MergeInfo)      // the answer is ready
	LateReply    func(LateReplyInfo)  // a reply was dropped, because nobody waited for it any more

	// For a Searcher, which counts the goroutines of Broadcast.
	starting, ended func()
}

// StateInfo is what [Trace].StateEntered is told.
type StateInfo struct {
	Request *Request
	State   State
}

// ProbeStartInfo is what [Trace].ProbeStarted is told.
type ProbeStartInfo struct {
	Request  *Request
	Peer     PeerID
	Role     Role
	Deadline time.Time // the peer's; zero if it has none
}

// ProbeDoneInfo is what [Trace].ProbeDone is told: the peer's line of the ledger, final now.
type ProbeDoneInfo struct {
	Request *Request
	PeerReport
}

// MergeInfo is what [Trace].MergeDone is told.
type MergeInfo struct {
	Request    *Request
	Lists      int           // replies that were merged, empty ones included
	Hits       int           // hits of the answer
	Duplicates int           // hits passed over, because their ID stood in the answer already
	Partial    bool          // some hits are missing
	Coverage   float64       // as in the Response
	Missing    []Gap         // likewise; not to be written to
	Elapsed    time.Duration // time taken by the merge

	QueryElapsed time.Duration // as the Response's Elapsed: from the start of the query to the end of the merge
}

// LateReplyInfo is what [Trace].LateReply is told.
type LateReplyInfo struct {
	Request *Request
	Peer    PeerID
	Hits    int   // how many were dropped
	Err     error // what the probe returned, or its panic
}

// ZapTrace returns a Trace that logs to logger: a panic, late ones too, as an error with its stack; a peer that timed
// out, failed otherwise or answered in part as a warning; and all else at debug level. The fields are named table,
// peer, elapsed and error, and others as needed. It returns nil for a nil logger.
func ZapTrace(logger *zap.Logger) *Trace {
	if logger == nil {
		return nil
	}
	// Checked first, so that what isn't logged costs no fields.
	log := func(level zapcore.Level, msg string, req *Request, fields func() []zap.Field) {
		if entry := logger.Check(level, msg); entry != nil {
			entry.Write(append([]zap.Field{zap.String("table", req.Table)}, fields()...)...)
		}
	}
	return &Trace{
		StateEntered: func(i StateInfo) {
			log(zap.DebugLevel, "scatter: state entered", i.Request, func() []zap.Field {
				return []zap.Field{zap.Stringer("state", i.State)}
			})
		},
		ProbeStarted: func(i ProbeStartInfo) {
			log(zap.DebugLevel, "scatter: probe started", i.Request, func() []zap.Field {
				return []zap.Field{
					zap.String("peer", string(i.Peer)), zap.Stringer("role", i.Role), zap.Time("deadline", i.Deadline),
				}
			})
		},
		ProbeDone: func(i ProbeDoneInfo) {
			level, msg, panicked := zap.DebugLevel, "scatter: probe done", asPanic(i.Err)
			switch {
			case panicked != nil:
				level, msg = zap.ErrorLevel, "scatter: probe panicked"
			case i.Status == TimedOut:
				level, msg = zap.WarnLevel, "scatter: probe timed out"
			case i.Status == Failed:
				level, msg = zap.WarnLevel, "scatter: probe failed"
			case i.Status == Incomplete:
				level, msg = zap.WarnLevel, "scatter: probe answered in part"
			}
			log(level, msg, i.Request, func() []zap.Field {
				fields := []zap.Field{
					zap.String("peer", string(i.Peer)), zap.Stringer("status", i.Status), zap.Int("hits", i.Hits),
					zap.Duration("elapsed", i.Elapsed), zap.Error(i.Err),
				}
				return appendStack(fields, panicked)
			})
		},
		MergeDone: func(i MergeInfo) {
			log(zap.DebugLevel, "scatter: merge done", i.Request, func() []zap.Field {
				return []zap.Field{
					zap.Int("lists", i.Lists), zap.Int("hits", i.Hits), zap.Int("duplicates", i.Duplicates),
					zap.Bool("partial", i.Partial), zap.Float64("coverage", i.Coverage), zap.Stringers("missing", i.Missing),
					zap.Duration("elapsed", i.Elapsed),
				}
			})
		},
		LateReply: func(i LateReplyInfo) {
			level, msg, panicked := zap.DebugLevel, "scatter: late reply dropped", asPanic(i.Err)
			if panicked != nil {
				level, msg = zap.ErrorLevel, "scatter: late probe panicked"
			}
			log(level, msg, i.Request, func() []zap.Field {
				fields := []zap.Field{zap.String("peer", string(i.Peer)), zap.Int("hits", i.Hits), zap.Error(i.Err)}
				return appendStack(fields, panicked)
			})
		},
	}
}

// asPanic returns err if it is a panic of the probe itself, and not one that err tells of.
func asPanic(err error) *PanicError {
	panicked, _ := err.(*PanicError) //nolint:errorlint // see above
	return panicked
}

func appendStack(fields []zap.Field, panicked *PanicError) []zap.Field {
	if panicked != nil {
		fields = append(fields, zap.ByteString("stack", panicked.Stack))
	}
	return fields
}

// JoinTraces returns a Trace that tells each of the given ones, in turn, what it has a function for: one for metrics and
// one for spans, say. Those that are nil are left out; without any other it is nil. They are read now, and not kept.
func JoinTraces(traces ...*Trace) *Trace {
	var joined *Trace
	for _, t := range traces {
		if t != nil {
			j := joinTraces(joined, t)
			joined = &j
		}
	}
	return joined
}

// joinTraces returns a Trace that tells first one and then the other, with no function where neither has one.
func joinTraces(a, b *Trace) Trace {
	switch {
	case a == nil && b == nil:
		return Trace{}
	case a == nil:
		return *b
	case b == nil:
		return *a
	}
	return Trace{
		StateEntered: both(a.StateEntered, b.StateEntered),
		ProbeStarted: both(a.ProbeStarted, b.ProbeStarted),
		ProbeDone:    both(a.ProbeDone, b.ProbeDone),
		MergeDone:    both(a.MergeDone, b.MergeDone),
		LateReply:    both(a.LateReply, b.LateReply),
		starting:     cmpOr(a.starting, b.starting),
		ended:        cmpOr(a.ended, b.ended),
	}
}

func both[I any](a, b func(I)) func(I) {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	return func(info I) {
		a(info)
		b(info)
	}
}

// cmpOr is cmp.Or for functions.
func cmpOr(a, b func()) func() {
	if a == nil {
		return b
	}
	return a
}

// told calls f, which may be nil.
func told[I any](f func(I), info I) {
	if f != nil {
		f(info)
	}
}
