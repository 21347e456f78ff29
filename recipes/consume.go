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

// maxBad bounds how many entries that cannot be decoded a Queue remembers; beyond it they are reported again.
const maxBad = 4096

// baton lets one of many wait for all of them. The zero value is ready for use.
type baton struct {
	once sync.Once
	c    chan struct{}
}

// take waits for the baton until ctx ends; if nobody has it, it is had even then.
func (b *baton) take(ctx context.Context) error {
	b.once.Do(func() { b.c = make(chan struct{}, 1) })
	select {
	case b.c <- struct{}{}:
		return nil
	default:
	}
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

// pick finds the next entry that is free. With mark no other consumer of this Queue gets it before unmark. Otherwise it
// says when to look again, if the time for that is known.
func (q *Queue[T]) pick(ctx context.Context, s *zk.Session, mark bool) (e entry, next time.Time, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var failed error
	h := q.shelf(s)
	e, due, err := h.names.first(ctx, h, s.Now(), func(e entry) bool {
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
		q.idle.given.ring()
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

// stored is an entry as it was read.
type stored struct {
	zk.Znode
	alone []byte // its first item as an entry of its own
	rest  []byte // the other items as an entry; nil where there are none
}

// removal are the steps that take the item away, as long as the entry has that version.
func (e stored) removal(version int32) []zk.Op {
	steps := []zk.Op{zk.OpCheckCreated(e.Path, zk.Token(e.Stat.Czxid)), zk.OpDelete(e.Path, version)}
	if e.rest != nil { // a new znode, so that those who look for items hear of it, and Redelivered starts afresh
		steps = append(steps, zk.OpCreate(e.Path, e.rest, zk.Persistent))
	}
	return steps
}

// read decodes an entry. One that cannot be decoded is reported once and then passed over; it stays where it is (Q-S7).
// Of several items in one entry, as Curator may write them, the first that can be decoded counts: others do not wait
// for one that cannot.
func (q *Queue[T]) read(ctx context.Context, s *zk.Session, e entry) (item T, z stored, err error) {
	path := q.entryPath(e)
	data, st, err := s.GetString(ctx, path)
	if err != nil {
		return item, z, explain(ctx, err)
	}
	names := q.names()
	items, err := names.unpack(data)
	for i, raw := range items {
		one, cannot := q.codec().Decode([]byte(raw))
		if cannot != nil {
			if err == nil {
				err = cannot
			}
			continue
		}
		z = stored{Znode: zk.Znode{Path: path, Data: data, Stat: st}, alone: names.pack([]byte(raw))}
		if len(items) > 1 {
			var rest [][]byte
			for j, raw := range items {
				if j != i {
					rest = append(rest, []byte(raw))
				}
			}
			z.rest = names.pack(rest...)
		}
		return one, z, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bad == nil || len(q.bad) >= maxBad {
		q.bad = map[string]zk.Zxid{}
	}
	q.bad[e.name] = st.Mzxid
	return item, z, &DecodeError{path, st.Mzxid, err}
}

// next waits for an entry that is free, and marks it.
func (q *Queue[T]) next(ctx context.Context, s *zk.Session) (e entry, err error) {
	err = q.idle.until(ctx, s, zk.WatchChildSet, [2]string{q.entries(), q.claims()}, func() (found bool, next time.Time, err error) {
		e, next, err = q.pick(ctx, s, true)
		return e.name != "", next, err
	})
	return e, err
}

// idle is what those have in common who wait for an item. The zero value is ready for use.
type idle struct {
	watching baton // who has it watches for all
	given    bell  // rung for it when an entry was given up without a trace in the tree
}

// until calls look until it has found something, whenever something has changed in one of two directories or the time
// has come that look has named. Of all that wait one has the baton and watches; when it has found something it passes the
// baton on.
func (i *idle) until(ctx context.Context, s *zk.Session, kind zk.WatchKind, dirs [2]string, look func() (found bool, next time.Time, err error)) error {
	found, _, err := look()
	if found || err != nil {
		return explain(ctx, err)
	}
	if err := i.watching.take(ctx); err != nil {
		return err
	}
	defer i.watching.pass()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	var changes [2]*zk.Watch
	for k, dir := range dirs {
		if changes[k], err = s.Watch(watching, dir, kind); err != nil {
			return explain(ctx, err)
		}
	}
	for {
		found, next, err := look()
		if found || err != nil {
			return explain(ctx, err)
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(next.Sub(s.Now()))
		}
		var ev zk.Event
		w := (*zk.Watch)(nil)
		select {
		case ev = <-changes[0].Events():
			w = changes[0]
		case ev = <-changes[1].Events():
			w = changes[1]
		case <-i.given.listen():
		case <-due:
		case <-ctx.Done():
			return ended(ctx)
		}
		if w != nil && (ev.Type == 0 || ev.Type == zk.EventSession) {
			return explain(ctx, w.Err())
		}
	}
}

// Receive waits for an item and claims it. Errors: ctx's; the session's if it ends; *DecodeError for an entry that
// cannot be decoded, which is reported once and passed over from then on; and those of every write. No claim is left
// where there is an error.
func (q *Queue[T]) Receive(ctx context.Context) (*Message[T], error) {
	s, err := q.session(ctx, "receive")
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
		zk.OpCreate(q.claimPath(e), data, zk.Ephemeral|q.names().missing()))
	switch {
	case errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrNodeExists):
		return nil, nil
	case errors.Is(err, zk.ErrNoNode):
		return nil, explain(ctx, furnish(ctx, s, q.claims()))
	case err != nil:
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
	return &Message[T]{Value: item, Held: &Held{right: r}, queue: q, entry: e, stored: z, again: st.Cversion > 2}, nil
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
	s, err := q.session(ctx, "take")
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
	s, err := q.session(ctx, "take")
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
	_, err = s.Txn(ctx, append([]zk.Op{zk.OpCheckAbsent(q.claimPath(e))}, z.removal(z.Stat.Version)...)...)
	if errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrBadVersion) {
		return item, false, nil
	}
	return item, err == nil, err
}
