// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// backedUp is a backup of w, in parts of some bytes.
func backedUp(t *testing.T, s *state, size int) (parts []string) {
	t.Helper()
	var b bytes.Buffer
	f := s.freeze()
	_, err := f.write(&b, func(fn func()) { fn() })
	if err != nil {
		t.Fatal(err)
	}
	for more := true; more; more = s.closeView(f.view, 1000) {
	}
	for b.Len() > 0 {
		parts = append(parts, string(b.Next(size)))
	}
	return parts
}

func (w *world) part(id, number uint64, data string) Code {
	out, _ := w.do(request{kind: reqPart, restore: id, number: number, data: data})
	return out.code
}

func (w *world) restoreCode(id, number uint64) (Code, Zxid) {
	out, _ := w.do(request{kind: reqRestore, restore: id, number: number})
	return out.code, out.zxid
}

// A snapshot of many znodes, whose map grows with what has come, is the same state again.
func TestSnapshotOfMany(t *testing.T) {
	w := newWorld()
	id := w.open()
	for i := range Size(40, 400, 20_000) {
		ops := []Op{OpCreate(fmt.Sprint("/d", i), nil, Persistent)}
		for range 49 {
			ops = append(ops, OpCreate(fmt.Sprintf("/d%d/n-", i), []byte("x"), Sequential))
		}
		w.must(t, id, ops...)
	}
	b := restored(t, w.state)
	if b.digest() != w.digest() || len(b.nodes) != len(w.nodes) {
		t.Fatalf("%d znodes of %d, digests %x and %x", len(b.nodes), len(w.nodes), b.digest(), w.digest())
	}
	for p, n := range b.nodes {
		if n.path != p {
			t.Fatalf("%s is at %s", n.path, p)
		}
	}
	check(t, b)
}

// A restore takes over the znodes and nothing else: what belongs to the ensemble stays, sessions and ephemerals of
// either state are gone, and the zxid leaps above both (D10).
func TestRestoreOfTheState(t *testing.T) {
	for name, behind := range map[string]bool{"of an older state": false, "of a state that went further": true} {
		t.Run(name, func(t *testing.T) {
			from := sampleWorld()
			from.cluster, from.lastID = "another", from.lastID+1000
			if behind {
				from.zxid += 5000
			}
			w := newWorld()
			w.configure([]server{{"m1", true}, {"m2", true}})
			w.settle()
			id := w.open()
			w.must(t, id, OpCreate("/here", nil, Persistent), OpCreate("/e", nil, Ephemeral))
			before := *w.state
			parts := backedUp(t, from.state, 100)
			for i, p := range parts {
				if code := w.part(5, uint64(i), p); code != 0 {
					t.Fatalf("part %d: %v", i, code)
				}
			}
			want := max(w.zxid+1, from.zxid) + restoreLeap
			if w.nodes["/here"] == nil || w.session(id) == nil {
				t.Fatal("parts alone have changed something")
			}
			code, zxid := w.restoreCode(5, uint64(len(parts)))
			if code != 0 || zxid != want || w.zxid != want {
				t.Fatalf("%v at %v, now %v, want %v", code, zxid, w.zxid, want)
			}
			check(t, w.state)
			if w.cluster != before.cluster || w.term != before.term || w.now != max(before.now, from.now) || fmt.Sprint(w.servers) != fmt.Sprint(before.servers) ||
				fmt.Sprint(w.members) != fmt.Sprint(before.members) || w.lastID != from.lastID || w.sessions.Len() != 0 || w.ephemerals != 0 || w.staged != nil {
				t.Errorf("cluster %q term %d now %d servers %v members %v last %v, %d sessions, %d ephemerals",
					w.cluster, w.term, w.now, w.servers, w.members, w.lastID, w.sessions.Len(), w.ephemerals)
			}
			if text := w.nodes[configPath].data; !strings.HasPrefix(text, "server.m1=a1:participant\nserver.m2=:participant\n") {
				t.Errorf("config shows %q", text)
			}
			for _, s := range []string{"/here", "/e", "/p/e"} {
				if w.nodes[s] != nil {
					t.Errorf("%s is there", s)
				}
			}
			have, was := w.nodes["/p"].content, from.nodes["/p"].content
			if have.data != was.data || have.czxid != was.czxid || have.mzxid != was.mzxid || have.version != was.version || have.creates != was.creates || have.pzxid != want {
				t.Errorf("/p is %+v, was %+v", have.stat(), was.stat())
			}
			if code := w.code(id, OpCreate("/late", nil, Ephemeral)); code != ErrSessionExpired {
				t.Errorf("a session of the old state: %v", code)
			}
			sameListing(t, listing(restored(t, w.state)), listing(w.state))
			// The same requests lead another member to the same state (P18).
			other := newWorld()
			other.configure([]server{{"m1", true}, {"m2", true}})
			other.settle()
			for _, e := range w.log {
				other.advance(e.stamp)
				other.apply(e.raw, "m1", e.stamp)
				other.settle()
			}
			if a, b := w.digest(), other.digest(); a != b {
				t.Errorf("digests %x and %x", a, b)
			}
			if next := w.open(); next <= from.lastID {
				t.Errorf("session id %v again", next)
			}
		})
	}
}

// What does not fit together is refused and changes nothing; what is left behind is forgotten after a while.
func TestRestoreRefusals(t *testing.T) {
	w := newWorld()
	id := w.open()
	w.must(t, id, OpCreate("/here", nil, Persistent), OpCreate("/e", nil, Ephemeral))
	before := listing(w.state)
	parts := backedUp(t, sampleWorld().state, 300)
	whole := func(id uint64, parts ...string) Code {
		t.Helper()
		for i, p := range parts {
			if code := w.part(id, uint64(i), p); code != 0 {
				t.Fatalf("part %d: %v", i, code)
			}
		}
		code, _ := w.restoreCode(id, uint64(len(parts)))
		return code
	}
	wantCode := func(what string, got, want Code) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	code, _ := w.restoreCode(1, 0)
	wantCode("nothing staged", code, ErrUnavailable)
	wantCode("a later part first", w.part(1, 1, parts[1]), ErrUnavailable)
	wantCode("first part", w.part(1, 0, parts[0]), 0)
	wantCode("first part again", w.part(1, 0, parts[0]), ErrThrottled)
	wantCode("another restore", w.part(2, 0, parts[0]), ErrThrottled)
	wantCode("a gap", w.part(1, 2, parts[2]), ErrUnavailable)
	code, _ = w.restoreCode(1, 2)
	wantCode("too few parts", code, ErrUnavailable)
	code, _ = w.restoreCode(2, 1)
	wantCode("of another", code, ErrUnavailable)
	if w.do(request{kind: reqAbandon, restore: 2}); w.staged == nil {
		t.Error("another restore's parts were dropped")
	}
	if w.do(request{kind: reqAbandon, restore: 1}); w.staged != nil {
		t.Error("parts are left")
	}
	wantCode("damaged", whole(3, parts[0], parts[1]+"x", strings.Join(parts[2:], "")), ErrDataInconsistency)
	wantCode("cut short", whole(4, parts[0]), ErrDataInconsistency)
	if w.staged != nil {
		t.Error("parts are left")
	}
	wantCode("first part", w.part(5, 0, parts[0]), 0)
	w.stamp.now += restoreStall + 1
	wantCode("too late", w.part(5, 1, parts[1]), ErrUnavailable)
	if w.staged != nil {
		t.Error("parts are left")
	}
	sameListing(t, listing(w.state), before)
	check(t, w.state)
	wantCode("whole", whole(6, parts...), 0)
}
