package cases

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/scatterknn/scatter"
)

type (
	hit   = scatter.Hit[string]
	hit64 = scatter.Hit[uint64]

	// doc is a hit that carries something, as most callers' do.
	doc struct {
		scatter.Hit[string]
		Title string
	}

	// inputs are what a merge is measured on.
	inputs struct{ peers, k, dups int }
)

var (
	mergeSizes = []inputs{
		{3, 10, 0}, {10, 10, 0}, {100, 10, 0}, {16, 100, 0}, {100, 100, 0}, {1000, 10, 0}, {100, 1000, 0}, {1000, 100, 0},
	}

	trusted    = Impl{Name: "scatter", Label: "scatter", Ours: true}
	checked    = Impl{Name: "checked", Label: "scatter, checked", Ours: true}
	into       = Impl{Name: "into", Label: "scatter, into a slice", Ours: true}
	sorting    = Impl{Name: "sort", Label: "sort of the union", Lacks: lacksNaN}
	heaping    = Impl{Name: "heap", Label: "container/heap", Lacks: lacksNaN + "; trusts the lists to be sorted"}
	tournament = Impl{Name: "loser", Label: "go-loser", Lacks: lacksNaN + ", loses hits with a score of +Inf" +
		"; trusts the lists to be sorted"}
)

const lacksNaN = "has no place for NaN scores"

// Merge merges lists of scored hits with string IDs.
func Merge() Group {
	g := Group{
		Name:  "Merge",
		Title: "Merge",
		About: "The k best of k hits from each peer, in sorted lists, with 12-byte string IDs, each ID once. **scatter**" +
			" is `MergeSorted` into a fresh slice, **into a slice** the same into one that is large enough, and" +
			" **checked** is `Merge`, which looks at every hit to see that the lists are sorted. The sort appends all hits" +
			" to one slice, sorts it by score and ID, and copies from it what a hash set has not seen yet. The rivals have" +
			" such a set too. With dups=50, half of the hits are copies of another list's, as of replicas. Several inputs" +
			" of the same size are merged in turn, lest the processor learn one by heart.",
		Impls: []Impl{trusted, into, checked, sorting, heaping, tournament},
	}
	for _, dups := range []int{0, 50} {
		for _, in := range mergeSizes {
			in.dups = dups
			g.Cases = append(g.Cases, in.mergeCase(func() []func() {
				room := make([]hit, 0, in.k)
				return inTurn(several(in, in.lists),
					func(lists [][]hit) { scatter.MergeSorted(nil, lists, in.k, scatter.ScoreAscending) },
					func(lists [][]hit) { scatter.MergeSorted(room, lists, in.k, scatter.ScoreAscending) },
					func(lists [][]hit) { scatter.Merge(lists, in.k, scatter.ScoreAscending) },
					func(lists [][]hit) { sortUnion(lists, in.k, byScore) },
					func(lists [][]hit) { heapMerge(lists, in.k) },
					func(lists [][]hit) { loserMerge(lists, in.k) },
				)
			}))
		}
	}
	return g
}

// MergeU64 is Merge with numbers for IDs.
func MergeU64() Group {
	g := Group{
		Name:  "MergeU64",
		Title: "Merge, IDs of type uint64",
		About: "As above, without duplicates.",
		Impls: []Impl{trusted, sorting},
	}
	for _, in := range mergeSizes {
		g.Cases = append(g.Cases, in.mergeCase(func() []func() {
			inputs := several(in, func(variant int) [][]hit64 { return listsOf(in, variant, scrambled, byScore64) })
			return inTurn(inputs,
				func(lists [][]hit64) { scatter.MergeSorted(nil, lists, in.k, scatter.ScoreAscending) },
				func(lists [][]hit64) { sortUnion(lists, in.k, byScore64) },
			)
		}))
	}
	return g
}

// MergeByID is Merge of lists that are sorted by ID, as those of text queries are.
func MergeByID() Group {
	g := Group{
		Name:  "MergeByID",
		Title: "Merge by ID",
		About: "As above, with string IDs and without duplicates, in the order IDAscending.",
		Impls: []Impl{trusted, sorting},
	}
	for _, in := range mergeSizes {
		g.Cases = append(g.Cases, in.mergeCase(func() []func() {
			inputs := several(in, func(variant int) [][]hit { return listsOf(in, variant, docID, byID) })
			return inTurn(inputs,
				func(lists [][]hit) { scatter.MergeSorted(nil, lists, in.k, scatter.IDAscending) },
				func(lists [][]hit) { sortUnion(lists, in.k, byID) },
			)
		}))
	}
	return g
}

// MergeEmbedded is Merge of hits that carry more than ID and score.
func MergeEmbedded() Group {
	g := Group{
		Name:  "MergeEmbedded",
		Title: "Merge, hits with a payload",
		About: "`Hit[string]` by itself, a struct that embeds it and has a title, and pointers to such structs.",
		Impls: []Impl{
			trusted,
			{Name: "embedded", Label: "scatter, embedded", Ours: true},
			{Name: "pointer", Label: "scatter, pointers", Ours: true},
		},
	}
	for _, in := range mergeSizes {
		g.Cases = append(g.Cases, in.mergeCase(func() []func() {
			inputs := several(in, func(variant int) carriers { return carriersOf(in.lists(variant)) })
			return inTurn(inputs,
				func(c carriers) { scatter.MergeSorted(nil, c.hits, in.k, scatter.ScoreAscending) },
				func(c carriers) { scatter.MergeSorted(nil, c.docs, in.k, scatter.ScoreAscending) },
				func(c carriers) { scatter.MergeSorted(nil, c.pointers, in.k, scatter.ScoreAscending) },
			)
		}))
	}
	return g
}

