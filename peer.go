// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk/internal/codec"
	"github.com/seed-541fafe0/zk/internal/raftnet"
)

// What members ask each other, besides raft. Every call may be made twice without harm.
const (
	kindHello     = iota + 1 // who are you, and have you state?
	kindForward              // a frame for the leader
	kindHeartbeat            // sessions that are alive, for the leader
	kindConfirm              // a confirm round, by the leader
	kindTerm                 // your term, for a confirm round
	kindWitness              // is the leader's process gone for you too?
	kindAdmin                // a membership change, for the leader
	kindStatus               // your role and how far you are
)

// The first byte of every answer.
const (
	answerOK byte = iota
	answerNotLeader
	answerError // a code and a text follow
)

var (
	errNotLeader = errors.New("not the leader")
	errNoLeader  = errors.New("no leader is known")
)

func answer(err error, body []byte) []byte {
	switch {
	case err == nil:
		return append([]byte{answerOK}, body...)
	case errors.Is(err, errNotLeader):
		return []byte{answerNotLeader}
	}
	b := codec.AppendVarint([]byte{answerError}, int64(codeOf(err)))
	return codec.AppendString(b, err.Error())
}

// remoteError is an error that another member answered.
type remoteError struct {
	code Code
	text string
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.code }

func readAnswer(b []byte) (codec.Reader, error) {
	r := codec.NewReader(b)
	switch r.Byte() {
	case answerOK:
		return r, r.Err()
	case answerNotLeader:
		return r, errNotLeader
	}
	e := &remoteError{Code(r.Int32()), r.String()}
	if err := r.Done(); err != nil {
		return r, fmt.Errorf("%w: answer: %w", ErrMarshalling, err)
	}
	return r, e
}

// ask calls another member.
func (m *Member) ask(ctx context.Context, id string, kind byte, body []byte) (codec.Reader, error) {
	b, err := m.net.Call(ctx, id, kind, body)
	if err != nil {
		m.noteRefusal(err)
		return codec.Reader{}, err
	}
	return readAnswer(b)
}

// askLeader calls the leader, if one is known and is not this member.
func (m *Member) askLeader(ctx context.Context, kind byte, body []byte) (codec.Reader, error) {
	_, id := m.raft.LeaderWithID()
	switch string(id) {
	case "":
		return codec.Reader{}, errNoLeader
	case m.cfg.ID:
		return codec.Reader{}, errNotLeader
	}
	return m.ask(ctx, string(id), kind, body)
}

// noteRefusal learns from a peer's refusal that this member has no place in the ensemble any more.
func (m *Member) noteRefusal(err error) {
	refused, ok := errors.AsType[*raftnet.RefusedError](err)
	if !ok {
		return
	}
	for _, c := range [...]Code{ErrNotMember, ErrWiped, ErrClusterMismatch} {
		if strings.HasPrefix(refused.Error(), c.Error()) || strings.Contains(refused.Error(), ": "+c.Error()) {
			m.fail(&Error{Op: "member", Code: c, Err: refused})
		}
	}
}

// handle answers what other members ask. It runs on the stream's goroutine.
func (m *Member) handle(ctx context.Context, from raftnet.Identity, kind byte, req []byte) []byte {
	if kind != kindHello && (m.booting() || m.running("") != nil) {
		return answer(ErrUnavailable, nil)
	}
	r := codec.NewReader(req)
	if kind != kindHello && !m.belongs(from) && !joins(kind, r, from) {
		return answer(fmt.Errorf("%w: %q", ErrNotMember, from.ID), nil)
	}
	switch kind {
	case kindHello:
		if err := m.admit(from); errors.Is(err, ErrNotMember) { // the stream may be older than the removal
			return answer(err, nil)
		}
		return answer(nil, codec.AppendBool(nil, m.founded()))
	case kindForward:
		return answer(m.forwarded(ctx, from, req), nil)
	case kindHeartbeat:
		ids := readSessionIDs(&r)
		l := m.lead.Load()
		switch {
		case r.Done() != nil:
			return answer(ErrMarshalling, nil)
		case l == nil:
			return answer(errNotLeader, nil)
		}
		refused, err := m.acknowledge(ctx, l, ids)
		return answer(err, appendSessionIDs(nil, refused))
	case kindConfirm:
		if !m.leading() {
			return answer(errNotLeader, nil)
		}
		zxid, _, err := m.confirm(ctx)
		return answer(err, codec.AppendVarint(nil, int64(zxid)))
	case kindTerm:
		n := r.Uint64()
		if r.Done() != nil {
			return answer(ErrMarshalling, nil)
		}
		return answer(nil, codec.AppendUvarint(codec.AppendUint64(nil, n), m.raft.CurrentTerm()))
	case kindWitness:
		return m.witness(ctx, &r)
	case kindAdmin:
		return m.administered(ctx, from, &r)
	case kindStatus:
		return answer(nil, m.appendStatus(nil))
	}
	return answer(ErrUnimplemented, nil)
}

