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

// What goes on after its caller has released the lock keeps a handle of its own.
func ExampleHeld_Retain() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	lock := recipes.NewLock(m, "/app/index")
	h, err := lock.Acquire(ctx)
	if err != nil {
		log.Fatal(err)
	}
	background := h.Retain()
	if err := h.Release(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = lock.TryAcquire(ctx)
	fmt.Println(h.Valid(), background.Valid(), err)

	if err := background.Release(ctx); err != nil { // the last one: the lock is free
		log.Fatal(err)
	}
	_, err = lock.TryAcquire(ctx)
	fmt.Println(err)

	// Output:
	// false true recipes: held by another
	// <nil>
}

// Work under a right gets a context that ends with it.
func ExampleHeld_Context() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	s, err := m.NewSession(ctx, zk.SessionConfig{})
	if err != nil {
		log.Fatal(err)
	}

	h, err := recipes.NewLock(s, "/app/index").Acquire(ctx)
	if err != nil {
		log.Fatal(err)
	}
	work, cancel := h.Context(ctx)
	defer cancel()
	fmt.Println(work.Err(), h.Valid())

	if err := s.Close(); err != nil { // or it expires, or an operator deletes the znode
		log.Fatal(err)
	}
	<-h.Lost()
	<-work.Done()
	fmt.Println(errors.Is(h.Err(), recipes.ErrLost), errors.Is(context.Cause(work), recipes.ErrLost))

	// Output:
	// <nil> true
	// true true
}

// After a crash the lock stays closed for a while, for what the dead holder may have under way.
func ExampleLock_grace() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	s, err := m.NewSession(ctx, zk.SessionConfig{})
	if err != nil {
		log.Fatal(err)
	}

	const grace = 50 * time.Millisecond
	theirs := &recipes.Lock{Session: s, Path: "/app/printer", Grace: grace}
	if _, err := theirs.Acquire(ctx); err != nil {
		log.Fatal(err)
	}
	if err := s.Close(); err != nil { // it goes without a release
		log.Fatal(err)
	}

	ours := &recipes.Lock{Session: m, Path: "/app/printer", Grace: grace}
	vacant := time.Now()
	h, err := ours.Acquire(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("waited for the grace:", time.Since(vacant) > grace/2)
	if err := h.Release(ctx); err != nil { // after a release there is none
		log.Fatal(err)
	}
	_, err = ours.TryAcquire(ctx)
	fmt.Println("after a release:", err)

	// Output:
	// waited for the grace: true
	// after a release: <nil>
}

// A loop of one's own that tries again, after longer and longer times.
func ExampleBackoff_Wait() {
	ctx := context.Background()
	retry := recipes.Backoff{Base: time.Millisecond, Max: 10 * time.Millisecond}
	call := func(attempt int) error {
		if attempt < 3 {
			return errors.New("busy")
		}
		return nil
	}
	for attempt := 0; ; attempt++ {
		err := call(attempt)
		fmt.Println(attempt, err)
		if err == nil {
			break
		}
		if err := retry.Wait(ctx, attempt); err != nil {
			log.Fatal(err) // ctx has ended
		}
	}

	// Output:
	// 0 busy
	// 1 busy
	// 2 busy
	// 3 <nil>
}
