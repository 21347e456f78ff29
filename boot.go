// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/internal/codec"
	"github.com/seed-541fafe0/zk/internal/raftnet"
)

// addressBook knows where members are and who they said they are.
type addressBook struct {
	mu      sync.Mutex
	hints   map[string]string           // from Config.Peers
	known   map[string]raftnet.Identity // from handshakes: the newest incarnation of each
	members []string                    // other members of the committed configuration
	lost    map[string]uint64           // members whose streams broke: the newest such incarnation
	doubted uint64                      // the term whose leader is being suspected
	self    string
}

func (a *addressBook) start(cfg *Config) {
	a.hints, a.known, a.lost, a.self = map[string]string{}, map[string]raftnet.Identity{}, map[string]uint64{}, cfg.ID
	for _, p := range cfg.Peers {
		a.hints[p.ID] = p.Addr
	}
}

func (a *addressBook) others() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.members
}

// identity is what this member announces on every stream.
func (m *Member) identity() raftnet.Identity {
	return raftnet.Identity{Cluster: m.ClusterID(), ID: m.cfg.ID, Storage: m.store.storageID, Incarnation: m.incarnation, Addr: m.cfg.Advertise}
}

// resolve finds a member: the user's function first, then what it announced, then what the state recorded, then
// the hints (D18). Any member may come back on a new address.
func (m *Member) resolve(ctx context.Context, id string) (string, error) {
	if m.cfg.Resolve != nil {
		if addr, err := m.cfg.Resolve(ctx, id); err == nil && addr != "" {
			return addr, nil
		}
	}
	m.peers.mu.Lock()
	addr, hint := m.peers.known[id].Addr, m.peers.hints[id]
	m.peers.mu.Unlock()
	if addr == "" {
		m.fsm.reading(func() {
			if r := m.fsm.st.member(id); r != nil {
				addr = r.addr
			}
		})
	}
	if addr == "" {
		addr = hint
	}
	if addr == "" {
		return "", fmt.Errorf("member %q has no known address", id)
	}
	return addr, nil
}

// admit decides whether this member talks to another, before anything of raft is exchanged (D27).
func (m *Member) admit(remote raftnet.Identity) error {
	var mine string
	var rec memberRecord
	recorded := false
	m.fsm.reading(func() {
		mine = m.fsm.st.cluster
		if r := m.fsm.st.member(remote.ID); r != nil {
			rec, recorded = *r, true
		}
	})
	switch {
	case remote.ID == m.cfg.ID:
		return fmt.Errorf("%w: it calls itself %q, which is this member's id", ErrBadArguments, remote.ID)
	case mine != "" && remote.Cluster != "" && mine != remote.Cluster:
		return fmt.Errorf("%w: %q here, %q there", ErrClusterMismatch, mine, remote.Cluster)
	case recorded && rec.storage != "" && rec.storage != remote.Storage:
		return fmt.Errorf("%w: remove %q and add it under a new id", ErrWiped, remote.ID)
	case recorded && rec.removed:
		return fmt.Errorf("%w: %q was removed", ErrNotMember, remote.ID)
	}
	m.peers.mu.Lock()
	defer m.peers.mu.Unlock()
	have, met := m.peers.known[remote.ID]
	switch {
	case met && have.Storage == remote.Storage && remote.Incarnation < have.Incarnation:
		return fmt.Errorf("an earlier incarnation of %q", remote.ID)
	case met && have.Storage != remote.Storage && slices.Contains(m.peers.members, remote.ID):
		// It died before its storage was recorded.
		return fmt.Errorf("%w: remove %q and add it under a new id", ErrWiped, remote.ID)
	}
	if _, ok := m.peers.known[remote.ID]; !ok && len(m.peers.known) >= maxKnown {
		for id := range m.peers.known {
			if !slices.Contains(m.peers.members, id) {
				delete(m.peers.known, id)
			}
		}
	}
	m.peers.known[remote.ID] = remote
	return nil
}

// maxKnown bounds how many members, strangers included, are remembered from handshakes.
const maxKnown = 1024

