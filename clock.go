// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"sync"
	"sync/atomic"
	"time"
)

// clock makes the leader's stamps: the later of the wall clock and the newest stamp of the log, at the beginning of
// a leadership, plus the monotonic time since. A clock that is set while a member leads changes nothing; a wrong
// one at an election moves the times of znodes, and with them TTLs (D19).
type clock struct {
	wall func() time.Time
	seen atomic.Pointer[time.Time] // the last tick, for noticing that the host slept

	mu    sync.Mutex
	base  int64 // milliseconds
	since time.Time
	last  int64 // that Session.Now has returned
}

func (c *clock) start(wall func() time.Time) {
	c.wall = wall
	c.rebase(0)
	c.tick()
}

// rebase begins a leadership.
func (c *clock) rebase(newest int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.since = max(newest, c.wall().UnixMilli()), time.Now()
}

// raise makes later stamps follow one that a backup brought along.
func (c *clock) raise(newest int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if newest > c.base+time.Since(c.since).Milliseconds() {
		c.base, c.since = newest, time.Now()
	}
}

// now is the stamp of an entry proposed now.
func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base + time.Since(c.since).Milliseconds()
}

// tick remembers the present, by both clocks that a time.Time has.
func (c *clock) tick() {
	now := time.Now()
	c.seen.Store(&now)
}

// jumped tells whether the wall clock has run ahead of the monotonic one by more than margin since the last tick:
// the host slept, or its clock was set.
func (c *clock) jumped(margin time.Duration) bool {
	last, now := *c.seen.Load(), time.Now()
	return now.Round(0).Sub(last.Round(0))-now.Sub(last) > margin
}

func (m *Member) clockJumped(margin time.Duration) bool { return m.clock.jumped(margin) }

// clusterTime carries the newest stamp on by the local clock, and never goes back.
func (m *Member) clusterTime() time.Time {
	var now int64
	m.fsm.reading(func() { now = m.fsm.st.now + time.Since(m.fsm.stamped).Milliseconds() })
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	m.clock.last = max(m.clock.last, now)
	return time.UnixMilli(m.clock.last)
}

func (f *fsm) now() (now int64) {
	f.reading(func() { now = f.st.now })
	return now
}
