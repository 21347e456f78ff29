// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

func backup(t *testing.T, ctx context.Context, m *zk.Member) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := m.Backup(ctx, &b)
	must(t, err)
	return b.Bytes()
}

// contents lists paths with their data, other than what belongs to the ensemble.
func contents(t *testing.T, ctx context.Context, m *zk.Member) (list []string) {
	t.Helper()
	must(t, m.View(ctx, func(v *zk.View) error {
		for z, err := range v.Walk("/") {
			if err != nil {
				return err
			}
			if z.Path != "/zookeeper/config" {
				list = append(list, fmt.Sprintf("%s=%d:%.20q v%d", z.Path, len(z.Data), z.Data, z.Stat.Version))
			}
		}
		return nil
	}))
	return list
}

// sameEverywhere fails unless all members have the same state.
func sameEverywhere(t *testing.T, ctx context.Context, c *zktest.Cluster) {
	t.Helper()
	must(t, c.Quiesce(ctx))
	want, _ := c.Member(0).Digest()
	for i := range c.Len() {
		if got, z := c.Member(i).Digest(); got != want {
			t.Errorf("member %d has digest %x at %v, member 0 %x", i, got, z, want)
		}
	}
}

// A backup is restored on all members at once, from any of them: what came after it is gone, what belongs to sessions
// is gone, watchers hear what changed and then that their session is over, whoever holds a lock notices, and no
// fencing token is given out twice (D10, HELD-S2, P18).
func TestRestore(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		s := session(t, ctx, c.Member(l))
		for _, p := range []string{"/kept", "/changed", "/gone", "/dir", "/dir/a"} {
			create(t, ctx, s, p, zk.Persistent)
		}
		for i := range 3 { // more than one part
			_, err := s.Create(ctx, fmt.Sprint("/big/", i), bytes.Repeat([]byte{'x'}, 1<<20), zk.Parents)
			must(t, err)
		}
		create(t, ctx, s, "/dir/eph", zk.Ephemeral)
		lock := recipes.NewLock(s, "/lock")
		held, err := lock.Acquire(ctx)
		must(t, err)
		want := contents(t, ctx, c.Member(l))
		want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "/dir/eph") || strings.HasPrefix(s, "/lock/") })
		saved := backup(t, ctx, c.Member(l))
		// A later holder of the lock has a later token.
		must(t, held.Release(ctx))
		held, err = lock.Acquire(ctx)
		must(t, err)
		_, err = s.Set(ctx, "/changed", []byte("later"), zk.AnyVersion)
		must(t, err)
		must(t, s.Delete(ctx, "/gone", zk.AnyVersion))
		create(t, ctx, s, "/new", zk.Persistent)
		create(t, ctx, s, "/dir/b", zk.Persistent)
		must(t, c.Quiesce(ctx))

		type heard struct {
			m *zk.Member
			w *zk.Watch
			s *zk.Session
		}
		var watching []heard
		ro := &client{done: make(chan *zk.Call, 1)}
		for i := range 3 {
			ws := session(t, ctx, c.Member(i))
			w, err := ws.Watch(ctx, "/", zk.WatchSubtree)
			must(t, err)
			watching = append(watching, heard{c.Member(i), w, ws})
		}
		rs, err := c.Member(f).ReadOnlySession(zk.SessionConfig{Events: ro.hear})
		must(t, err)
		for _, p := range []string{"/kept", "/changed", "/gone", "/new", "/dir"} {
			_, _, _, err := rs.Listener().Stat(ctx, p, true)
			must(t, err)
		}
		_, _, _, err = rs.Listener().List(ctx, "/dir", true)
		must(t, err)
		before := c.Member(f).Applied()

		must(t, c.Member(f).Restore(ctx, iotest.HalfReader(bytes.NewReader(saved))))
		restored := c.Member(f).Applied()
		if restored < before+1<<32 {
			t.Errorf("zxid %v after %v", restored, before)
		}
		sameEverywhere(t, ctx, c)
		for i := range 3 {
			if got := contents(t, ctx, c.Member(i)); !slices.Equal(got, want) {
				t.Errorf("member %d has\n%q, want\n%q", i, got, want)
			}
			if st := c.Member(i).Stats(); st.Sessions != 0 || st.Ephemerals != 0 {
				t.Errorf("member %d: %d sessions, %d ephemerals", i, st.Sessions, st.Ephemerals)
			}
			text, _ := readAll(t, ctx, c.Member(i), "/zookeeper/config")
			if strings.Count(text, "server.") != 3 || !strings.Contains(text, fmt.Sprintf("version=%x", int64(restored))) {
				t.Errorf("member %d shows the configuration %q", i, text)
			}
		}
		<-held.Lost()
		if held.Valid() {
			t.Error("the lock is held on")
		}
		for i, h := range watching {
			var got []string
			for ev := range h.w.Events() {
				got = append(got, printed(ev))
			}
			all := strings.Join(got, " ")
			for _, ev := range []string{"3:/changed", "1:/gone", "2:/new", "2:/dir/b", "2:/dir/eph"} {
				if !strings.Contains(all+" ", ev+" ") {
					t.Errorf("member %d: %s is missing in %q", i, ev, all)
				}
			}
			if strings.Contains(all, "/kept") || got[len(got)-1] != "session:expired" {
				t.Errorf("member %d heard %q", i, all)
			}
			<-h.s.Done()
			wants(t, h.s.Err(), zk.ErrSessionExpired)
		}
		ro.pump()
		var got []string
		for _, f := range ro.sent {
			got = append(got, f.text)
		}
		slices.Sort(got)
		if all := strings.Join(got, " "); all != "1:/gone 2:/new 3:/changed 4:/dir" {
			t.Errorf("the read-only session heard %q", all)
		}
		if rs.Err() != nil {
			t.Errorf("the read-only session ended: %v", rs.Err())
		}

		again, err := recipes.NewLock(c.Member(l), "/lock").Acquire(ctx)
		must(t, err)
		if again.Token() <= held.Token() || again.Token() <= zk.Token(restored) {
			t.Errorf("token %v after %v", again.Token(), held.Token())
		}
		must(t, again.Release(ctx))
		for _, compact := range []bool{false, true} { // from the log, and from a snapshot
			if compact {
				must(t, c.Member(f).Compact(ctx))
			}
			for i := range 3 {
				must(t, c.Crash(i))
			}
			for i := range 3 {
				must(t, c.Restart(ctx, i))
			}
			for i := range 3 {
				must(t, c.Member(i).Ready(ctx))
			}
			sameEverywhere(t, ctx, c)
			if got := contents(t, ctx, c.Member(f)); !slices.Equal(without(got, "/lock"), without(want, "/lock")) || c.Member(f).Applied() < restored {
				t.Errorf("after a restart: %q at %v", got, c.Member(f).Applied())
			}
		}
	})
}

