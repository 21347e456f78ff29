// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// Settled returns once nobody has come or gone for a while, so that a start of many is seen as one change.
func ExampleGroup_Settled() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	crew := recipes.NewGroup(m, "/app/crew")
	ann, err := crew.Join(ctx, "ann", nil)
	if err != nil {
		log.Fatal(err)
	}
	bob, err := crew.Join(ctx, "bob", nil)
	if err != nil {
		log.Fatal(err)
	}
	members, err := crew.Settled(ctx, 20*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	for _, member := range members {
		fmt.Println(member.ID)
	}
	if err := errors.Join(ann.Stop(ctx), bob.Stop(ctx)); err != nil {
		log.Fatal(err)
	}

	// Output:
	// ann
	// bob
}

// The two ways to share items: Deal is fair, Rendezvous moves little when somebody comes or goes.
func ExampleDeal() {
	items := []string{"s0", "s1", "s2", "s3"}
	fmt.Println(recipes.Deal([]string{"ann", "bob"}, items))

	moved := func(assign func(members, items []string) map[string]string) (n int) {
		before, after := assign([]string{"ann", "bob", "cat"}, items), assign([]string{"bob", "cat"}, items)
		for _, item := range items {
			if before[item] != "ann" && before[item] != after[item] {
				n++
			}
		}
		return n
	}
	fmt.Println("of others' items moved:", moved(recipes.Deal), moved(recipes.Rendezvous))

	// Output:
	// map[s0:ann s1:bob s2:ann s3:bob]
	// of others' items moved: 2 0
}
