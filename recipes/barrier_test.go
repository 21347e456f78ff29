// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// started runs fn n times at once, and returns when all of them wait for something.
func started(n int, fn func(i int) error) <-chan error {
	done := make(chan error, n)
	for i := range n {
		go func() { done <- fn(i) }()
	}
	synctest.Wait()
	return done
}

// still fails if something has come through ch although it should wait, also when time passes.
func still[T any](t *testing.T, what string, ch <-chan T) {
	t.Helper()
	time.Sleep(3 * time.Second)
	synctest.Wait()
	select {
	case v := <-ch:
		t.Fatalf("%s: %v", what, v)
	default:
	}
}

// all receives n nils.
func all(t *testing.T, what string, n int, ch <-chan error) {
	t.Helper()
	for range n {
		if err := soon(t, what, ch); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// crashLeader makes somebody else the leader while fn's callers wait, and returns who it was.
func crashLeader(t *testing.T, ctx context.Context, c *zktest.Cluster) int {
	t.Helper()
	l := leader(t, ctx, c)
	must(t, c.Crash(l))
	leader(t, ctx, c)
	return l
}

func TestBarrier(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		here := recipes.NewBarrier(session(t, ctx, c.Member(0)), "/gates/one")
		must(t, here.Wait(ctx)) // nobody has set it
		must(t, here.Lift(ctx))
		must(t, here.Set(ctx))
		must(t, here.Set(ctx))
		done := started(3, func(i int) error { return recipes.NewBarrier(c.Member(i), "/gates/one").Wait(ctx) })
		still(t, "it is set", done) // BAR-S1
		must(t, here.Lift(ctx))
		must(t, here.Lift(ctx))
		all(t, "it is lifted", 3, done)
		must(t, here.Wait(ctx))
		wants(t, recipes.NewBarrier(c.Member(0), "gates").Wait(ctx), zk.ErrBadArguments)
		wants(t, recipes.NewBarrier(nil, "/gates").Set(ctx), zk.ErrBadArguments)
		wants(t, here.Wait(nil), zk.ErrBadArguments) //nolint:staticcheck // that is the point
		residue(t, ctx, c, "/gates")
	})
}

// A member that lags behind the set does not let anybody through.
func TestBarrierOnMemberThatLags(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l, f := leader(t, ctx, c), follower(t, ctx, c)
		setter, s := recipes.NewBarrier(session(t, ctx, c.Member(l)), "/b"), session(t, ctx, c.Member(f))
		c.Isolate(f)
		must(t, setter.Set(ctx))
		done := started(5, func(int) error { return recipes.NewBarrier(s, "/b").Wait(ctx) })
		still(t, "it was set before the call", done) // BAR-S1
		c.Heal()
		still(t, "it is still set", done) // BAR-S1
		must(t, setter.Lift(ctx))
		all(t, "it is lifted", 5, done)
	})
}

// Whoever waits is released by a lift even if the barrier is up again before anybody could look.
func TestBarrierSetAgain(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		b := recipes.NewBarrier(s, "/b")
		must(t, b.Set(ctx))
		for range 5 {
			done := started(30, func(i int) error { return recipes.NewBarrier(c.Member(i%3), "/b").Wait(ctx) })
			_, err := s.Txn(ctx, zk.OpDelete("/b", zk.AnyVersion), zk.OpCreate("/b", nil, zk.Persistent))
			must(t, err)
			all(t, "lifted and set in one transaction", 30, done) // BAR-S2
		}
		// So it is when the member only learns of both by a snapshot.
		l, f := leader(t, ctx, c), follower(t, ctx, c)
		s, far := session(t, ctx, c.Member(l)), session(t, ctx, c.Member(f))
		done := started(5, func(int) error { return recipes.NewBarrier(far, "/b").Wait(ctx) })
		leaveBehind(t, ctx, c, f, s, func() {
			must(t, recipes.NewBarrier(s, "/b").Lift(ctx))
			must(t, recipes.NewBarrier(s, "/b").Set(ctx))
		})
		c.Heal()
		all(t, "lifted and set while the member was away", 5, done) // BAR-S2
	})
}

