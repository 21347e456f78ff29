// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// EventType says what happened to a znode.
type EventType uint8

// What an Event reports. The first four are ZooKeeper's (WT-17), with its numbers.
const (
	EventCreated EventType = iota + 1
	EventDeleted
	EventChanged  // data
	EventChildren // a child was created or deleted

	// EventOverflow says that the consumer was too slow and events were dropped: read again, then continue.
	EventOverflow

	// EventSession says that the session is over, in the State the event carries. It is the last event.
	EventSession
)

// String names the type.
func (t EventType) String() string {
	if t >= EventCreated && t <= EventSession {
		return [...]string{"created", "deleted", "changed", "children", "overflow", "session"}[t-1]
	}
	return "none"
}

// Event is one change seen by a watch. It carries no data (WT-19): read again, the read sees at least this event's
// zxid.
type Event struct {
	Type  EventType
	Path  string
	Zxid  Zxid  // of the transaction, or of the snapshot that replaced the tree; -1 from Listener.SetWatches
	State State // of EventSession
}

// WatchKind says which events a persistent watch receives.
type WatchKind uint8

const (
	WatchNode     WatchKind = iota // created, deleted, changed, children of the path (WT-7)
	WatchSubtree                   // created, deleted, changed at the path and below (WT-6)
	WatchChildSet                  // children of the path only
)

// String names the kind.
func (k WatchKind) String() string {
	if k <= WatchChildSet {
		return [...]string{"node", "subtree", "children"}[k]
	}
	return "unknown"
}

type watchMode uint8

const (
	watchOnce watchMode = iota
	watchPersistent
	watchRecursive
	watchChildSet
)

// watch is one entry of a table: a receiver wants to hear of a path.
type watch struct {
	to         *receiver
	list       *watchList
	path       string
	mode       watchMode
	prev, next *watch
}

// watchList maps paths to the watches on them, the oldest first.
type watchList struct {
	child bool
	at    map[string]*watchEnds
}

type watchEnds struct{ first, last *watch }

func newWatchList(child bool) *watchList { return &watchList{child, map[string]*watchEnds{}} }

func (l *watchList) add(w *watch) {
	ends := l.at[w.path]
	if ends == nil {
		ends = &watchEnds{}
		l.at[w.path] = ends
	}
	w.list, w.prev = l, ends.last
	if ends.last == nil {
		ends.first = w
	} else {
		ends.last.next = w
	}
	ends.last = w
}

func (w *watch) unlink() {
	if w.list == nil {
		return
	}
	l := w.list
	ends := l.at[w.path]
	if w.prev == nil {
		ends.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		ends.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	if ends.first == nil {
		delete(l.at, w.path)
	}
	w.list, w.prev, w.next = nil, nil, nil
}

// receiver is where events go: a channel of its own, or a sink that a listener or the engine provides.
type receiver struct {
	session *live
	watches map[watchKey]*watch // guarded by the table's mutex, like everything below
	one     *watch              // the only watch of most receivers; watches is nil then
	ch      chan Event
	sink    func(Event)
	prefix  string // events show paths below it
	once    bool   // the first event is the last
	trusted bool   // the engine's own: no permission is asked for

	serial   uint64 // of the last change it heard of: one change, one event (WT-13)
	last     Event
	dropping bool // since an overflow marker was sent
	ended    bool
	lost     bool   // it ended with its session
	ending   func() // called once, when the receiver has ended
}

type watchKey struct {
	path  string
	child bool
	mode  watchMode
}

// watchTable knows who watches what on this member. It is not replicated. Lock order: the fsm's lock, then this.
type watchTable struct {
	overflowed func(path string, id SessionID)

	mu        sync.Mutex
	data      *watchList // created, changed, deleted
	child     *watchList // children changed, deleted
	subtree   *watchList // at or below the path
	serial    uint64
	count     int
	overflows int64
	told      [EventChildren + 1]Recorder[int64] // how many watchers each change was told to, by its kind
}

func newWatchTable() *watchTable {
	return &watchTable{data: newWatchList(false), child: newWatchList(true), subtree: newWatchList(false)}
}

// register adds watches for a receiver; the caller holds the fsm's read lock, so that no change slips between the
// read and the registration (CG-13). It reports whether the session is still alive.
func (t *watchTable) register(r *receiver, path string, child bool, mode watchMode) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.registerLocked(r, path, child, mode)
}

