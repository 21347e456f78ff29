// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Of several things that are wrong with a reconfig the first one in ZooKeeper's order is told, and nothing is changed (OP-42).
func TestReconfigOrder(t *testing.T) {
	const nonsense, stale = "nonsense", int64(12345)
	// The service is off, the member is alone, the version is old, the text cannot be read, and it is not allowed.
	for _, tc := range []struct {
		on   bool
		want zk.Code
	}{{false, zk.ErrReconfigDisabled}, {true, zk.ErrUnimplemented}} {
		c := open(t, serve(t, &Server{Member: member(t, zk.Config{}), Reconfig: tc.on}))
		c.want(tc.want, opReconfig, reconfigBody(nonsense, "", "", stale)) // OP-42
	}
	super := zk.DigestID("super:secret")
	for _, on := range []bool{false, true} {
		bubble(t, 3, zktest.Config{Base: zk.Config{SuperDigest: super}}, func(s *Server) { s.Reconfig = on }, func(t *testing.T, e *ensemble) {
			l := e.leader()
			c := e.open(l)
			read := func() string {
				p := c.want(0, opGetData, pathWatch("/zookeeper/config", false))
				return string(p.buffer())
			}
			before := read()
			gone := zktest.Name((l + 1) % 3)
			observer := "server." + gone + "=127.0.0.1:1:1:observer"
			if !on {
				c.want(zk.ErrReconfigDisabled, opReconfig, reconfigBody(nonsense, "", "", stale)) // OP-42
				c.want(0, opAuth, authBodyOf("digest", "super:secret"))
				c.want(zk.ErrReconfigDisabled, opReconfig, reconfigBody("", gone, "", -1)) // OP-42: for whoever asks
			} else {
				for _, text := range []string{nonsense, observer} {
					c.want(zk.ErrBadVersion, opReconfig, reconfigBody(text, "", "", stale)) // OP-42
					c.want(zk.ErrBadArguments, opReconfig, reconfigBody(text, "", "", -1))  // OP-42
				}
				c.want(zk.ErrBadVersion, opReconfig, reconfigBody("", gone, "", stale)) // OP-42
				c.want(zk.ErrNoAuth, opReconfig, reconfigBody("", gone, "", -1))        // OP-42: at the end
			}
			if now := read(); now != before {
				t.Errorf("config %q was %q", now, before)
			}
		})
	}
}
