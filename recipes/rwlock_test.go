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

// A line of readers and writers is worked off in its order: a writer alone, the readers between two writers together.
func TestRWLockOrder(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := granted(t, start(ctx, rwLock(sc.s[0]).Lock))
		const kinds = "rrwrwwrrr"
		var line []<-chan attempt
		for i, k := range kinds {
			l := rwLock(sc.s[i%3])
			fn := l.RLock
			if k == 'w' {
				fn = l.Lock
			}
			line = append(line, sc.joins(t, ctx, i%3, 1, fn))
		}
		held := []*recipes.Held{h}
		highest := h.Token()
		for at := 0; at < len(line); {
			for _, next := range line[at:] { // RW-S1, RW-L1
				waiting(t, next)
			}
			for _, h := range held {
				must(t, h.Release(ctx))
			}
			held = nil
			for first := kinds[at]; at < len(line) && kinds[at] == first && (first == 'r' || len(held) == 0); at++ {
				h := granted(t, line[at])
				if h.Token() <= highest { // RW-S3: of a writer it exceeds all earlier ones; of readers too, in the order of the line
					t.Errorf("%d: token %v after %v", at, h.Token(), highest)
				}
				held, highest = append(held, h), h.Token()
			}
		}
		for _, h := range held {
			must(t, h.Release(ctx))
		}
	})
}

// A reader that comes while a writer waits does not overtake it, however long there are other readers (RW-L1).
func TestRWLockWriterIsNotStarved(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		first := granted(t, start(ctx, rwLock(sc.s[0]).RLock))
		second := granted(t, start(ctx, rwLock(sc.s[1]).RLock)) // beside it
		writer := sc.joins(t, ctx, 1, 1, rwLock(sc.s[1]).Lock)
		late := sc.joins(t, ctx, 2, 1, rwLock(sc.s[2]).RLock)
		_, err := rwLock(sc.s[2]).TryRLock(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		must(t, first.Release(ctx))
		waiting(t, writer)
		waiting(t, late) // RW-L1
		must(t, second.Release(ctx))
		w := granted(t, writer)
		waiting(t, late) // RW-S1
		must(t, w.Release(ctx))
		must(t, granted(t, late).Release(ctx))
	})
}

// Readers behind a writer that gives up, or dies, go in together.
func TestRWLockWriterVanishes(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, dies := range []bool{false, true} {
			h := granted(t, start(ctx, rwLock(sc.s[1]).RLock))
			some, cancel := context.WithCancel(ctx)
			sc.joins(t, some, 0, 1, rwLock(sc.s[0]).Lock)
			var readers []<-chan attempt
			for i := range 4 {
				readers = append(readers, sc.joins(t, ctx, 1+i%2, 1, rwLock(sc.s[1+i%2]).RLock))
			}
			for _, r := range readers {
				waiting(t, r)
			}
			if dies {
				must(t, sc.c.Expire(ctx, sc.s[0]))
			}
			cancel()
			for _, r := range readers {
				must(t, granted(t, r).Release(ctx)) // RW-L1: while the first reader goes on
			}
			isHeld(t, h)
			must(t, h.Release(ctx))
		}
	})
}

