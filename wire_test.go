package scatter

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	_ encoding.BinaryMarshaler   = (*Request)(nil)
	_ encoding.BinaryAppender    = (*Request)(nil)
	_ encoding.BinaryUnmarshaler = (*Request)(nil)
	_ encoding.BinaryMarshaler   = (*Reply)(nil)
	_ encoding.BinaryAppender    = (*Reply)(nil)
	_ encoding.BinaryUnmarshaler = (*Reply)(nil)
)

// The payloads of the next two tables are written by hand from the layout, as Dynomite peers send
// them.
var goldenRequests = []struct {
	name    string
	request Request
	payload string
}{
	{
		"KNN with EF",
		Request{Table: "ix", Query: KNN{Field: "v", Vector: []float32{1, -2.5}, EF: 64}, K: 5},
		"FTQ1" + "\x00\x00" + "\x05\x00\x00\x00" +
			"\x02\x00\x00\x00" + "ix" +
			"\x00" +
			"\x01\x00\x00\x00" + "v" +
			"\x08\x00\x00\x00" + "\x00\x00\x80\x3f" + "\x00\x00\x20\xc0" +
			"\x01" + "\x40\x00\x00\x00",
	},
	{
		"KNN without EF",
		Request{Table: "ix", Query: KNN{Field: "v", Vector: []float32{math.Float32frombits(0x03020100)}}, K: 5},
		"FTQ1" + "\x00\x00" + "\x05\x00\x00\x00" +
			"\x02\x00\x00\x00" + "ix" +
			"\x00" +
			"\x01\x00\x00\x00" + "v" +
			"\x04\x00\x00\x00" + "\x00\x01\x02\x03" +
			"\x00",
	},
	{
		"KNN of nothing",
		Request{Table: "", Query: KNN{}, K: 0},
		"FTQ1" + "\x00\x00" + "\x00\x00\x00\x00" +
			"\x00\x00\x00\x00" +
			"\x00" +
			"\x00\x00\x00\x00" +
			"\x00\x00\x00\x00" +
			"\x00",
	},
	{
		"Text",
		Request{Table: "idx", Query: Text{Field: "body", Substring: []byte("foo bar")}, K: 3},
		"FTQ1" + "\x00\x00" + "\x03\x00\x00\x00" +
			"\x03\x00\x00\x00" + "idx" +
			"\x01" +
			"\x04\x00\x00\x00" + "body" +
			"\x07\x00\x00\x00" + "foo bar",
	},
	{
		"Text of bytes that are no text",
		Request{Table: "idx", Query: Text{Field: "body", Substring: []byte{0xff, 0x00, 0xfe}}, K: 0x01020304},
		"FTQ1" + "\x00\x00" + "\x04\x03\x02\x01" +
			"\x03\x00\x00\x00" + "idx" +
			"\x01" +
			"\x04\x00\x00\x00" + "body" +
			"\x03\x00\x00\x00" + "\xff\x00\xfe",
	},
	{
		"Regex",
		Request{Table: "idx", Query: Regex{Field: "körper", Pattern: "ab.*c", MaxErrors: 0x0102}, K: 7},
		"FTQ1" + "\x00\x00" + "\x07\x00\x00\x00" +
			"\x03\x00\x00\x00" + "idx" +
			"\x02" +
			"\x07\x00\x00\x00" + "k\xc3\xb6rper" +
			"\x05\x00\x00\x00" + "ab.*c" +
			"\x02\x01",
	},
}

