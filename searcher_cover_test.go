package scatter

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// randomToken returns any token, and often one at which something begins or ends.
func randomToken(r *rand.Rand) uint64 {
	switch r.IntN(4) {
	case 0:
		return []uint64{0, 1, math.MaxUint64, math.MaxUint64 - 1, 1 << 63, 1<<63 - 1}[r.IntN(6)]
	case 1:
		return uint64(r.IntN(8)) << 61
	}
	return r.Uint64()
}

// somePeersOf returns up to n of some peers, each once.
func somePeersOf(r *rand.Rand, peers []PeerID, n int) []PeerID {
	list := slices.Clone(peers)
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(n, len(list))]
}

func randomRing(r *rand.Rand, peers []PeerID) *Ring {
	var points []Point
	for _, peer := range peers {
		for range 1 + r.IntN(4) {
			points = append(points, Point{randomToken(r), peer})
		}
	}
	return NewRing(points...)
}

// randomCover returns a Cover of any kind.
func randomCover(t *testing.T, r *rand.Rand, peers []PeerID, depth int) *Cover {
	switch kind := r.IntN(4 + depth); kind {
	case 0:
		return NewCover(randomRing(r, peers), 1+r.IntN(4))
	case 1:
		groups := make([][]PeerID, r.IntN(7))
		for i := range groups {
			groups[i] = somePeersOf(r, peers, r.IntN(4))
		}
		return NewGroupCover(groups...)
	case 2:
		starts := map[uint64]bool{}
		for range r.IntN(7) {
			starts[randomToken(r)] = true
		}
		tokens := slices.Sorted(maps.Keys(starts))
		var ranges []Range
		for i, first := range tokens {
			last := tokens[(i+1)%len(tokens)] - 1
			if r.IntN(4) > 0 {
				ranges = append(ranges, Range{first, last, somePeersOf(r, peers, r.IntN(4))})
			}
		}
		c, err := NewRangeCover(ranges...)
		require.NoError(t, err)
		return c
	case 3: // racks
		var racks []*Cover
		for i := range 1 + r.IntN(3) {
			var rack []PeerID
			for j := i; j < len(peers); j += 3 {
				rack = append(rack, peers[j])
			}
			racks = append(racks, NewCover(randomRing(r, rack), 1))
		}
		return JoinCovers(racks...)
	default:
		return JoinCovers(randomCover(t, r, peers, 0), nil, randomCover(t, r, peers, depth-1))
	}
}

// document is one document of a test's index.
type document struct {
	token uint64
	hit   Hit[string]
}

// world is an index on a Cover, and what becomes of its peers.
type world struct {
	cover *Cover
	docs  []document
	order Order
	fates map[PeerID]int
	slow  map[PeerID]time.Duration
}

// The fates of peers.
const (
	answers = iota
	fails
	hangs
	dies
	answersInPart
	panics
)

func newWorld(t *testing.T, r *rand.Rand) *world {
	peers := somePeers(1 + r.IntN(8))
	w := &world{
		cover: randomCover(t, r, peers, 2), order: []Order{ScoreAscending, ScoreDescending, IDAscending}[r.IntN(3)],
		fates: map[PeerID]int{}, slow: map[PeerID]time.Duration{},
	}
	for _, peer := range peers {
		w.slow[peer] = time.Duration(r.IntN(30)) * time.Millisecond
		if r.IntN(3) == 0 {
			w.fates[peer] = r.IntN(6)
		}
	}
	for i := range r.IntN(40) {
		w.docs = append(w.docs, document{randomToken(r), Hit[string]{fmt.Sprint("d", i), float32(r.IntN(20))}})
	}
	for _, end := range w.cover.ends {
		w.docs = append(w.docs, document{end, Hit[string]{fmt.Sprint("e", end), float32(r.IntN(20))}})
	}
	return w
}

// best returns the best k hits of documents.
func (w *world) best(k int, which func(document) bool) hitList {
	var list hitList
	for _, d := range w.docs {
		if which(d) {
			list = append(list, d.hit)
		}
	}
	slices.SortFunc(list, func(a, b Hit[string]) int {
		if before(a, b, w.order) {
			return -1
		}
		return 1
	})
	return list[:min(k, len(list))]
}

// probe gives what a peer holds.
func (w *world) probe(ctx context.Context, peer PeerID, req *Request) (hitList, error) {
	if w.fates[peer] == hangs {
		return obey(ctx)
	}
	time.Sleep(w.slow[peer])
	hits := w.best(req.K, func(d document) bool { return slices.Contains(w.cover.Holders(d.token), peer) })
	switch w.fates[peer] {
	case fails:
		return hits, errBroke
	case answersInPart:
		return hits, ErrPartial
	case panics:
		panic(errBoom)
	}
	return hits, nil
}

