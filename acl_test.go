// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// as opens a session with those identities.
func as(t *testing.T, ctx context.Context, m *zk.Member, auth ...zk.Auth) *zk.Session {
	t.Helper()
	s, err := m.NewSession(ctx, zk.SessionConfig{Auth: auth})
	must(t, err)
	return s
}

func auth(scheme, cred string) zk.Auth { return zk.Auth{Scheme: scheme, Cred: []byte(cred)} }

// What each call needs: with all permissions but one exactly those fail that need it, and with that one alone exactly
// those succeed (DM-102).
func TestPermissionsNeeded(t *testing.T) {
	ctx, m, admin := single(t, zk.Config{})
	calls := map[string]struct {
		needs zk.Perm
		call  func(s *zk.Session, path string) error
	}{
		"get":     {zk.PermRead, func(s *zk.Session, p string) error { _, _, err := s.Get(ctx, p); return err }},
		"getw":    {zk.PermRead, func(s *zk.Session, p string) error { _, _, _, err := s.GetW(ctx, p); return err }},
		"exists":  {zk.PermRead, func(s *zk.Session, p string) error { _, _, err := s.Exists(ctx, p); return err }},
		"existsw": {zk.PermRead, func(s *zk.Session, p string) error { _, _, _, err := s.ExistsW(ctx, p); return err }},
		"list":    {zk.PermRead, func(s *zk.Session, p string) error { _, _, err := s.Children(ctx, p); return err }},
		"listw":   {zk.PermRead, func(s *zk.Session, p string) error { _, _, _, err := s.ChildrenW(ctx, p); return err }},
		"pages":   {zk.PermRead, func(s *zk.Session, p string) error { return lastError(s.ChildrenSeq(ctx, p, "")) }},
		"numbers": {zk.PermRead, func(s *zk.Session, p string) error { return lastError(s.Sequential(ctx, p)) }},
		"check":   {zk.PermRead, func(s *zk.Session, p string) error { _, err := s.Do(ctx, zk.OpCheck(p, zk.AnyVersion)); return err }},
		"guard": {zk.PermRead, func(s *zk.Session, p string) error {
			_, err := s.Do(ctx, zk.OpCheckChildren(p, zk.GreaterEq, 0))
			return err
		}},
		"count": {zk.PermRead, func(s *zk.Session, p string) error { _, _, err := s.Listener().Descendants(ctx, p); return err }},
		"read":  {zk.PermRead, func(s *zk.Session, p string) error { _, _, _, err := s.Listener().Read(ctx, p, false); return err }},
		"stat":  {zk.PermRead, func(s *zk.Session, p string) error { _, _, _, err := s.Listener().Stat(ctx, p, false); return err }},
		"names": {zk.PermRead, func(s *zk.Session, p string) error { _, _, _, err := s.Listener().List(ctx, p, false); return err }},
		"preceded": {zk.PermRead, func(s *zk.Session, p string) error {
			_, _, err := s.Preceding(ctx, p+"/x", func(string) bool { return true })
			return err
		}},
		"view": {zk.PermRead, func(s *zk.Session, p string) error {
			return s.View(ctx, func(v *zk.View) error { _, err := v.Get(p); return err })
		}},
		"set":    {zk.PermWrite, func(s *zk.Session, p string) error { _, err := s.Set(ctx, p, nil, zk.AnyVersion); return err }},
		"create": {zk.PermCreate, func(s *zk.Session, p string) error { _, err := s.Create(ctx, p+"/n-", nil, zk.Sequential); return err }},
		"delete": {zk.PermDelete, func(s *zk.Session, p string) error {
			create(t, ctx, admin, p+"/gone", zk.Persistent)
			err := s.Delete(ctx, p+"/gone", zk.AnyVersion)
			if err != nil {
				must(t, admin.Delete(ctx, p+"/gone", zk.AnyVersion))
			}
			return err
		}},
		"tree": {zk.PermDelete, func(s *zk.Session, p string) error {
			create(t, ctx, admin, p+"/gone", zk.Persistent)
			create(t, ctx, admin, p+"/gone/below", zk.Persistent)
			err := s.DeleteTree(ctx, p+"/gone")
			if err != nil {
				must(t, admin.DeleteTree(ctx, p+"/gone"))
			}
			return err
		}},
		"setacl": {zk.PermAdmin, func(s *zk.Session, p string) error {
			acl, _, err := admin.GetACL(ctx, p)
			must(t, err)
			_, err = s.SetACL(ctx, p, acl, zk.AnyVersion)
			return err
		}},
		"getacl": {zk.PermRead | zk.PermAdmin, func(s *zk.Session, p string) error { _, _, err := s.GetACL(ctx, p); return err }},
		// These ask for nothing.
		"sync":       {0, func(s *zk.Session, p string) error { return s.Sync(ctx) }},
		"watch":      {0, func(s *zk.Session, p string) error { _, err := s.Watch(ctx, p, zk.WatchNode); return err }},
		"ephemerals": {0, func(s *zk.Session, p string) error { _, _, err := s.Listener().Ephemerals(ctx, p); return err }},
	}
	admin = as(t, ctx, m, auth("super", ""))
	s := session(t, ctx, m)
	for bit := zk.PermRead; bit <= zk.PermAdmin; bit <<= 1 {
		for _, perm := range []zk.Perm{bit, zk.PermAll &^ bit} {
			p := fmt.Sprintf("/p%d", perm)
			create(t, ctx, admin, p+"/x", zk.Parents)
			_, err := admin.SetACL(ctx, p, []zk.ACL{world(perm)}, zk.AnyVersion)
			must(t, err)
			for name, c := range calls {
				err := c.call(s, p)
				if want := c.needs == 0 || perm&c.needs != 0; want != (err == nil) || err != nil && (!errors.Is(err, zk.ErrNoAuth) || !errors.Is(err, fs.ErrPermission)) {
					t.Errorf("%s with %v: %v", name, perm, err)
				}
				if err := c.call(admin, p); err != nil { // DM-101: super is let in everywhere
					t.Errorf("%s as super with %v: %v", name, perm, err)
				}
			}
		}
	}
	create(t, ctx, admin, "/p1/e", zk.Persistent)
	must(t, s.Close()) // the end of a session asks for nothing either
}

