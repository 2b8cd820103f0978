package scatter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// quarters is a ring of four peers, each of which owns a quarter of the token space and holds the quarter before its own
// as well: the first quarter a and b, the second b and c, the third c and d, the last d and a.
func quarters() *Cover {
	return NewCover(NewRing(Point{0, "a"}, Point{1 << 62, "b"}, Point{2 << 62, "c"}, Point{3 << 62, "d"}), 2)
}

// Rule 25: an answer whose coverage is whole is done; who is still out then is spare.
func TestCoordinatorDoneWhenWhole(t *testing.T) {
	s := newStepped(t, 9, Options{Cover: quarters()}, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0, Hit[string]{"x", 1})
	s.fail(2, 1, errBroke)
	s.wantState(Gather)
	s.reply(3, 2, Hit[string]{"x", 1}, Hit[string]{"y", 2})
	r := s.wantLedger("a Answered 1 1", "b Failed 0 2", "c Answered 2 3", "d Spare 0 3")
	require.Equal(t, ErrEnough, r.Peers[3].Err)
	require.Equal(t, "x y", ids(r.Hits))
	require.Equal(t, 1.0, r.Coverage)
	require.False(t, r.Partial)
	require.Empty(t, r.Missing)
	require.Equal(t, []int{4, 0, 1}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
}

// Rule 25: so may be peers that haven't been asked yet.
func TestCoordinatorDoneBeforeAllAreAsked(t *testing.T) {
	s := newStepped(t, 9, Options{Cover: quarters(), Limit: 1}, "a", "c", "b", "d")
	s.begin()
	s.reply(1, 0)
	s.reply(2, 1)
	r := s.wantLedger("a Answered 0 1", "c Answered 0 1", "b NotAsked 0 0", "d NotAsked 0 0")
	require.Equal(t, ErrEnough, r.Peers[2].Err)
	require.Equal(t, 2, r.PeersConsulted)
}

// Rule 25: with WaitAll the rest is waited for, and counts.
func TestCoordinatorWaitAll(t *testing.T) {
	s := newStepped(t, 9, Options{Cover: quarters(), WaitAll: true}, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0)
	s.reply(1, 2)
	s.reply(2, 1, Hit[string]{"x", 1})
	s.wantState(Gather)
	s.advance(5)
	r := s.wantLedger("a Answered 0 1", "b Answered 1 2", "c Answered 0 1", "d TimedOut 0 5")
	// Rule 24: a slow peer whose ranges replicas have answered does not make an answer partial.
	require.False(t, r.Partial)
	require.Equal(t, 1.0, r.Coverage)
}

// Rule 24: what is missing, adjacent ranges as one, and of each holder why it didn't answer; those that were dead before
// the query too.
func TestCoordinatorMissing(t *testing.T) {
	s := newStepped(t, 9, Options{Cover: quarters()}, "a", "b", "c")
	s.begin()
	s.reply(1, 0)
	s.fail(2, 2, errBroke)
	s.advance(5)
	r := s.Response()
	require.True(t, r.Partial)
	require.Equal(t, 0.5, r.Coverage)
	require.Equal(t, []Gap{{
		First: 1, Last: 2 << 62, Share: 0.5,
		Holders: []PeerReport{r.Peers[1], r.Peers[2], {Peer: "d", Status: Dead}},
	}}, r.Missing)
	require.Equal(t, "0x0000000000000001-0x8000000000000000 (50.00%): b TimedOut, c Failed, d Dead", r.Missing[0].String())
}

// Rule 24: a range whose holders are all dead is missing although nobody was asked.
func TestCoordinatorMissingOfTheDead(t *testing.T) {
	s := newStepped(t, 9, Options{Cover: quarters()}, "a", "b")
	s.begin()
	s.reply(1, 0)
	s.reply(1, 1)
	r := s.wantLedger("a Answered 0 1", "b Answered 0 1")
	require.True(t, r.Partial)
	require.Equal(t, 0.75, r.Coverage)
	require.Equal(t, []Gap{{1<<62 + 1, 2 << 62, 0.25, []PeerReport{{Peer: "c", Status: Dead}, {Peer: "d", Status: Dead}}}},
		r.Missing)

	s = newStepped(t, 9, Options{Cover: NewCover(NewRing(), 3)}, "a")
	s.begin()
	s.reply(1, 0, Hit[string]{"x", 1})
	r = s.Response()
	require.Equal(t, []Gap{{0, math.MaxUint64, 1, nil}}, r.Missing, "an empty ring covers nothing")
	require.Equal(t, "x", ids(r.Hits))
}

// Rule 24: a peer that answers in part has not answered for its ranges, and one that isn't on the ring for none.
func TestCoordinatorIncompleteDoesNotCover(t *testing.T) {
	s := newStepped(t, 9, Options{Cover: quarters()}, "a", "c", "stranger")
	s.begin()
	s.reply(1, 2, Hit[string]{"y", 2})
	s.reply(1, 0)
	s.step(2, &Event[Hit[string]]{Kind: Replied, Index: 1, Hits: hitList{{"x", 1}}, Err: ErrPartial})
	r := s.wantLedger("a Answered 0 1", "c Incomplete 1 2", "stranger Answered 1 1")
	require.Equal(t, "x y", ids(r.Hits))
	require.Equal(t, 0.5, r.Coverage)
	require.Equal(t, Incomplete, r.Missing[0].Holders[1].Status)
}

// Without a Cover the coverage is that of the peers.
func TestCoordinatorCoverageOfPeers(t *testing.T) {
	s := newStepped(t, 9, Options{}, "a", "b", "c", "d")
	s.begin()
	for i := range 3 {
		s.reply(1, i)
	}
	s.fail(1, 3, errBroke)
	require.Equal(t, 0.75, s.Response().Coverage)
	require.Nil(t, s.Response().Missing)
}

// Rule 27: what a failed peer was asked for is asked of standbys at once.
func TestCoordinatorFallback(t *testing.T) {
	s := newStepped(t, 9, Options{Cover: quarters(), Standby: []PeerID{"a", "b", "d", "stranger", "b"}}, "a", "c")
	s.begin()
	require.Equal(t, "ac", s.asked())
	s.fail(1, 0, errBroke)
	require.Equal(t, "acbd", s.asked(), "b and d hold one of a's quarters each")
	s.wantState(Gather)
	require.Equal(t, at(6), s.asks[2].Deadline, "a standby's deadline runs from its own start")
	s.reply(2, 1)
	s.reply(3, 2, Hit[string]{"x", 1})
	s.reply(3, 3)
	r := s.wantLedger("a Failed 0 1", "c Answered 0 2", "b Answered 1 2", "d Answered 0 2")
	require.Equal(t, []Role{Primary, Primary, Fallback, Fallback},
		[]Role{r.Peers[0].Role, r.Peers[1].Role, r.Peers[2].Role, r.Peers[3].Role})
	require.Equal(t, Fallback, s.asks[3].Role)
	require.False(t, r.Partial)
	require.Equal(t, 4, r.PeersConsulted)
	require.Equal(t, []State{Init, Fanout, Gather, Fanout, Gather, Merging}, s.state)
}

// Rule 27: only what nobody else may soon answer is asked again; a timeout and a partial answer are failures too.
func TestCoordinatorFallbackOnlyWhereNeeded(t *testing.T) {
	s := newStepped(t, 9, Options{Cover: quarters(), Standby: []PeerID{"d"}, PeerDeadline: time.Second}, "a", "b", "c")
	s.begin()
	s.fail(0.5, 1, errBroke) // b's quarters are a's and c's as well
	require.Equal(t, "abc", s.asked())
	s.step(0.6, &Event[Hit[string]]{Kind: Replied, Index: 2, Err: ErrPartial})
	require.Equal(t, "abcd", s.asked(), "d holds the third quarter, and the second nobody")
	s.advance(1) // a is late for good
	require.Equal(t, "abcd", s.asked())
	s.reply(1.2, 3)
	r := s.wantLedger("a TimedOut 0 1", "b Failed 0 0.5", "c Incomplete 0 0.6", "d Answered 0 0.6")
	require.Equal(t, 0.5, r.Coverage)
}

// Rule 27: a late peer's ranges are asked of standbys after the delay, not before; it stays asked, and whoever answers
// first counts.
func TestCoordinatorHedge(t *testing.T) {
	opts := Options{Cover: quarters(), Standby: []PeerID{"b", "d"}, Hedging: &Hedging{Delay: 2 * time.Second}}
	s := newStepped(t, 9, opts, "a", "c")
	s.begin()
	s.wantDeadline(2)
	s.reply(1, 1, Hit[string]{"z", 3})
	s.advance(1.999999999)
	require.Equal(t, "ac", s.asked())
	s.advance(2)
	require.Equal(t, "acbd", s.asked())
	s.reply(2.5, 3, Hit[string]{"y", 2})
	s.reply(3, 0, Hit[string]{"x", 1}, Hit[string]{"y", 2})
	r := s.wantLedger("a Answered 2 3", "c Answered 1 1", "b Spare 0 1", "d Answered 1 0.5")
	require.Equal(t, []Role{Primary, Primary, Hedge, Hedge},
		[]Role{r.Peers[0].Role, r.Peers[1].Role, r.Peers[2].Role, r.Peers[3].Role})
	require.Equal(t, "x y z", ids(r.Hits), "what the late peer and the hedge both gave counts once")
	require.False(t, r.Partial)
}

// Rule 27: a hedge that is late is hedged against too, for as long as there are standbys.
func TestCoordinatorHedgeOfAHedge(t *testing.T) {
	ring := NewRing(Point{0, "a"}, Point{1 << 62, "b"}, Point{2 << 62, "c"})
	opts := Options{Cover: NewCover(ring, 3), Standby: []PeerID{"b", "c"}, Hedging: &Hedging{Delay: time.Second}}
	s := newStepped(t, 9, opts, "a")
	s.begin()
	s.advance(1)
	require.Equal(t, "ab", s.asked())
	s.advance(2)
	require.Equal(t, "abc", s.asked())
	s.wantDeadline(3)
	s.advance(3)
	s.reply(3.5, 1)
	s.wantLedger("a Spare 0 3.5", "b Answered 0 2.5", "c Spare 0 1.5")
}

// Rule 27: the delay may be each peer's own.
func TestCoordinatorHedgeDelayOf(t *testing.T) {
	delays := map[PeerID]time.Duration{"a": 3 * time.Second, "c": time.Second, "b": 0}
	opts := Options{
		Cover: quarters(), Standby: []PeerID{"b", "d"},
		Hedging: &Hedging{Delay: time.Millisecond, DelayOf: func(p PeerID) time.Duration { return delays[p] }},
	}
	s := newStepped(t, 9, opts, "a", "c")
	s.begin()
	s.wantDeadline(1)
	s.advance(1)
	require.Equal(t, "acbd", s.asked())
	s.wantDeadline(3)
	s.advance(3) // the first and the last quarter are asked of b and d already
	s.wantDeadline(5)
	s.reply(4, 2)
	s.reply(4, 3)
	s.wantLedger("a Spare 0 4", "c Spare 0 4", "b Answered 0 3", "d Answered 0 3")
}

// Rule 27: within the budget those come first that close most of what is open.
func TestCoordinatorHedgeBudget(t *testing.T) {
	ring := NewRing(Point{0, "a"}, Point{1 << 60, "b"}, Point{2 << 62, "c"}, Point{3 << 62, "d"})
	budget := NewBudget(0, 1)
	opts := Options{Cover: NewCover(ring, 2), Standby: []PeerID{"b", "d"}, Hedging: &Hedging{Budget: budget}}
	s := newStepped(t, 9, opts, "a", "c")
	s.begin()
	s.fail(1, 1, errBroke) // a sixteenth of what c holds is b's too, and seven are d's
	require.Equal(t, "acd", s.asked())
	require.Zero(t, budget.Left())
	s.reply(2, 0)
	s.reply(2, 2)
	r := s.Response()
	require.Equal(t, 0.9375, r.Coverage)
	require.Equal(t, []PeerReport{{Peer: "b", Status: NotAsked}, r.Peers[1]}, r.Missing[0].Holders)
}

// Rule 27: a late peer is hedged against wholly or not at all; if there is no budget for it, again after another delay.
func TestCoordinatorHedgeIsTriedAgain(t *testing.T) {
	budget := NewBudget(0.5, 2)
	require.Equal(t, 1, budget.take(1, false))
	opts := Options{
		Cover: quarters(), Standby: []PeerID{"b", "d"}, PeerDeadline: 20 * time.Second,
		Hedging: &Hedging{Delay: 3 * time.Second, Budget: budget},
	}
	s := newStepped(t, 9, opts, "a", "stranger")
	require.Equal(t, 1.0, budget.Left())
	s.begin() // pays in for two
	require.Equal(t, 2.0, budget.Left())
	require.Equal(t, 1, budget.take(1, false)) // by another query
	s.advance(3)
	require.Len(t, s.asks, 2, "a probe is left, but a needs two")
	s.wantDeadline(6)
	budget.pay()
	budget.pay()
	s.advance(6)
	require.Equal(t, []PeerID{"b", "d"}, []PeerID{s.asks[2].Peer, s.asks[3].Peer})
	require.Zero(t, budget.Left())
}

// Rule 27: a budget is a share of the ordinary probes, however many queries draw on it.
func TestBudget(t *testing.T) {
	budget := NewBudget(0.1, 3)
	require.Equal(t, 3.0, budget.Left())
	probes, hedges := 0, 0
	for range 100 { // a slow cluster: each peer is late
		opts := Options{
			Cover: quarters(), Standby: []PeerID{"b", "d"}, Hedging: &Hedging{Delay: time.Second, Budget: budget},
		}
		s := newStepped(t, 9, opts, "a", "c")
		s.begin()
		s.advance(1)
		s.advance(5)
		for _, p := range s.peers {
			if p.Role == Primary {
				probes++
			} else {
				hedges++
			}
		}
	}
	require.Equal(t, 200, probes)
	require.InDelta(t, 3+20, hedges, 1)

	var unbounded *Budget
	unbounded.pay()
	require.Equal(t, 7, unbounded.take(7, false))
	for _, huge := range []*Budget{NewBudget(math.Inf(1), math.MaxInt), NewBudget(1e300, math.MaxInt)} {
		require.Equal(t, 3, huge.take(3, false))
		huge.pay()
		require.Greater(t, huge.Left(), 1e9)
	}
	require.Zero(t, NewBudget(math.NaN(), 0).share)
	none := NewBudget(-1, -1)
	none.pay()
	require.Zero(t, none.take(1, true))
	full := NewBudget(0.4, 1)
	full.pay()
	require.Equal(t, 1.0, full.Left(), "it holds no more than burst")
	require.Zero(t, full.take(2, false))
	require.Equal(t, 1, full.take(2, true))
	require.Zero(t, full.take(1, true))
	full.pay()
	require.Equal(t, 0.4, full.Left())
}

// Rule 27: many at once take out no more than there is.
func TestBudgetConcurrently(t *testing.T) {
	budget := NewBudget(0.5, 1000)
	var wg sync.WaitGroup
	var taken [8]int
	for i := range taken {
		wg.Go(func() {
			for range 1000 {
				budget.pay()
				taken[i] += budget.take(1, false)
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range taken {
		sum += n
	}
	require.LessOrEqual(t, sum, 1000+4000)
	require.GreaterOrEqual(t, sum, 4000)
}

// A standby waits for its turn like any other.
func TestCoordinatorHedgeWithinLimit(t *testing.T) {
	opts := Options{Cover: quarters(), Standby: []PeerID{"b", "d"}, Hedging: &Hedging{Delay: time.Second}, Limit: 2}
	s := newStepped(t, 9, opts, "a", "c")
	s.begin()
	s.advance(1)
	require.Equal(t, "ac", s.asked())
	s.wantState(Fanout)
	s.fail(2, 0, errBroke)
	require.Equal(t, "acb", s.asked())
	s.reply(3, 1)
	require.Equal(t, "acbd", s.asked())
	s.reply(4, 2)
	s.reply(4, 3)
	require.False(t, s.Response().Partial)
}

// Rule 27: a standby whose turn doesn't come gives its share of the budget back.
func TestCoordinatorHedgeGivesBack(t *testing.T) {
	budget := NewBudget(0, 2)
	opts := Options{Cover: quarters(), Standby: []PeerID{"b", "d"}, Hedging: &Hedging{Delay: time.Second, Budget: budget}, Limit: 2}
	s := newStepped(t, 9, opts, "a", "c")
	s.begin()
	s.advance(1)
	require.Zero(t, budget.Left())
	s.reply(2, 1)
	s.reply(3, 0)
	r := s.wantLedger("a Answered 0 3", "c Answered 0 2", "b Spare 0 1", "d NotAsked 0 0")
	require.Equal(t, 1.0, budget.Left())
	require.Equal(t, Hedge, r.Peers[3].Role)
	var unbounded *Budget
	unbounded.giveBack(1)
}

// Rule 28: less coverage than is required is an error that holds the Response.
func TestCoordinatorRequire(t *testing.T) {
	ask := func(require float64) (*stepped, error) {
		s := newStepped(t, 9, Options{Cover: quarters(), Require: require}, "a", "b")
		s.begin()
		s.reply(1, 0, Hit[string]{"x", 1})
		return s, s.m.Step(at(2), &Event[Hit[string]]{Kind: Replied, Index: 1})
	}
	_, err := ask(0.75)
	require.NoError(t, err)

	s, err := ask(0.8)
	var short *CoverageError[Hit[string]]
	require.ErrorAs(t, err, &short)
	require.Same(t, s.Response(), short.Response)
	require.Equal(t, 0.8, short.Require)
	require.EqualError(t, err, "scatter: coverage is 0.75, required is 0.8; "+
		"missing 0x4000000000000001-0x8000000000000000 (25.00%): c Dead, d Dead")

	many := &CoverageError[Hit[string]]{Response: &Response[Hit[string]]{Missing: make([]Gap, 5)}, Require: 1}
	require.Contains(t, many.Error(), "; and 2 more")

	// A cancel is told before a lack.
	s = newStepped(t, 9, Options{Require: 1}, "a")
	s.begin()
	require.Equal(t, errBroke, s.m.Step(at(1), &Event[Hit[string]]{Kind: Cancel, Err: errBroke}))
}

// Rule 28: from Settle on, more is waited for as long as Grace, and no longer.
func TestCoordinatorSettle(t *testing.T) {
	opts := Options{Cover: quarters(), Settle: 0.75, Grace: 2 * time.Second, PeerDeadline: time.Minute}
	s := newStepped(t, 9, opts, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0)
	s.wantDeadline(60)
	s.reply(5, 1)
	s.wantDeadline(7)
	s.advance(6.999999999)
	s.wantState(Gather)
	s.advance(7)
	r := s.wantLedger("a Answered 0 1", "b Answered 0 5", "c Spare 0 7", "d Spare 0 7")
	require.Equal(t, 0.75, r.Coverage)
	require.True(t, r.Partial)
	require.Equal(t, Spare, r.Missing[0].Holders[0].Status)

	// What comes within the grace counts, and doesn't prolong it.
	s = newStepped(t, 9, Options{Settle: 0.5, Grace: 2 * time.Second}, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0)
	s.reply(2, 1)
	s.reply(3, 2, Hit[string]{"x", 1})
	s.wantDeadline(4)
	s.advance(4)
	s.wantLedger("a Answered 0 1", "b Answered 0 2", "c Answered 1 3", "d Spare 0 4")

	// Without a grace that is at once.
	s = newStepped(t, 9, Options{Settle: 0.5}, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0)
	s.reply(2, 1)
	s.reply(2, 2, Hit[string]{"x", 1}) // was in hand
	s.advance(2.000000001)
	s.wantLedger("a Answered 0 1", "b Answered 0 2", "c Answered 1 2", "d Spare 0 2.000000001")

	// And nobody else is asked.
	s = newStepped(t, 9, Options{Settle: 0.5, Limit: 1}, "a", "b")
	s.begin()
	s.reply(1, 0)
	s.advance(1.5)
	require.Equal(t, ErrEnough, s.wantLedger("a Answered 0 1", "b NotAsked 0 0").Peers[1].Err)
}

// Rule 27: a standby that waits for its turn is left out if others have answered meanwhile, and can be asked later.
func TestCoordinatorHedgeNoLongerNeeded(t *testing.T) {
	budget := NewBudget(0, 2)
	opts := Options{
		Cover: quarters(), Standby: []PeerID{"b", "d"}, Limit: 2, WaitAll: true,
		Hedging: &Hedging{Budget: budget, DelayOf: func(p PeerID) time.Duration {
			return map[PeerID]time.Duration{"a": time.Second}[p]
		}},
	}
	s := newStepped(t, 9, opts, "a", "c")
	s.begin()
	s.advance(1)
	require.Zero(t, budget.Left())
	s.reply(2, 0)
	require.Equal(t, "ac", s.asked())
	require.Equal(t, 2.0, budget.Left())
	s.fail(3, 1, errBroke)
	require.Equal(t, "acbd", s.asked(), "now they are needed, for c")
	s.reply(4, 2)
	s.reply(4, 3)
	s.wantLedger("a Answered 0 2", "c Failed 0 3", "b Answered 0 1", "d Answered 0 1")
}

// Rule 27: where one range is all there is, its other holder stands in.
func TestCoordinatorFallbackOfTheWholeSpace(t *testing.T) {
	cover := NewCover(NewRing(Point{5, "a"}, Point{5, "b"}), 2)
	s := newStepped(t, 9, Options{Cover: cover, Standby: []PeerID{"b"}}, "a")
	s.begin()
	s.fail(1, 0, errBroke)
	s.reply(2, 1)
	require.Equal(t, 1.0, s.Response().Coverage)
}

// Rule 27: a delay runs from the start of the peer's probe, however long hooks take, and each one after it is as long.
func TestCoordinatorHedgeDelaysAreEqual(t *testing.T) {
	opts := Options{
		Cover: quarters(), Standby: []PeerID{"b", "d"}, PeerDeadline: time.Minute,
		Hedging: &Hedging{Delay: time.Second, Budget: NewBudget(0, 0)},
	}
	s := newStepped(t, 9, opts, "a", "c")
	s.clock = func() time.Time { return at(5) } // a hook has taken five seconds
	s.begin()
	s.wantDeadline(6)
	s.advance(6)
	s.wantDeadline(7)
	s.advance(7)
	s.wantDeadline(8)
	s.reply(7.5, 0)
	s.reply(7.5, 1)
	s.wantLedger("a Answered 0 2.5", "c Answered 0 2.5")
}

// Rule 28: Reserve is kept back from the deadline of the query's context, and the peers are told.
func TestBroadcastReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		var told time.Time
		b := behave{"a": func(ctx context.Context) (hitList, error) {
			told, _ = ctx.Deadline()
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		r, err := Broadcast(ctx, testRequest, b.peers(), b.probe, &Options{Reserve: 100 * time.Millisecond})
		require.NoError(t, err)
		require.Equal(t, 900*time.Millisecond, time.Since(began))
		require.Equal(t, "a:TimedOut", summary(r))
		synctest.Wait()
		require.Equal(t, began.Add(900*time.Millisecond), told)
	})
}

// Rule 25: with 3 replicas, 20 peers and 2 that hang, a query is done with the other 18, and lets the two go.
func TestBroadcastDoneWhenWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := somePeers(20)
		points := make([]Point, len(peers))
		for i, peer := range peers {
			points[i] = Point{uint64(i) << 58, peer}
		}
		causes := make(chan error, 2)
		probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
			if peer == "peer3" || peer == "peer4" {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return nil, ctx.Err()
			}
			time.Sleep(10 * time.Millisecond)
			return hitList{{string(peer), 1}}, nil
		}
		r, err := Broadcast(t.Context(), testRequest, peers, probe, &Options{Cover: NewCover(NewRing(points...), 3)})
		require.NoError(t, err)
		require.Equal(t, 10*time.Millisecond, r.Elapsed)
		require.Equal(t, 1.0, r.Coverage)
		require.False(t, r.Partial)
		require.Equal(t, Spare, r.Peers[3].Status)
		require.Equal(t, []int{20, 0, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
		require.Equal(t, ErrEnough, <-causes)
		require.Equal(t, ErrEnough, <-causes)
	})
}

// Rules 25, 27: a plan, a dead peer, a broken one and a hung one, and a whole answer all the same.
func TestBroadcastHedges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var points []Point
		for i := range 90 {
			points = append(points, Point{uint64(i*i+1) * 0x9e3779b97f4a7c15, PeerID(fmt.Sprint("peer", i%9))})
		}
		cover := NewCover(NewRing(points...), 3)
		live := func(p PeerID) bool { return p != "peer8" }
		plan := cover.Plan(live, 1)
		probe := func(ctx context.Context, peer PeerID, _ *Request) (hitList, error) {
			switch peer {
			case plan[0]:
				return nil, errors.New("broken")
			case plan[1]:
				return obey(ctx)
			}
			time.Sleep(time.Millisecond)
			return nil, nil
		}
		opts := &Options{
			Cover: cover, Standby: cover.ring.PrimaryPeers(live), Hedging: &Hedging{Delay: 20 * time.Millisecond},
		}
		r, err := Broadcast(t.Context(), testRequest, plan, probe, opts)
		require.NoError(t, err)
		require.False(t, r.Partial, "%v", r.Missing)
		require.Less(t, r.Elapsed, 30*time.Millisecond)
		require.Equal(t, Failed, r.Peers[0].Status)
	})
}

// Rule 11: the arguments of the second storey too.
func TestCoordinatorCoverArguments(t *testing.T) {
	nan := math.NaN()
	for want, opts := range map[string]Options{
		"scatter: Options.Standby needs Options.Cover, which is nil": {Standby: []PeerID{"a"}},
		"scatter: Options.Require is 1.5, must be from 0 to 1":       {Require: 1.5},
		"scatter: Options.Require is NaN, must be from 0 to 1":       {Require: nan},
		"scatter: Options.Settle is -1, must be from 0 to 1":         {Settle: -1},
		"scatter: Options.Grace is -1ns, must not be negative":       {Grace: -1},
		"scatter: Options.Reserve is -1s, must not be negative":      {Reserve: -time.Second},
	} {
		_, err := NewCoordinator[Hit[string]](testRequest, nil, func(Ask) bool { return true }, &opts)
		require.EqualError(t, err, want)
	}
}
