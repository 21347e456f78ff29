// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport/memnet"
)

var idleConnections = flag.Int("idle-connections", 400, "how many idle connections TestIdleConnections opens")

// Connections beyond a limit are closed without a byte; when others have gone there is room again (WP-70).
func TestTooManyConnections(t *testing.T) {
	m := member(t, zk.Config{})
	for name, limits := range map[string]Limits{"per address": {PerAddress: 3}, "in all": {Connections: 3, PerAddress: -1}} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Member: m, Limits: limits}
			addr := serve(t, s)
			list := []*raw{open(t, addr), open(t, addr), open(t, addr)}
			for i := range 3 {
				c := dial(t, addr)
				c.nc.Write(make([]byte, 8))
				c.ended()
				if n := s.Stats().Rejected; n != int64(i+1) {
					t.Errorf("%d rejected", n)
				}
			}
			list[0].want(0, opPing, nil)
			list[1].nc.Close()
			eventually(t, "one has gone", func() bool { return s.Stats().Connections == 2 })
			open(t, addr)
		})
	}
}

// A client that does not take its events is closed; the others get theirs, and its session lives on (WT-26, WP-75).
func TestSlowReader(t *testing.T) {
	m := member(t, zk.Config{})
	s := &Server{Member: m, Limits: Limits{Queued: 256 << 10}}
	addr := serve(t, s)
	slow, fast, c := open(t, addr), open(t, addr), open(t, addr)
	slow.want(0, opAddWatch, pathVersion("/", 1))
	fast.want(0, opAddWatch, pathVersion("/", 1))
	path := "/" + strings.Repeat("x", 10_000)
	c.do("+" + path)
	sets := 0
	for s.Stats().SlowReaders == 0 {
		if sets++; sets > 100_000 {
			t.Fatal("nobody was closed")
		}
		c.do("=" + path)
		if sets%10 == 0 {
			fast.want(0, opPing, nil)
		}
	}
	fast.want(0, opPing, nil)
	if len(fast.events) != sets+1 {
		t.Errorf("%d events of %d", len(fast.events), sets+1)
	}
	if st := s.Stats(); st.SlowReaders != 1 || st.RuleBreakers != 1 || st.Connections != 2 {
		t.Errorf("%+v", st)
	}
	d := dial(t, addr)
	if !d.connect(connectRequest{timeout: 10_000, session: slow.session, password: slow.password, hasRO: true}) || d.session != slow.session {
		t.Error("its session is gone")
	}
}

