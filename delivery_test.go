// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Every way in which a session ends reaches every watch: what was delivered before, then EventSession with the final
// state, then the channel is closed. Nothing is left, and the handle stays dead (WT-2, WT-36, WT-40, SS-32, SS-35).
func TestWatchesEndWithSession(t *testing.T) {
	for _, tc := range []struct {
		name  string
		end   func(ctx context.Context, c *zktest.Cluster, s *zk.Session, host int) error
		state zk.State
		code  zk.Code
	}{
		{"closed", func(_ context.Context, _ *zktest.Cluster, s *zk.Session, _ int) error { return s.Close() }, zk.StateClosed, zk.ErrClosed},
		{"expired", func(ctx context.Context, c *zktest.Cluster, s *zk.Session, _ int) error { return c.Expire(ctx, s) }, zk.StateExpired, zk.ErrSessionExpired},
		{"attached elsewhere", func(ctx context.Context, c *zktest.Cluster, s *zk.Session, host int) error {
			_, err := c.Member((host+1)%3).Attach(ctx, s.ID(), s.Listener().Password(), zk.SessionConfig{})
			<-s.Done()
			return err
		}, zk.StateClosed, zk.ErrSessionMoved},
		{"detached", func(_ context.Context, _ *zktest.Cluster, s *zk.Session, _ int) error {
			s.Listener().Detach()
			return nil
		}, zk.StateClosed, zk.ErrClosed},
		{"member closed", func(_ context.Context, c *zktest.Cluster, _ *zk.Session, host int) error { return c.Crash(host) }, zk.StateClosed, zk.ErrClosed},
		{"member shut down", func(ctx context.Context, c *zktest.Cluster, s *zk.Session, _ int) error {
			return s.Member().Shutdown(ctx)
		}, zk.StateClosed, zk.ErrClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, 3, zktest.Config{Base: zk.Config{WatchBuffer: 2}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				host := (leader(t, ctx, c) + 1) % 3
				m := c.Member(host)
				s := session(t, ctx, m)
				create(t, ctx, s, "/x", zk.Persistent)
				var ears []<-chan zk.Event
				for _, path := range []string{"/x", "/missing"} {
					for _, k := range setters {
						if ch, err := k.set(ctx, s, path); path == "/x" || k.name != "D" && k.name != "C" {
							must(t, err)
							ears = append(ears, ch)
						} else {
							wants(t, err, zk.ErrNoNode)
						}
					}
				}
				full, err := s.Watch(ctx, "/full", zk.WatchSubtree)
				must(t, err)
				for _, path := range []string{"/full", "/full/1", "/full/2", "/full/3"} {
					create(t, ctx, s, path, zk.Persistent)
				}
				must(t, full.Err())
				must(t, tc.end(ctx, c, s, host))
				<-s.Done()
				for _, ch := range ears {
					if got, want := hears(ch), fmt.Sprintf("session:%v end", tc.state); got != want { // WT-40
						t.Errorf("heard %q, want %q", got, want)
					}
				}
				if got, want := hears(full.Events()), fmt.Sprintf("1:/full 1:/full/1 5:/full/2 session:%v end", tc.state); got != want {
					t.Errorf("heard %q, want %q", got, want)
				}
				wants(t, full.Err(), tc.code)
				if n := m.Stats().Watches; n != 0 { // WT-36
					t.Errorf("%d entries are left", n)
				}
				for st, err := range s.States(ctx) {
					if st != tc.state || err != nil {
						t.Errorf("state %v, %v", st, err)
					}
				}
				// SS-32, SS-35: the handle is dead and stays so.
				wants(t, s.Err(), tc.code)
				for _, k := range setters {
					_, err := k.set(ctx, s, "/x")
					wants(t, err, tc.code)
				}
				_, err = s.Create(ctx, "/late", nil, zk.Persistent)
				wants(t, err, tc.code)
				if s.Context().Err() == nil {
					t.Error("the lease goes on")
				}
			})
		})
	}
}

