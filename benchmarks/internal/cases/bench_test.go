package cases

import (
	"sync"
	"testing"
)

// For benchstat: sub-names such as peers=100/k=100/dups=50/impl=heap, to be compared by -col /impl. The report command
// measures the same, interleaved, and says what the figures should be.

func BenchmarkMerge(b *testing.B)               { measure(b, Merge()) }
func BenchmarkMergeU64(b *testing.B)            { measure(b, MergeU64()) }
func BenchmarkMergeByID(b *testing.B)           { measure(b, MergeByID()) }
func BenchmarkMergeEmbedded(b *testing.B)       { measure(b, MergeEmbedded()) }
func BenchmarkMergeOverPeers(b *testing.B)      { measure(b, MergeOverPeers()) }
func BenchmarkMergeOverK(b *testing.B)          { measure(b, MergeOverK()) }
func BenchmarkFanout(b *testing.B)              { measure(b, Fanout()) }
func BenchmarkFanoutByHand(b *testing.B)        { measure(b, FanoutByHand()) }
func BenchmarkFanoutOverPeers(b *testing.B)     { measure(b, FanoutOverPeers()) }
func BenchmarkFanoutWaiting(b *testing.B)       { measure(b, FanoutWaiting()) }
func BenchmarkFanoutOneConnection(b *testing.B) { measure(b, FanoutOneConnection()) }
func BenchmarkSearch(b *testing.B)              { measure(b, Search()) }
func BenchmarkMachine(b *testing.B)             { measure(b, Machine()) }
func BenchmarkMachineBurst(b *testing.B)        { measure(b, MachineBurst()) }
func BenchmarkRing(b *testing.B)                { measure(b, Ring()) }
func BenchmarkCover(b *testing.B)               { measure(b, Cover()) }
func BenchmarkCodec(b *testing.B)               { measure(b, Codec()) }

func measure(b *testing.B, g Group) {
	for _, c := range g.Cases {
		setup := sync.OnceValue(c.Setup) // not for cases that -bench leaves out
		for i, impl := range g.Impls {
			b.Run(c.Name()+"/impl="+impl.Name, func(b *testing.B) {
				run := setup()[i]
				if run == nil {
					b.Skip("it can't")
				}
				b.ReportAllocs()
				for b.Loop() {
					run()
				}
				if c.Unit != "" {
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.PerRun()), "ns/"+c.Unit)
				}
			})
		}
	}
}
