// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// member starts a Net on h, for the tests below. Its id is its address.
func member(t *testing.T, h *hub, id string, change func(*Config)) (*Net, *port) {
	t.Helper()
	p := h.listen(id)
	cfg := Config{
		Transport: p,
		Local:     func() Identity { return Identity{Cluster: "c", ID: id, Storage: "s-" + id, Incarnation: 1, Addr: id} },
		Handle: func(_ context.Context, from Identity, kind byte, req []byte) []byte {
			return fmt.Appendf(nil, "%s to %s: %d %s", from.ID, id, kind, req)
		},
	}
	if change != nil {
		change(&cfg)
	}
	n := New(cfg)
	t.Cleanup(func() { n.Close() })
	return n, p
}

func announce(change func(*Identity)) func(*Config) {
	return func(c *Config) {
		id := c.Local()
		change(&id)
		c.Local = func() Identity { return id }
	}
}

func mustCall(t *testing.T, n *Net, id, want string) {
	t.Helper()
	got, err := n.Call(t.Context(), id, 7, []byte("x"))
	if err != nil || string(got) != want {
		t.Fatalf("call: %q, %v; want %q", got, err, want)
	}
}

func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, ap := member(t, h, "a", nil)
		member(t, h, "b", nil)
		for range 100 {
			mustCall(t, a, "b", "a to b: 7 x")
		}
		if d := ap.dials(); d != 1 {
			t.Errorf("%d dials for calls one after the other", d)
		}
		got, who, err := a.CallAddr(t.Context(), "b", 1, nil)
		if err != nil || string(got) != "a to b: 1 " || who.ID != "b" || who.Storage != "s-b" || who.Incarnation != 1 || who.Cluster != "c" || who.Addr != "b" {
			t.Errorf("CallAddr: %q, %+v, %v", got, who, err)
		}
		if who, err = a.Probe(t.Context(), "b"); err != nil || who.ID != "b" {
			t.Errorf("Probe: %+v, %v", who, err)
		}
		if _, err = a.Probe(t.Context(), "nobody"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Probe of nobody: %v", err)
		}
		if _, err = a.Call(t.Context(), "b", kindReserved, nil); err == nil {
			t.Error("called with a kind of raft's")
		}
		if _, err = a.Call(t.Context(), "b", 1, make([]byte, defaultMaxFrame+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too large a call: %v", err)
		}
	})
}

func TestLargeCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		member(t, h, "b", func(c *Config) {
			c.Handle = func(_ context.Context, _ Identity, _ byte, req []byte) []byte {
				return append(req, req[:len(req)/2]...)
			}
		})
		req := make([]byte, 2<<20+77)
		rand.Read(req)
		got, err := a.Call(t.Context(), "b", 0, req)
		if err != nil || !bytes.Equal(got[:len(req)], req) {
			t.Fatalf("%d bytes back, %v", len(got), err)
		}
		var remote *RemoteError
		if _, err = a.Call(t.Context(), "b", 0, make([]byte, 3<<20)); !errors.As(err, &remote) {
			t.Errorf("too large a response: %v", err)
		}
		if _, err = a.Call(t.Context(), "b", 0, req); err != nil {
			t.Errorf("call after that: %v", err)
		}
	})
}

func TestNoNetwork(t *testing.T) {
	n := New(Config{Local: func() Identity { return Identity{ID: "a"} }})
	if _, err := n.Call(t.Context(), "b", 1, nil); !errors.Is(err, ErrNoTransport) {
		t.Errorf("Call: %v", err)
	}
	if _, _, err := n.CallAddr(t.Context(), "b", 1, nil); !errors.Is(err, ErrNoTransport) {
		t.Errorf("CallAddr: %v", err)
	}
	if _, err := n.Probe(t.Context(), "b"); !errors.Is(err, ErrNoTransport) {
		t.Errorf("Probe: %v", err)
	}
	go func() {
		rpc := <-n.Raft().Consumer()
		rpc.Respond(&raft.TimeoutNowResponse{}, nil)
	}()
	if err := n.TimeoutNow(t.Context()); err != nil {
		t.Errorf("TimeoutNow: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := n.TimeoutNow(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("TimeoutNow that nobody hears: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := n.TimeoutNow(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("TimeoutNow after Close: %v", err)
	}
	if _, err := n.Call(t.Context(), "b", 1, nil); !errors.Is(err, ErrNoTransport) && !errors.Is(err, ErrClosed) {
		t.Errorf("Call after Close: %v", err)
	}
}

func TestPeerRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		b, _ := member(t, h, "b", nil)
		mustCall(t, a, "b", "a to b: 7 x")
		b.Close()
		if _, err := a.Call(t.Context(), "b", 7, nil); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("call while away: %v", err)
		}
		b, _ = member(t, h, "b", nil)
		mustCall(t, a, "b", "a to b: 7 x")
		b.Close()
		member(t, h, "b", announce(func(id *Identity) { id.Incarnation = 2 }))
		mustCall(t, a, "b", "a to b: 7 x") // on a stream of the former life, which is dead
		if who, err := a.Probe(t.Context(), "b"); err != nil || who.Incarnation != 2 {
			t.Errorf("Probe: %+v, %v", who, err)
		}
	})
}

