package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// The limits of a command. redcon has none: it panics at a bulk length that overflows, loops for
// hours at a huge number of arguments, and buffers whatever it gets.
const (
	maxCommand = 64 << 20 // bytes
	maxArgs    = 1 << 20
	maxInline  = 8 << 10 // bytes of a command that is a line of text
)

var (
	errMultibulk = errors.New("invalid multibulk length")
	errBulk      = errors.New("invalid bulk length")
	errTooBig    = errors.New("too big a command")
	errInline    = errors.New("too big inline request")
	errHTTP      = errors.New("this port doesn't speak HTTP")
)

// guard is a listener whose connections deliver nothing but complete commands within the limits.
type guard struct{ net.Listener }

func (g guard) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			time.Sleep(100 * time.Millisecond) // redcon tries again at once, which doesn't help if files run out
		}
		return nil, err
	}
	return newGuarded(conn), nil
}

// guarded is a connection that reads a command to its end before it delivers the first byte. Its
// Read never returns bytes of two commands.
type guarded struct {
	net.Conn
	reader  *bufio.Reader
	command bytes.Buffer // what has not been delivered yet
}

func newGuarded(conn net.Conn) *guarded {
	return &guarded{Conn: conn, reader: bufio.NewReaderSize(conn, maxInline)}
}

func (c *guarded) Read(b []byte) (int, error) {
	if c.command.Len() == 0 {
		if c.command.Reset(); c.command.Cap() > maxInline {
			c.command = bytes.Buffer{}
		}
		if fault, err := readCommand(c.reader, &c.command); err != nil {
			return 0, err
		} else if fault != nil {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			fmt.Fprintf(c.Conn, "-ERR Protocol error: %v\r\n", fault)
			return 0, fault
		}
	}
	return c.command.Read(b)
}

// readCommand reads a command. fault is what is wrong with it, err is an error of the connection.
func readCommand(r *bufio.Reader, command *bytes.Buffer) (fault, err error) {
	line, fault, err := readLine(r, errInline)
	if err != nil || fault != nil {
		return fault, err
	}
	if line[0] != '*' {
		words := bytes.Fields(line)
		if len(words) == 3 && bytes.HasPrefix(words[2], []byte("HTTP/")) {
			return errHTTP, nil // what follows isn't for us: a browser can be made to send commands
		}
		command.Write(line)
		return nil, nil
	}
	n, ok := header(line)
	if !ok || n < 1 || n > maxArgs {
		return errMultibulk, nil
	}
	fmt.Fprintf(command, "*%d\r\n", n)
	for range n {
		if line, fault, err = readLine(r, errBulk); err != nil || fault != nil {
			return fault, err
		}
		size, ok := header(line)
		switch {
		case line[0] != '$':
			return fmt.Errorf("expected '$', got %q", line[0]), nil
		case !ok || size < 0:
			return errBulk, nil
		case size > maxCommand-command.Len():
			return errTooBig, nil
		}
		fmt.Fprintf(command, "$%d\r\n", size)
		// The buffer grows as the bytes come, so that a large length alone costs nothing.
		if _, err := io.CopyN(command, r, int64(size)+2); err != nil {
			return nil, err
		}
		if !bytes.HasSuffix(command.Bytes(), []byte("\r\n")) {
			return errBulk, nil
		}
	}
	return nil, nil
}

// readLine reads a line with its end. If it doesn't fit in the reader's buffer, it has the fault
// tooLong.
func readLine(r *bufio.Reader, tooLong error) (line []byte, fault, err error) {
	line, err = r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, tooLong, nil
	}
	return line, nil, err
}

// header returns the number in a line such as "$12\r\n".
func header(line []byte) (n int, ok bool) {
	digits, ok := bytes.CutSuffix(line[1:], []byte("\r\n"))
	n, err := strconv.Atoi(string(digits))
	return n, ok && err == nil
}
