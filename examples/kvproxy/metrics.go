package main

import (
	"context"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/scatterknn/scatter"
)

// metrics counts what a scatter.Trace tells, and collects what the Searcher and the index say of
// themselves. Each node has a registry of its own.
type metrics struct {
	node     *node
	registry *prometheus.Registry
	probes   *prometheus.CounterVec
	took     *prometheus.HistogramVec
	queries  prometheus.Histogram
	merges   prometheus.Histogram
	coverage prometheus.Gauge
}

func newMetrics(n *node) *metrics {
	fast := prometheus.ExponentialBucketsRange(1e-4, 10, 16)
	m := &metrics{
		node:     n,
		registry: prometheus.NewRegistry(),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scatter_probes_total", Help: "Probes, by why the peer was asked and what became of it.",
		}, []string{"peer", "role", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "scatter_probe_seconds", Help: "How long peers took that have answered.", Buckets: fast,
		}, []string{"peer"}),
		queries: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scatter_query_seconds", Help: "How long queries took, without the fence.", Buckets: fast,
		}),
		merges: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scatter_merge_seconds", Help: "How long merges took.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10),
		}),
		coverage: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "scatter_coverage", Help: "The share of the keys that the last answer covers.",
		}),
	}
	m.registry.MustRegister(m, m.probes, m.took, m.queries, m.merges, m.coverage, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// trace returns a Trace that counts.
func (m *metrics) trace() *scatter.Trace {
	return &scatter.Trace{
		ProbeDone: func(_ context.Context, i scatter.ProbeDoneInfo) {
			m.probes.WithLabelValues(string(i.Peer), i.Role.String(), i.Status.String()).Inc()
			if i.Status == scatter.Answered || i.Status == scatter.Incomplete {
				m.took.WithLabelValues(string(i.Peer)).Observe(i.Elapsed.Seconds())
			}
		},
		QueryDone: func(_ context.Context, i scatter.QueryDoneInfo) {
			m.queries.Observe(i.Elapsed.Seconds())
			m.merges.Observe(i.MergeElapsed.Seconds())
			m.coverage.Set(i.Coverage)
		},
	}
}

// Describe implements prometheus.Collector. It announces nothing, which Prometheus allows.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		desc := prometheus.NewDesc(name, help, labels[:len(labels)/2], nil)
		ch <- prometheus.MustNewConstMetric(desc, kind, value, labels[len(labels)/2:]...)
	}
	counter, gauge := prometheus.CounterValue, prometheus.GaugeValue
	stats := m.node.searcher.Stats()
	send(counter, "scatter_queries_total", "Queries that have ended.", float64(stats.Queries))
	send(counter, "scatter_queries_partial_total", "Queries with a partial answer.", float64(stats.Partial))
	send(counter, "scatter_query_errors_total", "Queries that returned an error.", float64(stats.Errors))
	send(counter, "scatter_fallbacks_total", "Standbys asked for a peer that had failed.", float64(stats.Fallbacks))
	send(counter, "scatter_hedges_total", "Standbys asked for a peer that was slow.", float64(stats.Hedges))
	send(counter, "scatter_hedges_won_total", "Hedges that have answered in time.", float64(stats.HedgesWon))
	send(gauge, "scatter_fallback_purse", "How many fallbacks could be asked now.", stats.FallbackPurse)
	send(gauge, "scatter_hedge_purse", "How many hedges could be asked now.", stats.HedgePurse)
	for _, p := range stats.Peers {
		probation := 0.0
		if !p.ProbationSince.IsZero() {
			probation = 1
		}
		send(gauge, "scatter_peer_probation", "1 if the peer is on probation.", probation, "peer", string(p.Peer))
		send(gauge, "scatter_peer_in_flight", "Probes that are out now.", float64(p.InFlight), "peer", string(p.Peer))
	}
	for s, seq := range m.node.index.applied() {
		send(gauge, "kvproxy_applied_sequence", "How far the index has applied a stream; 16 is meta.",
			float64(seq), "stream", strconv.Itoa(s))
	}
}
