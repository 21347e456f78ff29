// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// leadership is one term of this member as the leader, from when its epoch entry was handed to raft.
type leadership struct {
	term  uint64
	over  context.Context
	end   context.CancelFunc
	ended chan struct{}        // closed when its goroutine is gone
	heir  atomic.Pointer[heir] // who was to take over last; nil: nobody

	mu        sync.Mutex // guards the fields below
	deadlines map[SessionID]deadline
	closing   map[SessionID]bool // an expiry was proposed: never acknowledged again
	changing  bool               // a membership change is under way
}

// deadline is when a session expires unless its owner is heard of before. It belongs to one attachment: whoever has
// attached the session since has a lease that began later.
type deadline struct {
	at   time.Time
	mark Zxid
}

// leading reports whether this member leads, as far as it knows.
func (m *Member) leading() bool { return m.lead.Load() != nil }

// leads reports whether this member leads another in a term, for the network: replication to it is worth waiting for. Not
// to an heir, for raft wants to hear whether it can take over.
func (m *Member) leads(id string, term uint64) bool {
	if m.booting() || m.raft.CurrentTerm() != term || m.raft.State() != raft.Leader || !m.isServer(id) {
		return false
	}
	l := m.lead.Load()
	if l == nil {
		return true
	}
	h := l.heir.Load()
	return h == nil || h.id != id || time.Now().After(h.until)
}

// heir is a member that leadership is handed over to, which raft tries until then.
type heir struct {
	id    string
	until time.Time
}

// handOver has raft hand leadership over. It takes no entries meanwhile.
func (m *Member) handOver(l *leadership, id string) {
	l.heir.Store(&heir{id, time.Now().Add(m.cfg.Election + lostTick)})
	m.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id))
}

// follow watches leadership come and go. One goroutine; it owns m.lead, and lets one leadership end before the next
// begins.
func (m *Member) follow() {
	seen := make(chan raft.Observation, 1)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		_, state := o.Data.(raft.RaftState)
		return leader || state
	})
	m.raft.RegisterObserver(observer)
	defer m.raft.DeregisterObserver(observer)
	var l *leadership // the last one
	defer func() { m.resign(l) }()
	m.noteRole()
	tick := time.NewTicker(lostTick)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
			switch _, leader := m.raft.LeaderWithID(); {
			case leader == "":
				m.inquire(n)
			case m.raft.State() == raft.Candidate && m.heard() > m.cfg.Election:
				// A candidate that was told to stand stays one even when it hears another's victory. If that leader dies
				// before the next election undoes it, raft believes in it for ever, and refuses all others its vote. To be
				// told again makes it forget.
				m.work.Go(func() { m.net.TimeoutNow(m.life) })
			}
		case <-m.raft.LeaderCh():
			m.resign(l)
			if m.raft.State() == raft.Leader {
				l = m.accede(m.raft.CurrentTerm(), l)
			}
		case <-seen:
		case <-m.reshaped:
		case <-m.stop:
			return
		}
		m.noteRole()
		m.doubt()
		signal(m.writes.leader)
		signal(m.keeper.wake)
	}
}

// lostTick is how often a member that knows of no leader asks a peer whether it still belongs to the ensemble: a
// member that was removed is told by nobody else.
const lostTick = time.Second

func (m *Member) inquire(n int) {
	others := m.peers.others()
	if len(others) == 0 {
		return
	}
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(m.life, lostTick)
		defer cancel()
		_, err := m.ask(ctx, others[n%len(others)], kindHello, nil)
		if e, ok := errors.AsType[*remoteError](err); ok && e.code == ErrNotMember {
			m.fail(&Error{Op: "member", Code: ErrNotMember, Err: e})
		}
	})
}

func (m *Member) accede(term uint64, last *leadership) *leadership {
	l := &leadership{term: term, ended: make(chan struct{}), deadlines: map[SessionID]deadline{}, closing: map[SessionID]bool{}}
	if last != nil && last.term == term {
		l.closing = last.closing // what was proposed in this term may still be applied
	}
	l.over, l.end = context.WithCancel(m.life)
	m.clock.rebase(m.fsm.now())
	m.work.Go(func() { m.reign(l) })
	return l
}

