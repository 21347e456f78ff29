// SPDX-License-Identifier: Apache-2.0

//go:build ensemble

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/transport"
)

var member *zk.Member

// listen is how members reach each other.
var listen = func() (*transport.Transport, error) { return transport.TCP(":9000") }

func init() {
	parts = append(parts, open, data, watches, rights, gates, queues, groups, values, operate)
}

func open(ctx context.Context, log *slog.Logger) error {
	tr, err := listen()
	if err != nil {
		return err
	}
	peers := []zk.Peer{{ID: "a", Addr: "a:9000", Voter: true}, {ID: "b", Addr: "b:9000", Voter: true}, {ID: "c", Addr: "c:9000", Voter: true}}
	if member, err = zk.Open(ctx, zk.Config{ID: "a", Dir: "data", Transport: tr, Peers: peers, Logger: log, Audit: log}); err != nil {
		return err
	}
	return member.Ready(ctx)
}

func data(ctx context.Context, log *slog.Logger) error {
	s, err := member.NewSession(ctx, zk.SessionConfig{Name: "size", Timeout: time.Minute})
	if err != nil {
		return err
	}
	z, err := s.Create(ctx, "/a", []byte("1"), zk.Ephemeral|zk.Sequential)
	log.Info("created", "path", z.Path, "created", z.Stat.Czxid, "err", err)
	b, st, err := s.Get(ctx, z.Path, zk.Fresh(time.Second))
	log.Info("read", "data", b, "version", st.Version, "err", err)
	_, err1 := s.Set(ctx, z.Path, b, st.Version)
	_, err2 := s.Txn(ctx, zk.OpCheck("/a", 1), zk.OpCreate("/b", nil, zk.Persistent), zk.OpDelete("/c", zk.AnyVersion))
	list, _, err3 := s.Children(ctx, "/")
	log.Info("children", "list", list, "unknown", zk.MaybeApplied(err2))
	return errors.Join(err1, err2, err3, s.Sync(ctx), s.DeleteTree(ctx, "/a"), s.Delete(ctx, "/b", 1), s.Close())
}

func watches(ctx context.Context, log *slog.Logger) error {
	s, err := member.Session(ctx)
	if err != nil {
		return err
	}
	w, err := s.Watch(ctx, "/a", zk.WatchSubtree)
	if err != nil {
		return err
	}
	for ev := range w.Events() {
		log.Info("event", "type", ev.Type, "path", ev.Path)
	}
	for st, err := range s.States(ctx) {
		log.Info("state", "state", st, "err", err)
	}
	for list, err := range s.WatchChildren(ctx, "/a") {
		log.Info("children", "list", list, "err", err)
	}
	for z, err := range s.WatchValue(ctx, "/a") {
		log.Info("value", "data", z.Data, "err", err)
	}
	return s.View(ctx, func(v *zk.View) error {
		for name, err := range v.Children("/") {
			log.Info("child", "name", name, "err", err)
		}
		return nil
	})
}

func rights(ctx context.Context, log *slog.Logger) error {
	held := func(ctx context.Context, h *recipes.Held) error {
		log.Info("held", "token", h.Token())
		return h.Verify(ctx)
	}
	lock, rw, sem := recipes.NewLock(member, "/lock"), recipes.NewRWLock(member, "/rw"), recipes.NewSemaphore(member, "/sem", 2)
	var errs []error
	for _, acquire := range []func(context.Context) (*recipes.Held, error){
		lock.Acquire, lock.TryAcquire, rw.Lock, rw.RLock, sem.Acquire, recipes.NewTimedLease(member, "/lease", "me", time.Minute).Try,
	} {
		h, err := acquire(ctx)
		if err == nil {
			err = errors.Join(held(ctx, h), h.Release(ctx))
		}
		errs = append(errs, err)
	}
	both, err := recipes.LockAll(ctx, member, "/x", "/y")
	if err == nil {
		err = both.Release(ctx)
	}
	errs = append(errs, err, lock.Do(ctx, held))
	election := recipes.NewElection(member, "/election")
	for l, err := range election.Observe(ctx) {
		log.Info("leader", "id", l, "err", err)
	}
	errs = append(errs, election.Run(ctx, nil, func(ctx context.Context, l *recipes.Leadership) error { <-ctx.Done(); return nil }))
	errs = append(errs, recipes.NewPartitioner(member, "/parts", "me", []string{"1", "2"}).Run(ctx, func(ctx context.Context, item string, h *recipes.Held) error { return held(ctx, h) }))
	return errors.Join(errs...)
}

