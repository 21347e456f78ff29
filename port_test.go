// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// What a listener writes is checked by the state alone: a refusal takes a zxid, and the first check that fails in
// ZooKeeper's order decides (DM-17, DM-37, DM-40, DM-41, DM-43, DM-62).
func TestListenerLeavesChecksToTheState(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	l := s.Listener()
	create(t, ctx, s, "/a", zk.Persistent)
	bad := zk.ACL{Perm: zk.PermAll, Scheme: "world", ID: "nobody"}
	for what, tc := range map[string]struct {
		op   zk.Op
		want zk.Code
	}{
		"delete /a/":        {del("/a/"), zk.ErrNoNode},
		"delete a":          {del("a"), zk.ErrBadArguments},
		"set /a/":           {set("/a/"), zk.ErrBadArguments},
		"create /b/":        {node("/b/"), zk.ErrNoNode},
		"create /a/":        {node("/a/"), zk.ErrBadArguments},
		"create, bad ACL":   {node("/none/\x01").WithACL(bad), zk.ErrInvalidACL},
		"create, no ACL":    {node("/b").WithACL(), zk.ErrInvalidACL},
		"create, bad flag":  {zk.OpCreate("a", nil, 1<<15).WithACL(bad), zk.ErrBadArguments},
		"set ACL, bad":      {zk.OpSetACL("/none", []zk.ACL{bad}, -1), zk.ErrInvalidACL},
		"set ACL, none":     {zk.OpSetACL("/a", nil, -1), zk.ErrInvalidACL},
		"set ACL, aversion": {zk.OpSetACL("/a", zk.OpenACL(), 7), zk.ErrBadVersion},
	} {
		before := m.Applied()
		call := <-l.Go(ctx, nil, tc.op).Done
		if !hasCode(call.Error, tc.want) || call.Zxid != before+1 || m.Applied() != call.Zxid {
			t.Errorf("%s: %v at %v after %v, want %v", what, call.Error, call.Zxid, before, tc.want)
		}
	}
	if call := <-l.Go(ctx, nil, zk.OpSetACL("/a", zk.ReadACL(), 0)).Done; call.Error != nil || call.Results[0].Stat.Aversion != 1 {
		t.Errorf("set ACL: %+v", call)
	}
	many := slices.Repeat([]zk.Op{zk.OpCheck("/a", zk.AnyVersion)}, 5000)
	if call := <-l.Go(ctx, nil, many...).Done; call.Error != nil || len(call.Results) != len(many) {
		t.Errorf("many steps: %v", call.Error)
	}
	_, err := s.Txn(ctx, many...)
	wants(t, err, zk.ErrTooLarge)
	if _, _, _, err := l.Stat(ctx, "/a\x00", true); !errors.Is(err, zk.ErrBadArguments) { // DM-45
		t.Errorf("exists with NUL: %v", err)
	}
	if n := m.Stats().Watches; n != 0 {
		t.Errorf("%d watches are left", n)
	}
}

// A listener's read of an access control list has the zxid of the state it shows, takes any path, and hides digests
// (DM-8, DM-50).
func TestListenerACL(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	open := s.Listener()
	owner := connect(t, ctx, m, zk.SessionConfig{Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("u:p")}}})
	doAll(t, ctx, owner.s, node("/mine").WithACL(zk.CreatorACL()[0], world(zk.PermRead)))
	acl, st, z, err := owner.l.ACL(ctx, "/mine")
	if err != nil || acl[0].ID != zk.DigestID("u:p") || st.Czxid == 0 || z != m.Applied() {
		t.Errorf("owner: %v %+v %v %v", acl, st, z, err)
	}
	if acl, _, _, err := open.ACL(ctx, "/mine"); err != nil || acl[0].ID != "u:x" {
		t.Errorf("others: %v %v", acl, err)
	}
	if acl, _, _, err := open.ACL(ctx, ""); err != nil || !slices.Equal(acl, zk.OpenACL()) {
		t.Errorf("root: %v %v", acl, err)
	}
	for _, p := range []string{"/none", "/mine/", "x"} {
		if _, _, z, err := open.ACL(ctx, p); !errors.Is(err, zk.ErrNoNode) || z != m.Applied() {
			t.Errorf("%q: %v %v", p, z, err)
		}
	}
}

