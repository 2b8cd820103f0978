package main

import (
	"context"
	"fmt"
	"time"
)

// documents returns the documents of keys that a search has found, from this node's index or else
// from their leaders. What has been deleted since is a document that doesn't exist.
func (n *node) documents(ctx context.Context, keys []string, f *found) ([]document, error) {
	ctx, cancel := n.limit(ctx)
	defer cancel()
	deadline, _ := ctx.Deadline()
	waiting, stop := context.WithTimeout(ctx, time.Until(deadline)/4)
	behind := n.index.wait(waiting, f.fence)
	stop()
	docs := make([]document, len(keys))
	var elsewhere []string
	var places []int // of elsewhere, in docs
	for i, key := range keys {
		if behind == nil {
			doc, held, err := n.index.document(ctx, key)
			if err == nil && held {
				docs[i] = doc
				continue
			}
		}
		elsewhere, places = append(elsewhere, key), append(places, i)
	}
	leading, stop := context.WithTimeout(ctx, time.Until(deadline)/2)
	read, err := n.engine.readAll(leading, elsewhere)
	stop()
	if err != nil { // a partition that has no leader can still be read
		f.warnings = append(f.warnings, "the documents may be older than the hits: "+err.Error())
		read, err = n.engine.readReplicas(ctx, elsewhere, n.cfg.timeout/16)
	}
	if err != nil {
		return nil, err
	}
	for i, doc := range read {
		docs[places[i]] = doc
	}
	return docs, nil
}

// readReplicas returns the documents of keys, as any replica of the log has them. A replica that
// hangs gives no answer, so each try has a time.
func (e *engine) readReplicas(ctx context.Context, keys []string, try time.Duration) ([]document, error) {
	docs := make([]document, len(keys))
	return docs, forEach(ctx, keys, func(ctx context.Context, i int, key string) (err error) {
		docs[i], err = e.readReplica(ctx, key, try)
		return err
	})
}

func (e *engine) readReplica(ctx context.Context, key string, try time.Duration) (document, error) {
	p := partitionOf(key)
	for {
		c, cancel := context.WithTimeout(ctx, try)
		m, err := e.nc.RequestWithContext(c, "$JS.API.DIRECT.GET."+streamName(p)+"."+subjectOf(p, key), nil)
		cancel()
		if err == nil {
			switch status := m.Header.Get("Status"); status {
			case "":
				return decodeDocument(m.Data)
			case "404":
				return document{}, nil
			default:
				err = fmt.Errorf("status %s", status)
			}
		}
		if !pause(ctx) {
			return document{}, noQuorum(ctx, p, err)
		}
	}
}
