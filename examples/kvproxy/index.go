package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
	"go.uber.org/zap"
)

// index is this node's index of the partitions that the ring gives it, in SQLite. It can be built
// again from the log at any time. One goroutine writes; searches read the last commit.
type index struct {
	path    string
	self    string
	changed func(*topology)
	log     *zap.Logger
	lock    *sqlite3.Conn // keeps other processes out

	write   sync.Mutex
	db      *conn      // guarded by write
	readers chan *conn // those that aren't in use; a nil is opened by its first user

	broken chan struct{}          // of 1: a search has found that the index is corrupt
	kick   [streams]chan struct{} // of 1: the follower should look for messages that it has missed

	mu    sync.Mutex
	state state
	moved chan struct{} // is closed and replaced when state changes
}

// A connection that has searched takes some 10 MB.
const readConns = 3

// state is what is known of the last commit without asking the database. Its parts are never
// changed.
type state struct {
	at positions // the sequences of the last entries that were applied

	// A follower that catches up gets the last value of each key, so that at some sequence it can
	// have neither a key's value of then nor the later one. A stream is whole up to here if there
	// is nothing of that kind. It is ready if it has been whole at all.
	whole positions
	ready [streams]bool

	tables []*table // sorted by name
	ring   *topology
}

// layout is the version of the tables below. An index of another one is built anew.
const layout = 1

const layoutSQL = `
	CREATE TABLE IF NOT EXISTS stream(
		n INTEGER PRIMARY KEY, created INTEGER, seq INTEGER, whole INTEGER, ready INTEGER);
	CREATE TABLE IF NOT EXISTS ring(revision INTEGER, body BLOB);
	CREATE TABLE IF NOT EXISTS idx(n INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB UNIQUE, schema BLOB);
	CREATE TABLE IF NOT EXISTS doc(id INTEGER PRIMARY KEY, key BLOB UNIQUE, p INTEGER, body BLOB);
	CREATE INDEX IF NOT EXISTS doc_p ON doc(p);`