// Tries see what is current, and many at once end with one writer or with readers, never both.
func TestRWLockTryAtOnce(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for round := range 8 {
			if round == 4 {
				_, err := sc.s[0].Create(ctx, "/app/lock/rw/foreign", nil, zk.Ephemeral|zk.Parents)
				must(t, err)
			}
			var mu sync.Mutex
			var writers, readers []*recipes.Held
			var all sync.WaitGroup
			for i := range 30 {
				all.Go(func() {
					l := rwLock(sc.s[i%3])
					try := l.TryRLock
					if (i+round)%3 == 0 {
						try = l.TryLock
					}
					h, err := try(ctx)
					if err != nil {
						if !errors.Is(err, recipes.ErrNotAcquired) {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					defer mu.Unlock()
					if (i+round)%3 == 0 {
						writers = append(writers, h)
					} else {
						readers = append(readers, h)
					}
				})
			}
			all.Wait()
			if len(writers) > 1 || len(writers) > 0 && len(readers) > 0 { // RW-S1
				t.Fatalf("%d writers and %d readers", len(writers), len(readers))
			}
			must(t, sc.c.Quiesce(ctx))
			list, err := rwLock(sc.s[0]).Contenders(ctx)
			must(t, err)
			if len(list) != len(writers)+len(readers) { // LOCK-S3
				t.Fatalf("%d in line, %d hold", len(list), len(writers)+len(readers))
			}
			for _, h := range append(writers, readers...) {
				must(t, h.Release(ctx))
			}
		}
		must(t, sc.s[0].Delete(ctx, "/app/lock/rw/foreign", zk.AnyVersion))
	})
}

// Contenders tells who holds.
func TestRWLockContenders(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		l := rwLock(sc.s[0])
		l.Data = []byte("me")
		holding := func() (holding string) {
			t.Helper()
			must(t, sc.c.Quiesce(ctx))
			list, err := l.Contenders(ctx)
			must(t, err)
			for _, c := range list {
				if string(c.Data) != "me" {
					t.Errorf("data %q", c.Data)
				}
				holding += map[bool]string{true: "h", false: "-"}[c.Holding]
			}
			return holding
		}
		if got := holding(); got != "" {
			t.Error(got)
		}
		a, b := granted(t, start(ctx, l.RLock)), granted(t, start(ctx, l.RLock))
		w := sc.joins(t, ctx, 0, 1, l.Lock)
		r := sc.joins(t, ctx, 0, 1, l.RLock)
		if got := holding(); got != "hh--" {
			t.Error(got)
		}
		must(t, a.Release(ctx))
		must(t, b.Release(ctx))
		h := granted(t, w)
		if got := holding(); got != "h-" {
			t.Error(got)
		}
		must(t, h.Release(ctx))
		h = granted(t, r)
		if got := holding(); got != "h" {
			t.Error(got)
		}
		must(t, h.Release(ctx))
	})
}

// After a downgrade no writer that was in line before gets in (RW-S2): the reader takes over the writer's place and token.
func TestPeer25WriterEntersAfterDowngrade(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, layout := range []recipes.Layout{recipes.Curator, recipes.Kazoo} {
			lock := func(i int) *recipes.RWLock {
				l := recipes.NewRWLock(sc.s[i], fmt.Sprint("/app/lock/", layout))
				l.Layout = layout
				return l
			}
			w := granted(t, start(ctx, lock(0).Lock))
			before := sc.joins(t, ctx, 1, 1, lock(1).RLock) // may go in with the downgraded one
			writer := sc.joins(t, ctx, 1, 1, lock(1).Lock)
			after := sc.joins(t, ctx, 2, 1, lock(2).RLock)
			r, err := lock(0).Downgrade(ctx, w)
			must(t, err)
			wants(t, w.Err(), recipes.ErrReleased)
			isHeld(t, r)
			must(t, r.Verify(ctx))
			if r.Token() != w.Token() { // HELD-S2: a new one would exceed the writer's that waits
				t.Errorf("token %v, not %v", r.Token(), w.Token())
			}
			_, err = sc.s[0].Txn(ctx, w.Guard())
			wants(t, err, zk.ErrGuard) // HELD-S3
			_, err = sc.s[0].Txn(ctx, r.Guard())
			must(t, err)
			if seq := func(p string) string { return p[len(p)-10:] }; seq(r.Path()) != seq(w.Path()) {
				t.Errorf("%s became %s", w.Path(), r.Path())
			}
			b := granted(t, before)
			waiting(t, writer) // PEER-25, RW-S2
			waiting(t, after)
			must(t, w.Release(ctx)) // of what has ended: it takes nothing from the reader
			isHeld(t, r)
			must(t, r.Verify(ctx))
			must(t, b.Release(ctx))
			waiting(t, writer) // PEER-25
			must(t, r.Release(ctx))
			h := granted(t, writer)
			if h.Token() <= r.Token() { // RW-S3
				t.Errorf("token %v after %v", h.Token(), r.Token())
			}
			waiting(t, after)
			must(t, h.Release(ctx))
			must(t, granted(t, after).Release(ctx))
		}
	})
}

