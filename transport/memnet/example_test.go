// SPDX-License-Identifier: Apache-2.0

package memnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"syscall"
	"time"

	"github.com/seed-541fafe0/zk/transport/memnet"
)

func Example() {
	n := memnet.New(1)
	a, b := n.Host("a"), n.Host("b")
	defer a.Close()

	out, err := a.Dial(context.Background(), "b")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(out, "hello")
	out.Close()

	in, err := b.Accept()
	if err != nil {
		log.Fatal(err)
	}
	heard, err := io.ReadAll(in)
	fmt.Println(string(heard), "from", in.RemoteAddr(), err)

	n.Crash("b")
	_, err = a.Dial(context.Background(), "b")
	fmt.Println(errors.Is(err, syscall.ECONNREFUSED))
	// Output:
	// hello from a <nil>
	// true
}

// A partition stalls bytes and dials, and loses nothing.
func ExampleNetwork_Partition() {
	n := memnet.New(1)
	a, b := n.Host("a"), n.Host("b")
	defer a.Close()
	defer b.Close()
	n.Partition([]string{"a"}, []string{"b"})

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := a.Dial(ctx, "b")
	fmt.Println(errors.Is(err, context.DeadlineExceeded))

	n.Heal()
	_, err = a.Dial(context.Background(), "b")
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}
