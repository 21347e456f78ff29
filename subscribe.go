// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"iter"
)

// one sets a one-shot watch; the caller holds the read lock.
func (s *Session) one(r *receiver, full string, child bool) Code {
	if !s.m.watches.register(r, full, child, watchOnce) {
		return ErrSessionExpired
	}
	return 0
}

func (s *Session) oneShot() *receiver {
	return &receiver{session: s.live, ch: make(chan Event, 1), once: true, prefix: s.prefix}
}

// until ends a receiver when ctx does; no goroutine waits for that.
func (s *Session) until(ctx context.Context, r *receiver) {
	if ctx.Done() == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { s.m.watches.end(r, nil) })
	t := s.m.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.ended {
		stop()
		return
	}
	before := r.ending
	r.ending = func() {
		stop()
		if before != nil {
			before()
		}
	}
}

// GetW is Get with a one-shot watch on the znode's data: the channel yields one event when the znode is changed or
// deleted, or EventSession when the session ends first, and is closed. Ending ctx closes it without an event.
// Where Get fails no watch is left.
func (s *Session) GetW(ctx context.Context, path string) ([]byte, Stat, <-chan Event, error) {
	r := s.oneShot()
	data, null, st, err := s.get(ctx, "get", path, nil, func(full string, _ *znode) Code { return s.one(r, full, false) })
	if err != nil {
		return nil, Stat{}, nil, err
	}
	s.until(ctx, r)
	return copied(data, null), st.public(), r.ch, nil
}

// ExistsW is Exists with a one-shot watch that is set whether or not the znode exists: the channel yields one event
// when it is created, changed or deleted. Otherwise as GetW.
func (s *Session) ExistsW(ctx context.Context, path string) (Stat, bool, <-chan Event, error) {
	r := s.oneShot()
	full := s.full(path)
	if err := s.checkPath("exists", path, full); err != nil {
		return Stat{}, false, nil, err
	}
	var st Stat
	ok := false
	err := s.read(ctx, "exists", path, nil, func(t *state) Code {
		n, code := s.node(t, full)
		switch code {
		case 0:
			inner := n.stat()
			st, ok = inner.public(), true
		case ErrNoAuth:
			return code
		}
		return s.one(r, full, false)
	})
	if err != nil {
		return Stat{}, false, nil, err
	}
	s.until(ctx, r)
	return st, ok, r.ch, nil
}

// ChildrenW is Children with a one-shot watch on the znode's children: the channel yields one event when a child
// is created or deleted, or the znode itself is deleted. Otherwise as GetW.
func (s *Session) ChildrenW(ctx context.Context, path string) ([]string, Stat, <-chan Event, error) {
	r := s.oneShot()
	names, st, err := s.children(ctx, "children", path, nil, func(full string, _ *znode) Code { return s.one(r, full, true) })
	if err != nil {
		return nil, Stat{}, nil, err
	}
	s.until(ctx, r)
	return names, st.public(), r.ch, nil
}

// Watch is a persistent watch. It survives leader changes and the deletion and creation of its path, and ends with
// its context, with Close, or with its session. Safe for concurrent use.
type Watch struct {
	noCopy noCopy
	s      *Session
	ctx    context.Context
	r      *receiver
	from   Zxid
}

// Watch reports what happens to path, which need not exist, until ctx ends, Close, or the end of the session. At
// most Config.WatchBuffer events wait for a slow consumer; then it is told so by EventOverflow.
func (s *Session) Watch(ctx context.Context, path string, kind WatchKind) (*Watch, error) {
	full := s.full(path)
	if err := s.checkPath("watch", path, full); err != nil {
		return nil, err
	}
	if kind > WatchChildSet {
		return nil, &Error{Op: "watch", Path: path, Code: ErrBadArguments, Err: errors.New("unknown kind of watch")}
	}
	w := &Watch{s: s, ctx: ctx, r: &receiver{session: s.live, ch: make(chan Event, s.m.cfg.WatchBuffer+2), prefix: s.prefix}}
	err := s.read(ctx, "watch", path, nil, func(t *state) Code {
		w.from = t.zxid
		ok := true
		switch kind {
		case WatchNode:
			ok = s.m.watches.register(w.r, full, false, watchPersistent) && s.m.watches.register(w.r, full, true, watchPersistent)
		case WatchSubtree:
			ok = s.m.watches.register(w.r, full, false, watchRecursive)
		case WatchChildSet:
			ok = s.m.watches.register(w.r, full, true, watchChildSet)
		}
		if !ok {
			return ErrSessionExpired
		}
		return 0
	})
	if err != nil {
		return nil, err
	}
	s.until(ctx, w.r)
	return w, nil
}

