// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net"
	"syscall"
	"testing"
)

// Both ends of a TCP stream are probed when idle, and send at once.
func TestSocketOptions(t *testing.T) {
	a := newTCP(t)
	defer a.Close()
	dialled, err := a.Dial(t.Context(), a.Addr())
	must(t, err)
	taken, err := a.Accept()
	must(t, err)
	for name, c := range map[string]net.Conn{"dialled": dialled, "accepted": taken} {
		raw, err := c.(*stream).Conn.(*net.TCPConn).SyscallConn()
		must(t, err)
		must(t, raw.Control(func(fd uintptr) {
			for what, option := range map[string]struct{ level, name, want int }{
				"SO_KEEPALIVE": {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
				"TCP_KEEPIDLE": {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(keepAlive.Seconds())},
				"TCP_NODELAY":  {syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
			} {
				got, err := syscall.GetsockoptInt(int(fd), option.level, option.name)
				if err != nil || got != option.want {
					t.Errorf("%s: %s is %d, %v; want %d", name, what, got, err, option.want)
				}
			}
		}))
	}
}
