//go:build unix

// Pgvector finds the colours nearest to a given one on three PostgreSQL servers, which it starts.
// Each has a third of the colours.
//
//	go run -C examples ./pgvector -r 51 -g 102 -b 153 -slow 1
//
// The servers are PGlite with pgvector and an HNSW index if npm is installed. The first run
// installs PGlite in the user's cache directory. Otherwise they are Debian's PostgreSQL with the
// extension cube and a GiST index. The flag -engine chooses one.
//
//	go run -C examples ./pgvector postgres://host1/db postgres://host2/db
//
// asks servers that have a table "colours (name text, rgb vector(3))" already.
//
// It shows two things. A probe finds out whether an approximate index has returned too few rows,
// and says so with scatter.ErrPartial. And peers obey when they are cancelled: at the deadline pgx
// asks the server to cancel the query, and keeps the connection. PostgreSQL does so. PGlite ignores
// it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/demo"
)

const (
	// WITH TIES returns all rows that are equally far. Without it, the index would decide which of
	// them come.
	nearest = `SELECT name, (rgb <-> %[1]s)::float4 FROM colours WHERE name LIKE $2
		ORDER BY rgb <-> %[1]s FETCH FIRST $3 ROWS WITH TIES`
	count = `SELECT count(*) FROM (SELECT FROM colours WHERE name LIKE $1 LIMIT $2) AS matching`
)

// cancelGrace is how long a server may take to obey a cancel request. After that pgx closes the
// connection. The answer doesn't wait for it.
const cancelGrace = 5 * time.Second

// near is the query. Scatter takes any type that says how its answers are ordered, as KNN does.
type near struct {
	scatter.KNN
	Like string // the SQL pattern that names must match
}

// shards are the peers.
type shards struct {
	engine  *engine
	scan    uint // pgvector's hnsw.max_scan_tuples
	peers   []scatter.PeerID
	pools   map[scatter.PeerID]*pgxpool.Pool
	servers []*exec.Cmd // that the program has started
	dir     string      // of their data and sockets
}

// connect adds a peer, which may be down.
func (s *shards) connect(ctx context.Context, address, settings string) error {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return err
	}
	// All connections to PGlite share one session. A prepared statement with a name would stay
	// there when its connection is closed, and the next connection couldn't make it again.
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	config.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelGrace}
	}
	if s.engine == pgvector {
		settings += fmt.Sprintf("SET hnsw.iterative_scan = strict_order; SET hnsw.max_scan_tuples = %d;", s.scan)
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, settings)
		return err
	}
	c := config.ConnConfig
	peer := scatter.PeerID(fmt.Sprintf("%s:%d/%s", c.Host, c.Port, c.Database)) // An address may have a password.
	if s.pools[peer] != nil {
		return fmt.Errorf("the server %s is given twice", peer)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err == nil {
		s.peers, s.pools[peer] = append(s.peers, peer), pool
	}
	return err
}

// search is the scatter.Probe.
//
// An HNSW index stops when it has looked at hnsw.max_scan_tuples rows. With a filter, fewer than K
// of them may match although the table has more. PostgreSQL doesn't say so. But if fewer than K
// rows come, the index must have returned every row that matches. So the probe counts these rows
// without the index, up to K. More of them than hits mean that the hits are partial. As many mean
// that no row is missing. If K rows come, they may still not be the nearest: nobody knows what an
// approximate index misses.
func (s *shards) search(ctx context.Context, p scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
	q, pool := req.Query.(near), s.pools[p]
	rows, _ := pool.Query(ctx, s.nearestSQL(), q.Vector, q.Like, req.K) // CollectRows returns the error, too.
	hits, err := pgx.CollectRows(rows, pgx.RowToStructByPos[scatter.Hit[string]])
	if err != nil || len(hits) >= req.K {
		return hits, err
	}
	var matching int
	if err := pool.QueryRow(ctx, count, q.Like, req.K).Scan(&matching); err != nil {
		return hits, fmt.Errorf("%w, perhaps: %w", scatter.ErrPartial, err)
	}
	if matching > len(hits) {
		return hits, fmt.Errorf("%w: %d rows of at least %d", scatter.ErrPartial, len(hits), matching)
	}
	return hits, nil
}

func (s *shards) nearestSQL() string { return fmt.Sprintf(nearest, fmt.Sprintf(s.engine.vector, "$1")) }

func (s *shards) ask(
	ctx context.Context, q near, k int, deadline time.Duration,
) (*scatter.Response[scatter.Hit[string]], error) {
	req := &scatter.Request{Query: q, K: k}
	return scatter.Broadcast(ctx, req, s.peers, s.search, &scatter.Options{PeerDeadline: deadline})
}

const usage = `Usage: pgvector [flags] [ADDRESS...]

Pgvector finds the colours that are nearest to a given one, on PostgreSQL servers. It prints them, then a line
for each server. An ADDRESS is a URL (postgres://...) or a connection string of a server that has a table
"colours (name text, rgb vector(3))". Without addresses the program starts three servers, each with a third of
the colours that have names. It needs one of these Debian packages: nodejs and npm, or postgresql.

Flags:
`

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("pgvector", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	r, g, b := flags.Float64("r", 51, "`red`"), flags.Float64("g", 102, "`green`"), flags.Float64("b", 153, "`blue`")
	k := flags.Int("k", 6, "find `n` colours")
	like := flags.String("like", "%", "find only names that match this `pattern` of SQL")
	name := flags.String("engine", "", "pgvector or cube; if empty, pgvector if npm is installed")
	scan := flags.Uint("scan", 20_000, "let pgvector stop after `n` rows of a shard (hnsw.max_scan_tuples)")
	deadline := flags.Duration("deadline", 500*time.Millisecond, "wait for each server no longer than this `duration`")
	slow := flags.Uint("slow", 0, "let `n` of the three servers take an hour: the answer lacks their colours")
	flags.Parse(args)
	engines := map[string][]*engine{"": {pgvector, cube}, "pgvector": {pgvector}, "cube": {cube}}[*name]
	if engines == nil {
		return fmt.Errorf("-engine %q is neither pgvector nor cube", *name)
	}
	if *slow > 0 && flags.NArg() > 0 {
		return errors.New("-slow is for servers that the program starts, not for addresses")
	}
	s := &shards{scan: *scan, engine: engines[0], pools: make(map[scatter.PeerID]*pgxpool.Pool)}
	defer s.stop()
	for _, address := range flags.Args() {
		if err := s.connect(ctx, address, ""); err != nil {
			return err
		}
	}
	if flags.NArg() == 0 {
		if err := s.start(ctx, engines, 3, out); err != nil {
			return err
		}
	}
	for _, peer := range s.peers[:min(int(*slow), len(s.peers))] {
		if _, err := s.pools[peer].Exec(ctx, slowDown); err != nil {
			return err
		}
	}
	rgb := []float32{float32(*r), float32(*g), float32(*b)}
	resp, err := s.ask(ctx, near{KNN: scatter.KNN{Vector: rgb}, Like: *like}, *k, *deadline)
	if err != nil {
		return err
	}
	demo.Print(out, resp, "%8.1f")
	return nil
}

func main() { demo.Main(run) }
