// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const network = "mem"

// address is a host's name.
type address string

// Network returns "mem".
func (a address) Network() string { return network }

// String returns the host's name.
func (a address) String() string { return string(a) }

// stream is one end of a stream, a net.Conn. The network's mutex guards it.
type stream struct {
	host    *Host
	in, out *flow
	closed  bool
	readBy  time.Time // zero: no deadline
	writeBy time.Time
}

// failure returns err as package net would.
func (s *stream) failure(op string, err error) error {
	return &net.OpError{Op: op, Net: network, Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// Read reads what has arrived, and waits until something has. After what the other end has sent before it was closed
// it returns io.EOF.
func (s *stream) Read(p []byte) (int, error) {
	n := s.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, s.failure("read", net.ErrClosed)
		case s.in.reset:
			return 0, s.failure("read", syscall.ECONNRESET)
		case !s.readBy.IsZero() && reached(s.readBy):
			return 0, s.failure("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		var due time.Time
		if s.in.arrivesLocked(n) {
			var k int
			if k, due = s.in.takeLocked(p); k > 0 {
				return k, nil
			}
			if s.in.ended && len(s.in.chunks) == 0 {
				if reached(s.in.last) {
					return 0, io.EOF
				}
				due = s.in.last
			}
		}
		s.waitLocked(s.in, s.readBy, due)
	}
}

// Write sends a copy of p. It waits while the other end has too much to read.
func (s *stream) Write(p []byte) (sent int, err error) {
	n := s.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		var due time.Time
		switch {
		case s.closed:
			return sent, s.failure("write", net.ErrClosed)
		case s.out.reset:
			return sent, s.failure("write", syscall.ECONNRESET)
		case !s.writeBy.IsZero() && reached(s.writeBy):
			return sent, s.failure("write", os.ErrDeadlineExceeded)
		case s.in.ended && s.in.arrivesLocked(n):
			// That the other end was closed is known here once its last byte could be.
			if due = s.in.last; reached(due) {
				return sent, s.failure("write", syscall.ECONNRESET)
			}
		}
		k := s.out.sendLocked(n, p)
		sent, p = sent+k, p[k:]
		if len(p) == 0 {
			return sent, nil
		}
		s.waitLocked(s.out, s.writeBy, due)
	}
}

// waitLocked waits until something has moved in f, a fault has begun or ended, or the earlier of two times is there;
// zero is never. The mutex is released meanwhile.
func (s *stream) waitLocked(f *flow, deadline, due time.Time) {
	n := s.host.net
	moved, changed := f.moved.wait(), n.changed.wait()
	if due.IsZero() || !deadline.IsZero() && deadline.Before(due) {
		due = deadline
	}
	n.mu.Unlock()
	defer n.mu.Lock()
	if due.IsZero() {
		select {
		case <-moved:
		case <-changed:
		}
		return
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-moved:
	case <-changed:
	case <-timer.C:
	}
}

// Close ends the stream: the other end reads what was sent, then io.EOF. Closing again does nothing.
func (s *stream) Close() error {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	delete(s.host.streams, s)
	s.closeLocked()
	return nil
}

func (s *stream) closeLocked() {
	if s.closed {
		return
	}
	s.closed = true
	if !s.out.reset {
		s.out.ended = true
		s.out.dueLocked(s.host.net)
		s.in.unread = true
		s.in.forgetLocked()
	}
	s.moveLocked()
}

// resetLocked breaks the stream at both ends. What was under way is gone.
func (s *stream) resetLocked() {
	for _, f := range [...]*flow{s.in, s.out} {
		f.reset = true
		f.forgetLocked()
	}
	s.moveLocked()
}

// moveLocked wakes all who wait at either end.
func (s *stream) moveLocked() {
	s.in.moved.raise()
	s.out.moved.raise()
}

// LocalAddr returns this end's host: its name, on the network "mem".
func (s *stream) LocalAddr() net.Addr { return address(s.out.from) }

// RemoteAddr returns the other end's host.
func (s *stream) RemoteAddr() net.Addr { return address(s.out.to) }

// SetDeadline sets both deadlines.
func (s *stream) SetDeadline(t time.Time) error { return s.setDeadlines(&t, &t) }

// SetReadDeadline bounds Read, also one that waits. Zero is no bound.
func (s *stream) SetReadDeadline(t time.Time) error { return s.setDeadlines(&t, nil) }

// SetWriteDeadline bounds Write, also one that waits. Zero is no bound.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.setDeadlines(nil, &t) }

// setDeadlines sets those that are not nil.
func (s *stream) setDeadlines(read, write *time.Time) error {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	if s.closed {
		return s.failure("set", net.ErrClosed)
	}
	if read != nil {
		s.readBy = *read
		s.in.moved.raise()
	}
	if write != nil {
		s.writeBy = *write
		s.out.moved.raise()
	}
	return nil
}
