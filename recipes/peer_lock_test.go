// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// ledger has every grant of one path, and checks them against each other.
type ledger struct {
	mu       sync.Mutex
	grants   []*recipes.Held
	operator bool // somebody deletes znodes by hand: until that is applied two may be valid (HELD-S1)
}

// enter notes a grant as soon as it is had.
func (g *ledger) enter(t *testing.T, h *recipes.Held) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range g.grants {
		if o.Token() == h.Token() {
			t.Errorf("token %v twice", h.Token())
		}
		older := o
		if o.Token() > h.Token() { // h was noted late
			older = h
		}
		if !g.operator && older.Valid() { // HELD-S1
			t.Errorf("%v and %v are valid", o.Token(), h.Token())
		}
	}
	if n := len(g.grants); !g.operator && n > 0 && g.grants[n-1].Token() >= h.Token() { // HELD-S2
		t.Errorf("token %v after %v", h.Token(), g.grants[n-1].Token())
	}
	g.grants = append(g.grants, h)
}

func (g *ledger) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.grants)
}

// work acquires and releases until ctx ends; what else goes wrong is none of its business.
func (g *ledger) work(t *testing.T, ctx context.Context, l *recipes.Lock, try bool, hold time.Duration) {
	for ctx.Err() == nil {
		acquire := l.Acquire
		if try {
			acquire = l.TryAcquire
		}
		h, err := acquire(ctx)
		if (h == nil) == (err == nil) { // PEER-10
			t.Errorf("%v and %v", h, err)
		}
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, recipes.ErrNotAcquired) && !errors.Is(err, recipes.ErrBroken) && !errors.Is(err, zk.ErrSessionExpired) && !errors.Is(err, zk.ErrClosed) {
				t.Error(err)
			}
			if errors.Is(err, zk.ErrClosed) {
				return
			}
			recipes.Backoff{}.Wait(ctx, 3)
			continue
		}
		g.enter(t, h)
		under, cancel := h.Context(ctx)
		select {
		case <-under.Done():
		case <-time.After(hold):
		}
		cancel()
		h.Release(context.WithoutCancel(ctx))
	}
}

// A holder that is cut off is told so before anybody else is granted the lock.
func TestPeer01HolderGoesOn(t *testing.T) {
	seeds := size(1000, 40)
	if testing.Short() {
		seeds = 10
	}
	const each = 100 // in one ensemble
	for from := 0; from < seeds; from += each {
		bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 2 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			for seed := from; seed < min(from+each, seeds); seed++ {
				r := rand.New(rand.NewPCG(uint64(seed), 1))
				at := r.IntN(3) // leader or not
				l, other := recipes.NewLock(c.Member(at), "/l"), recipes.NewLock(c.Member((at+1)%3), "/l")
				h := acquire(t, ctx, l)
				next := queue(t, ctx, other)
				lost := stopwatch(h.Lost())
				time.Sleep(time.Duration(r.Int64N(int64(3 * time.Second))))
				c.Isolate(at)
				a := soon(t, "not granted", next)
				must(t, a.err)
				if h.Valid() { // PEER-01, HELD-S1, E2
					t.Fatalf("seed %d: valid beside the next", seed)
				}
				if at := lost(); !at.Before(a.at) { // PEER-01
					t.Fatalf("seed %d: lost at %v, the next was granted at %v", seed, at, a.at)
				}
				isLost(t, h, zk.ErrSuspended)
				c.Heal()
				must(t, a.h.Release(ctx))
				must(t, h.Release(ctx))
				must(t, c.Quiesce(ctx))
			}
			residue(t, ctx, c, "/")
		})
	}
}

// Packets vanish without an error: the holder knows within the lease.
func TestPeer02Silence(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		time.Sleep(time.Minute)
		sc.c.Network().Drop(1)
		began := time.Now()
		soon(t, "not lost", h.Lost())
		if took := time.Since(began); took > sc.s[0].Timeout() { // PEER-02
			t.Errorf("noticed after %v", took)
		}
		isLost(t, h, zk.ErrSuspended)
	})
}

// A new session does not adopt what the dying one has left.
func TestPeer03DyingSession(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		l := recipes.NewLock(c.Member(at), "/l")
		rival := recipes.NewLock(session(t, ctx, c.Member((at+1)%3)), "/l")
		for _, waits := range []bool{false, true} {
			var first <-chan attempt
			var h *recipes.Held
			if waits {
				h = acquire(t, ctx, rival)
				must(t, c.Quiesce(ctx))
				first = queue(t, ctx, l)
			} else {
				h = acquire(t, ctx, l)
			}
			old, err := c.Member(at).Session(ctx)
			must(t, err)
			dying := make(chan error, 1)
			go func() { dying <- c.Expire(ctx, old) }()
			var again <-chan attempt
			<-old.Done()
			again = start(ctx, l.Acquire) // at once
			must(t, <-dying)
			if waits {
				wants(t, soon(t, "still waiting", first).err, zk.ErrSessionExpired)
				must(t, h.Release(ctx))
			}
			n := granted(t, again)
			must(t, c.Quiesce(ctx))
			list := inLine(t, ctx, rival)
			if n.Session() == old || len(list) != 1 || list[0].Session == old.ID() || list[0].Session != n.Session().ID() || n.Token() <= h.Token() { // PEER-03, E3
				t.Fatalf("granted to %v, in line %+v", n.Session().ID(), list)
			}
			must(t, n.Release(ctx))
		}
		residue(t, ctx, c, "/")
	})
}

