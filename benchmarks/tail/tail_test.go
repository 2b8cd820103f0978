package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scatterknn/scatter"
)

const testSeed = 1

// The figure of the article: 63 % of the queries that wait for 100 servers take more than a second.
func TestDeanAndBarroso(t *testing.T) {
	c := newCluster(setting{models[0], 100, 1, 1}, testSeed)
	ways, err := strategies(c, unasked)
	if err != nil {
		t.Fatal(err)
	}
	const queries = 3000
	slow := 0.0
	for i := range queries {
		resp, _, err := c.ask(ways[0].searcher, epoch, c.latencies(i))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Elapsed > time.Second {
			slow++
		}
	}
	if got, want := slow/queries, 1-math.Pow(0.99, 100); math.Abs(got-want) > 0.02 {
		t.Errorf("%.3f of the queries take more than a second, want about %.3f", got, want)
	}
}

func TestTableOneLeaf(t *testing.T) {
	c := newCluster(setting{models[1], 1000, 1, 1}, testSeed)
	var all []time.Duration
	for i := range 100 {
		all = append(all, c.latencies(i)...)
	}
	slices.Sort(all)
	for _, tt := range []struct{ quantile, want float64 }{{0.5, 1}, {0.95, 5}} { // at 0.99 the slow replies show
		if got := ms(percentile(all, tt.quantile)); got < 0.95*tt.want || got > 1.2*tt.want {
			t.Errorf("quantile %v of a peer is %.2f ms, want about %v", tt.quantile, got, tt.want)
		}
	}
}

// What hedging is for: a tenth of the tail at most, for at most 5 % more probes.
func TestHedgesCutTheTail(t *testing.T) {
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			results, err := simulate(newCluster(setting{m, 100, 3, 1}, testSeed), 2000)
			if err != nil {
				t.Fatal(err)
			}
			all, unhedged, hedged := results[0], results[2], results[4]
			if hedged.partial() > 0 {
				t.Errorf("%v of the answers are partial, want none", hedged.partial())
			}
			got, want := percentile(hedged.whole, 0.99), percentile(all.whole, 0.99)/10
			if got > want {
				t.Errorf("p99 with hedges is %v, want at most %v, a tenth of waiting for all", got, want)
			}
			if got, want := hedged.probes, 1.06*unhedged.probes; got > want {
				t.Errorf("with hedges, a query takes %v probes, want at most %v", got, want)
			}
		})
	}
}

// simulate has the oracle check each answer.
func TestCoverageIsWhatTheOracleSays(t *testing.T) {
	partial := 0.0
	for _, m := range models {
		for _, s := range []setting{{m, 10, 1, 16}, {m, 10, 3, 1}, {m, 100, 1, 1}, {m, 100, 2, 16}, {m, 100, 3, 16}} {
			results, err := simulate(newCluster(s, testSeed), 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				partial += r.partial()
			}
		}
	}
	if partial == 0 {
		t.Error("all answers are whole, so the oracle had nothing to say")
	}
}

func TestOracleSeesOverstatement(t *testing.T) {
	c := newCluster(setting{models[0], 10, 2, 1}, testSeed)
	ways, err := strategies(c, unasked)
	if err != nil {
		t.Fatal(err)
	}
	resp, _, err := c.ask(ways[0].searcher, epoch, c.latencies(0))
	if err != nil {
		t.Fatal(err)
	}
	wantOverstatementSeen(t, c.oracle, resp, 3, 4)
}

func TestGroupOracleSeesOverstatement(t *testing.T) {
	groups := slices.Collect(slices.Chunk(somePeers(20), 2))
	resp := &scatter.Response[hit]{Coverage: 1}
	for _, group := range groups {
		for _, peer := range group {
			resp.Peers = append(resp.Peers, scatter.PeerReport{Peer: peer, Status: scatter.Answered})
		}
	}
	wantOverstatementSeen(t, newGroupOracle(groups), resp, 4, 5)
}

// wantOverstatementSeen takes away the answers of two peers that together hold a tenth alone.
func wantOverstatementSeen(t *testing.T, o *oracle, resp *scatter.Response[hit], first, second int) {
	t.Helper()
	if err := o.check(resp); err != nil {
		t.Error(err)
	}
	resp.Peers[first].Status = scatter.TimedOut // its replica has answered
	if err := o.check(resp); err != nil {
		t.Error(err)
	}
	resp.Peers[second].Status = scatter.TimedOut // now a tenth is missing
	if o.check(resp) == nil {
		t.Error("coverage 1 passes for an answer that lacks a range")
	}
	resp.Coverage, resp.Partial = 0.9, true
	if err := o.check(resp); err != nil {
		t.Error(err)
	}
}

func TestSameSeedSameFigures(t *testing.T) {
	s := setting{models[1], 100, 3, 16}
	first, err1 := simulate(newCluster(s, testSeed), 100)
	second, err2 := simulate(newCluster(s, testSeed), 100)
	other, err3 := simulate(newCluster(s, testSeed+1), 100)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first, second) {
		t.Error("the same seed gives other figures")
	}
	if reflect.DeepEqual(first, other) {
		t.Error("another seed gives the same figures")
	}
}

// The simulation is as good as Search with its goroutines and timers: the same latencies give the
// same Response, to the nanosecond, in every line of the ledger, whatever was learned before.
func TestSearchDoesTheSame(t *testing.T) { synctest.Test(t, testSearchDoesTheSame) }

func testSearchDoesTheSame(t *testing.T) {
	for _, m := range models {
		c := newCluster(setting{m, 100, 3, 1}, testSeed)
		var latencies []time.Duration
		probe := func(ctx context.Context, peer scatter.PeerID, _ *scatter.Request) ([]hit, error) {
			select {
			case <-time.After(latencies[c.index[peer]]):
				return nil, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		simulated, err := strategies(c, unasked)
		if err != nil {
			t.Fatal(err)
		}
		threaded, err := strategies(c, probe)
		if err != nil {
			t.Fatal(err)
		}
		for j := range simulated {
			now := time.Now()
			for i := range 100 {
				latencies = c.latencies(i)
				want, err := threaded[j].searcher.Search(t.Context(), request, nil)
				if err != nil {
					t.Fatal(err)
				}
				var got *scatter.Response[hit]
				if got, now, err = c.ask(simulated[j].searcher, now, latencies); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("%s, %s, query %d:\nsimulated %+v\nSearch %+v", m.name, simulated[j].name, i, got, want)
				}
				synctest.Wait()
			}
			if err := threaded[j].searcher.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPercentile(t *testing.T) {
	values := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for _, tt := range []struct {
		share float64
		want  time.Duration
	}{{0, 1}, {0.1, 1}, {0.5, 5}, {0.51, 6}, {0.99, 10}, {1, 10}} {
		if got := percentile(values, tt.share); got != tt.want {
			t.Errorf("percentile(%v) = %v, want %v", tt.share, got, tt.want)
		}
	}
}

func TestChartIsXML(t *testing.T) {
	c := newCluster(setting{models[0], 10, 3, 1}, testSeed)
	results, err := simulate(c, 100)
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(slowChart([]panel{{"a & b", results}, {"c", results}})))
	lines := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "path" {
			for _, a := range start.Attr {
				if a.Name.Local == "class" && a.Value == "line" {
					lines++
				}
			}
		}
	}
	if want := 3 * len(results); lines != want { // in each panel, and in the legend
		t.Errorf("%d lines, want %d", lines, want)
	}
}