func gates(ctx context.Context, _ *slog.Logger) error {
	b, l := recipes.NewBarrier(member, "/barrier"), recipes.NewLatch(member, "/latch", 3)
	_, err := l.CountDown(ctx)
	work := func(context.Context) error { return nil }
	return errors.Join(err, b.Set(ctx), b.Lift(ctx), b.Wait(ctx), l.Wait(ctx), recipes.NewDoubleBarrier(member, "/rooms", 2).Do(ctx, work))
}

func queues(ctx context.Context, log *slog.Logger) error {
	q, sharded := recipes.NewQueue[string](member, "/queue"), recipes.NewShardedQueue[string](member, "/sharded")
	errs := []error{q.Put(ctx, "a"), q.PutAfter(ctx, "a", time.Minute), q.PutPriority(ctx, "b", 1), sharded.Put(ctx, "c")}
	item, err := q.Take(ctx)
	log.Info("taken", "item", item)
	errs = append(errs, err)
	for _, receive := range []func(context.Context) (*recipes.Message[string], error){q.Receive, sharded.Receive} {
		m, err := receive(ctx)
		if err == nil {
			err = errors.Join(m.Ack(ctx), m.Nack(ctx, time.Second))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func groups(ctx context.Context, log *slog.Logger) error {
	g := recipes.NewGroup(member, "/group")
	p, err := g.Join(ctx, "me", nil)
	if err != nil {
		return err
	}
	for list, err := range g.Watch(ctx) {
		log.Info("members", "list", list, "err", err)
	}
	r := recipes.NewRegistry[string](member, "/services")
	in, err := r.Register(ctx, recipes.Instance[string]{Name: "web", Address: "a", Port: 80})
	if err != nil {
		return err
	}
	picked, err1 := r.Provider("web", recipes.Sticky(recipes.RoundRobin[string]())).Pick(ctx)
	log.Info("picked", "instance", picked)
	presence := recipes.NewTTLPresence(member, "/ttl", time.Minute)
	return errors.Join(err1, p.Stop(ctx), presence.Start(ctx), presence.Stop(ctx), in.Update(ctx, picked), in.Deregister(ctx))
}

func values(ctx context.Context, log *slog.Logger) error {
	v, n := recipes.NewValue[int](member, "/value"), recipes.NewCounter(member, "/counter")
	_, err1 := v.Update(ctx, func(i int) (int, error) { return i + 1, nil })
	_, _, err2 := n.Add(ctx, 1)
	err3 := recipes.Atomically(ctx, member, func(tx *recipes.Tx) error {
		b, _, err := tx.Get("/a")
		log.Info("read", "data", b)
		return errors.Join(err, tx.Set("/a", nil))
	})
	c := recipes.NewCache(member, "/")
	err4 := c.Start(ctx)
	for change, err := range c.Changes(ctx) {
		log.Info("change", "change", change, "err", err)
	}
	c.Close()
	err5 := recipes.NewModel[int](member, "/model/{id}").Put(ctx, "/model/1", 1)
	err6 := recipes.Migrate(ctx, member, "service", recipes.Step{})
	_, err7 := recipes.NewTwoPhase(member, "/two").Propose(ctx, "1", nil, "here", "there")
	return errors.Join(err1, err2, err3, err4, err5, err6, err7)
}

func operate(ctx context.Context, log *slog.Logger) error {
	members, err := member.Members(ctx)
	log.Info("operate", "members", members, "stats", member.Stats(), "role", member.RoleInfo())
	z, err1 := member.Backup(ctx, os.Stdout)
	log.Info("backup", "zxid", z)
	return errors.Join(err, err1, member.Restore(ctx, os.Stdin), member.TransferLeadership(ctx, ""), member.RemoveMember(ctx, "b"), member.Shutdown(ctx))
}
