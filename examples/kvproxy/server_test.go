package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/redcon"
	"go.uber.org/zap"
)

// testFront starts a server for clients on a node that has neither an index nor peers.
func testFront(t testing.TB, cfg config) *server {
	cfg.name = "front"
	if cfg.clients == 0 {
		cfg.clients = 100
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &node{cfg: cfg, log: zap.NewNop(), engine: testEngine(t)}
	s := serve(n, l)
	t.Cleanup(s.close)
	return s
}

// rawClient is a connection that commands are sent on, word by word.
type rawClient struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, addr string) *rawClient {
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return &rawClient{t, conn, bufio.NewReader(conn)}
}

func (c *rawClient) send(words ...any) {
	b := redcon.AppendArray(nil, len(words))
	for _, word := range words {
		b = redcon.AppendBulkString(b, fmt.Sprint(word))
	}
	_, err := c.conn.Write(b)
	require.NoError(c.t, err)
}

// receive reads a reply. An error is its text with a - before it.
func (c *rawClient) receive() any {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	require.NoError(c.t, err)
	b := []byte(line)
	size := func() (n int) {
		_, err := fmt.Sscanf(line[1:], "%d", &n)
		require.NoError(c.t, err)
		return n
	}
	elements := 0
	switch line[0] {
	case '-':
		return strings.TrimRight(line, "\r\n")
	case '$':
		if n := size(); n >= 0 {
			text := make([]byte, n+2)
			_, err := io.ReadFull(c.in, text)
			require.NoError(c.t, err)
			b = append(b, text...)
		}
	case '*', '~':
		elements = size()
	case '%':
		elements = 2 * size()
	default:
		return readAll(c.t, b)
	}
	if line[0] == '$' {
		return readAll(c.t, b)
	}
	list := []any{}
	for range elements {
		list = append(list, c.receive())
	}
	if line[0] == '%' {
		return mapped(list)
	}
	return list
}

func (c *rawClient) do(words ...any) any {
	c.t.Helper()
	c.send(words...)
	return c.receive()
}

// replies are commands, and what comes back.
type replies []struct {
	words []any
	want  any
}

func (c *rawClient) check(all replies) {
	c.t.Helper()
	for _, r := range all {
		require.Equal(c.t, r.want, c.do(r.words...), "%.200v", r.words)
	}
}

type wire = []any // a command, or its reply

func TestConnectionCommands(t *testing.T) {
	c := dial(t, testFront(t, config{}).addr())
	c.check(replies{
		{wire{"PING"}, "PONG"}, {wire{"ping", "a\r\n"}, "a\r\n"},
		{wire{"PING", 1, 2}, "-ERR wrong number of arguments for 'ping' command"},
		{wire{"ECHO", "x"}, "x"}, {wire{"SELECT", 0}, "OK"}, {wire{"SELECT", 1}, "-ERR DB index is out of range"},
		{wire{"SELECT", "x"}, "-ERR value is not an integer or out of range"},
		{wire{"CLIENT", "GETNAME"}, nil}, {wire{"CLIENT", "SETNAME", "me"}, "OK"}, {wire{"CLIENT", "GETNAME"}, "me"},
		{wire{"CLIENT", "SETINFO", "LIB-NAME", "x"}, "OK"}, {wire{"CLIENT", "ID"}, int64(1)},
		{wire{"CLIENT", "KILL"}, "-ERR unknown subcommand or wrong number of arguments for 'KILL'. Try CLIENT HELP."},
		{wire{"HELLO", 4}, "-NOPROTO unsupported protocol version"},
		{wire{"HELLO", 3, "AUTH", "a", "b"}, "-ERR Syntax error in HELLO option 'AUTH'"},
		{wire{"COMMAND", "COUNT"}, int64(len(commands))},
		{wire{"NOPE", "a", "b"}, "-ERR unknown command 'NOPE', with args beginning with: 'a' 'b' "},
		{wire{"EVAL", "return 1", 0}, "-ERR unknown command 'EVAL', with args beginning with: 'return 1' '0' "},
		{wire{"EXPIRE", "a", 1}, "-ERR unknown command 'EXPIRE', with args beginning with: 'a' '1' "},
		{wire{""}, "-ERR unknown command '', with args beginning with: "},
	})
	require.Len(t, c.do("COMMAND"), len(commands))
	two := c.do("HELLO").([]any)
	require.Equal(t, int64(2), mapped(two)["proto"])
	three := c.do("HELLO", 3, "SETNAME", "other").(map[string]any)
	require.Equal(t, int64(3), three["proto"])
	require.Equal(t, "other", c.do("CLIENT", "GETNAME"))
	require.Equal(t, "OK", c.do("QUIT"))
	_, err := c.in.ReadByte()
	require.Equal(t, io.EOF, err)
}

