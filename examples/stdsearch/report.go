package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/scatterknn/scatter"
)

// printRanked prints hits with their scores, as cosine similarities, which are easier to read than distances.
func printRanked(w io.Writer, hits []found) {
	printTable(w, "COSINE\tSYMBOL\tSUMMARY", hits, func(hit found) string {
		cosine := 1 - hit.Score/2 // as the score is the squared distance between vectors of length 1
		return fmt.Sprintf("%.3f\t%s\t%s", cosine, hit.ID, shorten(hit.Summary))
	})
}

// printSymbols prints hits that have no score.
func printSymbols(w io.Writer, hits []found) {
	printTable(w, "SYMBOL\tSUMMARY", hits, func(hit found) string {
		return fmt.Sprintf("%s\t%s", hit.ID, shorten(hit.Summary))
	})
}

// printLedger prints what became of each node, and what that makes of the answer.
func printLedger[H any](w io.Writer, c *cluster, res *scatter.Response[H]) {
	reports := make(map[scatter.PeerID]scatter.PeerReport)
	for _, report := range res.Peers {
		reports[report.Peer] = report
	}
	printTable(w, "NODE\tROLE\tSTATUS\tHITS\tTIME\tERROR", c.names(), func(name scatter.PeerID) string {
		report, asked := reports[name]
		switch {
		case c.faults.down[name]:
			return fmt.Sprintf("%s\t-\tdown\t-\t-\t-", name)
		case !asked:
			return fmt.Sprintf("%s\t-\tnot needed\t-\t-\t-", name)
		}
		failure := "-"
		if report.Err != nil {
			failure = report.Err.Error()
		}
		return fmt.Sprintf("%s\t%v\t%v\t%d\t%s\t%s",
			name, report.Role, report.Status, report.Hits, milliseconds(report.Elapsed), failure)
	})

	verdict := "complete"
	if res.Partial {
		verdict = "partial"
	}
	fmt.Fprintf(w, "%s answer in %s: %d of %d nodes consulted, %d timed out, %d failed, coverage %.1f %%\n", verdict,
		milliseconds(res.Elapsed), res.PeersConsulted, len(c.nodes), res.PeersTimedOut, res.PeersFailed, 100*res.Coverage)
	const most = 5 // gaps: more say no more
	for i, gap := range res.Missing {
		if i == most {
			fmt.Fprintf(w, "and %d more\n", len(res.Missing)-i)
			break
		}
		fmt.Fprintf(w, "missing %v\n", gap)
	}
}

// printTable prints a heading and a line for each item, with columns aligned at tabs.
func printTable[T any](w io.Writer, heading string, items []T, line func(T) string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, heading)
	for _, item := range items {
		fmt.Fprintln(t, line(item))
	}
	t.Flush()
	fmt.Fprintln(w)
}

// shorten cuts a sentence to what fits beside a symbol's name.
func shorten(sentence string) string {
	const width = 72
	runes := []rune(strings.Join(strings.Fields(sentence), " ")) // some first sentences have line breaks
	if len(runes) <= width {
		return string(runes)
	}
	return strings.TrimSpace(string(runes[:width-1])) + "…"
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
}
