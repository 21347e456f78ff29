// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// A lock keeps others out until it is released. The same code works on any member of an ensemble.
func ExampleLock() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{}) // volatile, an ensemble of one
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	lock := recipes.NewLock(m, "/app/migration")
	h, err := lock.Acquire(ctx)
	if err != nil {
		log.Fatal(err)
	}
	_, err = lock.TryAcquire(ctx)
	fmt.Println("another try:", err)

	// Inside the tree the guard makes a write fail if the lock is gone by then.
	s := h.Session()
	_, err = s.Txn(ctx, h.Guard(), zk.OpCreate("/app/schema", []byte("2"), zk.Persistent))
	fmt.Println("with the lock:", err)

	if err := h.Release(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = s.Txn(ctx, h.Guard(), zk.OpSet("/app/schema", []byte("3"), zk.AnyVersion))
	fmt.Println("without it:", errors.Is(err, zk.ErrGuard))

	// Output:
	// another try: recipes: held by another
	// with the lock: <nil>
	// without it: true
}

// Do takes care of the release, and ends the function's context when the lock is lost.
func ExampleLock_Do() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	lock := recipes.NewLock(m, "/app/report")
	err = lock.Do(ctx, func(ctx context.Context, h *recipes.Held) error {
		// An operator takes the lock away.
		line, err := lock.Contenders(ctx)
		if err != nil {
			return err
		}
		if err := lock.Break(ctx, line[0]); err != nil {
			return err
		}
		<-ctx.Done() // what works here stops
		return nil
	})
	fmt.Println(errors.Is(err, recipes.ErrLost), errors.Is(err, zk.ErrNoNode))

	// Output:
	// true true
}