// MergeOverPeers shows how a merge grows with the number of lists.
func MergeOverPeers() Group {
	g := Group{
		Name: "MergeOverPeers", Growth: true,
		Title: "Merge, over the number of peers", About: "K = 100, without duplicates.",
	}
	for _, peers := range doubling(1, 1024) {
		g.addGrowing(inputs{peers, 100, 0})
	}
	return g
}

// MergeOverK shows how a merge grows with K.
func MergeOverK() Group {
	g := Group{Name: "MergeOverK", Growth: true, Title: "Merge, over K", About: "100 peers, without duplicates."}
	for _, k := range doubling(10, 1280) {
		g.addGrowing(inputs{100, k, 0})
	}
	return g
}

func (g *Group) addGrowing(in inputs) {
	g.Impls = []Impl{trusted, checked, sorting, heaping, tournament}
	g.Cases = append(g.Cases, in.mergeCase(func() []func() {
		return inTurn(several(in, in.lists),
			func(lists [][]hit) { scatter.MergeSorted(nil, lists, in.k, scatter.ScoreAscending) },
			func(lists [][]hit) { scatter.Merge(lists, in.k, scatter.ScoreAscending) },
			func(lists [][]hit) { sortUnion(lists, in.k, byScore) },
			func(lists [][]hit) { heapMerge(lists, in.k) },
			func(lists [][]hit) { loserMerge(lists, in.k) },
		)
	}))
}

func (in inputs) mergeCase(setup func() []func()) Case {
	return Case{Params: []Param{{"peers", in.peers}, {"k", in.k}, {"dups", in.dups}}, Setup: setup}
}

// several makes variants of an input. A processor learns the branches of one small input by heart if it sees nothing
// else, and then a sort or a heap seems to be up to twice as fast as it is on queries that differ.
func several[T any](in inputs, variant func(int) T) []T {
	variants := make([]T, min(max(40_000/(in.peers*in.k), 4), 64))
	for i := range variants {
		variants[i] = variant(i)
	}
	return variants
}

// inTurn has each of the functions take the inputs in turn.
func inTurn[T any](inputs []T, functions ...func(T)) []func() {
	runs := make([]func(), len(functions))
	for i, f := range functions {
		next := 0
		runs[i] = func() {
			f(inputs[next])
			next = (next + 1) % len(inputs)
		}
	}
	return runs
}

// lists returns a variant of the input, with string IDs and sorted by score.
func (in inputs) lists(variant int) [][]hit { return listsOf(in, variant, docID, byScore) }

// listsOf returns sorted lists of k hits for each peer. In each but the first, dups of a hundred hits are copies of an
// earlier list's, with the same score; of the other IDs, no two are alike.
func listsOf[ID cmp.Ordered](
	in inputs, variant int, id func(n int) ID, compare func(a, b scatter.Hit[ID]) int,
) [][]scatter.Hit[ID] {
	r := rand.New(rand.NewPCG(uint64(in.peers*in.k), uint64(variant)))
	lists := make([][]scatter.Hit[ID], in.peers)
	made := 0
	for i := range lists {
		has := make(map[ID]bool, in.k)
		for len(lists[i]) < in.k {
			h := scatter.Hit[ID]{ID: id(made), Score: r.Float32()}
			made++
			if i > 0 && r.IntN(100) < in.dups {
				h = lists[r.IntN(i)][r.IntN(in.k)]
			}
			if !has[h.ID] {
				has[h.ID] = true
				lists[i] = append(lists[i], h)
			}
		}
	}
	for _, list := range lists {
		slices.SortFunc(list, compare)
	}
	return lists
}

// scrambled returns a number of up to 8 digits, another one for each n below 10^8, in no apparent order.
func scrambled(n int) uint64 { return (uint64(n)*48_271_939 + 12_345_679) % 1e8 }

func docID(n int) string { return fmt.Sprintf("doc-%08d", scrambled(n)) }

// carriers are the same lists with several types of hits.
type carriers struct {
	hits     [][]hit
	docs     [][]doc
	pointers [][]*doc
}

func carriersOf(lists [][]hit) carriers {
	return carriers{
		lists,
		carried(lists, func(h hit) doc { return doc{h, "a title"} }),
		carried(lists, func(h hit) *doc { return &doc{h, "a title"} }),
	}
}

// carried returns the lists with another type of hit.
func carried[H any](lists [][]hit, wrap func(hit) H) [][]H {
	out := make([][]H, len(lists))
	for i, list := range lists {
		for _, h := range list {
			out[i] = append(out[i], wrap(h))
		}
	}
	return out
}

func byScore(a, b hit) int {
	if c := cmp.Compare(a.Score, b.Score); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

func byScore64(a, b hit64) int {
	if c := cmp.Compare(a.Score, b.Score); c != 0 {
		return c
	}
	return cmp.Compare(a.ID, b.ID)
}

func byID(a, b hit) int {
	if c := strings.Compare(a.ID, b.ID); c != 0 {
		return c
	}
	return cmp.Compare(a.Score, b.Score)
}
