package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blevesearch/bleve/v2"
	"github.com/blevesearch/bleve/v2/search"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
	"github.com/scatterknn/scatter/examples/internal/demotest"
)

const (
	shardCount = 4
	all        = 10_000 // more hits than there are documents
	forever    = -1     // as a PeerDeadline: only the query's context bounds it
)

// newTestShards returns shards of documents that they hold until the test ends.
func newTestShards(t *testing.T, symbols []corpus.Symbol) *shards {
	t.Helper()
	s, err := newShards(shardCount, symbols)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// realShards returns shards of a few packages of the standard library.
func realShards(t *testing.T) *shards {
	t.Helper()
	symbols, err := corpus.Read(t.Context(), demotest.SmallGoRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	return newTestShards(t, symbols)
}

// tiedShards returns shards with five documents each that all have the same score.
func tiedShards(t *testing.T) *shards {
	t.Helper()
	var symbols []corpus.Symbol
	var counts [shardCount]int
	for i := 0; len(symbols) < 5*shardCount; i++ {
		id := fmt.Sprint("doc", i)
		if shard := scatter.HashToken(id) % shardCount; counts[shard] < 5 {
			counts[shard]++
			symbols = append(symbols, corpus.Symbol{ID: id, Summary: "zip", Doc: "zip archive"})
		}
	}
	return newTestShards(t, symbols)
}

// oracle returns the IDs of all hits, best first: a merge of what some shards return when each is
// asked alone, in Bleve's own order, for everything.
func (s *shards) oracle(t *testing.T, words string, peers ...scatter.PeerID) []string {
	t.Helper()
	var lists [][]scatter.Hit[string]
	for _, peer := range peers {
		result, err := s.indexes[peer].Search(bleve.NewSearchRequestOptions(bleve.NewMatchQuery(words), all, 0, false))
		if err != nil {
			t.Fatal(err)
		}
		var list []scatter.Hit[string]
		for _, hit := range result.Hits {
			list = append(list, scatter.Hit[string]{ID: hit.ID, Score: float32(hit.Score)})
		}
		lists = append(lists, list)
	}
	var ids []string
	for _, hit := range scatter.Merge(lists, all, scatter.ScoreDescending) {
		ids = append(ids, hit.ID)
	}
	if len(ids) < len(peers) {
		t.Fatalf("%q finds %q, want a query that finds more", words, ids)
	}
	return ids
}

// alias searches the same shards by an IndexAlias.
func (s *shards) alias(
	ctx context.Context, words string, from, size int, sort ...string,
) ([]string, *bleve.SearchResult, error) {
	var indexes []bleve.Index
	for _, peer := range s.peers {
		indexes = append(indexes, s.indexes[peer])
	}
	request := bleve.NewSearchRequestOptions(bleve.NewMatchQuery(words), size, from, false)
	if sort != nil {
		request.SortBy(sort)
	}
	result, err := bleve.MultiSearch(ctx, request, nil, indexes...)
	var ids []string
	if result != nil {
		for _, hit := range result.Hits {
			ids = append(ids, hit.ID)
		}
	}
	return ids, result, err
}

// pages returns the IDs of a walk through all pages of a size.
func (s *shards) pages(t *testing.T, words string, page int) []string {
	t.Helper()
	var ids []string
	err := s.walk(t.Context(), words, all, page, forever, func(first int, certain []found, _ *scatter.Response[found]) {
		if first != len(ids) {
			t.Errorf("a page begins at %d, want %d", first, len(ids))
		}
		ids = append(ids, idsOf(certain)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func idsOf(hits []found) []string {
	ids := make([]string, len(hits))
	for i, hit := range hits {
		ids[i] = hit.ID
	}
	return ids
}

// aliasSorts are an alias's default, and the sort that it needs so that equal scores have an order.
var aliasSorts = [][]string{nil, {"-_score", "_id"}}

// Rule 1: equal scores are ordered by ID, so that a query always has the same answer.
func TestOneOrder(t *testing.T) {
	const words, k, runs = "read a zip archive", 6, 100
	for name, s := range map[string]*shards{"real": realShards(t), "tied": tiedShards(t)} {
		want := s.oracle(t, words, s.peers...)
		for range runs {
			resp, err := s.search(t.Context(), &scatter.Request{Query: match(words), K: k}, forever)
			if err != nil {
				t.Fatal(err)
			}
			if got := idsOf(resp.Hits); !slices.Equal(got, want[:k]) || resp.Partial || resp.Exact != k {
				t.Fatalf("%s: %q, partial %v, exact %d; want %q", name, got, resp.Partial, resp.Exact, want[:k])
			}
			for _, p := range resp.Peers {
				if p.Unsorted {
					t.Fatalf("%s: %+v, want a shard to rank as scatter does", name, p)
				}
			}
		}
		for _, sort := range aliasSorts {
			orders := make(map[string]bool)
			for range runs {
				ids, _, err := s.alias(t.Context(), words, 0, k, sort...)
				if err != nil {
					t.Fatal(err)
				}
				orders[strings.Join(ids, " ")] = true
			}
			t.Logf("%s: an alias sorted by %q gave %d orders in %d runs", name, sort, len(orders), runs)
		}
	}
}

// Rule 46: pages of any size are one long answer.
func TestPages(t *testing.T) {
	for name, s := range map[string]*shards{"real": realShards(t), "tied": tiedShards(t)} {
		for _, words := range []string{"zip", "archive of strings"} {
			want := s.oracle(t, words, s.peers...)
			for _, page := range []int{1, 2, 5, 7, len(want), all} {
				if page == 1 && len(want) > 100 {
					continue // too many searches
				}
				if got := s.pages(t, words, page); !slices.Equal(got, want) {
					t.Errorf("%s: %q in pages of %d: got %q, want %q", name, words, page, got, want)
				}
			}
		}
		const walks, page = 100, 5
		want := s.oracle(t, "zip", s.peers...)
		for _, sort := range aliasSorts {
			lost := 0
			for range walks {
				seen := make(map[string]bool)
				for from := 0; from < len(want); from += page {
					ids, _, err := s.alias(t.Context(), "zip", from, page, sort...)
					if err != nil {
						t.Fatal(err)
					}
					for _, id := range ids {
						seen[id] = true
					}
				}
				if len(seen) < len(want) {
					lost++
				}
			}
			t.Logf("%s: an alias sorted by %q lost documents in %d of %d walks", name, sort, lost, walks)
		}
	}
}

// A page begins after a score and an ID that a shard needn't hold itself, and whose neighbours
// differ by less than a float32 can tell.
func TestSortKey(t *testing.T) {
	key := func(score float64) string { return (&byScore{}).Value(&search.DocumentMatch{Score: score}) }
	if a, b := key(0.7), key(math.Nextafter(0.7, 1)); a != b {
		t.Errorf("keys of scores that are equal as float32: %q and %q, want them equal", a, b)
	}
	scores := []float64{0, 1e-9, 0.1, 0.5, 0.51, 1, 1.5, 2, 1000, math.MaxFloat32}
	for i := range scores[1:] {
		if a, b := key(scores[i]), key(scores[i+1]); a >= b || a != sortKey(float32(scores[i])) {
			t.Errorf("keys of %v and %v: %q and %q, want the first to be less", scores[i], scores[i+1], a, b)
		}
	}
}

// spoiled searches with shard 2 spoilt, and checks that its hits, and no others, are missing. It
// returns the shard's line in the ledger.
func spoiled(t *testing.T, s *shards, fault func() error, deadline time.Duration) scatter.PeerReport {
	t.Helper()
	const words = "zip"
	want := s.oracle(t, words, s.peers[0], s.peers[2], s.peers[3])
	if err := s.spoil(2, fault); err != nil {
		t.Fatal(err)
	}
	resp, err := s.search(t.Context(), &scatter.Request{Query: match(words), K: all}, deadline)
	if err != nil {
		t.Fatal(err)
	}
	got := idsOf(resp.Hits)
	if !slices.Equal(got, want) || !resp.Partial || resp.Coverage != 0.75 || resp.Exact != len(want) {
		t.Errorf("%q, partial %v, coverage %v, exact %d; want %q",
			got, resp.Partial, resp.Coverage, resp.Exact, want)
	}
	return resp.Peers[1]
}

// Rule 6: a shard that ignores its deadline delays nobody. An alias waits for it.
func TestSlowShard(t *testing.T) {
	s := realShards(t)
	synctest.Test(t, func(t *testing.T) {
		const deadline, late = 50 * time.Millisecond, time.Hour
		start := time.Now()
		report := spoiled(t, s, func() error { time.Sleep(late); return nil }, deadline)
		if took := time.Since(start); took != deadline || report.Status != scatter.TimedOut {
			t.Errorf("after %v: %+v; want TimedOut after %v", took, report, deadline)
		}

		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		start = time.Now()
		if _, _, err := s.alias(ctx, "zip", 0, all); err != nil || time.Since(start) != late {
			t.Errorf("alias: %v after %v; this test expects an answer after %v", err, time.Since(start), late)
		}
	})
}

// Rule 12: a panic is an error of its shard. With an alias it ends the process.
func TestPanickingShard(t *testing.T) {
	s := realShards(t)
	panics := func() error { panic("shard 2") }
	if os.Getenv("BLEVE_TEST_ALIAS") != "" { // We are the process below.
		if err := s.spoil(2, panics); err != nil {
			t.Fatal(err)
		}
		s.alias(t.Context(), "zip", 0, all)
		return
	}
	report := spoiled(t, s, panics, forever)
	p, ok := errors.AsType[*scatter.PanicError](report.Err)
	if report.Status != scatter.Failed || !ok || p.Value != "shard 2" {
		t.Errorf("%+v, want Failed with the panic", report)
	}

	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPanickingShard$")
	cmd.Env = append(os.Environ(), "BLEVE_TEST_ALIAS=1")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "panic: shard 2") {
		t.Errorf("alias: %v, this test expects that the process ends by the panic:\n%s", err, out)
	}
}

// Rule 7: a shard that fails costs its own hits. If all fail, that is an error, and with an alias
// it is an empty answer without one.
func TestFailingShards(t *testing.T) {
	s := realShards(t)
	broken := errors.New("broken")
	fails := func() error { return broken }
	if report := spoiled(t, s, fails, forever); report.Status != scatter.Failed || !errors.Is(report.Err, broken) {
		t.Errorf("%+v, want Failed with the shard's error", report)
	}
	for i := range s.peers {
		if err := s.spoil(i+1, fails); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := s.search(t.Context(), &scatter.Request{Query: match("zip"), K: 5}, forever)
	if _, ok := errors.AsType[*scatter.CoverageError[found]](err); !ok || !resp.Partial || resp.PeersFailed != shardCount {
		t.Errorf("all shards fail: %+v, %v; want a CoverageError with a Response", resp, err)
	}
	_, result, err := s.alias(t.Context(), "zip", 0, 5)
	if err != nil || len(result.Hits) > 0 || result.Status.Failed != shardCount {
		t.Errorf("alias: %+v, %v; this test expects no hits and no error", result, err)
	}
}

func TestRun(t *testing.T) {
	root := demotest.SmallGoRoot(t)
	tests := []struct {
		args string
		want []string // in this order
		fail string
	}{
		{"-k 3", []string{"  1  ", "archive/zip.Reader", "  3  ", "partial false, coverage 100 %, exact up to rank 3"}, ""},
		{"-k 3 -page 2", []string{"  2  ", "rank 2,", "  3  ", "rank 3,"}, ""},
		{"-fail 2", []string{"partial true, coverage 75 %", "shard2  Failed: told to fail"}, ""},
		{"-panic 2", []string{"partial true", "shard2  Failed: scatter: panic: told to panic"}, ""},
		{"-shards 1 -fail 1", []string{"coverage 0 %"}, "coverage is 0"},
		{"-fail 5", nil, "there is no shard 5, want 1 to 4"},
		{"-shards 0", nil, "see -h"},
	}
	for _, tt := range tests {
		var out strings.Builder
		args := append(strings.Fields(tt.args), "-deadline", "1h", "-goroot", root, "read a zip archive")
		err := run(t.Context(), args, &out)
		if (err == nil) != (tt.fail == "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
			t.Errorf("%s: %v, want an error with %q", tt.args, err, tt.fail)
		}
		rest := out.String()
		for _, want := range tt.want {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("%s: printed\n%swithout %q, or in another order", tt.args, &out, want)
				break
			}
			rest = after
		}
	}
}

// The deadline grows until the other shards meet it, so that this doesn't depend on the machine's
// speed.
func TestRunSlow(t *testing.T) {
	root := demotest.SmallGoRoot(t)
	for deadline := 50 * time.Millisecond; ; deadline *= 2 {
		var out strings.Builder
		run(t.Context(), []string{"-slow", "2", "-deadline", deadline.String(), "-goroot", root, "zip"}, &out)
		if !strings.Contains(out.String(), "shard2  TimedOut: scatter: no reply within "+deadline.String()) {
			t.Fatalf("printed\n%swithout shard 2 as TimedOut", &out)
		}
		if strings.Contains(out.String(), "partial true, coverage 75 %") {
			return
		}
	}
}
