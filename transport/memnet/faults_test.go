// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// All that stalls a link both ways stalls it in the same way.
func TestStalls(t *testing.T) {
	type fault struct{ begin, end func(n *Network) }
	heal := (*Network).Heal
	for name, f := range map[string]fault{
		"partition":            {func(n *Network) { n.Partition([]string{"a"}, []string{"b", "c"}) }, heal},
		"partition, unlisted":  {func(n *Network) { n.Partition([]string{"a", "c"}) }, heal},
		"partition that ends":  {func(n *Network) { n.Partition([]string{"a"}) }, func(n *Network) { n.Partition() }},
		"isolation":            {func(n *Network) { n.Isolate("b") }, heal},
		"stall":                {func(n *Network) { n.Stall("b", "a") }, heal},
		"two cuts":             {func(n *Network) { n.Cut("b", "a"); n.Cut("a", "b") }, heal},
		"hold":                 {func(n *Network) { n.Hold("b") }, func(n *Network) { n.Release("b") }},
		"hold at the far end":  {func(n *Network) { n.Hold("a") }, func(n *Network) { n.Release("a") }},
		"a partition replaced": {func(n *Network) { n.Partition([]string{"a", "b"}); n.Partition([]string{"a"}) }, heal},
	} {
		bubble(t, name, func(t *testing.T, n *Network) {
			a, b := pair(t, n)
			send(t, a, "under way ")
			f.begin(n)
			send(t, a, "and held")
			silent(t, b)
			send(t, b, "held, too")
			silent(t, a)
			hangs(t, n, "a", "b")
			hangs(t, n, "b", "a")
			dialling := background(func() error { _, err := n.Host("a").Dial(t.Context(), "b"); return err })
			waits(t, dialling)
			f.end(n)
			receive(t, b, "under way and held")
			receive(t, a, "held, too")
			must(t, <-dialling)
		})
		bubble(t, name+", and its news", func(t *testing.T, n *Network) {
			// That an end was closed crosses a stall no sooner than bytes do.
			a, b := pair(t, n)
			f.begin(n)
			send(t, a, "last words")
			must(t, a.Close())
			silent(t, b)
			send(t, b, "not known yet")
			writing := background(func() error { _, err := b.Write(make([]byte, window)); return err })
			waits(t, writing)
			f.end(n)
			if err := <-writing; !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
			receive(t, b, "last words")
			reads(t, b, io.EOF)
		})
	}
	bubble(t, "others are not concerned", func(t *testing.T, n *Network) {
		n.Partition([]string{"a"}, []string{"b", "c"})
		n.Isolate("d")
		n.Stall("c", "e")
		for _, ends := range [][2]string{{"b", "c"}, {"e", "f"}, {"a", "a"}, {"d", "d"}} {
			x, y := join(t, n, ends[0], ends[1])
			send(t, x, "hello")
			receive(t, y, "hello")
		}
		for _, ends := range [][2]string{{"a", "c"}, {"d", "e"}, {"c", "e"}, {"a", "f"}} {
			hangs(t, n, ends[0], ends[1])
		}
	})
	bubble(t, "a writer waits when its window is full", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Stall("a", "b")
		big := strings.Repeat("x", 2*window)
		writing := background(func() error { _, err := io.WriteString(a, big); return err })
		waits(t, writing)
		n.Heal()
		receive(t, b, big)
		must(t, <-writing)
	})
	bubble(t, "a dial ends with its context, or its host", func(t *testing.T, n *Network) {
		n.Isolate("b")
		ctx, cancel := context.WithCancel(t.Context())
		h := n.Host("a")
		n.Host("b")
		first := background(func() error { _, err := h.Dial(ctx, "b"); return err })
		second := background(func() error { _, err := h.Dial(t.Context(), "b"); return err })
		waits(t, first)
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		waits(t, second)
		must(t, h.Close())
		if err := <-second; err != net.ErrClosed {
			t.Error(err)
		}
	})
	bubble(t, "a context that has ended", func(t *testing.T, n *Network) {
		n.Host("b")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := n.Host("a").Dial(ctx, "b"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	bubble(t, "a dial that hangs is refused when its host is gone", func(t *testing.T, n *Network) {
		n.Isolate("b")
		dialling := background(func() error { _, err := n.Host("a").Dial(t.Context(), "b"); return err })
		waits(t, dialling)
		n.Heal()
		if err := <-dialling; !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}

func TestCut(t *testing.T) {
	bubble(t, "is one way", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Cut("a", "b")
		send(t, b, "flows")
		receive(t, a, "flows")
		send(t, a, "held")
		silent(t, b)
		hangs(t, n, "a", "b")
		hangs(t, n, "b", "a")
		n.Heal()
		receive(t, b, "held")
	})
	bubble(t, "closing behind it", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Cut("a", "b")
		must(t, b.Close()) // this way is free
		reads(t, a, io.EOF)
		writes(t, a, syscall.ECONNRESET)
	})
}

func TestHold(t *testing.T) {
	bubble(t, "outlasts Heal", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Hold("b")
		send(t, a, "held")
		n.Heal()
		silent(t, b)
		n.Release("a") // is not held
		silent(t, b)
		n.Release("b")
		receive(t, b, "held")
	})
	bubble(t, "holds a host's own streams", func(t *testing.T, n *Network) {
		a, b := join(t, n, "a", "a")
		n.Hold("a")
		send(t, a, "held")
		silent(t, b)
		n.Release("a")
		receive(t, b, "held")
	})
	bubble(t, "outlasts a crash", func(t *testing.T, n *Network) {
		n.Host("b")
		n.Hold("b")
		n.Crash("b")
		n.Host("b")
		hangs(t, n, "a", "b")
		n.Release("b")
		pair(t, n)
	})
}

func TestDelay(t *testing.T) {
	// arrival sends a byte and returns how long it took.
	arrival := func(t *testing.T, from, to net.Conn) time.Duration {
		t.Helper()
		began := time.Now()
		send(t, from, "x")
		receive(t, to, "x")
		return time.Since(began)
	}
	bubble(t, "of all links", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Latency(10*time.Millisecond, 50*time.Millisecond)
		seen := map[time.Duration]bool{}
		for range 100 {
			d := arrival(t, a, b)
			if d < 10*time.Millisecond || d > 50*time.Millisecond {
				t.Errorf("it took %v", d)
			}
			seen[d] = true
		}
		if len(seen) < 50 {
			t.Errorf("%d different delays", len(seen))
		}
	})
	bubble(t, "that is fixed", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		for _, max := range []time.Duration{time.Second, 0} {
			n.Latency(time.Second, max)
			if d := arrival(t, b, a); d != time.Second {
				t.Errorf("it took %v", d)
			}
		}
	})
	bubble(t, "of one link, both ways", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		c, d := join(t, n, "a", "c")
		n.Latency(time.Millisecond, time.Millisecond)
		n.Slow("b", "a", time.Second)
		if x, y := arrival(t, a, b), arrival(t, b, a); x != time.Second+time.Millisecond || y != x {
			t.Errorf("it took %v, %v", x, y)
		}
		if x := arrival(t, c, d); x != time.Millisecond {
			t.Errorf("another link took %v", x)
		}
		n.Slow("a", "b", 0)
		if x := arrival(t, a, b); x != time.Millisecond {
			t.Errorf("it took %v", x)
		}
		n.Slow("a", "b", time.Second)
		n.Heal() // of the slow link: the latency is no fault
		if x := arrival(t, a, b); x != time.Millisecond {
			t.Errorf("it took %v", x)
		}
		n.Latency(0, 0)
		if x := arrival(t, a, b); x != 0 {
			t.Errorf("it took %v", x)
		}
	})
	bubble(t, "keeps order", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Latency(0, time.Second)
		want := ""
		for i := range 200 {
			s := strings.Repeat(string(rune('a'+i%26)), i)
			send(t, a, s)
			want += s
		}
		n.Latency(0, 0) // what is sent now does not overtake
		send(t, a, "!")
		receive(t, b, want+"!")
	})
	bubble(t, "is for bytes, not for each other", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Latency(time.Second, time.Second)
		began := time.Now()
		for range 100 {
			send(t, a, "x")
		}
		receive(t, b, strings.Repeat("x", 100))
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
	bubble(t, "of the news that an end was closed", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Latency(time.Second, time.Second)
		began := time.Now()
		must(t, a.Close())
		send(t, b, "not known yet")
		reads(t, b, io.EOF)
		writes(t, b, syscall.ECONNRESET)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
	bubble(t, "of the news to who waits for room", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Latency(time.Second, time.Second)
		began := time.Now()
		writing := background(func() error { _, err := a.Write(make([]byte, 2*window)); return err })
		waits(t, writing)
		must(t, b.Close())
		if err := <-writing; !errors.Is(err, syscall.ECONNRESET) || time.Since(began) != time.Second {
			t.Error(err, time.Since(began))
		}
	})
	bubble(t, "goes on during a stall", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Latency(time.Second, time.Second)
		send(t, a, "x")
		n.Stall("a", "b")
		silent(t, b)
		began := time.Now()
		n.Heal()
		receive(t, b, "x")
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
	bubble(t, "and a deadline before it", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Latency(time.Second, time.Second)
		began := time.Now()
		send(t, a, "x")
		must(t, b.SetReadDeadline(began.Add(time.Millisecond)))
		_, err := b.Read(make([]byte, 1))
		timedOut(t, err)
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("it took %v", took)
		}
		must(t, b.SetReadDeadline(time.Time{}))
		receive(t, b, "x")
	})
}

