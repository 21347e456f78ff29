// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

type settings struct {
	Workers int      `json:"workers"`
	Hosts   []string `json:"hosts"`
}

// superstitious is a codec that refuses a number.
type superstitious struct{ recipes.JSON[int] }

func (c superstitious) Encode(v int) ([]byte, error) {
	if v == 13 {
		return nil, errors.New("not that")
	}
	return c.JSON.Encode(v)
}

// yielded is what an iterator has yielded once.
type yielded[T any] struct {
	v   T
	err error
}

// stream is what a watch of a value yields.
func stream[T any](ctx context.Context, v *recipes.Value[T]) (got <-chan yielded[T]) {
	ch := make(chan yielded[T], 1000)
	go func() {
		defer close(ch)
		for x, err := range v.Watch(ctx) {
			ch <- yielded[T]{x, err}
		}
	}()
	return ch
}

func TestValue(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		v := recipes.NewValue[settings](s, "/app/settings")
		v.Default = settings{Workers: 4}
		x, st, err := v.Get(ctx)
		if x.Workers != 4 || st != (zk.Stat{}) || err != nil {
			t.Errorf("%+v, %+v, %v", x, st, err)
		}
		must(t, v.SetIf(ctx, settings{Workers: 1}, st)) // there is none
		wants(t, v.SetIf(ctx, settings{Workers: 2}, st), zk.ErrBadVersion)
		if data, _, _ := s.Get(ctx, v.Path); string(data) != `{"workers":1,"hosts":null}` {
			t.Errorf("stored as %s", data)
		}
		x, st, err = v.Get(ctx)
		if x.Workers != 1 || st.Version != 0 || err != nil {
			t.Errorf("%+v, %+v, %v", x, st, err)
		}
		must(t, v.SetIf(ctx, settings{Workers: 2}, st))
		wants(t, v.SetIf(ctx, settings{Workers: 3}, st), zk.ErrBadVersion)
		must(t, s.Delete(ctx, v.Path, zk.AnyVersion))
		must(t, v.Set(ctx, settings{Workers: 5}))
		wants(t, v.SetIf(ctx, settings{Workers: 6}, st), zk.ErrBadVersion) // version 0 again, of another incarnation: CNT-S3
		must(t, v.Set(ctx, settings{Workers: 7}))
		x, err = v.Update(ctx, func(x settings) (settings, error) {
			x.Hosts = append(x.Hosts, "a")
			return x, nil
		})
		if x.Workers != 7 || len(x.Hosts) != 1 || err != nil {
			t.Errorf("%+v, %v", x, err)
		}
		no := errors.New("no")
		_, st, _ = v.Get(ctx)
		x, err = v.Update(ctx, func(settings) (settings, error) { return settings{Workers: 9}, no })
		if x.Workers != 0 || !errors.Is(err, no) {
			t.Errorf("%+v, %v", x, err)
		}
		if _, now, _ := v.Get(ctx); now != st {
			t.Error("a refused update has changed something")
		}
		for _, bad := range []*recipes.Value[settings]{{Path: "/v"}, {Session: s, Path: "v"}, {Session: s, Path: "/"}} {
			_, _, err := bad.Get(ctx)
			wants(t, err, zk.ErrBadArguments)
			wants(t, bad.Set(ctx, x), zk.ErrBadArguments)
			_, err = bad.Update(ctx, func(x settings) (settings, error) { return x, nil })
			wants(t, err, zk.ErrBadArguments)
		}
		_, err = v.Update(ctx, nil)
		wants(t, err, zk.ErrBadArguments)
		wants(t, v.Set(nil, x), zk.ErrBadArguments)
		for _, err := range v.Watch(nil) {
			wants(t, err, zk.ErrBadArguments)
		}
	})
}

// Bytes and strings are stored as they are.
func TestValuePlain(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		for _, data := range []string{"", "x", "\x00\xff", `"json"`, strings.Repeat("long", 1000)} {
			text, bytes := recipes.NewValue[string](s, "/text"), recipes.NewValue[[]byte](s, "/bytes")
			must(t, text.Set(ctx, data))
			must(t, bytes.Set(ctx, []byte(data)))
			a, _, err := text.Get(ctx)
			must(t, err)
			b, _, err := bytes.Get(ctx)
			must(t, err)
			stored, _, err := s.GetString(ctx, "/text")
			if a != data || string(b) != data || stored != data || err != nil {
				t.Errorf("%q: %q, %q, stored as %q", data, a, b, stored)
			}
		}
		number := recipes.NewValue[int](s, "/number")
		must(t, number.Set(ctx, 12))
		if stored, _, _ := s.GetString(ctx, "/number"); stored != "12" {
			t.Errorf("stored as %q", stored)
		}
	})
}

