// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// Semaphore lets so many be in at a time. The bound is exact: it is checked when a lease is created, by the ensemble, so
// that at no moment more leases stand than were allowed (SEM-S1). Who has to wait stands in one line (SEM-L1): nobody
// overtakes, not even one who wants less.
//
// Layout: PATH/leases/_c_UUID-lease-SEQ, ephemeral, one for each unit that is held, and PATH/locks/_c_UUID-lock-SEQ, ephemeral,
// for each that waits, as Curator's InterProcessSemaphoreV2 has them; it may be used on the same path. PATH has the limit as
// decimal text, written by the first who comes, as kazoo's Semaphore writes it; empty, as Curator leaves it, it is filled in.
// kazoo keeps its leases elsewhere: the two must not share a path. Every child of PATH/leases counts as a lease, as Curator
// counts. All three are containers and reaped after use; with SharedLimit PATH is persistent, because the limit has to
// outlive an hour without users.
//
// Cost: one write to acquire where there is room and nobody waits, two where one has to wait, one to release; no read that
// leaves the member. Who waits has two local watches, the first in line three. A release wakes the first in line and nobody
// else; when that goes in the next one becomes the first, and wakes for it. A busy TryAcquire costs one round of messages
// and no write.
type Semaphore struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string

	// Limit is how many may be in, at least 1. All users must agree on it: otherwise calls fail with ErrMismatch, until
	// nobody has been in for a while and the limit is forgotten with the directory. With SharedLimit it is what is stored
	// where nothing is yet; 0 means that SetLimit has to be called first.
	Limit int

	// SharedLimit takes the limit from what is stored, now and while waiting. It must be the same for all users.
	SharedLimit bool

	Data []byte // of leases, shown by Holders; default: the member's id and the session's
}

var leaseKind = kind{curator: "-lease-"}

// NewSemaphore returns a semaphore on path with a limit that all its users agree on.
func NewSemaphore(s zk.SessionSource, path string, limit int) *Semaphore {
	return &Semaphore{Session: s, Path: path, Limit: limit}
}

func (m *Semaphore) locks() string  { return join(m.Path, "locks") }
func (m *Semaphore) leases() string { return join(m.Path, "leases") }

// line is that of everybody who waits.
func (m *Semaphore) line() line { return line{blocks: lockKind.contends} }

// Acquire waits for one unit. Errors are those of Lock.Acquire; ErrMismatch if others have another limit, with a
// *DecodeError if what is stored is none. Whatever the error, nothing is left: neither a place in line nor a lease.
func (m *Semaphore) Acquire(ctx context.Context) (*Held, error) { return m.AcquireN(ctx, 1) }

// AcquireN waits for n units and takes them in one step: it never holds a part of them (SEM-S2). They are released
// together. n must be at least 1, and at most Limit unless that is shared: with a shared limit it waits until the limit is
// high enough, and with it everybody who comes later.
func (m *Semaphore) AcquireN(ctx context.Context, n int) (*Held, error) {
	s, err := m.check(ctx, "acquire", n)
	if err != nil {
		return nil, err
	}
	for {
		t, err := m.terms(ctx, s)
		if err != nil {
			return nil, explain(ctx, err)
		}
		c, err := m.enterFree(ctx, s, t, n)
		if err == nil && c != nil {
			r, err := c.take(ctx)
			return c.held(r, err)
		}
		if err != nil && !conflicting(err) {
			return nil, err
		}
		c, err = enter(ctx, s, slices.Concat(t.steps, []zk.Op{m.waiter(s)})...)
		if conflicting(err) {
			continue // the limit was changed meanwhile
		}
		if err != nil {
			return nil, err
		}
		return m.wait(ctx, c, n)
	}
}

// TryAcquire is Acquire without waiting. The error is ErrNotAcquired if there is no room, or if somebody waits; nothing of
// this call is left then, now or later.
func (m *Semaphore) TryAcquire(ctx context.Context) (*Held, error) {
	s, err := m.check(ctx, "try acquire", 1)
	if err != nil {
		return nil, err
	}
	for current := false; ; {
		t, err := m.terms(ctx, s)
		if err != nil {
			return nil, explain(ctx, err)
		}
		if t.waiting > 0 {
			return m.tryInLine(ctx, s)
		}
		c, err := m.enterFree(ctx, s, t, 1)
		switch {
		case err == nil && c != nil:
			r, err := c.take(ctx)
			return c.held(r, err)
		case conflicting(err):
			current = true // the refusal was applied here: what is seen now is as new
		case err != nil:
			return nil, err
		case current:
			return nil, ErrNotAcquired
		default:
			if err := s.Sync(ctx); err != nil { // what this member knows may be old
				return nil, explain(ctx, err)
			}
			current = true
		}
	}
}