func (w *world) async(ctx context.Context, peer PeerID, req *Request, done func([]Hit[string], error)) {
	if w.fates[peer] == panics {
		panic(errBoom)
	}
	if w.fates[peer] != hangs {
		go func() { done(w.probe(ctx, peer, req)) }()
	}
}

func (w *world) live(peer PeerID) bool { return w.fates[peer] != dies }

// check compares a Response with what its ledger implies. Rules 31 and 33.
func (w *world) check(t *testing.T, r *Response[Hit[string]], k int, what string) {
	answered, merged, dead := map[PeerID]bool{}, map[PeerID]bool{}, 0
	for _, p := range r.Peers {
		require.False(t, merged[p.Peer])
		answered[p.Peer] = p.Status == Answered
		merged[p.Peer] = p.Status == Answered || p.Status == Incomplete
		require.Equal(t, w.live(p.Peer), p.Status != Dead, what)
		dead += int(count(p.Status == Dead))
	}
	for _, peer := range w.cover.Peers() {
		dead -= int(count(!w.live(peer)))
	}
	require.Zero(t, dead, "each dead peer has a line: %s", what)
	heldBy := func(token uint64, by map[PeerID]bool) bool {
		return slices.ContainsFunc(w.cover.Holders(token), func(peer PeerID) bool { return by[peer] })
	}

	// Coverage is exactly the share of the tokens.
	sum := new(big.Int)
	for i, end := range w.cover.ends {
		if heldBy(end, answered) {
			if len(w.cover.ends) == 1 {
				sum.Lsh(big.NewInt(1), 64)
				break
			}
			width := end - w.cover.ends[(i+len(w.cover.ends)-1)%len(w.cover.ends)]
			sum.Add(sum, new(big.Int).SetUint64(width))
		}
	}
	want, _ := new(big.Rat).SetFrac(sum, new(big.Int).Lsh(big.NewInt(1), 64)).Float64()
	require.InDelta(t, want, r.Coverage, 1e-15, what)
	require.Equal(t, sum.BitLen() == 65, r.Coverage == 1, what)
	require.Equal(t, r.Coverage < 1, r.Partial, what)

	// Missing are exactly the tokens that are not covered, and who holds them.
	missing, firsts := 0.0, map[uint64]bool{}
	for _, m := range r.Missing {
		missing += m.Share
		firsts[m.First] = true
		holders := map[PeerID]bool{}
		for _, end := range append(slices.Clone(w.cover.ends), m.First, m.Last) {
			if end-m.First <= m.Last-m.First {
				for _, peer := range w.cover.Holders(end) {
					holders[peer] = true
				}
			}
		}
		require.ElementsMatch(t, slices.Collect(maps.Keys(holders)), m.Holders, what)
	}
	require.InDelta(t, 1-want, missing, 1e-12, what)
	for _, m := range r.Missing {
		require.False(t, firsts[m.Last+1] && m.First != m.Last+1, "adjacent stretches are one: %s", what)
	}
	for _, d := range w.docs {
		in := slices.ContainsFunc(r.Missing, func(m MissingRange) bool { return d.token-m.First <= m.Last-m.First })
		require.Equal(t, !heldBy(d.token, answered), in, "%d: %s", d.token, what)
	}

	// Hits are the best of all that the peers hold whose hits were merged.
	require.Equal(t, w.best(k, func(d document) bool { return heldBy(d.token, merged) }), r.Hits, what)
	// So no document of a range that is called covered is lacking.
	for _, hit := range w.best(k, func(d document) bool { return heldBy(d.token, answered) }) {
		full := len(r.Hits) == k && before(r.Hits[k-1], hit, w.order)
		require.True(t, full || slices.Contains(r.Hits, hit), what)
	}
}

// Rule 33: on every topology, for every set of peers that answer, fail, hang or are dead, an answer
// is what an oracle computes from its ledger. Without a bound on fallbacks and with enough time,
// all is covered that a peer holds that answers. Rules 24, 27, 31, 32 and 34 too. -cases 100000
// tries more.
func TestSearcherNeverOverstates(t *testing.T) {
	for seed := range uint64(*randomCases) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 33))
			w := newWorld(t, r)
			opts := SearcherOptions{
				Options: Options{PeerDeadline: 50 * time.Millisecond, Live: w.live}, AskAll: r.IntN(5) == 0,
			}
			if !opts.AskAll {
				opts.FallbackShare, opts.Seed = -1, seed+1
				opts.HedgeDelay = []time.Duration{0, time.Millisecond, -1}[r.IntN(3)]
				opts.Affinity = []string{"", "", "x"}[r.IntN(3)]
			}
			opts.WaitAll, opts.Limit = r.IntN(3) == 0, r.IntN(3)
			s := w.searcher(t, &opts, r.IntN(2) == 0)
			for i := range 4 {
				what := fmt.Sprintf("seed %d, query %d", seed, i)
				req := &Request{Query: KNN{Ranking: w.order}, K: 1 + r.IntN(10)}
				if w.order == IDAscending {
					req.Query = Text{}
				}
				ctx, cancel := t.Context(), func() {}
				timed := r.IntN(3) == 0
				if timed {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(80))*time.Millisecond)
				}
				resp, err := s.Search(ctx, req, nil)
				cancel()
				require.NoError(t, err, what)
				w.check(t, resp, req.K, what)
				if !timed {
					w.checkComplete(t, resp, what)
				}
				time.Sleep(time.Second)
				synctest.Wait() // for all late probes
				peer := somePeers(8)[r.IntN(8)]
				w.fates[peer] = []int{answers, r.IntN(6)}[r.IntN(2)]
			}
		})
	}
}

