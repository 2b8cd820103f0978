// Package scatter asks every peer of a sharded index for its best hits, waits for none of them
// longer than its deadline, and merges the replies into one top-K that says what it lacks.
//
// It has no index, no transport and no storage. You supply a [Probe], a function that asks one
// peer:
//
//	probe := func(
//		ctx context.Context, peer scatter.PeerID, req *scatter.Request,
//	) ([]scatter.Hit[string], error) {
//		return clients[peer].Search(ctx, req) // your transport: HTTP, gRPC, RESP
//	}
//	ring := scatter.NewHashRing(nodes, 64) // which peer holds which tokens
//	req := &scatter.Request{Table: "docs", Query: scatter.KNN{Field: "embedding", Vector: v}, K: 10}
//	resp, err := scatter.Broadcast(ctx, req, ring.Peers(), probe, &scatter.Options{Live: isLive})
//	if err != nil {
//		return err // a bad argument, a query that no peer accepts, or ctx was cancelled
//	}
//	fmt.Println(resp.Hits, resp.Partial) // the 10 best, and whether some may be missing
//	for _, p := range resp.Peers {
//		fmt.Println(p.Peer, p.Status, p.Err) // what became of each peer
//	}
//
// Pass all peers, the dead ones too, and say by Options.Live which of them are up. If one is down,
// it is not asked, its line says [Dead], and the answer is Partial.
//
// The package has four chapters. Most programs need only one of the first two.
//
// # Ask once
//
// [Broadcast] is for a program that knows its peers and asks all of them: a command, a batch job,
// an index without replicas. [BroadcastAsync] does the same over a connection that carries many
// requests at a time. [Stream] returns each hit as soon as no other can come before it.
//
// # Ask for a lifetime
//
// A [Searcher] is for a server whose data is stored several times. For each query it asks a few
// peers that hold everything together, and prefers the fast and idle ones. It asks replicas in the
// place of peers that fail or are slow, and it stays away from peers that keep failing. A [Cover]
// tells it which peers hold which token ranges.
//
// # Pieces
//
// Each of these can be used alone. [Merge] merges ranked lists and returns each ID once. [Ring] is
// a token ring with preference lists. [Cover] describes racks, slots, shards and rings. [Request]
// and [Reply] encode and decode the FTQ1 and FTR1 payloads that Dynomite peers speak.
//
// # The machine
//
// [Machine] runs a state machine with the semantics of Erlang/OTP's gen_statem. It reads no clock,
// so it is tested with literal times. [Run] and [Start] drive one by the real clock; an [Actor]
// has a mailbox. [Coordinator] is one query as such a machine, for simulations and for transports
// that don't fit a Probe.
//
// # Partial answers
//
// A peer that is slow, down or broken costs its own hits, not the query. [Response].Partial is
// true exactly when [Response].Coverage is below 1, and the ledger, [Response].Peers, has a line
// for each peer that says what became of it. Without a Cover, Coverage is the share of the peers
// that have answered. With one, it is the share of the token space of which some holder has
// answered, and [Response].Missing names the rest. Options.MinCoverage turns too little of it into
// an error.
//
// # Determinism
//
// The same replies give the same hits, in whatever order they arrive. Equal scores are ordered by
// ID, NaN comes last, and a document that several replicas return counts once.
//
// # Cancellation
//
// The deadline of the caller's context is a time budget: when it has passed, what has arrived is
// returned with a nil error. If the context is cancelled, what has arrived is returned together
// with the cause. A probe that ignores its context delays nobody, but keeps its goroutine until it
// returns. A probe whose answer is no longer needed is cancelled with the cause [ErrEnough].
//
// # Concurrency
//
// All functions may be called concurrently. A [Ring], a [Cover], an [Actor] and a [Searcher] are
// safe for concurrent use. A [Machine] and a [Coordinator] are not.
//
// No constructor starts a goroutine, but for Start. Broadcast runs probes on goroutines that it
// starts and reuses within the call, as many as there are probes that wait at the same time. While
// it waits for a unit of Options.Semaphore, it has one more. BroadcastAsync starts none for a
// peer. A Searcher also has one for each query that callers share, one that makes plans in the
// background if its Cover has thousands of ranges, and one in Close.
//
// # Exact answers and pages
//
// [Response].Exact is the number of leading hits that are proven: no hit that a peer has not
// returned can rank before them. Options.PeerK asks each peer for fewer hits at first and, if the
// answer needs it, once more. [Response].Next, as [Request].After, asks for the next page; on data
// that doesn't change, pages of any size neither lose nor repeat a hit.
//
// # References
//
//   - DeCandia et al., Dynamo: Amazon's Highly Available Key-value Store, SOSP 2007: the ring and
//     its preference lists.
//   - Dean and Barroso, The Tail at Scale, CACM 56(2), 2013: hedged requests.
//   - Erlang/OTP, gen_statem: https://www.erlang.org/doc/apps/stdlib/gen_statem.html, the machine.
//   - Knuth, The Art of Computer Programming, volume 3, section 5.4.1: merging by a tree of
//     winners.
//
// The repository has a guide, docs/guide.md, and the promises as numbered rules, docs/design.md.
package scatter