// joins reports whether a stranger asks to become a member itself.
func joins(kind byte, r codec.Reader, from raftnet.Identity) bool {
	return kind == kindAdmin && r.Byte() == adminJoin && readMember(&r).id == from.ID
}

// forwarded takes a frame from another member. The frame's form is checked, its requests are not looked at.
func (m *Member) forwarded(ctx context.Context, from raftnet.Identity, data []byte) error {
	l := m.lead.Load()
	if l == nil {
		return errNotLeader
	}
	if len(data) > maxEntryBytes {
		return ErrMarshalling
	}
	fr, err := readFrame(data)
	if err != nil {
		return ErrMarshalling
	}
	if fr.origin != from.ID || fr.incarnation != from.Incarnation {
		return ErrNoAuth
	}
	ctx, cancel := context.WithTimeout(ctx, 2*resendAfter)
	defer cancel()
	return m.propose(ctx, l, &fr, data)
}

// toLeader hands a frame to whoever leads.
func (m *Member) toLeader(ctx context.Context, f *flight) error {
	ctx, cancel := context.WithTimeout(ctx, 2*resendAfter)
	defer cancel()
	if l := m.lead.Load(); l != nil {
		return m.propose(ctx, l, &f.frame, f.data)
	}
	m.stats.forwards.Add(1)
	_, err := m.askLeader(ctx, kindForward, f.data)
	return err
}

func (m *Member) heartbeatTo(ctx context.Context, ids []SessionID) ([]SessionID, error) {
	r, err := m.askLeader(ctx, kindHeartbeat, appendSessionIDs(nil, ids))
	if err != nil {
		return nil, err
	}
	refused := readSessionIDs(&r)
	return refused, r.Done()
}

func (m *Member) askConfirmed(ctx context.Context) (Zxid, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	r, err := m.askLeader(ctx, kindConfirm, nil)
	if err != nil {
		return 0, err
	}
	z := Zxid(r.Varint())
	return z, r.Done()
}

func (m *Member) askTerm(ctx context.Context, id string) (uint64, error) {
	n := nonce()
	r, err := m.ask(ctx, id, kindTerm, codec.AppendUint64(nil, n))
	if err != nil {
		return 0, err
	}
	got, term := r.Uint64(), r.Uvarint()
	if err := r.Done(); err != nil || got != n {
		return 0, ErrMarshalling
	}
	return term, nil
}

func (m *Member) appendStatus(b []byte) []byte {
	info := m.RoleInfo()
	b = codec.AppendByte(b, byte(info.Role))
	b = codec.AppendUvarint(b, info.Term)
	return codec.AppendVarint(b, int64(m.Applied()))
}

// Members lists the ensemble as this member knows it, with what each one answers; those that do not answer within
// a second keep their zero Applied and LastSeen.
func (m *Member) Members(ctx context.Context) ([]MemberInfo, error) {
	if ctx == nil {
		return nil, badContext("members")
	}
	if err := m.running("members"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	servers := m.configuration()
	list := make([]MemberInfo, len(servers))
	answered := make(chan struct{}, len(servers))
	for i, s := range servers {
		info := &list[i]
		addr, _ := m.resolve(ctx, string(s.ID))
		info.Peer = Peer{ID: string(s.ID), Addr: addr, Voter: isVoterSuffrage(s)}
		m.fsm.reading(func() {
			if r := m.fsm.st.member(info.ID); r != nil {
				info.ClientAddr = r.client
			}
		})
		ask := func() {
			defer func() { answered <- struct{}{} }()
			b := []byte(nil)
			if info.ID == m.cfg.ID {
				b = m.appendStatus(b)
			} else if r, err := m.ask(ctx, info.ID, kindStatus, nil); err == nil {
				b = r.Rest()
			}
			r := codec.NewReader(b)
			role, _, applied := Role(r.Byte()), r.Uvarint(), Zxid(r.Varint())
			if r.Done() == nil {
				info.Role, info.Applied, info.LastSeen = role, applied, time.Now()
			}
		}
		if !m.spawn(ask) {
			return nil, m.running("members")
		}
	}
	for range servers {
		<-answered
	}
	return list, nil
}

// MemberInfo is what is known of one member.
type MemberInfo struct {
	Peer
	Role     Role
	Applied  Zxid
	LastSeen time.Time // zero if it did not answer

	ClientAddr string // where it serves clients, as Member.SetClientAddr said; "" if it does not
}
