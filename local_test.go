// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// localClient is a client of a stand-in listener with a local session.
func localClient(t *testing.T, m *zk.Member, cfg zk.SessionConfig) *client {
	t.Helper()
	c := &client{done: make(chan *zk.Call, 1024)}
	cfg.Events = c.hear
	s, err := m.LocalSession(cfg)
	must(t, err)
	c.s, c.l = s, s.Listener()
	return c
}

// vouch keeps a client's session alive for d.
func (c *client) vouch(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(c.s.Timeout() / 4) {
		c.l.Touch()
	}
}

func ephemeral(path string) zk.Op { return zk.OpCreate(path, nil, zk.Ephemeral) }

// Nothing in the log opens, renews or closes a local session; it reads, watches and writes as others do, under its own
// identities, and no other member knows it (SS-22, SS-25, DM-67).
func TestLocalSession(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		m := c.Member((l + 1) % 3)
		must(t, m.Ready(ctx))
		before := m.Stats()
		w := localClient(t, m, zk.SessionConfig{Auth: []zk.Auth{{Scheme: "ip", Cred: []byte("10.0.0.1")}}})
		if w.s.ID()>>56 != 2 || len(w.l.Password()) != 16 || w.s.Timeout() == 0 {
			t.Errorf("session %v", w.s.ID())
		}
		w.vouch(5 * w.s.Timeout())
		if st := w.s.State(); st != zk.StateActive {
			t.Errorf("the session is %v", st)
		}
		must(t, w.l.AddAuth(ctx, zk.Auth{Scheme: "digest", Cred: []byte("u:p")}, zk.Auth{Scheme: "digest", Cred: []byte("u:p")}))
		if ids := w.l.Identities(); len(ids) != 2 {
			t.Errorf("identities %v", ids)
		}
		if st := m.Stats(); st.Applied != before.Applied || st.Frames != before.Frames || st.Sessions != before.Sessions || st.LocalSessions != 1 {
			t.Errorf("%+v, and before %+v", st, before)
		}

		w.exists(t, ctx, "/p", false)
		for _, o := range []zk.Op{
			node("/p"), zk.OpCreate("/p/mine", nil, zk.Persistent).WithACL(zk.CreatorACL()...), zk.OpCreate("/p/s-", nil, zk.Sequential),
			zk.OpCreate("/p/c", nil, zk.Container), zk.OpCreate("/p/t", nil, zk.Persistent).WithTTL(time.Minute),
		} {
			w.l.Go(ctx, w.done, o)
		}
		doAll(t, ctx, w.s, zk.OpCheck("/p/t", 0))
		w.expect(t, "writes", "1:/p ok ok ok ok ok")
		if _, _, err := session(t, ctx, m).Get(ctx, "/p/mine"); !errors.Is(err, zk.ErrNoAuth) {
			t.Errorf("another session reads it: %v", err)
		}
		w.read(t, ctx, "/p/mine", 0)
		_, err := w.s.Create(ctx, "/e", nil, zk.Ephemeral)
		wants(t, err, zk.ErrEphemeralOnLocalSession)
		call := <-w.l.Go(ctx, nil, node("/p/x"), ephemeral("/e"), del("/p")).Done
		if !errors.Is(call.Error, zk.ErrEphemeralOnLocalSession) || !slices.Equal(call.Codes, []zk.Code{0, zk.ErrEphemeralOnLocalSession, zk.ErrInconsistent}) {
			t.Errorf("%v, codes %v", call.Error, call.Codes)
		}
		w.exists(t, ctx, "/p/x", false)
		if paths, _, err := w.l.Ephemerals(ctx, ""); len(paths) != 0 || err != nil {
			t.Errorf("ephemerals %q, %v", paths, err)
		}

		_, err = c.Member(l).Attach(ctx, w.s.ID(), w.l.Password(), zk.SessionConfig{})
		wants(t, err, zk.ErrSessionExpired)
		must(t, w.s.Sync(ctx))
		applied := m.Applied()
		must(t, w.s.Close())
		must(t, w.s.Close())
		w.expect(t, "the end", "session:closed")
		wants(t, w.s.Err(), zk.ErrClosed)
		if st := m.Stats(); st.Applied != applied || st.LocalSessions != 0 || st.Watches != 0 {
			t.Errorf("closed: %+v", st)
		}
	})
}

