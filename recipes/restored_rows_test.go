// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// bySnapshot lets something happen while a member is away, and that member hear of it by a snapshot alone. far is on
// another member.
func bySnapshot(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, far *zk.Session, meanwhile func()) {
	t.Helper()
	leaveBehind(t, ctx, c, at, far, meanwhile)
	c.Heal()
	must(t, c.Quiesce(ctx))
	synctest.Wait()
}

// oneIsAway runs a recipe on three sessions, of which the first is on a member that does not lead; each outlives what happens here.
func oneIsAway(t *testing.T, fn func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s [3]*zk.Session)) {
	t.Helper()
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		var s [3]*zk.Session
		for i := range s {
			var err error
			s[i], err = c.Member((at+i)%3).NewSession(ctx, zk.SessionConfig{Timeout: time.Minute})
			must(t, err)
		}
		fn(t, ctx, c, at, s)
	})
}

func init() {
	reactions = append(reactions, []reaction{
		{"snapshot installed", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
			h := acquire(t, ctx, sc.locks[1])
			next := queue(t, ctx, sc.locks[0])
			bySnapshot(t, ctx, sc.c, sc.at[0], sc.s[1], func() { must(t, h.Release(ctx)) })
			must(t, granted(t, next).Release(ctx)) // E8: it was the release that the snapshot brought
		}},
		{"snapshot installed", "waits behind who stays", func(t *testing.T, ctx context.Context, sc *scene) {
			h := acquire(t, ctx, sc.locks[1])
			between := queue(t, ctx, sc.locks[2])
			next := queue(t, ctx, sc.locks[0])
			bySnapshot(t, ctx, sc.c, sc.at[0], sc.s[1], func() {
				must(t, h.Release(ctx))
				h = granted(t, between)
			})
			waiting(t, next) // LOCK-S1
			must(t, h.Release(ctx))
			must(t, granted(t, next).Release(ctx))
		}},
		{"snapshot installed", "holds", func(t *testing.T, ctx context.Context, sc *scene) {
			s, err := sc.c.Member(sc.at[0]).NewSession(ctx, zk.SessionConfig{Timeout: time.Minute})
			must(t, err)
			l := recipes.NewLock(s, "/app/lock")
			h := acquire(t, ctx, l)
			next := queue(t, ctx, sc.locks[1])
			bySnapshot(t, ctx, sc.c, sc.at[0], sc.s[1], func() {})
			isHeld(t, h)
			must(t, h.Verify(ctx))
			waiting(t, next)
			bySnapshot(t, ctx, sc.c, sc.at[0], sc.s[1], func() { must(t, sc.s[1].Delete(ctx, h.Path(), zk.AnyVersion)) })
			isLost(t, h, zk.ErrNoNode) // HELD-L1, E8
			must(t, granted(t, next).Release(ctx))
			must(t, s.Close())
		}},
		{"snapshot installed", "has its znode deleted while it waits", func(t *testing.T, ctx context.Context, sc *scene) {
			h := acquire(t, ctx, sc.locks[1])
			next := queue(t, ctx, sc.locks[0])
			mine := inLine(t, ctx, sc.locks[1])[1].Path
			bySnapshot(t, ctx, sc.c, sc.at[0], sc.s[1], func() { must(t, sc.s[1].Delete(ctx, mine, zk.AnyVersion)) })
			wants(t, soon(t, "still waiting", next).err, recipes.ErrBroken)
			must(t, h.Release(ctx))
		}},
		{"backup restored", "both", func(t *testing.T, ctx context.Context, sc *scene) {
			before := acquire(t, ctx, sc.locks[0])
			must(t, sc.c.Quiesce(ctx))
			var saved bytes.Buffer
			_, err := sc.c.Member(sc.at[1]).Backup(ctx, &saved)
			must(t, err)
			next := queue(t, ctx, sc.locks[1])
			must(t, sc.c.Member(sc.at[2]).Restore(ctx, &saved))
			wants(t, soon(t, "still waiting", next).err, zk.ErrSessionExpired) // all sessions end
			soon(t, "not lost", before.Lost())
			wants(t, before.Err(), recipes.ErrLost)
			must(t, sc.c.Quiesce(ctx))
			s, err := sc.c.Member(sc.at[1]).Session(ctx)
			must(t, err)
			l := recipes.NewLock(s, "/app/lock")
			n := acquire(t, ctx, l)          // the backup's ephemerals do not come back: nobody is in the way
			if n.Token() <= before.Token() { // HELD-S2
				t.Errorf("token %v after %v", n.Token(), before.Token())
			}
			must(t, before.Release(ctx))
			_, err = s.Txn(ctx, before.Guard())
			wants(t, err, zk.ErrGuard) // HELD-S3
			must(t, n.Verify(ctx))     // HELD-S4
			must(t, n.Release(ctx))
		}},
	}...)
}

