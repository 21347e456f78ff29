// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

func cached(t *testing.T, ctx context.Context, s zk.SessionSource, root string, depth int) *recipes.Cache {
	t.Helper()
	c := recipes.NewCache(s, root)
	c.Depth = depth
	must(t, c.Start(ctx))
	return c
}

// content is what a cache shows.
func content(c *recipes.Cache) map[string]zk.Znode { return maps.Collect(c.All()) }

// truth is what belongs into a cache, as of now.
func truth(t *testing.T, ctx context.Context, m *zk.Member, root string, depth int) (map[string]zk.Znode, zk.Zxid) {
	t.Helper()
	list, zxid := map[string]zk.Znode{}, zk.Zxid(0)
	must(t, m.View(ctx, func(v *zk.View) error {
		zxid = v.Zxid()
		for z, err := range v.Walk(root) {
			if errors.Is(err, zk.ErrNoNode) {
				break
			}
			if err != nil {
				return err
			}
			if below := strings.Count(strings.TrimPrefix(z.Path, strings.TrimSuffix(root, "/")), "/"); z.Path == root || depth == 0 || below < depth {
				list[z.Path] = z
			}
		}
		return nil
	}))
	return list, zxid
}

// settled checks that a cache has become what the tree is (CACHE-L1).
func settled(t *testing.T, ctx context.Context, m *zk.Member, c *recipes.Cache) {
	t.Helper()
	synctest.Wait()
	want, _ := truth(t, ctx, m, c.Root, c.Depth)
	if got := content(c); !maps.Equal(got, want) {
		t.Fatalf("%s: %s", c.Root, unlike(got, want))
	}
}

func unlike(got, want map[string]zk.Znode) string {
	for p, z := range want {
		if got[p] != z {
			return fmt.Sprintf("%s is %+v, want %+v", p, got[p], z)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			return p + " is too many"
		}
	}
	return "alike"
}