// A name is not enough: who finds a znode of another session in the place of its own is not in line any more.
func TestPeer03AnotherInItsPlace(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		next := queue(t, ctx, sc.locks[1])
		path := inLine(t, ctx, sc.locks[0])[1].Path
		_, err := sc.s[2].Txn(ctx, zk.OpDelete(path, zk.AnyVersion), zk.OpCreate(path, nil, zk.Ephemeral))
		must(t, err)
		wants(t, soon(t, "waits by the znode of another", next).err, recipes.ErrBroken) // PEER-03
		must(t, sc.s[2].Delete(ctx, path, zk.AnyVersion))
		must(t, h.Release(ctx))
	})
}

// A create whose answer is lost made one znode, and it is found.
func TestPeer04LostAnswer(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for n := range 6 {
			for name, acquire := range map[string]func(context.Context) (*recipes.Held, error){"acquire": sc.locks[0].Acquire, "try": sc.locks[0].TryAcquire} {
				sc.c.DropForwards(sc.at[0], n)
				h, err := acquire(ctx)
				must(t, err)
				must(t, sc.c.Quiesce(ctx))
				if list := inLine(t, ctx, sc.locks[1]); len(list) != 1 || list[0].Token != h.Token() { // PEER-04, E1
					t.Fatalf("%s, %d answers lost: in line %+v", name, n, list)
				}
				sc.c.DropForwards(sc.at[0], n)
				must(t, h.Release(ctx))
				must(t, sc.c.Quiesce(ctx))
				if list := inLine(t, ctx, sc.locks[1]); len(list) != 0 {
					t.Fatalf("%s, %d answers lost: in line %+v", name, n, list)
				}
				sc.c.DropForwards(sc.at[0], 0)
			}
		}
	})
}

// The leader dies after it has committed, before the answer: each write takes effect once (E1).
func TestPeer05LeaderDiesAfterCommit(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		var h *recipes.Held
		for i, write := range []struct {
			name string
			call func(l *recipes.Lock) error
		}{
			{"acquire", func(l *recipes.Lock) (err error) { h, err = l.Acquire(ctx); return err }},
			{"release", func(l *recipes.Lock) error { return h.Release(ctx) }},
			{"try", func(l *recipes.Lock) (err error) { h, err = l.TryAcquire(ctx); return err }},
			{"revoke", func(l *recipes.Lock) error { return recipes.Revoke(ctx, h.Session(), inLineHere(t, ctx, l)[0]) }},
			{"break", func(l *recipes.Lock) error { return l.Break(ctx, inLineHere(t, ctx, l)[0]) }},
			{"grace", func(l *recipes.Lock) (err error) { l.Grace = time.Second; h, err = l.Acquire(ctx); return err }},
			{"release", func(l *recipes.Lock) error { return h.Release(ctx) }},
		} {
			at, third := -1, -1
			lead := leader(t, ctx, c)
			if h != nil { // the holder's member must not be the leader
				at = slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return c.Member(i) == h.Session().Member() })
				if at == lead {
					must(t, c.Member(at).TransferLeadership(ctx, ""))
					lead = leader(t, ctx, c)
				}
			} else {
				at = (lead + 1) % 3
			}
			third = 3 - at - lead
			must(t, c.Quiesce(ctx))
			src, err := c.Member(at).Session(ctx)
			must(t, err)
			l := recipes.NewLock(src, "/l")
			z := c.Member(third).Applied()
			var before zk.Stat
			s, err := c.Member(third).Session(ctx)
			must(t, err)
			must(t, c.Quiesce(ctx))
			before, _, err = s.Exists(ctx, "/l")
			must(t, err)
			synctest.Wait() // until the stream that is to be cut has its answer
			z = c.Member(third).Applied()
			c.Network().Cut(zktest.Name(lead), zktest.Name(at))
			done := make(chan error, 1)
			go func() { done <- write.call(l) }()
			eventually(t, write.name+" was not committed", func() bool { return c.Member(third).Applied() > z })
			must(t, c.Crash(lead))
			c.Heal()
			must(t, soon(t, write.name+": no answer", done))
			must(t, c.Restart(ctx, lead))
			must(t, c.Member(lead).Ready(ctx))
			must(t, c.Quiesce(ctx))
			after, _, err := s.Exists(ctx, "/l")
			must(t, err)
			changes := map[string]int32{"revoke": 0}
			if want, ok := changes[write.name]; ok && after.Cversion != before.Cversion+want || !ok && i > 0 && after.Cversion != before.Cversion+1 { // PEER-05
				t.Errorf("%s: %d changes of the line", write.name, after.Cversion-before.Cversion)
			}
			wantLine := map[string]int{"acquire": 1, "try": 1, "revoke": 1, "grace": 1}[write.name]
			if list := inLine(t, ctx, recipes.NewLock(s, "/l")); len(list) != wantLine { // PEER-04
				t.Errorf("%s: in line %+v", write.name, list)
			}
		}
		residue(t, ctx, c, "/")
	})
}

