// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bufio"
	"context"
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

// text is a codec that stores strings as they are, as the Java program does.
type text struct{}

func (text) Encode(s string) ([]byte, error) { return []byte(s), nil }
func (text) Decode(b []byte) (string, error) { return string(b), nil }

// peer is a Java program that works on the same queues with Curator.
type peer struct {
	t     *testing.T
	in    io.Writer
	lines chan string
	got   []string // messages that came before an answer
}

func (p *peer) line() string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatal("the Java program has ended")
		}
		return line
	case <-time.After(time.Minute):
		p.t.Fatal("the Java program says nothing")
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

// Curator's queues and ours on the same paths: what either puts the other receives, in all of Curator's variants.
func TestSharedQueues(t *testing.T) {
	path := javaClasses(t, "curator-client.jar", "curator-framework.jar", "curator-recipes.jar", "guava.jar")
	cmd := java(t, "QueuePeer", path, "java/QueuePeer.java")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{ReapInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := &wire.Server{Member: m}
	go port.Serve(l)
	defer port.Close()

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
	defer func() {
		stdin.Close()
		for range p.lines { // until it has ended
		}
		if err := program.Wait(); err != nil || t.Failed() {
			t.Logf("the Java program: %v\n%s", err, complaints.String())
		}
	}()

	queue := func(path string, layout recipes.Layout) *recipes.Queue[string] {
		return &recipes.Queue[string]{Session: m, Path: path, Layout: layout, Codec: text{}}
	}
	receive := func(q interface {
		Receive(context.Context) (*recipes.Message[string], error)
	}, n int) (list []string) {
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
	put := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	same := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	gone := func(q *recipes.Queue[string]) {
		t.Helper()
		eventually(t, func() error {
			if n, err := q.Len(ctx); err != nil || n != 0 {
				return fmt.Errorf("%d entries are left, %v", n, err)
			}
			return nil
		})
	}

	plain := queue("/plain", recipes.Curator)
	p.does("put", "/plain", "a")
	p.does("put", "/plain", "b", "c", "d")
	p.does("put", "/plain", "e")
	same("Curator's items", receive(plain, 5), "a", "b", "c", "d", "e")
	time.Sleep(3 * time.Second) // the queue is empty, and reaped if it could be
	p.does("consume", "/plain")
	put(plain.Put(ctx, "1"), plain.PutAll(ctx, "2", "3"))
	same("ours", p.consumed(3), "1", "2", "3")
	gone(plain)

	prio := queue("/prio", recipes.Curator)
	for _, item := range [][2]any{{7, "seven"}, {-5, "minus five"}, {0, "zero"}, {-2147483648, "least"}, {2147483647, "most"}} {
		p.does("priority", "/prio", item[0], strings.ReplaceAll(item[1].(string), " ", "-"))
	}
	same("Curator's priorities", receive(prio, 5), "least", "minus-five", "zero", "seven", "most")
	put(prio.PutPriority(ctx, "late", 900), prio.PutPriority(ctx, "early", 3), prio.PutPriority(ctx, "next", 3))
	p.does("consume-priority", "/prio")
	same("our priorities", p.consumed(3), "early", "next", "late")
	gone(prio)

	later := queue("/later", recipes.CuratorDelay)
	now := time.Now()
	p.does("delay", "/later", now.Add(1500*time.Millisecond).UnixMilli(), "second")
	p.does("delay", "/later", 1, "first")
	if got := receive(later, 1); got[0] != "first" {
		t.Errorf("%q is due", got)
	}
	same("when it is due", receive(later, 1), "second")
	if took := time.Since(now); took < 1500*time.Millisecond {
		t.Errorf("received after %v", took)
	}
	now = time.Now()
	put(later.PutAfter(ctx, "y", 1500*time.Millisecond), later.PutAfter(ctx, "x", 700*time.Millisecond))
	p.does("consume-delay", "/later")
	same("ours, when they are due", p.consumed(2), "x", "y")
	if took := time.Since(now); took < 1500*time.Millisecond {
		t.Errorf("received after %v", took)
	}
	gone(later)

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
	same("Curator's ids", receive(ids, 2), "one", "four")
	put(ids.PutID(ctx, "five", "b"), ids.PutID(ctx, "six", "a"), ids.PutID(ctx, "seven", "b"))
	if n := p.does("remove", "/ids", "b"); n != "2" {
		t.Errorf("Curator removed %s", n)
	}
	p.does("consume-id", "/ids")
	same("our ids", p.consumed(1), "six")
	gone(ids)

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
	got := receive(shards, 12)
	slices.Sort(got)
	same("from Curator's shards", got, want...)
	for i := range 12 {
		put(shards.Put(ctx, fmt.Sprint("s", i+10)))
	}
	p.does("consume-shards", "/shards")
	got = p.consumed(12)
	slices.Sort(got)
	same("from our shards", got, want...)
	s, err := m.Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if names, _, err := s.Children(ctx, "/shards"); err != nil || len(names) < 2 || len(names) > 4 {
		t.Errorf("shards %q, %v", names, err)
	}
}
