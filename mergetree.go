package scatter

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"sort"
	"sync"
)

// merger is one merge in progress.
//
// It has two winner trees. The tree of scores merges lists in a score order and never compares
// IDs. The tree of IDs merges runs, which are parts of lists that are sorted by ID: the hits that
// share one score, or whole lists under IDAscending.
//
// A winner tree of n entries is an array of 2n. Leaf n+i stands for entry i, and node j for the
// better of nodes 2j and 2j+1, so node 1 is the best of all. This holds for every n.
type merger[H Ranked[ID], ID cmp.Ordered] struct {
	*scratch
	lists      [][]H
	hits       [][]Hit[ID] // lists again if H is Hit itself, otherwise nil
	order      Order
	ascending  bool // the IDs of the result ascend, so no two of them are equal
	skip       int  // the IDs in all runs begin with the same skip bytes, which idKey skips
	out        []H
	base, full int // out[base:] is the result of this merge, which is complete if len(out) == full
	duplicates int
}

// scratch is the memory that a merge needs besides its result. Nothing in it depends on the type
// of the hits, so one pool serves all merges.
type scratch struct {
	next   []int    // for each list, the place of its next hit
	scores []uint64 // the tree of scores
	runs   []idRun  // what mergeRuns merges
	idTree []int32  // the tree of IDs
	seen   []uint64 // hash table: half of an ID's hash, then 1 + its place in out[base:]; or 0
}

// idRun is what mergeRuns has yet to read of a list: the hits from at up to end.
type idRun struct {
	list, at, end int
	key           uint64 // idKey of the hit at, or MaxUint64 if at == end
}

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// resized returns a slice of length n with arbitrary contents. It uses the memory of s if that is
// enough.
func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// zeroed returns a slice of n zeros. It uses the memory of s if that is enough.
func zeroed[T any](s []T, n int) []T {
	s = resized(s, n)
	clear(s)
	return s
}

// mergeBest appends the n best hits of all lists to dst, or all hits if there are fewer distinct
// IDs. It also returns the number of duplicates that it skipped.
func mergeBest[H Ranked[ID], ID cmp.Ordered](dst []H, lists [][]H, n int, order Order) ([]H, int) {
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
		m.mergeByID()
	} else {
		m.mergeByScore()
	}
	scratchPool.Put(s)
	return m.out, m.duplicates
}

// hitOf returns the hit at a place of list i.
//
// In generic code, h.hit() is an indirect call, but a field of Hit[ID] is read directly. So lists
// of Hit itself, which are the most frequent, are read without the method. That makes a merge 10
// to 20 % faster. The compiler would not inline this function if it were longer.
func hitOf[H Ranked[ID], ID cmp.Ordered](hits [][]Hit[ID], lists [][]H, i, at int) Hit[ID] {
	if hits != nil {
		return hits[i][at]
	}
	return lists[i][at].hit()
}

// exhausted is greater than the keys of all hits in the tree of scores: no list has the number
// MaxUint32.
const exhausted = math.MaxUint64

// mergeByScore merges in a score order.
//
// A key in the tree of scores is the scoreKey of a list's next hit, followed by the list's number.
// So one integer comparison decides, the winner names its list, and the first list wins among
// equal scores.
//
// Hits with equal scores are merged by ID, apart from the tree.
func (m *merger[H, ID]) mergeByScore() {
	m.buildScoreTree()
	m.resetSeen(m.full - m.base)
	for len(m.out) < m.full {
		won := m.scores[1]
		if won == exhausted {
			return
		}
		i := int(uint32(won))
		at := m.next[i]
		m.moveTo(i, at+1)
		if m.scores[1]>>32 == won>>32 && m.mergeTie(won) {
			continue
		}
		if m.see(hitOf(m.hits, m.lists, i, at).ID, len(m.out)) {
			m.out = append(m.out, m.lists[i][at])
		} else {
			m.duplicates++
		}
	}
}

// buildScoreTree inlines key by hand, which makes merges of many lists to a small k 15 % faster.
func (m *merger[H, ID]) buildScoreTree() {
	n := len(m.lists)
	m.next = zeroed(m.next, n)
	m.scores = resized(m.scores, 2*n)
	tree := m.scores
	leaves := tree[n:]
	for i := range leaves {
		leaves[i] = exhausted
		if len(m.lists[i]) > 0 {
			leaves[i] = uint64(scoreKey(hitOf(m.hits, m.lists, i, 0).Score, m.order))<<32 | uint64(i)
		}
	}
	for j := n - 1; j > 0; j-- {
		tree[j] = min(tree[2*j], tree[2*j+1])
	}
}

// moveTo makes the hit at a place of list i its next hit, and updates the tree of scores.
//
// The path to the root is known in advance and min compiles to a conditional move, so no branch is
// mispredicted. The caller reads the winner from scores[1] instead of a result, because the
// compiler uses no conditional move for a value that is the index of a later load.
func (m *merger[H, ID]) moveTo(i, at int) {
	m.next[i] = at
	key := uint64(exhausted)
	if at < len(m.lists[i]) {
		key = uint64(scoreKey(hitOf(m.hits, m.lists, i, at).Score, m.order))<<32 | uint64(i)
	}
	tree := m.scores
	j := len(m.lists) + i
	tree[j] = key
	for j > 1 {
		key = min(key, tree[j^1])
		j /= 2
		tree[j] = key
	}
}

