package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// engine is the log: a NATS cluster with JetStream.
type engine struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	log   *zap.Logger
	acked [streams]atomic.Uint64 // the last write of this engine that was acknowledged
}

const (
	// tryTime is how long a try of a request may take. JetStream does not answer at all while a
	// stream has no leader.
	tryTime = time.Second

	// retryWait is the pause between two tries.
	retryWait = 30 * time.Millisecond

	// sameWrite is how long a stream recognizes a write that is tried again.
	sameWrite = 2 * time.Minute
)

// errNoQuorum says that the log did not answer. A write may have been made or not.
var errNoQuorum = errors.New("NOQUORUM the log does not answer")

// errConflict is the error of a compare and set that came too late.
var errConflict = errors.New("the key was changed meanwhile")

// connect connects to a NATS cluster at its URLs, separated by commas, and creates the streams that
// don't exist yet, each on replicas servers.
func connect(ctx context.Context, urls, name string, replicas int, log *zap.Logger) (*engine, error) {
	nc, err := nats.Connect(urls, nats.Name(name), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond), nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond),
		nats.Timeout(time.Second),
		// A write must not wait for a connection and come after its error.
		nats.ReconnectBufSize(-1),
		// A server that hangs is left after three seconds.
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: close
				log.Warn("disconnected from NATS", zap.Error(err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Warn("reconnected to NATS", zap.String("url", nc.ConnectedUrlRedacted()))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn("NATS", zap.Error(err))
		}))
	if err != nil {
		return nil, fmt.Errorf("NATS at %s: %w", urls, err)
	}
	e := &engine{nc: nc, log: log}
	if e.js, err = jetstream.New(nc); err == nil {
		err = e.createStreams(ctx, replicas)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("NATS at %s: %w", urls, err)
	}
	return e, nil
}

// close ends the connection.
func (e *engine) close() { e.nc.Close() }

// streamName returns the name of a stream in JetStream.
func streamName(stream int) string {
	if stream == meta {
		return "kvmeta"
	}
	return "kv" + strconv.Itoa(stream)
}

// subjects returns the subjects of a stream, and those on which its leader republishes what was
// committed.
func subjects(stream int) (source, republished string) {
	part := strconv.Itoa(stream)
	if stream == meta {
		part = "meta"
	}
	return "kv." + part + ".>", "log." + part + ".>"
}

// createStreams returns when all streams exist and each has a leader.
func (e *engine) createStreams(ctx context.Context, replicas int) error {
	group, ctx := errgroup.WithContext(ctx)
	for stream := range streams {
		group.Go(func() error {
			for {
				permanent, err := e.createStream(ctx, stream, replicas)
				if err == nil {
					return nil
				}
				if permanent || !pause(ctx) {
					return fmt.Errorf("stream %s: %w", streamName(stream), err)
				}
			}
		})
	}
	return group.Wait()
}

// createStream tries it once. It reports whether it is useless to try again.
func (e *engine) createStream(ctx context.Context, stream, replicas int) (permanent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	// While stores start, none answers for a moment.
	look, cancel := context.WithTimeout(ctx, tryTime/5)
	defer cancel()
	var api *jetstream.APIError
	s, err := e.js.Stream(look, streamName(stream))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		source, republished := subjects(stream)
		s, err = e.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: streamName(stream), Subjects: []string{source}, Storage: jetstream.FileStorage, Replicas: replicas,
			MaxMsgsPerSubject: 1, AllowDirect: true, Duplicates: sameWrite,
			RePublish: &jetstream.RePublish{Source: source, Destination: republished},
		})
	}
	if errors.As(err, &api) {
		const notClustered = 10074
		return api.ErrorCode == notClustered, err
	}
	if err != nil {
		return false, err
	}
	info := s.CachedInfo()
	if c := info.Config; c.MaxMsgsPerSubject != 1 || !c.AllowDirect || c.RePublish == nil {
		return true, errors.New("it exists, but kvproxy did not create it")
	}
	if info.Cluster != nil && info.Cluster.Name != "" && info.Cluster.Leader == "" {
		return false, errors.New("it has no leader")
	}
	return false, nil
}

// pause waits before the next try. It reports whether there is time for one.
func pause(ctx context.Context) bool { return sleep(ctx, retryWait) }

