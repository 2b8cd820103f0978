package scatter

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pair is a strategy that asks a and c of quarters, which hold everything, with b and d as
// standbys.
func pair(delay time.Duration) *fixed {
	return &fixed{cover: quarters(), peers: []PeerID{"a", "c"}, standbys: []PeerID{"b", "d"}, delay: delay}
}

// Rule 25: a query whose coverage is 1 ends. Who is out then is NotNeeded, and who waits NotAsked.
func TestCoordinatorEndsWhenWhole(t *testing.T) {
	s := newStepped(t, Options{Cover: quarters()}, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0, Hit[string]{"x", 1})
	s.fail(2, 1, errBroke)
	s.wantState(Gather)
	s.reply(3, 2, Hit[string]{"x", 1}, Hit[string]{"y", 2})
	r := s.wantLedger("a Answered 1 1", "b Failed 0 2", "c Answered 2 3", "d NotNeeded 0 3")
	require.Equal(t, ErrEnough, r.Peers[3].Err)
	require.Equal(t, "x y", ids(r.Hits))
	require.Equal(t, 1.0, r.Coverage)
	require.False(t, r.Partial)
	require.Empty(t, r.Missing)

	s = newStepped(t, Options{Cover: quarters(), Limit: 1}, "a", "c", "b", "d")
	s.begin()
	s.reply(1, 0)
	s.reply(2, 1)
	r = s.wantLedger("a Answered 0 1", "c Answered 0 1", "b NotAsked 0 0", "d NotAsked 0 0")
	require.Equal(t, ErrEnough, r.Peers[2].Err)

	// WaitAll waits for the rest, and their hits count. Rule 24: a peer whose ranges others have
	// answered doesn't make the answer Partial.
	s = newStepped(t, Options{Cover: quarters(), WaitAll: true}, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0)
	s.reply(1, 2)
	s.reply(2, 1, Hit[string]{"x", 1})
	s.wantState(Gather)
	s.advance(5)
	require.False(t, s.wantLedger("a Answered 0 1", "b Answered 1 2", "c Answered 0 1", "d TimedOut 0 5").Partial)
}

// Rule 42: a query ends as soon as nobody who is out can add to its answer, although it is Partial.
// A peer that is not on the Cover may add something.
func TestCoordinatorEndsWhenNobodyCanAdd(t *testing.T) {
	s := newStepped(t, Options{Cover: quarters()}, "a", "b", "d")
	s.begin()
	s.reply(1, 1)
	s.fail(2, 2, errBroke)
	s.wantState(Gather) // a can answer for the last quarter
	s.reply(3, 0)
	r := s.wantLedger("a Answered 0 3", "b Answered 0 1", "d Failed 0 2")
	require.Equal(t, 0.75, r.Coverage)

	s = newStepped(t, Options{Cover: quarters()}, "a", "b", "d")
	s.begin()
	s.reply(1, 0)
	s.fail(2, 2, errBroke)
	s.wantState(Gather) // b can answer for the second quarter
	s.reply(3, 1)
	require.Equal(t, []MissingRange{{1<<62 + 1, 2 << 62, 0.25, []PeerID{"c", "d"}}}, s.Response().Missing)

	s = newStepped(t, Options{Cover: quarters()}, "a", "stranger", "d")
	s.begin()
	s.reply(1, 0)
	s.fail(2, 2, errBroke)
	s.wantState(Gather)
	s.reply(3, 1, Hit[string]{"x", 1})
	require.Equal(t, "x", ids(s.Response().Hits))

	cover := NewGroupCover([]PeerID{"a", "b"}, []PeerID{"c"}) // b can't add to what a has answered
	s = newStepped(t, Options{Cover: cover}, "a", "b", "c")
	s.begin()
	s.reply(1, 0)
	s.fail(2, 2, errBroke)
	s.wantLedger("a Answered 0 1", "b NotNeeded 0 2", "c Failed 0 2")
}

