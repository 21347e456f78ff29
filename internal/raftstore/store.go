// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// defaultStall is far above what a healthy disk takes and below what
	// people take for an outage.
	defaultStall = 5 * time.Second

	// defaultCache holds every entry that replication and apply still read
	// while members keep up: 128 entries of the largest common size.
	defaultCache = 32 << 20

	// stallTicks is how many times a call is seen running before it counts as
	// stalled. Many, because a process that was stopped for an hour finds all
	// its timers due: that is one tick, and no reason to blame the disk.
	stallTicks = 5

	// deleteChunk is how many entries compaction deletes at once. In between,
	// appends get their turn.
	deleteChunk = 4096
)

// Config says what a Store stands on.
type Config struct {
	Log    raft.LogStore
	Stable raft.StableStore

	// Fail is called once, with the first error after Open, from whatever
	// goroutine finds it. It must not block. It may be called before the code
	// that starts raft has gone on.
	Fail func(error)

	// Wrote is called with what each write to Log or Stable took that went well.
	// It must not block. Nil means that nobody asks.
	Wrote func(time.Duration)

	// Stall is how long one call of Log or Stable, or of a snapshot's sink, may
	// take; longer is an error. Zero means 5 s, less than zero no limit.
	Stall time.Duration

	// Release is called once, after Close, when nothing uses Log and Stable any
	// more. Nil means that there is nothing to release.
	Release func() error

	// CacheBytes bounds the recent entries kept in memory. Zero means 32 MiB,
	// less than zero none.
	CacheBytes int

	Logger *slog.Logger
}

// Store is a raft.LogStore and raft.StableStore whose answers can be trusted.
// See the package comment for how it fails.
type Store struct {
	log     raft.LogStore
	stable  raft.StableStore
	onFail  func(error)
	onWrite func(time.Duration)
	stall   time.Duration
	logger  *slog.Logger
	release func() error
	writing chan struct{} // a token: who has it may write to log and stable
	warned  time.Time     // of a slow write; belongs to who has the token
	dead    chan struct{} // closed by the first failure
	idle    chan struct{} // closed when the store is, and nothing runs any more
	applied atomic.Uint64 // index up to which the state machine has the log
	ended   chan struct{} // closed when Close has closeErr

	closeErr error

	mu       sync.RWMutex // guards the fields below; never held across a call of log or stable
	err      error        // the first failure
	closed   bool
	calls    int    // running in log, stable and snapshots
	first    uint64 // of the log; 0 if it is empty
	last     uint64
	metas    []meta // one per entry
	bytes    int64  // payload in the log
	appended int64  // payload stored since Open
	deletes  int    // from the log so far
	cache    cache
	term     uint64 // as stored; 0 if there is none
	voted    bool   // there is a vote
	voteTerm uint64 // waits for its candidate
	voting   bool
}

// meta is the size of an entry's payload, and one bit whether it is something
// else than a command.
type meta uint32

const notCommand meta = 1 << 31

func metaOf(l *raft.Log) meta {
	m := meta(len(l.Data)+len(l.Extensions)) &^ notCommand
	if l.Type != raft.LogCommand {
		m |= notCommand
	}
	return m
}

func (m meta) size() int64 { return int64(m &^ notCommand) }

var (
	_ raft.LogStore          = (*Store)(nil)
	_ raft.StableStore       = (*Store)(nil)
	_ raft.MonotonicLogStore = (*Store)(nil)
)

