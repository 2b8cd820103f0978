package main

import (
	"cmp"
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

The documents are spread over the nodes of a small cluster in this process, each document on several
of them. A search asks a few nodes that have everything together, and others in the place of those that
fail or are slow. It merges their answers and prints what became of each node.

Nodes that are down, slow or fail cost only time as long as another node has the same documents and
answers by the deadline. If none does, these documents are missing: the answer is called partial, and says
how much of the index it covers and which nodes are missing. With two replicas one bad node costs no
documents. Two or more bad nodes can, whether they are down, slow or failing. If no node answers at all, the
exit status is 1.

Flags come before the query. With "go run -C examples" relative file names are relative to examples/.

Examples:

	stdsearch "read a zip archive"
	stdsearch -slow node2=300ms "parse a duration"
	stdsearch -down node3,node4 -k 5 "atomic counter"
	stdsearch -nodes 6 -racks 2 -fail node1 "atomic counter"
	stdsearch -k 30 -page 10 "copy a file"
	stdsearch -text "zip archive"
	stdsearch -ivf -base sift_base.fvecs -query sift_query.fvecs -truth sift_groundtruth.ivecs

Flags:

`

// config is what the command line says.
type config struct {
	words    string // the query in words
	text     string // or a substring
	base     string // or files of vectors
	query    string
	truth    string
	nodes    int
	replicas int
	racks    int // if not 0, replicas is the same number
	groups   bool
	k        int
	page     int // if 0, there are no pages
	peerK    bool
	deadline time.Duration
	ivf      bool
	faults   faults // what down, slow and fail say
	down     string
	slow     string
	fail     string
	goroot   string
	verbose  bool
}

// parseFlags reads the command line. Its error says which flag is wrong, what it should be and what
// it is. The error flag.ErrHelp means that the usage was asked for, and has been printed to stdout.
func parseFlags(args []string, stdout io.Writer) (*config, error) {
	var c config
	fs := c.flagSet()
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
	if c.racks > 0 {
		c.replicas = c.racks
	}
	if err := cmp.Or(c.checkPlacement(given), c.parseFaults(), c.checkQuery(given)); err != nil {
		return nil, err
	}
	return &c, nil
}

// flagSet returns flags that set the fields of c.
func (c *config) flagSet() *flag.FlagSet {
	fs := flag.NewFlagSet("stdsearch", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // The caller prints errors, without the whole usage.
	fs.Var(newWhole(&c.nodes, 5, 1000), "nodes", "spread the documents over `n` nodes, named node1 to node<n>")
	fs.Var(newWhole(&c.replicas, 2, 1000), "replicas", "store each document on `n` nodes")
	fs.Var(newWhole(&c.racks, 0, 1000), "racks", "divide the nodes among `n` racks, and store each document once in each")
	fs.BoolVar(&c.groups, "groups", false,
		"divide the documents into shards that are each stored on a group of nodes of their own: as\n"+
			"many shards as leave -replicas nodes, or more, for each")
	fs.Var(newWhole(&c.k, 10, 10_000), "k", "find the best `n` documents")
	fs.Var(newWhole(&c.page, 0, 10_000), "page",
		"find them in pages of `n`, each by a search that begins where the page before ended, and print\n"+
			"up to which rank each page is exact")
	fs.BoolVar(&c.peerK, "peerk", false,
		"ask each node for fewer than -k documents at first, and again if more of its documents\n"+
			"could be among the best: the answer is the same, but less is sent")
	fs.StringVar(&c.down, "down", "",
		"`nodes` that are dead, such as node3,node4: they are not asked, and documents that\nonly they have are missing")
	fs.StringVar(&c.slow, "slow", "",
		"`nodes` that answer late, and how late, such as node2=300ms,node5=1s: after "+hedgeDelay.String()+" others\n"+
			"are asked too; what only they have is missing if they take longer than -deadline")
	fs.StringVar(&c.fail, "fail", "",
		"`nodes` that return an error, such as node1: others are asked instead, and documents that\n"+
			"only they have are missing")
	c.deadline = scatter.DefaultPeerDeadline
	fs.Var((*deadline)(&c.deadline), "deadline", "wait for each node no longer than this `duration`")
	fs.BoolVar(&c.ivf, "ivf", false, "index approximately, by an inverted file: it is faster, but recall falls below 1")
	fs.StringVar(&c.text, "text", "", "find the documents that contain a `substring`, in order of their names")
	fs.StringVar(&c.base, "base", "", "search the vectors in `file`: .fvecs or .bvecs")
	fs.StringVar(&c.query, "query", "", "for each vector in `file`: .fvecs or .bvecs")
	fs.StringVar(&c.truth, "truth", "", "and compare with the true neighbours in `file`: .ivecs")
	fs.StringVar(&c.goroot, "goroot", "", "read the standard library in `dir`, not that of the go command")
	fs.BoolVar(&c.verbose, "v", false, "log to stderr what happens during the search")
	return fs
}

func (c *config) checkPlacement(given map[string]bool) error {
	switch {
	case given["racks"] && given["replicas"]:
		return errors.New("-racks: want no -replicas, as each rack stores each document once")
	case given["racks"] && c.groups:
		return errors.New("-racks: want no -groups, as they are two ways to place documents")
	case c.racks > c.nodes:
		return fmt.Errorf("-racks: want at most %d, the number of nodes, got %d", c.nodes, c.racks)
	case c.replicas > c.nodes:
		return fmt.Errorf("-replicas: want at most %d, the number of nodes, got %d", c.nodes, c.replicas)
	}
	return nil
}

func (c *config) checkQuery(given map[string]bool) error {
	files := given["base"] || given["query"] || given["truth"]
	switch {
	case given["page"] && files:
		return errors.New("-page: want query words or -text, as vectors from files are searched without pages")
	case files && (c.base == "" || c.query == "" || c.truth == ""):
		return fmt.Errorf("want -base, -query and -truth together, got -base %q, -query %q, -truth %q",
			c.base, c.query, c.truth)
	case c.words != "" && len(words(c.words)) == 0:
		return fmt.Errorf("want a query with a word to search for, got only stop words or none: %q", c.words)
	case given["text"] && c.text == "":
		return errors.New(`-text: want a substring, got ""`)
	}
	if asked := count(c.words != "", given["text"], files); asked != 1 {
		return fmt.Errorf("want one of query words, -text, or -base with -query and -truth, got %d of them", asked)
	}
	return nil
}

// parseFaults reads the flags that say which nodes are bad.
func (c *config) parseFaults() (err error) {
	if c.faults.down, err = parseNodes(c.down, c.nodes); err != nil {
		return fmt.Errorf("-down: %w", err)
	}
	if c.faults.slow, err = parseSlow(c.slow, c.nodes); err != nil {
		return fmt.Errorf("-slow: %w", err)
	}
	if c.faults.fail, err = parseNodes(c.fail, c.nodes); err != nil {
		return fmt.Errorf("-fail: %w", err)
	}
	return nil
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

// whole is the value of a flag that is a whole number from 1 to max. A default of 0 means not
// given.
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
	if w.n == nil { // Package flag asks the zero value too.
		return "0"
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
