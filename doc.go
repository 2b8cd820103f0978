// Package scatter coordinates a top-K search over a sharded store: it asks every peer that holds a part of the index,
// waits for none longer than its deadline, and merges their sorted hits to one global answer that says what it lacks.
//
// It has no index, no transport and no storage. A [Probe], a function of the caller's, asks one peer:
//
//	probe := func(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
//		return clients[peer].Search(ctx, req) // HTTP, gRPC, RESP, a map in a test
//	}
//	ring := scatter.NewRing(points...) // who holds what
//	req := &scatter.Request{Table: "docs", Query: scatter.KNN{Field: "embedding", Vector: v}, K: 10}
//	resp, err := scatter.Broadcast(ctx, req, ring.PrimaryPeers(isLive), probe, nil)
//	if err != nil {
//		return err // a bad argument, or ctx was cancelled
//	}
//	fmt.Println(resp.Hits, resp.Partial, resp.Peers)
//
// [Broadcast] answers one query. A [Searcher] is for a program that answers many, over a ring on which everything is
// stored several times: it asks few peers, and replicas in the place of those that fail or are late. Below them, each
// to be used by itself: [Merge], a k-way merge of ranked lists that puts out each ID once; [Ring], a token ring with
// preference lists and the live primary peers; [Cover], which holds of a ring who has what; [Machine], a runner of
// state machines after Erlang/OTP's gen_statem; [Coordinator], the machine of one query, to be stepped by hand; and a
// codec for the FTQ1 and FTR1 payloads that Dynomite peers speak ([Request], [Reply]).
//
// # Partial answers
//
// A peer that is slow, down or broken costs its own hits, not the query. [Response].Partial is true exactly when some
// hits are missing, and the ledger, [Response].Peers, has a line for each peer that says why. With a [Cover] hits are
// missing only where no replica has answered, and [Response].Missing names the token ranges.
//
// # Determinism
//
// The same replies give the same answer, in whichever order they come. Equal scores are ordered by ID, NaN comes last,
// and a document that several replicas return counts once; see [Merge].
//
// # Cancellation
//
// A context's deadline is a time budget: what has arrived by then is the answer. Its cancellation is an error, which
// comes with what has arrived. A probe that ignores its context delays nobody; it keeps its goroutine until it returns.
//
// # Concurrency
//
// Functions may be called by any number of goroutines at once. A [Ring], a [Cover], a [Budget], an [Actor] and a
// [Searcher] are safe for concurrent use; a [Machine] and with it a [Coordinator] belong to one goroutine. No goroutine
// is started at import or by a constructor. Broadcast starts one for each probe in flight, and now and then one that
// waits for room under a shared cap; [Start] one; and a Searcher one for each query that callers share, and one in
// Close.
//
// # References
//
//   - DeCandia et al., Dynamo: Amazon's Highly Available Key-value Store, SOSP 2007: the ring and its preference lists.
//   - Dean and Barroso, The Tail at Scale, CACM 56(2), 2013: hedged requests.
//   - Erlang/OTP, gen_statem: https://www.erlang.org/doc/apps/stdlib/gen_statem.html, the machine.
//   - Knuth, The Art of Computer Programming, volume 3, section 5.4.1: merging by a tree of winners.
package scatter
