package scatter

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Hits as callers have them.
type (
	titledHit struct {
		Hit[string]
		Title string            `json:"title"`
		Tags  map[string]string `json:"tags,omitempty"`
	}
	deepHit struct { // a Hit two structs down, and an ID that is no string
		innerHit
		Extra *float32
	}
	innerHit struct {
		Hit[uint64]
		Note string
	}
	pointerHit struct {
		*Hit[string]
		Title string
	}
	taggedHit struct {
		Hit[string] `json:"hit"`
		Title       string
	}
	shadowedHit struct {
		Hit[string]
		Score string `json:"score"`
	}
	ownJSONHit struct{ Hit[string] }
	namedID    string
)

func (h ownJSONHit) MarshalJSON() ([]byte, error) {
	return json.Marshal(fmt.Sprint(h.ID, "=", h.Score))
}

func (h *ownJSONHit) UnmarshalJSON(b []byte) error {
	id, score, _ := bytes.Cut(bytes.Trim(b, `"`), []byte("="))
	h.ID = string(id)
	_, err := fmt.Sscan(string(score), &h.Score)
	return err
}

var (
	nanScore      = float32(math.NaN())
	infScore      = float32(math.Inf(+1))
	minusInfScore = float32(math.Inf(-1))
)

// A Response in JSON is what its comment says.
func TestResponseJSON(t *testing.T) {
	resp := Response[titledHit]{
		Hits: []titledHit{
			{Hit[string]{"<a>", 0.1}, "A", nil},
			{Hit[string]{"b", nanScore}, "B", map[string]string{"x": "y"}},
			{Hit[string]{"c", infScore}, "", nil},
			{Hit[string]{"d", minusInfScore}, "", nil},
		},
		Peers: []PeerReport{
			{Peer: "p", Status: Answered, Hits: 4, Elapsed: 1500 * time.Microsecond, Late: true, Unsorted: true},
			{Peer: "q", Role: Hedge, Status: TimedOut, Err: context.DeadlineExceeded},
		},
		PeersConsulted: 2, PeersTimedOut: 1, Partial: true, Coverage: 0.75, Exact: 3, Next: "c",
		Missing: []MissingRange{{math.MaxUint64, 1<<62 - 2, 0.25, []PeerID{"q"}}},
		Elapsed: 2 * time.Second,
	}
	b, err := json.Marshal(resp)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"hits": [
			{"id": "<a>", "score": 0.1, "title": "A"},
			{"id": "b", "score": null, "title": "B", "tags": {"x": "y"}},
			{"id": "c", "score": "+Inf", "title": ""},
			{"id": "d", "score": "-Inf", "title": ""}
		],
		"peers": [
			{"peer": "p", "role": "Primary", "status": "Answered", "hits": 4, "elapsed": "1.5ms", "late": true,
				"unsorted": true},
			{"peer": "q", "role": "Hedge", "status": "TimedOut", "err": "context deadline exceeded", "hits": 0,
				"elapsed": "0s"}
		],
		"peersConsulted": 2, "peersTimedOut": 1, "peersFailed": 0, "partial": true, "coverage": 0.75,
		"exact": 3, "next": "c",
		"missing": [{"first": "18446744073709551615", "last": "4611686018427387902", "share": 0.25, "holders": ["q"]}],
		"elapsed": "2s"}`, string(b))
	requireSameResponse(t, &resp, b)

	b, err = json.Marshal(&Response[Hit[int]]{Hits: []Hit[int]{}, Missing: []MissingRange{}})
	require.NoError(t, err)
	require.JSONEq(t, `{"hits": [], "peers": [], "peersConsulted": 0, "peersTimedOut": 0, "peersFailed": 0,
		"partial": false, "coverage": 0, "exact": 0, "elapsed": "0s"}`, string(b))
	requireSameResponse(t, &Response[Hit[int]]{}, b)
}

// requireSameResponse requires that b is read back as want. NaN equals NaN here.
func requireSameResponse[H any](t *testing.T, want *Response[H], b []byte) {
	t.Helper()
	got := &Response[H]{Peers: make([]PeerReport, 3), Elapsed: 5} // all of it is replaced
	require.NoError(t, json.Unmarshal(b, got))
	w, g := *want, *got
	require.Len(t, g.Hits, len(w.Hits))
	w.Hits, g.Hits = slices.Clone(w.Hits), slices.Clone(g.Hits)
	for i := range w.Hits {
		ws, gs := scoreOf(&w.Hits[i]), scoreOf(&g.Hits[i])
		if ws == nil || !math.IsNaN(float64(*ws)) {
			continue
		}
		require.True(t, math.IsNaN(float64(*gs)))
		*ws, *gs = 0, 0
		defer func() { *ws = nanScore }()
	}
	require.Equal(t, w, g)
}

// scoreOf returns where a hit has its score, or nil if it has none.
func scoreOf[H any](hit *H) (score *float32) {
	if p, ok := any(hit).(hitParts); ok {
		score, _ = p.parts()
	} else if p, ok := any(*hit).(hitParts); ok && any(*hit) != any(*new(H)) {
		score, _ = p.parts()
	}
	return score
}

// Responses come back as they were, whatever their hits are made of.
func TestResponseJSONRoundTrip(t *testing.T) {
	testHits(t, func(s float32, id string) Hit[string] { return Hit[string]{id, s} })
	testHits(t, func(s float32, id string) Hit[namedID] { return Hit[namedID]{namedID(id), s} })
	testHits(t, func(s float32, id string) Hit[uint64] { return Hit[uint64]{math.MaxUint64 - uint64(len(id)), s} })
	testHits(t, func(s float32, id string) *Hit[string] { return &Hit[string]{id, s} })
	testHits(t, func(s float32, id string) titledHit { return titledHit{Hit[string]{id, s}, id + "!", nil} })
	testHits(t, func(s float32, id string) *titledHit {
		return &titledHit{Hit[string]{id, s}, "", map[string]string{"score": id}}
	})
	testHits(t, func(s float32, id string) deepHit {
		extra := float32(len(id))
		return deepHit{innerHit{Hit[uint64]{math.MaxUint64, s}, id}, &extra}
	})
	testHits(t, func(s float32, id string) ownJSONHit { return ownJSONHit{Hit[string]{"x" + fmt.Sprint(len(id)), s}} })
	testHits(t, func(s float32, id string) int { return len(id) }) // no Hit at all
}

func testHits[H any](t *testing.T, hit func(score float32, id string) H) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		resp := randomResponse[H](rnd)
		for range rnd.IntN(9) {
			score := math.Float32frombits(rnd.Uint32())
			if rnd.IntN(2) == 0 {
				score = []float32{nanScore, infScore, minusInfScore, float32(math.Copysign(0, -1)), math.MaxFloat32}[rnd.IntN(5)]
			}
			resp.Hits = append(resp.Hits, hit(score, fmt.Sprintf("%q\u2028<ü>\x00", rnd.IntN(1e6))))
		}
		b, err := json.Marshal(resp)
		require.NoError(t, err)
		requireSameResponse(t, resp, b)
		again, err := json.Marshal(resp)
		require.NoError(t, err)
		require.Equal(t, string(b), string(again), "MarshalJSON must not write to the hits")
	}
}

// randomResponse returns a Response without hits.
func randomResponse[H any](rnd *rand.Rand) *Response[H] {
	resp := &Response[H]{
		PeersConsulted: rnd.Int(), PeersTimedOut: rnd.Int(), PeersFailed: rnd.Int(), Partial: rnd.IntN(2) == 0,
		Coverage: rnd.Float64(), Elapsed: time.Duration(rnd.Uint64()),
	}
	errs := []error{nil, ErrEnough, context.Canceled, context.DeadlineExceeded, errors.New("\"\n"), errors.New("")}
	for i := range rnd.IntN(4) {
		resp.Peers = append(resp.Peers, PeerReport{
			Peer: PeerID(fmt.Sprint("p", i)), Role: Role(rnd.IntN(len(roleNames))), Status: Status(rnd.IntN(len(statusNames))),
			Err: errs[rnd.IntN(len(errs))], Hits: rnd.Int(), Elapsed: time.Duration(rnd.Uint64() >> rnd.UintN(64)),
			Late: rnd.IntN(2) == 0, Unsorted: rnd.IntN(2) == 0,
		})
	}
	holders := [][]PeerID{nil, {}, {"a", "b"}}
	for range rnd.IntN(3) {
		resp.Missing = append(resp.Missing, MissingRange{rnd.Uint64(), rnd.Uint64(), rnd.Float64(), holders[rnd.IntN(3)]})
	}
	return resp
}

// What JSON can't hold is refused, and not replaced.
func TestResponseMarshalErrors(t *testing.T) {
	refused := func(resp json.Marshaler, want string) {
		t.Helper()
		_, err := resp.MarshalJSON()
		require.EqualError(t, err, want)
	}
	refused(Response[Hit[string]]{Hits: []Hit[string]{{"a", 1}, {"\xff", 1}}},
		`scatter: Response.Hits[1]: the ID is "\xff", must be UTF-8 to be JSON`)
	refused(Response[Hit[namedID]]{Hits: []Hit[namedID]{{"\xff", nanScore}}},
		`scatter: Response.Hits[0]: the ID is "\xff", must be UTF-8 to be JSON`)
	refused(Response[*titledHit]{Hits: []*titledHit{{Hit: Hit[string]{"\xff", 1}}}},
		`scatter: Response.Hits[0]: the ID is "\xff", must be UTF-8 to be JSON`)
	refused(Response[Hit[float64]]{Hits: []Hit[float64]{{math.NaN(), 1}}},
		`scatter: Response.Hits[0]: json: unsupported value: NaN`)
	refused(Response[pointerHit]{Hits: []pointerHit{{&Hit[string]{"a", nanScore}, "A"}}},
		`scatter: Response.Hits[0]: the Score is NaN, which a scatter.pointerHit can't have in `+
			`JSON: embed the Hit itself, without a tag`)
	refused(Response[taggedHit]{Hits: []taggedHit{{Hit[string]{"a", infScore}, "A"}}},
		`scatter: Response.Hits[0]: the Score is +Inf, which a scatter.taggedHit can't have in `+
			`JSON: embed the Hit itself, without a tag`)
	refused(Response[shadowedHit]{Hits: []shadowedHit{{Hit[string]{"a", nanScore}, "A"}}},
		`scatter: Response.Hits[0]: the Score is NaN, which a scatter.shadowedHit can't have in `+
			`JSON: embed the Hit itself, without a tag`)
	refused(Response[int]{Missing: []MissingRange{{}, {Holders: []PeerID{"a", "\xff"}}}},
		`scatter: Response.Missing[1].Holders[1] is "\xff", must be UTF-8 to be JSON`)
	refused(PeerReport{Peer: "\xff"}, `scatter: PeerReport.Peer is "\xff", must be UTF-8 to be JSON`)

	for _, report := range []PeerReport{{Peer: "\xff"}, {Status: 99}, {Role: 99}} {
		_, err := json.Marshal(Response[int]{Peers: []PeerReport{report}})
		require.ErrorContains(t, err, "scatter: ")
	}

	// Ordinary scores are no trouble anywhere.
	b, err := json.Marshal(Response[taggedHit]{Hits: []taggedHit{{Hit[string]{"a", 2}, "A"}}})
	require.NoError(t, err)
	requireSameResponse(t, &Response[taggedHit]{Hits: []taggedHit{{Hit[string]{"a", 2}, "A"}}}, b)
	b, err = json.Marshal(Response[pointerHit]{Hits: []pointerHit{{&Hit[string]{"a", 2}, "A"}}})
	require.NoError(t, err)
	requireSameResponse(t, &Response[pointerHit]{Hits: []pointerHit{{&Hit[string]{"a", 2}, "A"}}}, b)
	b, err = json.Marshal(Response[*titledHit]{Hits: []*titledHit{nil}})
	require.NoError(t, err)
	requireSameResponse(t, &Response[*titledHit]{Hits: []*titledHit{nil}}, b)
}

