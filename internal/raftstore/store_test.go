// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// filled has a term, a vote and entries 1 to 9.
func filled(t *testing.T) *disk {
	t.Helper()
	d := newDisk()
	s, _ := opened(t, d)
	ok := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Boot("a")
	ok(err)
	ok(s.SetUint64(keyTerm, 4))
	ok(vote(s, 4, "somebody"))
	for i := uint64(1); i < 10; i++ {
		ok(s.StoreLog(&raft.Log{Index: i, Term: 1 + i/3, Type: raft.LogType(i % 2), Data: []byte("the data of an entry"), Extensions: []byte{byte(i), 2, 3}}))
	}
	return d
}

// damage is one way in which an entry can be other than it was written.
func damage(yield func(name string, change func(l *raft.Log)) bool) {
	flip := func(b []byte, bit int) []byte {
		b = bytes.Clone(b)
		b[bit/8] ^= 1 << (bit % 8)
		return b
	}
	for bit := range 8 * len("the data of an entry") {
		if !yield("a bit of the data", func(l *raft.Log) { l.Data = flip(l.Data, bit) }) {
			return
		}
	}
	for bit := range 8 * (3 + sealSize) {
		if !yield("a bit of the extensions", func(l *raft.Log) { l.Extensions = flip(l.Extensions, bit) }) {
			return
		}
	}
	for bit := range 64 {
		if !yield("a bit of the term", func(l *raft.Log) { l.Term ^= 1 << bit }) || !yield("a bit of the index", func(l *raft.Log) { l.Index ^= 1 << bit }) {
			return
		}
	}
	for bit := range 8 {
		if !yield("a bit of the type", func(l *raft.Log) { l.Type ^= 1 << bit }) {
			return
		}
	}
	for name, change := range map[string]func(l *raft.Log){
		"no extensions":    func(l *raft.Log) { l.Extensions = nil },
		"short extensions": func(l *raft.Log) { l.Extensions = l.Extensions[:sealSize-1] },
		"no data":          func(l *raft.Log) { l.Data = nil },
		"short data":       func(l *raft.Log) { l.Data = l.Data[:1] },
		"a byte moved over": func(l *raft.Log) {
			n := len(l.Data) - 1
			l.Extensions = append([]byte{l.Data[n]}, l.Extensions...)
			l.Data = l.Data[:n]
		},
		"all zero": func(l *raft.Log) { *l = raft.Log{} },
	} {
		if !yield(name, change) {
			return
		}
	}
}

// Whatever is wrong with an entry is found at open, at a read, and by raft, and the entry is never handed out (P19).
func TestDamagedEntry(t *testing.T) {
	for name, change := range damage {
		d := filled(t)
		s, told := opened(t, d)
		var l raft.Log
		if err := d.InmemStore.GetLog(5, &l); err != nil {
			t.Fatal(err)
		}
		change(&l)
		damaged := &damagedDisk{disk: d, index: 5, entry: l}
		s.log = damaged
		out := raft.Log{Index: 77}
		if _, ended := ends(func() error { return s.GetLog(5, &out) }); !ended || out.Index != 77 {
			t.Errorf("%s: raft got %v", name, out)
		}
		if err := told.only(t); !is[*CorruptError](err) || !strings.Contains(err.Error(), "entry 5") {
			t.Errorf("%s: Fail was told %v", name, err)
		}
		_, err := Open(Config{Log: damaged, Stable: d})
		if corrupt, ok := errors.AsType[*CorruptError](err); !ok || corrupt.Index != 5 {
			t.Errorf("%s: open: %v", name, err)
		}
	}
}

// damagedDisk has another entry in the place of one.
type damagedDisk struct {
	*disk
	index uint64
	entry raft.Log
}