// The five steps after which kazoo's reader and its second writer waited for each other: who waits watches only those
// with a lower number (RW-L2).
func TestPeer26ReaderAndWriterWaitForEachOther(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, layout := range []recipes.Layout{recipes.Curator, recipes.Kazoo} {
			lock := func(i int) *recipes.RWLock {
				l := recipes.NewRWLock(sc.s[i], fmt.Sprint("/app/lock/", layout))
				l.Layout = layout
				return l
			}
			first := granted(t, start(ctx, lock(0).Lock))
			reader := sc.joins(t, ctx, 1, 1, lock(1).RLock)
			second := sc.joins(t, ctx, 2, 1, lock(2).Lock)
			must(t, first.Release(ctx))
			r := granted(t, reader) // PEER-26: it does not wait for the writer that came later
			waiting(t, second)
			must(t, r.Release(ctx))
			must(t, granted(t, second).Release(ctx)) // PEER-26
		}
	})
}

// Who waits for somebody that is gone does not look again and again.
func TestPeer27SecondWriterSpins(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		reads := func() (sum int64) {
			synctest.Wait()
			for _, m := range sc.at {
				sum += sc.c.Member(m).Stats().Reads
			}
			return sum
		}
		h := granted(t, start(ctx, rwLock(sc.s[0]).Lock))
		for i := range 6 {
			next := sc.joins(t, ctx, 1+i%2, 1, rwLock(sc.s[1+i%2]).Lock)
			before := reads()
			time.Sleep(time.Minute)
			if n := reads() - before; n != 0 {
				t.Errorf("%d reads in an idle minute", n)
			}
			must(t, h.Release(ctx))
			h = granted(t, next)
			if n := reads() - before; n > 4 { // PEER-27
				t.Errorf("%d reads for a hand-over", n)
			}
		}
		must(t, h.Release(ctx))
	})
}

// A writer behind k readers wakes once for each change of who is right before it, k times at most; a writer's release
// wakes exactly the readers up to the next writer.
func TestRWLockWakeups(t *testing.T) {
	k := size(1000, 60)
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		reads := func() (sum int64) {
			must(t, sc.c.Quiesce(ctx))
			synctest.Wait()
			for _, m := range sc.at {
				sum += sc.c.Member(m).Stats().Reads
			}
			return sum
		}
		const each = 3 // reads of who wakes: its own znode, who precedes it, and that one
		first := granted(t, start(ctx, rwLock(sc.s[0]).Lock))
		held := make(chan *recipes.Held, k)
		var all sync.WaitGroup
		for i := range k {
			all.Go(func() {
				h, err := rwLock(sc.s[i%3]).RLock(ctx)
				if err != nil {
					t.Error(err)
				}
				held <- h
			})
		}
		eventually(t, "they are not all in line", func() bool { return sc.c.Member(sc.at[1]).Stats().Ephemerals == k+1 })
		writer := sc.joins(t, ctx, 1, 1, rwLock(sc.s[1]).Lock)
		behind := sc.joins(t, ctx, 2, 1, rwLock(sc.s[2]).RLock)
		zxid, before := sc.s[1].LastZxid(), reads()
		must(t, first.Release(ctx))
		all.Wait()
		waiting(t, writer)
		waiting(t, behind)
		if n := reads() - before; n > int64(each*k) { // who waits behind does not wake
			t.Errorf("%d reads to let in %d readers", n, k)
		}
		before = reads()
		for range k {
			must(t, (<-held).Release(ctx))
		}
		w := granted(t, writer)
		if n := reads() - before; n > int64(each*k+each) {
			t.Errorf("%d reads of a writer behind %d readers", n, k)
		}
		if n := sc.s[1].LastZxid() - zxid; n != zk.Zxid(k+1) { // the releases
			t.Errorf("%d log entries", n)
		}
		must(t, w.Release(ctx))
		must(t, granted(t, behind).Release(ctx))
	})
}

