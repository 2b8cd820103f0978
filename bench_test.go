package scatter

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The module benchmarks/ compares with rivals, checks how times grow, and writes the report. Here
// is what has to be seen from within, and what is bounded by a rule.

// benchPeers returns n names.
func benchPeers(n int) []PeerID {
	peers := make([]PeerID, n)
	for i := range peers {
		peers[i] = PeerID(fmt.Sprintf("peer%05d", i))
	}
	return peers
}

// benchRandomCover returns the Cover of a ring of random tokens, with three replicas.
func benchRandomCover(peers []PeerID, tokens int) *Cover {
	r := rand.New(rand.NewPCG(uint64(len(peers)), uint64(tokens)))
	points := make([]Point, 0, len(peers)*tokens)
	for _, peer := range peers {
		for range tokens {
			points = append(points, Point{r.Uint64(), peer})
		}
	}
	return NewCover(NewRing(points...), 3)
}

// benchGroups returns n shards of three peers each.
func benchGroups(n int) *Cover {
	return NewGroupCover(slices.Collect(slices.Chunk(benchPeers(3*n), 3))...)
}

func benchAnswer(context.Context, PeerID, *Request) ([]Hit[string], error) {
	return []Hit[string]{{"a", 1}}, nil
}

// Claim: choosing and learning cost at most 1.3 times a plain Broadcast to as many peers, and
// nothing is allocated for each reply.
func BenchmarkSearcher(b *testing.B) {
	ctx := context.Background()
	req := &Request{Table: "t", Query: KNN{}, K: 1}
	for _, n := range []int{1, 3, 10, 100, 1000} {
		s, err := NewSearcher(benchAnswer, benchGroups(n), &SearcherOptions{
			Seed: 1, HedgeDelay: time.Second, HedgeQuantile: -1, // a hedge would be one probe more
		})
		require.NoError(b, err)
		peers := benchPeers(n)
		for _, impl := range []struct {
			name string
			ask  func() (*Response[Hit[string]], error)
		}{
			{"search", func() (*Response[Hit[string]], error) { return s.Search(ctx, req, nil) }},
			{"broadcast", func() (*Response[Hit[string]], error) { return Broadcast(ctx, req, peers, benchAnswer, nil) }},
		} {
			b.Run(fmt.Sprintf("peers=%d/impl=%s", n, impl.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if resp, err := impl.ask(); err != nil || resp.Partial || resp.PeersConsulted != n {
						b.Fatal(resp, err)
					}
				}
			})
		}
	}
}

// Rule 40: the end is cheap. Half of the peers hang, and their deadline ends the query. The metric
// ms-late is how long after it the answer comes, in the median: less than 5 on a quiet machine.
// There are fewer than 100 allocations.
func BenchmarkEnd(b *testing.B) {
	const deadline = 20 * time.Millisecond
	req := &Request{Table: "t", Query: KNN{}, K: 10}
	for _, n := range []int{250, 1000} {
		for _, tokens := range []int{128, 256} {
			peers := benchPeers(n)
			cover := benchRandomCover(peers, tokens)
			number, hits := make(map[PeerID]int, n), make([][]Hit[string], n) // the probes allocate nothing
			for i, peer := range peers {
				number[peer], hits[i] = i, []Hit[string]{{string(peer), float32(i)}}
			}
			half := func(peer PeerID) bool { return number[peer]%4 < 2 }
			probe := func(ctx context.Context, peer PeerID, _ *Request) ([]Hit[string], error) {
				if number[peer]%2 == 1 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return hits[number[peer]], nil
			}
			for _, setting := range []struct {
				name string
				live Liveness
			}{{"none", nil}, {"half", half}} {
				b.Run(fmt.Sprintf("peers=%d/tokens=%d/dead=%s", n, tokens, setting.name), func(b *testing.B) {
					opts := &Options{PeerDeadline: deadline, Cover: cover, Live: setting.live}
					benchEnd(b, deadline, func() (*Response[Hit[string]], error) {
						return Broadcast(context.Background(), req, peers, probe, opts)
					})
				})
			}
		}
	}
}

func benchEnd(b *testing.B, deadline time.Duration, ask func() (*Response[Hit[string]], error)) {
	var late []float64
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		resp, err := ask()
		late = append(late, float64(time.Since(start)-deadline)/1e6)
		if err != nil || !resp.Partial || resp.PeersTimedOut == 0 {
			b.Fatal(resp, err)
		}
	}
	b.ReportMetric(benchMedian(late), "ms-late")
}

// Claim: after SetCover, and after a change of live peers, no query takes 1 ms more than later
// ones do. The metric ms-more is what the slowest of the first 8 queries takes beyond the median
// of later ones.
func BenchmarkSearcherChange(b *testing.B) {
	peers := benchPeers(10_000)
	cover := benchRandomCover(peers, 64)
	for _, change := range []string{"cover", "live"} {
		b.Run("change="+change, func(b *testing.B) {
			dead := PeerID("")
			s, err := NewSearcher(benchAnswer, cover, &SearcherOptions{
				Options: Options{Live: func(peer PeerID) bool { return peer != dead }}, Seed: 1,
			})
			require.NoError(b, err)
			now := time.Now()
			query := func() float64 {
				start := time.Now()
				now = benchStep(b, s, now)
				return float64(time.Since(start)) / 1e6
			}
			for range 8 {
				query()
			}
			var first, later []float64
			for turn := 0; b.Loop(); turn++ {
				if change == "cover" {
					s.SetCover(cover)
				} else {
					dead = peers[turn%len(peers)]
				}
				most := math.Inf(-1)
				for range 8 {
					most = max(most, query())
				}
				first = append(first, most)
				for range 16 {
					later = append(later, query())
				}
			}
			b.ReportMetric(benchMedian(later), "ms-later")
			b.ReportMetric(benchMedian(first)-benchMedian(later), "ms-more")
			require.NoError(b, s.Close(context.Background()))
		})
	}
}

// benchStep does one query by hand, whose peers all answer after a millisecond.
func benchStep(b *testing.B, s *Searcher[Hit[string], string], now time.Time) time.Time {
	var asked []int
	q, err := s.Coordinator(&Request{Query: KNN{}, K: 1}, func(a Ask) bool {
		asked = append(asked, a.Index)
		return true
	}, nil)
	require.NoError(b, err)
	q.Begin(now, time.Time{})
	now = now.Add(time.Millisecond)
	for _, i := range asked {
		q.Reply(now, i, nil, nil)
	}
	if q.State() != Merging || q.Err() != nil {
		b.Fatal(q.State(), q.Err())
	}
	return now
}

func benchMedian(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
