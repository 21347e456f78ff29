// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

// keeper keeps this member's sessions alive: one heartbeat for all of them.
type keeper struct {
	wake chan struct{} // capacity 1: a session was opened, or the leader changed
}

// keep is the keeper's goroutine.
func (m *Member) keep() {
	vouched := map[SessionID]time.Time{} // external sessions: the touch that the last heartbeat carried
	failures := 0
	for {
		all := m.fsm.sessions()
		for _, l := range all { // all of them, before the tick makes a jump of the clock forgotten
			l.current()
		}
		m.clock.tick()
		silent := m.expireLocal(all)
		interval, ids, lives := m.due(vouched)
		wait := interval
		if len(lives) > 0 {
			sent := time.Now()
			refused, err := m.heartbeat(ids, interval)
			if err == nil {
				failures = 0
				for _, l := range lives {
					_, asked := slices.BinarySearch(ids, l.id)
					_, no := slices.BinarySearch(refused, l.id)
					if asked && !no || !asked && l.standing.Load() == standsLocal { // not if the leader may count its time by now
						l.renew(sent)
					}
				}
				wait = time.Until(sent.Add(interval))
			} else {
				for _, l := range lives {
					delete(vouched, l.id)
				}
				wait = min(backoff(failures), interval)
				failures++
			}
		}
		if !silent.IsZero() {
			wait = min(wait, time.Until(silent))
		}
		t := time.NewTimer(max(wait, 0))
		select {
		case <-t.C:
		case <-m.keeper.wake:
			t.Stop()
		case <-m.stop:
			t.Stop()
			return
		}
	}
}

// due lists the sessions to vouch for, by id, and how often: thrice in the shortest of their timeouts. Of local ones the
// leader is told nothing: that it confirms this member is enough, since they are this member's to expire.
func (m *Member) due(vouched map[SessionID]time.Time) (interval time.Duration, ids []SessionID, lives []*live) {
	interval = m.cfg.SessionTimeout
	all := m.fsm.sessions()
	slices.SortFunc(all, func(a, b *live) int { return cmp.Compare(a.id, b.id) })
	for _, l := range all {
		if l.readOnly {
			continue
		}
		interval = min(interval, l.timeout)
		if l.closing.Load() {
			continue
		}
		if l.external {
			l.mu.Lock()
			touched := l.touched
			l.mu.Unlock()
			if touched.Equal(vouched[l.id]) {
				continue
			}
			vouched[l.id] = touched
		}
		if l.standing.Load() != standsLocal {
			ids = append(ids, l.id)
		}
		lives = append(lives, l)
	}
	if len(vouched) > len(all) {
		maps.DeleteFunc(vouched, func(id SessionID, _ time.Time) bool {
			_, found := slices.BinarySearchFunc(all, id, func(l *live, id SessionID) int { return cmp.Compare(l.id, id) })
			return !found
		})
	}
	return interval / 3, ids, lives
}

// heartbeat asks the leader to acknowledge the sessions. It is given up after the interval, when the next one is due,
// and as soon as another leader is known: the one that was asked may never answer.
func (m *Member) heartbeat(ids []SessionID, interval time.Duration) (refused []SessionID, err error) {
	ctx, cancel := context.WithTimeout(m.life, max(interval, 50*time.Millisecond))
	defer cancel()
	if l := m.lead.Load(); l != nil {
		return m.acknowledge(ctx, l, ids)
	}
	m.mu.Lock()
	asked, changed := m.role.Leader, m.changed
	m.mu.Unlock()
	answered := make(chan struct{})
	m.work.Go(func() {
		defer close(answered)
		refused, err = m.heartbeatTo(ctx, ids)
	})
	for {
		select {
		case <-answered:
			return refused, err
		case <-changed:
		}
		m.mu.Lock()
		now, next := m.role.Leader, m.changed
		m.mu.Unlock()
		if changed = next; now != asked {
			cancel()
			<-answered
			return nil, errNotLeader
		}
	}
}

// acknowledge answers a heartbeat as the leader: only after a confirm round that began after it was received, so
// that a leader that was deposed without knowing extends no lease (D28).
func (m *Member) acknowledge(ctx context.Context, l *leadership, ids []SessionID) ([]SessionID, error) {
	if err := m.fsm.wait(ctx, l.over.Done(), func() bool { return m.fsm.st.term >= l.term }); err != nil {
		return nil, l.why(err)
	}
	received := time.Now()
	refused := m.touch(l, ids, received)
	z, term, err := m.confirm(ctx)
	if err == nil && term != l.term {
		err = errNotLeader
	}
	if err != nil || len(refused) == 0 {
		return refused, err
	}
	// Whoever sends it may have applied an opening that is not applied here yet.
	if err := m.fsm.waitZxid(ctx, l.over.Done(), z); err != nil {
		return nil, l.why(err)
	}
	return m.touch(l, refused, received), nil
}
