package scatter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/scatterknn/scatter"
)

// servePart is a peer: it answers from the part of the index that it holds.
func servePart(hits ...scatter.Hit[string]) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req scatter.Request
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		best := hits[:min(req.K, len(hits))]
		resp := scatter.Response[scatter.Hit[string]]{Hits: best, Coverage: 1}
		if err := json.NewEncoder(w).Encode(resp); err != nil {
			log.Print(err)
		}
	}))
}

// probeHTTP asks a peer, which is named by its address. The request ends when ctx does: at the
// peer's deadline, or when the query has ended.
func probeHTTP(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, string(peer), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	reply, err := http.DefaultClient.Do(post)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	switch reply.StatusCode {
	case http.StatusOK:
	case http.StatusBadRequest: // every peer would say so
		return nil, fmt.Errorf("%w: %s", scatter.ErrPermanent, reply.Status)
	default:
		return nil, errors.New(reply.Status)
	}
	var resp scatter.Response[scatter.Hit[string]]
	if err := json.NewDecoder(reply.Body).Decode(&resp); err != nil {
		return nil, err
	}
	if resp.Partial { // of a peer that asks peers of its own
		return resp.Hits, scatter.ErrPartial
	}
	return resp.Hits, nil
}

// Peers that speak HTTP and JSON. Request and Response go through encoding/json, so neither side
// needs types of its own.
func ExampleProbe_http() {
	red := servePart(scatter.Hit[string]{ID: "apple", Score: 0.1}, scatter.Hit[string]{ID: "cherry", Score: 0.4})
	defer red.Close()
	green := servePart(scatter.Hit[string]{ID: "pear", Score: 0.2})
	defer green.Close()

	peers := []scatter.PeerID{scatter.PeerID(red.URL), scatter.PeerID(green.URL)}
	req := &scatter.Request{Table: "fruit", Query: scatter.KNN{Field: "taste", Vector: []float32{1, 0}}, K: 2}
	resp, err := scatter.Broadcast(context.Background(), req, peers, probeHTTP, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits, "partial:", resp.Partial)
	// Output:
	// [{apple 0.1} {pear 0.2}] partial: false
}

// The context carries the deadline into net/http, so a probe needs no timeout of its own. The
// server sees that its client has gone.
func ExampleProbe_httpDeadline() {
	gone := make(chan error, 1)
	snail := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var req scatter.Request
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			log.Print(err)
		}
		<-r.Context().Done()
		gone <- r.Context().Err()
	}))
	defer snail.Close()

	req := &scatter.Request{Query: scatter.KNN{}, K: 2}
	opts := &scatter.Options{PeerDeadline: 200 * time.Millisecond}
	peers := []scatter.PeerID{scatter.PeerID(snail.URL)}
	resp, err := scatter.Broadcast(context.Background(), req, peers, probeHTTP, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the caller has:", resp.Peers[0].Status)
	fmt.Println("the server has:", <-gone)
	// Output:
	// the caller has: TimedOut
	// the server has: context canceled
}

// A front end returns the Response of its query as JSON. The ledger here is shortened.
func ExampleResponse_MarshalJSON() {
	resp := scatter.Response[scatter.Hit[string]]{
		Hits: []scatter.Hit[string]{{ID: "apple", Score: 0.1}},
		Peers: []scatter.PeerReport{
			{Peer: "red", Status: scatter.Failed, Err: errors.New("connection refused")},
		},
		PeersConsulted: 2, PeersFailed: 1, Partial: true, Coverage: 0.5, Exact: 1, Elapsed: 1500 * time.Microsecond,
	}
	text, err := json.MarshalIndent(resp, "", "  ")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
	// Output:
	// {
	//   "hits": [
	//     {
	//       "id": "apple",
	//       "score": 0.1
	//     }
	//   ],
	//   "peers": [
	//     {
	//       "peer": "red",
	//       "role": "Primary",
	//       "status": "Failed",
	//       "hits": 0,
	//       "err": "connection refused",
	//       "elapsed": "0s"
	//     }
	//   ],
	//   "peersConsulted": 2,
	//   "peersTimedOut": 0,
	//   "peersFailed": 1,
	//   "partial": true,
	//   "coverage": 0.5,
	//   "exact": 1,
	//   "elapsed": "1.5ms"
	// }
}

// What MarshalJSON has written is read back, errors included.
func ExampleResponse_UnmarshalJSON() {
	const text = `{"hits": [{"id": "apple", "score": 0.1}], "coverage": 0.5, "partial": true, "peers": [
		{"peer": "red", "status": "Answered", "elapsed": "1.5ms"},
		{"peer": "green", "status": "NotNeeded", "err": "scatter: the answer is complete enough without it"}]}`
	var resp scatter.Response[scatter.Hit[string]]
	if err := json.Unmarshal([]byte(text), &resp); err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Hits, resp.Peers[0].Elapsed)
	i := slices.IndexFunc(resp.Peers, func(p scatter.PeerReport) bool { return errors.Is(p.Err, scatter.ErrEnough) })
	fmt.Println("not needed:", resp.Peers[i].Peer)
	// Output:
	// [{apple 0.1}] 1.5ms
	// not needed: green
}

// The query of a Request is a member named after its kind.
func ExampleRequest_MarshalJSON() {
	requests := []scatter.Request{
		{Table: "docs", Query: scatter.KNN{Field: "v", Vector: []float32{1}}, K: 10},
		{Table: "docs", Query: scatter.Text{Field: "body", Substring: []byte("needle")}, K: 10},
		{Table: "docs", Query: scatter.Regex{Field: "body", Pattern: "ne+dle", MaxErrors: 1}, K: 10},
	}
	for _, req := range requests {
		text, err := json.Marshal(req)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(text))
	}
	// Output:
	// {"table":"docs","query":{"knn":{"field":"v","vector":[1],"ranking":"ScoreAscending"}},"k":10}
	// {"table":"docs","query":{"text":{"field":"body","substring":"needle"}},"k":10}
	// {"table":"docs","query":{"regex":{"field":"body","pattern":"ne+dle","maxErrors":1}},"k":10}
}

// A misspelt member is an error: with the wrong ranking, the worst hits would come back.
func ExampleRequest_UnmarshalJSON() {
	var req scatter.Request
	const text = `{"table": "docs", "query": {"text": {"field": "body", "substring": "needle"}}, "k": 10}`
	if err := json.Unmarshal([]byte(text), &req); err != nil {
		log.Fatal(err)
	}
	query := req.Query.(scatter.Text)
	fmt.Printf("the best %d of %s whose %s contains %s\n", req.K, req.Table, query.Field, query.Substring)

	const misspelt = `{"query": {"knn": {"vector": [1, 0], "rankng": "ScoreDescending"}}, "k": 10}`
	fmt.Println(json.Unmarshal([]byte(misspelt), &req))
	// Output:
	// the best 10 of docs whose body contains needle
	// scatter: Request.Query.knn: json: unknown field "rankng"
}
