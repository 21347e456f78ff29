// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// Two shops change their prices both, or not at all.
func ExampleTwoPhase() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{}) // volatile, an ensemble of one
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	prices := recipes.NewTwoPhase(m, "/app/prices")
	shop := func(name string, able func(p *recipes.Proposal) bool) { // runs on each shop's own process
		n := 0
		for p, err := range prices.Proposals(ctx, name) {
			if err != nil {
				log.Fatal(err)
			}
			if err := p.Vote(ctx, able(p)); err != nil { // after this a shop is bound by what is decided
				log.Print(err) // recipes.ErrDecided: it came too late
			}
			if commit, err := p.Decision(ctx); err == nil && commit {
				fmt.Printf("%s does it\n", p.Request())
			}
			if n++; n == 2 {
				return
			}
		}
	}
	var shops sync.WaitGroup
	shops.Go(func() { shop("berlin", func(*recipes.Proposal) bool { return true }) })
	shops.Go(func() { shop("paris", func(p *recipes.Proposal) bool { return p.ID() == "spring" }) })

	for _, id := range []string{"spring", "autumn"} {
		p, err := prices.Propose(ctx, id, []byte("who sells in "+id), "berlin", "paris")
		if err != nil {
			log.Fatal(err)
		}
		commit, err := p.Decision(ctx)
		fmt.Println(id, commit, err)
	}
	shops.Wait()

	// Unordered output:
	// spring true <nil>
	// who sells in spring does it
	// who sells in spring does it
	// autumn false <nil>
}

// A coordinator that was restarted finds what it has proposed, and clears it away when all have carried it out.
func ExampleTwoPhase_Find() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	prices := recipes.NewTwoPhase(m, "/app/prices")
	if _, err := prices.Propose(ctx, "spring", []byte("5% off"), "berlin"); err != nil {
		log.Fatal(err)
	}
	found, err := prices.Find(ctx, "spring")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %s\n", found.ID(), found.Request())
	fmt.Println(found.Forget(ctx))

	for p, err := range prices.Proposals(ctx, "berlin") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(p.Vote(ctx, true))
		break
	}
	committed, err := found.Decision(ctx)
	fmt.Println(committed, err)
	fmt.Println(found.Forget(ctx))
	_, err = prices.Find(ctx, "spring")
	fmt.Println(errors.Is(err, zk.ErrNoNode))

	// Output:
	// spring 5% off
	// recipes: not decided yet
	// <nil>
	// true <nil>
	// <nil>
	// true
}
