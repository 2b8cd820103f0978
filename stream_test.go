package scatter

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// boundsOf is an Options.Bound by a map. A peer that isn't in it has none.
func boundsOf(bounds map[PeerID]float32) func(PeerID, *Request) (float32, bool) {
	return func(peer PeerID, _ *Request) (float32, bool) {
		bound, ok := bounds[peer]
		return bound, ok
	}
}

// Rule 47: peers are asked in the order of their bounds, those without one first, Limit at a time.
// One whose bound ranks behind the K-th known hit is not asked, and counts as answered.
func TestBoundOutranks(t *testing.T) {
	var asked []PeerID
	bounds := map[PeerID]float32{"far": 9, "near": 1, "equal": 2, "odd": float32(math.NaN())}
	probe := func(_ context.Context, peer PeerID, _ *Request) ([]Hit[string], error) {
		asked = append(asked, peer)
		return map[PeerID][]Hit[string]{
			"none": {{"n", 5}}, "odd": {{"o", 7}}, "near": {{"a", 1}, {"b", 2}}, "equal": {{"aa", 2}},
		}[peer], nil
	}
	peers := []PeerID{"far", "near", "none", "equal", "odd"}
	opts := &Options{Limit: 1, Bound: boundsOf(bounds)}
	resp, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 2}, peers, probe, opts)
	require.NoError(t, err)
	assert.Equal(t, []PeerID{"none", "odd", "near", "equal"}, asked)
	assert.Equal(t, []Hit[string]{{"a", 1}, {"aa", 2}}, resp.Hits)
	assert.Equal(t, PeerReport{Peer: "far", Status: Outranked, Err: ErrEnough}, resp.Peers[0])
	assert.Equal(t, 4, resp.PeersConsulted)
	assert.False(t, resp.Partial)
	assert.Equal(t, 2, resp.Exact)

	opts.Cover = NewGroupCover([]PeerID{"near"}, []PeerID{"equal"}, []PeerID{"far"})
	resp, err = Broadcast(t.Context(), &Request{Query: KNN{}, K: 2}, []PeerID{"far", "near", "equal"}, probe, opts)
	require.NoError(t, err)
	assert.Equal(t, 1.0, resp.Coverage)

	_, err = Broadcast(t.Context(), &Request{Query: Text{}, K: 2}, peers, probe, &Options{Bound: opts.Bound})
	require.ErrorContains(t, err, "Options.Bound is set, but the query is ordered by ID")
}

// Rule 47: a hit better than its peer's bound counts, and the peer's line says so.
func TestBoundBroken(t *testing.T) {
	probe := func(context.Context, PeerID, *Request) ([]Hit[string], error) { return []Hit[string]{{"x", 1}}, nil }
	opts := &Options{Bound: boundsOf(map[PeerID]float32{"a": 2})}
	resp, err := Broadcast(t.Context(), &Request{Query: KNN{}, K: 2}, []PeerID{"a"}, probe, opts)
	require.NoError(t, err)
	assert.Equal(t, []Hit[string]{{"x", 1}}, resp.Hits)
	assert.Equal(t, Answered, resp.Peers[0].Status)
	assert.Equal(t, ErrBound, resp.Peers[0].Err)
}

