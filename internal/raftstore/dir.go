// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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

// makeDir makes a directory and those above it, and their entries durable.
func makeDir(path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &os.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	above := filepath.Dir(filepath.Clean(path))
	if err := makeDir(above); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return SyncDir(above)
}
