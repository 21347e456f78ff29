// SPDX-License-Identifier: Apache-2.0

// Package bench measures the recipes of zk beside those of others in the same run: Curator's and kazoo's on a real
// ZooKeeper, and those of etcd's client on etcd. It is a module of its own, so that nobody who uses zk depends on etcd.
//
//	cd bench && go test -run '^$' -bench . -benchtime 2000x
//	cd bench && go test -run Cost -v
//
// All servers run on this machine, three of each with fsync on where it says so; etcd's and zk's in the process of
// the benchmark, as programs embed them, ZooKeeper's in a process each. What is not installed is skipped.
package bench
