package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/scatterknn/scatter"
	"go.uber.org/zap"
)

// cluster is a proxy in this process, and nodes that are processes of their own.
type cluster struct {
	proxy *node
	nodes []*process
}

// process is a node that runs as a child.
type process struct {
	name string
	args []string // of the program, to start it again
	cmd  *exec.Cmd
	hold io.Closer     // its standard input: the node stops when that is closed, or when this process is no more
	done chan struct{} // closed when it has ended
	err  error         // why; to be read after done
}

// runCluster starts a cluster, tells how to use it, and stops it when ctx is over.
func runCluster(ctx context.Context, cfg config, nodes int, log *zap.Logger, out io.Writer) error {
	if cfg.data == "" {
		dir, err := os.MkdirTemp("", "kvproxy")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		cfg.data = dir
	}
	c, err := startCluster(ctx, cfg, nodes, log)
	if err != nil {
		return err
	}
	defer func() {
		c.stop()
		fmt.Fprintln(out, "stopped")
	}()
	host, port, _ := strings.Cut(c.proxy.server.addr(), ":")
	fmt.Fprintf(out, "%d nodes are up, with a proxy in front. Talk to it, or to any of them:\n\n", nodes)
	fmt.Fprintf(out, "    redis-cli -h %s -p %s\n    http://%s is its status page\n\n", host, port, c.proxy.webAddr)
	members := c.proxy.view.Load().members
	for _, p := range c.nodes {
		for _, m := range members {
			if string(m.name) == p.name {
				fmt.Fprintf(out, "    %s at %s, process %d, http://%s\n", p.name, m.addr, p.cmd.Process.Pid, m.http)
			}
		}
	}
	first := c.nodes[0]
	fmt.Fprintf(out, "\nKill one with kill -9. To start %s again:\n\n    %s %s\n\nCtrl-C stops all.\n",
		first.name, first.cmd.Path, strings.Join(first.args, " "))
	<-ctx.Done()
	return nil
}

// startCluster returns when all nodes serve and know each other.
func startCluster(ctx context.Context, cfg config, nodes int, log *zap.Logger) (_ *cluster, err error) {
	c := &cluster{}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	proxy := cfg
	proxy.name, proxy.data = "proxy", filepath.Join(cfg.data, "proxy")
	if c.proxy, err = startNode(proxy, log); err != nil {
		return nil, err
	}
	for i := range nodes {
		name := fmt.Sprintf("node%d", i+1)
		p := &process{name: name, args: []string{
			"node", "-name", name, "-listen", "127.0.0.1:0", "-data", filepath.Join(cfg.data, name),
			"-join", c.proxy.server.addr(), "-replicas", fmt.Sprint(cfg.replicas), "-timeout", cfg.timeout.String(),
			"-log", log.Level().String(),
		}}
		if err := p.start(); err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, p)
	}
	for !c.ready(ctx) {
		for _, p := range c.nodes {
			select {
			case <-p.done:
				return nil, fmt.Errorf("%s: %w", p.name, errors.Join(p.err, errEnded))
			default:
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return c, nil
}

var errEnded = errors.New("the process has ended")

// start starts a process that isn't running.
func (p *process) start() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	p.cmd = exec.Command(program, append([]string{p.args[0], "-attached"}, p.args[1:]...)...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = os.Stderr
	if p.hold, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.done = make(chan struct{})
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return nil
}

// asProgram is set in the environment of a node, which tells a test binary that it is to be one.
const asProgram = "KVPROXY_NODE"

// ready reports whether each node serves and is current, on the ring of all of them.
func (c *cluster) ready(ctx context.Context) bool {
	v := c.proxy.view.Load()
	if len(v.ring.PrimaryPeers(c.proxy.live)) != len(c.nodes) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	states := c.proxy.statuses(ctx, v)
	for _, m := range v.members {
		if s, ok := states[m.name]; !ok || s.ring != v.fingerprint || !s.current {
			return false
		}
	}
	return true
}

// stop stops all nodes, those that don't want to by force.
func (c *cluster) stop() {
	for _, p := range c.nodes {
		p.hold.Close()
	}
	var wait sync.WaitGroup
	for _, p := range c.nodes {
		wait.Go(func() {
			select {
			case <-p.done:
			case <-time.After(2 * stopTime):
				p.cmd.Process.Kill()
				<-p.done
			}
		})
	}
	wait.Wait()
	if c.proxy != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		c.proxy.stop(ctx)
	}
}

// nodeState is what a node says of itself.
type nodeState struct {
	current   bool
	ring      string // the fingerprint of its ring
	documents int64
}

// statuses asks all nodes on the ring, and this one, how they are. It leaves out those that don't answer in time.
func (n *node) statuses(ctx context.Context, v *view) map[scatter.PeerID]nodeState {
	answers := n.askAll(ctx, v, v.names(), opStatus)
	found := make(map[scatter.PeerID]nodeState)
	for range v.members {
		select {
		case a := <-answers:
			var s nodeState
			if a.err == nil && len(a.parts) == 3 {
				s.current, s.ring = string(a.parts[0]) == "1", string(a.parts[1])
				fmt.Sscan(string(a.parts[2]), &s.documents)
				found[a.peer] = s
			}
		case <-ctx.Done():
			return found
		}
	}
	return found
}
