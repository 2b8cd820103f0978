// Httpjson searches peers that speak HTTP and JSON. They are three nodes in this process, and each
// shard is on two of them.
//
//	go run -C examples ./httpjson -busy node2
//
// The file http.go has the probe, and the handler of a peer. They send the time that is left in a
// header, use connections again, and turn HTTP statuses into scatter's errors. The file trace.go
// has two Traces, one for spans of OpenTelemetry and one for metrics of Prometheus. The program
// searches twice. It prints the answers, the spans, and how often each metric was observed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/demo"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("httpjson", flag.ExitOnError)
	sweet := flags.Float64("sweet", 7, "find fruit as sweet as `x`, from 0 to 10")
	sour := flags.Float64("sour", 4, "and as sour as `x`")
	k := flags.Int("k", 3, "return `n` hits")
	busy := flags.String("busy", "", "this `node`, of node1 to node3, refuses requests and wants a pause of a second")
	flags.Parse(args)
	if *busy != "" && !slices.Contains(nodes, scatter.PeerID(*busy)) {
		return fmt.Errorf("-busy is %q, must be one of %q", *busy, nodes)
	}

	// A real program has an exporter to its collector, and serves the registry by promhttp.
	exporter, registry := tracetest.NewInMemoryExporter(), prometheus.NewRegistry()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	tracer := provider.Tracer("httpjson")
	urls, stop, err := start(tracer, scatter.PeerID(*busy))
	if err != nil {
		return err
	}
	// By default a peer's third idle connection is closed, and concurrent queries use many.
	transport := &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute}
	c := &client{http: &http.Client{Transport: transport}, urls: urls}
	cover := scatter.NewGroupCover(
		[]scatter.PeerID{"node1", "node3"}, []scatter.PeerID{"node2", "node1"}, []scatter.PeerID{"node3", "node2"})
	s, err := scatter.NewSearcher(c.probe, cover, &scatter.SearcherOptions{Options: scatter.Options{
		Live: c.live, Trace: scatter.JoinTraces(spans(tracer), metrics(registry)),
	}})
	if err != nil {
		return errors.Join(err, stop())
	}
	taste := scatter.KNN{Field: "taste", Vector: []float32{float32(*sweet), float32(*sour)}}
	for range 2 {
		resp, searchErr := s.Search(ctx, &scatter.Request{Table: "fruit", Query: taste, K: *k}, nil)
		if resp != nil {
			demo.Print(out, resp, "%8.1f")
		}
		err = errors.Join(err, searchErr)
	}
	err = errors.Join(err, s.Close(ctx))
	transport.CloseIdleConnections()
	err = errors.Join(err, stop())
	printSpans(out, exporter.GetSpans(), trace.SpanID{}, "")
	return errors.Join(err, printCounts(out, registry))
}

// printSpans prints the tree of the spans below a parent.
func printSpans(out io.Writer, all tracetest.SpanStubs, parent trace.SpanID, indent string) {
	slices.SortFunc(all, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	for _, span := range all {
		if span.Parent.SpanID() == parent {
			fmt.Fprintf(out, "%s%s %v", indent, span.Name, span.EndTime.Sub(span.StartTime).Round(time.Microsecond))
			for _, a := range span.Attributes {
				fmt.Fprintf(out, " %s=%s", a.Key, a.Value.String())
			}
			fmt.Fprintln(out)
			printSpans(out, all, span.SpanContext.SpanID(), indent+"  ")
		}
	}
}

// printCounts prints how many observations each metric has.
func printCounts(out io.Writer, registry *prometheus.Registry) error {
	families, err := registry.Gather()
	for _, family := range families {
		for _, m := range family.GetMetric() {
			fmt.Fprintf(out, "%s", family.GetName())
			for _, label := range m.GetLabel() {
				fmt.Fprintf(out, " %s=%s", label.GetName(), label.GetValue())
			}
			fmt.Fprintln(out, ":", m.GetHistogram().GetSampleCount()+uint64(m.GetCounter().GetValue()))
		}
	}
	return err
}

func main() { demo.Main(run) }
