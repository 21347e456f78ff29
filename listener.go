// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// Listener is what a network listener, such as the ZooKeeper port, needs of a session beyond what applications do:
// liveness driven from outside, sessions that move between members, watches that belong to a connection, and
// writes that are answered in order without a goroutine each. It works on absolute paths. Its methods are safe for
// concurrent use.
type Listener struct{ s *Session }

// Listener returns the session's listener view.
func (s *Session) Listener() *Listener { return &Listener{&Session{live: s.live}} }

// Password is what another member asks for before it lets the session be attached there.
func (l *Listener) Password() []byte { return []byte(l.s.password) }

// Touch vouches for an External session: the next heartbeat includes it (SS-6).
func (l *Listener) Touch() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.touched = time.Now()
}

// Attach takes over a session that was opened anywhere in the ensemble: from here on this member hosts it, with
// these identities and this timeout, and requests through its former handle fail with ErrSessionMoved (SS-15,
// SS-18). A former handle on this member is closed. A local session can be attached on its own member alone, and stays
// local (SS-22). Errors: ErrSessionExpired for an unknown session, ErrAuthFailed for a wrong password.
func (m *Member) Attach(ctx context.Context, id SessionID, password []byte, cfg SessionConfig) (*Session, error) {
	if ctx == nil {
		return nil, badContext("attach")
	}
	if err := m.running("attach"); err != nil {
		return nil, err
	}
	cfg, ids, err := m.negotiate("attach", cfg)
	if err != nil {
		return nil, err
	}
	if s, here, err := m.attachLocal(id, string(password), cfg, ids); here {
		return s, err
	}
	q := request{kind: reqAttach, session: id, timeout: cfg.Timeout.Milliseconds(), password: string(password), ids: ids}
	sent := time.Now()
	out, err := m.writes.submit(ctx, "attach", "", appendRequest(nil, &q))
	if err != nil {
		return nil, err
	}
	if out.code != 0 {
		return nil, &Error{Op: "attach", Code: out.code}
	}
	return m.adopt("attach", out.id, out.zxid, cfg, string(password), ids, sent)
}

// Detach lets go of the session without closing it: it lives on until its timeout, and may be attached again, here
// or elsewhere; a local one here alone. Its watches are gone (WT-2).
func (l *Listener) Detach() { l.s.letGo() }

func (l *live) letGo() {
	defer l.hold()()
	l.closing.Store(true)
	if !l.rest() {
		l.m.forget(l)
	}
}

// WaitZxid returns once this member has applied everything up to z (SS-17).
func (m *Member) WaitZxid(ctx context.Context, z Zxid) error {
	if ctx == nil {
		return badContext("wait")
	}
	if err := m.fsm.waitZxid(ctx, m.stop, z); err != nil {
		if errors.Is(err, ErrClosed) {
			return &Error{Op: "wait", Code: ErrClosed}
		}
		return ctxError("wait", "", ctx)
	}
	return nil
}

// AddAuth adds identities to the session, for all its later requests (DM-112). What it is given is believed: of what a
// client sends, a listener may hand on digest credentials alone, and states the other schemes by itself (DM-111).
func (l *Listener) AddAuth(ctx context.Context, auth ...Auth) error {
	if err := l.s.begin(ctx, "auth", ""); err != nil {
		return err
	}
	ids, err := l.s.m.identities(auth)
	if err != nil {
		return err
	}
	if l.s.readOnly {
		l.s.addIdentities(ids)
		return nil
	}
	if local, err := l.s.addLocal(ids); local {
		return err
	}
	out, err := l.s.m.writes.submit(ctx, "auth", "", appendRequest(nil, &request{kind: reqAuth, session: l.s.id, mark: l.s.mark, ids: ids}))
	if err != nil {
		return err
	}
	if out.code != 0 {
		return &Error{Op: "auth", Code: out.code}
	}
	l.s.addIdentities(ids)
	return nil
}

func (l *live) addIdentities(ids []Identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := joined(l.identities(), ids)
	l.ids.Store(&all)
}

// Identities returns who the session is (DM-52).
func (l *Listener) Identities() []Identity { return slices.Clone(l.s.identities()) }

// Call is a write under way, in the manner of net/rpc.
type Call struct {
	Ops     []Op
	Results []Result // of a transaction that was applied
	Codes   []Code   // one per step; the failing one's, 0 before it, ErrInconsistent after it (DM-58)
	Zxid    Zxid     // of the request, applied or refused
	Error   error
	Done    chan *Call // receives the call when it is complete
}

