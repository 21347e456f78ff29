// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/internal/raftnet"
	"github.com/seed-541fafe0/zk/internal/raftstore"
	"github.com/seed-541fafe0/zk/transport"
)

// Member is this process as a member of an ensemble. It is safe for concurrent use. Any number of members may live
// in one process; they share nothing.
type Member struct {
	noCopy      noCopy
	cfg         Config
	log         *slog.Logger
	incarnation uint64
	store       *store
	net         *raftnet.Net
	raft        *raft.Raft
	fsm         *fsm
	watches     *watchTable
	writes      *proposer
	stats       counters
	lead        atomic.Pointer[leadership] // nil while another member leads
	rounds      confirmer
	booted      chan struct{} // closed when raft runs
	reshaped    chan struct{} // a configuration was committed, for follow
	overQuota   seldom        // what was warned of
	overflowed  seldom
	suspended   seldom
	noRoom      seldom
	keeper      keeper
	clock       clock
	peers       addressBook

	life context.Context // ends when the member stops
	stop <-chan struct{} // life.Done()
	kill context.CancelFunc
	work sync.WaitGroup // every goroutine of this package; see spawn
	hung chan struct{}  // closed when the store holds up the end
	done chan struct{}  // closed when everything has ended

	mu      sync.Mutex // guards the fields below
	cause   error      // why the member stopped by itself
	closing bool
	leaving bool // Shutdown takes its leave: no more sessions are opened
	shared  *Session
	opening chan struct{} // closed when the shared session has been opened, or not; nil when nobody does
	role    RoleInfo
	changed chan struct{} // closed at the next change of role or leader
}

// Open recovers the member's state, starts it and returns; it does not wait for a quorum: Ready does. ctx bounds Open
// alone. Errors: ErrBadArguments, ErrLocked where the directory is in use, ErrDataInconsistency where its files are
// damaged, and what the disk or the network reports.
//
// A member whose Dir has state uses it, and Peers and Join are but hints. Otherwise it joins through Join, or
// founds an ensemble with Peers, or is an ensemble of one. It is safe to run with the same Config for ever.
func Open(ctx context.Context, cfg Config) (*Member, error) {
	if ctx == nil {
		return nil, badContext("open")
	}
	if ctx.Err() != nil {
		return nil, ctxError("open", "", ctx)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Member{cfg: cfg, log: quietLogger(cfg.Logger), hung: make(chan struct{}), done: make(chan struct{}), booted: make(chan struct{}), reshaped: make(chan struct{}, 1), changed: make(chan struct{})}
	m.life, m.kill = context.WithCancel(context.Background())
	m.stop = m.life.Done()
	if err := m.open(ctx); err != nil {
		m.abandon()
		return nil, err
	}
	return m, nil
}

func (m *Member) open(ctx context.Context) (err error) {
	began := time.Now()
	m.stats.elections.start()
	if m.store, err = openStore(storeConfig{
		ID: m.cfg.ID, Dir: m.cfg.Dir, Storage: m.cfg.Storage, Logger: m.log, Fail: m.storeFailed, Wrote: m.stats.written.Add,
	}); err != nil {
		return err
	}
	m.stats.loading.Add(int64(time.Since(began)))
	m.cfg.ID, m.incarnation = m.store.id, m.store.incarnation
	m.watches = newWatchTable()
	m.watches.overflowed = m.watchOverflow
	m.writes = newProposer(m)
	m.fsm = newFSM(m.cfg.ID, m.incarnation, m.watches, m.writes, m.stop)
	m.fsm.events = fsmEvents{applied: m.afterApply, epoch: m.afterEpoch, configured: m.afterConfig, fail: m.fail, expired: m.sessionEnded, slow: m.slowApply, took: m.stats.apply.Add, overSoft: m.overSoft, restored: m.clock.raise}
	m.fsm.stats, m.fsm.wall = &m.stats, m.cfg.Now
	m.keeper.wake = make(chan struct{}, 1)
	m.clock.start(m.cfg.Now)
	m.peers.start(&m.cfg)

	if m.cfg.Transport == nil && m.cfg.Addr != "" {
		if m.cfg.Transport, err = transport.TCP(m.cfg.Addr); err != nil {
			return &Error{Op: "open", Code: ErrBadArguments, Err: err}
		}
	}
	nc := raftnet.Config{
		Local: m.identity, Resolve: m.resolve, Admit: m.admit, AdmitRaft: m.admitRaft, Handle: m.handle, StreamLost: m.streamLost, Leads: m.leads, Logger: m.log, Stalled: m.store.Stalled,
	}
	if m.cfg.Transport != nil {
		nc.Transport = m.cfg.Transport
		orDefault(&m.cfg.Advertise, m.cfg.Transport.Addr())
	}
	m.net = raftnet.New(nc)
	m.work.Add(1) // a store that fails from now on stops the member, which waits for what is started here
	defer m.work.Done()
	if err := m.boot(ctx); err != nil {
		return err
	}
	m.noteRole() // so that nobody sees it without one; from now on follow does
	m.work.Go(m.writes.run)
	m.work.Go(m.follow)
	m.work.Go(m.keep)
	m.work.Go(m.compact)
	return nil
}

// storeFailed is told the store's first error.
func (m *Member) storeFailed(err error) {
	code := ErrSystem
	if _, corrupt := errors.AsType[*raftstore.CorruptError](err); corrupt {
		code = ErrDataInconsistency
	}
	m.fail(&Error{Op: "store", Code: code, Err: err})
}

// ID returns the member's id.
func (m *Member) ID() string { return m.cfg.ID }

// Addr returns the address that peers are given, "" without a network.
func (m *Member) Addr() string { return m.cfg.Advertise }

// ClusterID returns the ensemble's id, "" until its first leader has fixed it.
func (m *Member) ClusterID() (id string) {
	m.fsm.reading(func() { id = m.fsm.st.cluster })
	return id
}

// Applied returns the zxid of the last request applied here.
func (m *Member) Applied() (z Zxid) {
	m.fsm.reading(func() { z = m.fsm.st.zxid })
	return z
}

// Digest returns the digest of the replicated state and the zxid it belongs to: equal on all members that have applied
// the same log. What takes no zxid, such as a change of leader or configuration, changes it too.
func (m *Member) Digest() (digest uint64, zxid Zxid) {
	m.fsm.mu.RLock()
	defer m.fsm.mu.RUnlock()
	return m.fsm.st.digest(), m.fsm.st.zxid
}

// Done is closed when the member has stopped, by Close or by itself.
func (m *Member) Done() <-chan struct{} { return m.done }

// Err returns why the member stopped by itself, such as a disk's error or its removal; nil while it runs and after
// Close.
func (m *Member) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cause
}

