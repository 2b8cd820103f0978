package scatter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// A payload is little-endian. Lengths are u32, in bytes, and come before what they measure:
//
//	request  "FTQ1" flags(u16)=0 K(u32) len+table tag(u8) body
//	  tag 0 KNN    len+field len+vector ef?(u8) [ef(u32)]
//	  tag 1 Text   len+field len+substring
//	  tag 2 Regex  len+field len+pattern max_errors(u16)
//	reply    "FTR1" flags(u16)=0 timed_out(u8) count(u32), count times: len+id score(f32)
//
// Table, field and pattern are UTF-8. A substring and an ID are opaque bytes.
const (
	requestMagic, replyMagic  = "FTQ1", "FTR1"
	tagKNN, tagText, tagRegex = 0, 1, 2
)

// A [CodecError] wraps one of these three errors.
var (
	// ErrTruncated is the error of a decoder if the payload ends before what it announces: inside
	// a field, or with fewer bytes left than a length or a count in it claims.
	ErrTruncated = errors.New("payload too short")
	// ErrMalformed is the error of a decoder if the payload has bytes that the format doesn't
	// allow: a wrong magic, flag, bool or query tag, text that isn't UTF-8, a vector whose length
	// isn't a multiple of 4, or bytes after the end. Where an int has 32 bits, it is also the
	// error of a number that doesn't fit one.
	ErrMalformed = errors.New("malformed payload")
	// ErrNotEncodable is the error of an encoder for what the format can't carry: a number or a
	// length outside 0 to 4294967295, a Table, Field or Pattern that isn't UTF-8, a nil query, a
	// query of the caller's own type, a Ranking but [ScoreAscending], or an After that isn't empty.
	ErrNotEncodable = errors.New("not encodable")
)

// CodecError is the error of every method that encodes or decodes a [Request] or a [Reply].
type CodecError struct {
	Field  string // as in Go: "K", "Hits[3].ID"; or "Magic", "Flags", and "End" for trailing bytes
	Offset int    // where the faulty part begins in the payload, in bytes; -1 when encoding
	Err    error  // wraps ErrTruncated, ErrMalformed or ErrNotEncodable
}

// Error returns a message with the field, the offset if there is one, and the reason.
func (e *CodecError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("scatter: encode %s: %v", e.Field, e.Err)
	}
	return fmt.Sprintf("scatter: decode %s at byte %d: %v", e.Field, e.Offset, e.Err)
}

// Unwrap returns e.Err.
func (e *CodecError) Unwrap() error { return e.Err }

// inHit turns the name of a hit's field into that of a reply's.
func (e *CodecError) inHit(i int) { e.Field = fmt.Sprintf("Hits[%d].%s", i, e.Field) }

// Reply is one peer's answer to a [Request], as it travels between peers. Its zero value is empty.
type Reply struct {
	Hits     []Hit[string] // the peer's top-K; an ID is opaque and may hold any bytes
	TimedOut bool          // the peer ran out of time itself, so Hits may lack some
}

// MarshalBinary returns r as an FTQ1 payload. It implements [encoding.BinaryMarshaler].
//
// The query must be a [KNN], [Text] or [Regex], or a non-nil pointer to one. An EF of 0 is left
// out, and so is Skip. Nothing is cut to fit: any error is a [*CodecError], and the payload is then
// nil. A probe should return such an error wrapped in [ErrPermanent], as no replica can be asked.
// Goroutines may encode one Request concurrently. The payload is the only allocation, unless Query
// is a pointer: then the query is copied too.
func (r *Request) MarshalBinary() ([]byte, error) { return r.AppendBinary(nil) }

// AppendBinary appends the payload that [Request.MarshalBinary] returns to dst. If there is an
// error, it returns dst unchanged. It implements [encoding.BinaryAppender].
func (r *Request) AppendBinary(dst []byte) ([]byte, error) {
	query := valueOf(r.Query)
	var e encoder
	r.encode(&e, query)
	if e.err != nil {
		return dst, e.err
	}
	payload := e.grow(dst)
	r.encode(&e, query)
	return payload, nil
}

