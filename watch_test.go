// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// printed is an event as the traces write it: its number and its path, or the state that a session ended in.
func printed(ev zk.Event) string {
	if ev.Type == zk.EventSession {
		return "session:" + ev.State.String()
	}
	return fmt.Sprintf("%d:%s", ev.Type, ev.Path)
}

// hears takes what has been delivered, without waiting; "end" stands for a closed channel.
func hears(ch <-chan zk.Event) string {
	var got []string
	for {
		select {
		case ev, ok := <-ch:
			if !ok {
				return strings.Join(append(got, "end"), " ")
			}
			got = append(got, printed(ev))
		default:
			return strings.Join(got, " ")
		}
	}
}

// setter sets one kind of watch.
type setter func(ctx context.Context, s *zk.Session, path string) (<-chan zk.Event, error)

func getW(ctx context.Context, s *zk.Session, path string) (<-chan zk.Event, error) {
	_, _, ch, err := s.GetW(ctx, path)
	return ch, err
}

func existsW(ctx context.Context, s *zk.Session, path string) (<-chan zk.Event, error) {
	_, _, ch, err := s.ExistsW(ctx, path)
	return ch, err
}

func childrenW(ctx context.Context, s *zk.Session, path string) (<-chan zk.Event, error) {
	_, _, ch, err := s.ChildrenW(ctx, path)
	return ch, err
}

func persistent(kind zk.WatchKind) setter {
	return func(ctx context.Context, s *zk.Session, path string) (<-chan zk.Event, error) {
		w, err := s.Watch(ctx, path, kind)
		if err != nil {
			return nil, err
		}
		return w.Events(), nil
	}
}

var setters = []struct {
	name  string
	count int64 // entries it makes
	set   setter
}{
	{"D", 1, getW}, {"E", 1, existsW}, {"C", 1, childrenW},
	{"P", 2, persistent(zk.WatchNode)}, {"S", 1, persistent(zk.WatchChildSet)}, {"R", 1, persistent(zk.WatchSubtree)},
}

// stage is where one row of the trigger table is played: a directory of its own, so that paths read as in the rules.
type stage struct {
	t    *testing.T
	ctx  context.Context
	base string
	s    *zk.Session // whose paths start below base
}

func (x *stage) do(ops ...zk.Op) {
	x.t.Helper()
	for _, o := range ops {
		_, err := x.s.Do(x.ctx, o)
		must(x.t, err)
	}
}

func (x *stage) refused(code zk.Code, ops ...zk.Op) {
	x.t.Helper()
	_, err := x.s.Txn(x.ctx, ops...)
	wants(x.t, err, code)
}

