// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// restoring runs a recipe over a restore: before is what the backup has, then comes what is undone by it.
func restoring(t *testing.T, cfg zktest.Config, fn func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup func(), restore func())) {
	t.Helper()
	bubble(t, 3, cfg, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		var saved bytes.Buffer
		m := c.Member(follower(t, ctx, c))
		fn(t, ctx, c, func() {
			must(t, c.Quiesce(ctx))
			_, err := m.Backup(ctx, &saved)
			must(t, err)
		}, func() {
			must(t, m.Restore(ctx, bytes.NewReader(saved.Bytes())))
			must(t, c.Quiesce(ctx))
		})
	})
}

// Who leads is told that it does not any more, who waits that its session is over, and tokens go on from far above.
func TestElectionRestored(t *testing.T) {
	restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
		s := session(t, ctx, c.Member(0))
		e := recipes.NewElection(s, "/e")
		l := lead(t, ctx, e, "first")
		next := stand(t, ctx, recipes.NewElection(session(t, ctx, c.Member(1)), "/e"), "second")
		backup()
		some, stop := context.WithCancel(ctx)
		seen := make(chan recipes.Leader, 100)
		g := &terms{}
		var all sync.WaitGroup
		all.Go(func() {
			var last zk.Token
			for l, err := range recipes.NewElection(c.Member(2), "/e").Observe(some) {
				if err == nil {
					if l.Token != 0 && l.Token < last { // ELEC-S3
						t.Errorf("token %v after %v", l.Token, last)
					}
					last = max(last, l.Token)
					seen <- l
				}
			}
		})
		all.Go(func() { g.run(t, some, recipes.NewElection(c.Member(2), "/e"), time.Hour) })
		time.Sleep(time.Second)
		restore()
		wants(t, soon(t, "it waits", next).err, zk.ErrSessionExpired)
		isLost(t, l.Held, zk.ErrNoNode) // the znode goes first
		wants(t, l.Proclaim(ctx, []byte("late")), recipes.ErrLost)
		eventually(t, "nobody leads", func() bool { return g.len() > 0 })
		g.mu.Lock()
		n := g.grants[0]
		g.mu.Unlock()
		if n.Token() <= l.Token() { // HELD-S2
			t.Errorf("token %v after %v", n.Token(), l.Token())
		}
		for o := range seen {
			if o.Token == n.Token() {
				break
			}
		}
		stop()
		all.Wait()
		residue(t, ctx, c, "/e")
	})
}

// Values and counters are those of the backup, for watchers too; what was read before the restore writes nothing after it.
func TestValueRestored(t *testing.T) {
	restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
		v, n := recipes.NewValue[string](c.Member(0), "/v"), recipes.NewCounter(c.Member(1), "/n")
		must(t, v.Set(ctx, "old"))
		must(t, n.Set(ctx, 5))
		backup()
		must(t, v.Set(ctx, "new"))
		must(t, n.Set(ctx, 10))
		must(t, c.Quiesce(ctx))
		some, stop := context.WithCancel(ctx)
		got := stream(some, recipes.NewValue[string](c.Member(2), "/v"))
		if y := soon(t, "nothing", got); y.v != "new" {
			t.Errorf("%+v", y)
		}
		s, err := c.Member(1).Session(ctx)
		must(t, err)
		bound := recipes.NewCounter(s, "/n")
		latch := recipes.NewLatch(session(t, ctx, c.Member(2)), "/latch", 1)
		waits := started(1, func(int) error { return latch.Wait(ctx) })
		k := cached(t, ctx, c.Member(2), "/", 0)
		mir := &mirrorOf{view: map[string]zk.Znode{}}
		var all sync.WaitGroup
		runs := 0
		err = recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
			if _, _, err := tx.Get("/v"); err != nil {
				return err
			}
			if runs++; runs == 1 {
				restore()
			}
			return tx.Set("/v", []byte("of another time"))
		})
		wants(t, err, zk.ErrSessionExpired)
		if zk.MaybeApplied(err) || runs != 1 {
			t.Errorf("%v after %d runs", err, runs)
		}
		if err := soon(t, "it waits", waits); err == nil {
			t.Error("the latch was opened")
		}
		_, _, err = bound.Add(ctx, 1)
		wants(t, err, zk.ErrSessionExpired)
		if before, after, err := n.Add(ctx, 1); before != 5 || after != 6 || err != nil {
			t.Errorf("%d, %d, %v", before, after, err)
		}
		if y := soon(t, "nothing", got); y.v != "old" || y.err != nil {
			t.Errorf("%+v", y)
		}
		must(t, c.Quiesce(ctx))
		eventually(t, "the cache stays behind", func() bool { z, _ := k.Get("/v"); return z.Data == "old" })
		settled(t, ctx, c.Member(2), k)
		all.Go(func() { mir.follow(t, ctx, k, 0) })
		must(t, v.Set(ctx, "newer"))
		if y := soon(t, "nothing", got); y.v != "newer" || y.err != nil {
			t.Errorf("%+v", y)
		}
		must(t, c.Quiesce(ctx))
		settled(t, ctx, c.Member(2), k)
		stop()
		k.Close()
		all.Wait()
		mir.agrees(t, content(k))
		for range got {
		}
	})
}
