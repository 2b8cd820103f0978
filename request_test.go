package scatter

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// foreignQuery is a kind of query that this package doesn't know.
type foreignQuery struct{ KNN }

// The forms in the comment of Request are those that are written.
func TestRequestJSON(t *testing.T) {
	for _, test := range []struct {
		query Query
		want  string
	}{
		{KNN{"embedding", []float32{0.5, 1}, 64, ScoreDescending},
			`{"knn":{"field":"embedding","vector":[0.5,1],"ef":64,"ranking":"ScoreDescending"}}`},
		{KNN{Field: "f"}, `{"knn":{"field":"f","vector":null,"ranking":"ScoreAscending"}}`},
		{Text{"body", []byte("needle")}, `{"text":{"field":"body","substring":"needle"}}`},
		{Text{"body", []byte{}}, `{"text":{"field":"body","substring":""}}`},
		{Text{"body", nil}, `{"text":{"field":"body"}}`},
		{Text{"body", []byte{0xff, 0}}, `{"text":{"field":"body","substringBase64":"/wA="}}`},
		{Regex{"body", "ne+dle", 1}, `{"regex":{"field":"body","pattern":"ne+dle","maxErrors":1}}`},
	} {
		req := Request{Table: "docs", Query: test.query, K: 10}
		b, err := json.Marshal(req)
		require.NoError(t, err)
		require.Equal(t, `{"table":"docs","query":`+test.want+`,"k":10}`, string(b))
		requireReadBack(t, &req, b)
	}
}

func requireReadBack(t *testing.T, want *Request, b []byte) {
	t.Helper()
	got := Request{Table: "old", Query: Text{}, K: 9} // all of it is replaced
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, want, &got)
}

// A pointer to a query, and to the Request, is as good as a value. It is read back as a value.
func TestRequestJSONPointers(t *testing.T) {
	knn, text, regex := KNN{Field: "f", Vector: []float32{}}, Text{"f", []byte("x")}, Regex{Field: "f"}
	for _, pair := range [][2]Query{{&knn, knn}, {&text, text}, {&regex, regex}} {
		b, err := json.Marshal(&Request{Table: "docs", Query: pair[0], K: 1})
		require.NoError(t, err)
		requireReadBack(t, &Request{Table: "docs", Query: pair[1], K: 1}, b)
	}
	list := []*Request{nil, {Table: "docs", Query: knn, K: 1}}
	b, err := json.Marshal(list)
	require.NoError(t, err)
	var got []*Request
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, list, got)
}

// Every float32 and every text comes back as it was.
func TestRequestJSONRoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		vector := make([]float32, rnd.IntN(40))
		for i := range vector {
			for {
				vector[i] = math.Float32frombits(rnd.Uint32()) // subnormal ones and -0 too
				if x := float64(vector[i]); !math.IsNaN(x) && !math.IsInf(x, 0) {
					break
				}
			}
		}
		substring := make([]byte, rnd.IntN(5))
		for i := range substring {
			substring[i] = byte(rnd.Uint32() >> (rnd.UintN(2)))
		}
		for _, query := range []Query{
			KNN{"<f>\u2028", vector, rnd.Int(), Order(rnd.IntN(3))},
			Text{"\x00", substring},
			Regex{"ü", `\d"+`, uint16(rnd.Uint32())},
		} {
			req := &Request{Table: "t", Query: query, K: rnd.Int() - math.MaxInt/2}
			b, err := json.Marshal(req)
			require.NoError(t, err)
			requireReadBack(t, req, b)
		}
	}
	negative := &Request{Table: "t", Query: KNN{Vector: []float32{float32(math.Copysign(0, -1))}}, K: 1}
	b, err := json.Marshal(negative)
	require.NoError(t, err)
	var got Request
	require.NoError(t, json.Unmarshal(b, &got))
	require.True(t, math.Signbit(float64(got.Query.(KNN).Vector[0])))
}

