package scatter

import (
	"cmp"
	"slices"
	"time"
)

// search is a Searcher's part in one query.
type search[H Ranked[ID], ID cmp.Ordered] struct {
	fleet  *fleet
	loads  *loads
	course *course[H, ID]
	hedger hedger
	spawn  func(func())  // runs what is done in the background; may be nil
	delay  time.Duration // of hedges; zero: none
	probes int64
	trials []int32 // peers that are chosen to be tried and not asked yet
}

// choose chooses whom to ask. It implements strategy.
func (q *search[H, ID]) choose(now, until time.Time) *selection {
	s, cover, opts := q.fleet, q.loads.cover, &q.course.opts
	live := newBitset(len(cover.peers))
	for i, peer := range cover.peers {
		if opts.Live.of(peer) {
			live.add(int32(i))
		}
	}
	chosen := &selection{cover: cover, live: live}
	if s.opts.AskAll {
		chosen.coverage = newCoverage(cover, live.clone())
		for i := range cover.peers {
			if live.has(int32(i)) && len(cover.rangesOf(int32(i))) > 0 {
				chosen.peers = append(chosen.peers, int32(i))
			}
		}
		return chosen
	}
	how := chooseOptions{affinity: opts.Affinity, cost: s.opts.Cost, spawn: q.spawn}
	choice := q.loads.choose(now, live, how)
	chosen.peers, chosen.coverage, q.trials = choice.peers, choice.coverage, choice.trials
	chosen.hedger = q.newHedger(chosen, how, now, until)
	return chosen
}

// newHedger returns the hedger of a query whose peers are chosen. The other live peers are
// standbys.
func (q *search[H, ID]) newHedger(chosen *selection, how chooseOptions, now, until time.Time) *hedger {
	s, l := q.fleet, q.loads
	q.delay = s.hedgeDelay(q.course.opts.PeerDeadline, now, until)
	ready := chosen.live.clone()
	for _, peer := range chosen.peers {
		ready.remove(peer)
	}
	q.hedger = hedger{
		coverage: chosen.coverage,
		ready:    ready,
		late:     newBitset(len(l.peers)),
		weight:   func(peer int32) float64 { return l.weight(now, peer, how) },
		useful:   l.mayHedge,
		turn:     s.turn.Add(1),
		purses:   &s.purses,
		delay:    q.delay,
	}
	return &q.hedger
}

// asked implements strategy.
func (q *search[H, ID]) asked(peer int32, role Role, again bool) {
	q.probes++
	q.trials = slices.DeleteFunc(q.trials, func(trial int32) bool { return trial == peer })
	if role == Primary && !again && !q.fleet.opts.AskAll {
		q.fleet.purses.payIn()
	}
	q.loads.started(peer)
}

// concluded implements strategy. It records how long a peer took to answer, or how it has failed.
func (q *search[H, ID]) concluded(now time.Time, peer int32, report *PeerReport) {
	if report.Status == Answered || report.Status == Incomplete {
		q.fleet.answers.record(report.Elapsed) // Rule 38: nothing else is a latency
	}
	penalty := cmp.Or(max(q.course.opts.PeerDeadline, 0), DefaultPeerDeadline) // Rule 35
	q.loads.ended(now, peer, q.outcome(report), report.Elapsed, penalty)
}

// outcome says what a line of the ledger tells of its peer.
func (q *search[H, ID]) outcome(report *PeerReport) outcome {
	switch {
	case report.Status == Answered || report.Status == Incomplete:
		return outcomeAnswered
	case report.Status == Failed && isPermanent(report.Err): // Rule 37
		return outcomeNeutral
	case report.Status == Failed:
		return outcomeFailed
	case report.Status == TimedOut:
		// A query that ends before most peers answer says nothing of the peer. Rule 36.
		late, ok := report.Err.(*lateError) //nolint:errorlint // an inner one is of the peer's own query
		queryEnded := ok && late.deadline == 0
		if !queryEnded || q.delay > 0 && report.Elapsed >= q.delay {
			return outcomeFailed
		}
	case report.Status == NotNeeded && report.Late: // Rule 36
		return outcomeLate
	}
	return outcomeCutShort
}

// finished implements strategy. It counts what the query was.
func (q *search[H, ID]) finished(took time.Duration) {
	s, resp := q.fleet, q.course.response
	for _, trial := range q.trials {
		q.loads.dropTrial(trial)
	}
	s.merges.record(took)
	var fallbacks, hedges, won int64
	for i := range resp.Peers {
		if p := &resp.Peers[i]; p.Status != NotAsked {
			fallbacks += count(p.Role == Fallback)
			hedges += count(p.Role == Hedge)
			won += count(p.Role == Hedge && p.Status == Answered)
		}
	}
	s.count(func(c *Stats) {
		c.Queries++
		c.Partial += count(resp.Partial)
		c.Errors += count(q.course.err != nil)
		c.Probes += q.probes
		c.Fallbacks += fallbacks
		c.Hedges += hedges
		c.HedgesWon += won
	})
}

func count(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
