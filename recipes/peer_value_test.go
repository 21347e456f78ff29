// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// valueWrites are the ways to write a value; each is of one write. Those on what exists find "0" there.
var valueWrites = []struct {
	name string
	on   bool // what exists
	call func(ctx context.Context, v *recipes.Value[string]) error
}{
	{"Set, new", false, func(ctx context.Context, v *recipes.Value[string]) error { return v.Set(ctx, "01") }},
	{"Set", true, func(ctx context.Context, v *recipes.Value[string]) error { return v.Set(ctx, "01") }},
	{"SetIf, new", false, func(ctx context.Context, v *recipes.Value[string]) error { return v.SetIf(ctx, "01", zk.Stat{}) }},
	{"SetIf", true, func(ctx context.Context, v *recipes.Value[string]) error {
		_, st, err := v.Get(ctx)
		if err != nil {
			return err
		}
		return v.SetIf(ctx, "01", st)
	}},
	{"Update, new", false, appendOne},
	{"Update", true, appendOne},
}

func appendOne(ctx context.Context, v *recipes.Value[string]) error {
	x, err := v.Update(ctx, func(x string) (string, error) { return x + "1", nil })
	if err == nil && x != "01" {
		err = fmt.Errorf("it has become %q", x)
	}
	return err
}

// dataOf is a znode as a member has it, or an empty one.
func dataOf(t *testing.T, ctx context.Context, m *zk.Member, path string) (z zk.Znode) {
	t.Helper()
	must(t, m.View(ctx, func(v *zk.View) (err error) {
		if z, err = v.Get(path); errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		return err
	}))
	return z
}

// A value is written, and the answer is lost on its way. It is written once; the call says so, or that it does not know:
// never that it has failed.
func TestPeer05AnswerOfValueLost(t *testing.T) {
	type lost struct {
		c               *zktest.Cluster
		s               *zk.Session // of the call
		at, lead, third int         // its member, and the others
		cancel          func()      // the call's context
	}
	for _, fault := range []struct {
		name   string
		drop   int   // answers that are lost; 0: everything that the leader sends to the call's member
		target error // of the call, which does not know; nil: it knows
		do     func(t *testing.T, ctx context.Context, x lost)
	}{
		{"one answer", 1, nil, func(*testing.T, context.Context, lost) {}},
		{"three answers", 3, nil, func(*testing.T, context.Context, lost) {}},
		{"the leader dies", 0, nil, func(t *testing.T, ctx context.Context, x lost) { must(t, x.c.Crash(x.lead)) }},
		{"the leader hands over", 0, nil, func(t *testing.T, ctx context.Context, x lost) {
			must(t, x.c.Member(x.lead).TransferLeadership(ctx, zktest.Name(x.third)))
		}},
		{"the network heals late", 0, nil, func(t *testing.T, ctx context.Context, x lost) { time.Sleep(20 * time.Second) }},
		{"the session expires", 0, nil, func(t *testing.T, ctx context.Context, x lost) {
			must(t, x.c.Member(x.third).KillSession(ctx, x.s.ID()))
			time.Sleep(2 * x.s.Timeout())
		}},
		{"the session expires and a snapshot tells", 0, nil, func(t *testing.T, ctx context.Context, x lost) {
			must(t, x.c.Member(x.third).KillSession(ctx, x.s.ID()))
			time.Sleep(2 * x.s.Timeout())
			outgrow(t, ctx, x.c, x.at, session(t, ctx, x.c.Member(x.lead)))
			x.c.Heal()
		}},
		{"a snapshot tells", 0, nil, func(t *testing.T, ctx context.Context, x lost) {
			outgrow(t, ctx, x.c, x.at, session(t, ctx, x.c.Member(x.lead)))
		}},
		{"ctx ends", 0, context.Canceled, func(_ *testing.T, _ context.Context, x lost) { x.cancel() }},
		{"the session is closed", 0, nil, func(t *testing.T, _ context.Context, x lost) {
			wants(t, x.s.Close(), zk.ErrUnavailable)
		}},
		{"the member dies", 0, zk.ErrClosed, func(t *testing.T, _ context.Context, x lost) { must(t, x.c.Crash(x.at)) }},
	} {
		for _, w := range valueWrites {
			t.Run(fault.name+"/"+w.name, func(t *testing.T) {
				bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
					x := lost{c: c, lead: leader(t, ctx, c), at: follower(t, ctx, c)}
					x.third = 3 - x.lead - x.at
					var err error
					x.s, err = c.Member(x.at).NewSession(ctx, zk.SessionConfig{Timeout: 30 * time.Second})
					must(t, err)
					v := recipes.NewValue[string](x.s, "/v")
					v.Default = "0"
					if w.on {
						must(t, v.Set(ctx, "0"))
					}
					_, err = x.s.Txn(ctx) // by the stream that is to be cut
					must(t, err)
					must(t, c.Quiesce(ctx))
					synctest.Wait() // until that has its answer
					if c.DropForwards(x.at, fault.drop); fault.drop == 0 {
						c.Network().Cut(zktest.Name(x.lead), zktest.Name(x.at))
						first(t, ctx, session(t, ctx, c.Member(x.lead)))
					}
					some, cancel := context.WithCancel(ctx)
					defer cancel()
					x.cancel = cancel
					done := make(chan error, 1)
					go func() { done <- w.call(some, v) }()
					eventually(t, "not committed", func() bool { return dataOf(t, ctx, c.Member(x.third), v.Path).Data == "01" })
					fault.do(t, ctx, x)
					if fault.target == nil {
						c.Heal()
						must(t, soon(t, "no answer", done))
					} else {
						err := soon(t, "no answer", done)
						if wants(t, err, fault.target); !zk.MaybeApplied(err) { // PEER-05
							t.Errorf("it failed with %v", err)
						}
						c.Heal()
					}
					for i := range 3 {
						if !c.Up(i) {
							must(t, c.Restart(ctx, i))
							must(t, c.Member(i).Ready(ctx))
						}
					}
					must(t, c.Quiesce(ctx))
					z := dataOf(t, ctx, c.Member(x.third), v.Path)
					if z.Data != "01" || w.on && z.Stat.Version != 1 || !w.on && z.Stat.Version != 0 { // once
						t.Errorf("%q in version %d", z.Data, z.Stat.Version)
					}
				})
			})
		}
	}
}

