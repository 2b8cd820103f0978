package main

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidwall/redcon"
)

// Nodes ask each other things by one private command, many at a time on one connection, answered in any order:
//
//	SCATTER.PEER id op microseconds arg...
//
// where microseconds is the time left until the request's deadline, or 0 if it has none. A reply is an array:
//
//	id OK part...        or        id ERR message
const peerCommand = "SCATTER.PEER"

const (
	maxFrame    = 64 << 20              // bytes of a request or a reply: what the guard lets pass
	maxParts    = 1 << 20               // of a request or a reply
	maxOp       = 64                    // bytes
	maxInFlight = 4096                  // requests under way to one peer
	maxPeerTime = time.Hour             // the longest time to a deadline that is told to a peer
	dialTimeout = 2 * time.Second       // by then the peer's machine has answered
	dialPause   = 50 * time.Millisecond // from one dial to the next
	watchEvery  = time.Second           // how often a connection is looked at
	pingAfter   = 2                     // times that it was silent when it was looked at, while replies were owed
	lostAfter   = 6                     // likewise
	maxHandlers = 2048                  // requests that a node works on at the same time for one connection
	maxWaiting  = 16 << 20              // bytes of replies above which no more requests are read
	maxSpare    = 64 << 10              // bytes of memory kept for the next reply
	stuckAfter  = 10 * time.Second      // a peer that takes no replies for so long is gone
)

var (
	errRemoteClosed = errors.New("the connection is closed for good")
	errTooMany      = errors.New("too many requests under way")
	errSilent       = errors.New("the peer is silent")
)

// peerError is what a peer has to say in the place of an answer.
type peerError struct{ addr, message string }

func (e *peerError) Error() string { return "peer " + e.addr + ": " + e.message }

// remote asks one other node. It connects by itself when it is asked something, and anew when the connection is lost.
// It is safe for concurrent use.
type remote struct {
	addr    string
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	ctx     context.Context // of the dials
	stop    context.CancelFunc
	refusal atomic.Pointer[time.Time] // when the last dial began, if it was refused
	lastID  atomic.Uint64             // of a request
	running sync.WaitGroup

	mu       sync.Mutex // of what is below, and of the link
	closed   bool
	link     *link     // nil: there is none
	lastDial time.Time // when the last link began
	lastErr  error     // of the last link that has ended
}

// link is one connection of a remote, from the dial on. When it ends, so does all that was asked on it. Requests wait
// in the queue for the goroutine that writes; from the first to the last of its time each is in calls, under its id.
//
// Deadlines are kept in a heap, with one timer for the first of them. A reply doesn't touch the timer, and a new
// request seldom does: it mostly has the latest deadline of all.
type link struct {
	*remote
	conn    net.Conn // nil until dialled
	ended   bool
	calls   map[uint64]*call
	due     deadlines
	timer   *time.Timer // calls expire
	wakeAt  time.Time   // when the timer does so; zero: not at all
	queue   []*call
	queued  int       // bytes of the queue, and of what is being written
	work    sync.Cond // the queue isn't empty, or the link has ended
	owed    int       // requests written and not answered, be they given up or not
	heard   bool      // something since the last look
	silent  int       // looks in a row that found it silent although it owed something
	watcher *time.Timer
}

// call is a request under way.
type call struct {
	id       uint64    // 0: a ping, whose answer nobody waits for
	deadline time.Time // zero: none
	frame    []byte    // as it is written; nil when that has been done, or needn't be any more
	place    int       // in link.due; -1: not there
	done     func([][]byte, error)
}

