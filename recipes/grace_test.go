// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

const grace = 30 * time.Second

// graceful is a lock of i's session whose holder is mourned.
func (sc *scene) graceful(i int) *recipes.Lock {
	l := recipes.NewLock(sc.s[i], "/app/lock")
	l.Grace = grace
	return l
}

// vacancy waits until the holder's znode is gone, as i's member knows it, and returns the ensemble's time then.
func (sc *scene) vacancy(t *testing.T, i int, h *recipes.Held) time.Time {
	t.Helper()
	eventually(t, "the znode is still there", func() bool {
		_, ok, err := sc.s[i].Exists(t.Context(), h.Path())
		must(t, err)
		return !ok
	})
	return sc.s[i].Now()
}

// lasts fails unless what began at a moment was over a grace later.
func lasts(t *testing.T, began, over time.Time) {
	t.Helper()
	if took := over.Sub(began); took < grace-20*time.Millisecond || took > grace+time.Second {
		t.Errorf("the grace took %v", took)
	}
}

// A holder that vanishes is mourned: the next in line waits for the holder's grace, in the ensemble's time, whether it
// has one itself or not.
func TestGraceAfterCrash(t *testing.T) {
	for _, heir := range []bool{false, true} {
		t.Run(fmt.Sprint("heir has one ", heir), func(t *testing.T) {
			onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
				h := acquire(t, ctx, sc.graceful(0))
				l := sc.locks[1]
				if heir {
					l = sc.graceful(1)
				}
				next := queue(t, ctx, l)
				after := queue(t, ctx, sc.locks[2])
				must(t, sc.c.Crash(sc.at[0]))
				began := sc.vacancy(t, 1, h)
				n := granted(t, next)
				lasts(t, began, n.Session().Now())
				_, recorded, err := sc.s[1].Exists(ctx, "/app/lock-grace")
				must(t, err)
				if recorded != heir { // its own record, or none
					t.Errorf("recorded: %v", recorded)
				}
				must(t, n.Release(ctx)) // in order: nobody waits any more
				released := time.Now()
				must(t, granted(t, after).Release(ctx))
				if took := time.Since(released); took > time.Second {
					t.Errorf("granted %v after an orderly release", took)
				}
			})
		})
	}
}

// An orderly release, the giving up of a waiter, and a failed try leave no grace.
func TestNoGraceAfterRelease(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for i, end := range []func(h *recipes.Held, next <-chan attempt) *recipes.Held{
			func(h *recipes.Held, next <-chan attempt) *recipes.Held {
				must(t, h.Release(ctx))
				return granted(t, next)
			},
			func(h *recipes.Held, next <-chan attempt) *recipes.Held { // by two handles
				again := h.Retain()
				must(t, h.Release(ctx))
				must(t, again.Release(ctx))
				return granted(t, next)
			},
			func(h *recipes.Held, next <-chan attempt) *recipes.Held { // one before it gives up
				some, cancel := context.WithCancel(ctx)
				gone := queue(t, some, sc.graceful(2))
				cancel()
				<-gone
				must(t, h.Release(ctx))
				return granted(t, next)
			},
			func(h *recipes.Held, next <-chan attempt) *recipes.Held {
				_, err := sc.graceful(2).TryAcquire(ctx)
				wants(t, err, recipes.ErrNotAcquired)
				must(t, h.Release(ctx))
				return granted(t, next)
			},
		} {
			h := acquire(t, ctx, sc.graceful(0))
			next := queue(t, ctx, sc.graceful(1))
			began := time.Now()
			n := end(h, next)
			if took := time.Since(began); took > time.Second {
				t.Errorf("%d: granted after %v", i, took)
			}
			must(t, n.Release(ctx))
			_, recorded, err := sc.s[1].Exists(ctx, "/app/lock-grace")
			must(t, err)
			if recorded {
				t.Errorf("%d: the record is left", i)
			}
		}
	})
}