// Bytes that the codec refuses are an error that says where; watchers go on, Update refuses, SetIf repairs.
func TestValueBadBytes(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		v := recipes.NewValue[settings](s, "/v")
		some, stop := context.WithCancel(ctx)
		got := stream(some, v)
		soon(t, "nothing", got)
		for _, data := range []string{"", "x", "[1]", `{"workers":"many"}`, "\xff"} {
			must(t, v.Set(ctx, settings{Workers: 1}))
			if y := soon(t, "nothing", got); y.err != nil || y.v.Workers != 1 {
				t.Errorf("%+v", y)
			}
			st, err := s.Set(ctx, "/v", []byte(data), zk.AnyVersion)
			must(t, err)
			x, at, get := v.Get(ctx)
			_, update := v.Update(ctx, func(x settings) (settings, error) { t.Error("called"); return x, nil })
			watch := soon(t, "nothing", got)
			for _, err := range []error{get, update, watch.err} {
				decode, ok := errors.AsType[*recipes.DecodeError](err)
				if !ok || decode.Path != "/v" || decode.Zxid != st.Mzxid {
					t.Errorf("%q: %v", data, err)
				}
			}
			if x.Workers != 0 || watch.v.Workers != 0 {
				t.Errorf("a value of %q: %+v", data, x)
			}
			must(t, v.SetIf(ctx, settings{Workers: 2}, at))
			if y := soon(t, "nothing", got); y.err != nil || y.v.Workers != 2 {
				t.Errorf("%+v", y)
			}
		}
		odd := &recipes.Value[int]{Session: s, Path: "/odd", Codec: superstitious{}}
		if odd.Set(ctx, 13) == nil {
			t.Error("what cannot be encoded was set")
		}
		if _, err := odd.Update(ctx, func(int) (int, error) { return 13, nil }); err == nil {
			t.Error("what cannot be encoded was set")
		}
		if _, ok, _ := s.Exists(ctx, "/odd"); ok {
			t.Error("something was written")
		}
		stop()
		for range got {
		}
	})
}

// Updates by all members at once are each made of what the one before has left (VAL-S2).
func TestValueUpdate(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(0, 2*time.Millisecond)
		const each = 10
		var all sync.WaitGroup
		for i := range 9 {
			v := recipes.NewValue[[]int](c.Member(i%3), "/list")
			all.Go(func() {
				for n := range each {
					list, err := v.Update(ctx, func(list []int) ([]int, error) { return append(list, i*each+n), nil })
					if err != nil || list[len(list)-1] != i*each+n {
						t.Errorf("%v, %v", list, err)
					}
				}
			})
		}
		all.Wait()
		must(t, c.Quiesce(ctx))
		list, st, err := recipes.NewValue[[]int](c.Member(0), "/list").Get(ctx)
		must(t, err)
		last := map[int]int{}
		for _, x := range list {
			if n := x % each; n != last[x/each] {
				t.Errorf("%d out of order", x)
			}
			last[x/each]++
		}
		if len(list) != 9*each || st.Version != 9*each-1 {
			t.Errorf("%d of %d, version %d", len(list), 9*each, st.Version)
		}
	})
}

// A watch shows states in order, the last one always, and nothing twice; it leaves no watch behind (VAL-S1, VAL-L1).
func TestValueWatch(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		writer := recipes.NewValue[int](c.Member(leader(t, ctx, c)), "/v")
		writer.Default = -1
		some, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		for i := range 6 {
			v := recipes.NewValue[int](c.Member(at), "/v")
			v.Default = -1
			all.Go(func() {
				last := -2
				for x, err := range v.Watch(some) {
					if err != nil {
						break
					}
					if x <= last { // VAL-S1
						t.Errorf("%d after %d", x, last)
					}
					last = x
					if i > 2 {
						time.Sleep(time.Duration(i) * 10 * time.Millisecond)
					}
				}
				if last != 99 { // VAL-L1
					t.Errorf("the last is %d", last)
				}
			})
		}
		synctest.Wait()
		for i := range 100 {
			must(t, writer.Set(ctx, i))
			if i == 50 {
				crashed := crashLeader(t, ctx, c)
				must(t, c.Restart(ctx, crashed))
				writer.Session = c.Member(at)
			}
		}
		time.Sleep(time.Second)
		stop()
		all.Wait()
		synctest.Wait()
		for i := range 3 {
			if n := c.Member(i).Stats().Watches; n != 0 { // VAL-L2
				t.Errorf("%d watches on member %d", n, i)
			}
		}
	})
}