var goldenReplies = []struct {
	name    string
	reply   Reply
	payload string
}{
	{
		"two hits",
		Reply{Hits: []Hit[string]{{"a", 0.5}, {"longer:döc:id", -2.5}}},
		"FTR1" + "\x00\x00" + "\x00" + "\x02\x00\x00\x00" +
			"\x01\x00\x00\x00" + "a" + "\x00\x00\x00\x3f" +
			"\x0e\x00\x00\x00" + "longer:d\xc3\xb6c:id" + "\x00\x00\x20\xc0",
	},
	{
		"an empty ID and infinity, timed out",
		Reply{Hits: []Hit[string]{{"", float32(math.Inf(1))}}, TimedOut: true},
		"FTR1" + "\x00\x00" + "\x01" + "\x01\x00\x00\x00" +
			"\x00\x00\x00\x00" + "\x00\x00\x80\x7f",
	},
	{
		"IDs that are no text",
		Reply{Hits: []Hit[string]{{"\xff\x00", 1}, {"\xed\xa0\x80", -1}}},
		"FTR1" + "\x00\x00" + "\x00" + "\x02\x00\x00\x00" +
			"\x02\x00\x00\x00" + "\xff\x00" + "\x00\x00\x80\x3f" +
			"\x03\x00\x00\x00" + "\xed\xa0\x80" + "\x00\x00\x80\xbf",
	},
	{"no hits", Reply{}, "FTR1" + "\x00\x00" + "\x00" + "\x00\x00\x00\x00"},
	{"timed out without a hit", Reply{TimedOut: true}, "FTR1" + "\x00\x00" + "\x01" + "\x00\x00\x00\x00"},
}

func TestRequestGolden(t *testing.T) {
	for _, tt := range goldenRequests {
		t.Run(tt.name, func(t *testing.T) {
			payload, err := tt.request.MarshalBinary()
			require.NoError(t, err)
			assert.Equal(t, tt.payload, string(payload))

			got := Request{Table: "old", Query: Text{"old", []byte("old")}, K: 99}
			require.NoError(t, got.UnmarshalBinary([]byte(tt.payload)))
			assert.Equal(t, tt.request, got)
		})
	}
}

func TestReplyGolden(t *testing.T) {
	for _, tt := range goldenReplies {
		t.Run(tt.name, func(t *testing.T) {
			payload, err := tt.reply.MarshalBinary()
			require.NoError(t, err)
			assert.Equal(t, tt.payload, string(payload))

			got := Reply{[]Hit[string]{{"old", 1}}, !tt.reply.TimedOut}
			require.NoError(t, got.UnmarshalBinary([]byte(tt.payload)))
			assert.Equal(t, tt.reply, got)
		})
	}
}

func TestRequestMarshalTakesPointersToQueries(t *testing.T) {
	knn, text, regex := KNN{"v", []float32{1}, 2, ScoreAscending}, Text{"f", []byte("s")}, Regex{"f", "p", 1}
	for _, tt := range []struct{ value, pointer Query }{{knn, &knn}, {text, &text}, {regex, &regex}} {
		want, err := (&Request{Table: "t", Query: tt.value, K: 1}).MarshalBinary()
		require.NoError(t, err)
		got, err := (&Request{Table: "t", Query: tt.pointer, K: 1}).MarshalBinary()
		require.NoError(t, err)
		assert.Equal(t, want, got)

		var back Request
		require.NoError(t, back.UnmarshalBinary(got))
		assert.Equal(t, tt.value, back.Query, "decoded to a value")
	}
}

// On the wire, empty and nil are the same. Both are decoded to nil.
func TestUnmarshalEmptyIsNil(t *testing.T) {
	for _, query := range []Query{KNN{Field: "v", Vector: []float32{}}, Text{Field: "f", Substring: []byte{}}} {
		payload, err := (&Request{Table: "t", Query: query, K: 1}).MarshalBinary()
		require.NoError(t, err)
		var r Request
		require.NoError(t, r.UnmarshalBinary(payload))
		switch q := r.Query.(type) {
		case KNN:
			assert.Nil(t, q.Vector)
		case Text:
			assert.Nil(t, q.Substring)
		}
	}
	payload, err := (&Reply{Hits: []Hit[string]{}}).MarshalBinary()
	require.NoError(t, err)
	r := Reply{Hits: []Hit[string]{{"old", 1}}}
	require.NoError(t, r.UnmarshalBinary(payload))
	assert.Nil(t, r.Hits)
}

