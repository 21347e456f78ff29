// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// told is what a stream does but for what it yields: a nil for each value, then its error.
type told = iter.Seq[error]

func errorsOf[T any](seq iter.Seq2[T, error]) told {
	return func(yield func(error) bool) {
		for _, err := range seq {
			if !yield(err) {
				return
			}
		}
	}
}

// streams are all that yields until something ends it. Those that are made with a source have a next session where that is a member.
// own ends a stream by its own means, where there are any.
var streams = []struct {
	name   string
	source bool
	start  func(t *testing.T, ctx context.Context, src zk.SessionSource) (seq told, own func())
}{
	{"Value.Watch", true, func(_ *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(recipes.NewValue[int](src, "/v").Watch(ctx)), nil
	}},
	{"Counter.Watch", true, func(_ *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(recipes.NewCounter(src, "/n").Watch(ctx)), nil
	}},
	{"Cache.Changes", true, func(t *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		k := recipes.NewCache(src, "/")
		t.Cleanup(k.Close)
		return func(yield func(error) bool) {
			if err := k.Start(ctx); err != nil {
				yield(err)
				return
			}
			errorsOf(k.Changes(ctx))(yield)
		}, k.Close
	}},
	{"Group.Watch", true, func(_ *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(recipes.NewGroup(src, "/g").Watch(ctx)), nil
	}},
	{"Registry.Watch", true, func(_ *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(recipes.NewRegistry[int](src, "/r").Watch(ctx, "web")), nil
	}},
	{"Election.Observe", true, func(_ *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(recipes.NewElection(src, "/e").Observe(ctx)), nil
	}},
	{"TwoPhase.Proposals", true, func(_ *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(recipes.NewTwoPhase(src, "/2pc").Proposals(ctx, "a")), nil
	}},
	{"Queue.Messages", false, func(_ *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(recipes.NewQueue[int](src, "/q").Messages(ctx)), nil
	}},
	{"Session.WatchValue", false, func(t *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(sessionOf(t, src).WatchValue(ctx, "/v")), nil
	}},
	{"Session.WatchChildren", false, func(t *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(sessionOf(t, src).WatchChildren(ctx, "/")), nil
	}},
	{"SchemaSession.WatchValue", false, func(t *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		return errorsOf(schema().On(sessionOf(t, src)).WatchValue(ctx, "/anything")), nil
	}},
	{"Session.Watch", false, func(t *testing.T, ctx context.Context, src zk.SessionSource) (told, func()) {
		w, err := sessionOf(t, src).Watch(ctx, "/", zk.WatchSubtree)
		return func(yield func(error) bool) {
			if err != nil {
				yield(err)
				return
			}
			errorsOf(w.All())(yield)
			if _, open := <-w.Events(); open {
				yield(errors.New("the channel is open"))
			}
		}, func() { w.Close() }
	}},
}

func sessionOf(t *testing.T, src zk.SessionSource) *zk.Session {
	t.Helper()
	s, err := src.Session(t.Context())
	must(t, err)
	return s
}

// ending reads a stream to its end. The result has the errors in their order, what followed the last one if anything did.
func ending(seq told) <-chan []error {
	done := make(chan []error, 1)
	go func() {
		var list []error
		for err := range seq {
			if err != nil || len(list) > 0 {
				list = append(list, err)
			}
		}
		done <- list
	}()
	synctest.Wait()
	return done
}

