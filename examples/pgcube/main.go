//go:build unix

// Pgcube finds the colours nearest to a given one on three PostgreSQL servers, which it starts.
// Each has a third of the colours, and finds the nearest by the distance operator of the extension
// cube and a GiST index.
//
// It shows peers that obey when they are cancelled: at the deadline pgx makes the server end the
// query, too. By default pgx closes the connection then. With a
// pgconn.CancelRequestContextWatcherHandler it would keep it.
//
//	go run -C examples ./pgcube -r 51 -g 102 -b 153 -slow 1
package main

import (
	"bufio"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/demo"
)

//go:embed colours.txt
var colours string // name and RGB

const (
	serve = `"$0"/initdb -D "$1" -U postgres -A trust -N --no-locale -E UTF8 >/dev/null &&
		exec "$0"/postgres -D "$1" -k "$1" -h '' -p 5432 -F`
	nobody = 65534 // The user that PostgreSQL runs as if we are root, which it refuses to run as.

	load = `CREATE EXTENSION cube; CREATE TABLE colours (name text, rgb cube); CREATE INDEX ON colours USING gist (rgb);
		INSERT INTO colours SELECT split_part(line, ' ', 1), split_part(line, ' ', 2)::cube
		FROM unnest(string_to_array($1, E'\n')) WITH ORDINALITY AS lines (line, i) WHERE i % $2 = $3`
	slowDown = `ALTER TABLE colours RENAME TO kept; CREATE VIEW colours AS SELECT kept.* FROM kept, pg_sleep(3600)`
	// WITH TIES returns all rows that are equally far. Without it, the index would decide which of
	// them come.
	nearest = `SELECT name, (rgb <-> cube($1::float8[]))::float4 FROM colours
		ORDER BY rgb <-> cube($1::float8[]) FETCH FIRST $2 ROWS WITH TIES`
)

// shards are the peers: servers that the program has started.
type shards struct {
	peers   []scatter.PeerID // the directories with their data and their sockets
	pools   map[scatter.PeerID]*pgxpool.Pool
	servers []*exec.Cmd
	dir     string // the directory of them all
}

// search is the scatter.Probe.
func (s *shards) search(ctx context.Context, p scatter.PeerID, req *scatter.Request) ([]scatter.Hit[string], error) {
	rows, _ := s.pools[p].Query(ctx, nearest, req.Query.(scatter.KNN).Vector, req.K) // CollectRows returns the error, too.
	return pgx.CollectRows(rows, pgx.RowToStructByPos[scatter.Hit[string]])
}

// start starts n servers on unix sockets, each with a part of the colours.
func (s *shards) start(ctx context.Context, n int) (err error) {
	debian, _ := filepath.Glob("/usr/lib/postgresql/[1-9][0-9]/bin/postgres") // not in the PATH
	postgres, err := exec.LookPath(append(debian, "postgres")[0])
	if err != nil {
		return fmt.Errorf("%w: apt-get install postgresql postgresql-contrib", err)
	}
	if s.dir, err = os.MkdirTemp("", "pgcube"); err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches only us, and we stop the servers.
	if os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		os.Chown(s.dir, nobody, nobody)
	}
	for i := 0; i < n && err == nil; i++ {
		dir := fmt.Sprintf("%s/%d", s.dir, i+1)
		server := exec.Command("sh", "-c", serve, filepath.Dir(postgres), dir)
		server.Dir, server.SysProcAttr = s.dir, attr
		stderr, _ := server.StderrPipe()
		if err := server.Start(); err != nil {
			return err
		}
		s.servers = append(s.servers, server)
		said := ""
		for lines := bufio.NewScanner(stderr); !strings.Contains(said, "ready to accept"); said += lines.Text() + "\n" {
			if !lines.Scan() {
				return fmt.Errorf("PostgreSQL has ended:\n%s", said)
			}
		}
		go io.Copy(io.Discard, stderr)
		var pool *pgxpool.Pool
		if pool, err = pgxpool.New(ctx, "host='"+dir+"' port=5432 user=postgres dbname=postgres"); err == nil {
			s.peers, s.pools[scatter.PeerID(dir)] = append(s.peers, scatter.PeerID(dir)), pool
			_, err = pool.Exec(ctx, load, pgx.QueryExecModeSimpleProtocol, strings.TrimSpace(colours), n, i)
		}
	}
	return err
}

func (s *shards) stop() {
	for _, server := range s.servers {
		server.Process.Signal(syscall.SIGQUIT) // an immediate shutdown
		server.Wait()
	}
	for _, pool := range s.pools {
		pool.Close()
	}
	os.RemoveAll(s.dir)
}

const usage = `Usage: pgcube [flags]

Pgcube starts three PostgreSQL servers, each with a third of the colours that have names, and finds the six
nearest to a given one. It prints them, then a line for each server.

Flags:
`

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("pgcube", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	r, g, b := flags.Float64("r", 51, "`red`"), flags.Float64("g", 102, "`green`"), flags.Float64("b", 153, "`blue`")
	deadline := flags.Duration("deadline", 500*time.Millisecond, "wait for each server no longer than this `duration`")
	slow := flags.Uint("slow", 0, "let `n` of the servers take an hour: the answer lacks their colours")
	flags.Parse(args)
	s := &shards{pools: make(map[scatter.PeerID]*pgxpool.Pool)}
	defer s.stop()
	if err := s.start(ctx, 3); err != nil {
		return err
	}
	for _, peer := range s.peers[:min(*slow, 3)] {
		if _, err := s.pools[peer].Exec(ctx, slowDown); err != nil {
			return err
		}
	}
	req := &scatter.Request{Query: scatter.KNN{Vector: []float32{float32(*r), float32(*g), float32(*b)}}, K: 6}
	resp, err := scatter.Broadcast(ctx, req, s.peers, s.search, &scatter.Options{PeerDeadline: *deadline})
	if err != nil {
		return err
	}
	demo.Print(out, resp, "")
	return nil
}

func main() { demo.Main(run) }