// Bad JSON leaves the Response as it was.
func TestResponseUnmarshalErrors(t *testing.T) {
	for _, test := range []struct{ json, want string }{
		{`[]`, `scatter: Response: json: cannot unmarshal array`},
		{`{"hits":{}}`, `scatter: Response: json: cannot unmarshal object`},
		{`{"hits":[{},{"score":"Inf"}]}`, `scatter: Response.Hits[1]: json: cannot unmarshal string`},
		{`{"hits":[{"id":7,"score":"+Inf"}]}`, `scatter: Response.Hits[0]: json: cannot unmarshal number`},
		{`{"elapsed":5}`, `scatter: Response: json: cannot unmarshal number`},
		{`{"elapsed":"5 parsecs"}`, `scatter: Elapsed is "5 parsecs", must be a duration such as "1.5ms"`},
		{`{"peers":[{"status":"Fine"}]}`, `scatter: Status is "Fine", which is unknown`},
		{`{"peers":[{"role":"answered"}]}`, `scatter: Role is "answered", which is unknown`},
		{`{"missing":[{"first":"-1"}]}`, `scatter: Response: json: `},
	} {
		resp := Response[titledHit]{PeersFailed: 3}
		require.ErrorContains(t, json.Unmarshal([]byte(test.json), &resp), test.want, test.json)
		require.Equal(t, Response[titledHit]{PeersFailed: 3}, resp)
	}
}