// What Curator and kazoo write is honoured, and every other child is passed over (PEER-15).
func TestRWLockForeignNames(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		create := func(name string) zk.Znode {
			t.Helper()
			z, err := sc.s[1].Create(ctx, "/app/lock/rw/"+name, nil, zk.Ephemeral|zk.Sequential|zk.Parents)
			must(t, err)
			must(t, sc.c.Quiesce(ctx))
			return z
		}
		remove := func(z zk.Znode) {
			must(t, sc.s[1].Delete(ctx, z.Path, zk.AnyVersion))
			must(t, sc.c.Quiesce(ctx))
		}
		l := rwLock(sc.s[0])
		for _, tc := range []struct {
			name           string
			readers, alone bool // are readers, is a writer let in beside it?
		}{
			{"_c_" + someUUID + "-__READ__", true, false},
			{"_c_" + someUUID + "-__WRIT__", false, false},
			{someHex + "__rlock__", true, false},
			{someHex + "__lock__", false, false},
			{"_c_" + someUUID + "-lock-", true, true}, // of a Lock: another recipe
			{"_c_" + someUUID + "__WRIT__", true, true},
			{someHex + "__wlock__", true, true},
			{"__WRIT__", true, true},
			{"_c_", true, true},
		} {
			z := create(tc.name)
			for what, try := range map[string]struct {
				call
				ok bool
			}{"a reader": {l.TryRLock, tc.readers}, "a writer": {l.TryLock, tc.alone}} {
				h, err := try.call(ctx)
				if (err == nil) != try.ok {
					t.Errorf("%s beside %s: %v", what, tc.name, err)
				}
				if err == nil {
					must(t, h.Release(ctx))
				} else {
					wants(t, err, recipes.ErrNotAcquired)
				}
			}
			if !tc.alone { // it is waited for
				w := sc.joins(t, ctx, 0, 1, l.Lock)
				waiting(t, w)
				remove(z)
				must(t, granted(t, w).Release(ctx))
			} else {
				remove(z)
			}
		}
		for layout, names := range map[recipes.Layout][2]string{recipes.Curator: {"-__READ__", "-__WRIT__"}, recipes.Kazoo: {"__rlock__", "__lock__"}} {
			l.Layout = layout
			for i, fn := range []call{l.RLock, l.Lock} {
				h := granted(t, start(ctx, fn))
				if name := strings.TrimRight(h.Path(), "0123456789"); !strings.HasSuffix(name, names[i]) {
					t.Errorf("%v: %s", layout, h.Path())
				}
				must(t, h.Release(ctx))
			}
		}
	})
}

