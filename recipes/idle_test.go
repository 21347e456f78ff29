// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// idler is what stands idle in a test. What it is given to do in the background ends with ctx, and is awaited.
type idler struct {
	t   *testing.T
	ctx context.Context
	s   *zk.Session
	c   *zktest.Cluster
	all *sync.WaitGroup
}

// waits calls fn in the background; it must not return before the idle time is over.
func (i idler) waits(fn func(ctx context.Context) error) {
	i.all.Go(func() {
		if err := fn(i.ctx); i.ctx.Err() == nil {
			i.t.Errorf("it did not wait: %v", err)
		}
	})
}

// held is a right that somebody has all the time.
func held[T any](i idler, acquire func(ctx context.Context) (T, error)) {
	_, err := acquire(i.ctx)
	must(i.t, err)
}

// Who waits, watches or holds something writes nothing and asks nobody, however long it takes: an idle minute has no log
// entry, no round of messages and no read, but for a TTLPresence. And it has as many watches as its comment says.
func TestIdle(t *testing.T) {
	cached := func(depth int) func(i idler) {
		return func(i idler) {
			k := recipes.NewCache(i.s, "/c")
			k.Depth = depth
			must(i.t, k.Start(i.ctx))
			i.waits(func(ctx context.Context) error {
				defer k.Close()
				for range k.Changes(ctx) {
				}
				return nil
			})
		}
	}
	consumer := func(layout recipes.Layout) func(i idler) {
		return func(i idler) {
			for range 3 { // one watches for all
				q := recipes.NewQueue[int](i.s, "/q")
				q.Layout = layout
				if layout != recipes.Curator {
					must(i.t, q.PutAfter(i.ctx, 1, time.Hour)) // one that nobody gets now makes no difference
				}
				for range 3 {
					i.waits(func(ctx context.Context) error { _, err := q.Receive(ctx); return err })
				}
			}
		}
	}
	for _, k := range []struct {
		name    string
		watches int64
		entries int64 // in a minute
		start   func(i idler)
	}{
		{"Lock", 1 + 2, 0, func(i idler) {
			held(i, recipes.NewLock(i.s, "/l").Acquire)
			i.waits(func(ctx context.Context) error { _, err := recipes.NewLock(i.s, "/l").Acquire(ctx); return err })
		}},
		{"RWLock", 1 + 2, 0, func(i idler) {
			held(i, recipes.NewRWLock(i.s, "/l").Lock)
			i.waits(func(ctx context.Context) error { _, err := recipes.NewRWLock(i.s, "/l").RLock(ctx); return err })
		}},
		{"LockAll", 2, 0, func(i idler) {
			held(i, func(ctx context.Context) (*recipes.Held, error) { return recipes.LockAll(ctx, i.s, "/a", "/b") })
		}},
		{"Semaphore", 1 + 3 + 2, 0, func(i idler) {
			held(i, recipes.NewSemaphore(i.s, "/s", 1).Acquire)
			for range 2 {
				i.waits(func(ctx context.Context) error { _, err := recipes.NewSemaphore(i.s, "/s", 1).Acquire(ctx); return err })
			}
		}},
		{"Election", 1 + 2 + 1, 0, func(i idler) {
			e := recipes.NewElection(i.s, "/e")
			held(i, func(ctx context.Context) (*recipes.Leadership, error) { return e.Campaign(ctx, nil) })
			i.waits(func(ctx context.Context) error { _, err := e.Campaign(ctx, nil); return err })
			i.waits(func(ctx context.Context) error {
				for range e.Observe(ctx) {
				}
				return nil
			})
		}},
		{"Barrier", 1, 0, func(i idler) {
			b := recipes.NewBarrier(i.s, "/b")
			must(i.t, b.Set(i.ctx))
			i.waits(b.Wait)
		}},
		{"DoubleBarrier, to begin", 2, 0, func(i idler) {
			i.waits(func(ctx context.Context) error {
				_, err := recipes.NewDoubleBarrier(i.s, "/db", 2).Enter(ctx)
				return err
			})
		}},
		{"DoubleBarrier, to end", 1 + 1, 0, func(i idler) {
			a, b := entering(i.ctx, recipes.NewDoubleBarrier(i.s, "/db", 2)), entering(i.ctx, recipes.NewDoubleBarrier(i.s, "/db", 2))
			stays, goes := admitted(i.t, a), admitted(i.t, b)
			if goes.Path() < stays.Path() { // who has the lowest name stays inside until the others have left
				stays, goes = goes, stays
			}
			i.waits(goes.Leave)
		}},
		{"Latch", 2, 0, func(i idler) { i.waits(recipes.NewLatch(i.s, "/latch", 2).Wait) }},
		{"Counter", 2, 0, func(i idler) {
			i.waits(func(ctx context.Context) error {
				for range recipes.NewCounter(i.s, "/n").Watch(ctx) {
				}
				return nil
			})
		}},
		{"Value", 2, 0, func(i idler) {
			v := recipes.NewValue[int](i.s, "/v")
			must(i.t, v.Set(i.ctx, 1))
			i.waits(func(ctx context.Context) error {
				for range v.Watch(ctx) {
				}
				return nil
			})
		}},
		{"Cache of a subtree", 1, 0, cached(0)},
		{"Cache of a znode", 2, 0, cached(1)},
		{"Cache of a directory", 1, 0, cached(2)},
		{"Presence", 1, 0, func(i idler) {
			p := recipes.NewPresence(i.s, "/p", nil)
			must(i.t, p.Start(i.ctx))
			i.waits(func(ctx context.Context) error { <-ctx.Done(); return p.Stop(context.WithoutCancel(ctx)) })
		}},
		{"TTLPresence", 1, 6, func(i idler) { // a write each third of its time, and two reads
			p := recipes.NewTTLPresence(i.s, "/p", 30*time.Second)
			must(i.t, p.Start(i.ctx))
			i.waits(func(ctx context.Context) error { <-ctx.Done(); return p.Stop(context.WithoutCancel(ctx)) })
		}},
		{"Group", 1 + 1, 0, func(i idler) {
			g := recipes.NewGroup(i.s, "/g")
			p, err := g.Join(i.ctx, "a", nil)
			must(i.t, err)
			i.waits(func(ctx context.Context) error {
				for range g.Watch(ctx) {
				}
				return p.Stop(context.WithoutCancel(ctx))
			})
		}},
		{"Partitioner", 2 + 3, 0, func(i idler) {
			p := recipes.NewPartitioner(i.s, "/p", "a", []string{"x", "y", "z"})
			i.waits(func(ctx context.Context) error {
				return p.Run(ctx, func(ctx context.Context, _ string, _ *recipes.Held) error { <-ctx.Done(); return nil })
			})
			eventually(i.t, "it has not got all", func() bool { return len(p.Owned()) == 3 })
		}},
		{"Queue", 3 * 2, 0, consumer(recipes.Kazoo)},
		{"Queue, Curator", 3 * 2, 0, consumer(recipes.Curator)},
		{"Queue, CuratorDelay", 3 * 2, 0, consumer(recipes.CuratorDelay)},
		{"Queue, a message", 1, 0, func(i idler) {
			q := newQueue(i.s)
			must(i.t, q.Put(i.ctx, 1))
			held(i, q.Receive)
		}},
		{"Queue, full", 1, 0, func(i idler) {
			q := newQueue(i.s)
			q.MaxItems = 1
			must(i.t, q.Put(i.ctx, 1))
			for range 3 {
				i.waits(func(ctx context.Context) error { return q.Put(ctx, 2) })
			}
		}},
		{"ShardedQueue", 2, 0, func(i idler) {
			q := newSharded(i.s, 2, 3)
			for n := range 3 {
				must(i.t, q.Put(i.ctx, n))
			}
			for range 3 {
				m, err := q.Receive(i.ctx)
				must(i.t, err)
				must(i.t, m.Ack(i.ctx))
			}
			for range 5 {
				i.waits(func(ctx context.Context) error { _, err := q.Receive(ctx); return err })
			}
		}},
		{"TimedLease", 1, 0, func(i idler) {
			held(i, recipes.NewTimedLease(i.s, "/t", "a", time.Hour).Try)
		}},
		{"Registry", 1 + 1, 0, func(i idler) {
			r := recipes.NewRegistry[struct{}](i.s, "/r")
			in, err := r.Register(i.ctx, recipes.Instance[struct{}]{Name: "s", ID: "a", Enabled: true})
			must(i.t, err)
			i.waits(func(ctx context.Context) error {
				for range r.Watch(ctx, "s") {
				}
				return in.Deregister(context.WithoutCancel(ctx))
			})
		}},
		{"Provider", 1, 0, func(i idler) { // the watch is that of the registration
			r := recipes.NewRegistry[struct{}](i.s, "/r")
			in, err := r.Register(i.ctx, recipes.Instance[struct{}]{Name: "s", ID: "a", Enabled: true})
			must(i.t, err)
			p := r.Provider("s", recipes.RoundRobin[struct{}]())
			_, err = p.Pick(i.ctx)
			must(i.t, err)
			i.waits(func(ctx context.Context) error {
				<-ctx.Done()
				p.Close()
				return in.Deregister(context.WithoutCancel(ctx))
			})
		}},
		{"TwoPhase", 2 + 1, 0, func(i idler) {
			p := recipes.NewTwoPhase(i.s, "/2")
			p.Timeout = time.Hour
			i.waits(func(ctx context.Context) error {
				for range p.Proposals(ctx, "a") {
				}
				return nil
			})
			one, err := p.Propose(i.ctx, "x", nil, "a", "b")
			must(i.t, err)
			i.waits(func(ctx context.Context) error { _, err := one.Decision(ctx); return err })
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				some, stop := context.WithCancel(ctx)
				s := session(t, ctx, c.Member(follower(t, ctx, c)))
				var all sync.WaitGroup
				k.start(idler{t, some, s, c, &all})
				synctest.Wait()
				time.Sleep(10 * time.Second) // what begins is over
				p := spend(t, ctx, c, func() { time.Sleep(time.Minute) })
				if p.entries != k.entries || p.writes != k.entries || p.rounds != 0 || p.watches != 0 || p.reads > 2*k.entries {
					t.Errorf("an idle minute costs %+v, want %d entries", p, k.entries)
				}
				watches := int64(0)
				for m := range c.Len() {
					watches += c.Member(m).Stats().Watches
				}
				if watches != k.watches {
					t.Errorf("%d watches, want %d", watches, k.watches)
				}
				stop()
				all.Wait()
			})
		})
	}
}
