// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// barrier is the part of a plain barrier, which both libraries have: whoever lifts it lets everybody go.
func (g *guests) barrier(t *testing.T, waited string) {
	b := recipes.NewBarrier(g.m, "/barrier")
	for _, lift := range []func() error{
		func() error { g.does("x", "lift", b.Path); return nil },
		func() error { return b.Lift(g.ctx) },
	} {
		done(t, b.Set(g.ctx))
		g.does("x", "set", b.Path)
		done(t, b.Set(g.ctx))
		g.waits(g.watching(), "c1", "wait", b.Path)
		us := g.ours(g.watching(), func() error { return b.Wait(g.ctx) })
		done(t, lift(), <-us) // BAR-L1
		g.gets("c1=" + waited)
		done(t, b.Wait(g.ctx))
		g.does("c1", "wait", b.Path)
		done(t, b.Lift(g.ctx))
		g.does("x", "lift", b.Path)
	}
}

// enter begins to enter, and returns what waits for that.
func (g *guests) enter(b *recipes.DoubleBarrier) func() (*recipes.Membership, error) {
	var m *recipes.Membership
	entered := make(chan error, 1)
	go func() {
		var err error
		m, err = b.Enter(g.ctx)
		entered <- err
	}()
	return func() (*recipes.Membership, error) { err := <-entered; return m, err }
}

// leaving is met when somebody has begun to leave: a znode is gone, or another one is watched.
func (g *guests) leaving(dir string) func() error {
	g.t.Helper()
	watching := g.watching()
	names, _, err := g.s.Children(g.ctx, dir)
	done(g.t, err)
	gone := g.lined(dir, len(names)-1)
	return func() error {
		if err := watching(); err != nil {
			return gone()
		}
		return nil
	}
}

