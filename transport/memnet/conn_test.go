// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// conformance is what every net.Conn must do, whatever lies between its ends.
var conformance = map[string]func(t *testing.T, a, b net.Conn){
	"bytes arrive as they were sent":       bytesArrive,
	"ping and pong":                        pingPong,
	"readers and writers may race":         races,
	"methods may be called all at once":    allAtOnce,
	"a reader's deadline":                  readDeadline,
	"a writer's deadline":                  writeDeadline,
	"a deadline that is past":              pastDeadline,
	"a deadline ends who waits already":    presentDeadline,
	"a deadline can be put off and lifted": laterDeadline,
	"close ends who waits":                 closeEnds,
	"after close":                          afterClose,
}

func TestConformance(t *testing.T) {
	networks := map[string]func(n *Network){
		"at once": func(*Network) {},
		"delayed": func(n *Network) { n.Latency(time.Millisecond, 20*time.Millisecond) },
	}
	ways := map[string]func(t *testing.T, n *Network) (a, b net.Conn){
		"dialled":  func(t *testing.T, n *Network) (a, b net.Conn) { return join(t, n, "a", "b") },
		"accepted": func(t *testing.T, n *Network) (a, b net.Conn) { b, a = join(t, n, "a", "b"); return a, b },
		"itself":   func(t *testing.T, n *Network) (a, b net.Conn) { return join(t, n, "a", "a") },
	}
	for network, shape := range networks {
		for way, connect := range ways {
			for what, test := range conformance {
				bubble(t, network+"/"+way+"/"+what, func(t *testing.T, n *Network) {
					shape(n)
					a, b := connect(t, n)
					test(t, a, b)
				})
			}
		}
	}
	t.Run("in real time", func(t *testing.T) {
		for what, test := range conformance {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				a, b := pair(t, New(1))
				test(t, a, b)
			})
		}
	})
}

// deadline is short enough for real time.
const deadline = 10 * time.Millisecond

func bytesArrive(t *testing.T, a, b net.Conn) {
	const size = 4 << 20
	sum := func(from io.Reader) uint32 {
		h := crc32.NewIEEE()
		if k, err := io.Copy(h, from); k != size || err != nil {
			t.Errorf("%d bytes, %v", k, err)
		}
		return h.Sum32()
	}
	var all sync.WaitGroup
	for i, ends := range [...][2]net.Conn{{a, b}, {b, a}} {
		data := make([]byte, size)
		chance := rand.NewChaCha8([32]byte{byte(i)})
		chance.Read(data)
		want := crc32.ChecksumIEEE(data)
		pieces := rand.New(rand.NewPCG(1, uint64(i)))
		all.Go(func() {
			for len(data) > 0 {
				k := min(len(data), 1+pieces.IntN(100_000))
				if n, err := ends[0].Write(data[:k]); n != k || err != nil {
					t.Error(n, err)
				}
				clear(data[:k]) // a writer's bytes are its own again
				data = data[k:]
			}
		})
		all.Go(func() {
			if got := sum(io.LimitReader(ends[1], size)); got != want {
				t.Errorf("checksum %x, want %x", got, want)
			}
		})
	}
	all.Wait()
}

