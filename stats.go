// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"errors"
	"time"

	"github.com/seed-541fafe0/zk/internal/summary"
)

// Summary sums up measurements of one quantity. Quantiles are too small by less than a quarter. Without a measurement
// all is 0.
type Summary[T ~int64] struct {
	Count               int64
	Sum, Min, Max       T
	P50, P95, P99, P999 T
}

// durations sums up how long something took.
type durations struct{ summary.Recorder }

func (d *durations) add(took time.Duration) { d.Recorder.Add(int64(took)) }

func (d *durations) read() Summary[time.Duration] {
	return Summary[time.Duration](summary.Read[time.Duration](&d.Recorder))
}

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
	writes := c.latency.read()
	st.WriteP50, st.WriteP99 = writes.P50, writes.P99
	st.Commits, st.Applies, st.Propagation, st.LogWrites, st.Snapshots = c.commit.read(), c.apply.read(), c.propagation.read(), c.written.read(), c.snapshots.read()
	st.CommitP50, st.CommitP99, st.ApplyP50, st.ApplyP99 = st.Commits.P50, st.Commits.P99, st.Applies.P50, st.Applies.P99
	st.Proposals, st.LastProposal = Summary[int64](summary.Read[int64](&c.proposals)), c.proposals.Last()
	st.SnapshotsSent, st.Waiting = c.snapshotsSent.Load(), c.waiting.Load()
	st.Loading, st.Loaded = time.Duration(c.loading.Load()), c.loaded.Load()
	st.Expired, st.TTLCreated, st.TTLReaped = c.expired.Load(), c.ttls.Load(), c.reaped.Load()
	st.DigestMismatches, st.Faults = c.mismatches.Load(), c.faults.Load()
	c.elections.read(st)
}
