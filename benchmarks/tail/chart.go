package main

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

// panel is one diagram of the chart: the results in a cluster of one model.
type panel struct {
	title   string
	results []result
}

// Where things are, in pixels. Both axes are logarithmic.
const (
	panelWidth, panelHeight = 380, 300
	panelLeft, panelTop     = 70, 76
	panelGap                = 40

	xMin, xMax = time.Millisecond, 3 * time.Second
	yMin       = 0.0001 // a share; the top is 1
)

// colours are readable on white and on black; the dashes tell the lines apart without them. By strategy.
var (
	colours = []string{"#d1495b", "#9069d6", "#dd8500", "#2490cc", "#2a9d5c"}
	dashes  = []string{"none", "1 4", "9 6", "none", "6 7"}
)

const style = `<style>
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.back { fill: #ffffff }
.grid { stroke: #d9dee4 }
.line { fill: none; stroke-width: 2.2; stroke-linecap: round; stroke-linejoin: round }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .back { fill: #0d1117 }
  .grid { stroke: #30363d }
}
</style>
`

const title = "Share of queries slower than a time"

// chart draws, as SVG, how many queries are slower than a time: the complementary distributions of Elapsed.
func chart(panels []panel) string {
	var s strings.Builder
	width := panelLeft + len(panels)*(panelWidth+panelGap)
	height := panelTop + panelHeight + 104
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		width, height, title)
	s.WriteString(style)
	fmt.Fprintf(&s, `<rect class="back" width="%d" height="%d"/>`+"\n", width, height)
	text(&s, panelLeft, 28, "start", "title", title+": 100 peers, 3 replicas, 1 % of replies slow")
	for i, p := range panels {
		p.draw(&s, panelLeft+i*(panelWidth+panelGap), i == 0)
	}
	// The legend has room for a strategy's probes too: as whole numbers they are the same in each panel.
	legend := panels[0].results
	for i, r := range legend {
		x := panelLeft + i*(width-panelLeft-panelGap/2)/len(legend)
		y := height - 36
		fmt.Fprintf(&s, `<path class="line" d="M%d %dh28" stroke="%s" stroke-dasharray="%s"/>`+"\n",
			x, y-4, colours[i], dashes[i])
		text(&s, float64(x+36), float64(y), "start", "", r.strategy)
		text(&s, float64(x+36), float64(y+18), "start", "", fmt.Sprintf("%.0f probes", r.probes))
	}
	s.WriteString("</svg>\n")
	return s.String()
}

// draw draws a panel whose left edge is given, and to the left of it the labels of the share if they are wanted.
func (p panel) draw(s *strings.Builder, left int, labels bool) {
	right, bottom := left+panelWidth, float64(panelTop+panelHeight)
	text(s, float64(left+panelWidth/2), panelTop-14, "middle", "", p.title)
	for share := 1.0; share > yMin*0.99; share /= 10 {
		y := yOf(share)
		fmt.Fprintf(s, `<path class="grid" d="M%d %.1fH%d"/>`+"\n", left, y, right)
		if labels {
			text(s, float64(left-8), y+4, "end", "", fmt.Sprintf("%.4g %%", 100*share))
		}
	}
	for i, label := range []string{"1 ms", "10 ms", "100 ms", "1 s"} {
		x := xOf(xMin*time.Duration(math.Pow10(i)), left)
		fmt.Fprintf(s, `<path class="grid" d="M%.1f %dV%.1f"/>`+"\n", x, panelTop, bottom)
		text(s, x, bottom+18, "middle", "", label)
	}
	text(s, float64(left+panelWidth/2), bottom+38, "middle", "", "time of the query")
	for i, r := range p.results {
		fmt.Fprintf(s, `<path class="line" stroke="%s" stroke-dasharray="%s" d="%s"/>`+"\n",
			colours[i], dashes[i], curve(r.elapsed, left))
	}
}

// curve is the path through a distribution, at shares that are evenly spaced on their axis.
func curve(ascending []time.Duration, left int) string {
	var s strings.Builder
	command := 'M'
	for share := 1.0; share >= max(yMin, 1/float64(len(ascending))); share *= 0.97 {
		fmt.Fprintf(&s, "%c%.1f %.1f", command, xOf(percentile(ascending, 1-share), left), yOf(share))
		command = 'L'
	}
	return s.String()
}

func xOf(d time.Duration, left int) float64 {
	d = min(max(d, xMin), xMax)
	return float64(left) + panelWidth*math.Log(float64(d)/float64(xMin))/math.Log(float64(xMax)/float64(xMin))
}

func yOf(share float64) float64 { return panelTop + panelHeight*math.Log(share)/math.Log(yMin) }

func text(s *strings.Builder, x, y float64, anchor, class, content string) {
	fmt.Fprintf(s, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`+"\n",
		x, y, anchor, class, html.EscapeString(content))
}
