package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidwall/redcon"
)

// pipes is a network in memory with one address: what dials it comes out of Accept.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	dials  atomic.Int64
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.dials.Add(1)
	select {
	case <-p.closed:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	default:
	}
	near, far := net.Pipe()
	select {
	case p.conns <- pipeEnd{far}:
		return near, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// pipeEnd is a net.Pipe's that, as connections elsewhere do, takes nothing at once.
type pipeEnd struct{ net.Conn }

func (e pipeEnd) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return e.Conn.Write(b)
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) remote() *remote {
	r := newRemote("pipes")
	r.dial = p.dial
	return r
}

// startPeer answers on a listener as a node does, until the function that it returns is called.
func startPeer(ln net.Listener, handle peerHandler) (stop func()) {
	var running sync.WaitGroup
	running.Go(func() {
		redcon.Serve(ln,
			func(conn redcon.Conn, cmd redcon.Command) { servePeer(conn.Detach(), cmd, handle) },
			func(redcon.Conn) bool { running.Add(1); return true },
			func(redcon.Conn, error) { running.Done() })
	})
	return func() {
		ln.Close()
		running.Wait()
	}
}

// parrot answers with its op and its arguments, after as long as the first of them says if the op is sleep.
func parrot(ctx context.Context, op string, args [][]byte) ([][]byte, error) {
	switch op {
	case "length":
		return [][]byte{strconv.AppendInt(nil, int64(len(args[0])), 10)}, nil
	case "fail":
		return nil, fmt.Errorf("no %s", args[0])
	case "panic":
		return [][]byte{args[len(args)]}, nil
	case "sleep":
		d, err := time.ParseDuration(string(args[0]))
		if err != nil {
			return nil, err
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return append([][]byte{[]byte(op)}, args...), nil
}

func equalParts(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

func randomParts(random *rand.Rand) (parts [][]byte) {
	for range random.IntN(5) {
		parts = append(parts, bytes.Repeat([]byte{byte(random.IntN(256))}, 1<<random.IntN(17)-1))
	}
	return parts
}

func TestPeerAnswersInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		stop := startPeer(ln, parrot)
		r := ln.remote()
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), 1))
				for range 30 {
					pause := time.Duration(random.IntN(20)) * time.Millisecond
					args := append([][]byte{[]byte(pause.String())}, randomParts(random)...)
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					got, err := r.call(ctx, "sleep", args...)
					cancel()
					if want, _ := parrot(t.Context(), "", args); err != nil || !equalParts(got[1:], want[1:]) {
						t.Errorf("%d parts, %v; want %d", len(got), err, len(want))
						return
					}
				}
			})
		}
		callers.Wait()
		if n := ln.dials.Load(); n != 1 {
			t.Errorf("%d dials", n)
		}
		r.close()
		stop()
	})
}

func TestPeerErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		stop := startPeer(ln, func(ctx context.Context, op string, args [][]byte) ([][]byte, error) {
			if op == "much" {
				return [][]byte{make([]byte, maxFrame)}, nil
			}
			return parrot(ctx, op, args)
		})
		defer stop()
		r := ln.remote()
		defer r.close()
		for _, tt := range []struct {
			op   string
			args [][]byte
			want string
			peer bool // says so
		}{
			{"fail", [][]byte{[]byte("luck\r\n")}, "peer pipes: no luck\r\n", true},
			{"panic", nil, "peer pipes: panic: panic: runtime error: index out of range [0]", true},
			{"much", nil, "peer pipes: much: a reply of 1 parts, 67108960 bytes, is too long", true},
			{"long", [][]byte{make([]byte, maxFrame+1)}, "peer pipes: a request of 1 arguments, 67108865 bytes,", false},
			{"long", make([][]byte, maxFrame/16), "peer pipes: a request of 4194304 arguments, 0 bytes,", false},
			{"many", make([][]byte, maxParts+1), "peer pipes: a request of 1048577 arguments, 0 bytes,", false},
		} {
			parts, err := r.call(t.Context(), tt.op, tt.args...)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || parts != nil {
				t.Errorf("%s: %d parts, error %v, want %s", tt.op, len(parts), err, tt.want)
			}
			var says *peerError
			if errors.As(err, &says) != tt.peer {
				t.Errorf("%s: %T", tt.op, err)
			}
		}
		if _, err := r.call(t.Context(), "echo"); err != nil || ln.dials.Load() != 1 {
			t.Errorf("after all that: %v, %d dials", err, ln.dials.Load())
		}
	})
}

func TestPeerDeadlineTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		var got time.Time
		var has bool
		stop := startPeer(ln, func(ctx context.Context, _ string, _ [][]byte) ([][]byte, error) {
			got, has = ctx.Deadline()
			return nil, nil
		})
		defer stop()
		r := ln.remote()
		defer r.close()
		if _, err := r.call(t.Context(), "any"); err != nil || has {
			t.Errorf("%v, a deadline: %v", err, has)
		}
		for _, left := range []time.Duration{time.Microsecond, 1234567 * time.Microsecond, 100 * time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			want := time.Now().Add(min(left, maxPeerTime))
			if _, err := r.call(ctx, "any"); err != nil || !got.Equal(want) {
				t.Errorf("%v: %v, deadline %v, want %v", left, err, got, want)
			}
			cancel()
		}
	})
}

// pausable is a listener whose connections, while it is paused, aren't read, as those of a stopped process.
type pausable struct {
	net.Listener
	mu sync.Mutex
	on chan struct{} // closed: not paused
}

func newPausable(ln net.Listener) *pausable {
	p := &pausable{Listener: ln, on: make(chan struct{})}
	close(p.on)
	return p
}

func (p *pausable) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = make(chan struct{})
}

func (p *pausable) goOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.on)
}

func (p *pausable) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	return pausableConn{conn, p}, err
}

type pausableConn struct {
	net.Conn
	p *pausable
}

func (c pausableConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.p.mu.Lock()
	on := c.p.on
	c.p.mu.Unlock()
	<-on
	return n, err
}

// A peer that hangs costs each request its deadline and not a moment more. When it goes on it is asked again, on the
// same connection if it hasn't been away for long.
func TestPeerHangs(t *testing.T) {
	for _, tt := range []struct {
		away  time.Duration
		dials int64
	}{{2 * time.Second, 1}, {4 * time.Second, 1}, {20 * time.Second, 4}} {
		synctest.Test(t, func(t *testing.T) {
			pipes := newPipes()
			ln := newPausable(pipes)
			var handled atomic.Int64
			stop := startPeer(ln, func(ctx context.Context, op string, args [][]byte) ([][]byte, error) {
				handled.Add(1)
				return parrot(ctx, op, args)
			})
			r := pipes.remote()
			if _, err := r.call(t.Context(), "echo"); err != nil {
				t.Fatal(err)
			}
			ln.pause()
			var calls sync.WaitGroup
			start := time.Now()
			asked := int64(0)
			for time.Since(start) < tt.away {
				asked++
				left := time.Duration(1+rand.IntN(900)) * time.Millisecond
				deadline := time.Now().Add(left)
				calls.Add(1)
				r.do(deadline, "echo", [][]byte{make([]byte, rand.IntN(1000))}, func(_ [][]byte, err error) {
					defer calls.Done()
					lost := errors.Is(err, errSilent) && !time.Now().After(deadline)
					if !lost && (err != context.DeadlineExceeded || !time.Now().Equal(deadline)) {
						t.Errorf("%v after %v of %v", err, left-time.Until(deadline), left)
					}
				})
				time.Sleep(time.Millisecond)
			}
			calls.Wait()
			r.mu.Lock()
			if l := r.link; l != nil && (len(l.calls) > 0 || len(l.due) > 0 || len(l.queue) > 2000 || l.queued > 64<<10) {
				t.Errorf("left: %d calls, %d deadlines, %d in the queue, %d bytes", len(l.calls), len(l.due),
					len(l.queue), l.queued)
			}
			r.mu.Unlock()
			ln.goOn()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			got, err := r.call(ctx, "echo", []byte("hello"))
			cancel()
			if err != nil || string(got[1]) != "hello" {
				t.Errorf("when it goes on: %q, %v", got, err)
			}
			if n := pipes.dials.Load(); n != tt.dials {
				t.Errorf("%v away: %d dials, want %d", tt.away, n, tt.dials)
			}
			if n := handled.Load(); n > 2+asked/2 { // the first batch of each connection was on its way
				t.Errorf("%d requests of %d, given up long ago, are handled", n, asked)
			}
			r.close()
			stop()
		})
	}
}