// The trigger table: what each kind of watch on /a/b, and on its parent, hears of each operation, and which are consumed.
// D is set by GetW, E by ExistsW, C by ChildrenW; P is WatchNode, S WatchChildSet, R WatchSubtree; "p" stands for the
// parent's (WT-1 to WT-10, WT-12 to WT-15).
func TestTriggers(t *testing.T) {
	node := func(path string) zk.Op { return zk.OpCreate(path, nil, zk.Persistent) }
	set := func(path string) zk.Op { return zk.OpSet(path, []byte("x"), zk.AnyVersion) }
	del := func(path string) zk.Op { return zk.OpDelete(path, zk.AnyVersion) }
	const (
		made    = "E 1:/a/b end, P 1:/a/b, R 1:/a/b, pC 4:/a end, pP 4:/a, pS 4:/a, pR 1:/a/b"
		changed = "D 3:/a/b end, E 3:/a/b end, P 3:/a/b, R 3:/a/b, pR 3:/a/b"
		gone    = "D 2:/a/b end, E 2:/a/b end, C 2:/a/b end, P 2:/a/b, R 2:/a/b, pC 4:/a end, pP 4:/a, pS 4:/a, pR 2:/a/b"
		nothing = ""
	)
	var owner *zk.Session // of an ephemeral /a/b
	owned := func(x *stage) {
		owner = session(x.t, x.ctx, x.s.Member())
		create(x.t, x.ctx, owner, x.base+"/a/b", zk.Ephemeral)
	}
	existing := func(x *stage) { x.do(node("/a/b")) }
	parental := func(x *stage) { x.do(node("/a/b"), node("/a/b/k")) }
	for _, tc := range []struct {
		name        string
		before, act func(*stage)
		want        string
	}{
		{"create", nil, func(x *stage) { x.do(node("/a/b")) }, made},
		{"create with parents", nil, func(x *stage) { x.do(zk.OpCreate("/a/b/k", nil, zk.Parents)) },
			"E 1:/a/b end, P 1:/a/b 4:/a/b, S 4:/a/b, R 1:/a/b 1:/a/b/k, pC 4:/a end, pP 4:/a, pS 4:/a, pR 1:/a/b 1:/a/b/k"},
		{"set", existing, func(x *stage) { x.do(set("/a/b")) }, changed},
		{"set the same", func(x *stage) { x.do(node("/a/b"), set("/a/b")) }, func(x *stage) { x.do(set("/a/b")) }, changed}, // WT-12
		{"delete", existing, func(x *stage) { x.do(del("/a/b")) }, gone},                                                    // WT-14
		{"its session is closed", owned, func(x *stage) { must(x.t, owner.Close()) }, gone},
		{"its session expires", owned, func(x *stage) {
			must(x.t, x.s.Member().KillSession(x.ctx, owner.ID()))
			<-owner.Done()
		}, gone},
		{"a container is reaped", func(x *stage) { x.do(zk.OpCreate("/a/b", nil, zk.Container), node("/a/b/k"), del("/a/b/k")) },
			func(*stage) { time.Sleep(2 * time.Minute) }, gone},
		{"a TTL znode is reaped", func(x *stage) { x.do(node("/a/b").WithTTL(time.Second)) }, func(*stage) { time.Sleep(2 * time.Minute) }, gone},
		{"delete the tree", parental, func(x *stage) { must(x.t, x.s.DeleteTree(x.ctx, "/a/b")) },
			"D 2:/a/b end, E 2:/a/b end, C 4:/a/b end, P 4:/a/b 2:/a/b, S 4:/a/b, R 2:/a/b/k 2:/a/b, pC 4:/a end, pP 4:/a, pS 4:/a, pR 2:/a/b/k 2:/a/b"},
		{"create a child", existing, func(x *stage) { x.do(node("/a/b/k")) }, "C 4:/a/b end, P 4:/a/b, S 4:/a/b, R 1:/a/b/k, pR 1:/a/b/k"}, // WT-6
		{"set a child", parental, func(x *stage) { x.do(set("/a/b/k")) }, "R 3:/a/b/k, pR 3:/a/b/k"},                                       // WT-7
		{"delete a child", parental, func(x *stage) { x.do(del("/a/b/k")) }, "C 4:/a/b end, P 4:/a/b, S 4:/a/b, R 2:/a/b/k, pR 2:/a/b/k"},
		{"create a grandchild", parental, func(x *stage) { x.do(node("/a/b/k/j")) }, "R 1:/a/b/k/j, pR 1:/a/b/k/j"},
		{"create a sibling", existing, func(x *stage) { x.do(node("/a/bb")) }, "pC 4:/a end, pP 4:/a, pS 4:/a, pR 1:/a/bb"}, // WT-1
		{"delete and create", existing, func(x *stage) {
			_, err := x.s.Txn(x.ctx, del("/a/b"), node("/a/b"))
			must(x.t, err)
		}, "D 2:/a/b end, E 2:/a/b end, C 2:/a/b end, P 2:/a/b 1:/a/b, R 2:/a/b 1:/a/b, pC 4:/a end, pP 4:/a, pS 4:/a, pR 2:/a/b 1:/a/b"},
		{"set the ACL", existing, func(x *stage) {
			_, err := x.s.SetACL(x.ctx, "/a/b", zk.OpenACL(), zk.AnyVersion)
			must(x.t, err)
		}, nothing},
		{"set the parent", existing, func(x *stage) { x.do(set("/a")) }, "pD 3:/a end, pE 3:/a end, pP 3:/a, pR 3:/a"},
		{"checks and reads", existing, func(x *stage) {
			x.do(zk.OpCheck("/a/b", zk.AnyVersion), zk.OpCheckAbsent("/a/c"))
			_, _, err := x.s.Children(x.ctx, "/a/b")
			must(x.t, err)
			must(x.t, x.s.Sync(x.ctx))
		}, nothing},
		{"a refused set", existing, func(x *stage) { x.refused(zk.ErrBadVersion, zk.OpSet("/a/b", nil, 7)) }, nothing},
		{"a refused transaction", existing, func(x *stage) { x.refused(zk.ErrNoNode, set("/a/b"), node("/a/b/k"), del("/a/c")) }, nothing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				m := c.Member(0)
				w := session(t, ctx, m)
				x := &stage{t: t, ctx: ctx, base: "/stage", s: session(t, ctx, m).Sub("/stage")}
				x.do(zk.OpCreate("/a", nil, zk.Parents))
				if tc.before != nil {
					tc.before(x)
				}
				watching, cancel := context.WithCancel(ctx)
				defer cancel()
				type ear struct {
					name  string
					count int64
					ch    <-chan zk.Event
				}
				var ears []ear
				var entries int64
				for _, at := range []struct{ prefix, path string }{{"", "/a/b"}, {"p", "/a"}} {
					for _, k := range setters {
						ch, err := k.set(watching, w.Sub("/stage"), at.path)
						if tc.before == nil && at.prefix == "" && (k.name == "D" || k.name == "C") {
							wants(t, err, zk.ErrNoNode) // and nothing is left, see the count below
							continue
						}
						must(t, err)
						ears = append(ears, ear{at.prefix + k.name, k.count, ch})
						entries += k.count
					}
				}
				if n := m.Stats().Watches; n != entries { // WT-39
					t.Errorf("%d entries, want %d", n, entries)
				}
				tc.act(x)
				synctest.Wait()
				var got []string
				for _, e := range ears {
					if h := hears(e.ch); h != "" {
						got = append(got, e.name+" "+h)
						if strings.HasSuffix(h, "end") {
							entries -= e.count
						}
					}
				}
				if got := strings.Join(got, ", "); got != tc.want {
					t.Errorf("\n got: %s\nwant: %s", got, tc.want)
				}
				if n := m.Stats().Watches; n != entries { // WT-8
					t.Errorf("%d entries are left, want %d", n, entries)
				}
				cancel()
				synctest.Wait()
				if n := m.Stats().Watches; n != 0 { // WT-44
					t.Errorf("%d entries are left at the end", n)
				}
			})
		})
	}
}