// TryAcquire refuses as long as the grace goes on. The first refusal leaves word of when it is over, and no znode.
func TestGraceTryAcquire(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		t.Run(fmt.Sprint("foreign ", foreign), func(t *testing.T) {
			onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
				if foreign {
					_, err := sc.s[1].Create(ctx, "/app/lock/foreign", nil, zk.Ephemeral|zk.Parents)
					must(t, err)
				}
				h, err := sc.graceful(0).TryAcquire(ctx)
				must(t, err)
				must(t, sc.c.Quiesce(ctx))
				must(t, sc.c.Crash(sc.at[0]))
				sc.vacancy(t, 1, h)
				time.Sleep(time.Minute) // nobody has seen the vacancy: nothing has begun
				began := sc.s[1].Now()
				for i := range 5 {
					l := sc.locks[1+i%2]
					_, err := l.TryAcquire(ctx)
					wants(t, err, recipes.ErrNotAcquired)
					if n := len(inLine(t, ctx, l)); n != 0 { // LOCK-S3
						t.Fatalf("%d left in line", n)
					}
					time.Sleep(grace / 5 * 9 / 10)
				}
				eventually(t, "never granted", func() bool {
					h, err = sc.locks[2].TryAcquire(ctx)
					if err != nil && !errors.Is(err, recipes.ErrNotAcquired) {
						t.Fatal(err)
					}
					return err == nil
				})
				lasts(t, began, sc.s[2].Now())
				must(t, h.Release(ctx))
				if foreign {
					must(t, sc.s[1].Delete(ctx, "/app/lock/foreign", zk.AnyVersion))
				}
			})
		})
	}
}

// Who comes while somebody else waits for the grace does not prolong it, and if that one gives up the next goes on.
func TestGraceIsSeenOnce(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.graceful(0))
		next := queue(t, ctx, sc.locks[1])
		must(t, sc.c.Crash(sc.at[0]))
		began := sc.vacancy(t, 1, h)
		var rest []<-chan attempt
		for range 4 {
			time.Sleep(grace / 6)
			rest = append(rest, queue(t, ctx, sc.locks[2]))
			_, err := sc.locks[2].TryAcquire(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			// Its own znode is touched: it wakes, and waits for the same moment.
			_, err = sc.s[2].Set(ctx, inLine(t, ctx, sc.locks[2])[0].Path, nil, zk.AnyVersion)
			must(t, err)
			waiting(t, next)
		}
		n := granted(t, next)
		lasts(t, began, n.Session().Now())
		must(t, n.Release(ctx))
		for _, next := range rest {
			must(t, granted(t, next).Release(ctx))
		}
	})
}

// Who waits for a grace keeps all the promises of a wait: it ends with ctx, with the session, with its znode.
func TestGraceWaitEnds(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.graceful(0))
		must(t, sc.c.Quiesce(ctx))
		must(t, sc.c.Crash(sc.at[0]))
		sc.vacancy(t, 1, h)
		some, cancel := context.WithCancel(ctx)
		next := queue(t, some, sc.locks[1])
		waiting(t, next)
		cancel()
		wants(t, soon(t, "still waiting", next).err, context.Canceled)
		eventually(t, "it has left something", func() bool { return len(inLine(t, ctx, sc.locks[1])) == 0 })
		next = queue(t, ctx, sc.locks[1])
		waiting(t, next)
		must(t, sc.locks[2].Break(ctx, inLine(t, ctx, sc.locks[1])[0]))
		wants(t, soon(t, "still waiting", next).err, recipes.ErrBroken)
		dying, err := sc.c.Member(sc.at[1]).NewSession(ctx, zk.SessionConfig{Timeout: time.Second})
		must(t, err)
		next = queue(t, ctx, recipes.NewLock(dying, "/app/lock"))
		must(t, sc.c.Expire(ctx, dying))
		wants(t, soon(t, "still waiting", next).err, zk.ErrSessionExpired)
		began := sc.s[1].Now() // the vacancy was seen by those who are gone, but they told nobody
		n := acquire(t, ctx, sc.locks[1])
		lasts(t, began, n.Session().Now())
		must(t, n.Release(ctx))
	})
}

// A loss is no release: a holder that was suspended is mourned, although it deletes its znode itself.
func TestGraceAfterLoss(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.graceful(0))
		next := queue(t, ctx, sc.locks[1])
		sc.suspend(t, 0)
		isLost(t, h, zk.ErrSuspended)
		sc.c.Heal()
		began := sc.vacancy(t, 1, h)
		must(t, h.Release(ctx)) // too late
		n := granted(t, next)
		lasts(t, began, n.Session().Now())
		must(t, n.Release(ctx))
		// So is one whose znode an operator has deleted, and one whose session is closed.
		acquire(t, ctx, sc.graceful(0))
		must(t, sc.c.Quiesce(ctx))
		must(t, sc.locks[1].Break(ctx, inLine(t, ctx, sc.locks[1])[0]))
		began = sc.s[1].Now()
		n = acquire(t, ctx, sc.locks[1])
		lasts(t, began, n.Session().Now())
		must(t, n.Release(ctx))
		acquire(t, ctx, sc.graceful(0))
		must(t, sc.s[0].Close())
		began = sc.s[1].Now()
		n = acquire(t, ctx, sc.locks[1])
		lasts(t, began, n.Session().Now())
		must(t, n.Release(ctx))
	})
}

