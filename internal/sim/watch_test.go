// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// leaf is what a mirror keeps of a znode.
type leaf struct {
	czxid, mzxid zk.Zxid
	data         string
}

// mirror is a copy of the tree that is kept up to date by events, and by reading what they name.
type mirror struct {
	root string

	mu                        sync.Mutex // guards the fields below; only the one who follows changes them
	leaves                    map[string]leaf
	events, compared, reloads int

	last    zk.Zxid         // of an event
	touched map[string]bool // while it is compared: what has changed since
}

// mirrored are the subtrees that are.
var mirrored = []string{"/tree", "/register", "/queue", "/lock"}

// differs lists where a mirror and the tree are not the same.
func differs(have, want map[string]leaf, except map[string]bool) (list []string) {
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if l, ok := have[p]; !except[p] && (!ok || l != want[p]) {
			list = append(list, fmt.Sprintf("%s is %+v, mirrored as %+v", p, want[p], l))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[p]; !ok && !except[p] {
			list = append(list, fmt.Sprintf("%s is gone, mirrored as %+v", p, have[p]))
		}
	}
	return list
}

// leavesOf reads a subtree as of one zxid.
func leavesOf(ctx context.Context, s *zk.Session, root string) (map[string]leaf, error) {
	leaves := map[string]leaf{}
	for z, err := range s.Walk(ctx, root) {
		if errors.Is(err, zk.ErrNoNode) {
			break
		}
		if err != nil {
			return nil, err
		}
		leaves[z.Path] = leaf{z.Stat.Czxid, z.Stat.Mzxid, z.Data}
	}
	return leaves, nil
}

// ordered says whether an event may follow what came before, and whether its zxid is applied (WT-20, WT-22).
func ordered(ev zk.Event, last, applied zk.Zxid) error {
	if ev.Zxid < last {
		return fmt.Errorf("event %+v after zxid %v", ev, last)
	}
	if applied < ev.Zxid {
		return fmt.Errorf("event %+v before its zxid is applied: %v", ev, applied)
	}
	return nil
}

