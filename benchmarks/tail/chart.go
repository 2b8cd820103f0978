package main

import (
	"fmt"
	"math"
	"time"

	"github.com/scatterknn/scatter/benchmarks/internal/chart"
)

// panel is one diagram of the chart: the results in a cluster of one model.
type panel struct {
	title   string
	results []result
}

const (
	fastest, slowest = time.Millisecond, 3 * time.Second
	leastShare       = 0.0001
)

// draw draws, as SVG, how many queries are slower than a time: the complementary distributions of Elapsed.
func draw(panels []panel) string {
	f := chart.Figure{
		Title:  "Share of queries slower than a time: 100 peers, 3 replicas, 1 % of replies slow",
		Y:      chart.Axis{Min: leastShare, Max: 1},
		Width:  380,
		Legend: true,
	}
	for share := 1.0; share > leastShare*0.99; share /= 10 {
		f.Y.Ticks = append(f.Y.Ticks, chart.Tick{At: share, Label: fmt.Sprintf("%.4g %%", 100*share)})
	}
	times := chart.Axis{Label: "time of the query", Min: float64(fastest), Max: float64(slowest)}
	for i, label := range []string{"1 ms", "10 ms", "100 ms", "1 s"} {
		times.Ticks = append(times.Ticks, chart.Tick{At: float64(fastest) * math.Pow10(i), Label: label})
	}
	for _, p := range panels {
		drawn := chart.Panel{Title: p.title, X: times}
		for _, r := range p.results {
			// The probes, as whole numbers, are the same in each panel.
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