// Rules 47, 48: with true bounds the answer is what asking all gives; what a Stream gives is the
// Response's hits, each once no peer that is out can precede it.
func TestStreamAgainstOracle(t *testing.T) {
	outranked, early := 0, 0
	for seed := range uint64(*exactCases) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 48))
			c := newExactCluster(r)
			c.order = Order(r.IntN(2))
			for _, list := range c.holds {
				c.sort(list)
			}
			c.sort(c.all)
			bounds := map[PeerID]float32{}
			delay := map[PeerID]time.Duration{}
			for _, peer := range c.peers {
				delay[peer] = time.Duration(r.IntN(50)+1) * time.Millisecond
				if list := c.holds[peer]; len(list) > 0 && r.IntN(4) > 0 {
					bounds[peer] = list[0].Score
				}
			}
			opts := &Options{Limit: r.IntN(3), Bound: boundsOf(bounds)}
			if r.IntN(2) == 0 {
				opts.PeerK = func(int, int) int { return 1 + r.IntN(3) }
			}
			k := 1 + r.IntN(8)
			out := map[PeerID]bool{} // who has still to answer
			for _, peer := range c.peers {
				out[peer] = true
			}
			probe := func(ctx context.Context, peer PeerID, req *Request) ([]Hit[int], error) {
				time.Sleep(delay[peer])
				return c.probe(ctx, peer, req)
			}
			began := time.Now()
			hits, result := Stream(t.Context(), &Request{Query: ordered(c.order), K: k}, c.peers, probe, opts)
			resp, err := result()
			require.Nil(t, resp)
			require.NoError(t, err)
			var got []Hit[int]
			var last time.Duration
			for h := range hits {
				got = append(got, h)
				last = time.Since(began)
			}
			resp, err = result()
			require.NoError(t, err)
			want := c.all[:min(k, len(c.all))]
			if !sameHits(got, want) || !sameHits(resp.Hits, want) {
				t.Fatalf("seed %d: streamed %v, answered %v, want %v", seed, got, resp.Hits, want)
			}
			if last < resp.Elapsed {
				early++
			}
			for _, p := range resp.Peers {
				outranked += int(count(p.Status == Outranked))
			}
			for range hits {
				t.Fatalf("seed %d: a second time", seed)
			}
		})
	}
	require.NotZero(t, outranked)
	require.NotZero(t, early)
}

// Rule 48: a hit comes as soon as it is certain, and leaving the loop ends the query.
func TestStreamComesEarlyAndBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cause error
		probe := func(ctx context.Context, peer PeerID, _ *Request) ([]Hit[string], error) {
			if peer == "slow" {
				<-ctx.Done()
				cause = context.Cause(ctx)
				return nil, ctx.Err()
			}
			return []Hit[string]{{"a", 1}, {"b", 3}}, nil
		}
		began := time.Now()
		opts := &Options{Bound: boundsOf(map[PeerID]float32{"fast": 0, "slow": 2})}
		hits, result := Stream(t.Context(), &Request{Query: KNN{}, K: 5}, []PeerID{"slow", "fast"}, probe, opts)
		for h := range hits {
			require.Equal(t, Hit[string]{"a", 1}, h)
			break
		}
		resp, err := result()
		require.NoError(t, err)
		require.Zero(t, time.Since(began))
		require.Equal(t, NotNeeded, resp.Peers[0].Status)
		synctest.Wait()
		require.Equal(t, ErrEnough, cause)
	})
}

// Rule 48: the deadline of the context ends a Stream as it ends a Broadcast, errors of the
// arguments come from the second function, and a panic in the loop's body releases what the query
// holds.
func TestStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := behave{"a": answer(Hit[string]{"x", 1}), "b": obey}.probe
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hits, result := Stream(ctx, testRequest, []PeerID{"a", "b"}, probe, nil)
		require.Equal(t, []Hit[string]{{"x", 1}}, slices.Collect(hits))
		resp, err := result()
		require.NoError(t, err)
		require.Equal(t, "a:Answered b:TimedOut", summary(resp))

		hits, result = Stream(ctx, nil, []PeerID{"a"}, probe, nil)
		require.Empty(t, slices.Collect(hits))
		resp, err = result()
		require.Nil(t, resp)
		require.ErrorContains(t, err, "Request is nil")

		hits, _ = Stream(t.Context(), testRequest, []PeerID{"a"}, probe, nil)
		require.PanicsWithValue(t, "body", func() {
			for range hits {
				panic("body")
			}
		})
	})
}