// belongs reports whether another is of this ensemble, as far as this member knows: it is in the configuration, or it
// names the ensemble, which a member that lags behind has to take for an answer. A member without a configuration, which
// has not joined yet, takes everybody's word; one that has not read its log yet does not know its ensemble's name.
func (m *Member) belongs(remote raftnet.Identity) bool {
	servers := m.configuration()
	if len(servers) == 0 || slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == remote.ID }) {
		return true
	}
	mine := m.ClusterID()
	return remote.Cluster != "" && (mine == "" || mine == remote.Cluster)
}

func (m *Member) isServer(id string) bool {
	return slices.ContainsFunc(m.configuration(), func(s raft.Server) bool { return string(s.ID) == id })
}

// admitRaft decides who may speak to raft: members of the ensemble, and of what concerns elections voters alone.
func (m *Member) admitRaft(remote raftnet.Identity, rpc any) error {
	select {
	case <-m.booted: // a vote that is refused now is not asked for again for a second
	case <-m.stop:
		return ErrUnavailable
	}
	election := false
	switch rpc.(type) {
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest, *raft.TimeoutNowRequest:
		election = true
	}
	if !m.belongs(remote) || election && m.isServer(remote.ID) && !m.isVoter(remote.ID) {
		return fmt.Errorf("%w: %q", ErrNotMember, remote.ID)
	}
	return nil
}

// founded reports whether this member has state: it belongs to an ensemble already.
func (m *Member) founded() bool { return m.ClusterID() != "" }

// afterConfig runs when a configuration is committed, or found in a snapshot.
func (m *Member) afterConfig(servers []server) {
	signal(m.reshaped)
	self := false
	var others []string
	for _, s := range servers {
		if s.id == m.cfg.ID {
			self = true
		} else {
			others = append(others, s.id)
		}
	}
	m.peers.mu.Lock()
	m.peers.members = others
	m.peers.mu.Unlock()
	if hook := m.cfg.Hooks.MembersChanged; hook != nil {
		list := make([]Peer, 0, len(servers))
		for _, s := range servers {
			m.peers.mu.Lock()
			addr := m.peers.known[s.id].Addr
			m.peers.mu.Unlock()
			list = append(list, Peer{ID: s.id, Addr: addr, Voter: s.voter})
		}
		hook(list)
	}
	var rec memberRecord
	m.fsm.reading(func() {
		if r := m.fsm.st.member(m.cfg.ID); r != nil {
			rec = *r
		}
	})
	if !self && rec.removed {
		m.fail(&Error{Op: "member", Code: ErrNotMember, Err: errors.New("removed from the ensemble")})
	}
}

// foundingMembers is who this member has met, for the first epoch entry.
func (m *Member) foundingMembers() []memberRecord {
	list := []memberRecord{{id: m.cfg.ID, storage: m.store.storageID, addr: m.cfg.Advertise}}
	m.peers.mu.Lock()
	defer m.peers.mu.Unlock()
	for _, id := range m.peers.members {
		if k, ok := m.peers.known[id]; ok {
			list = append(list, memberRecord{id: id, storage: k.Storage, addr: k.Addr})
		}
	}
	slices.SortFunc(list, func(a, b memberRecord) int { return compareStrings(a.id, b.id) })
	return list
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// announce records this member's storage and address where the state does not have them. Every member does at the
// beginning of each leadership: a storage that is not recorded could be wiped unnoticed.
func (m *Member) announce() {
	want := memberRecord{id: m.cfg.ID, storage: m.store.storageID, addr: m.cfg.Advertise}
	done := false
	m.fsm.reading(func() {
		r := m.fsm.st.member(m.cfg.ID)
		_, is := m.fsm.st.server(m.cfg.ID)
		done = !is || r != nil && r.storage == want.storage && r.addr == want.addr && !r.removed
	})
	if done {
		return
	}
	c := &call{raw: appendRequest(nil, &request{kind: reqMember, member: want}), done: make(chan struct{})}
	c.after = func(out outcome, err error) {
		if err == nil && out.code == ErrWiped {
			m.fail(&Error{Op: "member", Code: ErrWiped, Err: fmt.Errorf("%q is recorded with another storage: remove it and add it under a new id", m.cfg.ID)})
		}
	}
	m.writes.enqueue(m.life, c, false)
}

func (m *Member) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(m.cfg.ID)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = m.cfg.Heartbeat, m.cfg.Election, m.cfg.Heartbeat-nudge
	c.CommitTimeout = 50 * time.Millisecond
	c.MaxAppendEntries = 16
	c.BatchApplyCh = false
	c.ShutdownOnRemove = false
	c.SnapshotThreshold = 1 << 62 // Member.compact decides, by bytes
	c.SnapshotInterval = 24 * time.Hour
	c.TrailingLogs = trailingLogs
	c.Logger = newRaftLog(m.log)
	c.NoLegacyTelemetry = true
	return c
}

