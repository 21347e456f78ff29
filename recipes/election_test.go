// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// ballot is what a Campaign has ended with.
type ballot struct {
	l   *recipes.Leadership
	err error
	at  time.Time
}

func campaigning(ctx context.Context, e *recipes.Election, value string) <-chan ballot {
	done := make(chan ballot, 1)
	go func() {
		l, err := e.Campaign(ctx, []byte(value))
		done <- ballot{l, err, time.Now()}
	}()
	return done
}

// stand campaigns and returns once the candidate is there.
func stand(t *testing.T, ctx context.Context, e *recipes.Election, value string) <-chan ballot {
	t.Helper()
	before := len(candidates(t, ctx, e))
	done := campaigning(ctx, e, value)
	eventually(t, "no candidate", func() bool { return len(done) > 0 || len(candidates(t, ctx, e)) > before })
	return done
}

func candidates(t *testing.T, ctx context.Context, e *recipes.Election) []recipes.Contender {
	t.Helper()
	list, err := e.Candidates(ctx)
	must(t, err)
	return list
}

func elected(t *testing.T, ch <-chan ballot) *recipes.Leadership {
	t.Helper()
	b := soon(t, "not elected", ch)
	must(t, b.err)
	if !b.l.Valid() {
		t.Fatalf("elected, but %v", b.l.Err())
	}
	return b.l
}

func lead(t *testing.T, ctx context.Context, e *recipes.Election, value string) *recipes.Leadership {
	t.Helper()
	return elected(t, campaigning(ctx, e, value))
}

// hustings is an election of three sessions, of which the first is on a follower and the others have time to spare.
type hustings struct {
	c  *zktest.Cluster
	at [3]int
	s  [3]*zk.Session
	e  [3]*recipes.Election
}

func onHustings(t *testing.T, cfg zktest.Config, fn func(t *testing.T, ctx context.Context, h *hustings)) {
	t.Helper()
	bubble(t, 3, cfg, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := follower(t, ctx, c)
		h := &hustings{c: c, at: [3]int{f, (f + 1) % 3, (f + 2) % 3}}
		for i, m := range h.at {
			var timeout time.Duration
			if i > 0 {
				timeout = 2 * time.Minute
			}
			s, err := c.Member(m).NewSession(ctx, zk.SessionConfig{Timeout: timeout})
			must(t, err)
			h.s[i], h.e[i] = s, recipes.NewElection(s, "/app/leader")
		}
		fn(t, ctx, h)
		c.Heal()
		residue(t, ctx, c, "/app/leader")
	})
}

func TestElection(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		_, err := h.e[0].Leader(ctx)
		wants(t, err, recipes.ErrNoLeader)
		if len(candidates(t, ctx, h.e[0])) != 0 {
			t.Error("candidates of nothing")
		}
		var last zk.Token
		for i, e := range h.e {
			name := fmt.Sprint("candidate ", i)
			l := lead(t, ctx, e, name)
			if l.Token() <= last { // HELD-S2
				t.Fatalf("token %v after %v", l.Token(), last)
			}
			last = l.Token()
			isHeld(t, l.Held)
			must(t, l.Verify(ctx))
			who, err := e.Leader(ctx)
			must(t, err)
			if string(who.Value) != name || who.Token != l.Token() || who.Session != h.s[i].ID() {
				t.Errorf("leader is %+v", who)
			}
			list := candidates(t, ctx, e)
			if len(list) != 1 || !list[0].Holding || list[0].Token != l.Token() || string(list[0].Data) != name {
				t.Errorf("candidates %+v", list)
			}
			must(t, l.Proclaim(ctx, []byte("changed")))
			must(t, l.Proclaim(ctx, nil))
			if who, err = e.Leader(ctx); err != nil || who.Value != nil || who.Token != l.Token() {
				t.Errorf("leader is %+v, %v", who, err)
			}
			next := stand(t, ctx, h.e[(i+1)%3], "next")
			must(t, h.c.Quiesce(ctx))
			synctest.Wait()
			if len(next) != 0 { // ELEC-S1
				t.Fatal("two leaders")
			}
			must(t, l.Resign(ctx))
			wants(t, l.Err(), recipes.ErrReleased)
			wants(t, l.Proclaim(ctx, []byte("late")), recipes.ErrReleased)
			n := elected(t, next)
			if n.Token() <= last {
				t.Errorf("token %v after %v", n.Token(), last)
			}
			last = n.Token()
			must(t, n.Resign(ctx))
			must(t, h.c.Quiesce(ctx))
		}
	})
}

