package loopback

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/scatterknn/scatter"
)

// All contenders give the same answer over all transports.
func TestContendersGiveTheSame(t *testing.T) {
	const n = 7
	var lists [][]Hit
	for i := range n {
		lists = append(lists, hitsOf(i))
	}
	want := best(lists)
	for _, transport := range Transports() {
		probe := start(t, transport, n)
		for name, ask := range map[string]Contender{"Broadcast": ByBroadcast, "by hand": ByHand, "quorum": ByQuorum} {
			for range 3 { // over pooled connections too
				got, err := ask(t.Context(), PeerNames(n), probe)
				if err != nil || !slices.Equal(got, want) {
					t.Fatalf("%s, %s: %v, %v; want %v", transport.Name, name, got, err, want)
				}
			}
		}
	}
	probe := Instantly()
	if got, err := ByBroadcast(t.Context(), PeerNames(n), probe); err != nil || !slices.Equal(got, want) {
		t.Errorf("without a transport: %v, %v; want %v", got, err, want)
	}
}

// A peer that isn't there costs its own hits in the library and by hand.
func TestPeerThatIsGone(t *testing.T) {
	inner := Instantly()
	probe := func(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]Hit, error) {
		if peer == PeerNames(2)[1] {
			return nil, errors.New("gone")
		}
		return inner(ctx, peer, req)
	}
	if got, err := ByHand(t.Context(), PeerNames(2), probe); err != nil || !slices.Equal(got, hitsOf(0)) {
		t.Errorf("by hand: %v, %v", got, err)
	}
	if _, err := ByBroadcast(t.Context(), PeerNames(2), probe); err == nil {
		t.Error("a partial answer is no error to the benchmark")
	}
}

// A probe returns when its context ends, and its connection isn't used again.
func TestCancelledProbe(t *testing.T) {
	for _, transport := range Transports() {
		probe := start(t, transport, 1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := probe(ctx, PeerNames(1)[0], Request); err == nil {
			t.Errorf("%s: no error after the context has ended", transport.Name)
		}
		if hits, err := probe(t.Context(), PeerNames(1)[0], Request); err != nil || !slices.Equal(hits, hitsOf(0)) {
			t.Errorf("%s: %v, %v afterwards", transport.Name, hits, err)
		}
	}
}

func TestServeChecksTheTransport(t *testing.T) {
	if err := Serve("carrier pigeon", 1, io.Discard, nil); err == nil {
		t.Error("no error")
	}
}

// start runs peers in this process and returns a probe of them.
func start(t *testing.T, transport Transport, n int) scatter.Probe[Hit] {
	t.Helper()
	addrs, w := io.Pipe()
	r, stop := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(transport.Name, n, w, r) }()
	probe, closer, err := transport.Dial(n, addrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closer.Close()
		stop.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return probe
}