func (d *damagedDisk) GetLog(i uint64, l *raft.Log) error {
	if i == d.index {
		*l = d.entry
		return nil
	}
	return d.disk.GetLog(i, l)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// Entries in the wrong order, missing ones and an older state are found at open.
func TestDamagedStore(t *testing.T) {
	for name, change := range map[string]func(d *raft.InmemStore){
		"two entries swapped": func(d *raft.InmemStore) {
			var a, b raft.Log
			d.GetLog(3, &a)
			d.GetLog(4, &b)
			a.Index, b.Index = 4, 3
			d.StoreLogs([]*raft.Log{&a, &b})
		},
		"an entry of a later term before": func(d *raft.InmemStore) {
			l := sealEntry(&raft.Log{Index: 3, Term: 4})
			d.StoreLog(&l)
		},
		"a hole":       func(d *raft.InmemStore) { d.DeleteRange(4, 4) },
		"no term":      func(d *raft.InmemStore) { d.Set(keyTerm, nil) },
		"an old term":  func(d *raft.InmemStore) { d.Set(keyTerm, sealValue(keyTerm, []byte{0, 0, 0, 0, 0, 0, 0, 3})) },
		"a short term": func(d *raft.InmemStore) { d.Set(keyTerm, sealValue(keyTerm, []byte{3})) },
		"a short vote": func(d *raft.InmemStore) { d.Set(keyVote, sealValue(keyVote, []byte{3})) },
		"a vote for the term": func(d *raft.InmemStore) {
			v, _ := d.Get(keyVote)
			d.Set(keyTerm, v)
		},
		"another's vote": func(d *raft.InmemStore) { d.Set(keyVote, sealValue(keyTerm, make([]byte, 9))) },
		"a later vote":   func(d *raft.InmemStore) { d.Set(keyVote, sealValue(keyVote, []byte{0, 0, 0, 0, 0, 0, 0, 5, 'a'})) },
	} {
		d := filled(t)
		change(d.InmemStore)
		if _, err := Open(Config{Log: d, Stable: d}); !is[*CorruptError](err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, k := range [][]byte{keyTerm, keyVote, keyIdentity} {
		good, err := filled(t).InmemStore.Get(k)
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(good) {
			d := filled(t)
			bad := bytes.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			d.InmemStore.Set(k, bad)
			s, err := Open(Config{Log: d, Stable: d})
			if err == nil {
				_, err = s.Boot("a")
			}
			if !is[*CorruptError](err) {
				t.Errorf("bit %d of %s: %v", bit, k, err)
			}
		}
	}
	d := filled(t)
	s, told := opened(t, d)
	d.InmemStore.Set(keyVote, []byte("rotten"))
	if _, ended := ends(func() error { _, err := s.GetUint64(keyVoteTerm); return err }); !ended || !is[*CorruptError](told.only(t)) {
		t.Error("a damaged vote was read")
	}
}

// Whatever fails while the store is opened is returned, and nobody is told.
func TestOpenFails(t *testing.T) {
	d := filled(t)
	d.failAt(-1, fine)
	opened(t, d)
	total := len(d.log())
	for n := range total {
		for _, f := range []fault{failsBefore, panics} {
			told := &failures{}
			d.failAt(n, f)
			if _, err := Open(Config{Log: d, Stable: d, Fail: told.note}); err == nil {
				t.Errorf("call %d %v: no error", n, f)
			}
			told.none(t)
		}
	}
	for name, under := range map[string]raft.LogStore{
		"no first":   bounds{d, 0, 9},
		"no last":    bounds{d, 1, 0},
		"backwards":  bounds{d, 9, 1},
		"first":      bounds{d, 1, 10},
		"last fails": bounds{d, 1, 1 << 63},
	} {
		d.failAt(-1, fine)
		if _, err := Open(Config{Log: under, Stable: d}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// bounds is a log that says something else about itself.
type bounds struct {
	*disk
	first, last uint64
}

func (b bounds) FirstIndex() (uint64, error) { return b.first, nil }

func (b bounds) LastIndex() (uint64, error) {
	if b.last > 1<<62 {
		return 0, errDisk
	}
	return b.last, nil
}

// Of a key that is not there raft expects these words, whatever the store below says.
func TestMissingKeys(t *testing.T) {
	s, told := opened(t, newDisk())
	for _, k := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand", "other"} {
		if _, err := s.Get([]byte(k)); err == nil || err.Error() != "not found" {
			t.Errorf("%s: %v", k, err)
		}
		if _, err := s.GetUint64([]byte(k)); err == nil || err.Error() != "not found" {
			t.Errorf("%s: %v", k, err)
		}
	}
	d := newDisk()
	if err := d.Set([]byte("other"), []byte{}); err != nil { // the interface speaks of an empty value
		t.Fatal(err)
	}
	s, _ = opened(t, d)
	if _, err := s.Get([]byte("other")); err != errNotFound {
		t.Error(err)
	}
	told.none(t)
}

// What is not raft's is stored like the rest.
func TestOtherValues(t *testing.T) {
	d := newDisk()
	s, _ := opened(t, d)
	key, val := []byte("key"), []byte("value")
	if err := s.Set(key, val); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte("number"), 7); err != nil {
		t.Fatal(err)
	}
	copy(key, "xxx")
	copy(val, "xxxxx")
	s, _ = opened(t, d)
	if v, err := s.Get([]byte("key")); string(v) != "value" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := s.GetUint64([]byte("number")); v != 7 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
}

// What raft stores at every start, the term that it has read, costs no write. A term never goes back.
func TestTerm(t *testing.T) {
	d := newDisk()
	s, told := opened(t, d)
	d.failAt(-1, fine)
	for _, term := range []uint64{0, 3, 3} {
		if err := s.SetUint64(keyTerm, term); err != nil {
			t.Fatal(err)
		}
	}
	if calls := d.log(); !reflect.DeepEqual(calls, []string{"Set"}) {
		t.Error(calls)
	}
	told.none(t)
	if _, ended := ends(func() error { return s.SetUint64(keyTerm, 2) }); !ended {
		t.Error("the term went back")
	}
	told.only(t)
}

// A candidate without a term is not a vote.
func TestVoteNeedsTerm(t *testing.T) {
	s, told := opened(t, newDisk())
	if err := vote(s, 0, "a"); err != nil {
		t.Fatal(err)
	}
	if _, ended := ends(func() error { return s.Set(keyVoteCand, []byte("b")) }); !ended {
		t.Error("a vote without a term")
	}
	told.only(t)
}

// What would leave a hole, or a second entry of the same index, is refused before it reaches the disk.
func TestOutOfLine(t *testing.T) {
	for name, f := range map[string]func(s *Store) error{
		"a hole in a batch": func(s *Store) error { return s.StoreLogs([]*raft.Log{entry(10, 4, ""), entry(12, 4, "")}) },
		"the same twice":    func(s *Store) error { return s.StoreLogs([]*raft.Log{entry(9, 4, "")}) },
		"index 0":           func(s *Store) error { return s.StoreLogs([]*raft.Log{entry(0, 4, "")}) },
		"a hole":            func(s *Store) error { return s.DeleteRange(4, 5) },
	} {
		d := filled(t)
		s, told := opened(t, d)
		d.failAt(-1, fine)
		if _, ended := ends(func() error { return f(s) }); !ended || len(d.log()) > 0 {
			t.Errorf("%s: ended %v, calls %v", name, ended, d.log())
		}
		told.only(t)
	}
}

// Compaction lets appends in between; what comes off the end comes off at once.
func TestDeleteInChunks(t *testing.T) {
	const n = 3*deleteChunk + 7
	d := newDisk()
	s, told := opened(t, d)
	if err := s.SetUint64(keyTerm, 1); err != nil {
		t.Fatal(err)
	}
	var logs []*raft.Log
	for i := range uint64(n) {
		logs = append(logs, entry(i+1, 1, "x"))
	}
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to uint64
		calls    int
	}{{1, n - 100, 3}, {0, 5, 0}, {n - 50, n + 50, 1}, {1, n, 1}, {1, n, 0}} {
		first, last := s.bounds()
		d.failAt(-1, fine)
		if err := s.DeleteRange(c.from, c.to); err != nil {
			t.Fatal(err)
		}
		if got := len(d.log()); got != c.calls {
			t.Errorf("%d to %d of %d to %d took %d calls, want %d", c.from, c.to, first, last, got, c.calls)
		}
	}
	if first, last := s.bounds(); first != 0 || last != 0 || s.LogBytes() != 0 {
		t.Errorf("%d to %d are left, %d bytes", first, last, s.LogBytes())
	}
	told.none(t)
}

// A failed compaction is an error for whoever asked, and the end of the member.
func TestCompactionFails(t *testing.T) {
	d := filled(t)
	s, told := opened(t, d)
	d.failAt(0, failsBefore)
	if err := s.DeleteRange(1, 4); !errors.Is(err, errDisk) {
		t.Error(err)
	}
	if !errors.Is(told.only(t), errDisk) {
		t.Error("Fail was not told")
	}
}

// A read that comes upon a compaction is told that the entry is not there, not that the log is damaged.
func TestReadDuringCompaction(t *testing.T) {
	d := filled(t)
	s, told := opened(t, d)
	d.plan = func(_ int, op string) fault {
		if first, _ := s.bounds(); op == "GetLog" && first == 1 {
			s.DeleteRange(1, 4) // between the look and the read
		}
		return fine
	}
	var l raft.Log
	if err := s.ReadLog(3, &l); err != raft.ErrLogNotFound {
		t.Error(err)
	}
	told.none(t)
	d.plan = nil
	d.InmemStore.DeleteRange(6, 6)
	if err := s.ReadLog(6, &l); !is[*CorruptError](err) {
		t.Errorf("a missing entry: %v", err)
	}
	told.only(t)
}

// A call that does not return ends the member after Stall; nothing is called any more, and Close does not wait for it
// a second time. What the store stands on is released when the call has returned, not before.
func TestStalledCall(t *testing.T) {
	for op, f := range map[string]func(s *Store) error{
		"StoreLogs":   func(s *Store) error { return s.StoreLog(entry(10, 4, "")) },
		"DeleteRange": func(s *Store) error { return s.DeleteRange(1, 3) },
		"Set":         func(s *Store) error { return s.SetUint64(keyTerm, 9) },
		"Get":         func(s *Store) error { _, err := s.Get(keyVoteCand); return err },
		"GetLog":      func(s *Store) error { return s.ReadLog(4, &raft.Log{}) },
	} {
		synctest.Test(t, func(t *testing.T) {
			d := filled(t)
			told := &failures{}
			var released atomic.Int32
			s, err := Open(Config{
				Log: d, Stable: d, Fail: told.note, CacheBytes: -1, Stall: time.Second,
				Release: func() error { released.Add(1); return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			d.failAt(0, hangs)
			began := time.Now()
			err, _ = ends(func() error { return f(s) })
			if took := time.Since(began); took < time.Second || took > 2*time.Second {
				t.Errorf("%s: given up after %v", op, took)
			}
			if !is[*StallError](told.only(t)) || !s.Stalled() {
				t.Errorf("%s: %v, Fail was told %v", op, err, told.errs)
			}
			ends(func() error { return s.StoreLog(entry(10, 4, "")) })
			ends(func() error { return s.Set([]byte("k"), nil) })
			ends(func() error { _, err := s.Get([]byte("k")); return err })
			if calls := d.log(); len(calls) != 1 {
				t.Errorf("%s: %v followed", op, calls[1:])
			}
			began = time.Now()
			if err := s.Close(); !is[*StallError](err) || time.Since(began) > 0 {
				t.Errorf("%s: close: %v after %v", op, err, time.Since(began))
			}
			synctest.Wait()
			if released.Load() != 0 {
				t.Errorf("%s: released under a running call", op)
			}
			close(d.wake)
			synctest.Wait()
			if released.Load() != 1 {
				t.Errorf("%s: released %d times", op, released.Load())
			}
		})
	}
}

// A slow disk is not a stalled one, and Close waits for it.
func TestSlowCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := filled(t)
		told := &failures{}
		released := false
		s, err := Open(Config{Log: d, Stable: d, Fail: told.note, Release: func() error { released = true; return errDisk }})
		if err != nil {
			t.Fatal(err)
		}
		d.failAt(0, hangs)
		stored := make(chan error, 1)
		go func() { stored <- s.StoreLog(entry(10, 4, "")) }()
		synctest.Wait()
		closed := make(chan error, 2)
		for range 2 {
			go func() { closed <- s.Close() }()
		}
		time.Sleep(defaultStall - time.Second)
		if len(closed) > 0 || released || s.Stalled() {
			t.Error("it does not wait")
		}
		close(d.wake)
		if err := <-stored; err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-closed; err != errDisk { // of Release
				t.Error(err)
			}
		}
		told.none(t)
	})
}

// After Close every call returns ErrClosed, and none ends its goroutine.
func TestClosed(t *testing.T) {
	d := filled(t)
	s, told := opened(t, d)
	snaps, err := s.GuardSnapshots(NewMemory(s.logger))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d.failAt(-1, fine)
	for name, f := range map[string]func() error{
		"StoreLog":    func() error { return s.StoreLog(entry(10, 4, "")) },
		"DeleteRange": func() error { return s.DeleteRange(1, 2) },
		"truncate":    func() error { return s.DeleteRange(8, 9) },
		"GetLog":      func() error { return s.GetLog(1, &raft.Log{}) },
		"Set":         func() error { return s.Set([]byte("k"), nil) },
		"SetUint64":   func() error { return s.SetUint64(keyTerm, 9) },
		"Get":         func() error { _, err := s.Get([]byte("k")); return err },
		"GetUint64":   func() error { _, err := s.GetUint64(keyTerm); return err },
		"List":        func() error { _, err := snaps.List(); return err },
		"Open":        func() error { _, _, err := snaps.Open("1-1-1.snapshot"); return err },
		"Create":      func() error { _, err := snaps.Create(1, 1, 1, raft.Configuration{}, 1, nil); return err },
	} {
		if err, _ := ends(f); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if calls := d.log(); len(calls) > 0 {
		t.Error(calls)
	}
	told.none(t)
}

// Several writers and a failure: all of them end, and only the first error counts.
func TestFailureEndsAllWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := filled(t)
		s, told := opened(t, d)
		d.failAt(0, hangs)
		ended := make(chan bool, 10)
		for range cap(ended) {
			go func() {
				_, e := ends(func() error { return s.Set([]byte("k"), nil) })
				ended <- e
			}()
		}
		for range cap(ended) {
			if !<-ended {
				t.Error("a writer returned")
			}
		}
		told.only(t)
		close(d.wake)
	})
}

