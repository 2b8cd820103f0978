package scatter

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"sort"
	"sync"
)

// Hit is one search result: the document's ID and its score, a distance or a similarity.
//
// A hit that carries more, a title or a stored field, is a struct that embeds Hit:
//
//	type Doc struct {
//		scatter.Hit[string]
//		Title string
//	}
//
// Doc and *Doc are then as good as Hit itself wherever a [Ranked] is asked for.
type Hit[ID cmp.Ordered] struct {
	ID    ID
	Score float32
}

func (h Hit[ID]) hit() Hit[ID] { return h }

// Ranked is satisfied by [Hit], and by every struct, or pointer to a struct, that embeds one. Its method is unexported,
// so embedding is the only way. A nil pointer has no hit in it: among the hits of a list it makes Merge panic, and its
// peer count as failed in a Broadcast.
type Ranked[ID cmp.Ordered] interface{ hit() Hit[ID] }

// Order is the order of an answer, and with it which hits stand at the top. The zero value is ScoreAscending.
//
// Equal scores are ordered by ID, -0 equals +0, and a NaN score comes after every other score, whatever its sign and
// whichever way the scores run.
type Order uint8

// The orders.
const (
	ScoreAscending  Order = iota // smallest score first, for distances; equal scores by ID
	ScoreDescending              // largest score first, for similarities; equal scores by ID
	IDAscending                  // smallest ID first, whatever the scores
)

func (o Order) String() string { return name(o, "ScoreAscending", "ScoreDescending", "IDAscending") }

func (o Order) valid() bool { return o <= IDAscending }

// name is the String method of a small enumeration.
func name[T ~uint8](v T, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%T(%d)", v, uint8(v))
}

// Merge returns the k best hits of all lists in the given order, each ID once: the best-ranked of its copies, or under
// IDAscending the copy with the smallest score; among equal copies the one whose list stands first. The answer depends
// on the lists alone, so it is the same whenever the same peers gave the same hits.
//
// Each list should be sorted in that order, as the peers of a search answer anyway. One that isn't is noticed, copied
// and sorted, at the cost of doing so. No list is written to. k < 1 gives no hits; a k beyond the number of hits costs
// nothing. The result is the caller's; what its hits point to, it shares with the lists.
//
// Merge is a k-way merge: after one pass over the lists that checks their order, it takes O((k + d + len(lists)) log
// len(lists)) steps, d being the duplicates passed over, and one allocation. It panics if order is none of the three.
func Merge[H Ranked[ID], ID cmp.Ordered](lists [][]H, k int, order Order) []H {
	return AppendMerge(nil, lists, k, order)
}

// AppendMerge is [Merge] that appends to dst and returns the extended slice. It allocates nothing if dst has room for
// min(k, number of hits) more and the lists are sorted. dst must not overlap the lists; IDs that stand in it already are
// not looked at.
func AppendMerge[H Ranked[ID], ID cmp.Ordered](dst []H, lists [][]H, k int, order Order) []H {
	if k < 1 || !order.valid() {
		return AppendMergeSorted(dst, lists, k, order)
	}
	copied := false
	for i, list := range lists {
		if inOrder(list, order) {
			continue
		}
		if !copied {
			lists, copied = slices.Clone(lists), true
		}
		lists[i] = sortedCopy(list, order)
	}
	return AppendMergeSorted(dst, lists, k, order)
}

// AppendMergeSorted is [AppendMerge] without the check: it trusts each list to be sorted in order, and so looks at
// hardly more hits than it puts out. A list that isn't gives a wrong order, and may cost better hits their place, but
// never a panic or an ID twice.
func AppendMergeSorted[H Ranked[ID], ID cmp.Ordered](dst []H, lists [][]H, k int, order Order) []H {
	dst, _ = mergeSorted(dst, lists, k, order)
	return dst
}