// Go starts a transaction and returns at once. Calls are applied in the order of Go, and completed in that order on
// done, which must have room: a full channel drops the notice. A call that is refused at once, such as with ErrThrottled
// by a full queue, is complete when Go returns, before those that are under way.
// It never touches the request's bytes after it returns.
//
// Paths and the number of steps are left to the replicated state: what it refuses takes a zxid and gets the code that
// ZooKeeper's order of checks gives it (DM-37, DM-40 to DM-44, DM-62). A create whose mode has an undefined bit, as a
// listener may set for a flag that it does not know, is refused with ErrBadArguments before all else (DM-17).
func (l *Listener) Go(ctx context.Context, done chan *Call, ops ...Op) *Call {
	if done == nil {
		done = make(chan *Call, 1)
	}
	c := &Call{Ops: ops, Done: done}
	op := "txn"
	if len(ops) == 1 {
		op = ops[0].name()
	}
	began := time.Now()
	w := &call{done: make(chan struct{})}
	w.after = func(out outcome, err error) {
		if err != nil {
			c.Error = &Error{Op: op, Code: codeOf(err), MaybeApplied: w.framed, Err: unlessCode(err)}
			l.s.audited(op, ops, outcome{}, c.Error)
		} else {
			l.s.m.answered(op, len(w.raw), time.Since(began), out.code)
			l.s.audited(op, ops, out, nil)
			c.Zxid = out.zxid
			for _, s := range out.steps {
				c.Codes = append(c.Codes, s.code)
			}
			c.Results, c.Error = l.s.results(op, ops, out)
		}
		select {
		case done <- c:
		default:
		}
	}
	release := l.s.hold()
	defer release()
	var err error
	if w.raw, err = l.s.encode(ctx, op, "", ops, false); err == nil {
		if err = l.s.m.writes.enqueue(ctx, w, false); err != nil {
			err = &Error{Op: op, Code: codeOf(err), Err: unlessCode(err)}
		}
	}
	if err != nil {
		c.Error = err
		select {
		case done <- c:
		default:
		}
	}
	return c
}

// WatchType selects watches to remove or to look for (WT-27).
type WatchType uint8

// The types, with ZooKeeper's numbers.
const (
	WatchTypeChildren            WatchType = 1
	WatchTypeData                WatchType = 2
	WatchTypeAny                 WatchType = 3
	WatchTypePersistent          WatchType = 4
	WatchTypePersistentRecursive WatchType = 5
)

func (t WatchType) keys(path string) []watchKey {
	data, child := watchKey{path, false, watchOnce}, watchKey{path, true, watchOnce}
	persistent, persistentChild := watchKey{path, false, watchPersistent}, watchKey{path, true, watchPersistent}
	recursive := watchKey{path, false, watchRecursive}
	switch t {
	case WatchTypeChildren:
		return []watchKey{child}
	case WatchTypeData:
		return []watchKey{data}
	case WatchTypePersistent:
		return []watchKey{persistent, persistentChild}
	case WatchTypePersistentRecursive:
		return []watchKey{recursive}
	case WatchTypeAny:
		return []watchKey{data, child, persistent, persistentChild, recursive}
	}
	return nil
}

