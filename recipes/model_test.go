// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

func TestModel(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		m := recipes.NewModel[settings](s, "/app/{tenant}/conf/{part}")
		path, err := m.Path("acme", "web")
		if path != "/app/acme/conf/web" || err != nil {
			t.Fatal(path, err)
		}
		_, _, err = m.Get(ctx, path)
		wants(t, err, zk.ErrNoNode)
		must(t, m.Put(ctx, path, settings{Workers: 1}))
		must(t, m.Put(ctx, path, settings{Workers: 2, Hosts: []string{"a"}}))
		if data, _, err := s.GetString(ctx, path); data != `{"workers":2,"hosts":["a"]}` || err != nil { // as Jackson writes it
			t.Errorf("%s, %v", data, err)
		}
		x, st, err := m.Get(ctx, path)
		if x.Workers != 2 || len(x.Hosts) != 1 || st.Version != 1 || err != nil {
			t.Errorf("%+v, %+v, %v", x, st, err)
		}
		v, err := m.Value(path)
		must(t, err)
		x, err = v.Update(ctx, func(x settings) (settings, error) { x.Workers++; return x, nil })
		if x.Workers != 3 || err != nil {
			t.Errorf("%+v, %v", x, err)
		}
		if e, ok := m.Check(path, []byte("x")), m.Check(path, []byte("{}")); e == nil || ok != nil {
			t.Error(e, ok)
		}
		rules := &recipes.Schema{Rules: []recipes.Rule{{Pattern: m.Template, Check: m.Check}}}
		violated(t, "model", rules.Validate(zk.OpSet(path, []byte("[]"), -1)), m.Template)
		must(t, rules.Validate(zk.OpSet(path, []byte("{}"), -1)))

		for _, bad := range []string{"", "app", "/", "/app/acme/conf", "/app/acme/conf/a/b", "/app//conf/a", "/other/acme/conf/a", "/app/acme/conf/.."} {
			_, _, err := m.Get(ctx, bad)
			wants(t, err, zk.ErrBadArguments)
			wants(t, m.Put(ctx, bad, x), zk.ErrBadArguments)
			wants(t, m.Check(bad, []byte("{}")), zk.ErrBadArguments)
		}
		for _, bad := range [][]string{nil, {"a"}, {"a", "b", "c"}, {"a", ""}, {"a", "b/c"}, {"..", "a"}} {
			_, err := m.Path(bad...)
			wants(t, err, zk.ErrBadArguments)
		}
		for _, bad := range []string{"", "app", "/a{x}", "/{", "/a*", "/**"} {
			m := recipes.NewModel[int](s, bad)
			_, err := m.Path("x")
			wants(t, err, zk.ErrBadArguments)
			for _, err := range m.All(ctx) {
				wants(t, err, zk.ErrBadArguments)
			}
		}
		for _, err := range m.All(nil) {
			wants(t, err, zk.ErrBadArguments)
		}
		_, _, err = m.Get(nil, path)
		wants(t, err, zk.ErrBadArguments)
		wants(t, m.Put(nil, path, x), zk.ErrBadArguments)
		must(t, s.DeleteTree(ctx, "/app"))
		anywhere := recipes.Model[string]{Session: c.Member(1)}
		must(t, anywhere.Put(ctx, "/a/b/c", "plain"))
		if x, _, err := anywhere.Get(ctx, "/a/b/c"); x != "plain" || err != nil {
			t.Error(x, err)
		}
		must(t, s.DeleteTree(ctx, "/a"))
		residue(t, ctx, c, "/")
	})
}

