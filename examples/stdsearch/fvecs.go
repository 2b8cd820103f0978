package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
)

// Sets of vectors such as SIFT and GIST are published in these formats. Each row is its dimension
// as an int32 and then that many values, all little-endian. A value is a float32 in .fvecs, an
// unsigned byte in .bvecs, and an int32 in .ivecs.

// maxDimension is far above that of any published set. A larger one means that the file is broken
// or in another format.
const maxDimension = 1 << 16

// readVectors reads a .fvecs or .bvecs file. All its rows have the same dimension, and there is at
// least one.
func readVectors(path string) ([][]float32, error) {
	switch filepath.Ext(path) {
	case ".fvecs":
		return readFile(path, decodeFvecs)
	case ".bvecs":
		return readFile(path, decodeBvecs)
	}
	return nil, fmt.Errorf("%s: want a file of vectors, with a name ending in .fvecs or .bvecs", path)
}

// readNeighbours reads an .ivecs file. Each row has the IDs of a query's true neighbours, nearest
// first.
func readNeighbours(path string) ([][]int32, error) {
	if filepath.Ext(path) != ".ivecs" {
		return nil, fmt.Errorf("%s: want a file of neighbours, with a name ending in .ivecs", path)
	}
	return readFile(path, decodeIvecs)
}

func readFile[T any](path string, decode func(io.Reader) ([][]T, error)) ([][]T, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	rows, err := decode(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rows, nil
}

func decodeFvecs(r io.Reader) ([][]float32, error) {
	return decodeRows(r, 4, func(b []byte) (float32, error) {
		v := math.Float32frombits(binary.LittleEndian.Uint32(b))
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return 0, fmt.Errorf("want a finite value, got %v", v)
		}
		return v, nil
	})
}

func decodeBvecs(r io.Reader) ([][]float32, error) {
	return decodeRows(r, 1, func(b []byte) (float32, error) { return float32(b[0]), nil })
}

func decodeIvecs(r io.Reader) ([][]int32, error) {
	return decodeRows(r, 4, func(b []byte) (int32, error) { return int32(binary.LittleEndian.Uint32(b)), nil })
}

// decodeRows reads rows up to the end of r. A value has size bytes. An error names the row, from 0,
// and its offset in bytes.
func decodeRows[T any](r io.Reader, size int, decode func([]byte) (T, error)) ([][]T, error) {
	in := bufio.NewReaderSize(r, 1<<20)
	var rows [][]T
	var offset int64
	var header [4]byte
	var body []byte // of one row
	for {
		at := func(offset int64) string { return fmt.Sprintf("row %d, byte %d", len(rows), offset) }
		n, err := io.ReadFull(in, header[:])
		switch {
		case errors.Is(err, io.EOF) && len(rows) == 0:
			return nil, errors.New("want at least one row, got an empty file")
		case errors.Is(err, io.EOF):
			return rows, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("%s: want a dimension of 4 bytes, got the end of the file after %d", at(offset), n)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", at(offset), err)
		}
		dimension := int32(binary.LittleEndian.Uint32(header[:]))
		if dimension < 1 || dimension > maxDimension {
			return nil, fmt.Errorf("%s: want a dimension from 1 to %d, got %d", at(offset), maxDimension, dimension)
		}
		if len(rows) > 0 && int(dimension) != len(rows[0]) {
			return nil, fmt.Errorf("%s: want the dimension of the rows before, %d, got %d", at(offset), len(rows[0]), dimension)
		}
		offset += int64(len(header))

		if body == nil {
			body = make([]byte, int(dimension)*size)
		}
		n, err = io.ReadFull(in, body)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("%s: want %d values of %d bytes, got the end of the file after %d bytes",
				at(offset), dimension, size, n)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", at(offset), err)
		}
		row := make([]T, dimension)
		for i := range row {
			if row[i], err = decode(body[i*size : (i+1)*size]); err != nil {
				return nil, fmt.Errorf("%s: %w", at(offset+int64(i*size)), err)
			}
		}
		rows = append(rows, row)
		offset += int64(len(body))
	}
}