// tryInLine tries where there is somebody, or something, in PATH/locks.
func (m *Semaphore) tryInLine(ctx context.Context, s *zk.Session) (*Held, error) {
	c, err := m.line().try(ctx, s, m.locks(), m.waiter(s))
	if err != nil {
		return nil, err
	}
	t, err := m.terms(ctx, s)
	if err == nil {
		lease, err := m.enterFirst(ctx, c, t, 1)
		if err == nil && lease != nil {
			r, err := lease.take(ctx)
			return lease.held(r, err)
		}
		if conflicting(err) {
			err = nil
		}
		return nil, c.give(ctx, err)
	}
	return nil, c.give(ctx, err)
}

// check is the first step of every call that takes units.
func (m *Semaphore) check(ctx context.Context, op string, n int) (*zk.Session, error) {
	s, err := session(ctx, m.Session, op, m.Path)
	switch {
	case err != nil:
		return nil, err
	case n < 1:
		return nil, badArgument(op, m.Path, "at least one unit has to be taken")
	case m.Limit < 0 || m.Limit == 0 && !m.SharedLimit:
		return nil, badArgument(op, m.Path, "a semaphore needs a limit of at least 1")
	case n > m.Limit && !m.SharedLimit:
		return nil, badArgument(op, m.Path, fmt.Sprintf("%d units of %d", n, m.Limit))
	}
	return s, nil
}

// waiter is the step that joins the line.
func (m *Semaphore) waiter(s *zk.Session) zk.Op {
	return zk.OpCreate(join(m.locks(), lockKind.prefix(Curator)), signed(s, m.Data), zk.Ephemeral|zk.Sequential|zk.Parents)
}

// terms is what a member knows of a semaphore.
type terms struct {
	limit   int
	steps   []zk.Op // make a transaction fail if the limit is another; they store it where none is
	leases  int
	waiting int // children of PATH/locks
}

// terms looks at the semaphore.
func (m *Semaphore) terms(ctx context.Context, s *zk.Session) (t terms, err error) {
	data, st, err := s.GetString(ctx, m.Path)
	absent := errors.Is(err, zk.ErrNoNode)
	if err != nil && !absent {
		return t, err
	}
	switch {
	case absent || data == "":
		if t.limit = m.Limit; t.limit == 0 {
			return t, fmt.Errorf("%w: no limit is stored at %s, and none is given", ErrMismatch, m.Path)
		}
		text := strconv.AppendInt(nil, int64(t.limit), 10)
		if absent {
			t.steps = []zk.Op{zk.OpCreate(m.Path, text, m.mode())}
		} else {
			t.steps = []zk.Op{zk.OpCheckCreated(m.Path, zk.Token(st.Czxid)), zk.OpSet(m.Path, text, st.Version)}
		}
	default:
		if t.limit, err = m.parse(data, st); err != nil {
			return t, err
		}
		t.steps = []zk.Op{zk.OpCheckCreated(m.Path, zk.Token(st.Czxid)), zk.OpCheck(m.Path, st.Version)}
	}
	room, _, err := s.Exists(ctx, m.leases())
	if err != nil {
		return t, err
	}
	line, _, err := s.Exists(ctx, m.locks())
	t.leases, t.waiting = room.NumChildren, line.NumChildren
	return t, err
}

func (m *Semaphore) mode() zk.CreateMode {
	if m.SharedLimit {
		return zk.Persistent | zk.Parents
	}
	return zk.Container | zk.Parents
}

// parse reads a limit that is stored.
func (m *Semaphore) parse(data string, st zk.Stat) (limit int, err error) {
	limit, err = strconv.Atoi(strings.TrimSpace(data))
	if err == nil && (limit < 0 || limit > math.MaxInt32) {
		err = strconv.ErrRange
	}
	if err != nil {
		return 0, &DecodeError{Path: m.Path, Zxid: st.Mzxid, Err: fmt.Errorf("%w: %w", ErrMismatch, err)}
	}
	if !m.SharedLimit && limit != m.Limit {
		return 0, fmt.Errorf("%w: the limit stored at %s is %d, not %d", ErrMismatch, m.Path, limit, m.Limit)
	}
	return limit, nil
}