// encoding/json takes members in any case, and so must the scores that it can't read.
func TestResponseJSONAnyCase(t *testing.T) {
	var resp Response[pointerHit]
	require.NoError(t, json.Unmarshal([]byte(`{"HITS":[{"ID":"a","SCORE":"-Inf","new":1},{"ſcore":"+Inf"}]}`), &resp))
	require.Equal(t, []pointerHit{{&Hit[string]{"a", minusInfScore}, ""}, {&Hit[string]{"", infScore}, ""}}, resp.Hits)
}

// Errors that callers compare with come back as themselves.
func TestPeerReportJSONErr(t *testing.T) {
	for _, err := range []error{ErrEnough, context.Canceled, context.DeadlineExceeded} {
		b, e := json.Marshal(PeerReport{Err: err})
		require.NoError(t, e)
		var report PeerReport
		require.NoError(t, json.Unmarshal(b, &report))
		require.ErrorIs(t, report.Err, err)
	}
	b, err := json.Marshal(PeerReport{Peer: "a", Err: fmt.Errorf("dial: %w", context.Canceled)})
	require.NoError(t, err)
	var report PeerReport
	require.NoError(t, json.Unmarshal(b, &report))
	require.EqualError(t, report.Err, "dial: context canceled")
	require.NoError(t, json.Unmarshal([]byte("null"), &report))
	require.Equal(t, PeerID("a"), report.Peer)
}