func TestElectionArguments(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		e := recipes.NewElection(c.Member(0), "/e")
		nothing := func(context.Context, *recipes.Leadership) error { return nil }
		for _, value := range []string{"__REVOKE__", "unlock"} {
			_, err := e.Campaign(ctx, []byte(value))
			wants(t, err, zk.ErrBadArguments)
			wants(t, e.Run(ctx, []byte(value), nothing), zk.ErrBadArguments)
		}
		l := lead(t, ctx, e, "a")
		wants(t, l.Proclaim(ctx, []byte("unlock")), zk.ErrBadArguments)
		must(t, l.Resign(ctx))
		wants(t, e.Run(ctx, nil, nil), zk.ErrBadArguments)
		wants(t, e.Run(nil, nil, nothing), zk.ErrBadArguments)
		_, err := e.Campaign(nil, nil)
		wants(t, err, zk.ErrBadArguments)
		for _, bad := range []*recipes.Election{recipes.NewElection(nil, "/e"), recipes.NewElection(c.Member(0), "e")} {
			_, err := bad.Campaign(ctx, nil)
			wants(t, err, zk.ErrBadArguments)
			_, err = bad.Leader(ctx)
			wants(t, err, zk.ErrBadArguments)
			_, err = bad.Candidates(ctx)
			wants(t, err, zk.ErrBadArguments)
			wants(t, bad.Run(ctx, nil, nothing), zk.ErrBadArguments)
			for _, err := range bad.Observe(ctx) {
				wants(t, err, zk.ErrBadArguments)
			}
		}
		for _, err := range e.Observe(nil) {
			wants(t, err, zk.ErrBadArguments)
		}
		residue(t, ctx, c, "/e")
	})
}

// What a campaign costs is what its comment says.
func TestElectionCost(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		m := h.c.Member(h.at[0])
		costs := func(what string, entries, linear int64, fn func()) {
			t.Helper()
			synctest.Wait()
			z, before := m.Applied(), m.Stats()
			fn()
			synctest.Wait()
			after := m.Stats()
			if n := int64(m.Applied() - z); n != entries || after.LinearReads-before.LinearReads != linear {
				t.Errorf("%s: %d log entries and %d rounds, want %d and %d", what, n, after.LinearReads-before.LinearReads, entries, linear)
			}
		}
		var l *recipes.Leadership
		costs("campaign", 1, 0, func() { l = lead(t, ctx, h.e[0], "a") })
		costs("proclaim", 1, 0, func() { must(t, l.Proclaim(ctx, []byte("b"))) })
		costs("leader", 0, 0, func() { h.e[0].Leader(ctx) })
		watches := m.Stats().Watches
		some, stop := context.WithCancel(ctx)
		observed := make(chan recipes.Leader, 8)
		go func() {
			for l, err := range h.e[0].Observe(some) {
				if err == nil {
					observed <- l
				}
			}
		}()
		<-observed
		synctest.Wait()
		if n := m.Stats().Watches - watches; n != 1 {
			t.Errorf("an observer has %d watches", n)
		}
		var next <-chan ballot
		costs("stand", 1, 0, func() { next = stand(t, ctx, h.e[0], "c") })
		if n := m.Stats().Watches - watches; n != 3 {
			t.Errorf("an observer and a candidate have %d watches", n)
		}
		costs("resign", 1, 0, func() {
			must(t, l.Resign(ctx))
			l = elected(t, next)
		})
		stop()
		must(t, l.Resign(ctx))
	})
}

