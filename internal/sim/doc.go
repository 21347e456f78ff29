// SPDX-License-Identifier: Apache-2.0

// Package sim runs whole ensembles in testing/synctest bubbles, under seeded faults and seeded work, and checks what
// happened. One seed also runs on real files in real time.
//
//	go test ./internal/sim -sim.seeds 1000 -sim.seconds 300
//
// Members crash, pause, are cut off, lose answers, have wrong clocks that jump, and on some seeds come and go or have
// no vote. Meanwhile clients work on registers, transactions, locks of all kinds, semaphores, elections, counters,
// queues in shards and without, barriers, latches, values, caches, presences, groups, registries, partitions, timed
// leases, migrations, sessions, znodes with a time to live and watches. Histories of operations go to porcupine, stays of
// readers, writers and holders of units are compared by their times and tokens, the values of a counter by themselves;
// what a history cannot say is sampled: leases against the end of ephemerals, mirrors that are kept by events and
// caches against the tree at their zxids, znodes against what their owners have set last, times and sequence numbers
// against zxids, members against each other. Once everything is healed, writes succeed and every recipe serves whoever
// waits. Each checker has a test that feeds it wrong histories.
//
// A seed fixes the faults and the work, not how goroutines interleave nor raft's own jitter: a failure is
// diagnosed from the record and the histories that it leaves behind, in a directory that it names or where -artifacts
// puts them, and a seed is worth running many times.
package sim
