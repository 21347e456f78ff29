// SPDX-License-Identifier: Apache-2.0

// Package memnet is a network of hosts in memory, for tests. Its streams have the faults that those of TCP really
// have: delay, stalls, partitions, resets, refusal, and silence; never reordered, repeated or altered bytes.
//
// Each Host satisfies zk.Transport:
//
//	n := memnet.New(seed)
//	a, err := zk.Open(ctx, zk.Config{ID: "a", Transport: n.Host("a"), ...})
//	b, err := zk.Open(ctx, zk.Config{ID: "b", Transport: n.Host("b"), ...})
//	n.Partition([]string{"a"}, []string{"b"})
//	n.Heal()
//
// # Bubbles
//
// The package starts no goroutine, and whoever waits in it waits for channels and timers alone. So it works in a
// testing/synctest bubble, where its delays take no real time; make the Network inside the bubble. A bubble ends
// when every host is closed, whatever faults there still are. Outside of bubbles it works as well, in real time.
//
// # What a stream does
//
// A stream connects two hosts both ways. Each direction holds up to 1 MiB that was sent and not read; then its
// writer waits. What one Write sends, or as much of it as fits, is a chunk, and each chunk is delayed, or lost, as
// one. Nothing overtakes what was sent earlier. A dial itself takes no time, however slow the link is.
//
// When one end is closed, the other reads what was sent and then io.EOF; its writes fail with ECONNRESET once the
// news is there. That news travels as bytes do: it is delayed, and stalls, with them. A reset is there at once,
// whatever is wrong with the link, and what was under way is gone.
//
// # Faults
//
//   - Stalled (Partition, Isolate, Cut, Stall, Hold): bytes wait, and are delivered when the fault ends. A dial
//     hangs as long as either direction is stalled, or until its context ends.
//   - Slow (Slow): bytes arrive later than the network's latency, which is no fault.
//   - Silent (Drop): something was lost, so nothing arrives any more in that direction. The writer notices only when
//     the 1 MiB are full.
//   - Broken (Reset, Crash): both ends get ECONNRESET.
//
// Heal ends them all but Hold, and brings back no stream that broke and no host. Latency is what the network is like
// without faults: Heal keeps it.
//
// Stalls go by the names of hosts: they outlast a crash, and hold for the host that comes next under that name. A
// host's streams with itself stall under Hold alone.
//
// # Chance
//
// All chance comes from the seed, and each stream has its own share of it, by the names of its ends and how many
// were dialled before between them. So what befalls a stream does not depend on what others send meanwhile; how
// goroutines interleave is not for the seed to say.
package memnet
