package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/scatterknn/scatter"
	"go.uber.org/zap"
)

// copies is how many nodes index each partition.
const copies = 3

// topology is which node holds which partitions. It is never changed.
type topology struct {
	revision uint64 // the sequence of the ring in the meta stream
	nodes    []string
	cover    *scatter.Cover
	holders  [partitions][]string
	held     [partitions]bool // by this node
}

// newTopology gives each partition to the three nodes that rank highest for it (rendezvous
// hashing), so that few partitions move when a node comes or goes.
func newTopology(self string, revision uint64, nodes []string) *topology {
	t := &topology{revision: revision, nodes: slices.Compact(slices.Sorted(slices.Values(nodes)))}
	ranges := make([]scatter.Range, partitions)
	for p := range partitions {
		rank := func(node string) uint64 { return scatter.HashToken(fmt.Sprint(node, "#", p)) }
		ranked := slices.SortedFunc(slices.Values(t.nodes), func(a, b string) int {
			return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(a, b))
		})
		t.holders[p] = ranked[:min(copies, len(ranked))]
		t.held[p] = slices.Contains(t.holders[p], self)
		ranges[p] = scatter.Range{First: uint64(p) << 60, Last: uint64(p)<<60 | (1<<60 - 1)}
		for _, node := range t.holders[p] {
			ranges[p].Holders = append(ranges[p].Holders, scatter.PeerID(node))
		}
	}
	var err error
	if t.cover, err = scatter.NewRangeCover(ranges...); err != nil {
		panic(err) // the ranges don't overlap
	}
	return t
}

// counting is a scatter.Query: how many documents, and how many values that could not be indexed,
// the partitions have. A hit's ID is "PARTITION documents" or "PARTITION failures", its Score the
// number. With the Table "" it counts all keys, whatever they hold.
type counting struct{}

// Order implements scatter.Query.
func (counting) Order() scatter.Order { return scatter.IDAscending }

// question is the scatter.Query of every search: what is asked, and what goes to each peer with it.
type question struct {
	scatter.Query `json:"-"`    // a KNN, Text, Regex or counting; its Order is the question's
	Count         bool          // Query is a counting, which FTQ1 doesn't have
	Filter        *filter       // nil: none
	Fence         positions     // a peer answers when it has applied all this
	Revision      uint64        // of the ring by which the peers were chosen
	Left          time.Duration // that the peer has to answer
}

// searching is the part of a node that asks the others.
type searching struct {
	searcher *scatter.Searcher[scatter.Hit[string], string]
	trace    *scatter.Trace
	serving  *nats.Subscription // to searches of other nodes
	fences   fences

	mu   sync.RWMutex
	ring *topology // guarded by mu; the Searcher has its cover

	inbox   string // replies come to subjects that begin so
	asked   atomic.Uint64
	waiting sync.Map // of subject to the probe's done
}

// startSearching subscribes to the replies of other nodes and to their searches.
func (n *node) startSearching(trace *scatter.Trace) (err error) {
	n.trace = trace
	n.fences = fences{ask: n.engine.last, timeout: n.cfg.timeout / 8, busy: make(chan struct{}, 1)}
	// The noise of a busy machine should not be hedged: it is a few milliseconds.
	opts := &scatter.SearcherOptions{HedgeFloor: 5 * time.Millisecond, LearnReserve: true}
	if n.searcher, err = scatter.NewSearcherAsync(n.probe, nil, opts); err != nil {
		return err
	}
	n.setRing(n.index.topology())
	n.inbox = nats.NewInbox() + "."
	if _, err = n.engine.nc.Subscribe(n.inbox+"*", n.reply); err != nil {
		return err
	}
	n.serving, err = n.engine.nc.Subscribe(searchSubject(n.cfg.name), n.serveSearch)
	return err
}

func searchSubject(node string) string { return "kvproxy.search." + node }

// setRing makes later searches ask by another ring.
func (n *node) setRing(ring *topology) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.searcher.SetCover(ring.cover)
	n.ring = ring
}

func (n *node) currentRing() *topology {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.ring
}

// found is the answer to a search.
type found struct {
	response *scatter.Response[scatter.Hit[string]]
	warnings []string // why it may lack something; none: it lacks nothing
	fence    positions
}

// search asks the nodes for what was acknowledged before.
func (n *node) search(ctx context.Context, req *scatter.Request, f *filter) (*found, error) {
	ctx, cancel := n.limit(ctx)
	defer cancel()
	return n.searchFrom(ctx, n.fence(ctx), req, f)
}

