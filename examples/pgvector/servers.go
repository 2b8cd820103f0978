//go:build unix

package main

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	servePostgres = `"$0"/initdb -D "$1" -U postgres -A trust -N --no-locale -E UTF8 >/dev/null &&
		exec "$0"/postgres -D "$1" -k "$1" -h '' -p 5432 -F`
	// An immediate shutdown of PostgreSQL is SIGQUIT, but Node.js would dump its core.
	stopSignal = syscall.SIGINT
	nobody     = 65534 // The user that PostgreSQL runs as if we are root, which it refuses to run as.

	load = `INSERT INTO colours SELECT split_part(line, ' ', 1), %s
		FROM unnest(string_to_array($1, E'\n')) WITH ORDINALITY AS lines (line, i) WHERE i %% $2 = $3`
	useIndex = "SET enable_seqscan = off;" // Without it PostgreSQL uses no index for so few rows.
	slowDown = `ALTER TABLE colours RENAME TO kept; CREATE VIEW colours AS SELECT kept.* FROM kept, pg_sleep(3600)`
)

var (
	//go:embed colours.txt
	colours string // name and RGB
	//go:embed serve.mjs
	servePGlite string
)

// engine is an extension of PostgreSQL with an index for nearest neighbours, and servers that have
// it.
type engine struct {
	what   string
	vector string // SQL that makes a vector of an array %s
	table  string // SQL that makes the table
	// find returns the directory of the server's program.
	find func(ctx context.Context, out io.Writer) (string, error)
	// server is a server with a socket in dir. It says when it is "ready to accept connections".
	server func(program, dir string) *exec.Cmd
}

var pgvector = &engine{
	what:   "PGlite (PostgreSQL in WebAssembly) with pgvector and an HNSW index",
	vector: "(%s)::float4[]::vector",
	table: `CREATE EXTENSION vector; CREATE TABLE colours (name text, rgb vector(3));
		CREATE INDEX ON colours USING hnsw (rgb vector_l2_ops);`,
	find: findPGlite,
	server: func(program, dir string) *exec.Cmd {
		server := exec.Command("node", "--input-type=module", "--eval", servePGlite, dir+"/.s.PGSQL.5432")
		server.Dir = program // where node finds the packages
		return server
	},
}

var cube = &engine{
	what:   "PostgreSQL with the extension cube and a GiST index",
	vector: "cube((%s)::float8[])",
	table: `CREATE EXTENSION cube; CREATE TABLE colours (name text, rgb cube);
		CREATE INDEX ON colours USING gist (rgb);`,
	find: findPostgres,
	server: func(program, dir string) *exec.Cmd {
		server := exec.Command("sh", "-c", servePostgres, program, dir)
		server.Dir = dir // which the user nobody may enter
		return server
	},
}

// findPGlite finds PostgreSQL in WebAssembly with pgvector, which npm installs if it isn't there.
func findPGlite(ctx context.Context, out io.Writer) (string, error) {
	_, err := exec.LookPath("node")
	npm, err2 := exec.LookPath("npm")
	if err := errors.Join(err, err2); err != nil {
		return "", fmt.Errorf("%w: apt-get install nodejs npm", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "scatter-pgvector")
	dir := filepath.Join(cache, "pglite-0.5.14")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(cache, "part") // so that dir, if it exists, has all
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	fmt.Fprintf(out, "npm installs PGlite in %s\n", dir)
	// --legacy-peer-deps leaves out extensions that nobody uses here.
	install := exec.CommandContext(ctx, npm, "install", "--prefix", part, "--legacy-peer-deps", "--ignore-scripts",
		"--no-audit", "--no-fund", "--save-exact", "@electric-sql/pglite@0.5.14",
		"@electric-sql/pglite-pgvector@0.0.15", "@electric-sql/pglite-socket@0.2.17")
	if said, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install: %w; without it there is -engine cube:\n%s", err, said)
	}
	if err := os.Rename(part, dir); err != nil && !errors.Is(err, os.ErrExist) { // Another process may be faster.
		return "", err
	}
	return dir, nil
}

func findPostgres(context.Context, io.Writer) (string, error) {
	debian, _ := filepath.Glob("/usr/lib/postgresql/[1-9][0-9]/bin/postgres") // not in the PATH
	postgres, err := exec.LookPath(append(debian, "postgres")[0])
	if err != nil {
		return "", fmt.Errorf("%w: apt-get install postgresql", err)
	}
	return filepath.Dir(postgres), nil
}

// find returns the first of the engines whose program is installed, and the program's directory.
func find(ctx context.Context, engines []*engine, out io.Writer) (*engine, string, error) {
	var missing error
	for _, e := range engines {
		program, err := e.find(ctx, out)
		if !errors.Is(err, exec.ErrNotFound) {
			return e, program, err
		}
		missing = errors.Join(missing, err)
	}
	return nil, "", missing
}

// start starts n servers of the first engine that is installed, each with a part of the colours.
func (s *shards) start(ctx context.Context, engines []*engine, n int, out io.Writer) error {
	e, program, err := find(ctx, engines, out)
	if err != nil {
		return err
	}
	s.engine = e
	fmt.Fprintf(out, "%d servers: %s, in %s\n", n, e.what, program)
	if s.dir, err = os.MkdirTemp("", "pgvector"); err != nil {
		return err
	}
	s.servers = make([]*exec.Cmd, n)
	var starting errgroup.Group
	for i := range n {
		starting.Go(func() error { return s.startServer(ctx, program, i) })
	}
	if err := starting.Wait(); err != nil {
		return cmp.Or(ctx.Err(), err) // If ctx has ended, that has stopped the servers.
	}
	sql := e.table + fmt.Sprintf(load, fmt.Sprintf(e.vector, "string_to_array(split_part(line, ' ', 2), ',')"))
	for i := range n {
		// PGlite has only one session. If two connections used it at once, they would mix their
		// messages.
		address := fmt.Sprintf("host='%s' port=5432 user=postgres dbname=postgres pool_max_conns=1", s.socketDir(i))
		if err := s.connect(ctx, address, useIndex); err != nil {
			return err
		}
		_, err := s.pools[s.peers[i]].Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol, strings.TrimSpace(colours), n, i)
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *shards) socketDir(i int) string { return fmt.Sprintf("%s/%d", s.dir, i+1) }

// startServer returns when the server is ready, or has been stopped because ctx has ended.
func (s *shards) startServer(ctx context.Context, program string, i int) error {
	dir := s.socketDir(i)
	server := s.engine.server(program, dir)
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches only us, and we stop the servers.
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if os.Geteuid() == 0 && s.engine == cube {
		server.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		os.Chown(s.dir, nobody, nobody)
		os.Chown(dir, nobody, nobody)
	}
	stderr, err := server.StderrPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	s.servers[i] = server
	stop := context.AfterFunc(ctx, func() { server.Process.Signal(stopSignal) })
	defer stop()
	said := ""
	for lines := bufio.NewScanner(stderr); !strings.Contains(said, "ready to accept"); said += lines.Text() + "\n" {
		if !lines.Scan() {
			return fmt.Errorf("the server has ended: %s", said)
		}
	}
	go io.Copy(io.Discard, stderr)
	return nil
}

// stop stops the servers first, because a pool waits for its queries when it is closed.
func (s *shards) stop() {
	for _, server := range s.servers {
		if server != nil {
			server.Process.Signal(stopSignal)
			server.Wait()
		}
	}
	for _, pool := range s.pools {
		pool.Close()
	}
	os.RemoveAll(s.dir)
}
