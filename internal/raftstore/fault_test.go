// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(lockChild); dir != "" {
		lockAndWait(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// fault is what happens to one call.
type fault int

const (
	fine        fault = iota
	failsBefore       // an error, and nothing was done
	failsAfter        // an error, and all was done
	failsHalf         // an error, and half of a batch was done
	panics
	exits // its goroutine ends
	hangs // until disk.wake is closed
)

func (f fault) String() string {
	return [...]string{"fine", "fails before", "fails after", "fails half way", "panics", "exits", "hangs"}[f]
}

var errDisk = errors.New("input/output error")

// disk is an underlying store whose calls can be made to fail. What it holds is there after a crash.
type disk struct {
	*raft.InmemStore
	wake chan struct{}

	mu    sync.Mutex
	plan  func(n int, op string) fault // n counts calls from 0; nil means that all is fine
	calls []string
}

func newDisk() *disk { return &disk{InmemStore: raft.NewInmemStore(), wake: make(chan struct{})} }

// failAt makes call n, counted from now, the one that fails.
func (d *disk) failAt(n int, f fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = nil
	d.plan = func(i int, _ string) fault {
		if i == n {
			return f
		}
		return fine
	}
}

func (d *disk) log() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// do makes one call, which consists of parts.
func (d *disk) do(op string, parts ...func() error) error {
	d.mu.Lock()
	n, plan, f := len(d.calls), d.plan, fine
	d.calls = append(d.calls, op)
	d.mu.Unlock()
	if plan != nil {
		f = plan(n, op)
	}
	switch f {
	case failsBefore:
		return errDisk
	case failsHalf:
		parts = parts[:len(parts)/2]
	case panics:
		panic("page 7 is on fire")
	case exits:
		runtime.Goexit()
	case hangs:
		<-d.wake
	}
	for _, p := range parts {
		if err := p(); err != nil && f == fine {
			return err
		}
	}
	if f == failsAfter || f == failsHalf {
		return errDisk
	}
	return nil
}

func (d *disk) GetLog(i uint64, l *raft.Log) error {
	return d.do("GetLog", func() error { return d.InmemStore.GetLog(i, l) })
}

func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *disk) StoreLogs(logs []*raft.Log) error {
	var parts []func() error
	for _, l := range logs {
		parts = append(parts, func() error { return d.InmemStore.StoreLog(l) })
	}
	return d.do("StoreLogs", parts...)
}

func (d *disk) DeleteRange(from, to uint64) error {
	return d.do("DeleteRange", func() error { return d.InmemStore.DeleteRange(from, to) })
}

func (d *disk) Set(k, v []byte) error {
	return d.do("Set", func() error { return d.InmemStore.Set(bytes.Clone(k), bytes.Clone(v)) })
}

func (d *disk) Get(k []byte) (v []byte, err error) {
	err = d.do("Get", func() (err error) { v, err = d.InmemStore.Get(k); return err })
	return v, err
}

func (d *disk) SetUint64([]byte, uint64) error { return errors.New("a number without a checksum") }

func (d *disk) GetUint64([]byte) (uint64, error) { return 0, errors.New("a number without a checksum") }

// failures collects what Config.Fail is told.
type failures struct {
	mu   sync.Mutex
	errs []error
}

func (f *failures) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
}

// only returns the one failure.
func (f *failures) only(t *testing.T) error {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) != 1 {
		t.Fatalf("Fail was called %d times: %v", len(f.errs), f.errs)
	}
	return f.errs[0]
}

func (f *failures) none(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) > 0 {
		t.Fatalf("Fail was called: %v", f.errs)
	}
}

// opened opens a store on d that keeps nothing in memory, so that every read is one.
func opened(t *testing.T, d *disk) (*Store, *failures) {
	t.Helper()
	told := &failures{}
	s, err := Open(Config{Log: d, Stable: d, Fail: told.note, CacheBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	return s, told
}

// ends calls f and reports whether the store ended its goroutine.
func ends(f func() error) (err error, ended bool) {
	err = <-spawn(f)
	return err, err == errEnded
}

func entry(index, term uint64, data string) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(data), Extensions: []byte("stamp")}
}

// contents is all that a store tells of its log and its votes.
type contents struct {
	Term, VoteTerm uint64
	Candidate      string
	Logs           []raft.Log
}

func (c contents) String() string {
	var logs []string
	for _, l := range c.Logs {
		logs = append(logs, fmt.Sprintf("%d@%d %q", l.Index, l.Term, l.Data))
	}
	return fmt.Sprintf("term %d, vote %d for %q, log %v", c.Term, c.VoteTerm, c.Candidate, logs)
}

func contentsOf(t *testing.T, s *Store) (c contents) {
	t.Helper()
	must := func(err error) {
		if err != nil && err != errNotFound {
			t.Helper()
			t.Fatal(err)
		}
	}
	var err error
	c.Term, err = s.GetUint64(keyTerm)
	must(err)
	c.VoteTerm, err = s.GetUint64(keyVoteTerm)
	must(err)
	candidate, err := s.Get(keyVoteCand)
	must(err)
	c.Candidate = string(candidate)
	first, last := s.bounds()
	for i := first; i <= last && last > 0; i++ {
		var l raft.Log
		must(s.ReadLog(i, &l))
		c.Logs = append(c.Logs, l)
	}
	return c
}

