// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/wire"
)

// text is a codec that stores strings as they are, as the program does.
type text struct{}

func (text) Encode(s string) ([]byte, error) { return []byte(s), nil }
func (text) Decode(b []byte) (string, error) { return string(b), nil }

// peer is a program that works on the same queues with another library.
type peer struct {
	t     *testing.T
	in    io.Writer
	lines chan string
	got   []string // messages that came before an answer
}

// run counts a part of a test in row.
func (p *peer) run(row tried, name string, f func(*testing.T)) {
	outer := p.t
	defer func() { p.t = outer }()
	row.run(name, func(t *testing.T) {
		p.t = t
		f(t)
	})
}

func (p *peer) line() string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatal("the program has ended")
		}
		return line
	case <-time.After(time.Minute):
		p.t.Fatal("the program says nothing")
	}
	return ""
}

// does makes the program do something and returns its answer.
func (p *peer) does(words ...any) string {
	p.t.Helper()
	fmt.Fprintln(p.in, words...)
	for {
		line := p.line()
		if message, ok := strings.CutPrefix(line, "got "); ok {
			p.got = append(p.got, message)
			continue
		}
		answer, ok := strings.CutPrefix(line, "done ")
		if !ok {
			p.t.Fatalf("%v: %s", words, line)
		}
		return answer
	}
}

// consumed returns the next n messages that the program has received.
func (p *peer) consumed(n int) (list []string) {
	p.t.Helper()
	for len(p.got) < n {
		p.got = append(p.got, strings.TrimPrefix(p.line(), "got "))
	}
	list, p.got = p.got[:n], p.got[n:]
	return list
}

// outlived returns once a znode with a time to live has been reaped that was written after the call began: what else is
// due by then, or is an empty container, has been looked at too.
func outlived(t *testing.T, ctx context.Context, m *zk.Member, ttl time.Duration) {
	t.Helper()
	s, err := m.Session(ctx)
	done(t, err)
	witness, err := s.Do(ctx, zk.OpCreate("/witness-", nil, zk.Persistent|zk.Sequential).WithTTL(ttl))
	done(t, err)
	eventually(t, func() error {
		if _, ok, err := s.Exists(ctx, witness.Path); ok || err != nil {
			return fmt.Errorf("the witness is still there, %v", err)
		}
		return nil
	})
}

// shared opens a member in this process, and starts a program that works with it through its port.
func shared(t *testing.T, cmd ...string) (context.Context, *zk.Member, *peer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute) // the program ends by itself
	t.Cleanup(cancel)
	m, err := zk.Open(ctx, zk.Config{ReapInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := &wire.Server{Member: m}
	go port.Serve(l)
	t.Cleanup(func() { port.Close() })

	program := exec.CommandContext(ctx, cmd[0], append(cmd[1:], l.Addr().String())...)
	stdin, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints safeBuffer
	program.Stderr = &complaints
	if err := start(program); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, in: stdin, lines: make(chan string, 1024)}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			p.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		for range p.lines { // until it has ended
		}
		if err := program.Wait(); err != nil || t.Failed() {
			t.Logf("the program: %v\n%s", err, complaints.String())
		}
	})
	return ctx, m, p
}

type receiver interface {
	Receive(context.Context) (*recipes.Message[string], error)
}

// receive receives and acknowledges n items.
func receive(t *testing.T, ctx context.Context, q receiver, n int) (list []string) {
	t.Helper()
	for range n {
		msg, err := q.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := msg.Ack(ctx); err != nil {
			t.Fatal(err)
		}
		list = append(list, msg.Value)
	}
	return list
}