// follow keeps a mirror on one member, through its incarnations, until ctx ends.
func (r *run) follow(ctx context.Context, i int, m *mirror, random *rand.Rand) {
	for ctx.Err() == nil {
		if member := r.member(i); member != nil {
			if s, err := member.Session(ctx); err == nil {
				r.followOne(ctx, i, m, s, random)
			}
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

func (r *run) followOne(ctx context.Context, i int, m *mirror, s *zk.Session, random *rand.Rand) {
	w, err := s.Watch(ctx, m.root, zk.WatchSubtree)
	if err != nil {
		return
	}
	defer w.Close()
	m.last = w.From()
	if !m.reload(ctx, s) {
		return
	}
	for ev := range w.Events() {
		if ev.Type == zk.EventSession {
			return
		}
		if err := ordered(ev, m.last, s.LastZxid()); err != nil {
			r.t.Errorf("member %d: %v", i, err)
		}
		if !m.take(ctx, s, ev) {
			return
		}
		if random.IntN(40) == 0 {
			time.Sleep(millis(random.IntN(300))) // a slow consumer
		}
		if random.IntN(10) == 0 {
			if list := m.compare(ctx, s, w); len(list) > 0 { // P14, WT-43
				r.t.Errorf("member %d: %s", i, strings.Join(list, "\n"))
			}
		}
	}
}

func (m *mirror) reload(ctx context.Context, s *zk.Session) bool {
	leaves, err := leavesOf(ctx, s, m.root)
	if err != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaves = leaves
	m.reloads++
	return true
}

// take brings the mirror up to date with an event. It is false when it cannot be.
func (m *mirror) take(ctx context.Context, s *zk.Session, ev zk.Event) bool {
	m.last = ev.Zxid
	m.count(&m.events)
	if ev.Type == zk.EventOverflow {
		return m.reload(ctx, s)
	}
	if m.touched != nil {
		m.touched[ev.Path] = true
	}
	data, st, err := s.GetString(ctx, ev.Path)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.leaves[ev.Path] = leaf{st.Czxid, st.Mzxid, data}
	case errors.Is(err, zk.ErrNoNode):
		delete(m.leaves, ev.Path)
	default:
		return false
	}
	return true
}

func (m *mirror) count(n *int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*n++
}

// compare looks at the tree and then at the events: what the tree shows to have changed has its event in the channel.
func (m *mirror) compare(ctx context.Context, s *zk.Session, w *zk.Watch) []string {
	want, err := leavesOf(ctx, s, m.root)
	if err != nil {
		return nil
	}
	m.touched = map[string]bool{}
	defer func() { m.touched = nil }()
	reloads := m.reloads
	for {
		select {
		case ev, ok := <-w.Events():
			if !ok || ev.Type == zk.EventSession || !m.take(ctx, s, ev) || m.reloads != reloads {
				return nil
			}
			continue
		default:
		}
		m.count(&m.compared)
		return differs(m.leaves, want, m.touched)
	}
}

// same compares all mirrors with their members' trees, which stand still (WT-35, P17).
func (r *run) same(ctx context.Context) {
	events, compared, reloads := 0, 0, 0
	for i, list := range r.mirrors {
		member := r.member(i)
		if member == nil {
			continue
		}
		s, err := member.Session(ctx)
		if err != nil {
			r.t.Error(err)
			continue
		}
		for _, m := range list {
			want, err := leavesOf(ctx, s, m.root)
			if err != nil {
				r.t.Error(err)
				continue
			}
			m.mu.Lock()
			if diff := differs(m.leaves, want, nil); len(diff) > 0 {
				r.t.Errorf("member %d: %s", i, strings.Join(diff, "\n"))
			}
			m.mu.Unlock()
			events, compared, reloads = events+m.events, compared+m.compared, reloads+m.reloads
		}
	}
	r.t.Logf("watches: %d events, %d comparisons, %d reloads", events, compared, reloads)
}

// onceClient arms one-shot watches.
func (r *run) onceClient(client int, random *rand.Rand) {
	for r.idle(random, 800) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("one-shot watches")
		path := treePath(random)
		ctx, cancel := context.WithTimeout(r.ctx, millis(200+random.IntN(4000)))
		_, st, ch, err := s.GetW(ctx, path)
		if errors.Is(err, zk.ErrNoNode) || random.IntN(2) == 0 {
			st, _, ch, err = s.ExistsW(ctx, path)
		}
		if err != nil {
			cancel()
			continue
		}
		work, stop := context.WithTimeout(ctx, millis(random.IntN(3000)))
		var events []zk.Event
		sleep(work, time.Hour)
		stop()
		now, _, err := s.Exists(context.Background(), path)
		if err == nil && ctx.Err() == nil && (now.Czxid != st.Czxid || now.Mzxid != st.Mzxid) {
			select { // WT-43: the event is there before the read can show the change
			case ev, ok := <-ch:
				if ok {
					events = append(events, ev)
				}
			default:
				r.t.Errorf("%s has changed from %+v to %+v, and its watch has not fired", path, st, now)
			}
		}
		cancel()
		for ev := range ch {
			events = append(events, ev)
		}
		if err := once(events, path, max(st.Czxid, st.Mzxid)); err != nil {
			r.t.Errorf("client %d: %v", client, err)
		}
	}
}

// once says whether a one-shot watch may have told that (WT-8, WT-40).
func once(events []zk.Event, path string, from zk.Zxid) error {
	if len(events) > 1 {
		return fmt.Errorf("a one-shot watch fired more than once: %+v", events)
	}
	for _, ev := range events {
		if ev.Type != zk.EventSession && (ev.Path != path || ev.Zxid <= from || ev.Type > zk.EventChanged) {
			return fmt.Errorf("a one-shot watch on %s as of %v fired %+v", path, from, ev)
		}
	}
	return nil
}

func TestWatchChecker(t *testing.T) {
	ev := func(z zk.Zxid) zk.Event { return zk.Event{Type: zk.EventChanged, Path: "/a", Zxid: z} }
	if ordered(ev(5), 5, 5) != nil || ordered(ev(4), 5, 5) == nil || ordered(ev(6), 5, 5) == nil {
		t.Error("the order of events is not seen")
	}
	if once(nil, "/a", 5) != nil || once([]zk.Event{ev(6)}, "/a", 5) != nil || once([]zk.Event{{Type: zk.EventSession}}, "/a", 5) != nil {
		t.Error("a one-shot watch that is in order is refused")
	}
	for _, events := range [][]zk.Event{{ev(6), ev(7)}, {ev(5)}, {{Type: zk.EventChildren, Path: "/a", Zxid: 6}}, {{Type: zk.EventChanged, Path: "/b", Zxid: 6}}} {
		if once(events, "/a", 5) == nil {
			t.Errorf("%+v of a one-shot watch is not refused", events)
		}
	}
	want := map[string]leaf{"/a": {1, 2, "x"}, "/b": {3, 3, ""}}
	if diff := differs(want, want, nil); diff != nil {
		t.Error(diff)
	}
	for name, have := range map[string]map[string]leaf{
		"missing": {"/a": want["/a"]}, "left over": {"/a": want["/a"], "/b": want["/b"], "/c": {}}, "old": {"/a": {1, 1, "x"}, "/b": want["/b"]},
	} {
		if differs(have, want, nil) == nil {
			t.Errorf("a mirror with something %s is taken for the tree", name)
		}
	}
}
