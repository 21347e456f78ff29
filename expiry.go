// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"sync/atomic"
	"time"

	"github.com/seed-541fafe0/zk/internal/codec"
)

const (
	// expiryTick is how often the leader looks for sessions that fell silent: a session expires between its timeout
	// and one tick later (SS-7).
	expiryTick = 250 * time.Millisecond

	// reapBatch is how many znodes are reaped in one tick, 10,000 a minute at most (DM-83).
	reapBatch = 40

	// expiryBatch bounds how many expiries one tick proposes: mass expiry is spread over frames.
	expiryBatch = 2048
)

// expire is the leader's clockwork. It runs after the epoch is open, so every session, of whatever age, gets a full
// timeout from here (SS-11).
func (m *Member) expire(l *leadership) {
	tick := time.NewTicker(expiryTick)
	defer tick.Stop()
	last := time.Now()
	m.grant(l, last)
	nextReap := last.Add(m.cfg.ReapInterval)
	after := ""
	for {
		select {
		case <-tick.C:
		case <-l.over.Done():
			return
		}
		now := time.Now()
		m.sweep(l, last, now)
		last = now
		if now.After(nextReap) {
			if after = m.reap(l, after); after == "" {
				nextReap = now.Add(m.cfg.ReapInterval)
			}
		}
	}
}

// sweep looks for sessions that fell silent, the time before being last.
func (m *Member) sweep(l *leadership, last, now time.Time) {
	m.grant(l, now)
	m.excuse(l, last, now)
	for _, q := range m.silent(l, now) {
		m.background(l, q, &m.stats.expired)
	}
}

// excuse is for a leader that comes late: who did not tick did not hear heartbeats either, and whoever sent them has
// given up by now. If it is later than a lease's margin, its stall does not count, and nobody expires before the next
// heartbeat has had its time: a third of the timeout at most from the one before, and the margin for its way. No deadline
// becomes later than if a heartbeat had come just now.
func (m *Member) excuse(l *leadership, last, now time.Time) {
	gap := now.Sub(last)
	if gap <= expiryTick {
		return
	}
	m.fsm.mu.RLock()
	defer m.fsm.mu.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	m.fsm.st.sessions.Ascend(func(s *session) bool {
		d := l.attachedLocked(s, now)
		timeout := time.Duration(s.timeout) * time.Millisecond
		margin := m.marginOf(timeout)
		if gap-expiryTick <= margin {
			return true
		}
		at := d.at.Add(gap)
		if soonest := now.Add(timeout/3 + margin); at.Before(soonest) {
			at = soonest
		}
		if latest := now.Add(timeout); at.After(latest) {
			at = latest
		}
		if at.After(d.at) {
			d.at = at
			l.deadlines[s.id] = d
		}
		return true
	})
}

// grant gives a deadline to the sessions that have none yet and forgets those that are gone.
func (m *Member) grant(l *leadership, now time.Time) {
	m.fsm.mu.RLock()
	defer m.fsm.mu.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	m.fsm.st.sessions.Ascend(func(s *session) bool {
		l.attachedLocked(s, now)
		return true
	})
	if len(l.deadlines) > m.fsm.st.sessions.Len() {
		for id := range l.deadlines {
			if m.fsm.st.session(id) == nil {
				delete(l.deadlines, id)
				delete(l.closing, id)
			}
		}
	}
}

// attachedLocked gives a session that was opened or attached since it was last seen a full timeout. An expiry that was
// proposed under the former attachment is void.
func (l *leadership) attachedLocked(s *session, now time.Time) deadline {
	d, ok := l.deadlines[s.id]
	if !ok || d.mark != s.mark {
		if ok {
			delete(l.closing, s.id)
		}
		d = deadline{now.Add(time.Duration(s.timeout) * time.Millisecond), s.mark}
		l.deadlines[s.id] = d
	}
	return d
}

// silent picks the sessions whose deadline has passed.
func (m *Member) silent(l *leadership, now time.Time) (list []request) {
	m.fsm.mu.RLock()
	defer m.fsm.mu.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	m.fsm.st.sessions.Ascend(func(s *session) bool {
		if now.After(l.attachedLocked(s, now).at) {
			l.closing[s.id] = true
			l.deadlines[s.id] = deadline{now.Add(4 * expiryTick), s.mark} // try again if it did not come through
			list = append(list, request{kind: reqExpire, session: s.id, mark: s.mark, term: l.term})
		}
		return len(list) < expiryBatch
	})
	return list
}

// background proposes what nobody waits for, and counts it if it is done and count is not nil. If the queue is full it is tried again later.
func (m *Member) background(l *leadership, q request, count *atomic.Int64) bool {
	c := &call{raw: appendRequest(nil, &q), done: make(chan struct{})}
	c.after = func(out outcome, err error) {
		if err == nil && out.code == 0 && count != nil {
			count.Add(1)
		}
	}
	return m.writes.enqueue(l.over, c, false) == nil
}

// reap looks at some containers and TTL znodes, those after path, and proposes to delete the due ones. It returns
// where to go on, "" at the end.
func (m *Member) reap(l *leadership, after string) string {
	type task struct {
		request
		count *atomic.Int64
	}
	var due []task
	seen := 0
	now := m.stamp().now
	m.fsm.reading(func() {
		next := ""
		m.fsm.st.mortals.AscendGreaterOrEqual(&znode{path: after}, func(n *znode) bool {
			if n.path == after {
				return true
			}
			if seen++; seen > 16*chunk || len(due) == reapBatch {
				return false
			}
			next = n.path
			if n.children == nil && n.due(now) {
				var count *atomic.Int64
				if n.kind == nodeTTL {
					count = &m.stats.reaped
				}
				due = append(due, task{request{kind: reqReap, path: n.path, token: Token(n.czxid), term: l.term}, count})
			}
			return true
		})
		if after = next; seen <= 16*chunk && len(due) < reapBatch {
			after = ""
		}
	})
	for _, t := range due {
		m.background(l, t.request, t.count)
	}
	return after
}

// touch is the leader's half of a heartbeat: it notes who is alive, and returns the sessions that are not
// acknowledged: unknown, killed, or already being expired.
func (m *Member) touch(l *leadership, ids []SessionID, received time.Time) (refused []SessionID) {
	m.fsm.mu.RLock()
	defer m.fsm.mu.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		s := m.fsm.st.session(id)
		if s == nil {
			refused = append(refused, id)
			continue
		}
		have := l.attachedLocked(s, received)
		if s.killed || l.closing[id] {
			refused = append(refused, id)
			continue
		}
		if at := received.Add(time.Duration(s.timeout) * time.Millisecond); at.After(have.at) {
			l.deadlines[id] = deadline{at, s.mark}
		}
	}
	return refused
}

func appendSessionIDs(b []byte, ids []SessionID) []byte {
	b = codec.AppendUvarint(b, uint64(len(ids)))
	last := SessionID(0)
	for _, id := range ids {
		b = codec.AppendUvarint(b, uint64(id-last))
		last = id
	}
	return b
}

func readSessionIDs(r *codec.Reader) []SessionID {
	ids := make([]SessionID, 0, r.Count(1))
	last := SessionID(0)
	for range cap(ids) {
		last += SessionID(r.Uvarint())
		ids = append(ids, last)
	}
	return ids
}
