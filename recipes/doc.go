// SPDX-License-Identifier: Apache-2.0

// Package recipes coordinates goroutines, in one process or in all processes of an ensemble, on top of package zk:
// [Lock], [Barrier], [DoubleBarrier] and [Queue].
//
// A recipe is a struct with exported fields for its options and a constructor that takes what is required. The first
// argument is a [zk.SessionSource]: with a *zk.Member each call uses the member's live shared session, so that the
// recipe goes on working after an expiry; with a *zk.Session it is bound to that one. Options are set before the first
// call and not changed afterwards. All methods are safe for concurrent use, and no recipe has a goroutine of its own:
// what runs in the background is the removal of a znode whose owner is done with it.
//
// # Rights
//
// What a call grants is a [Held]: the right to something that others are kept from. It is bound to one session and
// ends with it. It is lost as soon as the session's lease lapses, before anybody else can be granted the same, and
// stays lost even if the session recovers: [Held.Lost] is closed, [Held.Err] says why. What no handle can do is stop a
// goroutine that was paused past its lease. Effects inside the tree belong into a transaction with [Held.Guard];
// effects outside of it carry [Held.Token], and whoever receives them refuses a token lower than one it has seen.
//
// A context bounds the call it is given to, never the right that the call returns: see [Held.Context] for that. A call
// whose context ends leaves nothing behind.
//
// # Others on the same paths
//
// Names and layouts are those of Apache Curator and kazoo, so that programs of other languages can take part. The rules
// and properties, cited as LOCK-S1 and the like, are in docs/spec/recipes.md.
package recipes
