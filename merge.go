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
// min(k, number of hits) more and the lists are sorted. dst must not overlap the lists; IDs that stand in it already
// are not looked at.
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
	if order == IDAscending {
		m.mergeAllByID()
	} else {
		m.mergeByScore()
	}
	scratchPool.Put(s)
	return m.out, m.duplicates
}

// merger is one merge under way.
type merger[H Ranked[ID], ID cmp.Ordered] struct {
	*scratch
	lists      [][]H
	hits       [][]Hit[ID] // the lists again, if H is Hit itself, else nil
	order      Order
	ascending  bool // the IDs come out ascending, so no two of them are the same
	out        []H
	base, full int // out[base:] is this merge's; it is complete at len(out) == full
	duplicates int
}

// scratch is the memory that a merge needs beside its result, none of it typed by the hit, so that one pool serves all.
type scratch struct {
	pos   []int    // mergeByScore reads each list from here on
	keys  []uint64 // winner tree of mergeByScore
	parts []part   // what byID merges
	wins  []int32  // winner tree of byID
	seen  []uint64 // hash table of what out holds: high half of the hash, then 1 + the place in out; 0 is empty
}

// part is what byID has still to read of a list: the hits from at up to end.
type part struct {
	list, at, end int
	key           uint64 // idKey of hit at
}

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// sized is s with length n, whatever it then holds.
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

// hitOf is hit at of list i.
//
// In generic code h.hit() is an indirect call, while a field of Hit[ID] is simply read. So hits of the type Hit, the
// most frequent, are read past their method: 10 to 20 % faster. The compiler inlines this function, but would not if it
// were any longer.
func hitOf[H Ranked[ID], ID cmp.Ordered](hits [][]Hit[ID], lists [][]H, i, at int) Hit[ID] {
	if hits != nil {
		return hits[i][at]
	}
	return lists[i][at].hit()
}

const exhausted = math.MaxUint64 // greater than every key: no list has the number MaxUint32

// mergeByScore merges in either score order.
//
// Its winner tree is an array: leaf len(lists)+i holds the key of list i, node n the smaller of 2n and 2n+1, so node 1
// the smallest of all; that holds for any number of lists. A key is the score as an ordered integer, then the list's
// number, so one integer comparison decides, the winner names its list, and among equal scores the first list wins.
//
// The tree knows nothing of IDs. Where more lists than one, or more hits of one list, have the winner's score, they are
// merged by ID apart from it.
//
// The loop is replay with all calls inlined by hand, which the compiler doesn't do: 10 % faster.
func (m *merger[H, ID]) mergeByScore() {
	m.plant()
	m.clearSeen()
	keys, pos, hits, lists, order := m.keys, m.pos, m.hits, m.lists, m.order
	for len(m.out) < m.full {
		won := keys[1]
		if won == exhausted {
			return
		}
		i := int(uint32(won))
		at := pos[i]
		pos[i] = at + 1
		key := uint64(exhausted)
		if at+1 < len(lists[i]) {
			key = uint64(scoreKey(hitOf(hits, lists, i, at+1).Score, order))<<32 | uint64(i)
		}
		climb(keys, len(lists)+i, key)
		if keys[1]>>32 == won>>32 && m.tie(won) {
			continue
		}
		m.put(i, at)
	}
}

// plant builds the tree. It has the call of key inlined by hand too: 15 % faster with 100 lists and k = 10.
func (m *merger[H, ID]) plant() {
	p := len(m.lists)
	m.pos = zeroed(m.pos, p)
	m.keys = sized(m.keys, 2*p)
	keys := m.keys
	leaves := keys[p:]
	for i := range leaves {
		leaves[i] = exhausted
		if len(m.lists[i]) > 0 {
			leaves[i] = uint64(scoreKey(hitOf(m.hits, m.lists, i, 0).Score, m.order))<<32 | uint64(i)
		}
	}
	for n := p - 1; n > 0; n-- {
		keys[n] = min(keys[2*n], keys[2*n+1])
	}
}

