package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/scatterknn/scatter"
)

// fakeSource is a node that asks peers of which each does as it is told.
type fakeSource struct {
	ringNow  *scatter.Ring
	members  []peerStatus
	held     int
	searcher *scatter.Searcher[scatter.Hit[string], string]
}

func (f *fakeSource) self() scatter.PeerID         { return f.members[0].name }
func (f *fakeSource) ring() *scatter.Ring          { return f.ringNow }
func (f *fakeSource) replicas() int                { return f.held }
func (f *fakeSource) peers() []peerStatus          { return f.members }
func (f *fakeSource) searcherStats() scatter.Stats { return f.searcher.Stats() }
func (f *fakeSource) storeCounts() (int64, int64)  { return 1234, 1200 }

// newFakeSource makes a Searcher over a ring. Peers answer with a hit of their own, but those with an error with that.
func newFakeSource(
	t *testing.T, m *metrics, ring *scatter.Ring, replicas int, members []peerStatus, failing map[scatter.PeerID]error,
) *fakeSource {
	t.Helper()
	probe := func(_ context.Context, peer scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
		return []scatter.Hit[string]{{ID: string(peer)}}, failing[peer]
	}
	live := make(map[scatter.PeerID]bool)
	for _, p := range members {
		live[p.name] = p.alive
	}
	s, err := scatter.NewSearcher(probe, scatter.NewCover(ring, replicas), &scatter.SearcherOptions{
		Options: scatter.Options{
			Live:  func(peer scatter.PeerID) bool { return live[peer] },
			Trace: m.trace(),
		},
		HedgeDelay: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return &fakeSource{ringNow: ring, members: members, held: replicas, searcher: s}
}

// search asks once, and keeps the ledger.
func (f *fakeSource) search(t testing.TB, l *ledgers, query string) *scatter.Response[scatter.Hit[string]] {
	r, err := f.searcher.Search(t.Context(), &scatter.Request{Table: "docs", Query: scatter.KNN{Field: "v"}, K: 10}, nil)
	if err != nil {
		t.Error(err)
		return nil
	}
	l.add(ledger{
		at: time.UnixMilli(1_700_000_000_000), query: query, elapsed: 1500 * time.Microsecond, coverage: r.Coverage,
		partial: r.Partial, hits: len(r.Hits), peers: r.Peers, missing: r.Missing,
	})
	return r
}

const quarterRing = 1 << 62

// fourPeers is a ring in quarters: a's tokens end at 0, b's at a quarterRing, and so on. Each is held twice, c is dead.
func fourPeers(t *testing.T, m *metrics, failing map[scatter.PeerID]error) *fakeSource {
	ring := scatter.NewRing(scatter.Point{Token: 0, Peer: "a"}, scatter.Point{Token: quarterRing, Peer: "b"},
		scatter.Point{Token: 2 * quarterRing, Peer: "c"}, scatter.Point{Token: 3 * quarterRing, Peer: "d"})
	return newFakeSource(t, m, ring, 2, []peerStatus{
		{name: "b", addr: "127.0.0.1:7001", http: "127.0.0.1:8001", alive: true, fresh: true},
		{name: "a", alive: true, fresh: true, documents: 77},
		{name: "c", behind: 2 * time.Second, documents: -1},
		{name: "d", alive: true, fresh: true, documents: -5},
	}, failing)
}

func getPath(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}

func getStatus(t *testing.T, h http.Handler) (s statusJSON, size int) {
	t.Helper()
	w := getPath(t, h, "/status.json")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d, %s: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	size = w.Body.Len()
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	return s, size
}

func TestLedgers(t *testing.T) {
	l := newLedgers()
	for i := 1; i <= 2*keptQueries+3; i++ {
		l.add(ledger{hits: i, partial: i%2 == 0 && i <= 100, err: map[bool]string{true: "no"}[i == 1 || i == 201]})
		want := min(i, keptQueries)
		got := l.last(1000)
		if len(got) != want {
			t.Fatalf("%d after %d", len(got), i)
		}
		for back, q := range got {
			if q.hits != i-back || q.number != i-back {
				t.Fatalf("after %d, the %dth last is %d, numbered %d", i, back, q.hits, q.number)
			}
		}
	}
	var lacking []int
	for _, q := range l.lastLacking(4) {
		lacking = append(lacking, q.hits)
	}
	if want := []int{201, 100, 98, 96}; !slices.Equal(lacking, want) {
		t.Errorf("lacked something: %v, want %v", lacking, want)
	}
	for n, want := range map[int]int{-1: 0, 0: 0, 3: 3, keptQueries: keptQueries} {
		if got := len(l.last(n)); got != want {
			t.Errorf("the last %d are %d", n, got)
		}
	}
	if got := newLedgers().last(5); got != nil {
		t.Errorf("of none: %v", got)
	}
}

// Range by range, (d, a] is held by a and b, (a, b] by b and c, and so on, so that with c dead and d failing (b, c] has
// no answer.
func TestStatusJSON(t *testing.T) {
	m, l := newMetrics(), newLedgers()
	src := fourPeers(t, m, map[scatter.PeerID]error{"d": errors.New("no index")})
	h := newStatus(src, l, m)
	src.search(t, l, "the first")
	l.add(ledger{at: time.UnixMilli(5), query: "the second", err: "no time", coverage: 1})
	s, _ := getStatus(t, h)

	if s.Self != "b" || s.Points != 4 || s.Holders != 2 || s.Live != 3 || s.Members != 4 ||
		s.Documents != 1234 || s.Indexed != 1200 || s.Stats.Queries != 1 || s.Stats.Partial != 1 {
		t.Errorf("%+v", s)
	}
	wantPeers := []peerJSON{
		{Name: "b", Addr: "127.0.0.1:7001", HTTP: "127.0.0.1:8001", Colour: 1, Alive: true, Fresh: true, Documents: 1234},
		{Name: "c", Colour: 2, Behind: 2000, Documents: -1},
		{Name: "a", Colour: 0, Alive: true, Fresh: true, Documents: 77},
		{Name: "d", Colour: 3, Alive: true, Fresh: true, Documents: -1},
	}
	if len(s.Peers) != len(wantPeers) {
		t.Fatalf("peers %+v", s.Peers)
	}
	for i, p := range s.Peers {
		if (p.P50 > 0) != (p.Name == "a" || p.Name == "b") || p.P50 > p.P95 || p.P95 > p.P99 {
			t.Errorf("latencies of %s: %v, %v, %v", p.Name, p.P50, p.P95, p.P99)
		}
		want := wantPeers[i]
		want.Share, want.P50, want.P95, want.P99 = 0.25, p.P50, p.P95, p.P99
		if p != want {
			t.Errorf("peer %+v, want %+v", p, want)
		}
	}
	wantArcs := []arcJSON{{0.75, 0.25, 2, 2}, {0, 0.25, 0, 1}, {0.25, 0.25, 1, 1}, {0.5, 0.25, 3, 2}}
	if !slices.Equal(s.Arcs, wantArcs) {
		t.Errorf("arcs %v, want %v", s.Arcs, wantArcs)
	}
	if s.Lost == nil || s.Lost.At != 1_700_000_000_000 || s.Lost.Share != 0.25 ||
		!slices.Equal(s.Lost.Gaps, [][2]float64{{0.25, 0.25}}) {
		t.Errorf("lost %+v", s.Lost)
	}

	if len(s.Queries) != 2 || len(s.Lacking) != 2 {
		t.Fatalf("%d queries, %d that lacked something", len(s.Queries), len(s.Lacking))
	}
	if q := s.Queries[0]; q.Number != 2 || q.At != 5 || q.Query != "the second" || q.Err != "no time" || q.Partial {
		t.Errorf("%+v", q)
	}
	q := s.Queries[1]
	if q.Number != 1 || q.Query != "the first" || !q.Partial || q.Coverage != 0.75 || q.Elapsed != 1.5 || q.Hits != 2 {
		t.Errorf("%+v", q)
	}
	reports := make(map[string]reportJSON)
	for _, p := range q.Peers {
		p.Elapsed = 0
		reports[p.Peer] = p
	}
	for _, want := range []reportJSON{
		{Peer: "b", Role: "Primary", Status: "Answered", Hits: 1},
		{Peer: "d", Role: "Primary", Status: "Failed", Err: "no index"},
	} {
		if reports[want.Peer] != want {
			t.Errorf("%+v, want %+v", reports[want.Peer], want)
		}
	}
	if len(q.Gaps) != 1 || q.Gaps[0].First != "4000000000000001" || q.Gaps[0].Last != "8000000000000000" ||
		q.Gaps[0].Share != 0.25 || len(q.Gaps[0].Holders) != 2 || q.Gaps[0].Holders[0].Status != "Dead" ||
		q.Gaps[0].Holders[1].Err != "no index" {
		t.Errorf("gaps %+v", q.Gaps)
	}
}

func TestStatusOfAnEmptyRing(t *testing.T) {
	m, l := newMetrics(), newLedgers()
	src := newFakeSource(t, m, scatter.NewRing(), 3, []peerStatus{{name: "a", alive: true}}, nil)
	src.search(t, l, "of nobody")
	s, _ := getStatus(t, newStatus(src, l, m))
	if s.Points != 0 || s.Holders != 0 || len(s.Arcs) > 0 || !s.Queries[0].Partial {
		t.Errorf("%+v", s)
	}
}

// Names, queries and errors of the worst kind, in a cluster of the largest.
func TestStatusJSONIsBounded(t *testing.T) {
	m, l := newMetrics(), newLedgers()
	long := strings.Repeat("<\x00\u202e&", 1000) + "\xff"
	var points []scatter.Point
	var members []peerStatus
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		name := scatter.PeerID(fmt.Sprint(i, long))
		members = append(members, peerStatus{name: name, addr: long, http: long, alive: i%3 > 0, fresh: true})
		for range 64 {
			points = append(points, scatter.Point{Token: random.Uint64(), Peer: name})
		}
	}
	failing := make(map[scatter.PeerID]error)
	for _, p := range members[:360] {
		failing[p.name] = errors.New(long)
	}
	src := newFakeSource(t, m, scatter.NewRing(points...), 2, members, failing)
	r := src.search(t, l, long)
	if len(r.Missing) < 1000 || len(r.Peers) < 200 {
		t.Fatalf("%d gaps, %d peers: not the worst", len(r.Missing), len(r.Peers))
	}
	for range keptQueries {
		l.add(ledger{query: long, err: long, partial: true, peers: r.Peers, missing: r.Missing})
	}
	s, size := getStatus(t, newStatus(src, l, m))
	if size > 3<<20 {
		t.Errorf("%d bytes", size)
	}
	if len(s.Arcs) > shownArcs || len(s.Peers) != shownPeers || len(s.Lost.Gaps) > shownMarks || s.Members != 400 {
		t.Errorf("%d arcs, %d of %d peers, %d gaps", len(s.Arcs), len(s.Peers), s.Members, len(s.Lost.Gaps))
	}
	round := 0.0
	for _, a := range s.Arcs {
		round += a[1]
	}
	if math.Abs(round-1) > 0.01 {
		t.Errorf("the arcs are %v of the ring", round)
	}
	q := s.Queries[0]
	if q.MorePeers != len(r.Peers)-shownReports || q.MoreGaps != len(r.Missing)-shownGaps {
		t.Errorf("%d peers and %d gaps more", q.MorePeers, q.MoreGaps)
	}
	if q.Peers[0].Status == "Answered" {
		t.Error("those that haven't answered don't come first")
	}
	if s.Peers[0].Name != s.Self || s.Peers[1].Alive {
		t.Errorf("first %q and %q", s.Peers[0].Name, s.Peers[1].Name)
	}
	if strings.ContainsAny(s.Peers[0].Name+q.Query+q.Err, "\x00\u202e") {
		t.Errorf("%q", s.Peers[0].Name)
	}
}

// Each arc says what the ring's walk says, on random rings with points that share tokens.
func TestRingArcs(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var points []scatter.Point
		serves := make(map[scatter.PeerID]bool)
		for i := range 1 + random.IntN(6) {
			name := scatter.PeerID('a' + rune(i))
			serves[name] = random.IntN(2) > 0
			for range 1 + random.IntN(5) {
				points = append(points, scatter.Point{Token: random.Uint64N(9) << 60, Peer: name})
			}
		}
		ring, holders := scatter.NewRing(points...), 1+random.IntN(3)
		arcs := ringArcs(ring, holders, serves)
		for eighth := range uint64(16) {
			token := eighth<<60 + 1<<59
			var want arc
			left := holders
			for _, peer := range ring.Walk(token) {
				if want.peer == "" {
					want.peer = peer
				}
				if left--; left >= 0 && serves[peer] {
					want.serving++
				}
			}
			found := 0
			for _, a := range arcs {
				if math.Mod(place(token)-a.begin+1, 1) < a.length {
					found++
					if a.peer != want.peer || a.serving != want.serving {
						t.Fatalf("%v: %x is in %+v, want %+v", points, token, a, want)
					}
				}
			}
			if found != 1 {
				t.Fatalf("%v: %x is in %d of %+v", points, token, found, arcs)
			}
		}
	}
}