func TestReset(t *testing.T) {
	for _, hosts := range [][2]string{{"a", "b"}, {"b", "a"}} {
		bubble(t, hosts[0]+" and "+hosts[1], func(t *testing.T, n *Network) {
			a, b := pair(t, n)
			c, d := join(t, n, "a", "c")
			n.Stall("a", "b") // a reset is there at once all the same
			send(t, a, "lost")
			reading := background(func() error { _, err := b.Read(make([]byte, 1)); return err })
			writing := background(func() error { _, err := b.Write(make([]byte, 2*window)); return err })
			synctest.Wait()
			n.Reset(hosts[0], hosts[1])
			for _, done := range []<-chan error{reading, writing} {
				if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
					t.Error(err)
				}
			}
			for _, end := range []net.Conn{a, b} {
				reads(t, end, syscall.ECONNRESET)
				writes(t, end, syscall.ECONNRESET)
			}
			send(t, c, "others go on")
			receive(t, d, "others go on")
			n.Heal()
			a, b = pair(t, n)
			send(t, a, "again")
			receive(t, b, "again")
			must(t, a.Close())
			reads(t, a, net.ErrClosed)
		})
	}
	bubble(t, "after one end was closed", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Stall("a", "b")
		send(t, a, "lost")
		must(t, a.Close())
		n.Reset("a", "b")
		reads(t, b, syscall.ECONNRESET)
		reads(t, a, net.ErrClosed)
	})
	bubble(t, "of nobody", func(t *testing.T, n *Network) { n.Reset("a", "b") })
}