func without(list []string, prefix string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.HasPrefix(s, prefix) })
}

func readAll(t *testing.T, ctx context.Context, m *zk.Member, path string) (data string, st zk.Stat) {
	t.Helper()
	must(t, m.View(ctx, func(v *zk.View) error {
		z, err := v.Get(path)
		data, st = z.Data, z.Stat
		return err
	}))
	return data, st
}

// A backup that is damaged, cut short, of a newer format or none at all is refused before anything is written, and so
// is one whose reader fails.
func TestRestoreRefusesDamage(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	for i := range 50 {
		_, err := s.Create(ctx, fmt.Sprint("/n/", i), []byte("data"), zk.Parents)
		must(t, err)
	}
	saved := backup(t, ctx, m)
	before, zxid := m.Digest()
	refused := func(what string, r io.Reader, want zk.Code) {
		t.Helper()
		if err := m.Restore(ctx, r); !errors.Is(err, want) || zk.MaybeApplied(err) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	for i := 0; i < len(saved); i += 7 {
		bad := bytes.Clone(saved)
		bad[i] ^= 0x10
		err := m.Restore(ctx, bytes.NewReader(bad))
		if !errors.Is(err, zk.ErrDataInconsistency) && !errors.Is(err, zk.ErrUnimplemented) {
			t.Fatalf("byte %d: %v", i, err)
		}
		refused("cut short", bytes.NewReader(saved[:i]), zk.ErrDataInconsistency)
	}
	refused("something behind", io.MultiReader(bytes.NewReader(saved), strings.NewReader("x")), zk.ErrDataInconsistency)
	refused("text", strings.NewReader(strings.Repeat("no backup at all ", 100)), zk.ErrDataInconsistency)
	newer := bytes.Clone(saved)
	newer[bytes.IndexByte(saved, '\n')+1]++
	refused("newer", bytes.NewReader(newer), zk.ErrUnimplemented)
	refused("nil", nil, zk.ErrBadArguments)
	broken := errors.New("broken pipe")
	r := io.MultiReader(bytes.NewReader(saved[:100]), iotest.ErrReader(broken))
	if err := m.Restore(ctx, r); !errors.Is(err, broken) || !errors.Is(err, zk.ErrStream) {
		t.Errorf("a reader that fails: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	r = io.MultiReader(bytes.NewReader(saved[:100]), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }))
	if err := m.Restore(ended, r); !errors.Is(err, context.Canceled) || !errors.Is(err, zk.ErrUnavailable) {
		t.Errorf("an ended context: %v", err)
	}
	if after, z := m.Digest(); after != before || z != zxid {
		t.Errorf("the state has changed, from %v to %v", zxid, z)
	}
	if s.Err() != nil || s.State() != zk.StateActive {
		t.Errorf("the session is %v", s.State())
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A backup goes into another ensemble, which stays itself.
func TestRestoreIntoAnotherEnsemble(t *testing.T) {
	ctx, from, s := single(t, zk.Config{})
	create(t, ctx, s, "/a/b", zk.Parents)
	for range 30 {
		_, err := s.Set(ctx, "/a/b", []byte("x"), zk.AnyVersion)
		must(t, err)
	}
	saved := backup(t, ctx, from)
	_, to, other := single(t, zk.Config{})
	// By chance the zxids are the same here and there.
	create(t, ctx, other, "/a/c", zk.Parents)
	for range 30 {
		_, err := other.Set(ctx, "/a/c", []byte("y"), zk.AnyVersion)
		must(t, err)
	}
	w := &client{done: make(chan *zk.Call, 1)}
	rs, err := to.ReadOnlySession(zk.SessionConfig{Events: w.hear})
	must(t, err)
	_, _, _, err = rs.Listener().List(ctx, "/a", true)
	must(t, err)
	cluster := to.ClusterID()
	must(t, to.Restore(ctx, bytes.NewReader(saved)))
	w.s = rs
	w.expect(t, "the difference", "4:/a")
	if to.ClusterID() != cluster || cluster == from.ClusterID() || !slices.Equal(contents(t, ctx, to), contents(t, ctx, from)) {
		t.Errorf("%v: %q", to.ClusterID(), contents(t, ctx, to))
	}
	if text, st := readAll(t, ctx, to, "/zookeeper/config"); text != "" || st.Version != 0 && st.Version != -1 {
		t.Errorf("config shows %q, %+v", text, st)
	}
	if to.Applied() <= from.Applied()+1<<32-1 {
		t.Errorf("zxid is %v after %v", to.Applied(), from.Applied())
	}
}

// A restore whose caller gives up on the way changes nothing, holds up no other one, and no snapshot for long.
func TestRestoreGivenUp(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		s := session(t, ctx, c.Member(l))
		for i := range 4 {
			_, err := s.Create(ctx, fmt.Sprint("/big/", i), bytes.Repeat([]byte{'x'}, 1<<20), zk.Parents)
			must(t, err)
		}
		saved := backup(t, ctx, c.Member(l))
		create(t, ctx, s, "/later", zk.Persistent)
		f := (l + 1) % 3
		m := c.Member(f)
		c.Isolate(f)
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if err := m.Restore(short, bytes.NewReader(saved)); !errors.Is(err, context.DeadlineExceeded) || zk.MaybeApplied(err) {
			t.Errorf("without a leader: %v", err)
		}
		// The part that was under way comes through, and nothing else.
		c.Heal()
		must(t, m.Ready(ctx))
		must(t, c.Member(l).Compact(ctx))
		if _, ok, err := s.Exists(ctx, "/later"); !ok || err != nil || s.Err() != nil {
			t.Errorf("the state has changed: %v, %v", err, s.Err())
		}
		// Of two at once one takes effect, or both do, one after the other.
		errs := make(chan error, 2)
		for _, i := range []int{0, 1} {
			go func() { errs <- c.Member(i).Restore(ctx, bytes.NewReader(saved)) }()
		}
		done := 0
		for range 2 {
			if err := <-errs; err == nil {
				done++
			} else if !errors.Is(err, zk.ErrThrottled) {
				t.Errorf("two at once: %v", err)
			}
		}
		if done == 0 {
			t.Error("both were refused")
		}
		sameEverywhere(t, ctx, c)
		if got := contents(t, ctx, m); len(got) == 0 || slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "/later") }) {
			t.Errorf("%q", got)
		}
		must(t, c.Member(l).Compact(ctx))
	})
}

