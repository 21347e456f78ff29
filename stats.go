// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"errors"
	"time"
)

// stopped counts what made the member stop by itself. To be removed is no fault.
func (c *counters) stopped(err error) {
	if errors.Is(err, ErrNotMember) {
		return
	}
	c.faults.Add(1)
	if errors.Is(err, ErrInconsistent) {
		c.mismatches.Add(1)
	}
}

// summarize fills in what the summaries have, and what is counted along with them.
func (c *counters) summarize(st *Stats) {
	writes := c.latency.Summary()
	st.WriteP50, st.WriteP99 = writes.P50, writes.P99
	st.Commits, st.Applies, st.Propagation, st.LogWrites, st.Snapshots = c.commit.Summary(), c.apply.Summary(), c.propagation.Summary(), c.written.Summary(), c.snapshots.Summary()
	st.CommitP50, st.CommitP99, st.ApplyP50, st.ApplyP99 = st.Commits.P50, st.Commits.P99, st.Applies.P50, st.Applies.P99
	st.Proposals, st.LastProposal = c.proposals.Summary(), c.proposals.Last()
	st.SnapshotsSent, st.Waiting = c.snapshotsSent.Load(), c.waiting.Load()
	st.Loading, st.Loaded = time.Duration(c.loading.Load()), c.loaded.Load()
	st.Expired, st.TTLCreated, st.TTLReaped = c.expired.Load(), c.ttls.Load(), c.reaped.Load()
	st.DigestMismatches, st.Faults = c.mismatches.Load(), c.faults.Load()
	c.elections.read(st)
}
