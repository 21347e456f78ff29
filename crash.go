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

// askAgain is the pause between two looks at a leader that seems to be gone, and between two rounds of questions.
const askAgain = 10 * time.Millisecond

// streamLost is told by the network when the last raft stream from a member broke.
func (m *Member) streamLost(id string, incarnation uint64) {
	m.peers.mu.Lock()
	m.peers.lost[id] = max(m.peers.lost[id], incarnation)
	m.peers.mu.Unlock()
	if !m.booting() {
		m.doubt()
	}
}

// doubt suspects the leader if its streams broke. It is asked when they do, and when raft learns of a leader: that may
// be a moment later.
func (m *Member) doubt() {
	leader, incarnation, term := m.net.Leader()
	if leader == "" || !m.follows(leader, term) || m.net.Hears(leader, incarnation) {
		return
	}
	m.peers.mu.Lock()
	start := m.peers.lost[leader] >= incarnation && m.peers.doubted != term
	if start {
		m.peers.doubted = term
	}
	m.peers.mu.Unlock()
	if !start {
		return
	}
	m.spawn(func() {
		m.suspect(leader, incarnation, term)
		m.peers.mu.Lock()
		if m.peers.doubted == term {
			m.peers.doubted = 0
		}
		m.peers.mu.Unlock()
	})
}

// gone reports whether a member's process is gone: its streams broke and it has opened none since, and nobody answers
// at its address, or a newer incarnation does. (Not raft's last contact: what came in before the streams broke may take
// raft until well after it.) While the process ends, its address may still take a connection, only to reset it: whoever
// asks should ask again.
func (m *Member) gone(ctx context.Context, id string, incarnation uint64) bool {
	m.peers.mu.Lock()
	lost, met := m.peers.lost[id]
	m.peers.mu.Unlock()
	if !met || lost < incarnation || m.net.Hears(id, incarnation) {
		return false
	}
	who, err := m.net.Probe(ctx, id)
	if err == nil {
		return who.Incarnation > incarnation
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// suspect is the follower's side. It asks until a majority has seen what it sees, the leader is back, or another term
// has come.
func (m *Member) suspect(leader string, incarnation, term uint64) {
	ctx, cancel := context.WithTimeout(m.life, 4*witnessTimeout)
	defer cancel()
	voters := m.voterIDs()
	if !slices.Contains(voters, m.cfg.ID) {
		return
	}
	// The rank keeps the others from standing at the same time.
	rank := slices.Index(slices.DeleteFunc(slices.Clone(voters), func(id string) bool { return id == leader }), m.cfg.ID)
	turn := time.Duration(rank) * 150 * time.Millisecond
	for m.raft.State() == raft.Follower && m.follows(leader, term) && !m.net.Hears(leader, incarnation) {
		if m.gone(ctx, leader, incarnation) && !m.net.Installing() {
			if !pause(ctx, turn) {
				return
			}
			turn = 0
			if m.follows(leader, term) && m.witnessed(ctx, voters, leader, incarnation, term) && m.follows(leader, term) {
				m.log.Info("the leader's process is gone", "leader", leader, "term", term)
				m.stand(ctx)
			}
		}
		if !pause(ctx, askAgain) {
			return
		}
	}
}

// stand has raft begin an election. Should raft be busy, something may have happened since: a late vote would depose
// whoever leads by then.
func (m *Member) stand(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	m.net.TimeoutNow(ctx)
}

// pause is false if ctx ends before the time has passed.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// witnessed asks the other voters. Anything but a yes is a no.
func (m *Member) witnessed(ctx context.Context, voters []string, leader string, incarnation, term uint64) bool {
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
	return yes > len(voters)/2
}

// follows reports whether this member is one of those that a leader leads in a term: it knows of no other, does not
// lead itself, and no newer term has come. It may be a candidate that has lost; raft goes on calling it one for a while
// when it was told to stand.
func (m *Member) follows(leader string, term uint64) bool {
	state := m.raft.State()
	_, now := m.raft.LeaderWithID()
	return (state == raft.Follower || state == raft.Candidate) && (now == "" || string(now) == leader) && m.raft.CurrentTerm() == term
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
	yes := behind && m.follows(leader, term) && !m.net.Installing()
	for yes && !m.gone(ctx, leader, incarnation) {
		yes = pause(ctx, askAgain) // the news of the broken stream may be on its way here too
	}
	return answer(nil, codec.AppendBool(nil, yes && m.follows(leader, term) && !m.net.Installing()))
}
