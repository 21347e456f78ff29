// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// patience is five election timeouts. A member that raft could not reach for long is not left alone for longer than that
// afterwards: see raftnet.
const patience = 5 * time.Second

// within is a context for what is to be done in so much virtual time. In real time nobody knows how long other programs
// keep the processor and the disk busy; there the bound is that of the test binary, which says where everybody stands.
func (r *run) within(d time.Duration) (context.Context, context.CancelFunc) {
	if r.dir != "" {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), d)
}

// alive is the liveness check: with everything healed, writes succeed through every member (P20).
func (r *run) alive() {
	ctx, cancel := r.within(patience)
	defer cancel()
	began := time.Now()
	defer func() { r.t.Logf("writes succeed %v after healing", time.Since(began)) }()
	for _, i := range r.members() {
		err := error(zk.ErrSessionExpired)
		for errors.Is(err, zk.ErrSessionExpired) { // the member may not know yet that its session is over
			var s *zk.Session
			if s, err = r.c.Member(i).Session(ctx); err == nil {
				_, err = s.Create(ctx, "/alive-", nil, zk.Sequential)
			}
		}
		if err != nil {
			r.t.Fatalf("member %d after healing: %v (member: %v)", i, err, r.c.Member(i).Err())
		}
	}
}

// serves is the same for recipes: whatever the faults have left behind, everybody who waits is served in bounded time
// (LOCK-L2, BAR-L1, DB-L3, Q-L1).
func (r *run) serves() {
	ctx, cancel := r.within(5 * r.settle)
	defer cancel()
	ids := r.members()
	var all sync.WaitGroup
	each := func(what string, fn func(n int, s *zk.Session) error) {
		for n, i := range ids {
			all.Go(func() {
				s, err := r.c.Member(i).Session(ctx)
				if err == nil {
					err = fn(n, s)
				}
				if err != nil {
					r.t.Errorf("member %d after healing: %s: %v", i, what, err)
				}
			})
		}
	}
	for path := range lockPaths {
		each("lock", func(n int, s *zk.Session) error {
			lock, call := r.lock(path, s), r.locks.h.now()
			held, err := lock.Acquire(ctx)
			if err == nil {
				r.locks.granted(&r.work, 100+n, lock.Path, call, held)
				r.release(held)
			}
			return err
		})
	}
	r.lets(each, ctx)
	each("election", func(n int, s *zk.Session) error { // ELEC-L1
		call := r.locks.h.now()
		l, err := recipes.NewElection(s, electionPath).Campaign(ctx, nil)
		if err == nil {
			r.locks.granted(&r.work, 300+n, electionPath, call, l.Held)
			r.release(l.Held)
		}
		return err
	})
	each("counter", func(n int, s *zk.Session) error { // CNT-L1
		return r.add(ctx, recipes.NewCounter(s, counterPath), 1)
	})
	each("transaction", func(n int, s *zk.Session) error {
		in, call := moveIn{from: n % purses, to: (n + 1) % purses}, r.moves.now()
		err := recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
			in.amount = 1
			return in.move(tx)
		}, zk.Linearizable)
		if err == nil {
			r.moves.add(100+n, call, in, moveOut{}, r.moves.now())
		}
		return err
	})
	for path := range queuePaths {
		each("queue", func(n int, s *zk.Session) error {
			q := r.queue(path, s)
			all.Go(func() {
				if err := r.receive(ctx, 100+n, path, q, false, func() {}); err != nil {
					r.t.Errorf("member %s after healing: receive: %v", s.Member().ID(), err)
				}
			})
			return r.put(ctx, 100+n, path, q, fmt.Sprintf("alive.%d", n), 100)
		})
	}
	for n := range roomSize {
		s, err := r.c.Member(ids[n%len(ids)]).NewSession(ctx, zk.SessionConfig{Name: "room"})
		if err != nil {
			r.t.Error(err)
			continue
		}
		all.Go(func() {
			if err := r.visit(ctx, 100+n, s, func() {}); err != nil {
				r.t.Errorf("double barrier after healing: %v", err)
			}
		})
	}
	each("barrier", func(n int, s *zk.Session) error {
		b := recipes.NewBarrier(s, "/barrier")
		call := r.barrier.now()
		if n == 0 {
			for _, in := range []barrierIn{barrierSet, barrierLift} {
				call = r.barrier.now()
				if err := [...]func(context.Context) error{b.Set, b.Lift}[in](ctx); err != nil {
					return err
				}
				r.barrier.add(100, call, in, nil, r.barrier.now())
			}
			return nil
		}
		err := b.Wait(ctx)
		if err == nil {
			r.barrier.add(100+n, call, barrierPass, nil, r.barrier.now())
		}
		return err
	})
	all.Wait()
}
