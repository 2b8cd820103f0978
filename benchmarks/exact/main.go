// Command exact measures what it takes to have an exact top-K without asking each peer for all of K:
// how many hits move, how many queries need a second round, and how many answers would be wrong
// without one. It steps the library's own Coordinator.
//
//	go run -C benchmarks ./exact [-queries N] [-out DIR]
//
// The peers hold disjoint parts. A query is the order in which their documents stand in the global
// ranking: each rank belongs to a peer that is drawn. By hash, all peers are as likely; by meaning, a
// query is near to some of them (lognormal weights, sigma 1).
package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/benchmarks/internal/chart"
)

func main() {
	queries := flag.Int("queries", 1000, "queries of each size")
	out := flag.String("out", filepath.Join("..", "docs"), "folder for exact.svg; \"\" draws nothing")
	flag.Parse()
	if err := run(*queries, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// sizes are peers and K.
var sizes = [][2]int{{16, 100}, {100, 100}, {16, 1000}, {16, 10000}}

func run(queries int, out string) error {
	fmt.Println("| peers x K | placed | hits moved | second round | exact | exact without it |")
	fmt.Println("|---|---|---|---|---|---|")
	figure := chart.Figure{
		Title: "Hits moved, as a share of asking each peer for K", Width: 300, Legend: true,
		Y: chart.Axis{Min: 0.05, Max: 1, Ticks: []chart.Tick{{At: 0.05, Label: "5 %"}, {At: 0.1, Label: "10 %"}, {At: 0.25, Label: "25 %"}, {At: 1, Label: "100 %"}}},
	}
	for _, placed := range []string{"by hash", "by meaning"} {
		panel := chart.Panel{Title: "documents placed " + placed, X: chart.Axis{
			Label: "K, of 16 peers", Min: 100, Max: 10000,
			Ticks: []chart.Tick{{At: 100, Label: "100"}, {At: 1000, Label: "1000"}, {At: 10000, Label: "10000"}},
		}}
		refilled := chart.Line{Label: "SpreadK(0.9999) and refill: all exact", Marks: true}
		without := chart.Line{Label: "Vespa's formula alone", Note: "exact by hash only", Marks: true}
		for _, size := range sizes {
			n := queries
			if size[1] >= 1000 {
				n = max(queries*100/size[1], 10)
			}
			r, err := measure(size[0], size[1], n, placed == "by meaning")
			if err != nil {
				return err
			}
			fmt.Printf("| %d x %d | %s | %.3f | %.1f %% | %.2f %% | %.2f %% |\n",
				size[0], size[1], placed, r.moved, 100*r.second, 100*r.exact, 100*r.without)
			if size[0] == 16 {
				refilled.Points = append(refilled.Points, chart.Point{X: float64(size[1]), Y: r.moved})
				without.Points = append(without.Points, chart.Point{X: float64(size[1]), Y: r.first})
			}
		}
		panel.Lines = []chart.Line{refilled, without}
		figure.Panels = append(figure.Panels, panel)
	}
	if out == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(out, "exact.svg"), []byte(figure.SVG()), 0o644)
}

// result has shares: of the hits that asking for all of K moves, and of the queries.
type result struct{ moved, first, second, exact, without float64 }

func measure(peers, k, queries int, byMeaning bool) (result, error) {
	r := rand.New(rand.NewPCG(uint64(peers), uint64(k)))
	var sum result
	for range queries {
		moved, first, second, exact, without, err := ask(draw(r, peers, k, byMeaning), k)
		if err != nil {
			return result{}, err
		}
		sum.moved += float64(moved) / float64(peers*k)
		sum.first += float64(first) / float64(peers*k)
		sum.second += share(second)
		sum.exact += share(exact)
		sum.without += share(without)
	}
	n := float64(queries)
	return result{sum.moved / n, sum.first / n, sum.second / n, sum.exact / n, sum.without / n}, nil
}

func share(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// draw returns what each peer holds of a query's ranking. A document's ID and score are its rank.
func draw(r *rand.Rand, peers, k int, byMeaning bool) [][]scatter.Hit[int] {
	upTo, total := make([]float64, peers), 0.0
	for i := range upTo {
		weight := 1.0
		if byMeaning {
			weight = math.Exp(r.NormFloat64())
		}
		total += weight
		upTo[i] = total
	}
	held := make([][]scatter.Hit[int], peers)
	for rank := range 4*k + 200 {
		i := sort.SearchFloat64s(upTo, r.Float64()*total)
		held[i] = append(held[i], scatter.Hit[int]{ID: rank, Score: float32(rank)})
	}
	return held
}

// ask makes one query by SpreadK and refill. The K best are the ranks below K.
func ask(held [][]scatter.Hit[int], k int) (moved, first int, second, exact, without bool, err error) {
	peers := make([]scatter.PeerID, len(held))
	number := make(map[scatter.PeerID]int, len(held))
	for i := range held {
		peers[i] = scatter.PeerID(fmt.Sprint("peer", i))
		number[peers[i]] = i
	}
	var asks []scatter.Ask
	c, err := scatter.NewCoordinator[scatter.Hit[int]](
		&scatter.Request{Query: scatter.KNN{}, K: k}, peers,
		func(a scatter.Ask) bool { asks = append(asks, a); return true },
		&scatter.Options{PeerK: scatter.SpreadK(0.9999)})
	if err != nil {
		return 0, 0, false, false, false, err
	}
	now := time.Now()
	c.Begin(now, time.Time{})
	var lists [][]scatter.Hit[int]
	for len(asks) > 0 {
		a := asks[0]
		asks = asks[1:]
		list := held[number[a.Peer]]
		list = list[min(a.Request.Skip, len(list)):min(a.Request.K, len(list))]
		moved += len(list)
		if a.Request.Skip > 0 {
			second = true
		} else {
			first += len(list)
			lists = append(lists, list)
		}
		c.Reply(now, a.Index, list, nil)
	}
	resp := c.Response()
	exact = resp.Exact == k && isTop(resp.Hits, k)
	return moved, first, second, exact, isTop(scatter.Merge(lists, k, scatter.ScoreAscending), k), nil
}

func isTop(hits []scatter.Hit[int], k int) bool {
	if len(hits) != k {
		return false
	}
	for i, h := range hits {
		if h.ID != i {
			return false
		}
	}
	return true
}
