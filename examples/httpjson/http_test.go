package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
)

const (
	never = -1               // as a HedgeDelay
	long  = 30 * time.Second // the limit of what happens at once, on any machine
)

var query = &scatter.Request{Table: "fruit", Query: scatter.KNN{Field: "taste", Vector: []float32{5, 5}}, K: 10}

// newClient serves handlers until the test ends, and returns a client for them.
func newClient(t *testing.T, peers map[scatter.PeerID]http.Handler) *client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	c := &client{http: &http.Client{Transport: transport}, urls: make(map[scatter.PeerID]string)}
	for peer, h := range peers {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		c.urls[peer] = server.URL
	}
	t.Cleanup(transport.CloseIdleConnections)
	return c
}

// newSearcher returns a Searcher of one shard that all peers have, or of the shards of a Cover.
func newSearcher(
	t *testing.T, c *client, cover *scatter.Cover, delay time.Duration, traces ...*scatter.Trace,
) *scatter.Searcher[hit, string] {
	t.Helper()
	s, err := scatter.NewSearcher(c.probe, cover, &scatter.SearcherOptions{
		Options:    scatter.Options{PeerDeadline: long, Live: c.live, Trace: scatter.JoinTraces(traces...)},
		HedgeDelay: delay, HedgeQuantile: -1,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(context.Background())) })
	return s
}

func found(name string) search {
	return func(context.Context, *scatter.Request) ([]hit, error) { return []hit{{ID: name, Score: 1}}, nil }
}

func fails(err error) search {
	return func(context.Context, *scatter.Request) ([]hit, error) { return nil, err }
}

// replies returns a handler that always sends the same reply, and the number of requests.
func replies(status int, body string, headers ...string) (http.Handler, *atomic.Int64) {
	asked := new(atomic.Int64)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.Copy(io.Discard, r.Body)
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}), asked
}

// ask asks one peer by a Broadcast, and returns its line of the ledger and the hits.
func ask(t *testing.T, c *client, peer scatter.PeerID) (scatter.PeerReport, []hit) {
	t.Helper()
	opts := &scatter.Options{PeerDeadline: long}
	resp, err := scatter.Broadcast(t.Context(), query, []scatter.PeerID{peer}, c.probe, opts)
	require.NoError(t, err)
	return resp.Peers[0], resp.Hits
}

func TestEqualsBruteForce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const shardCount = 3
	parts, all := make([]part, shardCount), make(part)
	for i := range parts {
		parts[i] = make(part)
	}
	for i := range 300 {
		name := fmt.Sprintf("fruit \"%d\" ü", i)
		taste := [2]float32{float32(random.IntN(50)), float32(random.IntN(50))}
		parts[random.IntN(shardCount)][name], all[name] = taste, taste
	}
	peers, groups := make(map[scatter.PeerID]http.Handler), make([][]scatter.PeerID, shardCount)
	for i := range 2 * shardCount { // two copies of each shard
		peer := scatter.PeerID(fmt.Sprint("peer", i))
		peers[peer] = handler(parts[i%shardCount].search, 100)
		groups[i%shardCount] = append(groups[i%shardCount], peer)
	}
	s := newSearcher(t, newClient(t, peers), scatter.NewGroupCover(groups...), never)
	for range 30 {
		taste := [2]float32{50 * random.Float32(), 50 * random.Float32()}
		req := &scatter.Request{Query: scatter.KNN{Field: "taste", Vector: taste[:]}, K: 1 + random.IntN(400)}
		var want []hit
		for name, v := range all {
			away := math.Hypot(float64(v[0]-taste[0]), float64(v[1]-taste[1]))
			want = append(want, hit{ID: name, Score: float32(away)})
		}
		slices.SortFunc(want, func(a, b hit) int {
			return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(a.ID, b.ID))
		})

		resp, err := s.Search(t.Context(), req, nil)
		require.NoError(t, err)
		require.False(t, resp.Partial)
		require.Equal(t, want[:min(req.K, len(want))], resp.Hits)
		for _, p := range resp.Peers {
			require.False(t, p.Unsorted)
		}
	}
}