// searchFrom is search with a fence that the caller has taken. The error is for a search that gave
// nothing.
func (n *node) searchFrom(ctx context.Context, from fence, req *scatter.Request, f *filter) (*found, error) {
	began := time.Now()
	out, err := n.ask(ctx, from, req, f)
	n.history.add(began, req, out, err)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ask is searchFrom without an entry in the history. With an error it returns what is known all the
// same.
func (n *node) ask(ctx context.Context, from fence, req *scatter.Request, f *filter) (*found, error) {
	for try := 0; ; try++ {
		ring := n.currentRing()
		// The peers must know the ring and the indexes that this node knows.
		from.at[meta] = max(from.at[meta], n.index.applied()[meta])
		q := &question{Query: req.Query, Filter: f, Fence: from.at, Revision: ring.revision}
		resp, err := n.searcher.Search(ctx, &scatter.Request{Table: req.Table, Query: q, K: req.K}, n.options(ctx))
		if resp == nil {
			return nil, err
		}
		out := &found{resp, slices.Clone(from.warnings), from.at}
		if errors.Is(err, scatter.ErrPermanent) {
			return out, errors.New(strings.TrimPrefix(err.Error(), scatter.ErrPermanent.Error()+": "))
		}
		if err != nil {
			return out, err
		}
		// If the ring has changed meanwhile, the Searcher may have chosen peers by the new one, and
		// told them the revision of the old one.
		changed := n.currentRing() != ring
		if (changed || refusedRing(resp)) && try < 3 && n.settle(ctx) == nil {
			continue
		}
		if changed {
			return out, errors.New("the ring has changed during the search")
		}
		if resp.Partial {
			out.warnings = append(out.warnings, lack(resp))
		}
		if resp.Coverage == 0 {
			return out, errors.New(strings.Join(out.warnings, "; "))
		}
		return out, nil
	}
}

// limit gives ctx the default timeout if it has none.
func (n *node) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, n.cfg.timeout)
}

// options gives a peer half of the time that is left, so that a replica can stand in for it.
func (n *node) options(ctx context.Context) *scatter.Options {
	deadline, _ := ctx.Deadline()
	return &scatter.Options{PeerDeadline: max(time.Until(deadline)/2, time.Millisecond), Trace: n.trace}
}

// errRing is how a peer refuses a search by another ring than its own.
var errRing = errors.New("another ring")

func refusedRing(resp *scatter.Response[scatter.Hit[string]]) bool {
	return resp.Partial && slices.ContainsFunc(resp.Peers, func(p scatter.PeerReport) bool {
		return errors.Is(p.Err, errRing)
	})
}

// lack says in words what a partial answer lacks, and why.
func lack(resp *scatter.Response[scatter.Hit[string]]) string {
	var why []string
	for _, p := range resp.Peers {
		switch {
		case p.Status == scatter.TimedOut:
			why = append(why, fmt.Sprintf("%s gave no answer in time", p.Peer))
		case p.Err != nil && !errors.Is(p.Err, scatter.ErrEnough):
			why = append(why, fmt.Sprintf("%s: %v", p.Peer, p.Err))
		}
	}
	return fmt.Sprintf("nobody has answered for %.3g %% of the keys (%s)",
		100*(1-resp.Coverage), strings.Join(why, "; "))
}

// probe is the scatter.AsyncProbe. It must not block: replies come to reply.
func (n *node) probe(
	ctx context.Context, peer scatter.PeerID, req *scatter.Request, done func([]scatter.Hit[string], error),
) {
	if string(peer) == n.cfg.name {
		n.running.Go(func() { done(n.answer(ctx, req)) })
		return
	}
	if !n.engine.nc.IsConnected() {
		done(nil, errors.New("no connection to NATS")) // the client would keep the message for later
		return
	}
	deadline, _ := ctx.Deadline()
	m, err := encodeQuestion(req, time.Until(deadline))
	if err != nil {
		done(nil, fmt.Errorf("%w: %w", scatter.ErrPermanent, err))
		return
	}
	m.Subject, m.Reply = searchSubject(string(peer)), n.inbox+strconv.FormatUint(n.asked.Add(1), 36)
	n.waiting.Store(m.Reply, done)
	context.AfterFunc(ctx, func() { n.waiting.Delete(m.Reply) })
	err = n.engine.nc.PublishMsg(m)
	if errors.Is(err, nats.ErrMaxPayload) {
		err = fmt.Errorf("%w: the query is larger than the NATS servers take", scatter.ErrPermanent)
	}
	if err != nil {
		done(nil, err)
	}
}

// headerQuestion has a question as JSON. The message's data is FTQ1.
const headerQuestion = "Question"

