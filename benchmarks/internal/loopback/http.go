package loopback

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/scatterknn/scatter"
)

// jsonRequest and jsonReply are what a small service of its own would send.
type jsonRequest struct {
	Table, Field string
	Vector       []float32
	K            int
}

type jsonReply struct{ Hits []Hit }

func serveHTTP(peer int) (string, io.Closer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	reply := jsonReply{hitsOf(peer)}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req jsonRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(reply) // whoever asked has gone
	})}
	go func() { _ = s.Serve(l) }() // until it is closed
	return l.Addr().String(), s, nil
}

// httpPeers is a client of peers.
type httpPeers struct {
	client *http.Client
	urls   map[scatter.PeerID]string
}

func dialHTTP(addrs map[scatter.PeerID]string) (scatter.Probe[Hit], io.Closer) {
	h := &httpPeers{
		&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, make(map[scatter.PeerID]string),
	}
	for peer, addr := range addrs {
		h.urls[peer] = "http://" + addr + "/search"
	}
	return h.probe, h
}

// probe is a [scatter.Probe].
func (h *httpPeers) probe(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]Hit, error) {
	knn := req.Query.(scatter.KNN)
	body, err := json.Marshal(jsonRequest{req.Table, knn.Field, knn.Vector, req.K})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.urls[peer], bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := h.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", peer, resp.Status)
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var reply jsonReply
	err = json.Unmarshal(content, &reply)
	return reply.Hits, err
}

// Close closes the idle connections.
func (h *httpPeers) Close() error {
	h.client.CloseIdleConnections()
	return nil
}
