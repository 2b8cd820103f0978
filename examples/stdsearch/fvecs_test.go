package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// encode is the inverse of decodeRows.
func encode[T any](rows [][]T) []byte {
	var b bytes.Buffer
	for _, row := range rows {
		binary.Write(&b, binary.LittleEndian, int32(len(row)))
		binary.Write(&b, binary.LittleEndian, row)
	}
	return b.Bytes()
}

// join puts values of any fixed size one after another, little-endian.
func join(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		binary.Write(&b, binary.LittleEndian, v)
	}
	return b.Bytes()
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadVectors(t *testing.T) {
	want := [][]float32{{1, 2, 255}, {0, 7, 9}}
	for name, content := range map[string][]byte{
		"a.fvecs": encode(want),
		"a.bvecs": encode([][]uint8{{1, 2, 255}, {0, 7, 9}}),
	} {
		got, err := readVectors(writeFile(t, name, content))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("readVectors(%s) = %v, %v, want %v", name, got, err, want)
		}
	}
	neighbours := [][]int32{{3, -1}, {math.MaxInt32, 0}}
	got, err := readNeighbours(writeFile(t, "a.ivecs", encode(neighbours)))
	if err != nil || !reflect.DeepEqual(got, neighbours) {
		t.Errorf("readNeighbours = %v, %v, want %v", got, err, neighbours)
	}
}

func TestReadBrokenFile(t *testing.T) {
	one := float32(1)
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	tests := []struct {
		name, file string
		content    []byte
		want       string
	}{
		{"empty", "a.fvecs", nil, "want at least one row, got an empty file"},
		{"dimension cut off", "a.fvecs", join(int32(1), one, int16(1)),
			"row 1, byte 8: want a dimension of 4 bytes, got the end of the file after 2"},
		{"no values", "a.fvecs", join(int32(2)),
			"row 0, byte 4: want 2 values of 4 bytes, got the end of the file after 0 bytes"},
		{"row cut off", "a.fvecs", join(int32(2), one, one, int32(2), one),
			"row 1, byte 16: want 2 values of 4 bytes, got the end of the file after 4 bytes"},
		{"row cut off in a value", "a.ivecs", join(int32(2), int32(1), int16(1)),
			"row 0, byte 4: want 2 values of 4 bytes, got the end of the file after 6 bytes"},
		{"bytes cut off", "a.bvecs", join(int32(3), []byte{1, 2}),
			"row 0, byte 4: want 3 values of 1 bytes, got the end of the file after 2 bytes"},
		{"dimension 0", "a.fvecs", join(int32(0)), "row 0, byte 0: want a dimension from 1 to 65536, got 0"},
		{"dimension below 0", "a.bvecs", join(int32(1), byte(1), int32(-5)),
			"row 1, byte 5: want a dimension from 1 to 65536, got -5"},
		{"dimension absurd", "a.bvecs", join(int32(math.MaxInt32)),
			"row 0, byte 0: want a dimension from 1 to 65536, got 2147483647"},
		{"dimension changes", "a.ivecs", join(int32(1), int32(9), int32(2), int32(9), int32(9)),
			"row 1, byte 8: want the dimension of the rows before, 1, got 2"},
		{"infinite", "a.fvecs", join(int32(2), one, one, int32(2), one, inf),
			"row 1, byte 20: want a finite value, got +Inf"},
		{"not a number", "a.fvecs", join(int32(1), nan), "row 0, byte 4: want a finite value, got NaN"},
		{"other vectors", "a.hdf5", nil, "want a file of vectors, with a name ending in .fvecs or .bvecs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, tt.file, tt.content)
			var err error
			if filepath.Ext(path) == ".ivecs" {
				_, err = readNeighbours(path)
			} else {
				_, err = readVectors(path)
			}
			if want := path + ": " + tt.want; err == nil || err.Error() != want {
				t.Errorf("error = %v\n want   %s", err, want)
			}
		})
	}

	if _, err := readNeighbours("a.fvecs"); err == nil || !strings.Contains(err.Error(), "ending in .ivecs") {
		t.Errorf("readNeighbours of an .fvecs file: error = %v, want one that names .ivecs", err)
	}
	if _, err := readVectors(filepath.Join(t.TempDir(), "none.fvecs")); !os.IsNotExist(err) {
		t.Errorf("readVectors of no file: error = %v, want that it doesn't exist", err)
	}
}

func TestReadFailsMidway(t *testing.T) {
	failing := func(after []byte) io.Reader { return io.MultiReader(bytes.NewReader(after), badReader{}) }
	for _, after := range [][]byte{nil, join(int32(1)), join(int32(1), byte(7))} {
		if _, err := decodeBvecs(failing(after)); err == nil || !strings.HasSuffix(err.Error(), "bad disk") {
			t.Errorf("decode of %v and a bad disk = %v, want the disk's error", after, err)
		}
	}
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, fmt.Errorf("bad disk") }

// FuzzDecode checks that whatever is accepted is a table that encodes to what was read, and that
// all else is an error.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encode([][]float32{{1, 2}, {3, 4}}))
	f.Add(encode([][]uint8{{1, 2, 3}}))
	f.Add(join(int32(2), float32(1)))
	f.Add(join(int32(-1)))
	f.Add(join(int32(1), int32(5), int32(2), int32(5), int32(5)))
	f.Fuzz(func(t *testing.T, data []byte) {
		wantRoundTrip(t, data, decodeFvecs, encode[float32])
		wantRoundTrip(t, data, decodeIvecs, encode[int32])
		wantRoundTrip(t, data, decodeBvecs, func(rows [][]float32) []byte {
			narrow := make([][]uint8, len(rows))
			for i, row := range rows {
				for _, v := range row {
					narrow[i] = append(narrow[i], uint8(v))
				}
			}
			return encode(narrow)
		})
	})
}

func wantRoundTrip[T any](t *testing.T, data []byte, decode func(io.Reader) ([][]T, error), encode func([][]T) []byte) {
	t.Helper()
	rows, err := decode(bytes.NewReader(data))
	if err != nil {
		if rows != nil {
			t.Fatalf("decode = %v together with the error %v", rows, err)
		}
		return
	}
	for i, row := range rows {
		if len(row) == 0 || len(row) != len(rows[0]) {
			t.Fatalf("row %d has %d values, row 0 has %d", i, len(row), len(rows[0]))
		}
	}
	if got := encode(rows); !bytes.Equal(got, data) {
		t.Fatalf("decoded and encoded again = %x, want %x", got, data)
	}
}
