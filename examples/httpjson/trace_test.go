package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// newTracer returns a tracer and what keeps its spans.
func newTracer(t *testing.T) (trace.Tracer, *tracetest.InMemoryExporter) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	t.Cleanup(func() { require.NoError(t, provider.Shutdown(context.Background())) })
	return provider.Tracer("test"), exporter
}

// paths waits for n spans, which must be of one trace, and returns each as a path from its root. A
// span is its name, with the role and the status of a probe, or the status of a reply. "!" marks an
// error.
func paths(t *testing.T, exporter *tracetest.InMemoryExporter, n int) []string {
	t.Helper()
	// A peer's span ends after the client has read the reply.
	require.Eventually(t, func() bool { return len(exporter.GetSpans()) >= n }, long, time.Millisecond)
	spans := exporter.GetSpans()
	byID := make(map[trace.SpanID]tracetest.SpanStub)
	for _, span := range spans {
		byID[span.SpanContext.SpanID()] = span
	}
	var all []string
	for _, span := range spans {
		require.Equal(t, spans[0].SpanContext.TraceID(), span.SpanContext.TraceID())
		path := describe(span)
		for span.Parent.IsValid() {
			parent, ok := byID[span.Parent.SpanID()]
			require.True(t, ok, "%s has a parent that nobody has exported", path)
			span, path = parent, describe(parent)+" > "+path
		}
		all = append(all, path)
	}
	slices.Sort(all)
	return all
}

func describe(span tracetest.SpanStub) string {
	words := []string{span.Name}
	for _, a := range span.Attributes {
		if a.Key == "role" || a.Key == "status" || a.Key == "http.response.status_code" {
			words = append(words, a.Value.String())
		}
	}
	if span.Status.Code == codes.Error {
		words = append(words, "!")
	}
	return strings.Join(words, " ")
}

// firstOther serves the first request by one search and all others by another, whichever peer is
// asked.
func firstOther(first, other search) search {
	var calls atomic.Int64
	return func(ctx context.Context, req *scatter.Request) ([]hit, error) {
		if calls.Add(1) == 1 {
			return first(ctx, req)
		}
		return other(ctx, req)
	}
}

// newTraced returns a Searcher of one shard with the copies a and b.
func newTraced(
	t *testing.T, find search, delay time.Duration,
) (*scatter.Searcher[hit, string], *tracetest.InMemoryExporter, *prometheus.Registry) {
	tracer, exporter := newTracer(t)
	registry := prometheus.NewRegistry()
	c := newClient(t, map[scatter.PeerID]http.Handler{
		"a": spanned(tracer, "a", handler(find, 10)),
		"b": spanned(tracer, "b", handler(find, 10)),
	})
	cover := scatter.NewGroupCover([]scatter.PeerID{"a", "b"})
	return newSearcher(t, c, cover, delay, spans(tracer), metrics(registry)), exporter, registry
}

func TestSpansOfAFailedPeerAndItsReplica(t *testing.T) {
	s, exporter, _ := newTraced(t, firstOther(fails(errors.New("disk full")), found("fig")), never)
	resp, err := s.Search(t.Context(), query, nil)
	require.NoError(t, err)
	require.Equal(t, []hit{{ID: "fig", Score: 1}}, resp.Hits)
	require.Equal(t, []string{
		"search",
		"search > probe Fallback Answered",
		"search > probe Fallback Answered > answer 200",
		"search > probe Primary Failed !",
		"search > probe Primary Failed ! > answer 500 !",
	}, paths(t, exporter, 5))
	for _, span := range exporter.GetSpans() {
		if span.Name == "probe" && span.Status.Code == codes.Error {
			require.Contains(t, span.Status.Description, "500 Internal Server Error: disk full")
		}
	}
}

func TestSpansOfAHedge(t *testing.T) {
	hang := func(ctx context.Context, _ *scatter.Request) ([]hit, error) {
		<-ctx.Done() // when the client closes the connection
		return nil, ctx.Err()
	}
	s, exporter, _ := newTraced(t, firstOther(hang, found("fig")), 10*time.Millisecond)
	resp, err := s.Search(t.Context(), query, nil)
	require.NoError(t, err)
	require.Equal(t, []hit{{ID: "fig", Score: 1}}, resp.Hits)
	want := []string{
		"search",
		"search > probe Hedge Answered",
		"search > probe Hedge Answered > answer 200",
		"search > probe Primary NotNeeded",
		"search > probe Primary NotNeeded > answer 500", // The client has gone, so that it is no error.
	}
	got := paths(t, exporter, 5)
	if resp.Peers[0].Status == scatter.Answered { // The primary's request came second.
		swap := strings.NewReplacer("Hedge", "Primary", "Primary", "Hedge")
		for i := range want {
			want[i] = swap.Replace(want[i])
		}
		slices.Sort(want)
	}
	require.Equal(t, want, got)
}

