// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"github.com/seed-541fafe0/zk"
)

// open is the beginning of a connection: TLS, a four-letter word, or the handshake. It reports whether the client has a
// session now.
func (c *conn) open() bool {
	err := c.secure()
	var first []byte
	if err == nil {
		first, err = c.in.peek(4)
	}
	switch {
	case err != nil:
		// A client that hung up before it said anything broke no rule: tools probe the port so.
		if !errors.Is(err, io.EOF) && c.ctx.Err() == nil {
			c.srv.unasked(c, "no request", err)
		}
		return false
	case isWord(first):
		c.word(string(first))
		return false
	}
	if n := binary.BigEndian.Uint32(first); n > uint32(c.srv.limits.Frame) {
		c.srv.broke(c, "first frame is too long")
		return false
	}
	var q connectRequest
	frame, err := c.in.next()
	if err == nil {
		err = q.decode(&decoder{b: frame})
	}
	if err != nil {
		if c.ctx.Err() == nil {
			c.srv.unasked(c, "connect request", err)
		}
		return false
	}
	c.usage.received()
	c.srv.stats.received.Add(1)
	return c.connect(&q)
}

// catchUp is how long a client is kept waiting that has seen more than this member has applied; then it is sent away
// (SS-17).
const catchUp = 200 * time.Millisecond

// connect opens a session, or attaches one (WP-13, WP-14).
func (c *conn) connect(q *connectRequest) bool {
	s, m := c.srv, c.srv.Member
	s.stats.asked(q.session)
	ctx, cancel := context.WithDeadline(c.ctx, c.until)
	defer cancel()
	now := s.state.now()
	if now == servingNothing || now == servingReadOnly && (!q.readOnly || q.session != 0) {
		return false
	}
	if q.lastZxid > int64(m.Applied()) {
		short, cancel := context.WithTimeout(ctx, catchUp)
		defer cancel()
		if m.WaitZxid(short, zk.Zxid(q.lastZxid)) != nil {
			return false
		}
	}
	cfg := zk.SessionConfig{
		Timeout: max(time.Duration(q.timeout)*time.Millisecond, time.Millisecond), // WP-12
		Name:    "zookeeper " + c.addr.String(), Auth: c.identities(), External: true, Events: c.hear,
	}
	var session *zk.Session
	var err error
	switch {
	case now == servingReadOnly:
		session, err = m.ReadOnlySession(cfg)
	case q.session == 0 && s.LocalSessions:
		session, err = m.LocalSession(cfg)
	case q.session == 0:
		session, err = m.NewSession(ctx, cfg)
	default:
		session, err = m.Attach(ctx, zk.SessionID(q.session), q.password, cfg)
	}
	res := connectResponse{password: make([]byte, passwordSize), hasRO: q.hasRO}
	if err == nil {
		c.mu.Lock()
		c.session, c.listener, c.timeout, c.readOnly = session, session.Listener(), session.Timeout(), now == servingReadOnly
		late := c.draining
		c.mu.Unlock()
		res.timeout, res.session, res.password = int32(c.timeout.Milliseconds()), int64(session.ID()), c.listener.Password()
		res.readOnly = c.readOnly
		c.until = time.Time{}
		if late || !s.state.still(now) { // it was told to end, or ended, while nobody looked
			c.end(errNoLeader)
		}
	} else if code := codeOf(err); code != zk.ErrSessionExpired && code != zk.ErrAuthFailed {
		return false
	}
	c.usage.connected(m.Applied())
	c.buffer()
	b := res.append(append(c.out, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	c.out = b
	s.stats.sent.Add(1)
	if err != nil { // WP-14
		s.stats.refused.Add(1)
		if codeOf(err) == zk.ErrAuthFailed {
			s.broke(c, "wrong password for session "+zk.SessionID(q.session).String())
		}
		c.flush()
		c.linger()
		return false
	}
	return true // the response goes out with the first answers, or at once
}

// identities are what is known of a client before it says anything: its address (DM-108) and its certificate (DM-109).
func (c *conn) identities() (list []zk.Auth) {
	if c.addr.IsValid() {
		list = append(list, zk.Auth{Scheme: "ip", Cred: []byte(c.addr.String())})
	}
	if dn := subjectOf(c.nc); dn != "" {
		list = append(list, zk.Auth{Scheme: "x509", Cred: []byte(dn)})
	}
	return list
}

// prefixed is a connection of which the beginning was read already.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
