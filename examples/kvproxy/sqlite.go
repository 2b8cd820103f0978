package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// conn is a connection to the index's database. One goroutine at a time may use it.
type conn struct {
	*sqlite3.Conn
	spare    map[string]*sqlite3.Stmt // prepared statements that aren't in use
	distance func([]byte) float32     // to the vector that is searched for; it is an SQL function
}

const (
	maxSpareStatements = 100
	maxMemory          = 512 << 20 // of a connection, in bytes

	// Pages of SQLite's write-ahead log. From longLog on each commit tries to write the log back,
	// so that the log starts over. While searches overlap, one of them always reads the log. From
	// endlessLog on the writer waits for them, but for no longer than maxWait.
	longLog    = 1000
	endlessLog = 8 * longLog
	maxWait    = time.Second
)

// errCorrupt is the error of an index that has to be built anew.
var errCorrupt = errors.New("the index is corrupt")

func isCorrupt(err error) bool {
	return errors.Is(err, errCorrupt) || errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB)
}

func openConn(path string) (*conn, error) {
	db, err := sqlite3.OpenContext(sqlite3.WithMaxMemory(context.Background(), maxMemory), path)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: db, spare: make(map[string]*sqlite3.Stmt)}
	c.WALHook(func(c *sqlite3.Conn, _ string, pages int) error {
		mode := sqlite3.CHECKPOINT_PASSIVE
		if pages >= endlessLog {
			mode = sqlite3.CHECKPOINT_RESTART
		}
		if pages >= longLog {
			c.WALCheckpoint("main", mode) // if it fails, the next commit tries again
		}
		return nil
	})
	err = errors.Join(
		c.CreateFunction("distance", 1, 0, func(ctx sqlite3.Context, args ...sqlite3.Value) {
			ctx.ResultFloat(float64(c.distance(args[0].RawBlob())))
		}),
		c.BusyTimeout(maxWait),
		// After a loss of power the database can be corrupt. Then it is built anew. A cache of 32
		// MB holds some 60,000 vectors of 128 dimensions; without it each search reads them from
		// the file.
		c.Exec(`PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768`),
	)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *conn) close() error {
	for _, stmt := range c.spare {
		stmt.Close()
	}
	return c.Close()
}

// each runs a statement. It calls row for each row of the result, until row returns false.
func (c *conn) each(row func(*sqlite3.Stmt) bool, sql string, args ...any) (err error) {
	stmt := c.spare[sql]
	delete(c.spare, sql) // row may run the same one
	if stmt == nil {
		if stmt, _, err = c.Prepare(sql); err != nil {
			return err
		}
	}
	defer func() {
		stmt.Reset() // its error is that of Step
		stmt.ClearBindings()
		for other, s := range c.spare {
			if len(c.spare) < maxSpareStatements {
				break
			}
			s.Close()
			delete(c.spare, other)
		}
		c.spare[sql] = stmt
	}()
	for i, arg := range args {
		switch arg := arg.(type) {
		case nil: // NULL
		case int64:
			err = stmt.BindInt64(i+1, arg)
		case float64:
			err = stmt.BindFloat(i+1, arg)
		case []byte:
			err = stmt.BindBlob(i+1, arg)
		default:
			err = fmt.Errorf("bind a %T", arg)
		}
		if err != nil {
			return err
		}
	}
	for stmt.Step() {
		if row == nil || !row(stmt) {
			break
		}
	}
	return stmt.Err()
}

func (c *conn) exec(sql string, args ...any) error { return c.each(nil, sql, args...) }