// running returns the error of a call on a member that has stopped.
func (m *Member) running(op string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return &Error{Op: op, Code: ErrClosed, Err: m.cause}
	}
	return nil
}

// NewSession opens a session. It is a write: it returns once the session is known to the ensemble.
func (m *Member) NewSession(ctx context.Context, cfg SessionConfig) (*Session, error) {
	if ctx == nil {
		return nil, badContext("new session")
	}
	if err := m.opens("new session"); err != nil {
		return nil, err
	}
	cfg, ids, err := m.negotiate("new session", cfg)
	if err != nil {
		return nil, err
	}
	password := randomPassword()
	q := request{kind: reqOpen, timeout: cfg.Timeout.Milliseconds(), password: password, name: cfg.Name, ids: ids, limit: int64(cfg.MaxEphemerals)}
	sent := time.Now()
	out, err := m.writes.submit(ctx, "new session", "", appendRequest(nil, &q))
	if err != nil {
		return nil, err
	}
	if out.code != 0 {
		return nil, &Error{Op: "new session", Code: out.code}
	}
	return m.adopt("new session", out.id, out.zxid, cfg, password, ids, sent)
}

// opens returns the error of a call that opens a session on a member that has stopped, or takes its leave.
func (m *Member) opens(op string) error {
	m.mu.Lock()
	leaving := m.leaving
	m.mu.Unlock()
	if err := m.running(op); err != nil || !leaving {
		return err
	}
	return &Error{Op: op, Code: ErrClosed}
}

// negotiate checks what is asked of a session and fills it in (SS-4).
func (m *Member) negotiate(op string, cfg SessionConfig) (SessionConfig, []Identity, error) {
	if len(cfg.Name) > maxSessionName || cfg.MaxEphemerals < 0 || cfg.Timeout < 0 {
		return cfg, nil, &Error{Op: op, Code: ErrBadArguments}
	}
	ids, err := m.identities(cfg.Auth)
	orDefault(&cfg.MaxEphemerals, defaultEphemerals)
	orDefault(&cfg.Timeout, m.cfg.SessionTimeout)
	cfg.Timeout = min(max(cfg.Timeout, m.cfg.MinTimeout), m.cfg.MaxTimeout).Truncate(time.Millisecond)
	return cfg, ids, err
}

// randomPassword is what proves a session's owner when it is attached (SS-2).
func randomPassword() string {
	b := make([]byte, 16)
	rand.Read(b)
	return string(b)
}

