// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/internal/codec"
	"github.com/seed-541fafe0/zk/internal/raftnet"
)

// Membership changes are made by the leader; every member takes them and hands them on.
const (
	adminJoin byte = iota + 1
	adminRemove
	adminTransfer
)

const (
	// adminTimeout bounds one attempt of a membership change, catching up included.
	adminTimeout = 30 * time.Second

	// caughtUp is how many entries a new voter may be behind.
	caughtUp = 64
)

// AddMember adds a member that is running, with Config.Join, at p.Addr: as an observer first, and as a voter, if
// asked for, once it has caught up. It may be called on any member, and again. It refuses a voter that cannot be
// reached: it would cost quorum. The id of a member that was removed cannot be used again. Errors: ErrNotMember,
// ErrReconfigInProgress, ErrNoQuorumForConfig, ErrWiped, ErrUnavailable.
func (m *Member) AddMember(ctx context.Context, p Peer) error {
	if err := m.adminCheck(ctx, "add member", p.ID != "" && len(p.ID) <= maxIDBytes && p.Addr != ""); err != nil {
		return err
	}
	body := codec.AppendByte(nil, adminJoin)
	body = appendMember(body, memberRecord{id: p.ID, addr: p.Addr})
	return m.administer(ctx, "add member", p.ID, codec.AppendBool(body, p.Voter))
}

// RemoveMember removes a member; a leader hands over first. The removed one learns of it and stops with
// ErrNotMember. Removing one that is not there is fine.
func (m *Member) RemoveMember(ctx context.Context, id string) error {
	if err := m.adminCheck(ctx, "remove member", id != ""); err != nil {
		return err
	}
	return m.administer(ctx, "remove member", id, codec.AppendString(codec.AppendByte(nil, adminRemove), id))
}

// TransferLeadership makes another voter the leader, the one that is furthest if toID is "". It returns once this
// ensemble has another leader.
func (m *Member) TransferLeadership(ctx context.Context, toID string) error {
	if err := m.adminCheck(ctx, "transfer leadership", true); err != nil {
		return err
	}
	return m.administer(ctx, "transfer leadership", toID, codec.AppendString(codec.AppendByte(nil, adminTransfer), toID))
}

// SetClientAddr tells the ensemble where this member serves clients through the ZooKeeper port, "host:port"; "" where it
// does not any more. It shows in the config znode, by which clients find other members (WP-87), and in Members, and stays
// until it is changed. Errors: ErrBadArguments, ErrNotMember, and those of every write.
func (m *Member) SetClientAddr(ctx context.Context, addr string) error {
	if err := m.adminCheck(ctx, "set client address", validClients(addr)); err != nil {
		return err
	}
	out, err := m.writes.submit(ctx, "set client address", "", appendRequest(nil, &request{kind: reqClients, addr: addr}))
	if err == nil && out.code != 0 {
		err = &Error{Op: "set client address", Code: out.code}
	}
	m.auditMember("set client address", err, slog.String("addr", addr))
	return err
}

// Leave removes this member from the ensemble and shuts it down; of its sessions Shutdown says what becomes. The last
// voter cannot leave.
func (m *Member) Leave(ctx context.Context) error {
	if err := m.adminCheck(ctx, "leave", true); err != nil {
		return err
	}
	if voters := m.voterIDs(); len(voters) == 1 && voters[0] == m.cfg.ID {
		return &Error{Op: "leave", Code: ErrNoQuorumForConfig, Err: errors.New("the only voter cannot leave")}
	}
	if m.leading() {
		if err := m.TransferLeadership(ctx, ""); err != nil {
			return err
		}
	}
	for _, l := range m.fsm.sessions() {
		if l.external {
			l.letGo()
		} else {
			l.close(ctx)
		}
	}
	if err := m.administer(ctx, "leave", m.cfg.ID, codec.AppendString(codec.AppendByte(nil, adminRemove), m.cfg.ID)); err != nil && m.running("") == nil {
		return err
	}
	return m.Close()
}

func (m *Member) adminCheck(ctx context.Context, op string, ok bool) error {
	if ctx == nil {
		return badContext(op)
	}
	if !ok {
		return &Error{Op: op, Code: ErrBadArguments}
	}
	return m.running(op)
}

