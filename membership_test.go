// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// One membership change at a time, and never one that would cost quorum or names the wrong member (DM-54).
func TestMembershipRefusals(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		m := c.Member((l + 1) % 3)
		s := session(t, ctx, m)
		before, _, err := s.GetString(ctx, "/zookeeper/config")
		must(t, err)

		// A host that takes streams and never says who it is.
		silent := c.Network().Host("silent")
		defer silent.Close()
		first := make(chan error, 1)
		go func() { first <- m.AddMember(ctx, zk.Peer{ID: "x", Addr: "silent", Voter: true}) }()
		synctest.Wait()
		for i := range 3 {
			wants(t, c.Member(i).RemoveMember(ctx, zktest.Name(l)), zk.ErrReconfigInProgress)
		}
		wants(t, <-first, zk.ErrNoQuorumForConfig)

		wants(t, m.AddMember(ctx, zk.Peer{ID: "x", Addr: "nowhere"}), zk.ErrNoQuorumForConfig)
		wants(t, m.AddMember(ctx, zk.Peer{ID: "x", Addr: zktest.Name((l + 2) % 3)}), zk.ErrBadArguments) // another member answers there
		wants(t, m.AddMember(ctx, zk.Peer{Addr: "silent"}), zk.ErrBadArguments)
		wants(t, m.AddMember(ctx, zk.Peer{ID: "x"}), zk.ErrBadArguments)
		wants(t, m.RemoveMember(ctx, ""), zk.ErrBadArguments)
		wants(t, m.TransferLeadership(ctx, "nobody"), zk.ErrBadArguments)
		must(t, m.RemoveMember(ctx, "nobody")) // it is not there: as wanted
		if now, _, err := s.GetString(ctx, "/zookeeper/config", zk.Linearizable); err != nil || now != before {
			t.Errorf("the configuration is %s, %v", now, err)
		}

		// Without a majority no change is made, and who asked is told so.
		must(t, c.Quiesce(ctx))
		must(t, c.Crash((l+1)%3))
		must(t, c.Crash((l+2)%3))
		err = c.Member(l).RemoveMember(ctx, zktest.Name((l+1)%3))
		wants(t, err, zk.ErrNoQuorumForConfig)
		must(t, c.Restart(ctx, (l+1)%3))
		must(t, c.Restart(ctx, (l+2)%3))
		must(t, c.Member(l).Ready(ctx))
	})
}

// The only voter stays.
func TestLastVoter(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		wants(t, m.RemoveMember(ctx, "m0"), zk.ErrNoQuorumForConfig)
		wants(t, m.Leave(ctx), zk.ErrNoQuorumForConfig)
		wants(t, m.TransferLeadership(ctx, ""), zk.ErrNoQuorumForConfig)
		create(t, ctx, session(t, ctx, m), "/still", zk.Persistent)
		o, err := c.Add(ctx, false) // an observer is no voter
		must(t, err)
		must(t, c.Member(o).Ready(ctx))
		wants(t, m.Leave(ctx), zk.ErrNoQuorumForConfig)
		wants(t, m.TransferLeadership(ctx, zktest.Name(o)), zk.ErrBadArguments)
		create(t, ctx, session(t, ctx, c.Member(o)), "/through-the-observer", zk.Persistent)
	})
}

// Who leaves takes its sessions along at once, and leadership is handed over first; its id is never used again.
func TestLeave(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		s, o := session(t, ctx, c.Member(l)), session(t, ctx, c.Member((l+1)%3))
		create(t, ctx, s, "/e", zk.Ephemeral)
		must(t, o.Sync(ctx))
		_, _, gone, err := o.ExistsW(ctx, "/e")
		must(t, err)
		config, err := o.Watch(ctx, "/zookeeper/config", zk.WatchNode)
		must(t, err)
		began := time.Now()
		must(t, c.Member(l).Leave(ctx))
		if ev := next(t, gone); ev.Type != zk.EventDeleted || time.Since(began) >= s.Timeout()/2 {
			t.Errorf("%+v after %v", ev, time.Since(began))
		}
		if ev := next(t, config.Events()); ev.Type != zk.EventChanged {
			t.Errorf("%+v", ev)
		}
		if text, st, err := o.GetString(ctx, "/zookeeper/config"); err != nil || strings.Contains(text, zktest.Name(l)) || strings.Count(text, "server.") != 2 || st.Version != -1 { // DM-15
			t.Errorf("the configuration is %s, version %d, %v", text, st.Version, err)
		}
		create(t, ctx, o, "/after", zk.Persistent)
		must(t, c.Crash(l)) // it has stopped already
		for what, restart := range map[string]func() (*zk.Member, error){
			"on its disk": func() (*zk.Member, error) {
				if err := c.Restart(ctx, l); err != nil {
					return nil, err
				}
				return c.Member(l), nil
			},
			"on a new disk": func() (*zk.Member, error) {
				return zk.Open(ctx, zk.Config{
					ID: zktest.Name(l), Transport: c.Network().Host(zktest.Name(l)), Join: []string{zktest.Name((l + 1) % 3)}, Logger: slog.New(slog.DiscardHandler),
				})
			},
		} {
			m, err := restart()
			if err == nil {
				<-m.Done()
				err = m.Err()
				m.Close()
			}
			if !errors.Is(err, zk.ErrNotMember) && !(what == "on a new disk" && errors.Is(err, zk.ErrWiped)) {
				t.Errorf("%s: %v", what, err)
			}
			c.Crash(l)
		}
		create(t, ctx, o, "/still", zk.Persistent)
	})
}

// Observers have no vote: the voters' majority alone decides, with or without them.
func TestObserversDoNotVote(t *testing.T) {
	bubble(t, 5, zktest.Config{NonVoters: 2}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(4))
		create(t, ctx, s, "/a", zk.Persistent)
		l := leader(t, ctx, c)
		if l > 2 {
			t.Fatalf("observer %d leads", l)
		}
		must(t, c.Crash(3))
		must(t, c.Crash(4))
		must(t, c.Crash((l+1)%3))
		w := session(t, ctx, c.Member(l))
		create(t, ctx, w, "/two-voters", zk.Persistent)
		must(t, c.Restart(ctx, 3))
		must(t, c.Restart(ctx, 4))
		must(t, c.Member(4).Ready(ctx))
		must(t, c.Crash((l+2)%3))
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if _, err := w.Create(short, "/one-voter", nil, zk.Persistent); !zk.MaybeApplied(err) {
			t.Errorf("one voter and two observers: %v", err)
		}
		must(t, c.Restart(ctx, (l+1)%3))
		must(t, c.Restart(ctx, (l+2)%3))
		must(t, c.Quiesce(ctx))
	})
}
