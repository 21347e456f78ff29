// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// client is a connection of a stand-in for a network listener. It has nothing but the public API: what goes to its
// client is one queue of events and answers, in an order that a client can rely on.
type client struct {
	s    *zk.Session
	l    *zk.Listener
	done chan *zk.Call // of writes, in their order
	held []*zk.Call    // answers whose events may not have been taken yet

	mu     sync.Mutex
	events []zk.Event // delivered, not sent yet

	sent []frame
}

// frame is what a client receives: an event, or an answer.
type frame struct {
	zxid  zk.Zxid
	event bool
	text  string
}

func connect(t *testing.T, ctx context.Context, m *zk.Member, cfg zk.SessionConfig) *client {
	t.Helper()
	c := &client{done: make(chan *zk.Call, 1024)}
	cfg.Events = c.hear
	s, err := m.NewSession(ctx, cfg)
	must(t, err)
	c.s, c.l = s, s.Listener()
	return c
}

// attach connects to a session that exists.
func attach(ctx context.Context, m *zk.Member, id zk.SessionID, password []byte, cfg zk.SessionConfig) (*client, error) {
	c := &client{done: make(chan *zk.Call, 1024)}
	cfg.Events = c.hear
	s, err := m.Attach(ctx, id, password, cfg)
	if err != nil {
		return nil, err
	}
	c.s, c.l = s, s.Listener()
	return c, nil
}

func (c *client) hear(ev zk.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, ev)
}

// pump sends what there is. Events are delivered before the writes of their zxid are answered, so an answer may go out
// once the events that were there after it are out; and an event only after the answers that were there before it.
func (c *client) pump() {
	take := func() {
		for {
			select {
			case call := <-c.done:
				c.held = append(c.held, call)
			default:
				return
			}
		}
	}
	take()
	ready := len(c.held)
	c.mu.Lock()
	events := c.events
	c.events = nil
	c.mu.Unlock()
	take()
	for _, ev := range events {
		for len(c.held) > 0 && c.held[0].Zxid < ev.Zxid {
			c.answer()
			ready--
		}
		c.sent = append(c.sent, frame{ev.Zxid, true, printed(ev)})
	}
	for ; ready > 0; ready-- {
		c.answer()
	}
}

func (c *client) answer() {
	call := c.held[0]
	c.held = c.held[1:]
	text := fmt.Sprint(call.Error)
	if call.Error == nil {
		text = "ok"
	}
	c.sent = append(c.sent, frame{call.Zxid, false, text})
}

// heard pumps, and takes the texts of what was sent.
func (c *client) heard() string {
	c.pump()
	var got []string
	for _, f := range c.sent {
		got = append(got, f.text)
	}
	c.sent = nil
	return strings.Join(got, " ")
}

func (c *client) expect(t *testing.T, what, want string) {
	t.Helper()
	if got := c.heard(); got != want {
		t.Errorf("%s: heard %q, want %q", what, got, want)
	}
}

func (c *client) read(t *testing.T, ctx context.Context, path string, want zk.Code) {
	t.Helper()
	if _, _, _, err := c.l.Read(ctx, path, true); !hasCode(err, want) {
		t.Errorf("get %s: %v", path, err)
	}
}

func (c *client) exists(t *testing.T, ctx context.Context, path string, want bool) {
	t.Helper()
	if _, ok, _, err := c.l.Stat(ctx, path, true); ok != want || err != nil {
		t.Errorf("exists %s: %v, %v", path, ok, err)
	}
}

func (c *client) list(t *testing.T, ctx context.Context, path string, want zk.Code) {
	t.Helper()
	if _, _, _, err := c.l.List(ctx, path, true); !hasCode(err, want) {
		t.Errorf("children %s: %v", path, err)
	}
}

// hasCode matches an error with a code, 0 with none.
func hasCode(err error, code zk.Code) bool {
	return code == 0 && err == nil || code != 0 && errors.Is(err, code)
}

func doAll(t *testing.T, ctx context.Context, s *zk.Session, ops ...zk.Op) {
	t.Helper()
	for _, o := range ops {
		_, err := s.Do(ctx, o)
		must(t, err)
	}
}

