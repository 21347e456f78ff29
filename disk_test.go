// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport"
)

// These tests use real files and loopback sockets, and so real time.

func open(t *testing.T, cfg zk.Config) *zk.Member {
	t.Helper()
	m, err := zk.Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// three opens an ensemble of three on loopback TCP with files below dir; ports are new each time.
func three(t *testing.T, dir string, base zk.Config) []*zk.Member {
	t.Helper()
	var peers []zk.Peer
	var trs []zk.Transport
	for i := range 3 {
		tr, err := transport.TCP("127.0.0.1:0")
		must(t, err)
		trs = append(trs, tr)
		peers = append(peers, zk.Peer{ID: fmt.Sprint("m", i), Addr: tr.Addr(), Voter: true})
	}
	members := make([]*zk.Member, 3)
	for i := range 3 {
		cfg := base
		cfg.ID, cfg.Dir, cfg.Transport, cfg.Peers = peers[i].ID, filepath.Join(dir, peers[i].ID), trs[i], peers
		members[i] = open(t, cfg)
	}
	for _, m := range members {
		must(t, m.Ready(t.Context()))
	}
	return members
}

// The zero Config works, and needs no socket and no file (DX-1, DX-10).
func TestZeroConfig(t *testing.T) {
	m := open(t, zk.Config{})
	s, err := m.Session(t.Context())
	must(t, err)
	create(t, t.Context(), s, "/a", zk.Persistent)
	if m.Addr() != "" {
		t.Errorf("it listens on %s", m.Addr())
	}
}

// A member on disk starts again with what was answered (CG-5, P19), and keeps its id.
func TestRestartOnDisk(t *testing.T) {
	dir := t.TempDir()
	id := ""
	for i := range 5 {
		m := open(t, zk.Config{Dir: dir})
		if i > 0 && m.ID() != id {
			t.Fatalf("id %s was %s", m.ID(), id)
		}
		id = m.ID()
		s, err := m.Session(t.Context())
		must(t, err)
		names, _, err := s.Children(t.Context(), "/")
		must(t, err)
		if len(names) != i+1 {
			t.Fatalf("round %d: %v", i, names)
		}
		create(t, t.Context(), s, "/n-", zk.Sequential)
		if i == 2 {
			must(t, m.Compact(t.Context()))
		}
		must(t, m.Close())
	}
}

// Opening a directory twice fails at once and names the holder (DX-12).
func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	m := open(t, zk.Config{Dir: dir})
	_, err := zk.Open(t.Context(), zk.Config{Dir: dir})
	wants(t, err, zk.ErrLocked)
	if !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("%v does not name the process", err)
	}
	must(t, m.Close())
	must(t, m.Close())
	must(t, open(t, zk.Config{Dir: dir}).Close())
	_, err = zk.Open(t.Context(), zk.Config{Dir: dir, ID: "another"})
	wants(t, err, zk.ErrBadArguments)
}

// Many open and close cycles of an ensemble under load leave no waiter and nothing behind (P22, DX-11, PEER-66).
func TestOpenCloseUnderLoad(t *testing.T) {
	dir := t.TempDir()
	for range zk.Size(2, 4, 1000) {
		members := three(t, dir, zk.Config{})
		admin := session(t, t.Context(), members[0])
		if err := admin.DeleteTree(t.Context(), "/load"); !errors.Is(err, zk.ErrNoNode) {
			must(t, err)
		}
		var all sync.WaitGroup
		for _, m := range members {
			s, err := m.Session(t.Context())
			must(t, err)
			for range 20 {
				all.Go(func() {
					for {
						if _, err := s.Create(t.Context(), "/load/n-", nil, zk.Sequential|zk.Parents); err != nil {
							if !errors.Is(err, zk.ErrClosed) && !errors.Is(err, fs.ErrClosed) {
								t.Error(err)
							}
							return
						}
					}
				})
			}
		}
		for from := admin.LastZxid(); admin.LastZxid() < from+200; {
			must(t, admin.Sync(t.Context()))
		}
		for _, m := range members {
			began := time.Now()
			must(t, m.Close())
			t.Logf("closed in %v", time.Since(began))
		}
		all.Wait()
	}
}

