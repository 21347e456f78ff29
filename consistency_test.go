// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Names with a sequence number are unique, whoever makes them and whatever becomes of leaders and of the names made
// before (CG-12, DM-121).
func TestSequentialNames(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := settled(t, ctx, c)
		create(t, ctx, session(t, ctx, c.Member(l)), "/q", zk.Persistent)
		c.Network().Latency(0, 5*time.Millisecond)
		var mu sync.Mutex
		made := map[string]int{}
		var all sync.WaitGroup
		for i := range 12 {
			s := session(t, ctx, c.Member((l+1+i%2)%3))
			all.Go(func() {
				for n := range 20 {
					z, err := s.Create(ctx, fmt.Sprintf("/q/%c-", 'a'+i), nil, zk.Sequential)
					if err != nil {
						t.Error(err)
						return
					}
					number, ok := zk.Sequence(z.Path)
					if !ok {
						t.Errorf("%s has no number", z.Path)
					}
					mu.Lock()
					made[fmt.Sprint(number)]++
					mu.Unlock()
					if n%3 == 0 {
						if err := s.Delete(ctx, z.Path, zk.AnyVersion); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		must(t, c.Crash(l))
		all.Wait()
		if len(made) != 12*20 { // each number once, and none for nothing
			t.Errorf("%d numbers for %d names", len(made), 12*20)
		}
		for n := range 12 * 20 {
			if made[fmt.Sprint(n)] != 1 {
				t.Errorf("number %d was given %d times", n, made[fmt.Sprint(n)])
			}
		}
	})
}

// No reader sees a part of a transaction, on any member, by whatever kind of read, while they come one after the other;
// nor does who reads upon the first event of one (CG-3, CG-14).
func TestReadsSeeWholeTransactions(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		w := session(t, ctx, c.Member(0))
		_, err := w.Txn(ctx, node("/t"), node("/t/a"), node("/t/b"), node("/t/new-0"))
		must(t, err)
		for i := range 3 {
			must(t, session(t, ctx, c.Member(i)).Sync(ctx))
		}
		const rounds = 200
		var all sync.WaitGroup
		reads := [3]int{}
		for i := range 3 {
			s := session(t, ctx, c.Member(i))
			tree, err := s.Watch(ctx, "/t", zk.WatchSubtree)
			must(t, err)
			all.Go(func() {
				l := s.Listener()
				version := int32(-1)
				whole := func(how string, a, b, dir zk.Stat) {
					if a.Mzxid != b.Mzxid && a.Version > 0 || a.Version != b.Version || a.Version > 0 && dir.Pzxid != a.Mzxid {
						t.Errorf("%s sees a part: %+v, %+v, %+v", how, a, b, dir)
					}
					if a.Version < version { // CG-4
						t.Errorf("%s went back from %d to %d", how, version, a.Version)
					}
					version = a.Version
				}
				for version < rounds {
					select {
					case <-tree.Events():
					case <-ctx.Done():
						t.Error("no event")
						return
					}
					reads[i]++
					r, _, err := l.MultiRead(ctx, zk.ReadRequest{Path: "/t/a"}, zk.ReadRequest{Path: "/t/b"}, zk.ReadRequest{Path: "/t", Children: true})
					if err != nil || len(r[2].Names) != 3 {
						t.Error(r, err)
						return
					}
					whole("multi read", r[0].Stat, r[1].Stat, r[2].Stat)
					err = s.View(ctx, func(v *zk.View) error {
						a, err := v.Get("/t/a")
						if err != nil {
							return err
						}
						b, err := v.Get("/t/b")
						if err != nil {
							return err
						}
						dir, err := v.Get("/t")
						whole("view", a.Stat, b.Stat, dir.Stat)
						return err
					})
					if err != nil {
						t.Error(err)
					}
					var found []zk.Znode
					for z, err := range s.Walk(ctx, "/t") {
						if err != nil {
							t.Error(err)
						}
						found = append(found, z)
					}
					if len(found) != 4 {
						t.Errorf("a walk found %v", found)
						return
					}
					whole("walk", found[1].Stat, found[2].Stat, found[0].Stat)
				}
			})
		}
		for i := range rounds {
			_, err := w.Txn(ctx, set("/t/a"), zk.OpDelete(fmt.Sprintf("/t/new-%d", i), zk.AnyVersion), node(fmt.Sprintf("/t/new-%d", i+1)), set("/t/b"))
			must(t, err)
		}
		all.Wait()
		for i, n := range reads {
			if n < rounds/10 {
				t.Errorf("member %d was read %d times: this tests too little", i, n)
			}
		}
	})
}

// Reads do not wait for each other: one goes on inside another one (CG-14).
func TestReadsBesideEachOther(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		create(t, ctx, s, "/q", zk.Persistent)
		create(t, ctx, s, "/q/n-", zk.Sequential)
		last := create(t, ctx, s, "/q/n-", zk.Sequential)
		inside := make(chan error, 1)
		_, ok, err := s.Preceding(ctx, last.Path, func(string) bool {
			go func() {
				_, _, err := s.Get(ctx, "/q")
				inside <- err
			}()
			return <-inside == nil
		})
		if !ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
	})
}

