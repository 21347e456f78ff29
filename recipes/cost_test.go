// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// price is what a call costs on all members together.
type price struct {
	entries int64 // of the log
	writes  int64 // requests to change something
	rounds  int64 // of messages, to read what is current
	watches int64 // that are there after it and were not before
	reads   int64 // of this member's state
	scanned int64 // siblings and children they went over
}

// spend returns what fn costs, with all that follows of it before time passes.
func spend(t *testing.T, ctx context.Context, c *zktest.Cluster, fn func()) price {
	t.Helper()
	total := func() (p price) {
		must(t, c.Quiesce(ctx))
		synctest.Wait()
		p.entries = int64(c.Member(0).Applied())
		for i := range c.Len() {
			st := c.Member(i).Stats()
			p.writes, p.rounds, p.watches = p.writes+st.Writes, p.rounds+st.LinearReads, p.watches+st.Watches
			p.reads, p.scanned = p.reads+st.Reads, p.scanned+st.Scanned
		}
		return p
	}
	before := total()
	fn()
	after := total()
	return price{
		after.entries - before.entries, after.writes - before.writes, after.rounds - before.rounds,
		after.watches - before.watches, after.reads - before.reads, after.scanned - before.scanned,
	}
}

// costs fails unless fn costs exactly what is wanted.
func costs(t *testing.T, ctx context.Context, c *zktest.Cluster, what string, want price, fn func()) {
	t.Helper()
	if got := spend(t, ctx, c, fn); got != want {
		t.Errorf("%s cost %+v, want %+v", what, got, want)
	}
}

// What a barrier costs is what its comment says.
func TestBarrierCost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		var s [3]*zk.Session
		for i := range s {
			s[i] = session(t, ctx, c.Member(i))
		}
		b := recipes.NewBarrier(s[follower(t, ctx, c)], "/b")
		costs(t, ctx, c, "a wait at none", price{rounds: 1, reads: 1}, func() { must(t, b.Wait(ctx)) })
		costs(t, ctx, c, "set", price{entries: 1, writes: 1}, func() { must(t, b.Set(ctx)) })
		costs(t, ctx, c, "set again", price{entries: 1, writes: 1}, func() { must(t, b.Set(ctx)) })
		const n = 300
		var done <-chan error
		costs(t, ctx, c, "a crowd that waits", price{rounds: n, watches: n, reads: n}, func() {
			done = started(n, func(i int) error { return recipes.NewBarrier(s[i%3], "/b").Wait(ctx) })
		})
		costs(t, ctx, c, "lift", price{entries: 1, writes: 1, watches: -n}, func() { // nobody has to look again
			must(t, b.Lift(ctx))
			all(t, "it is lifted", n, done)
		})
		costs(t, ctx, c, "lift again", price{entries: 1, writes: 1}, func() { must(t, b.Lift(ctx)) })
	})
}

// What a double barrier costs is what its comment says.
func TestDoubleBarrierCost(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 10, 100} {
		for _, together := range []bool{false, true} {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				var s [3]*zk.Session
				for i := range s {
					s[i] = session(t, ctx, c.Member(i))
				}
				inside := make(chan *recipes.Membership, n)
				done := make(chan error, n)
				p := spend(t, ctx, c, func() {
					for k := range int(n) {
						go func() {
							m, err := recipes.NewDoubleBarrier(s[k%3], "/db", int(n)).Enter(ctx)
							inside <- m
							done <- err
						}()
						if !together {
							must(t, c.Quiesce(ctx))
							synctest.Wait()
						}
					}
					all(t, "all are there", int(n), done)
				})
				most := n // is listed by who sees all: by one, unless they come together
				if together {
					most *= n + 1 // who lists late sees ready as well
				}
				if p.entries != n+1 || p.writes != n+1 || p.rounds != 0 || p.watches != n || p.reads > 6*n || p.scanned > most {
					t.Errorf("%d enter, together %v: %+v", n, together, p)
				}
				p = spend(t, ctx, c, func() {
					all(t, "all leave", int(n), started(int(n), func(int) error { return (<-inside).Leave(ctx) }))
				})
				if p.entries != n || p.writes != n || p.rounds != 0 || p.watches != -n || p.reads > 6*n {
					t.Errorf("%d leave: %+v", n, p)
				}
			})
		}
	}
}

