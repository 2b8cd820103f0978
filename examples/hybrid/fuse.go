package main

import (
	"cmp"
	"slices"

	"github.com/scatterknn/scatter"
)

// damping is k of reciprocal rank fusion: the greater it is, the less the first ranks count. 60 is
// the value of Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and
// individual Rank Learning Methods", SIGIR 2009.
const damping = 60

// list is what is known of a ranking.
type list struct {
	ids   []string // best first
	exact int      // the first so many ids have the same rank in the whole ranking
	whole bool     // the whole ranking has no other ids
}

// listOf returns what a response tells of its ranking. Next is empty only if nothing can follow. If
// the response is partial, documents that are missing may come before any of its hits: then no rank
// is exact.
func listOf(resp *scatter.Response[found]) list {
	l := list{exact: resp.Exact, whole: resp.Next == ""}
	if resp.Partial {
		l.exact = 0
	}
	for _, h := range resp.Hits {
		l.ids = append(l.ids, h.ID)
	}
	return l
}

// fused is a document of several lists.
type fused struct {
	id    string
	ranks []int // in each list, from 1; 0 if it isn't there
	score float64
}

// fuse returns the documents of all lists by reciprocal rank fusion, best first. Equal scores are
// ordered by ID.
func fuse(lists ...list) []fused {
	byID := make(map[string]*fused)
	for i, l := range lists {
		for j, id := range l.ids {
			if byID[id] == nil {
				byID[id] = &fused{id: id, ranks: make([]int, len(lists))}
			}
			byID[id].ranks[i] = j + 1
		}
	}
	var all []fused
	for _, f := range byID {
		for _, rank := range f.ranks {
			f.score += reciprocal(rank)
		}
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b fused) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
	})
	return all
}

// reciprocal returns what a list adds to the score of a document at a rank, or 0 if rank is 0.
func reciprocal(rank int) float64 {
	if rank == 0 {
		return 0
	}
	return 1 / float64(damping+rank)
}

// certain returns how many of the leading documents that fuse has returned for the lists would be
// the same, in the same order, if the lists were known whole.
//
// A document is certain if the least score that it can have is greater than the greatest that any
// later one can have, and any that is in none of the lists: 1/(60+n+1) summed over the lists, where
// n is how many ranks of a list are exact.
func certain(all []fused, lists ...list) int {
	unseen := highest(fused{ranks: make([]int, len(lists))}, lists)
	for i, f := range all {
		low := lowest(f, lists)
		if low <= unseen { // Its ID may be the smaller one, so that a tie isn't certain.
			return i
		}
		for _, other := range all[i+1:] {
			if high := highest(other, lists); low < high || low == high && other.id < f.id {
				return i
			}
		}
	}
	return len(all)
}

// lowest returns the least score that a document can have: a rank that isn't exact may be any.
func lowest(f fused, lists []list) (score float64) {
	for i, rank := range f.ranks {
		if rank <= lists[i].exact {
			score += reciprocal(rank)
		}
	}
	return score
}

// highest returns the greatest score that a document can have. What isn't known yet can only put it
// further back in a list that has it. In another list, it can be right after the exact ranks.
func highest(f fused, lists []list) (score float64) {
	for i, rank := range f.ranks {
		if rank == 0 && !lists[i].whole {
			rank = lists[i].exact + 1
		}
		score += reciprocal(rank)
	}
	return score
}
