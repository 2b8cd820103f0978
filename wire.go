package scatter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// A payload is little-endian, and its lengths are u32:
//
//	request  "FTQ1" flags(u16)=0 K(u32) len+table tag(u8) body
//	  tag 0 KNN    len+field len+vector ef?(u8) [ef(u32)]
//	  tag 1 Text   len+field len+substring
//	  tag 2 Regex  len+field len+pattern max_errors(u16)
//	reply    "FTR1" flags(u16)=0 timed_out(u8) count(u32), count times: len+id score(f32)
const (
	requestMagic = "FTQ1"
	replyMagic   = "FTR1"

	tagKNN   = 0
	tagText  = 1
	tagRegex = 2

	minHitSize = 8 // a hit with an empty ID
)

// The reasons a [CodecError] unwraps to.
var (
	// ErrTruncated is returned when a payload ends before what it announces: inside a field, or with fewer bytes left
	// than a length or a count in it claims.
	ErrTruncated = errors.New("payload too short")
	// ErrTrailing is returned when bytes follow the end of a payload.
	ErrTrailing = errors.New("bytes after the end")
	// ErrBadMagic is returned when a payload doesn't begin with the four letters of its kind.
	ErrBadMagic = errors.New("bad magic")
	// ErrBadFlags is returned when one of the flags, which are all reserved, is set.
	ErrBadFlags = errors.New("unknown flags")
	// ErrBadBool is returned when a byte that stands for false or true is neither 0 nor 1.
	ErrBadBool = errors.New("neither 0 nor 1")
	// ErrBadTag is returned when a request's query is of an unknown kind.
	ErrBadTag = errors.New("unknown query tag")
	// ErrNotUTF8 is returned, by encoders too, when a text isn't valid UTF-8. [Text].Substring may hold any bytes.
	ErrNotUTF8 = errors.New("not UTF-8")
	// ErrVectorLength is returned when a vector's length in bytes is no multiple of four.
	ErrVectorLength = errors.New("vector length is no multiple of 4")
	// ErrOutOfRange is returned by encoders when a number or a length doesn't fit the 32 bits it has, and by decoders
	// where an int has but 32 bits and a number doesn't fit that.
	ErrOutOfRange = errors.New("out of range")
	// ErrNotEncodable is returned by encoders for what the format can't express: a nil query or one of the caller's own
	// type, and a [KNN] ranked other than [ScoreAscending].
	ErrNotEncodable = errors.New("not encodable")
)

// CodecError is the error of every method that encodes or decodes a [Request] or [Reply]: what is wrong, and where.
type CodecError struct {
	Field  string // as in Go: "Query.Vector", "Hits[3].ID"; or "Magic", "Flags", and for trailing bytes "End"
	Offset int    // where the part at fault begins in the payload; -1 when encoding
	Err    error  // wraps one of the reasons, ErrTruncated to ErrNotEncodable
}

func (e *CodecError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("scatter: encode %s: %v", e.Field, e.Err)
	}
	return fmt.Sprintf("scatter: decode %s at byte %d: %v", e.Field, e.Offset, e.Err)
}

// Unwrap returns e.Err.
func (e *CodecError) Unwrap() error { return e.Err }

// Reply is one peer's answer to a [Request], as it travels between peers.
type Reply struct {
	Hits     []Hit[string] // the peer's top-K
	TimedOut bool          // the peer ran out of time itself, so Hits may lack some
}

// MarshalBinary returns r, which it only reads, as an FTQ1 payload. It implements [encoding.BinaryMarshaler].
//
// The query must be a [KNN], [Text] or [Regex], or a non-nil pointer to one. On any error, a [*CodecError], there is no
// payload: nothing is cut to fit. The payload is the only allocation, but for a copy of a query behind a pointer.
func (r *Request) MarshalBinary() ([]byte, error) { return r.AppendBinary(nil) }

// AppendBinary appends what [Request.MarshalBinary] returns to dst, or on an error returns dst as it was. It implements
// [encoding.BinaryAppender].
func (r *Request) AppendBinary(dst []byte) ([]byte, error) {
	e := encoder{buf: dst}
	switch q := valueOf(r.Query).(type) {
	case KNN:
		e.request(r, tagKNN, q.Field, 4+4*len(q.Vector)+5)
		e.vector("Query.Vector", q.Vector)
		e.ef("Query.EF", q.EF)
		if q.Ranking != ScoreAscending {
			e.fail("Query.Ranking", fmt.Errorf("%w: %v", ErrNotEncodable, q.Ranking))
		}
	case Text:
		e.request(r, tagText, q.Field, 4+len(q.Substring))
		appendPart(&e, "Query.Substring", q.Substring)
	case Regex:
		e.request(r, tagRegex, q.Field, 4+len(q.Pattern)+2)
		e.text("Query.Pattern", q.Pattern)
		e.buf = binary.LittleEndian.AppendUint16(e.buf, q.MaxErrors)
	case *KNN, *Text, *Regex:
		e.fail("Query", fmt.Errorf("%w: nil %T", ErrNotEncodable, q))
	default:
		e.fail("Query", fmt.Errorf("%w: %T", ErrNotEncodable, q))
	}
	return e.result(dst)
}

