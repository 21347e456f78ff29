// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// stream is a connection that its transport knows of.
type stream struct {
	net.Conn
	t       *Transport
	inbound bool
	once    sync.Once
	err     error // what closing has said; set by once
}

// track makes c a stream. It returns nil once the transport is closed, or if too many are open.
func (t *Transport) track(c net.Conn, inbound bool) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || inbound && t.inbound >= t.limits.accepted {
		return nil
	}
	s := &stream{Conn: c, t: t, inbound: inbound}
	t.open[s] = struct{}{}
	if inbound {
		t.inbound++
	}
	return s
}

// Close closes the stream; closing again returns the same.
func (s *stream) Close() error {
	s.once.Do(func() {
		s.t.mu.Lock()
		delete(s.t.open, s)
		if s.inbound {
			s.t.inbound--
		}
		s.t.mu.Unlock()
		s.err = s.Conn.Close()
	})
	return s.err
}

// secured is what *tls.Conn has beyond net.Conn that whoever checks identities asks for.
type secured interface {
	ConnectionState() tls.ConnectionState
	HandshakeContext(ctx context.Context) error
}

// face returns s as whoever uses it sees it. A connection that was TLS before it came here must still look like it:
// otherwise it would pass for one that has nothing to check.
func (s *stream) face() net.Conn {
	if c, ok := s.Conn.(secured); ok {
		return &secureStream{stream: s, conn: c}
	}
	return s
}

// secureStream is a stream over a connection that is TLS by itself.
type secureStream struct {
	*stream
	conn secured
}

// HandshakeContext completes the handshake, if that has not been done.
func (s *secureStream) HandshakeContext(ctx context.Context) error {
	return s.conn.HandshakeContext(ctx)
}

// ConnectionState completes the handshake, within 5 seconds, and tells its outcome. If it failed there are no
// certificates in it.
func (s *secureStream) ConnectionState() tls.ConnectionState {
	ctx, cancel := context.WithTimeout(s.t.life, s.t.limits.handshake)
	defer cancel()
	_ = s.conn.HandshakeContext(ctx) // the state says HandshakeComplete, and Read returns the error
	return s.conn.ConnectionState()
}
