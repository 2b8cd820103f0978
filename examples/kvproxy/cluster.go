package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// stores is how many stores -cluster starts: enough to lose one.
const stores = 3

// cluster is stores and nodes that are processes of their own.
type cluster struct{ stores, nodes []*process }

// process is a child.
type process struct {
	name  string
	args  []string // of the program
	cmd   *exec.Cmd
	hold  io.Closer     // its standard input: the child stops when that ends, as when this process dies
	ready chan string   // gets the line that it prints when it serves
	done  chan struct{} // closed when it has ended
	err   error         // why; to be read after done
}

// runCluster starts a cluster, prints how to use it, and stops it when ctx ends.
func runCluster(
	ctx context.Context, cfg config, nodes int, data string, lazy bool, inherited []string, out io.Writer,
) error {
	c, err := newCluster(cfg, nodes, data, lazy, inherited)
	if err != nil {
		return err
	}
	defer func() {
		c.stop()
		fmt.Fprintln(out, "stopped")
	}()
	lines, err := c.start(ctx)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(servedAddress(lines[0]))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d nodes and %d stores are up. Talk to any of the nodes:\n\n", nodes, stores)
	fmt.Fprintf(out, "    redis-cli -h %s -p %s\n\n", host, port)
	for i, p := range slices.Concat(c.nodes, c.stores) {
		fmt.Fprintf(out, "    %s, process %d\n", lines[i], p.cmd.Process.Pid)
	}
	first := c.nodes[0]
	fmt.Fprintf(out, "\nKill some with kill -9. To start %s again:\n\n    %s %s\n\nCtrl-C stops all.\n",
		first.name, first.cmd.Path, strings.Join(first.args, " "))
	<-ctx.Done()
	return nil
}

// servedAddress returns the address in the line that a process prints when it serves.
func servedAddress(line string) string {
	_, rest, _ := strings.Cut(line, " serves ")
	address, _, _ := strings.Cut(rest, ",")
	return address
}

// newCluster returns a cluster that hasn't been started.
func newCluster(cfg config, nodes int, data string, lazy bool, inherited []string) (*cluster, error) {
	ports, err := freePorts(2 * stores)
	if err != nil {
		return nil, err
	}
	urls, routes := make([]string, stores), make([]string, stores)
	for i := range stores {
		urls[i] = fmt.Sprintf("nats://127.0.0.1:%d", ports[i])
		routes[i] = fmt.Sprintf("nats://127.0.0.1:%d", ports[stores+i])
	}
	c := &cluster{}
	for i := range stores {
		name := fmt.Sprint("store", i+1)
		c.stores = append(c.stores, &process{name: name, args: []string{
			"store", "-name", name, "-listen", fmt.Sprint("127.0.0.1:", ports[i]),
			"-cluster", fmt.Sprint("127.0.0.1:", ports[stores+i]), "-routes", strings.Join(routes, ","),
			"-data", filepath.Join(data, name), fmt.Sprint("-lazy=", lazy),
		}})
	}
	for i := range nodes {
		name := fmt.Sprint("node", i+1)
		if i > 0 {
			cfg.listen, cfg.http = "127.0.0.1:0", "127.0.0.1:0"
		}
		c.nodes = append(c.nodes, &process{name: name, args: append([]string{
			"node", "-name", name, "-nats", strings.Join(urls, ","), "-listen", cfg.listen, "-http", cfg.http,
			"-data", filepath.Join(data, name),
		}, inherited...)})
	}
	return c, nil
}

// freePorts returns ports of loopback that nobody listens on at the moment.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// start returns when all processes serve. It returns the lines that they print, the nodes' first.
func (c *cluster) start(ctx context.Context) (lines []string, err error) {
	for _, p := range slices.Concat(c.stores, c.nodes) {
		if err := p.start(); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for _, p := range slices.Concat(c.nodes, c.stores) {
		select {
		case line := <-p.ready:
			lines = append(lines, line)
		case <-p.done:
			return nil, fmt.Errorf("%s has ended: %w", p.name, errors.Join(p.err, errors.New("it never served")))
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return lines, nil
}

// asProgram is set in the environment of a child. It tells a test binary to be the program.
const asProgram = "KVPROXY_PROGRAM"

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
	printed, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.ready, p.done = make(chan string, 1), make(chan struct{})
	go func() {
		lines := bufio.NewScanner(printed)
		for lines.Scan() {
			select {
			case p.ready <- lines.Text():
			default:
			}
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return nil
}

// stop stops the nodes and then the stores.
func (c *cluster) stop() {
	for _, group := range [][]*process{c.nodes, c.stores} {
		var all sync.WaitGroup
		for _, p := range group {
			all.Go(p.stop)
		}
		all.Wait()
	}
}

// stop stops a process that may have ended or never started. It kills one that takes too long.
func (p *process) stop() {
	if p.done == nil {
		return
	}
	_ = p.hold.Close() // it has ended: then that is an error
	select {
	case <-p.done:
	case <-time.After(2 * stopTime):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}
