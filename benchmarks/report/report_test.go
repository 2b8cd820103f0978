package main

import (
	"encoding/xml"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scatterknn/scatter/benchmarks/internal/cases"
)

// fixed is a measurement with figures that are given: of three sizes, ours takes 100 ns for each peer, one rival three
// times as long and the other half as long.
func fixed() measurements {
	m := measurement{Group: cases.Group{
		Name: "Made", Title: "Made up", About: "Nothing.",
		Impls: []cases.Impl{
			{Name: "scatter", Label: "ours", Ours: true},
			{Name: "slow", Label: "slow one", Lacks: "speed"},
			{Name: "fast", Label: "fast one", Lacks: "care"},
		},
	}}
	for _, n := range []int{1, 10, 100} {
		m.Cases = append(m.Cases, cases.Case{Params: []cases.Param{{Name: "peers", Value: n}}})
		ns := 100 * float64(n)
		m.figures = append(m.figures, []figure{{ns: ns, allocs: 1}, {ns: 3 * ns, allocs: float64(n + 1)}, {ns: ns / 2}})
	}
	m.figures[0][2] = figure{} // it can't
	return measurements{m}
}

var fixedCases = []string{"peers=1", "peers=10", "peers=100", "peers=1000"} // the last was not measured

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		target  target
		got     []float64
		reached []bool
	}{
		{target{quantity: timesAsFast, against: []string{"slow"}, want: []float64{2, 3, 4}},
			[]float64{3, 3, 3}, []bool{true, true, false}},
		{target{quantity: timesAsFast, against: []string{"slow", "fast"}, want: []float64{1}},
			[]float64{3, 0.5, 0.5}, []bool{true, false, false}},
		{target{quantity: timesAsLong, against: []string{"slow"}, want: []float64{0.3, 0.4, 0.5}},
			[]float64{1. / 3, 1. / 3, 1. / 3}, []bool{false, true, true}},
		{target{quantity: nanoseconds, want: []float64{1000}}, []float64{100, 1000, 10_000}, []bool{true, true, false}},
		{target{quantity: allocs, want: []float64{1}}, []float64{1, 1, 1}, []bool{true, true, true}},
	} {
		tt.target.group, tt.target.impl, tt.target.cases = "Made", "scatter", fixedCases
		wantOutcomes(t, tt.target, tt.got, tt.reached)
	}
	added := target{group: "Made", impl: "slow", quantity: addedAllocs, against: []string{"scatter"},
		cases: fixedCases, want: []float64{0.99}}
	wantOutcomes(t, added, []float64{1, 1, 1}, []bool{false, false, false})
	if got := (target{group: "Other", cases: fixedCases}).outcomes(fixed()); got != nil {
		t.Errorf("a group that was not measured has outcomes %v", got)
	}
}

func wantOutcomes(t *testing.T, target target, got []float64, reached []bool) {
	t.Helper()
	outcomes := target.outcomes(fixed())
	if len(outcomes) != len(got) {
		t.Fatalf("%d outcomes, want %d", len(outcomes), len(got))
	}
	for i, o := range outcomes {
		if math.Abs(o.got-got[i]) > 1e-9 || o.reached != reached[i] {
			t.Errorf("quantity %d, %s: measured %v, reached %v; want %v, %v",
				target.quantity, o.label, o.got, o.reached, got[i], reached[i])
		}
	}
}

func TestPrint(t *testing.T) {
	all := fixed()
	r := report{
		heading:  []string{"Somewhere, once."},
		measured: all,
		targets: []target{{"times as fast as the slow one", "Made", "scatter", timesAsFast, []string{"slow"}, fixedCases,
			[]float64{2, 3, 4}}},
		growths: growths([]claim{{what: "it", group: "Made", impl: "scatter", over: "peers", law: "P", time: linear}}, all),
	}
	var s strings.Builder
	r.print(&s)
	for _, want := range []string{
		"\nSomewhere, once.\n",
		"\n2 of 3 figures are reached, and 1 of 1 operations grow as claimed. Missed:\n\n" +
			"- Made up, 100, times as fast as the slow one: **3**, should be at least 4\n",
		"\n- Made up: **fast one** beats ours: **2** at 10; **2** at 100.\n",
		"\n- **fast one**: care.\n",
		"\n|     | ours       | slow one         | fast one              |" +
			"\n|-----|------------|------------------|-----------------------|" +
			"\n| 1   | 100 ns, 1  | 300 ns, 3×, 2    | —                     |" +
			"\n| 10  | 1.00 µs, 1 | 3.00 µs, 3×, 11  | 500 ns, **0.50**×, 0  |",
		"\n| at least ", "\n| measured ", "| reached | reached | **missed** |\n",
		"| it  | P        | 1.00             | 1.00     | 1: 100 ns | 100: 10.0 µs | ok  |\n",
	} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, s.String())
		}
	}
}

