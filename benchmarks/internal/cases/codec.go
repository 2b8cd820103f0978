package cases

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"io"

	"github.com/scatterknn/scatter"
)

// Codec encodes and decodes replies.
func Codec() Group {
	g := Group{
		Name:  "Codec",
		Title: "Codec of a reply",
		About: "A `Reply` of so many hits with 12-byte IDs. The others encode a struct with the same fields. **gob**" +
			" makes an encoder, or decoder, for each payload, as with a transport that has payloads; **gob stream** has one" +
			" for all of a connection, which sends the types but once.",
		Impls: []Impl{
			{Name: "scatter", Label: "Reply", Ours: true},
			{Name: "json", Label: "encoding/json", Lacks: "has no NaN and no infinities"},
			{Name: "gob", Label: "encoding/gob", Lacks: "is read by Go alone"},
			{Name: "gobstream", Label: "gob stream", Lacks: "as gob, and a payload can't be read by itself"},
		},
	}
	for _, op := range []string{"encode", "decode"} {
		for _, n := range doubling(25, 3200) {
			g.Cases = append(g.Cases, Case{Params: []Param{{"op", op}, {"hits", n}}, Setup: func() []func() {
				reply := someReply(n)
				var runs []func()
				for _, c := range codecs(reply) {
					if op == "encode" {
						runs = append(runs, func() { c.encode() })
					} else {
						runs = append(runs, func() { c.decode() })
					}
				}
				return runs
			}})
		}
	}
	return g
}

// plainReply is a [scatter.Reply] without methods: with them, gob would use its codec.
type plainReply struct {
	Hits     []hit
	TimedOut bool
}

func someReply(n int) plainReply { return plainReply{Hits: inputs{1, n, 0}.lists(0)[0]} }

// codec encodes a reply, and decodes what that gives.
type codec struct {
	encode func() []byte // nil for one that writes to a connection
	decode func() plainReply
}

// codecs returns all for one reply, in the order of the Impls of Codec.
func codecs(reply plainReply) []codec {
	return []codec{scatterCodec(reply), jsonCodec(reply), gobCodec(reply), gobStreamCodec(reply)}
}

func scatterCodec(reply plainReply) codec {
	ours := scatter.Reply(reply)
	encode := func() []byte {
		payload, err := ours.MarshalBinary()
		must(err)
		return payload
	}
	payload := encode()
	return codec{encode, func() plainReply {
		var r scatter.Reply
		must(r.UnmarshalBinary(payload))
		return plainReply(r)
	}}
}

func jsonCodec(reply plainReply) codec {
	encode := func() []byte {
		payload, err := json.Marshal(&reply)
		must(err)
		return payload
	}
	payload := encode()
	return codec{encode, func() plainReply {
		var r plainReply
		must(json.Unmarshal(payload, &r))
		return r
	}}
}

func gobCodec(reply plainReply) codec {
	encode := func() []byte {
		var payload bytes.Buffer
		must(gob.NewEncoder(&payload).Encode(&reply))
		return payload.Bytes()
	}
	payload := encode()
	return codec{encode, func() plainReply {
		var r plainReply
		must(gob.NewDecoder(bytes.NewReader(payload)).Decode(&r))
		return r
	}}
}

func gobStreamCodec(reply plainReply) codec {
	encoder := gob.NewEncoder(io.Discard)
	must(encoder.Encode(&reply))

	var stream bytes.Buffer
	sender := gob.NewEncoder(&stream)
	must(sender.Encode(&reply)) // the first reply, with the types
	once := stream.Len()
	must(sender.Encode(&reply)) // and all others
	decoder := gob.NewDecoder(&endless{stream.Bytes(), once, 0})
	return codec{
		func() []byte { must(encoder.Encode(&reply)); return nil },
		func() plainReply {
			var r plainReply
			must(decoder.Decode(&r))
			return r
		},
	}
}

// endless is a stream that, at its end, goes on from a certain place again.
type endless struct {
	data      []byte
	again, at int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.at == len(e.data) {
		e.at = e.again
	}
	n := copy(p, e.data[e.at:])
	e.at += n
	return n, nil
}

// ReadByte spares gob a buffer of its own around the stream.
func (e *endless) ReadByte() (byte, error) {
	var b [1]byte
	_, err := e.Read(b[:])
	return b[0], err
}
