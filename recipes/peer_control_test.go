// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// A trial is a scenario for two algorithms: ours, which must come through it, and one with the fault of another library, which must
// not. The second shows that the scenario would see the fault. The faulty ones are written for this, over the same znodes.
type trial struct {
	rule, fault  string
	ours, theirs func(p *play)
}

func versus[A any](rule, fault string, ours, theirs A, scenario func(p *play, a A)) trial {
	return trial{rule, fault, func(p *play) { scenario(p, ours) }, func(p *play) { scenario(p, theirs) }}
}

// play is one run of a scenario. What goes wrong with the algorithm is noted; t is for what the scenario needs.
type play struct {
	t     *testing.T
	ctx   context.Context
	c     *zktest.Cluster
	at    [3]int         // members; the first one does not lead
	s     [3]*zk.Session // the first one's is short of time, the others have plenty
	wrong []string
}

func (p *play) violated(format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

// within waits a minute for ch, and notes what if nothing comes.
func within[T any](p *play, what string, ch <-chan T) (v T, ok bool) {
	select {
	case v = <-ch:
		return v, true
	case <-time.After(time.Minute):
		p.violated("%s", what)
		return v, false
	}
}

// comes lets a minute pass until ok, and notes what if it does not come true.
func (p *play) comes(what string, ok func() bool) {
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.violated("%s", what)
}

// does starts fn; the result comes when it has returned.
func does[T any](fn func() (T, error)) <-chan outcome[T] {
	done := make(chan outcome[T], 1)
	go func() {
		v, err := fn()
		done <- outcome[T]{v, err}
	}()
	synctest.Wait()
	return done
}

type outcome[T any] struct {
	v   T
	err error
}

// roundTrip is the time in which the algorithms of others wait for the answer to a read.
func roundTrip() { time.Sleep(5 * time.Millisecond) }

// children lists a directory as of now; a missing one is empty.
func (p *play) children(path string) []string {
	return names(p.t, p.ctx, p.s[1], path)
}

// silence makes the answers to the first member's writes go lost, until heal. The writes arrive.
func (p *play) silence() {
	synctest.Wait() // until what is under way has its answer
	p.c.Network().Cut(zktest.Name(leader(p.t, p.ctx, p.c)), zktest.Name(p.at[0]))
}

func (p *play) suspend() {
	p.c.Isolate(p.at[0])
	eventually(p.t, "not suspended", func() bool { return p.s[0].State() == zk.StateSuspended })
}

func (p *play) heal() {
	p.c.Heal()
	must(p.t, p.c.Quiesce(p.ctx))
}

// recover heals before the suspended session has expired.
func (p *play) recover() {
	p.heal()
	eventually(p.t, "not active", func() bool { return p.s[0].State() == zk.StateActive })
	must(p.t, p.s[0].Err())
}

func TestPeerControls(t *testing.T) {
	for _, list := range [][]trial{lockTrials, shareTrials, electionTrials, barrierTrials, queueTrials, valueTrials, presenceTrials, agreementTrials} {
		for _, tr := range list {
			t.Run(tr.rule+", "+tr.fault, func(t *testing.T) {
				onTrial(t, "ours", tr.ours, func(t *testing.T, wrong []string) {
					for _, w := range wrong {
						t.Error(w)
					}
				})
				onTrial(t, "theirs", tr.theirs, func(t *testing.T, wrong []string) {
					if len(wrong) == 0 {
						t.Error("the scenario does not see the fault")
					}
					t.Log(strings.Join(wrong, "; "))
				})
			})
		}
	}
}

func onTrial(t *testing.T, whose string, run func(p *play), judge func(t *testing.T, wrong []string)) {
	t.Run(whose, func(t *testing.T) {
		cfg := short
		cfg.Base.ReapInterval = time.Second
		bubble(t, 3, cfg, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			f := follower(t, ctx, c)
			p := &play{t: t, ctx: ctx, c: c, at: [3]int{f, (f + 1) % 3, (f + 2) % 3}}
			for i, m := range p.at {
				var err error
				p.s[i], err = c.Member(m).NewSession(ctx, zk.SessionConfig{Timeout: time.Duration(min(i, 1)) * 2 * time.Minute})
				must(t, err)
			}
			must(t, c.Quiesce(ctx))
			run(p)
			c.Heal()
			judge(t, p.wrong)
		})
	})
}

// right is what a lock gives, whoever's.
type right interface {
	Valid() bool
	Lost() <-chan struct{}
	Path() string
	Release(ctx context.Context) error
}