// However many candidates there are, a hand-over wakes one, lists nothing and takes one log entry.
func TestElectionManyCandidates(t *testing.T) {
	const n = 1000
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		reads := func() (calls, scanned int64) {
			synctest.Wait()
			for _, m := range h.at {
				st := h.c.Member(m).Stats()
				calls, scanned = calls+st.Reads, scanned+st.Scanned
			}
			return calls, scanned
		}
		l := lead(t, ctx, h.e[0], "first")
		_, scanned := reads()
		won := make(chan *recipes.Leadership)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				l, err := h.e[i%3].Campaign(ctx, fmt.Append(nil, i))
				if err != nil {
					t.Error(err)
				}
				won <- l
			})
		}
		eventually(t, "they do not all stand", func() bool { return h.c.Member(h.at[0]).Stats().Ephemerals == n+1 })
		must(t, h.c.Quiesce(ctx))
		if _, over := reads(); over-scanned > 2*n { // who comes looks at the one before it
			t.Errorf("%.1f siblings looked at by each that came", float64(over-scanned)/n)
		}
		zxid := h.s[0].LastZxid()
		before, scanned := reads()
		time.Sleep(time.Minute)
		if r, _ := reads(); h.s[0].LastZxid() != zxid || r != before { // waiting is free
			t.Errorf("%d log entries and %d reads in an idle minute", h.s[0].LastZxid()-zxid, r-before)
		}
		watch := h.c.Member(h.at[0]).Stats().Watches
		for range n {
			last := l.Token()
			must(t, l.Resign(ctx))
			if l = <-won; l == nil {
				t.Fatal("one was not elected")
			}
			if l.Token() <= last { // HELD-S2, and the order of candidates
				t.Fatalf("token %v after %v", l.Token(), last)
			}
		}
		all.Wait()
		// One wake-up for each: the look at the own znode, the one before, the grant.
		r, over := reads()
		if r -= before; r > int64(4*n) {
			t.Errorf("%.1f local reads for a hand-over", float64(r)/float64(n))
		}
		if over != scanned { // who is elected is the first: nobody is before it, and nobody looks further
			t.Errorf("%.1f siblings looked at for a hand-over", float64(over-scanned)/n)
		}
		if z := h.s[0].LastZxid(); z-zxid != zk.Zxid(n) {
			t.Errorf("%d log entries for %d hand-overs", z-zxid, n)
		}
		if watch < int64(2*n/3) {
			t.Errorf("%d watches", watch)
		}
		must(t, l.Resign(ctx))
	})
}

// Who is shown is who leads, or leads no more, whatever happens (ELEC-S3); in the end it is who leads.
func TestObserve(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		some, stop := context.WithCancelCause(ctx)
		seen := make(chan recipes.Leader, 100)
		ended := make(chan error, 1)
		go func() {
			for l, err := range h.e[2].Observe(some) {
				if err != nil {
					ended <- err
					return
				}
				seen <- l
			}
		}()
		next := func(value string, token zk.Token) {
			t.Helper()
			l := soon(t, "nothing observed", seen)
			if string(l.Value) != value || l.Token != token || (l.Session == 0) != (token == 0) {
				t.Fatalf("observed %+v, want %s %v", l, value, token)
			}
		}
		next("", 0) // the directory does not exist
		a := lead(t, ctx, h.e[0], "a")
		next("a", a.Token())
		must(t, a.Proclaim(ctx, []byte("a2")))
		next("a2", a.Token())
		waits := stand(t, ctx, h.e[1], "b")
		synctest.Wait()
		if len(seen) != 0 {
			t.Errorf("another candidate changed the leader: %+v", <-seen)
		}
		must(t, a.Resign(ctx))
		b := elected(t, waits)
		next("b", b.Token())
		must(t, b.Resign(ctx))
		next("", 0)
		if _, err := h.s[0].Create(ctx, "/app/leader/foreign", nil, zk.Persistent); err != nil {
			t.Fatal(err)
		}
		must(t, h.s[0].Delete(ctx, "/app/leader/foreign", zk.AnyVersion))
		c := lead(t, ctx, h.e[1], "c")
		next("c", c.Token())
		why := errors.New("why")
		stop(why)
		wants(t, soon(t, "it goes on", ended), context.Canceled, why)
		must(t, c.Resign(ctx))
	})
}

