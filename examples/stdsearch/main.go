// Stdsearch searches the documentation of the Go standard library, as an example of the whole of scatter in one
// process: it spreads some thousand documents over the nodes of a small cluster, each with an index of its own, asks
// all of them at once and merges their answers. Nodes can be told to be dead, slow or broken.
//
// The way of a query is in cluster.go: newSearcher, and the two probes. What a node does is in node.go. The rest is what goes
// in (corpus.go, embed.go, fvecs.go) and what comes out (report.go, recall.go).
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

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once: training an index can't be interrupted
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program, and returns its exit code: 0, 1 if something went wrong, 2 if the command line is wrong.
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
		options.Logger = zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(stderr)), zap.DebugLevel))
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