// The caller's span is the parent of all, also if the query is refused.
func TestSpansOfARefusedQuery(t *testing.T) {
	s, exporter, _ := newTraced(t, fails(scatter.ErrPermanent), never)
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	ctx, span := provider.Tracer("test").Start(t.Context(), "GET /fruit")
	_, err := s.Search(ctx, query, nil)
	span.End()
	require.ErrorIs(t, err, scatter.ErrPermanent)
	require.Equal(t, []string{
		"GET /fruit",
		"GET /fruit > search !",
		"GET /fruit > search ! > probe Primary Failed !",
		"GET /fruit > search ! > probe Primary Failed ! > answer 422",
	}, paths(t, exporter, 4))
}

// A request without a traceparent, or with a wrong one, begins a trace.
func TestSpanWithoutParent(t *testing.T) {
	for _, parent := range []string{"", "00-nonsense-01"} {
		tracer, exporter := newTracer(t)
		c := newClient(t, map[scatter.PeerID]http.Handler{"a": spanned(tracer, "a", handler(found("fig"), 1))})
		post, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.urls["a"], strings.NewReader("{}"))
		require.NoError(t, err)
		post.Header.Set("traceparent", parent)
		reply, err := c.http.Do(post)
		require.NoError(t, err)
		require.NoError(t, reply.Body.Close())
		require.Equal(t, []string{"answer 400"}, paths(t, exporter, 1))
	}
}

// counts returns how often each series of a registry was observed.
func counts(t *testing.T, registry *prometheus.Registry) map[string]uint64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	all := make(map[string]uint64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			words := []string{family.GetName()}
			for _, label := range m.GetLabel() {
				if label.GetName() != "peer" || m.GetCounter() != nil { // Which replica is asked first is random.
					words = append(words, label.GetValue())
				}
			}
			all[strings.Join(words, " ")] += m.GetHistogram().GetSampleCount() + uint64(m.GetCounter().GetValue())
		}
	}
	return all
}

func TestMetrics(t *testing.T) {
	s, exporter, registry := newTraced(t, firstOther(fails(errors.New("disk full")), found("fig")), never)
	for range 3 {
		_, err := s.Search(t.Context(), query, nil)
		require.NoError(t, err)
	}
	require.Equal(t, map[string]uint64{
		"scatter_query_seconds false":             3,
		"scatter_probe_seconds Primary Failed":    1,
		"scatter_probe_seconds Fallback Answered": 1,
		"scatter_probe_seconds Primary Answered":  2,
	}, counts(t, registry))
	require.Eventually(t, func() bool { return len(exporter.GetSpans()) == 11 }, long, time.Millisecond) // joined
}

func TestMetricsOfAPartialAnswerAndALateReply(t *testing.T) {
	registry := prometheus.NewRegistry()
	measure, release := metrics(registry), make(chan struct{})
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]hit, error) {
		if peer == "late" {
			<-release
		}
		return nil, nil
	}
	opts := &scatter.Options{Trace: measure, PeerDeadline: 20 * time.Millisecond}
	resp, err := scatter.Broadcast(t.Context(), query, []scatter.PeerID{"late"}, probe, opts)
	require.NoError(t, err)
	require.True(t, resp.Partial)
	close(release)
	want := map[string]uint64{
		"scatter_query_seconds true":             1,
		"scatter_probe_seconds Primary TimedOut": 1,
		"scatter_late_replies_total late":        1,
	}
	require.Eventually(t, func() bool { return len(counts(t, registry)) == len(want) }, long, time.Millisecond)
	require.Equal(t, want, counts(t, registry))
}

func TestRun(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run(t.Context(), []string{"-sweet", "1", "-sour", "10", "-k", "2"}, &out))
	const answer = " 1  lemon                 0.0\n 2  lime                  1.0\ncoverage 100 %"
	require.Equal(t, 2, strings.Count(out.String(), answer))
	require.Equal(t, 2, strings.Count(out.String(), "\nsearch "))
	require.Contains(t, out.String(), "scatter_query_seconds partial=false: 2\n")

	out.Reset()
	require.NoError(t, run(t.Context(), []string{"-busy", "node2"}, &out))
	require.Equal(t, 2, strings.Count(out.String(), "coverage 100 %"))
	require.ErrorContains(t, run(t.Context(), []string{"-busy", "node4"}, &out), `-busy is "node4"`)
}