// A peer that works on one long request and says nothing else is not a hanging one.
func TestPeerTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		stop := startPeer(ln, parrot)
		r := ln.remote()
		for _, pause := range []string{"1s", "30s", "10m"} {
			if _, err := r.call(t.Context(), "sleep", []byte(pause)); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Hour) // and neither is an idle one
		if _, err := r.call(t.Context(), "echo"); err != nil || ln.dials.Load() != 1 {
			t.Errorf("%v, %d dials", err, ln.dials.Load())
		}
		r.close()
		stop()
	})
}

func TestPeerLateReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		stop := startPeer(ln, func(_ context.Context, op string, args [][]byte) ([][]byte, error) {
			return parrot(context.Background(), op, args) // minds no deadline
		})
		r := ln.remote()
		for i := range 100 {
			ctx, cancel := context.WithCancelCause(t.Context())
			enough := errors.New("enough")
			time.AfterFunc(10*time.Millisecond, func() { cancel(enough) })
			if _, err := r.call(ctx, "sleep", []byte("1s")); err != enough {
				t.Error(err)
			}
			late := time.Now().Add(10 * time.Millisecond)
			r.do(late, "sleep", [][]byte{[]byte("1s")}, func(_ [][]byte, err error) {
				if err != context.DeadlineExceeded {
					t.Error(err)
				}
			})
			mine := []byte(strconv.Itoa(i))
			if got, err := r.call(t.Context(), "sleep", []byte("20ms"), mine); err != nil || !bytes.Equal(got[2], mine) {
				t.Errorf("%d: %q, %v", i, got, err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		r.mu.Lock()
		if len(r.link.calls) > 0 || r.link.owed != 0 {
			t.Errorf("%d calls, %d replies owed", len(r.link.calls), r.link.owed)
		}
		r.mu.Unlock()
		r.close()
		stop()
		if n := ln.dials.Load(); n != 1 {
			t.Errorf("%d dials", n)
		}
	})
}

func TestPeerDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		ended := make(chan error, 50)
		stop := startPeer(ln, func(ctx context.Context, _ string, _ [][]byte) ([][]byte, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		})
		r := ln.remote()
		var calls sync.WaitGroup
		start := time.Now()
		for range cap(ended) {
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if _, err := r.call(ctx, "wait"); err == nil || errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		stop()
		calls.Wait()
		if d := time.Since(start); d != time.Second {
			t.Errorf("the calls fail after %v", d)
		}
		for range cap(ended) {
			if err := <-ended; err != context.Canceled {
				t.Errorf("a handler ends with %v", err)
			}
		}

		if r.refused() {
			t.Error("refused without a dial")
		}
		_, err := r.call(t.Context(), "echo")
		if !errors.Is(err, syscall.ECONNREFUSED) || !r.refused() {
			t.Errorf("%v, refused: %v", err, r.refused())
		}
		dials := ln.dials.Load()
		for range 100 { // in 49 ms
			if _, err := r.call(t.Context(), "echo"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Error(err)
			}
			time.Sleep(490 * time.Microsecond)
		}
		if n := ln.dials.Load(); n != dials {
			t.Errorf("%d dials within 49 ms", n-dials)
		}
		if time.Since(start) != time.Second+49*time.Millisecond {
			t.Error("a refused dial takes time")
		}

		back := newPipes()
		stop = startPeer(back, parrot)
		r.dial = back.dial // nobody dials: all dials have ended
		time.Sleep(dialPause)
		if !r.refused() { // has it dialled
			t.Error("not refused any more, without a dial")
		}
		synctest.Wait()
		if r.refused() {
			t.Error("refused, after a dial that was not")
		}
		if _, err := r.call(t.Context(), "echo"); err != nil || back.dials.Load() != 1 {
			t.Errorf("%v, %d dials", err, back.dials.Load())
		}
		r.close()
		stop()
	})
}