// A client that sends and does not take its answers is not read from any more, at a bounded number of bytes; when it
// does, it gets all of them (WP-71).
func TestBackpressure(t *testing.T) {
	m := member(t, zk.Config{})
	s := &Server{Member: m, Limits: Limits{Requests: 10, Queued: 64 << 10}}
	addr := serve(t, s)
	c := open(t, addr)
	data := strings.Repeat("d", 100_000)
	c.want(0, opCreate, createBody("/big", data, 0))
	const n = 400 // answers of 40 MB
	sent := make(chan error, 1)
	go func() {
		for i := range int32(n) {
			b := append(requestHeader{i, opGetData}.append(nil), pathWatch("/big", false)...)
			if _, err := c.nc.Write(append(appendInt(nil, int32(len(b))), b...)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	eventually(t, "the server stops to read", func() bool { return s.Stats().Outstanding >= 9 })
	o := open(t, addr)
	for range 100 {
		o.want(0, opPing, nil)
		if n := s.Stats().Outstanding; n > 11 {
			t.Fatalf("%d requests wait", n)
		}
	}
	for i := range int32(n) {
		if p := c.reply(); p.xid != i || p.code != 0 || len(p.buffer()) != len(data) {
			t.Fatalf("answer %d: xid %d, code %d", i, p.xid, p.code)
		}
	}
	must(t, <-sent)
	if n := s.Stats().Outstanding; n != 0 {
		t.Errorf("%d requests wait for ever", n)
	}
}

// What clients do wrong makes a bounded number of lines, and none is lost from the count (D20).
func TestBoundedNoise(t *testing.T) {
	m := member(t, zk.Config{})
	var log lockedBuffer
	s := &Server{Member: m, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	addr := serve(t, s)
	const n = 200
	for range n {
		c := dial(t, addr)
		c.write([]byte("xxxx"))
		c.ended()
	}
	eventually(t, "all counted", func() bool { return s.Stats().RuleBreakers == n })
	if lines := strings.Count(log.String(), "\n"); lines == 0 || lines > n/2 {
		t.Errorf("%d lines for %d clients", lines, n)
	}
}

// Without a logger, warnings go to the program's own, and nothing else does (D20).
func TestQuiet(t *testing.T) {
	var log lockedBuffer
	before := slog.Default()
	defer slog.SetDefault(before)
	l := quiet(nil)
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l.Info("nothing")
	l.Debug("nothing")
	if log.String() != "" {
		t.Errorf("told %q", log.String())
	}
	l.Warn("something")
	if !strings.Contains(log.String(), "something") {
		t.Error("a warning was lost")
	}
	if quiet(before) != before {
		t.Error("a logger that was given is not used")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Idle connections and a client that does not read cost little memory, and nobody else's time:
//
//	go test ./wire -run IdleConnections -v -idle-connections 5000
func TestIdleConnections(t *testing.T) {
	m := member(t, zk.Config{})
	s := &Server{Member: m, Limits: Limits{PerAddress: -1}}
	addr := serve(t, s)
	patient := func() *raw {
		c := dial(t, addr)
		c.nc.SetDeadline(time.Now().Add(10 * time.Minute))
		if !c.connect(connectRequest{timeout: 120_000, hasRO: true}) {
			t.Fatal("closed instead of a session")
		}
		return c
	}
	c := patient()
	c.do("+/x")
	latency := func() (read, write time.Duration) { // medians, the best of some: other programs run too
		read, write = time.Hour, time.Hour
		for range 5 {
			var reads, writes []time.Duration
			for range 200 {
				began := time.Now()
				c.want(0, opSetData, setBody("/x", "", -1))
				wrote := time.Now()
				c.want(0, opGetData, pathWatch("/x", false))
				reads, writes = append(reads, time.Since(wrote)), append(writes, wrote.Sub(began))
			}
			slices.Sort(reads)
			slices.Sort(writes)
			read, write = min(read, reads[len(reads)/2]), min(write, writes[len(writes)/2])
		}
		return read, write
	}
	memory := func() uint64 {
		var st runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&st)
		return st.HeapInuse + st.StackInuse
	}
	latency() // everything is warm
	read, write := latency()
	before := memory()
	n := *idleConnections
	idle := make([]*raw, n)
	for i := range idle {
		idle[i] = patient()
		idle[i].want(0, opSetData, setBody("/x", "", -1)) // none has been idle for ever
		idle[i].want(0, opGetData, pathWatch("/x", false))
	}
	each := (memory() - before) / uint64(n)
	slow := patient()
	slow.want(0, opCreate, createBody("/big", strings.Repeat("d", 100_000), 0))
	for i := range int32(500) { // it will not take the answers
		slow.send(append(requestHeader{i, opGetData}.append(nil), pathWatch("/big", false)...))
	}
	eventually(t, "the slow one is read no more", func() bool { return s.Stats().Outstanding > 0 })
	crowdedRead, crowdedWrite := latency()
	if n := s.Stats().Outstanding; n == 0 {
		t.Error("the slow one has taken its answers")
	}
	for _, c := range append(idle, slow) {
		c.nc.Close()
	}
	eventually(t, "all have gone", func() bool { return s.Stats().Connections == 1 })
	if each > 40<<10 {
		t.Errorf("%d bytes for an idle connection", each)
	}
	readAfter, writeAfter := latency()
	read, write = max(read, readAfter), max(write, writeAfter) // others may have come to stay
	ratioRead, ratioWrite := float64(crowdedRead)/float64(read), float64(crowdedWrite)/float64(write)
	t.Logf("%d idle connections: %d bytes each, both ends and sessions included; with them and a client that does not read, a read took %v instead of %v (%.2f times), a write %v instead of %v (%.2f times)",
		n, each, crowdedRead, read, ratioRead, crowdedWrite, write, ratioWrite)
	if ratioRead > 3 || ratioWrite > 3 { // it is about 1; noise does not reach 3
		t.Errorf("a read took %.2f times, a write %.2f times what it took alone", ratioRead, ratioWrite)
	}
}

// Whatever a server is told about, it serves nobody without a member or, where TLS is asked for, a configuration.
func TestServeRefuses(t *testing.T) {
	l := memListener{newHost(t)}
	if err := (&Server{}).Serve(l); err != errNoMember {
		t.Error(err)
	}
	m := member(t, zk.Config{})
	if err := (&Server{Member: m}).ServeTLS(memListener{newHost(t)}); err != errNoTLS {
		t.Error(err)
	}
	if err := (&Server{Member: m, OnePort: true}).Serve(memListener{newHost(t)}); err != errNoTLS {
		t.Error(err)
	}
	s := &Server{Member: m}
	must(t, s.Close())
	if err := s.Serve(memListener{newHost(t)}); err != ErrServerClosed {
		t.Error(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func newHost(t *testing.T) *memnet.Host {
	h := memnet.New(1).Host("port")
	t.Cleanup(func() { h.Close() })
	return h
}
