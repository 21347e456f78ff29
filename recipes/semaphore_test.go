// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// gauge follows the leases of a semaphore through every change, and has the most that there ever were.
type gauge struct {
	mu        sync.Mutex
	now, most int
}

// measure counts the leases at path at every index of the log (SEM-S1), as long as ctx lasts.
func measure(t *testing.T, ctx context.Context, s *zk.Session, path string, limit int) *gauge {
	t.Helper()
	g := &gauge{}
	w, err := s.Watch(ctx, path+"/leases", zk.WatchSubtree)
	must(t, err)
	go func() {
		for ev := range w.Events() {
			g.mu.Lock()
			switch leaf := strings.Contains(ev.Path, "-lease-"); {
			case ev.Type == zk.EventOverflow:
				t.Error("the gauge is too slow")
			case leaf && ev.Type == zk.EventCreated:
				g.now++
			case leaf && ev.Type == zk.EventDeleted:
				g.now--
			}
			if g.most = max(g.most, g.now); g.now > limit && limit > 0 { // SEM-S1
				t.Errorf("%d leases of %d at %v", g.now, limit, ev.Zxid)
			}
			g.mu.Unlock()
		}
	}()
	return g
}

func (g *gauge) says(t *testing.T, now, most int) {
	t.Helper()
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now != now || g.most != most {
		t.Errorf("%d leases and at most %d, want %d and %d", g.now, g.most, now, most)
	}
}

// So many are in, the others wait in their order, and whoever leaves lets the first one in (SEM-L1).
func TestSemaphore(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		watching, stop := context.WithCancel(ctx)
		defer stop()
		g := measure(t, watching, sc.s[2], "/app/lock/sem", 3)
		sem := func(i int) *recipes.Semaphore { return semaphore(sc.s[i], 3) }
		var in []*recipes.Held
		highest := zk.Token(0)
		for i := range 3 {
			h := granted(t, start(ctx, sem(i).Acquire))
			in, highest = append(in, h), h.Token()
		}
		var line []<-chan attempt
		for i := range 6 {
			line = append(line, sc.joins(t, ctx, i%3, 1, sem(i%3).Acquire))
		}
		for i, next := range line {
			for _, later := range line[i:] {
				waiting(t, later)
			}
			began := time.Now()
			must(t, in[2-i%3].Release(ctx))                             // not always the one that came first
			h := granted(t, next)                                       // SEM-L1: whoever left
			if took := time.Since(began); took > 200*time.Millisecond { // two writes
				t.Errorf("let in after %v", took)
			}
			if h.Token() <= highest { // HELD-S2
				t.Errorf("token %v after %v", h.Token(), highest)
			}
			in[2-i%3], highest = h, h.Token()
		}
		must(t, sc.c.Quiesce(ctx))
		list, err := sem(0).Holders(ctx)
		must(t, err)
		if len(list) != 3 || !list[0].Holding || !list[2].Holding || list[0].Token >= list[2].Token {
			t.Errorf("holders: %+v", list)
		}
		g.says(t, 3, 3)
		for _, h := range in {
			must(t, h.Release(ctx))
		}
		g.says(t, 0, 3)
		stop()
	})
}

// AcquireN takes all its units at one moment or none, in its turn.
func TestSemaphoreSeveralUnits(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		watching, stop := context.WithCancel(ctx)
		defer stop()
		g := measure(t, watching, sc.s[2], "/app/lock/sem", 4)
		a, b := granted(t, start(ctx, units(sc.s[0], 4, 2))), granted(t, start(ctx, units(sc.s[1], 4, 1)))
		all := sc.joins(t, ctx, 0, 1, units(sc.s[0], 4, 4))
		one := sc.joins(t, ctx, 1, 1, units(sc.s[1], 4, 1)) // there is room for it, but it is not its turn
		waiting(t, one)
		must(t, a.Release(ctx))
		waiting(t, all)
		g.says(t, 1, 3) // SEM-S2: no part of four
		must(t, b.Release(ctx))
		h := granted(t, all)
		g.says(t, 4, 4)
		if n := len(h.Guards()); n != 4 {
			t.Errorf("%d guards", n)
		}
		waiting(t, one)
		_, err := semaphore(sc.s[1], 4).TryAcquire(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		must(t, h.Release(ctx))
		must(t, granted(t, one).Release(ctx))
		stop()
	})
}