// Whoever is told of the session's end by a watch finds out why at once (WT-40).
func TestWatchErrAtEnd(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		var all sync.WaitGroup
		for i := range 20 {
			w, err := s.Watch(ctx, "/x", zk.WatchNode)
			must(t, err)
			all.Go(func() {
				if i%2 == 0 {
					for _, err = range w.All() {
					}
				} else {
					for range w.Events() {
					}
					err = w.Err()
				}
				if !errors.Is(err, zk.ErrSessionMoved) {
					t.Error(err)
				}
			})
		}
		_, err := c.Member(0).Attach(ctx, s.ID(), s.Listener().Password(), zk.SessionConfig{})
		must(t, err)
		all.Wait()
	})
}

// A watch that its caller ends says nothing and is gone at once, on znodes that exist and on those that do not; nothing is
// delivered afterwards (WT-40, WT-44).
func TestWatchesEndWithCaller(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		create(t, ctx, s, "/x", zk.Persistent)
		for _, path := range []string{"/x", "/missing"} {
			for _, k := range setters {
				watching, cancel := context.WithCancel(ctx)
				ch, err := k.set(watching, s, path)
				if err != nil {
					cancel()
					continue
				}
				cancel()
				synctest.Wait()
				if n := m.Stats().Watches; n != 0 { // WT-44
					t.Errorf("%s on %s: %d entries are left", k.name, path, n)
				}
				_, err = s.Txn(ctx, zk.OpSet("/x", nil, zk.AnyVersion), zk.OpCreate("/missing", nil, zk.Persistent), zk.OpDelete("/missing", zk.AnyVersion))
				must(t, err)
				if got := hears(ch); got != "end" {
					t.Errorf("%s on %s: %q", k.name, path, got)
				}
			}
		}
		// The error tells the caller's context from Close.
		watching, cancel := context.WithCancelCause(ctx)
		w, err := s.Watch(watching, "/x", zk.WatchNode)
		must(t, err)
		must(t, w.Err())
		enough := errors.New("enough")
		cancel(enough)
		synctest.Wait()
		if err := w.Err(); !errors.Is(err, context.Canceled) || !errors.Is(err, enough) {
			t.Errorf("after its context: %v", err)
		}
		w, err = s.Watch(ctx, "/x", zk.WatchNode)
		must(t, err)
		w.Close()
		w.Close()
		wants(t, w.Err(), zk.ErrClosed)
		// Leaving the loop is closing; what the context ended is the last thing the loop yields.
		watching, stop := context.WithCancel(ctx)
		defer stop()
		w, err = s.Watch(watching, "/x", zk.WatchNode)
		must(t, err)
		_, err = s.Set(ctx, "/x", nil, zk.AnyVersion)
		must(t, err)
		for ev, err := range w.All() {
			if err == nil && ev.Type == zk.EventChanged {
				stop()
				continue
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%+v, %v", ev, err)
			}
		}
		w, err = s.Watch(ctx, "/x", zk.WatchNode)
		must(t, err)
		_, err = s.Set(ctx, "/x", nil, zk.AnyVersion)
		must(t, err)
		for range w.All() {
			break
		}
		if n := m.Stats().Watches; n != 0 {
			t.Errorf("%d entries are left", n)
		}
		// WT-5: neither the znode nor a permission is needed, but a valid path and a known kind.
		for _, k := range setters {
			_, err := k.set(ctx, s, "/x/")
			wants(t, err, zk.ErrBadArguments)
		}
		_, err = s.Watch(ctx, "/x", zk.WatchChildSet+1)
		wants(t, err, zk.ErrBadArguments)
	})
}

