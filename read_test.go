// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// single opens a volatile ensemble of one and a session.
func single(t *testing.T, cfg zk.Config) (context.Context, *zk.Member, *zk.Session) {
	t.Helper()
	m := open(t, cfg)
	return t.Context(), m, session(t, t.Context(), m)
}

// acl creates a znode with that list.
func withACL(t *testing.T, ctx context.Context, s *zk.Session, path string, acl ...zk.ACL) {
	t.Helper()
	_, err := s.Do(ctx, zk.OpCreate(path, []byte("data"), zk.Persistent).WithACL(acl...))
	must(t, err)
}

func world(p zk.Perm) zk.ACL { return zk.ACL{Perm: p, Scheme: "world", ID: "anyone"} }

// What each read says of a znode that is there, that is not, and that may not be read; and that a read which fails
// leaves no watch behind.
func TestReads(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member((leader(t, ctx, c) + 1) % 3)
		s := session(t, ctx, m)
		_, err := s.Create(ctx, "/a", []byte("x"), zk.Persistent)
		must(t, err)
		for _, name := range []string{"z", "B", "a", "é", "10", "9"} {
			create(t, ctx, s, "/a/"+name, zk.Persistent)
		}
		create(t, ctx, s, "/a/z/deeper", zk.Persistent)
		withACL(t, ctx, s, "/secret", world(zk.PermAll&^zk.PermRead))
		watches := m.Stats().Watches
		for _, k := range []struct {
			path string
			code zk.Code
		}{{"/missing", zk.ErrNoNode}, {"/missing/x", zk.ErrNoNode}, {"/secret", zk.ErrNoAuth}, {"/a/", zk.ErrBadArguments}} {
			_, _, err := s.Get(ctx, k.path) // DM-46
			wants(t, err, k.code)
			_, _, err = s.GetString(ctx, k.path)
			wants(t, err, k.code)
			_, _, _, err = s.GetW(ctx, k.path)
			wants(t, err, k.code)
			_, _, err = s.Children(ctx, k.path) // DM-47
			wants(t, err, k.code)
			_, _, _, err = s.ChildrenW(ctx, k.path)
			wants(t, err, k.code)
			wants(t, lastError(s.ChildrenSeq(ctx, k.path, "")), k.code)
			wants(t, lastError(s.Sequential(ctx, k.path)), k.code)
			if k.code != zk.ErrNoAuth { // Walk leaves out what may not be read, but for its root
				wants(t, lastError(s.Walk(ctx, k.path)), k.code)
			}
			st, ok, err := s.Exists(ctx, k.path) // DM-45
			if k.code == zk.ErrNoNode {
				must(t, err)
			} else {
				wants(t, err, k.code)
			}
			if ok || st != (zk.Stat{}) {
				t.Errorf("%s exists: %+v", k.path, st)
			}
		}
		if n := m.Stats().Watches; n != watches {
			t.Errorf("reads that failed left %d watches", n-watches)
		}

		// Data, children and Stat are of one moment, on any member.
		data, st, err := s.Get(ctx, "/a")
		must(t, err)
		names, st2, err := s.Children(ctx, "/a")
		must(t, err)
		if want := []string{"10", "9", "B", "a", "z", "é"}; !slices.Equal(names, want) { // last segments, in byte order
			t.Errorf("children %q, want %q", names, want)
		}
		if string(data) != "x" || st != st2 || st.NumChildren != len(names) || st.DataLength != 1 {
			t.Errorf("data %q, %+v, %+v", data, st, st2)
		}
		if names, _, err := s.Children(ctx, "/a/9"); err != nil || names == nil || len(names) != 0 {
			t.Errorf("a leaf has children %q, %v", names, err)
		}
		data[0] = 'y' // Get's data is the caller's
		if again, _, err := s.GetString(ctx, "/a"); err != nil || again != "x" {
			t.Errorf("data is %q, %v", again, err)
		}

		// The watch of exists is set whether or not the znode is there, those of the others where they succeed.
		_, ok, made, err := s.ExistsW(ctx, "/new")
		must(t, err)
		if ok {
			t.Error("/new exists")
		}
		_, _, changed, err := s.GetW(ctx, "/a")
		must(t, err)
		_, _, children, err := s.ChildrenW(ctx, "/a")
		must(t, err)
		if n := m.Stats().Watches; n != watches+3 {
			t.Errorf("%d watches, want 3", n-watches)
		}
		create(t, ctx, s, "/new", zk.Persistent)
		_, err = s.Set(ctx, "/a", nil, zk.AnyVersion)
		must(t, err)
		must(t, s.Delete(ctx, "/a/9", zk.AnyVersion))
		for _, w := range []struct {
			ch   <-chan zk.Event
			want zk.EventType
		}{{made, zk.EventCreated}, {changed, zk.EventChanged}, {children, zk.EventChildren}} {
			if ev := next(t, w.ch); ev.Type != w.want {
				t.Errorf("event %+v, want %v", ev, w.want)
			}
		}

		// DM-24: null is not empty, through every read.
		for _, v := range [][]byte{nil, {}} {
			_, err := s.Set(ctx, "/a", v, zk.AnyVersion)
			must(t, err)
			got, st, err := s.Get(ctx, "/a")
			must(t, err)
			listened, _, _, err := s.Listener().Read(ctx, "/a", false)
			must(t, err)
			if (got == nil) != (v == nil) || (listened == nil) != (v == nil) || len(got) != 0 || st.DataLength != 0 {
				t.Errorf("%#v is read as %#v and %#v, %+v", v, got, listened, st)
			}
		}
	})
}

