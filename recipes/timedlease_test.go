// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

const (
	leasePath   = "/app/lock/timed"
	leaseHolder = leasePath + "/lease_holder"
)

func timedLease(s zk.SessionSource, holder string) *recipes.TimedLease {
	return recipes.NewTimedLease(s, leasePath, holder, 10*time.Minute)
}

func tried(t *testing.T, ctx context.Context, l *recipes.TimedLease) *recipes.Held {
	t.Helper()
	h, err := l.Try(ctx)
	must(t, err)
	isHeld(t, h)
	return h
}

func refusedLease(t *testing.T, ctx context.Context, l *recipes.TimedLease) {
	t.Helper()
	h, err := l.Try(ctx)
	if h != nil {
		t.Fatalf("got it, until it is released or over: %v", h.Err())
	}
	wants(t, err, recipes.ErrNotAcquired)
}

// stored is what a lease's znode holds, in kazoo's format.
func stored(t *testing.T, ctx context.Context, s *zk.Session, path string) (holder string, end time.Time) {
	t.Helper()
	data, _, err := s.Get(ctx, path)
	must(t, err)
	var v map[string]any
	must(t, json.Unmarshal(data, &v))
	if len(v) != 3 || v["version"] != 1.0 {
		t.Fatalf("stored: %s", data)
	}
	end, err = time.Parse("2006-01-02T15:04:05", v["end"].(string))
	must(t, err)
	return v["holder"].(string), end
}

// One has it for its time, and no other, to the second of the ensemble's clock (TL-S1).
func TestTimedLease(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		a, b := timedLease(sc.s[0], "a"), timedLease(sc.s[1], "b")
		began := sc.s[0].Now()
		h := tried(t, ctx, a)
		must(t, h.Verify(ctx))
		must(t, sc.c.Quiesce(ctx))
		holder, end := stored(t, ctx, sc.s[1], leaseHolder)
		if over := began.Add(10 * time.Minute); holder != "a" || end.Before(over) || end.After(over.Add(2*time.Second)) {
			t.Errorf("%s has it until %v, from %v", holder, end, began)
		}
		lost := stopwatch(h.Lost())
		for sc.s[1].Now().Before(end.Add(-time.Second)) {
			refusedLease(t, ctx, b) // TL-S1
			isHeld(t, h)
			time.Sleep(30 * time.Second)
			if left := end.Sub(sc.s[1].Now()); left < 35*time.Second {
				time.Sleep(left - time.Second)
			}
		}
		var n *recipes.Held
		eventually(t, "never free", func() bool {
			var err error
			if n, err = b.Try(ctx); err != nil {
				wants(t, err, recipes.ErrNotAcquired)
			}
			return err == nil
		})
		if h.Valid() { // TL-S1
			t.Error("two have it")
		}
		isLost(t, h, context.DeadlineExceeded)
		if at := lost(); time.Since(at) > time.Second {
			t.Errorf("lost %v before it was had by the next", time.Since(at))
		}
		if n.Token() <= h.Token() { // HELD-S2
			t.Errorf("token %v after %v", n.Token(), h.Token())
		}
		_, err := sc.s[0].Txn(ctx, h.Guard())
		wants(t, err, zk.ErrGuard) // HELD-S3
		must(t, h.Release(ctx))    // HELD-S4: what is over
		must(t, n.Verify(ctx))
		must(t, n.Release(ctx))
		wants(t, n.Err(), recipes.ErrReleased)
		must(t, tried(t, ctx, a).Release(ctx)) // free before its time
	})
}

