package main

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/scatterknn/scatter"
)

// ledger is what is kept of one query. Nobody may write to what it points to.
type ledger struct {
	at       time.Time
	query    string // for people to read
	elapsed  time.Duration
	coverage float64
	partial  bool
	hits     int
	err      string
	peers    []scatter.PeerReport
	missing  []scatter.MissingRange

	number int // by which the page knows it again; given by add
}

const (
	keptQueries = 128
	keptLacking = 16
)

// ledgers has the last queries; and the last of those whose answer lacked something, which under load would be gone
// from among all before anybody could look at them. It is safe for concurrent use. Make one with newLedgers.
type ledgers struct {
	took prometheus.Histogram

	mu           sync.Mutex
	all, lacking ledgerRing
}

// ledgerRing is a ring buffer.
type ledgerRing struct {
	kept  []ledger
	added int
}

func newLedgers() *ledgers {
	return &ledgers{
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scatter_query_duration_seconds", Help: "How long queries took.", Buckets: latencyBuckets,
		}),
		all:     ledgerRing{kept: make([]ledger, keptQueries)},
		lacking: ledgerRing{kept: make([]ledger, keptLacking)},
	}
}

func (l *ledgers) add(q ledger) {
	l.took.Observe(q.elapsed.Seconds())
	l.mu.Lock()
	defer l.mu.Unlock()
	q.number = l.all.added + 1
	l.all.add(q)
	if q.partial || q.err != "" {
		l.lacking.add(q)
	}
}

// last returns the last n queries, or fewer if there are no more, the latest first.
func (l *ledgers) last(n int) []ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.last(n)
}

// lastLacking does so of those whose answer lacked something.
func (l *ledgers) lastLacking(n int) []ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lacking.last(n)
}

func (r *ledgerRing) add(q ledger) {
	r.kept[r.added%len(r.kept)] = q
	r.added++
}

func (r *ledgerRing) last(n int) []ledger {
	var list []ledger
	for i := range min(n, r.added, len(r.kept)) {
		list = append(list, r.kept[(r.added-1-i)%len(r.kept)])
	}
	return list
}

// peerStatus is what the page shows of one member.
type peerStatus struct {
	name       scatter.PeerID
	addr, http string
	alive      bool          // by gossip
	refused    bool          // no process listens at addr
	silent     bool          // when asked how it is, just now, it didn't answer
	fresh      bool          // it has all acknowledged writes
	behind     time.Duration // for how long it hasn't; 0 too if that isn't known
	documents  int64         // negative: not known
}

// serves reports whether the peer can answer for what it holds.
func (p peerStatus) serves() bool { return p.alive && !p.refused && !p.silent && p.fresh }

// statusSource is what the page shows. Its methods are called on any goroutine, for each request.
type statusSource interface {
	self() scatter.PeerID
	ring() *scatter.Ring
	replicas() int
	peers() []peerStatus // one for each member, the dead ones and this node too
	searcherStats() scatter.Stats
	storeCounts() (documents, indexed int64)
}

//go:embed status.html
var statusHTML string

// newStatus returns the handler of "/", "/status.json" and "/metrics". It registers what it needs with m, and so is
// called once for an m.
func newStatus(src statusSource, l *ledgers, m *metrics) http.Handler {
	m.registry.MustRegister(sourceCollector{src}, l.took)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(statusHTML)) // a client that has gone doesn't miss it
	})
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, _ *http.Request) {
		body, err := json.Marshal(newStatusJSON(src, l, time.Now()))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, // better all metrics but one than none
	}))

	policy := contentPolicy(statusHTML)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// contentPolicy allows a page its own script and style, known by their hashes, an empty icon, and to ask its server.
