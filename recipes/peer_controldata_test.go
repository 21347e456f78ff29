// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// leaver is a member of a double barrier, whoever's.
type leaver interface {
	Leave(ctx context.Context) error
}

type enter = func(ctx context.Context, s *zk.Session, size int) (leaver, error)

func ourEnter(ctx context.Context, s *zk.Session, size int) (leaver, error) {
	m, err := recipes.NewDoubleBarrier(s, "/db", size).Enter(ctx)
	if m == nil {
		return nil, err
	}
	return m, err
}

// theirMember is one of a double barrier as on ZooKeeper's recipes page. Each hook is a place where a library has gone wrong.
type theirMember struct {
	s       *zk.Session
	path    string
	counted func(name string) bool
	woken   bool // whoever is woken while it enters is in
	leave   func(ctx context.Context, m *theirMember) error
}

func theirEnter(set func(m *theirMember)) enter {
	return func(ctx context.Context, s *zk.Session, size int) (leaver, error) {
		m := &theirMember{s: s, path: fmt.Sprint("/db/client-", s.ID()), counted: func(name string) bool { return name != "ready" }}
		m.leave = func(ctx context.Context, m *theirMember) error {
			for {
				list, _, changed, err := s.ChildrenW(ctx, "/db")
				if err != nil || !slices.ContainsFunc(list, m.counted) {
					return err
				}
				<-changed
			}
		}
		set(m)
		if _, err := s.Create(ctx, m.path, nil, zk.Ephemeral|zk.Parents); err != nil {
			return nil, err
		}
		for {
			list, _, changed, err := s.ChildrenW(ctx, "/db")
			if err != nil {
				return nil, err
			}
			n := 0
			for _, name := range list {
				if m.counted(name) {
					n++
				}
			}
			if n >= size {
				if _, err := s.Create(ctx, "/db/ready", nil, zk.Persistent); err != nil && !errors.Is(err, zk.ErrNodeExists) {
					return nil, err
				}
				return m, nil
			}
			if <-changed; m.woken {
				return m, nil
			}
		}
	}
}

func (m *theirMember) Leave(ctx context.Context) error {
	if err := m.s.Delete(ctx, m.path, zk.AnyVersion); err != nil {
		return err
	}
	return m.leave(ctx, m)
}

// enters starts an Enter.
func (p *play) enters(ctx context.Context, fn enter, i, size int) <-chan outcome[leaver] {
	done := does(func() (leaver, error) { return fn(ctx, p.s[i], size) })
	time.Sleep(500 * time.Millisecond)
	return done
}

// waits notes what if something comes through ch.
func waits[T any](p *play, what string, ch <-chan T) bool {
	time.Sleep(time.Second)
	synctest.Wait()
	select {
	case <-ch:
		p.violated("%s", what)
		return false
	default:
		return true
	}
}