// Whatever happens during a downgrade: there is a read lock, or an error and nothing is left; and no writer came between.
func TestDowngradeFaults(t *testing.T) {
	for name, fault := range map[string]func(t *testing.T, ctx context.Context, sc *scene, r *rand.Rand, cancel func()){
		"cancel": func(t *testing.T, _ context.Context, _ *scene, _ *rand.Rand, cancel func()) { cancel() },
		"cancel, cut off": func(t *testing.T, _ context.Context, sc *scene, _ *rand.Rand, cancel func()) {
			sc.c.Isolate(sc.at[0])
			time.Sleep(time.Second)
			cancel()
		},
		"lose answers": func(_ *testing.T, _ context.Context, sc *scene, r *rand.Rand, _ func()) {
			sc.c.DropForwards(sc.at[0], 1+r.IntN(3))
		},
		"change leader": func(_ *testing.T, ctx context.Context, sc *scene, _ *rand.Rand, _ func()) {
			sc.c.Member(sc.at[0]).TransferLeadership(ctx, "")
		},
		"suspend": func(t *testing.T, _ context.Context, sc *scene, _ *rand.Rand, _ func()) {
			sc.c.Partition([]int{0}, []int{1}, []int{2})
			eventually(t, "not suspended", func() bool { return sc.s[0].State() == zk.StateSuspended })
		},
		"expire": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand, _ func()) {
			must(t, sc.c.Expire(ctx, sc.s[0]))
		},
		"delete its znode": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand, _ func()) {
			for _, z := range sc.znodes(t, ctx, 0) {
				must(t, recipes.NewLock(sc.s[1], "/x").Break(ctx, recipes.Contender{Path: z.Path, Token: zk.Token(z.Stat.Czxid)}))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			outcomes := map[bool]int{}
			rounds := size(40, 8)
			if testing.Short() {
				rounds = 2
			}
			for round := range rounds {
				onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
					r := rand.New(rand.NewPCG(uint64(round), 25))
					w := granted(t, start(ctx, rwLock(sc.s[0]).Lock))
					writer := sc.joins(t, ctx, 1, 1, rwLock(sc.s[1]).Lock)
					sc.c.Network().Latency(0, 3*time.Millisecond)
					some, cancel := context.WithCancel(ctx)
					defer cancel()
					done := start(some, func(ctx context.Context) (*recipes.Held, error) { return rwLock(sc.s[0]).Downgrade(ctx, w) })
					time.Sleep(time.Duration(r.IntN(9000)) * time.Microsecond)
					fault(t, ctx, sc, r, cancel)
					sc.c.Heal()
					a := soon(t, "it hangs", done)
					if (a.h == nil) == (a.err == nil) { // PEER-10
						t.Fatalf("%v and %v", a.h, a.err)
					}
					if w.Valid() {
						t.Error("the write lock is still valid")
					}
					outcomes[a.err == nil]++
					must(t, sc.c.Quiesce(ctx)) // an operator's deletion is known to its holder
					if a.err == nil && a.h.Valid() {
						waiting(t, writer) // RW-S2
						must(t, a.h.Release(ctx))
					}
					h := granted(t, writer)
					if a.h != nil && a.h.Valid() { // RW-S1
						t.Error("a reader beside a writer")
					}
					sc.none(t, ctx, 0)
					must(t, h.Release(ctx))
				})
			}
			t.Logf("downgraded: %v", outcomes)
		})
	}
}

// One value is for all goroutines (PEER-32), and readers and writers exclude each other whatever the order.
func TestRWLockManyGoroutines(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		var locks [3]*recipes.RWLock
		for i := range locks {
			locks[i] = rwLock(sc.s[i])
		}
		var mu sync.Mutex
		readers, writers := 0, 0
		highest := zk.Token(0) // of writers and of who came before them
		enter := func(write bool, h *recipes.Held) {
			mu.Lock()
			defer mu.Unlock()
			if write {
				writers++
			} else {
				readers++
			}
			if writers > 1 || writers == 1 && readers > 0 { // RW-S1
				t.Errorf("%d writers and %d readers", writers, readers)
			}
			if write && h.Token() <= highest { // RW-S3
				t.Errorf("a writer's token %v after %v", h.Token(), highest)
			}
			highest = max(highest, h.Token())
		}
		leave := func(write bool) {
			mu.Lock()
			defer mu.Unlock()
			if write {
				writers--
			} else {
				readers--
			}
		}
		var all sync.WaitGroup
		for i := range 64 {
			r := rand.New(rand.NewPCG(uint64(i), 32))
			all.Go(func() {
				for range size(40, 6) {
					l := locks[i%3]
					write := r.IntN(4) == 0
					fn := l.RLock
					if write {
						fn = l.Lock
					}
					h, err := fn(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					enter(write, h)
					time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
					if write && r.IntN(2) == 0 {
						leave(true)
						if h, err = l.Downgrade(ctx, h); err != nil {
							t.Error(err)
							return
						}
						write = false
						enter(false, h)
					}
					leave(write)
					if err := h.Release(ctx); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
	})
}
