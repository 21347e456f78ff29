// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The shape that the engine asks for.
var _ interface {
	Dial(ctx context.Context, addr string) (net.Conn, error)
	Accept() (net.Conn, error)
	Close() error
	Addr() string
} = (*Host)(nil)

// bubble runs a test on a network of its own, in virtual time.
func bubble(t *testing.T, name string, test func(t *testing.T, n *Network)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, New(1)) })
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// join makes a stream from one host to another, and returns both ends.
func join(t testing.TB, n *Network, from, to string) (a, b net.Conn) {
	t.Helper()
	n.Host(to)
	a, err := n.Host(from).Dial(t.Context(), to)
	must(t, err)
	b, err = n.Host(to).Accept()
	must(t, err)
	return a, b
}

func pair(t testing.TB, n *Network) (a, b net.Conn) {
	t.Helper()
	return join(t, n, "a", "b")
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	k, err := io.WriteString(c, s)
	if err != nil || k != len(s) {
		t.Fatalf("wrote %d of %d bytes, %v", k, len(s), err)
	}
}

func receive(t testing.TB, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if k, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b[:min(k, 100)], err, want[:min(len(want), 100)])
	}
}

// silent checks that nothing arrives for a virtual minute.
func silent(t testing.TB, c net.Conn) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	if k, err := c.Read(make([]byte, 1)); k != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d, %v; want silence", k, err)
	}
	must(t, c.SetReadDeadline(time.Time{}))
}

// reads checks what the next Read returns instead of bytes.
func reads(t testing.TB, c net.Conn, want error) {
	t.Helper()
	if k, err := c.Read(make([]byte, 1)); k != 0 || !errors.Is(err, want) {
		t.Errorf("read %d, %v; want %v", k, err, want)
	}
}

// writes checks that a Write fails.
func writes(t testing.TB, c net.Conn, want error) {
	t.Helper()
	if k, err := c.Write([]byte("x")); k != 0 || !errors.Is(err, want) {
		t.Errorf("wrote %d, %v; want %v", k, err, want)
	}
}

// background runs fn, and returns where its error will be.
func background(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// waits checks that what runs in the background, with all else, has got stuck.
func waits(t testing.TB, done <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
}

// dialError checks that a dial fails for want, after virtual time d.
func dialError(t testing.TB, n *Network, from, to string, d time.Duration, want error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	c, err := n.Host(from).Dial(ctx, to)
	if c != nil || !errors.Is(err, want) {
		t.Errorf("dialling %s: %v; want %v", to, err, want)
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Errorf("%T", err)
	}
	if took := time.Since(began); took != d {
		t.Errorf("it took %v, want %v", took, d)
	}
}

func refused(t testing.TB, n *Network, from, to string) {
	t.Helper()
	dialError(t, n, from, to, 0, syscall.ECONNREFUSED)
}

func hangs(t testing.TB, n *Network, from, to string) {
	t.Helper()
	dialError(t, n, from, to, time.Minute, context.DeadlineExceeded)
}