// A dial that gets no answer holds up nobody either.
func TestPeerDialHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newPipes().remote() // of which nobody accepts
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.call(ctx, "echo"); err != context.DeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		_, err := r.call(t.Context(), "echo")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != dialTimeout || r.refused() {
			t.Errorf("%v after %v, refused: %v", err, time.Since(start), r.refused())
		}
		var calls sync.WaitGroup
		calls.Go(func() {
			if _, err := r.call(t.Context(), "echo"); !errors.Is(err, errRemoteClosed) {
				t.Error(err)
			}
		})
		time.Sleep(dialPause)
		r.close()
		calls.Wait()
		if _, err := r.call(t.Context(), "echo"); !errors.Is(err, errRemoteClosed) {
			t.Error(err)
		}
		r.close()
	})
}

func TestPeerRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	r := newRemote(ln.Addr().String())
	defer r.close()
	if _, err := r.call(t.Context(), "echo"); !errors.Is(err, syscall.ECONNREFUSED) || !r.refused() {
		t.Errorf("%v, refused: %v", err, r.refused())
	}
}

func TestPeerOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		stop := startPeer(ln, parrot)
		r := ln.remote()
		counts := map[string]int{}
		var mu sync.Mutex
		ask := func(op string, args ...[]byte) {
			r.do(time.Now().Add(time.Minute), op, args, func(_ [][]byte, err error) {
				mu.Lock()
				defer mu.Unlock()
				counts[fmt.Sprint(err)]++
			})
		}
		for range maxInFlight + 10 { // no goroutine of the remote's runs meanwhile: nothing is answered
			ask("sleep", []byte("10s"))
		}
		synctest.Wait()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		full := "peer pipes: too many requests under way"
		busy := fmt.Sprintf("peer pipes: sleep: %d requests are being handled already", maxHandlers)
		// Requests that are answered while others are sent make room. Of those that come together, none.
		if all := counts["<nil>"] + counts[busy] + counts[full]; all != maxInFlight+10 || counts["<nil>"] < maxHandlers ||
			counts[busy] == 0 {
			t.Errorf("%v", counts)
		}
		clear(counts)
		ask("length", make([]byte, maxFrame-200))
		ask("length", make([]byte, 1000))
		synctest.Wait()
		if counts["<nil>"] < 1 || counts["<nil>"]+counts[full] != 2 {
			t.Errorf("%v", counts)
		}
		r.close()
		stop()
	})
}

func TestPeerClose(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			ln := newPipes()
			stop := startPeer(ln, parrot)
			r := ln.remote()
			var asked, answered atomic.Int64
			var callers sync.WaitGroup
			for range 1 + random.IntN(8) {
				callers.Go(func() {
					for range 20 {
						asked.Add(1)
						r.do(time.Now().Add(20*time.Millisecond), "sleep", [][]byte{[]byte("10ms")}, func([][]byte, error) {
							answered.Add(1)
						})
						time.Sleep(time.Millisecond)
					}
				})
			}
			time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
			if random.IntN(2) == 0 {
				stop()
			}
			for range 1 + random.IntN(3) {
				callers.Go(r.close)
			}
			r.close()
			callers.Wait()
			stop()
			synctest.Wait()
			if asked.Load() != answered.Load() {
				t.Errorf("%d asked, %d answered", asked.Load(), answered.Load())
			}
		})
	}
}

