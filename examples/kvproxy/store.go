package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/ext/vec1"
)

// store is what a node has on its disk: documents, the order in which they have changed, and the indexes over them, all
// in one SQLite database. One goroutine writes. Calls that come while a transaction is written share the next one, so
// that the wait for the disk is shared too. Readers see the last transaction that is whole; they neither wait for the
// writer nor hold it up.
type store struct {
	born  uint64
	node  string
	lock  *sqlite3.Conn // keeps other processes out
	db    *conn         // the one that writes; the goroutine run has it
	state atomic.Pointer[state]

	searchers chan *conn // those that are free, for what goes through an index
	readers   chan *conn // likewise, for what doesn't take long and isn't to wait for that

	logged  int // pages in the log; only run knows
	written int // how many there were when they were last written back

	writes chan *write
	ending chan struct{} // is closed when the store is
	ended  chan struct{} // is closed when run has returned
	once   sync.Once
	closed error
}

// A connection takes some 10 MB once it has searched, mostly for SQLite's own heap and cache.
const (
	searchConns = 3
	readConns   = 2
)

const (
	maxKey      = 4 << 10  // bytes: so short that a reply has room for as many as a search may find
	maxDocument = 60 << 20 // bytes of its encoding; a peer's reply has room for one
	maxGroup    = 256      // calls that share a transaction
	maxMemory   = 512 << 20
)

// The log is written back to the database after each longLog pages, so that it starts over; from endlessLog pages on
// even if that has to wait until no search reads from it any more, but for no more than maxWait.
const (
	longLog    = 1000
	endlessLog = 8 * longLog
	maxWait    = time.Second
)

var errClosed = errors.New("the store is closed")

// state is what is known of the last transaction without asking the database. Nobody changes one.
type state struct {
	seq       int64   // of the last change
	latest    version // greatest in any document
	documents int64   // of clients, without those that are gone
	indexes   []index // sorted by name
}

// find returns the place of an index, or where it would be.
func (s *state) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.indexes, name, func(ix index, name string) int {
		return strings.Compare(ix.schema.Name, name)
	})
}

// change is what is to be merged into the document stored under a key, the first byte of which says whose it is.
type change struct {
	key string
	doc document
}

// stamp tells whether a document is the same elsewhere.
type stamp struct {
	key string
	sum uint64
}

type storeStats struct {
	documents int64 // of clients
	indexed   int64 // documents in indexes; one that is in two counts twice
	failures  int64 // fields that should be in an index and can't be: vectors of the wrong length, for example
}

// tables is everything but the indexes' own tables. A document keeps its id for good, as one that was deleted is still
// there; its seq is a new one with each change, so that in the order of seq they stand as they have changed.
const tables = `
	CREATE TABLE IF NOT EXISTS node(epoch INTEGER, name TEXT, seq INTEGER, latest INTEGER, documents INTEGER);
	CREATE TABLE IF NOT EXISTS meta(name BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;
	CREATE TABLE IF NOT EXISTS doc(id INTEGER PRIMARY KEY, key BLOB UNIQUE, seq INTEGER UNIQUE, sum INTEGER, body BLOB);
	CREATE TABLE IF NOT EXISTS idx(
		n INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB UNIQUE, schema BLOB, documents INTEGER, failures INTEGER);`