// lastError runs through a sequence and returns its last error.
func lastError[T any](seq iter.Seq2[T, error]) (err error) {
	for _, e := range seq {
		err = e
	}
	return err
}

// The embedded API validates paths in full before it sends anything, through a Sub handle too: no request is written
// for a bad one (DM-10). The empty path, an alias of the root for ZooKeeper, is refused (DM-8).
func TestEmbeddedPaths(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	create(t, ctx, s, "/a", zk.Persistent)
	create(t, ctx, s, "/ab", zk.Persistent)
	create(t, ctx, s, "/a/b", zk.Persistent)
	acl := zk.OpenACL()
	for handle, s := range map[string]*zk.Session{"session": s, "sub": s.Sub("/a"), "root": s.Sub("/")} {
		for _, p := range []string{"", "b", "a", "/b/", "//", "/b//c", "/.", "/..", "/b/../c", "/\x00", "/\x1f", "/\u009f", "/\ue000", "/\ufffd", "/\xff", "/\U0001F600", strings.Repeat("/x", 513), "/" + strings.Repeat("x", 16<<10)} {
			before := m.Applied()
			for op, call := range map[string]func() error{
				"create": func() error { _, err := s.Create(ctx, p, nil, zk.Persistent); return err },
				"set":    func() error { _, err := s.Set(ctx, p, nil, zk.AnyVersion); return err },
				"delete": func() error { return s.Delete(ctx, p, zk.AnyVersion) },
				"tree":   func() error { return s.DeleteTree(ctx, p) },
				"setacl": func() error { _, err := s.SetACL(ctx, p, acl, zk.AnyVersion); return err },
				"check":  func() error { _, err := s.Do(ctx, zk.OpCheck(p, zk.AnyVersion)); return err },
				"guard":  func() error { _, err := s.Txn(ctx, zk.OpCheckAbsent(p), zk.OpCheckAbsent("/fine")); return err },
				"get":    func() error { _, _, err := s.Get(ctx, p); return err },
				"exists": func() error { _, _, err := s.Exists(ctx, p); return err },
				"list":   func() error { _, _, err := s.Children(ctx, p); return err },
				"seq":    func() error { return lastError(s.ChildrenSeq(ctx, p, "")) },
				"sorted": func() error { return lastError(s.Sequential(ctx, p)) },
				"before": func() error { _, _, err := s.Preceding(ctx, p, func(string) bool { return true }); return err },
				"getacl": func() error { _, _, err := s.GetACL(ctx, p); return err },
				"getw":   func() error { _, _, _, err := s.GetW(ctx, p); return err },
				"watch":  func() error { _, err := s.Watch(ctx, p, zk.WatchNode); return err },
				"walk":   func() error { return lastError(s.Walk(ctx, p)) },
				"view": func() error {
					return s.View(ctx, func(v *zk.View) error { _, err := v.Get(p); return err })
				},
				"held": func() error { _, _, err := s.ContextWhile(ctx, p, 1); return err },
			} {
				if err := call(); !errors.Is(err, zk.ErrBadArguments) {
					t.Errorf("%s: %s %.20q: %v", handle, op, p, err)
				}
			}
			if now := m.Applied(); now != before {
				t.Errorf("%s: %.20q took %d zxids", handle, p, now-before)
			}
		}
	}
	// A listener's reads take it for the root, as clients of ZooKeeper expect.
	l := s.Listener()
	_, root, _, err := l.Read(ctx, "/", false)
	must(t, err)
	_, st, _, err := l.Read(ctx, "", false)
	if err != nil || st != root {
		t.Errorf("read: %+v, %v", st, err)
	}
	if st, ok, _, err := l.Stat(ctx, "", false); !ok || err != nil || st != root {
		t.Errorf("stat: %+v, %v", st, err)
	}
	if names, st, _, err := l.List(ctx, "", false); err != nil || st != root || !slices.Equal(names, []string{"a", "ab", "zookeeper"}) {
		t.Errorf("list: %q, %+v, %v", names, st, err)
	}
	if n, _, err := l.Descendants(ctx, ""); err != nil || n != 6 {
		t.Errorf("descendants: %d, %v", n, err)
	}
	if got, _, err := l.MultiRead(ctx, zk.ReadRequest{Path: ""}, zk.ReadRequest{Path: "", Children: true}); err != nil || got[0].Stat != root || len(got[1].Names) != 3 {
		t.Errorf("multi: %+v, %v", got, err)
	}
	// A sequential create is validated with a digit appended: the number can be the whole name, or follow a dot.
	for i, p := range []string{"/a/", "/a/.", "/a/.."} {
		z, err := s.Create(ctx, p, nil, zk.Sequential)
		if want := fmt.Sprintf("%s%010d", p, 1+i); err != nil || z.Path != want {
			t.Errorf("%q: %q, %v, want %q", p, z.Path, err, want)
		}
	}
	_, err = s.Create(ctx, "/a//", nil, zk.Sequential)
	wants(t, err, zk.ErrBadArguments)
}