func encodeQuestion(req *scatter.Request, left time.Duration) (*nats.Msg, error) {
	q, inner := *req.Query.(*question), *req
	q.Left, inner.Query = left, q.Query
	if _, q.Count = q.Query.(counting); q.Count {
		inner.Query = scatter.Text{} // in its place
	}
	header, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	data, err := inner.MarshalBinary()
	return &nats.Msg{Header: nats.Header{headerQuestion: {string(header)}}, Data: data}, err
}

func decodeQuestion(m *nats.Msg) (*scatter.Request, time.Duration, error) {
	var req scatter.Request
	if err := req.UnmarshalBinary(m.Data); err != nil {
		return nil, 0, err
	}
	var q question
	if err := json.Unmarshal([]byte(m.Header.Get(headerQuestion)), &q); err != nil {
		return nil, 0, fmt.Errorf("the header %s: %w", headerQuestion, err)
	}
	if q.Query = req.Query; q.Count {
		q.Query = counting{}
	}
	req.Query = &q
	return &req, min(q.Left, time.Hour), nil
}

// reply gives a reply to the probe that waits for it, if it still does.
func (n *node) reply(m *nats.Msg) {
	if done, ok := n.waiting.LoadAndDelete(m.Subject); ok {
		done.(func([]scatter.Hit[string], error))(decodeReply(m))
	}
}

// A reply is FTR1, or the text of an error in a header.
const (
	headerError     = "Error"
	headerPermanent = "Permanent" // any other replica would say the same
)

func decodeReply(m *nats.Msg) ([]scatter.Hit[string], error) {
	text := m.Header.Get(headerError)
	switch {
	case m.Header.Get("Status") == "503": // the server's answer if nobody subscribes
		return nil, errors.New("not running")
	case text == errRing.Error():
		return nil, errRing
	case text != "" && m.Header.Get(headerPermanent) != "":
		return nil, fmt.Errorf("%w: %s", scatter.ErrPermanent, text)
	case text != "":
		return nil, errors.New(text)
	}
	var reply scatter.Reply
	if err := reply.UnmarshalBinary(m.Data); err != nil {
		return nil, err
	}
	if reply.TimedOut {
		return reply.Hits, scatter.ErrPartial
	}
	return reply.Hits, nil
}

// serveSearch answers a search of another node.
func (n *node) serveSearch(m *nats.Msg) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.life.Err() != nil {
		return
	}
	n.running.Go(func() {
		if err := m.RespondMsg(n.response(m)); err != nil {
			n.log.Warn("a peer gets no answer", zap.Error(err))
		}
	})
}

func (n *node) response(m *nats.Msg) *nats.Msg {
	req, left, err := decodeQuestion(m)
	var hits []scatter.Hit[string]
	if err == nil {
		// An error must be there before the peer stops waiting for it.
		ctx, cancel := context.WithTimeout(n.life, left*9/10)
		defer cancel()
		hits, err = n.answer(ctx, req)
	}
	out := nats.NewMsg("")
	partial := errors.Is(err, scatter.ErrPartial)
	if err == nil || partial {
		out.Data, err = (&scatter.Reply{Hits: hits, TimedOut: partial}).MarshalBinary()
	}
	if size := int64(len(out.Data)); err == nil && size+1024 > n.engine.nc.MaxPayload() {
		err = fmt.Errorf("%w: an answer of %d bytes is more than the NATS servers take", scatter.ErrPermanent, size)
	}
	if err != nil {
		out.Data = nil
		if errors.Is(err, scatter.ErrPermanent) {
			out.Header.Set(headerPermanent, "1")
		}
		out.Header.Set(headerError, strings.TrimPrefix(err.Error(), scatter.ErrPermanent.Error()+": "))
	}
	return out
}

// answer searches this node's index.
func (n *node) answer(ctx context.Context, req *scatter.Request) ([]scatter.Hit[string], error) {
	q := req.Query.(*question)
	if err := n.index.wait(ctx, q.Fence); err != nil {
		return nil, err
	}
	return n.index.search(ctx, q.Revision, &scatter.Request{Table: req.Table, Query: q.Query, K: req.K}, q.Filter)
}

// count counts the documents of an index and the values that could not be indexed. With the name ""
// it counts all keys.
func (n *node) count(ctx context.Context, index string) (documents, failures int64, warnings []string, err error) {
	ctx, cancel := n.limit(ctx)
	defer cancel()
	req := &scatter.Request{Table: index, Query: counting{}, K: 2 * partitions}
	out, err := n.ask(ctx, n.fence(ctx), req, nil)
	if err != nil {
		return 0, 0, nil, err
	}
	for _, h := range out.response.Hits {
		if strings.HasSuffix(h.ID, " documents") {
			documents += int64(h.Score)
		} else {
			failures += int64(h.Score)
		}
	}
	return documents, failures, out.warnings, nil
}