// mergeSorted does the work of AppendMergeSorted, and also counts the duplicates that it passed over.
func mergeSorted[H Ranked[ID], ID cmp.Ordered](dst []H, lists [][]H, k int, order Order) ([]H, int) {
	if !order.valid() {
		panic("scatter: Merge: unknown " + order.String())
	}
	n := 0 // min(k, number of hits); with many lists, the first few tell it
	for i := 0; i < len(lists) && n < k; i++ {
		n += min(len(lists[i]), k-n)
	}
	if n < 1 {
		return dst, 0
	}
	s := scratchPool.Get().(*scratch)
	m := merger[H, ID]{
		scratch: s,
		lists:   lists,
		order:   order,
		out:     slices.Grow(dst, n),
		base:    len(dst),
		full:    len(dst) + n,
	}
	m.hits, _ = any(lists).([][]Hit[ID])
	m.pos = zeroed(m.pos, len(lists))
	if order == IDAscending {
		m.mergeAllByID()
	} else {
		m.mergeByScore()
	}
	scratchPool.Put(s)
	return m.out, m.duplicates
}

// merger is one merge under way. Its lists are read from pos on.
type merger[H Ranked[ID], ID cmp.Ordered] struct {
	*scratch
	lists      [][]H
	hits       [][]Hit[ID] // the lists again, if H is Hit itself
	order      Order
	out        []H
	base, full int // out[base:] is this merge's; it is complete at len(out) == full
	duplicates int
}

// scratch is the memory that a merge needs beside its result, none of it typed by the hit, so that one pool serves all.
type scratch struct {
	pos  []int    // for each list: its first hit not yet merged
	end  []int    // for each list of run: where its part of the run ends
	run  []int32  // the lists that byID merges
	keys []uint64 // winner tree of mergeByScore
	wins []int32  // winner tree of byID
	seen []uint64 // hash table of what out holds: high half of the hash, then 1 + the place in out; 0 is empty
}

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// sized is s with a length of n, and what it holds unknown.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

func zeroed[T any](s []T, n int) []T {
	s = sized(s, n)
	clear(s)
	return s
}

// hit is hit at of list i.
//
// A call of a type parameter's method goes through a table and is never inlined; a field of Hit[ID] is read at once.
func (m *merger[H, ID]) hit(i, at int) Hit[ID] { return hitOf(m.hits, m.lists, i, at) }

func hitOf[H Ranked[ID], ID cmp.Ordered](hits [][]Hit[ID], lists [][]H, i, at int) Hit[ID] {
	if hits != nil {
		return hits[i][at]
	}
	return lists[i][at].hit()
}

// head is list i's first hit not yet merged.
func (m *merger[H, ID]) head(i int) Hit[ID] { return hitOf(m.hits, m.lists, i, m.pos[i]) }

const exhausted = math.MaxUint64 // greater than every key: no list has the number MaxUint32

// mergeByScore merges in either score order.
//
// Its winner tree is an array: leaf len(lists)+i holds the key of list i, node n the smaller of 2n and 2n+1, so node 1
// the smallest of all; that holds for any number of lists. A key is the score as an ordered integer, then the list's
// number, so one integer comparison decides, the winner names its list, and among equal scores the first list wins.
//
// The tree knows nothing of IDs. Where more lists than one, or more hits of one list, have the winner's score, they are
// merged by ID apart from it.
func (m *merger[H, ID]) mergeByScore() {
	m.seen = zeroed(m.seen, 1<<bits.Len(uint(2*(m.full-m.base)-1)))
	m.plant()
	for len(m.out) < m.full {
		won := m.keys[1]
		if won == exhausted {
			return
		}
		i := int(uint32(won))
		at := m.pos[i]
		m.pos[i] = at + 1
		m.replay(i)
		if m.keys[1]>>32 == won>>32 && m.tie(won) {
			continue
		}
		m.put(i, at)
	}
}

// plant builds the tree.
func (m *merger[H, ID]) plant() {
	p := len(m.lists)
	keys := sized(m.keys, 2*p)
	m.keys = keys
	leaves := keys[p:]
	for i := range leaves {
		leaves[i] = m.key(i, 0)
	}
	for n := p - 1; n > 0; n-- {
		keys[n] = min(keys[2*n], keys[2*n+1])
	}
}

