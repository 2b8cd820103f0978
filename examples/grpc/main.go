// Grpc searches the documentation of the Go standard library on gRPC servers. It prints the first
// symbols whose documentation contains a text.
//
//	go run -C examples ./grpc "zip file"
//
// starts four servers on the loopback interface. Each document is on two of them. A
// scatter.Searcher asks as few servers as hold everything together, and others in the place of
// those that fail: with -stop 1 the first server is stopped before the query, and the answer is the
// same.
//
// The servers are in server.go. The scatter.Probe that asks them is in cluster.go.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
	"github.com/scatterknn/scatter/examples/internal/demo"
)

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("grpc", flag.ExitOnError)
	k := flags.Int("k", 10, "return `n` hits")
	deadline := flags.Duration("deadline", time.Second, "wait for each server no longer than this `duration`")
	stop := flags.Int("stop", 0, "stop server `n`, from 1, before the query")
	goroot := flags.String("goroot", "", "read the Go installation in this `directory`, not that of the go command")
	flags.Parse(args)
	text := strings.Join(flags.Args(), " ")
	if text == "" || *k < 1 || *deadline <= 0 || *stop < 0 || *stop > peerCount {
		return fmt.Errorf("want a text, -k and -deadline above 0, and -stop from 1 to %d: see -h", peerCount)
	}
	symbols, err := corpus.Read(ctx, corpus.GoRoot(ctx, *goroot))
	if err != nil {
		return err
	}
	c, err := startCluster(symbols)
	if err != nil {
		return err
	}
	defer c.close()
	if *stop > 0 {
		c.servers[peerName(*stop)].Stop()
	}

	searcher, err := scatter.NewSearcher(c.probe, c.cover, &scatter.SearcherOptions{
		Options: scatter.Options{PeerDeadline: *deadline},
	})
	if err != nil {
		return err
	}
	defer searcher.Close(context.WithoutCancel(ctx))
	resp, err := searcher.Search(ctx, &scatter.Request{
		Table: "symbols", Query: scatter.Text{Field: "doc", Substring: []byte(text)}, K: *k,
	}, nil)
	if err != nil {
		return err
	}
	print(out, resp)
	return nil
}

func print(out io.Writer, resp *scatter.Response[scatter.Hit[string]]) {
	for i, hit := range resp.Hits {
		fmt.Fprintf(out, "%2d  %s\n", i+1, hit.ID)
	}
	fmt.Fprintf(out, "coverage %.0f %%, after %v\n", 100*resp.Coverage, resp.Elapsed.Round(100*time.Microsecond))
	for _, p := range resp.Peers {
		fmt.Fprintf(out, "%s  %v %v, %d hits, error: %v\n", p.Peer, p.Role, p.Status, p.Hits, p.Err)
	}
}

func main() { demo.Main(run) }
