// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// lockName is the file whose lock is the directory's. It stays when the lock
// is gone: removing it would let two processes lock two files of that name.
const lockName = "LOCK"

// LockDir makes the directory if it is not there, and locks it until what it
// returns is closed. A directory that is locked already, in this process too,
// is a *LockedError at once.
func LockDir(path string) (io.Closer, error) {
	if err := makeDir(path); err != nil {
		return nil, err
	}
	name := filepath.Join(path, lockName)
	f, err := lockFile(name)
	if errors.Is(err, errHeld) {
		return nil, &LockedError{Path: name, PID: holder(name)}
	}
	if err != nil {
		return nil, err
	}
	if err := sign(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return f, nil
}

// errHeld is what lockFile says of a lock that another has.
var errHeld = errors.New("held")

// sign writes into the lock file who has it.
func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder reads who has the lock, 0 if it has not said so yet.
func holder(name string) int {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	line, whole := strings.CutSuffix(string(b), "\n")
	pid, err := strconv.Atoi(line)
	if !whole || err != nil || pid < 0 {
		return 0
	}
	return pid
}

// makeDir makes a directory, and its entry durable.
func makeDir(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(filepath.Clean(path)))
}

// directory is a directory of the file system as a folder.
type directory string

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) list() (names []string, err error) {
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (d directory) create(name string) (writer, error) {
	return os.OpenFile(d.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

func (d directory) open(name string) (reader, int64, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

func (d directory) rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d directory) remove(name string) error {
	if err := os.Remove(d.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d directory) sync() error { return SyncDir(string(d)) }
