package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/scatterknn/scatter"
	"go.uber.org/zap"
)

// config is what the flags of a node say.
type config struct {
	name     string
	nats     string        // URLs of a NATS cluster, separated by commas
	replicas int           // of each stream
	listen   string        // for clients
	http     string        // of the status page and the metrics; if empty, there are none
	data     string        // the directory of the index
	timeout  time.Duration // of a search that doesn't say so itself
	clients  int           // the largest number of connections
	session  bool          // a search sees what was acknowledged through this node, and asks no leader
	partial  bool          // RESP2 clients get partial answers and not an error
	pipeline bool          // MULTI queues commands, and EXEC runs them one by one
}

// node is a front for clients, an index of some partitions, and a Searcher over all nodes.
type node struct {
	cfg    config
	log    *zap.Logger
	engine *engine
	index  *index
	server *server
	web    *http.Server
	webAt  string // where web listens
	searching
	history history

	life    context.Context // ends when stop is called
	end     context.CancelFunc
	running sync.WaitGroup // what uses the index or the engine in the background
}

// startNode returns when the node serves.
func startNode(ctx context.Context, cfg config, log *zap.Logger) (*node, error) {
	n := &node{cfg: cfg, log: log}
	n.life, n.end = context.WithCancel(context.Background())
	if err := n.start(ctx); err != nil {
		stopping, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		n.stop(stopping)
		return nil, fmt.Errorf("node %s: %w", cfg.name, err)
	}
	return n, nil
}

func (n *node) start(ctx context.Context) (err error) {
	if n.engine, err = connect(ctx, n.cfg.nats, n.cfg.name, n.cfg.replicas, n.log); err != nil {
		return err
	}
	if n.index, err = openIndex(filepath.Join(n.cfg.data, "index.db"), n.cfg.name, n.setRing, n.log); err != nil {
		return err
	}
	metrics := newMetrics(n)
	if err := n.startSearching(scatter.JoinTraces(metrics.trace(), scatter.ZapTrace(n.log))); err != nil {
		return err
	}
	n.running.Go(func() {
		if err := n.index.run(n.life, n.engine); err != nil {
			n.log.Error("the index has stopped", zap.Error(err))
		}
	})
	if err := n.join(ctx); err != nil {
		return err
	}
	if err := n.catchUp(ctx); err != nil {
		return err
	}
	if n.cfg.http != "" {
		if err := n.serveStatus(metrics); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", n.cfg.listen)
	if err != nil {
		return err
	}
	n.server = serve(n, l)
	return nil
}

// join adds this node to the ring if it isn't there.
func (n *node) join(ctx context.Context) error {
	present := errors.New("in the ring already")
	_, err := n.engine.changeMeta(ctx, "ring", func(old []byte) ([]byte, error) {
		var nodes []string
		if len(old) > 0 {
			var err error
			if nodes, err = decodeRing(old); err != nil {
				return nil, err
			}
		}
		if slices.Contains(nodes, n.cfg.name) {
			return nil, present
		}
		return encodeRing(append(nodes, n.cfg.name)), nil
	})
	if errors.Is(err, present) {
		return nil
	}
	return err
}

// catchUp waits until the index has what the log has now.
func (n *node) catchUp(ctx context.Context) error {
	last, errs := n.engine.last(ctx)
	if err := errors.Join(errs[:]...); err != nil {
		n.log.Warn("serving begins before all of the index is known to be current", zap.Error(err))
	}
	var ring positions
	ring[meta] = last[meta]
	if err := n.index.wait(ctx, ring); err != nil { // it says what the node holds
		return err
	}
	return n.index.wait(ctx, last)
}

// stop ends what startNode has started. A second call does nothing.
func (n *node) stop(ctx context.Context) {
	if n.life.Err() != nil {
		return
	}
	if n.server != nil {
		n.server.close()
	}
	if n.web != nil {
		_ = n.web.Close() // an error is of a listener that is closed already
	}
	if n.searcher != nil {
		if err := n.searcher.Close(ctx); err != nil {
			n.log.Warn("searches are still running", zap.Error(err))
		}
	}
	n.mu.Lock() // serveSearch adds to running
	n.end()
	n.mu.Unlock()
	if n.engine != nil {
		n.engine.close()
	}
	n.running.Wait()
	if n.index != nil {
		if err := n.index.close(); err != nil {
			n.log.Warn("closing the index", zap.Error(err))
		}
	}
}

// ledgers returns up to the last count ledgers as JSON, the newest first.
func (n *node) ledgers(count int) [][]byte {
	var out [][]byte
	for _, l := range n.history.latest(count) {
		b, err := json.Marshal(l)
		if err != nil {
			b, _ = json.Marshal(ledger{At: l.At, Index: l.Index, Error: err.Error()})
		}
		out = append(out, b)
	}
	return out
}

// ledger is what is kept of one search.
type ledger struct {
	At       time.Time                              `json:"at"`
	Index    string                                 `json:"index"`
	K        int                                    `json:"k"`
	Found    int                                    `json:"found"`
	Warnings []string                               `json:"warnings,omitempty"`
	Error    string                                 `json:"error,omitempty"`
	Response *scatter.Response[scatter.Hit[string]] `json:"response,omitempty"` // without its hits
}

// history keeps the last ledgers. It is safe for concurrent use.
type history struct {
	mu   sync.Mutex
	kept []ledger // guarded by mu; the newest is last
}

func (h *history) add(began time.Time, req *scatter.Request, out *found, err error) {
	l := ledger{At: began, Index: req.Table, K: req.K}
	if err != nil {
		l.Error = err.Error()
	}
	if out != nil {
		response := *out.response
		l.Found, l.Warnings, l.Response = len(response.Hits), out.warnings, &response
		response.Hits = nil // they would take memory, and keys that aren't text have no JSON
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept[max(0, len(h.kept)-99):], l)
}

// latest returns up to count ledgers, the newest first.
func (h *history) latest(count int) []ledger {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := slices.Clone(h.kept[max(0, len(h.kept)-max(0, count)):])
	slices.Reverse(last)
	return last
}
