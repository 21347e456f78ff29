// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// A call whose context has ended does nothing, also where a goroutine of its own, which is under no caller's context,
// would do the work: it is never done, and never reported as what may have happened. Each is made several times, because
// what is a matter of chance is right sometimes (PEER-10).
func TestEndedContexts(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		presence, expiring := recipes.NewPresence(s, "/presence", nil), recipes.NewTTLPresence(s, "/expiring", time.Hour)
		must(t, presence.Start(ctx))
		must(t, expiring.Start(ctx))
		defer presence.Stop(ctx)
		defer expiring.Stop(ctx)
		registry := recipes.NewRegistry[int](s, "/registry")
		registered, err := registry.Register(ctx, recipes.Instance[int]{Name: "web"})
		must(t, err)
		defer registered.Deregister(ctx)
		held, err := recipes.NewLock(s, "/held").Acquire(ctx)
		must(t, err)
		defer held.Release(ctx)
		calls := map[string]func(ctx context.Context) error{
			"Atomically": func(ctx context.Context) error {
				return recipes.Atomically(ctx, s, func(tx *recipes.Tx) error { return tx.Create("/a", nil, zk.Persistent) })
			},
			"Backoff.Wait": func(ctx context.Context) error { return recipes.Backoff{Base: 1}.Wait(ctx, 0) },
			"Barrier.Set":  func(ctx context.Context) error { return recipes.NewBarrier(s, "/b").Set(ctx) },
			"Barrier.Lift": func(ctx context.Context) error { return recipes.NewBarrier(s, "/b").Lift(ctx) },
			"Barrier.Wait": func(ctx context.Context) error { return recipes.NewBarrier(s, "/b").Wait(ctx) },
			"Cache.Start": func(ctx context.Context) error {
				k := recipes.NewCache(s, "/")
				defer k.Close()
				return k.Start(ctx)
			},
			"Counter.Add": func(ctx context.Context) error {
				_, _, err := recipes.NewCounter(s, "/c").Add(ctx, 1)
				return err
			},
			"Counter.Get": func(ctx context.Context) error {
				_, err := recipes.NewCounter(s, "/c").Get(ctx)
				return err
			},
			"Counter.Set": func(ctx context.Context) error { return recipes.NewCounter(s, "/c").Set(ctx, 1) },
			"Counter.CompareAndSwap": func(ctx context.Context) error {
				_, err := recipes.NewCounter(s, "/c").CompareAndSwap(ctx, 0, 1)
				return err
			},
			"DoubleBarrier.Enter": func(ctx context.Context) error {
				_, err := recipes.NewDoubleBarrier(s, "/d", 1).Enter(ctx)
				return err
			},
			"Election.Campaign": func(ctx context.Context) error {
				_, err := recipes.NewElection(s, "/e").Campaign(ctx, nil)
				return err
			},
			"Election.Run": func(ctx context.Context) error {
				return recipes.NewElection(s, "/e").Run(ctx, nil, func(context.Context, *recipes.Leadership) error { return nil })
			},
			"Election.Candidates": func(ctx context.Context) error {
				_, err := recipes.NewElection(s, "/e").Candidates(ctx)
				return err
			},
			"Group.Join": func(ctx context.Context) error {
				_, err := recipes.NewGroup(s, "/g").Join(ctx, "a", nil)
				return err
			},
			"Group.Members": func(ctx context.Context) error {
				_, err := recipes.NewGroup(s, "/g").Members(ctx)
				return err
			},
			"Held.Verify": held.Verify,
			"Latch.CountDown": func(ctx context.Context) error {
				_, err := recipes.NewLatch(s, "/l", 1).CountDown(ctx)
				return err
			},
			"Latch.Wait": func(ctx context.Context) error { return recipes.NewLatch(s, "/l", 1).Wait(ctx) },
			"Lock.Acquire": func(ctx context.Context) error {
				_, err := recipes.NewLock(s, "/lock").Acquire(ctx)
				return err
			},
			"Lock.TryAcquire": func(ctx context.Context) error {
				_, err := recipes.NewLock(s, "/lock").TryAcquire(ctx)
				return err
			},
			"Migrate": func(ctx context.Context) error { return recipes.Migrate(ctx, s, "/m") },
			"Partitioner.Run": func(ctx context.Context) error {
				return recipes.NewPartitioner(s, "/p", "a", []string{"x"}).Run(ctx, func(context.Context, string, *recipes.Held) error { return nil })
			},
			"Presence.Start":    func(ctx context.Context) error { return recipes.NewPresence(s, "/other", nil).Start(ctx) },
			"Presence.Set":      func(ctx context.Context) error { return presence.Set(ctx, []byte("new")) },
			"TTLPresence.Start": func(ctx context.Context) error { return recipes.NewTTLPresence(s, "/more", time.Hour).Start(ctx) },
			"TTLPresence.Set":   func(ctx context.Context) error { return expiring.Set(ctx, []byte("new")) },
			"Provider.Pick": func(ctx context.Context) error {
				p := registry.Provider("web", recipes.Random[int]())
				defer p.Close()
				_, err := p.Pick(ctx)
				return err
			},
			"Queue.Put": func(ctx context.Context) error { return recipes.NewQueue[int](s, "/q").Put(ctx, 1) },
			"Queue.Receive": func(ctx context.Context) error {
				_, err := recipes.NewQueue[int](s, "/q").Receive(ctx)
				return err
			},
			"Queue.TryTake": func(ctx context.Context) error {
				_, _, err := recipes.NewQueue[int](s, "/q").TryTake(ctx)
				return err
			},
			"Registration.Update": func(ctx context.Context) error {
				return registered.Update(ctx, recipes.Instance[int]{Payload: 1})
			},
			"Registry.Register": func(ctx context.Context) error {
				_, err := registry.Register(ctx, recipes.Instance[int]{Name: "web"})
				return err
			},
			"Registry.Instances": func(ctx context.Context) error {
				_, err := registry.Instances(ctx, "web")
				return err
			},
			"RWLock.Lock": func(ctx context.Context) error {
				_, err := recipes.NewRWLock(s, "/rw").Lock(ctx)
				return err
			},
			"RWLock.TryRLock": func(ctx context.Context) error {
				_, err := recipes.NewRWLock(s, "/rw").TryRLock(ctx)
				return err
			},
			"SchemaSession.DeleteTree": func(ctx context.Context) error { return new(recipes.Schema).On(s).DeleteTree(ctx, "/held") },
			"Semaphore.Acquire": func(ctx context.Context) error {
				_, err := recipes.NewSemaphore(s, "/s", 1).Acquire(ctx)
				return err
			},
			"Semaphore.SetLimit": func(ctx context.Context) error {
				return (&recipes.Semaphore{Session: s, Path: "/s", Limit: 1, SharedLimit: true}).SetLimit(ctx, 2)
			},
			"ShardedQueue.Put": func(ctx context.Context) error { return recipes.NewShardedQueue[int](s, "/sq").Put(ctx, 1) },
			"ShardedQueue.Receive": func(ctx context.Context) error {
				_, err := recipes.NewShardedQueue[int](s, "/sq").Receive(ctx)
				return err
			},
			"TimedLease.Try": func(ctx context.Context) error {
				_, err := recipes.NewTimedLease(s, "/tl", "a", time.Hour).Try(ctx)
				return err
			},
			"TwoPhase.Propose": func(ctx context.Context) error {
				_, err := recipes.NewTwoPhase(s, "/tp").Propose(ctx, "p", nil, "a")
				return err
			},
			"Value.Get": func(ctx context.Context) error {
				_, _, err := recipes.NewValue[int](s, "/v").Get(ctx)
				return err
			},
			"Value.Set": func(ctx context.Context) error { return recipes.NewValue[int](s, "/v").Set(ctx, 1) },
			"Value.Update": func(ctx context.Context) error {
				_, err := recipes.NewValue[int](s, "/v").Update(ctx, func(int) (int, error) { return 1, nil })
				return err
			},
		}
		why := errors.New("enough")
		over, cancel := context.WithCancelCause(ctx)
		cancel(why)
		for name, call := range calls {
			before := c.Member(0).Stats().Applied
			for range 20 {
				err := call(over)
				synctest.Wait()
				if !errors.Is(err, context.Canceled) || !errors.Is(err, why) || zk.MaybeApplied(err) {
					t.Errorf("%s: error is %v", name, err)
					break
				}
			}
			if after := c.Member(0).Stats().Applied; after != before {
				t.Errorf("%s wrote: %v after %v", name, after, before)
			}
		}
	})
}
