// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"sync"
	"time"
)

// elections measures for how long this member has no leader, and for how long it then lags. The zero value is a member
// that has not begun.
type elections struct {
	mu       sync.Mutex // guards the fields below
	leader   string     // as it was known last; "" while the member looks for one
	lost     time.Time  // when it was lost
	found    time.Time  // when one was known again; zero while none is
	down     time.Time  // when the outage began that is not over yet; zero while there is none
	epoch    uint64     // newest term whose beginning this member has applied
	term     uint64     // of the leadership that was found
	leads    bool
	since    time.Time // when it came to lead
	losses   int64
	election Recorder[time.Duration]
	catchUp  Recorder[time.Duration]
	outage   Recorder[time.Duration]
	leading  Recorder[time.Duration] // outages that ended with this member as the leader
}

// start is called once, when the member begins to look for a leader.
func (e *elections) start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lose(time.Now())
}

func (e *elections) lose(now time.Time) {
	e.leader, e.lost, e.found = "", now, time.Time{}
	e.losses++
	if e.down.IsZero() {
		e.down = now
	}
}

// follow notes a change of role or leader.
func (e *elections) follow(info RoleInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	leads := info.Role == RoleLeader
	if leads && !e.leads {
		e.since = now
	}
	e.leads = leads
	if info.Role == RoleStopped || info.Leader == e.leader {
		return
	}
	if e.leader != "" { // also where another leader is known at once: there was an election
		e.lose(now)
	}
	if e.leader = info.Leader; e.leader == "" {
		return
	}
	e.found, e.term = now, info.Term
	e.election.Add(now.Sub(e.lost))
	e.caughtUp(now)
}

// begun notes that this member has applied the beginning of a leadership.
func (e *elections) begun(term uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.epoch = max(e.epoch, term)
	e.caughtUp(time.Now())
}

func (e *elections) caughtUp(now time.Time) {
	if e.down.IsZero() || e.found.IsZero() || e.epoch < e.term {
		return
	}
	e.outage.Add(now.Sub(e.down))
	if e.leads {
		e.leading.Add(now.Sub(e.down))
	} else {
		e.catchUp.Add(now.Sub(e.found))
	}
	e.down = time.Time{}
}

func (e *elections) read(st *Stats) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leads {
		st.LeaderSince = e.since
	}
	st.LeaderLosses = e.losses
	st.Elections, st.CatchUps, st.Outages, st.LeaderOutages = e.election.Summary(), e.catchUp.Summary(), e.outage.Summary(), e.leading.Summary()
}
