package scatter

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
)

// Cursor is a place in the ranking of all hits: [Response].Next names the place after which the
// next page begins, and [Request].After asks for what follows it. The empty Cursor is the
// beginning.
//
// A Cursor is opaque, but neither secret nor signed: it holds the score and the ID of a hit, in
// URL-safe text. It may be used by another process and by another version of this package.
type Cursor string

// CursorError is returned when a Cursor can't be used. No probe has run then.
type CursorError struct {
	Cursor Cursor
	Reason string
}

// Error names the cursor, or the beginning of a long one.
func (e *CursorError) Error() string {
	return fmt.Sprintf("scatter: cursor %.60q: %s", string(e.Cursor), e.Reason)
}

// A cursor is base64 of: a version, the order, the kind of ID, then, unless the kind is
// cursorStart, the bits of the score (4 bytes) and the ID (8 bytes, or the bytes of a string).
// Numbers are big-endian.
const (
	cursorVersion = 1
	cursorHeader  = 3
)

// The kinds of ID in a cursor. Their numbers must not change.
const (
	cursorStart  = 0 // the beginning: there is no hit
	cursorString = 1
	cursorInt    = 2
	cursorUint   = 3
	cursorFloat  = 4
)

// newCursor returns the cursor of a hit. It makes one allocation, as each Response has a cursor.
func newCursor[ID cmp.Ordered](h Hit[ID], order Order) Cursor {
	var raw, text [64]byte // room for most
	b := append(raw[:0], cursorVersion, byte(order), cursorKind[ID]())
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(h.Score))
	switch id := any(h.ID).(type) {
	case string:
		b = append(b, id...)
	case int:
		b = binary.BigEndian.AppendUint64(b, uint64(id))
	case uint64:
		b = binary.BigEndian.AppendUint64(b, id)
	default:
		b = appendID(b, reflect.ValueOf(id))
	}
	return Cursor(base64.RawURLEncoding.AppendEncode(text[:0], b))
}

func appendID(b []byte, id reflect.Value) []byte {
	switch b[2] {
	case cursorString:
		return append(b, id.String()...)
	case cursorInt:
		return binary.BigEndian.AppendUint64(b, uint64(id.Int()))
	case cursorFloat:
		return binary.BigEndian.AppendUint64(b, math.Float64bits(id.Float()))
	}
	return binary.BigEndian.AppendUint64(b, id.Uint())
}

// startCursor returns the cursor of the beginning, for an answer of which nothing is certain: the
// empty one would mean that nothing follows.
func startCursor(order Order) Cursor {
	return Cursor(base64.RawURLEncoding.EncodeToString([]byte{cursorVersion, byte(order), cursorStart}))
}

// cursorKind returns the kind of a type of ID.
func cursorKind[ID cmp.Ordered]() byte {
	switch reflect.TypeFor[ID]().Kind() {
	case reflect.String:
		return cursorString
	case reflect.Float32, reflect.Float64:
		return cursorFloat
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return cursorInt
	}
	return cursorUint
}

// AfterHit decodes a cursor: it sets hit to the score and the ID of the hit that the cursor names,
// so that a [Probe] can ask its index for what follows. A probe may instead ask its index for more
// hits than Request.K, as those at or before [Request].After are dropped anyway. It must do one of
// the two: if all that it sends is dropped, paging comes to a halt. An error is a [*CursorError],
// and hit is as it was.
func AfterHit[ID cmp.Ordered](cursor Cursor, hit *Hit[ID]) error {
	decoded, _, start, err := decodeCursor[ID](cursor)
	if err != nil {
		return err
	}
	if start {
		return &CursorError{cursor, "names no hit"}
	}
	*hit = decoded
	return nil
}

// decodeCursor returns the hit that a cursor names, and its order; start means that it names none.
func decodeCursor[ID cmp.Ordered](cursor Cursor) (h Hit[ID], order Order, start bool, err error) {
	b, failure := base64.RawURLEncoding.Strict().DecodeString(string(cursor))
	fail := func(format string, args ...any) (Hit[ID], Order, bool, error) {
		return Hit[ID]{}, 0, false, &CursorError{cursor, fmt.Sprintf(format, args...)}
	}
	switch {
	case failure != nil, len(b) < cursorHeader, b[0] == 0,
		strings.ContainsAny(string(cursor), "\r\n"): // package base64 skips them
		return fail("is not one of this package")
	case b[0] != cursorVersion:
		return fail("is of version %d, this package knows version %d", b[0], cursorVersion)
	case !Order(b[1]).valid():
		return fail("has the unknown %v", Order(b[1]))
	}
	order = Order(b[1])
	kind, rest := b[2], b[cursorHeader:]
	if kind == cursorStart {
		if len(rest) > 0 {
			return fail("has %d bytes too many", len(rest))
		}
		return h, order, true, nil
	}
	id := reflect.ValueOf(&h.ID).Elem()
	switch {
	case kind > cursorFloat:
		return fail("has an unknown kind of ID")
	case kind != cursorKind[ID]():
		return fail("has another kind of ID than %v", id.Type())
	case kind == cursorString && len(rest) < 4, kind != cursorString && len(rest) != 12:
		return fail("has %d bytes for a hit", len(rest))
	}
	h.Score, rest = math.Float32frombits(binary.BigEndian.Uint32(rest)), rest[4:]
	if kind == cursorString {
		id.SetString(string(rest))
		return h, order, false, nil
	}
	v, fits := binary.BigEndian.Uint64(rest), true
	switch kind {
	case cursorInt:
		if fits = !id.OverflowInt(int64(v)); fits {
			id.SetInt(int64(v))
		}
	case cursorUint:
		if fits = !id.OverflowUint(v); fits {
			id.SetUint(v)
		}
	case cursorFloat:
		f := math.Float64frombits(v)
		if fits = !id.OverflowFloat(f); fits {
			id.SetFloat(f)
		}
	}
	if !fits {
		return fail("has an ID that is too large for %v", id.Type())
	}
	return h, order, false, nil
}
