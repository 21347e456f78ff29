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

// crowd is a queue with many consumers.
type crowd struct {
	open  func(m *zk.Member) (put func(context.Context, int) error, receive func(context.Context) (*recipes.Message[int], error))
	later func(ctx context.Context, m *zk.Member) error // puts an item that nobody gets before the test is over
}

// A hand-over of an item wakes one consumer on each member, however many wait: so many reads are made for it on all
// members together, of no list, and so many writes.
func TestQueueCrowd(t *testing.T) {
	const items = 40
	type price struct{ reads, scanned, writes, watches int64 } // for all items
	// cost puts items one by one, waits for each to be received and acknowledged, and says what that cost.
	cost := func(consumers int, k crowd) (p price) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			total := func() (p price) {
				for i := range 3 {
					st := c.Member(i).Stats()
					p.reads, p.scanned, p.writes, p.watches = p.reads+st.Reads, p.scanned+st.Scanned, p.writes+st.Writes, p.watches+st.Watches
				}
				return p
			}
			some, cancel := context.WithCancel(ctx)
			acked := make(chan int, items)
			var receive [3]func(context.Context) (*recipes.Message[int], error)
			for i := range receive {
				_, receive[i] = k.open(c.Member(i))
			}
			put, _ := k.open(c.Member(0))
			must(t, put(ctx, 0))
			for range 300 { // who listed them all would show it
				must(t, k.later(ctx, c.Member(0)))
			}
			done := started(consumers, func(i int) error {
				for {
					m, err := receive[i%3](some)
					if err == nil {
						err = m.Ack(some)
					}
					if err != nil {
						return err
					}
					acked <- m.Value
				}
			})
			soon(t, "the first item", acked)
			must(t, c.Quiesce(ctx))
			synctest.Wait()
			before := total()
			for i := range items {
				must(t, put(ctx, i))
				if v := soon(t, "nobody received it", acked); v != i {
					t.Errorf("item %d instead of %d", v, i)
				}
				must(t, c.Quiesce(ctx))
				synctest.Wait()
			}
			after := total()
			p = price{after.reads - before.reads, after.scanned - before.scanned, after.writes - before.writes, after.watches}
			cancel()
			for range consumers {
				if err := soon(t, "ended", done); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
		return p
	}
	none := func(context.Context, *zk.Member) error { return nil }
	for name, k := range map[string]crowd{
		"queue": {
			func(m *zk.Member) (func(context.Context, int) error, func(context.Context) (*recipes.Message[int], error)) {
				q := newQueue(m)
				return q.Put, q.Receive
			},
			func(ctx context.Context, m *zk.Member) error { return newQueue(m).PutAfter(ctx, -1, 24*time.Hour) },
		},
		"queue, Curator": {
			func(m *zk.Member) (func(context.Context, int) error, func(context.Context) (*recipes.Message[int], error)) {
				q := curatorQueue(m)
				return q.Put, q.Receive
			},
			none, // in this layout all items are due
		},
		"sharded queue": {
			func(m *zk.Member) (func(context.Context, int) error, func(context.Context) (*recipes.Message[int], error)) {
				q := newSharded(m, 0, 0)
				return q.Put, q.Receive
			},
			none, // all items are due
		},
	} {
		t.Run(name, func(t *testing.T) {
			few, many := cost(6, k), cost(1000, k)
			t.Logf("%d items: %+v with 6 consumers, %+v with many", items, few, many)
			if many.watches > 6 || many.watches != few.watches { // two where the others of a member wait
				t.Errorf("%d watches", many.watches)
			}
			// A refused claim, of two members that want the same item, is a write more.
			if many.writes > 5*items || many.reads > few.reads*5/4+50 || many.reads > 120*items ||
				many.scanned > few.scanned*5/4+50 || many.scanned > 1000*items {
				t.Errorf("%d items cost %+v with 6 consumers, %+v with many", items, few, many)
			}
		})
	}
}
