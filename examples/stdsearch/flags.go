package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/scatterknn/scatter"
)

const usage = `Usage:

	stdsearch [flags] query words        search the Go standard library's documentation by meaning
	stdsearch [flags] -text substring    search it for a substring
	stdsearch [flags] -base FILE -query FILE -truth FILE
	                                     measure a search over vectors from files

The documents are spread over the nodes of a small cluster in this process. Every live node is asked,
and their answers are merged. Run by "go run -C examples", relative file names are relative to
examples/. Flags come before the query.

Examples:

	stdsearch "read a zip archive"
	stdsearch -slow node2=300ms -deadline 100ms "parse a duration"
	stdsearch -down node3,node4 -k 5 "atomic counter"
	stdsearch -text "zip archive"
	stdsearch -ivf -base sift_base.fvecs -query sift_query.fvecs -truth sift_groundtruth.ivecs

Flags:

`

// config is what the command line asks for.
type config struct {
	words    string // the query in words
	text     string // or a substring
	base     string // or files of vectors
	query    string
	truth    string
	nodes    int
	replicas int
	k        int
	deadline time.Duration
	ivf      bool
	faults   faults
	goroot   string
	verbose  bool
}

// parseFlags reads the command line. Its error says which flag is wrong, what it should be and what it is;
// flag.ErrHelp means that usage was asked for, and has been printed to stdout.
func parseFlags(args []string, stdout io.Writer) (*config, error) {
	var c config
	var down, slow, fail string
	fs := flag.NewFlagSet("stdsearch", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are printed by the caller, once, without all of the usage
	fs.Var(newWhole(&c.nodes, 5, 1000), "nodes", "spread the documents over `n` nodes, named node1 to node<n>")
	fs.Var(newWhole(&c.replicas, 2, 1000), "replicas", "store each document on `n` nodes")
	fs.Var(newWhole(&c.k, 10, 10_000), "k", "find the best `n` documents")
	fs.StringVar(&down, "down", "", "`nodes` that are dead and not asked, such as node3,node4")
	fs.StringVar(&slow, "slow", "", "`nodes` that answer late, and how late, such as node2=300ms,node5=1s")
	fs.StringVar(&fail, "fail", "", "`nodes` that answer with an error, such as node1")
	c.deadline = scatter.DefaultPeerDeadline
	fs.Var((*deadline)(&c.deadline), "deadline", "wait for each node at most this `duration`")
	fs.BoolVar(&c.ivf, "ivf", false, "index approximately (inverted file): faster, and recall falls below 1")
	fs.StringVar(&c.text, "text", "", "find the documents that contain a `substring`, in order of their names")
	fs.StringVar(&c.base, "base", "", "search the vectors in `file`: .fvecs or .bvecs")
	fs.StringVar(&c.query, "query", "", "for each vector in `file`: .fvecs or .bvecs")
	fs.StringVar(&c.truth, "truth", "", "and compare with the true neighbours in `file`: .ivecs")
	fs.StringVar(&c.goroot, "goroot", "", "read the standard library in `dir`, not that of the go command")
	fs.BoolVar(&c.verbose, "v", false, "log what happens during the search, to stderr")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, usage)
			fs.SetOutput(stdout)
			fs.PrintDefaults()
		}
		return nil, err
	}
	c.words = strings.TrimSpace(strings.Join(fs.Args(), " "))
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for _, word := range fs.Args() {
		name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if strings.HasPrefix(word, "-") && fs.Lookup(name) != nil {
			return nil, fmt.Errorf("flag %s stands after the query: want it before", word)
		}
	}

	if !given["replicas"] {
		c.replicas = min(c.replicas, c.nodes)
	}
	var errDown, errSlow, errFail error
	c.faults.down, errDown = parseNodes(down, c.nodes)
	c.faults.slow, errSlow = parseSlow(slow, c.nodes)
	c.faults.fail, errFail = parseNodes(fail, c.nodes)
	files := given["base"] || given["query"] || given["truth"]
	switch {
	case c.replicas > c.nodes:
		return nil, fmt.Errorf("-replicas: want at most %d, the number of nodes, got %d", c.nodes, c.replicas)
	case errDown != nil:
		return nil, fmt.Errorf("-down: %w", errDown)
	case errSlow != nil:
		return nil, fmt.Errorf("-slow: %w", errSlow)
	case errFail != nil:
		return nil, fmt.Errorf("-fail: %w", errFail)
	case files && (c.base == "" || c.query == "" || c.truth == ""):
		return nil, fmt.Errorf("want -base, -query and -truth together, got -base %q, -query %q, -truth %q",
			c.base, c.query, c.truth)
	case c.words != "" && len(words(c.words)) == 0:
		return nil, fmt.Errorf("want a query with a word to search for, got only stop words or none: %q", c.words)
	case given["text"] && c.text == "":
		return nil, errors.New(`-text: want a substring, got ""`)
	}
	if asked := count(c.words != "", given["text"], files); asked != 1 {
		return nil, fmt.Errorf("want one of query words, -text, or -base with -query and -truth, got %d of them", asked)
	}
	return &c, nil
}

// parseNodes reads a list such as "node3,node4".
func parseNodes(list string, nodes int) (map[scatter.PeerID]bool, error) {
	set := make(map[scatter.PeerID]bool)
	for item := range strings.SplitSeq(list, ",") {
		if list == "" {
			break
		}
		name, err := parseNode(item, nodes)
		if err != nil {
			return nil, err
		}
		set[name] = true
	}
	return set, nil
}

// parseSlow reads a list such as "node2=300ms,node5=1s".
func parseSlow(list string, nodes int) (map[scatter.PeerID]time.Duration, error) {
	slow := make(map[scatter.PeerID]time.Duration)
	for item := range strings.SplitSeq(list, ",") {
		if list == "" {
			break
		}
		node, delay, _ := strings.Cut(item, "=")
		name, err := parseNode(node, nodes)
		if err != nil {
			return nil, err
		}
		d, err := time.ParseDuration(delay)
		if err != nil || d < 0 {
			return nil, fmt.Errorf("want a node and a duration, such as node2=300ms, got %q", item)
		}
		slow[name] = d
	}
	return slow, nil
}

func parseNode(name string, nodes int) (scatter.PeerID, error) {
	for i := range nodes {
		if nodeName(i+1) == scatter.PeerID(name) {
			return nodeName(i + 1), nil
		}
	}
	return "", fmt.Errorf("want nodes out of node1 to %s, got %q", nodeName(nodes), name)
}

// whole is the value of a flag that is a whole number from 1 to max.
type whole struct {
	n   *int
	max int
}

func newWhole(n *int, value, max int) *whole {
	*n = value
	return &whole{n, max}
}

func (w *whole) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > w.max {
		return fmt.Errorf("want a whole number from 1 to %d", w.max)
	}
	*w.n = n
	return nil
}

func (w *whole) String() string {
	if w.n == nil { // package flag asks the zero value too
		return ""
	}
	return strconv.Itoa(*w.n)
}

// deadline is the value of a flag that is a duration above 0.
type deadline time.Duration

func (d *deadline) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v <= 0 {
		return errors.New("want a duration above 0, such as 100ms")
	}
	*d = deadline(v)
	return nil
}

func (d *deadline) String() string { return time.Duration(*d).String() }

func count(conditions ...bool) int {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}