func TestCrash(t *testing.T) {
	bubble(t, "breaks all streams", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		d, c := join(t, n, "b", "c")
		untaken, err := n.Host("a").Dial(t.Context(), "b")
		must(t, err)
		send(t, b, "lost")
		n.Isolate("a") // a reset is there at once all the same
		h := n.Host("b")
		n.Crash("b")
		for _, end := range []net.Conn{a, b, c, d, untaken} {
			reads(t, end, syscall.ECONNRESET)
			writes(t, end, syscall.ECONNRESET)
		}
		if _, err := h.Accept(); err != net.ErrClosed {
			t.Error(err)
		}
		if _, err := h.Dial(t.Context(), "c"); err != net.ErrClosed {
			t.Error(err)
		}
		must(t, h.Close())
		n.Crash("b") // is gone already
	})
	bubble(t, "refuses until it is back", func(t *testing.T, n *Network) {
		pair(t, n)
		n.Crash("b")
		refused(t, n, "a", "b")
		a, b := pair(t, n)
		send(t, a, "again")
		receive(t, b, "again")
	})
	bubble(t, "ends who waits", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		h := n.Host("b")
		reading := background(func() error { _, err := a.Read(make([]byte, 1)); return err })
		accepting := background(func() error { _, err := h.Accept(); return err })
		waits(t, reading)
		waits(t, accepting)
		n.Crash("b")
		if err := <-reading; !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if err := <-accepting; err != net.ErrClosed {
			t.Error(err)
		}
		must(t, b.Close())
		reads(t, b, net.ErrClosed)
	})
	bubble(t, "leaves what was closed before in good order", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		send(t, b, "last words")
		must(t, b.Close())
		n.Crash("b")
		receive(t, a, "last words")
		reads(t, a, io.EOF)
	})
}