// Its member expires a local session whose client is silent, with a leader or without one, and gives it back to whoever
// attaches it in time (SS-22, SS-14, SS-16).
func TestLocalSessionExpires(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		i := (leader(t, ctx, c) + 1) % 3
		m := c.Member(i)
		must(t, m.Ready(ctx))
		applied := m.Applied()
		for _, cut := range []bool{false, true} {
			if cut {
				c.Isolate(i)
			}
			silent, gone, lively := localClient(t, m, zk.SessionConfig{}), localClient(t, m, zk.SessionConfig{}), localClient(t, m, zk.SessionConfig{})
			gone.l.Detach()
			timeout, began := silent.s.Timeout(), time.Now()
			lively.vouch(timeout * 3 / 4)
			if silent.s.Err() != nil || m.Stats().LocalSessions != 3 {
				t.Errorf("%v before its time, %d are left", silent.s.Err(), m.Stats().LocalSessions)
			}
			lively.l.Touch()
			<-silent.s.Done()
			late := 10 * time.Millisecond
			if cut { // the keeper waits for an answer to its heartbeat
				late = timeout / 3
			}
			if took := time.Since(began); took < timeout || took > timeout+late {
				t.Errorf("expired after %v, its timeout is %v", took, timeout)
			}
			silent.expect(t, "the end", "session:expired")
			wants(t, silent.s.Err(), zk.ErrSessionExpired)
			eventually(t, "one session is left", func() bool { return m.Stats().LocalSessions == 1 })
			if !cut {
				_, err := m.Attach(ctx, gone.s.ID(), gone.l.Password(), zk.SessionConfig{}) // of no use, but asks the ensemble
				wants(t, err, zk.ErrSessionExpired)
				applied++
			}
			must(t, lively.s.Close())
		}
		c.Heal()
		must(t, m.Ready(ctx))
		if z := m.Applied(); z != applied {
			t.Errorf("%v applied, and before %v", z, applied)
		}

		w := localClient(t, m, zk.SessionConfig{})
		w.exists(t, ctx, "/n", false)
		_, err := m.Attach(ctx, w.s.ID(), []byte("0123456789abcdef"), zk.SessionConfig{})
		wants(t, err, zk.ErrAuthFailed)
		must(t, w.s.Err())
		again, err := attach(ctx, m, w.s.ID(), w.l.Password(), zk.SessionConfig{Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("u:p")}}})
		must(t, err)
		w.expect(t, "attached anew", "session:closed")
		wants(t, w.s.Err(), zk.ErrSessionMoved)
		call := w.l.Go(ctx, nil, node("/n"))
		wants(t, call.Error, zk.ErrSessionMoved)
		w.l.Detach() // of a connection that comes to know it late
		if again.s.ID() != w.s.ID() || string(again.l.Password()) != string(w.l.Password()) || m.Stats().LocalSessions != 1 || m.Stats().Watches != 0 {
			t.Errorf("%v after %v, %+v", again.s.ID(), w.s.ID(), m.Stats())
		}
		again.l.Detach()
		time.Sleep(again.s.Timeout() * 3 / 4)
		last, err := attach(ctx, m, w.s.ID(), w.l.Password(), zk.SessionConfig{})
		must(t, err)
		last.vouch(2 * last.s.Timeout())
		if _, err := last.s.Create(ctx, "/n", nil, zk.Persistent); err != nil || m.Applied() != applied+1 {
			t.Errorf("%v, %v applied, and before %v", err, m.Applied(), applied)
		}
	})
}

