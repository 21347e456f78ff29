// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// State is what a session knows of itself.
type State uint8

// A session starts Active, may be Suspended and Active again any number of times, and ends Expired or Closed.
const (
	// StateActive: the lease is valid. No leader can expire the session before it lapses (P11).
	StateActive State = iota
	// StateSuspended: the lease has lapsed. The session may be gone or may recover.
	StateSuspended
	// StateExpired: the ensemble closed the session. Final.
	StateExpired
	// StateClosed: the session was closed here, moved elsewhere, or its member was closed. Final.
	StateClosed
)

// String names the state.
func (s State) String() string {
	if s <= StateClosed {
		return [...]string{"active", "suspended", "expired", "closed"}[s]
	}
	return "unknown"
}

// SessionConfig describes a session. The zero value takes the member's defaults.
type SessionConfig struct {
	// Timeout is how long the session outlives the silence of its member; 0 means Config.SessionTimeout. It is
	// brought within Config.MinTimeout and Config.MaxTimeout.
	Timeout time.Duration

	// Name is shown by Sessions and in logs; at most 256 bytes.
	Name string

	// Auth gives the identities for ACL checks. The embedding program is trusted: a digest is checked by nobody.
	Auth []Auth

	// External hands the session's liveness to a listener: it lives as long as Listener.Touch is called.
	External bool

	// Events receives the events of watches that a listener sets through Session.Listener, and at last EventSession. It
	// is called under the state machine's lock, in order, before any read can show the change: it must not block nor
	// call back.
	Events func(Event)

	// MaxEphemerals bounds how many ephemerals the session may own; 0 means 10,000.
	MaxEphemerals int
}

// Auth is one identity: digest with Cred "user:password"; x509, sasl, ip and super with Cred the identity itself.
type Auth struct {
	Scheme string
	Cred   []byte
}

// SessionInfo describes a session of any member.
type SessionInfo struct {
	ID         SessionID
	Name       string
	Member     string // that hosts it
	Timeout    time.Duration
	Created    time.Time
	Ephemerals int
	Killed     bool
}

// SessionSource gives the session to work under. *Member gives its live shared session, replaced after expiry;
// *Session gives itself while it is alive.
type SessionSource interface {
	Session(ctx context.Context) (*Session, error)
}

var (
	_ SessionSource = (*Session)(nil)
	_ SessionSource = (*Member)(nil)
)

type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// Session is a liveness unit on a member. It owns ephemerals and watches, and it orders operations: sequential
// calls take effect in order, and a session sees its own writes (P4, P7). Sessions are cheap, have no goroutine of
// their own, and are safe for concurrent use. A session ends with its member's process, unless a listener attaches it
// elsewhere in time.
type Session struct {
	noCopy noCopy
	*live
	prefix string // of Sub; "" for the whole tree
}

// live is a member's half of a session, shared by all handles that Sub makes.
type live struct {
	m        *Member
	id       SessionID
	mark     Zxid
	timeout  time.Duration
	margin   time.Duration
	name     string
	password string
	created  int64
	external bool
	readOnly bool          // of ReadOnlySession
	standing atomic.Uint32 // standsKnown, standsLocal or standsRising; changed under order
	order    sync.Mutex    // of a session that is not known: see hold; taken before all other locks
	limit    int64
	sink     *receiver // of a listener; nil without SessionConfig.Events
	ids      atomic.Pointer[[]Identity]
	closing  atomic.Bool
	written  atomic.Int64 // zxid of the last write that was answered

	// Guarded by the watch table's mutex.
	receivers map[*receiver]struct{}
	over      bool

	mu       sync.Mutex // guards the fields below
	state    State
	err      error
	deadline time.Time // the lease ends; monotonic
	touched  time.Time // when a listener last vouched for it
	timer    *time.Timer
	changed  chan struct{} // closed at the next change of state
	done     chan struct{}
	lease    context.Context // of the present active period
	lapse    context.CancelCauseFunc
}

// marginOf is by how much a lease ends before the timeout (D28).
func (m *Member) marginOf(timeout time.Duration) time.Duration {
	if m.cfg.LeaseMargin > 0 {
		return m.cfg.LeaseMargin
	}
	return min(max(timeout/10, 100*time.Millisecond), timeout/2)
}

