// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/internal/codec"
)

// A leader whose process died is found by its closed sockets, not by a timeout (D17). A follower whose streams from
// the leader broke and whose redial is refused asks the other voters whether they see the same; with a majority it
// stands for election at once. Everything else is left to raft's timeouts and pre-vote.

// witnessTimeout bounds one question to a voter, its own probe of the leader included.
const witnessTimeout = 500 * time.Millisecond

// streamLost is told by the network when the last raft stream from a member broke.
func (m *Member) streamLost(id string, incarnation uint64) {
	m.peers.mu.Lock()
	m.peers.lost[id] = true
	m.peers.mu.Unlock()
	if m.booting() || m.life.Err() != nil {
		return
	}
	if _, leader := m.raft.LeaderWithID(); string(leader) == id && m.raft.State() == raft.Follower {
		m.work.Go(func() { m.suspect(id, incarnation) })
	}
}

// gone reports whether a member's process is gone: its streams broke and it has opened none since, and nobody answers
// at its address, or a newer incarnation does. (Not raft's last contact: what came in before the streams broke may take
// raft until well after it.)
func (m *Member) gone(ctx context.Context, id string, incarnation uint64) bool {
	m.peers.mu.Lock()
	lost := m.peers.lost[id]
	m.peers.mu.Unlock()
	if !lost || m.net.Hears(id, incarnation) {
		return false
	}
	who, err := m.net.Probe(ctx, id)
	if err == nil {
		return who.Incarnation > incarnation
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// suspect is the follower's side.
func (m *Member) suspect(leader string, incarnation uint64) {
	ctx, cancel := context.WithTimeout(m.life, 4*witnessTimeout)
	defer cancel()
	term := m.raft.CurrentTerm()
	voters := m.voterIDs()
	if !slices.Contains(voters, m.cfg.ID) || !m.gone(ctx, leader, incarnation) {
		return
	}
	// The rank keeps the others from standing at the same time.
	rank := slices.Index(slices.DeleteFunc(slices.Clone(voters), func(id string) bool { return id == leader }), m.cfg.ID)
	t := time.NewTimer(time.Duration(rank) * 150 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return
	}
	if !m.stillFollows(leader, term) {
		return
	}
	question := codec.AppendUvarint(nil, term)
	question = codec.AppendString(question, leader)
	question = codec.AppendUvarint(question, incarnation)
	lastTerm, lastIndex := m.lastLog()
	question = codec.AppendUvarint(question, lastTerm)
	question = codec.AppendUvarint(question, lastIndex)
	answers := make(chan bool, len(voters))
	asked := 0
	for _, id := range voters {
		if id == m.cfg.ID || id == leader {
			continue
		}
		asked++
		m.work.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
			defer cancel()
			r, err := m.ask(ctx, id, kindWitness, question)
			answers <- err == nil && r.Bool() && r.Done() == nil
		})
	}
	yes := 1
	for ; asked > 0 && yes <= len(voters)/2; asked-- {
		if <-answers {
			yes++
		}
	}
	if yes > len(voters)/2 && m.stillFollows(leader, term) {
		m.log.Info("the leader's process is gone", "leader", leader, "term", term)
		// Should raft be busy, something has happened since: a late vote would depose whoever leads by then.
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		m.net.TimeoutNow(ctx)
	}
}

func (m *Member) stillFollows(leader string, term uint64) bool {
	_, now := m.raft.LeaderWithID()
	return m.raft.State() == raft.Follower && m.raft.CurrentTerm() == term && string(now) == leader
}

func (m *Member) lastLog() (term, index uint64) {
	s := m.raft.Stats()
	term, _ = strconv.ParseUint(s["last_log_term"], 10, 64)
	index, _ = strconv.ParseUint(s["last_log_index"], 10, 64)
	return term, index
}

// witness is the other voter's side.
func (m *Member) witness(ctx context.Context, r *codec.Reader) []byte {
	term, leader, incarnation, lastTerm, lastIndex := r.Uvarint(), r.String(), r.Uvarint(), r.Uvarint(), r.Uvarint()
	if r.Done() != nil {
		return answer(ErrMarshalling, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	myTerm, myIndex := m.lastLog()
	behind := myTerm < lastTerm || myTerm == lastTerm && myIndex <= lastIndex
	yes := behind && m.stillFollows(leader, term)
	for yes && !m.gone(ctx, leader, incarnation) {
		// The news of the broken stream may be on its way here too.
		t := time.NewTimer(10 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			yes = false
		}
		t.Stop()
	}
	return answer(nil, codec.AppendBool(nil, yes && m.stillFollows(leader, term)))
}