// valueOf returns the query that q points to, or q itself if it's no pointer to one that can be encoded. Asking for a
// method that only KNN, Text and Regex have would be shorter, and wrong: a caller's struct that embeds a KNN has its
// methods too, and its other fields would be lost.
func valueOf(q Query) Query {
	switch p := q.(type) {
	case *KNN:
		if p != nil {
			return *p
		}
	case *Text:
		if p != nil {
			return *p
		}
	case *Regex:
		if p != nil {
			return *p
		}
	}
	return q
}

// UnmarshalBinary sets r to the request in an FTQ1 payload, of which it keeps nothing. It implements
// [encoding.BinaryUnmarshaler].
//
// The query becomes a [KNN], [Text] or [Regex], never a pointer. A KNN's EF is 0 where the payload has none, and its
// Ranking is ScoreAscending. An empty vector or substring is nil. K may be 0, which [Broadcast] refuses. Memory is
// bounded by a small multiple of the payload's length, whatever lengths it claims.
//
// An error is a [*CodecError], and r is as it was.
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
		q := Text{Field: string(d.text("Query.Field"))}
		q.Substring = append(q.Substring, d.part("Query.Substring")...)
		req.Query = q
	case tagRegex:
		req.Query = Regex{string(d.text("Query.Field")), string(d.text("Query.Pattern")), d.u16("Query.MaxErrors")}
	default:
		d.fail("Query", d.off-1, fmt.Errorf("%w: %d", ErrBadTag, tag))
	}
	if err := d.end(); err != nil {
		return err
	}
	*r = req
	return nil
}

// MarshalBinary returns r, which it only reads, as an FTR1 payload. It implements [encoding.BinaryMarshaler].
//
// IDs must be valid UTF-8; scores may be any float32, NaN included. On any error, a [*CodecError], there is no payload:
// nothing is cut to fit. The payload is the only allocation.
func (r *Reply) MarshalBinary() ([]byte, error) { return r.AppendBinary(nil) }

// AppendBinary appends what [Reply.MarshalBinary] returns to dst, or on an error returns dst as it was. It implements
// [encoding.BinaryAppender].
func (r *Reply) AppendBinary(dst []byte) ([]byte, error) {
	size := len(replyMagic) + 2 + 1 + 4
	for _, h := range r.Hits {
		size += minHitSize + len(h.ID)
	}
	e := encoder{buf: slices.Grow(dst, size)}
	e.header(replyMagic)
	e.bool(r.TimedOut)
	e.int("Hits", len(r.Hits))
	for i, h := range r.Hits {
		e.text("ID", h.ID)
		e.f32(h.Score)
		if e.err != nil {
			e.err.inHit(i)
			break
		}
	}
	return e.result(dst)
}