func TestRoleAndStatusText(t *testing.T) {
	for i, want := range []string{"Primary", "Fallback", "Hedge"} {
		testText(t, Role(i), want)
	}
	for i, want := range []string{
		"NotAsked", "Answered", "Incomplete", "TimedOut", "Failed", "Abandoned", "NotNeeded", "Dead",
	} {
		testText(t, Status(i), want)
	}
	_, err := Role(3).MarshalText()
	require.EqualError(t, err, "scatter: Role is 3, which is unknown")
	_, err = Status(200).MarshalText()
	require.EqualError(t, err, "scatter: Status is 200, which is unknown")
	require.Equal(t, "scatter.Role(3)", Role(3).String())
	role, status := Hedge, Failed
	require.EqualError(t, role.UnmarshalText([]byte("hedge")), `scatter: Role is "hedge", which is unknown`)
	require.EqualError(t, status.UnmarshalText(nil), `scatter: Status is "", which is unknown`)
	require.Equal(t, Hedge, role)
	require.Equal(t, Failed, status)
}

func testText[T interface {
	cmp.Ordered
	String() string
}](t *testing.T, v T, want string) {
	t.Helper()
	require.Equal(t, want, v.String())
	b, err := json.Marshal(v)
	require.NoError(t, err)
	require.Equal(t, `"`+want+`"`, string(b))
	var got T
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, v, got)
}

// Rule 40: however many holders there are, a range is one line.
func TestMissingRangeString(t *testing.T) {
	m := MissingRange{1, 1 << 63, 0.5, nil}
	require.Equal(t, "0x0000000000000001-0x8000000000000000 (50.00%)", m.String())
	m.Holders = []PeerID{"a"}
	require.Equal(t, "0x0000000000000001-0x8000000000000000 (50.00%) of a", m.String())
	m.Holders = []PeerID{"a", "b", "c"}
	require.Equal(t, "0x0000000000000001-0x8000000000000000 (50.00%) of a, b, c", m.String())
	m.Holders = make([]PeerID, 1000)
	require.Equal(t, "0x0000000000000001-0x8000000000000000 (50.00%) of , ,  and 997 more", m.String())
}

// Bytes that a Response can be read from are written again as an equal one; no bytes panic.
func FuzzResponseJSON(f *testing.F) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, score := range []float32{1, nanScore, infScore, minusInfScore} {
		resp := randomResponse[titledHit](rnd)
		resp.Hits = []titledHit{{Hit[string]{"a", score}, "A", nil}, {Hit[string]{"b", 2}, "", nil}}
		b, err := json.Marshal(resp)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte(`{"hits":[{"Score":null,"score":"+Inf","SCORE":1},null],"missing":[{"first":"7"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzResponse[titledHit](t, b)
		fuzzResponse[*titledHit](t, b)
		fuzzResponse[Hit[int]](t, b)
	})
}

func fuzzResponse[H any](t *testing.T, b []byte) {
	_ = new(Response[H]).UnmarshalJSON(b) // bytes that encoding/json would not pass on
	var resp Response[H]
	if json.Unmarshal(b, &resp) != nil {
		return
	}
	b, err := json.Marshal(resp)
	require.NoError(t, err)
	requireSameResponse(t, &resp, b)
}