func (t *watchTable) registerLocked(r *receiver, path string, child bool, mode watchMode) bool {
	if r.ended || r.session.over {
		return false
	}
	if r.session.receivers == nil {
		r.session.receivers = map[*receiver]struct{}{}
	}
	r.session.receivers[r] = struct{}{}
	key := watchKey{path, child, mode}
	if r.watches[key] != nil || r.one != nil && r.one.key() == key {
		return true // registration is a set operation (WT-3)
	}
	w := &watch{to: r, path: path, mode: mode}
	switch {
	case mode == watchRecursive:
		t.subtree.add(w)
	case child:
		t.child.add(w)
	default:
		t.data.add(w)
	}
	t.count++
	if r.watches == nil && r.one == nil && r.sink == nil {
		r.one = w
		return true
	}
	if r.watches == nil {
		r.watches = map[watchKey]*watch{}
		if r.one != nil {
			r.watches[r.one.key()] = r.one
			r.one = nil
		}
	}
	r.watches[key] = w
	return true
}

func (w *watch) key() watchKey { return watchKey{w.path, w.list.child, w.mode} }

func (t *watchTable) drop(w *watch) {
	if w.to.one == w {
		w.to.one = nil
	} else {
		delete(w.to.watches, w.key())
	}
	w.unlink()
	t.count--
}

// fire tells the watchers of one change. The caller holds the fsm's write lock: whoever reads the change later
// finds the event delivered (WT-20).
func (t *watchTable) fire(c change, zxid Zxid) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fireLocked(c, zxid)
}

func (t *watchTable) fireLocked(c change, zxid Zxid) {
	if t.count == 0 {
		return
	}
	t.serial++
	ev := Event{Type: c.kind, Path: c.path, Zxid: zxid}
	told := 0
	if c.kind != EventChildren {
		told += t.tell(t.data, c.path, ev, c.acl)
	}
	if c.kind == EventChildren || c.kind == EventDeleted {
		told += t.tell(t.child, c.path, ev, c.acl)
	}
	if c.kind != EventChildren && len(t.subtree.at) > 0 {
		for p := c.path; ; p = parentPath(p) {
			told += t.tell(t.subtree, p, ev, c.acl)
			if p == "/" {
				break
			}
		}
	}
	if told > 0 {
		t.told[c.kind].Add(int64(told))
	}
}

// tell returns how many it told.
func (t *watchTable) tell(l *watchList, path string, ev Event, acl *aclList) (told int) {
	ends := l.at[path]
	if ends == nil {
		return 0
	}
	for w := ends.first; w != nil; {
		next, r := w.next, w.to
		if w.mode == watchOnce {
			t.drop(w)
		}
		if w.mode != watchChildSet || ev.Type == EventChildren {
			// A filtered one-shot watch is consumed all the same (WT-24).
			readable := acl == nil || r.trusted || allowed(acl, PermRead, r.session.identities())
			if readable && r.serial != t.serial {
				r.serial = t.serial
				t.post(r, ev)
				told++
			}
		}
		if r.once && !r.ended {
			t.endLocked(r, nil)
		}
		w = next
	}
	return told
}

// post hands one event over; it never blocks.
func (t *watchTable) post(r *receiver, ev Event) {
	if r.prefix != "" {
		ev.Path = strings.TrimPrefix(ev.Path, r.prefix)
		if ev.Path == "" {
			ev.Path = "/"
		}
	}
	if r.sink != nil {
		r.sink(ev)
		return
	}
	if r.once {
		r.ch <- ev // capacity 1: this event, or the end of the session
		return
	}
	waiting := len(r.ch)
	if r.dropping {
		if waiting > 0 {
			return
		}
		r.dropping = false
	}
	if waiting > 0 && ev.Type == r.last.Type && ev.Path == r.last.Path {
		return // the one before has not been received: it says the same, and reading again shows both
	}
	if waiting >= cap(r.ch)-2 { // the last two places are for the marker and for the end of the session
		r.dropping = true
		t.overflows++
		if t.overflowed != nil {
			t.overflowed(ev.Path, r.session.id)
		}
		ev = Event{Type: EventOverflow, Path: ev.Path, Zxid: ev.Zxid}
	}
	r.last = ev
	r.ch <- ev
}

// end takes a receiver out of all tables and closes its channel, after a last event if there is one.
func (t *watchTable) end(r *receiver, last *Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked(r, last)
}

