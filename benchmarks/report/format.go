package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// duration formats nanoseconds with three digits, roughly with one.
func duration(ns float64) string { return durationOf(ns, 3) }
func roughly(ns float64) string  { return durationOf(ns, 1) }

func durationOf(ns float64, n int) string {
	for _, unit := range []struct {
		name string
		ns   float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if ns >= 0.9995*unit.ns {
			return digits(ns/unit.ns, n) + " " + unit.name
		}
	}
	return digits(ns, n) + " ns"
}

// number formats a ratio or a count: two digits, or all there are before the point.
func number(v float64) string {
	if v == math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return digits(v, 2)
}

// digits formats a number with at least so many significant digits, without an exponent.
func digits(v float64, n int) string {
	if v <= 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return strconv.FormatFloat(v, 'g', n, 64)
	}
	decimals := n - 1 - int(math.Floor(math.Log10(v)))
	if rounded := math.Pow10(int(math.Floor(math.Log10(v))) + 1); v >= rounded*(1-0.5*math.Pow10(-n)) {
		decimals-- // 9.96 is 10, not 10.0
	}
	return strconv.FormatFloat(v, 'f', max(decimals, 0), 64)
}

// table is one of Markdown, whose first row is the heading.
type table [][]string

func (t table) print(w io.Writer) {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	for r, row := range t {
		fmt.Fprintln(w, "|"+padded(row, widths))
		if r == 0 {
			var rule strings.Builder
			for _, width := range widths {
				rule.WriteString(strings.Repeat("-", width+2) + "|")
			}
			fmt.Fprintln(w, "|"+rule.String())
		}
	}
	fmt.Fprintln(w)
}

func padded(row []string, widths []int) string {
	var s strings.Builder
	for i, cell := range row {
		s.WriteString(" " + cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)) + " |")
	}
	return s.String()
}

func bold(s string) string { return "**" + s + "**" }
