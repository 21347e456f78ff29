// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// shown is something that is kept in the tree.
type shown struct {
	start func(ctx context.Context) error
	set   func(ctx context.Context, data string) error
	stop  func(ctx context.Context) error
	err   func() error
}

// keeper is a recipe that keeps a znode below /app/here.
type keeper struct {
	name  string
	stays bool // the znode is not bound to a session
	ttl   bool
	busy  bool // it waits for what is there already; otherwise it takes its place
	make  func(src zk.SessionSource, data string) shown
}

const ttl = 30 * time.Second

func presence(mode zk.CreateMode, replace bool) func(src zk.SessionSource, data string) shown {
	return func(src zk.SessionSource, data string) shown {
		p := recipes.NewPresence(src, "/app/here/p", []byte(data))
		p.Mode, p.Replace = mode, replace
		return shown{p.Start, func(ctx context.Context, data string) error { return p.Set(ctx, []byte(data)) }, p.Stop, p.Err}
	}
}

func registration(kind recipes.InstanceType) func(src zk.SessionSource, data string) shown {
	return func(src zk.SessionSource, data string) shown {
		r := recipes.NewRegistry[string](src, "/app")
		in := recipes.Instance[string]{Name: "here", ID: "p", Type: kind, Enabled: true, Payload: data}
		var reg *recipes.Registration[string]
		return shown{
			func(ctx context.Context) (err error) { reg, err = r.Register(ctx, in); return err },
			func(ctx context.Context, data string) error { in.Payload = data; return reg.Update(ctx, in) },
			func(ctx context.Context) error {
				if reg == nil {
					return nil
				}
				return reg.Deregister(ctx)
			},
			func() error { return reg.Err() },
		}
	}
}

var keepers = []keeper{
	{name: "Presence", busy: true, make: presence(zk.Ephemeral, false)},
	{name: "Presence that replaces", make: presence(0, true)},
	{name: "Presence with a number", make: presence(zk.Ephemeral|zk.Sequential, false)},
	{name: "Presence that stays", stays: true, busy: true, make: presence(zk.Persistent|zk.Parents, false)},
	{name: "TTLPresence", stays: true, ttl: true, make: func(src zk.SessionSource, data string) shown {
		p := recipes.NewTTLPresence(src, "/app/here/p", ttl)
		p.Data = []byte(data)
		return shown{p.Start, func(ctx context.Context, data string) error { return p.Set(ctx, []byte(data)) }, p.Stop, p.Err}
	}},
	{name: "Group", busy: true, make: func(src zk.SessionSource, data string) shown {
		g := recipes.NewGroup(src, "/app/here")
		var p *recipes.Presence
		return shown{
			func(ctx context.Context) (err error) { p, err = g.Join(ctx, "p", []byte(data)); return err },
			func(ctx context.Context, data string) error { return p.Set(ctx, []byte(data)) },
			func(ctx context.Context) error {
				if p == nil {
					return nil
				}
				return p.Stop(ctx)
			},
			func() error { return p.Err() },
		}
	}},
	{name: "Dynamic", make: registration(recipes.Dynamic)},
	{name: "DynamicSequential", make: registration(recipes.DynamicSequential)},
	{name: "Permanent", stays: true, make: registration(recipes.Permanent)},
}

// here are the znodes of who is there, as the ensemble has them.
func (sc *scene) here(t *testing.T, ctx context.Context) (list []zk.Znode) {
	t.Helper()
	must(t, sc.s[1].Sync(ctx))
	must(t, sc.c.Member(sc.at[1]).View(ctx, func(v *zk.View) error {
		for z, err := range v.Walk("/app/here") {
			if errors.Is(err, zk.ErrNoNode) {
				return nil
			}
			if err != nil {
				return err
			}
			if strings.HasPrefix(z.Path, "/app/here/p") {
				list = append(list, z)
			}
		}
		return nil
	}))
	return list
}

// only waits until exactly one is there, after a znode, with some data.
func (sc *scene) only(t *testing.T, ctx context.Context, data string, after zk.Znode) (z zk.Znode) {
	t.Helper()
	eventually(t, "it is not there", func() bool {
		list := sc.here(t, ctx)
		if len(list) > 1 { // PRES-S1
			t.Fatalf("there are %+v", list)
		}
		if len(list) == 0 || list[0].Stat.Czxid <= after.Stat.Czxid || !strings.Contains(list[0].Data, data) {
			return false
		}
		z = list[0]
		return true
	})
	return z
}

