// Package chart draws lines over logarithmic axes, as SVG that is readable on a light and on a dark page.
package chart

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Figure is panels side by side, with the same vertical axis.
type Figure struct {
	Title  string
	Y      Axis
	Width  int // of a panel, in pixels
	Panels []Panel
	Legend bool // the lines, which are the same in all panels, are labelled below; else each at its right end
}

// Panel is one diagram.
type Panel struct {
	Title string
	X     Axis
	Lines []Line
}

// Axis is a logarithmic scale. What lies beyond its ends is drawn at them.
type Axis struct {
	Label    string
	Min, Max float64
	Ticks    []Tick
}

// Tick is a labelled place on an Axis.
type Tick struct {
	At    float64
	Label string
}

// Line goes through points. The n-th lines of all panels look alike.
type Line struct {
	Label  string
	Note   string // a second line in the legend
	Points []Point
	Marks  bool // the points are shown
}

// Point is a place in a Panel, in the units of its axes.
type Point struct{ X, Y float64 }

// Sizes, in pixels.
const (
	left, top   = 70, 76 // margins
	panelHeight = 300
	gap         = 40  // to the right of a panel, beside labels
	runeWidth   = 7.2 // of labels, about
	labelHeight = 16  // from one label to the next, at least
	legendRoom  = 104 // below the panels
	axisRoom    = 56  // below them without a legend
	leader      = 16  // from the end of a line to its label
)

// The colours are readable on white and on black; the dashes tell the lines apart without them.
var (
	colours = []string{
		"#d1495b", "#9069d6", "#dd8500", "#2490cc", "#2a9d5c", "#b07a48", "#848d97", "#d66fb0",
	}
	dashes = []string{"none", "1 4", "9 6", "none", "6 7", "none", "2 6", "12 4 2 4"}
)

// MaxLines is how many lines can be told apart.
const MaxLines = 8

const style = `<style>
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.back { fill: #ffffff }
.grid { stroke: #d9dee4 }
.line { fill: none; stroke-width: 2.2; stroke-linecap: round; stroke-linejoin: round }
.leader { fill: none; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .back { fill: #0d1117 }
  .grid { stroke: #30363d }
}
</style>
`

// SVG draws the figure. It panics if a panel has more than MaxLines lines.
func (f Figure) SVG() string {
	var s strings.Builder
	between, below := gap, legendRoom
	if !f.Legend {
		between, below = gap+f.labelWidth(), axisRoom
	}
	width := left + len(f.Panels)*(f.Width+between)
	height := top + panelHeight + below
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		width, height, html.EscapeString(f.Title))
	s.WriteString(style)
	fmt.Fprintf(&s, `<rect class="back" width="%d" height="%d"/>`+"\n", width, height)
	text(&s, left, 28, "start", "title", f.Title)
	for i, p := range f.Panels {
		d := drawing{&s, f, p, left + i*(f.Width+between)}
		d.axes(i == 0)
		d.lines()
		if !f.Legend {
			d.labels()
		}
	}
	if f.Legend {
		f.legend(&s, width, height)
	}
	s.WriteString("</svg>\n")
	return s.String()
}

// labelWidth is how much room labels at the lines' ends need.
func (f Figure) labelWidth() int {
	longest := 0
	for _, p := range f.Panels {
		for _, l := range p.Lines {
			longest = max(longest, utf8.RuneCountInString(l.Label))
		}
	}
	return leader + int(float64(longest)*runeWidth)
}

func (f Figure) legend(s *strings.Builder, width, height int) {
	lines := f.Panels[0].Lines
	for i, l := range lines {
		x := left + i*(width-left-gap/2)/len(lines)
		y := height - 36
		path(s, "line", i, fmt.Sprintf("M%d %dh28", x, y-4))
		text(s, float64(x+36), float64(y), "start", "", l.Label)
		text(s, float64(x+36), float64(y+18), "start", "", l.Note)
	}
}

// drawing is a panel being drawn, whose left edge is given.
type drawing struct {
	*strings.Builder
	figure Figure
	panel  Panel
	left   int
}

func (d drawing) x(v float64) float64 {
	return float64(d.left) + d.panel.X.share(v)*float64(d.figure.Width)
}

func (d drawing) y(v float64) float64 { return top + (1-d.figure.Y.share(v))*panelHeight }

