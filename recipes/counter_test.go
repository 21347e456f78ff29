// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// interval is what one Add has counted.
type interval struct{ before, after int64 }

// sequential checks that intervals of positive deltas lie end to end, from first on (CNT-S1).
func sequential(t *testing.T, first int64, list []interval) (last int64) {
	t.Helper()
	slices.SortFunc(list, func(a, b interval) int { return int(a.before - b.before) })
	for _, i := range list {
		if i.before != first {
			t.Fatalf("an Add from %d to %d, nothing ends at %d", i.before, i.after, i.before)
		}
		first = i.after
	}
	return first
}

func count(t *testing.T, ctx context.Context, n *recipes.Counter) int64 {
	t.Helper()
	v, err := n.Get(ctx)
	must(t, err)
	return v
}

func TestCounter(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		for e, stored := range map[recipes.Encoding]string{
			recipes.Int64BE: "\xff\xff\xff\xff\xff\xff\xff\xfe", recipes.Int32BE: "\xff\xff\xff\xfe", recipes.ASCII: "-2",
		} {
			n := recipes.NewCounter(s, "/counters/"+e.String())
			n.Encoding, n.Initial = e, 7
			if v := count(t, ctx, n); v != 7 {
				t.Errorf("initially %d", v)
			}
			if _, ok, _ := s.Exists(ctx, n.Path); ok {
				t.Error("looking has created it")
			}
			before, after, err := n.Add(ctx, 3)
			if before != 7 || after != 10 || err != nil {
				t.Errorf("%d, %d, %v", before, after, err)
			}
			before, after, err = n.Add(ctx, -12)
			if before != 10 || after != -2 || err != nil {
				t.Errorf("%d, %d, %v", before, after, err)
			}
			if data, _, err := s.Get(ctx, n.Path); string(data) != stored || err != nil {
				t.Errorf("%v is stored as %q, %v", e, data, err)
			}
			if v := count(t, ctx, n); v != -2 {
				t.Errorf("%d", v)
			}
			if before, after, err = n.Add(ctx, 0); before != -2 || after != -2 || err != nil {
				t.Errorf("%d, %d, %v", before, after, err)
			}
			if ok, err := n.CompareAndSwap(ctx, 5, 6); ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
			if ok, err := n.CompareAndSwap(ctx, -2, 6); !ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
			must(t, n.Set(ctx, 1))
			if v := count(t, ctx, n); v != 1 {
				t.Errorf("%d", v)
			}
			must(t, s.Delete(ctx, n.Path, zk.AnyVersion))
			must(t, n.Set(ctx, 2))
			if _, err = s.Set(ctx, n.Path, nil, zk.AnyVersion); err != nil {
				t.Fatal(err)
			}
			if before, after, err = n.Add(ctx, 1); before != 7 || after != 8 || err != nil { // of empty data
				t.Errorf("%d, %d, %v", before, after, err)
			}
			if e.String() == "unknown" {
				t.Error("an encoding without a name")
			}
		}
		for _, bad := range []*recipes.Counter{{Path: "/c"}, {Session: s, Path: "c"}, {Session: s, Path: "/c", Encoding: 9}, {Session: s, Path: "/"}} {
			_, err := bad.Get(ctx)
			wants(t, err, zk.ErrBadArguments)
			_, _, err = bad.Add(ctx, 1)
			wants(t, err, zk.ErrBadArguments)
			wants(t, bad.Set(ctx, 1), zk.ErrBadArguments)
			_, err = bad.CompareAndSwap(ctx, 1, 2)
			wants(t, err, zk.ErrBadArguments)
			_, err = bad.Block(ctx, 2)
			wants(t, err, zk.ErrBadArguments)
		}
		_, err := recipes.NewCounter(s, "/c").Block(ctx, 0)
		wants(t, err, zk.ErrBadArguments)
		_, _, err = recipes.NewCounter(s, "/c").Add(nil, 1)
		wants(t, err, zk.ErrBadArguments)
	})
}

