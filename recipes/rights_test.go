// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// call is a way to get a right.
type call = func(ctx context.Context) (*recipes.Held, error)

// exclusion is a recipe in use by two who keep each other out: what the one holds the other has to wait for.
type exclusion struct {
	name         string
	holds, waits func(s *zk.Session) call
	tries        func(s *zk.Session) call // what waits, without waiting; may be nil
	znodes       [2]int                   // of who holds, and of who waits
	line         string                   // where a foreign child may be
}

func rwLock(s *zk.Session) *recipes.RWLock { return recipes.NewRWLock(s, "/app/lock/rw") }

func semaphore(s *zk.Session, limit int) *recipes.Semaphore {
	return recipes.NewSemaphore(s, "/app/lock/sem", limit)
}

func lockAll(s *zk.Session, paths ...string) call {
	return func(ctx context.Context) (*recipes.Held, error) { return recipes.LockAll(ctx, s, paths...) }
}

func units(s *zk.Session, limit, n int) call {
	return func(ctx context.Context) (*recipes.Held, error) { return semaphore(s, limit).AcquireN(ctx, n) }
}

var exclusions = []exclusion{
	{
		name:   "a reader waits for a writer",
		holds:  func(s *zk.Session) call { return rwLock(s).Lock },
		waits:  func(s *zk.Session) call { return rwLock(s).RLock },
		tries:  func(s *zk.Session) call { return rwLock(s).TryRLock },
		znodes: [2]int{1, 1}, line: "/app/lock/rw",
	},
	{
		name:   "a writer waits for a reader",
		holds:  func(s *zk.Session) call { return rwLock(s).RLock },
		waits:  func(s *zk.Session) call { return rwLock(s).Lock },
		tries:  func(s *zk.Session) call { return rwLock(s).TryLock },
		znodes: [2]int{1, 1}, line: "/app/lock/rw",
	},
	{
		name: "a writer waits for one that was downgraded",
		holds: func(s *zk.Session) call {
			return func(ctx context.Context) (*recipes.Held, error) {
				h, err := rwLock(s).Lock(ctx)
				if err != nil {
					return nil, err
				}
				return rwLock(s).Downgrade(ctx, h)
			}
		},
		waits:  func(s *zk.Session) call { return rwLock(s).Lock },
		tries:  func(s *zk.Session) call { return rwLock(s).TryLock },
		znodes: [2]int{1, 1}, line: "/app/lock/rw",
	},
	{
		name:   "all locks wait for one of them",
		holds:  func(s *zk.Session) call { return lockAll(s, "/app/lock/a", "/app/lock/c") },
		waits:  func(s *zk.Session) call { return lockAll(s, "/app/lock/d", "/app/lock/b", "/app/lock/c") },
		znodes: [2]int{2, 3}, line: "/app/lock/c",
	},
	{
		name:   "a semaphore of one",
		holds:  func(s *zk.Session) call { return semaphore(s, 1).Acquire },
		waits:  func(s *zk.Session) call { return semaphore(s, 1).Acquire },
		tries:  func(s *zk.Session) call { return semaphore(s, 1).TryAcquire },
		znodes: [2]int{1, 1}, line: "/app/lock/sem/locks",
	},
	{
		name:   "several units of a semaphore",
		holds:  func(s *zk.Session) call { return units(s, 4, 3) },
		waits:  func(s *zk.Session) call { return units(s, 4, 2) },
		znodes: [2]int{3, 1}, line: "/app/lock/sem/locks",
	},
}

// joins starts a call and returns once its znodes stand in line.
func (sc *scene) joins(t *testing.T, ctx context.Context, i, znodes int, fn call) <-chan attempt {
	t.Helper()
	must(t, sc.c.Quiesce(ctx))
	n := sc.c.Member(sc.at[i]).Stats().Ephemerals
	done := start(ctx, fn)
	eventually(t, "nobody has joined the line", func() bool { return sc.c.Member(sc.at[i]).Stats().Ephemerals >= n+znodes })
	synctest.Wait()
	return done
}

// znodes are the ephemerals of session i, by path, as the ensemble has them.
func (sc *scene) znodes(t *testing.T, ctx context.Context, i int) (list []zk.Znode) {
	t.Helper()
	must(t, sc.s[1].Sync(ctx))
	must(t, sc.c.Member(sc.at[1]).View(ctx, func(v *zk.View) error {
		for z, err := range v.Walk("/") {
			if err != nil {
				return err
			}
			if z.Stat.EphemeralOwner == sc.s[i].ID() {
				list = append(list, z)
			}
		}
		return nil
	}))
	return list
}

func (sc *scene) none(t *testing.T, ctx context.Context, i int) {
	t.Helper()
	eventually(t, "something of it is left", func() bool { return len(sc.znodes(t, ctx, i)) == 0 })
}

