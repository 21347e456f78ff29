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

// usher sees every change of a double barrier, in order, and keeps count.
type usher struct {
	t     *testing.T
	dir   string
	size  int
	late  bool
	watch *zk.Watch
	done  chan struct{}

	mu       sync.Mutex // guards the fields below
	present  map[string]bool
	ready    bool
	invited  map[string]bool // were there when a round began, or came while it was under way if that is allowed
	rounds   int
	most     int // were there at a time
	openings []zk.Zxid
}

func watchOver(t *testing.T, ctx context.Context, s *zk.Session, dir string, size int, late bool) *usher {
	t.Helper()
	w, err := s.Watch(ctx, dir, zk.WatchSubtree)
	must(t, err)
	u := &usher{t: t, dir: dir, size: size, late: late, watch: w, done: make(chan struct{}), present: map[string]bool{}, invited: map[string]bool{}}
	go func() {
		defer close(u.done)
		for ev := range w.Events() {
			u.see(ev)
		}
	}()
	return u
}

// crowd is how many have been there at a time since it was last asked.
func (u *usher) crowd() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.most
	u.most = len(u.present)
	return n
}

func (u *usher) see(ev zk.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	created := ev.Type == zk.EventCreated
	switch name, ok := strings.CutPrefix(ev.Path, u.dir+"/"); {
	case ev.Type == zk.EventOverflow:
		u.t.Error("too slow")
	case !ok || ev.Type == zk.EventChanged || ev.Type == zk.EventChildren:
	case name == "ready":
		u.ready = created
		if !created {
			break
		}
		if len(u.present) < u.size { // DB-S1, DB-S2
			u.t.Errorf("zxid %v: a round of %d began with %d", ev.Zxid, u.size, len(u.present))
		}
		u.rounds++
		u.openings = append(u.openings, ev.Zxid)
		for p := range u.present {
			u.invited[p] = true
		}
	case created:
		u.present[ev.Path] = true
		u.most = max(u.most, len(u.present))
		if u.late && u.ready {
			u.invited[ev.Path] = true
		}
	default:
		delete(u.present, ev.Path)
	}
}

// close waits until the usher has seen everything, and checks that nobody else than those it counted has entered.
func (u *usher) close(ctx context.Context, s *zk.Session, entered ...string) {
	u.t.Helper()
	must(u.t, s.Sync(ctx))
	u.watch.Close()
	<-u.done
	for _, p := range entered {
		if !u.invited[p] {
			u.t.Errorf("%s entered, but was never among %d", p, u.size) // DB-S1, DB-S3
		}
	}
}

// inside counts the znodes of a double barrier as a member has them.
func inside(t *testing.T, ctx context.Context, s *zk.Session, dir string) (members int, ready bool) {
	t.Helper()
	names, _, err := s.Children(ctx, dir)
	if !errors.Is(err, zk.ErrNoNode) {
		must(t, err)
	}
	for _, name := range names {
		if name == "ready" {
			ready = true
		} else {
			members++
		}
	}
	return members, ready
}

// guests are members of a double barrier that have entered, or wait to.
type guest struct {
	m   *recipes.Membership
	err error
}

func entering(ctx context.Context, b *recipes.DoubleBarrier) <-chan guest {
	ch := make(chan guest, 1)
	go func() {
		m, err := b.Enter(ctx)
		ch <- guest{m, err}
	}()
	synctest.Wait()
	return ch
}

func admitted(t *testing.T, ch <-chan guest) *recipes.Membership {
	t.Helper()
	g := soon(t, "not admitted", ch)
	must(t, g.err)
	return g.m
}

func leaving(ctx context.Context, m *recipes.Membership) <-chan error {
	return started(1, func(int) error { return m.Leave(ctx) })
}