// One value is used by many goroutines in every way at once; the race detector watches.
func TestPeer32ManyGoroutines(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(0, time.Millisecond)
		m := c.Member(0)
		n, v, k := recipes.NewCounter(m, "/n"), recipes.NewValue[[]int](m, "/v"), recipes.NewCache(m, "/")
		e, l := recipes.NewElection(m, "/e"), recipes.NewLatch(m, "/l", 1000)
		must(t, k.Start(ctx))
		some, stop := context.WithCancel(ctx)
		var watchers, all sync.WaitGroup
		for range 8 {
			watchers.Go(func() {
				for range n.Watch(some) {
				}
			})
			watchers.Go(func() {
				for range v.Watch(some) {
				}
			})
			watchers.Go(func() {
				for range k.Changes(some) {
				}
			})
			watchers.Go(func() {
				for range e.Observe(some) {
				}
			})
		}
		for i := range 64 { // PEER-32
			all.Go(func() {
				for range 5 {
					if _, _, err := n.Add(ctx, 1); err != nil {
						t.Error(err)
					}
					if _, err := v.Update(ctx, func(x []int) ([]int, error) { return append(x, i), nil }); err != nil {
						t.Error(err)
					}
					if _, err := l.CountDown(ctx); err != nil {
						t.Error(err)
					}
					k.Get("/n")
					for range k.All() {
					}
				}
			})
		}
		all.Wait()
		list, _, err := v.Get(ctx)
		must(t, err)
		if got := count(t, ctx, n); got != 320 || len(list) != 320 {
			t.Errorf("%d, %d", got, len(list))
		}
		stop()
		watchers.Wait()
		k.Close()
	})
}