func TestRefused(t *testing.T) {
	no := errors.New("not a friend")
	for _, c := range []struct {
		name   string
		a, b   func(*Config)
		addrOf string // where a finds b
		check  func(error) bool
	}{
		{"other cluster", nil, announce(func(id *Identity) { id.Cluster = "d" }), "b", func(err error) bool {
			var e *RefusedError
			return errors.As(err, &e) && e.ID == "b" && strings.Contains(e.Reason, `"c"`)
		}},
		{"by the other end", nil, func(c *Config) { c.Admit = func(Identity) error { return no } }, "b", func(err error) bool {
			var e *RefusedError
			return errors.As(err, &e) && e.Reason == no.Error()
		}},
		{"by this end", func(c *Config) {
			c.Admit = func(id Identity) error {
				if id.ID != "b" || id.Storage != "s-b" {
					return fmt.Errorf("wrong identity %+v", id)
				}
				return no
			}
		}, nil, "b", func(err error) bool { return errors.Is(err, no) }},
		{"another member there", func(c *Config) {
			c.Resolve = func(context.Context, string) (string, error) { return "b", nil }
		}, announce(func(id *Identity) { id.ID = "z" }), "b", func(err error) bool {
			var e *IdentityError
			return errors.As(err, &e) && e.Want == "b" && e.Claimed == "z"
		}},
		{"too long a name", announce(func(id *Identity) { id.Addr = strings.Repeat("x", 256) }), nil, "b", func(err error) bool { return err != nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				a, _ := member(t, h, "a", c.a)
				member(t, h, "b", func(cfg *Config) {
					cfg.Handle = func(context.Context, Identity, byte, []byte) []byte { t.Error("call arrived"); return nil }
					if c.b != nil {
						c.b(cfg)
					}
				})
				if _, err := a.Call(t.Context(), "b", 1, nil); !c.check(err) {
					t.Errorf("Call: %v", err)
				}
				if _, err := a.Probe(t.Context(), "b"); !c.check(err) {
					t.Errorf("Probe: %v", err)
				}
				if err := a.Raft().RequestVote("b", "b", vote("a"), new(raft.RequestVoteResponse)); !c.check(err) {
					t.Errorf("RequestVote: %v", err)
				}
			})
		})
	}
}

// A member that is refused still learns who it talked to.
func TestProbeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		member(t, h, "b", func(c *Config) { c.Admit = func(Identity) error { return errors.New("no") } })
		who, err := a.Probe(t.Context(), "b")
		var refused *RefusedError
		if !errors.As(err, &refused) || who.ID != "b" || who.Incarnation != 1 {
			t.Errorf("%+v, %v", who, err)
		}
	})
}

