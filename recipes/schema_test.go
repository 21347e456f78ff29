// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

var errOdd = errors.New("odd")

func schema() *recipes.Schema {
	return &recipes.Schema{Rules: []recipes.Rule{
		{Name: "hosts", Pattern: "/app/hosts/*", Ephemeral: recipes.Must, Sequential: recipes.Cannot},
		{Name: "main", Pattern: "/app/hosts/main", Ephemeral: recipes.Cannot, NoDelete: true},
		{Pattern: "/app/{tenant}/conf", Check: func(path string, data []byte) error {
			if len(data)%2 == 1 {
				return fmt.Errorf("%s: %w", path, errOdd)
			}
			return nil
		}},
		{Name: "jobs", Pattern: "/app/jobs/job-*", Sequential: recipes.Must, Watched: recipes.Must},
		{Name: "secret", Pattern: "/app/secret/**", Watched: recipes.Cannot, NoDelete: true},
		{Name: "letters", Pattern: "/letters/[a-c]+", Regexp: true, Ephemeral: recipes.Must},
	}}
}

// violated checks that err is a violation of a rule.
func violated(t *testing.T, what string, err error, rule string) {
	t.Helper()
	if e, ok := errors.AsType[*recipes.SchemaError](err); !ok || e.Rule != rule || e.Err == nil || !strings.Contains(err.Error(), e.Path) {
		t.Errorf("%s: %v, want a violation of %q", what, err, rule)
	}
}

// Each step is what its rule says (SCHEMA-S1).
func TestSchemaValidate(t *testing.T) {
	const none = "allowed"
	create, set, del := zk.OpCreate, zk.OpSet, zk.OpDelete
	for i, c := range []struct {
		op   zk.Op
		rule string // against which it is
	}{
		{create("/app/hosts/a", nil, zk.Ephemeral), none},
		{create("/app/hosts/a", nil, zk.Persistent), "hosts"},
		{create("/app/hosts/a", nil, zk.Ephemeral|zk.Sequential), "hosts"},
		{create("/app/hosts/a/b", nil, zk.Persistent), none},
		{create("/app/hosts", nil, zk.Persistent), none},
		{create("/app/hosts/", nil, zk.Ephemeral|zk.Sequential), "hosts"}, // a name that is only a number
		{set("/app/hosts/a", nil, 0), none},
		{del("/app/hosts/a", 0), none},
		{create("/app/hosts/main", nil, zk.Persistent), none}, // exact before patterns
		{create("/app/hosts/main", nil, zk.Ephemeral), "main"},
		{del("/app/hosts/main", 0), "main"},
		{create("/app/x/conf", []byte("1"), zk.Persistent), "/app/{tenant}/conf"},
		{create("/app/x/conf", []byte("12"), zk.Persistent), none},
		{set("/app/x/conf", []byte("123"), 0), "/app/{tenant}/conf"},
		{set("/app/x/y/conf", []byte("123"), 0), none},
		{set("/app/conf", []byte("123"), 0), none},
		{create("/app/jobs/job-", nil, zk.Persistent|zk.Sequential), none},
		{create("/app/jobs/job-1", nil, zk.Persistent), "jobs"},
		{create("/app/jobs/other", nil, zk.Persistent), none},
		{del("/app/secret", 0), none},
		{del("/app/secret/a", 0), "secret"},
		{del("/app/secret/a/b", 0), "secret"},
		{create("/letters/abc", nil, zk.Persistent), "letters"},
		{create("/letters/abcd", nil, zk.Persistent), none}, // it has to match the whole path
		{create("/x/letters/abc", nil, zk.Persistent), none},
		{zk.OpCheck("/app/secret/a", 1), none},
		{zk.OpCheckAbsent("/app/hosts/a"), none},
		{zk.OpSetACL("/app/secret/a", zk.OpenACL(), 0), none},
	} {
		err := schema().Validate(c.op)
		if c.rule == none {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
			continue
		}
		violated(t, fmt.Sprint(i), err, c.rule)
	}
	wants(t, schema().Validate(set("/app/x/conf", []byte("123"), 0)), errOdd)

	closed := schema()
	closed.Closed = true
	violated(t, "closed", closed.Validate(create("/other", nil, zk.Persistent)), "")
	violated(t, "closed", closed.Validate(del("/other", 0)), "")
	violated(t, "closed", closed.ValidateRead("/other", true), "")
	must(t, closed.ValidateRead("/other", false))
	must(t, closed.Validate(create("/app/hosts/a", nil, zk.Ephemeral)))
	must(t, (&recipes.Schema{}).Validate(create("/other", nil, zk.Persistent)))
	violated(t, "unwatched", closed.ValidateRead("/app/jobs/job-1", false), "jobs")
	must(t, closed.ValidateRead("/app/jobs/job-1", true))
	violated(t, "watched", closed.ValidateRead("/app/secret/a", true), "secret")
	must(t, closed.ValidateRead("/app/secret/a", false))

	for _, bad := range [][]recipes.Rule{
		{{Pattern: ""}}, {{Pattern: "app"}}, {{Pattern: "/a/"}}, {{Pattern: "/a/**/b"}}, {{Pattern: "/a**"}}, {{Pattern: "/*/../b"}},
		{{Pattern: "/(", Regexp: true}}, {{Pattern: "/a)|(b", Regexp: true}}, {{Pattern: "/a"}, {Pattern: "/a"}},
		{{Pattern: "/a", Name: "x"}, {Pattern: "/b", Name: "x"}}, {{Pattern: "/a", Watched: 3}},
	} {
		x := &recipes.Schema{Rules: bad}
		wants(t, x.Validate(zk.OpCheckAbsent("/a")), zk.ErrBadArguments)
		wants(t, x.Validate(zk.OpCreate("/a", nil, 0)), zk.ErrBadArguments)
		wants(t, x.ValidateRead("/a", false), zk.ErrBadArguments)
	}
}

