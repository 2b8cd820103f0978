package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"
)

// version orders writes: microseconds since 1970 in the upper bits, and in the lower 12 a number of the node that made
// it, so that two nodes hardly ever make the same. It is a hybrid logical clock: see Kulkarni et al., "Logical Physical
// Clocks", OPODIS 2014.
type version uint64

const versionNodeBits = 12

// clock makes versions, each greater than all that the node has made or seen. It is safe for concurrent use.
type clock struct {
	node version // below 1<<versionNodeBits
	mu   sync.Mutex
	last version
}

func (c *clock) next(now time.Time) version {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := version(now.UnixMicro())<<versionNodeBits | c.node
	if v <= c.last {
		v = (c.last>>versionNodeBits+1)<<versionNodeBits | c.node
	}
	c.last = v
	return v
}

// saw has later versions be greater than v, unless v lies too far ahead to be a version that somebody made honestly.
func (c *clock) saw(v version, now time.Time) {
	if v > version(now.Add(time.Minute).UnixMicro())<<versionNodeBits {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, v)
}

// register is one value and the version of the write that it is from. gone says that the write removed it.
type register struct {
	at    version
	gone  bool
	value []byte
}

// newer reports which of two registers stands: the later one. Of two by the same version it says something, too, that
// doesn't depend on which of them came first.
func (r register) newer(o register) bool {
	switch {
	case r.at != o.at:
		return r.at > o.at
	case r.gone != o.gone:
		return r.gone
	}
	return bytes.Compare(r.value, o.value) > 0
}

// document is what is stored under a key, or a change to it. It is a join semilattice: documents are merged in any
// order, each any number of times, and the result is the same. So replicas that have got the same writes are the same,
// however they got them. See Shapiro et al., "Conflict-free Replicated Data Types", SSS 2011.
type document struct {
	cleared version             // all that was written before this is gone
	text    register            // the value of a string; none if its version is 0
	fields  map[string]register // those of a hash
}

// kind is what a document looks like to a client.
type kind int

const (
	noKey kind = iota
	stringKey
	hashKey
)

// merge takes over what o has and d has not. It may keep o's values, which nobody may write to.
func (d *document) merge(o document) {
	d.cleared = max(d.cleared, o.cleared)
	if o.text.newer(d.text) {
		d.text = o.text
	}
	if d.text.at < d.cleared {
		d.text = register{}
	}
	if d.fields == nil && len(o.fields) > 0 {
		d.fields = make(map[string]register, len(o.fields))
	}
	for name, r := range o.fields {
		if mine, ok := d.fields[name]; !ok || r.newer(mine) {
			d.fields[name] = r
		}
	}
	maps.DeleteFunc(d.fields, func(_ string, r register) bool { return r.at < d.cleared })
}

// with returns what d becomes by merging o, and leaves d as it is.
func (d *document) with(o document) document {
	merged := *d
	merged.fields = maps.Clone(d.fields)
	merged.merge(o)
	return merged
}

// kind says what the document is. If two clients have made it a string and a hash at the same time, the later one wins.
func (d *document) kind() kind {
	latest := version(0)
	for _, r := range d.fields {
		if !r.gone {
			latest = max(latest, r.at)
		}
	}
	switch {
	case d.text.at > latest && !d.text.gone:
		return stringKey
	case latest > 0:
		return hashKey
	}
	return noKey
}

// without returns the version by which a hash is cleared of a string that somebody has set at the same time, lest that
// comes up when the hash has no fields any more; 0 if there is none.
func (d *document) without() version {
	if d.text.at == 0 {
		return 0
	}
	return d.text.at + 1
}

// field returns the value of a field, if the document is a hash that has it.
func (d *document) field(name string) ([]byte, bool) {
	r, ok := d.fields[name]
	if !ok || r.gone || d.kind() != hashKey {
		return nil, false
	}
	return r.value, true
}

// names returns those of the fields that a hash has, sorted.
func (d *document) names() []string {
	if d.kind() != hashKey {
		return nil
	}
	var names []string
	for name, r := range d.fields {
		if !r.gone {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// latest returns the greatest version in the document.
func (d *document) latest() version {
	latest := max(d.cleared, d.text.at)
	for _, r := range d.fields {
		latest = max(latest, r.at)
	}
	return latest
}

// encode returns the document as bytes, the same for equal documents.
func (d *document) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(d.cleared))
	b = d.text.append(b)
	for _, name := range slices.Sorted(maps.Keys(d.fields)) {
		b = appendBytes(b, []byte(name))
		b = d.fields[name].append(b)
	}
	return b
}

func (r register) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(r.at))
	if r.gone {
		return append(b, 1)
	}
	return appendBytes(append(b, 0), r.value)
}

func appendBytes(b, value []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

var errCorrupt = errors.New("corrupt document")

// decodeDocument is encode's opposite. The document's values are parts of b.
func decodeDocument(b []byte) (document, error) {
	r := reader{rest: b}
	d := document{cleared: version(r.number()), text: r.register()}
	for len(r.rest) > 0 && !r.bad {
		if d.fields == nil {
			d.fields = make(map[string]register)
		}
		name := string(r.bytes())
		d.fields[name] = r.register()
	}
	if r.bad {
		return document{}, errCorrupt
	}
	return d, nil
}

// reader takes values off the front of some bytes. Once bad, it gives zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if r.bad = r.bad || size <= 0; r.bad {
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) bytes() []byte {
	n := r.number()
	if r.bad = r.bad || n > uint64(len(r.rest)); r.bad {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) register() register {
	at := version(r.number())
	switch gone := r.number(); {
	case gone == 1:
		return register{at: at, gone: true}
	case gone > 1:
		r.bad = true
		return register{}
	}
	return register{at: at, value: r.bytes()}
}

// digest returns a number that differs where documents do, but by a chance of 1 in 2^64. It is made of the encoding.
func digest(encoded []byte) uint64 {
	h := fnv.New64a()
	h.Write(encoded)
	return h.Sum64()
}