func TestKeyCommands(t *testing.T) {
	c := dial(t, testFront(t, config{}).addr())
	binary := "\x00\r\n\xff$-1\r\n"
	wrong := "-" + string(errWrongType)
	c.check(replies{
		{wire{"SET", "s", "one"}, "OK"}, {wire{"SET", binary, binary}, "OK"}, {wire{"GET", binary}, binary},
		{wire{"SET", "s", ""}, "OK"}, {wire{"GET", "s"}, ""}, {wire{"GET", "none"}, nil},
		{wire{"SET", "s", "1", "EX", 10}, "-ERR syntax error"},
		{wire{"MSET", "a", 1, "b", 2, "a", 3}, "OK"},
		{wire{"MSET", "a", 1, "b"}, "-ERR wrong number of arguments for 'mset' command"},
		{wire{"HSET", "h", "a", 1, "b", binary, "", ""}, int64(3)}, {wire{"HSET", "h", "a", 2, "c", 3, "c", 4}, int64(1)},
		{wire{"HSET", "h", "a"}, "-ERR wrong number of arguments for 'hset' command"},
		{wire{"HSET", "h", "a", 1, "b"}, "-ERR wrong number of arguments for 'hset' command"},
		{wire{"MGET", "a", "none", "h", "b", "a"}, wire{"3", nil, nil, "2", "3"}},
		{wire{"HGET", "h", "b"}, binary}, {wire{"HGET", "h", "d"}, nil}, {wire{"HGET", "none", "d"}, nil},
		{wire{"HMGET", "h", "c", "d", "a", "c"}, wire{"4", nil, "2", "4"}},
		{wire{"HMGET", "none", "c", "d"}, wire{nil, nil}},
		{wire{"HGETALL", "h"}, wire{"", "", "a", "2", "b", binary, "c", "4"}}, {wire{"HGETALL", "none"}, wire{}},
		{wire{"GET", "h"}, wrong}, {wire{"HGET", "s", "a"}, wrong}, {wire{"HMGET", "s", "a"}, wrong},
		{wire{"HGETALL", "s"}, wrong}, {wire{"HSET", "s", "a", "b"}, wrong}, {wire{"HDEL", "s", "a"}, wrong},
		{wire{"TYPE", "s"}, "string"}, {wire{"TYPE", "h"}, "hash"}, {wire{"TYPE", "none"}, "none"},
		{wire{"EXISTS", "s", "h", "none", "s"}, int64(3)},
		{wire{"HDEL", "h", "a", "a", "d", ""}, int64(2)}, {wire{"HDEL", "none", "a"}, int64(0)},
		{wire{"HDEL", "h", "b", "c"}, int64(2)}, {wire{"EXISTS", "h"}, int64(0)}, // a hash without fields
		{wire{"DEL", "s", "none", "s"}, int64(1)}, {wire{"EXISTS", "s"}, int64(0)},
		{wire{"SET", "h", "now a string"}, "OK"}, {wire{"GET", "h"}, "now a string"},
		{wire{"SET", strings.Repeat("k", maxKey+1), ""}, "-ERR the key is 1025 bytes, at most 1024 are allowed"},
		{wire{"FLUSHDB", "NOW"}, "-ERR syntax error"}, {wire{"FLUSHALL", "async"}, "OK"},
		{wire{"EXISTS", "a", "b", "h", binary}, int64(0)},
	})
	// Of many clients that write one hash none loses a field.
	var all sync.WaitGroup
	for i := range 8 {
		other := dial(t, c.conn.RemoteAddr().String())
		all.Go(func() {
			for j := range 10 {
				other.do("HSET", "shared", fmt.Sprint(i, ".", j), "x")
			}
		})
	}
	all.Wait()
	require.Len(t, c.do("HGETALL", "shared"), 2*80)
}