func (sc *scene) nobody(t *testing.T, ctx context.Context, what string) {
	t.Helper()
	eventually(t, what, func() bool { return len(sc.here(t, ctx)) == 0 })
	time.Sleep(time.Minute) // PRES-S3: nor does it come back
	if list := sc.here(t, ctx); len(list) > 0 {
		t.Fatalf("%s: %+v", what, list)
	}
}

// A session that was attached elsewhere goes on, and its znode with it: the next session puts its own in that place.
func TestPresenceOfAMovedSession(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		next := session(t, ctx, sc.c.Member(sc.at[0]))
		p := recipes.NewPresence(sourceFunc(func(context.Context) (*zk.Session, error) {
			if sc.s[0].Err() == nil {
				return sc.s[0], nil
			}
			return next, nil
		}), "/app/here/p", nil)
		must(t, p.Start(ctx))
		moved, err := sc.c.Member(sc.at[1]).Attach(ctx, sc.s[0].ID(), sc.s[0].Listener().Password(), zk.SessionConfig{Timeout: time.Minute})
		must(t, err)
		eventually(t, "it is another session's", func() bool {
			list := sc.here(t, ctx)
			return len(list) == 1 && list[0].Stat.EphemeralOwner == next.ID()
		})
		must(t, moved.Close())
		must(t, p.Err())
		must(t, p.Stop(ctx))
		residue(t, ctx, sc.c, "/app")
	})
}

type sourceFunc func(context.Context) (*zk.Session, error)

func (f sourceFunc) Session(ctx context.Context) (*zk.Session, error) { return f(ctx) }

// Stop deletes what Start has created and nothing else: neither a parent nor what another has put in its place.
func TestPresenceStopDeletesItsOwn(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		_, err := s.Create(ctx, "/dir", nil, zk.Persistent)
		must(t, err)
		p := recipes.NewPresence(s, "/dir/p", nil)
		must(t, p.Start(ctx))
		_, err = s.Txn(ctx, zk.OpDelete("/dir/p", zk.AnyVersion), zk.OpCreate("/dir/p", []byte("foreign"), zk.Persistent))
		must(t, err)
		synctest.Wait()
		if !drained(p.Published()) {
			t.Error("it says that it is there")
		}
		must(t, p.Stop(ctx))
		if data, _, err := s.Get(ctx, "/dir/p"); string(data) != "foreign" || err != nil { // PRES-S2
			t.Errorf("%q, %v", data, err)
		}
		must(t, s.Delete(ctx, "/dir/p", zk.AnyVersion))
		must(t, p.Start(ctx))
		must(t, p.Stop(ctx))
		must(t, p.Stop(ctx))                                        // again is fine
		if _, ok, err := s.Exists(ctx, "/dir"); !ok || err != nil { // PEER-62: the parent is not ours
			t.Errorf("the parent is gone, %v", err)
		}
		wants(t, p.Set(ctx, nil), zk.ErrClosed)
		must(t, s.Delete(ctx, "/dir", zk.AnyVersion))
		residue(t, ctx, c, "/")
	})
}

// drained reports whether the newest state is that nothing is there.
func drained(states <-chan bool) bool {
	for there := true; ; {
		select {
		case there = <-states:
		default:
			return !there
		}
	}
}

// Published has the newest state only, and is closed at the end.
func TestPresencePublished(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, other := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(0))
		p := recipes.NewPresence(s, "/p", nil)
		if p.Published() != nil || p.ActualPath() != "" || p.Err() != nil {
			t.Error("it was not started")
		}
		must(t, p.Start(ctx))
		must(t, p.Start(ctx)) // it is started
		states := p.Published()
		if there := <-states; !there || p.ActualPath() != "/p" {
			t.Errorf("there: %v, at %q", there, p.ActualPath())
		}
		_, err := other.Txn(ctx, zk.OpDelete("/p", zk.AnyVersion), zk.OpCreate("/p", nil, zk.Ephemeral))
		must(t, err)
		if there := <-states; there {
			t.Error("another's counts")
		}
		must(t, other.Close())
		if there := <-states; !there {
			t.Error("it did not come back")
		}
		must(t, p.Stop(ctx))
		for range states { // closed
		}
		must(t, p.Start(ctx)) // and again
		if there := <-p.Published(); !there {
			t.Error("it was not started again")
		}
		must(t, p.Stop(ctx))
	})
}

