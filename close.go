// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// spawn runs fn on a goroutine that Close waits for. It is false, and fn is not run, once the member stops.
func (m *Member) spawn(fn func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return false
	}
	m.work.Go(fn)
	return true
}

// fail stops the member: it cannot trust its disk or its state any more, or it does not belong to the ensemble.
// The host process lives on.
func (m *Member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing || m.cause != nil {
		return
	}
	m.cause = err
	m.stats.stopped(err)
	if m.booting() {
		return // Open returns it
	}
	m.log.Error("member stops", "err", err)
	go m.shutdown()
}

// closeBound is how long Close waits for a store call that hangs.
const closeBound = 5 * time.Second

// Close stops the member at once, as a crash would, but without leaks: callers get their answers, watches end,
// goroutines and files are gone. It returns within 5 s; if a system call on the store hangs longer it returns
// ErrStalled, touches nothing afterwards, and the directory stays locked. Closing twice is fine.
func (m *Member) Close() error {
	go m.shutdown()
	select {
	case <-m.done:
		return nil
	case <-m.hung:
	}
	select {
	case <-m.done: // it came to its end after all
		return nil
	default:
		return &Error{Op: "close", Code: ErrStalled}
	}
}

// Shutdown stops the member gracefully: it closes its sessions, so that their ephemerals vanish at once, hands over
// leadership, and closes. External sessions are only let go of: their clients attach them to another member. ctx bounds
// the farewell, not the close; it is cut short when no leader is to be found, as when a whole ensemble stops.
func (m *Member) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return badContext("shutdown")
	}
	if m.running("shutdown") != nil {
		return m.Close()
	}
	m.mu.Lock()
	m.leaving = true // what keeps znodes in the tree must not open a session for them now
	m.mu.Unlock()
	farewellCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	var farewell, watching sync.WaitGroup
	watching.Go(func() {
		m.leaderless(farewellCtx)
		cancel()
	})
	for _, l := range m.fsm.sessions() {
		if l.external {
			l.letGo()
			continue
		}
		farewell.Go(func() {
			ctx, cancel := context.WithTimeout(farewellCtx, l.timeout) // after that the ensemble closes it by itself
			defer cancel()
			l.close(ctx)
		})
	}
	farewell.Wait()
	if m.leading() {
		m.TransferLeadership(farewellCtx, "")
	}
	cancel()
	watching.Wait()
	return m.Close()
}

// leaderless returns once no leader was known for the time of an election, or when ctx ends.
func (m *Member) leaderless(ctx context.Context) {
	for ctx.Err() == nil {
		m.mu.Lock()
		info, changed := m.role, m.changed
		m.mu.Unlock()
		var late <-chan time.Time
		if info.Leader == "" {
			late = time.After(m.cfg.Election)
		}
		select {
		case <-changed:
		case <-late:
			return
		case <-ctx.Done():
		}
	}
}

// shutdown ends everything, in the order in which one part needs the next.
func (m *Member) shutdown() {
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		return
	}
	m.closing = true
	cause := m.cause
	m.setRoleLocked(RoleInfo{Role: RoleStopped, Term: m.role.Term})
	m.mu.Unlock()
	m.kill()
	if cause == nil {
		cause = ErrClosed
	} else {
		cause = fmt.Errorf("%w: %w", ErrClosed, cause)
	}
	m.net.Close()
	bound := time.Now().Add(closeBound)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.raft.Shutdown().Error()
		m.work.Wait()
	}()
	t := time.NewTimer(closeBound)
	defer t.Stop()
	hung := false
	select {
	case <-ended:
	case <-t.C:
		hung = true
		close(m.hung)
	}
	for _, l := range m.fsm.sessions() {
		m.watches.endSession(l, StateClosed)
		l.finish(StateClosed, ErrClosed)
	}
	m.writes.close(cause)
	if hung {
		m.log.Error("a store call does not return: the directory stays locked", "dir", m.cfg.Dir)
		<-ended
	}
	m.awaitLate(bound)
	if err := m.store.Close(); err != nil {
		m.log.Warn("closing the store", "err", err)
	}
	close(m.done)
}

// awaitLate waits for the functions of TxnLate, which have their outcomes by now. One that does not come back, against
// what it is told, does not keep Close beyond its bound.
func (m *Member) awaitLate(bound time.Time) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.writes.lates.Wait()
	}()
	t := time.NewTimer(time.Until(bound))
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
		m.log.Error("a function given to TxnLate does not return")
	}
}

// abandon undoes a failed open.
func (m *Member) abandon() {
	m.kill()
	if m.net != nil {
		m.net.Close()
	} else if m.cfg.Transport != nil {
		m.cfg.Transport.Close()
	}
	if m.raft != nil {
		m.raft.Shutdown().Error()
	}
	m.work.Wait()
	if m.store != nil {
		m.store.Close()
	}
}
