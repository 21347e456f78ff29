// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// The functions of this file are what docs/recipes.md, docs/from-curator.md and docs/from-etcd.md show: each of their Go
// blocks is the body of one of them, and TestCookbook runs them all.

func oneAtATime(ctx context.Context, m *zk.Member, report func(context.Context) error) error {
	return recipes.NewLock(m, "/app/report").Do(ctx, func(ctx context.Context, h *recipes.Held) error {
		return report(ctx) // ctx ends when the lock is lost: stop then
	})
}

func unlessItRuns(ctx context.Context, m *zk.Member, report func(context.Context) error) error {
	h, err := recipes.NewLock(m, "/app/report").TryAcquire(ctx)
	if errors.Is(err, recipes.ErrNotAcquired) {
		return nil // it runs elsewhere
	} else if err != nil {
		return err
	}
	defer h.Release(ctx)
	held, cancel := h.Context(ctx)
	defer cancel()
	return report(held)
}

func afterACrash(ctx context.Context, m *zk.Member, print func(context.Context) error) error {
	printer := recipes.NewLock(m, "/app/printer")
	printer.Grace = 30 * time.Second // for what a dead holder may have under way; after a release there is none
	return printer.Do(ctx, func(ctx context.Context, h *recipes.Held) error {
		return print(ctx)
	})
}

func beyondTheCaller(ctx context.Context, h *recipes.Held, upload func(context.Context) error) <-chan error {
	mine, done := h.Retain(), make(chan error, 1) // the caller may release h meanwhile
	go func() {
		held, cancel := mine.Context(ctx)
		defer cancel()
		done <- errors.Join(upload(held), mine.Release(ctx)) // the last release frees the lock
	}()
	return done
}

func onceAnHour(ctx context.Context, m *zk.Member, report func(context.Context) error) error {
	_, err := recipes.NewTimedLease(m, "/app/hourly", m.ID(), 55*time.Minute).Try(ctx)
	if errors.Is(err, recipes.ErrNotAcquired) {
		return nil // another instance has done it, or is at it
	} else if err != nil {
		return err
	}
	return report(ctx) // the lease is not released: it is what keeps the others out
}

func effectsInTheTree(ctx context.Context, h *recipes.Held, state []byte) error {
	_, err := h.Session().Txn(ctx, h.Guard(), zk.OpSet("/app/state", state, zk.AnyVersion))
	if errors.Is(err, zk.ErrGuard) {
		return errors.Join(err, h.Err()) // the right was lost: nothing was written
	}
	return err
}

func effectsElsewhere(ctx context.Context, h *recipes.Held, charge func(ctx context.Context, token zk.Token) error) error {
	if err := h.Err(); err != nil {
		return err // lost, as far as is known here
	}
	return charge(ctx, h.Token()) // the receiver refuses a token lower than one it has seen
}

func askForIt(ctx context.Context, m *zk.Member) error {
	line, err := recipes.NewLock(m, "/app/report").Contenders(ctx)
	if err != nil || len(line) == 0 {
		return err
	}
	return recipes.Revoke(ctx, m, line[0]) // its holder's Held.Revoked() is closed
}

func readersAndWriters(ctx context.Context, m *zk.Member, rebuild, serve func() error) error {
	lock := recipes.NewRWLock(m, "/app/catalogue")
	write, err := lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer write.Release(ctx)
	if err := rebuild(); err != nil {
		return err
	}
	read, err := lock.Downgrade(ctx, write) // other readers may come in, and no writer comes between
	if err != nil {
		return err
	}
	return errors.Join(serve(), read.Release(ctx))
}

func severalLocks(ctx context.Context, m *zk.Member, transfer zk.Op) error {
	h, err := recipes.LockAll(ctx, m, "/locks/bob", "/locks/alice") // in any order
	if err != nil {
		return err
	}
	_, err = h.Session().Txn(ctx, append(h.Guards(), transfer)...)
	return errors.Join(err, h.Release(ctx))
}

func atMostThree(ctx context.Context, m *zk.Member, download func(context.Context) error) error {
	h, err := recipes.NewSemaphore(m, "/app/downloads", 3).Acquire(ctx)
	if err != nil {
		return err
	}
	defer h.Release(ctx)
	held, cancel := h.Context(ctx)
	defer cancel()
	return download(held)
}

func changeTheLimit(ctx context.Context, m *zk.Member) error {
	workers := &recipes.Semaphore{Session: m, Path: "/app/workers", Limit: 4, SharedLimit: true}
	h, err := workers.Acquire(ctx)
	if err != nil {
		return err
	}
	return errors.Join(workers.SetLimit(ctx, 8), h.Release(ctx)) // from anywhere, at any time
}