// An ef that is present and 0 is decoded to 0, and is left out when the request is encoded again.
func TestRequestUnmarshalEFPresentButZero(t *testing.T) {
	absent := goldenRequests[1].payload
	present := absent[:len(absent)-1] + "\x01" + "\x00\x00\x00\x00"
	var got Request
	require.NoError(t, got.UnmarshalBinary([]byte(present)))
	assert.Equal(t, goldenRequests[1].request, got)

	again, err := got.MarshalBinary()
	require.NoError(t, err)
	assert.Equal(t, absent, string(again))
}

func TestAppendBinaryKeepsWhatStands(t *testing.T) {
	// An encoder fills room that it was given, so whatever stood there must be overwritten.
	dst := append([]byte("before "), strings.Repeat("\xff", 200)...)[:len("before ")]
	for _, tt := range goldenRequests {
		for _, dst := range [][]byte{[]byte("before "), dst} {
			got, err := tt.request.AppendBinary(dst)
			require.NoError(t, err)
			assert.Equal(t, "before "+tt.payload, string(got))
		}
	}
	for _, tt := range goldenReplies {
		for _, dst := range [][]byte{[]byte("before "), dst} {
			got, err := tt.reply.AppendBinary(dst)
			require.NoError(t, err)
			assert.Equal(t, "before "+tt.payload, string(got))
		}
	}
	got, err := (&Request{Query: KNN{}, K: -1}).AppendBinary(dst)
	require.Error(t, err)
	assert.Equal(t, dst, got)
}

// A decoded value doesn't change when the buffer of the payload is used again.
func TestUnmarshalKeepsNothingOfThePayload(t *testing.T) {
	for _, tt := range goldenRequests {
		buf, got := []byte(tt.payload), Request{}
		require.NoError(t, got.UnmarshalBinary(buf))
		clear(buf)
		assert.Equal(t, tt.request, got)
	}
	for _, tt := range goldenReplies {
		buf, got := []byte(tt.payload), Reply{}
		require.NoError(t, got.UnmarshalBinary(buf))
		clear(buf)
		assert.Equal(t, tt.reply, got)
	}
}

// wantCodecError fails t unless err is a CodecError of that content.
func wantCodecError(t *testing.T, err error, field string, offset int, reason error) {
	t.Helper()
	var e *CodecError
	require.ErrorAs(t, err, &e)
	assert.ErrorIs(t, err, reason)
	assert.Equal(t, field, e.Field)
	assert.Equal(t, offset, e.Offset)
}