// UnmarshalBinary sets r to the reply in an FTR1 payload, of which it keeps nothing. It implements
// [encoding.BinaryUnmarshaler].
//
// No hits is a nil slice. The IDs share one string as long as the payload, which lives as long as one of them does:
// [strings.Clone] those to be kept for long. Memory is bounded by a small multiple of the payload's length, whatever
// number of hits it claims.
//
// An error is a [*CodecError], and r is as it was.
func (r *Reply) UnmarshalBinary(payload []byte) error {
	d := decoder{payload: payload}
	d.header(replyMagic)
	reply := Reply{TimedOut: d.bool("TimedOut")}
	if n := d.hitCount("Hits"); n > 0 {
		reply.Hits = make([]Hit[string], n)
		all := string(payload)
		for i := range reply.Hits {
			h := &reply.Hits[i]
			id := d.text("ID")
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

func (e *CodecError) inHit(i int) { e.Field = fmt.Sprintf("Hits[%d].%s", i, e.Field) }

// An encoder appends to buf until something can't be encoded; err is the first such error.
type encoder struct {
	buf []byte
	err *CodecError
}

func (e *encoder) fail(field string, err error) {
	if e.err == nil {
		e.err = &CodecError{field, -1, err}
	}
}

func (e *encoder) result(dst []byte) ([]byte, error) {
	if e.err != nil {
		return dst, e.err
	}
	return e.buf, nil
}

// request appends what all kinds of request begin with, after it has made room for it and for rest bytes more.
func (e *encoder) request(r *Request, tag byte, field string, rest int) {
	e.buf = slices.Grow(e.buf, len(requestMagic)+2+4+4+len(r.Table)+1+4+len(field)+rest)
	e.header(requestMagic)
	e.int("K", r.K)
	e.text("Table", r.Table)
	e.buf = append(e.buf, tag)
	e.text("Query.Field", field)
}

func (e *encoder) header(magic string) {
	e.buf = append(e.buf, magic...)
	e.buf = append(e.buf, 0, 0)
}

func (e *encoder) bool(v bool) {
	if v {
		e.buf = append(e.buf, 1)
	} else {
		e.buf = append(e.buf, 0)
	}
}

func (e *encoder) int(field string, v int) {
	if uint64(v) > math.MaxUint32 { // negative ones too
		e.fail(field, fmt.Errorf("%w: %d is not in 0 to %d", ErrOutOfRange, v, uint32(math.MaxUint32)))
		return
	}
	e.buf = binary.LittleEndian.AppendUint32(e.buf, uint32(v))
}

func (e *encoder) f32(v float32) {
	e.buf = binary.LittleEndian.AppendUint32(e.buf, math.Float32bits(v))
}

func (e *encoder) text(field, s string) {
	if !utf8.ValidString(s) {
		e.fail(field, notUTF8(s))
	}
	appendPart(e, field, s)
}

func (e *encoder) vector(field string, v []float32) {
	e.int(field, 4*len(v))
	buf := e.buf // a local stays in registers: the loop is four times faster
	for _, x := range v {
		buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(x))
	}
	e.buf = buf
}

func (e *encoder) ef(field string, ef int) {
	e.bool(ef != 0)
	if ef != 0 {
		e.int(field, ef)
	}
}

func appendPart[S string | []byte](e *encoder, field string, s S) {
	if e.int(field, len(s)); e.err == nil {
		e.buf = append(e.buf, s...)
	}
}

// A decoder reads payload up to what can't be decoded; err is the first such error. From there on it reads zeros, so it
// needs no check after each field.
type decoder struct {
	payload []byte
	off     int // of what is read next
	err     *CodecError
}

func (d *decoder) fail(field string, off int, err error) {
	if d.err == nil {
		d.err = &CodecError{field, off, err}
	}
}

func (d *decoder) end() error {
	if left := len(d.payload) - d.off; left > 0 {
		d.fail("End", d.off, fmt.Errorf("%w: %d", ErrTrailing, left))
	}
	if d.err != nil {
		return d.err
	}
	return nil
}

// take returns the next n bytes of the payload itself, or nil after an error.
func (d *decoder) take(field string, n uint32) []byte {
	left := len(d.payload) - d.off
	if uint64(n) > uint64(left) {
		d.fail(field, d.off, fmt.Errorf("%w: %d bytes wanted, %d left", ErrTruncated, n, left))
	}
	if d.err != nil {
		return nil
	}
	b := d.payload[d.off:][:n]
	d.off += len(b)
	return b
}

func (d *decoder) header(magic string) {
	if m := d.take("Magic", uint32(len(magic))); string(m) != magic {
		d.fail("Magic", 0, fmt.Errorf("%w: %q, not %q", ErrBadMagic, m, magic))
	}
	if flags := d.u16("Flags"); flags != 0 {
		d.fail("Flags", d.off-2, fmt.Errorf("%w: %#04x", ErrBadFlags, flags))
	}
}

func (d *decoder) u8(field string) byte {
	if b := d.take(field, 1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16(field string) uint16 {
	if b := d.take(field, 2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32(field string) uint32 {
	if b := d.take(field, 4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) f32(field string) float32 { return math.Float32frombits(d.u32(field)) }

func (d *decoder) bool(field string) bool {
	v := d.u8(field)
	if v > 1 {
		d.fail(field, d.off-1, fmt.Errorf("%w: %d", ErrBadBool, v))
	}
	return v == 1
}

func (d *decoder) int(field string) int {
	v := d.u32(field)
	if uint64(v) > math.MaxInt { // only where an int has 32 bits
		d.fail(field, d.off-4, fmt.Errorf("%w: %d is above %d", ErrOutOfRange, v, math.MaxInt))
	}
	return int(v)
}

// hitCount reads a count of hits, for which there is room in the rest of the payload.
func (d *decoder) hitCount(field string) int {
	n := d.u32(field)
	if left := len(d.payload) - d.off; uint64(n) > uint64(left/minHitSize) {
		d.fail(field, d.off-4, fmt.Errorf("%w: %d hits in %d bytes", ErrTruncated, n, left))
		return 0
	}
	return int(n)
}

// part reads a length, then returns as many bytes of the payload itself.
func (d *decoder) part(field string) []byte { return d.take(field, d.u32(field)) }

// text is a part that is valid UTF-8.
func (d *decoder) text(field string) []byte {
	b := d.part(field)
	if !utf8.Valid(b) {
		d.fail(field, d.off-len(b), notUTF8(b))
	}
	return b
}

func (d *decoder) vector(field string) []float32 {
	b := d.part(field)
	if len(b)%4 != 0 {
		d.fail(field, d.off-len(b), fmt.Errorf("%w: %d", ErrVectorLength, len(b)))
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

// notUTF8 quotes the beginning of s: an error is no place for a megabyte of it.
func notUTF8[S string | []byte](s S) error { return fmt.Errorf("%w: %.60q", ErrNotUTF8, s) }