func TestBusyPeerIsLeftAlone(t *testing.T) {
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		busy, asked := replies(status, "come back later", "Retry-After", "30")
		c := newClient(t, map[scatter.PeerID]http.Handler{"busy": busy, "free": handler(found("fig"), 100)})
		s := newSearcher(t, c, scatter.NewGroupCover([]scatter.PeerID{"busy", "free"}), never)
		search := func() *scatter.Response[hit] {
			resp, err := s.Search(t.Context(), query, nil)
			require.NoError(t, err)
			require.False(t, resp.Partial)
			require.Equal(t, []hit{{ID: "fig", Score: 1}}, resp.Hits)
			return resp
		}
		resp := search()
		for range 1000 { // The Searcher chooses at random whom it asks first.
			if asked.Load() > 0 {
				break
			}
			resp = search()
		}
		require.Equal(t, scatter.Failed, resp.Peers[0].Status)
		require.ErrorContains(t, resp.Peers[0].Err, http.StatusText(status)+": come back later: retry after 30s")
		require.Equal(t, scatter.Fallback, resp.Peers[1].Role)
		for range 20 {
			resp = search()
			i := slices.IndexFunc(resp.Peers, func(p scatter.PeerReport) bool { return p.Peer == "busy" })
			require.Equal(t, scatter.Dead, resp.Peers[i].Status)
		}
		require.EqualValues(t, 1, asked.Load())
		c.waits.Store(scatter.PeerID("busy"), time.Now().Add(-time.Second)) // The wait has passed.
		require.True(t, c.live("busy"))
	}
}

func TestRetryAfter(t *testing.T) {
	for text, wait := range map[string]time.Duration{
		"": 0, "soon": 0, "-1": 0, "Wed, 21 Oct 2065 07:28:00 GMT": 0, "99999999999999999999": 0,
		"1": time.Second, "59": 59 * time.Second, "86400": time.Minute, // the longest that we wait
	} {
		h, _ := replies(http.StatusServiceUnavailable, "busy", "Retry-After", text)
		c := newClient(t, map[scatter.PeerID]http.Handler{"a": h})
		before := time.Now()
		report, _ := ask(t, c, "a")
		require.Equal(t, scatter.Failed, report.Status, text)
		until, ok := c.waits.Load(scatter.PeerID("a"))
		if wait == 0 {
			require.True(t, c.live("a"), text)
			continue
		}
		require.True(t, ok, text)
		require.WithinRange(t, until.(time.Time), before.Add(wait), time.Now().Add(wait), text)
	}
}

func TestBadQueryEndsTheSearch(t *testing.T) {
	handlers := map[string]func() (http.Handler, *atomic.Int64){
		"wrong field": func() (http.Handler, *atomic.Int64) {
			asked := new(atomic.Int64)
			return handler(func(ctx context.Context, req *scatter.Request) ([]hit, error) {
				asked.Add(1)
				return part{}.search(ctx, &scatter.Request{Query: scatter.KNN{Field: "colour"}, K: req.K})
			}, 100), asked
		},
	}
	for _, status := range []int{400, 413, 422} {
		handlers[fmt.Sprint(status)] = func() (http.Handler, *atomic.Int64) { return replies(status, "no") }
	}
	for name, make := range handlers {
		t.Run(name, func(t *testing.T) {
			h, asked := make()
			c := newClient(t, map[scatter.PeerID]http.Handler{"a": h, "b": h, "c": h})
			s := newSearcher(t, c, scatter.NewGroupCover([]scatter.PeerID{"a", "b", "c"}), never)
			_, err := s.Search(t.Context(), query, nil)
			require.ErrorIs(t, err, scatter.ErrPermanent)
			require.EqualValues(t, 1, asked.Load())
			require.EqualValues(t, 1, s.Stats().Probes)
		})
	}
	t.Run("not JSON", func(t *testing.T) {
		h, asked := replies(200, "")
		c := newClient(t, map[scatter.PeerID]http.Handler{"a": h})
		s := newSearcher(t, c, scatter.NewGroupCover([]scatter.PeerID{"a"}), never)
		_, err := s.Search(t.Context(), &scatter.Request{Table: "\xff", Query: scatter.Text{}, K: 1}, nil)
		require.ErrorIs(t, err, scatter.ErrPermanent)
		require.Zero(t, asked.Load())
	})
}