// Events is where the events are, in zxid order, adjacent equal ones as one. The engine closes it: after
// EventSession when the session is over, without it when the caller ended the watch.
func (w *Watch) Events() <-chan Event { return w.r.ch }

// From is the zxid after which every matching change is reported.
func (w *Watch) From() Zxid { return w.from }

// Err says why Events was closed: ctx's error, ErrSessionExpired, or ErrClosed after Close. It is nil before.
func (w *Watch) Err() error {
	t := w.s.m.watches
	t.mu.Lock()
	ended, lost := w.r.ended, w.r.lost
	t.mu.Unlock()
	switch {
	case !ended:
		return nil
	case lost:
		<-w.s.done // the handle ends a moment after its watches
		return &Error{Op: "watch", Code: codeOf(w.s.Err())}
	case w.ctx.Err() != nil:
		return ctxError("watch", "", w.ctx)
	}
	return &Error{Op: "watch", Code: ErrClosed}
}

// All yields the events, and at the end the error that ended the watch. Leaving the loop closes the watch.
func (w *Watch) All() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		defer w.Close()
		for ev := range w.r.ch {
			if ev.Type == EventSession {
				break
			}
			if !yield(ev, nil) {
				return
			}
		}
		yield(Event{}, w.Err())
	}
}

// Close ends the watch. Closing twice is fine.
func (w *Watch) Close() { w.s.m.watches.end(w.r, nil) }

// WatchValue yields a znode as it is, and again whenever it has changed: the newest state only, so that a slow
// consumer skips states and never falls behind. Stat.Czxid is 0 where the znode does not exist. It ends with ctx or
// the session, and with their error.
func (s *Session) WatchValue(ctx context.Context, path string) iter.Seq2[Znode, error] {
	return subscribe(s, ctx, path, WatchNode, func(ev EventType) bool { return ev != EventChildren }, func(ctx context.Context) (Znode, edition, error) {
		data, st, err := s.GetString(ctx, path)
		if isCode(err, ErrNoNode) {
			return Znode{Path: path}, edition{}, nil
		}
		return Znode{path, data, st}, edition{st.Mzxid, data}, err
	})
}

// WatchChildren yields the names of a znode's children in byte order, and again whenever they have changed, as
// WatchValue does. A missing znode has none.
func (s *Session) WatchChildren(ctx context.Context, path string) iter.Seq2[[]string, error] {
	return subscribe(s, ctx, path, WatchNode, func(ev EventType) bool { return ev != EventChanged }, func(ctx context.Context) ([]string, edition, error) {
		names, st, err := s.Children(ctx, path)
		if isCode(err, ErrNoNode) {
			return nil, edition{}, nil
		}
		return names, edition{zxid: st.Pzxid}, err
	})
}

// edition tells states of a znode apart. The config znode may change more than once at one zxid.
type edition struct {
	zxid Zxid
	data string
}

// subscribe turns events into states: it reads after having registered, and again after each event, once for all
// events that have piled up. No state is yielded twice.
func subscribe[T any](s *Session, ctx context.Context, path string, kind WatchKind, wanted func(EventType) bool, read func(context.Context) (T, edition, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		w, err := s.Watch(ctx, path, kind)
		if err != nil {
			yield(zero, err)
			return
		}
		defer w.Close()
		last := edition{zxid: -1}
		for {
			v, now, err := read(ctx)
			if err != nil {
				yield(zero, err)
				return
			}
			if now != last && !yield(v, nil) {
				return
			}
			last = now
			for again := false; !again; {
				ev, ok := <-w.r.ch
				if !ok || ev.Type == EventSession {
					yield(zero, w.Err())
					return
				}
				again = wanted(ev.Type)
				for more := true; more; {
					select {
					case ev, ok := <-w.r.ch:
						again = again || ok && wanted(ev.Type)
						more = ok && ev.Type != EventSession
						if !more {
							yield(zero, w.Err())
							return
						}
					default:
						more = false
					}
				}
			}
		}
	}
}