// Rule 24: what is missing, adjacent ranges as one, with their holders. Only what was answered in
// full counts.
func TestCoordinatorMissing(t *testing.T) {
	s := newStepped(t, Options{Cover: quarters()}, "a", "b", "c")
	s.begin()
	s.reply(1, 0)
	s.Reply(at(2), 2, []Hit[string]{{"x", 1}}, errPart)
	s.advance(5)
	r := s.wantLedger("a Answered 0 1", "b TimedOut 0 5", "c Incomplete 1 2")
	require.Equal(t, "x", ids(r.Hits))
	require.True(t, r.Partial)
	require.Equal(t, 0.5, r.Coverage)
	require.Equal(t, []MissingRange{{1, 2 << 62, 0.5, []PeerID{"b", "c", "d"}}}, []MissingRange{{
		r.Missing[0].First, r.Missing[0].Last, r.Missing[0].Share, sortedMissing(r.Missing)[0].Holders,
	}})

	s = newStepped(t, Options{Cover: NewCover(NewRing(), 3)}, "a")
	s.begin()
	s.reply(1, 0, Hit[string]{"x", 1})
	require.Equal(t, []MissingRange{{0, math.MaxUint64, 1, nil}}, s.Response().Missing, "nobody holds anything")
	require.Equal(t, "x", ids(s.Response().Hits))
}

// Rule 31: dead peers have their line in their place. They are not asked, and count.
func TestCoordinatorDeadPeers(t *testing.T) {
	live := func(p PeerID) bool { return p != "b" && p != "c" }
	s := newStepped(t, Options{Live: live, MinCoverage: 0.9}, "b", "a", "c", "d", "b")
	s.begin()
	require.Equal(t, "ad", s.asked())
	s.reply(1, 1)
	s.reply(1, 3)
	r := s.wantLedger("b Dead 0 0", "a Answered 0 1", "c Dead 0 0", "d Answered 0 1")
	require.Equal(t, 0.5, r.Coverage)
	require.True(t, r.Partial)
	require.Equal(t, 2, r.PeersConsulted)
	var short *CoverageError[Hit[string]]
	require.ErrorAs(t, s.Err(), &short)

	s = newStepped(t, Options{Live: live, Cover: quarters()}, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0)
	s.reply(1, 3)
	r = s.wantLedger("a Answered 0 1", "b Dead 0 0", "c Dead 0 0", "d Answered 0 1")
	require.Equal(t, 0.75, r.Coverage, "b and c alone hold the second quarter")

	chosen := pair(0)
	chosen.peers, chosen.dead, chosen.standbys = []PeerID{"b", "d"}, []PeerID{"a", "c"}, nil
	s = newSelected(t, Options{}, chosen)
	s.begin()
	s.reply(1, 1)
	s.fail(2, 3, errBroke)
	r = s.wantLedger("a Dead 0 0", "b Answered 0 1", "c Dead 0 0", "d Failed 0 2")
	require.Equal(t, 0.5, r.Coverage)
}

// Rule 27: what a failed peer was asked for is asked of standbys at once.
func TestCoordinatorFallback(t *testing.T) {
	s := newSelected(t, Options{}, pair(0))
	s.begin()
	require.Equal(t, "ac", s.asked())
	s.fail(1, 0, errBroke)
	require.Equal(t, "acbd", s.asked(), "b and d hold one of a's quarters each")
	require.Equal(t, Ask{"b", Fallback, 2, at(6), testRequest}, s.asks[2])
	s.reply(2, 1)
	s.reply(3, 2, Hit[string]{"x", 1})
	s.reply(3, 3)
	r := s.wantLedger("a Failed 0 1", "c Answered 0 2", "b Fallback Answered 1 2", "d Fallback Answered 0 2")
	require.False(t, r.Partial)
	require.Equal(t, 4, r.PeersConsulted)
}

// Rule 27: only what nobody else may soon answer is asked again. A timeout and a partial answer are
// failures too.
func TestCoordinatorFallbackOnlyWhereNeeded(t *testing.T) {
	chosen := pair(0)
	chosen.peers, chosen.standbys = []PeerID{"a", "b", "c"}, []PeerID{"d"}
	s := newSelected(t, Options{PeerDeadline: time.Second}, chosen)
	s.begin()
	s.fail(0.5, 1, errBroke) // b's quarters are a's and c's as well
	require.Equal(t, "abc", s.asked())
	s.fail(0.6, 2, ErrPartial)
	require.Equal(t, "abcd", s.asked(), "d holds the third quarter, and nobody the second")
	s.advance(1) // a is late for good
	require.Equal(t, "abcd", s.asked())
	s.reply(1.2, 3)
	r := s.wantLedger("a TimedOut 0 1", "b Failed 0 0.5", "c Incomplete 0 0.6", "d Fallback Answered 0 0.6")
	require.Equal(t, 0.5, r.Coverage)
}

