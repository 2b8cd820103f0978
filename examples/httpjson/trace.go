package main

import (
	"context"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/scatterknn/scatter"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// spans returns a Trace that makes a span of each query, with a span of each probe below it. The
// probe gets the context with its span, and passes it on to the peer.
func spans(tracer trace.Tracer) *scatter.Trace {
	return &scatter.Trace{
		QueryStarted: func(ctx context.Context, i scatter.QueryInfo) context.Context {
			ctx, _ = tracer.Start(ctx, "search", trace.WithAttributes(attribute.String("table", i.Request.Table)))
			return ctx
		},
		ProbeStarted: func(ctx context.Context, i scatter.ProbeInfo) context.Context {
			ctx, _ = tracer.Start(ctx, "probe", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
				attribute.String("peer", string(i.Peer)), attribute.Stringer("role", i.Role)))
			return ctx
		},
		ProbeDone: func(ctx context.Context, i scatter.ProbeDoneInfo) {
			span := trace.SpanFromContext(ctx)
			defer span.End()
			span.SetAttributes(attribute.Stringer("status", i.Status), attribute.Int("hits", i.Hits))
			if i.Status == scatter.Failed || i.Status == scatter.TimedOut { // A probe that wasn't needed is no error.
				span.SetStatus(codes.Error, i.Err.Error())
			}
		},
		QueryDone: func(ctx context.Context, i scatter.QueryDoneInfo) {
			span := trace.SpanFromContext(ctx)
			defer span.End()
			span.SetAttributes(attribute.Float64("coverage", i.Coverage), attribute.Int("hits", i.Hits))
			if i.Err != nil {
				span.SetStatus(codes.Error, i.Err.Error())
			}
		},
	}
}

// spanned gives each request of a peer a span, as a child of the span that the client has sent.
func spanned(tracer trace.Tracer, peer scatter.PeerID, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(ctx, "answer", trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("peer", string(peer))))
		defer span.End()
		reply := &replyWriter{w, http.StatusOK}
		next.ServeHTTP(reply, r.WithContext(ctx))
		span.SetAttributes(attribute.Int("http.response.status_code", reply.status))
		if reply.status >= http.StatusInternalServerError && r.Context().Err() == nil { // The client is still there.
			span.SetStatus(codes.Error, http.StatusText(reply.status))
		}
	})
}

// replyWriter remembers the status.
type replyWriter struct {
	http.ResponseWriter
	status int
}

func (w *replyWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// metrics returns a Trace that counts and measures queries and probes.
func metrics(registry prometheus.Registerer) *scatter.Trace {
	with := promauto.With(registry)
	queries := with.NewHistogramVec(prometheus.HistogramOpts{
		Name: "scatter_query_seconds", Help: "Time that queries took, by whether the answer was partial.",
	}, []string{"partial"})
	probes := with.NewHistogramVec(prometheus.HistogramOpts{
		Name: "scatter_probe_seconds", Help: "Time that probes took, by peer, role and status.",
	}, []string{"peer", "role", "status"})
	late := with.NewCounterVec(prometheus.CounterOpts{
		Name: "scatter_late_replies_total", Help: "Replies that came too late and were dropped.",
	}, []string{"peer"})
	return &scatter.Trace{
		ProbeDone: func(_ context.Context, i scatter.ProbeDoneInfo) {
			probes.WithLabelValues(string(i.Peer), i.Role.String(), i.Status.String()).Observe(i.Elapsed.Seconds())
		},
		QueryDone: func(_ context.Context, i scatter.QueryDoneInfo) {
			queries.WithLabelValues(strconv.FormatBool(i.Partial)).Observe(i.Elapsed.Seconds())
		},
		LateReply: func(_ context.Context, i scatter.LateReplyInfo) { late.WithLabelValues(string(i.Peer)).Inc() },
	}
}