// A slow observer skips leaders, and is never shown an older one.
func TestObserveSlowly(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		const rounds = 200
		var all sync.WaitGroup
		some, stop := context.WithCancel(ctx)
		var last zk.Token
		var final recipes.Leader
		yields := 0
		all.Go(func() {
			for l, err := range h.e[2].Observe(some) {
				if err != nil {
					return
				}
				yields++
				if l.Token != 0 && l.Token < last { // ELEC-S3
					t.Errorf("token %v after %v", l.Token, last)
				}
				last, final = max(last, l.Token), l
				time.Sleep(100 * time.Millisecond)
			}
		})
		var l *recipes.Leadership
		for i := range rounds {
			if l != nil {
				must(t, l.Resign(ctx))
			}
			l = lead(t, ctx, h.e[i%2], fmt.Sprint(i))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		stop()
		all.Wait()
		if final.Token != l.Token() || yields > rounds {
			t.Errorf("at last %+v after %d yields, the leader is %v", final, yields, l.Token())
		}
		must(t, l.Resign(ctx))
	})
}

// An observer whose member's session expires goes on with the next one; one that was given a session ends with it.
func TestObserveExpiry(t *testing.T) {
	bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		e := recipes.NewElection(session(t, ctx, c.Member((at+1)%3)), "/e")
		shared, err := c.Member(at).Session(ctx)
		must(t, err)
		some, stop := context.WithCancel(ctx)
		defer stop()
		over, ends := make(chan error, 2), 0
		seen := make(chan recipes.Leader, 10)
		for i, src := range []zk.SessionSource{shared, c.Member(at)} {
			go func() {
				for l, err := range recipes.NewElection(src, "/e").Observe(some) {
					if err != nil {
						over <- err
					} else if i == 1 {
						seen <- l
					}
				}
			}()
		}
		soon(t, "nothing observed", seen)
		must(t, c.Expire(ctx, shared))
		wants(t, soon(t, "it goes on", over), zk.ErrSessionExpired)
		l := lead(t, ctx, e, "x")
		for ends == 0 {
			if o := soon(t, "nothing observed", seen); o.Token == l.Token() {
				ends++
			}
		}
		stop()
		wants(t, soon(t, "it goes on", over), context.Canceled)
		must(t, l.Resign(ctx))
		residue(t, ctx, c, "/e")
	})
}

// Candidates of other programs take part, and others are passed over.
func TestElectionLayouts(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		dir := h.e[0].Path
		const uuid = "0123abcd-0123-4567-89ab-0123456789ab"
		for _, name := range []string{"_c_" + uuid + "-latch-", "_c_" + uuid + "-lock-", "0123456789abcdef0123456789abcdef__lock__"} {
			z, err := h.s[1].Create(ctx, dir+"/"+name, []byte("theirs"), zk.Ephemeral|zk.Sequential|zk.Parents)
			must(t, err)
			must(t, h.c.Quiesce(ctx))
			next := stand(t, ctx, h.e[0], "ours")
			still(t, name+" came first", next)
			who, err := h.e[0].Leader(ctx)
			must(t, err)
			if who.Token != zk.Token(z.Stat.Czxid) || string(who.Value) != "theirs" {
				t.Errorf("leader is %+v", who)
			}
			must(t, h.s[1].Delete(ctx, z.Path, zk.AnyVersion))
			must(t, elected(t, next).Resign(ctx))
			must(t, h.c.Quiesce(ctx))
		}
		for _, name := range []string{"_c_", "x", "latch-", "latch-0000000000", "_c_" + uuid + "-lease-0000000000", "_c_" + uuid + "-latch-000000000", "ünïcode-0000000000"} {
			_, err := h.s[1].Create(ctx, dir+"/"+name, nil, zk.Ephemeral|zk.Parents)
			must(t, err)
		}
		must(t, h.c.Quiesce(ctx))
		_, err := h.e[0].Leader(ctx)
		wants(t, err, recipes.ErrNoLeader) // PEER-15
		for layout, part := range map[recipes.Layout]string{0: "-latch-", recipes.Curator: "-latch-", recipes.Selector: "-lock-", recipes.Kazoo: "__lock__"} {
			e := recipes.NewElection(h.s[0], dir)
			e.Layout = layout
			l := lead(t, ctx, e, "ours")
			if !strings.Contains(l.Path(), part) {
				t.Errorf("%v writes %s", layout, l.Path())
			}
			if layout.String() == "unknown" {
				t.Error("a layout without a name")
			}
			must(t, l.Resign(ctx))
		}
		must(t, h.c.Quiesce(ctx))
		names, _, err := h.s[1].Children(ctx, dir)
		must(t, err)
		for _, name := range names {
			must(t, h.s[1].Delete(ctx, dir+"/"+name, zk.AnyVersion))
		}
	})
}