// A value that does not fit is refused, and changes nothing; in a batch it is refused alone.
func TestCounterOverflow(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		for e, most := range map[recipes.Encoding]int64{recipes.Int64BE: math.MaxInt64, recipes.Int32BE: math.MaxInt32, recipes.ASCII: math.MaxInt64} {
			n := recipes.NewCounter(s, "/"+e.String())
			n.Encoding = e
			must(t, n.Set(ctx, most-1))
			_, _, err := n.Add(ctx, 2) // CNT-S4
			wants(t, err, recipes.ErrOverflow)
			if v := count(t, ctx, n); v != most-1 {
				t.Errorf("%d", v)
			}
			var all sync.WaitGroup
			var failed, fine int
			var mu sync.Mutex
			for range 5 {
				all.Go(func() {
					_, after, err := n.Add(ctx, 1)
					mu.Lock()
					defer mu.Unlock()
					if errors.Is(err, recipes.ErrOverflow) {
						failed++
					} else if err == nil && after == most {
						fine++
					}
				})
			}
			all.Wait()
			if failed != 4 || fine != 1 {
				t.Errorf("%d failed, %d did not", failed, fine)
			}
			must(t, n.Set(ctx, -most))
			_, _, err = n.Add(ctx, -2)
			wants(t, err, recipes.ErrOverflow)
			_, _, err = n.Add(ctx, -1)
			must(t, err)
			_, err = n.Block(ctx, math.MaxInt64)
			if e == recipes.Int32BE {
				wants(t, err, recipes.ErrOverflow)
			}
		}
		n := recipes.NewCounter(s, "/n")
		n.Encoding = recipes.Int32BE
		wants(t, n.Set(ctx, math.MaxInt32+1), recipes.ErrOverflow)
		_, err := n.CompareAndSwap(ctx, 0, math.MinInt32-1)
		wants(t, err, recipes.ErrOverflow)
		n.Initial = math.MaxInt64
		_, err = n.Get(ctx)
		wants(t, err, recipes.ErrOverflow)
	})
}

// Bytes that are no number are an error that says where, and stay until somebody sets the counter.
func TestCounterBadBytes(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		for e, bad := range map[recipes.Encoding][]string{
			recipes.Int64BE: {"1234567", "123456789", "\x00"}, recipes.Int32BE: {"12345678", "123"}, recipes.ASCII: {"x", "1.5", " 1", "9223372036854775808", "0x1"},
		} {
			n := recipes.NewCounter(s, "/"+e.String())
			n.Encoding = e
			must(t, n.Set(ctx, 1))
			for _, data := range bad {
				st, err := s.Set(ctx, n.Path, []byte(data), zk.AnyVersion)
				must(t, err)
				_, get := n.Get(ctx)
				_, _, add := n.Add(ctx, 1)
				_, swap := n.CompareAndSwap(ctx, 1, 2)
				for _, err := range []error{get, add, swap} {
					decode, ok := errors.AsType[*recipes.DecodeError](err)
					if !ok || decode.Path != n.Path || decode.Zxid != st.Mzxid {
						t.Errorf("%v of %q: %v", e, data, err)
					}
				}
				if got, now, _ := s.Get(ctx, n.Path); string(got) != data || now.Version != st.Version {
					t.Errorf("%q was replaced by %q", data, got)
				}
			}
			must(t, n.Set(ctx, 5))
			if v := count(t, ctx, n); v != 5 {
				t.Errorf("%d", v)
			}
		}
	})
}

// Calls on one Counter are combined; those of several processes interfere, and still each counts once.
func TestCounterCombines(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(time.Millisecond, 3*time.Millisecond)
		const goroutines, rounds = 64, 5
		entries := func() zk.Zxid {
			must(t, c.Quiesce(ctx))
			return c.Member(0).Applied()
		}
		for members := 1; members <= 3; members++ { // CNT-L1
			var mu sync.Mutex
			var list []interval
			var all sync.WaitGroup
			path := fmt.Sprint("/c", members)
			var counters []*recipes.Counter
			for m := range members {
				counters = append(counters, recipes.NewCounter(session(t, ctx, c.Member(m)), path))
			}
			z := entries()
			for _, n := range counters {
				for range goroutines {
					all.Go(func() {
						for range rounds {
							before, after, err := n.Add(ctx, 2)
							if err != nil {
								t.Error(err)
							}
							mu.Lock()
							list = append(list, interval{before, after})
							mu.Unlock()
						}
					})
				}
			}
			all.Wait()
			spent := entries() - z
			if last := sequential(t, 0, list); last != int64(2*goroutines*rounds*members) { // CNT-S1
				t.Errorf("the last is %d", last)
			}
			t.Logf("%d processes with %d goroutines each: %d entries for %d additions", members, goroutines, spent, len(list))
			if members == 1 && spent > 2*rounds {
				t.Errorf("%d entries for %d additions of one process", spent, len(list))
			}
			if spent > zk.Zxid(20*rounds*members) {
				t.Errorf("%d entries for %d additions", spent, len(list))
			}
		}
		if names, _, err := session(t, ctx, c.Member(0)).Children(ctx, "/c3-lock"); len(names) > 0 {
			t.Errorf("left in line: %q, %v", names, err)
		}
	})
}

