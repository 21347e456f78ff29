// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Queue passes items from producers to consumers, each item to one of them. Items wait in the order of their priority,
// then of their number; those with a delay from when they are due, and among themselves in that order.
//
// Receive is crash-safe: it claims an item, which others then pass over, and the item is gone with Message.Ack; a
// consumer that dies or loses its session loses its claims, and the items are received again. Take removes an item
// before it returns it: at most once.
//
// Layout Kazoo, the default, is that of kazoo's LockingQueue: PATH/entries/entry-PPP-SEQ, persistent, and
// PATH/taken/ the same name, ephemeral, for each claim. Programs that use that recipe can take part; they know nothing
// of delays and ids, and count on the two directories once they have seen them. Ours are containers, which go when they
// have been empty for a while: who shares a queue with kazoo creates both before, persistent, as kazoo does.
//
// Layout Curator is that of Curator's DistributedQueue, DistributedPriorityQueue and DistributedIdQueue, CuratorDelay
// that of its DistributedDelayQueue: PATH/queue-SEQ and the like, persistent, each with one or more items in Curator's
// frame, and PATH-locks/ the same name, ephemeral, for each claim. Curator's consumers have to be given that lockPath;
// those without one take what is claimed. They look for items when entries come and go, not when a claim goes. Items
// without a priority go before those with one, and what ids and priorities there are is up to Curator: priorities of
// its own may be negative, and in an id / and | become _. What one layout has put, a Queue of the other does not see.
//
// Cost: one write to put, two to receive and acknowledge, one to take; no list is read, however long the queue is. In
// the layouts of Curator the first claim costs two more: it is refused, and makes the directory for it.
// Share one Queue among the consumers of a process: while they are idle, one of them watches for all, so that an item
// put wakes one goroutine on each member.
type Queue[T any] struct {
	noCopy noCopy

	Session  zk.SessionSource
	Path     string
	Codec    Codec[T] // default JSON
	MaxItems int      // bounds the entries, exactly, by a guard in each put; claimed ones count; 0: no bound. All producers give the same
	Layout   Layout   // default Kazoo

	idle  idle   // the consumers that wait
	room  baton  // of the producers that find the queue full
	shard *shard // what makes it one of several; nil for most

	mu    sync.Mutex // guards the fields below
	under map[string]bool
	bad   map[string]zk.Zxid // entries that could not be decoded, and as of when
}

// NewQueue returns a queue at path.
func NewQueue[T any](s zk.SessionSource, path string) *Queue[T] {
	return &Queue[T]{Session: s, Path: path}
}

// shard is what a queue that is one of several does not have for itself.
type shard struct {
	locks string // the directory of its claims
}

func (q *Queue[T]) codec() Codec[T] {
	if q.Codec == nil {
		return JSON[T]{}
	}
	return q.Codec
}

// names is nil for a layout that queues do not have.
func (q *Queue[T]) names() naming {
	switch q.Layout {
	case 0, Kazoo:
		return kazooNames{}
	case Curator, CuratorDelay:
		return curatorNames{delays: q.Layout == CuratorDelay}
	}
	return nil
}

// session is the first step of every call.
func (q *Queue[T]) session(ctx context.Context, op string) (*zk.Session, error) {
	if q.names() == nil {
		return nil, badArgument(op, q.Path, fmt.Sprintf("a queue has no layout %v", q.Layout))
	}
	return session(ctx, q.Session, op, q.Path)
}

func (q *Queue[T]) entries() string {
	entries, _ := q.names().dirs(q.Path)
	return entries
}

func (q *Queue[T]) claims() string {
	if q.shard != nil {
		return q.shard.locks
	}
	_, claims := q.names().dirs(q.Path)
	return claims
}

func (q *Queue[T]) entryPath(e entry) string  { return join(q.entries(), e.name) }
func (q *Queue[T]) claimPath(e entry) string  { return join(q.claims(), e.name) }
func (q *Queue[T]) shelf(s *zk.Session) shelf { return shelf{s, q.entries(), q.names()} }