// A local session lives through a change of leader, and is suspended while no leader confirms its member (SS-22, D29).
func TestLocalSessionSuspends(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		i := (l + 1) % 3
		w := localClient(t, c.Member(i), zk.SessionConfig{})
		w.vouch(w.s.Timeout())
		must(t, c.Crash(l))
		var calls sync.WaitGroup
		calls.Go(func() { create(t, ctx, w.s, "/a", zk.Persistent) })
		w.vouch(2 * w.s.Timeout())
		calls.Wait()
		if st := w.s.State(); st != zk.StateActive {
			t.Errorf("with another leader it is %v", st)
		}
		lease := w.s.Context()
		c.Isolate(i)
		w.vouch(w.s.Timeout())
		if st := w.s.State(); st != zk.StateSuspended || !errors.Is(context.Cause(lease), zk.ErrSuspended) {
			t.Errorf("without a leader it is %v, the lease's end %v", st, context.Cause(lease))
		}
		c.Heal()
		w.vouch(w.s.Timeout())
		if st := w.s.State(); st != zk.StateActive {
			t.Errorf("healed, it is %v", st)
		}
	})
}

// An upgrade comes before all that is asked for after it: id, password, identities and watches stay, and from then on
// the session is as any other (SS-23, SS-24, DM-67, SS-18).
func TestUpgrade(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		i := (leader(t, ctx, c) + 1) % 3
		m, other := c.Member(i), c.Member((i+1)%3)
		must(t, m.Ready(ctx))
		before := m.Applied()
		w := localClient(t, m, zk.SessionConfig{Name: "w", MaxEphemerals: 3, Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("u:p")}}})
		w.exists(t, ctx, "/m/e", false)
		must(t, w.l.AddWatch("/", false))
		w.l.Go(ctx, w.done, node("/m"))
		must(t, w.l.Upgrade(ctx))
		must(t, w.l.Upgrade(ctx))
		w.l.Go(ctx, w.done, ephemeral("/e").WithACL(zk.CreatorACL()...))
		w.l.Go(ctx, w.done, node("/x"), ephemeral("/m/e"), set("/m"))
		w.l.Go(ctx, w.done, ephemeral("/m/none/e"))
		must(t, w.l.AddAuth(ctx, zk.Auth{Scheme: "ip", Cred: []byte("10.0.0.1")}))
		must(t, w.l.Upgrade(ctx))
		w.expect(t, "writes", "4:/ ok 4:/ ok 4:/ 1:/m/e ok create /m/none/e: no node")
		now := m.Applied()
		if now != before+6 { // four writes, the upgrade, the identity
			t.Errorf("%v applied, and before %v", now, before)
		}
		if st := m.Stats(); st.Sessions != 1 || st.LocalSessions != 0 {
			t.Errorf("%d sessions, %d local ones", st.Sessions, st.LocalSessions)
		}
		if _, st, err := w.s.Get(ctx, "/e"); err != nil || st.EphemeralOwner != w.s.ID() {
			t.Errorf("owner %v, %v", st.EphemeralOwner, err)
		}
		if _, err := w.s.Create(ctx, "/e3", nil, zk.Ephemeral); err != nil {
			t.Error(err)
		}
		_, err := w.s.Create(ctx, "/e4", nil, zk.Ephemeral) // MaxEphemerals
		wants(t, err, zk.ErrThrottled)
		w.vouch(3 * w.s.Timeout())
		if st := w.s.State(); st != zk.StateActive {
			t.Errorf("the session is %v", st)
		}
		must(t, c.Quiesce(ctx))
		list, err := other.Sessions(ctx)
		if err != nil || len(list) != 1 || list[0].ID != w.s.ID() || list[0].Name != "w" || list[0].Member != m.ID() || list[0].Ephemerals != 3 {
			t.Errorf("sessions %+v, %v", list, err)
		}

		// It moves to another member, with its ephemerals; what comes through the former one is refused.
		w.heard()
		moved, err := attach(ctx, other, w.s.ID(), w.l.Password(), zk.SessionConfig{})
		must(t, err)
		must(t, c.Quiesce(ctx))
		w.expect(t, "moved", "session:closed")
		wants(t, w.s.Err(), zk.ErrSessionMoved)
		if paths, _, err := moved.l.Ephemerals(ctx, ""); strings.Join(paths, " ") != "/e /e3 /m/e" || err != nil {
			t.Errorf("ephemerals %q, %v", paths, err)
		}
		back, err := attach(ctx, m, w.s.ID(), w.l.Password(), zk.SessionConfig{External: true, Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("u:p")}}})
		must(t, err)
		back.exists(t, ctx, "/e", true)
		eventually(t, "the session expires", func() bool { return m.Stats().Sessions == 0 })
		back.expect(t, "the end", "2:/e session:expired")
		if st := m.Stats(); st.Ephemerals != 0 {
			t.Errorf("%d ephemerals are left", st.Ephemerals)
		}
	})
}

