// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/wire"
)

// A member with a port, and a client of it that watches while another one writes.
func ExampleDial() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	s := &wire.Server{Member: m}
	go s.Serve(l)
	defer s.Close()
	if err := s.Ready(ctx); err != nil {
		log.Fatal(err)
	}

	c, err := wire.Dial(ctx, wire.ClientConfig{Servers: []string{l.Addr().String()}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	w, err := c.Watch(ctx, "/jobs", zk.WatchSubtree)
	if err != nil {
		log.Fatal(err)
	}
	results, err := c.Txn(ctx, wire.OpCreate("/jobs", nil, zk.Persistent), wire.OpCreate("/jobs/job-", []byte("sweep"), zk.Sequential))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(results[1].Path)
	fmt.Println((<-w.Events()).Path, (<-w.Events()).Path)
	_, _, err = c.Get(ctx, "/none")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// /jobs/job-0000000000
	// /jobs /jobs/job-0000000000
	// true
}
