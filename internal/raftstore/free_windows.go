// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"syscall"
	"unsafe"
)

// freeIn returns how many bytes may still be written below a directory; false if that is not known.
func freeIn(dir string) (bytes uint64, ok bool) {
	path, err := syscall.UTF16PtrFromString(dir)
	if err != nil {
		return 0, false
	}
	ask := syscall.NewLazyDLL("kernel32.dll").NewProc("GetDiskFreeSpaceExW")
	if ask.Find() != nil {
		return 0, false
	}
	done, _, _ := ask.Call(uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&bytes)), 0, 0)
	return bytes, done != 0
}