// A restore ends the right without a release. The grace that the backup tells of is waited for, whoever has left it, and
// one that it does not know is not.
func TestGraceRestored(t *testing.T) {
	for _, told := range []bool{true, false} {
		restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
			l := &recipes.Lock{Session: c.Member(0), Path: "/l", Grace: grace}
			if !told {
				backup()
			}
			h := acquire(t, ctx, l)
			if told {
				backup()
				must(t, h.Release(ctx)) // is undone
				h = acquire(t, ctx, l)
			}
			restore()
			soon(t, "not lost", h.Lost())
			wants(t, h.Err(), recipes.ErrLost)
			heir := recipes.NewLock(c.Member(1), "/l")
			began := time.Now()
			_, err := heir.TryAcquire(ctx)
			if told {
				wants(t, err, recipes.ErrNotAcquired)
			} else {
				must(t, err)
				return
			}
			n := acquire(t, ctx, heir)
			lasts(t, began, time.Now())
			must(t, n.Release(ctx))
			must(t, acquire(t, ctx, heir).Release(ctx)) // once
			residue(t, ctx, c, "/")
		})
	}
}

// A barrier is up after a restore if it was in the backup. Who waited is let through only if it was down at some moment.
func TestBarrierRestored(t *testing.T) {
	for name, cell := range map[string]struct {
		before, after bool // the barrier is up in the backup, and when that is restored
		ephemeral     bool
	}{
		"stays up":            {before: true, after: true},
		"goes":                {after: true},
		"comes back":          {before: true},
		"ephemeral, and goes": {before: true, after: true, ephemeral: true},
	} {
		t.Run(name, func(t *testing.T) {
			restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
				s := session(t, ctx, c.Member(0))
				b := &recipes.Barrier{Session: s, Path: "/b", Ephemeral: cell.ephemeral}
				set := func(up bool) {
					if up {
						must(t, b.Set(ctx))
					} else {
						must(t, b.Lift(ctx))
					}
				}
				set(cell.before)
				backup()
				set(cell.after)
				var done <-chan error
				if cell.after {
					done = started(6, func(i int) error { return recipes.NewBarrier(c.Member(i%3), "/b").Wait(ctx) })
					still(t, "it is up", done)
				}
				restore()
				up := cell.before && !cell.ephemeral
				if done != nil {
					for range 6 {
						if err := soon(t, "it waits", done); up || err != nil { // BAR-S1
							wants(t, err, zk.ErrSessionExpired)
						}
					}
				}
				again := recipes.NewBarrier(c.Member(1), "/b")
				waits := started(1, func(int) error { return again.Wait(ctx) })
				if up {
					still(t, "the backup has it", waits)
					must(t, again.Lift(ctx))
				}
				all(t, "it is down", 1, waits)
				residue(t, ctx, c, "/b")
			})
		})
	}
}

// No quorum for longer than the lease: who waits goes on waiting, and is released by the lift that comes after it.
func TestBarrierWithoutQuorum(t *testing.T) {
	bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		var s [3]*zk.Session
		for i := range s {
			s[i] = session(t, ctx, c.Member(i))
		}
		must(t, recipes.NewBarrier(s[0], "/b").Set(ctx))
		done := started(6, func(i int) error { return recipes.NewBarrier(s[i%3], "/b").Wait(ctx) })
		still(t, "it is up", done)
		for range 3 {
			c.Partition([]int{0}, []int{1}, []int{2})
			time.Sleep(30 * time.Second)
			for i := range s {
				if s[i].State() != zk.StateSuspended {
					t.Fatal(s[i].State())
				}
			}
			still(t, "it is up", done) // BAR-S1
			c.Heal()
			eventually(t, "not active", func() bool {
				return !slices.ContainsFunc(s[:], func(s *zk.Session) bool { return s.State() != zk.StateActive })
			})
			still(t, "it is up", done) // BAR-S1
		}
		must(t, recipes.NewBarrier(s[1], "/b").Lift(ctx))
		all(t, "it is lifted", 6, done) // BAR-L1
		residue(t, ctx, c, "/b")
	})
}

