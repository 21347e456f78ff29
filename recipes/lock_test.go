// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
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

// short has a lease of 2 s that is expired 4 s after its last heartbeat at the earliest: time to be suspended.
var short = zktest.Config{Base: zk.Config{SessionTimeout: 4 * time.Second, MinTimeout: 3 * time.Second, LeaseMargin: 2 * time.Second}}

// attempt is how an Acquire ended.
type attempt struct {
	h   *recipes.Held
	err error
	at  time.Time
}

func start(ctx context.Context, acquire func(context.Context) (*recipes.Held, error)) <-chan attempt {
	done := make(chan attempt, 1)
	go func() {
		h, err := acquire(ctx)
		done <- attempt{h, err, time.Now()}
	}()
	return done
}

// queue starts an Acquire and returns once its znode stands in line.
func queue(t *testing.T, ctx context.Context, l *recipes.Lock) <-chan attempt {
	t.Helper()
	n := len(inLine(t, ctx, l))
	done := start(ctx, l.Acquire)
	eventually(t, "nobody has joined the line", func() bool { return len(inLineHere(t, ctx, l)) > n })
	synctest.Wait()
	return done
}

// inLine lists who is in line, as new as the call where there is a quorum.
func inLine(t *testing.T, ctx context.Context, l *recipes.Lock) []recipes.Contender {
	t.Helper()
	s, err := l.Session.Session(ctx)
	must(t, err)
	some, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := s.Sync(some); err != nil && some.Err() == nil {
		t.Fatal(err)
	}
	return inLineHere(t, ctx, l)
}

// inLineHere lists who is in line as far as the lock's member has heard.
func inLineHere(t *testing.T, ctx context.Context, l *recipes.Lock) []recipes.Contender {
	t.Helper()
	list, err := l.Contenders(ctx)
	must(t, err)
	return list
}

func acquire(t *testing.T, ctx context.Context, l *recipes.Lock) *recipes.Held {
	t.Helper()
	h, err := l.Acquire(ctx)
	must(t, err)
	return h
}

// granted waits for an Acquire that must succeed.
func granted(t *testing.T, done <-chan attempt) *recipes.Held {
	t.Helper()
	a := soon(t, "not granted", done)
	must(t, a.err)
	if !a.h.Valid() {
		t.Fatalf("granted, but %v", a.h.Err())
	}
	return a.h
}

// waiting fails if the Acquire has ended.
func waiting(t *testing.T, done <-chan attempt) {
	t.Helper()
	synctest.Wait()
	select {
	case a := <-done:
		t.Fatalf("it ended with %v", a.err)
	default:
	}
}

func isLost(t *testing.T, h *recipes.Held, cause error) {
	t.Helper()
	synctest.Wait()
	select {
	case <-h.Lost():
	default:
		t.Fatal("not lost")
	}
	if h.Valid() {
		t.Fatal("lost and valid")
	}
	wants(t, h.Err(), recipes.ErrLost, cause)
}

func isHeld(t *testing.T, h *recipes.Held) {
	t.Helper()
	select {
	case <-h.Lost():
		t.Fatalf("lost: %v", h.Err())
	default:
	}
	must(t, h.Err())
}

// scene is a lock, contended by three members' sessions of which the first does not lead.
type scene struct {
	c     *zktest.Cluster
	at    [3]int           // the members
	locks [3]*recipes.Lock // each on a session of its own
	s     [3]*zk.Session
}

// onStage makes a scene. The last two sessions have time to spare: what happens to the first is what counts.
func onStage(t *testing.T, cfg zktest.Config, fn func(t *testing.T, ctx context.Context, sc *scene)) {
	t.Helper()
	bubble(t, 3, cfg, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := follower(t, ctx, c)
		sc := &scene{c: c, at: [3]int{f, (f + 1) % 3, (f + 2) % 3}}
		for i, m := range sc.at {
			var timeout time.Duration
			if i > 0 {
				timeout = 2 * time.Minute
			}
			s, err := c.Member(m).NewSession(ctx, zk.SessionConfig{Timeout: timeout})
			must(t, err)
			sc.s[i], sc.locks[i] = s, recipes.NewLock(s, "/app/lock")
		}
		fn(t, ctx, sc)
		c.Heal()
		residue(t, ctx, c, "/app/lock")
	})
}

