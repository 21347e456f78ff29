// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"iter"
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
// Layout, kazoo's LockingQueue: PATH/entries/entry-PPP-SEQ, persistent, and PATH/taken/ the same name, ephemeral, for
// each claim. Programs that use that recipe can take part; they know nothing of delays and ids.
//
// Cost: one write to put, two to receive and acknowledge, one to take; no list is read, however long the queue is.
// Share one Queue among the consumers of a process: while they are idle, one of them watches for all, so that an item
// put wakes one goroutine on each member.
type Queue[T any] struct {
	noCopy noCopy

	Session  zk.SessionSource
	Path     string
	Codec    Codec[T] // default JSON
	MaxItems int      // bounds the entries, exactly; claimed ones count; 0: none

	watching baton // of the consumers: who has it watches
	given    bell  // rung for it when an entry was given up without a trace in the tree
	room     baton // of the producers that find the queue full

	mu    sync.Mutex // guards the fields below
	under map[string]bool
	bad   map[string]zk.Zxid // entries that could not be decoded, and as of when
}

// NewQueue returns a queue at path.
func NewQueue[T any](s zk.SessionSource, path string) *Queue[T] {
	return &Queue[T]{Session: s, Path: path}
}

// maxBad bounds how many entries that cannot be decoded a Queue remembers; beyond it they are reported again.
const maxBad = 4096

// baton lets one of many wait for all of them. The zero value is ready for use.
type baton struct {
	once sync.Once
	c    chan struct{}
}

