// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// Writes elsewhere between the set and the wait do not move what the wait looks at.
func TestPeerUnrelatedWrites(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		b := recipes.NewBarrier(s, "/b")
		must(t, b.Set(ctx))
		churn := func() {
			for i := range 10 {
				_, err := s.Create(ctx, fmt.Sprint("/x/y", i), nil, zk.Parents)
				must(t, err)
			}
			must(t, s.DeleteTree(ctx, "/x"))
		}
		churn()
		done := started(9, func(i int) error { return recipes.NewBarrier(c.Member(i%3), "/b").Wait(ctx) })
		churn()
		_, err := s.Set(ctx, "/b", []byte("touched"), zk.AnyVersion)
		must(t, err)
		still(t, "it is set", done)
		must(t, b.Lift(ctx))
		churn()
		all(t, "it is lifted", 9, done) // PEER-42
	})
}

// A wake-up alone lets nobody in: whatever happens to the watched znodes, Size members must be there at one moment.
func TestPeerSpuriousWake(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		u := watchOver(t, ctx, s, "/db", 3, false)
		a := entering(ctx, recipes.NewDoubleBarrier(c.Member(1), "/db", 3))
		b := entering(ctx, recipes.NewDoubleBarrier(c.Member(2), "/db", 3))
		still(t, "two of three", a)
		names, _, err := s.Children(ctx, "/db", zk.Linearizable)
		must(t, err)
		for _, name := range names { // their own znodes are what they watch
			_, err := s.Set(ctx, "/db/"+name, []byte("wake up"), zk.AnyVersion)
			must(t, err)
		}
		still(t, "two of three", a) // PEER-43
		for range 5 {               // one comes for a larger round, and gives up
			some, cancel := context.WithCancel(ctx)
			ch := entering(some, recipes.NewDoubleBarrier(c.Member(0), "/db", 4))
			cancel()
			wants(t, soon(t, "ended", ch).err, context.Canceled)
			still(t, "two of three", a) // PEER-43
		}
		still(t, "two of three", b) // PEER-43
		third := entering(ctx, recipes.NewDoubleBarrier(s, "/db", 3))
		u.close(ctx, s, admitted(t, a).Path(), admitted(t, b).Path(), admitted(t, third).Path())
	})
}

// A cancelled Enter leaves no member behind, even where the answer to its create is lost, and the same session enters
// again.
func TestPeerFailedEnter(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := follower(t, ctx, c)
		s, other := session(t, ctx, c.Member(f)), session(t, ctx, c.Member((f+1)%3))
		b := recipes.NewDoubleBarrier(s, "/db", 2)
		for i := range 40 {
			some, cancel := context.WithTimeout(ctx, time.Duration(i*i)*10*time.Microsecond)
			if i%4 == 3 {
				c.Isolate(f)
			} else {
				c.DropForwards(f, i%3)
			}
			_, err := b.Enter(some)
			cancel()
			wants(t, err, context.DeadlineExceeded)
			c.Heal()
			_, err = s.Create(ctx, "/after", nil, zk.Sequential) // comes after whatever is still under way
			must(t, err)
			must(t, c.Quiesce(ctx))                                 // so that nobody looks before it was there
			eventually(t, "a member was left behind", func() bool { // PEER-44, DB-L1
				n, _ := inside(t, ctx, other, "/db")
				return n == 0
			})
		}
		mine, theirs := entering(ctx, b), entering(ctx, recipes.NewDoubleBarrier(other, "/db", 2))
		admitted(t, mine) // PEER-44, DB-L4
		admitted(t, theirs)
	})
}

// One that has given up and comes again is not two, even where its first znode could not be deleted yet.
func TestPeerEnterTwice(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{WatchBuffer: 1 << 12}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l, f := leader(t, ctx, c), follower(t, ctx, c)
		s, other := session(t, ctx, c.Member(f)), session(t, ctx, c.Member(l))
		b := recipes.NewDoubleBarrier(s, "/db", 2)
		u := watchOver(t, ctx, other, "/db", 2, false)
		for i := range 60 {
			some, cancel := context.WithCancel(ctx)
			again := make(chan guest, 1)
			go func() {
				if m, err := b.Enter(some); err == nil {
					again <- guest{m, nil}
				}
				m, err := b.Enter(ctx) // at once
				again <- guest{m, err}
			}()
			synctest.Wait()
			if i%2 == 0 { // the deletion takes a while
				c.Network().Slow(zktest.Name(f), zktest.Name(l), 200*time.Millisecond)
			}
			cancel()
			still(t, "one alone", again)
			c.Heal()
			still(t, "one alone", again) // PEER-44, DB-S1
			theirs := entering(ctx, recipes.NewDoubleBarrier(other, "/db", 2))
			x, y := admitted(t, again), admitted(t, theirs)
			done := leaving(ctx, x)
			must(t, y.Leave(ctx))
			all(t, "all have left", 1, done)
		}
		// Cut off, it comes many times; none of it counts.
		c.Isolate(f)
		synctest.Wait() // it has seen all go
		u.crowd()
		for range 300 {
			some, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			_, err := b.Enter(some)
			cancel()
			wants(t, err, context.DeadlineExceeded)
		}
		c.Heal()
		again := entering(ctx, b)
		still(t, "one alone", again)
		if n := u.crowd(); n != 1 {
			t.Errorf("one alone was there as %d", n)
		}
		x, y := entering(ctx, recipes.NewDoubleBarrier(other, "/db", 2)), again
		p, q := admitted(t, x), admitted(t, y)
		u.close(ctx, other, p.Path(), q.Path())
	})
}

