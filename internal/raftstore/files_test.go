// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

var configuration = raft.Configuration{Servers: []raft.Server{
	{Suffrage: raft.Voter, ID: "a", Address: "a"}, {Suffrage: raft.Nonvoter, ID: "b", Address: "b"},
}}

// save writes one snapshot, in pieces.
func save(s raft.SnapshotStore, index, term uint64, data string) (id string, err error) {
	k, err := s.Create(1, index, term, configuration, index-1, nil)
	if err != nil {
		return "", err
	}
	for piece := range slices.Chunk([]byte(data), 10) {
		if _, err := k.Write(piece); err != nil {
			return "", errors.Join(err, k.Cancel())
		}
	}
	return k.ID(), k.Close()
}

func load(s raft.SnapshotStore, id string) (*raft.SnapshotMeta, string, error) {
	m, r, err := s.Open(id)
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return m, string(b), err
}

func ids(t *testing.T, s raft.SnapshotStore) (list []string) {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		list = append(list, m.ID)
	}
	return list
}

func mustSave(t *testing.T, s raft.SnapshotStore, index, term uint64, data string) string {
	t.Helper()
	id, err := save(s, index, term, data)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var quiet = slog.New(slog.DiscardHandler)

// Snapshots come back as they were written, the newest first, and the two newest are kept: in memory, and on disk over
// restarts.
func TestSnapshots(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	disk, err := OpenFiles(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Files{NewMemory(quiet), disk} {
		if got := ids(t, s); got != nil {
			t.Fatal(got)
		}
		long := strings.Repeat("0123456789", syncEvery/10+2)
		var want []string
		for i, data := range []string{"", "second", long, "fourth"} {
			want = append([]string{mustSave(t, s, 10+uint64(i/2), 3, data)}, want[:min(1, len(want))]...)
			if got := ids(t, s); !slices.Equal(got, want) {
				t.Fatalf("%v, want %v", got, want)
			}
			m, got, err := load(s, want[0])
			wantMeta := &raft.SnapshotMeta{
				Version: 1, ID: want[0], Index: 10 + uint64(i/2), Term: 3, Configuration: configuration, ConfigurationIndex: 9 + uint64(i/2), Size: int64(len(data)),
			}
			if got != data || !reflect.DeepEqual(m, wantMeta) || err != nil {
				t.Fatalf("%d bytes, %+v, %v; want %d, %+v", len(got), m, err, len(data), wantMeta)
			}
			if list, _ := s.List(); !reflect.DeepEqual(list[0], wantMeta) {
				t.Fatalf("listed as %+v", list[0])
			}
			if s == disk {
				if disk, err = OpenFiles(dir, quiet); err != nil {
					t.Fatal(err)
				}
				s = disk
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != keepSnapshots {
		t.Errorf("%v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
}

// What is not complete is in no list, leaves nothing behind, and takes no writes after its end.
func TestUnfinishedSnapshot(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenFiles(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Create(1, 5, 1, configuration, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write([]byte("data")); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, s); got != nil {
		t.Error(got)
	}
	if _, _, err := s.Open(k.ID()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for range 2 {
		if err := k.Cancel(); err != nil {
			t.Error(err)
		}
	}
	if _, err := k.Write([]byte("more")); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	left, err := s.Create(1, 6, 1, configuration, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer left.Cancel()
	for _, name := range []string{"notes.txt", "1-2.snapshot", "1-2-x.snapshot", "01-2-3.snapshot", "1-2-3.snapshot.bak"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if runtime.GOOS == "windows" {
		return // the file is open, as it is not after a crash
	}
	s, err = OpenFiles(dir, quiet) // a crash has left it
	if err != nil || ids(t, s) != nil {
		t.Error(err)
	}
	names, _ := directory(dir).list()
	if len(names) != 5 { // ours are gone, the others stay
		t.Errorf("%v", names)
	}
	if id := mustSave(t, s, 6, 1, ""); id == left.ID() {
		t.Errorf("%s is used twice", id)
	}
	for _, id := range []string{"", "notes.txt", "../x", "1-2-3", "1-2-3.snapshot.tmp", "18446744073709551616-1-1.snapshot"} {
		if _, _, err := s.Open(id); err == nil {
			t.Errorf("%q was opened", id)
		}
	}
}

// Every byte of a file counts, and so does its end: what is damaged stays in the list and cannot be opened (P19).
func TestDamagedSnapshot(t *testing.T) {
	s := NewMemory(quiet)
	files := s.folder.(*memory).files
	mustSave(t, s, 9, 2, "an older one")
	id := mustSave(t, s, 10, 2, "what the state machine wrote")
	good := files[id]
	check := func(what string, b []byte) {
		t.Helper()
		files[id] = b
		if list, err := s.List(); err != nil || len(list) != 2 || list[0].ID != id || list[0].Index != 10 || list[0].Term != 2 {
			t.Errorf("%s: listed %v, %v", what, list, err)
		}
		if _, _, err := s.Open(id); !is[*CorruptError](err) || !strings.Contains(err.Error(), id) {
			t.Errorf("%s: open: %v", what, err)
		}
	}
	for bit := range 8 * len(good) {
		b := bytes.Clone(good)
		b[bit/8] ^= 1 << (bit % 8)
		check(fmt.Sprint("bit ", bit), b)
	}
	for n := range good {
		check(fmt.Sprint("cut to ", n), good[:n])
		check(fmt.Sprint("without the first ", n+1), good[n+1:])
	}
	check("a byte more", append(bytes.Clone(good), 0))
	check("all zero", make([]byte, len(good)))
	older := ids(t, s)[1]
	check("the other one", files[older])
	files[id] = good
	if _, data, err := load(s, id); data != "what the state machine wrote" || err != nil {
		t.Error(err)
	}
}

// What is stored has this form for ever; the last byte of tailMagic changes with it.
func TestSnapshotFormat(t *testing.T) {
	s := NewMemory(quiet)
	id := mustSave(t, s, 300, 2, "data")
	if id != "2-300-1.snapshot" {
		t.Error(id)
	}
	const want = "64617461" + // data
		"02" + "ac02" + "02" + "ab02" + // version 1, index 300, term 2, index of the configuration
		"3e81a7536572766572739283a741646472657373a161a24944a161a853756666726167650083a741646472657373a162a24944a162a85375666672616765" + "01" +
		"08" + // bytes of data, 4
		"00000046" + "dd180c5a" + "3b874c5a" + "7a6b736e61700001"
	if got := hex.EncodeToString(s.folder.(*memory).files[id]); got != want {
		t.Errorf("it is\n%s", got)
	}
}

// faulty is a folder as a disk has it: what is not synced is lost in a crash, or not.
type faulty struct {
	now     map[string]*faultyFile // as the process sees it
	durable map[string]*faultyFile // names that outlive a crash
	failAt  int
	ops     []string
}

type faultyFile struct {
	folder *faulty
	data   []byte
	synced int
}

func newFaulty(failAt int) *faulty {
	return &faulty{now: map[string]*faultyFile{}, durable: map[string]*faultyFile{}, failAt: failAt}
}

// op counts a call, and fails from the chosen one on: the disk is gone.
func (f *faulty) op(format string, args ...any) error {
	f.ops = append(f.ops, fmt.Sprintf(format, args...))
	if len(f.ops) > f.failAt {
		return errDisk
	}
	return nil
}

func (f *faulty) list() ([]string, error) {
	return slices.Sorted(maps.Keys(f.now)), f.op("list")
}

func (f *faulty) create(name string) (writer, error) {
	if err := f.op("create %s", name); err != nil {
		return nil, err
	}
	f.now[name] = &faultyFile{folder: f}
	return f.now[name], nil
}

func (f *faulty) open(name string) (reader, int64, error) {
	if err := f.op("open %s", name); err != nil {
		return nil, 0, err
	}
	file, ok := f.now[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return memoryReader{bytes.NewReader(file.data)}, int64(len(file.data)), nil
}

func (f *faulty) rename(from, to string) error {
	if err := f.op("rename %s", from); err != nil {
		return err
	}
	f.now[to] = f.now[from]
	delete(f.now, from)
	return nil
}

func (f *faulty) remove(name string) error {
	if err := f.op("remove %s", name); err != nil {
		return err
	}
	delete(f.now, name)
	return nil
}

func (f *faulty) sync() error {
	if err := f.op("sync"); err != nil {
		return err
	}
	f.durable = maps.Clone(f.now)
	return nil
}

func (w *faultyFile) Write(p []byte) (int, error) {
	if err := w.folder.op("write"); err != nil {
		w.data = append(w.data, p[:len(p)/2]...)
		return len(p) / 2, err
	}
	w.data = append(w.data, p...)
	return len(p), nil
}

func (w *faultyFile) Sync() error {
	if err := w.folder.op("sync file"); err != nil {
		return err
	}
	w.synced = len(w.data)
	return nil
}

func (w *faultyFile) Close() error { return w.folder.op("close") }

// crashed is what the next process may find: names that were not made durable may be there or not, data that was not
// synced may be whole, cut or zero.
func (f *faulty) crashed(yield func(*memory) bool) {
	for _, names := range []map[string]*faultyFile{f.durable, f.now} {
		for _, tail := range []func([]byte) []byte{
			func(b []byte) []byte { return b }, func([]byte) []byte { return nil }, func(b []byte) []byte { return make([]byte, len(b)) },
		} {
			m := &memory{files: map[string][]byte{}}
			for name, file := range names {
				m.files[name] = slices.Concat(file.data[:file.synced], tail(file.data[file.synced:]))
			}
			if !yield(m) {
				return
			}
		}
	}
}

// A crash at any step leaves the newest snapshot that was completed, or the one under way if that is complete, and
// nothing that is damaged. The step that failed is told, whichever it is.
func TestSnapshotCrashAtEveryStep(t *testing.T) {
	total := 1 << 30
	for failAt := 0; failAt <= total; failAt++ {
		disk := newFaulty(failAt)
		done := []string{}
		var err error
		s, err := openFiles(disk, quiet)
		for i := uint64(1); err == nil && i < 5; i++ {
			var id string
			if id, err = save(s, 10*i, 1, fmt.Sprint("snapshot number ", i)); err == nil {
				done = append(done, id)
			}
		}
		if err == nil {
			total = len(disk.ops) // all steps have had their turn
		}
		lastOp := disk.ops[min(failAt, len(disk.ops)-1)]
		for found := range disk.crashed {
			s, err := openFiles(found, quiet)
			if err != nil {
				t.Fatal(err)
			}
			list := ids(t, s)
			if len(done) > 0 && (len(list) == 0 || list[0] != done[len(done)-1] && !newer(list[0], done[len(done)-1])) {
				t.Errorf("step %d, %s: found %v after %v", failAt, lastOp, list, done)
			}
			for _, id := range list {
				n, _ := parseSnapName(id)
				if _, data, err := load(s, id); data != fmt.Sprint("snapshot number ", n.index/10) || err != nil {
					t.Errorf("step %d, %s: %s: %q, %v", failAt, lastOp, id, data, err)
				}
			}
			for name := range found.files {
				if strings.HasSuffix(name, tmpSuffix) {
					t.Errorf("step %d, %s: %s is left", failAt, lastOp, name)
				}
			}
		}
	}
	if total < 30 {
		t.Errorf("only %d steps", total)
	}
}

func newer(a, b string) bool {
	x, _ := parseSnapName(a)
	y, _ := parseSnapName(b)
	return x.index > y.index
}

// An old snapshot that cannot be removed, as on Windows while it is read, waits for the next time.
func TestSnapshotInUse(t *testing.T) {
	stuck := &stuckFolder{memory: &memory{files: map[string][]byte{}}}
	s, err := openFiles(stuck, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(4) {
		mustSave(t, s, i+1, 1, "")
	}
	if got := ids(t, s); len(stuck.files) != 4 || len(got) != 2 || got[0] != "1-4-4.snapshot" {
		t.Errorf("%d files, listed %v", len(stuck.files), got)
	}
	stuck.free = true
	mustSave(t, s, 5, 1, "")
	if len(stuck.files) != 2 {
		t.Errorf("%d files", len(stuck.files))
	}
}

type stuckFolder struct {
	*memory
	free bool
}

func (f *stuckFolder) remove(name string) error {
	if !f.free {
		return errDisk
	}
	return f.memory.remove(name)
}

func FuzzSnapshot(f *testing.F) {
	s := NewMemory(quiet)
	for _, data := range []string{"", "data"} {
		id, err := save(s, 300, 2, data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.folder.(*memory).files[id])
	}
	for _, meta := range [][]byte{nil, {1, 1, 1, 1, 0, 0}, appendMeta(nil, &raft.SnapshotMeta{Size: -1}), {1, 1, 1, 1, 4, 0x81, 0xa7, 0xff, 0xff, 0}} {
		f.Add(appendTail(bytes.Clone(meta), 0, meta))
	}
	f.Add([]byte(tailMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readWhole(bytes.NewReader(b), int64(len(b)))
		if err == nil && (m.Size < 0 || m.Size > int64(len(b)-tailSize)) {
			t.Errorf("%d bytes of data in %d", m.Size, len(b))
		}
		// The same as a description, which no checksum hides from the fuzzer.
		if m, err := readMeta(b); err == nil {
			if _, err := readMeta(appendMeta(nil, &m)); err != nil {
				t.Errorf("%+v does not survive: %v", m, err)
			}
		}
	})
}

// What is asked for has to fit beside what the log may need; where nobody knows how much is free, it does.
func TestRoom(t *testing.T) {
	s, err := OpenFiles(t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, known := s.free(); known != (runtime.GOOS == "linux" || runtime.GOOS == "darwin" || runtime.GOOS == "windows") {
		t.Errorf("free space is known: %v", known)
	}
	if err := s.Room(1 << 60); runtime.GOOS == "linux" && !errors.Is(err, ErrNoRoom) {
		t.Errorf("room for an exbibyte: %v", err)
	}
	for _, test := range []struct {
		free uint64
		ok   bool
		size int64
		room bool
	}{{100<<20 + roomBeside, true, 100 << 20, true}, {100<<20 + roomBeside - 1, true, 100 << 20, false}, {0, false, 100 << 20, true}} {
		s.free = func() (uint64, bool) { return test.free, test.ok }
		if err := s.Room(test.size); (err == nil) != test.room || err != nil && !errors.Is(err, ErrNoRoom) {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if err := NewMemory(quiet).Room(1 << 60); err != nil {
		t.Error(err)
	}
}
