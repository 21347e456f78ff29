// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-541fafe0/zk"
)

var (
	errNilContext = errors.New("nil context")
	errLost       = errors.New("connection lost")
	errLegacy     = errors.New("not with ClientConfig.Legacy")
)

// clientRequest is what a method asks the connection for.
type clientRequest struct {
	op   opcode
	name string // of the operation, for errors
	path string // as the caller gave it, for errors
	size int    // roughly, of the body
	read bool   // changes nothing: may be repeated

	body   func([]byte) []byte // appends the body; called under the client's lock
	decode func(*decoder)      // reads the body of a good reply; nil if there is none

	// register sets the watch that the request asked for. It is called under the client's lock, before any event
	// that follows the reply is looked at. watch is the path of that watch.
	register func(zk.Code)
	watch    string

	accepted func() // is called under the client's lock when the answer is good; nil if nothing hangs on it
}

// clientCall is a request under way on one connection.
type clientCall struct {
	op       opcode
	xid      int32
	size     int // what it takes of the window; 0 for the client's own
	sent     bool
	decode   func(*decoder)
	register func(zk.Code)
	watch    string
	accepted func()

	// done is closed when the fields below are set; nil if nobody asks.
	done chan struct{}
	code zk.Code
	zxid zk.Zxid
	err  error // wraps errLost, or says what was wrong with the reply
}

func (k *clientCall) finish() {
	if k.done != nil {
		close(k.done)
	}
}

// knows reports whether the client may send an opcode: with Legacy those of ZooKeeper 3.4 alone.
func (c *Client) knows(op opcode) bool {
	return !c.cfg.Legacy || op < opCreate2 || op == opAuth || op == opSetWatches || op == opSASL
}

// do sends a request and waits for its answer. A read is repeated when its connection breaks; so is what never left.
func (c *Client) do(ctx context.Context, q clientRequest) error {
	_, err := c.exchange(ctx, q)
	return err
}

func (c *Client) exchange(ctx context.Context, q clientRequest) (zk.Zxid, error) {
	if ctx == nil {
		return 0, &zk.Error{Op: q.name, Path: q.path, Code: zk.ErrBadArguments, Err: errNilContext}
	}
	if !c.knows(q.op) {
		return 0, &zk.Error{Op: q.name, Path: q.path, Code: zk.ErrUnimplemented, Err: errLegacy}
	}
	size := q.size + 64
	if err := c.acquire(ctx, size); err != nil {
		return 0, c.refused(ctx, q, err)
	}
	for {
		call := &clientCall{op: q.op, size: size, decode: q.decode, register: q.register, watch: q.watch, accepted: q.accepted, done: make(chan struct{})}
		if err := c.send(ctx, call, q.body); err != nil {
			c.release(size)
			return 0, c.refused(ctx, q, err)
		}
		select {
		case <-call.done:
		case <-ctx.Done():
			return 0, &zk.Error{Op: q.name, Path: q.path, Code: zk.ErrUnavailable, Err: clientCause(ctx), MaybeApplied: !q.read}
		}
		switch {
		case call.err == nil && call.code == 0:
			return call.zxid, nil
		case call.err == nil:
			return call.zxid, &zk.Error{Op: q.name, Path: q.path, Code: call.code}
		case !errors.Is(call.err, errLost):
			return 0, &zk.Error{Op: q.name, Path: q.path, Code: zk.ErrMarshalling, Err: call.err, MaybeApplied: !q.read}
		case q.read || !call.sent:
			if err := c.acquire(ctx, size); err != nil {
				return 0, c.refused(ctx, q, err)
			}
		default:
			code := zk.ErrUnavailable
			if err := c.Err(); err != nil {
				code = clientCode(err)
			}
			return 0, &zk.Error{Op: q.name, Path: q.path, Code: code, Err: call.err, MaybeApplied: true}
		}
	}
}

// refused tells why a request was not sent.
func (c *Client) refused(ctx context.Context, q clientRequest, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return &zk.Error{Op: q.name, Path: q.path, Code: zk.ErrUnavailable, Err: clientCause(ctx)}
	}
	return &zk.Error{Op: q.name, Path: q.path, Code: clientCode(err)}
}

// send hands a call to the connection, and waits for one where there is none.
func (c *Client) send(ctx context.Context, call *clientCall, body func([]byte) []byte) error {
	for {
		c.mu.Lock()
		if c.err != nil || c.closing {
			err := c.err
			c.mu.Unlock()
			if err == nil {
				err = zk.ErrClosed
			}
			return err
		}
		if c.conn != nil {
			defer c.mu.Unlock()
			if n := c.conn.add(call, c.nextXid(call.op), body); n > c.cfg.MaxFrame {
				c.conn.withdraw(call, n)
				return zk.ErrTooLarge
			}
			if call.register != nil {
				c.watches.pending[call.watch]++
			}
			return nil
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nextXid numbers a request. c.mu is held.
func (c *Client) nextXid(op opcode) int32 {
	switch op {
	case opPing:
		return xidPing
	case opAuth:
		return xidAuth
	}
	if c.xid++; c.xid <= 0 {
		c.xid = 1
	}
	return c.xid
}

func noBody(b []byte) []byte { return b }

// clientWindow bounds what is under way: requests and their bytes.
type clientWindow struct {
	calls, bytes int // what is left
	waiting      []*clientWaiter
}

type clientWaiter struct {
	size  int
	ready chan struct{}
}

func (w *clientWindow) fits(size int, max int) bool {
	return w.calls > 0 && (w.bytes >= size || w.bytes == max) // one that is longer than the window goes alone
}

// acquire takes a place in the window; those who wait get theirs in turn.
func (c *Client) acquire(ctx context.Context, size int) error {
	c.mu.Lock()
	w := &c.window
	if len(w.waiting) == 0 && w.fits(size, c.cfg.MaxOutstandingBytes) {
		w.calls--
		w.bytes -= size
		c.mu.Unlock()
		return nil
	}
	me := &clientWaiter{size, make(chan struct{})}
	w.waiting = append(w.waiting, me)
	c.mu.Unlock()
	var err error
	select {
	case <-me.ready:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.over:
		err = c.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, other := range w.waiting {
		if other == me {
			w.waiting = append(w.waiting[:i], w.waiting[i+1:]...)
			c.admit()
			return err
		}
	}
	c.releaseLocked(size) // it became ready in the same moment
	return err
}

func (c *Client) release(size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releaseLocked(size)
}

func (c *Client) releaseLocked(size int) {
	if size == 0 {
		return
	}
	c.window.calls++
	c.window.bytes += size
	c.admit()
}

func (c *Client) admit() {
	w := &c.window
	for len(w.waiting) > 0 && w.fits(w.waiting[0].size, c.cfg.MaxOutstandingBytes) {
		w.calls--
		w.bytes -= w.waiting[0].size
		close(w.waiting[0].ready)
		w.waiting[0] = nil
		w.waiting = w.waiting[1:]
	}
}

// clientCode finds the code in err.
func clientCode(err error) zk.Code {
	if code, ok := errors.AsType[zk.Code](err); ok {
		return code
	}
	return zk.ErrUnavailable
}

// clientCause joins the context's error and its cause, so that both can be asked for.
func clientCause(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
