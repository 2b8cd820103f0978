package loopback

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/scatterknn/scatter"
)

// The TCP protocol: payloads in the formats FTQ1 and FTR1, each with its length before it, in 4
// bytes.

// listener is a listener with the connections that it has accepted.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

// Close closes the connections too.
func (l *listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		conn.Close()
	}
	return err
}

func serveTCP(peer int) (string, io.Closer, error) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	reply := &scatter.Reply{Hits: hitsOf(peer)}
	l := &listener{Listener: inner}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			l.conns = append(l.conns, conn)
			l.mu.Unlock()
			go func() {
				defer conn.Close()
				_ = answerTCP(conn, reply) // which ends with the connection
			}()
		}
	}()
	return l.Addr().String(), l, nil
}

func answerTCP(conn net.Conn, reply *scatter.Reply) error {
	c := newFramed(conn)
	for {
		payload, err := c.read()
		if err != nil {
			return err
		}
		var req scatter.Request
		if err := req.UnmarshalBinary(payload); err != nil {
			return err
		}
		if err := c.write(reply); err != nil {
			return err
		}
	}
}

// framed is a connection that carries payloads.
type framed struct {
	net.Conn
	r       *bufio.Reader
	in, out []byte
}

func newFramed(conn net.Conn) *framed { return &framed{Conn: conn, r: bufio.NewReader(conn)} }

// read returns the next payload, which is good until the next call.
func (c *framed) read() ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(c.r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(length[:]))
	if n > 1<<20 {
		return nil, errors.New("a payload of more than 1 MiB")
	}
	if cap(c.in) < n {
		c.in = make([]byte, n)
	}
	_, err := io.ReadFull(c.r, c.in[:n])
	return c.in[:n], err
}

func (c *framed) write(payload interface{ AppendBinary([]byte) ([]byte, error) }) error {
	out, err := payload.AppendBinary(append(c.out[:0], 0, 0, 0, 0))
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	c.out = out
	_, err = c.Write(out)
	return err
}

// pool keeps the idle connections to one peer.
type pool struct {
	addr string
	mu   sync.Mutex
	idle []*framed
}

func (p *pool) get(ctx context.Context) (*framed, error) {
	p.mu.Lock()
	if last := len(p.idle) - 1; last >= 0 {
		c := p.idle[last]
		p.idle = p.idle[:last]
		p.mu.Unlock()
		return c, nil
	}
	p.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	return newFramed(conn), nil
}

func (p *pool) put(c *framed) {
	p.mu.Lock()
	p.idle = append(p.idle, c)
	p.mu.Unlock()
}

// pools are the pools of all peers.
type pools map[scatter.PeerID]*pool

func dialTCP(addrs map[scatter.PeerID]string) (scatter.Probe[Hit], io.Closer) {
	all := make(pools, len(addrs))
	for peer, addr := range addrs {
		all[peer] = &pool{addr: addr}
	}
	return all.probe, all
}

// probe is a [scatter.Probe]. A connection on which something went wrong isn't used again.
func (all pools) probe(ctx context.Context, peer scatter.PeerID, req *scatter.Request) ([]Hit, error) {
	p := all[peer]
	c, err := p.get(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline() // none: the zero time, which means none here too
	if err := c.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	var reply scatter.Reply
	if err := c.write(req); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	payload, err := c.read()
	if err == nil {
		err = reply.UnmarshalBinary(payload)
	}
	if !stop() || err != nil {
		return reply.Hits, errors.Join(err, c.Close())
	}
	p.put(c)
	return reply.Hits, nil
}

// Close closes the idle connections.
func (all pools) Close() error {
	for _, p := range all {
		p.mu.Lock()
		for _, c := range p.idle {
			c.Close()
		}
		p.idle = nil
		p.mu.Unlock()
	}
	return nil
}
