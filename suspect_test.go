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
	"github.com/seed-541fafe0/zk/internal/codec"
	"github.com/seed-541fafe0/zk/transport/memnet"
)

// threeMembers opens an ensemble of a, which leads (D26), b and c.
func threeMembers(t *testing.T, ctx context.Context, network *memnet.Network, change ...func(*Config)) (a, b, c *Member) {
	t.Helper()
	peers := []Peer{{ID: "a", Addr: "a", Voter: true}, {ID: "b", Addr: "b", Voter: true}, {ID: "c", Addr: "c", Voter: true}}
	var members []*Member
	for _, p := range peers {
		cfg := Config{ID: p.ID, Peers: peers, Transport: network.Host(p.ID)}
		for _, change := range change {
			change(&cfg)
		}
		m, err := Open(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		members = append(members, m)
	}
	for _, m := range members {
		if err := m.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if !members[0].leading() {
		t.Fatal("the first of the voters does not lead")
	}
	return members[0], members[1], members[2]
}

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
				a, b, third := threeMembers(t, ctx, network)
				until := func(what string, ok func() bool) {
					t.Helper()
					for !ok() {
						if ctx.Err() != nil {
							t.Fatal(what)
						}
						time.Sleep(time.Millisecond)
					}
				}
				s, err := a.Session(ctx)
				if err != nil {
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
				if err := c.goes(network, third); err != nil {
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
		a, b, _ := threeMembers(t, ctx, network, func(cfg *Config) { cfg.Transport = dying{cfg.Transport, &addr} })
		s, err := b.Session(ctx)
		if err != nil {
			t.Fatal(err)
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

// gated is a snapshot store that takes its time, and whose sinks do not close until the gate opens.
type gated struct {
	raft.SnapshotStore
	held, gate chan struct{}
}

func (g gated) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, tr raft.Transport) (raft.SnapshotSink, error) {
	time.Sleep(3 * time.Second)
	s, err := g.SnapshotStore.Create(v, index, term, c, at, tr)
	return gatedSink{s, g}, err
}

type gatedSink struct {
	raft.SnapshotSink
	g gated
}

func (s gatedSink) Close() error {
	close(s.g.held)
	<-s.g.gate
	return s.SnapshotSink.Close()
}

// A member that receives a snapshot neither stands nor witnesses: its raft does nothing else meanwhile, so whoever counted
// on its vote would wait for it, and the end of its log is about to be another (D17).
func TestReceiverOfASnapshotIsNoWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		network := memnet.New(1)
		g := gated{raft.NewInmemSnapshotStore(), make(chan struct{}), make(chan struct{})}
		a, b, c := threeMembers(t, ctx, network, func(cfg *Config) {
			if cfg.ID == "c" {
				disk := raft.NewInmemStore()
				cfg.Storage = Storage{Log: disk, Stable: disk, Snapshots: g}
			}
		})
		s, err := b.Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		network.Isolate("c")
		for range 2 * trailingLogs {
			if _, err := s.Create(ctx, "/x-", nil, Sequential); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Compact(ctx); err != nil {
			t.Fatal(err)
		}
		network.Heal()
		<-g.held
		leader, incarnation, term := c.net.Leader()
		if leader != "a" {
			t.Fatalf("%q leads", leader)
		}
		network.Crash("a")
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		asks := func(m *Member) bool {
			lastTerm, lastIndex := b.lastLog()
			question := codec.AppendString(codec.AppendUvarint(nil, term), leader)
			for _, n := range []uint64{incarnation, lastTerm, lastIndex} {
				question = codec.AppendUvarint(question, n)
			}
			r := codec.NewReader(question)
			answer, err := readAnswer(m.witness(ctx, &r))
			if err != nil {
				t.Fatal(err)
			}
			return answer.Bool()
		}
		for range 8 { // longer than its end of the stream is kept
			if asks(c) {
				t.Error("it is a witness")
			}
			if c.raft.State() != raft.Follower || c.raft.CurrentTerm() != term {
				t.Errorf("it is a %v in term %d", c.raft.State(), c.raft.CurrentTerm())
			}
			time.Sleep(500 * time.Millisecond)
		}
		if c.net.Hears(leader, incarnation) || !asks(b) {
			t.Error("nobody would be a witness: this tests nothing")
		}
		close(g.gate)
		if _, err := s.Create(ctx, "/y", nil, Persistent); err != nil {
			t.Error(err)
		}
	})
}
