package main

import (
	"fmt"
	"math"
	"math/big"

	"github.com/scatterknn/scatter"
)

// oracle knows which peer holds which range, and works out the slow, obvious way what an answer
// covers. It shares nothing with the library but the Ring.
type oracle struct {
	widths  []*big.Int // by range: how many tokens are in it
	holders [][]scatter.PeerID
}

var space = new(big.Int).Lsh(big.NewInt(1), 64)

func newRingOracle(ring *scatter.Ring, replicas int) *oracle {
	o := &oracle{}
	before := ring.Point(ring.Len() - 1).Token
	for slot := range ring.Len() {
		token := ring.Point(slot).Token
		var holders []scatter.PeerID
		for _, peer := range ring.Walk(token) {
			if len(holders) == replicas {
				break
			}
			holders = append(holders, peer)
		}
		o.widths = append(o.widths, new(big.Int).SetUint64(token-before)) // past zero it wraps, as the ring does
		o.holders = append(o.holders, holders)
		before = token
	}
	return o
}

// newGroupOracle is for groups of peers with an equal share of the tokens each, but for what
// can't be divided.
func newGroupOracle(groups [][]scatter.PeerID) *oracle {
	o := &oracle{holders: groups}
	n := big.NewInt(int64(len(groups)))
	first := func(i int) *big.Int { // the smallest token t with t n / 2^64 at least i
		t := new(big.Int).Mul(space, big.NewInt(int64(i)))
		t.Add(t, n).Sub(t, big.NewInt(1))
		return t.Div(t, n)
	}
	for i := range groups {
		o.widths = append(o.widths, new(big.Int).Sub(first(i+1), first(i)))
	}
	return o
}

// coverage is the share of the token space of which a holder has answered.
func (o *oracle) coverage(resp *scatter.Response[hit]) float64 {
	answered := make(map[scatter.PeerID]bool, len(resp.Peers))
	for _, report := range resp.Peers {
		answered[report.Peer] = answered[report.Peer] || report.Status == scatter.Answered
	}
	open := new(big.Int)
	for slot, holders := range o.holders {
		covered := false
		for _, peer := range holders {
			covered = covered || answered[peer]
		}
		if !covered {
			open.Add(open, o.widths[slot])
		}
	}
	if open.Sign() == 0 {
		return 1
	}
	share, _ := new(big.Rat).SetFrac(open.Sub(space, open), space).Float64()
	return share
}

// check returns an error unless the answer covers just what it says it does.
func (o *oracle) check(resp *scatter.Response[hit]) error {
	want := o.coverage(resp)
	if math.Abs(resp.Coverage-want) > 1e-15 || (resp.Coverage == 1) != (want == 1) || resp.Partial != (want < 1) {
		return fmt.Errorf("the answer says Coverage %v, Partial %v, but the peers that answered hold %v",
			resp.Coverage, resp.Partial, want)
	}
	return nil
}
