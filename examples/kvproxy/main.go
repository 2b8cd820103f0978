// Kvproxy is a key-value store over several processes that redis-cli and Redis's client libraries can talk to: strings,
// hashes, and FT.SEARCH over their vectors and texts. Each node keeps a part of the documents in SQLite, and each is a
// proxy to all, by way of scatter.
//
//	go run -C examples ./kvproxy -cluster 5
//
// starts five nodes on loopback with a proxy in front, and says how to talk to it. A node by hand is
//
//	kvproxy node -listen ADDR -join ADDR,... -data DIR
//
// README.md has a session, what is promised, and what isn't.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// stopTime is how long a node may take to stop politely.
const stopTime = 3 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "kvproxy:", err)
		os.Exit(1)
	}
}

// run is the program. It returns when ctx is over, or on an error.
func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	cfg := config{listen: "127.0.0.1:7000", http: "127.0.0.1:0", gossip: "127.0.0.1:0"}
	if len(args) > 0 && args[0] == "node" {
		return runNode(ctx, cfg, args[1:], in, out)
	}
	flags := newFlags("kvproxy", &cfg)
	nodes := flags.Int("cluster", 5, "how many `nodes` to start, each a process of its own")
	if err := flags.parse(args); err != nil {
		return err
	}
	if *nodes < 1 || *nodes > 100 {
		return fmt.Errorf("-cluster is %d, must be from 1 to 100", *nodes)
	}
	return runCluster(ctx, cfg, *nodes, flags.log(), out)
}

// runNode runs one node until ctx is over.
func runNode(ctx context.Context, cfg config, args []string, in io.Reader, out io.Writer) error {
	flags := newFlags("kvproxy node", &cfg)
	join := flags.String("join", "", "`addresses` of other nodes, by commas, any of which is enough")
	flags.StringVar(&cfg.gossip, "gossip", cfg.gossip, "`address` for the nodes' talk about each other, UDP and TCP")
	flags.StringVar(&cfg.name, "name", "", "the node's `name`; by default one that its data directory remembers")
	flags.IntVar(&cfg.tokens, "tokens", 16, "`number` of its places on the ring; 0 for a proxy without documents")
	attached := flags.Bool("attached", false, "stop when the standard input ends, too")
	if err := flags.parse(args); err != nil {
		return err
	}
	switch {
	case cfg.data == "":
		return errors.New("-data is missing: the directory that the node's documents are kept in")
	case cfg.tokens < 0 || cfg.tokens > 256:
		return fmt.Errorf("-tokens is %d, must be from 0 to 256", cfg.tokens)
	}
	if *join != "" {
		cfg.join = strings.Split(*join, ",")
	}
	log := flags.log()
	defer log.Sync()
	if *attached {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() {
			io.Copy(io.Discard, in)
			cancel()
		}()
	}
	n, err := startNode(cfg, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s serves %s, http://%s\n", n.name, n.server.addr(), n.webAddr)
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	n.stop(stopping)
	return nil
}

// flags are those that a cluster and a node have in common.
type flags struct {
	*flag.FlagSet
	cfg   *config
	level zapcore.Level
}

func newFlags(name string, cfg *config) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), cfg: cfg, level: zap.WarnLevel}
	f.StringVar(&cfg.listen, "listen", cfg.listen, "`address` for clients, and for other nodes")
	f.StringVar(&cfg.http, "http", cfg.http, "`address` of the status page and the metrics")
	f.StringVar(&cfg.data, "data", "", "`directory` for the documents; of a cluster, by default one that is removed again")
	f.IntVar(&cfg.replicas, "replicas", 3, "`number` of nodes that each document is on; the same for all nodes")
	f.DurationVar(&cfg.timeout, "timeout", 500*time.Millisecond, "`time` that a search has if it doesn't say so itself")
	f.IntVar(&cfg.clients, "maxclients", 10_000, "`number` of connections at a time")
	f.Var(levelFlag{&f.level}, "log", "least `level` of what is logged: debug, info, warn or error")
	return f
}

type levelFlag struct{ *zapcore.Level }

func (l levelFlag) String() string {
	if l.Level == nil {
		return ""
	}
	return l.Level.String()
}

func (f *flags) parse(args []string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	case f.cfg.replicas < 1 || f.cfg.replicas > 15:
		return fmt.Errorf("-replicas is %d, must be from 1 to 15", f.cfg.replicas)
	case f.cfg.timeout <= 0:
		return fmt.Errorf("-timeout is %v, must be above 0", f.cfg.timeout)
	case f.cfg.clients < 1:
		return fmt.Errorf("-maxclients is %d, must be above 0", f.cfg.clients)
	}
	return nil
}

func (f *flags) log() *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), f.level))
}
