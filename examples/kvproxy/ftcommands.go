package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scatterknn/scatter"
)

// maxTimeout is the longest time that a search can ask for by TIMEOUT.
const maxTimeout = time.Minute

func ftCreate(c *call) (any, error) {
	s, err := parseCreate(c.args)
	if err != nil {
		return nil, err
	}
	if c.node.index.schema(s.Name) == nil && len(c.node.index.schemas()) >= maxIndexes {
		return nil, fmt.Errorf("there are %d indexes already", maxIndexes)
	}
	return replyOK, c.changeMeta("index."+s.Name, func(old []byte) ([]byte, error) {
		if len(old) > 0 {
			return nil, errIndexExists
		}
		return s.encode(), nil
	})
}

// changeMeta edits a value of the meta stream, and waits until this node has applied the change.
func (c *call) changeMeta(name string, edit func(old []byte) ([]byte, error)) error {
	seq, err := c.node.engine.changeMeta(c.ctx, name, edit)
	if err != nil {
		return err
	}
	return c.node.index.wait(c.ctx, positions{meta: seq})
}

// ftDropIndex answers FT.DROPINDEX index [DD]. With DD the documents go first, so that a command
// that failed can be sent again.
func ftDropIndex(c *call) (any, error) {
	s := c.node.index.schema(string(c.args[0]))
	switch {
	case len(c.args) > 2 || len(c.args) == 2 && !strings.EqualFold(string(c.args[1]), "DD"):
		return nil, replyError("Unknown argument")
	case s == nil:
		return nil, errUnknownIndex
	case len(c.args) == 2:
		if err := c.deleteAll(s); err != nil {
			return nil, err
		}
	}
	return replyOK, c.changeMeta("index."+s.Name, func(old []byte) ([]byte, error) {
		if len(old) == 0 {
			return nil, errUnknownIndex
		}
		return nil, nil
	})
}

// deleteAll deletes the documents in an index.
func (c *call) deleteAll(s *schema) error {
	for {
		req := &scatter.Request{Table: s.Name, Query: scatter.Text{}, K: maxHits}
		found, err := c.node.search(c.ctx, req, nil)
		if err != nil {
			return err
		}
		if len(found.warnings) > 0 {
			return errors.New("NOQUORUM not all documents can be found: " + found.warnings[0])
		}
		hits := found.response.Hits
		if len(hits) == 0 {
			return nil
		}
		keys := make([]string, len(hits))
		for i, h := range hits {
			keys[i] = h.ID
		}
		err = forEach(c.ctx, keys, func(ctx context.Context, _ int, key string) error {
			_, err := c.node.engine.delete(ctx, key, hashKey) // a string isn't in the index
			return err
		})
		if err != nil {
			return err
		}
	}
}

func ftList(c *call) (any, error) {
	var names set
	for _, s := range c.node.index.schemas() {
		names = append(names, status(s.Name))
	}
	return names, nil
}

func ftInfo(c *call) (any, error) {
	s := c.node.index.schema(string(c.args[0]))
	if s == nil {
		return nil, errUnknownIndex
	}
	documents, failures, warnings, err := c.node.count(c.ctx, s.Name)
	return s.info(c.client.proto, documents, failures), errors.Join(err, c.partial(warnings))
}

// partial returns an error for an answer that lacks something, unless the node's flags allow it.
func (c *call) partial(warnings []string) error {
	if len(warnings) == 0 || c.node.cfg.partial {
		return nil
	}
	return replyError("PARTIAL " + warnings[0])
}

func ftSearch(c *call) (any, error) { return c.search(parseSearch) }
func ftRegex(c *call) (any, error)  { return c.search(parseRegex) }

