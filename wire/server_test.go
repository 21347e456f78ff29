// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"testing"

	"github.com/seed-541fafe0/zk"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFirst(t *testing.T) {
	m := member(t, zk.Config{})
	addr := serve(t, &Server{Member: m})
	c := open(t, addr)
	c.want(0, opCreate, createBody("/a", "x", 0))
	p := c.want(0, opGetData, pathWatch("/a", false))
	if data := p.buffer(); string(data) != "x" {
		t.Errorf("data %q", data)
	}
	c.want(0, opPing, nil)
	c.want(0, opCloseSession, nil)
	c.ended()
}