func pingPong(t *testing.T, a, b net.Conn) {
	done := background(func() error {
		defer b.Close()
		_, err := io.CopyN(b, b, 100*8)
		return err
	})
	var ping, pong [8]byte
	for i := range 100 {
		ping[i%8]++
		if _, err := a.Write(ping[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a, pong[:]); err != nil || ping != pong {
			t.Fatalf("sent %v, got %v, %v", ping, pong, err)
		}
	}
	must(t, <-done)
	reads(t, a, io.EOF)
}

func races(t *testing.T, a, b net.Conn) {
	var all, echo sync.WaitGroup
	echo.Go(func() { io.Copy(b, b); b.Close() })
	var mu sync.Mutex
	var got []byte
	for range 8 {
		all.Go(func() {
			for range 50 {
				if _, err := a.Write([]byte("ab")); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			p := make([]byte, 100)
			for k := 0; k < len(p); {
				n, err := a.Read(p[k:])
				if err != nil {
					t.Error(err)
					return
				}
				k += n
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, p...)
		})
	}
	all.Wait()
	a.Close()
	echo.Wait()
	if bytes.Count(got, []byte("a")) != 400 || bytes.Count(got, []byte("b")) != 400 {
		t.Errorf("%q", got)
	}
}

func allAtOnce(t *testing.T, a, b net.Conn) {
	var all, echo sync.WaitGroup
	echo.Go(func() { io.Copy(b, b); b.Close() })
	for range 50 {
		for _, call := range [...]func(){
			func() { a.Read(make([]byte, 10)) },
			func() { a.Write(make([]byte, 10)) },
			func() { a.SetDeadline(time.Now().Add(deadline)) },
			func() { a.SetReadDeadline(time.Now().Add(deadline)) },
			func() { a.SetWriteDeadline(time.Now().Add(deadline)) },
			func() { _ = a.LocalAddr().String() + a.RemoteAddr().Network() },
		} {
			all.Go(call)
		}
	}
	all.Wait()
	a.Close()
	echo.Wait()
}

func timedOut(t testing.TB, err error) {
	t.Helper()
	ne, ok := errors.AsType[net.Error](err)
	if !ok || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v; want a timeout", err)
	}
}

func readDeadline(t *testing.T, a, b net.Conn) {
	must(t, a.SetReadDeadline(time.Now().Add(deadline)))
	for range 2 {
		k, err := a.Read(make([]byte, 10))
		if k != 0 {
			t.Errorf("%d bytes", k)
		}
		timedOut(t, err)
	}
	send(t, a, "writes go on")
	receive(t, b, "writes go on")
}

func writeDeadline(t *testing.T, a, b net.Conn) {
	var k int
	for d := deadline; k == 0; d *= 2 { // real time may be over before Write begins
		must(t, a.SetWriteDeadline(time.Now().Add(d)))
		var err error
		k, err = a.Write(make([]byte, 2*window))
		timedOut(t, err)
		if t.Failed() {
			return
		}
	}
	if k != window {
		t.Errorf("%d bytes fit", k)
	}
	send(t, b, "reads go on")
	receive(t, a, "reads go on")
}

func pastDeadline(t *testing.T, a, b net.Conn) {
	send(t, b, "there")
	for _, at := range []time.Time{time.Now(), time.Now().Add(-time.Hour), time.Unix(1, 0)} {
		must(t, a.SetDeadline(at))
		_, err := a.Write([]byte("x"))
		timedOut(t, err)
		_, err = a.Read(make([]byte, 1))
		timedOut(t, err)
	}
	must(t, a.SetDeadline(time.Time{}))
	receive(t, a, "there")
	send(t, a, "x")
}

func presentDeadline(t *testing.T, a, b net.Conn) {
	reading := background(func() error { _, err := a.Read(make([]byte, 1)); return err })
	writing := background(func() error { _, err := a.Write(make([]byte, 2*window)); return err })
	must(t, a.SetDeadline(time.Now().Add(deadline)))
	timedOut(t, <-reading)
	timedOut(t, <-writing)
}

func laterDeadline(t *testing.T, a, b net.Conn) {
	must(t, a.SetReadDeadline(time.Now().Add(deadline)))
	reading := background(func() error {
		_, err := a.Read(make([]byte, 1))
		return err
	})
	must(t, a.SetReadDeadline(time.Now().Add(time.Hour)))
	must(t, a.SetReadDeadline(time.Time{}))
	must(t, b.SetReadDeadline(time.Now().Add(2*deadline)))
	_, err := b.Read(make([]byte, 1)) // time passes
	timedOut(t, err)
	select {
	case err := <-reading:
		// Real time may have passed the first deadline before it was put off.
		timedOut(t, err)
		return
	default:
	}
	send(t, b, "x")
	must(t, <-reading)
}

func closeEnds(t *testing.T, a, b net.Conn) {
	reading := background(func() error { _, err := a.Read(make([]byte, 1)); return err })
	writing := background(func() error { _, err := a.Write(make([]byte, 2*window)); return err })
	must(t, a.Close())
	for _, done := range []<-chan error{reading, writing} {
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

func afterClose(t *testing.T, a, b net.Conn) {
	send(t, a, "last words")
	must(t, a.Close())
	must(t, a.Close())
	reads(t, a, net.ErrClosed)
	writes(t, a, net.ErrClosed)
	for _, set := range []func(time.Time) error{a.SetDeadline, a.SetReadDeadline, a.SetWriteDeadline} {
		if err := set(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	receive(t, b, "last words")
	reads(t, b, io.EOF)
	reads(t, b, io.EOF)
	if k, err := b.Write([]byte("anyone?")); k != 0 || err == nil {
		t.Errorf("wrote %d to a closed end, %v", k, err)
	}
	must(t, b.Close())
}

func TestStream(t *testing.T) {
	bubble(t, "addresses", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		if a.LocalAddr().String() != "a" || a.RemoteAddr().String() != "b" || a.LocalAddr().Network() != "mem" {
			t.Error(a.LocalAddr(), a.RemoteAddr())
		}
		if b.LocalAddr() != a.RemoteAddr() || b.RemoteAddr() != a.LocalAddr() {
			t.Error(b.LocalAddr(), b.RemoteAddr())
		}
	})
	bubble(t, "of no bytes", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		if k, err := a.Write(nil); k != 0 || err != nil {
			t.Error(k, err)
		}
		if k, err := b.Read(nil); k != 0 || err != nil {
			t.Error(k, err)
		}
	})
	bubble(t, "a writer waits for its reader", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		big := bytes.Repeat([]byte("0123456789"), 400_000)
		writing := background(func() error {
			defer a.Close()
			_, err := a.Write(big)
			return err
		})
		waits(t, writing)
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, big) {
			t.Error(len(got), err)
		}
		must(t, <-writing)
	})
	bubble(t, "a writer learns that its reader is gone", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		writing := background(func() error { _, err := a.Write(make([]byte, 2*window)); return err })
		waits(t, writing)
		must(t, b.Close())
		if err := <-writing; err == nil {
			t.Error("no error")
		}
	})
	bubble(t, "small writes cost little", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		for range 10_000 {
			send(t, a, "x")
		}
		if k := len(b.(*stream).in.chunks); k > 10 {
			t.Errorf("10,000 bytes are %d chunks", k)
		}
		receive(t, b, string(bytes.Repeat([]byte("x"), 10_000)))
	})
}

