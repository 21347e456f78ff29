// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// plant is a party that works on some items, and is watched over.
type plant struct {
	*scene
	t     *testing.T
	items []string

	mu     sync.Mutex
	owner  map[string]string // of each item, by the function that runs
	last   map[string]zk.Token
	begun  map[string]int // how often
	linger time.Duration  // how long a function goes on after its context has ended
}

func newPlant(t *testing.T, sc *scene, items int) *plant {
	f := &plant{scene: sc, t: t, owner: map[string]string{}, last: map[string]zk.Token{}, begun: map[string]int{}}
	for i := range items {
		f.items = append(f.items, fmt.Sprintf("item-%02d", i))
	}
	return f
}

// worker is a member of the party.
type worker struct {
	f    *plant
	p    *recipes.Partitioner
	quit context.CancelFunc
	done chan error
}

func (f *plant) hire(ctx context.Context, src zk.SessionSource, id string) *worker {
	ctx, quit := context.WithCancel(ctx)
	w := &worker{f: f, p: recipes.NewPartitioner(src, "/app/shards", id, f.items), quit: quit, done: make(chan error, 1)}
	go func() { w.done <- w.p.Run(ctx, w.own) }()
	return w
}

// own notes who works on what. As long as the right is valid nobody else does, and tokens increase (PART-S1).
func (w *worker) own(ctx context.Context, item string, h *recipes.Held) error {
	f := w.f
	f.mu.Lock()
	if other := f.owner[item]; other != "" {
		f.t.Errorf("%s is begun by %s beside %s", item, w.p.ID, other)
	}
	if h.Token() <= f.last[item] {
		f.t.Errorf("%s: token %v after %v", item, h.Token(), f.last[item])
	}
	f.owner[item], f.last[item] = w.p.ID, h.Token()
	f.begun[item]++
	linger := f.linger
	f.mu.Unlock()
	context.AfterFunc(h.Session().Context(), func() { f.release(item, w.p.ID) }) // its lease is over: others may begin
	<-ctx.Done()
	time.Sleep(linger)
	f.release(item, w.p.ID)
	if item < "item-04" { // both say that the context has ended
		return context.Cause(ctx)
	}
	return ctx.Err()
}

func (f *plant) release(item, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.owner[item] == id {
		f.owner[item] = ""
	}
}

// owners returns who owns what, once each item has an owner among the workers.
func (f *plant) shared(workers ...*worker) map[string]string {
	f.t.Helper()
	var all map[string]string
	eventually(f.t, "some item has no owner", func() bool {
		all = map[string]string{}
		for _, w := range workers {
			for _, item := range w.p.Owned() {
				all[item] = w.p.ID
			}
		}
		return len(all) == len(f.items)
	})
	return all
}

// retire ends a worker.
func (w *worker) retire() {
	w.f.t.Helper()
	w.quit()
	wants(w.f.t, soon(w.f.t, "Run does not return", w.done), context.Canceled)
	if left := w.p.Owned(); len(left) > 0 {
		w.f.t.Errorf("%s has returned and owns %q", w.p.ID, left)
	}
}

// count is how often each item was begun.
func (f *plant) count() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.begun)
}

// want is what the items' owners are to be.
func (f *plant) want(ids ...string) map[string]string { return recipes.Rendezvous(ids, f.items) }

func moved(a, b map[string]string) (n int) {
	for item := range a {
		if a[item] != b[item] {
			n++
		}
	}
	return n
}

func onPlant(t *testing.T, items int, fn func(t *testing.T, ctx context.Context, f *plant)) {
	t.Helper()
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		fn(t, ctx, newPlant(t, sc, items))
		sc.c.Heal()
		residue(t, ctx, sc.c, "/app")
	})
}