// Each znode is counted once (DM-16), and so are the bytes of its path and data (DM-123).
func TestStateIsCounted(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	l := s.Listener()
	count := func(path string) int {
		t.Helper()
		n, _, err := l.Descendants(ctx, path)
		must(t, err)
		return n
	}
	fresh := int64(len("/") + len("/zookeeper") + len("/zookeeper/quota") + len("/zookeeper/config"))
	if st := m.Stats(); st.Znodes != 4 || st.DataBytes != fresh || st.Ephemerals != 0 {
		t.Errorf("a fresh member has %d znodes of %d bytes", st.Znodes, st.DataBytes)
	}
	if n := count("/"); n != 3 { // DM-48: all but the root itself
		t.Errorf("%d below the root", n)
	}
	_, err := s.Create(ctx, "/a", []byte("12345"), zk.Persistent)
	must(t, err)
	create(t, ctx, s, "/a/b", zk.Ephemeral)
	create(t, ctx, s, "/a/c/d/e", zk.Parents)
	if st := m.Stats(); st.Znodes != 9 || st.Ephemerals != 1 || st.DataBytes != fresh+int64(len("/a12345/a/b/a/c/a/c/d/a/c/d/e")) {
		t.Errorf("%d znodes of %d bytes, %d ephemerals", st.Znodes, st.DataBytes, st.Ephemerals)
	}

	// DM-48: descendants are counted whether or not they can be read; the znode itself must be.
	for path, want := range map[string]int{"/": 8, "/a": 4, "/a/c": 2, "/a/b": 0} {
		if n := count(path); n != want {
			t.Errorf("%d below %s, want %d", n, path, want)
		}
	}
	_, err = s.SetACL(ctx, "/a/c", []zk.ACL{world(zk.PermAll &^ zk.PermRead)}, zk.AnyVersion)
	must(t, err)
	if n := count("/a"); n != 4 {
		t.Errorf("%d below /a", n)
	}
	_, _, err = l.Descendants(ctx, "/a/c")
	wants(t, err, zk.ErrNoAuth)
	_, _, err = l.Descendants(ctx, "/missing")
	wants(t, err, zk.ErrNoNode)

	// DM-49: a session's own ephemerals, by a plain prefix, whoever may read them.
	for _, p := range []string{"/eph", "/ep", "/e", "/f"} {
		create(t, ctx, s, p, zk.Ephemeral)
	}
	o := session(t, ctx, m)
	create(t, ctx, o, "/ephemeral-of-another", zk.Ephemeral)
	_, err = s.SetACL(ctx, "/eph", []zk.ACL{world(0)}, zk.AnyVersion)
	must(t, err)
	for prefix, want := range map[string]string{"/ep": "/ep /eph", "": "/a/b /e /ep /eph /f", "/": "/a/b /e /ep /eph /f", "/a/": "/a/b", "/x": ""} {
		paths, _, err := l.Ephemerals(ctx, prefix)
		must(t, err)
		if got := strings.Join(paths, " "); got != want {
			t.Errorf("ephemerals %q: %s, want %s", prefix, got, want)
		}
	}
}