// Whoever reads a change on a member finds its event delivered, whichever goroutine reads and however; so does the one
// that made the change (WT-20, WT-21, WT-43).
func TestEventBeforeData(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, o := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(0))
		create(t, ctx, s, "/x", zk.Persistent)
		tree, err := s.Watch(ctx, "/x", zk.WatchSubtree)
		must(t, err)
		version := []func() (int32, error){
			func() (int32, error) {
				_, st, err := o.Get(ctx, "/x", zk.Local)
				return st.Version, err
			},
			func() (int32, error) {
				_, st, err := s.Children(ctx, "/x")
				return st.Version, err
			},
			func() (v int32, err error) {
				err = c.Member(0).View(ctx, func(view *zk.View) error {
					z, err := view.Get("/x")
					v = z.Stat.Version
					return err
				})
				return v, err
			},
		}
		for range 300 {
			_, st, once, err := s.GetW(ctx, "/x")
			must(t, err)
			var all sync.WaitGroup
			for _, read := range version {
				all.Go(func() {
					for {
						switch v, err := read(); {
						case err != nil:
							t.Error(err)
							return
						case v != st.Version:
							if len(once) == 0 || len(tree.Events()) == 0 { // WT-20, WT-43
								t.Error("the change was read before its event was there")
							}
							return
						}
						runtime.Gosched()
					}
				})
			}
			now, err := o.Set(ctx, "/x", nil, zk.AnyVersion)
			must(t, err)
			if len(once) == 0 || len(tree.Events()) == 0 { // WT-21
				t.Error("the write was answered before its event")
			}
			all.Wait()
			if ev := <-once; ev.Zxid != now.Mzxid || ev != <-tree.Events() {
				t.Errorf("event %+v of %+v", ev, now)
			}
		}
	})
}