// The rows of the table of reactions.
func TestValueEvents(t *testing.T) {
	t.Run("the session expires", func(t *testing.T) {
		bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			shared, err := c.Member(at).Session(ctx)
			must(t, err)
			some, stop := context.WithCancel(ctx)
			bound, free := stream(some, recipes.NewValue[int](shared, "/v")), stream(some, recipes.NewValue[int](c.Member(at), "/v"))
			soon(t, "nothing", bound)
			soon(t, "nothing", free)
			other := recipes.NewValue[int](c.Member((at+1)%3), "/v")
			must(t, other.Set(ctx, 1))
			soon(t, "nothing", bound)
			soon(t, "nothing", free)
			must(t, c.Expire(ctx, shared))
			wants(t, soon(t, "it goes on", bound).err, zk.ErrSessionExpired)
			if _, ok := <-bound; ok {
				t.Error("it goes on")
			}
			must(t, other.Set(ctx, 2))
			if y := soon(t, "nothing", free); y.v != 2 || y.err != nil { // once: 1 was yielded before
				t.Errorf("%+v", y)
			}
			stop()
			wants(t, soon(t, "it goes on", free).err, context.Canceled)
		})
	})
	t.Run("an operator deletes the znode", func(t *testing.T) {
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			s := session(t, ctx, c.Member(0))
			v := recipes.NewValue[int](s, "/v")
			v.Default = 100
			some, stop := context.WithCancel(ctx)
			got := stream(some, v)
			for i := range 5 {
				if y := soon(t, "nothing", got); y.v != 100 || y.err != nil {
					t.Errorf("%+v", y)
				}
				must(t, v.Set(ctx, i)) // version 0 each time: PEER-55
				if y := soon(t, "nothing", got); y.v != i || y.err != nil {
					t.Errorf("%+v", y)
				}
				must(t, s.Delete(ctx, "/v", zk.AnyVersion))
			}
			soon(t, "nothing", got)
			stop()
			wants(t, soon(t, "it goes on", got).err, context.Canceled)
			synctest.Wait()
			if n := c.Member(0).Stats().Watches; n != 0 { // VAL-L2, PEER-59
				t.Errorf("%d watches", n)
			}
		})
	})
	t.Run("a partition, and a snapshot after it", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			s, err := c.Member(at).NewSession(ctx, zk.SessionConfig{Timeout: 2 * time.Minute})
			must(t, err)
			some, stop := context.WithCancel(ctx)
			got := stream(some, recipes.NewValue[int](s, "/v"))
			soon(t, "nothing", got)
			far := session(t, ctx, c.Member((at+1)%3))
			v := recipes.NewValue[int](far, "/v")
			leaveBehind(t, ctx, c, at, far, func() {
				for i := range 200 {
					must(t, v.Set(ctx, i))
				}
			})
			c.Heal()
			if y := soon(t, "nothing", got); y.v != 199 || y.err != nil { // VAL-L1, PEER-55
				t.Errorf("%+v", y)
			}
			stop()
			wants(t, soon(t, "it goes on", got).err, context.Canceled)
		})
	})
	t.Run("ctx ends in the middle of a write", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			s, err := c.Member(at).NewSession(ctx, zk.SessionConfig{Timeout: 2 * time.Minute})
			must(t, err)
			v := recipes.NewValue[string](s, "/v")
			must(t, v.Set(ctx, "old"))
			for name, write := range map[string]func(context.Context) error{
				"set": func(ctx context.Context) error { return v.Set(ctx, "new") },
				"update": func(ctx context.Context) error {
					_, err := v.Update(ctx, func(string) (string, error) { return "new", nil })
					return err
				},
			} {
				c.Isolate(at)
				some, cancel := context.WithTimeout(ctx, time.Second)
				err := write(some)
				cancel()
				wants(t, err, context.DeadlineExceeded)
				if !zk.MaybeApplied(err) {
					t.Errorf("%s: its outcome is unknown, but %v", name, err)
				}
				c.Heal()
				must(t, s.Sync(ctx))
				if x, _, err := v.Get(ctx); x != "new" && x != "old" || err != nil {
					t.Errorf("%q, %v", x, err)
				}
				must(t, v.Set(ctx, "old"))
			}
		})
	})
}

