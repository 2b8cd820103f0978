package main

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/match"
)

func setCommand(c *call) (any, error) {
	if len(c.args) > 2 { // EX, NX, GET and so on
		return nil, errSyntax
	}
	return replyOK, c.node.engine.set(c.ctx, string(c.args[0]), document{kind: stringKey, text: c.args[1]})
}

// msetCommand isn't atomic: if it fails, some of the keys can have been set.
func msetCommand(c *call) (any, error) {
	if len(c.args)%2 != 0 {
		return nil, errWrongArgs("mset")
	}
	values := make(map[string][]byte) // if a key is there twice, its last value counts
	for pair := range slices.Chunk(c.args, 2) {
		values[string(pair[0])] = pair[1]
	}
	keys := slices.Collect(maps.Keys(values))
	return replyOK, forEach(c.ctx, keys, func(ctx context.Context, _ int, key string) error {
		return c.node.engine.set(ctx, key, document{kind: stringKey, text: values[key]})
	})
}

// read reads the document of the first argument, which must be of a kind or not exist.
func (c *call) read(want kind) (document, error) {
	doc, err := c.node.engine.read(c.ctx, string(c.args[0]))
	if err == nil && doc.kind != want && doc.kind != noKey {
		err = errWrongType
	}
	return doc, err
}

// readAll reads the documents of all arguments, in their order.
func (c *call) readAll() ([]document, error) {
	keys := make([]string, len(c.args))
	for i, arg := range c.args {
		keys[i] = string(arg)
	}
	return c.node.engine.readAll(c.ctx, keys)
}

// reply returns the text of a string, or nil for any other document.
func (d document) reply() any {
	if d.kind != stringKey {
		return nil
	}
	return d.text
}

func getCommand(c *call) (any, error) {
	doc, err := c.read(stringKey)
	return doc.reply(), err
}

func mgetCommand(c *call) (any, error) {
	docs, err := c.readAll()
	list := make([]any, len(docs))
	for i := range docs {
		list[i] = docs[i].reply()
	}
	return list, err
}

func delCommand(c *call) (any, error) {
	keys := make(map[string]bool)
	for _, arg := range c.args {
		keys[string(arg)] = true
	}
	removed := make(chan bool, len(keys))
	err := forEach(c.ctx, slices.Collect(maps.Keys(keys)), func(ctx context.Context, _ int, key string) error {
		existed, err := c.node.engine.delete(ctx, key, stringKey, hashKey)
		if existed {
			removed <- true
		}
		return err
	})
	return len(removed), err
}

func existsCommand(c *call) (any, error) {
	docs, err := c.readAll()
	docs = slices.DeleteFunc(docs, func(d document) bool { return d.kind == noKey })
	return len(docs), err // a key that is named twice counts twice
}

func typeCommand(c *call) (any, error) {
	doc, err := c.node.engine.read(c.ctx, string(c.args[0]))
	return status(typeName(doc.kind)), err
}

// typeName returns what TYPE says of a kind.
func typeName(k kind) string {
	return map[kind]string{noKey: "none", stringKey: "string", hashKey: "hash"}[k]
}

func hsetCommand(c *call) (any, error) {
	if len(c.args)%2 != 1 {
		return nil, errWrongArgs("hset")
	}
	added := 0
	err := c.changeHash(func(fields map[string][]byte) bool {
		had := len(fields)
		for pair := range slices.Chunk(c.args[1:], 2) {
			fields[string(pair[0])] = pair[1]
		}
		added = len(fields) - had
		return true
	})
	return added, err
}

func hdelCommand(c *call) (any, error) {
	removed := 0
	err := c.changeHash(func(fields map[string][]byte) bool {
		had := len(fields)
		for _, name := range c.args[1:] {
			delete(fields, string(name))
		}
		removed = had - len(fields)
		return removed > 0
	})
	return removed, err
}

// changeHash edits the hash of the first argument. A hash without fields doesn't exist.
func (c *call) changeHash(edit func(fields map[string][]byte) (changed bool)) error {
	return c.node.engine.change(c.ctx, string(c.args[0]), func(d *document) (bool, error) {
		if d.kind == stringKey {
			return false, errWrongType
		}
		if d.kind == noKey {
			*d = document{kind: hashKey, fields: make(map[string][]byte)}
		}
		changed := edit(d.fields)
		if len(d.fields) == 0 {
			*d = document{}
		}
		return changed, nil
	})
}

// field returns the value of a field, or nil.
func (d document) field(name []byte) any {
	if value, ok := d.fields[string(name)]; ok {
		return value
	}
	return nil
}

func hgetCommand(c *call) (any, error) {
	doc, err := c.read(hashKey)
	return doc.field(c.args[1]), err
}

func hmgetCommand(c *call) (any, error) {
	doc, err := c.read(hashKey)
	var list []any
	for _, name := range c.args[1:] {
		list = append(list, doc.field(name))
	}
	return list, err
}

func hgetallCommand(c *call) (any, error) {
	doc, err := c.read(hashKey)
	var list pairs
	for _, name := range slices.Sorted(maps.Keys(doc.fields)) {
		list = append(list, name, doc.fields[name])
	}
	return list, err
}

// scanCommand answers SCAN cursor [MATCH pattern] [COUNT count] [TYPE type].
func scanCommand(c *call) (any, error) {
	cursor, err := strconv.ParseUint(string(c.args[0]), 10, 64)
	if err != nil {
		return nil, replyError("ERR invalid cursor")
	}
	pattern, count, only := "*", 10, ""
	for rest := c.args[1:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) < 2 {
			return nil, errSyntax
		}
		value := string(rest[1])
		switch strings.ToUpper(string(rest[0])) {
		case "MATCH":
			if pattern = value; strings.Contains(pattern, "[") {
				return nil, errors.New("a pattern with [ is not supported")
			}
		case "COUNT":
			if count, err = strconv.Atoi(value); err != nil || count < 1 {
				return nil, errNotInteger
			}
		case "TYPE":
			only = strings.ToLower(value)
		default:
			return nil, errSyntax
		}
	}
	found, next, err := c.node.engine.scan(c.ctx, cursor, min(count, maxHits))
	keys := []any{}
	for _, s := range found {
		// A pattern with many * can take endless steps. The limit is for each byte of the key.
		matches, stopped := match.MatchLimit(s.key, pattern, 1000)
		if stopped {
			return nil, errors.New("the pattern is too complex")
		}
		if matches && (only == "" || only == typeName(s.kind)) {
			keys = append(keys, s.key)
		}
	}
	return []any{strconv.FormatUint(next, 10), keys}, err
}

// flushCommand answers FLUSHDB and FLUSHALL, which are the same: there is one database.
func flushCommand(c *call) (any, error) {
	mode := strings.ToUpper(string(bytes.Join(c.args, []byte(" "))))
	if mode != "" && mode != "SYNC" && mode != "ASYNC" { // ASYNC is SYNC
		return nil, errSyntax
	}
	return replyOK, c.node.engine.flush(c.ctx)
}

func dbsizeCommand(c *call) (any, error) {
	keys, _, warnings, err := c.node.count(c.ctx, "")
	return keys, errors.Join(err, c.partial(warnings))
}
