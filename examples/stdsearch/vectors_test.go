package main

import (
	"strings"
	"testing"
)

func TestReadVectorSetThatDoesNotFit(t *testing.T) {
	base := [][]float32{{0, 0}, {1, 0}, {2, 0}}
	queries := [][]float32{{0, 1}, {2, 1}}
	truth := [][]int32{{0, 1}, {2, 1}}
	tests := []struct {
		name          string
		base, queries [][]float32
		truth         [][]int32
		k             int
		want          string
	}{
		{"fits", base, queries, truth, 2, ""},
		{"more truth than queries", base, queries[:1], truth, 2, ""},
		{"dimensions differ", base, [][]float32{{1, 2, 3}}, truth, 2, "query.fvecs: want the dimension of"},
		{"fewer truth than queries", base, queries, truth[:1], 2, "truth.ivecs: want a row for each of the 2 queries"},
		{"k too large", base, queries, truth, 3, "want at least 3 neighbours in a row, for -k 3, got 2"},
		{"neighbour too large", base, queries, [][]int32{{0, 1}, {2, 3}}, 2, "truth.ivecs: row 1, byte 20: want a row of"},
		{"neighbour below 0", base, queries, [][]int32{{-1, 1}, {2, 1}}, 2, "truth.ivecs: row 0, byte 4: want a row of"},
		{"no base", nil, queries, truth, 2, "base.fvecs: want at least one row"},
		{"no queries", base, nil, truth, 2, "query.fvecs: want at least one row"},
		{"no truth", base, queries, nil, 2, "truth.ivecs: want at least one row"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, err := readVectorSet(&config{
				base:  writeFile(t, "base.fvecs", encode(tt.base)),
				query: writeFile(t, "query.fvecs", encode(tt.queries)),
				truth: writeFile(t, "truth.ivecs", encode(tt.truth)),
				k:     tt.k,
			})
			switch {
			case tt.want == "" && (err != nil || len(set.base) != len(tt.base)):
				t.Errorf("readVectorSet = %v, %v, want the set", set, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
		})
	}
}