// What a counter costs is what its comment says.
func TestCounterCost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		s, m := session(t, ctx, c.Member(at)), c.Member(at)
		n := recipes.NewCounter(s, "/c")
		costs := func(what string, entries, linear, watches int64, fn func()) {
			t.Helper()
			synctest.Wait()
			z, before := m.Applied(), m.Stats()
			fn()
			synctest.Wait()
			after := m.Stats()
			if e, l, w := int64(m.Applied()-z), after.LinearReads-before.LinearReads, after.Watches-before.Watches; e != entries || l != linear || w != watches {
				t.Errorf("%s: %d log entries, %d rounds, %d watches; want %d, %d, %d", what, e, l, w, entries, linear, watches)
			}
		}
		costs("the first add", 1, 0, 0, func() { n.Add(ctx, 1) })
		costs("add", 1, 0, 0, func() { n.Add(ctx, 1) })
		costs("get", 0, 0, 0, func() { n.Get(ctx) })
		costs("set", 1, 0, 0, func() { n.Set(ctx, 10) })
		costs("swap", 1, 0, 0, func() { n.CompareAndSwap(ctx, 10, 11) })
		costs("no swap", 0, 1, 0, func() { n.CompareAndSwap(ctx, 10, 11) })
		costs("block", 1, 0, 0, func() {
			b, err := n.Block(ctx, 1000)
			must(t, err)
			for range 1000 {
				b.Next()
			}
		})
		some, stop := context.WithCancel(ctx)
		costs("watch", 0, 0, 2, func() { // one, for data and for children
			go func() {
				for range n.Watch(some) {
				}
			}()
			synctest.Wait()
		})
		stop()
		synctest.Wait()
		if w := m.Stats().Watches; w != 0 {
			t.Errorf("%d watches are left", w)
		}
	})
}

// Blocks do not overlap, with each other nor with what is added; each gives out its own.
func TestCounterBlock(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		var mu sync.Mutex
		seen := map[int64]bool{}
		note := func(v int64) {
			mu.Lock()
			defer mu.Unlock()
			if seen[v] {
				t.Errorf("%d twice", v)
			}
			seen[v] = true
		}
		var all sync.WaitGroup
		for m := range 3 {
			n := recipes.NewCounter(c.Member(m), "/ids")
			for range 4 {
				all.Go(func() {
					b, err := n.Block(ctx, 50)
					if err != nil {
						t.Error(err)
						return
					}
					var users sync.WaitGroup
					for range 3 {
						users.Go(func() {
							for {
								v, ok := b.Next()
								if !ok {
									return
								}
								note(v)
							}
						})
					}
					users.Wait()
					if _, ok := b.Next(); ok {
						t.Error("a block goes on")
					}
					_, v, err := n.Add(ctx, 1)
					if err != nil {
						t.Error(err)
					}
					note(v)
				})
			}
		}
		all.Wait()
		for v := range int64(3 * 4 * 51) {
			if !seen[v+1] {
				t.Errorf("%d is missing", v+1)
			}
		}
	})
}

// The end of one caller's context is nobody else's; whether it has counted is told.
func TestCounterContexts(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		s, err := c.Member(at).NewSession(ctx, zk.SessionConfig{Timeout: time.Minute})
		must(t, err)
		n := recipes.NewCounter(s, "/c")
		must(t, n.Set(ctx, 0))
		why := errors.New("why")
		some, cancel := context.WithCancelCause(ctx)
		others, cancelOthers := context.WithCancelCause(ctx)
		c.Isolate(at)
		type result struct {
			interval
			err error
		}
		adds := func(ctx context.Context, count int) <-chan result {
			ch := make(chan result, count)
			for range count {
				go func() {
					before, after, err := n.Add(ctx, 1)
					ch <- result{interval{before, after}, err}
				}()
				synctest.Wait()
			}
			return ch
		}
		leaving, staying := adds(some, 1), adds(ctx, 1) // the first travels alone, the second waits with those after it
		also := adds(others, 3)
		time.Sleep(time.Second)
		began := time.Now()
		cancelOthers(why)
		for range 3 {
			r := soon(t, "it waits", also)
			wants(t, r.err, context.Canceled, why)
			if zk.MaybeApplied(r.err) { // CNT-S2
				t.Errorf("it was not even sent: %v", r.err)
			}
		}
		cancel(why) // when nobody waits for the first any more, the second travels
		r := soon(t, "it waits", leaving)
		wants(t, r.err, context.Canceled, why)
		if !zk.MaybeApplied(r.err) {
			t.Errorf("its outcome is unknown, but %v", r.err)
		}
		if time.Now() != began { // PEER-17
			t.Errorf("ended after %v", time.Since(began))
		}
		c.Heal()
		r = soon(t, "it waits", staying)
		must(t, r.err)
		must(t, c.Quiesce(ctx))
		if v := count(t, ctx, n); v != r.after || v < 1 || v > 2 {
			t.Errorf("%d after %+v", v, r)
		}
		_, _, err = n.Add(some, 1)
		wants(t, err, context.Canceled, why)
		if zk.MaybeApplied(err) {
			t.Errorf("%v", err)
		}
	})
}

