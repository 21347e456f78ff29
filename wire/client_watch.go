// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"iter"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// The tables of watches: the three one-shot ones that setWatches names (WT-31), and the two persistent ones.
const (
	watchData = iota
	watchExist
	watchChild
	watchPersistent
	watchRecursive
	watchTableCount
)

// watchTypes are the protocol's names for the watches of the tables (WT-27).
var watchTypes = [watchTableCount]zk.WatchType{zk.WatchTypeData, zk.WatchTypeData, zk.WatchTypeChildren, zk.WatchTypePersistent, zk.WatchTypePersistentRecursive}

// clientWatches is what a client watches, by full path. Everything is guarded by the client's lock.
type clientWatches struct {
	tables  [watchTableCount]map[string]map[*clientWatcher]struct{}
	pending map[string]int // requests under way that will set a watch
}

// clientWatcher is one receiver of events.
type clientWatcher struct {
	c     *Client
	table int
	path  string       // full
	only  zk.EventType // of a persistent watch that wants no other; 0 for all
	limit int
	ch    chan zk.Event

	// Guarded by the client's lock.
	dropping bool // since an overflow marker was sent
	ended    bool
	err      error
	forget   func() bool // takes the context's callback back
}

func (w *clientWatcher) events() <-chan zk.Event {
	if w == nil {
		return nil
	}
	return w.ch
}

func (t *clientWatches) init() {
	for i := range t.tables {
		t.tables[i] = map[string]map[*clientWatcher]struct{}{}
	}
	t.pending = map[string]int{}
}

func (t *clientWatches) add(w *clientWatcher) {
	at := t.tables[w.table][w.path]
	if at == nil {
		at = map[*clientWatcher]struct{}{}
		t.tables[w.table][w.path] = at
	}
	at[w] = struct{}{}
}

func (t *clientWatches) remove(w *clientWatcher) {
	at := t.tables[w.table][w.path]
	if delete(at, w); len(at) == 0 {
		delete(t.tables[w.table], w.path)
	}
}

// end closes a watcher's channel; err is what ended it.
func (t *clientWatches) end(w *clientWatcher, err error) {
	if w.ended {
		return
	}
	w.ended, w.err = true, err
	t.remove(w)
	close(w.ch)
	if w.forget != nil {
		w.forget()
	}
}

// endAll tells every watcher that the session is over.
func (t *clientWatches) endAll(s zk.State, err error) {
	for i := range t.tables {
		for _, at := range t.tables[i] {
			for w := range at {
				w.ch <- zk.Event{Type: zk.EventSession, Path: w.c.local(w.path), Zxid: -1, State: s} // there is always room
				t.end(w, err)
			}
		}
	}
}

// send hands an event to a persistent watcher. Its channel has room for limit events, for the marker that says that
// there were more, and for EventSession.
func (w *clientWatcher) send(ev zk.Event) {
	switch {
	case w.only != 0 && ev.Type != w.only && ev.Type != zk.EventOverflow:
	case len(w.ch) < w.limit:
		w.dropping = false
		w.ch <- ev
	case !w.dropping:
		w.dropping = true
		w.ch <- zk.Event{Type: zk.EventOverflow, Path: w.c.local(w.path), Zxid: ev.Zxid}
	}
}

// deliver hands an event to all that wait for it (WT-16).
func (t *clientWatches) deliver(c *Client, ev zk.Event) {
	full := ev.Path
	ev.Path = c.local(full)
	once := func(table int) {
		for w := range t.tables[table][full] {
			w.ch <- ev
			t.end(w, nil)
		}
	}
	stay := func(table int, path string) {
		for w := range t.tables[table][path] {
			w.send(ev)
		}
	}
	if ev.Type != zk.EventChildren {
		once(watchData)
		once(watchExist)
	}
	if ev.Type == zk.EventChildren || ev.Type == zk.EventDeleted {
		once(watchChild)
	}
	stay(watchPersistent, full)
	if ev.Type == zk.EventChildren || len(t.tables[watchRecursive]) == 0 {
		return // it belongs to somebody's child watch (WT-6)
	}
	for path := full; ; path = path[:max(strings.LastIndexByte(path, '/'), 1)] {
		stay(watchRecursive, path)
		if len(path) <= 1 {
			return
		}
	}
}

