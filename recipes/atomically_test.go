// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

func atomically(t *testing.T, ctx context.Context, s zk.SessionSource, fn func(tx *recipes.Tx) error) {
	t.Helper()
	must(t, recipes.Atomically(ctx, s, fn))
}

// A transaction sees the tree and its own writes; others see all of them at once, or none.
func TestAtomically(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		is := func(tx *recipes.Tx, path, want string) {
			t.Helper()
			data, st, err := tx.Get(path)
			if string(data) != want || st.DataLength != len(want) || err != nil {
				t.Errorf("%s is %q, %+v, %v", path, data, st, err)
			}
		}
		lists := func(tx *recipes.Tx, path string, want ...string) {
			t.Helper()
			names, err := tx.Children(path)
			if !slices.Equal(names, want) || err != nil {
				t.Errorf("%s has %q, %v", path, names, err)
			}
		}
		atomically(t, ctx, s, func(tx *recipes.Tx) error {
			_, _, err := tx.Get("/a")
			wants(t, err, zk.ErrNoNode)
			_, err = tx.Children("/a")
			wants(t, err, zk.ErrNoNode)
			wants(t, tx.Set("/a", nil), zk.ErrNoNode)
			wants(t, tx.Delete("/a"), zk.ErrNoNode)
			wants(t, tx.Create("/a/b", nil, zk.Persistent), zk.ErrNoNode)
			must(t, tx.Create("/a/b/c", []byte("1"), zk.Parents))
			wants(t, tx.Create("/a/b/c", nil, zk.Persistent), zk.ErrNodeExists)
			is(tx, "/a/b/c", "1")
			is(tx, "/a/b", "")
			lists(tx, "/a", "b")
			must(t, tx.Set("/a/b/c", []byte("two")))
			is(tx, "/a/b/c", "two")
			must(t, tx.Create("/a/b/d", nil, zk.Ephemeral))
			wants(t, tx.Create("/a/b/d/e", nil, zk.Persistent), zk.ErrNoChildrenForEphemerals)
			if _, st, _ := tx.Get("/a/b/d"); st.EphemeralOwner != s.ID() {
				t.Errorf("%+v", st)
			}
			lists(tx, "/a/b", "c", "d")
			wants(t, tx.Delete("/a/b"), zk.ErrNotEmpty)
			must(t, tx.Create("/a/n-", []byte("numbered"), zk.Sequential))
			lists(tx, "/a", "b") // the other has no name yet
			wants(t, tx.Create("/", nil, zk.Persistent), zk.ErrNodeExists)
			wants(t, tx.Create("a", nil, zk.Persistent), zk.ErrBadArguments)
			_, _, err = tx.Get("a")
			wants(t, err, zk.ErrBadArguments)
			wants(t, tx.Delete("/"), zk.ErrNotEmpty)
			return nil
		})
		if got := below(t, ctx, c.Member(0), "/"); !slices.Equal(got, []string{"/a", "/a/b", "/a/b/c", "/a/b/d", "/a/n-0000000001"}) {
			t.Errorf("%q", got)
		}
		old, _, _ := s.Exists(ctx, "/a/b/c")
		atomically(t, ctx, s, func(tx *recipes.Tx) error {
			is(tx, "/a/b/c", "two")
			lists(tx, "/a", "b", "n-0000000001")
			must(t, tx.Delete("/a/b/c"))
			_, _, err := tx.Get("/a/b/c")
			wants(t, err, zk.ErrNoNode)
			must(t, tx.Delete("/a/b/d"))
			must(t, tx.Create("/a/b/c", []byte("anew"), zk.Persistent))
			if _, st, _ := tx.Get("/a/b/c"); st.Czxid != 0 {
				t.Errorf("%+v", st)
			}
			lists(tx, "/a/b", "c")
			must(t, tx.Delete("/a/b/c"))
			must(t, tx.Delete("/a/b"))
			must(t, tx.Create("/a/b", nil, zk.Persistent))
			must(t, tx.Create("/a/b/n-", nil, zk.Sequential))
			wants(t, tx.Delete("/a/b"), zk.ErrNotEmpty)
			lists(tx, "/a/b")
			must(t, tx.Set("/a/n-0000000001", []byte("x")))
			return nil
		})
		if got := below(t, ctx, c.Member(0), "/"); !slices.Equal(got, []string{"/a", "/a/b", "/a/b/n-0000000000", "/a/n-0000000001"}) {
			t.Errorf("%q", got)
		}
		no, z := errors.New("no"), s.LastZxid()
		wants(t, recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
			must(t, tx.Delete("/a/n-0000000001"))
			return no
		}), no)
		var leaked *recipes.Tx
		atomically(t, ctx, s, func(tx *recipes.Tx) error { leaked = tx; return nil })
		if s.LastZxid() != z || old.Czxid == 0 {
			t.Error("something was written")
		}
		_, _, err := leaked.Get("/")
		wants(t, err, zk.ErrClosed)
		wants(t, leaked.Set("/", nil), zk.ErrClosed)
		wants(t, recipes.Atomically(ctx, s, nil), zk.ErrBadArguments)
		wants(t, recipes.Atomically(ctx, nil, func(*recipes.Tx) error { return nil }), zk.ErrBadArguments)
		wants(t, recipes.Atomically(nil, s, func(*recipes.Tx) error { return nil }), zk.ErrBadArguments)
	})
}