// rightReactions is the table "What happens by default" of docs/spec/recipes.md, for everybody who waits and holds. The
// first session is the one that something happens to.
var rightReactions = []struct {
	event string
	who   string
	fn    func(t *testing.T, ctx context.Context, sc *scene, x exclusion)
}{
	{"session suspended", "waits", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[1])))
		next := sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
		place := sc.znodes(t, ctx, 0)
		sc.suspend(t, 0)
		waiting(t, next)
		sc.c.Heal()
		sc.active(t, 0)
		waiting(t, next)
		if now := sc.znodes(t, ctx, 0); len(now) != len(place) || now[0].Path != place[0].Path {
			t.Fatalf("in line: %+v", now)
		}
		must(t, h.Release(ctx))
		must(t, granted(t, next).Release(ctx))
	}},
	{"session suspended", "is next", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[1])))
		next := sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
		l := sc.at[1]
		if sc.c.Member(sc.at[2]).Role() == zk.RoleLeader {
			l = sc.at[2]
		}
		sc.c.Network().Cut(zktest.Name(sc.at[0]), zktest.Name(l)) // its heartbeats do not arrive, what is committed does
		eventually(t, "not suspended", func() bool { return sc.s[0].State() == zk.StateSuspended })
		must(t, h.Release(ctx))
		waiting(t, next)
		sc.c.Heal()
		must(t, granted(t, next).Release(ctx))
	}},
	{"session suspended", "holds", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[0])))
		next := sc.joins(t, ctx, 1, x.znodes[1], x.waits(sc.s[1]))
		sc.suspend(t, 0)
		isLost(t, h, zk.ErrSuspended)
		waiting(t, next)
		sc.c.Heal()
		sc.active(t, 0)
		must(t, sc.s[0].Err())
		isLost(t, h, zk.ErrSuspended) // for good
		must(t, granted(t, next).Release(ctx))
		sc.none(t, ctx, 0)
	}},
	{"session expired", "waits", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[1])))
		next := sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
		must(t, sc.c.Expire(ctx, sc.s[0]))
		synctest.Wait()
		select {
		case a := <-next: // PEER-09: at once, no time has passed since
			wants(t, a.err, zk.ErrSessionExpired) // PEER-08
		default:
			t.Fatal("it waits although its session is over")
		}
		isHeld(t, h)
		must(t, h.Release(ctx))
	}},
	{"session expired", "holds", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[0])))
		lostAt := stopwatch(h.Lost())
		next := sc.joins(t, ctx, 1, x.znodes[1], x.waits(sc.s[1]))
		over := sc.c.Expire(ctx, sc.s[0])
		a := soon(t, "not granted", next)
		must(t, errors.Join(over, a.err))
		if end := lostAt(); end.After(a.at) { // HELD-S1, PEER-01
			t.Fatalf("granted at %v, lost at %v", a.at, end)
		}
		isLost(t, h, zk.ErrSuspended)
		if a.h.Token() <= h.Token() { // HELD-S2
			t.Errorf("token %v after %v", a.h.Token(), h.Token())
		}
		must(t, h.Release(ctx)) // PEER-28: there is nothing to release, and that is no error
		must(t, a.h.Release(ctx))
	}},
	{"leader changes", "both", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[0])))
		next := sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
		watches := sc.c.Member(sc.at[0]).Stats().Watches
		for range 3 {
			must(t, sc.c.Member(sc.at[0]).TransferLeadership(ctx, ""))
			waiting(t, next)
			isHeld(t, h)
			must(t, h.Verify(ctx))
		}
		if n := sc.c.Member(sc.at[0]).Stats().Watches; n != watches { // E12
			t.Errorf("%d watches were %d", n, watches)
		}
		must(t, h.Release(ctx))
		must(t, granted(t, next).Release(ctx))
	}},
	{"leader crashes", "holds", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		s, err := sc.c.Member(sc.at[0]).NewSession(ctx, zk.SessionConfig{Timeout: 10 * time.Second}) // elections take less
		must(t, err)
		h := granted(t, start(ctx, x.holds(s)))
		l := leader(t, ctx, sc.c)
		must(t, sc.c.Crash(l))
		leader(t, ctx, sc.c)
		must(t, h.Verify(ctx))
		isHeld(t, h)
		must(t, sc.c.Restart(ctx, l))
		must(t, sc.c.Member(l).Ready(ctx))
		isHeld(t, h)
		must(t, h.Release(ctx))
	}},
	{"no quorum", "waits", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[1])))
		next := sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
		sc.c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(30 * time.Second)
		if sc.s[0].State() != zk.StateSuspended {
			t.Fatal(sc.s[0].State())
		}
		waiting(t, next)
		sc.c.Heal()
		must(t, h.Release(ctx))
		must(t, granted(t, next).Release(ctx)) // PEER-13
	}},
	{"no quorum", "holds", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[0])))
		next := sc.joins(t, ctx, 1, x.znodes[1], x.waits(sc.s[1]))
		sc.c.Partition([]int{0}, []int{1}, []int{2})
		soon(t, "not lost", h.Lost())
		isLost(t, h, zk.ErrSuspended)
		waiting(t, next)
		sc.c.Heal()
		must(t, granted(t, next).Release(ctx))
	}},
	{"ctx ends", "waits", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		for _, cut := range []bool{false, true} {
			h := granted(t, start(ctx, x.holds(sc.s[1])))
			some, cancel := context.WithCancelCause(ctx)
			next := sc.joins(t, some, 0, x.znodes[1], x.waits(sc.s[0]))
			after := sc.joins(t, ctx, 2, x.znodes[1], x.waits(sc.s[2]))
			if cut {
				sc.c.Isolate(sc.at[0])
			}
			cancel(zk.ErrNotMember)
			began := time.Now()
			a := soon(t, "still waiting", next)
			wants(t, a.err, context.Canceled, zk.ErrNotMember) // PEER-10, PEER-17
			if a.at != began {
				t.Error("time had to pass")
			}
			waiting(t, after)
			must(t, h.Release(ctx))
			if cut {
				sc.c.Heal()
			}
			must(t, granted(t, after).Release(ctx)) // PEER-07, PEER-29: nothing of it is in anybody's way
			sc.none(t, ctx, 0)
		}
	}},
	{"ctx ends", "holds", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		some, cancel := context.WithCancel(ctx)
		h := granted(t, start(some, x.holds(sc.s[0])))
		cancel()
		time.Sleep(time.Minute)
		isHeld(t, h)
		must(t, h.Verify(ctx))
		must(t, h.Release(ctx))
	}},
	{"holder's process dies", "waits", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		granted(t, start(ctx, x.holds(sc.s[0])))
		next := sc.joins(t, ctx, 1, x.znodes[1], x.waits(sc.s[1]))
		began := time.Now()
		must(t, sc.c.Crash(sc.at[0]))
		h := granted(t, next)
		if took := time.Since(began); took < sc.s[0].Timeout()/2 || took > 3*sc.s[0].Timeout() {
			t.Errorf("granted after %v, its timeout is %v", took, sc.s[0].Timeout())
		}
		must(t, h.Release(ctx))
	}},
	{"waiter's process dies", "waits behind", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[1])))
		sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
		after := sc.joins(t, ctx, 2, x.znodes[1], x.waits(sc.s[2]))
		must(t, sc.c.Crash(sc.at[0]))
		must(t, h.Release(ctx))
		must(t, granted(t, after).Release(ctx))
	}},
	{"holder's session closes", "both", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[0])))
		next := sc.joins(t, ctx, 1, x.znodes[1], x.waits(sc.s[1]))
		began := time.Now()
		must(t, sc.s[0].Close())
		isLost(t, h, zk.ErrClosed)
		n := granted(t, next)
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("granted after %v", took)
		}
		must(t, n.Release(ctx))
	}},
	{"waiter's session closes", "waits", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[1])))
		next := sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
		must(t, sc.s[0].Close())
		wants(t, soon(t, "still waiting", next).err, zk.ErrClosed)
		must(t, h.Release(ctx))
	}},
	{"operator deletes a znode", "waits", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		for i := range x.znodes[1] {
			h := granted(t, start(ctx, x.holds(sc.s[1])))
			next := sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
			must(t, sc.s[1].Delete(ctx, sc.znodes(t, ctx, 0)[i].Path, zk.AnyVersion))
			wants(t, soon(t, "still waiting", next).err, recipes.ErrBroken)
			isHeld(t, h)
			sc.none(t, ctx, 0) // nothing of it is left, and it did not join again at the end
			must(t, h.Release(ctx))
		}
	}},
	{"operator deletes a znode", "holds", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		for i := range x.znodes[0] {
			h := granted(t, start(ctx, x.holds(sc.s[0])))
			next := sc.joins(t, ctx, 1, x.znodes[1], x.waits(sc.s[1]))
			must(t, sc.s[0].Delete(ctx, sc.znodes(t, ctx, 0)[i].Path, zk.AnyVersion)) // answered once it is applied here
			isLost(t, h, zk.ErrNoNode)                                                // HELD-L1
			_, err := sc.s[1].Txn(ctx, h.Guards()...)
			wants(t, err, zk.ErrGuard) // HELD-S3: of whichever znode
			wants(t, h.Verify(ctx), recipes.ErrLost)
			n := granted(t, next)       // what is left of it was deleted too
			if n.Token() <= h.Token() { // HELD-S2
				t.Errorf("token %v after %v", n.Token(), h.Token())
			}
			sc.none(t, ctx, 0)
			must(t, h.Release(ctx))
			isHeld(t, n) // HELD-S4
			must(t, n.Release(ctx))
		}
	}},
	{"operator deletes the parent", "both", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[0])))
		next := sc.joins(t, ctx, 1, x.znodes[1], x.waits(sc.s[1]))
		must(t, sc.s[0].DeleteTree(ctx, "/app"))
		isLost(t, h, zk.ErrNoNode)
		wants(t, soon(t, "still waiting", next).err, recipes.ErrBroken)
		n := granted(t, start(ctx, x.holds(sc.s[0])))
		if n.Token() <= h.Token() { // HELD-S2: sequence numbers begin again, tokens do not
			t.Errorf("token %v after %v", n.Token(), h.Token())
		}
		must(t, n.Release(ctx))
	}},
	{"foreign child", "both", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		foreign := func(name string) { // PEER-15
			_, err := sc.s[2].Create(ctx, x.line+"/"+name, nil, zk.Ephemeral|zk.Sequential|zk.Parents)
			must(t, err)
		}
		foreign("x-")
		h := granted(t, start(ctx, x.holds(sc.s[0])))
		foreign("_c_")
		next := sc.joins(t, ctx, 1, x.znodes[1], x.waits(sc.s[1]))
		foreign("lock-")
		isHeld(t, h)
		must(t, h.Release(ctx))
		must(t, granted(t, next).Release(ctx))
		if x.tries != nil {
			h := granted(t, start(ctx, x.tries(sc.s[1])))
			must(t, h.Release(ctx))
			h = granted(t, start(ctx, x.holds(sc.s[0])))
			must(t, sc.c.Quiesce(ctx))
			_, err := x.tries(sc.s[1])(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			sc.none(t, ctx, 1)
			must(t, h.Release(ctx))
		}
		must(t, sc.s[2].Close())
	}},
	{"snapshot installed", "both", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		h := granted(t, start(ctx, x.holds(sc.s[1])))
		next := sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
		leaveBehind(t, ctx, sc.c, sc.at[0], sc.s[1], func() { must(t, h.Release(ctx)) })
		sc.c.Heal()
		must(t, granted(t, next).Release(ctx)) // E8: it was the release that the snapshot brought
	}},
	{"restored from a backup", "both", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		before := granted(t, start(ctx, x.holds(sc.s[1])))
		must(t, sc.c.Quiesce(ctx))
		var backup bytes.Buffer
		_, err := sc.c.Member(sc.at[1]).Backup(ctx, &backup)
		must(t, err)
		next := sc.joins(t, ctx, 0, x.znodes[1], x.waits(sc.s[0]))
		must(t, sc.c.Member(sc.at[2]).Restore(ctx, &backup))
		wants(t, soon(t, "still waiting", next).err, zk.ErrSessionExpired) // all sessions end
		soon(t, "not lost", before.Lost())
		wants(t, before.Err(), recipes.ErrLost) // by its znode's end or its session's, whichever is heard of first
		for _, s := range sc.s {
			wants(t, soon(t, "still alive", start(ctx, x.waits(s))).err, zk.ErrSessionExpired)
		}
		s, err := sc.c.Member(sc.at[1]).Session(ctx)
		must(t, err)
		n := granted(t, start(ctx, x.holds(s))) // the backup's ephemerals do not come back: nobody is in the way
		if n.Token() <= before.Token() {        // HELD-S2
			t.Errorf("token %v after %v", n.Token(), before.Token())
		}
		_, err = s.Txn(ctx, before.Guards()...)
		wants(t, err, zk.ErrGuard) // HELD-S3
		must(t, before.Release(ctx))
		must(t, n.Verify(ctx)) // HELD-S4
		must(t, n.Release(ctx))
	}},
	{"whole ensemble restarts", "both", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		granted(t, start(ctx, x.holds(sc.s[0])))
		sc.joins(t, ctx, 1, x.znodes[1], x.waits(sc.s[1]))
		for _, m := range sc.at {
			must(t, sc.c.Crash(m))
		}
		for _, m := range sc.at {
			must(t, sc.c.Restart(ctx, m))
		}
		for _, m := range sc.at {
			must(t, sc.c.Member(m).Ready(ctx))
		}
		h := granted(t, start(ctx, x.waits(session(t, ctx, sc.c.Member(sc.at[1]))))) // PEER-33: what the dead held comes back
		must(t, h.Release(ctx))
	}},
	{"free or not", "tries", func(t *testing.T, ctx context.Context, sc *scene, x exclusion) {
		if x.tries == nil {
			return
		}
		for range 2 {
			h := granted(t, start(ctx, x.holds(sc.s[1])))
			must(t, sc.c.Quiesce(ctx))
			writes := sc.c.Member(sc.at[0]).Stats().Writes
			_, err := x.tries(sc.s[0])(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			if n := sc.c.Member(sc.at[0]).Stats().Writes - writes; n != 0 { // LOCK-S3, PEER-06: nothing to leave behind
				t.Errorf("%d writes", n)
			}
			must(t, h.Release(ctx))
			h = granted(t, start(ctx, x.tries(sc.s[0])))
			must(t, h.Release(ctx))
		}
	}},
}