// Rule 27: standbys are asked for a slow peer after the delay, not before. It stays asked, and
// whoever answers first counts. Rule 36: its line is Late.
func TestCoordinatorHedge(t *testing.T) {
	s := newSelected(t, Options{}, pair(2*time.Second))
	s.begin()
	s.wantDeadline(2)
	s.reply(1, 1, Hit[string]{"z", 3})
	s.advance(1.999999999)
	require.Equal(t, "ac", s.asked())
	s.advance(2)
	require.Equal(t, "acbd", s.asked())
	s.reply(2.5, 3, Hit[string]{"y", 2})
	s.reply(3, 0, Hit[string]{"x", 1}, Hit[string]{"y", 2})
	r := s.wantLedger("a Answered 2 3 late", "c Answered 1 1", "b Hedge NotNeeded 0 1", "d Hedge Answered 1 0.5")
	require.Equal(t, "x y z", ids(r.Hits), "what the slow peer and the hedge both gave counts once")
	require.False(t, r.Partial)
}

// Rule 27: a hedge that is slow is hedged against too, as long as there are standbys.
func TestCoordinatorHedgeOfAHedge(t *testing.T) {
	cover := NewGroupCover([]PeerID{"a", "b", "c"})
	s := newSelected(t, Options{}, &fixed{cover: cover, peers: []PeerID{"a"}, standbys: []PeerID{"b", "c"}, delay: time.Second})
	s.begin()
	s.advance(1)
	require.Equal(t, "ab", s.asked())
	s.advance(2)
	require.Equal(t, "abc", s.asked())
	s.wantDeadline(3)
	s.advance(3)
	_, waits := s.Deadline()
	require.True(t, waits)
	s.reply(3.5, 1)
	s.wantLedger("a NotNeeded 0 3.5 late", "b Hedge Answered 0 2.5 late", "c Hedge NotNeeded 0 1.5")
}

// Rule 36: Late means that a hedge was asked. One that waits for its turn doesn't count.
func TestCoordinatorLateMeansAsked(t *testing.T) {
	chosen := pair(time.Second)
	s := newSelected(t, Options{Limit: 2}, chosen)
	s.begin()
	s.advance(1)
	require.Equal(t, "ac", s.asked(), "the hedges wait")
	s.reply(2, 0)
	s.reply(3, 1)
	s.wantLedger("a Answered 0 2", "c Answered 0 3", "b Hedge NotNeeded 0 1", "d Hedge NotAsked 0 0")
}

// Rules 27 and 39: the purse of fallbacks pays for those that complete most.
func TestCoordinatorFallbackPurse(t *testing.T) {
	chosen := pair(0)
	chosen.purses = newPurses(0, 0, 1, 100)
	chosen.weights = map[PeerID]float64{"d": 2}
	s := newSelected(t, Options{}, chosen)
	s.begin()
	s.fail(1, 1, errBroke)
	require.Equal(t, "acd", s.asked())
	require.Zero(t, chosen.purses.fallback.available())
	require.Equal(t, 100.0, chosen.purses.hedge.available())
	s.reply(2, 0)
	s.reply(2, 2)
	require.Equal(t, 0.75, s.Response().Coverage)
}

// Rule 39: hedges never cost an answer its completeness, because fallbacks have a purse of their
// own.
func TestCoordinatorHedgesTakeNothingFromFallbacks(t *testing.T) {
	chosen := pair(time.Second)
	chosen.purses = newPurses(0, 0, 2, 0)
	s := newSelected(t, Options{}, chosen)
	s.begin()
	s.advance(1)
	require.Equal(t, "ac", s.asked(), "no hedges are left")
	s.fail(1.5, 0, errBroke)
	require.Equal(t, "acbd", s.asked())
	require.Zero(t, chosen.purses.fallback.available())

	chosen = pair(time.Second)
	chosen.purses = newPurses(0, 0, 0, 2)
	s = newSelected(t, Options{}, chosen)
	s.begin()
	s.fail(0.5, 0, errBroke)
	require.Equal(t, "ac", s.asked(), "nor do fallbacks take from hedges")
	s.advance(1)
	require.Equal(t, 0.0, chosen.purses.hedge.available(), "c is slow")
}

