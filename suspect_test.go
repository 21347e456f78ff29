// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/transport/memnet"
)

// A member that was told to stand and has lost may be a candidate still when it hears of the leader, and goes on being
// one if that leader goes before it speaks again. It must not hold on to that leader for ever: raft refuses every
// pre-vote as long as it knows of one, and the member may be too far behind to be elected itself (P20). If the leader's
// process is gone it is a witness of that like all others (D17).
func TestLoserOfAnElection(t *testing.T) {
	for _, c := range []struct {
		name  string
		goes  func(*memnet.Network, *Member) error
		bound time.Duration
	}{
		{"forgets a leader that is silent", func(n *memnet.Network, m *Member) error { n.Isolate(m.ID()); return nil }, 10 * time.Second},
		{"witnesses a crash", func(n *memnet.Network, m *Member) error { n.Crash(m.ID()); n.Heal(); return m.Close() }, 200 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				network := memnet.New(1)
				peers := []Peer{{ID: "a", Addr: "a", Voter: true}, {ID: "b", Addr: "b", Voter: true}, {ID: "c", Addr: "c", Voter: true}}
				members := map[string]*Member{}
				for _, p := range peers {
					m, err := Open(ctx, Config{ID: p.ID, Peers: peers, Transport: network.Host(p.ID)})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { m.Close() })
					members[p.ID] = m
				}
				until := func(what string, ok func() bool) {
					t.Helper()
					for !ok() {
						if ctx.Err() != nil {
							t.Fatal(what)
						}
						time.Sleep(time.Millisecond)
					}
				}
				a, b := members["a"], members["b"]
				s, err := a.Session(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := a.TransferLeadership(ctx, "a"); err != nil { // whoever was first
					t.Fatal(err)
				}
				if err := b.WaitZxid(ctx, s.LastZxid()); err != nil {
					t.Fatal(err)
				}

				// b stands, and nobody hears of it; c is elected in the same term.
				network.Isolate("b")
				if err := b.net.TimeoutNow(ctx); err != nil {
					t.Fatal(err)
				}
				if err := a.TransferLeadership(ctx, "c"); err != nil {
					t.Fatal(err)
				}
				network.Heal()
				until("b does not hear of c", func() bool { _, l := b.raft.LeaderWithID(); return l == "c" })
				if state := b.raft.State(); state != raft.Candidate {
					t.Fatalf("b is a %v: this tests too little", state)
				}
				network.Cut("c", "b")
				if _, err := s.Create(ctx, "/x", nil, Persistent); err != nil { // b does not hear of it
					t.Fatal(err)
				}
				began := time.Now()
				if err := c.goes(network, members["c"]); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Create(ctx, "/y", nil, Persistent); err != nil {
					t.Errorf("a: %+v, b: %+v: %v", a.RoleInfo(), b.RoleInfo(), err)
				}
				if took := time.Since(began); took > c.bound {
					t.Errorf("the next leader came after %v", took)
				}
			})
		})
	}
}

// dying is a network in which an address goes on taking connections, only to reset them.
type dying struct {
	Transport
	addr *atomic.Value
}

func (d dying) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if addr == d.addr.Load() {
		return nil, &net.OpError{Op: "read", Net: "mem", Err: syscall.ECONNRESET}
	}
	return d.Transport.Dial(ctx, addr)
}

// The streams of a process that ends may break before its address refuses connections: whoever suspects it looks again
// (D17).
func TestLeaderDiesSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		network := memnet.New(1)
		var addr atomic.Value
		addr.Store("")
		peers := []Peer{{ID: "a", Addr: "a", Voter: true}, {ID: "b", Addr: "b", Voter: true}, {ID: "c", Addr: "c", Voter: true}}
		var members []*Member
		for _, p := range peers {
			m, err := Open(ctx, Config{ID: p.ID, Peers: peers, Transport: dying{network.Host(p.ID), &addr}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { m.Close() })
			members = append(members, m)
		}
		a, b := members[0], members[1]
		s, err := b.Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !a.leading() {
			t.Fatal("the first of the voters does not lead") // D26
		}
		addr.Store("a")
		network.Crash("a")
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		time.AfterFunc(100*time.Millisecond, func() { addr.Store("") })
		if _, err := s.Create(ctx, "/x", nil, Persistent); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 100*time.Millisecond || took > 400*time.Millisecond {
			t.Errorf("the next leader came after %v", took)
		}
	})
}
