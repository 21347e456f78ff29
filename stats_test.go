// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Every search for a leader is counted, with its time and that of the outage around it, on those who follow and on the
// one who leads (OP-20).
func TestStatsOfElections(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		c.Network().Latency(2*time.Millisecond, 3*time.Millisecond) // or an election takes no time
		before := make([]zk.Stats, 3)
		for i := range before {
			eventually(t, "a member has not caught up", func() bool { return c.Member(i).Stats().Outages.Count > 0 })
			st := c.Member(i).Stats()
			if before[i] = st; st.LeaderLosses != 1 || st.Elections.Count != 1 || st.Outages.Count != 1 || st.LeaderSince.IsZero() != (i != l) {
				t.Errorf("member %d counts %+v", i, st)
			}
			if leads, follows := st.LeaderOutages.Count, st.CatchUps.Count; leads+follows != 1 || (leads == 1) != (i == l) {
				t.Errorf("member %d counts %d outages as the leader, %d as a follower", i, leads, follows)
			}
		}
		must(t, c.Crash(l))
		crashed := time.Now()
		var now int
		eventually(t, "there is no other leader", func() bool {
			var err error
			now, err = c.Leader(ctx)
			return err == nil && now != l
		})
		must(t, c.Member(now).Ready(ctx))
		other := 3 - l - now
		must(t, c.Member(other).Ready(ctx))
		for _, i := range [...]int{now, other} {
			was := before[i]
			eventually(t, "a member has not caught up", func() bool { return c.Member(i).Stats().Outages.Count > was.Outages.Count })
			st, took := c.Member(i).Stats(), time.Since(crashed)
			if st.LeaderLosses <= was.LeaderLosses || st.Elections.Count <= was.Elections.Count || st.Elections.Max == 0 || st.Elections.Max > took || st.Outages.Count != was.Outages.Count+1 || st.Outages.Max < st.Elections.Max {
				t.Errorf("within %v member %d counted %+v, after %+v", took, i, st, was)
			}
			if leads, follows := st.LeaderOutages.Count-was.LeaderOutages.Count, st.CatchUps.Count-was.CatchUps.Count; leads+follows != 1 || (leads == 1) != (i == now) {
				t.Errorf("member %d counted %d outages as the leader, %d as a follower", i, leads, follows)
			}
			if st.LeaderSince.IsZero() != (i != now) || st.LeaderSince.After(time.Now()) || i == now && st.LeaderSince.Before(crashed) {
				t.Errorf("member %d leads since %v", i, st.LeaderSince)
			}
		}
	})
}