func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		var ended atomic.Int64
		member(t, h, "b", func(c *Config) {
			c.Handle = func(ctx context.Context, _ Identity, kind byte, _ []byte) []byte {
				if kind == 1 {
					<-ctx.Done()
					ended.Add(1)
				}
				return nil
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := a.Call(ctx, "b", 1, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call: %v", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		synctest.Wait()
		if ended.Load() != 1 {
			t.Error("the handler does not know that its caller has left")
		}
		if _, err := a.Call(t.Context(), "b", 2, nil); err != nil {
			t.Error(err)
		}
	})
}

// Many callers at once, of a member that is there and of one that is not, dial
// no more than they need, and never two at a time.
func TestNoStampede(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, ap := member(t, h, "a", nil)
		var now, most atomic.Int64
		member(t, h, "b", func(c *Config) {
			c.Handle = func(ctx context.Context, _ Identity, _ byte, req []byte) []byte {
				k := now.Add(1)
				most.Store(max(most.Load(), k))
				time.Sleep(time.Second)
				now.Add(-1)
				return req
			}
		})
		var wg sync.WaitGroup
		call := func(id string, ok bool) {
			for i := range 100 {
				wg.Go(func() {
					want := fmt.Append(nil, i)
					got, err := a.Call(t.Context(), id, 1, want)
					if ok != (err == nil) || ok && !bytes.Equal(got, want) {
						t.Errorf("call %d of %s: %q, %v", i, id, got, err)
					}
				})
			}
			wg.Wait()
		}
		start := time.Now()
		call("b", true)
		if d := ap.dials(); d > poolMax || most.Load() != poolMax {
			t.Errorf("%d dials, %d calls at once", d, most.Load())
		}
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("took %v", took)
		}
		before := ap.dials()
		h.isolate("nobody", true)
		start = time.Now()
		call("nobody", false)
		if d := ap.dials() - before; d != 1 {
			t.Errorf("%d dials of who does not answer", d)
		}
		if took := time.Since(start); took != openTimeout {
			t.Errorf("took %v", took)
		}
	})
}

func TestIdleStreamsArePruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, ap := member(t, h, "a", nil)
		b, _ := member(t, h, "b", func(c *Config) {
			c.Handle = func(context.Context, Identity, byte, []byte) []byte { time.Sleep(time.Second); return nil }
		})
		inbound := func() int {
			synctest.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.inbound
		}
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { a.Call(t.Context(), "b", 1, nil) })
		}
		wg.Wait()
		if k := inbound(); k != 5 {
			t.Errorf("%d streams", k)
		}
		time.Sleep(2 * outboundIdle)
		if k := inbound(); k != 1 {
			t.Errorf("%d streams after a while", k)
		}
		time.Sleep(inboundIdle)
		if k := inbound(); k != 0 {
			t.Errorf("%d streams after a long while", k)
		}
		before := ap.dials()
		if _, err := a.Call(t.Context(), "b", 1, nil); err != nil || ap.dials() != before+1 {
			t.Errorf("call after that: %v with %d dials", err, ap.dials()-before)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		b, _ := member(t, h, "b", func(c *Config) {
			c.Handle = func(ctx context.Context, _ Identity, _ byte, _ []byte) []byte { <-ctx.Done(); return nil }
		})
		h.isolate("z", true)
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if _, err := a.Call(t.Context(), []string{"b", "z"}[i%2], 1, nil); !errors.Is(err, ErrClosed) {
					t.Errorf("call: %v", err)
				}
			})
		}
		wg.Go(func() {
			if err := a.Raft().AppendEntries("b", "b", heartbeat("a"), new(raft.AppendEntriesResponse)); !errors.Is(err, ErrClosed) {
				t.Errorf("append: %v", err)
			}
		})
		synctest.Wait()
		start := time.Now()
		for range 3 {
			wg.Go(func() { a.Close() })
		}
		wg.Wait()
		b.Close()
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		if _, err := a.Call(t.Context(), "b", 1, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("call after Close: %v", err)
		}
	})
}

func TestStreamLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		var mu sync.Mutex
		var lost []string
		b, bp := member(t, h, "b", func(c *Config) {
			c.StreamLost = func(id string, incarnation uint64) {
				mu.Lock()
				defer mu.Unlock()
				lost = append(lost, fmt.Sprint(id, incarnation))
			}
		})
		check := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(lost, want) {
				t.Errorf("%s: lost %v, want %v", when, lost, want)
			}
			lost = nil
		}
		go func() {
			for rpc := range b.Raft().Consumer() {
				if rpc.Command == nil {
					return
				}
				time.Sleep(time.Second)
				rpc.Respond(&raft.AppendEntriesResponse{}, nil)
			}
		}()
		beat := func(n *Net, times int) {
			var wg sync.WaitGroup
			for range times {
				wg.Go(func() {
					if err := n.Raft().AppendEntries("b", "b", heartbeat("a"), new(raft.AppendEntriesResponse)); err != nil {
						t.Errorf("heartbeat: %v", err)
					}
				})
			}
			wg.Wait()
		}
		beat(a, 2)
		mustCall(t, a, "b", "a to b: 7 x")
		a.Probe(t.Context(), "b")
		time.Sleep(3 * outboundIdle) // all but one raft stream are closed
		check("idle")
		a.Close()
		check("closed", "a1")

		a, _ = member(t, h, "a", announce(func(id *Identity) { id.Incarnation = 2 }))
		mustCall(t, a, "b", "a to b: 7 x")
		bp.reset() // no raft stream among them
		check("calls reset")
		beat(a, 1)
		bp.reset()
		check("reset from our side", "a2")

		beat(a, 1)
		go a.Raft().AppendEntries("b", "b", heartbeat("a"), new(raft.AppendEntriesResponse))
		time.Sleep(time.Millisecond)
		start := time.Now()
		a.Close()
		check("closed while raft is at it", "a2")
		if time.Since(start) > 100*time.Millisecond {
			t.Error("seen only after the answer")
		}

		a, _ = member(t, h, "a", nil)
		beat(a, 1)
		time.Sleep(inboundIdle)
		check("idle, closed by us")
		beat(a, 1)
		b.Close()
		check("own Close")
		b.consumer <- raft.RPC{} // ends the goroutine above
	})
}

