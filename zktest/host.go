// SPDX-License-Identifier: Apache-2.0

package zktest

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/seed-541fafe0/zk/transport/memnet"
)

// host is a member's place in the network, with answers that can get lost.
type host struct {
	*memnet.Host
	drop atomic.Int64 // answers still to be lost
}

func (h *host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := h.Host.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &lossy{Conn: c, host: h}, nil
}

// lossy is a stream whose answers can get lost: the question has arrived, the stream breaks instead of answering.
type lossy struct {
	net.Conn
	host *host
}

func (l *lossy) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 && l.host.drop.Load() > 0 && l.host.drop.Add(-1) >= 0 {
		l.Conn.Close()
		return 0, &net.OpError{Op: "read", Net: "mem", Err: syscall.ECONNRESET}
	}
	return n, err
}