func newLive(m *Member, id SessionID, mark Zxid, cfg SessionConfig, sent time.Time) *live {
	l := &live{
		m: m, id: id, mark: mark, timeout: cfg.Timeout, margin: m.marginOf(cfg.Timeout), name: cfg.Name, external: cfg.External,
		limit: int64(cfg.MaxEphemerals), changed: make(chan struct{}), done: make(chan struct{}), touched: sent,
	}
	l.deadline = sent.Add(l.timeout - l.margin)
	l.lease, l.lapse = context.WithCancelCause(context.Background())
	if cfg.Events != nil {
		l.sink = &receiver{session: l, sink: cfg.Events}
		l.receivers = map[*receiver]struct{}{l.sink: {}} // it hears of the end, even if it never watches anything
	}
	return l
}

// start arms the lease's timer.
func (l *live) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil && l.state == StateActive {
		l.timer = time.AfterFunc(time.Until(l.deadline), func() { l.current() })
	}
}

func (l *live) identities() []Identity { return *l.ids.Load() }

func (l *live) info() SessionInfo {
	return SessionInfo{ID: l.id, Name: l.name, Member: l.m.cfg.ID, Timeout: l.timeout, Created: time.UnixMilli(l.created)}
}

// current returns the state after having looked at the clock: whoever asks after a pause is told at once.
func (l *live) current() State {
	jumped := l.m.clockJumped(l.margin)
	st, lapsed := l.look(jumped)
	if lapsed {
		l.m.sessionSuspended(l)
	}
	return st
}

func (l *live) look(jumped bool) (st State, lapsed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == StateActive && !l.readOnly {
		left := time.Until(l.deadline)
		if lapsed = left <= 0 || jumped; lapsed {
			l.setLocked(StateSuspended, nil)
			l.lapse(ErrSuspended)
		} else if l.timer != nil {
			l.timer.Reset(left)
		}
	}
	return l.state, lapsed
}

// renew extends the lease after the leader has acknowledged a heartbeat sent at sent (D28).
func (l *live) renew(sent time.Time) {
	deadline := sent.Add(l.timeout - l.margin)
	left := time.Until(deadline)
	if left <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state > StateSuspended {
		return
	}
	if deadline.After(l.deadline) {
		l.deadline = deadline
	}
	if l.state == StateSuspended {
		l.lease, l.lapse = context.WithCancelCause(context.Background())
		l.setLocked(StateActive, nil)
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(left, func() { l.current() })
	} else {
		l.timer.Reset(left)
	}
}

func (l *live) setLocked(st State, err error) {
	l.state, l.err = st, err
	close(l.changed)
	l.changed = make(chan struct{})
}

// finish ends the handle for good.
func (l *live) finish(st State, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state > StateSuspended {
		return
	}
	if l.timer != nil {
		l.timer.Stop()
	}
	l.setLocked(st, err)
	l.lapse(err)
	close(l.done)
}

// Session returns s itself, or its error once it is over.
func (s *Session) Session(ctx context.Context) (*Session, error) {
	if ctx == nil {
		return nil, badContext("session")
	}
	if err := s.Err(); err != nil {
		return nil, &Error{Op: "session", Code: codeOf(err), Err: err}
	}
	return s, nil
}

// ID returns the session's id.
func (s *Session) ID() SessionID { return s.id }

// Member returns the member that hosts the session.
func (s *Session) Member() *Member { return s.m }

// Timeout returns the session's timeout after negotiation.
func (s *Session) Timeout() time.Duration { return s.timeout }

// State returns the state, from local knowledge alone: no I/O, no waiting. It looks at the clock, so that a
// program that was paused past its lease is told so by its first call.
func (s *Session) State() State { return s.current() }

// States yields the state and then every change of it, the newest only. It ends after a final state, or with
// ctx's error.
func (s *Session) States(ctx context.Context) iter.Seq2[State, error] {
	return func(yield func(State, error) bool) {
		if ctx == nil {
			yield(StateClosed, badContext("states"))
			return
		}
		for last, first := StateClosed, true; ; first = false {
			s.current()
			s.mu.Lock()
			st, changed := s.state, s.changed
			s.mu.Unlock()
			if (first || st != last) && !yield(st, nil) || st > StateSuspended {
				return
			}
			last = st
			select {
			case <-changed:
			case <-ctx.Done():
				yield(st, ctxError("states", "", ctx))
				return
			}
		}
	}
}

// Deadline returns when the lease ends unless it is renewed; it moves forward with every heartbeat that the
// leader has acknowledged.
func (s *Session) Deadline() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deadline
}

// Context returns a context that ends, with the reason as its cause, when the lease lapses or the session is
// over. After a suspension a recovered session has a new one: what was done under the old one stays over.
func (s *Session) Context() context.Context {
	s.current()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease
}