// What a transaction costs is what its comment says.
func TestAtomicallyCost(t *testing.T) {
	const most = 16
	bubble(t, 3, zktest.Config{Base: zk.Config{MaxTxnOps: most}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, other := session(t, ctx, c.Member(follower(t, ctx, c))), session(t, ctx, c.Member(leader(t, ctx, c)))
		for _, path := range []string{"/d", "/d/a", "/d/b", "/d/c"} {
			_, err := s.Create(ctx, path, nil, zk.Persistent)
			must(t, err)
		}
		set := func(tx *recipes.Tx) error {
			if _, _, err := tx.Get("/d/a"); err != nil {
				return err
			}
			return tx.Set("/d/b", nil)
		}
		costs(t, ctx, c, "a write", price{entries: 1, writes: 1, reads: 1}, func() { must(t, recipes.Atomically(ctx, s, set)) })
		look := func(tx *recipes.Tx) error {
			_, _, err := tx.Get("/d/a")
			return err
		}
		costs(t, ctx, c, "a look", price{reads: 1}, func() { must(t, recipes.Atomically(ctx, s, look)) })
		costs(t, ctx, c, "a look at what is current", price{rounds: 1, reads: 1}, func() { must(t, recipes.Atomically(ctx, s, look, zk.Linearizable)) })
		costs(t, ctx, c, "a list", price{reads: 1, scanned: 3}, func() {
			must(t, recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
				_, err := tx.Children("/d")
				return err
			}))
		})
		wrong := errors.New("no")
		costs(t, ctx, c, "one that gives up", price{reads: 1}, func() {
			wants(t, recipes.Atomically(ctx, s, func(tx *recipes.Tx) error { return errors.Join(set(tx), wrong) }), wrong)
		})
		for conflicts := range int64(4) { // each is a write of somebody else's, and one more of ours
			want := price{entries: 2*conflicts + 1, writes: 2*conflicts + 1, reads: conflicts + 1}
			costs(t, ctx, c, fmt.Sprint(conflicts, " conflicts"), want, func() {
				left := conflicts
				must(t, recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
					err := set(tx)
					if left--; left >= 0 {
						_, failed := other.Set(ctx, "/d/a", nil, zk.AnyVersion)
						err = errors.Join(err, failed)
					}
					return err
				}))
			})
		}
		// One or two guards for each znode read, one for each child listed, and the steps of fn.
		for _, k := range []struct {
			what  string
			steps int
			fn    func(tx *recipes.Tx) error
		}{
			{"three reads", 3 * 2, func(tx *recipes.Tx) (err error) {
				for _, path := range []string{"/d/a", "/d/b", "/d/c"} {
					_, _, failed := tx.Get(path)
					err = errors.Join(err, failed)
				}
				return err
			}},
			{"a znode that is not there", 1, func(tx *recipes.Tx) error {
				_, _, err := tx.Get("/e")
				if errors.Is(err, zk.ErrNoNode) {
					err = nil
				}
				return err
			}},
			{"a list of three", 2 + 3, func(tx *recipes.Tx) error { _, err := tx.Children("/d"); return err }},
		} {
			with := func(sets int) error {
				return recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
					err := k.fn(tx)
					for range sets { // of the root, which needs no guard
						err = errors.Join(err, tx.Set("/", nil))
					}
					return err
				})
			}
			if p := spend(t, ctx, c, func() { must(t, with(most-k.steps)) }); p.entries != 1 {
				t.Errorf("%s: %+v", k.what, p)
			}
			if p := spend(t, ctx, c, func() { wants(t, with(most-k.steps+1), zk.ErrTooLarge) }); p.entries != 0 {
				t.Errorf("%s and more than there is room for: %+v", k.what, p)
			}
		}
	})
}