// MultiRead answers each question for itself, all from one state (DM-66).
func TestMultiRead(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	create(t, ctx, s, "/a/b", zk.Parents)
	_, err := s.Set(ctx, "/a", []byte("x"), zk.AnyVersion)
	must(t, err)
	withACL(t, ctx, s, "/secret", world(zk.PermWrite))
	got, z, err := s.Listener().MultiRead(ctx,
		zk.ReadRequest{Path: "/a"}, zk.ReadRequest{Path: "/missing"}, zk.ReadRequest{Path: "/secret", Children: true}, zk.ReadRequest{Path: "/a", Children: true}, zk.ReadRequest{Path: "/a/b"})
	must(t, err)
	if z != m.Applied() || len(got) != 5 {
		t.Fatalf("%d results at %v", len(got), z)
	}
	for i, want := range []zk.Code{0, zk.ErrNoNode, zk.ErrNoAuth, 0, 0} {
		if got[i].Code != want {
			t.Errorf("question %d: %v, want %v", i, got[i].Code, want)
		}
	}
	if string(got[0].Data) != "x" || !slices.Equal(got[3].Names, []string{"b"}) || got[0].Stat != got[3].Stat || got[4].Data != nil {
		t.Errorf("%+v", got)
	}
	if got, _, err := s.Listener().MultiRead(ctx); err != nil || len(got) != 0 {
		t.Errorf("no question: %v, %v", got, err)
	}
}

// Sync returns when everything that was answered anywhere before it is applied here; it writes nothing and asks for
// no permission (DM-51). A read after it is linearizable (P6).
func TestSync(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{DisableCommitNotice: true}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		w, r := session(t, ctx, c.Member(l)), session(t, ctx, c.Member((l+1)%3))
		create(t, ctx, w, "/v", zk.Persistent)
		must(t, r.Sync(ctx))
		stale := 0
		for i := range 20 {
			st, err := w.Set(ctx, "/v", fmt.Append(nil, i), zk.AnyVersion)
			must(t, err)
			_, before, err := r.Get(ctx, "/v")
			must(t, err)
			if before.Mzxid < st.Mzxid {
				stale++
			}
			must(t, r.Sync(ctx))
			if _, after, err := r.Get(ctx, "/v"); err != nil || after.Mzxid != st.Mzxid {
				t.Fatalf("after sync: %+v, want %+v, %v", after, st, err)
			}
			if z := c.Member(l).Applied(); z != st.Mzxid {
				t.Fatalf("sync took zxid %v", z)
			}
		}
		if stale == 0 {
			t.Error("the follower was never behind: sync had nothing to do")
		}
		_, err := w.SetACL(ctx, "/", []zk.ACL{world(0)}, zk.AnyVersion)
		must(t, err)
		must(t, r.Sync(ctx))
	})
}