// Whatever a peer does, each request ends once, by its deadline, and with its own answer if with any.
func TestPeerAtRandom(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			ln := newPipes()
			var conns sync.WaitGroup
			serving := make(chan struct{})
			go func() {
				defer close(serving)
				for n := uint64(0); ; n++ {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					conns.Go(func() { serveAtRandom(conn, rand.New(rand.NewPCG(seed, n))) })
				}
			}()
			r := ln.remote()
			var calls sync.WaitGroup
			for i := range 1000 {
				ends := 0
				deadline := time.Now().Add(time.Duration(1+random.IntN(3000)) * time.Millisecond)
				calls.Add(1)
				r.do(deadline, "echo", [][]byte{[]byte(strconv.Itoa(i))}, func(parts [][]byte, err error) {
					if ends++; ends > 1 {
						t.Error("a second end")
						return
					}
					if time.Now().After(deadline) {
						t.Errorf("ends %v late with %v", time.Since(deadline), err)
					}
					if err == nil && string(parts[0]) != strconv.Itoa(i) {
						t.Errorf("%d is answered %q", i, parts)
					}
					calls.Done()
				})
				time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
			}
			calls.Wait()
			r.close()
			ln.Close()
			<-serving
			conns.Wait()
		})
	}
}

// serveAtRandom answers most requests, some twice, some late, some never, some with rubbish; and hangs or hangs up now
// and then.
func serveAtRandom(conn net.Conn, random *rand.Rand) {
	defer conn.Close()
	out := make(chan []byte, 10_000)
	var writer sync.WaitGroup
	writer.Go(func() {
		for b := range out {
			conn.Write(b)
		}
	})
	var pending sync.WaitGroup
	defer func() { conn.Close(); pending.Wait(); close(out); writer.Wait() }()
	for rd := redcon.NewReader(conn); ; {
		cmd, err := rd.ReadCommand()
		if err != nil {
			return
		}
		b := redcon.AppendArray(nil, 3)
		b = redcon.AppendBulk(b, cmd.Args[1])
		b = redcon.AppendBulkString(b, "OK")
		b = redcon.AppendBulk(b, append([]byte(nil), cmd.Args[len(cmd.Args)-1]...))
		switch p := random.IntN(1000); {
		case p < 1:
			return
		case p < 2:
			time.Sleep(time.Duration(random.IntN(10_000)) * time.Millisecond)
		case p < 4:
			out <- b
			out <- b
			continue
		case p < 5:
			out <- b[:random.IntN(len(b))]
			return
		case p < 6:
			out <- []byte("rubbish\r\n")
			continue
		case p < 8:
			continue
		case p < 500:
			pause := time.Duration(random.IntN(2000)) * time.Millisecond
			pending.Go(func() {
				time.Sleep(pause)
				out <- b
			})
			continue
		}
		out <- b
	}
}