// suspend cuts member i off until its session is suspended.
func (sc *scene) suspend(t *testing.T, i int) {
	t.Helper()
	sc.c.Isolate(sc.at[i])
	eventually(t, "not suspended", func() bool { return sc.s[i].State() == zk.StateSuspended })
}

func (sc *scene) active(t *testing.T, i int) {
	t.Helper()
	eventually(t, "not active", func() bool { return sc.s[i].State() == zk.StateActive })
}

// A lock is had, given back, and leaves nothing: neither a znode nor a watch, and in time no directory (LOCK-L3).
func TestLock(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		var last zk.Token
		for i, l := range sc.locks {
			h := acquire(t, ctx, l)
			if h.Token() <= last { // HELD-S2
				t.Fatalf("token %v after %v", h.Token(), last)
			}
			last = h.Token()
			isHeld(t, h)
			must(t, h.Verify(ctx))
			list := inLine(t, ctx, l)
			if len(list) != 1 || !list[0].Holding || list[0].Path != h.Path() || list[0].Token != h.Token() || list[0].Session != sc.s[i].ID() {
				t.Fatalf("in line: %+v", list)
			}
			if want := fmt.Sprintf("%s %v", sc.s[i].Member().ID(), sc.s[i].ID()); string(list[0].Data) != want {
				t.Errorf("data %q, want %q", list[0].Data, want)
			}
			if h.Session() != sc.s[i] {
				t.Error("another session")
			}
			must(t, h.Release(ctx))
			wants(t, h.Err(), recipes.ErrReleased)
			wants(t, h.Verify(ctx), recipes.ErrReleased)
			if errors.Is(h.Err(), recipes.ErrLost) {
				t.Error("released is not lost")
			}
			if list := inLine(t, ctx, l); len(list) != 0 {
				t.Fatalf("left in line: %+v", list)
			}
		}
		eventually(t, "the container was not reaped", func() bool { // LOCK-L3
			_, ok, err := sc.s[0].Exists(ctx, "/app/lock")
			must(t, err)
			return !ok
		})
		if list := inLine(t, ctx, sc.locks[0]); list != nil {
			t.Fatalf("without a directory: %+v", list)
		}
	})
}

// Those who keep waiting are granted in the order of their creates, each at once after a release: no time passes.
func TestLockOrder(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		var line []<-chan attempt
		for i := range 12 {
			line = append(line, queue(t, ctx, sc.locks[i%3])) // the third and fourth on one Lock value: two contenders
		}
		give := make([]context.CancelFunc, 0)
		for _, i := range []int{3, 4, 9} { // some give up: the line closes
			gone, cancel := context.WithCancel(ctx)
			give = append(give, cancel)
			line = slices.Insert(line, i, queue(t, gone, sc.locks[1]))
		}
		for i, cancel := range give {
			cancel()
			wants(t, soon(t, "not cancelled", line[[]int{3, 4, 9}[i]]).err, context.Canceled)
		}
		for _, i := range []int{9, 4, 3} {
			line = slices.Delete(line, i, i+1)
		}
		for i, next := range line {
			for _, later := range line[i:] {
				waiting(t, later) // LOCK-S1
			}
			last, began := h.Token(), time.Now()
			must(t, h.Release(ctx))
			h = granted(t, next)                                        // LOCK-S2
			if took := time.Since(began); took > 100*time.Millisecond { // LOCK-L1
				t.Errorf("granted %v after the release", took)
			}
			if h.Token() <= last { // HELD-S2
				t.Errorf("token %v after %v", h.Token(), last)
			}
		}
		must(t, h.Release(ctx))
	})
}