// What was read and has changed makes fn run again; nothing else does (STM-L1).
func TestAtomicallyConflicts(t *testing.T) {
	set := func(path string) func(s *zk.Session, ctx context.Context) error {
		return func(s *zk.Session, ctx context.Context) error {
			_, err := s.Set(ctx, path, []byte("other"), zk.AnyVersion)
			return err
		}
	}
	create := func(path string) func(s *zk.Session, ctx context.Context) error {
		return func(s *zk.Session, ctx context.Context) error {
			_, err := s.Create(ctx, path, nil, zk.Persistent)
			return err
		}
	}
	remove := func(path string) func(s *zk.Session, ctx context.Context) error {
		return func(s *zk.Session, ctx context.Context) error { return s.Delete(ctx, path, zk.AnyVersion) }
	}
	again := func(path string) func(s *zk.Session, ctx context.Context) error {
		return func(s *zk.Session, ctx context.Context) error {
			_, err := s.Txn(ctx, zk.OpDelete(path, zk.AnyVersion), zk.OpCreate(path, nil, zk.Persistent))
			return err
		}
	}
	get := func(path string) func(tx *recipes.Tx) { return func(tx *recipes.Tx) { tx.Get(path) } }
	list := func(path string) func(tx *recipes.Tx) { return func(tx *recipes.Tx) { tx.Children(path) } }
	for name, row := range map[string]struct {
		read     func(tx *recipes.Tx)
		disturb  func(s *zk.Session, ctx context.Context) error
		conflict bool
	}{
		"read and set":                     {get("/d/x"), set("/d/x"), true},
		"read and replaced":                {get("/d/x"), again("/d/x"), true},
		"read and deleted":                 {get("/d/x"), remove("/d/x"), true},
		"absent and created":               {get("/d/new"), create("/d/new"), true},
		"absent and another created":       {get("/d/new"), create("/d/other"), false},
		"read and a sibling set":           {get("/d/x"), set("/d/y"), false},
		"read and a child created":         {get("/d/x"), create("/d/x/child"), false},
		"listed and a child created":       {list("/d"), create("/d/new"), true},
		"listed and a child deleted":       {list("/d"), remove("/d/y"), true},
		"listed and a child replaced":      {list("/d"), again("/d/y"), true},
		"listed and a child set":           {list("/d"), set("/d/y"), false},
		"listed and itself set":            {list("/d"), set("/d"), false},
		"listed, nothing there, created":   {list("/d/x"), create("/d/x/first"), true},
		"written blindly and set":          {func(tx *recipes.Tx) { tx.Set("/d/x", nil) }, set("/d/x"), false},
		"written blindly and deleted":      {func(tx *recipes.Tx) { tx.Set("/d/x", nil) }, remove("/d/x"), true},
		"read after its own write and set": {func(tx *recipes.Tx) { tx.Set("/d/x", nil); tx.Get("/d/x") }, set("/d/x"), false},
		"deleted and a child created":      {func(tx *recipes.Tx) { tx.Delete("/d/x") }, create("/d/x/child"), true},
		"deleted and set":                  {func(tx *recipes.Tx) { tx.Delete("/d/x") }, set("/d/x"), false},
		"created and a sibling created":    {func(tx *recipes.Tx) { tx.Create("/d/new", nil, zk.Persistent) }, create("/d/other"), false},
		"created and created":              {func(tx *recipes.Tx) { tx.Create("/d/new", nil, zk.Persistent) }, create("/d/new"), true},
		"created and the parent gone":      {func(tx *recipes.Tx) { tx.Create("/d/x/new", nil, zk.Persistent) }, remove("/d/x"), true},
		"numbered and a sibling created":   {func(tx *recipes.Tx) { tx.Create("/d/n-", nil, zk.Sequential) }, create("/d/other"), false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				s := session(t, ctx, c.Member(0))
				_, err := s.Txn(ctx, zk.OpCreate("/d", nil, zk.Persistent), zk.OpCreate("/d/x", nil, zk.Persistent), zk.OpCreate("/d/y", nil, zk.Persistent), zk.OpCreate("/out", nil, zk.Persistent))
				must(t, err)
				runs := 0
				z := s.LastZxid()
				atomically(t, ctx, s, func(tx *recipes.Tx) error {
					row.read(tx)
					if runs++; runs == 1 {
						must(t, row.disturb(s, ctx))
					}
					return tx.Set("/out", []byte(strconv.Itoa(runs)))
				})
				want := 1
				if row.conflict {
					want = 2
				}
				if data, _, _ := s.Get(ctx, "/out"); runs != want || string(data) != strconv.Itoa(want) { // STM-L1
					t.Errorf("it ran %d times, want %d; %s was written", runs, want, data)
				}
				if n := int(s.LastZxid() - z); n != 1+want {
					t.Errorf("%d log entries", n)
				}
			})
		})
	}
}