func TestDoubleBarrier(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		var s [3]*zk.Session
		for i := range s {
			s[i] = session(t, ctx, c.Member(i))
		}
		u := watchOver(t, ctx, s[0], "/db", 3, false)
		var entered []string
		writes := func() (n int64) {
			for i := range 3 {
				n += c.Member(i).Stats().Writes
			}
			return n
		}
		for range 3 {
			before := writes()
			var waits [3]<-chan guest
			var m [3]*recipes.Membership
			for i := range s {
				waits[i] = entering(ctx, recipes.NewDoubleBarrier(s[i], "/db", 3))
				if i < 2 {
					still(t, "too few are there", waits[i]) // DB-S1
				}
			}
			for i := range waits {
				m[i] = admitted(t, waits[i])
				entered = append(entered, m[i].Path())
				if !m[i].Valid() {
					t.Error(m[i].Err())
				}
			}
			first, second := leaving(ctx, m[0]), leaving(ctx, m[2])
			still(t, "one is still inside", first)
			still(t, "one is still inside", second)
			last := leaving(ctx, m[1])
			for _, ch := range []<-chan error{first, second, last} {
				all(t, "all have left", 1, ch)
			}
			if n := writes() - before; n > 2*3+3 { // n+1 to enter and n to leave, if only one tried to begin and to end
				t.Errorf("%d writes for a round", n)
			}
			for _, m := range m {
				wants(t, m.Err(), recipes.ErrReleased)
				wants(t, m.Leave(ctx), recipes.ErrReleased)
			}
			if n, ready := inside(t, ctx, s[0], "/db"); n != 0 || ready {
				t.Fatalf("%d members, ready %v", n, ready)
			}
		}
		u.close(ctx, s[0], entered...)
		if u.rounds != 3 {
			t.Errorf("%d rounds", u.rounds)
		}
		_, err := recipes.NewDoubleBarrier(s[0], "/db", 0).Enter(ctx)
		wants(t, err, zk.ErrBadArguments)
		residue(t, ctx, c, "/db")
	})
}

// Do leaves whatever fn does, and joins the errors.
func TestDoubleBarrierDo(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		b := recipes.NewDoubleBarrier(c.Member(0), "/db", 2)
		wrong := errors.New("wrong")
		done := started(2, func(i int) error {
			return b.Do(ctx, func(ctx context.Context) error {
				if i == 0 {
					return wrong
				}
				time.Sleep(time.Second)
				return ctx.Err()
			})
		})
		failed := 0
		for range 2 {
			if err := soon(t, "done", done); errors.Is(err, wrong) {
				failed++
			} else {
				must(t, err)
			}
		}
		if failed != 1 {
			t.Errorf("%d errors", failed)
		}
		wants(t, b.Do(ctx, nil), zk.ErrBadArguments)
		done = started(2, func(i int) (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("panic %v", p)
				}
			}()
			return b.Do(ctx, func(context.Context) error {
				if i == 0 {
					panic("oh")
				}
				return nil
			})
		})
		if a, b := soon(t, "done", done), soon(t, "done", done); (a == nil) == (b == nil) {
			t.Errorf("%v, %v", a, b)
		}
		residue(t, ctx, c, "/db")
	})
}

// Many rounds with random members, who give up entering or leaving at random, come while a round is under way, lose
// their sessions, and find their ready deleted.
func TestDoubleBarrierRounds(t *testing.T) {
	for _, late := range []bool{false, true} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("late %v seed %d", late, seed), func(t *testing.T) {
				bubble(t, 3, zktest.Config{Seed: seed, Base: zk.Config{WatchBuffer: 1 << 16, SessionTimeout: 2 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
					doubleBarrierRounds(t, ctx, c, seed, late)
				})
			})
		}
	}
}