func TestUnmarshalErrors(t *testing.T) {
	request, reply := new(Request).UnmarshalBinary, new(Reply).UnmarshalBinary
	knn, text, regex := goldenRequests[0].payload, goldenRequests[3].payload, goldenRequests[5].payload
	hits := goldenReplies[0].payload
	tests := []struct {
		name    string
		decode  func([]byte) error
		payload string
		at      int // replace bytes from here, or append at the end
		bytes   string
		field   string
		offset  int
		reason  error
	}{
		{"magic of a reply", request, knn, 0, "FTR1", "Magic", 0, ErrMalformed},
		{"lower case magic", request, knn, 0, "ftq1", "Magic", 0, ErrMalformed},
		{"low flag", request, knn, 4, "\x01", "Flags", 4, ErrMalformed},
		{"high flag", request, knn, 5, "\x80", "Flags", 4, ErrMalformed},
		{"table not UTF-8", request, knn, 15, "\xff", "Table", 14, ErrMalformed},
		{"table longer than the rest", request, knn, 10, "\x80", "Table", 14, ErrTruncated},
		{"table longer than any", request, knn, 10, "\xff\xff\xff\xff", "Table", 14, ErrTruncated},
		{"tag 3", request, knn, 16, "\x03", "Query", 16, ErrMalformed},
		{"tag 255", request, text, 17, "\xff", "Query", 17, ErrMalformed},
		{"KNN field not UTF-8", request, knn, 21, "\xc3", "Query.Field", 21, ErrMalformed},
		{"vector of 7 bytes", request, knn, 22, "\x07", "Query.Vector", 26, ErrMalformed},
		{"vector of 6 bytes", request, knn, 22, "\x06", "Query.Vector", 26, ErrMalformed},
		{"vector of 1 byte", request, knn, 22, "\x01", "Query.Vector", 26, ErrMalformed},
		{"vector longer than the rest", request, knn, 22, "\x10", "Query.Vector", 26, ErrTruncated},
		{"EF neither absent nor present", request, knn, 34, "\x02", "Query.EF", 34, ErrMalformed},
		{"EF absent, yet there", request, knn, 34, "\x00", "End", 35, ErrMalformed},
		{"a byte after a KNN", request, knn, 39, "\x00", "End", 39, ErrMalformed},
		{"text field not UTF-8", request, text, 22, "\xff", "Query.Field", 22, ErrMalformed},
		{"bytes after a text", request, text, 37, "more", "End", 37, ErrMalformed},
		{"regex field not UTF-8", request, regex, 24, "\xc3", "Query.Field", 22, ErrMalformed},
		{"pattern not UTF-8", request, regex, 35, "\xed\xa0\x80", "Query.Pattern", 33, ErrMalformed},
		{"a byte after a regex", request, regex, 40, "\x00", "End", 40, ErrMalformed},

		{"magic of a request", reply, hits, 0, "FTQ1", "Magic", 0, ErrMalformed},
		{"flag of a reply", reply, hits, 4, "\x02", "Flags", 4, ErrMalformed},
		{"neither timed out nor not", reply, hits, 6, "\x02", "TimedOut", 6, ErrMalformed},
		{"more hits than fit", reply, hits, 7, "\x04", "Hits", 7, ErrTruncated},
		{"more hits than any", reply, hits, 7, "\xff\xff\xff\xff", "Hits", 7, ErrTruncated},
		{"a hit more than there is", reply, hits, 7, "\x03", "Hits[2].ID", 42, ErrTruncated},
		{"a hit fewer than there is", reply, hits, 7, "\x01", "End", 20, ErrMalformed},
		{"ID longer than the rest", reply, hits, 11, "\x20", "Hits[0].ID", 15, ErrTruncated},
		{"ID that leaves no score", reply, hits, 20, "\x10", "Hits[1].Score", 40, ErrTruncated},
		{"a byte after a reply", reply, hits, 42, "\x00", "End", 42, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			payload := []byte(tt.payload[:tt.at] + tt.bytes + tt.payload[min(len(tt.payload), tt.at+len(tt.bytes)):])
			wantCodecError(t, tt.decode(payload), tt.field, tt.offset, tt.reason)
		})
	}
}

// A payload cut short anywhere is truncated. Decoding it leaves the receiver as it was.
func TestUnmarshalTruncated(t *testing.T) {
	for _, tt := range goldenRequests {
		for n := range len(tt.payload) {
			r := Request{Table: "old", Query: Text{"old", []byte("old")}, K: 99}
			err := r.UnmarshalBinary([]byte(tt.payload[:n]))
			require.ErrorIs(t, err, ErrTruncated, "%s, cut to %d bytes", tt.name, n)
			require.Equal(t, Request{Table: "old", Query: Text{"old", []byte("old")}, K: 99}, r)
		}
	}
	for _, tt := range goldenReplies {
		for n := range len(tt.payload) {
			r := Reply{[]Hit[string]{{"old", 1}}, true}
			err := r.UnmarshalBinary([]byte(tt.payload[:n]))
			require.ErrorIs(t, err, ErrTruncated, "%s, cut to %d bytes", tt.name, n)
			require.Equal(t, Reply{[]Hit[string]{{"old", 1}}, true}, r)
		}
	}
}