// The picture is one moment's, however long fn looks at it (PEER-64).
func TestAtomicallyIsNotTorn(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(time.Millisecond, 2*time.Millisecond)
		s := session(t, ctx, c.Member(0))
		const n = 20
		ops := []zk.Op{zk.OpCreate("/s", nil, zk.Persistent)}
		for i := range n {
			ops = append(ops, zk.OpCreate(fmt.Sprint("/s/", i), []byte("0"), zk.Persistent))
		}
		_, err := s.Txn(ctx, ops...)
		must(t, err)
		must(t, c.Quiesce(ctx))
		some, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { // sets all of them to the same, again and again
			for x := 1; some.Err() == nil; x++ {
				var ops []zk.Op
				for i := range n {
					ops = append(ops, zk.OpSet(fmt.Sprint("/s/", i), []byte(strconv.Itoa(x)), zk.AnyVersion))
				}
				s.Txn(some, ops...)
			}
		})
		for m := range 3 {
			s := session(t, ctx, c.Member(m))
			all.Go(func() {
				for range 50 {
					err := recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
						first := ""
						for i := range n {
							data, _, err := tx.Get(fmt.Sprint("/s/", i))
							if err != nil {
								return err
							}
							if i == 0 {
								first = string(data)
							} else if string(data) != first { // STM-S1
								t.Errorf("%s beside %s", data, first)
							}
							if i == n/2 {
								time.Sleep(5 * time.Millisecond)
							}
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(time.Second)
		stop()
		all.Wait()
	})
}

// Transactions of all members at once keep what each of them keeps: no money is made, the directory of accounts agrees
// with the accounts (STM-S1).
func TestAtomicallyTransfers(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const accounts, deposit = 5, 100
		c.Network().Latency(0, 2*time.Millisecond)
		name := func(i int) string { return fmt.Sprint("/bank/", i) }
		s := session(t, ctx, c.Member(0))
		atomically(t, ctx, s, func(tx *recipes.Tx) error {
			for i := range accounts {
				if err := tx.Create(name(i), []byte(strconv.Itoa(deposit)), zk.Parents); err != nil {
					return err
				}
			}
			return nil
		})
		must(t, c.Quiesce(ctx))
		balance := func(tx *recipes.Tx, path string) (int, error) {
			data, _, err := tx.Get(path)
			if errors.Is(err, zk.ErrNoNode) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			return strconv.Atoi(string(data))
		}
		var all sync.WaitGroup
		runs, commits := 0, 0
		var mu sync.Mutex
		for g := range 6 {
			r := rand.New(rand.NewPCG(uint64(g), 9))
			s := session(t, ctx, c.Member(g%3))
			all.Go(func() {
				for range 20 {
					from, to, amount := r.IntN(accounts), r.IntN(accounts), r.IntN(deposit)
					err := recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
						mu.Lock()
						runs++
						mu.Unlock()
						names, err := tx.Children("/bank")
						if err != nil {
							return err
						}
						sum := 0
						for _, n := range names {
							b, err := balance(tx, "/bank/"+n)
							if err != nil || b == 0 { // an empty account is closed
								return fmt.Errorf("balance %d of %s, %w", b, n, err)
							}
							sum += b
						}
						if sum != accounts*deposit { // STM-S1
							t.Errorf("a picture with %d", sum)
						}
						a, err := balance(tx, name(from))
						if err != nil || a < amount || from == to || amount == 0 {
							return err
						}
						b, err := balance(tx, name(to))
						if err != nil {
							return err
						}
						if a == amount {
							err = tx.Delete(name(from))
						} else {
							err = tx.Set(name(from), []byte(strconv.Itoa(a-amount)))
						}
						if err != nil {
							return err
						}
						if b == 0 {
							return tx.Create(name(to), []byte(strconv.Itoa(amount)), zk.Persistent)
						}
						return tx.Set(name(to), []byte(strconv.Itoa(b+amount)))
					})
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					commits++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		must(t, s.Sync(ctx))
		sum := 0
		for z, err := range s.Walk(ctx, "/bank") {
			must(t, err)
			if z.Path != "/bank" {
				b, err := strconv.Atoi(z.Data)
				must(t, err)
				sum += b
			}
		}
		if sum != accounts*deposit {
			t.Errorf("%d in the end", sum)
		}
		t.Logf("%d transactions took %d runs", commits, runs)
	})
}

// A right that is lost keeps the transaction out.
func TestAtomicallyGuard(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		s := sc.s[0]
		write := func(h *recipes.Held, during func()) error {
			return recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
				tx.Guard(h)
				during()
				return tx.Create("/out", nil, zk.Ephemeral)
			})
		}
		h := acquire(t, ctx, sc.locks[0])
		must(t, write(h, func() {}))
		must(t, s.Delete(ctx, "/out", zk.AnyVersion))
		z := s.LastZxid()
		must(t, recipes.Atomically(ctx, s, func(tx *recipes.Tx) error { tx.Guard(h); return nil }))
		if s.LastZxid() != z+1 {
			t.Error("a guard alone is no write")
		}
		must(t, sc.c.Quiesce(ctx))
		runs := 0
		err := write(h, func() { // an operator takes it away
			runs++
			must(t, sc.s[1].Delete(ctx, h.Path(), zk.AnyVersion))
		})
		wants(t, err, recipes.ErrLost, zk.ErrNoNode)
		if runs != 1 {
			t.Errorf("it ran %d times", runs)
		}
		must(t, h.Release(ctx))
		h = acquire(t, ctx, sc.locks[0])
		wants(t, write(h, func() { must(t, h.Release(ctx)) }), recipes.ErrReleased)
		if _, ok, _ := s.Exists(ctx, "/out"); ok { // HELD-S3
			t.Error("it was written")
		}
	})
}