// While an upgrade is on its way, what was asked for is not lost; attached elsewhere the session is unknown still, and on
// its own member the attaching comes after the upgrade (SS-24).
func TestUpgradeUnderWay(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		i := (l + 1) % 3
		m := c.Member(i)
		w := localClient(t, m, zk.SessionConfig{})
		c.Isolate(i)
		must(t, w.l.Upgrade(ctx))
		w.l.Go(ctx, w.done, ephemeral("/e"))
		if n := m.Stats().LocalSessions; n != 1 {
			t.Errorf("%d local sessions", n)
		}
		_, err := c.Member(l).Attach(ctx, w.s.ID(), w.l.Password(), zk.SessionConfig{})
		wants(t, err, zk.ErrSessionExpired)
		w.l.Detach()
		w.expect(t, "let go of", "session:closed")
		var again *client
		var work sync.WaitGroup
		work.Go(func() { again, err = attach(ctx, m, w.s.ID(), w.l.Password(), zk.SessionConfig{}) })
		synctest.Wait()
		if again != nil || err == nil && c.Member(l).Stats().Sessions != 0 {
			t.Error("attached before the upgrade is applied")
		}
		c.Heal()
		work.Wait()
		must(t, err)
		w.expect(t, "the write", "ok")
		if paths, _, err := again.l.Ephemerals(ctx, ""); len(paths) != 1 || err != nil {
			t.Errorf("ephemerals %q, %v", paths, err)
		}
		again.vouch(2 * again.s.Timeout())
		again.exists(t, ctx, "/e", true)
	})
}