// What goes through the log, and what becomes of sessions and TTL znodes, is counted by the leader; what watchers hear by
// the member that tells them (OP-20, DM-80).
func TestStatsOfTheLeader(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{ReapInterval: 10 * time.Second, SessionTimeout: 5 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f, gone := (l+1)%3, (l+2)%3
		s := session(t, ctx, c.Member(f))
		lead, follow := c.Member(l).Stats(), c.Member(f).Stats()
		if follow.LastProposal != -1 || follow.Proposals.Count != 0 {
			t.Errorf("a follower has proposed %+v", follow.Proposals)
		}

		// Two watch the data and one the children of the root, then another waits for the deletion; nobody waits for /ttl itself.
		create(t, ctx, s, "/w", zk.Persistent)
		for range 2 {
			_, _, w, err := s.GetW(ctx, "/w")
			must(t, err)
			defer func() { <-w }()
		}
		_, _, _, err := s.ChildrenW(ctx, "/")
		must(t, err)
		_, err = s.Do(ctx, zk.OpCreate("/ttl", make([]byte, 5000), zk.Persistent).WithTTL(time.Millisecond))
		must(t, err)
		_, err = s.Set(ctx, "/w", nil, zk.AnyVersion)
		must(t, err)
		_, _, w, err := s.ExistsW(ctx, "/w")
		must(t, err)
		must(t, s.Delete(ctx, "/w", zk.AnyVersion))
		<-w
		st := c.Member(f).Stats()
		if st.Children.Count != follow.Children.Count+1 || st.Changed.Count != 1 || st.Changed.Max != 2 || st.Deleted.Count != 1 || st.Created.Count != 0 {
			t.Errorf("watchers: created %+v, changed %+v, deleted %+v, children %+v", st.Created, st.Changed, st.Deleted, st.Children)
		}

		// The log.
		eventually(t, "not every proposal is committed", func() bool {
			st = c.Member(l).Stats()
			return st.Commits.Count == st.Proposals.Count
		})
		if n := st.Proposals.Count - lead.Proposals.Count; n < 4 || st.Proposals.Max < 5000 || st.Proposals.Min > 500 || st.LastProposal > 500 || st.LastProposal < 1 {
			t.Errorf("proposals %+v, the last %d, commits %+v", st.Proposals, st.LastProposal, st.Commits)
		}
		if st.LogWrites.Count <= lead.LogWrites.Count || st.Propagation.Count <= lead.Propagation.Count || st.Propagation.Max > time.Second {
			t.Errorf("writes to the log %+v, propagation %+v", st.LogWrites, st.Propagation)
		}
		must(t, c.Quiesce(ctx))
		if st := c.Member(f).Stats(); st.Propagation.Count <= follow.Propagation.Count {
			t.Errorf("a follower's propagation %+v", st.Propagation)
		}

		// TTL znodes and sessions, and a snapshot for a member that lagged.
		e := session(t, ctx, c.Member(gone))
		must(t, c.Crash(gone))
		time.Sleep(time.Minute)
		<-e.Done()
		for range 200 { // more than the log keeps behind a snapshot
			_, err := s.Set(ctx, "/", nil, zk.AnyVersion)
			must(t, err)
		}
		must(t, c.Member(l).Compact(ctx))
		must(t, c.Restart(ctx, gone))
		must(t, c.Member(gone).Ready(ctx))
		eventually(t, "no snapshot was sent", func() bool {
			st = c.Member(l).Stats()
			return st.SnapshotsSent > 0
		})
		if st.TTLCreated != 1 || st.TTLReaped != 1 || st.Expired != 1 || st.Snapshots.Count != 1 || st.Waiting != 0 || st.Faults != 0 {
			t.Errorf("the leader counts %+v", st)
		}
		if st := c.Member(f).Stats(); st.TTLCreated != 1 || st.TTLReaped != 0 || st.Expired != 0 || st.SnapshotsSent != 0 {
			t.Errorf("a follower counts %+v", st)
		}
	})
}

// A member that starts again tells how much of its log it had to read.
func TestStatsOfOpen(t *testing.T) {
	dir := t.TempDir()
	m := open(t, zk.Config{Dir: dir})
	if st := m.Stats(); st.Loaded != 0 || st.Loading <= 0 {
		t.Errorf("the first time it loaded %d entries in %v", st.Loaded, st.Loading)
	}
	s, err := m.Session(t.Context())
	must(t, err)
	for range 20 {
		_, err := s.Set(t.Context(), "/", nil, zk.AnyVersion)
		must(t, err)
	}
	if st := m.Stats(); st.LogWrites.Count < 20 || st.LogWrites.Min <= 0 {
		t.Errorf("writes to disk %+v", st.LogWrites)
	}
	must(t, m.Close())
	m = open(t, zk.Config{Dir: dir})
	must(t, m.Ready(t.Context()))
	st := m.Stats()
	if st.Loaded < 20 || st.Loading <= 0 {
		t.Errorf("the second time it loaded %d entries in %v", st.Loaded, st.Loading)
	}
	if st.Propagation.Count >= 20 { // what was there already came from nobody
		t.Errorf("propagation %+v", st.Propagation)
	}
}