// The rows of the table of reactions.
func TestAtomicallyEvents(t *testing.T) {
	bump := func(tx *recipes.Tx) error {
		data, _, err := tx.Get("/n")
		if errors.Is(err, zk.ErrNoNode) {
			return tx.Create("/n", []byte("1"), zk.Persistent)
		}
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(data))
		if err != nil {
			return err
		}
		return tx.Set("/n", []byte(strconv.Itoa(n+1)))
	}
	value := func(t *testing.T, ctx context.Context, s *zk.Session) string {
		t.Helper()
		must(t, s.Sync(ctx))
		data, _, err := s.GetString(ctx, "/n")
		must(t, err)
		return data
	}
	t.Run("the session expires", func(t *testing.T) {
		bubble(t, 3, short, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			s := session(t, ctx, c.Member(follower(t, ctx, c)))
			err := recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
				must(t, c.Expire(ctx, s))
				return tx.Create("/n", nil, zk.Persistent)
			})
			wants(t, err, zk.ErrSessionExpired)
			if got := below(t, ctx, s.Member(), "/"); len(got) > 0 || zk.MaybeApplied(err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	})
	t.Run("an answer is lost, a leader dies", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			s, err := c.Member(at).NewSession(ctx, zk.SessionConfig{Timeout: time.Minute})
			must(t, err)
			for i := range 5 { // PEER-05
				c.DropForwards(at, i)
				atomically(t, ctx, s, bump)
				if got := value(t, ctx, s); got != strconv.Itoa(i+1) {
					t.Errorf("%s after %d", got, i+1)
				}
				c.DropForwards(at, 0)
			}
			l := leader(t, ctx, c)
			done := make(chan error, 1)
			must(t, c.Quiesce(ctx))
			c.DropForwards(at, 3)
			z := c.Member(3 - l - at).Applied()
			go func() { done <- recipes.Atomically(ctx, s, bump) }()
			eventually(t, "not committed", func() bool { return c.Member(3-l-at).Applied() > z })
			must(t, c.Crash(l))
			c.DropForwards(at, 0)
			must(t, soon(t, "no answer", done))
			if got := value(t, ctx, s); got != "6" {
				t.Errorf("%s after 6", got)
			}
		})
	})
	t.Run("ctx ends", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			s, err := c.Member(at).NewSession(ctx, zk.SessionConfig{Timeout: time.Minute})
			must(t, err)
			atomically(t, ctx, s, bump)
			c.Isolate(at)
			some, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			err = recipes.Atomically(some, s, bump)
			wants(t, err, context.DeadlineExceeded)
			if !zk.MaybeApplied(err) {
				t.Errorf("its outcome is unknown, but %v", err)
			}
			c.Heal()
			if got := value(t, ctx, s); got != "2" && got != "1" {
				t.Errorf("%s", got)
			}
			some, stop := context.WithCancel(ctx)
			runs := 0
			err = recipes.Atomically(some, s, func(tx *recipes.Tx) error { // somebody is always faster
				if runs++; runs == 5 {
					stop()
				}
				if err := bump(tx); err != nil {
					return err
				}
				_, err := s.Set(ctx, "/n", []byte("0"), zk.AnyVersion)
				return err
			})
			wants(t, err, context.Canceled)
			if zk.MaybeApplied(err) || runs != 5 {
				t.Errorf("%d runs, %v", runs, err)
			}
		})
	})
	t.Run("behind a partition", func(t *testing.T) {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			at := follower(t, ctx, c)
			s, err := c.Member(at).NewSession(ctx, zk.SessionConfig{Timeout: 2 * time.Minute})
			must(t, err)
			other := session(t, ctx, c.Member((at+1)%3))
			atomically(t, ctx, other, bump)
			must(t, c.Quiesce(ctx))
			c.Isolate(at)
			atomically(t, ctx, other, bump)
			read := func(opt ...zk.ReadOption) (got string, err error) {
				some, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				err = recipes.Atomically(some, s, func(tx *recipes.Tx) error {
					data, _, err := tx.Get("/n")
					got = string(data)
					return err
				}, opt...)
				return got, err
			}
			if got, err := read(); got != "1" || err != nil { // local, and old
				t.Errorf("%s, %v", got, err)
			}
			if _, err := read(zk.Linearizable); err == nil {
				t.Error("a current picture without the others")
			}
			done := make(chan error, 1)
			go func() { done <- recipes.Atomically(ctx, s, bump) }()
			time.Sleep(5 * time.Second)
			c.Heal()
			must(t, soon(t, "no answer", done))
			if got, err := read(zk.Linearizable); got != "3" || err != nil {
				t.Errorf("%s, %v", got, err)
			}
		})
	})
	t.Run("fn panics", func(t *testing.T) {
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			s := session(t, ctx, c.Member(0))
			func() {
				defer func() {
					if v := recover(); v != "fn" { // PEER-64
						t.Errorf("recovered %v", v)
					}
				}()
				recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
					must(t, tx.Create("/n", nil, zk.Persistent))
					panic("fn")
				})
			}()
			atomically(t, ctx, s, bump)
			if got := value(t, ctx, s); got != "1" || c.Member(0).Stats().KeptBytes != 0 {
				t.Errorf("%s, %d bytes kept", got, c.Member(0).Stats().KeptBytes)
			}
		})
	})
}

