// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"math/rand/v2"
	"time"
)

// A local session is known to its member alone (SS-22): nothing in the log opens, renews, expires or closes it. What it
// writes travels without a session, under its identities. It has the mark 0, which no attachment gives, so when it is
// upgraded, requests that were made before anybody knew how that ends are still the session's (SS-24).

// What a session is to the ensemble. It only ever goes from local to rising to known; a session that is opened by a
// request is known from the beginning.
const (
	standsKnown  uint32 = iota // the state has it
	standsLocal                // its member alone has it
	standsRising               // its upgrade is in the queue, or in a frame
)

// hold keeps the upgrade of a local session, its being attached anew and its end away, until release is called. A session
// that the ensemble knows needs none of that.
func (l *live) hold() (release func()) {
	if l.standing.Load() == standsKnown {
		return func() {}
	}
	l.order.Lock()
	return l.order.Unlock
}

// LocalSession opens a session that this member alone knows of, for a listener's client that needs no ephemerals
// (SS-22): opening, renewing, expiring and closing it costs no log entry. Reads, watches and writes are those of every
// session, but an ephemeral is ErrEphemeralOnLocalSession, until Listener.Upgrade makes the ensemble know the session.
//
// It is External: Timeout after the last Listener.Touch this member ends it, no later than a third of the shortest
// timeout after that, and until then Attach gives it back, on this member alone. It is suspended while no leader confirms
// its member. It ends with its member. Errors: ErrAuthFailed, ErrBadArguments, ErrTooLarge, ErrClosed.
func (m *Member) LocalSession(cfg SessionConfig) (*Session, error) {
	if err := m.opens("local session"); err != nil {
		return nil, err
	}
	cfg, ids, err := m.negotiate("local session", cfg)
	if err != nil {
		return nil, err
	}
	if !fit(ids) {
		return nil, &Error{Op: "local session", Code: ErrTooLarge}
	}
	l := m.newLocal(localID|SessionID(rand.Int64N(1<<56)), cfg, randomPassword(), ids)
	m.fsm.locked(func() {
		for m.fsm.live[l.id] != nil || m.fsm.st.session(l.id) != nil {
			l.id++
		}
		m.fsm.live[l.id] = l
	})
	return m.startLocal("local session", l)
}

func (m *Member) newLocal(id SessionID, cfg SessionConfig, password string, ids []Identity) *live {
	cfg.External = true
	l := newLive(m, id, 0, cfg, time.Now())
	l.created, l.password = m.clusterTime().UnixMilli(), password
	l.ids.Store(&ids)
	l.standing.Store(standsLocal)
	return l
}

func (m *Member) startLocal(op string, l *live) (*Session, error) {
	if err := m.running(op); err != nil { // it stopped meanwhile
		m.forget(l)
		return nil, err
	}
	l.start()
	signal(m.keeper.wake)
	if hook := m.cfg.Hooks.SessionOpened; hook != nil {
		hook(l.info())
	}
	m.log.Debug("local session opened", "session", l.id, "name", l.name)
	return &Session{live: l}, nil
}

// attachLocal is Attach for a local session of this member; here is false where there is none of that id.
func (m *Member) attachLocal(id SessionID, password string, cfg SessionConfig, ids []Identity) (s *Session, here bool, err error) {
	for {
		var old *live
		m.fsm.reading(func() { old = m.fsm.live[id] })
		if old == nil {
			return nil, false, nil
		}
		var again bool
		if s, here, again, err = m.replaceLocal(old, password, cfg, ids); !again {
			return s, here, err
		}
	}
}

func (m *Member) replaceLocal(old *live, password string, cfg SessionConfig, ids []Identity) (s *Session, here, again bool, err error) {
	defer old.hold()()
	switch {
	case old.standing.Load() != standsLocal:
		return nil, false, false, nil
	case password != old.password:
		return nil, true, false, &Error{Op: "attach", Code: ErrAuthFailed}
	case !fit(ids):
		return nil, true, false, &Error{Op: "attach", Code: ErrTooLarge}
	case time.Until(old.silentAt()) <= 0:
		m.endLocal(old)
		return nil, true, false, &Error{Op: "attach", Code: ErrSessionExpired}
	}
	l := m.newLocal(old.id, cfg, password, ids)
	m.fsm.locked(func() {
		if again = m.fsm.live[old.id] != old; !again {
			m.fsm.dropLocked(old, StateClosed, ErrSessionMoved)
			m.fsm.live[l.id] = l
		}
	})
	if again { // it was attached, or has ended, while this one waited
		return nil, false, true, nil
	}
	s, err = m.startLocal("attach", l)
	return s, true, false, err
}