// A backup reports what its writer returned, and an ended context as such.
func TestBackupErrors(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	create(t, ctx, s, "/a", zk.Persistent)
	broken := errors.New("broken pipe")
	if _, err := m.Backup(ctx, writerFunc(func([]byte) (int, error) { return 0, broken })); !errors.Is(err, broken) || !errors.Is(err, zk.ErrStream) {
		t.Errorf("a writer that fails: %v", err)
	}
	if _, err := m.Backup(ctx, writerFunc(func(p []byte) (int, error) { return len(p) / 2, nil })); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a writer that writes half: %v", err)
	}
	cause := errors.New("no time")
	ended, cancel := context.WithCancelCause(ctx)
	_, err := m.Backup(ended, writerFunc(func(p []byte) (int, error) { cancel(cause); return len(p), nil }))
	if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) || !errors.Is(err, zk.ErrUnavailable) {
		t.Errorf("an ended context: %v", err)
	}
	_, err = m.Backup(ctx, nil)
	wants(t, err, zk.ErrBadArguments)
	if kept := m.Stats().KeptBytes; kept != 0 {
		t.Errorf("%d bytes are kept", kept)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// While a backup is on its way members crash, start again and want snapshots: they all come to the same state, because
// none takes a snapshot before the backup has taken effect (D33).
func TestRestoreOutlastsCrashes(t *testing.T) {
	var parts atomic.Int64
	var cut func()
	base := zk.Config{}
	base.Hooks.OpDone = func(i zk.OpInfo) {
		if i.Op == "restore" && parts.Add(1) == 3 {
			cut()
		}
	}
	bubble(t, 3, zktest.Config{Base: base}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f, other := (l+1)%3, (l+2)%3
		cut = func() { c.Isolate(f) }
		s := session(t, ctx, c.Member(l))
		for i := range 6 {
			_, err := s.Create(ctx, fmt.Sprint("/big/", i), bytes.Repeat([]byte{'x'}, 1<<20), zk.Parents)
			must(t, err)
		}
		saved := backup(t, ctx, c.Member(l))
		create(t, ctx, s, "/later", zk.Persistent)
		done := make(chan error, 1)
		go func() { done <- c.Member(f).Restore(ctx, bytes.NewReader(saved)) }()
		eventually(t, "parts are under way", func() bool { return parts.Load() == 3 })
		for _, i := range []int{l, other} {
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			if err := c.Member(i).Compact(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a snapshot amid a restore: %v", err)
			}
			cancel()
		}
		must(t, c.Crash(other))
		must(t, c.Restart(ctx, other))
		must(t, c.Member(other).Ready(ctx))
		if got := contents(t, ctx, c.Member(other)); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "/later") }) {
			t.Error("a part has changed something")
		}
		c.Heal()
		must(t, <-done)
		sameEverywhere(t, ctx, c)
		for i := range 3 {
			must(t, c.Member(i).Compact(ctx))
			if got := contents(t, ctx, c.Member(i)); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "/later") }) {
				t.Errorf("member %d has %q", i, got)
			}
		}
	})
}

