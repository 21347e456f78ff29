// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Lock is a mutual exclusion lock on a path. Contenders are granted it in the order in which they came (LOCK-S2).
//
// Layout: PATH/_c_UUID-lock-SEQ, ephemeral; PATH is a container, created with the first contender and reaped after the
// last. Programs that use Curator's InterProcessMutex, go-zookeeper's Lock, or kazoo's Lock on the same path take part:
// kazoo needs Layout: Kazoo here, or extra_lock_patterns=["-lock-"] there; Curator and kazoo are not safe with each
// other on one path.
//
// Cost: one write to acquire and one to release, no read that leaves the member. A waiter has two local watches and is
// woken once; a busy TryAcquire costs one round of messages and no write.
//
// Goroutines have no identity: a second Acquire waits for the first, whoever calls it. Pass the Held on, or use
// Held.Retain.
type Lock struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Data    []byte // shown by Contenders; default: the member's id and the session's
	Layout  Layout

	// Grace delays the grant to a successor of a holder that vanished without a release, so that effects which the
	// dead holder had under way can arrive first. 0 means none. It costs one write more for each grant. The delay that
	// counts is the dead holder's. It is kept in PATH itself: where nobody is in line when the holder dies, the grace is
	// over with the next reaping of empty containers (zk.Config.ReapInterval).
	Grace time.Duration

	mixed sync.Once
}

// NewLock returns a lock on path.
func NewLock(s zk.SessionSource, path string) *Lock { return &Lock{Session: s, Path: path} }

// Acquire waits for the lock. Errors: ctx's; zk.ErrSessionExpired, at once, if the session ends; ErrBroken if somebody
// deletes the contender's znode; and those of every write. Whatever the error, nothing is left in line. While the
// session is suspended the place in line is kept and nothing is granted.
func (l *Lock) Acquire(ctx context.Context) (*Held, error) {
	s, err := session(ctx, l.Session, "lock", l.Path)
	if err != nil {
		return nil, err
	}
	c, err := enter(ctx, s, l.contender(s))
	if err != nil {
		return nil, err
	}
	return l.hold(ctx, c)
}

// contender is the step that joins the line.
func (l *Lock) contender(s *zk.Session) zk.Op {
	data := l.Data
	if data == nil {
		data = fmt.Appendf(nil, "%s %v", s.Member().ID(), s.ID())
	}
	return zk.OpCreate(join(l.Path, lockKind.prefix(l.Layout)), data, zk.Ephemeral|zk.Sequential|zk.Parents)
}

// hold waits in line, and for the grace of a crashed holder.
func (l *Lock) hold(ctx context.Context, c *contender) (*Held, error) {
	var g grace
	var parting []zk.Op
	recorded := false
	r, err := c.await(ctx, line{blocks: l.blocks, pause: func() (left time.Duration, err error) {
		if recorded {
			return 0, nil
		}
		if g, err = l.graceOf(ctx, c.s, g); err != nil {
			return 0, err
		}
		if left = g.left(c.s); left > 0 {
			return left, nil
		}
		parting = l.clearing() // even if it is not known whether there is something to clear
		err = l.record(ctx, c, g)
		recorded = err == nil
		return 0, err
	}})
	if err != nil {
		c.leave(parting...)
		return nil, err
	}
	r.onRelease(parting)
	return &Held{right: r}, nil
}

// blocks tells who in line has to go first: everybody.
func (l *Lock) blocks(name string) bool {
	layout, ok := lockKind.layout(name)
	if ok && layout != l.Layout {
		l.mixed.Do(func() {
			slog.Warn("a lock has contenders of Curator's and of kazoo's layout, which those two do not keep apart: see recipes.Lock", "path", l.Path)
		})
	}
	return ok
}

// TryAcquire is Acquire without waiting for a holder. The error is ErrNotAcquired if there is one, or if the grace of a
// crashed one is not over; no znode of this call is left then, now or later (LOCK-S3).
func (l *Lock) TryAcquire(ctx context.Context) (*Held, error) {
	s, err := session(ctx, l.Session, "try lock", l.Path)
	if err != nil {
		return nil, err
	}
	for current := false; ; {
		busy, foreign, err := l.look(ctx, s)
		if err != nil {
			return nil, explain(ctx, err)
		}
		if busy {
			if current {
				return nil, ErrNotAcquired
			}
			if err := s.Sync(ctx); err != nil { // what this member knows may be old
				return nil, explain(ctx, err)
			}
			current = true
			continue
		}
		if foreign {
			return l.tryAmong(ctx, s)
		}
		c, err := enter(ctx, s, zk.OpCheckChildren(l.Path, zk.Less, 1), l.contender(s))
		if errors.Is(err, zk.ErrGuard) {
			current = true // the refusal was applied here: what is seen now is as new
			continue
		}
		if err != nil {
			return nil, err
		}
		return l.tryHold(ctx, c)
	}
}

