// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"context"
	"net"
	"syscall"
)

// backlog is how many streams wait to be accepted; more are refused, as by a full listen queue.
const backlog = 1024

// Host is one place in a network. It satisfies zk.Transport. Its methods are safe for concurrent use.
type Host struct {
	net     *Network
	name    string
	backlog chan *stream
	stop    chan struct{} // closed when the host ends

	// Guarded by the network's mutex:
	closed  bool
	streams map[*stream]struct{} // ends at this host that are not closed
}

func newHost(n *Network, name string) *Host {
	return &Host{
		net:     n,
		name:    name,
		backlog: make(chan *stream, backlog),
		stop:    make(chan struct{}),
		streams: map[*stream]struct{}{},
	}
}

// Addr returns the host's name.
func (h *Host) Addr() string { return h.name }

// Accept waits for the next stream. Once the host is closed or has crashed it returns net.ErrClosed, and no other
// error before. At most 1024 streams wait for it; more are refused.
func (h *Host) Accept() (net.Conn, error) {
	select {
	case <-h.stop:
		return nil, net.ErrClosed
	default:
	}
	select {
	case s := <-h.backlog:
		return s, nil
	case <-h.stop:
		return nil, net.ErrClosed
	}
}

// Dial opens a stream to the host called addr, which may be this one. Several goroutines may dial at once. Where
// there is no such host it is refused at once: the error, a *net.OpError, matches syscall.ECONNREFUSED. While the
// link is stalled in either direction it hangs until that ends, or until ctx does; the error then matches ctx's. On
// a host that is closed or has crashed it returns net.ErrClosed. It does not wait for Accept.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n := h.net
	l := link{h.name, addr}
	n.mu.Lock()
	defer n.mu.Unlock()
	chance := n.chanceLocked(l)
	lost, heals := n.losesLocked(chance), n.heals
	for {
		if h.closed {
			return nil, net.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Source: address(h.name), Addr: address(addr), Err: err}
		}
		if healed := n.heals != heals; (!lost || healed) && !n.stalledLocked(h.name, addr) && !n.stalledLocked(addr, h.name) {
			break
		}
		changed := n.changed.wait()
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		case <-h.stop:
		}
		n.mu.Lock()
	}
	if s := h.connectLocked(newFlow(l, chance), addr); s != nil {
		return s, nil
	}
	return nil, &net.OpError{Op: "dial", Net: network, Source: address(h.name), Addr: address(addr), Err: syscall.ECONNREFUSED}
}

// connectLocked makes a stream whose way there is out, or nil if it is refused.
func (h *Host) connectLocked(out *flow, addr string) *stream {
	other := h.net.hosts[addr]
	if other == nil {
		return nil
	}
	back := newFlow(link{addr, h.name}, h.net.chanceLocked(link{addr, h.name}))
	mine, theirs := &stream{host: h, out: out, in: back}, &stream{host: other, out: back, in: out}
	select {
	case other.backlog <- theirs:
	default:
		return nil
	}
	h.streams[mine], other.streams[theirs] = struct{}{}, struct{}{}
	return mine
}

// Close ends the host in good order, whatever faults there are: its own ends return net.ErrClosed, the other ends
// read what was sent and then io.EOF. Closing again, or after a crash, does nothing. The error is nil.
func (h *Host) Close() error {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.endLocked((*stream).closeLocked)
	return nil
}

// endLocked takes the host off the network, and does with its streams what it is told.
func (h *Host) endLocked(end func(*stream)) {
	if h.closed {
		return
	}
	h.closed = true
	close(h.stop)
	delete(h.net.hosts, h.name)
	for s := range h.streams {
		end(s)
	}
	clear(h.streams)
}
