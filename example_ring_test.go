package scatter_test

import (
	"fmt"

	"github.com/scatterknn/scatter"
)

// Three peers with two points each; the peers of a query are those that live.
func ExampleRing_PrimaryPeers() {
	ring := scatter.NewRing(
		scatter.Point{Token: 100, Peer: "red"}, scatter.Point{Token: 400, Peer: "red"},
		scatter.Point{Token: 200, Peer: "green"}, scatter.Point{Token: 500, Peer: "green"},
		scatter.Point{Token: 300, Peer: "blue"}, scatter.Point{Token: 600, Peer: "blue"},
	)
	greenIsDown := func(peer scatter.PeerID) bool { return peer != "green" }

	fmt.Println(ring.PrimaryPeers(nil))
	fmt.Println(ring.PrimaryPeers(greenIsDown))
	// Output:
	// [red green blue]
	// [red blue]
}

// The token 150 belongs to green, then to blue. Blue is down, so black stands in for it, in blue's slot.
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