// What JSON can't hold is refused by the name of the field, with its value.
func TestRequestMarshalErrors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, test := range []struct {
		req  Request
		want string
	}{
		{Request{Table: "\xff", Query: KNN{}, K: 1}, `scatter: Request.Table is "\xff", must be UTF-8 to be JSON`},
		{Request{Table: "t", Query: nil, K: 1}, `scatter: Request.Query is nil`},
		{Request{Table: "t", Query: (*KNN)(nil), K: 1}, `scatter: Request.Query is a nil *scatter.KNN`},
		{Request{Table: "t", Query: (*Text)(nil), K: 1}, `scatter: Request.Query is a nil *scatter.Text`},
		{Request{Table: "t", Query: (*Regex)(nil), K: 1}, `scatter: Request.Query is a nil *scatter.Regex`},
		{Request{Table: "t", Query: foreignQuery{}, K: 1},
			`scatter: Request.Query is a scatter.foreignQuery, must be a KNN, Text or Regex to be JSON`},
		{Request{Table: "t", Query: KNN{Ranking: 3}, K: 1}, `scatter: KNN.Ranking is scatter.Order(3), which is unknown`},
		{Request{Table: "t", Query: KNN{Vector: []float32{0, nan}}, K: 1}, `scatter: KNN.Vector[1] is NaN, must be finite to be JSON`},
		{Request{Table: "t", Query: &KNN{Vector: []float32{inf}}, K: 1}, `scatter: KNN.Vector[0] is -Inf, must be finite to be JSON`},
		{Request{Table: "t", Query: KNN{Field: "\xfe"}, K: 1}, `scatter: KNN.Field is "\xfe", must be UTF-8 to be JSON`},
		{Request{Table: "t", Query: Text{Field: "\xfe"}, K: 1}, `scatter: Text.Field is "\xfe", must be UTF-8 to be JSON`},
		{Request{Table: "t", Query: Regex{Field: "\xfe"}, K: 1}, `scatter: Regex.Field is "\xfe", must be UTF-8 to be JSON`},
		{Request{Table: "t", Query: Regex{Pattern: "\xfe"}, K: 1}, `scatter: Regex.Pattern is "\xfe", must be UTF-8 to be JSON`},
	} {
		_, err := test.req.MarshalJSON()
		require.EqualError(t, err, test.want)
		_, err = json.Marshal(test.req)
		require.ErrorContains(t, err, test.want)
	}
}

// A Request that can't be meant is refused, and leaves the old one as it was.
func TestRequestUnmarshalErrors(t *testing.T) {
	for _, test := range []struct{ json, want string }{
		{`[]`, `scatter: Request: json: cannot unmarshal array`},
		{`{"table":"t","k":1}`, `scatter: Request.Query has 0 kinds, must have one of knn, text and regex`},
		{`{"query":null}`, `scatter: Request.Query has 0 kinds`},
		{`{"query":{}}`, `scatter: Request.Query has 0 kinds`},
		{`{"query":{"knn":{},"text":{}}}`, `scatter: Request.Query has 2 kinds`},
		{`{"query":{"knm":{}}}`, `scatter: Request.Query has the kind "knm", must be knn, text or regex`},
		{`{"query":{"knn":null}}`, `scatter: Request.Query."knn" is null`},
		{`{"query":"knn"}`, `scatter: Request: json: cannot unmarshal string`},
		{`{"limit":1}`, `scatter: Request: json: unknown field "limit"`},
		{`{"k":1.5}`, `scatter: Request: json: cannot unmarshal number 1.5`},
		{`{"query":{"knn":{"rankin":"ScoreDescending"}}}`, `scatter: Request.Query.knn: json: unknown field "rankin"`},
		{`{"query":{"knn":{"ranking":"Best"}}}`, `Order is "Best", which is unknown`},
		{`{"query":{"knn":{"vector":[1, null]}}}`, `scatter: Request.Query.knn: vector[1] is null, must be a number`},
		{`{"query":{"knn":{"vector":[1e39]}}}`, `scatter: Request.Query.knn: json: cannot unmarshal number 1e39`},
		{`{"query":{"text":{"substring":"a","substringBase64":"YQ=="}}}`,
			`scatter: Request.Query.text has both substring and substringBase64`},
		{`{"query":{"text":{"substringBase64":"?"}}}`, `scatter: Request.Query.text: illegal base64`},
		{`{"query":{"regex":{"maxErrors":65536}}}`, `scatter: Request.Query.regex: json: cannot unmarshal number 65536`},
	} {
		old := Request{Table: "t", Query: Text{Field: "f"}, K: 3}
		req := old
		require.ErrorContains(t, json.Unmarshal([]byte(test.json), &req), test.want, test.json)
		require.Equal(t, old, req)
	}
}

// Bytes that a Request can be read from are written again as an equal one; no bytes panic.
func FuzzRequestJSON(f *testing.F) {
	for _, query := range []Query{KNN{"f", []float32{1, -2.5e-7}, 9, 1}, Text{"f", []byte("\xff")}, Regex{"f", ".", 2}} {
		b, err := json.Marshal(Request{Table: "t", Query: query, K: 10})
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte(`{"query":{"text":{"substring":"` + strings.Repeat("x", 9) + `"}}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = new(Request).UnmarshalJSON(b) // bytes that encoding/json would not pass on
		var req, again Request
		if json.Unmarshal(b, &req) != nil || bytes.Equal(bytes.TrimSpace(b), []byte("null")) {
			return
		}
		b, err := json.Marshal(req)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &again))
		require.Equal(t, req, again)
	})
}