// Events have ZooKeeper's numbers and their transaction's zxid, and no data: reading again shows at least what they tell
// of. What happens between a one-shot's event and its renewal is not reported (WT-17 to WT-19, WT-22, WT-23, WT-45).
func TestEventContents(t *testing.T) {
	if zk.EventCreated != 1 || zk.EventDeleted != 2 || zk.EventChanged != 3 || zk.EventChildren != 4 { // WT-17
		t.Error("the numbers are not ZooKeeper's")
	}
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		s, o := session(t, ctx, c.Member((l+1)%3)), session(t, ctx, c.Member((l+2)%3))
		create(t, ctx, o, "/before", zk.Persistent)
		must(t, s.Sync(ctx))
		tree, err := s.Watch(ctx, "/", zk.WatchSubtree)
		must(t, err)
		if tree.From() != s.LastZxid() { // WT-45
			t.Errorf("from %v, applied %v", tree.From(), s.LastZxid())
		}
		made := create(t, ctx, o, "/x", zk.Persistent).Stat.Czxid
		results, err := o.Txn(ctx, zk.OpSet("/x", nil, zk.AnyVersion), zk.OpCreate("/x/1", nil, zk.Persistent), zk.OpCreate("/x/2", nil, zk.Persistent))
		must(t, err)
		txn := results[0].Stat.Mzxid
		must(t, o.Delete(ctx, "/x/1", zk.AnyVersion))
		for _, want := range []zk.Event{ // WT-18, WT-22
			{Type: zk.EventCreated, Path: "/x", Zxid: made}, {Type: zk.EventChanged, Path: "/x", Zxid: txn},
			{Type: zk.EventCreated, Path: "/x/1", Zxid: txn}, {Type: zk.EventCreated, Path: "/x/2", Zxid: txn},
			{Type: zk.EventDeleted, Path: "/x/1", Zxid: o.LastZxid()},
		} {
			ev := next(t, tree.Events())
			if ev != want {
				t.Errorf("event %+v, want %+v", ev, want)
			}
			if s.LastZxid() < ev.Zxid { // WT-19
				t.Errorf("event %+v at %v", ev, s.LastZxid())
			}
		}
		_, _, once, err := s.GetW(ctx, "/x")
		must(t, err)
		for i := range 5 {
			_, err := o.Set(ctx, "/x", fmt.Append(nil, i), zk.AnyVersion)
			must(t, err)
		}
		next(t, once)
		must(t, s.Sync(ctx))
		data, _, once, err := s.GetW(ctx, "/x")
		must(t, err)
		if got := hears(once); string(data) != "4" || got != "" { // WT-23
			t.Errorf("read %q, heard %q", data, got)
		}
	})
}

// Each call is a receiver of its own, and each watch on a path lives by itself (WT-3, WT-4, WT-38).
func TestReceivers(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		create(t, ctx, s, "/x", zk.Persistent)
		var ears []<-chan zk.Event
		for _, k := range setters {
			for range 2 {
				ch, err := k.set(ctx, s, "/x")
				must(t, err)
				ears = append(ears, ch)
			}
		}
		if n := c.Member(0).Stats().Watches; n != 14 { // WT-3, WT-39
			t.Errorf("%d entries", n)
		}
		one, err := s.Watch(ctx, "/x", zk.WatchNode)
		must(t, err)
		one.Close()
		_, err = s.Txn(ctx, zk.OpSet("/x", nil, zk.AnyVersion), zk.OpCreate("/x/k", nil, zk.Persistent), zk.OpSet("/x", nil, zk.AnyVersion))
		must(t, err)
		var got []string
		for _, ch := range ears {
			got = append(got, hears(ch))
		}
		d, ch, p, r := "3:/x end", "4:/x end", "3:/x 4:/x 3:/x", "3:/x 1:/x/k 3:/x"
		want := []string{d, d, d, d, ch, ch, p, p, "4:/x", "4:/x", r, r}
		if strings.Join(got, ", ") != strings.Join(want, ", ") { // WT-4
			t.Errorf("\n got: %q\nwant: %q", got, want)
		}
	})
}