// A limit that is shared is what everybody goes by, at once; lowering it takes nothing away (SEM-S3).
func TestSemaphoreSharedLimit(t *testing.T) {
	onStage(t, zktest.Config{Base: zk.Config{ReapInterval: time.Second}}, func(t *testing.T, ctx context.Context, sc *scene) {
		sem := func(i, initial int) *recipes.Semaphore {
			return &recipes.Semaphore{Session: sc.s[i], Path: "/app/shared", Limit: initial, SharedLimit: true}
		}
		_, err := sem(0, 0).Acquire(ctx)
		wants(t, err, recipes.ErrMismatch) // there is none
		must(t, sem(0, 0).SetLimit(ctx, 2))
		must(t, sc.c.Quiesce(ctx))
		a := granted(t, start(ctx, sem(0, 9).Acquire)) // what is stored counts
		b := granted(t, start(ctx, sem(1, 0).Acquire))
		c := sc.joins(t, ctx, 1, 1, sem(1, 9).Acquire)
		d := sc.joins(t, ctx, 2, 1, sem(2, 9).Acquire)
		waiting(t, c)
		must(t, sem(2, 0).SetLimit(ctx, 4)) // both go in
		hc, hd := granted(t, c), granted(t, d)
		must(t, sem(0, 0).SetLimit(ctx, 1))
		must(t, sc.c.Quiesce(ctx))
		for _, h := range []*recipes.Held{a, b, hc, hd} {
			isHeld(t, h) // SEM-S3
			must(t, h.Verify(ctx))
		}
		e := sc.joins(t, ctx, 1, 1, sem(1, 9).Acquire)
		for _, h := range []*recipes.Held{a, b, hc} {
			must(t, h.Release(ctx))
			waiting(t, e) // SEM-S3
		}
		must(t, hd.Release(ctx))
		he := granted(t, e)
		must(t, sem(0, 0).SetLimit(ctx, 0)) // a pause
		must(t, sc.c.Quiesce(ctx))
		must(t, he.Release(ctx))
		f := sc.joins(t, ctx, 0, 1, sem(0, 9).Acquire)
		_, err = sem(1, 9).TryAcquire(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		time.Sleep(time.Minute)
		waiting(t, f)
		must(t, sem(1, 0).SetLimit(ctx, 1))
		must(t, granted(t, f).Release(ctx))
		// It outlives a time without users, although what the users left is reaped.
		must(t, sem(1, 0).SetLimit(ctx, 3))
		eventually(t, "not reaped", func() bool { return len(below(t, ctx, sc.c.Member(sc.at[0]), "/app/shared")) == 0 })
		time.Sleep(10 * time.Minute)
		h := granted(t, start(ctx, sem(0, 1).Acquire))
		data, _, err := sc.s[0].Get(ctx, "/app/shared")
		must(t, err)
		if string(data) != "3" {
			t.Errorf("the limit is %q", data)
		}
		must(t, h.Release(ctx))
	})
}

// The limit in the path's data is kazoo's decimal text; Curator leaves it empty, and it is filled in. Who has another one
// is told so, on every call, and nothing is changed.
func TestSemaphoreLimitsDisagree(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		const path = "/app/lock/sem"
		try := func(i, limit int) error {
			h, err := recipes.NewSemaphore(sc.s[i], path, limit).Acquire(ctx)
			if err == nil {
				must(t, h.Release(ctx))
			}
			return err
		}
		for _, data := range []string{"", "3"} {
			_, err := sc.s[0].Create(ctx, path, []byte(data), zk.Persistent|zk.Parents)
			must(t, err)
			must(t, sc.c.Quiesce(ctx))
			must(t, try(0, 3))
			got, _, err := sc.s[0].Get(ctx, path)
			must(t, err)
			if string(got) != "3" {
				t.Errorf("%q became %q", data, got)
			}
			must(t, sc.c.Quiesce(ctx))
			before := sc.c.Member(sc.at[1]).Stats().Writes
			for range 2 {
				wants(t, try(1, 4), recipes.ErrMismatch)
				_, err := recipes.NewSemaphore(sc.s[1], path, 2).TryAcquire(ctx)
				wants(t, err, recipes.ErrMismatch)
			}
			if n := sc.c.Member(sc.at[1]).Stats().Writes - before; n != 0 {
				t.Errorf("%d writes", n)
			}
			must(t, try(2, 3))
			must(t, sc.s[0].DeleteTree(ctx, path))
		}
		for _, data := range []string{"x", "3.5", "-1", "99999999999999999999", "{}", "\x00\x00\x00\x03"} {
			z, err := sc.s[0].Create(ctx, path, []byte(data), zk.Persistent)
			must(t, err)
			err = try(0, 3)
			wants(t, err, recipes.ErrMismatch)
			if d, ok := errors.AsType[*recipes.DecodeError](err); !ok || d.Path != path || d.Zxid != z.Stat.Mzxid {
				t.Errorf("%q: %v", data, err)
			}
			must(t, sc.s[0].Delete(ctx, path, zk.AnyVersion))
		}
		// Who waits learns of a limit that somebody changes under it.
		h := granted(t, start(ctx, recipes.NewSemaphore(sc.s[0], path, 1).Acquire))
		next := sc.joins(t, ctx, 1, 1, recipes.NewSemaphore(sc.s[1], path, 1).Acquire)
		_, err := sc.s[2].Set(ctx, path, []byte("2"), zk.AnyVersion)
		must(t, err)
		wants(t, soon(t, "still waiting", next).err, recipes.ErrMismatch)
		sc.none(t, ctx, 1)
		must(t, h.Release(ctx))
	})
}