// Guard turns what ends a goroutine into an error.
func TestGuard(t *testing.T) {
	d := filled(t)
	s, told := opened(t, d)
	if err := s.Guard(func() error { return errDisk }); err != errDisk {
		t.Error(err)
	}
	if err := s.Guard(func() error { panic("no") }); !is[*PanicError](err) {
		t.Error(err)
	}
	if err := s.Guard(func() error { panic(errDisk) }); !errors.Is(err, errDisk) {
		t.Error(err)
	}
	told.none(t)
	d.failAt(0, failsBefore)
	err := s.Guard(func() error { return s.StoreLog(entry(10, 4, "")) })
	if !errors.Is(err, errDisk) || err != told.only(t) {
		t.Error(err)
	}
}

// A store without Fail, Release and Logger works.
func TestBareConfig(t *testing.T) {
	d := newDisk()
	s, err := Open(Config{Log: d, Stable: d, Stall: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64(keyTerm, 1); err != nil {
		t.Fatal(err)
	}
	d.failAt(0, panics)
	if _, ended := ends(func() error { return s.StoreLog(entry(1, 1, "")) }); !ended {
		t.Error("it goes on")
	}
	if !s.IsMonotonic() || s.Close() != nil {
		t.Error("close")
	}
}

// What the state machine has applied is never taken back; what it has not may be.
func TestAppliedIsNotTakenBack(t *testing.T) {
	d := newDisk()
	s, told := opened(t, d)
	if err := s.SetUint64(keyTerm, 1); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(5) {
		if err := s.StoreLog(entry(i+1, 1, "x")); err != nil {
			t.Fatal(err)
		}
	}
	s.Applied(3)
	if err := s.DeleteRange(4, 5); err != nil {
		t.Fatal(err)
	}
	told.none(t)
	if err, ended := ends(func() error { return s.DeleteRange(3, 3) }); !ended {
		t.Errorf("an applied entry is taken back: %v", err)
	}
	if _, last := s.bounds(); last != 3 {
		t.Errorf("the log ends with %d", last)
	}
	if err := told.only(t); !is[*CorruptError](err) {
		t.Errorf("told of %v", err)
	}
}
