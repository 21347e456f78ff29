// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

// WatchInfo is one watch on this member. Watches are not replicated: each member knows those of its own sessions.
type WatchInfo struct {
	Path    string
	Session SessionID
	Type    WatchType // data, children, persistent or recursive
}

// Watches lists the watches on this member by path, session and type, each once. Those of type WatchTypeChildren are
// what ZooKeeper's commands leave out (WT-39). It is for operators: the list is as long as there are watches.
func (m *Member) Watches(ctx context.Context) ([]WatchInfo, error) {
	if ctx == nil {
		return nil, badContext("watches")
	}
	if err := m.running("watches"); err != nil {
		return nil, err
	}
	list := m.watches.list()
	slices.SortFunc(list, func(a, b WatchInfo) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Session, b.Session), cmp.Compare(a.Type, b.Type))
	})
	return slices.Compact(list), nil
}

// list goes through the tables a little at a time: what is registered or dropped meanwhile may or may not show.
func (t *watchTable) list() (list []WatchInfo) {
	for _, l := range [...]*watchList{t.data, t.child, t.subtree} {
		t.mu.Lock()
		paths := slices.Collect(maps.Keys(l.at))
		t.mu.Unlock()
		for page := range slices.Chunk(paths, chunk) {
			t.mu.Lock()
			for _, p := range page {
				if ends := l.at[p]; ends != nil {
					for w := ends.first; w != nil; w = w.next {
						if kind := w.kind(); kind != 0 {
							list = append(list, WatchInfo{p, w.to.session.id, kind})
						}
					}
				}
			}
			t.mu.Unlock()
		}
	}
	return list
}

// kind is a watch's type; 0 for the second entry of a persistent watch, which has one in either table.
func (w *watch) kind() WatchType {
	switch {
	case w.mode == watchRecursive:
		return WatchTypePersistentRecursive
	case w.mode == watchChildSet, w.mode == watchOnce && w.list.child:
		return WatchTypeChildren
	case w.mode == watchOnce:
		return WatchTypeData
	case w.list.child:
		return 0
	}
	return WatchTypePersistent
}

// Ephemerals lists the ephemerals of a session of any member, by path. Error: ErrUnknownSession.
func (m *Member) Ephemerals(ctx context.Context, id SessionID) (paths []string, err error) {
	if ctx == nil {
		return nil, badContext("ephemerals")
	}
	if err := m.running("ephemerals"); err != nil {
		return nil, err
	}
	known := false
	m.fsm.reading(func() {
		known = m.fsm.st.session(id) != nil
		m.fsm.st.ephemeralsOf(id, func(path string) { paths = append(paths, path) })
	})
	if !known {
		return nil, &Error{Op: "ephemerals", Code: ErrUnknownSession}
	}
	return paths, nil
}

// SessionTimeouts returns the bounds within which the timeouts of this member's sessions are negotiated (SS-4).
func (m *Member) SessionTimeouts() (least, most time.Duration) {
	return m.cfg.MinTimeout, m.cfg.MaxTimeout
}
