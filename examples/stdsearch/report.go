package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/scatterknn/scatter"
)

// printRanked prints hits with their scores. It converts these to cosine similarities, which are
// easier to read than distances.
func printRanked(w io.Writer, hits []found) {
	printTable(w, "COSINE\tSYMBOL\tSUMMARY", hits, func(hit found) string {
		cosine := 1 - hit.Score/2 // The score is a squared distance between vectors of length 1.
		return fmt.Sprintf("%.3f\t%s\t%s", cosine, hit.ID, shorten(hit.Summary))
	})
}

// printSymbols prints hits that have no score.
func printSymbols(w io.Writer, hits []found) {
	printTable(w, "SYMBOL\tSUMMARY", hits, func(hit found) string {
		return fmt.Sprintf("%s\t%s", hit.ID, shorten(hit.Summary))
	})
}

// printLedger prints what became of each node, and then what that makes of the answer.
func printLedger[H any](w io.Writer, c *cluster, res *scatter.Response[H]) {
	reports := reportsOf(res)
	printTable(w, "NODE\tROLE\tSTATUS\tHITS\tTIME\tERROR", c.topology.names, func(name scatter.PeerID) string {
		report := reports[name]
		if report.Status == scatter.Dead || report.Status == scatter.NotAsked {
			return fmt.Sprintf("%s\t-\t%v\t-\t-\t-", name, report.Status)
		}
		hits, failure := fmt.Sprint(report.Hits), "-"
		if report.Refilled > 0 {
			hits = fmt.Sprintf("%d+%d", report.Hits-report.Refilled, report.Refilled)
		}
		if report.Err != nil {
			failure = report.Err.Error()
		}
		return fmt.Sprintf("%s\t%v\t%v\t%s\t%s\t%s",
			name, report.Role, report.Status, hits, milliseconds(report.Elapsed), failure)
	})
	printVerdict(w, c, res)
	printMissing(w, res, reports)
}

// reportsOf returns the ledger by node. A node that has no line wasn't asked, as the zero report
// says.
func reportsOf[H any](res *scatter.Response[H]) map[scatter.PeerID]scatter.PeerReport {
	reports := make(map[scatter.PeerID]scatter.PeerReport)
	for _, report := range res.Peers {
		reports[report.Peer] = report
	}
	return reports
}

// printVerdict prints how good an answer is.
func printVerdict[H any](w io.Writer, c *cluster, res *scatter.Response[H]) {
	verdict := "complete"
	if res.Partial {
		verdict = "partial"
	}
	hits := 0
	for _, report := range res.Peers {
		hits += report.Hits
	}
	fmt.Fprintf(w, "%s answer in %s: coverage %.1f %%, exact up to rank %d\n",
		verdict, milliseconds(res.Elapsed), 100*res.Coverage, res.Exact)
	fmt.Fprintf(w, "nodes: %d of %d asked, %d timed out, %d failed; %d hits merged\n",
		res.PeersConsulted, len(c.nodes), res.PeersTimedOut, res.PeersFailed, hits)
}

// printMissing prints whose documents the answer lacks.
func printMissing[H any](w io.Writer, res *scatter.Response[H], reports map[scatter.PeerID]scatter.PeerReport) {
	if len(res.Missing) == 0 {
		return
	}
	holders := make(map[scatter.PeerID]bool)
	for _, missing := range res.Missing {
		for _, holder := range missing.Holders {
			holders[holder] = true
		}
	}
	var names []string
	for _, holder := range slices.Sorted(maps.Keys(holders)) {
		names = append(names, fmt.Sprintf("%s (%v)", holder, reports[holder].Status))
	}
	fmt.Fprintf(w, "missing: %.1f %% of the index, %d ranges that only these nodes have: %s\n",
		100*(1-res.Coverage), len(res.Missing), strings.Join(names, ", "))
	const most = 5 // More would say no more.
	for i, missing := range res.Missing {
		if i == most {
			fmt.Fprintf(w, "and %d more\n", len(res.Missing)-i)
			break
		}
		fmt.Fprintf(w, "missing %v\n", missing)
	}
}

// errNoAnswer is the error of a search that no node has answered.
var errNoAnswer = errors.New("no node answered")

// answered reports whether any node has.
func answered[H any](res *scatter.Response[H]) bool {
	return slices.ContainsFunc(res.Peers, func(p scatter.PeerReport) bool {
		return p.Status == scatter.Answered || p.Status == scatter.Incomplete
	})
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

// shorten cuts a sentence so that it fits beside a symbol's name.
func shorten(sentence string) string {
	const width = 72
	runes := []rune(strings.Join(strings.Fields(sentence), " ")) // Some have line breaks.
	if len(runes) <= width {
		return string(runes)
	}
	return strings.TrimSpace(string(runes[:width-1])) + "…"
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
}