// adopt makes the handle of a session that the state has.
func (m *Member) adopt(op string, id SessionID, mark Zxid, cfg SessionConfig, password string, ids []Identity, sent time.Time) (*Session, error) {
	l := newLive(m, id, mark, cfg, sent)
	l.password = password
	l.ids.Store(&ids)
	m.fsm.mu.Lock()
	rec := m.fsm.st.session(id)
	ok := rec != nil && rec.mark == mark
	if ok {
		l.created = rec.created
		m.fsm.live[id] = l
	}
	m.fsm.mu.Unlock()
	if !ok {
		return nil, &Error{Op: op, Code: ErrSessionExpired}
	}
	l.start()
	if m.running("") != nil { // it was opened while the member was closing
		m.watches.endSession(l, StateClosed)
		l.finish(StateClosed, ErrClosed)
	}
	signal(m.keeper.wake)
	if hook := m.cfg.Hooks.SessionOpened; hook != nil {
		hook(l.info())
	}
	m.log.Debug("session opened", "session", id, "name", cfg.Name)
	return &Session{live: l}, nil
}

// identities turns credentials into what ACLs are compared with.
func (m *Member) identities(auth []Auth) ([]Identity, error) {
	ids := make([]Identity, 0, len(auth))
	for _, a := range auth {
		switch a.Scheme {
		case schemeDigest:
			id := DigestID(string(a.Cred))
			if m.cfg.SuperDigest != "" && id == m.cfg.SuperDigest {
				ids = append(ids, Identity{schemeSuper, ""})
			}
			ids = append(ids, Identity{schemeDigest, id})
		case schemeIP, schemeX509, schemeSASL, schemeSuper:
			ids = append(ids, Identity{a.Scheme, string(a.Cred)})
		default:
			return nil, &Error{Op: "auth", Code: ErrAuthFailed, Err: fmt.Errorf("scheme %q", a.Scheme)}
		}
	}
	return ids, nil
}

// Session returns the member's shared session, opening one where there is none yet or the last one has ended. Its
// users do not close it.
func (m *Member) Session(ctx context.Context) (*Session, error) {
	if ctx == nil {
		return nil, badContext("session")
	}
	for {
		m.mu.Lock()
		if s := m.shared; s != nil && s.Err() == nil && !s.closing.Load() {
			m.mu.Unlock()
			return s, nil
		}
		wait := m.opening
		if wait == nil {
			wait = make(chan struct{})
			m.opening = wait
			m.mu.Unlock()
			s, err := m.NewSession(ctx, SessionConfig{Name: "shared"})
			m.mu.Lock()
			m.opening = nil
			if err == nil {
				m.shared = s
			}
			m.mu.Unlock()
			close(wait)
			return s, err
		}
		m.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctxError("session", "", ctx)
		case <-m.stop:
			return nil, &Error{Op: "session", Code: ErrClosed}
		}
	}
}

// forget drops a handle whose close could not be confirmed: the ensemble will expire the session.
func (m *Member) forget(l *live) {
	m.fsm.mu.Lock()
	if m.fsm.live[l.id] == l {
		m.fsm.dropLocked(l, StateClosed, ErrClosed)
	}
	m.fsm.mu.Unlock()
}

// sessions lists the handles of this member.
func (f *fsm) sessions() []*live {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]*live, 0, len(f.live))
	for _, l := range f.live {
		list = append(list, l)
	}
	return list
}

// Sessions lists all sessions of the ensemble, by id.
func (m *Member) Sessions(ctx context.Context) ([]SessionInfo, error) {
	if ctx == nil {
		return nil, badContext("sessions")
	}
	if err := m.running("sessions"); err != nil {
		return nil, err
	}
	var list []SessionInfo
	m.fsm.reading(func() {
		m.fsm.st.sessions.Ascend(func(s *session) bool {
			list = append(list, SessionInfo{
				ID: s.id, Name: s.name, Member: s.member, Timeout: time.Duration(s.timeout) * time.Millisecond,
				Created: time.UnixMilli(s.created), Ephemerals: int(m.fsm.st.ownedBy(s.id)), Killed: s.killed,
			})
			return true
		})
	})
	return list, nil
}

// KillSession marks a session: its heartbeats are not acknowledged any more, so that its owner is suspended and it
// expires a full timeout later. Holders of rights notice before others get them. Error: ErrUnknownSession.
func (m *Member) KillSession(ctx context.Context, id SessionID) error {
	if ctx == nil {
		return badContext("kill session")
	}
	if err := m.running("kill session"); err != nil {
		return err
	}
	out, err := m.writes.submit(ctx, "kill session", "", appendRequest(nil, &request{kind: reqKill, session: id}))
	if err == nil && out.code != 0 {
		err = &Error{Op: "kill session", Code: ErrUnknownSession}
	}
	m.auditMember("kill session", err, slog.String("session", id.String()))
	return err
}

