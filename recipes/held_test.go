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

// reaction is what happens to who waits, or holds, when something else does.
type reaction struct {
	event string
	who   string
	fn    func(t *testing.T, ctx context.Context, sc *scene)
}

// reactions is the table "What happens by default" of docs/spec/recipes.md: one sub-test for each cell.
var reactions = []reaction{
	{"session suspended", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		next := queue(t, ctx, sc.locks[0])
		place := inLine(t, ctx, sc.locks[0])[1].Path
		sc.suspend(t, 0)
		waiting(t, next)
		sc.c.Heal()
		sc.active(t, 0)
		waiting(t, next)
		if list := inLine(t, ctx, sc.locks[0]); len(list) != 2 || list[1].Path != place {
			t.Fatalf("in line: %+v", list)
		}
		must(t, h.Release(ctx))
		must(t, granted(t, next).Release(ctx))
	}},
	{"session suspended", "is next", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		next := queue(t, ctx, sc.locks[0])
		l := sc.at[1]
		if sc.c.Member(sc.at[2]).Role() == zk.RoleLeader {
			l = sc.at[2]
		}
		// Its heartbeats do not arrive, what is committed does: the release is seen, but there is no lease.
		sc.c.Network().Cut(zktest.Name(sc.at[0]), zktest.Name(l))
		eventually(t, "not suspended", func() bool { return sc.s[0].State() == zk.StateSuspended })
		must(t, h.Release(ctx))
		waiting(t, next)
		sc.c.Heal()
		must(t, granted(t, next).Release(ctx))
	}},
	{"session suspended", "tries", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		must(t, sc.c.Quiesce(ctx))
		sc.suspend(t, 0)
		try := start(ctx, sc.locks[0].TryAcquire)
		waiting(t, try)
		sc.c.Heal()
		wants(t, soon(t, "no answer", try).err, recipes.ErrNotAcquired)
		must(t, h.Release(ctx))
	}},
	{"session suspended", "holds", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		next := queue(t, ctx, sc.locks[1])
		sc.suspend(t, 0)
		isLost(t, h, zk.ErrSuspended)
		waiting(t, next)
		sc.c.Heal()
		sc.active(t, 0)
		if sc.s[0].Err() != nil {
			t.Fatal("the session did not recover")
		}
		isLost(t, h, zk.ErrSuspended) // for good
		must(t, granted(t, next).Release(ctx))
	}},
	{"session expired", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		next := queue(t, ctx, sc.locks[0])
		must(t, sc.c.Expire(ctx, sc.s[0]))
		synctest.Wait()
		select {
		case a := <-next: // at once: no time has passed since
			wants(t, a.err, zk.ErrSessionExpired)
		default:
			t.Fatal("it waits although its session is over")
		}
		isHeld(t, h)
		must(t, h.Release(ctx))
	}},
	{"session expired", "tries", func(t *testing.T, ctx context.Context, sc *scene) {
		must(t, sc.c.Expire(ctx, sc.s[0]))
		_, err := sc.locks[0].TryAcquire(ctx)
		wants(t, err, zk.ErrSessionExpired)
	}},
	{"session expired", "holds", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		lostAt := stopwatch(h.Lost())
		next := queue(t, ctx, sc.locks[1])
		over := sc.c.Expire(ctx, sc.s[0])
		a := soon(t, "not granted", next)
		must(t, errors.Join(over, a.err))
		if end := lostAt(); end.After(a.at) {
			t.Fatalf("granted at %v, lost at %v", a.at, end)
		}
		isLost(t, h, zk.ErrSuspended)
		n := a.h
		must(t, n.Release(ctx))
	}},
	{"leader changes", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		next := queue(t, ctx, sc.locks[0])
		watches := sc.c.Member(sc.at[0]).Stats().Watches
		for range 3 {
			must(t, sc.c.Member(sc.at[0]).TransferLeadership(ctx, ""))
			waiting(t, next)
		}
		if n := sc.c.Member(sc.at[0]).Stats().Watches; n != watches {
			t.Errorf("%d watches were %d", n, watches)
		}
		must(t, h.Release(ctx))
		must(t, granted(t, next).Release(ctx))
	}},
	{"leader changes", "tries", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		must(t, sc.c.Quiesce(ctx))
		l := leader(t, ctx, sc.c)
		try := start(ctx, func(ctx context.Context) (*recipes.Held, error) {
			for {
				if h, err := sc.locks[0].TryAcquire(ctx); !errors.Is(err, recipes.ErrNotAcquired) {
					return h, err
				}
				time.Sleep(time.Millisecond)
			}
		})
		for i := range 3 {
			if i > 0 {
				must(t, sc.c.Member(l).TransferLeadership(ctx, ""))
			}
			time.Sleep(50 * time.Millisecond)
			waiting(t, try)
		}
		must(t, h.Release(ctx))
		must(t, granted(t, try).Release(ctx))
	}},
	{"leader crashes", "holds", func(t *testing.T, ctx context.Context, sc *scene) {
		s, err := sc.c.Member(sc.at[0]).NewSession(ctx, zk.SessionConfig{Timeout: 10 * time.Second}) // elections take less
		must(t, err)
		h := acquire(t, ctx, recipes.NewLock(s, "/app/lock"))
		l := leader(t, ctx, sc.c)
		must(t, sc.c.Crash(l))
		if leader(t, ctx, sc.c) == l {
			t.Fatal("the same leader")
		}
		must(t, h.Verify(ctx))
		isHeld(t, h)
		must(t, sc.c.Restart(ctx, l))
		must(t, sc.c.Member(l).Ready(ctx))
		isHeld(t, h)
		must(t, h.Release(ctx))
	}},
	{"no quorum", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		next := queue(t, ctx, sc.locks[0])
		sc.c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(30 * time.Second) // longer than its lease, shorter than the holder's
		if sc.s[0].State() != zk.StateSuspended {
			t.Fatal(sc.s[0].State())
		}
		waiting(t, next)
		sc.c.Heal()
		must(t, h.Release(ctx))
		must(t, granted(t, next).Release(ctx))
	}},
	{"no quorum", "tries", func(t *testing.T, ctx context.Context, sc *scene) {
		sc.c.Partition([]int{0}, []int{1}, []int{2})
		try := start(ctx, sc.locks[0].TryAcquire)
		time.Sleep(30 * time.Second)
		waiting(t, try)
		sc.c.Heal()
		must(t, granted(t, try).Release(ctx))
	}},
	{"no quorum", "holds", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		next := queue(t, ctx, sc.locks[1])
		deadline := sc.s[0].Deadline()
		sc.c.Partition([]int{0}, []int{1}, []int{2})
		soon(t, "not lost", h.Lost())
		if time.Now().After(deadline.Add(sc.s[0].Timeout())) { // HELD-L1; what was acknowledged during the cut counts
			t.Errorf("lost %v after the lease it had when the quorum was lost", time.Since(deadline))
		}
		isLost(t, h, zk.ErrSuspended)
		waiting(t, next)
		if len(inLine(t, ctx, sc.locks[1])) != 2 {
			t.Error("its znode went without a quorum")
		}
		sc.c.Heal()
		must(t, granted(t, next).Release(ctx)) // its znode went
	}},
	{"ctx ends", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		some, cancel := context.WithCancelCause(ctx)
		next := queue(t, some, sc.locks[0])
		after := queue(t, ctx, sc.locks[2])
		cancel(zk.ErrNotMember)
		began := time.Now()
		a := soon(t, "still waiting", next)
		wants(t, a.err, context.Canceled, zk.ErrNotMember)
		if a.at != began {
			t.Error("time had to pass")
		}
		waiting(t, after)
		must(t, h.Release(ctx))
		must(t, granted(t, after).Release(ctx)) // its znode is in nobody's way
	}},
	{"ctx ends", "tries", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		must(t, sc.c.Quiesce(ctx))
		sc.c.Isolate(sc.at[0])
		some, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err := sc.locks[0].TryAcquire(some)
		wants(t, err, context.DeadlineExceeded)
		sc.c.Heal()
		must(t, h.Release(ctx))
	}},
	{"ctx ends", "holds", func(t *testing.T, ctx context.Context, sc *scene) {
		some, cancel := context.WithCancel(ctx)
		h := acquire(t, some, sc.locks[0])
		cancel()
		time.Sleep(time.Minute)
		isHeld(t, h)
		must(t, h.Verify(ctx))
		must(t, h.Release(ctx))
		some, cancel = context.WithCancel(ctx)
		h, err := sc.locks[0].TryAcquire(some)
		must(t, err)
		cancel()
		time.Sleep(time.Minute)
		isHeld(t, h)
		must(t, h.Release(ctx))
	}},
	{"holder's process dies", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
		acquire(t, ctx, sc.locks[0])
		next := queue(t, ctx, sc.locks[1])
		began := time.Now()
		must(t, sc.c.Crash(sc.at[0]))
		h := granted(t, next)
		if took := time.Since(began); took < sc.s[0].Timeout()/2 || took > 3*sc.s[0].Timeout() {
			t.Errorf("granted after %v, its timeout is %v", took, sc.s[0].Timeout())
		}
		must(t, h.Release(ctx))
	}},
	{"holder's process dies", "tries", func(t *testing.T, ctx context.Context, sc *scene) {
		acquire(t, ctx, sc.locks[0])
		must(t, sc.c.Crash(sc.at[0]))
		_, err := sc.locks[1].TryAcquire(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		time.Sleep(3 * sc.s[0].Timeout())
		h, err := sc.locks[1].TryAcquire(ctx)
		must(t, err)
		must(t, h.Release(ctx))
	}},
	{"holder's session closes", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
		acquire(t, ctx, sc.locks[0])
		next := queue(t, ctx, sc.locks[1])
		began := time.Now()
		must(t, sc.s[0].Close())
		h := granted(t, next)
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("granted after %v", took)
		}
		must(t, h.Release(ctx))
	}},
	{"holder's session closes", "holds", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		must(t, sc.s[0].Close())
		isLost(t, h, zk.ErrClosed)
	}},
	{"holder's member closes", "both", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		next := queue(t, ctx, sc.locks[1])
		began := time.Now()
		must(t, sc.c.Member(sc.at[0]).Shutdown(ctx))
		n := granted(t, next)
		if took := time.Since(began); took > sc.s[0].Timeout()/2 {
			t.Errorf("granted after %v", took)
		}
		isLost(t, h, zk.ErrClosed)
		_, err := sc.locks[0].TryAcquire(ctx)
		wants(t, err, zk.ErrClosed)
		must(t, h.Release(ctx))
		must(t, n.Release(ctx))
	}},
	{"waiter's session closes", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		next := queue(t, ctx, sc.locks[0])
		must(t, sc.s[0].Close())
		wants(t, soon(t, "still waiting", next).err, zk.ErrClosed)
		must(t, h.Release(ctx))
	}},
	{"operator deletes the znode", "waits", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		next := queue(t, ctx, sc.locks[0])
		must(t, sc.s[1].Delete(ctx, inLine(t, ctx, sc.locks[1])[1].Path, zk.AnyVersion))
		wants(t, soon(t, "still waiting", next).err, recipes.ErrBroken)
		if n := len(inLine(t, ctx, sc.locks[1])); n != 1 { // it did not join again at the end
			t.Errorf("%d in line", n)
		}
		must(t, h.Release(ctx))
	}},
	{"operator deletes the znode", "holds", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		must(t, sc.c.Quiesce(ctx))
		next := queue(t, ctx, sc.locks[1])
		must(t, sc.s[0].Delete(ctx, h.Path(), zk.AnyVersion)) // answered once it is applied here
		isLost(t, h, zk.ErrNoNode)                            // HELD-L1
		n := granted(t, next)
		if n.Token() <= h.Token() { // HELD-S2
			t.Errorf("token %v after %v", n.Token(), h.Token())
		}
		must(t, n.Release(ctx))
	}},
	{"operator deletes the parent", "both", func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		must(t, sc.c.Quiesce(ctx))
		first, second := queue(t, ctx, sc.locks[1]), queue(t, ctx, sc.locks[2])
		must(t, sc.s[0].DeleteTree(ctx, "/app"))
		isLost(t, h, zk.ErrNoNode)
		for _, next := range []<-chan attempt{first, second} {
			wants(t, soon(t, "still waiting", next).err, recipes.ErrBroken)
		}
		n, err := sc.locks[0].TryAcquire(ctx)
		must(t, err)
		if n.Token() <= h.Token() { // HELD-S2: sequence numbers begin again, tokens do not
			t.Errorf("token %v after %v", n.Token(), h.Token())
		}
		if n.Path()[len(n.Path())-10:] != "0000000000" {
			t.Errorf("path %s", n.Path())
		}
		must(t, n.Release(ctx))
	}},
	{"foreign child", "both", func(t *testing.T, ctx context.Context, sc *scene) {
		foreign := func(path string) {
			_, err := sc.s[1].Create(ctx, "/app/lock/"+path, nil, zk.Ephemeral|zk.Sequential|zk.Parents)
			must(t, err)
		}
		foreign("x-")
		h := acquire(t, ctx, sc.locks[0])
		foreign("y-")
		next := queue(t, ctx, sc.locks[2])
		foreign("z-")
		isHeld(t, h)
		must(t, h.Release(ctx))
		must(t, granted(t, next).Release(ctx))
		must(t, sc.s[1].DeleteTree(ctx, "/app/lock"))
	}},
}