func (m *merger[H, ID]) scoreKeyOf(i, at int) uint32 {
	return scoreKey(hitOf(m.hits, m.lists, i, at).Score, m.order)
}

// mergeTie is called after the hit with the key won was taken, if the next hit has the same score.
// It skips copies of the hit that was taken. If other hits have that score, it merges all hits of
// that score and returns true.
func (m *merger[H, ID]) mergeTie(won uint64) bool {
	i := int(uint32(won))
	at := m.next[i] - 1
	id := hitOf(m.hits, m.lists, i, at).ID
	for m.scores[1]>>32 == won>>32 && m.scores[1] != exhausted {
		j := int(uint32(m.scores[1]))
		if !sameID(hitOf(m.hits, m.lists, j, m.next[j]).ID, id) {
			m.duplicates -= m.next[i] - at - 1 // mergeScore counts the copies in list i again
			m.next[i] = at
			m.mergeScore(i, uint32(won>>32))
			return true
		}
		m.duplicates++ // the usual tie: a replica's copy
		m.moveTo(j, m.next[j]+1)
	}
	return false
}

// mergeScore merges all hits of one score by ID. The first of them is the next hit of list first.
func (m *merger[H, ID]) mergeScore(first int, score uint32) {
	m.runs = m.runs[:0]
	m.takeRun(first, score)
	for uint32(m.scores[1]>>32) == score && m.scores[1] != exhausted {
		m.takeRun(int(uint32(m.scores[1])), score)
	}
	m.mergeRuns()
}

// takeRun makes a run of the next hits of list i that have the given score.
func (m *merger[H, ID]) takeRun(i int, score uint32) {
	from, end := m.next[i], len(m.lists[i])
	// The run may be long and k small, so its end is found by doubling steps and then by halving.
	step := 1
	for from+step < end && m.scoreKeyOf(i, from+step) == score {
		step *= 2
	}
	lo := from + step/2 + 1
	hi := min(from+step, end)
	end = lo + sort.Search(hi-lo, func(n int) bool { return m.scoreKeyOf(i, lo+n) != score })
	m.runs = append(m.runs, idRun{list: i, at: from, end: end})
	m.moveTo(i, end)
}

// mergeByID merges in the order IDAscending. The IDs of sorted lists come out ascending, so that
// no ID comes twice, and none needs to be hashed.
func (m *merger[H, ID]) mergeByID() {
	m.ascending = true
	m.addWholeLists()
	if m.mergeRuns() {
		return
	}
	// Rule 4: some list isn't sorted, so the merge starts over and hashes what it returns.
	m.ascending = false
	m.out, m.duplicates = m.out[:m.base], 0
	m.resetSeen(m.full - m.base)
	m.addWholeLists()
	m.mergeRuns()
}

func (m *merger[H, ID]) addWholeLists() {
	m.runs = m.runs[:0]
	for i, list := range m.lists {
		if len(list) > 0 {
			m.runs = append(m.runs, idRun{list: i, end: len(list)})
		}
	}
}

// mergeRuns merges the runs by ID, none of which is empty. If m.ascending and the IDs turn out not
// to ascend, it stops and returns false.
func (m *merger[H, ID]) mergeRuns() bool {
	m.buildIDTree()
	for len(m.out) < m.full {
		i, at := m.nextByID()
		if i < 0 {
			break
		}
		i, at, sorted := m.bestCopy(i, at)
		if m.ascending && !sorted {
			return false
		}
		if m.ascending || m.see(hitOf(m.hits, m.lists, i, at).ID, len(m.out)) {
			m.out = append(m.out, m.lists[i][at])
		} else {
			m.duplicates++
		}
	}
	return true
}

// bestCopy takes the remaining copies of the hit that nextByID has just returned. It returns the
// best copy, and whether the next ID is greater.
//
// Rule 2: the best copy has the smallest score, and of equal scores the earliest list.
func (m *merger[H, ID]) bestCopy(i, at int) (list, place int, sorted bool) {
	best := hitOf(m.hits, m.lists, i, at)
	for {
		r := &m.runs[m.idTree[1]]
		if r.at == r.end {
			return i, at, true
		}
		h := hitOf(m.hits, m.lists, r.list, r.at)
		if lessID(best.ID, h.ID) {
			return i, at, true
		}
		if !sameID(best.ID, h.ID) {
			return i, at, false
		}
		m.duplicates++
		j, to := m.nextByID()
		x, y := scoreKey(h.Score, ScoreAscending), scoreKey(best.Score, ScoreAscending)
		if x < y || x == y && j < i {
			best, i, at = h, j, to
		}
	}
}

