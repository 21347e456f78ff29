// SPDX-License-Identifier: Apache-2.0

// Package bench measures an ensemble on this machine's disk, with fsync on, beside what it is built on: raft with an
// empty state machine, and the disk's own fdatasync. Absolute figures do not travel; the ratios within one run do.
//
//	go test ./internal/bench -bench . -benchtime 3s
package bench