// However many tries fail, and however, they leave nothing.
func TestPeer06FailedTries(t *testing.T) {
	n := size(10_000, 2000)
	if testing.Short() {
		n = 300
	}
	bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 3 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(0, 3*time.Millisecond)
		var all sync.WaitGroup
		g := &ledger{}
		for w := range 10 {
			r := rand.New(rand.NewPCG(uint64(w), 6))
			all.Go(func() {
				for range n / 10 {
					l := recipes.NewLock(c.Member(r.IntN(3)), "/l")
					some, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(60))*time.Millisecond)
					h, err := l.TryAcquire(some)
					cancel()
					if (h == nil) == (err == nil) {
						t.Errorf("%v and %v", h, err)
					}
					if err == nil {
						g.enter(t, h)
						time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
						h.Release(ctx)
					}
				}
			})
		}
		chaos, stop := context.WithCancel(ctx)
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, 6))
			for chaos.Err() == nil {
				at := r.IntN(3)
				switch r.IntN(3) {
				case 0:
					c.DropForwards(at, 1+r.IntN(3))
				case 1:
					c.Isolate(at)
				case 2:
					c.Member(at).TransferLeadership(chaos, "")
				}
				time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
				c.Heal()
				c.Network().Latency(0, 3*time.Millisecond)
				time.Sleep(50 * time.Millisecond)
			}
		})
		time.Sleep(time.Minute)
		stop()
		all.Wait()
		if len(g.grants) == 0 {
			t.Error("no try had success")
		}
		c.Heal()
		residue(t, ctx, c, "/") // PEER-06
	})
}

// What cleans up after a cancelled wait is not cancelled with it: nothing of it stands in the successor's way.
func TestPeer07CancelledWait(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, cut := range []bool{false, true} {
			h := acquire(t, ctx, sc.locks[1])
			must(t, sc.c.Quiesce(ctx))
			some, cancel := context.WithCancel(ctx)
			gone := queue(t, some, sc.locks[0])
			next := queue(t, ctx, sc.locks[2])
			if cut {
				sc.c.Isolate(sc.at[0])
			}
			cancel()
			wants(t, soon(t, "still waiting", gone).err, context.Canceled)
			must(t, h.Release(ctx))
			if cut {
				time.Sleep(time.Second)
				waiting(t, next)
				sc.c.Heal()
			}
			must(t, granted(t, next).Release(ctx)) // PEER-07, E10
		}
	})
}

// A member that has too much to do when a wait is cancelled does not leave the znode behind (E10).
func TestPeer07Throttled(t *testing.T) {
	const queued = 8
	onStage(t, zktest.Config{Base: zk.Config{MaxQueuedWrites: queued}}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		must(t, sc.c.Quiesce(ctx))
		some, cancel := context.WithCancel(ctx)
		gone := queue(t, some, sc.locks[0])
		sc.c.Isolate(sc.at[0])
		l := sc.s[0].Listener()
		done := make(chan *zk.Call, 100)
		for range 100 {
			l.Go(ctx, done, zk.OpCheck("/", zk.AnyVersion))
			synctest.Wait()
		}
		_, err := sc.s[0].Txn(context.Background()) // does not wait for room
		wants(t, err, zk.ErrThrottled)
		cancel()
		wants(t, soon(t, "still waiting", gone).err, context.Canceled)
		synctest.Wait()
		sc.c.Heal()
		for range 100 {
			<-done
		}
		must(t, h.Release(ctx))
		eventually(t, "a ghost is in line", func() bool { return len(inLine(t, ctx, sc.locks[1])) == 0 }) // PEER-07
	})
}

// A waiter whose session ends while it is blocked is not granted what is released then, however both are learnt.
func TestPeer08ExpiredWaiter(t *testing.T) {
	for _, how := range []string{"expires", "suspended", "expires while cut off", "snapshot"} {
		t.Run(how, func(t *testing.T) {
			onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
				h := acquire(t, ctx, sc.locks[1])
				must(t, sc.c.Quiesce(ctx))
				next := queue(t, ctx, sc.locks[0])
				if how == "expires" {
					must(t, sc.c.Expire(ctx, sc.s[0]))
					must(t, h.Release(ctx))
					wants(t, soon(t, "still waiting", next).err, zk.ErrSessionExpired) // PEER-08
					return
				}
				expire := func() {
					must(t, sc.c.Member(sc.at[1]).KillSession(ctx, sc.s[0].ID()))
					eventually(t, "not expired", func() bool { return len(inLine(t, ctx, sc.locks[1])) == 1 })
				}
				switch how {
				case "suspended":
					sc.suspend(t, 0)
				case "snapshot":
					leaveBehind(t, ctx, sc.c, sc.at[0], sc.s[1], expire)
				default:
					sc.c.Isolate(sc.at[0])
					expire()
				}
				must(t, h.Release(ctx))
				waiting(t, next)
				sc.c.Heal()
				a := soon(t, "still waiting", next)
				if how == "suspended" {
					must(t, a.err)
					isHeld(t, a.h)
					must(t, a.h.Release(ctx))
				} else {
					wants(t, a.err, zk.ErrSessionExpired) // PEER-08, E8
				}
			})
		})
	}
}