// some picks of a table of recipes by a table of events what is run with -short: each event with one recipe, in turn.
func some(recipe, event int) bool { return !testing.Short() || (recipe+event)%len(exclusions) == 0 }

func TestRightReactions(t *testing.T) {
	for i, x := range exclusions {
		for j, r := range rightReactions {
			if !some(i, j) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s, who %s", x.name, r.event, r.who), func(t *testing.T) {
				onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
					r.fn(t, ctx, sc, x)
				})
			})
		}
	}
}

// Wherever a context ends, there is a right or an error, and with the error nothing else (PEER-10, PEER-29).
func TestRightCancelledAtEachStep(t *testing.T) {
	step := 1500 * time.Microsecond
	if testing.Short() {
		step *= 5
	}
	for _, x := range exclusions {
		t.Run(x.name, func(t *testing.T) {
			onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
				for _, busy := range []bool{false, true} {
					for _, get := range []func(*zk.Session) call{x.holds, x.waits, x.tries} {
						if get == nil {
							continue
						}
						var h *recipes.Held
						if busy {
							h = granted(t, start(ctx, x.holds(sc.s[1])))
						}
						sc.c.Network().Latency(2*time.Millisecond, 2*time.Millisecond)
						outcomes := map[bool]int{}
						for d := time.Duration(0); d < 60*time.Millisecond; d += step {
							some, cancel := context.WithTimeout(ctx, d)
							got, err := get(sc.s[0])(some)
							cancel()
							if (got == nil) == (err == nil) { // PEER-10
								t.Fatalf("cut after %v: %v and %v", d, got, err)
							}
							if err == nil {
								must(t, got.Release(ctx))
							} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, recipes.ErrNotAcquired) {
								t.Fatalf("cut after %v: %v", d, err)
							}
							outcomes[err == nil]++
						}
						sc.c.Heal()
						if outcomes[false] == 0 || !busy && outcomes[true] == 0 {
							t.Errorf("outcomes %v", outcomes)
						}
						sc.none(t, ctx, 0) // PEER-29, SEM-L2: neither a place in line nor a lease
						if busy {
							must(t, h.Verify(ctx))
							must(t, h.Release(ctx))
						}
					}
				}
			})
		})
	}
}