// A backup whose clock was ahead takes the leader's along: times of znodes do not stand still until the present has
// caught up (D19).
func TestRestoreFromTheFuture(t *testing.T) {
	var saved []byte
	bubble(t, 1, zktest.Config{Base: zk.Config{Now: func() time.Time { return time.Now().Add(time.Hour) }}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		create(t, ctx, session(t, ctx, c.Member(0)), "/old", zk.Persistent)
		saved = backup(t, ctx, c.Member(0))
	})
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		must(t, c.Member((leader(t, ctx, c)+1)%3).Restore(ctx, bytes.NewReader(saved)))
		s := session(t, ctx, c.Member(0))
		_, old := readAll(t, ctx, c.Member(0), "/old")
		last := old.Ctime
		for i := range 3 {
			time.Sleep(time.Minute) // of the bubble
			st := create(t, ctx, s, fmt.Sprint("/", i), zk.Persistent).Stat
			if st.Ctime.Sub(last) < time.Minute {
				t.Errorf("created at %v, a minute after %v", st.Ctime, last)
			}
			last = st.Ctime
		}
	})
}

// A member that dies in the middle of a restore leaves nothing behind for long, even where nothing else is written.
func TestRestoreOfTheDead(t *testing.T) {
	var parts atomic.Int64
	var cut func()
	base := zk.Config{}
	base.Hooks.OpDone = func(i zk.OpInfo) {
		if i.Op == "restore" && parts.Add(1) == 2 {
			cut()
		}
	}
	bubble(t, 3, zktest.Config{Base: base}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		cut = func() { c.Isolate(f) }
		s := session(t, ctx, c.Member(l))
		for i := range 4 {
			_, err := s.Create(ctx, fmt.Sprint("/big/", i), bytes.Repeat([]byte{'x'}, 1<<20), zk.Parents)
			must(t, err)
		}
		saved := backup(t, ctx, c.Member(l))
		done := make(chan error, 1)
		go func() { done <- c.Member(f).Restore(ctx, bytes.NewReader(saved)) }()
		eventually(t, "parts are under way", func() bool { return parts.Load() == 2 })
		must(t, c.Crash(f))
		wants(t, <-done, zk.ErrClosed)
		before := c.Member(l).Applied()
		began := time.Now()
		must(t, c.Member(l).Compact(ctx))
		if took := time.Since(began); took < 30*time.Second || took > 2*time.Minute {
			t.Errorf("a snapshot waited %v", took)
		}
		if z := c.Member(l).Applied(); z > before+2 {
			t.Errorf("%v after %v", z, before)
		}
		must(t, s.Sync(ctx))
		c.Heal()
	})
}