// Two that replace each other do not go on for ever, and no state is without one (REG: no gap).
func TestPresenceReplace(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		a, b, watcher := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(0)), session(t, ctx, c.Member(0))
		first, second := recipes.NewPresence(a, "/p", []byte("first")), recipes.NewPresence(b, "/p", []byte("second"))
		first.Replace, second.Replace = true, true
		must(t, first.Start(ctx))
		at := c.Member(0).Applied()
		w, err := watcher.Watch(ctx, "/p", zk.WatchNode)
		must(t, err)
		must(t, second.Start(ctx))
		time.Sleep(time.Minute)
		if n := c.Member(0).Applied() - at; n != 1 {
			t.Errorf("%d writes", n)
		}
		if gone, came := <-w.Events(), <-w.Events(); gone.Type != zk.EventDeleted || came.Type != zk.EventCreated || gone.Zxid != came.Zxid {
			t.Errorf("%+v, %+v", gone, came)
		}
		w.Close()
		if data, _, err := watcher.Get(ctx, "/p"); string(data) != "second" || err != nil {
			t.Errorf("%q, %v", data, err)
		}
		must(t, second.Stop(ctx))
		synctest.Wait()
		if data, _, err := watcher.Get(ctx, "/p"); string(data) != "first" || err != nil {
			t.Errorf("%q, %v", data, err)
		}
		must(t, first.Stop(ctx))
		residue(t, ctx, c, "/")
	})
}

// What is refused changes nothing, and what is published stays so.
func TestPresenceRefused(t *testing.T) {
	bubble(t, 1, zktest.Config{Base: zk.Config{MaxValueSize: 1000}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		big := make([]byte, 2000)
		wants(t, recipes.NewPresence(s, "/p", big).Start(ctx), zk.ErrTooLarge)
		p := recipes.NewPresence(s, "/p", []byte("a"))
		must(t, p.Start(ctx))
		wants(t, p.Set(ctx, big), zk.ErrTooLarge)
		must(t, p.Err())
		must(t, s.Delete(ctx, "/p", zk.AnyVersion))
		synctest.Wait()
		if data, _, err := s.Get(ctx, "/p"); string(data) != "a" || err != nil {
			t.Errorf("%q, %v", data, err)
		}
		must(t, p.Stop(ctx))
		_, err := s.Create(ctx, "/e", nil, zk.Ephemeral)
		must(t, err)
		wants(t, recipes.NewPresence(s, "/e/p", nil).Start(ctx), zk.ErrNoChildrenForEphemerals)

		// A refusal after the first time is tried again.
		own, err := c.Member(0).NewSession(ctx, zk.SessionConfig{Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("a:b")}}})
		must(t, err)
		_, err = s.Create(ctx, "/dir", nil, zk.Persistent)
		must(t, err)
		p = recipes.NewPresence(s, "/dir/p", nil)
		must(t, p.Start(ctx))
		_, err = own.SetACL(ctx, "/dir", []zk.ACL{{Perm: zk.PermAll, Scheme: "digest", ID: zk.DigestID("a:b")}}, zk.AnyVersion)
		must(t, err)
		must(t, own.Delete(ctx, "/dir/p", zk.AnyVersion))
		writes := c.Member(0).Stats().Writes
		time.Sleep(10 * time.Minute)
		wants(t, p.Err(), zk.ErrNoAuth)
		if n := c.Member(0).Stats().Writes - writes; n > 500 {
			t.Errorf("%d writes", n)
		}
		_, err = own.SetACL(ctx, "/dir", zk.OpenACL(), zk.AnyVersion)
		must(t, err)
		eventually(t, "it does not come back", func() bool { return p.Err() == nil })
		must(t, p.Stop(ctx))
		must(t, s.Delete(ctx, "/dir", zk.AnyVersion))
		must(t, s.Close())
		residue(t, ctx, c, "/")
	})
}