// An expired waiter does not wait for those before it.
func TestPeer09ExpiredWaiterReturns(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		must(t, sc.c.Quiesce(ctx))
		second := queue(t, ctx, sc.locks[2])
		must(t, sc.c.Quiesce(ctx))
		var rest []<-chan attempt
		for range 50 {
			rest = append(rest, queue(t, ctx, sc.locks[0]))
		}
		over := stopwatch(sc.s[0].Done())
		must(t, sc.c.Expire(ctx, sc.s[0]))
		at := over()
		for _, waiter := range rest { // all at once, whatever they were doing
			a := soon(t, "still waiting", waiter)
			wants(t, a.err, zk.ErrSessionExpired)
			if a.at != at { // PEER-09
				t.Errorf("it returned %v after the end", a.at.Sub(at))
			}
		}
		isHeld(t, h)
		waiting(t, second)
		must(t, h.Release(ctx))
		must(t, granted(t, second).Release(ctx))
	})
}

// Wherever a context ends, there is a lock or an error, and with the error nothing else.
func TestPeer10CancelAtEachStep(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, busy := range []bool{false, true} {
			for name, l := range map[string]func(context.Context) (*recipes.Held, error){
				"acquire": sc.locks[0].Acquire, "try": sc.locks[0].TryAcquire,
				"do": func(ctx context.Context) (got *recipes.Held, err error) {
					err = sc.locks[0].Do(ctx, func(_ context.Context, h *recipes.Held) error { got = h; return nil })
					return got, err
				},
			} {
				var h *recipes.Held
				if busy {
					h = acquire(t, ctx, sc.locks[1])
				}
				sc.c.Network().Latency(2*time.Millisecond, 2*time.Millisecond)
				outcomes := map[bool]int{}
				for d := time.Duration(0); d < 30*time.Millisecond; d += 500 * time.Microsecond {
					some, cancel := context.WithTimeout(ctx, d)
					got, err := l(some)
					cancel()
					if (got == nil) == (err == nil) { // PEER-10
						t.Fatalf("%s, cut after %v: %v and %v", name, d, got, err)
					}
					if got != nil {
						if busy {
							t.Fatal("granted beside a holder")
						}
						must(t, got.Release(ctx))
					} else {
						if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, recipes.ErrNotAcquired) {
							t.Fatalf("%s, cut after %v: %v", name, d, err)
						}
					}
					outcomes[err == nil]++
				}
				sc.c.Heal()
				if outcomes[false] == 0 || (outcomes[true] == 0) != busy {
					t.Errorf("%s: outcomes %v", name, outcomes)
				}
				if busy {
					eventually(t, "something is left in line", func() bool { return len(inLine(t, ctx, sc.locks[1])) == 1 })
					must(t, h.Verify(ctx))
					must(t, h.Release(ctx))
				}
				eventually(t, "something is left in line", func() bool { return len(inLine(t, ctx, sc.locks[1])) == 0 })
			}
		}
	})
}

// A release that comes late, or twice, deletes nobody else's lock.
func TestPeer11LateRelease(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		l := leader(t, ctx, sc.c)
		h := acquire(t, ctx, sc.locks[0])
		must(t, sc.c.Quiesce(ctx))
		next := queue(t, ctx, sc.locks[1])
		synctest.Wait()                                           // until the stream that is to be cut has its answer
		sc.c.Network().Cut(zktest.Name(l), zktest.Name(sc.at[0])) // the answer does not arrive
		some, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		wants(t, h.Release(some), context.DeadlineExceeded)
		n := granted(t, next)
		late := make(chan error, 1)
		go func() { late <- h.Release(ctx) }()
		synctest.Wait()
		sc.c.Heal()
		must(t, soon(t, "no answer", late))
		must(t, h.Release(ctx))
		must(t, n.Verify(ctx)) // PEER-11, HELD-S4
		isHeld(t, n)
		// The same session again: the name is another, and so is the incarnation.
		must(t, n.Release(ctx))
		again := acquire(t, ctx, sc.locks[0])
		must(t, h.Release(ctx))
		must(t, again.Verify(ctx)) // PEER-11
		must(t, again.Release(ctx))
		// Even the name may be taken again while a release is on its way: it deletes the incarnation that it holds.
		h = acquire(t, ctx, sc.locks[0])
		must(t, sc.c.Quiesce(ctx))
		sc.c.Network().Isolate(zktest.Name(sc.at[0]))
		short, stop := context.WithTimeout(ctx, 500*time.Millisecond)
		defer stop()
		wants(t, h.Release(short), context.DeadlineExceeded)
		must(t, sc.s[1].Delete(ctx, h.Path(), zk.AnyVersion))
		_, err := sc.s[1].Create(ctx, h.Path(), nil, zk.Ephemeral)
		must(t, err)
		sc.c.Heal()
		must(t, h.Release(ctx))
		if st, ok, err := sc.s[1].Exists(ctx, h.Path()); !ok || st.EphemeralOwner != sc.s[1].ID() { // PEER-11, HELD-S4
			t.Errorf("a late release deleted a newer znode: %+v, %v", st, err)
		}
		must(t, sc.s[1].Delete(ctx, h.Path(), zk.AnyVersion))
	})
}