func TestJoinArcs(t *testing.T) {
	arcs := []arc{
		{0, 0.5, "a", 3}, {0.5, 0.125, "b", 2}, {0.625, 0.25, "c", 3}, {0.875, 0.0625, "d", 3}, {0.9375, 0.0625, "e", 0},
	}
	for n, want := range map[int][]arc{
		5: arcs,
		4: {{0, 0.625, "a", 2}, {0.625, 0.3125, "c", 3}, {0.9375, 0.0625, "e", 0}},
		2: {{0, 0.9375, "a", 2}, {0.9375, 0.0625, "e", 0}},
		1: {{0, 1, "a", 0}},
	} {
		if got := joinArcs(arcs, n); !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
}

func TestLargest(t *testing.T) {
	var gaps []scatter.MissingRange
	for _, share := range []float64{0.1, 0.3, 0.2, 0.3, 0.1} {
		gaps = append(gaps, scatter.MissingRange{Share: share})
	}
	for n, want := range map[int][]float64{
		1: {0.3}, 3: {0.3, 0.2, 0.3}, 4: {0.1, 0.3, 0.2, 0.3}, 9: {0.1, 0.3, 0.2, 0.3, 0.1},
	} {
		var got []float64
		for _, gap := range largest(gaps, n) {
			got = append(got, gap.Share)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
}

func TestShortText(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "",
		"käse ✓":                           "käse ✓",
		"a\nb\u202ec\x00":                  "a\uFFFDb\uFFFDc\uFFFD",
		"\xff":                             "\uFFFD",
		strings.Repeat("x", shownText):     strings.Repeat("x", shownText),
		strings.Repeat("x", shownText+1):   strings.Repeat("x", shownText) + "…",
		strings.Repeat("ä", shownText/2+1): strings.Repeat("ä", shownText/2) + "…",
	} {
		if got := shortText(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// The page runs nothing but its own script and asks nobody but its server, which the policy enforces.
func TestStatusHeaders(t *testing.T) {
	m, l := newMetrics(), newLedgers()
	h := newStatus(fourPeers(t, m, nil), l, m)
	for _, path := range []string{"/", "/status.json", "/metrics", "/no/such"} {
		w := getPath(t, h, path)
		if want := map[bool]int{true: 404, false: 200}[path == "/no/such"]; w.Code != want {
			t.Errorf("%s: %d", path, w.Code)
		}
		policy := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{
			"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'", "base-uri 'none'",
			"form-action 'none'", "frame-ancestors 'none'",
		} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: no %s in %s", path, want, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/status.json", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestStatusPageKeepsItsPolicy(t *testing.T) {
	for _, tag := range []string{"<script>", "</script>", "<style>", "</style>"} {
		if n := strings.Count(statusHTML, tag); n != 1 {
			t.Errorf("%d times %s", n, tag)
		}
	}
	// Handlers and styles in attributes, markup made of text, and what is fetched from elsewhere.
	bad := regexp.MustCompile(`<(script|style) |<[^>]* (on\w+|style|src)=|innerHTML|outerHTML|insertAdjacentHTML|` +
		`document\.write|eval\(|Function\(|@import|url\([^#]`)
	if found := bad.FindString(statusHTML); found != "" {
		t.Errorf("the page has %s", found)
	}
}

func scrape(t *testing.T, h http.Handler) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(getPath(t, h, "/metrics").Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// metricValues returns the values of a family, by its labels' values.
func metricValues(f *dto.MetricFamily) map[string]float64 {
	got := make(map[string]float64)
	for _, metric := range f.GetMetric() {
		var labels []string
		for _, label := range metric.GetLabel() {
			labels = append(labels, label.GetValue())
		}
		got[strings.Join(labels, " ")] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() +
			float64(metric.GetHistogram().GetSampleCount())
	}
	return got
}

func TestMetrics(t *testing.T) {
	m, l := newMetrics(), newLedgers()
	src := fourPeers(t, m, map[scatter.PeerID]error{"d": errors.New("no index")})
	h := newStatus(src, l, m)
	probes, latencies := make(map[string]float64), make(map[string]float64)
	for range 20 {
		for _, p := range src.search(t, l, "q").Peers {
			if p.Status != scatter.NotAsked && p.Status != scatter.Dead {
				probes[fmt.Sprintf("%s %v %v", p.Peer, p.Role, p.Status)]++
			}
			if p.Status == scatter.Answered {
				latencies[string(p.Peer)]++
			}
		}
	}
	stats := src.searcher.Stats()
	if stats.Probes < 40 {
		t.Fatalf("%d probes: too few to tell", stats.Probes)
	}
	families := scrape(t, h)
	for name, want := range map[string]map[string]float64{
		"scatter_queries_total":          {"": 20},
		"scatter_queries_partial_total":  {"": 20},
		"scatter_coverage":               {"": 0.75},
		"scatter_merge_duration_seconds": {"": 20},
		"scatter_query_duration_seconds": {"": 20},
		"scatter_probes_total":           probes,
		"scatter_probe_duration_seconds": latencies,
		"scatter_documents":              {"": 1234},
		"scatter_documents_indexed":      {"": 1200},
		"scatter_hedge_purse":            {"": stats.HedgePurse},
		"scatter_fallback_purse":         {"": stats.FallbackPurse},
		"scatter_query_errors_total":     {"": 0},
		"scatter_queries_shared_total":   {"": 0},
		"scatter_fallbacks_total":        {"": float64(stats.Fallbacks)},
		"scatter_hedges_total":           {"": 0},
		"scatter_hedges_won_total":       {"": 0},
		"scatter_peers":                  {"": 4},
		"scatter_peers_live":             {"": 3},
		"scatter_peer_up":                {"a": 1, "b": 1, "c": 0, "d": 1},
		"scatter_peer_behind_seconds":    {"a": 0, "b": 0, "c": 2, "d": 0},
	} {
		if got := metricValues(families[name]); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := metricValues(families["go_goroutines"])[""]; got < 1 {
		t.Errorf("%v goroutines", got)
	}

	// What real queries don't bring here.
	trace := m.trace()
	trace.LateReply(t.Context(), scatter.LateReplyInfo{Peer: "a\xff"})
	spare := scatter.PeerReport{Peer: "a", Role: scatter.Hedge, Status: scatter.NotNeeded}
	trace.ProbeDone(t.Context(), scatter.ProbeDoneInfo{PeerReport: spare})
	families = scrape(t, h)
	if got := metricValues(families["scatter_late_replies_total"])["a\uFFFD"]; got != 1 {
		t.Errorf("%v late replies", got)
	}
	if got := metricValues(families["scatter_probes_total"])["a Hedge NotNeeded"]; got != 1 {
		t.Errorf("%v probes that were not needed", got)
	}
}

// Two members that Prometheus can't tell apart cost one of them, not all the metrics.
func TestMetricsOfAlikeNames(t *testing.T) {
	m, l := newMetrics(), newLedgers()
	members := []peerStatus{{name: "a\xff", alive: true}, {name: "a\xfe", alive: true}}
	src := newFakeSource(t, m, scatter.NewRing(), 1, members, nil)
	families := scrape(t, newStatus(src, l, m))
	if got := metricValues(families["scatter_peers"])[""]; got != 2 {
		t.Errorf("%v peers", got)
	}
	if got := metricValues(families["scatter_peer_up"]); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestTraceAllocatesNothing(t *testing.T) {
	trace := newMetrics().trace()
	answered := scatter.PeerReport{Peer: "a", Status: scatter.Answered, Elapsed: time.Millisecond}
	allocs := testing.AllocsPerRun(100, func() {
		trace.QueryStarted(t.Context(), scatter.QueryInfo{})
		trace.ProbeDone(t.Context(), scatter.ProbeDoneInfo{PeerReport: answered})
		trace.QueryDone(t.Context(), scatter.QueryDoneInfo{Partial: true, Coverage: 0.5})
		trace.LateReply(t.Context(), scatter.LateReplyInfo{Peer: "a"})
	})
	if allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// For the race detector; and no count is lost.
func TestStatusUnderLoad(t *testing.T) {
	m, l := newMetrics(), newLedgers()
	src := fourPeers(t, m, map[scatter.PeerID]error{"d": scatter.ErrPartial})
	h := newStatus(src, l, m)
	const routines, each = 8, 50
	var wg sync.WaitGroup
	for range routines {
		wg.Go(func() {
			for range each {
				src.search(t, l, "q")
			}
		})
	}
	for range 20 {
		if s, _ := getStatus(t, h); len(s.Queries) > shownQueries {
			t.Errorf("%d queries", len(s.Queries))
		}
		scrape(t, h)
		l.last(keptQueries)
	}
	wg.Wait()
	if got := metricValues(scrape(t, h)["scatter_queries_total"])[""]; got != routines*each {
		t.Errorf("%v queries", got)
	}
	if s, _ := getStatus(t, h); s.Queries[0].Number != routines*each {
		t.Errorf("the last is number %d", s.Queries[0].Number)
	}
}

// The page in a browser: it draws what status.json has, and what looks like markup there is text.
func TestStatusPageInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes a while")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("SCATTER_NO_SKIP") != "" {
			t.Fatal(err)
		}
		t.Skip(err, "(apt-get install chromium)")
	}
	m, l := newMetrics(), newLedgers()
	src := fourPeers(t, m, map[scatter.PeerID]error{"d": errors.New("<b>no index</b>")})
	src.members[1].http = "127.0.0.1:80@evil:80" // no address to link to
	src.members[2].name = "<i>c</i>"
	src.members[3].http = "127.0.0.1:8003"
	src.search(t, l, `</script><script>document.title='run'</script>`)
	server := httptest.NewServer(newStatus(src, l, m))
	defer server.Close()

	profile, err := os.MkdirTemp("", "kvproxy-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(profile) // not t.TempDir: the browser's processes may write a moment longer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-dev-shm-usage", "--user-data-dir="+profile, "--virtual-time-budget=1500", "--dump-dom", server.URL)
	var complaints bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &complaints, 10*time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &complaints)
	}
	page, _, _ := strings.Cut(string(out), "<script>")
	for _, want := range []string{
		"<title>kvproxy b</title>", "Connected", "3 of 4", "1,234", "✗ dead", "&lt;i&gt;c&lt;/i&gt;",
		"&lt;/script&gt;&lt;script&gt;document.title='run'&lt;/script&gt;", "&lt;b&gt;no index&lt;/b&gt;",
		"PARTIAL 75.0 %", "4000000000000001–8000000000000000", "25.0 % of the ring", `class="lost"`, "Outside: ",
		`href="http://127.0.0.1:8003/"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	for _, bad := range []string{"<i>c", "<b>no", "evil"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}
