package scatter

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"
	"time"
)

// ledger has one record for each peer of a query. Records are never removed, so a record's index
// identifies its peer for as long as the query lasts.
type ledger[H Ranked[ID], ID cmp.Ordered] struct {
	peers    []peer[H]
	next     int     // no peer before this one waits to be asked, unless there is a queue:
	queue    []int32 // who is to be asked, in an order of its own; some may not wait any more
	waiting  int     // how many are waiting
	inFlight int     // how many are being asked
	asked    int     // how many have been asked
	answered int     // how many have Answered
	kth      uint32  // scoreKey of the k-th best hit that is known, if kthKnown; the largest if there are fewer
	kthKnown bool
	foreign  int // how many, waiting or being asked, are not on the query's Cover
}

// peer is all that a query knows of one peer.
type peer[H any] struct {
	report    PeerReport
	hits      []H // its reply, sorted
	unseen    unseen[H]
	bound     float32 // by Options.Bound, if bounded
	bounded   bool
	refill    int // how many more hits the peer is asked for; 0: it is not asked a second time
	number    int32
	instead   int32 // of a standby: the index of the peer in whose place it is asked
	phase     phase
	ctx       context.Context // of its hooks
	askedAt   time.Time
	unitSince time.Time     // since when it has waited for a unit of the semaphore; zero: it doesn't
	hedgeAt   time.Time     // when to ask standbys in its place; zero: never, or done
	hedgeWait time.Duration // how long that was put off
}

// unseen says what is known of the hits that a peer has not given.
type unseen[H any] struct {
	given int  // hits that its probe has returned
	more  bool // there may be others,
	last  H    // which rank behind this one,
	vague bool // or, instead, anywhere
}

// unseenAfter returns what a reply to a request for k hits leaves unseen. A shorter one is all that
// there is. One that was not sorted may be the best by another order. Rule 43.
func unseenAfter[H any](r *reply[H], k int) unseen[H] {
	more := r.given >= k
	return unseen[H]{given: r.given, more: more, last: r.last, vague: more && r.unsorted}
}

// phase is how far a query has got with a peer.
type phase uint8

const (
	concluded phase = iota // nothing more is expected of it
	waiting                // it is to be asked
	asking                 // it is being asked
	dropped                // a standby that was not needed any more before its turn; it has no line
)

// add appends a record. number is the peer's on the query's Cover, or -1.
func (l *ledger[H, ID]) add(id PeerID, number int32, role Role, dead bool) {
	p := peer[H]{report: PeerReport{Peer: id, Role: role}, number: number, phase: waiting}
	if dead {
		p.phase, p.report.Status = concluded, Dead // Rule 31
	} else {
		l.waiting++
		l.foreign += isForeign(number)
		if l.queue != nil {
			l.queue = append(l.queue, int32(len(l.peers)))
		}
	}
	l.peers = append(l.peers, p)
}

func isForeign(number int32) int {
	if number < 0 {
		return 1
	}
	return 0
}

// head returns the index of the peer that waits first. There must be one.
func (l *ledger[H, ID]) head() int {
	for i := range l.line() {
		return i
	}
	panic("scatter: nobody waits to be asked") // see above
}

// line returns the indices of the peers that wait, in the order in which they are to be asked.
func (l *ledger[H, ID]) line() iter.Seq[int] {
	return func(yield func(int) bool) {
		if l.queue != nil {
			for _, i := range l.queue {
				if l.peers[i].phase == waiting && !yield(int(i)) {
					return
				}
			}
			return
		}
		for l.next < len(l.peers) && l.peers[l.next].phase != waiting {
			l.next++
		}
		for i := l.next; i < len(l.peers); i++ {
			if l.peers[i].phase == waiting && !yield(i) {
				return
			}
		}
	}
}

// begin records that a waiting peer is being asked.
func (l *ledger[H, ID]) begin(i int, ctx context.Context, now time.Time) {
	p := &l.peers[i]
	p.phase, p.ctx, p.askedAt = asking, ctx, now
	l.waiting--
	l.inFlight++
	if p.refill == 0 { // Rules 14 and 44
		l.asked++
	}
}

// drop takes a waiting standby out of the ledger.
func (l *ledger[H, ID]) drop(i int) {
	l.peers[i].phase = dropped
	l.waiting--
}

// conclude makes the line of a waiting or asked peer final.
func (l *ledger[H, ID]) conclude(i int, status Status, err error, at time.Time) {
	p := &l.peers[i]
	if p.phase == asking {
		p.report.Elapsed = max(at.Sub(p.askedAt), 0) // a reply that came at once may seem older
	}
	l.end(p)
	l.foreign -= isForeign(p.number)
	p.report.Status, p.report.Err = status, err
	if status == Answered || status == Outranked { // Rule 47
		l.answered++
	}
}

// end records that a peer neither waits nor is asked any more.
func (l *ledger[H, ID]) end(p *peer[H]) {
	if p.phase == asking {
		l.inFlight--
	} else {
		l.waiting--
	}
	p.phase = concluded
}

// known returns the k best hits that are known, and how many duplicates were passed over.
func (l *ledger[H, ID]) known(k int, order Order) (hits []H, duplicates int) {
	lists := make([][]H, 0, len(l.peers)) // by record, so that the order of arrival doesn't matter: rule 10
	for i := range l.peers {
		if list := l.peers[i].hits; len(list) > 0 {
			lists = append(lists, list)
		}
	}
	return mergeSorted[H, ID](nil, lists, k, order)
}

// response makes the part of a Response that the ledger knows. A peer without an outcome gets the
// one that verdict gives it, in the Response alone. duplicates is how many hits the merge passed
// over.
func (l *ledger[H, ID]) response(
	k int, order Order, now time.Time, verdict func(*peer[H]) (Status, error),
) (r *Response[H], duplicates int) {
	r = &Response[H]{PeersConsulted: l.asked, Peers: make([]PeerReport, 0, len(l.peers))}
	for i := range l.peers {
		p := &l.peers[i]
		if p.phase == dropped {
			continue
		}
		report := p.report
		if p.phase != concluded && p.refill == 0 { // Rule 45
			report.Status, report.Err = verdict(p)
			if p.phase == asking {
				report.Elapsed = now.Sub(p.askedAt)
			}
		}
		switch report.Status {
		case TimedOut:
			r.PeersTimedOut++
		case Failed:
			r.PeersFailed++
		}
		r.Peers = append(r.Peers, report)
	}
	r.Hits, duplicates = l.known(k, order)
	return r, duplicates
}

// release lets go of all hits: a late probe must not keep other peers' hits alive.
func (l *ledger[H, ID]) release() {
	for i := range l.peers {
		l.peers[i].hits, l.peers[i].unseen = nil, unseen[H]{}
	}
}

// addDistinct calls add for each peer once, in the order given. Rule 5.
func addDistinct(peers []PeerID, add func(PeerID)) {
	const few = 12 // so few are compared with each other faster than they are hashed
	if len(peers) <= few {
		for i, peer := range peers {
			if !slices.Contains(peers[:i], peer) {
				add(peer)
			}
		}
		return
	}
	seen := seenPool.Get().(map[PeerID]struct{})
	for _, peer := range peers {
		if _, ok := seen[peer]; !ok {
			seen[peer] = struct{}{}
			add(peer)
		}
	}
	clear(seen)
	seenPool.Put(seen)
}

// seenPool has empty maps.
var seenPool = sync.Pool{New: func() any { return make(map[PeerID]struct{}) }}