// A crashed holder's successor is granted within timeout, margin and an election (LOCK-L2).
func TestLockHolderCrashes(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprint("leader ", leads), func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				at := follower(t, ctx, c)
				other := (at + 1) % 3
				if leads {
					at = leader(t, ctx, c)
					other = (at + 1) % 3
				}
				a, b := session(t, ctx, c.Member(at)), session(t, ctx, c.Member(other))
				h := acquire(t, ctx, recipes.NewLock(a, "/l"))
				next := queue(t, ctx, recipes.NewLock(b, "/l"))
				must(t, c.Crash(at))
				isLost(t, h, zk.ErrClosed)
				began := time.Now()
				n := granted(t, next)
				if took := time.Since(began); took > a.Timeout()+2*time.Second+3*time.Second { // LOCK-L2
					t.Errorf("granted %v after the crash", took)
				}
				if n.Token() <= h.Token() {
					t.Errorf("token %v after %v", n.Token(), h.Token())
				}
				must(t, n.Release(ctx))
				residue(t, ctx, c, "/l")
			})
		})
	}
}

// A Lock on a member goes on working after the session has expired, one on a session does not.
func TestLockSource(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		l := recipes.NewLock(m, "/l")
		h := acquire(t, ctx, l)
		bound := recipes.NewLock(h.Session(), "/l")
		must(t, c.Expire(ctx, h.Session()))
		isLost(t, h, zk.ErrSuspended) // it was, before it expired
		must(t, h.Release(ctx))       // there is nothing to release
		_, err := bound.Acquire(ctx)
		wants(t, err, zk.ErrSessionExpired)
		_, err = bound.TryAcquire(ctx)
		wants(t, err, zk.ErrSessionExpired)
		_, err = bound.Contenders(ctx)
		wants(t, err, zk.ErrSessionExpired)
		n := acquire(t, ctx, l)
		if n.Session() == h.Session() || n.Token() <= h.Token() {
			t.Error("the old session, or an old token")
		}
		must(t, n.Release(ctx))
		residue(t, ctx, c, "/")
	})
}

// Two prefixes of one session are two places.
func TestLockBelowPrefix(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		for _, p := range []string{"/a", "/b"} {
			_, err := s.Create(ctx, p, nil, zk.Persistent)
			must(t, err)
		}
		a := acquire(t, ctx, recipes.NewLock(s.Sub("/a"), "/l"))
		b := acquire(t, ctx, recipes.NewLock(s.Sub("/b"), "/l"))
		_, err := recipes.NewLock(s, "/a/l").TryAcquire(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		if !strings.HasPrefix(a.Path(), "/l/") {
			t.Errorf("path %s", a.Path())
		}
		_, err = a.Session().Txn(ctx, a.Guard(), zk.OpCreate("/done", nil, zk.Persistent))
		must(t, err)
		must(t, a.Release(ctx))
		must(t, b.Release(ctx))
		must(t, s.DeleteTree(ctx, "/a"))
		must(t, s.DeleteTree(ctx, "/b"))
		residue(t, ctx, c, "/")
	})
}

