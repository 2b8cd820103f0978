package cases

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/benchmarks/internal/loopback"
)

const (
	peerDeadline = scatter.DefaultPeerDeadline // the rivals' too, where they have one

	// replicas is how many peers hold each shard of the Searcher.
	replicas = 3
)

var (
	broadcasting = Impl{Name: "scatter", Label: "Broadcast", Ours: true}
	searching    = Impl{Name: "search", Label: "Searcher", Ours: true}
	barely       = Impl{Name: "bare", Label: "bare goroutines", Lacks: "waits for ever, no panic contained, no ledger"}
	errgroupEach = Impl{Name: "errgroup", Label: "errgroup, timeout each",
		Lacks: "waits for a probe that ignores its context, no panic contained, no ledger"}
	errgroupShared = Impl{Name: "errgroup1", Label: "errgroup, one timeout",
		Lacks: "as errgroup, and one deadline for all"}
	concPool = Impl{Name: "conc", Label: "conc pool, one timeout",
		Lacks: "waits for a probe that ignores its context, one deadline for all, a panic goes to the caller, no ledger"}
	channel = Impl{Name: "channel", Label: "buffered channel",
		Lacks: "one deadline for all, no panic contained, no ledger"}
)

// What the peers answer: one hit, made beforehand, so that only the fan-out is measured.
var (
	oneHit  = []hit{{ID: "doc-00000001", Score: 1}}
	request = &scatter.Request{Table: "t", Query: scatter.KNN{Field: "f"}, K: 1}
)

func instantly(context.Context, scatter.PeerID, *scatter.Request) ([]hit, error) { return oneHit, nil }

func instantlyAsync(_ context.Context, _ scatter.PeerID, _ *scatter.Request, done func([]hit, error)) {
	done(oneHit, nil)
}

// waiting is how long a peer takes where it takes a while.
const waiting = 200 * time.Microsecond

func afterWaiting(context.Context, scatter.PeerID, *scatter.Request) ([]hit, error) {
	time.Sleep(waiting)
	return oneHit, nil
}

// Fanout asks peers that answer at once.
func Fanout() Group {
	g := Group{
		Name:  "Fanout",
		Title: "Fan-out to peers that answer at once",
		About: "A whole `Broadcast` with K = 1 and the default options: a deadline for each peer, panics contained, a" +
			" ledger, the merge. **BroadcastAsync** is the same with a callback instead of a goroutine for each peer. The" +
			" rivals collect the hits and merge nothing; bare goroutines with a WaitGroup are the least that can be done.",
		Impls: []Impl{
			broadcasting, {Name: "async", Label: "BroadcastAsync", Ours: true},
			barely, errgroupEach, errgroupShared, concPool, channel,
		},
	}
	for _, n := range []int{1, 3, 10, 100, 1000} {
		g.Cases = append(g.Cases, Case{Params: []Param{{"peers", n}}, Setup: func() []func() {
			peers := somePeers(n)
			return append([]func(){broadcastTo(peers, instantly), broadcastAsyncTo(peers)}, rivalsAsk(peers, instantly)...)
		}})
	}
	return g
}

// FanoutByHand asks peers that answer at once for hits that have to be merged.
func FanoutByHand() Group {
	g := Group{
		Name:  "FanoutByHand",
		Title: "Fan-out and merge, by hand",
		About: "10 hits of each peer, made beforehand, and the 10 best of all. **By hand** is an errgroup with a" +
			" `context.WithTimeout` for each peer and a sort of all hits.",
		Impls: []Impl{broadcasting, {Name: "hand", Label: "by hand", Lacks: errgroupEach.Lacks}},
	}
	probe := loopback.Instantly()
	for _, n := range []int{1, 3, 10, 100} {
		g.Cases = append(g.Cases, Case{Params: []Param{{"peers", n}}, Setup: func() []func() {
			peers := loopback.PeerNames(n)
			var runs []func()
			for _, ask := range []loopback.Contender{loopback.ByBroadcast, loopback.ByHand} {
				runs = append(runs, func() {
					_, err := ask(context.Background(), peers, probe)
					must(err)
				})
			}
			return runs
		}})
	}
	return g
}

// FanoutOverPeers shows how a fan-out grows with the number of peers.
func FanoutOverPeers() Group {
	g := Fanout()
	g.Name, g.Title, g.Growth = "FanoutOverPeers", "Fan-out, over the number of peers", true
	g.About = "As above. The **Searcher** has three times as many peers and asks a third of them: see below."
	g.Impls = append(g.Impls, searching)
	g.Cases = nil
	for _, n := range doubling(1, 1024) {
		g.Cases = append(g.Cases, Case{Params: []Param{{"peers", n}}, Setup: func() []func() {
			peers := somePeers(n)
			runs := append([]func(){broadcastTo(peers, instantly), broadcastAsyncTo(peers)}, rivalsAsk(peers, instantly)...)
			return append(runs, searchOver(newSearcher(n)))
		}})
	}
	return g
}

// FanoutWaiting asks peers that take a while.
func FanoutWaiting() Group {
	return Group{
		Name:  "FanoutWaiting",
		Title: "Fan-out to peers that take 200 µs",
		About: "The probes sleep for 200 µs, or as near to it as the machine's timers come.",
		Impls: []Impl{broadcasting, barely, errgroupEach},
		Cases: []Case{{Params: []Param{{"peers", 100}, {"wait", waiting}}, Setup: func() []func() {
			peers := somePeers(100)
			rivals := rivalsAsk(peers, afterWaiting)
			return []func(){broadcastTo(peers, afterWaiting), rivals[0], rivals[1]}
		}}},
	}
}