func TestCache(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		_, err := s.Txn(ctx, zk.OpCreate("/a", []byte("1"), zk.Persistent), zk.OpCreate("/a/b", nil, zk.Persistent), zk.OpCreate("/a/b/c", nil, zk.Persistent),
			zk.OpCreate("/a/b-c", nil, zk.Persistent), zk.OpCreate("/a-b", nil, zk.Persistent))
		must(t, err)
		lists := func(what string, seq []string, want ...string) {
			t.Helper()
			if !slices.Equal(seq, want) {
				t.Errorf("%s: %q, want %q", what, seq, want)
			}
		}
		tree, dir, node, root := cached(t, ctx, s, "/a", 0), cached(t, ctx, s, "/a", 2), cached(t, ctx, s, "/a", 1), cached(t, ctx, s, "/", 2)
		for _, c := range []*recipes.Cache{tree, dir, node, root} {
			settled(t, ctx, m, c)
			if c.Zxid() != m.Applied() || c.Err() != nil {
				t.Errorf("as of %v, %v", c.Zxid(), c.Err())
			}
		}
		lists("all", slices.Collect(maps.Keys(content(node))), "/a")
		var all []string
		for p := range tree.All() {
			all = append(all, p)
		}
		lists("all", all, "/a", "/a/b", "/a/b/c", "/a/b-c")
		lists("children", slices.Collect(tree.Children("/a")), "b", "b-c")
		lists("children", slices.Collect(tree.Children("/a/b")), "c")
		lists("children", slices.Collect(tree.Children("/a/b/c")))
		lists("children", slices.Collect(tree.Children("/none")))
		lists("children", slices.Collect(dir.Children("/a/b")))
		lists("children", slices.Collect(node.Children("/a")))
		lists("children", slices.Collect(root.Children("/")), "a", "a-b", "zookeeper")
		for range tree.Children("/a") {
			break
		}
		for range tree.All() {
			break
		}
		if z, ok := tree.Get("/a"); !ok || z.Data != "1" {
			t.Errorf("%+v, %v", z, ok)
		}
		if z, ok := tree.Get("/a-b"); ok {
			t.Errorf("%+v", z)
		}
		tree.Filter = func(path string) bool { return !strings.HasSuffix(path, "c") }
		if _, ok := tree.Get("/a/b-c"); ok {
			t.Error("not filtered")
		}
		lists("filtered", slices.Sorted(maps.Keys(content(tree))), "/a", "/a/b")
		lists("filtered", slices.Collect(tree.Children("/a")), "b")
		tree.Filter = nil
		for _, write := range []func() error{
			func() error { _, err := s.Set(ctx, "/a", []byte("2"), zk.AnyVersion); return err },
			func() error { _, err := s.Set(ctx, "/a/b/c", []byte("2"), zk.AnyVersion); return err },
			func() error { _, err := s.Create(ctx, "/a/b/d", nil, zk.Persistent); return err },
			func() error { return s.Delete(ctx, "/a/b/c", zk.AnyVersion) },
			func() error {
				_, err := s.Txn(ctx, zk.OpDelete("/a/b/d", zk.AnyVersion), zk.OpCreate("/a/b/d", nil, zk.Persistent))
				return err
			},
			func() error { return s.DeleteTree(ctx, "/a") },
			func() error { _, err := s.Create(ctx, "/a/x/y", nil, zk.Parents); return err },
		} {
			must(t, write())
			for _, c := range []*recipes.Cache{tree, dir, node, root} {
				settled(t, ctx, m, c)
			}
		}
		before := tree.Zxid()
		must(t, tree.Start(ctx)) // again
		for _, c := range []*recipes.Cache{tree, dir, node, root} {
			c.Close()
			c.Close()
			wants(t, c.Err(), zk.ErrClosed)
			wants(t, c.Start(ctx), zk.ErrClosed)
		}
		if _, ok := tree.Get("/a/x/y"); !ok || tree.Zxid() != before { // what it had can still be read
			t.Error("it is empty")
		}
		recipes.NewCache(s, "/a").Close()
		wants(t, recipes.NewCache(s, "a").Start(ctx), zk.ErrBadArguments)
		wants(t, recipes.NewCache(nil, "/a").Start(ctx), zk.ErrBadArguments)
		wants(t, (&recipes.Cache{Session: s, Root: "/", Depth: -1}).Start(ctx), zk.ErrBadArguments)
		idle := recipes.NewCache(s, "/a")
		wants(t, idle.Start(nil), zk.ErrBadArguments)
		if _, ok := idle.Get("/a"); ok || idle.Zxid() != 0 || len(content(idle)) != 0 || idle.Err() != nil {
			t.Error("a cache that was not started has something")
		}
		for _, err := range idle.Changes(ctx) {
			wants(t, err, zk.ErrBadArguments)
		}
		closed := recipes.NewCache(s, "/a")
		closed.Close()
		wants(t, closed.Start(ctx), zk.ErrClosed)
		residue(t, ctx, c, "/none")
	})
}

// mirrorOf applies changes to a view, and fails where they do not fit it.
type mirrorOf struct {
	mu     sync.Mutex
	view   map[string]zk.Znode
	resets int
	err    error
}

func (m *mirrorOf) follow(t *testing.T, ctx context.Context, c *recipes.Cache, slow time.Duration) {
	for change, err := range c.Changes(ctx) {
		if err != nil {
			m.mu.Lock()
			m.err = err
			m.mu.Unlock()
			return
		}
		m.mu.Lock()
		old, had := m.view[change.Path]
		switch change.Kind {
		case recipes.Added:
			if had || change.New.Path != change.Path || change.New.Stat.Czxid == 0 && change.Path != "/" && !strings.HasPrefix(change.Path, "/zookeeper") {
				t.Errorf("%s is added, was there: %v", change.Path, had)
			}
			m.view[change.Path] = change.New
		case recipes.Updated:
			if !had || old.Stat.Czxid != change.New.Stat.Czxid || old.Stat.Mzxid >= change.New.Stat.Mzxid || old.Data != change.Old.Data { // CACHE-S3
				t.Errorf("%s is updated to %+v, was %+v", change.Path, change.New, old)
			}
			m.view[change.Path] = change.New
		case recipes.Removed:
			if !had || old.Stat.Czxid != change.Old.Stat.Czxid {
				t.Errorf("%s is removed, was there: %v", change.Path, had)
			}
			for p := range m.view {
				if strings.HasPrefix(p, change.Path+"/") {
					t.Errorf("%s is removed before %s", change.Path, p)
				}
			}
			delete(m.view, change.Path)
		case recipes.Reset:
			m.resets++
		default:
			t.Errorf("kind %v", change.Kind)
		}
		m.mu.Unlock()
		if slow > 0 {
			time.Sleep(slow)
		}
	}
}