// Rule 38: a slow peer is hedged against wholly or not at all. For want of budget the next try
// comes after twice the time, and not before a millisecond.
func TestCoordinatorHedgeIsTriedAgain(t *testing.T) {
	chosen := pair(time.Second)
	chosen.purses = newPurses(0, 0, 0, 1)
	s := newSelected(t, Options{PeerDeadline: time.Minute}, chosen)
	s.begin()
	s.reply(0.5, 1)
	s.wantDeadline(1)
	s.advance(1)
	require.Len(t, s.asks, 2, "there is one probe, but a needs two")
	s.wantDeadline(3)
	s.advance(3)
	s.wantDeadline(7)
	chosen.purses.hedge.giveBack()
	s.advance(6.999999999)
	require.Len(t, s.asks, 2)
	s.advance(7)
	require.Equal(t, "acbd", s.asked())
	require.Zero(t, chosen.purses.hedge.available())

	chosen = pair(time.Nanosecond)
	chosen.busy = map[PeerID]bool{"d": true}
	s = newSelected(t, Options{}, chosen)
	s.begin()
	tries := 0
	for deadline, _ := s.Deadline(); deadline.Before(at(5)); deadline, _ = s.Deadline() {
		s.Advance(deadline)
		tries++
		next, _ := s.Deadline()
		require.GreaterOrEqual(t, next.Sub(deadline), time.Millisecond)
	}
	require.Less(t, tries, 15)
	require.Equal(t, "ac", s.asked(), "d has no room for a hedge")
}

// Rule 42: a standby that waits and is needed no more is dropped, pays nothing, and can be chosen
// again. Indexes stay what they were.
func TestCoordinatorDropsAStandby(t *testing.T) {
	chosen := pair(time.Second)
	chosen.purses = newPurses(0, 0, 2, 4)
	s := newSelected(t, Options{Limit: 2, WaitAll: true}, chosen)
	s.begin()
	s.advance(1)
	require.Equal(t, 2.0, chosen.purses.hedge.available(), "b and d wait")
	s.reply(1.5, 0)
	require.Equal(t, "acb", s.asked(), "for the second quarter, which is c's, and c is slow")
	s.fail(2, 2, errBroke)
	require.Equal(t, "acbd", s.asked())
	s.reply(2.5, 3)
	s.fail(3, 1, errBroke)
	r := s.wantLedger("a Answered 0 1.5", "c Failed 0 3", "b Hedge Failed 0 0.5", "d Hedge Answered 0 0.5")
	require.Equal(t, 0.75, r.Coverage)

	chosen = pair(0)
	chosen.purses = newPurses(0, 0, 4, 0)
	chosen.peers = []PeerID{"a", "c"}
	s = newSelected(t, Options{WaitAll: true}, chosen)
	s.begin()
	s.full = true
	s.fail(1, 0, errBroke) // b and d wait
	require.Equal(t, 2.0, chosen.purses.fallback.available())
	s.reply(2, 1)
	s.wantState(Fanout)
	s.full = false
	s.Retry(at(3))
	require.Equal(t, []Ask{{"b", Fallback, 2, at(8), testRequest}, {"d", Fallback, 3, at(8), testRequest}}, s.asks[2:])
}