// Whatever answer is lost, there is one contender, and the call knows of it (PEER-04).
func TestRightLostAnswers(t *testing.T) {
	for _, x := range exclusions {
		t.Run(x.name, func(t *testing.T) {
			onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
				for n := range 4 {
					sc.c.DropForwards(sc.at[0], n)
					h, err := x.holds(sc.s[0])(ctx)
					must(t, err)
					must(t, sc.c.Quiesce(ctx))
					if list := sc.znodes(t, ctx, 0); len(list) != x.znodes[0] { // PEER-04, E1
						t.Fatalf("%d answers lost: %+v", n, list)
					}
					sc.c.DropForwards(sc.at[0], n)
					must(t, h.Release(ctx))
					sc.c.DropForwards(sc.at[0], 0)
					sc.none(t, ctx, 0)
				}
			})
		})
	}
}

// rightFaults is what goes wrong while a call is under way. The first session is the victim; the third one's member leads.
var rightFaults = map[string]func(t *testing.T, ctx context.Context, sc *scene, r *rand.Rand){
	"delete a znode": func(t *testing.T, ctx context.Context, sc *scene, r *rand.Rand) {
		if list := sc.znodes(t, ctx, 0); len(list) > 0 {
			z := list[r.IntN(len(list))]
			must(t, recipes.NewLock(sc.s[1], "/x").Break(ctx, recipes.Contender{Path: z.Path, Token: zk.Token(z.Stat.Czxid)}))
		}
	},
}

