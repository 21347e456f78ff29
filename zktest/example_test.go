// SPDX-License-Identifier: Apache-2.0

package zktest_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Three members in one process, one of which crashes. In a testing/synctest bubble the election takes no time at all.
func Example() {
	ctx := context.Background()
	c, err := zktest.Open(ctx, 3, zktest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	leader, err := c.Leader(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Crash(leader); err != nil {
		log.Fatal(err)
	}
	s, err := c.Member((leader + 1) % 3).Session(ctx)
	if err != nil {
		log.Fatal(err)
	}
	z, err := s.Create(ctx, "/survived", nil, zk.Persistent)
	fmt.Println(z.Path, err)
	fmt.Println(c.Restart(ctx, leader))
	// Output:
	// /survived <nil>
	// <nil>
}