// setWatchesBatch is how many bytes of paths go into one request (WT-30).
const setWatchesBatch = 128 << 10

// restore asks a new connection for all watches. What changed since is reported at once, for the one-shot ones.
func (t *clientWatches) restore(cn *clientConn, since zk.Zxid) {
	var batch [watchTableCount][]string
	size := 0
	flush := func() {
		op := opSetWatches
		if len(batch[watchPersistent])+len(batch[watchRecursive]) > 0 {
			op = opSetWatches2
		}
		cn.add(&clientCall{op: op}, xidSetWatches, func(b []byte) []byte {
			b = appendLong(b, int64(since))
			for i, paths := range batch {
				if i < watchPersistent || op == opSetWatches2 {
					b = appendStrings(b, paths)
				}
			}
			return b
		})
		batch, size = [watchTableCount][]string{}, 0
	}
	for i := range t.tables {
		for path := range t.tables[i] {
			if size > 0 && size+len(path) > setWatchesBatch {
				flush()
			}
			batch[i] = append(batch[i], path)
			size += len(path) + 4
		}
	}
	if size > 0 {
		flush()
	}
}

// resync tells the persistent watchers that they have missed what happened meanwhile (WT-42).
func (t *clientWatches) resync() {
	for _, table := range [...]int{watchPersistent, watchRecursive} {
		for _, at := range t.tables[table] {
			for w := range at {
				w.send(zk.Event{Type: zk.EventOverflow, Path: w.c.local(w.path), Zxid: -1})
			}
		}
	}
}

// watchOnce makes a read set a one-shot watch in the table that its answer selects. ctx governs the watch as well.
func (c *Client) watchOnce(ctx context.Context, q *clientRequest, table func(zk.Code) int, to **clientWatcher) {
	q.watch = c.full(q.path)
	exists := q.op == opExists
	q.register = func(code zk.Code) {
		if code == 0 || exists && code == zk.ErrNoNode {
			*to = c.watcher(ctx, table(code), q.watch, 0)
		}
	}
}

// watcher adds a watcher, which ctx ends. c.mu is held.
func (c *Client) watcher(ctx context.Context, table int, full string, only zk.EventType) *clientWatcher {
	w := &clientWatcher{c: c, table: table, path: full, only: only}
	if table >= watchPersistent {
		w.limit = c.cfg.WatchBuffer
		w.ch = make(chan zk.Event, w.limit+2)
	} else {
		w.ch = make(chan zk.Event, 1)
	}
	if c.err != nil {
		w.ch <- zk.Event{Type: zk.EventSession, Path: c.local(full), Zxid: -1, State: c.state}
		w.ended, w.err = true, c.err
		close(w.ch)
		return w
	}
	c.watches.add(w)
	if ctx.Done() != nil {
		w.forget = context.AfterFunc(ctx, func() {
			c.unwatch(w, &zk.Error{Op: "watch", Path: c.local(full), Code: zk.ErrUnavailable, Err: clientCause(ctx)})
		})
	}
	return w
}

// unwatch ends a watcher, and takes the watch from the server unless somebody else needs it.
func (c *Client) unwatch(w *clientWatcher, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.ended {
		return
	}
	c.watches.end(w, err)
	if c.conn == nil || c.closing || c.watches.pending[w.path] > 0 || !c.knows(opRemoveWatches) {
		return // what the server keeps then goes with its first event, or with the connection
	}
	t := zk.WatchTypeAny // which servers before 3.9 know too, unlike those of persistent watches
	for i := range c.watches.tables {
		if len(c.watches.tables[i][w.path]) == 0 {
			continue
		}
		if i == w.table || w.table < watchPersistent {
			return // one-shot: its event will find nobody. To remove it costs others their persistent one on 3.8.0
		}
		t = watchTypes[w.table]
	}
	call := &clientCall{op: opRemoveWatches}
	c.conn.add(call, c.nextXid(call.op), watchTypeBody(w.path, t))
}

