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

// Items with a delay come when they are due, whenever they were put.
func ExampleQueue_PutAt() {
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

	jobs := recipes.NewQueue[string](m, "/jobs")
	err = errors.Join(
		jobs.PutAfter(ctx, "tomorrow", 24*time.Hour),
		jobs.PutAt(ctx, "soon", s.Now().Add(10*time.Millisecond)), // the ensemble's time, not that of this host
	)
	if err != nil {
		log.Fatal(err)
	}
	job, err := jobs.Take(ctx) // waits until one is due
	fmt.Println(job, err)
	_, ok, err := jobs.TryTake(ctx)
	n, _ := jobs.Len(ctx)
	fmt.Println(ok, err, n)

	// Output:
	// soon <nil>
	// false <nil> 1
}

// An item with an id can be taken back as long as nobody has received it.
func ExampleQueue_PutID() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	orders := recipes.NewQueue[string](m, "/orders")
	err = errors.Join(
		orders.PutID(ctx, "two apples", "order-1"),
		orders.PutID(ctx, "a pear", "order-2"),
		orders.PutID(ctx, "and a plum", "order-1"), // ids need not be unique
	)
	if err != nil {
		log.Fatal(err)
	}
	removed, err := orders.Remove(ctx, "order-1")
	fmt.Println(removed, err)
	order, err := orders.Take(ctx)
	fmt.Println(order, err)

	// Output:
	// 2 <nil>
	// a pear <nil>
}

// Several items are put all together, next to each other, or not at all.
func ExampleQueue_PutAll() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	steps := recipes.NewQueue[string](m, "/steps")
	if err := steps.PutAll(ctx, "wash", "cut", "cook"); err != nil {
		log.Fatal(err)
	}
	for range 3 {
		step, err := steps.Take(ctx)
		fmt.Println(step, err)
	}

	// Output:
	// wash <nil>
	// cut <nil>
	// cook <nil>
}

// A bounded queue never has more entries than it may; who puts waits for room.
func ExampleQueue_maxItems() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	jobs := recipes.NewQueue[string](m, "/jobs")
	jobs.MaxItems = 2
	if err := jobs.PutAll(ctx, "a", "b"); err != nil {
		log.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	err = jobs.Put(short, "c")
	fmt.Println(errors.Is(err, context.DeadlineExceeded))

	if _, err := jobs.Take(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(jobs.Put(ctx, "c"))

	// Output:
	// true
	// <nil>
}

// Take removes an item before it returns it: there is nothing to acknowledge, and nobody gets it again.
func ExampleQueue_Take() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	jobs := recipes.NewQueue[string](m, "/jobs")
	if err := jobs.PutAll(ctx, "a", "b"); err != nil {
		log.Fatal(err)
	}
	next, ok, err := jobs.Peek(ctx) // it stays where it is
	fmt.Println(next, ok, err)
	next, err = jobs.Take(ctx)
	fmt.Println(next, err)
	next, ok, err = jobs.TryTake(ctx)
	fmt.Println(next, ok, err)
	_, ok, err = jobs.TryTake(ctx) // Take would wait here
	fmt.Println(ok, err)

	// Output:
	// a true <nil>
	// a <nil>
	// b true <nil>
	// false <nil>
}
