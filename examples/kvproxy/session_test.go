//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// exchange is a command of the README's session, and what redis-cli shows for it.
type exchange struct{ command, output string }

// readSession reads the session from the README.
func readSession(t *testing.T) (session []exchange) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```console\n$ redis-cli -p 7000\n")
	block, _, ended := strings.Cut(rest, "```\n")
	for line := range strings.Lines(block) {
		if command, ok := strings.CutPrefix(line, "127.0.0.1:7000> "); ok {
			session = append(session, exchange{command: command})
		} else if n := len(session); n > 0 {
			session[n-1].output += line
		} else {
			t.Fatalf("the session begins with %q", line)
		}
	}
	if !ended || len(session) < 10 {
		t.Fatalf("%d commands in the session", len(session))
	}
	return session
}

// play has redis-cli run a command, and returns what it shows.
func play(ctx context.Context, t *testing.T, addr, command string) string {
	t.Helper()
	host, port, _ := strings.Cut(addr, ":")
	cli := exec.CommandContext(ctx, "redis-cli", "--no-raw", "-h", host, "-p", port) // as it is shown in a terminal
	cli.Stdin = strings.NewReader(command)
	output, err := cli.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, output)
	}
	return tookLong.ReplaceAllString(string(output), "")
}

// tookLong is what redis-cli adds when a command has taken more than half a second.
var tookLong = regexp.MustCompile(`(?m)^\(\d+\.\d+s\)\n`)

// readUntil reads up to a line that matches, and returns all that was read and what the line's groups have matched.
func readUntil(t *testing.T, in *bufio.Reader, pattern string) (text string, groups []string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for {
		line, err := in.ReadString('\n')
		text += line
		if groups := re.FindStringSubmatch(line); groups != nil {
			return text, groups
		}
		if err != nil {
			t.Fatalf("%v: no line like %s in %s", err, pattern, text)
		}
	}
}

// The program does as the README says: the session goes as it is printed there; and after a node was killed, and after
// it was started again by the command that was printed, the answers are still the same.
func TestReadmeSession(t *testing.T) {
	if _, err := exec.LookPath("redis-cli"); err != nil {
		if os.Getenv("SCATTER_NO_SKIP") == "" {
			t.Skip("redis-cli isn't installed: apt-get install redis-tools")
		}
		t.Fatal(err)
	}
	session := readSession(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	running, stop := context.WithCancel(ctx)
	stdout, in := io.Pipe()
	ended := make(chan struct{})
	var ending error
	go func() {
		defer close(ended)
		ending = run(running, []string{"-cluster", "5", "-listen", "127.0.0.1:0", "-log", "error"}, nil, in)
		in.Close()
	}()
	defer func() {
		stop()
		stdout.Close() // nobody reads any more
		<-ended
	}()
	out := bufio.NewReader(stdout)
	printed, _ := readUntil(t, out, "Ctrl-C stops all")
	find := func(pattern string) string {
		t.Helper()
		groups := regexp.MustCompile(pattern).FindStringSubmatch(printed)
		if groups == nil {
			t.Fatalf("nothing like %s in %s", pattern, printed)
		}
		return groups[1]
	}
	proxy := "127.0.0.1:" + find(`redis-cli -h 127\.0\.0\.1 -p (\d+)`)

	for _, e := range session {
		if got := play(ctx, t, proxy, e.command); got != e.output {
			t.Fatalf("%s:\n%s\nbut in the README:\n%s", e.command, got, e.output)
		}
	}

	again := slices.DeleteFunc(slices.Clone(session), func(e exchange) bool { // what changes nothing
		word, _, _ := strings.Cut(e.command, " ")
		return slices.Contains([]string{"SET", "HSET", "FT.CREATE"}, word)
	})
	repeat := func(addr string) {
		t.Helper()
		for _, e := range again { // a node that has much to do may need some time until it is current
			for got := ""; got != e.output; got = play(ctx, t, addr, e.command) {
				if ctx.Err() != nil {
					t.Fatalf("%s:\n%s\nbut in the README:\n%s", e.command, got, e.output)
				}
			}
		}
	}
	var processes []int
	for _, groups := range regexp.MustCompile(`process (\d+)`).FindAllStringSubmatch(printed, -1) {
		pid, _ := strconv.Atoi(groups[1])
		processes = append(processes, pid)
	}
	if len(processes) != 5 {
		t.Fatalf("%d processes in %s", len(processes), printed)
	}
	pid, _ := strconv.Atoi(find(`node1 at \S+ process (\d+)`))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	repeat(proxy)

	words := strings.Fields(find(`(?s)start node1 again:\s+(.*?)\n`))
	node := exec.CommandContext(ctx, words[0], words[1:]...)
	node.Env = append(os.Environ(), asProgram+"=1")
	var stderr bytes.Buffer
	node.Stderr = &stderr
	output, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	_, groups := readUntil(t, bufio.NewReader(output), `^node1 serves (\S+), http://`)
	repeat(groups[1]) // it is a proxy, too
	repeat(proxy)
	if err := node.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := node.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("node1: %v, %s", err, &stderr)
	}
	repeat(proxy)

	stop()
	printed, _ = readUntil(t, out, "stopped")
	if <-ended; ending != nil {
		t.Errorf("%v after %s", ending, printed)
	}
	for _, pid := range processes {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

// A node that is started by hand joins, and fetches what it is to have. Nothing is missing meanwhile without a word.
func TestNodeByHand(t *testing.T) {
	c, client := newTestCluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := client.Do(ctx, "FT.CREATE", "idx", "PREFIX", 1, "doc:", "SCHEMA", "title", "TEXT").Err(); err != nil {
		t.Fatal(err)
	}
	const documents = 100
	key := func(i int) string { return "doc:" + strconv.Itoa(i%documents) }
	for i := range documents {
		if err := client.HSet(ctx, key(i), "title", key(i)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	p := &process{name: "hand", args: []string{
		"node", "-name", "hand", "-listen", "127.0.0.1:0", "-data", t.TempDir(), "-join", c.proxy.server.addr(),
	}}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		p.hold.Close()
		<-p.done
	}()
	c.nodes = append(c.nodes, p)
	for settled := 0; settled < 2*documents; { // and a while longer
		for i := range documents {
			if got, err := client.HGet(ctx, key(i), "title").Result(); got != key(i) && !isNoQuorum(err) {
				t.Fatalf("%s is %q, %v", key(i), got, err)
			}
			if f := everything(ctx, client); len(f.warnings) == 0 && len(f.ids) != documents && !isNoQuorum(f.err) {
				t.Fatalf("a search that calls itself whole finds %d of %d documents, %v", len(f.ids), documents, f.err)
			}
			if s := c.proxy.statuses(ctx, c.proxy.view.Load())["hand"]; s.current && s.documents > documents/2 {
				settled++
			}
		}
		if ctx.Err() != nil {
			t.Fatal("it hasn't got its share of the documents")
		}
	}
	if !c.ready(ctx) {
		t.Error("not all nodes are current")
	}
}

func isNoQuorum(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "NOQUORUM") }