// Bad arguments are refused with a typed error, before anything is written.
func TestLockArguments(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		h := acquire(t, ctx, recipes.NewLock(s, "/l"))
		before := c.Member(0).Stats().Writes
		fine := inLine(t, ctx, recipes.NewLock(s, "/l"))[0]
		nothing := func(context.Context, *recipes.Held) error { return nil }
		for name, call := range map[string]func(ctx context.Context, l *recipes.Lock) error{
			"acquire":    func(ctx context.Context, l *recipes.Lock) error { _, err := l.Acquire(ctx); return err },
			"try":        func(ctx context.Context, l *recipes.Lock) error { _, err := l.TryAcquire(ctx); return err },
			"do":         func(ctx context.Context, l *recipes.Lock) error { return l.Do(ctx, nothing) },
			"contenders": func(ctx context.Context, l *recipes.Lock) error { _, err := l.Contenders(ctx); return err },
		} {
			for why, err := range map[string]error{
				"nil context":   call(nil, recipes.NewLock(s, "/l")), //nolint:staticcheck // it is what is tested
				"nil source":    call(ctx, recipes.NewLock(nil, "/l")),
				"no path":       call(ctx, recipes.NewLock(s, "")),
				"relative path": call(ctx, recipes.NewLock(s, "l")),
				"empty name":    call(ctx, recipes.NewLock(s, "/a//b")),
				"dots":          call(ctx, recipes.NewLock(s, "/a/../b")),
				"slash":         call(ctx, recipes.NewLock(s, "/a/")),
			} {
				if !errors.Is(err, zk.ErrBadArguments) {
					t.Errorf("%s, %s: %v", name, why, err)
				}
			}
		}
		l := recipes.NewLock(s, "/l")
		for what, err := range map[string]error{
			"do nothing":          l.Do(ctx, nil),
			"break without ctx":   l.Break(nil, fine),             //nolint:staticcheck // it is what is tested
			"revoke without ctx":  recipes.Revoke(nil, s, fine),   //nolint:staticcheck // it is what is tested
			"release without ctx": h.Release(nil),                 //nolint:staticcheck // it is what is tested
			"verify without ctx":  h.Verify(nil),                  //nolint:staticcheck // it is what is tested
			"backoff without ctx": recipes.Backoff{}.Wait(nil, 0), //nolint:staticcheck // it is what is tested
			"break nothing":       l.Break(ctx, recipes.Contender{}),
			"revoke nothing":      recipes.Revoke(ctx, s, recipes.Contender{}),
			"revoke from nowhere": recipes.Revoke(ctx, nil, fine),
			"break from nowhere":  recipes.NewLock(nil, "/l").Break(ctx, fine),
		} {
			if !errors.Is(err, zk.ErrBadArguments) {
				t.Errorf("%s: %v", what, err)
			}
		}
		isHeld(t, h)
		if n := c.Member(0).Stats().Writes - before; n != 0 {
			t.Errorf("%d writes", n)
		}
		under, cancel := h.Context(nil) //nolint:staticcheck // documented
		must(t, under.Err())
		cancel()
		must(t, h.Release(ctx))
		residue(t, ctx, c, "/")
	})
}

// A lock can live at the root, beside everything else.
func TestLockAtRoot(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		l := recipes.NewLock(s, "/")
		h := acquire(t, ctx, l)
		if !regexp.MustCompile(`^/_c_[0-9a-f-]{36}-lock-\d{10}$`).MatchString(h.Path()) {
			t.Errorf("path %s", h.Path())
		}
		_, err := l.TryAcquire(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		must(t, h.Release(ctx))
		h, err = l.TryAcquire(ctx)
		must(t, err)
		must(t, h.Release(ctx))
		residue(t, ctx, c, "/")
	})
}

// TryAcquire gets what is free, and never waits for a holder. Whatever it leaves in line is gone before it returns.
func TestTryAcquire(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for i, l := range sc.locks {
			h, err := l.TryAcquire(ctx)
			must(t, err)
			for _, o := range sc.locks {
				_, err := o.TryAcquire(ctx)
				wants(t, err, recipes.ErrNotAcquired)
			}
			if list := inLine(t, ctx, l); len(list) != 1 { // LOCK-S3
				t.Fatalf("in line: %+v", list)
			}
			// A foreign child makes no difference (PEER-15).
			_, err = sc.s[0].Create(ctx, "/app/lock/foreign", nil, zk.Ephemeral)
			must(t, err)
			_, err = sc.locks[(i+1)%3].TryAcquire(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			must(t, h.Release(ctx))
			h, err = sc.locks[(i+2)%3].TryAcquire(ctx)
			must(t, err)
			_, err = l.TryAcquire(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			must(t, h.Release(ctx))
			must(t, sc.s[0].Delete(ctx, "/app/lock/foreign", zk.AnyVersion))
		}
	})
}