// What a value costs is what its comment says.
func TestValueCost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		s, m := session(t, ctx, c.Member(at)), c.Member(at)
		v := recipes.NewValue[int](s, "/v")
		costs := func(what string, entries, linear int64, fn func()) {
			t.Helper()
			synctest.Wait()
			z, before := m.Applied(), m.Stats()
			fn()
			synctest.Wait()
			if e, l := int64(m.Applied()-z), m.Stats().LinearReads-before.LinearReads; e != entries || l != linear {
				t.Errorf("%s: %d log entries, %d rounds; want %d, %d", what, e, l, entries, linear)
			}
		}
		one := func(x int) (int, error) { return x + 1, nil }
		costs("the first set", 1, 0, func() { must(t, v.Set(ctx, 1)) })
		costs("set", 1, 0, func() { must(t, v.Set(ctx, 2)) })
		costs("get", 0, 0, func() { v.Get(ctx) })
		costs("update", 1, 0, func() { v.Update(ctx, one) })
		_, st, _ := v.Get(ctx)
		costs("set if", 1, 0, func() { must(t, v.SetIf(ctx, 9, st)) })
		costs("a refused update", 0, 1, func() { v.Update(ctx, func(int) (int, error) { return 0, errors.New("no") }) })
		costs("an update that was behind", 3, 0, func() { // the other one, one that fails, one that does not
			interfere := true
			_, err := v.Update(ctx, func(x int) (int, error) {
				if interfere {
					interfere = false
					must(t, v.Set(ctx, 50))
					return x + 1, nil
				}
				return x + 1, nil
			})
			must(t, err)
		})
		if x, _, _ := v.Get(ctx); x != 51 {
			t.Errorf("%d", x)
		}
	})
}

func TestLatch(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const count, waiters = 30, 12
		done := started(waiters, func(i int) error { return recipes.NewLatch(c.Member(i%3), "/latch", count).Wait(ctx) })
		var mu sync.Mutex
		left := map[int]bool{}
		var counting sync.WaitGroup
		for i := range count {
			counting.Go(func() {
				n, err := recipes.NewLatch(c.Member(i%3), "/latch", count).CountDown(ctx)
				mu.Lock()
				defer mu.Unlock()
				if left[n] || err != nil { // LATCH-S1
					t.Errorf("%d twice, %v", n, err)
				}
				left[n] = true
				if n > 0 && len(done) > 0 {
					t.Errorf("open with %d left", n)
				}
			})
		}
		counting.Wait()
		for n := range count {
			if !left[n] {
				t.Errorf("never %d", n)
			}
		}
		all(t, "it is open", waiters, done)
		l := recipes.NewLatch(c.Member(0), "/latch", count)
		if n, err := l.CountDown(ctx); n != 0 || err != nil { // LATCH-S1
			t.Errorf("%d, %v", n, err)
		}
		must(t, l.Wait(ctx))
		wants(t, recipes.NewLatch(c.Member(0), "/latch", -1).Wait(ctx), zk.ErrBadArguments)
		wants(t, recipes.NewLatch(c.Member(0), "latch", 1).Wait(ctx), zk.ErrBadArguments)
		wants(t, l.Wait(nil), zk.ErrBadArguments)
		must(t, recipes.NewLatch(c.Member(0), "/zero", 0).Wait(ctx))
		if n, err := recipes.NewLatch(c.Member(0), "/one", 2).CountDown(ctx); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// What is stored and makes no sense is told, and left alone.
func TestLatchBadBytes(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		l := recipes.NewLatch(s, "/latch", 3)
		waits := started(1, func(int) error { return l.Wait(ctx) })
		still(t, "nobody has counted", waits)
		for _, data := range []string{"", "x", "-1", "1.0", "99999999999999999999"} {
			st, err := s.Set(ctx, "/latch", []byte(data), zk.AnyVersion)
			must(t, err)
			_, err = l.CountDown(ctx)
			for _, err := range []error{err, l.Wait(ctx)} {
				if decode, ok := errors.AsType[*recipes.DecodeError](err); !ok || decode.Path != "/latch" || decode.Zxid != st.Mzxid {
					t.Errorf("%q: %v", data, err)
				}
			}
			if now, _, _ := s.GetString(ctx, "/latch"); now != data {
				t.Errorf("%q was replaced by %q", data, now)
			}
		}
		if _, ok := errors.AsType[*recipes.DecodeError](soon(t, "it waits", waits)); !ok {
			t.Error("a waiter was not told")
		}
		_, err := s.Set(ctx, "/latch", []byte("4"), zk.AnyVersion)
		must(t, err)
		wants(t, l.Wait(ctx), recipes.ErrMismatch)
		_, err = l.CountDown(ctx)
		wants(t, err, recipes.ErrMismatch)
	})
}