func doubleBarrierRounds(t *testing.T, ctx context.Context, c *zktest.Cluster, seed uint64, late bool) {
	const size, people, rounds = 3, 8, 60
	observer := session(t, ctx, c.Member(0))
	u := watchOver(t, ctx, observer, "/db", size, late)
	var mu sync.Mutex
	var entered []string
	over := func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.rounds >= rounds
	}
	var crowd sync.WaitGroup
	end, stop := context.WithCancel(ctx)
	for i := range people {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		pause := func() { time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond) }
		crowd.Go(func() {
			var s *zk.Session
			for !over() && end.Err() == nil {
				if s == nil || s.Err() != nil {
					s = session(t, ctx, c.Member(i%3))
				}
				b := &recipes.DoubleBarrier{Session: s, Path: "/db", Size: size, AllowLate: late}
				once, cancel := end, context.CancelFunc(func() {})
				if r.IntN(4) == 0 {
					once, cancel = context.WithTimeout(end, time.Duration(r.IntN(40))*time.Millisecond)
				}
				m, err := b.Enter(once)
				cancel()
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
						t.Errorf("enter: %v", err)
					}
					continue
				}
				mu.Lock()
				entered = append(entered, m.Path())
				mu.Unlock()
				st, ready, err := s.Exists(ctx, "/db/ready")
				if err != nil {
					t.Error(err)
				}
				pause()
				switch r.IntN(20) {
				case 0: // dies inside
					s.Close()
					continue
				case 1:
					if !late { // an operator; what is begun anew meanwhile is another round
						observer.Delete(ctx, "/db/ready", zk.AnyVersion)
					}
				}
				once, cancel = context.WithTimeout(ctx, time.Minute)
				hasty := r.IntN(6) == 0
				if hasty {
					once, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(20))*time.Millisecond)
				}
				err = m.Leave(once)
				cancel()
				switch {
				case err != nil && !(hasty && errors.Is(err, context.DeadlineExceeded)):
					t.Errorf("leave: %v", err)
				case err == nil && ready && !late:
					if again, ok, _ := s.Exists(ctx, "/db/ready"); ok && again.Czxid == st.Czxid {
						t.Error("it left, and its round goes on")
					}
				}
				if r.IntN(3) == 0 {
					pause()
				}
			}
		})
	}
	eventually(t, "no progress", over)
	stop()
	crowd.Wait()
	eventually(t, "somebody is left", func() bool {
		n, _ := inside(t, ctx, observer, "/db")
		return n == 0
	})
	u.close(ctx, observer, entered...)
	must(t, c.Quiesce(ctx))
	t.Logf("%d entered in %d rounds", len(entered), u.rounds)
}