func TestCodecErrorSaysWhatAndWhere(t *testing.T) {
	payload := goldenRequests[0].payload
	err := new(Request).UnmarshalBinary([]byte(payload[:20]))
	assert.EqualError(t, err, "scatter: decode Query.Field at byte 17: payload too short: 4 bytes wanted, 3 left")

	err = new(Request).UnmarshalBinary([]byte("FTR1" + payload[4:]))
	assert.EqualError(t, err, `scatter: decode Magic at byte 0: malformed payload: magic "FTR1", want "FTQ1"`)

	err = new(Reply).UnmarshalBinary([]byte("FTR1\x00\x00\x00\xff\xff\xff\xff"))
	assert.EqualError(t, err, "scatter: decode Hits at byte 7: payload too short: 4294967295 hits in 0 bytes")

	_, err = (&Request{Table: "t", Query: KNN{}, K: -1}).MarshalBinary()
	assert.EqualError(t, err, "scatter: encode K: not encodable: -1 is not in 0 to 4294967295")

	_, err = (&Request{Table: "t", K: 1}).MarshalBinary()
	assert.EqualError(t, err, "scatter: encode Query: not encodable: <nil>")

	_, err = (&Request{Table: "t", Query: (*KNN)(nil), K: 1}).MarshalBinary()
	assert.EqualError(t, err, "scatter: encode Query: not encodable: nil *scatter.KNN")

	long := strings.Repeat("x", 1000) + "\xff"
	_, err = (&Request{Table: long, Query: KNN{}, K: 1}).MarshalBinary()
	assert.EqualError(t, err, `scatter: encode Table: not encodable: not UTF-8: "`+long[:60]+`"`)
}

// filteredKNN is a caller's own query. It has the methods of the KNN that it embeds, but if it were
// encoded as a KNN, its filter would be lost.
type filteredKNN struct {
	KNN
	Filter string
}

// newTestTooMuch returns 1<<32. Where an int has 32 bits, nothing is too much, and it returns 0.
func newTestTooMuch() int {
	n := uint64(1 << 32)
	return int(n)
}

func TestMarshalErrors(t *testing.T) {
	tooMuch := newTestTooMuch()
	tests := []struct {
		name   string
		value  encoding.BinaryMarshaler
		field  string
		reason error
	}{
		{"no query", &Request{}, "Query", ErrNotEncodable},
		{"nil KNN", &Request{Query: (*KNN)(nil)}, "Query", ErrNotEncodable},
		{"nil Text", &Request{Query: (*Text)(nil)}, "Query", ErrNotEncodable},
		{"nil Regex", &Request{Query: (*Regex)(nil)}, "Query", ErrNotEncodable},
		{"the caller's own query", &Request{Query: filteredKNN{}}, "Query", ErrNotEncodable},
		{"a pointer to the caller's own query", &Request{Query: &filteredKNN{}}, "Query", ErrNotEncodable},
		{"negative K", &Request{Query: Text{}, K: -1}, "K", ErrNotEncodable},
		{"most negative K", &Request{Query: Text{}, K: math.MinInt}, "K", ErrNotEncodable},
		{"K over 32 bits", &Request{Query: Text{}, K: tooMuch}, "K", ErrNotEncodable},
		{"a page", &Request{Query: Text{}, After: startCursor(IDAscending)}, "After", ErrNotEncodable}, // Rule 46
		{"negative EF", &Request{Query: KNN{EF: -1}}, "Query.EF", ErrNotEncodable},
		{"EF over 32 bits", &Request{Query: KNN{EF: tooMuch}}, "Query.EF", ErrNotEncodable},
		{"similarities", &Request{Query: KNN{Ranking: ScoreDescending}}, "Query.Ranking", ErrNotEncodable},
		{"KNN ranked by ID", &Request{Query: &KNN{Ranking: IDAscending}}, "Query.Ranking", ErrNotEncodable},
		{"table not UTF-8", &Request{Table: "\xff", Query: Text{}}, "Table", ErrNotEncodable},
		{"KNN field not UTF-8", &Request{Query: KNN{Field: "\xff"}}, "Query.Field", ErrNotEncodable},
		{"text field not UTF-8", &Request{Query: Text{Field: "\xff"}}, "Query.Field", ErrNotEncodable},
		{"regex field not UTF-8", &Request{Query: Regex{Field: "\xff"}}, "Query.Field", ErrNotEncodable},
		{"pattern not UTF-8", &Request{Query: Regex{Pattern: "\xff"}}, "Query.Pattern", ErrNotEncodable},
		{"the first of several", &Request{Table: "\xff", Query: KNN{EF: -1}, K: -1}, "K", ErrNotEncodable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tooMuch == 0 && strings.Contains(tt.name, "over 32 bits") {
				t.Skip("an int has 32 bits")
			}
			payload, err := tt.value.MarshalBinary()
			assert.Nil(t, payload)
			wantCodecError(t, err, tt.field, -1, tt.reason)
		})
	}
}

