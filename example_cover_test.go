package scatter_test

import (
	"fmt"

	"github.com/scatterknn/scatter"
)

// Dynomite: each rack holds everything once, by a ring of its own. A token has one holder in each.
func ExampleJoinCovers() {
	rackA := scatter.NewRing(
		scatter.Point{Token: 1 << 63, Peer: "a1"},
		scatter.Point{Token: 1<<64 - 1, Peer: "a2"},
	)
	rackB := scatter.NewRing(
		scatter.Point{Token: 1 << 62, Peer: "b1"},
		scatter.Point{Token: 2 << 62, Peer: "b2"},
		scatter.Point{Token: 3 << 62, Peer: "b3"},
	)
	cover := scatter.JoinCovers(scatter.NewCover(rackA, 1), scatter.NewCover(rackB, 1))

	fmt.Println(cover.Peers())
	fmt.Println(cover.Holders(100))
	fmt.Println(cover.Holders(1<<63 + 100))
	// Output:
	// [a1 b1 b2 a2 b3]
	// [a1 b1]
	// [a2 b3]
}

// Cassandra and Riak: a token is held by the first three distinct peers of the walk.
func ExampleNewCover() {
	ring := scatter.NewRing(
		scatter.Point{Token: 100, Peer: "red"}, scatter.Point{Token: 200, Peer: "red"},
		scatter.Point{Token: 300, Peer: "green"}, scatter.Point{Token: 400, Peer: "blue"},
		scatter.Point{Token: 500, Peer: "black"},
	)
	cover := scatter.NewCover(ring, 3)

	fmt.Println(cover.Holders(50))
	fmt.Println(cover.Holders(350))
	fmt.Println(cover.Holders(501))
	// Output:
	// [red green blue]
	// [blue black red]
	// [red green blue]
}

// One copy of everything: what a dead peer owns is missing.
func ExampleNewCover_oneCopy() {
	ring := scatter.NewRing(
		scatter.Point{Token: 1 << 62, Peer: "red"},
		scatter.Point{Token: 1 << 63, Peer: "green"},
		scatter.Point{Token: 1<<64 - 1, Peer: "blue"},
	)
	cover := scatter.NewCover(ring, 1)
	for _, peer := range cover.Peers() {
		fmt.Println(peer, ring.Share(peer))
	}
	fmt.Println(cover.Holders(1 << 63))
	// Output:
	// red 0.25
	// green 0.25
	// blue 0.5
	// [green]
}

// Redis Cluster: slots of 14 bits, shifted to the left by 50. Nobody serves the slots 16000 and up.
func ExampleNewRangeCover() {
	slots := func(first, last uint64, holders ...scatter.PeerID) scatter.Range {
		return scatter.Range{First: first << 50, Last: (last+1)<<50 - 1, Holders: holders}
	}
	cover, err := scatter.NewRangeCover(
		slots(0, 5460, "a", "a-replica"),
		slots(5461, 10922, "b", "b-replica"),
		slots(10923, 15999, "c"),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, slot := range []uint64{0, 5460, 5461, 15999, 16000} {
		fmt.Println(slot, cover.Holders(slot<<50))
	}
	// Output:
	// 0 [a a-replica]
	// 5460 [a a-replica]
	// 5461 [b b-replica]
	// 15999 [c]
	// 16000 []
}

// Elasticsearch and Weaviate: numbered shards, each with replicas. Each shard has an equal share.
func ExampleNewGroupCover() {
	cover := scatter.NewGroupCover(
		[]scatter.PeerID{"node-1", "node-2"}, // shard 0
		[]scatter.PeerID{"node-2", "node-3"}, // shard 1
		[]scatter.PeerID{"node-3", "node-1"}, // shard 2
	)
	fmt.Println(cover.Peers())
	fmt.Println("the first token:", cover.Holders(0))
	fmt.Println("the middle one:", cover.Holders(1<<63))
	fmt.Println("the last one:", cover.Holders(1<<64-1))
	// Output:
	// [node-1 node-2 node-3]
	// the first token: [node-1 node-2]
	// the middle one: [node-2 node-3]
	// the last one: [node-3 node-1]
}