// Members come and go; each item has one owner, and only what has to move does.
func TestPartitioner(t *testing.T) {
	onPlant(t, 24, func(t *testing.T, ctx context.Context, f *plant) {
		began := time.Now()
		a := f.hire(ctx, f.s[1], "a")
		one := f.shared(a)
		if took := time.Since(began); took > 1500*time.Millisecond { // PART-L1: Quiet, and one lock
			t.Errorf("it took %v", took)
		}
		b := f.hire(ctx, f.s[2], "b")
		eventually(t, "b gets nothing", func() bool { return maps.Equal(f.shared(a, b), f.want("a", "b")) })
		two := f.shared(a, b)
		if n := moved(one, two); n == 0 || n > len(f.items) {
			t.Errorf("%d moved", n)
		}
		c := f.hire(ctx, f.c.Member(f.at[0]), "c")
		eventually(t, "c gets nothing", func() bool { return maps.Equal(f.shared(a, b, c), f.want("a", "b", "c")) })
		three := f.shared(a, b, c)
		begun := f.count()
		for _, item := range f.items { // who stays is not disturbed
			if times := map[bool]int{true: 1, false: 2}[one[item] == two[item]] + moved(map[string]string{"": two[item]}, map[string]string{"": three[item]}); begun[item] != times {
				t.Errorf("%s was begun %d times, want %d: %s, %s, %s", item, begun[item], times, one[item], two[item], three[item])
			}
		}
		began = time.Now()
		b.retire()
		eventually(t, "b's go nowhere", func() bool { return maps.Equal(f.shared(a, c), f.want("a", "c")) })
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		a.retire()
		c.retire()
	})
}

// Of n items one that joins takes about its share, and takes it from the others; nothing else moves (PART-S3).
func TestRendezvous(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range size(2000, 200) {
		var members, items []string
		for i := range 1 + random.IntN(12) {
			members = append(members, fmt.Sprintf("host-%d:%d", random.IntN(1000), 8000+i))
		}
		for i := range 200 {
			items = append(items, fmt.Sprint("queue-", i))
		}
		before := recipes.Rendezvous(members, items)
		with := append(slices.Clone(members), "joiner")
		after := recipes.Rendezvous(with, items)
		share := float64(len(items)) / float64(len(with))
		n := moved(before, after)
		if bound := int(math.Ceil(share) + 5*math.Sqrt(share)); n > bound { // slack: five deviations
			t.Errorf("%d of %d items moved to the last of %d, want at most %d", n, len(items), len(with), bound)
		}
		for _, item := range items {
			if before[item] != after[item] && after[item] != "joiner" {
				t.Fatalf("%s moved from %s to %s", item, before[item], after[item])
			}
		}
	}
	// All members must agree for ever: it is a format.
	got := recipes.Rendezvous([]string{"a", "b", "c"}, []string{"0", "1", "2", "3", "4", "5", "6", "7"})
	want := "map[0:a 1:c 2:a 3:b 4:c 5:b 6:c 7:a]"
	if fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	if len(recipes.Rendezvous(nil, []string{"a"})) != 0 || len(recipes.Deal(nil, []string{"a"})) != 0 {
		t.Error("nobody owns something")
	}
	if got := fmt.Sprint(recipes.Deal([]string{"a", "b"}, []string{"0", "1", "2", "3", "4"})); got != "map[0:a 1:b 2:a 3:b 4:a]" {
		t.Error(got)
	}
}

