// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net"
	"net/netip"
	"time"
)

// Limits bound what clients can cost a server. Each has a default for 0; where it says so, a negative value means no
// bound.
type Limits struct {
	// Frame is the length of the longest request, in bytes; default 1,048,575, which is ZooKeeper's. A client that
	// announces a longer one is closed (WP-2). Memory is taken as the bytes arrive, not as they are announced.
	Frame int

	// PerAddress is how many connections one address may have; default 60. Surplus ones are closed at once, without a
	// byte (WP-70). Negative: no bound.
	PerAddress int

	// Connections is how many there may be in all; default 10,000. Negative: no bound.
	Connections int

	// Requests is how many requests of one connection may wait for their answer; default 1,000. Past it the
	// connection is not read from until some are answered.
	Requests int

	// InFlight is how many requests of all connections may wait; default 16,384. Past it only connections that have
	// none are read from (WP-71).
	InFlight int

	// Queued is how many bytes may wait on one connection: of requests, past which it is not read from, and of events
	// that the client does not take, past which it is closed (WT-26). Default 4 MiB.
	Queued int

	// Handshake is how long a client may take from its connection to its first request, TLS included; default 10 s
	// (WP-17). After that a client may be silent for its session's timeout.
	Handshake time.Duration

	// Handshakes is how many TLS handshakes may be under way; surplus connections are closed before theirs (WP-53).
	// Default 250. Negative: no bound.
	Handshakes int
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Frame, maxFrame)
	set(&l.PerAddress, 60)
	set(&l.Connections, 10_000)
	set(&l.Requests, 1000)
	set(&l.InFlight, 16_384)
	set(&l.Queued, 4<<20)
	set(&l.Handshakes, 250)
	if l.Handshake <= 0 {
		l.Handshake = 10 * time.Second
	}
	return l
}

// maxFrame is ZooKeeper's jute.maxbuffer.
const maxFrame = 1<<20 - 1

// addressOf is what connections are counted by; the zero address where there is none, as of a pipe.
func addressOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// admit counts a connection, or refuses it.
func (s *Server) admit(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return false
	case s.limits.Connections >= 0 && s.connections >= s.limits.Connections:
		return false
	case addr.IsValid() && s.limits.PerAddress >= 0 && s.perAddress[addr] >= s.limits.PerAddress:
		return false
	}
	s.connections++
	s.perAddress[addr]++
	return true
}

func (s *Server) dismiss(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connections--
	if s.perAddress[addr]--; s.perAddress[addr] == 0 {
		delete(s.perAddress, addr)
	}
	if s.connections == 0 && s.drained != nil {
		close(s.drained)
		s.drained = nil
	}
}