// With more members than Size, and while somebody stays inside, Leave keeps its deadline and looks only when woken.
func TestPeerLeaveLoops(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		b := &recipes.DoubleBarrier{Session: s, Path: "/db", Size: 2, AllowLate: true}
		var m [5]*recipes.Membership
		first := entering(ctx, b)
		for i := 1; i < len(m); i++ {
			m[i] = admitted(t, entering(ctx, b))
		}
		m[0] = admitted(t, first)
		before, began := c.Member(0).Stats().Reads, time.Now()
		some, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		done := started(3, func(i int) error { return m[i].Leave(some) })
		for range 3 {
			wants(t, soon(t, "ended", done), context.DeadlineExceeded) // PEER-45, DB-L2
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("the deadline of a minute took %v", took)
		}
		if n := c.Member(0).Stats().Reads - before; n > 30 { // PEER-45: it does not spin
			t.Errorf("%d reads in a minute of waiting", n)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		wants(t, m[3].Leave(ended), context.Canceled) // DB-L2
		must(t, m[4].Leave(ctx))
		residue(t, ctx, c, "/db")
	})
}

// A ready that stands is no member: one who comes late is one.
func TestPeerReadyCounted(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		// Of a round that is over, all of whose members died before they could clear up.
		_, err := s.Create(ctx, "/db/ready", nil, zk.Parents)
		must(t, err)
		u := watchOver(t, ctx, s, "/db", 2, false)
		late := entering(ctx, recipes.NewDoubleBarrier(s, "/db", 2))
		still(t, "one and ready are not two", late) // PEER-46, DB-S2
		second := entering(ctx, recipes.NewDoubleBarrier(s, "/db", 2))
		a, b := admitted(t, late), admitted(t, second)
		third := entering(ctx, recipes.NewDoubleBarrier(s, "/db", 2))
		done := leaving(ctx, a)
		still(t, "one is inside, and one waits", done)
		must(t, b.Leave(ctx))
		all(t, "ready holds up nobody who leaves", 1, done) // PEER-46, DB-S2
		still(t, "one alone", third)                        // PEER-46, DB-S3
		u.close(ctx, s, a.Path(), b.Path())
	})
}

// Who enters while others leave neither wakes them for nothing nor holds them up.
func TestPeerEnterWakesLeave(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		two := func(i int) *recipes.DoubleBarrier { return recipes.NewDoubleBarrier(c.Member(i), "/db", 2) }
		for _, inside := range []bool{true, false} {
			x, y := entering(ctx, two(0)), entering(ctx, two(0))
			a, b := admitted(t, x), admitted(t, y)
			if a.Path() < b.Path() != inside { // the one with the lowest name waits inside, the other outside
				a, b = b, a
			}
			done := leaving(ctx, a)
			before := c.Member(0).Stats().Reads
			for range 3 {
				some, cancel := context.WithCancel(ctx)
				waits := entering(some, two(1))
				still(t, "another is inside", done) // PEER-47
				cancel()
				wants(t, soon(t, "ended", waits).err, context.Canceled)
			}
			if n := c.Member(0).Stats().Reads - before; n > 0 { // PEER-47
				t.Errorf("%d reads while others came and went", n)
			}
			some, cancel := context.WithCancel(ctx)
			waits := entering(some, two(1))
			must(t, b.Leave(ctx))
			all(t, "all have left", 1, done) // PEER-47
			cancel()
			wants(t, soon(t, "ended", waits).err, context.Canceled)
			eventually(t, "somebody is left", func() bool { return len(below(t, ctx, c.Member(0), "/db")) == 0 })
		}
	})
}
