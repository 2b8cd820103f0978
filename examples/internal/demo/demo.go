// Package demo has what the example programs have in common.
package demo

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/scatterknn/scatter"
)

// Main runs a program with its arguments. Ctrl-C ends the program's context. An error ends the
// process with the exit status 1.
func Main(run func(ctx context.Context, args []string, out io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// Print writes the hits, each score in a format such as "%8.1f km", then how complete the answer is,
// then a line for each peer.
func Print(out io.Writer, resp *scatter.Response[scatter.Hit[string]], score string) {
	for i, h := range resp.Hits {
		fmt.Fprintf(out, "%2d  %-16s "+score+"\n", i+1, h.ID, h.Score)
	}
	fmt.Fprintf(out, "coverage %.0f %%, exact up to rank %d, after %v\n",
		100*resp.Coverage, resp.Exact, resp.Elapsed.Round(time.Millisecond))
	for _, p := range resp.Peers {
		fmt.Fprintf(out, "%s  %v, %d hits, error: %v\n", p.Peer, p.Status, p.Hits, p.Err)
	}
}