// sleep returns false if ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// request asks the leader of a stream by a method of JetStream's API, again until it answers or ctx
// ends. It decodes the reply. The error can be a *jetstream.APIError.
func (e *engine) request(ctx context.Context, method string, stream int, body, reply any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	for {
		try, cancel := context.WithTimeout(ctx, tryTime)
		m, err := e.nc.RequestWithContext(try, "$JS.API."+method+"."+streamName(stream), data)
		cancel()
		if err == nil {
			var failed struct{ Error *jetstream.APIError }
			if err = errors.Join(json.Unmarshal(m.Data, &failed), json.Unmarshal(m.Data, reply)); err == nil {
				if failed.Error == nil {
					return nil
				}
				if err = failed.Error; failed.Error.Code < 500 {
					return err
				}
			}
		}
		if !pause(ctx) {
			return noQuorum(ctx, stream, err)
		}
	}
}

// noQuorum returns the error of a stream that has not answered before ctx ended.
func noQuorum(ctx context.Context, stream int, err error) error {
	return fmt.Errorf("%w: stream %s: %w (%w)", errNoQuorum, streamName(stream), err, context.Cause(ctx))
}

// publish writes a message to a stream. It tries again until ctx ends. If after isn't nil, it is
// the sequence that the last message of the subject must have, or else the error is errConflict.
func (e *engine) publish(ctx context.Context, stream int, subject string, body []byte, after *uint64) (uint64, error) {
	const headers = 512 // more than what the ones below take
	if most := min(maxDocument, int(e.nc.MaxPayload())-headers); e.nc.MaxPayload() > 0 && len(body) > most {
		return 0, fmt.Errorf("the value is %d bytes, at most %d are allowed (max_payload of the NATS servers is %d)",
			len(body), most, e.nc.MaxPayload())
	}
	// A try that timed out may have been a write. By its ID, the stream recognizes it.
	options := []jetstream.PublishOpt{jetstream.WithMsgID(nuid.Next()), jetstream.WithRetryAttempts(0)}
	if after != nil {
		options = append(options, jetstream.WithExpectLastSequencePerSubject(*after))
	}
	for {
		try, cancel := context.WithTimeout(ctx, tryTime)
		ack, err := e.js.Publish(try, subject, body, options...)
		cancel()
		var api *jetstream.APIError
		switch {
		case err == nil:
			raise(&e.acked[stream], ack.Sequence)
			return ack.Sequence, nil
		case errors.As(err, &api):
			switch api.ErrorCode {
			case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
				return 0, errConflict
			case duplicateInFlight:
			default:
				if api.Code < 500 {
					return 0, err
				}
			}
		}
		if !pause(ctx) {
			return 0, noQuorum(ctx, stream, err)
		}
	}
}

// duplicateInFlight is the code for a write whose first try has not been committed yet.
const duplicateInFlight = 10158

func raise(v *atomic.Uint64, to uint64) {
	for old := v.Load(); old < to && !v.CompareAndSwap(old, to); old = v.Load() {
	}
}

// last asks each stream's leader for the sequence of its last message. errs says who gave no answer
// before ctx ended.
func (e *engine) last(ctx context.Context) (last positions, errs [streams]error) {
	var all sync.WaitGroup
	for stream := range streams {
		all.Go(func() { last[stream], errs[stream] = e.lastOf(ctx, stream) })
	}
	all.Wait()
	return last, errs
}

func (e *engine) lastOf(ctx context.Context, stream int) (uint64, error) {
	for {
		var reply struct {
			State struct {
				Last uint64 `json:"last_seq"`
			}
			Cluster *jetstream.ClusterInfo
		}
		err := e.request(ctx, "STREAM.INFO", stream, nil, &reply)
		if err == nil && !leads(reply.Cluster) {
			err = errors.New("it has no leader that hears a majority")
		}
		var api *jetstream.APIError
		if err == nil || errors.Is(err, errNoQuorum) || errors.As(err, &api) {
			return reply.State.Last, err
		}
		if !pause(ctx) {
			return 0, noQuorum(ctx, stream, err)
		}
	}
}

// leads reports whether the server that told this about a stream is its leader, and has heard from
// a majority lately. A replica answers too if there is no leader, and a leader that hung and goes
// on does so before it learns that there is another one. Replicas answer their leader each second.
func leads(c *jetstream.ClusterInfo) bool {
	if c == nil || c.Name == "" {
		return true // a server without a cluster
	}
	heard := 1
	for _, r := range c.Replicas {
		if !r.Offline && r.Active < 3*time.Second {
			heard++
		}
	}
	return c.Leader != "" && 2*heard > len(c.Replicas)+1
}

