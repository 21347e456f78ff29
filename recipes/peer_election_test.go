// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// terms has every leadership of one path, and checks them against each other.
type terms struct {
	ledger
	lives map[*recipes.Leadership]context.Context // of lead's contexts
}

func (g *terms) begin(t *testing.T, ctx context.Context, l *recipes.Leadership) {
	g.enter(t, l.Held)
	g.mu.Lock()
	defer g.mu.Unlock()
	for other, life := range g.lives {
		if life.Err() == nil && other.Valid() { // ELEC-S2
			t.Errorf("%v leads beside %v", other.Token(), l.Token())
		}
	}
	if g.lives == nil {
		g.lives = map[*recipes.Leadership]context.Context{}
	}
	g.lives[l] = ctx
}

func (g *terms) end(l *recipes.Leadership) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.lives, l)
}

// run is a candidate for life.
func (g *terms) run(t *testing.T, ctx context.Context, e *recipes.Election, hold time.Duration) {
	for ctx.Err() == nil {
		e.Run(ctx, nil, func(ctx context.Context, l *recipes.Leadership) error {
			g.begin(t, ctx, l)
			defer g.end(l)
			select {
			case <-ctx.Done():
			case <-time.After(hold):
			}
			return nil
		})
		recipes.Backoff{}.Wait(ctx, 3)
	}
}

// No two lead, whatever the network does; in the end somebody does.
func TestPeer34TwoLeaders(t *testing.T) {
	seeds := size(30, 4)
	for seed := range seeds {
		bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 2 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			r := rand.New(rand.NewPCG(uint64(seed), 34))
			c.Network().Latency(0, 2*time.Millisecond)
			g := &terms{}
			some, stop := context.WithCancel(ctx)
			var all sync.WaitGroup
			for i := range 6 {
				hold := time.Duration(1+r.IntN(4)) * time.Second
				all.Go(func() { g.run(t, some, recipes.NewElection(c.Member(i%3), "/e"), hold) })
			}
			for range 12 {
				i := r.IntN(3)
				switch r.IntN(4) {
				case 0: // offline, longer than the timeout
					c.Isolate(i)
					time.Sleep(time.Duration(r.IntN(6000)) * time.Millisecond)
				case 1: // nobody has a quorum
					c.Partition([]int{0}, []int{1}, []int{2})
					time.Sleep(time.Duration(r.IntN(6000)) * time.Millisecond)
				case 2:
					c.DropForwards(i, 1+r.IntN(3))
				case 3:
					s, err := c.Member(i).Session(ctx)
					must(t, err)
					must(t, c.Expire(ctx, s))
				}
				c.Heal()
				time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
			c.Heal()
			n := g.len()
			time.Sleep(20 * time.Second)
			if g.len() == n { // ELEC-L1, PEER-41
				t.Error("nobody leads")
			}
			stop()
			all.Wait()
			residue(t, ctx, c, "/e") // PEER-34
		})
	}
}

// Candidates that are cut off and come back again and again do not delete and create their znodes for it.
func TestPeer35Livelock(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		rounds := size(100, 30)
		l := leader(t, ctx, c)
		some, stop := context.WithCancel(ctx)
		g := &terms{}
		var all sync.WaitGroup
		for i := range 3 {
			if i != l {
				all.Go(func() { g.run(t, some, recipes.NewElection(c.Member(i), "/e"), time.Hour) })
			}
		}
		observer := session(t, ctx, c.Member(l))
		e := recipes.NewElection(observer, "/e")
		eventually(t, "they do not stand", func() bool { return len(candidates(t, ctx, e)) == 2 && g.len() == 1 })
		first := candidates(t, ctx, e)
		zxid := observer.LastZxid()
		for range rounds { // each shorter than the lease
			for i := range 3 {
				if i != l {
					c.Network().Reset(zktest.Name(i), zktest.Name(l))
					c.Isolate(i)
				}
			}
			time.Sleep(300 * time.Millisecond)
			c.Heal()
			time.Sleep(time.Second)
		}
		must(t, c.Quiesce(ctx))
		now := candidates(t, ctx, e)
		if len(now) != 2 || now[0].Token != first[0].Token || now[1].Token != first[1].Token || g.len() != 1 { // ELEC-L3, ELEC-L2
			t.Errorf("%d terms, candidates %+v, were %+v", g.len(), now, first)
		}
		if n := observer.LastZxid() - zxid; n > 4 { // PEER-35
			t.Errorf("%d log entries for %d reconnects", n, rounds)
		}
		stop()
		all.Wait()
		residue(t, ctx, c, "/e")
	})
}