// Members that are inside are told, those that wait as well; a ready that the backup has brought back holds nobody up.
func TestDoubleBarrierRestored(t *testing.T) {
	for _, during := range []bool{false, true} { // the backup is made during the round
		t.Run(fmt.Sprint("during the round ", during), func(t *testing.T) {
			restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
				two := func(i int) *recipes.DoubleBarrier { return recipes.NewDoubleBarrier(c.Member(i), "/db", 2) }
				if !during {
					backup()
				}
				x, y := entering(ctx, two(0)), entering(ctx, two(1))
				a, b := admitted(t, x), admitted(t, y)
				if during {
					backup()
				}
				left := leaving(ctx, a)
				next := entering(ctx, two(2))
				still(t, "one is inside", left)
				restore()
				wants(t, soon(t, "it waits", next).err, zk.ErrSessionExpired)
				soon(t, "not lost", b.Lost())
				wants(t, b.Leave(ctx), recipes.ErrLost)
				if err := soon(t, "it waits", left); err != nil { // nobody is inside any more, or its session is over
					if !errors.Is(err, zk.ErrSessionExpired) && !errors.Is(err, recipes.ErrLost) {
						t.Error(err)
					}
				}
				must(t, c.Quiesce(ctx))
				if _, ready := inside(t, ctx, session(t, ctx, c.Member(0)), "/db"); ready != during {
					t.Errorf("ready: %v", ready)
				}
				again := entering(ctx, two(2))
				still(t, "one alone", again) // DB-S1, DB-S3: what the backup has brought back is of another round
				other := entering(ctx, two(0))
				m, n := admitted(t, again), admitted(t, other)
				done := leaving(ctx, m)
				must(t, n.Leave(ctx))
				all(t, "all have left", 1, done)
				residue(t, ctx, c, "/db")
			})
		})
	}
}

// A member that was away hears by a snapshot that its round has begun, that the others have left, or that it was put out.
func TestDoubleBarrierBySnapshot(t *testing.T) {
	oneIsAway(t, func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s [3]*zk.Session) {
		three := func(i int) *recipes.DoubleBarrier { return recipes.NewDoubleBarrier(s[i], "/db", 3) }
		var others [2]<-chan guest
		var m [3]*recipes.Membership
		waits := entering(ctx, three(0))
		bySnapshot(t, ctx, c, at, s[1], func() {
			others[0], others[1] = entering(ctx, three(1)), entering(ctx, three(2))
			m[1], m[2] = admitted(t, others[0]), admitted(t, others[1])
		})
		m[0] = admitted(t, waits) // DB-S1, E8
		var gone [2]<-chan error
		bySnapshot(t, ctx, c, at, s[1], func() {
			gone[0], gone[1] = leaving(ctx, m[1]), leaving(ctx, m[2])
			still(t, "one is inside", gone[0])
		})
		if !m[0].Valid() {
			t.Error(m[0].Err())
		}
		must(t, m[0].Leave(ctx)) // waits for nobody
		all(t, "all have left", 1, gone[0])
		all(t, "all have left", 1, gone[1])
		// It waits to leave while the others go.
		for i := range others {
			others[i] = entering(ctx, three(i+1))
		}
		m[0] = admitted(t, entering(ctx, three(0)))
		m[1], m[2] = admitted(t, others[0]), admitted(t, others[1])
		done := leaving(ctx, m[0])
		still(t, "two are inside", done)
		bySnapshot(t, ctx, c, at, s[1], func() {
			must(t, m[1].Release(ctx))
			must(t, m[2].Release(ctx))
		})
		all(t, "the others have left", 1, done) // E8
		// It is put out, inside and outside.
		for i := range others {
			others[i] = entering(ctx, three(i+1))
		}
		m[0] = admitted(t, entering(ctx, three(0)))
		m[1], m[2] = admitted(t, others[0]), admitted(t, others[1])
		bySnapshot(t, ctx, c, at, s[1], func() { must(t, s[1].Delete(ctx, m[0].Path(), zk.AnyVersion)) })
		isLost(t, m[0].Held, zk.ErrNoNode)
		wants(t, m[0].Leave(ctx), recipes.ErrLost)
		must(t, m[1].Release(ctx))
		must(t, m[2].Leave(ctx))
		waits = entering(ctx, three(0))
		names, _, err := s[1].Children(ctx, "/db", zk.Linearizable)
		must(t, err)
		bySnapshot(t, ctx, c, at, s[1], func() { must(t, s[1].Delete(ctx, "/db/"+names[0], zk.AnyVersion)) })
		wants(t, soon(t, "broken", waits).err, recipes.ErrBroken)
		residue(t, ctx, c, "/db")
	})
}

