package main

import (
	"bytes"
	_ "embed"
	"html/template"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/scatterknn/scatter"
	"go.uber.org/zap"
)

//go:embed status.html
var statusHTML string

var statusPage = template.Must(template.New("status").Funcs(template.FuncMap{
	"short":   func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) },
	"percent": func(share float64) float64 { return 100 * share },
	"has":     slices.Contains[[]string],
}).Parse(statusHTML))

// serveStatus serves the status page at "/" and Prometheus at "/metrics".
func (n *node) serveStatus(m *metrics) error {
	l, err := net.Listen("tcp", n.cfg.http)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", n.status)
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	n.webAt = l.Addr().String()
	n.web = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	n.running.Go(func() {
		if err := n.web.Serve(l); err != http.ErrServerClosed {
			n.log.Error("the status page has stopped", zap.Error(err))
		}
	})
	return nil
}

func (n *node) status(w http.ResponseWriter, _ *http.Request) {
	ring := n.currentRing()
	var page bytes.Buffer
	err := statusPage.Execute(&page, struct {
		Name     string
		Nodes    []string
		Holders  [partitions][]string
		Applied  positions
		Revision uint64
		Stats    scatter.Stats
		Ledgers  []ledger
		Now      time.Time
	}{
		n.cfg.name, ring.nodes, ring.holders, n.index.applied(), ring.revision,
		n.searcher.Stats(), n.history.latest(20), time.Now(),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_, _ = page.WriteTo(w) // a client that has gone doesn't miss it
}
