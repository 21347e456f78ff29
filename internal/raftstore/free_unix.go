// SPDX-License-Identifier: Apache-2.0

//go:build darwin || linux

package raftstore

import "syscall"

// freeIn returns how many bytes may still be written below a directory; false if that is not known.
func freeIn(dir string) (bytes uint64, ok bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil || s.Bsize <= 0 {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}
