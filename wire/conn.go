// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Why a connection ends, besides what its network reports. None of it is told to the client.
var (
	errShutdown  = errors.New("the server stops")
	errNoLeader  = errors.New("the member has no leader")
	errOver      = errors.New("the session is over or was attached elsewhere")
	errSlow      = errors.New("the client does not take what it is sent")
	errFinished  = errors.New("finished")
	errBadFrame  = errors.New("frame without a header")
	errSuspended = errors.New("the leader does not confirm the session")
)

// conn is one connection of a client. Two goroutines serve it. The first reads requests, puts them into the queue and
// hands writes to the member; the second answers them in their order, and runs each read when its turn comes. Events
// are put in by the member, under its locks.
//
// A write is handed over only while no read waits before it: otherwise it might be applied, and the read would see it
// (CG-2). So when a read's turn comes, no write of this connection is under way.
type conn struct {
	srv    *Server
	nc     net.Conn // to read from and write to: TLS, if there is TLS
	raw    net.Conn // what it runs over; closing it never waits
	addr   netip.Addr
	port   port
	in     frames
	ctx    context.Context
	cancel context.CancelCauseFunc
	began  time.Time

	// Set by the handshake, under mu, before the second goroutine starts.
	session  *zk.Session
	listener *zk.Listener
	readOnly bool
	timeout  time.Duration

	armed time.Time // when the read deadline was last set; of the first goroutine
	until time.Time // if set, the deadline of the handshake

	// Of the second goroutine.
	out    []byte     // to be sent
	early  []*zk.Call // complete before their turn
	last   zk.Zxid    // the highest that the client was told
	closed bool       // the session was closed by its client

	graceful atomic.Bool // what was answered is to arrive
	leaving  atomic.Bool // the client has closed its session
	usage    usage

	wake chan struct{} // capacity 1: there are requests or events
	room chan struct{} // capacity 1: the queue has shrunk
	done chan *zk.Call // of writes; made with the first one

	mu       sync.Mutex // guards the fields below
	queue    queue
	flying   int  // writes handed over and not answered
	waiting  bool // the first goroutine waits for room
	draining bool // no request is read any more

	events eventQueue
}

// maxFlying is how many writes of one connection are under way at once: done has room for as many.
const maxFlying = 256

