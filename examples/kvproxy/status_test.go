package main

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
)

func get(t *testing.T, url string) (body, contentType string) {
	r, err := http.Get(url)
	require.NoError(t, err)
	defer r.Body.Close()
	require.Equal(t, http.StatusOK, r.StatusCode)
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(b), r.Header.Get("Content-Type")
}

func TestStatusAndMetrics(t *testing.T) {
	nodes := joinNodes(t, 3)
	n := nodes[0]
	putVectors(t, n, 10)
	requireWhole(t, nodes, 0, 10)
	n.history.add(time.Now(), &scatter.Request{Table: "<script>", K: 3}, nil, errRing)

	page, kind := get(t, "http://"+n.webAt+"/")
	require.Contains(t, kind, "text/html")
	for _, text := range []string{"<h1>n1</h1>", "n2", "n3", "another ring", "&lt;script&gt;", "Answered"} {
		require.Contains(t, page, text)
	}
	require.NotContains(t, page, "<script>")

	text, _ := get(t, "http://"+n.webAt+"/metrics")
	for _, name := range []string{
		"scatter_queries_total 1", `scatter_peer_probation{peer="n2"} 0`, "scatter_query_seconds_count 1",
		`kvproxy_applied_sequence{stream="16"}`, "go_goroutines",
	} {
		require.Contains(t, text, name)
	}
	r, err := http.Get("http://" + n.webAt + "/nothing")
	require.NoError(t, err)
	r.Body.Close()
	require.Equal(t, http.StatusNotFound, r.StatusCode)
}

func TestMetricsAreWellFormed(t *testing.T) {
	n := joinNode(t, testStore(t), "n1")
	problems, err := testutil.GatherAndLint(newMetrics(n).registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestHistoryKeepsTheLastLedgers(t *testing.T) {
	var n node
	require.Empty(t, n.ledgers(10))
	for i := range 250 {
		n.history.add(time.Now(), &scatter.Request{Table: "idx", K: i + 1}, &found{
			response: &scatter.Response[scatter.Hit[string]]{Coverage: 1, Hits: []scatter.Hit[string]{{ID: "\xff"}}},
			warnings: []string{"why"},
		}, nil)
	}
	require.Empty(t, n.ledgers(0))
	require.Empty(t, n.ledgers(-1))
	require.Len(t, n.ledgers(1000), 100)
	var l struct {
		K, Found int
		Warnings []string
		Response struct{ Coverage float64 }
	}
	require.NoError(t, json.Unmarshal(n.ledgers(2)[1], &l))
	require.Equal(t, 249, l.K)
	require.Equal(t, 1, l.Found)
	require.Equal(t, []string{"why"}, l.Warnings)
	require.EqualValues(t, 1, l.Response.Coverage)
}