func (r *Request) encode(e *encoder, query Query) {
	e.header(requestMagic)
	e.int("K", r.K)
	e.text("Table", r.Table)
	if r.After != "" { // Rule 46
		e.fail("After", fmt.Errorf("%w: the format has no place for a cursor", ErrNotEncodable))
	}
	switch q := query.(type) {
	case KNN:
		e.u8(tagKNN)
		e.text("Query.Field", q.Field)
		e.vector("Query.Vector", q.Vector)
		if e.bool(q.EF != 0); q.EF != 0 {
			e.int("Query.EF", q.EF)
		}
		if q.Ranking != ScoreAscending {
			e.fail("Query.Ranking", fmt.Errorf("%w: %v", ErrNotEncodable, q.Ranking))
		}
	case Text:
		e.u8(tagText)
		e.text("Query.Field", q.Field)
		copy(e.part("Query.Substring", len(q.Substring)), q.Substring)
	case Regex:
		e.u8(tagRegex)
		e.text("Query.Field", q.Field)
		e.text("Query.Pattern", q.Pattern)
		e.u16(q.MaxErrors)
	case *KNN, *Text, *Regex:
		e.fail("Query", fmt.Errorf("%w: nil %T", ErrNotEncodable, q))
	default:
		e.fail("Query", fmt.Errorf("%w: %T", ErrNotEncodable, q))
	}
}

// valueOf returns the query that q points to, or q itself if it isn't a pointer to one of these. It
// doesn't look for a method that only they have: a caller's struct that embeds a KNN has its
// methods too, and its other fields would be lost.
func valueOf(q Query) Query {
	if p, ok := q.(*KNN); ok && p != nil {
		return *p
	}
	if p, ok := q.(*Text); ok && p != nil {
		return *p
	}
	if p, ok := q.(*Regex); ok && p != nil {
		return *p
	}
	return q
}

// UnmarshalBinary sets r to the request in an FTQ1 payload: see [encoding.BinaryUnmarshaler].
//
// The query becomes a [KNN], [Text] or [Regex], never a pointer. A KNN's Ranking is ScoreAscending.
// Its EF is 0 if the payload has no ef, and also if it has an ef of 0. MarshalBinary leaves out an
// EF of 0, so a payload with an ef of 0 is encoded again without it, 4 bytes shorter. An empty
// vector or substring becomes nil. K may be 0, which [Broadcast] refuses.
//
// The request shares no memory with the payload. The memory that decoding takes is bounded by a
// small multiple of the payload's length, whatever lengths it claims. Any error is a [*CodecError],
// and leaves r as it was.
func (r *Request) UnmarshalBinary(payload []byte) error {
	d := decoder{payload: payload}
	d.header(requestMagic)
	req := Request{K: d.int("K"), Table: string(d.text("Table"))}
	switch tag := d.u8("Query"); tag {
	case tagKNN:
		q := KNN{Field: string(d.text("Query.Field")), Vector: d.vector("Query.Vector")}
		if d.bool("Query.EF") {
			q.EF = d.int("Query.EF")
		}
		req.Query = q
	case tagText:
		req.Query = Text{string(d.text("Query.Field")), append([]byte(nil), d.part("Query.Substring")...)}
	case tagRegex:
		req.Query = Regex{string(d.text("Query.Field")), string(d.text("Query.Pattern")), d.u16("Query.MaxErrors")}
	default:
		d.fail("Query", d.off-1, fmt.Errorf("%w: unknown query tag %d", ErrMalformed, tag))
	}
	if err := d.end(); err != nil {
		return err
	}
	*r = req
	return nil
}

// MarshalBinary returns r as an FTR1 payload. It implements [encoding.BinaryMarshaler].
//
// IDs may hold any bytes, and scores may be any float32, NaN included. Nothing is cut to fit: any
// error is a [*CodecError], and the payload is then nil. Several goroutines may encode one Reply at
// the same time. The payload is the only allocation.
func (r *Reply) MarshalBinary() ([]byte, error) { return r.AppendBinary(nil) }

// AppendBinary appends the payload that [Reply.MarshalBinary] returns to dst. If there is an error,
// it returns dst unchanged. It implements [encoding.BinaryAppender].
func (r *Reply) AppendBinary(dst []byte) ([]byte, error) {
	var e encoder
	r.encode(&e)
	if e.err != nil {
		return dst, e.err
	}
	payload := e.grow(dst)
	r.encode(&e)
	return payload, nil
}

