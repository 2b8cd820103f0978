package main

import "testing"

// With refill every answer is exact, and few hits move. By meaning, most would be wrong without it.
func TestMeasure(t *testing.T) {
	for _, byMeaning := range []bool{false, true} {
		r, err := measure(16, 100, 100, byMeaning)
		if err != nil {
			t.Fatal(err)
		}
		if r.exact != 1 {
			t.Errorf("by meaning %v: %v of the answers are exact, want all", byMeaning, r.exact)
		}
		if most := map[bool]float64{false: 0.21, true: 0.25}[byMeaning]; r.moved > most {
			t.Errorf("by meaning %v: %v of the hits move, want at most %v", byMeaning, r.moved, most)
		}
		if byMeaning != (r.without < 0.9) {
			t.Errorf("by meaning %v: %v of the answers are right without refill", byMeaning, r.without)
		}
	}
	if err := run(10, t.TempDir()); err != nil {
		t.Fatal(err)
	}
}