func oneLeads(ctx context.Context, m *zk.Member, schedule func(context.Context, *recipes.Leadership) error) error {
	election := recipes.NewElection(m, "/app/scheduler")
	return election.Run(ctx, []byte("10.0.0.1:8080"), func(ctx context.Context, l *recipes.Leadership) error {
		return schedule(ctx, l) // returns when ctx ends; to return an error is to stand no more
	})
}

func whoLeads(ctx context.Context, m *zk.Member, connect func(addr string) error) error {
	for leader, err := range recipes.NewElection(m, "/app/scheduler").Observe(ctx) {
		if err != nil {
			return err
		}
		if leader.Token == 0 {
			continue // nobody, for now
		}
		if err := connect(string(leader.Value)); err != nil {
			return err
		}
	}
	return nil
}

func liveConfiguration(ctx context.Context, m *zk.Member, use func(workers int) error) error {
	type config struct{ Workers int }
	conf := recipes.NewValue[config](m, "/app/config")
	conf.Default = config{Workers: 4}
	for c, err := range conf.Watch(ctx) { // what it is now, then what it becomes
		if _, bad := errors.AsType[*recipes.DecodeError](err); bad {
			continue // somebody has written nonsense: go on with what we have
		} else if err != nil {
			return err
		}
		if err := use(c.Workers); err != nil {
			return err
		}
	}
	return nil
}

func changeConfiguration(ctx context.Context, m *zk.Member) error {
	type config struct{ Workers int }
	conf := recipes.NewValue[config](m, "/app/config")
	conf.Default = config{Workers: 4}
	_, err := conf.Update(ctx, func(c config) (config, error) {
		c.Workers++ // may run again if somebody else was faster: nothing but the new value comes out of here
		return c, nil
	})
	return err
}

func followSubtree(ctx context.Context, m *zk.Member, changed func(recipes.Change) error) error {
	cache := recipes.NewCache(m, "/app/routes")
	if err := cache.Start(ctx); err != nil {
		return err
	}
	defer cache.Close()
	for change, err := range cache.Changes(ctx) { // first all that is there, as Added
		if err != nil {
			return err
		}
		if err := changed(change); err != nil {
			return err
		}
	}
	return nil
}

func beThere(ctx context.Context, m *zk.Member) error {
	me, err := recipes.NewGroup(m, "/app/workers").Join(ctx, "worker-7", []byte("10.0.0.7:8080"))
	if err != nil {
		return err
	}
	<-ctx.Done() // work
	return me.Stop(context.WithoutCancel(ctx))
}

func whoIsThere(ctx context.Context, m *zk.Member, use func([]recipes.Member) error) error {
	for members, err := range recipes.NewGroup(m, "/app/workers").Watch(ctx) {
		if err != nil {
			return err
		}
		if err := use(members); err != nil {
			return err
		}
	}
	return nil
}

func onceAllHaveStarted(ctx context.Context, m *zk.Member, plan func([]recipes.Member) error) error {
	members, err := recipes.NewGroup(m, "/app/workers").Settled(ctx, 5*time.Second)
	if err != nil {
		return err
	}
	return plan(members) // nobody has come or gone for five seconds
}

func keepItThere(ctx context.Context, m *zk.Member, newState <-chan []byte) error {
	p := recipes.NewPresence(m, "/app/status/host-1", []byte("starting"))
	if err := p.Start(ctx); err != nil {
		return err
	}
	for state := range newState {
		if err := p.Set(ctx, state); err != nil {
			return err
		}
	}
	return p.Stop(ctx)
}

func outliveRestarts(ctx context.Context, m *zk.Member) error {
	p := recipes.NewTTLPresence(m, "/app/installed/host-1", 10*time.Minute)
	if err := p.Start(ctx); err != nil {
		return err
	}
	return p.Stop(ctx) // the znode stays for ten minutes more
}

func shareItems(ctx context.Context, m *zk.Member, work func(context.Context, string, *recipes.Held) error) error {
	shards := []string{"shard-0", "shard-1", "shard-2", "shard-3"} // the same for all
	return recipes.NewPartitioner(m, "/app/shards", "worker-7", shards).Run(ctx, work)
}

func produce(ctx context.Context, m *zk.Member) error {
	jobs := recipes.NewQueue[string](m, "/app/jobs")
	return errors.Join(
		jobs.Put(ctx, "resize cat.jpg"),
		jobs.PutPriority(ctx, "pay the bill", 10), // lower goes first; Put is 100
		jobs.PutAfter(ctx, "remind me", 10*time.Minute),
	)
}