func TestPeerHostileServer(t *testing.T) {
	for name, says := range map[string]string{
		"garbage":            "HTTP/1.1 400 Bad Request\r\n\r\n",
		"an error":           "-ERR unknown command 'SCATTER.PEER'\r\n",
		"a string":           "+OK\r\n",
		"nil":                "*-1\r\n",
		"nil again":          "$-1\r\n",
		"RESP3's nil":        "_\r\n",
		"a nil id":           "*3\r\n$-1\r\n$2\r\nOK\r\n$1\r\na\r\n",
		"a nil part":         "*3\r\n$1\r\n1\r\n$2\r\nOK\r\n$-1\r\n",
		"an integer":         "*3\r\n:1\r\n$2\r\nOK\r\n$1\r\na\r\n",
		"nothing in it":      "*0\r\n",
		"an id alone":        "*1\r\n$1\r\n1\r\n",
		"neither OK nor ERR": "*2\r\n$1\r\n1\r\n$2\r\nKO\r\n",
		"a negative id":      "*2\r\n$2\r\n-1\r\n$2\r\nOK\r\n",
		"an id too large":    "*2\r\n$20\r\n99999999999999999999\r\n$2\r\nOK\r\n",
		"a wrong id":         "*2\r\n$1\r\n7\r\n$2\r\nOK\r\n",
		"an id twice":        "*2\r\n$1\r\n0\r\n$2\r\nOK\r\n*2\r\n$1\r\n0\r\n$2\r\nOK\r\n",
		"too many parts":     "*1048577\r\n$1\r\n1\r\n$2\r\nOK\r\n",
		"no end of parts":    "*9999999999999999999\r\n",
		"a part too long":    "*3\r\n$1\r\n1\r\n$2\r\nOK\r\n$67108865\r\n",
		"too long together":  "*4\r\n$1\r\n1\r\n$2\r\nOK\r\n$9\r\n123456789\r\n$67108860\r\n",
		"no end of length":   "*3\r\n$1\r\n1\r\n$2\r\nOK\r\n$9223372036854775807\r\n",
		"no end of digits":   "*" + strings.Repeat("1", 100_000),
		"no end of zeros":    "*" + strings.Repeat("0", 100_000) + "2\r\n",
		"a bad end":          "*3\r\n$1\r\n1\r\n$2\r\nOK\r\n$1\r\naXX*2\r\n",
		"no return":          "*2\n$1\n1\n$2\nOK\n",
		"cut off":            "*3\r\n$1\r\n1\r\n$2\r\nOK\r\n$10\r\nabc",
		"cut off earlier":    "*3\r\n$1\r\n1",
		"nothing":            "",
	} {
		synctest.Test(t, func(t *testing.T) {
			ln := newPipes()
			served := make(chan struct{})
			go func() {
				defer close(served)
				conn, err := ln.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				go io.Copy(io.Discard, conn)
				time.Sleep(time.Millisecond) // for the request
				io.WriteString(conn, says)
				conn.Close()
			}()
			r := ln.remote()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			start := time.Now()
			parts, err := r.call(ctx, "echo")
			cancel()
			if err == nil || time.Since(start) != time.Millisecond {
				t.Errorf("%s: %q, %v after %v", name, parts, err, time.Since(start))
			}
			t.Logf("%s: %.150v", name, err)
			<-served
			r.close()
		})
	}
}

// What a node reads of an endless reply is bounded.
func TestPeerEndlessReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		sent := 0
		served := make(chan struct{})
		go func() {
			defer close(served)
			conn, _ := ln.Accept()
			go io.Copy(io.Discard, conn)
			io.WriteString(conn, "*1048576\r\n$1\r\n1\r\n$2\r\nOK\r\n")
			part := "$1000000\r\n" + strings.Repeat("x", 1_000_000) + "\r\n"
			for {
				n, err := io.WriteString(conn, part)
				if sent += n; err != nil {
					return
				}
			}
		}()
		r := ln.remote()
		_, err := r.call(t.Context(), "echo")
		<-served
		if err == nil || sent > maxFrame+1<<20 {
			t.Errorf("%v after %d bytes", err, sent)
		}
		r.close()
	})
}

// A client that takes no replies is read no further after some, and hung up on in the end.
func TestPeerHostileClientTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		var handled atomic.Int64
		stop := startPeer(ln, func(context.Context, string, [][]byte) ([][]byte, error) {
			handled.Add(1)
			return [][]byte{make([]byte, 1<<20)}, nil
		})
		conn, err := ln.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for i := 0; err == nil; i++ {
			c := &call{id: uint64(i)}
			_, err = conn.Write(appendRequest(nil, c, 0, "much", nil))
		}
		if d := time.Since(start); d != stuckAfter {
			t.Errorf("hung up on after %v", d)
		}
		if n := handled.Load(); n > maxHandlers+maxWaiting>>20+1 {
			t.Errorf("%d requests are handled", n)
		}
		stop()
	})
}

