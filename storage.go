// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/seed-541fafe0/zk/internal/raftstore"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Storage is what a member keeps its state in, where that is not raft-boltdb and files under Config.Dir. All of it
// belongs to one member at a time. It need not check what it reads: the member puts a checksum on every entry, vote
// and value. But what a call has written when it returns must be there after a crash.
//
// The first error ends the member, and so does a call of Log or Stable, or of a snapshot's sink, that takes longer
// than 5 s.
type Storage struct {
	// Log keeps log entries. It may take their bytes as they are and must not change them.
	Log raft.LogStore

	// Stable keeps the term, the vote and the member's identity, and so belongs to Log: the one is worth nothing
	// without the other. Of a missing key it returns an empty value, or an error that reads "not found".
	Stable raft.StableStore

	// Snapshots keeps whole states, the two newest at least. A snapshot counts once its sink is closed; List has the
	// newest first. If it has a method Room(bytes int64) error, that is asked before each snapshot whether there is room
	// for one of about that size; an error puts it off.
	Snapshots raft.SnapshotStore
}

type storeConfig struct {
	ID      string
	Dir     string
	Storage Storage
	Logger  *slog.Logger
	Fail    func(error)         // called once, with the first error after openStore
	Wrote   func(time.Duration) // called with what each write to log or stable took
}

// store is a member's state on disk, or in whatever the user gave instead.
type store struct {
	*raftstore.Store
	Snapshots   raft.SnapshotStore
	room        func(bytes int64) error // is there room for another snapshot?
	id          string                  // of the member
	storageID   string                  // of its Dir
	incarnation uint64
}

