// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// theirSemaphore is a semaphore of limit 1 whose clients count the leases themselves. Each hook is a place where a library has gone
// wrong.
type theirSemaphore struct {
	s      *zk.Session
	mode   zk.CreateMode
	inner  bool                                        // only the first in a line of their own looks for a lease
	counts bool                                        // look, then create
	failed func(ctx context.Context, held ...string)   // what is done about the znodes of a call that fails
	watch  func(ctx context.Context, path string) bool // waits for a change; false: ctx ends
}

func theirUnits(set func(x *theirSemaphore)) locking {
	return func(s *zk.Session) get {
		x := &theirSemaphore{s: s, mode: zk.Ephemeral}
		x.failed = func(ctx context.Context, held ...string) {
			for _, path := range held {
				s.Delete(context.WithoutCancel(ctx), path, zk.AnyVersion)
			}
		}
		x.watch = func(ctx context.Context, path string) bool {
			_, _, changed, err := s.ChildrenW(ctx, path)
			if err != nil {
				return false
			}
			<-changed // closed at the latest with ctx
			return ctx.Err() == nil
		}
		set(x)
		return x.get
	}
}

func (x *theirSemaphore) get(ctx context.Context) (right, error) {
	var held []string
	if x.inner {
		z, err := x.s.Create(ctx, "/sem/locks/lock-", nil, zk.Ephemeral|zk.Sequential|zk.Parents)
		if err != nil {
			return nil, err
		}
		held = append(held, z.Path)
		if !x.first(ctx, "/sem/locks", z.Path) {
			x.failed(ctx, held...)
			return nil, ctx.Err()
		}
	}
	if x.counts {
		for {
			list, _, err := x.s.Children(ctx, "/sem/leases")
			if errors.Is(err, zk.ErrNoNode) || err == nil && len(list) == 0 {
				break
			}
			if err != nil || !x.watch(ctx, "/sem/leases") {
				x.failed(ctx, held...)
				return nil, errors.Join(err, ctx.Err())
			}
		}
		roundTrip()
	}
	z, err := x.s.Create(ctx, "/sem/leases/lease-", nil, x.mode|zk.Sequential|zk.Parents)
	if err != nil {
		return nil, err
	}
	held = append(held, z.Path)
	if !x.counts && !x.first(ctx, "/sem/leases", z.Path) {
		x.failed(ctx, held...)
		return nil, ctx.Err()
	}
	if x.inner {
		if err := x.s.Delete(ctx, held[0], zk.AnyVersion); err != nil {
			return nil, err
		}
	}
	return &theirRight{path: z.Path, lost: make(chan struct{}), release: func(ctx context.Context) error {
		return x.s.Delete(ctx, z.Path, zk.AnyVersion)
	}}, nil
}

// first waits until a znode is the lowest one of its directory.
func (x *theirSemaphore) first(ctx context.Context, dir, path string) bool {
	for {
		list, _, err := x.s.Children(ctx, dir)
		if err != nil {
			return false
		}
		if slices.Sort(list); dir+"/"+list[0] == path {
			return true
		}
		if !x.watch(ctx, dir) {
			return false
		}
	}
}

func ourUnits(s *zk.Session) get { return as(recipes.NewSemaphore(s, "/sem", 1).Acquire) }

// cancelledInLine has a call given up while it waits, and the next one come in.
func cancelledInLine(p *play, units locking) {
	h := p.has(units(p.s[1]))
	some, cancel := context.WithCancel(p.ctx)
	gone := p.queues(some, units(p.s[0]))
	cancel()
	within(p, "still waiting", gone)
	next := p.queues(p.ctx, units(p.s[2]))
	must(p.t, h.Release(p.ctx))
	within(p, "the next one is not let in", next)
}

