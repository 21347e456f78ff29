// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// clientConn is one connection of a Client. Its lists are guarded by the client's lock.
type clientConn struct {
	nc       net.Conn
	server   string
	readOnly bool
	timeout  time.Duration
	wake     chan struct{} // of the writer; holds one

	out    []byte        // frames to be written
	unsent []*clientCall // those whose frames are in out

	// What waits for an answer, in the order of sending. Auths and pings may be answered out of turn (WP-40).
	replies, auths, pings []*clientCall
}

// patience is how long a server may be silent, or take nothing (SS-33).
func (cn *clientConn) patience() time.Duration { return max(cn.timeout*2/3, 30*time.Millisecond) }

// add appends a request to what will be written and returns the length of its frame. c.mu is held.
func (cn *clientConn) add(call *clientCall, xid int32, body func([]byte) []byte) int {
	call.xid = xid
	start := len(cn.out)
	cn.out = requestHeader{xid, call.op}.append(appendInt(cn.out, 0))
	cn.out = body(cn.out)
	n := len(cn.out) - start - 4
	binary.BigEndian.PutUint32(cn.out[start:], uint32(n))
	cn.unsent = append(cn.unsent, call)
	q := cn.queue(xid)
	*q = append(*q, call)
	select {
	case cn.wake <- struct{}{}:
	default:
	}
	return n
}

// withdraw takes back the call that was added last, with its frame of n bytes. c.mu is still held.
func (cn *clientConn) withdraw(call *clientCall, n int) {
	cn.out = cn.out[:len(cn.out)-4-n]
	cn.unsent = cn.unsent[:len(cn.unsent)-1]
	q := cn.queue(call.xid)
	*q = (*q)[:len(*q)-1]
}

func (cn *clientConn) queue(xid int32) *[]*clientCall {
	switch xid {
	case xidAuth:
		return &cn.auths
	case xidPing:
		return &cn.pings
	}
	return &cn.replies
}

// run keeps a connection until the client is over.
func (c *Client) run() {
	defer close(c.stopped)
	for failed := 0; c.ctx.Err() == nil; {
		server := c.nextServer()
		began := time.Now()
		cn, err := c.connect(server)
		if err == nil {
			err = c.serve(cn)
		}
		c.disconnected(server, err)
		if failed++; cn != nil && time.Since(began) > time.Second {
			failed = 0 // but a server that accepts and drops at once is not asked again at once
		}
		if failed < len(c.cfg.Servers) {
			continue // the others are worth a try at once
		}
		pause := min(50*time.Millisecond<<min(failed/len(c.cfg.Servers), 6), time.Second)
		wait := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-wait.C:
		case <-c.ctx.Done():
			wait.Stop()
		}
	}
}

// nextServer takes the first of the list and puts it last.
func (c *Client) nextServer() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.cfg.Servers[0]
	c.cfg.Servers = append(c.cfg.Servers[1:], s)
	return s
}

