// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"crypto/rand"
	"encoding/binary"
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
	term uint64 // in which this member led; 0 if it asked the leader
	err  error
}

// roundTimeout bounds one round.
const roundTimeout = 2 * time.Second

// confirm returns the zxid up to which the state had been written when the call began, after a majority of the
// voters has confirmed that the leader leads: this member in that term, or another, who was asked, if term is 0.
func (m *Member) confirm(ctx context.Context) (zxid Zxid, term uint64, err error) {
	c := &m.rounds
	c.mu.Lock()
	if c.next == nil {
		c.next = &round{done: make(chan struct{})}
	}
	r := c.next
	if !c.running {
		if c.running = m.spawn(m.runRounds); !c.running {
			c.mu.Unlock()
			return 0, 0, ErrClosed
		}
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.zxid, r.term, r.err
	case <-ctx.Done():
		return 0, 0, ctxCause(ctx)
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
		if l := m.lead.Load(); l != nil {
			r.term = l.term
			r.zxid, r.err = m.runRound(l)
		} else {
			r.zxid, r.err = m.askConfirmed(m.life)
		}
		close(r.done)
	}
}

func (m *Member) runRound(l *leadership) (Zxid, error) {
	ctx, cancel := context.WithTimeout(l.over, roundTimeout)
	defer cancel()
	// A new leader's state lags until the first entry of its own term is applied.
	if err := m.fsm.wait(ctx, m.stop, func() bool { return m.fsm.st.term >= l.term }); err != nil {
		return 0, l.why(err)
	}
	committed := m.raft.CommitIndex()
	votes, voters := 0, 0
	servers := m.configuration()
	answers := make(chan bool, len(servers))
	asked := 0
	for _, s := range servers {
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
			// A question given up costs its stream, so those that come too late are answered all the same.
			ctx, cancel := context.WithTimeout(l.over, roundTimeout)
			defer cancel()
			term, err := m.askTerm(ctx, id)
			answers <- err == nil && term == l.term
		})
	}
	for ; asked > 0 && votes <= voters/2; asked-- {
		select {
		case yes := <-answers:
			if yes {
				votes++
			}
		case <-ctx.Done():
			return 0, l.why(ctxCause(ctx))
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
	return zxid, l.why(err)
}

// why is the reason for an error under a leadership: often that it is over.
func (l *leadership) why(err error) error {
	if err != nil && l.over.Err() != nil {
		return errNotLeader
	}
	return err
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
	m.stats.waiting.Add(1)
	defer m.stats.waiting.Add(-1)
	for attempt := 0; ; attempt++ {
		zxid, _, err := m.confirm(ctx)
		if err == nil {
			m.stats.knowCommitted(zxid)
			err = m.fsm.waitZxid(ctx, m.stop, zxid)
		}
		if err == nil {
			return nil
		}
		if m.life.Err() != nil {
			return ErrClosed
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