// stopwatch returns a function that waits for ch to be closed and tells when it was.
func stopwatch(ch <-chan struct{}) func() time.Time {
	at := make(chan time.Time, 1)
	go func() {
		<-ch
		at <- time.Now()
	}()
	return func() time.Time { return <-at }
}

func TestReactions(t *testing.T) {
	for _, r := range reactions {
		t.Run(fmt.Sprintf("%s, who %s", r.event, r.who), func(t *testing.T) {
			onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
				r.fn(t, ctx, sc)
			})
		})
	}
}

// Lost closes by a local timer: no later than the lease's end, whatever the network does (HELD-L1).
func TestLostByTimer(t *testing.T) {
	for name, cut := range map[string]func(sc *scene){
		"isolated":   func(sc *scene) { sc.c.Isolate(sc.at[0]) },
		"all lost":   func(sc *scene) { sc.c.Network().Drop(1) },
		"paused":     func(sc *scene) { sc.c.Pause(sc.at[0]) },
		"others die": func(sc *scene) { sc.c.Crash(sc.at[1]); sc.c.Crash(sc.at[2]) },
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
				h := acquire(t, ctx, sc.locks[0])
				time.Sleep(time.Minute)
				isHeld(t, h)
				cut(sc)
				time.Sleep(time.Second) // what was on its way has arrived
				deadline := sc.s[0].Deadline()
				soon(t, "not lost", h.Lost())
				if now := time.Now(); now.After(deadline) || h.Valid() { // HELD-L1
					t.Errorf("lost %v after the lease's end", now.Sub(deadline))
				}
				isLost(t, h, zk.ErrSuspended)
				sc.c.Resume(sc.at[0])
				for _, m := range sc.at {
					must(t, sc.c.Restart(ctx, m))
				}
				sc.c.Heal()
			})
		})
	}
}