// newRemote returns a remote for the node that listens on addr.
func newRemote(addr string) *remote {
	r := &remote{addr: addr, dial: new(net.Dialer).DialContext}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// do sends a request and returns at once. done is called exactly once, on another goroutine or on this one, with the
// parts of the reply, which are the callee's; with a *peerError, if the peer has answered with an error; with
// context.DeadlineExceeded, when the deadline has passed without an answer; or with the error of the dial or the
// connection, of which the peer may have got the request or not. A zero deadline is none. done must not block: other
// replies wait for it.
func (r *remote) do(deadline time.Time, op string, args [][]byte, done func(parts [][]byte, err error)) {
	r.start(&call{id: r.lastID.Add(1), deadline: deadline, place: -1, done: done}, op, args)
}

// call sends a request and waits for the reply. When ctx ends first, it returns ctx's cause.
func (r *remote) call(ctx context.Context, op string, args ...[]byte) ([][]byte, error) {
	type reply struct {
		parts [][]byte
		err   error
	}
	in := make(chan reply, 1)
	c := &call{id: r.lastID.Add(1), place: -1, done: func(parts [][]byte, err error) { in <- reply{parts, err} }}
	c.deadline, _ = ctx.Deadline()
	l := r.start(c, op, args)
	select {
	case got := <-in:
		if got.err != nil && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return got.parts, got.err
	case <-ctx.Done():
		if l != nil {
			l.mu.Lock()
			l.take(c.id)
			l.mu.Unlock()
		}
		return nil, context.Cause(ctx)
	}
}

// refused says whether the peer's machine has refused the last dial, as it does when no process listens there. If that
// was a while ago, it has the peer dialled again: a program that asks no peer that is refused finds out that it is
// back.
func (r *remote) refused() bool {
	if r.refusal.Load() == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connect()
	return r.refusal.Load() != nil
}

// refusedAt returns when the last dial began, if it was refused: nobody has listened there after that, for a moment
// at least.
func (r *remote) refusedAt() (time.Time, bool) {
	if at := r.refusal.Load(); at != nil {
		return *at, true
	}
	return time.Time{}, false
}

// close ends what is under way with errors, and returns when the remote's goroutines have ended. It must not be called
// by a done.
func (r *remote) close() {
	r.mu.Lock()
	r.closed = true
	l := r.link
	r.mu.Unlock()
	r.stop()
	if l != nil {
		l.end(errRemoteClosed)
	}
	r.running.Wait()
}

// start puts a request into the queue of the link, which it returns; or it says at once why not, and returns nil.
func (r *remote) start(c *call, op string, args [][]byte) *link {
	l, err := r.queue(c, op, args)
	if err != nil {
		c.done(nil, err)
	}
	return l
}

func (r *remote) queue(c *call, op string, args [][]byte) (*link, error) {
	size, most := 0, 100+len(op)+16*len(args) // most of what goes with the arguments
	for _, a := range args {
		size += len(a)
	}
	if size+most > maxFrame || 4+len(args) > maxParts {
		return nil, r.wrap(fmt.Errorf("a request of %d arguments, %d bytes, is too long", len(args), size))
	}
	left := maxPeerTime
	if !c.deadline.IsZero() {
		if left = min(left, time.Until(c.deadline)); left <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	c.frame = appendRequest(make([]byte, 0, size+most), c, left, op, args)

	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.connect(); err != nil {
		return nil, err
	}
	l := r.link
	if len(l.calls) >= maxInFlight || l.queued > 0 && l.queued+len(c.frame) > maxFrame {
		return nil, r.wrap(errTooMany)
	}
	l.calls[c.id] = c
	if !c.deadline.IsZero() {
		heap.Push(&l.due, c)
		l.wake()
	}
	l.push(c)
	return l, nil
}

func appendRequest(b []byte, c *call, left time.Duration, op string, args [][]byte) []byte {
	micros := uint64(0)
	if !c.deadline.IsZero() {
		micros = uint64(max(1, left.Microseconds()))
	}
	b = redcon.AppendArray(b, 4+len(args))
	b = redcon.AppendBulkString(b, peerCommand)
	b = appendNumber(b, c.id)
	b = redcon.AppendBulkString(b, op)
	b = appendNumber(b, micros)
	for _, a := range args {
		b = redcon.AppendBulk(b, a)
	}
	return b
}

func appendNumber(b []byte, n uint64) []byte {
	var digits [20]byte
	return redcon.AppendBulk(b, strconv.AppendUint(digits[:0], n, 10))
}

func (r *remote) wrap(err error) error { return fmt.Errorf("peer %s: %w", r.addr, err) }

// connect begins a link if there is none. Soon after the last one it doesn't, and returns that one's error. The caller
// has the lock.
func (r *remote) connect() error {
	switch {
	case r.closed:
		return r.wrap(errRemoteClosed)
	case r.link != nil:
		return nil
	case r.lastErr != nil && time.Since(r.lastDial) < dialPause:
		return r.lastErr
	}
	l := &link{remote: r, calls: make(map[uint64]*call)}
	l.work.L = &r.mu
	r.link, r.lastDial = l, time.Now()
	r.running.Go(l.run)
	return nil
}

// run dials, and then writes what is in the queue until the link ends.
func (l *link) run() {
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	began := time.Now()
	conn, err := l.dial(ctx, "tcp", l.addr)
	cancel()
	if errors.Is(err, syscall.ECONNREFUSED) {
		l.refusal.Store(&began)
	} else {
		l.refusal.Store(nil)
	}
	if err != nil {
		l.end(err)
		return
	}
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		conn.Close()
		return
	}
	l.conn = conn
	l.watcher = time.AfterFunc(watchEvery, l.watch)
	l.running.Go(func() { l.end(l.read()) })
	l.mu.Unlock()

	out := bufio.NewWriterSize(conn, 64<<10)
	var frames [][]byte
	written := 0
	for {
		frames = l.pull(frames[:0], written)
		if len(frames) == 0 {
			return
		}
		written = 0
		for _, frame := range frames {
			written += len(frame)
			out.Write(frame)
		}
		clear(frames)
		if err := out.Flush(); err != nil {
			l.end(err)
			return
		}
	}
}

// push adds to the queue. What has been given up there is taken out before it is the greater part. The caller has the
// lock.
func (l *link) push(c *call) {
	if len(l.queue) > 2*len(l.calls)+64 {
		l.queue = slices.DeleteFunc(l.queue, func(c *call) bool { return c.frame == nil })
	}
	l.queue = append(l.queue, c)
	l.queued += len(c.frame)
	l.work.Signal()
}

// pull waits until there is something to write, and takes all of it but what has been given up meanwhile; nothing, if
// the link has ended. written is how much of the last pull's has left the queue by now.
func (l *link) pull(frames [][]byte, written int) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queued -= written
	for !l.ended {
		for _, c := range l.queue {
			if c.frame != nil {
				frames = append(frames, c.frame)
				c.frame = nil
			}
		}
		clear(l.queue)
		l.queue = l.queue[:0]
		if l.owed += len(frames); len(frames) > 0 {
			break
		}
		l.work.Wait()
	}
	return frames
}

