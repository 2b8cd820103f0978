package scatter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Rule 5: each peer once, in the order given, for few names and for many.
func TestAddDistinct(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 60 {
		var peers, want []PeerID
		for range n {
			peers = append(peers, PeerID(fmt.Sprint(r.IntN(1+n/2))))
		}
		for _, peer := range peers {
			if !slices.Contains(want, peer) {
				want = append(want, peer)
			}
		}
		for range 2 { // the second time with a map that was used
			var got []PeerID
			addDistinct(peers, func(peer PeerID) { got = append(got, peer) })
			require.Equal(t, want, got)
		}
	}
}

func newTestLedger(peers ...PeerID) *ledger[Hit[string], string] {
	l := new(ledger[Hit[string], string])
	for i, peer := range peers {
		l.add(peer, int32(i), Primary, false)
	}
	return l
}

// Peers take their turns in order. Those that were given up on before their turn, and those that
// are dead, have none.
func TestLedgerTurns(t *testing.T) {
	now := time.Unix(1, 0)
	l := newTestLedger("a", "b", "c")
	l.add("dead", 3, Primary, true)
	l.add("d", -1, Fallback, false)
	require.Equal(t, []int{4, 1}, []int{l.waiting, l.foreign})
	l.conclude(1, NotAsked, ErrEnough, now)
	var turns []PeerID
	for l.waiting > 0 {
		i := l.head()
		turns = append(turns, l.peers[i].report.Peer)
		l.begin(i, context.Background(), now)
	}
	require.Equal(t, []PeerID{"a", "c", "d"}, turns)
	require.Equal(t, []int{3, 3, 0}, []int{l.inFlight, l.asked, l.answered})
	l.conclude(4, Answered, nil, now.Add(time.Second))
	l.conclude(0, Failed, errBroke, now.Add(-time.Second))
	require.Equal(t, []int{1, 3, 1, 0}, []int{l.inFlight, l.asked, l.answered, l.foreign})
	require.Equal(t, time.Second, l.peers[4].report.Elapsed)
	require.Zero(t, l.peers[0].report.Elapsed, "a reply that came at once may seem older than its probe")
}

// A Response in the middle of a query gives a verdict on the peers that are out, and leaves them as
// they are. A standby that was dropped before its turn has no line.
func TestLedgerResponse(t *testing.T) {
	now := time.Unix(1, 0)
	l := newTestLedger("a", "b", "c", "d", "e")
	for i := range 4 {
		l.begin(i, context.Background(), now)
	}
	l.peers[2].hits = hitList{{"x", 1}, {"y", 2}}
	l.conclude(2, Answered, nil, now)
	l.peers[1].hits = hitList{{"x", 1}, {"z", 3}}
	l.conclude(1, Incomplete, ErrPartial, now)
	l.conclude(3, TimedOut, context.DeadlineExceeded, now.Add(time.Second))
	l.add("f", 5, Hedge, false)
	l.drop(5)
	before := slices.Clone(l.peers)
	verdict := func(p *peer[Hit[string]]) (Status, error) { return Failed, errBroke }
	r, duplicates := l.response(9, ScoreAscending, now.Add(2*time.Second), verdict)
	require.Equal(t, "a:Failed b:Incomplete c:Answered d:TimedOut e:Failed", summary(r))
	require.Equal(t, "x y z", ids(r.Hits))
	require.Equal(t, 1, duplicates)
	require.Equal(t, []int{4, 1, 2}, []int{r.PeersConsulted, r.PeersTimedOut, r.PeersFailed})
	require.Equal(t, 2*time.Second, r.Peers[0].Elapsed)
	require.Zero(t, r.Peers[4].Elapsed)
	require.Equal(t, before, l.peers)
	l.release()
	for i := range l.peers {
		require.Nil(t, l.peers[i].hits)
	}
}
