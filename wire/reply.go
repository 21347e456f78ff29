// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/seed-541fafe0/zk"
)

const maxZxid = zk.Zxid(math.MaxInt64)

// codeOf is the code of an error of package zk.
func codeOf(err error) zk.Code {
	if err == nil {
		return 0
	}
	if c, ok := errors.AsType[zk.Code](err); ok {
		return c
	}
	return zk.ErrSystem
}

// silent tells whether an error ends the connection without an answer: the client is to go on elsewhere, or with a new
// connection, and what it asked for may or may not have happened (WP-28, WP-34, WP-16).
func silent(code zk.Code) bool {
	switch code {
	case zk.ErrSessionMoved, zk.ErrClosed, zk.ErrUnavailable, zk.ErrSuspended, zk.ErrNotMember, zk.ErrWiped, zk.ErrStalled, zk.ErrUnknownSession, zk.ErrTimeout:
		return true
	}
	return false
}

// visible turns a code into one that clients know: ours are not told to anybody (D25).
func visible(code zk.Code) zk.Code {
	switch {
	case code == zk.ErrTooLarge:
		return zk.ErrBadArguments
	case code <= -1000:
		return zk.ErrSystem
	}
	return code
}

// reply appends the answer to a request whose turn has come, and the events that belong before it: those up to its zxid,
// so that a client hears of a change before it can read it, and never of a later one before an earlier answer (WT-20,
// CG-9). It reports whether the connection goes on.
func (c *conn) reply(r *request) bool {
	o := operations[r.op]
	if o != nil && o.slow && !c.flush() {
		return false
	}
	c.buffer()
	start := len(c.out)
	c.out = append(c.out, make([]byte, 4+replyHeaderSize)...)
	body := len(c.out)
	code, zxid := r.code, zk.Zxid(0)
	switch {
	case code != 0:
	case r.kind == kindWrite:
		zxid, code = r.call.Zxid, codeOf(r.call.Error)
		switch {
		case r.op == opMulti && (code == 0 || len(r.call.Codes) > 0):
			c.out, code = appendMulti(c.out, r, r.call), 0
		case code == 0 && o.wrote != nil:
			c.out = o.wrote(c.out, r, r.call.Results)
		}
	default:
		var err error
		c.out, zxid, err = o.read(c, r, c.out)
		code = codeOf(err)
	}
	if silent(code) {
		c.out = c.out[:start]
		c.flush()
		c.end(errOver)
		return false
	}
	if code != 0 {
		c.out = c.out[:body] // an error has no body (WP-20)
	}
	if zxid == 0 {
		zxid = c.applied()
	}
	zxid = max(zxid, c.last)
	if events := c.events.take(zxid); len(events) > 0 {
		var b []byte
		for i := range events {
			b = c.appendEvent(b, &events[i])
		}
		c.out = slices.Insert(c.out, start, b...)
		start += len(b)
	}
	c.last = zxid
	shown := zxid
	if r.op == opAuth || r.op == opSASL { // WP-40
		shown = 0
	}
	binary.BigEndian.PutUint32(c.out[start:], uint32(len(c.out)-start-4))
	replyHeader{r.xid, int64(shown), visible(code)}.append(c.out[start+4 : start+4 : start+4+replyHeaderSize])
	c.account(r, code, zxid, len(c.out)-start)

	if r.last || code == zk.ErrAuthFailed || code == zk.ErrAuthRequired {
		if r.code != 0 || r.op == opAuth {
			c.srv.broke(c, brokeRequest(r, code))
		}
		c.finish()
		return false
	}
	return true
}

// applied is the zxid for an answer that has none of its own: what the member has applied, and the client may know. While
// writes of this connection are under way, events behind them are held back, and so is the zxid. None may be handed over
// before the member has said what it has applied.
func (c *conn) applied() zk.Zxid {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flying > 0 {
		return c.last
	}
	return c.srv.Member.Applied()
}

// tell appends events.
func (c *conn) tell(events []zk.Event) {
	if len(events) == 0 {
		return
	}
	c.buffer()
	for i := range events {
		c.out = c.appendEvent(c.out, &events[i])
		c.last = max(c.last, events[i].Zxid)
	}
}

// appendEvent appends an event's frame (WP-22, WT-17, WT-18).
func (c *conn) appendEvent(b []byte, ev *zk.Event) []byte {
	e := watcherEvent{eventKind(ev.Type), stateConnected, ev.Path}
	size := replyHeaderSize + 12 + len(ev.Path)
	b = appendInt(b, int32(size))
	b = replyHeader{xid: xidEvent, zxid: int64(ev.Zxid)}.append(b)
	c.usage.sent()
	c.srv.stats.sent.Add(1)
	c.srv.stats.bytesTold.Add(int64(4 + size))
	return e.append(b)
}

// hear takes an event from the member. It is called under the member's locks.
func (c *conn) hear(ev zk.Event) {
	if ev.Type == zk.EventSession {
		if !c.leaving.Load() {
			c.end(errOver)
		}
		return
	}
	if !c.events.add(ev) {
		c.end(errSlow)
		return
	}
	signal(c.wake)
}

// account counts an answer.
func (c *conn) account(r *request, code zk.Code, zxid zk.Zxid, size int) {
	took := time.Since(r.at)
	c.usage.answered(r, zxid, took)
	if c.srv.stats.answered(r, code, took, size) {
		c.srv.noise.say("answer of more than 1 MiB: many clients do not take it", c.addr) // DM-92
	}
}
