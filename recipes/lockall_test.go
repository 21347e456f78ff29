// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// All locks are had or none, and they are the locks that Lock has.
func TestLockAll(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		lock := func(i int, name string) *recipes.Lock { return recipes.NewLock(sc.s[i], "/app/lock/"+name) }
		h, err := recipes.LockAll(ctx, sc.s[0], "/app/lock/b", "/app/lock/a", "/app/lock/b", "/app/lock/c/deep")
		must(t, err)
		must(t, h.Verify(ctx))
		must(t, sc.c.Quiesce(ctx))
		for _, name := range []string{"a", "b", "c/deep"} {
			list := inLineHere(t, ctx, lock(1, name))
			if len(list) != 1 || list[0].Token != h.Token() { // MULTI-S1: one znode each, of one zxid
				t.Errorf("%s: %+v", name, list)
			}
			_, err := lock(1, name).TryAcquire(ctx)
			wants(t, err, recipes.ErrNotAcquired)
		}
		_, err = sc.s[1].Txn(ctx, append(h.Guards(), zk.OpCreate("/app/lock/done", nil, zk.Persistent))...)
		must(t, err)
		must(t, sc.s[1].Delete(ctx, "/app/lock/done", zk.AnyVersion))
		before, err := sc.c.Member(sc.at[1]).Applied(), h.Release(ctx)
		must(t, err)
		must(t, sc.c.Quiesce(ctx))
		if n := sc.c.Member(sc.at[1]).Applied() - before; n != 1 { // all at one zxid
			t.Errorf("%d log entries to release", n)
		}
		// One that is held elsewhere is waited for while the others are kept.
		b := acquire(t, ctx, lock(1, "b"))
		all := sc.joins(t, ctx, 0, 3, lockAll(sc.s[0], "/app/lock/a", "/app/lock/b", "/app/lock/c"))
		a := queue(t, ctx, lock(2, "a"))
		waiting(t, all)
		waiting(t, a)
		must(t, b.Release(ctx))
		h = granted(t, all)
		waiting(t, a)
		must(t, h.Release(ctx))
		must(t, granted(t, a).Release(ctx))
	})
}

// Calls whose paths overlap in whatever way, listed in whatever order, never wait for each other for ever (MULTI-L1), and
// on every path at most one is in (MULTI-S1).
func TestLockAllNoDeadlock(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		sc.c.Network().Latency(0, 2*time.Millisecond)
		const places = 6
		var mu sync.Mutex
		var in [places]*recipes.Held
		var last [places]zk.Token
		var all sync.WaitGroup
		for w := range 18 {
			r := rand.New(rand.NewPCG(uint64(w), 44))
			all.Go(func() {
				for range size(60, 8) {
					mine := r.Perm(places)[:1+r.IntN(places)]
					var paths []string
					for _, p := range mine {
						paths = append(paths, fmt.Sprint("/app/lock/", p))
					}
					some, cancel := context.WithTimeout(ctx, time.Hour)
					if r.IntN(5) == 0 { // some give up
						cancel()
						some, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(40))*time.Millisecond)
					}
					h, err := recipes.LockAll(some, sc.s[w%3], paths...)
					cancel()
					if err != nil {
						if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil { // MULTI-L1
							t.Error(err)
						}
						continue
					}
					mu.Lock()
					for _, p := range mine {
						if in[p] != nil || h.Token() <= last[p] { // MULTI-S1, HELD-S2
							t.Errorf("%v on %d, beside %v, after %v", h.Token(), p, in[p], last[p])
						}
						in[p], last[p] = h, h.Token()
					}
					mu.Unlock()
					time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond)
					mu.Lock()
					for _, p := range mine {
						in[p] = nil
					}
					mu.Unlock()
					if err := h.Release(ctx); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		sc.c.Heal()
	})
}

// If one lock is lost all are, and the others are free for whoever waits.
func TestLockAllLosesAll(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for i := range 3 {
			h, err := recipes.LockAll(ctx, sc.s[0], "/app/lock/a", "/app/lock/b", "/app/lock/c")
			must(t, err)
			must(t, sc.c.Quiesce(ctx))
			list := sc.znodes(t, ctx, 0)
			var waiters []<-chan attempt
			for _, name := range []string{"a", "b", "c"} {
				waiters = append(waiters, queue(t, ctx, recipes.NewLock(sc.s[1], "/app/lock/"+name)))
			}
			must(t, sc.s[1].Delete(ctx, list[i].Path, zk.AnyVersion))
			for _, w := range waiters {
				must(t, granted(t, w).Release(ctx))
			}
			isLost(t, h, zk.ErrNoNode)
			must(t, h.Release(ctx))
		}
	})
}

// A holder that crashed is mourned by who takes its lock among others, too.
func TestLockAllGrace(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.graceful(0))
		next := sc.joins(t, ctx, 1, 2, lockAll(sc.s[1], "/app/lock", "/app/other"))
		must(t, sc.c.Crash(sc.at[0]))
		began := sc.vacancy(t, 1, h)
		n := granted(t, next)
		lasts(t, began, n.Session().Now())
		must(t, n.Release(ctx))
		residue(t, ctx, sc.c, "/") // the record too
	})
}