// openIndex opens the index in a file, or makes it anew if the file is missing or corrupt.
// changed is called when another ring has been applied.
func openIndex(path, self string, changed func(*topology), log *zap.Logger) (_ *index, err error) {
	x := &index{
		path: path, self: self, changed: changed, log: log,
		readers: make(chan *conn, readConns), broken: make(chan struct{}, 1), moved: make(chan struct{}),
		state: state{ring: newTopology(self, 0, nil)},
	}
	for stream := range x.kick {
		x.kick[stream] = make(chan struct{}, 1)
	}
	defer func() {
		if err != nil {
			if x.lock != nil {
				x.lock.Close()
			}
			err = fmt.Errorf("open the index %s: %w", path, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if x.lock, err = sqlite3.Open(path + ".lock"); err != nil {
		return nil, err
	}
	if err := x.lock.Exec(`BEGIN EXCLUSIVE`); err != nil {
		return nil, fmt.Errorf("another process uses it: %w", err)
	}
	if err = x.open(); isCorrupt(err) {
		log.Warn("the index is built anew from the log", zap.String("path", path), zap.Error(err))
		err = errors.Join(x.remove(), x.open())
	}
	for range readConns {
		x.readers <- nil
	}
	return x, err
}

// open opens the writer's connection and loads the state. The caller has locked write.
func (x *index) open() (err error) {
	db, err := openConn(x.path)
	if err != nil {
		return err
	}
	x.mu.Lock()
	loaded := state{ring: x.state.ring} // also if the ring has been lost
	x.mu.Unlock()
	if err := x.load(db, &loaded); err != nil {
		return errors.Join(err, db.close())
	}
	x.db = db
	x.publish(loaded)
	return nil
}

func (x *index) load(db *conn, st *state) error {
	check, version := "", int64(0)
	text := func(row *sqlite3.Stmt) bool { check = row.ColumnText(0); return false }
	number := func(row *sqlite3.Stmt) bool { version = row.ColumnInt64(0); return false }
	if err := errors.Join(db.each(text, `PRAGMA quick_check`), db.each(number, `PRAGMA user_version`)); err != nil {
		return err
	}
	if check != "ok" || version != layout && version != 0 {
		return fmt.Errorf("%w: layout %d, quick_check says: %s", errCorrupt, version, check)
	}
	if err := db.Exec(layoutSQL + fmt.Sprintf(`PRAGMA user_version = %d`, layout)); err != nil {
		return err
	}
	var corrupt error
	err := errors.Join(
		db.each(func(row *sqlite3.Stmt) bool {
			stream := row.ColumnInt(0)
			st.at[stream], st.whole[stream] = uint64(row.ColumnInt64(1)), uint64(row.ColumnInt64(2))
			st.ready[stream] = row.ColumnBool(3)
			return true
		}, `SELECT n, seq, whole, ready FROM stream`),
		db.each(func(row *sqlite3.Stmt) bool {
			if nodes, err := decodeRing(row.ColumnRawBlob(1)); err == nil && len(nodes) > 0 {
				st.ring = newTopology(x.self, uint64(row.ColumnInt64(0)), nodes)
			}
			return true
		}, `SELECT revision, body FROM ring`),
		db.each(func(row *sqlite3.Stmt) bool {
			var t *table
			var err error
			if t, err = newTable(row.ColumnInt64(0), row.ColumnRawBlob(1)); err != nil {
				corrupt = fmt.Errorf("%w: %w", errCorrupt, err)
			} else {
				st.tables = append(st.tables, t)
			}
			return err == nil
		}, `SELECT n, schema FROM idx ORDER BY name`))
	return errors.Join(err, corrupt)
}

// remove closes the writer's connection and removes the database.
func (x *index) remove() (err error) {
	if x.db != nil {
		x.db.close()
		x.db = nil
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if e := os.Remove(x.path + suffix); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// rebuild replaces the database by an empty one. It waits for the searches that use it.
func (x *index) rebuild() error {
	x.write.Lock()
	defer x.write.Unlock()
	for range readConns {
		if c := <-x.readers; c != nil {
			c.close()
		}
		defer func() { x.readers <- nil }()
	}
	select {
	case <-x.broken:
	default:
	}
	return errors.Join(x.remove(), x.open())
}

// close closes the files.
func (x *index) close() error {
	x.write.Lock()
	defer x.write.Unlock()
	var errs []error
	for range readConns {
		if c := <-x.readers; c != nil {
			errs = append(errs, c.close())
		}
	}
	close(x.readers)
	if x.db != nil {
		errs = append(errs, x.db.close())
		x.db = nil
	}
	return errors.Join(append(errs, x.lock.Close())...)
}

// read lets do read the last commit by a connection of its own.
func (x *index) read(ctx context.Context, do func(*conn) error) (err error) {
	var c *conn
	var open bool
	select {
	case c, open = <-x.readers:
		if !open {
			return errors.New("the index is closed")
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { x.readers <- c }()
	if c == nil {
		if c, err = openConn(x.path); err != nil {
			return err
		}
	}
	c.SetInterrupt(ctx)
	defer c.SetInterrupt(context.Background())
	err = func() (err error) {
		tx := c.Begin()
		defer tx.End(&err)
		return do(c)
	}()
	x.check(err)
	if ctx.Err() != nil {
		return context.Cause(ctx) // SQLite says only that it was interrupted, and matchers nothing
	}
	return err
}

// check tells follow of an error that says that the index is corrupt.
func (x *index) check(err error) {
	if isCorrupt(err) {
		wake(x.broken)
	}
}

// wake doesn't block: one signal that waits is enough.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// batch is a transaction under way. Its state is what the state becomes by it.
type batch struct {
	*index
	db *conn
	state
}

// apply applies entries in one transaction, or none of them. Those of a stream are in the order of
// their sequences. An entry that has been applied before, or of a partition that this node doesn't
// hold, is skipped. whole says which streams are whole after this.
func (x *index) apply(ctx context.Context, entries []entry, whole [streams]bool) error {
	return x.commit(ctx, func(b *batch) error {
		for _, e := range entries {
			if err := b.apply(&e); err != nil {
				return fmt.Errorf("apply message %d of stream %s: %w", e.seq, streamName(e.stream), err)
			}
		}
		for stream := range whole {
			if whole[stream] && b.follows(stream) {
				b.whole[stream], b.ready[stream] = b.at[stream], true
			}
		}
		return nil
	})
}

// commit runs a transaction. Only when it is committed do others see its state.
func (x *index) commit(ctx context.Context, work func(*batch) error) error {
	x.write.Lock()
	defer x.write.Unlock()
	if x.db == nil {
		return errCorrupt // and the attempt to replace it has failed
	}
	before := x.now()
	b := &batch{index: x, db: x.db, state: before}
	b.tables = slices.Clone(before.tables)
	x.db.SetInterrupt(ctx)
	defer x.db.SetInterrupt(context.Background())
	err := func() (err error) {
		tx, err := x.db.BeginImmediate()
		if err != nil {
			return err
		}
		defer tx.End(&err)
		if err := work(b); err != nil {
			return err
		}
		if err := b.save(&before); err != nil {
			return err
		}
		// A search that sees the commit must not find that the ring is still the old one.
		x.mu.Lock()
		defer x.mu.Unlock()
		x.state.ring = b.ring
		return nil
	}()
	if err != nil {
		x.check(err)
		return err
	}
	x.publish(b.state)
	if b.ring != before.ring {
		x.changed(b.ring)
	}
	return nil
}

// save writes how far the streams have been applied.
func (b *batch) save(before *state) error {
	for stream := range streams {
		seq, whole, ready := b.at[stream], b.whole[stream], b.ready[stream]
		if seq == before.at[stream] && whole == before.whole[stream] && ready == before.ready[stream] {
			continue
		}
		isReady := int64(0)
		if ready {
			isReady = 1
		}
		err := b.db.exec(`INSERT INTO stream(n, seq, whole, ready) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT(n) DO UPDATE SET seq = ?2, whole = ?3, ready = ?4`,
			int64(stream), int64(seq), int64(whole), isReady)
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *index) publish(st state) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.state = st
	close(x.moved)
	x.moved = make(chan struct{})
}

func (x *index) now() state {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.state
}

// follows reports whether this node has a stream in its index.
func (st *state) follows(stream int) bool { return stream == meta || st.ring.held[stream] }

// applied returns how far each stream has been applied.
func (x *index) applied() positions { return x.now().whole }

// topology returns the ring as it was last applied. If there is none yet, it has no nodes.
func (x *index) topology() *topology { return x.now().ring }

// schema returns an index by its name, or nil.
func (x *index) schema(name string) *schema {
	st := x.now()
	if i, ok := st.find(name); ok {
		return st.tables[i].schema
	}
	return nil
}

// schemas returns all indexes, sorted by name.
func (x *index) schemas() []*schema {
	var all []*schema
	for _, t := range x.now().tables {
		all = append(all, t.schema)
	}
	return all
}

// find returns the place of an index, or where it would be.
func (st *state) find(name string) (int, bool) {
	return slices.BinarySearchFunc(st.tables, name, func(t *table, name string) int {
		return strings.Compare(t.schema.Name, name)
	})
}

// kickWait is how long wait waits for a message before it is taken for lost.
const kickWait = 20 * time.Millisecond

// wait returns when what this node holds, and the meta stream, have been applied up to the fence.
// If ctx ends before, the error names a stream that is behind.
func (x *index) wait(ctx context.Context, fence positions) error {
	for {
		x.mu.Lock()
		st, moved := x.state, x.moved
		x.mu.Unlock()
		behind := -1
		for stream := range streams {
			if st.follows(stream) && (!st.ready[stream] || st.whole[stream] < fence[stream]) {
				behind = stream
			}
		}
		if behind < 0 {
			return nil
		}
		select {
		case <-moved:
		case <-time.After(kickWait):
			wake(x.kick[behind])
		case <-ctx.Done():
			return fmt.Errorf("the index has stream %s up to %d and not yet up to %d: %w",
				streamName(behind), st.whole[behind], fence[behind], context.Cause(ctx))
		}
	}
}