// read hands out replies until the connection or its peer fails.
func (l *link) read() error {
	in := newReplyReader(l.conn)
	for {
		id, ok, parts, err := in.reply()
		if err != nil {
			return err
		}
		c, err := l.answered(id)
		switch {
		case err != nil:
			return err
		case c == nil:
		case ok:
			c.done(parts, nil)
		default:
			c.done(nil, &peerError{l.addr, string(bytes.Join(parts, []byte(" ")))})
		}
	}
}

// answered notes that a reply has come, and returns the call that it is for; nil if that has been given up. A peer that
// answers what it was not asked, or twice, is noticed unless it does so instead of another answer: what it says then
// goes nowhere.
func (l *link) answered(id uint64) (*call, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = true
	if l.owed--; l.owed < 0 || id > l.lastID.Load() {
		return nil, fmt.Errorf("a reply to what was not asked: %d", id)
	}
	return l.take(id), nil
}

// take ends the time of a call: whoever gets it has to call its done. It returns nil if somebody else has. The caller
// has the lock.
func (l *link) take(id uint64) *call {
	c := l.calls[id]
	if c != nil {
		l.drop(c)
	}
	return c
}

func (l *link) drop(c *call) {
	l.queued -= len(c.frame)
	c.frame = nil
	delete(l.calls, c.id)
	if c.place >= 0 {
		heap.Remove(&l.due, c.place)
	}
}

