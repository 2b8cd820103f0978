// Hybrid searches the documentation of the Go standard library by words and by vectors at the same
// time, and fuses the two lists into one.
//
//	go run -C examples ./hybrid "read a zip archive"
//
// It makes six nodes in this process, two for each third of the documents. Two searches of one
// Searcher run concurrently: one for the best BM25 scores, and one for the vectors nearest to that
// of the query, which the nodes store with 8 bits for each dimension. Reciprocal rank fusion makes
// one list of the two. The nodes that hold the best documents of it then rank these again by their
// full vectors.
//
// It prints how many of the fused ranks are certain: no document that the two lists don't show can
// change them. With -down node1 the answer is the same, because node2 holds the same documents.
// With -down node1,node2 a third of the documents is missing. They might have been the best ones,
// so no rank is certain.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
	"github.com/scatterknn/scatter/examples/internal/demo"
)

const usage = `Usage: hybrid [flags] QUERY

Hybrid searches the documentation of the Go standard library by the words of the query and by its vector. It
prints the best of the fused list, ranked again by their full vectors: the rank in the fused list, in the list
by words and in the list by vectors ("-" if it is in one list only), and the score. Then it prints how many of
the fused ranks are certain, and how complete each search was.

Flags:
`

// groups is the number of parts of the index. Each is on two nodes.
const groups = 3

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("hybrid", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	k := flags.Int("k", 10, "return `n` documents")
	depth := flags.Int("depth", 50, "ask for `n` documents by words and as many by vectors; not less than -k")
	deadline := flags.Duration("deadline", time.Second, "wait for each node no longer than this `duration`")
	down := flags.String("down", "", "these `nodes` are down: names with commas between them, node1 to node6")
	goroot := flags.String("goroot", "", "read the Go installation in this `directory`, not that of the go command")
	flags.Parse(args)
	query := strings.Join(flags.Args(), " ")
	isDown := make(map[scatter.PeerID]bool)
	for name := range strings.FieldsFuncSeq(*down, func(r rune) bool { return r == ',' }) {
		isDown[scatter.PeerID(name)] = true
	}
	switch {
	case len(words(query)) == 0:
		return fmt.Errorf("QUERY is %q, want words: see -h", query)
	case *k < 1:
		return fmt.Errorf("-k is %d, want 1 or more", *k)
	case *depth < *k:
		return fmt.Errorf("-depth is %d, want %d or more, as for -k", *depth, *k)
	case *deadline <= 0:
		return fmt.Errorf("-deadline is %v, want more than 0", *deadline)
	}
	symbols, err := corpus.Read(ctx, corpus.GoRoot(ctx, *goroot))
	if err != nil {
		return err
	}
	live := func(p scatter.PeerID) bool { return !isDown[p] }
	c, err := newCluster(groups, symbols, scatter.Options{PeerDeadline: *deadline, Live: live})
	if err != nil {
		return err
	}
	defer c.close()
	for name := range isDown {
		if c.nodes[name] == nil {
			return fmt.Errorf("-down has %q, want node1 to node%d", name, len(c.nodes))
		}
	}
	a, err := c.search(ctx, query, *k, *depth)
	if err != nil {
		return err
	}
	a.print(out)
	return nil
}

func main() { demo.Main(run) }