// orRoot makes the empty path the root (DM-8).
func orRoot(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

func (l *Listener) sink(op string) error {
	if l.s.live.sink == nil {
		return &Error{Op: op, Code: ErrBadArguments, Err: errors.New("the session has no SessionConfig.Events")}
	}
	return nil
}

// Read reads a znode and, if watch is set, registers a one-shot watch whose event goes to SessionConfig.Events.
// Null data is nil, empty data is not (DM-24). The zxid is that of the state read.
func (l *Listener) Read(ctx context.Context, path string, watch bool) (data []byte, st Stat, z Zxid, err error) {
	path = orRoot(path)
	var null bool
	var s string
	var inner stat
	err = l.observe(ctx, "get", path, watch, func(t *state) (Code, watchKey) {
		n, code := l.s.node(t, path)
		if code == 0 {
			s, null, inner = n.data, n.null, n.stat()
		}
		return code, watchKey{path, false, watchOnce}
	}, &z)
	if err != nil {
		return nil, Stat{}, z, err
	}
	return copied(s, null), inner.public(), z, nil
}

// Stat is Read for exists: the watch is registered whether or not the znode is there. A path with a NUL byte is
// ErrBadArguments (DM-45).
func (l *Listener) Stat(ctx context.Context, path string, watch bool) (st Stat, ok bool, z Zxid, err error) {
	path = orRoot(path)
	if strings.IndexByte(path, 0) >= 0 {
		return Stat{}, false, 0, &Error{Op: "exists", Path: path, Code: ErrBadArguments}
	}
	var inner stat
	err = l.observe(ctx, "exists", path, watch, func(t *state) (Code, watchKey) {
		n, code := l.s.node(t, path)
		if code == 0 {
			inner, ok = n.stat(), true
		}
		if code == ErrNoNode {
			code = 0
		}
		return code, watchKey{path, false, watchOnce}
	}, &z)
	if err != nil || !ok {
		return Stat{}, false, z, err
	}
	return inner.public(), true, z, nil
}

// List is Read for the names of children (DM-47).
func (l *Listener) List(ctx context.Context, path string, watch bool) (names []string, st Stat, z Zxid, err error) {
	path = orRoot(path)
	var inner stat
	err = l.observe(ctx, "children", path, watch, func(t *state) (Code, watchKey) {
		n, code := l.s.node(t, path)
		if code == 0 {
			inner = n.stat()
			childrenAfter(&n.content, path, "", func(c *znode) bool {
				names = append(names, baseName(c.path))
				return true
			})
			l.s.m.stats.scanned.Add(int64(len(names)))
		}
		return code, watchKey{path, true, watchOnce}
	}, &z)
	if err != nil {
		return nil, Stat{}, z, err
	}
	return names, inner.public(), z, nil
}

// observe reads under the lock and registers the watch there.
func (l *Listener) observe(ctx context.Context, op, path string, watch bool, fn func(*state) (Code, watchKey), z *Zxid) error {
	if watch {
		if err := l.sink(op); err != nil {
			return err
		}
	}
	return l.s.read(ctx, op, path, nil, func(t *state) Code {
		*z = t.zxid
		code, key := fn(t)
		if code == 0 && watch && !l.s.m.watches.register(l.s.live.sink, key.path, key.child, key.mode) {
			code = ErrSessionExpired
		}
		return code
	})
}

// AddWatch registers a persistent watch, or a persistent recursive one (WT-5). The path need not exist.
func (l *Listener) AddWatch(path string, recursive bool) error {
	if err := l.sink("add watch"); err != nil {
		return err
	}
	t := WatchTypePersistent
	if recursive {
		t = WatchTypePersistentRecursive
	}
	ok := true
	l.s.m.fsm.reading(func() {
		for _, k := range t.keys(path) {
			ok = ok && l.s.m.watches.register(l.s.live.sink, k.path, k.child, k.mode)
		}
	})
	if !ok {
		return &Error{Op: "add watch", Path: path, Code: ErrSessionExpired}
	}
	return nil
}

// RemoveWatches takes watches on path away (WT-27). The error is ErrNoWatch where there were none.
func (l *Listener) RemoveWatches(path string, t WatchType) error { return l.watches(path, t, false) }

// CheckWatches reports whether there is such a watch: the error is ErrNoWatch where there is none.
func (l *Listener) CheckWatches(path string, t WatchType) error { return l.watches(path, t, true) }

func (l *Listener) watches(path string, t WatchType, dry bool) error {
	keys := t.keys(path)
	if keys == nil {
		return &Error{Op: "watches", Path: path, Code: ErrMarshalling}
	}
	found := false
	if l.s.live.sink != nil {
		for _, k := range keys {
			found = l.s.m.watches.remove(l.s.live.sink, k, dry) || found
		}
	}
	if !found {
		return &Error{Op: "watches", Path: path, Code: ErrNoWatch}
	}
	return nil
}

// WatchSet is what a client that reconnects wants to go on watching (WT-30, WT-31).
type WatchSet struct {
	Data, Exist, Child, Persistent, Recursive []string
}

// SetWatches registers watches anew after a reconnect. What changed after since is reported at once, with zxid -1,
// and not registered (WT-32); no permission is asked for (WT-33).
func (l *Listener) SetWatches(since Zxid, set WatchSet) error {
	if err := l.sink("set watches"); err != nil {
		return err
	}
	w, r := l.s.m.watches, l.s.live.sink
	alive := false
	l.s.m.fsm.reading(func() {
		nodes := l.s.m.fsm.st.nodes
		w.mu.Lock()
		defer w.mu.Unlock()
		if alive = !r.ended && !r.session.over; !alive {
			return
		}
		tell := func(t EventType, path string) { r.sink(Event{Type: t, Path: path, Zxid: -1}) }
		add := func(path string, child bool, mode watchMode) { w.registerLocked(r, path, child, mode) }
		for _, p := range set.Data {
			switch n := nodes[p]; {
			case n == nil:
				tell(EventDeleted, p)
			case n.mzxid > since:
				tell(EventChanged, p)
			default:
				add(p, false, watchOnce)
			}
		}
		for _, p := range set.Exist {
			if nodes[p] != nil {
				tell(EventCreated, p)
			} else {
				add(p, false, watchOnce)
			}
		}
		for _, p := range set.Child {
			switch n := nodes[p]; {
			case n == nil:
				tell(EventDeleted, p)
			case n.pzxid > since:
				tell(EventChildren, p)
			default:
				add(p, true, watchOnce)
			}
		}
		for _, p := range set.Persistent {
			add(p, false, watchPersistent)
			add(p, true, watchPersistent)
		}
		for _, p := range set.Recursive {
			add(p, false, watchRecursive)
		}
	})
	if !alive {
		return &Error{Op: "set watches", Code: ErrSessionExpired}
	}
	return nil
}

// ACL is Read for the access control list, as Session.GetACL shows it (DM-50).
func (l *Listener) ACL(ctx context.Context, path string) ([]ACL, Stat, Zxid, error) {
	path = orRoot(path)
	return l.s.acl(ctx, path, path, nil)
}

// Allowed asks whether the session has any of the wanted permissions on a znode (DM-101): what a listener that does
// something of its own on a client's behalf has to know. Errors: ErrNoNode, ErrNoAuth.
func (l *Listener) Allowed(ctx context.Context, path string, want Perm) error {
	return l.s.read(ctx, "allowed", path, nil, func(t *state) Code {
		n := t.nodes[orRoot(path)]
		switch {
		case n == nil:
			return ErrNoNode
		case !allowed(n.acl, want, l.s.identities()):
			return ErrNoAuth
		}
		return 0
	})
}

// Ephemerals lists the paths of the session's ephemerals that start with prefix, plainly (DM-49). The zxid is that of
// the state read.
func (l *Listener) Ephemerals(ctx context.Context, prefix string) (paths []string, z Zxid, err error) {
	err = l.s.read(ctx, "ephemerals", prefix, nil, func(t *state) Code {
		z = t.zxid
		t.ephemeralsOf(l.s.id, func(path string) {
			if strings.HasPrefix(path, prefix) {
				paths = append(paths, path)
			}
		})
		return 0
	})
	return paths, z, err
}

// countAtOnce is how many descendants are counted while nothing is applied.
const countAtOnce = 16 * chunk

// Descendants counts everything below path (DM-48). The zxid is that of the state read. Counting many holds nothing up.
func (l *Listener) Descendants(ctx context.Context, path string) (count int, z Zxid, err error) {
	path = orRoot(path)
	few := true
	err = l.s.read(ctx, "descendants", path, nil, func(t *state) Code {
		z = t.zxid
		n, code := l.s.node(t, path)
		switch {
		case code != 0:
			return code
		case path == "/":
			count = len(t.nodes) - 1
			return 0
		}
		few = descendants(n, func(*znode) bool {
			count++
			return count < countAtOnce
		})
		l.s.m.stats.scanned.Add(int64(count))
		return 0
	})
	if err != nil || few {
		return count, z, err
	}
	count = -1 // the walk begins with the znode itself
	err = l.s.View(ctx, func(v *View) error {
		z = v.Zxid()
		return v.each(path, func(*znode, *content) { count++ })
	})
	return max(count, 0), z, err
}

// ReadRequest asks for a znode's data, or for the names of its children.
type ReadRequest struct {
	Path     string
	Children bool
}

// ReadResult answers one ReadRequest.
type ReadResult struct {
	Data  []byte
	Names []string
	Stat  Stat
	Code  Code // 0, ErrNoNode or ErrNoAuth
}

// MultiRead answers all requests from one state, each for itself (DM-66).
func (l *Listener) MultiRead(ctx context.Context, reads ...ReadRequest) (results []ReadResult, z Zxid, err error) {
	results = make([]ReadResult, len(reads))
	err = l.s.read(ctx, "multi read", "", nil, func(t *state) Code {
		z = t.zxid
		for i, q := range reads {
			r := &results[i]
			path := orRoot(q.Path)
			n, code := l.s.node(t, path)
			if r.Code = code; code != 0 {
				continue
			}
			inner := n.stat()
			r.Stat = inner.public()
			if !q.Children {
				r.Data = copied(n.data, n.null)
				continue
			}
			childrenAfter(&n.content, path, "", func(c *znode) bool {
				r.Names = append(r.Names, baseName(c.path))
				return true
			})
			l.s.m.stats.scanned.Add(int64(len(r.Names)))
		}
		return 0
	})
	return results, z, err
}