// Rule 45: a refill that fails or is late costs Exact alone. It is one more probe in ProbeDone,
// none in PeersConsulted.
func TestRefillFails(t *testing.T) {
	for name, second := range map[string]func(context.Context) (hitList, error){
		"fails": fail(errBroke), "hangs": obey, "panics": func(context.Context) (hitList, error) { panic("refill") },
		"permanent": fail(ErrPermanent),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				probe := func(ctx context.Context, _ PeerID, req *Request) (hitList, error) {
					if req.Skip > 0 {
						return second(ctx)
					}
					return hitList{{"a", 1}, {"b", 2}}, nil
				}
				done := 0
				resp, err := Broadcast(t.Context(), testRequest, []PeerID{"p"}, probe, &Options{
					PeerDeadline: time.Second, PeerK: func(int, int) int { return 2 },
					Trace: &Trace{ProbeDone: func(context.Context, ProbeDoneInfo) { done++ }},
				})
				require.NoError(t, err)
				require.Equal(t, "p:Answered", summary(resp))
				require.Nil(t, resp.Peers[0].Err)
				require.Equal(t, 2, resp.Exact)
				require.Equal(t, 1, resp.PeersConsulted)
				require.Equal(t, 2, done)
				require.False(t, resp.Partial)
				require.NotEmpty(t, resp.Next)
			})
		})
	}
}

// Rule 48: a hit comes once no peer that is out can precede it, also if that is because one is
// late.
func TestStreamGoesOnWithoutALatePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// b hangs until its deadline (1 s); c hangs longer only by being asked later (Limit 2).
		begun := time.Now()
		probe := func(ctx context.Context, p PeerID, _ *Request) (hitList, error) {
			switch p {
			case "a":
				time.Sleep(500 * time.Millisecond)
				return hitList{{"x", 1}}, nil
			case "b": // ignores its context
				time.Sleep(time.Minute)
				return nil, nil
			}
			<-ctx.Done()
			return obey(ctx)
		}
		hits, _ := Stream(t.Context(), &Request{Query: KNN{}, K: 3}, []PeerID{"b", "a", "c"}, probe,
			&Options{PeerDeadline: time.Second, Limit: 2, Bound: boundsOf(map[PeerID]float32{"b": 0, "a": 0, "c": 5})})
		for range hits {
			assert.Equal(t, time.Second, time.Since(begun), "certain once b is late")
			break
		}
		time.Sleep(2 * time.Minute) // until b's probe has ended
	})
}

// Rule 48: a panic in the body of the loop ends the query: nobody is asked any more, and QueryDone
// is told.
func TestStreamPanicEndsTheQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, ended atomic.Int32
		probe := func(ctx context.Context, p PeerID, _ *Request) (hitList, error) {
			asked.Add(1)
			if p == "a" {
				return hitList{{"x", 1}}, nil
			}
			time.Sleep(time.Second)
			return nil, nil
		}
		hits, _ := Stream(t.Context(), &Request{Query: KNN{}, K: 3}, []PeerID{"a", "b", "c"}, probe,
			&Options{Limit: 1, Bound: boundsOf(map[PeerID]float32{"a": 0, "b": 5, "c": 6}),
				Trace: &Trace{QueryDone: func(context.Context, QueryDoneInfo) { ended.Add(1) }}})
		func() {
			defer func() { _ = recover() }()
			for range hits {
				time.Sleep(2 * time.Second) // b's reply is in the inbox
				panic("body")
			}
		}()
		synctest.Wait()
		assert.Equal(t, int32(2), asked.Load(), "nobody is asked after the panic")
		assert.Equal(t, int32(1), ended.Load(), "QueryDone")
	})
}

// Rule 48: leaving the loop in the second round cancels it with ErrEnough.
func TestStreamBreaksInRefill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Status
		probe := func(ctx context.Context, p PeerID, req *Request) (hitList, error) {
			if req.Skip > 0 {
				if p == "b" {
					return obey(ctx)
				}
				return hitList{{"a2", 2}}, nil
			}
			if p == "a" {
				return hitList{{"a1", 1}}, nil
			}
			return hitList{{"b1", 1.5}}, nil
		}
		hits, _ := Stream(t.Context(), &Request{Query: KNN{}, K: 4}, []PeerID{"a", "b"}, probe,
			&Options{PeerK: func(int, int) int { return 1 },
				Trace: &Trace{ProbeDone: func(_ context.Context, i ProbeDoneInfo) { got = append(got, i.Status) }}})
		for range hits {
			break
		}
		assert.Equal(t, NotNeeded, got[len(got)-1], "%v", got)
	})
}
