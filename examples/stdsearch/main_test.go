package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/scatterknn/scatter/examples/internal/demotest"
)

// runOK runs the program, which must succeed, on a small GOROOT, and returns what it prints.
func runOK(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), args, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit code %d of %q, stderr: %s", code, args, &stderr)
	}
	return stdout.String()
}

// wantMatch checks that each pattern matches somewhere in the output, whose runs of spaces count as
// one.
func wantMatch(t *testing.T, output string, patterns ...string) {
	t.Helper()
	folded := regexp.MustCompile(` +`).ReplaceAllString(output, " ")
	for _, pattern := range patterns {
		if !regexp.MustCompile(`(?m)` + pattern).MatchString(folded) {
			t.Errorf("nothing matches %s in:\n%s", pattern, output)
		}
	}
}

func TestSearch(t *testing.T) {
	output := runOK(t, "-goroot", demotest.SmallGoRoot(t), "read", "a zip", "archive")
	wantMatch(t, output,
		`^\d+ symbols, each on 2 of 5 nodes, ready in `,
		`^COSINE SYMBOL SUMMARY$`,
		`^0\.\d\d\d archive/zip\.OpenReader OpenReader will open the Zip file`,
		`^NODE ROLE STATUS HITS TIME ERROR$`,
		`^node\d Primary Answered 10 \d+\.\dms -$`,
		`^complete answer in .*: coverage 100\.0 %, exact up to rank 10$`,
		`^nodes: [345] of 5 asked, 0 timed out, 0 failed; [345]0 hits merged$`,
		`^recall@10: 1\.000 of`)
	for line := range strings.Lines(output) {
		if trimmed := strings.TrimRight(line, " \n"); len([]rune(trimmed)) > 120 || trimmed != strings.TrimSuffix(line, "\n") {
			t.Errorf("line is too long or ends in spaces: %q", line)
		}
	}
}

// One node of five is dead, broken or slow, each in turn. With two replicas the answer is complete
// all the same. The clock is synctest's, so that only the slow node is late, whatever the machine's
// speed.
func TestSearchWithAFaultyNode(t *testing.T) {
	root := demotest.SmallGoRoot(t)
	tests := []struct {
		flag, value string
		sometimes   []string // when the node is among those asked at first
	}{
		{"-down", "node%d", nil},
		{"-fail", "node%d", []string{`^node\d Primary Failed 0 0\.0ms told to fail by -fail$`, `^node\d Fallback Answered 10 `}},
		{"-slow", "node%d=300ms", []string{
			`^node\d Primary NotNeeded 0 20\.0ms scatter: the answer is complete enough without it$`,
			`^node\d Hedge Answered 10 0\.0ms -$`,
			`^complete answer in 20\.0ms`,
		}},
	}
	for _, tt := range tests {
		all := ""
		for i := range 5 {
			synctest.Test(t, func(t *testing.T) {
				output := runOK(t, "-goroot", root, tt.flag, fmt.Sprintf(tt.value, i+1), "sort a slice")
				wantMatch(t, output, `sort\.Slice`, `^complete answer in .*: coverage 100\.0 %, exact up to rank 10$`, `^recall@10: 1\.000 of`)
				all += output
			})
		}
		wantMatch(t, all, tt.sometimes...)
	}
}

// If all holders of a range are missing, the answer says so.
func TestSearchWithoutReplicas(t *testing.T) {
	output := runOK(t, "-goroot", demotest.SmallGoRoot(t), "-replicas", "1", "-down", "node2", "-fail", "node4", "parse a duration")
	wantMatch(t, output,
		`^node2 - Dead - - -$`,
		`^node4 Primary Failed 0 `,
		`^partial answer in .*: coverage [3-8]\d\.\d %, exact up to rank 10$`,
		`^nodes: 4 of 5 asked, 0 timed out, 1 failed; `,
		`^missing: \d\d\.\d % of the index, \d+ ranges that only these nodes have: node2 \(Dead\), node4 \(Failed\)$`,
		`^missing .*node[24]`,
		`^and \d+ more$`)
}

func TestSearchWithNoNodeLeft(t *testing.T) {
	for name, args := range map[string][]string{
		"dead":    {"-down", "node1,node2"},
		"failing": {"-fail", "node1,node2"},
		"both":    {"-fail", "node1", "-down", "node2"},
	} {
		var stdout, stderr bytes.Buffer
		args = append(append([]string{"-goroot", demotest.SmallGoRoot(t), "-nodes", "2"}, args...), "parse a duration")
		if code := run(t.Context(), args, &stdout, &stderr); code != 1 {
			t.Errorf("%s: exit status %d, want 1", name, code)
		}
		wantMatch(t, stderr.String(), `^stdsearch: no node answered$`)
		wantMatch(t, stdout.String(),
			`^partial answer in .*: coverage 0\.0 %, exact up to rank 0$`,
			`^nodes: \d of 2 asked, `,
			`^missing: 100\.0 % of the index, 1 ranges that only these nodes have: node1 \(\w+\), node2 \(\w+\)$`)
	}
}

