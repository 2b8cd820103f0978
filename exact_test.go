package scatter

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

var exactCases = flag.Int("exact-cases", 3000, "random clusters that the oracles of exact answers check")

// ordered is a query that only has an Order.
type ordered Order

func (q ordered) Order() Order { return Order(q) }

// exactCluster is a random cluster for the oracles of exact answers: few distinct scores, so that
// ties are common, NaN among them, and replicas.
type exactCluster struct {
	order  Order
	peers  []PeerID
	holds  map[PeerID][]Hit[int] // sorted
	all    []Hit[int]            // sorted, each document once
	heeds  bool                  // its probes heed Skip and After
	failed map[PeerID]error
}

func newExactCluster(r *rand.Rand) *exactCluster {
	c := &exactCluster{
		order: Order(r.IntN(3)), holds: map[PeerID][]Hit[int]{}, heeds: r.IntN(2) == 0, failed: map[PeerID]error{},
	}
	for i := range 1 + r.IntN(6) {
		c.peers = append(c.peers, PeerID(fmt.Sprint(i)))
	}
	scores := []float32{0, 1, 2, 3, float32(math.NaN()), float32(math.Inf(1)), float32(math.Copysign(0, -1))}
	for id := range r.IntN(30) {
		h := Hit[int]{id, scores[r.IntN(len(scores))]}
		c.all = append(c.all, h)
		for _, i := range r.Perm(len(c.peers))[:min(1+r.IntN(2), len(c.peers))] {
			peer := c.peers[i]
			c.holds[peer] = append(c.holds[peer], h)
		}
	}
	for _, list := range c.holds {
		c.sort(list)
	}
	c.sort(c.all)
	return c
}

func (c *exactCluster) sort(list []Hit[int]) {
	slices.SortFunc(list, func(a, b Hit[int]) int { return compareHits(a, b, c.order) })
}

// probe answers as an index does: longer lists begin with shorter ones.
func (c *exactCluster) probe(_ context.Context, peer PeerID, req *Request) ([]Hit[int], error) {
	if err := c.failed[peer]; err != nil && req.Skip == 0 {
		return nil, err
	}
	list := c.holds[peer]
	if c.heeds && req.After != "" {
		var after Hit[int]
		if err := AfterHit(req.After, &after); err != nil {
			return nil, err
		}
		list = list[countUpTo(list, after, c.order):]
	}
	list = list[:min(req.K, len(list))]
	if c.heeds {
		list = list[min(req.Skip, len(list)):]
	}
	return list, nil
}

// sameHits compares hits by their IDs and the bits of their scores.
func sameHits(a, b []Hit[int]) bool {
	return slices.EqualFunc(a, b, func(x, y Hit[int]) bool {
		return x.ID == y.ID && math.Float32bits(x.Score) == math.Float32bits(y.Score)
	})
}

// Rules 43, 44, 45: with PeerK the answer is the same as if each peer had been asked for K, all of
// it is proven, no peer is asked more than twice, and nobody is asked for more than could matter.
func TestRefillAgainstOracle(t *testing.T) {
	twice := 0
	for seed := range uint64(*exactCases) {
		r := rand.New(rand.NewPCG(seed, 43))
		c := newExactCluster(r)
		k, first := 1+r.IntN(8), r.IntN(10)-1
		asked := map[PeerID][]Request{}
		var mu sync.Mutex
		counted := func(ctx context.Context, peer PeerID, req *Request) ([]Hit[int], error) {
			mu.Lock()
			asked[peer] = append(asked[peer], *req)
			mu.Unlock()
			return c.probe(ctx, peer, req)
		}
		resp, err := Broadcast(t.Context(), &Request{Query: ordered(c.order), K: k, Skip: 5}, c.peers, counted,
			&Options{PeerK: func(int, int) int { return first }})
		require.NoError(t, err)
		want := c.all[:min(k, len(c.all))]
		if !sameHits(resp.Hits, want) || resp.Exact != len(want) {
			t.Fatalf("seed %d: got %v, %d exact, want %v; peers %v", seed, resp.Hits, resp.Exact, want, c.holds)
		}
		require.Equal(t, len(c.peers), resp.PeersConsulted, "seed %d", seed)
		for i, peer := range c.peers {
			requests := asked[peer]
			require.LessOrEqual(t, len(requests), 2, "seed %d", seed)
			require.Equal(t, min(max(first, 1), k), requests[0].K)
			require.Zero(t, requests[0].Skip)
			if len(requests) == 2 {
				twice++
				require.Equal(t, min(requests[0].K, len(c.holds[peer])), requests[1].Skip, "seed %d", seed)
				require.LessOrEqual(t, requests[1].K, requests[1].Skip+k, "seed %d", seed)
				require.LessOrEqual(t, resp.Peers[i].Refilled, requests[1].K-requests[1].Skip, "seed %d", seed)
			}
		}
	}
	require.NotZero(t, twice)
}