func TestHost(t *testing.T) {
	bubble(t, "is called as its address", func(t *testing.T, n *Network) {
		h := n.Host("a")
		if h.Addr() != "a" || n.Host("a") != h {
			t.Error(h.Addr())
		}
	})
	bubble(t, "nobody is there", func(t *testing.T, n *Network) {
		refused(t, n, "a", "nobody")
		must(t, n.Host("b").Close())
		refused(t, n, "a", "b")
	})
	bubble(t, "its backlog is full", func(t *testing.T, n *Network) {
		b := n.Host("b")
		for range backlog {
			_, err := n.Host("a").Dial(t.Context(), "b")
			must(t, err)
		}
		refused(t, n, "a", "b")
		_, err := b.Accept()
		must(t, err)
		_, err = n.Host("a").Dial(t.Context(), "b")
		must(t, err)
	})
	bubble(t, "accepts when someone comes", func(t *testing.T, n *Network) {
		b := n.Host("b")
		accepting := background(func() error { _, err := b.Accept(); return err })
		waits(t, accepting)
		_, err := n.Host("a").Dial(t.Context(), "b")
		must(t, err)
		must(t, <-accepting)
	})
	bubble(t, "closes in good order", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		untaken, err := n.Host("b").Dial(t.Context(), "a")
		must(t, err)
		send(t, a, "last words")
		h := n.Host("a")
		reading := background(func() error { _, err := a.Read(make([]byte, 1)); return err })
		accepting := background(func() error {
			for {
				if _, err := h.Accept(); err != nil {
					return err
				}
			}
		})
		synctest.Wait()
		must(t, h.Close())
		must(t, h.Close())
		for _, done := range []<-chan error{reading, accepting} {
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		if _, err := h.Accept(); err != net.ErrClosed {
			t.Error(err)
		}
		if _, err := h.Dial(t.Context(), "b"); err != net.ErrClosed {
			t.Error(err)
		}
		receive(t, b, "last words")
		reads(t, b, io.EOF)
		reads(t, untaken, io.EOF)
	})
	bubble(t, "comes back as a fresh one", func(t *testing.T, n *Network) {
		old := n.Host("a")
		must(t, old.Close())
		if n.Host("a") == old {
			t.Error("the same")
		}
		must(t, old.Close()) // the fresh one stays
		a, b := pair(t, n)
		send(t, a, "hello")
		receive(t, b, "hello")
	})
	// Whoever closes its hosts can leave the bubble, whatever faults there still are.
	bubble(t, "leaves no reader waiting", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		c, d := pair(t, n)
		n.Partition([]string{"a"}, []string{"b"})
		n.Hold("b")
		must(t, a.Close()) // b cannot know
		var readers []<-chan error
		for _, end := range []net.Conn{b, c, d} {
			readers = append(readers, background(func() error { _, err := end.Read(make([]byte, 1)); return err }))
		}
		dialling := background(func() error { _, err := n.Host("b").Dial(t.Context(), "a"); return err })
		for _, done := range append(readers, dialling) {
			waits(t, done)
		}
		for _, name := range []string{"a", "b"} {
			must(t, n.Host(name).Close())
		}
		for _, done := range append(readers, dialling) {
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	})
}