// Who looks at the lease's end, by the local clock, sees no valid right, whoever else was told by then (HELD-L1, E2).
func TestInvalidAtDeadline(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		for range 20 {
			h := acquire(t, ctx, sc.locks[0])
			sc.c.Isolate(sc.at[0])
			time.Sleep(100 * time.Millisecond) // what was on its way has arrived
			deadline := sc.s[0].Deadline()
			time.Sleep(time.Until(deadline) - time.Nanosecond)
			isHeld(t, h)
			time.Sleep(time.Nanosecond)
			if h.Valid() { // HELD-L1
				t.Fatal("valid at the lease's end")
			}
			if err := h.Err(); !errors.Is(err, recipes.ErrLost) || !errors.Is(err, zk.ErrSuspended) {
				t.Fatalf("%v", err)
			}
			sc.c.Heal()
			sc.active(t, 0)
			isLost(t, h, zk.ErrSuspended)
			must(t, h.Release(ctx))
		}
	})
}

// The right ends here before its end is proposed to the ensemble: nobody else can be faster (HELD-S5).
func TestLocalEndComesFirst(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, how := range []string{"release", "close"} {
			h := acquire(t, ctx, sc.locks[0])
			must(t, sc.c.Quiesce(ctx))
			next := queue(t, ctx, sc.locks[1])
			sc.c.Isolate(sc.at[0])
			done := make(chan error, 1)
			go func() {
				if how == "release" {
					done <- h.Release(ctx)
				} else {
					done <- sc.s[0].Close()
				}
			}()
			synctest.Wait() // HELD-S5: the proposal gets nowhere, and the right is over
			if h.Valid() {
				t.Errorf("%s: valid", how)
			}
			select {
			case <-h.Lost():
			default:
				t.Errorf("%s: not lost", how)
			}
			waiting(t, next)
			sc.c.Heal()
			must(t, soon(t, "no answer", done))
			must(t, granted(t, next).Release(ctx))
		}
	})
}

