package scatter

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// failTimes has a peer fail n times.
func failTimes(l *loads, now time.Time, peer int32, n int) {
	for range n {
		l.started(peer)
		l.ended(now, peer, outcomeFailed, time.Millisecond, time.Second)
	}
}

// Rule 36: three failures in a row put a peer on probation. It is tried after 1 s, 2 s, 4 s and so
// on up to a minute since its last failure, one trial at a time.
func TestProbation(t *testing.T) {
	l, now := newLoads(groupCover(1, 2), nil, 1), chooseEpoch
	after := func(d time.Duration) time.Time { return now.Add(d) }
	chosen := func(now time.Time, peers, trials []int32) {
		t.Helper()
		c := l.choose(now, nil, chooseOptions{})
		assert.Equal(t, peers, c.peers)
		assert.Equal(t, trials, c.trials)
	}
	askAll(l, now, choice{peers: []int32{0, 1}})
	failTimes(l, now, 0, 2)
	askAll(l, now, choice{peers: []int32{0}})
	failTimes(l, now, 0, 2)
	assert.Zero(t, l.stats(0).probationSince, "an answer came between")
	failTimes(l, now, 0, 1)
	assert.Equal(t, now, l.stats(0).probationSince)
	assert.Equal(t, int64(5), l.stats(0).failures)

	for _, delay := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		delay *= time.Second
		chosen(after(delay-1), []int32{1}, nil)
		chosen(after(delay), []int32{0}, []int32{0})
		chosen(after(delay), []int32{1}, nil) // one at a time
		l.dropTrial(0)
		chosen(after(delay), []int32{0}, []int32{0})
		l.started(0)
		l.dropTrial(0) // too late
		chosen(after(delay+time.Hour), []int32{1}, nil)
		now = after(delay + 500*time.Millisecond)
		l.ended(now, 0, outcomeFailed, 500*time.Millisecond, time.Second)
	}
	assert.Equal(t, chooseEpoch, l.stats(0).probationSince)

	// A trial that is cut short says nothing. The first answer ends probation.
	chosen(after(time.Minute), []int32{0}, []int32{0})
	l.started(0)
	l.ended(after(time.Minute), 0, outcomeCutShort, 0, time.Second)
	chosen(after(time.Minute), []int32{0}, []int32{0})
	l.started(0)
	l.ended(after(time.Minute), 0, outcomeAnswered, time.Millisecond, time.Second)
	assert.Zero(t, l.stats(0).probationSince)
	failTimes(l, after(time.Minute), 0, 2)
	assert.Zero(t, l.stats(0).probationSince)
}

// Rule 36: a peer that hangs is found out by the hedges in its place. Other ends don't count.
func TestProbationOfAPeerThatHangs(t *testing.T) {
	l := newLoads(groupCover(1, 2), nil, 1)
	for _, how := range []outcome{outcomeLate, outcomeCutShort, outcomeLate, outcomeNeutral, outcomeLate} {
		assert.Zero(t, l.stats(0).probationSince)
		l.started(0)
		l.ended(chooseEpoch, 0, how, time.Millisecond, time.Second)
	}
	stats := l.stats(0)
	assert.Equal(t, loadStats{probes: 5, late: 3, probationSince: chooseEpoch}, stats)
}

// Rule 36: a peer on probation is asked where no other live holder is left, and a failure there
// doesn't delay trials beyond what trials do.
func TestProbationOfTheOnlyHolder(t *testing.T) {
	l, now := newLoads(groupCover(1, 2), nil, 1), chooseEpoch
	failTimes(l, now, 0, 3)
	alone := bitset{0b01}
	assert.Equal(t, []int32{0}, l.choose(now, alone, chooseOptions{}).peers)
	failTimes(l, now.Add(500*time.Millisecond), 0, 9)
	assert.Equal(t, []int32{1}, l.choose(now.Add(1499*time.Millisecond), nil, chooseOptions{}).peers)
	assert.Equal(t, []int32{0}, l.choose(now.Add(1500*time.Millisecond), nil, chooseOptions{}).trials)
	assert.Positive(t, l.weight(now, 0, chooseOptions{}))
	assert.Less(t, l.weight(now, 0, chooseOptions{}), 1e-20*l.weight(now, 1, chooseOptions{}))
}

// A probe that started before a trial doesn't end it.
func TestTrialAndAnOlderProbe(t *testing.T) {
	l, now := newLoads(groupCover(1, 2), nil, 1), chooseEpoch
	l.started(0) // hangs
	failTimes(l, now, 0, 3)
	now = now.Add(time.Second)
	require.Equal(t, []int32{0}, l.choose(now, nil, chooseOptions{}).trials)
	l.started(0)
	l.ended(now, 0, outcomeFailed, time.Second, time.Second) // the older one
	assert.Empty(t, l.choose(now.Add(time.Hour), nil, chooseOptions{}).trials)
	l.ended(now, 0, outcomeFailed, time.Second, time.Second)
	assert.Equal(t, []int32{0}, l.choose(now.Add(time.Hour), nil, chooseOptions{}).trials)
}

