package cases

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/scatterknn/scatter"
)

// smallEnough is a bound of Case.Size, to keep tests short under the race detector.
const smallEnough = 5000

// Every function of every small case does its work: it would panic otherwise.
func TestCasesRun(t *testing.T) {
	names := make(map[string]bool)
	for _, g := range All() {
		for _, c := range g.Cases {
			name := g.Name + "/" + c.Name()
			if names[name] {
				t.Errorf("%s stands twice", name)
			}
			names[name] = true
			if c.Size() > smallEnough {
				continue
			}
			runs := c.Setup()
			if len(runs) != len(g.Impls) {
				t.Fatalf("%s has %d functions, want one for each of %d implementations", name, len(runs), len(g.Impls))
			}
			if runs[0] == nil {
				t.Errorf("%s: the first implementation can't do it, and there is nothing to compare with", name)
			}
			for i, run := range runs {
				if run == nil {
					continue
				}
				run()
				run()
				if impl := g.Impls[i]; impl.Ours == (impl.Lacks != "") {
					t.Errorf("%s: %s is ours or lacks something, want one of both", name, impl.Name)
				}
			}
		}
	}
}

// A rival that merges otherwise is none.
func TestMergesGiveTheSame(t *testing.T) {
	for _, in := range []inputs{
		{1, 1, 0}, {1, 10, 0}, {2, 30, 50}, {3, 10, 0}, {16, 100, 50}, {100, 10, 50}, {7, 50, 90},
	} {
		lists := in.lists(0)
		t.Run(fmt.Sprint(in), func(t *testing.T) { wantSameMerges(t, lists) })
		coarse := carried(lists, func(h hit) hit { return hit{ID: h.ID, Score: float32(int(4 * h.Score))} })
		for _, list := range coarse {
			slices.SortFunc(list, byScore)
		}
		t.Run(fmt.Sprint(in, " many ties"), func(t *testing.T) { wantSameMerges(t, coarse) })
	}
	wantSameMerges(t, nil)
	wantSameMerges(t, [][]hit{nil, {}, nil})
}

func wantSameMerges(t *testing.T, lists [][]hit) {
	t.Helper()
	for _, k := range []int{1, 2, 10, 100, 1000, 10_000} {
		want := scatter.Merge(lists, k, scatter.ScoreAscending)
		for name, got := range map[string][]hit{
			"trusted": scatter.MergeSorted(nil, lists, k, scatter.ScoreAscending),
			"sort":    sortUnion(lists, k, byScore),
			"heap":    heapMerge(lists, k),
			"loser":   loserMerge(lists, k),
		} {
			if !slices.Equal(got, want) {
				t.Errorf("k = %d: %s gives %v, want %v", k, name, got, want)
			}
		}
	}
}

func TestOtherMergesGiveTheSame(t *testing.T) {
	for _, in := range []inputs{{3, 10, 0}, {20, 30, 50}, {100, 10, 90}} {
		numbered := listsOf(in, 0, scrambled, byScore64)
		got, want := sortUnion(numbered, 50, byScore64), scatter.Merge(numbered, 50, scatter.ScoreAscending)
		if !slices.Equal(got, want) {
			t.Errorf("%v: numbers: the sort gives %v, want %v", in, got, want)
		}
		texts := listsOf(in, 0, docID, byID)
		if got, want := sortUnion(texts, 50, byID), scatter.Merge(texts, 50, scatter.IDAscending); !slices.Equal(got, want) {
			t.Errorf("%v: by ID: the sort gives %v, want %v", in, got, want)
		}
		c := carriersOf(in.lists(0))
		plain := scatter.Merge(c.hits, 50, scatter.ScoreAscending)
		docs := scatter.Merge(c.docs, 50, scatter.ScoreAscending)
		pointers := scatter.Merge(c.pointers, 50, scatter.ScoreAscending)
		for i, h := range plain {
			if docs[i].Hit != h || pointers[i].Hit != h {
				t.Errorf("%v: hit %d with a payload is %v and %v, want %v", in, i, docs[i], *pointers[i], h)
			}
		}
	}
}

// The inputs are what is said of them: sorted, of the size given, and with as many duplicates.
func TestLists(t *testing.T) {
	for _, in := range []inputs{{10, 100, 0}, {100, 100, 50}} {
		lists := in.lists(0)
		if again := in.lists(0); !reflect.DeepEqual(lists, again) {
			t.Errorf("%v: the same seed gives other lists", in)
		}
		if other := in.lists(1); reflect.DeepEqual(lists, other) {
			t.Errorf("%v: the variants are alike", in)
		}
		distinct := make(map[string]float32)
		total := 0
		for i, list := range lists {
			if len(list) != in.k || !slices.IsSortedFunc(list, byScore) {
				t.Errorf("%v: list %d has %d hits, want %d, sorted", in, i, len(list), in.k)
			}
			for _, h := range list {
				if score, ok := distinct[h.ID]; ok && score != h.Score {
					t.Errorf("%v: %s has two scores", in, h.ID)
				}
				distinct[h.ID] = h.Score
				total++
			}
		}
		if got := 100 * (total - len(distinct)) / total; got < in.dups-3 || got > in.dups+3 {
			t.Errorf("%v: %d %% are duplicates", in, got)
		}
	}
}