// Ordered children, in pages and from every place, against a sorted slice: ChildrenSeq, Sequential, Preceding and
// View.Prev.
func TestOrderedChildren(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	rnd := rand.New(rand.NewPCG(5, 6))
	create(t, ctx, s, "/d", zk.Persistent)
	var names, numbered []string // numbered: in the order of their numbers
	for i := range 700 {
		mode, prefix := zk.Persistent, fmt.Sprintf("%x", rnd.Uint32())
		switch rnd.IntN(4) {
		case 0:
			mode = zk.Sequential
			prefix = []string{"", "n-", "m-", fmt.Sprintf("_%08x-", rnd.Uint32())}[rnd.IntN(4)]
		case 1:
			if len(names) > 100 {
				i := rnd.IntN(len(names))
				must(t, s.Delete(ctx, "/d/"+names[i], zk.AnyVersion))
				numbered = slices.DeleteFunc(numbered, func(n string) bool { return n == names[i] })
				names = slices.Delete(names, i, i+1)
				continue
			}
		}
		z, err := s.Create(ctx, "/d/"+prefix, fmt.Append(nil, i), mode)
		must(t, err)
		name := strings.TrimPrefix(z.Path, "/d/")
		names = append(names, name)
		if mode == zk.Sequential {
			numbered = append(numbered, name)
		}
	}
	slices.Sort(names)
	collect := func(seq iter.Seq2[string, error], most int) (got []string) {
		t.Helper()
		for name, err := range seq {
			must(t, err)
			if got = append(got, name); len(got) == most {
				break
			}
		}
		return got
	}
	sub := s.Sub("/d")
	if got := collect(s.ChildrenSeq(ctx, "/d", ""), -1); !slices.Equal(got, names) {
		t.Errorf("%d names, want %d", len(got), len(names))
	}
	if got := collect(sub.ChildrenSeq(ctx, "/", ""), -1); !slices.Equal(got, names) {
		t.Errorf("through Sub %d names, want %d", len(got), len(names))
	}
	if got, _, err := s.Children(ctx, "/d"); err != nil || !slices.Equal(got, names) {
		t.Errorf("%d names, want %d, %v", len(got), len(names), err)
	}
	must(t, m.View(ctx, func(v *zk.View) error {
		if got := collect(v.Children("/d"), -1); !slices.Equal(got, names) {
			t.Errorf("the View has %d names, want %d", len(got), len(names))
		}
		for range 300 {
			pivot := fmt.Sprintf("%x", rnd.Uint32())
			if rnd.IntN(2) == 0 {
				pivot = names[rnd.IntN(len(names))]
			}
			i, there := slices.BinarySearch(names, pivot)
			prev, ok, err := v.Prev("/d", pivot)
			must(t, err)
			if ok != (i > 0) || ok && prev != names[i-1] {
				t.Fatalf("before %q: %q, %v", pivot, prev, ok)
			}
			if there {
				i++
			}
			most := 1 + rnd.IntN(300)
			if got := collect(s.ChildrenSeq(ctx, "/d", pivot), most); !slices.Equal(got, names[i:min(i+most, len(names))]) {
				t.Fatalf("after %q: %d names", pivot, len(got))
			}
		}
		return nil
	}))
	for _, h := range []struct {
		s   *zk.Session
		dir string
	}{{s, "/d"}, {sub, "/"}} {
		var got []string
		for z, err := range h.s.Sequential(ctx, h.dir) {
			must(t, err)
			if data, st, err := h.s.GetString(ctx, z.Path); err != nil || data != z.Data || st != z.Stat {
				t.Fatalf("%+v is %q, %+v, %v", z, data, st, err)
			}
			got = append(got, z.Path[strings.LastIndex(z.Path, "/")+1:])
		}
		if !slices.Equal(got, numbered) {
			t.Errorf("%s: in order %q, want %q", h.dir, got, numbered)
		}
	}
	odd := func(name string) bool { return name[len(name)-1]%2 == 1 }
	for i, name := range numbered {
		want := ""
		for _, n := range numbered[:i] {
			if odd(n) {
				want = n
			}
		}
		z, ok, err := s.Preceding(ctx, "/d/"+name, odd)
		must(t, err)
		if ok != (want != "") || ok && z.Path != "/d/"+want {
			t.Fatalf("before %s comes %+v, want %s", name, z, want)
		}
		if data, _, _ := s.GetString(ctx, z.Path); ok && data != z.Data {
			t.Fatalf("%s has %q, not %q", z.Path, data, z.Data)
		}
	}
	_, _, err := s.Preceding(ctx, "/d/missing", odd)
	wants(t, err, zk.ErrNoNode)
	_, _, err = s.Preceding(ctx, "/", odd)
	wants(t, err, zk.ErrNoNode)
}

// A listing in pages goes on while the directory changes: what is there throughout comes once, in order.
func TestListingWhileChanging(t *testing.T) {
	ctx, _, s := single(t, zk.Config{})
	create(t, ctx, s, "/d", zk.Persistent)
	var stay []string
	for i := range 1000 {
		create(t, ctx, s, fmt.Sprintf("/d/%04d-%010d", 2*i, i), zk.Persistent)
		stay = append(stay, fmt.Sprintf("%04d-%010d", 2*i, i))
	}
	for what, list := range map[string]func() iter.Seq2[string, error]{
		"by name": func() iter.Seq2[string, error] { return s.ChildrenSeq(ctx, "/d", "") },
		"by number": func() iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				for z, err := range s.Sequential(ctx, "/d") {
					if !yield(strings.TrimPrefix(z.Path, "/d/"), err) {
						return
					}
				}
			}
		},
	} {
		n, at := 0, 0
		for name, err := range list() {
			must(t, err)
			if at < len(stay) && name == stay[at] {
				at++
			}
			// One is made before and one behind, and the one made last goes.
			if n++; n%7 == 0 {
				create(t, ctx, s, fmt.Sprintf("/d/%04d-%010d", n, n), zk.Persistent)
				must(t, s.Delete(ctx, fmt.Sprintf("/d/%04d-%010d", n, n), zk.AnyVersion))
				create(t, ctx, s, fmt.Sprintf("/d/%04d-%s%010d", 1999-n%900, what[3:], 1000-n%900), zk.Persistent)
			}
			if n > 5000 {
				t.Fatalf("%s: no end", what)
			}
		}
		if at != len(stay) {
			t.Errorf("%s: %d of %d came, in order", what, at, len(stay))
		}
	}
}

