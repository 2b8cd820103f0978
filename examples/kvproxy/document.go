package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/scatterknn/scatter"
	"golang.org/x/sync/errgroup"
)

const (
	partitions = 16             // of the keys; each is a stream of its own
	meta       = partitions     // the stream of what all nodes share: the ring and the indexes
	streams    = partitions + 1 // all of them

	maxKey      = 1024    // bytes
	maxDocument = 4 << 20 // bytes, encoded
)

// positions is a sequence number of each stream.
type positions [streams]uint64

// kind is what a key holds.
type kind byte

const (
	noKey     kind = 0
	stringKey kind = 'S'
	hashKey   kind = 'H'
)

// document is what a key holds. The zero document stands for a key that doesn't exist.
type document struct {
	kind   kind
	text   []byte            // of a string
	fields map[string][]byte // of a hash
}

// encode returns the document as the body of a message. A document that doesn't exist, or a hash
// without fields, is empty.
func (d document) encode() []byte {
	switch {
	case d.kind == stringKey:
		return append([]byte{byte(stringKey)}, d.text...)
	case d.kind == hashKey && len(d.fields) > 0:
		body := []byte{byte(hashKey)}
		for _, name := range slices.Sorted(maps.Keys(d.fields)) {
			body = binary.AppendUvarint(body, uint64(len(name)))
			body = append(body, name...)
			body = binary.AppendUvarint(body, uint64(len(d.fields[name])))
			body = append(body, d.fields[name]...)
		}
		return body
	}
	return nil
}

// decodeDocument is the opposite of encode. The document shares the bytes of body.
func decodeDocument(body []byte) (document, error) {
	if len(body) == 0 {
		return document{}, nil
	}
	d, rest := document{kind: kind(body[0])}, body[1:]
	switch d.kind {
	case stringKey:
		d.text = rest
		return d, nil
	case hashKey:
		d.fields = make(map[string][]byte)
		for len(rest) > 0 {
			var name, value []byte
			var ok bool
			if name, rest, ok = cutPart(rest); ok {
				value, rest, ok = cutPart(rest)
			}
			if !ok {
				return document{}, errors.New("document: a field of the hash is cut off")
			}
			d.fields[string(name)] = value
		}
		return d, nil
	}
	return document{}, fmt.Errorf("document: the kind %q is unknown", body[0])
}

// cutPart cuts off bytes that their length precedes.
func cutPart(body []byte) (part, rest []byte, ok bool) {
	size, n := binary.Uvarint(body)
	if n <= 0 || size > uint64(len(body)-n) {
		return nil, nil, false
	}
	end := n + int(size)
	return body[n:end:end], body[end:], true
}

// partitionOf returns the partition that a key is in, by its hash.
func partitionOf(key string) int { return int(token(key) >> 60) }

// token returns where a key is on scatter's ring of 2^64 tokens. The partition is its first 4 bits.
func token(key string) uint64 { return scatter.HashToken(key) }

// read returns a key's document, as its partition's leader has it.
func (e *engine) read(ctx context.Context, key string) (document, error) {
	body, _, err := e.get(ctx, partitionOf(key), key)
	if err != nil {
		return document{}, err
	}
	return decodeDocument(body)
}

func checkKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("the key is %d bytes, at most %d are allowed", len(key), maxKey)
	}
	return nil
}

// get returns the last value of a key and its sequence; 0 if it never had one.
func (e *engine) get(ctx context.Context, stream int, key string) (body []byte, seq uint64, err error) {
	if err := checkKey(key); err != nil {
		return nil, 0, err
	}
	var reply struct {
		Message struct {
			Seq  uint64
			Data []byte
		}
	}
	// Direct gets would be answered by replicas that are behind, or not at all by one that hangs.
	err = e.request(ctx, "STREAM.MSG.GET", stream, map[string]any{"last_by_subj": subjectOf(stream, key)}, &reply)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return nil, 0, nil
	}
	return reply.Message.Data, reply.Message.Seq, err
}

// readAll returns the documents of keys, in their order. It reads them concurrently.
func (e *engine) readAll(ctx context.Context, keys []string) ([]document, error) {
	docs := make([]document, len(keys))
	return docs, forEach(ctx, keys, func(ctx context.Context, i int, key string) (err error) {
		docs[i], err = e.read(ctx, key)
		return err
	})
}