// A znode with a time to live stays as long as somebody keeps it, whoever that is, and goes when nobody does.
func TestTTLPresence(t *testing.T) {
	bubble(t, 1, zktest.Config{Base: zk.Config{ReapInterval: time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		there := func() bool { _, ok, err := s.Exists(ctx, "/p"); must(t, err); return ok }
		a, b := recipes.NewTTLPresence(m, "/p", ttl), recipes.NewTTLPresence(s, "/p", ttl)
		a.Data, b.Data = []byte("a"), []byte("b")
		must(t, a.Start(ctx))
		st, _, err := s.Exists(ctx, "/p")
		must(t, err)
		synctest.Wait()
		z := m.Applied()
		time.Sleep(20*ttl + time.Second)
		if n := m.Applied() - z; n != 60 { // one write each third of it
			t.Errorf("%d writes", n)
		}
		must(t, b.Start(ctx))
		z = m.Applied()
		time.Sleep(20*ttl - time.Second)
		if n := m.Applied() - z; n < 59 || n > 61 { // together
			t.Errorf("%d writes", n)
		}
		must(t, a.Stop(ctx))
		wants(t, a.Err(), zk.ErrClosed)
		time.Sleep(10 * ttl)
		if now, _, err := s.Exists(ctx, "/p"); err != nil || now.Czxid != st.Czxid {
			t.Errorf("it has gone, and come back: %+v, %v", now, err)
		}
		began := time.Now()
		must(t, b.Stop(ctx))
		if !there() {
			t.Error("it does not outlive who kept it")
		}
		eventually(t, "it stays for ever", func() bool { return !there() }) // PEER-63, though there never was a child
		if took := time.Since(began); took < ttl-ttl/3 || took > ttl+5*time.Second {
			t.Errorf("it went after %v", took)
		}

		// Curator keeps it by a child: with that it stays, and goes after it.
		must(t, a.Start(ctx))
		_, err = s.Do(ctx, zk.OpCreate("/p/touch", nil, zk.Persistent).WithTTL(2*ttl))
		must(t, err)
		must(t, a.Stop(ctx))
		time.Sleep(ttl + ttl/2)
		if !there() {
			t.Error("the child does not count")
		}
		eventually(t, "it stays for ever", func() bool { return !there() })

		// One that is there is kept, and what was found is deleted by no one.
		_, err = s.Do(ctx, zk.OpCreate("/p", []byte("old"), zk.Persistent).WithTTL(ttl))
		must(t, err)
		must(t, a.Start(ctx))
		if data, _, err := s.Get(ctx, "/p"); string(data) != "a" || err != nil {
			t.Errorf("%q, %v", data, err)
		}
		must(t, a.Set(ctx, []byte("new")))
		time.Sleep(5 * ttl)
		if data, _, err := s.Get(ctx, "/p"); string(data) != "new" || err != nil {
			t.Errorf("%q, %v", data, err)
		}
		must(t, a.Stop(ctx))
		eventually(t, "it stays for ever", func() bool { return !there() })
		residue(t, ctx, c, "/")
	})
}

// The time of a new leader may be behind what the members have made of the last one's, because nobody told it how long there
// was none. A keeper does not take its own write for old by that, and write again and again.
func TestTTLPresenceOfALeaderThatIsBehind(t *testing.T) {
	const ttl = 3 * time.Second
	behind := func(i int, cfg *zk.Config) {
		cfg.Now = func() time.Time { return time.Now().Add(-time.Duration(i) * time.Hour) }
	}
	bubble(t, 3, zktest.Config{Configure: behind}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(10*time.Millisecond, 10*time.Millisecond) // so that a write takes some time
		if l := leader(t, ctx, c); l != 0 {
			must(t, c.Member(l).TransferLeadership(ctx, zktest.Name(0)))
		}
		var keepers []*recipes.TTLPresence
		var sessions []*zk.Session
		for i := 1; i < 3; i++ {
			sessions = append(sessions, session(t, ctx, c.Member(i)))
			p := recipes.NewTTLPresence(c.Member(i), "/p", ttl)
			must(t, p.Start(ctx))
			keepers = append(keepers, p)
		}
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(5 * ttl)
		for _, s := range sessions {
			s.Now() // it never goes back
		}
		must(t, c.Crash(0))
		c.Heal()
		l := c.Member(leader(t, ctx, c))
		must(t, l.Ready(ctx))
		z := l.Applied()
		time.Sleep(2 * ttl)
		if n := l.Applied() - z; n > 2*6+2 { // each for itself, at worst
			t.Errorf("%d writes", n)
		}
		if _, ok, err := session(t, ctx, l).Exists(ctx, "/p"); !ok || err != nil {
			t.Errorf("it is gone: %v", err)
		}
		for _, p := range keepers {
			must(t, p.Stop(ctx))
		}
	})
}

