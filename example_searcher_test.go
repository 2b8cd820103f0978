package scatter_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scatterknn/scatter"
)

// Five peers hold each document three times. One is known to be dead, one fails, one hangs: the answer is whole.
func ExampleSearcher() {
	ring := scatter.NewRing(
		scatter.Point{Token: 1 << 60, Peer: "red"}, scatter.Point{Token: 4 << 60, Peer: "green"},
		scatter.Point{Token: 7 << 60, Peer: "pink"}, scatter.Point{Token: 10 << 60, Peer: "blue"},
		scatter.Point{Token: 13 << 60, Peer: "gold"},
	)
	index := map[scatter.PeerID][]scatter.Hit[string]{}
	for i, fruit := range []string{"apple", "cherry", "fig", "lemon", "pear"} {
		for _, a := range ring.PreferenceList(uint64(3*i)<<60, 3, nil) {
			index[a.Peer] = append(index[a.Peer], scatter.Hit[string]{ID: fruit, Score: float32(i)})
		}
	}
	probe := func(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
		switch peer {
		case "green":
			return nil, errors.New("connection refused")
		case "blue":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return index[peer], nil
	}
	s, err := scatter.NewSearcher(probe, ring, &scatter.SearcherOptions{
		Replicas:   3,
		Live:       func(peer scatter.PeerID) bool { return peer != "red" },
		HedgeDelay: 10 * time.Millisecond,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := s.Search(context.Background(), &scatter.Request{Query: scatter.KNN{}, K: 9})
	fmt.Println(resp.Hits, err)
	fmt.Println("coverage:", resp.Coverage, "partial:", resp.Partial)
	fmt.Println(s.Close(context.Background()))
	// Output:
	// [{apple 0} {cherry 1} {fig 2} {lemon 3} {pear 4}] <nil>
	// coverage: 1 partial: false
	// <nil>
}

// Where half an answer is worse than none, Require makes it an error, which says what is missing and why.
func ExampleCoverageError() {
	ring := scatter.NewRing(
		scatter.Point{Token: 1 << 62, Peer: "red"}, scatter.Point{Token: 2 << 62, Peer: "green"},
		scatter.Point{Token: 3 << 62, Peer: "blue"}, scatter.Point{Token: 0, Peer: "gold"},
	)
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		if peer == "green" {
			return nil, errors.New("connection refused")
		}
		return []scatter.Hit[string]{{ID: "apple", Score: 0.1}}, nil
	}
	s, err := scatter.NewSearcher(probe, ring, &scatter.SearcherOptions{
		Options: scatter.Options{Require: 0.9},
		Live:    func(peer scatter.PeerID) bool { return peer != "blue" },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = s.Search(context.Background(), &scatter.Request{Query: scatter.KNN{}, K: 9})
	var low *scatter.CoverageError[scatter.Hit[string]]
	if errors.As(err, &low) {
		fmt.Println(low.Response.Hits, low.Response.Coverage)
		fmt.Println(low.Response.Missing[0]) // err.Error() tells it too
		for _, holder := range low.Response.Missing[0].Holders {
			fmt.Println(holder.Peer, holder.Status, holder.Err)
		}
	}
	// Output:
	// [{apple 0.1}] 0.5
	// 0x4000000000000001-0xc000000000000000 (50.00%): green Failed, blue Dead
	// green Failed connection refused
	// blue Dead <nil>
}
