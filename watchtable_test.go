// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// A watch's error is known when the last event is, although the handle ends a moment later (WT-40).
func TestWatchErrWaitsForHandle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Member{watches: newWatchTable()}
		m.clock.start(time.Now)
		l := newLive(m, 1, 1, SessionConfig{Timeout: time.Minute}, time.Now())
		w := &Watch{s: &Session{live: l}, ctx: t.Context(), r: &receiver{session: l, ch: make(chan Event, 3)}}
		m.watches.register(w.r, "/x", false, watchPersistent)
		got := make(chan error, 1)
		go func() {
			for range w.Events() {
			}
			got <- w.Err()
		}()
		m.watches.endSession(l, StateExpired)
		synctest.Wait()
		l.finish(StateExpired, ErrSessionExpired)
		if err := <-got; !errors.Is(err, ErrSessionExpired) {
			t.Error(err)
		}
	})
}

// observed is what a watch of each kind is to keep its owner informed of.
func observed(s *state, kind, path string) string {
	n := s.nodes[path]
	children := func(n *znode) string {
		var names []string
		childrenAfter(&n.content, n.path, "", func(c *znode) bool {
			names = append(names, fmt.Sprintf("%s:%d", c.path, c.czxid))
			return true
		})
		return strings.Join(names, " ")
	}
	if n == nil && kind != "recursive" {
		return ""
	}
	switch kind {
	case "data":
		return fmt.Sprint(n.czxid, n.mzxid)
	case "child":
		return fmt.Sprint(n.czxid, children(n))
	case "childset":
		return children(n)
	case "persistent":
		return fmt.Sprint(n.czxid, n.mzxid, children(n))
	}
	var all []string
	for _, n := range s.nodes {
		if within(path, n.path) || n.path == path {
			all = append(all, fmt.Sprint(n.path, n.czxid, n.mzxid))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Whatever happened between two states, each watch whose owner would read something else hears of it when a snapshot
// replaces one by the other, and a watch where nothing happened hears nothing (WT-34, WT-35).
func TestDifference(t *testing.T) {
	kinds := []string{"data", "child", "persistent", "recursive", "childset"}
	paths := []string{"/", "/a", "/a/b", "/a/b/c", "/a/d", "/e"}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		id := w.open()
		act := func(label string) {
			for range rapid.IntRange(0, 12).Draw(t, label) {
				path := rapid.SampledFrom(paths[1:]).Draw(t, "path")
				w.txn(id, rapid.SampledFrom([]Op{
					OpCreate(path, nil, Persistent), OpCreate(path, nil, Parents), OpSet(path, nil, AnyVersion), OpDelete(path, AnyVersion),
					{kind: opDeleteTree, path: path},
				}).Draw(t, "op"))
			}
		}
		act("before")
		old := restored(t, w.state)
		act("meanwhile")
		// Any set of watches, each with a receiver of its own: some walks cover others.
		table := newWatchTable()
		l := &live{id: id}
		l.ids.Store(&[]Identity{})
		type ear struct {
			kind, path string
			events     []Event
		}
		var ears []*ear
		for _, path := range paths {
			for _, kind := range kinds {
				if !rapid.Bool().Draw(t, kind+path) {
					continue
				}
				if kind == "child" && old.nodes[path] == nil {
					continue // there is no such watch
				}
				e := &ear{kind: kind, path: path}
				ears = append(ears, e)
				r := &receiver{session: l, sink: func(ev Event) { e.events = append(e.events, ev) }}
				for _, k := range watchKeys(kind, path) {
					table.register(r, k.path, k.child, k.mode)
				}
			}
		}
		table.difference(old, w.state)
		for _, e := range ears {
			before, after := observed(old, e.kind, e.path), observed(w.state, e.kind, e.path)
			if before != after && len(e.events) == 0 {
				t.Fatalf("%s on %s heard nothing: %q became %q", e.kind, e.path, before, after)
			}
			for _, ev := range e.events {
				if ev.Zxid != w.zxid { // WT-18
					t.Fatalf("%s on %s: event %+v, the state is of %v", e.kind, e.path, ev, w.zxid)
				}
			}
		}
	})
}

// The differences, one by one (WT-34).
func TestDifferences(t *testing.T) {
	for _, tc := range []struct{ name, before, meanwhile, want string }{
		{"nothing", "+/a +/a/b", "", ""},
		{"elsewhere", "+/a", "+/e", ""},
		{"set twice", "+/a", "=/a =/a", "data 3:/a, persistent 3:/a, recursive 3:/a"},
		{"created", "", "+/a", "data 1:/a, persistent 1:/a, recursive 1:/a"},
		{"created and set", "", "+/a =/a", "data 1:/a, persistent 1:/a, recursive 1:/a"},
		{"created and deleted", "", "+/a -/a", ""},
		{"deleted", "+/a", "-/a", "data 2:/a, child 2:/a, persistent 2:/a, recursive 2:/a"},
		{"created again", "+/a", "-/a +/a", "data 2:/a, child 2:/a, persistent 2:/a 1:/a, recursive 2:/a 1:/a"},
		{"with a child", "", "+/a +/a/b", "data 1:/a, persistent 1:/a 4:/a, recursive 1:/a 1:/a/b, childset 4:/a"},
		{"a child created", "+/a", "+/a/b", "child 4:/a, persistent 4:/a, recursive 1:/a/b, childset 4:/a"},
		{"a child created and deleted", "+/a", "+/a/b -/a/b", "child 4:/a, persistent 4:/a, childset 4:/a"},
		{"a child set", "+/a +/a/b", "=/a/b", "recursive 3:/a/b"},
		{"a child created again", "+/a +/a/b", "-/a/b +/a/b", "child 4:/a, persistent 4:/a, recursive 2:/a/b 1:/a/b, childset 4:/a"},
		{"an ACL set", "+/a", "!/a", ""},
		{"deleted with a child", "+/a +/a/b", "-/a/b -/a", "data 2:/a, child 4:/a, persistent 4:/a 2:/a, recursive 2:/a/b 2:/a, childset 4:/a"},
		{"created again without its child", "+/a +/a/b", "-/a/b -/a +/a",
			"data 2:/a, child 4:/a, persistent 4:/a 2:/a 1:/a, recursive 2:/a/b 2:/a 1:/a, childset 4:/a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld()
			id := w.open()
			play := func(script string) {
				for _, step := range strings.Fields(script) {
					path := step[1:]
					w.must(t, id, map[byte]Op{
						'+': OpCreate(path, nil, Persistent), '=': OpSet(path, nil, AnyVersion), '-': OpDelete(path, AnyVersion),
						'!': {kind: opSetACL, path: path, acl: OpenACL(), version: AnyVersion},
					}[step[0]])
				}
			}
			play(tc.before)
			old := restored(t, w.state)
			play(tc.meanwhile)
			// Each kind by itself, and all together: a walk that comes by anyway fires the same.
			for _, together := range []bool{false, true} {
				table := newWatchTable()
				l := &live{id: id}
				l.ids.Store(&[]Identity{})
				var got []string
				heard := map[string][]string{}
				kinds := []string{"data", "child", "persistent", "recursive", "childset"}
				for _, kind := range kinds {
					if kind == "child" && old.nodes["/a"] == nil {
						continue // there is no such watch
					}
					r := &receiver{session: l, sink: func(ev Event) { heard[kind] = append(heard[kind], fmt.Sprintf("%d:%s", ev.Type, ev.Path)) }}
					for _, k := range watchKeys(kind, "/a") {
						table.register(r, k.path, k.child, k.mode)
					}
					if !together {
						table.difference(old, w.state)
						table = newWatchTable()
					}
				}
				table.difference(old, w.state)
				for _, kind := range kinds {
					if heard[kind] != nil {
						got = append(got, kind+" "+strings.Join(heard[kind], " "))
					}
				}
				if got := strings.Join(got, ", "); got != tc.want {
					t.Errorf("together %v\n got: %s\nwant: %s", together, got, tc.want)
				}
			}
		})
	}
}

// Two configurations may have been committed at one zxid: their difference is one all the same (WT-34).
func TestConfigDifference(t *testing.T) {
	w := newWorld()
	l := &live{id: w.open()}
	l.ids.Store(&[]Identity{})
	w.configure([]server{{"m1", true}, {"m2", true}})
	w.settle()
	old := restored(t, w.state)
	w.configure([]server{{"m1", true}})
	w.settle()
	if old.zxid != w.zxid {
		t.Fatalf("zxid %v was %v", w.zxid, old.zxid)
	}
	for _, kind := range []string{"data", "persistent", "recursive"} {
		var heard []Event
		table := newWatchTable()
		r := &receiver{session: l, sink: func(ev Event) { heard = append(heard, ev) }}
		for _, k := range watchKeys(kind, configPath) {
			table.register(r, k.path, k.child, k.mode)
		}
		table.difference(old, w.state)
		if want := []Event{{Type: EventChanged, Path: configPath, Zxid: w.zxid}}; !slices.Equal(heard, want) {
			t.Errorf("%s heard %+v", kind, heard)
		}
		table.difference(w.state, restored(t, w.state))
		if len(heard) != 1 {
			t.Errorf("%s heard %+v of nothing", kind, heard[1:])
		}
	}
}