// climb sets leaf n of the tree to key, and the nodes above it to what follows.
//
// The way up is known from the start, and min is a conditional move, so no branch is mispredicted. The winner is read
// from keys[1] afterwards and not returned: the compiler moves conditionally only what isn't the index of a later load.
func climb(keys []uint64, n int, key uint64) {
	keys[n] = key
	for n > 1 {
		key = min(key, keys[n^1])
		n /= 2
		keys[n] = key
	}
}

// replay puts list i's key into the tree again, after its position has moved.
func (m *merger[H, ID]) replay(i int) {
	key := uint64(exhausted)
	if m.pos[i] < len(m.lists[i]) {
		key = uint64(m.scoreKey(i, m.pos[i]))<<32 | uint64(i)
	}
	climb(m.keys, len(m.lists)+i, key)
}

// tie goes on where the key won has just been taken, and that of another hit with the same score follows. It passes
// over copies of the hit taken, and reports whether there were others, in which case it has merged all hits of that
// score.
func (m *merger[H, ID]) tie(won uint64) bool {
	i := int(uint32(won))
	at := m.pos[i] - 1
	id := hitOf(m.hits, m.lists, i, at).ID
	for m.keys[1]>>32 == won>>32 && m.keys[1] != exhausted {
		j := int(uint32(m.keys[1]))
		if !sameID(hitOf(m.hits, m.lists, j, m.pos[j]).ID, id) {
			m.pos[i] = at
			m.mergeRun(i, uint32(won>>32))
			return true
		}
		m.duplicates++ // the usual tie: a replica's copy
		m.pos[j]++
		m.replay(j)
	}
	return false
}

// mergeRun merges all hits of one score, of which list first has the first.
func (m *merger[H, ID]) mergeRun(first int, score uint32) {
	m.parts = m.parts[:0]
	m.takeRun(first, score)
	for uint32(m.keys[1]>>32) == score && m.keys[1] != exhausted {
		m.takeRun(int(uint32(m.keys[1])), score)
	}
	m.byID()
}

// takeRun takes the hits of list i that have the given score out of the tree, and makes a part of them.
func (m *merger[H, ID]) takeRun(i int, score uint32) {
	from, end := m.pos[i], len(m.lists[i])
	// The end of the part is found by doubling steps, then by halves: it may be long, and k small.
	step := 1
	for from+step < end && m.scoreKey(i, from+step) == score {
		step *= 2
	}
	lo := from + step/2 + 1
	hi := min(from+step, end)
	end = lo + sort.Search(hi-lo, func(n int) bool { return m.scoreKey(i, lo+n) != score })
	m.addPart(i, from, end)
	m.pos[i] = end
	m.replay(i)
}

func (m *merger[H, ID]) scoreKey(i, at int) uint32 {
	return scoreKey(hitOf(m.hits, m.lists, i, at).Score, m.order)
}

// scoreKey maps scores to integers that are ordered as the scores are in order, NaN last. It computes with integers
// alone, which takes fewer cycles than floating point, and they are on the way from one winner to the next.
func scoreKey(score float32, order Order) uint32 {
	key := math.Float32bits(score)
	if key<<1 > 0xff<<24 {
		return math.MaxUint32 // NaN; infinities, the largest of the others, stay below it
	}
	if key == 1<<31 {
		key = 0 // -0 becomes +0
	}
	key ^= uint32(int32(key)>>31) | 1<<31       // below zero, a larger magnitude is a smaller score
	return key ^ -uint32(order&ScoreDescending) // all bits are flipped, or none
}

// mergeAllByID merges in the order IDAscending. The IDs of sorted lists come out ascending, so none comes twice, and
// none need be hashed. If some list turns out not to be sorted, the merge starts over with a hash table.
func (m *merger[H, ID]) mergeAllByID() {
	m.ascending = true
	m.addLists()
	if m.byID() {
		return
	}
	m.ascending = false
	m.out, m.duplicates = m.out[:m.base], 0
	m.clearSeen()
	m.addLists()
	m.byID()
}

func (m *merger[H, ID]) addLists() {
	m.parts = m.parts[:0]
	for i, list := range m.lists {
		if len(list) > 0 {
			m.addPart(i, 0, len(list))
		}
	}
}

