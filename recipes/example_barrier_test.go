// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

func ExampleBarrier() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	gate := recipes.NewBarrier(m, "/maintenance")
	if err := gate.Set(ctx); err != nil {
		log.Fatal(err)
	}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() { // in any process of the ensemble
			if err := recipes.NewBarrier(m, "/maintenance").Wait(ctx); err != nil {
				log.Fatal(err)
			}
			fmt.Println("at work again")
		})
	}
	fmt.Println("maintenance is over")
	if err := gate.Lift(ctx); err != nil {
		log.Fatal(err)
	}
	all.Wait()
	// Output:
	// maintenance is over
	// at work again
	// at work again
}

func ExampleDoubleBarrier() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() { // in any process of the ensemble
			crew := recipes.NewDoubleBarrier(m, "/crew", 3)
			err := crew.Do(ctx, func(context.Context) error {
				fmt.Println("all three are here:", i)
				return nil
			})
			if err != nil {
				log.Fatal(err)
			}
		})
	}
	all.Wait()
	fmt.Println("all three are done")
	// Unordered output:
	// all three are here: 0
	// all three are here: 1
	// all three are here: 2
	// all three are done
}
