// SPDX-License-Identifier: Apache-2.0

// Package zktest opens a whole ensemble inside a test: members in this process, a network in memory, disks in
// memory that survive a crash, and faults of every kind.
//
//	c, err := zktest.Open(ctx, 3, zktest.Config{})
//	defer c.Close()
//	s, err := c.Member(0).Session(ctx)
//
// It is written to run inside a testing/synctest bubble, where a session's expiry or an election takes no real time
// and a goroutine left behind fails the test by itself. It works as well outside of one.
package zktest
