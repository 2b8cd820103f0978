package scatter

import (
	"fmt"
	"testing"
)

// Claim: both ways are linear in the number of hits.
func BenchmarkReply(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		reply := &Reply{Hits: benchLists(1, n, 0)[0]}
		payload, err := reply.MarshalBinary()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("hits=%d/op=encode", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := reply.MarshalBinary(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("hits=%d/op=decode", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := new(Reply).UnmarshalBinary(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