var shareTrials = []trial{
	versus("PEER-25", "a writer that becomes a reader stands at the end", func(p *play, w *recipes.Held) right {
		h, err := recipes.NewRWLock(p.s[0], "/rw").Downgrade(p.ctx, w)
		must(p.t, err)
		return h
	}, func(p *play, w *recipes.Held) right {
		z, err := p.s[0].Create(p.ctx, "/rw/_c_"+someUUID+"-__READ__", nil, zk.Ephemeral|zk.Sequential)
		must(p.t, err)
		must(p.t, w.Release(p.ctx))
		return &theirRight{z.Path, make(chan struct{}), func(ctx context.Context) error { return p.s[0].Delete(ctx, z.Path, zk.AnyVersion) }}
	}, func(p *play, downgrade func(p *play, w *recipes.Held) right) {
		w, err := recipes.NewRWLock(p.s[0], "/rw").Lock(p.ctx)
		must(p.t, err)
		must(p.t, p.c.Quiesce(p.ctx))
		next := p.queues(p.ctx, as(recipes.NewRWLock(p.s[1], "/rw").Lock))
		r := downgrade(p, w)
		time.Sleep(time.Second)
		select {
		case <-next:
			p.violated("a writer is in beside a reader")
			return
		default:
		}
		must(p.t, r.Release(p.ctx))
		within(p, "the writer is not let in", next)
	}),
	versus("PEER-26", "a reader waits for every writer", func(s *zk.Session) get { return as(recipes.NewRWLock(s, "/rw").RLock) }, func(s *zk.Session) get {
		return func(ctx context.Context) (right, error) {
			z, err := s.Create(ctx, "/rw/_c_"+someUUID+"-__READ__", nil, zk.Ephemeral|zk.Sequential|zk.Parents)
			if err != nil {
				return nil, err
			}
			for {
				list, _, changed, err := s.ChildrenW(ctx, "/rw")
				if err != nil {
					return nil, err
				}
				if !slices.ContainsFunc(list, func(name string) bool { return name[39:47] == "-__WRIT_" }) {
					return &theirRight{path: z.Path}, nil
				}
				<-changed
			}
		}
	}, func(p *play, reader locking) {
		w := p.has(as(recipes.NewRWLock(p.s[1], "/rw").Lock))
		r := p.queues(p.ctx, reader(p.s[0]))
		p.queues(p.ctx, as(recipes.NewRWLock(p.s[2], "/rw").Lock))
		must(p.t, w.Release(p.ctx))
		within(p, "reader and writer wait for each other", r)
	}),
	versus("PEER-29", "who gives up leaves its lease", ourUnits, theirUnits(func(x *theirSemaphore) {
		x.failed = func(context.Context, ...string) {}
	}), cancelledInLine),
	versus("PEER-30", "clients count, then take", ourUnits, theirUnits(func(x *theirSemaphore) { x.counts = true }), func(p *play, units locking) {
		for i := range p.s {
			does(func() (right, error) { return units(p.s[i])(p.ctx) })
		}
		time.Sleep(time.Second)
		if n := len(p.children("/sem/leases")); n > 1 {
			p.violated("%d leases, the limit is 1", n)
		}
	}),
	versus("PEER-31", "the first in line gives up, and stays first", ourUnits, theirUnits(func(x *theirSemaphore) {
		x.inner = true
		clean := x.failed
		x.failed = func(ctx context.Context, held ...string) { clean(ctx, held[1:]...) } // not the place in line
	}), cancelledInLine),
	versus("PEER-33", "leases do not go with their holder", ourUnits, theirUnits(func(x *theirSemaphore) { x.mode = zk.Persistent }), func(p *play, units locking) {
		p.has(units(p.s[0]))
		for _, m := range p.at {
			must(p.t, p.c.Crash(m))
		}
		for _, m := range p.at {
			must(p.t, p.c.Restart(p.ctx, m))
		}
		for _, m := range p.at {
			must(p.t, p.c.Member(m).Ready(p.ctx))
		}
		s := session(p.t, p.ctx, p.c.Member(p.at[1]))
		within(p, "what the dead held is not free", does(func() (right, error) { return units(s)(p.ctx) }))
	}),
}

func ourCampaign(s *zk.Session) get {
	e := recipes.NewElection(s, "/e")
	return func(ctx context.Context) (right, error) {
		l, err := e.Campaign(ctx, []byte("ours"))
		if l == nil {
			return nil, err
		}
		return l, err
	}
}

// theirCampaign stands for election by their lock.
func theirCampaign(set func(l *theirLock)) locking {
	return theirs(func(l *theirLock) {
		l.dir = "/e"
		set(l)
	})
}

// running is a candidate for life: lead is called, with a context that ends with the leadership, each time it is elected.
type running = func(ctx context.Context, src *zk.Member, lead func(context.Context)) error

func ourRun(ctx context.Context, src *zk.Member, lead func(context.Context)) error {
	return recipes.NewElection(src, "/e").Run(ctx, nil, func(ctx context.Context, _ *recipes.Leadership) error {
		lead(ctx)
		return nil
	})
}

