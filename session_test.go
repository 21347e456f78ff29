// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// A member that falls silent knows it before anybody else: its sessions are suspended first and expire later, under
// one zxid, everywhere (P10, P11, P12, SS-10).
func TestSilentMember(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		s, o := session(t, ctx, c.Member(f)), session(t, ctx, c.Member(l))
		create(t, ctx, s, "/e1", zk.Ephemeral)
		create(t, ctx, s, "/e2", zk.Ephemeral)
		lease := s.Context()
		lapsed := make(chan time.Time, 1)
		stop := context.AfterFunc(lease, func() { lapsed <- time.Now() })
		defer stop()
		_, _, gone, err := o.ExistsW(ctx, "/e1")
		must(t, err)
		c.Isolate(f)
		cut := time.Now()
		first := next(t, gone)
		expired := time.Now()
		if first.Type != zk.EventDeleted {
			t.Fatalf("%+v", first)
		}
		select {
		case suspended := <-lapsed:
			if !suspended.Before(expired) { // P11
				t.Errorf("suspended %v, expired %v after the cut", suspended.Sub(cut), expired.Sub(cut))
			}
		default:
			t.Error("expired before the owner was suspended")
		}
		if took := expired.Sub(cut); took < s.Timeout()-s.Timeout()/3 || took > 2*s.Timeout() { // P9, P10
			t.Errorf("expired after %v, the timeout is %v", took, s.Timeout())
		}
		if !errors.Is(context.Cause(lease), zk.ErrSuspended) || s.State() != zk.StateSuspended {
			t.Errorf("the cut-off member says %v, cause %v", s.State(), context.Cause(lease))
		}
		if _, ok, _ := o.Exists(ctx, "/e2"); ok { // P12: at the same zxid
			t.Error("/e2 outlived /e1")
		}
		c.Heal()
		<-s.Done()
		wants(t, s.Err(), zk.ErrSessionExpired)
		if s.State() != zk.StateExpired {
			t.Errorf("state %v", s.State())
		}
		_, err = s.Create(ctx, "/late", nil, zk.Persistent) // CG-11
		wants(t, err, zk.ErrSessionExpired)
	})
}

// A short silence suspends nothing; a longer one suspends and recovers (P9, SS-36).
func TestSuspendedRecovers(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 6 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		create(t, ctx, s, "/e", zk.Ephemeral)
		var seen []zk.State
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			for st, err := range s.States(ctx) {
				if err != nil {
					return
				}
				seen = append(seen, st)
			}
		}()
		// Nobody has a majority: nothing expires, everybody is suspended.
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(time.Minute)
		if s.State() != zk.StateSuspended {
			t.Errorf("state %v without a quorum", s.State())
		}
		c.Heal()
		create(t, ctx, s, "/e2", zk.Ephemeral)
		eventually(t, "it did not recover", func() bool { return s.State() == zk.StateActive })
		if _, ok, _ := s.Exists(ctx, "/e"); !ok { // SS-11
			t.Error("the session's ephemeral is gone")
		}
		must(t, s.Close())
		<-watched
		want := []zk.State{zk.StateActive, zk.StateSuspended, zk.StateActive, zk.StateClosed}
		if len(seen) != len(want) {
			t.Fatalf("states %v", seen)
		}
		for i := range want {
			if seen[i] != want[i] {
				t.Errorf("states %v", seen)
			}
		}
	})
}

// Closing a session deletes its ephemerals before it returns and ends its watches with an event (SS-12, WT-40).
func TestCloseSession(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, o := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(0))
		create(t, ctx, s, "/p", zk.Persistent)
		create(t, ctx, s, "/p/1", zk.Ephemeral)
		create(t, ctx, s, "/p/2", zk.Ephemeral)
		_, before, err := o.Exists(ctx, "/p")
		must(t, err)
		_ = before
		st, _, err := o.Exists(ctx, "/p")
		must(t, err)
		_, _, once, err := s.GetW(ctx, "/p")
		must(t, err)
		w, err := s.Watch(ctx, "/p", zk.WatchNode)
		must(t, err)
		must(t, s.Close())
		must(t, s.Close())
		now, _, err := o.Exists(ctx, "/p")
		must(t, err)
		if now.NumChildren != 0 || now.Cversion != st.Cversion+2 || now.Pzxid != o.LastZxid() { // DM-33
			t.Errorf("parent %+v was %+v", now, st)
		}
		if ev := next(t, once); ev.Type != zk.EventSession || ev.State != zk.StateClosed { // WT-40
			t.Errorf("one-shot: %+v", ev)
		}
		if _, ok := <-once; ok {
			t.Error("the channel is open")
		}
		var last zk.Event
		for ev := range w.Events() {
			last = ev
		}
		if last.Type != zk.EventSession {
			t.Errorf("persistent: %+v", last)
		}
		wants(t, w.Err(), zk.ErrClosed)
		_, _, err = s.Get(ctx, "/p")
		wants(t, err, zk.ErrClosed)
	})
}

