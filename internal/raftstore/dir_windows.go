// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"os"
	"syscall"
)

// lockFile opens a file so that nobody else can open it for writing, in this
// process neither, until it is closed or the process ends. Reading who holds it
// stays possible, which a lock on its bytes would prevent.
func lockFile(name string) (*os.File, error) {
	const sharingViolation = syscall.Errno(32)
	path, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	h, err := syscall.CreateFile(path, syscall.GENERIC_READ|syscall.GENERIC_WRITE, syscall.FILE_SHARE_READ, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err == sharingViolation {
		return nil, errHeld
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), nil
}

// SyncDir does nothing: Windows has no way to sync a directory, and its file
// systems journal what is renamed.
func SyncDir(string) error { return nil }