// administer finds the leader and has it make the change. Every change can be made twice, so a lost answer is
// asked for again.
func (m *Member) administer(ctx context.Context, op, about string, body []byte) (err error) {
	defer func() { m.auditMember(op, err, slog.String("member", about)) }()
	for attempt := 0; ; attempt++ {
		var err error
		if m.leading() {
			r := codec.NewReader(body)
			err = m.change(ctx, &r)
		} else {
			_, err = m.askLeader(ctx, kindAdmin, body)
		}
		if err == nil {
			return nil
		}
		if code := codeOf(err); code != ErrSystem && code != ErrUnavailable {
			return &Error{Op: op, Code: code, Err: err}
		}
		t := time.NewTimer(backoff(attempt))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return &Error{Op: op, Code: ErrUnavailable, MaybeApplied: true, Err: errors.Join(ctxCause(ctx), err)}
		case <-m.stop:
			t.Stop()
			return &Error{Op: op, Code: ErrClosed, MaybeApplied: true, Err: err}
		}
	}
}

// administered answers a change that another member hands on, or that a new member asks for.
func (m *Member) administered(ctx context.Context, from raftnet.Identity, r *codec.Reader) []byte {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if !m.leading() {
		_, leader := m.raft.LeaderWithID()
		if string(leader) == m.cfg.ID || string(leader) == from.ID || leader == "" {
			return answer(errNotLeader, nil)
		}
		_, err := m.ask(ctx, string(leader), kindAdmin, r.Rest())
		return answer(err, nil)
	}
	return answer(m.change(ctx, r), nil)
}

// change makes one membership change, as the leader.
func (m *Member) change(ctx context.Context, r *codec.Reader) error {
	l := m.lead.Load()
	if l == nil {
		return errNotLeader
	}
	l.mu.Lock()
	if l.changing {
		l.mu.Unlock()
		return ErrReconfigInProgress
	}
	l.changing = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.changing = false
		l.mu.Unlock()
	}()
	if err := m.fsm.wait(ctx, l.over.Done(), func() bool { return m.fsm.st.term >= l.term }); err != nil {
		return l.why(err)
	}
	switch r.Byte() {
	case adminJoin:
		rec := readMember(r)
		voter := r.Bool()
		if r.Done() != nil || rec.id == "" || len(rec.id) > maxIDBytes {
			return ErrMarshalling
		}
		return m.add(ctx, l, rec, voter)
	case adminRemove:
		id := r.String()
		if r.Done() != nil {
			return ErrMarshalling
		}
		return m.remove(ctx, l, id)
	case adminTransfer:
		id := r.String()
		if r.Done() != nil {
			return ErrMarshalling
		}
		return m.transfer(ctx, id)
	}
	return ErrUnimplemented
}

// configured waits until the committed configuration is as ok wants it.
func (m *Member) configured(ctx context.Context, l *leadership, ok func(*state) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := m.fsm.wait(ctx, l.over.Done(), func() bool { return ok(m.fsm.st) }); err != nil {
		if err = l.why(err); errors.Is(err, errNotLeader) {
			return err // the next leader looks again
		}
		return fmt.Errorf("%w: %w", ErrNoQuorumForConfig, err)
	}
	return nil
}

func (s *state) server(id string) (voter, ok bool) {
	for _, v := range s.servers {
		if v.id == id {
			return v.voter, true
		}
	}
	return false, false
}

