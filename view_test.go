// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// alone opens a volatile ensemble of one and a session on it.
func alone(t *testing.T, cfg Config) (context.Context, *Member, *Session) {
	t.Helper()
	ctx := t.Context()
	m, err := Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := m.NewSession(ctx, SessionConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return ctx, m, s
}

// seen is a picture of the tree: what a View, or the model, has at each path.
type seen map[string]string

func lookAt(z Znode) string {
	return fmt.Sprintf("%q version %d, %d children", z.Data, z.Stat.Version, z.Stat.NumChildren)
}

// picture reads a whole View in every way there is, and fails where two ways differ.
func picture(t *testing.T, v *View) seen {
	all := seen{}
	last := ""
	for z, err := range v.Walk("/d") {
		if err != nil {
			t.Error(err)
			return nil
		}
		if z.Path <= last && !within(parentPath(last), z.Path) {
			t.Errorf("%s after %s", z.Path, last)
		}
		last = z.Path
		all[z.Path] = lookAt(z)
		if got, err := v.Get(z.Path); err != nil || got != z {
			t.Errorf("%s: walked %+v, got %+v, %v", z.Path, z, got, err)
		}
		var names []string
		before := ""
		for name, err := range v.Children(z.Path) {
			if err != nil {
				t.Error(err)
				return nil
			}
			prev, ok, err := v.Prev(z.Path, name)
			if err != nil || ok != (before != "") || prev != before {
				t.Errorf("%s: before %s comes %q, %v, want %q", z.Path, name, prev, err, before)
			}
			names = append(names, name)
			before = name
		}
		if len(names) != z.Stat.NumChildren || !slices.IsSorted(names) {
			t.Errorf("%s: children %q of %d", z.Path, names, z.Stat.NumChildren)
		}
	}
	return all
}

// Views that are read while writers go on show the tree as it was at their zxid, against a model of every zxid.
func TestViewsAgainstModel(t *testing.T) {
	ctx, m, s := alone(t, Config{})
	rounds := Size(300, 1500, 50_000)
	model := map[string]Znode{"/d": {Path: "/d"}}
	history := map[Zxid]seen{} // of what was written at each zxid
	var pictures []struct {
		zxid Zxid
		seen seen
	}
	var mu sync.Mutex // guards pictures
	if _, err := s.Create(ctx, "/d", nil, Persistent); err != nil {
		t.Fatal(err)
	}
	note := func(z Zxid) {
		now := seen{}
		for p, n := range model {
			now[p] = lookAt(n)
		}
		history[z] = now
	}
	note(s.LastZxid())
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := m.View(ctx, func(v *View) error {
					first := picture(t, v)
					if second := picture(t, v); !maps.Equal(first, second) {
						t.Error("a View changed")
					}
					mu.Lock()
					defer mu.Unlock()
					pictures = append(pictures, struct {
						zxid Zxid
						seen seen
					}{v.Zxid(), first})
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}

	rnd := rand.New(rand.NewPCG(1, 2))
	l := s.Listener()
	grow := func(path string) { // the parent's count follows
		p := model[parentPath(path)]
		p.Stat.NumChildren++
		model[parentPath(path)] = p
	}
	for i := range rounds {
		var ops []Op
		dir := fmt.Sprintf("/d/%c", 'a'+rnd.IntN(3))
		if _, ok := model[dir]; !ok {
			ops = append(ops, OpCreate(dir, nil, Persistent))
			model[dir] = Znode{Path: dir}
			grow(dir)
		}
		switch path := fmt.Sprintf("%s/%03d", dir, rnd.IntN(150)); {
		case rnd.IntN(200) == 0: // the whole directory goes at once
			if len(ops) == 0 {
				if err := s.DeleteTree(ctx, dir); err != nil {
					t.Fatal(err)
				}
				maps.DeleteFunc(model, func(p string, _ Znode) bool { return within(dir, p) })
				p := model["/d"]
				p.Stat.NumChildren--
				model["/d"] = p
				note(s.LastZxid())
				continue
			}
		case model[path].Path == "":
			ops = append(ops, OpCreate(path, fmt.Append(nil, i), Persistent))
			model[path] = Znode{Path: path, Data: fmt.Sprint(i)}
			grow(path)
		case rnd.IntN(3) == 0:
			ops = append(ops, OpDelete(path, AnyVersion))
			delete(model, path)
			p := model[dir]
			p.Stat.NumChildren--
			model[dir] = p
		default:
			ops = append(ops, OpSet(path, fmt.Append(nil, i), AnyVersion))
			n := model[path]
			n.Data = fmt.Sprint(i)
			n.Stat.Version++
			model[path] = n
		}
		if len(ops) == 0 {
			continue
		}
		call := <-l.Go(ctx, nil, ops...).Done
		if call.Error != nil {
			t.Fatal(call.Error)
		}
		note(call.Zxid)
	}
	close(stop)
	readers.Wait()
	for _, p := range pictures {
		want, ok := history[p.zxid]
		if !ok {
			t.Fatalf("a View is of %v, when nothing was written", p.zxid)
		}
		if !maps.Equal(p.seen, want) {
			t.Fatalf("at %v a View has %d znodes %v, want %d %v", p.zxid, len(p.seen), p.seen, len(want), want)
		}
	}
	t.Logf("%d Views of %d zxids", len(pictures), len(history))
	nothingKept(t, m.fsm.st)
	if kept := m.Stats().KeptBytes; kept != 0 {
		t.Errorf("%d bytes are kept for no View", kept)
	}
}

// Past the bound the oldest View ends, and with it alone what it kept; a backup comes to its end all the same (D7,
// P21).
func TestViewExpires(t *testing.T) {
	ctx, m, s := alone(t, Config{})
	const limit = 64 << 10
	m.fsm.mu.Lock()
	m.fsm.st.vers.limit = limit
	m.fsm.mu.Unlock()
	value := bytes.Repeat([]byte("x"), 8<<10)
	const count = 20
	path := func(i int) string { return fmt.Sprintf("/n%02d", i) }
	for i := range count {
		if _, err := s.Create(ctx, path(i), value, Persistent); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 * chunk {
		if _, err := s.Create(ctx, fmt.Sprintf("/many/%02d", i), nil, Parents); err != nil {
			t.Fatal(err)
		}
	}
	set := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if _, err := s.Set(ctx, path(i), []byte("new"), AnyVersion); err != nil {
				t.Fatal(err)
			}
			if kept := m.Stats().KeptBytes; kept > limit+int64(len(value))+keptOverhead {
				t.Fatalf("%d bytes are kept", kept)
			}
		}
	}
	expired := func(v *View) {
		t.Helper()
		for what, err := range map[string]error{
			"get":      func() error { _, err := v.Get(path(0)); return err }(),
			"prev":     func() error { _, _, err := v.Prev("/", "x"); return err }(),
			"walk":     last(v.Walk("/")),
			"children": last(v.Children("/")),
		} {
			if !errors.Is(err, ErrViewExpired) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if err := s.View(ctx, func(old *View) error {
		next, stop := iter.Pull2(old.Children("/many"))
		defer stop()
		set(0, 3)
		return m.View(ctx, func(young *View) error {
			set(3, 6)
			if z, err := old.Get(path(0)); err != nil || z.Data != string(value) {
				t.Errorf("the old View before the bound: %d bytes, %v", len(z.Data), err)
			}
			name, err, ok := next()
			if !ok || err != nil || name != "00" {
				t.Errorf("listing: %q, %v", name, err)
			}
			set(6, 9)
			expired(old)
			for ok && err == nil { // the end comes in the middle of a listing as well
				_, err, ok = next()
			}
			if !errors.Is(err, ErrViewExpired) {
				t.Errorf("the listing ends with %v", err)
			}
			if z, err := young.Get(path(8)); err != nil || z.Data != string(value) {
				t.Errorf("the young View: %d bytes, %v", len(z.Data), err)
			}
			if z, err := young.Get(path(2)); err != nil || z.Data != "new" {
				t.Errorf("the young View: %q, %v", z.Data, err)
			}
			set(9, count)
			expired(young)
			expired(old)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	nothingKept(t, m.fsm.st)

	// A backup is never cut short: what it keeps is bounded by the data.
	for i := range count {
		if _, err := s.Set(ctx, path(i), value, AnyVersion); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	want := listing(m.fsm.st)
	z, err := m.Backup(ctx, writerFunc(func(p []byte) (int, error) {
		if out.Len() > 0 {
			return out.Write(p)
		}
		// A View that is younger goes first, and hands on what the backup still needs.
		if err := m.View(ctx, func(young *View) error {
			set(0, count)
			expired(young)
			return nil
		}); err != nil {
			return 0, err
		}
		return out.Write(p)
	}))
	if err != nil {
		t.Fatal(err)
	}
	st, err := readSnapshot(&out)
	if err != nil {
		t.Fatal(err)
	}
	sameListing(t, listing(st), want)
	if st.zxid != z {
		t.Errorf("backup of %v, said %v", st.zxid, z)
	}
	nothingKept(t, m.fsm.st)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

var _ io.Writer = writerFunc(nil)

// last runs through a sequence and returns its last error.
func last[T any](seq func(func(T, error) bool)) (err error) {
	seq(func(_ T, e error) bool {
		err = e
		return true
	})
	return err
}

// A View is good inside its function alone, its error is the function's, and what is missing or wrong has its code.
func TestViewEnds(t *testing.T) {
	ctx, m, s := alone(t, Config{})
	boom := errors.New("boom")
	var kept *View
	if err := s.View(ctx, func(v *View) error {
		kept = v
		_, err := v.Get("/missing")
		if !errors.Is(err, ErrNoNode) {
			t.Error(err)
		}
		if _, err := v.Get("bad"); !errors.Is(err, ErrBadArguments) {
			t.Error(err)
		}
		if err := last(v.Walk("/missing")); !errors.Is(err, ErrNoNode) {
			t.Error(err)
		}
		return boom
	}); err != boom {
		t.Errorf("the function's error became %v", err)
	}
	if _, err := kept.Get("/"); !errors.Is(err, ErrClosed) {
		t.Errorf("a View was used after its function: %v", err)
	}
	if err := last(kept.Walk("/")); !errors.Is(err, ErrClosed) {
		t.Errorf("a View was used after its function: %v", err)
	}
	func() { // a panic of the function lets go of what was kept as well
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		m.View(ctx, func(*View) error { panic("user") })
	}()
	nothingKept(t, m.fsm.st)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.View(ended, func(*View) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if err := last(s.Walk(ended, "/")); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// A View without a function is the caller's mistake, and an error like any other.
func TestViewNeedsFunction(t *testing.T) {
	ctx, m, s := alone(t, Config{})
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("panic: %v", p)
		}
		nothingKept(t, m.fsm.st)
	}()
	if err := m.View(ctx, nil); !errors.Is(err, ErrBadArguments) {
		t.Errorf("Member.View: %v", err)
	}
	if err := s.View(ctx, nil); !errors.Is(err, ErrBadArguments) {
		t.Errorf("Session.View: %v", err)
	}
}

// A session's View and Walk leave out what the session may not read, and show the paths of its handle.
func TestViewPermissions(t *testing.T) {
	ctx, m, s := alone(t, Config{})
	secret := OpCreate("/a/secret", []byte("s"), Persistent).WithACL(ACL{PermAll &^ PermRead, schemeWorld, "anyone"})
	if _, err := s.Txn(ctx, OpCreate("/a", nil, Persistent), secret, OpCreate("/a/secret/below", nil, Persistent), OpCreate("/a/open", nil, Persistent), OpCreate("/a/secrets", nil, Persistent)); err != nil {
		t.Fatal(err)
	}
	walked := func(v *View, root string) string {
		var paths []string
		for z, err := range v.Walk(root) {
			if err != nil {
				t.Error(err)
			}
			paths = append(paths, z.Path)
		}
		return strings.Join(paths, " ")
	}
	for name, c := range map[string]struct {
		view func(func(*View) error) error
		root string
		want string
		code Code
	}{
		"session": {func(fn func(*View) error) error { return s.View(ctx, fn) }, "/a", "/a /a/open /a/secrets", ErrNoAuth},
		"sub":     {func(fn func(*View) error) error { return s.Sub("/a").View(ctx, fn) }, "/", "/ /open /secrets", ErrNoNode},
		"member":  {func(fn func(*View) error) error { return m.View(ctx, fn) }, "/a", "/a /a/open /a/secret /a/secret/below /a/secrets", 0},
	} {
		if err := c.view(func(v *View) error {
			if got := walked(v, c.root); got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
			if _, err := v.Get("/a/secret"); err != nil && codeOf(err) != c.code || err == nil && c.code != 0 {
				t.Errorf("%s: %v, want %v", name, err, c.code)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}
