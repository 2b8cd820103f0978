package main

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
	"github.com/scatterknn/scatter/examples/internal/demotest"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// forever is a PeerDeadline that only a test that hangs gets to see.
const forever = time.Hour

func readSymbols(t *testing.T) []corpus.Symbol {
	t.Helper()
	symbols, err := corpus.Read(t.Context(), demotest.SmallGoRoot(t))
	require.NoError(t, err)
	return symbols
}

// serve starts servers that hold the symbols until the test ends. If intercept isn't nil, it may
// answer in a server's place.
func serve(t *testing.T, symbols []corpus.Symbol, intercept grpc.UnaryServerInterceptor) *cluster {
	t.Helper()
	var opts []grpc.ServerOption
	if intercept != nil {
		opts = append(opts, grpc.UnaryInterceptor(intercept))
	}
	c, err := startCluster(symbols, opts...)
	require.NoError(t, err)
	t.Cleanup(c.close)
	return c
}

func (c *cluster) searcher(t *testing.T) *scatter.Searcher[scatter.Hit[string], string] {
	t.Helper()
	s, err := scatter.NewSearcher(c.probe, c.cover, &scatter.SearcherOptions{
		Options:    scatter.Options{PeerDeadline: forever},
		HedgeDelay: -1, // Only a failure brings in another server.
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(context.Background())) })
	return s
}

func containing(text string, k int) *scatter.Request {
	return &scatter.Request{Query: scatter.Text{Field: "doc", Substring: []byte(text)}, K: k}
}

// bruteForce returns the hits of a search in all symbols. They are sorted by ID.
func bruteForce(symbols []corpus.Symbol, text string, k int) []scatter.Hit[string] {
	hits := []scatter.Hit[string]{}
	for _, symbol := range symbols {
		if len(hits) < k && strings.Contains(symbol.Doc, text) {
			hits = append(hits, scatter.Hit[string]{ID: symbol.ID})
		}
	}
	return hits
}

func TestEqualsBruteForce(t *testing.T) {
	symbols := readSymbols(t)
	searcher := serve(t, symbols, nil).searcher(t)
	for _, text := range []string{"zip file", "the", "", "in no comment"} {
		for _, k := range []int{1, 10, len(symbols), 2 * len(symbols)} {
			resp, err := searcher.Search(t.Context(), containing(text, k), nil)
			require.NoError(t, err)
			require.ElementsMatch(t, bruteForce(symbols, text, k), resp.Hits, "%q", text)
			require.IsIncreasing(t, append([]string{""}, ids(resp)...), "%q", text)
			require.False(t, resp.Partial)
		}
	}
}

func ids(resp *scatter.Response[scatter.Hit[string]]) []string {
	var all []string
	for _, hit := range resp.Hits {
		all = append(all, hit.ID)
	}
	return all
}

// What each status of a server makes of it. No deadline has passed, so the error alone counts.
func TestStatus(t *testing.T) {
	for code, want := range map[codes.Code]scatter.Status{
		codes.DeadlineExceeded:  scatter.TimedOut,
		codes.Unavailable:       scatter.Failed,
		codes.Internal:          scatter.Failed,
		codes.ResourceExhausted: scatter.Failed,
		codes.Canceled:          scatter.Failed,
	} {
		c := serve(t, nil, func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
			return nil, status.Error(code, "as the test says")
		})
		resp, err := scatter.Broadcast(t.Context(), containing("x", 1), []scatter.PeerID{"peer1"}, c.probe,
			&scatter.Options{PeerDeadline: forever})
		require.NoError(t, err)
		require.Equal(t, want, resp.Peers[0].Status, code)
		require.ErrorContains(t, resp.Peers[0].Err, "as the test says")
		require.True(t, resp.Partial)
	}
}

// A query that every server would refuse ends at the first refusal.
func TestPermanentStatus(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.Unimplemented, codes.PermissionDenied} {
		searcher := serve(t, nil, func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
			return nil, status.Error(code, "as the test says")
		}).searcher(t)
		_, err := searcher.Search(t.Context(), containing("x", 1), nil)
		require.ErrorIs(t, err, scatter.ErrPermanent)
		require.ErrorContains(t, err, "as the test says")
		require.Equal(t, code, status.Code(err))
	}
}

// The requests that a server itself refuses, and one that the client can't encode.
func TestBadRequests(t *testing.T) {
	c := serve(t, nil, nil)
	searcher := c.searcher(t)
	_, err := searcher.Search(t.Context(), &scatter.Request{Query: scatter.Regex{Pattern: "x"}, K: 1}, nil)
	require.ErrorIs(t, err, scatter.ErrPermanent)
	require.Equal(t, codes.Unimplemented, status.Code(err))

	similar := scatter.KNN{Ranking: scatter.ScoreDescending} // FTQ1 has no place for the order.
	_, err = searcher.Search(t.Context(), &scatter.Request{Query: similar, K: 1}, nil)
	require.ErrorIs(t, err, scatter.ErrPermanent)
	require.ErrorIs(t, err, scatter.ErrNotEncodable)

	err = c.conns["peer1"].Invoke(t.Context(), searchMethod, wrapperspb.Bytes([]byte("FTQ0")), new(wrapperspb.BytesValue))
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

// A server whose reply can't be read has failed, and a replica stands in.
func TestGarbledReply(t *testing.T) {
	symbols := readSymbols(t)
	garbled := func(ctx context.Context, in any, info *grpc.UnaryServerInfo, search grpc.UnaryHandler) (any, error) {
		if info.Server.(*server).name == "peer1" {
			return wrapperspb.Bytes([]byte("FTR0")), nil
		}
		return search(ctx, in)
	}
	resp, err := serve(t, symbols, garbled).searcher(t).Search(t.Context(), containing("zip file", 5), nil)
	require.NoError(t, err)
	require.Equal(t, bruteForce(symbols, "zip file", 5), resp.Hits)
	require.False(t, resp.Partial)
}

// The hits of a server that ran out of time count, and the answer says that some may be missing.
func TestTimedOutReply(t *testing.T) {
	cut := scatter.Reply{Hits: []scatter.Hit[string]{{ID: "a"}}, TimedOut: true}
	payload, err := cut.MarshalBinary()
	require.NoError(t, err)
	c := serve(t, nil, func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
		return wrapperspb.Bytes(payload), nil
	})
	resp, err := c.searcher(t).Search(t.Context(), containing("x", 1), nil)
	require.NoError(t, err)
	require.Equal(t, cut.Hits, resp.Hits)
	require.Equal(t, scatter.Incomplete, resp.Peers[0].Status)
	require.True(t, resp.Partial)
}