// Behind a schema nothing is sent that it does not allow, by whatever method (SCHEMA-S1).
func TestSchemaSession(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		raw := session(t, ctx, c.Member(0))
		for _, prefix := range []string{"", "/", "/app"} {
			s := schema().On(raw)
			at := func(path string) string { return path }
			if prefix != "" {
				s = s.Sub(prefix)
				at = func(path string) string { return strings.TrimPrefix(path, strings.TrimSuffix(prefix, "/")) }
			}
			_, err := raw.Txn(ctx, zk.OpCreate("/app/secret/a/b", nil, zk.Parents), zk.OpCreate("/app/jobs/job-1", nil, zk.Parents), zk.OpCreate("/app/x/conf", nil, zk.Parents))
			must(t, err)
			stats, z := c.Member(0).Stats(), c.Member(0).Applied()
			for what, fn := range map[string]func() error{
				"create": func() error { _, err := s.Create(ctx, at("/app/hosts/a"), nil, zk.Parents); return err },
				"set":    func() error { _, err := s.Set(ctx, at("/app/x/conf"), []byte("1"), -1); return err },
				"delete": func() error { return s.Delete(ctx, at("/app/secret/a/b"), -1) },
				"tree":   func() error { return s.DeleteTree(ctx, at("/app/secret")) },
				"do":     func() error { _, err := s.Do(ctx, zk.OpDelete(at("/app/secret/a/b"), -1)); return err },
				"txn": func() error {
					_, err := s.Txn(ctx, zk.OpDelete(at("/app/jobs/job-1"), -1), zk.OpDelete(at("/app/secret/a/b"), -1))
					return err
				},
				"late": func() error {
					_, err := s.TxnLate(ctx, func([]zk.Result, error) {}, zk.OpDelete(at("/app/secret/a/b"), -1))
					return err
				},
				"get":       func() error { _, _, err := s.Get(ctx, at("/app/jobs/job-1")); return err },
				"string":    func() error { _, _, err := s.GetString(ctx, at("/app/jobs/job-1")); return err },
				"exists":    func() error { _, _, err := s.Exists(ctx, at("/app/jobs/job-1")); return err },
				"children":  func() error { _, _, err := s.Children(ctx, at("/app/jobs/job-1")); return err },
				"getw":      func() error { _, _, _, err := s.GetW(ctx, at("/app/secret/a")); return err },
				"existsw":   func() error { _, _, _, err := s.ExistsW(ctx, at("/app/secret/a")); return err },
				"childrenw": func() error { _, _, _, err := s.ChildrenW(ctx, at("/app/secret/a")); return err },
				"watch":     func() error { _, err := s.Watch(ctx, at("/app/secret/a"), zk.WatchNode); return err },
				"values": func() error {
					for _, err := range s.WatchValue(ctx, at("/app/secret/a")) {
						return err
					}
					return nil
				},
				"names": func() error {
					for _, err := range s.WatchChildren(ctx, at("/app/secret/a")) {
						return err
					}
					return nil
				},
			} {
				err := fn()
				if e, ok := errors.AsType[*recipes.SchemaError](err); !ok || !strings.HasPrefix(e.Path, "/app/") {
					t.Errorf("%s: %v", what, err)
				}
			}
			if now := c.Member(0).Stats(); now.Writes != stats.Writes || c.Member(0).Applied() != z || now.Watches != stats.Watches {
				t.Error("something was sent")
			}

			_, err = s.Create(ctx, at("/app/hosts/a"), nil, zk.Ephemeral|zk.Parents)
			must(t, err)
			_, err = s.Set(ctx, at("/app/x/conf"), []byte("12"), 0)
			must(t, err)
			must(t, s.Delete(ctx, at("/app/hosts/a"), -1))
			_, err = s.Do(ctx, zk.OpSet(at("/app/x/conf"), nil, 1))
			must(t, err)
			_, err = s.Txn(ctx, zk.OpCheck(at("/app/secret/a"), 0), zk.OpDelete(at("/app/x/conf"), 2))
			must(t, err)
			_, err = s.TxnLate(ctx, nil, zk.OpSet(at("/app/secret/a"), nil, 0))
			must(t, err)
			for _, read := range []func(context.Context, string) error{
				func(ctx context.Context, path string) error { _, _, err := s.Get(ctx, path); return err },
				func(ctx context.Context, path string) error { _, _, err := s.GetString(ctx, path); return err },
				func(ctx context.Context, path string) error { _, _, err := s.Exists(ctx, path); return err },
				func(ctx context.Context, path string) error { _, _, err := s.Children(ctx, path); return err },
			} {
				must(t, read(ctx, at("/app/secret/a")))
			}
			some, stop := context.WithCancel(ctx)
			_, _, _, err = s.GetW(some, at("/app/jobs/job-1"))
			must(t, err)
			_, _, _, err = s.ExistsW(some, at("/app/jobs/job-1"))
			must(t, err)
			_, _, _, err = s.ChildrenW(some, at("/app/jobs/job-1"))
			must(t, err)
			w, err := s.Watch(some, at("/app/jobs/job-1"), zk.WatchSubtree)
			must(t, err)
			w.Close()
			for z, err := range s.WatchValue(some, at("/app/jobs/job-1")) {
				if err != nil || z.Stat.Czxid == 0 {
					t.Error(z, err)
				}
				break
			}
			for _, err := range s.WatchChildren(some, at("/app/jobs/job-1")) {
				must(t, err)
				break
			}
			stop()
			wants(t, s.DeleteTree(nil, at("/app/jobs")), zk.ErrBadArguments)
			must(t, s.DeleteTree(ctx, at("/app/jobs")))
			wants(t, s.DeleteTree(ctx, at("/app/jobs")), zk.ErrNoNode)
			must(t, raw.DeleteTree(ctx, "/app"))
		}
		root := (&recipes.Schema{Rules: []recipes.Rule{{Name: "top", Pattern: "/app", Watched: recipes.Must}}}).On(raw).Sub("/app")
		_, _, err := root.Get(ctx, "/")
		violated(t, "the root of a sub session", err, "top")
		residue(t, ctx, c, "/app")
	})
}

