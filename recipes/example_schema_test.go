// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// Rules for what may be where in the tree.
func ExampleSchema() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	session, err := m.Session(ctx)
	if err != nil {
		log.Fatal(err)
	}

	rules := &recipes.Schema{Rules: []recipes.Rule{
		{Pattern: "/app/hosts/*", Ephemeral: recipes.Must},
		{Pattern: "/app/keys/**", NoDelete: true, Check: func(path string, data []byte) error {
			if len(data) != 32 {
				return errors.New("a key has 32 bytes")
			}
			return nil
		}},
	}}
	s := rules.On(session)
	_, err = s.Create(ctx, "/app/hosts/a", nil, zk.Persistent)
	fmt.Println(err)
	_, err = s.Create(ctx, "/app/keys/main", []byte("short"), zk.Persistent)
	fmt.Println(err)
	fmt.Println(s.Delete(ctx, "/app/keys/main", zk.AnyVersion))
	_, err = s.Create(ctx, "/app/hosts/a", nil, zk.Ephemeral|zk.Parents)
	fmt.Println(err)

	// Output:
	// recipes: create /app/hosts/a: against rule "/app/hosts/*": it must be ephemeral
	// recipes: create /app/keys/main: against rule "/app/keys/**": a key has 32 bytes
	// recipes: delete /app/keys/main: against rule "/app/keys/**": it is not to be deleted
	// <nil>
}

// The settings of every tenant, as values of one type.
func ExampleModel() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	type limits struct{ Requests, Users int }
	tenants := recipes.NewModel[limits](m, "/tenants/{tenant}/limits")
	for _, tenant := range []string{"acme", "zebra"} {
		path, err := tenants.Path(tenant)
		if err != nil {
			log.Fatal(err)
		}
		if err := tenants.Put(ctx, path, limits{Requests: 100, Users: len(tenant)}); err != nil {
			log.Fatal(err)
		}
	}
	for it, err := range tenants.All(ctx) {
		if err != nil {
			log.Print(err) // a *recipes.DecodeError: the others come all the same
			continue
		}
		fmt.Println(it.Path, it.Value)
	}
	_, _, err = tenants.Get(ctx, "/tenants/acme/other")
	fmt.Println(errors.Is(err, zk.ErrBadArguments))

	// Output:
	// /tenants/acme/limits {100 4}
	// /tenants/zebra/limits {100 5}
	// true
}

// What a new version of a program needs in the tree is made once, whichever instance starts first.
func ExampleMigrate() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	steps := []recipes.Step{
		{Name: "directories", Ops: func(context.Context, *zk.Session) ([]zk.Op, error) {
			return []zk.Op{zk.OpCreate("/app", nil, zk.Persistent), zk.OpCreate("/app/greeting", []byte("hello"), zk.Persistent)}, nil
		}},
		{Name: "louder", Reads: true, Ops: func(ctx context.Context, s *zk.Session) ([]zk.Op, error) {
			data, st, err := s.Get(ctx, "/app/greeting")
			return []zk.Op{zk.OpSet("/app/greeting", append(data, '!'), st.Version)}, err
		}},
	}
	for range 2 {
		if err := recipes.Migrate(ctx, m, "/migrations/app", steps...); err != nil {
			log.Fatal(err) // a *recipes.StepError says which one
		}
	}
	greeting, _, err := recipes.NewValue[string](m, "/app/greeting").Get(ctx)
	fmt.Println(greeting, err)
	err = recipes.Migrate(ctx, m, "/migrations/app", steps[1:]...) // what was done is not left out
	fmt.Println(errors.Is(err, recipes.ErrMismatch))

	// Output:
	// hello! <nil>
	// true
}

// Rules that are kept in the tree, as Curator keeps them; what checks data is named there and given here.
func ExampleSchemaJSON() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	s, err := m.Session(ctx)
	if err != nil {
		log.Fatal(err)
	}

	rules := `[{"name": "ages", "path": "/ages/.*", "isRegex": true, "schemaValidator": "number", "canBeDeleted": true}]`
	if _, err := s.Create(ctx, "/schema", []byte(rules), zk.Persistent); err != nil {
		log.Fatal(err)
	}
	stored := recipes.NewValue[*recipes.Schema](m, "/schema")
	stored.Codec = recipes.SchemaJSON{Checks: map[string]func(path string, data []byte) error{
		"number": func(_ string, data []byte) error {
			_, err := strconv.Atoi(string(data))
			return err
		},
	}}
	schema, _, err := stored.Get(ctx)
	if err != nil {
		log.Fatal(err) // a *recipes.DecodeError for a validator that is not known here
	}
	fmt.Println(schema.Validate(zk.OpCreate("/ages/ann", []byte("42"), zk.Persistent)))
	fmt.Println(schema.Validate(zk.OpCreate("/ages/bob", []byte("old"), zk.Persistent)))

	// Output:
	// <nil>
	// recipes: create /ages/bob: against rule "ages": strconv.Atoi: parsing "old": invalid syntax
}
