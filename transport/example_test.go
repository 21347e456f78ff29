// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/seed-541fafe0/zk/transport"
)

func Example() {
	a, err := transport.TCP(":0") // any port, loopback alone
	if err != nil {
		log.Fatal(err)
	}
	b, err := transport.TCP(":0")
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	out, err := b.Dial(context.Background(), a.Addr())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(out, "hello")
	out.Close()

	in, err := a.Accept()
	if err != nil {
		log.Fatal(err)
	}
	heard, err := io.ReadAll(in)
	fmt.Println(string(heard), err)

	a.Close()
	_, err = a.Accept()
	fmt.Println(err == net.ErrClosed)
	// Output:
	// hello <nil>
	// true
}

// A port that the program has already carries streams as well.
func ExampleWrap() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	tr := transport.Wrap(l, nil)
	fmt.Println(tr.Addr() == l.Addr().String())
	fmt.Println(tr.Close())
	// Output:
	// true
	// <nil>
}

// A configuration that would leave one end unauthenticated is refused.
func ExampleTLS() {
	_, err := transport.TLS(":0", &tls.Config{Certificates: []tls.Certificate{{}}})
	fmt.Println(errors.Is(err, transport.ErrConfig))
	fmt.Println(err)
	// Output:
	// true
	// transport: TLS configuration has neither RootCAs nor ClientCAs
}