// furnish creates a directory that is to stay.
func furnish(ctx context.Context, s *zk.Session, dir string) error {
	_, err := s.Create(ctx, dir, nil, zk.Persistent|zk.Parents)
	if errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return err
}

// Put puts an item at the end of the queue, in layout Kazoo with priority 100. If the queue is full it waits for room
// until ctx ends. Errors: the codec's, ctx's, and those of every write; zk.MaybeApplied tells whether the item may be in
// the queue.
func (q *Queue[T]) Put(ctx context.Context, item T) error {
	return q.put(ctx, place{prio: noPriority}, item)
}

// PutPriority is Put with a priority from 0 to 999; lower ones go first. Error: zk.ErrBadArguments in layout
// CuratorDelay, which has no priorities.
func (q *Queue[T]) PutPriority(ctx context.Context, item T, prio int) error {
	if prio < 0 || prio > maxPriority {
		return badArgument("put", q.Path, fmt.Sprintf("priority %d is not between 0 and %d", prio, maxPriority))
	}
	return q.put(ctx, place{prio: prio}, item)
}

// PutAt is Put for an item that nobody receives before a moment of the ensemble's time (zk.Session.Now). Error:
// zk.ErrBadArguments in layout Curator, which has no delays.
func (q *Queue[T]) PutAt(ctx context.Context, item T, notBefore time.Time) error {
	if notBefore.IsZero() {
		notBefore = time.UnixMilli(0)
	}
	return q.put(ctx, place{prio: noPriority, due: notBefore}, item)
}

// PutAfter is PutAt for d from now; what is due at once, by a d of 0 or less, goes among those with a delay all the same. No
// clock but the ensemble's is looked at. Errors: those of PutAt.
func (q *Queue[T]) PutAfter(ctx context.Context, item T, d time.Duration) error {
	s, err := q.session(ctx, "put")
	if err != nil {
		return err
	}
	return q.PutAt(ctx, item, s.Now().Add(d))
}

// PutID is Put for an item that Remove finds by its id, of 1 to 512 bytes. Ids need not be unique (Q-S6). Error:
// zk.ErrBadArguments in layout CuratorDelay, which has no ids.
func (q *Queue[T]) PutID(ctx context.Context, item T, id string) error {
	if id == "" || len(id) > maxIDBytes {
		return badArgument("put", q.Path, fmt.Sprintf("an id has 1 to %d bytes", maxIDBytes))
	}
	p := place{prio: noPriority}
	if n := q.names(); n != nil {
		p.id = n.id(id)
	}
	return q.put(ctx, p, item)
}

// PutAll puts items in one transaction, next to each other: all or none. There may be as many as a transaction has room for
// (zk.Config.MaxTxnOps). Errors: those of Put; zk.ErrBadArguments for more items than MaxItems. Without items it does nothing.
func (q *Queue[T]) PutAll(ctx context.Context, items ...T) error {
	return q.put(ctx, place{prio: noPriority}, items...)
}

// PutOps returns the steps of PutAll, for a transaction of the caller's own: first, where MaxItems is set, the guard
// that there is room, then one create for each item. In the layouts of Curator, PATH is created as a container if it is
// not there; Curator's programs want one that stays.
func (q *Queue[T]) PutOps(items ...T) ([]zk.Op, error) {
	names := q.names()
	if names == nil {
		return nil, badArgument("put", q.Path, fmt.Sprintf("a queue has no layout %v", q.Layout))
	}
	prefix, err := names.prefix(place{prio: noPriority}, time.Time{})
	if err != nil {
		return nil, badArgument("put", q.Path, err.Error())
	}
	return q.steps(prefix, zk.Parents, items)
}

func (q *Queue[T]) steps(prefix string, missing zk.CreateMode, items []T) ([]zk.Op, error) {
	var ops []zk.Op
	if q.MaxItems > 0 {
		ops = append(ops, zk.OpCheckChildren(q.entries(), zk.LessEq, q.MaxItems-len(items)))
	}
	for _, item := range items {
		data, err := q.codec().Encode(item)
		if err != nil {
			return nil, fmt.Errorf("recipes: encoding an item for %s: %w", q.Path, err)
		}
		ops = append(ops, zk.OpCreate(join(q.entries(), prefix), q.names().pack(data), zk.Sequential|missing))
	}
	return ops, nil
}

