// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// presenceReactions is what becomes of who is there, on the first member of the stage, of which the shared session has a
// timeout of a few seconds.
var presenceReactions = []struct {
	event string
	fn    func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member)
}{
	{"session suspended", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		z := sc.only(t, ctx, "a", zk.Znode{})
		s, err := m.Session(ctx)
		must(t, err)
		l := leader(t, ctx, sc.c)
		sc.c.Network().Cut(zktest.Name(sc.at[0]), zktest.Name(l))
		eventually(t, "not suspended", func() bool { return s.State() == zk.StateSuspended })
		must(t, p.err()) // optimistic: it may still be there
		sc.c.Heal()
		eventually(t, "not active", func() bool { return s.State() == zk.StateActive })
		must(t, p.set(ctx, "b"))
		if now := sc.only(t, ctx, "b", zk.Znode{}); now.Stat.Czxid != z.Stat.Czxid {
			t.Errorf("%+v was %+v", now, z)
		}
		must(t, p.stop(ctx))
	}},
	{"session expired", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		must(t, p.set(ctx, "b"))
		z := sc.only(t, ctx, "b", zk.Znode{})
		for range 3 { // REG-L1, REG-S3, PEER-62: again and again, with what was set last
			s, err := m.Session(ctx)
			must(t, err)
			must(t, sc.c.Expire(ctx, s))
			after := z
			if k.stays {
				after = zk.Znode{}
			}
			z = sc.only(t, ctx, "b", after)
			if now, err := m.Session(ctx); err != nil || !k.stays && z.Stat.EphemeralOwner != now.ID() {
				t.Fatalf("%+v, the session is %v, %v", z, now.ID(), err)
			}
			synctest.Wait()
			must(t, p.err())
		}
		must(t, p.set(ctx, "c"))
		sc.only(t, ctx, "c", zk.Znode{})
		must(t, p.stop(ctx))
	}},
	{"session of its own expired", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		s := session(t, ctx, m)
		p := k.make(s, "a")
		must(t, p.start(ctx))
		must(t, sc.c.Expire(ctx, s))
		synctest.Wait()
		wants(t, p.err(), zk.ErrSessionExpired)
		wants(t, p.set(ctx, "b"), zk.ErrSessionExpired)
		switch err := p.stop(ctx); {
		case k.stays && !k.ttl: // it cannot be deleted under a session that is over
			wants(t, err, zk.ErrSessionExpired)
			must(t, sc.s[1].Delete(ctx, sc.only(t, ctx, "a", zk.Znode{}).Path, zk.AnyVersion))
		default:
			must(t, err)
		}
	}},
	{"leader changes", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		z := sc.only(t, ctx, "a", zk.Znode{})
		for range 3 {
			must(t, m.TransferLeadership(ctx, ""))
			synctest.Wait()
			must(t, p.err())
		}
		if now := sc.only(t, ctx, "a", zk.Znode{}); now.Stat.Czxid != z.Stat.Czxid {
			t.Errorf("%+v was %+v", now, z)
		}
		must(t, p.stop(ctx))
	}},
	{"no quorum", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		sc.c.Partition([]int{0}, []int{1}, []int{2})
		some, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := p.set(some, "b")
		cancel()
		wants(t, err, context.DeadlineExceeded)
		if !zk.MaybeApplied(err) {
			t.Errorf("%v does not say that it may be written", err)
		}
		sc.c.Heal()
		sc.only(t, ctx, "b", zk.Znode{})
		must(t, p.stop(ctx))
	}},
	{"cut off", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		z := sc.only(t, ctx, "a", zk.Znode{})
		sc.c.Isolate(sc.at[0])
		if !k.stays {
			eventually(t, "it is still there", func() bool { return len(sc.here(t, ctx)) == 0 })
		}
		sc.c.Heal()
		if k.stays {
			z = zk.Znode{}
		}
		sc.only(t, ctx, "a", z)
		must(t, p.stop(ctx))
	}},
	{"ctx ends", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		_, err := m.Session(ctx)
		must(t, err)
		sc.c.Network().Latency(2*time.Millisecond, 2*time.Millisecond)
		outcomes := map[bool]int{}
		for d := time.Duration(0); d < 40*time.Millisecond; d += time.Millisecond {
			some, cancel := context.WithTimeout(ctx, d)
			p := k.make(m, "a")
			began := time.Now()
			err := p.start(some)
			cancel()
			if outcomes[err == nil]++; err == nil {
				must(t, p.stop(ctx))
			} else {
				wants(t, err, context.DeadlineExceeded)   // PEER-10
				if took := time.Since(began); took != d { // PEER-17
					t.Errorf("cut after %v: it took %v", d, took)
				}
			}
			if k.ttl && err == nil {
				must(t, sc.s[1].Delete(ctx, "/app/here/p", zk.AnyVersion))
			}
			eventually(t, "something is left", func() bool { return len(sc.here(t, ctx)) == 0 })
		}
		if outcomes[true] == 0 || outcomes[false] == 0 {
			t.Errorf("outcomes %v", outcomes)
		}
		sc.nobody(t, ctx, "left by one who gave up")
	}},
	{"ctx ends while cut off", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		_, err := m.Session(ctx)
		must(t, err)
		sc.c.Isolate(sc.at[0])
		some, cancel := context.WithTimeout(ctx, time.Second)
		p := k.make(m, "a")
		err = p.start(some)
		cancel()
		wants(t, err, context.DeadlineExceeded)
		sc.c.Heal()
		must(t, p.stop(ctx))
		sc.nobody(t, ctx, "left by one who gave up")
	}},
	{"process dies", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		s, err := m.Session(ctx)
		must(t, err)
		began := time.Now()
		must(t, sc.c.Crash(sc.at[0]))
		synctest.Wait()
		wants(t, p.err(), zk.ErrClosed)
		switch {
		case k.ttl:
			eventually(t, "it is still there", func() bool { return len(sc.here(t, ctx)) == 0 })
			if took := time.Since(began); took < ttl-ttl/3 {
				t.Errorf("gone after %v", took)
			}
		case k.stays: // PEER-62: it outlives who has registered it (REG-S4)
			time.Sleep(3 * s.Timeout())
			must(t, sc.s[1].Delete(ctx, sc.only(t, ctx, "a", zk.Znode{}).Path, zk.AnyVersion))
		default: // GRP-L1
			eventually(t, "it is still there", func() bool { return len(sc.here(t, ctx)) == 0 })
			if took := time.Since(began); took > 3*s.Timeout() {
				t.Errorf("gone after %v", took)
			}
		}
		p.stop(ctx)
	}},
	{"process ends", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		must(t, m.Shutdown(ctx))
		synctest.Wait()
		if list := sc.here(t, ctx); !k.stays && len(list) > 0 { // GRP-L1: at once
			t.Errorf("it is still there: %+v", list)
		}
		if k.stays && !k.ttl {
			must(t, sc.s[1].Delete(ctx, sc.only(t, ctx, "a", zk.Znode{}).Path, zk.AnyVersion))
		}
		p.stop(ctx)
	}},
	{"operator deletes the znode", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		must(t, p.set(ctx, "b"))
		z := sc.only(t, ctx, "b", zk.Znode{})
		for range 20 { // PRES-L1, PEER-62: not the first time alone
			began := time.Now()
			must(t, sc.s[1].Delete(ctx, z.Path, zk.AnyVersion))
			z = sc.only(t, ctx, "b", z)
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
		}
		must(t, p.stop(ctx))
	}},
	{"operator deletes the tree", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		z := sc.only(t, ctx, "a", zk.Znode{})
		for range 3 {
			must(t, sc.s[1].DeleteTree(ctx, "/app"))
			z = sc.only(t, ctx, "a", z)
		}
		must(t, p.stop(ctx))
	}},
	{"operator changes the data", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		z := sc.only(t, ctx, "a", zk.Znode{})
		_, err := sc.s[1].Set(ctx, z.Path, []byte("operator"), zk.AnyVersion)
		must(t, err)
		must(t, p.set(ctx, "b"))
		sc.only(t, ctx, "b", zk.Znode{})
		must(t, p.stop(ctx))
	}},
	{"snapshot installed", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		s, err := m.NewSession(ctx, zk.SessionConfig{Timeout: 2 * time.Minute})
		must(t, err)
		p := k.make(s, "a")
		must(t, p.start(ctx))
		z := sc.only(t, ctx, "a", zk.Znode{})
		leaveBehind(t, ctx, sc.c, sc.at[0], sc.s[1], func() { must(t, sc.s[1].Delete(ctx, z.Path, zk.AnyVersion)) })
		sc.c.Heal()
		sc.only(t, ctx, "a", z) // E8: the snapshot has brought the deletion
		must(t, p.stop(ctx))
	}},
	{"backup restored", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		var before, with bytes.Buffer
		_, err := sc.c.Member(sc.at[1]).Backup(ctx, &before)
		must(t, err)
		p := k.make(m, "a")
		must(t, p.start(ctx))
		z := sc.only(t, ctx, "a", zk.Znode{})
		_, err = sc.c.Member(sc.at[1]).Backup(ctx, &with)
		must(t, err)
		must(t, p.set(ctx, "b"))
		for _, backup := range []*bytes.Buffer{&with, &before} { // it is there with data that is no longer its own, or not at all
			must(t, sc.c.Member(sc.at[1]).Restore(ctx, backup))
			sc.s[1] = session(t, ctx, sc.c.Member(sc.at[1]))
			if k.stays && backup == &with {
				z = zk.Znode{}
			}
			z = sc.only(t, ctx, "b", z)
		}
		must(t, p.set(ctx, "c"))
		sc.only(t, ctx, "c", zk.Znode{})
		must(t, p.stop(ctx))
	}},
	{"answers lost", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		_, err := m.Session(ctx)
		must(t, err)
		for n := range 4 {
			p := k.make(m, "a")
			sc.c.DropForwards(sc.at[0], n)
			must(t, p.start(ctx)) // PEER-04: one, and it is known
			z := sc.only(t, ctx, "a", zk.Znode{})
			sc.c.DropForwards(sc.at[0], n)
			must(t, p.set(ctx, "b"))
			sc.only(t, ctx, "b", zk.Znode{})
			sc.c.DropForwards(sc.at[0], n)
			must(t, p.stop(ctx))
			sc.c.DropForwards(sc.at[0], 0)
			if k.ttl {
				must(t, sc.s[1].Delete(ctx, z.Path, zk.AnyVersion))
			}
			eventually(t, "it is still there", func() bool { return len(sc.here(t, ctx)) == 0 })
		}
	}},
	{"stopped while cut off", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		p := k.make(m, "a")
		must(t, p.start(ctx))
		sc.c.Isolate(sc.at[0])
		if !k.stays {
			eventually(t, "it is still there", func() bool { return len(sc.here(t, ctx)) == 0 })
		}
		some, cancel := context.WithTimeout(ctx, time.Second)
		err := p.stop(some)
		cancel()
		if !k.ttl { // there is nothing to remove
			wants(t, err, context.DeadlineExceeded)
		}
		sc.c.Heal()
		must(t, p.stop(ctx)) // waits
		if k.ttl {
			must(t, sc.s[1].Delete(ctx, "/app/here/p", zk.AnyVersion))
		}
		sc.nobody(t, ctx, "after Stop") // PEER-62: a phantom
	}},
	{"stopped while it is re-created", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		_, err := m.Session(ctx)
		must(t, err)
		sc.c.Network().Latency(2*time.Millisecond, 2*time.Millisecond)
		for d := time.Duration(0); d < 25*time.Millisecond; d += time.Millisecond {
			p := k.make(m, "a")
			must(t, p.start(ctx))
			must(t, sc.s[1].Delete(ctx, sc.only(t, ctx, "a", zk.Znode{}).Path, zk.AnyVersion))
			time.Sleep(d)
			must(t, p.stop(ctx))
			list := sc.here(t, ctx)
			if !k.ttl && len(list) > 0 {
				t.Fatalf("stopped after %v: %+v", d, list) // PRES-S3
			}
			time.Sleep(5 * time.Second)
			if now := sc.here(t, ctx); len(now) > len(list) {
				t.Fatalf("stopped after %v: %+v", d, now)
			}
			for _, z := range list {
				must(t, sc.s[1].Delete(ctx, z.Path, zk.AnyVersion))
			}
		}
	}},
	{"another stands there", func(t *testing.T, ctx context.Context, sc *scene, k keeper, m *zk.Member) {
		_, err := sc.s[2].Create(ctx, "/app/here/p", []byte("other"), zk.Ephemeral|zk.Parents)
		must(t, err)
		must(t, sc.c.Quiesce(ctx))
		p := k.make(m, "mine")
		started := make(chan error, 1)
		go func() { started <- p.start(ctx) }()
		if k.busy || k.ttl {
			time.Sleep(time.Minute)
			if list := sc.here(t, ctx); len(started) > 0 || len(list) != 1 || list[0].Data != "other" {
				t.Fatalf("it did not wait: %+v", list)
			}
			must(t, sc.s[2].Close())
		}
		must(t, soon(t, "not started", started))
		if list := sc.here(t, ctx); len(list) == 2 { // of the numbered ones the other has none
			must(t, sc.s[2].Close())
		}
		sc.only(t, ctx, "mine", zk.Znode{})
		must(t, p.stop(ctx))
	}},
}

func TestPresenceReactions(t *testing.T) {
	for i, k := range keepers {
		for j, r := range presenceReactions {
			if !some(i, j) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", k.name, r.event), func(t *testing.T) {
				onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
					r.fn(t, ctx, sc, k, sc.c.Member(sc.at[0]))
					sc.c.Heal()
					residue(t, ctx, sc.c, "/app")
				})
			})
		}
	}
}
