package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// randomChange is what some command would write, by one of few versions, so that many meet.
func randomChange(r *rand.Rand) document {
	at := version(1 + r.IntN(6))
	value := []byte{byte('a' + r.IntN(3))}
	switch r.IntN(4) {
	case 0:
		return document{cleared: at}
	case 1:
		return document{cleared: at, text: register{at: at, value: value}}
	}
	fields := make(map[string]register)
	for range 1 + r.IntN(3) {
		fields[string(rune('x'+r.IntN(3)))] = register{at: at, gone: r.IntN(3) == 0, value: value}
	}
	return document{fields: fields}
}

// Whatever order changes come in, and however often, the document is the same in the end.
func TestDocumentsConverge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		changes := make([]document, 1+r.IntN(8))
		for i := range changes {
			changes[i] = randomChange(r)
		}
		var want []byte
		for range 4 {
			order := r.Perm(len(changes))
			order = append(order, order[:r.IntN(len(order)+1)]...) // some come twice
			parts := make([]document, 1+r.IntN(3))                 // some by way of others
			for _, i := range order {
				parts[r.IntN(len(parts))].merge(changes[i])
			}
			for _, i := range r.Perm(len(parts)) {
				parts[0].merge(parts[i])
			}
			if got := parts[0].encode(); want == nil {
				want = got
			} else if !bytes.Equal(got, want) {
				t.Fatalf("%+v: %x in one order, %x in another", changes, want, got)
			}
		}
	}
}

// What commands one after the other do to a document is what they would do to a value in memory.
func TestDocumentIsAsWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var doc document
		var text []byte // nil: no string
		hash := make(map[string]string)
		for at := version(1); at < 12; at++ {
			value, name := fmt.Appendf(nil, "v%d", r.IntN(5)), string(rune('x'+r.IntN(3)))
			switch r.IntN(4) {
			case 0:
				doc.merge(document{cleared: at})
				text, hash = nil, make(map[string]string)
			case 1:
				doc.merge(document{cleared: at, text: register{at: at, value: value}})
				text, hash = value, make(map[string]string)
			case 2:
				if text == nil { // else WRONGTYPE
					doc.merge(document{fields: map[string]register{name: {at: at, value: value}}})
					hash[name] = string(value)
				}
			case 3:
				if text == nil {
					doc.merge(document{fields: map[string]register{name: {at: at, gone: true}}})
					delete(hash, name)
				}
			}
			want := noKey
			if text != nil {
				want = stringKey
			} else if len(hash) > 0 {
				want = hashKey
			}
			if doc.kind() != want {
				t.Fatalf("%+v is of kind %d, want %d", doc, doc.kind(), want)
			}
			if want == stringKey && !bytes.Equal(doc.text.value, text) {
				t.Fatalf("%q, want %q", doc.text.value, text)
			}
			if len(doc.names()) != len(hash) {
				t.Fatalf("fields %q, want %q", doc.names(), hash)
			}
			for name, value := range hash {
				if got, ok := doc.field(name); !ok || string(got) != value {
					t.Fatalf("field %s is %q, %t, want %q", name, got, ok, value)
				}
			}
			again, err := decodeDocument(doc.encode())
			if err != nil || !bytes.Equal(again.encode(), doc.encode()) {
				t.Fatalf("%+v is read as %+v, %v", doc, again, err)
			}
		}
	}
}

func TestClock(t *testing.T) {
	c := clock{node: 7}
	now := time.Unix(1_700_000_000, 0)
	first := c.next(now)
	if first&(1<<versionNodeBits-1) != 7 || int64(first>>versionNodeBits) != now.UnixMicro() {
		t.Errorf("%x, want the microseconds %x and node 7", first, now.UnixMicro())
	}
	if second := c.next(now.Add(-time.Hour)); second <= first || second&(1<<versionNodeBits-1) != 7 {
		t.Errorf("%x after %x", second, first)
	}
	soon := version(now.Add(10*time.Second).UnixMicro())<<versionNodeBits | 9
	c.saw(soon, now)
	if next := c.next(now); next <= soon {
		t.Errorf("%x after %x was seen", next, soon)
	}
	c.saw(^version(0), now) // nobody's honest clock
	if next := c.next(now.Add(time.Minute)); int64(next>>versionNodeBits) != now.Add(time.Minute).UnixMicro() {
		t.Errorf("%x a minute later", next)
	}
}

func FuzzDecodeDocument(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		doc := randomChange(r)
		doc.merge(randomChange(r))
		f.Add(doc.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := decodeDocument(b)
		if err != nil {
			return
		}
		again, err := decodeDocument(doc.encode())
		if err != nil || !bytes.Equal(again.encode(), doc.encode()) {
			t.Errorf("%x is %+v, and then %+v, %v", b, doc, again, err)
		}
	})
}
