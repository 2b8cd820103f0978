package chart

import (
	"encoding/xml"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

func testFigure(legend bool) Figure {
	panel := Panel{
		Title: "a & b",
		X:     Axis{"n", 1, 100, []Tick{{1, "1"}, {10, "10"}, {100, "100"}}},
		Lines: []Line{
			{Label: "one", Note: "first", Points: []Point{{1, 1}, {100, 1000}}, Marks: true},
			{Label: "two <2>", Points: []Point{{1, 10}, {10, 0.001}}},
		},
	}
	return Figure{
		Title: "time", Y: Axis{"", 1, 1000, []Tick{{1, "1 s"}, {1000, "1000 s"}}}, Width: 200,
		Panels: []Panel{panel, panel}, Legend: legend,
	}
}

// What is in a figure, by element and class.
func TestSVG(t *testing.T) {
	for _, tt := range []struct {
		legend bool
		want   map[string]int
	}{
		{true, map[string]int{"path line": 2*2 + 2, "path leader": 0, "path grid": 10, "circle ": 4, "rect back": 1}},
		{false, map[string]int{"path line": 2 * 2, "path leader": 4, "path grid": 10, "circle ": 4, "rect back": 1}},
	} {
		svg := testFigure(tt.legend).SVG()
		got := make(map[string]int)
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if start, ok := token.(xml.StartElement); ok {
				got[start.Name.Local+" "+attribute(start, "class")]++
			}
		}
		for element, want := range tt.want {
			if got[element] != want {
				t.Errorf("legend %v: %d of %q, want %d", tt.legend, got[element], element, want)
			}
		}
		for _, want := range []string{
			`d="M70.0 376.0L270.0 76.0"`,  // corner to corner
			`d="M70.0 276.0L170.0 376.0"`, // what lies below the axis ends on it
			"two &lt;2&gt;",
		} {
			if !strings.Contains(svg, want) {
				t.Errorf("legend %v: no %s", tt.legend, want)
			}
		}
	}
}

func attribute(start xml.StartElement, name string) string {
	for _, a := range start.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct{ heights, want []float64 }{
		{nil, []float64{}},
		{[]float64{50, 10, 30}, []float64{50, 10, 30}},
		{[]float64{50, 50}, []float64{45, 55}},
		{[]float64{50, 49}, []float64{54.5, 44.5}},
		{[]float64{98, 99, 100}, []float64{80, 90, 100}},
		{[]float64{20, 25, 33}, []float64{16, 26, 36}},
	} {
		got := spread(tt.heights, 10, 100)
		if !slices.EqualFunc(got, tt.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }) {
			t.Errorf("spread(%v) = %v, want %v", tt.heights, got, tt.want)
		}
	}
}

func TestEnoughLooks(t *testing.T) {
	if len(colours) != MaxLines || len(dashes) != MaxLines {
		t.Errorf("%d colours, %d dashes, want %d of each", len(colours), len(dashes), MaxLines)
	}
}
