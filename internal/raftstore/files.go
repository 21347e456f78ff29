// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

const (
	// keepSnapshots is how many are kept: one may still be on its way to a
	// follower when the next is complete.
	keepSnapshots = 2

	// syncEvery is how much of a snapshot is written between two syncs, so that
	// none of them takes long, and an append to the log does not wait behind a
	// gigabyte.
	syncEvery = 8 << 20

	// roomBeside is what a snapshot must leave free, for the log above all.
	roomBeside = 32 << 20

	snapSuffix = ".snapshot"
	tmpSuffix  = ".tmp"
)

// Files is a raft.SnapshotStore with one file for each snapshot.
//
// It is not raft.FileSnapshotStore, which passes over a snapshot whose
// description is damaged: raft would go back to an older one and lose what the
// log does not have any more. Here a damaged snapshot stays in the list, and
// Open says what is wrong.
type Files struct {
	folder folder
	free   func() (bytes uint64, ok bool) // nil: there is always room
	logger *slog.Logger

	mu     sync.Mutex
	number uint64 // of the newest file
}

var _ raft.SnapshotStore = (*Files)(nil)

// OpenFiles opens a store of snapshots in a directory, which it makes if it is not there.
func OpenFiles(dir string, logger *slog.Logger) (*Files, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	s, err := openFiles(directory(dir), logger)
	if err != nil {
		return nil, err
	}
	s.free = func() (uint64, bool) { return freeIn(dir) }
	return s, nil
}

// ErrNoRoom is returned when there is no room for another snapshot.
var ErrNoRoom = errors.New("no room for a snapshot")

// Room returns an error that wraps ErrNoRoom if a snapshot of about so many bytes would fill the disk. A snapshot that
// fails for that ends the member, which can go on for a while without it.
func (s *Files) Room(bytes int64) error {
	if s.free == nil {
		return nil
	}
	if free, ok := s.free(); ok && free < uint64(bytes)+roomBeside {
		return fmt.Errorf("%w of some %d MiB: %d MiB are free", ErrNoRoom, bytes>>20, free>>20)
	}
	return nil
}

// NewMemory returns a store that ends with the process.
func NewMemory(logger *slog.Logger) *Files {
	return &Files{folder: &memory{files: map[string][]byte{}}, logger: logger}
}

// openFiles removes what an earlier process did not complete.
func openFiles(f folder, logger *slog.Logger) (*Files, error) {
	s := &Files{folder: f, logger: logger}
	names, err := f.list()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if n, ok := parseSnapName(strings.TrimSuffix(name, tmpSuffix)); ok {
			s.number = max(s.number, n.number)
			if strings.HasSuffix(name, tmpSuffix) {
				if err := f.remove(name); err != nil {
					return nil, err
				}
			}
		}
	}
	return s, nil
}

// snapName is the name of a file. It tells what is lost when the file cannot be read.
type snapName struct{ term, index, number uint64 }

func (n snapName) String() string {
	return fmt.Sprintf("%d-%d-%d%s", n.term, n.index, n.number, snapSuffix)
}

func parseSnapName(name string) (n snapName, ok bool) {
	parts := strings.Split(strings.TrimSuffix(name, snapSuffix), "-")
	if len(parts) != 3 {
		return n, false
	}
	for i, v := range [...]*uint64{&n.term, &n.index, &n.number} {
		var err error
		if *v, err = strconv.ParseUint(parts[i], 10, 64); err != nil {
			return n, false
		}
	}
	return n, n.String() == name
}

// names lists the complete files, the newest first.
func (s *Files) names() ([]snapName, error) {
	all, err := s.folder.list()
	if err != nil {
		return nil, err
	}
	var list []snapName
	for _, name := range all {
		if n, ok := parseSnapName(name); ok {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b snapName) int {
		return -cmp.Or(cmp.Compare(a.term, b.term), cmp.Compare(a.index, b.index), cmp.Compare(a.number, b.number))
	})
	return list, nil
}