func newConn(s *Server, nc net.Conn, addr netip.Addr, p port) *conn {
	c := &conn{srv: s, nc: nc, raw: nc, addr: addr, port: p, wake: make(chan struct{}, 1), room: make(chan struct{}, 1), began: time.Now()}
	c.ctx, c.cancel = context.WithCancelCause(s.life)
	c.until = c.began.Add(s.limits.Handshake)
	c.in = frames{from: nc, limit: s.limits.Frame, arm: c.arm}
	c.events.limit = s.limits.Queued
	if t, ok := nc.(*tls.Conn); ok {
		c.raw = t.NetConn()
	}
	c.usage.begin(c.began)
	return c
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// end cuts the connection off. It may be called from anywhere, also by the member under its locks, and again.
func (c *conn) end(why error) {
	c.cancel(why)
	c.raw.Close()
}

// drain lets the requests that were read be answered, and reads no more.
func (c *conn) drain() {
	c.mu.Lock()
	idle := c.listener == nil
	c.draining = true
	c.mu.Unlock()
	if idle {
		c.end(errShutdown)
		return
	}
	c.raw.SetReadDeadline(past) // wakes the first goroutine
	signal(c.wake)
	signal(c.room)
}

func (c *conn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// serve is the first goroutine.
func (c *conn) serve() {
	defer c.end(errFinished)
	defer c.srv.protect(c)
	if !c.open() {
		return
	}
	var answers sync.WaitGroup
	answers.Go(c.answer)
	err := c.read()
	if err != nil && !c.graceful.Load() && !c.isDraining() {
		c.end(err)
	}
	answers.Wait()
	c.in.release()
	if !c.closed {
		c.listener.Detach()
	}
	c.srv.farewell(c, context.Cause(c.ctx))
	if c.graceful.Load() {
		c.linger()
	}
}

// arm sets the deadline of the next read. It is not moved for each of them: that would cost more than the read.
func (c *conn) arm() error {
	if !c.until.IsZero() {
		return c.raw.SetReadDeadline(c.until)
	}
	if now := time.Now(); now.Sub(c.armed) > c.timeout/8 {
		c.armed = now
		if err := c.raw.SetReadDeadline(now.Add(c.timeout + c.timeout/8)); err != nil {
			return err
		}
	}
	if c.isDraining() { // asked after the deadline is set: drain sets its own after it says so
		return errShutdown
	}
	return nil
}

// read takes requests in until the connection ends, or is to be ended.
func (c *conn) read() error {
	defer c.srv.protect(c)
	for {
		frame, err := c.in.next()
		if err != nil {
			return err
		}
		c.listener.Touch()
		c.usage.received()
		c.srv.stats.received.Add(1)
		if len(frame) < 8 {
			return errBadFrame
		}
		r := decodeRequest(frame)
		r.at = time.Now()
		last := r.last
		if err := c.push(&r); err != nil || last {
			return err
		}
	}
}

// push puts a request into the queue, once there is room.
func (c *conn) push(r *request) error {
	for {
		ok, err := c.tryPush(r)
		if ok || err != nil {
			return err
		}
		select {
		case <-c.room:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
}

// tryPush is push where there is room; a write is handed over at once if no read waits before it.
func (c *conn) tryPush(r *request) (bool, error) {
	limits, outstanding := &c.srv.limits, &c.srv.stats.outstanding
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.queue.len()
	switch {
	case c.draining:
		return false, errShutdown
	case n > 0 && (n >= limits.Requests || c.queue.bytes+r.size > limits.Queued || outstanding.Load() >= int64(limits.InFlight)):
		c.waiting = true
		return false, nil
	}
	outstanding.Add(1)
	c.queue.push(r)
	if r.kind == kindWrite {
		c.submitLocked()
	}
	signal(c.wake)
	return true, nil
}

// submitLocked hands over the writes before the first read in the queue.
func (c *conn) submitLocked() {
	for i := c.queue.unsent; i < c.queue.len() && c.flying < maxFlying; i++ {
		r := c.queue.at(i)
		if r.kind == kindRead {
			return
		}
		if r.kind == kindWrite {
			if c.done == nil {
				c.done = make(chan *zk.Call, maxFlying)
			}
			r.call = c.submit(r)
			c.flying++
		}
		c.queue.unsent = i + 1
	}
}

// submit hands over a write. If it is to make ephemerals for a local session, and may, the ensemble hears of the session
// first (SS-23).
func (c *conn) submit(r *request) *zk.Call {
	if c.srv.UpgradeLocalSessions && r.ephemeral() {
		if err := c.listener.Upgrade(c.ctx); err != nil {
			call := &zk.Call{Ops: r.ops, Error: err}
			c.done <- call // it has room for every write under way
			return call
		}
	}
	return c.listener.Go(c.ctx, c.done, r.ops...)
}

// head returns a copy of the oldest request, having handed it over if it is a write. Where there is none it returns the
// events that are there: whatever is asked for from now on comes after them.
func (c *conn) head() (r request, ok bool, events []zk.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue.len() == 0 {
		return r, false, c.events.take(maxZxid)
	}
	if r := c.queue.at(0); r.kind == kindWrite && r.call == nil {
		c.submitLocked()
	}
	return *c.queue.at(0), true, nil
}

// pop takes the oldest request off, now that it is answered, and hands over the writes that waited for it.
func (c *conn) pop() {
	c.srv.stats.outstanding.Add(-1)
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.queue.pop()
	switch r.kind {
	case kindRead:
		c.submitLocked()
	case kindWrite:
		if c.flying--; c.flying == maxFlying/2 || c.flying == 0 {
			c.submitLocked()
		}
	}
	if c.waiting {
		c.waiting = false
		signal(c.room)
	}
}

// answer is the second goroutine.
func (c *conn) answer() {
	defer c.srv.protect(c)
	defer c.abandon()
	for c.ctx.Err() == nil {
		r, ok, events := c.head()
		if !ok {
			c.tell(events)
			if c.isDraining() {
				c.finish()
				return
			}
			if !c.flush() {
				return
			}
			select {
			case <-c.wake:
			case <-c.ctx.Done():
			}
			continue
		}
		if r.kind == kindWrite && !c.await(r.call) {
			return
		}
		more := c.reply(&r)
		c.pop()
		if !more {
			return
		}
		if len(c.out) >= flushAt && !c.flush() {
			return
		}
	}
}

// abandon counts what will not be answered.
func (c *conn) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.srv.stats.outstanding.Add(-int64(c.queue.len()))
	c.queue = queue{}
	c.draining = true
	signal(c.room)
	c.events.drop()
}

// await returns once a write is complete. Before it waits it sends what there is.
func (c *conn) await(call *zk.Call) bool {
	for {
		for i, e := range c.early {
			if e == call {
				c.early = append(c.early[:i], c.early[i+1:]...)
				return true
			}
		}
		var got *zk.Call
		select {
		case got = <-c.done:
		default:
			if !c.flush() {
				return false
			}
			select {
			case got = <-c.done:
			case <-c.ctx.Done():
				return false
			}
		}
		if got == call {
			return true
		}
		c.early = append(c.early, got) // it was refused at once
	}
}

// flushAt is how many bytes of answers make up a write; fewer are sent when nothing more can be answered at once.
const flushAt = 64 << 10

// flush sends what is to be sent.
func (c *conn) flush() bool {
	if len(c.out) == 0 {
		return c.ctx.Err() == nil
	}
	err := send(c.nc, c.out)
	if cap(c.out) == writeChunk {
		writePool.Put((*[writeChunk]byte)(c.out[:writeChunk]))
	}
	c.out = nil
	if err != nil {
		c.end(err)
	}
	return err == nil
}

const writeChunk = 16 << 10

var writePool = sync.Pool{New: func() any { return new([writeChunk]byte) }}

// buffer makes sure that there is a buffer to append to.
func (c *conn) buffer() {
	if c.out == nil {
		c.out = writePool.Get().(*[writeChunk]byte)[:0]
	}
}

// finish sends what there is and ends the connection so that it arrives.
func (c *conn) finish() {
	if c.flush() {
		c.graceful.Store(true)
		c.drain()
	}
}

var past = time.Unix(1, 0)

// linger waits, for a short time, until the client has hung up: closing a socket with unread bytes would take back what
// was sent.
func (c *conn) linger() {
	if t, ok := c.nc.(interface{ CloseWrite() error }); ok {
		t.CloseWrite()
		c.raw.SetReadDeadline(time.Now().Add(lingerFor))
		io.CopyN(io.Discard, c.raw, lingerBytes)
	}
}

const (
	lingerFor   = 200 * time.Millisecond
	lingerBytes = 1 << 20
)