// The rows of the table of reactions, for who leads and for who waits to.
func TestElectionEvents(t *testing.T) {
	for name, row := range map[string]func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot){
		"the leader is suspended": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			lost := stopwatch(l.Lost())
			h.c.Isolate(h.at[0])
			b := soon(t, "not elected", next)
			must(t, b.err)
			if at := lost(); !at.Before(b.at) { // ELEC-S1, HELD-L1, PEER-34
				t.Errorf("lost at %v, the next was elected at %v", at, b.at)
			}
			isLost(t, l.Held, zk.ErrSuspended)
			wants(t, l.Proclaim(ctx, []byte("late")), recipes.ErrLost)
			h.c.Heal()
			must(t, b.l.Resign(ctx))
		},
		"the leader's session expires": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			must(t, h.c.Expire(ctx, h.s[0]))
			isLost(t, l.Held, zk.ErrSuspended)
			must(t, elected(t, next).Resign(ctx))
		},
		"the leader's session closes": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			began := time.Now()
			must(t, h.s[0].Close())
			n := elected(t, next)
			if took := time.Since(began); took > time.Second {
				t.Errorf("elected after %v", took)
			}
			if l.Valid() {
				t.Error("valid beyond its session")
			}
			must(t, n.Resign(ctx))
		},
		"the leader's process dies": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			began := time.Now()
			must(t, h.c.Crash(h.at[0]))
			n := elected(t, next)
			if took, most := time.Since(began), h.s[0].Timeout()+5*time.Second; took > most { // ELEC-L1
				t.Errorf("elected after %v", took)
			}
			must(t, n.Resign(ctx))
		},
		"an operator deletes the leader's znode": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			must(t, h.s[1].Delete(ctx, l.Path(), zk.AnyVersion))
			n := elected(t, next)
			eventually(t, "not lost", func() bool { return !l.Valid() })
			isLost(t, l.Held, zk.ErrNoNode)
			wants(t, l.Proclaim(ctx, []byte("late")), recipes.ErrLost)
			must(t, l.Resign(ctx))
			isHeld(t, n.Held) // HELD-S4
			must(t, n.Resign(ctx))
		},
		"an operator deletes the directory": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			must(t, h.s[1].DeleteTree(ctx, h.e[0].Path))
			wants(t, soon(t, "it waits", next).err, recipes.ErrBroken)
			eventually(t, "not lost", func() bool { return !l.Valid() })
			isLost(t, l.Held, zk.ErrNoNode)
		},
		"the ensemble's leader changes": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			for range 5 { // ELEC-L2, PEER-22
				i := leader(t, ctx, h.c)
				must(t, h.c.Member(i).TransferLeadership(ctx, ""))
				leader(t, ctx, h.c)
			}
			still(t, "it lost the leadership", next)
			isHeld(t, l.Held)
			must(t, l.Proclaim(ctx, []byte("still here")))
			must(t, l.Resign(ctx))
			must(t, elected(t, next).Resign(ctx))
		},
		"a partition shorter than the lease": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			h.c.Isolate(h.at[0])
			time.Sleep(h.s[0].Timeout() / 2)
			h.c.Heal()
			still(t, "it lost the leadership", next) // ELEC-L2
			isHeld(t, l.Held)
			must(t, l.Resign(ctx))
			must(t, elected(t, next).Resign(ctx))
		},
		"a candidate's znode is deleted": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			must(t, h.s[1].Delete(ctx, candidates(t, ctx, h.e[1])[1].Path, zk.AnyVersion))
			wants(t, soon(t, "it waits", next).err, recipes.ErrBroken)
			isHeld(t, l.Held)
			must(t, l.Resign(ctx))
		},
		"a candidate's session expires": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			must(t, h.c.Expire(ctx, h.s[1]))
			wants(t, soon(t, "it waits", next).err, zk.ErrSessionExpired) // PEER-09
			isHeld(t, l.Held)
			must(t, l.Resign(ctx))
		},
		"quorum is lost for longer than the lease": func(t *testing.T, ctx context.Context, h *hustings, l *recipes.Leadership, next <-chan ballot) {
			h.c.Partition([]int{0}, []int{1}, []int{2})
			soon(t, "not lost", l.Lost())
			time.Sleep(time.Minute)
			if len(next) != 0 { // ELEC-S1
				t.Error("elected without a quorum")
			}
			h.c.Heal()
			must(t, elected(t, next).Resign(ctx))
		},
	} {
		t.Run(name, func(t *testing.T) {
			onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
				l := lead(t, ctx, h.e[0], "first")
				must(t, h.c.Quiesce(ctx))
				next := stand(t, ctx, h.e[1], "second")
				must(t, h.c.Quiesce(ctx))
				row(t, ctx, h, l, next)
			})
		})
	}
	t.Run("ctx ends", func(t *testing.T) {
		onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
			l := lead(t, ctx, h.e[0], "first")
			must(t, h.c.Quiesce(ctx))
			why := errors.New("why")
			some, cancel := context.WithCancelCause(ctx)
			next := stand(t, some, h.e[1], "second")
			third := stand(t, ctx, h.e[1], "third")
			synctest.Wait()
			began := time.Now()
			cancel(why)
			wants(t, soon(t, "it waits", next).err, context.Canceled, why)
			if time.Now() != began {
				t.Errorf("ended after %v", time.Since(began))
			}
			eventually(t, "the candidate is left", func() bool { return len(candidates(t, ctx, h.e[1])) == 2 }) // PEER-40
			must(t, l.Resign(ctx))
			must(t, elected(t, third).Resign(ctx))
		})
	})
}

