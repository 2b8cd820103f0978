package scatter

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Response is the answer to a query and a record of how it came about. The caller owns it.
//
// A Response goes through encoding/json and back. Its JSON has these forms:
//
//   - A hit is what encoding/json makes of its type, with the members "id" and "score" of its
//     [Hit]. A NaN score is null, and an infinite one is "+Inf" or "-Inf". For these a struct must
//     embed the Hit itself, without a tag; otherwise MarshalJSON returns an error. A hit type that
//     has a MarshalJSON of its own must write such scores itself.
//   - An error is its text; see [PeerReport].
//   - A duration is text, such as "1.5ms".
//   - A token is a decimal number as text, because JavaScript rounds large numbers. It does so with
//     large integer IDs, too.
//   - An empty list is read back as nil.
//
// MarshalJSON returns an error if an ID or a PeerID isn't UTF-8.
type Response[H any] struct {
	// Hits are the best Request.K hits in the query's Order, each ID once.
	Hits []H `json:"hits"`
	// Peers is the ledger: a line for each distinct peer, in the caller's order, then standbys.
	Peers []PeerReport `json:"peers"`
	// PeersConsulted is the number of peers that were asked, including those that timed out or
	// failed.
	PeersConsulted int `json:"peersConsulted"`
	// PeersTimedOut is the number of peers that were asked and gave no hits in time.
	PeersTimedOut int `json:"peersTimedOut"`
	// PeersFailed is the number of peers that were asked and returned an error or panicked.
	PeersFailed int `json:"peersFailed"`
	// Partial means that some hits are missing: Coverage is below 1.
	Partial bool `json:"partial"`
	// Coverage is the share of the index that has answered; see Options.Cover.
	Coverage float64 `json:"coverage"`
	// Missing are, with Options.Cover, the token ranges that have no answer.
	Missing []MissingRange `json:"missing,omitempty"`
	// Exact is the number of leading Hits that are proven: no hit that a peer has kept back can
	// rank before them, given that each peer's own index returns its best. If Partial, they are the
	// best of what is covered, and nothing is known of their ranks in the whole index.
	Exact int `json:"exact"`
	// Next, as Request.After, asks for the hits that follow the Exact proven ones, so that pages of
	// any sizes lose and repeat nothing. Hits beyond Exact come again. It is empty only if nothing
	// can follow: Hits are all there is.
	//
	// Next equals Request.After if nothing was proven. If the answer is Partial, the same page may
	// succeed later. If it isn't, a probe ignores After, and a pager should stop with an error: it
	// would get the same page for ever.
	Next Cursor `json:"next,omitempty"`
	// Elapsed is the time from the start of the query until the Response was made.
	Elapsed time.Duration `json:"elapsed"`
}

// PeerReport is one line of the ledger: what became of one peer.
//
// A PeerReport goes through encoding/json and back. Err is written as its text, and left out if
// nil. It is read back as an error with that text. If the text is exactly that of [ErrEnough],
// [context.DeadlineExceeded] or [context.Canceled], it is read back as that error. A struct that
// embeds a PeerReport inherits its MarshalJSON, so its other fields are not written.
type PeerReport struct {
	Peer PeerID `json:"peer"`
	// Role is why the peer was asked.
	Role Role `json:"role"`
	// Status is what became of it.
	Status Status `json:"status"`
	// Err is why its hits are missing. It is nil if Status is Answered or Dead, but for ErrBound.
	Err error `json:"err,omitempty"`
	// Hits is the number of its hits that were merged.
	Hits int `json:"hits"`
	// Elapsed is the time from the start of its probe until the outcome was known. It is zero if
	// the peer was not asked.
	Elapsed time.Duration `json:"elapsed"`
	// Late means that a hedge was asked in its place, because it was slow.
	Late bool `json:"late,omitempty"`
	// Unsorted means that its hits were not in the query's Order and had to be sorted.
	Unsorted bool `json:"unsorted,omitempty"`
	// Refilled is the number of hits that a second question to the peer has added, for
	// Options.PeerK.
	Refilled int `json:"refilled,omitempty"`
}

// Role is why a peer is in a preference list or was asked in a query. The zero value is Primary.
type Role uint8

// The roles.
const (
	Primary  Role = iota // a token's owner; in a query, a peer that was asked from the start
	Fallback             // a stand-in for a primary that is dead; in a query, for a peer that failed
	Hedge                // only in a query: a stand-in for a peer that was slow
)

// Status is what became of a peer in a query.
type Status uint8