// The schemes of identities, from the credentials of a session to what it may do.
func TestSchemes(t *testing.T) {
	super := zk.DigestID("root:secret")
	ctx, m, s := single(t, zk.Config{SuperDigest: super})
	for _, c := range []struct {
		acl  zk.ACL
		auth zk.Auth
		want bool
	}{
		{zk.ACL{ID: "anyone", Scheme: "world"}, zk.Auth{Scheme: "ip", Cred: []byte("1.2.3.4")}, true},
		{zk.ACL{Scheme: "digest", ID: zk.DigestID("u:p")}, auth("digest", "u:p"), true}, // DM-106
		{zk.ACL{Scheme: "digest", ID: zk.DigestID("u:p")}, auth("digest", "u:q"), false},
		{zk.ACL{Scheme: "digest", ID: zk.DigestID("u:p")}, auth("sasl", zk.DigestID("u:p")), false},
		{zk.ACL{Scheme: "digest", ID: zk.DigestID("u:p")}, auth("digest", "root:secret"), true}, // DM-107
		{zk.ACL{Scheme: "digest", ID: super}, auth("digest", "root:secret"), true},
		{zk.ACL{Scheme: "digest", ID: zk.DigestID("u:p")}, auth("digest", "root:Secret"), false},
		{zk.ACL{Scheme: "ip", ID: "10.1.0.0/16"}, auth("ip", "10.1.255.255"), true}, // DM-108
		{zk.ACL{Scheme: "ip", ID: "10.1.2.3/16"}, auth("ip", "10.1.9.9"), true},     // bits of the host do not matter
		{zk.ACL{Scheme: "ip", ID: "10.1.0.0/16"}, auth("ip", "10.2.0.0"), false},
		{zk.ACL{Scheme: "ip", ID: "10.1.2.3"}, auth("ip", "10.1.2.4"), false},
		{zk.ACL{Scheme: "ip", ID: "10.1.2.3"}, auth("ip", "::ffff:10.1.2.3"), true},
		{zk.ACL{Scheme: "ip", ID: "0.0.0.0/0"}, auth("ip", "2001:db8::1"), false},
		{zk.ACL{Scheme: "ip", ID: "2001:db8::/32"}, auth("ip", "2001:db8:ffff::1"), true},
		{zk.ACL{Scheme: "ip", ID: "fe80::/10"}, auth("ip", "fe80::1%eth0"), true}, // of this link
		{zk.ACL{Scheme: "ip", ID: "10.1.2.3"}, auth("ip", "not an address"), false},
		{zk.ACL{Scheme: "x509", ID: "CN=alice,O=x"}, auth("x509", "CN=alice,O=x"), true}, // DM-109
		{zk.ACL{Scheme: "x509", ID: "CN=alice,O=x"}, auth("x509", "cn=alice,O=x"), false},
		{zk.ACL{Scheme: "sasl", ID: "alice@R"}, auth("sasl", "alice@R"), true}, // DM-110
		{zk.ACL{Scheme: "sasl", ID: "alice@R"}, auth("sasl", "alice"), false},
	} {
		path := create(t, ctx, s, "/s-", zk.Sequential).Path
		c.acl.Perm = zk.PermAll
		_, err := s.SetACL(ctx, path, []zk.ACL{c.acl}, zk.AnyVersion)
		must(t, err)
		o := as(t, ctx, m, c.auth)
		_, _, err = o.Get(ctx, path)
		_, werr := o.Set(ctx, path, nil, zk.AnyVersion)
		if (err == nil) != c.want || (werr == nil) != c.want { // reads and writes decide alike
			t.Errorf("%v for %s %q: read %v, write %v", c.acl, c.auth.Scheme, c.auth.Cred, err, werr)
		}
		must(t, o.Close())
	}

	// DM-107: super keeps its digest identity; DM-52: a session can be asked who it is.
	root := as(t, ctx, m, auth("digest", "root:secret"), auth("ip", "1.1.1.1"))
	if ids := root.Listener().Identities(); !slices.Equal(ids, []zk.Identity{{Scheme: "super"}, {Scheme: "digest", ID: super}, {Scheme: "ip", ID: "1.1.1.1"}}) {
		t.Errorf("it is %v", ids)
	}
	z, err := root.Do(ctx, zk.OpCreate("/mine", nil, zk.Persistent).WithACL(zk.CreatorACL()...))
	must(t, err)
	if acl, _, err := root.GetACL(ctx, z.Path); err != nil || !slices.Equal(acl, []zk.ACL{{Perm: zk.PermAll, Scheme: "digest", ID: super}}) { // DM-104
		t.Errorf("the creator is %v, %v", acl, err)
	}
	if acl, _, err := as(t, ctx, m, auth("digest", "u:p")).GetACL(ctx, z.Path); !errors.Is(err, zk.ErrNoAuth) {
		t.Errorf("anybody sees %v, %v", acl, err)
	}
	_, err = root.SetACL(ctx, "/mine", append(zk.CreatorACL(), zk.ReadACL()...), zk.AnyVersion)
	must(t, err)
	if acl, _, err := s.GetACL(ctx, "/mine"); err != nil || acl[0].ID != "root:x" || acl[1] != zk.ReadACL()[0] { // DM-50
		t.Errorf("who may read alone sees %v, %v", acl, err)
	}
	if acl, _, err := root.GetACL(ctx, "/mine"); err != nil || acl[0].ID != super {
		t.Errorf("who may administer sees %v, %v", acl, err)
	}

	// An unknown scheme is refused when it is offered (DM-111), and so is world, which needs no proof.
	for _, scheme := range []string{"nosuch", "", "world", "auth", "Digest"} {
		_, err := m.NewSession(ctx, zk.SessionConfig{Auth: []zk.Auth{auth(scheme, "x")}})
		wants(t, err, zk.ErrAuthFailed)
		wants(t, s.Listener().AddAuth(ctx, auth(scheme, "x")), zk.ErrAuthFailed)
	}
	create(t, ctx, s, "/fine", zk.Persistent) // and it costs the session nothing
}