// agrees compares a mirror with what it mirrors, but for what is said of children (CACHE-S2).
func (m *mirrorOf) agrees(t *testing.T, want map[string]zk.Znode) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, z := range want {
		if got := m.view[p]; got.Stat.Czxid != z.Stat.Czxid || got.Stat.Mzxid != z.Stat.Mzxid || got.Data != z.Data {
			t.Fatalf("%s is %+v, want %+v", p, got, z)
		}
	}
	if len(m.view) != len(want) {
		t.Fatalf("%d znodes, want %d", len(m.view), len(want))
	}
}

// scribble does something at random somewhere below /r.
func scribble(ctx context.Context, s *zk.Session, r *rand.Rand) error {
	path := "/r"
	for range r.IntN(4) {
		path += "/" + string("abc"[r.IntN(3)])
	}
	var err error
	switch r.IntN(7) {
	case 0, 1:
		_, err = s.Create(ctx, path, nil, zk.Parents)
	case 2:
		err = s.Delete(ctx, path, zk.AnyVersion)
	case 3:
		_, err = s.Txn(ctx, zk.OpDelete(path, zk.AnyVersion), zk.OpCreate(path, []byte("again"), zk.Persistent))
	case 4:
		if r.IntN(4) == 0 {
			err = s.DeleteTree(ctx, path)
		}
	default:
		_, err = s.Set(ctx, path, fmt.Append(nil, r.Int()), zk.AnyVersion)
	}
	if errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrNodeExists) || errors.Is(err, zk.ErrNotEmpty) {
		return nil
	}
	return err
}

// Whatever is written, a cache is the tree at its zxid, at every moment; what its consumers were told makes the same of
// nothing, however slow they are.
func TestCacheFollows(t *testing.T) {
	for _, buffer := range []int{8, 128} { // with a small buffer the watch overflows all the time
		t.Run(fmt.Sprint("buffer=", buffer), func(t *testing.T) {
			bubble(t, 3, zktest.Config{Base: zk.Config{WatchBuffer: buffer}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				c.Network().Latency(0, time.Millisecond)
				at := follower(t, ctx, c)
				m := c.Member(at)
				s := session(t, ctx, c.Member((at+1)%3))
				var caches []*recipes.Cache
				var mirrors []*mirrorOf
				var all, writers sync.WaitGroup
				for _, root := range []string{"/r", "/r/a", "/"} {
					for depth := range 4 {
						k := cached(t, ctx, m, root, depth)
						caches = append(caches, k)
						mir := &mirrorOf{view: map[string]zk.Znode{}}
						mirrors = append(mirrors, mir)
						all.Go(func() { mir.follow(t, ctx, k, time.Duration(depth)*time.Millisecond) })
					}
				}
				// history has the tree at each zxid, as far as it was seen.
				history := map[zk.Zxid]map[string]zk.Znode{}
				done := make(chan struct{})
				all.Go(func() { // CACHE-S1
					for n := 0; ; n++ {
						select {
						case <-done:
							return
						case <-time.After(time.Millisecond):
						}
						tree, z := truth(t, ctx, m, "/", 0)
						history[z] = tree
						for i, k := range caches {
							before := k.Zxid()
							got := content(k)
							if k.Zxid() != before || history[before] == nil {
								continue
							}
							for p, z := range got {
								if history[before][p] != z {
									t.Errorf("cache %d at %v: %s is %+v, was %+v", i, before, p, z, history[before][p])
								}
							}
							for p := range history[before] {
								if _, ok := got[p]; !ok && (p == k.Root || strings.HasPrefix(p, strings.TrimSuffix(k.Root, "/")+"/")) && k.Depth == 0 {
									t.Errorf("cache %d at %v lacks %s", i, before, p)
								}
							}
						}
					}
				})
				for w := range 3 {
					r := rand.New(rand.NewPCG(uint64(w), 13))
					writers.Go(func() {
						for range size(3000, 250) {
							if err := scribble(ctx, s, r); err != nil {
								t.Error(err)
							}
						}
					})
				}
				writers.Wait()
				must(t, c.Quiesce(ctx))
				time.Sleep(10 * time.Second) // for the slowest consumer
				synctest.Wait()
				close(done)
				resets := 0
				for i, k := range caches {
					settled(t, ctx, m, k)
					want, _ := truth(t, ctx, m, k.Root, k.Depth)
					mirrors[i].agrees(t, want)
					resets += mirrors[i].resets
					k.Close()
				}
				all.Wait()
				for _, mir := range mirrors {
					wants(t, mir.err, zk.ErrClosed)
				}
				t.Logf("%d resets, %d zxids compared", resets, len(history))
				for i := range 3 {
					if n := c.Member(i).Stats().Watches; n != 0 { // CACHE-L4
						t.Errorf("%d watches", n)
					}
				}
			})
		})
	}
}