// Rule 43: without refill, with peers that fail, with lists that don't agree: what is called exact
// is what all that the answering peers hold begins with.
func TestExactNeverOverstated(t *testing.T) {
	exact := 0
	for seed := range uint64(*exactCases) {
		r := rand.New(rand.NewPCG(seed, 44))
		c := newExactCluster(r)
		disagree := r.IntN(3) == 0
		if disagree { // replicas give other scores to the same document
			for _, list := range c.holds {
				for i := range list {
					if r.IntN(3) == 0 {
						list[i].Score = float32(r.IntN(5))
					}
				}
				c.sort(list)
			}
		}
		var held [][]Hit[int]
		for _, peer := range c.peers {
			switch r.IntN(5) {
			case 0:
				c.failed[peer] = errBroke
			default:
				held = append(held, c.holds[peer])
			}
		}
		k, first := 1+r.IntN(8), 1+r.IntN(8)
		opts := &Options{PeerK: func(int, int) int { return first }}
		if r.IntN(2) == 0 {
			opts = nil
		}
		resp, err := Broadcast(t.Context(), &Request{Query: ordered(c.order), K: k}, c.peers, c.probe, opts)
		require.NoError(t, err)
		best := Merge(held, k, c.order)
		if resp.Exact > len(best) || !sameHits(resp.Hits[:resp.Exact], best[:resp.Exact]) {
			t.Fatalf("seed %d: %v, %d exact, but the best are %v of %v", seed, resp.Hits, resp.Exact, best, held)
		}
		if !disagree {
			require.Equal(t, len(best), resp.Exact, "seed %d", seed)
		}
		exact += resp.Exact
	}
	require.NotZero(t, exact)
}

// Rule 43: a reply that isn't sorted may be the best by another order, and a peer that contradicts
// itself, or calls its reply partial, proves nothing.
func TestExactOfOddReplies(t *testing.T) {
	list := []Hit[int]{{1, 1}, {2, 2}, {3, 3}, {4, 4}}
	tests := []struct {
		name   string
		first  []Hit[int]
		err    error
		second []Hit[int]
		exact  int
	}{
		{"full", list[:2], nil, list[2:], 4},
		{"short", list[:1], nil, nil, 1},
		{"unsorted", []Hit[int]{{2, 2}, {1, 1}}, nil, nil, 0},
		{"contradicted", list[:2], nil, []Hit[int]{{9, 0}, {1, 1}, {2, 2}, {3, 3}}, 0},
		{"whole list again", list[:2], nil, list, 4},
		{"partial", list[:2], ErrPartial, nil, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			probe := func(_ context.Context, _ PeerID, req *Request) ([]Hit[int], error) {
				if req.Skip > 0 {
					return tt.second, nil
				}
				return tt.first, tt.err
			}
			resp, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 4}, []PeerID{"a"}, probe,
				&Options{PeerK: func(int, int) int { return 2 }})
			require.NoError(t, err)
			assert.Equal(t, tt.exact, resp.Exact)
		})
	}
}

// Rule 46: on data at rest, pages of any sizes are one long answer.
func TestPagesAgainstOracle(t *testing.T) {
	for seed := range uint64(*exactCases) {
		r := rand.New(rand.NewPCG(seed, 46))
		c := newExactCluster(r)
		c.heeds = true
		var got []Hit[int]
		req := &Request{Query: ordered(c.order)}
		for page := 0; ; page++ {
			require.Less(t, page, 100, "seed %d", seed)
			req.K = 1 + r.IntN(5)
			opts := &Options{}
			if r.IntN(2) == 0 {
				opts.PeerK = func(int, int) int { return 1 + r.IntN(3) }
			}
			clear(c.failed)
			if r.IntN(4) == 0 { // some pages lack a peer, and are taken again
				c.failed[c.peers[0]] = errBroke
			}
			resp, err := Broadcast(t.Context(), req, c.peers, c.probe, opts)
			require.NoError(t, err)
			if resp.Partial {
				require.NotEmpty(t, resp.Next, "seed %d", seed)
				continue
			}
			got = append(got, resp.Hits[:resp.Exact]...)
			if resp.Next == "" {
				break
			}
			req = &Request{Query: req.Query, After: resp.Next}
		}
		if !sameHits(got, c.all) {
			t.Fatalf("seed %d: pages %v, want %v", seed, got, c.all)
		}
	}
}

