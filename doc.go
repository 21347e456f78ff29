// SPDX-License-Identifier: Apache-2.0

// Package zk is a coordination engine that you link into your service: ZooKeeper's semantics, in your own process.
//
// Every instance of a service opens a [Member]; the members form a Raft ensemble that keeps one tree of znodes in
// agreement. Any goroutine may then create, read and watch znodes through a [Session], or use package recipes:
// locks, barriers, queues. The zero [Config] is an ensemble of one, in memory, without a socket.
//
// # The model
//
// A znode has a path, data of at most 1 MiB, a [Stat], an access control list and children. It is persistent, or
// [Ephemeral] (it goes with its session), or a [Container] (it goes with its last child), or it has a time to live
// ([Op.WithTTL]); its name may be given a number by its parent ([Sequential]). Every write is a transaction with a
// [Zxid]; all members apply all writes in the same order.
//
// A [Session] is a unit of liveness. Its member vouches for it to the leader; while that is acknowledged it is
// [StateActive], and no leader can expire it. It turns [StateSuspended] before anybody else may take over what it
// holds, and it ends [StateExpired] or [StateClosed].
//
// # Guarantees
//
// Writes are linearizable, durable on a majority before they are answered, and applied exactly once, whatever
// happens to leaders and connections meanwhile. Writes of one session take effect in order. Reads are local, never
// behind the session's own writes and events, and may be behind other members; ask for [Linearizable], or call
// [Session.Sync] first, where that matters. A watch is registered atomically with its read, hears every change in
// order, and hears of it before any read on that member can show it. The numbered rules are in docs/spec.
//
// # Caveats
//
// No lock can stop a program that was paused past its lease: effects outside the tree must carry [Token], effects
// inside it a guard such as [OpCheckCreated]. A one-shot watch fires once; what happened in between you learn by
// reading again. A call whose context ends after the request was handed over returns an [Error] with MaybeApplied
// set: the member goes on driving the request to its end.
package zk
