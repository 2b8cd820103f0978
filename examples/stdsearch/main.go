// Stdsearch searches the documentation of the Go standard library. It shows the whole of scatter in
// one process: it spreads some ten thousand documents over the nodes of a small cluster, each with
// an index of its own, asks as few nodes as have them all, and merges their answers. Nodes can be
// dead, slow or broken.
//
// A query's path is in cluster.go, from newSearcher to the two probes. Who holds what is in
// topology.go, and what a node does is in node.go. The other files prepare the input (embed.go,
// fvecs.go; package corpus reads the documentation) and the output (report.go, recall.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/scatterknn/scatter"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// spread is the probability with which no node has to be asked a second time for the best K.
// Documents are placed by a hash, as scatter.SpreadK assumes.
const spread = 0.9999

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // A second Ctrl-C ends the program at once: training an index can't be interrupted.
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program. It returns the exit status: 0, or 1 if something failed or no node
// answered, or 2 if the command line is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parseFlags(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "stdsearch: %v\nFor help: stdsearch -h\n", err)
		return 2
	}

	options := &scatter.Options{PeerDeadline: cfg.deadline}
	if cfg.verbose {
		encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
		core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(stderr)), zap.DebugLevel)
		options.Trace = scatter.ZapTrace(zap.New(core))
	}
	if cfg.peerK {
		options.PeerK = scatter.SpreadK(spread)
	}
	search := searchSymbols
	if cfg.base != "" {
		search = searchVectors
	}
	if err := search(ctx, cfg, options, stdout, stderr); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintf(stderr, "stdsearch: %v\n", err)
		return 1
	}
	return 0
}
