// SPDX-License-Identifier: Apache-2.0

// Package raftstore keeps a member's log, votes, snapshots and identity so
// that a bad disk ends the member, and neither its host nor the truth.
//
// A Store stands between raft and any raft.LogStore and raft.StableStore. It
// puts a checksum on everything and checks it on every read; it writes a vote
// as one record; it notices calls that do not return. After the first error it
// writes nothing again. It has an Identity, and stands between raft and a store
// of snapshots as well, so that an older snapshot is never restored where the
// log has a gap behind it.
//
// Beside it there is what such a store stands on: a directory's lock, snapshots
// in files, and a check of a file of raft-boltdb that needs no trust in bbolt.
//
// raft panics when its store reports an error on its main goroutine. So a
// Store does not report one: it tells Config.Fail and ends the calling
// goroutine with runtime.Goexit. Raft's deferred steps run, its pending futures
// are answered, and Shutdown returns. Two things follow for the user of a raft
// on top of a Store:
//
//   - The transport must not pipeline. A replication goroutine that ends while
//     it pipelines leaves another behind, for which Shutdown waits for ever.
//   - raft.NewRaft and raft.BootstrapCluster run in Store.Guard, because they
//     call the store on the goroutine of whoever calls them.
package raftstore