// A release that fails is not forgotten.
func TestPeer12FailedRelease(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		gone, cancel := context.WithCancel(ctx)
		cancel()
		for _, again := range []bool{true, false} {
			h := acquire(t, ctx, sc.locks[0])
			next := queue(t, ctx, sc.locks[1])
			sc.c.Isolate(sc.at[0])
			wants(t, h.Release(gone), context.Canceled)
			sc.c.Heal()
			if again {
				must(t, h.Release(ctx)) // PEER-12, HELD-L2
				if n := len(inLine(t, ctx, sc.locks[0])); n != 1 {
					t.Errorf("%d in line", n)
				}
			}
			must(t, granted(t, next).Release(ctx)) // PEER-12: also where nobody asks again
		}
	})
}

// A suspension at any step of an acquire, and its end, are survived.
func TestPeer13SuspendedAtEachStep(t *testing.T) {
	steps := 24
	if testing.Short() {
		steps = 8
	}
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		for i := range steps {
			acquire := sc.locks[0].Acquire
			if i%2 == 1 {
				acquire = sc.locks[0].TryAcquire
			}
			var h *recipes.Held
			if i%4 == 0 {
				h, _ = sc.locks[1].Acquire(ctx)
			}
			sc.c.Network().Latency(2*time.Millisecond, 2*time.Millisecond)
			next := start(ctx, acquire)
			time.Sleep(time.Duration(i) * 500 * time.Microsecond)
			sc.c.Partition([]int{0}, []int{1}, []int{2}) // nobody can expire it
			eventually(t, "not suspended", func() bool { return sc.s[0].State() == zk.StateSuspended })
			sc.c.Heal()
			sc.active(t, 0)
			if h != nil {
				must(t, h.Release(ctx))
			}
			a := soon(t, "it hangs", next) // PEER-13
			must(t, a.err)
			if a.h.Valid() {
				must(t, a.h.Verify(ctx))
			} else {
				isLost(t, a.h, zk.ErrSuspended)
			}
			must(t, a.h.Release(ctx))
			eventually(t, "it is still in line", func() bool { return len(inLine(t, ctx, sc.locks[1])) == 0 })
		}
	})
}

// The order of numbers holds where an int32 would turn negative, and where they grow past ten digits.
func TestPeer16LargeNumbers(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		numbers := []string{"2147483646", "2147483647", "2147483648", "2147483649", "4294967296", "9999999999", "10000000000", "10000000001"}
		for i := range numbers {
			name := fmt.Sprintf("/app/lock/_c_%x%s-lock-%s", i, someUUID[1:], numbers[len(numbers)-1-i]) // names in the other order
			_, err := sc.s[0].Create(ctx, name, nil, zk.Ephemeral)
			must(t, err)
		}
		list := inLine(t, ctx, sc.locks[0])
		if len(list) != len(numbers)+1 || list[0].Token != h.Token() {
			t.Fatalf("in line: %+v", list)
		}
		for i, c := range list[1:] {
			if fmt.Sprintf("%010d", c.Seq) != numbers[i] || !strings.HasSuffix(c.Path, numbers[i]) { // PEER-16, E11
				t.Errorf("%s is at %d", c.Path, i)
			}
			before, ok, err := sc.s[0].Preceding(ctx, c.Path, func(string) bool { return true })
			must(t, err)
			if !ok || before.Path != list[i].Path { // PEER-16, E5
				t.Errorf("before %s is %s", c.Path, before.Path)
			}
		}
		must(t, h.Verify(ctx))
		for _, c := range list {
			must(t, sc.locks[1].Break(ctx, c))
		}
	})
}

// Every call that waits returns as soon as its context ends, whatever it waits for.
func TestPeer17EveryWaitHasContext(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		must(t, sc.c.Quiesce(ctx))
		holder := inLine(t, ctx, sc.locks[0])[0]
		nothing := func(context.Context, *recipes.Held) error { return nil }
		calls := map[string]func(ctx context.Context) error{
			"acquire":     func(ctx context.Context) error { _, err := sc.locks[0].Acquire(ctx); return err },
			"acquire far": func(ctx context.Context) error { _, err := sc.locks[1].Acquire(ctx); return err },
			"try":         func(ctx context.Context) error { _, err := sc.locks[0].TryAcquire(ctx); return err },
			"do":          func(ctx context.Context) error { return sc.locks[1].Do(ctx, nothing) },
			"break": func(ctx context.Context) error {
				return sc.locks[0].Break(ctx, recipes.Contender{Path: holder.Path, Token: 1})
			},
			"revoke":  func(ctx context.Context) error { return recipes.Revoke(ctx, sc.s[0], holder) },
			"verify":  h.Verify,
			"backoff": func(ctx context.Context) error { return recipes.Backoff{Base: 1 << 60}.Wait(ctx, 0) },
			"release": h.Release, // the last one
		}
		names := []string{"acquire", "acquire far", "try", "do", "break", "revoke", "verify", "backoff", "release"}
		sc.c.Isolate(sc.at[0])
		cause := errors.New("enough")
		// A context that has ended before is seen by all of them.
		gone, cancel := context.WithCancelCause(ctx)
		cancel(cause)
		for _, name := range names[:len(names)-1] {
			wants(t, calls[name](gone), context.Canceled, cause) // PEER-17
		}
		_, err := sc.locks[0].Contenders(gone)
		wants(t, err, context.Canceled)
		for _, name := range names {
			some, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			done := make(chan error, 1)
			go func() { done <- calls[name](some) }()
			time.Sleep(10 * time.Millisecond)
			select {
			case err := <-done:
				t.Errorf("%s does not wait: %v", name, err)
				continue
			default:
			}
			cancel(cause)
			synctest.Wait()
			select {
			case err := <-done: // PEER-17
				wants(t, err, context.Canceled, cause)
			default:
				t.Errorf("%s goes on waiting", name)
			}
		}
	})
}