// Rule 45: a probe may ignore Skip, so the format needs no place for it.
func TestMarshalLeavesOutSkip(t *testing.T) {
	req := Request{Table: "t", Query: Text{Field: "f"}, K: 5}
	want, err := req.MarshalBinary()
	require.NoError(t, err)
	req.Skip = 3
	got, err := req.MarshalBinary()
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

// A length over 32 bits is tested on the encoder itself, because a string of 4 GiB is too large
// for a test.
func TestEncoderLengthOver32Bits(t *testing.T) {
	if strconv.IntSize == 32 {
		t.Skip("an int has 32 bits")
	}
	var e encoder
	e.int("Table", newTestTooMuch()-1)
	assert.Nil(t, e.err)
	e.int("Table", newTestTooMuch())
	wantCodecError(t, e.err, "Table", -1, ErrNotEncodable)

	e = encoder{}
	e.part("ID", newTestTooMuch())
	e.err.inHit(3)
	wantCodecError(t, e.err, "Hits[3].ID", -1, ErrNotEncodable)
}

func TestUnmarshalKOver32BitInt(t *testing.T) {
	payload := []byte(goldenRequests[0].payload)
	copy(payload[6:], "\xff\xff\xff\xff")
	var r Request
	err := r.UnmarshalBinary(payload)
	if strconv.IntSize == 32 {
		wantCodecError(t, err, "K", 6, ErrMalformed)
		return
	}
	require.NoError(t, err)
	assert.EqualValues(t, uint32(math.MaxUint32), r.K)
}

func TestMarshalIsOneAllocation(t *testing.T) {
	var sink []byte
	one := testing.AllocsPerRun(10, func() { sink = slices.Grow([]byte(nil), 1000) }) // two under the race detector
	requests := []*Request{
		{Table: "table", Query: KNN{Field: "field", Vector: make([]float32, 1536), EF: 100}, K: 10},
		{Table: "table", Query: Text{Field: "field", Substring: make([]byte, 500)}, K: 10},
		{Table: "table", Query: Regex{Field: "field", Pattern: strings.Repeat("x", 500)}, K: 10},
	}
	for _, r := range requests {
		assert.Equal(t, one, testing.AllocsPerRun(10, func() { sink, _ = r.MarshalBinary() }), "%T", r.Query)
	}
	pointer := &Request{Table: "table", Query: &KNN{Field: "field", Vector: make([]float32, 1536)}, K: 10}
	assert.Equal(t, one+1, testing.AllocsPerRun(10, func() { sink, _ = pointer.MarshalBinary() }), "with a copy")
	reply := newTestReply(100)
	assert.Equal(t, one, testing.AllocsPerRun(10, func() { sink, _ = reply.MarshalBinary() }))
	assert.Zero(t, testing.AllocsPerRun(10, func() { _, _ = reply.AppendBinary(sink[:0]) }), "into a large buffer")
}

func TestReplyUnmarshalAllocatesTwice(t *testing.T) {
	payload, err := newTestReply(100).MarshalBinary()
	require.NoError(t, err)
	var r Reply
	assert.LessOrEqual(t, testing.AllocsPerRun(10, func() { _ = r.UnmarshalBinary(payload) }), 2.0)
}

func newTestReply(hits int) *Reply {
	r := &Reply{Hits: make([]Hit[string], hits)}
	for i := range r.Hits {
		r.Hits[i] = Hit[string]{fmt.Sprintf("document:%04d", i), float32(i)}
	}
	return r
}

// Whatever a payload claims, decoding it allocates at most five times its length, and a little
// for an error.
func TestUnmarshalMemoryIsBounded(t *testing.T) {
	const (
		head  = "FTQ1\x00\x00\x01\x00\x00\x00"
		none  = "\x00\x00\x00\x00"
		most  = "\xff\xff\xff\xff"
		knn   = head + none + "\x00" + none
		text  = head + none + "\x01" + none
		regex = head + none + "\x02" + none
	)
	megabyte := strings.Repeat("\x00", 1<<20)
	hits := func(n uint32) string { return "FTR1\x00\x00\x00" + string(binary.LittleEndian.AppendUint32(nil, n)) }
	request, reply := new(Request).UnmarshalBinary, new(Reply).UnmarshalBinary
	tests := []struct {
		name    string
		decode  func([]byte) error
		payload string
	}{
		{"table", request, head + most},
		{"field", request, head + none + "\x00" + most},
		{"vector", request, knn + most},
		{"substring", request, text + most + megabyte},
		{"pattern", request, regex + most + megabyte},
		{"most hits, and none there", reply, hits(math.MaxUint32)},
		{"a hit more than fit", reply, hits(1<<17+1) + megabyte},
		{"an ID longer than the rest", reply, hits(1<<17) + most + megabyte},
		{"a true number of hits, all of 8 bytes", reply, hits(1<<17) + megabyte},
		{"a true vector", request, knn + "\x00\x00\x10\x00" + megabyte + "\x00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			payload := []byte(tt.payload)
			allocated := uint64(math.MaxUint64)
			for range 5 { // take the least: another goroutine may allocate as well
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_ = tt.decode(payload)
				runtime.ReadMemStats(&after)
				allocated = min(allocated, after.TotalAlloc-before.TotalAlloc)
			}
			assert.LessOrEqual(t, allocated, uint64(5*len(payload)+1024))
		})
	}
}