// wake sees to it that the timer goes off at the first deadline, or before. The caller has the lock.
func (l *link) wake() {
	if len(l.due) == 0 {
		return
	}
	first := l.due[0].deadline
	switch {
	case l.timer == nil:
		l.timer = time.AfterFunc(time.Until(first), l.expire)
	case l.wakeAt.IsZero() || first.Before(l.wakeAt):
		l.timer.Reset(time.Until(first))
	default:
		return
	}
	l.wakeAt = first
}

// expire gives up the calls whose deadlines have passed.
func (l *link) expire() {
	var late []*call
	l.mu.Lock()
	now := time.Now()
	for len(l.due) > 0 && !l.due[0].deadline.After(now) {
		late = append(late, l.due[0])
		l.drop(l.due[0])
	}
	l.wakeAt = time.Time{}
	l.wake()
	l.mu.Unlock()
	for _, c := range late {
		c.done(nil, context.DeadlineExceeded)
	}
}

// watch looks whether the peer still says something when it should. A peer that is busy with long requests answers a
// ping; one that hangs doesn't, and the connection to it is given up. It counts looks and not seconds, so that a node
// that was itself stopped for a while blames nobody.
func (l *link) watch() {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	if l.silent++; l.heard || l.owed == 0 {
		l.silent = 0
	}
	l.heard = false
	if l.silent == pingAfter {
		ping := &call{place: -1}
		ping.frame = appendRequest(nil, ping, 0, "PING", nil)
		l.push(ping)
	}
	l.watcher.Reset(watchEvery)
	lost := l.silent >= lostAfter
	l.mu.Unlock()
	if lost {
		l.end(errSilent)
	}
}

// end ends the link, and the calls on it with an error.
func (l *link) end(err error) {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	err = l.wrap(err)
	l.ended, l.link, l.lastErr = true, nil, err
	calls := l.calls
	l.calls, l.due, l.queue = nil, nil, nil
	for _, t := range []*time.Timer{l.timer, l.watcher} {
		if t != nil {
			t.Stop()
		}
	}
	l.work.Broadcast()
	l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
	}
	for _, c := range calls {
		c.done(nil, err)
	}
}

// deadlines is a heap of calls, the earliest deadline first.
type deadlines []*call

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

func (d *deadlines) Push(c any) {
	c.(*call).place = len(*d)
	*d = append(*d, c.(*call))
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	c := (*d)[last]
	(*d)[last] = nil
	*d, c.place = (*d)[:last], -1
	return c
}

// replyReader reads replies. What isn't one is an error, after which nothing more can be read.
type replyReader struct {
	in   *bufio.Reader
	left int // bytes that the reply may still have
	word [32]byte
}

func newReplyReader(in io.Reader) *replyReader {
	return &replyReader{in: bufio.NewReaderSize(in, 64<<10)}
}

func (r *replyReader) reply() (id uint64, ok bool, parts [][]byte, err error) {
	r.left = maxFrame
	n, err := r.number('*', maxParts)
	if err != nil {
		return 0, false, nil, err
	}
	if n < 2 {
		return 0, false, nil, fmt.Errorf("a reply of %d parts", n)
	}
	word, err := r.bulk(r.word[:])
	if err != nil {
		return 0, false, nil, err
	}
	if id, err = strconv.ParseUint(string(word), 10, 64); err != nil {
		return 0, false, nil, fmt.Errorf("a reply with the id %.30q", word)
	}
	if word, err = r.bulk(r.word[:]); err != nil {
		return 0, false, nil, err
	}
	if ok = string(word) == "OK"; !ok && string(word) != "ERR" {
		return 0, false, nil, fmt.Errorf("a reply that is neither OK nor ERR, but %.30q", word)
	}
	parts = make([][]byte, 0, min(n-2, 1024))
	for range n - 2 {
		part, err := r.bulk(nil)
		if err != nil {
			return 0, false, nil, err
		}
		parts = append(parts, part)
	}
	return id, ok, parts, nil
}

