package scatter

import "time"

// Stats is what a [Searcher] has done and knows.
type Stats struct {
	Queries   int64 // queries that have ended; a shared one counts once
	Coalesced int64 // calls of Search that have joined a query: see SearcherOptions.Coalesce
	Partial   int64 // queries with a Partial answer
	Errors    int64 // queries that returned an error
	Probes    int64 // peers asked, including standbys
	Fallbacks int64 // standbys asked for a peer that had failed
	Hedges    int64 // standbys asked for a peer that was slow
	HedgesWon int64 // Hedges that have answered in time

	FallbackPurse float64 // how many Fallbacks could be asked now; infinite without a bound
	HedgePurse    float64 // how many Hedges could be asked now; infinite without a bound

	Peers []PeerStats // of the Cover, in its order
}

// PeerStats is what a [Searcher] knows of one peer.
type PeerStats struct {
	Peer           PeerID
	InFlight       int       // probes that are out now
	Probes         int64     // probes that were started
	Failures       int64     // probes that failed or timed out
	Late           int64     // probes that had not answered when a hedge in their place did
	ProbationSince time.Time // since when the peer is on probation; zero if it isn't

	// P50, P95 and P99 are quantiles of the time that the peer takes to answer, each off by less
	// than a quarter, of the last 1000 answers or so. They are zero if nothing is known. A wait
	// that was cut short doesn't count.
	P50, P95, P99 time.Duration
}