// Everything can be called from everywhere: there are no callbacks, and no lock is held while yours run.
func TestPeer18NoDeadlock(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		l := sc.locks[0]
		every := func(h *recipes.Held) {
			list := inLine(t, ctx, l)
			if len(list) == 0 {
				t.Fatal("nobody is in line")
			}
			_, err := l.TryAcquire(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			some, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err = l.Acquire(some) // a second one waits for the first, whoever calls
			wants(t, err, context.DeadlineExceeded)
			wants(t, l.Do(some, func(context.Context, *recipes.Held) error { return nil }), context.DeadlineExceeded)
			must(t, recipes.Revoke(ctx, sc.s[0], list[0]))
			soon(t, "not revoked", h.Revoked())
			must(t, h.Verify(ctx))
			must(t, h.Retain().Release(ctx))
			under, stop := h.Context(ctx)
			must(t, under.Err())
			stop()
			must(t, l.Break(ctx, list[0]))
			soon(t, "not lost", h.Lost())
			must(t, h.Release(ctx))
		}
		err := l.Do(ctx, func(under context.Context, h *recipes.Held) error { // PEER-18
			every(h)
			<-under.Done()
			return nil
		})
		wants(t, err, recipes.ErrLost, zk.ErrNoNode)
		h := acquire(t, ctx, l)
		done := make(chan struct{})
		go func() { // on whose goroutine the loss is learnt makes no difference
			defer close(done)
			<-h.Lost()
			n := acquire(t, ctx, l)
			every(n)
		}()
		must(t, h.Release(ctx))
		soon(t, "it hangs", done) // PEER-18
	})
}

// No error hides another.
func TestPeer19BothErrors(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		mine := errors.New("mine")
		err := sc.locks[0].Do(ctx, func(under context.Context, h *recipes.Held) error {
			must(t, sc.s[0].Delete(ctx, h.Path(), zk.AnyVersion))
			<-under.Done()
			return fmt.Errorf("stopped: %w", errors.Join(mine, context.Cause(under)))
		})
		wants(t, err, mine, recipes.ErrLost, zk.ErrNoNode) // PEER-19
		err = sc.locks[0].Do(ctx, func(under context.Context, h *recipes.Held) error {
			sc.c.Isolate(sc.at[0])
			return mine
		})
		wants(t, err, mine, context.DeadlineExceeded, zk.ErrUnavailable) // PEER-19: the release's own
		sc.c.Heal()
		some, cancel := context.WithCancelCause(ctx)
		h := acquire(t, ctx, sc.locks[1])
		next := queue(t, some, sc.locks[0])
		cancel(mine)
		wants(t, soon(t, "still waiting", next).err, mine, context.Canceled) // PEER-19
		must(t, h.Release(ctx))
	})
}

// The reaper, or an operator, takes the directory away between any two steps: no call fails for it.
func TestPeer20ParentReaped(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{ReapInterval: 100 * time.Millisecond}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(0, 2*time.Millisecond)
		reaped := 0
		g := &ledger{}
		for i := range 120 {
			r := rand.New(rand.NewPCG(uint64(i), 20))
			l := recipes.NewLock(c.Member(i%3), "/a/b/l")
			acquire := l.Acquire
			if i%2 == 0 {
				acquire = l.TryAcquire
			}
			if i%5 == 0 {
				l.Grace = time.Second
			}
			h, err := acquire(ctx)
			must(t, err) // PEER-20, E7
			g.enter(t, h)
			if i > 0 && strings.HasSuffix(h.Path(), "-0000000000") {
				reaped++
			}
			must(t, h.Verify(ctx))
			must(t, h.Release(ctx)) // PEER-20
			time.Sleep(time.Duration(r.IntN(120)) * time.Millisecond)
		}
		if reaped == 0 {
			t.Error("nothing was ever reaped")
		}
		c.Heal()
		residue(t, ctx, c, "/") // PEER-21
	})
}

// Locks that were used leave no directories, however many there were (LOCK-L3).
func TestPeer21NoLitter(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		before := c.Member(0).Stats()
		for i := range 60 {
			l := recipes.NewLock(c.Member(i%3), fmt.Sprintf("/locks/%d/deep", i))
			l.Grace = time.Duration(i%2) * time.Second
			h, err := l.TryAcquire(ctx)
			must(t, err)
			_, err = l.TryAcquire(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			must(t, h.Release(ctx))
		}
		residue(t, ctx, c, "/") // PEER-21, LOCK-L3
		must(t, c.Quiesce(ctx))
		if after := c.Member(0).Stats(); after.Znodes != before.Znodes || after.Ephemerals != 0 || after.DataBytes != before.DataBytes {
			t.Errorf("%d znodes of %d bytes were %d of %d", after.Znodes, after.DataBytes, before.Znodes, before.DataBytes)
		}
	})
}

