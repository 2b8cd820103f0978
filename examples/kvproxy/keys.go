package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Commands about keys. Those that change one read it first, because their reply or an error depends on what it is, and
// because the version of the change must be the later one. Two clients that change the same key at the same time may
// both read it before either has written. Their writes are merged field by field, and the later one wins.

// maxValue is how many bytes of a document, as it is stored, clients may make. Several at the same time can make more,
// and what is stored must be small enough to travel.
const maxValue = 4 << 20

// change writes a change to a client's key.
func (n *node) change(ctx context.Context, key []byte, read *document, delta func(at version) document) error {
	return n.changeStored(ctx, userKey(key), read, delta)
}

// changeStored writes a change to a stored key, by a version that is later than all that was read of it.
func (n *node) changeStored(ctx context.Context, key string, read *document, delta func(at version) document) error {
	if len(key) > maxKey {
		return fmt.Errorf("the key has %d bytes, more than %d", len(key)-1, maxKey-1)
	}
	at := n.clock.next(time.Now())
	if latest := read.latest(); at <= latest { // a write would be lost, as one that came earlier
		ahead := time.UnixMicro(int64(latest >> versionNodeBits))
		return fmt.Errorf("CLOCKSKEW the key was written by a node whose clock was ahead, at %v", ahead)
	}
	doc := delta(at)
	merged := read.with(doc)
	if size := len(merged.encode()); size > maxValue {
		return fmt.Errorf("the value would have %d bytes, more than %d", size, maxValue)
	}
	return n.write(ctx, key, doc)
}

// one reads the document of a client's key, which must be of a kind or not be there at all.
func (n *node) one(ctx context.Context, key []byte, want kind) (document, error) {
	docs, err := n.read(ctx, []string{userKey(key)})
	if err != nil {
		return document{}, err
	}
	if k := docs[0].kind(); k != want && k != noKey {
		return document{}, errWrongType
	}
	return docs[0], nil
}

// many reads the documents of clients' keys, each once.
func (n *node) many(ctx context.Context, keys [][]byte) (map[string]document, error) {
	found := make(map[string]document, len(keys))
	var stored []string
	for _, key := range keys {
		if _, twice := found[string(key)]; !twice {
			found[string(key)] = document{}
			stored = append(stored, userKey(key))
		}
	}
	docs, err := n.read(ctx, stored)
	for i := range docs {
		found[stored[i][1:]] = docs[i]
	}
	return found, err
}

// fail writes an error reply, which begins with a word in capitals, but for those that RediSearch words otherwise.
func fail(w *writer, err error) {
	var verbatim replyError
	word, _, _ := strings.Cut(err.Error(), " ")
	if errors.As(err, &verbatim) {
		w.err(verbatim)
	} else if word != "" && strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		w.err(err)
	} else {
		w.err(fmt.Errorf("ERR %w", err))
	}
}

func setCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	if len(args) > 2 { // EX, NX, GET and so on
		w.err(errSyntax)
		return
	}
	docs, err := n.read(ctx, []string{userKey(args[0])})
	if err == nil {
		err = n.change(ctx, args[0], &docs[0], func(at version) document {
			return document{cleared: at, text: register{at: at, value: args[1]}}
		})
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.simple("OK")
}

func getCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	doc, err := n.one(ctx, args[0], stringKey)
	switch {
	case err != nil:
		fail(w, err)
	case doc.kind() == noKey:
		w.null()
	default:
		w.bulk(doc.text.value)
	}
}

func delCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	found, err := n.many(ctx, args)
	removed := int64(0)
	for key, doc := range found {
		if err == nil && doc.kind() != noKey {
			err = n.change(ctx, []byte(key), &doc, func(at version) document { return document{cleared: at} })
			removed++
		}
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.integer(removed)
}

func existsCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	found, err := n.many(ctx, args)
	if err != nil {
		fail(w, err)
		return
	}
	count := int64(0)
	for _, key := range args { // one that is named twice counts twice
		if doc := found[string(key)]; doc.kind() != noKey {
			count++
		}
	}
	w.integer(count)
}

func typeCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	docs, err := n.read(ctx, []string{userKey(args[0])})
	if err != nil {
		fail(w, err)
		return
	}
	w.simple([]string{noKey: "none", stringKey: "string", hashKey: "hash"}[docs[0].kind()])
}

func hsetCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	if len(args)%2 == 0 {
		w.err(errWrongArgs("hset"))
		return
	}
	doc, err := n.one(ctx, args[0], hashKey)
	added := int64(0)
	if err == nil {
		err = n.change(ctx, args[0], &doc, func(at version) document {
			fields := make(map[string]register)
			for i := 1; i < len(args); i += 2 {
				name := string(args[i])
				_, has := doc.field(name)
				if _, twice := fields[name]; !has && !twice {
					added++
				}
				fields[name] = register{at: at, value: args[i+1]}
			}
			return document{cleared: doc.without(), fields: fields}
		})
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.integer(added)
}

func hgetCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	doc, err := n.one(ctx, args[0], hashKey)
	if err != nil {
		fail(w, err)
		return
	}
	writeField(w, &doc, args[1])
}

func writeField(w *writer, doc *document, name []byte) {
	if value, ok := doc.field(string(name)); ok {
		w.bulk(value)
	} else {
		w.null()
	}
}

func hmgetCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	doc, err := n.one(ctx, args[0], hashKey)
	if err != nil {
		fail(w, err)
		return
	}
	w.array(len(args) - 1)
	for _, name := range args[1:] {
		writeField(w, &doc, name)
	}
}

func hgetallCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	doc, err := n.one(ctx, args[0], hashKey)
	if err != nil {
		fail(w, err)
		return
	}
	names := doc.names()
	w.mapOf(len(names))
	for _, name := range names {
		w.bulkString(name)
		w.bulk(doc.fields[name].value)
	}
}

func hdelCommand(n *node, ctx context.Context, _ *client, w *writer, args [][]byte) {
	doc, err := n.one(ctx, args[0], hashKey)
	names := make(map[string]bool)
	for _, name := range args[1:] {
		if _, ok := doc.field(string(name)); ok {
			names[string(name)] = true
		}
	}
	if err == nil && len(names) > 0 {
		err = n.change(ctx, args[0], &doc, func(at version) document {
			fields := make(map[string]register)
			for name := range names {
				fields[name] = register{at: at, gone: true}
			}
			return document{cleared: doc.without(), fields: fields}
		})
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.integer(int64(len(names)))
}