func randomID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// stamp is what this member adds to an entry as the leader.
func (m *Member) stamp() stamp {
	return stamp{now: m.clock.now(), quota: m.cfg.EnforceQuota, noTTL: m.cfg.RefuseTTL, feature: formatVersion, check: m.fsm.checkpoint()}
}

func (m *Member) sessionEnded(info SessionInfo) {
	m.log.Info("session ended", "session", info.ID, "name", info.Name)
	if hook := m.cfg.Hooks.SessionEnded; hook != nil {
		hook(info)
	}
}

// overSoft runs on raft's goroutine alone.
func (m *Member) overSoft(path string) {
	if !m.leading() {
		return
	}
	if quiet, ok := m.overQuota.tell(); ok {
		m.log.Warn("soft quota exceeded", "path", path, "more", quiet)
	}
}

// watchOverflow runs under the watch table's lock.
func (m *Member) watchOverflow(path string, id SessionID) {
	if quiet, ok := m.overflowed.tell(); ok {
		m.log.Warn("watch overflow: its consumer is too slow", "session", id, "path", path, "more", quiet)
	}
	if hook := m.cfg.Hooks.WatchOverflow; hook != nil {
		hook(path, id)
	}
}

// sessionSuspended tells of a lease that lapsed. That of an External session says no more than that its client is silent.
func (m *Member) sessionSuspended(l *live) {
	if l.external || l.closing.Load() {
		return
	}
	if quiet, ok := m.suspended.tell(); ok {
		m.log.Warn("session suspended: no leader has acknowledged it in time", "session", l.id, "name", l.name, "more", quiet)
	}
}

func (m *Member) slowApply(took time.Duration, z Zxid) {
	m.log.Warn("slow apply", "took", took, "zxid", z)
	if hook := m.cfg.Hooks.SlowApply; hook != nil {
		hook(took, z)
	}
}

// Compact takes a snapshot now and lets go of the log before it.
func (m *Member) Compact(ctx context.Context) error {
	if ctx == nil {
		return badContext("compact")
	}
	if err := m.running("compact"); err != nil {
		return err
	}
	result := make(chan error, 1)
	if !m.spawn(func() { result <- m.snapshot() }) {
		return m.running("compact")
	}
	select {
	case err := <-result:
		if err != nil {
			return &Error{Op: "compact", Code: ErrSystem, Err: err}
		}
		return nil
	case <-ctx.Done():
		return ctxError("compact", "", ctx)
	}
}

func (m *Member) snapshot() error {
	if err := m.awaitUnstaged(); err != nil {
		return err
	}
	if err := m.room(); err != nil {
		return err
	}
	began := time.Now()
	m.fsm.persisted.Store(&SnapshotInfo{Zxid: m.Applied()})
	err := m.raft.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	info := *m.fsm.persisted.Load()
	info.Took, info.Err = time.Since(began), err
	if err == nil {
		m.log.Info("snapshot", "zxid", info.Zxid, "bytes", info.Bytes, "took", info.Took)
	} else if m.running("") == nil {
		m.log.Warn("snapshot", "err", err)
	}
	if hook := m.cfg.Hooks.SnapshotDone; hook != nil {
		hook(info)
	}
	return err
}

// errPutOff means that a snapshot was not begun, because there is no room for it.
var errPutOff = errors.New("snapshot put off")

// room asks whether there is room for a snapshot: one that fails on the way ends the member.
func (m *Member) room() error {
	const each = 64 // bytes of a znode besides its path and data, or so
	var size int64
	m.fsm.reading(func() { size = m.fsm.st.bytes + each*int64(len(m.fsm.st.nodes)) })
	err := m.store.room(size)
	if err == nil {
		return nil
	}
	if quiet, ok := m.noRoom.tell(); ok {
		m.log.Warn("snapshot is put off: the log goes on growing", "err", err, "more", quiet)
	}
	return fmt.Errorf("%w: %w", errPutOff, err)
}

// compact takes a snapshot whenever enough log has been written.
func (m *Member) compact() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	failures := 0
	done := -m.store.LogBytes() // bytes that the last snapshot covers
	for {
		select {
		case <-tick.C:
			written := m.store.AppendedBytes()
			if written-done < m.cfg.SnapshotBytes<<min(failures, 4) {
				continue
			}
			switch err := m.snapshot(); {
			case err == nil:
				failures, done = 0, written
			case !errors.Is(err, errPutOff): // otherwise there may be room at the next tick
				failures++
			}
		case <-m.stop:
			return
		}
	}
}

// booting reports whether raft is not there yet.
func (m *Member) booting() bool {
	select {
	case <-m.booted:
		return false
	default:
		return true
	}
}