func consume(ctx context.Context, m *zk.Member, work func(job string) (result []byte, err error)) error {
	for msg, err := range recipes.NewQueue[string](m, "/app/jobs").Messages(ctx) {
		if err != nil {
			return err // a *recipes.DecodeError could be logged: the loop goes on after it
		}
		result, err := work(msg.Value)
		if err == nil { // acknowledged and stored, or neither
			err = msg.AckWith(ctx, zk.OpSet("/app/result", result, zk.AnyVersion))
		} else { // again, later, by whoever has time
			err = msg.Nack(ctx, time.Minute)
		}
		if err != nil && !errors.Is(err, recipes.ErrLost) {
			return err
		}
	}
	return nil
}

func boundedQueue(ctx context.Context, m *zk.Member, image []byte) error {
	images := recipes.NewQueue[[]byte](m, "/app/images")
	images.MaxItems = 100 // the same for all who put
	enough, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := images.Put(enough, image) // waits for room
	if errors.Is(err, context.DeadlineExceeded) && !zk.MaybeApplied(err) {
		return nil // still full: do without
	}
	return err
}

func atMostOnce(ctx context.Context, m *zk.Member, notify func(text string)) error {
	notices := recipes.NewQueue[string](m, "/app/notices")
	for {
		text, err := notices.Take(ctx) // it is gone before we have it: nobody gets it twice, and perhaps nobody at all
		if err != nil {
			return err
		}
		notify(text)
	}
}

func shardedQueue(ctx context.Context, m *zk.Member, work func(job string) error) error {
	jobs := recipes.NewShardedQueue[string](m, "/app/sharded") // a directory of Curator's QueueSharder
	if err := jobs.Put(ctx, "resize cat.jpg"); err != nil {
		return err
	}
	msg, err := jobs.Receive(ctx) // from any shard
	if err != nil {
		return err
	}
	if err := work(msg.Value); err != nil {
		return errors.Join(err, msg.Nack(ctx, 0)) // at once: shards have no delays
	}
	return msg.Ack(ctx)
}

func together(ctx context.Context, m *zk.Member, compute func(context.Context) error) error {
	crew := recipes.NewDoubleBarrier(m, "/app/round", 3)
	return crew.Do(ctx, compute) // begins when three are there, returns when three are done
}

func duringMaintenance(ctx context.Context, m *zk.Member, maintain func() error) error {
	gate := recipes.NewBarrier(m, "/app/maintenance")
	if err := gate.Set(ctx); err != nil {
		return err
	}
	return errors.Join(maintain(), gate.Lift(ctx)) // elsewhere: gate.Wait(ctx)
}

func whenAllAreReady(ctx context.Context, m *zk.Member) error {
	ready := recipes.NewLatch(m, "/app/ready", 3)
	if _, err := ready.CountDown(ctx); err != nil { // this part is ready
		return err
	}
	return ready.Wait(ctx) // so are the others
}

func giveOutNumbers(ctx context.Context, m *zk.Member, use func(id int64) error) error {
	ids := recipes.NewCounter(m, "/app/ids")
	block, err := ids.Block(ctx, 1000) // one write for a thousand numbers; ids.Add(ctx, 1) for a single one
	if err != nil {
		return err
	}
	for id, ok := block.Next(); ok; id, ok = block.Next() {
		if err := use(id); err != nil {
			return err
		}
	}
	return nil
}

func offerService(ctx context.Context, m *zk.Member) error {
	services := recipes.NewRegistry[struct{}](m, "/services")
	here, err := services.Register(ctx, recipes.Instance[struct{}]{Name: "search", Address: "10.0.0.7", Port: 9000, Enabled: true})
	if err != nil {
		return err
	}
	<-ctx.Done() // serve
	return here.Deregister(context.WithoutCancel(ctx))
}

func useService(ctx context.Context, m *zk.Member, call func(addr string) error) error {
	search := recipes.NewRegistry[struct{}](m, "/services").Provider("search", recipes.RoundRobin[struct{}]())
	defer search.Close()
	in, err := search.Pick(ctx) // for each call: local, and as new as this member
	if err != nil {
		return err
	}
	if err := call(fmt.Sprintf("%s:%d", in.Address, in.Port)); err != nil {
		search.NoteError(in) // passed over for a while if it goes on like this
		return err
	}
	return nil
}

func severalZnodes(ctx context.Context, m *zk.Member) error {
	return recipes.Atomically(ctx, m, func(tx *recipes.Tx) error {
		next, _, err := tx.Get("/app/next")
		if err != nil {
			return err
		}
		if err := tx.Set("/app/current", next); err != nil {
			return err
		}
		return tx.Delete("/app/next")
	})
}