// share is where a value lies between the ends of an axis, from 0 to 1.
func (a Axis) share(v float64) float64 {
	return math.Log(min(max(v, a.Min), a.Max)/a.Min) / math.Log(a.Max/a.Min)
}

// axes draws the panel's grid and title, and the labels of the vertical axis if they are wanted.
func (d drawing) axes(labels bool) {
	right, middle, bottom := d.left+d.figure.Width, float64(d.left+d.figure.Width/2), float64(top+panelHeight)
	text(d.Builder, middle, top-14, "middle", "", d.panel.Title)
	for _, tick := range d.figure.Y.Ticks {
		y := d.y(tick.At)
		fmt.Fprintf(d, `<path class="grid" d="M%d %.1fH%d"/>`+"\n", d.left, y, right)
		if labels {
			text(d.Builder, float64(d.left-8), y+4, "end", "", tick.Label)
		}
	}
	for _, tick := range d.panel.X.Ticks {
		x := d.x(tick.At)
		fmt.Fprintf(d, `<path class="grid" d="M%.1f %dV%.1f"/>`+"\n", x, top, bottom)
		text(d.Builder, x, bottom+18, "middle", "", tick.Label)
	}
	text(d.Builder, middle, bottom+38, "middle", "", d.panel.X.Label)
}

func (d drawing) lines() {
	for i, l := range d.panel.Lines {
		var way strings.Builder
		for j, p := range l.Points {
			command := 'L'
			if j == 0 {
				command = 'M'
			}
			fmt.Fprintf(&way, "%c%.1f %.1f", command, d.x(p.X), d.y(p.Y))
		}
		path(d.Builder, "line", i, way.String())
		if !l.Marks {
			continue
		}
		for _, p := range l.Points {
			fmt.Fprintf(d, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", d.x(p.X), d.y(p.Y), colours[i])
		}
	}
}

// labels draws the lines' labels to the right of the panel.
func (d drawing) labels() {
	var ends []float64
	for _, l := range d.panel.Lines {
		ends = append(ends, d.y(l.Points[len(l.Points)-1].Y))
	}
	right := float64(d.left + d.figure.Width)
	for i, y := range spread(ends, labelHeight, top+panelHeight) {
		way := fmt.Sprintf("M%.1f %.1fL%.1f %.1f", right+4, ends[i], right+leader, y)
		path(d.Builder, "leader", i, way)
		text(d.Builder, right+leader+4, y+4, "start", "", d.panel.Lines[i].Label)
	}
}

// spread moves heights as little as it takes to have them a distance apart and none beyond bottom, each in its order.
func spread(heights []float64, distance, bottom float64) []float64 {
	order := make([]int, len(heights))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(heights[a], heights[b]) })

	// Those that would overlap form a block, centred on the mean of where they should be; blocks that meet are joined.
	type block struct {
		sum float64 // of the middles that its members ask for
		n   float64
	}
	extent := func(b block) (from, to float64) {
		middle := min(b.sum/b.n, bottom-(b.n-1)/2*distance)
		return middle - (b.n-1)/2*distance, middle + (b.n-1)/2*distance
	}
	var blocks []block
	for _, i := range order {
		last := block{heights[i], 1}
		for len(blocks) > 0 {
			_, above := extent(blocks[len(blocks)-1])
			if below, _ := extent(last); below-above >= distance {
				break
			}
			last.sum += blocks[len(blocks)-1].sum
			last.n += blocks[len(blocks)-1].n
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, last)
	}
	placed := make([]float64, len(heights))
	next := 0
	for _, b := range blocks {
		from, _ := extent(b)
		for j := range int(b.n) {
			placed[order[next]] = from + float64(j)*distance
			next++
		}
	}
	return placed
}

func path(s *strings.Builder, class string, line int, way string) {
	dash := dashes[line]
	if class != "line" {
		dash = "none"
	}
	fmt.Fprintf(s, `<path class="%s" stroke="%s" stroke-dasharray="%s" d="%s"/>`+"\n", class, colours[line], dash, way)
}

func text(s *strings.Builder, x, y float64, anchor, class, content string) {
	if content != "" {
		fmt.Fprintf(s, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`+"\n",
			x, y, anchor, class, html.EscapeString(content))
	}
}