var barrierTrials = []trial{
	versus("PEER-42", "any write uses up the watch", func(ctx context.Context, s *zk.Session) error {
		return recipes.NewBarrier(s, "/b").Wait(ctx)
	}, func(ctx context.Context, s *zk.Session) error {
		_, _, changed, err := s.GetW(ctx, "/b")
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		if err != nil {
			return err
		}
		if ev := <-changed; ev.Type != zk.EventDeleted {
			<-ctx.Done()
		}
		return ctx.Err()
	}, func(p *play, wait func(ctx context.Context, s *zk.Session) error) {
		must(p.t, recipes.NewBarrier(p.s[1], "/b").Set(p.ctx))
		must(p.t, p.c.Quiesce(p.ctx))
		done := does(func() (int, error) { return 0, wait(p.ctx, p.s[0]) })
		_, err := p.s[1].Set(p.ctx, "/b", []byte("touched"), zk.AnyVersion)
		must(p.t, err)
		if !waits(p, "it is set", done) {
			return
		}
		must(p.t, recipes.NewBarrier(p.s[1], "/b").Lift(p.ctx))
		within(p, "it is lifted, and who waits is not told", done)
	}),
	versus("PEER-43", "whoever is woken is in", ourEnter, theirEnter(func(m *theirMember) { m.woken = true }), func(p *play, fn enter) {
		one := p.enters(p.ctx, fn, 0, 3)
		some, cancel := context.WithCancel(p.ctx)
		p.enters(some, ourEnter, 1, 3)
		cancel()
		waits(p, "it is in, alone", one)
	}),
	versus("PEER-44", "whoever gives up stays", ourEnter, theirEnter(func(*theirMember) {}), func(p *play, fn enter) {
		some, cancel := context.WithCancel(p.ctx)
		gone := p.enters(some, fn, 0, 2)
		cancel()
		within(p, "still waiting", gone)
		p.comes("a member is left", func() bool { return len(p.children("/db")) == 0 })
		again := p.enters(p.ctx, fn, 0, 2)
		p.enters(p.ctx, ourEnter, 1, 2)
		if o, ok := within(p, "it does not come in again", again); ok && o.err != nil {
			p.violated("%v", o.err)
		}
	}),
	versus("PEER-45", "who leaves asks again and again, for ever", ourEnter, theirEnter(func(m *theirMember) {
		m.leave = func(ctx context.Context, m *theirMember) error {
			for {
				list, _, err := m.s.Children(context.WithoutCancel(ctx), "/db")
				if err != nil || !slices.ContainsFunc(list, m.counted) {
					return err
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}), func(p *play, fn enter) {
		a, b := p.enters(p.ctx, fn, 0, 2), p.enters(p.ctx, fn, 1, 2)
		x, _ := within(p, "not in", a)
		y, _ := within(p, "not in", b)
		must(p.t, errors.Join(x.err, y.err))
		some, cancel := context.WithTimeout(p.ctx, 10*time.Second)
		defer cancel()
		before := p.c.Member(p.at[0]).Stats().Reads
		left := does(func() (int, error) { return 0, x.v.Leave(some) })
		time.Sleep(11 * time.Second)
		if len(left) == 0 {
			p.violated("its time is over, and it goes on")
		}
		if n := p.c.Member(p.at[0]).Stats().Reads - before; n > 20 {
			p.violated("%d reads", n)
		}
		must(p.t, y.v.Leave(p.ctx))
		within(p, "it has not left", left)
	}),
	versus("PEER-46", "ready is a child like others", ourEnter, theirEnter(func(m *theirMember) {
		m.counted = func(string) bool { return true }
	}), func(p *play, fn enter) {
		_, err := p.s[1].Create(p.ctx, "/db/ready", nil, zk.Parents) // of a round whose members have all died
		must(p.t, err)
		must(p.t, p.c.Quiesce(p.ctx))
		waits(p, "one and ready are not two", p.enters(p.ctx, fn, 0, 2))
	}),
	versus("PEER-47", "whoever is woken has left", ourEnter, theirEnter(func(m *theirMember) {
		m.leave = func(ctx context.Context, m *theirMember) error {
			_, _, changed, err := m.s.ChildrenW(ctx, "/db")
			if err == nil {
				<-changed
			}
			return err
		}
	}), func(p *play, fn enter) {
		a, b := p.enters(p.ctx, fn, 0, 2), p.enters(p.ctx, fn, 1, 2)
		x, _ := within(p, "not in", a)
		y, _ := within(p, "not in", b)
		must(p.t, errors.Join(x.err, y.err))
		left := does(func() (int, error) { return 0, x.v.Leave(p.ctx) })
		some, cancel := context.WithCancel(p.ctx)
		p.enters(some, ourEnter, 2, 2) // of the next round
		cancel()
		waits(p, "it has left while another is inside", left)
	}),
}

// consumer takes the next item of /q, a queue in kazoo's layout.
type consumer = func(ctx context.Context, s *zk.Session) (int, error)

func ourConsumer(ctx context.Context, s *zk.Session) (int, error) {
	m, err := newQueue(s).Receive(ctx)
	if err != nil {
		return 0, err
	}
	return m.Value, m.Ack(ctx)
}

// theirConsumer lists the entries and takes the first one, or waits.
func theirConsumer(wait func(ctx context.Context, s *zk.Session) (entry string, err error), take func(ctx context.Context, s *zk.Session, entry string) (int, error)) consumer {
	return func(ctx context.Context, s *zk.Session) (int, error) {
		for {
			list, _, err := s.Children(ctx, "/q/entries")
			if err != nil {
				return 0, err
			}
			if len(list) > 0 {
				return take(ctx, s, slices.Min(list))
			}
			entry, err := wait(ctx, s)
			if err != nil {
				return 0, err
			}
			if entry != "" {
				return take(ctx, s, entry)
			}
		}
	}
}

func waitForChildren(ctx context.Context, s *zk.Session) (string, error) {
	_, _, changed, err := s.ChildrenW(ctx, "/q/entries")
	if err == nil {
		<-changed
	}
	return "", err
}

func takeEntry(ctx context.Context, s *zk.Session, entry string) (int, error) {
	data, _, err := s.Get(ctx, "/q/entries/"+entry)
	if err != nil {
		return 0, err
	}
	if err := s.Delete(ctx, "/q/entries/"+entry, zk.AnyVersion); err != nil {
		return 0, err
	}
	return strconv.Atoi(string(data))
}

// opened makes the queue's directories.
func (p *play) opened() {
	for _, dir := range []string{"/q/entries", "/q/taken"} {
		_, err := p.s[1].Create(p.ctx, dir, nil, zk.Parents)
		must(p.t, err)
	}
	must(p.t, p.c.Quiesce(p.ctx))
}

// steps are what a queue's next item costs: names listed, or reads.
type steps = func(p *play) (take func(), cost func() int64)

var queueTrials = []trial{
	versus("PEER-05", "what was not answered is put again", func(ctx context.Context, s *zk.Session) error {
		return newQueue(s).Put(ctx, 1)
	}, func(ctx context.Context, s *zk.Session) error {
		for {
			some, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			_, err := s.Create(some, "/q/entries/entry-100-", []byte("1"), zk.Sequential)
			cancel()
			if err == nil || ctx.Err() != nil {
				return err
			}
		}
	}, func(p *play, put func(ctx context.Context, s *zk.Session) error) {
		p.opened()
		p.silence()
		l := leader(p.t, p.ctx, p.c)
		done := does(func() (int, error) { return 0, put(p.ctx, p.s[0]) })
		time.Sleep(500 * time.Millisecond)
		must(p.t, p.c.Crash(l)) // after it has committed, before the answer
		p.c.Heal()
		within(p, "no answer", done)
		if n := len(names(p.t, p.ctx, p.s[0], "/q/entries")); n != 1 {
			p.violated("one item was put, there are %d", n)
		}
	}),
	versus("PEER-48", "all entries are listed for each item", func(p *play) (take func(), cost func() int64) {
		q := newQueue(p.s[0])
		return func() {
			_, _, err := q.TryTake(p.ctx)
			must(p.t, err)
		}, func() int64 { return p.s[0].Member().Stats().Reads }
	}, func(p *play) (take func(), cost func() int64) {
		var listed int64
		return func() {
			list, _, err := p.s[0].Children(p.ctx, "/q/entries")
			must(p.t, err)
			listed += int64(len(list))
			must(p.t, p.s[0].Delete(p.ctx, "/q/entries/"+slices.Min(list), zk.AnyVersion))
		}, func() int64 { return listed }
	}, func(p *play, of steps) {
		take, cost := of(p)
		var costs [2]int64
		for i, n := range []int{10, 1000} {
			items := make([]int, n)
			must(p.t, newQueue(p.s[0]).PutAll(p.ctx, items...))
			before := cost()
			for range 5 {
				take()
			}
			costs[i] = cost() - before
		}
		if costs[1] > 2*costs[0] {
			p.violated("%d steps with few entries, %d with many", costs[0], costs[1])
		}
	}),
	versus("PEER-49", "a watch that a suspension ends is not set again", ourConsumer, theirConsumer(func(ctx context.Context, s *zk.Session) (string, error) {
		lease := s.Context()
		_, _, changed, err := s.ChildrenW(ctx, "/q/entries")
		if err != nil {
			return "", err
		}
		select {
		case <-lease.Done():
			<-ctx.Done()
			return "", ctx.Err()
		case <-changed:
			return "", nil
		}
	}, takeEntry), func(p *play, receive consumer) {
		p.opened()
		next := does(func() (int, error) { return receive(p.ctx, p.s[0]) })
		p.suspend()
		p.recover()
		must(p.t, newQueue(p.s[1]).Put(p.ctx, 1))
		within(p, "it is deaf", next)
	}),
	versus("PEER-50", "a claim is made of what may be gone", ourConsumer, theirConsumer(waitForChildren, func(ctx context.Context, s *zk.Session, entry string) (int, error) {
		if _, err := s.Create(ctx, "/q/taken/"+entry, nil, zk.Ephemeral); err != nil {
			return 0, err
		}
		v, err := takeEntry(ctx, s, entry)
		if err != nil {
			return 0, err
		}
		return v, s.Delete(ctx, "/q/taken/"+entry, zk.AnyVersion)
	}), func(p *play, receive consumer) {
		p.opened()
		must(p.t, newQueue(p.s[1]).PutAll(p.ctx, 1, 2))
		must(p.t, p.c.Quiesce(p.ctx))
		p.c.Isolate(p.at[0])
		next := does(func() (int, error) { return receive(p.ctx, p.s[0]) })
		same(p.t, "another is first", take(p.t, p.ctx, newQueue(p.s[1]), 1), 1)
		p.heal()
		if o, ok := within(p, "blocked", next); ok && (o.v != 2 || o.err != nil) {
			p.violated("received %d, %v", o.v, o.err)
		}
		p.comes("a claim is left", func() bool { return len(p.children("/q/taken")) == 0 })
	}),
	versus("PEER-51", "the first event is the next item", ourConsumer, theirConsumer(func(ctx context.Context, s *zk.Session) (string, error) {
		w, err := s.Watch(ctx, "/q/entries", zk.WatchSubtree)
		if err != nil {
			return "", err
		}
		defer w.Close()
		ev := <-w.Events()
		return strings.TrimPrefix(ev.Path, "/q/entries/"), w.Err()
	}, takeEntry), func(p *play, receive consumer) {
		p.opened()
		next := does(func() (int, error) { return receive(p.ctx, p.s[0]) })
		_, err := p.s[1].Txn(p.ctx, zk.OpCreate("/q/entries/entry-100-", []byte("2"), zk.Sequential), zk.OpCreate("/q/entries/entry-099-", []byte("1"), zk.Sequential))
		must(p.t, err)
		if o, ok := within(p, "nothing received", next); ok && (o.v != 1 || o.err != nil) {
			p.violated("the next one is 1, received %d, %v", o.v, o.err)
		}
	}),
	versus("PEER-52", "a watch stays when nobody waits any more", ourConsumer, theirConsumer(func(ctx context.Context, s *zk.Session) (string, error) {
		_, _, changed, err := s.ChildrenW(context.WithoutCancel(ctx), "/q/entries")
		if err != nil {
			return "", err
		}
		select {
		case <-changed:
			return "", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}, takeEntry), func(p *play, receive consumer) {
		p.opened()
		for range 50 {
			some, cancel := context.WithCancel(p.ctx)
			done := does(func() (int, error) { return receive(some, p.s[0]) })
			cancel()
			within(p, "it waits", done)
		}
		synctest.Wait()
		if n := p.c.Member(p.at[0]).Stats().Watches; n != 0 {
			p.violated("%d watches are left", n)
		}
	}),
}

func asciiCounter(s *zk.Session) *recipes.Counter {
	return &recipes.Counter{Session: s, Path: "/n", Encoding: recipes.ASCII}
}

// watching keeps what it was told last of /v.
type watching = func(p *play) (latest func() string)

func ourWatch(p *play) (latest func() string) {
	var last atomic.Value
	last.Store("")
	go func() {
		for v, err := range recipes.NewValue[string](p.s[0], "/v").Watch(p.ctx) {
			if err == nil {
				last.Store(v)
			}
		}
	}()
	return func() string { return last.Load().(string) }
}

func ourCache(p *play) (latest func() string) {
	k := recipes.NewCache(p.s[0], "/v")
	must(p.t, k.Start(p.ctx))
	p.t.Cleanup(k.Close)
	return func() string {
		z, _ := k.Get("/v")
		return z.Data
	}
}

// shows writes /v, and wants what was written last to be shown.
func (p *play) shows(latest func() string, writes ...func()) {
	time.Sleep(3 * time.Second)
	for _, write := range writes {
		write()
	}
	want := dataOf(p.t, p.ctx, p.c.Member(leader(p.t, p.ctx, p.c)), "/v").Data
	p.comes("it shows what was before", func() bool { return latest() == want })
}

func (p *play) sets(data string) func() {
	return func() {
		_, err := p.s[1].Set(p.ctx, "/v", []byte(data), zk.AnyVersion)
		must(p.t, err)
	}
}

func (p *play) recreates(data string) func() {
	return func() {
		_, err := p.s[1].Txn(p.ctx, zk.OpDelete("/v", zk.AnyVersion), zk.OpCreate("/v", []byte(data), zk.Persistent))
		must(p.t, err)
	}
}

var valueTrials = []trial{
	versus("PEER-54", "what was not answered is read and added again", func(ctx context.Context, s *zk.Session) error {
		_, _, err := asciiCounter(s).Add(ctx, 1)
		return err
	}, func(ctx context.Context, s *zk.Session) error {
		for {
			some, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			data, st, err := s.Get(some, "/n")
			if err == nil {
				n, _ := strconv.Atoi(string(data))
				_, err = s.Set(some, "/n", strconv.AppendInt(nil, int64(n+1), 10), st.Version)
			}
			cancel()
			if err == nil || ctx.Err() != nil {
				return err
			}
		}
	}, func(p *play, add func(ctx context.Context, s *zk.Session) error) {
		must(p.t, asciiCounter(p.s[1]).Set(p.ctx, 0))
		must(p.t, p.c.Quiesce(p.ctx))
		p.silence()
		done := does(func() (int, error) { return 0, add(p.ctx, p.s[0]) })
		time.Sleep(500 * time.Millisecond)
		p.heal()
		within(p, "no answer", done)
		must(p.t, p.c.Quiesce(p.ctx))
		if n := count(p.t, p.ctx, asciiCounter(p.s[1])); n != 1 {
			p.violated("one was added, there are %d", n)
		}
	}),
	versus("PEER-55", "a lower version is an older one", ourWatch, func(p *play) func() string {
		var last atomic.Value
		last.Store("")
		go func() {
			version := int32(-1)
			for z, err := range p.s[0].WatchValue(p.ctx, "/v") {
				if err == nil && z.Stat.Czxid != 0 && z.Stat.Version > version {
					version = z.Stat.Version
					last.Store(z.Data)
				}
			}
		}()
		return func() string { return last.Load().(string) }
	}, func(p *play, watch watching) {
		_, err := p.s[1].Create(p.ctx, "/v", []byte("1"), zk.Persistent)
		must(p.t, err)
		latest := watch(p)
		p.shows(latest, p.sets("2"))
		p.shows(latest, p.recreates("3"))
	}),
	versus("PEER-56", "the same version is the same znode", ourCache, func(p *play) func() string {
		var last atomic.Value
		last.Store("")
		go func() {
			version := int32(-1)
			for z, err := range p.s[0].WatchValue(p.ctx, "/v") {
				if err == nil && z.Stat.Czxid != 0 && z.Stat.Version != version {
					version = z.Stat.Version
					last.Store(z.Data)
				}
			}
		}()
		return func() string { return last.Load().(string) }
	}, func(p *play, watch watching) {
		_, err := p.s[1].Create(p.ctx, "/v", []byte("1"), zk.Persistent)
		must(p.t, err)
		must(p.t, p.c.Quiesce(p.ctx))
		latest := watch(p)
		p.comes("nothing is shown", func() bool { return latest() == "1" })
		p.c.Isolate(p.at[0])
		p.recreates("2")()
		p.heal()
		p.shows(latest)
	}),
	versus("PEER-56", "a watch is set after the read", ourCache, func(p *play) func() string {
		var last atomic.Value
		last.Store("")
		go func() {
			for {
				data, _, err := p.s[0].Get(p.ctx, "/v")
				if err != nil {
					return
				}
				last.Store(string(data))
				select {
				case <-time.After(time.Second): // until the answer is there, and the next call arrives
				case <-p.ctx.Done():
					return
				}
				_, _, changed, err := p.s[0].GetW(p.ctx, "/v")
				if err != nil {
					return
				}
				<-changed
			}
		}()
		return func() string { return last.Load().(string) }
	}, func(p *play, watch watching) {
		_, err := p.s[1].Create(p.ctx, "/v", []byte("1"), zk.Persistent)
		must(p.t, err)
		must(p.t, p.c.Quiesce(p.ctx))
		latest := watch(p)
		p.shows(latest, p.sets("2"), func() {
			eventually(p.t, "it does not hear of it", func() bool { return latest() == "2" })
		}, p.sets("3"))
	}),
	versus("PEER-58", "closing leaves the watch", func(p *play) {
		k := recipes.NewCache(p.s[0], "/absent")
		must(p.t, k.Start(p.ctx))
		k.Close()
	}, func(p *play) {
		w, err := p.s[0].Watch(context.WithoutCancel(p.ctx), "/absent", zk.WatchSubtree)
		must(p.t, err)
		synctest.Wait()
		w.Events()
	}, leavesNoWatch),
	versus("PEER-59", "a watch on what is absent stays", func(p *play) {
		for range recipes.NewValue[int](p.s[0], "/absent").Watch(p.ctx) {
			break
		}
	}, func(p *play) {
		_, _, _, err := p.s[0].ExistsW(context.WithoutCancel(p.ctx), "/absent")
		must(p.t, err)
	}, leavesNoWatch),
	versus("PEER-60", "two watches tell of one change", func(p *play, told func()) {
		k := recipes.NewCache(p.s[0], "/v")
		k.Depth = 2
		must(p.t, k.Start(p.ctx))
		p.t.Cleanup(k.Close)
		go func() {
			for change, err := range k.Changes(p.ctx) {
				if err == nil && change.Kind == recipes.Removed {
					told()
				}
			}
		}()
	}, func(p *play, told func()) {
		_, _, data, err := p.s[0].GetW(p.ctx, "/v")
		must(p.t, err)
		_, _, children, err := p.s[0].ChildrenW(p.ctx, "/v")
		must(p.t, err)
		for _, ch := range []<-chan zk.Event{data, children} {
			go func() {
				if ev := <-ch; ev.Type == zk.EventDeleted {
					told()
				}
			}()
		}
	}, func(p *play, watch func(p *play, told func())) {
		_, err := p.s[1].Create(p.ctx, "/v", nil, zk.Persistent)
		must(p.t, err)
		must(p.t, p.c.Quiesce(p.ctx))
		var n atomic.Int64
		watch(p, func() { n.Add(1) })
		must(p.t, p.s[1].Delete(p.ctx, "/v", zk.AnyVersion))
		time.Sleep(time.Second)
		if n := n.Load(); n != 1 {
			p.violated("told %d times of one deletion", n)
		}
	}),
	versus("PEER-61", "a stream ends without a word", func(p *play) told {
		return errorsOf(recipes.NewValue[int](p.s[0], "/v").Watch(p.ctx))
	}, func(p *play) told {
		w, err := p.s[0].Watch(p.ctx, "/v", zk.WatchNode)
		must(p.t, err)
		return func(yield func(error) bool) {
			for ev := range w.Events() {
				if ev.Type != zk.EventSession && !yield(nil) {
					return
				}
			}
		}
	}, func(p *play, stream func(p *play) told) {
		ended := ending(stream(p))
		must(p.t, p.c.Expire(p.ctx, p.s[0]))
		if list, ok := within(p, "it goes on", ended); ok && len(list) == 0 {
			p.violated("it ended, and nobody knows why")
		}
	}),
	versus("PEER-64", "each read is a read of its own", func(p *play, between func()) (sum int) {
		must(p.t, recipes.Atomically(p.ctx, p.s[0], func(tx *recipes.Tx) error {
			a, _, err := tx.Get("/a")
			if err != nil {
				return err
			}
			between()
			b, _, err := tx.Get("/b")
			sum = len(a) + len(b)
			return err
		}))
		return sum
	}, func(p *play, between func()) int {
		a, _, err := p.s[0].Get(p.ctx, "/a")
		must(p.t, err)
		between()
		b, _, err := p.s[0].Get(p.ctx, "/b")
		must(p.t, err)
		return len(a) + len(b)
	}, func(p *play, sum func(p *play, between func()) int) {
		_, err := p.s[1].Txn(p.ctx, zk.OpCreate("/a", []byte("x"), zk.Persistent), zk.OpCreate("/b", []byte("x"), zk.Persistent))
		must(p.t, err)
		must(p.t, p.c.Quiesce(p.ctx))
		n := sum(p, func() {
			_, err := p.s[1].Txn(p.ctx, zk.OpSet("/a", nil, zk.AnyVersion), zk.OpSet("/b", []byte("xx"), zk.AnyVersion))
			must(p.t, err)
			must(p.t, p.c.Quiesce(p.ctx))
		})
		if n != 2 {
			p.violated("there are always 2, it has read %d", n)
		}
	}),
	versus("PEER-64", "a panic is lost on another goroutine", func(p *play, fn func()) {
		recipes.Atomically(p.ctx, p.s[0], func(*recipes.Tx) error { fn(); return nil })
	}, func(p *play, fn func()) {
		done := make(chan any, 1)
		go func() {
			defer func() { done <- recover() }()
			fn()
		}()
		<-done
	}, func(p *play, call func(p *play, fn func())) {
		defer func() {
			if e := recover(); e != "why" {
				p.violated("the caller's panic is %v", e)
			}
		}()
		call(p, func() { panic("why") })
	}),
}

func leavesNoWatch(p *play, cycle func(p *play)) {
	for range 50 {
		cycle(p)
	}
	synctest.Wait()
	if n := p.c.Member(p.at[0]).Stats().Watches; n != 0 {
		p.violated("%d watches are left", n)
	}
}

// present keeps /app/p there, with what was set last.
type present interface {
	Set(ctx context.Context, data []byte) error
	Stop(ctx context.Context) error
}

func ourPresence(p *play) present {
	here := recipes.NewPresence(p.s[0], "/app/p", []byte("old"))
	must(p.t, here.Start(p.ctx))
	return here
}

// theirPresence creates its znode again when that is deleted. Each field is a place where a library has gone wrong.
type theirPresence struct {
	s       *zk.Session
	data    atomic.Value
	stopped atomic.Bool

	once, stale, phantom, tidy bool
}

func theirPresenceWith(set func(h *theirPresence)) func(p *play) present {
	return func(p *play) present {
		h := &theirPresence{s: p.s[0]}
		set(h)
		h.data.Store([]byte("old"))
		create := func() error {
			data := h.data.Load().([]byte)
			if h.stale {
				data = []byte("old")
			}
			_, err := h.s.Create(p.ctx, "/app/p", data, zk.Ephemeral)
			return err
		}
		must(p.t, create())
		go func() {
			for n := 0; n == 0 || !h.once; n++ {
				_, there, changed, err := h.s.ExistsW(p.ctx, "/app/p")
				if err != nil {
					return
				}
				if there {
					<-changed
					continue
				}
				if h.stopped.Load() && !h.phantom || create() != nil {
					return
				}
			}
		}()
		return h
	}
}

func (h *theirPresence) Set(ctx context.Context, data []byte) error {
	h.data.Store(data)
	_, err := h.s.Set(ctx, "/app/p", data, zk.AnyVersion)
	return err
}

func (h *theirPresence) Stop(ctx context.Context) error {
	h.stopped.Store(true)
	if err := h.s.Delete(ctx, "/app/p", zk.AnyVersion); err != nil || !h.tidy {
		return err
	}
	return h.s.Delete(ctx, "/app", zk.AnyVersion)
}

// publishes has something done to what is published, and wants it to be as it should be a while later.
func publishes(there bool, data string, do func(p *play, here present)) func(p *play, keep func(p *play) present) {
	return func(p *play, keep func(p *play) present) {
		_, err := p.s[1].Create(p.ctx, "/app", nil, zk.Persistent)
		must(p.t, err)
		must(p.t, p.c.Quiesce(p.ctx))
		do(p, keep(p))
		time.Sleep(time.Minute)
		must(p.t, p.c.Quiesce(p.ctx))
		z := dataOf(p.t, p.ctx, p.c.Member(p.at[1]), "/app/p")
		if z.Stat.Czxid != 0 != there || there && z.Data != data {
			p.violated("published: %v, %q", z.Stat.Czxid != 0, z.Data)
		}
		if dataOf(p.t, p.ctx, p.c.Member(p.at[1]), "/app").Stat.Czxid == 0 {
			p.violated("the parent is gone")
		}
	}
}

func (p *play) deletes(times int) {
	for range times {
		must(p.t, p.c.Quiesce(p.ctx))
		if err := p.s[1].Delete(p.ctx, "/app/p", zk.AnyVersion); err != nil && !errors.Is(err, zk.ErrNoNode) {
			p.t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
}

var presenceTrials = []trial{
	versus("PEER-62", "it is published again once", ourPresence, theirPresenceWith(func(h *theirPresence) { h.once = true }),
		publishes(true, "old", func(p *play, _ present) { p.deletes(3) })),
	versus("PEER-62", "what it began with is published again", ourPresence, theirPresenceWith(func(h *theirPresence) { h.stale = true }),
		publishes(true, "new", func(p *play, here present) {
			must(p.t, here.Set(p.ctx, []byte("new")))
			p.deletes(1)
		})),
	versus("PEER-62", "it comes back after its end", ourPresence, theirPresenceWith(func(h *theirPresence) { h.phantom = true }),
		publishes(false, "", func(p *play, here present) { must(p.t, here.Stop(p.ctx)) })),
	versus("PEER-62", "the parent is deleted as well", ourPresence, theirPresenceWith(func(h *theirPresence) { h.tidy = true }),
		publishes(false, "", func(p *play, here present) { must(p.t, here.Stop(p.ctx)) })),
	versus("PEER-63", "it goes once its first touch has gone", func(p *play) {
		here := recipes.NewTTLPresence(p.s[0], "/ttl", 9*time.Second)
		must(p.t, here.Start(p.ctx))
		must(p.t, here.Stop(p.ctx))
	}, func(p *play) {
		// /ttl/touch, with the time to live, would come after a third of it; it is stopped before.
		_, err := p.s[0].Create(p.ctx, "/ttl", nil, zk.Container)
		must(p.t, err)
	}, func(p *play, startAndStop func(p *play)) {
		startAndStop(p)
		must(p.t, p.c.Quiesce(p.ctx))
		p.comes("it never goes", func() bool { return dataOf(p.t, p.ctx, p.c.Member(p.at[1]), "/ttl").Stat.Czxid == 0 })
	}),
	versus("PEER-62", "one bad entry hides all", func(p *play) (n int, err error) {
		list, err := recipes.NewRegistry[int](p.s[0], "/r").Instances(p.ctx, "web")
		return len(list), err
	}, func(p *play) (n int, err error) {
		list, _, err := p.s[0].Children(p.ctx, "/r/web")
		for _, name := range list {
			data, _, err := p.s[0].Get(p.ctx, "/r/web/"+name)
			if err != nil {
				return 0, err
			}
			var in map[string]any
			if err := json.Unmarshal(data, &in); err != nil {
				return 0, err
			}
		}
		return len(list), err
	}, func(p *play, list func(p *play) (int, error)) {
		_, err := recipes.NewRegistry[int](p.s[0], "/r").Register(p.ctx, recipes.Instance[int]{Name: "web", ID: "good", Enabled: true})
		must(p.t, err)
		_, err = p.s[0].Create(p.ctx, "/r/web/bad", nil, zk.Ephemeral)
		must(p.t, err)
		if n, err := list(p); n != 1 || err != nil {
			p.violated("%d instances, %v", n, err)
		}
	}),
}

var agreementTrials = []trial{
	versus("PEER-68", "a migration goes on without its lock", func(p *play, s *zk.Session, step recipes.Step) {
		recipes.Migrate(p.ctx, s, "/mig", step)
	}, func(p *play, s *zk.Session, step recipes.Step) {
		recipes.NewLock(s, "/mig-lock").Do(p.ctx, func(context.Context, *recipes.Held) error {
			if _, done, err := s.Exists(p.ctx, "/mig/done"); done || err != nil {
				return err
			}
			ops, err := step.Ops(p.ctx, s)
			if err == nil {
				_, err = s.Txn(p.ctx, ops...)
			}
			if err == nil {
				_, err = s.Create(p.ctx, "/mig/done", nil, zk.Parents)
			}
			return err
		})
	}, func(p *play, migrate func(p *play, s *zk.Session, step recipes.Step)) {
		_, err := p.s[1].Create(p.ctx, "/made", nil, zk.Persistent)
		must(p.t, err)
		meanwhile := func() {}
		step := recipes.Step{Name: "make", Ops: func(context.Context, *zk.Session) ([]zk.Op, error) {
			meanwhile()
			return []zk.Op{zk.OpCreate("/made/x-", nil, zk.Sequential)}, nil
		}}
		meanwhile = func() { // the lock is taken away, and somebody else does it
			meanwhile = func() {}
			for _, name := range p.children("/mig-lock") {
				must(p.t, p.s[1].Delete(p.ctx, "/mig-lock/"+name, zk.AnyVersion))
			}
			migrate(p, p.s[1], step)
		}
		migrate(p, p.s[0], step)
		if n := len(p.children("/made")); n != 1 {
			p.violated("it was done %d times", n)
		}
	}),
	versus("PEER-69", "the coordinator alone decides", func(p *play, in *recipes.Proposal) error {
		_, err := in.Decision(p.ctx)
		return err
	}, func(p *play, _ *recipes.Proposal) error {
		for {
			data, _, changed, err := p.s[0].GetW(p.ctx, "/2pc/t/decision")
			if err != nil || string(data) == "commit" || string(data) == "abort" {
				return err
			}
			<-changed
		}
	}, func(p *play, decision func(p *play, in *recipes.Proposal) error) {
		coordinator := &recipes.TwoPhase{Session: p.s[1], Path: "/2pc", Timeout: 10 * time.Second}
		_, err := coordinator.Propose(p.ctx, "t", nil, "a", "b")
		must(p.t, err)
		must(p.t, p.c.Quiesce(p.ctx))
		a := asked(p.t, p.ctx, &recipes.TwoPhase{Session: p.c.Member(p.at[0]), Path: "/2pc", Timeout: coordinator.Timeout}, "a", 1)[0]
		must(p.t, a.Vote(p.ctx, true))
		must(p.t, p.c.Crash(p.at[1])) // the coordinator's
		within(p, "it is never decided", does(func() (int, error) { return 0, decision(p, a) }))
	}),
}