// A storm of members costs one assignment for each Quiet (PART-L2), and an item is handed over when its function has
// returned, not before (PART-S2).
func TestPartitionerStorm(t *testing.T) {
	onPlant(t, 8, func(t *testing.T, ctx context.Context, f *plant) {
		f.linger = 20 * time.Second
		a := f.hire(ctx, f.s[1], "a")
		f.shared(a)
		g := &recipes.Group{Session: f.s[2], Path: "/app/shards/party", Layout: recipes.Shallow}
		var assignments atomic.Int32
		b := recipes.NewPartitioner(f.s[2], "/app/shards", "b", f.items)
		b.Quiet = 2 * time.Second
		b.Assign = func(members, items []string) map[string]string {
			assignments.Add(1)
			if !slices.IsSorted(members) || !slices.IsSorted(items) {
				t.Errorf("%q, %q", members, items)
			}
			return recipes.Rendezvous(members, items)
		}
		some, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		w := &worker{f: f, p: b, quit: cancel, done: done}
		go func() { done <- b.Run(some, w.own) }()
		for i := range 40 {
			p := join(t, ctx, g, fmt.Sprint("z", i), "")
			time.Sleep(200 * time.Millisecond)
			must(t, p.Stop(ctx))
			time.Sleep(200 * time.Millisecond)
		}
		synctest.Wait()
		if n := assignments.Load(); n > 1 {
			t.Errorf("%d assignments", n)
		}
		began := time.Now()
		eventually(t, "b gets nothing", func() bool { return maps.Equal(f.shared(a, w), f.want("a", "b")) })
		if took := time.Since(began); took < 15*time.Second || assignments.Load() != 1 {
			t.Errorf("handed over after %v, by %d assignments", took, assignments.Load())
		}
		a.retire()
		w.retire()
	})
}

