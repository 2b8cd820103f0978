package scatter_test

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"log"
	"log/slog"
	"os"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"

	"github.com/scatterknn/scatter"
)

// flakyProbe stands for a client of two peers, one of which is down.
func flakyProbe(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
	if peer == "green" {
		return nil, errors.New("connection refused")
	}
	return []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil
}

// Metrics: how many probes had each outcome, and how long they took in all. One Trace serves all
// queries of a program, so what it writes to must be safe for concurrent use.
func ExampleTrace() {
	var count, seconds expvar.Map
	trace := &scatter.Trace{
		ProbeDone: func(_ context.Context, i scatter.ProbeDoneInfo) {
			count.Add(i.Status.String(), 1)
			seconds.AddFloat(i.Status.String(), i.Elapsed.Seconds())
		},
		QueryDone: func(_ context.Context, i scatter.QueryDoneInfo) {
			if i.Partial {
				count.Add("Partial", 1)
			}
		},
	}
	for range 3 {
		req := &scatter.Request{Query: scatter.KNN{}, K: 10}
		peers := []scatter.PeerID{"red", "green", "blue"}
		_, err := scatter.Broadcast(context.Background(), req, peers, flakyProbe, &scatter.Options{Trace: trace})
		if err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(&count)
	fmt.Println("answers took time:", seconds.Get("Answered").(*expvar.Float).Value() > 0)
	// Output:
	// {"Answered": 6, "Failed": 3, "Partial": 3}
	// answers took time: true
}

// span stands for a span of OpenTelemetry: it is carried by a context, and knows its parent.
type span struct {
	name   string
	parent *span
}

type spanKey struct{}

func startSpan(ctx context.Context, name string) context.Context {
	parent, _ := ctx.Value(spanKey{}).(*span)
	return context.WithValue(ctx, spanKey{}, &span{name, parent})
}

// endSpan exports the span, as a path from its root.
func endSpan(ctx context.Context, attrs ...any) {
	s := ctx.Value(spanKey{}).(*span)
	path := s.name
	for s = s.parent; s != nil; s = s.parent {
		path = s.name + " > " + path
	}
	fmt.Println(append([]any{path}, attrs...)...)
}

// Spans: the context that a hook returns is that of what comes after. So the probe's span is a
// child of the query's, and what the remote peer does is a child of the probe's.
func ExampleTrace_spans() {
	trace := &scatter.Trace{
		QueryStarted: func(ctx context.Context, i scatter.QueryInfo) context.Context {
			return startSpan(ctx, "search "+i.Request.Table)
		},
		ProbeStarted: func(ctx context.Context, i scatter.ProbeInfo) context.Context {
			return startSpan(ctx, "ask "+string(i.Peer))
		},
		ProbeDone: func(ctx context.Context, i scatter.ProbeDoneInfo) { endSpan(ctx, i.Status) },
		QueryDone: func(ctx context.Context, i scatter.QueryDoneInfo) { endSpan(ctx, "partial:", i.Partial) },
	}
	probe := func(ctx context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		ctx = startSpan(ctx, "remote "+string(peer)) // on the other side of the network
		defer endSpan(ctx)
		return nil, nil
	}
	ctx := startSpan(context.Background(), "GET /fruit")
	req := &scatter.Request{Table: "fruit", Query: scatter.KNN{}, K: 10}
	opts := &scatter.Options{Trace: trace, Limit: 1}
	if _, err := scatter.Broadcast(ctx, req, []scatter.PeerID{"red", "green"}, probe, opts); err != nil {
		log.Fatal(err)
	}
	// Output:
	// GET /fruit > search fruit > ask red > remote red
	// GET /fruit > search fruit > ask red Answered
	// GET /fruit > search fruit > ask green > remote green
	// GET /fruit > search fruit > ask green Answered
	// GET /fruit > search fruit partial: false
}

// At level Warn a log has what went wrong. To be short, this one keeps a few attributes only.
func ExampleSlogTrace() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.MessageKey, "peer", "status", "error", "unanswered":
				return a
			}
			return slog.Attr{}
		},
	}))
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	opts := &scatter.Options{Trace: scatter.SlogTrace(logger)}
	_, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"red", "green"}, flakyProbe, opts)
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// msg="scatter: probe failed" peer=green status=Failed error="connection refused"
	// msg="scatter: answer is partial" unanswered="green Failed"
}

// shortEncoder keeps a few fields of each event, as the handler of the SlogTrace example does.
type shortEncoder struct{ zapcore.Encoder }

func (e shortEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	short := slices.DeleteFunc(slices.Clone(fields), func(f zapcore.Field) bool {
		return !slices.Contains([]string{"peer", "status", "error", "unanswered"}, f.Key)
	})
	return e.Encoder.EncodeEntry(entry, short)
}

// The same events, written by zap.
func ExampleZapTrace() {
	encoder := shortEncoder{zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"})}
	logger := zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stdout), zap.WarnLevel))
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	opts := &scatter.Options{Trace: scatter.ZapTrace(logger)}
	_, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"red", "green"}, flakyProbe, opts)
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// {"msg":"scatter: probe failed","peer":"green","status":"Failed","error":"connection refused"}
	// {"msg":"scatter: answer is partial","unanswered":"green Failed"}
}

// One Trace counts and one logs.
func ExampleJoinTraces() {
	var partial expvar.Int
	metrics := &scatter.Trace{
		QueryDone: func(_ context.Context, i scatter.QueryDoneInfo) {
			if i.Partial {
				partial.Add(1)
			}
		},
	}
	logs := &scatter.Trace{
		ProbeDone: func(_ context.Context, i scatter.ProbeDoneInfo) { fmt.Println(i.Peer, i.Status, i.Err) },
	}
	req := &scatter.Request{Query: scatter.KNN{}, K: 10}
	opts := &scatter.Options{Trace: scatter.JoinTraces(metrics, logs)}
	_, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"green"}, flakyProbe, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("partial answers:", &partial)
	// Output:
	// green Failed connection refused
	// partial answers: 1
}
