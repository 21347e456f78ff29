// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// Who offers a service is followed: an instance that goes, or changes, is seen at once.
func ExampleRegistry_Watch() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	r := recipes.NewRegistry[struct{}](m, "/services")
	here, err := r.Register(ctx, recipes.Instance[struct{}]{Name: "search", ID: "a", Address: "10.0.0.7", Enabled: true})
	if err != nil {
		log.Fatal(err)
	}
	for instances, err := range r.Watch(ctx, "search") {
		if err != nil {
			log.Fatal(err) // a *recipes.DecodeError could be logged: the stream goes on
		}
		if len(instances) == 0 {
			fmt.Println("nobody")
			break
		}
		fmt.Println(instances[0].ID, instances[0].Enabled)
		if instances[0].Enabled {
			err = here.Update(ctx, recipes.Instance[struct{}]{Address: "10.0.0.7"}) // a Provider picks it no more
		} else {
			err = here.Deregister(ctx)
		}
		if err != nil {
			log.Fatal(err)
		}
	}

	// Output:
	// a true
	// a false
	// nobody
}

// Sticky stays with one instance as long as that can be picked.
func ExampleSticky() {
	a, b, c := recipes.Instance[struct{}]{ID: "a"}, recipes.Instance[struct{}]{ID: "b"}, recipes.Instance[struct{}]{ID: "c"}
	pick := recipes.Sticky(recipes.RoundRobin[struct{}]())
	for _, there := range [][]recipes.Instance[struct{}]{{a, b}, {c, a}, {b, c}, {a, b, c}} {
		fmt.Print(there[pick(there)].ID, " ")
	}
	fmt.Println()

	// Output:
	// a a c c
}

// Random spreads what many processes pick, without a word between them.
func ExampleRandom() {
	there := []recipes.Instance[struct{}]{{ID: "a"}, {ID: "b"}}
	pick := recipes.Random[struct{}]()
	picked := map[string]bool{}
	for len(picked) < 2 {
		picked[there[pick(there)].ID] = true
	}
	fmt.Println(picked)

	// Output:
	// map[a:true b:true]
}