func node(path string) zk.Op { return zk.OpCreate(path, nil, zk.Persistent) }
func set(path string) zk.Op  { return zk.OpSet(path, nil, zk.AnyVersion) }
func del(path string) zk.Op  { return zk.OpDelete(path, zk.AnyVersion) }

// The traces, at a client of a stand-in listener: all its watches are one receiver.
func TestTraces(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		m := cl.Member(0)
		c := session(t, ctx, m)
		for _, tc := range []struct {
			name string // of the trace
			w    func(w *client)
			c    []zk.Op
			want string
		}{
			{"TR-1", func(w *client) {
				w.read(t, ctx, "/x", zk.ErrNoNode)
				w.list(t, ctx, "/x", zk.ErrNoNode)
			}, []zk.Op{node("/x"), del("/x")}, ""},
			{"TR-2", func(w *client) { w.exists(t, ctx, "/x", false) }, []zk.Op{node("/x"), set("/x")}, "1:/x"},
			{"TR-3", func(w *client) {
				w.exists(t, ctx, "/x", true)
				w.read(t, ctx, "/x", 0)
			}, []zk.Op{set("/x"), set("/x")}, "3:/x"},
			{"TR-4", func(w *client) {
				w.read(t, ctx, "/x", 0)
				w.list(t, ctx, "/x", 0)
				w.list(t, ctx, "/", 0)
			}, []zk.Op{del("/x"), node("/x"), node("/x/k")}, "2:/x 4:/"},
			{"TR-5", func(w *client) { w.list(t, ctx, "/x", 0) }, []zk.Op{set("/x/k"), set("/x"), del("/x/k"), node("/x/k")}, "4:/x"},
			{"TR-6", func(w *client) { w.read(t, ctx, "/x", 0) }, []zk.Op{node("/x/j"), del("/x/j")}, ""},
			{"TR-7", func(w *client) { must(t, w.l.AddWatch("/x", false)) }, []zk.Op{
				set("/x"), del("/x/k"), node("/x/k"), del("/x/k"), del("/x"), node("/x"), node("/x/k"), node("/x/k/j"), set("/x/k"), del("/x/k/j"),
			}, "3:/x 4:/x 4:/x 4:/x 2:/x 1:/x 4:/x"},
			{"TR-8", func(w *client) { must(t, w.l.AddWatch("/x", true)) },
				[]zk.Op{set("/x"), node("/x/k/z"), set("/x/k/z"), del("/x/k/z")}, "3:/x 1:/x/k/z 3:/x/k/z 2:/x/k/z"},
			{"TR-9", func(w *client) {
				must(t, w.l.AddWatch("/x", true))
				w.list(t, ctx, "/x/k", 0)
			}, []zk.Op{node("/x/k/z"), del("/x/k/z")}, "1:/x/k/z 4:/x/k 2:/x/k/z"},
			{"TR-10", func(w *client) {
				must(t, w.l.AddWatch("/x", true))
				w.read(t, ctx, "/x/k", 0)
			}, []zk.Op{set("/x/k"), set("/x/k")}, "3:/x/k 3:/x/k"},
			{"TR-11", func(w *client) {
				must(t, w.l.AddWatch("/x", true))
				must(t, w.l.AddWatch("/x", false))
			}, []zk.Op{set("/x"), node("/x/n"), del("/x/n")}, "3:/x 1:/x/n 4:/x 2:/x/n 4:/x"},
			{"TR-13", func(w *client) { must(t, w.l.AddWatch("/m", false)) }, []zk.Op{node("/m")}, "1:/m"},
			{"TR-14", func(w *client) {
				must(t, w.l.AddWatch("/m", false))
				must(t, w.l.RemoveWatches("/m", zk.WatchTypeAny))
				wants(t, w.l.RemoveWatches("/m", zk.WatchTypeAny), zk.ErrNoWatch)
				wants(t, w.l.CheckWatches("/m", zk.WatchTypeAny), zk.ErrNoWatch)
			}, []zk.Op{set("/m"), del("/m")}, ""},
		} {
			w := connect(t, ctx, m, zk.SessionConfig{})
			tc.w(w)
			doAll(t, ctx, c, tc.c...)
			w.expect(t, tc.name, tc.want)
			must(t, w.s.Close())
			w.expect(t, tc.name+", the end", "session:closed") // WT-36
		}
		if n := m.Stats().Watches; n != 0 {
			t.Errorf("%d entries are left", n)
		}
		// TR-12: a transaction.
		doAll(t, ctx, c, node("/a"))
		w := connect(t, ctx, m, zk.SessionConfig{})
		w.read(t, ctx, "/a", 0)
		w.exists(t, ctx, "/n", false)
		w.list(t, ctx, "/", 0)
		must(t, w.l.AddWatch("/", true))
		_, err := c.Txn(ctx, set("/a"), set("/a"), node("/n"), del("/n"), node("/n2"))
		must(t, err)
		w.expect(t, "TR-12", "3:/a 3:/a 1:/n 4:/ 2:/n 1:/n2")
		// TR-18: ephemerals of a session that is closed.
		w = connect(t, ctx, m, zk.SessionConfig{})
		s := session(t, ctx, m)
		create(t, ctx, s, "/e1", zk.Ephemeral)
		create(t, ctx, s, "/e2", zk.Ephemeral)
		w.exists(t, ctx, "/e1", true)
		must(t, w.l.AddWatch("/", true))
		must(t, s.Close())
		w.expect(t, "TR-18", "2:/e1 2:/e2")
		// TR-20: the event, then the answer.
		w = connect(t, ctx, m, zk.SessionConfig{})
		w.read(t, ctx, "/x", 0)
		call := w.l.Go(ctx, nil, set("/x"))
		<-call.Done
		w.done <- call
		w.expect(t, "TR-20", "3:/x ok")
	})
}