// What a peer's own search returns comes back as scatter's status.
func TestErrorsOfThePeer(t *testing.T) {
	partial := func(context.Context, *scatter.Request) ([]hit, error) {
		return []hit{{ID: "fig"}}, fmt.Errorf("half of it: %w", scatter.ErrPartial)
	}
	for name, c := range map[string]struct {
		find search
		want scatter.Status
		text string
	}{
		"complete": {found("fig"), scatter.Answered, ""},
		"empty":    {fails(nil), scatter.Answered, ""},
		"partial":  {partial, scatter.Incomplete, scatter.ErrPartial.Error()},
		"late":     {fails(context.DeadlineExceeded), scatter.TimedOut, "504 Gateway Timeout"},
		"broken":   {fails(errors.New("disk full")), scatter.Failed, "500 Internal Server Error: disk full"},
		"not JSON": {found("\xff"), scatter.Failed, "must be UTF-8"},
		"too long": {found(strings.Repeat("x", maxBytes)), scatter.Failed, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			report, hits := ask(t, newClient(t, map[scatter.PeerID]http.Handler{"a": handler(c.find, 1)}), "a")
			require.Equal(t, c.want, report.Status)
			if c.text != "" {
				require.ErrorContains(t, report.Err, c.text)
			}
			if name == "complete" || name == "partial" {
				require.Len(t, hits, 1)
			}
		})
	}
}

func TestRepliesThatAreNoResponse(t *testing.T) {
	for _, body := range []string{
		"", "<html>It works!</html>", "null", "[]", "{}", `"fig"`, `{"error": "no such table"}`,
		`{"hits": 3, "coverage": 1}`, `{"hits": [{"id": 3, "score": 1}], "coverage": 1}`,
		`{"hits": [], "coverage": 1`, `{"hits": [], "coverage": 1} {}`,
		`{"hits": [], "coverage": 1, "partial": true}`,
	} {
		h, _ := replies(http.StatusOK, body)
		report, _ := ask(t, newClient(t, map[scatter.PeerID]http.Handler{"a": h}), "a")
		require.Equal(t, scatter.Failed, report.Status, body)
	}
	h, _ := replies(http.StatusOK, `{"hits": [], "coverage": 1}`)
	report, _ := ask(t, newClient(t, map[scatter.PeerID]http.Handler{"a": h}), "a")
	require.Equal(t, scatter.Answered, report.Status)
}

func TestRequestsThatAreRefused(t *testing.T) {
	good, err := json.Marshal(query)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		body, left string
		slots      int64
		want       int
	}{
		"good":           {string(good), "1s", 1, http.StatusOK},
		"no time":        {string(good), "", 1, http.StatusOK},
		"time has no s":  {string(good), "20", 1, http.StatusBadRequest},
		"time is up":     {string(good), "-1ms", 1, http.StatusGatewayTimeout},
		"empty":          {"", "1s", 1, http.StatusBadRequest},
		"not JSON":       {"fig", "1s", 1, http.StatusBadRequest},
		"unknown member": {`{"querry": {}}`, "1s", 1, http.StatusBadRequest},
		"too long":       {strings.Repeat(" ", maxBytes+1), "1s", 1, http.StatusRequestEntityTooLarge},
		"no slot":        {string(good), "1s", 0, http.StatusServiceUnavailable},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(c.body))
		r.Header.Set(timeLeft, c.left)
		w := httptest.NewRecorder()
		handler(part{"fig": {9, 1}}.search, c.slots).ServeHTTP(w, r)
		require.Equal(t, c.want, w.Code, "%s: %s", name, w.Body)
		if c.slots == 0 {
			require.Equal(t, "1", w.Header().Get("Retry-After"))
		}
	}
}

