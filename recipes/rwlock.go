// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/seed-541fafe0/zk"
)

// RWLock is a lock that is held by one writer or by any number of readers. All stand in one line: a reader waits for the
// writers that came before it, a writer for everybody, so that neither can starve the other (RW-L1).
//
// Layout: PATH/_c_UUID-__READ__SEQ and PATH/_c_UUID-__WRIT__SEQ, ephemeral, as Curator's InterProcessReadWriteLock has
// them; with Layout: Kazoo the names of kazoo's ReadLock and WriteLock. Both are understood whatever is written here, but
// Curator and kazoo are not safe with each other on one path. Where they take part: the downgrade of Curator 5.4.0 lets in
// writers that wait (CURATOR-621), and a reader of kazoo's waits for writers that came after it, which wait for it (kazoo
// #649). PATH is a container, created with the first contender and reaped after the last.
//
// Cost: one write to acquire, to release and to downgrade, no read that leaves the member. Who waits has two local watches.
// A writer's release wakes the readers up to the next writer, who may all go in; every other release wakes one at most.
// A reader passes over the readers before it one by one, in memory.
//
// There is no upgrade from a read lock to a write lock: two readers who wanted one would wait for each other for ever.
// Release the read lock and acquire the write lock, and look again at what was read: another writer may have come between.
// As with Lock, goroutines have no identity: who calls Lock while holding a read lock waits for itself. A Lock and an RWLock
// on one path do not see each other.
type RWLock struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Data    []byte // shown by Contenders; default: the member's id and the session's
	Layout  Layout // Curator or Kazoo

	once  sync.Once
	mixed mixture
}

// The kinds of contenders of an RWLock.
var (
	readKind  = kind{curator: "-__READ__", kazoo: "__rlock__"}
	writeKind = kind{curator: "-__WRIT__", kazoo: "__lock__"}
)

// NewRWLock returns a read-write lock on path.
func NewRWLock(s zk.SessionSource, path string) *RWLock { return &RWLock{Session: s, Path: path} }

// RLock waits for a read lock: until no writer that came earlier is left. Errors are those of Lock.Acquire; whatever the
// error, nothing is left in line.
func (l *RWLock) RLock(ctx context.Context) (*Held, error) {
	return l.acquire(ctx, "read lock", readKind)
}

// Lock waits for the write lock: until nobody who came earlier is left. Errors are those of Lock.Acquire; whatever the
// error, nothing is left in line.
func (l *RWLock) Lock(ctx context.Context) (*Held, error) {
	return l.acquire(ctx, "write lock", writeKind)
}

// TryRLock is RLock without waiting. The error is ErrNotAcquired if there is a writer, be it one that waits itself; no
// znode of this call is left then, now or later.
func (l *RWLock) TryRLock(ctx context.Context) (*Held, error) {
	return l.try(ctx, "try read lock", readKind)
}

// TryLock is Lock without waiting. The error is ErrNotAcquired if there is anybody; no znode of this call is left then,
// now or later.
func (l *RWLock) TryLock(ctx context.Context) (*Held, error) {
	return l.try(ctx, "try write lock", writeKind)
}

// line has those who go before a contender of kind k.
func (l *RWLock) line(k kind) line {
	l.once.Do(func() { l.mixed.what, l.mixed.path, l.mixed.layout = "RWLock", l.Path, cmp.Or(l.Layout, Curator) })
	kinds := []kind{writeKind}
	if k == writeKind {
		kinds = append(kinds, readKind)
	}
	return line{blocks: func(name string) bool { return l.mixed.of(name, kinds...) }, told: l.mixed.tell}
}

func (l *RWLock) contender(s *zk.Session, k kind) zk.Op {
	return zk.OpCreate(join(l.Path, k.prefix(l.Layout)), signed(s, l.Data), zk.Ephemeral|zk.Sequential|zk.Parents)
}