// number reads a line like "*12", and returns the 12.
func (r *replyReader) number(kind byte, most int) (int, error) {
	line, err := r.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	digits, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || len(digits) < 2 || digits[0] != kind {
		return 0, fmt.Errorf("not a reply, but %.80q", line)
	}
	n, err := strconv.ParseUint(string(digits[1:]), 10, 31)
	if err != nil || int(n) > most {
		return 0, fmt.Errorf("a length in a reply that is not between 0 and %d: %.30q", most, digits)
	}
	return int(n), nil
}

// bulk reads a string, into b if that has room.
func (r *replyReader) bulk(b []byte) ([]byte, error) {
	n, err := r.number('$', r.left)
	if err != nil {
		return nil, err
	}
	r.left -= n
	if n+2 > cap(b) {
		b = make([]byte, n+2)
	}
	if _, err := io.ReadFull(r.in, b[:n+2]); err != nil {
		return nil, err
	}
	if string(b[n:n+2]) != "\r\n" {
		return nil, fmt.Errorf("a part of a reply that ends in %q", b[n:n+2])
	}
	return b[:n:n], nil
}

// peerHandler does what a peer asks for. ctx has the deadline that came with the request, and ends when the connection
// does. The arguments are the handler's.
type peerHandler func(ctx context.Context, op string, args [][]byte) ([][]byte, error)

// peerConn is the serving side of a connection. Each request is handled on a goroutine of its own; one more goroutine
// writes the replies, as many at a time as there are.
type peerConn struct {
	conn    net.Conn
	handle  peerHandler
	ctx     context.Context
	running sync.WaitGroup
	slots   chan struct{} // has an element for each request that is being handled

	mu      sync.Mutex
	replies []peerReply
	waiting int       // bytes of the replies, and of what is being written
	ended   bool      // no more replies come
	changed sync.Cond // one of these
}

type peerReply struct {
	id    uint64
	ok    bool
	parts [][]byte // the message, if it isn't ok
}

func failure(id uint64, format string, args ...any) peerReply {
	return peerReply{id: id, parts: [][]byte{fmt.Appendf(nil, format, args...)}}
}

func (r peerReply) size() int {
	n := 64
	for _, part := range r.parts {
		n += len(part) + 32
	}
	return n
}

func (r peerReply) append(b []byte) []byte {
	status := "OK"
	if !r.ok {
		status = "ERR"
	}
	b = redcon.AppendArray(b, 2+len(r.parts))
	b = appendNumber(b, r.id)
	b = redcon.AppendBulkString(b, status)
	for _, part := range r.parts {
		b = redcon.AppendBulk(b, part)
	}
	return b
}

// servePeer answers the peer at the other end of conn until the connection ends, from its first command on. It returns
// when all that it has started has ended. To end it, close conn.NetConn(); if it runs on the goroutine of the redcon
// handler that has detached conn, closing the server does so.
func servePeer(conn redcon.DetachedConn, first redcon.Command, handle peerHandler) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &peerConn{conn: conn.NetConn(), handle: handle, ctx: ctx, slots: make(chan struct{}, maxHandlers)}
	p.changed.L = &p.mu
	p.conn.SetWriteDeadline(time.Now().Add(stuckAfter))
	conn.Flush() // what went before; from now on redcon only reads. If it fails, so does the next write
	var writer sync.WaitGroup
	writer.Go(p.write)

	for cmd, err := first, error(nil); err == nil; cmd, err = conn.ReadCommand() {
		if err := p.begin(cmd); err != nil {
			p.reply(failure(0, "%v", err))
			break
		}
	}

	cancel()
	p.running.Wait()
	p.mu.Lock()
	p.ended = true
	p.changed.Broadcast()
	p.mu.Unlock()
	writer.Wait()
	p.conn.Close()
}

