package main

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/ncruces/go-sqlite3"
	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"
)

const (
	batchSize  = 500             // messages that a follower asks for at a time
	batchTime  = time.Second / 2 // for these; a replica may hang
	pollTime   = time.Second     // after so long without a message a follower asks whether it missed one
	retryTime  = 50 * time.Millisecond
	maxPending = 32 << 20 // bytes that are read and not yet applied
)

// delivery is what a follower has read.
type delivery struct {
	from    *follower
	entries []entry
	whole   bool // the stream is whole after these: see state
	size    int64
}

// follower reads a stream: the messages that its leader republishes, and batches from any replica
// where it has missed some. It keeps no state at the servers, so that no server's death stops it.
type follower struct {
	*index
	engine *engine
	stream int
	stop   context.CancelFunc
	out    chan<- delivery
	budget *semaphore.Weighted // of maxPending, for all followers

	at    uint64 // all messages up to here are read, except those that later ones replaced
	need  uint64 // from here on the stream is whole
	known bool   // need is known
	told  bool   // the last delivery said that the stream is whole
}

// run follows the streams and applies what they have, until ctx ends.
func (x *index) run(ctx context.Context, e *engine) error {
	for {
		err := x.follow(ctx, e)
		if ctx.Err() != nil {
			return nil
		}
		x.log.Error("the index is built anew from the log", zap.Error(err))
		for err := x.rebuild(); err != nil; err = x.rebuild() {
			x.log.Error("the index can't be made", zap.Error(err))
			if !sleep(ctx, time.Second) {
				return nil
			}
		}
	}
}

// follow returns an error if the index is corrupt.
func (x *index) follow(ctx context.Context, e *engine) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	out, budget := make(chan delivery, 1024), semaphore.NewWeighted(maxPending)
	var followers [streams]*follower
	for {
		st := x.now()
		for stream, f := range followers {
			switch {
			case f == nil && st.follows(stream):
				own, stop := context.WithCancel(ctx)
				f := &follower{index: x, engine: e, stream: stream, stop: stop, out: out, budget: budget}
				followers[stream] = f
				running.Go(func() { f.run(own) })
			case f != nil && !st.follows(stream):
				f.stop()
				followers[stream] = nil
			}
		}
		select {
		case d := <-out:
			entries, whole, size := gather(d, out, &followers)
			err := x.applyPatiently(ctx, entries, whole)
			budget.Release(size)
			if err != nil {
				return err
			}
		case <-x.broken:
			return errCorrupt
		case <-ctx.Done():
			return nil
		}
	}
}

// gather returns what is to be applied together: a delivery and those that wait behind it. After
// the meta stream it stops, because a change of the ring may start a stream from its beginning
// again.
func gather(d delivery, out <-chan delivery, followers *[streams]*follower) (
	entries []entry, whole [streams]bool, size int64,
) {
	for {
		size += d.size
		if followers[d.from.stream] == d.from { // or else it has been stopped
			entries = append(entries, d.entries...)
			whole[d.from.stream] = d.whole
		}
		if d.from.stream == meta || len(entries) >= 2*batchSize {
			return entries, whole, size
		}
		select {
		case d = <-out:
		default:
			return entries, whole, size
		}
	}
}

// applyPatiently tries again until ctx ends, because a full disk may have room again. It returns an
// error if the index is corrupt.
func (x *index) applyPatiently(ctx context.Context, entries []entry, whole [streams]bool) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := x.apply(ctx, entries, whole)
		if err == nil || isCorrupt(err) || ctx.Err() != nil {
			return err
		}
		if pause == 100*time.Millisecond {
			x.log.Error("the index can't be written; it is tried again", zap.Error(err))
		}
		sleep(ctx, pause)
	}
}

// run reads the stream until ctx ends.
func (f *follower) run(ctx context.Context) {
	live := make(chan *nats.Msg)
	_, subject := subjects(f.stream)
	sub, err := f.engine.nc.Subscribe(subject, func(m *nats.Msg) {
		select {
		case live <- m:
		case <-ctx.Done():
		}
	})
	if err != nil {
		f.log.Error("can't subscribe", zap.String("subject", subject), zap.Error(err))
		return // the connection is closed
	}
	defer sub.Unsubscribe()
	// What is dropped for these limits is read by batch.
	sub.SetPendingLimits(4*batchSize, 2*maxDocument)
	if !f.begin(ctx) {
		return
	}
	poll := time.NewTimer(0)
	for {
		wait := pollTime
		select {
		case m := <-live:
			e, err := parseEntry(f.stream, m)
			if e.seq == f.at+1 {
				f.deliver(ctx, []*nats.Msg{m})
			} else if e.seq > f.at || err != nil {
				f.need = max(f.need, e.seq)
				wait = f.catchUp(ctx)
			}
		case <-poll.C:
			wait = f.catchUp(ctx)
		case <-f.kick[f.stream]:
			wait = f.catchUp(ctx)
		case <-ctx.Done():
			return
		}
		poll.Reset(wait)
	}
}