// What a member has not heard of yet is no reason to refuse, nor to grant: the answer is as new as the call.
func TestTryAcquireIsCurrent(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		l := leader(t, ctx, sc.c)
		deaf := 1
		if sc.at[1] == l {
			deaf = 2
		}
		// The first holds and releases; the deaf one learns of neither until it asks.
		hold := func() *recipes.Held {
			h := acquire(t, ctx, sc.locks[0])
			must(t, sc.c.Quiesce(ctx))
			return h
		}
		h := hold()
		sc.c.Network().Slow(zktest.Name(l), zktest.Name(sc.at[deaf]), 300*time.Millisecond)
		must(t, h.Release(ctx))
		if len(inLineHere(t, ctx, sc.locks[deaf])) != 1 {
			t.Fatal("it has heard of the release already")
		}
		h, err := sc.locks[deaf].TryAcquire(ctx)
		must(t, err)
		must(t, h.Release(ctx))
		must(t, sc.c.Quiesce(ctx))
		h = acquire(t, ctx, sc.locks[0])
		if len(inLineHere(t, ctx, sc.locks[deaf])) != 0 {
			t.Fatal("it has heard of the grant already")
		}
		before, _, err := sc.s[0].Exists(ctx, "/app/lock")
		must(t, err)
		_, err = sc.locks[deaf].TryAcquire(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		sc.c.Heal()
		must(t, sc.c.Quiesce(ctx))
		if after, _, err := sc.s[0].Exists(ctx, "/app/lock"); err != nil || after.Cversion != before.Cversion { // LOCK-S3
			t.Errorf("the line was changed: %+v, %v", after, err)
		}
		must(t, h.Release(ctx))
	})
}

// Many tries at once: at most one gets it, and the others leave nothing.
func TestTryAcquireAtOnce(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, foreign := range []bool{false, true} {
			if foreign {
				_, err := sc.s[0].Create(ctx, "/app/lock/foreign", nil, zk.Ephemeral|zk.Parents)
				must(t, err)
			}
			var mu sync.Mutex
			var got []*recipes.Held
			var all sync.WaitGroup
			for i := range 60 {
				all.Go(func() {
					h, err := sc.locks[i%3].TryAcquire(ctx)
					if err != nil {
						if !errors.Is(err, recipes.ErrNotAcquired) {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					defer mu.Unlock()
					got = append(got, h)
				})
			}
			all.Wait()
			if len(got) > 1 || !foreign && len(got) == 0 { // LOCK-S1
				t.Fatalf("%d got it", len(got))
			}
			must(t, sc.c.Quiesce(ctx))
			if n := len(inLine(t, ctx, sc.locks[0])); n != len(got) { // LOCK-S3
				t.Fatalf("%d in line, %d got it", n, len(got))
			}
			if st, _, err := sc.s[0].Exists(ctx, "/app/lock"); err != nil || !foreign && st.Cversion != 1 { // LOCK-S3: nobody made a znode in vain
				t.Fatalf("%d changes of the line, %v", st.Cversion, err)
			}
			for _, h := range got {
				must(t, h.Release(ctx))
			}
		}
		must(t, sc.s[0].Delete(ctx, "/app/lock/foreign", zk.AnyVersion))
	})
}

// Costs, by counters: a change that makes something dearer fails here.
func TestLockCosts(t *testing.T) {
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
			sum.Applied = sc.c.Member(sc.at[0]).Applied()
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
		l := sc.locks[0]
		h := acquire(t, ctx, l)
		must(t, h.Release(ctx)) // the directory is there
		costs("lock and unlock", 2, 0, 6, func() {
			h := acquire(t, ctx, l)
			must(t, h.Release(ctx))
		})
		costs("lock and unlock by trying", 2, 0, 10, func() {
			h, err := l.TryAcquire(ctx)
			must(t, err)
			must(t, h.Release(ctx))
		})
		h = acquire(t, ctx, l)
		costs("busy try", 0, 1, 8, func() {
			_, err := sc.locks[1].TryAcquire(ctx)
			wants(t, err, recipes.ErrNotAcquired)
		})
		costs("validity", 0, 0, 0, func() {
			for range 100 {
				isHeld(t, h)
			}
		})
		costs("verify", 0, 1, 1, func() { must(t, h.Verify(ctx)) })
		var next <-chan attempt
		costs("joining the line", 1, 0, 10, func() {
			next = start(ctx, sc.locks[1].Acquire)
			eventually(t, "not in line", func() bool { return sc.c.Member(sc.at[1]).Stats().Watches == 2 })
		})
		if n := total().Watches; n != 3 { // the holder's, and two of the waiter
			t.Errorf("%d watches", n)
		}
		own := inLine(t, ctx, sc.locks[1])[1].Path
		costs("waking for nothing", 50, 0, 150, func() {
			for range 50 {
				_, err := sc.s[1].Set(ctx, own, nil, zk.AnyVersion)
				must(t, err)
				synctest.Wait()
			}
		})
		if n := total().Watches; n != 3 { // they do not pile up
			t.Errorf("%d watches", n)
		}
		costs("hand-over", 1, 0, 4, func() {
			must(t, h.Release(ctx))
			h = granted(t, next)
		})
		must(t, h.Release(ctx))
		graceful := recipes.NewLock(sc.s[0], "/app/lock")
		graceful.Grace = time.Second
		costs("with grace", 3, 0, 6, func() {
			h := acquire(t, ctx, graceful)
			must(t, h.Release(ctx))
		})
	})
}