// Identities accumulate, are part of the replicated session, and are set anew by whoever attaches it (DM-112).
func TestIdentitiesAccumulate(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		s, l := session(t, ctx, c.Member(f)), as(t, ctx, c.Member(f), auth("ip", "10.0.0.1")).Listener()
		withACL(t, ctx, s, "/d", zk.ACL{Perm: zk.PermAll, Scheme: "digest", ID: zk.DigestID("u:p")})
		withACL(t, ctx, s, "/i", zk.ACL{Perm: zk.PermAll, Scheme: "ip", ID: "10.0.0.1"})
		may := func(l *zk.Listener) (got string) {
			for _, p := range []string{"/d", "/i"} {
				_, _, _, err := l.Read(ctx, p, false)
				call := <-l.Go(ctx, nil, zk.OpSet(p, nil, zk.AnyVersion)).Done
				if (err == nil) != (call.Error == nil) {
					t.Errorf("%s: read %v, write %v", p, err, call.Error)
				}
				if err == nil {
					got += p
				}
			}
			return got
		}
		if got := may(l); got != "/i" {
			t.Errorf("it may %s", got)
		}
		must(t, l.AddAuth(ctx, auth("digest", "u:p"), auth("digest", "u:p")))
		must(t, l.AddAuth(ctx, auth("sasl", "x")))
		if got := may(l); got != "/d/i" {
			t.Errorf("with a digest it may %s", got)
		}
		if ids := l.Identities(); len(ids) != 3 {
			t.Errorf("it is %v", ids)
		}
		infos, err := c.Member(f).Sessions(ctx)
		must(t, err)
		id := infos[len(infos)-1].ID
		moved, err := c.Member((f+1)%3).Attach(ctx, id, l.Password(), zk.SessionConfig{Auth: []zk.Auth{auth("digest", "u:p")}})
		must(t, err)
		if got := may(moved.Listener()); got != "/d" {
			t.Errorf("attached elsewhere it may %s", got)
		}
		call := <-l.Go(ctx, nil, zk.OpSet("/i", nil, zk.AnyVersion)).Done
		if !errors.Is(call.Error, zk.ErrSessionMoved) && !errors.Is(call.Error, zk.ErrClosed) {
			t.Errorf("the former handle: %v", call.Error)
		}
	})
}