// begin asks the leader what the stream is, again until there is one. An index of another stream is
// deleted. It returns false if ctx ends.
func (f *follower) begin(ctx context.Context) bool {
	for ; ctx.Err() == nil; sleep(ctx, retryTime) {
		created, last, err := f.look(ctx)
		if err != nil {
			continue
		}
		for ; ctx.Err() == nil; sleep(ctx, time.Second) {
			if err = f.identify(ctx, f.stream, created, last); err == nil {
				f.at = f.now().at[f.stream]
				return true
			}
			f.log.Error("the index can't be written; it is tried again", zap.Error(err))
		}
	}
	return false
}

// look asks when the stream was created, and its leader for the last sequence.
func (f *follower) look(ctx context.Context) (created time.Time, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	s, err := f.engine.js.Stream(ctx, streamName(f.stream))
	if err != nil {
		return time.Time{}, 0, err
	}
	last, err = f.engine.lastOf(ctx, f.stream)
	return s.CachedInfo().Created, last, err
}

// identify deletes what the index has of a stream if that is from another log: one that was created
// at another time, or that doesn't reach as far.
func (x *index) identify(ctx context.Context, stream int, created time.Time, last uint64) error {
	return x.commit(ctx, func(b *batch) error {
		was := int64(0)
		err := b.db.each(func(row *sqlite3.Stmt) bool {
			was = row.ColumnInt64(0)
			return false
		}, `SELECT created FROM stream WHERE n = ?`, int64(stream))
		if err != nil || was == created.UnixNano() && b.at[stream] <= last {
			return err
		}
		if b.at[stream] > 0 {
			b.log.Warn("the stream isn't the one that was indexed", zap.String("stream", streamName(stream)))
		}
		if err := b.forget(stream); err != nil {
			return err
		}
		return b.db.exec(`REPLACE INTO stream VALUES (?, ?, 0, 0, 0)`, int64(stream), created.UnixNano())
	})
}

// catchUp reads what the follower has missed. It returns after how long to look again.
func (f *follower) catchUp(ctx context.Context) time.Duration {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, batchTime)
		messages, err := f.engine.batch(try, f.stream, f.at+1, batchSize)
		cancel()
		end := err == nil && (len(messages) == 0 ||
			len(messages) < batchSize && messages[len(messages)-1].Header.Get("Nats-Num-Pending") == "0")
		// A replica answers a batch from what it has at one moment. Where a batch isn't the end,
		// what is missing in it may be replaced by messages up to the last one that the leader has
		// by then. The next batch may come from a replica that is behind.
		if !end && len(messages) > 0 {
			f.known = false
		}
		if end && !f.known {
			try, cancel := context.WithTimeout(ctx, tryTime)
			last, err := f.engine.lastOf(try, f.stream)
			cancel()
			if err == nil {
				f.need, f.known = max(f.need, last), true
			}
		}
		f.deliver(ctx, messages)
		switch {
		case err != nil || end && (!f.known || f.at < f.need):
			return retryTime
		case end:
			return pollTime
		}
	}
	return pollTime
}

// deliver hands over messages to be applied.
func (f *follower) deliver(ctx context.Context, messages []*nats.Msg) {
	d := delivery{from: f, size: 1}
	for _, m := range messages {
		e, err := parseEntry(f.stream, m)
		if err == nil {
			d.entries = append(d.entries, e)
		} else {
			f.log.Error("a message is malformed", zap.Error(err))
		}
		f.at, d.size = max(f.at, e.seq), d.size+int64(len(m.Data))
	}
	d.whole = f.known && f.at >= f.need
	if len(messages) == 0 && d.whole == f.told {
		return
	}
	f.told = d.whole
	d.size = min(d.size, maxPending)
	if f.budget.Acquire(ctx, d.size) != nil {
		return // ctx has ended
	}
	select {
	case f.out <- d:
	case <-ctx.Done():
		f.budget.Release(d.size)
	}
}