// Ten changes of the leader, by vote or by death, cost nobody a lock nor a place in line.
func TestPeer22Elections(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const home = 0 // where they are: it does not die
		var held []*recipes.Held
		var lines []<-chan attempt
		for i := range 5 {
			l := recipes.NewLock(session(t, ctx, c.Member(home)), fmt.Sprint("/l/", i))
			held = append(held, acquire(t, ctx, l))
			lines = append(lines, queue(t, ctx, recipes.NewLock(session(t, ctx, c.Member(home)), l.Path)))
		}
		for i := range 10 {
			l := leader(t, ctx, c)
			if i%2 == 0 || l == home {
				must(t, c.Member(home).TransferLeadership(ctx, ""))
			} else {
				must(t, c.Crash(l))
				leader(t, ctx, c)
				must(t, c.Restart(ctx, l))
				must(t, c.Member(l).Ready(ctx))
			}
			time.Sleep(2 * time.Second)
			for j, h := range held {
				isHeld(t, h) // PEER-22, E12
				must(t, h.Verify(ctx))
				waiting(t, lines[j])
			}
		}
		for j, h := range held {
			must(t, h.Release(ctx))
			must(t, granted(t, lines[j]).Release(ctx)) // PEER-22
		}
		residue(t, ctx, c, "/")
	})
}

// On a bad network at most one holds it at any time, and tokens increase.
func TestPeer23BadNetwork(t *testing.T) {
	seeds, rounds := size(100, 6), 25
	if testing.Short() {
		seeds, rounds = 2, 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, 3, zktest.Config{Seed: uint64(seed), Base: zk.Config{SessionTimeout: 2 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				g := &ledger{}
				working, stop := context.WithCancel(ctx)
				var all sync.WaitGroup
				for i := range 6 {
					all.Go(func() { g.work(t, working, recipes.NewLock(c.Member(i%3), "/l"), i == 5, 30*time.Millisecond) })
				}
				r := rand.New(rand.NewPCG(uint64(seed), 23))
				for range rounds {
					c.Network().Latency(0, time.Duration(r.IntN(80))*time.Millisecond)
					switch at := r.IntN(3); r.IntN(6) {
					case 0:
						c.Network().Drop(.05)
					case 1:
						c.Isolate(at)
					case 2:
						c.Network().Cut(zktest.Name(at), zktest.Name((at+1+r.IntN(2))%3))
					case 3:
						c.Network().Reset(zktest.Name(at), zktest.Name((at+1)%3))
					case 4:
						c.Pause(at)
						time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
						c.Resume(at)
					case 5:
						c.DropForwards(at, 2)
					}
					time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
					c.Heal()
					time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
				}
				c.Heal()
				time.Sleep(10 * time.Second)
				n := g.len()
				time.Sleep(time.Second)
				if more := g.len() - n; more == 0 || n < 50 { // PEER-23
					t.Errorf("%d grants, %d more in the last second", n, more)
				}
				stop()
				all.Wait()
				residue(t, ctx, c, "/")
			})
		})
	}
}

// Half re-entrant is worse than not: only handles count, and a try never blocks on one's own lock.
func TestPeer24HalfReentrant(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, ops := range []string{"r", "Rrr", "RRrrr", "RrRrr", "Rrtr", "tRrtr", "RtrRttrr"} {
			h := acquire(t, ctx, sc.locks[0])
			handles, released := []*recipes.Held{h}, 0
			for i, op := range ops {
				switch op {
				case 'R':
					handles = append(handles, handles[len(handles)-1].Retain())
				case 'r':
					must(t, handles[released].Release(ctx))
					released++
				case 't':
					began := time.Now()
					_, err := sc.locks[0].TryAcquire(ctx)
					wants(t, err, recipes.ErrNotAcquired) // PEER-24
					if took := time.Since(began); took > time.Second {
						t.Errorf("%s: a try took %v", ops, took)
					}
				}
				free := len(inLine(t, ctx, sc.locks[0])) == 0
				if last := i == len(ops)-1; free != last { // PEER-24, REENT-S1
					t.Fatalf("%s: free after step %d: %v", ops, i, free)
				}
			}
		}
	})
}

// lockFaults is what goes wrong while a call is under way. Each is given the scene, of which the first is the victim.
var lockFaults = map[string]func(t *testing.T, ctx context.Context, sc *scene, r *rand.Rand){
	"suspend": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand) {
		sc.c.Partition([]int{0}, []int{1}, []int{2})
		for sc.s[0].State() == zk.StateActive {
			time.Sleep(10 * time.Millisecond)
		}
	},
	"isolate": func(t *testing.T, ctx context.Context, sc *scene, r *rand.Rand) {
		sc.c.Isolate(sc.at[0])
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
	},
	"isolate until it is expired": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand) {
		sc.c.Isolate(sc.at[0])
		time.Sleep(3 * sc.s[0].Timeout())
	},
	"expire": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand) { must(t, sc.c.Expire(ctx, sc.s[0])) },
	"crash the leader": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand) {
		l := sc.at[2]
		must(t, sc.c.Crash(l))
		leader(t, ctx, sc.c)
		must(t, sc.c.Restart(ctx, l))
		must(t, sc.c.Member(l).Ready(ctx))
	},
	"lose answers": func(_ *testing.T, _ context.Context, sc *scene, r *rand.Rand) {
		sc.c.DropForwards(sc.at[0], 1+r.IntN(4))
	},
	"change leader": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand) {
		sc.c.Member(sc.at[0]).TransferLeadership(ctx, "")
	},
	"cancel": nil,
	"delete its znode": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand) {
		for _, c := range inLine(t, ctx, sc.locks[1]) {
			if c.Session == sc.s[0].ID() {
				must(t, sc.locks[1].Break(ctx, c))
			}
		}
	},
	"delete the parent": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand) {
		if err := sc.s[1].DeleteTree(ctx, "/app/lock"); err != nil && !errors.Is(err, zk.ErrNoNode) {
			t.Error(err)
		}
	},
	"snapshot": func(t *testing.T, ctx context.Context, sc *scene, _ *rand.Rand) {
		sc.c.Isolate(sc.at[0])
		outgrow(t, ctx, sc.c, sc.at[0], sc.s[1])
	},
}