// enterFree creates n leases where there is room and nobody waits. It is nil without an error where there is none.
func (m *Semaphore) enterFree(ctx context.Context, s *zk.Session, t terms, n int) (*contender, error) {
	if t.waiting > 0 || t.leases > t.limit-n {
		return nil, nil
	}
	return m.enter(ctx, s, n, slices.Concat(t.steps, []zk.Op{zk.OpCheckChildren(m.locks(), zk.Equal, 0), m.room(t, n)}))
}

// enterFirst replaces c, the first in line, by n leases, where there is room. It is nil without an error where there is none.
func (m *Semaphore) enterFirst(ctx context.Context, c *contender, t terms, n int) (*contender, error) {
	if t.leases > t.limit-n {
		return nil, nil
	}
	return m.enter(ctx, c.s, n, slices.Concat(t.steps, []zk.Op{m.room(t, n)}, c.leaving()))
}

// room makes a transaction fail unless there is room for n. That the limit is the one of t is checked before.
func (m *Semaphore) room(t terms, n int) zk.Op {
	return zk.OpCheckChildren(m.leases(), zk.LessEq, t.limit-n)
}

func (m *Semaphore) enter(ctx context.Context, s *zk.Session, n int, steps []zk.Op) (*contender, error) {
	for range n {
		steps = append(steps, zk.OpCreate(join(m.leases(), leaseKind.prefix(Curator)), signed(s, m.Data), zk.Ephemeral|zk.Sequential|zk.Parents))
	}
	return enterAll(ctx, s, n, steps...)
}

// wait stands in line and goes in when it is the first and there is room. The first one watches what a transaction of its
// own can fail by: the leases, the limit, and its own znode.
func (m *Semaphore) wait(ctx context.Context, c *contender, n int) (*Held, error) {
	var lease *contender
	err := c.mind(ctx, func(watching context.Context) (bool, wait, error) {
		blocked, w, err := m.line().ahead(watching, c)
		if blocked || err != nil {
			return false, w, err
		}
		_, _, changed, err := c.s.ExistsW(watching, m.Path)
		if err != nil {
			return false, wait{}, err
		}
		leases, err := c.s.Watch(watching, m.leases(), zk.WatchChildSet)
		if err != nil {
			return false, wait{}, err
		}
		t, err := m.terms(ctx, c.s)
		if err != nil {
			return false, wait{}, err
		}
		lease, err = m.enterFirst(ctx, c, t, n)
		if conflicting(err) {
			err = nil // what has changed since is watched
		}
		return lease != nil, wait{changed: [2]<-chan zk.Event{changed, leases.Events()}}, err
	})
	if err != nil {
		c.leave()
		return nil, err
	}
	r, err := lease.take(ctx)
	return lease.held(r, err)
}

// SetLimit stores another limit, 0 or more. Raising it lets in who waits; lowering it takes nothing from anybody, and keeps
// others out until there is room again (SEM-S3). It is for a SharedLimit: otherwise the error is zk.ErrBadArguments. It
// costs one write. Other errors are those of every write.
func (m *Semaphore) SetLimit(ctx context.Context, n int) error {
	s, err := session(ctx, m.Session, "set limit", m.Path)
	switch {
	case err != nil:
		return err
	case !m.SharedLimit:
		return badArgument("set limit", m.Path, "the limit is not a shared one")
	case n < 0 || n > math.MaxInt32:
		return badArgument("set limit", m.Path, fmt.Sprintf("a limit of %d", n))
	}
	text := strconv.AppendInt(nil, int64(n), 10)
	for {
		_, err := s.Set(ctx, m.Path, text, zk.AnyVersion)
		if !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		_, err = s.Create(ctx, m.Path, text, m.mode())
		if !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
}

// Holders lists the leases that are held, one for each unit, the oldest first. Those of Curator's programs are listed; foreign
// children of PATH/leases that count as leases are not. It is what this member knows, and who comes or goes meanwhile may or
// may not show. It costs no message; time and memory grow with the number of units. Errors: those of every read.
func (m *Semaphore) Holders(ctx context.Context) ([]Contender, error) {
	s, err := session(ctx, m.Session, "holders", m.Path)
	if err != nil {
		return nil, err
	}
	list, err := contenders(ctx, s, m.leases(), leaseKind.contends)
	for i := range list {
		list[i].Holding = true
	}
	return list, err
}