// List describes the snapshots, the newest first. Of one that cannot be read
// it knows what the name says.
func (s *Files) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var list []*raft.SnapshotMeta
	for _, n := range names[:min(len(names), keepSnapshots)] {
		m := raft.SnapshotMeta{Index: n.index, Term: n.term}
		if r, size, err := s.folder.open(n.String()); err == nil {
			if whole, _, _, err := readTail(r, size); err == nil && whole.Index == n.index && whole.Term == n.term {
				m = whole
			}
			r.Close()
		}
		m.ID = n.String()
		list = append(list, &m)
	}
	return list, nil
}

// Open reads the whole snapshot once and returns it if all is well; otherwise
// the error is a *CorruptError.
func (s *Files) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	n, ok := parseSnapName(id)
	if !ok {
		return nil, nil, fmt.Errorf("%q is not a snapshot", id)
	}
	r, size, err := s.folder.open(id)
	if err != nil {
		return nil, nil, err
	}
	m, err := readWhole(r, size)
	if err == nil && (m.Index != n.index || m.Term != n.term) {
		err = errors.New("another one in its place")
	}
	if err != nil {
		r.Close()
		return nil, nil, &CorruptError{Reason: fmt.Sprintf("snapshot %s: %v", id, err)}
	}
	m.ID = id
	return &m, struct {
		io.Reader
		io.Closer
	}{bufio.NewReaderSize(io.NewSectionReader(r, 0, m.Size), 64<<10), r}, nil
}

// Create begins a snapshot. It counts once its sink is closed without an error.
func (s *Files) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	s.mu.Lock()
	s.number++
	name := snapName{term, index, s.number}.String()
	s.mu.Unlock()
	w, err := s.folder.create(name + tmpSuffix)
	if err != nil {
		return nil, err
	}
	meta := raft.SnapshotMeta{Version: v, ID: name, Index: index, Term: term, Configuration: c, ConfigurationIndex: cIndex}
	return &sink{files: s, w: w, meta: meta}, nil
}

// reap removes all but the newest. What cannot be removed, because it is being
// read on Windows, is tried again next time.
func (s *Files) reap() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, n := range names[min(len(names), keepSnapshots):] {
		if err := s.folder.remove(n.String()); err != nil {
			s.logger.Debug("removing an old snapshot", "err", err)
		}
	}
	return nil
}

// sink writes one snapshot. Raft closes it, or cancels it, more than once.
type sink struct {
	files    *Files
	w        writer
	meta     raft.SnapshotMeta
	sum      uint32
	unsynced int
	done     bool
	err      error // the first, of Write or Close
}

func (k *sink) ID() string { return k.meta.ID }

// Write appends data.
func (k *sink) Write(p []byte) (int, error) {
	if k.err == nil && k.done {
		k.err = fs.ErrClosed
	}
	if k.err != nil {
		return 0, k.err
	}
	n, err := k.w.Write(p)
	k.sum = crc32.Update(k.sum, castagnoli, p[:n])
	k.meta.Size += int64(n)
	if k.unsynced += n; err == nil && k.unsynced >= syncEvery {
		k.unsynced = 0
		err = k.w.Sync()
	}
	k.err = err
	return n, err
}

// Close completes the snapshot. When it returns nil, the snapshot outlives any crash.
func (k *sink) Close() error {
	if k.done {
		return k.err
	}
	k.done = true
	if k.err == nil {
		meta := appendMeta(nil, &k.meta)
		_, k.err = k.w.Write(appendTail(meta, k.sum, meta))
	}
	if k.err == nil {
		k.err = k.w.Sync()
	}
	k.err = cmp.Or(k.err, k.w.Close())
	if k.err == nil {
		k.err = k.files.folder.rename(k.meta.ID+tmpSuffix, k.meta.ID)
	}
	if k.err != nil {
		k.files.folder.remove(k.meta.ID + tmpSuffix)
		return k.err
	}
	if k.err = k.files.folder.sync(); k.err == nil {
		k.err = k.files.reap()
	}
	return k.err
}

// Cancel drops the snapshot.
func (k *sink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	return errors.Join(k.w.Close(), k.files.folder.remove(k.meta.ID+tmpSuffix))
}