// The lease is not bound to the session, nor to the process (TL-S2); the same holder goes on where it was.
func TestTimedLeaseSurvives(t *testing.T) {
	for _, how := range []string{"session closes", "session expires", "process dies", "member is cut off", "ensemble restarts"} {
		t.Run(how, func(t *testing.T) {
			onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
				first := zk.SessionSource(sc.s[0])
				if how == "member is cut off" {
					first = sc.c.Member(sc.at[0]) // its next session sees what has become of it
				}
				h := tried(t, ctx, timedLease(first, "a"))
				must(t, sc.c.Quiesce(ctx))
				src := zk.SessionSource(sc.s[1])
				switch how {
				case "session closes":
					must(t, sc.s[0].Close())
					isHeld(t, h)
				case "session expires":
					must(t, sc.c.Expire(ctx, sc.s[0]))
					isHeld(t, h)
				case "process dies":
					must(t, sc.c.Crash(sc.at[0]))
				case "member is cut off":
					sc.suspend(t, 0)
					isHeld(t, h)
				case "ensemble restarts":
					for _, m := range sc.at {
						must(t, sc.c.Crash(m))
					}
					for _, m := range sc.at {
						must(t, sc.c.Restart(ctx, m))
					}
					for _, m := range sc.at {
						must(t, sc.c.Member(m).Ready(ctx))
					}
					src = sc.c.Member(sc.at[1])
				}
				time.Sleep(time.Minute)
				refusedLease(t, ctx, timedLease(src, "b")) // TL-S2
				n := tried(t, ctx, timedLease(src, "a"))   // the job is started again: the same holder
				if n.Token() <= h.Token() {                // HELD-S2
					t.Errorf("token %v after %v", n.Token(), h.Token())
				}
				sc.c.Heal()
				if how == "member is cut off" {
					began := time.Now()
					soon(t, "two have it", h.Lost())
					if took := time.Since(began); took > time.Minute {
						t.Errorf("noticed after %v", took)
					}
					isLost(t, h, zk.ErrNoNode)
				}
				refusedLease(t, ctx, timedLease(src, "b"))
				must(t, n.Release(ctx))
			})
		})
	}
}

// Renewing makes the same right last longer: its token, its context and its guard go on.
func TestTimedLeaseRenewal(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		a, b := timedLease(sc.c.Member(sc.at[0]), "a"), timedLease(sc.s[1], "b")
		a.For, b.For = time.Minute, time.Minute
		h := tried(t, ctx, a)
		under, cancel := h.Context(ctx)
		defer cancel()
		guard := h.Guard()
		for range 10 {
			time.Sleep(50 * time.Second)
			refusedLease(t, ctx, b)
			if again := tried(t, ctx, a); again != h {
				t.Fatal("another right")
			}
			must(t, under.Err())
			_, err := sc.s[1].Txn(ctx, guard)
			must(t, err)
		}
		time.Sleep(50 * time.Second)
		isHeld(t, h)
		time.Sleep(15 * time.Second)
		isLost(t, h, context.DeadlineExceeded)
		wants(t, context.Cause(under), recipes.ErrLost, context.DeadlineExceeded)
		n := tried(t, ctx, a) // too late for a renewal: it is another one
		if n == h || n.Token() <= h.Token() {
			t.Errorf("token %v after %v", n.Token(), h.Token())
		}
		must(t, n.Release(ctx))
		m := tried(t, ctx, a)
		if m == n || m.Token() <= n.Token() {
			t.Errorf("token %v after %v", m.Token(), n.Token())
		}
		// A session that ended since does not keep anybody from giving it back.
		s, err := sc.c.Member(sc.at[0]).Session(ctx)
		must(t, err)
		must(t, sc.c.Expire(ctx, s))
		isHeld(t, m)
		must(t, m.Release(ctx))
		must(t, tried(t, ctx, b).Release(ctx))
		// Without another one nobody can: it is not said that it was given back.
		c := timedLease(sc.s[0], "c")
		n = tried(t, ctx, c)
		must(t, sc.s[0].Close())
		if err := n.Release(ctx); err == nil || n.Valid() {
			t.Errorf("released without a session: %v, valid: %v", err, n.Valid())
		}
		refusedLease(t, ctx, b)
		must(t, sc.s[1].DeleteTree(ctx, leasePath))
	})
}