// The rows of the table of reactions.
func TestLatchEvents(t *testing.T) {
	for name, row := range map[string]func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s *zk.Session, done <-chan error){
		"the waiter's session expires": func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s *zk.Session, done <-chan error) {
			must(t, c.Expire(ctx, s))
			wants(t, soon(t, "it waits", done), zk.ErrSessionExpired)
			if n, err := recipes.NewLatch(c.Member(at), "/latch", 3).CountDown(ctx); n != 1 || err != nil { // no znode goes with a session
				t.Errorf("%d, %v", n, err)
			}
		},
		"the ensemble's leader changes": func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s *zk.Session, done <-chan error) {
			crashLeader(t, ctx, c)
			still(t, "two are left", done)
			for range 2 {
				_, err := recipes.NewLatch(s, "/latch", 3).CountDown(ctx)
				must(t, err)
			}
			must(t, soon(t, "it is open", done))
		},
		"an operator deletes the znode": func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s *zk.Session, done <-chan error) {
			must(t, s.Delete(ctx, "/latch", zk.AnyVersion))
			wants(t, soon(t, "it waits", done), recipes.ErrBroken)
		},
		"an operator replaces the znode": func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s *zk.Session, done <-chan error) {
			_, err := s.Txn(ctx, zk.OpDelete("/latch", zk.AnyVersion), zk.OpCreate("/latch", []byte("2"), zk.Persistent))
			must(t, err)
			wants(t, soon(t, "it waits", done), recipes.ErrBroken)
		},
		"a partition": func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s *zk.Session, done <-chan error) {
			c.Isolate(at)
			other := recipes.NewLatch(c.Member((at+1)%3), "/latch", 3)
			for range 2 {
				_, err := other.CountDown(ctx)
				must(t, err)
			}
			still(t, "it is open, but not here", done)
			c.Heal()
			must(t, soon(t, "it is open", done))
		},
		"who counts dies": func(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, s *zk.Session, done <-chan error) {
			i := (at + 1) % 3
			_, err := recipes.NewLatch(c.Member(i), "/latch", 3).CountDown(ctx)
			must(t, err)
			must(t, c.Crash(i))
			time.Sleep(time.Minute)
			still(t, "one is left", done) // what was counted stays
			_, err = recipes.NewLatch(s, "/latch", 3).CountDown(ctx)
			must(t, err)
			must(t, soon(t, "it is open", done))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				at := follower(t, ctx, c)
				s := session(t, ctx, c.Member(at))
				if n, err := recipes.NewLatch(s, "/latch", 3).CountDown(ctx); n != 2 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
				done := started(1, func(int) error { return recipes.NewLatch(s, "/latch", 3).Wait(ctx) })
				still(t, "two are left", done)
				row(t, ctx, c, at, s, done)
				c.Heal()
			})
		})
	}
	t.Run("ctx ends", func(t *testing.T) {
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			why := errors.New("why")
			some, cancel := context.WithCancelCause(ctx)
			done := started(10, func(int) error { return recipes.NewLatch(c.Member(0), "/latch", 1).Wait(some) })
			still(t, "nobody has counted", done)
			began := time.Now()
			cancel(why)
			for range 10 {
				wants(t, soon(t, "it waits", done), context.Canceled, why)
			}
			synctest.Wait()
			if n := c.Member(0).Stats().Watches; n != 0 || time.Now() != began {
				t.Errorf("%d watches, %v later", n, time.Since(began))
			}
		})
	})
	t.Run("an answer is lost", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			l := recipes.NewLatch(session(t, ctx, c.Member(at)), "/latch", 10)
			for i := range 10 {
				c.DropForwards(at, i%4)
				if n, err := l.CountDown(ctx); n != 9-i || err != nil { // LATCH-S1, E1
					t.Errorf("%s: %v", fmt.Sprint(n, " left, not ", 9-i), err)
				}
			}
		})
	})
}

func TestLatchCost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		m := c.Member(at)
		l := recipes.NewLatch(session(t, ctx, m), "/latch", 3)
		z := m.Applied()
		for i := range 3 {
			_, err := l.CountDown(ctx)
			must(t, err)
			if n := int(m.Applied() - z); n != i+1 {
				t.Errorf("%d log entries for %d", n, i+1)
			}
		}
		before := m.Stats()
		must(t, l.Wait(ctx))
		if m.Applied()-z != 3 || m.Stats().LinearReads-before.LinearReads != 1 {
			t.Errorf("waiting took %d entries and %d rounds", m.Applied()-z-3, m.Stats().LinearReads-before.LinearReads)
		}
	})
}