// ContextWhile returns a context that ends when ctx does, when the lease lapses, or as soon as this member learns
// that the znode created at t is gone: the cause is then ErrNoNode. It is what a held right rests on. No goroutine
// is started. The error is ErrNoNode if that incarnation is not there now. Call cancel to free it.
func (s *Session) ContextWhile(ctx context.Context, path string, t Token) (held context.Context, cancel context.CancelFunc, err error) {
	if err := s.begin(ctx, "context while", path); err != nil {
		return nil, nil, err
	}
	full := s.full(path)
	if err := s.checkPath("context while", path, full); err != nil {
		return nil, nil, err
	}
	// A child of the lease ends with it, not soon after: who closes a session has lost what it held before it says so to
	// the ensemble, and not because the znode has gone (HELD-S5).
	lease := s.Context()
	under, end := context.WithCancelCause(lease)
	held = &whileContext{under, ctx}
	r := &receiver{session: s.live, sink: func(ev Event) {
		if ev.Type == EventDeleted {
			end(ErrNoNode)
		}
	}, trusted: true} // the end of the session ends the lease, with the reason
	code := Code(0)
	s.m.fsm.reading(func() {
		if n := s.m.fsm.st.nodes[full]; n == nil || Token(n.czxid) != t {
			code = ErrNoNode
		} else if !s.m.watches.register(r, full, false, watchPersistent) {
			code = ErrSessionExpired
		}
	})
	if code == 0 && lease.Err() != nil {
		code = codeOf(context.Cause(lease))
	}
	if code != 0 {
		s.m.watches.end(r, nil)
		end(nil)
		return nil, nil, &Error{Op: "context while", Path: path, Code: code}
	}
	follow := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	unwatch := context.AfterFunc(held, func() { s.m.watches.end(r, nil) })
	return held, func() {
		follow()
		if unwatch() {
			s.m.watches.end(r, nil)
		}
		end(context.Canceled)
	}, nil
}

// whileContext ends with the lease and has the values and the deadline of the context it was made for.
type whileContext struct {
	context.Context
	of context.Context
}

func (c *whileContext) Deadline() (time.Time, bool) { return c.of.Deadline() }

func (c *whileContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil { // package context's own: no lease has any other
		return v
	}
	return c.of.Value(key)
}

// Done is closed when the session is over: expired or closed.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns nil while the session may be alive, then ErrSessionExpired, ErrSessionMoved or ErrClosed.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Now returns the ensemble's time as far as this member knows it: the leader's stamp of the last entry, carried
// on by the local monotonic clock. It never goes back on one member, so after a time without a leader it can be ahead of
// the next stamps, and stands still until they have caught up, for as long as there was none (D19).
func (s *Session) Now() time.Time { return s.m.clusterTime() }

// LastZxid returns the zxid of the last request that this member has applied.
func (s *Session) LastZxid() Zxid { return s.m.Applied() }

// Sub returns a handle on the same session for which paths start below prefix. Closing it closes the session.
func (s *Session) Sub(prefix string) *Session {
	if prefix == "/" {
		prefix = ""
	}
	return &Session{live: s.live, prefix: s.prefix + prefix}
}

// full maps a path of this handle to the tree's.
func (s *Session) full(path string) string {
	if s.prefix == "" {
		return path
	}
	if path == "/" {
		return s.prefix
	}
	return s.prefix + path
}

// local maps a path of the tree to this handle's.
func (s *Session) local(path string) string {
	if s.prefix == "" {
		return path
	}
	if path = strings.TrimPrefix(path, s.prefix); path == "" {
		return "/"
	}
	return path
}

// Close ends the session: its ephemerals are deleted and its watches closed before it returns. It waits at most
// the session's timeout, after which the ensemble closes the session by itself; the error then says so. Closing
// twice is fine.
func (s *Session) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	return s.close(ctx)
}

func (l *live) close(ctx context.Context) error {
	if l.readOnly {
		l.letGo()
		return nil
	}
	if l.closeLocal() {
		return nil
	}
	if l.closing.Swap(true) {
		select {
		case <-l.done:
			return nil
		case <-ctx.Done():
			return ctxError("close session", "", ctx)
		}
	}
	l.mu.Lock()
	over := l.state > StateSuspended
	if !over {
		l.lapse(ErrClosed) // the local end comes first (HELD-S5)
	}
	l.mu.Unlock()
	if over {
		return nil
	}
	out, err := l.m.writes.submit(ctx, "close session", "", appendRequest(nil, &request{kind: reqClose, session: l.id, mark: l.mark}))
	if l.m.cfg.Audit != nil {
		l.m.audit(l, "close session", &out, err)
	}
	l.m.forget(l)
	if err == nil && out.code != 0 && out.code != ErrSessionExpired {
		err = &Error{Op: "close session", Code: out.code}
	}
	return err
}
