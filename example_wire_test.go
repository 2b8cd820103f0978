package scatter_test

import (
	"errors"
	"fmt"

	"github.com/scatterknn/scatter"
)

// A request is encoded for a peer, which decodes it.
func ExampleRequest_MarshalBinary() {
	req := scatter.Request{Table: "docs", Query: scatter.Regex{Field: "title", Pattern: "z[il]p", MaxErrors: 1}, K: 10}
	payload, err := req.MarshalBinary()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%q\n", payload)

	var got scatter.Request
	if err := got.UnmarshalBinary(payload); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s %+v %d\n", got.Table, got.Query, got.K)
	// Output:
	// "FTQ1\x00\x00\n\x00\x00\x00\x04\x00\x00\x00docs\x02\x05\x00\x00\x00title\x06\x00\x00\x00z[il]p\x01\x00"
	// docs {Field:title Pattern:z[il]p MaxErrors:1} 10
}

// A reply is decoded, first as it was sent and then cut short.
func ExampleReply_UnmarshalBinary() {
	sent := scatter.Reply{Hits: []scatter.Hit[string]{{ID: "doc:7", Score: 0.25}, {ID: "doc:9", Score: 0.5}}}
	payload, err := sent.MarshalBinary()
	if err != nil {
		fmt.Println(err)
		return
	}

	var got scatter.Reply
	fmt.Println(got.UnmarshalBinary(payload), got.Hits)

	err = got.UnmarshalBinary(payload[:len(payload)-1])
	fmt.Println(err)
	fmt.Println(errors.Is(err, scatter.ErrTruncated))
	// Output:
	// <nil> [{doc:7 0.25} {doc:9 0.5}]
	// scatter: decode Hits[1].Score at byte 33: payload too short: 4 bytes wanted, 3 left
	// true
}