// One node of each kind of fault costs no documents if each has another holder, and some if two
// faults meet.
func TestFaultsTogether(t *testing.T) {
	root := demotest.SmallGoRoot(t)
	faults := []string{"-goroot", root, "-down", "node1", "-fail", "node2", "-slow", "node3=1h"}
	for _, tt := range []struct {
		args string
		want string
	}{
		{"-nodes 6", `^partial answer in .*: coverage [4-9]\d\.\d %, `},
		{"-nodes 6 -replicas 4", `^complete answer in .*: coverage 100\.0 %, exact up to rank 10$`},
		{"-nodes 12 -racks 4", `^complete answer in .*: coverage 100\.0 %, exact up to rank 10$`},
		{"-nodes 6 -racks 2", `^partial answer in .*: coverage \d\d\.\d %, `},                   // Nodes 1 and 3 are in one rack, 2 in the other.
		{"-nodes 6 -groups", `^complete answer in .*: coverage 100\.0 %, exact up to rank 10$`}, // in three shards
		{"-nodes 2 -groups -down node1 -fail node2 -slow=", `no node answered`},
		{"-nodes 4 -groups -down node1 -fail node3 -slow=", `^missing: 50\.0 % of the index, 1 ranges that only these nodes have: node1 \(Dead\), node3 \(Failed\)$`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				run(t.Context(), append(append(faults, strings.Fields(tt.args)...), "sort a slice"), &out, &out)
				wantMatch(t, out.String(), tt.want)
			})
		})
	}
}

// The pages have what one answer has, in the same order.
func TestSearchInPages(t *testing.T) {
	root := demotest.SmallGoRoot(t)
	hits := func(output string) (list []string) {
		for line := range strings.Lines(output) {
			if regexp.MustCompile(`^(\d\.\d\d\d  |\w+/?\w*\.)`).MatchString(line) {
				list = append(list, strings.Join(strings.Fields(line), " "))
			}
		}
		return list
	}
	for _, query := range [][]string{{"sort", "a", "slice"}, {"-text", "slice"}} {
		want := hits(runOK(t, append([]string{"-goroot", root, "-k", "23"}, query...)...))
		if len(want) != 23 {
			t.Fatalf("%d hits, want 23: %q", len(want), want)
		}
		for _, args := range [][]string{{"-page", "5"}, {"-page", "1"}, {"-page", "100"}, {"-page", "5", "-peerk"}, {"-peerk"}} {
			output := runOK(t, append(append([]string{"-goroot", root, "-k", "23"}, args...), query...)...)
			if got := hits(output); !slices.Equal(got, want) {
				t.Errorf("%v %v: %d hits\n%s\nwant\n%s", args, query, len(got), strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if args[0] == "-page" && args[1] == "5" {
				wantMatch(t, output, `^page 1$`, `exact up to rank 5$`, `^page 5$`, `exact up to rank 3$`)
			}
		}
	}
}

// A search for more than there is ends with the last page.
func TestPagesEnd(t *testing.T) {
	output := runOK(t, "-goroot", demotest.SmallGoRoot(t), "-k", "10000", "-page", "9999", "-text", "Cut slices")
	wantMatch(t, output, `^page 1$`, `^strings\.Cut `, `^complete answer`)
	if strings.Contains(output, "page 2") {
		t.Errorf("more than one page:\n%s", output)
	}
}

func TestSearchPastTheDeadline(t *testing.T) {
	root := demotest.SmallGoRoot(t)
	synctest.Test(t, func(t *testing.T) {
		output := runOK(t, "-goroot", root, "-replicas", "1", "-slow", "node2=300ms", "-deadline", "100ms", "sort a slice")
		wantMatch(t, output,
			`^node2 Primary TimedOut 0 100\.0ms scatter: no reply within 100ms$`,
			`^partial answer in 100\.0ms: coverage [6-9]\d\.\d %, exact up to rank 10$`,
			`^nodes: 5 of 5 asked, 1 timed out, 0 failed; `)
	})
}

func TestSearchOfText(t *testing.T) {
	output := runOK(t, "-goroot", demotest.SmallGoRoot(t), "-text", "zip file", "-k", "2")
	wantMatch(t, output, `^SYMBOL SUMMARY$`, `^archive/zip\.\S+ .*\narchive/zip\.`, `^complete answer`)
	if strings.Contains(output, "recall") {
		t.Errorf("a search for a substring tells a recall:\n%s", output)
	}
}

func TestSearchByIVF(t *testing.T) {
	output := runOK(t, "-goroot", demotest.SmallGoRoot(t), "-ivf", "read a zip archive")
	wantMatch(t, output, `archive/zip\.Reader`, `^complete answer`, `^recall@10: [01]\.\d\d\d of`)
}

func TestVerbose(t *testing.T) {
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"-goroot", demotest.SmallGoRoot(t), "-v", "-fail", "node2", "sort"}, &stdout, &stderr)
	wantMatch(t, stderr.String(), `WARN.*"peer": "node2".*told to fail`)
}

