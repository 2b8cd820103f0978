package main

import (
	"fmt"
	"math"
	"time"

	"github.com/scatterknn/scatter/benchmarks/internal/chart"
)

// panel is one diagram of a chart: the results in one setting.
type panel struct {
	title   string
	results []result
}

const leastShare = 0.0001

// slowChart draws the first setting.
func slowChart(panels []panel) string {
	return draw("Share of queries slower than a time: 100 peers, 3 replicas, 1 % of replies slow", 380,
		time.Millisecond, 3*time.Second, panels)
}

// loadChart draws the second setting.
func loadChart(panels []panel) string {
	return draw("Share of queries slower than a time: 10 shards of 3 peers with queues and slow spells", 300,
		5*time.Millisecond, 5*time.Second, panels)
}

// draw draws, as SVG, how many queries are slower than a time: the complementary distributions of
// Elapsed.
func draw(title string, width int, fastest, slowest time.Duration, panels []panel) string {
	f := chart.Figure{Title: title, Y: chart.Axis{Min: leastShare, Max: 1}, Width: width, Legend: true}
	for share := 1.0; share > leastShare*0.99; share /= 10 {
		f.Y.Ticks = append(f.Y.Ticks, chart.Tick{At: share, Label: fmt.Sprintf("%.4g %%", 100*share)})
	}
	times := chart.Axis{Label: "time of the query", Min: float64(fastest), Max: float64(slowest)}
	for i, label := range []string{"1 ms", "10 ms", "100 ms", "1 s"} {
		if at := float64(time.Millisecond) * math.Pow10(i); at >= times.Min {
			times.Ticks = append(times.Ticks, chart.Tick{At: at, Label: label})
		}
	}
	for _, p := range panels {
		drawn := chart.Panel{Title: p.title, X: times}
		for _, r := range p.results {
			// The probes, as whole numbers, are about the same in each panel.
			drawn.Lines = append(drawn.Lines, chart.Line{
				Label: r.strategy, Note: fmt.Sprintf("%.0f probes", r.probes), Points: curve(r.elapsed),
			})
		}
		f.Panels = append(f.Panels, drawn)
	}
	return f.SVG()
}

// curve is the way through a distribution, at shares that are evenly spaced on their axis.
func curve(ascending []time.Duration) []chart.Point {
	var points []chart.Point
	for share := 1.0; share >= max(leastShare, 1/float64(len(ascending))); share *= 0.97 {
		points = append(points, chart.Point{X: float64(percentile(ascending, 1-share)), Y: share})
	}
	return points
}