// A server stops when the deadline is near, and says so.
func TestFindNearDeadline(t *testing.T) {
	symbols := readSymbols(t)
	s := &server{"peer1", symbols}
	require.Equal(t, scatter.Reply{Hits: bruteForce(symbols, "the", 3)}, s.find(t.Context(), "the", 3))

	near, cancel := context.WithTimeout(t.Context(), wayBack/2)
	defer cancel()
	require.Equal(t, scatter.Reply{TimedOut: true}, s.find(near, "the", 3))

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, scatter.Reply{TimedOut: true}, s.find(cancelled, "the", 3))
}

// The first server that is asked is killed while it searches. A replica stands in.
func TestKilledServer(t *testing.T) {
	symbols := readSymbols(t)
	asked := make(chan scatter.PeerID, 1)
	var hit atomic.Bool
	c := serve(t, symbols, func(
		ctx context.Context, in any, info *grpc.UnaryServerInfo, search grpc.UnaryHandler,
	) (any, error) {
		if hit.CompareAndSwap(false, true) {
			asked <- info.Server.(*server).name
			<-ctx.Done()
		}
		return search(ctx, in)
	})
	victim := make(chan scatter.PeerID, 1)
	go func() {
		peer := <-asked
		c.servers[peer].Stop()
		victim <- peer
	}()
	resp, err := c.searcher(t).Search(t.Context(), containing("zip file", 10), nil)
	require.NoError(t, err)
	require.Equal(t, bruteForce(symbols, "zip file", 10), resp.Hits)
	require.False(t, resp.Partial)

	killed := <-victim
	roles := make(map[scatter.Role]int)
	for _, p := range resp.Peers {
		roles[p.Role]++
		if p.Peer == killed {
			require.Equal(t, scatter.Failed, p.Status)
			require.Equal(t, codes.Unavailable, status.Code(p.Err))
		}
	}
	require.Positive(t, roles[scatter.Fallback])
}

// hang is an interceptor of servers that do nothing until the client has gone. It sends each
// request's context to started, and again to ended.
func hang(started, ended chan<- context.Context) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		started <- ctx
		<-ctx.Done()
		ended <- ctx
		return nil, ctx.Err()
	}
}

// The servers know the peer's deadline. If the caller cancels its query, their contexts are
// cancelled.
func TestDeadlineAndCancellation(t *testing.T) {
	started, ended := make(chan context.Context, peerCount), make(chan context.Context, peerCount)
	searcher := serve(t, nil, hang(started, ended)).searcher(t)
	deadline := make(chan time.Time, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		at, _ := (<-started).Deadline()
		deadline <- at
	}()
	before := time.Now()
	resp, err := searcher.Search(ctx, containing("x", 1), nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, scatter.Abandoned, resp.Peers[0].Status)
	require.WithinDuration(t, before.Add(forever), <-deadline, forever/2)
	require.ErrorIs(t, (<-ended).Err(), context.Canceled)
}

// A server that doesn't answer has timed out.
func TestTimedOut(t *testing.T) {
	c := serve(t, nil, hang(make(chan context.Context, 1), make(chan context.Context, 1)))
	resp, err := scatter.Broadcast(t.Context(), containing("x", 1), []scatter.PeerID{"peer1"}, c.probe,
		&scatter.Options{PeerDeadline: 50 * time.Millisecond})
	require.NoError(t, err)
	require.Equal(t, scatter.TimedOut, resp.Peers[0].Status)
}

// The program's answer is the same with any server stopped.
func TestRun(t *testing.T) {
	root := demotest.SmallGoRoot(t)
	for _, stop := range []string{"0", "1", "2", "3", "4"} {
		var out bytes.Buffer
		args := []string{"-goroot", root, "-k", "2", "-deadline", "1m", "-stop", stop, "zip", "file"}
		require.NoError(t, run(t.Context(), args, &out))
		require.Contains(t, out.String(), "archive/zip.(*File).DataOffset\n 2  archive/zip.(*Writer).Close\ncoverage 100 %")
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{
		{}, {"-k", "0", "x"}, {"-deadline", "0", "x"}, {"-stop", "5", "x"}, {"-stop", "-1", "x"},
	} {
		require.ErrorContains(t, run(t.Context(), args, new(bytes.Buffer)), "see -h", args)
	}
}