func (r *Reply) encode(e *encoder) {
	e.header(replyMagic)
	e.bool(r.TimedOut)
	e.int("Hits", len(r.Hits))
	for i, h := range r.Hits {
		copy(e.part("ID", len(h.ID)), h.ID)
		e.f32(h.Score)
		if e.err != nil {
			e.err.inHit(i)
			return
		}
	}
}

// UnmarshalBinary sets r to the reply in an FTR1 payload: see [encoding.BinaryUnmarshaler].
//
// Without hits, Hits becomes nil. IDs may hold any bytes. All IDs share one string as long as the
// payload, which stays in memory as long as one of them does: use [strings.Clone] for an ID that is
// kept for long.
//
// The reply shares no memory with the payload. The memory that decoding takes is bounded by a small
// multiple of the payload's length, whatever number of hits it claims. Any error is a
// [*CodecError], and leaves r as it was.
func (r *Reply) UnmarshalBinary(payload []byte) error {
	d := decoder{payload: payload}
	d.header(replyMagic)
	reply := Reply{TimedOut: d.bool("TimedOut")}
	if n := d.hitCount("Hits"); n > 0 {
		reply.Hits = make([]Hit[string], n)
		all := string(payload) // one allocation for all IDs
		for i := range reply.Hits {
			h := &reply.Hits[i]
			id := d.part("ID")
			h.ID = all[d.off-len(id) : d.off]
			h.Score = d.f32("Score")
			if d.err != nil {
				d.err.inHit(i)
				break
			}
		}
	}
	if err := d.end(); err != nil {
		return err
	}
	*r = reply
	return nil
}

// An encoder is run twice over a value. The first run has no buffer: it checks the fields and adds
// up their sizes. The second run fills a buffer of that size. So nothing but the code that writes a
// field knows its size, and a payload takes one allocation.
type encoder struct {
	buf     []byte      // nil during the first run
	off     int         // where the next field begins
	err     *CodecError // the first error; only the first run has one
	scratch [4]byte     // where the first run writes numbers
}

// grow ends the first run. It returns dst with the payload appended, which the second run fills.
func (e *encoder) grow(dst []byte) []byte {
	e.buf = slices.Grow(dst, e.off)[:len(dst)+e.off]
	e.off = len(dst)
	return e.buf
}

// next returns the next n bytes to fill, or nil during the first run.
func (e *encoder) next(n int) []byte {
	e.off += n
	if e.buf == nil {
		return nil
	}
	return e.buf[e.off-n : e.off]
}

func (e *encoder) fail(field string, err error) {
	if e.err == nil {
		e.err = &CodecError{field, -1, err}
	}
}

func (e *encoder) header(magic string) {
	copy(e.next(len(magic)), magic)
	e.u16(0) // flags, all reserved
}

func (e *encoder) u8(v byte)     { e.number(1)[0] = v }
func (e *encoder) u16(v uint16)  { binary.LittleEndian.PutUint16(e.number(2), v) }
func (e *encoder) u32(v uint32)  { binary.LittleEndian.PutUint32(e.number(4), v) }
func (e *encoder) f32(v float32) { e.u32(math.Float32bits(v)) }

// number returns the next n bytes to fill, at most 4. During the first run nobody reads them.
func (e *encoder) number(n int) []byte {
	if b := e.next(n); b != nil {
		return b
	}
	return e.scratch[:n]
}

func (e *encoder) bool(v bool) {
	if v {
		e.u8(1)
	} else {
		e.u8(0)
	}
}

func (e *encoder) int(field string, v int) {
	if uint64(v) > math.MaxUint32 { // true for negative ones as well
		e.fail(field, fmt.Errorf("%w: %d is not in 0 to %d", ErrNotEncodable, v, uint32(math.MaxUint32)))
	}
	e.u32(uint32(v))
}

// part writes a length, then returns as many bytes to fill, or nil during the first run.
func (e *encoder) part(field string, n int) []byte {
	e.int(field, n)
	return e.next(n)
}

// text writes a part that must be UTF-8.
func (e *encoder) text(field, s string) {
	if e.buf == nil && !utf8.ValidString(s) {
		e.fail(field, notUTF8(ErrNotEncodable, s))
	}
	copy(e.part(field, len(s)), s)
}