// There are so many holders at a time as there are slots, of kazoo's layout (TL-S1).
func TestTimedLeaseSlots(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		lease := func(i int, holder string) *recipes.TimedLease {
			l := timedLease(sc.s[i], holder)
			l.Slots = 3
			return l
		}
		sc.c.Network().Latency(0, 2*time.Millisecond)
		for round := range size(20, 4) {
			var mu sync.Mutex
			var got []*recipes.Held
			var all sync.WaitGroup
			for i := range 9 {
				all.Go(func() {
					h, err := lease(i%3, fmt.Sprint(round, i)).Try(ctx)
					if err != nil && !errors.Is(err, recipes.ErrNotAcquired) {
						t.Error(err)
					}
					if err == nil {
						mu.Lock()
						defer mu.Unlock()
						got = append(got, h)
					}
				})
			}
			all.Wait()
			if len(got) != 3 { // TL-S1
				t.Fatalf("%d have it", len(got))
			}
			must(t, sc.c.Quiesce(ctx))
			for i := range 3 {
				stored(t, ctx, sc.s[0], fmt.Sprintf("%s/%d/lease_holder", leasePath, i))
			}
			refusedLease(t, ctx, lease(0, "late"))
			if round%2 == 0 {
				for _, h := range got {
					must(t, h.Release(ctx))
				}
			} else {
				time.Sleep(11 * time.Minute)
			}
		}
		must(t, sc.c.Quiesce(ctx))
		a := lease(0, "a")
		h := tried(t, ctx, a)
		b := tried(t, ctx, lease(1, "b"))
		must(t, sc.c.Quiesce(ctx))
		if again := tried(t, ctx, lease(2, "b")); again.Path() != b.Path() { // it has one slot, not two
			t.Errorf("%s and %s", b.Path(), again.Path())
		}
		must(t, h.Release(ctx))
		must(t, sc.s[0].DeleteTree(ctx, leasePath))
	})
}

// What kazoo writes is honoured; as long as one of its programs looks, holding its lock, nothing is had here.
func TestTimedLeaseBesideKazoo(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		put := func(data string) {
			t.Helper()
			if err := sc.s[1].Delete(ctx, leaseHolder, zk.AnyVersion); err != nil && !errors.Is(err, zk.ErrNoNode) {
				t.Fatal(err)
			}
			_, err := sc.s[1].Create(ctx, leaseHolder, []byte(data), zk.Persistent|zk.Parents)
			must(t, err)
			must(t, sc.c.Quiesce(ctx))
		}
		kazoo := func(holder string, left time.Duration) {
			put(fmt.Sprintf(`{"version": 1, "holder": %q, "end": %q}`, holder, sc.s[0].Now().Add(left).UTC().Format("2006-01-02T15:04:05")))
		}
		lease := timedLease(sc.s[0], "a")
		kazoo("b", time.Minute)
		refusedLease(t, ctx, lease)
		kazoo("b", -time.Second)
		must(t, tried(t, ctx, lease).Release(ctx))
		kazoo("a", time.Minute)
		h := tried(t, ctx, lease)
		kazoo("b", time.Minute) // by force
		synctest.Wait()
		isLost(t, h, zk.ErrNoNode)
		refusedLease(t, ctx, lease)
		kazoo("b", -time.Second)
		h = tried(t, ctx, lease)
		_, err := sc.s[1].Set(ctx, leaseHolder, fmt.Appendf(nil, `{"version": 1, "holder": "b", "end": "2099-01-02T15:04:05"}`), zk.AnyVersion) // the znode stays
		must(t, err)
		must(t, sc.c.Quiesce(ctx))
		isLost(t, h, recipes.ErrMismatch)
		must(t, sc.c.Quiesce(ctx))
		refusedLease(t, ctx, lease)

		kazoo("b", -time.Second)
		looks, err := sc.s[1].Create(ctx, leasePath+"/"+someHex+"__lock__", nil, zk.Ephemeral|zk.Sequential)
		must(t, err)
		_, err = sc.s[1].Create(ctx, leasePath+"/foreign", nil, zk.Ephemeral)
		must(t, err)
		must(t, sc.c.Quiesce(ctx))
		refusedLease(t, ctx, lease) // it may be about to write
		must(t, sc.s[1].Delete(ctx, looks.Path, zk.AnyVersion))
		must(t, sc.c.Quiesce(ctx))
		h = tried(t, ctx, lease)
		// A lock that this member has not heard of keeps it from writing.
		l := leader(t, ctx, sc.c)
		by := 1
		if sc.at[1] != l {
			by = 2
		}
		must(t, h.Release(ctx))
		for _, swapped := range []bool{false, true} {
			must(t, sc.c.Quiesce(ctx))
			sc.c.Network().Slow(zktest.Name(l), zktest.Name(sc.at[0]), 300*time.Millisecond)
			looks, err = sc.s[by].Create(ctx, leasePath+"/"+someHex+"__lock__", nil, zk.Ephemeral|zk.Sequential)
			must(t, err)
			if swapped {
				must(t, sc.s[by].Delete(ctx, leasePath+"/foreign", zk.AnyVersion)) // there are as many children as before
			}
			if _, there, err := sc.s[0].Exists(ctx, looks.Path, zk.Local); err != nil || there {
				t.Fatal("it has heard of it")
			}
			refusedLease(t, ctx, lease)
			sc.c.Heal()
			must(t, sc.s[by].Delete(ctx, looks.Path, zk.AnyVersion))
		}

		for _, data := range []string{`{"version": 2, "holder": "b", "end": "2006-01-02T15:04:05"}`, `{"version": 1, "holder": "a", "end": "soon"}`, "x", "", "[]", `{}`} {
			put(data)
			_, err := lease.Try(ctx)
			wants(t, err, recipes.ErrMismatch)
			if d, ok := errors.AsType[*recipes.DecodeError](err); !ok || d.Path != leaseHolder || d.Zxid == 0 {
				t.Errorf("%q: %v", data, err)
			}
		}
		must(t, sc.s[0].DeleteTree(ctx, leasePath))
	})
}