// The rows of the table of reactions.
func TestCounterEvents(t *testing.T) {
	t.Run("the session expires", func(t *testing.T) {
		bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			s, err := c.Member(at).Session(ctx)
			must(t, err)
			bound, free := recipes.NewCounter(s, "/c"), recipes.NewCounter(c.Member(at), "/c")
			must(t, free.Set(ctx, 3))
			must(t, c.Expire(ctx, s))
			_, _, err = bound.Add(ctx, 1)
			wants(t, err, zk.ErrSessionExpired)
			if zk.MaybeApplied(err) {
				t.Errorf("%v", err)
			}
			if before, _, err := free.Add(ctx, 1); before != 3 || err != nil { // the value stays
				t.Errorf("%d, %v", before, err)
			}
		})
	})
	t.Run("the leader dies after it has committed", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			n := 0
			for range 4 { // PEER-05
				l := leader(t, ctx, c)
				at, third := (l+1)%3, (l+2)%3
				must(t, c.Quiesce(ctx))
				counter := recipes.NewCounter(c.Member(at), "/c")
				if _, err := c.Member(at).Session(ctx); err != nil {
					t.Fatal(err)
				}
				must(t, c.Quiesce(ctx))
				z := c.Member(third).Applied()
				c.DropForwards(at, 3)
				done := make(chan error, 1)
				go func() {
					before, after, err := counter.Add(ctx, 1)
					if err == nil && (before != int64(n) || after != int64(n+1)) {
						err = fmt.Errorf("from %d to %d, want %d", before, after, n)
					}
					done <- err
				}()
				eventually(t, "not committed", func() bool { return c.Member(third).Applied() > z })
				must(t, c.Crash(l))
				c.DropForwards(at, 0)
				must(t, soon(t, "no answer", done))
				n++
				must(t, c.Restart(ctx, l))
				must(t, c.Member(l).Ready(ctx))
			}
		})
	})
	t.Run("an operator deletes the znode", func(t *testing.T) {
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			s := session(t, ctx, c.Member(0))
			n := recipes.NewCounter(s, "/c")
			n.Initial = 100
			some, stop := context.WithCancel(ctx)
			values := make(chan int64, 10)
			var all sync.WaitGroup
			all.Go(func() {
				for v, err := range n.Watch(some) {
					if err == nil {
						values <- v
					}
				}
			})
			is := func(want int64) {
				t.Helper()
				if v := soon(t, "nothing", values); v != want {
					t.Errorf("%d, want %d", v, want)
				}
			}
			is(100)
			must(t, n.Set(ctx, 1))
			is(1)
			must(t, s.Delete(ctx, "/c", zk.AnyVersion))
			is(100)
			if v := count(t, ctx, n); v != 100 {
				t.Errorf("%d", v)
			}
			if before, after, err := n.Add(ctx, 1); before != 100 || after != 101 || err != nil {
				t.Errorf("%d, %d, %v", before, after, err)
			}
			is(101)
			stop()
			all.Wait()
			must(t, s.Delete(ctx, "/c", zk.AnyVersion))
			residue(t, ctx, c, "/c")
		})
	})
	t.Run("a partition", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			s, err := c.Member(at).NewSession(ctx, zk.SessionConfig{Timeout: 2 * time.Minute})
			must(t, err)
			n, other := recipes.NewCounter(s, "/c"), recipes.NewCounter(c.Member((at+1)%3), "/c")
			must(t, n.Set(ctx, 1))
			must(t, c.Quiesce(ctx))
			c.Isolate(at)
			done := make(chan error, 1)
			go func() {
				ok, err := n.CompareAndSwap(ctx, 1, 50)
				if ok || err != nil { // it was 1 here, but not any more
					err = fmt.Errorf("swapped: %v, %v", ok, err)
				}
				done <- err
			}()
			if _, _, err := other.Add(ctx, 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			if v := count(t, ctx, n); v != 1 {
				t.Errorf("%d", v)
			}
			c.Heal()
			must(t, soon(t, "no answer", done))
			if v := count(t, ctx, n); v != 2 {
				t.Errorf("%d", v)
			}
		})
	})
}