// Run leads, again and again, until it is told to stop.
func TestRun(t *testing.T) {
	bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		e := recipes.NewElection(c.Member(at), "/e")
		some, stop := context.WithCancelCause(ctx)
		terms := make(chan *recipes.Leadership)
		done := make(chan error, 1)
		inside := make(chan bool, 1) // ELEC-S2
		broken := errors.New("out of order")
		fail, calls := false, 0
		go func() {
			done <- e.Run(some, []byte("runner"), func(ctx context.Context, l *recipes.Leadership) error {
				select {
				case inside <- true:
				default:
					t.Error("two at a time")
				}
				defer func() { <-inside }()
				terms <- l
				<-ctx.Done()
				if fail {
					return broken
				}
				if calls++; calls%2 == 0 { // both say that the context has ended
					return ctx.Err()
				}
				return context.Cause(ctx)
			})
		}()
		l := soon(t, "no term", terms)
		first := l.Session()
		for _, disturb := range []func(){
			func() { must(t, first.Delete(ctx, l.Path(), zk.AnyVersion)) },
			func() { must(t, c.Expire(ctx, first)) },
			func() {
				s, err := c.Member((at + 1) % 3).Session(ctx)
				must(t, err)
				must(t, s.DeleteTree(ctx, "/e"))
			},
			func() {
				c.Isolate(at)
				<-l.Lost()
				time.Sleep(time.Minute)
				c.Heal()
			},
		} {
			before := l.Token()
			disturb()
			if l = soon(t, "no term", terms); l.Token() <= before || !l.Valid() { // PEER-36, PEER-41
				t.Fatalf("token %v after %v, %v", l.Token(), before, l.Err())
			}
		}
		why := errors.New("why")
		stop(why)
		wants(t, soon(t, "it goes on", done), context.Canceled, why)
		if l.Valid() {
			t.Error("still leads")
		}
		// An error of lead's own ends it; Run can be called again (PEER-36).
		fail = true
		some, stop = context.WithCancelCause(ctx)
		go func() { done <- e.Run(some, nil, func(context.Context, *recipes.Leadership) error { return broken }) }()
		if err := soon(t, "it goes on", done); !errors.Is(err, broken) {
			t.Errorf("it ended with %v", err)
		}
		stop(nil)
		residue(t, ctx, c, "/e")
	})
}

