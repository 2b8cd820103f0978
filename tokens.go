package scatter

import (
	"math"
	"math/bits"
)

// tokens is a number of tokens: a 128-bit integer, because the whole token space has 2^64.
type tokens struct{ hi, lo uint64 }

var allTokens = tokens{hi: 1}

// widthUpTo returns how many tokens there are after ends[i-1] up to ends[i], and after the last of
// the ends up to ends[0] if i is 0. The ends ascend; equal ones have no tokens between them. If all
// are equal, ends[0] has all tokens.
func widthUpTo(ends []uint64, i int) tokens {
	if i > 0 {
		return tokens{0, ends[i] - ends[i-1]}
	}
	lo := ends[0] - ends[len(ends)-1]
	if lo == 0 {
		return allTokens
	}
	return tokens{0, lo}
}

func (t tokens) plus(u tokens) tokens {
	lo, carry := bits.Add64(t.lo, u.lo, 0)
	return tokens{t.hi + u.hi + carry, lo}
}

func (t tokens) minus(u tokens) tokens {
	lo, borrow := bits.Sub64(t.lo, u.lo, 0)
	return tokens{t.hi - u.hi - borrow, lo}
}

func (t tokens) isZero() bool { return t == tokens{} }

// share returns t as a share of the whole token space: 1 only if t is all of it, 0 only if it is
// none, however the division would round. Rule 23.
func (t tokens) share() float64 {
	if t.hi > 0 {
		return 1
	}
	return min(float64(t.lo)/(1<<64), math.Nextafter(1, 0))
}