// FanoutOneConnection asks peers over a connection that carries all their requests.
func FanoutOneConnection() Group {
	g := Group{
		Name:  "FanoutOneConnection",
		Title: "Fan-out over one connection",
		About: "What `BroadcastAsync` is for: all requests go to one goroutine, which calls each back at once, as the" +
			" reader of a multiplexed connection does. A probe that returns its hits has to wait for that call, and a" +
			" goroutine with it.",
		Impls: []Impl{broadcasting, {Name: "async", Label: "BroadcastAsync", Ours: true}, barely},
	}
	for _, n := range []int{10, 100, 1000} {
		g.Cases = append(g.Cases, Case{Params: []Param{{"peers", n}}, Setup: func() []func() {
			peers := somePeers(n)
			async := func() {
				must(complete(scatter.BroadcastAsync(context.Background(), request, peers, overConnectionAsync, nil)))
			}
			return []func(){broadcastTo(peers, overConnection), async, rivalsAsk(peers, overConnection)[0]}
		}})
	}
	return g
}

// connection is one that calls back whoever sends it a call.
var connection = sync.OnceValue(func() chan<- func([]hit, error) {
	calls := make(chan func([]hit, error), 1024)
	go func() {
		for done := range calls {
			done(oneHit, nil)
		}
	}()
	return calls
})

func overConnectionAsync(_ context.Context, _ scatter.PeerID, _ *scatter.Request, done func([]hit, error)) {
	connection() <- done
}

func overConnection(ctx context.Context, _ scatter.PeerID, _ *scatter.Request) ([]hit, error) {
	reply := make(chan []hit, 1)
	connection() <- func(hits []hit, _ error) { reply <- hits }
	select {
	case hits := <-reply:
		return hits, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Search asks over a ring with replicas.
func Search() Group {
	g := Group{
		Name:  "Search",
		Title: "Searcher against Broadcast",
		About: "A `Searcher` over as many shards as peers are asked, each held by three peers. It chooses one peer of" +
			" each shard, has the others as standbys and learns from each reply. Hedges are armed, but none is sent." +
			" `Broadcast` asks as many peers and knows nothing of shards. **AskAll** asks all peers of a ring with one token" +
			" for each and three replicas, and stops once each range has an answer. It has no standbys and no hedges.",
		Impls: []Impl{searching, broadcasting, {Name: "all", Label: "Searcher, AskAll", Ours: true}},
	}
	for _, n := range []int{10, 100, 1000} {
		g.Cases = append(g.Cases, Case{Params: []Param{{"peers", n}}, Setup: func() []func() {
			return []func(){
				searchOver(newSearcher(n)), broadcastTo(somePeers(n), instantly), searchOver(newSearcherOfAll(n)),
			}
		}})
	}
	return g
}

func broadcastTo(peers []scatter.PeerID, probe scatter.Probe[hit]) func() {
	return func() {
		must(complete(scatter.Broadcast(context.Background(), request, peers, probe, nil)))
	}
}

func broadcastAsyncTo(peers []scatter.PeerID) func() {
	return func() {
		must(complete(scatter.BroadcastAsync(context.Background(), request, peers, instantlyAsync, nil)))
	}
}

func searchOver(s *scatter.Searcher[hit, string]) func() {
	return func() {
		must(complete(s.Search(context.Background(), request, nil)))
	}
}

func complete(resp *scatter.Response[hit], err error) error {
	if err == nil && resp.Partial {
		err = fmt.Errorf("the answer of %d peers is partial", len(resp.Peers))
	}
	return err
}

// rivalsAsk returns what asks the peers in the rivals' ways, in the order of their Impls.
func rivalsAsk(peers []scatter.PeerID, probe scatter.Probe[hit]) []func() {
	var runs []func()
	for _, ask := range rivalFanouts {
		runs = append(runs, func() { ask(context.Background(), peers, probe) })
	}
	return runs
}

// newSearcher returns a Searcher over n shards of three replicas. It asks n peers for each query.
// It never hedges: a probe that the machine holds up for long would cost a hedge.
func newSearcher(n int) *scatter.Searcher[hit, string] {
	opts := &scatter.SearcherOptions{Seed: 1, HedgeDelay: time.Second, HedgeQuantile: -1}
	return warm(scatter.NewSearcher(instantly, shards(n), opts))
}

// newSearcherOfAll returns a Searcher that asks all peers of a ring of n, and stops once each
// range has an answer.
func newSearcherOfAll(n int) *scatter.Searcher[hit, string] {
	opts := &scatter.SearcherOptions{AskAll: true}
	return warm(scatter.NewSearcher(instantly, scatter.NewCover(evenRing(n), replicas), opts))
}

// shards returns the Cover of n shards, each held by three peers that hold nothing else.
func shards(n int) *scatter.Cover {
	var groups [][]scatter.PeerID
	for peers := range slices.Chunk(somePeers(replicas*n), replicas) {
		groups = append(groups, peers)
	}
	return scatter.NewGroupCover(groups...)
}

// warm has a Searcher learn how long its peers take.
func warm(s *scatter.Searcher[hit, string], err error) *scatter.Searcher[hit, string] {
	must(err)
	for range 100 {
		must(complete(s.Search(context.Background(), request, nil)))
	}
	return s
}

// evenRing is a ring on which each of n peers has one token, all the same distance apart.
func evenRing(n int) *scatter.Ring {
	points := make([]scatter.Point, n)
	for i, peer := range somePeers(n) {
		points[i] = scatter.Point{Token: uint64(i) * (math.MaxUint64 / uint64(n)), Peer: peer}
	}
	return scatter.NewRing(points...)
}

func somePeers(n int) []scatter.PeerID {
	peers := make([]scatter.PeerID, n)
	for i := range peers {
		peers[i] = scatter.PeerID(fmt.Sprintf("peer%04d", i))
	}
	return peers
}