// addPart adds the hits of list i from at up to end, of which there is one at least, to what byID merges.
func (m *merger[H, ID]) addPart(i, at, end int) {
	m.parts = append(m.parts, part{i, at, end, idKey(hitOf(m.hits, m.lists, i, at).ID)})
}

// byID merges the parts by ID: of each ID the copy with the smallest score, of equal ones that of the first list. It
// gives up and returns false if m.ascending and the IDs don't ascend.
func (m *merger[H, ID]) byID() bool {
	m.plantParts()
	for len(m.out) < m.full {
		i, at := m.next()
		if i < 0 {
			break
		}
		i, at, sorted := m.bestCopy(i, at)
		if m.ascending && !sorted {
			return false
		}
		m.put(i, at)
	}
	return true
}

// bestCopy takes the copies of hit at of list i, which has just been taken, and returns the best. It also reports
// whether a greater ID follows.
func (m *merger[H, ID]) bestCopy(i, at int) (list, place int, sorted bool) {
	best := hitOf(m.hits, m.lists, i, at)
	for {
		p := &m.parts[m.wins[1]]
		if p.at == p.end {
			return i, at, true
		}
		h := hitOf(m.hits, m.lists, p.list, p.at)
		if lessID(best.ID, h.ID) {
			return i, at, true
		}
		if !sameID(best.ID, h.ID) {
			return i, at, false
		}
		m.duplicates++
		j, to := m.next()
		x, y := scoreKey(h.Score, ScoreAscending), scoreKey(best.Score, ScoreAscending)
		if x < y || x == y && j < i {
			best, i, at = h, j, to
		}
	}
}

// plantParts builds the winner tree of byID. It is shaped as that of mergeByScore, over the parts: leaf len(parts)+w
// holds w, and a node above the number of the part that goes on with the smallest ID.
func (m *merger[H, ID]) plantParts() {
	p := len(m.parts)
	m.wins = sized(m.wins, 2*p)
	wins, parts := m.wins, m.parts
	for w := range p {
		wins[p+w] = int32(w)
	}
	for n := p - 1; n > 0; n-- {
		won, other := wins[2*n], wins[2*n+1]
		key, otherKey := parts[won].key, parts[other].key
		if key == otherKey {
			won = m.winner(n)
		} else if otherKey < key {
			won = other
		}
		wins[n] = won
	}
}

// next takes the hit with the smallest ID off its part. With none left, the list is -1.
//
// As in climb no branch depends on which of two keys is smaller, and what won is the index of no load.
func (m *merger[H, ID]) next() (list, at int) {
	won, wins, parts := m.wins[1], m.wins, m.parts
	p := &parts[won]
	list, at = p.list, p.at
	if at == p.end {
		return -1, 0
	}
	p.at++
	p.key = math.MaxUint64 // with nothing left, a part loses against every other
	if p.at < p.end {
		p.key = idKey(hitOf(m.hits, m.lists, list, p.at).ID)
	}
	key := p.key
	for n := len(parts) + int(won); n > 1; {
		other := wins[n^1]
		otherKey := parts[other].key
		n /= 2
		if key == otherKey {
			won = m.winner(n)
			wins[n] = won
			continue
		}
		if otherKey < key {
			won = other
		}
		key = min(key, otherKey)
		wins[n] = won
	}
	return list, at
}

// winner returns which of the parts below node n goes on with the smaller ID, where their keys may be equal.
func (m *merger[H, ID]) winner(n int) int32 {
	a, b := m.wins[2*n], m.wins[2*n+1]
	x, y := &m.parts[a], &m.parts[b]
	switch {
	case x.key < y.key || y.at == y.end:
		return a
	case y.key < x.key || x.at == x.end:
		return b
	case lessID(hitOf(m.hits, m.lists, y.list, y.at).ID, hitOf(m.hits, m.lists, x.list, x.at).ID):
		return b
	}
	return a
}

