// SPDX-License-Identifier: Apache-2.0

// Package zookeeper runs a real Apache ZooKeeper on loopback, for tests and benchmarks that compare with it. It looks
// for the jars of Debian's package zookeeper and for java.
package zookeeper