// Whoever creates after its own call of Upgrade may create ephemerals, whoever else calls it too (SS-24).
func TestUpgradeByMany(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	create(t, ctx, s, "/d", zk.Persistent)
	for round := range 20 {
		w, err := m.LocalSession(zk.SessionConfig{})
		must(t, err)
		l := w.Listener()
		var work sync.WaitGroup
		for i := range 8 {
			work.Go(func() {
				if _, err := w.Set(ctx, "/d", nil, zk.AnyVersion); err != nil {
					t.Error(err)
				}
				if err := l.AddAuth(ctx, zk.Auth{Scheme: "digest", Cred: fmt.Append(nil, "u:", i)}); err != nil {
					t.Error(err)
				}
				if err := l.Upgrade(ctx); err != nil {
					t.Error(err)
				}
				if _, err := w.Create(ctx, fmt.Sprintf("/d/%d-%d", round, i), nil, zk.Ephemeral); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		// What the session is does not depend on when it was upgraded.
		probe := zk.OpCreate(fmt.Sprint("/d/acl-", round), nil, zk.Persistent).WithACL(zk.CreatorACL()...)
		_, err = w.Do(ctx, probe)
		must(t, err)
		acl, _, err := w.GetACL(ctx, probe.Path())
		if err != nil || len(acl) != 8 {
			t.Fatalf("%d identities, %v", len(acl), err)
		}
		must(t, w.Close())
	}
	if st := m.Stats(); st.Ephemerals != 0 || st.Sessions != 1 || st.LocalSessions != 0 {
		t.Errorf("%+v", st)
	}
}

// A member that takes its leave ends its local sessions and opens none; one too large is refused (SS-22).
func TestLocalSessionEndsWithItsMember(t *testing.T) {
	ctx, m, _ := single(t, zk.Config{})
	many := slices.Repeat([]zk.Auth{{Scheme: "digest", Cred: []byte("u:p")}}, 300)
	_, err := m.LocalSession(zk.SessionConfig{Auth: many})
	wants(t, err, zk.ErrTooLarge)
	_, err = m.LocalSession(zk.SessionConfig{Auth: []zk.Auth{{Scheme: "none"}}})
	wants(t, err, zk.ErrAuthFailed)
	w := localClient(t, m, zk.SessionConfig{})
	wants(t, w.l.AddAuth(ctx, zk.Auth{Scheme: "x509", Cred: make([]byte, 1<<17)}), zk.ErrTooLarge)
	if ids := w.l.Identities(); len(ids) != 0 {
		t.Errorf("identities %v", ids)
	}
	must(t, m.Shutdown(ctx))
	w.expect(t, "the end", "session:closed")
	wants(t, w.l.Upgrade(ctx), zk.ErrClosed)
	_, err = m.LocalSession(zk.SessionConfig{})
	wants(t, err, zk.ErrClosed)
	_, err = m.Attach(ctx, w.s.ID(), w.l.Password(), zk.SessionConfig{})
	wants(t, err, zk.ErrClosed)
}

// A snapshot that jumps over an upgrade leaves the session what the ensemble knows it to be, and local sessions alone
// (SS-24, D11).
func TestSnapshotJumpsOverUpgrade(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		i := (l + 1) % 3
		m := c.Member(i)
		o := session(t, ctx, c.Member(l))
		w, local := localClient(t, m, zk.SessionConfig{}), localClient(t, m, zk.SessionConfig{})
		create(t, ctx, w.s, "/n", zk.Persistent) // now there is a stream to the leader
		must(t, c.Quiesce(ctx))
		local.read(t, ctx, "/n", 0)
		// What the leader sends does not arrive; what this member sends does.
		synctest.Wait() // until every call has its answer: its stream is free
		c.Network().Cut(zktest.Name(l), zktest.Name(i))
		create(t, ctx, o, "/other", zk.Persistent) // this the leader sends once it can
		synctest.Wait()
		must(t, w.l.Upgrade(ctx))
		eventually(t, "the upgrade was not committed", func() bool {
			w.l.Touch()
			local.l.Touch()
			return c.Member(l).Stats().Sessions == 2
		})
		w.l.Go(ctx, w.done, ephemeral("/e"))
		for range 200 {
			doAll(t, ctx, o, set("/n"))
		}
		must(t, c.Member(l).Compact(ctx))
		must(t, c.Member((l+2)%3).Compact(ctx))
		c.Network().Reset(zktest.Name(l), zktest.Name(i)) // entries are under way
		c.Heal()
		eventually(t, "it was not upgraded", func() bool {
			w.l.Touch()
			local.l.Touch()
			return m.Stats().LocalSessions == 1
		})
		must(t, c.Quiesce(ctx))
		w.expect(t, "the write", "ok")
		eventually(t, "no snapshot was sent", func() bool { return c.Member(l).Stats().SnapshotsSent > 0 })
		local.expect(t, "the difference", "3:/n")
		w.vouch(2 * w.s.Timeout())
		w.exists(t, ctx, "/e", true)
		if st := w.s.State(); st != zk.StateActive {
			t.Errorf("the session is %v", st)
		}
	})
}
