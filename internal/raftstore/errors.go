// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"
)

var (
	// errNotFound is what a StableStore says of a missing key. Raft compares
	// the text.
	errNotFound = errors.New("not found")

	// ErrClosed is the answer to a call after Close.
	ErrClosed = errors.New("store is closed")
)

// CorruptError reports stored data that is not what was written.
type CorruptError struct {
	Index  uint64 // of the log entry; 0 if it is not about one
	Reason string
}

func (e *CorruptError) Error() string {
	if e.Index == 0 {
		return "corrupt: " + e.Reason
	}
	return "corrupt log entry " + strconv.FormatUint(e.Index, 10) + ": " + e.Reason
}

// StallError reports a call of the underlying store that does not return. What
// it was to write may still be written.
type StallError struct {
	Op    string
	Limit time.Duration
}

func (e *StallError) Error() string {
	return fmt.Sprintf("%s does not return, for more than %v", e.Op, e.Limit)
}

// PanicError is a panic, or a fault on mapped memory, of the underlying store.
type PanicError struct {
	Value any
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// LockedError reports a directory that is in use.
type LockedError struct {
	Path string // the lock file
	PID  int    // of the holder; 0 if unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return e.Path + " is held by another process"
	}
	return fmt.Sprintf("%s is held by process %d", e.Path, e.PID)
}

// IdentityError reports a directory that belongs to another member.
type IdentityError struct {
	Have, Want string
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("the directory belongs to member %q, not %q", e.Have, e.Want)
}

// Protect calls f and turns a panic, or a fault on memory that is mapped from
// a file, into an error.
func Protect(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p}
		}
	}()
	return f()
}