func (l *RWLock) acquire(ctx context.Context, op string, k kind) (*Held, error) {
	s, err := session(ctx, l.Session, op, l.Path)
	if err != nil {
		return nil, err
	}
	c, err := enter(ctx, s, l.contender(s, k))
	if err != nil {
		return nil, err
	}
	r, err := c.await(ctx, l.line(k))
	return c.held(r, err)
}

func (l *RWLock) try(ctx context.Context, op string, k kind) (*Held, error) {
	s, err := session(ctx, l.Session, op, l.Path)
	if err != nil {
		return nil, err
	}
	c, err := l.line(k).try(ctx, s, l.Path, l.contender(s, k))
	if err != nil {
		return nil, err
	}
	r, err := c.take(ctx)
	return c.held(r, err)
}

// Downgrade turns a write lock into a read lock, in one step: no writer that waits comes between (RW-S2). Readers up to
// the next writer join in. The read lock has the write lock's token, because a new one would be higher than those of
// writers who came before (HELD-S2); its guard is its own.
//
// write ends as if it was released, here before anybody is let in (HELD-S5). If the error is zk.ErrBadArguments nothing
// has changed: write is not a write lock of this path, or other handles on it were made by Retain. With every other error
// nothing is held any more: ErrLost and ErrReleased if write had ended before, ErrBroken if somebody deleted the znode,
// ctx's, and those of every write.
func (l *RWLock) Downgrade(ctx context.Context, write *Held) (*Held, error) {
	switch {
	case ctx == nil:
		return nil, badArgument("downgrade", l.Path, "nil context")
	case write == nil:
		return nil, badArgument("downgrade", l.Path, "nil write lock")
	case write.Path() != join(l.Path, base(write.Path())) || !writeKind.contends(base(write.Path())):
		return nil, badArgument("downgrade", write.Path(), "it is no write lock of "+l.Path+"; from a read lock there is no upgrade either: release it and call Lock")
	}
	if err := write.Err(); err != nil {
		return nil, err
	}
	w := write.right
	number := strings.TrimPrefix(w.path, strings.TrimRight(w.path, "0123456789"))
	steps := append(w.leaving(), zk.OpCreate(join(l.Path, readKind.prefix(l.Layout)+number), signed(w.s, l.Data), zk.Ephemeral))
	var read *contender
	var failure error // both are set once w.gone is closed
	alone := write.departBy(func() error {
		life, cancel := context.WithCancel(context.Background()) // as in quit
		defer cancel()
		if read, failure = enter(life, w.s, steps...); failure != nil {
			return w.contender.quit()
		}
		return nil
	})
	if !alone {
		if err := write.Err(); err != nil { // released meanwhile
			return nil, err
		}
		return nil, badArgument("downgrade", write.Path(), "there are other handles on the write lock")
	}
	w.free()
	select {
	case <-w.gone:
	case <-ctx.Done():
		go func() {
			<-w.gone
			if read != nil {
				read.quit()
			}
		}()
		return nil, ended(ctx)
	}
	switch {
	case errors.Is(failure, zk.ErrGuard):
		return nil, ErrBroken
	case failure != nil:
		return nil, failure
	case read == nil: // it was lost before it could be downgraded
		return nil, w.lost()
	}
	r, err := read.take(ctx)
	if err == nil {
		r.fence = w.fence
	}
	return read.held(r, err)
}

// Contenders lists who is in line, in its order: Holding are the writer, or the readers, that nobody has to go before. Empty
// means that the lock is free. It is what this member knows, and who comes or goes meanwhile may or may not show. It costs
// no message; time and memory grow with the line. Errors: those of every read.
func (l *RWLock) Contenders(ctx context.Context) ([]Contender, error) {
	s, err := session(ctx, l.Session, "contenders", l.Path)
	if err != nil {
		return nil, err
	}
	list, err := contenders(ctx, s, l.Path, func(name string) bool { return readKind.contends(name) || writeKind.contends(name) })
	for i := range list {
		if i > 0 && !readKind.contends(base(list[i].Path)) {
			break
		}
		if list[i].Holding = true; writeKind.contends(base(list[i].Path)) {
			break
		}
	}
	return list, err
}
