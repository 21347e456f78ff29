// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// snapshots stands between raft and a raft.SnapshotStore: an error is fatal for
// the member and is returned as well, which raft can live with; and an older
// snapshot takes the place of a damaged one only where nothing is lost by it.
type snapshots struct {
	store *Store
	under raft.SnapshotStore

	mu      sync.Mutex
	damaged []string // ids
}

// GuardSnapshots returns a store of snapshots for the same raft, on top of
// under, after it has checked that the log continues the newest one.
func (s *Store) GuardSnapshots(under raft.SnapshotStore) (raft.SnapshotStore, error) {
	var metas []*raft.SnapshotMeta
	if err := s.direct("", func() (err error) { metas, err = under.List(); return err }); err != nil {
		return nil, fmt.Errorf("listing the snapshots: %w", err)
	}
	var newest uint64
	if len(metas) > 0 {
		newest = metas[0].Index
	}
	first, last := s.bounds()
	switch {
	case first > newest+1:
		return nil, &CorruptError{Reason: fmt.Sprintf("the log begins at %d, and the newest snapshot ends at %d", first, newest)}
	case len(metas) > 0 && s.term < metas[0].Term:
		return nil, &CorruptError{Reason: fmt.Sprintf("the current term %d is older than the newest snapshot's, %d", s.term, metas[0].Term)}
	case len(metas) == 0 && last == 0 && s.term == 1 && !s.voted:
		// raft.BootstrapCluster stores the term 1 and then the first entry. A
		// crash in between has left a state that raft would neither found
		// again nor ever go on from. Nobody leads in term 1, and nothing was
		// voted for or acknowledged: it is none.
		s.term = 0
	}
	return &snapshots{store: s, under: under}, nil
}

// List leaves out what is damaged, and an older snapshot that the log does not
// lead on from: raft restores the first that can be opened.
func (s *snapshots) List() (metas []*raft.SnapshotMeta, err error) {
	err = s.store.attempt("listing the snapshots", -1, func() (err error) { metas, err = s.under.List(); return err })
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	usable := metas[:0:0]
	for i, m := range metas {
		if i > 0 && !s.store.covers(metas[i-1], m) {
			break
		}
		if !slices.Contains(s.damaged, m.ID) {
			usable = append(usable, m)
		}
	}
	return usable, nil
}

// covers reports whether the log leads from an older snapshot to a newer one.
// It keeps only a few entries from before the newest.
func (s *Store) covers(newer, older *raft.SnapshotMeta) bool {
	if newer.Index == older.Index {
		return newer.Term == older.Term
	}
	first, last := s.bounds()
	if last == 0 || first > older.Index+1 || last < newer.Index {
		return false
	}
	var l raft.Log
	return s.ReadLog(newer.Index, &l) == nil && l.Term == newer.Term
}

// Open opens a snapshot. If it is damaged, and the next older one will do, raft
// is left to take that one.
func (s *snapshots) Open(id string) (meta *raft.SnapshotMeta, data io.ReadCloser, err error) {
	err = s.store.call("opening a snapshot", -1, func() (err error) { meta, data, err = s.under.Open(id); return err })
	if err == nil {
		return meta, data, nil
	}
	err = fmt.Errorf("opening snapshot %s: %w", id, err)
	if errors.Is(err, ErrClosed) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	metas, listErr := s.List()
	if listErr != nil {
		return nil, nil, listErr
	}
	if len(metas) == 0 || metas[len(metas)-1].ID == id {
		return nil, nil, s.store.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged = append(s.damaged, id)
	s.store.logger.Warn("a damaged snapshot is passed over: an older one and the log have all of it", "err", err)
	return nil, nil, err
}

// Create begins a snapshot.
func (s *snapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	var k raft.SnapshotSink
	err := s.store.attempt("beginning a snapshot", s.store.stall, func() (err error) {
		k, err = s.under.Create(v, index, term, c, cIndex, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &guardedSink{s.store, k}, nil
}

// guardedSink is a sink whose errors are fatal.
type guardedSink struct {
	store *Store
	under raft.SnapshotSink
}

func (k *guardedSink) ID() string { return k.under.ID() }

func (k *guardedSink) attempt(op string, f func() error) error {
	return k.store.attempt(op, k.store.stall, f)
}

// Write appends a copy of p: a call that is given up on may still read it.
func (k *guardedSink) Write(p []byte) (n int, err error) {
	p = bytes.Clone(p)
	if err := k.attempt("writing a snapshot", func() error { _, err := k.under.Write(p); return err }); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close completes the snapshot.
func (k *guardedSink) Close() error { return k.attempt("completing a snapshot", k.under.Close) }

// Cancel drops the snapshot.
func (k *guardedSink) Cancel() error { return k.attempt("dropping a snapshot", k.under.Cancel) }