// A candidate that cannot do the job rests, so that another gets it.
func TestRunRests(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		some, stop := context.WithCancel(ctx)
		var starts []time.Time
		done := make(chan error, 2)
		h.e[0].Rest = 10 * time.Second
		go func() {
			done <- h.e[0].Run(some, []byte("ill"), func(context.Context, *recipes.Leadership) error {
				starts = append(starts, time.Now())
				return nil
			})
		}()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for i, at := range starts[1:] {
			if pause := at.Sub(starts[i]); pause < 10*time.Second || pause > 16*time.Second {
				t.Errorf("a pause of %v", pause)
			}
		}
		if len(starts) < 7 {
			t.Errorf("%d terms", len(starts))
		}
		well := make(chan struct{})
		go func() {
			done <- h.e[1].Run(some, []byte("well"), func(ctx context.Context, _ *recipes.Leadership) error {
				close(well)
				<-ctx.Done()
				return nil
			})
		}()
		soon(t, "the other is not elected", well)
		n := len(starts)
		time.Sleep(time.Minute)
		if len(starts) > n {
			t.Error("it was elected again")
		}
		stop()
		for range 2 {
			wants(t, soon(t, "it goes on", done), context.Canceled)
		}
	})
}

// A panic of lead gives the leadership up, and is the caller's.
func TestRunPanics(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		func() {
			defer func() {
				if v := recover(); v != "lead" {
					t.Errorf("recovered %v", v)
				}
			}()
			h.e[0].Run(ctx, nil, func(context.Context, *recipes.Leadership) error { panic("lead") })
		}()
		must(t, lead(t, ctx, h.e[1], "next").Resign(ctx))
	})
}

// Everything can be called from within lead and from within an observer's loop.
func TestElectionFromWithin(t *testing.T) {
	onHustings(t, zktest.Config{}, func(t *testing.T, ctx context.Context, h *hustings) {
		e := h.e[0]
		enough := errors.New("enough")
		err := e.Run(ctx, []byte("a"), func(ctx context.Context, l *recipes.Leadership) error { // PEER-18
			must(t, l.Proclaim(ctx, []byte("b")))
			for who, err := range e.Observe(ctx) {
				must(t, err)
				if who.Token != l.Token() {
					t.Errorf("observed %+v", who)
				}
				if _, err := e.Leader(ctx); err != nil {
					t.Error(err)
				}
				if len(candidates(t, ctx, e)) != 1 {
					t.Error("not one candidate")
				}
				break
			}
			own := ctx
			ctx = context.WithoutCancel(ctx)
			must(t, l.Resign(ctx))
			eventually(t, "lead's context goes on", func() bool { return own.Err() != nil })
			must(t, lead(t, ctx, h.e[0], "c").Resign(ctx))
			return enough
		})
		if !errors.Is(err, enough) {
			t.Errorf("it ended with %v", err)
		}
		if list := candidates(t, ctx, e); len(list) != 0 {
			t.Errorf("left: %+v", list)
		}
	})
}