// A client that comes back registers its watches against the zxid it has seen: what changed since is told at once,
// with zxid -1, whoever may read it, and not registered; the rest is; persistent watches are never told (WT-25,
// WT-32 to WT-34).
func TestSetWatches(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		m := cl.Member(0)
		c := session(t, ctx, m)
		doAll(t, ctx, c, node("/x"), node("/t"))
		const far = 1 << 40
		for _, tc := range []struct {
			name   string
			before []zk.Op // then the client leaves
			away   []zk.Op // while it is away
			since  zk.Zxid // 0: what it has seen
			set    zk.WatchSet
			want   string
			after  []zk.Op
			then   string
		}{
			{"TR-15", nil, []zk.Op{set("/x")}, -1, zk.WatchSet{
				Data: []string{"/x", "/none"}, Exist: []string{"/x", "/none2"}, Child: []string{"/x", "/none3"},
			}, "3:/x 2:/none 1:/x 4:/x 2:/none3", []zk.Op{set("/x"), node("/x/k"), node("/none2"), node("/none"), node("/none3")}, "1:/none2"},
			{"TR-16", nil, nil, far, zk.WatchSet{Data: []string{"/x"}, Child: []string{"/x"}}, "", []zk.Op{set("/x"), node("/x/j")}, "3:/x 4:/x"},
			{"TR-17", nil, []zk.Op{set("/x"), set("/t")}, -1, zk.WatchSet{Persistent: []string{"/x", "/np"}, Recursive: []string{"/t"}}, "",
				[]zk.Op{node("/np"), set("/x"), node("/t/1")}, "1:/np 3:/x 1:/t/1"},
			{"nothing changed", nil, nil, 0, zk.WatchSet{Data: []string{"/x"}, Exist: []string{"/e"}, Child: []string{"/x"}}, "",
				[]zk.Op{node("/e"), set("/e"), set("/x"), node("/x/i")}, "1:/e 3:/x 4:/x"},
			{"nothing changed since it was set", []zk.Op{set("/x")}, nil, 0, zk.WatchSet{Data: []string{"/x"}}, "", []zk.Op{set("/x")}, "3:/x"},
			{"nothing changed since it had a child", []zk.Op{node("/x/h")}, nil, 0, zk.WatchSet{Child: []string{"/x"}}, "", []zk.Op{node("/x/g")}, "4:/x"},
			// WT-34
			{"deleted and created again", []zk.Op{node("/again")}, []zk.Op{del("/again"), node("/again")}, 0, zk.WatchSet{Data: []string{"/again"}}, "3:/again", nil, ""},
			{"created and deleted", nil, []zk.Op{node("/brief"), del("/brief")}, 0, zk.WatchSet{Exist: []string{"/brief"}}, "", []zk.Op{node("/brief")}, "1:/brief"},
			{"a child created and deleted", nil, []zk.Op{node("/t/k"), del("/t/k")}, 0, zk.WatchSet{Child: []string{"/t"}, Data: []string{"/t"}}, "4:/t", []zk.Op{set("/t")}, "3:/t"},
			{"set often", nil, []zk.Op{set("/t"), set("/t"), set("/t")}, 0, zk.WatchSet{Data: []string{"/t"}}, "3:/t", []zk.Op{set("/t")}, ""},
		} {
			w := connect(t, ctx, m, zk.SessionConfig{})
			doAll(t, ctx, c, tc.before...)
			for _, p := range slices.Concat(tc.set.Data, tc.set.Exist) {
				_, _, _, err := w.l.Stat(ctx, p, true)
				must(t, err)
			}
			seen := w.s.LastZxid()
			w.l.Detach()
			w.expect(t, tc.name+", leaving", "session:closed")
			doAll(t, ctx, c, tc.away...)
			back, err := attach(ctx, m, w.s.ID(), w.l.Password(), zk.SessionConfig{})
			must(t, err)
			w.expect(t, tc.name+", away", "") // WT-2, WT-25
			back.expect(t, tc.name+", back", "")
			if tc.since != 0 {
				seen = tc.since
			}
			must(t, back.l.SetWatches(seen, tc.set))
			for _, ev := range back.events {
				if ev.Zxid != -1 { // WT-18
					t.Errorf("%s: catch-up event %+v", tc.name, ev)
				}
			}
			back.expect(t, tc.name, tc.want) // WT-32
			doAll(t, ctx, c, tc.after...)
			back.expect(t, tc.name+", afterwards", tc.then)
			must(t, back.s.Close())
		}
		if n := m.Stats().Watches; n != 0 {
			t.Errorf("%d entries are left", n)
		}
		// WT-33, WT-24: catch-up asks for no permission; later events do.
		_, err := c.Do(ctx, node("/secret").WithACL(zk.ACL{Perm: zk.PermAll &^ zk.PermRead, Scheme: "world", ID: "anyone"}))
		must(t, err)
		w := connect(t, ctx, m, zk.SessionConfig{})
		must(t, w.l.SetWatches(0, zk.WatchSet{Data: []string{"/secret"}, Persistent: []string{"/secret"}}))
		doAll(t, ctx, c, set("/secret"))
		w.expect(t, "secret", "3:/secret")
		// WT-24: a one-shot that may not be told is consumed.
		must(t, w.l.SetWatches(1<<40, zk.WatchSet{Data: []string{"/secret"}}))
		must(t, w.l.CheckWatches("/secret", zk.WatchTypeData))
		doAll(t, ctx, c, set("/secret"))
		w.expect(t, "secret", "")
		wants(t, w.l.CheckWatches("/secret", zk.WatchTypeData), zk.ErrNoWatch)
		// When the session is over nothing is told and nothing registered.
		must(t, w.s.Close())
		w.expect(t, "closed", "session:closed")
		wants(t, w.l.SetWatches(0, zk.WatchSet{Data: []string{"/secret"}}), zk.ErrSessionExpired)
		wants(t, w.l.AddWatch("/x", false), zk.ErrSessionExpired)
		w.expect(t, "closed", "")
	})
}

