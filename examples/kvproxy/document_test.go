package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDocumentIsTheSameAfterDecoding(t *testing.T) {
	for _, d := range []document{
		{},
		{kind: stringKey, text: []byte{}},
		{kind: stringKey, text: []byte("a\x00\xff")},
		{kind: hashKey, fields: map[string][]byte{"": {}, "f": []byte("v"), "\xff\x00": bytes.Repeat([]byte("x"), 1000)}},
	} {
		got, err := decodeDocument(d.encode())
		require.NoError(t, err)
		require.Equal(t, d, got)
	}
	require.Empty(t, document{kind: hashKey}.encode(), "a hash without fields doesn't exist")
}

func TestDocumentThatIsCutOffIsAnError(t *testing.T) {
	body := document{kind: hashKey, fields: map[string][]byte{"field": []byte("value")}}.encode()
	for n := 2; n < len(body); n++ {
		_, err := decodeDocument(body[:n])
		require.ErrorContains(t, err, "cut off", n)
	}
	_, err := decodeDocument([]byte("Zzz"))
	require.ErrorContains(t, err, `'Z'`)
}

func TestPartitionIsTheFirstBitsOfTheToken(t *testing.T) {
	seen := map[int]bool{}
	for n := range 1000 {
		p := partitionOf(strings.Repeat("k", n))
		require.Equal(t, token(strings.Repeat("k", n))>>60, uint64(p))
		seen[p] = true
	}
	require.Len(t, seen, partitions)
}

func FuzzDecodeDocument(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("Stext"))
	f.Add([]byte("H\x01f\x01v"))
	f.Add([]byte("H\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := decodeDocument(body)
		if err != nil {
			require.Zero(t, d)
			return
		}
		again, err := decodeDocument(d.encode())
		require.NoError(t, err)
		if d.kind == hashKey && len(d.fields) == 0 {
			d = document{}
		}
		require.Equal(t, d, again)
	})
}