func TestDoubleBarrierEvents(t *testing.T) {
	type room struct {
		*testing.T
		ctx  context.Context
		c    *zktest.Cluster
		s    [3]*zk.Session
		far  int // the member where s[2] is: it does not lead
		come func(i int) <-chan guest
	}
	full := func(t *room) (m [3]*recipes.Membership) {
		var ch [3]<-chan guest
		for i := range ch {
			ch[i] = t.come(i)
		}
		for i := range ch {
			m[i] = admitted(t.T, ch[i])
		}
		return m
	}
	end := func(t *room, what string, chs ...<-chan error) {
		for _, ch := range chs {
			all(t.T, what, 1, ch)
		}
		eventually(t.T, "something is left", func() bool {
			n, ready := inside(t.T, t.ctx, t.s[0], "/db")
			return n == 0 && !ready
		})
	}
	for name, cell := range map[string]func(t *room){
		"session expires before ready": func(t *room) {
			a, gone := t.come(0), t.come(2)
			must(t.T, t.c.Expire(t.ctx, t.s[2]))
			wants(t.T, soon(t.T, "expired", gone).err, zk.ErrSessionExpired)
			b := t.come(1)
			still(t.T, "the expired one does not count", a) // DB-S1
			t.s[2] = session(t.T, t.ctx, t.c.Member(t.far))
			d := t.come(2)
			admitted(t.T, a)
			admitted(t.T, b)
			admitted(t.T, d)
		},
		"session expires after ready": func(t *room) {
			m := full(t)
			a, b := leaving(t.ctx, m[0]), leaving(t.ctx, m[1])
			must(t.T, t.c.Expire(t.ctx, t.s[2]))
			wants(t.T, m[2].Leave(t.ctx), recipes.ErrLost)
			end(t, "the expired one has left", a, b) // DB-L3
		},
		"leader changes before ready": func(t *room) {
			a, b := t.come(1), t.come(2)
			crashLeader(t.T, t.ctx, t.c)
			still(t.T, "too few are there", a)
			third := entering(t.ctx, recipes.NewDoubleBarrier(t.s[2], "/db", 3))
			for _, ch := range []<-chan guest{a, b, third} {
				admitted(t.T, ch)
			}
		},
		"leader changes after ready": func(t *room) {
			var chs [3]<-chan guest
			for i := range chs { // on the members that stay
				chs[i] = entering(t.ctx, recipes.NewDoubleBarrier(t.s[1+i%2], "/db", 3))
			}
			var m [3]*recipes.Membership
			for i := range chs {
				m[i] = admitted(t.T, chs[i])
			}
			a := leaving(t.ctx, m[0])
			crashLeader(t.T, t.ctx, t.c)
			still(t.T, "two are inside", a)
			for _, m := range m[1:] {
				if !m.Valid() {
					t.Error(m.Err())
				}
			}
			t.s[0] = t.s[1]
			end(t, "all have left", a, leaving(t.ctx, m[1]), leaving(t.ctx, m[2]))
		},
		"ctx ends in Enter": func(t *room) {
			why := errors.New("why")
			some, cancel := context.WithCancelCause(t.ctx)
			ch := entering(some, recipes.NewDoubleBarrier(t.s[0], "/db", 3))
			cancel(why)
			wants(t.T, soon(t.T, "ended", ch).err, context.Canceled, why)
			end(t, "") // DB-L1
			full(t)
		},
		"ctx ends in Leave": func(t *room) {
			m := full(t)
			began := time.Now()
			some, cancel := context.WithTimeout(t.ctx, 100*time.Millisecond)
			defer cancel()
			wants(t.T, m[0].Leave(some), context.DeadlineExceeded) // DB-L2
			if took := time.Since(began); took > 150*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			wants(t.T, m[0].Err(), recipes.ErrReleased)
			end(t, "it has left all the same", leaving(t.ctx, m[1]), leaving(t.ctx, m[2])) // DB-L3
		},
		"ctx ends in Leave, and again": func(t *room) {
			m := full(t)
			for range 3 {
				some, cancel := context.WithTimeout(t.ctx, 100*time.Millisecond)
				done := leaving(some, m[0])
				wants(t.T, m[0].Leave(some), context.DeadlineExceeded) // DB-L2
				wants(t.T, soon(t.T, "ended", done), context.DeadlineExceeded)
				cancel()
			}
			again := leaving(t.ctx, m[0])
			still(t.T, "two are inside", again) // DB-L2
			second := leaving(t.ctx, m[1])
			still(t.T, "one is inside", again)
			still(t.T, "one is inside", second)
			end(t, "all have left", again, second, leaving(t.ctx, m[2]))
			for _, m := range m {
				wants(t.T, m.Leave(t.ctx), recipes.ErrReleased)
			}
		},
		"ctx ends in Leave, the member is cut off": func(t *room) {
			m := full(t)
			t.c.Isolate(t.far)
			some, cancel := context.WithTimeout(t.ctx, 100*time.Millisecond)
			defer cancel()
			wants(t.T, m[2].Leave(some), context.DeadlineExceeded)
			again := leaving(t.ctx, m[2])
			a, b := leaving(t.ctx, m[0]), leaving(t.ctx, m[1])
			t.c.Heal()
			end(t, "all have left", again, a, b) // DB-L3
		},
		"all give up leaving": func(t *room) {
			m := full(t)
			some, cancel := context.WithCancel(t.ctx)
			cancel()
			for _, m := range m {
				wants(t.T, m.Leave(some), context.Canceled)
			}
			end(t, "nobody is inside", leaving(t.ctx, m[1]))
			full(t)
		},
		"session expires after a Leave": func(t *room) {
			m := full(t)
			some, cancel := context.WithTimeout(t.ctx, 100*time.Millisecond)
			defer cancel()
			wants(t.T, m[2].Leave(some), context.DeadlineExceeded)
			must(t.T, t.c.Expire(t.ctx, t.s[2]))
			wants(t.T, m[2].Leave(t.ctx), zk.ErrSessionExpired)
			end(t, "all have left", leaving(t.ctx, m[0]), leaving(t.ctx, m[1]))
		},
		"process dies before ready": func(t *room) {
			a, gone := t.come(0), t.come(2)
			must(t.T, t.c.Crash(t.far))
			if soon(t.T, "closed", gone).err == nil {
				t.Error("it entered")
			}
			eventually(t.T, "the dead one counts", func() bool {
				n, _ := inside(t.T, t.ctx, t.s[0], "/db")
				return n == 1
			})
			b := t.come(1)
			still(t.T, "too few are there", a) // DB-S1
			third := entering(t.ctx, recipes.NewDoubleBarrier(t.s[0], "/db", 3))
			admitted(t.T, a)
			admitted(t.T, b)
			admitted(t.T, third)
		},
		"process dies after ready": func(t *room) {
			m := full(t)
			a, b := leaving(t.ctx, m[0]), leaving(t.ctx, m[1])
			must(t.T, t.c.Crash(t.far))
			end(t, "the dead one has left", a, b) // DB-L3
		},
		"all of the round die": func(t *room) {
			var ch [3]<-chan guest
			for i := range ch {
				ch[i] = entering(t.ctx, recipes.NewDoubleBarrier(t.s[2], "/db", 3))
			}
			for i := range ch {
				admitted(t.T, ch[i])
			}
			next := []<-chan guest{t.come(0), t.come(1), entering(t.ctx, recipes.NewDoubleBarrier(t.s[0], "/db", 3))}
			still(t.T, "a round is under way", next[0]) // DB-S3
			must(t.T, t.c.Crash(t.far))
			for _, ch := range next { // DB-L3
				admitted(t.T, ch)
			}
		},
		"operator deletes a member that waits": func(t *room) {
			ch := t.come(0)
			names, _, err := t.s[1].Children(t.ctx, "/db", zk.Linearizable)
			must(t.T, err)
			must(t.T, t.s[1].Delete(t.ctx, "/db/"+names[0], zk.AnyVersion))
			wants(t.T, soon(t.T, "broken", ch).err, recipes.ErrBroken)
			full(t) // DB-L4
		},
		"operator deletes a member inside": func(t *room) {
			m := full(t)
			must(t.T, t.s[1].Delete(t.ctx, m[2].Path(), zk.AnyVersion))
			soon(t.T, "lost", m[2].Lost())
			wants(t.T, m[2].Leave(t.ctx), recipes.ErrLost, zk.ErrNoNode)
			end(t, "", leaving(t.ctx, m[0]), leaving(t.ctx, m[1]))
		},
		"operator deletes ready": func(t *room) {
			m := full(t)
			waits := t.come(0)
			must(t.T, t.s[1].Delete(t.ctx, "/db/ready", zk.AnyVersion))
			// Four are there at one moment, so a round may begin with them.
			again := admitted(t.T, waits) // DB-S1
			left := leaving(t.ctx, m[0])
			still(t.T, "two are inside", left) // ready or not: kazoo's members delete it when they begin to leave
			second := leaving(t.ctx, m[1])
			still(t.T, "one is inside", left)
			must(t.T, m[2].Leave(t.ctx))
			end(t, "all have left", left, second, leaving(t.ctx, again))
		},
		"ready goes at once": func(t *room) { // a member of kazoo's comes last, and has left before anybody looks
			a, b := t.come(0), t.come(1)
			still(t.T, "too few are there", a)
			_, err := t.s[2].Txn(t.ctx, zk.OpCreate("/db/k", nil, zk.Ephemeral), zk.OpCreate("/db/ready", nil, zk.Persistent),
				zk.OpDelete("/db/ready", zk.AnyVersion), zk.OpDelete("/db/k", zk.AnyVersion))
			must(t.T, err)
			m := [2]*recipes.Membership{admitted(t.T, a), admitted(t.T, b)}
			left := leaving(t.ctx, m[0])
			still(t.T, "one is inside", left)
			end(t, "all have left", left, leaving(t.ctx, m[1]))
		},
		"operator deletes everything": func(t *room) {
			a := t.come(0)
			must(t.T, t.s[1].DeleteTree(t.ctx, "/db"))
			wants(t.T, soon(t.T, "broken", a).err, recipes.ErrBroken)
			m := full(t)
			must(t.T, t.s[1].DeleteTree(t.ctx, "/db"))
			for i := range m {
				soon(t.T, "lost", m[i].Lost())
				wants(t.T, m[i].Leave(t.ctx), recipes.ErrLost)
			}
		},
		"suspended while it waits": func(t *room) {
			a, b := t.come(2), t.come(0)
			t.c.Isolate(t.far)
			time.Sleep(t.s[2].Timeout() * 95 / 100)
			third := t.come(1)
			t.c.Heal()
			for _, ch := range []<-chan guest{b, third, a} {
				if m := admitted(t.T, ch); !m.Valid() {
					t.Error(m.Err())
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				l := leader(t, ctx, c)
				r := &room{T: t, ctx: ctx, c: c, far: (l + 2) % 3}
				for i := range r.s {
					r.s[i] = session(t, ctx, c.Member((l+i)%3))
				}
				r.come = func(i int) <-chan guest { return entering(ctx, recipes.NewDoubleBarrier(r.s[i], "/db", 3)) }
				cell(r)
			})
		})
	}
}

