package scatter

import (
	"testing"
	"time"
)

// turnstile is a small machine for measuring.
type turnstile struct{ coins int }

func (h *turnstile) Handle(c *Control[bool, string], unlocked bool, ev string) bool {
	switch {
	case ev == "coin":
		h.coins++
		return true
	case ev == "push" && unlocked:
		return false
	case ev == "wait" && !unlocked:
		c.Postpone()
	case ev == "twice":
		c.Raise("coin")
	}
	return unlocked
}

// Claim: the same time for each event, and no allocation, whatever the handler asks for.
func BenchmarkMachine(b *testing.B) {
	now := time.Now()
	for _, bb := range []struct {
		name   string
		events []string
	}{
		{"same", []string{"push", "push"}},
		{"change", []string{"coin", "push"}},
		{"raise", []string{"twice", "push"}},
		{"postpone", []string{"wait", "coin", "push"}},
	} {
		b.Run("event="+bb.name, func(b *testing.B) {
			m := NewMachine(&turnstile{}, false)
			b.ReportAllocs()
			for b.Loop() {
				for _, ev := range bb.events {
					if err := m.Step(now, ev); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bb.events)), "ns/event")
		})
	}
}
