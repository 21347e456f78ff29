// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

func ids(list []recipes.Member) (all []string) {
	for _, m := range list {
		all = append(all, m.ID)
	}
	return all
}

func join(t *testing.T, ctx context.Context, g *recipes.Group, id, data string) *recipes.Presence {
	t.Helper()
	var payload []byte
	if data != "" {
		payload = []byte(data)
	}
	p, err := g.Join(ctx, id, payload)
	must(t, err)
	return p
}

// following reads an iterator on a goroutine, until ctx ends.
type following[T any] struct {
	t    *testing.T
	got  chan T
	errs chan error
}

func follow[T any](t *testing.T, seq iter.Seq2[T, error]) *following[T] {
	f := &following[T]{t, make(chan T, 100), make(chan error, 100)}
	go func() {
		defer close(f.got)
		for v, err := range seq {
			if err != nil {
				f.errs <- err
			} else {
				f.got <- v
			}
		}
	}()
	return f
}

func (f *following[T]) next() T {
	f.t.Helper()
	return soon(f.t, "nothing is yielded", f.got)
}

// quiet fails if anything was yielded.
func (f *following[T]) quiet() {
	f.t.Helper()
	synctest.Wait()
	select {
	case v, ok := <-f.got:
		if ok {
			f.t.Fatalf("yielded %v", v)
		}
	default:
	}
}

// end waits for the end of the iteration, and its last error.
func (f *following[T]) end(targets ...error) {
	f.t.Helper()
	for range f.got {
	}
	var last error
	for len(f.errs) > 0 {
		last = <-f.errs
	}
	wants(f.t, last, targets...)
}

// All three layouts are read by all, and each is written as its programs write it.
func TestGroup(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		group := func(layout recipes.Layout) *recipes.Group {
			return &recipes.Group{Session: m, Path: "/g", Layout: layout}
		}
		list, err := recipes.NewGroup(m, "/g").Members(ctx)
		if err != nil || len(list) != 0 {
			t.Fatalf("%+v, %v", list, err)
		}
		watching, stop := context.WithCancel(ctx)
		w := follow(t, group(recipes.Curator).Watch(watching))
		if list := w.next(); len(list) != 0 {
			t.Fatalf("%+v", list)
		}
		b := join(t, ctx, recipes.NewGroup(m, "/g"), "b", "data")
		if list := w.next(); len(list) != 1 || list[0].ID != "b" || string(list[0].Data) != "data" || list[0].Token == 0 { // GRP-S1
			t.Fatalf("%+v", list)
		}
		k := join(t, ctx, group(recipes.Kazoo), "k", "")
		a := join(t, ctx, group(recipes.Shallow), "a-1", "")
		hexed := func(p *recipes.Presence, rest string) {
			t.Helper()
			if name := strings.TrimPrefix(p.ActualPath(), "/g/"); len(name) != 32+len(rest) || name[32:] != rest {
				t.Errorf("the name is %q", name)
			}
		}
		hexed(k, "__party__")
		hexed(a, "-a-1")
		for _, p := range []*recipes.Presence{k, a} {
			if data, _, err := s.Get(ctx, p.ActualPath()); err != nil || string(data) != map[*recipes.Presence]string{k: "k", a: "a-1"}[p] { // kazoo's
				t.Errorf("%q, %v", data, err)
			}
		}
		_, err = s.Create(ctx, "/g/"+strings.Repeat("0", 32)+"__party__", nil, zk.Ephemeral) // kazoo's without an identifier
		must(t, err)
		_, err = s.Create(ctx, "/g/settings", []byte("x"), zk.Persistent) // a foreign one
		must(t, err)
		_, err = s.Create(ctx, "/g/settings/more", nil, zk.Persistent)
		must(t, err)
		want := []string{strings.Repeat("0", 32), "a-1", "b", "k"}
		for _, layout := range []recipes.Layout{recipes.Curator, recipes.Kazoo, recipes.Shallow} {
			list, err := group(layout).Members(ctx)
			must(t, err)
			now := want
			if layout != recipes.Curator {
				now = []string{want[0], "a-1", "k"}
			}
			if !slices.Equal(ids(list), now) {
				t.Errorf("%v: %q, want %q", layout, ids(list), now)
			}
		}
		synctest.Wait()
		for len(w.got) > 1 {
			<-w.got
		}
		if list := w.next(); !slices.Equal(ids(list), want) { // conflated
			t.Errorf("%q", ids(list))
		}
		must(t, b.Set(ctx, []byte("other")))
		if list := w.next(); string(list[2].Data) != "other" {
			t.Errorf("%+v", list)
		}
		_, err = s.Set(ctx, "/g", []byte("the directory's own"), zk.AnyVersion)
		must(t, err)
		_, err = s.Set(ctx, "/g/settings/more", nil, zk.AnyVersion)
		must(t, err)
		w.quiet()
		for _, p := range []*recipes.Presence{a, b, k} {
			must(t, p.Stop(ctx))
		}
		stop()
		w.end(context.Canceled)
		must(t, s.DeleteTree(ctx, "/g"))
		must(t, s.Close())
		residue(t, ctx, c, "/")
	})
}