// What a cache costs is what its comment says.
func TestCacheCost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		m := c.Member(at)
		s := session(t, ctx, m)
		for i := range 100 {
			_, err := s.Create(ctx, fmt.Sprint("/d/", i), nil, zk.Parents)
			must(t, err)
		}
		z, before := m.Applied(), m.Stats()
		k := cached(t, ctx, s, "/d", 0)
		synctest.Wait()
		after := m.Stats()
		if m.Applied() != z || after.LinearReads != before.LinearReads || after.Watches-before.Watches != 1 || after.Reads-before.Reads > 3 {
			t.Errorf("filling took %d log entries, %d rounds, %d watches, %d reads", m.Applied()-z, after.LinearReads-before.LinearReads, after.Watches-before.Watches, after.Reads-before.Reads)
		}
		_, err := s.Set(ctx, "/d/5", []byte("x"), zk.AnyVersion)
		must(t, err)
		synctest.Wait()
		if n := m.Stats().Reads - after.Reads; n > 2 {
			t.Errorf("one change took %d reads", n)
		}
		settled(t, ctx, m, k)
		reads := m.Stats().Reads
		for range 100 {
			k.Get("/d/5")
		}
		for range k.All() {
		}
		if n := m.Stats().Reads - reads; n != 0 {
			t.Errorf("reading the cache took %d reads", n)
		}
		k.Close()
	})
}