func init() {
	for name, fault := range lockFaults {
		if name != "delete its znode" {
			rightFaults[name] = fault
		}
	}
}

// Whatever goes wrong at whatever step of whichever call: there is a right or an error, a right that was got is not valid
// beside another, whoever waits is let in, and nothing is left (PEER-05, PEER-10, PEER-29).
func TestRightFaults(t *testing.T) {
	rounds := size(20, 3)
	if testing.Short() {
		rounds = 1
	}
	for i, x := range exclusions {
		for j, name := range slices.Sorted(maps.Keys(rightFaults)) {
			fault := rightFaults[name]
			if !some(i, j) {
				continue
			}
			t.Run(x.name+"/"+name, func(t *testing.T) {
				bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 3 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
					operator := strings.HasPrefix(name, "delete")
					for round := range 4 * rounds {
						what := []string{"hold", "wait", "wait for who leaves", "release"}[round%4]
						r := rand.New(rand.NewPCG(uint64(round), uint64(len(name)+100*len(x.name))))
						at := follower(t, ctx, c)
						sc := &scene{c: c, at: [3]int{at, (at + 1) % 3, (at + 2) % 3}}
						if leader(t, ctx, c) == sc.at[1] {
							sc.at[1], sc.at[2] = sc.at[2], sc.at[1]
						}
						for i := range sc.s {
							s, err := c.Member(sc.at[min(i, 1)]).NewSession(ctx, zk.SessionConfig{Timeout: time.Duration(min(i, 1)) * time.Minute})
							must(t, err)
							sc.s[i] = s
						}
						var rival, mine *recipes.Held
						call := x.holds(sc.s[0])
						switch what {
						case "wait", "wait for who leaves":
							call, rival = x.waits(sc.s[0]), granted(t, start(ctx, x.holds(sc.s[1])))
						case "release":
							mine = granted(t, start(ctx, x.holds(sc.s[0])))
							call = func(ctx context.Context) (*recipes.Held, error) { return nil, mine.Release(ctx) }
						}
						must(t, c.Quiesce(ctx))
						c.Network().Latency(0, 3*time.Millisecond)
						some, cancel := context.WithCancel(ctx)
						done := start(some, call)
						time.Sleep(time.Duration(r.IntN(15000)) * time.Microsecond)
						if what == "wait for who leaves" { // at any step
							left := start(ctx, func(ctx context.Context) (*recipes.Held, error) { return nil, rival.Release(ctx) })
							time.Sleep(time.Duration(r.IntN(15000)) * time.Microsecond)
							defer func() { must(t, soon(t, "not released", left).err) }()
						}
						if fault == nil {
							cancel()
						} else {
							fault(t, ctx, sc, r)
						}
						c.Heal()
						if rival != nil {
							must(t, rival.Release(ctx))
						}
						a := soon(t, what+" hangs", done)
						cancel()
						if what != "release" && (a.h == nil) == (a.err == nil) { // PEER-10
							t.Fatalf("%v and %v", a.h, a.err)
						}
						if err := a.err; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, zk.ErrSessionExpired) &&
							!(operator && (errors.Is(err, recipes.ErrBroken) || errors.Is(err, recipes.ErrLost))) {
							t.Errorf("%s: %v", what, err)
						}
						if mine != nil && mine.Valid() { // HELD-S5
							t.Error("released and valid")
						}
						must(t, c.Quiesce(ctx))
						if a.h != nil && a.h.Valid() {
							must(t, a.h.Verify(ctx))
						}
						next := start(ctx, x.waits(sc.s[1]))
						if a.h != nil {
							if a.h.Valid() && what == "hold" {
								waiting(t, next) // HELD-S1
							}
							must(t, a.h.Release(ctx))
						}
						must(t, granted(t, next).Release(ctx)) // PEER-29
						for _, s := range sc.s {
							must(t, s.Close())
						}
						must(t, c.Quiesce(ctx))
					}
					residue(t, ctx, c, "/")
				})
			})
		}
	}
}