// Answers are lost and members cut off under load: what was added is the sum, nothing is added twice.
func TestPeer54AddedTwice(t *testing.T) {
	seeds := size(20, 3)
	for seed := range seeds {
		bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 4 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			c.Network().Latency(0, 2*time.Millisecond)
			var mu sync.Mutex
			type done struct {
				interval
				at   int // the member
				when time.Time
			}
			var sure []done
			unknown := 0
			some, stop := context.WithTimeout(ctx, time.Minute)
			defer stop()
			var all sync.WaitGroup
			for i := range 6 {
				r := rand.New(rand.NewPCG(uint64(seed), uint64(100+i)))
				n := recipes.NewCounter(c.Member(i%3), "/n")
				all.Go(func() {
					for some.Err() == nil {
						ctx, cancel := context.WithTimeout(ctx, time.Duration(1+r.IntN(2000))*time.Millisecond)
						before, after, err := n.Add(ctx, 1)
						cancel()
						mu.Lock()
						switch {
						case err == nil:
							sure = append(sure, done{interval{before, after}, i % 3, time.Now()})
						case zk.MaybeApplied(err):
							unknown++
						}
						mu.Unlock()
						time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
					}
				})
			}
			r := rand.New(rand.NewPCG(uint64(seed), 54))
			for some.Err() == nil {
				i := r.IntN(3)
				switch r.IntN(4) {
				case 0, 1:
					c.DropForwards(i, 1+r.IntN(4))
				case 2:
					c.Isolate(i)
					time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
				case 3:
					c.Member(leader(t, ctx, c)).TransferLeadership(some, "")
				}
				c.Heal()
				time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
			}
			all.Wait()
			c.Heal()
			must(t, c.Quiesce(ctx))
			for i := range 3 {
				if !c.Up(i) {
					t.Errorf("member %d has stopped: %v", i, c.Member(i).Err())
				}
			}
			total := count(t, ctx, recipes.NewCounter(c.Member(0), "/n"))
			seen := map[int64]done{}
			for _, d := range sure {
				if o, twice := seen[d.before]; twice || d.after != d.before+1 || d.after > total { // CNT-S1, CNT-S2
					t.Errorf("an Add from %d to %d on member %d at %v, the total is %d; another one on member %d at %v", d.before, d.after, d.at, d.when, total, o.at, o.when)
				}
				seen[d.before] = d
			}
			if total < int64(len(sure)) || total > int64(len(sure)+unknown) { // PEER-54
				t.Errorf("the total is %d, %d have counted and %d may have", total, len(sure), unknown)
			}
			t.Logf("%d have counted, %d may have, the total is %d", len(sure), unknown, total)
		})
	}
}

// A value that is changed while its watcher is suspended is not kept stale; version 0 is a change like any other.
func TestPeer55StaleValue(t *testing.T) {
	bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		own, err := c.Member(at).Session(ctx)
		must(t, err)
		some, stop := context.WithCancel(ctx)
		got := stream(some, recipes.NewValue[int](c.Member(at), "/v"))
		soon(t, "nothing", got)
		s, err := c.Member((at+1)%3).NewSession(ctx, zk.SessionConfig{Timeout: 2 * time.Minute})
		must(t, err)
		v := recipes.NewValue[int](s, "/v")
		must(t, v.Set(ctx, 1))
		soon(t, "nothing", got)
		c.Isolate(at)
		eventually(t, "not suspended", func() bool { return own.State() == zk.StateSuspended })
		must(t, s.Delete(ctx, "/v", zk.AnyVersion))
		must(t, v.Set(ctx, 2)) // in version 0, as before
		c.Heal()
		for y := soon(t, "nothing", got); y.v != 2; y = soon(t, "nothing", got) { // PEER-55
			if y.err != nil || y.v == 1 {
				t.Fatalf("%+v", y)
			}
		}
		stop()
		for range got {
		}
	})
}