// A transaction with the guard commits while the right's znode stands, and never after it (HELD-S3).
func TestGuard(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		_, err := sc.s[0].Create(ctx, "/value", nil, zk.Persistent)
		must(t, err)
		h := acquire(t, ctx, sc.locks[0])
		write := func(s *zk.Session, h *recipes.Held) error {
			_, err := s.Txn(ctx, h.Guard(), zk.OpSet("/value", []byte("x"), zk.AnyVersion))
			return err
		}
		must(t, write(sc.s[0], h))
		must(t, write(sc.s[1], h)) // any session of the same prefix
		// Another incarnation of the same name is another one.
		other := h.Path()
		must(t, sc.s[1].Delete(ctx, other, zk.AnyVersion))
		_, err = sc.s[1].Create(ctx, other, nil, zk.Ephemeral)
		must(t, err)
		wants(t, write(sc.s[0], h), zk.ErrGuard) // HELD-S3
		must(t, h.Release(ctx))
		if _, ok, err := sc.s[1].Exists(ctx, other); err != nil || !ok { // HELD-S4
			t.Fatal("a release deleted what somebody else had made")
		}
		wants(t, h.Verify(ctx), recipes.ErrLost)
		must(t, sc.s[1].Delete(ctx, other, zk.AnyVersion))
		// A holder that is cut off has its write refused once another was granted.
		h = acquire(t, ctx, sc.locks[0])
		next := queue(t, ctx, sc.locks[1])
		sc.c.Isolate(sc.at[0])
		late := make(chan error, 1)
		go func() { late <- write(sc.s[0], h) }()
		n := granted(t, next)
		must(t, write(sc.s[1], n))
		sc.c.Heal()
		if err := soon(t, "no answer", late); err == nil {
			t.Fatal("a write under a lost right was committed")
		}
		must(t, n.Release(ctx))
	})
}

