package scatter_test

import (
	"fmt"

	"github.com/scatterknn/scatter"
)

// Three peers have two points each. A query is given all of them, and the Liveness as Options.Live,
// so that what only green holds counts as missing. PrimaryPeers leaves green out.
func ExampleRing_Peers() {
	ring := scatter.NewRing(
		scatter.Point{Token: 100, Peer: "red"}, scatter.Point{Token: 400, Peer: "red"},
		scatter.Point{Token: 200, Peer: "green"}, scatter.Point{Token: 500, Peer: "green"},
		scatter.Point{Token: 300, Peer: "blue"}, scatter.Point{Token: 600, Peer: "blue"},
	)
	greenIsDown := func(peer scatter.PeerID) bool { return peer != "green" }

	fmt.Println(ring.Peers())
	fmt.Println(ring.PrimaryPeers(greenIsDown))
	// Output:
	// [red green blue]
	// [red blue]
}

// The token 150 belongs to green, then to blue. Blue is down, so black stands in for it, in blue's
// slot.
func ExampleRing_PreferenceList() {
	ring := scatter.NewRing(
		scatter.Point{Token: 100, Peer: "red"},
		scatter.Point{Token: 200, Peer: "green"},
		scatter.Point{Token: 300, Peer: "blue"},
		scatter.Point{Token: 400, Peer: "black"},
	)
	blueIsDown := func(peer scatter.PeerID) bool { return peer != "blue" }

	for _, a := range ring.PreferenceList(150, 2, blueIsDown) {
		fmt.Printf("%s, %v in the slot of %s\n", a.Peer, a.Role, ring.Point(a.Slot).Peer)
	}
	// Output:
	// green, Primary in the slot of green
	// black, Fallback in the slot of blue
}

// The walk from 250 begins at blue, goes on round the end, and meets each peer once.
func ExampleRing_Walk() {
	ring := scatter.NewRing(
		scatter.Point{Token: 100, Peer: "red"},
		scatter.Point{Token: 200, Peer: "green"},
		scatter.Point{Token: 300, Peer: "blue"},
		scatter.Point{Token: 400, Peer: "blue"},
	)
	for slot, peer := range ring.Walk(250) {
		fmt.Println(slot, peer)
	}
	// Output:
	// 2 blue
	// 0 red
	// 1 green
}

// A ring without a token table: each peer has 256 tokens, made of its name.
func ExampleNewHashRing() {
	ring := scatter.NewHashRing([]scatter.PeerID{"db-1", "db-2", "db-3", "db-4"}, 256)
	for _, peer := range []scatter.PeerID{"db-1", "db-2", "db-3", "db-4"} {
		fmt.Printf("%s owns %.2f\n", peer, ring.Share(peer))
	}
	fmt.Println(ring.PreferenceList(scatter.HashToken("user:42"), 2, nil)[0].Peer)
	// Output:
	// db-1 owns 0.20
	// db-2 owns 0.27
	// db-3 owns 0.28
	// db-4 owns 0.24
	// db-1
}

// Tokens of 32 bits are shifted to the left by 32, those of the points and those of the keys. So
// the shares are what they were.
func ExamplePoint() {
	spread := func(token uint32) uint64 { return uint64(token) << 32 }
	ring := scatter.NewRing(
		scatter.Point{Token: spread(0x3fffffff), Peer: "a"},
		scatter.Point{Token: spread(0x7fffffff), Peer: "b"},
		scatter.Point{Token: spread(0xffffffff), Peer: "c"},
	)
	cover := scatter.NewCover(ring, 1)
	for _, token := range []uint32{0, 0x3fffffff, 0x40000000, 0x80000000, 0xffffffff} {
		fmt.Printf("%#08x %s\n", token, cover.Holders(spread(token)))
	}
	fmt.Println(ring.Share("a"), ring.Share("b"), ring.Share("c"))
	// Output:
	// 0x00000000 [a]
	// 0x3fffffff [a]
	// 0x40000000 [b]
	// 0x80000000 [c]
	// 0xffffffff [c]
	// 0.25 0.25 0.5
}
