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

// Many read, one writes; who has written goes on reading without letting another writer in.
func ExampleRWLock() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{}) // volatile, an ensemble of one
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	lock := recipes.NewRWLock(m, "/app/catalogue")
	write, err := lock.Lock(ctx)
	if err != nil {
		log.Fatal(err)
	}
	_, err = lock.TryRLock(ctx)
	fmt.Println("a reader beside a writer:", err)

	read, err := lock.Downgrade(ctx, write)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the write lock:", write.Err())
	other, err := lock.RLock(ctx)
	if err != nil {
		log.Fatal(err)
	}
	_, err = lock.TryLock(ctx)
	fmt.Println("a writer beside readers:", err)
	if err := errors.Join(read.Release(ctx), other.Release(ctx)); err != nil {
		log.Fatal(err)
	}

	// Output:
	// a reader beside a writer: recipes: held by another
	// the write lock: recipes: right released
	// a writer beside readers: recipes: held by another
}

// Several locks are had at once, in whatever order they are given, without a deadlock.
func ExampleLockAll() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	h, err := recipes.LockAll(ctx, m, "/accounts/bob", "/accounts/alice")
	if err != nil {
		log.Fatal(err)
	}
	_, err = recipes.NewLock(m, "/accounts/alice").TryAcquire(ctx)
	fmt.Println("alice:", err)

	// The guards of all paths make a write fail if any of the locks is gone by then.
	steps := append(h.Guards(), zk.OpCreate("/accounts/transfer", []byte("alice to bob: 5"), zk.Persistent))
	_, err = h.Session().Txn(ctx, steps...)
	fmt.Println("transfer:", err)
	if err := h.Release(ctx); err != nil {
		log.Fatal(err)
	}

	// Output:
	// alice: recipes: held by another
	// transfer: <nil>
}

// At most so many at a time, in all processes together.
func ExampleSemaphore() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	downloads := recipes.NewSemaphore(m, "/app/downloads", 3)
	two, err := downloads.AcquireN(ctx, 2)
	if err != nil {
		log.Fatal(err)
	}
	one, err := downloads.TryAcquire(ctx)
	if err != nil {
		log.Fatal(err)
	}
	_, err = downloads.TryAcquire(ctx)
	fmt.Println("a fourth:", err)
	holders, err := downloads.Holders(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("in use:", len(holders))
	if err := errors.Join(two.Release(ctx), one.Release(ctx)); err != nil {
		log.Fatal(err)
	}

	// Output:
	// a fourth: recipes: held by another
	// in use: 3
}

// A shared limit is changed while the semaphore is in use.
func ExampleSemaphore_SetLimit() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	workers := &recipes.Semaphore{Session: m, Path: "/app/workers", Limit: 1, SharedLimit: true}
	first, err := workers.Acquire(ctx)
	if err != nil {
		log.Fatal(err)
	}
	entered := make(chan *recipes.Held)
	go func() {
		h, err := workers.Acquire(ctx) // waits
		if err != nil {
			log.Print(err)
		}
		entered <- h
	}()
	if err := workers.SetLimit(ctx, 2); err != nil {
		log.Fatal(err)
	}
	second := <-entered
	fmt.Println("both are in:", first.Valid() && second.Valid())
	if err := errors.Join(first.Release(ctx), second.Release(ctx)); err != nil {
		log.Fatal(err)
	}

	// Output:
	// both are in: true
}

// Of a job that all instances start, one does it, and for an hour no other.
func ExampleTimedLease() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	mine := recipes.NewTimedLease(m, "/jobs/report", "host a", time.Hour)
	theirs := recipes.NewTimedLease(m, "/jobs/report", "host b", time.Hour)
	h, err := mine.Try(ctx)
	fmt.Println("host a:", err, h.Valid())
	_, err = theirs.Try(ctx)
	fmt.Println("host b:", err)
	again, err := mine.Try(ctx)
	fmt.Println("host a renews:", err, again == h)

	// Output:
	// host a: <nil> true
	// host b: recipes: held by another
	// host a renews: <nil> true
}

// A holder can be asked to give back what it has.
func ExampleRevoke() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	lock := recipes.NewLock(m, "/app/leader")
	h, err := lock.Acquire(ctx)
	if err != nil {
		log.Fatal(err)
	}
	line, err := lock.Contenders(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := recipes.Revoke(ctx, m, line[0]); err != nil {
		log.Fatal(err)
	}
	<-h.Revoked()
	fmt.Println("asked for, still held:", h.Valid())
	if err := h.Release(ctx); err != nil {
		log.Fatal(err)
	}

	// Output:
	// asked for, still held: true
}
