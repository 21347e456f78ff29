// SPDX-License-Identifier: Apache-2.0

package zk

import "fmt"

// Members compare what they have become (P18): with each entry goes the leader's digest as of the last frame that it
// had applied by then, so a member that has come to differ stops at the next entry or the one after. The digest is kept
// up to date with every change, and a frame costs a comparison of two numbers.

const (
	// recentChecks is how far behind what it goes with the leader's digest may be, in frames. Each member has one frame
	// under way at a time.
	recentChecks = 128

	// checkpointEvery is how many requests lie between two digests that are kept for operators, and keptChecks how many
	// of those there are, as in ZooKeeper (OP-77).
	checkpointEvery = 128
	keptChecks      = 1024
)

// checkpoints are the digests that a member remembers. The zero value is ready to use.
type checkpoints struct {
	recent [recentChecks]checkpoint // after each of the last frames, a ring
	last   int                      // the newest in it
	kept   []checkpoint             // one for every checkpointEvery requests, the newest last; up to twice keptChecks
}

// add remembers the one of a frame that took a zxid. A frame without requests must leave none: a configuration changes
// the sum without a zxid, and a member that began with a snapshot since then has nothing else at that zxid.
func (c *checkpoints) add(now checkpoint) {
	c.last = (c.last + 1) % recentChecks
	c.recent[c.last] = now
	var last Zxid
	if len(c.kept) > 0 {
		last = c.kept[len(c.kept)-1].zxid
	}
	if now.zxid/checkpointEvery == last/checkpointEvery {
		return
	}
	if len(c.kept) == 2*keptChecks {
		c.kept = append(c.kept[:0], c.kept[keptChecks:]...)
	}
	c.kept = append(c.kept, now)
}

// list returns those kept for operators.
func (c *checkpoints) list() []checkpoint { return c.kept[max(0, len(c.kept)-keptChecks):] }

func (c *checkpoints) newest() checkpoint { return c.recent[c.last] }

// compare compares the leader's digest with this member's as of the same zxid, if it remembers that.
func (c *checkpoints) compare(leader checkpoint) error {
	for i := range recentChecks {
		have := c.recent[(c.last-i+recentChecks)%recentChecks]
		if have.zxid > leader.zxid {
			continue
		}
		if have.zxid == leader.zxid && have.sum != leader.sum {
			return fmt.Errorf("%w: the leader's digest at %v is %x, this member's %x", ErrInconsistent, leader.zxid, leader.sum, have.sum)
		}
		break
	}
	return nil
}

// checkpoint returns the newest digest, for the leader to hand on.
func (f *fsm) checkpoint() checkpoint {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.checks.newest()
}

// StateDigest is a digest of the replicated state as of one zxid.
type StateDigest struct {
	Zxid Zxid
	Sum  uint64
}

// Digests returns the digests as of the first entry of the log after every 128 requests, of up to 1,024 of them, the
// oldest first, so that an operator who asks one member after the other finds the same zxids (OP-77). Members that have
// applied the same log have the same ones at the same zxids. They are kept in memory: a member has those since it started.
func (m *Member) Digests() (list []StateDigest) {
	m.fsm.reading(func() {
		for _, c := range m.fsm.checks.list() {
			list = append(list, StateDigest{c.zxid, c.sum})
		}
	})
	return list
}
