// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/internal/raftstore"
	"go.etcd.io/bbolt"
)

// storeOf opens a store that must not fail.
func storeOf(t *testing.T, cfg storeConfig) *store {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Fail = func(err error) { t.Errorf("it failed: %v", err) }
	s, err := openStore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refused opens a store that must not open, and checks the error and that nothing stays open.
func refused(t *testing.T, cfg storeConfig, code Code) error {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := openStore(cfg)
	if err == nil {
		s.Close()
		t.Fatalf("it was opened, want %v", code)
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.Op != "open" || e.Path != cfg.Dir || e.Code != code {
		t.Fatalf("%v, want %v", err, code)
	}
	return err
}

func closeStore(t *testing.T, s *store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func fresh(t *testing.T, s *store) bool {
	t.Helper()
	f, err := s.Fresh()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// bootstrap does what raft.BootstrapCluster does, up to a number of its two writes.
func bootstrap(t *testing.T, s *store, writes int) {
	t.Helper()
	if err := s.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	if writes > 1 {
		if err := s.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
}

func keepsIdentity(t *testing.T, cfg storeConfig) {
	t.Helper()
	var first *store
	for i := range uint64(4) {
		s := storeOf(t, cfg)
		if first == nil {
			first = s
		}
		if s.id == "" || s.id != first.id || s.storageID != first.storageID || s.incarnation != i+1 {
			t.Errorf("start %d: %s, %s, %d; was %s, %s", i, s.id, s.storageID, s.incarnation, first.id, first.storageID)
		}
		if fresh(t, s) != (i < 2) {
			t.Errorf("start %d: fresh is %v", i, i >= 2)
		}
		if i < 2 {
			bootstrap(t, s, int(i)+1) // the first is cut short by a crash
		}
		closeStore(t, s)
	}
	cfg.ID = "another"
	refused(t, cfg, ErrBadArguments)
}

// The identity is in Dir, or in what the user gave for it; otherwise each start is another member (D27).
func TestStoreIdentity(t *testing.T) {
	keepsIdentity(t, storeConfig{Dir: filepath.Join(t.TempDir(), "a", "b")})
	mem := raft.NewInmemStore()
	keepsIdentity(t, storeConfig{Storage: Storage{Log: mem, Stable: mem}})
	other := raft.NewInmemStore()
	keepsIdentity(t, storeConfig{Dir: t.TempDir(), Storage: Storage{Log: other}})
	a, b := storeOf(t, storeConfig{}), storeOf(t, storeConfig{})
	if a.id == b.id || a.storageID == b.storageID || a.incarnation != 1 || !fresh(t, a) {
		t.Errorf("%+v, %+v", a, b)
	}
	closeStore(t, a)
	closeStore(t, b)
}

// What was begun is no state yet: a member that crashed while it founded its ensemble founds it at the next start (P19).
func TestFoundingCutShort(t *testing.T) {
	dir := t.TempDir()
	s := storeOf(t, storeConfig{Dir: dir})
	bootstrap(t, s, 1)
	closeStore(t, s)
	m, err := Open(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := m.Ready(ctx); err != nil {
		t.Error(err)
	}
}

// What a member keeps is for its owner alone.
func TestStoreModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := filepath.Join(t.TempDir(), "member")
	s := storeOf(t, storeConfig{Dir: dir})
	k, err := s.Snapshots.Create(1, 1, 1, raft.Configuration{}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	var names []string
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		names = append(names, strings.TrimPrefix(path, dir))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "/LOCK", "/raft.db", "/snapshots", "/snapshots/1-1-1.snapshot"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

// A directory in use, a file in its place and a foreign lock on the log are told apart, and nothing stays open.
func TestStoreRefused(t *testing.T) {
	dir := t.TempDir()
	s := storeOf(t, storeConfig{Dir: dir, ID: "a"})
	if err := refused(t, storeConfig{Dir: dir, ID: "a"}, ErrLocked); !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Error(err)
	}
	closeStore(t, s)
	if err := refused(t, storeConfig{Dir: dir, ID: "b"}, ErrBadArguments); !strings.Contains(err.Error(), `"a"`) {
		t.Error(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, storeConfig{Dir: file}, ErrBadArguments)
	refused(t, storeConfig{Dir: filepath.Join(file, "below")}, ErrBadArguments)
	db, err := bbolt.Open(filepath.Join(dir, boltName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, storeConfig{Dir: dir}, ErrLocked)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, storeOf(t, storeConfig{Dir: dir}))
}

// A member's files that are damaged, cut, lost or exchanged are found before anything is served (P19).
func TestStoreDamaged(t *testing.T) {
	template := t.TempDir()
	s := storeOf(t, storeConfig{Dir: template})
	bootstrap(t, s, 2)
	for i := range uint64(40) {
		if err := s.StoreLog(&raft.Log{Index: i + 2, Term: 1, Data: bytes.Repeat([]byte("entry"), 500)}); err != nil {
			t.Fatal(err)
		}
	}
	k, err := s.Snapshots.Create(1, 30, 1, raft.Configuration{}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(k.Close(), s.DeleteRange(1, 25)); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	flip := func(name string, at int) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			if err == nil {
				b[at] ^= 4
				err = os.WriteFile(path, b, 0o600)
			}
			return err
		}
	}
	pages := os.Getpagesize()
	for name, damage := range map[string]func(dir string) error{
		"a meta page":         flip(boltName, 60),
		"the other meta page": flip(boltName, pages+60),
		"the log is cut":      func(dir string) error { return os.Truncate(filepath.Join(dir, boltName), int64(3*pages)) },
		"the log is empty":    func(dir string) error { return os.Truncate(filepath.Join(dir, boltName), 0) },
		"the log is of zeros": func(dir string) error { return os.WriteFile(filepath.Join(dir, boltName), make([]byte, 1<<16), 0o600) },
		"no log":              func(dir string) error { return os.Remove(filepath.Join(dir, boltName)) },
		"no snapshot":         func(dir string) error { return os.RemoveAll(filepath.Join(dir, "snapshots")) },
		"an older snapshot": func(dir string) error {
			return os.Rename(filepath.Join(dir, "snapshots", "1-30-1.snapshot"), filepath.Join(dir, "snapshots", "1-20-1.snapshot"))
		},
		"a snapshot of the past": func(dir string) error {
			return os.Rename(filepath.Join(dir, "snapshots", "1-30-1.snapshot"), filepath.Join(dir, "snapshots", "2-30-1.snapshot"))
		},
	} {
		dir := filepath.Join(t.TempDir(), "member")
		if err := os.CopyFS(dir, os.DirFS(template)); err != nil {
			t.Fatal(err)
		}
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { refused(t, storeConfig{Dir: dir}, ErrDataInconsistency) })
	}
	dir := filepath.Join(t.TempDir(), "member")
	if err := os.CopyFS(dir, os.DirFS(template)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, boltName+".tmp"), []byte("what a crash has left"), 0o600); err != nil {
		t.Fatal(err)
	}
	closeStore(t, storeOf(t, storeConfig{Dir: dir}))
}

// The log's file reuses its pages, and is written anew at open when most of it is free.
func TestLogFileIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 200 MB")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, boltName)
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	s := storeOf(t, storeConfig{Dir: dir})
	bootstrap(t, s, 2)
	next := uint64(2)
	fill := func(entries int) {
		for range entries {
			var logs []*raft.Log
			for range 4 {
				logs = append(logs, &raft.Log{Index: next, Term: 1, Data: bytes.Repeat([]byte{byte(next)}, 1<<20)})
				next++
			}
			if err := s.StoreLogs(logs); err != nil {
				t.Fatal(err)
			}
		}
	}
	snapshot := func() {
		k, err := s.Snapshots.Create(1, next-3, 1, raft.Configuration{}, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(k.Close(), s.DeleteRange(1, next-3)); err != nil {
			t.Fatal(err)
		}
	}
	fill(25)
	snapshot()
	peak := size()
	fill(25)
	snapshot()
	if size() > peak+peak/4 {
		t.Errorf("the file grew from %d to %d bytes", peak, size())
	}
	closeStore(t, s)
	before, err := os.ReadFile(filepath.Join(dir, "snapshots", fmt.Sprintf("1-%d-2.snapshot", next-3)))
	if err != nil || len(before) == 0 {
		t.Fatal(err)
	}
	for range 2 {
		s = storeOf(t, storeConfig{Dir: dir})
		if size() > 32<<20 {
			t.Errorf("%d bytes for %d", size(), s.LogBytes())
		}
		for i := next - 2; i < next; i++ {
			var l raft.Log
			if err := s.ReadLog(i, &l); err != nil || !bytes.Equal(l.Data, bytes.Repeat([]byte{byte(i)}, 1<<20)) {
				t.Errorf("entry %d: %v", i, err)
			}
		}
		if fresh(t, s) {
			t.Error("the term is gone")
		}
		closeStore(t, s)
	}
}

// A copy that cannot be made costs nothing but room.
func TestLogFileCannotBeCopied(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, storeOf(t, storeConfig{Dir: dir}))
	path := filepath.Join(dir, boltName)
	if err := writeBolt(filepath.Join(dir, "no", "such", "place"), func() error { return copyBolt(path, filepath.Join(dir, "no", "such", "place")) }); err == nil {
		t.Error("no error")
	}
	if err := copyBolt(filepath.Join(dir, "nothing"), filepath.Join(dir, "x")); err == nil {
		t.Error("no error")
	}
	closeStore(t, storeOf(t, storeConfig{Dir: dir}))
}

// flaky is a user's storage that fails from one call on.
type flaky struct {
	*raft.InmemStore
	mu   sync.Mutex
	left int
}

var errFlaky = errors.New("no space left on device")

func (f *flaky) call() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left < 0 {
		return errFlaky
	}
	return nil
}

func (f *flaky) GetLog(i uint64, l *raft.Log) error {
	return cmpErr(f.call(), func() error { return f.InmemStore.GetLog(i, l) })
}

func (f *flaky) StoreLogs(l []*raft.Log) error {
	return cmpErr(f.call(), func() error { return f.InmemStore.StoreLogs(l) })
}

func (f *flaky) Set(k, v []byte) error {
	return cmpErr(f.call(), func() error { return f.InmemStore.Set(k, v) })
}

func (f *flaky) Get(k []byte) (v []byte, err error) {
	if err := f.call(); err != nil {
		return nil, err
	}
	return f.InmemStore.Get(k)
}

func cmpErr(err error, f func() error) error {
	if err != nil {
		return err
	}
	return f()
}

// Whichever call of the storage fails, the host's goroutine lives on and learns of it: from Open, or from Err (P22).
func TestStorageFails(t *testing.T) {
	for n, more := 0, true; more; n++ {
		synctest.Test(t, func(t *testing.T) {
			f := &flaky{InmemStore: raft.NewInmemStore(), left: n}
			opened := make(chan error, 1)
			var m *Member
			go func() {
				err := errors.New("its goroutine has ended")
				defer func() { opened <- err }()
				m, err = Open(t.Context(), Config{Storage: Storage{Log: f, Stable: f}, Logger: slog.New(slog.DiscardHandler)})
			}()
			if err := <-opened; err != nil {
				if !errors.Is(err, errFlaky) {
					t.Errorf("call %d: open: %v", n, err)
				}
				return
			}
			defer m.Close()
			s, err := m.Session(t.Context())
			if err == nil {
				_, err = s.Create(t.Context(), "/a", nil, Persistent)
			}
			if f.mu.Lock(); f.left >= 0 {
				more = false
			}
			f.mu.Unlock()
			if !more {
				if err != nil {
					t.Errorf("call %d: %v", n, err)
				}
				return
			}
			<-m.Done()
			if !errors.Is(m.Err(), errFlaky) || err != nil && !errors.Is(err, ErrClosed) {
				t.Errorf("call %d: %v, Err %v", n, err, m.Err())
			}
		})
	}
}

// The errors of the store have codes.
func TestStoreErrors(t *testing.T) {
	for err, code := range map[error]Code{
		&raftstore.LockedError{}: ErrLocked, &raftstore.IdentityError{}: ErrBadArguments, &raftstore.CorruptError{}: ErrDataInconsistency,
		&raftstore.PanicError{}: ErrDataInconsistency, errFlaky: ErrSystem,
	} {
		if got := storeError("dir", fmt.Errorf("wrapped: %w", err)); !errors.Is(got, code) || !errors.Is(got, err) {
			t.Errorf("%v, want %v", got, code)
		}
	}
}