// Rule 35: what counts as a latency, and how it is forgotten.
func TestTypicalLatency(t *testing.T) {
	l, now := newLoads(groupCover(1, 4), nil, 1), chooseEpoch
	end := func(peer int32, how outcome, elapsed time.Duration) {
		l.started(peer)
		l.ended(now, peer, how, elapsed, time.Second)
	}
	typical := func(peer int32) time.Duration {
		l.choose(now, nil, chooseOptions{})
		return time.Duration(l.typical(l.shared.at(now), l.peers[peer])) - loadFloor
	}
	end(0, outcomeAnswered, 10*time.Millisecond)
	end(1, outcomeAnswered, 20*time.Millisecond)
	end(2, outcomeAnswered, 40*time.Millisecond)
	assert.Equal(t, 10*time.Millisecond, typical(0))
	assert.Equal(t, 20*time.Millisecond, typical(3), "an unknown peer has the median")
	end(0, outcomeAnswered, 20*time.Millisecond)
	assert.Equal(t, 12*time.Millisecond, typical(0))
	end(0, outcomeCutShort, 5*time.Millisecond)
	end(0, outcomeNeutral, time.Hour)
	assert.Equal(t, 12*time.Millisecond, typical(0))
	end(0, outcomeCutShort, 17*time.Millisecond)
	assert.Equal(t, 13*time.Millisecond, typical(0))
	end(0, outcomeLate, 18*time.Millisecond)
	assert.Equal(t, 14*time.Millisecond, typical(0))
	end(0, outcomeFailed, time.Millisecond)
	assert.Equal(t, 211200*time.Microsecond, typical(0), "a failure counts as the whole deadline")
	l.medianDue = 0
	typical(1)
	before := typical(1)
	end(1, outcomeAnswered, time.Hour)
	assert.Less(t, typical(1), before+loadWeight*loadClip*50*time.Millisecond, "so many times the median")

	l.peers[0].average = 320e6
	l.median, l.medianDue = 20e6, 1<<60
	for _, want := range []time.Duration{320, 80, 40} {
		assert.InDelta(t, float64(want*time.Millisecond), float64(typical(0)+loadFloor), 2)
		now = now.Add(loadDrift)
	}
	now = now.Add(time.Hour)
	assert.Equal(t, 20*time.Millisecond, typical(0)+loadFloor)
}

// Rule 35: an unknown peer has one probe at a time.
func TestUnknownPeer(t *testing.T) {
	l, now := newLoads(groupCover(1, 2), nil, 1), chooseEpoch
	askAll(l, now, choice{peers: []int32{1}})
	for range 5 {
		l.started(1) // so that the known one is dear
	}
	assert.Equal(t, []int32{0}, l.choose(now, nil, chooseOptions{}).peers)
	l.started(0)
	assert.Equal(t, []int32{1}, l.choose(now, nil, chooseOptions{}).peers)
	l.ended(now, 0, outcomeAnswered, 5*time.Millisecond, time.Second)
	assert.Equal(t, []int32{0}, l.choose(now, nil, chooseOptions{}).peers)
}

// What is known of a peer stays when the Cover changes, and probes that end then still count.
func TestLoadsOfAnotherCover(t *testing.T) {
	old, now := newLoads(groupCover(1, 3), nil, 1), chooseEpoch
	askAll(old, now, choice{peers: []int32{0}})
	old.started(2)
	failTimes(old, now, 1, 3)
	cover := newTestCover([]PeerID{"new", "p0002", "p0001"}, []uint64{1 << 63}, []int32{0, 3}, []int32{0, 1, 2})
	l := newLoads(cover, old, 1)
	assert.Equal(t, loadStats{}, l.stats(0))
	assert.Equal(t, loadStats{probes: 1, inFlight: 1}, l.stats(1))
	assert.Equal(t, now, l.stats(2).probationSince)
	old.ended(now, 2, outcomeAnswered, time.Second, time.Second)
	assert.Equal(t, loadStats{probes: 1}, l.stats(1))
	old.started(1)
	old.ended(now, 1, outcomeAnswered, time.Second, time.Second)
	assert.Zero(t, l.stats(2).probationSince)
}

// Rule 39: a hedge is of use if its peer is idle, or is expected to answer within the time that the
// query has waited already.
func TestMayHedge(t *testing.T) {
	l, now := newLoads(groupCover(1, 2), nil, 1), chooseEpoch
	askAll(l, now, choice{peers: []int32{0}}) // it takes 5 ms
	assert.True(t, l.mayHedge(now, 0, 5*time.Millisecond))
	assert.True(t, l.mayHedge(now, 0, 0))
	l.started(0)
	assert.False(t, l.mayHedge(now, 0, 9*time.Millisecond))
	assert.True(t, l.mayHedge(now, 0, 12*time.Millisecond))
}