// What becomes of the items of a member that something happens to.
func TestPartitionerReactions(t *testing.T) {
	for event, fn := range map[string]func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker){
		"session expired": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			s, err := m.Session(ctx)
			must(t, err)
			must(t, f.c.Expire(ctx, s))
		},
		"session suspended": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			s, err := m.Session(ctx)
			must(t, err)
			f.c.Network().Cut(zktest.Name(f.at[0]), zktest.Name(leader(t, ctx, f.c)))
			eventually(t, "not suspended", func() bool { return s.State() == zk.StateSuspended })
			synctest.Wait()
			if left := a.p.Owned(); len(left) > 0 { // exclusion is pessimistic
				t.Errorf("suspended and works on %q", left)
			}
			f.c.Heal()
		},
		"cut off": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			f.c.Isolate(f.at[0])
			f.shared(b) // it has all, because a has none
			if left := a.p.Owned(); len(left) > 0 {
				t.Errorf("cut off and works on %q", left)
			}
			f.c.Heal()
		},
		"no quorum": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			f.c.Partition([]int{0}, []int{1}, []int{2})
			eventually(t, "a goes on", func() bool { return len(a.p.Owned()) == 0 })
			f.c.Heal()
		},
		"leader changes": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			before := f.count()
			for range 3 {
				must(t, m.TransferLeadership(ctx, ""))
				time.Sleep(3 * time.Second)
			}
			if now := f.count(); !maps.Equal(now, before) { // nothing is lost
				t.Errorf("begun %v, before %v", now, before)
			}
		},
		"operator deletes an item's lock": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			for _, item := range f.items {
				before := f.count()[item]
				list, err := (&recipes.Lock{Session: f.s[1], Path: "/app/shards/locks/" + item}).Contenders(ctx)
				must(t, err)
				must(t, f.s[1].Delete(ctx, list[0].Path, zk.AnyVersion))
				eventually(t, "not begun again", func() bool { return f.count()[item] > before })
			}
		},
		"operator deletes the seats": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			before := f.count()
			for range 3 {
				names, _, err := f.s[1].Children(ctx, "/app/shards/party")
				must(t, err)
				for _, name := range names {
					must(t, f.s[1].Delete(ctx, "/app/shards/party/"+name, zk.AnyVersion))
				}
				time.Sleep(5 * time.Second)
			}
			if now := f.count(); !maps.Equal(now, before) { // a blink moves nothing
				t.Errorf("begun %v, before %v", now, before)
			}
		},
		"operator deletes the tree": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			must(t, f.s[1].DeleteTree(ctx, "/app"))
		},
		"foreign children": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			for _, path := range []string{"/app/shards/party/x", "/app/shards/locks/x", "/app/shards/locks/item-00/x"} {
				_, err := f.s[2].Create(ctx, path, nil, zk.Ephemeral)
				must(t, err)
			}
			time.Sleep(5 * time.Second)
			if own := recipes.NewPartitioner(f.s[2], "/app/shards", "x", nil); len(own.Owned()) != 0 {
				t.Error("it owns something")
			}
			must(t, f.s[2].Close())
		},
		"snapshot installed": func(t *testing.T, ctx context.Context, f *plant, m *zk.Member, a, b *worker) {
			g := &recipes.Group{Session: f.s[2], Path: "/app/shards/party", Layout: recipes.Shallow}
			var p *recipes.Presence
			leaveBehind(t, ctx, f.c, f.at[0], f.s[1], func() { p = join(t, ctx, g, "z", "") })
			f.c.Heal()
			must(t, f.s[0].Sync(ctx))
			must(t, p.Stop(ctx))
		},
	} {
		t.Run(event, func(t *testing.T) {
			onPlant(t, 8, func(t *testing.T, ctx context.Context, f *plant) {
				m := f.c.Member(f.at[0])
				a := f.hire(ctx, m, "a")
				b := f.hire(ctx, f.s[1], "b")
				settled := func() {
					t.Helper()
					eventually(t, "not settled", func() bool { return maps.Equal(f.shared(a, b), f.want("a", "b")) })
				}
				settled()
				fn(t, ctx, f, m, a, b)
				settled()
				a.retire()
				b.retire()
			})
		})
	}
	t.Run("process dies", func(t *testing.T) {
		onPlant(t, 8, func(t *testing.T, ctx context.Context, f *plant) {
			a, b := f.hire(ctx, f.c.Member(f.at[0]), "a"), f.hire(ctx, f.s[1], "b")
			eventually(t, "not settled", func() bool { return maps.Equal(f.shared(a, b), f.want("a", "b")) })
			must(t, f.c.Crash(f.at[0]))
			wants(t, soon(t, "Run does not return", a.done), zk.ErrClosed)
			f.shared(b)
			b.retire()
		})
	})
	t.Run("session of its own expires", func(t *testing.T) {
		onPlant(t, 8, func(t *testing.T, ctx context.Context, f *plant) {
			a, b := f.hire(ctx, f.s[0], "a"), f.hire(ctx, f.s[1], "b")
			eventually(t, "not settled", func() bool { return maps.Equal(f.shared(a, b), f.want("a", "b")) })
			must(t, f.c.Expire(ctx, f.s[0]))
			wants(t, soon(t, "Run does not return", a.done), zk.ErrSessionExpired)
			f.shared(b)
			b.retire()
		})
	})
	t.Run("backup restored", func(t *testing.T) {
		onPlant(t, 8, func(t *testing.T, ctx context.Context, f *plant) {
			m0, m1 := f.c.Member(f.at[0]), f.c.Member(f.at[1])
			a, b := f.hire(ctx, m0, "a"), f.hire(ctx, m1, "b")
			settled := func() {
				t.Helper()
				eventually(t, "not settled", func() bool { return maps.Equal(f.shared(a, b), f.want("a", "b")) })
			}
			settled()
			var backup bytes.Buffer
			_, err := m1.Backup(ctx, &backup)
			must(t, err)
			must(t, m1.Restore(ctx, &backup))
			settled() // tokens have increased
			a.retire()
			b.retire()
		})
	})
	t.Run("ctx ends at each step", func(t *testing.T) {
		onPlant(t, 4, func(t *testing.T, ctx context.Context, f *plant) {
			f.c.Network().Latency(2*time.Millisecond, 2*time.Millisecond)
			for d := time.Duration(0); d < 60*time.Millisecond; d += 3 * time.Millisecond {
				some, cancel := context.WithTimeout(ctx, d)
				p := recipes.NewPartitioner(f.s[0], "/app/shards", "a", f.items)
				p.Quiet = time.Millisecond
				wants(t, p.Run(some, (&worker{f: f, p: p}).own), context.DeadlineExceeded)
				cancel()
				eventually(t, "something is left", func() bool { return f.c.Member(f.at[0]).Stats().Ephemerals == 0 })
			}
		})
	})
}

