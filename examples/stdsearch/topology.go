package main

import (
	"fmt"

	"github.com/scatterknn/scatter"
)

// topology says which nodes there are and which of them hold what.
type topology struct {
	names  []scatter.PeerID
	cover  *scatter.Cover
	layout string // where each document is, for people
}

// nodeName returns the name of the i-th node, from 1.
func nodeName(i int) scatter.PeerID { return scatter.PeerID(fmt.Sprintf("node%d", i)) }

func nodeNames(size int) []scatter.PeerID {
	names := make([]scatter.PeerID, size)
	for i := range names {
		names[i] = nodeName(i + 1)
	}
	return names
}

// topology returns the topology that the command line describes.
func (c *config) topology() topology {
	switch {
	case c.racks > 0:
		return rackTopology(c.nodes, c.racks)
	case c.groups:
		return groupTopology(c.nodes, c.replicas)
	}
	return ringTopology(c.nodes, c.replicas)
}

// tokensPerNode is the number of points that each node has on a ring. More of them make the shares
// more even.
const tokensPerNode = 32

// ringTopology places each document on the first nodes of a walk round one ring, as Dynamo and
// Cassandra do.
func ringTopology(size, replicas int) topology {
	names := nodeNames(size)
	return topology{
		names:  names,
		cover:  scatter.NewCover(scatter.NewHashRing(names, tokensPerNode), replicas),
		layout: fmt.Sprintf("each on %d of %d nodes", replicas, size),
	}
}

// rackTopology divides the nodes among racks, in turn. Each rack is a ring of its own, with its own
// tokens, and holds everything once, as Dynomite's racks do.
func rackTopology(size, racks int) topology {
	names := nodeNames(size)
	covers := make([]*scatter.Cover, racks)
	for i, rack := range deal(names, racks) {
		covers[i] = scatter.NewCover(scatter.NewHashRing(rack, tokensPerNode), 1)
	}
	return topology{
		names:  names,
		cover:  scatter.JoinCovers(covers...),
		layout: fmt.Sprintf("each on one of %d nodes in each of %d racks", size, racks),
	}
}

// groupTopology divides the documents into shards of equal size, and the nodes among the shards, in
// turn. All nodes of a shard hold the same, as in Elasticsearch or Weaviate. Each shard has as many
// nodes as asked, or more.
func groupTopology(size, replicas int) topology {
	names := nodeNames(size)
	shards := max(size/replicas, 1)
	return topology{
		names:  names,
		cover:  scatter.NewGroupCover(deal(names, shards)...),
		layout: fmt.Sprintf("in %d shards on %d nodes, each on %d or more", shards, size, replicas),
	}
}

// deal divides names into n hands, one name to each in turn.
func deal(names []scatter.PeerID, n int) [][]scatter.PeerID {
	hands := make([][]scatter.PeerID, n)
	for i, name := range names {
		hands[i%n] = append(hands[i%n], name)
	}
	return hands
}
