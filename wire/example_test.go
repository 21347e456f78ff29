// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/wire"
)

// A member that any ZooKeeper client can use.
func ExampleServer() {
	ctx := context.Background()
	member, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer member.Close()

	port, err := net.Listen("tcp", "127.0.0.1:0") // usually :2181
	if err != nil {
		log.Fatal(err)
	}
	server := &wire.Server{Member: member}
	ended := make(chan error)
	go func() { ended <- server.Serve(port) }()

	client, err := wire.Dial(ctx, wire.ClientConfig{Servers: []string{port.Addr().String()}})
	if err != nil {
		log.Fatal(err)
	}
	z, err := client.Create(ctx, "/hello", []byte("from the port"), zk.Persistent)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(z.Path, z.Data)
	client.Close()

	server.Shutdown(ctx)
	fmt.Println(errors.Is(<-ended, wire.ErrServerClosed))
	// Output:
	// /hello from the port
	// true
}
