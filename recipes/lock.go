// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"cmp"
	"context"
	"errors"
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
// Held.Retain. A holder that is paused past its lease goes on until it looks: effects inside the tree belong into a
// transaction with Held.Guard, effects outside of it carry Held.Token.
type Lock struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Data    []byte // shown by Contenders; default: the member's id and the session's
	Layout  Layout

	// Grace delays the grant to a successor of a holder that vanished without a release, so that effects which the
	// dead holder had under way can arrive first: lock-delay, elsewhere. 0 means none. It costs one write more for each
	// grant, and PATH-grace, a persistent znode that says so as long as the lock is held. It begins when somebody sees
	// the vacancy, however late that is, and lasts for what the dead holder asked for.
	Grace time.Duration

	once  sync.Once
	mixed mixture
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
	return zk.OpCreate(join(l.Path, lockKind.prefix(l.Layout)), signed(s, l.Data), zk.Ephemeral|zk.Sequential|zk.Parents)
}

// line has everybody who contends.
func (l *Lock) line() line {
	l.once.Do(func() { l.mixed.what, l.mixed.path, l.mixed.layout = "Lock", l.Path, cmp.Or(l.Layout, Curator) })
	return line{blocks: func(name string) bool { return l.mixed.of(name, lockKind) }, told: l.mixed.tell}
}

// turn is what a contender of this lock does until the lock is its own: it waits in line, and for the grace of a crashed
// holder. parting is then what a release does besides.
func (l *Lock) turn(ctx context.Context, c *contender, parting *[]zk.Op) func(watching context.Context) (bool, wait, error) {
	var g grace
	return func(watching context.Context) (done bool, w wait, err error) {
		blocked, w, err := l.line().ahead(watching, c)
		if blocked || err != nil {
			return false, w, err
		}
		for {
			if g, err = l.graceOf(watching, c.s, g); err != nil {
				return false, wait{}, err
			}
			if left := g.left(c.s); left > 0 {
				return false, wait{left: left}, nil
			}
			*parting = l.clearing() // even if it is not known whether there is something to clear
			err = l.record(ctx, c, g)
			if !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, zk.ErrNodeExists) { // an operator was faster
				return err == nil, wait{}, err
			}
		}
	}
}

// hold waits for the turn of a contender and returns its right.
func (l *Lock) hold(ctx context.Context, c *contender) (*Held, error) {
	var parting []zk.Op
	err := c.mind(ctx, l.turn(ctx, c, &parting))
	if err == nil {
		var r *right
		if r, err = c.take(ctx); err == nil {
			r.onRelease(parting)
			return &Held{right: r}, nil
		}
	}
	c.leave(parting...)
	return nil, err
}

// TryAcquire is Acquire without waiting for a holder. The error is ErrNotAcquired if there is one, or if the grace of a
// crashed one is not over; no znode of this call is left then, now or later (LOCK-S3).
func (l *Lock) TryAcquire(ctx context.Context) (*Held, error) {
	s, err := session(ctx, l.Session, "try lock", l.Path)
	if err != nil {
		return nil, err
	}
	c, err := l.line().try(ctx, s, l.Path, l.contender(s))
	if err != nil {
		return nil, err
	}
	g, err := l.graceOf(ctx, s, grace{})
	if err == nil && g.left(s) <= 0 {
		return l.hold(ctx, c)
	}
	return nil, c.give(ctx, err, g.begin(l.Path)...)
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

// Contenders lists who is in line, the holder first. Empty means that the lock is free, but for a [Lock.Grace] that is not
// over. It is for operators and for [Revoke] and [Lock.Break], not for deciding who may do something: it is what this member
// knows, who comes or goes meanwhile may or may not show, and all may have changed when it returns. It costs no message, no
// write and no watch; time and memory grow with the line, so that programs do not call it in a loop. Errors: those of every
// read.
func (l *Lock) Contenders(ctx context.Context) ([]Contender, error) {
	s, err := session(ctx, l.Session, "contenders", l.Path)
	if err != nil {
		return nil, err
	}
	return contenders(ctx, s, l.Path, lockKind.contends)
}

// Break deletes a contender's znode, that incarnation only: an operator's override. If it is the holder's, its successor
// is granted the lock; until the holder's member has applied the deletion only tokens and guards keep the two apart.
// It costs one write, and returns nil if the znode is gone already. Of c only Path and Token count. Errors: those of every
// write. To ask first, see [Revoke].
func (l *Lock) Break(ctx context.Context, c Contender) error {
	s, err := session(ctx, l.Session, "break", c.Path)
	if err != nil {
		return err
	}
	return (&contender{s: s, path: c.Path, token: c.Token}).remove(ctx)
}

// Revoke asks a contender, politely, to give back what it holds: its [Held.Revoked] is closed as soon as its member has
// applied that (REV-L1). It ends nothing (REV-S1): a holder that does not look at Revoked keeps what it has. Who still waits
// hears of it when it is granted. Contenders are those of [Lock.Contenders], [RWLock.Contenders], [Semaphore.Holders] and
// [Election.Candidates]; of c only Path and Token count, so that nobody is asked who came later under the same name.
//
// Layout: the data of the contender's znode becomes "__REVOKE__", the mark of Curator's Revoker. A holder of ours understands
// "unlock" as well, the mark of ZooKeeper's recipes page. The mark takes the place of what was there: Contender.Data is lost,
// and observers of an Election are shown the mark as the leader's value. What overwrites it takes it away for whoever has not
// seen it yet: [Leadership.Proclaim], and [RWLock.Downgrade] by its new znode.
//
// Cost: one write; a holder that has called Revoked has one local watch and one goroutine for each znode of its right.
//
// It cannot be taken back, and nothing tells whether the holder heeds it: [Lock.Break] is by force. It is not for a
// [TimedLease], whose znode's data is the lease itself: the holder would lose it (ErrLost, ErrMismatch) instead of being asked.
//
// It returns nil if that znode is gone already. Errors: those of every write; if zk.MaybeApplied says so the holder may have
// been asked, and to ask again does no harm.
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
