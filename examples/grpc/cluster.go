package main

import (
	"context"
	"fmt"
	"net"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	peerCount = 4
	replicas  = 2 // servers that hold a document
)

// cluster is the servers, and a connection to each. A gRPC connection carries many requests at a
// time and connects again by itself, so one for each peer is enough.
type cluster struct {
	cover   *scatter.Cover
	servers map[scatter.PeerID]*grpc.Server
	conns   map[scatter.PeerID]*grpc.ClientConn
}

// peerName returns the name of the n-th server, from 1.
func peerName(n int) scatter.PeerID { return scatter.PeerID(fmt.Sprint("peer", n)) }

// startCluster starts servers that hold the symbols.
func startCluster(symbols []corpus.Symbol, opts ...grpc.ServerOption) (*cluster, error) {
	var peers []scatter.PeerID
	for i := range peerCount {
		peers = append(peers, peerName(i+1))
	}
	c := &cluster{
		cover:   scatter.NewCover(scatter.NewHashRing(peers, 64), replicas),
		servers: make(map[scatter.PeerID]*grpc.Server),
		conns:   make(map[scatter.PeerID]*grpc.ClientConn),
	}
	shares := make(map[scatter.PeerID][]corpus.Symbol)
	for _, symbol := range symbols {
		for _, holder := range c.cover.Holders(scatter.HashToken(symbol.ID)) {
			shares[holder] = append(shares[holder], symbol)
		}
	}
	for _, peer := range peers {
		if err := c.start(&server{peer, shares[peer]}, opts); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

func (c *cluster) start(s *server, opts []grpc.ServerOption) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.servers[s.name] = grpc.NewServer(opts...)
	c.servers[s.name].RegisterService(&service, s)
	go c.servers[s.name].Serve(listener)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	c.conns[s.name] = conn
	return nil
}

func (c *cluster) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
	for _, s := range c.servers {
		s.Stop()
	}
}

// probe is the scatter.Probe. The context does the rest: gRPC passes its deadline on to the server,
// and tells the server when it is cancelled.
func (c *cluster) probe(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
	payload, err := req.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", scatter.ErrPermanent, err)
	}
	var out wrapperspb.BytesValue
	if err := c.conns[peer].Invoke(ctx, searchMethod, wrapperspb.Bytes(payload), &out); err != nil {
		return nil, wrapStatus(err)
	}
	var reply scatter.Reply
	if err := reply.UnmarshalBinary(out.GetValue()); err != nil {
		return nil, err
	}
	if reply.TimedOut {
		return reply.Hits, fmt.Errorf("%w: %s ran out of time", scatter.ErrPartial, peer)
	}
	return reply.Hits, nil
}

// wrapStatus wraps an error of gRPC so that errors.Is finds what scatter looks for. With any other
// status, such as Unavailable, the peer has failed, and a replica is asked.
func wrapStatus(err error) error {
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	case codes.InvalidArgument, codes.Unimplemented, codes.PermissionDenied:
		return fmt.Errorf("%w: %w", scatter.ErrPermanent, err)
	}
	return err
}