// A directory of any size makes a cache, and a change of it costs what a change costs.
func TestPeer57ManyChildren(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		n := size(100_000, 10_000)
		s := session(t, ctx, c.Member(0))
		_, err := s.Create(ctx, "/big", nil, zk.Persistent)
		must(t, err)
		var ops []zk.Op
		for i := range n {
			if ops = append(ops, zk.OpCreate(fmt.Sprintf("/big/%06d", i), nil, zk.Persistent)); len(ops) == 1000 {
				_, err := s.Txn(ctx, ops...)
				must(t, err)
				ops = ops[:0]
			}
		}
		k := cached(t, ctx, s, "/big", 2)
		children := func() (n int) {
			for range k.Children("/big") {
				n++
			}
			return n
		}
		if got := children(); got != n { // CACHE-L3, PEER-57
			t.Errorf("%d children", got)
		}
		reads := c.Member(0).Stats().Reads
		for i := range 100 {
			must(t, s.Delete(ctx, fmt.Sprintf("/big/%06d", i), zk.AnyVersion))
			synctest.Wait()
		}
		if r := c.Member(0).Stats().Reads - reads; r > 300 {
			t.Errorf("%d reads for 100 changes", r)
		}
		if got := children(); got != n-100 {
			t.Errorf("%d children", got)
		}
		k.Close()
	})
}

// Caches are opened and closed, of roots that exist and that do not, and leave nothing; a cache of nothing does nothing.
func TestPeer58LeakedCaches(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		_, err := s.Create(ctx, "/there", nil, zk.Persistent)
		must(t, err)
		synctest.Wait()
		goroutines := runtime.NumGoroutine()
		for i := range size(10_000, 1000) {
			k := recipes.NewCache(s, []string{"/there", "/absent"}[i%2])
			some, cancel := context.WithCancel(ctx)
			if i%3 == 0 {
				cancel() // at once
			}
			k.Start(some)
			var consumer sync.WaitGroup
			consumer.Go(func() {
				for range k.Changes(ctx) {
				}
			})
			k.Close()
			consumer.Wait()
			cancel()
		}
		synctest.Wait()
		if n := c.Member(0).Stats().Watches; n != 0 { // CACHE-L4, PEER-58
			t.Errorf("%d watches", n)
		}
		// The runtime's own, which come and go with its cleanups, are counted as well.
		eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= goroutines })
		k := cached(t, ctx, s, "/absent", 0)
		reads := c.Member(0).Stats().Reads
		time.Sleep(10 * time.Minute)
		if n := c.Member(0).Stats().Reads - reads; n > 0 { // CACHE-L2
			t.Errorf("%d reads while nothing happened", n)
		}
		_, err = s.Create(ctx, "/absent", nil, zk.Persistent)
		must(t, err)
		settled(t, ctx, c.Member(0), k)
		k.Close()
	})
}

// Watching what is deleted, again and again, piles up nothing.
func TestPeer59WatchOnAbsent(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		n, v, e := recipes.NewCounter(s, "/n"), recipes.NewValue[int](s, "/v"), recipes.NewElection(s, "/e")
		k := cached(t, ctx, s, "/v", 1)
		for i := range 200 {
			some, stop := context.WithCancel(ctx)
			var all sync.WaitGroup
			all.Go(func() {
				for range n.Watch(some) {
				}
			})
			all.Go(func() {
				for range v.Watch(some) {
				}
			})
			all.Go(func() {
				for range e.Observe(some) {
				}
			})
			must(t, n.Set(ctx, 1))
			must(t, v.Set(ctx, i))
			l := lead(t, ctx, e, "x")
			must(t, s.Delete(ctx, "/n", zk.AnyVersion))
			must(t, s.Delete(ctx, "/v", zk.AnyVersion))
			must(t, l.Resign(ctx))
			must(t, s.DeleteTree(ctx, "/e"))
			synctest.Wait()
			if w := c.Member(0).Stats().Watches; w > 7 {
				t.Fatalf("%d watches", w)
			}
			stop()
			all.Wait()
			synctest.Wait()
			if w := c.Member(0).Stats().Watches; w != 2 { // VAL-L2, PEER-59: those of the cache
				t.Fatalf("%d watches in round %d", w, i)
			}
		}
		k.Close()
	})
}