// What own returns with, or panics with, is what Run does; everything is given back before.
func TestPartitionerOwnEnds(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		items := []string{"a", "b", "c"}
		failure := errors.New("failure")
		running := make(chan int, 10)
		run := func(ctx context.Context, fn func(ctx context.Context) error) error {
			p := recipes.NewPartitioner(s, "/w", "me", items)
			return p.Run(ctx, func(ctx context.Context, item string, h *recipes.Held) error {
				running <- 1
				defer func() { <-running }()
				if item == "b" {
					time.Sleep(time.Second)
					return fn(ctx)
				}
				<-ctx.Done()
				time.Sleep(5 * time.Second)
				return nil
			})
		}
		done := func() {
			t.Helper()
			if len(running) > 0 {
				t.Error("a function goes on")
			}
			synctest.Wait()
			if n := c.Member(0).Stats().Ephemerals; n != 0 {
				t.Errorf("%d ephemerals are left", n)
			}
		}
		wants(t, run(ctx, func(context.Context) error { return failure }), failure)
		done()
		func() {
			defer func() {
				if v := recover(); v != "oh" { // PEER-64: not lost in another goroutine
					t.Errorf("panicked with %v", v)
				}
			}()
			run(ctx, func(context.Context) error { panic("oh") })
			t.Error("it has not panicked")
		}()
		done()
		if err := run(ctx, func(context.Context) error { runtime.Goexit(); return nil }); err == nil || ctx.Err() != nil {
			t.Errorf("it returned %v", err)
		}
		done()
		some, cancel := context.WithTimeout(ctx, time.Minute)
		calls := 0
		wants(t, run(some, func(context.Context) error { calls++; return nil }), context.DeadlineExceeded) // the item stays
		cancel()
		if calls != 1 {
			t.Errorf("called %d times", calls)
		}
		done()
		some, cancel = context.WithTimeout(ctx, time.Minute)
		wants(t, run(some, func(ctx context.Context) error { <-ctx.Done(); return failure }), context.DeadlineExceeded, failure)
		cancel()
		done()

		p := recipes.NewPartitioner(s, "/w", "me", []string{"a", "a"})
		some, cancel = context.WithTimeout(ctx, time.Minute)
		err := p.Run(some, func(inner context.Context, item string, h *recipes.Held) error {
			if got := p.Owned(); !slices.Equal(got, []string{"a"}) { // PEER-18
				t.Errorf("owned %q", got)
			}
			wants(t, p.Run(ctx, func(context.Context, string, *recipes.Held) error { return nil }), zk.ErrBadArguments) // it is running
			return nil
		})
		cancel()
		wants(t, err, context.DeadlineExceeded)
		done()
		residue(t, ctx, c, "/")
	})
}

// What it costs to take part is what its comment says.
func TestPartitionerCost(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		p := recipes.NewPartitioner(s, "/w", "me", []string{"a", "b", "c"})
		some, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		z, before := m.Applied(), m.Stats()
		go func() {
			done <- p.Run(some, func(ctx context.Context, _ string, _ *recipes.Held) error { <-ctx.Done(); return nil })
		}()
		time.Sleep(time.Minute)
		st := m.Stats()
		if n := m.Applied() - z; n != 4 || st.LinearReads != before.LinearReads {
			t.Errorf("%d writes, %d rounds", n, st.LinearReads-before.LinearReads)
		}
		if st.Watches != 2+3 {
			t.Errorf("%d watches", st.Watches)
		}
		z = m.Applied()
		time.Sleep(10 * time.Minute)
		if n := m.Applied() - z; n != 0 {
			t.Errorf("%d writes by doing nothing", n)
		}
		cancel()
		wants(t, <-done, context.Canceled)
		synctest.Wait()
		if n := m.Applied() - z; n != 4 {
			t.Errorf("%d writes to go", n)
		}
		residue(t, ctx, c, "/")
	})
}