// A context that ends at any step, and lost answers, leave one holder or none, and the holder can tell.
func TestTimedLeaseFaults(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		outcomes, unknown := map[bool]int{}, map[bool]int{}
		for i := range size(100, 30) {
			r := rand.New(rand.NewPCG(uint64(i), 19))
			a := timedLease(sc.s[0], "a")
			sc.c.Network().Latency(time.Millisecond, 2*time.Millisecond)
			if i%3 == 0 {
				sc.c.DropForwards(sc.at[0], 1+r.IntN(3))
			}
			some, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(12))*time.Millisecond)
			h, err := a.Try(some)
			cancel()
			if (h == nil) == (err == nil) { // PEER-10
				t.Fatalf("%v and %v", h, err)
			}
			outcomes[err == nil]++
			if err != nil {
				wants(t, err, context.DeadlineExceeded)
				must(t, sc.c.Quiesce(ctx))
				_, got, missed := sc.s[0].Exists(ctx, leaseHolder)
				if must(t, missed); got && !zk.MaybeApplied(err) {
					t.Errorf("it was got, and the error says that it was not: %v", err)
				}
				unknown[got]++
				h = tried(t, ctx, a) // whatever became of it
			}
			must(t, sc.c.Quiesce(ctx))
			refusedLease(t, ctx, timedLease(sc.s[1], "b"))
			must(t, h.Release(ctx))
			sc.c.DropForwards(sc.at[0], 0)
		}
		sc.c.Heal()
		if outcomes[true] == 0 || outcomes[false] == 0 || unknown[true] == 0 || unknown[false] == 0 {
			t.Errorf("outcomes %v, where nobody was told %v", outcomes, unknown)
		}
	})
}

