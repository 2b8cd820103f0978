// Bleve searches the documentation of the Go standard library in a Bleve index that is split into
// shards. It asks the shards by scatter, where a Bleve program would use a bleve.IndexAlias.
//
//	go run -C examples ./bleve "read a zip archive"
//
// The same query always has the same order, also of equal scores. Pages lose and repeat nothing. A
// shard that is late, fails or panics costs its own hits, and the answer says so: try -slow 1,
// -fail 1 and -panic 1. The tests show what an alias does on the same shards.
//
// Each shard computes its scores from the statistics of its own documents, as with an alias. So the
// order depends on how many shards there are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/corpus"
	"github.com/scatterknn/scatter/examples/internal/demo"
)

// match is the query: documents that have any of the words.
type match string

// Order returns ScoreDescending: Bleve's best hit has the greatest score.
func (match) Order() scatter.Order { return scatter.ScoreDescending }

// found is a hit with the first sentence of its documentation.
type found struct {
	scatter.Hit[string]
	Title string
}

// search asks all shards. An answer that no shard has given is a *scatter.CoverageError, and not an
// empty success.
func (s *shards) search(
	ctx context.Context, req *scatter.Request, deadline time.Duration,
) (*scatter.Response[found], error) {
	return scatter.Broadcast(ctx, req, s.peers, s.probe, &scatter.Options{
		PeerDeadline: deadline,
		MinCoverage:  1 / float64(len(s.peers)),
	})
}

// walk searches page by page until it has k hits, and gives each page's certain hits to show. A
// page without any ends the walk: the next one would be no better.
func (s *shards) walk(
	ctx context.Context, words string, k, page int, deadline time.Duration,
	show func(first int, certain []found, resp *scatter.Response[found]),
) error {
	var after scatter.Cursor
	for first := 0; ; {
		req := &scatter.Request{Query: match(words), K: min(page, k-first), After: after}
		resp, err := s.search(ctx, req, deadline)
		if resp != nil {
			show(first, resp.Hits[:resp.Exact], resp)
			first += resp.Exact
		}
		if err != nil || resp.Exact == 0 || resp.Next == "" || first == k {
			return err
		}
		after = resp.Next
	}
}

// print writes a page, how complete it is, and a line for each shard that didn't answer.
func print(out io.Writer, first int, certain []found, resp *scatter.Response[found]) {
	for i, hit := range certain {
		fmt.Fprintf(out, "%3d  %.4f  %-36s %.70s\n", first+i+1, hit.Score, hit.ID, hit.Title)
	}
	fmt.Fprintf(out, "partial %v, coverage %.0f %%, exact up to rank %d, after %v\n",
		resp.Partial, 100*resp.Coverage, first+resp.Exact, resp.Elapsed.Round(100*time.Microsecond))
	for _, p := range resp.Peers {
		if p.Status != scatter.Answered {
			fmt.Fprintf(out, "%s  %v: %v\n", p.Peer, p.Status, p.Err)
		}
	}
	fmt.Fprintln(out)
}

const usage = `Usage: bleve [flags] QUERY

Bleve searches the documentation of the Go standard library for the words of the query. It prints the best
hits, how complete they are, and what became of shards that didn't answer.

Flags:
`

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bleve", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	shardCount := flags.Int("shards", 4, "split the index into `n` shards")
	k := flags.Int("k", 10, "return `n` hits")
	page := flags.Int("page", 0, "in pages of `n` hits, each a search of its own; 0 means one page")
	deadline := flags.Duration("deadline", time.Second, "wait for each shard no longer than this `duration`")
	goroot := flags.String("goroot", "", "read the Go installation in this `directory`, not that of the go command")
	slow := flags.Int("slow", 0, "shard `n`, from 1, takes twice the deadline and ignores that it was cancelled")
	broken := flags.Int("fail", 0, "shard `n` returns an error")
	panics := flags.Int("panic", 0, "shard `n` panics")
	flags.Parse(args)
	words := strings.Join(flags.Args(), " ")
	if words == "" || *shardCount < 1 || *k < 1 || *page < 0 || *deadline <= 0 {
		return errors.New("want words to search for, and -shards, -k, -page and -deadline above 0: see -h")
	}
	if *page == 0 {
		*page = *k
	}
	symbols, err := corpus.Read(ctx, corpus.GoRoot(ctx, *goroot))
	if err != nil {
		return err
	}
	s, err := newShards(*shardCount, symbols)
	if err != nil {
		return err
	}
	defer s.close()
	err = errors.Join(
		s.spoil(*slow, func() error { time.Sleep(2 * *deadline); return nil }),
		s.spoil(*broken, func() error { return errors.New("told to fail by -fail") }),
		s.spoil(*panics, func() error { panic("told to panic by -panic") }),
	)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d documents in %d shards\n\n", len(symbols), len(s.peers))
	show := func(first int, certain []found, resp *scatter.Response[found]) { print(out, first, certain, resp) }
	return s.walk(ctx, words, *k, *page, *deadline, show)
}

func main() { demo.Main(run) }