// rest ends the handle of a local session and keeps the session, to be attached again, until its timeout. It reports
// whether the session is a local one; its order is held.
func (l *live) rest() bool {
	if l.standing.Load() != standsLocal {
		return false
	}
	l.m.watches.endSession(l, StateClosed)
	l.finish(StateClosed, ErrClosed)
	return true
}

// closeLocal closes a local session; it reports whether it was one.
func (l *live) closeLocal() bool {
	defer l.hold()()
	if l.standing.Load() != standsLocal {
		return false
	}
	l.closing.Store(true)
	l.m.endLocal(l)
	if l.m.cfg.Audit != nil {
		l.m.audit(l, "close session", nil, nil)
	}
	return true
}

// silentAt is when a local session expires unless its listener vouches for it.
func (l *live) silentAt() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.touched.Add(l.timeout)
}

// expireLocal ends the local sessions whose clients have been silent for their timeout, and returns when the next one
// may be; zero if there is none.
func (m *Member) expireLocal(lives []*live) (next time.Time) {
	for _, l := range lives {
		if l.standing.Load() != standsLocal {
			continue
		}
		at := l.silentAt()
		if time.Until(at) > 0 {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		func() {
			defer l.hold()()
			if l.standing.Load() == standsLocal && time.Until(l.silentAt()) <= 0 {
				m.endLocal(l)
			}
		}()
	}
	return next
}

// endLocal ends a local session that is closed or fell silent. Its order is held.
func (m *Member) endLocal(l *live) {
	m.fsm.locked(func() {
		if m.fsm.live[l.id] == l {
			m.fsm.endLocked(l, nil)
		}
	})
}

// addLocal is AddAuth for a local session; it reports whether it was one.
func (l *live) addLocal(ids []Identity) (bool, error) {
	defer l.hold()()
	if l.standing.Load() != standsLocal {
		return false, nil
	}
	if !fit(joined(l.identities(), ids)) {
		return true, &Error{Op: "auth", Code: ErrTooLarge}
	}
	l.addIdentities(ids)
	return true, nil
}

// Upgrade makes a local session known to the ensemble, under the same id and password and with its watches: it may own
// ephemerals then, and be attached on other members (SS-23). It returns at once; the request that does it comes before
// all that are made after Upgrade has returned. Should it be refused, the session is over. For a session that is not
// local, or not any more, it does nothing. Errors: ErrThrottled, and those of a session that is over; the session is
// local still.
func (l *Listener) Upgrade(ctx context.Context) error {
	s := l.s
	if s.standing.Load() == standsKnown {
		return nil
	}
	defer s.hold()()
	if s.standing.Load() != standsLocal {
		return nil
	}
	if err := s.begin(ctx, "upgrade", ""); err != nil {
		return err
	}
	q := request{
		kind: reqOpen, session: s.id, timeout: s.timeout.Milliseconds(), password: s.password, name: s.name,
		ids: s.identities(), limit: s.limit,
	}
	sent := time.Now()
	c := &call{raw: appendRequest(nil, &q), done: make(chan struct{})}
	c.after = func(out outcome, err error) {
		if err == nil { // else the member stops
			s.m.upgraded(s.live, out.code, sent)
		}
	}
	s.standing.Store(standsRising) // before it can be applied: from then on the leader has to acknowledge it (D28)
	if err := s.m.writes.enqueue(ctx, c, false); err != nil {
		s.standing.Store(standsLocal)
		return &Error{Op: "upgrade", Code: codeOf(err), Err: unlessCode(err)}
	}
	return nil
}

// upgraded is called when an upgrade was applied, with its code; the session may be over again by now.
func (m *Member) upgraded(l *live, code Code, sent time.Time) {
	m.fsm.locked(func() {
		l.standing.Store(standsKnown)
		if m.fsm.live[l.id] != l {
			return // it was let go of, and may have been attached meanwhile
		}
		rec := m.fsm.st.session(l.id)
		if code != 0 {
			rec = nil
		}
		m.fsm.endLocked(l, rec) // unless it is there
	})
	l.renew(sent) // heartbeats that came too early were refused; the leader counts from later than this
	signal(m.keeper.wake)
	m.log.Debug("local session upgraded", "session", l.id, "name", l.name)
}
