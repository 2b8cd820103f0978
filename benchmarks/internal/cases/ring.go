package cases

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/scatterknn/scatter"
)

const (
	tokensEach = 64                    // points of each peer of the large rings: 2,000 peers at 128,000 points
	tokenStep  = 0x9e37_79b9_7f4a_7c15 // from one token looked up to the next, so that they are all over the ring
)

// Ring builds and asks rings.
func Ring() Group {
	g := Group{
		Name:  "Ring",
		Title: "Ring",
		About: "Random tokens, 64 for each peer. The sort is one of the same points by token, then peer, alone.",
		Impls: []Impl{
			{Name: "scatter", Label: "Ring", Ours: true},
			{Name: "sort", Label: "one sort of the points", Lacks: "no ring"},
		},
	}
	for _, op := range []string{"NewRing", "PrimaryPeers", "PreferenceList"} {
		for _, n := range doubling(1000, 128_000) {
			g.Cases = append(g.Cases, Case{Params: []Param{{"op", op}, {"points", n}}, Setup: func() []func() {
				points := somePoints(n)
				if op == "NewRing" {
					return []func(){func() { scatter.NewRing(points...) }, func() { sortPoints(points) }}
				}
				ring := scatter.NewRing(points...)
				if op == "PrimaryPeers" {
					return []func(){func() { ring.PrimaryPeers(nil) }, nil}
				}
				token := uint64(0)
				return []func(){func() { token += tokenStep; ring.PreferenceList(token, 3, nil) }, nil}
			}})
		}
	}
	return g
}

// Cover makes and asks covers.
func Cover() Group {
	g := Group{
		Name:  "Cover",
		Title: "Cover",
		About: "Three replicas on the same rings. **SetCover** gives a `Searcher` a new Cover, and **Search** is one" +
			" search with probes that answer at once: it asks more than a third of the peers, as the tokens are random.",
		Impls: []Impl{{Name: "scatter", Label: "Cover", Ours: true}},
	}
	for _, op := range []string{"NewCover", "Holders", "SetCover", "Search"} {
		for _, n := range doubling(1000, 64_000) {
			c := Case{Params: []Param{{"op", op}, {"points", n}}}
			c.Setup = func() []func() { return []func(){coverOp(op, n)} }
			g.Cases = append(g.Cases, c)
		}
	}
	return g
}

// coverOp returns an operation on a ring of n points.
func coverOp(op string, n int) func() {
	ring := scatter.NewRing(somePoints(n)...)
	cover := scatter.NewCover(ring, replicas)
	switch op {
	case "NewCover":
		return func() { scatter.NewCover(ring, replicas) }
	case "Holders":
		token := uint64(0)
		return func() { token += tokenStep; cover.Holders(token) }
	}
	s := warm(scatter.NewSearcher(instantly, cover, &scatter.SearcherOptions{
		Seed: 1, HedgeDelay: time.Second, HedgeQuantile: -1,
	}))
	if op == "SetCover" {
		return func() { s.SetCover(cover) }
	}
	return searchOver(s)
}

func somePoints(n int) []scatter.Point {
	r := rand.New(rand.NewPCG(uint64(n), tokensEach))
	peers := somePeers(max(n/tokensEach, 1))
	points := make([]scatter.Point, n)
	for i := range points {
		points[i] = scatter.Point{Token: r.Uint64(), Peer: peers[i%len(peers)]}
	}
	return points
}

func sortPoints(points []scatter.Point) []scatter.Point {
	sorted := slices.Clone(points)
	slices.SortFunc(sorted, func(a, b scatter.Point) int {
		if c := cmp.Compare(a.Token, b.Token); c != 0 {
			return c
		}
		return strings.Compare(string(a.Peer), string(b.Peer))
	})
	return sorted
}