// What a session may be is bounded, however it is told (P21).
func TestIdentitiesAreBounded(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	var many []zk.Auth
	for i := range 257 {
		many = append(many, auth("sasl", fmt.Sprint("somebody-", i)))
	}
	large := []zk.Auth{auth("sasl", strings.Repeat("x", 40<<10)), auth("x509", strings.Repeat("y", 40<<10))}
	huge := []zk.Auth{auth("sasl", strings.Repeat("x", 3<<20))}
	for name, list := range map[string][]zk.Auth{"many": many, "large": large, "huge": huge} {
		_, err := m.NewSession(ctx, zk.SessionConfig{Auth: list})
		wants(t, err, zk.ErrTooLarge)
		wants(t, s.Listener().AddAuth(ctx, list...), zk.ErrTooLarge)
		_, err = m.Attach(ctx, s.ID(), s.Listener().Password(), zk.SessionConfig{Auth: list})
		wants(t, err, zk.ErrTooLarge)
		if ids := s.Listener().Identities(); len(ids) != 0 {
			t.Errorf("%s: it is %d identities now", name, len(ids))
		}
	}
	must(t, s.Listener().AddAuth(ctx, many[:200]...)) // they add up
	must(t, s.Listener().AddAuth(ctx, many[:256]...))
	wants(t, s.Listener().AddAuth(ctx, many[256]), zk.ErrTooLarge)
	must(t, s.Listener().AddAuth(ctx, many[:256]...))
	create(t, ctx, s, "/fine", zk.Persistent)
}