// A member that is inside when its session is suspended is out, for good. The others go on as soon as its znode is gone: when its
// member is back, or when its session has expired.
func TestDoubleBarrierSuspendedInside(t *testing.T) {
	for _, returns := range []bool{true, false} {
		t.Run(fmt.Sprint("returns ", returns), func(t *testing.T) {
			onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
				three := func(i int) *recipes.DoubleBarrier { return recipes.NewDoubleBarrier(sc.s[i], "/app/lock/db", 3) }
				var ch [3]<-chan guest
				for i := range ch {
					ch[i] = entering(ctx, three(i))
				}
				var m [3]*recipes.Membership
				for i := range ch {
					m[i] = admitted(t, ch[i])
				}
				sc.suspend(t, 0)
				isLost(t, m[0].Held, zk.ErrSuspended)
				for _, m := range m[1:] {
					isHeld(t, m.Held) // DB-L3: it is theirs no less
				}
				done := started(2, func(i int) error { return m[1+i].Leave(ctx) })
				select {
				case err := <-done:
					t.Fatalf("one has left while another is inside: %v", err)
				default:
				}
				if returns {
					sc.c.Heal()
					sc.active(t, 0)
					isLost(t, m[0].Held, zk.ErrSuspended) // for good
				}
				all(t, "the others have left", 2, done) // DB-L3
				sc.c.Heal()
				wants(t, m[0].Leave(ctx), recipes.ErrLost, zk.ErrSuspended)
				eventually(t, "something is left", func() bool {
					n, ready := inside(t, ctx, sc.s[1], "/app/lock/db")
					return n == 0 && !ready
				})
				src := zk.SessionSource(sc.s[0])
				if !returns {
					soon(t, "its session is not over", sc.s[0].Done())
					wants(t, sc.s[0].Err(), zk.ErrSessionExpired)
					src = sc.c.Member(sc.at[0])
				}
				again := entering(ctx, recipes.NewDoubleBarrier(src, "/app/lock/db", 3)) // DB-L4
				still(t, "one alone", again)
				x, y := entering(ctx, three(1)), entering(ctx, three(2))
				for _, ch := range []<-chan guest{again, x, y} {
					must(t, admitted(t, ch).Release(ctx))
				}
				last := entering(ctx, recipes.NewDoubleBarrier(sc.s[1], "/app/lock/db", 1)) // clears up after them
				must(t, admitted(t, last).Leave(ctx))
			})
		})
	}
}

// What was put since the backup is gone, what was acknowledged since comes back, and no claim stands: those who had one are told, and
// each item is received again. So it is in every layout.
func TestQueueRestored(t *testing.T) {
	for _, layout := range []recipes.Layout{recipes.Kazoo, recipes.Curator, recipes.CuratorDelay} {
		t.Run(layout.String(), func(t *testing.T) {
			restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
				on := func(s zk.SessionSource) *intQueue {
					q := newQueue(s)
					q.Layout = layout
					return q
				}
				q, far := on(session(t, ctx, c.Member(0))), on(c.Member(1))
				for i := 1; i <= 3; i++ {
					must(t, far.Put(ctx, i))
				}
				must(t, c.Quiesce(ctx))
				claimed := receive(t, ctx, q, 1)
				backup()
				must(t, receive(t, ctx, far, 2).Ack(ctx))
				must(t, c.Quiesce(ctx))
				same(t, "the third", take(t, ctx, q, 1), 3)
				must(t, far.Put(ctx, 4))
				must(t, c.Quiesce(ctx))
				lost := receive(t, ctx, far, 4) // of what the backup does not have
				waits := receiving(ctx, q)
				var seen []int
				some, stop := context.WithCancel(ctx)
				list := make(chan int, 10)
				ended := started(1, func(int) error {
					each := on(c.Member(2))
					for {
						for m, err := range each.Messages(some) {
							if errors.Is(err, zk.ErrSessionExpired) { // calling it again goes on with the next session
								break
							}
							if err != nil {
								return err
							}
							if err := m.Ack(ctx); err != nil {
								return err
							}
							list <- m.Value
						}
					}
				})
				restore()
				wants(t, soon(t, "it waits", waits).err, zk.ErrSessionExpired)
				for _, m := range []*recipes.Message[int]{claimed, lost} {
					soon(t, "not lost", m.Lost())
					wants(t, m.Ack(ctx), recipes.ErrLost) // Q-S1: it is not acknowledged by this one
				}
				for range 3 {
					seen = append(seen, soon(t, "nothing received", list))
				}
				same(t, "as in the backup", seen, 1, 2, 3) // Q-S2, Q-S4
				must(t, far.Put(ctx, 5))
				same(t, "it goes on", []int{soon(t, "nothing received", list)}, 5) // Q-L2
				stop()
				wants(t, soon(t, "it goes on", ended), context.Canceled)
				empty(t, ctx, far)
				if n := c.Member(1).Stats().Ephemerals; n != 0 {
					t.Errorf("%d claims are left", n)
				}
			})
		})
	}
}