// Watches are removed and looked for by type, at their exact path, and each by itself (WT-4, WT-27, WT-29).
func TestRemoveWatches(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		m := cl.Member(0)
		c := session(t, ctx, m)
		doAll(t, ctx, c, node("/a"), node("/a/b"))
		other := connect(t, ctx, m, zk.SessionConfig{})
		must(t, other.l.AddWatch("/a", false))
		types := []zk.WatchType{zk.WatchTypeChildren, zk.WatchTypeData, zk.WatchTypeAny, zk.WatchTypePersistent, zk.WatchTypePersistentRecursive}
		for i, remove := range types {
			if int(remove) != i+1 {
				t.Errorf("type %d has the number %d", i+1, remove)
			}
			w := connect(t, ctx, m, zk.SessionConfig{})
			w.read(t, ctx, "/a", 0)
			w.exists(t, ctx, "/a", true)
			w.list(t, ctx, "/a", 0)
			must(t, w.l.AddWatch("/a", false))
			must(t, w.l.AddWatch("/a", true))
			if n := m.Stats().Watches; n != 2+5 { // WT-3, WT-39
				t.Errorf("%d entries", n)
			}
			wants(t, w.l.RemoveWatches("/a/b", remove), zk.ErrNoWatch) // WT-29
			must(t, w.l.CheckWatches("/a", remove))
			must(t, w.l.RemoveWatches("/a", remove))
			wants(t, w.l.RemoveWatches("/a", remove), zk.ErrNoWatch)
			for _, check := range types {
				gone := check == remove || remove == zk.WatchTypeAny
				if err := w.l.CheckWatches("/a", check); gone != errors.Is(err, zk.ErrNoWatch) || !gone && err != nil { // WT-4, WT-27
					t.Errorf("without %d, %d: %v", remove, check, err)
				}
			}
			doAll(t, ctx, c, set("/a"), node("/a/c"), del("/a/c"))
			w.expect(t, fmt.Sprint("without ", remove), []string{
				"3:/a 1:/a/c 4:/a 2:/a/c 4:/a", "3:/a 1:/a/c 4:/a 2:/a/c 4:/a", "", "3:/a 1:/a/c 4:/a 2:/a/c", "3:/a 4:/a 4:/a",
			}[i])
			wants(t, w.l.RemoveWatches("/a", 9), zk.ErrMarshalling) // WT-27
			must(t, w.s.Close())
		}
		other.expect(t, "the other connection", strings.TrimSpace(strings.Repeat("3:/a 4:/a 4:/a ", 5))) // WT-29
		// WT-5: a listener's persistent watch takes any string.
		must(t, other.l.AddWatch("no path", false))
		must(t, other.l.CheckWatches("no path", zk.WatchTypePersistent))
		// Without SessionConfig.Events there is nobody to tell.
		wants(t, c.Listener().AddWatch("/a", false), zk.ErrBadArguments)
		_, _, _, err := c.Listener().Read(ctx, "/a", true)
		wants(t, err, zk.ErrBadArguments)
		wants(t, c.Listener().CheckWatches("/a", zk.WatchTypeAny), zk.ErrNoWatch)
	})
}