// A member that has not heard yet that somebody waits, or that the limit was lowered, lets nobody in by what it knows.
func TestSemaphoreDeafMember(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		l := leader(t, ctx, sc.c)
		deaf, other := 0, 1
		if sc.at[1] != l {
			other = 2
		}
		if sc.at[other] != l || sc.at[deaf] == l {
			t.Fatal("the stage is not as it should be")
		}
		sem := func(i int) *recipes.Semaphore {
			return &recipes.Semaphore{Session: sc.s[i], Path: "/app/shared", Limit: 2, SharedLimit: true}
		}
		for what, change := range map[string]func() (undo func()){
			"somebody waits for two": func() func() {
				some, cancel := context.WithCancel(ctx)
				next := start(some, func(ctx context.Context) (*recipes.Held, error) { return sem(other).AcquireN(ctx, 2) })
				eventually(t, "not in line", func() bool { return sc.c.Member(l).Stats().Ephemerals == 2 })
				return func() { cancel(); <-next }
			},
			"the limit was lowered": func() func() {
				must(t, sem(other).SetLimit(ctx, 1))
				return func() { must(t, sem(other).SetLimit(ctx, 2)) }
			},
		} {
			h := granted(t, start(ctx, sem(other).Acquire))
			must(t, sc.c.Quiesce(ctx))
			sc.c.Network().Slow(zktest.Name(l), zktest.Name(sc.at[deaf]), 300*time.Millisecond)
			undo := change()
			if n := sc.c.Member(sc.at[deaf]).Stats().Ephemerals; n != 1 {
				t.Fatalf("%s: it has heard of %d", what, n)
			}
			if _, err := sem(deaf).TryAcquire(ctx); !errors.Is(err, recipes.ErrNotAcquired) { // SEM-S1, SEM-L1
				t.Errorf("%s: %v", what, err)
			}
			sc.c.Heal()
			undo()
			must(t, h.Release(ctx))
			eventually(t, "left", func() bool { return sc.c.Member(l).Stats().Ephemerals == 0 })
			must(t, sc.c.Quiesce(ctx))
		}
	})
}

