package scatter

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sync/atomic"
)

// Stream is [Broadcast] that gives hits as soon as they are certain. The query begins when the
// sequence is ranged over, which can be done once; a second time it is empty. A hit comes once no
// peer that is still out can precede it, and is never taken back. Together the hits are
// Response.Hits.
//
// What a peer that is out can still give is known by Options.Bound. Without bounds, all hits come
// at the end. If a peer breaks its bound ([ErrBound]), hits of its that rank before others that
// came already come at the end.
//
// To leave the loop early ends the query: the peers that are out are [NotNeeded], and no goroutine
// is left but for those of probes that ignore their contexts. The query runs on the goroutine that
// ranges over the sequence, and waits while the loop's body runs.
//
// The second function returns what Broadcast would return. Before the loop has ended it returns nil
// twice. An error of the arguments is returned by it too, after an empty loop.
func Stream[H Ranked[ID], ID cmp.Ordered](
	ctx context.Context, req *Request, peers []PeerID, probe Probe[H], opts *Options,
) (iter.Seq[H], func() (*Response[H], error)) {
	var begun atomic.Bool
	var resp *Response[H]
	var err error
	peers = slices.Clone(peers) // they are read later
	hits := func(yield func(H) bool) {
		if !begun.CompareAndSwap(false, true) {
			return
		}
		b := &broadcast[H, ID]{probe: probe}
		s := &stream[H, ID]{broadcast: b, yield: yield}
		b.progress = s.advance
		r, failure := b.start(ctx, req, peers, opts)
		if r != nil {
			s.finish(r.Hits)
		}
		resp, err = r, failure
	}
	return hits, func() (*Response[H], error) { return resp, err }
}

// stream gives a query's hits as soon as they are certain.
type stream[H Ranked[ID], ID cmp.Ordered] struct {
	broadcast *broadcast[H, ID]
	yield     func(H) bool
	given     []H
	broken    bool // the loop was left
}

// advance gives the hits that have become certain. Rule 48.
func (s *stream[H, ID]) advance() {
	b := s.broadcast
	if b.machine.Stopped() || b.ledger.inFlight+b.ledger.waiting == 0 || b.opts.Bound == nil && !b.refills {
		return // all the others come at the end
	}
	known, _ := b.ledger.known(b.want.k, b.want.order)
	certain := b.ledger.certain(known, &b.want)
	for len(s.given) < certain {
		if !s.give(known[len(s.given)]) {
			return
		}
	}
}

// give gives a hit while peers are out. If the loop is left then, by a panic of its body too, the
// query ends.
func (s *stream[H, ID]) give(h H) bool {
	s.given = append(s.given, h)
	s.broken = true
	defer func() {
		if s.broken {
			s.broadcast.step(s.broadcast.now(), event{kind: stop})
		}
	}()
	s.broken = !s.yield(h)
	return !s.broken
}

// finish gives the other hits of the answer.
func (s *stream[H, ID]) finish(hits []H) {
	given := make(map[ID]bool, len(s.given))
	for _, h := range s.given {
		given[h.hit().ID] = true
	}
	for _, h := range hits {
		if s.broken {
			return
		}
		if !given[h.hit().ID] && !s.yield(h) {
			return
		}
	}
}

// certain returns how many of the leading known hits no hit can precede that isn't known yet: of a
// peer that waits or is out, by its bound, or that a peer has not given yet.
func (l *ledger[H, ID]) certain(known []H, want *wanted[ID]) int {
	n := len(known)
	for i := range l.peers {
		p := &l.peers[i]
		switch {
		case p.refill == 0 && (p.phase == waiting || p.phase == asking):
			if !p.bounded {
				return 0
			}
			n = min(n, countBefore(known, p.bound, want.order))
		case p.unseen.vague:
			return 0
		case p.report.Status == Answered && p.unseen.more:
			n = min(n, countUpTo(known, p.unseen.last.hit(), want.order))
		}
	}
	return n
}
