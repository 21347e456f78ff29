// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hasEnded checks that c's other end is gone.
func hasEnded(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second)) // refused if it has ended
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the stream is still open: %v", err)
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// echo answers every stream with what it says, and closes tr in the end.
func echo(t testing.TB, tr *Transport) *Transport {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := tr.Accept()
			if err != nil {
				if err != net.ErrClosed {
					t.Error(err)
				}
				return
			}
			all.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		must(t, tr.Close())
		all.Wait()
	})
	return tr
}

func newTCP(t testing.TB) *Transport {
	t.Helper()
	tr, err := TCP("127.0.0.1:0")
	must(t, err)
	return tr
}

// talk dials and checks that an echo comes back.
func talk(t testing.TB, from *Transport, addr string) net.Conn {
	t.Helper()
	c, err := from.Dial(t.Context(), addr)
	must(t, err)
	hears(t, c)
	return c
}

func hears(t testing.TB, c net.Conn) {
	t.Helper()
	_, err := c.Write([]byte("hello"))
	must(t, err)
	b := make([]byte, 5)
	_, err = io.ReadFull(c, b)
	must(t, err)
	if string(b) != "hello" {
		t.Fatalf("heard %q", b)
	}
}

func TestAddr(t *testing.T) {
	for addr, loopback := range map[string]bool{":0": true, "127.0.0.1:0": true, "0.0.0.0:0": false} {
		tr, err := TCP(addr)
		must(t, err)
		if got := tr.Addr(); strings.HasPrefix(got, "127.0.0.1:") != loopback || strings.HasSuffix(got, ":0") {
			t.Errorf("%s listens on %s", addr, got)
		}
		must(t, tr.Close())
	}
	if _, err := TCP("127.0.0.1"); err == nil {
		t.Error("an address without a port")
	}
	if _, err := TLS("127.0.0.1", newAuthority(t).config(t, "a")); err == nil || errors.Is(err, ErrConfig) {
		t.Errorf("an address without a port: %v", err)
	}
	taken := newTCP(t)
	defer taken.Close()
	if _, err := TCP(taken.Addr()); err == nil {
		t.Error("two listen on one port")
	}
}

func TestDial(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		a, b := newTCP(t), newTCP(t)
		defer a.Close()
		must(t, b.Close())
		if _, err := a.Dial(t.Context(), b.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
	t.Run("a context that has ended", func(t *testing.T) {
		a, b := newTCP(t), echo(t, newTCP(t))
		defer a.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Dial(ctx, b.Addr()); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		a, b := newTCP(t), echo(t, newTCP(t))
		defer a.Close()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				c, err := a.Dial(t.Context(), b.Addr())
				if err != nil {
					t.Error(err)
					return
				}
				hears(t, c)
				c.Close()
			})
		}
		all.Wait()
		if n := opened(a); n != 0 {
			t.Errorf("%d streams are still known", n)
		}
	})
}

// Windows numbers its socket errors otherwise.
func TestRefusal(t *testing.T) {
	err := error(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.Errno(10061)})
	if got := refusal("windows", err); !errors.Is(got, syscall.ECONNREFUSED) || !errors.Is(got, err) || got.Error() != err.Error() {
		t.Errorf("%v", got)
	}
	if got := refusal("windows", net.ErrClosed); got != net.ErrClosed {
		t.Errorf("%v", got)
	}
	if got := refusal("linux", err); got != err {
		t.Errorf("%v", got)
	}
}

func opened(t *Transport) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}

func TestClose(t *testing.T) {
	each := func(t *testing.T, test func(t *testing.T, a, b *Transport)) {
		t.Run("TCP", func(t *testing.T) { test(t, newTCP(t), newTCP(t)) })
		t.Run("TLS", func(t *testing.T) {
			ca := newAuthority(t)
			test(t, ca.transport(t, "a"), ca.transport(t, "b"))
		})
	}
	t.Run("ends accepted and dialled streams", func(t *testing.T) {
		each(t, func(t *testing.T, a, b *Transport) {
			echo(t, b)
			out := talk(t, a, b.Addr())
			echo(t, a)
			in := talk(t, b, a.Addr())
			must(t, a.Close())
			for _, c := range []net.Conn{out, in} {
				hasEnded(t, c)
			}
			if _, err := a.Dial(t.Context(), b.Addr()); err != net.ErrClosed {
				t.Errorf("a closed transport dials: %v", err)
			}
			for range 3 {
				if _, err := a.Accept(); err != net.ErrClosed {
					t.Errorf("a closed transport accepts: %v", err)
				}
			}
		})
	})
	t.Run("leaves no reader waiting", func(t *testing.T) {
		each(t, func(t *testing.T, a, b *Transport) {
			echo(t, b)
			c := talk(t, a, b.Addr())
			done := make(chan error)
			go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
			go func() { _, err := a.Accept(); done <- err }()
			must(t, a.Close())
			for range 2 {
				if err := <-done; err == nil {
					t.Error("no error")
				}
			}
		})
	})
	t.Run("many times at once", func(t *testing.T) {
		each(t, func(t *testing.T, a, b *Transport) {
			defer b.Close()
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					if err := a.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		})
	})
	t.Run("of a stream, twice", func(t *testing.T) {
		a, b := newTCP(t), echo(t, newTCP(t))
		defer a.Close()
		c := talk(t, a, b.Addr())
		must(t, c.Close())
		must(t, c.Close())
	})
}