// All has everything that fits, in order, as of one moment; what cannot be decoded is told by its path and zxid, and keeps nothing
// else back (MODEL-S1, MODEL-S2).
func TestModelAll(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		m := recipes.NewModel[int](s, "/app/{a}/n/{b}")
		for range m.All(ctx) {
			t.Error("there is nothing")
		}
		var bad zk.Zxid
		for i, path := range []string{"/app/x/n/2", "/app/x/n/1", "/app/y/n/1", "/app/x/m/1", "/app/x/n/1/deeper", "/app/z/n", "/app/y/n/2", "/apq/x/n/1"} {
			must(t, recipes.Model[int]{Session: s}.Put(ctx, path, i))
		}
		for _, data := range []string{"", "x", `"1"`, "\xff"} {
			st, err := s.Set(ctx, "/app/y/n/1", []byte(data), -1)
			must(t, err)
			bad = st.Mzxid
			got, fails := "", 0
			var seen zk.Zxid
			for it, err := range m.All(ctx) {
				if err != nil {
					fails++
					e, ok := errors.AsType[*recipes.DecodeError](err)
					if !ok || e.Path != "/app/y/n/1" || e.Zxid != bad || it.Path != e.Path || it.Stat != st || it.Value != 0 {
						t.Errorf("%+v, %v", it, err)
					}
					continue
				}
				must(t, m.Put(ctx, "/app/x/n/3", 100)) // it is not of this picture, or has its old value
				got += fmt.Sprintf("%s=%d;", it.Path, it.Value)
				seen = max(seen, it.Stat.Mzxid)
			}
			if got != "/app/x/n/1=1;/app/x/n/2=0;/app/y/n/2=6;" || fails != 1 {
				t.Errorf("%s, %d failures", got, fails)
			}
			_, st2, err := m.Get(ctx, "/app/y/n/1")
			if e, ok := errors.AsType[*recipes.DecodeError](err); !ok || e.Zxid != bad || st2 != st {
				t.Errorf("%v", err)
			}
			must(t, s.Delete(ctx, "/app/x/n/3", -1))
		}
		for it, err := range recipes.NewModel[int](s.Sub("/app"), "/{a}/n/{b}").All(ctx, zk.Linearizable) {
			if err != nil || it.Path != "/x/n/1" {
				t.Error(it, err)
			}
			break
		}
		must(t, s.DeleteTree(ctx, "/app"))
		must(t, s.DeleteTree(ctx, "/apq"))
		residue(t, ctx, c, "/")
	})
}

// What a model costs is what its comment says.
func TestModelCost(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		member := c.Member(0)
		m := recipes.NewModel[int](session(t, ctx, member), "/app/{a}")
		for _, w := range []struct {
			what    string
			entries int64
			fn      func()
		}{
			{"the first put", 1, func() { must(t, m.Put(ctx, "/app/a", 1)) }},
			{"put", 1, func() { must(t, m.Put(ctx, "/app/a", 1)) }},
			{"get", 0, func() { m.Get(ctx, "/app/a") }},
			{"all", 0, func() {
				for _, err := range m.All(ctx) {
					must(t, err)
				}
			}},
		} {
			before, z := member.Stats(), member.Applied()
			w.fn()
			synctest.Wait()
			after := member.Stats()
			if n := int64(member.Applied() - z); n != w.entries || after.LinearReads != before.LinearReads || after.Watches != before.Watches {
				t.Errorf("%s: %d log entries, want %d; or rounds or watches", w.what, n, w.entries)
			}
		}
	})
}

// Expiry, a lost leader and an ended context are those of a Value: what is written is written once, or the error says what is not
// known (PEER-05); a Model on a member goes on with its next session.
func TestModelReactions(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := recipes.NewModel[int](c.Member(0), "/app/{a}")
		leaderDiesAfterCommit(t, ctx, c, "the first put", func() error { return m.Put(ctx, "/app/a", 1) })
		leaderDiesAfterCommit(t, ctx, c, "put", func() error { return m.Put(ctx, "/app/a", 2) })
		if x, st, err := m.Get(ctx, "/app/a"); x != 2 || st.Version != 1 || err != nil {
			t.Errorf("%d, version %d, %v", x, st.Version, err)
		}
		s, err := c.Member(0).Session(ctx)
		must(t, err)
		bound := recipes.NewModel[int](s, "/app/{a}")
		must(t, c.Expire(ctx, s))
		wants(t, bound.Put(ctx, "/app/a", 3), zk.ErrSessionExpired)
		must(t, m.Put(ctx, "/app/a", 3))
		c.Isolate(0)
		some, cancel := context.WithCancel(ctx)
		done := started(1, func(int) error { return m.Put(some, "/app/a", 4) })
		synctest.Wait()
		if x, _, err := m.Get(ctx, "/app/a"); x != 3 || err != nil { // local reads go on
			t.Error(x, err)
		}
		cancel()
		err = soon(t, "it waits", done)
		if wants(t, err, context.Canceled); !zk.MaybeApplied(err) { // PEER-10
			t.Errorf("%v: it may be written", err)
		}
		c.Heal()
	})
}