// KillSession expires a session a full timeout later, and its owner notices first.
func TestKillSession(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(1))
		lease := s.Context()
		began := time.Now()
		must(t, c.Expire(ctx, s))
		if took := time.Since(began); took < s.Timeout()*2/3 || took > 2*s.Timeout() {
			t.Errorf("took %v", took)
		}
		if !errors.Is(context.Cause(lease), zk.ErrSuspended) {
			t.Errorf("the lease ended with %v", context.Cause(lease))
		}
		wants(t, c.Member(0).KillSession(ctx, 12345), zk.ErrUnknownSession)
	})
}

// The shared session is replaced after it has expired.
func TestSharedSession(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		a, err := m.Session(ctx)
		must(t, err)
		b, err := m.Session(ctx)
		must(t, err)
		if a != b {
			t.Error("two shared sessions")
		}
		must(t, c.Expire(ctx, a))
		d, err := m.Session(ctx)
		must(t, err)
		if d.ID() == a.ID() || d.State() != zk.StateActive {
			t.Errorf("after expiry: %v, was %v", d.ID(), a.ID())
		}
	})
}

// A listener's session lives by its touches, moves between members, and its old handle is refused (SS-15, SS-18).
func TestListenerSession(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		var events []zk.Event
		s, err := c.Member(0).NewSession(ctx, zk.SessionConfig{External: true, Events: func(ev zk.Event) { events = append(events, ev) }})
		must(t, err)
		l := s.Listener()
		create(t, ctx, s, "/e", zk.Ephemeral)
		for range 20 {
			time.Sleep(2 * time.Second)
			l.Touch()
		}
		if s.Err() != nil {
			t.Fatal("a session that was touched is over")
		}
		_, err = c.Member(1).Attach(ctx, s.ID(), []byte("wrong"), zk.SessionConfig{})
		wants(t, err, zk.ErrAuthFailed) // SS-14
		moved, err := c.Member(1).Attach(ctx, s.ID(), l.Password(), zk.SessionConfig{External: true})
		must(t, err)
		if moved.ID() != s.ID() {
			t.Error("another session")
		}
		_, err = s.Create(ctx, "/stale", nil, zk.Persistent)
		if !errors.Is(err, zk.ErrSessionMoved) && !errors.Is(err, zk.ErrClosed) { // SS-18
			t.Fatalf("through the old handle: %v", err)
		}
		create(t, ctx, moved, "/fresh", zk.Persistent)
		if z, ok, err := moved.Exists(ctx, "/e"); !ok || z.EphemeralOwner != s.ID() {
			t.Errorf("the ephemeral: %+v %v", z, err)
		}
		// Nobody touches it any more.
		<-moved.Done()
		wants(t, moved.Err(), zk.ErrSessionExpired)
		_, err = c.Member(2).Attach(ctx, s.ID(), l.Password(), zk.SessionConfig{})
		wants(t, err, zk.ErrSessionExpired)
	})
}

// ContextWhile ends when its znode goes, when the lease lapses, and not before.
func TestContextWhile(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		z := create(t, ctx, s, "/r", zk.Ephemeral)
		token := zk.Token(z.Stat.Czxid)
		held, cancel, err := s.ContextWhile(ctx, "/r", token)
		must(t, err)
		defer cancel()
		_, err = s.Set(ctx, "/r", nil, zk.AnyVersion)
		must(t, err)
		must(t, held.Err())
		must(t, s.Delete(ctx, "/r", zk.AnyVersion))
		if held.Err() == nil || !errors.Is(context.Cause(held), zk.ErrNoNode) {
			t.Errorf("cause %v", context.Cause(held))
		}
		create(t, ctx, s, "/r", zk.Ephemeral)
		_, _, err = s.ContextWhile(ctx, "/r", token)
		wants(t, err, zk.ErrNoNode)
		st, _, err := s.Exists(ctx, "/r")
		must(t, err)
		held, cancel, err = s.ContextWhile(ctx, "/r", zk.Token(st.Czxid))
		must(t, err)
		defer cancel()
		c.Isolate(0)
		<-held.Done()
		if !errors.Is(context.Cause(held), zk.ErrSuspended) {
			t.Errorf("cause %v", context.Cause(held))
		}
	})
}