func TestGrowthHolds(t *testing.T) {
	for _, tt := range []struct {
		expected, measured float64
		bound, want        bool
	}{
		{1, 1, false, true}, {1, 1.2, false, true}, {1, 1.3, false, false}, {1, 0.6, false, true},
		{1, 0.4, false, false}, {1, 0.4, true, true}, {1, 1.3, true, false}, {0.1, 0.3, false, true},
	} {
		g := growth{claim: claim{bound: tt.bound}, expected: tt.expected, measured: tt.measured}
		if g.holds() != tt.want {
			t.Errorf("%v for %v, bound %v: holds is %v, want %v", tt.measured, tt.expected, tt.bound, g.holds(), tt.want)
		}
	}
}

func TestExponent(t *testing.T) {
	sizes := []float64{1, 2, 4, 8}
	for _, tt := range []struct {
		times []float64
		want  float64
	}{{[]float64{3, 6, 12, 24}, 1}, {[]float64{5, 5, 5, 5}, 0}, {[]float64{1, 4, 16, 64}, 2}} {
		if got := exponent(sizes, tt.times); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("exponent of %v is %v, want %v", tt.times, got, tt.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 100, 2}, 3}} {
		given := slices.Clone(tt.values)
		if got := median(tt.values); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.values, got, tt.want)
		}
		if !slices.Equal(given, tt.values) {
			t.Errorf("median has changed %v to %v", given, tt.values)
		}
	}
}

func TestFormats(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{duration(0.5), "0.500 ns"}, {duration(12.34), "12.3 ns"}, {duration(999.4), "999 ns"}, {duration(999.7), "1.00 µs"},
		{duration(12_345), "12.3 µs"}, {duration(5e6), "5.00 ms"}, {duration(2.5e9), "2.50 s"},
		{roughly(1e4), "10 µs"}, {roughly(1e6), "1 ms"}, {roughly(100), "100 ns"},
		{number(0), "0"}, {number(4), "4"}, {number(0.0491), "0.049"}, {number(3.94), "3.9"}, {number(9.96), "10"},
		{number(0.996), "1.0"}, {number(336.4), "336"}, {number(math.Inf(1)), "+Inf"},
		{thousands(100), "100"}, {thousands(1000), "1,000"}, {thousands(1234567), "1,234,567"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestLabels(t *testing.T) {
	params := func(p ...cases.Param) cases.Case { return cases.Case{Params: p} }
	peers, k := cases.Param{Name: "peers", Value: 3}, cases.Param{Name: "k", Value: 10}
	for _, tt := range []struct {
		c    cases.Case
		want string
	}{
		{params(peers, k, cases.Param{Name: "dups", Value: 0}), "3 × 10"},
		{params(peers, k, cases.Param{Name: "dups", Value: 50}), "3 × 10, 50 % replicas"},
		{params(peers), "3"},
		{params(cases.Param{Name: "op", Value: "encode"}, cases.Param{Name: "hits", Value: 25}), "encode, 25"},
	} {
		if got := label(tt.c); got != tt.want {
			t.Errorf("label of %s is %q, want %q", tt.c.Name(), got, tt.want)
		}
	}
}

// A target, or a claim, of what there is not would be left out without a word.
func TestTargetsAndClaimsAreOfWhatThereIs(t *testing.T) {
	groups := make(map[string]cases.Group)
	for _, g := range append(cases.All(), endToEnd()) {
		groups[g.Name] = g
	}
	wanted := 0
	for _, target := range targets() {
		g := groups[target.group]
		for _, impl := range append([]string{target.impl}, target.against...) {
			g.Impl(impl) // panics if there is none
		}
		for _, name := range target.cases {
			if !slices.ContainsFunc(g.Cases, func(c cases.Case) bool { return c.Name() == name }) {
				t.Errorf("%s, %s: no case %s", target.group, target.title, name)
			}
		}
		if len(target.want) != 1 && len(target.want) != len(target.cases) {
			t.Errorf("%s, %s: %d figures for %d cases", target.group, target.title, len(target.want), len(target.cases))
		}
		wanted += len(target.cases)
	}
	if wanted < 100 {
		t.Errorf("%d figures are to be reached, want more", wanted)
	}
	for _, c := range claims() {
		g := groups[c.group]
		g.Impl(c.impl)
		sizes := 0
		for _, gc := range g.Cases {
			if strings.HasPrefix(gc.Name(), c.under) && gc.Int(c.over) > 0 {
				sizes++
			}
		}
		if sizes < 7 {
			t.Errorf("%s: %d sizes, want 7 at least", c.what, sizes)
		}
	}
}

func TestCharts(t *testing.T) {
	m := fixed()[0]
	for i := range m.figures {
		m.figures[i][2].ns = 1 // a chart is of what all can do
	}
	m.Name = "FanoutOverPeers"
	drawn := charts(measurements{m})
	if len(drawn) != 1 || drawn[0].file != "fanout.svg" {
		t.Fatalf("%d charts, want fanout.svg alone", len(drawn))
	}
	svg := drawn[0].figure.SVG()
	if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
		t.Error(err)
	}
	for _, want := range []string{">slow one<", ">fast one<", ">100<", ">10 ns<", ">peers<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("the chart has no %s", want)
		}
	}
	if got, want := strings.Count(svg, `class="line"`), 3; got != want {
		t.Errorf("%d lines, want %d", got, want)
	}
}