// trailingLogs stay after a snapshot, for followers that are a little behind.
const trailingLogs = 128

// helloTimeout is how long a new member waits for each of its peers to say whether it has state.
const helloTimeout = 200 * time.Millisecond

// boot decides how this member begins, and starts raft.
func (m *Member) boot(ctx context.Context) (err error) {
	fresh, err := m.store.Fresh()
	if err != nil {
		return &Error{Op: "open", Path: m.cfg.Dir, Code: ErrDataInconsistency, Err: err}
	}
	m.fsm.old, _ = m.store.LastIndex() // the store knows it since it was opened
	founding := false
	if fresh && len(m.cfg.Join) == 0 {
		peers := m.cfg.Peers
		if len(peers) == 0 {
			peers = []Peer{{ID: m.cfg.ID, Addr: m.cfg.Advertise, Voter: true}}
		}
		if founding = !m.peersHaveState(ctx, peers); founding {
			if err := m.found(peers); err != nil {
				return err
			}
		}
	}
	tr := countedTransport{m.net.Raft(), &m.stats.snapshotsSent}
	if _, ok := any(tr).(raft.WithPreVote); !ok {
		return &Error{Op: "open", Code: ErrSystem, Err: errors.New("transport lost pre-vote")}
	}
	began := time.Now()
	var r *raft.Raft
	err = m.store.Guard(func() (err error) {
		r, err = raft.NewRaft(m.raftConfig(), m.fsm, m.store, m.store, m.store.Snapshots, tr)
		return err
	})
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return e
		}
		return &Error{Op: "open", Path: m.cfg.Dir, Code: ErrDataInconsistency, Err: err}
	}
	m.stats.loading.Add(int64(time.Since(began)))
	m.stats.loaded.Store(int64(m.fsm.old) - int64(r.AppliedIndex()))
	m.mu.Lock()
	m.raft = r
	close(m.booted)
	cause := m.cause
	m.mu.Unlock()
	if cause != nil {
		return cause
	}
	known := 0
	m.fsm.reading(func() { known = len(m.fsm.st.servers) })
	if known == 0 { // the configuration entry may not be committed yet
		var servers []server
		for _, s := range m.configuration() {
			servers = append(servers, server{string(s.ID), isVoterSuffrage(s)})
		}
		m.afterConfig(servers)
	}
	voters := m.voterIDs()
	if slices.Contains(voters, m.cfg.ID) {
		m.warnOfTwo(len(voters))
	}
	switch {
	case len(voters) == 1 && voters[0] == m.cfg.ID:
		m.work.Go(func() { m.net.TimeoutNow(m.life) })
	case founding && slices.Contains(voters, m.cfg.ID):
		m.work.Go(func() { m.firstElection(voters) })
	case len(m.cfg.Join) > 0 && (fresh || !m.cfg.NonVoter && !slices.Contains(voters, m.cfg.ID)):
		m.work.Go(m.join) // again, if it was stopped before it had its vote
	}
	return nil
}

// countedTransport counts the snapshots that a leader sends.
type countedTransport struct {
	*raftnet.RaftTransport
	sent *atomic.Int64
}

func (t countedTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.RaftTransport.InstallSnapshot(id, target, args, resp, data)
	if err == nil && resp.Success {
		t.sent.Add(1)
	}
	return err
}

// warnOfTwo warns of an ensemble that is less available than one member alone.
func (m *Member) warnOfTwo(voters int) {
	if voters == 2 {
		m.log.Warn("an ensemble of two stops when either member does: use one or three")
	}
}

func isVoterSuffrage(s raft.Server) bool { return s.Suffrage == raft.Voter }

// voterIDs lists the voters in order.
func (m *Member) voterIDs() (ids []string) {
	for _, s := range m.configuration() {
		if isVoterSuffrage(s) {
			ids = append(ids, string(s.ID))
		}
	}
	slices.Sort(ids)
	return ids
}