// Verify asks the leader: it sees what this member has not heard of yet.
func TestVerify(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		must(t, h.Verify(ctx))
		must(t, sc.c.Quiesce(ctx))
		l := leader(t, ctx, sc.c)
		sc.c.Network().Slow(zktest.Name(l), zktest.Name(sc.at[0]), 300*time.Millisecond)
		by := sc.s[1]
		if sc.at[1] != l {
			by = sc.s[2]
		}
		must(t, by.Delete(ctx, h.Path(), zk.AnyVersion))
		isHeld(t, h) // as far as this member knows
		wants(t, h.Verify(ctx), recipes.ErrLost, zk.ErrNoNode)
		sc.c.Heal()
		h = acquire(t, ctx, sc.locks[0])
		sc.c.Isolate(sc.at[0])
		some, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		wants(t, h.Verify(some), context.DeadlineExceeded)
		isHeld(t, h) // not to know is no loss
		soon(t, "not lost", h.Lost())
		some, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
		wants(t, h.Verify(some), recipes.ErrLost, zk.ErrSuspended)
		sc.c.Heal()
	})
}

// A context under a right ends with it, with its parent, and with its own cancel.
func TestHeldContext(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		type key struct{}
		h := acquire(t, ctx, sc.locks[0])
		parent, end := context.WithCancelCause(context.WithValue(ctx, key{}, 1))
		first, cancel := h.Context(parent)
		defer cancel()
		second, cancel := h.Context(ctx)
		third, stop := h.Context(ctx)
		if first.Value(key{}) != 1 {
			t.Error("not the parent's values")
		}
		defer cancel()
		stop()
		wants(t, context.Cause(third), context.Canceled)
		end(zk.ErrNotMember)
		wants(t, context.Cause(first), zk.ErrNotMember)
		must(t, second.Err())
		isHeld(t, h)
		must(t, h.Release(ctx))
		<-second.Done()
		wants(t, context.Cause(second), recipes.ErrReleased)
		late, cancel := h.Context(ctx)
		defer cancel()
		wants(t, context.Cause(late), recipes.ErrReleased)
		h = acquire(t, ctx, sc.locks[0])
		under, cancel := h.Context(ctx)
		defer cancel()
		sc.c.Isolate(sc.at[0])
		<-under.Done()
		wants(t, context.Cause(under), recipes.ErrLost, zk.ErrSuspended) // PEER-14
		sc.c.Heal()
	})
}