// What one connection receives is in the order of zxids, each event before the answer of its zxid and before the first
// read that shows it, each answer in its turn, while others write on every member (CG-2, CG-9, WT-20 to WT-22, TR-20).
func TestClientOrder(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		host := (leader(t, ctx, cl) + 1) % 3
		cl.Network().Latency(0, 3*time.Millisecond)
		setup := session(t, ctx, cl.Member(host))
		doAll(t, ctx, setup, node("/x"), node("/x/mine"), node("/x/other"))
		w := connect(t, ctx, cl.Member(host), zk.SessionConfig{})
		must(t, w.l.AddWatch("/x", true))
		var all sync.WaitGroup
		var stop sync.Once
		writing, cancel := context.WithCancel(ctx)
		for i := range 3 {
			s := session(t, ctx, cl.Member(i))
			all.Go(func() {
				for writing.Err() == nil {
					s.Set(writing, "/x/other", nil, zk.AnyVersion)
				}
			})
		}
		defer all.Wait()
		defer stop.Do(cancel)
		const rounds, batch = 40, 5
		asked, version := 0, int32(0)
		for range rounds {
			for range batch {
				w.l.Go(ctx, w.done, zk.OpSet("/x/mine", fmt.Append(nil, asked), zk.AnyVersion))
				asked++
			}
			// A connection's read waits for the writes before it, and runs where the frames are put in order.
			eventually(t, "a write was not answered", func() bool {
				w.pump()
				answers := 0
				for _, f := range w.sent {
					if !f.event && f.text == "ok" {
						answers++
					}
				}
				return answers == asked
			})
			data, st, z, err := w.l.Read(ctx, "/x/mine", true)
			must(t, err)
			w.pump()
			w.sent = append(w.sent, frame{z, false, "read " + string(data)})
			if version += batch; string(data) != fmt.Sprint(asked-1) || st.Version != version { // CG-2
				t.Fatalf("read %q, version %d, after %d writes", data, st.Version, asked)
			}
		}
		stop.Do(cancel)
		all.Wait()
		synctest.Wait()
		w.pump()
		last, events, own := zk.Zxid(0), 0, 0
		for i, f := range w.sent {
			if f.zxid < last { // CG-9, WT-22
				t.Fatalf("frame %d, %+v, after zxid %v", i, f, last)
			}
			last = f.zxid
			switch {
			case f.event:
				events++
				if f.text == "3:/x/mine" {
					own++
				}
			case f.text == "ok" && !slices.Contains(w.sent[max(0, i-3):i], frame{f.zxid, true, "3:/x/mine"}): // WT-20, WT-21, TR-20
				t.Fatalf("frame %d: the answer of %v came before its event", i, f.zxid)
			}
		}
		if own != asked || events < 2*own {
			t.Errorf("%d events, %d of them its own, of %d writes", events, own, asked)
		}
	})
}