// Rule 42: a standby that waits for a unit and is needed no more doesn't keep its query open.
func TestCoordinatorStandbyWaitsInVain(t *testing.T) {
	chosen := pair(time.Second)
	chosen.purses = newPurses(0, 0, 0, 2)
	s := newSelected(t, Options{WaitAll: true, PeerDeadline: time.Hour}, chosen)
	s.begin()
	s.full = true
	s.reply(0.5, 1)
	s.advance(1) // b and d wait, for a
	s.wantState(Fanout)
	require.Zero(t, chosen.purses.hedge.available())
	s.reply(2, 0)
	s.wantLedger("a Answered 0 2", "c Answered 0 0.5")
	require.Equal(t, 2.0, chosen.purses.hedge.available())

	// What was dropped can be chosen again, and has an Index of its own then.
	chosen = pair(0)
	chosen.delay = time.Second
	s = newSelected(t, Options{WaitAll: true, Limit: 2}, chosen)
	s.begin()
	s.full = true
	s.advance(1) // of b and d, which wait for a and c
	s.reply(2, 0)
	s.reply(2, 1)
	s.wantLedger("a Answered 0 2", "c Answered 0 2")
}

// Rule 42: waiting to be asked is bounded by PeerDeadline, as a probe is.
func TestCoordinatorUnits(t *testing.T) {
	s := newStepped(t, Options{PeerDeadline: time.Second, Limit: 2}, "a", "b", "c")
	s.full = true
	s.begin()
	s.wantState(Fanout)
	s.wantDeadline(1)
	s.advance(1)
	s.wantState(Fanout) // c waits since now
	s.wantDeadline(2)
	s.full = false
	s.Retry(at(1.5))
	require.Equal(t, []Ask{{"c", Primary, 2, at(2.5), testRequest}}, s.asks, "its own time begins now")
	s.wantDeadline(2.5)
	s.reply(2, 2)
	r := s.wantLedger("a NotAsked 0 0", "b NotAsked 0 0", "c Answered 0 0.5")
	require.EqualError(t, r.Peers[0].Err, "scatter: no unit of Options.Semaphore within 1s")
	require.ErrorIs(t, r.Peers[1].Err, context.DeadlineExceeded)
	require.Equal(t, []int{1, 0, 0}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
}

// Rule 28: from EnoughCoverage on, more is waited for as long as Grace, and no longer.
func TestCoordinatorEnoughCoverage(t *testing.T) {
	opts := Options{Cover: quarters(), EnoughCoverage: 0.75, Grace: 2 * time.Second, PeerDeadline: time.Minute}
	s := newStepped(t, opts, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0)
	s.wantDeadline(60)
	s.reply(5, 1)
	s.wantDeadline(7)
	s.advance(6.999999999)
	s.wantState(Gather)
	s.advance(7)
	r := s.wantLedger("a Answered 0 1", "b Answered 0 5", "c NotNeeded 0 7", "d NotNeeded 0 7")
	require.Equal(t, 0.75, r.Coverage)
	require.True(t, r.Partial)

	// What comes within the grace counts, and doesn't prolong it.
	s = newStepped(t, Options{EnoughCoverage: 0.5, Grace: 2 * time.Second}, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0)
	s.reply(2, 1)
	s.reply(3, 2, Hit[string]{"x", 1})
	s.wantDeadline(4)
	s.advance(4)
	s.wantLedger("a Answered 0 1", "b Answered 0 2", "c Answered 1 3", "d NotNeeded 0 4")

	// Without a grace the query takes what is in hand, and asks nobody else.
	s = newStepped(t, Options{EnoughCoverage: 0.5, Limit: 3}, "a", "b", "c", "d")
	s.begin()
	s.reply(1, 0)
	require.Equal(t, "abcd", s.asked())
	s.reply(2, 1)
	s.reply(2, 2, Hit[string]{"x", 1}) // was in hand
	s.advance(2.000000001)
	s.wantLedger("a Answered 0 1", "b Answered 0 2", "c Answered 1 2", "d NotNeeded 0 1.000000001")
	s = newStepped(t, Options{EnoughCoverage: 0.5, Limit: 1}, "a", "b")
	s.begin()
	s.reply(1, 0)
	s.advance(1.5)
	require.Equal(t, ErrEnough, s.wantLedger("a Answered 0 1", "b NotAsked 0 0").Peers[1].Err)
}

// Rule 28: less than MinCoverage is an error with the Response.
func TestCoordinatorMinCoverage(t *testing.T) {
	s := newStepped(t, Options{Cover: quarters(), MinCoverage: 0.75}, "a", "b")
	s.begin()
	s.reply(1, 0)
	s.reply(1, 1)
	require.NoError(t, s.Err())

	s = newStepped(t, Options{Cover: quarters(), MinCoverage: 0.8}, "a", "b")
	s.begin()
	s.reply(1, 0)
	s.reply(1, 1)
	var short *CoverageError[Hit[string]]
	require.ErrorAs(t, s.Err(), &short)
	require.Same(t, s.Response(), short.Response)
	require.EqualError(t, s.Err(), "scatter: coverage is 0.75, Options.MinCoverage is 0.8; "+
		"missing 0x4000000000000001-0x8000000000000000 (25.00%) of c, d")
}

// Rules 28 and 42: MergeReserve is kept back from the query's time, but no more than half of it.
func TestCoordinatorMergeReserve(t *testing.T) {
	for _, tt := range []struct{ reserve, until, want float64 }{{1, 10, 9}, {8, 10, 5}, {0, 10, 10}, {3, 2, 1}} {
		reserve := time.Duration(tt.reserve * float64(time.Second))
		s := newStepped(t, Options{PeerDeadline: -1, MergeReserve: reserve}, "a")
		s.beginUntil(tt.until)
		s.wantDeadline(tt.want)
		require.Equal(t, at(tt.want), s.asks[0].Deadline)
		s.advance(tt.want)
		s.wantState(Merging)
	}
	s := newStepped(t, Options{PeerDeadline: -1, MergeReserve: time.Second}, "a")
	s.begin()
	_, bounded := s.Deadline()
	require.False(t, bounded, "there is no time to keep anything back of")
}

// Rule 37: a permanent error asks no standby, draws on no purse, and ends the query.
func TestCoordinatorPermanentError(t *testing.T) {
	chosen := pair(0)
	chosen.purses = newPurses(0, 0, 50, 50)
	s := newSelected(t, Options{MinCoverage: 1}, chosen)
	s.begin()
	s.reply(1, 1, Hit[string]{"x", 1})
	s.fail(2, 0, errWrong)
	r := s.wantLedger("a Failed 0 2", "c Answered 1 1")
	require.Equal(t, errWrong, s.Err(), "which comes before a CoverageError")
	require.Equal(t, "x", ids(r.Hits))
	require.Equal(t, 50.0, chosen.purses.fallback.available())

	s = newStepped(t, Options{Limit: 2, PeerDeadline: time.Second}, "a", "b", "c")
	s.begin()
	s.fail(2, 0, errWrong) // past the deadline, and permanent all the same
	r = s.wantLedger("a Failed 0 2", "b Abandoned 0 2", "c NotAsked 0 0")
	require.Equal(t, errWrong, r.Peers[1].Err)
	require.Equal(t, errWrong, r.Peers[2].Err)
}

// A peer whose probe was cancelled has not failed: no standby is asked and no purse drawn on. If
// the answer is complete before the cancel is told, who is still out is Abandoned, not NotNeeded.
func TestCoordinatorAbandoned(t *testing.T) {
	chosen := pair(0)
	chosen.peers, chosen.standbys = []PeerID{"a", "b", "c"}, []PeerID{"d"}
	chosen.purses = newPurses(0, 0, 50, 50)
	s := newSelected(t, Options{}, chosen)
	s.begin()
	cancelled := func(i int) {
		s.course.deliver(at(1), at(1), i, &reply[Hit[string]]{err: context.Canceled, status: Abandoned, obeyed: true, cause: errBroke})
	}
	s.reply(1, 0)
	cancelled(1)
	s.wantState(Gather)
	s.reply(2, 2)
	s.wantLedger("a Answered 0 1", "b Abandoned 0 1", "c Answered 0 2")
	require.Equal(t, errBroke, s.Err())
	require.Equal(t, 50.0, chosen.purses.fallback.available())

	s = newSelected(t, Options{}, pair(0))
	s.begin()
	cancelled(1)
	require.Equal(t, "ac", s.asked())

	s = newStepped(t, Options{Cover: quarters()}, "a", "b", "c", "d")
	s.begin()
	cancelled(3)
	s.reply(1, 0)
	s.reply(2, 2)
	require.Equal(t, errBroke, s.wantLedger("a Answered 0 1", "b Abandoned 0 2", "c Answered 0 2", "d Abandoned 0 1").Peers[1].Err)
}

// Rule 39: a purse saves up 100 probes, has so many at first, and gets a share of each that is paid
// in.
func TestPurse(t *testing.T) {
	p := newPurse(0.05)
	require.Equal(t, 100.0, p.available())
	p.payIn()
	require.Equal(t, 100.0, p.available(), "it is full")
	require.False(t, p.takeAll(101))
	require.True(t, p.takeAll(98))
	p.payIn()
	require.Equal(t, 2.05, p.available())
	require.False(t, p.takeAll(3))
	require.Equal(t, 2, p.takeSome(7))
	require.Zero(t, p.takeSome(1))
	require.InDelta(t, 0.05, p.available(), 1e-9)
	p.giveBack()
	require.True(t, p.takeAll(1))
	require.True(t, p.takeAll(0))

	unbounded := newPurse(-1)
	unbounded.payIn()
	unbounded.giveBack()
	require.Equal(t, 7, unbounded.takeSome(7))
	require.True(t, math.IsInf(unbounded.available(), 1))

	both := purses{fallback: newPurse(0.5), hedge: newPurse(0.25)}
	require.True(t, both.fallback.takeAll(100))
	require.True(t, both.hedge.takeAll(100))
	both.payIn()
	require.Equal(t, []float64{0.5, 0.25}, []float64{both.fallback.available(), both.hedge.available()})
	both.of(Hedge).giveBack()
	both.of(Fallback).giveBack()
	require.Equal(t, []float64{1.5, 1.25}, []float64{both.fallback.available(), both.hedge.available()})
}

// Rule 39: many at once take out no more than there is.
func TestPurseConcurrently(t *testing.T) {
	p := newPurse(0.5)
	var wg sync.WaitGroup
	var taken [8]int
	for i := range taken {
		wg.Go(func() {
			for range 1000 {
				p.payIn()
				taken[i] += p.takeSome(1)
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range taken {
		sum += n
	}
	require.LessOrEqual(t, sum, 100+4000)
	require.GreaterOrEqual(t, sum, 3900)
}

// A Searcher's Coordinator is stepped by literal times: it chooses, hedges, falls back and learns.
func TestSearcherCoordinator(t *testing.T) {
	probe := func(context.Context, PeerID, *Request) ([]Hit[string], error) { panic("unused") }
	opts := &SearcherOptions{Seed: 1, HedgeDelay: time.Second, HedgeQuantile: -1}
	cover := NewGroupCover([]PeerID{"a", "b", "c"})
	searcher, err := NewSearcher(probe, cover, opts)
	require.NoError(t, err)
	var asks []Ask
	ask := func(a Ask) bool { asks = append(asks, a); return true }
	c, err := searcher.Coordinator(testRequest, ask, nil)
	require.NoError(t, err)
	c.Begin(t0, time.Time{})
	require.Len(t, asks, 1)
	c.Reply(at(0.5), asks[0].Index, nil, errBroke)
	require.Len(t, asks, 2)
	c.Advance(at(1.5))
	require.Len(t, asks, 3)
	c.Reply(at(2), asks[2].Index, []Hit[string]{{"x", 1}}, nil)
	require.Equal(t, Merging, c.State())
	r := c.Response()
	require.False(t, r.Partial)
	require.Equal(t, []Role{Primary, Fallback, Hedge}, []Role{r.Peers[0].Role, r.Peers[1].Role, r.Peers[2].Role})
	require.Equal(t, []bool{false, true, false}, []bool{r.Peers[0].Late, r.Peers[1].Late, r.Peers[2].Late})
	stats := searcher.Stats()
	require.Equal(t, []int64{1, 1, 1, 1}, []int64{stats.Queries, stats.Fallbacks, stats.Hedges, stats.HedgesWon})
	require.Equal(t, []float64{99, 99}, []float64{stats.FallbackPurse, stats.HedgePurse})

	_, err = searcher.Coordinator(testRequest, ask, &Options{Cover: cover})
	require.EqualError(t, err, "scatter: Options.Cover is set, must be nil: the Searcher has one")
	_, err = searcher.Coordinator(testRequest, nil, nil)
	require.EqualError(t, err, "scatter: ask is nil")
}