func (w *world) searcher(t *testing.T, opts *SearcherOptions, async bool) stringSearcher {
	var s stringSearcher
	var err error
	if async {
		s, err = NewSearcherAsync(w.async, w.cover, opts)
	} else {
		s, err = NewSearcher(w.probe, w.cover, opts)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close(context.Background())) })
	return s
}

// checkComplete checks that all is covered of which a holder answers.
func (w *world) checkComplete(t *testing.T, r *Response[Hit[string]], what string) {
	for _, m := range r.Missing {
		for _, peer := range m.Holders {
			require.NotEqual(t, answers, w.fates[peer], "%s holds %v, and answers: %s: %s", peer, m, summary(r), what)
		}
	}
}

// Rule 29: SetCover while a hundred goroutines search. Each query keeps the Cover it began with.
func TestSetCoverWhileSearching(t *testing.T) {
	covers := make([]*Cover, 4)
	for i := range covers {
		peers := somePeers(6 + i)
		for j := range peers {
			peers[j] = PeerID(fmt.Sprint("cover", i, peers[j]))
		}
		covers[i] = circleCover(3, peers...)
	}
	s := newTestSearcher(t, instantProbe, covers[0], SearcherOptions{HedgeQuantile: 0.9})
	var wg sync.WaitGroup
	var searched atomic.Int32
	for range 100 {
		wg.Go(func() {
			for range 10 {
				r, err := s.Search(t.Context(), testRequest, nil)
				searched.Add(1)
				if err != nil || r.Partial || len(r.Peers) == 0 {
					t.Errorf("%v %+v", err, r)
					return
				}
				for _, p := range r.Peers {
					if p.Peer[:6] != r.Peers[0].Peer[:6] {
						t.Error("peers of two covers", summary(r))
					}
				}
			}
		})
	}
	for i := 0; searched.Load() < 1000 && !t.Failed(); i++ {
		s.SetCover(covers[i%len(covers)])
		s.Stats()
	}
	wg.Wait()
	require.Equal(t, int64(1000), s.Stats().Queries)
}

// Nobody holds anything on a nil Cover, so nothing is known; a later Cover is used by later
// queries.
func TestSetCoverFromNothing(t *testing.T) {
	s := newTestSearcher(t, instantProbe, nil, SearcherOptions{})
	for _, nothing := range []*Cover{nil, new(Cover), NewCover(nil, 3), NewGroupCover()} {
		s.SetCover(nothing)
		r, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		require.True(t, r.Partial)
		require.Len(t, r.Missing, 1)
		require.Empty(t, r.Peers)
	}
	s.SetCover(circleCover(3, "a", "b"))
	r, err := s.Search(t.Context(), testRequest, nil)
	require.NoError(t, err)
	require.False(t, r.Partial)
	require.Equal(t, "a", ids(r.Hits))
}

// When data moves, the new holder is loaded first, then comes SetCover, and the old holder deletes
// last. In another order an answer lacks documents and looks whole: an empty peer answers for the
// range.
func TestSetCoverOrderOfMoving(t *testing.T) {
	const (
		load = iota
		set
		deletes
	)
	lacking := func(steps ...int) (wrong int) {
		holds := map[PeerID]bool{"old": true}
		probe := func(_ context.Context, peer PeerID, _ *Request) (hitList, error) {
			if holds[peer] {
				return hitList{{"doc", 1}}, nil
			}
			return nil, nil
		}
		s := newTestSearcher(t, probe, NewGroupCover([]PeerID{"old"}), SearcherOptions{})
		for _, step := range steps {
			switch step {
			case load:
				holds["new"] = true
			case set:
				s.SetCover(NewGroupCover([]PeerID{"new"}))
			case deletes:
				holds["old"] = false
			}
			r, err := s.Search(t.Context(), testRequest, nil)
			require.NoError(t, err)
			require.False(t, r.Partial)
			wrong += int(count(len(r.Hits) == 0))
		}
		return wrong
	}
	require.Zero(t, lacking(load, set, deletes))
	require.Equal(t, 1, lacking(set, load, deletes))
	require.Equal(t, 1, lacking(load, deletes, set))
	require.Equal(t, 2, lacking(set, deletes, load))
}