// So it is for a sharded queue, also where shards were added since the backup.
func TestShardedQueueRestored(t *testing.T) {
	restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
		q, far := newSharded(session(t, ctx, c.Member(0)), 1, 2), newSharded(c.Member(1), 1, 2)
		must(t, far.Put(ctx, 1))
		must(t, c.Quiesce(ctx))
		shards := len(shardNames(t, ctx, session(t, ctx, c.Member(2))))
		r := soon(t, "nothing received", shardReceiving(ctx, q))
		must(t, r.err)
		backup()
		must(t, far.Put(ctx, 2))
		must(t, far.Put(ctx, 3))
		must(t, c.Quiesce(ctx))
		if n := len(shardNames(t, ctx, session(t, ctx, c.Member(2)))); n <= shards {
			t.Fatalf("%d shards", n)
		}
		waits := shardReceiving(ctx, newSharded(session(t, ctx, c.Member(2)), 1, 2))
		if r := soon(t, "nothing received", waits); r.err != nil || r.m.Value == 1 {
			t.Fatalf("%+v", r)
		}
		drain(t, ctx, far, 1)
		waits = shardReceiving(ctx, q)
		restore()
		wants(t, soon(t, "it waits", waits).err, zk.ErrSessionExpired)
		soon(t, "not lost", r.m.Lost())
		wants(t, r.m.Ack(ctx), recipes.ErrLost)
		same(t, "as in the backup", drain(t, ctx, far, 1), 1) // Q-S2
		ch := shardReceiving(ctx, far)
		still(t, "nothing else is there", ch)
		must(t, newSharded(c.Member(2), 1, 2).Put(ctx, 4))
		same(t, "it goes on", []int{soon(t, "nothing received", ch).m.Value}, 4)
	})
}

// A lease that was got since the backup ends with the restore, also where its session does; one that the backup has goes on, with
// its token, even if it was released since.
func TestTimedLeaseRestored(t *testing.T) {
	for _, bound := range []bool{true, false} { // to a session
		for _, known := range []string{"yes", "no", "renewed", "released", "taken"} {
			t.Run(fmt.Sprintf("bound %v, in the backup %s", bound, known), func(t *testing.T) {
				restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
					src := zk.SessionSource(c.Member(0))
					if bound {
						src = session(t, ctx, c.Member(0))
					}
					a := timedLease(src, "a")
					b, again := timedLease(c.Member(1), "b"), timedLease(c.Member(2), "a")
					var h *recipes.Held
					if known != "no" {
						h = tried(t, ctx, a)
					}
					backup()
					time.Sleep(time.Minute)
					switch known {
					case "no":
						h = tried(t, ctx, a)
					case "renewed":
						if tried(t, ctx, a) != h {
							t.Fatal("another right")
						}
					case "released", "taken":
						must(t, h.Release(ctx))
					}
					var taken *recipes.Held
					if known == "taken" {
						must(t, c.Quiesce(ctx))
						taken = tried(t, ctx, b)
					}
					restore()
					synctest.Wait()
					if known == "no" {
						isLost(t, h, zk.ErrNoNode) // TL-S1: nobody knows of it any more
						n := tried(t, ctx, b)
						if n.Token() <= h.Token() { // HELD-S2
							t.Errorf("token %v after %v", n.Token(), h.Token())
						}
						must(t, n.Release(ctx))
						return
					}
					if taken != nil {
						isLost(t, taken, zk.ErrNoNode) // TL-S1
					}
					refusedLease(t, ctx, b) // the backup has it
					switch known {
					case "yes":
						isHeld(t, h)
						must(t, c.Member(0).Ready(ctx))
					case "renewed":
						s, err := c.Member(1).Session(ctx)
						must(t, err)
						_, end := stored(t, ctx, s, leaseHolder)
						time.Sleep(end.Sub(s.Now()) - time.Second)
						refusedLease(t, ctx, b)
						time.Sleep(3 * time.Second)
						h.Valid()
						n := tried(t, ctx, b)
						if h.Valid() { // TL-S1
							t.Error("two have it")
						}
						must(t, n.Release(ctx))
						return
					}
					n := tried(t, ctx, again)   // the same holder
					if n.Token() <= h.Token() { // HELD-S2
						t.Errorf("token %v after %v", n.Token(), h.Token())
					}
					must(t, n.Release(ctx))
				})
			})
		}
	}
}

