package scatter

// hashText returns a hash of a text, the same in every process: FNV-1a, mixed.
func hashText(text string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 0x100000001b3
	}
	return mix(h)
}

// mix is a permutation of the numbers under which near ones get far apart, that of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fraction makes a number from 0 up to 1 of a draw.
func fraction(draw uint64) float64 { return float64(draw>>11) / (1 << 53) }

// affinityWeight is what a text and a peer's name have drawn. It is between 1/2 and 1, so that gain
// counts for more.
func affinityWeight(text, name uint64) float64 { return 0.5 + 0.5*fraction(mix(text^name)) }