func TestDrop(t *testing.T) {
	bubble(t, "is silence until Heal", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		send(t, a, "before")
		n.Drop(1)
		send(t, a, "lost")
		n.Drop(0)
		send(t, a, "after")
		silent(t, b)
		send(t, b, "the other way")
		receive(t, a, "the other way")
		n.Heal()
		for _, end := range []net.Conn{a, b} {
			reads(t, end, syscall.ECONNRESET)
			writes(t, end, syscall.ECONNRESET)
		}
	})
	bubble(t, "hides that an end was closed", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Drop(1)
		send(t, a, "lost")
		must(t, a.Close())
		silent(t, b)
		n.Heal()
		reads(t, b, syscall.ECONNRESET)
	})
	bubble(t, "fills the window", func(t *testing.T, n *Network) {
		a, _ := pair(t, n)
		n.Drop(1)
		writing := background(func() error { _, err := a.Write(make([]byte, 2*window)); return err })
		waits(t, writing)
		n.Heal()
		if err := <-writing; !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
	bubble(t, "loses dials", func(t *testing.T, n *Network) {
		n.Host("b")
		n.Drop(1)
		dialling := background(func() error { _, err := n.Host("a").Dial(t.Context(), "b"); return err })
		waits(t, dialling)
		n.Drop(0)
		n.Slow("a", "c", 1) // a lost one is lost, whatever comes
		waits(t, dialling)
		pair(t, n)
		n.Heal()
		must(t, <-dialling)
	})
	bubble(t, "leaves the others alone", func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Drop(1)
		n.Heal()
		send(t, a, "hello")
		receive(t, b, "hello")
	})
}

// fates tells of streams from a to b how many chunks each delivers, and when.
func fates(t *testing.T, seed uint64, streams int, disturb bool) []string {
	t.Helper()
	var list []string
	synctest.Test(t, func(t *testing.T) {
		n := New(seed)
		n.Host("b")
		n.Latency(0, time.Second)
		for range streams {
			a, b := pair(t, n)
			if disturb {
				x, _ := join(t, n, "c", "b")
				send(t, x, "x")
			}
			n.Drop(0.1)
			began := time.Now()
			var fate strings.Builder
			for {
				send(t, a, "x")
				must(t, b.SetReadDeadline(time.Now().Add(time.Minute)))
				if _, err := b.Read(make([]byte, 1)); err != nil {
					break
				}
				fate.WriteString(time.Since(began).String() + " ")
			}
			n.Drop(0)
			list = append(list, fate.String())
		}
	})
	return list
}

func TestSeed(t *testing.T) {
	first := fates(t, 7, 20, false)
	for name, again := range map[string][]string{"again": fates(t, 7, 20, false), "among others": fates(t, 7, 20, true)} {
		for i := range first {
			if first[i] != again[i] {
				t.Errorf("%s: stream %d: %q, then %q", name, i, first[i], again[i])
			}
		}
	}
	other, same := fates(t, 8, 20, false), 0
	chunks := 0
	for i := range first {
		if first[i] == other[i] {
			same++
		}
		chunks += strings.Count(first[i], " ")
	}
	// Streams whose first chunk is lost are alike.
	if same > 10 {
		t.Errorf("%d of 20 streams are the same under another seed", same)
	}
	if chunks < 60 || chunks > 500 {
		t.Errorf("one of ten is lost, and %d chunks were delivered before 20 losses", chunks)
	}
}
