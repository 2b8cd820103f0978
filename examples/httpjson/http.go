package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/scatterknn/scatter"
	"go.opentelemetry.io/otel/propagation"
	"golang.org/x/sync/semaphore"
)

const (
	timeLeft = "Time-Left" // the header with the time that the peer has, such as 180ms
	maxBytes = 1 << 20     // of the body of a request, and of a reply
)

// client asks peers.
type client struct {
	http  *http.Client
	urls  map[scatter.PeerID]string
	waits sync.Map // from PeerID to the time.Time when the peer may be asked again
}

// live is the Options.Live. What only peers hold that want to wait is missing in the answer.
func (c *client) live(peer scatter.PeerID) bool {
	until, ok := c.waits.Load(peer)
	return !ok || time.Now().After(until.(time.Time))
}

// probe is the scatter.Probe.
func (c *client) probe(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]hit, error) {
	body, err := json.Marshal(req)
	if err != nil { // No peer can be sent this query.
		return nil, fmt.Errorf("%w: %w", scatter.ErrPermanent, err)
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, c.urls[peer], bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok { // A tenth is kept back for the way there and back.
		post.Header.Set(timeLeft, (time.Until(deadline) * 9 / 10).String())
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(post.Header))
	reply, err := c.http.Do(post)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	// A connection is used again only if the reply was read to its end.
	body, err = io.ReadAll(http.MaxBytesReader(nil, reply.Body, maxBytes))
	if err != nil {
		return nil, err
	}
	if reply.StatusCode != http.StatusOK {
		return nil, c.refusal(peer, reply, body)
	}
	var resp scatter.Response[hit]
	if err := json.Unmarshal(body, &resp); err != nil {
		return nil, err
	}
	if resp.Partial != (resp.Coverage < 1) { // {}, say, which must not count as an answer without hits
		return nil, fmt.Errorf("partial is %v and coverage %v: not a Response", resp.Partial, resp.Coverage)
	}
	if resp.Partial {
		return resp.Hits, scatter.ErrPartial
	}
	return resp.Hits, nil
}

// refusal returns the error for a reply that isn't OK.
func (c *client) refusal(peer scatter.PeerID, reply *http.Response, body []byte) error {
	err := fmt.Errorf("%s: %.200s", reply.Status, strings.TrimSpace(string(body)))
	switch reply.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", scatter.ErrPermanent, err)
	case http.StatusGatewayTimeout:
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		// Retry-After may also be a date. It is ignored, because clocks differ.
		if wait, bad := time.ParseDuration(reply.Header.Get("Retry-After") + "s"); bad == nil {
			c.waits.Store(peer, time.Now().Add(min(wait, time.Minute)))
			return fmt.Errorf("%w: retry after %v", err, wait)
		}
	}
	return err
}

// handler is a peer. It serves as many requests at a time as it has slots, and refuses the others.
func handler(find search, slots int64) http.Handler {
	free := semaphore.NewWeighted(slots)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !free.TryAcquire(1) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "all slots are in use", http.StatusServiceUnavailable)
			return
		}
		defer free.Release(1)
		resp, status, err := answer(w, r, find)
		if err != nil {
			http.Error(w, err.Error(), status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(resp)
	})
}

// answer returns the body of the reply, or a status and an error.
func answer(w http.ResponseWriter, r *http.Request, find search) (resp []byte, status int, err error) {
	left, err := time.ParseDuration(cmp.Or(r.Header.Get(timeLeft), "10s")) // 10s without the header
	if err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("%s: %w", timeLeft, err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), left)
	defer cancel()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBytes))
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, http.StatusRequestEntityTooLarge, err
	}
	if err != nil { // The connection is broken, which is no fault of the query.
		return nil, http.StatusInternalServerError, err
	}
	var req scatter.Request
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, http.StatusBadRequest, err
	}
	found := scatter.Response[hit]{Coverage: 1}
	found.Hits, err = find(ctx, &req)
	switch {
	case errors.Is(err, scatter.ErrPartial):
		found.Partial, found.Coverage = true, 0 // A peer needn't know how much is missing.
	case errors.Is(err, scatter.ErrPermanent):
		return nil, http.StatusUnprocessableEntity, err
	case errors.Is(err, context.DeadlineExceeded):
		return nil, http.StatusGatewayTimeout, err
	case err != nil:
		return nil, http.StatusInternalServerError, err
	}
	resp, err = json.Marshal(found)
	return resp, http.StatusInternalServerError, err
}
