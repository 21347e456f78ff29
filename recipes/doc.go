// SPDX-License-Identifier: Apache-2.0

// Package recipes coordinates goroutines, in one process or in all processes of an ensemble, on top of package zk.
//
//   - Only one at a time, or only so many: [Lock], [RWLock], [LockAll], [Semaphore]; for a time, whatever happens: [TimedLease].
//   - One of many, and who it is: [Election].
//   - All together: [Barrier], [DoubleBarrier], [Latch].
//   - Shared data: [Counter], [Value], [Cache], and transactions that read before they write: [Atomically].
//   - Who is there: [Presence], [TTLPresence], [Group]; who offers a service: [Registry], [Provider].
//   - Work for whoever has time: [Queue], [ShardedQueue]; a fixed set shared by all: [Partitioner].
//   - All or nothing, by several participants: [TwoPhase].
//   - The shape of the tree: [Schema], [Model], [Migrate].
//
// docs/recipes.md has an answer of a few lines for each problem, and the tests of each recipe.
//
// A recipe is a struct with exported fields for its options and a constructor that takes what is required. The first
// argument is a [zk.SessionSource]: with a *zk.Member each call uses the member's live shared session, so that the
// recipe goes on working after an expiry; with a *zk.Session it is bound to that one. Path is the znode it is about, as
// that session sees it ([zk.Session.Sub]): what is below it, and beside it with a suffix, belongs to the recipe. Options are set
// before the first call and not changed afterwards. All methods are safe for concurrent use. What they return by value, such as
// a [Contender], a [Leader] or a [Member], is as it was then, and the caller's to keep. No recipe keeps a goroutine but
// where its comment says so; what runs in the background is the removal of znodes whose owner is done with them.
//
// # Errors
//
// Every call fails with zk.ErrBadArguments, and changes nothing, for a nil context, no session, a path that no znode can have,
// or options that make no sense; a constructor checks nothing. The errors of every read are, besides, that of the context,
// or its cause; zk.ErrSessionExpired, zk.ErrSessionMoved and zk.ErrClosed where the session or the member is over; and
// zk.ErrNoAuth where an access control list says so. Those of every write are, besides, zk.ErrUnavailable, which wraps the
// context's, zk.ErrQuotaExceeded, zk.ErrTooLarge and zk.ErrThrottled. What has failed has not been done, unless
// [zk.MaybeApplied] says that nobody knows. All match with errors.Is and errors.As.
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