func (e *encoder) vector(field string, v []float32) {
	if b := e.part(field, 4*len(v)); b != nil {
		b = b[:0]
		for _, x := range v { // appending is twice as fast as indexing or reslicing b
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
	}
}

// A decoder reads a payload up to the first error, and zeros after it, so that its callers need no
// check after each field.
type decoder struct {
	payload []byte
	off     int         // where the next field begins
	err     *CodecError // the first error
	zeros   [4]byte     // what is read after an error
}

func (d *decoder) fail(field string, off int, err error) {
	if d.err == nil {
		d.err = &CodecError{field, off, err}
	}
}

func (d *decoder) end() error {
	if left := len(d.payload) - d.off; left > 0 {
		d.fail("End", d.off, fmt.Errorf("%w: %d bytes after the end", ErrMalformed, left))
	}
	if d.err != nil {
		return d.err
	}
	return nil
}

// take returns the next n bytes of the payload, not copied, or nil after an error.
func (d *decoder) take(field string, n uint32) []byte {
	left := len(d.payload) - d.off
	if uint64(n) > uint64(left) {
		d.fail(field, d.off, fmt.Errorf("%w: %d bytes wanted, %d left", ErrTruncated, n, left))
	}
	if d.err != nil {
		return nil
	}
	d.off += int(n)
	return d.payload[d.off-int(n) : d.off]
}

func (d *decoder) header(magic string) {
	if m := d.take("Magic", uint32(len(magic))); string(m) != magic {
		d.fail("Magic", 0, fmt.Errorf("%w: magic %q, want %q", ErrMalformed, m, magic))
	}
	if flags := d.u16("Flags"); flags != 0 {
		d.fail("Flags", d.off-2, fmt.Errorf("%w: unknown flags %#04x", ErrMalformed, flags))
	}
}

// number returns the next n bytes, at most 4, or zeros after an error.
func (d *decoder) number(field string, n uint32) []byte {
	if b := d.take(field, n); b != nil {
		return b
	}
	return d.zeros[:n]
}

func (d *decoder) u8(field string) byte     { return d.number(field, 1)[0] }
func (d *decoder) u16(field string) uint16  { return binary.LittleEndian.Uint16(d.number(field, 2)) }
func (d *decoder) u32(field string) uint32  { return binary.LittleEndian.Uint32(d.number(field, 4)) }
func (d *decoder) f32(field string) float32 { return math.Float32frombits(d.u32(field)) }

func (d *decoder) bool(field string) bool {
	v := d.u8(field)
	if v > 1 {
		d.fail(field, d.off-1, fmt.Errorf("%w: %d is neither 0 nor 1", ErrMalformed, v))
	}
	return v == 1
}

func (d *decoder) int(field string) int {
	v := d.u32(field)
	if uint64(v) > math.MaxInt { // only where an int has 32 bits
		d.fail(field, d.off-4, fmt.Errorf("%w: %d is above %d", ErrMalformed, v, math.MaxInt))
	}
	return int(v)
}

// hitCount reads the number of hits, and fails if the rest of the payload has no room for as many.
func (d *decoder) hitCount(field string) int {
	const minHitSize = 8 // a length and a score
	n := d.u32(field)
	if left := len(d.payload) - d.off; uint64(n) > uint64(left/minHitSize) {
		d.fail(field, d.off-4, fmt.Errorf("%w: %d hits in %d bytes", ErrTruncated, n, left))
		return 0
	}
	return int(n)
}

// part reads a length, then returns as many bytes of the payload, not copied.
func (d *decoder) part(field string) []byte { return d.take(field, d.u32(field)) }

// text reads a part that must be UTF-8.
func (d *decoder) text(field string) []byte {
	b := d.part(field)
	if !utf8.Valid(b) {
		d.fail(field, d.off-len(b), notUTF8(ErrMalformed, b))
	}
	return b
}

func (d *decoder) vector(field string) []float32 {
	b := d.part(field)
	if len(b)%4 != 0 {
		d.fail(field, d.off-len(b), fmt.Errorf("%w: length %d is not a multiple of 4", ErrMalformed, len(b)))
	}
	if len(b) == 0 {
		return nil
	}
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

// notUTF8 wraps reason. It quotes only the beginning of s, which may be megabytes long.
func notUTF8[S string | []byte](reason error, s S) error {
	return fmt.Errorf("%w: not UTF-8: %.60q", reason, s)
}