// acknowledged returns the sequences of the last writes that were acknowledged through this engine.
func (e *engine) acknowledged() (acked positions) {
	for stream := range acked {
		acked[stream] = e.acked[stream].Load()
	}
	return acked
}

// entry is a message of a stream: the last value of a key.
type entry struct {
	stream int
	seq    uint64
	key    string // of the meta stream: its name, see changeMeta
	body   []byte // an encoded document, or a value of the meta stream; empty: deleted
	flush  bool   // all documents of the stream with a smaller sequence are deleted; there is no key
}

// emptyKey stands for the key "" in a subject, which has no empty parts. No base64 has one byte.
const emptyKey = "-"

// subjectOf returns the subject of a key.
func subjectOf(stream int, key string) string {
	source, _ := subjects(stream)
	name := base64.RawURLEncoding.EncodeToString([]byte(key))
	if key == "" {
		name = emptyKey
	}
	return strings.TrimSuffix(source, ">") + "k." + name
}

// flushSubject returns the subject of a stream's flushes.
func flushSubject(stream int) string {
	source, _ := subjects(stream)
	return strings.TrimSuffix(source, ">") + "flush"
}

// parseEntry returns the entry of a message that a stream has republished, or that is from a batch.
func parseEntry(stream int, m *nats.Msg) (entry, error) {
	subject := m.Header.Get(jetstream.SubjectHeader)
	seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return entry{}, fmt.Errorf("message of stream %s: its sequence: %w", streamName(stream), err)
	}
	x := entry{stream: stream, seq: seq, body: m.Data}
	source, _ := subjects(stream)
	rest, ok := strings.CutPrefix(subject, strings.TrimSuffix(source, ">"))
	name, isKey := strings.CutPrefix(rest, "k.")
	switch {
	case ok && rest == "flush":
		x.flush = true
	case ok && isKey && name == emptyKey:
	case ok && isKey:
		key, err := base64.RawURLEncoding.DecodeString(name)
		if err != nil {
			return x, fmt.Errorf("message %d of stream %s: subject %q: %w", seq, streamName(stream), subject, err)
		}
		x.key = string(key)
	default:
		return x, fmt.Errorf("message %d of stream %s: subject %q is unknown", seq, streamName(stream), subject)
	}
	return x, nil
}

// entries returns up to count entries of a stream from a sequence on. They come from any replica,
// which may be behind: none doesn't mean that there is none. Messages that nobody can read are left
// out. next is where to go on.
func (e *engine) entries(ctx context.Context, stream int, from uint64, count int) (_ []entry, next uint64, err error) {
	for {
		messages, err := e.batch(ctx, stream, from, count)
		if len(messages) == 0 && err != nil {
			if !pause(ctx) {
				return nil, from, noQuorum(ctx, stream, err)
			}
			continue
		}
		found, next := make([]entry, 0, len(messages)), from
		for _, m := range messages {
			x, err := parseEntry(stream, m)
			if err != nil {
				e.log.Error("unreadable message", zap.Error(err))
			} else {
				found = append(found, x)
			}
			next = max(next, x.seq+1)
		}
		return found, next, nil
	}
}

// batch tries once to get a batch. With an error it returns the first messages of it.
func (e *engine) batch(ctx context.Context, stream int, from uint64, count int) (found []*nats.Msg, err error) {
	inbox := e.nc.NewRespInbox()
	sub, err := e.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	source, _ := subjects(stream)
	ask := fmt.Sprintf(`{"seq":%d,"next_by_subj":%q,"batch":%d,"max_bytes":%d}`, max(from, 1), source, count, maxDocument)
	if err := e.nc.PublishRequest("$JS.API.DIRECT.GET."+streamName(stream), inbox, []byte(ask)); err != nil {
		return nil, err
	}
	before := "0"
	for {
		try, cancel := context.WithTimeout(ctx, tryTime)
		m, err := sub.NextMsgWithContext(try)
		cancel()
		if err != nil {
			return found, err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404": // the end of the batch, or nothing there
			return found, nil
		default:
			return found, fmt.Errorf("status %s %s", status, m.Header.Get("Description"))
		}
		// Each message names the one before. A message that was lost on the way ends the batch.
		if m.Header.Get(jetstream.LastSequenceHeader) != before {
			return found, errors.New("a message was lost")
		}
		before = m.Header.Get(jetstream.SequenceHeader)
		found = append(found, m)
	}
}
