package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
)

func TestPrint(t *testing.T) {
	var out strings.Builder
	Print(&out, &scatter.Response[scatter.Hit[string]]{
		Hits:     []scatter.Hit[string]{{ID: "Paris"}, {ID: "Lille", Score: 203.4}},
		Peers:    []scatter.PeerReport{{Peer: "a", Hits: 2, Status: scatter.Answered}, {Peer: "b", Err: scatter.ErrEnough}},
		Coverage: 0.5, Exact: 2, Elapsed: 12 * time.Millisecond,
	}, "%8.1f km")
	want := ` 1  Paris                 0.0 km
 2  Lille               203.4 km
coverage 50 %, exact up to rank 2, after 12ms
a  Answered, 2 hits, error: <nil>
b  NotAsked, 0 hits, error: scatter: the answer is complete enough without it
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