// newTestText returns a text of 0 to 19 letters of 1 to 4 bytes.
func newTestText(rng *rand.Rand) string {
	letters := make([]rune, rng.IntN(20))
	for i := range letters {
		letters[i] = []rune("a\x00é水🌊")[rng.IntN(5)]
	}
	return string(letters)
}

func TestRequestRoundTrips(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		want := Request{Table: newTestText(rng), K: rng.IntN(math.MaxInt32)}
		switch rng.IntN(3) {
		case 0:
			q := KNN{Field: newTestText(rng), EF: rng.IntN(3)}
			for range rng.IntN(20) {
				q.Vector = append(q.Vector, math.Float32frombits(rng.Uint32()))
			}
			want.Query = q
		case 1:
			want.Query = Text{Field: newTestText(rng), Substring: binary.LittleEndian.AppendUint64(nil, rng.Uint64())}
		case 2:
			want.Query = Regex{Field: newTestText(rng), Pattern: newTestText(rng), MaxErrors: uint16(rng.Uint32())}
		}
		payload, err := want.MarshalBinary()
		require.NoError(t, err)
		var got Request
		require.NoError(t, got.UnmarshalBinary(payload))
		require.Equal(t, requestBits(want), requestBits(got))
	}
}

func TestReplyRoundTrips(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		want := Reply{TimedOut: rng.IntN(2) == 1}
		for range rng.IntN(20) {
			id := strings.Repeat("\x00", rng.IntN(3)) + string(binary.LittleEndian.AppendUint32(nil, rng.Uint32()))
			want.Hits = append(want.Hits, Hit[string]{id[:rng.IntN(len(id)+1)], math.Float32frombits(rng.Uint32())})
		}
		payload, err := want.MarshalBinary()
		require.NoError(t, err)
		var got Reply
		require.NoError(t, got.UnmarshalBinary(payload))
		require.Equal(t, replyBits(want), replyBits(got))
	}
}