// begin has a request handled. An error is of one who doesn't speak the protocol.
func (p *peerConn) begin(cmd redcon.Command) error {
	if len(cmd.Args) < 4 || !bytes.EqualFold(cmd.Args[0], []byte(peerCommand)) {
		return fmt.Errorf("on this connection only %s id op microseconds arg... is understood", peerCommand)
	}
	id, err := strconv.ParseUint(string(cmd.Args[1]), 10, 64)
	if err != nil {
		return fmt.Errorf("%s: a bad id: %.30q", peerCommand, cmd.Args[1])
	}
	micros, err := strconv.ParseUint(string(cmd.Args[3]), 10, 63)
	if err != nil {
		return fmt.Errorf("%s: a bad time: %.30q", peerCommand, cmd.Args[3])
	}
	op := string(cmd.Args[2])
	if len(op) > maxOp {
		return fmt.Errorf("%s: an op of %d bytes", peerCommand, len(op))
	}
	if op == "PING" {
		p.reply(peerReply{id: id, ok: true})
		return nil
	}
	select {
	case p.slots <- struct{}{}:
		p.running.Go(func() {
			p.reply(p.answer(id, op, int64(micros), cmd.Args[4:]))
			<-p.slots
		})
	default:
		p.reply(failure(id, "%s: %d requests are being handled already", op, maxHandlers))
	}
	p.mu.Lock()
	for p.waiting > maxWaiting {
		p.changed.Wait()
	}
	p.mu.Unlock()
	return nil
}

// answer calls the handler. A panic in there is an error of the one request, and tells its stack to who has asked.
func (p *peerConn) answer(id uint64, op string, micros int64, args [][]byte) (r peerReply) {
	defer func() {
		if v := recover(); v != nil {
			r = failure(id, "%s: panic: %v\n%s", op, v, debug.Stack())
		}
	}()
	ctx := p.ctx
	if micros > 0 {
		var cancel context.CancelFunc
		left := time.Duration(min(micros, maxPeerTime.Microseconds())) * time.Microsecond
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	parts, err := p.handle(ctx, op, args)
	if err != nil {
		return failure(id, "%v", err)
	}
	r = peerReply{id: id, ok: true, parts: parts}
	if r.size() > maxFrame || len(parts) > maxParts-2 {
		return failure(id, "%s: a reply of %d parts, %d bytes, is too long", op, len(parts), r.size())
	}
	return r
}

func (p *peerConn) reply(r peerReply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replies = append(p.replies, r)
	p.waiting += r.size()
	p.changed.Broadcast()
}

// write writes replies until no more come. If the peer doesn't take them the connection is closed, for the reader to
// notice.
func (p *peerConn) write() {
	var batch []peerReply
	var b []byte
	out := bufio.NewWriterSize(p.conn, 64<<10)
	for {
		p.mu.Lock()
		for len(p.replies) == 0 && !p.ended {
			p.changed.Wait()
		}
		batch, p.replies = p.replies, batch[:0]
		p.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		p.conn.SetWriteDeadline(time.Now().Add(stuckAfter))
		size := 0
		for _, r := range batch {
			size += r.size()
			b = r.append(b[:0])
			out.Write(b)
			if cap(b) > maxSpare {
				b = nil
			}
		}
		clear(batch)
		if out.Flush() != nil {
			p.conn.Close()
		}
		p.mu.Lock()
		p.waiting -= size
		p.changed.Broadcast()
		p.mu.Unlock()
	}
}