// search answers FT.SEARCH and FT.REGEX. It takes four fifths of the time for the search, and
// leaves the rest for reading the documents.
func (c *call) search(parse func([][]byte, func(string) *schema) (*searchQuery, error)) (any, error) {
	began := time.Now()
	fencing, cancel := context.WithTimeout(c.ctx, c.node.cfg.timeout)
	defer cancel()
	fence := c.node.fence(fencing)
	q, err := parse(c.args, c.node.index.schema)
	switch {
	case err != nil && len(fence.warnings) > 0: // it may be because the schema is old
		return nil, replyErrorf("%v (%s)", err, fence.warnings[0])
	case err != nil:
		return nil, err
	}
	if q.request.K == 0 { // KNN 0
		return q.reply(c.client.proto, 0, nil, nil), nil
	}
	timeout := c.node.cfg.timeout
	if q.timeout > 0 {
		timeout = min(q.timeout, maxTimeout)
	}
	ctx, cancel := context.WithDeadline(c.ctx, began.Add(timeout))
	defer cancel()
	searching, cancel := context.WithDeadline(ctx, began.Add(timeout*4/5))
	defer cancel()
	found, err := c.node.searchFrom(searching, fence, q.request, q.filter)
	if err != nil {
		return nil, err
	}
	total, capped, err := c.total(ctx, q, found)
	if err != nil {
		return nil, err
	}
	rows := make([]row, len(found.response.Hits))
	for i, h := range found.response.Hits {
		rows[i] = row{id: h.ID, score: h.Score}
	}
	if !q.needsDocuments() {
		rows = q.arrange(rows)
	}
	if q.readsDocuments() || q.needsDocuments() {
		if err := c.fill(ctx, rows, found); err != nil {
			return nil, err
		}
	}
	if q.needsDocuments() {
		rows = q.arrange(rows)
	}
	if c.client.proto != 3 {
		err = c.partial(found.warnings)
	}
	return q.reply(c.client.proto, total, rows, append(found.warnings, capped...)), err
}

// total returns how many documents match, and a warning if there are more. If there are more than
// maxHits, it fails where the answer would be wrong.
func (c *call) total(ctx context.Context, q *searchQuery, f *found) (total int64, capped []string, err error) {
	hits := len(f.response.Hits)
	if hits <= maxHits {
		return int64(hits), nil, nil
	}
	more := fmt.Sprintf("more than %d documents match", maxHits)
	_, all := q.request.Query.(scatter.Text)
	all = all && q.filter == nil
	switch {
	case q.needsDocuments():
		return 0, nil, fmt.Errorf("%s: SORTBY %.128s needs all of them", more, q.sortBy)
	case q.offset+q.count > maxHits:
		return 0, nil, fmt.Errorf("%s: LIMIT reaches the first %d only", more, maxHits)
	case all:
		total, _, warnings, err := c.node.count(ctx, q.schema.Name)
		f.warnings = append(f.warnings, warnings...)
		return total, nil, err
	case q.count == 0:
		return 0, nil, fmt.Errorf("%s: they can't be counted", more)
	}
	return maxHits, []string{more + ", total_results is too small"}, nil
}

// fill reads the documents of rows.
func (c *call) fill(ctx context.Context, rows []row, f *found) error {
	keys := make([]string, len(rows))
	for i := range rows {
		keys[i] = rows[i].id
	}
	docs, err := c.node.documents(ctx, keys, f)
	if err != nil {
		return fmt.Errorf("read the documents that were found: %w", err)
	}
	for i := range rows {
		rows[i].doc = docs[i]
	}
	return nil
}

// ledgerCommand answers SCATTER.LEDGER [count] with the ledgers of the last searches as JSON, the
// newest first.
func ledgerCommand(c *call) (any, error) {
	count := 10
	if len(c.args) > 0 {
		var err error
		if count, err = strconv.Atoi(string(c.args[0])); err != nil || count < 1 {
			return nil, errNotInteger
		}
	}
	list := []any{}
	for _, ledger := range c.node.ledgers(count) {
		list = append(list, ledger)
	}
	return list, nil
}

// forgetCommand answers SCATTER.FORGET node. The other nodes take over the partitions of a node
// that is gone for good.
func forgetCommand(c *call) (any, error) {
	name := string(c.args[0])
	if name == c.node.cfg.name {
		return nil, fmt.Errorf("%q is this node: ask another one", name)
	}
	return replyOK, c.changeMeta("ring", func(old []byte) ([]byte, error) {
		nodes, err := decodeRing(old)
		if err != nil {
			return nil, err
		}
		i := slices.Index(nodes, name)
		if i < 0 {
			return nil, fmt.Errorf("the ring has no node %.128q", name)
		}
		return encodeRing(slices.Delete(nodes, i, i+1)), nil
	})
}
