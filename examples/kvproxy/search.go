package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scatterknn/scatter"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Commands about indexes, and their searches.

// maxIndexes is how many indexes there may be: each makes a node's writes and its start a little slower.
const maxIndexes = 100

// longest is the most time that a search may ask for by TIMEOUT.
const longest = time.Minute

// index returns a schema. One that this node hasn't heard of is looked for elsewhere.
func (n *node) index(ctx context.Context, name string) (*schema, bool, error) {
	if n.currency.current() { // before looking
		if s, ok := n.store.schema(name); ok {
			return s, true, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.timeout)
	defer cancel()
	docs, err := n.read(ctx, []string{indexKey(name)})
	if err != nil || docs[0].kind() != stringKey {
		return nil, false, err
	}
	s, err := decodeSchema(docs[0].text.value)
	return s, err == nil, err
}

func ftCreate(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	s, err := parseCreate(args)
	if err != nil {
		fail(w, err)
		return
	}
	docs, err := n.read(ctx, []string{indexKey(s.Name)})
	if err == nil && docs[0].kind() == stringKey {
		err = errIndexExists
	}
	if err == nil && len(n.store.schemas()) >= maxIndexes {
		err = fmt.Errorf("there are %d indexes already", maxIndexes)
	}
	if err == nil {
		err = n.changeStored(ctx, indexKey(s.Name), &docs[0], func(at version) document {
			return document{cleared: at, text: register{at: at, value: s.encode()}}
		})
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.simple("OK")
}

// ftDropIndex answers FT.DROPINDEX index [DD]. With DD the documents in the index go first.
func ftDropIndex(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	name, documents, err := parseDrop(args)
	if err != nil {
		fail(w, err)
		return
	}
	docs, err := n.read(ctx, []string{indexKey(name)})
	if err == nil && docs[0].kind() != stringKey {
		err = replyError("Unknown Index name")
	}
	if err == nil && documents {
		err = n.deleteAll(ctx, name)
	}
	if err == nil {
		err = n.changeStored(ctx, indexKey(name), &docs[0], func(at version) document { return document{cleared: at} })
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.simple("OK")
}

// deleteAll deletes the documents in an index.
func (n *node) deleteAll(ctx context.Context, index string) error {
	for {
		resp, err := n.search(ctx, &scatter.Request{Table: index, Query: scatter.Text{}, K: maxHits})
		if err != nil {
			return err
		}
		if resp.Partial {
			return errors.New("NOQUORUM " + partial(resp))
		}
		if len(resp.Hits) == 0 {
			return nil
		}
		var writers errgroup.Group
		writers.SetLimit(64)
		for _, h := range resp.Hits {
			writers.Go(func() error {
				key := []byte(h.ID)
				doc, err := n.one(ctx, key, hashKey)
				if err != nil || doc.kind() == noKey {
					return err
				}
				return n.change(ctx, key, &doc, func(at version) document { return document{cleared: at} })
			})
		}
		if err := writers.Wait(); err != nil {
			return err
		}
	}
}

func ftList(n *node, _ context.Context, _ *client, w *writer, _ [][]byte) { w.list(n.store.schemas()) }

func ftInfo(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	s, ok, err := n.index(ctx, string(args[0]))
	if err == nil && !ok {
		err = errUnknownIndex
	}
	if err != nil {
		fail(w, err)
		return
	}
	info, err := n.count(ctx, s.Name)
	if err != nil {
		fail(w, err)
		return
	}
	w.info(s, info)
}

func ftSearch(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	n.find(ctx, w, "FT.SEARCH", args, parseSearch)
}

func ftRegex(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	n.find(ctx, w, "FT.REGEX", args, parseRegex)
}

// find runs a search and writes its reply. It takes four fifths of the time for the search and leaves the rest for
// reading the documents that were found.
func (n *node) find(ctx context.Context, w *writer, command string, args [][]byte,
	parse func([][]byte, func(string) (*schema, bool)) (*searchQuery, error),
) {
	began := time.Now()
	var unread error
	q, err := parse(args, func(name string) (*schema, bool) {
		s, ok, err := n.index(ctx, name)
		unread = err
		return s, ok
	})
	if unread != nil {
		err = unread
	}
	if err != nil {
		fail(w, err)
		return
	}
	timeout := n.cfg.timeout
	if q.timeout > 0 {
		timeout = min(q.timeout, longest)
	}
	ctx, cancel := context.WithDeadline(ctx, began.Add(timeout))
	defer cancel()
	searching, cancel := context.WithDeadline(ctx, began.Add(timeout*4/5))
	defer cancel()
	resp, err := n.search(searching, q.request)
	l := ledger{at: began, query: command + " " + shown(args), elapsed: time.Since(began)}
	if resp != nil {
		l.coverage, l.partial, l.hits, l.peers, l.missing = resp.Coverage, resp.Partial, len(resp.Hits), resp.Peers,
			resp.Missing
	}
	if err != nil {
		l.err = err.Error()
		n.ledgers.add(l)
		fail(w, err)
		return
	}
	n.ledgers.add(l)
	var warnings []string
	if resp.Partial {
		warnings = append(warnings, partial(resp))
		n.log.Warn("partial answer", zap.String("query", l.query), zap.Float64("coverage", resp.Coverage),
			zap.Stringers("missing", resp.Missing))
	}
	if q.needsDocuments() && len(resp.Hits) == q.request.K && len(q.scoreAs) == 0 {
		warnings = append(warnings, fmt.Sprintf("Only the first %d documents that match were sorted", q.request.K))
	}
	if resp.Coverage == 0 { // RESP2 has no place for a warning, and this is no answer
		fail(w, errors.New("NOQUORUM "+partial(resp)))
		return
	}

	rows := make([]row, len(resp.Hits))
	for i, h := range resp.Hits {
		rows[i] = row{id: h.ID, score: h.Score}
	}
	if !q.needsDocuments() {
		rows = q.arrange(rows)
	}
	if !q.noContent || q.needsDocuments() {
		if err := n.fill(ctx, rows); err != nil {
			warnings = append(warnings, "Not all documents could be read: "+err.Error())
			n.log.Warn("unread documents", zap.String("query", l.query), zap.Error(err))
		}
	}
	if q.needsDocuments() {
		rows = q.arrange(rows)
	}
	w.search(q, len(resp.Hits), rows, warnings)
}

// search searches, and once more if the ring has changed meanwhile: the answer may have been judged by another ring
// than the one that nodes have answered by.
func (n *node) search(ctx context.Context, req *scatter.Request) (*scatter.Response[scatter.Hit[string]], error) {
	for {
		before := n.generation.Load()
		resp, err := n.searcher.Search(ctx, req, nil)
		if before%2 == 0 && before == n.generation.Load() || ctx.Err() != nil {
			return resp, err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// fill reads the documents of rows.
func (n *node) fill(ctx context.Context, rows []row) error {
	for part := range slices.Chunk(rows, 1000) {
		keys := make([]string, len(part))
		for i := range part {
			keys[i] = userKey([]byte(part[i].id))
		}
		docs, err := n.read(ctx, keys)
		for i := range docs {
			part[i].doc = docs[i]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// partial says what an answer lacks.
func partial(resp *scatter.Response[scatter.Hit[string]]) string {
	var why []string
	for _, p := range resp.Peers {
		if p.Err != nil && p.Status != scatter.NotNeeded {
			why = append(why, fmt.Sprintf("%s: %v", p.Peer, p.Err))
		}
	}
	if len(why) == 0 && len(resp.Missing) > 0 {
		why = append(why, "missing "+resp.Missing[0].String())
	}
	return fmt.Sprintf("Partial answer: %.2f%% of the key space was searched. %s", 100*resp.Coverage,
		strings.Join(why, "; "))
}

// shown is the words of a query as far as they can be shown.
func shown(args [][]byte) string {
	var b strings.Builder
	for _, arg := range args {
		if b.Len() > 200 {
			return b.String() + " ..."
		}
		if len(arg) > 100 {
			fmt.Fprintf(&b, "(%d bytes) ", len(arg))
		} else {
			fmt.Fprintf(&b, "%q ", arg)
		}
	}
	return b.String()
}

// ledgerCommand answers SCATTER.LEDGER [count]: who was asked in the last searches, and what became of it, the latest
// first.
func ledgerCommand(n *node, _ context.Context, _ *client, w *writer, args [][]byte) {
	count := int64(10)
	if len(args) > 0 {
		var err error
		if count, err = positive(args[0]); err != nil {
			fail(w, err)
			return
		}
	}
	last := n.ledgers.last(int(min(count, 1000)))
	w.array(len(last))
	for _, l := range last {
		w.mapOf(9)
		w.pair("at", l.at.UTC().Format(time.RFC3339Nano))
		w.pair("query", l.query)
		w.number("microseconds", l.elapsed.Microseconds())
		w.bulkString("coverage")
		w.double(l.coverage)
		w.number("partial", int64(truth(l.partial)[0]-'0'))
		w.number("hits", int64(l.hits))
		w.pair("error", l.err)
		w.bulkString("peers")
		w.array(len(l.peers))
		for _, p := range l.peers {
			w.mapOf(6)
			w.pair("peer", string(p.Peer))
			w.pair("role", p.Role.String())
			w.pair("status", p.Status.String())
			w.number("hits", int64(p.Hits))
			w.number("microseconds", p.Elapsed.Microseconds())
			text := ""
			if p.Err != nil {
				text = p.Err.Error()
			}
			w.pair("error", text)
		}
		w.bulkString("missing")
		w.array(len(l.missing))
		for _, gap := range l.missing {
			w.bulkString(gap.String())
		}
	}
}
