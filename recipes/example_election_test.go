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

// Run does a job on one process at a time: lead is called where this process is elected, with a context that ends with
// the leadership.
func ExampleElection_Run() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{}) // volatile, an ensemble of one
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	enough := errors.New("enough")
	scheduler := recipes.NewElection(m, "/app/scheduler")
	err = scheduler.Run(ctx, []byte("host-1:8080"), func(ctx context.Context, l *recipes.Leadership) error {
		who, err := scheduler.Leader(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s leads\n", who.Value)
		// What is written under the guard is written by the leader, or not at all.
		s := l.Session()
		if _, err := s.Txn(ctx, l.Guard(), zk.OpCreate("/app/schedule", nil, zk.Persistent)); err != nil {
			return err
		}
		return enough // nil, or the loss of the leadership, would mean to campaign again
	})
	fmt.Println(err)

	// Output:
	// host-1:8080 leads
	// enough
}

// Campaign returns the leadership itself, for programs that are not made of one function.
func ExampleElection_Campaign() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	election := recipes.NewElection(m, "/app/leader")
	l, err := election.Campaign(ctx, []byte("starting"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("leads:", l.Valid())
	if err := l.Proclaim(ctx, []byte("ready")); err != nil {
		log.Fatal(err)
	}
	who, err := election.Leader(ctx)
	fmt.Printf("%s %v\n", who.Value, err)
	if err := l.Resign(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = election.Leader(ctx)
	fmt.Println(err)

	// Output:
	// leads: true
	// ready <nil>
	// recipes: nobody leads
}

// Observe tells any process who leads, so that it can send its requests there.
func ExampleElection_Observe() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	election := recipes.NewElection(m, "/app/leader")
	var l *recipes.Leadership
	for leader, err := range election.Observe(ctx) {
		switch {
		case err != nil:
			log.Fatal(err)
		case leader.Token == 0 && l == nil:
			fmt.Println("nobody leads")
			if l, err = election.Campaign(ctx, []byte("host-1:8080")); err != nil {
				log.Fatal(err)
			}
		case leader.Token != 0:
			fmt.Printf("%s leads\n", leader.Value)
			if err := l.Resign(ctx); err != nil {
				log.Fatal(err)
			}
		default:
			fmt.Println("nobody leads any more")
			return
		}
	}

	// Output:
	// nobody leads
	// host-1:8080 leads
	// nobody leads any more
}
