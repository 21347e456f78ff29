// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// logged opens a store with entries from first to last, all of one term, and a term of 9.
func logged(t *testing.T, first, last, term uint64) (*Store, *failures) {
	t.Helper()
	s, told := opened(t, newDisk())
	if err := s.SetUint64(keyTerm, 9); err != nil {
		t.Fatal(err)
	}
	for i := first; i <= last; i++ {
		if err := s.StoreLog(entry(i, term, "")); err != nil {
			t.Fatal(err)
		}
	}
	return s, told
}

func guarded(t *testing.T, s *Store, under raft.SnapshotStore) raft.SnapshotStore {
	t.Helper()
	snaps, err := s.GuardSnapshots(under)
	if err != nil {
		t.Fatal(err)
	}
	return snaps
}

// A snapshot goes through the guard and comes back.
func TestGuardedSnapshot(t *testing.T) {
	s, told := logged(t, 1, 9, 2)
	snaps := guarded(t, s, NewMemory(quiet))
	id := mustSave(t, snaps, 5, 2, "some state")
	if m, data, err := load(snaps, id); data != "some state" || m.Index != 5 || err != nil {
		t.Errorf("%+v, %q, %v", m, data, err)
	}
	k, err := snaps.Create(1, 6, 2, configuration, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(k.Cancel(), k.Cancel()); err != nil || len(ids(t, snaps)) != 1 {
		t.Error(err)
	}
	if _, _, err := snaps.Open("2-99-1.snapshot"); err == nil { // it was replaced meanwhile
		t.Error("opened what is not there")
	}
	told.none(t)
}

// An older snapshot takes the place of a damaged one where the log leads from the one to the other. Where it does not,
// something that was answered would be lost: the member stops (P19).
func TestDamagedNewestSnapshot(t *testing.T) {
	for name, c := range map[string]struct {
		first, last, term uint64 // of the log
		older, newest     uint64 // indexes
		falls             bool
	}{
		"all of it is in the log":      {1, 30, 2, 10, 20, true},
		"just enough is in the log":    {11, 20, 2, 10, 20, true},
		"the same state twice":         {11, 30, 2, 10, 10, true},
		"the first entry is gone":      {12, 30, 2, 10, 20, false},
		"the last entry is not there":  {5, 19, 2, 10, 20, false},
		"no log":                       {1, 0, 0, 10, 20, false},
		"entries that were overridden": {1, 30, 1, 10, 20, false},
	} {
		s, told := logged(t, c.first, c.last, c.term)
		files := NewMemory(quiet)
		older := mustSave(t, files, c.older, 2, "older")
		newest := mustSave(t, files, c.newest, 2, "newest")
		snaps := guarded(t, s, files)
		want := []string{newest}
		if c.falls {
			want = append(want, older)
		}
		if got := ids(t, snaps); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		files.folder.(*memory).files[newest][0] ^= 1
		if _, _, err := snaps.Open(newest); !is[*CorruptError](err) {
			t.Errorf("%s: %v", name, err)
		}
		if !c.falls {
			if !is[*CorruptError](told.only(t)) {
				t.Errorf("%s: Fail was told %v", name, told.errs)
			}
			continue
		}
		told.none(t)
		if got := ids(t, snaps); !slices.Equal(got, []string{older}) {
			t.Errorf("%s: %v", name, got)
		}
		if _, data, err := load(snaps, older); data != "older" || err != nil {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		if c.older < c.newest { // the next one takes over
			id := mustSave(t, snaps, c.newest+5, 2, "next")
			if got := ids(t, snaps); got[0] != id || len(got) != 1 {
				t.Errorf("%s: %v", name, got)
			}
		}
		told.none(t)
	}
}

// When the older one is damaged too, that is the end.
func TestDamagedSnapshots(t *testing.T) {
	s, told := logged(t, 1, 30, 2)
	files := NewMemory(quiet)
	older, newest := mustSave(t, files, 10, 2, "older"), mustSave(t, files, 20, 2, "newest")
	snaps := guarded(t, s, files)
	for _, id := range []string{newest, older} {
		told.none(t)
		files.folder.(*memory).files[id][0] ^= 1
		if _, _, err := snaps.Open(id); !is[*CorruptError](err) {
			t.Error(err)
		}
	}
	if !is[*CorruptError](told.only(t)) {
		t.Error(told.errs)
	}
}

// A log that no snapshot leads to, and a term that is behind, are found at open.
func TestSnapshotAndLogDisagree(t *testing.T) {
	files := NewMemory(quiet)
	for name, c := range map[string]struct {
		first, last, term uint64
		snapshot          uint64
		fine              bool
	}{
		"empty":                {1, 0, 9, 0, true},
		"all of the log":       {1, 5, 9, 0, true},
		"snapshot alone":       {1, 0, 9, 20, true},
		"log right behind":     {21, 30, 9, 20, true},
		"log around":           {15, 30, 9, 20, true},
		"log before":           {1, 10, 9, 20, true},
		"a gap":                {22, 30, 9, 20, false},
		"no snapshot":          {2, 30, 9, 0, false},
		"no term":              {1, 0, 0, 20, false},
		"a term that is older": {1, 0, 1, 20, false},
	} {
		s, _ := opened(t, newDisk())
		if err := s.SetUint64(keyTerm, c.term); err != nil {
			t.Fatal(err)
		}
		for i := c.first; i <= c.last; i++ {
			if err := s.StoreLog(entry(i, 2, "")); err != nil {
				t.Fatal(err)
			}
		}
		if files = NewMemory(quiet); c.snapshot > 0 {
			mustSave(t, files, c.snapshot, 2, "")
		}
		if _, err := s.GuardSnapshots(files); (err == nil) != c.fine || err != nil && !is[*CorruptError](err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, told := opened(t, newDisk())
	if _, err := s.GuardSnapshots(&brokenSnapshots{Files: files, at: "List"}); !errors.Is(err, errDisk) {
		t.Error(err)
	}
	told.none(t)
}

// A founding that a crash cut short has left nothing (P19); a vote, an entry, a snapshot or a later term is something.
func TestUnfounded(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(s *Store) error
		none bool
	}{
		"term 1":     {func(s *Store) error { return nil }, true},
		"a vote":     {func(s *Store) error { return vote(s, 1, "a") }, false},
		"an entry":   {func(s *Store) error { return s.StoreLog(entry(1, 1, "")) }, false},
		"a snapshot": {nil, false},
		"term 2":     {func(s *Store) error { return s.SetUint64(keyTerm, 2) }, false},
	} {
		d, files := newDisk(), NewMemory(quiet)
		s, _ := opened(t, d)
		if err := s.SetUint64(keyTerm, 1); err != nil {
			t.Fatal(err)
		}
		if c.do == nil {
			mustSave(t, files, 1, 1, "")
		} else if err := c.do(s); err != nil {
			t.Fatal(err)
		}
		s, _ = opened(t, d)
		snaps := guarded(t, s, files)
		if has, err := raft.HasExistingState(s, s, snaps); has == c.none || err != nil {
			t.Errorf("%s: %v, %v", name, has, err)
		}
		if err := s.SetUint64(keyTerm, 3); err != nil {
			t.Fatal(err)
		}
		if term, err := s.GetUint64(keyTerm); term != 3 || err != nil {
			t.Errorf("%s: term %d, %v", name, term, err)
		}
	}
}

// brokenSnapshots fails in one of its calls.
type brokenSnapshots struct {
	*Files
	at   string
	hang chan struct{}
	late bool // what hung is done after all
}

func (b *brokenSnapshots) check(op string) error {
	if b.at != op {
		return nil
	}
	if b.hang != nil {
		<-b.hang
	}
	if b.late {
		return nil
	}
	return errDisk
}

func (b *brokenSnapshots) List() ([]*raft.SnapshotMeta, error) {
	if err := b.check("List"); err != nil {
		return nil, err
	}
	return b.Files.List()
}

func (b *brokenSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if err := b.check("Open"); err != nil {
		return nil, nil, err
	}
	return b.Files.Open(id)
}

func (b *brokenSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (raft.SnapshotSink, error) {
	if err := b.check("Create"); err != nil {
		return nil, err
	}
	k, err := b.Files.Create(v, index, term, c, ci, t)
	return &brokenSink{k, b}, err
}

type brokenSink struct {
	raft.SnapshotSink
	store *brokenSnapshots
}

func (k *brokenSink) Write(p []byte) (int, error) {
	if err := k.store.check("Write"); err != nil {
		return 0, err
	}
	return k.SnapshotSink.Write(p)
}

func (k *brokenSink) Close() error {
	if err := k.store.check("Close"); err != nil {
		return err
	}
	return k.SnapshotSink.Close()
}

func (k *brokenSink) Cancel() error {
	if err := k.store.check("Cancel"); err != nil {
		return err
	}
	return k.SnapshotSink.Cancel()
}

// An error of the store below ends the member, and its goroutine lives on to tell who asked for the snapshot. A call
// that hangs is an error where raft's main goroutine waits for it.
func TestSnapshotStoreFails(t *testing.T) {
	for _, op := range []string{"Create", "Write", "Close", "Cancel", "List", "Open"} {
		for _, hangs := range []bool{false, true} {
			if hangs && (op == "List" || op == "Open") {
				continue // reading a large one may take its time
			}
			synctest.Test(t, func(t *testing.T) {
				s, told := logged(t, 1, 9, 2)
				broken := &brokenSnapshots{Files: NewMemory(quiet)}
				id := mustSave(t, broken, 3, 2, "older")
				snaps := guarded(t, s, broken)
				if broken.at = op; hangs {
					broken.hang = make(chan struct{})
					defer close(broken.hang)
				}
				began := time.Now()
				err, ended := ends(func() error {
					_, listErr := snaps.List()
					_, _, openErr := snaps.Open(id)
					k, err := snaps.Create(1, 5, 2, configuration, 1, nil)
					if err != nil {
						return errors.Join(listErr, openErr, err)
					}
					_, writeErr := k.Write([]byte("data"))
					if op == "Cancel" {
						return k.Cancel()
					}
					return errors.Join(listErr, openErr, writeErr, k.Close())
				})
				cause := told.only(t)
				if ended || err == nil || hangs != is[*StallError](cause) || !hangs && !errors.Is(cause, errDisk) {
					t.Errorf("%s: ended %v, %v; Fail was told %v", op, ended, err, cause)
				}
				if took := time.Since(began); took > defaultStall+time.Second {
					t.Errorf("%s: it took %v", op, took)
				}
				if _, ended := ends(func() error { return s.StoreLog(entry(10, 2, "")) }); !ended {
					t.Errorf("%s: the log is written on", op)
				}
			})
		}
	}
}

// A writer may use its buffer again, although a call that was given up on still reads it.
func TestSnapshotWriteCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := logged(t, 1, 9, 2)
		broken := &brokenSnapshots{Files: NewMemory(quiet), at: "Write", hang: make(chan struct{}), late: true}
		k, err := guarded(t, s, broken).Create(1, 5, 2, configuration, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := []byte("data")
		if n, err := k.Write(p); n != 0 || !is[*StallError](err) || !strings.Contains(fmt.Sprint(err), "writing a snapshot") {
			t.Error(n, err)
		}
		clear(p) // the race detector would see it
		close(broken.hang)
	})
}