func askAllSites(ctx context.Context, m *zk.Member) (committed bool, err error) {
	p, err := recipes.NewTwoPhase(m, "/app/transfers").Propose(ctx, "transfer-17", []byte("5 from a to b"), "site-a", "site-b")
	if err != nil {
		return false, err
	}
	return p.Decision(ctx) // true: all have promised to do it
}

func takePart(ctx context.Context, m *zk.Member, prepare func([]byte) bool, finish func(id string, commit bool) error) error {
	for p, err := range recipes.NewTwoPhase(m, "/app/transfers").Proposals(ctx, "site-a") {
		if err != nil {
			return err
		}
		if err := p.Vote(ctx, prepare(p.Request())); err != nil && !errors.Is(err, recipes.ErrDecided) {
			return err
		}
		committed, err := p.Decision(ctx)
		if err != nil {
			return err
		}
		if err := finish(p.ID(), committed); err != nil {
			return err
		}
	}
	return nil
}

func migrateOnce(ctx context.Context, m *zk.Member) error {
	return recipes.Migrate(ctx, m, "/app/migrations",
		recipes.Step{Name: "users", Ops: func(context.Context, *zk.Session) ([]zk.Op, error) {
			return []zk.Op{zk.OpCreate("/app/users", nil, zk.Persistent|zk.Parents)}, nil
		}},
		recipes.Step{Name: "limit of users", Ops: func(context.Context, *zk.Session) ([]zk.Op, error) {
			return []zk.Op{zk.OpCreate("/app/users/limit", []byte("10"), zk.Persistent)}, nil
		}},
	)
}

func typedZnodes(ctx context.Context, m *zk.Member, use func(path, plan string) error) error {
	plans := recipes.NewModel[string](m, "/tenants/{tenant}/plan") // any type: JSON, or a codec of your own
	if err := plans.Put(ctx, "/tenants/acme/plan", "free"); err != nil {
		return err
	}
	for item, err := range plans.All(ctx) { // of all tenants, as of one zxid
		if err == nil {
			err = use(item.Path, item.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func rulesForPaths(ctx context.Context, s *zk.Session) error {
	schema := &recipes.Schema{Closed: true, Rules: []recipes.Rule{
		{Pattern: "/tenants/{tenant}/conf", Ephemeral: recipes.Cannot, NoDelete: true},
		{Pattern: "/tenants/{tenant}/workers/*", Ephemeral: recipes.Must},
	}}
	_, err := schema.On(s).Create(ctx, "/tenants/acme/workers/7", nil, zk.Persistent)
	return err // a *recipes.SchemaError: nothing was sent
}

func ownRetries(ctx context.Context, call func(context.Context) error) error {
	for attempt := 0; ; attempt++ {
		if err := call(ctx); err == nil {
			return nil
		}
		if err := (recipes.Backoff{Max: 5 * time.Second}).Wait(ctx, attempt); err != nil {
			return err
		}
	}
}

func apartFromOthers(ctx context.Context, m *zk.Member) error {
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	billing := s.Sub("/billing") // its /lock is /billing/lock to everybody else
	return recipes.NewLock(billing, "/lock").Do(ctx, func(ctx context.Context, h *recipes.Held) error {
		return ctx.Err()
	})
}

func fromInterProcessMutex(ctx context.Context, m *zk.Member, report func(context.Context) error) error {
	waiting, enough := context.WithTimeout(ctx, 10*time.Second)
	defer enough()
	h, err := recipes.NewLock(m, "/locks/report").Acquire(waiting)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // somebody else has it
	} else if err != nil {
		return err
	}
	defer h.Release(ctx)
	held, cancel := h.Context(ctx) // Curator's ConnectionStateListener: it ends when the lock is lost
	defer cancel()
	return report(held)
}

func fromKazooPartitioner(ctx context.Context, m *zk.Member, work func(context.Context, string, *recipes.Held) error) error {
	p := recipes.NewPartitioner(m, "/shards", "worker-7", []string{"a", "b", "c"})
	p.Assign = recipes.Deal // kazoo's way to share: all must share alike
	return p.Run(ctx, work)
}

func fromEtcdElection(ctx context.Context, m *zk.Member, lead func(context.Context) error) error {
	l, err := recipes.NewElection(m, "/scheduler").Campaign(ctx, []byte("10.0.0.1:8080"))
	if err != nil {
		return err
	}
	defer l.Resign(ctx)
	if _, err := l.Session().Txn(ctx, l.Guard(), zk.OpSet("/state", []byte("led"), zk.AnyVersion)); err != nil {
		return err // zk.ErrGuard: another leads by now, and nothing was written
	}
	held, cancel := l.Context(ctx)
	defer cancel()
	return lead(held) // held ends before another can lead
}
