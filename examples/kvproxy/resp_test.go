package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// readAll reads a reply and fails if there is more.
func readAll(t testing.TB, b []byte) any {
	t.Helper()
	reply, rest := readReply(t, b)
	require.Empty(t, rest)
	return reply
}

// readReply takes a reply off the front of b: a string, int64, float64, error, []any,
// map[string]any or nil.
func readReply(t testing.TB, b []byte) (reply any, rest []byte) {
	t.Helper()
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	require.True(t, ok && len(line) > 0, "no reply: %q", b)
	number := func() int {
		n, err := strconv.Atoi(string(line[1:]))
		require.NoError(t, err)
		return n
	}
	elements := func(n int) []any {
		list := []any{}
		for range n {
			var element any
			element, rest = readReply(t, rest)
			list = append(list, element)
		}
		return list
	}
	switch line[0] {
	case '+':
		return string(line[1:]), rest
	case '-':
		return errors.New(string(line[1:])), rest
	case ':':
		return int64(number()), rest
	case ',':
		f, err := strconv.ParseFloat(string(line[1:]), 64)
		require.NoError(t, err)
		return f, rest
	case '_':
		return nil, rest
	case '$':
		n := number()
		if n < 0 {
			return nil, rest
		}
		require.True(t, len(rest) >= n+2 && string(rest[n:n+2]) == "\r\n", "%q ends early: %q", line, rest)
		return string(rest[:n]), rest[n+2:]
	case '*', '~':
		return elements(number()), rest
	case '%':
		list := elements(2 * number())
		m := mapped(list)
		require.Len(t, m, len(list)/2, "a key is in a map twice")
		return m, rest
	}
	require.Fail(t, "unknown reply", "%q", line)
	return nil, nil
}

// mapped makes a map of keys and values that take turns.
func mapped(list []any) map[string]any {
	m := make(map[string]any)
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i].(string)] = list[i+1]
	}
	return m
}

func TestAppendReply(t *testing.T) {
	for _, test := range []struct {
		reply      any
		two, three string // if three is empty, they are the same
	}{
		{replyOK, "+OK\r\n", ""},
		{[]byte("a\r\nb"), "$4\r\na\r\nb\r\n", ""},
		{[]byte(nil), "$0\r\n\r\n", ""},
		{"é", "$2\r\né\r\n", ""},
		{int64(math.MinInt64), ":-9223372036854775808\r\n", ""},
		{7, ":7\r\n", ""},
		{1.5, "$3\r\n1.5\r\n", ",1.5\r\n"},
		{nil, "$-1\r\n", "_\r\n"},
		{[]any{1, []any{"a"}}, "*2\r\n:1\r\n*1\r\n$1\r\na\r\n", ""},
		{[]any(nil), "*0\r\n", ""},
		{pairs{"a", nil, "b", 1}, "*4\r\n$1\r\na\r\n$-1\r\n$1\r\nb\r\n:1\r\n", "%2\r\n$1\r\na\r\n_\r\n$1\r\nb\r\n:1\r\n"},
		{set{"a"}, "*1\r\n$1\r\na\r\n", "~1\r\n$1\r\na\r\n"},
		{errWrongType, "-" + string(errWrongType) + "\r\n", ""},
		{errors.New("a\r\n+OK\r\n"), "-ERR a  +OK  \r\n", ""},
		{errors.New("NOQUORUM a"), "-NOQUORUM a\r\n", ""},
		{errors.New(" a"), "-ERR  a\r\n", ""},
		{fmt.Errorf("read: %w", errIndexExists), "-read: Index already exists\r\n", ""},
	} {
		if test.three == "" {
			test.three = test.two
		}
		require.Equal(t, test.two, string(appendReply(nil, 2, test.reply)))
		require.Equal(t, test.three, string(appendReply(nil, 3, test.reply)))
	}
	require.Panics(t, func() { appendReply(nil, 2, struct{}{}) })
}

func TestErrors(t *testing.T) {
	require.EqualError(t, errUnknownCommand([]byte("FOO"), words("a b")),
		"ERR unknown command 'FOO', with args beginning with: 'a' 'b' ")
	long := bytes.Repeat([]byte("x"), 1<<20)
	require.Less(t, len(errUnknownCommand(long, [][]byte{long[:100], long, long}).Error()), 400)
}

// The first ones are of RediSearch's own tests, the others are what C's printf makes of them.
func TestFormatDistance(t *testing.T) {
	for want, score := range map[string]float64{
		"3.09485009821e+26": 0x1p88, "2.02824096037e+31": 0x1p104, "1.32922799578e+36": 0x1p120,
		"0": 0, "1": 1, "-2": -2, "16777216": 1 << 24, "4611686018427387904": 1 << 62, "9.22337203685e+18": 1 << 63,
		"0.5": 0.5, "0.10000000149": 0.1, "9.99999974738e-06": 1e-5, "9.99999974738e-05": 1e-4, "123456.789062": 123456.789,
		"nan": math.NaN(), "inf": math.Inf(1), "-inf": math.Inf(-1),
	} {
		require.Equal(t, want, formatDistance(float32(score)))
	}
	require.Equal(t, "0", formatDistance(float32(math.Copysign(0, -1))))
}

func TestSearchReply(t *testing.T) {
	first := map[string]any{"dist": "0.25", "title": "any\r\nbytes \xff", "body": ""}
	for options, fields := range map[string][]any{ // of each document
		"":          {first, map[string]any{"dist": "1", "body": "kept"}, nil},
		"NOCONTENT": nil,
		"RETURN 0":  nil,
		"RETURN 3 title b dist": {map[string]any{"title": "any\r\nbytes \xff", "b": "", "dist": "0.25"},
			map[string]any{"dist": "1", "b": "kept"}, nil},
		"RETURN 6 dist AS d body AS text": {map[string]any{"d": "0.25", "text": ""},
			map[string]any{"d": "1", "text": "kept"}, nil},
		"RETURN 1 none": {map[string]any{}, map[string]any{}, nil},
	} {
		_, schemaOf := testSchema(t)
		q, err := parseSearch(searchArgs("*=>[KNN 10 @v $B AS dist]", "PARAMS 2 B VECTOR "+options), schemaOf)
		require.NoError(t, err)
		page := []row{
			{id: "doc:1", score: 0.25, doc: hash("title", "any\r\nbytes \xff", "body", "", "dist", "a field of that name")},
			{id: "doc:2", score: 1, doc: hash("body", "kept")},
			{id: "3", score: 2},
		}
		two, three := []any{int64(7)}, []any{}
		for i, r := range page {
			document := map[string]any{"id": r.id, "values": []any{}}
			two = append(two, r.id)
			if fields != nil {
				document["extra_attributes"] = fields[i]
				two = append(two, fields[i])
			}
			three = append(three, document)
		}
		got := readAll(t, appendReply(nil, 2, q.reply(2, 7, page, []string{"not for RESP2"}))).([]any)
		for i := range got {
			if list, ok := got[i].([]any); ok {
				got[i] = mapped(list)
			}
		}
		require.Equal(t, two, got, options)
		require.Equal(t, map[string]any{"attributes": []any{}, "format": "STRING", "results": three,
			"total_results": int64(7), "warning": []any{"some is missing"},
		}, readAll(t, appendReply(nil, 3, q.reply(3, 7, page, []string{"some is missing"}))), options)
	}
}