// tie looks at the rest of the hits that have the score of won, the key that was just taken. It passes over
// copies of the hit taken, and reports whether there was more, and all that was merged by ID.
func (m *merger[H, ID]) tie(won uint64) bool {
	i := int(uint32(won))
	at := m.pos[i] - 1
	id := hitOf(m.hits, m.lists, i, at).ID
	for m.keys[1]>>32 == won>>32 && m.keys[1] != exhausted {
		j := int(uint32(m.keys[1]))
		if !sameID(m.head(j).ID, id) {
			m.pos[i] = at
			m.mergeRun(i, won>>32)
			return true
		}
		m.duplicates++ // the usual tie: a replica's copy
		m.pos[j]++
		m.replay(j)
	}
	return false
}

// mergeRun merges all hits of one score, of which list first has the first.
func (m *merger[H, ID]) mergeRun(first int, score uint64) {
	m.run = m.run[:0]
	m.end = sized(m.end, len(m.lists))
	m.addRun(first, score)
	for m.keys[1]>>32 == score && m.keys[1] != exhausted {
		m.addRun(int(uint32(m.keys[1])), score)
	}
	m.byID()
}

// addRun adds the part of list i that has the given score to the run, and takes it out of the tree.
func (m *merger[H, ID]) addRun(i int, score uint64) {
	list, from := m.lists[i], m.pos[i]
	// The end of the part is found by doubling steps, then by halves: it may be long, and k small.
	step := 1
	for from+step < len(list) && m.scoreKey(list[from+step].hit().Score) == score {
		step *= 2
	}
	lo := from + step/2 + 1
	hi := min(from+step, len(list))
	m.end[i] = lo + sort.Search(hi-lo, func(n int) bool { return m.scoreKey(list[lo+n].hit().Score) != score })
	m.run = append(m.run, int32(i))
	m.pos[i] = m.end[i]
	m.replay(i)
	m.pos[i] = from
}

// key is list i's key in the tree, if it goes on at at.
func (m *merger[H, ID]) key(i, at int) uint64 {
	if at >= len(m.lists[i]) {
		return exhausted
	}
	return m.scoreKey(hitOf(m.hits, m.lists, i, at).Score)<<32 | uint64(i)
}

// replay puts list i's key into the tree again, after its position has moved.
func (m *merger[H, ID]) replay(i int) {
	key := m.key(i, m.pos[i])
	keys := m.keys
	n := len(m.lists) + i
	keys[n] = key
	for n > 1 {
		key = min(key, keys[n^1])
		n /= 2
		keys[n] = key
	}
}

func (m *merger[H, ID]) scoreKey(score float32) uint64 { return uint64(scoreKey(score, m.order)) }

// scoreKey maps scores to integers that are ordered as the scores are in order, NaN last.
func scoreKey(score float32, order Order) uint32 {
	key := math.Float32bits(score)
	if key<<1 > 0xff<<24 {
		return math.MaxUint32 // NaN; infinities, the largest of the others, stay below it
	}
	if key == 1<<31 {
		key = 0 // -0 becomes +0
	}
	key ^= uint32(int32(key)>>31) | 1<<31 // below zero, a larger magnitude is a smaller score
	if order == ScoreDescending {
		key = ^key
	}
	return key
}

func (m *merger[H, ID]) mergeAllByID() {
	m.seen = zeroed(m.seen, 1<<bits.Len(uint(2*(m.full-m.base)-1)))
	m.run = m.run[:0]
	m.end = sized(m.end, len(m.lists))
	for i, list := range m.lists {
		m.run = append(m.run, int32(i))
		m.end[i] = len(list)
	}
	m.byID()
}

// byID merges the lists of m.run, each from its position to its end, by ID: of each ID the copy with the smallest
// score, the first of equal ones.
//
// Its winner tree is shaped as that of mergeByScore, over the places in run; a node holds the place whose list has the
// smallest ID, or -1 once all below it are used up.
func (m *merger[H, ID]) byID() {
	p := len(m.run)
	m.wins = zeroed(m.wins, 2*p)
	for w := range p {
		m.wins[p+w] = m.contender(w)
	}
	for n := p - 1; n > 0; n-- {
		m.wins[n] = m.winner(m.wins[2*n], m.wins[2*n+1])
	}
	for len(m.out) < m.full && m.wins[1] >= 0 {
		i, at := m.next()
		best := hitOf(m.hits, m.lists, i, at)
		for m.wins[1] >= 0 && sameID(m.head(int(m.run[m.wins[1]])).ID, best.ID) {
			j, jat := m.next()
			copied := hitOf(m.hits, m.lists, j, jat)
			m.duplicates++
			if scoreKey(copied.Score, ScoreAscending) < scoreKey(best.Score, ScoreAscending) {
				best, i, at = copied, j, jat
			}
		}
		m.put(i, at)
	}
}