// The statuses.
const (
	// NotAsked means that the query ended before the peer was asked. Err says why, as for TimedOut,
	// Abandoned and NotNeeded.
	NotAsked Status = iota
	// Answered means that the peer's hits were merged.
	Answered
	// Incomplete means that the peer's hits were merged, but its probe said that they are not all
	// that the peer should have. Err is or wraps ErrPartial.
	Incomplete
	// TimedOut means that the peer gave no hits in time. Err is context.DeadlineExceeded by
	// errors.Is, or an error of the probe's own with a method Timeout() bool that returns true.
	TimedOut
	// Failed means that the peer gave no hits for another reason. Err is what its probe returned, a
	// *PanicError, or ErrGoexit.
	Failed
	// Abandoned means that the query was cancelled, or ended by a permanent error, while the peer
	// was being asked. Err is the cause.
	Abandoned
	// NotNeeded means that the answer was complete enough while the peer was being asked. Err is
	// ErrEnough.
	NotNeeded
	// Dead means that Options.Live called the peer dead, so that it was not asked. Err is nil.
	Dead
	// Outranked means that the peer was not asked, because by Options.Bound none of its hits could
	// be among the best K. What it holds counts as answered. Err is ErrEnough.
	Outranked
)

// ErrEnough is the Err of a peer that was not needed: all that can be covered was covered, or
// Options.EnoughCoverage was reached. The contexts of such peers' probes are cancelled with it as
// the cause, so a probe can tell by context.Cause that it has not failed.
var ErrEnough = errors.New("scatter: the answer is complete enough without it")

// ErrPartial is returned by a [Probe], alone or wrapped, together with hits that are good but not
// all that the peer should have: it ran into its own time limit, one of its own peers was missing
// ([Reply].TimedOut), or an approximate index stopped before it had found enough. The hits count,
// the peer is [Incomplete], and what it holds counts as missing unless another peer answers for it.
var ErrPartial = errors.New("scatter: the peer's reply is partial")

// ErrPermanent is returned by a [Probe], alone or wrapped, if every replica would return the same
// error: for a malformed query, say. It ends the query, which returns that error. No replica is
// asked in the peer's place, and the error doesn't count as a failure of the peer.
var ErrPermanent = errors.New("scatter: permanent error")

// ErrBound is the Err of a peer that has Answered with a hit that ranks before its Options.Bound.
// The hit counts, but other peers may have been Outranked wrongly.
var ErrBound = errors.New("scatter: a hit ranks before the peer's bound")

// MissingRange is a stretch of the token space that has no answer.
type MissingRange struct {
	// First and Last are the first and the last token. Both are included. If First > Last, the
	// stretch goes on past the largest token to Last.
	First uint64  `json:"first,string"`
	Last  uint64  `json:"last,string"`
	Share float64 `json:"share"` // of the whole token space
	// Holders are the peers that hold a part of the stretch. Response.Peers says what became of
	// each; a holder that has no line there was not asked. The slice must not be written to.
	Holders []PeerID `json:"holders"`
}

// String returns the range on one line, for a log. It names the first few holders.
func (m MissingRange) String() string {
	s := fmt.Sprintf("%#016x-%#016x (%.2f%%)", m.First, m.Last, 100*m.Share)
	if len(m.Holders) > 0 {
		s += " of " + few(len(m.Holders), ", ", func(i int) string { return string(m.Holders[i]) })
	}
	return s
}

// fewNames is how many items of a list an error or a log line names, so that it stays one line on
// any cluster.
const fewNames = 3

// few joins the texts of the first few of n items, and counts the others.
func few(n int, separator string, text func(i int) string) string {
	var s strings.Builder
	for i := range n {
		if i == fewNames { // Rule 40
			fmt.Fprintf(&s, " and %d more", n-i)
			break
		}
		if i > 0 {
			s.WriteString(separator)
		}
		s.WriteString(text(i))
	}
	return s.String()
}

// CoverageError is returned when a Response covers less than Options.MinCoverage and nothing else
// ended the query.
type CoverageError[H any] struct {
	Response    *Response[H] // what there is
	MinCoverage float64
}

func (e *CoverageError[H]) Error() string {
	s := fmt.Sprintf("scatter: coverage is %v, Options.MinCoverage is %v", e.Response.Coverage, e.MinCoverage)
	for i, m := range e.Response.Missing {
		if i == fewNames { // Rule 40
			return fmt.Sprintf("%s; and %d more", s, len(e.Response.Missing)-i)
		}
		s += "; missing " + m.String()
	}
	return s
}

var (
	roleNames   = []string{"Primary", "Fallback", "Hedge"}
	statusNames = []string{
		"NotAsked", "Answered", "Incomplete", "TimedOut", "Failed", "Abandoned", "NotNeeded", "Dead", "Outranked",
	}
)

// String returns the name of the constant.
func (r Role) String() string { return enumString(r, roleNames) }

// String returns the name of the constant.
func (s Status) String() string { return enumString(s, statusNames) }

// MarshalText returns the name of the constant, or an error if r is none.
func (r Role) MarshalText() ([]byte, error) { return enumText(r, "Role", roleNames) }

// MarshalText returns the name of the constant, or an error if s is none.
func (s Status) MarshalText() ([]byte, error) { return enumText(s, "Status", statusNames) }

// UnmarshalText sets r to the constant of that name. If there is none, it returns an error and
// leaves r unchanged.
func (r *Role) UnmarshalText(text []byte) error { return parseEnum(r, "Role", text, roleNames) }

// UnmarshalText sets s to the constant of that name. If there is none, it returns an error and
// leaves s unchanged.
func (s *Status) UnmarshalText(text []byte) error { return parseEnum(s, "Status", text, statusNames) }