func TestPresenceArguments(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		p, q := recipes.NewPresence(s, "/p", nil), recipes.NewTTLPresence(s, "/p", time.Minute)
		g := recipes.NewGroup(s, "/g")
		join := func(layout recipes.Layout, id, data string) error {
			g := &recipes.Group{Session: s, Path: "/g", Layout: layout}
			_, err := g.Join(ctx, id, []byte(data))
			return err
		}
		r := recipes.NewRegistry[int](s, "/r")
		register := func(ctx context.Context, in recipes.Instance[int]) error { _, err := r.Register(ctx, in); return err }
		reg, err := r.Register(ctx, recipes.Instance[int]{Name: "s", ID: "i"})
		must(t, err)
		part := func(p *recipes.Partitioner) error {
			return p.Run(ctx, func(context.Context, string, *recipes.Held) error { return nil })
		}
		list := func(_ any, err error) error { return err }
		before := c.Member(0).Stats().Writes
		for what, err := range map[string]error{
			"start without ctx":         p.Start(nil),
			"stop without ctx":          p.Stop(nil),
			"set without ctx":           p.Set(nil, nil),
			"set before start":          p.Set(ctx, nil),
			"no source":                 recipes.NewPresence(nil, "/p", nil).Start(ctx),
			"relative path":             recipes.NewPresence(s, "p", nil).Start(ctx),
			"container and ephemeral":   (&recipes.Presence{Session: s, Path: "/p", Mode: zk.Ephemeral | zk.Container}).Start(ctx),
			"ttl: start without ctx":    q.Start(nil),
			"ttl: stop without ctx":     q.Stop(nil),
			"ttl: set before start":     q.Set(ctx, nil),
			"ttl: none":                 recipes.NewTTLPresence(s, "/p", 0).Start(ctx),
			"ttl: longer than there is": recipes.NewTTLPresence(s, "/p", 1<<62).Start(ctx),
			"no id":                     join(recipes.Curator, "", ""),
			"no id, kazoo":              join(recipes.Kazoo, "", ""),
			"no id, shallow":            join(recipes.Shallow, "", ""),
			"a slash":                   join(recipes.Curator, "a/b", ""),
			"a slash, shallow":          join(recipes.Shallow, "a/b", ""),
			"dots":                      join(recipes.Curator, "..", ""),
			"looks like kazoo's":        join(recipes.Curator, strings.Repeat("a", 32)+"-x", ""),
			"data in kazoo's layout":    join(recipes.Kazoo, "a", "data"),
			"no such layout":            join(recipes.Selector, "a", ""),
			"join without ctx":          list(g.Join(nil, "a", nil)),
			"members without ctx":       list(g.Members(nil)),
			"settled without ctx":       list(g.Settled(nil, time.Second)),
			"no name":                   register(ctx, recipes.Instance[int]{ID: "i"}),
			"a name with a slash":       register(ctx, recipes.Instance[int]{Name: "a/b", ID: "i"}),
			"an id with a slash":        register(ctx, recipes.Instance[int]{Name: "a", ID: "i/j"}),
			"no such type":              register(ctx, recipes.Instance[int]{Name: "a", Type: 9}),
			"register without ctx":      register(nil, recipes.Instance[int]{Name: "a"}),
			"update of another":         reg.Update(ctx, recipes.Instance[int]{Name: "t"}),
			"update of another id":      reg.Update(ctx, recipes.Instance[int]{ID: "j"}),
			"update of another type":    reg.Update(ctx, recipes.Instance[int]{Type: recipes.Static}),
			"update without ctx":        reg.Update(nil, recipes.Instance[int]{}),
			"deregister without ctx":    reg.Deregister(nil),
			"services without ctx":      list(r.Services(nil)),
			"instances of nothing":      list(r.Instances(ctx, "")),
			"instances of a path":       list(r.Instances(ctx, "a/b")),
			"pick without ctx":          list(r.Provider("s", nil).Pick(nil)),
			"pick of a path":            list(r.Provider("a/b", nil).Pick(ctx)),
			"items with a slash":        part(recipes.NewPartitioner(s, "/w", "a", []string{"a/b"})),
			"items without a name":      part(recipes.NewPartitioner(s, "/w", "a", []string{""})),
			"partition without an id":   part(recipes.NewPartitioner(s, "/w", "", []string{"a"})),
			"partition by nothing":      recipes.NewPartitioner(s, "/w", "a", nil).Run(ctx, nil),
			"partition without ctx":     recipes.NewPartitioner(s, "/w", "a", nil).Run(nil, nil),
		} {
			if !errors.Is(err, zk.ErrBadArguments) {
				t.Errorf("%s: %v", what, err)
			}
		}
		for _, err := range g.Watch(nil) {
			wants(t, err, zk.ErrBadArguments)
		}
		for _, err := range r.Watch(nil, "s") {
			wants(t, err, zk.ErrBadArguments)
		}
		for _, err := range r.Watch(ctx, "") {
			wants(t, err, zk.ErrBadArguments)
		}
		if n := c.Member(0).Stats().Writes - before; n > 2 { // the engine has refused two
			t.Errorf("%d writes", n)
		}
		must(t, reg.Deregister(ctx))
		residue(t, ctx, c, "/")
	})
}