func TestScan(t *testing.T) {
	c := dial(t, testFront(t, config{}).addr())
	want := []string{}
	for i := range 100 {
		key := fmt.Sprint("key:", i)
		want = append(want, key)
		c.do("SET", key, i)
	}
	c.do("HSET", "hash[*]", "a", "b")
	scan := func(options ...any) (keys []string) {
		for cursor := any("0"); ; {
			reply := c.do(append(wire{"SCAN", cursor}, options...)...).([]any)
			for _, key := range reply[1].([]any) {
				keys = append(keys, key.(string))
			}
			if cursor = reply[0]; cursor == "0" {
				slices.Sort(keys)
				return slices.Compact(keys)
			}
		}
	}
	slices.Sort(want)
	require.Equal(t, append([]string{"hash[*]"}, want...), scan())
	require.Equal(t, want, scan("match", "key:*", "COUNT", 7))
	require.Equal(t, []string{"key:10", "key:20"}, scan("MATCH", "k?y:?0", "COUNT", 1000)[:2])
	require.Equal(t, []string{"hash[*]"}, scan("TYPE", "HASH"))
	require.Equal(t, []string{"hash[*]"}, scan("MATCH", `*\*?`))
	require.Empty(t, scan("TYPE", "list"))
	c.check(replies{
		{wire{"SCAN", "x"}, "-ERR invalid cursor"}, {wire{"SCAN", -1}, "-ERR invalid cursor"},
		{wire{"SCAN", 0, "COUNT", 0}, "-ERR value is not an integer or out of range"},
		{wire{"SCAN", 0, "COUNT"}, "-ERR syntax error"}, {wire{"SCAN", 0, "NOPE", 1}, "-ERR syntax error"},
		{wire{"SCAN", 0, "MATCH", "[a-z]*"}, "-ERR a pattern with [ is not supported"},
		{wire{"SET", strings.Repeat("k", maxKey), ""}, "OK"},
		{wire{"SCAN", 0, "COUNT", 1000, "MATCH", strings.Repeat("*k", 500) + "*x*"}, "-ERR the pattern is too complex"},
	})
}

func TestMultiIsRefused(t *testing.T) {
	c := dial(t, testFront(t, config{}).addr())
	c.check(replies{
		{wire{"MULTI"}, "-ERR MULTI is not supported: -multi=pipeline allows it, but without isolation"},
		{wire{"SET", "a", 1}, "OK"}, {wire{"EXEC"}, "-ERR EXEC without MULTI"},
		{wire{"DISCARD"}, "-ERR DISCARD without MULTI"}, {wire{"GET", "a"}, "1"},
	})
}

func TestMultiAsPipeline(t *testing.T) {
	c := dial(t, testFront(t, config{pipeline: true}).addr())
	wrong := "-" + string(errWrongType)
	c.check(replies{
		{wire{"MULTI"}, "OK"}, {wire{"MULTI"}, "-ERR MULTI calls can not be nested"},
		{wire{"SET", "a", 1}, "QUEUED"}, {wire{"HGET", "a", "b"}, "QUEUED"}, {wire{"GET", "a"}, "QUEUED"},
		{wire{"EXEC"}, wire{"OK", wrong, "1"}}, {wire{"EXEC"}, "-ERR EXEC without MULTI"},
		{wire{"MULTI"}, "OK"}, {wire{"EXEC"}, wire{}},
		{wire{"MULTI"}, "OK"}, {wire{"SET", "a", 2}, "QUEUED"}, {wire{"DISCARD"}, "OK"}, {wire{"GET", "a"}, "1"},
		{wire{"MULTI"}, "OK"}, {wire{"SET", "a", 2}, "QUEUED"},
		{wire{"GET"}, "-ERR wrong number of arguments for 'get' command"},
		{wire{"EXEC"}, "-EXECABORT Transaction discarded because of previous errors."}, {wire{"GET", "a"}, "1"},
		{wire{"NOPE"}, "-ERR unknown command 'NOPE', with args beginning with: "},
		{wire{"MULTI"}, "OK"}, {wire{"GET", "a"}, "QUEUED"}, {wire{"EXEC"}, wire{"1"}},
		{wire{"MULTI"}, "OK"},
	})
	big := strings.Repeat("x", 30<<20)
	require.Equal(t, "QUEUED", c.do("ECHO", big))
	require.Equal(t, "QUEUED", c.do("ECHO", big))
	require.Contains(t, c.do("ECHO", big), "-ERR more than 10000 commands or 67108864 bytes since MULTI")
	require.Contains(t, c.do("EXEC"), "-EXECABORT")
}