func (m *Member) add(ctx context.Context, l *leadership, rec memberRecord, voter bool) error {
	// Nobody becomes a member whom the leader cannot reach.
	reach, cancel := context.WithTimeout(ctx, 5*time.Second)
	_, who, err := m.net.CallAddr(reach, rec.addr, kindHello, nil)
	cancel()
	if err != nil {
		return fmt.Errorf("%w: %q at %s: %w", ErrNoQuorumForConfig, rec.id, rec.addr, err)
	}
	if who.ID != rec.id {
		return fmt.Errorf("%w: %q answers at %s", ErrBadArguments, who.ID, rec.addr)
	}
	rec.storage = who.Storage
	out, err := m.writes.submit(ctx, "add member", "", appendRequest(nil, &request{kind: reqMember, member: rec}))
	if err != nil {
		return err
	}
	if out.code != 0 {
		return out.code
	}
	var isVoter, is bool
	m.fsm.reading(func() { isVoter, is = m.fsm.st.server(rec.id) })
	id, addr := raft.ServerID(rec.id), raft.ServerAddress(rec.id)
	if !is {
		m.raft.AddNonvoter(id, addr, 0, time.Second)
		if err := m.configured(ctx, l, func(s *state) bool { _, ok := s.server(rec.id); return ok }); err != nil {
			return err
		}
	}
	if !voter || isVoter {
		return nil
	}
	for m.net.Matched(rec.id)+caughtUp < m.raft.LastIndex() || m.net.Matched(rec.id) == 0 {
		t := time.NewTimer(10 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w: %q does not catch up", ErrUnavailable, rec.id)
		case <-l.over.Done():
			t.Stop()
			return errNotLeader
		}
	}
	m.raft.AddVoter(id, addr, 0, time.Second)
	return m.configured(ctx, l, func(s *state) bool { v, _ := s.server(rec.id); return v })
}

func (m *Member) remove(ctx context.Context, l *leadership, id string) error {
	var is bool
	voters := 0
	m.fsm.reading(func() {
		_, is = m.fsm.st.server(id)
		for _, v := range m.fsm.st.servers {
			if v.voter && v.id != id {
				voters++
			}
		}
	})
	switch {
	case !is:
		return nil
	case voters == 0:
		return fmt.Errorf("%w: %q is the last voter", ErrNoQuorumForConfig, id)
	case id == m.cfg.ID:
		if err := m.transfer(ctx, ""); err != nil {
			return err
		}
		return errNotLeader // the next leader does it
	}
	if m.isVoter(id) {
		if err := m.spare(ctx, id); err != nil {
			return err
		}
	}
	m.raft.RemoveServer(raft.ServerID(id), 0, time.Second)
	if err := m.configured(ctx, l, func(s *state) bool { return !s.isServer(id) }); err != nil {
		return err
	}
	m.warnOfTwo(voters)
	return nil
}

// spare makes sure that the ensemble has a quorum without one of its voters.
func (m *Member) spare(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	members, err := m.Members(ctx)
	if err != nil {
		return err
	}
	up, voters := 0, 0
	for _, i := range members {
		if i.Voter && i.ID != id {
			voters++
			if !i.LastSeen.IsZero() {
				up++
			}
		}
	}
	if up <= voters/2 {
		return fmt.Errorf("%w: of the %d voters that would be left %d answer", ErrNoQuorumForConfig, voters, up)
	}
	return nil
}

// transfer hands leadership over and waits until it is gone.
func (m *Member) transfer(ctx context.Context, id string) error {
	if id == m.cfg.ID {
		return nil
	}
	heirs := []string{id}
	if id == "" {
		heirs = slices.DeleteFunc(m.voterIDs(), func(v string) bool { return v == m.cfg.ID })
		slices.SortStableFunc(heirs, func(v, w string) int { return cmp.Compare(m.net.Matched(w), m.net.Matched(v)) })
		if len(heirs) == 0 {
			return fmt.Errorf("%w: no other voter", ErrNoQuorumForConfig)
		}
	} else if !m.isVoter(id) {
		return fmt.Errorf("%w: %q is not a voter", ErrBadArguments, id)
	}
	// While raft hands leadership over it takes no entries, so it is not asked to for the sake of who is not there.
	var err error
	for _, id = range heirs {
		if err = m.reach(ctx, id); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %q does not answer: %w", ErrUnavailable, id, err)
	}
	l := m.lead.Load()
	if l == nil {
		return errNotLeader
	}
	m.handOver(l, id)
	ctx, cancel := context.WithTimeout(ctx, 2*m.cfg.Election)
	defer cancel()
	select {
	case <-l.over.Done():
	case <-ctx.Done():
		return fmt.Errorf("%w: leadership was not taken over", ErrUnavailable)
	}
	// Until the next leader is known nobody can be asked for anything.
	for info, err := range m.Roles(ctx) {
		if err != nil || info.Leader != "" && info.Leader != m.cfg.ID {
			break
		}
	}
	return nil
}

// reach asks a member whether it is there.
func (m *Member) reach(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := m.ask(ctx, id, kindHello, nil)
	return err
}