// One value is for all goroutines: they renew one right.
func TestTimedLeaseManyGoroutines(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		a := timedLease(sc.s[0], "a")
		got := make(chan *recipes.Held, 16)
		var all sync.WaitGroup
		for range cap(got) {
			all.Go(func() {
				h, err := a.Try(ctx)
				if err != nil {
					t.Error(err)
				}
				got <- h
			})
		}
		all.Wait()
		first := <-got
		for range cap(got) - 1 {
			if h := <-got; h != first {
				t.Error("two rights of one lease")
			}
		}
		must(t, first.Release(ctx))
		// Who waits for another call of the same value does not wait longer than its context.
		sc.c.Isolate(sc.at[0])
		slow := start(ctx, a.Try)
		synctest.Wait()
		some, cancel := context.WithCancelCause(ctx)
		next := start(some, a.Try)
		synctest.Wait()
		cancel(zk.ErrNotMember)
		wants(t, soon(t, "still waiting", next).err, context.Canceled, zk.ErrNotMember)
		sc.c.Heal()
		must(t, granted(t, slow).Release(ctx))
	})
}

// A change of the ensemble's leader, even to one whose clock is ahead, leaves at most one valid holder as far as members
// have heard of it.
func TestTimedLeaseClockJumps(t *testing.T) {
	ahead := make([]time.Duration, 3)
	var mu sync.Mutex
	cfg := zktest.Config{Configure: func(i int, cfg *zk.Config) {
		cfg.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(ahead[i])
		}
	}}
	bubble(t, 3, cfg, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		a, b := timedLease(session(t, ctx, c.Member(l)), "a"), timedLease(session(t, ctx, c.Member((l+1)%3)), "b")
		h := tried(t, ctx, a)
		mu.Lock()
		ahead[(l+1)%3] = time.Hour
		mu.Unlock()
		must(t, c.Member(l).TransferLeadership(ctx, zktest.Name((l+1)%3)))
		began := time.Now()
		eventually(t, "it is over by the ensemble's time, and valid", func() bool { return !h.Valid() }) // with the new leader's first entry
		if time.Since(began) > 10*time.Second {
			t.Errorf("it ended by its own clock, after %v", time.Since(began))
		}
		n := tried(t, ctx, b)
		isHeld(t, n)
		soon(t, "not lost", h.Lost()) // the znode is another's
		must(t, n.Release(ctx))
		residue(t, ctx, c, "/")
	})
}

// What a member carries on by its own clock while nobody leads is ahead of a next leader whose clock is behind. The lease is
// over by the ensemble's time, and not by what that member takes for it (TL-S1).
func TestTimedLeaseClockFallsBehind(t *testing.T) {
	ahead := time.Hour
	var mu sync.Mutex
	cfg := zktest.Config{Base: zk.Config{SessionTimeout: 2 * time.Minute}, Configure: func(i int, cfg *zk.Config) {
		cfg.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(ahead)
		}
	}}
	bubble(t, 3, cfg, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		session(t, ctx, c.Member(1))
		b := timedLease(session(t, ctx, c.Member(2)), "b")
		must(t, c.Quiesce(ctx))
		must(t, c.Crash(0))
		must(t, c.Crash(1))
		began := b.Session.(*zk.Session).Now()
		time.Sleep(time.Minute)
		if early := b.Session.(*zk.Session).Now(); early.Sub(began) < time.Minute { // what it has said it does not take back
			t.Fatalf("%v, and a minute later %v", began, early)
		}
		mu.Lock()
		ahead = 0
		mu.Unlock()
		must(t, c.Restart(ctx, 0))
		must(t, c.Restart(ctx, 1))
		s := session(t, ctx, c.Member(1))
		a := timedLease(s, "a")
		a.For, b.For = 10*time.Second, 10*time.Second
		must(t, c.Quiesce(ctx))
		h := tried(t, ctx, a)
		must(t, c.Quiesce(ctx))
		_, end := stored(t, ctx, s, leaseHolder)
		if early := b.Session.(*zk.Session).Now(); early.Before(end) {
			t.Fatalf("the member knows that it is %v", early)
		}
		for range 8 {
			refusedLease(t, ctx, b)
			isHeld(t, h)
			time.Sleep(time.Second)
		}
		var n *recipes.Held
		eventually(t, "never free", func() bool {
			var err error
			n, err = b.Try(ctx)
			return err == nil
		})
		if h.Valid() {
			t.Error("two have it")
		}
		must(t, n.Release(ctx))
		residue(t, ctx, c, "/")
	})
}