// A context that ends while the grace is recorded leaves neither a contender nor a grace.
func TestGraceRecordCancelled(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		must(t, h.Release(ctx))
		sc.c.Network().Latency(5*time.Millisecond, 5*time.Millisecond)
		failed, made := 0, 0
		for d := time.Millisecond; d < 120*time.Millisecond; d += 2 * time.Millisecond {
			some, cancel := context.WithTimeout(ctx, d)
			h, err := sc.graceful(0).Acquire(some)
			cancel()
			if (h == nil) == (err == nil) { // PEER-10
				t.Fatalf("%v and %v", h, err)
			}
			if err == nil {
				made++
				must(t, h.Release(ctx))
			} else {
				failed++
				wants(t, err, context.DeadlineExceeded)
			}
			began := time.Now()
			h = acquire(t, ctx, sc.locks[1])
			if took := time.Since(began); took > time.Second {
				t.Fatalf("cut after %v: the next waited for %v", d, took)
			}
			must(t, h.Release(ctx))
		}
		if failed == 0 || made == 0 {
			t.Errorf("%d failed, %d made", failed, made)
		}
	})
}

// While the session is suspended the grace can be recorded for nobody; the place in line is kept.
func TestGraceRecordSuspended(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		next := queue(t, ctx, sc.graceful(0))
		l := leader(t, ctx, sc.c)
		sc.c.Network().Cut(zktest.Name(sc.at[0]), zktest.Name(l))
		must(t, h.Release(ctx))
		eventually(t, "not suspended", func() bool { return sc.s[0].State() == zk.StateSuspended })
		synctest.Wait()
		waiting(t, next)
		sc.c.Heal()
		must(t, granted(t, next).Release(ctx))
	})
}

// A grace is kept although nobody is in line when the holder dies and the lock's directory is reaped.
func TestGraceOutlivesDirectory(t *testing.T) {
	onStage(t, zktest.Config{Base: zk.Config{ReapInterval: time.Second}}, func(t *testing.T, ctx context.Context, sc *scene) {
		acquire(t, ctx, sc.graceful(0))
		must(t, sc.c.Quiesce(ctx))
		must(t, sc.c.Crash(sc.at[0]))
		eventually(t, "not reaped", func() bool {
			_, ok, err := sc.s[1].Exists(ctx, "/app/lock")
			must(t, err)
			return !ok
		})
		_, err := sc.locks[2].TryAcquire(ctx) // the vacancy is seen now
		wants(t, err, recipes.ErrNotAcquired)
		began := sc.s[1].Now()
		n := acquire(t, ctx, sc.locks[1])
		lasts(t, began, n.Session().Now())
		must(t, n.Release(ctx))
		residue(t, ctx, sc.c, "/")
	})
}

// What is no record of ours where a grace is kept is no grace.
func TestGraceOfNobody(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, data := range []string{"", "x", "{}", "null", "[]", `{"holder":0,"millis":100000}`, `{"holder":5,"millis":0}`, `{"holder":5,"millis":-9223372036854775808}`, `{"holder":-1,"millis":"x"}`} {
			h := acquire(t, ctx, sc.locks[0])
			_, err := sc.s[0].Create(ctx, "/app/lock-grace", []byte(data), zk.Persistent)
			must(t, err)
			must(t, h.Release(ctx))
			began := time.Now()
			h = acquire(t, ctx, sc.locks[1])
			if took := time.Since(began); took > time.Second {
				t.Errorf("%s: waited %v", data, took)
			}
			if _, recorded, err := sc.s[1].Exists(ctx, "/app/lock-grace"); err != nil || recorded {
				t.Errorf("%s: left, %v", data, err)
			}
			must(t, h.Release(ctx))
		}
	})
}