// Each change is told once, whatever else happens beside it (PEER-60).
func TestPeer60ToldTwice(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		_, err := s.Create(ctx, "/d", nil, zk.Persistent)
		must(t, err)
		k, k1 := cached(t, ctx, s, "/d", 0), cached(t, ctx, s, "/d", 1)
		var log [2][]string
		var all sync.WaitGroup
		for i, k := range []*recipes.Cache{k, k1} {
			all.Go(func() {
				for change, err := range k.Changes(ctx) {
					if err != nil {
						wants(t, err, zk.ErrClosed)
						return
					}
					log[i] = append(log[i], change.Kind.String()+" "+change.Path)
				}
			})
		}
		synctest.Wait()
		for _, write := range []func() error{
			func() error { _, err := s.Set(ctx, "/d", []byte("1"), zk.AnyVersion); return err },
			func() error { _, err := s.Create(ctx, "/d/c", nil, zk.Persistent); return err },
			func() error { _, err := s.Set(ctx, "/d/c", nil, zk.AnyVersion); return err },
			func() error {
				_, err := s.Txn(ctx, zk.OpSet("/d", nil, zk.AnyVersion), zk.OpDelete("/d/c", zk.AnyVersion), zk.OpCreate("/d/c", nil, zk.Persistent))
				return err
			},
			func() error { return s.DeleteTree(ctx, "/d") },
		} {
			must(t, write())
			synctest.Wait()
		}
		k.Close()
		k1.Close()
		all.Wait()
		want := "added /d, updated /d, added /d/c, updated /d/c, removed /d/c, updated /d, added /d/c, removed /d/c, removed /d"
		if got := strings.Join(log[0], ", "); got != want { // PEER-60
			t.Errorf("%s", got)
		}
		if got := strings.Join(log[1], ", "); got != "added /d, updated /d, updated /d, removed /d" {
			t.Errorf("%s", got)
		}
	})
}

// Consumers that stop reading hold nobody up, and no more than one old version of what they watch.
func TestPeer65SlowConsumers(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		v := recipes.NewValue[[]byte](s, "/d/v")
		must(t, v.Set(ctx, nil))
		k := cached(t, ctx, s, "/d", 0)
		some, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		stuck, last := make(chan struct{}), make(chan recipes.Change, 10)
		for range 20 {
			all.Go(func() {
				for range v.Watch(some) {
					<-stuck
				}
			})
			all.Go(func() {
				for change, err := range k.Changes(some) {
					if errors.Is(err, zk.ErrClosed) || err != nil {
						return
					}
					<-stuck
					select {
					case last <- change:
					default:
					}
				}
			})
		}
		synctest.Wait()
		// What others cost: one who writes the same znode, and two who use another one.
		far := session(t, ctx, c.Member(0))
		same, other := recipes.NewValue[[]byte](far, "/d/v"), recipes.NewValue[int](far, "/other")
		heard := make(chan int)
		all.Go(func() {
			for x, err := range other.Watch(some) {
				if err != nil {
					return
				}
				heard <- x
			}
		})
		soon(t, "nothing heard", heard)
		turn := 0
		others := func() (took time.Duration, allocs uint64) {
			const rounds = 200
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			for range rounds {
				turn++
				must(t, same.Set(ctx, nil))
				must(t, other.Set(ctx, turn))
				if x := soon(t, "nothing heard", heard); x != turn {
					t.Fatalf("heard %d instead of %d", x, turn)
				}
			}
			took = time.Since(began)
			runtime.ReadMemStats(&after)
			return took, (after.Mallocs - before.Mallocs) / rounds
		}
		heap := func() uint64 {
			must(t, c.Member(0).Compact(ctx)) // what is in the log does not count
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		data := make([]byte, 10_000)
		for range 300 {
			must(t, v.Set(ctx, data))
		}
		took, allocs := others()
		before := heap()
		for range size(20_000, 3000) {
			must(t, v.Set(ctx, data))
		}
		if now := heap(); now > before+16<<20 { // PEER-65: 30 MB were written
			t.Errorf("%d MiB more", (now-before)>>20)
		}
		if now, n := others(); now > took || n > allocs*5/4+10 { // PEER-65: nobody waits for the slow ones, or pays for their backlog
			t.Errorf("others take %v and %d allocations, took %v and %d", now, n, took, allocs)
		}
		settled(t, ctx, c.Member(0), k)
		close(stuck)
		for change := range last {
			if change.Kind == recipes.Updated && change.Path == "/d/v" { // none is lost: they collapsed
				break
			}
		}
		stop()
		all.Wait()
		k.Close()
	})
}
