// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"errors"
	"fmt"
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
// and value, and stops at the first error, so what a call has written when it returns must be there after a crash.
//
// A call of Log or Stable, and each call of a snapshot's sink, that takes longer than 5 s ends the member too.
type Storage struct {
	// Log keeps log entries. It may take their bytes as they are and must not change them.
	Log raft.LogStore

	// Stable keeps the term, the vote and the member's identity, and so belongs to Log: the one is worth nothing
	// without the other. Of a missing key it returns an empty value, or an error that reads "not found".
	Stable raft.StableStore

	// Snapshots keeps whole states, the two newest at least. A snapshot counts once its sink is closed; List has the
	// newest first.
	Snapshots raft.SnapshotStore
}

type storeConfig struct {
	ID      string
	Dir     string
	Storage Storage
	Logger  *slog.Logger
	Fail    func(error) // called once, with the first error after openStore
}

// store is a member's state on disk, or in whatever the user gave instead.
type store struct {
	*raftstore.Store
	Snapshots   raft.SnapshotStore
	id          string // of the member
	storageID   string // of its Dir
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
	if cfg.Dir != "" {
		dir, err := raftstore.LockDir(cfg.Dir)
		if err != nil {
			return nil, err
		}
		opened = append(opened, dir.Close)
	}
	if parts.Log == nil || parts.Stable == nil {
		var both interface {
			raft.LogStore
			raft.StableStore
		} = raft.NewInmemStore()
		if cfg.Dir != "" {
			log, err := openBolt(filepath.Join(cfg.Dir, "raft.db"), cfg.Logger)
			if err != nil {
				return nil, err
			}
			opened = append(opened, log.Close)
			both = log
		}
		if parts.Log == nil {
			parts.Log = both
		}
		if parts.Stable == nil {
			parts.Stable = both
		}
	}
	if cfg.Dir != "" { // the log's file may be new, or another under its name
		if err := raftstore.SyncDir(cfg.Dir); err != nil {
			return nil, err
		}
	}
	switch {
	case parts.Snapshots != nil:
	case cfg.Dir == "":
		parts.Snapshots = raftstore.NewMemory(cfg.Logger)
	default:
		if parts.Snapshots, err = raftstore.OpenFiles(filepath.Join(cfg.Dir, "snapshots"), cfg.Logger); err != nil {
			return nil, err
		}
	}
	s, err := raftstore.Open(raftstore.Config{Log: parts.Log, Stable: parts.Stable, Fail: cfg.Fail, Release: opened.release, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	snapshots, err := s.Snapshots(parts.Snapshots)
	if err != nil {
		return nil, err
	}
	who, err := s.Boot(cfg.ID)
	if err != nil {
		return nil, err
	}
	return &store{Store: s, Snapshots: snapshots, id: who.ID, storageID: who.Storage, incarnation: who.Incarnation}, nil
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
	case is[*raftstore.LockedError](err):
		code = ErrLocked
	case is[*raftstore.IdentityError](err), errors.Is(err, syscall.ENOTDIR):
		code = ErrBadArguments
	case is[*raftstore.CorruptError](err):
		code = ErrDataInconsistency
	}
	return &Error{Op: "open", Path: dir, Code: code, Err: err}
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

const (
	// boltWait is how long opening waits for a lock on the file itself, which only a foreign tool can hold.
	boltWait = time.Second

	// boltMap is how much address space the log's file gets at once: remapping it waits for readers, and a log
	// between two snapshots is a few times SnapshotBytes.
	boltMap = 256 << 20

	// boltSlack is how many bytes of free pages the log's file may keep at open. It grows with the log between two
	// snapshots and reuses its pages, and never shrinks by itself.
	boltSlack = 64 << 20
)

// boltOptions leave every fsync on. The list of free pages is not stored but found at open, which reads the whole log
// anyway: that spares a write for each append.
func boltOptions() *bbolt.Options {
	o := &bbolt.Options{Timeout: boltWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}
	if strconv.IntSize == 64 && runtime.GOOS != "windows" { // Windows makes the file that large
		o.InitialMmapSize = boltMap
	}
	return o
}

// openBolt opens the log's file. Where three quarters of it are free pages, and more than boltSlack, it is written anew.
func openBolt(path string, logger *slog.Logger) (*raftboltdb.BoltStore, error) {
	tmp := path + ".tmp" // of a rewriting that a crash has ended
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	log, err := newBolt(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if free := int64(log.Stats().FreeAlloc); free <= boltSlack || free <= info.Size()/4*3 {
		return log, nil
	}
	if err := log.Close(); err != nil {
		return nil, err
	}
	if err := raftstore.Protect(func() error { return rewriteBolt(path, tmp) }); err != nil {
		logger.Warn("the log's file stays larger than it need be", "file", path, "err", err)
	}
	return newBolt(path)
}

// newBolt opens a file, or makes one.
func newBolt(path string) (log *raftboltdb.BoltStore, err error) {
	err = raftstore.Protect(func() (err error) {
		log, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions(), MsgpackUseNewTimeFormat: true})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		err = &raftstore.LockedError{Path: path}
	case is[*raftstore.PanicError](err), errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		err = &raftstore.CorruptError{Reason: fmt.Sprintf("%s: %v", path, err)}
	}
	return log, err
}

// rewriteBolt copies a file without its free pages, and puts the copy in its place.
func rewriteBolt(path, tmp string) error {
	defer os.Remove(tmp) // what is left of it, if anything
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
	if err := errors.Join(bbolt.Compact(to, from, 16<<20), to.Sync(), to.Close(), from.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