// The leader dies after it has committed, before the answer: each write of each recipe takes effect once (PEER-05, E1).
func TestRightLeaderDiesAfterCommit(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, err := c.Member(0).NewSession(ctx, zk.SessionConfig{Timeout: 30 * time.Second}) // elections take less
		must(t, err)
		const other = "/app/other"
		shared := &recipes.Semaphore{Session: s, Path: "/app/shared", Limit: 1, SharedLimit: true}
		lease := recipes.NewTimedLease(s, "/app/timed", "a", time.Hour)
		var h, in *recipes.Held
		got := func(fn call) func() error {
			return func() (err error) { h, err = fn(ctx); return err }
		}
		release := func() error { return h.Release(ctx) }
		for _, w := range []struct {
			name       string
			call       func() error
			ephemerals int // afterwards
		}{
			{"write lock", got(rwLock(s).Lock), 1},
			{"downgrade", func() (err error) { h, err = rwLock(s).Downgrade(ctx, h); return err }, 1},
			{"release of a read lock", release, 0},
			{"try read lock", got(rwLock(s).TryRLock), 1},
			{"release of a read lock", release, 0},
			{"lock all", got(lockAll(s, other+"/a", other+"/b")), 2},
			{"release of all", release, 0},
			{"limit", func() error { return shared.SetLimit(ctx, 3) }, 0},
			{"units", got(func(ctx context.Context) (*recipes.Held, error) { return shared.AcquireN(ctx, 3) }), 3},
			{"joining, the limit raised", func() error {
				in = h
				next := start(ctx, shared.Acquire)
				eventually(t, "not in line", func() bool { return c.Member(0).Stats().Ephemerals == 4 })
				must(t, shared.SetLimit(ctx, 4))
				a := <-next
				h = a.h
				return a.err
			}, 4},
			{"release of a unit", release, 3},
			{"release of units", func() error { return in.Release(ctx) }, 0},
			{"timed lease", got(lease.Try), 0},
			{"renewal", got(lease.Try), 0},
			{"release of a lease", release, 0},
			{"try a unit", got(shared.TryAcquire), 1},
			{"revoke", func() error {
				return recipes.Revoke(ctx, s, recipes.Contender{Path: h.Path(), Token: h.Token()})
			}, 1},
			{"release of a unit", release, 0},
		} {
			if leader(t, ctx, c) == 0 {
				must(t, c.Member(0).TransferLeadership(ctx, ""))
			}
			_, err := s.Txn(ctx) // by the stream that is to be cut
			must(t, err)
			must(t, c.Quiesce(ctx))
			synctest.Wait() // until that has its answer
			lead := leader(t, ctx, c)
			third := 3 - lead
			z := c.Member(third).Applied()
			c.Network().Cut(zktest.Name(lead), zktest.Name(0))
			done := make(chan error, 1)
			go func() { done <- w.call() }()
			eventually(t, w.name+" was not committed", func() bool { return c.Member(third).Applied() > z })
			must(t, c.Crash(lead))
			c.Heal()
			if err := soon(t, w.name+": no answer", done); err != nil { // PEER-05
				t.Fatalf("%s: %v", w.name, err)
			}
			must(t, c.Restart(ctx, lead))
			must(t, c.Member(lead).Ready(ctx))
			must(t, c.Quiesce(ctx))
			if n := c.Member(third).Stats().Ephemerals; n != w.ephemerals { // PEER-04
				t.Errorf("%s: %d ephemerals, want %d", w.name, n, w.ephemerals)
			}
			if st, ok, err := s.Exists(ctx, "/app/timed/lease_holder"); err != nil || w.name == "renewal" && (!ok || st.Version != 1) || w.name == "release of a lease" && ok {
				t.Errorf("%s: version %d of the lease, there: %v, %v", w.name, st.Version, ok, err)
			}
		}
		must(t, s.Delete(ctx, shared.Path+"/leases", zk.AnyVersion))
		must(t, s.DeleteTree(ctx, shared.Path))
		residue(t, ctx, c, "/")
	})
}

// All rights can be asked for, from any session; that alone ends none (REV-S1), and it is heard at once (REV-L1).
func TestRevokeEveryRight(t *testing.T) {
	for _, x := range exclusions {
		t.Run(x.name, func(t *testing.T) {
			onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
				for i := range x.znodes[0] { // whichever of its znodes
					h := granted(t, start(ctx, x.holds(sc.s[0])))
					revoked := h.Revoked()
					z := sc.znodes(t, ctx, 0)[i]
					began := time.Now()
					must(t, recipes.Revoke(ctx, sc.s[1], recipes.Contender{Path: z.Path, Token: zk.Token(z.Stat.Czxid)}))
					must(t, sc.c.Quiesce(ctx))
					synctest.Wait()
					select {
					case <-revoked: // REV-L1
					default:
						t.Fatal("not revoked")
					}
					if took := time.Since(began); took > time.Second {
						t.Errorf("revoked after %v", took)
					}
					time.Sleep(time.Minute)
					isHeld(t, h) // REV-S1
					must(t, h.Verify(ctx))
					must(t, h.Release(ctx))
				}
			})
		})
	}
}

