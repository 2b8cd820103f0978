// Package loopback has what queries over real transports are measured with: peers that listen on
// loopback, a TCP protocol with pooled connections, HTTP with JSON, and several ways to ask all
// peers for their best hits.
package loopback

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/scatterknn/scatter"
)

// Hit is what the peers find.
type Hit = scatter.Hit[string]

const (
	k          = 10 // hits of each peer, and of the answer
	dimensions = 64
)

// Request is what the peers are asked.
var Request = &scatter.Request{Table: "docs", Query: scatter.KNN{Field: "embedding", Vector: vector()}, K: k}

func vector() []float32 {
	r := rand.New(rand.NewPCG(dimensions, 0))
	v := make([]float32, dimensions)
	for i := range v {
		v[i] = r.Float32()
	}
	return v
}

// hitsOf returns the hits of the i-th peer, sorted. No two peers have one in common.
func hitsOf(i int) []Hit {
	r := rand.New(rand.NewPCG(uint64(i), k))
	hits := make([]Hit, k)
	for j := range hits {
		hits[j] = Hit{ID: fmt.Sprintf("doc-%08d", i*k+j), Score: r.Float32()}
	}
	slices.SortFunc(hits, compare)
	return hits
}

// A Transport is a way to talk to peers.
type Transport struct {
	Name  string
	serve func(peer int) (addr string, stop io.Closer, err error)
	dial  func(addrs map[scatter.PeerID]string) (scatter.Probe[Hit], io.Closer)
}

// Transports returns all transports.
func Transports() []Transport {
	return []Transport{{"tcp", serveTCP, dialTCP}, {"http", serveHTTP, dialHTTP}}
}

// PeerNames returns the names of n peers.
func PeerNames(n int) []scatter.PeerID {
	peers := make([]scatter.PeerID, n)
	for i := range peers {
		peers[i] = scatter.PeerID(fmt.Sprintf("peer%04d", i))
	}
	return peers
}

// Serve runs n peers, writes their addresses to w, one a line, and stops them once r has ended.
func Serve(transport string, n int, w io.Writer, r io.Reader) error {
	i := slices.IndexFunc(Transports(), func(t Transport) bool { return t.Name == transport })
	if i < 0 {
		return fmt.Errorf("there is no transport %q", transport)
	}
	var lines strings.Builder
	for peer := range n {
		addr, stop, err := Transports()[i].serve(peer)
		if err != nil {
			return err
		}
		defer stop.Close()
		fmt.Fprintln(&lines, addr)
	}
	if _, err := io.WriteString(w, lines.String()); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

// Dial reads the addresses that Serve writes, and returns a probe of these peers.
func (t Transport) Dial(n int, r io.Reader) (scatter.Probe[Hit], io.Closer, error) {
	addrs := make(map[scatter.PeerID]string, n)
	lines := bufio.NewScanner(r)
	for _, peer := range PeerNames(n) {
		if !lines.Scan() {
			return nil, nil, fmt.Errorf("%d of %d peers have an address: %w", len(addrs), n, io.ErrUnexpectedEOF)
		}
		addrs[peer] = lines.Text()
	}
	probe, closer := t.dial(addrs)
	return probe, closer, nil
}
