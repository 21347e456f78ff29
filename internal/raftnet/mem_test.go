// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// hub is a network in memory. Its streams are pipes.
type hub struct {
	mu    sync.Mutex
	ports map[string]*port
	cut   map[string]bool // hosts whose dials, both ways, hang
}

func newHub() *hub {
	return &hub{ports: make(map[string]*port), cut: make(map[string]bool)}
}

// port is one member's Transport.
type port struct {
	hub    *hub
	addr   string
	accept chan net.Conn
	done   chan struct{}

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
	dialed int
}

func (h *hub) listen(addr string) *port {
	p := &port{hub: h, addr: addr, accept: make(chan net.Conn), done: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ports[addr] = p
	return p
}

func (h *hub) isolate(addr string, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut[addr] = on
}

func (p *port) Addr() string { return p.addr }

func (p *port) Dial(ctx context.Context, addr string) (net.Conn, error) {
	p.mu.Lock()
	p.dialed++
	p.mu.Unlock()
	p.hub.mu.Lock()
	to := p.hub.ports[addr]
	hangs := p.hub.cut[addr] || p.hub.cut[p.addr]
	p.hub.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if to == nil {
		return nil, &net.OpError{Op: "dial", Net: "mem", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	here, there := net.Pipe()
	select {
	case to.accept <- there:
		p.keep(here)
		to.keep(there)
		return here, nil
	case <-to.done:
		return nil, &net.OpError{Op: "dial", Net: "mem", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *port) keep(c net.Conn) {
	p.mu.Lock()
	closed := p.closed
	p.conns = append(p.conns, c)
	p.mu.Unlock()
	if closed {
		c.Close()
	}
}

// reset breaks all streams.
func (p *port) reset() {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

func (p *port) dials() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialed
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	p.hub.mu.Lock()
	if p.hub.ports[p.addr] == p {
		delete(p.hub.ports, p.addr)
	}
	p.hub.mu.Unlock()
	close(p.done)
	p.reset()
	return nil
}