// An event is filtered by READ as the list was at that time; a filtered one-shot watch is used up all the same
// (DM-115).
func TestEventsNeedRead(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	o := as(t, ctx, m, auth("digest", "u:p"))
	list := []zk.ACL{{Perm: zk.PermAll, Scheme: "digest", ID: zk.DigestID("u:p")}, world(zk.PermAll &^ zk.PermRead)}
	_, _, stranger, err := s.ExistsW(ctx, "/a")
	must(t, err)
	_, _, friend, err := o.ExistsW(ctx, "/a")
	must(t, err)
	_, _, child, err := s.ChildrenW(ctx, "/")
	must(t, err)
	tree, err := s.Watch(ctx, "/", zk.WatchSubtree)
	must(t, err)
	withACL(t, ctx, s, "/a", list...)
	select {
	case ev, ok := <-stranger:
		if ok {
			t.Errorf("a session that may not read hears %+v", ev)
		}
	default:
		t.Error("the filtered one-shot watch is still there")
	}
	if ev := <-friend; ev.Type != zk.EventCreated || ev.Path != "/a" {
		t.Errorf("a session that may read hears %+v", ev)
	}
	if ev := <-child; ev.Type != zk.EventChildren || ev.Path != "/" { // of the root, which may be read
		t.Errorf("the parent's watcher hears %+v", ev)
	}
	_, err = s.SetACL(ctx, "/a", zk.OpenACL(), zk.AnyVersion)
	must(t, err)
	_, err = s.Set(ctx, "/a", nil, zk.AnyVersion)
	must(t, err)
	if ev := <-tree.Events(); ev.Type != zk.EventChanged || ev.Path != "/a" {
		t.Errorf("the first event it may hear is %+v", ev)
	}
}

// No member decides permissions ahead of the log: what is refused has its zxid, on every member, and is decided by the
// list as it is at that place of the order (DM-116).
func TestPermissionsInOrder(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{DisableCommitNotice: true}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		w, s := session(t, ctx, c.Member(l)), session(t, ctx, c.Member((l+1)%3))
		create(t, ctx, w, "/a", zk.Persistent)
		must(t, s.Sync(ctx))
		behind := 0
		for range 10 {
			// The follower has not heard of the list yet when its session writes.
			shut, err := w.SetACL(ctx, "/a", []zk.ACL{world(zk.PermAll &^ zk.PermWrite)}, zk.AnyVersion)
			must(t, err)
			if _, st, err := s.GetACL(ctx, "/a"); err != nil || st.Aversion < shut.Aversion {
				behind++
			}
			before := c.Member(l).Applied()
			_, err = s.Set(ctx, "/a", nil, zk.AnyVersion)
			wants(t, err, zk.ErrNoAuth)
			synctest.Wait() // the follower may apply it first
			if now := c.Member(l).Applied(); now != before+1 {
				t.Errorf("a refused write took %d zxids", now-before)
			}
			open, err := w.SetACL(ctx, "/a", zk.OpenACL(), zk.AnyVersion)
			must(t, err)
			if _, st, err := s.GetACL(ctx, "/a"); err != nil || st.Aversion < open.Aversion {
				behind++
			}
			_, err = s.Set(ctx, "/a", nil, zk.AnyVersion)
			must(t, err)
		}
		if behind == 0 {
			t.Error("the follower was never behind")
		}
		must(t, c.Quiesce(ctx))
	})
}
