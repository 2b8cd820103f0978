package main

import (
	"context"
	"strings"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// searchMethod is the one method of a peer. Its request is an FTQ1 payload, and its reply an FTR1
// payload. As a .proto file:
//
//	service Peer { rpc Search(google.protobuf.BytesValue) returns (google.protobuf.BytesValue); }
const searchMethod = "/scatter.Peer/Search"

// service is what protoc-gen-go-grpc would generate.
var service = grpc.ServiceDesc{
	ServiceName: "scatter.Peer",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Search", Handler: handleSearch}},
}

func handleSearch(
	srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor,
) (any, error) {
	in := new(wrapperspb.BytesValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	search := func(ctx context.Context, in any) (any, error) {
		return srv.(*server).search(ctx, in.(*wrapperspb.BytesValue))
	}
	if intercept == nil {
		return search(ctx, in)
	}
	return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: searchMethod}, search)
}

// server is a peer. It holds a part of the documents, sorted by ID.
type server struct {
	name    scatter.PeerID
	symbols []corpus.Symbol
}

// search answers a request. An error that every replica would return has a status that says so.
func (s *server) search(ctx context.Context, in *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
	var req scatter.Request
	if err := req.UnmarshalBinary(in.GetValue()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	query, ok := req.Query.(scatter.Text)
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "%s can't answer a %T", s.name, req.Query)
	}
	reply := s.find(ctx, string(query.Substring), req.K)
	payload, err := reply.MarshalBinary()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return wrapperspb.Bytes(payload), nil
}

// wayBack is the time that a server leaves for its reply to travel.
const wayBack = 5 * time.Millisecond

// find returns the first k documents that contain a substring. When the client's deadline is near,
// it stops, so that what it has found arrives in time.
func (s *server) find(ctx context.Context, substring string, k int) scatter.Reply {
	var reply scatter.Reply
	deadline, limited := ctx.Deadline() // the client's: gRPC passes it on
	for _, symbol := range s.symbols {
		if len(reply.Hits) == k {
			break
		}
		if ctx.Err() != nil || limited && time.Until(deadline) < wayBack {
			reply.TimedOut = true
			break
		}
		if strings.Contains(symbol.Doc, substring) {
			reply.Hits = append(reply.Hits, scatter.Hit[string]{ID: symbol.ID})
		}
	}
	return reply
}