// Listings have no limit of size (DM-92).
func TestLargeListing(t *testing.T) {
	ctx, _, s := single(t, zk.Config{})
	create(t, ctx, s, "/d", zk.Persistent)
	long := strings.Repeat("x", 900)
	const count = 2500
	for i := 0; i < count; {
		var ops []zk.Op
		for ; len(ops) < 500; i++ {
			ops = append(ops, zk.OpCreate(fmt.Sprintf("/d/%s%05d", long, i), nil, zk.Persistent))
		}
		_, err := s.Txn(ctx, ops...)
		must(t, err)
	}
	names, _, err := s.Children(ctx, "/d")
	must(t, err)
	if size := len(strings.Join(names, "")); len(names) != count || size < 2<<20 {
		t.Errorf("%d names of %d bytes", len(names), size)
	}
	n := 0
	for name, err := range s.ChildrenSeq(ctx, "/d", names[9]) {
		must(t, err)
		if name != names[n+10] {
			t.Fatalf("name %d is another", n)
		}
		n++
	}
	if n != count-10 {
		t.Errorf("%d names", n)
	}
}

// A View that is open when a snapshot is installed goes on showing its moment, and the session's reads never go back
// (P7).
func TestViewOverSnapshot(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		w, r := session(t, ctx, c.Member(l)), session(t, ctx, c.Member(f))
		for i := range 300 {
			_, err := w.Create(ctx, fmt.Sprintf("/d/%03d", i), []byte("old"), zk.Parents)
			must(t, err)
		}
		must(t, c.Quiesce(ctx))
		c.Isolate(f)
		must(t, r.View(ctx, func(v *zk.View) error {
			seen := r.LastZxid()
			step, stop := iter.Pull2(v.Walk("/d"))
			defer stop()
			n := 0
			take := func(most int) {
				for ; most > 0; most-- {
					z, err, ok := step()
					if !ok {
						return
					}
					must(t, err)
					if n > 0 && (z.Data != "old" || z.Path != fmt.Sprintf("/d/%03d", n-1)) {
						t.Fatalf("znode %d is %+v", n, z)
					}
					n++
				}
			}
			take(100)
			for i := range 300 {
				_, err := w.Set(ctx, fmt.Sprintf("/d/%03d", i), []byte("new"), zk.AnyVersion)
				must(t, err)
			}
			must(t, w.Delete(ctx, "/d/250", zk.AnyVersion))
			must(t, c.Member(l).Compact(ctx))
			must(t, c.Member((l+2)%3).Compact(ctx))
			c.Heal()
			must(t, c.Quiesce(ctx))
			if now := r.LastZxid(); now <= seen {
				t.Errorf("at %v after %v", now, seen)
			}
			if z, err := v.Get("/d/250"); err != nil || z.Data != "old" {
				t.Errorf("the View shows %+v, %v", z, err)
			}
			if _, _, err := r.Get(ctx, "/d/250"); !errors.Is(err, zk.ErrNoNode) {
				t.Errorf("the session reads what is gone: %v", err)
			}
			take(1000)
			if n != 301 {
				t.Errorf("%d znodes", n)
			}
			return nil
		}))
		if kept := c.Member(f).Stats().KeptBytes; kept != 0 {
			t.Errorf("%d bytes are kept for no View", kept)
		}
		time.Sleep(time.Second)
		must(t, c.Quiesce(ctx))
	})
}

// A backup is the state of one zxid, whatever is written meanwhile.
func TestBackup(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	for i := range 200 {
		create(t, ctx, s, fmt.Sprintf("/n%03d", i), zk.Persistent)
	}
	var first, second bytes.Buffer
	a, err := m.Backup(ctx, &first)
	must(t, err)
	b, err := m.Backup(ctx, &second)
	must(t, err)
	if a != m.Applied() || a != b || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("backups of %v and %v, %d and %d bytes", a, b, first.Len(), second.Len())
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := m.Backup(ended, &first); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}
