// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// guests is a program whose threads share recipes with those of a member in this process.
type guests struct {
	*peer
	ctx context.Context
	m   *zk.Member
	s   *zk.Session
}

// invite opens a member and starts a program that works with it through its port.
func invite(t *testing.T, cmd ...string) *guests {
	t.Helper()
	ctx, m, p := shared(t, cmd...)
	s, err := m.Session(ctx)
	done(t, err)
	return &guests{p, ctx, m, s}
}

// inviteKazoo starts the program that uses kazoo.
func inviteKazoo(t *testing.T) *guests {
	t.Helper()
	needFiles(t, debianPython, "/usr/lib/python3/dist-packages/kazoo")
	return invite(t, debianPython, "-B", "kazoo/recipes_peer.py")
}

// run is one case of a row.
func (g *guests) run(row tried, name string, f func(t *testing.T)) {
	row.run(name, func(t *testing.T) {
		before := g.t
		g.t = t
		defer func() { g.t = before }()
		f(t)
	})
}

// quiet fails if the program has got anything that was not asked for yet.
func (g *guests) quiet() {
	g.t.Helper()
	g.does("nobody", "ping") // what was said before is read
	if len(g.got) > 0 {
		g.t.Errorf("the program got %q, which it should wait for", g.got)
	}
}

// gets waits for what those who wait get, in whatever order.
func (g *guests) gets(want ...string) {
	g.t.Helper()
	got := g.consumed(len(want))
	slices.Sort(got)
	same(g.t, "the program got", got, want...)
	g.quiet()
}

// waits lets one of the program begin what it has to wait for, and returns when it does.
func (g *guests) waits(does func() error, who string, words ...any) {
	g.t.Helper()
	g.does(append([]any{"~" + who}, words...)...)
	eventually(g.t, does)
	g.quiet()
}

// ours begins something that has to wait, and returns when it does.
func (g *guests) ours(does func() error, f func() error) <-chan error {
	g.t.Helper()
	result := make(chan error, 1)
	go func() { result <- f() }()
	eventually(g.t, does)
	g.does("nobody", "ping")
	g.pending(result)
	return result
}

// pending fails if something is over that should wait.
func (g *guests) pending(result <-chan error) {
	g.t.Helper()
	select {
	case err := <-result:
		g.t.Fatalf("it did not wait: %v", err)
	default:
	}
}

// lined is met when so many znodes are in a directory.
func (g *guests) lined(dir string, n int) func() error {
	return func() error {
		names, _, err := g.s.Children(g.ctx, dir)
		if err != nil || len(names) != n {
			return fmt.Errorf("in line at %s: %q, %v, want %d", dir, names, err, n)
		}
		return nil
	}
}

// watching is met when somebody has set a further watch.
func (g *guests) watching() func() error {
	before := g.m.Stats().Watches
	return func() error {
		if now := g.m.Stats().Watches; now <= before {
			return fmt.Errorf("%d watches, as before", now)
		}
		return nil
	}
}

// stays creates a directory that is not reaped: kazoo creates it, once for each lock or barrier, and counts on it.
func (g *guests) stays(path string) {
	g.t.Helper()
	_, err := g.s.Create(g.ctx, path, nil, zk.Persistent)
	done(g.t, err)
}

// pass goes into a room, stays a moment, and goes out again; it returns who was in.
func (g *guests) pass(room, name string) ([]string, error) {
	name = room + "/" + name
	if _, err := g.s.Create(g.ctx, name, nil, zk.Persistent); err != nil {
		return nil, err
	}
	var errs [5]error
	for i := range 3 { // others who may come in do so meanwhile
		_, errs[i] = g.s.Set(g.ctx, name, nil, zk.AnyVersion)
	}
	in, _, err := g.s.Children(g.ctx, room)
	errs[3], errs[4] = err, g.s.Delete(g.ctx, name, zk.AnyVersion)
	return in, errors.Join(errs[:]...)
}