func watchTypeBody(full string, t zk.WatchType) func([]byte) []byte {
	return func(b []byte) []byte { return appendInt(appendString(b, full), int32(t)) }
}

// CheckWatches reports whether the server has such a watch of this client on path: the error is ErrNoWatch where it
// has none (WT-27).
func (c *Client) CheckWatches(ctx context.Context, path string, t zk.WatchType) error {
	return c.do(ctx, clientRequest{op: opCheckWatches, name: "check watches", path: path, size: len(path), read: true, body: watchTypeBody(c.full(path), t)})
}

// RemoveWatches takes all watches of a type that this client has on path away, whoever set them: their channels are
// closed without an event. The error is ErrNoWatch where there were none.
func (c *Client) RemoveWatches(ctx context.Context, path string, t zk.WatchType) error {
	full := c.full(path)
	q := clientRequest{op: opRemoveWatches, name: "remove watches", path: path, size: len(path), body: watchTypeBody(full, t)}
	q.accepted = func() {
		for i := range c.watches.tables {
			covered := t == zk.WatchTypeAny || t == watchTypes[i]
			for w := range c.watches.tables[i][full] {
				if covered {
					c.watches.end(w, zk.ErrClosed)
				}
			}
		}
	}
	return c.do(ctx, q)
}

// Watch is a persistent watch of a Client. It survives its events and changes of servers, and ends with its context,
// with Close, or with the session. Safe for concurrent use.
type Watch struct{ w *clientWatcher }

// Watch reports what happens to path, which need not exist, until ctx ends, Close, or the end of the session
// (WT-6 to WT-8). At most ClientConfig.WatchBuffer events wait for a slow consumer. EventOverflow says that events
// were lost, because the consumer was too slow or because the client had no connection: read again, then continue.
func (c *Client) Watch(ctx context.Context, path string, kind zk.WatchKind) (*Watch, error) {
	mode, table, only := int32(0), watchPersistent, zk.EventType(0)
	switch kind {
	case zk.WatchNode:
	case zk.WatchSubtree:
		mode, table = 1, watchRecursive
	case zk.WatchChildSet:
		only = zk.EventChildren
	default:
		return nil, &zk.Error{Op: "watch", Path: path, Code: zk.ErrBadArguments}
	}
	q, err := c.checked(opAddWatch, "watch", path)
	if err != nil {
		return nil, err
	}
	full := c.full(path)
	var w *clientWatcher
	q.read, q.watch = true, full
	q.body = func(b []byte) []byte { return appendInt(appendString(b, full), mode) }
	q.register = func(code zk.Code) {
		if code == 0 {
			w = c.watcher(ctx, table, full, only)
		}
	}
	if err := c.do(ctx, q); err != nil {
		return nil, err
	}
	return &Watch{w}, nil
}

// Events is where the events are, in zxid order. It is closed after EventSession when the session is over, without it
// when the caller ended the watch.
func (w *Watch) Events() <-chan zk.Event { return w.w.ch }

// Err says why Events was closed: ctx's error, ErrSessionExpired, or ErrClosed after Close. It is nil before.
func (w *Watch) Err() error {
	w.w.c.mu.Lock()
	defer w.w.c.mu.Unlock()
	return w.w.err
}

// Close ends the watch. Closing twice is fine.
func (w *Watch) Close() { w.w.c.unwatch(w.w, zk.ErrClosed) }

// All yields the events, and at the end the error that ended the watch. Leaving the loop closes the watch.
func (w *Watch) All() iter.Seq2[zk.Event, error] {
	return func(yield func(zk.Event, error) bool) {
		defer w.Close()
		for ev := range w.Events() {
			if !yield(ev, nil) {
				return
			}
		}
		yield(zk.Event{}, w.Err())
	}
}