// Whatever goes wrong at whatever step of whichever call: nobody is granted beside another, and nothing is left.
func TestLockFaults(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 1
	}
	for n, name := range slices.Sorted(maps.Keys(lockFaults)) {
		fault := lockFaults[name]
		for k, what := range []string{"acquire", "acquire busy", "try", "try busy", "release", "grace"} {
			if testing.Short() && (n+k)%3 > 0 { // each fault twice
				continue
			}
			t.Run(name+" during "+what, func(t *testing.T) {
				bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 3 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
					g := &ledger{operator: strings.HasPrefix(name, "delete")}
					for round := range rounds {
						r := rand.New(rand.NewPCG(uint64(round), uint64(len(name)+100*len(what))))
						at := follower(t, ctx, c) // the third member leads, and has no session of ours
						sc := &scene{c: c, at: [3]int{at, (at + 1) % 3, (at + 2) % 3}}
						if leader(t, ctx, c) == sc.at[1] {
							sc.at[1], sc.at[2] = sc.at[2], sc.at[1]
						}
						for i := range sc.s {
							s, err := c.Member(sc.at[min(i, 1)]).NewSession(ctx, zk.SessionConfig{Timeout: time.Duration(min(i, 1)) * time.Minute})
							must(t, err)
							sc.s[i], sc.locks[i] = s, recipes.NewLock(s, "/app/lock")
						}
						if what == "grace" {
							sc.locks[0].Grace = 100 * time.Millisecond
						}
						var rival *recipes.Held
						if strings.HasSuffix(what, "busy") {
							rival = acquire(t, ctx, sc.locks[1])
							g.enter(t, rival)
						}
						var h *recipes.Held
						if what == "release" {
							h = acquire(t, ctx, sc.locks[0])
							g.enter(t, h)
						}
						var other <-chan attempt // comes before the call under test where that has to wait anyway
						if what == "release" || rival != nil {
							other = queue(t, ctx, sc.locks[2])
						}
						must(t, c.Quiesce(ctx))
						c.Network().Latency(0, 3*time.Millisecond)
						some, cancel := context.WithCancel(ctx)
						done := make(chan attempt, 1)
						go func() {
							var a attempt
							switch what {
							case "release":
								a.err = h.Release(some)
							case "try", "try busy":
								a.h, a.err = sc.locks[0].TryAcquire(some)
							default:
								a.h, a.err = sc.locks[0].Acquire(some)
							}
							if a.h != nil {
								g.enter(t, a.h)
							}
							done <- a
						}()
						time.Sleep(time.Duration(r.IntN(15000)) * time.Microsecond)
						if fault == nil {
							cancel()
						} else {
							fault(t, ctx, sc, r)
						}
						c.Heal()
						if rival != nil {
							must(t, rival.Release(ctx))
						}
						if other == nil {
							other = start(ctx, sc.locks[2].Acquire)
						}
						take := func(other <-chan attempt) {
							a := soon(t, "the other one is not granted", other)
							if a.err != nil {
								if !g.operator || !errors.Is(a.err, recipes.ErrBroken) {
									t.Fatal(a.err)
								}
								return
							}
							g.enter(t, a.h)
							must(t, a.h.Release(ctx))
						}
						var a attempt
						select { // whoever is first in line is waited for first
						case a = <-done:
						case b := <-other:
							first := make(chan attempt, 1)
							first <- b
							take(first)
							other = nil
							a = soon(t, what+" hangs", done)
						case <-time.After(10 * time.Minute):
							t.Fatal("both hang")
						}
						if what == "release" {
							if a.err != nil && fault != nil {
								t.Errorf("release: %v", a.err)
							}
							if h.Valid() {
								t.Error("released and valid")
							}
						} else if (a.h == nil) == (a.err == nil) { // PEER-10
							t.Errorf("%v and %v", a.h, a.err)
						}
						if err := a.err; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, recipes.ErrNotAcquired) && !errors.Is(err, zk.ErrSessionExpired) &&
							!(g.operator && errors.Is(err, recipes.ErrBroken)) {
							t.Errorf("error %v", err)
						}
						if a.h != nil {
							must(t, a.h.Release(ctx))
						}
						if other != nil {
							take(other) // whatever became of the first
						}
						cancel()
						eventually(t, "somebody is left in line", func() bool { return len(inLine(t, ctx, sc.locks[1])) == 0 })
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