type get = func(ctx context.Context) (right, error)

// as makes a call of ours one of anybody's.
func as(fn call) get {
	return func(ctx context.Context) (right, error) {
		h, err := fn(ctx)
		if h == nil {
			return nil, err
		}
		return h, err
	}
}

func ourLock(s *zk.Session) get { return as(recipes.NewLock(s, "/l").Acquire) }
func ourTry(s *zk.Session) get  { return as(recipes.NewLock(s, "/l").TryAcquire) }

// theirLock is the lock of ZooKeeper's recipes page, by listing: a sequential znode, the lowest one has it, the others watch the one
// before theirs. Each hook is a place where a library has gone wrong.
type theirLock struct {
	s     *zk.Session
	watch *zk.Session // what waits; nil: s
	dir   string      // default: /l
	try   bool

	join    func(ctx context.Context) (path string, err error)
	number  func(name string) (int64, error)
	await   func(ctx context.Context, changed <-chan zk.Event) error
	failed  func(ctx context.Context, path string, err error) (right, error)
	release func(ctx context.Context, path string) error
}

func theirs(set func(l *theirLock)) func(s *zk.Session) get {
	return func(s *zk.Session) get {
		l := &theirLock{s: s, watch: s, dir: "/l"}
		l.join = func(ctx context.Context) (string, error) {
			z, err := s.Create(ctx, l.dir+"/"+someHex+"-lock-", nil, zk.Ephemeral|zk.Sequential|zk.Parents)
			return z.Path, err
		}
		l.number = func(name string) (n int64, err error) {
			if len(name) < 10 {
				return 0, errors.New("no number")
			}
			_, err = fmt.Sscanf(name[len(name)-10:], "%d", &n)
			return n, err
		}
		l.await = func(ctx context.Context, changed <-chan zk.Event) error {
			select {
			case ev := <-changed:
				if ev.Type == zk.EventSession {
					return zk.ErrSessionExpired
				}
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		l.failed = func(ctx context.Context, path string, err error) (right, error) {
			s.Delete(context.WithoutCancel(ctx), path, zk.AnyVersion)
			return nil, err
		}
		l.release = func(ctx context.Context, path string) error { return s.Delete(ctx, path, zk.AnyVersion) }
		set(l)
		return l.get
	}
}

// before is the one that goes first, or "".
func (l *theirLock) before(ctx context.Context, path string) (prev string, err error) {
	list, _, err := l.watch.Children(ctx, l.dir)
	if err != nil {
		return "", err
	}
	mine, err := l.number(path)
	if err != nil {
		return "", err
	}
	best := int64(-1 << 62)
	for _, name := range list {
		n, err := l.number(name)
		if err != nil {
			return "", err
		}
		if n < mine && n > best {
			prev, best = l.dir+"/"+name, n
		}
	}
	return prev, nil
}

func (l *theirLock) get(ctx context.Context) (right, error) {
	path, err := l.join(ctx)
	if err != nil {
		return nil, err
	}
	for {
		prev, err := l.before(ctx, path)
		switch {
		case err != nil:
			return l.failed(ctx, path, err)
		case prev == "":
			return l.have(path), nil
		case l.try:
			return l.failed(ctx, path, recipes.ErrNotAcquired)
		}
		_, there, changed, err := l.watch.ExistsW(ctx, prev)
		if err == nil && there {
			err = l.await(ctx, changed)
		}
		if err != nil {
			return l.failed(ctx, path, err)
		}
	}
}

// have is the right, with nothing that would tell of its end but the znode's.
func (l *theirLock) have(path string) right {
	h := &theirRight{path: path, lost: make(chan struct{}), release: func(ctx context.Context) error { return l.release(ctx, path) }}
	if _, there, changed, err := l.s.ExistsW(context.Background(), path); err == nil && there {
		go func() {
			if ev := <-changed; ev.Type == zk.EventDeleted {
				close(h.lost)
			}
		}()
	}
	return h
}

type theirRight struct {
	path    string
	lost    chan struct{}
	release func(ctx context.Context) error
}

func (h *theirRight) Valid() bool {
	select {
	case <-h.lost:
		return false
	default:
		return true
	}
}
func (h *theirRight) Lost() <-chan struct{}             { return h.lost }
func (h *theirRight) Path() string                      { return h.path }
func (h *theirRight) Release(ctx context.Context) error { return h.release(ctx) }

// has gets what is free.
func (p *play) has(fn get) right {
	p.t.Helper()
	h, err := fn(p.ctx)
	must(p.t, err)
	must(p.t, p.c.Quiesce(p.ctx))
	return h
}

// queues starts a call that has to wait.
func (p *play) queues(ctx context.Context, fn get) <-chan outcome[right] {
	done := does(func() (right, error) { return fn(ctx) })
	time.Sleep(500 * time.Millisecond)
	return done
}

type locking = func(s *zk.Session) get

// forget does nothing about a znode when a call fails.
func forget(_ context.Context, _ string, err error) (right, error) { return nil, err }

var lockTrials = []trial{
	versus("PEER-01", "a holder goes by what it is told", ourLock, theirs(func(*theirLock) {}), func(p *play, lock locking) {
		h := p.has(lock(p.s[0]))
		next := p.queues(p.ctx, lock(p.s[1]))
		p.c.Isolate(p.at[0])
		if _, ok := within(p, "not granted", next); ok && h.Valid() {
			p.violated("the holder is valid beside the next")
		}
	}),
	versus("PEER-02", "a loss is what the server says it is", ourLock, theirs(func(*theirLock) {}), func(p *play, lock locking) {
		h := p.has(lock(p.s[0]))
		p.c.Network().Drop(1)
		within(p, "not lost in a minute of silence", h.Lost())
	}),
	versus("PEER-03", "a znode of one's own name is one's own", ourLock, theirs(func(l *theirLock) {
		l.join = func(ctx context.Context) (string, error) {
			_, err := l.s.Create(ctx, "/l/client-0000000000", nil, zk.Ephemeral|zk.Parents)
			if errors.Is(err, zk.ErrNodeExists) { // it is this client's name
				err = nil
			}
			return "/l/client-0000000000", err
		}
	}), func(p *play, lock locking) {
		p.has(lock(p.s[0]))
		s := session(p.t, p.ctx, p.c.Member(p.at[0])) // the next one of the same process
		next := does(func() (right, error) { return lock(s)(p.ctx) })
		must(p.t, p.c.Expire(p.ctx, p.s[0]))
		if o, ok := within(p, "not granted", next); ok {
			must(p.t, o.err)
			if st, there, err := p.s[1].Exists(p.ctx, o.v.Path(), zk.Linearizable); err != nil || !there || st.EphemeralOwner != s.ID() {
				p.violated("its znode went with another session")
			}
		}
	}),
	versus("PEER-04", "a create without an answer is made again", ourLock, theirs(func(l *theirLock) {
		once := l.join
		l.join = func(ctx context.Context) (string, error) {
			for {
				some, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
				path, err := once(some)
				cancel()
				if err == nil || ctx.Err() != nil {
					return path, err
				}
			}
		}
	}), func(p *play, lock locking) {
		p.silence()
		done := does(func() (right, error) { return lock(p.s[0])(p.ctx) })
		time.Sleep(500 * time.Millisecond)
		p.heal()
		within(p, "a ghost is in its way", done)
		if n := len(p.children("/l")); n != 1 {
			p.violated("%d znodes of one contender", n)
		}
	}),
	versus("PEER-06", "a try that fails does not know of its znode", ourTry, theirs(func(l *theirLock) { l.try = true }), func(p *play, try locking) {
		p.silence()
		some, cancel := context.WithTimeout(p.ctx, 300*time.Millisecond)
		defer cancel()
		if _, err := try(p.s[0])(some); !errors.Is(err, context.DeadlineExceeded) {
			p.violated("error %v", err)
		}
		p.heal()
		p.comes("a znode is left", func() bool { return len(p.children("/l")) == 0 })
	}),
	versus("PEER-07", "clean-up under the cancelled context", ourLock, theirs(func(l *theirLock) {
		l.failed = func(ctx context.Context, path string, err error) (right, error) {
			return nil, errors.Join(err, l.s.Delete(ctx, path, zk.AnyVersion))
		}
	}), func(p *play, lock locking) {
		h := p.has(lock(p.s[1]))
		some, cancel := context.WithCancel(p.ctx)
		gone := p.queues(some, lock(p.s[0]))
		next := p.queues(p.ctx, lock(p.s[2]))
		cancel()
		within(p, "still waiting", gone)
		must(p.t, h.Release(p.ctx))
		within(p, "the successor is not granted it", next)
	}),
	versus("PEER-08", "whoever is woken has it", ourLock, theirs(func(l *theirLock) {
		l.await = func(ctx context.Context, changed <-chan zk.Event) error {
			select {
			case <-changed:
				return errWoken
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		l.failed = func(_ context.Context, path string, err error) (right, error) {
			if err == errWoken {
				return l.have(path), nil
			}
			return nil, err
		}
	}), func(p *play, lock locking) {
		h := p.has(lock(p.s[1]))
		next := p.queues(p.ctx, lock(p.s[0]))
		must(p.t, p.c.Expire(p.ctx, p.s[0]))
		must(p.t, h.Release(p.ctx))
		if o, ok := within(p, "still waiting", next); ok && o.err == nil {
			p.violated("granted to a session that has expired")
		}
	}),
	versus("PEER-09", "waiting is not the session's", ourLock, func(s *zk.Session) get {
		return theirs(func(l *theirLock) { // the connection goes on where the lease has ended
			l.watch, _ = s.Member().NewSession(context.Background(), zk.SessionConfig{Timeout: 2 * time.Minute})
		})(s)
	}, func(p *play, lock locking) {
		p.has(lock(p.s[1]))
		next := p.queues(p.ctx, lock(p.s[0]))
		must(p.t, p.c.Expire(p.ctx, p.s[0]))
		within(p, "it waits for those before it", next)
	}),
	versus("PEER-10", "the clean-up's error is the error", ourLock, theirs(func(l *theirLock) {
		l.failed = func(ctx context.Context, path string, err error) (right, error) {
			return nil, l.s.Delete(context.WithoutCancel(ctx), path, zk.AnyVersion)
		}
	}), func(p *play, lock locking) {
		p.has(lock(p.s[1]))
		some, cancel := context.WithCancel(p.ctx)
		next := p.queues(some, lock(p.s[0]))
		cancel()
		if o, ok := within(p, "still waiting", next); ok && (o.v == nil) == (o.err == nil) {
			p.violated("%v and %v", o.v, o.err)
		}
	}),
	versus("PEER-11", "an unlock deletes a name", ourLock, theirs(func(l *theirLock) {
		l.join = func(ctx context.Context) (string, error) {
			for {
				_, err := l.s.Create(ctx, "/l/lock-0000000000", nil, zk.Ephemeral|zk.Parents)
				if !errors.Is(err, zk.ErrNodeExists) {
					return "/l/lock-0000000000", err
				}
				_, there, changed, err := l.s.ExistsW(ctx, "/l/lock-0000000000")
				if err != nil {
					return "", err
				}
				if there {
					<-changed
				}
			}
		}
	}), func(p *play, lock locking) {
		h := p.has(lock(p.s[0]))
		next := p.queues(p.ctx, lock(p.s[1]))
		p.silence()
		some, cancel := context.WithTimeout(p.ctx, 300*time.Millisecond)
		defer cancel()
		if err := h.Release(some); !errors.Is(err, context.DeadlineExceeded) {
			p.violated("error %v", err)
		}
		o, ok := within(p, "not granted", next)
		if !ok {
			return
		}
		late := does(func() (int, error) { return 0, h.Release(p.ctx) })
		p.heal()
		within(p, "no answer", late)
		must(p.t, p.c.Quiesce(p.ctx))
		if st, there, err := p.s[1].Exists(p.ctx, o.v.Path()); err != nil || !there || st.EphemeralOwner != p.s[1].ID() {
			p.violated("a late release has deleted the lock of another")
		}
	}),
	versus("PEER-12", "a release that fails is forgotten", ourLock, theirs(func(l *theirLock) {
		released := false
		l.release = func(ctx context.Context, path string) error {
			if released {
				return nil
			}
			released = true
			return l.s.Delete(ctx, path, zk.AnyVersion)
		}
	}), func(p *play, lock locking) {
		h := p.has(lock(p.s[0]))
		next := p.queues(p.ctx, lock(p.s[1]))
		gone, cancel := context.WithCancel(p.ctx)
		cancel()
		if h.Release(gone) == nil {
			p.violated("nothing was wrong")
		}
		if err := h.Release(p.ctx); err != nil {
			p.violated("%v", err)
		}
		within(p, "it is not released", next)
	}),
	versus("PEER-13", "a watch that a suspension ends is not set again", ourLock, theirs(deafLock), func(p *play, lock locking) {
		h := p.has(lock(p.s[1]))
		next := p.queues(p.ctx, lock(p.s[0]))
		p.suspend()
		p.recover()
		must(p.t, h.Release(p.ctx))
		within(p, "it hangs", next)
	}),
	versus("PEER-15", "every child is a contender", ourLock, theirs(func(*theirLock) {}), func(p *play, lock locking) {
		for _, name := range []string{"x", "_c_", "lock-", "lock-123456789"} {
			_, err := p.s[1].Create(p.ctx, "/l/"+name, nil, zk.Ephemeral|zk.Parents)
			must(p.t, err)
		}
		must(p.t, p.c.Quiesce(p.ctx))
		h, err := lock(p.s[0])(p.ctx)
		if err != nil {
			p.violated("%v", err)
			return
		}
		must(p.t, h.Release(p.ctx))
	}),
	versus("PEER-16", "numbers are of 32 bits", ourFirst, func(p *play, dir string) string {
		return slices.MinFunc(p.children(dir), func(a, b string) int {
			return int(seq32(a)) - int(seq32(b))
		})
	}, func(p *play, first func(p *play, dir string) string) {
		for _, n := range []string{"2147483647", "2147483648"} {
			_, err := p.s[0].Create(p.ctx, "/l/_c_"+someUUID+"-lock-"+n, nil, zk.Ephemeral|zk.Parents)
			must(p.t, err)
		}
		if name := first(p, "/l"); !strings.HasSuffix(name, "2147483647") {
			p.violated("the first one is %s", name)
		}
	}),
	versus("PEER-17", "a wait without a context", ourLock, func(s *zk.Session) get {
		lock := theirs(func(*theirLock) {})(s)
		return func(ctx context.Context) (right, error) { return lock(context.WithoutCancel(ctx)) }
	}, func(p *play, lock locking) {
		p.has(lock(p.s[1]))
		some, cancel := context.WithTimeout(p.ctx, time.Second)
		defer cancel()
		within(p, "it waits on", p.queues(some, lock(p.s[0])))
	}),
	versus("PEER-18", "callbacks run under the recipe's own lock", ourDo, func(p *play, fn func(ask func(context.Context) error) error) error {
		mine := make(chan struct{}, 1)
		under := func(ctx context.Context, fn func() error) error {
			select {
			case mine <- struct{}{}:
				defer func() { <-mine }()
				return fn()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return under(p.ctx, func() error {
			return fn(func(ctx context.Context) error { return under(ctx, func() error { return nil }) })
		})
	}, func(p *play, do doing) {
		err := do(p, func(ask func(context.Context) error) error {
			some, cancel := context.WithTimeout(p.ctx, time.Minute)
			defer cancel()
			return ask(some)
		})
		if err != nil {
			p.violated("a call from the callback: %v", err)
		}
	}),
	versus("PEER-19", "the later error is the error", ourDo, func(p *play, fn func(func(context.Context) error) error) error {
		h := p.has(theirs(func(*theirLock) {})(p.s[0]))
		err := fn(func(context.Context) error { return p.s[1].Delete(p.ctx, h.Path(), zk.AnyVersion) })
		if late := h.Release(p.ctx); late != nil {
			return late
		}
		return err
	}, func(p *play, do doing) {
		first := errors.New("first")
		err := do(p, func(func(context.Context) error) error {
			must(p.t, p.s[1].DeleteTree(p.ctx, "/l"))
			must(p.t, p.c.Quiesce(p.ctx))
			return first
		})
		if !errors.Is(err, first) {
			p.violated("the first error is hidden by %v", err)
		}
	}),
	versus("PEER-20", "the parent is there, then the child is created", ourLock, theirs(func(l *theirLock) {
		l.join = func(ctx context.Context) (string, error) {
			if _, there, err := l.s.Exists(ctx, l.dir); err != nil {
				return "", err
			} else if !there {
				if _, err := l.s.Create(ctx, l.dir, nil, zk.Container); err != nil {
					return "", err
				}
			}
			time.Sleep(3 * time.Second) // in which the empty directory is reaped
			z, err := l.s.Create(ctx, l.dir+"/lock-", nil, zk.Ephemeral|zk.Sequential)
			return z.Path, err
		}
	}), func(p *play, lock locking) {
		for range 3 {
			h, err := lock(p.s[0])(p.ctx)
			if err != nil {
				p.violated("%v", err)
				return
			}
			must(p.t, h.Release(p.ctx))
		}
	}),
	versus("PEER-21", "directories are persistent", ourLock, theirs(func(l *theirLock) {
		l.join = func(ctx context.Context) (string, error) {
			if _, err := l.s.Create(ctx, l.dir, nil, zk.Persistent); err != nil && !errors.Is(err, zk.ErrNodeExists) {
				return "", err
			}
			z, err := l.s.Create(ctx, l.dir+"/lock-", nil, zk.Ephemeral|zk.Sequential)
			return z.Path, err
		}
	}), func(p *play, lock locking) {
		must(p.t, p.has(lock(p.s[0])).Release(p.ctx))
		p.comes("an empty directory is left", func() bool { return len(below(p.t, p.ctx, p.c.Member(p.at[0]), "/")) == 0 })
	}),
	versus("PEER-22", "a right is lost with the leader", func(p *play) right { return p.has(ourLock(p.s[0])) }, func(p *play) right {
		h := p.has(theirs(func(*theirLock) {})(p.s[0])).(*theirRight)
		go func() {
			first := ""
			for r, err := range p.s[0].Member().Roles(p.ctx) {
				if first == "" {
					first = r.Leader
				}
				if err != nil || r.Leader != first {
					close(h.lost)
					return
				}
			}
		}()
		return h
	}, func(p *play, acquire func(p *play) right) {
		h := acquire(p)
		for range 3 {
			must(p.t, p.c.Member(leader(p.t, p.ctx, p.c)).TransferLeadership(p.ctx, ""))
			leader(p.t, p.ctx, p.c)
		}
		synctest.Wait()
		if !h.Valid() {
			p.violated("an election has taken a right away")
		}
	}),
	versus("PEER-24", "the first release releases", func(p *play) (outer, inner right) {
		h, err := recipes.NewLock(p.s[0], "/l").Acquire(p.ctx)
		must(p.t, err)
		return h, h.Retain()
	}, func(p *play) (outer, inner right) {
		h := p.has(theirs(func(*theirLock) {})(p.s[0]))
		return h, h // whoever has it has it again
	}, func(p *play, twice func(p *play) (outer, inner right)) {
		outer, inner := twice(p)
		must(p.t, inner.Release(p.ctx))
		if n := len(p.children("/l")); n != 1 || !outer.Valid() {
			p.violated("the inner release has given it back")
		}
	}),
	versus("PEER-27", "who waits asks again and again", ourLock, theirs(func(l *theirLock) {
		l.await = func(ctx context.Context, _ <-chan zk.Event) error {
			select {
			case <-time.After(10 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}), func(p *play, lock locking) {
		h := p.has(lock(p.s[1]))
		next := p.queues(p.ctx, lock(p.s[0]))
		before := p.c.Member(p.at[0]).Stats().Reads
		time.Sleep(time.Minute)
		if n := p.c.Member(p.at[0]).Stats().Reads - before; n > 10 {
			p.violated("%d reads in a minute of waiting", n)
		}
		must(p.t, h.Release(p.ctx))
		within(p, "not granted", next)
	}),
	versus("PEER-28", "a release looks for its znode in the list", ourLock, theirs(func(l *theirLock) {
		l.release = func(ctx context.Context, path string) error {
			list, _, err := l.watch.Children(ctx, l.dir)
			if err != nil && !errors.Is(err, zk.ErrNoNode) {
				list = nil
			}
			return l.s.Delete(ctx, l.dir+"/"+list[0], zk.AnyVersion)
		}
	}), func(p *play, lock locking) {
		h := p.has(lock(p.s[0]))
		must(p.t, p.c.Expire(p.ctx, p.s[0]))
		defer func() {
			if e := recover(); e != nil {
				p.violated("%v", e)
			}
		}()
		if err := h.Release(p.ctx); err != nil {
			p.violated("%v", err)
		}
	}),
}

var errWoken = errors.New("woken")

// deafLock waits for what it watches under the lease: a suspension ends that, and nothing else is watched.
func deafLock(l *theirLock) {
	l.await = func(ctx context.Context, changed <-chan zk.Event) error {
		lease := l.s.Context()
		select {
		case <-lease.Done():
			changed = nil
		case <-changed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

func ourFirst(p *play, dir string) string {
	list, err := recipes.NewLock(p.s[0], dir).Contenders(p.ctx)
	must(p.t, err)
	return list[0].Path
}

func seq32(name string) int32 {
	var n uint32
	fmt.Sscanf(name[len(name)-10:], "%d", &n)
	return int32(n)
}

type doing = func(p *play, fn func(ask func(context.Context) error) error) error

func ourDo(p *play, fn func(ask func(context.Context) error) error) error {
	l := recipes.NewLock(p.s[0], "/l")
	return l.Do(p.ctx, func(_ context.Context, h *recipes.Held) error {
		return fn(func(ctx context.Context) error {
			_, err := l.Contenders(ctx)
			return err
		})
	})
}