// Curator's barriers, counters, values and caches, and ours, on the same paths, in both directions.
func TestSharedDataCurator(t *testing.T) {
	path, version := curatorPath(t)
	g := invite(t, java(t, "DataPeer", path, "java/Peer.java", "java/DataPeer.java")...)
	ctx, m := g.ctx, g.m
	row := tried{t, newRow("barriers, counters, values and caches, beside ours on the same paths")}
	row.row.client, row.row.version = "Curator", version

	g.run(row, "barrier", func(t *testing.T) { g.barrier(t, "") })

	g.run(row, "double_barrier", func(t *testing.T) {
		b := recipes.NewDoubleBarrier(m, "/double", 2)
		for round := range 4 {
			if round%2 == 0 { // we come first, and leave first
				enter := g.enter(b)
				eventually(t, g.lined(b.Path, 1))
				g.does("c1", "enter", b.Path, 2)
				us, err := enter()
				done(t, err)
				left := g.ours(g.leaving(b.Path), func() error { return us.Leave(ctx) })
				g.does("c1", "release")
				done(t, <-left)
			} else {
				g.waits(g.lined(b.Path, 1), "c1", "enter", b.Path, 2)
				us, err := b.Enter(ctx)
				done(t, err)
				g.gets("c1=")
				g.waits(g.leaving(b.Path), "c1", "release")
				done(t, us.Leave(ctx))
				g.gets("c1=")
			}
		}
	})

	g.run(row, "counters", func(t *testing.T) {
		c := recipes.NewCounter(m, "/long")
		counts := func(want int64) {
			t.Helper()
			if got, err := c.Get(ctx); err != nil || got != want {
				t.Errorf("%v of Curator's is %d, %v", want, got, err)
			}
			if got := g.does("x", "long-get", "/long"); got != fmt.Sprint(want) {
				t.Errorf("%v of ours is %s to Curator", want, got)
			}
		}
		if got := g.does("x", "long-add", "/long", 5); got != "true 0 5" {
			t.Errorf("Curator added: %s", got)
		}
		counts(5)
		if before, after, err := c.Add(ctx, -1<<40); before != 5 || after != 5-1<<40 || err != nil {
			t.Errorf("%d, %d, %v", before, after, err)
		}
		counts(5 - 1<<40)
		done(t, c.Set(ctx, 7))
		if got := g.does("x", "long-set", "/long", 6, 8); got != "false 7 0" {
			t.Errorf("Curator set 7 that is not 6: %s", got)
		}
		if got := g.does("x", "long-set", "/long", 7, 8); got != "true 7 8" {
			t.Errorf("Curator set 7: %s", got)
		}
		if ok, err := c.CompareAndSwap(ctx, 7, 9); ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
		if ok, err := c.CompareAndSwap(ctx, 8, 0); !ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
		var wg sync.WaitGroup
		const each = 60
		for i := range 3 { // whoever fails several times stands in one line, ours and Curator's
			g.does(fmt.Sprint("~c", i), "long-count", "/long", each)
			other := recipes.NewCounter(m, "/long")
			wg.Go(func() {
				for range each {
					if _, _, err := other.Add(ctx, 1); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		g.gets("c0=", "c1=", "c2=")
		counts(6 * each) // CNT-S1

		ours := recipes.NewCounter(m, "/blocks")
		next := func(want int64) {
			t.Helper()
			if got := g.does("x", "long-next", "/blocks", 3); got != fmt.Sprint(want) {
				t.Errorf("the next of Curator's block is %s, want %d", got, want)
			}
		}
		next(1)
		b, err := ours.Block(ctx, 2)
		done(t, err)
		next(2)
		for _, want := range []int64{4, 5} {
			if v, ok := b.Next(); v != want || !ok {
				t.Errorf("the next of our block is %d, %v, want %d", v, ok, want)
			}
		}
		next(3)
		next(6)

		n := recipes.NewCounter(m, "/int")
		n.Encoding = recipes.Int32BE
		if got := g.does("x", "count", "/int", 17); got != "17" {
			t.Errorf("Curator's seed: %s", got)
		}
		shared := func(want int64) {
			t.Helper()
			if got, err := n.Get(ctx); err != nil || got != want {
				t.Errorf("%v of Curator's is %d, %v", want, got, err)
			}
			becomes(t, "Curator's count", fmt.Sprint(want), func() string { return g.does("x", "count", "/int", 0) })
		}
		shared(17)
		done(t, n.Set(ctx, -5))
		shared(-5)
		g.does("x", "count-set", "/int", -2147483648)
		shared(-1 << 31)
		if _, _, err := n.Add(ctx, -1); !errors.Is(err, recipes.ErrOverflow) { // CNT-S4
			t.Errorf("added to the least: %v", err)
		}
		done(t, n.Set(ctx, 40))
		shared(40)
		if got := g.does("x", "count-try", "/int", 41); got != "true" {
			t.Errorf("Curator has the newest version, and set it: %s", got)
		}
		if got := g.does("x", "int-add", "/int", 1); got != "true 41 42" {
			t.Errorf("Curator's DistributedAtomicInteger added: %s", got)
		}
		shared(42)
	})

	g.run(row, "values", func(t *testing.T) {
		v := recipes.NewValue[string](m, "/value")
		watched := make(chan string, 16)
		go func() {
			for x, err := range v.Watch(ctx) {
				if err == nil {
					watched <- x
				}
			}
		}()
		is := func(want string) {
			t.Helper()
			if got, _, err := v.Get(ctx); err != nil || got != want {
				t.Errorf("the value is %q, %v, want %q", got, err, want)
			}
			becomes(t, "Curator's value", want, func() string { return g.does("x", "value", "/value", "seed") })
			for got := range watched { // VAL-L1
				if got == want {
					break
				}
			}
		}
		g.does("x", "value", "/value", "seed")
		is("seed")
		done(t, v.Set(ctx, "ours"))
		is("ours")
		g.does("x", "value-set", "/value", "theirs")
		is("theirs")
		_, st, err := v.Get(ctx)
		done(t, err)
		if got := g.does("x", "value-try", "/value", "next"); got != "true" {
			t.Errorf("Curator has the newest version, and set it: %s", got)
		}
		is("next")
		if err := v.SetIf(ctx, "late", st); !errors.Is(err, zk.ErrBadVersion) {
			t.Errorf("set at an older version: %v", err)
		}
		if got := g.does("x", "atomic-set", "/value", "next", "atomic"); got != "true" {
			t.Errorf("Curator's DistributedAtomicValue was set: %s", got)
		}
		is("atomic")
		_, err = v.Update(ctx, func(s string) (string, error) { return s + "+", nil })
		done(t, err)
		is("atomic+")
		if got := g.does("x", "atomic-get", "/value"); got != "atomic+" {
			t.Errorf("Curator's DistributedAtomicValue is %s", got)
		}
	})

	g.run(row, "caches", func(t *testing.T) {
		c := recipes.NewCache(m, "/tree")
		done(t, c.Start(ctx)) // before there is anything
		defer c.Close()
		g.does("x", "cache", "/tree")
		var mu sync.Mutex
		told := map[string]string{} // what the changes make
		go func() {
			for ch, err := range c.Changes(ctx) {
				mu.Lock()
				switch {
				case err != nil: // the end
				case ch.Kind == recipes.Removed:
					delete(told, ch.Path)
				case ch.Kind != recipes.Reset:
					told[ch.Path] = ch.New.Data
				}
				mu.Unlock()
			}
		}()
		show := func(m map[string]string) string {
			var all []string
			for _, path := range slices.Sorted(maps.Keys(m)) {
				all = append(all, path+"="+m[path])
			}
			return strings.Join(all, ",")
		}
		is := func(want string) {
			t.Helper()
			becomes(t, "the cache", want, func() string {
				all := map[string]string{}
				for path, z := range c.All() {
					all[path] = z.Data
				}
				return show(all)
			})
			becomes(t, "the changes", want, func() string { // CACHE-S2
				mu.Lock()
				defer mu.Unlock()
				return show(told)
			})
			becomes(t, "Curator's cache", want, func() string { return g.does("x", "cached", "/tree") })
		}
		is("")
		g.does("x", "create", "/tree/dir/a", "one", "PERSISTENT")
		g.does("x", "create", "/tree/dir/e", "two", "EPHEMERAL")
		is("/tree=,/tree/dir=,/tree/dir/a=one,/tree/dir/e=two")
		g.does("x", "write", "/tree/dir/a", "three")
		g.does("x", "move", "/tree/dir/e", "/tree/dir/f", "four")
		is("/tree=,/tree/dir=,/tree/dir/a=three,/tree/dir/f=four")
		_, err := g.s.Set(ctx, "/tree/dir/f", []byte("five"), zk.AnyVersion)
		done(t, err)
		_, err = g.s.Txn(ctx, zk.OpDelete("/tree/dir/a", zk.AnyVersion), zk.OpCreate("/tree/dir/a", []byte("six"), zk.Persistent),
			zk.OpCreate("/tree/ours", []byte("seven"), zk.Container))
		done(t, err)
		is("/tree=,/tree/dir=,/tree/dir/a=six,/tree/dir/f=five,/tree/ours=seven")
		g.does("x", "delete", "/tree/dir")
		is("/tree=,/tree/ours=seven")
		g.does("x", "delete", "/tree")
		is("")
	})
}

// kazoo's barriers, counters and leases, and ours, on the same paths, in both directions.
func TestSharedDataKazoo(t *testing.T) {
	g := inviteKazoo(t)
	ctx, m := g.ctx, g.m
	row := tried{t, newRow("barriers, counters and timed leases, beside ours on the same paths")}
	row.row.client, row.row.version = "kazoo", g.does("x", "version")

	g.run(row, "barrier", func(t *testing.T) { g.barrier(t, "True") })

	g.run(row, "double_barrier", func(t *testing.T) {
		g.stays("/double")
		b := recipes.NewDoubleBarrier(m, "/double", 3)
		others := recipes.NewDoubleBarrier(m, "/double", 3)
		for round := range 6 {
			// One of three comes last, and begins the round.
			var k string
			first := g.enter(b)
			var second func() (*recipes.Membership, error)
			if round%2 == 0 {
				second = g.enter(others)
				eventually(t, g.lined("/double", 2))
				k = g.does("k", "enter", "/double", 3)
			} else {
				eventually(t, g.lined("/double", 1))
				g.waits(g.lined("/double", 2), "k", "enter", "/double", 3)
				second = g.enter(others)
			}
			a, err := first()
			done(t, err)
			b, err := second()
			done(t, err)
			if round%2 == 1 {
				k = strings.TrimPrefix(g.consumed(1)[0], "k=")
			}
			if k != "True" {
				t.Fatalf("kazoo has not entered: %s", k)
			}
			// kazoo deletes ready when it begins to leave; nobody is out before all are.
			if round%3 == 0 {
				g.waits(g.leaving("/double"), "k", "release")
				left := g.ours(g.leaving("/double"), func() error { return a.Leave(ctx) })
				g.does("x", "ping")
				g.pending(left)
				done(t, b.Leave(ctx), <-left)
				g.gets("k=")
			} else {
				left := g.ours(g.leaving("/double"), func() error { return a.Leave(ctx) })
				second := g.ours(g.leaving("/double"), func() error { return b.Leave(ctx) })
				g.pending(left)
				g.does("k", "release")
				done(t, <-left, <-second)
			}
			if names, _, err := g.s.Children(ctx, "/double"); err != nil || len(names) != 0 {
				t.Fatalf("%q are left, %v", names, err)
			}
		}
	})

	g.run(row, "counters", func(t *testing.T) {
		for verb, encoding := range map[string]recipes.Encoding{"ascii": recipes.ASCII, "curator": recipes.Int32BE} {
			c := recipes.NewCounter(m, "/"+verb)
			c.Encoding = encoding
			if got := g.does("k", "count", c.Path, verb); got != "0" {
				t.Errorf("kazoo counts %s of nothing", got)
			}
			if before, after, err := c.Add(ctx, 5); before != 0 || after != 5 || err != nil {
				t.Errorf("%d, %d, %v", before, after, err)
			}
			if got := g.does("k", "count", c.Path, verb, -12); got != "-7" {
				t.Errorf("kazoo counts %s", got)
			}
			if got, err := c.Get(ctx); got != -7 || err != nil {
				t.Errorf("%d, %v", got, err)
			}
			if ok, err := c.CompareAndSwap(ctx, -7, 0); !ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
			var wg sync.WaitGroup
			const each = 60
			for i := range 2 {
				g.does(fmt.Sprint("~k", i), "count-often", c.Path, verb, each)
				other := &recipes.Counter{Session: m, Path: c.Path, Encoding: encoding}
				wg.Go(func() {
					for range each {
						if _, _, err := other.Add(ctx, 1); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			g.gets("k0=", "k1=")
			if got := g.does("k", "count", c.Path, verb); got != fmt.Sprint(4*each) { // CNT-S1
				t.Errorf("kazoo counts %s", got)
			}
		}
	})

	g.run(row, "timed_leases", func(t *testing.T) {
		for _, path := range []string{"/lease", "/short", "/slots", "/slots/0", "/slots/1"} {
			g.stays(path)
		}
		lease := func(path, holder string, d time.Duration) *recipes.TimedLease {
			return recipes.NewTimedLease(m, path, holder, d)
		}
		us := lease("/lease", "us", time.Hour)
		h, err := us.Try(ctx)
		done(t, err)
		had := func(who, want string, words ...any) {
			t.Helper()
			if got := g.does(append([]any{"k"}, words...)...); got != want {
				t.Errorf("kazoo has the lease of %s: %s", who, got)
			}
		}
		had("ours", "False", "lease", "/lease", "kazoo", 3600)
		done(t, h.Err())
		had("the same name", "True", "lease", "/lease", "us", 3600)
		<-h.Lost() // the znode is another one
		_, err = lease("/lease", "others", time.Hour).Try(ctx)
		g.busy(err)
		again, err := us.Try(ctx) // the same name
		done(t, err, again.Release(ctx))
		had("nobody", "True", "lease", "/lease", "kazoo", 3600)
		_, err = us.Try(ctx)
		g.busy(err) // TL-S1

		had("nobody, for a while", "True", "lease", "/short", "kazoo", 2)
		us = lease("/short", "us", time.Second)
		_, err = us.Try(ctx)
		g.busy(err)
		becomes(t, "the lease after kazoo's time", "<nil>", func() string {
			_, err := us.Try(ctx)
			return fmt.Sprint(err)
		})
		had("ours", "False", "lease", "/short", "kazoo", 3600)
		becomes(t, "the lease after our time", "True", func() string { return g.does("k", "lease", "/short", "kazoo", 3600) })

		slots := func(holder string) *recipes.TimedLease {
			l := lease("/slots", holder, time.Hour)
			l.Slots = 2
			return l
		}
		first, err := slots("one").Try(ctx)
		done(t, err)
		had("a free slot", "True", "leases", "/slots", 2, "kazoo", 3600)
		had("two others", "False", "leases", "/slots", 2, "late", 3600)
		_, err = slots("two").Try(ctx)
		g.busy(err)
		done(t, first.Release(ctx))
		had("who is gone", "True", "leases", "/slots", 2, "late", 3600)
		_, err = slots("two").Try(ctx)
		g.busy(err)
	})
}