// look reports whether anybody is in line, and whether the directory has children that are not contenders.
func (l *Lock) look(ctx context.Context, s *zk.Session) (busy, foreign bool, err error) {
	for z, err := range s.Sequential(ctx, l.Path) {
		if errors.Is(err, zk.ErrNoNode) {
			return false, false, nil
		}
		if err != nil {
			return false, false, err
		}
		if lockKind.contends(base(z.Path)) {
			return true, false, nil
		}
	}
	st, _, err := s.Exists(ctx, l.Path)
	return false, st.NumChildren > 0, err
}

// tryAmong tries where children of others make a guard on the number of children useless: create, look, delete.
func (l *Lock) tryAmong(ctx context.Context, s *zk.Session) (*Held, error) {
	c, err := enter(ctx, s, l.contender(s))
	if err != nil {
		return nil, err
	}
	return l.tryHold(ctx, c)
}

// tryHold grants c the lock if it can be had at once, and takes it out of the line otherwise.
func (l *Lock) tryHold(ctx context.Context, c *contender) (*Held, error) {
	_, blocked, err := c.s.Preceding(ctx, c.path, lockKind.contends)
	var g grace
	if err == nil && !blocked {
		g, err = l.graceOf(ctx, c.s, g)
	}
	if err == nil && !blocked && g.left(c.s) <= 0 {
		return l.hold(ctx, c)
	}
	if err == nil {
		if err = c.remove(ctx, g.begin(l.Path)...); err == nil {
			return nil, ErrNotAcquired
		}
	}
	c.leave()
	return nil, c.failed(ctx, err)
}

// Do acquires the lock, calls fn, and releases the lock, even if fn panics. fn's context ends with the lock or with
// ctx. The error joins fn's, ErrLost if the lock was lost before fn returned, and that of the release, which waits for
// at most the session's timeout; after that the znode is deleted in the background.
func (l *Lock) Do(ctx context.Context, fn func(ctx context.Context, h *Held) error) error {
	if fn == nil {
		return badArgument("lock", l.Path, "nil function")
	}
	h, err := l.Acquire(ctx)
	if err != nil {
		return err
	}
	return h.do(ctx, func(ctx context.Context) error { return fn(ctx, h) }, h.Release)
}

// do runs fn under a right and ends it with end, which gets a context that outlives ctx.
func (h *Held) do(ctx context.Context, fn func(context.Context) error, end func(context.Context) error) (err error) {
	finish := func(end func(context.Context) error) error {
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.right.s.Timeout())
		defer cancel()
		return end(rest)
	}
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit
			finish(h.Release)
		}
	}()
	under, cancel := h.Context(ctx)
	defer cancel()
	err = fn(under)
	returned = true
	if lost := h.Err(); errors.Is(lost, ErrLost) {
		err = errors.Join(err, lost)
	}
	return errors.Join(err, finish(end))
}

// Contender is one in a line.
type Contender struct {
	Path    string
	Seq     int64
	Token   zk.Token
	Session zk.SessionID
	Data    []byte
	Holding bool // the first in line: it holds the lock, or is about to
}

// Contenders lists who is in line, the holder first, as this member knows it. Empty means that the lock is free.
func (l *Lock) Contenders(ctx context.Context) ([]Contender, error) {
	s, err := session(ctx, l.Session, "contenders", l.Path)
	if err != nil {
		return nil, err
	}
	return contenders(ctx, s, l.Path, lockKind.contends)
}

// contenders lists the children of path whose names match, in the order of their numbers.
func contenders(ctx context.Context, s *zk.Session, path string, match func(name string) bool) ([]Contender, error) {
	var list []Contender
	for z, err := range s.Sequential(ctx, path) {
		if errors.Is(err, zk.ErrNoNode) {
			return nil, nil
		}
		if err != nil {
			return nil, explain(ctx, err)
		}
		if !match(base(z.Path)) {
			continue
		}
		seq, _ := zk.Sequence(z.Path)
		list = append(list, Contender{
			Path: z.Path, Seq: seq, Token: zk.Token(z.Stat.Czxid), Session: z.Stat.EphemeralOwner, Data: []byte(z.Data), Holding: len(list) == 0,
		})
	}
	return list, nil
}

// Break deletes a contender's znode, that incarnation only: an operator's override. If it is the holder's, its successor
// is granted the lock; until the holder's member has applied the deletion only tokens and guards keep the two apart.
// It returns nil if the znode is gone already.
func (l *Lock) Break(ctx context.Context, c Contender) error {
	s, err := session(ctx, l.Session, "break", c.Path)
	if err != nil {
		return err
	}
	return (&contender{s, c.Path, c.Token}).remove(ctx)
}

// Revoke asks a contender, politely, to give back what it holds: its Held.Revoked is closed. Holders that do not look
// are not affected. It returns nil if the znode is gone already.
func Revoke(ctx context.Context, src zk.SessionSource, c Contender) error {
	s, err := session(ctx, src, "revoke", c.Path)
	if err != nil {
		return err
	}
	_, err = s.Txn(ctx, zk.OpCheckCreated(c.Path, c.Token), zk.OpSet(c.Path, []byte(revokeData), zk.AnyVersion))
	if errors.Is(err, zk.ErrGuard) {
		return nil
	}
	return err
}
