// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"sync"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// A configuration that all processes follow while it changes.
func ExampleValue() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{}) // volatile, an ensemble of one
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	type config struct {
		Workers int
		Debug   bool
	}
	conf := recipes.NewValue[config](m, "/app/config")
	conf.Default = config{Workers: 4}
	for c, err := range conf.Watch(ctx) {
		if err != nil {
			log.Fatal(err) // a *recipes.DecodeError could be logged and survived
		}
		fmt.Printf("%+v\n", c)
		if c.Workers == 8 {
			break
		}
		_, err := conf.Update(ctx, func(c config) (config, error) { // atomic, whoever else updates it
			c.Workers *= 2
			return c, nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}

	// Output:
	// {Workers:4 Debug:false}
	// {Workers:8 Debug:false}
}

// Numbers that are given out once, in all processes together.
func ExampleCounter() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	orders := recipes.NewCounter(m, "/app/orders")
	_, id, err := orders.Add(ctx, 1)
	fmt.Println("order", id, err)

	// A block is a range of one's own: no message for each number.
	block, err := orders.Block(ctx, 3)
	if err != nil {
		log.Fatal(err)
	}
	for id, ok := block.Next(); ok; id, ok = block.Next() {
		fmt.Println("order", id)
	}
	_, id, err = orders.Add(ctx, 1)
	fmt.Println("order", id, err)

	// Output:
	// order 1 <nil>
	// order 2
	// order 3
	// order 4
	// order 5 <nil>
}

// A start that waits until three parts are ready, wherever they run.
func ExampleLatch() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	var parts sync.WaitGroup
	for range 3 {
		parts.Go(func() {
			if _, err := recipes.NewLatch(m, "/app/ready", 3).CountDown(ctx); err != nil {
				log.Fatal(err)
			}
		})
	}
	if err := recipes.NewLatch(m, "/app/ready", 3).Wait(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("all three are ready")
	parts.Wait()

	// Output:
	// all three are ready
}

// A transaction over several znodes: both accounts change, or none, and nobody comes between.
func ExampleAtomically() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	err = recipes.Atomically(ctx, m, func(tx *recipes.Tx) error {
		if err := tx.Create("/accounts/a", []byte("100"), zk.Parents); err != nil {
			return err
		}
		return tx.Create("/accounts/b", []byte("0"), zk.Parents)
	})
	if err != nil {
		log.Fatal(err)
	}
	short := errors.New("not enough money")
	transfer := func(amount int) error {
		return recipes.Atomically(ctx, m, func(tx *recipes.Tx) error {
			balance := map[string]int{}
			for _, account := range []string{"a", "b"} {
				data, _, err := tx.Get("/accounts/" + account)
				if err != nil {
					return err
				}
				if balance[account], err = strconv.Atoi(string(data)); err != nil {
					return err
				}
			}
			if balance["a"] < amount {
				return short
			}
			if err := tx.Set("/accounts/a", []byte(strconv.Itoa(balance["a"]-amount))); err != nil {
				return err
			}
			return tx.Set("/accounts/b", []byte(strconv.Itoa(balance["b"]+amount)))
		})
	}
	fmt.Println(transfer(70))
	fmt.Println(transfer(70))

	// Output:
	// <nil>
	// not enough money
}

// A copy of a subtree that can be read at any time, and tells what has changed.
func ExampleCache() {
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
	if _, err := s.Create(ctx, "/routes/eu", []byte("10.0.0.1"), zk.Parents); err != nil {
		log.Fatal(err)
	}

	routes := recipes.NewCache(m, "/routes")
	if err := routes.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer routes.Close()
	eu, ok := routes.Get("/routes/eu") // no message, no lock
	fmt.Println(eu.Data, ok)

	for change, err := range routes.Changes(ctx) { // first what is there
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%v %s %q\n", change.Kind, change.Path, change.New.Data)
		switch {
		case change.Path == "/routes/eu" && change.Kind == recipes.Added:
			if _, err := s.Set(ctx, "/routes/eu", []byte("10.0.0.2"), zk.AnyVersion); err != nil {
				log.Fatal(err)
			}
		case change.Kind == recipes.Updated:
			if err := s.Delete(ctx, "/routes/eu", zk.AnyVersion); err != nil {
				log.Fatal(err)
			}
		case change.Kind == recipes.Removed:
			return
		}
	}

	// Output:
	// 10.0.0.1 true
	// added /routes ""
	// added /routes/eu "10.0.0.1"
	// updated /routes/eu "10.0.0.2"
	// removed /routes/eu ""
}

// What was read is replaced only if nobody has changed it since.
func ExampleValue_SetIf() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	motto := recipes.NewValue[string](m, "/app/motto")
	if err := motto.Set(ctx, "faster"); err != nil {
		log.Fatal(err)
	}
	_, stat, err := motto.Get(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(motto.SetIf(ctx, "safer", stat))
	err = motto.SetIf(ctx, "cheaper", stat) // it is not what was read any more
	fmt.Println(errors.Is(err, zk.ErrBadVersion))

	// Output:
	// <nil>
	// true
}

// A state that moves on from one number to the next, whoever moves it, and is watched.
func ExampleCounter_CompareAndSwap() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	phase := recipes.NewCounter(m, "/app/phase")
	for now, err := range phase.Watch(ctx) { // the newest value, now and after each change
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("phase", now)
		if now == 2 {
			break
		}
		swapped, err := phase.CompareAndSwap(ctx, now, now+1)
		fmt.Println(swapped, err)
	}
	swapped, err := phase.CompareAndSwap(ctx, 1, 2)
	fmt.Println(swapped, err)

	// Output:
	// phase 0
	// true <nil>
	// phase 1
	// true <nil>
	// phase 2
	// false <nil>
}