// What is read is committed: a leader that was cut off shows nothing of what it could not commit, not even to those whose
// write it is, and what the others have read meanwhile stays (CG-6, CG-10).
func TestReadsShowCommittedWrites(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		old, other := session(t, ctx, c.Member(l)), session(t, ctx, c.Member((l+1)%3))
		doAll(t, ctx, other, node("/x"))
		must(t, old.Sync(ctx))
		c.Isolate(l)
		phantom := old.Listener().Go(ctx, nil, zk.OpCheckAbsent("/taken"), node("/phantom"))
		wrong := old.Listener().Go(ctx, nil, zk.OpSet("/x", []byte("old"), 0))
		_, err := other.Txn(ctx, zk.OpSet("/x", []byte("new"), 0), node("/taken"))
		must(t, err)
		for range 50 { // the old leader steps down meanwhile
			time.Sleep(100 * time.Millisecond)
			if _, ok, _ := old.Exists(ctx, "/phantom"); ok {
				t.Fatal("a write was read that is not committed")
			}
			if data, _, _ := old.Get(ctx, "/x"); len(data) > 0 {
				t.Fatalf("read %q on the old leader", data)
			}
			if data, _, err := other.Get(ctx, "/x"); string(data) != "new" {
				t.Fatalf("read %q on the others, %v", data, err)
			}
		}
		c.Heal()
		<-phantom.Done
		<-wrong.Done
		wants(t, phantom.Error, zk.ErrGuard)
		wants(t, wrong.Error, zk.ErrBadVersion)
		must(t, c.Quiesce(ctx))
		for i := range 3 {
			s := session(t, ctx, c.Member(i))
			data, _, err := s.Get(ctx, "/x")
			must(t, err)
			if _, ok, _ := s.Exists(ctx, "/phantom"); ok || string(data) != "new" { // CG-10
				t.Errorf("member %d: %q, %v", i, data, ok)
			}
		}
	})
}

// A local read may be stale, also after another member's writer has had its answer; a linearizable one, and one after
// Sync, is not (CG-8, DM-51).
func TestStaleReads(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		s, o := session(t, ctx, c.Member(f)), session(t, ctx, c.Member(l))
		doAll(t, ctx, o, node("/x"))
		must(t, s.Sync(ctx))
		c.Network().Slow(zktest.Name(l), zktest.Name(f), 50*time.Millisecond)
		for round := range 5 {
			st, err := o.Set(ctx, "/x", nil, zk.AnyVersion)
			must(t, err)
			_, stale, err := s.Get(ctx, "/x")
			must(t, err)
			if stale.Version != st.Version-1 {
				t.Errorf("a local read sees version %d, %d was answered: this tests too little", stale.Version, st.Version)
			}
			opt := zk.Linearizable
			if round%2 == 0 {
				must(t, s.Sync(ctx))
				opt = zk.Local
			}
			_, fresh, err := s.Get(ctx, "/x", opt)
			must(t, err)
			if fresh.Version != st.Version { // CG-8
				t.Errorf("round %d: version %d, %d was answered", round, fresh.Version, st.Version)
			}
		}
	})
}

// A read and its registration are one: what the read does not show, the watch tells, however they meet (CG-13).
func TestReadAndRegister(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, o := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(0))
		doAll(t, ctx, o, node("/x"))
		seen, told := 0, 0
		for i := range 300 {
			name := fmt.Sprint("n", i)
			before, _, err := s.Exists(ctx, "/x")
			must(t, err)
			var all sync.WaitGroup
			all.Go(func() {
				_, err := o.Txn(ctx, node("/x/"+name), set("/x"))
				if err != nil {
					t.Error(err)
				}
			})
			for range i % 30 { // so that they meet in every order
				runtime.Gosched()
			}
			_, exists, created, err := s.ExistsW(ctx, "/x/"+name)
			must(t, err)
			_, data, changed, err := s.GetW(ctx, "/x")
			must(t, err)
			names, _, children, err := s.ChildrenW(ctx, "/x")
			must(t, err)
			w, err := s.Watch(ctx, "/x", zk.WatchChildSet)
			must(t, err)
			from := w.From()
			all.Wait()
			now, _, err := s.Exists(ctx, "/x")
			must(t, err)
			for what, ok := range map[string]bool{ // CG-13
				"exists":   exists != (len(created) == 1),
				"data":     (data.Version > before.Version) != (len(changed) == 1),
				"children": (len(names) > i) != (len(children) == 1),
				"watch":    (from >= now.Pzxid) != (len(w.Events()) == 1),
			} {
				if !ok {
					t.Errorf("round %d: %s is both seen and told, or neither", i, what)
				}
			}
			if exists {
				seen++
			} else {
				told++
			}
			w.Close()
		}
		if seen == 0 || told == 0 {
			t.Errorf("%d seen, %d told: this tests too little", seen, told)
		}
	})
}
