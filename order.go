package scatter

import (
	"cmp"
	"hash/maphash"
	"math"
	"math/bits"
)

// Hit is one search result: the document's ID and its score, which is a distance or a similarity.
//
// A hit that carries more, such as a title or a stored field, is a struct that embeds Hit:
//
//	type Doc struct {
//		scatter.Hit[string]
//		Title string
//	}
//
// Doc and *Doc then satisfy [Ranked] as Hit itself does.
//
// A peer whose index has scores of a higher precision must rank, and cut its list, by the float32
// and then by the ID. Otherwise a hit that it has cut off may belong above one that it has sent,
// and neither [Response].Exact nor a page can know.
//
// A Hit has no methods for encoding or printing, because a struct that embeds it would inherit
// them.
type Hit[ID cmp.Ordered] struct {
	ID    ID      `json:"id"`
	Score float32 `json:"score"`
}

func (h Hit[ID]) hit() Hit[ID] { return h }

// Ranked is satisfied by [Hit], by every struct that embeds one, and by a pointer to such a
// struct. Its method is unexported, so embedding is the only way.
//
// A nil pointer holds no hit: Merge panics if a list contains one, and a Broadcast counts the peer
// that returned one as failed.
type Ranked[ID cmp.Ordered] interface{ hit() Hit[ID] }

// Order is the order of the hits of an answer. It decides which hits are the best. The zero value
// is ScoreAscending.
//
// Hits with equal scores are ordered by ID. -0 equals +0. A NaN score comes after every other
// score in both score orders, whatever its sign.
//
// As text and in JSON, an Order is its name, such as "ScoreAscending".
type Order uint8

// The orders.
const (
	ScoreAscending  Order = iota // smallest score first, for distances; equal scores by ID
	ScoreDescending              // largest score first, for similarities; equal scores by ID
	IDAscending                  // smallest ID first, whatever the scores
)

var orderNames = []string{"ScoreAscending", "ScoreDescending", "IDAscending"}

// String returns the name of o.
func (o Order) String() string { return enumString(o, orderNames) }

// MarshalText returns the name of o. It fails if o is none of the three orders.
func (o Order) MarshalText() ([]byte, error) { return enumText(o, "Order", orderNames) }

// UnmarshalText sets o to the order with the given name. If there is none, it fails and leaves o
// as it was.
func (o *Order) UnmarshalText(text []byte) error {
	return parseEnum(o, "Order", text, orderNames)
}

func (o Order) valid() bool { return o <= IDAscending }

// compareHits is the order in which a list should be sorted. It returns -1, 0 or 1 as
// [cmp.Compare] does.
func compareHits[ID cmp.Ordered](a, b Hit[ID], order Order) int {
	if order != IDAscending {
		if c := cmp.Compare(scoreKey(a.Score, order), scoreKey(b.Score, order)); c != 0 {
			return c
		}
	}
	// Rule 1: equal scores are ordered by ID.
	switch {
	case lessID(a.ID, b.ID):
		return -1
	case lessID(b.ID, a.ID):
		return 1
	}
	return 0
}

// scoreKey maps scores to integers that have the order of the scores.
//
// Rule 1: NaN comes last whatever its sign, and -0 equals +0.
//
// It uses integer instructions only. They take fewer cycles than floating-point ones, and a merge
// waits for this result before it knows the next winner.
func scoreKey(score float32, order Order) uint32 {
	key := math.Float32bits(score)
	if key<<1 > 0xff<<24 {
		return math.MaxUint32 // NaN: the keys of the infinities are smaller in both directions
	}
	if key == 1<<31 {
		key = 0 // -0 becomes +0
	}
	key ^= uint32(int32(key)>>31) | 1<<31       // below zero, a larger magnitude is a smaller score
	return key ^ -uint32(order&ScoreDescending) // flips all bits, or none
}

// lessID is [cmp.Less], but it compares two strings once instead of twice.
func lessID[ID cmp.Ordered](a, b ID) bool { return a < b || a != a && b == b }

// sameID reports whether [cmp.Compare] returns 0: it is a == b, except that a floating-point NaN
// equals NaN.
func sameID[ID cmp.Ordered](a, b ID) bool { return a == b || a != a && b != b }

// idKey maps IDs to integers that have the order of the IDs, except that different IDs may have
// the same integer. A string is mapped by the 8 bytes that follow its first skip bytes, which must
// be the same for all the strings that are compared.
//
// IDs of types other than string and those of integerKey, such as named types, all have the key 0.
func idKey[ID cmp.Ordered](id ID, skip int) uint64 {
	if s, ok := any(id).(string); ok {
		return first8(s[min(skip, len(s)):])
	}
	key, _ := integerKey(id)
	return key
}

// first8 returns the first 8 bytes of s as a big-endian integer. If s is shorter, zeros follow it.
func first8(s string) uint64 {
	if len(s) >= 8 { // the compiler makes one load of it
		return uint64(s[7]) | uint64(s[6])<<8 | uint64(s[5])<<16 | uint64(s[4])<<24 |
			uint64(s[3])<<32 | uint64(s[2])<<40 | uint64(s[1])<<48 | uint64(s[0])<<56
	}
	key := uint64(0)
	for i := range len(s) {
		key |= uint64(s[i]) << (56 - 8*i)
	}
	return key
}

// commonBytes returns how many leading bytes a and b have in common.
func commonBytes(a, b string) int {
	n := 0
	for ; len(a)-n >= 8 && len(b)-n >= 8; n += 8 {
		if differ := first8(a[n:]) ^ first8(b[n:]); differ != 0 {
			return n + bits.LeadingZeros64(differ)/8
		}
	}
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// integerKey maps IDs of the usual integer types to integers that have the order of the IDs. For
// other types, ok is false.
func integerKey[ID cmp.Ordered](id ID) (key uint64, ok bool) {
	switch v := any(id).(type) {
	case uint64:
		return v, true
	case int64:
		return uint64(v) ^ 1<<63, true
	case int:
		return uint64(v) ^ 1<<63, true
	case uint32:
		return uint64(v), true
	case int32:
		return uint64(v) ^ 1<<63, true
	}
	return 0, false
}

var (
	hashSeed   = maphash.MakeSeed()
	hashMask   = maphash.Comparable(hashSeed, 0)
	hashFactor = maphash.Comparable(hashSeed, 1) | 1
)

func hashID[ID cmp.Ordered](id ID) uint64 {
	if v, ok := integerKey(id); ok {
		// This takes half as long as maphash. Both numbers are secret, so whoever chooses the IDs
		// can't make them collide.
		high, low := bits.Mul64(v^hashMask, hashFactor)
		return high ^ low
	}
	if id != id {
		return 0 // maphash gives each NaN a hash of its own
	}
	return maphash.Comparable(hashSeed, id)
}