// Costs, by counters, against what the comments of the recipes claim.
func TestRightCosts(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		total := func() (sum zk.Stats) {
			synctest.Wait()
			for _, m := range sc.at {
				st := sc.c.Member(m).Stats()
				sum.Writes += st.Writes
				sum.Frames += st.Frames
				sum.Reads += st.Reads
				sum.LinearReads += st.LinearReads
				sum.Watches += st.Watches
			}
			return sum
		}
		costs := func(what string, writes, linear, mostReads int64, fn func()) {
			t.Helper()
			must(t, sc.c.Quiesce(ctx))
			a := total()
			fn()
			must(t, sc.c.Quiesce(ctx))
			b := total()
			if w := b.Writes - a.Writes; w != writes || b.Frames-a.Frames != writes {
				t.Errorf("%s: %d writes in %d log entries, want %d", what, w, b.Frames-a.Frames, writes)
			}
			if l := b.LinearReads - a.LinearReads; l != linear {
				t.Errorf("%s: %d rounds of messages, want %d", what, l, linear)
			}
			if r := b.Reads - a.Reads; r > mostReads {
				t.Errorf("%s: %d local reads, want at most %d", what, r, mostReads)
			}
		}
		watches := func(what string, want int64) {
			t.Helper()
			if n := total().Watches; n != want {
				t.Errorf("%s: %d watches, want %d", what, n, want)
			}
		}
		rw, other := rwLock(sc.s[0]), rwLock(sc.s[1])
		var h, h2 *recipes.Held
		get := func(fn call) func() {
			return func() {
				var err error
				h, err = fn(ctx)
				must(t, err)
			}
		}
		release := func() { must(t, h.Release(ctx)) }
		for what, fn := range map[string]call{
			"read lock": rw.RLock, "write lock": rw.Lock, "all of three": lockAll(sc.s[0], "/app/lock/a", "/app/lock/b", "/app/lock/c"),
			"a unit": semaphore(sc.s[0], 5).Acquire, "three units": units(sc.s[0], 5, 3), "try a unit": semaphore(sc.s[0], 5).TryAcquire,
			"try read lock": rw.TryRLock, "try write lock": rw.TryLock,
		} {
			costs(what, 1, 0, 12, get(fn))
			costs("release "+what, 1, 0, 0, release)
		}
		get(rw.Lock)()
		costs("busy try to read", 0, 1, 8, func() { _, err := other.TryRLock(ctx); wants(t, err, recipes.ErrNotAcquired) })
		costs("busy try to write", 0, 1, 8, func() { _, err := other.TryLock(ctx); wants(t, err, recipes.ErrNotAcquired) })
		var next <-chan attempt
		costs("a reader joins", 1, 0, 5, func() { next = sc.joins(t, ctx, 1, 1, other.RLock) })
		watches("a reader waits", 3) // the holder's, two of the waiter
		costs("downgrade, and the reader goes in", 1, 0, 8, func() {
			var err error
			h, err = rw.Downgrade(ctx, h)
			must(t, err)
			h2 = granted(t, next)
		})
		release()
		must(t, h2.Release(ctx))

		one := func(i int) *recipes.Semaphore { return recipes.NewSemaphore(sc.s[i], "/app/lock/one", 1) }
		sem := one(0)
		get(sem.Acquire)()
		costs("busy try of a unit", 0, 1, 8, func() { _, err := sem.TryAcquire(ctx); wants(t, err, recipes.ErrNotAcquired) })
		costs("joining the line for a unit", 1, 0, 12, func() { next = sc.joins(t, ctx, 1, 1, one(1).Acquire) })
		watches("a unit is waited for", 4) // the holder's, three of the first in line
		after := sc.joins(t, ctx, 2, 1, one(2).Acquire)
		watches("a unit is waited for by two", 6)       // and two of the other one
		costs("hand-over of a unit", 2, 0, 16, func() { // the release, and the lease of the first in line
			release()
			h = granted(t, next)
		})
		release()
		must(t, granted(t, after).Release(ctx))
		watches("nobody is left", 0)

		get(lockAll(sc.s[0], "/app/lock/a", "/app/lock/b", "/app/lock/c"))()
		costs("joining three lines", 1, 0, 12, func() { next = sc.joins(t, ctx, 1, 3, lockAll(sc.s[1], "/app/lock/a", "/app/lock/b", "/app/lock/c")) })
		watches("three locks are waited for", 9) // the holder's, two for each path
		costs("hand-over of three locks", 1, 0, 12, func() {
			release()
			h = granted(t, next)
		})
		watches("three locks are held", 3)
		release()

		shared := &recipes.Semaphore{Session: sc.s[0], Path: "/app/shared", SharedLimit: true}
		must(t, shared.SetLimit(ctx, 1))
		costs("a limit", 1, 0, 0, func() { must(t, shared.SetLimit(ctx, 3)) })

		lease := recipes.NewTimedLease(sc.s[0], "/app/lock/timed", "a", time.Hour)
		costs("a timed lease", 1, 0, 6, get(lease.Try))
		watches("a timed lease is held", 1)
		costs("renewal of a timed lease", 1, 0, 4, get(lease.Try))
		costs("busy try of a timed lease", 0, 1, 6, func() {
			_, err := recipes.NewTimedLease(sc.s[1], "/app/lock/timed", "b", time.Hour).Try(ctx)
			wants(t, err, recipes.ErrNotAcquired)
		})
		costs("release of a timed lease", 1, 0, 0, release)
	})
}

