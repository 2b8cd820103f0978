package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestParseFlags(t *testing.T) {
	args := []string{"-nodes", "4", "-replicas=3", "-k", "7", "-down", "node3,node4", "-slow", "node2=300ms,node1=1h",
		"-fail", "node1", "-deadline", "100ms", "-ivf", "-page", "3", "-peerk", "-groups", "read", "a zip"}
	c, err := parseFlags(args, nil)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case c.page != 3, !c.peerK, !c.groups, c.racks != 0, c.nodes != 4, c.replicas != 3, c.k != 7, c.deadline != 100*time.Millisecond, !c.ivf, c.words != "read a zip",
		len(c.faults.down) != 2, !c.faults.down["node3"], !c.faults.down["node4"],
		len(c.faults.slow) != 2, c.faults.slow["node2"] != 300*time.Millisecond, c.faults.slow["node1"] != time.Hour,
		len(c.faults.fail) != 1, !c.faults.fail["node1"]:
		t.Errorf("parseFlags(%q) = %+v", args, c)
	}
}

func TestOneNodeHasOneReplica(t *testing.T) {
	if c, err := parseFlags([]string{"-nodes", "1", "zip"}, nil); err != nil || c.replicas != 1 {
		t.Errorf("parseFlags of one node = %+v, %v, want 1 replica", c, err)
	}
}

func TestRacksAreReplicas(t *testing.T) {
	if c, err := parseFlags([]string{"-nodes", "7", "-racks", "3", "zip"}, nil); err != nil || c.replicas != 3 {
		t.Errorf("parseFlags of 3 racks = %+v, %v, want 3 replicas", c, err)
	}
}

func TestEmptyQuery(t *testing.T) {
	if c, err := parseFlags([]string{"", " "}, nil); err == nil {
		t.Errorf("parseFlags of an empty query = %+v, want an error", c)
	}
}

func TestWrongFlags(t *testing.T) {
	tests := []struct{ args, want string }{
		{"", "want one of query words, -text, or -base with -query and -truth, got 0 of them"},
		{"-text zip read", "want one of query words, -text, or -base with -query and -truth, got 2 of them"},
		{"-text zip -base a.fvecs -query b.fvecs -truth c.ivecs", "got 2 of them"},
		{"-text= ", `-text: want a substring, got ""`},
		{"-base a.fvecs -query b.fvecs", `want -base, -query and -truth together, got -base "a.fvecs", -query "b.fvecs", -truth ""`},
		{"-nodes 0 zip", `invalid value "0" for flag -nodes: want a whole number from 1 to 1000`},
		{"-nodes many zip", `invalid value "many" for flag -nodes: want a whole number from 1 to 1000`},
		{"-k 0 zip", `invalid value "0" for flag -k: want a whole number from 1 to 10000`},
		{"-k 2.5 zip", `invalid value "2.5" for flag -k: want a whole number`},
		{"-replicas 6 zip", "-replicas: want at most 5, the number of nodes, got 6"},
		{"-nodes 1 -replicas 2 zip", "-replicas: want at most 1, the number of nodes, got 2"},
		{"-replicas -1 zip", `invalid value "-1" for flag -replicas: want a whole number`},
		{"-racks 2 -replicas 2 zip", "-racks: want no -replicas"},
		{"-racks 2 -groups zip", "-racks: want no -groups"},
		{"-racks 6 zip", "-racks: want at most 5, the number of nodes, got 6"},
		{"-racks 0 zip", `invalid value "0" for flag -racks: want a whole number from 1 to 1000`},
		{"-page 0 zip", `invalid value "0" for flag -page: want a whole number from 1 to 10000`},
		{"-page 5 -base a.fvecs -query b.fvecs -truth c.ivecs", "-page: want query words or -text"},
		{"-deadline 100 zip", `invalid value "100" for flag -deadline: want a duration above 0, such as 100ms`},
		{"-deadline 0s zip", `invalid value "0s" for flag -deadline: want a duration above 0`},
		{"-down node6 zip", `-down: want nodes out of node1 to node5, got "node6"`},
		{"-down node1, zip", `-down: want nodes out of node1 to node5, got ""`},
		{"-fail node01 zip", `-fail: want nodes out of node1 to node5, got "node01"`},
		{"-slow node9=1s zip", `-slow: want nodes out of node1 to node5, got "node9"`},
		{"-slow node1 zip", `-slow: want a node and a duration, such as node2=300ms, got "node1"`},
		{"-slow node1=soon zip", `-slow: want a node and a duration, such as node2=300ms, got "node1=soon"`},
		{"-slow node1=-1s zip", `-slow: want a node and a duration, such as node2=300ms, got "node1=-1s"`},
		{"zip -k 5", "flag -k stands after the query: want it before"},
		{"zip --text=x", "flag --text=x stands after the query: want it before"},
		{"-nosuch zip", "flag provided but not defined: -nosuch"},
		{"the of", `want a query with a word to search for, got only stop words or none: "the of"`},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), strings.Fields(tt.args), &stdout, &stderr); code != 2 {
				t.Errorf("exit code = %d, want 2", code)
			}
			if !strings.Contains(stderr.String(), tt.want) || stdout.Len() > 0 {
				t.Errorf("stderr = %s\n  want %s", &stderr, tt.want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, flag := range []string{"-h", "-help", "--help"} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{flag}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Errorf("%s: exit code %d, stderr %s", flag, code, &stderr)
		}
		for _, want := range []string{"Usage:", "Examples:", "go run -C examples", "-replicas n", "(default 5s)"} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%s: no %q in %s", flag, want, &stdout)
			}
		}
	}
}
