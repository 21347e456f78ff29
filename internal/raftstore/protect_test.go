// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package raftstore

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
)

// A file that is mapped and cut short raises a signal at the next look; here it is an error. bbolt maps its file.
func TestProtectFromFault(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "mapped"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := os.Getpagesize()
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Skip(err)
	}
	defer syscall.Munmap(b)
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	d := newDisk()
	s, told := opened(t, d)
	d.plan = func(int, string) fault {
		if b[size-1] == 0 {
			t.Error("it was read")
		}
		return fine
	}
	if _, ended := ends(func() error { return s.SetUint64(keyTerm, 1) }); !ended {
		t.Error("it goes on")
	}
	cause, ok := errors.AsType[*PanicError](told.only(t))
	if !ok || !is[runtime.Error](cause) {
		t.Errorf("Fail was told %v", told.errs)
	}
	if debug.SetPanicOnFault(false) {
		t.Error("the setting of this goroutine has changed")
	}
}