// A request that breaks off is no fault of the query: other replicas may get all of it.
func TestRequestBreaksOff(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader("{"), broken{}))
	w := httptest.NewRecorder()
	handler(found("fig"), 1).ServeHTTP(w, r)
	require.Equal(t, http.StatusInternalServerError, w.Code)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// The peer's search gets the time that is left, less a tenth, and its context ends.
func TestDeadlineReachesThePeer(t *testing.T) {
	const deadline = 300 * time.Millisecond
	type seen struct {
		left  time.Duration
		cause error
	}
	ends := make(chan seen, 1)
	wait := func(ctx context.Context, _ *scatter.Request) ([]hit, error) {
		until, ok := ctx.Deadline()
		left := time.Until(until)
		if !ok {
			left = 0
		}
		<-ctx.Done()
		ends <- seen{left, ctx.Err()}
		return nil, ctx.Err()
	}
	c := newClient(t, map[scatter.PeerID]http.Handler{"a": handler(wait, 1)})
	opts := &scatter.Options{PeerDeadline: deadline}
	resp, err := scatter.Broadcast(t.Context(), query, []scatter.PeerID{"a"}, c.probe, opts)
	require.NoError(t, err)
	require.Equal(t, scatter.TimedOut, resp.Peers[0].Status)
	got := receive(t, ends)
	require.Positive(t, got.left)
	require.LessOrEqual(t, got.left, deadline*9/10)

	// Here nobody but the peer knows a deadline.
	body, err := json.Marshal(query)
	require.NoError(t, err)
	post, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.urls["a"], bytes.NewReader(body))
	require.NoError(t, err)
	post.Header.Set(timeLeft, "20ms")
	reply, err := c.http.Do(post)
	require.NoError(t, err)
	require.NoError(t, reply.Body.Close())
	require.Equal(t, http.StatusGatewayTimeout, reply.StatusCode)
	got = receive(t, ends)
	require.LessOrEqual(t, got.left, 20*time.Millisecond)
	require.Equal(t, context.DeadlineExceeded, got.cause)
}

// receive waits for a value, but not forever.
func receive[T any](t *testing.T, values <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-values:
	case <-time.After(long):
		require.Fail(t, "nothing came")
	}
	return v
}

// Queries that follow each other use one connection, whatever the peer's reply is.
func TestConnectionsAreUsedAgain(t *testing.T) {
	outcomes := []error{
		nil, errors.New("disk full"), context.DeadlineExceeded, scatter.ErrPartial, scatter.ErrPermanent,
	}
	var requests int
	find := func(context.Context, *scatter.Request) ([]hit, error) {
		requests++
		return []hit{{ID: strings.Repeat("x", 10_000)}}, outcomes[requests%len(outcomes)]
	}
	busy := handler(found("fig"), 0)
	free := handler(find, 1)
	var calls, opened atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1)%7 == 0 {
			busy.ServeHTTP(w, r)
			return
		}
		free.ServeHTTP(w, r)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	c := newClient(t, nil)
	c.urls["a"] = server.URL
	statuses := make(map[scatter.Status]int)
	for range 70 {
		opts := &scatter.Options{PeerDeadline: long}
		resp, err := scatter.Broadcast(t.Context(), query, []scatter.PeerID{"a"}, c.probe, opts)
		require.True(t, err == nil || errors.Is(err, scatter.ErrPermanent), err)
		statuses[resp.Peers[0].Status]++
	}
	require.EqualValues(t, 70, calls.Load())
	require.EqualValues(t, 1, opened.Load())
	require.Len(t, statuses, 4, statuses) // Answered, Incomplete, TimedOut and Failed
}
