package main

import (
	"context"
	"fmt"
	"net"
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

// keyTime is how long a command about keys may take.
const keyTime = 5 * time.Second

// server is the RESP side of a node: clients and other nodes connect to the same port.
type server struct {
	node    *node
	redcon  *redcon.Server
	guard   *guard
	ids     atomic.Int64
	running sync.WaitGroup // connections

	mu      sync.Mutex
	peers   map[redcon.DetachedConn]bool // connections of other nodes
	stopped bool
}

// client is what is known of a connection.
type client struct {
	id    int64
	proto int // of RESP, 2 or 3
	name  string
}

func startServer(n *node, listener net.Listener) *server {
	s := &server{node: n, peers: make(map[redcon.DetachedConn]bool)}
	s.guard = &guard{Listener: listener, most: n.cfg.clients, refuse: func() { n.log.Warn("too many connections") }}
	s.redcon = redcon.NewServer("", s.serve, func(conn redcon.Conn) bool {
		conn.SetContext(&client{id: s.ids.Add(1), proto: 2})
		s.running.Add(1)
		return true
	}, func(redcon.Conn, error) { s.running.Done() })
	n.running.Go(func() {
		if err := s.redcon.Serve(s.guard); err != nil {
			n.log.Error("serve", zap.Error(err))
		}
	})
	return s
}

// addr is where the server listens.
func (s *server) addr() string { return s.guard.Addr().String() }

// stop closes all connections and waits for the commands that run.
func (s *server) stop() {
	s.mu.Lock()
	s.stopped = true
	for conn := range s.peers {
		conn.NetConn().Close() // Close would write what servePeer may be writing
	}
	s.mu.Unlock()
	s.redcon.Close()
	s.running.Wait()
}

// servePeer takes over the connection of another node.
func (s *server) servePeer(conn redcon.Conn, first redcon.Command) {
	peer := conn.Detach()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		peer.Close()
		return
	}
	s.peers[peer] = true
	s.running.Go(func() {
		servePeer(peer, first, s.node.handle)
		s.mu.Lock()
		delete(s.peers, peer)
		s.mu.Unlock()
	})
}

// command is what a client may send.
type command struct {
	arity int // number of words, the command's name among them; negative: so many at least
	run   func(n *node, ctx context.Context, c *client, w *writer, args [][]byte)
}

var commands map[string]command

func init() { // as COMMAND lists them
	commands = map[string]command{
		"ping": {-1, pingCommand}, "echo": {2, echoCommand}, "hello": {-1, helloCommand}, "client": {-2, clientCommand},
		"command": {-1, commandCommand}, "info": {-1, infoCommand}, "select": {2, selectCommand}, "quit": {-1, nil},
		"set": {-3, setCommand}, "get": {2, getCommand}, "del": {-2, delCommand}, "exists": {-2, existsCommand},
		"type": {2, typeCommand}, "hset": {-4, hsetCommand}, "hget": {3, hgetCommand}, "hmget": {-3, hmgetCommand},
		"hgetall": {2, hgetallCommand}, "hdel": {-3, hdelCommand},
		"ft.create": {-2, ftCreate}, "ft.search": {-3, ftSearch}, "ft.regex": {-3, ftRegex}, "ft.info": {2, ftInfo},
		"ft._list": {1, ftList}, "ft.dropindex": {-2, ftDropIndex}, "scatter.ledger": {-1, ledgerCommand},
	}
}

// serve runs one command of a client.
func (s *server) serve(conn redcon.Conn, cmd redcon.Command) {
	name := strings.ToLower(string(cmd.Args[0]))
	if name == "scatter.peer" {
		s.servePeer(conn, cmd)
		return
	}
	c := conn.Context().(*client)
	w := &writer{proto: c.proto}
	command, known := commands[name]
	words := len(cmd.Args)
	switch {
	case !known:
		w.err(errUnknownCommand(cmd.Args[0], cmd.Args[1:]))
	case command.arity >= 0 && words != command.arity, words < -command.arity:
		w.err(errWrongArgs(name))
	case name == "quit":
		conn.WriteString("OK")
		conn.Close()
		return
	default:
		s.run(name, command, c, w, cmd)
	}
	conn.WriteRaw(w.bytes())
}

// run runs a command and contains its panic: one client's bad luck must not be everybody's.
func (s *server) run(name string, command command, c *client, w *writer, cmd redcon.Command) {
	defer func() {
		if r := recover(); r != nil {
			s.node.log.Error("panic", zap.Any("value", r), zap.String("command", name),
				zap.ByteString("stack", debug.Stack()))
			*w = writer{proto: c.proto}
			w.err(replyError("ERR internal error"))
		}
	}()
	limit := keyTime
	switch name {
	case "ft.search", "ft.regex", "ft.dropindex":
		limit = longest // searches have a limit of their own
	}
	ctx, cancel := context.WithTimeout(s.node.ending, limit)
	defer cancel()
	command.run(s.node, ctx, c, w, cmd.Args[1:])
}

