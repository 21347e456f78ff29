// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport/memnet"
	"github.com/seed-541fafe0/zk/zktest"
)

// until waits for a session's state.
func until(t *testing.T, ctx context.Context, s *zk.Session, want zk.State) {
	t.Helper()
	for st, err := range s.States(ctx) {
		must(t, err)
		if st == want {
			return
		}
	}
	t.Fatalf("it ended as %v, not %v", s.State(), want)
}

// A session is active from its opening. Its lease moves on with each heartbeat and ends when it says; local reads go on
// meanwhile, fresh ones do not; and a session that recovers has another lease (SS-26, SS-31, SS-36, CG-7).
func TestLease(t *testing.T) {
	base := zk.Config{SessionTimeout: 10 * time.Second, LeaseMargin: 900 * time.Millisecond}
	bubble(t, 3, zktest.Config{Base: base}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		began := time.Now()
		s := session(t, ctx, c.Member(f))
		if s.State() != zk.StateActive { // SS-31
			t.Errorf("a new session is %v", s.State())
		}
		if d := s.Deadline(); d.Before(began.Add(9100*time.Millisecond)) || d.After(time.Now().Add(9100*time.Millisecond)) { // SS-36
			t.Errorf("the lease ends %v after the opening", d.Sub(began))
		}
		create(t, ctx, s, "/e", zk.Ephemeral)
		lease, first := s.Context(), s.Deadline()
		for range 5 {
			time.Sleep(5 * time.Second)
			if d := s.Deadline(); !d.After(first) || time.Until(d) < 5*time.Second || lease.Err() != nil || s.Context() != lease {
				t.Errorf("the lease ends in %v, %v", time.Until(d), lease.Err())
			}
			first = s.Deadline()
		}
		c.Isolate(f)
		time.Sleep(2 * time.Second)
		end := s.Deadline()
		<-lease.Done()
		if now := time.Now(); !now.Equal(end) {
			t.Errorf("the lease ended %v after it was to end", now.Sub(end))
		}
		if s.State() != zk.StateSuspended || !errors.Is(context.Cause(lease), zk.ErrSuspended) || s.Context().Err() == nil || s.Err() != nil {
			t.Errorf("state %v, cause %v, error %v", s.State(), context.Cause(lease), s.Err())
		}
		select {
		case <-s.Done():
			t.Error("a suspended session is done")
		default:
		}
		for _, opt := range [][]zk.ReadOption{nil, {zk.Local}, {zk.ReadYourWrites}, {zk.Fresh(time.Minute)}} { // SS-26
			_, _, err := s.Get(ctx, "/e", opt...)
			must(t, err)
		}
		_, _, err := s.Get(ctx, "/e", zk.Fresh(5*time.Second)) // CG-7
		wants(t, err, zk.ErrStale)
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		if _, _, err := s.Get(short, "/e", zk.Linearizable); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a linearizable read: %v", err)
		}
		if err := s.Sync(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a sync: %v", err)
		}
		c.Heal()
		until(t, ctx, s, zk.StateActive)
		if s.Context().Err() != nil || lease.Err() == nil || !s.Deadline().After(end) {
			t.Errorf("after recovery the lease is %v, the old one %v", s.Context().Err(), lease.Err())
		}
		_, _, err = s.Get(ctx, "/e", zk.Fresh(time.Second))
		must(t, err)
		_, err = s.Set(ctx, "/e", nil, zk.AnyVersion)
		must(t, err)
	})
}

// The leader expires a silent session between its timeout and 250 ms later (SS-7). The timeout is what was asked for
// within the member's bounds (SS-4).
func TestExpiryTime(t *testing.T) {
	base := zk.Config{SessionTimeout: 5 * time.Second, MinTimeout: 2 * time.Second, MaxTimeout: 20 * time.Second}
	bubble(t, 3, zktest.Config{Base: base}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		var all sync.WaitGroup
		for _, host := range []int{l, (l + 1) % 3} {
			for asked, timeout := range map[time.Duration]time.Duration{
				0: 5 * time.Second, time.Millisecond: 2 * time.Second, 2345678 * time.Microsecond: 2345 * time.Millisecond,
				7 * time.Second: 7 * time.Second, time.Hour: 20 * time.Second,
			} {
				all.Go(func() {
					began := time.Now()
					s, err := c.Member(host).NewSession(ctx, zk.SessionConfig{Timeout: asked, External: true})
					if err != nil {
						t.Error(err)
						return
					}
					if s.Timeout() != timeout { // SS-4
						t.Errorf("asked for %v: timeout %v", asked, s.Timeout())
					}
					<-s.Done()
					// Its first and last heartbeat was sent when it was opened.
					if took := time.Since(began); took < timeout || took > timeout+250*time.Millisecond { // SS-7
						t.Errorf("timeout %v: expired after %v", timeout, took)
					}
					if !errors.Is(s.Err(), zk.ErrSessionExpired) {
						t.Error(s.Err())
					}
				})
			}
		}
		all.Wait()
	})
}