// A consumer that does not keep up is told so by a marker and holds up nobody: what came before the marker is kept, what
// comes after it is dropped until the channel is empty, and then all goes on (WT-26, WT-38, WT-42).
func TestOverflow(t *testing.T) {
	var overflows []string
	base := zk.Config{WatchBuffer: 3}
	base.Hooks.WatchOverflow = func(path string, id zk.SessionID) { overflows = append(overflows, fmt.Sprintf("%s %v", path, id)) }
	bubble(t, 1, zktest.Config{Base: base}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		slow, err := s.Watch(ctx, "/", zk.WatchSubtree)
		must(t, err)
		quick, err := s.Watch(ctx, "/", zk.WatchSubtree)
		must(t, err)
		make := func(names ...string) {
			t.Helper()
			for _, n := range names {
				create(t, ctx, s, "/"+n, zk.Persistent)
				if got, want := hears(quick.Events()), "1:/"+n; got != want { // WT-38
					t.Errorf("the other watch heard %q, want %q", got, want)
				}
			}
		}
		heard := func(want string) {
			t.Helper()
			if got := hears(slow.Events()); got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		}
		make("a", "b", "c")
		heard("1:/a 1:/b 1:/c")
		make("d", "e", "f", "g", "h") // /g does not fit
		for range 3 {
			<-slow.Events()
		}
		make("i") // the marker is still there
		heard("5:/g")
		// Whoever reads again now has seen everything: nothing was dropped after the marker was taken.
		names, _, err := s.Children(ctx, "/")
		must(t, err)
		if len(names) != 10 {
			t.Errorf("children %v", names)
		}
		make("j")
		heard("1:/j")
		make("k", "l", "m", "n", "o")
		heard("1:/k 1:/l 1:/m 5:/n")
		if n := m.Stats().WatchOverflows; n != 2 {
			t.Errorf("%d overflows", n)
		}
		if want := fmt.Sprintf("/g %v /n %v", s.ID(), s.ID()); strings.Join(overflows, " ") != want {
			t.Errorf("the hook was told %q, want %q", overflows, want)
		}
		must(t, slow.Err())
	})
}

// An event that says what the one before it says, which nobody has received yet, is left out; others are not, and none
// is left out once that one was received (WT-42).
func TestEqualEvents(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		create(t, ctx, s, "/x", zk.Persistent)
		create(t, ctx, s, "/y", zk.Persistent)
		w, err := s.Watch(ctx, "/", zk.WatchSubtree)
		must(t, err)
		set := func(paths ...string) {
			t.Helper()
			for _, p := range paths {
				_, err := s.Set(ctx, p, nil, zk.AnyVersion)
				must(t, err)
			}
		}
		set("/x", "/x", "/x", "/y", "/x", "/x")
		must(t, s.Delete(ctx, "/x", zk.AnyVersion))
		if got := hears(w.Events()); got != "3:/x 3:/y 3:/x 2:/x" {
			t.Errorf("heard %q", got)
		}
		set("/y", "/y")
		<-w.Events()
		set("/y")
		if got := hears(w.Events()); got != "3:/y" {
			t.Errorf("heard %q", got)
		}
	})
}