// The page writes text and no markup; if it were wrong there, what came in with a query still couldn't run.
func contentPolicy(page string) string {
	hash := func(tag string) string {
		_, rest, _ := strings.Cut(page, "<"+tag+">")
		content, _, _ := strings.Cut(rest, "</"+tag+">")
		sum := sha256.Sum256([]byte(content))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; script-src " + hash("script") + "; style-src " + hash("style") +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// What status.json has at most, so that it doesn't grow with the cluster.
const (
	shownArcs    = 2000
	shownPeers   = 200
	shownQueries = 16
	shownReports = 24 // of a query
	shownGaps    = 8  // of a query
	shownHolders = 6  // of a gap
	shownMarks   = 500
	shownText    = 160 // bytes of a name, a query or an error
)

// statusJSON is what the page is made of. Times are in milliseconds, those of the day since 1970; a place on the ring
// and a length are shares of the whole ring.
type statusJSON struct {
	Self               string
	Now                int64
	Documents, Indexed int64
	Stats              scatter.Stats // without the peers; a purse of -1 has no bound
	Points, Holders    int           // of the ring, and of each range of it
	Arcs               []arcJSON
	Lost               *lostJSON // of the last partial answer
	Live, Members      int
	Peers              []peerJSON
	Queries, Lacking   []queryJSON
}

// arcJSON is a stretch of the ring: its beginning, its length, its first holder as an index into Peers or -1 if that
// isn't shown, and how many of its holders can answer.
type arcJSON [4]float64

// lostJSON says how much of the ring an answer lacked, and where: each gap by its beginning and its length.
type lostJSON struct {
	At    int64
	Share float64
	Gaps  [][2]float64
}

type peerJSON struct {
	Name, Addr, HTTP string
	Colour           int // by name, so that it stays when the order changes
	Alive, Refused   bool
	Silent, Fresh    bool
	Behind           float64 // milliseconds
	Documents        int64   // -1: not known
	Share            float64 // of the ring, as its first holder
	P50, P95, P99    float64 // 0: not known
}

type queryJSON struct {
	Number              int
	At                  int64
	Query, Err          string
	Elapsed, Coverage   float64
	Partial             bool
	Hits                int
	Peers               []reportJSON
	Gaps                []gapJSON
	MorePeers, MoreGaps int // that aren't shown
}

type reportJSON struct {
	Peer, Role, Status, Err string
	Hits                    int
	Elapsed                 float64
}

type gapJSON struct {
	First, Last string
	Share       float64
	Holders     []reportJSON
	MoreHolders int
}

func newStatusJSON(src statusSource, l *ledgers, now time.Time) statusJSON {
	ring := src.ring()
	out := statusJSON{
		Self: shortText(src.self()), Now: now.UnixMilli(), Stats: src.searcherStats(), Points: ring.Len(),
		Holders: min(max(src.replicas(), 1), len(ring.PrimaryPeers(nil))),
		Peers:   []peerJSON{}, Arcs: []arcJSON{}, Queries: []queryJSON{}, Lacking: []queryJSON{}, // not null
	}
	out.Documents, out.Indexed = src.storeCounts()
	members := slices.Clone(src.peers())
	index := out.addPeers(members, src.self())
	out.addArcs(ring, members, index)
	out.addQueries(l)
	out.Stats.Peers = nil // they stand in Peers
	for _, purse := range []*float64{&out.Stats.HedgePurse, &out.Stats.FallbackPurse} {
		if math.IsInf(*purse, 0) {
			*purse = -1 // JSON has no infinity
		}
	}
	return out
}

// addPeers returns where in Peers each one is: first this node, then those that need looking at. It sorts members.
func (s *statusJSON) addPeers(members []peerStatus, self scatter.PeerID) (index map[scatter.PeerID]int) {
	s.Members = len(members)
	slices.SortFunc(members, func(a, b peerStatus) int { return cmp.Compare(a.name, b.name) })
	colours := make(map[scatter.PeerID]int, len(members))
	for i, p := range members {
		colours[p.name] = i
		if p.alive {
			s.Live++
		}
	}
	rank := func(p peerStatus) int {
		switch {
		case p.name == self:
			return 0
		case !p.serves():
			return 1
		}
		return 2
	}
	slices.SortStableFunc(members, func(a, b peerStatus) int { return cmp.Compare(rank(a), rank(b)) })

	index = make(map[scatter.PeerID]int, shownPeers)
	for i, p := range members[:min(len(members), shownPeers)] {
		index[p.name] = i
		if p.name == self {
			p.documents = s.Documents
		}
		s.Peers = append(s.Peers, peerJSON{
			Name: shortText(p.name), Addr: shortText(p.addr), HTTP: shortText(p.http), Colour: colours[p.name],
			Alive: p.alive, Refused: p.refused, Silent: p.silent, Fresh: p.fresh, Behind: milliseconds(p.behind),
			Documents: max(p.documents, -1),
		})
	}
	for _, known := range s.Stats.Peers {
		if i, ok := index[known.Peer]; ok {
			p := &s.Peers[i]
			p.P50, p.P95, p.P99 = milliseconds(known.P50), milliseconds(known.P95), milliseconds(known.P99)
		}
	}
	return index
}

func (s *statusJSON) addArcs(ring *scatter.Ring, members []peerStatus, index map[scatter.PeerID]int) {
	serves := make(map[scatter.PeerID]bool, len(members))
	for _, p := range members {
		serves[p.name] = p.serves()
	}
	arcs := ringArcs(ring, s.Holders, serves)
	for _, a := range arcs {
		if i, ok := index[a.peer]; ok {
			s.Peers[i].Share += a.length
		}
	}
	for _, a := range joinArcs(arcs, shownArcs) {
		i, ok := index[a.peer]
		if !ok {
			i = -1
		}
		s.Arcs = append(s.Arcs, arcJSON{rounded(a.begin), rounded(a.length), float64(i), float64(a.serving)})
	}
}

func (s *statusJSON) addQueries(l *ledgers) {
	for _, q := range l.last(shownQueries) {
		s.Queries = append(s.Queries, newQueryJSON(q))
	}
	for _, q := range l.lastLacking(shownQueries) {
		s.Lacking = append(s.Lacking, newQueryJSON(q))
		if s.Lost == nil && q.partial {
			s.Lost = &lostJSON{At: q.at.UnixMilli(), Share: 1 - q.coverage}
			for _, gap := range largest(q.missing, shownMarks) {
				s.Lost.Gaps = append(s.Lost.Gaps, [2]float64{rounded(place(gap.First)), rounded(gap.Share)})
			}
		}
	}
}

func newQueryJSON(q ledger) queryJSON {
	out := queryJSON{
		Number: q.number, At: q.at.UnixMilli(), Query: shortText(q.query), Err: shortText(q.err),
		Elapsed: milliseconds(q.elapsed), Coverage: q.coverage, Partial: q.partial, Hits: q.hits, Gaps: []gapJSON{},
	}
	reports := q.peers
	if len(reports) > shownReports { // then those that haven't answered come first
		reports = slices.Clone(reports)
		slices.SortStableFunc(reports, func(a, b scatter.PeerReport) int {
			answered := func(p scatter.PeerReport) int {
				if p.Status == scatter.Answered {
					return 1
				}
				return 0
			}
			return answered(a) - answered(b)
		})
	}
	out.Peers, out.MorePeers = newReportsJSON(reports, shownReports)
	for _, gap := range largest(q.missing, shownGaps) {
		g := gapJSON{First: fmt.Sprintf("%016x", gap.First), Last: fmt.Sprintf("%016x", gap.Last), Share: gap.Share}
		var holders []scatter.PeerReport
		for _, peer := range gap.Holders[:min(len(gap.Holders), shownHolders)] {
			holders = append(holders, reportOf(q.peers, peer))
		}
		g.Holders, _ = newReportsJSON(holders, shownHolders)
		g.MoreHolders = len(gap.Holders) - len(holders)
		out.Gaps = append(out.Gaps, g)
	}
	out.MoreGaps = len(q.missing) - len(out.Gaps)
	return out
}

// reportOf returns a peer's line of the ledger. A peer without one was not asked.
func reportOf(reports []scatter.PeerReport, peer scatter.PeerID) scatter.PeerReport {
	i := slices.IndexFunc(reports, func(p scatter.PeerReport) bool { return p.Peer == peer })
	if i < 0 {
		return scatter.PeerReport{Peer: peer, Status: scatter.NotAsked}
	}
	return reports[i]
}

func newReportsJSON(reports []scatter.PeerReport, most int) (list []reportJSON, more int) {
	list = []reportJSON{}
	for _, p := range reports[:min(len(reports), most)] {
		r := reportJSON{
			Peer: shortText(p.Peer), Role: p.Role.String(), Status: p.Status.String(), Hits: p.Hits,
			Elapsed: milliseconds(p.Elapsed),
		}
		if p.Err != nil {
			r.Err = shortText(p.Err.Error())
		}
		list = append(list, r)
	}
	return list, len(reports) - len(list)
}

// largest returns the n largest gaps or all, in the order in which they were.
func largest(gaps []scatter.MissingRange, n int) []scatter.MissingRange {
	if len(gaps) <= n {
		return gaps
	}
	shares := make([]float64, len(gaps))
	for i, gap := range gaps {
		shares[i] = gap.Share
	}
	slices.Sort(shares)
	least := shares[len(shares)-n]
	var list []scatter.MissingRange
	for _, gap := range gaps {
		if gap.Share >= least && len(list) < n {
			list = append(list, gap)
		}
	}
	return list
}

// arc is a stretch of the ring whose tokens have the same first holder.
type arc struct {
	begin, length float64
	peer          scatter.PeerID
	serving       int // how many of its holders can answer
}

// ringArcs returns the arcs of a ring, once round.
func ringArcs(ring *scatter.Ring, holders int, serves map[scatter.PeerID]bool) []arc {
	var arcs []arc
	for slot := range ring.Len() {
		// A point's tokens begin after those of the point before.
		point, before := ring.Point(slot), ring.Point((slot+ring.Len()-1)%ring.Len())
		a := arc{begin: place(before.Token), length: place(point.Token - before.Token), peer: point.Peer}
		if point.Token == before.Token {
			if slot > 0 {
				continue // the tokens are the other point's
			}
			a.length = 1
		}
		left := holders
		for _, peer := range ring.Walk(point.Token) {
			if left--; left < 0 {
				break
			}
			if serves[peer] {
				a.serving++
			}
		}
		if last := len(arcs) - 1; last >= 0 && arcs[last].peer == a.peer && arcs[last].serving == a.serving {
			arcs[last].length += a.length
			continue
		}
		arcs = append(arcs, a)
	}
	return arcs
}

// joinArcs joins neighbours until there are at most n arcs. Of two, the longer one names the holder, and the one with
// fewer that can answer says how many.
func joinArcs(arcs []arc, n int) []arc {
	for len(arcs) > n {
		var joined []arc
		for pair := range slices.Chunk(arcs, 2) {
			a := pair[0]
			if len(pair) == 2 {
				if pair[1].length > a.length {
					a.peer = pair[1].peer
				}
				a.length += pair[1].length
				a.serving = min(a.serving, pair[1].serving)
			}
			joined = append(joined, a)
		}
		arcs = joined
	}
	return arcs
}

// place returns where on the ring a token is.
func place(token uint64) float64 { return float64(token) / (1 << 64) }

// rounded leaves out of a share of the ring what nobody can see, for shorter numbers.
func rounded(share float64) float64 { return math.Round(share*1e6) / 1e6 }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// shortText returns a text, or its beginning and an ellipsis, with a replacement character for each that can't be seen:
// some of those would turn round what stands behind them.
func shortText[S ~string](text S) string {
	var short strings.Builder
	for _, r := range string(text) {
		if short.Len() >= shownText {
			short.WriteRune('…')
			break
		}
		if !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}
		short.WriteRune(r)
	}
	return short.String()
}