func (t *watchTable) endLocked(r *receiver, last *Event) {
	if r.ended {
		return
	}
	r.ended = true
	if r.one != nil {
		r.one.unlink()
		t.count--
	}
	for _, w := range r.watches {
		w.unlink()
		t.count--
	}
	r.one, r.watches = nil, nil
	delete(r.session.receivers, r)
	if last != nil {
		r.lost = true
		if r.sink != nil {
			r.sink(*last)
		} else {
			r.ch <- *last
		}
	}
	if r.ch != nil {
		close(r.ch)
	}
	if r.ending != nil {
		r.ending()
	}
}

// endSession ends every receiver of a session; each hears the state it ended in (D30).
func (t *watchTable) endSession(l *live, st State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.over = true
	ev := Event{Type: EventSession, State: st}
	for r := range l.receivers {
		t.endLocked(r, &ev)
	}
}

// remove takes one watch of a sink away (WT-27). It reports whether there was one.
func (t *watchTable) remove(r *receiver, key watchKey, dry bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := r.watches[key]
	if w == nil {
		return false
	}
	if !dry {
		t.drop(w)
	}
	return true
}

func (t *watchTable) counts() (watches int, overflows int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count, t.overflows
}

// difference tells every watcher what changed between two states when a snapshot replaces the tree. Changes in
// between collapse (WT-34), but none is lost.
func (t *watchTable) difference(old, now *state) {
	t.mu.Lock()
	defer t.mu.Unlock()
	watched := map[string]bool{} // true: with everything below
	for _, l := range [...]*watchList{t.data, t.child} {
		for p := range l.at {
			if !t.covered(p) {
				watched[p] = false
			}
		}
	}
	for p := range t.subtree.at {
		if p == "/" || !t.covered(parentPath(p)) {
			watched[p] = true
		}
	}
	// What is below comes first: a znode's own event before its parent's Children (WT-10).
	for _, p := range slices.Backward(slices.Sorted(maps.Keys(watched))) {
		t.differs(p, old.nodes[p], now.nodes[p], now.zxid, watched[p])
	}
}

// covered tells whether a subtree watch at or above path makes a walk that comes by anyway.
func (t *watchTable) covered(path string) bool {
	if len(t.subtree.at) == 0 {
		return false
	}
	for ; ; path = parentPath(path) {
		if t.subtree.at[path] != nil {
			return true
		}
		if path == "/" {
			return false
		}
	}
}

// differs fires what happened to one znode, or to it and everything below, in an order in which it could have
// happened: children are created after their parent and deleted before it.
func (t *watchTable) differs(path string, a, b *znode, zxid Zxid, below bool) {
	fire := func(kind EventType, n *znode) {
		t.fireLocked(change{kind, path, n.acl}, zxid)
	}
	if a != nil && (b == nil || a.czxid != b.czxid) {
		if below {
			t.differBelow(a, nil, zxid)
		}
		if a.numChildren() > 0 {
			fire(EventChildren, a)
		}
		fire(EventDeleted, a)
		a = nil
	}
	if b == nil {
		return
	}
	switch {
	case a == nil:
		fire(EventCreated, b)
	case a.mzxid != b.mzxid || a.version != b.version || a.data != b.data && !isUsage(path):
		// Data is compared because several configurations may have been committed at one zxid, and because the zxids of
		// a backup may be another ensemble's.
		fire(EventChanged, b)
	}
	if below {
		t.differBelow(a, b, zxid)
	}
	if a == nil && b.creates > 0 || a != nil && (a.pzxid != b.pzxid || a.creates != b.creates || !sameNames(a, b)) {
		fire(EventChildren, b)
	}
}

func sameNames(a, b *znode) bool {
	if a.children == nil || b.children == nil {
		return a.children == b.children
	}
	same := a.children.Len() == b.children.Len()
	if same {
		a.children.Ascend(func(c *znode) bool {
			same = b.children.Has(c)
			return same
		})
	}
	return same
}

// differBelow walks the children of two znodes side by side.
func (t *watchTable) differBelow(a, b *znode, zxid Zxid) {
	if a != nil && a.children != nil {
		a.children.Ascend(func(c *znode) bool {
			var other *znode
			if b != nil && b.children != nil {
				other, _ = b.children.Get(c)
			}
			t.differs(c.path, c, other, zxid, true)
			return true
		})
	}
	if b != nil && b.children != nil {
		b.children.Ascend(func(c *znode) bool {
			if a == nil || a.children == nil || !a.children.Has(c) {
				t.differs(c.path, nil, c, zxid, true)
			}
			return true
		})
	}
}