// openStore locks the directory, opens what is in it, checks it and counts one more start.
func openStore(cfg storeConfig) (_ *store, err error) {
	var opened releases
	defer func() {
		if err != nil {
			err = storeError(cfg.Dir, errors.Join(err, opened.release()))
		}
	}()
	parts := cfg.Storage
	if cfg.Dir == "" {
		parts.inMemory(cfg.Logger)
	} else {
		lock, err := raftstore.LockDir(cfg.Dir)
		if err != nil {
			return nil, err
		}
		opened = append(opened, lock.Close)
		log, err := parts.inDir(cfg.Dir, cfg.Logger)
		if err != nil {
			return nil, err
		}
		if log != nil {
			opened = append(opened, log.Close)
		}
	}
	s, err := raftstore.Open(raftstore.Config{Log: parts.Log, Stable: parts.Stable, Fail: cfg.Fail, Wrote: cfg.Wrote, Release: opened.release, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	snapshots, err := s.GuardSnapshots(parts.Snapshots)
	if err != nil {
		return nil, err
	}
	who, err := s.Boot(cfg.ID)
	if err != nil {
		return nil, err
	}
	room := func(int64) error { return nil }
	if r, ok := parts.Snapshots.(interface{ Room(bytes int64) error }); ok {
		room = func(bytes int64) error { return raftstore.Protect(func() error { return r.Room(bytes) }) }
	}
	return &store{Store: s, Snapshots: snapshots, room: room, id: who.ID, storageID: who.Storage, incarnation: who.Incarnation}, nil
}

// inMemory fills in what is missing.
func (p *Storage) inMemory(logger *slog.Logger) {
	both := raft.NewInmemStore()
	if p.Log == nil {
		p.Log = both
	}
	if p.Stable == nil {
		p.Stable = both
	}
	if p.Snapshots == nil {
		p.Snapshots = raftstore.NewMemory(logger)
	}
}

// inDir fills in what is missing, and returns what is to be closed, if anything.
func (p *Storage) inDir(dir string, logger *slog.Logger) (log *raftboltdb.BoltStore, err error) {
	if p.Snapshots == nil {
		if p.Snapshots, err = raftstore.OpenFiles(filepath.Join(dir, "snapshots"), logger); err != nil {
			return nil, err
		}
	}
	if p.Log != nil && p.Stable != nil {
		return nil, nil
	}
	if log, err = openBolt(dir, logger); err != nil {
		return nil, err
	}
	if p.Log == nil {
		p.Log = log
	}
	if p.Stable == nil {
		p.Stable = log
	}
	return log, nil
}

// releases is what to undo, the oldest last: the directory's lock ends when nothing in it is open any more.
type releases []func() error

func (r releases) release() error {
	var errs []error
	for i := len(r) - 1; i >= 0; i-- {
		errs = append(errs, raftstore.Protect(r[i]))
	}
	return errors.Join(errs...)
}

// Fresh reports whether the store has nothing of raft's: no term, no log, no snapshot.
func (s *store) Fresh() (fresh bool, err error) {
	err = s.Guard(func() error {
		has, err := raft.HasExistingState(s, s, s.Snapshots)
		fresh = !has
		return err
	})
	return fresh && err == nil, err
}

// storeError gives an error of openStore its code.
func storeError(dir string, err error) error {
	code := ErrSystem
	switch {
	case hasType[*raftstore.LockedError](err):
		code = ErrLocked
	case hasType[*raftstore.IdentityError](err), errors.Is(err, syscall.ENOTDIR):
		code = ErrBadArguments
	case hasType[*raftstore.CorruptError](err), hasType[*raftstore.PanicError](err):
		code = ErrDataInconsistency
	}
	return &Error{Op: "open", Path: dir, Code: code, Err: err}
}

func hasType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

const (
	boltName = "raft.db"

	// boltWait is how long opening waits for a lock on the file itself, which only a foreign tool can hold.
	boltWait = time.Second

	// boltMap is how much address space the log's file gets at once: remapping it waits for readers, and a log
	// between two snapshots is a few times SnapshotBytes.
	boltMap = 256 << 20

	// boltSlack is how many bytes of free pages the log's file may keep at open. It grows with the log between two
	// snapshots, and reuses its pages; it never shrinks by itself.
	boltSlack = 64 << 20

	// boltTxn is how much of the log is copied in one transaction.
	boltTxn = 16 << 20
)

// openBolt opens the log's file, which it makes if it is not there. Where three quarters of it are free pages, and
// more than boltSlack, it is written anew.
func openBolt(dir string, logger *slog.Logger) (*raftboltdb.BoltStore, error) {
	path := filepath.Join(dir, boltName)
	tmp := path + ".tmp" // becomes the file when it is complete
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := writeBolt(tmp, func() error { return makeBolt(tmp) }); err != nil {
			return nil, err
		}
		return replaceBolt(path, tmp)
	}
	if err != nil {
		return nil, err
	}
	log, err := useBolt(path)
	if err != nil {
		return nil, err
	}
	if free := int64(log.Stats().FreeAlloc); free <= boltSlack || free <= info.Size()/4*3 {
		return log, nil
	}
	if err := log.Close(); err != nil {
		return nil, err
	}
	if err := writeBolt(tmp, func() error { return copyBolt(path, tmp) }); err != nil {
		logger.Warn("the log's file stays larger than it need be", "file", path, "err", err)
		os.Remove(tmp)
		return useBolt(path)
	}
	return replaceBolt(path, tmp)
}

// useBolt checks a file and opens it. Every fsync is on. The list of free pages is not stored, which would be one more
// write for each append, but found at open.
func useBolt(path string) (log *raftboltdb.BoltStore, err error) {
	if err := checkBolt(path); err != nil {
		return nil, err
	}
	o := &bbolt.Options{Timeout: boltWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}
	if strconv.IntSize == 64 && runtime.GOOS != "windows" { // Windows makes the file that large
		o.InitialMmapSize = boltMap
	}
	err = raftstore.Protect(func() (err error) {
		log, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: o, MsgpackUseNewTimeFormat: true})
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = &raftstore.LockedError{Path: path}
	}
	return log, err
}

func checkBolt(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return raftstore.CheckBolt(f, info.Size())
}

// writeBolt makes a file and checks it.
func writeBolt(path string, write func() error) error {
	if err := raftstore.Protect(write); err != nil {
		return err
	}
	return checkBolt(path)
}

// replaceBolt opens a whole file after it has put it in its place: no crash leaves half of one there.
func replaceBolt(path, tmp string) (*raftboltdb.BoltStore, error) {
	if err := os.Rename(tmp, path); err != nil {
		return nil, err
	}
	if err := raftstore.SyncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return useBolt(path)
}

// makeBolt makes an empty file.
func makeBolt(path string) error {
	log, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: boltWait, NoFreelistSync: true}})
	if err != nil {
		return err
	}
	return log.Close()
}

// copyBolt copies a file without its free pages.
func copyBolt(path, tmp string) error {
	from, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: boltWait, ReadOnly: true})
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := bbolt.Open(tmp, 0o600, &bbolt.Options{Timeout: boltWait, NoFreelistSync: true, NoSync: true})
	if err != nil {
		return err
	}
	defer to.Close()
	return errors.Join(bbolt.Compact(to, from, boltTxn), to.Sync(), to.Close(), from.Close())
}