// contend goes through a room several times, under a right, together with others.
func (g *guests) contend(t *testing.T, wg *sync.WaitGroup, room, name string, acquire func(context.Context) (*recipes.Held, error), fits func(in []string) bool) {
	wg.Go(func() {
		for range roomTurns {
			h, err := acquire(g.ctx)
			if err != nil {
				t.Error(err)
				return
			}
			in, err := g.pass(room, name)
			if err != nil || !fits(in) {
				t.Errorf("%q are in at once, %v", in, err)
			}
			if err := h.Release(g.ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// roomTurns is how often each of those who contend goes through the room.
const roomTurns = 60

// alone is met by a room that has a writer.
func alone(in []string) bool { return len(in) == 1 }

// readers is met by a room that has readers.
func readers(in []string) bool {
	return !slices.ContainsFunc(in, func(name string) bool { return strings.HasPrefix(name, "w") })
}

// take acquires what is free.
func (g *guests) take(acquire func(context.Context) (*recipes.Held, error)) *recipes.Held {
	g.t.Helper()
	h, err := acquire(g.ctx)
	done(g.t, err)
	return h
}

// seek begins to acquire what is not free; the right is there once the result is.
func (g *guests) seek(does func() error, acquire func(context.Context) (*recipes.Held, error)) (<-chan error, **recipes.Held) {
	g.t.Helper()
	h := new(*recipes.Held)
	return g.ours(does, func() (err error) {
		*h, err = acquire(g.ctx)
		return err
	}), h
}

// busy fails if a try beside a holder was not refused.
func (g *guests) busy(err error) {
	g.t.Helper()
	if !errors.Is(err, recipes.ErrNotAcquired) {
		g.t.Errorf("a try beside a holder: %v", err)
	}
}

// Curator's locks, semaphores and elections, and ours, on the same paths, in both directions.
func TestSharedRightsCurator(t *testing.T) {
	path, version := curatorPath(t)
	g := invite(t, java(t, "RightsPeer", path, "java/Peer.java", "java/RightsPeer.java")...)
	ctx, m := g.ctx, g.m
	row := tried{t, newRow("read-write locks, semaphores, locks on several paths, revocation and elections, beside ours on the same paths")}
	row.row.client, row.row.version = "Curator", version

	g.run(row, "read_write_lock", func(t *testing.T) {
		l := recipes.NewRWLock(m, "/rw")
		w := g.take(l.Lock)
		g.waits(g.lined("/rw", 2), "r1", "read", "/rw")
		g.waits(g.lined("/rw", 3), "w1", "write", "/rw")
		g.waits(g.lined("/rw", 4), "r2", "read", "/rw")
		r3, h3 := g.seek(g.lined("/rw", 5), l.RLock)
		w2, h2 := g.seek(g.lined("/rw", 6), l.Lock)
		done(t, w.Release(ctx))
		g.gets("r1=")
		g.does("r1", "release")
		g.gets("w1=") // RW-L1
		g.pending(r3)
		g.does("w1", "release")
		g.gets("r2=")
		done(t, <-r3)
		g.pending(w2) // RW-S1
		g.does("r2", "release")
		g.pending(w2)
		done(t, (*h3).Release(ctx), <-w2)
		_, err := l.TryRLock(ctx)
		g.busy(err)
		if got := g.does("w1", "try-write", "/rw"); got != "false" {
			t.Errorf("Curator's writer beside ours: %s", got)
		}

		// Who has turned a writer into a reader keeps out writers that came before that.
		g.waits(g.lined("/rw", 2), "w3", "write", "/rw")
		read, err := l.Downgrade(ctx, *h2)
		done(t, err)
		g.quiet() // RW-S2
		done(t, read.Release(ctx))
		g.gets("w3=")
		g.does("w3", "downgrade", "/rw") // with nobody in line: that of 5.4.0 goes to its end (CURATOR-621)
		h := g.take(l.RLock)
		w4, h4 := g.seek(g.lined("/rw", 3), l.Lock)
		done(t, h.Release(ctx))
		g.pending(w4)
		g.does("w3", "release")
		done(t, <-w4, (*h4).Release(ctx))
		g.does("r1", "read", "/rw")
		_, err = l.TryLock(ctx)
		g.busy(err)
		g.does("r1", "release")
	})

	g.run(row, "read_write_lock_contended", func(t *testing.T) {
		g.stays("/room")
		var wg sync.WaitGroup
		first := g.take(recipes.NewRWLock(m, "/rw").Lock)
		for i := range 3 {
			g.does(fmt.Sprint("~c", i), "contend-rw", "/rw", "/room", roomTurns)
			l := recipes.NewRWLock(m, "/rw")
			if i == 0 {
				g.contend(t, &wg, "/room", "wus", l.Lock, alone)
			} else {
				g.contend(t, &wg, "/room", fmt.Sprint("rus", i), l.RLock, readers)
			}
		}
		eventually(t, g.lined("/rw", 7))
		done(t, first.Release(ctx))
		wg.Wait()
		g.gets("c0=", "c1=", "c2=")
	})

	g.run(row, "semaphore", func(t *testing.T) {
		sem := recipes.NewSemaphore(m, "/sem", 2)
		a := g.take(sem.Acquire)
		g.does("l1", "lease", "/sem", 2, 1)
		_, err := sem.TryAcquire(ctx)
		g.busy(err) // SEM-S1
		if got := g.does("l2", "try-lease", "/sem", 2); got != "false" {
			t.Errorf("Curator's third of two: %s", got)
		}
		g.waits(g.lined("/sem/leases", 3), "l2", "lease", "/sem", 2, 1) // it has a lease, which does not hold yet
		b, hb := g.seek(g.lined("/sem/locks", 2), sem.Acquire)
		done(t, a.Release(ctx))
		g.gets("l2=") // SEM-L1
		g.pending(b)
		g.does("l1", "release")
		done(t, <-b)
		if list, err := sem.Holders(ctx); err != nil || len(list) != 2 {
			t.Errorf("holders %v, %v", list, err)
		}
		both, hboth := g.seek(g.lined("/sem/locks", 1), func(ctx context.Context) (*recipes.Held, error) { return sem.AcquireN(ctx, 2) })
		done(t, (*hb).Release(ctx))
		g.quiet()
		g.pending(both) // SEM-S2
		g.does("l2", "release")
		done(t, <-both)
		g.waits(g.lined("/sem/leases", 3), "l3", "lease", "/sem", 2, 2)
		done(t, (*hboth).Release(ctx))
		g.gets("l3=")
		c, hc := g.seek(g.lined("/sem/locks", 1), sem.Acquire)
		g.does("l3", "release")
		done(t, <-c, (*hc).Release(ctx))
	})

	g.run(row, "semaphore_of_one", func(t *testing.T) { // Curator's InterProcessSemaphoreMutex
		one := recipes.NewSemaphore(m, "/one", 1)
		g.does("s1", "semaphore-mutex", "/one")
		_, err := one.TryAcquire(ctx)
		g.busy(err)
		got, h := g.seek(g.lined("/one/locks", 1), one.Acquire)
		g.does("s1", "release")
		done(t, <-got)
		g.waits(g.lined("/one/leases", 2), "s2", "semaphore-mutex", "/one") // its lease does not hold yet
		done(t, (*h).Release(ctx))
		g.gets("s2=")
		g.does("s2", "release")
	})

	g.run(row, "semaphore_contended", func(t *testing.T) {
		g.stays("/leases")
		var wg sync.WaitGroup
		first, err := recipes.NewSemaphore(m, "/sem", 2).AcquireN(ctx, 2)
		done(t, err)
		for i := range 3 {
			g.does(fmt.Sprint("~c", i), "contend-lease", "/sem", "/leases", roomTurns, 2)
			g.contend(t, &wg, "/leases", fmt.Sprint("us", i), recipes.NewSemaphore(m, "/sem", 2).Acquire, func(in []string) bool { return len(in) <= 2 })
		}
		eventually(t, g.lined("/sem/locks", 6))
		done(t, first.Release(ctx))
		wg.Wait()
		g.gets("c0=", "c1=", "c2=")
	})

	g.run(row, "locks_on_several_paths", func(t *testing.T) {
		all := func(ctx context.Context) (*recipes.Held, error) {
			return recipes.LockAll(ctx, m, "/multi-b", "/multi-a")
		}
		g.does("m1", "multi", "/multi-a", "/multi-b")
		got, h := g.seek(g.lined("/multi-b", 2), all)
		g.does("m1", "release")
		done(t, <-got)
		g.waits(g.lined("/multi-b", 2), "m2", "multi", "/multi-b", "/multi-a")
		g.waits(g.lined("/multi-a", 2), "x", "mutex", "/multi-a")
		done(t, (*h).Release(ctx)) // MULTI-S1
		g.gets("x=")
		eventually(t, g.lined("/multi-a", 2)) // otherwise it could come after us there, and before us on the other path
		got, h = g.seek(g.lined("/multi-b", 2), all)
		g.does("x", "release")
		g.gets("m2=")
		g.pending(got)
		g.does("m2", "release")
		done(t, <-got, (*h).Release(ctx))
	})

	g.run(row, "revocation", func(t *testing.T) {
		l := recipes.NewLock(m, "/asked")
		g.does("m1", "mutex", "/asked")
		line, err := l.Contenders(ctx)
		if err != nil || len(line) != 1 {
			t.Fatalf("%v, %v", line, err)
		}
		done(t, recipes.Revoke(ctx, m, line[0]))
		g.gets("m1=asked")
		got, h := g.seek(g.lined("/asked", 2), l.Acquire) // REV-S1
		g.does("m1", "release")
		done(t, <-got)
		g.does("x", "revoke", (*h).Path())
		select {
		case <-(*h).Revoked(): // REV-L1
		case <-ctx.Done():
			t.Error("Curator's wish is not heard")
		}
		done(t, (*h).Err(), (*h).Release(ctx))
	})

	elections := func(name string, layout recipes.Layout, verb, who string) {
		g.run(row, name, func(t *testing.T) {
			e := recipes.NewElection(m, "/"+verb)
			e.Layout = layout
			leader := func() string {
				l, err := e.Leader(ctx)
				if err != nil && !errors.Is(err, recipes.ErrNoLeader) {
					t.Fatal(err)
				}
				return string(l.Value)
			}
			campaign := func(ctx context.Context) (*recipes.Held, error) {
				l, err := e.Campaign(ctx, []byte("us"))
				if err != nil {
					return nil, err
				}
				return l.Held, nil
			}
			us := g.take(campaign)
			g.waits(g.lined("/"+verb, 2), "c1", verb, "/"+verb, "curator")
			if got := g.does("x", who, "/"+verb); got != "*us,curator" && got != "us" {
				t.Errorf("Curator sees %s", got)
			}
			done(t, us.Release(ctx))
			g.gets("c1=")
			becomes(t, "the leader", "curator", leader)
			got, h := g.seek(g.lined("/"+verb, 2), campaign)
			g.does("c1", "release")
			done(t, <-got)
			becomes(t, "the leader", "us", leader)
			done(t, (*h).Release(ctx))
		})
	}
	elections("leader_latch", recipes.Curator, "latch", "latches")
	elections("leader_selector", recipes.Selector, "select", "selected")
}

// kazoo's read-write locks and elections, and ours, on the same paths. Its readers wait for writers that came after them
// as well (kazoo #649), and those for them: nobody may ask for a write lock while a reader of kazoo's waits.
func TestSharedRightsKazoo(t *testing.T) {
	g := inviteKazoo(t)
	ctx, m := g.ctx, g.m
	row := tried{t, newRow("read-write locks and elections, beside ours on the same paths")}
	row.row.client, row.row.version = "kazoo", g.does("x", "version")

	g.run(row, "read_write_lock", func(t *testing.T) {
		g.stays("/rw")
		l := recipes.NewRWLock(m, "/rw")
		l.Layout = recipes.Kazoo
		w := g.take(l.Lock)
		g.waits(g.lined("/rw", 2), "r1", "read", "/rw")
		r2, h2 := g.seek(g.lined("/rw", 3), l.RLock)
		if got := g.does("x", "try-write", "/rw"); got != "False" {
			t.Errorf("kazoo's writer beside ours: %s", got)
		}
		done(t, w.Release(ctx), <-r2)
		g.gets("r1=")
		_, err := l.TryLock(ctx)
		g.busy(err)
		g.waits(g.lined("/rw", 3), "w1", "write", "/rw")
		g.does("r1", "release")
		g.quiet()
		_, err = l.TryRLock(ctx)
		g.busy(err)
		done(t, (*h2).Release(ctx))
		g.gets("w1=") // RW-S1
		r3, h3 := g.seek(g.lined("/rw", 2), l.RLock)
		w3, hw := g.seek(g.lined("/rw", 3), l.Lock)
		g.does("w1", "release")
		done(t, <-r3)
		g.pending(w3)
		done(t, (*h3).Release(ctx), <-w3)
		g.waits(g.lined("/rw", 2), "w4", "write", "/rw")
		read, err := l.Downgrade(ctx, *hw)
		done(t, err)
		g.quiet() // RW-S2
		done(t, read.Release(ctx))
		g.gets("w4=")
		g.does("w4", "release")
		g.does("r1", "read", "/rw")
		w5, h5 := g.seek(g.lined("/rw", 2), l.Lock)
		g.does("r1", "release")
		done(t, <-w5, (*h5).Release(ctx))
	})

	g.run(row, "writers_contended", func(t *testing.T) {
		g.stays("/room")
		var wg sync.WaitGroup
		first := g.take((&recipes.RWLock{Session: m, Path: "/rw", Layout: recipes.Kazoo}).Lock)
		g.does("~k", "contend", "/rw", "/room", roomTurns)
		for i := range 3 {
			l := recipes.NewRWLock(m, "/rw")
			l.Layout = recipes.Kazoo
			if i == 0 {
				g.contend(t, &wg, "/room", "wus", l.Lock, alone)
			} else {
				g.contend(t, &wg, "/room", fmt.Sprint("rus", i), l.RLock, readers)
			}
		}
		eventually(t, g.lined("/rw", 5))
		done(t, first.Release(ctx))
		wg.Wait()
		g.gets("k=")
	})

	g.run(row, "election", func(t *testing.T) {
		g.stays("/lead")
		e := recipes.NewElection(m, "/lead")
		e.Layout = recipes.Kazoo
		us, err := e.Campaign(ctx, []byte("us"))
		done(t, err)
		g.does("k", "lead", "/lead", "kazoo")
		eventually(t, g.lined("/lead", 2))
		g.quiet()
		if got := g.does("x", "candidates", "/lead"); got != "us,kazoo" {
			t.Errorf("kazoo sees %s", got)
		}
		done(t, us.Resign(ctx))
		g.gets("k=leads")
		if l, err := e.Leader(ctx); err != nil || string(l.Value) != "kazoo" {
			t.Errorf("the leader is %q, %v", l.Value, err)
		}
		var again *recipes.Leadership
		won := g.ours(g.lined("/lead", 2), func() (err error) {
			again, err = e.Campaign(ctx, []byte("us"))
			return err
		})
		g.does("k", "release")
		done(t, <-won, again.Resign(ctx))
	})
}