// All members come back on other ports and find each other (D18, UD-4).
func TestNewAddresses(t *testing.T) {
	dir := t.TempDir()
	for round := range 2 {
		members := three(t, dir, zk.Config{})
		s, err := members[round].Session(t.Context())
		must(t, err)
		create(t, t.Context(), s, fmt.Sprint("/round-", round), zk.Persistent)
		for _, m := range members {
			must(t, m.Close())
		}
	}
}

// A single durable member grows into an ensemble of three without losing data.
func TestGrow(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	m := open(t, zk.Config{ID: "a", Dir: filepath.Join(dir, "a")})
	s, err := m.Session(ctx)
	must(t, err)
	create(t, ctx, s, "/kept", zk.Persistent)
	must(t, m.Close())
	m = open(t, zk.Config{ID: "a", Dir: filepath.Join(dir, "a"), Addr: "127.0.0.1:0"})
	b := open(t, zk.Config{ID: "b", Dir: filepath.Join(dir, "b"), Addr: "127.0.0.1:0", Join: []string{m.Addr()}})
	must(t, b.Ready(ctx))
	c := open(t, zk.Config{ID: "c", Dir: filepath.Join(dir, "c"), Addr: "127.0.0.1:0", Join: []string{b.Addr()}})
	must(t, c.Ready(ctx))
	for _, o := range []*zk.Member{b, c} { // the change must have been committed, and by whoever is to go on
		s, err := o.Session(ctx)
		must(t, err)
		for z, err := range s.WatchValue(ctx, "/zookeeper/config") {
			must(t, err)
			if strings.Count(z.Data, ":participant") == 3 {
				break
			}
		}
	}
	must(t, m.Close())
	n, err := c.Session(ctx)
	must(t, err)
	if _, ok, err := n.Exists(ctx, "/kept", zk.Linearizable); !ok {
		t.Fatalf("/kept: %v", err)
	}
	create(t, ctx, n, "/after", zk.Persistent)
}

// A member that lost its disk is refused under its old id (D27), and a stranger by its ensemble.
func TestWipedMember(t *testing.T) {
	dir := t.TempDir()
	members := three(t, dir, zk.Config{})
	peers := []zk.Peer{}
	for _, m := range members {
		peers = append(peers, zk.Peer{ID: m.ID(), Addr: m.Addr(), Voter: true})
	}
	must(t, members[2].Close())
	must(t, os.RemoveAll(filepath.Join(dir, "m2")))
	w, err := zk.Open(t.Context(), zk.Config{ID: "m2", Dir: filepath.Join(dir, "m2"), Addr: "127.0.0.1:0", Peers: peers})
	if err == nil {
		defer w.Close()
		<-w.Done()
		err = w.Err()
	}
	wants(t, err, zk.ErrWiped)
	s, err := members[0].Session(t.Context())
	must(t, err)
	create(t, t.Context(), s, "/fine", zk.Persistent)
}

// A clean start and a clean close say nothing, and one process holds several ensembles (DX-8, DX-9,
// PEER-67).
func TestSilence(t *testing.T) {
	var out bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&syncWriter{w: &out}, nil)))
	defer slog.SetDefault(old)
	for range 2 {
		for _, m := range three(t, t.TempDir(), zk.Config{}) {
			defer m.Close()
		}
	}
	members := three(t, t.TempDir(), zk.Config{})
	for _, m := range members {
		s, err := m.Session(t.Context())
		must(t, err)
		create(t, t.Context(), s, "/n-", zk.Sequential)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, m := range members {
		must(t, m.Shutdown(ctx))
	}
	if out.Len() > 0 {
		t.Errorf("it said:\n%s", out.String())
	}
}

type syncWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// A damaged log is found at open and never served (P19).
func TestDamagedLog(t *testing.T) {
	dir := t.TempDir()
	m := open(t, zk.Config{Dir: dir})
	s, err := m.Session(t.Context())
	must(t, err)
	marker := []byte("a value that is easy to find in a file")
	_, err = s.Create(t.Context(), "/v", marker, zk.Persistent)
	must(t, err)
	must(t, m.Close())
	hit := false
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := bytes.Index(b, marker); i >= 0; i = bytes.Index(b, marker) {
			b[i] ^= 1
			hit = true
		}
		return os.WriteFile(path, b, 0o600)
	}))
	if !hit {
		t.Fatal("the value is nowhere in the files")
	}
	_, err = zk.Open(t.Context(), zk.Config{Dir: dir})
	wants(t, err, zk.ErrDataInconsistency)
}

// Bad configurations are refused with a reason and change nothing.
func TestBadConfig(t *testing.T) {
	for name, cfg := range map[string]zk.Config{
		"peers without self": {ID: "a", Addr: "127.0.0.1:0", Peers: []zk.Peer{{ID: "b", Voter: true}}},
		"peers without id":   {Peers: []zk.Peer{{ID: "b", Voter: true}}},
		"join without addr":  {ID: "a", Join: []string{"x"}},
		"join and peers":     {ID: "a", Addr: "127.0.0.1:0", Join: []string{"x"}, Peers: []zk.Peer{{ID: "a", Voter: true}}},
		"short heartbeat":    {Heartbeat: time.Millisecond},
		"timeouts":           {MinTimeout: time.Minute, MaxTimeout: time.Second},
		"id":                 {ID: "has space"},
		"value size":         {MaxValueSize: 1 << 30},
		"no voter":           {ID: "a", Addr: "127.0.0.1:0", Peers: []zk.Peer{{ID: "a"}}},
	} {
		if m, err := zk.Open(t.Context(), cfg); !errors.Is(err, zk.ErrBadArguments) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				m.Close()
			}
		}
	}
	//lint:ignore SA1012 the point of the test
	if _, err := zk.Open(nil, zk.Config{}); !errors.Is(err, zk.ErrBadArguments) {
		t.Errorf("nil context: %v", err)
	}
}

// Calls with a nil or ended context, on a closed session or member, return typed errors and do nothing.
func TestBadCalls(t *testing.T) {
	m := open(t, zk.Config{})
	ctx := t.Context()
	s, err := m.Session(ctx)
	must(t, err)
	//lint:ignore SA1012 the point of the test
	_, err = s.Create(nil, "/a", nil, zk.Persistent)
	wants(t, err, zk.ErrBadArguments)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Create(ended, "/a", nil, zk.Persistent)
	if !errors.Is(err, context.Canceled) || zk.MaybeApplied(err) {
		t.Error(err)
	}
	for _, p := range []string{"", "a", "/a/", "//", "/a/../b", "/\x00", "/\U0001F600"} { // DM-2, DM-4
		_, err := s.Create(ctx, p, nil, zk.Persistent)
		wants(t, err, zk.ErrBadArguments)
		_, _, err = s.Get(ctx, p)
		wants(t, err, zk.ErrBadArguments)
	}
	_, err = s.Create(ctx, "/big", make([]byte, 1<<20+1), zk.Persistent) // DM-93
	wants(t, err, zk.ErrTooLarge)
	_, err = s.Txn(ctx, make([]zk.Op, 2000)...)
	wants(t, err, zk.ErrTooLarge)
	_, err = s.Do(ctx, zk.Op{})
	wants(t, err, zk.ErrBadArguments)
	must(t, s.Close())
	_, err = s.Create(ctx, "/a", nil, zk.Persistent)
	if !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	must(t, m.Close())
	_, err = m.NewSession(ctx, zk.SessionConfig{})
	wants(t, err, zk.ErrClosed)
	_, err = m.Session(ctx)
	wants(t, err, zk.ErrClosed)
}
