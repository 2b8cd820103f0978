package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// Limits against hostile input, for clients and nodes alike.
const (
	maxCommand = 64 << 20 // bytes of a command
	maxArgs    = 1 << 20  // its arguments
	maxInline  = 64 << 10 // bytes of a command that is just a line of text
)

// guard is a listener whose connections, up to most at a time, give redcon nothing but commands that are well-formed
// and within the limits. redcon by itself reads commands of any size, and lengths that it is better not told of.
type guard struct {
	net.Listener
	most   int
	mu     sync.Mutex
	open   int
	refuse func() // is told of each connection too many
}

func (g *guard) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		room := g.open < g.most
		if room {
			g.open++
		}
		g.mu.Unlock()
		if room {
			return &guarded{Conn: conn, closed: func() { g.mu.Lock(); g.open--; g.mu.Unlock() }}, nil
		}
		g.refuse()
		io.WriteString(conn, "-ERR max number of clients reached\r\n")
		conn.Close()
	}
}

// count returns how many connections are open.
func (g *guard) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// guarded is a connection that is looked at as it is read. What it gives redcon ends where a command does, or else
// fills the buffer: redcon's stack grows with each read that ends no command, and its buffer while reads end in the
// middle of one.
type guarded struct {
	net.Conn
	frames frames
	rest   []byte // has been read and looked at: of a command that isn't over
	fault  error
	once   sync.Once
	closed func()
}

func (c *guarded) Read(b []byte) (int, error) {
	n := copy(b, c.rest)
	c.rest = append(c.rest[:0], c.rest[n:]...)
	for n < len(b) && c.fault == nil {
		got, err := c.Conn.Read(b[n:])
		part := b[n : n+got]
		if c.fault = c.frames.look(part); c.frames.over > 0 {
			c.rest = append(c.rest, part[c.frames.over:]...)
			return n + c.frames.over, nil // and the fault, if there is one, the next time
		}
		if n += got; err != nil && c.fault == nil {
			return n, err
		}
	}
	if c.fault != nil {
		fmt.Fprintf(c.Conn, "-ERR Protocol error: %v\r\n", c.fault)
		return 0, c.fault
	}
	return n, nil
}

func (c *guarded) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

// frames follows a stream of RESP commands, as redcon reads them, to see where they begin and how long they are.
type frames struct {
	where  func(*frames, byte) error // what takes the next byte; nil: a command begins
	line   []byte                    // of a header, so far
	args   int                       // to come of this command
	bytes  int                       // to come of this argument, with the end of its line
	length int                       // of this command, so far
	over   int                       // bytes of the last look up to where a command ended; 0: none did
}

var (
	errBulkLength  = errors.New("invalid bulk length")
	errMultiLength = errors.New("invalid multibulk length")
	errTooLong     = errors.New("too big a command")
	errInline      = errors.New("too big inline request")
)

// look follows the stream over some more bytes.
func (f *frames) look(b []byte) error {
	all := len(b)
	for f.over = 0; len(b) > 0; {
		if f.bytes > 0 { // the bulk of it, in one step
			n := min(f.bytes, len(b))
			if f.bytes, b = f.bytes-n, b[n:]; f.bytes == 0 && f.args == 0 {
				f.where, f.over = nil, all-len(b)
			}
			continue
		}
		if f.where == nil {
			f.length, f.line = 0, f.line[:0]
			if f.where = (*frames).inline; b[0] == '*' {
				f.where = (*frames).multi
			}
		}
		if err := f.where(f, b[0]); err != nil {
			return err
		}
		if b = b[1:]; f.where == nil {
			f.over = all - len(b)
		}
	}
	return nil
}

func (f *frames) inline(c byte) error {
	if f.length++; f.length > maxInline {
		return errInline
	}
	if c == '\n' {
		f.where = nil
	}
	return nil
}

// multi takes the header of a command, "*" and how many arguments follow.
func (f *frames) multi(c byte) error {
	n, done, err := f.number(c, errMultiLength)
	if err != nil || !done {
		return err
	}
	if n < 1 || n > maxArgs {
		return errMultiLength
	}
	f.args, f.where = n, (*frames).bulk
	return nil
}

// bulk takes the header of an argument, "$" and its length.
func (f *frames) bulk(c byte) error {
	if len(f.line) == 0 && c != '$' {
		return fmt.Errorf("expected '$', got '%c'", c)
	}
	n, done, err := f.number(c, errBulkLength)
	if err != nil || !done {
		return err
	}
	if n < 0 {
		return errBulkLength
	}
	if f.length += n; n > maxCommand || f.length > maxCommand {
		return errTooLong
	}
	f.args--
	f.bytes = n + len("\r\n")
	return nil
}

// number takes a header, a letter and a number, byte by byte.
func (f *frames) number(c byte, fault error) (n int, done bool, err error) {
	if f.line = append(f.line, c); len(f.line) > 16 {
		return 0, false, fault
	}
	if c != '\n' {
		return 0, false, nil
	}
	f.length += len(f.line)
	if f.line[len(f.line)-2] != '\r' { // there is a letter at least, before the newline
		return 0, false, fault
	}
	n, err = strconv.Atoi(string(f.line[1 : len(f.line)-2]))
	f.line = f.line[:0]
	if err != nil {
		return 0, false, fault
	}
	return n, true, nil
}