// A member that comes while a round is under way waits for the next one, or is admitted if that is allowed.
func TestDoubleBarrierLateMembers(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		two := func(late bool) *recipes.DoubleBarrier {
			return &recipes.DoubleBarrier{Session: s, Path: fmt.Sprint("/late-", late), Size: 2, AllowLate: late, Data: []byte("x")}
		}
		for _, late := range []bool{false, true} {
			a, b := entering(ctx, two(late)), entering(ctx, two(late))
			first, second := admitted(t, a), admitted(t, b)
			third := entering(ctx, two(late))
			if !late {
				still(t, "the round is not over", third) // DB-S3
				gone := leaving(ctx, first)
				still(t, "the round is not over", third) // DB-S3
				must(t, second.Leave(ctx))
				all(t, "the round is over", 1, gone)
				still(t, "one alone", third) // DB-S1, DB-S3
				fourth := entering(ctx, two(late))
				x, y := admitted(t, third), admitted(t, fourth)
				gone = leaving(ctx, x)
				must(t, y.Leave(ctx))
				all(t, "the round is over", 1, gone)
				continue
			}
			x := admitted(t, third)
			gone := leaving(ctx, first)
			second.Release(ctx)
			still(t, "the late one is inside", gone)
			must(t, x.Leave(ctx))
			all(t, "the round is over", 1, gone)
		}
		residue(t, ctx, c, "/late-false")
		residue(t, ctx, c, "/late-true")
	})
}