// What Curator's semaphore has on the same path counts: its leases, and who waits in its line.
func TestSemaphoreBesideCurator(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		const path = "/app/lock/sem"
		curator := func(dir, name string) zk.Znode {
			z, err := sc.s[1].Create(ctx, path+"/"+dir+"/_c_"+someUUID+"-"+name+"-", nil, zk.Ephemeral|zk.Sequential|zk.Parents)
			must(t, err)
			must(t, sc.c.Quiesce(ctx))
			return z
		}
		remove := func(z zk.Znode) {
			must(t, sc.s[1].Delete(ctx, z.Path, zk.AnyVersion))
			must(t, sc.c.Quiesce(ctx))
		}
		lease := curator("leases", "lease")
		h := granted(t, start(ctx, semaphore(sc.s[0], 2).Acquire))
		if !strings.Contains(h.Path(), path+"/leases/_c_") || !strings.Contains(h.Path(), "-lease-") {
			t.Errorf("path %s", h.Path())
		}
		next := sc.joins(t, ctx, 0, 1, semaphore(sc.s[0], 2).Acquire)
		waiting(t, next)
		remove(lease)
		n := granted(t, next)
		must(t, n.Release(ctx))
		// Curator's program holds its lock while it waits for its lease: we stand behind it, although there is room.
		lock := curator("locks", "lock")
		_, err := semaphore(sc.s[0], 2).TryAcquire(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		next = sc.joins(t, ctx, 0, 1, semaphore(sc.s[0], 2).Acquire)
		waiting(t, next)
		lease = curator("leases", "lease")
		remove(lock)
		waiting(t, next)
		remove(lease)
		must(t, granted(t, next).Release(ctx))
		must(t, h.Release(ctx))
	})
}

// An acquire that is interrupted at any step, by a cancelled context or a suspension, leaves no lease that nobody owns.
func TestPeer29OrphanLease(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		for i := range size(60, 16) {
			r := rand.New(rand.NewPCG(uint64(i), 29))
			h := granted(t, start(ctx, semaphore(sc.s[1], 1).Acquire))
			must(t, sc.c.Quiesce(ctx))
			sc.c.Network().Latency(time.Millisecond, 2*time.Millisecond)
			some, cancel := context.WithCancel(ctx)
			next := start(some, semaphore(sc.s[0], 1).Acquire)
			time.Sleep(time.Duration(r.IntN(12000)) * time.Microsecond)
			released := start(ctx, func(ctx context.Context) (*recipes.Held, error) { return nil, h.Release(ctx) }) // at any step of the other
			time.Sleep(time.Duration(r.IntN(12000)) * time.Microsecond)
			if i%2 == 0 {
				cancel()
			} else {
				sc.c.Partition([]int{0}, []int{1}, []int{2}) // nobody can expire it
				eventually(t, "not suspended", func() bool { return sc.s[0].State() == zk.StateSuspended })
			}
			sc.c.Heal()
			must(t, soon(t, "not released", released).err)
			a := soon(t, "it hangs", next)
			if a.err == nil {
				must(t, a.h.Release(ctx))
			} else if i%2 != 0 {
				t.Error(a.err)
			}
			cancel()
			must(t, granted(t, start(ctx, semaphore(sc.s[2], 1).Acquire)).Release(ctx)) // PEER-29
			sc.none(t, ctx, 0)
			sc.active(t, 0)
		}
	})
}