// forEach calls do for each key and its place, for up to 64 at the same time. It returns the first
// error.
func forEach(ctx context.Context, keys []string, do func(ctx context.Context, i int, key string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for i, key := range keys {
		group.Go(func() error { return do(ctx, i, key) })
	}
	return group.Wait()
}

// change edits a document by compare and set. edit may be called more than once, each time with the
// document as it is then. It returns whether there is a change to write.
func (e *engine) change(ctx context.Context, key string, edit func(*document) (bool, error)) error {
	_, err := e.compareAndSet(ctx, partitionOf(key), key, func(body []byte) ([]byte, bool, error) {
		doc, err := decodeDocument(body)
		if err != nil {
			return nil, false, err
		}
		changed, err := edit(&doc)
		return doc.encode(), changed, err
	})
	return err
}

// delete deletes a key if what it holds is of one of these kinds. It reports whether it has.
func (e *engine) delete(ctx context.Context, key string, kinds ...kind) (deleted bool, err error) {
	err = e.change(ctx, key, func(d *document) (bool, error) {
		deleted = slices.Contains(kinds, d.kind)
		if deleted {
			*d = document{}
		}
		return deleted, nil
	})
	return deleted, err
}

// compareAndSet edits the value of a key, again if it was changed meanwhile. It returns the
// sequence of the value.
func (e *engine) compareAndSet(
	ctx context.Context, stream int, key string, edit func([]byte) (body []byte, changed bool, err error),
) (uint64, error) {
	for {
		old, seq, err := e.get(ctx, stream, key)
		if err != nil {
			return 0, err
		}
		body, changed, err := edit(old)
		if err != nil || !changed {
			return seq, err
		}
		seq, err = e.publish(ctx, stream, subjectOf(stream, key), body, &seq)
		if !errors.Is(err, errConflict) {
			return seq, err
		}
		if ctx.Err() != nil {
			return 0, noQuorum(ctx, stream, err)
		}
	}
}

// set writes a document, whatever the key held before.
func (e *engine) set(ctx context.Context, key string, doc document) error {
	if err := checkKey(key); err != nil {
		return err
	}
	stream := partitionOf(key)
	_, err := e.publish(ctx, stream, subjectOf(stream, key), doc.encode(), nil)
	return err
}

// flush deletes all documents that were written before.
func (e *engine) flush(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for stream := range partitions {
		group.Go(func() error {
			// The message tells the indexes. The purge deletes what is before it.
			seq, err := e.publish(ctx, stream, flushSubject(stream), nil, nil)
			if err != nil {
				return err
			}
			var reply struct{}
			return e.request(ctx, "STREAM.PURGE", stream, map[string]any{"seq": seq}, &reply)
		})
	}
	return group.Wait()
}

// scanned is a key that scan has found.
type scanned struct {
	key  string
	kind kind
}

// scan returns about count keys, and the cursor for the next call: 0 at the end. It begins with the
// cursor 0. A key that exists throughout is returned at least once.
//
// The cursor is a sequence times the number of partitions, plus the partition. A write moves a key
// to the end of its stream, so that a scan comes to it later or has returned it.
func (e *engine) scan(ctx context.Context, cursor uint64, count int) (found []scanned, _ uint64, _ error) {
	partition, from := int(cursor%partitions), cursor/partitions
	// Deleted keys are in the streams, too. The number of reads has a limit so that a call ends.
	for range 2 * partitions {
		// The replica that answered the read before this may have had more than the one that
		// answers the next. So the leader is asked each time where the end is.
		last, err := e.lastOf(ctx, partition)
		if err != nil {
			return nil, 0, err
		}
		if from > last || last == 0 {
			if partition, from = partition+1, 0; partition == partitions {
				return found, 0, nil
			}
			continue
		}
		batch, next, err := e.entries(ctx, partition, from, max(count, scanBatch))
		if err != nil {
			return nil, 0, err
		}
		if next == from && !pause(ctx) {
			return nil, 0, noQuorum(ctx, partition, errBehind)
		}
		from = next
		for _, x := range batch {
			if len(x.body) > 0 && !x.flush {
				found = append(found, scanned{x.key, kind(x.body[0])})
			}
			if len(found) == count {
				return found, (x.seq+1)*partitions + uint64(partition), nil
			}
		}
	}
	return found, from*partitions + uint64(partition), nil
}

// scanBatch is how many entries a scan reads at least at a time: most may be deleted keys.
const scanBatch = 256

var errBehind = errors.New("the replicas that answer are behind")

// changeMeta edits a value of the meta stream by compare and set. A nil value doesn't exist. Names
// are "ring" and "index." + the name of an index. edit returns the new value; if it returns an
// error, nothing is written, and changeMeta returns that error. It returns the sequence of the
// write.
func (e *engine) changeMeta(ctx context.Context, name string, edit func(old []byte) ([]byte, error)) (uint64, error) {
	return e.compareAndSet(ctx, meta, name, func(old []byte) ([]byte, bool, error) {
		if len(old) == 0 {
			old = nil
		}
		body, err := edit(old)
		return body, !bytes.Equal(body, old), err
	})
}

// ring is the value "ring" of the meta stream.
type ring struct {
	Nodes []string `json:"nodes"`
}

func encodeRing(nodes []string) []byte {
	b, err := json.Marshal(ring{nodes})
	if err != nil {
		panic(err) // names are text
	}
	return b
}

// decodeRing returns the names of the nodes.
func decodeRing(body []byte) ([]string, error) {
	var r ring
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("decode the ring: %w", err)
	}
	return r.Nodes, nil
}