// An end that an operator has brought forward is the end; one that was put off is not (TL-S1).
func TestTimedLeaseShortened(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		a, b := timedLease(sc.s[0], "a"), timedLease(sc.s[1], "b")
		h := tried(t, ctx, a)
		write := func(left time.Duration) (end time.Time) {
			end = sc.s[0].Now().Add(left).UTC().Truncate(time.Second)
			_, err := sc.s[0].Set(ctx, leaseHolder, fmt.Appendf(nil, `{"version":1,"holder":"a","end":%q}`, end.Format("2006-01-02T15:04:05")), zk.AnyVersion)
			must(t, err)
			must(t, sc.c.Quiesce(ctx))
			synctest.Wait()
			return end
		}
		end := write(time.Minute)
		isHeld(t, h)
		refusedLease(t, ctx, b)
		lost := stopwatch(h.Lost())
		time.Sleep(end.Sub(sc.s[1].Now()) + time.Second)
		n := tried(t, ctx, b) // TL-S1
		isLost(t, h, context.DeadlineExceeded)
		if took := lost().Sub(end); took > time.Second {
			t.Errorf("lost %v after its end", took)
		}
		must(t, n.Release(ctx))
		must(t, sc.c.Quiesce(ctx))
		h = tried(t, ctx, a)
		end = write(time.Minute)
		if tried(t, ctx, a) != h { // renewed: it has its time again
			t.Error("another right")
		}
		time.Sleep(end.Sub(sc.s[1].Now()) + time.Minute)
		isHeld(t, h)
		refusedLease(t, ctx, b)
		write(time.Hour)
		time.Sleep(10 * time.Minute)
		isLost(t, h, context.DeadlineExceeded)
		must(t, sc.s[0].DeleteTree(ctx, leasePath))
	})
}

// Who has a lease and was away hears by a snapshot that it goes on, or that somebody has taken it by force.
func TestTimedLeaseBySnapshot(t *testing.T) {
	oneIsAway(t, func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s [3]*zk.Session) {
		a, b := timedLease(s[0], "a"), timedLease(s[1], "b")
		h := tried(t, ctx, a)
		bySnapshot(t, ctx, c, at, s[1], func() { refusedLease(t, ctx, b) })
		isHeld(t, h)
		must(t, h.Verify(ctx))
		if tried(t, ctx, a) != h {
			t.Error("renewing it has made another right")
		}
		var n *recipes.Held
		bySnapshot(t, ctx, c, at, s[1], func() {
			must(t, s[1].Delete(ctx, leaseHolder, zk.AnyVersion))
			n = tried(t, ctx, b)
		})
		isLost(t, h, zk.ErrNoNode) // E8
		refusedLease(t, ctx, a)
		bySnapshot(t, ctx, c, at, s[1], func() { must(t, n.Release(ctx)) })
		must(t, tried(t, ctx, a).Release(ctx))
		residue(t, ctx, c, "/app")
	})
}

// An operator who deletes a lease's znode frees it: whoever had it is told as soon as that is applied there, and the next Try has it.
func TestTimedLeaseDeleted(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, all := range []bool{false, true} {
			h := tried(t, ctx, timedLease(sc.s[0], "a"))
			must(t, sc.c.Quiesce(ctx))
			refusedLease(t, ctx, timedLease(sc.s[1], "b"))
			if all {
				must(t, sc.s[0].DeleteTree(ctx, leasePath)) // answered once it is applied here
			} else {
				must(t, sc.s[0].Delete(ctx, leaseHolder, zk.AnyVersion))
			}
			isLost(t, h, zk.ErrNoNode)
			must(t, sc.c.Quiesce(ctx))
			n := tried(t, ctx, timedLease(sc.s[1], "b"))
			if n.Token() <= h.Token() { // HELD-S2
				t.Errorf("token %v after %v", n.Token(), h.Token())
			}
			_, err := sc.s[0].Txn(ctx, h.Guard())
			wants(t, err, zk.ErrGuard) // HELD-S3
			must(t, h.Release(ctx))
			must(t, n.Verify(ctx)) // HELD-S4
			must(t, n.Release(ctx))
		}
	})
}

