package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/redcon"
	"go.uber.org/zap"
)

const (
	commandTime = 5 * time.Second // of most commands
	slowTime    = time.Minute     // of those that write to many keys, or have a limit of their own

	redisVersion = "7.4.0" // the version of Redis that clients are told
	maxQueue     = 10_000  // commands between MULTI and EXEC
)

// server talks RESP with clients.
type server struct {
	node     *node
	listener net.Listener
	redcon   *redcon.Server
	ctx      context.Context // ends when the server closes
	cancel   context.CancelFunc
	running  sync.WaitGroup // connections, and the loop that accepts them
	clients  atomic.Int64
	ids      atomic.Int64
	began    time.Time
}

// client is the state of a connection.
type client struct {
	id     int64
	proto  int // of RESP: 2 or 3
	name   string
	multi  bool // MULTI has been sent
	failed bool // since MULTI a command was refused
	queue  []redcon.Command
	bytes  int // of the queue
	quit   bool
}

// call is a command of a client that runs.
type call struct {
	ctx    context.Context
	server *server
	node   *node
	client *client
	args   [][]byte // after the command's name
}

// serve starts a server on a listener.
func serve(n *node, l net.Listener) *server {
	s := &server{node: n, listener: l, began: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.redcon = redcon.NewServer("", s.command, s.accept, func(redcon.Conn, error) {
		s.clients.Add(-1)
		s.running.Done()
	})
	s.running.Go(func() {
		if err := s.redcon.Serve(guard{l}); err != nil {
			n.log.Error("serve clients", zap.Error(err))
		}
	})
	return s
}

// addr returns the address that clients connect to.
func (s *server) addr() string { return s.listener.Addr().String() }

// close closes the listener and all connections, and waits for the commands that run.
func (s *server) close() {
	s.cancel()
	s.listener.Close()
	s.redcon.Close()
	s.running.Wait()
}

func (s *server) accept(conn redcon.Conn) bool {
	if s.clients.Load() >= int64(s.node.cfg.clients) {
		conn.WriteError("ERR max number of clients reached")
		return false
	}
	s.clients.Add(1)
	s.running.Add(1)
	conn.SetContext(&client{id: s.ids.Add(1), proto: 2})
	return true
}

// command is what a client can send. The arity counts the command's name, and is negative if there
// can be more arguments, as in Redis.
type command struct {
	arity int
	limit time.Duration
	run   func(c *call) (reply any, err error)
}

var commands map[string]command

func init() { // COMMAND and EXEC refer to commands
	const normal, slow = commandTime, slowTime
	commands = map[string]command{
		"ping": {-1, normal, pingCommand}, "echo": {2, normal, echoCommand}, "hello": {-1, normal, helloCommand},
		"client": {-2, normal, clientCommand}, "command": {-1, normal, commandCommand}, "info": {-1, normal, infoCommand},
		"select": {2, normal, selectCommand}, "quit": {-1, normal, quitCommand}, "multi": {1, normal, multiCommand},
		"exec": {1, slow, execCommand}, "discard": {1, normal, discardCommand},

		"set": {-3, normal, setCommand}, "get": {2, normal, getCommand}, "mset": {-3, normal, msetCommand},
		"mget": {-2, normal, mgetCommand}, "del": {-2, normal, delCommand}, "exists": {-2, normal, existsCommand},
		"type": {2, normal, typeCommand}, "scan": {-2, normal, scanCommand}, "hset": {-4, normal, hsetCommand},
		"hget": {3, normal, hgetCommand}, "hmget": {-3, normal, hmgetCommand}, "hgetall": {2, normal, hgetallCommand},
		"hdel": {-3, normal, hdelCommand}, "dbsize": {1, normal, dbsizeCommand},
		"flushdb": {-1, slow, flushCommand}, "flushall": {-1, slow, flushCommand},

		"ft.create": {-2, slow, ftCreate}, "ft.dropindex": {-2, slow, ftDropIndex}, "ft.search": {-3, slow, ftSearch},
		"ft.regex": {-3, slow, ftRegex}, "ft.info": {2, normal, ftInfo}, "ft._list": {1, normal, ftList},
		"scatter.ledger": {-1, normal, ledgerCommand}, "scatter.forget": {2, slow, forgetCommand},
	}
}

// command answers one command of a client.
func (s *server) command(conn redcon.Conn, cmd redcon.Command) {
	cl := conn.Context().(*client)
	name := strings.ToLower(string(cmd.Args[0]))
	command, known := commands[name]
	words := len(cmd.Args)
	var reply any
	switch {
	case !known:
		cl.failed = true
		reply = errUnknownCommand(cmd.Args[0], cmd.Args[1:])
	case command.arity >= 0 && words != command.arity, words < -command.arity:
		cl.failed = true
		reply = errWrongArgs(name)
	case cl.multi && name != "multi" && name != "exec" && name != "discard":
		reply = cl.enqueue(cmd)
	default:
		reply = s.run(s.ctx, cl, cmd)
	}
	conn.WriteRaw(appendReply(nil, cl.proto, reply))
	if cl.quit {
		conn.Close()
	}
}

// run runs a command and returns its reply. A panic is logged, and ends nothing but the command.
func (s *server) run(ctx context.Context, cl *client, cmd redcon.Command) (reply any) {
	name := strings.ToLower(string(cmd.Args[0]))
	defer func() {
		if r := recover(); r != nil {
			s.node.log.Error("panic", zap.Any("value", r), zap.String("command", name),
				zap.ByteString("stack", debug.Stack()))
			reply = replyError("ERR internal error")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, commands[name].limit)
	defer cancel()
	switch name { // other nodes can have changed the indexes
	case "ft.create", "ft.dropindex", "ft.info", "ft._list":
		if err := s.node.settle(ctx); err != nil {
			return err
		}
	}
	reply, err := commands[name].run(&call{ctx: ctx, server: s, node: s.node, client: cl, args: cmd.Args[1:]})
	if err != nil {
		return err
	}
	return reply
}

// multiCommand answers MULTI. Commands run one by one at the leaders of their keys, so a
// transaction can't be isolated. A flag allows it for clients that only want to save round trips.
func multiCommand(c *call) (any, error) {
	switch {
	case !c.node.cfg.pipeline:
		return nil, replyError("ERR MULTI is not supported: -multi=pipeline allows it, but without isolation")
	case c.client.multi:
		return nil, replyError("ERR MULTI calls can not be nested")
	}
	c.client.multi, c.client.failed = true, false
	return replyOK, nil
}

// enqueue keeps a command for EXEC.
func (cl *client) enqueue(cmd redcon.Command) any {
	if cl.bytes += len(cmd.Raw); cl.bytes > maxCommand || len(cl.queue) == maxQueue {
		cl.failed = true
		return replyErrorf("ERR more than %d commands or %d bytes since MULTI", maxQueue, maxCommand)
	}
	cl.queue = append(cl.queue, cmd)
	return status("QUEUED")
}

// execCommand answers EXEC: it runs the commands since MULTI, even if one of them fails.
func execCommand(c *call) (any, error) {
	queue := c.client.queue
	if _, err := discardCommand(c); err != nil {
		return nil, replyError("ERR EXEC without MULTI")
	}
	if c.client.failed {
		return nil, replyError("EXECABORT Transaction discarded because of previous errors.")
	}
	replies := []any{}
	for _, cmd := range queue {
		replies = append(replies, c.server.run(c.ctx, c.client, cmd))
	}
	return replies, nil
}

func discardCommand(c *call) (any, error) {
	if !c.client.multi {
		return nil, replyError("ERR DISCARD without MULTI")
	}
	c.client.multi, c.client.queue, c.client.bytes = false, nil, 0
	return replyOK, nil
}

func quitCommand(c *call) (any, error) {
	c.client.quit = true
	return replyOK, nil
}

func pingCommand(c *call) (any, error) {
	switch len(c.args) {
	case 0:
		return status("PONG"), nil
	case 1:
		return c.args[0], nil
	}
	return nil, errWrongArgs("ping")
}

func echoCommand(c *call) (any, error) { return c.args[0], nil }

// helloCommand answers HELLO [version [SETNAME name]].
func helloCommand(c *call) (any, error) {
	proto, name := c.client.proto, c.client.name
	if len(c.args) > 0 {
		switch string(c.args[0]) {
		case "2":
			proto = 2
		case "3":
			proto = 3
		default:
			return nil, replyError("NOPROTO unsupported protocol version")
		}
	}
	for rest := c.args[min(1, len(c.args)):]; len(rest) > 0; rest = rest[2:] {
		if !strings.EqualFold(string(rest[0]), "setname") || len(rest) < 2 {
			return nil, replyErrorf("ERR Syntax error in HELLO option '%.128s'", rest[0])
		}
		name = string(rest[1])
	}
	c.client.proto, c.client.name = proto, name
	return pairs{"server", "redis", "version", redisVersion, "proto", proto, "id", c.client.id, "mode", "standalone",
		"role", "master", "modules", []any{}}, nil
}

func clientCommand(c *call) (any, error) {
	switch sub := strings.ToLower(string(c.args[0])); {
	case sub == "setinfo" && len(c.args) == 3:
		return replyOK, nil
	case sub == "setname" && len(c.args) == 2:
		c.client.name = string(c.args[1])
		return replyOK, nil
	case sub == "getname" && len(c.args) == 1 && c.client.name == "":
		return nil, nil
	case sub == "getname" && len(c.args) == 1:
		return c.client.name, nil
	case sub == "id" && len(c.args) == 1:
		return c.client.id, nil
	}
	return nil, replyErrorf("ERR unknown subcommand or wrong number of arguments for '%.128s'. Try CLIENT HELP.",
		c.args[0])
}

// commandCommand answers COMMAND and COMMAND COUNT. It tells of no keys, flags or categories.
func commandCommand(c *call) (any, error) {
	switch {
	case len(c.args) == 1 && strings.EqualFold(string(c.args[0]), "count"):
		return len(commands), nil
	case len(c.args) > 0:
		return nil, replyErrorf("ERR unknown subcommand '%.128s'. Try COMMAND HELP.", c.args[0])
	}
	list := []any{}
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		list = append(list, []any{name, commands[name].arity, []any{}, 0, 0, 0})
	}
	return list, nil
}

func selectCommand(c *call) (any, error) {
	if db, err := strconv.Atoi(string(c.args[0])); err != nil {
		return nil, errNotInteger
	} else if db != 0 {
		return nil, replyError("ERR DB index is out of range")
	}
	return replyOK, nil
}

// infoCommand answers INFO [section ...]. It returns all sections whatever the arguments, as
// clients look for the lines that they want.
func infoCommand(c *call) (any, error) {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	_, port, _ := net.SplitHostPort(c.server.addr())
	ring := c.node.index.topology()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("# Server\r\nredis_version:%s\r\nredis_mode:standalone\r\nos:%s\r\narch_bits:%d\r\ntcp_port:%s",
		redisVersion, runtime.GOOS, strconv.IntSize, port)
	line("uptime_in_seconds:%d", int(time.Since(c.server.began).Seconds()))
	line("\r\n# Clients\r\nconnected_clients:%d\r\nmaxclients:%d", c.server.clients.Load(), c.node.cfg.clients)
	line("\r\n# Memory\r\nused_memory:%d", memory.HeapAlloc)
	line("\r\n# Persistence\r\nloading:0\r\n\r\n# Replication\r\nrole:master\r\nconnected_slaves:0")
	line("\r\n# Cluster\r\ncluster_enabled:0")
	line("\r\n# Scatter\r\nnode:%s\r\nnodes:%s\r\nring_revision:%d\r\npartitions:%d", c.node.cfg.name,
		strings.Join(ring.nodes, ","), ring.revision, partitions)
	for p, applied := range c.node.index.applied() {
		if p == meta || ring.held[p] {
			line("applied_%d:%d", p, applied)
		}
	}
	line("indexes:%d", len(c.node.index.schemas()))
	return b.String(), nil
}
