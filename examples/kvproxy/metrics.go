package main

import (
	"context"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/scatterknn/scatter"
)

// metrics counts for Prometheus what a Trace is told. It has a registry of its own, so that nodes of one process don't
// mix.
type metrics struct {
	registry         *prometheus.Registry
	queries, partial prometheus.Counter
	coverage         prometheus.Gauge
	merges           prometheus.Histogram
	probes           *resolved[probeLabels, prometheus.Counter]
	latencies        *resolved[scatter.PeerID, prometheus.Observer]
	late             *resolved[scatter.PeerID, prometheus.Counter]
}

type probeLabels struct {
	peer   scatter.PeerID
	role   scatter.Role
	status scatter.Status
}

// latencyBuckets are in seconds.
var latencyBuckets = []float64{1e-4, 25e-5, 5e-4, 1e-3, 25e-4, 5e-3, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMetrics() *metrics {
	probes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "scatter_probes_total", Help: "Probes, by why the peer was asked and by what became of it.",
	}, []string{"peer", "role", "status"})
	latencies := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "scatter_probe_duration_seconds", Help: "How long peers took that have answered.", Buckets: latencyBuckets,
	}, []string{"peer"})
	late := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "scatter_late_replies_total", Help: "Replies that came when nobody waited for them any more.",
	}, []string{"peer"})
	m := &metrics{
		registry: prometheus.NewRegistry(),
		queries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "scatter_queries_total", Help: "Queries begun.",
		}),
		partial: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "scatter_queries_partial_total", Help: "Queries with a partial answer.",
		}),
		coverage: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "scatter_coverage", Help: "Share of the ring that the last answer covers.",
		}),
		merges: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scatter_merge_duration_seconds", Help: "How long merges took.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10),
		}),
		probes: newResolved(func(l probeLabels) prometheus.Counter {
			return probes.WithLabelValues(peerLabel(l.peer), l.role.String(), l.status.String())
		}),
		latencies: newResolved(func(peer scatter.PeerID) prometheus.Observer {
			return latencies.WithLabelValues(peerLabel(peer))
		}),
		late: newResolved(func(peer scatter.PeerID) prometheus.Counter {
			return late.WithLabelValues(peerLabel(peer))
		}),
	}
	m.registry.MustRegister(m.queries, m.partial, m.coverage, m.merges, probes, latencies, late,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// trace returns a Trace that counts. Queries wait for its functions, so they take no lock and allocate nothing, but
// when something happens to a peer for the first time.
func (m *metrics) trace() *scatter.Trace {
	return &scatter.Trace{
		QueryStarted: func(context.Context, scatter.QueryInfo) context.Context {
			m.queries.Inc()
			return nil
		},
		ProbeDone: func(_ context.Context, i scatter.ProbeDoneInfo) {
			m.probes.of(probeLabels{i.Peer, i.Role, i.Status}).Inc()
			if i.Status == scatter.Answered || i.Status == scatter.Incomplete {
				m.latencies.of(i.Peer).Observe(i.Elapsed.Seconds())
			}
		},
		QueryDone: func(_ context.Context, i scatter.QueryDoneInfo) {
			if i.Partial {
				m.partial.Inc()
			}
			m.coverage.Set(i.Coverage)
			m.merges.Observe(i.MergeElapsed.Seconds())
		},
		LateReply: func(_ context.Context, i scatter.LateReplyInfo) { m.late.of(i.Peer).Inc() },
	}
}

// peerLabel returns a peer's name as a label that Prometheus accepts.
func peerLabel(peer scatter.PeerID) string { return strings.ToValidUTF8(string(peer), "\uFFFD") }

// resolved remembers which metric each set of labels stands for: Prometheus would hash them each time.
type resolved[K comparable, V any] struct {
	resolve func(K) V
	mu      sync.Mutex // for writing to known
	known   atomic.Pointer[map[K]V]
}

func newResolved[K comparable, V any](resolve func(K) V) *resolved[K, V] {
	r := &resolved[K, V]{resolve: resolve}
	r.known.Store(&map[K]V{})
	return r
}

func (r *resolved[K, V]) of(key K) V {
	if v, ok := (*r.known.Load())[key]; ok {
		return v
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := maps.Clone(*r.known.Load())
	known[key] = r.resolve(key)
	r.known.Store(&known)
	return known[key]
}

// sourceCollector has Prometheus ask a statusSource whenever it collects.
type sourceCollector struct{ src statusSource }

// Describe names nothing in advance, which Prometheus allows.
func (sourceCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c sourceCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), kind, value)
	}
	gauge := func(name, help string, value float64) { send(prometheus.GaugeValue, name, help, value) }
	counter := func(name, help string, value int64) { send(prometheus.CounterValue, name, help, float64(value)) }
	ofPeer := func(name, help string) func(scatter.PeerID, float64) {
		desc := prometheus.NewDesc(name, help, []string{"peer"}, nil)
		return func(peer scatter.PeerID, value float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, peerLabel(peer))
		}
	}

	documents, indexed := c.src.storeCounts()
	gauge("scatter_documents", "Documents stored on this node.", float64(documents))
	gauge("scatter_documents_indexed", "Documents in the indexes of this node.", float64(indexed))

	stats := c.src.searcherStats()
	gauge("scatter_hedge_purse", "How many standbys could be asked now for peers that are slow.", stats.HedgePurse)
	gauge("scatter_fallback_purse", "How many standbys could be asked now for peers that have failed.", stats.FallbackPurse)
	counter("scatter_query_errors_total", "Queries that gave an error.", stats.Errors)
	counter("scatter_queries_shared_total", "Queries that joined another, under way.", stats.Coalesced)
	counter("scatter_fallbacks_total", "Standbys asked for a peer that had failed.", stats.Fallbacks)
	counter("scatter_hedges_total", "Standbys asked for a peer that was late.", stats.Hedges)
	counter("scatter_hedges_won_total", "Standbys asked for a late peer that answered in time.", stats.HedgesWon)

	up := ofPeer("scatter_peer_up", "Whether the peer is alive, by gossip.")
	behind := ofPeer("scatter_peer_behind_seconds", "For how long the peer has lacked acknowledged writes.")
	peers, live := c.src.peers(), 0
	for _, p := range peers {
		is := 0
		if p.alive {
			is = 1
		}
		live += is
		up(p.name, float64(is))
		behind(p.name, p.behind.Seconds())
	}
	gauge("scatter_peers", "Members, dead ones included.", float64(len(peers)))
	gauge("scatter_peers_live", "Members that are alive, by gossip.", float64(live))
}