// The rows of the table of reactions.
func TestCacheEvents(t *testing.T) {
	t.Run("the session expires", func(t *testing.T) {
		bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			shared, err := c.Member(at).Session(ctx)
			must(t, err)
			s := session(t, ctx, c.Member((at+1)%3))
			_, err = s.Create(ctx, "/d/x", nil, zk.Parents)
			must(t, err)
			must(t, c.Quiesce(ctx))
			bound, free := cached(t, ctx, shared, "/d", 0), cached(t, ctx, c.Member(at), "/d", 0)
			var all sync.WaitGroup
			mirrors := []*mirrorOf{{view: map[string]zk.Znode{}}, {view: map[string]zk.Znode{}}}
			for i, k := range []*recipes.Cache{bound, free} {
				all.Go(func() { mirrors[i].follow(t, ctx, k, 0) })
			}
			must(t, c.Expire(ctx, shared))
			eventually(t, "it goes on", func() bool { return bound.Err() != nil })
			wants(t, bound.Err(), zk.ErrSessionExpired)
			_, err = s.Create(ctx, "/d/y", nil, zk.Parents)
			must(t, err)
			eventually(t, "it does not go on", func() bool { _, ok := free.Get("/d/y"); return ok })
			settled(t, ctx, c.Member(at), free)
			free.Close()
			bound.Close()
			all.Wait()
			wants(t, mirrors[0].err, zk.ErrSessionExpired)
			wants(t, mirrors[1].err, zk.ErrClosed)
			mirrors[1].agrees(t, content(free))
			if mirrors[1].resets == 0 {
				t.Error("no reset")
			}
		})
	})
	t.Run("a partition, leaders, a snapshot", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			own, err := c.Member(at).NewSession(ctx, zk.SessionConfig{Timeout: 2 * time.Minute})
			must(t, err)
			s, err := c.Member((at+1)%3).NewSession(ctx, zk.SessionConfig{Timeout: 2 * time.Minute})
			must(t, err)
			k := cached(t, ctx, own, "/r", 0)
			mir := &mirrorOf{view: map[string]zk.Znode{}}
			var all sync.WaitGroup
			all.Go(func() { mir.follow(t, ctx, k, 0) })
			r := rand.New(rand.NewPCG(3, 14))
			for round := range 4 {
				change := func() {
					for range 300 {
						must(t, scribble(ctx, s, r))
					}
					// Deleted and created while it is away: the same version, another znode (PEER-56).
					_, err := s.Create(ctx, "/r/same", []byte("same"), zk.Parents)
					if err != nil {
						_, err = s.Txn(ctx, zk.OpDelete("/r/same", zk.AnyVersion), zk.OpCreate("/r/same", []byte("same"), zk.Persistent))
					}
					must(t, err)
				}
				if round%2 == 0 {
					leaveBehind(t, ctx, c, at, s, change)
				} else {
					c.Isolate(at)
					change()
				}
				c.Heal()
				must(t, c.Quiesce(ctx))
				settled(t, ctx, c.Member(at), k)
				mir.agrees(t, content(k))
				must(t, c.Member(leader(t, ctx, c)).TransferLeadership(ctx, ""))
			}
			k.Close()
			all.Wait()
		})
	})
	t.Run("ctx ends", func(t *testing.T) {
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			why := errors.New("why")
			some, cancel := context.WithCancelCause(ctx)
			k := cached(t, some, c.Member(0), "/d", 0)
			mir := &mirrorOf{view: map[string]zk.Znode{}}
			var all sync.WaitGroup
			all.Go(func() { mir.follow(t, some, k, 0) })
			synctest.Wait()
			cancel(why)
			all.Wait()
			wants(t, mir.err, context.Canceled, why)
			wants(t, k.Start(some), context.Canceled)
			if k.Err() != nil { // it bounds the call, not the cache
				t.Error(k.Err())
			}
			k.Close()
		})
	})
	t.Run("Start's ctx ends first", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			c.Isolate(at)
			some, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			k := recipes.NewCache(c.Member(at), "/") // there is no session yet, and none can be had
			wants(t, k.Start(some), context.DeadlineExceeded)
			late := recipes.NewCache(c.Member(at), "/")
			must(t, func() error { c.Heal(); return nil }())
			must(t, late.Start(ctx))
			late.Close()
			k.Close()
		})
	})
	t.Run("the member closes", func(t *testing.T) {
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			k := cached(t, ctx, c.Member(0), "/", 0)
			must(t, c.Crash(0))
			eventually(t, "it goes on", func() bool { return k.Err() != nil })
			wants(t, k.Err(), zk.ErrClosed)
			wants(t, k.Start(ctx), zk.ErrClosed)
			k.Close()
		})
	})
	t.Run("the consumer uses the cache, and closes it", func(t *testing.T) {
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			k := cached(t, ctx, c.Member(0), "/", 0) // PEER-18
			k.Filter = func(string) bool { k.Zxid(); return true }
			for change, err := range k.Changes(ctx) {
				if err != nil {
					wants(t, err, zk.ErrClosed)
					return
				}
				k.Get(change.Path)
				for range k.Changes(ctx) {
					break
				}
				k.Close()
			}
		})
	})
}