func TestNoSource(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-goroot", "no/such/dir", "zip"}, &stdout, &stderr); code != 1 {
		t.Errorf("exit code = %d, want 1", code)
	}
	wantMatch(t, stderr.String(), `^stdsearch: no Go source in GOROOT "no/such/dir": want `)
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"-goroot", demotest.SmallGoRoot(t), "zip"}, &stdout, &stderr); code != 1 {
		t.Errorf("exit code = %d, want 1", code)
	}
	wantMatch(t, stderr.String(), `^stdsearch: interrupted$`)
}

func TestVectorsFromFiles(t *testing.T) {
	const rows, queries, k = 400, 20, 5
	random := rand.New(rand.NewPCG(7, 8))
	docs := make([]document, rows)
	base := make([][]uint8, rows)
	for i := range docs { // Few distinct values, so that many vectors are equally far.
		docs[i] = document{Row: int32(i), Vector: make([]float32, 6)}
		base[i] = make([]uint8, 6)
		for j := range base[i] {
			base[i][j] = uint8(random.IntN(4))
			docs[i].Vector[j] = float32(base[i][j])
		}
	}
	var query [][]float32
	var truth [][]int32
	for range queries {
		v := randomVector(random, 6)
		query = append(query, v)
		truth = append(truth, bruteForce(docs, v, k+3))
	}
	files := []string{
		"-base", writeFile(t, "base.bvecs", encode(base)),
		"-query", writeFile(t, "query.fvecs", encode(query)),
		"-truth", writeFile(t, "truth.ivecs", encode(truth)),
		"-k", fmt.Sprint(k),
	}
	wantMatch(t, runOK(t, files...),
		`^400 vectors of 6 dimensions, each on 2 of 5 nodes, ready in `,
		`^node\d Primary Answered 5 `,
		`^complete answer in .*: coverage 100\.0 %, exact up to rank 5$`,
		`^nodes: [345] of 5 asked`,
		`^partial answers: 0 of 20$`,
		`^latency: p50 \d+\.\dms, p95 \d+\.\dms, p99 \d+\.\dms$`,
		`^recall@5: 1\.0000 of`)
	wantMatch(t, runOK(t, append(files, "-nodes", "2", "-replicas", "1", "-fail", "node1")...),
		`^node1 Primary Failed 0 `,
		`^partial answers: 20 of 20$`,
		`^recall@5: 0\.\d*[1-9]\d* of`)
	wantMatch(t, runOK(t, append(files, "-ivf")...), `^recall@5: [01]\.\d{4} of`)

	wantMatch(t, runOK(t, append(files, "-nodes", "6", "-racks", "2", "-peerk", "-down", "node3")...),
		`^400 vectors of 6 dimensions, each on one of 6 nodes in each of 2 racks, ready in `,
		`^partial answers: 0 of 20$`, `^recall@5: 1\.0000 of`)

	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), append(files, "-nodes", "2", "-fail", "node1,node2"), &stdout, &stderr); code != 1 {
		t.Errorf("no node answers: exit code = %d, want 1", code)
	}
	wantMatch(t, stderr.String(), `^stdsearch: no node answered$`)
	stderr.Reset()
	broken := append(files, "-base", writeFile(t, "broken.fvecs", join(int32(2), float32(1))))
	if code := run(t.Context(), broken, &stdout, &stderr); code != 1 {
		t.Errorf("a broken file: exit code = %d, want 1", code)
	}
	wantMatch(t, stderr.String(), `broken\.fvecs: row 0, byte 4: want 2 values of 4 bytes`)
}

func TestProgressIsForTerminalsOnly(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, "indexing", 10)
	p.step()
	p.clear()
	if out.Len() > 0 {
		t.Errorf("a bar on what is no terminal: %q", out.String())
	}
	p.out = &out // as if it were one
	for range 10 {
		p.step()
	}
	p.clear()
	if !strings.HasPrefix(out.String(), "\rindexing [========") || !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Errorf("bar = %q", out.String())
	}
}
