// SPDX-License-Identifier: Apache-2.0

// Package raftnet is where the members of an ensemble talk to each other. It
// has one mechanism, the call: a request goes out on a stream and its response
// comes back on the same stream. Raft's five RPCs are calls, and so is
// whatever else members ask each other.
//
// # Streams
//
// A stream belongs to the member that dialled it, which alone starts calls,
// one after the other. It opens with a handshake in which both ends say who
// they are, check each other and may refuse. After that it carries
//
//	request   [length uint32] [kind byte]   [length bytes]
//	response  [length uint32] [status byte] [length bytes]
//
// Streams are pooled per member, those for raft apart from all others. A
// caller takes an idle stream or has one dialled, so no call waits behind
// another one: a heartbeat never behind a large AppendEntries, and neither
// behind a snapshot, which has a stream of its own. Any error closes the
// stream it happened on, and nothing else.
//
// # Who is at the other end
//
// Raft knows members by id alone: raft.ServerAddress is the member id, and the
// network address is looked up at each dial. Requests do not carry the
// sender's id. Leader and candidate are whom the stream belongs to, so nobody
// can speak in another's name. If streams are TLS, the certificate must bear
// the id; without TLS an id is only a claim.
//
// # What reaches raft
//
// Bytes from the network are checked in full before anything is handed to
// raft, which panics on some of what it does not expect. No AppendEntries names
// a commit index beyond its entries, neither where it is sent nor where it
// arrives: raft would commit what no leader has shown it.
package raftnet