func TestPeerHostileClient(t *testing.T) {
	request := "*4\r\n$12\r\nSCATTER.PEER\r\n$1\r\n7\r\n$4\r\necho\r\n$1\r\n0\r\n"
	ok := "*3\r\n$1\r\n7\r\n$2\r\nOK\r\n$4\r\necho\r\n"
	failed := "*3\r\n$1\r\n0\r\n$3\r\nERR\r\n"
	for name, tt := range map[string]struct {
		in     string
		out    string // has this in it
		closed bool
	}{
		"a request":           {request, ok, false},
		"two":                 {request + request, ok + ok, false},
		"in small letters":    {strings.ToLower(request), ok, false},
		"as a line":           {"scatter.peer 7 echo 0\r\n", ok, false},
		"a command before":    {"PING\r\n" + request, "+PONG\r\n" + ok, false},
		"a command after":     {request + "PING\r\n", ok, true},
		"too few words":       {"SCATTER.PEER 7 echo\r\n", failed, true},
		"an id that is none":  {"SCATTER.PEER x echo 0\r\n", failed, true},
		"a negative id":       {"SCATTER.PEER -1 echo 0\r\n", failed, true},
		"a time that is none": {"SCATTER.PEER 1 echo soon\r\n", failed, true},
		"a negative time":     {"SCATTER.PEER 1 echo -1\r\n", failed, true},
		"a long op":           {"SCATTER.PEER 1 " + strings.Repeat("x", 65) + " 0\r\n", failed, true},
		"a ping":              {"SCATTER.PEER 0 PING 0\r\n", "*2\r\n$1\r\n0\r\n$2\r\nOK\r\n", false},
		"half a request":      {request + "*4\r\n$12\r\nSCATTER", ok, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ln := newPipes()
			var running sync.WaitGroup
			running.Go(func() {
				redcon.Serve(ln, func(conn redcon.Conn, cmd redcon.Command) {
					if string(cmd.Args[0]) == "PING" {
						conn.WriteString("PONG")
						return
					}
					servePeer(conn.Detach(), cmd, parrot)
				}, func(redcon.Conn) bool { running.Add(1); return true }, func(redcon.Conn, error) { running.Done() })
			})
			conn, err := ln.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			var reader sync.WaitGroup
			reader.Go(func() { io.Copy(&out, conn) })
			io.WriteString(conn, tt.in)
			synctest.Wait()
			_, err = io.WriteString(conn, " ")
			if closed := err != nil; closed != tt.closed {
				t.Errorf("%s: closed: %v", name, closed)
			}
			conn.Close()
			reader.Wait()
			if !strings.Contains(out.String(), tt.out) || strings.Contains(out.String(), failed) != tt.closed {
				t.Errorf("%s: %q, want %q", name, out.String(), tt.out)
			}
			ln.Close()
			running.Wait()
		})
	}
}

// FuzzServePeer lets a client say anything to a node, after the guard.
func FuzzServePeer(f *testing.F) {
	f.Add([]byte("SCATTER.PEER 1 echo 0 a b\r\nSCATTER.PEER 2 fail 5 a\r\nSCATTER.PEER 0 PING 0\n"))
	f.Add([]byte("*4\r\n$12\r\nSCATTER.PEER\r\n$1\r\n7\r\n$5\r\npanic\r\n$1\r\n0\r\n*1\r\n$9223372036854775807\r\n"))
	f.Add([]byte("SCATTER.PEER 1 sleep 1000 1h\r\n*4\r\n$12\r\nSCATTER.PEER\r\n$1\r\n7\r\n$5\r\npanic\r\n$1\r\n9\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ln := newPipes()
		stop := startPeer(&guard{Listener: ln, most: 1, refuse: func() {}}, parrot)
		conn, err := ln.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		var reader sync.WaitGroup
		reader.Go(func() { io.Copy(io.Discard, conn) })
		conn.Write(b)
		conn.Close()
		reader.Wait()
		stop()
	})
}