// Dials that hang end with the transport.
func TestCloseEndsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := Wrap(newPipes(), func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		done := make(chan error)
		go func() { _, err := tr.Dial(context.Background(), "nowhere"); done <- err }()
		synctest.Wait()
		must(t, tr.Close())
		if err := <-done; err != net.ErrClosed {
			t.Error(err)
		}
	})
}

// A connection that comes when the transport is closed already is not forgotten.
func TestCloseBeforeDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, other := net.Pipe()
		goOn := make(chan struct{})
		tr := Wrap(newPipes(), func(context.Context, string) (net.Conn, error) {
			<-goOn
			return mine, nil
		})
		done := make(chan error)
		go func() { _, err := tr.Dial(context.Background(), "slow"); done <- err }()
		synctest.Wait()
		must(t, tr.Close())
		close(goOn)
		if err := <-done; err != net.ErrClosed {
			t.Error(err)
		}
		if _, err := other.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection was left open: %v", err)
		}
	})
}

func TestAcceptedAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	few := usual
	few.accepted = 3
	a, b := wrap(l, nil, few), newTCP(t)
	echo(t, a)
	defer b.Close()
	var open []net.Conn
	for range 3 {
		open = append(open, talk(t, b, a.Addr()))
	}
	more, err := b.Dial(t.Context(), a.Addr())
	must(t, err)
	hasEnded(t, more)
	// Those that were there first go on, and make room when they end. The other end sees that a moment later.
	for _, c := range open {
		hears(t, c)
	}
	must(t, open[0].Close())
	for {
		c, err := b.Dial(t.Context(), a.Addr())
		must(t, err)
		_, err = c.Write([]byte("x"))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		c.Close()
		if err == nil {
			break
		}
	}
}

func TestWrap(t *testing.T) {
	t.Run("dials as it is told", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		var dialled []string
		w := echo(t, Wrap(l, func(ctx context.Context, addr string) (net.Conn, error) {
			dialled = append(dialled, addr)
			return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		}))
		c := talk(t, w, "somewhere")
		if fmt.Sprint(dialled) != "[somewhere]" {
			t.Errorf("dialled %q", dialled)
		}
		must(t, w.Close())
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the stream outlived its transport")
		}
	})
	t.Run("whose listener is closed already", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		w := Wrap(l, nil)
		must(t, l.Close())
		if _, err := w.Accept(); err == nil {
			t.Error("accepted")
		}
		must(t, w.Close())
	})
}

// An error of the listener is Accept's to return, and not the end.
func TestAcceptGoesOn(t *testing.T) {
	ca := newAuthority(t)
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				tr := Wrap(p, p.dial)
				if secure {
					server, client, err := bothRoles(ca.config(t, "a"))
					must(t, err)
					tr.secure(server, client)
				}
				p.errs <- syscall.EMFILE
				for range 2 {
					if _, err := tr.Accept(); err != syscall.EMFILE {
						t.Error(err)
					}
					p.errs <- syscall.EMFILE
				}
				if _, err := tr.Accept(); err != syscall.EMFILE {
					t.Error(err)
				}
				echo(t, tr)
				talk(t, tr, "itself")
			})
		})
	}
}

// pipes is a listener in memory that can be told to fail.
type pipes struct {
	conns chan net.Conn
	errs  chan error
	stop  chan struct{}
	once  sync.Once
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), errs: make(chan error, 1), stop: make(chan struct{})}
}

func (p *pipes) dial(ctx context.Context, _ string) (net.Conn, error) {
	mine, other := net.Pipe()
	select {
	case p.conns <- other:
		return mine, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errs:
		return nil, err
	case <-p.stop:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.stop) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