// Rule 46: hits at or before the cursor are dropped, whatever the peer sends.
func TestAfterIgnoredByProbe(t *testing.T) {
	probe := func(context.Context, PeerID, *Request) ([]Hit[int], error) {
		return []Hit[int]{{1, 1}, {2, 2}, {3, 2}, {4, 5}}, nil
	}
	after := newCursor(Hit[int]{2, 2}, ScoreAscending)
	resp, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 5, After: after}, []PeerID{"a"}, probe, nil)
	require.NoError(t, err)
	assert.Equal(t, []Hit[int]{{3, 2}, {4, 5}}, resp.Hits)
	assert.Equal(t, 2, resp.Exact)
	assert.Empty(t, resp.Next)

	resp, err = Broadcast(t.Context(), &Request{Query: KNN{}, K: 4, After: after}, []PeerID{"a"}, probe, nil)
	require.NoError(t, err)
	assert.Equal(t, newCursor(Hit[int]{4, 5}, ScoreAscending), resp.Next, "the reply was not short")
}

// Rule 46: a page of which nothing is proven says where it began, even if that is the beginning.
func TestNextOfNothing(t *testing.T) {
	fail := true
	probe := func(_ context.Context, _ PeerID, req *Request) ([]Hit[int], error) {
		if fail {
			return nil, errBroke
		}
		if req.After != "" {
			t.Errorf("After is %q, want none", req.After)
		}
		return []Hit[int]{{1, 1}}, nil
	}
	resp, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 5}, []PeerID{"a"}, probe, nil)
	require.NoError(t, err)
	require.NotEmpty(t, resp.Next)
	var hit Hit[int]
	var bad *CursorError
	require.ErrorAs(t, AfterHit(resp.Next, &hit), &bad)
	again, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 5, After: resp.Next}, []PeerID{"a"}, probe, nil)
	require.NoError(t, err)
	assert.Equal(t, resp.Next, again.Next)
	fail = false
	again, err = Broadcast(t.Context(), &Request{Query: KNN{}, K: 5, After: resp.Next}, []PeerID{"a"}, probe, nil)
	require.NoError(t, err)
	assert.Equal(t, []Hit[int]{{1, 1}}, again.Hits)
	assert.Empty(t, again.Next)
}

// SpreadK is Vespa's formula; by hash, hardly any query needs a second round.
func TestSpreadK(t *testing.T) {
	f := SpreadK(0.9999)
	assert.Equal(t, 10, f(10, 1))
	assert.Equal(t, 19, f(100, 16))
	assert.Equal(t, 103, f(1000, 16))
	assert.Equal(t, 752, f(10000, 16))
	assert.Equal(t, 7, f(100, 100))
	assert.Equal(t, 100, SpreadK(1)(100, 16))
	assert.Equal(t, 100, SpreadK(math.NaN())(100, 16))
	assert.LessOrEqual(t, SpreadK(-3)(100, 16), 20)
	for k := range 50 {
		for peers := range 50 {
			got := f(k+1, peers+1)
			assert.GreaterOrEqual(t, got, 1)
			assert.LessOrEqual(t, got, k+1)
		}
	}
}

// Rules 42, 45: a refill waits for a unit of the Semaphore as long as a first question may.
func TestRefillWaitsForUnitAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sem := semaphore.NewWeighted(1)
		probe := func(_ context.Context, p PeerID, req *Request) (hitList, error) {
			time.Sleep(800 * time.Millisecond)
			l := hitList{{string(p) + "1", 1}, {string(p) + "2", 2}}
			return l[min(req.Skip, 2):min(req.K, 2)], nil
		}
		resp, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 4}, []PeerID{"a", "b"}, probe,
			&Options{PeerDeadline: time.Second, Semaphore: sem, PeerK: func(int, int) int { return 1 }})
		assert.NoError(t, err)
		assert.Equal(t, 4, resp.Exact, "each refill waits 0.8 s for its unit, less than PeerDeadline")
	})
}

// Rule 9: the cause of a cancelled query is told also if a refill is the first to notice it.
func TestRefillNoticesCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		probe := func(ctx context.Context, _ PeerID, req *Request) (hitList, error) {
			if req.Skip == 0 {
				return hitList{{"a", 1}}, nil
			}
			cancel(errBroke)
			return nil, ctx.Err()
		}
		resp, err := Broadcast(ctx, testRequest, []PeerID{"p"}, probe, &Options{PeerK: func(int, int) int { return 1 }})
		require.Equal(t, errBroke, err)
		require.Equal(t, "p:Answered", summary(resp))
		require.Equal(t, 1, resp.Exact)
	})
}
