package scatter

import (
	"math"
	"math/bits"
	"slices"
)

// bitset is a set of small non-negative integers: the numbers of peers, or of ranges.
type bitset []uint64

func bitsetWords(n int) int { return (n + 63) / 64 }

func newBitset(n int) bitset { return make(bitset, bitsetWords(n)) }

func (b bitset) add(i int32)      { b[uint32(i)/64] |= 1 << (uint32(i) % 64) }
func (b bitset) remove(i int32)   { b[uint32(i)/64] &^= 1 << (uint32(i) % 64) }
func (b bitset) has(i int32) bool { return b[uint32(i)/64]&(1<<(uint32(i)%64)) != 0 }

func (b bitset) clone() bitset { return slices.Clone(b) }

// hasAny reports whether the set contains any of the list.
func (b bitset) hasAny(list []int32) bool {
	for _, i := range list {
		if b.has(i) {
			return true
		}
	}
	return false
}

// fill adds all numbers below n to a set from newBitset(n).
func (b bitset) fill(n int) {
	for i := range b {
		b[i] = math.MaxUint64
	}
	if rest := n % 64; rest > 0 {
		b[len(b)-1] = 1<<rest - 1
	}
}

// count returns the number of members.
func (b bitset) count() int {
	n := 0
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}