// With many ranges, plans are made in the background, one at a time, and are handed out in turn.
// What they hold of peers that are dead, on probation or dear is chosen anew.
func TestPlansMadeAhead(t *testing.T) {
	cover := randomRingCover(40, 64, 3, 1)
	l, now := newLoads(cover, nil, 1), chooseEpoch
	var jobs []func()
	o := chooseOptions{spawn: func(f func()) { jobs = append(jobs, f) }}
	first := l.choose(now, nil, o)
	for range 100 {
		assert.Equal(t, first, l.choose(now, nil, o))
	}
	require.Len(t, jobs, 1, "one at a time")
	for len(l.plans.kept) < planKept {
		jobs[len(jobs)-1]()
		l.choose(now, nil, o)
	}
	require.Len(t, jobs, planKept-1)
	different := map[string]bool{}
	for range planServes - 2 {
		different[fmt.Sprint(l.choose(now, nil, o).peers)] = true
	}
	assert.Len(t, different, planKept)
	require.Len(t, jobs, planKept-1, "not yet due")
	l.choose(now, nil, o)
	require.Len(t, jobs, planKept, "due")
	jobs[planKept-1]()

	live := slices.Clone(l.all)
	live.remove(first.peers[0])
	well := slices.Clone(live)
	failTimes(l, now, first.peers[1], 3)
	well.remove(first.peers[1])
	for range 2 * planKept {
		c := l.choose(now, live, o)
		wantChoice(t, cover, c, live, well, false)
		assert.NotContains(t, c.peers, first.peers[1])
	}
	require.Len(t, jobs, planKept+1, "the live peers have changed")

	// A choice belongs to its query.
	c := l.choose(now, live, o)
	c.coverage.answer(c.peers[0])
	c.coverage.lose(c.peers[1])
	for range planKept {
		wantChoice(t, cover, l.choose(now, live, o), live, well, false)
	}

	// A trial is one peer more.
	now = now.Add(time.Second)
	c = l.choose(now, live, o)
	assert.Equal(t, []int32{first.peers[1]}, c.trials)
	assert.Contains(t, c.peers, first.peers[1])
}

// A dear peer of a plan is replaced where others hold its ranges.
func TestPlansAreRepairedWherePeersAreDear(t *testing.T) {
	holders := make([][]int32, planRanges+2)
	for r := range holders {
		holders[r] = []int32{int32(r % 4 * 2), int32(r%4*2 + 1)}
	}
	l, now := newLoads(coverOf(8, holders...), nil, 1), chooseEpoch
	askAll(l, now, choice{peers: l.all.list(8)})
	o := chooseOptions{spawn: func(func()) {}}
	dear := l.choose(now, nil, o).peers[2]
	l.peers[dear].average *= planDear
	for range 3 {
		c := l.choose(now, nil, o)
		assert.Len(t, c.peers, 4)
		assert.NotContains(t, c.peers, dear)
		assert.Contains(t, c.peers, dear^1)
	}
}

// Many queries may use loads at once, also while the loads of the next Cover are made and used. The
// race detector finds what the lock doesn't guard. All probes are counted in the end.
func TestLoadsAreSafeForConcurrentUse(t *testing.T) {
	live := func(l *loads, r *rand.Rand) bitset {
		live := l.all.clone()
		live.remove(int32(r.IntN(len(l.peers))))
		return live
	}
	for name, cover := range map[string]*Cover{
		"swept": randomRingCover(12, 4, 3, 1), "planned": randomRingCover(12, planRanges/12+1, 3, 1),
	} {
		t.Run(name, func(t *testing.T) {
			const queries = 60
			old := newLoads(cover, nil, 1)
			probes := make([]atomic.Int64, len(old.peers))
			query := func(l *loads, now time.Time, r *rand.Rand) {
				o := chooseOptions{cost: func(PeerID) float64 { return 1 }}
				if r.IntN(3) == 0 {
					o.affinity = fmt.Sprint(r.IntN(100))
				}
				c := l.choose(now, live(l, r), o)
				for _, trial := range c.trials {
					if r.IntN(4) == 0 {
						l.dropTrial(trial)
					}
				}
				for _, peer := range c.peers {
					probes[peer].Add(1)
					l.started(peer)
					assert.Positive(t, l.weight(now, peer, o))
					l.mayHedge(now, peer, time.Millisecond)
					how := outcome(r.IntN(int(outcomeNeutral) + 1))
					l.ended(now, peer, how, time.Duration(r.IntN(1e7)), time.Second)
					l.stats(peer)
				}
				assert.Equal(t, len(c.peers), c.coverage.hoped.count(), "another query has changed the choice")
			}
			var wg sync.WaitGroup
			for seed := range uint64(8) {
				wg.Go(func() {
					r, l := rand.New(rand.NewPCG(seed, 1)), old
					for i := range queries {
						if i == queries/2 && seed%2 == 0 {
							l = newLoads(cover, old, seed)
						}
						query(l, chooseEpoch.Add(time.Duration(i)*100*time.Millisecond), r)
					}
				})
			}
			wg.Wait()
			onProbation := 0
			for peer := range probes {
				stats := old.stats(int32(peer))
				assert.Equal(t, probes[peer].Load(), stats.probes)
				assert.Zero(t, stats.inFlight)
				if !stats.probationSince.IsZero() {
					onProbation++
				}
			}
			assert.Equal(t, onProbation, old.shared.onProbation)
		})
	}
}