// Who may not read a znode hears nothing of it: by its own ACL when it is created or changed, its last one when it is
// deleted, its parent's for the parent's children. A one-shot that is filtered is consumed (WT-24).
func TestEventPermission(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		alice, err := m.NewSession(ctx, zk.SessionConfig{Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("alice:pw")}}})
		must(t, err)
		bob := session(t, ctx, m)
		secret := []zk.ACL{{Perm: zk.PermAll, Scheme: "digest", ID: zk.DigestID("alice:pw")}}
		var names []string
		ears := map[string]<-chan zk.Event{}
		watch := func(name string, s *zk.Session, path string, set setter) {
			t.Helper()
			ch, err := set(ctx, s, path)
			must(t, err)
			if ears[name] == nil {
				names = append(names, name)
			}
			ears[name] = ch
		}
		heard := func(want string) {
			t.Helper()
			var got []string
			for _, n := range names {
				if h := hears(ears[n]); h != "" {
					got = append(got, n+" "+h)
				}
			}
			if got := strings.Join(got, ", "); got != want {
				t.Errorf("\n got: %s\nwant: %s", got, want)
			}
		}
		create := func(path string, acl []zk.ACL) {
			t.Helper()
			o := zk.OpCreate(path, nil, zk.Persistent)
			if acl != nil {
				o = o.WithACL(acl...)
			}
			_, err := alice.Do(ctx, o)
			must(t, err)
		}
		acl := func(acl []zk.ACL) {
			t.Helper()
			_, err := alice.SetACL(ctx, "/s", acl, zk.AnyVersion)
			must(t, err)
		}
		set := func() {
			t.Helper()
			_, err := alice.Set(ctx, "/s", nil, zk.AnyVersion)
			must(t, err)
		}
		// WT-5: nobody asks for a permission, or for the znode.
		watch("aE", alice, "/s", existsW)
		watch("aP", alice, "/s", persistent(zk.WatchNode))
		watch("bE", bob, "/s", existsW)
		watch("bP", bob, "/s", persistent(zk.WatchNode))
		watch("bR", bob, "/s", persistent(zk.WatchSubtree))
		watch("bS", bob, "/s", persistent(zk.WatchChildSet))
		watch("b/", bob, "/", persistent(zk.WatchNode))
		create("/s", secret)
		heard("aE 1:/s end, aP 1:/s, bE end, b/ 4:/")
		delete(ears, "aE")
		delete(ears, "bE")
		names = []string{"aP", "bP", "bR", "bS", "b/"}
		entries := m.Stats().Watches
		for _, k := range setters[:3] {
			_, err := k.set(ctx, bob, "/s")
			wants(t, err, zk.ErrNoAuth)
		}
		if n := m.Stats().Watches; n != entries {
			t.Errorf("%d entries, want %d: a read that failed left a watch", n, entries)
		}
		set()
		heard("aP 3:/s")
		create("/s/open", nil)
		heard("aP 4:/s, bR 1:/s/open")
		acl(zk.OpenACL())
		set()
		heard("aP 3:/s, bP 3:/s, bR 3:/s")
		create("/s/secret", secret)
		heard("aP 4:/s, bP 4:/s, bS 4:/s")
		must(t, alice.Delete(ctx, "/s/secret", zk.AnyVersion))
		heard("aP 4:/s, bP 4:/s, bS 4:/s")
		acl(secret)
		must(t, alice.Delete(ctx, "/s/open", zk.AnyVersion))
		heard("aP 4:/s, bR 2:/s/open")
		must(t, alice.Delete(ctx, "/s", zk.AnyVersion))
		heard("aP 2:/s, b/ 4:/")
	})
}

// A new configuration changes the config znode, also for watches, whatever its zxid (the last row of the trigger table).
func TestWatchConfig(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		var ears []<-chan zk.Event
		for _, k := range setters {
			ch, err := k.set(ctx, s, "/zookeeper/config")
			must(t, err)
			ears = append(ears, ch)
		}
		i, err := c.Add(ctx, false)
		must(t, err)
		must(t, c.Member(i).Ready(ctx))
		for n, ch := range ears {
			k, want := setters[n].name, ""
			switch k {
			case "D", "E":
				want = "3:/zookeeper/config end"
			case "P", "R":
				want = "3:/zookeeper/config"
			}
			if got := hears(ch); got != want {
				t.Errorf("%s heard %q, want %q", k, got, want)
			}
		}
	})
}
