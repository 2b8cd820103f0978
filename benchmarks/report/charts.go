package main

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/scatterknn/scatter/benchmarks/internal/cases"
	"github.com/scatterknn/scatter/benchmarks/internal/chart"
)

// drawn is a chart and the file that it is drawn in.
type drawn struct {
	file   string
	figure chart.Figure
}

// charts returns those of which there are figures.
func charts(all measurements) []drawn {
	var out []drawn
	hits := func(c cases.Case) float64 { return float64(c.Int("peers") * c.Int("k")) }
	peers := func(c cases.Case) float64 { return float64(c.Int("peers")) }
	overPeers, overK, fanout := all.group("MergeOverPeers"), all.group("MergeOverK"), all.group("FanoutOverPeers")
	if len(overPeers.Cases) > 1 && len(overK.Cases) > 1 {
		const axis = "hits in all lists, P × K"
		out = append(out, drawn{"merge.svg", figureOf("Time of a merge of P lists of K hits to the K best", 300,
			panelOf(overPeers, "K = 100, over P", axis, hits), panelOf(overK, "P = 100, over K", axis, hits))})
	}
	if len(fanout.Cases) > 1 {
		out = append(out, drawn{"fanout.svg", figureOf("Time of a fan-out to P peers that answer at once", 520,
			panelOf(fanout, "K = 1", "peers", peers))})
	}
	return out
}

// figureOf has the panels share a vertical axis that holds them all, with a little room above and below.
func figureOf(title string, width int, panels ...chart.Panel) chart.Figure {
	const room = 1.5
	var times []float64
	for _, p := range panels {
		for _, l := range p.Lines {
			for _, point := range l.Points {
				times = append(times, point.Y/room, point.Y*room)
			}
		}
	}
	return chart.Figure{Title: title, Y: decades(times, roughly), Width: width, Panels: panels}
}

func panelOf(m measurement, title, axis string, x func(cases.Case) float64) chart.Panel {
	p := chart.Panel{Title: title}
	var sizes []float64
	for i, impl := range m.Impls {
		line := chart.Line{Label: impl.Label, Marks: true}
		for j, c := range m.Cases {
			line.Points = append(line.Points, chart.Point{X: x(c), Y: m.figures[j][i].ns})
			sizes = append(sizes, x(c))
		}
		p.Lines = append(p.Lines, line)
	}
	p.X = decades(sizes, thousands)
	p.X.Label = axis
	return p
}

// decades returns an axis that holds all values, with the powers of ten labelled.
func decades(values []float64, label func(float64) string) chart.Axis {
	a := chart.Axis{Min: slices.Min(values), Max: slices.Max(values)}
	for exponent := math.Ceil(math.Log10(a.Min)); exponent <= math.Log10(a.Max); exponent++ {
		at := math.Pow10(int(exponent))
		a.Ticks = append(a.Ticks, chart.Tick{At: at, Label: label(at)})
	}
	return a
}

// thousands formats a whole number with commas.
func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	var parts []string
	for len(s) > 3 {
		parts = append([]string{s[len(s)-3:]}, parts...)
		s = s[:len(s)-3]
	}
	return strings.Join(append([]string{s}, parts...), ",")
}