// Many who try at once never have more leases than there are, at any index of the log.
func TestPeer30MoreLeasesThanLimit(t *testing.T) {
	onStage(t, zktest.Config{Base: zk.Config{WatchBuffer: 1 << 16}}, func(t *testing.T, ctx context.Context, sc *scene) {
		watching, stop := context.WithCancel(ctx)
		defer stop()
		const limit = 3
		g := measure(t, watching, sc.s[2], "/app/lock/sem", limit)
		for range 10 { // nobody waits: all see room
			in := make(chan *recipes.Held, 3*limit)
			var all sync.WaitGroup
			for w := range cap(in) {
				all.Go(func() {
					h, err := semaphore(sc.s[w%3], limit).TryAcquire(ctx)
					if err != nil && !errors.Is(err, recipes.ErrNotAcquired) {
						t.Error(err)
					}
					in <- h
				})
			}
			all.Wait()
			for range cap(in) {
				if h := <-in; h != nil {
					must(t, h.Release(ctx))
				}
			}
			must(t, sc.c.Quiesce(ctx))
			g.says(t, 0, limit) // PEER-30
		}
		sc.c.Network().Latency(0, 2*time.Millisecond)
		var all sync.WaitGroup
		for w := range 12 {
			r := rand.New(rand.NewPCG(uint64(w), 30))
			all.Go(func() {
				sem := semaphore(sc.s[w%3], limit)
				for range size(200, 25) {
					try := sem.TryAcquire
					switch r.IntN(4) {
					case 0:
						try = sem.Acquire
					case 1:
						try = func(ctx context.Context) (*recipes.Held, error) { return sem.AcquireN(ctx, 2) }
					}
					h, err := try(ctx)
					if err != nil {
						if !errors.Is(err, recipes.ErrNotAcquired) {
							t.Error(err)
						}
						continue
					}
					time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
					if err := h.Release(ctx); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		sc.c.Heal()
		must(t, sc.c.Quiesce(ctx))
		g.says(t, 0, limit) // PEER-30, SEM-S1: and it was used to the full
		stop()
	})
}

// The first in line whose leaving fails, or who dies, does not stay at the head of the line for ever.
func TestPeer31ZombieHead(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, how := range []string{"cancelled, cut off", "cancelled, answers lost", "expired", "suspended"} {
			h := granted(t, start(ctx, semaphore(sc.s[1], 1).Acquire))
			some, cancel := context.WithCancel(ctx)
			head := sc.joins(t, some, 0, 1, semaphore(sc.s[0], 1).Acquire)
			next := sc.joins(t, ctx, 2, 1, semaphore(sc.s[2], 1).Acquire)
			switch how {
			case "cancelled, cut off":
				sc.c.Isolate(sc.at[0])
			case "cancelled, answers lost":
				sc.c.DropForwards(sc.at[0], 4)
			case "suspended":
				sc.suspend(t, 0)
			case "expired":
				must(t, sc.c.Expire(ctx, sc.s[0]))
				s, err := sc.c.Member(sc.at[0]).NewSession(ctx, zk.SessionConfig{})
				must(t, err)
				sc.s[0] = s
			}
			cancel()
			if err := soon(t, "still waiting", head).err; !errors.Is(err, context.Canceled) && !errors.Is(err, zk.ErrSessionExpired) {
				t.Fatalf("%s: %v", how, err)
			}
			must(t, h.Release(ctx))
			sc.c.Heal()
			must(t, granted(t, next).Release(ctx)) // PEER-31, SEM-L2
			sc.none(t, ctx, 0)
			sc.active(t, 0)
		}
	})
}

// One value is for all goroutines.
func TestPeer32NotThreadSafe(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		const limit = 5
		sem := semaphore(sc.s[0], limit)
		lock := recipes.NewLock(sc.s[0], "/app/lock/l")
		var mu sync.Mutex
		in, most := 0, 0
		var all sync.WaitGroup
		for i := range 64 {
			all.Go(func() {
				for range size(20, 4) {
					h, err := sem.Acquire(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					in++
					most = max(most, in)
					mu.Unlock()
					if _, err := sem.Holders(ctx); err != nil {
						t.Error(err)
					}
					if i%8 == 0 {
						err = errors.Join(err, lock.Do(ctx, func(context.Context, *recipes.Held) error { return nil }))
					}
					time.Sleep(time.Millisecond)
					mu.Lock()
					in--
					mu.Unlock()
					if err := errors.Join(err, h.Release(ctx)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if most > limit || most < 2 { // PEER-32, SEM-S1
			t.Errorf("%d in at once", most)
		}
	})
}

// After all members were killed and started again, what the dead held is free again.
func TestPeer33UnitsAreNotFreed(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		for i := range 3 {
			_, err := recipes.NewSemaphore(c.Member(i), "/sem", 3).Acquire(ctx)
			must(t, err)
		}
		_, err := recipes.NewSemaphore(c.Member(0), "/sem", 3).TryAcquire(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		must(t, c.Quiesce(ctx))
		for i := range 3 {
			must(t, c.Crash(i))
		}
		for i := range 3 {
			must(t, c.Restart(ctx, i))
		}
		for i := range 3 {
			must(t, c.Member(i).Ready(ctx))
		}
		var in []*recipes.Held
		for i := range 3 {
			in = append(in, granted(t, start(ctx, recipes.NewSemaphore(c.Member(i), "/sem", 3).Acquire))) // PEER-33
		}
		for _, h := range in {
			must(t, h.Release(ctx))
		}
		residue(t, ctx, c, "/")
	})
}

// However many wait, a release wakes the first in line and, when that is in, the next one; nobody lists the line.
func TestSemaphoreManyWaiters(t *testing.T) {
	const n = 1000
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		reads := func() (calls, scanned int64) {
			must(t, sc.c.Quiesce(ctx))
			synctest.Wait()
			for _, m := range sc.at {
				st := sc.c.Member(m).Stats()
				calls, scanned = calls+st.Reads, scanned+st.Scanned
			}
			return calls, scanned
		}
		const limit = 4
		var in []*recipes.Held
		highest := zk.Token(0)
		for range limit {
			h := granted(t, start(ctx, semaphore(sc.s[0], limit).Acquire))
			in, highest = append(in, h), h.Token()
		}
		_, scanned := reads()
		held := make(chan *recipes.Held)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				h, err := semaphore(sc.s[i%3], limit).Acquire(ctx)
				if err != nil {
					t.Error(err)
				}
				held <- h
			})
		}
		eventually(t, "they are not all in line", func() bool { return sc.c.Member(sc.at[0]).Stats().Ephemerals == n+limit })
		must(t, sc.c.Quiesce(ctx))
		synctest.Wait()
		if _, over := reads(); over-scanned > 2*n { // who comes looks at the one before it
			t.Errorf("%.1f siblings looked at by each that came", float64(over-scanned)/n)
		}
		var watches int64
		for _, m := range sc.at {
			watches += sc.c.Member(m).Stats().Watches
		}
		if watches != int64(2*n+1+limit) { // two of each, one more of the first in line, one of each holder
			t.Errorf("%d watches of %d waiters", watches, n)
		}
		zxid := sc.s[0].LastZxid()
		before, scanned := reads()
		time.Sleep(time.Minute)
		if r, _ := reads(); sc.s[0].LastZxid() != zxid || r != before { // waiting is free
			t.Errorf("%d log entries and %d reads in an idle minute", sc.s[0].LastZxid()-zxid, r-before)
		}
		for i := range n {
			must(t, in[i%limit].Release(ctx))
			h := <-held
			if h == nil {
				t.Fatal("one was not let in")
			}
			if h.Token() <= highest { // HELD-S2
				t.Fatalf("token %v after %v", h.Token(), highest)
			}
			in[i%limit], highest = h, h.Token()
		}
		all.Wait()
		// The first in line wakes and goes in: 2 reads for its place, 5 for the room; the next one becomes the first: as many.
		r, over := reads()
		if r -= before; r > int64(16*n) {
			t.Errorf("%.1f local reads for a hand-over", float64(r)/float64(n))
		}
		if over != scanned { // who is let in is the first: nobody is before it, and nobody looks further
			t.Errorf("%.1f siblings looked at for a hand-over", float64(over-scanned)/n)
		}
		if z := sc.s[0].LastZxid(); z-zxid != zk.Zxid(2*n) { // a release and a lease each
			t.Errorf("%d log entries for %d hand-overs", z-zxid, n)
		}
		for _, h := range in {
			must(t, h.Release(ctx))
		}
	})
}

