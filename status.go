// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"iter"
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

// Stats is a picture of a member's counters, for whatever metrics system the program uses. Counts and summaries are of
// what happened since the member was opened; unless they say otherwise they concern this member alone.
type Stats struct {
	Role                                 Role
	Term                                 uint64
	Committed, Applied                   Zxid  // the newest that this member knows to be committed, and has applied
	Znodes, Ephemerals, Sessions         int   // of the ensemble
	LocalSessions                        int   // that this member alone knows, read-only ones among them (SS-25)
	Watches, WatchOverflows              int64 // a watch of kind WatchNode is two, of data and of children (WT-39)
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

	Commits       Summary[time.Duration] // as CommitP50
	Applies       Summary[time.Duration] // as ApplyP50
	Propagation   Summary[time.Duration] // from the leader's stamp on an entry to its application here, by the two members' wall clocks
	Proposals     Summary[int64]         // bytes of the frames that this member handed to raft as the leader
	LastProposal  int64                  // bytes of the newest of them; -1 before the first
	LogWrites     Summary[time.Duration] // of log entries and votes, until they are on disk
	Snapshots     Summary[time.Duration] // to write a snapshot
	SnapshotsSent int64                  // to members that lagged too far behind for the log, as the leader
	Waiting       int64                  // now: linearizable reads, and calls of Sync and Ready

	// How Open went: for how long it read log and snapshot, and how many entries the log had beyond the snapshot.
	Loading time.Duration
	Loaded  int64

	LeaderSince       time.Time              // since when this member leads; zero while it does not
	LeaderLosses      int64                  // how often it had no leader to follow any more, Open included
	Elections         Summary[time.Duration] // how long it then knew no leader
	CatchUps          Summary[time.Duration] // as a follower, from there until it had applied the beginning of that leadership
	Outages           Summary[time.Duration] // from the loss until it had
	LeaderOutages     Summary[time.Duration] // of those, the ones that ended with this member as the leader
	Expired           int64                  // sessions that this member let expire, as the leader
	TTLCreated        int64                  // TTL znodes created, by whatever member
	TTLReaped         int64                  // TTL znodes deleted because their time was over, as the leader
	DigestMismatches  int64                  // 1 if the member stopped because its state differs from the leader's
	Faults            int64                  // 1 if it stopped by itself, other than by its removal
	Created, Deleted  Summary[int64]         // watchers told of a creation, of a deletion; changes without a watcher do not count
	Changed, Children Summary[int64]         // and of a change of data, of children
}

// counters are written from everywhere.
type counters struct {
	reads, scanned, linear, writes, failures, forwards, redrives, frames, packed atomic.Int64
	committed                                                                    atomic.Int64 // zxid, as the leader told it
	waiting, snapshotsSent, expired, ttls, reaped                                atomic.Int64
	faults, mismatches                                                           atomic.Int64
	loading, loaded                                                              atomic.Int64
	latency, commit, apply, propagation, written, snapshots                      Recorder[time.Duration]
	proposals                                                                    Recorder[int64]
	elections                                                                    elections
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
	c.latency.Add(took)
}

// answered notes a write that has its outcome.
func (m *Member) answered(op string, bytes int, took time.Duration, code Code) {
	m.stats.wrote(took, code)
	if hook := m.cfg.Hooks.OpDone; hook != nil {
		hook(OpInfo{Op: op, Bytes: bytes, Took: took, Forwarded: !m.leading(), Code: code})
	}
}

// Stats returns the member's counters.
func (m *Member) Stats() Stats {
	role, c := m.RoleInfo(), &m.stats
	st := Stats{
		Role: role.Role, Term: role.Term, Reads: c.reads.Load(), Scanned: c.scanned.Load(), LinearReads: c.linear.Load(), Writes: c.writes.Load(),
		Failures: c.failures.Load(), Frames: c.frames.Load(), FramedWrites: c.packed.Load(), Redrives: c.redrives.Load(), Forwards: c.forwards.Load(),
		LogBytes: m.store.LogBytes(),
	}
	m.fsm.reading(func() {
		s := m.fsm.st
		st.Applied, st.Znodes, st.Ephemerals, st.Sessions = s.zxid, len(s.nodes), s.ephemerals, s.sessions.Len()
		st.DataBytes, st.KeptBytes = s.bytes, s.vers.bytes
		for _, l := range m.fsm.live {
			if l.readOnly || l.standing.Load() != standsKnown {
				st.LocalSessions++
			}
		}
	})
	st.Committed = max(st.Applied, Zxid(m.stats.committed.Load()))
	n, overflows := m.watches.counts()
	st.Watches, st.WatchOverflows = int64(n), overflows
	c.summarize(&st)
	for kind, to := range map[EventType]*Summary[int64]{EventCreated: &st.Created, EventDeleted: &st.Deleted, EventChanged: &st.Changed, EventChildren: &st.Children} {
		*to = m.watches.told[kind].Summary()
	}
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