// The token is there with the grant, and stays when there is nobody to ask any more.
func TestPeer37TokenAtGrant(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		l := lead(t, ctx, h.e[0], "a")
		path := l.Path()
		st, ok, err := h.s[0].Exists(ctx, path)
		must(t, err)
		if !ok || l.Token() != zk.Token(st.Czxid) { // PEER-37
			t.Errorf("token %v, created at %v", l.Token(), st.Czxid)
		}
		h.c.Isolate(h.at[0])
		soon(t, "not lost", l.Lost())
		if l.Token() != zk.Token(st.Czxid) || l.Path() != path {
			t.Errorf("token %v, path %s", l.Token(), l.Path())
		}
	})
}

// Asking who leads while that changes gives a leader, or says that there is none: nothing else.
func TestPeer38AskingDuringChurn(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(0, time.Millisecond)
		some, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		g := &terms{}
		for i := range 6 {
			all.Go(func() { g.run(t, some, recipes.NewElection(c.Member(i%3), "/e"), 3*time.Millisecond) })
		}
		asked, led := 0, 0
		for i := range 3 {
			s := session(t, ctx, c.Member(i))
			e := recipes.NewElection(s, "/e")
			for range 300 {
				who, err := e.Leader(ctx)
				if asked++; err == nil {
					if led++; who.Token == 0 || who.Session == 0 {
						t.Errorf("leader is %+v", who)
					}
				} else { // PEER-38
					wants(t, err, recipes.ErrNoLeader)
				}
				if _, err := e.Candidates(ctx); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
		}
		stop()
		all.Wait()
		if led < asked/4 {
			t.Errorf("%d of %d times there was a leader", led, asked)
		}
		residue(t, ctx, c, "/e")
	})
}

// An observer that comes late to a change sees who leads, not who came first since it looked last.
func TestPeer39ObserverComesLate(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		some, stop := context.WithCancel(ctx)
		defer stop()
		seen, goOn := make(chan recipes.Leader), make(chan struct{})
		go func() {
			for l, err := range h.e[2].Observe(some) {
				if err != nil {
					return
				}
				seen <- l
				<-goOn
			}
		}()
		if l := soon(t, "nothing observed", seen); l.Token != 0 {
			t.Errorf("observed %+v", l)
		}
		a := lead(t, ctx, h.e[0], "a") // while it is held up
		waits := stand(t, ctx, h.e[1], "b")
		must(t, a.Proclaim(ctx, []byte("a2")))
		must(t, h.c.Quiesce(ctx))
		goOn <- struct{}{}
		if l := soon(t, "nothing observed", seen); l.Token != a.Token() || string(l.Value) != "a2" { // PEER-39
			t.Errorf("observed %+v, want %v", l, a.Token())
		}
		must(t, a.Resign(ctx)) // while it is held up again
		b := elected(t, waits)
		waits = stand(t, ctx, h.e[0], "c")
		must(t, h.c.Quiesce(ctx))
		goOn <- struct{}{}
		if l := soon(t, "nothing observed", seen); l.Token != b.Token() {
			t.Errorf("observed %+v, want %v", l, b.Token())
		}
		close(goOn)
		must(t, b.Resign(ctx))
		must(t, elected(t, waits).Resign(ctx))
		for l := range seen {
			if l.Token == 0 {
				break
			}
		}
	})
}