// Who waits at a latch, or counts, while its session is suspended goes on afterwards; each count counts once.
func TestLatchSuspended(t *testing.T) {
	bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		s := session(t, ctx, c.Member(at))
		far, err := c.Member((at+1)%3).NewSession(ctx, zk.SessionConfig{Timeout: time.Minute})
		must(t, err)
		here, there := recipes.NewLatch(s, "/l", 4), recipes.NewLatch(far, "/l", 4)
		done := started(3, func(int) error { return here.Wait(ctx) })
		must(t, c.Quiesce(ctx))
		for left := 3; left > 0; left-- {
			c.Isolate(at)
			eventually(t, "not suspended", func() bool { return s.State() == zk.StateSuspended })
			var counts <-chan error
			if left == 2 { // it is the one that is cut off who counts
				counts = started(1, func(int) error { _, err := here.CountDown(ctx); return err })
			} else if n, err := there.CountDown(ctx); n != left || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			select {
			case err := <-done:
				t.Fatalf("%d are left: %v", left, err)
			default:
			}
			c.Heal()
			if counts != nil {
				all(t, "not counted", 1, counts)
			}
			eventually(t, "not active", func() bool { return s.State() == zk.StateActive })
			still(t, "some are left", done)
			if data := dataOf(t, ctx, c.Member(at), "/l").Data; data != fmt.Sprint(left) { // LATCH-S1
				t.Fatalf("%s are left, want %d", data, left)
			}
		}
		c.Isolate(at)
		eventually(t, "not suspended", func() bool { return s.State() == zk.StateSuspended })
		if n, err := there.CountDown(ctx); n != 0 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		c.Heal()
		all(t, "it is open", 3, done)
		must(t, s.Err())
	})
}

// A candidate that was away hears by a snapshot that it is its turn; a leader that was away leads on, and an observer sees who leads.
func TestElectionBySnapshot(t *testing.T) {
	oneIsAway(t, func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s [3]*zk.Session) {
		e := func(i int) *recipes.Election { return recipes.NewElection(s[i], "/e") }
		first := lead(t, ctx, e(1), "first")
		next := stand(t, ctx, e(0), "next")
		some, stop := context.WithCancel(ctx)
		seen := follow(t, e(0).Observe(some))
		observed := func(token zk.Token, value string) {
			t.Helper()
			for {
				o := seen.next()
				if o.Token > token {
					t.Fatalf("observed %+v", o)
				}
				if o.Token == token && string(o.Value) == value { // ELEC-S3
					return
				}
			}
		}
		observed(first.Token(), "first")
		bySnapshot(t, ctx, c, at, s[1], func() { must(t, first.Proclaim(ctx, []byte("still"))) })
		observed(first.Token(), "still") // E8
		select {
		case b := <-next:
			t.Fatalf("two lead, or %v", b.err)
		default:
		}
		bySnapshot(t, ctx, c, at, s[1], func() { must(t, first.Resign(ctx)) })
		l := elected(t, next) // ELEC-L1, E8
		observed(l.Token(), "next")
		after := stand(t, ctx, e(2), "after")
		bySnapshot(t, ctx, c, at, s[1], func() {})
		isHeld(t, l.Held) // ELEC-L2
		must(t, l.Proclaim(ctx, []byte("again")))
		observed(l.Token(), "again")
		var n *recipes.Leadership
		bySnapshot(t, ctx, c, at, s[1], func() {
			must(t, s[1].Delete(ctx, l.Path(), zk.AnyVersion))
			n = elected(t, after)
		})
		isLost(t, l.Held, zk.ErrNoNode)
		wants(t, l.Proclaim(ctx, nil), recipes.ErrLost)
		observed(n.Token(), "after")
		must(t, n.Resign(ctx))
		stop()
		seen.end(context.Canceled)
		residue(t, ctx, c, "/e")
	})
}

// A model shows what the backup has, and nothing that came since; what is watched through it goes back too.
func TestModelRestored(t *testing.T) {
	restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
		m := recipes.NewModel[int](c.Member(0), "/app/{a}")
		for i, name := range []string{"changed", "deleted", "kept"} {
			must(t, m.Put(ctx, "/app/"+name, i+1))
		}
		backup()
		must(t, m.Put(ctx, "/app/changed", 10))
		must(t, m.Put(ctx, "/app/new", 11))
		s := session(t, ctx, c.Member(0))
		must(t, s.Delete(ctx, "/app/deleted", zk.AnyVersion))
		v, err := m.Value("/app/changed")
		must(t, err)
		some, stop := context.WithCancel(ctx)
		got := stream(some, v)
		if y := soon(t, "nothing", got); y.v != 10 {
			t.Errorf("%+v", y)
		}
		restore()
		wants(t, recipes.NewModel[int](s, "/app/{a}").Put(ctx, "/app/changed", 12), zk.ErrSessionExpired)
		all := ""
		for it, err := range m.All(ctx) { // MODEL-S1
			must(t, err)
			all += fmt.Sprintf("%s=%d;", it.Path, it.Value)
		}
		if all != "/app/changed=1;/app/deleted=2;/app/kept=3;" {
			t.Errorf("%s", all)
		}
		if y := soon(t, "nothing", got); y.v != 1 || y.err != nil {
			t.Errorf("%+v", y)
		}
		_, _, err = m.Get(ctx, "/app/new")
		wants(t, err, zk.ErrNoNode)
		must(t, m.Put(ctx, "/app/changed", 13))
		if y := soon(t, "nothing", got); y.v != 13 || y.err != nil { // VAL-L1
			t.Errorf("%+v", y)
		}
		stop()
		for range got {
		}
	})
}