// Watches outlive the silence of their member and the leader: suspension closes nothing and is told by States alone, a
// change of leader says nothing, and what was missed comes in order (WT-35, WT-37, WT-41, TR-21).
func TestWatchesSurvive(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := settled(t, ctx, c)
		f, other := (l+1)%3, (l+2)%3
		s, o := session(t, ctx, c.Member(f)), session(t, ctx, c.Member(other))
		create(t, ctx, o, "/x", zk.Persistent)
		must(t, s.Sync(ctx))
		var ears []<-chan zk.Event
		for _, k := range setters {
			ch, err := k.set(ctx, s, "/x")
			must(t, err)
			ears = append(ears, ch)
		}
		all := func() (got []string) {
			for _, ch := range ears {
				got = append(got, hears(ch))
			}
			return got
		}
		must(t, c.Crash(l))
		eventually(t, "no new leader", func() bool { return o.Sync(ctx) == nil && s.Sync(ctx) == nil })
		must(t, c.Restart(ctx, l))
		must(t, c.Member(l).Ready(ctx))
		if got := strings.Join(all(), ""); got != "" { // TR-21
			t.Errorf("a change of leader: heard %q", got)
		}
		c.Isolate(f)
		for st := range s.States(ctx) {
			if st == zk.StateSuspended {
				break
			}
		}
		if got := strings.Join(all(), ""); got != "" { // WT-37, WT-41
			t.Errorf("suspension: heard %q", got)
		}
		_, err := o.Set(ctx, "/x", nil, zk.AnyVersion)
		must(t, err)
		create(t, ctx, o, "/x/k", zk.Persistent)
		must(t, o.Delete(ctx, "/x/k", zk.AnyVersion))
		must(t, o.Delete(ctx, "/x", zk.AnyVersion))
		c.Heal()
		must(t, c.Member(f).WaitZxid(ctx, o.LastZxid()))
		got, want := strings.Join(all(), ", "), "3:/x end, 3:/x end, 4:/x end, 3:/x 4:/x 2:/x, 4:/x, 3:/x 1:/x/k 2:/x/k 2:/x"
		if got != want { // WT-35
			t.Errorf("\n got: %s\nwant: %s", got, want)
		}
	})
}

// Where an installed snapshot replaces the tree, the differences carry its zxid, and a read after one of them sees them
// all (WT-18, WT-34, WT-35).
func TestSnapshotEvents(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		s, o := session(t, ctx, c.Member(f)), session(t, ctx, c.Member(l))
		for _, p := range []string{"/a", "/a/again", "/a/gone", "/a/set", "/a/same"} {
			create(t, ctx, o, p, zk.Persistent)
		}
		must(t, s.Sync(ctx))
		tree, err := s.Watch(ctx, "/a", zk.WatchSubtree)
		must(t, err)
		_, _, once, err := s.GetW(ctx, "/a/set")
		must(t, err)
		c.Isolate(f)
		create(t, ctx, o, "/other", zk.Persistent) // is under way to it when the rest is written
		synctest.Wait()
		for _, op := range []zk.Op{
			zk.OpDelete("/a/again", zk.AnyVersion), zk.OpCreate("/a/again", nil, zk.Persistent), zk.OpDelete("/a/gone", zk.AnyVersion),
			zk.OpCreate("/a/new", nil, zk.Persistent), zk.OpCreate("/a/brief", nil, zk.Persistent), zk.OpDelete("/a/brief", zk.AnyVersion),
		} {
			_, err := o.Do(ctx, op)
			must(t, err)
		}
		for range 200 { // more than the log keeps
			_, err := o.Set(ctx, "/a/set", nil, zk.AnyVersion)
			must(t, err)
		}
		at := o.LastZxid()
		for _, i := range []int{l, (l + 2) % 3} {
			must(t, c.Member(i).WaitZxid(ctx, at))
			must(t, c.Member(i).Compact(ctx))
		}
		c.Heal()
		if ev := next(t, once); printed(ev) != "3:/a/set" || ev.Zxid != at { // WT-18
			t.Errorf("event %+v, the snapshot is of %v", ev, at)
		}
		if names, _, _ := s.Children(ctx, "/a"); fmt.Sprint(names) != "[again new same set]" {
			t.Errorf("children after the first event: %v", names)
		}
		heard := map[string]bool{}
		for len(tree.Events()) > 0 {
			ev := <-tree.Events()
			heard[printed(ev)] = true
			if ev.Zxid != at {
				t.Errorf("event %+v, the snapshot is of %v", ev, at)
			}
		}
		for _, want := range []string{"2:/a/again", "1:/a/again", "2:/a/gone", "1:/a/new", "3:/a/set"} { // WT-34
			if !heard[want] {
				t.Errorf("%s was not heard", want)
			}
			delete(heard, want)
		}
		if len(heard) > 0 {
			t.Errorf("heard too much: %v", heard)
		}
	})
}
