package scatter

import (
	"math"
	"time"
)

const (
	// loadWeight is what one more latency counts for in the moving average.
	loadWeight = 0.2

	// loadClip is how many times the median an answer's latency counts at most, so that one pause
	// of a scheduler or of a garbage collector doesn't make a peer dear for seconds.
	loadClip = 32

	// loadFloor is added to each latency. Differences that are small beside it are noise: they
	// don't matter to a query, and would starve peers whose probes take microseconds.
	loadFloor = time.Millisecond

	// loadDrift is the time in which an average that nothing is added to halves its distance to the
	// median, as a factor: a peer at 16 times the median comes to 4 times, 2 times, 1.4 times.
	loadDrift = time.Second

	// probationFailures failures in a row put a peer on probation.
	probationFailures = 3
	// The first trial on probation comes after firstTrial. The time doubles up to lastTrial.
	firstTrial, lastTrial = time.Second, time.Minute
)

// outcome is what loads learns from the end of a probe.
type outcome uint8

const (
	// outcomeAnswered means that the peer answered. Its latency counts, and probation ends.
	outcomeAnswered outcome = iota
	// outcomeFailed means that the peer failed or ran into its deadline. It counts as a latency of
	// the penalty, and towards probation.
	outcomeFailed
	// outcomeLate means that the peer had not answered when a hedge in its place did. It counts as
	// outcomeCutShort, and towards probation.
	outcomeLate
	// outcomeCutShort means that the query ended, or no longer needed the peer. That is no latency,
	// but the peer would have taken longer than it was waited for.
	outcomeCutShort
	// outcomeNeutral means that the error says nothing of the peer. Rule 37.
	outcomeNeutral
)

// load is what is known of one peer. It has no lock of its own. Times are durations since the epoch
// of its owner.
type load struct {
	answers latency // how long it takes to answer; safe without a lock

	average  float64       // moving average of latency and loadFloor in nanoseconds; 0 if unknown
	learned  time.Duration // when something was last added to average
	inFlight int32

	failures  int32 // in a row
	probation bool
	trial     bool          // a trial is chosen or in flight
	tried     bool          // that trial has started
	before    int32         // probes in flight that started before it and are still to end
	since     time.Duration // when probation began
	failed    time.Duration // when the peer last failed
	delay     time.Duration // the next trial is due so long after failed

	stats loadStats
}

// loadStats are one peer's counters.
type loadStats struct {
	inFlight       int       // probes that have started and not ended
	probes         int64     // all that have started
	failures, late int64     // the probes that ended as outcomeFailed, and as outcomeLate
	probationSince time.Time // when probation began; zero if the peer is not on probation
}

// start records that a probe starts.
func (p *load) start() {
	if p.trial && !p.tried {
		p.tried, p.before = true, p.inFlight
	}
	p.inFlight++
	p.stats.probes++
}

// end records the end of a probe that took elapsed. A failure counts as a latency of penalty.
func (p *load) end(at time.Duration, how outcome, elapsed, penalty time.Duration, median float64) {
	p.inFlight--
	if p.trial && p.tried {
		if p.before--; p.before < 0 {
			p.trial = false
		}
	}
	switch how {
	case outcomeAnswered:
		p.answers.record(elapsed)
		if p.average > 0 { // there is a median
			elapsed = min(elapsed, time.Duration(loadClip*median))
		}
		p.learn(at, elapsed, median)
		p.failures = 0
		if p.probation { // Rule 36: the first answer ends it.
			p.probation, p.trial = false, false
		}
	case outcomeFailed:
		p.learn(at, max(penalty, elapsed), median)
		p.stats.failures++
		p.fail(at)
	case outcomeLate, outcomeCutShort:
		if p.average == 0 || float64(elapsed+loadFloor) > p.typical(at, median) {
			p.learn(at, elapsed, median)
		}
		if how == outcomeLate {
			p.stats.late++
			p.fail(at)
		}
	}
}

// learn adds a latency to the average.
func (p *load) learn(at, latency time.Duration, median float64) {
	x := float64(max(latency, 0) + loadFloor)
	if p.average == 0 {
		p.average = x
	} else {
		p.average = p.typical(at, median)
		p.average += loadWeight * (x - p.average)
	}
	p.learned = at
}

// fail records a failure. Rule 36.
func (p *load) fail(at time.Duration) {
	p.failures++
	switch {
	case !p.probation && p.failures >= probationFailures:
		p.probation, p.trial = true, false
		p.since, p.delay = at, firstTrial
	case p.probation && at >= p.failed+p.delay:
		// An earlier failure is not that of a trial, so the delay stays.
		p.delay = min(2*p.delay, lastTrial)
	}
	p.failed = at
}

// trialDue reports whether a peer on probation may be tried. Rule 36.
func (p *load) trialDue(at time.Duration) bool { return !p.trial && at >= p.failed+p.delay }

// try records that a query is about to try the peer.
func (p *load) try() { p.trial, p.tried = true, false }

// typical returns the expected latency: the average, which drifts to the median of all peers as it
// gets old, or the median if the average is unknown. Rule 35.
func (p *load) typical(at time.Duration, median float64) float64 {
	if p.average == 0 {
		return median
	}
	age := at - p.learned
	if age < loadDrift {
		return p.average
	}
	if age > 16*loadDrift {
		return median
	}
	factor := p.average / median
	for ; age >= loadDrift; age -= loadDrift {
		factor = math.Sqrt(factor)
	}
	return median * factor
}
