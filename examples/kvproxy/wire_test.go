package main

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/scatterknn/scatter"
	"github.com/stretchr/testify/require"
)

func questions() map[string]*scatter.Request {
	fence := positions{0: 1, 5: math.MaxUint64, meta: 9}
	one := 1.5
	return map[string]*scatter.Request{
		"knn": {Table: "idx", K: 10, Query: &question{
			Query: scatter.KNN{Field: "v", Vector: []float32{1, -2.5}}, Fence: fence, Revision: 3}},
		"filter": {Table: "idx", K: 10, Query: &question{
			Query: scatter.KNN{Field: "v", Vector: []float32{1}}, Fence: fence, Filter: &filter{And: []filter{
				{Attribute: "tag", Tags: [][]byte{{0, 255, '\n'}, []byte("a\r\nb: c")}},
				{Not: &filter{Attribute: "\u00fc\n", Range: &numberRange{Min: &one, MinOpen: true}}},
			}}}},
		"regex": {Table: "idx", K: 1, Query: &question{Query: scatter.Regex{Field: "t", Pattern: "a+", MaxErrors: 2}}},
		"all":   {Table: "idx", K: maxHits, Query: &question{Query: scatter.Text{}}},
		"count": {Table: "", K: 2 * partitions, Query: &question{Query: counting{}, Count: true}},
	}
}

func TestQuestionTravels(t *testing.T) {
	for name, req := range questions() {
		t.Run(name, func(t *testing.T) {
			m, err := encodeQuestion(req, time.Second)
			require.NoError(t, err)
			got, left, err := decodeQuestion(m)
			require.NoError(t, err)
			require.Equal(t, time.Second, left)
			want := *req.Query.(*question)
			want.Left = time.Second
			require.Equal(t, &want, got.Query)
			require.Equal(t, req.Table, got.Table)
			require.Equal(t, req.K, got.K)
		})
	}
}

func TestQuestionThatCannotTravel(t *testing.T) {
	_, err := encodeQuestion(&scatter.Request{Table: "\xff", K: 1, Query: &question{Query: scatter.Text{}}}, 0)
	require.ErrorIs(t, err, scatter.ErrNotEncodable)
}

func FuzzDecodeQuestion(f *testing.F) {
	for _, req := range questions() {
		m, err := encodeQuestion(req, time.Second)
		require.NoError(f, err)
		f.Add(m.Header.Get(headerQuestion), m.Data)
	}
	f.Add("", []byte(nil))
	f.Add("null", []byte("FTQ1"))
	f.Fuzz(func(t *testing.T, header string, data []byte) {
		req, left, err := decodeQuestion(&nats.Msg{Header: nats.Header{headerQuestion: {header}}, Data: data})
		if err != nil {
			return
		}
		require.LessOrEqual(t, left, time.Hour)
		m, err := encodeQuestion(req, left)
		require.NoError(t, err)
		again, _, err := decodeQuestion(m)
		require.NoError(t, err)
		q := again.Query.(*question)
		q.Left = req.Query.(*question).Left
		require.Equal(t, req.Query.(*question).Fence, q.Fence)
		require.Equal(t, req.Query.Order(), q.Order())
	})
}

func FuzzDecodeReply(f *testing.F) {
	b, err := (&scatter.Reply{Hits: []scatter.Hit[string]{{ID: "k\xff", Score: 1}}}).MarshalBinary()
	require.NoError(f, err)
	f.Add("", "", b)
	f.Add("503", "", []byte(nil))
	f.Add("", "another ring", b)
	f.Fuzz(func(t *testing.T, status, text string, data []byte) {
		m := &nats.Msg{Header: nats.Header{"Status": {status}, headerError: {text}}, Data: data}
		hits, err := decodeReply(m)
		if text != "" || status == "503" {
			require.Error(t, err)
			require.Empty(t, hits)
		}
	})
}

func TestDecodeReply(t *testing.T) {
	partial, err := (&scatter.Reply{Hits: []scatter.Hit[string]{{ID: "k"}}, TimedOut: true}).MarshalBinary()
	require.NoError(t, err)
	hits, err := decodeReply(&nats.Msg{Data: partial})
	require.ErrorIs(t, err, scatter.ErrPartial)
	require.Len(t, hits, 1)

	_, err = decodeReply(&nats.Msg{Header: nats.Header{"Status": {"503"}}})
	require.EqualError(t, err, "not running")
	_, err = decodeReply(&nats.Msg{Header: nats.Header{headerError: {"another ring"}}})
	require.ErrorIs(t, err, errRing)
	_, err = decodeReply(&nats.Msg{Header: nats.Header{headerError: {"no field x"}, headerPermanent: {"1"}}})
	require.ErrorIs(t, err, scatter.ErrPermanent)
	_, err = decodeReply(&nats.Msg{Header: nats.Header{headerError: {"behind"}}})
	require.EqualError(t, err, "behind")
	_, err = decodeReply(&nats.Msg{Data: []byte("FTR")})
	require.ErrorIs(t, err, scatter.ErrTruncated)
}

func TestLackNamesPeers(t *testing.T) {
	text := lack(&scatter.Response[scatter.Hit[string]]{Coverage: 0.875, Peers: []scatter.PeerReport{
		{Peer: "n1", Status: scatter.Answered},
		{Peer: "n2", Status: scatter.TimedOut, Err: errors.New("deadline")},
		{Peer: "n3", Status: scatter.Failed, Err: errors.New("not running")},
		{Peer: "n4", Status: scatter.NotNeeded, Err: scatter.ErrEnough},
	}})
	require.Equal(t, "nobody has answered for 12.5 % of the keys (n2 gave no answer in time; n3: not running)", text)
	require.False(t, strings.Contains(text, "n4"))
}