// Members are those of one moment: of two that change places in one transaction there is always one (GRP-S1).
func TestGroupCut(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{})
	must(t, err)
	defer m.Close()
	s := session(t, ctx, m)
	g := recipes.NewGroup(s, "/g")
	_, err = s.Create(ctx, "/g/0", nil, zk.Ephemeral|zk.Parents)
	must(t, err)
	rounds := size(20000, 2000)
	done := make(chan error, 1)
	go func() {
		for i := range rounds {
			if _, err := s.Txn(ctx, zk.OpCreate(fmt.Sprint("/g/", (i+1)%2), nil, zk.Ephemeral), zk.OpDelete(fmt.Sprint("/g/", i%2), zk.AnyVersion)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		list, err := g.Members(ctx)
		must(t, err)
		if len(list) != 1 {
			t.Fatalf("members %+v", list)
		}
		select {
		case err := <-done:
			must(t, err)
			return
		default:
		}
	}
}

// Settled waits until nobody comes or goes; what the members say of themselves does not matter.
func TestGroupSettled(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		g := recipes.NewGroup(c.Member(0), "/g")
		_, err := c.Member(0).Session(ctx)
		must(t, err)
		type result struct {
			list []recipes.Member
			err  error
		}
		settled := make(chan result, 1)
		began := time.Now()
		go func() {
			list, err := g.Settled(ctx, 10*time.Second)
			settled <- result{list, err}
		}()
		var all []*recipes.Presence
		for i := range 5 {
			time.Sleep(9 * time.Second)
			all = append(all, join(t, ctx, g, fmt.Sprint(i), ""))
		}
		time.Sleep(9 * time.Second)
		must(t, all[0].Set(ctx, []byte("busy")))
		r := soon(t, "never settled", settled)
		must(t, r.err)
		if took := time.Since(began); len(r.list) != 5 || took < 55*time.Second || took > 56*time.Second {
			t.Errorf("%q after %v", ids(r.list), took)
		}
		some, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err = g.Settled(some, 10*time.Second)
		cancel()
		wants(t, err, context.DeadlineExceeded)
		for _, p := range all {
			must(t, p.Stop(ctx))
		}
		residue(t, ctx, c, "/")
	})
}

// A watch on a *zk.Member goes on after its session's expiry; one on a *zk.Session ends. A joiner that holds an id is waited
// for.
func TestGroupOverSessions(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		m := sc.c.Member(sc.at[0])
		own := session(t, ctx, m)
		other := recipes.NewGroup(sc.s[1], "/app/here")
		watching, stop := context.WithCancel(ctx)
		long, short := follow(t, recipes.NewGroup(m, "/app/here").Watch(watching)), follow(t, recipes.NewGroup(own, "/app/here").Watch(ctx))
		long.next()
		short.next()
		p := join(t, ctx, other, "p", "")
		if list := long.next(); len(list) != 1 {
			t.Errorf("%q", ids(list))
		}
		shared, err := m.Session(ctx)
		must(t, err)
		must(t, sc.c.Expire(ctx, own))
		short.end(zk.ErrSessionExpired)
		must(t, sc.c.Expire(ctx, shared))
		must(t, p.Stop(ctx))
		if list := long.next(); len(list) != 0 {
			t.Errorf("%q", ids(list))
		}
		stop()
		long.end(context.Canceled)

		p = join(t, ctx, other, "p", "theirs")
		must(t, sc.c.Quiesce(ctx))
		some, cancel := context.WithTimeout(ctx, time.Second)
		_, err = recipes.NewGroup(m, "/app/here").Join(some, "p", nil)
		cancel()
		wants(t, err, context.DeadlineExceeded)
		if list, err := other.Members(ctx); err != nil || len(list) != 1 || string(list[0].Data) != "theirs" { // not self before it is there
			t.Errorf("%+v, %v", list, err)
		}
		must(t, p.Stop(ctx))
		sc.nobody(t, ctx, "one who gave up")
		residue(t, ctx, sc.c, "/app")
	})
}

// A watcher is woken once for each change, however many there are; a thousand members cost it one watch.
func TestGroupCrowd(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		g := recipes.NewGroup(s, "/g")
		n := size(1000, 200)
		watching, stop := context.WithCancel(ctx)
		w := follow(t, g.Watch(watching))
		w.next()
		if watches := c.Member(0).Stats().Watches; watches != 1 {
			t.Errorf("%d watches", watches)
		}
		var ops []zk.Op
		ops = append(ops, zk.OpCreate("/g", nil, zk.Container))
		for i := range n {
			ops = append(ops, zk.OpCreate(fmt.Sprintf("/g/%04d", i), nil, zk.Ephemeral))
		}
		_, err := s.Txn(ctx, ops...)
		must(t, err)
		if list := w.next(); len(list) != n {
			t.Errorf("%d members", len(list))
		}
		w.quiet()
		stop()
		w.end(context.Canceled)
		must(t, s.Close())
		residue(t, ctx, c, "/")
	})
}