func pingCommand(_ *node, _ context.Context, _ *client, w *writer, args [][]byte) {
	switch len(args) {
	case 0:
		w.simple("PONG")
	case 1:
		w.bulk(args[0])
	default:
		w.err(errWrongArgs("ping"))
	}
}

func echoCommand(_ *node, _ context.Context, _ *client, w *writer, args [][]byte) { w.bulk(args[0]) }

// hello answers HELLO [protover [AUTH user password] [SETNAME name]].
func helloCommand(n *node, _ context.Context, c *client, w *writer, args [][]byte) {
	proto, name := c.proto, c.name
	if len(args) > 0 {
		v, err := strconv.Atoi(string(args[0]))
		if err != nil {
			w.err(replyError("ERR Protocol version is not an integer or out of range"))
			return
		}
		if v != 2 && v != 3 {
			w.err(replyError("NOPROTO unsupported protocol version"))
			return
		}
		proto = v
		for rest := args[1:]; len(rest) > 0; rest = rest[2:] {
			if !strings.EqualFold(string(rest[0]), "setname") || len(rest) < 2 {
				w.err(fmt.Errorf("ERR Syntax error in HELLO option '%.128s'", rest[0]))
				return
			}
			name = string(rest[1])
		}
	}
	c.proto, w.proto, c.name = proto, proto, name
	w.mapOf(7)
	w.bulkString("server")
	w.bulkString("redis") // as which it is to be spoken to
	w.bulkString("version")
	w.bulkString(redisVersion)
	w.bulkString("proto")
	w.integer(int64(proto))
	w.bulkString("id")
	w.integer(c.id)
	w.bulkString("mode")
	w.bulkString("standalone")
	w.bulkString("role")
	w.bulkString("master")
	w.bulkString("modules")
	w.array(0)
}

// redisVersion is the version of Redis whose manners these are.
const redisVersion = "7.4.0"

func clientCommand(_ *node, _ context.Context, c *client, w *writer, args [][]byte) {
	switch sub := strings.ToLower(string(args[0])); {
	case sub == "setinfo" && len(args) == 3:
		w.simple("OK")
	case sub == "setname" && len(args) == 2:
		c.name = string(args[1])
		w.simple("OK")
	case sub == "getname" && len(args) == 1 && c.name == "":
		w.null()
	case sub == "getname" && len(args) == 1:
		w.bulkString(c.name)
	case sub == "id" && len(args) == 1:
		w.integer(c.id)
	default:
		w.err(replyError(fmt.Sprintf(
			"ERR unknown subcommand or wrong number of arguments for '%.128s'. Try CLIENT HELP.", args[0])))
	}
}

func commandCommand(_ *node, _ context.Context, _ *client, w *writer, args [][]byte) {
	sub := ""
	if len(args) > 0 {
		sub = strings.ToLower(string(args[0]))
	}
	switch sub {
	case "":
		var names []string
		for name := range commands {
			names = append(names, name)
		}
		slices.Sort(names)
		w.array(len(names))
		for _, name := range names {
			w.array(6)
			w.bulkString(name)
			w.integer(int64(commands[name].arity))
			w.array(0)
			w.integer(0)
			w.integer(0)
			w.integer(0)
		}
	case "count":
		w.integer(int64(len(commands)))
	default:
		w.err(replyError(fmt.Sprintf("ERR unknown subcommand '%.128s'. Try COMMAND HELP.", args[0])))
	}
}

func selectCommand(_ *node, _ context.Context, _ *client, w *writer, args [][]byte) {
	switch db, err := strconv.Atoi(string(args[0])); {
	case err != nil:
		w.err(errNotInteger)
	case db != 0:
		w.err(replyError("ERR DB index is out of range"))
	default:
		w.simple("OK")
	}
}

func infoCommand(n *node, _ context.Context, _ *client, w *writer, _ [][]byte) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("# Server\r\nredis_version:%s\r\nredis_mode:standalone\r\ntcp_port:%d", redisVersion,
		n.server.guard.Addr().(*net.TCPAddr).Port)
	line("# Clients\r\nconnected_clients:%d\r\nmaxclients:%d", n.server.guard.count(), n.cfg.clients)
	documents, indexed := n.storeCounts()
	line("# Scatter\r\nnode:%s\r\nstatus_page:http://%s\r\nreplicas:%d\r\ncurrent:%t", n.name, n.webAddr, n.cfg.replicas,
		n.currency.current())
	line("documents:%d\r\nindexed_documents:%d", documents, indexed)
	stats := n.searcher.Stats()
	line("searches:%d\r\npartial_searches:%d\r\nprobes:%d\r\nfallbacks:%d\r\nhedges:%d", stats.Queries, stats.Partial,
		stats.Probes, stats.Fallbacks, stats.Hedges)
	live := 0
	for i, m := range n.view.Load().members {
		state := "down"
		if n.live(m.name) {
			state = "up"
			live++
		}
		line("member%d:name=%s,addr=%s,http=%s,tokens=%d,state=%s", i, m.name, m.addr, m.http, m.tokens, state)
	}
	line("members_up:%d", live)
	w.bulkString(b.String())
}
