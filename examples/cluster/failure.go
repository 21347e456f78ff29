// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"time"

	"github.com/seed-541fafe0/zk"
)

func (d *director) findLeader() {
	leader, term := "", uint64(0)
	for _, c := range d.children {
		if c.running && c.role == zk.RoleLeader.String() && c.term > term {
			leader, term = c.id, c.term
		}
	}
	if leader != "" && leader != d.leader {
		d.screen.say("%s leads, in term %d", leader, term)
	}
	d.leader = leader
}

// maybeKill kills the process that hosts the leader, once, when it is time to.
func (d *director) maybeKill() {
	now := &d.progress
	if !d.kill || d.victim != nil || d.leader == "" || now.Total == 0 || now.Results*100 < now.Total*killAt {
		return
	}
	for _, c := range d.children {
		if c.id == d.leader {
			d.victim = c
		} else {
			c.give(order{Do: doProbe})
		}
	}
	d.killed = time.Now()
	if err := d.victim.kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.screen.say("cannot kill %s: %v", d.victim.id, err)
	}
	d.victim.running, d.leader = false, ""
	d.screen.say("%s, which hosts the leader, is killed after %d results", d.victim.id, now.Results)
}

// startAgain gives the victim its second life, with the directory of the first one.
func (d *director) startAgain() error {
	d.revive = nil
	d.screen.say("%s is started again", d.victim.id)
	return d.victim.start(d.executable)
}

// acknowledged measures the gap. A write that was begun before the kill tells nothing: the old leader may have
// committed it.
func (d *director) acknowledged(n notice) {
	if d.victim == nil || n.Began < d.killed.UnixNano() {
		return
	}
	gap := time.Duration(n.Acked - d.killed.UnixNano())
	if d.gap != 0 {
		d.gap = min(d.gap, gap) // another survivor was faster, and is heard later
		return
	}
	d.gap = gap
	d.screen.say("a write is acknowledged %v after the kill", gap.Round(time.Millisecond))
	for _, c := range d.children {
		if c.running {
			c.give(order{Do: doRest})
		}
	}
}
