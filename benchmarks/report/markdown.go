package main

import (
	"fmt"
	"io"
	"strings"
)

// report is all that is written.
type report struct {
	heading  []string // where, when and how it was measured
	measured measurements
	targets  []target
	growths  []growth
	charts   []drawn
}

func (r report) print(w io.Writer) {
	fmt.Fprint(w, "# Benchmarks\n\n")
	for _, line := range r.heading {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w)
	for _, c := range r.charts {
		fmt.Fprintf(w, "![%s](%s)\n\n", c.figure.Title, c.file)
	}
	r.printSummary(w)
	r.printRivals(w)
	for _, m := range r.measured {
		fmt.Fprintf(w, "## %s\n\n%s\n\n", m.Title, m.About)
		m.print(w)
		if m.Name == endToEnd().Name {
			m.printLoad(w)
		}
		for _, t := range r.targets {
			if t.group == m.Name {
				t.print(w, r.measured)
			}
		}
	}
	r.printGrowths(w)
}

// printSummary tells which targets are missed.
func (r report) printSummary(w io.Writer) {
	reached, all := 0, 0
	var missed []string
	for _, t := range r.targets {
		for _, o := range t.outcomes(r.measured) {
			all++
			if o.reached {
				reached++
				continue
			}
			missed = append(missed, fmt.Sprintf("- %s, %s, %s: %s, should be %s %s", r.measured.group(t.group).Title, o.label,
				t.title, bold(t.quantity.format(o.got)), t.quantity.bound(), t.quantity.format(o.want)))
		}
	}
	held := 0
	for _, g := range r.growths {
		if g.holds() {
			held++
		}
	}
	fmt.Fprintf(w, "## Targets\n\n%d of %d figures are reached, and %d of %d operations grow as claimed.", reached, all,
		held, len(r.growths))
	if len(missed) > 0 {
		fmt.Fprintf(w, " Missed:\n\n%s", strings.Join(missed, "\n"))
	}
	fmt.Fprint(w, "\n\n")
}

// printRivals tells where a rival is faster, and what the rivals leave out.
func (r report) printRivals(w io.Writer) {
	fmt.Fprint(w, "## Where a rival is faster\n\nAnd how many times as fast it is.\n\n")
	for _, m := range r.measured {
		if m.Growth {
			continue // the same at other sizes
		}
		for i, ours := range m.Impls {
			for j, rival := range m.Impls {
				if places := m.faster(j, i); ours.Ours && !rival.Ours && len(places) > 0 {
					fmt.Fprintf(w, "- %s: %s beats %s: %s.\n", m.Title, bold(rival.Label), ours.Label, strings.Join(places, "; "))
				}
			}
		}
	}
	fmt.Fprint(w, "\n## What the rivals leave out\n\n")
	told := make(map[string]bool)
	for _, m := range r.measured {
		for _, impl := range m.Impls {
			if impl.Lacks != "" && !told[impl.Label] {
				told[impl.Label] = true
				fmt.Fprintf(w, "- **%s**: %s.\n", impl.Label, impl.Lacks)
			}
		}
	}
	fmt.Fprintln(w)
}

// faster returns in which cases implementation a is faster than b, and how many times.
func (m measurement) faster(a, b int) []string {
	var places []string
	for i, c := range m.Cases {
		fa, fb := m.figures[i][a], m.figures[i][b]
		if fa.beats(fb) {
			places = append(places, fmt.Sprintf("%s at %s", bold(number(fb.ns/fa.ns)), label(c)))
		}
	}
	return places
}

// print prints the table of all figures.
func (m measurement) print(w io.Writer) {
	m.printTable(w, "", m.cell)
}

// printTable prints a table with a row for each case, and a cell for each implementation.
func (m measurement) printTable(w io.Writer, title string, cell func(i, j int, f figure) string) {
	head := []string{title}
	for _, impl := range m.Impls {
		head = append(head, impl.Label)
	}
	t := table{head}
	for i, c := range m.Cases {
		row := []string{label(c)}
		for j, f := range m.figures[i] {
			row = append(row, cell(i, j, f))
		}
		t = append(t, row)
	}
	t.print(w)
}

// cell tells a figure: the time, how many times it is that of the first implementation, the allocations.
func (m measurement) cell(i, j int, f figure) string {
	if !f.measured() {
		return "—"
	}
	if j == 0 {
		return fmt.Sprintf("%s, %s", duration(f.ns), number(f.allocs))
	}
	ratio := number(f.ns / m.figures[i][0].ns)
	if !m.Impls[j].Ours && f.beats(m.figures[i][0]) {
		ratio = bold(ratio)
	}
	return fmt.Sprintf("%s, %s×, %s", duration(f.ns), ratio, number(f.allocs))
}

// print prints what was wanted and what was measured, in a table with the cases for columns.
func (t target) print(w io.Writer, all measurements) {
	outcomes := t.outcomes(all)
	if len(outcomes) == 0 {
		return
	}
	head, want := []string{"Target: " + t.title}, []string{t.quantity.bound()}
	got, verdict := []string{"measured"}, []string{""}
	for _, o := range outcomes {
		head = append(head, o.label)
		want = append(want, t.quantity.format(o.want))
		got = append(got, t.quantity.format(o.got))
		if o.reached {
			verdict = append(verdict, "reached")
		} else {
			verdict = append(verdict, bold("missed"))
		}
	}
	table{head, want, got, verdict}.print(w)
}

func (r report) printGrowths(w io.Writer) {
	if len(r.growths) == 0 {
		return
	}
	fmt.Fprintf(w, "## Growth\n\nHow the time should grow, and how it does, over sizes that double. The exponent is"+
		" what the size is raised to: with 1, twice the size takes twice the time. It is that of the line which fits"+
		" best, and may be up to %v above that of the law, or %v below it, as what doesn't grow weighs more where the"+
		" input is small.\n\n",
		exponentAbove, exponentBelow)
	t := table{{"", "grows as", "exponent of that", "measured", "from", "to", ""}}
	for _, g := range r.growths {
		verdict := "ok"
		if !g.holds() {
			verdict = bold("NOT as claimed")
		}
		t = append(t, []string{g.what, g.law, fmt.Sprintf("%.2f", g.expected), fmt.Sprintf("%.2f", g.measured),
			fmt.Sprintf("%.0f: %s", g.from, duration(g.fastest)), fmt.Sprintf("%.0f: %s", g.to, duration(g.slowest)), verdict})
	}
	t.print(w)
}