// theirRun stands once, and what it waits for under the lease is forgotten with that.
func theirRun(ctx context.Context, src *zk.Member, lead func(context.Context)) error {
	s, err := src.Session(ctx)
	if err != nil {
		return err
	}
	h, err := theirCampaign(deafLock)(s)(ctx)
	if err != nil {
		return err
	}
	lead(s.Context())
	return h.Release(ctx)
}

var electionTrials = []trial{
	versus("PEER-34", "a leader does not mind a suspension", ourCampaign, theirCampaign(func(*theirLock) {}), func(p *play, campaign locking) {
		l := p.has(campaign(p.s[0]))
		next := p.queues(p.ctx, campaign(p.s[1]))
		p.c.Isolate(p.at[0])
		if _, ok := within(p, "nobody else leads", next); ok && l.Valid() {
			p.violated("two lead")
		}
		p.heal()
		synctest.Wait()
		if p.s[0].State() != zk.StateActive && l.Valid() {
			p.violated("it leads without a session")
		}
	}),
	versus("PEER-35", "a candidate deletes and creates its znode when it is back", func(p *play) {
		go ourCampaign(p.s[0])(p.ctx)
	}, func(p *play) {
		create := func() (path string) {
			z, err := p.s[0].Create(p.ctx, "/e/"+someHex+"-latch-", nil, zk.Ephemeral|zk.Sequential)
			if err != nil {
				return ""
			}
			return z.Path
		}
		go func() {
			path, suspended := create(), false
			for st := range p.s[0].States(p.ctx) {
				if st == zk.StateActive && suspended {
					p.s[0].Delete(p.ctx, path, zk.AnyVersion)
					path = create()
				}
				suspended = st == zk.StateSuspended
			}
		}()
	}, func(p *play, candidate func(p *play)) {
		p.has(ourCampaign(p.s[1]))
		candidate(p)
		time.Sleep(time.Second)
		before := p.children("/e")
		z := p.s[1].LastZxid()
		for range 3 {
			p.suspend()
			p.recover()
			time.Sleep(time.Second)
		}
		if now := p.children("/e"); len(now) != 2 || !slices.Equal(now, before) {
			p.violated("candidates were %q and are %q, after %d changes", before, now, p.s[1].LastZxid()-z)
		}
	}),
	versus("PEER-36", "a candidate whose term is over stands no more", ourRun, theirRun, func(p *play, run running) {
		terms := make(chan int, 10)
		go run(p.ctx, p.c.Member(p.at[0]), func(context.Context) {
			select {
			case terms <- 0:
			default:
			}
		})
		for range 3 {
			if _, ok := within(p, "it does not stand again", terms); !ok {
				return
			}
		}
	}),
	versus("PEER-37", "the token is looked up when it is needed", func(p *play) func(ctx context.Context) (zk.Token, error) {
		l, err := recipes.NewElection(p.s[0], "/e").Campaign(p.ctx, nil)
		must(p.t, err)
		return func(context.Context) (zk.Token, error) { return l.Token(), nil }
	}, func(p *play) func(ctx context.Context) (zk.Token, error) {
		h := p.has(theirCampaign(func(*theirLock) {})(p.s[0]))
		return func(ctx context.Context) (zk.Token, error) {
			st, _, err := p.s[0].Exists(ctx, h.Path(), zk.Linearizable)
			return zk.Token(st.Czxid), err
		}
	}, func(p *play, elected func(p *play) func(ctx context.Context) (zk.Token, error)) {
		token := elected(p)
		p.c.Isolate(p.at[0])
		some, cancel := context.WithTimeout(p.ctx, time.Second)
		defer cancel()
		if tok, err := token(some); tok == 0 || err != nil {
			p.violated("token %v, %v", tok, err)
		}
	}),
	versus("PEER-38", "who leads is asked in two steps", func(ctx context.Context, s *zk.Session) error {
		_, err := recipes.NewElection(s, "/e").Leader(ctx)
		roundTrip()
		return err
	}, func(ctx context.Context, s *zk.Session) error {
		list, _, err := s.Children(ctx, "/e")
		if errors.Is(err, zk.ErrNoNode) || err == nil && len(list) == 0 {
			return recipes.ErrNoLeader
		}
		if err != nil {
			return err
		}
		roundTrip()
		_, _, err = s.Get(ctx, "/e/"+slices.Min(list))
		return err
	}, func(p *play, ask func(ctx context.Context, s *zk.Session) error) {
		some, stop := context.WithCancel(p.ctx)
		over := make(chan struct{})
		defer func() { stop(); <-over }()
		go func() {
			defer close(over)
			for some.Err() == nil {
				if l, err := recipes.NewElection(p.s[2], "/e").Campaign(some, nil); err == nil {
					time.Sleep(3 * time.Millisecond)
					l.Resign(p.ctx)
				}
			}
		}()
		for range 50 {
			time.Sleep(time.Millisecond)
			if err := ask(p.ctx, p.s[2]); err != nil && !errors.Is(err, recipes.ErrNoLeader) {
				p.violated("%v", err)
				return
			}
		}
	}),
	versus("PEER-39", "whoever is created last since the vacancy leads", func(p *play, ctx context.Context) iter.Seq2[recipes.Leader, error] {
		return recipes.NewElection(p.s[2], "/e").Observe(ctx)
	}, func(p *play, ctx context.Context) iter.Seq2[recipes.Leader, error] {
		return func(yield func(recipes.Leader, error) bool) {
			w, err := p.s[2].Watch(ctx, "/e", zk.WatchSubtree)
			if err != nil || !yield(recipes.Leader{}, nil) {
				return
			}
			defer w.Close()
			var last zk.Event
			for {
				select {
				case ev := <-w.Events():
					if ev.Type == zk.EventCreated && ev.Path != "/e" {
						last = ev
					}
				default:
					if !yield(recipes.Leader{Token: zk.Token(last.Zxid)}, nil) {
						return
					}
				}
			}
		}
	}, func(p *play, observe func(p *play, ctx context.Context) iter.Seq2[recipes.Leader, error]) {
		some, stop := context.WithCancel(p.ctx)
		defer stop()
		seen, goOn := make(chan recipes.Leader, 10), make(chan struct{})
		go func() {
			for l, err := range observe(p, some) {
				if err != nil {
					return
				}
				seen <- l
				select {
				case <-goOn:
				case <-some.Done():
					return
				}
			}
		}()
		if l, _ := within(p, "nothing is observed", seen); l.Token != 0 {
			p.violated("nobody leads, observed %+v", l)
		}
		l, err := recipes.NewElection(p.s[0], "/e").Campaign(p.ctx, nil) // while the observer is held up
		must(p.t, err)
		p.queues(p.ctx, ourCampaign(p.s[1]))
		must(p.t, p.c.Quiesce(p.ctx))
		goOn <- struct{}{}
		if o, ok := within(p, "nothing is observed", seen); ok && o.Token != l.Token() {
			p.violated("observed %v, %v leads", o.Token, l.Token())
		}
	}),
	versus("PEER-40", "a campaign that fails leaves its znode", ourCampaign, theirCampaign(func(l *theirLock) { l.failed = forget }), func(p *play, campaign locking) {
		_, err := p.s[1].Create(p.ctx, "/e", nil, zk.Persistent)
		must(p.t, err)
		// Who may create and delete, but not look, cannot wait in line.
		_, err = p.s[1].SetACL(p.ctx, "/e", []zk.ACL{{Perm: zk.PermCreate | zk.PermDelete | zk.PermAdmin, Scheme: "world", ID: "anyone"}}, zk.AnyVersion)
		must(p.t, err)
		must(p.t, p.c.Quiesce(p.ctx))
		if _, err := campaign(p.s[0])(p.ctx); !errors.Is(err, zk.ErrNoAuth) {
			p.violated("error %v", err)
		}
		must(p.t, p.c.Quiesce(p.ctx)) // so that nobody looks before it was there
		p.comes("a candidate is left", func() bool { return len(below(p.t, p.ctx, p.c.Member(p.at[1]), "/e")) == 0 })
	}),
	versus("PEER-41", "nobody stands again after a suspension", ourRun, theirRun, func(p *play, run running) {
		terms := make(chan int, 10)
		for i := range p.at {
			go run(p.ctx, p.c.Member(i), func(ctx context.Context) {
				terms <- i
				<-ctx.Done()
			})
		}
		within(p, "nobody leads", terms)
		time.Sleep(time.Second) // until all are in line
		p.c.Partition([]int{0}, []int{1}, []int{2})
		eventually(p.t, "not suspended", func() bool {
			return !slices.ContainsFunc(p.at[:], func(i int) bool {
				s, err := p.c.Member(i).Session(p.ctx)
				return err != nil || s.State() == zk.StateActive
			})
		})
		p.c.Heal()
		within(p, "nobody leads after it", terms)
	}),
}
