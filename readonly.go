// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"math/rand/v2"
	"time"
)

// ReadOnlySession opens a session that this member alone knows of, for the clients that a listener serves while there
// is no quorum (SS-26 to SS-30): no log entry, no heartbeat, no ephemerals. Reads and watches show what this member
// has, however old; writes, Sync and Linearizable fail with ErrNotReadOnly. It is never suspended: it lives until it is
// closed, or its member is, and cannot be attached elsewhere. Its Timeout is negotiated as NewSession does, and is the
// listener's to enforce. Errors: ErrAuthFailed, ErrBadArguments, ErrClosed.
func (m *Member) ReadOnlySession(cfg SessionConfig) (*Session, error) {
	if err := m.running("read-only session"); err != nil {
		return nil, err
	}
	cfg, ids, err := m.negotiate("read-only session", cfg)
	if err != nil {
		return nil, err
	}
	l := newLive(m, localID|SessionID(rand.Int64N(1<<56)), 0, cfg, time.Now())
	l.readOnly, l.password = true, randomPassword()
	l.ids.Store(&ids)
	m.fsm.locked(func() {
		for m.fsm.live[l.id] != nil {
			l.id++
		}
		m.fsm.live[l.id] = l
	})
	if err := m.running("read-only session"); err != nil { // it stopped meanwhile
		m.forget(l)
		return nil, err
	}
	return &Session{live: l}, nil
}