// What a snapshot brings to a member is what its models show, and what is watched through them.
func TestModelBySnapshot(t *testing.T) {
	oneIsAway(t, func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s [3]*zk.Session) {
		m, far := recipes.NewModel[int](s[0], "/app/{a}"), recipes.NewModel[int](s[1], "/app/{a}")
		must(t, m.Put(ctx, "/app/x", 1))
		must(t, m.Put(ctx, "/app/y", 1))
		v, err := m.Value("/app/x")
		must(t, err)
		some, stop := context.WithCancel(ctx)
		got := stream(some, v)
		soon(t, "nothing", got)
		bySnapshot(t, ctx, c, at, s[1], func() {
			must(t, s[1].Delete(ctx, "/app/x", zk.AnyVersion))
			must(t, s[1].Delete(ctx, "/app/y", zk.AnyVersion))
			must(t, far.Put(ctx, "/app/x", 2)) // in version 0, as before: PEER-56
			must(t, far.Put(ctx, "/app/z", 3))
		})
		if y := soon(t, "nothing", got); y.v != 2 || y.err != nil { // VAL-L1, E8
			t.Errorf("%+v", y)
		}
		all := ""
		for it, err := range m.All(ctx) { // MODEL-S1
			must(t, err)
			all += fmt.Sprintf("%s=%d;", it.Path, it.Value)
		}
		if all != "/app/x=2;/app/z=3;" {
			t.Errorf("%s", all)
		}
		stop()
		for range got {
		}
	})
}

// A provider picks what is there after a restore: instances that live are registered again, those that the backup has brought back and
// that outlive who registered them are there, and what was registered since and died is not.
func TestProviderRestored(t *testing.T) {
	restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
		r := recipes.NewRegistry[string](c.Member(0), "/r")
		of := func(id, payload string, kind recipes.InstanceType) recipes.Instance[string] {
			return recipes.Instance[string]{Name: "web", ID: id, Payload: payload, Type: kind, Enabled: true}
		}
		live, err := r.Register(ctx, of("live", "old", recipes.Dynamic))
		must(t, err)
		static, err := r.Register(ctx, of("static", "old", recipes.Permanent))
		must(t, err)
		backup()
		must(t, live.Update(ctx, of("live", "new", recipes.Dynamic)))
		must(t, static.Deregister(ctx))
		s := session(t, ctx, c.Member(1))
		_, err = recipes.NewRegistry[string](s, "/r").Register(ctx, of("since", "dies", recipes.Dynamic))
		must(t, err)
		must(t, c.Quiesce(ctx))
		some, stop := context.WithCancel(ctx)
		defer stop()
		p, bound := recipes.NewRegistry[string](c.Member(2), "/r").Provider("web", nil), recipes.NewRegistry[string](s, "/r").Provider("web", nil)
		picks := func() (list []string) {
			for range 4 {
				in, err := p.Pick(some)
				if errors.Is(err, recipes.ErrNoInstance) {
					continue
				}
				must(t, err)
				list = append(list, in.ID+" "+in.Payload)
			}
			slices.Sort(list)
			return slices.Compact(list)
		}
		if got := fmt.Sprint(picks()); got != "[live new since dies]" {
			t.Errorf("%s", got)
		}
		restore()
		// REG-L1, REG-S3: with what was updated last. REG-S2 cannot hold for what the backup has; REG-S4.
		eventually(t, "not registered again", func() bool { return fmt.Sprint(picks()) == "[live new static old]" })
		time.Sleep(time.Minute)
		if got := fmt.Sprint(picks()); got != "[live new static old]" { // REG-S1
			t.Errorf("%s", got)
		}
		_, err = bound.Pick(ctx)
		wants(t, err, zk.ErrSessionExpired)
		p.Close()
		must(t, live.Deregister(ctx))
	})
}