const curatorSchema = `[
	{"name": "a", "path": "/a/b/c", "ephemeral": "must", "sequential": "cannot", "metadata": {"one": "1", "two": "2"}},
	{"name": "b", "path": "/a/.*", "isRegex": true, "schemaValidator": "even", "documentation": "words", "ephemeral": "CAN", "watched": "cannot", "canBeDeleted": true}
]`

// The format is that of Curator's SchemaSetLoader; internal/e2e has it read what is written here.
func TestSchemaJSON(t *testing.T) {
	codec := recipes.SchemaJSON{Checks: map[string]func(string, []byte) error{"even": schema().Rules[2].Check}}
	x, err := codec.Decode([]byte(curatorSchema))
	must(t, err)
	violated(t, "a", x.Validate(zk.OpCreate("/a/b/c", nil, zk.Persistent)), "a")
	violated(t, "a", x.Validate(zk.OpDelete("/a/b/c", 0)), "a") // what is not said to be deletable is not
	violated(t, "b", x.Validate(zk.OpSet("/a/b/d", []byte("1"), 0)), "b")
	must(t, x.Validate(zk.OpDelete("/a/b/d", 0)))
	if r := x.Rules; r[0].Metadata["two"] != "2" || r[1].Doc != "words" || r[1].Validator != "even" || r[1].Watched != recipes.Cannot {
		t.Errorf("%+v", r)
	}
	data, err := codec.Encode(x)
	must(t, err)
	again, err := codec.Decode(data)
	must(t, err)
	for i := range x.Rules {
		a, b := x.Rules[i], again.Rules[i]
		a.Check, b.Check = nil, nil
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%+v was %+v", b, a)
		}
	}

	// Patterns are written as the regular expressions that mean the same.
	data, err = codec.Encode(&recipes.Schema{Rules: []recipes.Rule{{Name: "p", Pattern: "/a.b/{x}/c*d/**"}, {Name: "q", Pattern: "/plain"}}})
	must(t, err)
	var list []map[string]any
	must(t, json.Unmarshal(data, &list))
	if list[0]["path"] != `/a\.b/[^/]+/c[^/]*d/.+` || list[0]["isRegex"] != true || list[1]["path"] != "/plain" || list[1]["isRegex"] != nil {
		t.Errorf("%s", data)
	}
	x, err = codec.Decode(data)
	must(t, err)
	x = &recipes.Schema{Rules: x.Rules, Closed: true}
	for path, is := range map[string]bool{"/a.b/1/cd/2": true, "/a.b/1/cxd/2/3": true, "/axb/1/cd/2": false, "/a.b/1/cd": false, "/a.b/1/2/cd/3": false} {
		if err := x.Validate(zk.OpCreate(path, nil, 0)); (err == nil) != is {
			t.Errorf("%s: %v", path, err)
		}
	}

	for _, bad := range []string{
		"", "{}", "[1]", `[{}]`, `[{"name": "a"}]`, `[{"path": "/a"}]`, `[{"name": "a", "path": "/a", "ephemral": "must"}]`, `[] []`,
		`[{"name": "a", "path": "/a", "ephemeral": "often"}]`, `[{"name": "a", "path": "/(", "isRegex": true}]`, `[{"name": "a", "path": "/*"}]`,
		`[{"name": "a", "path": "/a", "schemaValidator": "unknown"}]`, `[{"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}]`,
	} {
		if x, err := codec.Decode([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, x)
		}
	}
	for _, bad := range []*recipes.Schema{nil, {Rules: []recipes.Rule{{Pattern: "/a"}}}, {Rules: []recipes.Rule{{Pattern: "a", Name: "a"}}}, schema()} {
		if _, err := codec.Encode(bad); err == nil {
			t.Error("encoded")
		}
	}
	if _, err := recipes.Allowance(7).MarshalText(); err == nil || recipes.Allowance(7).String() != "unknown" {
		t.Error("an allowance that is none")
	}
}

// A schema that is kept in the tree is followed like any value; one that cannot be read says where it is.
func TestSchemaStored(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		v := recipes.NewValue[*recipes.Schema](s, "/schema")
		v.Codec = recipes.SchemaJSON{}
		must(t, v.Set(ctx, &recipes.Schema{Rules: []recipes.Rule{{Name: "x", Pattern: "/x/*", NoDelete: true}}}))
		x, _, err := v.Get(ctx)
		must(t, err)
		violated(t, "x", x.Validate(zk.OpDelete("/x/1", 0)), "x")
		st, err := s.Set(ctx, "/schema", []byte(`[{"name": 1}]`), -1)
		must(t, err)
		_, _, err = v.Get(ctx)
		if e, ok := errors.AsType[*recipes.DecodeError](err); !ok || e.Path != "/schema" || e.Zxid != st.Mzxid {
			t.Error(err)
		}
	})
}