// What the rivals collect has the same best hits as Broadcast's answer, and a peer that fails costs its own alone.
func TestFanoutsGiveTheSame(t *testing.T) {
	peers := somePeers(20)
	probe := func(ctx context.Context, peer scatter.PeerID, _ *scatter.Request) ([]hit, error) {
		if peer == peers[7] {
			return []hit{{ID: "no", Score: -1}}, errors.New("broken")
		}
		return []hit{{ID: string(peer), Score: float32(len(peers)) - float32(slices.Index(peers, peer))}}, ctx.Err()
	}
	req := *request
	req.K = len(peers)
	resp, err := scatter.Broadcast(t.Context(), &req, peers, probe, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Hits) != len(peers)-1 {
		t.Fatalf("Broadcast gives %d hits, want %d", len(resp.Hits), len(peers)-1)
	}
	rivals := Fanout().Impls[2:]
	for i, ask := range rivalFanouts {
		got := scatter.Merge(ask(t.Context(), peers, probe), len(peers), scatter.ScoreAscending)
		if !slices.Equal(got, resp.Hits) {
			t.Errorf("%s gives %v, want %v", rivals[i].Name, got, resp.Hits)
		}
	}
}

// Those in the group Search ask as many peers, the Searcher has standbys, and never hedges.
func TestSearchIsComparable(t *testing.T) {
	const n = 10
	s := newSearcher(n)
	for range 100 {
		resp, err := s.Search(t.Context(), request, nil)
		if err := complete(resp, err); err != nil {
			t.Fatal(err)
		}
		answered := 0
		for _, p := range resp.Peers {
			if p.Status == scatter.Answered {
				answered++
			}
		}
		if answered != n || resp.PeersConsulted != n {
			t.Fatalf("the Searcher asks %d peers, %d answer, want %d and %d", resp.PeersConsulted, answered, n, n)
		}
		if !slices.Equal(resp.Hits, oneHit) {
			t.Fatalf("the Searcher's hits are %v, want %v", resp.Hits, oneHit)
		}
	}
	all := newSearcherOfAll(n)
	if resp, err := all.Search(t.Context(), request, nil); complete(resp, err) != nil || resp.PeersConsulted != n {
		t.Errorf("AskAll: %+v, %v; want all of %d peers", resp, err, n)
	}
	if stats := s.Stats(); stats.Hedges+stats.Fallbacks > 0 || len(stats.Peers) != replicas*n {
		t.Errorf("%d hedges, %d fallbacks, %d peers on the Cover; want 0, 0, %d",
			stats.Hedges, stats.Fallbacks, len(stats.Peers), replicas*n)
	}
}

func TestTurnstilesDoTheSame(t *testing.T) {
	all := turnstiles()
	for step, ev := range []event{push, coin, coin, push, push, coin, push} {
		for i, m := range all {
			m.fire(ev)
			if m.state() != all[0].state() || m.coins() != all[0].coins() {
				t.Errorf("after %d events, machine %d is %v with %d coins, want %v with %d",
					step+1, i, m.state(), m.coins(), all[0].state(), all[0].coins())
			}
		}
	}
	if got := all[0]; got.state() != locked || got.coins() != 3 {
		t.Errorf("the turnstile is %v with %d coins, want locked with 3", got.state(), got.coins())
	}
}

// Each run of a turnstile leaves it as it was, so that the next does the same.
func TestBurstsTakeEachEvent(t *testing.T) {
	m := newTurnstile()
	m.handler.burst = 5
	for _, ev := range []event{burst, push, later, coin, push, raiser, push} {
		m.fire(ev)
	}
	if m.coins() != 7 || m.state() != locked {
		t.Errorf("%d coins, %v; want 7, locked", m.coins(), m.state())
	}
}

func TestCodecsGiveTheSame(t *testing.T) {
	want := someReply(30)
	want.TimedOut = true
	for i, c := range codecs(want) {
		for range 3 { // a stream goes on
			if got := c.decode(); !reflect.DeepEqual(got, want) {
				t.Fatalf("codec %d gives %v, want %v", i, got, want)
			}
			c.encode()
		}
	}
}

func TestEvenRing(t *testing.T) {
	ring := evenRing(9)
	if ring.Len() != 9 || len(ring.PrimaryPeers(nil)) != 9 {
		t.Errorf("%d points of %d peers, want 9 of 9", ring.Len(), len(ring.PrimaryPeers(nil)))
	}
	points := somePoints(128_000)
	if got := len(scatter.NewRing(points...).PrimaryPeers(nil)); got != 2000 {
		t.Errorf("128,000 points are of %d peers, want 2,000", got)
	}
	if sorted := sortPoints(points); sorted[0].Token >= sorted[1].Token {
		t.Error("the points aren't sorted")
	}
}

func TestParams(t *testing.T) {
	c := Case{Params: []Param{{"op", "encode"}, {"hits", 100}, {"dups", 0}}}
	if got, want := c.Name(), "op=encode/hits=100/dups=0"; got != want {
		t.Errorf("Name() = %s, want %s", got, want)
	}
	if c.Int("hits") != 100 || c.Size() != 100 || c.PerRun() != 1 {
		t.Errorf("Int, Size, PerRun = %d, %d, %d, want 100, 100, 1", c.Int("hits"), c.Size(), c.PerRun())
	}
}
