// SPDX-License-Identifier: Apache-2.0

// Package wire speaks ZooKeeper's client protocol: Server lets every ZooKeeper client use an ensemble that is embedded
// in a Go program, and Client is a small client of the same protocol, for tools and for programs that are not members.
// It uses the public API of package zk alone. The rules it follows are in docs/spec/wire-protocol.md; what differs
// from ZooKeeper on purpose, and which clients were tried, is in docs/compatibility.md.
package wire