// sendBytes sends something on a new connection, without more to come, and returns what comes back.
func sendBytes(t *testing.T, addr, input string) string {
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	if _, err := io.WriteString(conn, input); err == nil { // else the server has had enough of it already
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	b, err := io.ReadAll(conn) // a reset is fine
	require.NotErrorIs(t, err, net.ErrClosed)
	return string(b)
}

// What is malformed gets an error, or ends the connection, and nothing else.
func TestHostileBytes(t *testing.T) {
	addr := testFront(t, config{}).addr()
	r := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, 200<<10)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for input, want := range map[string]string{ // the beginning of the reply
		"*-5\r\n":                         "-ERR Protocol error: invalid multibulk length",
		"*1048576\r\n$4\r\nPING\r\n":      "",
		"*1\r\n$99999999999\r\n":          "-ERR Protocol error: too big a command",
		"*2\r\n$3\r\nGET\r\n":             "",
		"PING\r\n":                        "+PONG",
		"nope\r\n":                        "-ERR unknown command 'nope'",
		"\r\n\r\nnope\r\n":                "-ERR unknown command 'nope'",
		"SET \"a\r\n":                     "-ERR Protocol error: unbalanced quotes in request",
		"POST / HTTP/1.1\r\n\r\nPING\r\n": "-ERR Protocol error: this port doesn't speak HTTP\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03":                         "", // as TLS begins
		"*1\r\n$1048576\r\n" + strings.Repeat("a", 1<<20) + "\r\n":             "-ERR unknown command 'aaaa",
		"*2\r\n$1048576\r\n" + strings.Repeat("\n", 1<<20) + "\r\n$1\r\na\r\n": "-ERR unknown command '    ",
		string(noise):       "-ERR",
		"*" + string(noise): "-ERR",
		"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$9" + string(noise): "-ERR Protocol error: invalid bulk length",
	} {
		reply := sendBytes(t, addr, input)
		require.True(t, strings.HasPrefix(reply, want), "%.80q: %.200q", input, reply)
		if strings.Contains(input, "HTTP") {
			require.NotContains(t, reply, "PONG", "what follows HTTP isn't read")
		}
		require.Equal(t, "+PONG\r\n", sendBytes(t, addr, "PING\r\n"))
	}
}

func TestTooManyConnections(t *testing.T) {
	s := testFront(t, config{clients: 3})
	var clients []*rawClient
	for range 3 {
		c := dial(t, s.addr())
		require.Equal(t, "PONG", c.do("PING"))
		clients = append(clients, c)
	}
	const tooMany = "-ERR max number of clients reached\r\n"
	conn, err := net.Dial("tcp", s.addr())
	require.NoError(t, err)
	defer conn.Close()
	reply, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, tooMany, string(reply))
	clients[0].conn.Close()
	require.Eventually(t, func() bool { return s.clients.Load() == 2 }, time.Minute, time.Millisecond)
	require.Equal(t, "PONG", dial(t, s.addr()).do("PING"))
}

// A panic is an error of its command. What runs when the server closes ends.
func TestPanicAndClose(t *testing.T) {
	s := testFront(t, config{})
	c := dial(t, s.addr())
	require.Equal(t, "-ERR internal error", c.do("INFO"), "there is no index")
	require.Equal(t, "PONG", c.do("PING"))

	s.node.engine.close()
	c.send("GET", "a") // gets no answer from the log
	s.close()
	_, err := net.Dial("tcp", s.addr())
	require.Error(t, err)
}
