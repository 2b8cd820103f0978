package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tidwall/redcon"
)

func TestFrames(t *testing.T) {
	big := strings.Repeat("x", 70_000)
	for name, tt := range map[string]struct {
		in, fault string
	}{
		"a command":             {"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", ""},
		"two":                   {"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", ""},
		"an empty argument":     {"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", ""},
		"a line":                {"PING\r\n\r\nPING\n", ""},
		"a long line":           {big, "too big inline request"},
		"no arguments":          {"*0\r\n", "invalid multibulk length"},
		"too many arguments":    {"*1048577\r\n", "invalid multibulk length"},
		"a number that is none": {"*x\r\n", "invalid multibulk length"},
		"no number":             {"*\n", "invalid multibulk length"},
		"a negative length":     {"*1\r\n$-1\r\n", "invalid bulk length"},
		"a length that overflows": {
			"*1\r\n$9223372036854775807\r\n", "invalid bulk length",
		},
		"a long argument": {"*1\r\n$67108865\r\n", "too big a command"},
		"long together": {
			"*2\r\n$40000000\r\n" + strings.Repeat("x", 40_000_000) + "\r\n$40000000\r\n", "too big a command",
		},
		"no dollar":            {"*1\r\n:1\r\n", "expected '$', got ':'"},
		"an endless number":    {"*1111111111111111111111111", "invalid multibulk length"},
		"no carriage return":   {"*1\n", "invalid multibulk length"},
		"and no return either": {"*1\r\n$1\n", "invalid bulk length"},
	} {
		var f frames
		err := f.look([]byte(tt.in))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.fault {
			t.Errorf("%s: %q, want %q", name, got, tt.fault)
		}
	}
}

// FuzzGuard feeds redcon with what frames has let pass: it must not panic, nor read more than the limits.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{
		"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "PING\r\n", "*1\r\n$9223372036854775807\r\n", "*1\r\n$0\r\n\r\n", "\"a b\" 'c'\n",
		"*3\r\n$1\r\na\r\n$-5\r\n", "*-1\r\n", "*1\r\n$3\r\nabcdef\r\n", "'\n", "$1\r\na\r\n",
		"PING\r\n*1\r\n$9223372036854775807\r\n", "PING\r\n*9223372036854775807\r\n$1\r\n",
	} {
		f.Add([]byte(seed), uint64(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		pieces := readerFunc(func(p []byte) (int, error) {
			if len(b) == 0 {
				return 0, io.EOF
			}
			n := copy(p[:1+r.IntN(len(p))], b)
			b = b[n:]
			return n, nil
		})
		guarded := &guarded{Conn: readConn{Reader: pieces}}
		for rd := redcon.NewReader(guarded); ; {
			if _, err := rd.ReadCommand(); err != nil {
				return
			}
		}
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// What is cut in two anywhere is read as it is in one piece.
func TestFramesInPieces(t *testing.T) {
	in := "*2\r\n$3\r\nGET\r\n$12\r\nabc\r\n*1\r\n$x\r\nPING\r\n*1\r\n$4\r\nPING\r\n"
	var f frames
	if _, err := io.Copy(writerFunc(func(p []byte) (int, error) { return len(p), f.look(p) }),
		iotest.OneByteReader(bytes.NewReader([]byte(in)))); err != nil {
		t.Error(err)
	}
	if f.where != nil {
		t.Error("the last command isn't over")
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A command that comes byte by byte doesn't grow redcon's stack, and commands that are cut anywhere not its buffer.
func TestGuardedReads(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 20))
	long := "*1\r\n$100000\r\n" + strings.Repeat("x", 100_000) + "\r\n"
	short := strings.Repeat("*2\r\n$3\r\nGET\r\n$997\r\n"+strings.Repeat("y", 997)+"\r\n", 10_000)
	for name, tt := range map[string]struct {
		in               io.Reader
		commands, buffer int
	}{
		"drips":  {iotest.OneByteReader(strings.NewReader(long + long)), 2, 1 << 18},
		"pieces": {piecesReader{strings.NewReader(short), 3001}, 10_000, 1 << 14},
	} {
		most := 0
		conn := &guarded{Conn: readConn{Reader: tt.in}}
		rd := redcon.NewReader(readerFunc(func(p []byte) (int, error) {
			most = max(most, len(p))
			return conn.Read(p)
		}))
		n := 0
		for {
			if _, err := rd.ReadCommand(); err != nil {
				break
			}
			n++
		}
		if n != tt.commands || most > tt.buffer {
			t.Errorf("%s: %d commands, a buffer of %d bytes; want %d, %d at most", name, n, most, tt.commands, tt.buffer)
		}
	}
}

// What is read through a guard is what was sent, and each read but those that fill the buffer ends with a command.
func TestGuardedPassesAll(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		var in []byte
		for range r.IntN(50) {
			if r.IntN(5) == 0 {
				in = append(in, "PING\n"...)
				continue
			}
			args := 1 + r.IntN(3)
			in = redcon.AppendArray(in, args)
			for range args {
				in = redcon.AppendBulk(in, bytes.Repeat([]byte{'a'}, r.IntN(1+r.IntN(9000))))
			}
		}
		conn := &guarded{Conn: readConn{Reader: piecesReader{bytes.NewReader(in), 1 + r.IntN(5000)}}}
		out, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(out, in) {
			t.Errorf("seed %d: %d bytes of %d, %v", seed, len(out), len(in), err)
		}
	}
}

type piecesReader struct {
	io.Reader
	most int
}

func (r piecesReader) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.most)]) }

// readConn is a connection that is only read.
type readConn struct {
	net.Conn
	io.Reader
}

func (c readConn) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c readConn) Write(p []byte) (int, error) { return len(p), nil }
