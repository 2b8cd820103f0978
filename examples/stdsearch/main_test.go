package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
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

// wantMatch checks that each pattern matches somewhere in the output, whose runs of spaces count as one.
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
	output := runOK(t, "-goroot", smallGoRoot(t), "read", "a zip", "archive")
	wantMatch(t, output,
		`^\d+ symbols, each on 2 of 5 nodes, ready in `,
		`^COSINE SYMBOL SUMMARY$`,
		`^0\.\d\d\d archive/zip\.OpenReader OpenReader will open the Zip file`,
		`^NODE ROLE STATUS HITS TIME ERROR$`,
		`^node\d Primary Answered 10 \d+\.\dms -$`,
		`^complete answer in .*: [45] of 5 nodes consulted, 0 timed out, 0 failed, coverage 100\.0 %$`,
		`^recall@10: 1\.000 of`)
	for line := range strings.Lines(output) {
		if trimmed := strings.TrimRight(line, " \n"); len([]rune(trimmed)) > 120 || trimmed != strings.TrimSuffix(line, "\n") {
			t.Errorf("line is too long or ends in spaces: %q", line)
		}
	}
}

// One node of five is dead, broken or slow, each in turn: with two replicas the answer is complete all the same. The
// clock is synctest's, so that the slow node is late however fast or slow the machine is.
func TestSearchWithAFaultyNode(t *testing.T) {
	root := smallGoRoot(t)
	tests := []struct {
		flag, value string
		sometimes   []string // when the node is among those asked at first
	}{
		{"-down", "node%d", nil},
		{"-fail", "node%d", []string{`^node\d Primary Failed 0 0\.0ms told to fail by -fail$`, `^node\d Fallback Answered 10 `}},
		{"-slow", "node%d=300ms", []string{
			`^node\d Primary Spare 0 20\.0ms scatter: the answer is complete enough without it$`,
			`^node\d Hedge Answered 10 0\.0ms -$`,
			`^complete answer in 20\.0ms`,
		}},
	}
	for _, tt := range tests {
		all := ""
		for i := range 5 {
			synctest.Test(t, func(t *testing.T) {
				output := runOK(t, "-goroot", root, tt.flag, fmt.Sprintf(tt.value, i+1), "sort a slice")
				wantMatch(t, output, `sort\.Slice`, `^complete answer in .*, coverage 100\.0 %$`, `^recall@10: 1\.000 of`)
				all += output
			})
		}
		wantMatch(t, all, tt.sometimes...)
	}
}

// Where all holders of a range are missing, the answer says so.
func TestSearchWithoutReplicas(t *testing.T) {
	output := runOK(t, "-goroot", smallGoRoot(t), "-replicas", "1", "-down", "node2", "-fail", "node4", "parse a duration")
	wantMatch(t, output,
		`^node2 - down - - -$`,
		`^node4 Primary Failed 0 `,
		`^partial answer in .*: 4 of 5 nodes consulted, 0 timed out, 1 failed, coverage [3-8]\d\.\d %$`,
		`^missing 0x[0-9a-f]{16}-0x[0-9a-f]{16} \(\d+\.\d\d%\): node[24] (Failed|Dead)`,
		`^and \d+ more$`)
}

func TestSearchWithNoNodeLeft(t *testing.T) {
	output := runOK(t, "-goroot", smallGoRoot(t), "-nodes", "2", "-down", "node1,node2", "parse a duration")
	wantMatch(t, output,
		`^partial answer in .*: 0 of 2 nodes consulted, 0 timed out, 0 failed, coverage 0\.0 %$`,
		`^missing .* \(100\.00%\): node\d Dead, node\d Dead$`,
		`^recall@10: 0\.000 of`)
}

func TestSearchPastTheDeadline(t *testing.T) {
	root := smallGoRoot(t)
	synctest.Test(t, func(t *testing.T) {
		output := runOK(t, "-goroot", root, "-replicas", "1", "-slow", "node2=300ms", "-deadline", "100ms", "sort a slice")
		wantMatch(t, output,
			`^node2 Primary TimedOut 0 100\.0ms scatter: no reply within 100ms$`,
			`^partial answer in 100\.0ms: 5 of 5 nodes consulted, 1 timed out, 0 failed, coverage [6-9]\d\.\d %$`)
	})
}

func TestSearchOfText(t *testing.T) {
	output := runOK(t, "-goroot", smallGoRoot(t), "-text", "zip file", "-k", "2")
	wantMatch(t, output, `^SYMBOL SUMMARY$`, `^archive/zip\.\S+ .*\narchive/zip\.`, `^complete answer`)
	if strings.Contains(output, "recall") {
		t.Errorf("a search for a substring tells a recall:\n%s", output)
	}
}

func TestSearchByIVF(t *testing.T) {
	output := runOK(t, "-goroot", smallGoRoot(t), "-ivf", "read a zip archive")
	wantMatch(t, output, `archive/zip\.Reader`, `^complete answer`, `^recall@10: [01]\.\d\d\d of`)
}

func TestVerbose(t *testing.T) {
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"-goroot", smallGoRoot(t), "-v", "-fail", "node2", "sort"}, &stdout, &stderr)
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
	if code := run(ctx, []string{"-goroot", smallGoRoot(t), "zip"}, &stdout, &stderr); code != 1 {
		t.Errorf("exit code = %d, want 1", code)
	}
	wantMatch(t, stderr.String(), `^stdsearch: interrupted$`)
}

func TestVectorsFromFiles(t *testing.T) {
	const rows, queries, k = 400, 20, 5
	random := rand.New(rand.NewPCG(7, 8))
	docs := make([]document, rows)
	base := make([][]uint8, rows)
	for i := range docs { // few distinct values, so that many vectors are equally far
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
		`^complete answer in .*: [45] of 5 nodes consulted`,
		`^partial answers: 0 of 20$`,
		`^latency: p50 \d+\.\dms, p95 \d+\.\dms, p99 \d+\.\dms$`,
		`^recall@5: 1\.0000 of`)
	wantMatch(t, runOK(t, append(files, "-nodes", "2", "-replicas", "1", "-fail", "node1")...),
		`^node1 Primary Failed 0 `,
		`^partial answers: 20 of 20$`,
		`^recall@5: 0\.\d*[1-9]\d* of`)
	wantMatch(t, runOK(t, append(files, "-ivf")...), `^recall@5: [01]\.\d{4} of`)

	var stdout, stderr bytes.Buffer
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