// A connection keeps its session by touching it, takes it along to another member with the password alone, and is driven
// out when another one takes it (WT-2, SS-6, SS-14 to SS-19, TR-22).
func TestClientMoves(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		l := leader(t, ctx, cl)
		a, b := cl.Member((l+1)%3), cl.Member((l+2)%3)
		x := connect(t, ctx, a, zk.SessionConfig{External: true, Timeout: 6 * time.Second, Name: "x"})
		id, password := x.s.ID(), x.l.Password()
		create(t, ctx, x.s, "/e", zk.Ephemeral)
		create(t, ctx, x.s, "/x", zk.Persistent)
		must(t, x.l.AddWatch("/x", false))
		for range 10 { // SS-6: one touch within each timeout is enough
			time.Sleep(3 * time.Second)
			x.l.Touch()
		}
		must(t, x.s.Err())

		// A wrong password, or a session that is not there, harms nobody.
		for _, m := range []*zk.Member{a, b} { // SS-14, SS-16
			_, err := attach(ctx, m, id, []byte("no"), zk.SessionConfig{})
			wants(t, err, zk.ErrAuthFailed)
			_, err = attach(ctx, m, id+1, password, zk.SessionConfig{})
			wants(t, err, zk.ErrSessionExpired)
		}
		doAll(t, ctx, x.s, set("/x"))
		x.expect(t, "after refused attempts", "3:/x")

		// SS-17: what the client has seen is waited for.
		cl.Network().Stall(zktest.Name(l), b.ID())
		doAll(t, ctx, x.s, set("/x"))
		seen := x.s.LastZxid()
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if err := b.WaitZxid(short, seen); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a member that lags has seen %v: %v", seen, err)
		}
		cl.Heal()
		must(t, b.WaitZxid(ctx, seen))
		y, err := attach(ctx, b, id, password, zk.SessionConfig{External: true, Timeout: time.Hour})
		must(t, err)
		if st := y.s.Timeout(); st != 2*time.Minute { // SS-4
			t.Errorf("timeout %v", st)
		}
		list, err := b.Sessions(ctx)
		must(t, err)
		for _, info := range list {
			if info.ID == id && (info.Member != b.ID() || info.Timeout != 2*time.Minute || info.Ephemerals != 1) { // SS-15
				t.Errorf("%+v", info)
			}
		}
		// TR-22: a write through the old handle is refused, by the handle or by the state; the new one's succeeds.
		_, err = x.s.Set(ctx, "/x", nil, zk.AnyVersion)
		wants(t, err, zk.ErrSessionMoved) // SS-18
		doAll(t, ctx, y.s, set("/x"))
		<-x.s.Done()
		wants(t, x.s.Err(), zk.ErrSessionMoved)
		x.expect(t, "the old connection", "3:/x session:closed")
		y.expect(t, "the new connection", "")
		wants(t, y.l.CheckWatches("/x", zk.WatchTypeAny), zk.ErrNoWatch) // WT-2
		if n := a.Stats().Watches; n != 0 {
			t.Errorf("%d entries are left", n)
		}

		// SS-16: on the same member, too; SS-19: as often as they like.
		for i := range 6 {
			z, err := attach(ctx, []*zk.Member{b, b, a}[i%3], id, password, zk.SessionConfig{External: true})
			must(t, err)
			<-y.s.Done()
			wants(t, y.s.Err(), zk.ErrSessionMoved)
			doAll(t, ctx, z.s, set("/x"))
			y = z
		}

		// SS-5: between connections it lives on, until its timeout.
		y.l.Detach()
		y.l.Detach()
		wants(t, y.s.Err(), zk.ErrClosed)
		must(t, y.s.Close())
		time.Sleep(y.s.Timeout() / 2)
		o := session(t, ctx, cl.Member(l))
		if _, ok, _ := o.Exists(ctx, "/e"); !ok {
			t.Error("the ephemeral went with the connection")
		}
		y, err = attach(ctx, b, id, password, zk.SessionConfig{External: true})
		must(t, err)
		y.l.Detach()
		_, _, gone, err := o.ExistsW(ctx, "/e")
		must(t, err)
		began := time.Now()
		if ev := next(t, gone); ev.Type != zk.EventDeleted {
			t.Errorf("%+v", ev)
		}
		if took := time.Since(began); took < y.s.Timeout()/2 || took > 2*y.s.Timeout() {
			t.Errorf("it went %v after the last connection", took)
		}
		_, err = attach(ctx, b, id, password, zk.SessionConfig{})
		wants(t, err, zk.ErrSessionExpired)
	})
}

