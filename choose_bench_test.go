package scatter

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Choosing and learning, beside a Broadcast of probes that answer at once: about 10 us for 10
// peers, 50 us for 100.
func BenchmarkChoose(b *testing.B) {
	for _, bc := range []struct {
		name  string
		cover *Cover
	}{
		{"ring30x1", oneTokenCover(30, 3)},
		{"ring300x1", oneTokenCover(300, 3)},
		{"groups10x3", groupCover(10, 3)},
		{"ring12x32", randomRingCover(12, 32, 3, 1)},
		{"ring100x16", randomRingCover(100, 16, 3, 1)},
	} {
		for _, learn := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/learn=%v", bc.name, learn), func(b *testing.B) {
				l, now := newLoads(bc.cover, nil, 7), chooseEpoch
				askAll(l, now, choice{peers: l.all.list(0)})
				b.ReportAllocs()
				for b.Loop() {
					now = now.Add(time.Millisecond)
					c := l.choose(now, nil, chooseOptions{})
					if learn {
						askAll(l, now, c)
					}
				}
			})
		}
	}
}

// A query of a Cover with very many ranges: after newLoads, later on, and after peers have come to
// be dead, alive or on probation. Reported is the worst of eight queries, in the least disturbed
// of the runs. Rule 35.
func BenchmarkChoosePlanned(b *testing.B) {
	cover := randomRingCover(10000, 64, 3, 1)
	l := newLoads(cover, nil, 1)
	live := slices.Clone(l.all)
	var jobs []func()
	o := chooseOptions{spawn: func(f func()) { jobs = append(jobs, f) }}
	worstOf8 := func() (worst time.Duration) {
		for range 8 {
			start := time.Now()
			c := l.choose(start, live, o)
			worst = max(worst, time.Since(start))
			askAll(l, start, c)
		}
		return worst
	}
	for _, bc := range []struct {
		name   string
		before func(i int32)
		after  func(i int32)
	}{
		{"later", func(int32) {}, func(int32) {}},
		{"new", func(int32) { l = newLoads(cover, nil, 1) }, func(int32) {}},
		{"dead=1", func(i int32) { live.remove(i) }, func(i int32) { live.add(i) }},
		{"dead=100", func(i int32) { times100(i, live.remove) }, func(i int32) { times100(i, live.add) }},
		{"probation=1", func(i int32) { failTimes(l, time.Now(), i, 3) },
			func(i int32) { askAll(l, time.Now(), choice{peers: []int32{i}}) }},
		{"probation=100", func(i int32) { times100(i, func(i int32) { failTimes(l, time.Now(), i, 3) }) },
			func(i int32) { times100(i, func(i int32) { askAll(l, time.Now(), choice{peers: []int32{i}}) }) }},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var worst, alive []time.Duration
			for i := range int32(b.N) {
				bc.before(i * 100 % 10000)
				worst = append(worst, worstOf8())
				bc.after(i * 100 % 10000)
				alive = append(alive, worstOf8())
				for ; len(jobs) > 0; jobs = jobs[1:] {
					jobs[0]()
				}
			}
			b.ReportMetric(float64(slices.Min(worst).Microseconds()), "us-worst")
			b.ReportMetric(float64(slices.Min(alive).Microseconds()), "us-worst-after")
		})
	}
}

func times100(from int32, f func(int32)) {
	for i := range int32(100) {
		f(from + i)
	}
}
