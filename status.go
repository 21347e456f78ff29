// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"iter"
	"math/bits"
	"sync/atomic"
	"time"
)

// Role is what a member is in its ensemble.
type Role uint8

// The roles.
const (
	RoleFollower Role = iota
	RoleCandidate
	RoleLeader
	RoleNonVoter // an observer
	RoleStopped
)

// String names the role.
func (r Role) String() string {
	if r <= RoleStopped {
		return [...]string{"follower", "candidate", "leader", "non-voter", "stopped"}[r]
	}
	return "unknown"
}

// Stats is a picture of a member's counters, for whatever metrics system the program uses.
type Stats struct {
	Role                                 Role
	Term                                 uint64
	Committed, Applied                   Zxid // the newest that this member knows to be committed, and has applied
	Znodes, Ephemerals, Sessions         int
	Watches, WatchOverflows              int64
	DataBytes                            int64 // of paths and data
	KeptBytes                            int64 // of old versions for open Views
	Reads, LinearReads, Writes, Failures int64
	Scanned                              int64         // znodes that lists, walks and steps to a sibling went over; Reads has the calls
	Frames, FramedWrites                 int64         // log entries this member made, and the writes they carried
	Forwards, Redrives                   int64         // frames sent to another member, as the leader; frames sent more than once
	WriteP50, WriteP99                   time.Duration // of this member's writes, from the call to the answer
	CommitP50, CommitP99                 time.Duration // of frames that this member proposed as the leader, until it had applied them
	ApplyP50, ApplyP99                   time.Duration // of frames, of whatever member, in the state machine
	LogBytes                             int64
}

// counters are written from everywhere.
type counters struct {
	reads, scanned, linear, writes, failures, forwards, redrives, frames, packed atomic.Int64
	committed                                                                    atomic.Int64 // zxid, as the leader told it
	latency, commit, apply                                                       histogram
}

func (c *counters) knowCommitted(z Zxid) {
	for have := c.committed.Load(); int64(z) > have && !c.committed.CompareAndSwap(have, int64(z)); have = c.committed.Load() {
	}
}

func (c *counters) framed(n int) {
	c.frames.Add(1)
	c.packed.Add(int64(n))
}

func (c *counters) wrote(took time.Duration, code Code) {
	c.writes.Add(1)
	if code != 0 {
		c.failures.Add(1)
	}
	c.latency.add(took)
}

// answered notes a write that has its outcome.
func (m *Member) answered(op string, bytes int, took time.Duration, code Code) {
	m.stats.wrote(took, code)
	if hook := m.cfg.Hooks.OpDone; hook != nil {
		hook(OpInfo{Op: op, Bytes: bytes, Took: took, Forwarded: !m.leading(), Code: code})
	}
}

// histogram counts durations in steps of a quarter power of two, from 1 µs up.
type histogram struct{ at [128]atomic.Int64 }

func (h *histogram) add(d time.Duration) {
	u := uint64(max(d.Microseconds(), 1))
	n := bits.Len64(u) - 1
	i := 4 * n
	if n >= 2 {
		i += int(u>>(n-2)) & 3
	}
	h.at[min(i, len(h.at)-1)].Add(1)
}

func (h *histogram) quantile(q float64) time.Duration {
	total := int64(0)
	for i := range h.at {
		total += h.at[i].Load()
	}
	rank := int64(q * float64(total))
	for i := range h.at {
		if n := h.at[i].Load(); n > 0 {
			if rank -= n; rank < 0 {
				return time.Duration(float64(uint64(1)<<(i/4))*(1+float64(i%4)/4)) * time.Microsecond
			}
		}
	}
	return 0
}

// Stats returns the member's counters.
func (m *Member) Stats() Stats {
	role := m.RoleInfo()
	st := Stats{
		Role: role.Role, Term: role.Term, Reads: m.stats.reads.Load(), Scanned: m.stats.scanned.Load(), LinearReads: m.stats.linear.Load(), Writes: m.stats.writes.Load(),
		Failures: m.stats.failures.Load(), Frames: m.stats.frames.Load(), FramedWrites: m.stats.packed.Load(), Redrives: m.stats.redrives.Load(), Forwards: m.stats.forwards.Load(),
		WriteP50: m.stats.latency.quantile(.5), WriteP99: m.stats.latency.quantile(.99), CommitP50: m.stats.commit.quantile(.5), CommitP99: m.stats.commit.quantile(.99),
		ApplyP50: m.stats.apply.quantile(.5), ApplyP99: m.stats.apply.quantile(.99), LogBytes: m.store.LogBytes(),
	}
	m.fsm.reading(func() {
		s := m.fsm.st
		st.Applied, st.Znodes, st.Ephemerals, st.Sessions = s.zxid, len(s.nodes), s.ephemerals, s.sessions.Len()
		st.DataBytes, st.KeptBytes = s.bytes, s.vers.bytes
	})
	st.Committed = max(st.Applied, Zxid(m.stats.committed.Load()))
	n, overflows := m.watches.counts()
	st.Watches, st.WatchOverflows = int64(n), overflows
	return st
}

// Role returns what this member is now.
func (m *Member) Role() Role { return m.RoleInfo().Role }

// RoleInfo returns the role, the term and the leader as this member knows them.
func (m *Member) RoleInfo() RoleInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.role
}

// Leader returns the leader as this member knows it; false where it knows none.
func (m *Member) Leader() (Peer, bool) {
	info := m.RoleInfo()
	if info.Leader == "" {
		return Peer{}, false
	}
	addr, _ := m.resolve(m.life, info.Leader)
	return Peer{ID: info.Leader, Addr: addr, Voter: true}, true
}

// Roles yields the role and then every change of role, term or leader, the newest only. It ends after RoleStopped,
// or with ctx's error.
func (m *Member) Roles(ctx context.Context) iter.Seq2[RoleInfo, error] {
	return func(yield func(RoleInfo, error) bool) {
		if ctx == nil {
			yield(RoleInfo{}, badContext("roles"))
			return
		}
		for {
			m.mu.Lock()
			info, changed := m.role, m.changed
			m.mu.Unlock()
			if !yield(info, nil) || info.Role == RoleStopped {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(info, ctxError("roles", "", ctx))
				return
			}
		}
	}
}

// Ready returns once a leader is known and this member has caught up with what was committed when it asked. An
// error says why it stopped waiting: ctx, or the member's end.
func (m *Member) Ready(ctx context.Context) error {
	if ctx == nil {
		return badContext("ready")
	}
	if err := m.running("ready"); err != nil {
		return err
	}
	if err := m.barrier(ctx); err != nil {
		return &Error{Op: "ready", Code: codeOf(err), Err: err}
	}
	return nil
}

// heard returns for how long no leader was heard from.
func (m *Member) heard() time.Duration {
	if m.leading() {
		return 0
	}
	last := m.raft.LastContact()
	if last.IsZero() {
		return 1 << 62
	}
	return time.Since(last)
}
