// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// A schema that is written here means the same to Curator, and values are what Jackson makes of them, which Curator's modeled
// nodes have. What stores those, curator-x-async, is not in Debian.
func TestCuratorSchema(t *testing.T) {
	path, version := curatorPath(t)
	ctx, m, p := shared(t, java(t, "SchemaPeer", path, "java/SchemaPeer.java")...)
	row := tried{t, newRow("schemas and modeled values, beside ours on the same paths")}
	row.row.client, row.row.version = "Curator", version
	raw, err := m.Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p.run(row, "schema", func(t *testing.T) {
		even := func(_ string, data []byte) error {
			if len(data)%2 == 1 {
				return errors.New("odd")
			}
			return nil
		}
		written := &recipes.Schema{Rules: []recipes.Rule{
			{Name: "hosts", Pattern: "/app/hosts/{host}", Ephemeral: recipes.Must, Sequential: recipes.Cannot, Doc: "who is there"},
			{Name: "main", Pattern: "/app/hosts/main", Ephemeral: recipes.Cannot, NoDelete: true, Metadata: map[string]string{"team": "a"}},
			{Name: "jobs", Pattern: "/app/jobs/job-*", Sequential: recipes.Must},
			{Name: "even", Pattern: "/app/even/**", Check: even, Validator: "even"},
			{Name: "seen", Pattern: "/app/seen", Watched: recipes.Must},
			{Name: "hidden", Pattern: "/app/hidden", Watched: recipes.Cannot},
		}}
		v := recipes.NewValue[*recipes.Schema](m, "/schema")
		v.Codec = recipes.SchemaJSON{Checks: map[string]func(string, []byte) error{"even": even}}
		if err := v.Set(ctx, written); err != nil {
			t.Fatal(err)
		}
		read, _, err := v.Get(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p.does("schema", "/schema")
		s := read.On(raw)
		modes := map[string]zk.CreateMode{"PERSISTENT": zk.Persistent, "EPHEMERAL": zk.Ephemeral, "PERSISTENT_SEQUENTIAL": zk.Sequential, "EPHEMERAL_SEQUENTIAL": zk.Ephemeral | zk.Sequential}
		for _, path := range []string{"/app/seen", "/app/hidden", "/app/even/x", "/app/hosts/main", "/app/other"} {
			if _, err := raw.Create(ctx, path, []byte("12"), zk.Persistent|zk.Parents); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			do      []any
			refused bool
		}{
			{[]any{"create", "/app/hosts/a", "EPHEMERAL", "x"}, false},
			{[]any{"create", "/app/hosts/b", "PERSISTENT", "x"}, true},
			{[]any{"create", "/app/hosts/b", "EPHEMERAL_SEQUENTIAL", "x"}, true},
			{[]any{"delete", "/app/hosts/main"}, true},
			{[]any{"set", "/app/hosts/main", "x"}, false},
			{[]any{"delete", "/app/hosts/a"}, false},
			{[]any{"create", "/app/jobs/job-", "PERSISTENT_SEQUENTIAL", "x"}, false},
			{[]any{"create", "/app/jobs/job-1", "PERSISTENT", "x"}, true},
			{[]any{"create", "/app/jobs/other", "PERSISTENT", "x"}, false},
			{[]any{"delete", "/app/jobs/other"}, false},
			{[]any{"set", "/app/even/x", "123"}, true},
			{[]any{"set", "/app/even/x", "1234"}, false},
			{[]any{"create", "/app/even/x/y", "PERSISTENT", "1"}, true},
			{[]any{"get", "/app/seen"}, true},
			{[]any{"watch", "/app/seen"}, false},
			{[]any{"get", "/app/hidden"}, false},
			{[]any{"watch", "/app/hidden"}, true},
			{[]any{"set", "/app/other", "123"}, false},
		} {
			if theirs := p.does(c.do...); (theirs == "refused") != c.refused {
				t.Errorf("%v: Curator says it is %s", c.do, theirs)
			}
			path, data := c.do[1].(string), []byte(c.do[len(c.do)-1].(string))
			some, cancel := context.WithCancel(ctx)
			var err error
			switch c.do[0] {
			case "create":
				err = read.Validate(zk.OpCreate(path, data, modes[c.do[2].(string)]))
			case "set":
				_, err = s.Set(ctx, path, data, zk.AnyVersion)
			case "delete":
				err = read.Validate(zk.OpDelete(path, zk.AnyVersion))
			case "get":
				_, _, err = s.Get(ctx, path)
			case "watch":
				_, _, _, err = s.GetW(some, path)
			}
			cancel()
			if violation, ok := errors.AsType[*recipes.SchemaError](err); ok != c.refused || err != nil && !ok {
				t.Errorf("%v: %v, %v", c.do, err, violation)
			}
		}
	})

	p.run(row, "model", func(t *testing.T) {
		type limits struct {
			Requests int    `json:"requests"`
			Owner    string `json:"owner"`
		}
		tenants := recipes.NewModel[limits](m, "/tenants/{tenant}/limits")
		if err := tenants.Put(ctx, "/tenants/a/limits", limits{7, "me"}); err != nil {
			t.Fatal(err)
		}
		if got := p.does("read", "/tenants/a/limits"); got != "7 me" {
			t.Errorf("Jackson reads %q", got)
		}
		p.does("write", "/tenants/a/limits", 8, "you")
		if x, _, err := tenants.Get(ctx, "/tenants/a/limits"); x != (limits{8, "you"}) || err != nil {
			t.Errorf("%+v, %v", x, err)
		}
	})
}
