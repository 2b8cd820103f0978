package scatter

import (
	"context"
	"encoding/base64"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Rule 46: a cursor names a hit of any kind of ID, exactly.
func TestCursorRoundTrip(t *testing.T) {
	testCursor(t, "")
	testCursor(t, "a\xff\x00")
	testCursor(t, PeerID("named"))
	testCursor(t, math.MinInt)
	testCursor(t, int8(-3))
	testCursor(t, uint64(math.MaxUint64))
	testCursor(t, uint16(7))
	testCursor(t, 1.5)
	testCursor(t, float32(-0.1))
}

func testCursor[ID string | PeerID | int | int8 | uint64 | uint16 | float64 | float32](t *testing.T, id ID) {
	t.Helper()
	for _, order := range []Order{ScoreAscending, ScoreDescending, IDAscending} {
		for _, score := range []float32{0, -1.5, float32(math.Inf(1)), float32(math.NaN())} {
			cursor := newCursor(Hit[ID]{id, score}, order)
			var got Hit[ID]
			require.NoError(t, AfterHit(cursor, &got))
			assert.Equal(t, id, got.ID)
			assert.Equal(t, math.Float32bits(score), math.Float32bits(got.Score))
			_, decoded, _, err := decodeCursor[ID](cursor)
			require.NoError(t, err)
			assert.Equal(t, order, decoded)
		}
	}
}

// Rule 46: a cursor that can't be used is an error before any probe, and says why.
func TestCursorErrors(t *testing.T) {
	encode := func(b ...byte) Cursor { return Cursor(base64.RawURLEncoding.EncodeToString(b)) }
	tests := []struct {
		name   string
		cursor Cursor
		reason string
	}{
		{"foreign", "page=2", "not one of this package"},
		{"line break", newCursor(Hit[string]{"a", 1}, ScoreAscending) + "\n", "not one of this package"},
		{"too short", encode(1, 0), "not one of this package"},
		{"version", encode(9, 0, 0), "version 9"},
		{"order", encode(1, 7, 0), "unknown scatter.Order(7)"},
		{"other order", newCursor(Hit[string]{"a", 1}, IDAscending), "of the order IDAscending, the query of ScoreAscending"},
		{"kind", encode(1, 0, 9), "unknown kind of ID"},
		{"other kind", newCursor(Hit[int]{1, 1}, ScoreAscending), "another kind of ID than string"},
		{"truncated", encode(1, 0, 1, 2, 3), "2 bytes for a hit"},
		{"start with a hit", encode(1, 0, 0, 1), "1 bytes too many"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			probe := func(context.Context, PeerID, *Request) ([]Hit[string], error) {
				t.Error("a probe has run")
				return nil, nil
			}
			resp, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 1, After: tt.cursor}, []PeerID{"a"}, probe, nil)
			var bad *CursorError
			require.ErrorAs(t, err, &bad)
			assert.Nil(t, resp)
			assert.Equal(t, tt.cursor, bad.Cursor)
			assert.ErrorContains(t, err, tt.reason)
		})
	}
	var small Hit[int8]
	require.ErrorContains(t, AfterHit(newCursor(Hit[int]{1000, 1}, ScoreAscending), &small), "too large for int8")
}

// Rule 46: no text makes AfterHit panic, and what it takes is what newCursor makes.
func FuzzCursor(f *testing.F) {
	f.Add(string(newCursor(Hit[string]{"a", 1}, ScoreAscending)))
	f.Add(string(newCursor(Hit[int]{-1, 1}, IDAscending)))
	f.Add(string(startCursor(ScoreDescending)))
	f.Fuzz(func(t *testing.T, text string) {
		fuzzCursor[string](t, Cursor(text))
		fuzzCursor[int32](t, Cursor(text))
		fuzzCursor[uint64](t, Cursor(text))
		fuzzCursor[float64](t, Cursor(text))
	})
}

func fuzzCursor[ID string | int32 | uint64 | float64](t *testing.T, cursor Cursor) {
	h, order, start, err := decodeCursor[ID](cursor)
	switch {
	case err != nil:
	case start:
		require.Equal(t, cursor, startCursor(order))
	default:
		require.Equal(t, cursor, newCursor(h, order))
	}
}
