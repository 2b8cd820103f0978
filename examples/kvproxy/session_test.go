//go:build unix

package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// readSession returns the commands of the README's session, and what redis-cli prints for each.
func readSession(t *testing.T) (session [][2]string) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(text), "```console\n$ redis-cli -p 7000\n")
	block, _, _ := strings.Cut(rest, "```\n")
	for line := range strings.Lines(block) {
		if command, ok := strings.CutPrefix(line, "127.0.0.1:7000> "); ok {
			session = append(session, [2]string{command})
		} else {
			session[len(session)-1][1] += line
		}
	}
	require.Greater(t, len(session), 10)
	return session
}

// tookLong is what redis-cli adds if a command has taken more than half a second.
var tookLong = regexp.MustCompile(`(?m)^\(\d+\.\d+s\)\n`)

// The session in the README goes as it is printed there. A node is killed, and the answers of
// another one are the same.
func TestReadmeSession(t *testing.T) {
	if _, err := exec.LookPath("redis-cli"); err != nil {
		if os.Getenv("SCATTER_NO_SKIP") == "" {
			t.Skip("redis-cli isn't installed: apt-get install redis-tools")
		}
		t.Fatal(err)
	}
	c := startTestCluster(t, 5)
	play := func(node, command string) string {
		host, port, _ := strings.Cut(c.clients[node].Options().Addr, ":")
		cli := exec.CommandContext(t.Context(), "redis-cli", "--no-raw", "-h", host, "-p", port)
		cli.Stdin = strings.NewReader(command)
		output, err := cli.CombinedOutput()
		require.NoError(t, err, string(output))
		return tookLong.ReplaceAllString(string(output), "")
	}
	session := readSession(t)
	for _, s := range session {
		require.Equal(t, s[1], play("node1", s[0]), s[0])
	}
	c.kill(c.nodes[0])
	for _, s := range session {
		word, _, _ := strings.Cut(s[0], " ")
		if word != "SET" && word != "HSET" && word != "FT.CREATE" {
			require.Equal(t, s[1], play("node2", s[0]), s[0])
		}
	}
}
