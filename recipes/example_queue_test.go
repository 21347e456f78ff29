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

func ExampleQueue() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	type mail struct{ To, Text string }
	outbox := recipes.NewQueue[mail](m, "/outbox")
	err = errors.Join(
		outbox.Put(ctx, mail{"ann", "hello"}),
		outbox.PutPriority(ctx, mail{"bob", "urgent"}, 10),
		outbox.Put(ctx, mail{"cat", "bye"}),
	)
	if err != nil {
		log.Fatal(err)
	}

	// Received is not gone: it is acknowledged once it is done, or received again.
	for msg, err := range outbox.Messages(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(msg.Value.To, msg.Value.Text)
		if err := msg.Ack(ctx); err != nil {
			log.Fatal(err)
		}
		if n, _ := outbox.Len(ctx); n == 0 {
			break
		}
	}
	// Output:
	// bob urgent
	// ann hello
	// cat bye
}

func ExampleMessage_AckWith() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	jobs := recipes.NewQueue[string](m, "/jobs")
	if err := jobs.Put(ctx, "job 1"); err != nil {
		log.Fatal(err)
	}
	msg, err := jobs.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	// The result is stored if and only if the job is acknowledged, whatever fails.
	if err := msg.AckWith(ctx, zk.OpCreate("/result", []byte("done"), zk.Persistent)); err != nil {
		log.Fatal(err)
	}
	data, _, err := msg.Session().Get(ctx, "/result")
	_, left, _ := jobs.TryTake(ctx)
	fmt.Println(string(data), err, left)
	// Output: done <nil> false
}
