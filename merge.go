package scatter

import (
	"cmp"
	"slices"
)

// Merge returns the k best hits of all lists in the given order, each ID once. Of the copies of an
// ID it returns the best-ranked one; under IDAscending it returns the copy with the smallest
// score. Of equal copies it returns the one from the earliest list. The result depends on the
// lists alone, so equal lists always give equal results.
//
// Each list should be sorted in that order, as the answers of a search are. Merge checks this. It
// copies and sorts a list that isn't sorted. It never writes to a list. If k < 1, it returns nil.
// A k greater than the number of hits costs nothing extra. The caller owns the result, but hits
// that hold pointers share what these point to with the lists.
//
// Merge checks each hit's order once and then does a k-way merge. That takes O((k + d +
// len(lists)) log len(lists)) steps, where d is the number of duplicates skipped, and one
// allocation. It panics if order is not one of the three orders. It is safe for concurrent use as
// long as nobody writes to the lists.
func Merge[H Ranked[ID], ID cmp.Ordered](lists [][]H, k int, order Order) []H {
	if k > 0 {
		lists = sortedLists(lists, order)
	}
	return MergeSorted(nil, lists, k, order)
}

// MergeSorted is [Merge] without the check: it appends the k best hits to dst and returns the
// extended slice. It reads hardly more hits than it returns, and allocates nothing if dst has room
// for min(k, number of hits) more.
//
// The caller must make sure that each list is sorted in order. If one is not, the result may be in
// the wrong order and may lack better hits, but MergeSorted neither panics nor returns an ID
// twice.
//
// dst must not overlap the lists. The hits in dst are not compared with those of the lists, so an
// ID in dst may be appended again.
func MergeSorted[H Ranked[ID], ID cmp.Ordered](dst []H, lists [][]H, k int, order Order) []H {
	dst, _ = mergeSorted(dst, lists, k, order)
	return dst
}

// mergeSorted is MergeSorted. It also returns the number of duplicates that it skipped.
func mergeSorted[H Ranked[ID], ID cmp.Ordered](
	dst []H, lists [][]H, k int, order Order,
) (merged []H, duplicates int) {
	if !order.valid() {
		panic("scatter: Merge: unknown " + order.String())
	}
	// Rule 3: the result takes min(k, number of hits). The first few lists of many are enough to
	// know it.
	n := 0
	for i := 0; i < len(lists) && n < k; i++ {
		n += min(len(lists[i]), k-n)
	}
	if n < 1 {
		return dst, 0
	}
	return mergeBest(dst, lists, n, order)
}

// sortedLists returns the lists, with a sorted copy in place of each list that isn't sorted.
//
// Rule 4: it writes neither to the lists nor to the slice of them.
func sortedLists[H Ranked[ID], ID cmp.Ordered](lists [][]H, order Order) [][]H {
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
	return lists
}

// sortedCopy returns a sorted copy of list. Equal hits keep their places relative to each other,
// so that the first of them stays the first.
func sortedCopy[H Ranked[ID], ID cmp.Ordered](list []H, order Order) []H {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b H) int { return compareHits(a.hit(), b.hit(), order) })
	return list
}

// inOrder reports whether list is sorted. It reads every hit, even a single one, so that a nil
// pointer among them panics here and not later.
func inOrder[H Ranked[ID], ID cmp.Ordered](list []H, order Order) bool {
	if hits, ok := any(list).([]Hit[ID]); ok {
		return hitsInOrder(hits, order) // without the indirect call of hit: several times as fast
	}
	if len(list) == 0 {
		return true
	}
	last := list[0].hit()
	for _, h := range list[1:] {
		next := h.hit()
		ascends := order == ScoreAscending && last.Score < next.Score
		descends := order == ScoreDescending && last.Score > next.Score
		if !ascends && !descends && compareHits(last, next, order) > 0 {
			return false
		}
		last = next
	}
	return true
}

// hitsInOrder is inOrder for hits of the type Hit.
func hitsInOrder[ID cmp.Ordered](hits []Hit[ID], order Order) bool {
	for i := 1; i < len(hits); i++ {
		// Rule 1: equal scores are ordered by ID.
		if order == IDAscending || hits[i-1].Score == hits[i].Score {
			if lessID(hits[i].ID, hits[i-1].ID) {
				return false
			}
			continue
		}
		// Different scores, the usual case, are checked in one go, without a look at the IDs.
		if order == ScoreAscending {
			i += ascending(hits[i-1:])
		} else {
			i += descending(hits[i-1:])
		}
		if i < len(hits) && compareHits(hits[i-1], hits[i], order) > 0 {
			return false
		}
	}
	return true
}

// ascending returns how many leading hits have a smaller score than the hit after them. It
// compares four pairs before it moves on, which is 1.5 times as fast as one pair.
func ascending[ID cmp.Ordered](hits []Hit[ID]) int {
	rest := hits
	for len(rest) > 4 && rest[0].Score < rest[1].Score && rest[1].Score < rest[2].Score &&
		rest[2].Score < rest[3].Score && rest[3].Score < rest[4].Score {
		rest = rest[4:]
	}
	for len(rest) > 1 && rest[0].Score < rest[1].Score {
		rest = rest[1:]
	}
	return len(hits) - len(rest)
}

// descending returns how many leading hits have a greater score than the hit after them.
func descending[ID cmp.Ordered](hits []Hit[ID]) int {
	rest := hits
	for len(rest) > 4 && rest[0].Score > rest[1].Score && rest[1].Score > rest[2].Score &&
		rest[2].Score > rest[3].Score && rest[3].Score > rest[4].Score {
		rest = rest[4:]
	}
	for len(rest) > 1 && rest[0].Score > rest[1].Score {
		rest = rest[1:]
	}
	return len(hits) - len(rest)
}

// distinctPrefix returns how many leading hits of a sorted list a merge to the k best can need. A
// merge of lists that are cut to these hits has the same result as a merge of the whole lists.
//
// It takes constant time if the list has at most k hits, and reads hardly more than k distinct
// hits if not.
func distinctPrefix[H Ranked[ID], ID cmp.Ordered](list []H, k int, order Order) int {
	switch {
	case k < 1:
		return 0
	case len(list) <= k:
		return len(list)
	case order != IDAscending:
		// Rule 2: a later copy of an ID ranks behind the first one and never counts.
		return endOfDistinct(list, k)
	}
	// Rule 2: any copy of an ID may be the one that counts. Copies are adjacent.
	end := 1
	for distinct := 1; end < len(list); end++ {
		if sameID(list[end-1].hit().ID, list[end].hit().ID) {
			continue
		}
		if distinct == k {
			break
		}
		distinct++
	}
	return end
}

// endOfDistinct returns how many leading hits of a list hold k distinct IDs, or all if the list
// has fewer.
func endOfDistinct[H Ranked[ID], ID cmp.Ordered](list []H, k int) int {
	m := merger[H, ID]{scratch: scratchPool.Get().(*scratch), out: list}
	m.resetSeen(k)
	end := 0
	for distinct := 0; distinct < k && end < len(list); end++ {
		if m.see(list[end].hit().ID, end) {
			distinct++
		}
	}
	scratchPool.Put(m.scratch)
	return end
}