// Whatever arrives, it ends the stream it arrives on and nothing else.
func TestHostileBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		var lost atomic.Int64
		b, _ := member(t, h, "b", func(c *Config) { c.StreamLost = func(string, uint64) { lost.Add(1) } })
		raftGot := make(chan any, 1000)
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case rpc := <-b.Raft().Consumer():
					raftGot <- rpc.Command
					rpc.Respond(nil, errors.New("no"))
				case <-stop:
					return
				}
			}
		}()
		mustCall(t, a, "b", "a to b: 7 x")

		hello := func(class byte) []byte {
			p := sized([]byte{magic, version, class}, func(b []byte) []byte {
				return appendIdentity(b, Identity{Cluster: "c", ID: "m", Addr: "m"})
			})
			return append(p, 0)
		}
		frame := func(size uint32, kind byte, body string) []byte {
			return append(append(binary.BigEndian.AppendUint32(nil, size), kind), body...)
		}
		rnd := mrand.New(mrand.NewPCG(1, 2))
		noise := func(k int) []byte {
			p := make([]byte, k)
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			return p
		}
		cases := map[string][]byte{
			"nothing":              {},
			"http":                 []byte("GET / HTTP/1.1\r\n\r\n"),
			"tls":                  {0x16, 3, 1, 2, 0, 1, 0},
			"version":              {magic, 99, 1, 0, 0},
			"class":                {magic, version, 9, 0, 0},
			"long identity":        append([]byte{magic, version, 1, 0xff, 0xff}, noise(70000)...),
			"empty identity":       {magic, version, 1, 0, 0},
			"cut hello":            hello(classRaft)[:7],
			"huge frame":           append(hello(classCalls), frame(1<<32-1, 1, "")...),
			"huge raft frame":      append(hello(classRaft), frame(1<<32-1, kindAppendEntries, "")...),
			"large frame cut":      append(hello(classRaft), frame(maxRaftFrame, kindAppendEntries, strings.Repeat("x", 5000))...),
			"raft kind on calls":   append(hello(classCalls), frame(0, kindTimeoutNow, "")...),
			"call on raft":         append(hello(classRaft), frame(0, 1, "")...),
			"empty append":         append(hello(classRaft), frame(0, kindAppendEntries, "")...),
			"append cut in fields": append(hello(classRaft), frame(3, kindAppendEntries, "\x03\x01\x01")...),
			"huge snapshot config": append(hello(classRaft), frame(9, kindInstallSnapshot, "\x03\x01\x01\x01\x01\xff\xff\xff\x7f")...),
		}
		for i := range 200 {
			cases[fmt.Sprint("noise ", i)] = noise(rnd.IntN(200))
			cases[fmt.Sprint("noise after hello ", i)] = append(hello(byte(1+i%2)), noise(rnd.IntN(200))...)
			k := rnd.IntN(60)
			cases[fmt.Sprint("noise in frame ", i)] = append(append(hello(classRaft), frame(uint32(k), byte(kindAppendEntries+i%5), "")...), noise(k)...)
		}
		port := h.listen("m")
		defer port.Close()
		for name, in := range cases {
			conn, err := port.Dial(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, conn)
			conn.SetWriteDeadline(time.Now().Add(time.Second))
			conn.Write(in)
			conn.Close()
			synctest.Wait()
			if got, err := a.Call(t.Context(), "b", 7, []byte("x")); err != nil || string(got) != "a to b: 7 x" {
				t.Fatalf("call after %s: %q, %v", name, got, err)
			}
		}
		b.mu.Lock()
		if b.inbound != 1 || b.opening != 0 || len(b.perPeer) != 1 || len(b.raftIn) != 0 {
			t.Errorf("left over: %d, %d, %v, %v", b.inbound, b.opening, b.perPeer, b.raftIn)
		}
		b.mu.Unlock()
	})
}