// What a sharded queue costs is what its comment says.
func TestShardedQueueCost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const threshold, shards = 2, 3
		f := follower(t, ctx, c)
		s := session(t, ctx, c.Member(f))
		q := newSharded(s, threshold, shards)
		// check fails unless there were so many writes, no rounds, and few looks at each of so many shards.
		check := func(what string, writes int64, looks int64, fn func()) {
			t.Helper()
			p := spend(t, ctx, c, fn)
			if p.entries != writes || p.writes != writes || p.rounds != 0 || p.watches != 0 || p.reads > looks || p.scanned > 8*looks {
				t.Errorf("%s cost %+v, want %d writes and %d reads", what, p, writes, looks)
			}
		}
		for i := range threshold * shards {
			writes, known := int64(1), int64(i/threshold)
			if i%threshold == 0 {
				writes++ // for the shard
			}
			check(fmt.Sprint("put ", i), writes, 2+known, func() { must(t, q.Put(ctx, i)) })
		}
		for i := range 20 { // one more look at all, because they are full
			check(fmt.Sprint("another put ", i), 1, 1+shards, func() { must(t, q.Put(ctx, i)) })
		}
		// The first claim in a shard is refused, and the directory made for it.
		extra := int64(2 * shards)
		receive := func(i int, more int64) int64 {
			p := spend(t, ctx, c, func() {
				m, err := q.Receive(ctx)
				must(t, err)
				must(t, m.Ack(ctx))
			})
			most := int64(6+5*shards) * (p.writes - 1) // a look for each claim, another one after each that was refused
			if p.entries != p.writes || p.writes < 2 || p.writes > 2+more || p.rounds != 0 || p.watches != 0 || p.reads > most || p.scanned > 8*most {
				t.Errorf("receive and ack %d cost %+v", i, p)
			}
			return p.writes - 2
		}
		for i := range threshold*shards + 20 {
			extra -= receive(i, extra)
		}
		if extra != 0 {
			t.Errorf("%d writes are missing for the directories", extra)
		}
		for i := range 20 {
			must(t, q.Put(ctx, i))
			receive(i, 0)
		}
		// However many wait, two watches are there, and one of them looks for each item.
		var few int64
		for _, consumers := range []int{2, 30} {
			some, stop := context.WithCancel(ctx)
			acked := make(chan int, 1)
			var done <-chan error
			p := spend(t, ctx, c, func() {
				done = started(consumers, func(int) error {
					for {
						m, err := q.Receive(some)
						if err == nil {
							err = m.Ack(some)
						}
						if err != nil {
							return err
						}
						acked <- m.Value
					}
				})
			})
			if p.writes != 0 || p.rounds != 0 || p.watches != 2 {
				t.Errorf("%d consumers cost %+v", consumers, p)
			}
			reads := int64(0)
			for i := range 10 {
				p = spend(t, ctx, c, func() {
					must(t, newSharded(s, threshold, shards).Put(ctx, i))
					if v := soon(t, "nobody received it", acked); v != i {
						t.Errorf("item %d instead of %d", v, i)
					}
				})
				if p.entries != 3 || p.writes != 3 || p.rounds != 0 || p.watches != 0 {
					t.Errorf("an item for %d consumers cost %+v", consumers, p)
				}
				reads += p.reads
			}
			if few == 0 {
				few = reads
			}
			if reads > few*5/4 || reads > 100*10 {
				t.Errorf("%d reads for ten items of %d consumers, %d of two", reads, consumers, few)
			}
			stop()
			for range consumers {
				wants(t, soon(t, "ended", done), context.Canceled)
			}
		}
	})
}