// Counting is right for few and for many, and does not ask who may read what is below (DM-48).
func TestListenerCountsMany(t *testing.T) {
	ctx, _, s := single(t, zk.Config{})
	create(t, ctx, s, "/big", zk.Persistent)
	var ops []zk.Op
	for i := range 700 {
		dir := fmt.Sprintf("/big/%d", i)
		ops = append(ops, node(dir), node(dir+"/x").WithACL(world(zk.PermAll&^zk.PermRead)))
	}
	call := <-s.Listener().Go(ctx, nil, ops...).Done
	must(t, call.Error)
	n, z, err := s.Listener().Descendants(ctx, "/big")
	if n != len(ops) || z != call.Zxid || err != nil {
		t.Errorf("%d at %v, %v", n, z, err)
	}
	if kept := s.Member().Stats().KeptBytes; kept != 0 {
		t.Errorf("%d bytes are kept", kept)
	}
}

// A session of one member alone reads and watches without a quorum, and writes nothing (SS-26 to SS-30).
func TestReadOnlySession(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		i := (l + 1) % 3
		s := session(t, ctx, c.Member(l))
		doAll(t, ctx, s, node("/a"), node("/mine").WithACL(zk.ACL{Perm: zk.PermAll, Scheme: "digest", ID: zk.DigestID("u:p")}))
		must(t, c.Quiesce(ctx))
		c.Isolate(i)
		m := c.Member(i)
		before := m.Stats()
		ro := &client{done: make(chan *zk.Call, 16)}
		rs, err := m.ReadOnlySession(zk.SessionConfig{Events: ro.hear, External: true})
		must(t, err)
		ro.s, ro.l = rs, rs.Listener()
		if rs.ID() == 0 || rs.ID()>>56 != 2 || m.Stats().Sessions != before.Sessions || len(ro.l.Password()) != 16 {
			t.Errorf("session %v, %d known", rs.ID(), m.Stats().Sessions)
		}
		ro.read(t, ctx, "/a", 0)
		ro.exists(t, ctx, "/b", false)
		ro.read(t, ctx, "/mine", zk.ErrNoAuth)
		must(t, ro.l.AddAuth(ctx, zk.Auth{Scheme: "digest", Cred: []byte("u:p")}))
		ro.read(t, ctx, "/mine", 0)
		for what, fn := range map[string]func() error{
			"create":       func() error { _, err := rs.Create(ctx, "/x", nil, zk.Persistent); return err },
			"go":           func() error { return (<-ro.l.Go(ctx, nil, set("/a")).Done).Error },
			"late":         func() error { _, err := rs.TxnLate(ctx, nil, set("/a")); return err },
			"sync":         func() error { return rs.Sync(ctx) },
			"linearizable": func() error { _, _, err := rs.Get(ctx, "/a", zk.Linearizable); return err },
		} {
			if err := fn(); !errors.Is(err, zk.ErrNotReadOnly) || zk.MaybeApplied(err) {
				t.Errorf("%s: %v", what, err)
			}
		}
		time.Sleep(2 * rs.Timeout()) // of the bubble
		if st := rs.State(); st != zk.StateActive {
			t.Errorf("the session is %v", st)
		}
		ro.expect(t, "meanwhile", "")
		// The state that it watches moves on, by log or by snapshot.
		doAll(t, ctx, s, set("/a"), node("/b"))
		c.Heal()
		must(t, m.Ready(ctx))
		ro.expect(t, "when the member has caught up", "3:/a 1:/b")
		must(t, rs.Close())
		ro.expect(t, "the end", "session:closed")
		wants(t, rs.Err(), zk.ErrClosed)
		if n := m.Stats().Watches; n != 0 {
			t.Errorf("%d watches are left", n)
		}
		if _, err := c.Member(l).Attach(ctx, rs.ID(), ro.l.Password(), zk.SessionConfig{}); !errors.Is(err, zk.ErrSessionExpired) {
			t.Errorf("attached elsewhere: %v", err)
		}
		last, err := m.ReadOnlySession(zk.SessionConfig{})
		must(t, err)
		must(t, c.Crash(i))
		<-last.Done()
		_, err = m.ReadOnlySession(zk.SessionConfig{})
		wants(t, err, zk.ErrClosed)
	})
}

