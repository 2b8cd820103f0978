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

	"github.com/stretchr/testify/require"
	"github.com/tidwall/redcon"
)

// testConn is a connection that reads from a reader, and keeps what is written.
type testConn struct {
	net.Conn
	io.Reader
	out bytes.Buffer
}

func (c *testConn) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c *testConn) Write(p []byte) (int, error) { return c.out.Write(p) }

// readCommands reads commands through a guard, as redcon does.
func readCommands(input io.Reader) (commands []redcon.Command, reply string, err error) {
	conn := &testConn{Reader: input}
	near, far := net.Pipe() // for its deadlines
	defer near.Close()
	defer far.Close()
	conn.Conn = near
	reader := redcon.NewReader(newGuarded(conn))
	for {
		command, err := reader.ReadCommand()
		if err != nil {
			return commands, conn.out.String(), err
		}
		commands = append(commands, command)
	}
}

func TestGuard(t *testing.T) {
	for name, test := range map[string]struct {
		in       string
		commands int
		fault    string
	}{
		"a command":         {"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", 1, ""},
		"two":               {"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", 2, ""},
		"an empty argument": {"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", 1, ""},
		"lines":             {"PING\r\n\r\n  \r\nPING\n", 2, ""},
		"half a command":    {"*2\r\n$3\r\nGET\r\n$1000\r\nab", 0, ""},
		"much announced":    {"*1048576\r\n$67000000\r\nab", 0, ""},
		"a long line":       {"PING\r\n" + strings.Repeat("x", 70_000), 1, "too big inline request"},
		"no arguments":      {"*0\r\n", 0, "invalid multibulk length"},
		"less than none":    {"*-5\r\n", 0, "invalid multibulk length"},
		"too many":          {"*1048577\r\n", 0, "invalid multibulk length"},
		"an overflow":       {"*9223372036854775807\r\n", 0, "invalid multibulk length"},
		"no number":         {"*\r\n", 0, "invalid multibulk length"},
		"no return":         {"*1\n$4\nPING\n", 0, "invalid multibulk length"},
		"a letter":          {"*x\r\n", 0, "invalid multibulk length"},
		"an endless number": {"*" + strings.Repeat("1", 70_000), 0, "too big inline request"},
		"a negative length": {"*1\r\n$-1\r\n", 0, "invalid bulk length"},
		"a long length":     {"*1\r\n$9223372036854775807\r\n", 0, "too big a command"},
		"a longer one":      {"*1\r\n$92233720368547758070\r\n", 0, "invalid bulk length"},
		"a long argument":   {"*1\r\n$67108865\r\n", 0, "too big a command"},
		"long together": {
			"*2\r\n$40000000\r\n" + strings.Repeat("x", 40_000_000) + "\r\n$40000000\r\n", 0, "too big a command"},
		"a wrong length": {"*1\r\n$4\r\nPINGPONG\r\n", 0, "invalid bulk length"},
		"no dollar":      {"*1\r\n:1\r\n", 0, "expected '$', got ':'"},
		"an empty line":  {"*1\r\n\n", 0, "expected '$', got '\\n'"},
		"HTTP":           {"GET / HTTP/1.1\r\nHost: a\r\n\r\nFLUSHALL\r\n", 0, "this port doesn't speak HTTP"},
		"HTTP/2":         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, "this port doesn't speak HTTP"},
	} {
		for _, input := range []io.Reader{strings.NewReader(test.in), iotest.HalfReader(strings.NewReader(test.in))} {
			commands, reply, err := readCommands(input)
			require.Len(t, commands, test.commands, name)
			if test.fault == "" {
				require.Empty(t, reply, name)
				continue
			}
			require.EqualError(t, err, test.fault, name)
			require.Equal(t, "-ERR Protocol error: "+test.fault+"\r\n", reply, name)
		}
	}
}

// A command that comes byte by byte doesn't grow redcon's stack.
func TestGuardDrips(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 20))
	long := "*1\r\n$100000\r\n" + strings.Repeat("x", 100_000) + "\r\n"
	commands, _, err := readCommands(iotest.OneByteReader(strings.NewReader(long + long)))
	require.Equal(t, io.EOF, err)
	require.Len(t, commands, 2)
}

// What comes through a guard is what was sent.
func TestGuardPassesAll(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		var in []byte
		var want [][]byte
		for range r.IntN(50) {
			args := 1 + r.IntN(3)
			from := len(in)
			in = redcon.AppendArray(in, args)
			for range args {
				in = redcon.AppendBulk(in, bytes.Repeat([]byte{'\n'}, r.IntN(1+r.IntN(9000))))
			}
			want = append(want, in[from:])
		}
		commands, _, err := readCommands(iotest.HalfReader(bytes.NewReader(in)))
		require.Equal(t, io.EOF, err)
		require.Len(t, commands, len(want))
		for i, command := range commands {
			require.Equal(t, want[i], command.Raw)
		}
	}
}

// Whatever is sent, redcon doesn't panic, and gets nothing beyond the limits.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{
		"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "PING\r\n", "*1\r\n$9223372036854775807\r\n", "*1\r\n$0\r\n\r\n", "\"a b\" 'c'\n",
		"*3\r\n$1\r\na\r\n$-5\r\n", "*-1\r\n", "*1\r\n$3\r\nabcdef\r\n", "'\n", "$1\r\na\r\n", "GET / HTTP/1.1\n",
		"PING\r\n*1\r\n$9223372036854775807\r\n", "PING\r\n*9223372036854775807\r\n$1\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		commands, _, err := readCommands(iotest.HalfReader(bytes.NewReader(b)))
		require.Error(t, err)
		for _, command := range commands {
			require.NotEmpty(t, command.Args)
			require.LessOrEqual(t, len(command.Args), maxArgs)
		}
	})
}