// However many wait, a release wakes one, and who wakes lists nothing; who waits writes nothing.
func TestLockManyWaiters(t *testing.T) {
	const n = 1000
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		reads := func() (calls, scanned int64) {
			synctest.Wait()
			for _, m := range sc.at {
				st := sc.c.Member(m).Stats()
				calls, scanned = calls+st.Reads, scanned+st.Scanned
			}
			return calls, scanned
		}
		h := acquire(t, ctx, sc.locks[0])
		_, scanned := reads()
		held := make(chan *recipes.Held)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				h, err := sc.locks[i%3].Acquire(ctx)
				if err != nil {
					t.Error(err)
				}
				held <- h
			})
		}
		eventually(t, "they are not all in line", func() bool {
			return sc.c.Member(sc.at[0]).Stats().Ephemerals == n+1
		})
		must(t, sc.c.Quiesce(ctx))
		if _, over := reads(); over-scanned > 2*n { // who comes looks at the one before it
			t.Errorf("%.1f siblings looked at by each that came", float64(over-scanned)/n)
		}
		if w := sc.c.Member(sc.at[0]).Stats().Watches + sc.c.Member(sc.at[1]).Stats().Watches + sc.c.Member(sc.at[2]).Stats().Watches; w != int64(2*n+1) {
			t.Errorf("%d watches of %d waiters", w, n)
		}
		zxid := sc.s[0].LastZxid()
		before, scanned := reads()
		time.Sleep(time.Minute)
		if r, _ := reads(); sc.s[0].LastZxid() != zxid || r != before { // waiting is free
			t.Errorf("%d log entries and %d reads in an idle minute", sc.s[0].LastZxid()-zxid, r-before)
		}
		for range n {
			last := h.Token()
			must(t, h.Release(ctx))
			if h = <-held; h == nil {
				t.Fatal("one was not granted")
			}
			if h.Token() <= last { // LOCK-S2: the order of creates is that of tokens
				t.Fatalf("token %v after %v", h.Token(), last)
			}
		}
		all.Wait()
		r, over := reads()
		if r -= before; r > int64(4*n) {
			t.Errorf("%.1f local reads for a hand-over", float64(r)/float64(n))
		}
		if over != scanned { // who is granted is the first: nobody is before it, and nobody looks further
			t.Errorf("%.1f siblings looked at for a hand-over", float64(over-scanned)/n)
		}
		if z := sc.s[0].LastZxid(); z-zxid != zk.Zxid(n) { // one entry for each release
			t.Errorf("%d log entries for %d hand-overs", z-zxid, n)
		}
		must(t, h.Release(ctx))
	})
}

// Break takes a contender out of the line, that incarnation only.
func TestBreak(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[0])
		second, third := queue(t, ctx, sc.locks[1]), queue(t, ctx, sc.locks[2])
		operator := recipes.NewLock(sc.s[1], "/app/lock")
		list := inLine(t, ctx, operator)
		if len(list) != 3 || !list[0].Holding || list[1].Holding || list[2].Holding {
			t.Fatalf("in line: %+v", list)
		}
		other := list[1]
		other.Token++ // another incarnation of the name
		must(t, operator.Break(ctx, other))
		waiting(t, second)
		must(t, operator.Break(ctx, list[1]))
		wants(t, soon(t, "still in line", second).err, recipes.ErrBroken)
		must(t, operator.Break(ctx, list[0]))
		n := granted(t, third)
		if n.Token() <= h.Token() { // HELD-S2
			t.Errorf("token %v after %v", n.Token(), h.Token())
		}
		eventually(t, "not lost", func() bool { return !h.Valid() })
		isLost(t, h, zk.ErrNoNode)
		wants(t, h.Verify(ctx), recipes.ErrLost)
		must(t, operator.Break(ctx, list[0])) // it is gone already
		must(t, h.Release(ctx))
		isHeld(t, n)
		must(t, n.Release(ctx))
	})
}