// Operators see each watch once, by path and session, and any session's ephemerals (WT-39).
func TestWatchesAndEphemeralsAreListed(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	w := connect(t, ctx, m, zk.SessionConfig{})
	doAll(t, ctx, w.s, node("/a"), zk.OpCreate("/e2", nil, zk.Ephemeral), zk.OpCreate("/e1", nil, zk.Ephemeral))
	w.read(t, ctx, "/a", 0)
	w.exists(t, ctx, "/none", false)
	w.list(t, ctx, "/a", 0)
	must(t, w.l.AddWatch("/a", false))
	must(t, w.l.AddWatch("/", true))
	for range 2 {
		_, _, _, err := s.GetW(ctx, "/a")
		must(t, err)
	}
	_, err := s.Watch(ctx, "/a", zk.WatchChildSet)
	must(t, err)
	got, err := m.Watches(ctx)
	must(t, err)
	a, b := s.ID(), w.s.ID()
	want := []zk.WatchInfo{
		{Path: "/", Session: b, Type: zk.WatchTypePersistentRecursive},
		{Path: "/a", Session: a, Type: zk.WatchTypeChildren}, {Path: "/a", Session: a, Type: zk.WatchTypeData},
		{Path: "/a", Session: b, Type: zk.WatchTypeChildren}, {Path: "/a", Session: b, Type: zk.WatchTypeData}, {Path: "/a", Session: b, Type: zk.WatchTypePersistent},
		{Path: "/none", Session: b, Type: zk.WatchTypeData},
	}
	if !slices.Equal(got, want) {
		t.Errorf("watches are %v, want %v", got, want)
	}
	paths, err := m.Ephemerals(ctx, b)
	if err != nil || strings.Join(paths, " ") != "/e1 /e2" {
		t.Errorf("ephemerals: %q, %v", paths, err)
	}
	if paths, err := m.Ephemerals(ctx, a); err != nil || len(paths) != 0 {
		t.Errorf("ephemerals: %q, %v", paths, err)
	}
	_, err = m.Ephemerals(ctx, 99)
	wants(t, err, zk.ErrUnknownSession)
}

// Where members serve clients is known everywhere, and stays known (OP-40, WP-87).
func TestClientAddresses(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		o := session(t, ctx, c.Member(0))
		_, _, ch, err := o.GetW(ctx, "/zookeeper/config")
		must(t, err)
		must(t, c.Member(1).SetClientAddr(ctx, "host1:2181"))
		next(t, ch)
		check := func(when string) {
			t.Helper()
			must(t, c.Quiesce(ctx))
			text, st, err := o.GetString(ctx, "/zookeeper/config")
			if err != nil || strings.Count(text, ";") != 1 || !strings.Contains(text, "server.m1=m1:participant;host1:2181\n") || st.Version != -1 {
				t.Errorf("%s: config is %q, %v", when, text, err)
			}
			members, err := c.Member(2).Members(ctx)
			must(t, err)
			for _, m := range members {
				if want := map[string]string{"m1": "host1:2181"}[m.ID]; m.ClientAddr != want {
					t.Errorf("%s: %+v", when, m)
				}
			}
		}
		check("at first")
		must(t, c.Restart(ctx, 1))
		check("after a restart")
		must(t, c.Member(0).Compact(ctx))
		must(t, c.Member(1).SetClientAddr(ctx, "host1:2181")) // changes nothing
		check("set again")
		for _, bad := range []string{"host", "host:0", "host:70000", ":1", "a b:1", "a;b:1", "a\nb:1", strings.Repeat("h", 300) + ":1"} {
			wants(t, c.Member(1).SetClientAddr(ctx, bad), zk.ErrBadArguments)
		}
		must(t, c.Member(1).SetClientAddr(ctx, ""))
		if text, _, err := o.GetString(ctx, "/zookeeper/config", zk.Linearizable); err != nil || strings.Contains(text, ";") {
			t.Errorf("withdrawn: %q, %v", text, err)
		}
	})
}

// A member that is shut down takes its own sessions with it, and leaves those of a listener's clients to be attached
// elsewhere (SS-15).
func TestShutdownLetsExternalSessionsGo(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		own := session(t, ctx, c.Member(0))
		create(t, ctx, own, "/own", zk.Ephemeral)
		w := connect(t, ctx, c.Member(0), zk.SessionConfig{External: true})
		doAll(t, ctx, w.s, zk.OpCreate("/client", nil, zk.Ephemeral))
		must(t, c.Member(0).Shutdown(ctx))
		w.expect(t, "the end", "session:closed")
		back, err := attach(ctx, c.Member(1), w.s.ID(), w.l.Password(), zk.SessionConfig{})
		must(t, err)
		back.exists(t, ctx, "/client", true)
		back.exists(t, ctx, "/own", false)
	})
}