// resign ends a leadership and returns when its goroutine is gone.
func (m *Member) resign(l *leadership) {
	if l == nil {
		return
	}
	l.end()
	m.lead.CompareAndSwap(l, nil)
	<-l.ended
	m.lead.CompareAndSwap(l, nil) // it may have been about to begin
}

// reign opens the epoch and then does what only a leader does: it expires sessions and reaps znodes.
func (m *Member) reign(l *leadership) {
	defer close(l.ended)
	defer l.end()
	e := epoch{cluster: randomID(), members: m.foundingMembers()}
	data := appendEpoch(nil, &e)
	opened := func() bool { return m.fsm.st.term >= l.term }
	for {
		m.raft.ApplyLog(raft.Log{Data: data, Extensions: appendStamp(nil, m.stamp())}, time.Second)
		// The entry is in raft's hands, in front of everything that is proposed from here on.
		m.lead.CompareAndSwap(nil, l)
		signal(m.writes.leader)
		if m.raft.State() != raft.Leader || m.raft.CurrentTerm() != l.term {
			m.lead.CompareAndSwap(l, nil)
			return
		}
		ctx, cancel := context.WithTimeout(l.over, resendAfter)
		err := m.fsm.wait(ctx, m.stop, opened)
		cancel()
		if err == nil {
			break
		}
		if l.over.Err() != nil {
			return
		}
	}
	m.clock.rebase(max(m.fsm.now(), m.clock.now())) // the log has been read to its end by now
	m.log.Info("leading", "term", l.term)
	m.expire(l)
}

// noteRole publishes changes of role and leader.
func (m *Member) noteRole() {
	info := RoleInfo{Term: m.raft.CurrentTerm()}
	_, leader := m.raft.LeaderWithID()
	info.Leader = string(leader)
	switch m.raft.State() {
	case raft.Leader:
		info.Role = RoleLeader
	case raft.Candidate:
		info.Role = RoleCandidate
	case raft.Shutdown:
		info.Role = RoleStopped
	default:
		info.Role = RoleFollower
		if !m.votes() {
			info.Role = RoleNonVoter
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setRoleLocked(info)
}

func (m *Member) setRoleLocked(info RoleInfo) {
	if info == m.role || m.role.Role == RoleStopped {
		return
	}
	if info.Leader != m.role.Leader && info.Leader != "" {
		m.log.Info("leader", "leader", info.Leader, "term", info.Term)
	}
	m.role = info
	m.stats.elections.follow(info)
	close(m.changed)
	m.changed = make(chan struct{})
	if hook := m.cfg.Hooks.RoleChanged; hook != nil {
		hook(info)
	}
}

// votes reports whether this member has a vote. One that comes after its peers have founded the ensemble has no
// configuration until a leader sends it: then it is what Peers says. Who joins has no vote before.
func (m *Member) votes() bool {
	if len(m.configuration()) > 0 {
		return m.isVoter(m.cfg.ID)
	}
	return len(m.cfg.Join) == 0 && slices.ContainsFunc(m.cfg.Peers, func(p Peer) bool { return p.ID == m.cfg.ID && p.Voter })
}

// isVoter asks raft's newest configuration.
func (m *Member) isVoter(id string) bool {
	for _, s := range m.configuration() {
		if string(s.ID) == id {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

func (m *Member) configuration() []raft.Server {
	f := m.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// afterApply runs after each batch, on raft's goroutine: the leader tells its peers of the commit (D13).
func (m *Member) afterApply(index, term uint64) {
	m.store.Applied(index)
	if m.cfg.DisableCommitNotice || m.lead.Load() == nil {
		return
	}
	now := m.raft.CurrentTerm()
	if m.raft.State() != raft.Leader || m.raft.CurrentTerm() != now {
		return
	}
	for _, id := range m.peers.others() {
		m.net.Notify(id, now, index, term, m.cfg.ID) // it waits until the peer has the entry
	}
}

// afterEpoch runs when a leadership's first entry is applied here.
func (m *Member) afterEpoch(term uint64) {
	m.stats.elections.begun(term)
	m.announce()
	m.writes.epoch(term)
	signal(m.writes.leader)
	signal(m.keeper.wake)
}