// step is one call that raft makes.
type step struct {
	name string
	do   func(s *Store) error
}

// steps are the life of a member: terms, votes, entries, a conflict, a compaction, an installed snapshot.
var steps = []step{
	{"term 1", func(s *Store) error { return s.SetUint64(keyTerm, 1) }},
	{"configuration", func(s *Store) error {
		return s.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: []byte("c")})
	}},
	{"term 2", func(s *Store) error { return s.SetUint64(keyTerm, 2) }},
	{"vote in 2", func(s *Store) error { return vote(s, 2, "a") }},
	{"entries", func(s *Store) error {
		return s.StoreLogs([]*raft.Log{entry(2, 2, "x"), entry(3, 2, "y"), entry(4, 2, ""), entry(5, 2, "z")})
	}},
	{"term 3", func(s *Store) error { return s.SetUint64(keyTerm, 3) }},
	{"vote in 3", func(s *Store) error { return vote(s, 3, "a longer name") }},
	{"conflict", func(s *Store) error { return s.DeleteRange(4, 5) }},
	{"other entries", func(s *Store) error { return s.StoreLogs([]*raft.Log{entry(4, 3, "w"), entry(5, 3, "v")}) }},
	{"compaction", func(s *Store) error { return s.DeleteRange(1, 2) }},
	{"snapshot installed", func(s *Store) error { return s.DeleteRange(3, 5) }},
	{"entries behind it", func(s *Store) error { return s.StoreLogs([]*raft.Log{entry(90, 3, "u"), entry(91, 3, "t")}) }},
	{"a gap", func(s *Store) error { return s.StoreLogs([]*raft.Log{entry(200, 3, "s")}) }},
	{"vote again", func(s *Store) error { return vote(s, 3, "a longer name") }},
}

func vote(s *Store, term uint64, candidate string) error {
	if err := s.SetUint64(keyVoteTerm, term); err != nil {
		return err
	}
	return s.Set(keyVoteCand, []byte(candidate))
}

// A crash or an error at any call leaves what was there before it or what is there after it, and nothing is written
// behind an error (P19, D16).
func TestCrashAtEveryCall(t *testing.T) {
	d := newDisk()
	s, told := opened(t, d)
	states := []contents{contentsOf(t, s)}
	d.failAt(-1, fine)
	var calls []int // of the disk, after each step
	for _, st := range steps {
		if err := st.do(s); err != nil {
			t.Fatal(st.name, err)
		}
		calls = append(calls, len(d.log()))
		plan := d.plan
		d.plan = nil
		kept := d.log()
		states = append(states, contentsOf(t, s))
		d.plan, d.calls = plan, kept
	}
	told.none(t)
	total := calls[len(calls)-1]
	for n := range total {
		for _, f := range []fault{failsBefore, failsAfter, failsHalf, panics, exits} {
			d := newDisk()
			s, told := opened(t, d)
			d.failAt(n, f)
			done := 0
			err, ended := ends(func() error {
				for ; done < len(steps); done++ {
					if err := steps[done].do(s); err != nil {
						return err
					}
				}
				return nil
			})
			compaction := steps[done].name == "compaction" || steps[done].name == "snapshot installed"
			if !ended && !compaction || ended && compaction {
				t.Fatalf("call %d %v, in %q: %v, ended %v", n, f, steps[done].name, err, ended)
			}
			cause := told.only(t)
			if f <= failsHalf && !errors.Is(cause, errDisk) {
				t.Errorf("call %d %v: Fail was told %v", n, f, cause)
			}
			if !s.Stalled() {
				t.Error("it goes on sending and voting")
			}
			for _, st := range steps[done:] { // nothing reaches the disk any more
				ends(func() error { return st.do(s) })
			}
			if got := len(d.log()); got != n+1 {
				t.Fatalf("call %d %v: %d calls followed", n, f, got-n-1)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again, _ := opened(t, d)
			got := contentsOf(t, again)
			if !between(got, states[done], states[done+1]) {
				t.Errorf("call %d %v, in %q: found\n%v, want\n%v or\n%v", n, f, steps[done].name, got, states[done], states[done+1])
			}
		}
	}
}

// between reports whether got is one of two states, or the log got some way from the one to the other.
func between(got, before, after contents) bool {
	same := func(a, b contents) bool { return reflect.DeepEqual(a, b) }
	if same(got, before) || same(got, after) {
		return true
	}
	got.Logs, before.Logs, after.Logs = slices.Clone(got.Logs), slices.Clone(before.Logs), slices.Clone(after.Logs)
	for n := range after.Logs { // the beginning of the new entries
		part := after
		if part.Logs = after.Logs[:n]; len(part.Logs) == 0 {
			part.Logs = nil
		}
		if same(got, part) {
			return true
		}
	}
	return false
}