// openStore opens the store in a directory, which is made if need be.
func openStore(dir string) (_ *store, err error) {
	s := &store{
		searchers: make(chan *conn, searchConns),
		readers:   make(chan *conn, readConns),
		writes:    make(chan *write, maxGroup),
		ending:    make(chan struct{}),
		ended:     make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open store %s: %w", dir, errors.Join(err, s.release()))
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if s.lock, err = sqlite3.Open(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	if err := s.lock.Exec(`BEGIN EXCLUSIVE`); err != nil {
		return nil, fmt.Errorf("another process has it: %w", err)
	}
	path := filepath.Join(dir, "store.db")
	if s.db, err = openConn(path); err != nil {
		return nil, err
	}
	s.db.WALHook(func(_ *sqlite3.Conn, _ string, pages int) error {
		s.logged = pages
		return nil
	})
	if err := s.db.Exec(tables); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	for _, pool := range []chan *conn{s.searchers, s.readers} {
		for range cap(pool) {
			c, err := openConn(path)
			if err != nil {
				return nil, err
			}
			pool <- c
		}
	}
	go s.run()
	return s, nil
}

// load reads the state, and gives a new store its name.
func (s *store) load() error {
	st := new(state)
	loaded := false
	err := s.db.each(func(row *sqlite3.Stmt) bool {
		s.born, s.node = uint64(row.ColumnInt64(0)), row.ColumnText(1)
		st.seq, st.latest, st.documents = row.ColumnInt64(2), version(row.ColumnInt64(3)), row.ColumnInt64(4)
		loaded = true
		return true
	}, `SELECT epoch, name, seq, latest, documents FROM node`)
	if err != nil {
		return err
	}
	if !loaded {
		var random [16]byte
		rand.Read(random[:])
		s.born, s.node = binary.BigEndian.Uint64(random[:8]), hex.EncodeToString(random[8:])
		err := s.db.exec(`INSERT INTO node VALUES (?, ?, 0, 0, 0)`, int64(s.born), []byte(s.node))
		if err != nil {
			return err
		}
	}
	var corrupt error
	err = s.db.each(func(row *sqlite3.Stmt) bool {
		var ix *index
		if ix, corrupt = newIndex(row.ColumnBlob(1, nil)); corrupt != nil {
			return false
		}
		ix.n, ix.documents, ix.failures = row.ColumnInt64(0), row.ColumnInt64(2), row.ColumnInt64(3)
		st.indexes = append(st.indexes, *ix)
		return true
	}, `SELECT n, schema, documents, failures FROM idx ORDER BY name`)
	s.state.Store(st)
	return errors.Join(err, corrupt)
}

// close waits for what is under way. What is asked of the store afterwards is an error.
func (s *store) close() error {
	s.once.Do(func() {
		close(s.ending)
		<-s.ended
		for _, pool := range []chan *conn{s.searchers, s.readers} {
			for range cap(pool) {
				s.closed = errors.Join(s.closed, (<-pool).close())
			}
		}
		s.closed = errors.Join(s.closed, s.release())
	})
	return s.closed
}

// release closes what no goroutine uses.
func (s *store) release() (err error) {
	for _, pool := range []chan *conn{s.searchers, s.readers} {
		for len(pool) > 0 {
			err = errors.Join(err, (<-pool).close())
		}
	}
	return errors.Join(err, s.db.close(), s.lock.Close())
}

// epoch is a random number made with the database. If it is another one, so is the database.
func (s *store) epoch() uint64 { return s.born }

// name is what the node is called: random hex, made with the database.
func (s *store) name() string { return s.node }

// latest returns the greatest version in any document.
func (s *store) latest() version { return s.state.Load().latest }

func (s *store) stats() storeStats {
	st := s.state.Load()
	stats := storeStats{documents: st.documents}
	for _, ix := range st.indexes {
		stats.indexed += ix.documents
		stats.failures += ix.failures
	}
	return stats
}

// failures returns how many fields that should be in an index can't be: see storeStats.
func (s *store) failures(name string) int64 {
	st := s.state.Load()
	if i, ok := st.find(name); ok {
		return st.indexes[i].failures
	}
	return 0
}

// schema returns the schema of an index.
func (s *store) schema(name string) (*schema, bool) {
	st := s.state.Load()
	i, ok := st.find(name)
	if !ok {
		return nil, false
	}
	return st.indexes[i].schema, true
}

// schemas returns the schemas of all indexes, by name.
func (s *store) schemas() []*schema {
	var all []*schema
	for _, ix := range s.state.Load().indexes {
		all = append(all, ix.schema)
	}
	return all
}

// get returns the documents under some keys. One that isn't there is the zero document.
func (s *store) get(ctx context.Context, keys []string) ([]document, error) {
	docs := make([]document, len(keys))
	err := s.read(ctx, s.readers, func(c *conn) error {
		for i, key := range keys {
			_, body, err := c.stored(key)
			if err == nil && body != nil {
				docs[i], err = decodeDocument(body)
			}
			if err != nil {
				return fmt.Errorf("read %q: %w", key, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return docs, nil
}

// sums returns the digests of the documents under some keys, or 0 for one that isn't there.
func (s *store) sums(ctx context.Context, keys []string) ([]uint64, error) {
	sums := make([]uint64, len(keys))
	err := s.read(ctx, s.readers, func(c *conn) error {
		for i, key := range keys {
			err := c.each(func(row *sqlite3.Stmt) bool {
				sums[i] = uint64(row.ColumnInt64(0))
				return false
			}, `SELECT sum FROM doc WHERE key = ?`, []byte(key))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return sums, nil
}

// since lists what has changed after seq, 0 for all: at most limit of those documents whose key is wanted, the oldest
// change first. A document that has changed more than once counts with its last change. next is the seq to go on with,
// and more whether there is something to go on with.
func (s *store) since(ctx context.Context, seq int64, limit int, wanted func(key string) bool) (
	page []stamp, next int64, more bool, err error,
) {
	scanned := 0
	next = seq
	err = s.read(ctx, s.readers, func(c *conn) error {
		return c.each(func(row *sqlite3.Stmt) bool {
			if scanned++; len(page) >= limit || scanned > 20*limit { // one is to get on though little is wanted
				more = true
				return false
			}
			next = row.ColumnInt64(0)
			if key := string(row.ColumnRawBlob(1)); wanted(key) {
				page = append(page, stamp{key, uint64(row.ColumnInt64(2))})
			}
			return true
		}, `SELECT seq, key, sum FROM doc WHERE seq > ? ORDER BY seq`, seq)
	})
	if err != nil {
		return nil, seq, false, err
	}
	return page, next, more, nil
}

// meta returns a value that setMeta has stored, or nil.
func (s *store) meta(ctx context.Context, name string) (value []byte, err error) {
	err = s.read(ctx, s.readers, func(c *conn) error {
		return c.each(func(row *sqlite3.Stmt) bool {
			value = row.ColumnBlob(0, nil)
			return false
		}, `SELECT value FROM meta WHERE name = ?`, []byte(name))
	})
	return value, err
}

// setMeta stores a value under a name of the caller's choice.
func (s *store) setMeta(ctx context.Context, name string, value []byte) error {
	return s.write(ctx, func(b *batch) error {
		return b.db.exec(`REPLACE INTO meta VALUES (?, ?)`, []byte(name), value)
	})
}

// apply merges changes into what is stored, all or none of them, and returns when that is on the disk. After an error
// nothing of it was stored. Once the changes are being written, it waits for the end of that even if ctx is over.
func (s *store) apply(ctx context.Context, changes []change) error {
	return s.write(ctx, func(b *batch) error {
		for _, c := range changes {
			if err := b.change(c.key, &c.doc); err != nil {
				return fmt.Errorf("write %.100q: %w", c.key, err)
			}
		}
		return nil
	})
}

// write is what one call wants written.
type write struct {
	work    func(*batch) error // may be called again after an error
	claimed atomic.Bool        // by run, which then does it, or by its caller, who doesn't want it any more
	done    chan error         // of 1
}

func (s *store) write(ctx context.Context, work func(*batch) error) error {
	w := &write{work: work, done: make(chan error, 1)}
	select {
	case <-s.ending: // or else it might be left in the queue
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
	}
	select {
	case s.writes <- w:
	case <-s.ending:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var over error
	select {
	case err := <-w.done:
		return err
	case <-s.ended:
		over = errClosed
	case <-ctx.Done():
		over = context.Cause(ctx)
	}
	if w.claimed.CompareAndSwap(false, true) {
		return over
	}
	return <-w.done
}

// run does all the writing, until the store is closed.
func (s *store) run() {
	defer close(s.ended)
	for {
		select {
		case first := <-s.writes:
			s.writeGroup(first)
			s.checkpoint()
		case <-s.ending:
			return
		}
	}
}

// writeGroup does a write, together with what else is waiting.
func (s *store) writeGroup(first *write) {
	runtime.Gosched() // those whom the last transaction has set free may have something by now
	group := []*write{first}
	for len(group) < maxGroup && len(s.writes) > 0 {
		group = append(group, <-s.writes)
	}
	group = slices.DeleteFunc(group, func(w *write) bool { return !w.claimed.CompareAndSwap(false, true) })
	err := s.commit(group)
	for _, w := range group {
		if err != nil && len(group) > 1 { // whoever is to blame for it
			w.done <- s.commit([]*write{w})
		} else {
			w.done <- err
		}
	}
}

// commit does some writes in one transaction.
func (s *store) commit(group []*write) error {
	before := s.state.Load()
	b := &batch{db: s.db, state: *before}
	b.state.indexes = slices.Clone(before.indexes)
	err := func() (err error) {
		tx, err := s.db.BeginImmediate()
		if err != nil {
			return err
		}
		defer tx.End(&err)
		for _, w := range group {
			if err := w.work(b); err != nil {
				return err
			}
		}
		return b.save(before)
	}()
	if err == nil {
		s.state.Store(&b.state)
	}
	return err
}

// checkpoint writes a log that has become long back to the database. As long as searches overlap, there is always one
// that reads from the log, and it can't start over.
func (s *store) checkpoint() {
	if s.logged < s.written { // it has started over
		s.written = 0
	}
	if s.logged < s.written+longLog {
		return
	}
	mode := sqlite3.CHECKPOINT_PASSIVE
	if s.logged >= endlessLog {
		mode = sqlite3.CHECKPOINT_RESTART
	}
	s.db.WALCheckpoint("main", mode) // what can't be done now is done the next time
	s.written = s.logged
}

// batch is a transaction under way, and what the state will be after it.
type batch struct {
	db    *conn
	state state
}

// change merges a change into what is stored under a key.
func (b *batch) change(key string, delta *document) error {
	if len(key) == 0 || key[0] != clientKey && key[0] != schemaKey {
		return errors.New("no such kind of key")
	}
	if len(key) > maxKey {
		return fmt.Errorf("the key has %d bytes, more than %d", len(key), maxKey)
	}
	id, body, err := b.db.stored(key)
	if err != nil {
		return err
	}
	var old document
	if body == nil {
		body = old.encode()
	} else if old, err = decodeDocument(body); err != nil {
		return err
	}
	now := old.with(*delta)
	encoded := now.encode()
	if bytes.Equal(encoded, body) {
		return nil
	}
	if len(encoded) > maxDocument {
		return fmt.Errorf("the document would have %d bytes, more than %d", len(encoded), maxDocument)
	}
	st := &b.state
	st.seq++
	st.latest = max(st.latest, now.latest())
	if id == 0 {
		err = b.db.exec(`INSERT INTO doc(key, seq, sum, body) VALUES (?, ?, ?, ?)`,
			[]byte(key), st.seq, int64(digest(encoded)), encoded)
		id = b.db.LastInsertRowID()
	} else {
		err = b.db.exec(`UPDATE doc SET seq = ?, sum = ?, body = ? WHERE id = ?`,
			st.seq, int64(digest(encoded)), encoded, id)
	}
	if err != nil {
		return err
	}
	if key[0] == schemaKey {
		return b.define(key[1:], &now)
	}
	if now.kind() != noKey {
		st.documents++
	}
	if old.kind() != noKey {
		st.documents--
	}
	for i := range st.indexes {
		if err := b.reindex(&st.indexes[i], id, key[1:], &old, &now); err != nil {
			return fmt.Errorf("index %q: %w", st.indexes[i].schema.Name, err)
		}
	}
	return nil
}

// save writes down what has changed of the state.
func (b *batch) save(before *state) error {
	st := &b.state
	if st.seq == before.seq {
		return nil
	}
	for _, ix := range st.indexes {
		err := b.db.exec(`UPDATE idx SET documents = ?1, failures = ?2
			WHERE n = ?3 AND (documents <> ?1 OR failures <> ?2)`, ix.documents, ix.failures, ix.n)
		if err != nil {
			return err
		}
	}
	return b.db.exec(`UPDATE node SET seq = ?, latest = ?, documents = ?`, st.seq, int64(st.latest), st.documents)
}

// read has one of the connections of a pool read from the last transaction that is whole.
func (s *store) read(ctx context.Context, pool chan *conn, do func(*conn) error) error {
	select {
	case <-s.ending: // close may be waiting for the connections, too
		return errClosed
	default:
	}
	var c *conn
	select {
	case c = <-pool:
	case <-s.ending:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { pool <- c }()
	c.SetInterrupt(ctx)
	defer c.SetInterrupt(context.Background())
	err := func() (err error) {
		tx := c.Begin()
		defer tx.End(&err)
		return do(c)
	}()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx) // SQLite knows only that it was interrupted
	}
	return err
}

// conn is a connection to the database. Only one goroutine at a time may use it.
type conn struct {
	*sqlite3.Conn
	spare map[string]*sqlite3.Stmt // prepared statements that aren't in use
}

const maxSpareStatements = 100

func openConn(path string) (*conn, error) {
	c, err := sqlite3.OpenContext(sqlite3.WithMaxMemory(context.Background(), maxMemory), path)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		vec1.Register(c),
		c.CreateFunction("inner_product", 2, sqlite3.DETERMINISTIC, innerProduct),
		c.BusyTimeout(maxWait),
		c.Exec(`PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
			PRAGMA wal_autocheckpoint = 0`),
	)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &conn{c, make(map[string]*sqlite3.Stmt)}, nil
}

func (c *conn) close() error {
	if c == nil {
		return nil
	}
	for _, stmt := range c.spare {
		stmt.Close()
	}
	return c.Conn.Close()
}

// each runs a statement and calls row on each row that it results in, until that returns false.
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
		case int64:
			err = stmt.BindInt64(i+1, arg)
		case []byte: // nil: NULL
			err = stmt.BindBlob(i+1, arg)
		default:
			err = fmt.Errorf("can't bind a %T", arg)
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

// stored returns the id and the encoding of the document under a key, or nil.
func (c *conn) stored(key string) (id int64, body []byte, err error) {
	err = c.each(func(row *sqlite3.Stmt) bool {
		id, body = row.ColumnInt64(0), row.ColumnBlob(1, nil)
		return false
	}, `SELECT id, body FROM doc WHERE key = ?`, []byte(key))
	return id, body, err
}