func (q *Queue[T]) put(ctx context.Context, p place, items ...T) error {
	s, err := q.session(ctx, "put")
	if err != nil || len(items) == 0 {
		return err
	}
	if q.MaxItems > 0 && len(items) > q.MaxItems {
		return badArgument("put", q.Path, fmt.Sprintf("%d items never fit into a queue of %d", len(items), q.MaxItems))
	}
	names := q.names()
	prefix, err := names.prefix(p, s.Now())
	if err != nil {
		return badArgument("put", q.Path, err.Error())
	}
	ops, err := q.steps(prefix, names.missing(), items)
	if err != nil {
		return err
	}
	for {
		_, err := s.Txn(ctx, ops...)
		switch {
		case errors.Is(err, zk.ErrGuard):
			err = q.waitRoom(ctx, s, q.MaxItems-len(items))
		case errors.Is(err, zk.ErrNoNode) && q.shard == nil:
			err = furnish(ctx, s, q.entries())
		default:
			return err
		}
		if err != nil {
			return err
		}
	}
}

// waitRoom returns once there are at most so many entries.
func (q *Queue[T]) waitRoom(ctx context.Context, s *zk.Session, most int) error {
	if err := q.room.take(ctx); err != nil {
		return err
	}
	defer q.room.pass()
	w, err := s.Watch(ctx, q.entries(), zk.WatchChildSet)
	if err != nil {
		return explain(ctx, err)
	}
	defer w.Close()
	for {
		st, _, err := s.Exists(ctx, q.entries())
		if err != nil || st.NumChildren <= most {
			return explain(ctx, err)
		}
		if ev, ok := <-w.Events(); !ok || ev.Type == zk.EventSession {
			return explain(ctx, w.Err())
		}
	}
}

// Len returns how many entries there are, those that are claimed or not due yet included, as this member knows it: one local
// read, however many they are. Errors: those of every read.
func (q *Queue[T]) Len(ctx context.Context) (int, error) {
	s, err := q.session(ctx, "len")
	if err != nil {
		return 0, err
	}
	st, _, err := s.Exists(ctx, q.entries())
	return st.NumChildren, err
}

// Peek returns the item that would be received next, as far as this member knows, without receiving it; false where there is
// none that is free and due. By the time it returns another consumer may have it. It costs local reads alone. Errors:
// *DecodeError, as for Receive, and those of every read.
func (q *Queue[T]) Peek(ctx context.Context) (item T, ok bool, err error) {
	s, err := q.session(ctx, "peek")
	if err != nil {
		return item, false, err
	}
	for {
		e, _, err := q.pick(ctx, s, false)
		if err != nil || e.name == "" {
			return item, false, err
		}
		item, _, err = q.read(ctx, s, e)
		if errors.Is(err, zk.ErrNoNode) {
			continue
		}
		return item, err == nil, err
	}
}

// Remove deletes the entries with an id that nobody has claimed, and returns how many that were. Those that were given
// back with a delay are looked for one by one among all that are not due. It is one write for each entry, not one for all:
// if it fails, removed were removed, and if zk.MaybeApplied says so perhaps one more. It goes by what this member knows.
// Errors: those of every write.
func (q *Queue[T]) Remove(ctx context.Context, id string) (removed int, err error) {
	s, err := q.session(ctx, "remove")
	if err != nil {
		return 0, err
	}
	h := q.shelf(s)
	found, err := h.names.withID(ctx, h, h.names.id(id))
	for _, e := range found {
		if err != nil {
			break
		}
		_, err = s.Txn(ctx, zk.OpCheckAbsent(q.claimPath(e)), zk.OpDelete(q.entryPath(e), zk.AnyVersion))
		switch {
		case err == nil:
			removed++
		case errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrNoNode):
			err = nil
		}
	}
	if zk.MaybeApplied(err) {
		return removed, err
	}
	return removed, explain(ctx, err)
}