// Open reads the whole log and the votes and checks them. What it finds wrong
// with them is a *CorruptError.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		log: cfg.Log, stable: cfg.Stable, onFail: cfg.Fail, onWrite: cfg.Wrote, stall: cfg.Stall, logger: cfg.Logger,
		release: cfg.Release, writing: make(chan struct{}, 1), dead: make(chan struct{}), idle: make(chan struct{}), ended: make(chan struct{}),
		cache: cache{limit: cfg.CacheBytes},
	}
	if s.stall == 0 {
		s.stall = defaultStall
	}
	if s.cache.limit == 0 {
		s.cache.limit = defaultCache
	}
	if s.onWrite == nil {
		s.onWrite = func(time.Duration) {}
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if err := s.direct("", s.scan); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) scan() error {
	var first, last uint64
	if err := Protect(func() (err error) { first, err = s.log.FirstIndex(); return err }); err != nil {
		return fmt.Errorf("reading the log's first index: %w", err)
	}
	if err := Protect(func() (err error) { last, err = s.log.LastIndex(); return err }); err != nil {
		return fmt.Errorf("reading the log's last index: %w", err)
	}
	if (first == 0) != (last == 0) || first > last {
		return &CorruptError{Reason: fmt.Sprintf("the log reaches from %d to %d", first, last)}
	}
	var term uint64
	if last > 0 {
		for i := first; i <= last; i++ {
			var stored raft.Log
			err := Protect(func() error { return s.log.GetLog(i, &stored) })
			if errors.Is(err, raft.ErrLogNotFound) {
				return &CorruptError{i, "missing"}
			}
			if err != nil {
				return &CorruptError{i, err.Error()}
			}
			l, err := openEntry(i, &stored)
			if err != nil {
				return err
			}
			if l.Term < term {
				return &CorruptError{i, fmt.Sprintf("its term %d is older than %d, the one before", l.Term, term)}
			}
			term = l.Term
			s.extend(&l)
		}
	}
	s.appended = 0
	return s.scanStable(term)
}

// scanStable checks the term and the vote. Raft stores a term before anything
// of that term, so one that is behind means that an older state is back.
func (s *Store) scanStable(lastTerm uint64) error {
	term, err := s.getUint64(keyTerm, s.direct)
	if err != nil && err != errNotFound {
		return err
	}
	vote, _, err := s.vote(s.direct)
	if err != nil && err != errNotFound {
		return err
	}
	if term < max(lastTerm, vote) {
		return &CorruptError{Reason: fmt.Sprintf("the current term %d is older than the log's, %d, or the vote's, %d", term, lastTerm, vote)}
	}
	s.term, s.voted = term, err == nil
	return nil
}

// extend notes one more entry at the end of the log.
func (s *Store) extend(l *raft.Log) {
	m := metaOf(l)
	if s.first == 0 {
		s.first = l.Index
	}
	s.last = l.Index
	s.metas = append(s.metas, m)
	s.bytes += m.size()
	s.appended += m.size()
	s.cache.push(bareEntry(l))
}

// FirstIndex returns the index of the oldest entry, 0 if there is none.
func (s *Store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.first, nil
}

// LastIndex returns the index of the newest entry, 0 if there is none.
func (s *Store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last, nil
}

// IsMonotonic makes raft delete the whole log when it has installed a snapshot,
// instead of leaving entries below a gap. Those may never have been committed,
// and raft would send them to followers.
func (s *Store) IsMonotonic() bool { return true }

// GetLog reads an entry for raft. Where an error is fatal it does not return.
func (s *Store) GetLog(index uint64, out *raft.Log) error {
	err := s.ReadLog(index, out)
	if err == nil || err == raft.ErrLogNotFound || err == ErrClosed {
		return err
	}
	runtime.Goexit()
	return nil
}

// ReadLog reads an entry and returns every error. A fatal one is reported to
// Config.Fail as well.
func (s *Store) ReadLog(index uint64, out *raft.Log) error {
	for {
		s.mu.RLock()
		outside := s.last == 0 || index < s.first || index > s.last
		cached, hit := s.cache.get(index)
		deletes := s.deletes
		s.mu.RUnlock()
		if outside {
			return raft.ErrLogNotFound
		}
		if hit {
			*out = cached
			return nil
		}
		var l raft.Log
		err := s.call("reading the log", s.stall, func() error { return s.log.GetLog(index, &l) })
		if err == nil {
			if l, err = openEntry(index, &l); err == nil {
				*out = l
				return nil
			}
		}
		if errors.Is(err, raft.ErrLogNotFound) {
			s.mu.RLock()
			deleted := s.deletes != deletes
			s.mu.RUnlock()
			if deleted {
				continue // it was there when we looked
			}
			err = &CorruptError{index, "missing"}
		}
		if err == ErrClosed {
			return err
		}
		return s.fail(fmt.Errorf("reading log entry %d: %w", index, err))
	}
}