// Each stream ends when what it rests on does, and says why in its one and last error: none is left open, and none ends in silence
// (PEER-61).
func TestPeer61EveryStreamEnds(t *testing.T) {
	why := errors.New("why")
	type life struct {
		c      *zktest.Cluster
		at     int
		s      *zk.Session // of the stream
		cancel context.CancelCauseFunc
	}
	for _, end := range []struct {
		name   string
		member bool // the source is the member
		own    bool
		do     func(t *testing.T, ctx context.Context, l life)
		want   []error
	}{
		{"ctx ends", false, false, func(_ *testing.T, _ context.Context, l life) { l.cancel(why) }, []error{context.Canceled, why}},
		{"ctx ends, of a member", true, false, func(_ *testing.T, _ context.Context, l life) { l.cancel(why) }, []error{context.Canceled, why}},
		{"ctx ends without a quorum", false, false, func(_ *testing.T, _ context.Context, l life) {
			l.c.Isolate(l.at)
			l.cancel(why)
		}, []error{context.Canceled, why}},
		{"session expires", false, false, func(t *testing.T, ctx context.Context, l life) { must(t, l.c.Expire(ctx, l.s)) }, []error{zk.ErrSessionExpired}},
		{"session closes", false, false, func(t *testing.T, _ context.Context, l life) { must(t, l.s.Close()) }, []error{zk.ErrClosed}},
		{"member closes", false, false, func(t *testing.T, _ context.Context, l life) { must(t, l.c.Member(l.at).Close()) }, []error{zk.ErrClosed}},
		{"member closes, of a member", true, false, func(t *testing.T, _ context.Context, l life) { must(t, l.c.Member(l.at).Close()) }, []error{zk.ErrClosed}},
		{"member is shut down, of a member", true, false, func(t *testing.T, ctx context.Context, l life) {
			must(t, l.c.Member(l.at).Shutdown(ctx))
		}, []error{zk.ErrClosed}},
		{"process dies", true, false, func(t *testing.T, _ context.Context, l life) { must(t, l.c.Crash(l.at)) }, []error{zk.ErrClosed}},
		{"its own end", false, true, nil, []error{zk.ErrClosed}},
	} {
		for _, stream := range streams {
			t.Run(end.name+"/"+stream.name, func(t *testing.T) {
				bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
					l := life{c: c, at: follower(t, ctx, c)}
					src := zk.SessionSource(c.Member(l.at))
					l.s = sessionOf(t, src)
					if !end.member {
						l.s = session(t, ctx, c.Member(l.at))
						src = l.s
					}
					some, cancel := context.WithCancelCause(ctx)
					defer cancel(nil)
					l.cancel = cancel
					seq, own := stream.start(t, some, src)
					if end.own && own == nil {
						return
					}
					ended := ending(seq)
					time.Sleep(time.Second)
					select {
					case list := <-ended:
						t.Fatalf("it ended by itself: %v", list)
					default:
					}
					if end.own {
						own()
					} else {
						end.do(t, ctx, l)
					}
					list := soon(t, "it goes on", ended)
					if len(list) != 1 || list[0] == nil { // PEER-61
						t.Fatalf("it ended with %v", list)
					}
					wants(t, list[0], end.want...)
				})
			})
		}
	}
	// With a member it goes on under the next session, and ends with ctx.
	for _, stream := range streams {
		t.Run("session expires, of a member/"+stream.name, func(t *testing.T) {
			bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				some, cancel := context.WithCancelCause(ctx)
				seq, _ := stream.start(t, some, c.Member(0))
				ended := ending(seq)
				must(t, c.Expire(ctx, sessionOf(t, c.Member(0))))
				if stream.source {
					still(t, "it has ended", ended)
					cancel(why)
				}
				list := soon(t, "it goes on", ended)
				cancel(why)
				if len(list) != 1 || list[0] == nil { // PEER-61
					t.Fatalf("it ended with %v", list)
				}
				if stream.source {
					wants(t, list[0], context.Canceled, why)
				} else {
					wants(t, list[0], zk.ErrSessionExpired)
				}
			})
		})
	}
}

// What ends without an error ends with a last value that says so, and one-shot watches and states are channels that are closed (PEER-61).
func TestPeer61LastValues(t *testing.T) {
	for _, how := range []string{"expires", "closes", "member closes"} {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			s := session(t, ctx, c.Member(at))
			_, err := s.Create(ctx, "/z", nil, zk.Persistent)
			must(t, err)
			states := make(chan zk.State, 100)
			go func() {
				defer close(states)
				for st, err := range s.States(ctx) {
					must(t, err)
					states <- st
				}
			}()
			_, _, get, err := s.GetW(ctx, "/z")
			must(t, err)
			_, _, exists, err := s.ExistsW(ctx, "/absent")
			must(t, err)
			_, _, children, err := s.ChildrenW(ctx, "/z")
			must(t, err)
			p := recipes.NewPresence(s, "/p", nil)
			must(t, p.Start(ctx))
			published := p.Published()
			synctest.Wait()
			switch how {
			case "expires":
				must(t, c.Expire(ctx, s))
			case "closes":
				must(t, s.Close())
			default:
				must(t, c.Member(at).Close())
			}
			var last zk.State
			for st := range states { // PEER-61: it ends
				last = st
			}
			if want := map[string]zk.State{"expires": zk.StateExpired, "closes": zk.StateClosed, "member closes": zk.StateClosed}[how]; last != want {
				t.Errorf("%s: the last state is %v", how, last)
			}
			for _, ch := range []<-chan zk.Event{get, exists, children} {
				if ev, ok := <-ch; !ok || ev.Type != zk.EventSession { // PEER-61
					t.Errorf("%s: %+v, %v", how, ev, ok)
				}
				if ev, ok := <-ch; ok {
					t.Errorf("%s: then %+v", how, ev)
				}
			}
			here := true
			for here = range published { // PEER-61: it is closed
			}
			if here {
				t.Errorf("%s: it ended as published", how)
			}
			p.Stop(ctx)
		})
	}
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		some, cancel := context.WithCancel(ctx)
		_, _, ch, err := s.GetW(some, "/")
		must(t, err)
		roles := make(chan zk.RoleInfo, 100)
		go func() {
			defer close(roles)
			for r, err := range c.Member(0).Roles(ctx) {
				must(t, err)
				roles <- r
			}
		}()
		p := recipes.NewPresence(s, "/p", nil)
		must(t, p.Start(ctx))
		published := p.Published()
		must(t, p.Stop(ctx))
		for range published { // PEER-61: it is closed
		}
		cancel()
		if ev, ok := <-ch; ok { // PEER-61: closed without an event
			t.Errorf("%+v", ev)
		}
		var failed error
		for _, err := range s.States(some) {
			failed = err
		}
		wants(t, failed, context.Canceled) // PEER-61
		must(t, c.Member(0).Close())
		var last zk.RoleInfo
		for r := range roles { // PEER-61: it ends
			last = r
		}
		if last.Role != zk.RoleStopped {
			t.Errorf("%+v", last)
		}
	})
}