func (c *Client) disconnected(server string, err error) {
	c.log.Debug("not connected", "server", server, "err", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state <= zk.StateSuspended {
		c.failure = fmt.Errorf("%s: %w", server, err)
	}
}

func (c *Client) lastFailure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// dial opens a connection, over TLS if asked for.
func (c *Client) dial(ctx context.Context, server string) (net.Conn, error) {
	nc, err := c.cfg.Dial(ctx, server)
	if err != nil || c.cfg.TLS == nil {
		return nc, err
	}
	conf := c.cfg.TLS
	if conf.ServerName == "" && !conf.InsecureSkipVerify {
		conf = conf.Clone()
		if conf.ServerName, _, err = net.SplitHostPort(server); err != nil {
			nc.Close()
			return nil, err
		}
	}
	tc := tls.Client(nc, conf)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

// connect opens a connection and attaches the session to it (section 3 of docs/spec/wire-protocol.md).
func (c *Client) connect(server string) (*clientConn, error) {
	c.mu.Lock()
	patience := max(c.timeout/time.Duration(len(c.cfg.Servers)), time.Second)
	q := connectRequest{lastZxid: int64(c.seen), timeout: int32(min(max(c.cfg.Timeout.Milliseconds(), 1), 1<<31-1)),
		password: make([]byte, passwordSize), readOnly: c.cfg.ReadOnly, hasRO: true}
	if c.wasRW {
		q.session, q.password = int64(c.id), c.password
	}
	c.mu.Unlock()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	nc, err := c.dial(ctx, server)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	r, err := clientHandshake(nc, &q)
	if err != nil {
		nc.Close()
		return nil, errors.Join(err, ctx.Err())
	}
	if r.session == 0 || r.timeout <= 0 {
		nc.Close()
		if q.session != 0 {
			c.finish(zk.StateExpired, zk.ErrSessionExpired)
		}
		return nil, zk.ErrSessionExpired
	}
	cn := &clientConn{nc: nc, server: server, readOnly: r.readOnly, timeout: time.Duration(r.timeout) * time.Millisecond, wake: make(chan struct{}, 1)}

	if !c.attach(cn, r) {
		nc.Close()
		return nil, zk.ErrClosed
	}
	c.log.Debug("connected", "server", server, "session", zk.SessionID(r.session), "timeout", cn.timeout, "readonly", cn.readOnly)
	return cn, nil
}

// attach makes cn the connection that requests go to, after what it has to begin with (WP-80).
func (c *Client) attach(cn *clientConn, r connectResponse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state > zk.StateSuspended || c.closing {
		return false
	}
	again := c.id != 0
	c.id, c.password, c.timeout = zk.SessionID(r.session), bytes.Clone(r.password), cn.timeout
	c.wasRW = c.wasRW || !r.readOnly
	for _, a := range c.auth {
		cn.add(&clientCall{op: opAuth}, xidAuth, authBody(a))
	}
	c.watches.restore(cn, c.seen)
	c.conn, c.state = cn, zk.StateActive
	c.broadcast()
	if again {
		c.watches.resync()
	}
	return true
}

func clientHandshake(nc net.Conn, q *connectRequest) (r connectResponse, err error) {
	frame := q.append(appendInt(nil, 0))
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	if _, err := nc.Write(frame); err != nil {
		return r, err
	}
	// Not a byte beyond the frame may be taken.
	b, _, err := readReplyFrame(nc, nil, 1<<10)
	if err != nil {
		return r, err
	}
	return r, r.decode(&decoder{b: b})
}

// serve runs a connection until it breaks and fails what is still under way on it.
func (c *Client) serve(cn *clientConn) error {
	ctx, broken := context.WithCancel(c.ctx)
	var others sync.WaitGroup
	others.Go(func() { c.writeTo(ctx, cn) })
	if cn.readOnly {
		others.Go(func() { c.seekReadWrite(ctx, cn) })
	}
	err := c.readFrom(cn)
	c.mu.Lock()
	c.conn = nil // nothing more is put onto it
	if c.state == zk.StateActive {
		c.state = zk.StateSuspended
	}
	c.broadcast()
	c.mu.Unlock()
	cn.nc.Close()
	broken()
	others.Wait()

	lost := fmt.Errorf("%w: %w", errLost, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range [...][]*clientCall{cn.replies, cn.auths, cn.pings} {
		for _, call := range q {
			call.err = lost
			c.complete(call)
		}
	}
	return err
}

// complete ends a call. c.mu is held.
func (c *Client) complete(call *clientCall) {
	if call.register != nil {
		if c.watches.pending[call.watch]--; c.watches.pending[call.watch] == 0 {
			delete(c.watches.pending, call.watch)
		}
		if call.err == nil {
			call.register(call.code)
		}
	}
	if call.accepted != nil && call.err == nil && call.code == 0 {
		call.accepted()
	}
	c.releaseLocked(call.size)
	call.finish()
}

// writeTo writes what is in cn.out, and a ping after some silence (SS-33).
func (c *Client) writeTo(ctx context.Context, cn *clientConn) {
	quiet := max(min(cn.timeout/3, 10*time.Second), 10*time.Millisecond)
	idle := time.NewTimer(quiet)
	defer idle.Stop()
	var spare []byte
	for {
		c.mu.Lock()
		out := cn.out
		cn.out = spare[:0]
		for i, call := range cn.unsent {
			call.sent = true
			cn.unsent[i] = nil
		}
		cn.unsent = cn.unsent[:0]
		c.mu.Unlock()
		if len(out) > 0 {
			cn.nc.SetWriteDeadline(time.Now().Add(cn.patience()))
			if _, err := cn.nc.Write(out); err != nil {
				cn.nc.Close() // the reader sees that
				return
			}
			idle.Reset(quiet)
		}
		if spare = out; cap(spare) > 1<<20 {
			spare = nil
		}
		select {
		case <-cn.wake:
		case <-idle.C:
			c.mu.Lock()
			cn.add(&clientCall{op: opPing}, xidPing, noBody)
			c.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// readFrom handles what the server sends until the connection breaks.
func (c *Client) readFrom(cn *clientConn) error {
	br := bufio.NewReaderSize(cn.nc, 16<<10)
	var buf []byte
	for {
		cn.nc.SetReadDeadline(time.Now().Add(cn.patience()))
		frame, next, err := readReplyFrame(br, buf, c.cfg.MaxReply)
		if err != nil {
			return err
		}
		buf = next
		if err := c.handle(cn, frame); err != nil {
			return err
		}
	}
}

// readReplyFrame reads one frame of at most limit bytes. It uses buf where that is large enough and returns what to give
// it the next time. A length that is not true costs no memory: a long frame is read as it comes.
func readReplyFrame(r io.Reader, buf []byte, limit int) (frame, next []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, buf, err
	}
	n := int(int32(binary.BigEndian.Uint32(head[:])))
	if n < 0 || n > limit {
		return nil, buf, fmt.Errorf("%w: %d bytes", errFrameTooLarge, n)
	}
	const small = 64 << 10
	if n > small {
		var long bytes.Buffer
		if _, err := io.CopyN(&long, r, int64(n)); err != nil {
			return nil, buf, err
		}
		return long.Bytes(), buf, nil
	}
	if cap(buf) < n {
		buf = make([]byte, max(n, 4<<10))
	}
	_, err = io.ReadFull(r, buf[:n])
	return buf[:n], buf, err
}

// handle acts on one frame. An error ends the connection.
func (c *Client) handle(cn *clientConn, frame []byte) error {
	d := &decoder{b: frame}
	var h replyHeader
	h.decode(d)
	if d.err != nil {
		return d.err
	}
	if h.xid == xidEvent {
		var e watcherEvent
		e.decode(d)
		if d.err != nil {
			return d.err
		}
		if ev, ok := e.event(h.zxid); ok {
			c.mu.Lock()
			c.watches.deliver(c, ev)
			c.mu.Unlock()
		}
		return nil
	}
	c.mu.Lock()
	q := cn.queue(h.xid)
	if len(*q) == 0 || (*q)[0].xid != h.xid {
		c.mu.Unlock()
		return fmt.Errorf("%w: reply to %d out of turn", errMalformed, h.xid)
	}
	call := (*q)[0]
	(*q)[0] = nil
	*q = (*q)[1:]
	c.mu.Unlock()

	call.code, call.zxid = h.code, zk.Zxid(h.zxid)
	if h.code == 0 && call.decode != nil {
		if call.decode(d); d.err != nil {
			call.err = d.err
		}
	}
	c.mu.Lock()
	if call.zxid > c.seen {
		c.seen = call.zxid
	}
	c.complete(call)
	c.mu.Unlock()
	switch {
	case call.err != nil:
		return call.err
	case h.code != 0 && call.op == opAuth:
		c.finish(zk.StateClosed, zk.ErrAuthFailed) // the server closes, and would refuse again (DM-111)
		return h.code
	case h.code != 0 && (call.op == opSetWatches || call.op == opSetWatches2):
		return fmt.Errorf("watches cannot be set again: %w", h.code) // better none than a watch that never hears
	}
	return nil
}

// seekReadWrite asks the other servers whether they serve writes, and leaves a read-only one for the first that does
// (SS-30).
func (c *Client) seekReadWrite(ctx context.Context, cn *clientConn) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Minute) {
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		c.mu.Lock()
		server := c.cfg.Servers[0]
		if server != cn.server || len(c.cfg.Servers) == 1 {
			c.mu.Unlock()
			if c.servesWrites(ctx, server) {
				cn.nc.Close()
				return
			}
			c.mu.Lock()
		}
		c.cfg.Servers = append(c.cfg.Servers[1:], server)
		c.mu.Unlock()
	}
}

// servesWrites sends a server the word isro.
func (c *Client) servesWrites(ctx context.Context, server string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	nc, err := c.dial(ctx, server)
	if err != nil {
		return false
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	go func() {
		select {
		case <-ctx.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	if _, err := io.WriteString(nc, "isro"); err != nil {
		return false
	}
	answer, _ := io.ReadAll(io.LimitReader(nc, 16))
	return string(bytes.TrimSpace(answer)) == "rw"
}