// Bad arguments are refused with a typed error, before anything is written.
func TestRightArguments(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		rw := recipes.NewRWLock(s, "/l")
		read, err := rw.RLock(ctx)
		must(t, err)
		alone, err := recipes.NewRWLock(s, "/other").Lock(ctx)
		must(t, err)
		lock, err := recipes.NewLock(s, "/l").Acquire(ctx)
		must(t, err)
		write, err := recipes.NewRWLock(s, "/w").Lock(ctx)
		must(t, err)
		kept := write.Retain()
		before := c.Member(0).Stats().Writes
		down := func(l *recipes.RWLock, ctx context.Context, h *recipes.Held) error {
			_, err := l.Downgrade(ctx, h)
			return err
		}
		take := func(m *recipes.Semaphore, n int) error { _, err := m.AcquireN(ctx, n); return err }
		try := func(l *recipes.TimedLease) error { _, err := l.Try(ctx); return err }
		all := func(ctx context.Context, src zk.SessionSource, paths ...string) error {
			_, err := recipes.LockAll(ctx, src, paths...)
			return err
		}
		sem := recipes.NewSemaphore(s, "/s", 2)
		shared := &recipes.Semaphore{Session: s, Path: "/s", SharedLimit: true}
		for what, err := range map[string]error{
			"upgrade":                      down(rw, ctx, read),
			"downgrade of another path":    down(rw, ctx, alone),
			"downgrade of a lock":          down(rw, ctx, lock),
			"downgrade of nothing":         down(rw, ctx, nil),
			"downgrade without ctx":        down(rw, nil, alone), //nolint:staticcheck // it is what is tested
			"downgrade of a retained lock": down(recipes.NewRWLock(s, "/w"), ctx, write),
			"no units":                     take(sem, 0),
			"fewer than no units":          take(sem, -1),
			"more units than there are":    take(sem, 3),
			"no limit":                     take(recipes.NewSemaphore(s, "/s", 0), 1),
			"a limit below 0":              take(recipes.NewSemaphore(s, "/s", -1), 1),
			"a relative path":              take(recipes.NewSemaphore(s, "s", 1), 1),
			"a limit that is not shared":   sem.SetLimit(ctx, 3),
			"a shared limit below 0":       shared.SetLimit(ctx, -1),
			"no holder":                    try(recipes.NewTimedLease(s, "/t", "", time.Hour)),
			"no time":                      try(recipes.NewTimedLease(s, "/t", "me", 0)),
			"fewer than no slots":          try(&recipes.TimedLease{Session: s, Path: "/t", Holder: "me", For: time.Hour, Slots: -1}),
			"no source":                    try(recipes.NewTimedLease(nil, "/t", "me", time.Hour)),
			"all of nothing":               all(ctx, s),
			"all without ctx":              all(nil, s, "/a"), //nolint:staticcheck // it is what is tested
			"all from nowhere":             all(ctx, nil, "/a"),
			"all, one of them relative":    all(ctx, s, "/a", "b"),
		} {
			if !errors.Is(err, zk.ErrBadArguments) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := down(rw, ctx, read); !strings.Contains(err.Error(), "no upgrade") {
			t.Errorf("%v does not say that there is no upgrade", err)
		}
		if n := c.Member(0).Stats().Writes - before; n != 0 {
			t.Errorf("%d writes", n)
		}
		for _, h := range []*recipes.Held{read, alone, lock, write, kept} {
			isHeld(t, h)
			must(t, h.Release(ctx))
		}
		residue(t, ctx, c, "/")
	})
}

// Rights that are had together are given back together, by whichever of several handles is released last (REENT-S1).
func TestRightRetain(t *testing.T) {
	for _, x := range exclusions {
		t.Run(x.name, func(t *testing.T) {
			onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
				h := granted(t, start(ctx, x.holds(sc.s[0])))
				before := slices.Collect(paths(sc.znodes(t, ctx, 0)))
				if len(before) != x.znodes[0] || len(h.Guards()) != x.znodes[0] || !slices.Contains(before, h.Path()) {
					t.Fatalf("%q, the path is %s", before, h.Path())
				}
				again := h.Retain()
				must(t, h.Release(ctx))
				isHeld(t, again)
				if now := slices.Collect(paths(sc.znodes(t, ctx, 0))); !slices.Equal(now, before) {
					t.Fatalf("%q were %q", now, before)
				}
				must(t, again.Release(ctx))
				if left := sc.znodes(t, ctx, 0); len(left) != 0 {
					t.Fatalf("left: %+v", left)
				}
				wants(t, again.Err(), recipes.ErrReleased)
			})
		})
	}
}

func paths(list []zk.Znode) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, z := range list {
			if !yield(z.Path) {
				return
			}
		}
	}
}