// What it costs to be there is what the comments say.
func TestPresenceCosts(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		m := sc.c.Member(sc.at[0])
		costs := func(what string, entries, mostReads int64, fn func()) {
			t.Helper()
			must(t, sc.c.Quiesce(ctx))
			z, before := m.Applied(), m.Stats()
			fn()
			must(t, sc.c.Quiesce(ctx))
			synctest.Wait()
			after := m.Stats()
			if n := int64(m.Applied() - z); n != entries || after.LinearReads != before.LinearReads {
				t.Errorf("%s: %d log entries and %d rounds, want %d and none", what, n, after.LinearReads-before.LinearReads, entries)
			}
			if n := after.Reads - before.Reads; n > mostReads {
				t.Errorf("%s: %d local reads, want at most %d", what, n, mostReads)
			}
		}
		watches := func(what string, want int64) {
			t.Helper()
			if n := m.Stats().Watches; n != want {
				t.Errorf("%s: %d watches, want %d", what, n, want)
			}
		}
		for _, k := range keepers {
			p := k.make(sc.s[0], "a")
			costs(k.name+": start", 1, 2, func() { must(t, p.start(ctx)) })
			watches(k.name, 1)
			costs(k.name+": set", 1, 2, func() { must(t, p.set(ctx, "b")) })
			if !k.ttl {
				costs(k.name+": nothing", 0, 0, func() { time.Sleep(time.Minute) })
			}
			list := sc.here(t, ctx)
			if !k.ttl {
				costs(k.name+": stop", 1, 0, func() { must(t, p.stop(ctx)) })
			} else {
				costs(k.name+": stop", 0, 0, func() { must(t, p.stop(ctx)) })
				must(t, sc.s[1].Delete(ctx, list[0].Path, zk.AnyVersion))
			}
			watches(k.name+" is gone", 0)
		}
		g, r := recipes.NewGroup(sc.s[0], "/app/here"), recipes.NewRegistry[string](sc.s[0], "/app")
		var seats []*recipes.Presence
		for i := range 10 {
			p, err := g.Join(ctx, fmt.Sprint("p", i), nil)
			must(t, err)
			seats = append(seats, p)
		}
		costs("members", 0, 1, func() { _, err := g.Members(ctx); must(t, err) })
		costs("services", 0, 1, func() { _, err := r.Services(ctx); must(t, err) })
		costs("instances", 0, 1, func() { _, err := r.Instances(ctx, "here"); must(t, err) })
		provider := r.Provider("here", nil)
		costs("pick", 0, 1, func() { _, err := provider.Pick(ctx); wants(t, err, recipes.ErrNoInstance) })
		some, cancel := context.WithCancel(ctx)
		yields, done := make(chan int, 100), make(chan struct{})
		go func() {
			defer close(done)
			for list := range g.Watch(some) {
				yields <- len(list)
			}
		}()
		if n := <-yields; n != 10 {
			t.Errorf("%d members", n)
		}
		watches("ten members and a watch", 11)
		costs("a member leaves", 1, 1, func() { must(t, seats[0].Stop(ctx)); <-yields })
		cancel()
		<-done
		for _, p := range seats {
			must(t, p.Stop(ctx))
		}
		residue(t, ctx, sc.c, "/app")
	})
}