// What the session may not read is left out, with what is below it.
func TestCacheSees(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		own, err := c.Member(0).NewSession(ctx, zk.SessionConfig{Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("a:b")}}})
		must(t, err)
		_, err = s.Create(ctx, "/d", nil, zk.Persistent)
		must(t, err)
		var caches []*recipes.Cache
		for depth := range 5 {
			caches = append(caches, cached(t, ctx, s, "/d", depth))
		}
		_, err = own.Do(ctx, zk.OpCreate("/d/secret", nil, zk.Persistent).WithACL(zk.CreatorACL()...))
		must(t, err)
		_, err = own.Create(ctx, "/d/secret/open", nil, zk.Persistent)
		must(t, err)
		_, err = s.Create(ctx, "/d/x/y", nil, zk.Parents)
		must(t, err)
		synctest.Wait()
		for depth := range 5 {
			caches = append(caches, cached(t, ctx, s, "/d", depth))
		}
		for i, k := range caches {
			want := []string{"/d", "/d/x", "/d/x/y"}
			if k.Depth > 0 && k.Depth < 3 {
				want = want[:k.Depth]
			}
			if got := slices.Sorted(maps.Keys(content(k))); !slices.Equal(got, want) {
				t.Errorf("%d: %q, want %q", i, got, want)
			}
			k.Close()
		}
		sub := cached(t, ctx, s.Sub("/d"), "/x", 0)
		if got := slices.Sorted(maps.Keys(content(sub))); !slices.Equal(got, []string{"/x", "/x/y"}) {
			t.Errorf("%q", got)
		}
		must(t, s.Delete(ctx, "/d/x/y", zk.AnyVersion))
		synctest.Wait()
		if got := slices.Sorted(maps.Keys(content(sub))); !slices.Equal(got, []string{"/x"}) {
			t.Errorf("%q", got)
		}
		sub.Close()
		secret := cached(t, ctx, s, "/d/secret", 0)
		if n := len(content(secret)); n != 0 {
			t.Errorf("%d znodes", n)
		}
		secret.Close()
	})
}

// A cache beside a member that does not wait for it: every version of it is that of one moment, and the last is the
// tree. This one runs in real time, because it takes goroutines that do run at the same time.
func TestCacheBesideWriters(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{})
	must(t, err)
	defer m.Close()
	s := session(t, ctx, m)
	const paths = 60
	ops := []zk.Op{zk.OpCreate("/s", nil, zk.Persistent)}
	for i := range paths {
		ops = append(ops, zk.OpCreate(fmt.Sprint("/s/", i), []byte("0"), zk.Persistent))
	}
	_, err = s.Txn(ctx, ops...)
	must(t, err)
	k := cached(t, ctx, s, "/s", 0)
	defer k.Close()
	for round := range size(5000, 300) {
		const burst = 4
		var writers sync.WaitGroup
		for range 2 {
			writers.Go(func() {
				for range burst {
					var ops []zk.Op
					for i := range paths { // all of them get the same
						ops = append(ops, zk.OpSet(fmt.Sprint("/s/", i), fmt.Append(nil, round), zk.AnyVersion))
					}
					if _, err := s.Txn(ctx, ops...); err != nil {
						t.Error(err)
					}
				}
			})
		}
		last := ""
		for done := false; !done && ctx.Err() == nil; {
			seen := map[zk.Zxid]bool{}
			for p, z := range k.All() {
				if p != "/s" {
					seen[z.Stat.Mzxid], last = true, z.Data
				}
			}
			if len(seen) > 1 { // CACHE-S1
				t.Fatalf("round %d: a version of several moments: %v", round, seen)
			}
			done = last == fmt.Sprint(round)
		}
		writers.Wait()
		st, _, err := s.Exists(ctx, "/s/0")
		must(t, err)
		for { // CACHE-L1
			if z, _ := k.Get("/s/0"); z.Stat == st {
				break
			}
			if ctx.Err() != nil {
				z, _ := k.Get("/s/0")
				t.Fatalf("round %d: it stays at %v, the tree is at %v", round, z.Stat.Mzxid, st.Mzxid)
			}
			runtime.Gosched()
		}
	}
}