// Break does not claim success when the operator's own session has ended before anything was done.
func TestBreakSessionEnds(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		h := acquire(t, ctx, sc.locks[1])
		must(t, sc.c.Quiesce(ctx))
		list := inLine(t, ctx, sc.locks[0])
		sc.c.Isolate(sc.at[0])
		done := make(chan error, 1)
		go func() {
			time.Sleep(100 * time.Millisecond)
			done <- sc.locks[0].Break(ctx, list[0])
		}()
		must(t, sc.c.Member(sc.at[1]).KillSession(ctx, sc.s[0].ID()))
		eventually(t, "not expired", func() bool {
			all, err := sc.c.Member(sc.at[1]).Sessions(ctx)
			must(t, err)
			return !slices.ContainsFunc(all, func(i zk.SessionInfo) bool { return i.ID == sc.s[0].ID() })
		})
		sc.c.Heal()
		wants(t, soon(t, "no answer", done), zk.ErrSessionExpired)
		isHeld(t, h)
		must(t, h.Release(ctx))
	})
}

// Revoke asks; whether the holder listens is up to the holder. Curator's and ZooKeeper's way to ask is understood.
func TestRevoke(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, how := range []string{"Revoke", "__REVOKE__", "unlock"} {
			h := acquire(t, ctx, sc.locks[0])
			must(t, sc.c.Quiesce(ctx))
			next := queue(t, ctx, sc.locks[1])
			revoked := h.Revoked()
			again := h.Retain()
			if h.Revoked() != revoked || again.Revoked() != revoked {
				t.Error("another channel for the same right")
			}
			must(t, again.Release(ctx))
			_, err := sc.s[1].Set(ctx, h.Path(), []byte("something else"), zk.AnyVersion)
			must(t, err)
			must(t, sc.c.Quiesce(ctx))
			synctest.Wait()
			select {
			case <-revoked:
				t.Fatal("revoked by other data")
			default:
			}
			list := inLine(t, ctx, sc.locks[1])
			other := list[0]
			other.Token--
			must(t, recipes.Revoke(ctx, sc.s[1], other)) // another incarnation: nobody is asked
			if how == "Revoke" {
				must(t, recipes.Revoke(ctx, sc.s[1], list[0]))
			} else {
				_, err := sc.s[1].Set(ctx, h.Path(), []byte(how), zk.AnyVersion)
				must(t, err)
			}
			soon(t, "not revoked", revoked)
			time.Sleep(time.Minute)
			isHeld(t, h) // asking ends nothing
			waiting(t, next)
			must(t, h.Release(ctx))
			must(t, granted(t, next).Release(ctx))
		}
	})
}