// Entering wakes each once; leaving wakes two for each that leaves, and all at the end.
func TestDoubleBarrierWakeups(t *testing.T) {
	reads := func(size int) int64 {
		var total int64
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			m := c.Member(0)
			before := m.Stats().Reads
			begun := make(chan *recipes.Membership, size)
			done := started(size, func(int) error {
				in, err := recipes.NewDoubleBarrier(m, "/db", size).Enter(ctx)
				if err == nil {
					begun <- in
				}
				return err
			})
			all(t, "all are there", size, done)
			entered := m.Stats().Reads - before
			done = started(size, func(int) error { return (<-begun).Leave(ctx) })
			all(t, "all leave", size, done)
			if n, ready := inside(t, ctx, session(t, ctx, m), "/db"); n != 0 || ready {
				t.Errorf("%d are left, ready %v", n, ready)
			}
			total = m.Stats().Reads - before
			t.Logf("%d members: %d reads to enter, %d to leave", size, entered, total-entered)
		})
		return total
	}
	for _, size := range []int{10, 100, 300} {
		if n := reads(size); n > int64(10*size+50) {
			t.Errorf("%d reads for %d members", n, size)
		}
	}
}

// What is decided on what a member saw is checked again where it takes effect: here a while passes in between.
func TestDoubleBarrierChecksAgain(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l, f := leader(t, ctx, c), follower(t, ctx, c)
		s, far := session(t, ctx, c.Member(l)), session(t, ctx, c.Member(f))
		slow := func() { c.Network().Slow(zktest.Name(f), zktest.Name(l), 200*time.Millisecond) }
		// One leaves when the last one has come and is about to begin.
		some, cancel := context.WithCancel(ctx)
		defer cancel()
		a, b := entering(some, recipes.NewDoubleBarrier(s, "/db", 3)), entering(ctx, recipes.NewDoubleBarrier(s, "/db", 3))
		slow()
		last := entering(ctx, recipes.NewDoubleBarrier(far, "/db", 3))
		eventually(t, "it did not come", func() bool { n, _ := inside(t, ctx, far, "/db"); return n == 3 })
		synctest.Wait()
		cancel()
		wants(t, soon(t, "ended", a).err, context.Canceled)
		still(t, "two are there", b) // DB-S1
		still(t, "two are there", last)
		c.Heal()
		d := entering(ctx, recipes.NewDoubleBarrier(s, "/db", 3))
		for _, ch := range []<-chan guest{b, last, d} {
			admitted(t, ch)
		}
		// Somebody comes late when the last one is about to end the round.
		late := func(s *zk.Session) *recipes.DoubleBarrier {
			return &recipes.DoubleBarrier{Session: s, Path: "/late", Size: 2, AllowLate: true}
		}
		a, b = entering(ctx, late(s)), entering(ctx, late(far))
		x, y := admitted(t, a), admitted(t, b)
		must(t, x.Release(ctx))
		must(t, far.Sync(ctx))
		slow()
		gone := leaving(ctx, y)
		z := admitted(t, entering(ctx, late(s)))
		still(t, "the late one is inside", gone)
		w := admitted(t, entering(ctx, late(s))) // the round goes on
		must(t, w.Release(ctx))
		must(t, z.Leave(ctx))
		all(t, "the round is over", 1, gone)
	})
}