// Many sessions that expire together do so in requests of their own, at most 2,048 in a tick, so that others are not held
// up for long (SS-8).
func TestMassExpiry(t *testing.T) {
	const sessions = 5000
	var mu sync.Mutex
	ended := map[time.Time]int{}
	base := zk.Config{}
	base.Hooks.SessionEnded = func(zk.SessionInfo) {
		mu.Lock()
		defer mu.Unlock()
		ended[time.Now()]++
	}
	bubble(t, 1, zktest.Config{Base: base}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		o := session(t, ctx, m)
		var all sync.WaitGroup
		for range sessions {
			all.Go(func() {
				if _, err := m.NewSession(ctx, zk.SessionConfig{External: true}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		before := o.LastZxid()
		time.Sleep(o.Timeout() + 2*time.Second)
		if n := m.Stats().Sessions; n != 1 || o.LastZxid() != before+sessions { // SS-8
			t.Errorf("%d sessions are left after %d requests", n, o.LastZxid()-before)
		}
		if len(ended) < 3 {
			t.Errorf("they went at %d moments", len(ended))
		}
		for at, n := range ended {
			if n > 2048 {
				t.Errorf("%d went at %v", n, at)
			}
		}
	})
}

// Nothing expires without a leader, and a new leader grants every session its full timeout (SS-11).
func TestNewLeaderGrantsTimeout(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 6 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		host, other := (l+1)%3, (l+2)%3
		o := session(t, ctx, c.Member(other))
		// Nobody vouches for it after its opening.
		s, err := c.Member(host).NewSession(ctx, zk.SessionConfig{External: true})
		must(t, err)
		create(t, ctx, s, "/e", zk.Ephemeral)
		must(t, o.Sync(ctx))
		_, _, gone, err := o.ExistsW(ctx, "/e")
		must(t, err)
		time.Sleep(5500 * time.Millisecond)
		must(t, c.Crash(l))
		began := time.Now()
		next := func() {
			t.Helper()
			n := leader(t, ctx, c)
			elected := time.Now()
			if info := c.Member(n).RoleInfo(); n == l {
				t.Fatalf("%+v", info)
			}
			<-gone
			if took := time.Since(elected); took < s.Timeout()-100*time.Millisecond || took > s.Timeout()+time.Second {
				t.Errorf("it went %v after the election, %v after the crash", took, time.Since(began))
			}
		}
		next()
		// The same for however long there is none.
		s, err = c.Member(host).NewSession(ctx, zk.SessionConfig{External: true})
		must(t, err)
		create(t, ctx, s, "/e", zk.Ephemeral)
		must(t, o.Sync(ctx))
		_, _, gone, err = o.ExistsW(ctx, "/e")
		must(t, err)
		c.Isolate(host)
		time.Sleep(10 * s.Timeout())
		if got := hears(gone); got != "" {
			t.Fatalf("heard %q although there is no quorum", got)
		}
		c.Heal()
		next()
	})
}

// counting counts what a member sends on streams that it has dialled.
type counting struct {
	*memnet.Host
	sends, bytes atomic.Int64
}

func (h *counting) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := h.Host.Dial(ctx, addr)
	return &counted{c, h}, err
}

type counted struct {
	net.Conn
	h *counting
}

func (c *counted) Write(p []byte) (int, error) {
	c.h.sends.Add(1)
	c.h.bytes.Add(int64(len(p)))
	return c.Conn.Write(p)
}

// A member vouches for all its sessions in one heartbeat, which costs a few bytes for each of them, and no log entry
// (SS-6).
func TestOneHeartbeat(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		host := &counting{Host: c.Network().Host("counting")}
		m, err := zk.Open(ctx, zk.Config{ID: "counting", Transport: host, Join: []string{zktest.Name(0)}, NonVoter: true})
		must(t, err)
		defer m.Close()
		must(t, m.Ready(ctx))
		measure := func() (sends, bytes int64) {
			sends, bytes = host.sends.Load(), host.bytes.Load()
			time.Sleep(time.Minute)
			return host.sends.Load() - sends, host.bytes.Load() - bytes
		}
		s := session(t, ctx, m)
		one, little := measure()
		const sessions = 300
		all := make([]*zk.Session, sessions)
		for i := range all {
			all[i] = session(t, ctx, m)
		}
		before := s.LastZxid()
		many, much := measure()
		if one == 0 || many > one+one/10 || much-little > 5*sessions*20 { // SS-6: in a minute there are 18 heartbeats
			t.Errorf("%d sends of %d bytes for one session, %d of %d for %d", one, little, many, much, sessions)
		}
		if now := s.LastZxid(); now != before { // DM-37
			t.Errorf("zxid %v was %v", now, before)
		}
		for _, s := range all {
			if s.State() != zk.StateActive {
				t.Fatalf("state %v", s.State())
			}
		}
	})
}