// All waiters on the member that lifts return although no time passes and whatever else is written; the others when
// they have applied it. Nobody reads anything once it is lifted.
func TestBarrierReleasesAll(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const each = 300
		s := session(t, ctx, c.Member(0))
		b := recipes.NewBarrier(s, "/b")
		must(t, b.Set(ctx))
		var lots [3]<-chan error
		before := c.Member(0).Stats().Reads
		for i := range lots {
			lots[i] = started(each, func(int) error { return recipes.NewBarrier(c.Member(i), "/b").Wait(ctx) })
		}
		for len(lots[0]) == 0 && c.Member(0).Stats().Watches < each {
			time.Sleep(time.Millisecond)
		}
		for i := range 20 {
			_, err := s.Create(ctx, fmt.Sprint("/b/unrelated", i), nil, zk.Persistent)
			must(t, err)
			must(t, s.Delete(ctx, fmt.Sprint("/b/unrelated", i), zk.AnyVersion))
		}
		began := time.Now()
		must(t, b.Lift(ctx))
		lifted := time.Now()
		synctest.Wait()
		if n := len(lots[0]); n != each || time.Now() != lifted { // BAR-L1
			t.Errorf("%d of %d have returned", n, each)
		}
		for i := range lots {
			all(t, "it is lifted", each, lots[i])
		}
		if took := time.Since(began); took > 200*time.Millisecond { // BAR-L1
			t.Errorf("the last one returned after %v", took)
		}
		if n := c.Member(0).Stats().Reads - before; n > each+5 {
			t.Errorf("%d reads for %d waiters", n, each)
		}
	})
}

func TestBarrierEvents(t *testing.T) {
	type scene struct {
		*testing.T
		ctx    context.Context
		c      *zktest.Cluster
		l, f   int // the leader, and the follower where the waiters are
		setter *zk.Session
		b      *recipes.Barrier
		s      *zk.Session
	}
	for name, cell := range map[string]struct {
		ephemeral bool
		run       func(t scene, done <-chan error)
	}{
		"session of a waiter expires": {false, func(t scene, done <-chan error) {
			must(t.T, t.c.Expire(t.ctx, t.s))
			for range 3 {
				wants(t.T, soon(t.T, "expired", done), zk.ErrSessionExpired)
			}
			if _, ok, err := t.setter.Exists(t.ctx, "/b"); !ok || err != nil {
				t.Errorf("a persistent barrier has gone: %v", err)
			}
		}},
		"session of the setter expires": {true, func(t scene, done <-chan error) {
			must(t.T, t.c.Expire(t.ctx, t.setter))
			all(t.T, "an ephemeral barrier goes with its session", 3, done)
		}},
		"leader changes": {false, func(t scene, done <-chan error) {
			b := recipes.NewBarrier(t.s, "/b")
			crashLeader(t.T, t.ctx, t.c)
			still(t.T, "nothing was lifted", done)
			must(t.T, b.Lift(t.ctx))
			all(t.T, "it is lifted", 3, done)
		}},
		"setter's process dies": {false, func(t scene, done <-chan error) {
			must(t.T, t.c.Crash(t.l))
			time.Sleep(time.Minute)
			still(t.T, "a persistent barrier stays", done)
		}},
		"setter's process dies, ephemeral": {true, func(t scene, done <-chan error) {
			must(t.T, t.c.Crash(t.l))
			all(t.T, "an ephemeral barrier goes with its session", 3, done)
		}},
		"waiter's process dies": {false, func(t scene, done <-chan error) {
			must(t.T, t.c.Crash(t.f))
			for range 3 {
				if err := soon(t.T, "closed", done); err == nil {
					t.Error("it was not lifted") // BAR-S1
				}
			}
		}},
		"operator deletes it": {false, func(t scene, done <-chan error) {
			must(t.T, session(t.T, t.ctx, t.c.Member((t.f+1)%3)).Delete(t.ctx, "/b", zk.AnyVersion))
			all(t.T, "it is gone", 3, done)
		}},
		"waiter is suspended": {false, func(t scene, done <-chan error) {
			t.c.Isolate(t.f)
			time.Sleep(t.s.Timeout() * 95 / 100)
			t.c.Heal()
			still(t.T, "nothing was lifted", done)
			must(t.T, t.b.Lift(t.ctx))
			all(t.T, "it is lifted", 3, done)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				l, f := leader(t, ctx, c), follower(t, ctx, c)
				setter, s := session(t, ctx, c.Member(l)), session(t, ctx, c.Member(f))
				b := &recipes.Barrier{Session: setter, Path: "/b", Ephemeral: cell.ephemeral}
				must(t, b.Set(ctx))
				done := started(3, func(int) error { return recipes.NewBarrier(s, "/b").Wait(ctx) })
				still(t, "it is set", done)
				cell.run(scene{t, ctx, c, l, f, setter, b, s}, done)
			})
		})
	}
	t.Run("ctx ends", func(t *testing.T) {
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			s := session(t, ctx, c.Member(0))
			must(t, recipes.NewBarrier(s, "/b").Set(ctx))
			why := errors.New("why")
			some, cancel := context.WithCancelCause(ctx)
			done := started(20, func(int) error { return recipes.NewBarrier(s, "/b").Wait(some) })
			began := time.Now()
			cancel(why)
			for range 20 {
				wants(t, soon(t, "ended", done), context.Canceled, why)
			}
			wants(t, recipes.NewBarrier(s, "/b").Wait(some), context.Canceled)
			if time.Now() != began || c.Member(0).Stats().Watches != 0 {
				t.Errorf("%v later, %d watches", time.Since(began), c.Member(0).Stats().Watches)
			}
		})
	})
}
