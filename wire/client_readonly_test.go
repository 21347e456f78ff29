// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// TestClientReadOnly stays on a member without a quorum and moves to one that has it (SS-26 to SS-30).
func TestClientReadOnly(t *testing.T) {
	t.Parallel()
	p := newPorted(t, 3, zk.Config{Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	ro := &Server{Member: p.Member(0), ReadOnly: true, LeaderGrace: -1}
	addr := serve(t, ro)
	p.Isolate(0)
	eventually(t, "a read-only member", func() bool { return fourLetters(addr, "isro") == "ro" })
	_, err := Dial(ctxFor(t, time.Second), ClientConfig{Servers: []string{addr}})
	want(t, err, zk.ErrUnavailable)
	// The read-only one is the only one for now.
	other := serve(t, &Server{Member: p.Member(1), ReadOnly: true})
	way := newGate()
	dial := func(ctx context.Context, a string) (net.Conn, error) {
		if a == other {
			return way.dial(ctx, a)
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", a)
	}
	way.shut()
	_, c := newTestClient(t, ClientConfig{Servers: []string{addr, other}, ReadOnly: true, Dial: dial})
	if !c.ReadOnly() {
		t.Fatal("not read-only")
	}
	first := c.ID()
	_, _, err = c.Get(ctx, "/")
	must(t, err)
	_, err = c.Create(ctx, "/x", nil, zk.Persistent)
	want(t, err, zk.ErrNotReadOnly)
	way.unlock()
	eventually(t, "a server that writes", func() bool { return c.State() == zk.StateActive && !c.ReadOnly() })
	if c.ID() == first || c.Server() != other {
		t.Errorf("session %v on %s", c.ID(), c.Server())
	}
	_, err = c.Create(ctx, "/x", nil, zk.Persistent)
	must(t, err)
}

func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// fourLetters returns what a server answers to a four-letter word, "" if it does not.
func fourLetters(addr, word string) string {
	nc, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return ""
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	nc.Write([]byte(word))
	var b bytes.Buffer
	b.ReadFrom(nc)
	return b.String()
}