// An external session lives by its touches alone: each is passed on with one heartbeat (SS-6).
func TestTouch(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 6 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member((leader(t, ctx, c) + 1) % 3)
		s, err := m.NewSession(ctx, zk.SessionConfig{External: true})
		must(t, err)
		l := s.Listener()
		time.Sleep(3 * time.Second)
		opened := s.Deadline()
		l.Touch()
		time.Sleep(s.Timeout()/3 + time.Millisecond)
		touched := s.Deadline()
		if !touched.After(opened) {
			t.Error("a touch does not move the lease")
		}
		time.Sleep(3 * time.Second)
		if d := s.Deadline(); d != touched {
			t.Errorf("the lease has moved by %v without a touch", d.Sub(touched))
		}
		until(t, ctx, s, zk.StateSuspended)
		if !time.Now().Equal(touched) {
			t.Errorf("it was suspended %v after its lease", time.Since(touched))
		}
		<-s.Done()
		if took := time.Since(touched); took > time.Second {
			t.Errorf("it ended %v after its lease", took)
		}
	})
}

// Who attaches a session has a lease of its own, whatever was left of the time before, and the leader knows: it does not
// expire the session before that lease ends, nor long after (SS-4, SS-15, P10, P11).
func TestAttachRenews(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before time.Duration // the timeout it was opened with
		silent time.Duration // how long nobody vouches for it
	}{
		{"at the last moment", 10 * time.Second, 9500 * time.Millisecond},
		{"from a longer timeout", 2 * time.Minute, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				l := leader(t, ctx, c)
				host, other := (l+1)%3, (l+2)%3
				c.Network().Latency(20*time.Millisecond, 20*time.Millisecond)
				o := session(t, ctx, c.Member(l))
				s, err := c.Member(host).NewSession(ctx, zk.SessionConfig{External: true, Timeout: tc.before})
				must(t, err)
				create(t, ctx, s, "/e", zk.Ephemeral)
				must(t, o.Sync(ctx))
				_, _, gone, err := o.ExistsW(ctx, "/e")
				must(t, err)
				time.Sleep(tc.silent)
				moved, err := c.Member(other).Attach(ctx, s.ID(), s.Listener().Password(), zk.SessionConfig{Timeout: 10 * time.Second})
				must(t, err)
				// No heartbeat of the new owner gets through.
				c.Isolate(other)
				lease := moved.Context()
				lapsed := make(chan time.Time, 1)
				context.AfterFunc(lease, func() { lapsed <- time.Now() })
				next(t, gone)
				expired := time.Now()
				select {
				case at := <-lapsed:
					if took := expired.Sub(at); took > moved.Timeout() { // P10
						t.Errorf("it expired %v after its lease had ended", took)
					}
				default: // P11
					t.Errorf("it expired %v before its lease was to end", moved.Deadline().Sub(expired))
				}
			})
		})
	}
}

// A session that is attached while the leader has its expiry under way lives on: that expiry, and what the leader holds
// against the attachment before, are void (SS-9, P9).
func TestAttachMeetsExpiry(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		host, other := (l+1)%3, (l+2)%3
		o := session(t, ctx, c.Member(l))
		create(t, ctx, o, "/busy", zk.Persistent)
		s, err := c.Member(host).NewSession(ctx, zk.SessionConfig{External: true})
		must(t, err)
		time.Sleep(s.Timeout() - 10*time.Millisecond)
		// The leader can commit nothing for a while. Its own requests wait for the one in front; the other member's
		// reach it, and are in the log before the expiry is.
		c.Network().Cut(zktest.Name(l), zktest.Name(host))
		c.Network().Cut(zktest.Name(l), zktest.Name(other))
		busy := o.Listener().Go(ctx, nil, set("/busy"))
		attached := make(chan error, 1)
		var moved *zk.Session
		go func() {
			var err error
			moved, err = c.Member(other).Attach(ctx, s.ID(), s.Listener().Password(), zk.SessionConfig{})
			attached <- err
		}()
		time.Sleep(300 * time.Millisecond) // a tick is among them
		c.Heal()
		must(t, <-attached)
		must(t, (<-busy.Done).Error)
		time.Sleep(3 * moved.Timeout())
		if moved.State() != zk.StateActive {
			t.Errorf("%v, %v", moved.State(), moved.Err())
		}
	})
}

// A heartbeat that hangs, because the leader it went to is gone, keeps no session from being vouched for.
func TestHeartbeatHangs(t *testing.T) {
	base := zk.Config{SessionTimeout: time.Minute, MinTimeout: time.Second}
	bubble(t, 3, zktest.Config{Base: base}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		m := c.Member((l + 1) % 3)
		session(t, ctx, m)
		// A heartbeat is due every 20 s. One is under way when the leader is cut off.
		c.Network().Slow(m.ID(), zktest.Name(l), 500*time.Millisecond)
		time.Sleep(20*time.Second + 100*time.Millisecond)
		c.Isolate(l)
		eventually(t, "no new leader", func() bool {
			info := m.RoleInfo()
			return info.Leader != "" && info.Leader != zktest.Name(l)
		})
		s, err := m.NewSession(ctx, zk.SessionConfig{Timeout: time.Second})
		must(t, err)
		time.Sleep(10 * time.Second)
		if s.State() != zk.StateActive {
			t.Errorf("state %v, %v", s.State(), s.Err())
		}
	})
}