// Do runs under the lock, gives it back whatever happens, and tells everything that went wrong.
func TestDo(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		l, failed := sc.locks[0], errors.New("failed")
		free := func() {
			t.Helper()
			if list := inLine(t, ctx, l); len(list) != 0 {
				t.Fatalf("in line: %+v", list)
			}
		}
		must(t, l.Do(ctx, func(under context.Context, h *recipes.Held) error {
			isHeld(t, h)
			return under.Err()
		}))
		free()
		err := l.Do(ctx, func(context.Context, *recipes.Held) error { return failed })
		if !errors.Is(err, failed) || errors.Is(err, recipes.ErrLost) {
			t.Errorf("%v", err)
		}
		free()
		// A panic goes on, after the lock was given back.
		func() {
			defer func() {
				if p := recover(); p != failed {
					t.Errorf("panic %v", p)
				}
				free()
			}()
			l.Do(ctx, func(context.Context, *recipes.Held) error { panic(failed) })
		}()
		// It may be given back early, or kept longer by Retain.
		must(t, l.Do(ctx, func(under context.Context, h *recipes.Held) error {
			must(t, h.Release(ctx))
			<-under.Done()
			wants(t, context.Cause(under), recipes.ErrReleased)
			return nil
		}))
		free()
		var kept *recipes.Held
		must(t, l.Do(ctx, func(_ context.Context, h *recipes.Held) error {
			kept = h.Retain()
			return nil
		}))
		isHeld(t, kept)
		must(t, kept.Release(ctx))
		free()
		// The caller's context ends fn's, and not the release.
		some, cancel := context.WithCancelCause(ctx)
		wants(t, l.Do(some, func(under context.Context, h *recipes.Held) error {
			cancel(failed)
			<-under.Done()
			isHeld(t, h)
			return context.Cause(under)
		}), failed)
		free()
		wants(t, l.Do(some, func(context.Context, *recipes.Held) error { t.Error("called"); return nil }), failed, context.Canceled)
		// The loss is told beside fn's own error, and ends fn's context (PEER-19, PEER-14).
		sc.suspend(t, 0)
		sc.c.Heal()
		sc.active(t, 0)
		err = l.Do(ctx, func(under context.Context, h *recipes.Held) error {
			sc.c.Isolate(sc.at[0])
			<-under.Done()
			wants(t, context.Cause(under), recipes.ErrLost, zk.ErrSuspended)
			sc.c.Heal()
			return failed
		})
		wants(t, err, failed, recipes.ErrLost, zk.ErrSuspended)
		eventually(t, "it is still there", func() bool { return len(inLine(t, ctx, sc.locks[1])) == 0 })
	})
}

// Do does not wait longer than the session's timeout for a release that cannot be had.
func TestDoGivesUp(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		var began time.Time
		err := sc.locks[0].Do(ctx, func(context.Context, *recipes.Held) error {
			sc.c.Isolate(sc.at[0])
			began = time.Now()
			return nil
		})
		if took := time.Since(began); took > sc.s[0].Timeout() {
			t.Errorf("it took %v", took)
		}
		if err == nil || !zk.MaybeApplied(err) {
			t.Errorf("error %v", err)
		}
		sc.c.Heal()
	})
}

// Backoff waits between nothing and its bound, which doubles up to Max, and ends with ctx.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		for _, tc := range []struct {
			b       recipes.Backoff
			attempt int
			bound   time.Duration
		}{
			{recipes.Backoff{}, 0, 10 * time.Millisecond},
			{recipes.Backoff{}, -1, 10 * time.Millisecond},
			{recipes.Backoff{}, 1, 20 * time.Millisecond},
			{recipes.Backoff{}, 6, 640 * time.Millisecond},
			{recipes.Backoff{}, 7, time.Second},
			{recipes.Backoff{}, math.MaxInt, time.Second},
			{recipes.Backoff{Base: time.Minute}, 0, time.Minute},
			{recipes.Backoff{Base: time.Minute}, 9, time.Minute},
			{recipes.Backoff{Base: time.Second, Max: time.Hour}, 3, 8 * time.Second},
			{recipes.Backoff{Base: -1, Max: -1}, 3, 80 * time.Millisecond},
		} {
			most := time.Duration(0)
			for range 50 {
				some, cancel := context.WithTimeout(ctx, tc.bound)
				began := time.Now()
				err := tc.b.Wait(some, tc.attempt)
				cancel()
				if err != nil && time.Since(began) < tc.bound {
					t.Fatal(err)
				}
				most = max(most, time.Since(began))
			}
			if most > tc.bound || most < tc.bound/2 { // that no wait of 50 reaches half of the bound has a chance of 2^-50
				t.Errorf("%+v, attempt %d: the longest wait was %v of %v", tc.b, tc.attempt, most, tc.bound)
			}
		}
		for attempt := range 80 { // no bound is too high
			some, cancel := context.WithTimeout(ctx, time.Second)
			if err := (recipes.Backoff{Base: 1, Max: math.MaxInt64}).Wait(some, attempt); attempt > 50 {
				wants(t, err, context.DeadlineExceeded)
			}
			cancel()
		}
		gone, cancel := context.WithCancelCause(ctx)
		cancel(zk.ErrNotMember)
		wants(t, recipes.Backoff{Base: time.Hour}.Wait(gone, 0), context.Canceled, zk.ErrNotMember)
	})
}