// put appends hit at of list i to the result, unless its ID stands there already. Only what is put out is ever hashed.
func (m *merger[H, ID]) put(i, at int) {
	if m.ascending {
		m.out = append(m.out, m.lists[i][at])
		return
	}
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

// clearSeen makes the hash table empty, and large enough for a full result to leave half of it so.
func (m *merger[H, ID]) clearSeen() {
	m.seen = zeroed(m.seen, 1<<bits.Len(uint(2*(m.full-m.base)-1)))
}

var (
	hashSeed   = maphash.MakeSeed()
	hashMask   = maphash.Comparable(hashSeed, 0)
	hashFactor = maphash.Comparable(hashSeed, 1) | 1
)

func hashID[ID cmp.Ordered](id ID) uint64 {
	if v, ok := integer(id); ok {
		// Half as long as maphash takes. Both numbers being secret, whoever chooses the IDs can't have them collide.
		high, low := bits.Mul64(v^hashMask, hashFactor)
		return high ^ low
	}
	if id != id {
		return 0 // maphash gives each NaN a hash of its own
	}
	return maphash.Comparable(hashSeed, id)
}

// idKey maps IDs to integers that are ordered as the IDs are, though equal ones may belong to different IDs.
//
// byID's tree compares these, and IDs only where they are equal: with strings that is about twice as fast. IDs of types
// other than string and the usual integers, named ones too, all have the key 0.
func idKey[ID cmp.Ordered](id ID) uint64 {
	if s, ok := any(id).(string); ok {
		return prefix(s)
	}
	v, _ := integer(id)
	return v
}

// prefix is the first 8 bytes of s as an integer, followed by zeros if there are fewer.
func prefix(s string) uint64 {
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

// integer maps IDs of the usual integer types to integers that are ordered as the IDs are.
func integer[ID cmp.Ordered](id ID) (v uint64, ok bool) {
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

// lessID is [cmp.Less], but compares two strings once and not twice.
func lessID[ID cmp.Ordered](a, b ID) bool { return a < b || a != a && b == b }

// sameID is a == b, but for a floating-point NaN, which as an ID is equal to itself, as [cmp.Compare] has it.
func sameID[ID cmp.Ordered](a, b ID) bool { return a == b || a != a && b != b }

// compareHits is the order in which a list should be sorted.
func compareHits[ID cmp.Ordered](a, b Hit[ID], order Order) int {
	if order != IDAscending {
		if c := cmp.Compare(scoreKey(a.Score, order), scoreKey(b.Score, order)); c != 0 {
			return c
		}
	}
	switch {
	case lessID(a.ID, b.ID):
		return -1
	case lessID(b.ID, a.ID):
		return 1
	}
	return 0
}

// inOrder reports whether the list is sorted. It looks at every hit, one alone too, so a nil pointer among them panics
// here and not later.
func inOrder[H Ranked[ID], ID cmp.Ordered](list []H, order Order) bool {
	if hits, ok := any(list).([]Hit[ID]); ok {
		return hitsInOrder(hits, order) // twice as fast as below, as hitOf has it
	}
	if len(list) == 0 {
		return true
	}
	last := list[0].hit()
	for _, h := range list[1:] {
		next := h.hit()
		if !apart(last.Score, next.Score, order) && compareHits(last, next, order) > 0 {
			return false
		}
		last = next
	}
	return true
}

func hitsInOrder[ID cmp.Ordered](hits []Hit[ID], order Order) bool {
	for i := 1; i < len(hits); i++ {
		a, b := &hits[i-1], &hits[i]
		if !apart(a.Score, b.Score, order) && compareHits(*a, *b, order) > 0 {
			return false
		}
	}
	return true
}

// apart reports whether scores alone, neither of them NaN, tell that a stands before b: the usual case, and three times
// as fast as compareHits.
func apart(a, b float32, order Order) bool {
	return order == ScoreAscending && a < b || order == ScoreDescending && a > b
}

// sortedCopy leaves the order of equal hits as it was, so that the first of them stays the first.
func sortedCopy[H Ranked[ID], ID cmp.Ordered](list []H, order Order) []H {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b H) int { return compareHits(a.hit(), b.hit(), order) })
	return list
}