// Who says nothing, or little by little, does not stay for ever.
func TestSlowStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		member(t, h, "b", nil)
		port := h.listen("m")
		defer port.Close()
		conn, err := port.Dial(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		if took := time.Since(start); took != openTimeout {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		b, _ := member(t, h, "b", nil)
		var open []*stream
		for range maxInboundPerPeer {
			s, _, err := a.open(t.Context(), classRaft, "b", "")
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, s)
		}
		var refused *RefusedError
		if _, err := a.Probe(t.Context(), "b"); !errors.As(err, &refused) {
			t.Errorf("one too many: %v", err)
		}
		c, _ := member(t, h, "c", nil)
		mustCall(t, c, "b", "c to b: 7 x")
		for _, s := range open {
			a.drop(s)
		}
		synctest.Wait()
		mustCall(t, a, "b", "a to b: 7 x")

		port := h.listen("m")
		defer port.Close()
		var silent []net.Conn
		for range maxOpening + 10 {
			conn, err := port.Dial(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, conn)
		}
		synctest.Wait()
		b.mu.Lock()
		if b.opening != maxOpening {
			t.Errorf("%d handshakes at once", b.opening)
		}
		b.mu.Unlock()
		mustCall(t, a, "b", "a to b: 7 x") // on its stream
		for _, conn := range silent {
			conn.Close()
		}
		synctest.Wait()
		if _, err := a.Probe(t.Context(), "b"); err != nil {
			t.Error(err)
		}
	})
}

func TestComplaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		c := complaints{log: slog.New(slog.NewTextHandler(&buf, nil)), about: make(map[party]*complaint)}
		lines := func() int { k := strings.Count(buf.String(), "\n"); buf.Reset(); return k }
		b := party{id: "b"}
		for range 600 { // of which one is told
			c.failed(slog.LevelWarn, b, "cannot reach peer", io.EOF)
			time.Sleep(time.Second)
		}
		if k := lines(); k != 1 {
			t.Errorf("%d lines of the same failure", k)
		}
		c.fine(b)
		c.fine(b)
		if k := lines(); k != 1 {
			t.Errorf("%d lines of a recovery", k)
		}
		for range 100 { // comes and goes in an instant
			c.failed(slog.LevelWarn, b, "cannot reach peer", io.EOF)
			c.fine(b)
		}
		if k := lines(); k > 2 {
			t.Errorf("%d lines of flapping", k)
		}
		for i := range 10 * complaintsMax {
			c.failed(slog.LevelWarn, party{id: fmt.Sprint(i)}, "x", io.EOF)
		}
		if k := len(c.about); k > complaintsMax {
			t.Errorf("remembers %d names", k)
		}
	})
}

// A clean life is silent.
func TestNothingToLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		log := func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelWarn}))
		}
		h := newHub()
		a, _ := member(t, h, "a", log)
		a.Call(t.Context(), "b", 7, nil) // not there yet
		b, _ := member(t, h, "b", log)
		mustCall(t, a, "b", "a to b: 7 x")
		mustCall(t, b, "a", "b to a: 7 x")
		time.Sleep(time.Hour)
		b.Close()
		a.Close()
		if buf.Len() > 0 {
			t.Error(buf.String())
		}
	})
}

// A transport that fails to accept now and then is asked again.
func TestAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		member(t, h, "b", func(c *Config) { c.Transport = &moody{Transport: c.Transport, fail: 5} })
		mustCall(t, a, "b", "a to b: 7 x")
	})
}

// moody fails to accept a few times.
type moody struct {
	Transport
	fail int
}

func (m *moody) Accept() (net.Conn, error) {
	if m.fail > 0 {
		m.fail--
		return nil, errors.New("too many open files")
	}
	return m.Transport.Accept()
}

func header(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)}
}

func heartbeat(id string) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: header(id), Term: 1}
}

func vote(id string) *raft.RequestVoteRequest {
	return &raft.RequestVoteRequest{RPCHeader: header(id), Term: 2}
}