// An error in the middle of a campaign leaves no candidate behind that would block all others.
func TestPeer40ErrorLeavesCandidate(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		dir := h.e[0].Path
		_, err := h.s[1].Create(ctx, dir, nil, zk.Parents)
		must(t, err)
		// Who may create and delete, but not look, cannot wait in line.
		_, err = h.s[1].SetACL(ctx, dir, []zk.ACL{{Perm: zk.PermCreate | zk.PermDelete | zk.PermAdmin, Scheme: "world", ID: "anyone"}}, zk.AnyVersion)
		must(t, err)
		must(t, h.c.Quiesce(ctx))
		_, err = h.e[0].Campaign(ctx, nil)
		wants(t, err, zk.ErrNoAuth)
		eventually(t, "a candidate is left", func() bool { return len(below(t, ctx, h.c.Member(h.at[1]), dir)) == 0 }) // PEER-40
		nothing := func(context.Context, *recipes.Leadership) error { return nil }
		wants(t, h.e[0].Run(ctx, nil, nothing), zk.ErrNoAuth)
		_, err = h.s[1].SetACL(ctx, dir, zk.OpenACL(), zk.AnyVersion)
		must(t, err)
		must(t, h.c.Quiesce(ctx))
		must(t, lead(t, ctx, h.e[0], "a").Resign(ctx))
		must(t, h.s[1].DeleteTree(ctx, dir))
	})
}

// All candidates are suspended at once, and come back: one of them leads.
func TestPeer41NobodyLeads(t *testing.T) {
	bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		some, stop := context.WithCancel(ctx)
		g := &terms{}
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() { g.run(t, some, recipes.NewElection(c.Member(i), "/e"), time.Hour) })
		}
		eventually(t, "nobody leads", func() bool { return g.len() == 1 })
		for range 5 {
			n := g.len()
			var sessions []*zk.Session
			for i := range 3 {
				s, err := c.Member(i).Session(ctx)
				must(t, err)
				sessions = append(sessions, s)
			}
			c.Partition([]int{0}, []int{1}, []int{2})
			eventually(t, "they are not suspended", func() bool {
				return !slices.ContainsFunc(sessions, func(s *zk.Session) bool { return s.State() == zk.StateActive })
			})
			c.Heal()
			eventually(t, "nobody leads", func() bool { return g.len() > n }) // PEER-41
		}
		stop()
		all.Wait()
		residue(t, ctx, c, "/e")
	})
}

// The leader of the ensemble dies after it has committed, before the answer: each write of an election takes effect
// once, and leaves one znode or none.
func TestPeer05Election(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		var l *recipes.Leadership
		for step, write := range []func(e *recipes.Election) error{
			func(e *recipes.Election) (err error) { l, err = e.Campaign(ctx, []byte("a")); return err },
			func(e *recipes.Election) error { return l.Proclaim(ctx, []byte("b")) },
			func(e *recipes.Election) error { return l.Resign(ctx) },
		} {
			ensemble := leader(t, ctx, c)
			at := (ensemble + 1) % 3
			if l != nil {
				for at = range 3 {
					if c.Member(at) == l.Session().Member() {
						break
					}
				}
				if at == ensemble {
					must(t, c.Member(at).TransferLeadership(ctx, ""))
					ensemble = leader(t, ctx, c)
				}
			}
			third := 3 - at - ensemble
			src, err := c.Member(at).Session(ctx)
			must(t, err)
			e := recipes.NewElection(src, "/e")
			must(t, c.Quiesce(ctx))
			z := c.Member(third).Applied()
			c.DropForwards(at, 3)
			done := make(chan error, 1)
			go func() { done <- write(e) }()
			eventually(t, "not committed", func() bool { return c.Member(third).Applied() > z })
			must(t, c.Crash(ensemble))
			c.DropForwards(at, 0)
			must(t, soon(t, fmt.Sprint("step ", step, ": no answer"), done))
			must(t, c.Restart(ctx, ensemble))
			must(t, c.Member(ensemble).Ready(ctx))
			must(t, c.Quiesce(ctx))
			list := candidates(t, ctx, e)
			switch step { // PEER-04, PEER-05
			case 0, 1:
				if len(list) != 1 || list[0].Token != l.Token() || string(list[0].Data) != string("ab"[step]) {
					t.Errorf("step %d: %+v", step, list)
				}
			case 2:
				if len(list) != 0 {
					t.Errorf("left: %+v", list)
				}
			}
		}
		synctest.Wait()
		residue(t, ctx, c, "/e")
	})
}
