// SPDX-License-Identifier: Apache-2.0

// Package sim runs whole ensembles in testing/synctest bubbles, under seeded faults and seeded work, and checks the
// histories: registers, transactions, locks by fencing token and queues; the order of watch events; equal digests
// on all members; and, once everything is healed, that writes succeed again.
//
//	go test ./internal/sim -sim.seeds 1000 -sim.seconds 300
//
// A seed fixes the faults and the work, not how goroutines interleave nor raft's own jitter: a failure is
// diagnosed from the record that it leaves behind, and a seed is worth running many times.
package sim
