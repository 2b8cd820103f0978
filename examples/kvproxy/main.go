// Kvproxy is a key-value store with vector and text search that speaks Redis's protocol. It stores
// nothing of its own: NATS JetStream is the log of all writes, and each node is an index of a part
// of it, in SQLite. A search asks the nodes through scatter.
//
//	go run -C examples/kvproxy . -cluster 5
//
// starts three stores and five nodes on loopback, and says how to talk to them. README.md has a
// session, what is promised, and what isn't.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	startTime = time.Minute     // how long a process may take to start
	stopTime  = 3 * time.Second // how long it may take to stop
)

const usage = `Usage:
  kvproxy [flags]              one store and one node in this process
  kvproxy -cluster N [flags]   three stores and N nodes, each a process
  kvproxy node [flags]         one node, on a NATS cluster that runs already
  kvproxy store [flags]        one store: a NATS server with JetStream

The flags of %s:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "kvproxy:", err)
		os.Exit(1)
	}
}

// run is the program. It returns when ctx ends, or with an error.
func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) > 0 && args[0] == "node" {
		return runNode(ctx, args[1:], in, out)
	}
	if len(args) > 0 && args[0] == "store" {
		return runStore(ctx, args[1:], in, out)
	}
	var cfg config
	f := newFlags("kvproxy")
	f.nodeFlags(&cfg)
	data := f.String("data", "", "`directory` of the log and the indexes (default one that is removed at the end)")
	lazy := f.Bool("lazy", false, "don't sync each write to the disk: faster, but not safe when the power fails")
	nodes := f.Int("cluster", 0, "start this `number` of nodes and three stores, each a process")
	if err := f.parse(args, &cfg); err != nil {
		return err
	}
	if *nodes < 0 || *nodes > 100 {
		return fmt.Errorf("-cluster is %d, must be from 1 to 100", *nodes)
	}
	if *data == "" {
		dir, err := os.MkdirTemp("", "kvproxy")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*data = dir
	}
	if *nodes > 0 {
		return runCluster(ctx, cfg, *nodes, *data, *lazy, f.inherited(), out)
	}
	log := f.log()
	s, err := startStore(storeConfig{
		name: "store1", listen: "127.0.0.1:0", data: filepath.Join(*data, "store1"), lazy: *lazy,
	}, log)
	if err != nil {
		return err
	}
	defer s.stop()
	cfg.name, cfg.nats, cfg.replicas, cfg.data = "node1", s.url(), 1, filepath.Join(*data, "node1")
	return serveNode(ctx, cfg, log, out)
}

// runNode runs one node until ctx ends.
func runNode(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	var cfg config
	f := newFlags("kvproxy node")
	f.nodeFlags(&cfg)
	f.StringVar(&cfg.name, "name", "", "the node's `name`, unique in the cluster: letters, digits, - and _")
	f.StringVar(&cfg.nats, "nats", "", "`URLs` of a NATS cluster (2.11 or later) with JetStream, separated by commas")
	f.StringVar(&cfg.data, "data", "", "`directory` of the index; it is built again from the log if it is lost")
	f.IntVar(&cfg.replicas, "replicas", 3, "the `number` of NATS servers that have each write, if the streams are new")
	attached := f.attachedFlag()
	if err := f.parse(args, &cfg); err != nil {
		return err
	}
	switch {
	case !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(cfg.name):
		return fmt.Errorf("-name is %q, must be letters, digits, - and _", cfg.name)
	case cfg.nats == "":
		return errors.New("-nats is missing: the URLs of a NATS cluster")
	case cfg.data == "":
		return errors.New("-data is missing: the directory of the index")
	case cfg.replicas < 1 || cfg.replicas > 5:
		return fmt.Errorf("-replicas is %d, must be from 1 to 5", cfg.replicas)
	}
	ctx, cancel := attach(ctx, *attached, in)
	defer cancel()
	return serveNode(ctx, cfg, f.log(), out)
}

// serveNode runs a node until ctx ends.
func serveNode(ctx context.Context, cfg config, log *zap.Logger, out io.Writer) error {
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	n, err := startNode(starting, cfg, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s serves %s, http://%s\n", cfg.name, n.server.addr(), n.webAt)
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	n.stop(stopping)
	return nil
}

// runStore runs one store until ctx ends.
func runStore(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	var cfg storeConfig
	f := newFlags("kvproxy store")
	f.StringVar(&cfg.name, "name", "", "the store's `name`, unique in the cluster")
	f.StringVar(&cfg.listen, "listen", "127.0.0.1:4222", "`address` for nodes")
	f.StringVar(&cfg.data, "data", "", "`directory` of the streams")
	f.StringVar(&cfg.cluster, "cluster", "", "`address` for other stores; if empty, this store is the only one")
	routes := f.String("routes", "", "`URLs` of the stores' -cluster addresses, separated by commas: nats://HOST:PORT")
	f.BoolVar(&cfg.lazy, "lazy", false, "don't sync each write to the disk: faster, but not safe when the power fails")
	attached := f.attachedFlag()
	if err := f.parse(args, nil); err != nil {
		return err
	}
	switch {
	case cfg.name == "":
		return errors.New("-name is missing: a name that no other store has")
	case cfg.data == "":
		return errors.New("-data is missing: the directory of the streams")
	case *routes != "" && cfg.cluster == "":
		return errors.New("-routes needs -cluster: the address for the other stores")
	}
	if *routes != "" {
		cfg.routes = strings.Split(*routes, ",")
	}
	ctx, cancel := attach(ctx, *attached, in)
	defer cancel()
	s, err := startStore(cfg, f.log())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s serves %s\n", cfg.name, s.url())
	<-ctx.Done()
	s.stop()
	return nil
}

// attach returns a context that ends also when in does, if the process is a part of -cluster.
// Ctrl-C in a terminal reaches all processes, but the first one decides in which order they stop.
func attach(ctx context.Context, attached bool, in io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if attached {
		signal.Ignore(os.Interrupt) // SIGTERM still ends ctx
		go func() {
			_, _ = io.Copy(io.Discard, in) // an error is an end, too
			cancel()
			time.AfterFunc(2*stopTime, func() { os.Exit(1) })
		}()
	}
	return ctx, cancel
}

// flags are the flags of a subcommand.
type flags struct {
	*flag.FlagSet
	level                 zapcore.Level
	fresh, partial, multi *string
}

func newFlags(name string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), level: zap.WarnLevel}
	f.TextVar(&f.level, "log", f.level, "lowest `level` that is logged: debug, info, warn or error")
	f.Usage = func() {
		fmt.Fprintf(f.Output(), usage, name)
		f.PrintDefaults()
	}
	return f
}

// nodeFlags adds the flags of all nodes.
func (f *flags) nodeFlags(cfg *config) {
	f.StringVar(&cfg.listen, "listen", "127.0.0.1:7000", "`address` for clients; with -cluster, of the first node")
	f.StringVar(&cfg.http, "http", "127.0.0.1:0", "`address` of the status page and the metrics")
	f.DurationVar(&cfg.timeout, "timeout", 500*time.Millisecond, "`time` that a search has if it has no TIMEOUT")
	f.IntVar(&cfg.clients, "maxclients", 10_000, "the largest `number` of connections")
	f.fresh = f.String("fresh", "log", "which writes a search sees. With `log`, all that were acknowledged before.\n"+
		"With session, those that were acknowledged by the same node, and no leader is asked")
	f.partial = f.String("partial", "error", "a partial answer for a RESP2 client: `error`, or return the answer")
	f.multi = f.String("multi", "refuse", "MULTI: `refuse`, or pipeline: EXEC runs the commands without isolation")
}

func (f *flags) attachedFlag() *bool {
	return f.Bool("attached", false, "stop when the standard input ends")
}

// parse parses and checks the flags of all nodes, if cfg isn't nil.
func (f *flags) parse(args []string, cfg *config) (err error) {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("argument %q is unknown; -h says what there is", f.Arg(0))
	}
	if cfg == nil {
		return nil
	}
	choice := func(name, value, no, yes string) bool {
		if value != no && value != yes {
			err = fmt.Errorf("-%s is %q, must be %s or %s", name, value, no, yes)
		}
		return value == yes
	}
	cfg.session = choice("fresh", *f.fresh, "log", "session")
	cfg.partial = choice("partial", *f.partial, "error", "return")
	cfg.pipeline = choice("multi", *f.multi, "refuse", "pipeline")
	switch {
	case err != nil:
	case cfg.timeout <= 0:
		err = fmt.Errorf("-timeout is %v, must be above 0", cfg.timeout)
	case cfg.clients < 1:
		err = fmt.Errorf("-maxclients is %d, must be above 0", cfg.clients)
	}
	return err
}

// inherited returns the flags that the nodes of a cluster get as they are.
func (f *flags) inherited() (args []string) {
	f.Visit(func(flag *flag.Flag) {
		switch flag.Name {
		case "timeout", "maxclients", "fresh", "partial", "multi", "log":
			args = append(args, "-"+flag.Name+"="+flag.Value.String())
		}
	})
	return args
}

func (f *flags) log() *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), f.level))
}