// buildIDTree builds the tree of IDs. Each node is the number of the run whose next ID is the
// smallest.
func (m *merger[H, ID]) buildIDTree() {
	m.keyRuns()
	n := len(m.runs)
	m.idTree = resized(m.idTree, 2*n)
	tree, runs := m.idTree, m.runs
	for r := range n {
		tree[n+r] = int32(r)
	}
	for j := n - 1; j > 0; j-- {
		won, other := tree[2*j], tree[2*j+1]
		key, otherKey := runs[won].key, runs[other].key
		if key == otherKey {
			won = m.winner(j)
		} else if otherKey < key {
			won = other
		}
		tree[j] = won
	}
}

// keyRuns sets the key of each run. The tree compares keys, and compares IDs only if their keys
// are equal.
func (m *merger[H, ID]) keyRuns() {
	m.skip = 0
	if !m.setKeys() {
		return
	}
	// All keys are equal, so they decide nothing. Perhaps the IDs share a long prefix, such as a
	// table's name, and the bytes after it are better keys. To look for it costs about as much as
	// four comparisons of IDs for each run, so that pays only if the merge is long.
	n := len(m.runs)
	steps := 0
	for i := range m.runs {
		steps += m.runs[i].end - m.runs[i].at
	}
	steps = min(steps, m.full-len(m.out)) * bits.Len(uint(n))
	if steps < 4*n {
		return
	}
	if m.skip = m.commonPrefix(); m.skip > 0 {
		m.setKeys()
	}
}

// setKeys sets the key of each run, and reports whether all keys are equal.
func (m *merger[H, ID]) setKeys() bool {
	equal := uint64(0)
	runs := m.runs
	for i := range runs {
		r := &runs[i]
		r.key = idKey(hitOf(m.hits, m.lists, r.list, r.at).ID, m.skip)
		equal |= r.key ^ runs[0].key
	}
	return equal == 0
}

// commonPrefix returns how many leading bytes the IDs in all runs have in common. It reads only
// the first and the last ID of each run, because all IDs between them share what these two share.
// In a list that isn't sorted they may not. Then keys are wrong and the IDs come out in a wrong
// order, which costs no more than Rule 4 allows, because bestCopy and see compare whole IDs.
func (m *merger[H, ID]) commonPrefix() int {
	first, ok := any(m.idAt(m.runs[0].list, m.runs[0].at)).(string)
	n := len(first)
	for i := 0; ok && n > 0 && i < len(m.runs); i++ {
		r := &m.runs[i]
		n = commonBytes(first[:n], any(m.idAt(r.list, r.at)).(string))
		n = commonBytes(first[:n], any(m.idAt(r.list, r.end-1)).(string))
	}
	if !ok {
		return 0
	}
	return n
}

func (m *merger[H, ID]) idAt(i, at int) ID { return hitOf(m.hits, m.lists, i, at).ID }

// nextByID takes the hit with the smallest ID from its run. If no hit is left, the list is -1.
//
// As in moveTo, no branch depends on which of two keys is smaller, and the winner is no index.
func (m *merger[H, ID]) nextByID() (list, at int) {
	won, tree, runs := m.idTree[1], m.idTree, m.runs
	r := &runs[won]
	list, at = r.list, r.at
	if at == r.end {
		return -1, 0
	}
	r.at++
	r.key = math.MaxUint64 // an exhausted run loses against every other
	if r.at < r.end {
		r.key = idKey(hitOf(m.hits, m.lists, list, r.at).ID, m.skip)
	}
	key := r.key
	for j := len(runs) + int(won); j > 1; {
		other := tree[j^1]
		otherKey := runs[other].key
		j /= 2
		if key == otherKey {
			won = m.winner(j)
			tree[j] = won
			continue
		}
		if otherKey < key {
			won = other
		}
		key = min(key, otherKey)
		tree[j] = won
	}
	return list, at
}

// winner returns which of the two runs below node j has the smaller next ID. Their keys may be
// equal.
func (m *merger[H, ID]) winner(j int) int32 {
	a, b := m.idTree[2*j], m.idTree[2*j+1]
	x, y := &m.runs[a], &m.runs[b]
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

// see returns true the first time that it is called with an ID. The ID must be that of out[place]
// the next time that see is called.
//
// Rule 2: each ID once. Only IDs that reach this function are hashed.
func (m *merger[H, ID]) see(id ID, place int) bool {
	hash := hashID(id)
	mask := uint64(len(m.seen) - 1)
	for slot := hash & mask; ; slot = (slot + 1) & mask {
		entry := m.seen[slot]
		if entry == 0 {
			m.seen[slot] = hash&^math.MaxUint32 | uint64(place-m.base+1)
			return true
		}
		if (entry^hash)>>32 == 0 && sameID(m.out[m.base+int(uint32(entry))-1].hit().ID, id) {
			return false
		}
	}
}

// resetSeen empties the hash table, and makes room for n IDs, which leave half of it empty.
func (m *merger[H, ID]) resetSeen(n int) {
	m.seen = zeroed(m.seen, 1<<bits.Len(uint(2*n-1)))
}