// Release, again and again, frees once, and nobody else's grant (HELD-S4). A release that was not answered is driven on,
// and asking again waits for it (HELD-L2).
func TestRelease(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		next := queue(t, ctx, sc.locks[1])
		sc.c.Isolate(sc.at[0])
		gone, cancel := context.WithCancel(ctx)
		cancel()
		err := h.Release(gone)
		wants(t, err, context.Canceled)
		if !zk.MaybeApplied(err) || h.Valid() { // HELD-L2
			t.Fatalf("error %v, valid %v", err, h.Valid())
		}
		again := make(chan error, 1)
		go func() { again <- h.Release(ctx) }()
		synctest.Wait()
		select {
		case <-again:
			t.Fatal("it does not wait for the deletion")
		default:
		}
		sc.c.Heal()
		must(t, soon(t, "no answer", again))
		n := granted(t, next)
		writes := sc.c.Member(sc.at[0]).Stats().Writes
		for range 3 {
			must(t, h.Release(ctx)) // HELD-S4
		}
		if w := sc.c.Member(sc.at[0]).Stats().Writes; w != writes {
			t.Errorf("%d writes to release what was released", w-writes)
		}
		isHeld(t, n)
		must(t, n.Verify(ctx))
		must(t, n.Release(ctx))
		// Of many releases at once each waits for the same.
		h = acquire(t, ctx, sc.locks[0])
		all := make(chan error, 10)
		for range 10 {
			go func() { all <- h.Release(ctx) }()
		}
		for range 10 {
			must(t, <-all)
		}
		if len(inLine(t, ctx, sc.locks[0])) != 0 {
			t.Error("answered before it was gone")
		}
	})
}

// Several handles on one right: the last release counts (REENT-S1, PEER-24).
func TestRetain(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for k := range 4 {
			h := acquire(t, ctx, sc.locks[0])
			handles := []*recipes.Held{h}
			for i := range k {
				again := handles[i].Retain()
				if again.Token() != h.Token() || again.Path() != h.Path() || again.Lost() != h.Lost() {
					t.Error("not the same right")
				}
				handles = append(handles, again)
			}
			for i, one := range handles {
				if n := len(inLine(t, ctx, sc.locks[0])); n != 1 { // REENT-S1
					t.Fatalf("%d in line before release %d of %d", n, i, len(handles))
				}
				must(t, one.Verify(ctx))
				must(t, one.Release(ctx))
				must(t, one.Release(ctx)) // counts once
				wants(t, one.Err(), recipes.ErrReleased)
				if i < k {
					isHeld(t, handles[k])
				}
			}
			select {
			case <-h.Lost():
			default:
				t.Error("not lost")
			}
			if n := len(inLine(t, ctx, sc.locks[0])); n != 0 { // REENT-S1
				t.Fatalf("%d in line after %d releases", n, len(handles))
			}
			// What has ended cannot be retained.
			dead := h.Retain()
			wants(t, dead.Err(), recipes.ErrReleased)
			must(t, dead.Release(ctx))
		}
		// Nor through a handle that was released, although another one holds.
		h := acquire(t, ctx, sc.locks[0])
		kept := h.Retain()
		must(t, h.Release(ctx))
		wants(t, h.Retain().Err(), recipes.ErrReleased)
		must(t, h.Retain().Release(ctx))
		isHeld(t, kept)
		must(t, kept.Release(ctx))
	})
}

// A loss is told to all handles, and stays a loss after the release.
func TestLostIsShared(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		again := h.Retain()
		must(t, sc.s[0].Delete(ctx, h.Path(), zk.AnyVersion))
		isLost(t, h, zk.ErrNoNode)
		isLost(t, again, zk.ErrNoNode)
		must(t, h.Release(ctx))
		must(t, again.Release(ctx))
		isLost(t, h, zk.ErrNoNode)
		isLost(t, again, zk.ErrNoNode)
		sc.suspend(t, 0)
		sc.c.Heal()
	})
}