// A session with a prefix, and one that may not see everything.
func TestAtomicallySees(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		sub := s.Sub("/app")
		wants(t, recipes.Atomically(ctx, sub, func(tx *recipes.Tx) error { return tx.Create("/x", nil, zk.Persistent) }), zk.ErrNoNode)
		atomically(t, ctx, sub, func(tx *recipes.Tx) error { return tx.Create("/x", []byte("1"), zk.Parents) })
		if data, _, err := s.GetString(ctx, "/app/x"); data != "1" || err != nil {
			t.Errorf("%q, %v", data, err)
		}
		atomically(t, ctx, sub, func(tx *recipes.Tx) error {
			names, err := tx.Children("/")
			if !slices.Equal(names, []string{"x"}) || err != nil {
				t.Errorf("%q, %v", names, err)
			}
			return tx.Set("/x", []byte("2"))
		})
		own, err := c.Member(0).NewSession(ctx, zk.SessionConfig{Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("a:b")}}})
		must(t, err)
		_, err = own.Do(ctx, zk.OpCreate("/app/secret", nil, zk.Persistent).WithACL(zk.CreatorACL()...))
		must(t, err)
		wants(t, recipes.Atomically(ctx, s, func(tx *recipes.Tx) error { _, _, err := tx.Get("/app/secret"); return err }), zk.ErrNoAuth)
		wants(t, recipes.Atomically(ctx, s, func(tx *recipes.Tx) error { _, err := tx.Children("/app"); return err }), zk.ErrNoAuth)
		_, err = own.Do(ctx, zk.OpCreate("/app/closed", nil, zk.Persistent).WithACL(zk.ReadACL()...))
		must(t, err)
		z := s.LastZxid()
		wants(t, recipes.Atomically(ctx, s, func(tx *recipes.Tx) error { return tx.Set("/app/closed", nil) }), zk.ErrNoAuth)
		if s.LastZxid() > z+1 {
			t.Error("it was tried again")
		}
		many := strings.Repeat("x", 3)
		for i := range 1100 {
			_, err := s.Create(ctx, fmt.Sprint("/app/x/", many, i), nil, zk.Persistent)
			must(t, err)
		}
		wants(t, recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
			if _, err := tx.Children("/app/x"); err != nil {
				return err
			}
			return tx.Set("/app/x", nil)
		}), zk.ErrTooLarge)
	})
}