// next takes the hit with the smallest ID off its list.
func (m *merger[H, ID]) next() (list, at int) {
	won := m.wins[1]
	i := m.run[won]
	at = m.pos[i]
	m.pos[i]++
	n := len(m.run) + int(won)
	won = m.contender(int(won))
	m.wins[n] = won
	for ; n > 1; n /= 2 {
		won = m.winner(won, m.wins[n^1])
		m.wins[n/2] = won
	}
	return int(i), at
}

// contender returns place w of the run, or -1 if its list is used up.
func (m *merger[H, ID]) contender(w int) int32 {
	if i := m.run[w]; m.pos[i] >= m.end[i] {
		return -1
	}
	return int32(w)
}

// winner returns the one of two places whose list goes on with the smaller ID, the first of equals.
func (m *merger[H, ID]) winner(a, b int32) int32 {
	if a < 0 || b < 0 {
		return max(a, b)
	}
	switch c := cmp.Compare(m.head(int(m.run[a])).ID, m.head(int(m.run[b])).ID); {
	case c < 0:
		return a
	case c > 0:
		return b
	}
	return min(a, b)
}

// put appends hit at of list i to the result, unless its ID stands there already. Only what is put out is ever hashed.
func (m *merger[H, ID]) put(i, at int) {
	id := hitOf(m.hits, m.lists, i, at).ID
	hash := hashID(id)
	mask := uint64(len(m.seen) - 1)
	for slot := hash & mask; ; slot = (slot + 1) & mask {
		entry := m.seen[slot]
		if entry == 0 {
			m.out = append(m.out, m.lists[i][at])
			m.seen[slot] = hash&^math.MaxUint32 | uint64(len(m.out)-m.base)
			return
		}
		if (entry^hash)>>32 == 0 && sameID(m.out[m.base+int(uint32(entry))-1].hit().ID, id) {
			m.duplicates++
			return
		}
	}
}

var hashSeed = maphash.MakeSeed()

func hashID[ID cmp.Ordered](id ID) uint64 {
	if id != id {
		return 0 // maphash gives each NaN a hash of its own
	}
	return maphash.Comparable(hashSeed, id)
}

// sameID is a == b, but for a floating-point NaN, which as an ID is equal to itself, as [cmp.Compare] has it.
func sameID[ID cmp.Ordered](a, b ID) bool { return a == b || a != a && b != b }

// compareHits is the order in which a list should be sorted.
func compareHits[ID cmp.Ordered](a, b Hit[ID], order Order) int {
	if order != IDAscending {
		if c := cmp.Compare(scoreKey(a.Score, order), scoreKey(b.Score, order)); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.ID, b.ID)
}

// inOrder reports whether the list is sorted. It looks at every hit, one alone too, so a nil pointer among them panics
// here and not later.
func inOrder[H Ranked[ID], ID cmp.Ordered](list []H, order Order) bool {
	if len(list) == 0 {
		return true
	}
	last := list[0].hit()
	for _, h := range list[1:] {
		next := h.hit()
		switch {
		case order == ScoreAscending && last.Score < next.Score: // the usual case, three times as fast as below
		case order == ScoreDescending && last.Score > next.Score:
		case compareHits(last, next, order) > 0:
			return false
		}
		last = next
	}
	return true
}

// sortedCopy leaves the order of equal hits as it was, so that the first of them stays the first.
func sortedCopy[H Ranked[ID], ID cmp.Ordered](list []H, order Order) []H {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b H) int { return compareHits(a.hit(), b.hit(), order) })
	return list
}
