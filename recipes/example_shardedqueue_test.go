// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

func ExampleShardedQueue() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	jobs := recipes.NewShardedQueue[string](m, "/jobs")
	jobs.Threshold = 2 // so that three items need two shards
	for _, job := range []string{"a", "b", "c"} {
		if err := jobs.Put(ctx, job); err != nil {
			log.Fatal(err)
		}
	}
	s, err := m.Session(ctx)
	if err != nil {
		log.Fatal(err)
	}
	shards, _, err := s.Children(ctx, "/jobs")
	fmt.Println(len(shards), "shards", err)

	// What is in one shard comes in its order, what is in two does not.
	for range 3 {
		msg, err := jobs.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(msg.Value)
		if err := msg.Ack(ctx); err != nil {
			log.Fatal(err)
		}
	}
	// Unordered output:
	// 2 shards <nil>
	// a
	// b
	// c
}

func ExampleQueue_layout() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	s, err := m.Session(ctx)
	if err != nil {
		log.Fatal(err)
	}

	// A program with Curator's DistributedPriorityQueue receives what is put here. It needs the lockPath /mail-locks.
	mail := recipes.NewQueue[string](m, "/mail")
	mail.Layout = recipes.Curator
	if err := mail.PutPriority(ctx, "hello", 5); err != nil {
		log.Fatal(err)
	}
	entries, _, err := s.Children(ctx, "/mail")
	fmt.Println(entries, err)
	data, _, err := s.GetString(ctx, "/mail/"+entries[0])
	fmt.Printf("%q %v\n", data, err)
	// Output:
	// [queue-1000000050000000000] <nil>
	// "\x00\x01\x00\x01\x01\x00\x00\x00\a\"hello\"\x02" <nil>
}