func (b *baton) take(ctx context.Context) error {
	b.once.Do(func() { b.c = make(chan struct{}, 1) })
	select {
	case b.c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

func (b *baton) pass() { <-b.c }

// bell wakes the one who listens, now or when it next does. The zero value is ready for use.
type bell struct {
	once sync.Once
	c    chan struct{}
}

func (b *bell) listen() chan struct{} {
	b.once.Do(func() { b.c = make(chan struct{}, 1) })
	return b.c
}

func (b *bell) ring() {
	select {
	case b.listen() <- struct{}{}:
	default:
	}
}

func (q *Queue[T]) codec() Codec[T] {
	if q.Codec == nil {
		return JSON[T]{}
	}
	return q.Codec
}

func (q *Queue[T]) entries() string           { return join(q.Path, "entries") }
func (q *Queue[T]) entryPath(e entry) string  { return join(q.entries(), e.name) }
func (q *Queue[T]) claims() string            { return join(q.Path, "taken") }
func (q *Queue[T]) claimPath(e entry) string  { return join(q.claims(), e.name) }
func (q *Queue[T]) shelf(s *zk.Session) shelf { return shelf{s, q.entries()} }

// Put puts an item at the end of the queue, with priority 100. If the queue is full it waits for room until ctx ends.
// Errors: the codec's, ctx's, and those of every write; zk.MaybeApplied tells whether the item may be in the queue.
func (q *Queue[T]) Put(ctx context.Context, item T) error {
	return q.put(ctx, run(defaultPriority, ""), item)
}

// PutPriority is Put with a priority from 0 to 999; lower ones go first.
func (q *Queue[T]) PutPriority(ctx context.Context, item T, prio int) error {
	if prio < 0 || prio > maxPriority {
		return badArgument("put", q.Path, fmt.Sprintf("priority %d is not between 0 and %d", prio, maxPriority))
	}
	return q.put(ctx, run(prio, ""), item)
}

// PutAt is Put for an item that nobody receives before a moment of the ensemble's time (zk.Session.Now).
func (q *Queue[T]) PutAt(ctx context.Context, item T, notBefore time.Time) error {
	return q.put(ctx, dueRun(defaultPriority, notBefore), item)
}

// PutAfter is PutAt for d from now. No clock but the ensemble's is looked at.
func (q *Queue[T]) PutAfter(ctx context.Context, item T, d time.Duration) error {
	s, err := session(ctx, q.Session, "put", q.Path)
	if err != nil {
		return err
	}
	return q.PutAt(ctx, item, s.Now().Add(d))
}

// PutID is Put for an item that Remove finds by its id, of 1 to 512 bytes. Ids need not be unique (Q-S6).
func (q *Queue[T]) PutID(ctx context.Context, item T, id string) error {
	if id == "" || len(id) > maxIDBytes {
		return badArgument("put", q.Path, fmt.Sprintf("an id has 1 to %d bytes", maxIDBytes))
	}
	return q.put(ctx, idRun(defaultPriority, id), item)
}

// PutAll puts items in one transaction, next to each other: all or none.
func (q *Queue[T]) PutAll(ctx context.Context, items ...T) error {
	return q.put(ctx, run(defaultPriority, ""), items...)
}

// PutOps returns the steps of PutAll, for a transaction of the caller's own: first, where MaxItems is set, the guard
// that there is room, then one create for each item.
func (q *Queue[T]) PutOps(items ...T) ([]zk.Op, error) {
	return q.steps(run(defaultPriority, ""), items)
}

func (q *Queue[T]) steps(prefix string, items []T) ([]zk.Op, error) {
	var ops []zk.Op
	if q.MaxItems > 0 {
		ops = append(ops, zk.OpCheckChildren(q.entries(), zk.LessEq, q.MaxItems-len(items)))
	}
	for _, item := range items {
		data, err := q.codec().Encode(item)
		if err != nil {
			return nil, fmt.Errorf("recipes: encoding an item for %s: %w", q.Path, err)
		}
		ops = append(ops, zk.OpCreate(join(q.entries(), prefix), data, zk.Sequential|zk.Parents))
	}
	return ops, nil
}

func (q *Queue[T]) put(ctx context.Context, prefix string, items ...T) error {
	s, err := session(ctx, q.Session, "put", q.Path)
	if err != nil || len(items) == 0 {
		return err
	}
	if q.MaxItems > 0 && len(items) > q.MaxItems {
		return badArgument("put", q.Path, fmt.Sprintf("%d items never fit into a queue of %d", len(items), q.MaxItems))
	}
	ops, err := q.steps(prefix, items)
	if err != nil {
		return err
	}
	for {
		_, err := s.Txn(ctx, ops...)
		if !errors.Is(err, zk.ErrGuard) {
			return err
		}
		if err := q.waitRoom(ctx, s, q.MaxItems-len(items)); err != nil {
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

// Len returns how many entries there are, those that are claimed or not due yet included, as this member knows it.
func (q *Queue[T]) Len(ctx context.Context) (int, error) {
	s, err := session(ctx, q.Session, "len", q.Path)
	if err != nil {
		return 0, err
	}
	st, _, err := s.Exists(ctx, q.entries())
	return st.NumChildren, err
}

// Peek returns the item that would be received next, without receiving it; false where there is none.
func (q *Queue[T]) Peek(ctx context.Context) (item T, ok bool, err error) {
	s, err := session(ctx, q.Session, "peek", q.Path)
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

// Remove deletes the entries with an id that nobody has claimed, and returns how many that were.
func (q *Queue[T]) Remove(ctx context.Context, id string) (removed int, err error) {
	s, err := session(ctx, q.Session, "remove", q.Path)
	if err != nil {
		return 0, err
	}
	h := q.shelf(s)
	for after := ""; ; {
		head := entry{}
		if err := h.from(ctx, after, func(e entry) bool { head = e; return false }); err != nil || head.name == "" {
			return removed, err
		}
		var found []entry
		err := h.from(ctx, idRun(head.prio, id), func(e entry) bool {
			if e.prio != head.prio || e.id != escapeID(id) {
				return false
			}
			found = append(found, e)
			return true
		})
		if err != nil {
			return removed, err
		}
		for _, e := range found {
			_, err := s.Txn(ctx, zk.OpCheckAbsent(q.claimPath(e)), zk.OpDelete(q.entryPath(e), zk.AnyVersion))
			switch {
			case err == nil:
				removed++
			case !errors.Is(err, zk.ErrGuard) && !errors.Is(err, zk.ErrNoNode):
				return removed, err
			}
		}
		after = beyond(head.prio)
	}
}

// pick finds the next entry that is free. With mark no other consumer of this Queue gets it before unmark. Otherwise it
// says when to look again, if the time for that is known.
func (q *Queue[T]) pick(ctx context.Context, s *zk.Session, mark bool) (e entry, next time.Time, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var failed error
	e, due, err := q.shelf(s).first(ctx, s.Now(), func(e entry) bool {
		if failed != nil || q.under[e.name] {
			return false
		}
		_, claimed, err := s.Exists(ctx, q.claimPath(e))
		if err != nil {
			failed = err
		}
		return !claimed && err == nil && !q.knownBad(ctx, s, e)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return entry{}, next, err
	}
	if e.name != "" && mark {
		if q.under == nil {
			q.under = map[string]bool{}
		}
		q.under[e.name] = true
	}
	if due > 0 {
		next = time.UnixMilli(due)
	}
	return e, next, nil
}

// unmark lets others have the entry again. With an error it may be there still, and whoever watches has passed over it.
func (q *Queue[T]) unmark(e entry, err error) {
	q.mu.Lock()
	delete(q.under, e.name)
	q.mu.Unlock()
	if err != nil {
		q.given.ring()
	}
}

// knownBad reports whether an entry has been reported as one that cannot be decoded, and is still the same.
func (q *Queue[T]) knownBad(ctx context.Context, s *zk.Session, e entry) bool {
	as, ok := q.bad[e.name]
	if !ok {
		return false
	}
	st, _, _ := s.Exists(ctx, q.entryPath(e))
	if st.Mzxid != as {
		delete(q.bad, e.name)
	}
	return st.Mzxid == as
}

// read decodes an entry. One that cannot be decoded is reported once and then passed over; it stays where it is (Q-S7).
func (q *Queue[T]) read(ctx context.Context, s *zk.Session, e entry) (item T, z zk.Znode, err error) {
	path := q.entryPath(e)
	data, st, err := s.GetString(ctx, path)
	if err != nil {
		return item, z, explain(ctx, err)
	}
	if item, err = q.codec().Decode([]byte(data)); err != nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.bad == nil || len(q.bad) >= maxBad {
			q.bad = map[string]zk.Zxid{}
		}
		q.bad[e.name] = st.Mzxid
		return item, z, &DecodeError{path, st.Mzxid, err}
	}
	return item, zk.Znode{Path: path, Data: data, Stat: st}, nil
}

// next waits for an entry that is free, and marks it. Of all consumers that wait one has the baton and watches; when it
// has found an entry it passes the baton on.
func (q *Queue[T]) next(ctx context.Context, s *zk.Session) (entry, error) {
	e, _, err := q.pick(ctx, s, true)
	if err != nil || e.name != "" {
		return e, explain(ctx, err)
	}
	if err := q.watching.take(ctx); err != nil {
		return entry{}, err
	}
	defer q.watching.pass()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	puts, err := s.Watch(watching, q.entries(), zk.WatchChildSet)
	if err != nil {
		return entry{}, explain(ctx, err)
	}
	releases, err := s.Watch(watching, q.claims(), zk.WatchChildSet)
	if err != nil {
		return entry{}, explain(ctx, err)
	}
	for {
		e, next, err := q.pick(ctx, s, true)
		if err != nil || e.name != "" {
			return e, explain(ctx, err)
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(next.Sub(s.Now()))
		}
		var ev zk.Event
		w := (*zk.Watch)(nil)
		select {
		case ev = <-puts.Events():
			w = puts
		case ev = <-releases.Events():
			w = releases
		case <-q.given.listen():
		case <-due:
		case <-ctx.Done():
			return entry{}, ended(ctx)
		}
		if w != nil && (ev.Type == 0 || ev.Type == zk.EventSession) {
			return entry{}, explain(ctx, w.Err())
		}
	}
}

// Receive waits for an item and claims it. Errors: ctx's; the session's if it ends; *DecodeError for an entry that
// cannot be decoded, which is reported once and passed over from then on; and those of every write. No claim is left
// where there is an error.
func (q *Queue[T]) Receive(ctx context.Context) (*Message[T], error) {
	s, err := session(ctx, q.Session, "receive", q.Path)
	if err != nil {
		return nil, err
	}
	for {
		e, err := q.next(ctx, s)
		if err != nil {
			return nil, err
		}
		m, err := q.claim(ctx, s, e)
		q.unmark(e, err)
		if m != nil || err != nil {
			return m, err
		}
	}
}

// touched is a child that every claim creates and deletes again in its own transaction. It leaves its mark in the
// entry's Cversion: that is how a consumer knows that it is not the first to have an entry.
const touched = "claimed"

// claim tries to get an entry. It returns nothing if another consumer was faster.
func (q *Queue[T]) claim(ctx context.Context, s *zk.Session, e entry) (*Message[T], error) {
	item, z, err := q.read(ctx, s, e)
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data := fmt.Appendf(nil, "%s %v", s.Member().ID(), s.ID())
	mark := join(z.Path, touched)
	c, err := enter(ctx, s, zk.OpCheckCreated(z.Path, zk.Token(z.Stat.Czxid)), zk.OpCreate(mark, nil, zk.Persistent), zk.OpDelete(mark, zk.AnyVersion),
		zk.OpCreate(q.claimPath(e), data, zk.Ephemeral|zk.Parents))
	if errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrNodeExists) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := grant(*c)
	switch {
	case errors.Is(err, zk.ErrSuspended):
		c.leave()
		return nil, explain(ctx, recovered(ctx, s))
	case errors.Is(err, zk.ErrNoNode):
		return nil, nil
	case err != nil:
		return nil, err
	}
	st, _, err := s.Exists(ctx, z.Path)
	if err != nil {
		r.free()
		return nil, explain(ctx, err)
	}
	return &Message[T]{Value: item, Held: &Held{right: r}, queue: q, entry: e, znode: z, again: st.Cversion > 2}, nil
}

// Messages yields what Receive returns, until ctx ends or an error that is not a *DecodeError; that one is yielded and
// the stream goes on.
func (q *Queue[T]) Messages(ctx context.Context) iter.Seq2[*Message[T], error] {
	return func(yield func(*Message[T], error) bool) {
		for {
			m, err := q.Receive(ctx)
			_, bad := errors.AsType[*DecodeError](err)
			if !yield(m, err) || err != nil && !bad {
				return
			}
		}
	}
}

// Take waits for an item, removes it and returns it. Should the error say zk.MaybeApplied, the item may be gone: that
// is what at most once means. Otherwise errors are as for Receive.
func (q *Queue[T]) Take(ctx context.Context) (item T, err error) {
	s, err := session(ctx, q.Session, "take", q.Path)
	if err != nil {
		return item, err
	}
	for {
		e, err := q.next(ctx, s)
		if err != nil {
			return item, err
		}
		item, ok, err := q.take(ctx, s, e)
		if ok || err != nil {
			return item, err
		}
	}
}

// TryTake is Take without waiting for an item: it is false where there is none that is due, anywhere in the ensemble.
func (q *Queue[T]) TryTake(ctx context.Context) (item T, ok bool, err error) {
	s, err := session(ctx, q.Session, "take", q.Path)
	if err != nil {
		return item, false, err
	}
	for current := false; ; {
		e, _, err := q.pick(ctx, s, true)
		if err != nil {
			return item, false, explain(ctx, err)
		}
		if e.name != "" {
			item, ok, err := q.take(ctx, s, e)
			if ok || err != nil {
				return item, ok, err
			}
			continue
		}
		if current {
			return item, false, nil
		}
		if err := s.Sync(ctx); err != nil {
			return item, false, explain(ctx, err)
		}
		current = true
	}
}

// take removes a marked entry that nobody has claimed; false if somebody was faster.
func (q *Queue[T]) take(ctx context.Context, s *zk.Session, e entry) (item T, ok bool, err error) {
	defer func() { q.unmark(e, err) }()
	item, z, err := q.read(ctx, s, e)
	if errors.Is(err, zk.ErrNoNode) {
		return item, false, nil
	}
	if err != nil {
		return item, false, err
	}
	_, err = s.Txn(ctx, zk.OpCheckAbsent(q.claimPath(e)), zk.OpCheckCreated(z.Path, zk.Token(z.Stat.Czxid)), zk.OpDelete(z.Path, z.Stat.Version))
	if errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrBadVersion) {
		return item, false, nil
	}
	return item, err == nil, err
}
