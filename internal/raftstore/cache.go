// SPDX-License-Identifier: Apache-2.0

package raftstore

import "github.com/hashicorp/raft"

// entryOverhead is about what a cached entry takes besides its payload.
const entryOverhead = 128

// cache keeps the newest entries of the log: an unbroken run that ends where
// the log ends. Its bound is in bytes, because an entry is between nothing and
// two megabytes.
type cache struct {
	limit int
	size  int
	logs  []raft.Log // live from head on
	head  int
	first uint64 // index of logs[head]
}

func entrySize(l *raft.Log) int { return entryOverhead + len(l.Data) + len(l.Extensions) }

func (c *cache) len() int { return len(c.logs) - c.head }

// push adds the entry that follows the last one.
func (c *cache) push(l raft.Log) {
	if c.limit <= 0 {
		return
	}
	if n := c.len(); n == 0 || c.first+uint64(n) != l.Index {
		c.clear()
		c.first = l.Index
	}
	c.logs = append(c.logs, l)
	c.size += entrySize(&l)
	for c.size > c.limit {
		c.shift()
	}
}

// shift drops the oldest entry.
func (c *cache) shift() {
	c.size -= entrySize(&c.logs[c.head])
	c.logs[c.head] = raft.Log{}
	c.head++
	c.first++
	if c.head >= 64 && c.head*2 >= len(c.logs) {
		n := copy(c.logs, c.logs[c.head:])
		clear(c.logs[n:])
		c.logs, c.head = c.logs[:n], 0
	}
}

func (c *cache) get(index uint64) (raft.Log, bool) {
	if n := c.len(); n == 0 || index < c.first || index >= c.first+uint64(n) {
		return raft.Log{}, false
	}
	return c.logs[c.head+int(index-c.first)], true
}

// dropTo drops the entries up to and including index.
func (c *cache) dropTo(index uint64) {
	for c.len() > 0 && c.first <= index {
		c.shift()
	}
}

// dropFrom drops the entries from index on.
func (c *cache) dropFrom(index uint64) {
	for c.len() > 0 && c.first+uint64(c.len()) > index {
		n := len(c.logs) - 1
		c.size -= entrySize(&c.logs[n])
		c.logs[n] = raft.Log{}
		c.logs = c.logs[:n]
	}
}

func (c *cache) clear() {
	c.logs, c.head, c.size, c.first = nil, 0, 0, 0
}