// A write that was on its way when its session moved was applied before, or is refused by the state (SS-18, SS-21, CG-10).
func TestWriteWhileMoving(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		l := leader(t, ctx, cl)
		a, b := (l+1)%3, (l+2)%3
		x := connect(t, ctx, cl.Member(a), zk.SessionConfig{})
		doAll(t, ctx, x.s, node("/x"))
		before := x.l.Go(ctx, nil, set("/x"))
		<-before.Done
		must(t, before.Error)
		cl.Isolate(a)
		late := x.l.Go(ctx, nil, node("/late"))
		y, err := attach(ctx, cl.Member(b), x.s.ID(), x.l.Password(), zk.SessionConfig{})
		must(t, err)
		doAll(t, ctx, y.s, set("/x"))
		cl.Heal()
		<-late.Done
		wants(t, late.Error, zk.ErrSessionMoved) // SS-21
		if zk.MaybeApplied(late.Error) {
			t.Error("the outcome is called unknown")
		}
		must(t, y.s.Sync(ctx))
		if _, ok, _ := y.s.Exists(ctx, "/late"); ok {
			t.Error("it was applied all the same")
		}
	})
}

// What a connection answers: null data is not empty data, each step of a refused transaction has its code, reads that
// are asked together are answered from one state (DM-8, DM-24, DM-48, DM-49, DM-58, DM-66).
func TestClientAnswers(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		w := connect(t, ctx, cl.Member(0), zk.SessionConfig{})
		doAll(t, ctx, w.s, zk.OpCreate("/null", nil, zk.Persistent), zk.OpCreate("/empty", []byte{}, zk.Persistent),
			node("/d"), node("/d/2"), node("/d/1"), node("/d/1/x"),
			zk.OpCreate("/eph", nil, zk.Ephemeral), zk.OpCreate("/d/eph", nil, zk.Ephemeral), zk.OpCreate("/ep", nil, zk.Ephemeral))
		for path, null := range map[string]bool{"/null": true, "/empty": false} {
			data, st, z, err := w.l.Read(ctx, path, false)
			if (data == nil) != null || len(data) != 0 || st.Czxid == 0 || z != w.s.LastZxid() || err != nil { // DM-24
				t.Errorf("%s: %v %+v %v %v", path, data, st, z, err)
			}
		}
		for prefix, want := range map[string]string{"": "[/d/eph /ep /eph]", "/ep": "[/ep /eph]", "/d/": "[/d/eph]", "/x": "[]"} {
			if paths, _, err := w.l.Ephemerals(ctx, prefix); fmt.Sprint(paths) != want || err != nil { // DM-49
				t.Errorf("ephemerals of %q: %v, %v", prefix, paths, err)
			}
		}
		if n, _, err := w.l.Descendants(ctx, "/d"); n != 4 || err != nil { // DM-48
			t.Errorf("%d descendants, %v", n, err)
		}
		_, _, err := w.l.Descendants(ctx, "/none")
		wants(t, err, zk.ErrNoNode)
		// DM-8: a client's empty path is the root.
		if names, st, _, err := w.l.List(ctx, "", true); err != nil || len(names) != 6 || st.NumChildren != 6 {
			t.Errorf("the empty path: %v %+v %v", names, st, err)
		}
		if n, _, err := w.l.Descendants(ctx, ""); n != 12 || err != nil {
			t.Errorf("%d descendants of the empty path, %v", n, err)
		}
		doAll(t, ctx, w.s, node("/top"))
		w.expect(t, "a child of the empty path", "4:/")

		call := <-w.l.Go(ctx, nil, set("/d"), node("/d/3"), del("/none"), node("/d/4")).Done
		if !slices.Equal(call.Codes, []zk.Code{0, 0, zk.ErrNoNode, zk.ErrInconsistent}) || call.Zxid != w.s.LastZxid() || call.Results != nil { // DM-58
			t.Errorf("%+v", call)
		}
		wants(t, call.Error, zk.ErrNoNode)
		call = <-w.l.Go(ctx, nil).Done
		if call.Error != nil || len(call.Codes) != 0 || call.Zxid != w.s.LastZxid() { // DM-60
			t.Errorf("%+v", call)
		}
		results, z, err := w.l.MultiRead(ctx, zk.ReadRequest{Path: "/null"}, zk.ReadRequest{Path: "/none"}, zk.ReadRequest{Path: "/d", Children: true}, zk.ReadRequest{Path: "/empty"})
		must(t, err)
		if results[0].Data != nil || results[0].Code != 0 || results[1].Code != zk.ErrNoNode || fmt.Sprint(results[2].Names) != "[1 2 eph]" || results[3].Data == nil || z != w.s.LastZxid() { // DM-66
			t.Errorf("%+v at %v", results, z)
		}
		// What cannot be sent is answered at once; a notice that nobody has room for is dropped.
		call = <-w.l.Go(ctx, nil, zk.OpSet("/d", make([]byte, 2<<20), zk.AnyVersion)).Done
		wants(t, call.Error, zk.ErrTooLarge)
		nobody := make(chan *zk.Call)
		w.l.Go(ctx, nobody, set("/d"))
		<-w.l.Go(ctx, nil, set("/d")).Done
		// SS-13, SS-32: behind a close nothing is executed.
		closing := make(chan error, 1)
		first := w.l.Go(ctx, nil, node("/before"))
		go func() { closing <- w.s.Close() }()
		must(t, <-closing)
		call = <-w.l.Go(ctx, nil, node("/behind")).Done
		wants(t, call.Error, zk.ErrClosed)
		must(t, (<-first.Done).Error)
	})
}

// Writes that a closing member answers: only those that were in a frame may have been applied (SS-34).
func TestClientOfClosingMember(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		host := (leader(t, ctx, cl) + 1) % 3
		w := connect(t, ctx, cl.Member(host), zk.SessionConfig{})
		cl.Isolate(host)
		first := w.l.Go(ctx, nil, node("/first"))
		synctest.Wait() // it is in a frame
		second := w.l.Go(ctx, nil, node("/second"))
		must(t, cl.Crash(host))
		for _, tc := range []struct {
			call  *zk.Call
			maybe bool
		}{{first, true}, {second, false}} {
			<-tc.call.Done
			wants(t, tc.call.Error, zk.ErrClosed)
			if zk.MaybeApplied(tc.call.Error) != tc.maybe {
				t.Errorf("%v: %v", tc.call.Ops, tc.call.Error)
			}
		}
		w.expect(t, "the end", "session:closed") // WT-36
	})
}

// A session of a listener is told of its end even if it never watched anything (WT-36).
func TestClientWithoutWatches(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		w := connect(t, ctx, cl.Member(0), zk.SessionConfig{})
		must(t, cl.Expire(ctx, w.s))
		w.expect(t, "the end", "session:expired")
	})
}
