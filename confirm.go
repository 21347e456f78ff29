// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// confirmer runs confirm rounds (D15): proof that this member still led after the round began. Everybody who waits
// shares the next round; a caller never joins one that has begun.
type confirmer struct {
	mu      sync.Mutex
	next    *round
	running bool
}

type round struct {
	done chan struct{}
	zxid Zxid
	err  error
}

// roundTimeout bounds one round.
const roundTimeout = 2 * time.Second

// confirm returns the zxid up to which the state had been written when the call began, after a majority of the
// voters has confirmed that this member leads.
func (m *Member) confirm(ctx context.Context) (Zxid, error) {
	c := &m.rounds
	c.mu.Lock()
	if c.next == nil {
		c.next = &round{done: make(chan struct{})}
	}
	r := c.next
	if !c.running {
		c.running = true
		m.work.Go(m.runRounds)
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.zxid, r.err
	case <-ctx.Done():
		return 0, ctxCause(ctx)
	}
}

func (m *Member) runRounds() {
	c := &m.rounds
	for {
		c.mu.Lock()
		r := c.next
		c.next = nil
		if r == nil {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		r.zxid, r.err = m.runRound()
		close(r.done)
	}
}

func (m *Member) runRound() (Zxid, error) {
	l := m.lead.Load()
	if l == nil {
		return 0, errNotLeader
	}
	ctx, cancel := context.WithTimeout(l.over, roundTimeout)
	defer cancel()
	// A new leader's state lags until the first entry of its own term is applied.
	if err := m.fsm.wait(ctx, m.stop, func() bool { return m.fsm.st.term >= l.term }); err != nil {
		return 0, err
	}
	committed := m.raft.CommitIndex()
	votes, voters := 0, 0
	answers := make(chan bool, 64)
	asked := 0
	for _, s := range m.configuration() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		id := string(s.ID)
		if id == m.cfg.ID {
			if m.raft.State() == raft.Leader && m.raft.CurrentTerm() == l.term {
				votes++
			}
			continue
		}
		asked++
		m.work.Go(func() {
			term, err := m.askTerm(ctx, id)
			select {
			case answers <- err == nil && term == l.term:
			case <-ctx.Done():
			}
		})
	}
	for ; asked > 0 && votes <= voters/2; asked-- {
		select {
		case yes := <-answers:
			if yes {
				votes++
			}
		case <-ctx.Done():
			return 0, ctxCause(ctx)
		}
	}
	if votes <= voters/2 {
		return 0, errNotLeader
	}
	index := m.store.LastCommand(committed)
	var zxid Zxid
	err := m.fsm.wait(ctx, m.stop, func() bool {
		zxid = m.fsm.st.zxid
		return m.fsm.index >= index
	})
	return zxid, err
}

// nonce makes every question its own, so that no late answer is taken for a fresh one.
func nonce() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// barrier returns once this member has applied everything that was answered anywhere before the call.
func (m *Member) barrier(ctx context.Context) error {
	m.stats.linear.Add(1)
	for attempt := 0; ; attempt++ {
		zxid, err := m.confirmedZxid(ctx)
		if err == nil {
			err = m.fsm.waitZxid(ctx, m.stop, zxid)
		}
		if err == nil || errors.Is(err, ErrClosed) {
			return err
		}
		if ctx.Err() != nil {
			return &Error{Op: "barrier", Code: ErrUnavailable, Err: ctxCause(ctx)}
		}
		t := time.NewTimer(backoff(attempt))
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-m.stop:
			t.Stop()
			return ErrClosed
		}
		t.Stop()
	}
}

func (m *Member) confirmedZxid(ctx context.Context) (Zxid, error) {
	if m.leading() {
		return m.confirm(ctx)
	}
	return m.askConfirmed(ctx)
}