// What is measured is what was asked for: each function, in each round, as often as it was calibrated.
func TestMeasure(t *testing.T) {
	runs := 0
	c := cases.Case{Unit: "event", Units: 4, Setup: func() []func() {
		return []func(){func() { runs++; time.Sleep(time.Millisecond) }, nil}
	}}
	figures := effort{rounds: 3, slice: 1}.measure(c)
	if !figures[0].measured() || figures[0].ns < float64(time.Millisecond)/4 {
		t.Errorf("measured %v, want a quarter of a millisecond at least", figures[0])
	}
	if figures[1].measured() {
		t.Errorf("measured %v of what can't be done", figures[1])
	}
	if want := 2 + 3 + 3; runs != want { // calibration, rounds, allocations
		t.Errorf("%d runs, want %d", runs, want)
	}
}

var sink []byte

func TestAllocations(t *testing.T) {
	for _, times := range []int{1, 1000} {
		got := allocations(func() { sink = make([]byte, 1<<10); sink = make([]byte, 1<<10) }, times)
		if got != 2 {
			t.Errorf("%d allocations, want 2", got)
		}
	}
}

// The whole of it, but small: what it prints is what it writes, with a section and a table for each group.
func TestQuick(t *testing.T) {
	dir := t.TempDir()
	var s strings.Builder
	if err := run(&s, io.Discard, options{quick: true, out: dir}); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != s.String() {
		t.Error("what is written is not what is printed")
	}
	for _, g := range append(cases.All(), endToEnd()) {
		if !strings.Contains(s.String(), "\n## "+g.Title+"\n\n"+g.About+"\n\n|") {
			t.Errorf("no table of %s", g.Title)
		}
	}
	for _, want := range []string{
		"# Benchmarks\n", " cores, go", "\ngo run -C benchmarks ./report -quick\n", "github.com/looplab/fsm v",
		"![", "## Targets\n", "## Where a rival is faster\n", "## What the rivals leave out\n", "## Growth\n",
	} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	for _, c := range claims() {
		if !strings.Contains(s.String(), "\n| "+c.what+" ") {
			t.Errorf("nothing of the growth of %s", c.what)
		}
	}
	columns := regexp.MustCompile(`(?m)^(\|.*\|\n)+`)
	for _, table := range columns.FindAllString(s.String(), -1) {
		rows := strings.Split(strings.TrimSpace(table), "\n")
		for _, row := range rows {
			if strings.Count(row, "|") != strings.Count(rows[0], "|") {
				t.Errorf("a row has other columns than its heading:\n%s\n%s", rows[0], row)
			}
		}
	}
	for _, name := range []string{"merge.svg", "fanout.svg"} {
		svg, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := xml.Unmarshal(svg, new(struct{})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnly(t *testing.T) {
	var s, told strings.Builder
	if err := run(&s, &told, options{quick: true, only: "^Codec/op=encode/hits=(25|50)$"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.String(), "\n| encode, 50 ") || strings.Contains(s.String(), "## Merge") {
		t.Errorf("not the cases asked for:\n%s", s.String())
	}
	if !strings.Contains(told.String(), "Codec") || !strings.Contains(s.String(), " -only '^Codec") {
		t.Errorf("told %q, and printed:\n%s", told.String(), s.String())
	}
}

func TestBadFlags(t *testing.T) {
	for _, o := range []options{
		{quick: true, only: "("},
		{quick: true, only: "^nothing of the kind$"},
		{quick: true, out: filepath.Join(t.TempDir(), "missing")},
	} {
		if err := run(io.Discard, io.Discard, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