// Whatever transactions do, one at a time, the tree is what a plain map says.
func TestAtomicallyModel(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		model := map[string]string{}
		for seed := range uint64(200) {
			r := rand.New(rand.NewPCG(seed, 11))
			next := maps.Clone(model)
			fails := r.IntN(5) == 0
			abort := errors.New("abort")
			err := recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
				for range r.IntN(12) {
					path := "/" + string(rune('a'+r.IntN(3)))
					for range r.IntN(3) {
						path += "/" + string(rune('a'+r.IntN(3)))
					}
					data := strconv.Itoa(r.IntN(1000))
					dir := path[:strings.LastIndexByte(path, '/')]
					kids := func(of string) (names []string) {
						for p := range next {
							if p[:strings.LastIndexByte(p, '/')] == of {
								names = append(names, p[len(of)+1:])
							}
						}
						slices.Sort(names)
						return names
					}
					_, exists := next[path]
					_, parent := next[dir]
					parent = parent || dir == ""
					var err, want error
					switch r.IntN(5) {
					case 0:
						err = tx.Create(path, []byte(data), zk.Persistent)
						switch {
						case !parent:
							want = zk.ErrNoNode
						case exists:
							want = zk.ErrNodeExists
						default:
							next[path] = data
						}
					case 1:
						err = tx.Set(path, []byte(data))
						if want = zk.ErrNoNode; exists {
							want, next[path] = nil, data
						}
					case 2:
						err = tx.Delete(path)
						switch {
						case !exists:
							want = zk.ErrNoNode
						case len(kids(path)) > 0:
							want = zk.ErrNotEmpty
						default:
							delete(next, path)
						}
					case 3:
						var got []byte
						got, _, err = tx.Get(path)
						if want = zk.ErrNoNode; exists {
							want = nil
						}
						if string(got) != next[path] {
							t.Errorf("%s is %s, want %s", path, got, next[path])
						}
					case 4:
						var got []string
						got, err = tx.Children(path)
						if want = zk.ErrNoNode; exists {
							want = nil
							if !slices.Equal(got, kids(path)) {
								t.Errorf("%s has %q, want %q", path, got, kids(path))
							}
						}
					}
					if !errors.Is(err, want) || (err == nil) != (want == nil) {
						t.Fatalf("seed %d: %s: %v, want %v", seed, path, err, want)
					}
				}
				if fails {
					return abort
				}
				return nil
			})
			if fails {
				wants(t, err, abort)
			} else {
				must(t, err)
				model = next
			}
			if got := below(t, ctx, c.Member(0), "/"); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(maps.Keys(model))) {
				t.Fatalf("seed %d: %q, want %q", seed, got, slices.Sorted(maps.Keys(model)))
			}
		}
		synctest.Wait()
	})
}