// FuzzReply reads replies: what is read and written again is what was read, but for the form of numbers.
func FuzzReply(f *testing.F) {
	f.Add([]byte("*3\r\n$1\r\n7\r\n$2\r\nOK\r\n$4\r\necho\r\n"))
	f.Add([]byte("*3\r\n$1\r\n7\r\n$3\r\nERR\r\n$4\r\nluck\r\n*2\r\n$2\r\n08\r\n$2\r\nOK\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(b []byte) (replies []peerReply) {
			in := newReplyReader(bytes.NewReader(b))
			for {
				id, ok, parts, err := in.reply()
				if err != nil {
					return replies
				}
				replies = append(replies, peerReply{id, ok, parts})
			}
		}
		replies := read(b)
		var again []byte
		for _, r := range replies {
			again = r.append(again)
		}
		if len(again) > len(b) {
			t.Errorf("%d bytes of %d", len(again), len(b))
		}
		same := func(a, b peerReply) bool { return a.id == b.id && a.ok == b.ok && equalParts(a.parts, b.parts) }
		if got := read(again); !slices.EqualFunc(got, replies, same) {
			t.Errorf("%v, and again %v", replies, got)
		}
	})
}

// startLoopback answers on the network.
func startLoopback(tb testing.TB) *remote {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	stop := startPeer(&guard{Listener: ln, most: 1, refuse: func() { tb.Error("a second connection") }}, parrot)
	r := newRemote(ln.Addr().String())
	tb.Cleanup(func() {
		r.close()
		stop()
	})
	return r
}

func TestPeerLoopback(t *testing.T) {
	r := startLoopback(t)
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 5))
			for range 50 {
				args := randomParts(random)
				got, err := r.call(t.Context(), "echo", args...)
				if err != nil || !equalParts(got[1:], args) {
					t.Errorf("%d parts, %v", len(got), err)
					return
				}
			}
		})
	}
	callers.Wait()
	if got, err := r.call(t.Context(), "length", make([]byte, maxFrame-200)); err != nil || string(got[0]) != "67108664" {
		t.Errorf("a request as long as may be: %q, %v", got, err)
	}
}

// The asking side allocates for a request no more than the request, its frame, and the reply's list and part.
func TestPeerAllocations(t *testing.T) {
	ln := newPipes()
	defer ln.Close()
	r := ln.remote()
	defer r.close()
	go func() { // answers with what an array has room for
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		in, out := make([]byte, 4096), make([]byte, 0, 4096)
		for {
			n, err := conn.Read(in)
			if err != nil {
				return
			}
			words := bytes.SplitN(in[:n], []byte("\r\n"), 6)
			out = append(append(out[:0], "*3\r\n$"...), strconv.Itoa(len(words[4]))...)
			out = append(append(append(out, "\r\n"...), words[4]...), "\r\n$2\r\nOK\r\n$2\r\nhi\r\n"...)
			conn.Write(out)
		}
	}()
	args := [][]byte{make([]byte, 100)}
	ended := make(chan error, 1)
	done := func(_ [][]byte, err error) { ended <- err }
	n := testing.AllocsPerRun(1000, func() {
		r.do(time.Now().Add(time.Minute), "echo", args, done)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if n -= 1; n > 4 { // one is of the test's server
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkPeer asks for 100 bytes with 3 KB, about what a search takes and gets, so many at a time.
func BenchmarkPeer(b *testing.B) {
	for _, flight := range []int{1, 16, 256} {
		b.Run(strconv.Itoa(flight), func(b *testing.B) {
			r := startLoopback(b)
			args := [][]byte{make([]byte, 3000)}
			var callers sync.WaitGroup
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			for range flight {
				callers.Go(func() {
					done := make(chan error, 1)
					for left.Add(-1) >= 0 {
						r.do(time.Now().Add(time.Second), "echo", args, func(_ [][]byte, err error) { done <- err })
						if err := <-done; err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			callers.Wait()
		})
	}
}
