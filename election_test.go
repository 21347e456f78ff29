// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport/memnet"
	"github.com/seed-541fafe0/zk/zktest"
)

// settled returns the leader once nobody stands for election any more.
func settled(t *testing.T, ctx context.Context, c *zktest.Cluster) int {
	t.Helper()
	eventually(t, "an election goes on", func() bool {
		for i := range c.Len() {
			if c.Member(i).Role() == zk.RoleCandidate {
				return false
			}
		}
		return true
	})
	return leader(t, ctx, c)
}

// A member that has lost an election may be a candidate still when it hears of the leader, and goes on being one if that
// leader dies before it speaks again. It must not hold on to that leader for ever: raft refuses every pre-vote as long
// as it knows of one, and the member may be too far behind to be elected itself (P20).
func TestLoserOfAnElectionForgetsTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		network := memnet.New(1)
		peers := []zk.Peer{{ID: "a", Addr: "a", Voter: true}, {ID: "b", Addr: "b", Voter: true}, {ID: "c", Addr: "c", Voter: true}}
		open := func(id string) *zk.Member {
			m, err := zk.Open(ctx, zk.Config{ID: id, Peers: peers, Transport: network.Host(id)})
			must(t, err)
			t.Cleanup(func() { m.Close() })
			return m
		}
		// a stands at once, and finds nobody there; b is elected without it, in the same term.
		a := open("a")
		eventually(t, "a does not stand", func() bool { return a.Role() == zk.RoleCandidate })
		b, c := open("b"), open("c")
		eventually(t, "b does not lead", func() bool { return b.Role() == zk.RoleLeader })
		s := session(t, ctx, c)
		must(t, a.WaitZxid(ctx, s.LastZxid()))
		if r := a.Role(); r != zk.RoleCandidate {
			t.Errorf("a is a %v: this tests too little", r)
		}
		network.Cut("b", "a")
		create(t, ctx, s, "/x", zk.Persistent) // a does not hear of it
		network.Crash("b")
		must(t, b.Close())
		network.Heal()
		short, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		_, err := s.Create(short, "/y", nil, zk.Persistent)
		if err != nil {
			t.Errorf("a: %+v, c: %+v: %v", a.RoleInfo(), c.RoleInfo(), err)
		}
	})
}