// Quiet and signalling NaNs and -0 are scores like any other.
func TestScoresTravelBitByBit(t *testing.T) {
	for _, bits := range []uint32{0, 1 << 31, 1, 0x7f800000, 0xff800000, 0x7f800001, 0x7fc00000, 0xffffffff} {
		payload, err := (&Reply{Hits: []Hit[string]{{"a", math.Float32frombits(bits)}}}).MarshalBinary()
		require.NoError(t, err)
		assert.Equal(t, bits, binary.LittleEndian.Uint32(payload[len(payload)-4:]))
		var got Reply
		require.NoError(t, got.UnmarshalBinary(payload))
		assert.Equal(t, bits, math.Float32bits(got.Hits[0].Score))
	}
}

// requestBits and replyBits return a value for require.Equal in which floats are compared by their
// bits, so that a NaN equals itself.
func requestBits(r Request) any {
	q, ok := r.Query.(KNN)
	if !ok {
		return r
	}
	var bits []uint32
	for _, x := range q.Vector {
		bits = append(bits, math.Float32bits(x))
	}
	q.Vector = nil
	r.Query = q
	return []any{r, bits}
}

func replyBits(r Reply) any {
	var hits []any
	for _, h := range r.Hits {
		hits = append(hits, h.ID, math.Float32bits(h.Score))
	}
	return []any{hits, r.TimedOut}
}

// wantKnownError fails t unless err is a CodecError with one of the reasons that decoders give, at
// an offset within the payload.
func wantKnownError(t *testing.T, err error, payload []byte) {
	t.Helper()
	var e *CodecError
	require.ErrorAs(t, err, &e)
	assert.NotEmpty(t, e.Field)
	assert.GreaterOrEqual(t, e.Offset, 0)
	assert.LessOrEqual(t, e.Offset, len(payload))
	truncated, malformed := errors.Is(err, ErrTruncated), errors.Is(err, ErrMalformed)
	assert.True(t, truncated != malformed, "exactly one reason: %v", err)
}

func FuzzRequestUnmarshal(f *testing.F) {
	for _, g := range goldenRequests {
		f.Add([]byte(g.payload))
		f.Add([]byte(g.payload[:len(g.payload)/2]))
	}
	f.Add([]byte(goldenRequests[0].payload[:35] + "\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var r Request
		if err := r.UnmarshalBinary(payload); err != nil {
			wantKnownError(t, err, payload)
			assert.Equal(t, Request{}, r, "changed in spite of an error")
			return
		}
		again, err := r.MarshalBinary()
		require.NoError(t, err)
		if q, ok := r.Query.(KNN); ok && q.EF == 0 && len(again) == len(payload)-4 {
			assert.Equal(t, payload, append(bytes.Clone(again[:len(again)-1]), 1, 0, 0, 0, 0))
		} else {
			assert.Equal(t, payload, again)
		}
		var back Request
		require.NoError(t, back.UnmarshalBinary(again))
		assert.Equal(t, requestBits(r), requestBits(back))
	})
}

func FuzzReplyUnmarshal(f *testing.F) {
	for _, g := range goldenReplies {
		f.Add([]byte(g.payload))
		f.Add([]byte(g.payload[:len(g.payload)/2]))
	}
	f.Add([]byte("FTR1\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var r Reply
		if err := r.UnmarshalBinary(payload); err != nil {
			wantKnownError(t, err, payload)
			assert.Equal(t, Reply{}, r, "changed in spite of an error")
			return
		}
		again, err := r.MarshalBinary()
		require.NoError(t, err)
		assert.Equal(t, payload, again)
		var back Reply
		require.NoError(t, back.UnmarshalBinary(again))
		assert.Equal(t, replyBits(r), replyBits(back))
	})
}
