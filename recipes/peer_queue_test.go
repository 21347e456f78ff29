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

// A queue whose entries are of every kind: finding the next takes as many reads with a few of each as with many.
func TestPeerBacklogOfAllKinds(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		q := newQueue(s)
		fill := func(n int) {
			for i := range n {
				must(t, q.PutAfter(ctx, 1, time.Duration(i+1)*time.Hour))
				must(t, q.PutPriority(ctx, 2, 50))
				must(t, q.PutPriority(ctx, 3, 500))
				must(t, q.Put(ctx, 4))
			}
		}
		steps := func() int64 {
			before := m.Stats().Reads
			for range 5 {
				same(t, "the first priority", take(t, ctx, q, 1), 2)
			}
			return m.Stats().Reads - before
		}
		fill(10)
		few := steps()
		fill(1000)
		if many := steps(); many != few || many > 5*10 { // PEER-48, Q-L3
			t.Errorf("%d reads for five takes with 4,000 entries, %d with 40", many, few)
		}
		// Those that are claimed are passed over one by one, and no further.
		var held []*recipes.Message[int]
		for range 20 {
			held = append(held, receive(t, ctx, q, 2))
		}
		before := m.Stats().Reads
		same(t, "behind the claimed", take(t, ctx, q, 1), 2)
		if n := m.Stats().Reads - before; n > 20+10 {
			t.Errorf("%d reads", n)
		}
		for _, m := range held {
			must(t, m.Ack(ctx))
		}
	})
}

// A consumer whose member was cut off, and had to be given a snapshot, hears of what was put meanwhile.
func TestPeerDeafConsumer(t *testing.T) {
	for _, kind := range []string{"healed in time", "healed late", "by a snapshot"} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				l, f := leader(t, ctx, c), follower(t, ctx, c)
				s := session(t, ctx, c.Member(l))
				far, q := newQueue(s), newQueue(c.Member(f))
				must(t, far.Put(ctx, 0))
				same(t, "before", take(t, ctx, q, 1), 0)
				ch := receiving(ctx, q)
				put := func() { must(t, far.PutAll(ctx, 1, 2)) }
				if kind == "by a snapshot" {
					leaveBehind(t, ctx, c, f, s, put)
				} else {
					c.Isolate(f)
					time.Sleep(time.Second)
					put()
				}
				if kind == "healed late" {
					time.Sleep(time.Minute)
				}
				c.Heal()
				if kind == "healed late" { // it is told that its session is over, and goes on with the next one
					wants(t, soon(t, "deaf", ch).err, zk.ErrSessionExpired)
					ch = receiving(ctx, q)
				}
				must(t, received(t, ch, 1).Ack(ctx)) // PEER-49, Q-L2
				ch = receiving(ctx, q)
				must(t, received(t, ch, 2).Ack(ctx))
				ch = receiving(ctx, q)
				must(t, far.Put(ctx, 3))
				must(t, received(t, ch, 3).Ack(ctx)) // PEER-49, Q-L2
			})
		})
	}
}

// What somebody else consumes between the look and the claim leaves no claim behind and stops nobody: the next item is
// taken instead.
func TestPeerStaleClaims(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := follower(t, ctx, c)
		s, other := session(t, ctx, c.Member(f)), session(t, ctx, c.Member((f+1)%3))
		far := newQueue(other)
		for _, kind := range []string{"taken", "claimed", "deleted", "put again"} {
			// Queues that know nothing of each other look at the same entry.
			a, b := newQueue(s), newQueue(s)
			must(t, far.PutAll(ctx, 1, 2, 3))
			must(t, s.Sync(ctx))
			c.Isolate(f)
			first := receiving(ctx, a)
			second := started(1, func(int) error {
				_, err := b.Take(ctx)
				return err
			})
			entry := "/q/entries/" + names(t, ctx, other, "/q/entries")[0]
			var m *recipes.Message[int]
			switch kind {
			case "taken":
				same(t, "the other is first", take(t, ctx, far, 1), 1)
			case "claimed":
				m = receive(t, ctx, far, 1)
			case "deleted":
				must(t, other.Delete(ctx, entry, zk.AnyVersion))
			case "put again": // under the same name
				must(t, other.Delete(ctx, entry, zk.AnyVersion))
				_, err := other.Create(ctx, entry, []byte("5"), zk.Persistent)
				must(t, err)
			}
			c.Heal()
			r := soon(t, "blocked", first) // PEER-50
			must(t, r.err)
			all(t, "blocked", 1, second) // PEER-50
			if want := map[string]int{"put again": 5}[kind]; r.m.Value == 1 || want != 0 && r.m.Value != want && r.m.Value != 2 && r.m.Value != 3 {
				t.Errorf("%s: received %d, which is gone", kind, r.m.Value)
			}
			must(t, r.m.Ack(ctx))
			if m != nil {
				must(t, m.Ack(ctx))
			}
			for n := len(names(t, ctx, other, "/q/entries")); n > 0; n-- {
				take(t, ctx, far, 1)
			}
			if left := names(t, ctx, other, "/q/taken"); len(left) != 0 { // PEER-50
				t.Errorf("%s: claims %q are left", kind, left)
			}
		}
		// A claim that others left without an entry stops nobody.
		_, err := other.Create(ctx, "/q/taken/entry-100-0000009999", nil, zk.Parents)
		must(t, err)
		must(t, far.Put(ctx, 6))
		must(t, receive(t, ctx, far, 6).Ack(ctx)) // PEER-50
	})
}

// Two items that are put while a consumer waits come in their order, and a watch that ends is an error.
func TestPeerOutOfOrder(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(1))
		q, far := newQueue(s), newQueue(session(t, ctx, c.Member(0)))
		for i := range 20 {
			ch := receiving(ctx, q)
			if i%2 == 0 {
				must(t, far.PutAll(ctx, 1, 2))
			} else {
				// Both are applied before the consumer can look; the one with the better priority comes later.
				put := started(2, func(k int) error { return far.PutPriority(ctx, 2-k, 100-k) })
				all(t, "put", 2, put)
				r := soon(t, "nothing received", ch)
				must(t, r.err)
				must(t, r.m.Nack(ctx, 0))
				must(t, s.Sync(ctx))
				ch = receiving(ctx, q)
			}
			must(t, received(t, ch, 1).Ack(ctx)) // PEER-51, Q-S4
			must(t, receive(t, ctx, q, 2).Ack(ctx))
		}
		ch := receiving(ctx, q)
		must(t, s.Close())
		r := soon(t, "it waits for ever", ch)
		if wants(t, r.err, zk.ErrClosed); r.m != nil { // PEER-51
			t.Error(r.m.Value)
		}
		ch = receiving(ctx, newQueue(c.Member(2)))
		must(t, c.Crash(2))
		if r := soon(t, "it waits for ever", ch); r.err == nil || r.m != nil { // PEER-51
			t.Errorf("%+v", r)
		}
	})
}

// Consumers that come and go while there is nothing leave no watch, mark or goroutine.
func TestPeerMemory(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		q := newQueue(session(t, ctx, m))
		why := errors.New("enough")
		for range size(10_000, 300) {
			some, cancel := context.WithCancelCause(ctx)
			done := started(3, func(int) error { _, err := q.Receive(some); return err })
			cancel(why)
			for range 3 {
				wants(t, soon(t, "ended", done), why)
			}
		}
		synctest.Wait()
		if st := m.Stats(); st.Watches != 0 || st.Ephemerals != 0 { // PEER-52
			t.Errorf("%d watches, %d ephemerals", st.Watches, st.Ephemerals)
		}
	})
}