func done(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// Curator's queues and ours on the same paths: what either puts the other receives, in all of Curator's variants.
func TestSharedQueuesCurator(t *testing.T) {
	path, version := curatorPath(t)
	ctx, m, p := shared(t, java(t, "QueuePeer", path, "java/QueuePeer.java")...)
	row := tried{t, newRow("queues, by priority, by time, by id and in shards, beside ours on the same paths")}
	row.row.client, row.row.version = "Curator", version
	queue := func(path string, layout recipes.Layout) *recipes.Queue[string] {
		return &recipes.Queue[string]{Session: m, Path: path, Layout: layout, Codec: text{}}
	}
	gone := func(t *testing.T, q *recipes.Queue[string]) {
		t.Helper()
		eventually(t, func() error {
			if n, err := q.Len(ctx); err != nil || n != 0 {
				return fmt.Errorf("%d entries are left, %v", n, err)
			}
			return nil
		})
	}

	p.run(row, "in_order", func(t *testing.T) {
		plain := queue("/plain", recipes.Curator)
		p.does("put", "/plain", "a")
		p.does("put", "/plain", "b", "c", "d")
		p.does("put", "/plain", "e")
		same(t, "Curator's items", receive(t, ctx, plain, 5), "a", "b", "c", "d", "e")
		outlived(t, ctx, m, time.Millisecond) // the queue is empty, and reaped if it could be
		p.does("consume", "/plain")
		done(t, plain.Put(ctx, "1"), plain.PutAll(ctx, "2", "3"))
		same(t, "ours", p.consumed(3), "1", "2", "3")
		gone(t, plain)
	})

	p.run(row, "by_priority", func(t *testing.T) {
		prio := queue("/prio", recipes.Curator)
		for _, item := range [][2]any{{7, "seven"}, {-5, "minus five"}, {0, "zero"}, {-2147483648, "least"}, {2147483647, "most"}} {
			p.does("priority", "/prio", item[0], strings.ReplaceAll(item[1].(string), " ", "-"))
		}
		same(t, "Curator's priorities", receive(t, ctx, prio, 5), "least", "minus-five", "zero", "seven", "most")
		done(t, prio.PutPriority(ctx, "late", 900), prio.PutPriority(ctx, "early", 3), prio.PutPriority(ctx, "next", 3))
		p.does("consume-priority", "/prio")
		same(t, "our priorities", p.consumed(3), "early", "next", "late")
		gone(t, prio)
	})

	p.run(row, "by_time", func(t *testing.T) {
		later := queue("/later", recipes.CuratorDelay)
		now := time.Now()
		p.does("delay", "/later", now.Add(1500*time.Millisecond).UnixMilli(), "second")
		p.does("delay", "/later", 1, "first")
		if got := receive(t, ctx, later, 1); got[0] != "first" {
			t.Errorf("%q is due", got)
		}
		same(t, "when it is due", receive(t, ctx, later, 1), "second")
		if took := time.Since(now); took < 1500*time.Millisecond {
			t.Errorf("received after %v", took)
		}
		now = time.Now()
		done(t, later.PutAfter(ctx, "y", 1500*time.Millisecond), later.PutAfter(ctx, "x", 700*time.Millisecond))
		p.does("consume-delay", "/later")
		same(t, "ours, when they are due", p.consumed(2), "x", "y")
		if took := time.Since(now); took < 1500*time.Millisecond {
			t.Errorf("received after %v", took)
		}
		gone(t, later)
	})

	p.run(row, "by_id", func(t *testing.T) {
		ids := queue("/ids", recipes.Curator)
		p.does("id", "/ids", "49123456789", "one")
		p.does("id", "/ids", "x/y", "two")
		p.does("id", "/ids", "zebra", "three")
		p.does("id", "/ids", "ant", "four")
		if n, err := ids.Remove(ctx, "zebra"); n != 1 || err != nil {
			t.Errorf("%d removed, %v", n, err)
		}
		if n, err := ids.Remove(ctx, "x/y"); n != 1 || err != nil {
			t.Errorf("%d removed, %v", n, err)
		}
		same(t, "Curator's ids", receive(t, ctx, ids, 2), "one", "four")
		done(t, ids.PutID(ctx, "five", "b"), ids.PutID(ctx, "six", "a"), ids.PutID(ctx, "seven", "b"))
		if n := p.does("remove", "/ids", "b"); n != "2" {
			t.Errorf("Curator removed %s", n)
		}
		p.does("consume-id", "/ids")
		same(t, "our ids", p.consumed(1), "six")
		gone(t, ids)
	})

	p.run(row, "in_shards", func(t *testing.T) {
		shards := recipes.NewShardedQueue[string](m, "/shards")
		shards.Codec, shards.Threshold, shards.MaxShards = text{}, 3, 4
		var items []any
		var want []string
		for i := range 12 {
			items, want = append(items, fmt.Sprint("s", i+10)), append(want, fmt.Sprint("s", i+10))
		}
		if n := p.does(append([]any{"shard", "/shards"}, items...)...); n < "2" {
			t.Errorf("Curator made %s shards", n)
		}
		got := receive(t, ctx, shards, 12)
		slices.Sort(got)
		same(t, "from Curator's shards", got, want...)
		for i := range 12 {
			done(t, shards.Put(ctx, fmt.Sprint("s", i+10)))
		}
		p.does("consume-shards", "/shards")
		got = p.consumed(12)
		slices.Sort(got)
		same(t, "from our shards", got, want...)
		s, err := m.Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if names, _, err := s.Children(ctx, "/shards"); err != nil || len(names) < 2 || len(names) > 4 {
			t.Errorf("shards %q, %v", names, err)
		}
	})
}

// kazoo's LockingQueue and ours on the same path.
func TestSharedQueuesKazoo(t *testing.T) {
	needFiles(t, debianPython, "/usr/lib/python3/dist-packages/kazoo")
	ctx, m, p := shared(t, debianPython, "-B", "kazoo/queue_peer.py")
	row := tried{t, newRow("LockingQueue, beside ours on the same path")}
	row.row.client, row.row.version = "kazoo", kazooVersion(t)
	q := recipes.NewQueue[string](m, "/queue")
	q.Codec = text{}
	p.does("len", "/queue") // creates the directories, to stay

	p.run(row, "each_others_items", func(t *testing.T) {
		p.does("put", "/queue", 100, "a", "b")
		p.does("put", "/queue", 5, "urgent")
		same(t, "kazoo's items", receive(t, ctx, q, 3), "urgent", "a", "b")
		outlived(t, ctx, m, time.Millisecond) // the queue is empty, and reaped if it could be
		done(t, q.PutAll(ctx, "c", "d"), q.PutPriority(ctx, "e", 99), q.PutID(ctx, "f", "id"))
		same(t, "ours", []string{p.does("get", "/queue"), p.does("consume", "/queue"), p.does("get", "/queue")}, "e", "True", "c")
	})

	p.run(row, "what_the_other_has_taken", func(t *testing.T) {
		// What kazoo has locked is not ours, and what we have claimed is not kazoo's.
		msg, err := q.Receive(ctx)
		done(t, err)
		if msg.Value != "d" {
			t.Errorf("received %q", msg.Value)
		}
		same(t, "given back", []string{p.does("release", "/queue"), p.does("get", "/queue")}, "True", "c")
		same(t, "consumed", []string{p.does("consume", "/queue"), p.does("get", "/queue")}, "True", "f")
		done(t, msg.Nack(ctx, 0))
		same(t, "with an id", []string{p.does("consume", "/queue"), p.does("get", "/queue"), p.does("consume", "/queue"), p.does("len", "/queue")}, "True", "d", "True", "0")
	})
}