// Semaphores that were used leave nothing, at all three levels (PEER-21).
func TestSemaphoreNoLitter(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		for i := range 20 {
			sem := recipes.NewSemaphore(c.Member(i%3), fmt.Sprintf("/sems/%d/deep", i), 1)
			h, err := sem.TryAcquire(ctx)
			must(t, err)
			next := start(ctx, sem.Acquire)
			_, err = sem.TryAcquire(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			must(t, h.Release(ctx))
			must(t, granted(t, next).Release(ctx))
		}
		residue(t, ctx, c, "/")
	})
}

// The reaper takes the directories away between any two steps: no call fails for it (PEER-20).
func TestSemaphoreReaped(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{ReapInterval: 100 * time.Millisecond}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(0, 2*time.Millisecond)
		reaped := 0
		for i := range size(400, 80) {
			r := rand.New(rand.NewPCG(uint64(i), 20))
			sem := recipes.NewSemaphore(c.Member(i%3), "/a/b/sem", 2)
			fn := sem.Acquire
			if r.IntN(2) == 0 {
				fn = sem.TryAcquire
			}
			h, err := fn(ctx)
			must(t, err) // PEER-20, E7
			if strings.HasSuffix(h.Path(), "-0000000000") {
				reaped++
			}
			must(t, h.Verify(ctx))
			must(t, h.Release(ctx))
			time.Sleep(time.Duration(r.IntN(120)) * time.Millisecond)
		}
		if reaped < 3 {
			t.Errorf("reaped %d times", reaped)
		}
		c.Heal()
	})
}