// peersHaveState asks every peer. A process that is not there has none; one that does not answer is given
// helloTimeout.
func (m *Member) peersHaveState(ctx context.Context, peers []Peer) bool {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	answers := make(chan bool, len(peers))
	for _, p := range peers {
		m.work.Go(func() {
			if p.ID == m.cfg.ID {
				answers <- false
				return
			}
			r, err := m.ask(ctx, p.ID, kindHello, nil)
			_, refused := errors.AsType[*raftnet.RefusedError](err) // whoever has reasons to refuse has state
			answers <- refused || err == nil && r.Bool() && r.Done() == nil
		})
	}
	has := false
	for range peers {
		has = <-answers || has
	}
	return has
}

// found writes the first configuration. It is the same on every founding member.
func (m *Member) found(peers []Peer) error {
	var c raft.Configuration
	for _, p := range peers {
		s := raft.Server{ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.ID), Suffrage: raft.Nonvoter}
		if p.Voter || len(peers) == 1 {
			s.Suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, s)
	}
	slices.SortFunc(c.Servers, func(a, b raft.Server) int { return compareStrings(string(a.ID), string(b.ID)) })
	err := m.store.Guard(func() error {
		return raft.BootstrapCluster(m.raftConfig(), m.store, m.store, m.store.Snapshots, m.net.Raft(), c)
	})
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return &Error{Op: "open", Path: m.cfg.Dir, Code: ErrSystem, Err: err}
	}
	return nil
}

// firstElection spares a new ensemble raft's first timeout, and a split vote: the voters stand in the order of
// their ids (D26).
func (m *Member) firstElection(voters []string) {
	rank := slices.Index(voters, m.cfg.ID)
	met := make(chan struct{})
	ctx, cancel := context.WithTimeout(m.life, helloTimeout)
	defer cancel()
	go func() {
		defer close(met)
		var all sync.WaitGroup
		for _, id := range voters {
			if id != m.cfg.ID {
				all.Go(func() { m.meet(ctx, id) })
			}
		}
		all.Wait()
	}()
	<-met
	t := time.NewTimer(time.Duration(rank) * 300 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-m.stop:
		return
	}
	if _, leader := m.raft.LeaderWithID(); leader == "" && m.raft.CurrentTerm() <= 1 {
		m.look()
	}
}

// nudge is what the heartbeat timeout is shortened by to make raft look at it.
const nudge = time.Nanosecond

// look makes a follower's raft look, once, whether it has heard from a leader in time, as it does by itself every second
// or two: if not it stands, after a pre-vote. Whoever loses then follows the winner, other than a member that was told
// to stand by TimeoutNow, which stays a candidate until its election times out.
func (m *Member) look() {
	c := m.raft.ReloadableConfig()
	c.HeartbeatTimeout = m.cfg.Heartbeat - nudge
	if err := m.raft.ReloadConfig(c); err != nil {
		m.log.Warn("the first election is left to raft's timeout", "err", err)
	}
}

// meet returns once a peer answers, or ctx ends.
func (m *Member) meet(ctx context.Context, id string) {
	for attempt := 0; ; attempt++ {
		if _, err := m.ask(ctx, id, kindHello, nil); err == nil {
			return
		}
		t := time.NewTimer(5 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// join asks to be added, until it is.
func (m *Member) join() {
	body := codec.AppendByte(nil, adminJoin)
	body = appendMember(body, memberRecord{id: m.cfg.ID, storage: m.store.storageID, addr: m.cfg.Advertise})
	body = codec.AppendBool(body, !m.cfg.NonVoter)
	for attempt := 0; ; attempt++ {
		for _, addr := range m.cfg.Join {
			ctx, cancel := context.WithTimeout(m.life, adminTimeout)
			b, _, err := m.net.CallAddr(ctx, addr, kindAdmin, body)
			cancel()
			if err == nil {
				_, err = readAnswer(b)
			} else {
				m.noteRefusal(err)
			}
			if err == nil {
				return
			}
			m.log.Debug("join", "addr", addr, "err", err)
		}
		t := time.NewTimer(backoff(attempt))
		select {
		case <-t.C:
		case <-m.stop:
			t.Stop()
			return
		}
	}
}
