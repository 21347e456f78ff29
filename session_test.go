// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
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
		synctest.Wait() // States yields the newest state only: let it be seen
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

// A session is opened by one replicated request: when the handle is there its member has applied it, and every member
// knows it, its password included, which is random (SS-2, SS-3, SS-22, SS-31).
func TestOpenSession(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		m := c.Member(f)
		before := m.Applied()
		s, err := m.NewSession(ctx, zk.SessionConfig{Name: "one", Timeout: 20 * time.Second})
		must(t, err)
		if z := m.Applied(); z != before+1 || s.State() != zk.StateActive || s.Member() != m { // SS-3, SS-31
			t.Errorf("zxid %v was %v; %v", z, before, s.State())
		}
		must(t, c.Quiesce(ctx))
		for i := range 3 { // SS-22
			list, err := c.Member(i).Sessions(ctx)
			must(t, err)
			if len(list) != 1 || list[0].ID != s.ID() || list[0].Name != "one" || list[0].Timeout != 20*time.Second || list[0].Member != m.ID() || list[0].Killed {
				t.Errorf("member %d: %+v", i, list)
			}
		}
		password := s.Listener().Password()
		if other := session(t, ctx, m).Listener().Password(); len(password) != 16 || len(other) != 16 || string(password) == string(other) { // SS-2
			t.Errorf("passwords %x and %x", password, other)
		}
		// Without a quorum there is no session.
		c.Isolate(f)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := m.NewSession(short, zk.SessionConfig{}); !errors.Is(err, context.DeadlineExceeded) || !zk.MaybeApplied(err) {
			t.Errorf("cut off: %v", err)
		}
		c.Heal()
		// The password outlives everybody who knew it.
		create(t, ctx, s, "/e", zk.Ephemeral)
		for i := range 3 {
			must(t, c.Crash(i))
		}
		for i := range 3 {
			must(t, c.Restart(ctx, i))
		}
		must(t, c.Member(f).Ready(ctx))
		again, err := c.Member(f).Attach(ctx, s.ID(), password, zk.SessionConfig{})
		must(t, err)
		if z, ok, err := again.Exists(ctx, "/e"); !ok || z.EphemeralOwner != s.ID() {
			t.Errorf("the ephemeral: %+v, %v", z, err)
		}
		// SS-5: those that nobody attached, and the one that nobody has a handle of, expire.
		time.Sleep(3 * s.Timeout())
		list, err := c.Member(f).Sessions(ctx)
		must(t, err)
		if len(list) != 1 || list[0].ID != s.ID() {
			t.Errorf("sessions %+v", list)
		}
	})
}

// What an owner that was cut off had under way is answered by the state once it is back: refused where its session is
// over. Who stopped waiting is told that the outcome is unknown. The session stays over, and another one begins with
// nothing (SS-20, SS-32, SS-34, SS-35, CG-11).
func TestWritesOfEndedSession(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		m := c.Member(f)
		s, o := session(t, ctx, m), session(t, ctx, c.Member(l))
		long, err := m.NewSession(ctx, zk.SessionConfig{Timeout: 2 * time.Minute})
		must(t, err)
		create(t, ctx, s, "/e", zk.Ephemeral)
		must(t, o.Sync(ctx))
		_, _, gone, err := o.ExistsW(ctx, "/e")
		must(t, err)
		_, err = s.Watch(ctx, "/e", zk.WatchNode)
		must(t, err)
		c.Isolate(f)
		first := s.Listener().Go(ctx, nil, zk.OpCreate("/late-1", nil, zk.Persistent)) // in a frame
		time.Sleep(time.Second)
		second := s.Listener().Go(ctx, nil, zk.OpCreate("/late-2", nil, zk.Ephemeral)) // in the queue
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		stopped := long.Listener().Go(ctx, nil, zk.OpCreate("/driven-", nil, zk.Sequential))
		_, err = s.Create(short, "/late-3", nil, zk.Persistent)
		if err == nil || zk.MaybeApplied(err) { // it was in the queue: withdrawn
			t.Errorf("who stopped waiting: %v", err)
		}
		if ev := next(t, gone); ev.Type != zk.EventDeleted {
			t.Errorf("%+v", ev)
		}
		if s.Err() != nil || s.State() != zk.StateSuspended {
			t.Errorf("cut off it cannot know: %v, %v", s.State(), s.Err())
		}
		c.Heal()
		for _, call := range []*zk.Call{first, second} { // SS-20, SS-32
			<-call.Done
			wants(t, call.Error, zk.ErrSessionExpired)
			if zk.MaybeApplied(call.Error) {
				t.Errorf("the outcome is called unknown: %v", call.Error)
			}
		}
		<-stopped.Done
		must(t, stopped.Error)
		must(t, o.Sync(ctx))
		for _, p := range []string{"/late-1", "/late-2", "/late-3", "/e"} { // CG-11
			if _, ok, _ := o.Exists(ctx, p); ok {
				t.Errorf("%s is there", p)
			}
		}
		// SS-34: a write whose caller leaves is driven on, under the same number, and applied once.
		c.Isolate(f)
		short, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err = long.Create(short, "/driven-", nil, zk.Sequential)
		if !zk.MaybeApplied(err) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who stopped waiting: %v", err)
		}
		time.Sleep(5 * time.Second) // it is sent again and again
		c.Heal()
		create(t, ctx, long, "/after", zk.Persistent)
		names, _, err := long.Children(ctx, "/")
		must(t, err)
		if len(names) != 4 || m.Stats().Redrives == 0 { // after, two driven, zookeeper
			t.Errorf("children %v", names)
		}
		// SS-35
		for range 3 {
			wants(t, s.Err(), zk.ErrSessionExpired)
			_, err = s.Create(ctx, "/dead", nil, zk.Persistent)
			wants(t, err, zk.ErrSessionExpired)
			time.Sleep(s.Timeout())
		}
		if n := m.Stats().Watches; n != 0 {
			t.Errorf("%d entries are left", n)
		}
		create(t, ctx, session(t, ctx, m), "/e", zk.Ephemeral)
	})
}

// A killed session cannot be kept alive by attaching it again and again (D28).
func TestKilledSessionCannotBeAttached(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		password := s.Listener().Password()
		must(t, m.KillSession(ctx, s.ID()))
		_, err := m.Attach(ctx, s.ID(), password, zk.SessionConfig{})
		wants(t, err, zk.ErrSessionExpired)
		<-s.Done()
		wants(t, s.Err(), zk.ErrSessionExpired)
	})
}