// StoreLog appends one entry. It returns only once that is done.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries. It returns only once that is done. The data of
// the entries is kept in memory and must not be changed afterwards.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	return s.orEnd(s.append(logs))
}

func (s *Store) append(logs []*raft.Log) error {
	sealed := make([]raft.Log, len(logs))
	stored := make([]*raft.Log, len(logs))
	for i, l := range logs {
		if l.Index == 0 || l.Index != logs[0].Index+uint64(i) {
			return fmt.Errorf("entry %d is not in line after %d", l.Index, logs[0].Index)
		}
		sealed[i] = sealEntry(l)
		stored[i] = &sealed[i]
	}
	return s.write("appending to the log", func() error {
		first, last := s.bounds()
		switch from := logs[0].Index; {
		case last == 0 || from == last+1:
		case from <= last:
			return fmt.Errorf("entry %d is there already", from)
		default: // a snapshot covers the gap, and all that is before it
			if err := s.delete(first, last); err != nil {
				return err
			}
		}
		if err := s.log.StoreLogs(stored); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, l := range logs {
			s.extend(l)
		}
		return nil
	})
}

func (s *Store) bounds() (first, last uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.first, s.last
}

// Applied tells that the state machine has applied the log up to index. What it has applied is committed, so raft never
// takes it back from the end of the log: where it does all the same, the state has parted from that of the others.
func (s *Store) Applied(index uint64) { s.applied.Store(index) }

// DeleteRange deletes entries at the beginning or at the end of the log. To take back what is applied is fatal.
//
// A failure at the beginning, which is compaction, is returned as an error:
// raft gives it to whoever asked for the snapshot, who would otherwise wait for
// ever. It is fatal for the member all the same.
func (s *Store) DeleteRange(from, to uint64) error {
	first, last := s.bounds()
	from, to = max(from, first), min(to, last)
	if last == 0 || from > to {
		return nil
	}
	compacting := from == first
	if !compacting && from <= s.applied.Load() {
		return s.orEnd(&CorruptError{from, "it is applied, and to be replaced by another one"})
	}
	var err error
	for from <= to && err == nil {
		chunk := to
		if to < last {
			chunk = min(to, from+deleteChunk-1)
		}
		lo := from
		err = s.write("deleting from the log", func() error { return s.delete(lo, chunk) })
		from = chunk + 1
	}
	if compacting {
		return err
	}
	return s.orEnd(err)
}

// delete deletes what is left of a range, and never leaves a hole. Its caller
// has the token.
func (s *Store) delete(from, to uint64) error {
	first, last := s.bounds()
	from, to = max(from, first), min(to, last)
	switch {
	case last == 0 || from > to:
		return nil
	case from > first && to < last:
		return fmt.Errorf("%d to %d would be a hole in the log, %d to %d", from, to, first, last)
	}
	s.forget(from, to)
	return s.log.DeleteRange(from, to)
}

// forget drops entries from what is kept in memory, before they are deleted: a
// reader that does not find one any more sees that it may look again.
func (s *Store) forget(from, to uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deletes++
	for _, m := range s.metas[from-s.first : to-s.first+1] {
		s.bytes -= m.size()
	}
	switch {
	case from == s.first && to == s.last:
		s.first, s.last, s.metas = 0, 0, nil
		s.cache.clear()
	case from == s.first:
		s.first, s.metas = to+1, s.metas[to-from+1:]
		s.cache.dropTo(to)
	default:
		s.last, s.metas = from-1, s.metas[:from-s.first]
		s.cache.dropFrom(from)
	}
}

// LastCommand returns the index of the last command in the log at or before
// index, 0 if there is none: a snapshot covers what is no longer in the log, so
// the state has had it ever since it was restored.
func (s *Store) LastCommand(index uint64) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := min(index, s.last); i >= s.first && i > 0; i-- {
		if s.metas[i-s.first]&notCommand == 0 {
			return i
		}
	}
	return 0
}

// LogBytes returns the payload in the log.
func (s *Store) LogBytes() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bytes
}

// AppendedBytes returns the payload that was appended since Open.
func (s *Store) AppendedBytes() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.appended
}
